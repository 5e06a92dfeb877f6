"""The cycle model: the published program's work list, the model's laws, calibration, validation."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import fptt
from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc import cycles, load_chip, of_program, published, uncertainty
from fptt.soc.calibration import calibrate
from fptt.soc.constants import (
    CALIBRATED,
    FITTED,
    NAMES,
    constants_text,
    load_constants,
    with_values,
)
from fptt.soc.cycles import QUIET_AFTER, product_cycles
from fptt.soc.measurements import Measured, read_measurements
from fptt.soc.validation import MEASURED, Cell, calibrated, compare, dominant, errors, leave_one_out
from fptt.soc.workload import Product

MEASUREMENTS = read_measurements(MEASURED)
WIDTHS = {"I": 1, "H": 128, "C": 10, "B": 4}


def walk(parts, steps):
    """The published program step by step: what it calls, and how often."""
    calls = Counter()
    h, joined, c, b = WIDTHS["H"], WIDTHS["H"] + WIDTHS["I"], WIDTHS["C"], WIDTHS["B"]
    for part in range(parts):
        first, end = part * steps // parts, (part + 1) * steps // parts
        calls["dataMovement", 2 * b * h] += 1
        for _ in range(first, end):
            calls["dataMovement", b * WIDTHS["I"]] += 1
            for gate in "ifgo":
                calls["MatMul-2", (b, joined, h)] += 1
                calls["tanh" if gate == "g" else "Sigmoid", b * h] += 1
            for function in ("EWO-basic", "EWO-basic", "tanh", "EWO-basic"):
                calls[function, b * h] += 1
            calls["MatMul-2", (b, h, c)] += 1
            calls["softmax", b * c] += 1
            calls["dataMovement", b * h] += 1
        calls["EWO-basic", b * c] += 1
        calls["MatMul-3", (c, b, h)] += 1
        calls["Mat2Vec", c] += 1
        calls["MatMul-1", (b, c, h)] += 1
        for t in reversed(range(first, end)):
            calls["EWO-combo", b * h] += 1
            calls["EWO-basic", b * h] += 1
            calls["EWO-combo", b * h] += 1
            calls["MatMul-3", (h, b, joined)] += 1
            calls["Mat2Vec", h] += 1
            for s in (t, t - 1):
                if s < first:
                    continue
                for _ in range(3):
                    calls["EWO-basic", b * h] += 1
                    calls["EWO-combo", b * h] += 1
                    calls["MatMul-3", (h, b, joined)] += 1
                    calls["Mat2Vec", h] += 1
                calls["EWO-basic", b * h] += 1
                if s == t:
                    calls["MatMul-1", (b, h, joined)] += 4
        for size in 4 * [h * joined] + 4 * [h] + [c * h, c]:
            calls["EWO-SGD", size] += 1
    return calls


@pytest.mark.parametrize(("parts", "steps"), [(1, 784), (28, 784), (784, 784), (3, 10), (7, 23)])
def test_the_published_work_list_is_the_program_step_by_step(parts, steps):
    listed = Counter()
    for task in published(parts, steps=steps).tasks:
        p = task.product
        listed[task.function, (p.rows, p.inner, p.columns) if p else task.elements] += task.calls
    assert listed == walk(parts, steps)


def test_parts_that_the_sequence_does_not_allow_are_refused():
    for parts in (0, 785):
        with pytest.raises(InputError, match=f"parts is {parts}; expected 1 to 784"):
            published(parts)


@pytest.mark.parametrize(
    "net",
    [
        fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)]),
        fptt.Network([fptt.GRU(3, 5), fptt.RNN(5, 7), fptt.ReLU(), fptt.Linear(7, 2)]),
    ],
)
def test_work_of_a_program_is_its_own_count(net):
    rule, sgd = fptt.FPTT(parts=3), fptt.SGD(lr=0.1, momentum=0.9)
    program = fptt.build(net, rule, sgd, steps=13, batch=2, loss="last")
    work, counted = of_program(program), program.keeping_gradients().work().by_function()
    products = {t.function for t in work.tasks if t.product}
    assert products == {"MatMul-1", "MatMul-2", "MatMul-3"}
    assert work.macs == sum(counted[name].mul for name in products)
    for name in set(FUNCTION_CLASSES) - products:
        tasks = [t for t in work.tasks if t.function == name]
        operations = sum(t.calls * t.elements * t.operations for t in tasks)
        functions = sum(t.calls * t.elements * t.transcendental for t in tasks)
        assert operations == pytest.approx(counted[name].mul + counted[name].add, rel=1e-12)
        assert functions == pytest.approx(counted[name].trans, rel=1e-12)
    assert work.parameters == sum(a.size for a in fptt.Trainer(program).parameters().values())


def test_products_of_a_program_have_its_sizes():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 2)])
    program = fptt.build(
        net, fptt.FPTT(parts=2), fptt.SGD(lr=0.1), steps=6, batch=4, loss="last",
        keep_gradients=True,
    )  # fmt: skip
    found = {
        function: {
            (p.rows, p.inner, p.columns, p.transposed, p.accumulated)
            for t in of_program(program).tasks
            if t.function == function and (p := t.product)
        }
        for function in ("MatMul-1", "MatMul-2", "MatMul-3")
    }
    assert found == {
        # dy [4, 2] and da [4, 20] by weights that lie as [outputs, inputs]
        "MatMul-1": {(4, 2, 5, False, False), (4, 20, 5, False, False)},
        # [x, h] and h by the same, transposed
        "MatMul-2": {(4, 8, 20, True, False), (4, 5, 2, True, False)},
        # gradients [20, 3], [20, 5] over the 3 steps of a part, and [2, 5]
        "MatMul-3": {(20, 12, 3, False, True), (20, 12, 5, False, True), (2, 4, 5, False, True)},
    }


def test_another_optimizer_costs_by_its_operations():
    net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
    known = load_constants()
    free = replace(known, memory=1e-9)
    for optimizer, operations in ((fptt.SGD(lr=0.1), 14), (fptt.SGD(lr=0.1, momentum=0.9), 16)):
        program = fptt.build(net, fptt.FPTT(parts=2), optimizer, steps=6, batch=2, loss="last")
        work = of_program(program)
        found = cycles(load_chip(), work, free)["EWO-SGD"]
        each = known.update * operations / 13
        assert found == pytest.approx(2 * work.parameters * each, rel=1e-6)


def test_gradients_that_are_not_kept_come_in_pieces_of_the_scratch_memory():
    net = fptt.Network([fptt.LSTM(3, 40), fptt.Linear(40, 3)])
    program = fptt.build(net, fptt.FPTT(parts=4), fptt.SGD(lr=0.1), steps=12, batch=2, loss="last")
    room = program.memory().categories["scratch"] // 4
    kept, pieces = of_program(program.keeping_gradients()), of_program(program)
    assert kept.macs == pieces.macs
    largest = {}
    for work in (kept, pieces):
        products = [t.product for t in work.tasks if t.function == "MatMul-3"]
        largest[work] = max(p.rows * p.columns for p in products)
    assert largest[pieces] <= room < largest[kept] == 160 * 40
    chip = load_chip()
    assert cycles(chip, pieces)["MatMul-3"] > cycles(chip, kept)["MatMul-3"]


def test_units_compute_only_what_they_can():
    """The FPTT unit has plain SGD: Adam, momentum and clipping stay with the cores."""
    net = fptt.Network([fptt.LSTM(1, 32), fptt.Linear(32, 3)])
    unit = load_chip().with_(extras={"fptt_lanes": 4.0})
    for optimizer, clip, helps in (
        (fptt.SGD(lr=0.1), None, True),
        (fptt.SGD(lr=0.1, momentum=0.9), None, False),
        (fptt.Adam(lr=0.1), None, False),
    ):
        program = fptt.build(
            net, fptt.FPTT(parts=2), optimizer, steps=6, batch=2, loss="last", clip=clip
        )
        plain, with_unit = (cycles(chip, of_program(program)) for chip in (load_chip(), unit))
        assert (with_unit["EWO-SGD"] < plain["EWO-SGD"] / 5) == helps
        if not helps:
            assert with_unit == plain


def test_a_program_without_matrix_products_of_the_array_is_priced():
    """Sums along traces stand in a MatMul class, but are no products of two matrices."""
    net = fptt.Network([fptt.LSTM(2, 4), fptt.Linear(4, 3)])
    rule = fptt.FPTT(parts=2, source="eprop")
    program = fptt.build(net, rule, fptt.SGD(lr=0.1), steps=6, batch=2, loss="last")
    work = of_program(program)
    traces = [t for t in work.tasks if t.function == "MatMul-3" and t.product is None]
    assert traces
    assert all(t.elements > 0 and t.operations > 0 for t in traces)
    assert cycles(load_chip(), work)["MatMul-3"] > 0


@pytest.mark.parametrize("source", ["rtrl", "ostl"])
def test_tangents_are_products_and_the_rest_of_what_was_counted(source):
    layers = [fptt.LSTM(2, 4), fptt.Linear(4, 6), fptt.GRU(6, 5), fptt.RNN(5, 3), fptt.Linear(3, 3)]
    net = fptt.Network(layers)
    rule = fptt.FPTT(parts=2, source=source)
    program = fptt.build(net, rule, fptt.SGD(lr=0.1), steps=6, batch=2, loss="last")
    work = of_program(program)
    for kind in (
        "lstm_tangent",
        "gru_tangent",
        "rnn_tangent",
        "affine_tangent",
        "tangent_gradient",
    ):
        tasks = [task for task in work.tasks if task.kind == kind]
        counted = [item.work for item in program.work().items if item.kind == kind]
        operations = sum(
            task.calls
            * (2 * task.product.macs if task.product else task.elements * task.operations)
            for task in tasks
        )
        assert operations == pytest.approx(sum(w.mul + w.add for w in counted), rel=1e-12)
        assert bool(tasks) == (kind != "affine_tangent" or source == "rtrl")
    assert all(task.operations >= 0 for task in work.tasks)
    tangents = [t.product for t in work.tasks if t.kind == "lstm_tangent" and t.product]
    assert {(p.inner, p.columns) for p in tangents} == {(4, 16)}


# -- laws --------------------------------------------------------------------------------------


def test_one_core_shares_nothing():
    known = load_constants()
    free = replace(known, barrier=1e-9, take=1e-9, retake=1e-9, retake_update=1e-9)
    one = load_chip("4x4-1")
    assert cycles(one, published(28), known) == pytest.approx(cycles(one, published(28), free))


def test_cores_do_nothing_for_what_is_serial():
    few, many = (cycles(load_chip(name), published(7)) for name in ("8x8-1", "8x8-10"))
    for name in ("MatMul-1", "MatMul-2", "MatMul-3", "softmax", "dataMovement"):
        assert few[name] == many[name]
    assert all(few[name] > many[name] for name in ("Sigmoid", "tanh", "EWO-SGD", "EWO-combo"))


def test_the_mesh_does_nothing_for_loops():
    small, large = (cycles(load_chip(name), published(7)) for name in ("4x4-6", "8x8-6"))
    for name in FUNCTION_CLASSES:
        if name.startswith("MatMul"):
            assert large[name] < small[name]
        else:
            assert large[name] == small[name]


def test_without_an_array_the_cores_compute_the_products():
    chip = load_chip("rocket")
    assert (
        cycles(chip, published(1))["MatMul-2"] > 5 * cycles(load_chip(), published(1))["MatMul-2"]
    )


@pytest.mark.parametrize("mesh", [4, 8, 16])
def test_a_product_takes_no_less_than_its_rows_need_to_enter_the_array(mesh):
    chip, known = load_chip().with_(mesh=mesh), load_constants()
    large = Product(512, 512, 512)
    tiles = (512 // mesh) ** 2
    assert product_cycles(chip, large, known) == pytest.approx(known.call + tiles * 512)
    # rows of 4 of a product with few rows wait for memory instead
    assert product_cycles(chip, Product(4, 512, 512), known) > known.call + tiles * mesh


def test_a_tile_takes_no_less_than_its_own_rows_to_enter():
    fast = replace(load_constants(), row_read=1e-9, row_written=1e-9)
    chip = load_chip().with_(mesh=8, bus_bits=1024)
    found = product_cycles(chip, Product(1, 64, 64), fast)
    assert found == pytest.approx(fast.call + 8 * 8 * 8)


def test_an_operand_that_does_not_fit_the_scratchpad_is_read_again():
    known = replace(load_constants(), row_read=500.0)

    def found(product, kib):
        return product_cycles(load_chip().with_(scratchpad_kib=kib), product, known)

    # 1 MiB does not fit; 512 columns come in blocks of 64 KiB: the first operand is read 8 times
    product = Product(1024, 512, 512)
    assert found(product, 128) - found(product, 4096) == pytest.approx(7 * 1024 * 128 * 500.0)
    # 64 KiB fit, however large the second operand is
    product = Product(64, 512, 512)
    assert found(product, 128) == found(product, 4096)


def test_products_take_no_less_than_the_bus_needs():
    product = Product(4, 1024, 512)
    narrow, wide = (
        product_cycles(load_chip().with_(mesh=32, bus_bits=bits), product, load_constants())
        for bits in (64, 4096)
    )
    rows = 4 * 32 + 1024 * 16 + 4 * 16
    assert narrow == pytest.approx(load_constants().call + rows * 32 * 16 / 64)
    assert wide < narrow / 3


def test_work_of_a_loop_that_hardly_computes():
    """An embedding's gradient touches the rows of the batch, not the table."""
    net = fptt.Network([fptt.Embedding(1000, 64), fptt.LSTM(64, 16), fptt.Linear(16, 3)])
    program = fptt.build(net, fptt.FPTT(parts=2), fptt.SGD(lr=0.1), steps=8, batch=4, loss="last")
    for task in of_program(program).tasks:
        if task.product is None and task.kind not in ("fill", "copy", "embedding"):
            assert task.operations + task.transcendental >= 1
    (gradient,) = [t for t in of_program(program).tasks if t.kind == "embedding_gradient"]
    assert gradient.elements == 4 * 64


