"""What fptt knows of each target: compiler, flags, startup files, memory.

A target is a kind of processor on the board that an emulator has of it. Its RAM and flash are the
linker script's defaults; `Target.link_flags` gives other sizes to the linker.
"""

import os
import shutil
from dataclasses import dataclass

from fptt.errors import InputError


@dataclass(frozen=True)
class Region:
    """A block of memory: a name, its first address and its size in bytes."""

    name: str
    origin: int
    bytes: int


@dataclass(frozen=True)
class Target:
    """A kind of processor, and what it takes to build for it.

    Attributes:
        name: as on the command line.
        description: one line for people.
        compilers: commands that can build for it, the best first.
        packages: Debian packages with the first of them and with its C library.
        prefix: of the binary utilities (`riscv64-unknown-elf-`).
        cflags: processor and ABI, for the compiler and for the linker.
        ldflags: for the linker only; `-T` and `-L` are in `link_flags`.
        port: startup and console, paths below `runtime/ports`.
        headers: what these include.
        scripts: linker scripts, the one to name first; none on a computer.
        root: the first C function, with which the stack begins (see `fptt.device.stack`).
        pointer_bytes: size of a pointer.
        flash: where code and constants go.
        rams: where data may go, the default first.
    """

    name: str
    description: str
    compilers: tuple[str, ...]
    packages: tuple[str, ...]
    prefix: str
    cflags: tuple[str, ...]
    ldflags: tuple[str, ...]
    port: tuple[str, ...]
    headers: tuple[str, ...]
    scripts: tuple[str, ...]
    root: str
    pointer_bytes: int
    flash: Region | None
    rams: tuple[Region, ...]

    def compiler(self) -> str:
        """The path of the first compiler that is there.

        On a computer `CC` of the environment comes first.

        Raises:
            InputError: there is none; names the package that has it.
        """
        own = os.environ.get("CC", "") if self.flash is None else ""
        for command in (own, *self.compilers):
            found: str | None = shutil.which(command) if command else None
            if found:
                return found
        raise InputError(
            f"no compiler for {self.name}: looked for {', '.join(self.compilers)}. "
            f"On Debian and Ubuntu: apt-get install {' '.join(self.packages)}"
        )

    def ram_for(self, needed: int) -> Region | None:
        """The first RAM that holds so many bytes; None on a computer.

        Raises:
            InputError: none does.
        """
        if not self.rams:
            return None
        for ram in self.rams:
            if needed <= ram.bytes:
                return ram
        largest = max(self.rams, key=lambda ram: ram.bytes)
        raise InputError(
            f"{self.name} has no RAM of {needed:,} bytes: the largest is {largest.name} with "
            f"{largest.bytes:,}"
        )

    def link_flags(
        self,
        *,
        stack_bytes: int | None = None,
        ram: Region | None = None,
        flash: Region | None = None,
        scripts: str = ".",
    ) -> tuple[str, ...]:
        """What the linker is told of memory.

        Args:
            stack_bytes: size of the stack; the script's own (8 KiB) if not given.
            ram: where data go, if not to the default.
            flash: where code goes, if not to the default.
            scripts: folder with the linker scripts.
        """
        if not self.scripts:
            return self.ldflags
        symbols: dict[str, int] = {}
        if stack_bytes is not None:
            symbols["fptt_stack_bytes"] = stack_bytes
        if ram is not None and ram != self.rams[0]:
            symbols |= {"fptt_ram_origin": ram.origin, "fptt_ram_bytes": ram.bytes}
        if flash is not None and flash != self.flash:
            symbols |= {"fptt_flash_origin": flash.origin, "fptt_flash_bytes": flash.bytes}
        return (
            *self.ldflags,
            f"-L{scripts}",
            "-T",
            self.scripts[0].rsplit("/", 1)[-1],
            *(f"-Wl,--defsym={name}={value:#x}" for name, value in symbols.items()),
        )


_KIB = 1024
_MIB = 1024 * _KIB

_BARE = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--fatal-warnings")
_BARE_HEADERS = ("port.h", "bare.h", "semihosting.h")

