"""What several seeds of one configuration show: mean and spread, curves, time and memory.

Pure functions on the records that `fptt.experiments.reading` describes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import mean, stdev
from typing import Any

from fptt.experiments.reading import METRICS

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Some numbers, one a seed.

    Attributes:
        mean: their mean.
        sd: sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)); None for one number.
        values: the numbers.
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation.

    Example:
        >>> spread([1.0, 2.0, 3.0]).sd
        1.0
        >>> spread([2.0]).sd is None
        True
    """
    numbers = tuple(float(value) for value in values)
    return Spread(mean(numbers), stdev(numbers) if len(numbers) > 1 else None, numbers)


@dataclass(frozen=True)
class CurvePoint:
    """The metric after one epoch, over the seeds that measured it."""

    epoch: int
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        table, task, variant, metric: as in the records.
        panel: what is compared with one another: groups of the same table, task and data.
        rule: the learning rule in words; see `rule_label`.
        parts: K.
        extra: what tells this group from others of the same variant and K.
        configuration: of its runs, without the seed.
        seeds: of its runs, in ascending order, like everything that has a value for each.
        final: the metric after the last epoch. This is the headline.
        best: the metric after each run's best epoch. It was chosen by the test data, so it is
            optimistic.
        best_epochs: that epoch.
        seconds: time of training.
        arena_bytes: training memory, or None where it was not planned (PyTorch).
        curve: by epoch.
        network, parameters, steps, train_sequences, test_sequences: as in the records.
    """

    table: str
    task: str
    variant: str
    metric: str
    panel: str
    rule: str
    parts: int
    extra: str
    configuration: Mapping[str, Any]
    seeds: tuple[Any, ...]
    final: Spread
    best: Spread
    best_epochs: tuple[int, ...]
    seconds: Spread
    arena_bytes: int | None
    curve: tuple[CurvePoint, ...]
    network: str
    parameters: int | None
    steps: int | None
    train_sequences: int | None
    test_sequences: int | None

    @property
    def higher_is_better(self) -> bool:
        return METRICS[self.metric]

    @property
    def series(self) -> str:
        """What groups of one line in a plot over K or memory share."""
        return f"{self.variant}, {self.extra}" if self.extra else self.variant

    @property
    def label(self) -> str:
        """Names this group in its panel."""
        return f"{self.series}, K={self.parts}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"label": self.label}


#: entries of a configuration that K or the rule's name already say
_NAMED = {"parts", "rule", "source", "regularise"}


def rule_label(configuration: Mapping[str, Any]) -> str:
    """The learning rule of a configuration in words: source of the gradient, wrapper, loss.

    FPTT without R(t) is truncated BPTT.

    Example:
        >>> rule_label({"rule": "fptt", "parts": 28, "loss": "auxiliary", "regularise": True})
        'FPTT + auxiliary'
        >>> rule_label({"rule": "fptt", "parts": 28, "loss": "last", "regularise": False})
        'TBPTT'
        >>> rule_label({"rule": "tbptt", "parts": 28, "loss": "last", "source": "eprop"})
        'eprop'
    """
    source = configuration.get("source") or "bptt"
    wrapped = is_fptt(configuration)
    if source != "bptt":
        name = f"FPTT + {source}" if wrapped else str(source)
    elif wrapped:
        name = "FPTT"
    else:
        name = "BPTT" if configuration["rule"] == "bptt" else "TBPTT"
    return f"{name} + auxiliary" if configuration.get("loss") == "auxiliary" else name


def is_fptt(configuration: Mapping[str, Any]) -> bool:
    """Whether the running mean and lambda are there."""
    return configuration["rule"] == "fptt" and bool(configuration.get("regularise", True))


def groups(records: Sequence[Record]) -> list[Group]:
    """Groups runs by everything but their seed.

    Args:
        records: as read; the order does not matter.

    Returns:
        By table, data, variant, rule and K.

    Example:
        >>> run = {
        ...     "table": "add", "variant": "FPTT", "metric": "test_loss", "seconds": 1.0,
        ...     "configuration": {"task": "add", "rule": "fptt", "parts": 4, "seed": 0},
        ...     "epochs": [{"epoch": 1, "test_loss": 0.2}, {"epoch": 2, "test_loss": 0.1}],
        ... }
        >>> [(group.label, group.final.mean) for group in groups([run])]
        [('FPTT, K=4', 0.1)]
    """
    ordered = sorted(_over_speakers(records), key=_identity)
    together = [list(runs) for _, runs in groupby(ordered, key=_identity)]
    telling = _telling([runs[0] for runs in together])
    made = [_group(runs, _extra(runs[0], telling)) for runs in together]
    return sorted(
        made,
        key=lambda g: (g.table, g.task, g.steps or 0, g.panel, *_simplest_first(g), g.parts),
    )


def _over_speakers(records: Sequence[Record]) -> list[Record]:
    """Runs that adapt to one speaker each become one run for each seed: the mean of its speakers.

    What is judged is the rule, not the speaker; between speakers accuracies differ by far more than
    between rules. Time is the sum, memory that of one speaker.
    """
    others = [r for r in records if not _speaker(r)]
    spoken: dict[str, list[Record]] = {}
    for record in records:
        if _speaker(record):
            own = _without_speaker(record["configuration"])
            name = [record["table"], record["variant"], record["metric"], own]
            spoken.setdefault(_text(name), []).append(record)
    return [*others, *map(_mean_speaker, spoken.values())]


def _speaker(record: Record) -> Any:
    return (record["configuration"].get("task_options") or {}).get("speaker")


def _without_speaker(configuration: Mapping[str, Any]) -> dict[str, Any]:
    options = configuration.get("task_options") or {}
    kept = {name: value for name, value in options.items() if name != "speaker"}
    start = configuration.get("start")
    below = {"start": _without_speaker(start)} if start else {}
    return {**configuration, **below, "task_options": kept}


def _mean_speaker(runs: Sequence[Record]) -> Record:
    first, metric = runs[0], runs[0]["metric"]
    epochs = []
    for rows in zip(*(run["epochs"] for run in runs), strict=False):
        values = [row.get(metric) for row in rows]
        known = [value for value in values if value is not None]
        whole = mean(known) if len(known) == len(values) else None
        epochs.append({"epoch": rows[0]["epoch"], metric: whole})
    names = sorted({str(_speaker(run)) for run in runs})
    configuration = _without_speaker(first["configuration"])
    configuration["task_options"] = {**configuration["task_options"], "speakers": len(names)}
    return {
        **first,
        "configuration": configuration,
        "seconds": sum(run["seconds"] for run in runs),
        "epochs": epochs,
        "test_sequences": sum(run.get("test_sequences") or 0 for run in runs) or None,
    }


def _simplest_first(group: Group) -> tuple[bool, bool, str, str]:
    """Class loss before the auxiliary one, without R(t) before with it."""
    own = group.configuration
    return is_fptt(own), own.get("loss") == "auxiliary", group.variant, group.extra


def _panel(record: Record) -> str:
    """Table, task and data as text: runs with the same may be compared."""
    configuration = record["configuration"]
    named = [configuration.get(name) for name in ("task", "task_options", "subset", "limit")]
    return _text([record["table"], record["metric"], *named, record.get("steps")])


def _identity(record: Record) -> tuple[str, ...]:
    return _panel(record), record["variant"], _text(_without_seed(record["configuration"]))


def _without_seed(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Also without that of the training that it starts from."""
    own = {name: value for name, value in configuration.items() if name != "seed"}
    return {**own, "start": _without_seed(own["start"])} if own.get("start") else own


