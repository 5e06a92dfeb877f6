"""The README of an exported folder."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from fptt.device.emulator import EMULATORS
from fptt.device.footprint import Footprint, saved_state

if TYPE_CHECKING:
    from fptt.device.targets import Target
    from fptt.program.program import Program


def readme(program: Program, target: Target, name: str, size: Footprint, stack: int) -> str:
    """What stands in the folder, what it takes, and how to use it."""
    upper = name.upper()
    parts = [
        f"# {program.net}, learning on {target.name}",
        (
            "A recurrent network that goes on learning where it runs, written by `fptt export` "
            f"for {target.name} ({target.description}). The folder is complete: it needs a C11 "
            "compiler and nothing else, no operating system, no heap, no C library but `memcpy`, "
            "`memmove`, `memset` and `memcmp`."
        ),
        (
            f"It learns by {_rule(program)}. A sequence has {program.steps} steps in "
            f"{program.rule.parts} part{'s' * (program.rule.parts > 1)} of {_lengths(program)}; at "
            "the end of each part it learns. "
            f"{_batch(program)}"
        ),
        "## Build and try it",
        _needs(target),
        "```sh\nmake\n```",
        (
            "compiles everything and links the example `main.c`, which learns one made-up sequence "
            "and prints its loss:"
        ),
        _start(target),
        _memory(program, size, stack),
        _use(program, name, upper),
        _flash(program, name, upper),
        _own_board(target, name),
        _files(target, name),
    ]
    return "\n\n".join(_filled(part) for part in parts) + "\n"


def _filled(text: str) -> str:
    """Prose on lines of one width; headings, tables and code as they are."""
    blocks = text.split("\n\n")
    code = False
    for number, block in enumerate(blocks):
        code ^= block.count("```") % 2 == 1
        if not (code or "```" in block or block.startswith(("#", "|"))):
            blocks[number] = textwrap.fill(
                block, 96, break_long_words=False, break_on_hyphens=False
            )
    return "\n\n".join(blocks)


def _rule(program: Program) -> str:
    """The rule and the optimizer in words."""
    rule, optimizer = program.rule, program.optimizer
    words = type(rule).__name__
    if getattr(rule, "regularise", False):
        words += f" (alpha {rule.alpha:g}, beta {rule.beta:g})"  # type: ignore[attr-defined]
    words += f" with {type(optimizer).__name__}, learning rate {optimizer.lr:g}"
    if getattr(optimizer, "momentum", 0):
        words += f", momentum {optimizer.momentum:g}"  # type: ignore[attr-defined]
    return words


def _lengths(program: Program) -> str:
    """How many steps the parts have."""
    lengths = sorted({high - low for low, high in program.bounds})
    text = " or ".join(map(str, lengths))
    return f"{text} step{'s' * (lengths[-1] > 1)}"


def _batch(program: Program) -> str:
    if program.batch == 1:
        return "Sequences come one at a time."
    return f"{program.batch} sequences are learnt from together, step by step."


def _needs(target: Target) -> str:
    return (
        f"The Makefile calls `{target.compilers[0]}`; on Debian and Ubuntu it comes with "
        f"`apt-get install {' '.join(target.packages)}`."
    )


def command(target: Target) -> str | None:
    """The command that runs main.elf under the first emulator of a target."""
    for emulator in EMULATORS.values():
        if emulator.runs(target.name) and emulator.program:
            options = [option.format(vlen=128) for option in emulator.options]
            return shlex.join([emulator.program, *options, "main.elf"])
    return None


def _start(target: Target) -> str:
    found = command(target)
    if found is None:
        return "```sh\n./main.elf\n```"
    return f"```sh\n{found}\n```"


def _memory(program: Program, size: Footprint, stack: int) -> str:
    memory = program.memory()
    rows = [
        (role.replace("_", " "), count)
        for role, count in memory.categories.items()
        if count and role != "frozen"
    ]
    if memory.shared_bytes:
        rows.append(("shared: places used twice, at different times", -memory.shared_bytes))
    if memory.alignment_bytes:
        rows.append(("gaps between buffers", memory.alignment_bytes))
    lines = [
        "## Memory",
        "",
        "| RAM | bytes |",
        "|---|---:|",
        *(f"| {label} | {count:,} |" for label, count in rows),
        f"| **the arena** | **{size.arena:,}** |",
        f"| the handle | {size.handle:,} |",
        f"| stack, at most | {stack:,} |",
        "",
        "| Flash | bytes |",
        "|---|---:|",
        f"| weights that do not train, read where they lie | {size.frozen:,} |",
        f"| first values of those that train, for start and rollback | {size.factory:,} |",
        "",
        "Arena, handle and weights are exact: the code asserts them. The library keeps no other "
        "static data. Code comes on top; after `make`, `size` says how much. The stack is a bound "
        "over all models that were measured under emulation.",
    ]
    return "\n".join(lines)


def _use(program: Program, name: str, upper: str) -> str:
    label = program.buffers["target"].dtype == "int32"
    token = program.buffers["input"].dtype == "int32"
    x = f"int32_t x[{upper}_BATCH]" if token else f"float x[{upper}_BATCH * {upper}_INPUTS]"
    y = (
        f"int32_t label[{upper}_BATCH]"
        if label
        else f"float target[{upper}_BATCH * {upper}_OUTPUTS]"
    )
    when = "at each step" if program.schedule.every_step else "at the last step of a part"
    return f"""\
