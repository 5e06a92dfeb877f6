"""Drawn programs: their memory is planned soundly, and the interpreter keeps to the plan."""

import re

import numpy as np
import pytest
from cases import assert_bits_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import cases, examples, random_batch, trainer_on
from tracing import TracingInterpreter, largest_live_set

import fptt
from fptt.program.ir import PERSISTENT, Role
from fptt.program.plan import LEARNED
from fptt.program.verify import verify
from fptt.reference.interpreter import Interpreter

CANARY = 0xA5
#: as bytes of any float dtype: a signalling pattern of NaN, and an enormous number
GARBAGE = (0xFF, 0x7B)


def spans(program):
    """(first byte, byte after the last, name) of everything in the arena, in order."""
    offsets = program.plan.offsets
    return sorted(
        (offsets[b.name], offsets[b.name] + b.bytes, b.name)
        for b in program.buffers.values()
        if b.role != Role.FROZEN
    )


def gaps(program):
    """Mask of the arena's bytes that belong to no buffer."""
    free = np.ones(program.plan.arena_bytes, bool)
    for low, high, _ in spans(program):
        free[low:high] = False
    return free


@settings(max_examples=examples(60))
@given(cases(sources=True))
def test_verify_passes_again_and_the_memory_table_adds_up(case):
    program = case.program
    verify(program)
    memory = program.memory()
    own = {role.value: 0 for role in Role}
    for buffer in program.buffers.values():
        item = {"float64": 8, "bfloat16": 2}.get(buffer.dtype, 4)
        one_slot = item * int(np.prod(buffer.shape)) // max(buffer.lead + buffer.steps, 1)
        own["carry"] += one_slot * buffer.lead
        own[buffer.role] += one_slot * max(buffer.steps, 1)
    assert memory.categories == own
    frozen = memory.categories["frozen"]
    assert (
        sum(memory.categories.values()) - frozen - memory.shared_bytes + (memory.alignment_bytes)
        == memory.arena_bytes
    )
    assert memory.alignment_bytes == gaps(program).sum()
    assert memory.shared_bytes >= 0
    assert memory.total_bytes == memory.arena_bytes + memory.const_bytes
    assert frozen <= memory.const_bytes < frozen + 16 * (len(program.buffers) + 1)
    ends = [high for _, high, _ in spans(program)]
    assert 0 <= memory.arena_bytes - max(ends) < 16
    assert all(low % 16 == 0 for low, _, _ in spans(program))
    learned = [span for span in spans(program) if program.buffers[span[2]].role in LEARNED]
    others = [span for span in spans(program) if program.buffers[span[2]].role not in LEARNED]
    assert max(high for _, high, _ in learned) <= program.plan.learned_bytes
    assert min((low for low, _, _ in others), default=10**9) >= program.plan.learned_bytes


@settings(max_examples=examples(60))
@given(cases(sources=True))
def test_nothing_is_clobbered_and_the_peak_holds_the_largest_live_set(case):
    """See TracingInterpreter for what is checked at every executed operation."""
    memory = TracingInterpreter(case.program)
    trainer = case.trainer(memory)
    case.train(trainer)
    kept = {b.name for b in case.program.buffers.values() if b.role in LEARNED}
    live = largest_live_set(memory.log, kept)
    assert live <= case.program.plan.arena_bytes
    assert live >= sum(case.program.buffers[name].bytes for name in kept)


class LossWatcher(Interpreter):
    """Notes the loss when it is computed, and again when the part is over."""

    def __init__(self, program):
        super().__init__(program)
        self.noted, self.found = [], []

    def run(self, routine, frame, step=None):
        super().run(routine, frame, step)
        if routine == "loss":
            self.noted.append(self.read("loss")[0])
        if routine == "carry" and len(self.noted) > len(self.found):
            self.found.append(self.read("loss")[0])


@settings(max_examples=examples(40))
@given(cases(sources=True))
def test_the_loss_outlives_the_part(case):
    """The driver may read it at any moment up to the end of `carry`."""
    memory = LossWatcher(case.program)
    case.train(case.trainer(memory))
    assert memory.found == memory.noted


@settings(max_examples=examples(40))
@given(cases(sources=True))
def test_streams_clobber_nothing_either(case):
    """Streaming runs `readout` between the steps of `forward`."""
    trainer = case.trainer(TracingInterpreter(case.program))
    plain = case.trainer()
    every = case.program.schedule.every_step
    for t in range(case.x.shape[1]):
        target = case.y[:, t] if every else case.y
        for each in (trainer, plain):
            each.step(case.x[:, t], target=target)
    for each in (trainer, plain):
        each.end_sequence()
    assert_bits_equal(trainer.parameters(), plain.parameters(), "parameters")


@settings(max_examples=examples(40))
@given(cases(sources=True))
def test_memory_outside_the_plan_stays_untouched(case):
    """Canaries before and after the arena and in every gap between buffers."""
    program, margin = case.program, 64
    ground = np.full(program.plan.arena_bytes + 2 * margin, CANARY, np.uint8)
    arena = ground[margin:-margin]
    arena[~gaps(program)] = 0
    trainer = case.trainer(Interpreter(program, arena=arena))
    plain = case.trainer()
    assert case.train(trainer) == pytest.approx(case.train(plain), nan_ok=True, abs=0, rel=0)
    assert (ground[:margin] == CANARY).all() and (ground[-margin:] == CANARY).all()
    assert (arena[gaps(program)] == CANARY).all()
    assert_bits_equal(trainer.parameters(), plain.parameters(), "parameters")
    assert_bits_equal(trainer.state(), plain.state(), "state")


