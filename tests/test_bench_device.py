"""`fptt bench --device`: counts that are exact, the divisors, the bars, the published core."""

import json

import numpy as np
import pytest
from device_tools import need, need_emulator, need_target
from test_cli import documented

from fptt import cli, deploy
from fptt.bench import device
from fptt.bench.beats import FunctionBeats, beats_of, count_log
from fptt.bench.cases import Case
from fptt.device.elf import Symbol
from fptt.errors import FpttError, InputError
from fptt.soc.workload import published

SMALL = Case(hidden=16, batch=2, parts=2, steps=8, momentum=0.0)


def need_build(name):
    need_emulator(device.BUILDS[name].emulator)
    need_target(device.BUILDS[name].target)
    if name == "rv64gcv":
        need("clang-19")


# --- what is divided by ----------


def test_multiply_adds_as_the_bars_count_them():
    # two steps of three sequences, 2 inputs and 5 cells, product by product
    case = Case(hidden=5, inputs=2, batch=3, steps=2)
    forward = sum(1 for _gate in range(4) for _cell in range(5) for _input in range(2 + 5))
    carried = sum(1 for _gate in range(4) for _cell in range(5) for _input in range(5))
    assert device.counted_multiply_adds(case) == 3 * 2 * (forward + carried + forward)


def test_every_build_and_the_bars():
    assert [build.name for build in device.builds(None)] == [
        *("rv64", "rv32", "cortex-m4", "cortex-m4-c", "cortex-m55", "rv64gcv")
    ]
    assert [build.name for build in device.builds(["rv64gcv", "rv64"])] == ["rv64", "rv64gcv"]
    assert set(device.TRAINING_BARS) | {"rv32"} == set(device.BUILDS)
    with pytest.raises(InputError, match=r"no target 'avr'.*rv64gcv"):
        device.builds(["avr"])


def test_the_bars_are_for_one_workload(monkeypatch):
    report = _Report(instructions=250 * 1000)
    monkeypatch.setattr(device, "_export", lambda *_: None)
    monkeypatch.setattr(deploy, "run", lambda *_, **__: report)
    monkeypatch.setattr(device, "counted_multiply_adds", lambda _: 100_000)
    (case,) = device.cases(batches=[1])
    slow = device.training_row(case, device.BUILDS["rv64"])
    assert (slow["per_multiply_add"], slow["bar"], slow["met"]) == (2.5, 2.4, False)
    assert slow["data"] == "digits of the embedded subset of MNIST"
    same = device.training_row(case, device.BUILDS["cortex-m4-c"])
    assert (same["per_multiply_add"], same["bar"], same["met"]) == (2.5, 2.5, True)
    for other in (device.cases(parts=[1]), device.cases([64]), device.cases(batches=[2])):
        row = device.training_row(other[0], device.BUILDS["rv64"])
        assert (row["bar"], row["met"]) == (None, None)


class _Report:
    def __init__(self, instructions):
        self.instructions = instructions
        self.classes = {}

    def require_equal(self):
        pass


def test_digits_of_several_classes():
    x, y, source = device.data(Case(batch=4))
    assert x.shape == (4, 784, 1)
    assert len(set(y.tolist())) > 1
    assert "digits" in source
    with pytest.raises(InputError, match="batch is 100000"):
        device.data(Case(batch=100_000))


# --- runs ----------


@pytest.mark.parametrize("name", device.BUILDS)
def test_counts_of_training(name):
    need_build(name)
    row = device.training_row(SMALL, device.BUILDS[name])
    assert row["data"] == "random numbers"
    assert row["multiply_adds"] == 2 * 8 * (4 * 16 * 17 * 2 + 4 * 16 * 16)
    # without dh at the first step of each of two parts, with 10 outputs and their gradients
    skipped = 2 * 2 * 4 * 16 * 16
    readout = row["program_multiply_adds"] - row["multiply_adds"] + skipped
    assert 0 < readout <= 3 * 2 * 8 * 16 * 10
    assert row["per_multiply_add"] == row["instructions"] / row["multiply_adds"]
    # so small a network is all overhead; the vectors still save
    limit = 3 if name in ("cortex-m55", "rv64gcv") else 6
    assert 0.3 < row["per_multiply_add"] < limit
    update = row["update_per_parameter"]
    if device.BUILDS[name].functions:
        # calls for 4 lines of 16 numbers at once: a few more than in one call
        assert 16 < update < 26
    else:
        assert update is None
    assert row == device.training_row(SMALL, device.BUILDS[name])


