"""One experiment carried out: from its plain data to the record of its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import InputError, NumericalError, SaveError
from fptt.experiments.experiment import Experiment
from fptt.experiments.locks import locked
from fptt.experiments.reading import VERSION
from fptt.experiments.results import Record, commit, machine
from fptt.nets import Network
from fptt.runs import task_of
from fptt.storage.modelfile import load_model, save_model
from fptt.tasks import Task
from fptt.trainer import Trainer
from fptt.training.fitting import Row

#: called with the rows of the epochs that are done
OnEpoch = Callable[[Row], None]
#: seconds to wait for another process that carries out the same experiment
PATIENCE_S = 10.0


def execute(
    experiment: Experiment,
    *,
    data_dir: str | Path | None = None,
    state_dir: str | Path | None = None,
    on_epoch: OnEpoch | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Record:
    """Trains, tests after every epoch, and returns the record of the run.

    With `state_dir` a checkpoint KEY.ckpt is written there after every epoch and every minute, and
    a run that was killed goes on from it with the same bits. The final weights stay there as
    KEY.safetensors, a model file, for experiments that start from them and for `fptt eval`.

    Args:
        experiment: what to do.
        data_dir: of the data files; default is the variable FPTT_DATA.
        state_dir: an existing folder, or None to keep nothing.
        on_epoch: called after every epoch.
        should_stop: asked after every batch; if true the checkpoint is written and
            KeyboardInterrupt raised.

    Returns:
        The record without `table`, `variant` and `metric`. Where training ended in NaN or Inf,
        `diverged` says where, and `epochs` holds those before it.

    Raises:
        InputError: choices that do not fit, no data, or another process at work on the same run.
        SaveError: the checkpoint cannot be written.
    """
    task = load_task(experiment, data_dir)
    with _alone(experiment, state_dir):
        net = _network(experiment, task, data_dir, state_dir, should_stop)
        checkpoint = None if state_dir is None else Path(state_dir) / f"{experiment.key}.ckpt"
        options: dict[str, Any] = {
            "test": task.test,
            "schedule": experiment.learning_rates(),
            "checkpoint": checkpoint,
            "resume": checkpoint is not None,
            "on_epoch": on_epoch,
            "should_stop": should_stop,
        }
        trainer, described = _trainer(experiment, task, net)
        rows: Sequence[Mapping[str, float]]
        diverged = None
        try:
            rows = trainer.fit(task.train, experiment.epochs, **options).rows
        except NumericalError as error:
            rows, diverged = error.rows, str(error)
        record = {
            "version": VERSION,
            "key": experiment.key,
            "configuration": experiment.as_plain(),
            "network": str(net),
            "parameters": net.size,
            "steps": task.steps,
            "train_sequences": len(task.train),
            "test_sequences": len(task.test),
            "commit": commit(),
            "machine": machine(),
            "backend": described,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": sum(row["seconds"] for row in rows),
            **_memory(trainer),
            "epochs": [_finite(row) for row in rows],
        }
        if diverged:
            record["diverged"] = diverged
        elif state_dir is not None:
            _keep(trainer, net, Path(state_dir) / f"{experiment.key}.safetensors", task)
        return record


def load_task(experiment: Experiment, data_dir: str | Path | None) -> Task:
    """The experiment's task; the last one is kept, for runs of one table share it."""
    options = dict(experiment.task_options)
    if experiment.task in STREAMS:
        options.setdefault("batch", experiment.batch)  # the streams that the text is cut into
    return _load(
        experiment.task,
        None if data_dir is None else str(data_dir),
        experiment.subset,
        experiment.limit,
        experiment.data_seed,
        tuple(sorted(options.items())),
    )


#: tasks of one text, whose batch is a number of streams
STREAMS = ("char", "words")


@lru_cache(maxsize=1)
def _load(
    name: str,
    data_dir: str | None,
    subset: bool,
    limit: int | None,
    seed: int,
    options: tuple[tuple[str, Any], ...],
) -> Task:
    place = None if data_dir is None else Path(data_dir)
    return task_of(
        name, None, data_dir=place, subset=subset, limit=limit, seed=seed, **dict(options)
    )


def discard_state(experiment: Experiment, state_dir: str | Path) -> None:
    """Deletes the checkpoint of a run whose record is safe; its final weights stay."""
    for ending in ("ckpt", "lock"):
        (Path(state_dir) / f"{experiment.key}.{ending}").unlink(missing_ok=True)


def _trainer(experiment: Experiment, task: Task, net: Network) -> tuple[Any, str]:
    """What trains, and what it is in words."""
    if experiment.engine == "torch":
        return _torch_trainer(experiment, task, net)
    program = experiment.program(task, net)
    trainer = Trainer(program, backend=experiment.engine, seed=experiment.seed)
    return trainer, trainer.backend.describe()


def _torch_trainer(experiment: Experiment, task: Task, net: Network) -> tuple[Any, str]:
    """PyTorch on the same weights, in the same order; what fptt's program says of the rest."""
    try:
        from fptt.torch.training import TorchTrainer
    except ImportError:
        raise InputError(
            "PyTorch is not installed, and this run is one of PyTorch: pip install 'fptt[torch]'"
        ) from None
    program = experiment.program(task, net)
    trainer = TorchTrainer(
        net,
        program.rule,
        program.optimizer,
        program.schedule,
        program.steps,
        program.batch,
        criterion=program.criterion,
        clip=program.clip,
        seed=experiment.seed,
    )
    return trainer, trainer.describe()


def _memory(trainer: Any) -> dict[str, Any]:
    """Exact bytes of the program; of PyTorch nobody knows them beforehand."""
    if not hasattr(trainer, "program"):
        return {"arena_bytes": None, "memory_bytes": {}}
    memory = trainer.program.memory()
    return {
        "arena_bytes": memory.arena_bytes,
        "memory_bytes": {str(role): size for role, size in memory.categories.items() if size},
    }


def _network(
    experiment: Experiment,
    task: Task,
    data_dir: str | Path | None,
    state_dir: str | Path | None,
    should_stop: Callable[[], bool] | None,
) -> Network:
    """A fresh network, or with the weights that the start experiment ended with."""
    net = experiment.network(task)
    start = experiment.start
    if start is None:
        return net
    if state_dir is None:
        raise InputError(
            f"the run {experiment} starts from the weights of another one; give state_dir, where "
            "they can be kept"
        )
    kept = Path(state_dir) / f"{start.key}.safetensors"
    if not kept.exists():
        result = execute(start, data_dir=data_dir, state_dir=state_dir, should_stop=should_stop)
        if "diverged" in result:
            raise InputError(f"the run {start}, whose weights are needed, ended in NaN")
    return Network(net.layers, load_model(kept).net.weights)


def _keep(trainer: Any, net: Network, path: Path, task: Task) -> None:
    save_model(path, net, trainer.parameters(), task.loss, task.criterion)


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN and no Inf."""
    return {name: value if np.isfinite(value) else None for name, value in row.items()}


@contextmanager
def _alone(experiment: Experiment, state_dir: str | Path | None) -> Iterator[None]:
    """One process at a time works on a run."""
    if state_dir is None:
        yield
        return
    path = Path(state_dir) / f"{experiment.key}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SaveError(f"cannot write {path}: {error.strerror}") from None
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(handle, PATIENCE_S))
            except TimeoutError:
                raise InputError(
                    f"another process works on the run {experiment} in {state_dir}; wait for it, "
                    "or give another folder"
                ) from None
            yield
    finally:
        os.close(handle)
