"""Published accuracies, perplexities and findings, each with its source and what is known of how it
was made, and which of our runs it may stand beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SEEDS = "TU/e presentations and poster, 2023 and 2024"
GROUP = "TU/e reports behind Zhang et al., VLSI-SoC 2024 and JLPEA 15(1):15, 2025"
KAG = "Kag & Saligrama, ICML 2021"
INDEPENDENT = "an independent check of the equations, one seed"


@dataclass(frozen=True)
class Published:
    """A published figure.

    Attributes:
        tables: tables of ours beside whose runs it may stand.
        task: the task that it is about.
        metric: "test_accuracy" or "test_perplexity", as in our records.
        printed: the figure as printed: accuracies in percent. None where only `text` was printed.
        text: what was said beside the figure, or instead of one.
        where: the traits (see `traits`) that a run must have to stand beside it.
        setting: what is known of the published run, in the keys of our configurations.
        words: the setting in words.
        source: who published it.
        runs: seeds behind the figure; None where that is not stated.
    """

    tables: tuple[str, ...]
    task: str
    metric: str
    printed: float | None
    where: Mapping[str, Any]
    words: str
    source: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    runs: int | None = None

    @property
    def value(self) -> float | None:
        """The figure in the unit of our records, where accuracies are shares."""
        if self.printed is None or self.metric != "test_accuracy":
            return self.printed
        return self.printed / 100


def traits(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What decides beside which published figures a run may stand.

    Args:
        configuration: of a record (see `fptt.experiments.reading`), with its `steps`.

    Returns:
        parts, loss, cell, source, optimizer, steps, engine ("torch" or "fptt"), R (whether R(t) is
        on), readout and momentum (whether there is one).

    Example:
        >>> traits({"rule": "fptt", "regularise": False, "parts": 14, "loss": "auxiliary"})["R"]
        False
    """
    rule = configuration.get("rule")
    return {
        "parts": 1 if rule == "bptt" else configuration.get("parts"),
        "loss": configuration.get("loss") or "last",
        "cell": configuration.get("cell"),
        "source": configuration.get("source") or "bptt",
        "engine": "torch" if configuration.get("engine") == "torch" else "fptt",
        "steps": configuration.get("steps"),
        "R": rule == "fptt" and bool(configuration.get("regularise", True)),
        "readout": bool(configuration.get("readout")),
        "momentum": bool(configuration.get("momentum")),
        "optimizer": configuration.get("optimizer"),
    }


def published_for(table: str, configuration: Mapping[str, Any], metric: str) -> list[Published]:
    """The published figures that may stand beside a run, in the order of their sources.

    They are found by what the run did, not by what it is called; `fptt.experiments.beside` says
    where its setting differs from theirs.

    Args:
        table: the table of the record.
        configuration: its configuration, with its `steps`.
        metric: its metric.

    Example:
        >>> ours = {"task": "s-mnist", "rule": "fptt", "parts": 14, "loss": "auxiliary"}
        >>> ours |= {"cell": "lstm"}
        >>> [p.printed for p in published_for("s-mnist", ours, "test_accuracy")]
        [98.2, 97.36, 97.9]
    """
    has = traits(configuration)
    return [
        figure
        for figure in PUBLISHED
        if table in figure.tables
        and figure.task == configuration.get("task")
        and figure.metric == metric
        and all(has[name] == value for name, value in figure.where.items())
    ]


_SWEEPS = ("s-mnist", "full", "equal-memory")
_DEFAULT_NET: dict[str, Any] = {
    "hidden": 128,
    "readout": 256,
    "optimizer": "adam",
    "lr": 0.001,
    "schedule": "step:50,75,90:0.1",
    "clip": 1.0,
    "batch": 128,
    "epochs": 200,
}


