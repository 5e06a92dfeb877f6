"""Where every buffer lies: byte-exact offsets in one arena, and the memory table.

Buffers that persist get places of their own at the start of the arena, what is learnt before the
rest, so that one block of bytes holds the whole state of learning. The others may share: two
of them may overlap when no moment of training needs both. Moments are the operations in the order
of a part (forward, loss, backward, update, carry); a loop is one moment as a whole, because its
steps repeat. Inference runs between parts and forms a second, separate timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fptt.program.ir import INFERENCE, PART, SEQUENCE_START, Buffer, Loop, Role, Routine

#: every buffer starts at a multiple of this, which suits the vector loads of all targets
ALIGNMENT = 16
#: and those of at least LARGE bytes at the start of a cache line, so that no vector lies across two
CACHE_LINE, LARGE = 64, 1024

#: as in runtime/include/fptt.h, for the kernel `gradient_update`; the engine compares them
TILE_ROWS, TILE_COLUMNS = 256, 64

#: roles whose contents are the state of learning
LEARNED = frozenset({Role.PARAMETER, Role.RULE_STATE, Role.OPTIMIZER_STATE})

#: routines in the order of one part; those of a list are alive together
_TIMELINES = (
    ("start", "reset", *SEQUENCE_START, PART[0], "readout", *PART[1:], "end_epoch"),
    INFERENCE,
)


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes.

    Attributes:
        offsets: of every buffer in the arena; frozen buffers have theirs in the constant data.
        arena_bytes: size of the arena.
        learned_bytes: the arena's first bytes, which hold parameters, rule and optimizer state.
        const_bytes: size of the constant data (frozen parameters).
    """

    offsets: Mapping[str, int]
    arena_bytes: int
    learned_bytes: int
    const_bytes: int


@dataclass(frozen=True)
class Memory:
    """The memory table.

    Attributes:
        categories: bytes by role, every buffer at its own size.
        shared_bytes: what is saved because buffers that are never needed at once share a place.
        alignment_bytes: gaps between buffers.
        arena_bytes: what training needs: the sum of the categories without `frozen`, less
            shared_bytes, plus alignment_bytes.
        const_bytes: constant data (frozen parameters), with its gaps.
        total_bytes: arena_bytes + const_bytes.
    """

    categories: Mapping[str, int]
    shared_bytes: int
    alignment_bytes: int
    arena_bytes: int
    const_bytes: int

    @property
    def total_bytes(self) -> int:
        """Arena and constant data together."""
        return self.arena_bytes + self.const_bytes


def _aligned(offset: int, size: int = 0) -> int:
    """The next place where a buffer of this size may start."""
    step = CACHE_LINE if size >= LARGE else ALIGNMENT
    return -(-offset // step) * step


def lifetimes(routines: Mapping[str, Routine]) -> dict[str, set[tuple[int, int]]]:
    """For every buffer, the moments (timeline, number) at which its place is in use.

    Between its first and its last use in a timeline a buffer is in use all the time.
    """
    moments: dict[str, set[tuple[int, int]]] = {}
    for timeline, names in enumerate(_TIMELINES):
        clock = 0
        first_last: dict[str, list[int]] = {}
        for name in names:
            for item in routines[name].body if name in routines else ():
                clock += 1
                for op in item.body if isinstance(item, Loop) else (item,):
                    for ref in op.refs:
                        first_last.setdefault(ref.buffer.name, [clock, clock])[1] = clock
            if name == "backward":
                # what a loss learns by itself is learnt, on a device, once the part is known to be
                # sound; on the host at once
                for op, _ in routines["loss"].ops() if "loss" in routines else ():
                    if any(ref.buffer.role in LEARNED for ref in op.outputs if ref):
                        for touched in op.inputs:
                            if touched is not None:
                                first_last[touched.buffer.name][1] = clock
            if name == PART[-1] and "loss" in first_last:
                first_last["loss"][1] = clock  # whoever drives the program may read it until then
        for buffer, (low, high) in first_last.items():
            moments.setdefault(buffer, set()).update((timeline, t) for t in range(low, high + 1))
    return moments


def plan(buffers: Iterable[Buffer], routines: Mapping[str, Routine]) -> Plan:
    """Lays the buffers out, the persistent ones first, the largest of the others first."""
    buffers = list(buffers)
    offsets: dict[str, int] = {}
    const = arena = learned = 0
    # the largest first: what follows a small one would have to skip to the next cache line
    for buffer in sorted(buffers, key=lambda b: (b.role not in LEARNED, -b.bytes)):
        if buffer.role == Role.FROZEN:
            offsets[buffer.name] = _aligned(const, buffer.bytes)
            const = offsets[buffer.name] + buffer.bytes
        elif buffer.persistent:
            offsets[buffer.name] = _aligned(arena, buffer.bytes)
            arena = offsets[buffer.name] + buffer.bytes
            learned = arena if buffer.role in LEARNED else learned
    own = arena
    alive = lifetimes(routines)
    placed: list[Buffer] = []
    passing = [b for b in buffers if b.role != Role.FROZEN and not b.persistent]
    for buffer in sorted(passing, key=lambda b: -b.bytes):
        offset = _aligned(own, buffer.bytes)
        in_the_way = sorted(
            (offsets[other.name], other.bytes)
            for other in placed
            if alive.get(buffer.name, set()) & alive.get(other.name, set())
        )
        for low, size in in_the_way:
            if offset + buffer.bytes <= low:
                break
            offset = max(offset, _aligned(low + size, buffer.bytes))
        offsets[buffer.name] = offset
        arena = max(arena, offset + buffer.bytes)
        placed.append(buffer)
    return Plan(offsets, _aligned(arena), _aligned(learned), _aligned(const))


def memory_table(buffers: Iterable[Buffer], planned: Plan) -> Memory:
    """The bytes of all buffers by category, and how they add up to the arena."""
    buffers = list(buffers)
    categories = {role.value: 0 for role in Role}
    for buffer in buffers:
        for role, size in buffer.bytes_by_role().items():
            categories[role.value] += size
    spans = sorted(
        (planned.offsets[b.name], planned.offsets[b.name] + b.bytes)
        for b in buffers
        if b.role != Role.FROZEN
    )
    covered = end = 0
    for low, high in spans:
        covered += max(0, high - max(low, end))
        end = max(end, high)
    in_arena = sum(categories.values()) - categories[Role.FROZEN]
    return Memory(
        categories,
        in_arena - covered,
        planned.arena_bytes - covered,
        planned.arena_bytes,
        planned.const_bytes,
    )
