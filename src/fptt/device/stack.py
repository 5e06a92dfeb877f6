"""A bound of the stack, from what the compiler says of every function and whom it calls.

gcc writes both with `-fcallgraph-info=su`; clang only the functions' own frames (`-fstack-usage`).
The bound is the dearest path from a root through the graph of calls. What the emulator measures
(`fptt_port_stack_used`) must stay below it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fptt.errors import FpttError

#: for functions that came compiled (memcpy, arithmetic that the processor lacks), each a leaf
LIBRARY_BYTES = 256
#: functions in assembly that use none (runtime/ports)
_NO_STACK = ("fptt_semihost", "fptt_probe")

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "((?:[^"\\]|\\.)*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_FRAME = re.compile(r"(\d+) bytes \(([a-z,]+)\)")
_INDIRECT = "__indirect_call"


@dataclass(frozen=True)
class StackBound:
    """What the stack takes at most.

    Attributes:
        bytes: the bound.
        path: the functions of the dearest path, the root first.
        assumed: functions without information, taken as `LIBRARY_BYTES` each.
    """

    bytes: int
    path: tuple[str, ...]
    assumed: tuple[str, ...]


def stack_bound(files: Iterable[Path], root: str = "main") -> StackBound:
    """The most that `root` and all that it calls can hold on the stack at a time.

    Args:
        files: call graphs of gcc (`.ci`), and frames of clang (`.su`), taken as leaves.
        root: the function that everything starts with.

    Raises:
        FpttError: there is no bound: recursion, a call through a pointer, or a frame whose size
            is only known when it runs; or `root` is in no file.
    """
    frames = dict.fromkeys(_NO_STACK, 0)
    calls: dict[str, set[str]] = {}
    for file in files:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        if Path(file).suffix == ".su":
            for line in text.splitlines():
                where, size, kind = line.split("\t")
                _frame(frames, where.rsplit(":", 1)[-1], int(size), kind)
            continue
        for title, label in _NODE.findall(text):
            found = _FRAME.search(label)
            if found:
                _frame(frames, title, int(found[1]), found[2])
        for caller, callee in _EDGE.findall(text):
            calls.setdefault(caller, set()).add(callee)
    if root not in frames:
        raise FpttError(f"no bound of the stack: no file tells of {root}")

    bounds: dict[str, tuple[int, tuple[str, ...]]] = {}
    assumed: set[str] = set()

    def bound(name: str, above: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise FpttError(f"no bound of the stack: {circle}")
        if name == _INDIRECT:
            raise FpttError(f"no bound of the stack: {above[-1]} calls through a pointer")
        if name not in frames:
            assumed.add(name)
            return LIBRARY_BYTES, (name,)
        if name not in bounds:
            below = [bound(callee, (*above, name)) for callee in sorted(calls.get(name, ()))]
            deepest = max(below, default=(0, ()), key=lambda pair: pair[0])
            bounds[name] = frames[name] + deepest[0], (name, *deepest[1])
        return bounds[name]

    total, path = bound(root, ())
    return StackBound(total, path, tuple(sorted(assumed)))


def _frame(frames: dict[str, int], name: str, size: int, kind: str) -> None:
    # "dynamic,bounded" is an aligned frame: its size already has the room for that
    if kind == "dynamic":
        raise FpttError(f"no bound of the stack: the frame of {name} is only known at run time")
    # two static functions of one name in two files: the larger one
    frames[name] = max(size, frames.get(name, 0))