def _s_mnist_losses() -> Iterator[Published]:
    """Accuracy at epoch 100, by loss and K."""
    by_loss: dict[tuple[str, bool], tuple[float, ...]] = {
        ("last", False): (11.35, 42.90, 39.70, 96.62, 98.28, 96.39, 90.89, 83.91),
        ("auxiliary", False): (11.35, 97.46, 90.77, 97.69, 98.47, 96.63, 90.65, 80.14),
        ("auxiliary", True): (11.35, 84.93, 95.39, 97.52, 98.2, 95.99, 91.92, 83.40),
    }
    for (loss, regularise), row in by_loss.items():
        for parts, printed in zip((1, 2, 4, 7, 14, 98, 392, 784), row, strict=True):
            yield Published(
                _SWEEPS,
                "s-mnist",
                "test_accuracy",
                printed,
                {"loss": loss, "R": regularise, "parts": parts, "cell": "lstm", "source": "bptt"},
                "first set of runs: epoch 100, learning rate 0.01, x0.1 at epochs 50, 75 and 90",
                GROUP,
                {"epochs": 100, "lr": 0.01, "schedule": "step:50,75,90:0.1"},
            )


def _with_and_without(
    tables: tuple[str, ...],
    task: str,
    metric: str,
    words: str,
    setting: Mapping[str, Any],
    figures: Mapping[int, tuple[float, float]],
    loss: Mapping[str, str],
) -> Iterator[Published]:
    """Figures with R(t) and without, by K."""
    for parts, pair in figures.items():
        for regularise, printed in zip((True, False), pair, strict=True):
            where = {"R": regularise, "parts": parts, "cell": "lstm", "source": "bptt", **loss}
            yield Published(tables, task, metric, printed, where, words, GROUP, setting)


def _second_set() -> Iterator[Published]:
    auxiliary = {"loss": "auxiliary"}
    yield from _with_and_without(
        _SWEEPS,
        "s-mnist",
        "test_accuracy",
        "second set of runs: Adam, default net 1-128-256-10 with dropout; at K=784 it disagrees "
        "with the first set, and the number of seeds is not stated",
        _DEFAULT_NET,
        {
            1: (61.77, 11.32),
            2: (97.15, 97.52),
            7: (97.44, 97.22),
            14: (97.36, 97.41),
            28: (96.47, 96.63),
            56: (96.06, 95.77),
            112: (55.56, 16.87),
            392: (27.87, 11.92),
            784: (18.32, 15.86),
        },
        auxiliary,
    )
    yield from _with_and_without(
        ("ps-mnist",),
        "ps-mnist",
        "test_accuracy",
        "with and without R(t); network, optimizer and epochs are not stated beside the figures",
        {},
        {
            1: (88.26, 88.72),
            2: (88.22, 86.50),
            7: (93.99, 93.44),
            14: (94.07, 94.37),
            28: (93.17, 93.03),
            56: (91.30, 90.09),
            112: (74.01, 27.78),
            392: (27.70, 30.19),
            784: (25.88, 31.72),
        },
        auxiliary,
    )
    yield from _with_and_without(
        ("cifar10",),
        "cifar10",
        "test_accuracy",
        "with and without R(t); network, optimizer and epochs are not stated beside the figures",
        {},
        {
            1: (49.98, 56.33),
            2: (61.59, 62.35),
            8: (65.38, 66.76),
            16: (63.41, 64.59),
            32: (59.82, 60.75),
            64: (58.89, 59.03),
            128: (41.11, 37.96),
        },
        auxiliary,
    )
    yield from _with_and_without(
        ("words",),
        "words",
        "test_perplexity",
        "PTB-300: Penn Treebank, T = 300 words, with and without R(t); a perplexity on another "
        "text is another quantity",
        {"steps": 300, "text": "Penn Treebank"},
        {
            1: (148.42, 164.63),
            5: (109.50, 121.22),
            15: (101.52, 119.39),
            20: (102.61, 104.74),
            30: (102.35, 105.53),
            50: (104.37, 110.80),
            100: (107.24, 108.14),
            150: (112.69, 112.29),
            300: (139.21, 137.27),
        },
        {},
    )


