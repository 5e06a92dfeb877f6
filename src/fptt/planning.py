"""Memory and work of training before anything runs: sweeps over K, and the seeds' estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fptt.nets import LSTM, Linear, Network
from fptt.program import Program, build
from fptt.program.ir import Role
from fptt.program.ops import Work
from fptt.program.plan import ALIGNMENT, CACHE_LINE, LARGE
from fptt.published import SEEDS_IMAGES, SEEDS_MEMORY, SEEDS_WORK
from fptt.rules import FPTT, SGD, Optimizer, Rule


@dataclass(frozen=True)
class PlanRow:
    """What training with one K costs.

    Attributes:
        rule: "FPTT", "TBPTT" or "BPTT".
        source: where its gradients come from: "bptt", "rtrl", ...
        parts: K.
        part_steps: steps of the longest part.
        recompute: whether the backward pass computes gates again.
        memory_bytes: by category (see `fptt.program.plan.Memory`), with "shared" (negative) and
            "alignment", so that all of them add up to total_bytes.
        arena_bytes, total_bytes: what must be provided.
        work: of one pass over a full batch, by function class.
    """

    rule: str
    source: str
    parts: int
    part_steps: int
    recompute: bool
    memory_bytes: Mapping[str, int]
    arena_bytes: int
    total_bytes: int
    work: Mapping[str, Work]

    def as_json(self) -> dict[str, Any]:
        """Plain data: the attributes by their names."""
        return {
            "rule": self.rule,
            "source": self.source,
            "parts": self.parts,
            "part_steps": self.part_steps,
            "recompute": self.recompute,
            "memory_bytes": dict(self.memory_bytes),
            "arena_bytes": self.arena_bytes,
            "total_bytes": self.total_bytes,
            "work": {name: vars(work) for name, work in self.work.items()},
        }


def plan_row(program: Program) -> PlanRow:
    """The costs of a program.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
        >>> row = plan_row(fptt.build(net, fptt.FPTT(parts=28), steps=784, batch=4))
        >>> sum(row.memory_bytes.values()) == row.total_bytes
        True
    """
    memory = program.memory()
    const_gaps = memory.const_bytes - memory.categories[Role.FROZEN]
    return PlanRow(
        rule=type(program.rule).__name__,
        source=program.rule.source,
        parts=program.rule.parts,
        part_steps=program.part_steps,
        recompute=program.recompute,
        memory_bytes={
            **memory.categories,
            "shared": -memory.shared_bytes,
            "alignment": memory.alignment_bytes + const_gaps,
        },
        arena_bytes=memory.arena_bytes,
        total_bytes=memory.total_bytes,
        work=program.work().by_function(),
    )


def sweep(
    net: Network, rules: Sequence[Rule], optimizer: Optimizer | None = None, **options: Any
) -> list[PlanRow]:
    """The costs of the same network under several rules; options as in `fptt.build`."""
    return [plan_row(build(net, rule, optimizer, **options)) for rule in rules]


#: the blocks for which the seeds give operations and time, and the routines of each
BLOCKS = {
    "FPTT logic": ("update",),
    "forward": ("begin_sequence", "next_sequence", "forward", "loss", "carry"),
    "backward": ("backward",),
}


# -- the seeds' configuration ----------------------------------------------------------------


@dataclass(frozen=True)
class MemoryComparison:
    """One row: the seeds' figure, ours, and why they differ."""

    name: str
    printed: str
    formula_bytes: int
    ours_bytes: int
    why: str


@dataclass(frozen=True)
class WorkComparison:
    """One row, in units of 1e9 operations per epoch: the seeds' figures, ours, and why."""

    block: str
    seeds: tuple[float, float, float]
    ours: tuple[float, float, float]
    why: str


def seeds_program() -> Program:
    """The seeds' configuration: 1-128-10, T = 784, K = 28, batch 100, float32, plain SGD."""
    net = Network([LSTM(1, 128), Linear(128, 10)])
    return build(net, FPTT(parts=28), SGD(lr=0.01), steps=784, batch=100)


