"""The tables of `fptt reproduce`: which runs make them up, at full size and for a quick look.

The published runs take 100 to 200 epochs of all images for every cell, weeks on a small machine.
The budgets here are stated and smaller; `epochs` and `limit` of `Choice` set others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fptt.errors import InputError
from fptt.experiments.experiment import Experiment
from fptt.experiments.sweep import Run

#: the class loss at the end of every part; the auxiliary loss; the same in the FPTT wrapper
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "class loss": {"rule": "tbptt", "loss": None},
    "+ auxiliary": {"rule": "tbptt", "loss": "auxiliary"},
    "+ auxiliary + R": {"rule": "fptt", "loss": "auxiliary"},
}
TBPTT, FPTT = "TBPTT + auxiliary", "FPTT + auxiliary"


@dataclass(frozen=True)
class Choice:
    """What a user may set for a whole table.

    Attributes:
        quick: tiny networks on a few sequences, to see that it works.
        seeds: one run of everything for each.
        parts: these K instead of the table's.
        epochs, limit: instead of the table's; learning-rate steps keep their share of the epochs.
        corpus: "ptb" where the data folder has Penn Treebank: runs on it and runs on another text
            are different experiments. None is what else is there.
    """

    quick: bool = False
    seeds: tuple[int, ...] = (0,)
    parts: tuple[int, ...] | None = None
    epochs: int | None = None
    limit: int | None = None
    corpus: str | None = None


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: what `fptt reproduce` is given.
        title: what it shows, in a sentence.
        metric: the column of an epoch that it is about.
        variants: makes its cells; each is the variant's name and an experiment of seed 0.
    """

    name: str
    title: str
    metric: str
    variants: Callable[[Choice], Iterable[tuple[str, Experiment]]]

    def runs(self, choice: Choice) -> list[Run]:
        """All runs, seed by seed."""
        cells = list(self.variants(choice))
        if not cells:
            raise InputError(f"table {self.name} has no runs with these options")
        return [
            Run(self.name, variant, self.metric, experiment.with_seed(seed))
            for seed in choice.seeds
            for variant, experiment in cells
        ]


def _budget(
    choice: Choice, base: Experiment, steps: Sequence[tuple[float, float]] = (), **quick: Any
) -> Experiment:
    """A base experiment with the user's budget; `steps` are (share of the epochs, factor).

    All factors of one schedule are equal.
    """
    if choice.quick:
        base = replace(base, hidden=8, epochs=1, limit=40, batch=10, **quick)
    if choice.epochs is not None:
        base = replace(base, epochs=choice.epochs)
    if choice.limit is not None:
        base = replace(base, limit=choice.limit)
    if steps and base.schedule == "constant":
        at = sorted({max(1, round(share * base.epochs)) for share, _ in steps})
        text = ",".join(map(str, at))
        base = replace(base, schedule=f"step:{text}:{steps[0][1]}")
    return base


def _parts(choice: Choice, full: Sequence[int], quick: Sequence[int]) -> Sequence[int]:
    return choice.parts or (quick if choice.quick else full)


def _grid(
    choice: Choice,
    base: Experiment,
    variants: Mapping[str, Mapping[str, Any]],
    full: Sequence[int],
    quick: Sequence[int],
) -> Iterable[tuple[str, Experiment]]:
    """Every variant with every K; K = 1 of truncated BPTT is BPTT."""
    for parts in _parts(choice, full, quick):
        for name, options in variants.items():
            yield name, replace(base, parts=parts, **options)


# -- images, pixel by pixel ------------------------------------------------------------------

#: x0.1 at half, three quarters and nine tenths, as in the published runs
_PUBLISHED_STEPS = ((0.5, 0.1), (0.75, 0.1), (0.9, 0.1))
_R = {"with R": LOSSES["+ auxiliary + R"], "without R": LOSSES["+ auxiliary"]}


