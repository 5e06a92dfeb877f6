"""The C interface of an exported model: streaming, stopping, saving, restoring, rolling back."""

import ctypes
import itertools

import numpy as np
import pytest
from device_library import Device, Nor, build

import fptt

NET = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])


def program_of(**options):
    rule = options.pop("rule", fptt.FPTT(parts=4))
    optimizer = options.pop("optimizer", fptt.SGD(lr=0.1, momentum=0.9))
    return fptt.build(options.pop("net", NET), rule, optimizer, steps=10, batch=2, **options)


@pytest.fixture(scope="module")
def program():
    return program_of()


@pytest.fixture(scope="module")
def library(program, tmp_path_factory):
    return build(program, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture
def device(library, program):
    return Device(library, program)


def data(rows=2, steps=10, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(rows, steps, 3)).astype(np.float32),
        rng.integers(0, 4, rows).astype(np.int32),
    )


def host(program):
    return fptt.Trainer(program, "native", seed=3)


def near(device, trainer):
    """Whether every parameter is the host's but for rounding."""
    program = device.program
    for name in program.trained:
        buffer = program.buffers[name]
        at = program.plan.offsets[name]
        raw = np.frombuffer(bytes(device.arena[at : at + buffer.bytes]), np.float32)
        ours = raw.reshape(buffer.shape[::-1]).T if buffer.transposed else raw.reshape(buffer.shape)
        np.testing.assert_allclose(ours, trainer.backend.read(name), rtol=2e-5, atol=2e-6)
    return True


class TestStreaming:
    def test_outputs_and_parameters_are_the_host_streams(self, device, program):
        trainer = host(program)
        for seed in range(3):
            x, y = data(seed=seed)
            trainer.begin_sequence()
            device.begin_sequence()
            for t in range(10):
                target = y if t % 3 != 1 else None
                expected = trainer.step(x[:, t], target)
                assert device.observe(x[:, t], target) == "FPTT_OK"
                np.testing.assert_allclose(device.predict(), expected, rtol=1e-4, atol=1e-5)
        assert near(device, trainer)

    def test_a_sequence_that_ends_early(self, device, program):
        trainer = host(program)
        x, y = data()
        for t in range(6):
            trainer.step(x[:, t], y)
            device.observe(x[:, t], y)
        trainer.end_sequence()
        assert device.call("fptt_end_sequence") == "FPTT_OK"
        assert near(device, trainer)
        assert device.learner.progress.position == 0

    def test_an_endless_stream(self, device, program):
        trainer = host(program)
        x, y = data(steps=35)
        for t in range(35):
            trainer.step(x[:, t], y)
            device.observe(x[:, t], y)
        assert near(device, trainer)

    def test_rows_without_target_count_for_nothing(self, device, program):
        trainer = host(program)
        x, y = data()
        y[1] = -1
        for t in range(10):
            trainer.step(x[:, t], y)
            device.observe(x[:, t], y)
        assert near(device, trainer)

    def test_learning_off_only_observes(self, device, program):
        before = device.learned
        x, y = data()
        device.learning(False)
        assert device.sequence(x, y) == []
        assert device.learned == before
        trainer = host(program)
        for t in range(10):
            expected = trainer.step(x[:, t])
        np.testing.assert_allclose(device.predict(), expected, rtol=1e-4, atol=1e-5)

    def test_predict_before_the_first_step_is_zero(self, device):
        assert not device.predict().any()

    def test_a_new_sequence_forgets_the_part_in_flight(self, device):
        x, y = data()
        before = device.learned
        device.observe(x[:, 0], y)
        device.begin_sequence()
        assert device.sequence(x[:, :1], y) == []
        assert device.learned == before

    def test_rounds_of_learning_rate(self, device, program):
        trainer = host(program)
        trainer.lr = 0.02
        device.set_rate(0.02)
        x, y = data()
        device.sequence(x, y)
        trainer.train_batch(x, y)
        assert near(device, trainer)

    def test_dropout_takes_other_masks_for_each_sequence(self, tmp_path):
        net = fptt.Network([fptt.LSTM(3, 8), fptt.Dropout(0.5), fptt.Linear(8, 4)])
        program = program_of(net=net)
        device, trainer = Device(build(program, tmp_path / "m"), program), host(program)
        x, y = data(steps=23)  # goes over the end of a sequence
        for t in range(23):
            trainer.step(x[:, t], y)
            device.observe(x[:, t], y)
        assert near(device, trainer)

    def test_end_of_an_epoch(self, device, program):
        trainer = host(program)
        for seed in range(2):
            x, y = data(seed=seed)
            device.sequence(x, y)
            trainer.train_batch(x, y)
            device.end_epoch()
            trainer.end_epoch()
        assert near(device, trainer)


