"""Training state in a file: everything that is needed to go on with the same bits.

A snapshot is a file of two slots (`slots`, `slotfile`), each with the whole state (`contents`).
Saving into the same file again and again writes them in turn, so the last complete state is always
there. The first version had no slots: magic "FPTTSNAP", version 1 (uint32), the contents, CRC-32
of all that (uint32). Such files are still read.

While a part is in flight (streaming), every buffer is saved, otherwise what outlives a part.
"""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fptt.rules
from fptt.checks import plain
from fptt.errors import InputError, SnapshotWarning
from fptt.nets.network import Network
from fptt.program import Program, build
from fptt.storage import slotfile, slots
from fptt.storage.contents import Malformed, decode, encode, kept
from fptt.storage.files import open_plain
from fptt.storage.fitness import check_state

if TYPE_CHECKING:
    from fptt.trainer import Trainer

MAGIC = slots.MAGIC
#: versions that are read; the last one is written
VERSIONS = (1, slots.VERSION)
#: magic and version, which all versions begin with
_START = struct.Struct("<8sI")
#: what Python raises when plain data are not what they are taken for
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
_RULES = {name: getattr(fptt.rules, name) for name in fptt.rules.__all__}


def describe(program: Program) -> dict[str, Any]:
    """The choices that rebuild a program, as plain data."""

    def named(choice: Any) -> dict[str, Any]:
        return {"name": type(choice).__name__, **asdict(choice)}

    return {
        "net": program.net.to_config(),
        "rule": named(program.rule),
        "optimizer": named(program.optimizer),
        "loss": named(program.schedule),
        "criterion": program.criterion,
        "steps": program.steps,
        "batch": program.batch,
        "dtype": program.dtype,
        "activation_dtype": program.activation_dtype,
        "clip": program.clip,
        "train": list(program.train),
        "keep_gradients": program.keep_gradients,
        "rounding": program.rounding,
        "recompute": program.recompute,
    }


def rebuild(config: Mapping[str, Any]) -> Program:
    """The program that `describe` described."""

    def chosen(item: Mapping[str, Any]) -> Any:
        options = dict(item)
        return _RULES[options.pop("name")](**options)

    try:
        return build(
            Network.from_config(config["net"]),
            chosen(config["rule"]),
            chosen(config["optimizer"]),
            steps=config["steps"],
            batch=config["batch"],
            loss=chosen(config["loss"]),
            criterion=config["criterion"],
            dtype=config["dtype"],
            activation_dtype=config["activation_dtype"],
            clip=config["clip"],
            train=tuple(config["train"]),
            # before this was a choice, every gradient had memory
            keep_gradients=config.get("keep_gradients", True),
            rounding=config.get("rounding", "nearest"),
            recompute=config.get("recompute", False),
        )
    except InputError:
        raise
    except _NONSENSE as error:
        raise InputError(
            "the snapshot describes a program that this version of fptt cannot build "
            f"({str(error)[:200]})"
        ) from None


