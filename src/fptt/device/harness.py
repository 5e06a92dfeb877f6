"""The check program of `fptt run`: an exported model that trains on given samples and prints what
it learnt."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fptt.device.build import build_elf
from fptt.device.folder import STACK_BYTES, BuildFile, Firmware
from fptt.device.kernels import CFLAGS, KernelFile
from fptt.device.operations import highest_number
from fptt.device.sources import runtime_folder
from fptt.device.targets import Target
from fptt.device.text import array_lines
from fptt.errors import FpttError, InputError

if TYPE_CHECKING:
    from fptt.program.program import Program

Array = NDArray[Any]


class Counted(NamedTuple):
    """What was counted of one operation."""

    instructions: int
    calls: int
    applied: int


@dataclass(frozen=True)
class Check:
    """What the check program printed.

    Attributes:
        instructions: of the training.
        stack: its high-water mark in bytes.
        status: of learning, FPTT_OK if all went well.
        one_byte_less: status of starting with one byte less than the model needs.
        updates: parts that it learnt from.
        losses: of these parts.
        outputs: of the last step.
        learned: the bytes of the state of learning.
        operations: where they were counted, by the number of the operation: its instructions, how
            often it ran, and the instructions of the updates inside it, which are counted apart.
    """

    instructions: int
    stack: int
    status: str
    one_byte_less: str
    updates: int
    losses: NDArray[np.float32]
    outputs: NDArray[np.float32]
    learned: bytes
    operations: Mapping[int, Counted] = field(default_factory=dict)


def build_check(
    firmware: Firmware,
    program: Program,
    batches: Sequence[tuple[Array, Array]],
    scratch: Path,
    *,
    count: bool,
) -> Path:
    """Builds the check program.

    Args:
        firmware: the exported folder, whose files and flags are used.
        program: its program.
        batches: inputs and targets, compiled in.
        scratch: folder for what is built.
        count: whether to count instructions by operation.

    Raises:
        InputError: no compiler for the target.
        FpttError: it does not compile.
    """
    runtime, folder = runtime_folder(), firmware.path
    work = scratch / ("counted" if count else "plain")
    work.mkdir()
    (work / "check_data.h").write_text(_data(firmware, program, batches))
    includes = [
        f"-I{p}" for p in (work, folder, folder / "fptt", folder / "port", runtime / "check")
    ]
    counting = ["-DFPTT_COUNT"] if count else []
    objects: list[Path] = []
    sources: list[tuple[Path, BuildFile]] = [
        (folder / f"{firmware.name}.c", BuildFile("", ("-include", "count.h"))),
        (runtime / "check" / "check.c", BuildFile("", ())),
        (runtime / "check" / "count.c", BuildFile("", ())),
        *((folder / file.path, file) for file in firmware.files),
    ]
    for source, file in sources:
        out = work / f"{source.stem}.o"
        command = [
            *compile_command(firmware.target, file, firmware.definitions),
            # the run time is the same either way, and compiled once
            *(() if source.is_relative_to(folder / "fptt") else counting),
            *includes,
        ]
        compile_file(command, source, out, keep=source.is_relative_to(folder / "fptt"))
        objects.append(out)
    need = program.memory().arena_bytes + 64 * 1024
    return build_elf(
        firmware.target,
        [],
        work / "check.elf",
        flags=["-Wl,--wrap=fptt_apply"] if count else [],
        objects=objects,
        stack_bytes=STACK_BYTES,
        ram=firmware.target.ram_for(need),
    )


def compile_command(
    target: Target, file: BuildFile | KernelFile, defined: Sequence[str]
) -> list[str]:
    """Compiler and flags for a file of a firmware; headers, input and output follow.

    Raises:
        InputError: the compiler is not installed.
    """
    return [
        _found(file.compiler) if file.compiler else target.compiler(),
        *CFLAGS,
        *(file.machine or target.cflags),
        *defined,
        *file.flags,
    ]


def _found(name: str) -> str:
    """The path of a compiler that a target needs besides its own.

    Raises:
        InputError: it is not installed; names the package.
    """
    found = shutil.which(name)
    if found is None:
        raise InputError(
            f"{name} is not here, and vectors need it. On Debian and Ubuntu: apt-get install {name}"
        )
    return found


#: the run time's files, compiled: command and text -> object file
_COMPILED: dict[tuple[str, ...], bytes] = {}


def compile_file(command: list[str], source: Path, out: Path, *, keep: bool) -> None:
    """Compiles a file; one of the run time only once for all firmware with the same flags."""
    flags = [word for word in command if not word.startswith("-I")]
    key = (*flags, source.read_text())
    if key in _COMPILED:
        out.write_bytes(_COMPILED[key])
        return
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FpttError(f"{source.name} does not compile: {done.stderr.strip()[:2000]}")
    if keep:
        _COMPILED[key] = out.read_bytes()


def _data(firmware: Firmware, program: Program, batches: Sequence[tuple[Array, Array]]) -> str:
    """check_data.h: what is trained on, in the order in which the device sees it."""
    token = program.buffers["input"].dtype == "int32"
    label = program.buffers["target"].dtype == "int32"
    every_step = program.buffers["target"].steps > 0
    # [batches, steps, rows, ...]
    x = np.stack([np.swapaxes(inputs, 0, 1) for inputs, _ in batches])
    y = np.stack([np.swapaxes(t, 0, 1) if every_step else t for _, t in batches])
    step_x = int(np.prod(x.shape[2:], dtype=int))
    step_y = int(np.prod(y.shape[2:] if every_step else y.shape[1:], dtype=int))
    steps = program.steps
    at_y = f"(b * {steps} + t) * {step_y}" if every_step else f"b * {step_y}"
    lines = [
        f'#include "{firmware.name}.h"',
        f"#define CHECK_MODEL {firmware.name}_program",
        f"#define CHECK_ARENA_BYTES {program.memory().arena_bytes}",
        f"#define CHECK_OUTPUTS {program.batch * program.output.row_items}",
        f"#define CHECK_BATCHES {len(batches)}",
        f"#define CHECK_STEPS {steps}",
        f"#define CHECK_OPS {highest_number(program)}",
        f"#define CHECK_PARTS {program.rule.parts}",
        f"#define CHECK_X(b, t) (check_x + ((b) * {steps} + (t)) * {step_x})",
        f"#define CHECK_Y(b, t) (check_y + {at_y})",
        *_array("check_x", x, whole=token),
        *_array("check_y", y, whole=label),
    ]
    return "\n".join(lines) + "\n"


def _array(name: str, values: Array, *, whole: bool) -> list[str]:
    kind = "int32_t" if whole else "float"
    lines = [f"static const {kind} {name}[{values.size}] = {{"]
    if whole:
        numbers = values.ravel().tolist()
        lines += [
            "  " + ", ".join(map(str, numbers[low : low + 20])) + ","
            for low in range(0, len(numbers), 20)
        ]
    else:
        lines += array_lines(values.astype(np.float32), missing='__builtin_nanf("")')
    return [*lines, "};"]


def parse(text: str) -> Check:
    """Reads what the check program printed.

    Raises:
        FpttError: not all of it is there.
    """
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    blocks: dict[str, bytes] = {}
    lines = text.splitlines()
    try:
        if lines[-1] != "end":
            raise ValueError("it stops early")
        at = 0
        operations: dict[int, Counted] = {}
        while lines[at] != "end":
            name, _, value = lines[at].rpartition(" ")
            at += 1
            if name == "op":
                of = (int(lines[at + n].rpartition(" ")[2]) for n in range(3))
                operations[int(value)] = Counted(*of)
                at += 3
                continue
            if name in ("init", "one_byte_less", "status"):
                words[name] = value
                continue
            if name not in ("losses", "outputs", "learned"):
                numbers[name] = int(value)
                continue
            following = -(-int(value) // 64)
            digits = "".join(lines[at : at + following])
            blocks[name] = blocks.get(name, b"") + bytes.fromhex(digits)
            at += following
        return Check(
            instructions=numbers["instructions"],
            stack=numbers["stack"],
            status=words["status"],
            one_byte_less=words["one_byte_less"],
            updates=numbers["updates"],
            losses=np.frombuffer(blocks["losses"], np.float32),
            outputs=np.frombuffer(blocks["outputs"], np.float32),
            learned=blocks["learned"],
            operations=operations,
        )
    except (ValueError, KeyError, IndexError) as error:
        raise FpttError(
            f"the firmware's output is not what was expected ({error!r}): {text[-400:].strip()!r}"
        ) from None
