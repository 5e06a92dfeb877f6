"""What fits a device: every configuration of training with its RAM, flash, time and wear.

A configuration is the number of parts K, the batch, the number type, whether gates are computed
again, what trains, and what a save holds. RAM is exact; code and instructions are predicted from
what was counted under emulation (`fptt.device.costs`); cycles per instruction are assumed.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fptt.device.costs import Costs, Estimate, costs
from fptt.device.emit import check
from fptt.device.footprint import footprint, saved_state
from fptt.device.kernels import stack_bytes
from fptt.device.targets import Target
from fptt.device.targets import target as target_named
from fptt.errors import InputError
from fptt.nets.network import Network
from fptt.program import Program, build
from fptt.program.ir import Loop, Role
from fptt.rules import Rule

#: bytes that a unit stands for
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "kib": 2**10,
    "mib": 2**20,
    "k": 2**10,
    "m": 2**20,
}
_HERTZ = {"hz": 1, "khz": 10**3, "mhz": 10**6, "ghz": 10**9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60}
#: batches that are tried
BATCHES = (1, 2, 4, 8)
#: rank of the adapters that are tried
RANK = 4
#: no more values of K than these are tried
MOST_PARTS = 16


# -- what the user gives --------------------------------------------------------------------------


def read_bytes(text: str, option: str) -> int:
    """Reads "256KiB", "64kB" or "4096".

    Raises:
        InputError: something else, or nothing at all.

    Example:
        >>> read_bytes("256KiB", "--ram"), read_bytes("64kB", "--ram")
        (262144, 64000)
    """
    value = _number(text, _UNITS)
    if value is None or value < 1 or value != int(value):
        raise InputError(
            f"{option} is {text!r}; give whole bytes from 1, such as 262144, 256KiB, 1MiB or 64kB"
        )
    return int(value)


def read_hertz(text: str, option: str = "--clock") -> float:
    """Reads "168MHz".

    Raises:
        InputError: something else, or a clock that stands still.

    Example:
        >>> read_hertz("168MHz")
        168000000.0
    """
    value = _number(text, _HERTZ)
    if value is None or value <= 0:
        raise InputError(f"{option} is {text!r}; give a frequency such as 168MHz or 32kHz")
    return float(value)


def read_seconds(text: str, option: str) -> float:
    """Reads "250ms".

    Raises:
        InputError: something else, or no time at all.

    Example:
        >>> read_seconds("250ms", "--latency"), read_seconds("1.5 s", "--latency")
        (0.25, 1.5)
    """
    value = _number(text, _SECONDS)
    if value is None or value <= 0:
        raise InputError(f"{option} is {text!r}; give a time such as 1s, 250ms or 2min")
    return float(value)


def _number(text: str, units: Mapping[str, float]) -> float | None:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text, re.ASCII)
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]


@dataclass(frozen=True)
class Cycles:
    """Cycles per instruction, which emulation cannot tell: expected, and a band around it."""

    expected: float
    low: float
    high: float
    why: str


_IN_ORDER = Cycles(
    1.3,
    1.0,
    2.0,
    "an in-order core with one instruction a cycle, that waits for some loads and sums",
)
#: assumed for each target
CYCLES: dict[str, Cycles] = {
    "rv64": _IN_ORDER,
    "rv32": _IN_ORDER,
    "cortex-m4": Cycles(
        2.0,
        1.2,
        3.0,
        "a multiply-add takes 3 cycles, a load 1 to 2, other instructions 1 (its reference manual)",
    ),
    "cortex-m55": Cycles(
        1.5, 1.0, 2.5, "a vector instruction takes 2 cycles, some of which overlap; others 1"
    ),
}


@dataclass(frozen=True)
class Part:
    """The flash of a part: bytes of an erase block and of a write, and erases that it is rated for.

    Raises:
        InputError: a geometry that fptt_flash.h does not take.
    """

    erase: int
    write: int
    endurance: int = 10_000

    def __post_init__(self) -> None:
        if self.write not in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            raise InputError(f"--write is {self.write}; give 1, 2, 4, ... or 256 bytes")
        if self.erase % self.write or self.erase % 32:
            raise InputError(
                f"--erase is {self.erase}; give a multiple of 32 and of --write ({self.write})"
            )
        if self.endurance < 1:
            raise InputError(f"--endurance is {self.endurance}; give at least 1 erase")

    def slot_bytes(self, payload: int) -> int:
        """One slot for a payload: FPTT_FLASH_SLOT_BLOCKS x erase of fptt_flash.h.

        Example:
            >>> Part(4096, 8).slot_bytes(4056), Part(4096, 8).slot_bytes(4057)
            (4096, 8192)
        """
        header = _up(32, self.write) + _up(4, self.write)
        return -(-(header + payload) // self.erase) * self.erase

    def area_bytes(self, payload: int) -> int:
        """Both slots: FPTT_FLASH_AREA_BYTES."""
        return 2 * self.slot_bytes(payload)

    @property
    def saves(self) -> int:
        """Saves until a block has seen its rated erases: every save erases one of two slots."""
        return 2 * self.endurance


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


#: flash of a typical part: Cortex-M4 parts erase 2 to 4 KiB and write 8 bytes, the others keep
#: their code in serial flash
FLASH_PARTS: dict[str, tuple[int, int]] = {"cortex-m4": (4096, 8)}
_SERIAL = (4096, 1)


def flash_part(
    target: str, erase: int | None = None, write: int | None = None, endurance: int = 10_000
) -> Part:
    """The flash of a target's parts, or what is known of another one."""
    usual = FLASH_PARTS.get(target, _SERIAL)
    return Part(
        usual[0] if erase is None else erase, usual[1] if write is None else write, endurance
    )


