"""Sweeps over Dask: the same table as in one process, with workers and the driver killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from test_experiments import TINY, read_results, runs, told

from fptt.errors import FpttError, InputError
from fptt.experiments.sweep import sweep

pytest.importorskip("distributed")

#: long enough to be killed in the middle: about half a second, a checkpoint after every epoch
LONG = replace(TINY, hidden=24, parts=7, epochs=30, limit=300, batch=4)
TABLE = runs(*(replace(LONG, seed=seed) for seed in range(4)))

DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_sweep_dask import TABLE
from fptt.experiments.sweep import sweep

def tell(event):
    print(event.run.experiment.key, event.epoch, flush=True)

if __name__ == "__main__":
    sweep(TABLE, sys.argv[2], state_dir=sys.argv[3], workers=2, on_progress=tell)
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table from one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("expected")
    return told(sweep(TABLE, folder / "t.jsonl", state_dir=folder, workers=1))


def children(pid):
    """All processes below one, from /proc."""
    found, todo = [], [pid]
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    while todo:
        above = todo.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        todo += below
    return found


def at_work(pid):
    """The processes below one that hold a run: they have its lock file open."""
    busy = []
    for child in children(pid):
        try:
            names = [
                os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")
            ]
        except OSError:
            continue
        if any(name.endswith(".lock") for name in names):
            busy.append(child)
    return busy


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")


@needs_proc
def test_a_killed_worker_costs_nothing_but_time(tmp_path, expected):
    killed = []

    def on_progress(event):
        # twice, in the middle of a run
        if len(killed) < 2 and event.row is not None and event.epoch >= 3:
            for child in at_work(os.getpid())[:1]:
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    records = sweep(
        TABLE, tmp_path / "t.jsonl", state_dir=tmp_path / "s", workers=2, on_progress=on_progress
    )
    assert len(killed) == 2
    assert told(records) == expected
    assert len(read_results(tmp_path / "t.jsonl")) == len(TABLE)


@needs_proc
def test_a_killed_driver_goes_on_where_it_was(tmp_path, expected):
    file, state = tmp_path / "t.jsonl", tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    tests = os.path.dirname(__file__)
    kills, reached, first = 0, {}, {}
    while True:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, tests, str(file), str(state)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        with driver:
            for heard, told_line in enumerate(driver.stdout, 1):
                key, epoch = told_line.split()
                if kills:
                    first.setdefault((kills, key), int(epoch))
                reached[key] = int(epoch)
                # the first time in the middle of the first runs, then when some are finished
                if kills < 2 and heard >= 12:
                    workers = children(driver.pid)
                    driver.kill()
                    kills += 1
                    break
            else:
                assert driver.wait() == 0
                break
        deadline = time.monotonic() + 30
        while any(alive(pid) for pid in workers):  # they end with their driver
            assert time.monotonic() < deadline, "workers outlive their driver"
            time.sleep(0.1)
    assert kills == 2
    records = read_results(file)
    order = [run.experiment.key for run in TABLE]
    records.sort(key=lambda record: order.index(record["key"]))
    assert told(records) == expected
    # no run began anew
    before = {key for (kill, key), epoch in first.items() if kill == 1 and epoch > 1}
    assert before
    assert max(first.values()) <= LONG.epochs


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_running_scheduler_takes_the_runs(tmp_path, expected):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        address = cluster.scheduler_address
        records = sweep(TABLE[:1], tmp_path / "t.jsonl", state_dir=tmp_path / "s", dask=address)
    assert told(records) == expected[:1]


def test_what_asks_to_stop_is_heard_over_dask(tmp_path, expected):
    epochs, options = [], dict(state_dir=tmp_path / "s", workers=2)
    with pytest.raises(KeyboardInterrupt):
        sweep(
            TABLE,
            tmp_path / "t.jsonl",
            on_progress=lambda event: epochs.append(event.epoch),
            should_stop=lambda: bool(epochs),
            **options,
        )
    file = tmp_path / "t.jsonl"
    assert not file.exists() or len(read_results(file)) < len(TABLE)
    assert told(sweep(TABLE, file, **options)) == expected


def test_no_scheduler_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fptt.experiments.sweep.CONNECT_S", 1)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 \("):
        sweep(
            TABLE[:1],
            tmp_path / "t.jsonl",
            state_dir=tmp_path / "s",
            dask="tcp://127.0.0.1:9",
        )


def test_a_wrong_run_ends_the_sweep_with_its_message(tmp_path):
    wrong = runs(replace(TINY, cell="perceptron"), TINY)
    with pytest.raises(FpttError, match="cell is 'perceptron'; choose one of"):
        sweep(wrong, tmp_path / "t.jsonl", state_dir=tmp_path / "s", workers=2)


def test_runs_wait_for_what_they_start_from(tmp_path):
    start = replace(TINY, epochs=2, rule="bptt", parts=1, loss=None)
    tuned = [replace(TINY, start=start, epochs=1, parts=k) for k in (2, 3)]
    options = dict(state_dir=tmp_path / "s", workers=2)
    records = sweep(runs(*tuned), tmp_path / "t.jsonl", **options)
    alone = sweep(runs(*tuned), tmp_path / "a.jsonl", state_dir=tmp_path / "a", workers=1)
    assert told(records) == told(alone)
