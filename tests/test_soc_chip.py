"""Chips as data files: what they say, what is refused, and the published figures beside them."""

import re
import tomllib

import pytest

from fptt.errors import InputError
from fptt.soc import publications
from fptt.soc.chip import available_chips, design_points, load_chip
from fptt.soc.datafile import FOLDER

PUBLISHED = FOLDER / "chips" / "published.toml"


def refused(call, *parts):
    """The message has all of these, in this order."""
    with pytest.raises(InputError) as caught:
        call()
    assert re.search(".*".join(re.escape(str(part)) for part in parts), str(caught.value))


def edited(tmp_path, key, **changes):
    """The published chip's file with an entry changed; None removes a part of it."""
    text = PUBLISHED.read_text()
    head, entry, rest = re.split(rf"(\[{key}\]\n.*?\n)(?=\n|\Z)", text, maxsplit=1, flags=re.S)
    for part, value in changes.items():
        line = "" if value is None else f"{part} = {value}\n"
        entry, count = re.subn(rf"{part} = .*\n", line, entry)
        assert count == 1
    path = tmp_path / "mine.toml"
    path.write_text(head + entry + rest)
    return path


# --- the chips of the package ----------


def test_published_system():
    chip = load_chip()
    assert (chip.mesh, chip.cores, chip.data_type, chip.dataflow) == (4, 1, "bf16", "WS")
    assert chip.output_type == chip.accumulator_type == "bf16"
    assert (chip.scratchpad_kib, chip.accumulator_kib, chip.clock_hz) == (128, 32, 500e6)
    assert (chip.icache_kib, chip.dcache_kib, chip.line_bytes) == (16, 16, 64)
    assert chip.isa == "RV64IMAFDC" and chip.emulated_bf16 and not chip.convolution_paths


def test_gemminis_own_configurations():
    fp32, bf16 = load_chip("gemmini-fp32"), load_chip("gemmini-bf16")
    for chip in (fp32, bf16):
        assert (chip.mesh, chip.scratchpad_kib, chip.accumulator_kib) == (4, 256, 64)
        assert (chip.accumulator_type, chip.dataflow) == ("fp32", "BOTH")
    assert (fp32.data_type, bf16.data_type, bf16.output_type) == ("fp32", "bf16", "bf16")
    assert (fp32.emulated_bf16, bf16.emulated_bf16) == (False, True)
    rocket = load_chip("rocket")
    assert (rocket.mesh, rocket.cores, rocket.scratchpad_kib) == (0, 1, 0)


@pytest.mark.parametrize("name", available_chips())
def test_every_number_has_unit_and_source(name):
    chip = load_chip(name)
    assert chip.name == name
    for key, entry in tomllib.loads((FOLDER / "chips" / f"{name}.toml").read_text()).items():
        if isinstance(entry, dict):
            assert set(entry) == {"value", "unit", "source"}
            assert re.match(
                r"Zhang et al\.|Gemmini|Chipyard|Rocket Chip|assumption: ", entry["source"]
            )
            assert chip.sources[key] == entry["source"]


def test_the_twelve_published_points():
    points = design_points()
    assert [chip.design for chip in points] == [
        f"{mesh}x{mesh}-{cores}" for mesh in (4, 8) for cores in (1, 2, 4, 6, 8, 10)
    ]
    assert {chip.mesh_name for chip in points} == {"4x4", "8x8"}
    assert all(points[i] == load_chip(points[i].design) for i in range(12))
    # they were published: nobody chose them
    assert not any("chosen" in source for chip in points for source in chip.sources.values())


# --- changes ----------


def test_changes_keep_the_rest_and_say_so():
    chip = load_chip("gemmini-fp32")
    other = chip.with_(mesh=16, cores=3, clock_hz=10**9, extras={"lanes": 4})
    assert (other.mesh_name, other.design, other.clock_hz) == ("16x16", "16x16-3", 1e9)
    assert (other.scratchpad_kib, other.extras) == (256, {"lanes": 4})
    for key in ("mesh_rows", "mesh_columns", "cores", "clock_hz", "extras.lanes"):
        assert other.sources[key].startswith("assumption: chosen")
    assert other.sources["l2_kib"] == chip.sources["l2_kib"]
    assert chip.mesh == 4 and chip.sources["cores"] != other.sources["cores"]
    # what was published of one system is no source for another
    assert "chosen" in chip.with_(mesh=8).sources["mesh_rows"]
    assert {chip.with_(cores=2), chip.with_(cores=2), chip} == {chip, chip.with_(cores=2)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cores": 0}, ["cores is 0", "at least 1"]),
        ({"cores": True}, ["cores is True", "whole number"]),
        ({"cores": 2.0}, ["cores is 2.0", "whole number"]),
        ({"mesh": 6}, ["mesh is 6", "power of two"]),
        ({"mesh": 1}, ["mesh is 1", "at least 2"]),
        ({"mesh": 0}, ["scratchpad_kib is 128 with a mesh of 0", "expected 0"]),
        ({"data_type": "int8"}, ["data_type is 'int8'", "bf16 or fp32"]),
        ({"clock_hz": 0}, ["clock_hz is 0", "above 0"]),
        ({"clock_hz": float("nan")}, ["clock_hz is nan", "above 0"]),
        ({"emulated_bf16": 1}, ["emulated_bf16 is 1", "true or false"]),
        ({"l2_banks": 1024}, ["l2_banks is 1024", "at most 512"]),
        ({"mesh_rows": 8}, ["unknown key 'mesh_rows'", "mesh"]),
        ({"core": 2}, ["unknown key 'core'", "cores"]),
    ],
)
def test_refused_changes(changes, words):
    refused(lambda: load_chip().with_(**changes), "chip published", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("8x4-1", ["8x4-1", "8 x 4", "as many rows as columns"]),
        ("3x3-1", ["mesh is 3"]),
        ("8x8-0", ["cores is 0"]),
        ("rockt", ["no chip 'rockt'", "gemmini-fp32", "8x8-10", ".toml"]),
        ("no/such.toml", ["no/such.toml", "No such file"]),
    ],
)
def test_refused_names(name, words):
    refused(lambda: load_chip(name), *words)