def _settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The entries one by one, those of the start too."""
    own = _without_seed(configuration)
    start = own.get("start") or {}
    inner = {f"start {name}": value for name, value in _settings(start).items()} if start else {}
    return {name: value for name, value in own.items() if name != "start"} | inner


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _telling(firsts: Sequence[Record]) -> dict[tuple[str, str], list[str]]:
    """By panel and variant: what differs between groups of the same K, so that it must be named."""
    alike: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in firsts:
        own = {k: v for k, v in _settings(run["configuration"]).items() if k not in _NAMED}
        own = {"rule": rule_label(run["configuration"]), **own}
        alike.setdefault((*_line(run), run["configuration"]["parts"]), []).append(own)
    telling: dict[tuple[str, str], list[str]] = {}
    for (panel, variant, _), several in alike.items():
        names = telling.setdefault((panel, variant), [])
        for name in dict.fromkeys(name for own in several for name in own):
            if name not in names and len({_text(own.get(name)) for own in several}) > 1:
                names.append(name)
    return telling


def _line(run: Record) -> tuple[str, str]:
    return _panel(run), run["variant"]


def _extra(run: Record, telling: Mapping[tuple[str, str], Sequence[str]]) -> str:
    own = _settings(run["configuration"])
    names = telling[_line(run)]
    return ", ".join(
        rule_label(own) if name == "rule" else f"{name} {own.get(name)}" for name in names
    )


def _group(runs: Sequence[Record], extra: str) -> Group:
    runs = sorted(runs, key=lambda run: _text(run["configuration"]["seed"]).zfill(20))
    first, metric = runs[0], runs[0]["metric"]
    configuration = _without_seed(first["configuration"])
    sizes = [run["arena_bytes"] for run in runs if run.get("arena_bytes") is not None]
    best = [_best(run) for run in runs]
    return Group(
        table=first["table"],
        task=configuration["task"],
        variant=first["variant"],
        metric=metric,
        panel=_panel(first),
        rule=rule_label(configuration),
        parts=configuration["parts"],
        extra=extra,
        configuration=configuration,
        seeds=tuple(run["configuration"]["seed"] for run in runs),
        final=spread(run["epochs"][-1][metric] for run in runs),
        best=spread(value for value, _ in best),
        best_epochs=tuple(epoch for _, epoch in best),
        seconds=spread(run["seconds"] for run in runs),
        arena_bytes=max(sizes) if sizes else None,
        curve=_curve(runs),
        network=str(first.get("network", "")),
        parameters=first.get("parameters"),
        steps=first.get("steps"),
        train_sequences=first.get("train_sequences"),
        test_sequences=first.get("test_sequences"),
    )


def _best(run: Record) -> tuple[float, int]:
    """The best value of a run's metric and its epoch, the first of several."""
    metric = run["metric"]
    measured = [(row[metric], row["epoch"]) for row in run["epochs"] if row.get(metric) is not None]
    sign = 1 if METRICS[metric] else -1
    return max(measured, key=lambda pair: sign * pair[0])


def _curve(runs: Sequence[Record]) -> tuple[CurvePoint, ...]:
    metric = runs[0]["metric"]
    by_epoch: dict[int, list[float]] = {}
    for run in runs:
        for row in run["epochs"]:
            if row.get(metric) is not None:
                by_epoch.setdefault(row["epoch"], []).append(row[metric])
    return tuple(
        CurvePoint(epoch, mean(values), min(values), max(values), len(values))
        for epoch, values in sorted(by_epoch.items())
    )
