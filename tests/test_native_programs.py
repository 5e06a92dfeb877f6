"""Whole programs on the engine: the reference's results, and the same bits however it is driven.

Programs are drawn (see programs.py): any stack of layers, rule, loss, optimizer and types, batches
of unequal lengths, carried states. What is compared with the reference must agree to a tolerance;
what the engine computes in two ways must agree in every bit.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import OPTIMIZERS, Case, cases, examples, random_batch

import fptt
from fptt.errors import NumericalError
from fptt.native import Engine
from fptt.native._engine import lib
from fptt.native.compile import INSTRUCTION_SETS
from fptt.program.ir import PERSISTENT, Role
from fptt.reference import Interpreter
from fptt.training.batches import make_batch
from fptt.training.carry import read_carry, write_carry
from fptt.training.inference import Inference

ISAS = [name for name, number in INSTRUCTION_SETS.items() if lib.fptt_isa_runs_here(number)]
CANARY = 0xA5
FLOATS = ("float32", "bfloat16")

#: ||a - b|| / ||b|| after some 20 updates in float32. Rounding is 6e-8 a number; the factor of 300
#: is for sums, and for training, which lets differences grow. Adam divides by sqrt(v), so that
#: where a gradient is near 0 its rounding is a sizeable part of a step of length lr.
TOLERANCE, ADAM = 2e-5, 1e-3
#: in bfloat16 two results that differ in the last bit of float32 may round to numbers 2^-7 apart,
#: and from there on training goes its own way
HALF = 0.1
#: of a number of float32, the largest part of it that rounding takes or adds
ROUNDING = 2.0**-24


class PartByPart(Engine):
    """The engine, driven by Python part by part, as the reference is."""

    @property
    def train(self):
        raise AttributeError("train")


def batches(case, count):
    """The case's batch and others, with fewer rows and steps and other lengths."""
    program, rng = case.program, np.random.default_rng(len(case.x))
    found = [(case.x, case.y, case.lengths)]
    for number in range(1, count):
        rows = int(rng.integers(1, program.batch + 1))
        steps = int(rng.integers(1, program.steps + 1))
        x, y = random_batch(program, rows, steps, number)
        found.append((x, y, rng.integers(1, steps + 1, rows).tolist() if number % 2 else None))
    return found


def train(case, trainer, count=4):
    """Some batches with an end of epoch between them; the losses."""
    losses = []
    for number, batch in enumerate(batches(case, count)):
        losses.append(trainer.train_batch(*batch))
        if number == 1:
            trainer.end_epoch()
    return losses


def everything(trainer):
    """All that a trainer remembers, by name."""
    return (
        trainer.parameters()
        | trainer.state()
        | {f"carry/{name}": state for name, state in read_carry(trainer.backend).items()}
    )


def assert_same_bits(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].tobytes() == value.tobytes(), name


def lambda_carries(rule):
    """How far two lambdas may be apart because of roundings of theta and m, over |theta|.

    lambda is alpha times a sum of differences theta - m, where these cancel, and so may be small
    against their roundings. One update rounds theta once and m at most three times, in each of the
    two computations; each of these 8 enters lambda times alpha, and in m comes back to it, by a
    factor of sqrt(1 - beta) smaller an update. See the test of this below.
    """
    return 8 * ROUNDING * rule.alpha * 2 / (1 - np.sqrt(1 - rule.beta))


