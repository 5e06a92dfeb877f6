"""Configurations for Chipyard: the header's numbers, its C, the Scala, and the folder."""

import json
import re
import shutil
import subprocess

import pytest

from fptt.errors import InputError, SaveError
from fptt.soc import chipyard
from fptt.soc.chip import design_points, load_chip
from fptt.soc.chipyard import config_name, emit, scala
from fptt.soc.gemmini_header import TYPES, derived, header, of

CHIPS = [
    load_chip("4x4-1"),
    load_chip("8x8-10"),
    load_chip("gemmini-fp32"),
    load_chip("gemmini-bf16").with_(mesh=16),
    load_chip("gemmini-fp32").with_(mesh=32, accumulator_kib=64),
]


def refused(call, *parts):
    with pytest.raises(InputError) as caught:
        call()
    assert re.search(".*".join(re.escape(str(part)) for part in parts), str(caught.value))


# --- numbers ----------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # public headers of Gemmini: int8 default, float32 at 16x16, float32 at 4x4
        ((16, 256, 4, 8, 64, 2, 32), (16, 4, 4096, 1024, 4, 1)),
        ((16, 256, 4, 32, 64, 1, 32), (16, 4, 1024, 1024, 1, 1)),
        ((4, 256, 4, 32, 64, 1, 32), (4, 4, 4096, 4096, 4, 4)),
        # rows longer than 64 bytes are moved one by one
        ((32, 256, 4, 32, 64, 1, 32), (32, 4, 512, 512, 1, 1)),
    ],
)
def test_known_headers(given, expected):
    found = derived(*given)
    assert (found.dim, found.bank_num, found.bank_rows, found.acc_rows) == expected[:4]
    assert (found.max_block_len, found.max_block_len_acc) == expected[4:]


@pytest.mark.parametrize("chip", [*design_points(), *CHIPS], ids=lambda chip: chip.design)
def test_formulas(chip):
    found = of(chip)
    bits = {"bf16": 16, "fp32": 32}
    own, acc = bits[chip.data_type], bits[chip.accumulator_type]
    sp_bits, acc_bits = chip.scratchpad_kib * 8192, chip.accumulator_kib * 8192
    assert found.dim == chip.mesh
    assert found.bank_rows == sp_bits // (chip.scratchpad_banks * chip.mesh * own)
    assert found.acc_rows == chip.accumulator_banks * (
        acc_bits // (chip.accumulator_banks * chip.mesh * acc)
    )
    # all of the memories is there
    assert found.bank_num * found.bank_rows * chip.mesh * own == sp_bits
    assert found.acc_rows * chip.mesh * acc == acc_bits
    for blocks, width in ((found.max_block_len, own), (found.max_block_len_acc, acc)):
        assert blocks == 1 or blocks * chip.mesh * width == 64 * 8


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        (load_chip("rocket"), ["rocket has no Gemmini array", "at least 2"]),
        (
            load_chip().with_(scratchpad_kib=100),
            ["scratchpad_kib is 100", "3200 rows", "power of two"],
        ),
        (load_chip().with_(scratchpad_kib=3), ["scratchpad_kib is 3", "power of two"]),
        (
            load_chip("16x16-1").with_(scratchpad_kib=1),
            ["16x16-1", "scratchpad_kib is 1 in 4 banks", "multiple of 2 KiB"],
        ),
        (
            load_chip("16x16-1").with_(accumulator_kib=3, accumulator_banks=8),
            ["accumulator_kib is 3 in 8 banks", "multiple of 4 KiB"],
        ),
        (load_chip().with_(accumulator_kib=128), ["accumulator_kib is 128", "two tiles fewer"]),
    ],
    ids=lambda x: getattr(x, "design", ""),
)
def test_refused_arrays(tmp_path, chip, words):
    folder = tmp_path / "out"
    refused(lambda: emit(chip, folder), *words)
    assert not folder.exists()


@pytest.mark.parametrize("dim", [0, 1, 3, 12, -4])
def test_refused_sizes(dim):
    refused(lambda: derived(dim, 256, 4, 8, 64, 2, 32), f"mesh is {dim}", "power of two")


# --- C ----------