def _s_mnist(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("s-mnist", lr=0.003, batch=32, epochs=20, limit=5000)
    base = _budget(choice, base, _PUBLISHED_STEPS, subset=True)
    return _grid(choice, base, LOSSES, (1, 2, 4, 7, 14, 98, 392, 784), (7, 98))


def _ps_mnist(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("ps-mnist", lr=0.003, batch=32, epochs=20, limit=5000)
    base = _budget(choice, base, _PUBLISHED_STEPS, subset=True)
    return _grid(choice, base, _R, (1, 2, 7, 14, 28, 56, 112, 392, 784), (28,))


def _cifar10(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("cifar10", lr=0.003, batch=32, epochs=20, limit=5000)
    base = _budget(choice, base, _PUBLISHED_STEPS)
    return _grid(choice, base, _R, (1, 2, 8, 16, 32, 64, 128), (16,))


def _full(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("s-mnist", epochs=22)
    base = _budget(choice, base, ((0.6, 0.3), (0.8, 0.3)), subset=True)
    variants = {TBPTT: LOSSES["+ auxiliary"], FPTT: LOSSES["+ auxiliary + R"]}
    return _grid(choice, base, variants, (10,), (10,))


def _programs(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    rows = Experiment(
        "mnist-rows", parts=4, batch=50, optimizer="sgd", lr=0.1, momentum=0.9, epochs=10
    )
    rows = _budget(choice, rows, subset=True)
    pixels = Experiment("s-mnist", parts=28, epochs=10, limit=10_000, loss="auxiliary", batch=50)
    pixels = _budget(choice, pixels, subset=True)
    for name, base in (("rows", rows), ("pixels", pixels)):
        for parts in choice.parts or (base.parts,):
            for engine in ("native", "torch"):
                label = "PyTorch" if engine == "torch" else "fptt"
                yield f"{name}, {label}", replace(base, parts=parts, engine=engine)


def _networks(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("s-mnist", batch=32, epochs=20, limit=5000, loss="auxiliary")
    base = _budget(choice, base, _PUBLISHED_STEPS, subset=True)
    kinds: Mapping[str, Mapping[str, Any]] = {
        "default, Adam": {"readout": 256, "dropout": 0.5, "lr": 0.001},
        "simplified, SGD with momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
        "simplified, SGD": {"optimizer": "sgd", "lr": 0.05},
    }
    for kind, options in kinds.items():
        yield f"BPTT, {kind}", replace(base, rule="bptt", parts=1, **{**options, "loss": None})
        for parts in _parts(choice, (10,), (10,)):
            yield f"FPTT, {kind}", replace(base, rule="fptt", parts=parts, **options)


def _spiking(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    """The grey value of a pixel, or of a row of them, is the input current of a step."""
    base = Experiment(
        "mnist-rows", subset=True, hidden=64, lr=0.005, batch=50, epochs=10, engine="reference"
    )
    by_rows, pixels = base, replace(base, task="s-mnist", epochs=20)
    for what, one, cells, full in (
        ("rows", by_rows, ("lif", "alif", "ltc"), (4,)),
        ("pixels", pixels, ("ltc",), (28,)),
    ):
        for cell in cells:
            sized = replace(_budget(choice, one), cell=cell)
            name = f"{what}, {cell.upper()}"
            yield f"BPTT, {name}", replace(sized, rule="bptt", parts=1)
            for parts in choice.parts or full:
                yield (
                    f"FPTT + auxiliary, {name}",
                    replace(sized, rule="fptt", parts=parts, loss="auxiliary"),
                )


# -- long memory, text -----------------------------------------------------------------------


def _add(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    lengths = (20,) if choice.quick else (200, 1000)
    for steps in lengths:
        sequences = 200 if choice.quick else 10_000
        options = {"steps": steps, "n_train": sequences, "n_test": sequences // 10}
        # what a step forgets at first: 1 in 20, 1 in 400
        bias = 6.0 if steps == 1000 else 3.0
        base = Experiment("add", options, batch=20, epochs=25, forget_bias=bias)
        base = _budget(choice, base, ((0.8, 0.1),))
        yield f"BPTT, T={steps}", replace(base, rule="bptt", parts=1)
        for parts in _parts(choice, (10,), (4,)):
            yield f"FPTT, T={steps}", replace(base, rule="fptt", parts=parts)
            yield f"TBPTT, T={steps}", replace(base, rule="tbptt", parts=parts)


_TEXT = {"with R": {"rule": "fptt"}, "without R": {"rule": "tbptt"}}


def _words(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    options = {"steps": 300, "vocabulary": 10_000}
    base = Experiment("words", options, hidden=128, embedding=128, batch=20, lr=0.003, epochs=6)
    if choice.quick:
        base = replace(base, task_options={"steps": 12, "vocabulary": 50}, embedding=6)
    base = _text_budget(choice, base)
    return _grid(choice, base, _TEXT, (1, 5, 15, 20, 30, 50, 100, 150, 300), (3,))


def _char(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    base = Experiment("char", {"steps": 100}, hidden=128, embedding=32, batch=32, lr=0.003)
    if choice.quick:
        base = replace(base, task_options={"steps": 12}, embedding=6)
    base = _text_budget(choice, base)
    return _grid(choice, base, _TEXT, (1, 2, 5, 10, 20, 50, 100), (3,))


def _text_budget(choice: Choice, base: Experiment) -> Experiment:
    """Text is one stream, so it cannot be limited to some of its rows."""
    if choice.limit is not None:
        raise InputError("--limit has no effect on one long text; leave it out")
    base = _budget(choice, base, ((0.6, 0.3), (0.8, 0.3)))
    if choice.corpus is not None:
        base = replace(base, task_options={**base.task_options, "corpus": choice.corpus})
    return replace(base, limit=None, batch=100 if choice.quick else base.batch)


# -- accuracy at equal memory ----------------------------------------------------------------


def _equal_memory(choice: Choice) -> Iterable[tuple[str, Experiment]]:
    both = {TBPTT: LOSSES["+ auxiliary"], FPTT: LOSSES["+ auxiliary + R"]}
    images = Experiment(
        "s-mnist", lr=0.002, batch=16, epochs=6, limit=10_000, forget_bias=1.0, schedule="cosine"
    )
    images = _budget(choice, images, subset=True)
    yield from _grid(choice, images, both, (10, 28, 112), (28,))
    yield from _equal_voices(choice, both)
    text = Experiment("char", {"steps": 100}, hidden=128, embedding=32, batch=8, lr=0.003, epochs=2)
    if choice.quick:
        text = replace(text, task_options={"steps": 12}, embedding=6)
    text = _text_budget(replace(choice, limit=None), text)
    labels = {"TBPTT": {"rule": "tbptt"}, "FPTT": {"rule": "fptt"}}
    yield from _grid(choice, text, labels, (5, 10, 50), (3,))


def _equal_voices(
    choice: Choice, both: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[str, Experiment]]:
    """A model of five speakers goes on learning from 5 recordings of each digit of the sixth."""
    speakers = ("theo",) if choice.quick else SPEAKERS
    for speaker in speakers:
        base = Experiment(
            "fsdd", {"speaker": speaker}, hidden=64, dropout=0.3, rule="bptt", lr=0.003, batch=32
        )
        base = replace(base, epochs=1, hidden=8, limit=40) if choice.quick else base
        tune = Experiment(
            "fsdd-personal",
            {"speaker": speaker},
            hidden=base.hidden,
            dropout=0.3,
            optimizer="sgd",
            lr=0.02,
            momentum=0.9,
            batch=4,
            schedule="cosine",
            epochs=choice.epochs or (1 if choice.quick else 20),
            start=base,
        )
        yield from _grid(choice, tune, both, (2, 4, 8, 24), (4,))


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "s-mnist",
            "S-MNIST by K: class loss, with the auxiliary loss, and with R(t)",
            "test_accuracy",
            _s_mnist,
        ),
        Table(
            "ps-mnist", "Permuted S-MNIST by K, with and without R(t)", "test_accuracy", _ps_mnist
        ),
        Table("cifar10", "CIFAR-10 by pixels, with and without R(t)", "test_accuracy", _cifar10),
        Table("add", "The add task at T = 200 and 1000", "test_loss", _add),
        Table("words", "Words of a text by K, with and without R(t)", "test_perplexity", _words),
        Table("char", "Characters of a text by K, with and without R(t)", "test_perplexity", _char),
        Table(
            "programs",
            "MNIST by rows and by pixels beside PyTorch, same weights and order",
            "test_accuracy",
            _programs,
        ),
        Table(
            "networks",
            "BPTT and FPTT on the default and the simplified network, momentum on and off",
            "test_accuracy",
            _networks,
        ),
        Table(
            "spiking",
            "Spiking neurons on MNIST by rows and by pixels: BPTT and FPTT",
            "test_accuracy",
            _spiking,
        ),
        Table("full", "S-MNIST, all 60,000 images", "test_accuracy", _full),
        Table(
            "equal-memory",
            "Truncated BPTT and FPTT at equal training memory: images, voices, characters",
            "test_accuracy",
            _equal_memory,
        ),
    )
}
