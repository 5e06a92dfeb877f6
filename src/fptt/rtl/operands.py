"""Operands for testing arithmetic: every exponent pair, corners, ties, cancellation, both edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fptt.rtl.formats import FloatFormat

Words = NDArray[np.int64]
Pair = tuple[Words, Words]


def corners(format: FloatFormat) -> Words:
    """Numbers at which something changes, of both signs: zeros, subnormals, 1, Inf, NaN, ...

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> 0x0080 in corners(BFLOAT16), 0xFF80 in corners(BFLOAT16)  # least normal, -Inf
        (True, True)
    """
    least = 1 << format.fraction_bits
    largest = format.infinity - 1
    magnitudes = {
        *(0, 1, 2, 3, least // 2, least - 2, least - 1, least, least + 1, 2 * least - 1, 2 * least),
        *(format.one - 2, format.one - 1, format.one, format.one + 1, format.one + 2),
        *(format.one - least, format.one + least, format.one + least + 1),
        *(largest - least, largest - least + 1, largest - 1, largest, format.infinity),
        *(format.infinity + 1, format.nan, format.nan + 1, format.sign - 1),
    }
    values = np.array(sorted(magnitudes), np.int64)
    return np.concatenate([values, values | format.sign])


def pairs(
    format: FloatFormat, rng: np.random.Generator, count: int
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """About `count` random and directed pairs of operands.

    All pairs of `corners` come first, then every pair of exponents once (65,536 for 8 bits) with
    random signs and fractions; what is left up to `count` are random bits and each kind of
    directed cases in equal shares.

    Args:
        format: of the operands.
        rng: random numbers.
        count: of pairs; as many as asked for, unless the first two groups have more.

    Returns:
        a and b, `format.bits_dtype`.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> len(pairs(BFLOAT16, np.random.default_rng(0), 100_000)[0])
        100000
    """
    made = _Cases(format, rng)
    groups = [made.corner_pairs(), made.exponent_pairs()]
    rest = count - sum(len(a) for a, _ in groups)
    kinds = list(made.kinds())
    for number in range(len(kinds)):
        share = max(rest, 0) // len(kinds) + (number < max(rest, 0) % len(kinds))
        groups.append(kinds[number](share))
    a, b = (np.concatenate([group[side] for group in groups]) for side in (0, 1))
    # a swapped pair of exponents would be another one, seen twice
    whole = sum(len(group[0]) for group in groups[:2])
    swap = (rng.integers(0, 2, len(a)) > 0) & (np.arange(len(a)) >= whole)
    dtype = format.bits_dtype
    return np.where(swap, b, a).astype(dtype), np.where(swap, a, b).astype(dtype)


class _Cases:
    """Makes pairs of one kind at a time; a sum or a product is meant where one is named."""

    def __init__(self, format: FloatFormat, rng: np.random.Generator) -> None:
        self.format, self.rng = format, rng

    def kinds(self) -> Iterator[Callable[[int], Pair]]:
        yield from (
            self.random,
            self.near_exponents,
            self.cancelling,
            self.half_way_sums,
            self.half_way_products,
            self.edges_of_sums,
            self.edges_of_products,
            self.with_corner,
        )

    def corner_pairs(self) -> Pair:
        a, b = np.meshgrid(corners(self.format), corners(self.format))
        return a.ravel(), b.ravel()

    def exponent_pairs(self) -> Pair:
        every = np.arange(self.format.exponent_max + 1, dtype=np.int64)
        a, b = (e.ravel() for e in np.meshgrid(every, every))
        return self.joined(a), self.joined(b)

    def random(self, n: int) -> Pair:
        return self.bits(n), self.bits(n)

    def near_exponents(self, n: int) -> Pair:
        """Exponents so far apart that the significands still touch, or just do not."""
        a = self.bits(n)
        reach = self.format.precision + 4
        return a, self.joined(self.exponent(a) + self.rng.integers(-reach, reach + 1, n))

    def cancelling(self, n: int) -> Pair:
        """Differences with 1 to all of the leading bits gone."""
        f, rng = self.format, self.rng
        a = self.bits(n)
        keep = rng.integers(0, f.fraction_bits + 1, n)
        noise = rng.integers(0, 1 << f.fraction_bits, n) >> keep
        same = a ^ f.sign ^ noise
        # 1.00..0x against 1.11..1x of the exponent below
        exponent = rng.integers(1, f.exponent_max, n)
        low = self.joined(exponent, noise, np.zeros(n, np.int64))
        high = self.joined(exponent - 1, noise ^ ((1 << f.fraction_bits) - 1), np.ones(n, np.int64))
        neighbour = rng.integers(0, 3, n) == 0
        return np.where(neighbour, low, a), np.where(neighbour, high, same)

    def half_way_sums(self, n: int) -> Pair:
        """The smaller operand half a unit in the last place of the larger one, or nearly so."""
        f, rng = self.format, self.rng
        exponent = rng.integers(1, f.exponent_max, n)
        distance = rng.integers(f.fraction_bits - 1, f.fraction_bits + 4, n)
        few = rng.integers(0, 2, n) << rng.integers(0, f.fraction_bits, n)
        few = np.where(rng.integers(0, 4, n) == 0, (1 << f.fraction_bits) - 1 - few, few)
        fraction = rng.integers(0, 1 << f.fraction_bits, n)
        fraction = np.where(rng.integers(0, 3, n) == 0, few, fraction)
        return self.joined(exponent, fraction), self.joined(exponent - distance, few)

    def half_way_products(self, n: int) -> Pair:
        """Significands with p + 1 bits together (or one more): their products end in the guard."""
        f, rng = self.format, self.rng
        first = rng.integers(1, f.precision + 1, n)
        second = np.minimum(f.precision + 1 - first + rng.integers(0, 2, n), f.precision)
        a, b = (
            rng.integers(0, 1 << f.fraction_bits, n) >> f.precision - size << f.precision - size
            for size in (first, second)
        )
        # the last bit that counts is 1
        a = (a | 1 << f.precision - first) & ((1 << f.fraction_bits) - 1)
        b = (b | 1 << f.precision - second) & ((1 << f.fraction_bits) - 1)
        exponent = rng.integers(0, f.exponent_max, n)
        wanted = f.bias + np.where(rng.integers(0, 2, n) > 0, exponent, rng.integers(-30, 4, n))
        return self.joined(exponent, a), self.joined(wanted - exponent, b)

    def edges_of_sums(self, n: int) -> Pair:
        """Near Inf, or with the exponents at which a difference becomes subnormal."""
        f, rng = self.format, self.rng
        top = f.exponent_max - rng.integers(0, 4, n)
        bottom = rng.integers(0, f.precision + 3, n)
        a = np.where(rng.integers(0, 2, n) > 0, top, bottom)
        ones = rng.integers(0, 1 << f.fraction_bits, n) | (1 << f.fraction_bits) - 4
        random = rng.integers(0, 1 << f.fraction_bits, n)
        fraction = np.where(rng.integers(0, 2, n) > 0, ones, random)
        return self.joined(a, fraction), self.joined(a - rng.integers(0, 3, n))

    def edges_of_products(self, n: int) -> Pair:
        """Products around the largest number, the least normal one and the least subnormal one."""
        f, rng = self.format, self.rng
        a = rng.integers(0, f.exponent_max, n)
        over = f.bias + f.exponent_max - rng.integers(-1, 4, n)
        under = f.bias + rng.integers(-f.precision - 3, 4, n)
        wanted = np.where(rng.integers(0, 2, n) > 0, over, under)
        # large fractions in both, so that rounding carries over the edge
        ones = rng.integers(0, 1 << f.fraction_bits, (2, n)) >> rng.integers(0, f.fraction_bits, n)
        ones = (1 << f.fraction_bits) - 1 - ones
        zero = rng.integers(0, 1 << f.fraction_bits, n) * rng.integers(0, 2, n)
        x = np.where(rng.integers(0, 3, n) > 0, ones[0], zero)
        return self.joined(a, x), self.joined(wanted - a, ones[1])

    def with_corner(self, n: int) -> Pair:
        return self.rng.choice(corners(self.format), n), self.bits(n)

    def bits(self, n: int) -> Words:
        return self.rng.integers(0, 1 << self.format.width, n)

    def exponent(self, words: Words) -> Words:
        return words >> self.format.fraction_bits & self.format.exponent_max

    def joined(
        self, exponent: Words, fraction: Words | None = None, sign: Words | None = None
    ) -> Words:
        """Bits from fields; an exponent that does not exist becomes the nearest, fields that are
        not given are random."""
        f, n = self.format, len(exponent)
        if fraction is None:
            fraction = self.rng.integers(0, 1 << f.fraction_bits, n)
        if sign is None:
            sign = self.rng.integers(0, 2, n)
        exponent = np.clip(exponent, 0, f.exponent_max)
        return sign << f.width - 1 | exponent << f.fraction_bits | fraction