CHECKS = """
#include "gemmini_params.h"
#include "gemmini_params.h"
#include <stdio.h>
#define SAME(a, b) _Static_assert((a) == (b), #a)
SAME(XCUSTOM_ACC, 3);
SAME(ADDR_LEN, 32);
SAME(MAX_BYTES, 64);
SAME(sizeof(elem_t_bits), sizeof(elem_t));
SAME(sizeof(acc_t_bits), sizeof(acc_t));
SAME(sizeof(scale_t_bits), sizeof(scale_t));
SAME(sizeof(scale_acc_t_bits), sizeof(scale_acc_t));
SAME(sizeof(acc_scale_t_bits), sizeof(acc_scale_t));
SAME(sizeof(full_t), 8);
SAME(_Generic((scale_t)0, float: 1, default: 0), 1);
#if !defined HAS_MVIN_SCALE || !defined HAS_MVIN_ACC_SCALE || !defined ACC_SCALE_T_IS_FLOAT || \\
    !defined ELEM_T_IS_FLOAT || !defined ACC_READ_SMALL_WIDTH || !defined ACC_READ_FULL_WIDTH
#error a macro is missing
#endif
static elem_t tile[DIM][DIM] row_align(MAX_BLOCK_LEN);
static acc_t sums[DIM][DIM] row_align_acc(1);
SAME(_Alignof(tile), MAX_BLOCK_LEN * DIM * sizeof(elem_t));
SAME(_Alignof(sums), DIM * sizeof(acc_t));
"""


def compiler():
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip.name}-{chip.design}")
def test_header_compiles_with_the_derived_values(tmp_path, chip):
    emitted = emit(chip, tmp_path / "out")
    lines = [f"SAME({name}, {value});" for name, value in emitted.as_json()["header"].items()]
    element, accumulator = TYPES[chip.data_type], TYPES[chip.accumulator_type]
    lines += [
        f"SAME(sizeof(elem_t) * 8, {element.bits});",
        f"SAME(sizeof(acc_t) * 8, {accumulator.bits});",
        f"SAME(ELEM_T_EXP_BITS + ELEM_T_SIG_BITS, {element.bits});",
        f"SAME(ACC_T_EXP_BITS + ACC_T_SIG_BITS, {accumulator.bits});",
    ]
    low, first = chip.data_type == "bf16", chip.convolution_paths
    lines += [
        f"#if {'!' if low else ''}defined ELEM_T_IS_LOWPREC_FLOAT\n#error low precision\n#endif",
        f"#if {'!' if first else ''}defined HAS_FIRST_LAYER_OPTIMIZATIONS\n#error paths\n#endif",
    ]
    # (2 - 2^-7) 2^127 and (2 - 2^-23) 2^127
    largest = {"bf16": "3.3895313892515355e38", "fp32": "3.4028234663852886e38"}[chip.data_type]
    source = tmp_path / "check.c"
    source.write_text(
        CHECKS
        + "\n".join(lines)
        + f"""
int main(void) {{
  const double halves[] = {{-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999, -2.5001, 7.0}};
  for (int i = 0; i < 9; i++) printf("%g ", ROUND_NEAR_EVEN(halves[i]));
  for (int i = -6; i <= 6; i++) printf("%d ", (int)ROUNDING_RIGHT_SHIFT_BITS(i, 2));
  printf("%d %d", (int)ROUNDING_RIGHT_SHIFT_BITS(3, -2), (int)ROUNDING_RIGHT_SHIFT_BITS(3, 0));
  return elem_t_max != {largest} || elem_t_min != -elem_t_max || tile[0][0] != sums[0][0] ||
         ACC_SCALE(3, ACC_SCALE_IDENTITY) != 3 || MVIN_SCALE(3, MVIN_SCALE_IDENTITY) != 3 ||
         MVIN_SCALE_ACC(3, 0.5) != 1.5 || ROUNDING_RIGHT_SHIFT(8.0, 2) != 2.0;
}}
"""
    )
    program = tmp_path / "check"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    command = [compiler(), *flags, f"-I{emitted.folder}", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    expected = [round(x) for x in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999, -2.5001, 7.0)]
    expected += [round(i / 4) for i in range(-6, 7)] + [12, 3]  # Python rounds halves to even, too
    assert [int(x) for x in ran.stdout.split()] == expected


# --- Scala ----------


def test_scala_of_the_best_point():
    text = scala(load_chip("8x8-10"))
    code = [line.strip() for line in text.splitlines() if not line.strip().startswith("//")]
    assert "// NOT ELABORATED" in text and "NOT ELABORATED" in header(load_chip("8x8-10"))
    assert "GemminiFPConfigs.BF16DefaultConfig.copy(" in text
    for part in (
        "meshRows = 8, meshColumns = 8",
        "CapacityInKilobytes(128)",
        "CapacityInKilobytes(32)",
        "Dataflow.WS",
        "inputType = Float(8, 8)",
        "spatialArrayOutputType = Float(8, 8)",
        "accType = Float(8, 8)",
        "has_max_pool = false",
        "has_dw_convs = false, has_first_layer_optimizations = false",
    ):
        assert part in text
    name = config_name(load_chip("8x8-10"))
    assert f"object {name}Gemmini {{" in text and f"class {name} extends Config(" in text
    # the leftmost fragment wins, so the cores come after what changes their caches
    wanted = [
        "new chipyard.config.WithMultiRoCC ++",
        f"new chipyard.config.WithMultiRoCCGemmini(0)({name}Gemmini.config) ++",
        "new freechips.rocketchip.rocket.WithL1ICacheWays(4) ++",
        "new freechips.rocketchip.rocket.WithL1DCacheWays(4) ++",
        "new freechips.rocketchip.rocket.WithNHugeCores(10) ++",
        "new freechips.rocketchip.subsystem.WithInclusiveCache(capacityKB = 512) ++",
        "new freechips.rocketchip.subsystem.WithNBanks(1) ++",
        "new chipyard.config.WithSystemBusWidth(128) ++",
        "new chipyard.config.WithSystemBusFrequency(500.0) ++",
        "new chipyard.config.AbstractConfig",
    ]
    places = [code.index(line) for line in wanted]
    assert places == sorted(places)
    assert text.count("(") == text.count(")") and text.count("{") == text.count("}")
    # whoever builds it sees what nobody published
    assert "//   l2_kib: not published" in text and "//   mesh_rows" not in text
    assert "//   cores: chosen, not the 1" in scala(load_chip("8x8-3"))


