"""Training state in a file: everything that is needed to go on with the same bits.

Layout, little endian: magic "FPTTSNAP", version (uint32), length of the header (uint32), header
(JSON: the program's choices, the buffers with their places, the trainer's counters), the buffers'
bytes one after the other, CRC-32 of all that (uint32).

While a part is in flight (streaming), every buffer is saved, otherwise what outlives a part.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fptt.rules
from fptt.checks import plain
from fptt.errors import InputError
from fptt.nets.network import Network
from fptt.program import Program, build
from fptt.program.ir import Role
from fptt.program.plan import LEARNED
from fptt.storage.files import read_bytes, write_atomically

if TYPE_CHECKING:
    from fptt.trainer import Trainer

MAGIC = b"FPTTSNAP"
VERSION = 1
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
            keep_gradients=config.get("keep_gradients", False),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the snapshot describes a program that this version of fptt cannot build ({error})"
        ) from None


def save(trainer: Trainer, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
    """Writes a snapshot atomically; `extra` is plain data of the caller's.

    Raises:
        SaveError: the file cannot be written.
    """
    program, backend, stream = trainer.program, trainer.backend, trainer.stream.as_plain()
    buffers = [
        b
        for b in program.buffers.values()
        if stream["rows"] is not None or b.role in (*LEARNED, Role.CARRY, Role.FROZEN) or b.lead
    ]
    arrays = []
    for buffer in buffers:
        values = backend.read(buffer.name)
        if stream["rows"] is None and buffer.lead:
            values = values[: buffer.lead]
        arrays.append(np.ascontiguousarray(values))
    header = {
        "program": describe(program),
        "trainer": {"seed": trainer.seed, "epoch": trainer.epoch, "stream": stream},
        "extra": dict(extra or {}),
        "buffers": [
            {"name": b.name, "type": a.dtype.str, "shape": list(a.shape)}
            for b, a in zip(buffers, arrays, strict=True)
        ],
    }
    text = json.dumps(header, default=plain).encode()
    body = b"".join(
        [
            MAGIC,
            struct.pack("<II", VERSION, len(text)),
            text,
            *(array.tobytes() for array in arrays),
        ]
    )
    write_atomically(path, body + struct.pack("<I", zlib.crc32(body)))


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Header and arrays of a snapshot.

    Raises:
        InputError: no such file, another kind of file, another version, or a damaged file.
    """
    data = read_bytes(path, "the snapshot")
    start = len(MAGIC) + 8
    if data[: len(MAGIC)] != MAGIC:
        raise InputError(
            f"{path} is not a snapshot of fptt; give a file that --checkpoint or Trainer.save wrote"
        )
    if len(data) < start + 4 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        raise InputError(
            f"{path} is damaged: its checksum does not fit, it may be truncated; "
            "use an earlier snapshot"
        )
    version, length = struct.unpack("<II", data[len(MAGIC) : start])
    if version != VERSION:
        raise InputError(
            f"{path} has snapshot version {version}; this fptt reads version {VERSION}"
        )
    header = json.loads(data[start : start + length])
    arrays, offset = {}, start + length
    for item in header["buffers"]:
        kind, shape = np.dtype(item["type"]), tuple(item["shape"])
        count = int(np.prod(shape))
        arrays[item["name"]] = np.frombuffer(data, kind, count, offset).reshape(shape)
        offset += count * kind.itemsize
    return header, arrays


def require_same(trainer: Trainer, header: Mapping[str, Any], path: str | Path) -> None:
    """Raises InputError unless a snapshot is of the trainer's program and seed."""
    mine, its = json.loads(json.dumps(describe(trainer.program), default=plain)), header["program"]
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
        InputError: the snapshot is of another program.
    """
    require_same(trainer, header, path)
    for name, array in arrays.items():
        trainer.backend.write(name, array)
    trainer.epoch = header["trainer"]["epoch"]
    trainer.stream.from_plain(header["trainer"]["stream"])


def _differing(its: object, mine: object) -> tuple[object, object]:
    """The fields in which two descriptions differ."""
    if not isinstance(its, dict) or not isinstance(mine, dict):
        return its, mine
    names = [name for name in {**its, **mine} if its.get(name) != mine.get(name)]
    return {n: its[n] for n in names if n in its}, {n: mine[n] for n in names if n in mine}


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return str(Network.from_config(value))
    return str(value)


def load(path: str | Path, backend: str = "reference", threads: int = 1) -> Trainer:
    """A trainer with the state that `Trainer.save` wrote; it goes on with the same bits.

    Args:
        path: the snapshot.
        backend, threads: as in `Trainer`.

    Raises:
        InputError: a file that is missing, damaged or no snapshot.

    Example:
        >>> import fptt, os, tempfile
        >>> net = fptt.Network([fptt.GRU(1, 4), fptt.Linear(4, 2)])
        >>> trainer = fptt.Trainer(fptt.build(net, fptt.FPTT(parts=2), steps=4))
        >>> path = os.path.join(tempfile.mkdtemp(), "state.fptt")
        >>> trainer.save(path)
        >>> bool((load(path).parameters()["1.bias"] == trainer.parameters()["1.bias"]).all())
        True
    """
    from fptt.trainer import Trainer

    header, arrays = read(path)
    trainer = Trainer(rebuild(header["program"]), backend, header["trainer"]["seed"], threads)
    restore(trainer, header, arrays, path)
    return trainer