def assert_near(found, wanted, tolerance, rule=None):
    """Every tensor, measured on the largest of its kind: one may be rounding and nothing else.

    Of lambda with its `rule`: what it carries of theta's rounding is allowed besides.
    """
    assert set(found) == set(wanted)
    sizes: dict[str, float] = {}
    for name, value in wanted.items():
        kind = name.rpartition("/")[0]
        if value.dtype.kind == "f":
            # a state is the difference of numbers of order 1, and carries their rounding
            least = 1e-2 if kind == "carry" else 1e-3
            sizes[kind] = max(sizes.get(kind, least), float(np.linalg.norm(value.astype(float))))
    for name, value in wanted.items():
        if value.dtype.kind != "f":
            assert np.array_equal(found[name], value), name
            continue
        gap = float(np.linalg.norm(found[name].astype(float) - value.astype(float)))
        kind, _, parameter = name.rpartition("/")
        allowed = tolerance * sizes[kind]
        if kind == "lambda" and rule is not None:
            allowed += lambda_carries(rule) * float(np.linalg.norm(wanted[parameter]))
        assert gap <= allowed, f"{name}: {gap:.3g} apart, {allowed:.3g} allowed"


def tolerance_of(program):
    if "bfloat16" in (program.dtype, program.activation_dtype):
        return HALF
    return ADAM if isinstance(program.optimizer, fptt.Adam) else TOLERANCE


# -- the reference's results ---------------------------------------------------------------------


def small_lambda(alpha, seed, beta=0.25, mode="code"):
    """A case whose lambda is some 1e-3 of theta and less."""
    program = fptt.build(
        fptt.Network([fptt.LSTM(1, 2), fptt.LSTM(2, 1)]),
        fptt.FPTT(parts=2, alpha=alpha, beta=beta, mode=mode),
        fptt.SGD(lr=0.05),
        steps=2,
        criterion="mse",
    )
    return Case(program, *random_batch(program, 1, 2, seed), None)


@settings(max_examples=examples(150))
@given(cases(engine=True, dtypes=("float32",)))
@example(small_lambda(0.1, 0))  # 1.5 times apart what was allowed by the size of lambda alone,
@example(small_lambda(0.5, 19))  # and 6 times
@example(small_lambda(0.5, 1, beta=1.0))  # what only some draws have
@example(small_lambda(0.5, 1, beta=0.5, mode="paper"))
def test_equals_the_reference(case):
    """Losses, parameters, state of rule and optimizer, carried states."""
    native, reference = (case.trainer(kind(case.program)) for kind in (Engine, Interpreter))
    tolerance = tolerance_of(case.program)
    losses = train(case, reference)
    assert train(case, native) == pytest.approx(losses, rel=tolerance, abs=tolerance, nan_ok=True)
    assert_near(everything(native), everything(reference), tolerance, case.program.rule)


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS[:2], ids=["SGD", "momentum"])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_what_lambda_carries(alpha, beta, optimizer, mode):
    """Errors of 1 in theta and in m, followed through updates in which the gradient is the same."""
    rule = fptt.FPTT(parts=2, alpha=alpha, beta=beta, mode=mode)
    pull = 1.0 if mode == "code" else 0.5
    carried = []
    for theta, m in ((1.0, 0.0), (0.0, 1.0)):
        lam, velocity, seen = -alpha * theta, 0.0, 0.0
        m += beta * theta - beta / alpha * lam  # the update in which theta was rounded
        for _ in range(100):
            seen += abs(lam)
            velocity = optimizer.momentum * velocity + alpha * (theta - m) - pull * lam
            theta -= optimizer.lr * velocity
            lam = pull * lam - alpha * (theta - m)
            m = (1 - beta) * m + beta * theta - beta / alpha * lam
        carried.append(seen)
    assert ROUNDING * (2 * carried[0] + 6 * carried[1]) < lambda_carries(rule)


@settings(max_examples=examples(40))
@given(cases(engine=True, dtypes=FLOATS))
def test_equals_the_reference_in_bfloat16(case):
    native, reference = (case.trainer(kind(case.program)) for kind in (Engine, Interpreter))
    losses = train(case, reference, 2)
    assert train(case, native, 2) == pytest.approx(losses, rel=HALF, abs=HALF, nan_ok=True)