def test_totals_are_sums_and_uncertainty_grows_away_from_what_was_measured():
    found = cycles(load_chip("8x8-6"), published(14))
    assert found["total"] == pytest.approx(sum(found[name] for name in FUNCTION_CLASSES))
    known, work = load_constants(), published(14)
    assert uncertainty(load_chip("4x4-4"), work, known) < 0.02
    for near, far in (("4x4-4", "4x4-6"), ("4x4-1", "4x4-2"), ("8x8-10", "8x8-20")):
        assert uncertainty(load_chip(near), work) < uncertainty(load_chip(far), work) < 0.1
    large = load_chip().with_(mesh=32)
    assert uncertainty(large, work) > uncertainty(load_chip(), work)


def test_the_gradient_underflows_where_the_model_says():
    """QUIET_AFTER: the published backward pass in an untrained LSTM of the published size."""
    hidden, batch, steps = 128, 4, 120
    rng = np.random.default_rng(0)
    bound = hidden**-0.5
    wx, wh, bias = (
        rng.uniform(-bound, bound, shape)
        for shape in ((4, hidden), (4, hidden, hidden), (4, hidden))
    )
    h = c = np.zeros((batch, hidden))
    trace = []
    for _ in range(steps):
        x = rng.choice([0.0, 0.0, 0.0, 0.0, 1.0], (batch, 1))
        a = [x * wx[k] + h @ wh[k].T + bias[k] for k in range(4)]
        i, f, o = (1 / (1 + np.exp(-a[k])) for k in (0, 1, 3))
        g, before = np.tanh(a[2]), c
        c = f * c + i * g
        h = o * np.tanh(c)
        trace.append((i, f, g, o, c, before))
    dh = rng.normal(0, 0.02, (batch, hidden))
    back = 0
    for i, f, g, o, c, before in reversed(trace):
        ds = dh * o * (1 - np.tanh(c) ** 2)
        gates = (
            ds * g * i * (1 - i),
            ds * before * f * (1 - f),
            ds * i * (1 - g**2),
            dh * np.tanh(c) * o * (1 - o),
        )
        dh = sum(d @ w for d, w in zip(gates, wh, strict=True))
        back += 1
        if np.abs(dh).max() < 2.0**-133:
            break
    assert abs(back - QUIET_AFTER) <= 5