def seeds_memory(program: Program) -> list[MemoryComparison]:
    """Our bytes beside the seeds' estimate; the rows add up to the arena."""
    memory = program.memory()
    categories = memory.categories
    wrapped = {
        kind: sum(b.bytes for b in program.buffers.values() if b.name.startswith(kind))
        for kind in ("lambda/", "mean/")
    }
    ours = {
        "parameters": (
            categories["parameter"],
            "their formula adds 1 per gate beside the biases: 4 numbers too many",
        ),
        "lambda": (wrapped["lambda/"], "the same 4 numbers"),
        "running mean": (wrapped["mean/"], "the same 4 numbers"),
        "gradients": (
            categories["gradient"],
            "ours are applied piece by piece as they are finished, and never lie in memory as a "
            "whole",
        ),
        "input": (categories["input"], "28*100*4 is 11,200; 400 B is a slip"),
        "label": (
            categories["target"],
            "they add one row of 10 one-hot labels; ours reads the class number",
        ),
        "network states": (
            categories["activation"],
            "the same 6 H per step and sample (four gates, c, h); they keep logits and "
            "probabilities of every step, ours has logits once, at the end of a part, where the "
            "loss is",
        ),
        "forward scratch": (0, "the sums before the gates' functions lie where the gates will be"),
        "backward scratch": (
            categories["scratch"],
            "they keep every sample's readout gradient; ours adds up in place and keeps dh, dc "
            "[100, 128], the loss, and [128, 64] sums of a gradient that is not finished",
        ),
    }
    rows = [
        MemoryComparison(seed.name, seed.printed, seed.formula_bytes, *ours[seed.name])
        for seed in SEEDS_MEMORY
    ]
    rows += [
        MemoryComparison(
            "carried state",
            "-",
            0,
            categories["carry"],
            "h and c at the end of the part before; missing in their table",
        ),
        MemoryComparison(
            "learning rate",
            "-",
            0,
            categories["optimizer_state"],
            "one number, so that schedules can change it",
        ),
        MemoryComparison(
            "shared places",
            "-",
            0,
            -memory.shared_bytes,
            "buffers that are never needed at once lie in one place",
        ),
        MemoryComparison(
            "alignment",
            "-",
            0,
            memory.alignment_bytes,
            f"every buffer starts at a multiple of {ALIGNMENT} bytes, those of {LARGE:,} and more "
            f"at one of {CACHE_LINE}",
        ),
    ]
    return rows


def seeds_work(program: Program) -> list[WorkComparison]:
    """Our operation counts beside the seeds', for one epoch of 60,000 images."""
    table, batches = program.work(), SEEDS_IMAGES // program.batch
    layer = program.net.layers[0]
    assert isinstance(layer, LSTM)
    hidden = layer.hidden
    images_steps = SEEDS_IMAGES * program.steps
    readouts = images_steps * hidden * program.net.outputs / 1e9
    nonlinear = images_steps * 5 * hidden / 1e9
    everything = table.by_function()
    products = (everything["MatMul-1"].mul + everything["MatMul-3"].mul) * batches / 1e9
    update = table.by_function(*BLOCKS["FPTT logic"])
    # the products that gradients are run in the routine of the update that applies them
    logic = update.pop("EWO-SGD")
    blocks = {
        "FPTT logic": (
            logic,
            "ours has beta general, which costs one multiplication more than beta = "
            "1/2; per parameter and update 6 and 8 against their 5 and 8",
        ),
        "forward": (
            table.total(*BLOCKS["forward"]),
            f"they run the readout at every step ({readouts:.1f} G), ours where the loss "
            f"is; five non-linear functions per cell and step are {nonlinear:.1f} G, "
            "their 3 G is a slip by ten",
        ),
        "backward": (
            sum(update.values(), table.total(*BLOCKS["backward"])),
            f"dh (not at a part's first step) and the weight gradients are products of "
            f"{products:.1f} G; "
            "their total is below that and has no published breakdown, so it cannot "
            "hold both in full; ours computes tanh(c) again instead of keeping it, one "
            "non-linear function per cell and step",
        ),
    }
    rows = []
    for seed in SEEDS_WORK:
        work, why = blocks[seed.block]
        work *= batches
        rows.append(
            WorkComparison(
                seed.block,
                (seed.mul_g, seed.add_g, seed.nonlinear_g),
                (work.mul / 1e9, work.add / 1e9, work.trans / 1e9),
                why,
            )
        )
    return rows
