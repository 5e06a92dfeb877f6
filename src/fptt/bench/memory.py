"""Memory that training takes: the most that a fresh process held, beside the arena.

The same module runs in the processes that are measured, so it imports little.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fptt.errors import FpttError

Row = dict[str, Any]

#: batches that a measured process trains on
_BATCHES = 3
_IMPORT = "import fptt; from fptt.bench.memory import peak_bytes; print(peak_bytes())"
_TRAIN = "import sys; from fptt.bench.memory import train; train(sys.argv[1])"


def peak_bytes() -> int:
    """The most memory that this process held at once."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives on Linux counts the process that started this one
        lines = (line.split() for line in status.read_text().splitlines())
        return 1024 * next(int(words[1]) for words in lines if words[:1] == ["VmHWM:"])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_memory(
    cases: Sequence[Any], on_case: Callable[[str], None] = lambda name: None
) -> list[Row]:
    """One row per case: the peak of a process that trains, and what it consists of.

    Args:
        cases: of `fptt.bench.cases.Case`.
        on_case: called before each with its name.
    """
    rows = []
    imported = int(_output(_IMPORT))
    for case in cases:
        on_case(case.name)
        x, y = case.data()
        arena = case.program().memory().total_bytes
        peak = int(_output(_TRAIN, json.dumps(asdict(case))))
        configuration = asdict(case)
        del configuration["lr"]
        rows.append(
            {
                **configuration,
                "peak_bytes": peak,
                "import_bytes": imported,
                "arena_bytes": arena,
                "data_bytes": x.nbytes + y.nbytes,
                "over_bytes": peak - imported - arena - x.nbytes - y.nbytes,
            }
        )
    return rows


def train(case: str) -> None:
    """Trains a case, given as JSON, and prints the peak."""
    import fptt
    from fptt.bench.cases import Case

    made = Case(**json.loads(case))
    trainer = fptt.Trainer(made.program(), threads=made.threads)
    x, y = made.data()
    for _ in range(_BATCHES):
        trainer.train_batch(x, y)
    print(peak_bytes())


def _output(code: str, *arguments: str) -> str:
    """What a fresh Python prints that finds this fptt."""
    import os
    import subprocess

    import fptt

    path = [str(Path(fptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        raise FpttError(f"the process that was to be measured failed: {last}")
    return done.stdout