# -- calibration -------------------------------------------------------------------------------


def test_far_fewer_constants_than_measurements():
    assert len(NAMES) == 23
    assert len(MEASUREMENTS) * len(FUNCTION_CLASSES) == 132


def synthetic(known, designs=("4x4-1", "4x4-4", "4x4-10", "8x8-1"), all_parts=(1, 28, 784)):
    found = []
    for name in designs:
        chip = load_chip(name)
        for parts in all_parts:
            classes = {k: round(v) for k, v in cycles(chip, published(parts), known).items()}
            found.append(Measured(chip.mesh, chip.cores, parts, classes))
    return found


def test_calibration_finds_the_constants_that_made_the_measurements():
    rng = np.random.default_rng(3)
    truth = with_values(f.metadata["guess"] * rng.uniform(0.8, 1.25) for f in FITTED)
    found = calibrate(synthetic(truth))
    for name in ("4x4-2", "4x4-8", "8x8-10"):
        for parts in (2, 56, 392):
            true, said = (cycles(load_chip(name), published(parts), k) for k in (truth, found))
            for function in (*FUNCTION_CLASSES, "total"):
                assert said[function] == pytest.approx(true[function], rel=0.01)
    for name in ("sigmoid", "tanh", "derivative", "update", "call", "row_read"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.01)


