"""Training programs on devices: what is known of each target, and how its programs are run."""

from fptt.device.build import build_elf
from fptt.device.elf import Elf, read_elf
from fptt.device.emulator import EMULATORS, Console, Emulator
from fptt.device.stack import StackBound, stack_bound
from fptt.device.targets import TARGETS, Region, Target

__all__ = [
    "EMULATORS",
    "TARGETS",
    "Console",
    "Elf",
    "Emulator",
    "Region",
    "StackBound",
    "Target",
    "build_elf",
    "read_elf",
    "stack_bound",
]
