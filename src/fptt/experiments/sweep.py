"""Many experiments: on this machine or over Dask, each at most once, a stopped sweep resumable."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.errors import FpttError, InputError, SaveError
from fptt.experiments.execute import discard_state, execute
from fptt.experiments.experiment import Experiment
from fptt.experiments.results import Notice, Record, append_result, finished

#: how often a run may lose its worker before the sweep gives it up
DEATHS = 5
#: seconds to wait for a scheduler
CONNECT_S = 20
#: between two looks at what Dask's workers have done
POLL_S = 0.2


@dataclass(frozen=True)
class Run:
    """One line of a table.

    Attributes:
        table: the table's name.
        variant: what distinguishes it in the table besides K and seed, in words.
        metric: which column of an epoch the table is about, such as "test_accuracy".
        experiment: what to carry out.
    """

    table: str
    variant: str
    metric: str
    experiment: Experiment

    def record(self, result: Mapping[str, Any]) -> Record:
        """The line in the results file."""
        named = {"table": self.table, "variant": self.variant, "metric": self.metric}
        return {"version": result["version"], **named, **result}


@dataclass(frozen=True)
class Progress:
    """What happened in a sweep.

    Attributes:
        run: which run.
        epoch: epochs of it that are done.
        row: its newest row, or None where it is finished.
        done, total: runs of the sweep.
    """

    run: Run
    epoch: int
    row: Mapping[str, float] | None
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def sweep(
    runs: Sequence[Run],
    results: str | Path,
    *,
    state_dir: str | Path,
    data_dir: str | Path | None = None,
    workers: int | None = None,
    dask: str | None = None,
    on_progress: OnProgress | None = None,
    notice: Notice | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Record]:
    """Carries out the runs that a results file does not hold yet, and appends their records.

    Checkpoints lie in `state_dir`: a worker that dies costs its run what came after the last one
    (a minute at most), and a sweep that is started again goes on where it was. Runs from whose
    weights others start come first.

    Args:
        runs: what to do; those with equal experiments are carried out once.
        results: file to append to.
        state_dir: folder for checkpoints, made if missing. With `dask` all workers must see it
            under this name, as they must `data_dir`.
        data_dir: of the data files; default is the variable FPTT_DATA.
        workers: processes on this machine, by default one a processor. One means this process.
        dask: address of a Dask scheduler, such as tcp://10.0.0.1:8786, instead.
        on_progress: called after every epoch and every finished run.
        notice: told of what is worth a line, such as a worker that died.
        should_stop: asked after every batch; over Dask several times a second, and the runs then
            end at once, with the checkpoints that they have.

    Returns:
        The records of all runs, in the order of `runs`.

    Raises:
        InputError: choices or data that do not fit, or no scheduler at that address.
        SaveError: results or checkpoints cannot be written.
    """
    state_dir = Path(state_dir)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {state_dir}: {error.strerror}") from None
    by_key: dict[str, Run] = {}
    for run in runs:
        by_key.setdefault(run.experiment.key, run)
    records = {r["key"]: r for r in finished(results, list(by_key), notice)}
    waiting = [run for key, run in by_key.items() if key not in records]

    def finish(run: Run, result: Record) -> None:
        record = run.record(result)
        append_result(results, record)
        records[record["key"]] = record
        discard_state(run.experiment, state_dir)
        if on_progress:
            epochs = len(record["epochs"])
            on_progress(Progress(run, epochs, None, len(records), len(by_key)))

    def epoch_done(run: Run, row: Mapping[str, float]) -> None:
        if on_progress:
            on_progress(Progress(run, round(row["epoch"]), row, len(records), len(by_key)))

    many = _workers(workers, len(waiting))
    if not waiting:
        pass
    elif dask is None and many == 1:
        for run in waiting:
            result = execute(
                run.experiment,
                data_dir=data_dir,
                state_dir=state_dir,
                on_epoch=lambda row, run=run: epoch_done(run, row),  # type: ignore[misc]
                should_stop=should_stop,
            )
            finish(run, result)
    else:
        with _client(dask, many) as client:
            _over_dask(client, waiting, finish, epoch_done, data_dir, state_dir, should_stop)
    return [records[run.experiment.key] for run in runs]


def _workers(wanted: int | None, waiting: int) -> int:
    """How many processes on this machine; one where Dask is not installed and nobody asked."""
    if wanted is not None:
        if wanted < 1:
            raise InputError(f"workers is {wanted}; give at least 1")
        return wanted if wanted == 1 else min(wanted, max(waiting, 2))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    many = min(cores or 1, waiting)
    if many > 1:
        try:
            import distributed  # noqa: F401
        except ImportError:
            return 1
    return max(many, 1)


@contextmanager
def _client(address: str | None, workers: int) -> Iterator[Any]:
    """A client of a running scheduler, or of a cluster of processes on this machine."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(
            "runs in several processes need Dask: pip install 'fptt[cluster]', or give --workers 1"
        ) from None
    quiet = {
        # what runs is one long C call; that a worker does not answer meanwhile is no failure
        "distributed.scheduler.worker-ttl": None,
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.admin.tick.limit": "1h",
        "distributed.logging.distributed": "error",
        "distributed.worker.memory.terminate": False,
    }
    with dask.config.set(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is not None:
            try:
                client = Client(address, timeout=CONNECT_S)
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(
                    f"no Dask scheduler answers at {address} ({_reason(error)}); start one with "
                    "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
                ) from None
            with client:
                yield client
            return
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # its HTTP server starts all the same, by default on a port that others may have
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=50,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _over_dask(
    client: Any,
    waiting: Sequence[Run],
    finish: Callable[[Run, Record], None],
    epoch_done: Callable[[Run, Mapping[str, float]], None],
    data_dir: str | Path | None,
    state_dir: Path,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Hands the runs to Dask's workers and takes their records as they come."""
    from distributed import as_completed

    by_key = {run.experiment.key: run for run in waiting}
    place = None if data_dir is None else os.path.abspath(data_dir)
    topic = "fptt-epochs"

    def epoch_event(event: Any) -> None:
        key, row = event[1]
        if key in by_key:
            epoch_done(by_key[key], row)

    client.subscribe_topic(topic, epoch_event)
    submitted: dict[str, Any] = {}

    def submit(experiment: Experiment, priority: int) -> Any:
        if experiment.key not in submitted:
            # a run waits until the weights are there that it starts from
            before = submit(experiment.start, priority + 1) if experiment.start else None
            submitted[experiment.key] = client.submit(
                _on_worker,
                experiment.as_plain(),
                place,
                os.path.abspath(state_dir),
                topic,
                before,
                key=f"fptt-{experiment.key}",
                pure=False,
                priority=priority,
                # a run that is at work already must not be started a second time elsewhere
                retries=0,
            )
        return submitted[experiment.key]

    futures = {submit(run.experiment, 0): run for run in waiting}
    try:
        ended = as_completed(futures)
        while not ended.is_empty():
            for future in ended.next_batch(block=False):
                run = futures[future]
                if future.status == "error":
                    raise _as_ours(future.exception(), run)
                finish(run, future.result())
            if should_stop is not None and should_stop():
                raise KeyboardInterrupt
            time.sleep(POLL_S)
    finally:
        client.unsubscribe_topic(topic)
        client.cancel(list(submitted.values()), force=True)


def _as_ours(error: BaseException, run: Run) -> FpttError:
    """What is told of a run that failed on a worker."""
    if isinstance(error, FpttError):
        return error
    if type(error).__name__ == "KilledWorker":
        return FpttError(
            f"the run {run.experiment} lost its worker {DEATHS} times, perhaps for lack of memory; "
            "the same command goes on where it was, with fewer workers if need be"
        )
    return FpttError(f"the run {run.experiment} failed: {type(error).__name__}: {error}")


def _on_worker(
    plain: Mapping[str, Any], data_dir: str | None, state_dir: str, topic: str, before: Any
) -> Record:
    """What a worker does; `before` is the record of the run that this one starts from."""
    from distributed import get_worker

    experiment = Experiment.from_plain(plain)
    worker = get_worker()
    if not Path(state_dir).is_dir():
        raise InputError(
            f"the worker {worker.address} does not see the folder {state_dir}; give a folder that "
            "all workers share (--state-dir)"
        )

    def on_epoch(row: Mapping[str, float]) -> None:
        worker.log_event(topic, (experiment.key, _told(row)))

    return execute(experiment, data_dir=data_dir, state_dir=state_dir, on_epoch=on_epoch)


def _told(row: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if math.isfinite(value)}
