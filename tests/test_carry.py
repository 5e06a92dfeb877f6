"""State that goes on from batch to batch: rows keep to their own, whatever happens to the batch."""

import re

import numpy as np
import pytest

import fptt
from fptt.errors import NumericalError
from fptt.training.carry import read_carry, write_carry

STEPS, ROWS = 4, 3


def trainer_(loss="last", parts=2, **options):
    net = fptt.Network([fptt.LSTM(2, 5), fptt.Linear(5, 3)])
    options = {"dtype": "float64", "loss": loss, **options}
    program = fptt.build(
        net,
        fptt.TBPTT(parts=parts, state="carry"),
        fptt.SGD(lr=0.0),
        steps=STEPS,
        batch=ROWS,
        **options,
    )
    return fptt.Trainer(program, seed=1)


def batches(n, loss="last", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n * ROWS, STEPS, 2))
    y = rng.integers(0, 3, (n * ROWS, STEPS) if loss == "every_step" else n * ROWS)
    return x, y, rng.permutation(np.resize([2, 4, 3], n * ROWS))


@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_evaluation_continues_every_row_as_training_does(loss):
    """At lr 0 and with K = 1, the mean of the batches' losses is what evaluation finds."""
    trainer = trainer_(loss, parts=1)
    x, y, lengths = batches(4, loss)
    losses, weights = [], []
    for low in range(0, len(x), ROWS):
        rows = slice(low, low + ROWS)
        losses.append(trainer.train_batch(x[rows], y[rows], lengths[rows]))
        weights.append(lengths[rows].sum() if loss == "every_step" else ROWS)
    found = trainer.evaluate((x, y, lengths))["loss"]
    assert found == pytest.approx(np.average(losses, weights=weights), rel=1e-12)
    in_order = trainer.evaluate((x, y, np.sort(lengths)))["loss"]
    assert abs(in_order - found) > 1e-4  # lengths matter at all


def test_part_gradients_change_nothing_that_is_carried():
    trainer = trainer_()
    x, y, lengths = batches(2)
    trainer.train_batch(x[:ROWS], y[:ROWS], lengths[:ROWS])
    before = read_carry(trainer.backend)
    first = trainer.part_gradients(x[ROWS:], y[ROWS:], lengths[ROWS:])
    second = trainer.part_gradients(x[ROWS:], y[ROWS:], lengths[ROWS:])
    after = read_carry(trainer.backend)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert any(np.abs(values).max() > 0.01 for values in before.values())
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("each_backend")
def test_part_gradients_are_those_of_the_present_weights_and_state():
    """One batch in one part: its gradient is what plain descent subtracts."""
    net = fptt.Network([fptt.LSTM(2, 5), fptt.Linear(5, 3)])
    program = fptt.build(
        net, fptt.TBPTT(parts=1, state="carry"), fptt.SGD(lr=0.5), steps=STEPS, batch=ROWS
    )
    trainer = fptt.Trainer(program, seed=1)
    x, y, lengths = batches(3)
    for low in (0, ROWS):
        rows = slice(low, low + ROWS)
        trainer.train_batch(x[rows], y[rows], lengths[rows])
    rows, before = slice(2 * ROWS, 3 * ROWS), trainer.parameters()
    (gradients,) = trainer.part_gradients(x[rows], y[rows], lengths[rows])
    trainer.train_batch(x[rows], y[rows], lengths[rows])
    for name, after in trainer.parameters().items():
        np.testing.assert_allclose(before[name] - after, 0.5 * gradients[name], atol=1e-6)


