"""Small training: what each saving costs in accuracy on the demo's changed user.

All ways start from the demo's model and learn the demo's digits by FPTT with plain SGD, each in
float32 and in bfloat16 with stochastic rounding. Weights that do not train are constants, which a
device keeps in flash; the rest, with all that training needs besides, is the arena.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from fptt.studies.demo import (
    DemoSettings,
    Judge,
    Run,
    adapt,
    demo_digits,
    demo_model,
    updates,
)
from fptt.studies.formats import FORMATS
from fptt.tasks import load
from fptt.tasks.mnist import SIDE

#: names of formats.FORMATS
USED_FORMATS = ("float32", "bfloat16 stochastic")

READOUT = ("1.*",)
#: rank 4 on the recurrent weights
ADAPTERS = {"0.weight_hh": 4}


@dataclass(frozen=True)
class Way:
    """One way to train in little memory.

    Attributes:
        trains: what trains, in words.
        run: everything else, in float32. The label is given at the end of each row of pixels.
        batch: digits that are learnt from together.
    """

    trains: str
    run: Run
    batch: int = 1


def _fptt(parts: int, lr: float, **options: Any) -> Run:
    return Run("FPTT", parts, lr, 10, SIDE, **options)


#: The rates were chosen on other images than those that judge here, in float32:
#: `tools/demo_rates.py --small`.
WAYS = (
    Way("everything", _fptt(28, 0.001), batch=4),
    Way("everything", _fptt(28, 0.001, recompute=True), batch=4),
    Way("everything", _fptt(28, 0.0003)),
    Way("everything", _fptt(784, 0.0003)),
    Way("recurrent weights", _fptt(28, 0.0006, train=("0.weight_hh",))),
    Way("biases", _fptt(28, 0.0001, train=("*.bias*",))),
    Way(
        "adapters, readout",
        _fptt(28, 0.0003, train=READOUT, adapters=ADAPTERS, recompute=True),
    ),
    Way(
        "adapters, readout",
        _fptt(784, 0.003, train=READOUT, adapters=ADAPTERS, recompute=True),
    ),
    Way("readout", _fptt(28, 0.003, train=READOUT)),
    # the updates are those of K = 28: a part without a label makes none
    Way("readout", _fptt(784, 0.003, train=READOUT)),
)

#: to see that it works
QUICK = DemoSettings(learn=1, judge=3, old=3)


@dataclass(frozen=True)
class SmallRow:
    """One way in one format. Accuracies are shares, 0 to 1.

    Attributes:
        trains, batch: as in `Way`.
        parts, lr, recompute: K, the initial rate, whether gates are computed again.
        format: a name of `formats.FORMATS`.
        trained: numbers that train.
        updates: of them, in all.
        arena_bytes: exact memory of training.
        const_bytes: exact constant data: the weights that do not train.
        new_before, new_after: accuracy on the new user's digits, before and after learning.
        old_before, old_after: on the unchanged digits of everybody else: what was forgotten.
        seconds: time of training.
    """

    trains: str
    parts: int
    batch: int
    recompute: bool
    lr: float
    format: str
    trained: int
    updates: int
    arena_bytes: int
    const_bytes: int
    new_before: float
    new_after: float
    old_before: float
    old_after: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


def small(
    ways: Sequence[Way] = WAYS,
    *,
    settings: DemoSettings | None = None,
    epochs: int | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> list[SmallRow]:
    """Personalises the demo's model in every way and format.

    Args:
        ways: how to train.
        settings: the model, the digits and the seed (of order, rounding and adapters); its runs and
            batch do not count.
        epochs: passes over the new user's digits; those of the ways by default.
        on_progress: called with what runs and the share that is done.

    Returns:
        The formats of the first way, those of the second, and so on.

    Raises:
        InputError: more images than there are, or a way of training that is none.
    """
    settings = settings or DemoSettings()
    net = demo_model(settings.model).net
    digits = demo_digits(load("s-mnist", subset=True).test, settings)
    judge = Judge(net, digits)
    assert net.weights is not None
    before = judge.accuracies(net.weights)
    rows = []
    for number, (way, name) in enumerate((way, name) for way in ways for name in USED_FORMATS):
        if on_progress:
            on_progress(
                f"{way.trains}, K={way.run.parts}, batch {way.batch}, {name}",
                number / (len(ways) * len(USED_FORMATS)),
            )
        run = replace(way.run, epochs=epochs or way.run.epochs, **FORMATS[name])
        its_settings = replace(settings, batch=way.batch)
        started = time.perf_counter()
        trainer = adapt(net, run, digits.learn, its_settings)
        seconds = time.perf_counter() - started
        after, memory = judge.accuracies(trainer.merged_parameters()), trainer.program.memory()
        parameters = trainer.program.net.parameters
        rows.append(
            SmallRow(
                way.trains,
                run.parts,
                way.batch,
                run.recompute,
                run.lr,
                name,
                trained=sum(prod(parameters[one].shape) for one in trainer.program.trained),
                updates=updates(run, len(digits.learn), its_settings),
                arena_bytes=memory.arena_bytes,
                const_bytes=memory.const_bytes,
                new_before=before[0],
                new_after=after[0],
                old_before=before[1],
                old_after=after[1],
                seconds=seconds,
            )
        )
    return rows