# --- files ----------


def test_a_file_of_ones_own(tmp_path):
    path = edited(tmp_path, "cores", value=7)
    path.write_text(
        path.read_text() + '\n[extras.lanes]\nvalue = 4\nunit = "lanes"\nsource = "ours"\n'
    )
    chip = load_chip(path)
    assert (chip.cores, chip.extras, chip.sources["extras.lanes"]) == (7, {"lanes": 4}, "ours")
    assert load_chip(str(path)) == chip


@pytest.mark.parametrize(
    ("key", "changes", "words"),
    [
        ("cores", {"value": "0"}, ["cores is 0", "at least 1"]),
        ("cores", {"value": '"1"'}, ["cores is '1'", "whole number"]),
        ("cores", {"unit": None}, ["cores: unit is missing"]),
        ("cores", {"source": None}, ["cores: source is missing"]),
        ("cores", {"source": '" "'}, ["cores.source is ' '", "text"]),
        ("cores", {"value": "1\nvlaue = 1"}, ["cores: unknown key 'vlaue'", "value, unit, source"]),
        ("mesh_columns", {"value": "8"}, ["mesh_columns is 8 with mesh_rows 4", "square"]),
        ("scratchpad_kib", {"unit": '"MiB"'}, ["scratchpad_kib.unit is 'MiB'", "'KiB'"]),
        ("scratchpad_kib", {"value": "0"}, ["scratchpad_kib is 0 with a mesh of 4"]),
        ("line_bytes", {"value": "48"}, ["line_bytes is 48", "power of two"]),
        ("dataflow", {"value": '"ws"'}, ["dataflow is 'ws'", "WS or OS or BOTH"]),
        ("clock_hz", {"value": "true"}, ["clock_hz is True", "above 0"]),
        ("emulated_bf16", {"value": '"yes"'}, ["emulated_bf16 is 'yes'", "true or false"]),
    ],
)
def test_refused_files(tmp_path, key, changes, words):
    path = edited(tmp_path, key, **changes)
    refused(lambda: load_chip(path), path, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'\ncores = 3", ["description is missing"]),
        ("colour = 'red'", ["unknown key 'colour'", "remove it"]),
        ("cores = [", ["expected a chip, a TOML file"]),
    ],
)
def test_refused_texts(tmp_path, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    refused(lambda: load_chip(path), path, *words)
    path.write_text(PUBLISHED.read_text().replace("[cores]\nvalue = 1", "[cores.x]\nvalue = 1"))
    refused(lambda: load_chip(path), path, "cores: unknown key 'x'")
    path.write_text(PUBLISHED.read_text() + "\n[extras]\nlanes = 4\n")
    refused(lambda: load_chip(path), path, "extras.lanes is 4", "table with value, unit and source")


# --- what was published beside them ----------


def test_published_times():
    found = publications.published_measurements()
    assert {row.kind for row in found.times} == {"rocket", "chip", "gpu"}
    best = found.time("8x8-10").seconds
    for row in found.times:
        assert set(row.seconds) == {1, 28, 784} and "Zhang" in row.source
        # it is called the best point, and K = 1 the cheapest
        assert all(best[parts] <= row.seconds[parts] for parts in best)
        assert row.seconds[1] < row.seconds[28] < row.seconds[784]
        if row.chip:
            assert load_chip(row.chip).clock_hz == 500e6
    refused(lambda: found.time("H100"), "no 'H100'", "single Rocket", "V100")
    refused(lambda: found.fpga("x"), "no 'x'", "VCU118")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "gpu"', 'kind = "tpu"', ["time T4.kind is 'tpu'", "rocket or chip or gpu"]),
        ("28 = 22.85", "28 = -1", ["time single Rocket.seconds", "above 0 by K"]),
        ("dsp = 270", "dsp = 2.5", ["resources system 8x8-10.dsp is 2.5", "whole number"]),
        ("bram = [8, 12]", "bram = 8", ["each further core.bram is 8", "least and the most"]),
        ("lut = 1182240", "luts = 1182240", ["fpga[0]: unknown key 'luts'"]),
        ('name = "VCU118"', "", ["fpga[0]: name is missing"]),
        ('unit = "s"', 'unit = "ms"', ["time single Rocket.unit is 'ms'", "'s'"]),
    ],
)
def test_refused_measurements(tmp_path, old, new, words):
    path = tmp_path / "measured.toml"
    text = (FOLDER / "publications.toml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    refused(lambda: publications.read_measurements(path), path, *words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": 2048}, "mesh is 2048; expected at most 1024"),
        ({"cores": 10**23}, "expected at most 4096"),
        ({"clock_hz": 1e-300}, "clock_hz is 1e-300; expected at least 1000"),
        ({"clock_hz": 1e300}, "clock_hz is 1e+300; expected at most"),
        ({"data_type": "fp32"}, "emulated_bf16 is true with data_type fp32"),
    ],
)
def test_what_no_chip_can_be(changes, message):
    with pytest.raises(InputError) as caught:
        load_chip().with_(**changes)
    assert message in str(caught.value)
