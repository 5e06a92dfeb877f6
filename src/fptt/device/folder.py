"""Writes the self-contained folder of an exported model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fptt.device.emit import emit
from fptt.device.footprint import Footprint, footprint
from fptt.device.kernels import (
    CFLAGS,
    HEADERS,
    KernelFile,
    definitions,
    kernel_files,
    stack_bytes,
)
from fptt.device.readme import readme
from fptt.device.sources import runtime_folder
from fptt.device.targets import Target
from fptt.errors import InputError, SaveError

if TYPE_CHECKING:
    from fptt.program.program import Program

#: describes the folder to `fptt run`
DESCRIPTION = "firmware.json"
#: room for the stack in the example and in `fptt run`
STACK_BYTES = 16 * 1024


@dataclass(frozen=True)
class BuildFile:
    """A file of the run time in an exported folder.

    Attributes:
        path: in the folder.
        flags: besides those of all files.
        compiler, machine: another compiler than the target's, and its flags for the processor.
    """

    path: str
    flags: tuple[str, ...]
    compiler: str = ""
    machine: tuple[str, ...] = ()


@dataclass(frozen=True)
class Firmware:
    """An exported folder.

    Attributes:
        path: of the folder.
        target: name of the target.
        name: prefix of the C interface.
        files: of the run time, with their flags.
        definitions: flags for all of them.
        footprint: what it takes; None where the folder was read.
        identity: saved states belong to it.
        task: whose data the model was trained on, if that is known.
        kept: files of an earlier export that somebody has changed, and that were left alone.
    """

    path: Path
    target: Target
    name: str
    files: tuple[BuildFile, ...]
    definitions: tuple[str, ...]
    footprint: Footprint | None = None
    identity: int = 0
    task: str | None = None
    kept: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data; the keys are those of `fptt export --json`."""
        size = self.footprint
        assert size is not None, "only a folder that was written now knows its footprint"
        return {
            "folder": str(self.path),
            "target": self.target.name,
            "name": self.name,
            "arena_bytes": size.arena,
            "ram_bytes": size.ram,
            "constant_bytes": size.constants,
            "identity": self.identity,
            "kept": list(self.kept),
        }


def write_folder(
    program: Program,
    parameters: Mapping[str, NDArray[Any]],
    folder: Path,
    target: Target,
    *,
    name: str = "model",
    seed: int = 0,
    normalisation: Mapping[str, Any] | None = None,
    loss_limit: float | None = None,
    task: str | None = None,
    assembly: bool = True,
) -> Firmware:
    """Writes a program as a folder of C that needs nothing else.

    Args:
        program, parameters, name, seed, loss_limit: as for `emit`.
        folder: to create; if it exists it must be empty or an earlier export.
        target: for which processor.
        normalisation: how the task prepared its input; becomes constants of the C interface.
        task: its name.
        assembly: False for the C that inline assembly stands for, with the same bits.

    Raises:
        InputError: a program that cannot be exported, or a folder with other files in it.
        SaveError: the folder cannot be written.
    """
    source = emit(
        program,
        parameters,
        name=name,
        seed=seed,
        loss_limit=loss_limit,
        normalisation=normalisation or {},
    )
    folder = Path(folder)
    files = kernel_files(target, source.code, program.dtype, program.activation_dtype)
    defined = tuple(definitions(program.dtype, program.activation_dtype, assembly=assembly))
    size = footprint(program, target.pointer_bytes)
    firmware = Firmware(
        folder,
        target,
        name,
        tuple(BuildFile(f"fptt/{f.name}", f.flags, f.compiler, f.machine) for f in files),
        defined,
        size,
        source.identity,
        task,
    )
    description: dict[str, Any] = {
        "fptt": 1,
        "target": target.name,
        "name": name,
        "identity": source.identity,
        "files": [vars(file) for file in firmware.files],
        "definitions": list(defined),
        "task": task,
    }
    runtime = runtime_folder()
    texts = {
        "README.md": readme(program, target, name, size, stack_bytes(program, target)),
        f"{name}.h": source.header,
        f"{name}.c": source.code,
        f"{name}_weights.h": source.weights,
        "main.c": _example(program, name),
        "Makefile": _makefile(target, name, files, defined),
        **{path: (runtime / origin).read_text() for path, origin in _copies(target, files)},
    }
    try:
        earlier = _earlier(folder)
        description["written"] = {path: zlib.crc32(text.encode()) for path, text in texts.items()}
        # first: a folder that has it may be written again, should this be stopped
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
        kept = _replace(folder, earlier, texts)
    except OSError as error:
        raise SaveError(
            f"{error.filename or folder}: {error.strerror}; the export is not complete: write it "
            "again, where there is room and leave to write"
        ) from None
    return replace(firmware, kept=kept)


