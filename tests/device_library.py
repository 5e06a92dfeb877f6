"""An exported model as a library of this process, driven call by call; a flash that can fail."""

import ctypes
import os
import subprocess
from ctypes import CFUNCTYPE, Structure, byref, c_int, c_uint32, c_void_p
from pathlib import Path

import numpy as np

from fptt import deploy
from fptt.device.folder import read_folder
from fptt.device.kernels import CFLAGS

READ = CFUNCTYPE(c_int, c_void_p, c_uint32, c_void_p, c_uint32)
WRITE = CFUNCTYPE(c_int, c_void_p, c_uint32, c_void_p, c_uint32)
ERASE = CFUNCTYPE(c_int, c_void_p, c_uint32)


class Progress(Structure):
    _fields_ = [(name, c_uint32) for name in ("position", "started", "updates")]


class Moment(Structure):
    _fields_ = [(name, c_uint32) for name in ("part", "begin", "low", "high")]


class Learner(Structure):
    _fields_ = [
        ("model", c_void_p),
        ("arena", c_void_p),
        ("outputs", c_void_p),
        ("progress", Progress),
        ("at", Moment),
        ("largest", c_uint32),
        ("loss", ctypes.c_float),
        ("loss_limit", ctypes.c_float),
        ("stopped", c_int),
        ("learning", ctypes.c_uint8),
        ("targets", ctypes.c_uint8),
        ("fresh", ctypes.c_uint8),
    ]


class Flash(Structure):
    _fields_ = [
        ("context", c_void_p),
        ("bytes", c_uint32),
        ("erase_bytes", c_uint32),
        ("write_bytes", c_uint32),
        ("read", READ),
        ("write", WRITE),
        ("erase", ERASE),
    ]


class Piece(Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_uint32)]


class PowerCut(Exception):
    """The supply is gone; everything in RAM is lost."""


class Nor:
    """Flash whose writes clear bits and whose erases set them; power may be cut at any operation.

    Args:
        size, erase, write: bytes of the area, of a block, and of the smallest write.
    """

    def __init__(self, size, erase=1024, write=8):
        self.cells = bytearray(b"\xff" * size)
        self.erase_bytes, self.write_bytes = erase, write
        self.operations = 0
        self.cut_at = None  # (operation, share of it that is still done)
        self.dead = False
        self.fails = False
        self.callbacks = (READ(self._read), WRITE(self._write), ERASE(self._erase))
        self.port = Flash(None, size, erase, write, *self.callbacks)

    def _power(self):
        """How much of this operation is done, 0 to 1."""
        if self.dead:
            return 0.0
        self.operations += 1
        if self.cut_at and self.operations == self.cut_at[0]:
            self.dead = True
            return self.cut_at[1]
        return 1.0

    def _read(self, _, at, to, count):
        ctypes.memmove(to, bytes(self.cells[at : at + count]), count)
        return 0

    def _write(self, _, at, source, count):
        assert at % self.write_bytes == 0
        assert count % self.write_bytes == 0
        share = self._power()
        if self.fails:
            return 1
        new = ctypes.string_at(source, count)
        for i in range(int(count * share)):
            self.cells[at + i] &= new[i]
        return int(self.dead)

    def _erase(self, _, at):
        assert at % self.erase_bytes == 0
        share = self._power()
        if self.fails:
            return 1
        done = int(self.erase_bytes * share)
        self.cells[at : at + done] = b"\xff" * done
        return int(self.dead)


class Device:
    """A device with an exported model on it.

    Args:
        library: of `build`.
        program: the training program.
    """

    WEIGHTS, FULL = 1, 2

    def __init__(self, library, program, name="model"):
        self.lib, self.program = library, program
        self.model = c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, f"{name}_program")))
        size = program.memory().arena_bytes
        self._memory = ctypes.create_string_buffer(size + 64)
        start = -ctypes.addressof(self._memory) % 16
        self.arena = (ctypes.c_uint8 * size).from_buffer(self._memory, start)
        self._outputs = np.zeros((program.batch, program.output.row_items), np.float32)
        self.learner = Learner()
        self._pieces = (Piece * 64)()
        assert self.call("fptt_init", self.model, self.arena, ctypes.c_size_t(size), self._out) == (
            "FPTT_OK"
        )

    @property
    def _out(self):
        return self._outputs.ctypes.data_as(c_void_p)

    def call(self, function, *arguments):
        """Calls a function on the learner; the status by name."""
        status = getattr(self.lib, function)(byref(self.learner), *arguments)
        self.lib.fptt_status_name.restype = ctypes.c_char_p
        return self.lib.fptt_status_name(status).decode()

    def begin_sequence(self):
        self.lib.fptt_begin_sequence(byref(self.learner))

    def observe(self, x, y=None):
        """One step; the status by name."""
        x = np.ascontiguousarray(x, np.int32 if self.program.net.tokens else np.float32)
        if y is not None:
            kind = np.int32 if self.program.criterion == "cross_entropy" else np.float32
            y = np.ascontiguousarray(y, kind)
        target = None if y is None else y.ctypes.data_as(c_void_p)
        return self.call("fptt_observe", x.ctypes.data_as(c_void_p), target)

    def sequence(self, x, y):
        """A sequence [batch, T, ...] with a target at each step; the statuses that are not OK."""
        self.begin_sequence()
        seen = []
        for t in range(x.shape[1]):
            status = self.observe(x[:, t], y)
            if status != "FPTT_OK":
                seen.append(status)
        return seen

    def predict(self):
        out = np.zeros_like(self._outputs)
        self.lib.fptt_predict(byref(self.learner), out.ctypes.data_as(c_void_p))
        return out

    def save(self, nor, what=FULL):
        return self.call("fptt_save", byref(nor.port), c_int(what), self._pieces)

    def restore(self, nor, what=FULL):
        return self.call("fptt_restore", byref(nor.port), c_int(what), self._pieces)

    def learning(self, on):
        self.lib.fptt_learning(byref(self.learner), int(on))

    def set_rate(self, lr):
        self.lib.fptt_set_rate(byref(self.learner), ctypes.c_float(lr))

    def end_epoch(self):
        self.lib.fptt_end_epoch(byref(self.learner))

    def rollback(self):
        self.lib.fptt_rollback(byref(self.learner))

    @property
    def learned(self):
        """The bytes of the state of learning."""
        return bytes(self.arena[: self.program.plan.learned_bytes])


def runtime_of_mutations():
    """Another C run time, where tests/mutations_c.py names one."""
    if "FPTT_RUNTIME" in os.environ:
        import fptt.device.folder

        other = Path(os.environ["FPTT_RUNTIME"]) / "runtime"
        fptt.device.folder.runtime_folder = lambda: other


runtime_of_mutations()


def build(program, folder: Path, *, seed=3, flags=(), compiler="cc", **options):
    """Exports a program for this computer and loads it as a library."""
    parameters = program.net.initial(seed)
    deploy.export(program, parameters, folder, target="posix", seed=seed, **options)
    firmware = read_folder(folder)
    objects = []
    files = [(file.path, file.flags) for file in firmware.files]
    for source, own in [(f"{firmware.name}.c", ()), *files]:
        out = folder / f"{Path(source).stem}.pic.o"
        subprocess.run(
            [
                *(compiler, *CFLAGS, "-fPIC", *firmware.definitions, *own, *flags),
                *(f"-I{folder}", f"-I{folder / 'fptt'}", "-c", str(folder / source)),
                *("-o", str(out)),
            ],
            check=True,
        )
        objects.append(str(out))
    library = folder / "model.so"
    subprocess.run([compiler, "-shared", *flags, *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