def test_the_constants_of_the_package_are_those_of_its_measurements():
    again = calibrated(MEASUREMENTS)
    packaged = load_constants(CALIBRATED)
    for name in NAMES:
        assert getattr(again, name) == pytest.approx(getattr(packaged, name), rel=2e-3)
    for name, spread in again.spreads.items():
        assert spread == pytest.approx(packaged.spreads[name], abs=2e-4)


def test_predictions_are_near_all_measurements():
    found = errors(compare(MEASUREMENTS, load_constants()))
    assert found["total"].median < 0.002 and found["total"].worst < 0.009
    assert max(error.median for error in found.values()) < 0.02
    assert max(error.worst for error in found.values()) < 0.10


def test_predictions_of_what_calibration_did_not_see():
    cells = leave_one_out(MEASUREMENTS)
    designs = {f"design {name}" for name in ("4x4-1", "4x4-4", "4x4-10", "8x8-1")}
    assert {cell.left_out for cell in cells} == designs | {"K = 1", "K = 28", "K = 784"}
    assert len(cells) == 2 * 12 * 12
    found = errors(cells)
    assert found["total"].median < 0.005 and found["total"].worst < 0.03
    assert max(error.worst for error in found.values()) < 0.12


def test_the_model_explains_which_class_dominates():
    found = dominant(compare(MEASUREMENTS, load_constants()))
    assert len(found) == 12
    assert all(measured == predicted for measured, predicted in found.values())
    # slow functions, then products on ten cores, then updates where K is large
    assert found["4x4", 1, 1][0] == "Sigmoid"
    assert found["4x4", 10, 1][0] == "MatMul-3"
    assert {found["4x4", n, 784][0] for n in (1, 4, 10)} == {"EWO-SGD"}


