"""Forward-mode gradient sources in use: streams, files, memory, work, who runs and who refuses."""

import re

import numpy as np
import pytest
from cases import assert_bits_equal
from test_sources import LENGTHS, STEPS, TWO, data

import fptt

# --- streams, files, memory, work ----------


def small(source, loss="last", dtype="float32", **options):
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Dropout(0.2), fptt.LSTM(5, 4), fptt.Linear(4, 6)])
    rule = fptt.FPTT(parts=3, source=source)
    return fptt.build(net, rule, fptt.Adam(), steps=7, batch=3, loss=loss, dtype=dtype, **options)


sources = pytest.mark.parametrize("source", ["rtrl", "ostl", "eprop"])
losses = pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])


@sources
@losses
def test_a_stream_learns_with_the_bits_of_a_batch(source, loss):
    x, y = data(TWO, loss, "cross_entropy")
    batches, stream = (fptt.Trainer(small(source, loss), seed=3) for _ in range(2))
    for _ in range(2):
        batches.train_batch(x, y)
        stream.begin_sequence()
        for t in range(STEPS):
            stream.step(x[:, t], y[:, t] if loss == "every_step" else y)
    for what in ("parameters", "state"):
        ours, theirs = getattr(stream, what)(), getattr(batches, what)()
        if what == "state":  # at T a stream draws new masks only when it goes on
            ours.pop("random"), theirs.pop("random")
        assert_bits_equal(ours, theirs, what)


@sources
@losses
def test_a_snapshot_inside_a_part_goes_on_with_the_same_bits(source, loss, tmp_path):
    x, y = data(TWO, loss, "cross_entropy")
    y = np.abs(y)  # so that more pairs are counted than there are classes

    def steps(trainer, low, high):
        for t in range(low, high):
            trainer.step(x[:, t], y[:, t] if loss == "every_step" else y)

    whole, half = (fptt.Trainer(small(source, loss), seed=3) for _ in range(2))
    steps(whole, 0, 7)
    steps(half, 0, 6)  # parts are 2, 2 and 3 steps long
    half.save(tmp_path / "state")
    rest = fptt.load(tmp_path / "state")
    assert rest.program.rule == half.program.rule
    assert_bits_equal(rest.state(), half.state(), "state")
    steps(rest, 6, 7)
    assert_bits_equal(rest.parameters(), whole.parameters(), "parameters")
    assert_bits_equal(rest.state(), whole.state(), "state")


@sources
@losses
def test_memory_does_not_depend_on_the_length(source, loss):
    net = fptt.Network([fptt.LSTM(3, 5), fptt.LSTM(5, 4), fptt.Linear(4, 6)])
    plans = [
        fptt.build(net, fptt.TBPTT(parts=k, source=source), steps=steps, loss=loss).memory()
        for k, steps in ((1, 4), (1, 4000), (7, 4000))
    ]
    assert plans[0] == plans[1] == plans[2]


def traced(net, source, batch=1):
    program = fptt.build(fptt.Network(net), fptt.TBPTT(source=source), steps=9, batch=batch)
    buffers = [b for b in program.buffers.values() if b.name.startswith("trace/")]
    assert all(b.role == "rule_state" and b.batch == batch for b in buffers)
    return sum(b.items for b in buffers)


def test_traces_take_what_the_theory_says():
    """Numbers of the traces: state x parameters, or one per parameter and row."""
    first, second = 20 * (3 + 5 + 1), 16 * (5 + 4 + 1)  # parameters of LSTM(3, 5) and LSTM(5, 4)
    net = [fptt.LSTM(3, 5), fptt.LSTM(5, 4), fptt.Linear(4, 6)]
    assert traced(net, "rtrl") == 2 * (5 + 4) * first + 2 * 4 * second
    assert traced(net, "ostl") == 2 * 5 * first + 2 * 4 * second
    assert traced(net, "eprop") == (first + second) * 3 // 4  # the gate o has no memory
    assert traced(net, "eprop", 3) == 3 * traced(net, "eprop")
    gru = 3 * 5 * (3 + 5) + 2 * 15
    assert traced([fptt.GRU(3, 5)], "ostl") == traced([fptt.GRU(3, 5)], "rtrl") == 5 * gru
    assert traced([fptt.RNN(3, 5)], "ostl") == 5 * 5 * (3 + 5 + 1)


def test_what_no_source_needs_takes_no_memory():
    """Every buffer of a program is used by some operation."""
    for source in ("rtrl", "ostl", "eprop"):
        program = small(source)
        used = {
            r.buffer.name for one in program.routines.values() for o, _ in one.ops() for r in o.refs
        }
        assert set(program.buffers) == used
    assert "0.dc" not in small("rtrl").buffers
    assert "0.h.before" not in small("eprop", train=["3.*"]).buffers


def test_traces_are_never_below_float32():
    types = {
        (b.name[:5] == "trace", b.dtype)
        for b in small("eprop", dtype="bfloat16").buffers.values()
        if b.role in ("rule_state", "parameter") and b.name != "random"
    }
    assert types == {(True, "float32"), (False, "bfloat16")}