@settings(max_examples=examples(40))
@given(cases(engine=True, dtypes=("float32",)))
def test_streams_equal_the_reference(case):
    native, reference = (case.trainer(kind(case.program)) for kind in (Engine, Interpreter))
    tolerance = tolerance_of(case.program)
    every = case.program.schedule.every_step
    for t in range(case.x.shape[1]):
        target = case.y[:, t] if every else case.y
        found, wanted = (each.step(case.x[:, t], target) for each in (native, reference))
        np.testing.assert_allclose(found, wanted, rtol=10 * tolerance, atol=10 * tolerance)
    for each in (native, reference):
        each.end_sequence()
    assert_near(everything(native), everything(reference), tolerance, case.program.rule)


@settings(max_examples=examples(30))
@given(cases(engine=True, dtypes=("float32",)))
def test_inference_equals_the_reference(case):
    program, outputs = case.program, []
    for name in ("native", "reference"):
        inference = Inference(
            program.net,
            every_step=program.schedule.every_step,
            criterion=program.criterion,
            batch=3,
            backend=name,
        )
        inference.load(program.net.initial(3))
        outputs.append(inference.predict(case.x, case.lengths))
    np.testing.assert_allclose(*outputs, rtol=TOLERANCE, atol=TOLERANCE)


@settings(max_examples=examples(30))
@given(cases(engine=True, dtypes=FLOATS))
def test_part_gradients_equal_the_reference(case):
    native, reference = (case.trainer(kind(case.program)) for kind in (Engine, Interpreter))
    tolerance = tolerance_of(case.program)
    before = everything(native)
    pairs = zip(
        *(each.part_gradients(case.x, case.y, case.lengths) for each in (native, reference)),
        strict=True,
    )
    for found, wanted in pairs:
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            assert_near(found, wanted, tolerance)
    assert_same_bits(
        {k: v for k, v in everything(native).items() if k != "random"},
        {k: v for k, v in before.items() if k != "random"},
    )


ONE_PLACE = {
    # dropout below what trains, of which memory holds one step only
    "body": ([fptt.LSTM(3, 5), fptt.Dropout(0.5), fptt.LSTM(5, 5), fptt.Linear(5, 4)], "last"),
    # above: what it works on is one place for rows that end at different steps
    "head": ([fptt.LSTM(3, 5), fptt.Linear(5, 7), fptt.Dropout(0.5), fptt.Linear(7, 4)], "last"),
    # no head: the logits of a part lie at each row's last step, and Q learns from all of them
    "no head": ([fptt.LSTM(3, 5), fptt.RNN(5, 4)], fptt.Auxiliary(rate=0.5)),
    "no head, Q per part": (
        [fptt.LSTM(3, 5), fptt.RNN(5, 4)],
        fptt.Auxiliary(rate=0.5, per_part=True),
    ),
}


@pytest.mark.parametrize("name", ONE_PLACE)
def test_each_row_stands_at_its_own_step(name):
    layers, loss = ONE_PLACE[name]
    program = fptt.build(
        fptt.Network(layers),
        fptt.FPTT(parts=2),
        fptt.SGD(0.5),
        steps=8,
        batch=6,
        loss=loss,
        train=["3.*"] if name == "body" else ["*"],
    )
    trainers = [fptt.Trainer(program, kind(program), seed=1) for kind in (Engine, Interpreter)]
    x, y = random_batch(program, 6, 8, 1)
    y[:] = 1  # one class: every row moves the same Q
    for _ in range(3):
        losses = [trainer.train_batch(x, y, [8, 8, 7, 3, 2, 1]) for trainer in trainers]
        assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE)
    assert_near(*map(everything, trainers), TOLERANCE)


# -- the same bits, however it is driven ---------------------------------------------------------


@settings(max_examples=examples(100))
@given(cases(engine=True, dtypes=FLOATS))
def test_training_in_c_has_the_bits_of_training_part_by_part(case):
    fast, slow = (case.trainer(kind(case.program)) for kind in (Engine, PartByPart))
    assert hasattr(fast.backend, "train") and not hasattr(slow.backend, "train")
    np.testing.assert_array_equal(train(case, fast), train(case, slow))
    assert_same_bits(everything(fast), everything(slow))


