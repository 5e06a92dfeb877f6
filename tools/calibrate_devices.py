"""Counts instructions and code bytes for `fptt plan --target`: writes src/fptt/device/costs/*.json.

    python tools/calibrate_devices.py                     # all targets that have an emulator
    python tools/calibrate_devices.py --target rv64 --dtype float32
    python tools/calibrate_devices.py --code              # bytes of code only

Networks that cover cells, sizes, rules and rows are exported, built and run under the target's
emulator, where every operation of the program is counted by itself. What is written depends on the
sources and the compiler only, so run it after a change of the run time's C and commit the result. A
target takes a few minutes; most of them compile.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fptt
from fptt import deploy
from fptt.deploy.inputs import made_up
from fptt.deploy.run import checked
from fptt.device import EMULATORS, TARGETS
from fptt.device.costs import (
    ACCEPT,
    APPLIED,
    FOLDER,
    LEARNER,
    WATCH,
    Fitted,
    accepted,
    code_features,
    kernels_checksum,
    kernels_of,
    learner_features,
    scalar_operations,
    terms,
    watch_features,
)
from fptt.device.fitting import Sample, fit
from fptt.device.folder import read_folder
from fptt.device.footprint import footprint
from fptt.device.harness import build_check
from fptt.device.operations import executions, operations
from fptt.device.whole import kernel_sizes, link_whole
from fptt.program.program import Program

#: which emulator counts for a target
EMULATOR = {
    "rv64": "qemu-rv64",
    "rv32": "qemu-rv32",
    "cortex-m4": "qemu-cortex-m4",
    "cortex-m55": "qemu-cortex-m55",
    "rv64gcv": "qemu-rv64",
}
#: what `fptt.build` can do; the rest is left out
OPTIONS = inspect.signature(fptt.build).parameters

WIDTHS = (3, 4, 5, 7, 8, 10, 12, 16, 17, 20, 24, 28, 32, 40, 48, 64)
BATCHES = (1, 4, 1, 2, 8, 1, 4, 3, 1, 16, 6, 2)
#: steps and parts; rows of a gradient are steps / parts x batch
CUTS = ((4, 2), (6, 1), (4, 4), (12, 1), (28, 2), (5, 5), (9, 1), (40, 1))
OTHER_RULES = (
    (fptt.FPTT, {"momentum": 0.9}, {}),
    (fptt.FPTT, "adam", {}),
    (fptt.TBPTT, {}, {}),
    (fptt.TBPTT, {"momentum": 0.9}, {}),
    (fptt.TBPTT, "adam", {}),
    (fptt.FPTT, {}, {"clip": 1.0}),
    (fptt.TBPTT, {}, {"clip": 1.0}),
    (fptt.FPTT, {"momentum": 0.9}, {"clip": 1.0}),
)


@dataclass(frozen=True)
class Design:
    """A network to be counted."""

    name: str
    net: fptt.Network
    rule: Any
    optimizer: Any
    options: dict[str, Any]

    def program(self, dtype: str) -> Program:
        rounding = {"rounding": "stochastic"} if dtype == "bfloat16" else {}
        return fptt.build(
            self.net, self.rule, self.optimizer, dtype=dtype, **rounding, **self.options
        )


def designs() -> Iterator[Design]:
    """All networks."""
    rng = np.random.default_rng(2024)
    cells = (fptt.LSTM, fptt.LSTM, fptt.GRU, fptt.RNN)

    def width() -> int:
        return int(rng.choice(WIDTHS))

    def made(index: int) -> tuple[fptt.Network, int]:
        inputs, one, two, outputs = (
            int(rng.choice((1, 1, 2, 3, 8, 13))),
            width(),
            width(),
            width(),
        )
        layers: list[Any] = [cells[index % 4](inputs, one), cells[(index // 4) % 4](one, two)]
        if index % 3 == 1:
            middle = width()
            layers += [fptt.Linear(two, middle), fptt.ReLU()]
            two = middle
        if index % 8 == 5:
            layers.insert(1, fptt.Dropout(0.25))
        if index % 8 == 7:
            layers = [fptt.Embedding(inputs + 5, inputs), *layers]
        return fptt.Network([*layers, fptt.Linear(two, outputs)]), len(layers)

    for index in range(52):
        net, last = made(index)
        steps, parts = CUTS[index % len(CUTS)]
        rule, optimizer, options = fptt.FPTT, {}, {}
        if index % 3 == 2:
            rule, optimizer, options = OTHER_RULES[(index // 3) % len(OTHER_RULES)]
        options = dict(options)
        if index % 6 == 3:
            options["train"] = (f"{last}.*",)
        elif index % 6 == 4:
            options["train"] = ("*.bias*",) if index % 12 == 4 else ("*weight_hh*", f"{last}.*")
        if index % 10 == 6:
            options["loss"] = "every_step"
        elif index % 10 == 9:
            options["loss"] = "auxiliary"
        elif index % 10 == 2:
            options["criterion"] = "mse"
        how = (
            fptt.Adam(lr=0.001) if optimizer == "adam" else fptt.SGD(lr=0.01, **optimizer)  # type: ignore[arg-type]
        )
        batch = BATCHES[index % len(BATCHES)]
        yield Design(
            f"{index}", net, rule(parts=parts), how, {"steps": steps, "batch": batch, **options}
        )
        if index % 4 == 0 and "recompute" in OPTIONS:
            yield Design(
                f"{index} recomputed",
                net,
                rule(parts=1),
                how,
                {"steps": steps, "batch": batch, **options, "recompute": True},
            )
        if index % 4 == 1 and "adapters" in OPTIONS:
            adapted = fptt.Network([fptt.LSTM(1, 24 + index), fptt.Linear(24 + index, 10)])
            yield Design(
                f"{index} adapted",
                adapted,
                rule(parts=parts),
                how,
                {"steps": steps, "batch": batch, "train": ("1.*",), "adapters": {"0.weight_hh": 4}}
                | ({"recompute": index % 8 == 1} if "recompute" in OPTIONS else {}),
            )
    # the sizes of small devices
    for hidden, batch, steps, parts in (
        (128, 1, 4, 2), (128, 4, 4, 2), (64, 1, 8, 2), (96, 2, 4, 4), (64, 4, 6, 1), (32, 1, 28, 4),
        (16, 1, 300, 1), (48, 8, 40, 1),
    ):  # fmt: skip
        net = fptt.Network([fptt.LSTM(1, hidden), fptt.Linear(hidden, 10)])
        for train in (("*",), ("1.*",)):
            yield Design(
                f"1-{hidden}-10, {batch}, {steps}, {parts}, {train[0]}",
                net,
                fptt.FPTT(parts=parts),
                fptt.SGD(lr=0.01),
                {"steps": steps, "batch": batch, "train": train},
            )


@dataclass
class Counted:
    """What was found, of all networks with one number type."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    scalar: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stack: int = 0
    code: list[tuple[str, dict[str, float], int]] = field(default_factory=list)


