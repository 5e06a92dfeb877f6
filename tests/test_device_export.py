"""Exported folders: complete, clean C, true to their README, and refusing what they cannot be."""

import json
import re
import shutil
import subprocess

import pytest
from device_tools import lacking, need_target

import fptt
from fptt import deploy
from fptt.cli import main
from fptt.device import TARGETS
from fptt.device.text import array_lines, comment, float_literal
from fptt.errors import InputError

STRICT = "-Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -pedantic -Werror"
#: what the library may ask of others: what gcc itself asks of any environment
ALLOWED = {"memcpy", "memmove", "memset", "memcmp"}

NET = fptt.Network([fptt.GRU(3, 6), fptt.LSTM(6, 5), fptt.Dropout(0.2), fptt.Linear(5, 4)])


def program_of(net=NET, **options):
    given = {"steps": 9, "batch": 2, "loss": "auxiliary"} | options
    return fptt.build(net, fptt.FPTT(parts=4), fptt.Adam(lr=0.01), **given)


def export(folder, target="posix", program=None, **options):
    program = program or program_of()
    return deploy.export(program, program.net.initial(0), folder, target=target, **options)


def make(folder, *words):
    done = subprocess.run(
        ["make", "-C", str(folder), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_without_a_warning_and_needs_nobody(target, tmp_path):
    need_target(target)
    folder = tmp_path / "model"
    export(folder, target, normalisation={"divide_by": 255.0, "mean": [1.0, -2.5]})
    make(folder, f"CFLAGS=-std=c11 -O2 -ffunction-sections {STRICT}")
    nm = shutil.which(f"{TARGETS[target].prefix}nm") or "nm"
    text = subprocess.run(
        [nm, "-A", str(folder / "libmodel.a")], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split()[-2:] for line in text.splitlines() if line.strip()]
    asked = {name for kind, name in symbols if kind == "U"}
    given = {name for kind, name in symbols if kind in "TRDBtrdb"}
    # arithmetic that the processor lacks comes from the compiler's own library
    foreign = {n for n in asked - given - ALLOWED if not n.startswith(("__aeabi_", "__"))}
    assert foreign - {"_GLOBAL_OFFSET_TABLE_"} == set()
    static = {name for kind, name in symbols if kind in "DBdbC"}
    if target == "posix":
        static -= {"model_program"}  # constant, but its pointers are set when it is loaded
    assert static == set(), "the library keeps static data"


def test_links_into_cpp(tmp_path):
    if not shutil.which("c++"):
        lacking("c++ is missing: apt-get install g++")
    folder = tmp_path / "model"
    export(folder)
    make(folder, "library")
    (folder / "app.cpp").write_text(
        '#include "model.h"\n'
        "#include <cstdio>\n"
        "alignas(16) static uint8_t arena[MODEL_ARENA_BYTES];\n"
        "static model_t m;\n"
        "int main() {\n"
        "  if (model_init(&m, arena, sizeof arena) != FPTT_OK) return 1;\n"
        "  const float x[MODEL_BATCH * MODEL_INPUTS] = {0.5f};\n"
        "  const int32_t label[MODEL_BATCH] = {1, 2};\n"
        "  for (int t = 0; t < MODEL_STEPS; t++)\n"
        "    if (model_observe_labelled(&m, x, label) != FPTT_OK) return 2;\n"
        "  float out[MODEL_BATCH * MODEL_OUTPUTS];\n"
        "  model_predict(&m, out);\n"
        '  std::printf("%g\\n", static_cast<double>(m.learner.loss));\n'
        "  return m.learner.progress.updates == MODEL_PARTS ? 0 : 3;\n"
        "}\n"
    )
    subprocess.run(
        [
            *("c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I.", "-Ifptt"),
            *("app.cpp", "libmodel.a", "-o", "app"),
        ],
        cwd=folder,
        check=True,
    )
    subprocess.run(["./app"], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("target", TARGETS)
def test_the_readme_is_true(target, tmp_path):
    """Its commands, one after the other, in a folder of its own; its figures are the code's."""
    need_target(target)
    folder = tmp_path / "somewhere else"
    firmware = export(folder, target)
    text = (folder / "README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(commands) == 2
    shown = ""
    for command in commands:
        word = command.split()[0]
        if not word.startswith("./") and not shutil.which(word):
            lacking(f"{word} is missing")
        done = subprocess.run(
            ["timeout", "60", "sh", "-ec", command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        shown = done.stdout
    losses = [float(line.split()[1]) for line in shown.splitlines()]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    size = firmware.footprint
    assert f"{size.arena:,}" in text
    assert f"{size.handle:,}" in text
    assert f"{size.factory:,}" in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_models_in_one_firmware(dtype, tmp_path):
    """Of the same number types they share the run time; of others the linker refuses them."""
    for name, own in (("one", "float32"), ("two", dtype)):
        export(tmp_path / name, name=name, program=program_of(dtype=own))
        make(tmp_path / name, "library")
    (tmp_path / "app.c").write_text(
        '#include "one.h"\n#include "two.h"\n'
        "static uint8_t a[ONE_ARENA_BYTES] __attribute__((aligned(16)));\n"
        "static uint8_t b[TWO_ARENA_BYTES] __attribute__((aligned(16)));\n"
        "static one_t m;\nstatic two_t n;\n"
        "int main(void) {\n"
        "  return one_init(&m, a, sizeof a) != FPTT_OK || two_init(&n, b, sizeof b) != FPTT_OK;\n"
        "}\n"
    )
    done = subprocess.run(
        [
            *("cc", "-std=c11", "-Ione", "-Itwo", "-Ione/fptt", "app.c"),
            *("one/libone.a", "two/libtwo.a", "-o", "app"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if dtype == "bfloat16":
        assert done.returncode != 0
        assert "multiple definition" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        subprocess.run(["./app"], cwd=tmp_path, check=True)


def test_only_what_the_model_needs(tmp_path):
    net = fptt.Network([fptt.RNN(2, 3), fptt.Linear(3, 2)])
    export(tmp_path / "m", program=fptt.build(net, fptt.TBPTT(parts=2), steps=4))
    files = {path.name for path in (tmp_path / "m" / "fptt").iterdir()}
    assert "elementwise.c" not in files
    assert "cells.c" in files


def test_normalisation_becomes_constants(tmp_path):
    export(tmp_path / "m", normalisation={"divide_by": 255.0, "mean": [1.0, -2.5]})
    assert "#define MODEL_DIVIDE_BY 0x1.fep+7f" in (tmp_path / "m" / "model.h").read_text()
    assert "extern const float model_mean[2];" in (tmp_path / "m" / "model.h").read_text()
    assert (
        "const float model_mean[2] = {\n  0x1p+0f, -0x1.4p+1f,\n};"
        in (tmp_path / "m" / "model.c").read_text()
    )


def test_another_name(tmp_path):
    folder = tmp_path / "m"
    export(folder, name="gesture")
    make(folder)
    assert "gesture_init" in (folder / "gesture.h").read_text()
    with pytest.raises(InputError, match="C identifier"):
        export(tmp_path / "n", name="2nd")
    with pytest.raises(InputError, match="C identifier"):
        export(tmp_path / "n", name="int")
    for taken in ("learner", "Port", "fptt_model", "string"):
        with pytest.raises(InputError, match="another"):
            export(tmp_path / "n", name=taken)
    export(tmp_path / "n", name="MyModel")
    assert "MyModel_save(&m" in (tmp_path / "n" / "README.md").read_text()
    make(tmp_path / "n")


def test_numbers_that_cannot_be(tmp_path):
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match="seed"):
            export(tmp_path / "m", seed=seed)
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="loss_limit"):
            export(tmp_path / "m", loss_limit=limit)
    assert not (tmp_path / "m").exists()


class TestFolders:
    def test_an_earlier_export_is_replaced(self, tmp_path):
        export(tmp_path / "m")
        export(tmp_path / "m", "rv64")
        assert (tmp_path / "m" / "port" / "riscv.ld").exists()
        assert json.loads((tmp_path / "m" / "firmware.json").read_text())["target"] == "rv64"
        assert export(tmp_path / "m").kept == ()
        assert not (tmp_path / "m" / "port" / "riscv.ld").exists()

    def test_what_somebody_changed_stays(self, tmp_path):
        folder = tmp_path / "m"
        export(folder)
        for file in ("main.c", "port/port.c", "model.c", "fptt/learner.c", "sensor.c"):
            (folder / file).write_text("/* mine */")
        firmware = export(folder)
        assert firmware.kept == ("main.c", "port/port.c")
        for file in ("main.c", "port/port.c", "sensor.c"):
            assert (folder / file).read_text() == "/* mine */"
        for file in ("model.c", "fptt/learner.c"):
            assert (folder / file).read_text() != "/* mine */"
        # and stays the next time, too
        assert export(folder).kept == ("main.c", "port/port.c")
        assert (folder / "main.c").read_text() == "/* mine */"

    def test_other_files_are_not_touched(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="other files"):
            export(tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "mine"

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "m").write_text("")
        with pytest.raises(InputError, match="is a file"):
            export(tmp_path / "m")

    def test_a_folder_that_is_no_export(self, tmp_path):
        with pytest.raises(InputError, match="fptt export"):
            deploy.host_trainer(tmp_path)
        with pytest.raises(InputError, match="fptt export"):
            deploy.run(tmp_path, on="posix", x=[], y=[])

    @pytest.mark.parametrize("file", ["firmware.json", "host.npz"])
    def test_damaged_files_are_named(self, file, tmp_path):
        export(tmp_path / "m")
        (tmp_path / "m" / file).write_bytes(b"{")
        program = program_of()
        x, y = deploy.made_up(program, 2)
        with pytest.raises(InputError, match=file):
            deploy.run(tmp_path / "m", on="posix", x=x, y=y)

    def test_the_wrong_emulator(self, tmp_path):
        export(tmp_path / "m", "rv32")
        with pytest.raises(InputError, match=r"rv32.*--target posix"):
            deploy.run(tmp_path / "m", on="posix", x=[], y=[])
        with pytest.raises(InputError, match="no emulator 'qemu'"):
            deploy.run(tmp_path / "m", on="qemu", x=[], y=[])

    def test_unknown_target(self, tmp_path):
        with pytest.raises(InputError, match="no target 'avr'; there are: rv64"):
            export(tmp_path / "m", "avr")


class TestCommands:
    def model(self, folder):
        path = folder / "digits.safetensors"
        code = main(
            "train --task mnist-rows --subset --limit 40 --hidden 8 --epochs 1 --batch 4 "
            f"--out {path}".split()
        )
        assert code == 0
        return path

    def test_train_export_run(self, tmp_path, capsys):
        model = self.model(tmp_path)
        folder = tmp_path / "fw"
        code = main(f"export {model} --target posix --parts 4 --out {folder}".split())
        assert code == 0
        assert "RAM" in capsys.readouterr().out
        assert main(f"run {folder} --on posix --sequences 8".split()) == 0
        shown = capsys.readouterr()
        assert "8 sequences of mnist-rows" in shown.err
        assert "refused" in shown.out

    def test_json(self, tmp_path, capsys):
        model = self.model(tmp_path)
        folder = tmp_path / "fw"
        capsys.readouterr()
        assert main(f"export {model} --target posix --out {folder} --parts 4 --json".split()) == 0
        exported = json.loads(capsys.readouterr().out)
        assert set(exported) == {
            "folder",
            "target",
            "name",
            "arena_bytes",
            "ram_bytes",
            "constant_bytes",
            "identity",
            "kept",
        }
        assert main(f"run {folder} --on posix --sequences 4 --json".split()) == 0
        ran = json.loads(capsys.readouterr().out)
        assert ran["ram_bytes"] == exported["ram_bytes"]
        assert ran["status"] == "FPTT_OK"
        assert ran["refuses_one_byte_less"] is True
        assert ran["data"] == "4 sequences of mnist-rows"
        assert ran["largest_parameter_difference"] <= ran["tolerance"] == 1e-5
        assert len(ran["losses"]) == ran["updates"] == 16

    def test_a_checkpoint_brings_its_own_program(self, tmp_path, capsys):
        net = fptt.Network([fptt.LSTM(2, 3), fptt.Linear(3, 2)])
        trainer = fptt.Trainer(fptt.build(net, fptt.FPTT(parts=3), steps=6))
        trainer.save(tmp_path / "state.fptt")
        command = f"export {tmp_path / 'state.fptt'} --target posix --out {tmp_path / 'm'}"
        assert main(command.split()) == 0
        assert "FPTT(parts=3" in capsys.readouterr().out
        assert main([*command.split(), "--parts", "2"]) == 2
        assert "--parts has no effect" in capsys.readouterr().err
        assert main(f"run {tmp_path / 'm'} --on posix --sequences 2".split()) == 0
        assert "made-up" in capsys.readouterr().err

    def test_mistakes(self, tmp_path, capsys):
        assert main(f"export {tmp_path / 'no'} --target posix --out {tmp_path / 'm'}".split()) == 2
        assert "no" in capsys.readouterr().err
        model = self.model(tmp_path)
        base = f"export {model} --out {tmp_path / 'm'}"
        capsys.readouterr()
        assert main(f"{base} --target z80".split()) == 2
        assert "no target 'z80'" in capsys.readouterr().err
        assert main(f"{base} --target posix --dtype float64".split()) == 2
        assert 'dtype="float32"' in capsys.readouterr().err
        assert main(f"run {tmp_path} --on posix".split()) == 2
        assert "fptt export" in capsys.readouterr().err


class TestText:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1.0, "0x1p+0f"),
            (-0.0, "-0x0p+0f"),
            (0.1, "0x1.99999ap-4f"),
            (1e-45, "0x1p-149f"),
            (255.0, "0x1.fep+7f"),
        ],
    )
    def test_float_literals(self, value, text):
        assert float_literal(value) == text

    def test_literals_have_the_bits(self):
        import numpy as np

        bits = np.random.default_rng(0).integers(0, 2**32, 3000, dtype=np.uint32)
        for value in bits.view(np.float32):
            if np.isfinite(value):
                back = float.fromhex(float_literal(float(value)).removesuffix("f"))
                assert np.float32(back).tobytes() == value.tobytes()

    def test_no_nan(self):
        with pytest.raises(ValueError, match="not a finite"):
            float_literal(float("nan"))

    def test_comments_end_where_they_end(self):
        assert "*/" not in comment("a */ b")[2:-2]

    def test_bfloat16_stays_bits(self):
        import numpy as np

        assert list(array_lines(np.array([0x3F80], np.uint16))) == ["  0x3f80,"]