@settings(max_examples=examples(60))
@given(cases(engine=True, dtypes=FLOATS))
def test_streams_have_the_bits_of_batches(case):
    """Sequences of T steps, twice; labels at every step where each has one."""
    program = case.program
    batch, stream = (case.trainer(Engine(program)) for _ in range(2))
    every = program.schedule.every_step
    for seed in (1, 2):
        x, y = random_batch(program, len(case.x), program.steps, seed)
        batch.train_batch(x, y)
        stream.begin_sequence()
        for t in range(program.steps):
            stream.step(x[:, t], y[:, t] if every else y)
    assert_same_bits(everything(stream), everything(batch))


@settings(max_examples=examples(40))
@given(cases(engine=True, dtypes=("float32",)))
def test_instruction_sets_agree(case):
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for isa in ISAS:
            patch.setenv("FPTT_ISA", isa)
            trainer = case.trainer(Engine(case.program))
            results.append((train(case, trainer), everything(trainer)))
    tolerance = tolerance_of(case.program)
    for losses, state in results[1:]:
        assert losses == pytest.approx(results[0][0], rel=tolerance, abs=tolerance, nan_ok=True)
        assert_near(state, results[0][1], tolerance, case.program.rule)


# -- memory --------------------------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(cases(engine=True, dtypes=FLOATS))
def test_memory_outside_the_plan_stays_untouched(case):
    """An arena of the plan's bytes that starts at no more than a multiple of 16."""
    program, margin = case.program, 4096
    size = program.plan.arena_bytes
    ground = np.full(size + 2 * margin + 64, CANARY, np.uint8)
    low = margin + (16 - (ground.ctypes.data + margin)) % 64
    arena = ground[low : low + size]
    assert arena.ctypes.data % 64 == 16
    free = np.ones(size, bool)
    for buffer in program.buffers.values():
        if buffer.role != Role.FROZEN:
            start = program.plan.offsets[buffer.name]
            free[start : start + buffer.bytes] = False
    arena[~free] = 0
    trainer, plain = case.trainer(Engine(program, arena)), case.trainer(Engine(program))
    for each in (trainer, plain):
        train(case, each, 3)
        for t in range(case.x.shape[1]):
            target = case.y[:, t] if program.schedule.every_step else case.y
            each.step(case.x[:, t], target)
        each.end_sequence()
    assert (ground[:low] == CANARY).all() and (ground[low + size :] == CANARY).all()
    assert (arena[free] == CANARY).all()
    assert_same_bits(everything(trainer), everything(plain))


def passing(program):
    """Mask of the arena's bytes that no part may rely on."""
    mask = np.ones(program.plan.arena_bytes, bool)
    for buffer in program.buffers.values():
        low = program.plan.offsets[buffer.name]
        if buffer.role in PERSISTENT:
            mask[low : low + buffer.bytes] = False
        elif buffer.lead:
            slot = buffer.bytes // (buffer.lead + buffer.steps)
            mask[low : low + buffer.lead * slot] = False
    return mask


class Poisoned(PartByPart):
    """Before every part, all that a part may not rely on becomes NaN."""

    def write(self, name, values, step=None):
        if name in ("input", "target", "fraction") and not step:
            self._views[name].view(np.uint8)[...] = 0xFF
        super().write(name, values, step)

    def run(self, routine, frame, step=None):
        if routine == "forward" and step in (None, 0):
            self.arena[passing(self.program)] = 0xFF
        super().run(routine, frame, step)


@settings(max_examples=examples(60))
@given(cases(engine=True, dtypes=FLOATS))
def test_a_part_relies_on_nothing_that_does_not_persist(case):
    poisoned, plain = (case.trainer(kind(case.program)) for kind in (Poisoned, Engine))
    np.testing.assert_array_equal(train(case, poisoned), train(case, plain))
    assert_same_bits(everything(poisoned), everything(plain))