def count(
    design: Design,
    dtype: str,
    target: str,
    found: Counted,
    fixed: int,
    kernels: Any,
    with_code: bool,
    with_instructions: bool,
) -> None:
    """Runs one network and adds what was counted."""
    program = design.program(dtype)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        deploy.export(program, program.net.initial(0), folder, target=target)
        firmware = read_folder(folder)
        if with_instructions:
            batches = [made_up(program, program.batch)]
            emulator = EMULATORS[EMULATOR[target]]
            elf = build_check(firmware, program, batches, Path(scratch), count=True)
            check = checked(emulator.run(elf), emulator.name)
            if check.status != "FPTT_OK":
                raise SystemExit(f"{design.name}: {check.status}")
            found.stack = max(found.stack, check.stack)
            add_samples(design.name, program, check.operations, found)
        whole = link_whole(firmware, Path(scratch)) if with_code else None
    if whole is None:
        return
    pieces: dict[str, int] = {}
    for kernel in kernels_of(program):
        pieces |= kernels[kernel]
    constants = footprint(program, TARGETS[target].pointer_bytes).constants
    own = whole.flash_bytes - constants - fixed - sum(pieces.values())
    found.code.append((design.name, code_features(program), own))


def add_samples(name: str, program: Program, counted: Any, found: Counted) -> None:
    """Every operation as one sample."""
    features: dict[tuple[int, str], dict[str, float]] = {}
    times: dict[int, int] = defaultdict(int)
    for e in executions(program):
        number = e.operation.number
        times[number] += e.times
        for key, own in terms(e.operation.op, e.rows):
            summed = features.setdefault((number, key), {})
            for feature, value in own.items():
                summed[feature] = summed.get(feature, 0.0) + e.times * value
            found.scalar[key] += e.times * scalar_operations(e.operation.op, e.rows)
    for operation in operations(program):
        if times[operation.number] != counted[operation.number].calls:
            raise SystemExit(
                f"{name}: {operation} ran {counted[operation.number].calls} times, "
                f"not {times[operation.number]}"
            )
    for (number, key), own in features.items():
        own_count = counted[number]
        if key.startswith(APPLIED):
            total = own_count.applied
        else:
            # a whole update is one cost, whether or not the linker sees the call inside it
            total = own_count.instructions + own_count.applied * key.startswith("update ")
        if total > 0:
            found.samples[key].append(Sample(name, own, float(total)))
    last = len(operations(program))
    found.samples[LEARNER].append(
        Sample(name, learner_features(program), float(counted[0].instructions))
    )
    for _, features_of_loss in accepted(program):
        found.samples[ACCEPT].append(
            Sample(name, features_of_loss, float(counted[last + 1].instructions))
        )
    found.samples[WATCH].append(
        Sample(name, watch_features(program), float(counted[last + 2].instructions))
    )


