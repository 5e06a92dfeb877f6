"""From the FPTT unit's description to results: simulator, testbench, synthesis, command."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

import fptt
from fptt import cli
from fptt.deploy import hardware
from fptt.deploy.simulate import simulate_update
from fptt.deploy.update_vectors import BUFFERS, _digits, published_program, record_update
from fptt.errors import FpttError, InputError
from fptt.rtl import simulation, synthesis
from fptt.rtl.parameters import UnitParameters
from fptt.rtl.rounding import engine_bounds, unit_bounds
from fptt.rtl.simulation import Simulator, pack, unpack
from fptt.rtl.testbench import make_vectors
from fptt.rtl.unit_model import Constants, update

needs_iverilog = pytest.mark.skipif(
    not (shutil.which("iverilog") and shutil.which("vvp")), reason="iverilog is not installed"
)


# --- the simulator ----------


class Queue(wiring.Component):
    """Adds 1 to what passes; `fault` breaks it in one way."""

    def __init__(self, fault=""):
        self.fault = fault
        super().__init__(
            {
                "i": In(stream.Signature(40)),
                "o": Out(stream.Signature(40)),
                "seen": Out(16),
                "wide": In(70),
                "copy": Out(70),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=40, depth=4)
        count = Signal(16)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload + 1),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.seen.eq(count),
            self.copy.eq(self.wide),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += count.eq(count + 1)
        if self.fault == "withdraws":
            m.d.comb += self.o.valid.eq(fifo.r_rdy & ~count[2])
            m.d.sync += count.eq(count + 1)
        if self.fault == "changes":
            m.d.sync += count.eq(count + 1)
            m.d.comb += self.o.payload.eq(Mux(count[3], fifo.r_data, 0))
        if self.fault == "loses":
            m.d.comb += fifo.w_en.eq(self.i.valid & (self.i.payload[:4] != 3))
        if self.fault == "repeats":
            m.d.comb += fifo.r_en.eq(self.o.ready & (count != 5))
        return m


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_streams_with_pauses(share):
    given = np.random.default_rng(0).integers(0, 2**40, 2000, dtype=np.uint64)
    simulator = Simulator(Queue())
    for seed in (1, 2):
        done = simulator.stream({"i": given}, {"o": len(given)}, seed=seed, share=share)
        assert np.array_equal(done.outputs["o"], (given + 1) & np.uint64(2**40 - 1))
        assert (np.diff(done.at["o"].astype(int)) > 0).all()
        if share == 1:
            assert done.cycles == len(given) + 1 and done.latency("i", "o") == 1
        else:
            assert done.cycles > 2 * len(given)
    pauses = simulator.stream({"i": given}, {"o": len(given)}, input_share=share, output_share=1)
    assert (pauses.cycles > 2 * len(given)) == (share < 1)
    assert simulator.get("seen") == 6000
    simulator.reset()
    assert simulator.get("seen") == 0
    simulator.set("wide", 2**69 + 5)
    assert simulator.get("copy") == 2**69 + 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("withdraws", "stream o: an offer was withdrawn or changed before it was taken"),
        ("changes", "stream o: an offer was withdrawn or changed before it was taken"),
        ("loses", r"stream o: \d+ of 64 transferred in 500 cycles"),
        ("repeats", "stream o: more than the expected 64 came"),
    ],
)
def test_streams_find_what_is_broken(fault, message):
    with pytest.raises(FpttError, match=f"^{message}$"):
        Simulator(Queue(fault)).stream({"i": np.arange(64)}, {"o": 64}, share=0.5, limit=500)


def test_the_simulator_says_what_is_wrong():
    simulator = Simulator(Queue())
    with pytest.raises(InputError, match=r"^there is no 'j__valid' in this design; there are .*"):
        simulator.stream({"j": [1]}, {})
    with pytest.raises(InputError, match=r"^stream i has 40 bits; 1099511627776 does not fit$"):
        simulator.stream({"i": [2**40]}, {})
    with pytest.raises(InputError, match=r"^stream i: give the bits as unsigned integers$"):
        simulator.stream({"i": [-1]}, {})
    with pytest.raises(InputError, match=r"^seen is an output; only inputs can be set$"):
        simulator.set("seen", 1)
    with pytest.raises(FpttError, match=r"^seen was not 1 within 3 cycles$"):
        simulator.wait("seen", limit=3)


def test_a_simulator_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = simulation.compile_simulator(Queue())
    assert [path.name for path in (tmp_path / "fptt" / "rtl").iterdir()] == [first.name]
    monkeypatch.setattr(simulation, "_cxx", lambda text: pytest.fail("compiled again"))
    assert simulation.compile_simulator(Queue()) == first
    monkeypatch.setattr(simulation, "_cxx", lambda text: "this is no C++")
    with pytest.raises(
        FpttError, match=r"could not compile the simulator; what it said is in .*log$"
    ):
        simulation.compile_simulator(Queue("loses"))


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs a C\+\+ compiler, and neither g\+\+ nor clang\+\+"
    ):
        Simulator(Queue())


def test_fields_of_payloads():
    rng = np.random.default_rng(0)
    widths = (1, 32, 17, 64, 16)
    fields = [
        rng.integers(0, 2**w, 50, dtype=np.uint64, endpoint=w == 64 and False)
        for w in (1, 32, 17, 63, 16)
    ]
    packed = pack(*zip(fields, widths, strict=True))
    assert packed.shape == (50, 5)
    for field, found in zip(fields, unpack(packed, *widths), strict=True):
        assert np.array_equal(field, found)


# --- a real update ----------


@pytest.fixture(scope="module")
def steps():
    return {dtype: record_update(published_program(dtype)) for dtype in ("float32", "bfloat16")}


def test_the_recorded_update_is_the_trainers_own():
    program = published_program()
    last = record_update(program, number=27)
    trainer = fptt.Trainer(program, backend="native")
    trainer.train_batch(*_digits(program))
    for name in ("param", "lam", "rmean"):
        tensors = [trainer.backend.read(BUFFERS[name].format(t)).ravel() for t in program.trained]
        assert np.array_equal(np.concatenate(tensors), last.after[name])
    assert last.count == 67_850 and np.abs(last.before["lam"]).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rule": fptt.FPTT(parts=2, beta=0.25)},
            "beta is 0.25 and the mode 'code'; the FPTT unit ",
        ),
        ({"rule": fptt.FPTT(parts=2, mode="paper")}, "beta is 0.5 and the mode 'paper'; the FPTT "),
        ({"rule": fptt.TBPTT(parts=2)}, "the rule is TBPTT.*; the FPTT unit's update needs FPTT "),
        ({"optimizer": fptt.SGD(0.1, momentum=0.5)}, "the optimizer is SGD.*; the FPTT unit has "),
        ({"clip": 1.0}, "the optimizer is SGD.*clip 1.0; the FPTT unit has SGD without momentum"),
        ({"steps": 6}, "the bundled digits have 784 steps of 1 input; the program has 6 of 1"),
    ],
)
def test_updates_that_the_unit_does_not_compute(change, message):
    net = fptt.Network([fptt.LSTM(1, 4), fptt.Linear(4, 10)])
    settings = {"rule": fptt.FPTT(parts=2), "optimizer": fptt.SGD(0.1), "steps": 784, **change}
    with pytest.raises(InputError, match=f"^{message}"):
        record_update(fptt.build(net, **settings, batch=2), number=1)


@pytest.mark.parametrize(
    ("schedule", "lanes", "dtype"),
    [("pipelined", 1, "float32"), ("compact", 3, "float32")],
)
def test_a_whole_update_through_the_unit(steps, schedule, lanes, dtype):
    """The model's bits, the C run time's numbers within rounding, and the schedule's cycles."""
    parameters = UnitParameters(lanes=lanes, schedule=schedule, dtype=dtype)
    done = simulate_update(parameters, steps[dtype])
    done.require_equal()
    rows = -(-67_850 // lanes)
    assert done.cycles == parameters.lane_schedule.cycles(rows) + 3
    # the bound is one that rounding nearly reaches
    assert all(0.2 < share < 0.8 for share in done.shares.values())


@pytest.mark.parametrize("name", ["lr", "lr_alpha", "alpha", "ita"])
def test_the_bound_leaves_no_room_for_other_constants(steps, name):
    """A constant that is wrong by 2^-10 of itself takes some number beyond the bound."""
    step, unit = steps["float32"], UnitParameters()
    right = Constants.of(unit, step.lr, step.alpha)
    numbers = [step.bits(step.before[k]) for k in ("grad", "param", "lam", "rmean")]
    how = {"lr": step.lr, "alpha": step.alpha}
    unit_side = unit_bounds(unit, step.before, **how)
    engine_side = engine_bounds("float32", step.before, **how)

    def share(constants):
        after = dict(zip(("param", "lam", "rmean"), update(unit, constants, *numbers), strict=True))
        return max(
            (
                np.abs(unit.format.decode(bits) - step.after[k]) / (unit_side[k] + engine_side[k])
            ).max()
            for k, bits in after.items()
        )

    assert share(right) < 0.8
    assert share(replace(right, **{name: getattr(right, name) + 2**13})) > 1


# --- the testbench ----------


def verdict(folder):
    """Of the testbench under Icarus: exit code and what it printed."""
    top = hardware.TOP
    command = ["iverilog", "-g2012", "-o", "tb", f"{top}.v", f"{top}_tb.v"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(["vvp", "-n", "tb"], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@needs_iverilog
@pytest.mark.parametrize(
    "choice",
    [
        {"lanes": 3, "schedule": "baseline", "dtype": "float32"},
        {"lanes": 1, "schedule": "pipelined", "dtype": "bfloat16"},
        {"lanes": 8, "schedule": "compact", "dtype": "float32", "regularise": False, "depth": 33},
    ],
)
def test_the_testbench_passes(choice, tmp_path):
    parameters = UnitParameters(**{"depth": 300, **choice})
    hardware.write_unit(parameters, tmp_path)
    code, text = verdict(tmp_path)
    assert (code, text[:5]) == (0, "PASS "), text
    words = 257 * len(parameters.inputs) + 3
    assert f"PASS {words} words, 257 parameters in " in text


@needs_iverilog
def test_the_testbench_fails(tmp_path):
    parameters = UnitParameters(schedule="compact", dtype="bfloat16", depth=300)
    hardware.write_unit(parameters, tmp_path)

    def red(name, change):
        path = tmp_path / name
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))
        code, said = verdict(tmp_path)
        path.write_text(text)
        assert code == 1 and "FAIL" in said and "PASS" not in said, said
        return said

    # a digit of one word
    def one_digit(text):
        lines = text.splitlines(keepends=True)
        digit = "1" if lines[401][-2] == "0" else "0"
        return "".join([*lines[:401], f"{lines[401][:-2]}{digit}\n", *lines[402:]])

    said = red("expected.hex", one_digit)
    assert "FAIL 1 of 1031 words wrong" in said
    damaged = "writes.hex or expected.hex is missing or damaged"
    assert damaged in red("expected.hex", lambda t: t[: len(t) // 2])
    assert damaged in red("writes.hex", lambda t: "")
    red("writes.hex", lambda t: t.replace("\n", "", 1))
    # the hardware: products of mantissas, the sign of a sum, the state of a run
    for old, new in ((" * ", " + "), (" ^ ", " | "), ("== 1'h", "!= 1'h")):
        if old in (tmp_path / "fptt_unit.v").read_text():
            red("fptt_unit.v", lambda t, old=old, new=new: t.replace(old, new))
    assert verdict(tmp_path)[0] == 0


def test_vectors_must_fit_the_banks():
    unit = UnitParameters(depth=2)
    ones = dict.fromkeys(("grad", "param", "lam", "rmean"), np.ones(3, np.uint32))
    message = r"^3 parameters for a unit that holds 2; give 1 to as many$"
    with pytest.raises(InputError, match=message):
        make_vectors(unit, ones, lr=0.1, alpha=0.1)


# --- synthesis ----------

NEXTPNR = """{"critical_paths": [], "fmax": {"$glbnet$clk": {"achieved": 88.8, "constraint": 100},
"$glbnet$slow": {"achieved": 75.3, "constraint": 100}}, "utilization": {
"DP16KD": {"available": 208, "used": 4}, "MULT18X18D": {"available": 156, "used": 1},
"TRELLIS_COMB": {"available": 83640, "used": 1275},
"TRELLIS_FF": {"available": 83640, "used": 920}}}"""
STAT = '{{"modules": {{}}, "design": {{"area": 18720.5, "num_cells_by_type": {}}}}}'


def test_the_report_of_nextpnr():
    report = synthesis.parse_ecp5(NEXTPNR, STAT.format('{"$scopeinfo": 2, "CCU2C": 36}'), "part")
    assert (report.lut, report.ff, report.dsp, report.bram, report.mhz) == (1275, 920, 1, 4, 75.3)
    assert (report.cells, report.part) == ({"CCU2C": 36}, "part")
    bare = json.loads(NEXTPNR)
    del bare["utilization"]["MULT18X18D"], bare["utilization"]["DP16KD"]
    report = synthesis.parse_ecp5(json.dumps(bare), STAT.format("{}"))
    assert (report.dsp, report.bram) == (0, 0)
    bare["fmax"] = {}
    with pytest.raises(FpttError, match=r"^nextpnr reports no clock: the design has no path"):
        synthesis.parse_ecp5(json.dumps(bare), STAT.format("{}"))
    with pytest.raises(FpttError, match=r"^the reports for ECP5 cannot be read \(.*\)$"):
        synthesis.parse_ecp5(NEXTPNR[:-20], STAT.format("{}"))


def test_the_report_for_ultrascale():
    cells = {"CARRY4": 17, "DSP48E2": 2, "FDRE": 99, "FDSE": 1, "INV": 2, "LUT2": 32, "LUT6": 4}
    cells |= {"RAM32M16": 3, "RAMB18E2": 1, "RAMB36E2": 2, "SRL16E": 5, "$scopeinfo": 9}
    report = synthesis.parse_xcup(STAT.format(json.dumps(cells)))
    assert (report.lut, report.ff) == (2 + 32 + 4 + 3 * 8 + 5, 100)
    assert (report.dsp, report.bram, report.mhz) == (2, 2.5, None)
    with pytest.raises(FpttError, match=r"^the report for UltraScale\+ has RAM99X: not counted$"):
        synthesis.parse_xcup(STAT.format('{"RAM99X": 1}'))


def test_the_report_of_standard_cells():
    memories = "parameter signed \\SIZE 512\n parameter \\WIDTH 32\nparameter \\SIZE 64\n"
    memories += "parameter \\WIDTH 16\n"
    cells = '{"$scopeinfo": 2, "DFFPOSX1": 195, "DFFSR": 5, "NAND2X1": 461, "fptt_memory": 2}'
    report = synthesis.parse_osu018(STAT.format(cells), memories)
    assert (report.area_um2, report.gates, report.ff) == (18720.5, 780, 200)
    assert report.memory_bits == 512 * 32 + 64 * 16
    with pytest.raises(FpttError, match=r"^\$mul became no standard cells: their area is unknown$"):
        synthesis.parse_osu018(STAT.format('{"$mul": 1}'))


def test_a_tool_that_fails_names_its_log(tmp_path):
    source = tmp_path / "bad.v"
    source.write_text("module top(input a); nonsense\n")
    with pytest.raises(FpttError, match=r"^Yosys for UltraScale\+ failed with code 1: .*xcup.log$"):
        synthesis.synthesise(source, "top", "xcup", tmp_path / "run")
    assert "ERROR" in (tmp_path / "run" / "xcup.log").read_text()
    with pytest.raises(
        FpttError, match=r"^Yosys for ECP5 was stopped after 0 s; its log is .*log$"
    ):
        synthesis.synthesise(source, "top", "ecp5", tmp_path / "run", timeout_s=0.01)
    with pytest.raises(InputError, match=r"^target is 'asic'; choose from ecp5, xcup, osu018$"):
        synthesis.synthesise(source, "top", "asic", tmp_path / "run")
    with pytest.raises(InputError, match=r"apt-get install qflow-tech-osu018$"):
        synthesis.require("osu018", tmp_path / "none.lib")


# --- the command ----------


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    found = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == code, err
    return out, err


def test_the_smallest_unit_through_all_tools(tmp_path, capsys):
    targets = ["ecp5", "xcup", *(["osu018"] if synthesis.LIBERTY.exists() else [])]
    choice = ("--schedule", "compact", "--dtype", "bfloat16", "--depth", 1024)
    named = ("--targets", ",".join(targets), "--out", tmp_path / "unit")
    out, _ = run(capsys, "rtl", "fptt-unit", *choice, *named, "--json")
    (unit,) = json.loads(out)
    assert (unit["interval"], unit["cycles"]) == (8, 67_849 * 8 + unit["latency"] + 4)
    assert list(unit["reports"]) == targets
    ecp5, xcup = unit["reports"]["ecp5"], unit["reports"]["xcup"]
    assert ecp5["mhz"] >= 80 and ecp5["part"] == "LFE5U-85F-6 CABGA381, seed 1"
    assert unit["milliseconds"] == pytest.approx(unit["cycles"] / ecp5["mhz"] / 1000)
    assert ecp5["dsp"] == xcup["dsp"] == 1  # one multiplier
    assert ecp5["bram"] == 4 and xcup["bram"] == 2  # four banks of 16 Kbit
    assert 600 < ecp5["ff"] < 1500 and 600 < xcup["lut"] < 1500
    if "osu018" in targets:
        cells = unit["reports"]["osu018"]
        assert cells["memory_bits"] == 4 * 1024 * 16
        assert cells["gates"] == round(cells["area_um2"] / 24) and 5000 < cells["gates"] < 15000
    for report in unit["reports"].values():
        assert all(
            (tmp_path / "unit" / "synthesis" / log.split("/")[-1]).is_file()
            for log in report["logs"]
        )


def test_the_check_of_the_command(tmp_path, capsys, monkeypatch):
    arguments = ("rtl", "fptt-unit", "--schedule", "baseline", "--dtype", "bfloat16", "--check")
    arguments += ("--no-synthesis", "--depth", 300, "--out", tmp_path / "unit")
    out, _ = run(capsys, *arguments, "--json")
    (unit,) = json.loads(out)
    check = unit["check"]
    assert check["parameters"] == 67_850 and check["cycles"] == unit["cycles"]
    assert all(0.2 < share < 0.8 for share in check["shares_of_bound"].values())
    monkeypatch.setattr(
        "fptt.rtl.rounding.unit_bounds",
        lambda p, inputs, **how: dict.fromkeys(("param", "lam", "rmean"), 0.0),
    )
    _, err = run(capsys, *arguments, code=1)
    assert re.fullmatch("fptt: .*times as far from the C run time as rounding explains\n", err)


def test_all_schedules_in_one_table(tmp_path, capsys):
    arguments = ("rtl", "fptt-unit", "--schedule", "all", "--no-synthesis", "--depth", 16)
    arguments += ("--out", tmp_path)
    out, err = run(capsys, *arguments)
    for words in ("baseline", "pipelined +1 ", "compact +8 ", "15,300,000", "2,070,000"):
        assert re.search(words, out), words
    assert "iverilog -g2012" in err
    for name in hardware.SCHEDULES:
        assert (tmp_path / name / "fptt_unit.v").read_text().count("module fptt_unit(") == 1
        assert "| 0x10 | CONTROL |" in (tmp_path / name / "registers.md").read_text()
    out, _ = run(capsys, *arguments, "--json")  # an earlier folder may be written again
    assert [unit["schedule"] for unit in json.loads(out)] == list(hardware.SCHEDULES)


def test_wrong_use(tmp_path, capsys):
    def refused(message, *arguments, out=tmp_path / "new"):
        _, err = run(capsys, "rtl", *arguments, "--out", out, code=2)
        assert re.fullmatch(f"fptt: {message}\n", err), err

    refused("a whole update is checked with R.*", "fptt-unit", "--no-regularise", "--check")
    refused("there is no 'cpu' to write; give fptt-unit", "cpu")
    refused("target is 'asic'; choose from ecp5, xcup, osu018", "fptt-unit", "--targets", "asic")
    refused("schedule='fast' is not known; .*", "fptt-unit", "--schedule", "fast")
    refused("depth=16777216: give a whole number from 1 to .*", "fptt-unit", "--depth", "16777216")
    refused("size is '12k'; choose 25k, 45k or 85k", "fptt-unit", "--size", "12k")
    refused(r"speed is 5; choose 6 \(slowest\), 7 or 8", "fptt-unit", "--speed", "5")
    refused("seed is -1; .*", "fptt-unit", "--seed", "-1")
    refused("target is ''; choose from .*", "fptt-unit", "--targets", "")
    refused(".*--targets.*", "fptt-unit", "--no-synthesis", "--targets", "ecp5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    message = ".*full has other files in it; name a new folder, or one of an earlier call"
    refused(message, "fptt-unit", "--no-synthesis", out=tmp_path / "full")
    refused(".*notes is a file; .*", "fptt-unit", "--no-synthesis", out=tmp_path / "full" / "notes")
    assert not (tmp_path / "new").exists()


def test_without_amaranth(tmp_path):
    code = (
        "import sys; sys.modules['amaranth'] = None; from fptt import cli; "
        f"sys.exit(cli.main(['rtl', 'fptt-unit', '--no-synthesis', '--out', {str(tmp_path)!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fptt.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and "pip install 'fptt[hardware]'" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