# -- numbers that are none -----------------------------------------------------------------------


def stopped(trainer, batch, tries=3):
    """The message with which training stops."""
    for _ in range(tries - 1):
        try:
            trainer.train_batch(*batch)
        except NumericalError as error:
            return str(error)
    with pytest.raises(NumericalError) as caught:
        trainer.train_batch(*batch)
    return str(caught.value)


BIG = {
    "the loss": dict(criterion="mse", scale=1e30),
    "the update": dict(lr=1e38),
    "momentum": dict(lr=1e38, momentum=0.9),
    "one weight of many": dict(criterion="mse", scale=1e18, lr=1e30),
    "clipped": dict(criterion="mse", scale=1e18, lr=1e38, clip=10.0),
    # neither what is learnt nor the learning rate is large
    "the input": dict(inputs=1e37, lr=900.0),
}


@pytest.mark.parametrize("kind", [Engine, PartByPart])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", BIG)
def test_overflow_stops_as_in_the_reference(name, dtype, kind):
    """The same words, what was learnt before, and a carried state of zero."""
    options = dict(BIG[name])
    scale, criterion = options.pop("scale", 1.0), options.pop("criterion", "cross_entropy")
    clip, inputs = options.pop("clip", None), options.pop("inputs", None)
    layers = [fptt.Linear(3, 4)] if inputs else [fptt.LSTM(3, 5), fptt.Linear(5, 4)]
    net = fptt.Network(layers)
    program = fptt.build(
        net,
        fptt.FPTT(parts=3, state="carry"),
        fptt.SGD(**({"lr": 0.1} | options)),
        steps=7,
        batch=3,
        criterion=criterion,
        dtype=dtype,
        clip=clip,
    )
    trainers = [fptt.Trainer(program, each(program), seed=2) for each in (kind, Interpreter)]
    x, y = random_batch(program, 3, 7, 1)
    large_x, large_y = x * np.float32(inputs or 1), y * scale if scale != 1 else y
    messages = [stopped(trainer, (large_x, large_y, [7, 2, 5])) for trainer in trainers]
    assert messages[0] == messages[1]
    assert "became NaN or Inf in part" in messages[0]
    found, wanted = map(everything, trainers)
    for name, value in found.items():
        if value.dtype.kind == "f":
            assert np.isfinite(value).all(), name
        if name.startswith("carry/"):
            assert not value.any(), name
    assert_near(found, wanted, HALF if dtype == "bfloat16" else ADAM)
    for trainer in trainers:  # it can go on
        trainer.load_parameters(program.net.initial(2))
        trainer.lr = 0.0
        assert np.isfinite(trainer.train_batch(x, y))


@pytest.mark.parametrize("loss", [fptt.Auxiliary(rate=0.5), fptt.Auxiliary(0.5, per_part=True)])
@pytest.mark.parametrize("kind", [Engine, PartByPart])
def test_q_comes_back_where_the_loss_is_no_number(kind, loss):
    net = fptt.Network([fptt.RNN(3, 5), fptt.Linear(5, 4)])
    program = fptt.build(net, fptt.FPTT(parts=2), fptt.SGD(0.1), steps=4, batch=3, loss=loss)
    messages, states = [], []
    for each in (kind, Interpreter):
        trainer = fptt.Trainer(program, each(program), seed=2)
        x, y = random_batch(program, 3, 4, 1)
        trainer.train_batch(x, y)
        trainer.backend.write("1.bias", np.array([0, np.inf, 0, 0], np.float32))
        before = trainer.parameters() | trainer.state()
        messages.append(stopped(trainer, (x, y), 1))
        assert_same_bits(trainer.parameters() | trainer.state(), before)
        states.append({"auxiliary.Q": before["auxiliary.Q"]})
    assert messages[0] == messages[1]
    assert messages[0].startswith("the loss became NaN or Inf in part 1 of 2 (steps 0 to 1)")
    assert_near(*states, TOLERANCE)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", [Engine, PartByPart])