def test_what_assembly_saves_and_that_it_can_be_left_out(tmp_path):
    need_build("cortex-m4")
    counts = [
        device.training_row(SMALL, device.BUILDS[name])["instructions"]
        for name in ("cortex-m4", "cortex-m4-c")
    ]
    assert counts[1] > 1.1 * counts[0]
    program = SMALL.program()
    for assembly in (True, False):
        firmware = deploy.export(
            program,
            program.net.initial(0),
            tmp_path / str(assembly),
            target="cortex-m4",
            assembly=assembly,
        )
        assert ("-DFPTT_ASSEMBLY=0" in firmware.definitions) is not assembly
        makefile = (tmp_path / str(assembly) / "Makefile").read_text()
        assert ("-DFPTT_ASSEMBLY=0" in makefile) is not assembly


def test_firmware_that_learns_something_else_is_not_counted(monkeypatch):
    need_build("rv64")
    export = device._export

    def other_weights(case, build, folder):
        export(case, build, folder)
        path = folder / "model_weights.h"
        path.write_text(path.read_text().replace("0x1.", "0x1.8", 1))

    monkeypatch.setattr(device, "_export", other_weights)
    with pytest.raises(FpttError, match="from the host's"):
        device.training_row(SMALL, device.BUILDS["rv64"])


@pytest.mark.parametrize("name", [b.name for b in device.BUILDS.values() if b.functions])
def test_functions_stay_below_their_bars(name):
    need_build(name)
    rows = {row["function"]: row for row in device.function_rows(device.BUILDS[name])}
    assert list(rows) == ["sigmoid", "tanh", "update", "plain_product"]
    elements = [row["elements"] for row in rows.values()]
    assert elements == [1024, 1024, 4096, 128 * 128]
    for row in rows.values():
        assert row["met"] is not False
        assert row["per_element"] == row["instructions"] / row["elements"]
    # loads and stores alone: 2, and 7 of an update
    assert rows["sigmoid"]["per_element"] > 12
    assert rows["tanh"]["per_element"] > 12
    assert rows["update"]["per_element"] > 12
    # the reference that the bars speak of: 6 on RISC-V, 5 on Arm
    naive = 5 if name == "cortex-m4" else device.NAIVE
    assert rows["plain_product"]["per_element"] == pytest.approx(naive, rel=0.02)


def test_beats_of_the_vector_kernels():
    need_build("rv64gcv")
    need_emulator("spike-rv64")
    rows = device.beat_rows(SMALL, device.BUILDS["rv64gcv"])
    *functions, total = rows
    assert total["function"] == "all"
    for name in ("instructions", "vector_instructions", "beats"):
        assert total[name] == sum(row[name] for row in functions)
    names = [row["function"] for row in functions]
    for name in ("fptt_product", "fptt_lstm_forward", "fptt_apply", "fptt_observe"):
        assert name in names
    # the check program, its printing and what starts it belong to nobody's training
    assert not {"main", "text", "number", "bytes", "fptt_port_write", "strlen"} & set(names)
    assert total["steps"] == 4
    assert total["beats"] > total["instructions"] > total["vector_instructions"] > 0
    multiply_adds = 2 * 4 * (4 * 16 * 17 * 2 + 4 * 16 * 16)
    assert total["beats_per_multiply_add"] == total["beats"] / multiply_adds
    # an emulator of another make counts the same training; main's loop is all that it has more
    part = Case(hidden=16, batch=2, parts=1, steps=4, momentum=0.0)
    whole = device.training_row(part, device.BUILDS["rv64gcv"])["instructions"]
    assert 0.98 * whole < total["instructions"] <= whole


