"""Exports a model as firmware, runs it under an emulator, and compares with the host.

>>> firmware = export(program, parameters, "build/model", target="rv64")   # doctest: +SKIP
>>> report = run("build/model", on="qemu-rv64")                            # doctest: +SKIP
>>> report.largest_difference < 1e-5                                       # doctest: +SKIP
True
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.device.elf import read_elf
from fptt.device.emulator import Console, emulator
from fptt.device.folder import Firmware, read_folder, write_folder
from fptt.device.harness import Check, build_check, parse
from fptt.device.targets import target as target_named
from fptt.errors import FpttError, InputError
from fptt.program.arena import Arena
from fptt.program.plan import LEARNED
from fptt.program.program import Program
from fptt.storage.files import write_atomically
from fptt.storage.snapshot import describe, rebuild
from fptt.trainer import Trainer

Array = NDArray[Any]
#: of the exported folder: what `run` needs to train the same model on the host
HOST = "host.npz"


def export(
    program: Program,
    parameters: Mapping[str, ArrayLike],
    folder: str | Path,
    *,
    target: str,
    **options: Any,
) -> Firmware:
    """Writes the self-contained folder of a model that goes on learning on a device.

    Args:
        program: the training program, from `fptt.build`.
        parameters: the factory weights, by name, such as `trainer.parameters()`.
        folder: to create.
        target: "rv64", "rv32", "cortex-m4", "cortex-m55" or "posix".
        options: `name`, `seed`, `normalisation`, `loss_limit`; see
            `fptt.device.folder.write_folder`.

    Raises:
        InputError: a program that no device can run (named), an unknown target, a folder with
            other files in it.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> program = fptt.build(net, fptt.FPTT(parts=4), steps=16)
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> _ = export(program, net.initial(0), folder, target="rv64")
        >>> sorted(path.name for path in folder.iterdir() if path.suffix in (".c", ".h"))
        ['main.c', 'model.c', 'model.h', 'model_weights.h']
    """
    arrays = {name: np.asarray(values) for name, values in parameters.items()}
    program.net.check_weights(arrays)
    firmware = write_folder(program, arrays, Path(folder), target_named(target), **options)
    described = {"program": describe(program), "seed": options.get("seed", 0)}
    with tempfile.TemporaryFile() as file:
        text = np.frombuffer(json.dumps(described).encode(), np.uint8)
        np.savez(file, allow_pickle=False, description=text, **arrays)
        file.seek(0)
        write_atomically(firmware.path / HOST, file.read())
    return firmware


@dataclass(frozen=True)
class Difference:
    """How far a tensor on the device is from the host's: ||a - b|| / ||b||."""

    name: str
    relative: float


@dataclass(frozen=True)
class Report:
    """What a run under an emulator showed.

    Attributes:
        emulator, target: where it ran.
        sequences, parts, updates: what was trained.
        multiply_adds: of the products of the whole run.
        instructions: of the whole training run; 0 where nothing counts them.
        classes: instructions of one batch by function class.
        losses: of every part, on the device.
        host_losses: the same on the host.
        differences: of every tensor that was learnt, and what the rule remembers.
        arena_bytes, ram_bytes: planned, and static data of the linked check program.
        model_bytes: RAM of arena and handle.
        flash_bytes: code and constants of the linked program.
        stack_bytes: the high-water mark.
        refuses: whether a device with one byte less refused to start.
        seconds: of the emulator.
    """

    emulator: str
    target: str
    sequences: int
    parts: int
    updates: int
    multiply_adds: int
    instructions: int
    classes: Mapping[str, int]
    losses: Sequence[float]
    host_losses: Sequence[float]
    differences: Sequence[Difference]
    arena_bytes: int
    ram_bytes: int
    flash_bytes: int
    stack_bytes: int
    refuses: bool
    seconds: float
    status: int = 0
    sections: Mapping[str, int] = field(default_factory=dict)

    @property
    def largest_difference(self) -> float:
        """The largest of all tensors."""
        return max((d.relative for d in self.differences), default=0.0)

    @property
    def instructions_per_multiply_add(self) -> float:
        """Instructions of the whole pass over multiply-adds of the products."""
        return self.instructions / self.multiply_adds if self.multiply_adds else float("nan")


def host_trainer(folder: Path, backend: str | None = None) -> Trainer:
    """A trainer with the program and the factory weights of an exported folder.

    Raises:
        InputError: no exported folder, or a damaged one.
    """
    path = Path(folder) / HOST
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        described = json.loads(arrays.pop("description").tobytes())
        program = rebuild(described["program"])
    except FileNotFoundError:
        raise InputError(f"{path} is missing; export the model again") from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); export the model again") from None
    trainer = Trainer(program, backend=backend, seed=described["seed"])
    trainer.load_parameters(arrays)
    return trainer


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
    if machine.target != firmware.target.name:
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
        check = _checked(console, machine.name)
        sizes = read_elf(elf) if firmware.target.scripts else None
        classes: Mapping[str, int] = {}
        if count_classes and check.instructions:
            counted = build_check(firmware, program, batches[:1], Path(scratch), count=True)
            classes = _checked(machine.run(counted, timeout=timeout), machine.name).classes
    host_losses: list[float] = []
    for inputs, targets in batches:
        host_losses += trainer._parts.train(trainer_batch(trainer, inputs, targets))
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
        differences=_differences(trainer, check.learned),
        arena_bytes=program.memory().arena_bytes,
        ram_bytes=sizes.ram_bytes if sizes else 0,
        flash_bytes=sizes.flash_bytes if sizes else 0,
        stack_bytes=check.stack,
        refuses=check.one_byte_less != 0,
        seconds=console.seconds,
        status=check.status,
    )


def trainer_batch(trainer: Trainer, x: Array, y: Array) -> Any:
    """A batch as the trainer takes it."""
    from fptt.training.batches import make_batch

    return make_batch(trainer.program, x, y, None)


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


def _checked(console: Console, name: str) -> Check:
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
    found = []
    for buffer in program.buffers.values():
        if buffer.role not in LEARNED:
            continue
        ours = device.read(buffer.name).astype(np.float64)
        theirs = trainer.backend.read(buffer.name).astype(np.float64)
        scale = float(np.linalg.norm(theirs)) or 1.0
        found.append(Difference(buffer.name, float(np.linalg.norm(ours - theirs)) / scale))
    return found
