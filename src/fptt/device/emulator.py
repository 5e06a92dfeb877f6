"""Emulators, and how an ELF file is run under one.

Counting needs options: with `-icount shift=N` QEMU's machine takes 2^N ns for every instruction,
so its counters are exact and the same in every run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fptt.errors import FpttError, InputError

#: console to standard output; QEMU's own words go to standard error
_QEMU = (
    "-nographic",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-chardev",
    "stdio,id=console",
    "-semihosting-config",
    "enable=on,target=native,chardev=console",
)


@dataclass(frozen=True)
class Console:
    """What a run left.

    Attributes:
        text: all that the firmware wrote.
        exit_code: the firmware's.
        seconds: wall-clock time of the run.
        errors: what the emulator itself had to say.
    """

    text: str
    exit_code: int
    seconds: float
    errors: str


@dataclass(frozen=True)
class Emulator:
    """One way to run a target's programs.

    Attributes:
        name: as on the command line.
        target: name of the target that it runs.
        program: the command; empty where the ELF file runs by itself.
        options: its arguments before the file.
        helpers: other commands that it calls.
        install: how to get what is missing.
        vlen: whether vectors of 128 to 1024 bits can be chosen.
        also: another target whose programs it runs.
    """

    name: str
    target: str
    program: str
    options: tuple[str, ...]
    install: str
    helpers: tuple[str, ...] = ()
    vlen: bool = False
    also: str = ""

    def runs(self, target: str) -> bool:
        """Whether it runs a target's programs."""
        return target in (self.target, self.also)

    def missing(self) -> str | None:
        """The first command that is not there; None if all are."""
        for command in filter(None, (self.program, *self.helpers)):
            if _find(command) is None:
                return command
        return None

    def command(self, elf: Path, *, vlen: int = 128) -> list[str]:
        """The command line that runs a file.

        Args:
            elf: the program.
            vlen: bits of a vector register, where the processor has any.

        Raises:
            InputError: the emulator is not installed; says how to install it.

        Example:
            >>> EMULATORS["posix"].command(Path("/tmp/model"))
            ['/tmp/model']
        """
        lacking = self.missing()
        if lacking:
            raise InputError(f"{self.name} needs {lacking}, which is not here: {self.install}")
        if not self.program:
            return [str(elf.resolve())]
        program = _find(self.program)
        assert program is not None
        return [program, *(o.format(vlen=vlen) for o in self.options), str(elf)]

    def run(self, elf: Path, *, timeout: float = 600.0, vlen: int = 128) -> Console:
        """Runs a file to its end.

        Args:
            elf: the program.
            timeout: seconds after which it is killed.
            vlen: bits of a vector register, where the processor has any.

        Raises:
            InputError: the emulator, or the file, is not there.
            FpttError: no end within the time; the message holds the last that was written.
        """
        elf = Path(elf)
        if not elf.is_file():
            raise InputError(f"{elf} is not there; build it first")
        return _run(self.name, self.command(elf, vlen=vlen), timeout)


def _find(command: str) -> str | None:
    """Its path: on the path, or beside Python, where pip puts programs."""
    return shutil.which(command) or shutil.which(command, path=str(Path(sys.executable).parent))


def _run(name: str, command: Sequence[str], timeout: float) -> Console:
    start = time.perf_counter()
    # Files take all that is written at once. A full pipe would make the firmware try again, and the
    # instructions of that would be counted.
    with (
        tempfile.TemporaryFile() as text,
        tempfile.TemporaryFile() as errors,
        # a process group of its own: nothing that an emulator started stays when it is killed
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            said = (_words(text) + _words(errors)).strip()
            raise FpttError(
                f"{name}: no end after {timeout:g} s, killed. Is the file built for this target, "
                f"and is the time enough? Last words: {said[-500:] or 'none'}"
            ) from None
        except BaseException:
            _kill(process)
            raise
        return Console(
            text=_words(text),
            exit_code=process.returncode,
            seconds=time.perf_counter() - start,
            errors=_words(errors),
        )


def _words(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    # the group may have ended in between
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait()


def _qemu(
    name: str, target: str, machine: str, *options: str, vlen: bool = False, also: str = ""
) -> Emulator:
    arm = machine.startswith("mps")
    program = "qemu-system-arm" if arm else f"qemu-system-riscv{target[2:]}"
    package = "qemu-system-arm" if arm else "qemu-system-misc"
    return Emulator(
        name=name,
        target=target,
        program=program,
        options=("-machine", machine, *options, *_QEMU, "-kernel"),
        install=f"on Debian and Ubuntu, apt-get install {package}",
        vlen=vlen,
        also=also,
    )


#: every emulator by name
EMULATORS: dict[str, Emulator] = {
    emulator.name: emulator
    for emulator in (
        _qemu(
            "qemu-rv64",
            "rv64",
            "virt",
            "-bios",
            "none",
            "-cpu",
            "rv64,v=true,vext_spec=v1.0,vlen={vlen}",
            # one instruction a nanosecond: what QEMU's minstret counts
            "-icount",
            "shift=0",
            vlen=True,
            also="rv64gcv",
        ),
        _qemu("qemu-rv32", "rv32", "virt", "-bios", "none", "-icount", "shift=0"),
        # 64 ns an instruction: more than a tick of the counter in runtime/ports/cortex-m/port.c
        _qemu("qemu-cortex-m4", "cortex-m4", "mps2-an386", "-icount", "shift=6"),
        _qemu("qemu-cortex-m55", "cortex-m55", "mps3-an547", "-icount", "shift=6"),
        Emulator(
            name="spike-rv64",
            target="rv64",
            program="spike",
            options=("--isa=rv64imafdcv_zicntr_zvl{vlen}b",),
            install="pip install spike, and on Debian and Ubuntu apt-get install "
            "device-tree-compiler",
            helpers=("dtc",),
            vlen=True,
            also="rv64gcv",
        ),
        Emulator(name="posix", target="posix", program="", options=(), install=""),
    )
}


def emulator(name: str) -> Emulator:
    """The emulator of that name.

    Raises:
        InputError: there is none.
    """
    if name not in EMULATORS:
        raise InputError(f"no emulator {name!r}; there are: {', '.join(EMULATORS)}")
    return EMULATORS[name]
