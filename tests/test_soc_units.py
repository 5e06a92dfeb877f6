"""Units that the published system lacks, and what they buy."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import fptt
from fptt.errors import InputError
from fptt.soc import cycles, load_chip, of_program, published
from fptt.soc.constants import load_constants
from fptt.soc.datafile import FOLDER, entry, read_toml
from fptt.soc.units import costs
from fptt.soc.whatif import PARTS, changes, what_if

PERFORMANCE = Path(__file__).parent.parent / "docs/performance.md"


def chip(name="8x8-1", **extras):
    return load_chip(name).with_(extras={key: float(value) for key, value in extras.items()})


@pytest.fixture(scope="module")
def programs():
    net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
    sgd = fptt.SGD(lr=0.01)
    return {
        parts: fptt.build(net, fptt.FPTT(parts=parts), sgd, steps=784, batch=4, loss="last")
        for parts in PARTS
    }


def test_every_cost_has_a_unit_and_a_source():
    path = FOLDER / "units.toml"
    for key, given in read_toml(path, "costs of units").items():
        found = entry(path, key, given)
        assert found.value > 0 and found.unit and found.source


def test_beats_are_those_that_were_counted():
    """docs/performance.md prints them, at batch 4: 28 steps of 4 x 128 elements."""
    counted = {
        name: int(beats.replace(",", ""))
        for name, beats in re.findall(
            r"^ +(fptt_\w+) +128 +28 +4 +[\d,]+ +[\d,]+ +([\d,]+) ", PERFORMANCE.read_text(), re.M
        )
    }
    known = costs()
    forward = counted["fptt_lstm_forward"] / (28 * 512)
    functions = forward - 4 * known["vector_operation"] - 11 * known["vector_access"]
    assert known["vector_function"] == pytest.approx(functions / 5, rel=0.01)
    assert known["vector_update"] == pytest.approx(counted["fptt_apply"] / 67850, rel=0.001)
    # and the backward pass, which was not used: 22 operations, 13 accesses, one tanh
    backward = 22 * known["vector_operation"] + 13 * known["vector_access"]
    backward += known["vector_function"]
    assert counted["fptt_lstm_backward"] / (28 * 512) == pytest.approx(backward, rel=0.15)


def test_instructions_are_those_that_were_counted():
    text = PERFORMANCE.read_text()
    each = {
        name: float(value)
        for name, value in re.findall(r"^ +rv64 +(\w+) +[\d,]+ +[\d,]+ +([\d.]+) ", text, re.M)
    }
    assert costs()["scalar_update"] == each["update"]
    assert costs()["scalar_function"] == pytest.approx(
        (each["sigmoid"] + each["tanh"]) / 2, abs=0.1
    )
    implied = re.search(r"([\d.]+) +implied by the published run +28 ", text)
    assert implied and costs()["cycles_per_instruction"] == float(implied[1])


def test_an_unknown_unit_is_refused():
    with pytest.raises(InputError, match=r"extras\.coffee is unknown; expected vector_bits, "):
        cycles(chip(coffee=1), published(1))


@pytest.mark.parametrize("value", [0.0, -128.0, float("nan"), float("inf")])
def test_a_unit_of_no_size_is_refused(value):
    with pytest.raises(InputError, match=r"extras\.vector_bits is .*; expected a number from 1"):
        cycles(chip(vector_bits=value), published(1))


@pytest.mark.parametrize(
    ("parts", "seconds", "error"), [(1, 22.06, 0.03), (28, 22.85, 0.06), (784, 29.64, 0.25)]
)
def test_the_single_rocket_is_near_what_was_published(parts, seconds, error):
    """The cores' cycles per instruction come from K = 28; K = 784 shows what they do not know."""
    found = cycles(load_chip("rocket"), published(parts))["total"] / 500e6
    assert abs(found / seconds - 1) < error


def test_scalar_products_by_hand():
    found = cycles(load_chip("rocket"), published(1))["MatMul-2"]
    macs = 784 * 4 * (4 * 129 * 128 + 128 * 10)
    assert found == pytest.approx(macs * 6.06 * 2.25)
    emulated = load_chip("rocket").with_(emulated_bf16=True, data_type="bf16", cores=4)
    prices = load_constants().prices
    each = 2 * (prices.operation + prices.access)
    assert cycles(emulated, published(1))["MatMul-2"] == pytest.approx(macs / 4 * each)


