"""`fptt bench --device`: what training costs on a device, in instructions, under emulation.

The counts are exact and the same in every run; how busy this computer is does not matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fptt import deploy
from fptt.bench.beats import count_beats
from fptt.bench.cases import Case
from fptt.deploy.run import multiply_adds
from fptt.device.build import build_elf
from fptt.device.emulator import emulator
from fptt.device.harness import compile_file
from fptt.device.kernels import CFLAGS, definitions, kernels_for
from fptt.device.sources import runtime_folder
from fptt.device.targets import target as target_named
from fptt.errors import FpttError, InputError
from fptt.published import ELEMENT_CYCLES
from fptt.soc.chip import load_chip
from fptt.soc.publications import published_measurements
from fptt.soc.workload import published
from fptt.tasks import load

Row = dict[str, Any]
Array = NDArray[Any]

#: seconds of one pass of the published workload on one Rocket core without the array, by K
ROCKET_SECONDS = published_measurements().time("single Rocket").seconds
#: the clock at which these are quoted
SYSTEM_HZ = load_chip("rocket").clock_hz


@dataclass(frozen=True)
class Build:
    """One way to build the training for a processor.

    Attributes:
        name: as on the command line.
        target: of the export.
        emulator: that runs and counts it.
        functions: whether sigmoid, tanh and the update are counted alone as well.
        assembly: whether inline assembly is used.
    """

    name: str
    target: str
    emulator: str
    functions: bool = False
    assembly: bool = True


#: every build by name, in the order of the tables
BUILDS: dict[str, Build] = {
    build.name: build
    for build in (
        Build("rv64", "rv64", "qemu-rv64", functions=True),
        Build("rv32", "rv32", "qemu-rv32", functions=True),
        Build("cortex-m4", "cortex-m4", "qemu-cortex-m4", functions=True),
        Build("cortex-m4-c", "cortex-m4", "qemu-cortex-m4", assembly=False),
        Build("cortex-m55", "cortex-m55", "qemu-cortex-m55"),
        Build("rv64gcv", "rv64gcv", "qemu-rv64"),
    )
}

#: instructions per multiply-add that a first draft reached, by batch: the figure to stay below. For
#: LSTM 1-128-10, T = 784, K = 28
TRAINING_BARS = {
    "rv64": {1: 2.4, 4: 1.8},
    "cortex-m4": {1: 1.65, 4: 1.55},
    "cortex-m4-c": {1: 2.5, 4: 1.9},
    "cortex-m55": {1: 0.79, 4: 0.65},
    "rv64gcv": {1: 0.28, 4: 0.25},
}
#: instructions per element
FUNCTION_BARS = {
    "rv64": {"sigmoid": 30.0, "tanh": 30.0, "update": 18.0},
    "rv32": {"update": 18.0},
    "cortex-m4": {"sigmoid": 38.0, "tanh": 38.0, "update": 18.0},
}
#: instructions per multiply-add of a product as it is written down, on rv64: two loads, the
#: multiply-add, two pointers, a branch. `plain_product` of the functions counts it again
NAIVE = 6.0
#: instructions of one element in another element-wise loop of the published program: loads, the
#: operations, a store, the loop. Assumed; it decides over 2 % of the result
LOOP = 10.0


def cases(
    hidden: Sequence[int] = (128,),
    batches: Sequence[int] = (1, 4),
    parts: Sequence[int] = (28,),
    steps: int = 784,
) -> list[Case]:
    """LSTM 1-hidden-10 with FPTT around plain SGD: every combination, the last fastest.

    Raises:
        InputError: a combination that cannot be built.

    Example:
        >>> [case.name for case in cases()]
        ['lstm 1-128-10, batch 1, K=28', 'lstm 1-128-10, batch 4, K=28']
    """
    found = [
        Case(hidden=h, batch=batch, parts=k, steps=steps, momentum=0.0)
        for h, batch, k in product(hidden, batches, parts)
    ]
    for case in found:
        case.program()  # complains now, not after minutes
    return found


def builds(names: Sequence[str] | None) -> list[Build]:
    """The builds of these names; all without.

    Raises:
        InputError: there is no such build.
    """
    for name in names or ():
        if name not in BUILDS:
            raise InputError(f"no target {name!r} to count on; there are: {', '.join(BUILDS)}")
    return [build for build in BUILDS.values() if not names or build.name in names]


def measure_device(
    chosen: Sequence[Case],
    targets: Sequence[Build],
    on_row: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Row]]:
    """All figures: of the training, of functions alone, of vectors in beats, of one Rocket core.

    Args:
        chosen: what is trained, see `cases`.
        targets: on what, see `builds`.
        on_row: called before each run with its name.

    Returns:
        Rows by table: training, functions, vectors, rocket. A table may be empty: vectors without
        the target rv64gcv, or where Spike is not installed; rocket without the published workload
        on rv64.

    Raises:
        InputError: a compiler or an emulator is missing; names it and its package.
        FpttError: what was trained differs from what the host trains.
    """
    found: dict[str, list[Row]] = {"training": [], "functions": [], "vectors": [], "rocket": []}
    for build in targets:
        for case in chosen:
            on_row(f"{build.name}, batch {case.batch}")
            found["training"].append(training_row(case, build))
        if build.functions:
            on_row(f"{build.name}, functions")
            found["functions"] += function_rows(build)
        if build.target == "rv64gcv" and emulator("spike-rv64").missing() is None:
            for case in chosen:
                on_row(f"{build.name}, batch {case.batch}, beats")
                found["vectors"] += beat_rows(case, build)
    for row in found["training"]:
        published = (row["hidden"], row["batch"], row["steps"]) == (128, 4, 784)
        if row["target"] == "rv64" and published and row["parts"] in ROCKET_SECONDS:
            found["rocket"] += rocket_rows(row["parts"], row["instructions"])
    return found


# --- training ----------


def counted_multiply_adds(case: Case) -> int:
    """Multiply-adds by which instructions are divided: those of one layer's products.

    4 H (I + H) forward, 4 H H for dh and 4 H (I + H) for the weights, for each step and sequence.

    >>> counted_multiply_adds(Case(batch=4))
    619773952
    """
    cells, inputs = case.hidden, case.inputs
    step = 4 * cells * (inputs + cells) + 4 * cells * cells + 4 * cells * (inputs + cells)
    return case.batch * case.steps * step


def data(case: Case) -> tuple[Array, Array, str]:
    """One batch, and where it is from: digits, a pixel a step, or random numbers.

    Digits have 784 pixels.
    """
    if case.steps != 784 or case.inputs != 1:
        return *case.data(), "random numbers"
    digits = load("s-mnist", subset=True).train
    # neighbours are of one class
    every = len(digits) // case.batch
    if every == 0:
        raise InputError(f"batch is {case.batch}; there are {len(digits)} digits")
    x, y = digits.x[::every][: case.batch], digits.y[::every][: case.batch]
    return x, y, "digits of the embedded subset of MNIST"


def training_row(case: Case, build: Build) -> Row:
    """Instructions of training one batch; fails if the host does not learn the same.

    Where functions are counted, the update is counted in the training too, where it is called for
    a few lines of a matrix at once.
    """
    x, y, source = data(case)
    program = case.program()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _export(case, build, folder)
        report = deploy.run(folder, on=build.emulator, x=x, y=y, count_classes=build.functions)
    report.require_equal()
    update = report.classes.get("EWO-SGD", 0) / (_parameters(case) * case.parts)
    counted, own = counted_multiply_adds(case), multiply_adds(program)
    per = report.instructions / counted
    bar = TRAINING_BARS.get(build.name, {}).get(case.batch) if _of_the_bars(case) else None
    return {
        "target": build.name,
        "emulator": build.emulator,
        "hidden": case.hidden,
        "batch": case.batch,
        "parts": case.parts,
        "steps": case.steps,
        "data": source,
        "instructions": report.instructions,
        "multiply_adds": counted,
        "per_multiply_add": per,
        "program_multiply_adds": own,
        "per_program_multiply_add": report.instructions / own,
        "bar": bar,
        "met": None if bar is None else per <= bar,
        "update_per_parameter": update or None,
    }


def _parameters(case: Case) -> int:
    return sum(values.size for values in case.program().net.initial(0).values())


def _of_the_bars(case: Case) -> bool:
    return (case.hidden, case.steps, case.parts) == (128, 784, 28)


def _export(case: Case, build: Build, folder: Path) -> None:
    program = case.program()
    deploy.export(
        program, program.net.initial(0), folder, target=build.target, assembly=build.assembly
    )


# --- functions alone ----------


def function_rows(build: Build) -> list[Row]:
    """Instructions of sigmoid, tanh, the update and a plain product, by element of a loop.

    `runtime/check/functions.c`, with the flags with which the cells and the update are compiled.
    """
    target = target_named(build.target)
    runtime = runtime_folder()
    files = kernels_for(build.target, "float32", "float32")
    cells = next(file for file in files if "lstm_forward" in file.kernels)
    updates = next(file for file in files if "apply" in file.kernels)
    folders = [runtime / "include", runtime / "src"]
    defined = definitions("float32", "float32", assembly=build.assembly)
    with tempfile.TemporaryDirectory() as scratch:
        update = Path(scratch) / "updates.o"
        command = [target.compiler(), *CFLAGS, *target.cflags, *defined, *updates.flags]
        command += [f"-I{folder}" for folder in folders]
        compile_file(command, runtime / updates.path, update, keep=False)
        elf = build_elf(
            target,
            [runtime / "check" / "functions.c"],
            Path(scratch) / "functions.elf",
            includes=folders,
            flags=[*defined, *cells.flags, "-Werror=implicit-function-declaration"],
            objects=[update],
        )
        console = emulator(build.emulator).run(elf, timeout=60)
    if console.exit_code != 0:
        raise FpttError(f"functions.c ended with code {console.exit_code}: {console.text[-400:]}")
    rows = []
    for line in console.text.splitlines():
        name, elements, instructions = line.split()
        per = int(instructions) / int(elements)
        bar = FUNCTION_BARS.get(build.name, {}).get(name)
        rows.append(
            {
                "target": build.name,
                "function": name,
                "elements": int(elements),
                "instructions": int(instructions),
                "per_element": per,
                "bar": bar,
                "met": None if bar is None else per <= bar,
                "published_cycles": ELEMENT_CYCLES.get(name),
            }
        )
    return rows


# --- vectors ----------


def beat_rows(case: Case, build: Build) -> list[Row]:
    """Instructions and 128-bit beats of one part's training on Spike, by function and in sum."""
    part = Case(
        hidden=case.hidden,
        batch=case.batch,
        parts=1,
        steps=max(1, case.steps // case.parts),
        momentum=0.0,
    )
    x, y = part.data()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _export(part, build, folder)
        functions = count_beats(folder, part.program(), x, y)
    counted = counted_multiply_adds(part)
    names = ("instructions", "vector_instructions", "beats")
    total = {name: sum(getattr(f, name) for f in functions) for name in names}
    return [
        {
            "target": build.name,
            "hidden": part.hidden,
            "batch": part.batch,
            "steps": part.steps,
            **row,
            "instructions_per_multiply_add": row["instructions"] / counted,
            "beats_per_multiply_add": row["beats"] / counted,
        }
        for row in (*map(asdict, functions), {"function": "all", **total})
    ]


# --- one Rocket core ----------


def implied_cycles_per_instruction(parts: int) -> float:
    """Cycles per instruction at which one Rocket core takes the time that was published.

    (seconds x clock - cycles of sigmoid, tanh and update) / (NAIVE x multiply-adds + LOOP x
    elements of all other element-wise loops). Sigmoid, tanh and update cost what is published of
    the same system (fptt.published.ELEMENT_CYCLES). Of the other loops there are 20 a step over
    B H elements: 3 forward, 3 and two times 7 backward.

    Args:
        parts: K; 1, 28 or 784.
    """
    steps, elements, parameters = 784, 4 * 128, 67_850
    known = steps * elements * (3 * ELEMENT_CYCLES["sigmoid"] + 2 * ELEMENT_CYCLES["tanh"])
    known += parts * parameters * ELEMENT_CYCLES["update"]
    estimate = NAIVE * published(parts).macs + LOOP * 20 * steps * elements
    return (ROCKET_SECONDS[parts] * SYSTEM_HZ - known) / estimate


def rocket_rows(parts: int, instructions: int) -> list[Row]:
    """Seconds of our instructions on one Rocket core without accelerator, beside those published.

    Args:
        parts: K; 1, 28 or 784.
        instructions: of the whole pass on rv64.
    """
    sources = (
        (1.0, "one instruction a cycle"),
        (implied_cycles_per_instruction(parts), "implied by the published run"),
    )
    return [
        {
            "parts": parts,
            "instructions": instructions,
            "cycles_per_instruction": cycles,
            "source": source,
            "seconds": instructions * cycles / SYSTEM_HZ,
            "published_seconds": ROCKET_SECONDS[parts],
        }
        for cycles, source in sources
    ]