class PoisonedInterpreter(Interpreter):
    """Before every part, fills all that a part may not rely on with garbage."""

    def __init__(self, program, garbage):
        super().__init__(program)
        self.garbage = garbage
        self.passing = np.ones(program.plan.arena_bytes, bool)
        for buffer in program.buffers.values():
            low = program.plan.offsets[buffer.name]
            if buffer.role in PERSISTENT:
                self.passing[low : low + buffer.bytes] = False
            elif buffer.lead:  # the carried slot stays, the steps do not
                slot = buffer.bytes // (buffer.lead + buffer.steps)
                self.passing[low : low + buffer.lead * slot] = False

    def write(self, name, values, step=None):
        if name in ("input", "target", "fraction") and not step:
            # rows and steps that the driver does not give
            self._views[name].view(np.uint8)[...] = self.garbage
        super().write(name, values, step)

    def run(self, routine, frame, step=None):
        if routine == "forward" and step in (None, 0):
            self.arena[self.passing] = self.garbage
        super().run(routine, frame, step)


@pytest.mark.parametrize("garbage", GARBAGE, ids=["NaN", "huge"])
@settings(max_examples=examples(40))
@given(case=cases(sources=True))
def test_a_part_relies_on_nothing_that_does_not_persist(garbage, case):
    poisoned, plain = case.trainer(PoisonedInterpreter(case.program, garbage)), case.trainer()
    assert case.train(poisoned) == pytest.approx(case.train(plain), nan_ok=True, abs=0, rel=0)
    assert_bits_equal(poisoned.parameters(), plain.parameters(), "parameters")
    assert_bits_equal(poisoned.state(), plain.state(), "state")
    assert np.array_equal(poisoned.predict(case.x), plain.predict(case.x))


@settings(max_examples=examples(250))
@given(
    cases(dtypes=("float64",), rule=fptt.BPTT(), optimizer=fptt.SGD(lr=0.0), spikes=False),
    st.randoms(),
)
def test_gradients_of_drawn_networks_are_central_differences(case, random):
    """Of any stack, dropout included, for whatever parameters train; K = 1 and lr = 0."""
    trainer, seed = case.trainer(), np.array([3, 5], np.uint32)
    dropout = "random" in case.program.buffers

    def at_the_same_masks(compute):
        if dropout:
            trainer.backend.write("random", seed)
        return compute(case.x, case.y, case.lengths)

    theta = trainer.parameters()
    # biases that are 0, and equal weights, would leave values on the kink of ReLU
    theta = {name: value + random.uniform(0.01, 0.02) for name, value in theta.items()}
    trainer.load_parameters(theta)
    (gradients,) = at_the_same_masks(trainer.part_gradients)
    if gradients is None:
        return
    assert set(gradients) == set(case.program.trained)
    for name, gradient in gradients.items():
        for flat in random.sample(range(gradient.size), min(2, gradient.size)):
            slopes = []
            for step in (1e-5, 2e-5):
                losses = []
                for sign in (1, -1):
                    moved = {k: v.copy() for k, v in theta.items()}
                    moved[name].flat[flat] += sign * step
                    trainer.load_parameters(moved)
                    losses.append(at_the_same_masks(trainer.train_batch))
                slopes.append((losses[0] - losses[1]) / (2 * step))
            if slopes[0] == pytest.approx(slopes[1], rel=1e-4, abs=1e-7):  # no kink between
                assert gradient.flat[flat] == pytest.approx(slopes[0], rel=1e-4, abs=1e-7), name


@settings(max_examples=examples(20))
@given(cases(sources=True))
def test_an_arena_of_one_byte_less_is_refused(case):
    needed = case.program.plan.arena_bytes
    Interpreter(case.program, arena=np.zeros(needed, np.uint8))
    message = f"the arena has {needed - 1} bytes; the program needs {needed}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Interpreter(case.program, arena=np.zeros(needed - 1, np.uint8))


def test_frozen_weights_lie_outside_the_arena():
    """Freezing moves bytes from the arena to the constant data and drops their state."""
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    whole, part = (
        fptt.build(net, fptt.FPTT(parts=2), fptt.Adam(), steps=5, batch=3, train=train)
        for train in (("*",), ("1.*",))
    )
    body = 4 * (4 * 5 * (3 + 5 + 1))
    assert part.memory().const_bytes == body
    assert part.memory().categories["frozen"] == body
    assert whole.memory().categories["parameter"] - part.memory().categories["parameter"] == body
    # lambda, running mean; Adam's moments; gradient
    assert whole.memory().categories["rule_state"] - part.memory().categories["rule_state"] == (
        2 * body
    )
    assert part.memory().arena_bytes < whole.memory().arena_bytes - 5 * body
    trainer = trainer_on(part)
    before = trainer.parameters()
    x, y = random_batch(part, 3, 5, 1)
    trainer.train_batch(x, y)
    for name, value in trainer.parameters().items():
        assert np.array_equal(value, before[name]) == name.startswith("0."), name
