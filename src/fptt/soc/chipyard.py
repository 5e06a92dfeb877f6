"""Configurations for Chipyard, the generator with which the published system was built.

Names are those of Chipyard, Rocket Chip and Gemmini (RoCCFragments.scala, rocket/Configs.scala,
ConfigsFP.scala). Nothing here has been elaborated; what is written says so.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fptt.errors import InputError, SaveError
from fptt.soc.chip import Chip
from fptt.soc.gemmini_header import EXPONENT_BITS, TYPES, Derived, header, of
from fptt.storage.files import write_atomically

#: tells a folder of ours from others
DESCRIPTION = "chipyard.json"
HEADER = "gemmini_params.h"
_BASE = {"bf16": "BF16DefaultConfig", "fp32": "FP32DefaultConfig"}
#: sets x line is a page, so that a cache can be indexed before addresses are translated
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Emitted:
    """A folder that `emit` wrote.

    Attributes:
        folder: its path.
        design: of the chip.
        config: class of the Scala configuration.
        files: names in the folder.
        derived: the header's derived numbers.
    """

    folder: Path
    design: str
    config: str
    files: tuple[str, ...]
    derived: Derived

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": str(self.folder),
            "design": self.design,
            "config": self.config,
            "files": list(self.files),
            "header": {key.upper(): value for key, value in asdict(self.derived).items()},
            "elaborated": False,
        }


def config_name(chip: Chip) -> str:
    """The Scala class.

    Example:
        >>> from fptt.soc.chip import load_chip
        >>> config_name(load_chip("8x8-10"))
        'Fptt8x8Cores10Bf16Config'
    """
    return f"Fptt{chip.mesh_name}Cores{chip.cores}{chip.data_type.capitalize()}Config"


def scala(chip: Chip) -> str:
    """The configuration: n Rocket cores, one Gemmini at the first of them, and the caches.

    Raises:
        InputError: an array that Gemmini refuses, or a cache that Rocket cannot have.
    """
    of(chip)  # refuses what Gemmini refuses
    name = config_name(chip)
    array = [
        f"meshRows = {chip.mesh}, meshColumns = {chip.mesh}",
        f"sp_capacity = CapacityInKilobytes({chip.scratchpad_kib}), "
        f"sp_banks = {chip.scratchpad_banks}",
        f"acc_capacity = CapacityInKilobytes({chip.accumulator_kib}), "
        f"acc_banks = {chip.accumulator_banks}",
        f"dataflow = Dataflow.{chip.dataflow}",
        f"inputType = {_float(chip.data_type)}",
        f"spatialArrayOutputType = {_float(chip.output_type)}",
        f"accType = {_float(chip.accumulator_type)}",
        f"dma_buswidth = {chip.bus_bits}",
    ]
    if not chip.convolution_paths:
        array += [
            "has_training_convs = false, has_max_pool = false",
            "has_dw_convs = false, has_first_layer_optimizations = false",
        ]
    rocket = "new freechips.rocketchip.rocket."
    subsystem = "new freechips.rocketchip.subsystem."
    clock_mhz = chip.clock_hz / 1e6
    fragments = [
        "// one Gemmini, at the core with hart 0",
        "new chipyard.config.WithMultiRoCC ++",
        f"new chipyard.config.WithMultiRoCCGemmini(0)({name}Gemmini.config) ++",
        "// WithNHugeCores has caches of its own size",
    ]
    for letter, kib in (("I", chip.icache_kib), ("D", chip.dcache_kib)):
        sets, ways = _sets_and_ways(chip, f"{letter.lower()}cache_kib", kib)
        fragments += [
            f"{rocket}WithL1{letter}CacheSets({sets}) ++",
            f"{rocket}WithL1{letter}CacheWays({ways}) ++",
        ]
    fragments += [
        f"{rocket}WithNHugeCores({chip.cores}) ++",
        f"{subsystem}WithInclusiveCache(capacityKB = {chip.l2_kib}) ++",
        f"{subsystem}WithNBanks({chip.l2_banks}) ++",
        f"{subsystem}WithCacheBlockBytes({chip.line_bytes}) ++",
        f"new chipyard.config.WithSystemBusWidth({chip.bus_bits}) ++",
        *(
            f"new chipyard.config.With{bus}BusFrequency({clock_mhz:.1f}) ++"
            for bus in ("System", "Memory", "Periphery")
        ),
        "new chipyard.config.AbstractConfig",
    ]
    lines = [
        f"// {chip.design}: Rocket cores: {chip.cores}; one Gemmini of {chip.mesh_name} PEs, "
        f"{chip.data_type}.",
        "// NOT ELABORATED: written by fptt, never compiled against Chipyard. Names may have moved",
        "// between versions. These are assumptions:",
        *(
            f"//   {key}: {source.removeprefix('assumption: ')}"
            for key, source in chip.sources.items()
            if source.startswith("assumption")
        ),
        "// Put it into generators/chipyard/src/main/scala/config and build with",
        f"// CONFIG={name}.",
        "package chipyard",
        "",
        "import gemmini.{CapacityInKilobytes, Dataflow, Float, GemminiFPConfigs}",
        "import gemmini.Arithmetic.FloatArithmetic._",
        "import org.chipsalliance.cde.config.Config",
        "",
        f"object {name}Gemmini {{",
        f"  val config = GemminiFPConfigs.{_BASE[chip.data_type]}.copy(",
        ",\n".join(f"    {line}" for line in array),
        "  )",
        "}",
        "",
        f"class {name} extends Config(",
        *(f"  {line}" for line in fragments),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _float(data_type: str) -> str:
    return f"Float({EXPONENT_BITS}, {TYPES[data_type].significand})"


def _sets_and_ways(chip: Chip, key: str, kib: int) -> tuple[int, int]:
    """Of a first-level cache: at most a page in each way."""
    lines = kib * 1024 // chip.line_bytes
    if lines == 0:
        raise InputError(
            f"chip {chip.name}: {key} is {kib} with lines of {chip.line_bytes} bytes; expected at "
            "least a line"
        )
    sets = min(lines, max(1, _PAGE_BYTES // chip.line_bytes))
    return sets, lines // sets


def emit(chip: Chip, folder: str | Path) -> Emitted:
    """Writes a Chipyard configuration and the gemmini_params.h that belongs to it.

    Every file takes its place in one step. What a folder of an earlier call had is replaced.

    Args:
        chip: the design.
        folder: to create; if it exists it must be empty, or written by this function.

    Raises:
        InputError: a chip that Gemmini refuses, a folder with other files in it, or a file of an
            earlier call that somebody has changed. Nothing has been written.
        SaveError: the folder cannot be written.
    """
    folder = Path(folder)
    name = config_name(chip)
    texts = {f"{name}.scala": scala(chip), HEADER: header(chip)}
    emitted = Emitted(folder, chip.design, name, tuple(texts), of(chip))
    earlier = _earlier(folder)
    description = {
        "fptt": 1,
        **{key: value for key, value in emitted.as_json().items() if key != "folder"},
        "sources": dict(chip.sources),
    }
    own = {path: [zlib.crc32(text.encode())] for path, text in texts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _describe(folder, description, own, earlier)
        for path, text in texts.items():
            write_atomically(folder / path, text.encode())
        for path in earlier:
            if path not in texts:
                (folder / path).unlink(missing_ok=True)
        _describe(folder, description, own, {})
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            f"{error.filename or folder}: {error.strerror}; the configuration is not complete: "
            "write it again, where there is room and leave to write"
        ) from None
    return emitted


def _describe(
    folder: Path,
    description: dict[str, Any],
    own: dict[str, list[int]],
    earlier: dict[str, list[int]],
) -> None:
    # those of the earlier call too, until they are gone: a call that was stopped can be repeated
    written = {path: own.get(path, []) + earlier.get(path, []) for path in {**earlier, **own}}
    text = json.dumps(description | {"written": written}, indent=1) + "\n"
    write_atomically(folder / DESCRIPTION, text.encode())


def _earlier(folder: Path) -> dict[str, list[int]]:
    """What an earlier call wrote there: paths and checksums.

    Raises:
        InputError: a file, a folder with other things in it, or a file that was changed.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the configuration")
    there = {path.name for path in folder.iterdir()}
    if not there:
        return {}
    refused = InputError(
        f"{folder} has other files in it; name a new folder, or one that was written by "
        "fptt explore --emit chipyard"
    )
    if DESCRIPTION not in there:
        raise refused
    try:
        written = json.loads((folder / DESCRIPTION).read_text())["written"]
        found = {str(path): [int(crc) for crc in crcs] for path, crcs in written.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder / DESCRIPTION} is damaged; remove the folder or name a new one"
        ) from None
    if there - {DESCRIPTION, *found} or any("/" in path for path in found):
        raise refused
    for path, crcs in found.items():
        if path in there and zlib.crc32((folder / path).read_bytes()) not in crcs:
            raise InputError(
                f"{folder / path} was changed since it was written; move it away or name a new "
                "folder"
            )
    return found
