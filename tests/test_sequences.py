"""Unequal lengths, state carried between batches, and streaming against the batch call."""

import numpy as np
import pytest
from cases import (
    REFERENCE_CELLS,
    TOLERANCE,
    assert_bits_equal,
    assert_close,
    assert_trainers_equal,
    fptt_trainer,
    pair,
    random_data,
    random_parameters,
    with_head,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ENGINE_CELLS = ["LSTM", "GRU", "RNN"]
CELLS = [*ENGINE_CELLS, *REFERENCE_CELLS]
OBJECTIVES = {
    "last-ce": ("last", "cross_entropy"),
    "last-mse": ("last", "mse"),
    "every-ce": ("every_step", "cross_entropy"),
    "every-mse": ("every_step", "mse"),
    "aux-ce": ("auxiliary", "cross_entropy"),
    "aux-per-part": (("auxiliary", dict(rate=0.3, per_part=True)), "cross_entropy"),
}
# T = 11 in 3 parts: cuts 0, 3, 7, 11
LENGTHS = {
    "mixed": [8, 1, 11, 4, 3],
    "one step among full": [11, 1, 11, 11, 1],
    "all one step": [1, 1, 1, 1, 1],
    "exactly at cuts": [3, 7, 11, 7, 3],
    "just after cuts": [4, 8, 4, 8, 1],
    "all early": [5, 2, 6, 4, 5],
    "equal and early": [6, 6, 6, 6, 6],
    "ascending": [1, 3, 5, 8, 11],
}
SGD = ("sgd", dict(lr=0.3))
MOMENTUM = ("sgd", dict(lr=0.2, momentum=0.9))


def schedule_of(loss):
    return loss[0] if isinstance(loss, tuple) else loss


# --- unequal lengths ----------


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("cell", CELLS)
def test_unequal_lengths(cell, objective, lengths):
    """Two batches with the same lengths in opposite order."""
    loss, criterion = OBJECTIVES[objective]
    layers = with_head(cell, 3, 5, 4)
    rule = dict(parts=3, alpha=0.4)
    trainer, oracle = pair(layers, rule, MOMENTUM, 11, 5, loss=loss, criterion=criterion)
    for seed, chosen in [(1, LENGTHS[lengths]), (2, LENGTHS[lengths][::-1])]:
        x, y = random_data(layers, 5, 11, schedule_of(loss), criterion, seed)
        wanted = oracle.train_batch(x, y, chosen)
        assert trainer.train_batch(x, y, np.array(chosen)) == pytest.approx(wanted, rel=1e-9)
    assert_trainers_equal(trainer, oracle, 1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_lies_after_a_sequence_s_end_is_never_read(objective):
    loss, criterion = OBJECTIVES[objective]
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    lengths = LENGTHS["mixed"]
    x, y = random_data(layers, 5, 11, schedule_of(loss), criterion, 3)
    other, labels = x.copy(), y.copy()
    for row, length in enumerate(lengths):
        other[row, length:] = 1000.0
        if schedule_of(loss) == "every_step":
            labels[row, length:] = -1 if criterion == "cross_entropy" else 1000.0
    found = []
    for data, target in [(x, y), (other, labels)]:
        trainer = fptt_trainer(
            layers,
            dict(parts=3),
            SGD,
            11,
            5,
            loss=loss,
            criterion=criterion,
            parameters=random_parameters(layers, 4),
        )
        found.append((trainer.train_batch(data, target, lengths), trainer))
    assert found[0][0] == found[1][0]
    assert_bits_equal(found[0][1].parameters(), found[1][1].parameters(), "parameters")
    assert_bits_equal(found[0][1].state(), found[1][1].state(), "state")


@pytest.mark.parametrize("objective", ["last-ce", "every-ce", "every-mse"])
def test_a_part_that_counts_nothing_makes_no_update(objective):
    """Not even of momentum, lambda or m: programs of 3 parts and of 1 part agree in bits."""
    loss, criterion = OBJECTIVES[objective]
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    lengths = [2, 3, 1]
    theta = random_parameters(layers, 5)
    x, y = random_data(layers, 3, 11, schedule_of(loss), criterion, 6)
    three = fptt_trainer(
        layers,
        dict(parts=3, alpha=0.4),
        MOMENTUM,
        11,
        3,
        loss=loss,
        criterion=criterion,
        parameters=theta,
    )
    one = fptt_trainer(
        layers,
        dict(parts=1, alpha=0.4),
        MOMENTUM,
        3,
        3,
        loss=loss,
        criterion=criterion,
        parameters=theta,
    )
    for _ in range(2):
        wanted = one.train_batch(x[:, :3], y if y.ndim < 2 or loss == "last" else y[:, :3], lengths)
        assert three.train_batch(x, y, lengths) == wanted
    assert_bits_equal(three.parameters(), one.parameters(), "parameters")
    assert_bits_equal(three.state(), one.state(), "state")
    assert not np.array_equal(three.parameters()["1.bias"], theta["1.bias"])


def test_full_lengths_given_are_the_same_as_none():
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    x, y = random_data(layers, 5, 11, "auxiliary", "cross_entropy", 7)
    results = []
    for lengths in (None, [11] * 5):
        trainer = fptt_trainer(
            layers,
            dict(parts=3),
            SGD,
            11,
            5,
            loss="auxiliary",
            parameters=random_parameters(layers, 8),
        )
        trainer.train_batch(x, y, lengths)
        results.append(trainer)
    assert_bits_equal(results[0].parameters(), results[1].parameters(), "parameters")
    assert_bits_equal(results[0].state(), results[1].state(), "state")


@pytest.mark.parametrize("labels", ["some", "whole part", "only the last step"])
def test_missing_labels(labels):
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(parts=3, alpha=0.4), MOMENTUM, 11, 5, loss="every_step")
    for seed, lengths in [(9, None), (10, LENGTHS["mixed"])]:
        x, y = random_data(layers, 5, 11, "every_step", "cross_entropy", seed)
        if labels == "some":
            y[np.random.default_rng(seed).random(y.shape) < 0.6] = -1
        elif labels == "whole part":
            y[:, 3:7] = -1
        else:
            y[:, :10] = -1
        wanted = oracle.train_batch(x, y, lengths)
        assert trainer.train_batch(x, y, lengths) == pytest.approx(wanted, rel=1e-9)
    assert_trainers_equal(trainer, oracle, 1e-10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_sizes_and_lengths(data):
    """Random cell, sizes, cuts, lengths, rule and schedule."""
    steps = data.draw(st.integers(1, 9), "steps")
    parts = data.draw(st.integers(1, steps), "parts")
    batch = data.draw(st.integers(1, 4), "batch")
    given_steps = data.draw(st.integers(1, steps), "steps given")
    lengths = data.draw(
        st.none() | st.lists(st.integers(1, given_steps), min_size=batch, max_size=batch), "lengths"
    )
    cell = data.draw(st.sampled_from(CELLS), "cell")
    loss, criterion = OBJECTIVES[data.draw(st.sampled_from(sorted(OBJECTIVES)), "objective")]
    mode = data.draw(st.sampled_from(["code", "paper"]), "mode")
    inputs, hidden = data.draw(st.integers(1, 4), "inputs"), data.draw(st.integers(1, 4), "hidden")
    layers = with_head(cell, inputs, hidden, data.draw(st.integers(2, 4), "outputs"))
    rule = dict(parts=parts, alpha=0.4, mode=mode)
    trainer, oracle = pair(layers, rule, SGD, steps, 4, loss=loss, criterion=criterion)
    for seed in range(2):
        x, y = random_data(layers, batch, given_steps, schedule_of(loss), criterion, seed)
        wanted = oracle.train_batch(x, y, lengths)
        assert trainer.train_batch(x, y, lengths) == pytest.approx(wanted, rel=1e-9)
    assert_trainers_equal(trainer, oracle, 1e-10)


# --- state carried from batch to batch ----------


@pytest.mark.parametrize("rule", [dict(kind="tbptt"), dict(alpha=0.4)], ids=["TBPTT", "FPTT"])
@pytest.mark.parametrize("state", ["reset", "carry"])
@pytest.mark.parametrize("cell", CELLS)
def test_state_between_batches(cell, state, rule):
    layers = with_head(cell, 3, 5, 4)
    rule = dict(rule, parts=3, state=state)
    trainer, oracle = pair(layers, rule, SGD, 7, 5, loss="every_step")
    for seed in range(3):
        x, y = random_data(layers, 5, 7, "every_step", "cross_entropy", seed)
        assert trainer.train_batch(x, y) == pytest.approx(oracle.train_batch(x, y), rel=1e-9)
    assert_trainers_equal(trainer, oracle, 1e-10)


def test_carried_state_of_a_stack():
    layers = [("GRU", 3, 5), ("LSTM", 5, 7), ("Linear", 7, 4)]
    trainer, oracle = pair(layers, dict(parts=3, state="carry"), SGD, 7, 5, loss="every_step")
    for seed in range(3):
        x, y = random_data(layers, 5, 7, "every_step", "cross_entropy", seed)
        trainer.train_batch(x, y)
        oracle.train_batch(x, y)
    assert_trainers_equal(trainer, oracle, 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_each_row_carries_the_state_of_its_own_last_step(cell):
    """Rows keep the caller's order, although a batch runs sorted by length."""
    layers = with_head(cell, 3, 5, 4)
    trainer, oracle = pair(layers, dict(parts=3, state="carry"), SGD, 11, 5)
    for seed, lengths in enumerate([LENGTHS["mixed"], LENGTHS["all early"], None]):
        x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed)
        wanted = oracle.train_batch(x, y, lengths)
        assert trainer.train_batch(x, y, lengths) == pytest.approx(wanted, rel=1e-9)
    assert_trainers_equal(trainer, oracle, 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_one_long_sequence_in_pieces_is_the_whole(cell):
    """With state carried, 3 batches of one part each are one batch of 3 parts, bit for bit."""
    layers = with_head(cell, 3, 5, 4)
    theta = random_parameters(layers, 14)
    whole = fptt_trainer(
        layers, dict(parts=3, alpha=0.4), SGD, 12, 5, loss="every_step", parameters=theta
    )
    pieces = fptt_trainer(
        layers,
        dict(parts=1, alpha=0.4, state="carry"),
        SGD,
        4,
        5,
        loss="every_step",
        parameters=theta,
    )
    x, y = random_data(layers, 5, 12, "every_step", "cross_entropy", 15)
    mean = whole.train_batch(x, y)
    losses = [pieces.train_batch(x[:, n : n + 4], y[:, n : n + 4]) for n in (0, 4, 8)]
    assert mean == pytest.approx(np.mean(losses), rel=1e-12)
    assert_bits_equal(pieces.parameters(), whole.parameters(), "parameters")
    assert_bits_equal(pieces.state(), whole.state(), "state")


def test_prediction_between_batches_disturbs_nothing():
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    found = []
    for predicts in (False, True):
        trainer = fptt_trainer(
            layers,
            dict(parts=3, state="carry"),
            SGD,
            7,
            5,
            loss="every_step",
            parameters=random_parameters(layers, 16),
        )
        for seed in range(3):
            x, y = random_data(layers, 5, 7, "every_step", "cross_entropy", seed)
            trainer.train_batch(x, y)
            if predicts:
                trainer.predict(x[::-1] + 1)
        found.append(trainer)
    assert_bits_equal(found[0].parameters(), found[1].parameters(), "parameters")
    assert_bits_equal(found[0].state(), found[1].state(), "state")


# --- streaming ----------


def stream(trainer, x, targets):
    """One sequence, step by step; targets[t] is a target or None. Returns every step's outputs."""
    trainer.begin_sequence()
    outputs = [trainer.step(x[:, t], target=targets[t]) for t in range(x.shape[1])]
    trainer.end_sequence()
    return outputs


def batch_and_stream(layers, rule, optimizer, steps, batch, **options):
    theta = random_parameters(layers, 17)
    return [
        fptt_trainer(layers, rule, optimizer, steps, batch, parameters=theta, **options)
        for _ in range(2)
    ]


#: either back end in the type that it is the first choice for
on_both = pytest.mark.parametrize(
    "run",
    [dict(backend="reference", dtype="float64"), dict(backend="native", dtype="float32")],
    ids=["reference", "native"],
)


def assert_streamed_bits(batched, streamed):
    assert_bits_equal(streamed.parameters(), batched.parameters(), "parameters")
    assert_bits_equal(streamed.state(), batched.state(), "state")


@pytest.mark.parametrize(
    ("cell", "backend", "dtype"),
    [
        *((cell, "reference", dtype) for cell in ENGINE_CELLS for dtype in ("float64", "float32")),
        *((cell, "native", dtype) for cell in ENGINE_CELLS for dtype in ("float32", "bfloat16")),
        *(
            (cell, "reference", dtype)
            for cell in REFERENCE_CELLS
            for dtype in ("float64", "bfloat16")
        ),
    ],
)
@pytest.mark.parametrize("rule", [dict(kind="tbptt"), dict(alpha=0.4)], ids=["TBPTT", "FPTT"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_streaming_is_the_batch_call_bit_for_bit(cell, objective, rule, backend, dtype):
    loss, criterion = OBJECTIVES[objective]
    layers = with_head(cell, 3, 7, 4)
    batched, streamed = batch_and_stream(
        layers,
        dict(rule, parts=3),
        MOMENTUM,
        11,
        5,
        loss=loss,
        criterion=criterion,
        backend=backend,
        dtype=dtype,
    )
    for seed in range(2):
        x, y = random_data(layers, 5, 11, schedule_of(loss), criterion, seed)
        batched.train_batch(x, y)
        every = schedule_of(loss) == "every_step"
        stream(streamed, x, [y[:, t] if every else y for t in range(11)])
    assert_streamed_bits(batched, streamed)
    start = fptt_trainer(
        layers, {}, SGD, 11, 5, dtype=dtype, parameters=random_parameters(layers, 17)
    )
    assert not np.array_equal(batched.parameters()["1.bias"], start.parameters()["1.bias"])


@on_both
@pytest.mark.parametrize(
    "stack",
    [
        [("LSTM", 3, 5), ("LSTM", 5, 7), ("Linear", 7, 4)],
        [("Embedding", 9, 3), ("GRU", 3, 5), ("Linear", 5, 4)],
        [("Linear", 3, 7), ("RNN", 7, 5)],
    ],
    ids=["LSTM-LSTM-Linear", "Embedding-GRU-Linear", "Linear-RNN"],
)
def test_streaming_a_stack(stack, run):
    batched, streamed = batch_and_stream(
        stack, dict(parts=4, alpha=0.4), ("adam", dict(lr=0.05)), 11, 5, clip=0.5, **run
    )
    for seed in range(2):
        x, y = random_data(stack, 5, 11, "last", "cross_entropy", seed)
        batched.train_batch(x, y)
        stream(streamed, x, [y] * 11)
    assert_streamed_bits(batched, streamed)


@on_both
@pytest.mark.parametrize("objective", ["last-ce", "last-mse", "aux-ce"])
def test_a_target_at_the_part_s_last_step_is_enough(objective, run):
    loss, criterion = OBJECTIVES[objective]
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(
        layers, dict(parts=3), SGD, 11, 5, loss=loss, criterion=criterion, **run
    )
    x, y = random_data(layers, 5, 11, loss, criterion, 18)
    batched.train_batch(x, y)
    stream(streamed, x, [y if t + 1 in (3, 7, 11) else None for t in range(11)])
    assert_streamed_bits(batched, streamed)


@on_both
@pytest.mark.parametrize("steps_given", [1, 3, 5, 7, 10, 11])
@pytest.mark.parametrize("objective", ["last-ce", "last-mse", "every-ce", "every-mse"])
def test_end_of_sequence_closes_an_incomplete_part(objective, steps_given, run):
    loss, criterion = OBJECTIVES[objective]
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(
        layers, dict(parts=3, alpha=0.4), MOMENTUM, 11, 5, loss=loss, criterion=criterion, **run
    )
    for seed in range(2):  # the second sequence shows that nothing of the first is left over
        x, y = random_data(layers, 5, steps_given, schedule_of(loss), criterion, seed)
        batched.train_batch(x, y)
        every = schedule_of(loss) == "every_step"
        stream(streamed, x, [y[:, t] if every else y for t in range(steps_given)])
    assert_streamed_bits(batched, streamed)


@on_both
def test_a_part_without_target_only_carries_state(run):
    """Target at the end of the last part only: before it, only the state moves."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    theta = random_parameters(layers, 17)
    _, streamed = batch_and_stream(layers, dict(parts=3, alpha=0.4), SGD, 11, 5, **run)
    _, oracle = pair(layers, dict(kind="tbptt", parts=3), SGD, 11, 5)
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", 19)
    start = {k: v.copy() for k, v in streamed.parameters().items()}
    streamed.begin_sequence()
    for t in range(11):
        assert_bits_equal(streamed.parameters(), start, f"parameters before step {t}")
        target = (
            y if t in (4, 10) else None
        )  # step 4 is inside a part, so its target trains nothing
        streamed.step(x[:, t], target=target)
    streamed.end_sequence()
    oracle = type(oracle)(layers, dict(kind="tbptt", parts=3), SGD, 11, parameters=theta)
    wanted = oracle.part_gradients(x, y)[2]
    for name, value in streamed.parameters().items():
        assert_close(value, theta[name] - 0.3 * wanted[name], TOLERANCE[run["dtype"]], name)


@on_both
def test_streaming_every_step_with_missing_targets(run):
    """None at a step is -1 in the whole column; a part with no target at all makes no update."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(
        layers, dict(parts=3, alpha=0.4), MOMENTUM, 11, 5, loss="every_step", **run
    )
    for seed in range(2):
        x, y = random_data(layers, 5, 11, "every_step", "cross_entropy", seed)
        y[np.random.default_rng(seed).random(y.shape) < 0.3] = -1
        y[:, [0, 2, 8]] = -1
        y[:, 3:7] = -1
        y[0, 1] = 2
        batched.train_batch(x, y)
        stream(streamed, x, [None if (y[:, t] < 0).all() else y[:, t] for t in range(11)])
    assert_streamed_bits(batched, streamed)


@on_both
def test_streaming_every_step_with_minus_one_instead_of_none(run):
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(
        layers, dict(parts=3, alpha=0.4), MOMENTUM, 11, 5, loss="every_step", **run
    )
    x, y = random_data(layers, 5, 11, "every_step", "cross_entropy", 20)
    y[:, 3:8] = -1
    batched.train_batch(x, y)
    stream(streamed, x, list(y.T))
    assert_streamed_bits(batched, streamed)


@on_both
@pytest.mark.parametrize("state", ["reset", "carry"])
def test_streaming_across_sequences(state, run):
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(
        layers, dict(parts=3, state=state), SGD, 7, 5, loss="every_step", **run
    )
    for seed in range(3):
        x, y = random_data(layers, 5, 7, "every_step", "cross_entropy", seed)
        batched.train_batch(x, y)
        stream(streamed, x, list(y.T))
        batched.end_epoch()
        streamed.end_epoch()
        assert_streamed_bits(batched, streamed)


@on_both
def test_streamed_outputs_are_the_predictions_before_the_update(run):
    """With lr = 0 every output is the prediction; with lr > 0 still so in the first part only."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    x, y = random_data(layers, 5, 7, "every_step", "cross_entropy", 21)
    for lr, steps in [(0.0, 7), (0.5, 2)]:  # cuts 0, 2, 4, 7
        batched, streamed = batch_and_stream(
            layers, dict(parts=3), ("sgd", dict(lr=lr)), 7, 5, loss="every_step", **run
        )
        wanted = batched.predict(x)
        found = np.stack(stream(streamed, x, list(y.T)), axis=1)
        bound = 1e-12 if run["dtype"] == "float64" else 1e-6
        assert_close(found[:, :steps], wanted[:, :steps], bound, f"outputs at lr {lr}")
    assert np.abs(found[:, 2:] - wanted[:, 2:]).max() > 1e-3


@on_both
def test_streaming_a_smaller_batch(run):
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    batched, streamed = batch_and_stream(layers, dict(parts=3), SGD, 7, 5, **run)
    for seed, batch in enumerate((1, 5, 2)):
        x, y = random_data(layers, batch, 7, "last", "cross_entropy", seed)
        batched.train_batch(x, y)
        stream(streamed, x, [y] * 7)
    assert_streamed_bits(batched, streamed)