def test_work_and_traces_grow_as_the_theory_says():
    """From n to 2n cells: traces of RTRL and OSTL by 8, their work by 16; both of e-prop by 4."""
    exponents = {}
    for source in ("rtrl", "ostl", "eprop"):
        sizes = []
        for n in (64, 128):
            program = fptt.build(
                fptt.Network([fptt.LSTM(1, n), fptt.Linear(n, 2)]),
                fptt.TBPTT(source=source),
                steps=10,
            )
            numbers = sum(b.items for b in program.buffers.values() if b.name[:5] == "trace")
            sizes.append((numbers, program.work().total("forward").mul))
        exponents[source] = [float(np.log2(b / a)) for a, b in zip(*sizes, strict=True)]
    assert exponents["rtrl"] == pytest.approx([3, 4], abs=0.05)
    assert exponents["ostl"] == pytest.approx([3, 4], abs=0.05)
    assert exponents["eprop"] == pytest.approx([2, 2], abs=0.05)


# --- traces start and end with the state ----------


@sources
def test_what_ends_a_state_ends_its_traces(source):
    """The next sequence, `reset_state`, new weights, and a loss that became Inf."""
    x, y = data(TWO, "last", "cross_entropy")
    trainer = fptt.Trainer(small(source, dtype="float64"), seed=3)

    def traces():
        found = [v for n, v in trainer.state().items() if n.startswith("trace/")]
        return max(float(np.abs(v).max()) for v in found)

    trainer.train_batch(x, y)
    assert traces() > 0
    trainer.reset_state()
    assert traces() == 0
    trainer.train_batch(x, y)
    trainer.load_parameters(trainer.parameters())
    assert traces() == 0
    trainer.step(x[:, 0])
    trainer.begin_sequence()
    first = trainer.part_gradients(x, y)
    trainer.train_batch(x[:, ::-1], y)
    trainer.load_parameters(trainer.program.net.initial(3))
    again = fptt.Trainer(small(source, dtype="float64"), seed=3)
    again.backend.write("random", trainer.backend.read("random"))
    for one, other in zip(again.part_gradients(x, y), trainer.part_gradients(x, y), strict=True):
        assert_bits_equal(one, other, "gradients")
    assert len(first) == 3

    trainer.lr = 1e300
    with pytest.raises(fptt.NumericalError):
        trainer.fit((1e3 * x, y), epochs=5)
    assert traces() == 0
    assert all(np.isfinite(v).all() for v in trainer.state().values())


@sources
def test_part_gradients_leave_everything_as_it_was(source):
    x, y = data(TWO, "last", "cross_entropy")
    trainer = fptt.Trainer(small(source), seed=3)
    trainer.train_batch(x, y)
    before = {**trainer.state(), **trainer.parameters()}
    before.pop("random"), trainer.part_gradients(x, y, LENGTHS)
    after = {**trainer.state(), **trainer.parameters()}
    after.pop("random")
    assert_bits_equal(after, before, "state")


# --- who runs it, and who refuses it ----------


def test_the_reference_runs_it_by_default_and_the_engine_says_why_not(tmp_path):
    program = small("eprop")
    trainer = fptt.Trainer(program)
    assert trainer.backend.name == "reference"
    assert "source='eprop'" in repr(trainer)
    message = (
        "the engine has no kernel for lstm_eprop_gradient, lstm_eprop_trace; "
        'for this program use backend="reference"'
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        fptt.Trainer(program, backend="native")
    from fptt.deploy.export import export

    message = (
        "export: the program (LSTM(3, 5) - Dropout(0.2) - LSTM(5, 4) - Linear(4, 6)) has "
        "operations without a C kernel, lstm_eprop_gradient, lstm_eprop_trace; train it on a "
        'computer, with Trainer(program, backend="reference"), or choose other layers'
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        export(program, trainer.parameters(), tmp_path / "model", target="rv64")


REFUSED = {
    'build: layer 0 is a GRU, which has no e-prop; choose a source that it serves ("bptt", "ostl", '
    '"rtrl"), or train only layers above it': ([fptt.GRU(3, 5), fptt.LSTM(5, 2)], "eprop", {}),
    'build: source="rtrl" is for recurrent networks, and Linear(3, 5) has no recurrent layer; '
    'leave source out, or give "bptt"': ([fptt.Linear(3, 5)], "rtrl", {}),
    'build: recompute goes with source="bptt" only, and the rule has source="ostl"; leave one of '
    "the two out": ([fptt.LSTM(3, 5)], "ostl", dict(recompute=True)),
    'build: adapters goes with source="bptt" only, and the rule has source="rtrl"; leave one of '
    "the two out": ([fptt.LSTM(3, 5)], "rtrl", dict(adapters={"0.weight_hh": 1})),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    layers, source, options = REFUSED[message]
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        fptt.build(fptt.Network(layers), fptt.TBPTT(parts=2, source=source), steps=4, **options)


def test_a_layer_below_everything_that_trains_need_not_serve_the_source():
    net = fptt.Network([fptt.GRU(3, 5), fptt.LSTM(5, 2)])
    program = fptt.build(net, fptt.TBPTT(parts=2, source="eprop"), steps=4, train=["1.*"])
    assert [b.name for b in program.carried] == [
        "0.h",
        "1.h",
        "1.c",
        "trace/1.c/1.weight_ih",
        "trace/1.c/1.weight_hh",
        "trace/1.c/1.bias",
    ]