## Use it

```c
#include "{name}.h"

static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned(16)));
static {name}_t m;

fptt_status status = {name}_init(&m, arena, sizeof arena);

{name}_begin_sequence(&m);
/* for every step: */
{x};
{name}_observe(&m, x);                      /* no target known, or: */
{y};
{name}_observe_labelled(&m, x, {"label" if label else "target"});

float out[{upper}_BATCH * {upper}_OUTPUTS];
{name}_predict(&m, out);                    /* of the last step */
```

A target counts {when}; a part that gets none only carries the state on. Learning is switched by
`{name}_learning(&m, 0)` and `(&m, 1)`. When the loss, the update or the state stops being finite,
or the loss passes `m.learner.loss_limit`, the call says so (`fptt_status_text`), what was learnt
before stays, and learning is off until you switch it on again. `{name}_rollback(&m)` brings the
factory weights back from any state. `{name}.h` and `fptt/fptt_learner.h` explain every call."""


def _flash(program: Program, name: str, upper: str) -> str:
    saved = saved_state(program)
    return f"""\
## Keep what it learnt

Fill in an `fptt_flash` (`fptt/fptt_flash.h`): the sizes of its area, of an erase block and of the
smallest write, and three functions that read, write and erase. Then

```c
{name}_save(&m, &flash, FPTT_SAVE_FULL);     /* between two parts */
{name}_restore(&m, &flash, FPTT_SAVE_FULL);  /* after a reset: learning goes on, bit by bit */
```

keeps two snapshots in turn, each with checksums and a number: whenever the power fails, one of
them is complete. `FPTT_SAVE_FULL` holds {saved.full:,} bytes: weights, what the rule and the
optimizer remember, the recurrent state and the position. `FPTT_SAVE_WEIGHTS` holds
{saved.weights:,} bytes.
`FPTT_FLASH_AREA_BYTES({upper}_FULL_BYTES, erase_bytes, write_bytes)` is the flash that both slots
take."""


def _own_board(target: Target, name: str) -> str:
    if not target.scripts:
        return (
            "## In your own project\n\n"
            f"`make library` builds `lib{name}.a`; include `{name}.h` and link it. The header is "
            "for C and C++."
        )
    return f"""\
## On your own board

`port/` starts the emulated board and prints through its debugger. On your own hardware take what
you have: `make library` builds `lib{name}.a`, which needs no port at all, or add `{name}.c` and
`fptt/*.c` to your project with the flags that stand beside each file in the Makefile (they decide
how numbers round). The header is for C and C++."""


def _files(target: Target, name: str) -> str:
    emulators = [e.name for e in EMULATORS.values() if e.runs(target.name)]
    return f"""\
## What is what

| | |
|---|---|
| `{name}.h` | the interface, with all sizes |
| `{name}.c` | the training program: one function for each routine |
| `{name}_weights.h` | the weights |
| `main.c` | the example |
| `fptt/` | the run time, as far as this model needs it |
| `port/` | start-up and console of the example |
| `firmware.json`, `host.npz` | for `fptt run` |

Where fptt is installed, `fptt run . --on {emulators[0]}` trains this model under emulation and on
the computer, and compares every number."""