def _ten_parts() -> Iterator[Published]:
    """One LSTM with K = 10 on three data sets, the default net, and the simplified net."""
    figures = {
        "s-mnist": (97.71, 98.67, 98.44),
        "ps-mnist": (88.91, 94.75, 94.74),
        "cifar10": (60.11, 71.03, 60.04),
    }
    for task, (bptt, fptt, simplified) in figures.items():
        sweep = _SWEEPS if task == "s-mnist" else (task,)
        lstm = {"cell": "lstm", "source": "bptt"}
        where: dict[str, Any]
        for printed, regularise, parts in ((bptt, False, 1), (fptt, True, 10)):
            name = "FPTT, K = 10" if regularise else "BPTT"
            words = f"one LSTM, {name}; network and epochs are not stated beside the figure"
            where = lstm | {"R": regularise, "parts": parts}
            yield Published(sweep, task, "test_accuracy", printed, where, words, SEEDS)
            words = f"one LSTM, {name}; beside our default net, which is their usual one"
            where = lstm | {"R": regularise, "readout": True} | ({} if regularise else {"parts": 1})
            yield Published(
                ("networks",),
                task,
                "test_accuracy",
                printed,
                where,
                words,
                SEEDS,
                _DEFAULT_NET | {"parts": parts},
            )
        for momentum in (True, False):
            where = lstm | {"R": True, "readout": False, "optimizer": "sgd", "momentum": momentum}
            yield Published(
                ("networks",),
                task,
                "test_accuracy",
                simplified if momentum else None,
                where,
                "simplified net 1-128-10, FPTT by SGD "
                + ("with momentum" if momentum else "without momentum"),
                SEEDS,
                {"hidden": 128, "readout": 0, "optimizer": "sgd", "parts": 10},
                "" if momentum else "can fall by more than 50 points",
            )


def _hand_written() -> Iterator[Published]:
    for task, ours, theirs in (("mnist-rows", 94.0, 98.0), ("s-mnist", 78.0, 88.0)):
        for engine, printed, name in (
            ("fptt", ours, "hand-written NumPy program, whose gradient lacks the path through c"),
            ("torch", theirs, "PyTorch beside the hand-written program"),
        ):
            words = f"{name}, MNIST by {'rows' if task == 'mnist-rows' else 'pixels'}"
            where = {"engine": engine}
            yield Published(("programs",), task, "test_accuracy", printed, where, words, SEEDS)


def _independent() -> Iterator[Published]:
    setting = {
        "hidden": 128,
        "readout": 0,
        "optimizer": "adam",
        "lr": 0.001,
        "schedule": "x0.3 at epoch 13, x0.1 at epoch 18",
        "clip": 1.0,
        "batch": 128,
        "epochs": 22,
        "train_sequences": 60_000,
    }
    for regularise, printed, best in ((True, 97.9, 98.05), (False, 98.2, 98.29)):
        yield Published(
            _SWEEPS,
            "s-mnist",
            "test_accuracy",
            printed,
            {"R": regularise, "loss": "auxiliary", "parts": 14, "cell": "lstm", "source": "bptt"},
            "1-128-10 on all images, K = 14, 22 epochs of Adam at 0.001, x0.3 at 60 % and x0.1 at "
            "80 % of them, clip 1, batch 128",
            INDEPENDENT,
            setting,
            f"best {best:g}",
            runs=1,
        )


def _add() -> Iterator[Published]:
    for regularise, parts, text in (
        (False, 1, "BPTT does not learn T = 1000"),
        (True, 10, "FPTT with K = 10 learns T = 1000"),
    ):
        where = {"R": regularise, "parts": parts, "steps": 1000, "source": "bptt"}
        words = "add task, T = 1000; figures are not given"
        yield Published(("add",), "add", "test_loss", None, where, words, KAG, text=text)


PUBLISHED: Sequence[Published] = (
    *_s_mnist_losses(),
    *_second_set(),
    *_ten_parts(),
    *_hand_written(),
    *_independent(),
    *_add(),
)
