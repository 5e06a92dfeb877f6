"""Runs exported firmware under an emulator, and compares what it learnt with the host."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.deploy.export import host_trainer
from fptt.device.elf import Elf, read_elf
from fptt.device.emulator import Console, emulator
from fptt.device.folder import read_folder
from fptt.device.footprint import footprint
from fptt.device.harness import Check, build_check, parse
from fptt.device.kernels import stack_bytes
from fptt.device.operations import by_class
from fptt.errors import FpttError, InputError
from fptt.program.arena import Arena
from fptt.program.ir import Role
from fptt.program.plan import LEARNED
from fptt.program.program import Program
from fptt.trainer import Trainer
from fptt.training.batches import make_batch

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """How far a tensor on the device is from the host's: ||a - b|| / ||b||.

    Attributes:
        name: of the tensor.
        role: parameter, rule_state or optimizer_state.
        relative: the difference.
    """

    name: str
    role: str
    relative: float


@dataclass(frozen=True)
class Report:
    """What a run under an emulator showed.

    Attributes:
        emulator, target: where it ran.
        sequences, parts, updates: what was trained.
        status: of learning, FPTT_OK or why it stopped.
        multiply_adds: of the products of the whole run.
        instructions: of the whole training run; 0 where nothing counts them.
        classes: instructions of one batch by function class.
        losses: of every part, on the device.
        host_losses: the same on the host.
        differences: of every tensor that is learnt, and of what rule and optimizer remember.
        tolerance: the largest difference of a parameter that rounding explains.
        arena_bytes, ram_bytes: planned: the arena, and arena and handle.
        linked_ram_bytes: static data of the linked check program that belong to the model; 0 where
            no linker script places them (posix).
        flash_bytes: code and constants of the linked check program, its samples included.
        stack_bytes: the high-water mark, of all that trained.
        stack_bound: what it stays below, as the README of the folder says.
        refuses_one_byte_less: whether it refused to start with one byte less than it needs.
        seconds: of the emulator.
    """

    emulator: str
    target: str
    sequences: int
    parts: int
    updates: int
    status: str
    multiply_adds: int
    instructions: int
    classes: Mapping[str, int]
    losses: Sequence[float]
    host_losses: Sequence[float]
    differences: Sequence[Difference]
    tolerance: float
    arena_bytes: int
    ram_bytes: int
    linked_ram_bytes: int
    flash_bytes: int
    stack_bytes: int
    stack_bound: int
    refuses_one_byte_less: bool
    seconds: float

    @property
    def largest_parameter_difference(self) -> Difference:
        """The parameter that is farthest from the host's."""
        return _farthest(self.differences)

    @property
    def instructions_per_multiply_add(self) -> float | None:
        """Instructions of everything over multiply-adds of the products; None if not counted."""
        return self.instructions / self.multiply_adds if self.instructions else None

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return {
            **vars(self),
            "differences": {d.name: d.relative for d in self.differences},
            "largest_parameter_difference": self.largest_parameter_difference.relative,
            "instructions_per_multiply_add": self.instructions_per_multiply_add,
        }

    def require_equal(self) -> None:
        """FpttError unless device and host learnt the same, and the memory is as planned."""
        worst = self.largest_parameter_difference
        if self.status != "FPTT_OK":
            raise FpttError(f"learning stopped on {self.emulator}: {self.status}")
        if len(self.losses) != len(self.host_losses):
            raise FpttError(
                f"the device learnt from {len(self.losses)} parts, the host from "
                f"{len(self.host_losses)}"
            )
        first = abs(self.losses[0] - self.host_losses[0]) if self.losses else 0.0
        if first > (0.1 if self.tolerance >= 0.05 else 1e-3) * max(1.0, abs(self.host_losses[0])):
            raise FpttError(
                f"the loss of the first part is {self.losses[0]:g} on the device and "
                f"{self.host_losses[0]:g} on the host, before anything was learnt"
            )
        if not worst.relative <= self.tolerance:
            raise FpttError(
                f"{worst.name} is {worst.relative:.2g} from the host's; rounding explains "
                f"{self.tolerance:.2g}"
            )
        if self.linked_ram_bytes and self.linked_ram_bytes != self.ram_bytes:
            raise FpttError(
                f"the linker placed {self.linked_ram_bytes:,} bytes of RAM for the model, "
                f"{self.ram_bytes:,} were planned"
            )
        if self.stack_bytes > self.stack_bound:
            raise FpttError(
                f"the stack took {self.stack_bytes:,} bytes, more than the bound of "
                f"{self.stack_bound:,}"
            )
        if not self.refuses_one_byte_less:
            raise FpttError("the firmware started with one byte less than it needs")


