"""Published figures beside ours, and what about the two settings differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fptt.experiments.summary import Group
from fptt.published_results import Published, published_for

#: entry of a configuration -> how it is called
_NAMES = {
    "parts": "K",
    "steps": "T",
    "hidden": "hidden units",
    "readout": "layer before the outputs",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "schedule": "schedule",
    "clip": "clipping",
    "batch": "batch",
    "epochs": "epochs",
    "train_sequences": "training sequences",
    "text": "text",
}


@dataclass(frozen=True)
class Beside:
    """A published figure beside a group of ours.

    Attributes:
        published: the figure.
        difference: our final mean minus it, in the unit of the metric; None where no figure was
            printed.
        note: in words, where the settings differ and what is not known of theirs.
    """

    published: Published
    difference: float | None
    note: str


def beside(group: Group) -> list[Beside]:
    """The published figures for a group of runs, with the differences of the settings.

    The notes are made from the configurations: what is equal is not named, and what was not
    published is said to be unknown.
    """
    found = []
    configuration = {**group.configuration, "steps": group.steps}
    for figure in published_for(group.table, configuration, group.metric):
        value = figure.value
        difference = None if value is None else group.final.mean - value
        found.append(Beside(figure, difference, _note(group, figure)))
    return found


def _note(group: Group, figure: Published) -> str:
    options = group.configuration.get("task_options") or {}
    own: dict[str, Any] = {
        **group.configuration,
        "steps": group.steps,
        "train_sequences": group.train_sequences,
        "text": _text(options),
    }
    ours, theirs = [], []
    for name, called in _NAMES.items():
        if name in figure.setting and own.get(name) != figure.setting[name]:
            ours.append(_entry(called, own.get(name)))
            theirs.append(_entry(called, figure.setting[name]))
    ours.append(f"mean of {group.final.n} seeds" if group.final.n > 1 else "one seed")
    if group.configuration.get("subset") or group.configuration.get("limit"):
        ours.append(f"{_entry('training sequences', group.train_sequences)} (a subset)")
    theirs.append("number of seeds not stated" if figure.runs is None else _seeds(figure.runs))
    if not figure.setting:
        ours = [*_all(group.configuration), *ours]
    return f"ours: {', '.join(ours)}; published: {', '.join(theirs)}"


def _text(options: Mapping[str, Any]) -> str:
    if options.get("corpus") == "ptb":
        return "Penn Treebank"
    return options.get("text") or options.get("text_file") or "not named"


def _seeds(runs: int) -> str:
    return "one seed" if runs == 1 else f"{runs} seeds"


def _all(configuration: Mapping[str, Any]) -> list[str]:
    """Ours, where nothing is known of theirs."""
    names = ("epochs", "batch", "optimizer", "lr", "schedule")
    return [_entry(_NAMES[n], configuration[n]) for n in names if n in configuration]


def _entry(called: str, value: Any) -> str:
    """A setting in words.

    Example:
        >>> _entry("epochs", 22), _entry("schedule", "step:13,18:0.3"), _entry("optimizer", "adam")
        ('22 epochs', 'rate x0.3 at epochs 13, 18', 'Adam')
        >>> _entry("layer before the outputs", 0), _entry("learning rate", 0.001)
        ('no layer before the outputs', 'learning rate 0.001')
    """
    if called in ("epochs", "training sequences", "hidden units"):
        return f"{value:,} {called}" if isinstance(value, int) else f"{called} unknown"
    if called == "schedule":
        return _schedule(str(value))
    if called == "optimizer":
        return {"adam": "Adam", "sgd": "SGD"}.get(str(value), str(value))
    if called == "layer before the outputs":
        return f"{called} {value} wide" if value else f"no {called}"
    if called == "clipping":
        return f"{called} {value:g}" if isinstance(value, int | float) else f"no {called}"
    if called in ("K", "T"):
        return f"{called}={value}"
    return f"{called} {value:g}" if isinstance(value, float) else f"{called} {value}"


def _schedule(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind == "step" and rest:
        epochs, _, factor = rest.partition(":")
        return f"rate x{factor or '0.1'} at epochs {', '.join(epochs.split(','))}"
    return "constant rate" if text == "constant" else f"rate {text}"
