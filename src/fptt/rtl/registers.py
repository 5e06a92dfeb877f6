"""The unit's registers as one table, for the hardware, its documentation and its drivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fptt.rtl.parameters import UnitParameters
from fptt.rtl.schedule import OPERATORS

Kind = Literal["constant", "status", "setting", "strobe", "sticky"]

#: what software may do with a field of each kind
ACCESS: dict[Kind, str] = {
    "constant": "read",
    "status": "read",
    "setting": "read, write while idle",
    "strobe": "write 1 to act; reads 0",
    "sticky": "read, write 1 to clear",
}
WRITABLE = ("setting", "strobe", "sticky")

#: the four letters FPTT
IDENTITY = int.from_bytes(b"FPTT", "big")
VERSION = 1


@dataclass(frozen=True)
class Field:
    """Some bits of a register.

    Args:
        name: in lower case.
        low: number of the lowest bit.
        width: number of bits.
        kind: a key of `ACCESS`.
        meaning: for the documentation.
        reset: value after a reset; of a constant, always.
    """

    name: str
    low: int
    width: int
    kind: Kind
    meaning: str
    reset: int = 0

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """32 bits at an address.

    Args:
        name: in upper case.
        offset: bytes from the unit's base address.
        fields: what it holds; other bits read 0 and are ignored in writes.
    """

    name: str
    offset: int
    fields: tuple[Field, ...]

    @property
    def writable(self) -> bool:
        """Whether a write can have an effect."""
        return any(field.kind in WRITABLE for field in self.fields)

    def __getitem__(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


def register_map(parameters: UnitParameters) -> dict[str, Register]:
    """The registers of a unit, by name. Addresses are the same for all units.

    Example:
        >>> control = register_map(UnitParameters())["CONTROL"]
        >>> hex(control.offset), control["clear_gradient"].low
        ('0x10', 9)
    """
    width = parameters.format.width
    schedule = list(OPERATORS).index(parameters.schedule)
    build = (
        Field("lanes", 0, 8, "constant", "number of lanes", parameters.lanes),
        Field("schedule", 8, 2, "constant", "0 baseline, 1 pipelined, 2 compact", schedule),
        Field("bfloat16", 10, 1, "constant", "1: bfloat16, 0: float32", int(width == 16)),
        Field("keep", 11, 1, "constant", "subnormals kept", int(parameters.subnormals == "keep")),
        Field("regularise", 12, 1, "constant", "R(t) is built in", int(parameters.regularise)),
    )
    control = [
        Field("start", 0, 1, "strobe", "start a run"),
        Field("reset", 1, 1, "strobe", "stop a run; clear STATUS and CYCLES, no settings"),
        Field("clear_gradient", 9, 1, "setting", "write zero over each gradient that was used", 1),
    ]
    if parameters.regularise:
        control.append(Field("regularise", 8, 1, "setting", "R(t) is on", 1))
    constants = {
        "LR": "learning rate eta",
        "LR_ALPHA": "eta alpha",
        "ALPHA": "alpha",
        "ITA": "1 / (2 alpha)",
    }
    registers = [
        Register("ID", 0x00, (Field("id", 0, 32, "constant", "the letters FPTT", IDENTITY),)),
        Register("VERSION", 0x04, (Field("version", 0, 32, "constant", "of this table", VERSION),)),
        Register("BUILD", 0x08, build),
        Register(
            "DEPTH", 0x0C, (Field("depth", 0, 32, "constant", "rows of a bank", parameters.depth),)
        ),
        Register("CONTROL", 0x10, tuple(sorted(control, key=lambda field: field.low))),
        Register(
            "STATUS",
            0x14,
            (
                Field("busy", 0, 1, "status", "a run is on"),
                Field(
                    "done",
                    1,
                    1,
                    "sticky",
                    "a run has ended; a start clears it; also the output `interrupt`",
                ),
                Field("error", 2, 1, "sticky", "a start while busy, or with COUNT above capacity"),
            ),
        ),
        Register("COUNT", 0x18, (Field("count", 0, 32, "setting", "parameters of a run"),)),
        Register("CYCLES", 0x1C, (Field("cycles", 0, 32, "status", "busy cycles of the run"),)),
    ]
    for number, (name, meaning) in enumerate(constants.items()):
        if name == "LR" or parameters.regularise:
            field = Field(name.lower(), 0, width, "setting", meaning)
            registers.append(Register(name, 0x20 + 4 * number, (field,)))
    return {register.name: register for register in registers}


@dataclass(frozen=True)
class Window:
    """Where a host finds the banks: base + bank | row | word, a word of the bank every 4 bytes.

    Words are in the order grad, param, lam, rmean; parameter i is in bank i mod lanes, row
    i // lanes.

    Args:
        parameters: how the unit is built.
    """

    parameters: UnitParameters

    @property
    def row_bits(self) -> int:
        """Bits of the address that hold the row."""
        return (self.parameters.depth - 1).bit_length()

    @property
    def bank_bits(self) -> int:
        """Bits of the address that hold the bank."""
        return (self.parameters.lanes - 1).bit_length()

    @property
    def base(self) -> int:
        """First byte of the window: a power of two behind the registers."""
        return 1 << max(4 + self.row_bits + self.bank_bits, 6)

    @property
    def address_bits(self) -> int:
        """Bits of the unit's addresses."""
        return self.base.bit_length()

    def address(self, parameter: int, word: str) -> int:
        """Byte address of one word of a parameter.

        Example:
            >>> hex(Window(UnitParameters(lanes=2, depth=16)).address(3, "param"))
            '0x314'
        """
        row, bank = divmod(parameter, self.parameters.lanes)
        position = self.parameters.inputs.index(word)
        return self.base + ((bank << self.row_bits | row) << 4) + 4 * position


def markdown(parameters: UnitParameters) -> str:
    """The table of registers, for people.

    Example:
        >>> print("\\n".join(markdown(UnitParameters()).splitlines()[:3]))
        | offset | register | bits | field | access | meaning | reset |
        |---|---|---|---|---|---|---|
        | 0x00 | ID | 31:0 | id | read | the letters FPTT | 0x46505454 |
    """
    lines = ["| offset | register | bits | field | access | meaning | reset |", "|" + 7 * "---|"]
    for register in register_map(parameters).values():
        for field in register.fields:
            high = field.low + field.width - 1
            bits = str(field.low) if field.width == 1 else f"{high}:{field.low}"
            lines.append(
                f"| 0x{register.offset:02x} | {register.name} | {bits} | {field.name} | "
                f"{ACCESS[field.kind]} | {field.meaning} | {field.reset:#x} |"
            )
    window = Window(parameters)
    words = ", ".join(parameters.inputs)
    lines.append(
        f"| {window.base:#x} | banks | {parameters.format.width - 1}:0 | {words} | "
        "read and write while idle | address = base + bank, row, word, from the highest bits down; "
        f"{window.bank_bits} + {window.row_bits} + 2 bits, and 2 for the byte | |"
    )
    return "\n".join(lines)