def run(
    folder: str | Path,
    *,
    on: str,
    x: Array,
    y: Array,
    count_classes: bool = True,
    timeout: float = 600.0,
) -> Report:
    """Trains an exported model under an emulator and on the host, and compares.

    Args:
        folder: what `export` wrote.
        on: an emulator, such as "qemu-rv64".
        x, y: sequences of the program's T steps, as for `Trainer.train_batch`; as many whole
            batches as there are.
        count_classes: run one batch a second time to count instructions by function class.
        timeout: seconds for each run.

    Raises:
        InputError: no such emulator or compiler, or sequences that do not fit.
        FpttError: the firmware does not build, does not end, or ends badly.
    """
    firmware = read_folder(Path(folder))
    machine = emulator(on)
    if not machine.runs(firmware.target.name):
        raise InputError(
            f"{folder} was exported for {firmware.target.name}, and {on} emulates "
            f"{machine.target}; export it with --target {machine.target}"
        )
    trainer = host_trainer(firmware.path)
    program = trainer.program
    batches = _batches(program, x, y)
    with tempfile.TemporaryDirectory() as scratch:
        elf = build_check(firmware, program, batches, Path(scratch), count=False)
        console = machine.run(elf, timeout=timeout)
        check = checked(console, machine.name)
        sizes = read_elf(elf) if firmware.target.scripts else None
        size = footprint(program, firmware.target.pointer_bytes)
        classes: Mapping[str, int] = {}
        if count_classes and check.instructions:
            counted = build_check(firmware, program, batches[:1], Path(scratch), count=True)
            found = checked(machine.run(counted, timeout=timeout), machine.name).operations
            classes = by_class(program, {n: (c.instructions, c.applied) for n, c in found.items()})
    host_losses = _train(trainer, batches)
    largest = 0.05 if "bfloat16" in (program.dtype, program.activation_dtype) else 1e-5
    differences = _differences(trainer, check.learned)
    if _farthest(differences).relative > largest:
        largest = max(largest, 10 * _sensitivity(firmware.path, trainer, batches))
    return Report(
        emulator=on,
        target=firmware.target.name,
        sequences=len(batches) * program.batch,
        parts=program.rule.parts,
        updates=check.updates,
        multiply_adds=len(batches) * multiply_adds(program),
        instructions=check.instructions,
        classes=classes,
        losses=[float(v) for v in check.losses],
        host_losses=host_losses,
        differences=differences,
        tolerance=largest,
        arena_bytes=size.arena,
        ram_bytes=size.ram,
        linked_ram_bytes=_model_symbols(sizes) if sizes else 0,
        flash_bytes=sizes.flash_bytes if sizes else 0,
        stack_bytes=check.stack,
        stack_bound=stack_bytes(program, firmware.target),
        refuses_one_byte_less=check.one_byte_less == "FPTT_ARENA_TOO_SMALL",
        seconds=console.seconds,
        status=check.status,
    )


def _model_symbols(elf: Elf) -> int:
    """Bytes of the model's objects in RAM, as the linker placed them."""
    return sum(s.bytes for s in elf.symbols if s.name in ("check_arena", "check_model"))


def _farthest(differences: Sequence[Difference]) -> Difference:
    parameters = [d for d in differences if d.role == Role.PARAMETER]
    return max(parameters, key=lambda d: d.relative)


def _train(trainer: Trainer, batches: Sequence[tuple[Array, Array]]) -> list[float]:
    losses: list[float] = []
    for inputs, targets in batches:
        losses += trainer._parts.train(make_batch(trainer.program, inputs, targets, None))
    return losses


def _sensitivity(folder: Path, trainer: Trainer, batches: Sequence[tuple[Array, Array]]) -> float:
    """How far apart two hosts end, of which one starts with other last bits: what learning makes of
    rounding, however right the arithmetic is."""
    other = host_trainer(folder)
    last_bit = 2.0**-8 if other.program.dtype == "bfloat16" else 2.0**-23
    rng = np.random.default_rng(0)
    other.load_parameters(
        {
            name: values * (1 + last_bit * rng.choice((-1, 1), values.shape))
            for name, values in other.parameters().items()
        }
    )
    _train(other, batches)
    return max(
        _apart(other.backend.read(name), trainer.backend.read(name))
        for name in trainer.program.trained
    )


def _apart(a: Array, b: Array) -> float:
    """||a - b|| / ||b||."""
    theirs = b.astype(np.float64)
    return float(np.linalg.norm(a - theirs)) / (float(np.linalg.norm(theirs)) or 1.0)


def multiply_adds(program: Program) -> int:
    """Multiply-adds of the products of one pass over a batch, forward and backward."""
    items = program.work().items
    return sum(item.work.mul for item in items if item.function.startswith("MatMul"))


def _batches(program: Program, x: Array, y: Array) -> list[tuple[Array, Array]]:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) < program.batch or len(x) != len(y):
        raise InputError(
            f"{len(x)} sequences with {len(y)} targets; the program learns from batches of "
            f"{program.batch}, so give at least as many"
        )
    if x.shape[1] != program.steps:
        raise InputError(f"x has {x.shape[1]} steps; the program was built for {program.steps}")
    size = program.batch
    return [(x[low : low + size], y[low : low + size]) for low in range(0, len(x) - size + 1, size)]


def checked(console: Console, name: str) -> Check:
    """What the check program printed; FpttError where it ended badly."""
    if console.exit_code != 0:
        raise FpttError(
            f"the firmware ended with code {console.exit_code} on {name}: "
            f"{(console.text + console.errors)[-400:].strip()}"
        )
    return parse(console.text)


def _differences(trainer: Trainer, learned: bytes) -> list[Difference]:
    """Every tensor that is learnt, on the device against the host."""
    program = trainer.program
    device = Arena(program)
    device.learned[...] = np.frombuffer(learned, np.uint8)
    return [
        Difference(name, b.role, _apart(device.read(name), trainer.backend.read(name)))
        for name, b in program.buffers.items()
        if b.role in LEARNED
    ]
