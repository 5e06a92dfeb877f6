"""Draws training programs and data for them: any legal network under any rule.

    @given(cases())
    def test_something(case):
        trainer = case.trainer(some_interpreter)
        trainer.train_batch(case.x, case.y, case.lengths)

Everything is small (T <= 6, widths <= 5), so that a test may look at every byte of every operation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

import fptt
from fptt.program import Program
from fptt.trainer import Trainer

DTYPES = ("float64", "float32", "bfloat16")


def examples(count: int) -> int:
    """Number of examples to draw; FPTT_EXAMPLES=10 draws ten times as many."""
    return max(1, round(count * float(os.environ.get("FPTT_EXAMPLES", "1"))))


@dataclass(frozen=True)
class Case:
    """A program, and a batch for it."""

    program: Program
    x: np.ndarray
    y: np.ndarray
    lengths: list[int] | None

    def __repr__(self) -> str:
        p = self.program
        return (
            f"Case(net={p.net}, rule={p.rule}, optimizer={p.optimizer}, loss={p.schedule}, "
            f"{p.criterion}, steps={p.steps}, batch={p.batch}, {p.dtype}/{p.activation_dtype}, "
            f"clip={p.clip}, train={p.train}, keep_gradients={p.keep_gradients}, "
            f"recompute={p.recompute}, "
            f"x={self.x.shape}, lengths={self.lengths})"
        )

    def _repr_pretty_(self, printer, cycle) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass

    def trainer(self, backend: Any = None, seed: int = 3) -> Trainer:
        """A fresh trainer; `backend` takes the place of its own memory."""
        return trainer_on(self.program, backend, seed)

    def train(self, trainer: Trainer) -> list[float]:
        """Two batches, an end of epoch, a third batch; returns the losses."""
        losses = [trainer.train_batch(self.x, self.y, self.lengths) for _ in range(2)]
        trainer.end_epoch()
        return [*losses, trainer.train_batch(self.x, self.y, self.lengths)]


def trainer_on(program: Program, backend: Any = None, seed: int = 3) -> Trainer:
    """A trainer that starts from the weights of `seed` on the given memory."""
    return Trainer(program, "reference" if backend is None else backend, seed=seed)


#: layers above an embedding, and those of them that only the reference runs
KINDS = ("LSTM", "GRU", "RNN", "Linear", "ReLU", "Dropout")
REFERENCE_KINDS = ("ElementwiseLSTM", "LRU", "LIF", "ALIF", "LTC", "LeakyIntegrator")
#: those whose gradient is no slope of their output
SPIKING_KINDS = ("LIF", "ALIF", "LTC")


@st.composite
def networks(draw, *, engine: bool = False, spikes: bool = True) -> fptt.Network:
    """Any stack of up to five layers that fits; adapters on some matrices of a third of them.

    With `engine`, only layers that the engine runs; without `spikes`, none that spike.
    """
    widths = st.integers(1, 5)
    layers: list[Any] = []
    if draw(st.integers(0, 3)) == 0:
        width = draw(widths)
        layers.append(fptt.Embedding(draw(st.integers(1, 6)), width))
    else:
        width = draw(widths)
    kinds = KINDS if engine else KINDS + REFERENCE_KINDS
    kinds = [kind for kind in kinds if spikes or kind not in SPIKING_KINDS]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        if kind == "ReLU":
            layers.append(fptt.ReLU())
        elif kind == "Dropout":
            layers.append(fptt.Dropout(draw(st.sampled_from((0.0, 0.25, 0.5)))))
        else:
            above = draw(widths)
            layers.append(getattr(fptt, kind)(width, above))
            width = layers[-1].width(width)
    if not any(layer.parameters() for layer in layers):
        layers.append(fptt.Linear(width, draw(widths)))
    net = fptt.Network(layers)
    small = [
        name
        for index, layer in enumerate(layers)
        for name in (f"{index}.{own}" for own in layer.adaptable)
        if sum(net.parameters[name].shape) < np.prod(net.parameters[name].shape)
    ]
    if small and draw(st.integers(0, 2)) == 0:
        chosen = draw(st.lists(st.sampled_from(small), min_size=1, max_size=3, unique=True))
        return net.adapted(dict.fromkeys(chosen, 1))
    return net


@st.composite
def rules(draw, steps: int) -> Any:
    """BPTT, TBPTT or FPTT with any of their options; K from 1 to T."""
    state = draw(st.sampled_from(("reset", "carry")))
    kind = draw(st.sampled_from(("BPTT", "TBPTT", "code", "paper", "no R")))
    if kind == "BPTT":
        return fptt.BPTT(state=state)
    parts = draw(st.integers(1, steps))
    if kind == "TBPTT":
        return fptt.TBPTT(parts=parts, state=state)
    return fptt.FPTT(
        parts=parts,
        state=state,
        alpha=draw(st.sampled_from((0.1, 0.5))),
        beta=draw(st.sampled_from((0.25, 0.5, 1.0))),
        mode="paper" if kind == "paper" else "code",
        regularise=kind != "no R",
        epoch_end=draw(st.sampled_from(("average", "keep"))),
        epoch_lambda=draw(st.sampled_from(("zero", "keep"))),
    )


OPTIMIZERS = (fptt.SGD(lr=0.05), fptt.SGD(lr=0.05, momentum=0.9), fptt.Adam(lr=0.01))
LOSSES = ("last", "every_step", fptt.Auxiliary(rate=0.3), fptt.Auxiliary(rate=0.3, per_part=True))


def served(net: fptt.Network) -> list[str]:
    """The forward-mode gradient sources that every layer of a network serves."""
    recurrent = [layer for layer in net.layers if layer.recurrent]
    if net.adapters or not recurrent:
        return []
    return sorted(frozenset.intersection(*(layer.sources for layer in recurrent)))


@st.composite
def cases(
    draw,
    *,
    dtypes=DTYPES,
    labelled: bool = False,
    rule=None,
    optimizer=None,
    engine: bool = False,
    spikes: bool = True,
    sources: bool = False,
) -> Case:
    """A program and data.

    Args:
        dtypes: to choose dtype and activation_dtype from.
        labelled: give every step a label where there is one for every step.
        rule, optimizer: these instead of any.
        engine: only layers that the engine runs.
        spikes: also layers whose gradient is no slope of their output.
        sources: gradient sources besides BPTT, too, where the network serves them.
    """
    net = draw(networks(engine=engine, spikes=spikes))
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rule = rule or draw(rules(steps))
    recompute = draw(st.booleans())
    if sources and (source := draw(st.sampled_from(["bptt", *served(net)]))) != "bptt":
        recompute = False
        rule = fptt.TBPTT(state=rule.state) if isinstance(rule, fptt.BPTT) else rule
        rule = replace(rule, source=source)
    loss = draw(st.sampled_from(LOSSES))
    criteria = ("cross_entropy",) if isinstance(loss, fptt.Auxiliary) else ("cross_entropy", "mse")
    names = [name for name in net.parameters if name not in net.adapters]
    program = fptt.build(
        net,
        rule,
        optimizer or draw(st.sampled_from(OPTIMIZERS)),
        steps=steps,
        batch=batch,
        loss=loss,
        criterion=draw(st.sampled_from(criteria)),
        dtype=draw(st.sampled_from(dtypes)),
        activation_dtype=draw(st.sampled_from((None, *dtypes))),
        clip=draw(st.sampled_from((None, 0.1, 10.0))),
        train=draw(st.just(["*"]) | st.lists(st.sampled_from(names), min_size=1, unique=True)),
        keep_gradients=draw(st.booleans()),
        recompute=recompute,
    )
    rows = draw(st.integers(1, batch))
    given_steps = draw(st.just(steps) | st.integers(1, steps))
    lengths = draw(st.none() | st.lists(st.integers(1, given_steps), min_size=rows, max_size=rows))
    x, y = random_batch(program, rows, given_steps, draw(st.integers(0, 2**32 - 1)))
    every_label = program.schedule.every_step and program.criterion == "cross_entropy"
    if every_label and not labelled:
        absent = draw(
            st.lists(st.booleans(), min_size=rows * given_steps, max_size=rows * given_steps)
        )
        y[np.array(absent).reshape(y.shape)] = -1
    return Case(program, x, y, lengths)


def random_batch(
    program: Program, rows: int, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """x and y that fit a program, every row or step labelled."""
    rng, net = np.random.default_rng(seed), program.net
    x = (
        rng.integers(0, net.tokens, (rows, steps))
        if net.tokens
        else rng.normal(size=(rows, steps, net.inputs)).astype(np.float32)
    )
    shape = (rows, steps) if program.schedule.every_step else (rows,)
    if program.criterion == "mse":
        return x, rng.normal(size=(*shape, net.outputs))
    return x, rng.integers(0, net.outputs, shape)