def test_scala_of_other_chips():
    text = scala(load_chip("gemmini-fp32").with_(dcache_kib=64, icache_kib=2, cores=1))
    assert "FP32DefaultConfig" in text and "accType = Float(8, 24)" in text
    assert "Dataflow.BOTH" in text and "has_max_pool" not in text
    assert "WithL1DCacheSets(64)" in text and "WithL1DCacheWays(16)" in text
    assert "WithL1ICacheSets(32)" in text and "WithL1ICacheWays(1)" in text
    mixed = scala(load_chip("gemmini-bf16"))
    assert "spatialArrayOutputType = Float(8, 8)" in mixed and "accType = Float(8, 24)" in mixed
    chip = load_chip().with_(icache_kib=1, line_bytes=2048)
    refused(lambda: scala(chip), "icache_kib is 1", "2048 bytes")


# --- the folder ----------


def test_folder_is_written_and_replaced(tmp_path):
    folder = tmp_path / "a" / "b"
    first = emit(load_chip("8x8-10"), folder)
    assert first.files == ("Fptt8x8Cores10Bf16Config.scala", "gemmini_params.h")
    assert first.as_json()["header"]["BANK_ROWS"] == 2048 and not first.as_json()["elaborated"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*first.files, "chipyard.json"])
    described = json.loads((folder / "chipyard.json").read_text())
    assert described["design"] == "8x8-10"
    assert described["sources"]["clock_hz"].startswith("Zhang")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    emit(load_chip("8x8-10"), folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    second = emit(load_chip("4x4-2"), folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*second.files, "chipyard.json"]
    )
    assert "#define DIM 4" in (folder / "gemmini_params.h").read_text()


def test_folders_of_others_are_left_alone(tmp_path):
    chip = load_chip("8x8-10")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes").write_text("mine")
    refused(lambda: emit(chip, other), other, "other files", "new folder")
    assert [path.name for path in other.iterdir()] == ["notes"]
    refused(lambda: emit(chip, other / "notes"), "notes is a file")
    folder = tmp_path / "ours"
    emit(chip, folder)
    (folder / "notes").write_text("mine")
    refused(lambda: emit(chip, folder), "other files")
    (folder / "notes").unlink()
    (folder / "gemmini_params.h").write_text("#define DIM 3")
    refused(
        lambda: emit(load_chip("4x4-1"), folder), "gemmini_params.h was changed", "move it away"
    )
    assert (folder / "gemmini_params.h").read_text() == "#define DIM 3"
    (folder / "chipyard.json").write_text("[")
    refused(lambda: emit(chip, folder), "chipyard.json is damaged")


def test_stopped_calls_can_be_repeated(tmp_path, monkeypatch):
    """Whatever file was the last, no file is half written and the next call completes."""
    folder = tmp_path / "out"
    emit(load_chip("4x4-1"), folder)
    old = {path.name: path.read_text() for path in folder.iterdir()}
    write = chipyard.write_atomically
    for left in range(4):
        allowed = iter(range(left))

        def stopping(path, data, allowed=allowed):
            if next(allowed, None) is None:
                raise SaveError("the disk is full")
            write(path, data)

        monkeypatch.setattr(chipyard, "write_atomically", stopping)
        with pytest.raises(SaveError, match="full"):
            emit(load_chip("8x8-10"), folder)
        monkeypatch.setattr(chipyard, "write_atomically", write)
        texts = {path.name: path.read_text() for path in folder.iterdir()}
        if left == 0:
            assert texts == old
        emit(load_chip("8x8-10"), folder)
        assert len(list(folder.iterdir())) == 3
        emit(load_chip("4x4-1"), folder)
        assert old == {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="not complete"):
        emit(load_chip(), tmp_path / "file" / "below")