WRONG = ("LOSS_NOT_FINITE", "UPDATE_NOT_SAFE", "STATE_NOT_FINITE")


class TestStopping:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_bad_input_stops_learning_and_leaves_what_was_learnt(self, device, bad):
        x, y = data()
        device.sequence(x, y)
        before = device.learned
        x[0, 3, 1] = bad
        seen = device.sequence(x, y)
        assert seen
        assert set(seen) <= {f"FPTT_{what}" for what in WRONG}
        if np.isnan(bad):
            assert seen == ["FPTT_LOSS_NOT_FINITE"]
        changed = device.learned != before
        values = np.frombuffer(device.learned, np.float32)
        assert np.isfinite(values).all()
        # the first parts may have learnt, the bad one and those after it may not
        assert device.learner.progress.updates in (4, 5, 6)
        assert changed == (device.learner.progress.updates > 4)
        assert device.learner.learning == 0
        assert device.learner.stopped != 0
        # the state that was none is gone: the parts after it are as good as ever
        assert np.isfinite(device.predict()).all()

    def test_it_goes_on_when_it_is_told_to(self, device):
        x, y = data()
        good = x.copy()
        x[0, 0, 0] = np.nan
        device.sequence(x, y)
        before = device.learned
        assert device.sequence(good, y) == []
        assert device.learned == before
        device.learning(True)
        assert device.sequence(good, y) == []
        assert device.learned != before

    def test_a_rollback_tells_why_it_stopped(self, device):
        x, y = data()
        x[0, 0, 0] = np.nan
        device.sequence(x, y)
        why = device.learner.stopped
        device.rollback()
        assert (device.learner.learning, device.learner.stopped) == (0, why)
        device.learning(True)
        assert (device.learner.learning, device.learner.stopped) == (1, 0)

    def test_a_loss_that_runs_away(self, device):
        device.learner.loss_limit = 0.01
        x, y = data()
        before = device.learned
        assert device.sequence(x, y) == ["FPTT_LOSS_RUNAWAY"]
        assert device.learned == before

    def test_numbers_near_overflow(self, device):
        x, y = data()
        before = device.learned
        x[:] = 3e38
        seen = device.sequence(x, y)
        assert np.isfinite(np.frombuffer(device.learned, np.float32)).all()
        assert not seen or device.learned == before or device.learner.learning == 0

    @pytest.mark.parametrize("label", [4, 2**31 - 1])
    def test_labels_that_do_not_exist(self, device, label):
        x, y = data()
        y[1] = label
        before = device.learned, device.learner.progress.position
        assert device.observe(x[:, 0], y) == "FPTT_BAD_INPUT"
        assert (device.learned, device.learner.progress.position) == before

    def test_tokens_that_do_not_exist(self, tmp_path):
        net = fptt.Network([fptt.Embedding(5, 3), fptt.RNN(3, 4), fptt.Linear(4, 5)])
        program = program_of(net=net, loss="every_step")
        device = Device(build(program, tmp_path / "model"), program)
        for token in (-1, 5):
            assert device.observe(np.array([0, token]), np.array([1, 1])) == "FPTT_BAD_INPUT"
        assert device.observe(np.array([0, 4]), np.array([1, 1])) == "FPTT_OK"

    @pytest.mark.parametrize("per_part", [False, True])
    def test_q_of_the_auxiliary_loss_stays_too(self, tmp_path, per_part):
        program = program_of(loss=fptt.Auxiliary(rate=0.3, per_part=per_part))
        device = Device(build(program, tmp_path / "model"), program)
        x, y = data()
        device.sequence(x, y)
        before = device.learned
        trainer = host(program)
        trainer.train_batch(x, y)
        known = trainer.state()["auxiliary.Q"]
        at = program.plan.offsets["auxiliary.Q"]
        q = np.frombuffer(before[at : at + known.nbytes // (known.itemsize // 4)], np.float32)
        np.testing.assert_allclose(q.reshape(known.shape), known, rtol=1e-5)
        assert np.ptp(q) > 0  # it has learnt
        x[0, 9, 0] = np.nan  # of the last part, which moves Q
        good = device.learner.progress.updates
        device.sequence(x, y)
        buffer = program.buffers["auxiliary.Q"]
        # with a Q for each part, those of the parts before have learnt once more
        last = at + (buffer.bytes * 3 // 4 if per_part else 0)
        assert device.learned[last : at + buffer.bytes] == before[last : at + buffer.bytes]
        assert device.learner.progress.updates < good + 4


class TestMemory:
    def test_one_byte_less_is_refused(self, device, program):
        size = ctypes.c_size_t(program.memory().arena_bytes - 1)
        answer = device.call("fptt_init", device.model, device.arena, size, device._out)
        assert answer == "FPTT_ARENA_TOO_SMALL"

    def test_a_crooked_arena_is_refused(self, device, program):
        crooked = (ctypes.c_uint8 * 1).from_buffer(device.arena, 4)
        size = ctypes.c_size_t(program.memory().arena_bytes)
        assert device.call("fptt_init", device.model, crooked, size, device._out) == (
            "FPTT_UNALIGNED"
        )


AREA = 32 * 1024


class TestFlash:
    def test_learning_goes_on_with_the_same_bits(self, device, library, program):
        nor = Nor(AREA)
        x, y = data()
        device.sequence(x, y)
        for t in range(5):  # two parts of the next sequence
            device.observe(x[:, t], y)
        assert device.learner.at.high == 0
        assert device.save(nor) == "FPTT_OK"
        other = Device(library, program)
        assert other.restore(nor) == "FPTT_OK"
        for t in range(5, 10):
            device.observe(x[:, t], y)
            other.observe(x[:, t], y)
            assert (other.predict() == device.predict()).all()
        assert other.learned == device.learned
        assert other.learner.progress.updates == device.learner.progress.updates

    def test_large_moments_are_no_reason_to_stop(self, tmp_path):
        """Adam's second moment is a squared gradient; lambda and theta are what must stay small."""
        net = fptt.Network([fptt.RNN(3, 4), fptt.Linear(4, 2)])
        program = program_of(
            net=net, rule=fptt.TBPTT(parts=5), optimizer=fptt.Adam(lr=0.01), criterion="mse"
        )
        library = build(program, tmp_path / "m")
        device, nor = Device(library, program), Nor(AREA)
        x, _ = data()
        y = np.full((2, 2), 1e8, np.float32)
        assert device.sequence(x, y) == []
        assert device.save(nor) == "FPTT_OK"
        other = Device(library, program)
        assert other.restore(nor) == "FPTT_OK"
        for one in (device, other):
            one.end_epoch()
            assert one.sequence(x, y) == []
        assert other.learned == device.learned
        assert other.learner.progress.updates == 10

    def test_everything_only_between_two_parts(self, device):
        x, y = data()
        device.observe(x[:, 0], y)
        assert device.save(Nor(AREA)) == "FPTT_PART_IN_FLIGHT"
        assert device.save(Nor(AREA), Device.WEIGHTS) == "FPTT_OK"

    def test_weights_alone_begin_a_new_rule(self, device, library, program):
        nor = Nor(AREA)
        x, y = data()
        device.sequence(x, y)
        assert device.save(nor, Device.WEIGHTS) == "FPTT_OK"
        other = Device(library, program)
        assert other.restore(nor, Device.WEIGHTS) == "FPTT_OK"
        for name in program.trained:
            buffer, at = program.buffers[name], program.plan.offsets[name]
            theta = slice(at, at + buffer.bytes)
            assert other.learned[theta] == device.learned[theta]
            mean = program.plan.offsets[f"mean/{name}"]
            assert other.learned[mean : mean + buffer.bytes] == device.learned[theta]
            lam = program.plan.offsets[f"lambda/{name}"]
            assert other.learned[lam : lam + buffer.bytes] == bytes(buffer.bytes)

    def test_power_cut_at_every_operation(self, device, library, program):
        nor = Nor(AREA)
        x, y = data()
        states = []
        for seed in range(3):
            device.sequence(*data(seed=seed))
            assert device.save(nor) == "FPTT_OK"
            states.append(device.learned)
        device.sequence(x, y)
        before, after = states[-1], device.learned
        start = bytes(nor.cells)
        nor.operations = 0
        assert device.save(nor) == "FPTT_OK"
        operations, seen = nor.operations, set()
        assert operations > 10
        other = Device(library, program)
        for operation, share in itertools.product(range(1, operations + 1), (0.0, 0.4, 1.0)):
            nor.cells[:] = start
            nor.operations, nor.dead, nor.cut_at = 0, False, (operation, share)
            device.save(nor)
            assert nor.dead
            nor.dead, nor.cut_at = False, None
            assert other.restore(nor) in ("FPTT_OK", "FPTT_OLDER_STATE")
            assert other.learned in (before, after)
            seen.add(other.learned == after)
            # and a save works again
            assert other.save(nor) == "FPTT_OK"
        assert seen == {True, False}

    def test_worn_flash_is_reported(self, device):
        nor = Nor(AREA)
        assert device.save(nor) == "FPTT_OK"
        nor.fails = True
        assert device.save(nor) == "FPTT_FLASH_WRITE_FAILED"
        assert device.restore(nor) == "FPTT_OK"

    def test_flipped_bits_are_not_trusted(self, device):
        nor = Nor(AREA)
        assert device.save(nor) == "FPTT_OK"
        before = device.learned
        rng = np.random.default_rng(0)
        used = np.flatnonzero(np.frombuffer(nor.cells, np.uint8) != 255)
        for at in rng.choice(used, 60):
            nor.cells[at] ^= 1 << int(rng.integers(8))
            assert device.restore(nor) in ("FPTT_NOTHING_SAVED", "FPTT_OTHER_PROGRAM")
            assert device.learned == before
            nor.cells[:] = b"\xff" * AREA
            assert device.save(nor) == "FPTT_OK"

    def test_another_program_is_not_restored(self, device, tmp_path):
        nor = Nor(AREA)
        assert device.save(nor) == "FPTT_OK"
        program = program_of(rule=fptt.FPTT(parts=5))
        other = Device(build(program, tmp_path / "model"), program)
        before = other.learned
        assert other.restore(nor) == "FPTT_OTHER_PROGRAM"
        assert other.learned == before

    def test_rollback_from_any_state(self, device, library, program):
        fresh = Device(library, program)
        x, y = data()
        reference = fresh.learned
        fresh.sequence(x, y)
        device.sequence(x, y)
        device.observe(x[:, 0], y)  # a part in flight
        device.arena[:] = list(np.random.default_rng(0).integers(0, 256, len(device.arena)))
        device.rollback()
        assert device.learned == reference
        device.sequence(x, y)
        assert device.learned == fresh.learned
