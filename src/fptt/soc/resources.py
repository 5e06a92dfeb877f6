"""What a chip takes on an FPGA: look-up tables, flip-flops, block RAMs and DSP slices.

    system = gemmini(mesh, type) + base + cores * core

Every constant is derived from the published rows (`fptt.soc.publications`) and from nothing else:

- Gemmini in bfloat16 is fixed + PE * mesh^2, the line through the rows for 4x4 and 8x8.
- Gemmini in float32 has one row, 4x4 with the paths for convolutions. Its LUT and FF over those of
  bfloat16 are a ratio that is taken for fixed part and PEs alike. Of its DSPs two belong to each
  PE: a 24-bit significand needs two 27x18 multipliers. The 8-bit ones of bfloat16 take none: its
  two rows have the same DSPs.
- Block RAMs of scratchpad and accumulator follow from their banks' rows and widths; that gives all
  three rows exactly.
- base and core are the line through the two whole systems, 4x4-1 and 8x8-10, without Gemmini. "Each
  further core" is stated as about; it is not used and stands against the model as a check.

`residuals` says how far the model is from every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil

from fptt.soc.chip import DATA_TYPES, PUBLISHED_CORES, PUBLISHED_MESHES, Chip, load_chip
from fptt.soc.publications import Fpga, PublishedResources, published_measurements

KINDS = ("lut", "ff", "bram", "dsp")
#: what a block RAM of 36 Kibit holds: rows by bits, without the parity bits, which memories whose
#: width is a power of two do not use
_SHAPES = tuple((512 << i, 64 >> i) for i in range(7))
_BRAM_KIB = 4
#: of a PE in float32
_FP32_DSP = 2


@dataclass(frozen=True)
class Resources:
    """What something takes on an FPGA.

    Attributes:
        lut, ff: look-up tables and flip-flops.
        bram: block RAMs of 36 Kibit.
        dsp: DSP slices.
        extrapolated: why no published row backs it; None where one does.
    """

    lut: int
    ff: int
    bram: int
    dsp: int
    extrapolated: str | None = None

    def __add__(self, other: Resources) -> Resources:
        reasons = [r for r in (self.extrapolated, other.extrapolated) if r]
        return Resources(
            self.lut + other.lut,
            self.ff + other.ff,
            self.bram + other.bram,
            self.dsp + other.dsp,
            "; ".join(reasons) or None,
        )

    def lacks(self, fpga: Fpga | None = None) -> str | None:
        """Why it does not fit on an FPGA; None where it does.

        Args:
            fpga: the VCU118 of the published system, if none is given.

        Example:
            >>> resources(load_chip("8x8-10").with_(cores=40)).lacks()
            'does not fit on the VCU118: 1,246,617 LUT of 1,182,240'
            >>> resources(load_chip("8x8-10")).lacks() is None
            True
        """
        fpga = fpga or published_measurements().fpga("VCU118")
        units = {"lut": "LUT", "ff": "FF", "bram": "BRAM", "dsp": "DSP"}
        over = [
            f"{getattr(self, kind):,} {units[kind]} of {getattr(fpga, kind):,}"
            for kind in KINDS
            if getattr(self, kind) > getattr(fpga, kind)
        ]
        return f"does not fit on the {fpga.name}: {', '.join(over)}" if over else None


def resources(chip: Chip, unit: Resources | None = None) -> Resources:
    """What a whole system takes.

    Args:
        chip: the system.
        unit: what is added to it, such as an FPTT unit.

    Example:
        >>> resources(load_chip("4x4-1"))
        Resources(lut=86235, ff=46766, bram=168, dsp=135, extrapolated=None)
        >>> resources(load_chip("4x4-1").with_(scratchpad_kib=64)).extrapolated
        'memories other than the published ones: block RAMs by their bits'
    """
    model = _model()
    array = _gemmini(chip)
    found = {
        kind: array[kind] + model["base"][kind] + chip.cores * model["core"][kind] for kind in KINDS
    }
    published = load_chip("published")
    caches = chip.icache_kib + chip.dcache_kib - published.icache_kib - published.dcache_kib
    found["bram"] += (chip.cores * caches + chip.l2_kib - published.l2_kib) / _BRAM_KIB
    lut, ff, bram, dsp = (max(0, round(found[kind])) for kind in KINDS)
    whole = Resources(lut, ff, bram, dsp, _beyond(chip, published))
    return whole + unit if unit else whole


def gemmini(chip: Chip) -> Resources:
    """What its array and the memories of that take.

    Example:
        >>> gemmini(load_chip("8x8-1"))
        Resources(lut=81106, ff=34551, bram=40, dsp=120, extrapolated=None)
    """
    found = _gemmini(chip)
    lut, ff, bram, dsp = (round(found[kind]) for kind in KINDS)
    return Resources(lut, ff, bram, dsp, _array_beyond(chip, load_chip("published")))


def bank_brams(rows: int, bits: int) -> int:
    """Block RAMs of a memory.

    Args:
        rows: how many.
        bits: of a row.

    Example:
        >>> bank_brams(2048, 128)
        8
    """
    return min(ceil(rows / deep) * ceil(bits / wide) for deep, wide in _SHAPES)


@dataclass(frozen=True)
class Residual:
    """How far the model is from a published figure.

    Attributes:
        row: its name.
        kind: one of `KINDS`.
        published: the figure; of a range, the end that is nearest to the model.
        model: what the model says.
        used: whether a constant of the model comes from it.
    """

    row: str
    kind: str
    published: float
    model: float
    used: bool

    @property
    def error(self) -> float:
        """As a share of what was published."""
        return self.model / self.published - 1


def residuals() -> list[Residual]:
    """The model's error for every published figure.

    Example:
        >>> [(r.row, r.kind, round(r.error, 3)) for r in residuals() if abs(r.error) > 0.001]
        [('each further core', 'lut', -0.009), ('each further core', 'ff', 0.03)]
    """
    found = []
    for row in published_measurements().resources:
        chip = load_chip(row.chip)
        if row.part == "core":
            more, less = resources(chip.with_(cores=10)), resources(chip.with_(cores=1))
            model = {k: (getattr(more, k) - getattr(less, k)) / 9 for k in KINDS}
        else:
            whole = gemmini(chip) if row.part == "gemmini" else resources(chip)
            model = {kind: float(getattr(whole, kind)) for kind in KINDS}
        for kind in KINDS:
            least, most = row.bram if kind == "bram" else (getattr(row, kind),) * 2
            used = row.part != "core" and not (row.part == "gemmini" and kind == "bram")
            nearest = min(max(model[kind], least), most)
            found.append(Residual(row.name, kind, nearest, model[kind], used))
    return found


Amounts = Mapping[str, float]


@cache
def _model() -> dict[str, Amounts]:
    """The constants, from the published rows."""
    rows = {(row.part, row.chip): row for row in published_measurements().resources}
    small, large = (mesh**2 for mesh in PUBLISHED_MESHES)
    bf16 = [_amounts(rows["gemmini", f"{m}x{m}-1"]) for m in PUBLISHED_MESHES]
    fp32 = _amounts(rows["gemmini", "gemmini-fp32"])
    pe = {kind: (bf16[1][kind] - bf16[0][kind]) / (large - small) for kind in KINDS}
    fixed = {kind: bf16[0][kind] - small * pe[kind] for kind in KINDS}
    ratio = {kind: fp32[kind] / bf16[0][kind] for kind in ("lut", "ff")}
    pe32 = {kind: pe[kind] * ratio[kind] for kind in ratio} | {"dsp": _FP32_DSP}
    fixed32 = {kind: fp32[kind] - small * pe32[kind] for kind in pe32}
    one, ten = (
        {kind: _amounts(rows["system", name])[kind] - array[kind] for kind in KINDS}
        for name, array in (("4x4-1", bf16[0]), ("8x8-10", bf16[1]))
    )
    core = {kind: (ten[kind] - one[kind]) / 9 for kind in KINDS}
    base = {kind: one[kind] - core[kind] for kind in KINDS}
    return {
        "pe_bf16": pe,
        "fixed_bf16": fixed,
        "pe_fp32": pe32,
        "fixed_fp32": fixed32,
        "core": core,
        "base": base,
    }


def _amounts(row: PublishedResources) -> dict[str, float]:
    assert row.bram[0] == row.bram[1]
    return {"lut": row.lut, "ff": row.ff, "bram": row.bram[0], "dsp": row.dsp}


def _gemmini(chip: Chip) -> dict[str, float]:
    if chip.mesh == 0:
        return dict.fromkeys(KINDS, 0.0)
    model = _model()
    pe, fixed = model[f"pe_{chip.data_type}"], model[f"fixed_{chip.data_type}"]
    found = {kind: fixed[kind] + pe[kind] * chip.mesh**2 for kind in ("lut", "ff", "dsp")}
    found["bram"] = _memory(
        chip.mesh, chip.scratchpad_kib, chip.scratchpad_banks, chip.data_type
    ) + _memory(chip.mesh, chip.accumulator_kib, chip.accumulator_banks, chip.accumulator_type)
    return found


def _memory(mesh: int, kib: int, banks: int, data_type: str) -> int:
    width = mesh * DATA_TYPES[data_type]
    return banks * bank_brams(ceil(kib * 8192 / (banks * width)), width)


def _array_beyond(chip: Chip, published: Chip) -> str | None:
    """Why no row backs the figures of an array."""
    if chip.mesh == 0:
        return None
    known = published if chip.data_type == "bf16" else load_chip("gemmini-fp32")
    reasons = []
    meshes = PUBLISHED_MESHES if chip.data_type == "bf16" else (known.mesh,)
    if chip.mesh not in meshes:
        rows = " and ".join(f"{m}x{m}" for m in meshes)
        reasons.append(f"{chip.mesh_name} in {chip.data_type}: the published arrays are {rows}")
    if chip.accumulator_type != known.accumulator_type or chip.output_type != known.output_type:
        reasons.append("partial sums or accumulator of another type than published")
    if chip.convolution_paths != known.convolution_paths or chip.dataflow != known.dataflow:
        reasons.append("another dataflow or other paths for convolutions than published")
    memories = ("scratchpad_kib", "scratchpad_banks", "accumulator_kib", "accumulator_banks")
    if any(getattr(chip, key) != getattr(known, key) for key in memories):
        reasons.append("memories other than the published ones: block RAMs by their bits")
    if chip.data_type == "bf16" and chip.mesh and not chip.emulated_bf16:
        reasons.append("bfloat16 hardware in the cores is not counted")
    if chip.extras:
        reasons.append(f"{', '.join(chip.extras)}: units that are not counted")
    return "; ".join(reasons) or None


def _beyond(chip: Chip, published: Chip) -> str | None:
    """Why no row backs the figures of a system."""
    array = _array_beyond(chip, published)
    reasons = [array] if array else []
    if chip.mesh == 0:
        reasons.append("no system without Gemmini was published")
    elif chip.data_type != published.data_type:
        reasons.append("the published systems are in bf16")
    if chip.cores > max(PUBLISHED_CORES):
        reasons.append(f"more than {max(PUBLISHED_CORES)} cores, the most that were published")
    caches = ("icache_kib", "dcache_kib", "l2_kib")
    if any(getattr(chip, key) != getattr(published, key) for key in caches):
        reasons.append("caches of other sizes: block RAMs by their bits")
    if chip.data_type == "bf16" and chip.mesh and not chip.emulated_bf16:
        reasons.append("bfloat16 hardware in the cores is not counted")
    if chip.extras:
        reasons.append(f"{', '.join(chip.extras)}: units that are not counted")
    return "; ".join(reasons) or None