# -- configurations ------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What trains: a name, and the options of `fptt.build` for it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    given_up: str = ""


@dataclass(frozen=True)
class Configuration:
    """One way to train on a device, and what it takes.

    Attributes:
        parts, batch, dtype, recompute: as in `fptt.build`; bfloat16 rounds stochastically.
        trains: everything, readout, biases, recurrent, adapters, or patterns.
        saves: "weights" or "full".
        arena_bytes, handle_bytes: exact.
        stack_bytes: a bound of the stack.
        code_bytes: a bound of code and constants besides weights.
        weight_bytes: factory weights and frozen ones in flash.
        snapshot_bytes: both slots.
        instructions: of one sequence (those of a batch over its rows).
        seconds: of one sequence, expected, and the band; None without a clock.
        saves_until_worn: saves until the rated erases.
        given_up: against full float32 training.
        options: of `fptt.build`.
    """

    parts: int
    batch: int
    dtype: str
    recompute: bool
    trains: str
    saves: str
    arena_bytes: int
    handle_bytes: int
    stack_bytes: int
    code_bytes: int
    weight_bytes: int
    snapshot_bytes: int
    instructions: Estimate
    seconds: tuple[float, float, float] | None
    saves_until_worn: int
    given_up: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def ram_bytes(self) -> int:
        """Arena, handle and stack."""
        return self.arena_bytes + self.handle_bytes + self.stack_bytes

    @property
    def flash_bytes(self) -> int:
        """Code, constants and both slots."""
        return self.code_bytes + self.weight_bytes + self.snapshot_bytes

    def over(self, ram: int | None, flash: int | None) -> tuple[int, int]:
        """Bytes of RAM and of flash that are missing."""
        return (
            max(0, self.ram_bytes - ram) if ram is not None else 0,
            max(0, self.flash_bytes - flash) if flash is not None else 0,
        )

    def export(self, target: str) -> str:
        """The command that exports a model so."""
        words = [f"fptt export MODEL --target {target} --parts {self.parts} --batch {self.batch}"]
        if self.dtype == "bfloat16":
            words.append("--dtype bfloat16 --rounding stochastic")
        words += ["--recompute"] if self.recompute else []
        words += [f"--train-only '{pattern}'" for pattern in self.options.get("train", ())]
        adapters = self.options.get("adapters") or {}
        words += [f"--adapters '{name}={rank}'" for name, rank in adapters.items()]
        return " ".join(words)

    def order(self) -> tuple[Any, ...]:
        """The best first: fewest things given up, then the fewest instructions, then memory."""
        return (
            len(self.given_up),
            self.instructions.value,
            self.ram_bytes,
            self.flash_bytes,
            self.parts,
            self.batch,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; the keys are those of `fptt plan --target --json`."""
        low, high = self.instructions.low, self.instructions.high
        return {
            "parts": self.parts,
            "batch": self.batch,
            "dtype": self.dtype,
            "recompute": self.recompute,
            "trains": self.trains,
            "saves": self.saves,
            "ram_bytes": self.ram_bytes,
            "arena_bytes": self.arena_bytes,
            "handle_bytes": self.handle_bytes,
            "stack_bytes": self.stack_bytes,
            "flash_bytes": self.flash_bytes,
            "code_bytes": self.code_bytes,
            "weight_bytes": self.weight_bytes,
            "snapshot_bytes": self.snapshot_bytes,
            "instructions": round(self.instructions.value),
            "instructions_low": round(low),
            "instructions_high": round(high),
            "unmeasured": list(self.instructions.unmeasured),
            "seconds": self.seconds and self.seconds[0],
            "seconds_low": self.seconds and self.seconds[1],
            "seconds_high": self.seconds and self.seconds[2],
            "saves_until_worn": self.saves_until_worn,
            "given_up": list(self.given_up),
        }


@dataclass(frozen=True)
class Budget:
    """What fits.

    Attributes:
        net: the network in words.
        target: its name.
        ram, flash: limits in bytes, or None.
        clock: in Hz, or None.
        cycles: per instruction, with the band.
        part: the flash.
        source: where instructions come from.
        tried: configurations looked at.
        fits: the best first.
        nearest: where nothing fits, what is missing least.
    """

    net: str
    target: str
    ram: int | None
    flash: int | None
    clock: float | None
    cycles: Cycles
    part: Part
    source: str
    tried: int
    fits: Sequence[Configuration]
    nearest: Configuration | None

    def message(self) -> str:
        """That nothing fits, and by how much; empty if something does."""
        if self.fits or self.nearest is None:
            return ""
        ram, flash = self.nearest.over(self.ram, self.flash)
        lacking = [
            f"{missing:,} bytes more {name} than the {limit:,} there are"
            for name, missing, limit in (("RAM", ram, self.ram), ("flash", flash, self.flash))
            if missing
        ]
        n = self.nearest
        return (
            f"nothing fits {self.target}: of {self.tried} configurations the nearest (K={n.parts}, "
            f"batch {n.batch}, {n.dtype}, {'recomputed, ' if n.recompute else ''}"
            f"trains {n.trains}, saves {n.saves}) needs {' and '.join(lacking)}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; the keys are those of `fptt plan --target --json`."""
        lacking = self.nearest.over(self.ram, self.flash) if self.nearest else (0, 0)
        return {
            "network": self.net,
            "target": self.target,
            "ram_limit": self.ram,
            "flash_limit": self.flash,
            "clock_hz": self.clock,
            "cycles_per_instruction": self.cycles.expected,
            "cycles_per_instruction_low": self.cycles.low,
            "cycles_per_instruction_high": self.cycles.high,
            "instructions_from": self.source,
            "erase_bytes": self.part.erase,
            "write_bytes": self.part.write,
            "endurance": self.part.endurance,
            "tried": self.tried,
            "fits": [one.as_json() | {"export": one.export(self.target)} for one in self.fits],
            "nearest": self.nearest
            and self.nearest.as_json() | {"export": self.nearest.export(self.target)},
            "missing_ram_bytes": lacking[0],
            "missing_flash_bytes": lacking[1],
        }


def budget(
    net: Network,
    rule: Callable[[int], Rule],
    *,
    target: str,
    steps: int,
    ram: int | None = None,
    flash: int | None = None,
    clock: float | None = None,
    cpi: float | None = None,
    part: Part | None = None,
    parts: Sequence[int] | None = None,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    train: Sequence[str] | None = None,
    **options: Any,
) -> Budget:
    """All configurations of training that fit a device, the best first.

    Args:
        net: the network.
        rule: K -> the learning rule.
        target: name of a target that was measured.
        steps: T.
        ram, flash: bytes that there are; None for no limit.
        clock: Hz, for the time of a sequence.
        cpi: cycles per instruction; the target's own, with a band, if not given.
        part: the flash; that of a typical part if not given.
        parts: values of K to try; those that cut T evenly if not given.
        batches, dtypes: what to try.
        train: patterns of what trains; several ways are tried if not given.
        options: further ones of `fptt.build`, such as `optimizer`, `loss` and `clip`.

    Raises:
        InputError: a target that was not measured, or values that do not fit together.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> found = budget(net, lambda k: fptt.FPTT(parts=k), target="rv64", steps=16, ram=65536)
        >>> found.fits[0].trains, found.fits[0].given_up
        ('everything', ())
    """
    board = target_named(target)
    part = part or flash_part(target)
    if cpi is not None and not (math.isfinite(cpi) and cpi > 0):
        raise InputError(f"--cpi is {cpi}; give cycles per instruction above 0, such as 1.5")
    cycles = Cycles(cpi, cpi, cpi, "as given") if cpi is not None else CYCLES.get(target, _IN_ORDER)
    measured = {dtype: costs(target, dtype) for dtype in dtypes}
    tried: list[Configuration] = []
    for training in (
        [Training(", ".join(train), {"train": tuple(train)}, "only what was named trains")]
        if train and tuple(train) != ("*",)
        else trainings(net)
    ):
        for dtype in dtypes:
            tried += _configurations(
                net,
                rule,
                training,
                measured[dtype],
                board,
                part,
                dtype,
                sorted(set(parts or usual_parts(steps))),
                sorted(set(batches)),
                ram,
                {"steps": steps, **options},
            )
    if not tried:
        raise InputError("no configuration could be built; name other --train-only patterns")
    rated = [_timed(one, clock, cycles) for one in tried]
    fits = sorted((one for one in rated if one.over(ram, flash) == (0, 0)), key=lambda c: c.order())

    def missing(one: Configuration) -> tuple[Any, ...]:
        over = one.over(ram, flash)
        return (over[0] / (ram or 1) + over[1] / (flash or 1), *one.order())

    any_costs = next(iter(measured.values()))
    return Budget(
        net=f"{net}, T={steps}",
        target=target,
        ram=ram,
        flash=flash,
        clock=clock,
        cycles=cycles,
        part=part,
        source=f"counted on {any_costs.emulator}, {any_costs.compiler}"
        + (" (before the last change of the kernels)" if any_costs.stale else ""),
        tried=len(rated),
        fits=fits,
        nearest=None if fits else min(rated, key=missing),
    )


def usual_parts(steps: int) -> list[int]:
    """Values of K that are tried: those that cut the sequence evenly, thinned out where many do.

    Example:
        >>> usual_parts(28), usual_parts(13)
        ([1, 2, 4, 7, 14, 28], [1, 2, 4, 8, 13])
    """
    found = [k for k in range(1, steps + 1) if steps % k == 0]
    if len(found) < min(4, steps):
        found = sorted({1, steps, *(2**n for n in range(steps.bit_length()) if 2**n < steps)})
    if len(found) > MOST_PARTS:
        chosen = {round(i * (len(found) - 1) / (MOST_PARTS - 1)) for i in range(MOST_PARTS)}
        found = [found[i] for i in sorted(chosen)]
    return found


def trainings(net: Network) -> list[Training]:
    """Ways to train a network, from all of it to the least."""
    found = [Training("everything")]
    recurrent = [i for i, layer in enumerate(net.layers) if _is_recurrent(layer)]
    readout = tuple(
        f"{i}.*"
        for i, layer in enumerate(net.layers)
        if i > max(recurrent, default=-1) and layer.parameters()
    )
    if not recurrent:
        return found
    found.append(
        Training("recurrent", {"train": ("*weight_hh*",)}, "only the recurrent weights train")
    )
    if "adapters" in _build_options() and readout and not getattr(net, "adapters", None):
        found.append(
            Training(
                "adapters",
                {"train": readout, "adapters": {"*.weight_hh": RANK}},
                f"only the readout trains, and a change of rank {RANK} of the recurrent weights",
            )
        )
    if readout:
        found.append(Training("readout", {"train": readout}, "only the readout trains"))
    found.append(Training("biases", {"train": ("*.bias*",)}, "only the biases train"))
    return found


def _is_recurrent(layer: Any) -> bool:
    return any("weight_hh" in name for name in layer.parameters())


def _build_options() -> Mapping[str, Any]:
    return inspect.signature(build).parameters


def _configurations(
    net: Network,
    rule: Callable[[int], Rule],
    training: Training,
    measured: Costs,
    board: Target,
    part: Part,
    dtype: str,
    parts: Sequence[int],
    batches: Sequence[int],
    ram: int | None,
    options: Mapping[str, Any],
) -> Iterator[Configuration]:
    """Those with one training and number type."""
    rounding = {"rounding": "stochastic"} if dtype == "bfloat16" else {}

    def made(k: int, batch: int, again: bool) -> Program | None:
        chosen = {**options, **training.options, **rounding, "dtype": dtype, "batch": batch}
        if again:
            chosen["recompute"] = True
        try:
            return build(net, rule(k), **chosen)
        except InputError:
            # some ways to train do not fit every network: without biases, or too small for adapters
            if training.options.get("adapters") or training.name in ("biases", "recurrent"):
                return None
            raise

    smallest = made(parts[-1], batches[0], False)
    if smallest is None:
        return
    check(smallest, "plan --target")
    cases: Iterable[tuple[int, int]] = [(k, batch) for batch in batches for k in parts]
    if ram is not None and smallest.plan.learned_bytes > ram:
        # what is learnt has the same size in all of them
        cases = [(parts[-1], batches[0])]
    for k, batch in cases:
        plain = made(k, batch, False)
        assert plain is not None
        programs = [(False, plain)]
        if "recompute" in _build_options() and k < plain.steps:
            again = made(k, batch, True)
            if again is not None and again.plan.arena_bytes < plain.plan.arena_bytes:
                programs.append((True, again))
        for recompute, program in programs:
            yield from _of_program(program, recompute, training, measured, board, part)


def _of_program(
    program: Program,
    recompute: bool,
    training: Training,
    measured: Costs,
    board: Target,
    part: Part,
) -> Iterator[Configuration]:
    size, saved = footprint(program, board.pointer_bytes), saved_state(program)
    counted = measured.instructions(program)
    code = measured.code_bytes(program) + measured.code_error
    for saves, payload in (("full", saved.full), ("weights", saved.weights)):
        given_up = [training.given_up] if training.given_up else []
        if program.dtype == "bfloat16":
            given_up.append("numbers have 8 significant bits (bfloat16, rounded stochastically)")
        if program.batch > 1:
            given_up.append(f"{program.batch} sequences must come side by side")
        if program.rule.parts > 1 and _through_time(program):
            given_up.append(f"gradients reach back {program.part_steps} of {program.steps} steps")
        if saves == "weights":
            given_up.append(_forgotten(program))
        yield Configuration(
            parts=program.rule.parts,
            batch=program.batch,
            dtype=program.dtype,
            recompute=recompute,
            trains=training.name,
            saves=saves,
            arena_bytes=size.arena,
            handle_bytes=size.handle,
            stack_bytes=stack_bytes(program, board),
            code_bytes=code,
            weight_bytes=size.constants,
            snapshot_bytes=part.area_bytes(payload),
            instructions=Estimate(counted.value / program.batch, counted.band, counted.unmeasured),
            seconds=None,
            saves_until_worn=part.saves,
            given_up=tuple(given_up),
            options={
                **training.options,
                **({"recompute": True} if recompute else {}),
                "dtype": program.dtype,
                "rounding": program.rounding,
                "batch": program.batch,
            },
        )


def _through_time(program: Program) -> bool:
    """Whether gradients go back from step to step at all."""
    return any(isinstance(item, Loop) for item in program.routines["backward"].body)


def _forgotten(program: Program) -> str:
    """What is lost at a reset where weights alone are saved."""
    for buffer in program.buffers.values():
        # uint32: counters of random numbers
        known = buffer.name != "lr" and buffer.dtype != "uint32"
        if known and buffer.role in (Role.RULE_STATE, Role.OPTIMIZER_STATE):
            return "a reset forgets what rule and optimizer remember"
    return "a reset forgets the state of the sequence"


def _timed(one: Configuration, clock: float | None, cycles: Cycles) -> Configuration:
    if clock is None:
        return one
    count = one.instructions
    return replace(
        one,
        seconds=(
            count.value * cycles.expected / clock,
            count.low * cycles.low / clock,
            count.high * cycles.high / clock,
        ),
    )
