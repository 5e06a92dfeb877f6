"""Dropout: the generator, its masks, and that forward, backward and streams see the same one."""

import numpy as np
import pytest
from cases import assert_bits_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import DTYPES, cases, examples, random_batch, trainer_on

import fptt
from fptt.program.ops import Place, spec
from fptt.program.philox import philox, uniform
from fptt.reference.interpreter import Interpreter

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_philox4x32_10(counter, key, words):
    """The vectors that the authors of Random123 publish."""
    assert tuple(int(w) for w in philox(np.array(counter, np.uint64), key)) == words


def test_uniform_numbers_by_column_row_step_and_sequence():
    """Column 4 q + w is word w of counter (q, row, step, sequence) over 2^32."""
    row, step = np.array([0, 3, 1]), np.array([7, 7, 2])
    found = uniform(6, row, step, 11, key=(5, 2))
    assert found.shape == (3, 6)
    for n in range(3):
        for column in range(6):
            counter = np.array([column // 4, row[n], step[n], 11], np.uint64)
            assert found[n, column] == int(philox(counter, (5, 2))[column % 4]) / 2**32


def dropped(p=0.5, *, width=8, row=0, step=0, sequence=1, seed=1, layer=0):
    """The mask of some rows as booleans."""
    row, step = np.atleast_1d(row), np.atleast_1d(step)
    n = max(len(row), len(step))
    place = Place(0, np.broadcast_to(step, n), np.broadcast_to(row, n))
    y = spec("dropout").formula(
        np.ones((n, width)),
        np.array([seed, sequence], np.uint32),
        None,
        p=p,
        layer=layer,
        place=place,
    )
    return y == 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_of_dropped_elements(p):
    """200,000 draws: within five standard deviations of p, in every row and column too."""
    mask = dropped(p, width=400, row=np.arange(500))
    deviation = (p * (1 - p)) ** 0.5
    assert abs(mask.mean() - p) < 5 * deviation / mask.size**0.5
    assert abs(mask.mean(axis=0) - p).max() < 5 * deviation / 500**0.5
    assert abs(mask.mean(axis=1) - p).max() < 5 * deviation / 400**0.5


def test_masks_of_different_places_do_not_correlate():
    base = dict(p=0.5, width=4096)
    masks = [
        dropped(**base),
        dropped(**base, row=1),
        dropped(**base, step=1),
        dropped(**base, sequence=2),
        dropped(**base, seed=2),
        dropped(**base, layer=1),
    ]
    signs = [np.where(mask, 1.0, -1.0).reshape(-1) for mask in masks]
    for i, a in enumerate(signs):
        for b in signs[:i]:
            assert abs(a @ b) / len(a) < 5 / len(a) ** 0.5


def test_p_0_drops_nothing_and_keeps_the_bits():
    x = np.random.default_rng(1).normal(size=(3, 5))
    place = Place(0, np.zeros(3, int), np.arange(3))
    y = spec("dropout").formula(x, np.array([1, 1], np.uint32), None, p=0.0, layer=0, place=place)
    assert np.array_equal(x, y)


LAYERS = {
    "on recurrent": [fptt.LSTM(3, 5), fptt.Dropout(0.5), fptt.Linear(5, 4)],
    "first": [fptt.Dropout(0.4), fptt.GRU(3, 5), fptt.Linear(5, 4)],
    "between recurrent": [fptt.RNN(3, 5), fptt.Dropout(0.5), fptt.LSTM(5, 4)],
    "on linear, below": [fptt.Linear(3, 6), fptt.Dropout(0.5), fptt.GRU(6, 4)],
    "last": [fptt.LSTM(3, 4), fptt.Dropout(0.3)],
    "twice with ReLU": [
        fptt.LSTM(3, 5),
        fptt.Dropout(0.3),
        fptt.Linear(5, 6),
        fptt.ReLU(),
        fptt.Dropout(0.3),
        fptt.Linear(6, 4),
    ],
    "ReLU on dropout": [
        fptt.GRU(3, 5),
        fptt.Linear(5, 6),
        fptt.Dropout(0.5),
        fptt.ReLU(),
        fptt.Linear(6, 4),
    ],
    "on embedding": [fptt.Embedding(6, 3), fptt.Dropout(0.5), fptt.LSTM(3, 4)],
    "none recurrent": [fptt.Linear(3, 6), fptt.Dropout(0.5), fptt.Linear(6, 4)],
}
LOSSES = [("last", "cross_entropy"), ("every_step", "mse")]


def built(layers, loss="last", criterion="cross_entropy", lr=0.0, parts=1, **options):
    return fptt.build(
        fptt.Network(layers),
        fptt.TBPTT(parts=parts),
        fptt.SGD(lr=lr),
        steps=5,
        batch=3,
        loss=loss,
        criterion=criterion,
        dtype="float64",
        **options,
    )


def at_sequence(trainer, number, seed=1):
    """The next sequence will be `number` + 1."""
    trainer.backend.write("random", np.array([seed, number], np.uint32))


@pytest.mark.parametrize("lengths", [None, [5, 2, 3]], ids=["full", "unequal"])
@pytest.mark.parametrize(("loss", "criterion"), LOSSES)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_backward_use_the_same_mask(name, loss, criterion, lengths):
    """The gradient is the central difference of the loss at a fixed random state."""
    program = built(LAYERS[name], loss, criterion)
    trainer = fptt.Trainer(program, seed=2)
    x, y = random_batch(program, 3, 5, 1)
    at_sequence(trainer, 6)
    (gradients,) = trainer.part_gradients(x, y, lengths)
    theta, rng = trainer.parameters(), np.random.default_rng(3)
    assert any(np.abs(g).max() > 1e-3 for g in gradients.values())
    for parameter, value in theta.items():
        for flat in rng.choice(value.size, min(4, value.size), replace=False):
            losses = []
            for sign in (1, -1):
                moved = {k: v.copy() for k, v in theta.items()}
                moved[parameter].flat[flat] += sign * 1e-5
                trainer.load_parameters(moved)
                at_sequence(trainer, 6)
                losses.append(trainer.train_batch(x, y, lengths))
            numeric = (losses[0] - losses[1]) / 2e-5
            assert gradients[parameter].flat[flat] == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_off_in_prediction(name):
    """Predictions are those of the same network with p = 0, and do not move the random state."""
    bare = [
        fptt.Dropout(0.0) if isinstance(layer, fptt.Dropout) else layer for layer in LAYERS[name]
    ]
    trainer = fptt.Trainer(built(LAYERS[name], "every_step"), seed=2)
    without = fptt.Trainer(built(bare, "every_step"), seed=2)
    x, y = random_batch(trainer.program, 3, 5, 1)
    assert np.array_equal(trainer.predict(x), without.predict(x))
    before = trainer.state()["random"]
    trainer.predict(x)
    trainer.evaluate((x, y))
    assert np.array_equal(trainer.state()["random"], before)
    trained, exact = trainer.train_batch(x, y), without.train_batch(x, y)
    assert abs(trained - exact) > 1e-6, "dropout must act in training"


@pytest.mark.usefixtures("each_backend")
def test_streamed_outputs_of_a_head_with_dropout_are_predictions():
    """`readout` has no mask; `loss` has."""
    program = built([fptt.LSTM(3, 5), fptt.Dropout(0.5), fptt.Linear(5, 4)])
    trainer = fptt.Trainer(program, seed=2)
    x, _ = random_batch(program, 3, 5, 1)
    outputs = [trainer.step(x[:, t]) for t in range(5)]
    assert np.array_equal(outputs[-1], trainer.predict(x))


@pytest.mark.usefixtures("each_backend")
def test_every_sequence_gets_another_mask():
    program = built([fptt.LSTM(3, 5), fptt.Dropout(0.5), fptt.Linear(5, 4)])
    trainer = fptt.Trainer(program, seed=2)
    x, y = random_batch(program, 3, 5, 1)
    losses = [trainer.train_batch(x, y) for _ in range(6)]  # lr = 0: only the masks differ
    assert len(set(losses)) == 6
    assert trainer.state()["random"].tolist() == [2, 6]
    trainer.begin_sequence()
    trainer.step(x[:, 0])
    assert trainer.state()["random"].tolist() == [2, 7]


class MaskRecorder(Interpreter):
    """Remembers which elements every dropout operation of the forward pass set to zero."""

    def __init__(self, program):
        super().__init__(program)
        self.zeros, self.routine = [], ""

    def run(self, routine, frame, step=None):
        self.routine = routine
        super().run(routine, frame, step)

    def _execute(self, op, frame, t):
        super()._execute(op, frame, t)
        if op.kind == "dropout" and self.routine in ("forward", "loss"):
            self.zeros.append(self._load(op.outputs[0], frame, t) == 0)


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("place", ["body", "head, every step", "head, last"])
def test_uniform_numbers_reach_operations_by_absolute_step(place, parts):
    """Element (row, column) at step t, counted from the sequence's start whatever the parts."""
    layers = [fptt.Linear(3, 8), fptt.Dropout(0.5)] + [fptt.RNN(8, 4)] * (place == "body")
    loss = "last" if place == "head, last" else "every_step"
    program = built(layers, loss, "mse", parts=parts)
    memory = MaskRecorder(program)
    trainer = trainer_on(program, memory, seed=7)
    x, y = random_batch(program, 3, 5, 1)
    trainer.train_batch(x, y, [5, 3, 4])
    rows = [sum(length > t for length in (5, 4, 3)) for t in range(5)]
    wanted = {
        t: [uniform(8, [row], [t], 1, key=(7, 1))[0] < 0.5 for row in range(n)]
        for t, n in enumerate(rows)
    }
    if place == "head, last":
        ends = [high for _, high in program.bounds]
        expected = []
        for low, high in zip([0, *ends], ends, strict=False):
            running = [min(length, high) - 1 for length in (5, 4, 3) if length > low]
            expected += [wanted[last][row] for row, last in enumerate(running)]
    else:
        expected = [mask for masks in wanted.values() for mask in masks]
    assert np.array_equal(np.concatenate(memory.zeros), expected)


@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_rows_steps_and_layers_get_different_masks(loss):
    """Equal rows of input give different outputs of training; so do equal steps and layers."""
    program = built([fptt.Linear(3, 8), fptt.Dropout(0.5)], loss, "mse")
    trainer = fptt.Trainer(program, seed=2)
    x = np.ones((3, 5, 3))
    y = np.zeros((3, 5, 8) if loss == "every_step" else (3, 8))
    gradients = {}
    for row in range(3):
        for step in range(5) if loss == "every_step" else (4,):
            at_sequence(trainer, 0)
            wanted = y.copy()
            wanted[(row, step) if loss == "every_step" else row] = 1.0
            gradients[row, step] = trainer.part_gradients(x, wanted)[0]["0.bias"].tobytes()
    assert len(set(gradients.values())) == len(gradients)


@pytest.mark.usefixtures("each_backend")
def test_seeds():
    """The same seed repeats every bit; another seed, with equal weights, drops other elements."""
    program = built([fptt.GRU(3, 5), fptt.Dropout(0.5), fptt.Linear(5, 4)], lr=0.1, parts=2)
    x, y = random_batch(program, 3, 5, 1)

    def trained(seed):
        trainer = fptt.Trainer(program, seed=seed)
        trainer.load_parameters(program.net.initial(0))
        for _ in range(2):
            trainer.train_batch(x, y)
        return trainer.parameters()

    assert_bits_equal(trained(4), trained(4), "seed 4")
    first, second = trained(4), trained(5)
    assert not np.array_equal(first["2.weight"], second["2.weight"])


@pytest.mark.parametrize("backend", ["native", "reference"])
@settings(max_examples=examples(40))
@given(data=st.data())
def test_streaming_is_the_batch_call_bit_for_bit(backend, data):
    """Any program, dropout and unlabelled steps included; equal lengths, the full T steps."""
    native = backend == "native"
    case = data.draw(cases(dtypes=DTYPES[1:] if native else DTYPES, engine=native))
    program = case.program
    x, y = random_batch(program, case.x.shape[0], program.steps, 5)
    batched, streamed = case.trainer(backend), case.trainer(backend)
    for _ in range(2):
        batched.train_batch(x, y)
        streamed.begin_sequence()
        for t in range(program.steps):
            streamed.step(x[:, t], target=y[:, t] if program.schedule.every_step else y)
        streamed.end_sequence()
    assert_bits_equal(streamed.parameters(), batched.parameters(), "parameters")
    assert_bits_equal(streamed.state(), batched.state(), "state")


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("name", LAYERS)
def test_streaming_with_dropout(name):
    for loss, criterion in LOSSES:
        program = built(LAYERS[name], loss, criterion, lr=0.1, parts=2)
        x, y = random_batch(program, 3, 5, 5)
        batched, streamed = fptt.Trainer(program, seed=1), fptt.Trainer(program, seed=1)
        for _ in range(2):
            batched.train_batch(x, y)
            streamed.begin_sequence()
            for t in range(5):
                streamed.step(x[:, t], target=y[:, t] if loss == "every_step" else y)
            streamed.end_sequence()
        assert_bits_equal(streamed.parameters(), batched.parameters(), "parameters")
        assert streamed.state()["random"].tolist() == [1, 2]


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_an_endless_stream_is_a_row_of_batches(name, steps):
    """With carried state: 3 T steps without a pause equal 3 batches of T; no mask comes again."""
    program = fptt.build(
        fptt.Network(LAYERS[name]),
        fptt.TBPTT(parts=1, state="carry"),
        fptt.SGD(lr=0.1),
        steps=steps,
        batch=3,
        loss="every_step",
    )
    x, y = random_batch(program, 3, steps, 5)
    batched, streamed = fptt.Trainer(program, seed=1), fptt.Trainer(program, seed=1)
    for _ in range(3):
        batched.train_batch(x, y)
        for t in range(steps):
            streamed.step(x[:, t], target=y[:, t])
    streamed.end_sequence()
    assert_bits_equal(streamed.parameters(), batched.parameters(), "parameters")
    assert streamed.state()["random"].tolist() == [1, 3]