def _copies(target: Target, files: list[KernelFile]) -> Iterator[tuple[str, str]]:
    """What is copied of the run time: path in the folder, path below runtime/."""
    for path in HEADERS:
        yield f"fptt/{Path(path).name}", path
    for file in files:
        yield f"fptt/{file.name}", file.path
        for path in file.headers:
            yield f"fptt/{Path(path).name}", path
    for path in (*target.port, *target.headers, *target.scripts):
        yield f"port/{Path(path).name}", f"ports/{path}"


def _earlier(folder: Path) -> dict[str, int]:
    """What an earlier export wrote there: paths and checksums.

    Raises:
        InputError: a file, or a folder with other things in it.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the export")
    path = folder / DESCRIPTION
    if not path.is_file():
        if any(folder.iterdir()):
            raise InputError(
                f"{folder} has other files in it; name a new folder, or one of an earlier export"
            )
        return {}
    try:
        return {
            str(name): int(crc) for name, crc in json.loads(path.read_text())["written"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _replace(folder: Path, earlier: Mapping[str, int], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Writes the files, and removes those of the earlier export that are not among them. The
    example, the port and the Makefile stay where somebody has changed them; answers which."""
    kept = []
    for path, crc in earlier.items():
        there = folder / path
        if not there.is_file():
            continue
        changed = zlib.crc32(there.read_bytes()) != crc
        if changed and (path in ("main.c", "Makefile") or path.startswith("port/")):
            kept.append(path)
        elif path not in texts:
            there.unlink()
    for path, text in texts.items():
        if path not in kept:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
    return tuple(kept)


def read_folder(folder: Path) -> Firmware:
    """What `write_folder` wrote.

    Raises:
        InputError: no exported folder.
    """
    from fptt.device.targets import target

    path = Path(folder) / DESCRIPTION
    try:
        described = json.loads(path.read_text())
        return Firmware(
            Path(folder),
            target(described["target"]),
            described["name"],
            tuple(
                BuildFile(f["path"], tuple(f["flags"]), f["compiler"], tuple(f["machine"]))
                for f in described["files"]
            ),
            tuple(described["definitions"]),
            identity=described["identity"],
            task=described["task"],
        )
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {DESCRIPTION}; give a folder that fptt export wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); export the model again") from None