def save(trainer: Trainer, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
    """Makes the present state the newest one of a snapshot; `extra` is plain data of the caller's.

    Raises:
        InputError: the path names something that is no plain file, or a folder that is missing.
        SaveError: the file cannot be written.
    """
    slotfile.save(path, *_encoded(trainer, extra))


def to_bytes(trainer: Trainer) -> bytes:
    """What a snapshot of the present state holds, for copies and pickles of a trainer."""
    return b"".join(_encoded(trainer)[1])


def from_bytes(data: bytes, backend: str | None, threads: int) -> Trainer:
    """The trainer whose state `to_bytes` gave; on the same back end with the same bits."""
    return _trainer(*decode(data), "the copy", backend, threads)


def _encoded(
    trainer: Trainer, extra: Mapping[str, Any] | None = None
) -> tuple[int, Iterator[memoryview]]:
    stream = trainer.stream.as_plain()
    header = {
        "program": describe(trainer.program),
        "trainer": {"seed": trainer.seed, "epoch": trainer.epoch, "stream": stream},
        "extra": dict(extra or {}),
    }
    wanted = kept(trainer.program, in_sequence=stream["rows"] is not None)
    return encode(header, wanted, trainer.backend)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Header and arrays of the newest complete state in a snapshot.

    Warns:
        SnapshotWarning: there was a newer state, and it is not complete.

    Raises:
        InputError: no such file, another kind of file, another version, or a damaged file.
    """
    with open_plain(path, "the snapshot") as file:
        try:
            payload = _payload(slotfile.Disk(file), path)
        except OSError as error:
            raise InputError(
                f"cannot read the snapshot {path}: {error.strerror or error}"
            ) from None
    try:
        return decode(payload)
    except Malformed as error:
        raise _unusable(path, error) from None


def _payload(disk: slotfile.Disk, path: str | Path) -> bytes | bytearray | memoryview:
    """The contents of the newest complete state."""
    damaged = InputError(
        f"{path} is damaged: its checksum does not fit, it may be truncated; "
        "use an earlier snapshot"
    )
    start = disk.read(0, _START.size)
    if start[: len(MAGIC)] != MAGIC:
        raise InputError(
            f"{path} is not a snapshot of fptt; give a file that --checkpoint or Trainer.save wrote"
        )
    version = _START.unpack(start)[1] if len(start) == _START.size else None
    if version == slots.VERSION:
        layout = slots.read_layout(disk)
        state = None if layout is None else slots.load(disk, layout)
        if state is None:
            raise damaged
        if not state.newest:
            warnings.warn(
                f"{path}: the newest state was not complete; went on from the one before",
                SnapshotWarning,
                stacklevel=4,
            )
        return state.payload
    data = disk.read(0, disk.size())
    whole = len(data) >= _START.size + 4 and data[-4:] == struct.pack(
        "<I", zlib.crc32(memoryview(data)[:-4])
    )
    if version == 1 and whole:
        return memoryview(data)[_START.size : -4]
    if version not in VERSIONS and (whole or slots.is_signed(data[: slots.HEADER])):
        raise InputError(
            f"{path} has snapshot version {version}; this fptt reads the versions "
            f"{' and '.join(map(str, VERSIONS))}"
        )
    raise damaged


def _unusable(path: str | Path, why: Malformed) -> InputError:
    return InputError(
        f"{path} holds no training state that can be taken up: {why}; use an earlier snapshot"
    )


def require_same(trainer: Trainer, header: Mapping[str, Any], path: str | Path) -> None:
    """Raises InputError unless a snapshot is of the trainer's program and seed."""
    mine, its = json.loads(json.dumps(describe(trainer.program), default=plain)), header["program"]
    its = {"rounding": "nearest", "recompute": False, **its}  # before these were choices
    if "keep_gradients" not in its:  # before this was a choice; between sequences nothing of it
        del mine["keep_gradients"]  # is kept
    for key, value in mine.items():
        if its.get(key) != value:
            other, value = _differing(its.get(key), value)
            raise InputError(
                f"{path} is of another training program: its {key} is "
                f"{_short(other)}, here it is {_short(value)}; use the same "
                "options, or start without it"
            )
    if header["trainer"]["seed"] != trainer.seed:
        raise InputError(
            f"{path} was written with seed {header['trainer']['seed']}, not {trainer.seed}; use "
            "the same seed, or start without it"
        )


def restore(
    trainer: Trainer,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    path: str | Path = "the snapshot",
) -> None:
    """Puts a snapshot's state into a trainer of the same program.

    Raises:
        InputError: the snapshot is of another program, or cannot be a state of this one; the
            trainer is as it was.
    """
    require_same(trainer, header, path)
    _require_state(trainer.program, header, arrays, path)
    for name, array in arrays.items():
        trainer.backend.write(name, array)
    trainer.epoch = header["trainer"]["epoch"]
    trainer.stream.from_plain(header["trainer"]["stream"])


def _require_state(
    program: Program,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    path: str | Path,
) -> None:
    try:
        check_state(program, header, arrays)
    except Malformed as error:
        raise _unusable(path, error) from None


def _differing(its: object, mine: object) -> tuple[object, object]:
    """The fields in which two descriptions differ."""
    if not isinstance(its, dict) or not isinstance(mine, dict):
        return its, mine
    names = [name for name in {**its, **mine} if its.get(name) != mine.get(name)]
    return {n: its[n] for n in names if n in its}, {n: mine[n] for n in names if n in mine}


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        try:
            return str(Network.from_config(value))
        except _NONSENSE:  # InputError among them
            pass
    return str(value)


def load(path: str | Path, backend: str | None = None, threads: int = 1) -> Trainer:
    """A trainer with the state that `Trainer.save` wrote.

    On the back end that wrote it, it goes on with the same bits.

    Args:
        path: the snapshot.
        backend, threads: as in `Trainer`.

    Warns:
        SnapshotWarning: there was a newer state, and it is not complete.

    Raises:
        InputError: a file that is missing, damaged or no snapshot.
        FpttError: the program needs more memory than this computer has.

    Example:
        >>> import fptt, os, tempfile
        >>> net = fptt.Network([fptt.GRU(1, 4), fptt.Linear(4, 2)])
        >>> trainer = fptt.Trainer(fptt.build(net, fptt.FPTT(parts=2), steps=4))
        >>> path = os.path.join(tempfile.mkdtemp(), "state.fptt")
        >>> trainer.save(path)
        >>> bool((load(path).parameters()["1.bias"] == trainer.parameters()["1.bias"]).all())
        True
    """
    return _trainer(*read(path), path, backend, threads)


def _trainer(
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    path: str | Path,
    backend: str | None,
    threads: int,
) -> Trainer:
    from fptt.trainer import Trainer

    program = rebuild(header["program"])
    # before memory is taken for a program whose sizes may be nonsense
    _require_state(program, header, arrays, path)
    trainer = Trainer(program, backend, header["trainer"]["seed"], threads)
    restore(trainer, header, arrays, path)
    return trainer
