"""Links firmware as an application would: the model with all of its C interface, saves included,
and nothing else. What it takes of flash is what `fptt plan` predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fptt.device.build import build_elf
from fptt.device.elf import Elf, read_elf
from fptt.device.folder import STACK_BYTES, BuildFile, Firmware
from fptt.device.harness import compile_command, compile_file
from fptt.device.kernels import KernelFile, definitions, kernels_for
from fptt.device.sources import runtime_folder
from fptt.device.targets import Target

#: what an application may call; kept by the linker where it measures kernels alone
_INTERFACE = (
    "fptt_init",
    "fptt_begin_sequence",
    "fptt_observe",
    "fptt_end_sequence",
    "fptt_predict",
    "fptt_learning",
    "fptt_save",
    "fptt_restore",
    "fptt_rollback",
)


def _main(name: str) -> str:
    upper = name.upper()
    return f"""\
#include "{name}.h"
#include "port.h"

static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned(16)));
static {name}_t model;
static volatile uint32_t unknown[{upper}_BATCH * ({upper}_INPUTS + {upper}_OUTPUTS)];

static int no_read(void *c, uint32_t at, void *to, uint32_t bytes) {{
  (void)c, (void)at, (void)to, (void)bytes;
  return 1;
}}
static int no_write(void *c, uint32_t at, const void *from, uint32_t bytes) {{
  (void)c, (void)at, (void)from, (void)bytes;
  return 1;
}}
static int no_erase(void *c, uint32_t at) {{
  (void)c, (void)at;
  return 1;
}}

int main(void) {{
  const fptt_flash flash = {{0, 65536, 4096, 8, no_read, no_write, no_erase}};
  const void *x = (const void *)(uintptr_t)unknown;
  fptt_status status = {name}_init(&model, arena, sizeof arena);
  status |= {name}_restore(&model, &flash, FPTT_SAVE_FULL);
  {name}_begin_sequence(&model);
  status |= fptt_observe(&model.learner, x, x);
  status |= {name}_end_sequence(&model);
  {name}_predict(&model, (float *)(uintptr_t)unknown);
  {name}_learning(&model, 1);
  status |= {name}_save(&model, &flash, FPTT_SAVE_FULL);
  {name}_rollback(&model);
  fptt_port_exit((int)status);
}}
"""


def link_whole(firmware: Firmware, scratch: Path) -> Elf:
    """Builds an exported model with its whole interface.

    Args:
        firmware: the exported folder.
        scratch: folder for what is built.

    Raises:
        InputError: no compiler for the target.
        FpttError: it does not compile.
    """
    work = scratch / "whole"
    work.mkdir(exist_ok=True)
    folder = firmware.path
    (work / "main.c").write_text(_main(firmware.name))
    includes = [f"-I{p}" for p in (folder, folder / "fptt", folder / "port")]
    objects = []
    plain = BuildFile("", ())
    for source, file, keep in (
        (work / "main.c", plain, False),
        (folder / f"{firmware.name}.c", plain, False),
        *((folder / file.path, file, True) for file in firmware.files),
    ):
        command = [*compile_command(firmware.target, file, firmware.definitions), *includes]
        objects.append(work / f"{source.stem}.o")
        compile_file(command, source, objects[-1], keep=keep)
    elf = build_elf(
        firmware.target,
        [],
        work / "whole.elf",
        objects=objects,
        stack_bytes=STACK_BYTES,
        ram=firmware.target.rams[-1] if firmware.target.rams else None,
    )
    return read_elf(elf)


def kernel_sizes(
    target: Target, dtype: str, scratch: Path
) -> tuple[int, dict[str, dict[str, int]]]:
    """Bytes of code that every kernel adds to a firmware without any.

    Args:
        target: for what.
        dtype: of parameters and activations.
        scratch: folder for what is built.

    Returns:
        Bytes of the firmware without kernels, and by kernel the pieces that it brings, each with
        its bytes; kernels may share pieces.
    """
    runtime, work = runtime_folder(), scratch / "kernels"
    work.mkdir(exist_ok=True)
    (work / "main.c").write_text('#include "port.h"\nint main(void) { fptt_port_exit(0); }\n')
    includes = [f"-I{p}" for p in (runtime / "include", runtime / "src", runtime / "ports")]
    objects = []
    files = kernels_for(target.name, dtype, dtype)
    defined = definitions(dtype, dtype)
    main = KernelFile("main.c", ())
    for path, file in ((work / "main.c", main), *((runtime / f.path, f) for f in files)):
        objects.append(work / f"{file.path.replace('/', '_')}.o")
        command = [*compile_command(target, file, defined), *includes]
        compile_file(command, path, objects[-1], keep=file is not main)

    def linked(*kept: str) -> Elf:
        names: Sequence[str] = (*_INTERFACE, *kept)
        flags = [f"-Wl,-u,{name}" for name in names]
        return read_elf(build_elf(target, [], work / "kernel.elf", flags=flags, objects=objects))

    bare = linked()
    known = {(s.name, s.bytes) for s in bare.symbols}
    found: dict[str, dict[str, int]] = {}
    for kernel in sorted({k for f in files for k in f.kernels}):
        elf = linked(f"fptt_{kernel}")
        written = {s.name for s in elf.sections if s.writable}
        pieces = {
            f"{s.name} {s.bytes}": s.bytes
            for s in elf.symbols
            if (s.name, s.bytes) not in known and s.section not in written
        }
        rest = elf.flash_bytes - bare.flash_bytes - sum(pieces.values())
        found[kernel] = pieces | ({f"rest of {kernel}": rest} if rest > 0 else {})
    return bare.flash_bytes, found
