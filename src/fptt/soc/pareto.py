"""Which of several choices no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(values: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each choice lies on the Pareto front: less is better in every figure.

    A choice is beaten by another one that is nowhere worse and somewhere better. Of equal choices
    none beats the other, so all of them stand on the front or none.

    In lexicographic order whoever beats a choice comes before it, and what is beaten need not be
    kept: n log n comparisons to sort, and n times the size of the front.

    Args:
        values: for every choice its figures, in the same order and as many for each; no NaN.

    Returns:
        One bool for every choice.

    Example:
        >>> front([(1, 9), (2, 5), (3, 5), (2, 5), (9, 1)])
        [True, True, False, True, True]
    """
    on = [False] * len(values)
    kept: list[Sequence[float]] = []
    for index in sorted(range(len(values)), key=lambda i: tuple(values[i])):
        own = values[index]
        if not any(_beats(other, own) for other in kept):
            on[index] = True
            if not kept or tuple(kept[-1]) != tuple(own):  # equal ones follow each other
                kept.append(own)
    return on


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    better = False
    for a, b in zip(one, other, strict=True):
        if a > b:
            return False
        better = better or a < b
    return better
