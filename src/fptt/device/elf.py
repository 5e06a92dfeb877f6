"""Reads what a linked program takes: sections and symbols of an ELF file, without other tools."""

import struct
from dataclasses import dataclass
from pathlib import Path

from fptt.errors import InputError

_ALLOC, _WRITE, _EXECUTE = 2, 1, 4
_NOBITS, _SYMTAB = 8, 2
#: symbol types that have a size in memory: data, functions
_SIZED = {1: "data", 2: "code"}


@dataclass(frozen=True)
class Section:
    """A section that is in memory when the program runs.

    Attributes:
        name: as in the linker script.
        address: its first byte.
        bytes: its size.
        writable: it lies in RAM.
        stored: the file holds its contents, so flash does too.
    """

    name: str
    address: int
    bytes: int
    writable: bool
    stored: bool


@dataclass(frozen=True)
class Symbol:
    """A function or an object with its place and size; `kind` is "code" or "data"."""

    name: str
    address: int
    bytes: int
    kind: str
    section: str


@dataclass(frozen=True)
class Elf:
    """What an ELF file says of itself.

    Attributes:
        bits: 32 or 64.
        machine: the ELF number of the processor (40 Arm, 243 RISC-V).
        sections: those in memory, by address.
        symbols: functions and objects, the largest first.
        values: every symbol's value, by name.
    """

    bits: int
    machine: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    values: dict[str, int]

    @property
    def stack_bytes(self) -> int:
        """The size of the section .stack."""
        return sum(s.bytes for s in self.sections if s.name == ".stack")

    @property
    def ram_bytes(self) -> int:
        """Static data: all that is writable, without the stack."""
        return sum(s.bytes for s in self.sections if s.writable) - self.stack_bytes

    @property
    def flash_bytes(self) -> int:
        """Code, constants and the initial values of .data."""
        return sum(s.bytes for s in self.sections if s.stored)

    @property
    def code_bytes(self) -> int:
        """All functions together."""
        return sum(s.bytes for s in self.symbols if s.kind == "code")


def read_elf(path: Path) -> Elf:
    """Reads a little-endian ELF file of 32 or 64 bits.

    Raises:
        InputError: it is none, or it is cut off.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[4] not in (1, 2) or data[5] != 1:
        raise InputError(f"{path} is not a little-endian ELF file")
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"{path} is a damaged ELF file: {error}") from error


def _read(data: bytes) -> Elf:
    wide = data[4] == 2
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count, names_at = struct.unpack_from("<3H", data, 58 if wide else 46)
    if not count or table + count * size > len(data):
        raise ValueError("it ends before its table of sections does")
    # name, type, flags, address, offset, size, link
    form = "<2I4QI" if wide else "<7I"
    headers = [struct.unpack_from(form, data, table + n * size) for n in range(count)]
    names = headers[names_at]

    def text(section: tuple[int, ...], at: int) -> str:
        start = section[4] + at
        return data[start : data.index(b"\0", start)].decode()

    titles = [text(names, header[0]) for header in headers]
    sections = tuple(
        sorted(
            (
                Section(
                    name=title,
                    address=header[3],
                    bytes=header[5],
                    writable=bool(header[2] & _WRITE),
                    stored=header[1] != _NOBITS,
                )
                for title, header in zip(titles, headers, strict=True)
                if header[2] & _ALLOC and header[5]
            ),
            key=lambda section: section.address,
        )
    )
    symbols, values = [], {}
    for header in headers:
        if header[1] != _SYMTAB:
            continue
        strings = headers[header[6]]
        entry = 24 if wide else 16
        for at in range(header[4], header[4] + header[5], entry):
            if wide:
                name_at, info, _, where, value, length = struct.unpack_from("<I2BH2Q", data, at)
            else:
                name_at, value, length, info, _, where = struct.unpack_from("<3I2BH", data, at)
            name = text(strings, name_at)
            if not name:
                continue
            values[name] = value
            if length and info & 15 in _SIZED:
                section = titles[where] if where < len(titles) else ""
                symbols.append(Symbol(name, value, length, _SIZED[info & 15], section))
    symbols.sort(key=lambda symbol: (-symbol.bytes, symbol.name))
    return Elf(64 if wide else 32, machine, sections, tuple(symbols), values)