def widened(samples: dict[str, list[Sample]], fitted: dict[str, Fitted]) -> float:
    """How much wider than the root of the summed squares of typical errors the band must be, so
    that every network lies within its own when it is left out of the fit."""
    predicted: dict[str, float] = defaultdict(float)
    counted: dict[str, float] = defaultdict(float)
    by_kind: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, own in samples.items():
        for group in {sample.group for sample in own}:
            others = [sample for sample in own if sample.group != group]
            left_out = fit(others, judged=False) if others else None
            for sample in own:
                if sample.group == group:
                    value = left_out(sample.features) if left_out else sample.counted
                    predicted[group] += value
                    counted[group] += sample.counted
                    by_kind[group][name] += value
    factor = 1.0
    for group, kinds in by_kind.items():
        apart = sum((value * fitted[name].typical) ** 2 for name, value in kinds.items()) ** 0.5
        factor = max(factor, abs(predicted[group] - counted[group]) / max(apart, 1e-9))
    return float(f"{factor:.4g}")


def code_error(found: Counted) -> int:
    """The largest error in bytes of a network's code when it is left out of the fit."""
    samples = [Sample(name, features, float(own)) for name, features, own in found.code]
    errors = []
    for left_out in samples:
        others = fit([s for s in samples if s.group != left_out.group], judged=False)
        errors.append(abs(others(left_out.features) - left_out.counted))
    return int(-(-max(errors) // 64) * 64)


def measure(target: str, dtype: str, old: dict[str, Any] | None) -> dict[str, Any]:
    """Everything of one target and number type, as it stands in the file.

    Args:
        target: its name.
        dtype: the number type.
        old: instructions to keep, where only code is measured.
    """
    found = Counted()
    with tempfile.TemporaryDirectory() as scratch:
        fixed, kernels = kernel_sizes(TARGETS[target], dtype, Path(scratch))
    for number, design in enumerate(designs()):
        # linking them all would take as long again; 5 has no factor in common with the patterns
        with_code = number % 5 in (0, 2)
        if with_code or old is None:
            start = time.perf_counter()
            count(design, dtype, target, found, fixed, kernels, with_code, old is None)
            seconds = time.perf_counter() - start
            print(f"{target} {dtype} {design.name}: {seconds:.1f} s", file=sys.stderr)
    own: dict[str, Any] = dict(old) if old is not None else instructions_part(found)
    code = fit([Sample(name, features, float(own)) for name, features, own in found.code])
    return own | {
        "fixed_code": fixed,
        "kernel_code": kernels,
        "model_code": dict(code.coefficients),
        "code_error": code_error(found),
    }


def instructions_part(found: Counted) -> dict[str, Any]:
    """What is fitted to the instructions."""
    fitted = {name: fit(samples) for name, samples in sorted(found.samples.items())}
    rates = [
        sum(s.counted for s in found.samples[name]) / found.scalar[name] for name in found.scalar
    ]
    return {
        "operations": {
            name: vars(f) | {"coefficients": dict(f.coefficients)} for name, f in fitted.items()
        },
        "guess": float(f"{np.median(rates):.4g}"),
        "widened": widened(found.samples, fitted),
        "stack_bytes": found.stack,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", choices=sorted(EMULATOR), action="append")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), action="append")
    parser.add_argument("--code", action="store_true", help="code only; keeps the instructions")
    given = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for target in given.target or EMULATOR:
        path = FOLDER / f"{target}.json"
        kept = path.is_file() and (given.dtype or given.code)
        old = json.loads(path.read_text()) if kept else {"types": {}}
        compiler = TARGETS[target].compiler()
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        )
        types = old["types"]
        for dtype in given.dtype or ("float32", "bfloat16"):
            types[dtype] = measure(target, dtype, types.get(dtype) if given.code else None)
        data = {
            "target": target,
            "emulator": EMULATOR[target],
            "compiler": version.stdout.splitlines()[0],
            "kernels": kernels_checksum(target),
            "types": types,
        }
        path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
        for dtype, own in types.items():
            worst = sorted(own["operations"].items(), key=lambda item: -item[1]["largest"])[:8]
            print(f"{target} {dtype}: code within {own['code_error']} bytes; largest residuals")
            for name, fitted in worst:
                print(
                    f"  {name}: typical {fitted['typical']:.1%}, largest {fitted['largest']:.1%}, "
                    f"{fitted['samples']} samples"
                )


if __name__ == "__main__":
    main()