VALUE = f"value = {load_constants().multiply:.5g}"


def test_dominant_classes_may_differ():
    cells = [
        Cell("4x4", 1, 1, name, measured, predicted)
        for name, measured, predicted in (("tanh", 5, 6.0), ("Sigmoid", 7, 3.0), ("total", 12, 9.0))
    ]
    assert dominant(cells) == {("4x4", 1, 1): ("Sigmoid", "tanh")}


def test_constants_that_the_measurements_do_not_determine_make_predictions_uncertain():
    """With one core only, nothing is known of sharing, and the model says so."""
    alone = calibrated([m for m in MEASUREMENTS if m.cores == 1])
    shared = {"barrier", "take", "retake", "retake_update", "crowding", "column_crowding"}
    assert shared <= set(alone.undetermined())
    assert not shared - {"barrier"} & set(load_constants().undetermined())
    work = published(784)
    assert uncertainty(load_chip("4x4-1"), work, alone) < 0.05
    many = load_chip("8x8-10")
    sd = uncertainty(many, work, alone)
    assert sd > 0.15
    # the published 3.72 s lie within two standard deviations
    assert abs(cycles(many, work, alone)["total"] / 500e6 / 3.72 - 1) < 2 * sd


def test_one_design_point_with_one_k_is_enough_to_calibrate():
    (one,) = [m for m in MEASUREMENTS if (m.design, m.parts) == ("4x4-4", 28)]
    known = calibrated([one])
    assert set(known.spreads.values()) == {0.1}
    assert cycles(load_chip("4x4-4"), published(28), known)["total"] == pytest.approx(
        one.cycles["total"], rel=0.01
    )
    assert uncertainty(load_chip("8x8-1"), published(1), known) > 0.1


