"""What `fptt bench` measures: networks, batches and parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.program import Program, build
from fptt.runs import NetworkChoice, make_optimizer, make_rule

BATCHES = (1, 4, 128)
#: K of the standard cases, and T, with which every step learns
PARTS = (1, 28)


@dataclass(frozen=True)
class Case:
    """One training that is measured: recurrent layers and a Linear readout on random numbers.

    Attributes:
        cell, layers, hidden: of the network.
        batch, parts, steps: rows, K and T.
        threads: of every side.
        rule, optimizer, momentum: how it learns.
        inputs, outputs: features of a step, and classes.
        lr: small enough that training on one batch for minutes stays finite.
    """

    cell: str = "lstm"
    layers: int = 1
    hidden: int = 128
    batch: int = 4
    parts: int = 28
    steps: int = 784
    threads: int = 1
    rule: str = "fptt"
    optimizer: str = "sgd"
    momentum: float = 0.9
    inputs: int = 1
    outputs: int = 10
    lr: float = 1e-3

    @property
    def name(self) -> str:
        """In words.

        >>> Case(layers=2).name
        'lstm 1-128-128-10, batch 4, K=28'
        """
        widths = "-".join(map(str, [self.inputs, *[self.hidden] * self.layers, self.outputs]))
        return f"{self.cell} {widths}, batch {self.batch}, K={self.parts}"

    def program(self) -> Program:
        """Its training program.

        Raises:
            InputError: values that do not fit together.
        """
        choice = NetworkChoice(self.cell, self.hidden, self.layers)
        return build(
            choice.network(self.inputs, self.outputs),
            make_rule(self.rule, self.parts),
            make_optimizer(self.optimizer, self.lr, self.momentum),
            steps=self.steps,
            batch=self.batch,
        )

    def data(self, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """A batch of random sequences and labels."""
        random = np.random.default_rng(seed)
        x = random.standard_normal((self.batch, self.steps, self.inputs)).astype(np.float32)
        return x, random.integers(0, self.outputs, self.batch).astype(np.int32)


def cases(
    cells: Sequence[str] = ("lstm",),
    layers: Sequence[int] = (1,),
    hidden: Sequence[int] = (128,),
    batches: Sequence[int] | None = None,
    parts: Sequence[int] | None = None,
    *,
    steps: int = 784,
    threads: int = 1,
    rule: str = "fptt",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    sizes: bool = False,
    quick: bool = False,
) -> list[Case]:
    """Every combination; without `parts` K = 1, 28 and T, and 1 for BPTT.

    Args:
        cells, layers, hidden, batches, parts: what varies, the last fastest.
        steps, threads, rule, optimizer, momentum: of all.
        sizes: other networks instead: 32 and 512 cells, GRU, two layers.
        quick: without batches or parts, fewer of them.

    Raises:
        InputError: a combination that cannot be built.

    Example:
        >>> [case.parts for case in cases(batches=[4])]
        [1, 28, 784]
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; give at least 1")
    if batches is None:
        batches = BATCHES[:2] if quick else BATCHES
    if parts is None:
        every = () if quick else (steps,)
        parts = [1] if rule == "bptt" else sorted({min(k, steps) for k in (*PARTS, *every)})
    shared: dict[str, Any] = {
        "steps": steps,
        "threads": threads,
        "rule": rule,
        "optimizer": optimizer,
        "momentum": momentum,
    }
    if sizes:
        k = 1 if rule == "bptt" else min(28, steps)
        networks = (("lstm", 1, 32), ("lstm", 1, 512), ("gru", 1, 128), ("lstm", 2, 128))
        found = [Case(*network, 4, k, **shared) for network in networks]
    else:
        found = [
            Case(*chosen, **shared) for chosen in product(cells, layers, hidden, batches, parts)
        ]
    for case in found:
        # complains now, not after minutes
        if unknown := case.program().without_kernel:
            raise InputError(
                f"bench: the engine, which is measured, has no kernel for {', '.join(unknown)}, "
                f"so not for --cell {case.cell}; choose lstm, gru or rnn"
            )
    return found