def test_our_updates_take_what_our_kernels_take(programs):
    work, known = of_program(programs[1]), replace(load_constants(), memory=1e-9)
    scalar = cycles(load_chip("8x8-1").with_(emulated_bf16=False), work, known)["EWO-SGD"]
    assert scalar == pytest.approx(67850 * 16.64 * 2.25)
    vector = cycles(chip(vector_bits=128), work, known)["EWO-SGD"]
    assert vector == pytest.approx(67850 * 7.48)


def test_a_unit_takes_its_class_and_nothing_else():
    plain, work = cycles(chip(), published(28)), published(28)
    activation = cycles(chip(activation_lanes=1), work)
    update = cycles(chip(fptt_lanes=1), work)
    for name in plain:
        if name in ("Sigmoid", "tanh"):
            assert activation[name] < plain[name] / 50 and update[name] == plain[name]
        elif name == "EWO-SGD":
            assert update[name] < plain[name] / 50 and activation[name] == plain[name]
        elif name != "total":
            assert activation[name] == update[name] == plain[name]


def test_a_unit_waits_for_its_lanes_or_for_the_bus():
    known, work = replace(load_constants(), memory=1e-9), published(784)
    call, loops = known.call, 10 * 784
    one, two, many = (cycles(chip(fptt_lanes=n), work, known)["EWO-SGD"] for n in (1, 2, 100))
    # one parameter a cycle: 8 numbers of 16 bits, which is what the bus of 128 bits moves
    assert one == pytest.approx(loops * call + 784 * 67850, rel=1e-9)
    assert one == two == many
    # what is in DRAM is waited for, as by the cores
    slow = cycles(chip(fptt_lanes=1), work)["EWO-SGD"]
    cores = [cycles(chip(), work, k)["EWO-SGD"] for k in (load_constants(), known)]
    assert slow - one == pytest.approx(cores[0] - cores[1])
    wide = cycles(chip(fptt_lanes=2).with_(bus_bits=1024), work, known)["EWO-SGD"]
    assert wide == pytest.approx(loops * call + 784 * 67850 / 2, rel=1e-9)


def test_the_activation_unit_waits_for_the_bus():
    found = cycles(chip(activation_lanes=100), published(1))["Sigmoid"]
    # 512 elements in and out, 16 bits each, over 128
    assert found == pytest.approx(3 * 784 * (load_constants().call + 2 * 512 * 16 / 128))


def test_vectors_take_beats_or_wait_for_the_bus():
    work = published(28)
    narrow, wide, wider = (
        cycles(chip(vector_bits=bits), work)["Sigmoid"] for bits in (128, 256, 2**20)
    )
    elements = 3 * 784 * 512
    known = costs()
    assert narrow == pytest.approx(elements * (known["vector_function"] + 2 * 0.25))
    assert wide == pytest.approx(narrow / 2)
    assert wider == pytest.approx(elements * 2 * 16 / 128)


def test_consecutive_elements_leave_only_barriers():
    free = cycles(chip("8x8-10", blocks=1), published(28))
    cyclic = cycles(load_chip("8x8-10"), published(28))
    assert all(free[name] <= cyclic[name] for name in free)
    own = -(-512 // 10) * load_constants().sigmoid + load_constants().barrier
    assert free["Sigmoid"] == pytest.approx(3 * 784 * own)


def test_bfloat16_in_the_core_costs_instructions():
    found = cycles(load_chip("8x8-1").with_(emulated_bf16=False), published(28))
    known = costs()
    instructions = known["scalar_loop"] + known["scalar_function"] + 2 * known["scalar_access"]
    each = instructions * known["cycles_per_instruction"]
    assert found["Sigmoid"] == pytest.approx(3 * 784 * 512 * each)


def test_what_each_change_buys(programs):
    rows = what_if(programs)
    assert len({row.change.name for row in rows}) == len(rows) == len(changes())
    assert set(rows[0].speedup.values()) == {1.0}
    by_name = {row.change.name: row for row in rows}
    for row in rows:
        assert row.change.assumes
        assert sum(row.classes.values()) == pytest.approx(1)
        work = {k: of_program(p) if row.change.ours else published(k) for k, p in programs.items()}
        for parts in PARTS:
            direct = cycles(row.change.chip, work[parts])["total"] / row.change.chip.clock_hz
            assert row.seconds[parts] == direct
            assert row.speedup[parts] == pytest.approx(rows[0].seconds[parts] / direct)
    # better kernels and a small unit beat more cores
    assert by_name["one core, vector unit"].speedup[28] > 3
    assert by_name["one core, our program"].speedup[28] < 1
    few, many = (by_name[name].resources.lut for name in ("one core, everything", "vector units"))
    assert few < many / 2