_RISCV_PORT = ("bare.c", "riscv/port.c", "riscv/start.S")
_RISCV_PACKAGES = ("gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf")
_RISCV_FLASH = Region("FLASH", 0x84000000, 32 * _MIB)
# what lies under it is a guard: see the linker script
_RISCV_RAM = Region("RAM", 0x80010000, 64 * _MIB - 64 * _KIB)

_ARM_PORT = ("bare.c", "cortex-m/port.c")
_ARM_PACKAGES = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi")


def _riscv(name: str, description: str, pointer_bytes: int, *cflags: str) -> Target:
    return Target(
        name=name,
        description=description,
        compilers=("riscv64-unknown-elf-gcc",),
        packages=_RISCV_PACKAGES,
        prefix="riscv64-unknown-elf-",
        cflags=("--specs=picolibc.specs", *cflags, "-mcmodel=medany"),
        ldflags=_BARE,
        port=_RISCV_PORT,
        headers=_BARE_HEADERS,
        scripts=("riscv/riscv.ld",),
        root="main",
        pointer_bytes=pointer_bytes,
        flash=_RISCV_FLASH,
        rams=(_RISCV_RAM,),
    )


def _cortex_m(
    name: str, description: str, flash: Region, rams: tuple[Region, ...], *cflags: str
) -> Target:
    return Target(
        name=name,
        description=description,
        compilers=("arm-none-eabi-gcc",),
        packages=_ARM_PACKAGES,
        prefix="arm-none-eabi-",
        cflags=("--specs=nosys.specs", *cflags, "-mthumb", "-mfloat-abi=hard"),
        ldflags=_BARE,
        port=_ARM_PORT,
        headers=_BARE_HEADERS,
        scripts=(f"cortex-m/{name}.ld", "cortex-m/sections.ld"),
        root="fptt_start",
        pointer_bytes=4,
        flash=flash,
        rams=rams,
    )


#: every target by name
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _riscv(
            "rv64",
            "RISC-V RV64IMAFDC, QEMU's machine virt and Spike",
            8,
            "-march=rv64imafdc_zicsr",
            "-mabi=lp64d",
        ),
        # gcc 12 compiles what has no vectors; `fptt.device.kernels` names the compiler of the rest
        _riscv(
            "rv64gcv",
            "RISC-V RV64GC with vectors (RVV 1.0, any length), QEMU's machine virt and Spike",
            8,
            "-march=rv64imafdc_zicsr",
            "-mabi=lp64d",
        ),
        # with _zicsr the compiler would choose libraries without floating point
        _riscv(
            "rv32",
            "RISC-V RV32IMAFC, QEMU's machine virt",
            4,
            "-march=rv32imafc",
            "-mabi=ilp32f",
        ),
        _cortex_m(
            "cortex-m4",
            "Arm Cortex-M4F, MPS2 board with AN386",
            Region("FLASH", 0x00000000, 4 * _MIB),
            (
                Region("RAM", 0x20000000, 4 * _MIB),
                Region("PSRAM", 0x21000000, 16 * _MIB),
            ),
            "-mcpu=cortex-m4",
            "-mfpu=fpv4-sp-d16",
        ),
        _cortex_m(
            "cortex-m55",
            "Arm Cortex-M55 with Helium, MPS3 board with AN547",
            Region("FLASH", 0x00000000, 512 * _KIB),
            (
                Region("RAM", 0x20000000, 512 * _KIB),
                Region("DDR", 0x60000000, 256 * _MIB),
            ),
            "-mcpu=cortex-m55",
        ),
        Target(
            name="posix",
            description="a process on this computer",
            compilers=("cc", "gcc", "clang"),
            packages=("build-essential",),
            prefix="",
            cflags=(),
            ldflags=(),
            port=("posix/port.c",),
            headers=("port.h",),
            scripts=(),
            root="main",
            pointer_bytes=8,
            flash=None,
            rams=(),
        ),
    )
}


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        InputError: there is none.
    """
    if name not in TARGETS:
        raise InputError(f"no target {name!r}; there are: {', '.join(TARGETS)}")
    return TARGETS[name]
