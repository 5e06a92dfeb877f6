"""`fptt explore` on its own cycle model: --validate, --calibrate, --constants, --what-if."""

import csv
import json

import pytest

from fptt import cli
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.constants import NAMES, load_constants
from fptt.soc.datafile import FOLDER
from fptt.soc.validation import MEASURED


def run(capsys, *words):
    """Exit code, standard output, standard error."""
    code = cli.main(["explore", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_validation_has_every_measured_number_and_those_left_out(capsys):
    code, out, _ = run(capsys, "--validate", "--json")
    assert code == 0
    rows = json.loads(out)
    with MEASURED.open() as file:
        measured = {
            (row["mesh"], int(row["cores"]), int(row["K"]), row["function"]): int(row["cycles"])
            for row in csv.DictReader(file)
        }
    assert len(measured) == 144
    seen = [row for row in rows if not row["left_out"]]
    assert {
        (row["mesh"], row["cores"], row["parts"], row["function"]): row["measured"] for row in seen
    } == measured
    assert len(rows) == 3 * len(seen)
    for row in rows:
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)


def test_validation_for_people(capsys):
    code, out, _ = run(capsys, "--validate")
    assert code == 0
    assert "With constants calibrated on: Zhang et al." in out
    assert "Each design point and each K predicted without its measurements" in out
    for name in FUNCTION_CLASSES:
        assert out.count(f" {name} ") >= 3 * 12
    lines = [line.split() for line in out.splitlines()]
    assert ["4x4-10", "1", "MatMul-3", "MatMul-3"] in lines
    assert ["4x4-10", "784", "EWO-SGD", "EWO-SGD"] in lines


@pytest.fixture
def ours(tmp_path):
    """Measurements on a chip whose cores take 1.5 times as long for a sigmoid."""
    path = tmp_path / "ours.csv"
    with MEASURED.open() as file, path.open("w", newline="") as out:
        rows = csv.DictReader(file)
        written = csv.DictWriter(out, rows.fieldnames)
        written.writeheader()
        for row in rows:
            if row["function"] == "Sigmoid":
                row["cycles"] = round(1.5 * int(row["cycles"]))
            if row["function"] != "total":
                written.writerow(row)
    return path


def test_calibration_on_measurements_of_ones_own(capsys, tmp_path, ours):
    constants = tmp_path / "constants.toml"
    code, out, _ = run(capsys, "--calibrate", str(ours), "--out", str(constants))
    assert code == 0
    assert f"{len(NAMES)} constants from 132 measured numbers" in out
    first = constants.read_text().splitlines()[0]
    assert f"--calibrate {ours}" in first and f"--out {constants}" in first
    rows = {}
    for words in ((), ("--constants", str(constants))):
        options = ("--workload", "published", "--design", "8x8-6", "--parts", "28", "--json")
        code, out, _ = run(capsys, *options, *words)
        assert code == 0
        rows[bool(words)] = {row["function"]: row["cycles"] for row in json.loads(out)}
    assert rows[True]["Sigmoid"] == pytest.approx(1.5 * rows[False]["Sigmoid"], rel=0.06)
    assert rows[True]["MatMul-1"] == pytest.approx(rows[False]["MatMul-1"], rel=0.01)
    # with the packaged constants these measurements look wrong, with their own they do not
    worst = {}
    for words in ((), ("--constants", str(constants))):
        code, out, _ = run(capsys, "--validate", "--measurements", str(ours), "--json", *words)
        assert code == 0
        found = [row for row in json.loads(out) if not row["left_out"]]
        worst[bool(words)] = max(abs(row["error"]) for row in found if row["function"] == "Sigmoid")
    assert worst[False] > 0.3
    assert worst[True] < 0.1


def test_calibration_as_json(capsys, tmp_path):
    path = tmp_path / "constants.toml"
    code, out, _ = run(capsys, "--calibrate", str(MEASURED), "--out", str(path), "--json")
    assert code == 0
    found = json.loads(out)
    assert found.keys() == {"constants", "spreads", "file"}
    assert found["file"] == str(path) and found["constants"]["tanh"] == pytest.approx(276, rel=0.02)
    assert found["spreads"].keys() == {*FUNCTION_CLASSES, "total"}


def test_calibration_of_another_chip(capsys, tmp_path):
    """A chip with a narrower bus: the file says so, and the chip is then one that was measured."""
    text = (FOLDER / "chips/published.toml").read_text()
    before = "[bus_bits]\nvalue = 128"
    assert before in text
    chip, out = tmp_path / "chip.toml", tmp_path / "constants.toml"
    chip.write_text(text.replace(before, "[bus_bits]\nvalue = 64"))
    code, _, _ = run(capsys, "--calibrate", str(MEASURED), "--chip", str(chip), "--out", str(out))
    assert code == 0
    assert load_constants(out).measured.others["bus_bits"] == 64
    sd = {}
    for constants in ((), ("--constants", str(out))):
        words = (
            "--workload",
            "published",
            "--chip",
            str(chip),
            "--design",
            "4x4-1",
            "--parts",
            "1",
        )
        code, text, _ = run(capsys, *words, "--json", *constants)
        assert code == 0
        sd[bool(constants)] = json.loads(text)[0]["uncertainty"]
    assert sd[True] < sd[False]


def test_what_if(capsys):
    code, out, _ = run(capsys, "--what-if", "--json")
    assert code == 0
    rows = json.loads(out)
    assert rows[0]["name"] == "published best point"
    assert rows[0]["speedup"] == {"1": 1.0, "28": 1.0, "784": 1.0}
    assert {name for row in rows for name in row["units"]} == {
        "blocks", "vector_bits", "activation_lanes", "fptt_lanes",
    }  # fmt: skip
    code, out, _ = run(capsys, "--what-if")
    assert code == 0
    for row in rows:
        assert f"{row['name']}: {row['assumes']}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--validate", "--cores", "4"), "--cores has no effect with --validate"),
        (("--what-if", "--design", "8x8-1"), "--design has no effect with --what-if"),
        (("--steps", "0"), "--steps is 0; give a whole number of at least 1"),
        (("--parts", "\u0663"), "give whole numbers from 1"),
        (("--calibrate", "x.csv"), "--calibrate needs --out FILE"),
        (("--calibrate", "x.csv", "--out", "y"), "cannot read measurements x.csv"),
        (("--measurements", "x.csv"), "--measurements has an effect with --validate only"),
        (("--constants", "none.toml"), "cannot read constants of the cycle model none.toml"),
        (("--validate", "--measurements", "none.csv"), "cannot read measurements none.csv"),
    ],
)
def test_wrong_use(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert message in " ".join(err.split())