def _makefile(target: Target, name: str, files: list[KernelFile], defined: tuple[str, ...]) -> str:
    ports = [Path(path).name for path in target.port]
    objects = [f"build/{Path(f.name).stem}.o" for f in files]
    lines = [
        f"# Builds main.c with the model {name} for {target.name}: {target.description}.",
        "#   make          main.elf and main.map",
        "#   make library  the model and the run time alone, for your own project",
        "# Another compiler or other flags: make CC=... CFLAGS=...",
        f"CC = {target.compilers[0]}",
        f"AR = {target.prefix}ar",
        f"MACHINE = {' '.join(target.cflags)}",
        f"CFLAGS = {' '.join(CFLAGS)} -Wall -Wextra",
        f"DEFINITIONS = {' '.join(defined)}",
        f"STACK = {STACK_BYTES}",
        f"LDFLAGS = {' '.join(target.link_flags(scripts='port'))}",
    ]
    if target.scripts:
        lines.append("LDFLAGS += -Wl,--defsym=fptt_stack_bytes=$(STACK) -Wl,-Map=main.map")
    lines += [
        "COMPILE = $(CC) $(CFLAGS) $(MACHINE) $(DEFINITIONS) -I. -Ifptt -Iport",
        f"LIBRARY = build/{name}.o {' '.join(objects)}",
        "HEADERS = $(wildcard *.h fptt/*.h port/*.h)",
        "",
        f"main.elf: build/main.o lib{name}.a {' '.join('port/' + p for p in ports)}",
        "\t$(COMPILE) $^ $(LDFLAGS) -o $@",
        "",
        f"library: lib{name}.a",
        "",
        f"lib{name}.a: $(LIBRARY)",
        "\trm -f $@",
        "\t$(AR) rcs $@ $^",
        "",
        "build/%.o: %.c $(HEADERS) | build",
        "\t$(COMPILE) -c $< -o $@",
        "",
        "# the flags that decide over floating-point results belong to the files",
    ]
    for f in files:
        stem = Path(f.name).stem
        compiler = "$(COMPILE)"
        if f.compiler:
            compiler = (
                f"{f.compiler} $(CFLAGS) {' '.join(f.machine)} $(DEFINITIONS) -I. -Ifptt -Iport"
            )
        lines += [
            f"build/{stem}.o: fptt/{f.name} $(HEADERS) | build",
            f"\t{compiler} {' '.join(f.flags)} -c $< -o $@".replace("  ", " "),
            "",
        ]
    lines += [
        "build:",
        "\tmkdir -p build",
        "",
        "clean:",
        f"\trm -rf build main.elf main.map lib{name}.a",
        "",
        ".PHONY: library clean",
    ]
    return "\n".join(lines) + "\n"


def _example(program: Program, name: str) -> str:
    upper = name.upper()
    token = program.buffers["input"].dtype == "int32"
    label = program.buffers["target"].dtype == "int32"
    number = "int32_t" if token else "float"
    count = f"{upper}_BATCH" + ("" if token else f" * {upper}_INPUTS")
    made = (
        f"(int32_t)((t + i) % {program.net.tokens}u)"
        if token
        else "(float)((t * 7 + i * 3) % 11) / 11.0f - 0.5f"
    )
    target_type, target_count = ("int32_t", f"{upper}_BATCH")
    target_value = f"(int32_t)(i % {upper}_OUTPUTS)"
    if not label:
        target_type, target_count = ("float", f"{upper}_BATCH * {upper}_OUTPUTS")
        target_value = "(float)(i % 3) - 1.0f"
    return f"""\
/* An example: learns from one made-up sequence, again and again, and prints the loss. Replace the
 * input by what your sensor delivers, and the port by your board's. */
#include "{name}.h"
#include "port.h"

static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned(16)));
static {name}_t model;

/* The loss in thousandths, as text. */
static void print_loss(float loss) {{
  char text[24] = "loss                   \\n";
  uint32_t thousandths = loss < 4.0e6f ? (uint32_t)(loss * 1000.0f + 0.5f) : UINT32_MAX;
  size_t at = 22;
  for (int digit = 0; digit < 4 || thousandths > 0; digit++) {{
    if (digit == 3) text[at--] = '.';
    text[at--] = (char)('0' + thousandths % 10u);
    thousandths /= 10u;
  }}
  fptt_port_write(text, sizeof text);
}}

static void fail(const char *text) {{
  size_t length = 0;
  while (text[length]) length++;
  fptt_port_write(text, length);
  fptt_port_write("\\n", 1);
  fptt_port_exit(1);
}}

int main(void) {{
  fptt_status status = {name}_init(&model, arena, sizeof arena);
  if (status != FPTT_OK) fail(fptt_status_text(status));
  for (int round = 0; round < 3; round++) {{
    {name}_begin_sequence(&model);
    for (uint32_t t = 0; t < {upper}_STEPS; t++) {{
      {number} x[{count}];
      {target_type} target[{target_count}];
      for (uint32_t i = 0; i < {count}; i++) x[i] = {made};
      for (uint32_t i = 0; i < {target_count}; i++) target[i] = {target_value};
      status = {name}_observe_labelled(&model, x, target);
      if (status != FPTT_OK) fail(fptt_status_text(status));
    }}
    print_loss(model.learner.loss);
  }}
  fptt_port_exit(0);
}}
"""
