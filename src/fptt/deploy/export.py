"""Exports a model as firmware, with what the host needs to check it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from fptt.device.folder import Firmware, read_folder, write_folder
from fptt.device.targets import target as target_named
from fptt.errors import InputError
from fptt.program.program import Program
from fptt.storage.files import write_atomically
from fptt.storage.snapshot import describe, rebuild
from fptt.trainer import Trainer

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
        target: "rv64", "rv64gcv", "rv32", "cortex-m4", "cortex-m55" or "posix".
        options: `name`, `seed`, `normalisation`, `loss_limit`, `assembly`; see
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


def host_trainer(folder: Path, backend: str | None = None) -> Trainer:
    """A trainer with the program and the factory weights of an exported folder.

    Raises:
        InputError: no exported folder, or a damaged one.
    """
    path = read_folder(Path(folder)).path / HOST
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        described = json.loads(arrays.pop("description").tobytes())
        program = rebuild(described["program"])
    except FileNotFoundError:
        raise InputError(f"{path} is missing; export the model again") from None
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); export the model again") from None
    trainer = Trainer(program, backend=backend, seed=described["seed"])
    trainer.load_parameters(arrays)
    return trainer
