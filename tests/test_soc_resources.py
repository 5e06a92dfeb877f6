"""What a chip takes on an FPGA, against every published row."""

import pytest

from fptt.soc.chip import design_points, load_chip
from fptt.soc.publications import published_measurements
from fptt.soc.resources import Resources, bank_brams, gemmini, residuals, resources

#: HARDWARE facts, typed here once more: LUT, FF, BRAM, DSP
ROWS = {
    ("gemmini", "gemmini-fp32"): (94_969, 31_067, 80, 256),
    ("gemmini", "4x4-1"): (42_022, 23_818, 40, 120),
    ("gemmini", "8x8-1"): (81_106, 34_551, 40, 120),
    ("system", "4x4-1"): (86_235, 46_766, 168, 135),
    ("system", "8x8-10"): (384_080, 182_179, 244, 270),
}


def amounts(found):
    return (found.lut, found.ff, found.bram, found.dsp)


@pytest.mark.parametrize(("row", "published"), ROWS.items(), ids=[" ".join(r) for r in ROWS])
def test_published_rows_are_met(row, published):
    part, name = row
    found = (gemmini if part == "gemmini" else resources)(load_chip(name))
    assert amounts(found) == published
    assert found.extrapolated is None


def test_residuals_are_of_every_row_and_small_where_nothing_was_fitted():
    found = residuals()
    rows = published_measurements().resources
    assert len(found) == 4 * len(rows) == 24
    free = {(r.row, r.kind): r.error for r in found if not r.used}
    # one more core is no input of the model, and neither are Gemmini's block RAMs
    assert {row for row, _ in free} == {"each further core"} | {
        row.name for row in rows if row.part == "gemmini"
    }
    assert len(free) == 4 + 3
    assert max(map(abs, free.values())) == pytest.approx(0.03, abs=0.0005)  # its flip-flops
    assert free["each further core", "lut"] == pytest.approx(-0.0086, abs=0.0005)
    assert all(free[row.name, "bram"] == 0 for row in rows if row.part == "gemmini")
    assert all(r.error == 0 for r in found if r.used)


def test_a_whole_system_from_the_stated_core():
    """The largest system from the smallest and what is stated for a core: it was about that."""
    core = next(row for row in published_measurements().resources if row.part == "core")
    small, large = load_chip("4x4-1"), load_chip("8x8-10")
    array = amounts(gemmini(large)), amounts(gemmini(small))
    for i, (kind, tolerance) in enumerate({"lut": 0.006, "ff": 0.02, "dsp": 0}.items()):
        j = {"lut": 0, "ff": 1, "dsp": 3}[kind]
        whole = ROWS["system", "4x4-1"][j] + array[0][j] - array[1][j] + 9 * getattr(core, kind)
        assert whole == pytest.approx(ROWS["system", "8x8-10"][j], rel=tolerance + 1e-3), i


def test_more_is_more():
    points = design_points()
    assert all(resources(point).extrapolated is None for point in points)
    for small, large in zip(points[:6], points[6:], strict=True):
        assert resources(small).lut < resources(large).lut
        assert resources(small).dsp == resources(large).dsp
    luts = [resources(point).lut for point in points[:6]]
    assert luts == sorted(luts)
    each = (luts[5] - luts[0]) / 9
    assert luts[1] - luts[0] == pytest.approx(each, abs=1)


@pytest.mark.parametrize(
    ("chip", "reason"),
    [
        (load_chip("2x2-1"), "2x2 in bf16: the published arrays are 4x4 and 8x8"),
        (load_chip("16x16-1"), "16x16 in bf16"),
        (load_chip("rocket"), "no system without Gemmini"),
        (load_chip("gemmini-fp32"), "the published systems are in bf16"),
        (load_chip("gemmini-fp32").with_(mesh=8), "8x8 in fp32: the published arrays are 4x4"),
        (load_chip("gemmini-bf16"), "accumulator of another type than published"),
        (load_chip().with_(convolution_paths=True), "other paths for convolutions"),
        (load_chip().with_(dataflow="OS"), "another dataflow"),
        (load_chip().with_(scratchpad_kib=64), "memories other than the published"),
        (load_chip().with_(accumulator_kib=64), "memories other than the published"),
        (load_chip().with_(l2_kib=256), "caches of other sizes"),
        (load_chip().with_(cores=12), "more than 10 cores"),
    ],
    ids=str,
)
def test_extrapolation_is_marked(chip, reason):
    assert reason in resources(chip).extrapolated


def test_extrapolated_figures():
    base = resources(load_chip("4x4-1"))
    # PEs: the line through 4x4 and 8x8
    lut = (81_106 - 42_022) / 48
    assert resources(load_chip("16x16-1")).lut == round(86_235 + lut * (256 - 16))
    assert resources(load_chip("2x2-1")).lut == round(86_235 - lut * 12)
    # two DSPs for the significands of each float32 PE, in the 32 that 4x4 has
    assert gemmini(load_chip("gemmini-fp32").with_(mesh=8)).dsp == 256 + 2 * 48
    # half a scratchpad, twice an accumulator, a smaller cache, other first-level caches
    small = load_chip().with_(scratchpad_kib=64)
    assert base.bram - resources(small).bram == 16
    assert resources(load_chip().with_(accumulator_kib=64)).bram - base.bram == 8
    assert base.bram - resources(load_chip().with_(l2_kib=256)).bram == 64
    assert resources(load_chip().with_(dcache_kib=32)).bram - base.bram == 4
    assert resources(load_chip("4x4-10").with_(dcache_kib=32)).bram == 244 + 40
    # rows of 512 bits take eight blocks however few they are; of 256 bits, four
    wide = load_chip("16x16-1").with_(accumulator_kib=8)
    both = gemmini(wide), gemmini(wide.with_(accumulator_type="fp32"))
    assert both[1].bram - both[0].bram == 4
    # without an array
    assert amounts(resources(load_chip("rocket"))) == (44_213, 22_948, 128, 15)


@pytest.mark.parametrize(
    ("rows", "bits", "blocks"),
    [
        (512, 64, 1),
        (513, 64, 2),
        (1024, 32, 1),
        (32_768, 1, 1),
        (4096, 8, 1),
        (2048, 128, 8),
        (1, 65, 2),
    ],
)
def test_block_rams(rows, bits, blocks):
    assert bank_brams(rows, bits) == blocks


def test_an_added_unit():
    unit = Resources(1000, 200, 4, 30, "synthesised elsewhere")
    chip = load_chip("8x8-10")
    found = resources(chip, unit)
    assert amounts(found) == (385_080, 182_379, 248, 300)
    assert found.extrapolated == "synthesised elsewhere"
    small = resources(load_chip("2x2-1"), unit)
    assert small.extrapolated.endswith("4x4 and 8x8; synthesised elsewhere")
    assert (unit + Resources(1, 1, 1, 1)).extrapolated == "synthesised elsewhere"


def test_what_fits_on_the_board():
    board = published_measurements().fpga("VCU118")
    assert amounts(board) == (1_182_240, 2_364_480, 2_160, 6_840)
    assert all(resources(point).lacks() is None for point in design_points())
    full = Resources(1_182_240, 2_364_480, 2_160, 6_840)
    assert full.lacks() is None
    over = full + Resources(1, 0, 0, 1)
    assert over.lacks() == (
        "does not fit on the VCU118: 1,182,241 LUT of 1,182,240, 6,841 DSP of 6,840"
    )
    assert "384,080" not in resources(load_chip("8x8-10").with_(cores=40)).lacks()