def test_a_state_that_is_no_number_stops_as_in_the_reference(kind, value):
    """No step has a label, so that nothing else is computed from the state."""
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    program = fptt.build(
        net, fptt.FPTT(parts=3, state="carry"), fptt.SGD(0.1), steps=7, batch=3, loss="every_step"
    )
    messages = []
    for each in (kind, Interpreter):
        trainer = fptt.Trainer(program, each(program), seed=2)
        x, y = random_batch(program, 2, 7, 1)
        before = trainer.parameters()
        state = read_carry(trainer.backend)
        (cell,) = [name for name in state if name.endswith("c")]
        state[cell][1, 1] = value  # of the last row
        write_carry(trainer.backend, state)
        messages.append(stopped(trainer, (x, np.full_like(y, -1)), 1))
        assert_same_bits(trainer.parameters(), before)
        assert not any(s.any() for s in read_carry(trainer.backend).values())
    assert messages[0] == messages[1]
    assert messages[0].startswith("the state ")


@settings(max_examples=examples(60))
@given(
    cases(engine=True, dtypes=("float32",)), st.sampled_from((1e4, 1e12, 1e20, 1e36)), st.booleans()
)
def test_huge_learning_rates_stop_where_the_bits_part_by_part_stop(case, lr, carry):
    """The look at sizes lets no overflow through, and a safe copy changes no bit."""
    results = []
    for kind in (Engine, PartByPart):
        trainer = case.trainer(kind(case.program))
        trainer.lr = lr
        message = ""
        try:
            train(case, trainer)
        except NumericalError as error:
            message = str(error)
        results.append((message, everything(trainer)))
    assert results[0][0] == results[1][0]
    assert_same_bits(results[0][1], results[1][1])
    for name, value in results[0][1].items():
        assert value.dtype.kind != "f" or np.isfinite(value).all(), name


# -- Ctrl-C --------------------------------------------------------------------------------------

INTERRUPTED = """
import hashlib, signal, sys, time
import numpy as np, fptt
from fptt.native import Engine

net = fptt.Network([fptt.LSTM(4, 64), fptt.Linear(64, 5)])
program = fptt.build(net, fptt.FPTT(parts=2000), fptt.SGD(0.01), steps=20000, batch=16)
trainer = fptt.Trainer(program, Engine(program), seed=1)
rng = np.random.default_rng(1)
x = rng.normal(size=(16, 20000, 4)).astype(np.float32)
y = rng.integers(0, 5, 16)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.12)
start = time.perf_counter()
try:
    trainer.train_batch(x, y)
except KeyboardInterrupt:
    took = time.perf_counter() - start
    print("interrupted", took, hashlib.sha256(trainer.backend.learned.tobytes()).hexdigest())
    print(np.isfinite(trainer.train_batch(x[:, :50], y)))
"""


def test_ctrl_c_leaves_a_state_between_two_parts():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    first, usable = done.stdout.splitlines()
    word, took, digest = first.split()
    assert (word, usable) == ("interrupted", "True")
    assert float(took) < 2
    net = fptt.Network([fptt.LSTM(4, 64), fptt.Linear(64, 5)])
    program = fptt.build(net, fptt.FPTT(parts=2000), fptt.SGD(0.01), steps=20000, batch=16)
    trainer = fptt.Trainer(program, PartByPart(program), seed=1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(16, 20000, 4)).astype(np.float32)
    y = rng.integers(0, 5, 16)
    batch = make_batch(program, x, y, None, bounded=True)
    for _ in trainer._parts._run_sorted(batch, update=True):
        found = hashlib.sha256(trainer.backend.learned.tobytes()).hexdigest()
        if found == digest:
            return
    pytest.fail("what was learnt when Ctrl-C came is not that of any part")
