"""HTML tables and sentences of the page of results. Rendering only; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fptt.experiments.beside import Beside
from fptt.experiments.equal_memory import Comparison
from fptt.experiments.summary import Group
from fptt.report.wording import (
    count,
    duration,
    listed,
    number,
    panel_title,
    setting,
    signed,
    spread_text,
)

Footnotes = dict[str, int]

_NONE = "\N{EN DASH}"


def results(
    groups: Sequence[Group], published: Sequence[Sequence[Beside]], identity: str, caption: str
) -> str:
    """One row for every group, the published figures beside it, and what differs below."""
    metric = groups[0].metric
    unit = " (%)" if metric == "test_accuracy" else ""
    notes: Footnotes = {}
    compared = any(published)
    heads = ["variant", "K", "seeds", f"last epoch{unit}", f"best epoch{unit}", "bytes", "time"]
    if compared:
        heads += [f"published{unit}", "ours minus published"]
    rows = []
    for group, several in zip(groups, published, strict=True):
        size = _NONE if group.arena_bytes is None else f"{group.arena_bytes:,}"
        cells = [
            f'<th scope="row" class="name">{escape(group.series)}</th>',
            _number(f"{group.parts:,}"),
            _number(str(group.final.n)),
            _number(f"<b>{escape(spread_text(metric, group.final))}</b>"),
            _number(escape(spread_text(metric, group.best) + _epochs(group))),
            _number(size),
            _number(escape(duration(group.seconds.mean))),
        ]
        if compared:
            cells += _published(metric, several, notes, identity)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _table(caption, heads, rows) + _settings(groups) + _footnotes(notes, identity)


def _epochs(group: Group) -> str:
    low, high = min(group.best_epochs), max(group.best_epochs)
    return f" (epoch {low})" if low == high else f" (epochs {low} to {high})"


def _published(
    metric: str, several: Sequence[Beside], notes: Footnotes, identity: str
) -> list[str]:
    shown, differences = [], []
    for found in several:
        figure = found.published
        source = figure.source[0].upper() + figure.source[1:]
        note = f"{source}: {figure.words}. Where they differ: {found.note}."
        mark = notes.setdefault(note, len(notes) + 1)
        text = "" if figure.printed is None else f"{figure.printed:g}"
        said = f"{text} ({figure.text})" if text and figure.text else text or figure.text
        link = f'<a href="#{identity}-note-{mark}">[{mark}]</a>'
        if text:  # beside its difference in the next column, so on one line
            said = said.replace(" ", "\N{NO-BREAK SPACE}")
        shown.append(f"{escape(said)}&nbsp;{link}")
        given = found.difference
        differences.append(_NONE if given is None else escape(signed(metric, given)))
    figures = f'<td class="n said">{"<br>".join(shown)}</td>'
    return [figures, _number("<br>".join(differences))]


def _footnotes(notes: Footnotes, identity: str) -> str:
    if not notes:
        return ""
    items = "".join(
        f'<li id="{identity}-note-{mark}" value="{mark}">{escape(text)}</li>'
        for text, mark in notes.items()
    )
    return (
        "<details open><summary>Published figures: sources, and where they and our runs "
        f'differ</summary><ol class="notes">{items}</ol></details>'
    )


def _settings(groups: Sequence[Group]) -> str:
    """How the runs were made; once where it is the same for all."""
    by_text: dict[str, list[str]] = {}
    for group in groups:
        by_text.setdefault(setting(group), []).append(group.label)
    if len(by_text) == 1:
        return f"<p>All runs: {escape(next(iter(by_text)))}.</p>"
    items = "".join(
        f"<li><b>{escape('; '.join(labels))}</b>: {escape(text)}.</li>"
        for text, labels in by_text.items()
    )
    return f"<details><summary>How the runs were made</summary><ul>{items}</ul></details>"


def verdicts(found: Sequence[Comparison]) -> str:
    """FPTT against truncated BPTT in the same bytes."""
    metric = found[0].fptt.metric
    unit = " (%)" if metric == "test_accuracy" else ""
    heads = [
        "FPTT, K",
        "bytes",
        f"FPTT{unit}",
        "TBPTT that fits, K",
        "its bytes",
        f"TBPTT{unit}",
        "difference ± standard error",
        "verdict",
        f"TBPTT at the same bytes, interpolated{unit}",
    ]
    rows = []
    for comparison in found:
        fptt, fits = comparison.fptt, comparison.fits
        cells = [
            f'<th scope="row">{_named(comparison)}</th>',
            _number(f"{fptt.arena_bytes or 0:,}"),
            _number(f"{escape(spread_text(metric, fptt.final))} (n={fptt.final.n})"),
        ]
        if fits is None:
            cells += [_number(_NONE)] * 4
        else:
            error = comparison.standard_error
            difference = signed(metric, comparison.difference or 0.0)
            spread = "" if error is None else f" ± {number(metric, error)}"
            cells += [
                _number(f"{fits.parts:,}" + (f", {escape(fits.extra)}" if fits.extra else "")),
                _number(f"{fits.arena_bytes or 0:,}"),
                _number(f"{escape(spread_text(metric, fits.final))} (n={fits.final.n})"),
                _number(escape(difference + spread)),
            ]
        cells.append(f'<td class="v">{escape(verdict(comparison))}</td>')
        at = comparison.interpolated
        cells.append(_number(_NONE if at is None else escape(number(metric, at))))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"Equal training memory: {panel_title(found[0].fptt)}"
    return _table(caption, heads, rows)


def _named(comparison: Comparison) -> str:
    group = comparison.fptt
    return f"{group.parts:,}" + (f", {escape(group.extra)}" if group.extra else "")


def verdict(comparison: Comparison) -> str:
    """The verdict in words."""
    return {
        "no difference": f"no difference that {count(comparison.seeds, 'seed')} show",
        "too few seeds": "too few seeds to tell",
        "nothing fits": "no TBPTT run fits",
    }.get(comparison.verdict, comparison.verdict)


def where_fptt_loses(found: Sequence[Comparison]) -> str:
    """Sentences that say for every task where FPTT is worse, where better, where neither."""
    by_task: dict[str, list[Comparison]] = {}
    for comparison in found:
        by_task.setdefault(panel_title(comparison.fptt), []).append(comparison)
    items = "".join(
        f"<li><b>{escape(task)}</b>: {escape(_sentence(several))}</li>"
        for task, several in by_task.items()
    )
    return f'<ul class="verdicts">{items}</ul>'


def _sentence(found: Sequence[Comparison]) -> str:
    def at(kind: str) -> str:
        ordered = sorted(found, key=lambda comparison: comparison.fptt.parts)
        return "K = " + listed([_amount(c) for c in ordered if c.verdict == kind])

    kinds = {comparison.verdict for comparison in found}
    seeds = min(c.seeds for c in found if c.fits is not None) if kinds != {"nothing fits"} else 0
    parts = []
    if "FPTT worse" in kinds:
        parts.append(f"FPTT loses to truncated BPTT in the same memory at {at('FPTT worse')}")
    if "FPTT better" in kinds:
        parts.append(f"FPTT wins at {at('FPTT better')}")
    if "no difference" in kinds:
        parts.append(f"{count(seeds, 'seed')} show no difference at {at('no difference')}")
    if "too few seeds" in kinds:
        parts.append(f"one seed tells nothing at {at('too few seeds')}")
    if "nothing fits" in kinds:
        parts.append(f"no TBPTT run needs as few bytes as FPTT at {at('nothing fits')}")
    if "FPTT worse" not in kinds and kinds & {"FPTT better", "no difference"}:
        parts.append("FPTT loses nowhere that these seeds show")
    return "; ".join(parts) + "."


def _amount(comparison: Comparison) -> str:
    group = comparison.fptt
    name = f"{group.parts:,}" + (f" ({group.extra})" if group.extra else "")
    if comparison.verdict not in ("FPTT worse", "FPTT better"):
        return name
    metric = comparison.fptt.metric
    points = " points" if metric == "test_accuracy" else ""
    return f"{name} (by {number(metric, abs(comparison.difference or 0.0))}{points})"


def _number(text: str) -> str:
    return f'<td class="n">{text}</td>'


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