# --- Spike's log ----------


@pytest.mark.parametrize(
    ("text", "beats"),
    [
        ("vfmacc.vf v8, fa5, v0", 4),
        ("vle32.v v0, (a0)", 4),
        ("vse16.v v0, (a0)", 2),
        ("vl2re32.v v0, (a0)", 2),
        ("vs1r.v v0, (a0)", 1),
        ("vmv4r.v v0, v8", 4),
        ("vlse32.v v0, (a0), a1", 16),
        ("vluxei32.v v0, (a0), v4", 16),
        ("vfmv.f.s fa0, v8", 1),
        ("vmv.x.s a0, v8", 1),
        ("vmv.v.i v8, 0", 4),
        ("vfwcvt.f.x.v v8, v0", 8),
        ("vnsrl.wi v8, v0, 16", 8),
        ("vfnmsac.vf v8, fa5, v0", 4),
        ("vfneg.v v8, v0", 4),
        ("vnot.v v8, v0", 4),
        ("vsetvli a0, a1, e32, m4, ta, ma", 1),
        ("vlm.v v0, (a0)", 1),
        ("vmand.mm v0, v1, v2", 1),
        ("fmadd.s fa0, fa1, fa2, fa3", 1),
    ],
)
def test_beats_of_an_instruction(text, beats):
    assert beats_of(text, 32, 4) == beats


def test_a_fraction_of_a_register_takes_a_beat():
    assert beats_of("vfadd.vv v1, v2, v3", 32, 0.5) == 1


CODE = [
    Symbol("main", 0x1000, 0x100, "code", ".text"),
    Symbol("begin", 0x2000, 0x20, "code", ".text"),
    Symbol("kernel", 0x3000, 0x10, "code", ".text"),
    Symbol("end", 0x4000, 0x10, "code", ".text"),
    Symbol("table", 0x5000, 0x10, "data", ".data"),
]


def _log(*instructions):
    for place, text in instructions:
        if text.startswith(">>>>"):
            yield f"core   0: {text}\n".encode()
        else:
            yield f"core   0: 0x{place:016x} (0x00000013) {text}\n".encode()


def test_counting_a_log():
    kernel = [
        (0x3000, "vsetvli a0, a1, e32, m4, ta, ma"),
        (0x3004, "vle32.v v0, (a0)"),
        (0x3008, "vsetvli zero, zero, e32, m1, ta, ma"),
        (0x3004, "vle32.v v0, (a0)"),
    ]
    rows = count_log(
        _log(
            (0x1004, "vsetvli a0, a1, e32, m8, ta, ma"),  # before: not counted
            (0x1000, "li a0, 1"),
            (0, ">>>>  begin"),
            (0x2000, "li a0, 1"),
            (0x2004, "vle32.v v0, (a0)"),  # the group is that which was set before
            *kernel,
            *kernel,
            (0x3010, "nop"),  # behind the kernel's end
            (0x4000, "ret"),
            (0x3000, "after: not counted"),
        ),
        CODE,
        "begin",
        "end",
    )
    assert rows == [
        FunctionBeats("kernel", 8, 4, 2 * (1 + 4 + 1 + 1)),
        FunctionBeats("begin", 2, 1, 1 + 8),
        FunctionBeats("", 1, 0, 1),
    ]


def test_logs_that_cannot_be_counted():
    with pytest.raises(FpttError, match="ends before end is called"):
        count_log(_log((0x2000, "nop")), CODE, "begin", "end")
    with pytest.raises(FpttError, match="comes from a register"):
        count_log(_log((0x2000, "vsetvl a0, a1, a2")), CODE, "begin", "end")


# --- one Rocket core ----------