@pytest.mark.parametrize("factor", [0.6, 10])
def test_a_faster_or_slower_chip_is_fitted_as_well(factor):
    other = [
        replace(m, cycles={name: round(factor * value) for name, value in m.cycles.items()})
        for m in MEASUREMENTS
    ]
    found = errors(compare(other, calibrate(other)))
    assert found["total"].worst < 0.009
    assert calibrate(other).sigmoid == pytest.approx(factor * load_constants().sigmoid, rel=0.01)


def test_chips_that_were_not_measured_are_less_certain():
    work = published(28)
    base = uncertainty(load_chip("8x8-1"), work)
    for changes in (
        {"emulated_bf16": False},
        {"bus_bits": 64},
        {"clock_hz": 2e9},
        {"l2_kib": 64},
        {"dcache_kib": 4},
        {"scratchpad_kib": 64},
    ):
        assert uncertainty(load_chip("8x8-1").with_(**changes), work) > 1.02 * base, changes
    assert uncertainty(load_chip("gemmini-fp32"), work) > 0.1
    vector = load_chip("8x8-1").with_(extras={"vector_bits": 128.0})
    assert uncertainty(vector, work) > 0.08


def test_scalars_in_hardware_that_were_measured_need_no_assumption():
    """Calibrated on a chip without emulation, its loops are priced by the constants."""
    chip = load_chip().with_(emulated_bf16=False)
    known = calibrate(MEASUREMENTS, chip)
    assert not known.measured.others["emulated_bf16"]
    found = cycles(chip.with_(mesh=4, cores=1), published(28), known)
    assert found["Sigmoid"] == pytest.approx(3 * 784 * 512 * known.sigmoid)