def test_part_gradients_do_not_destroy_a_part_in_flight():
    trainer = trainer_()
    trainer.step(np.ones((1, 2)))
    message = (
        "part_gradients: a part of a stream is in flight, and its activations would be lost; call "
        "it between parts, or end_sequence() first"
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        trainer.part_gradients(np.ones((1, STEPS, 2)), [0])
    trainer.step(np.ones((1, 2)))
    assert trainer.part_gradients(np.ones((1, STEPS, 2)), [0])[0] is not None


def test_an_interrupted_batch_leaves_the_rows_in_the_users_order(monkeypatch):
    trainer = trainer_()
    x, y, _ = batches(1)
    state = {
        name: np.arange(v.size).reshape(v.shape) / 100.0
        for name, v in read_carry(trainer.backend).items()
    }
    write_carry(trainer.backend, state)
    run = trainer.backend.run

    def interrupted(routine, frame, step=None):
        if routine == "forward":
            raise KeyboardInterrupt
        run(routine, frame, step)

    monkeypatch.setattr(trainer.backend, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_batch(x, y, [1, 2, 4])
    after = read_carry(trainer.backend)
    assert all(np.array_equal(after[name], state[name]) for name in state)


@pytest.mark.usefixtures("each_backend")
def test_a_state_that_explodes_without_a_target_is_noticed():
    net = fptt.Network([fptt.Linear(1, 2), fptt.RNN(2, 2), fptt.Linear(2, 2)])
    program = fptt.build(net, fptt.TBPTT(parts=2), steps=4)
    trainer = fptt.Trainer(program)
    huge = {name: np.full(v.shape, 3e38) for name, v in trainer.parameters().items()}
    huge["0.weight"] *= np.array([[1], [-1]])
    trainer.load_parameters(huge)
    message = (
        r"the state 1\.h became NaN or Inf in part 1 of 2 \(steps 0 to 1\); training stopped, and "
        "the state of learning is that of the last good update: use a smaller learning rate, or "
        "clip the norm of the update"
    )
    trainer.step([[3.0]])
    with pytest.raises(NumericalError, match=f"^{message}$"):
        trainer.step([[3.0]])


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("activation_dtype", ["float32", "bfloat16"])
def test_prediction_computes_as_training_does(activation_dtype):
    trainer = trainer_(dtype="float32", activation_dtype=activation_dtype)
    x = np.random.default_rng(3).normal(size=(1, STEPS, 2))
    streamed = [trainer.step(x[:, t]) for t in range(STEPS)][-1]
    np.testing.assert_allclose(trainer.predict(x), streamed, rtol=1e-6, atol=1e-7)


def test_weights_too_large_for_the_programs_dtype_are_refused():
    trainer = trainer_(dtype="float32")
    before = trainer.parameters()
    weights = {name: values.astype(np.float64) for name, values in before.items()}
    weights["1.bias"][1] = 1e39
    with pytest.raises(
        fptt.InputError, match=r"^the weights of 1\.bias are larger than float32 holds$"
    ):
        trainer.load_parameters(weights)
    assert all(np.array_equal(before[name], trainer.parameters()[name]) for name in before)


def test_bad_data_anywhere_are_found_before_anything_is_learnt():
    trainer = trainer_()
    x, y, lengths = batches(4)
    before = trainer.parameters()
    wrong = y.copy()
    wrong[-1] = 7
    for data, test in (((x, wrong, lengths), None), ((x, y, lengths), (x, wrong, lengths))):
        with pytest.raises(
            fptt.InputError,
            match=r"^y contains the label 7; this network has "
            r"the classes 0 to 2$",
        ):
            trainer.fit(data, 1, test=test)
    assert all(np.array_equal(before[name], trainer.parameters()[name]) for name in before)


@pytest.mark.usefixtures("each_backend")
def test_numbers_of_numpy_are_numbers(tmp_path):
    net = fptt.Network(
        [
            fptt.GRU(np.int64(2), np.int32(5)),
            fptt.Dropout(np.float32(0.5)),
            fptt.Linear(5, np.int64(3)),
        ]
    )
    program = fptt.build(
        net,
        fptt.FPTT(parts=np.int64(2), alpha=np.float32(0.5)),
        fptt.SGD(lr=np.float32(0.5)),
        steps=np.int64(4),
        batch=np.int16(2),
        clip=np.float32(1),
        loss=fptt.Auxiliary(np.float64(0.5)),
    )
    trainer = fptt.Trainer(program, seed=np.int64(3))
    trainer.save(tmp_path / "state")
    trainer.save_parameters(tmp_path / "model")
    again = fptt.load(tmp_path / "state")
    assert again.program.rule == program.rule
    for wrong in (
        lambda: fptt.SGD(lr=True),
        lambda: fptt.FPTT(parts=True),
        lambda: fptt.LSTM(1, True),
    ):
        with pytest.raises(fptt.InputError):
            wrong()