def test_products_of_the_published_program():
    # 784 steps of 4 forward, 4 dh and 7 weight gradients, 4 of these at a part's first step
    layer, readout = 4 * 128 * 129, 4 * 128 * 10
    assert published(1).macs == (layer * (784 * 8 + 783 * 7 + 4) + readout * (784 + 2))
    assert published(784).macs == layer * 784 * 12 + readout * 784 * 3


def test_the_implied_figure_gives_the_published_time_back():
    for parts, seconds in device.ROCKET_SECONDS.items():
        cycles = device.implied_cycles_per_instruction(parts)
        assert 1.5 < cycles < 3
        products = cycles * 6 * published(parts).macs
        loops = cycles * 10 * 20 * 512 * 784
        functions = 784 * 512 * (3 * 320 + 2 * 275) + parts * 67_850 * 90
        assert (products + loops + functions) / 500e6 == pytest.approx(seconds)


def test_rows_of_a_rocket_core():
    one, implied = device.rocket_rows(28, 1_000_000_000)
    assert (one["cycles_per_instruction"], one["seconds"]) == (1.0, 2.0)
    assert implied["seconds"] == 2 * implied["cycles_per_instruction"]
    assert one["published_seconds"] == implied["published_seconds"] == 22.85


# --- the command ----------


def test_command(capsys):
    need_build("rv64gcv")
    need_emulator("spike-rv64")
    small = ["--hidden", "8", "--steps", "4", "--parts", "2", "--batch", "1"]
    command = ["bench", "--device", *small, "--target", "rv64,rv64gcv"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    keys = documented(cli.bench)[2]
    assert set(found) == set(keys)
    for table in ("training", "functions", "vectors"):
        assert {frozenset(row) for row in found[table]} == {frozenset(keys[table])}
    assert [row["target"] for row in found["training"]] == ["rv64", "rv64gcv"]
    assert found["rocket"] == []  # not the workload that was published
    assert [set(row) for row in device.rocket_rows(28, 1)] == [set(keys["rocket"])] * 2

    assert cli.main(command) == 0
    out = capsys.readouterr().out
    for row in found["training"]:
        assert f"{row['instructions']:,}" in out
    assert out.count(" pass ") == 3  # sigmoid, tanh, update
    assert "miss" not in out
    assert f"{found['vectors'][-1]['beats']:,}" in out


def test_tables_say_what_misses(capsys, monkeypatch):
    need_build("rv64")
    monkeypatch.setitem(device.FUNCTION_BARS, "rv64", {"sigmoid": 5.0, "tanh": 90.0})
    small = ["--hidden", "4", "--steps", "2", "--parts", "1", "--batch", "1", "--target", "rv64"]
    assert cli.main(["bench", "--device", *small]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    verdicts = {row[1]: row[5:7] for row in rows if len(row) > 6 and row[0] == "rv64"}
    assert verdicts["sigmoid"] == ["5", "miss"]
    assert verdicts["tanh"] == ["90", "pass"]


def test_the_published_workload_gets_a_rocket_core(monkeypatch):
    training = dict(target="rv64", hidden=128, batch=4, steps=784, parts=28, instructions=10**9)
    monkeypatch.setattr(device, "training_row", lambda case, build: training)
    monkeypatch.setattr(device, "function_rows", lambda build: [])
    found = device.measure_device(device.cases(batches=[4]), device.builds(["rv64"]))
    assert found["rocket"] == device.rocket_rows(28, 10**9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "rv64"], "--target has no effect without --device"),
        (["--device", "--against", "none"], "--against has no effect with --device"),
        (["--device", "--target", "rv128"], "no target 'rv128'"),
        (["--device", "--steps", "8", "--parts", "9"], "9"),
        (["--device", "--batch", "0"], "--batch is '0'"),
    ],
)
def test_wrong_use(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_random_numbers_for_other_lengths():
    x, y, source = device.data(SMALL)
    assert x.shape == (2, 8, 1) and np.isfinite(x).all()
    assert y.shape == (2,)
    assert source == "random numbers"