def test_constants_survive_their_file(tmp_path):
    known = calibrated(MEASUREMENTS, source='a "board" of ours')
    path = tmp_path / "ours.toml"
    path.write_text(constants_text(known, "fptt explore --calibrate ours.csv"))
    again = load_constants(path)
    assert again.source == 'a "board" of ours' and again.measured == known.measured
    assert np.allclose(again.covariance, known.covariance, rtol=0.006)
    for name in NAMES:
        assert getattr(again, name) == pytest.approx(getattr(known, name), rel=1e-4)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[spreads]", "[spread]", "unknown key 'spread'"),
        ("\ntake = ", "\ntook = ", "constants.unknown key 'took'"),
        (VALUE, "value = -1.0", "constants.multiply.value is -1.0; expected a number above 0"),
        (f'{VALUE}, unit = "cycles"', f'{VALUE}, unit = "ms"', "unit is 'ms'; expected 'cycles'"),
        ("cores = [1, 4, 10]", "cores = []", "measured.cores is []; expected numbers above 0"),
        ("l2_kib = 512", "l2_kib = 500", "l2_kib is 500; expected"),
        ("covariance = [", "covariance = [[1],", "covariance has the form (0,); expected (23, 23)"),
        ('"total" = 0.0', '"total" = -0.0', "spreads.total is"),
        (f"{{ {VALUE}", f"3 # {{ {VALUE}", "constants.multiply is 3; expected { value, unit"),
    ],
)
def test_a_wrong_file_of_constants_is_refused(tmp_path, before, after, message):
    text = CALIBRATED.read_text()
    assert before in text
    path = tmp_path / "constants.toml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(InputError) as caught:
        load_constants(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


# -- measurements ------------------------------------------------------------------------------

HEADER = "K,mesh,cores,function,cycles\n"
ROWS = "".join(f"28,4x4,2,{name},{100 + n}\n" for n, name in enumerate(FUNCTION_CLASSES))


def test_a_missing_total_is_the_sum(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(HEADER + ROWS)
    (point,) = read_measurements(path)
    assert point.design == "4x4-2" and point.parts == 28
    assert point.cycles["total"] == sum(100 + n for n in range(len(FUNCTION_CLASSES)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is 'nothing'; expected K,mesh,cores,function,cycles"),
        ("a,b\n", "line 1 is 'a,b'; expected K,mesh"),
        (HEADER + "28,4x4,2,total\n", "line 2 has 4 values; expected K,mesh,cores,function,cycles"),
        (HEADER + "28,4x8,2,total,5\n", "line 2: mesh is '4x8'; expected a square one such as 4x4"),
        (HEADER + "28,4x4,2,MatMul,5\n", "line 2: function is 'MatMul'; expected MatMul-1, "),
        (HEADER + "28,4x4,0,total,5\n", "line 2: cores is '0'; expected a whole number above 0"),
        (
            HEADER + "28,4x4,2,tanh,1e5\n",
            "line 2: cycles is '1e5'; expected a whole number above 0",
        ),
        (HEADER + "28,4x4,2,tanh,5\n28,4x4,2,tanh,5\n", "line 3: tanh of this design and K stands"),
        (HEADER + "28,4x4,2,tanh,5\n", "4x4-2, K=28: no row for MatMul-1, MatMul-2"),
        (HEADER + ROWS + "28,4x4,2,total,5\n", "4x4-2, K=28: total is 5; expected 1155, the sum"),
    ],
)
def test_wrong_measurements_are_refused(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_measurements(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_measurements_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read measurements .*none\.csv: No such file"):
        read_measurements(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no measurements; expected at least one design point"):
        calibrate([])


def test_errors_are_shares_of_what_was_measured():
    (point,) = synthetic(load_constants(), ("4x4-1",), (28,))
    doubled = Measured(4, 1, 28, {k: 2 * v for k, v in point.cycles.items()})
    found = errors(compare([point, doubled], load_constants()))["total"]
    assert found.worst == pytest.approx(0.5, abs=1e-6)
    assert found.median == pytest.approx(0.25, abs=1e-6)
    assert found.spread == pytest.approx(math.log(2) / math.sqrt(2), rel=1e-5)
