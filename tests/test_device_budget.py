"""`fptt plan --target`: its formulas, and that what it promises is what linked firmware takes."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from device_tools import need, need_emulator

import fptt
from fptt import cli, deploy
from fptt.deploy import budget as fitting
from fptt.deploy.inputs import made_up
from fptt.deploy.run import checked
from fptt.device import EMULATORS, TARGETS
from fptt.device.costs import FOLDER, KNOTS, costs, costs_of, kernels_checksum, terms
from fptt.device.elf import read_elf
from fptt.device.fitting import Sample, fit, nonnegative_least_squares
from fptt.device.folder import read_folder
from fptt.device.footprint import footprint, saved_state
from fptt.device.harness import build_check
from fptt.device.operations import by_class, executions, operations
from fptt.device.sources import runtime_folder
from fptt.device.whole import link_whole
from fptt.errors import InputError
from fptt.program import build

NET = fptt.Network([fptt.LSTM(2, 24), fptt.Linear(24, 5)])
GRU = fptt.Network([fptt.GRU(3, 16), fptt.RNN(16, 12), fptt.Linear(12, 4)])
KIB = 1024


def found(net=NET, target="rv64", steps=12, **options):
    return fitting.budget(net, lambda k: fptt.FPTT(parts=k), target=target, steps=steps, **options)


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "bytes_"),
        [
            ("1", 1),
            ("4096", 4096),
            ("256KiB", 262144),
            ("256kib", 262144),
            (" 1 MiB ", 1048576),
            ("64kB", 64000),
            ("1MB", 1000000),
            ("1.5KiB", 1536),
            ("8K", 8192),
        ],
    )
    def test_bytes(self, text, bytes_):
        assert fitting.read_bytes(text, "--ram") == bytes_

    @pytest.mark.parametrize(
        "text", ["256XB", "0", "-1KiB", "", "KiB", "1.3", "1e3", "nan", "\u0661K", "0.0001KiB"]
    )
    def test_bad_bytes(self, text):
        with pytest.raises(InputError, match=r"--ram is '.*'; give whole bytes from 1, such as"):
            fitting.read_bytes(text, "--ram")

    def test_hertz(self):
        assert fitting.read_hertz("168MHz") == 168e6
        assert fitting.read_hertz("32.768kHz") == 32768
        for bad in ("168", "0MHz", "-1Hz", "168MB", ""):
            with pytest.raises(InputError, match=r"--clock is '.*'; give a frequency"):
                fitting.read_hertz(bad)


class TestFlash:
    def test_slots_are_those_of_the_header(self, tmp_path):
        """The formula in Python against the macros that an application uses."""
        need("cc")
        cases = [
            (payload, erase, write)
            for payload in (1, 4055, 4056, 4057, 4060, 4061, 100_000, 271_418)
            for erase, write in ((4096, 8), (4096, 1), (2048, 256), (131072, 32), (512, 16))
        ]
        lines = [
            f'printf("%u\\n", (unsigned)FPTT_FLASH_AREA_BYTES({p}u, {e}u, {w}u));'
            for p, e, w in cases
        ]
        source = tmp_path / "area.c"
        source.write_text(
            '#include <stdio.h>\n#include "fptt_flash.h"\nint main(void) {\n'
            + "\n".join(lines)
            + "\nreturn 0;\n}\n"
        )
        include = f"-I{runtime_folder() / 'include'}"
        subprocess.run(["cc", include, str(source), "-o", str(tmp_path / "area")], check=True)
        printed = subprocess.run(
            [str(tmp_path / "area")], check=True, capture_output=True, text=True
        ).stdout
        ours = [fitting.Part(e, w).area_bytes(p) for p, e, w in cases]
        assert [int(line) for line in printed.split()] == ours

    def test_wear(self):
        """A save erases one of two slots, so a block bears two saves for each rated erase."""
        assert fitting.Part(4096, 8, 10_000).saves == 20_000
        assert fitting.Part(4096, 8, 1).saves == 2

    @pytest.mark.parametrize(
        ("values", "what"),
        [
            ((4096, 3), "--write is 3"),
            ((4096, 512), "--write is 512"),
            ((100, 4), "--erase is 100"),
            ((4096, 8, 0), "--endurance is 0"),
        ],
    )
    def test_bad_parts(self, values, what):
        with pytest.raises(InputError, match=what):
            fitting.Part(*values)


class TestFitting:
    def test_least_squares_without_negative_numbers(self):
        """Against every choice of which coefficients are zero."""
        rng = np.random.default_rng(1)
        for _ in range(20):
            a, b = rng.normal(size=(9, 4)), rng.normal(size=9)
            best = np.inf
            for chosen in range(16):
                free = [i for i in range(4) if chosen >> i & 1]
                x = np.zeros(4)
                if free:
                    x[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
                if (x >= 0).all():
                    best = min(best, np.linalg.norm(a @ x - b))
            ours = nonnegative_least_squares(a, b)
            assert (ours >= 0).all()
            assert np.linalg.norm(a @ ours - b) == pytest.approx(best)

    def test_finds_what_made_the_counts(self):
        rng = np.random.default_rng(2)
        samples = []
        for group in range(12):
            n, m = (float(v) for v in rng.integers(1, 50, 2))
            samples.append(Sample(str(group), {"n": n, "n*m": n * m, "1": 1.0}, 7 * n + 2 * n * m))
        fitted = fit(samples)
        assert fitted({"n": 10.0, "n*m": 100.0, "1": 1.0}) == pytest.approx(270)
        assert fitted.largest < 1e-6
        assert fitted.samples == 12

    def test_errors_are_those_of_networks_left_out(self):
        """One that the others do not foretell shows."""
        line = [Sample(str(n), {"n": float(n)}, 3.0 * n) for n in range(1, 9)]
        odd = Sample("odd", {"n": 100.0}, 600.0)
        fitted = fit([*line, odd])
        assert fitted.largest == pytest.approx(0.5, rel=0.02)
        assert fitted.typical < fitted.largest

    def test_rows_between_knots(self):
        """Costs are linear between the numbers of rows that were counted."""
        program = build(NET, fptt.FPTT(parts=4), steps=12)
        op = next(op for op, _ in program.routines["forward"].ops())
        for rows in (1, 5, 7, 12, 32):
            ((_, features),) = terms(op, rows)
            at = {k: features.get(f"i*o at {k}", 0.0) for k in KNOTS}
            total = sum(knot * value for knot, value in at.items())
            assert total == pytest.approx(rows * 26 * 96)


class TestOperations:
    def test_every_execution_is_one_that_the_device_makes(self, tmp_path):
        """Counted on the device, of parts that differ in length and more than one layer."""
        need_emulator("qemu-rv64")
        program = build(
            fptt.Network([fptt.GRU(3, 5), fptt.Dropout(0.2), fptt.LSTM(5, 4), fptt.Linear(4, 3)]),
            fptt.FPTT(parts=3),
            fptt.Adam(),
            steps=10,
            batch=2,
            clip=1.0,
        )
        counted, total = run_counted(program, "qemu-rv64", tmp_path)
        expected = {o.number: 0 for o in operations(program)}
        for e in executions(program):
            expected[e.operation.number] += e.times
        assert {n: counted[n].calls for n in expected} == expected
        classes = by_class(program, {n: (c.instructions, c.applied) for n, c in counted.items()})
        assert list(classes) == [
            *("other", "MatMul-1", "MatMul-2", "MatMul-3", "Mat2Vec", "EWO-basic", "EWO-combo"),
            *("EWO-SGD", "Sigmoid", "tanh", "softmax", "dataMovement"),
        ]
        # the cost of counting is taken off; what the compiler saves around each count is not, some
        # ten instructions, which is much in so small a network
        assert total <= sum(classes.values()) <= 1.03 * total

    def test_the_update_inside_a_product_is_counted_apart(self, tmp_path):
        need_emulator("qemu-rv64")
        program = build(NET, fptt.FPTT(parts=3), steps=9)
        counted, total = run_counted(program, "qemu-rv64", tmp_path)
        products = [o.number for o in operations(program) if o.op.kind == "fptt_weight_update"]
        assert len(products) == 3
        for number in products:
            assert counted[number].applied > 0
            assert counted[number].instructions > 0
        classes = by_class(program, {n: (c.instructions, c.applied) for n, c in counted.items()})
        assert classes["EWO-SGD"] == sum(c.applied for c in counted.values())
        assert classes["MatMul-3"] == sum(counted[n].instructions for n in products)
        assert sum(classes.values()) == pytest.approx(total, rel=0.02)


def run_counted(program, on, folder):
    """What every operation took in one batch; and all of it, in a firmware that counts nothing."""
    emulator = EMULATORS[on]
    deploy.export(program, program.net.initial(0), folder / "model", target=emulator.target)
    firmware = read_folder(folder / "model")
    batch = [made_up(program, program.batch)]
    plain = checked(emulator.run(build_check(firmware, program, batch, folder, count=False)), on)
    counted = checked(emulator.run(build_check(firmware, program, batch, folder, count=True)), on)
    return counted.operations, plain.instructions


class TestBudget:
    def test_only_what_fits_the_best_first(self):
        # enough for some
        limits = {"ram": 24 * KIB, "flash": 128 * KIB}
        plan = found(**limits)
        everything = found()
        assert 0 < len(plan.fits) < len(everything.fits) == everything.tried
        assert plan.nearest is None
        assert plan.message() == ""
        assert [c.order() for c in plan.fits] == sorted(c.order() for c in plan.fits)
        for one in plan.fits:
            assert one.ram_bytes <= limits["ram"]
            assert one.flash_bytes <= limits["flash"]
            assert one.ram_bytes == one.arena_bytes + one.handle_bytes + one.stack_bytes
            assert one.flash_bytes == one.code_bytes + one.weight_bytes + one.snapshot_bytes
        given_up = [len(one.given_up) for one in plan.fits]
        assert given_up == sorted(given_up)
        # nothing that fits is left out: the same, one by one
        fit = [c for c in everything.fits if c.over(**limits) == (0, 0)]
        assert len(fit) == len(plan.fits)

    def test_what_is_given_up(self):
        plan = found(dtypes=("float32",), parts=[1, 4], batches=[1])
        by_choice = {(c.trains, c.parts, c.saves, c.recompute): c.given_up for c in plan.fits}
        assert by_choice["everything", 1, "full", False] == ()
        assert by_choice["everything", 4, "full", False] == ("gradients reach back 3 of 12 steps",)
        # the readout's gradient needs no steps before
        assert by_choice["readout", 4, "full", False] == ("only the readout trains",)
        assert by_choice["readout", 1, "weights", False] == (
            "only the readout trains",
            "a reset forgets what rule and optimizer remember",
        )
        half = found(dtypes=("bfloat16",), parts=[1], batches=[1]).fits[0]
        assert half.given_up == (
            "numbers have 8 significant bits (bfloat16, rounded stochastically)",
        )

    def test_nothing_but_the_state_is_forgotten_without_a_rule(self):
        plan = fitting.budget(NET, lambda k: fptt.TBPTT(parts=k), target="rv64", steps=12)
        forgotten = {t for c in plan.fits for t in c.given_up if "reset" in t}
        assert forgotten == {"a reset forgets the state of the sequence"}

    def test_nothing_fits_and_by_how_much(self):
        plan = found(ram=4 * KIB, flash=20 * KIB)
        assert plan.fits == []
        nearest = plan.nearest
        ram, flash = nearest.ram_bytes - 4 * KIB, nearest.flash_bytes - 20 * KIB
        assert ram > 0 and flash > 0
        assert nearest.over(4 * KIB, 20 * KIB) == (ram, flash)
        assert plan.message() == (
            f"nothing fits rv64: of {plan.tried} configurations the nearest (K={nearest.parts}, "
            f"batch {nearest.batch}, {nearest.dtype}, trains {nearest.trains}, saves "
            f"{nearest.saves}) needs {ram:,} bytes more RAM than the 4,096 there are and "
            f"{flash:,} bytes more flash than the 20,480 there are"
        )
        # with what the nearest lacks it fits
        again = found(ram=nearest.ram_bytes, flash=nearest.flash_bytes)
        assert again.fits
        # and with a byte less nothing does that takes less of both
        less = found(ram=nearest.ram_bytes - 1, flash=nearest.flash_bytes)
        assert all(c.ram_bytes < nearest.ram_bytes for c in less.fits)

    def test_learnt_state_that_never_fits_is_not_tried_in_all_ways(self):
        """Of ways to train that cannot fit only the smallest case is built."""
        net = fptt.Network([fptt.LSTM(1, 64), fptt.Linear(64, 10)])
        plan = found(net, ram=40 * KIB, dtypes=("float32",))
        assert "everything" not in {c.trains for c in plan.fits}
        assert {c.trains for c in plan.fits} >= {"readout", "biases"}

    def test_what_is_named_is_all_that_is_tried(self):
        plan = found(parts=[3], batches=[2], dtypes=("bfloat16",), train=("1.*",))
        assert {(c.parts, c.batch, c.dtype, c.trains) for c in plan.fits} == {
            (3, 2, "bfloat16", "1.*")
        }

    def test_time_is_instructions_times_cycles_over_the_clock(self):
        one = found(clock=100e6, cpi=2.0).fits[0]
        count = one.instructions
        assert one.seconds == pytest.approx(
            (count.value * 2 / 100e6, count.low * 2 / 100e6, count.high * 2 / 100e6)
        )
        assumed = fitting.CYCLES["rv64"]
        low, high = found(clock=100e6).fits[0].seconds[1:]
        assert low == pytest.approx(count.low * assumed.low / 100e6)
        assert high == pytest.approx(count.high * assumed.high / 100e6)
        assert found().fits[0].seconds is None

    def test_refusals(self):
        with pytest.raises(InputError, match="no instructions were counted for posix; there are:"):
            found(target="posix")
        with pytest.raises(InputError, match="no target 'avr'"):
            found(target="avr")
        with pytest.raises(InputError, match=r"--cpi is 0.*above 0"):
            found(cpi=0.0)

    def test_operations_that_were_never_counted_are_named(self, monkeypatch):
        measured = costs("rv64", "float32")
        some = {k: v for k, v in measured.operations.items() if k != "lstm_forward"}
        monkeypatch.setattr(fitting, "costs", lambda *_: replace(measured, operations=some))
        one = found(dtypes=("float32",), parts=[2]).fits[0]
        assert one.instructions.unmeasured == ("lstm_forward",)
        monkeypatch.undo()
        known = found(dtypes=("float32",), parts=[2]).fits[0]
        assert one.instructions.band > known.instructions.band

    @pytest.mark.parametrize("target", sorted(path.stem for path in FOLDER.glob("*.json")))
    def test_costs_are_of_these_kernels(self, target):
        """After a change of the run time: python tools/calibrate_devices.py."""
        for dtype in ("float32", "bfloat16"):
            assert costs(target, dtype).kernels == kernels_checksum(target)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_all_that_usual_networks_run_was_counted(self, dtype):
        rounding = {"rounding": "stochastic"} if dtype == "bfloat16" else {}
        measured = costs("rv64", dtype)
        for net in (NET, GRU):
            for optimizer in (fptt.SGD(), fptt.SGD(momentum=0.9), fptt.Adam()):
                for rule in (fptt.FPTT(parts=2), fptt.TBPTT(parts=2)):
                    for loss in ("last", "every_step", "auxiliary"):
                        program = build(
                            net, rule, optimizer, steps=4, dtype=dtype, loss=loss, **rounding
                        )
                        assert measured.instructions(program).unmeasured == ()
                        names = {name for name, *_ in costs_of(program)}
                        assert names <= set(measured.operations)


#: limits, networks and steps that make the plan suggest different things
CASES = {
    "qemu-rv64": [
        (NET, 12, {"dtypes": ("float32",)}),
        (NET, 12, {"dtypes": ("bfloat16",), "ram": 24 * KIB}),
        (GRU, 18, {"dtypes": ("float32",), "ram": 20 * KIB, "flash": 96 * KIB}),
    ],
    "qemu-cortex-m4": [
        (NET, 12, {"dtypes": ("float32",), "ram": 24 * KIB}),
        (GRU, 18, {"dtypes": ("bfloat16",)}),
        (fptt.Network([fptt.LSTM(1, 40), fptt.Linear(40, 10)]), 28, {"ram": 24 * KIB}),
    ],
}


def different(fits, count):
    """So many of them, that differ in what trains, in K and in the batch."""
    chosen, seen = [], set()
    for key in (
        lambda c: c.trains,
        lambda c: (c.parts == 1, c.recompute),
        lambda c: c.batch,
        lambda c: (c.parts, c.saves),
    ):
        for one in fits:
            if key(one) not in seen and one not in chosen:
                chosen.append(one)
                seen.add(key(one))
    return chosen[:count]


@pytest.mark.parametrize("on", CASES)
@pytest.mark.parametrize("case", range(3))
def test_suggestions_are_true(on, case, tmp_path):
    """Exported, built and run: RAM to the byte, flash and instructions within what is stated.

    Six cases with three suggestions each, over two targets.
    """
    need_emulator(on)
    net, steps, limits = CASES[on][case]
    board = EMULATORS[on].target
    plan = found(net, board, steps, **limits)
    chosen = different(plan.fits, 3)
    assert len(chosen) == 3
    for number, one in enumerate(chosen):
        program = build(net, fptt.FPTT(parts=one.parts), fptt.SGD(), steps=steps, **one.options)
        scratch = tmp_path / str(number)
        scratch.mkdir()
        deploy.export(program, program.net.initial(0), scratch / "model", target=board)
        firmware = read_folder(scratch / "model")
        batches = [made_up(program, program.batch, seed) for seed in (1, 2)]
        elf = build_check(firmware, program, batches, scratch, count=False)
        check = checked(EMULATORS[on].run(elf), on)
        assert check.status == "FPTT_OK"
        assert check.one_byte_less == "FPTT_ARENA_TOO_SMALL"
        linked = {s.name: s.bytes for s in read_elf(elf).symbols}
        assert linked["check_arena"] == one.arena_bytes
        assert linked["check_model"] == one.handle_bytes
        assert check.stack <= one.stack_bytes
        per_sequence = check.instructions / (2 * one.batch)
        assert one.instructions.low <= per_sequence <= one.instructions.high, (
            per_sequence / one.instructions.value,
            one,
        )
        assert one.instructions.band < 0.35
        whole = link_whole(firmware, scratch)
        promised = one.code_bytes + one.weight_bytes
        error = costs(board, one.dtype).code_error
        assert promised - 2 * error <= whole.flash_bytes <= promised
        assert one.weight_bytes == footprint(program, TARGETS[board].pointer_bytes).constants
        saved = saved_state(program)
        payload = saved.full if one.saves == "full" else saved.weights
        assert one.snapshot_bytes == plan.part.area_bytes(payload)


class TestCommand:
    ARGUMENTS = ("plan", "--target", "rv64", "--hidden", "8", "--steps", "12", "--inputs", "2")

    def run(self, capsys, *more):
        code = cli.main([*self.ARGUMENTS, *more])
        out, err = capsys.readouterr()
        return code, out, err

    def test_json(self, capsys):
        code, out, _ = self.run(
            capsys, "--ram", "16KiB", "--flash", "128KiB", "--clock", "100MHz", "--json"
        )
        assert code == 0
        document = json.loads(out)
        assert list(document) == [
            *("network", "target", "ram_limit", "flash_limit", "clock_hz"),
            *("cycles_per_instruction", "cycles_per_instruction_low"),
            *("cycles_per_instruction_high", "instructions_from", "erase_bytes", "write_bytes"),
            *("endurance", "tried", "fits", "nearest", "missing_ram_bytes"),
            "missing_flash_bytes",
        ]
        assert list(document["fits"][0]) == [
            *("parts", "batch", "dtype", "recompute", "trains", "saves", "ram_bytes"),
            *("arena_bytes", "handle_bytes", "stack_bytes", "flash_bytes", "code_bytes"),
            *("weight_bytes", "snapshot_bytes", "instructions", "instructions_low"),
            *("instructions_high", "unmeasured", "seconds", "seconds_low", "seconds_high"),
            *("saves_until_worn", "given_up", "export"),
        ]
        assert document["ram_limit"] == 16384
        assert document["nearest"] is None
        help_text = " ".join((cli.plan.__doc__ or "").split())
        for key in (*document, *document["fits"][0]):
            assert key in help_text

    def test_table(self, capsys):
        code, out, _ = self.run(capsys, "--ram", "16KiB", "--clock", "100MHz", "--lines", "3")
        assert code == 0
        assert "What fits, best first" in out
        assert "The best of each way to train" in out
        assert "20,000 saves" in out
        assert "assumed" in out

    def test_nothing_fits(self, capsys):
        code, out, err = self.run(capsys, "--ram", "1KiB")
        assert code == 1
        assert "Nothing fits; the nearest" in out
        assert "bytes more RAM than the 1,024 there are" in err
        code, out, err = self.run(capsys, "--ram", "1KiB", "--json")
        assert code == 1
        document = json.loads(out)
        assert document["fits"] == []
        assert document["missing_ram_bytes"] == document["nearest"]["ram_bytes"] - 1024

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--ram", "256XB"), "--ram is '256XB'; give whole bytes"),
            (("--flash", "0"), "--flash is '0'; give whole bytes"),
            (("--ram=-1KiB",), "--ram is '-1KiB'; give whole bytes"),
            (("--erase", "3"), "--erase is 3; give a multiple"),
            (("--clock", "fast"), "--clock is 'fast'; give a frequency"),
            (("--lines", "0"), "--lines is 0; give at least 1"),
            (("--rule", "fptt,bptt"), "with --target give one"),
            (("--dtype", "float64"), "devices compute in float32 or bfloat16"),
            (("--program",), "--program has no effect with --target"),
        ],
    )
    def test_wrong_use(self, capsys, arguments, message):
        code, _, err = self.run(capsys, *arguments)
        assert code == 2
        assert message in err

    @pytest.mark.parametrize("option", ["--ram", "--flash", "--clock", "--erase"])
    def test_options_that_need_a_target(self, capsys, option):
        assert cli.main(["plan", option, "1KiB"]) == 2
        assert f"{option} needs --target" in capsys.readouterr().err

    def test_a_model(self, capsys, tmp_path):
        from fptt.storage.modelfile import save_model

        net = fptt.Network([fptt.LSTM(2, 6), fptt.Linear(6, 3)])
        path = tmp_path / "model.safetensors"
        save_model(path, net, net.initial(0), "last", "cross_entropy", {"steps": 8})
        assert cli.main(["plan", "--target", "rv64", "--model", str(path), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["network"] == "LSTM(2, 6) - Linear(6, 3), T=8"
        assert {one["parts"] for one in document["fits"]} == {1, 2, 4, 8}
