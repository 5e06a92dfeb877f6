"""Training for epochs: order of the data, learning-rate schedule, checkpoints, reports."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fptt.checks import is_number, is_whole
from fptt.errors import InputError, NumericalError
from fptt.nets.layer import check_size
from fptt.rules.schedules import Memory, Schedule
from fptt.storage import snapshot
from fptt.storage.files import check_writable
from fptt.training.batches import check_data
from fptt.training.inference import as_arrays

if TYPE_CHECKING:
    from fptt.trainer import Trainer

#: seconds between checkpoints inside an epoch
CHECKPOINT_S = 60.0

Row = dict[str, float]
#: called with (batches done, batches of the epoch, mean loss so far)
Progress = Callable[[int, int, float], None]


@dataclass
class History:
    """One row per epoch: epoch, loss, lr, seconds, and test_loss, test_accuracy, ... with a test.

    `seconds` of an epoch that was resumed holds those up to its last checkpoint, too.
    """

    rows: list[Row] = field(default_factory=list)

    @property
    def last(self) -> Row:
        """The newest row."""
        return self.rows[-1]


@dataclass
class _Position:
    """Where training stands, as plain data for checkpoints."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    losses: int = 0
    #: spent on the present epoch
    seconds: float = 0.0
    memory: Memory = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def fit(
    trainer: Trainer,
    data: Any,
    epochs: int,
    *,
    test: Any = None,
    shuffle: bool | None = None,
    schedule: Schedule | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_batch: Progress | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> History:
    """Trains until `epochs` epochs are done.

    Args:
        trainer: the trainer.
        data: (x, y), (x, y, lengths) or a SequenceData. The order of an epoch depends only on the
            trainer's seed and the epoch's number.
        epochs: how many in all, those before a checkpoint included. Without one, every call counts
            its epochs, and so the order of the data, from the beginning.
        test: data for an evaluation after every epoch, with theta after `end_epoch`.
        shuffle: by default true, unless the rule carries its state from batch to batch.
        schedule: of the learning rate.
        checkpoint: a snapshot is written here after every epoch and once a minute.
        resume: goes on from `checkpoint` if that file exists, with the same bits as if training
            had not been interrupted; a SnapshotWarning tells if its newest state was not complete.
        on_batch, on_epoch: called for progress and with every epoch's row.
        should_stop: asked after every batch; if true, the checkpoint is written and
            KeyboardInterrupt raised.

    Returns:
        The history, with the rows from before the checkpoint. `loss` is the mean over the parts,
        so it cannot be compared between values of K.

    Raises:
        InputError: data that do not fit; a checkpoint that exists without `resume`, or one of
            another program, other data or another schedule.
        NumericalError: NaN or Inf; the trainer keeps the last good state. Its `rows` are the epochs
            that were complete.
        SaveError: the checkpoint cannot be written; the one before is untouched.
    """
    check_size("fit", "epochs", epochs)
    if checkpoint is not None:
        check_writable(checkpoint)
    x, y, lengths = as_arrays(data)
    if len(x) == 0 or len(x) != len(y):
        raise InputError(
            f"fit: x has {len(x)} sequences and y {len(y)} targets; give the same "
            "number of both, at least one"
        )
    for given in ((x, y, lengths), *([] if test is None else [as_arrays(test)])):
        check_data(trainer.program, *given)
    carry = trainer.program.rule.state == "carry"
    shuffle = not carry if shuffle is None else shuffle
    # what a checkpoint must agree with, besides the program
    own = {"data": _fingerprint(x, y, lengths), "schedule": repr(schedule)} if checkpoint else {}
    position = _Position()
    if checkpoint is not None and Path(checkpoint).exists():
        if not resume:
            raise InputError(
                f"{checkpoint} exists; go on from it with resume=True (--resume), or delete it"
            )
        position = _resume(trainer, checkpoint, own)
    saved = time.monotonic()
    started = time.perf_counter() - position.seconds

    def save() -> None:
        nonlocal saved
        if checkpoint is not None:
            position.seconds = time.perf_counter() - started
            snapshot.save(trainer, checkpoint, {"fit": vars(position), "own": own})
            saved = time.monotonic()

    try:
        while position.epoch < epochs:
            order = list(
                batches(
                    trainer.seed, trainer.program.batch, len(x), position.epoch, shuffle=shuffle
                )
            )
            if carry and position.batch == 0:
                trainer.reset_state()
            for rows in order[position.batch :]:
                loss = trainer.train_batch(
                    x[rows], y[rows], None if lengths is None else lengths[rows]
                )
                position.batch += 1
                if loss == loss:
                    position.loss_sum, position.losses = (
                        position.loss_sum + loss,
                        position.losses + 1,
                    )
                if on_batch:
                    on_batch(
                        position.batch, len(order), position.loss_sum / max(position.losses, 1)
                    )
                stop = should_stop is not None and should_stop()
                if stop or time.monotonic() - saved > CHECKPOINT_S:
                    save()
                if stop:
                    raise KeyboardInterrupt
            row = _end_epoch(trainer, position, test, schedule, started)
            started = time.perf_counter()
            if on_epoch:
                on_epoch(row)
            save()
    except NumericalError as error:
        error.rows = position.rows
        raise
    return History(position.rows)


def _resume(trainer: Trainer, checkpoint: str | Path, own: dict[str, Any]) -> _Position:
    """Takes up a checkpoint, if it is of this training."""
    header, arrays = snapshot.read(checkpoint)
    its, position = header["extra"].get("own"), _position(header["extra"].get("fit"))
    if not isinstance(its, dict) or not {"data", "schedule"} <= its.keys() or position is None:
        raise InputError(f"{checkpoint} was not written during fit; load it with fptt.load")
    snapshot.require_same(trainer, header, checkpoint)
    if its["data"] != own["data"]:
        raise InputError(
            f"{checkpoint} was written while training on other data; use the same, or start "
            "without it"
        )
    if its["schedule"] != own["schedule"]:
        raise InputError(
            f"{checkpoint} was written with the schedule {its['schedule']}, not "
            f"{own['schedule']}; use the same, or start without it"
        )
    snapshot.restore(trainer, header, arrays, checkpoint)
    return position


def _position(plain: Any) -> _Position | None:
    """The position that a checkpoint describes; None if it describes none."""
    if not isinstance(plain, dict):
        return None
    plain = {"seconds": 0.0, **plain}  # which earlier versions did not write
    if plain.keys() != vars(_Position()).keys():
        return None
    position = _Position(**plain)
    counts = (position.epoch, position.batch, position.losses)
    if not all(is_whole(count) and count >= 0 for count in counts):
        return None
    if not isinstance(position.rows, list):
        return None
    for numbers in (
        {"": position.loss_sum, "s": position.seconds},
        position.memory,
        *position.rows,
    ):
        if not isinstance(numbers, dict) or not all(map(_is_real, numbers.values())):
            return None
    return position


def _is_real(value: Any) -> bool:
    """A number as floating point has them: NaN and Inf are, an endless whole number is not."""
    return is_number(value) and (not is_whole(value) or abs(value) < 2**1023)


def _fingerprint(*arrays: Any) -> int:
    """A checksum of the training data, so that a checkpoint knows its own."""
    total = 0
    for array in arrays:
        if array is not None:
            total = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, total)
    return total


def batches(seed: int, batch: int, n: int, epoch: int, *, shuffle: bool) -> Iterator[Any]:
    """Rows of every batch of an epoch; the order depends on the seed and the epoch alone."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(n) if shuffle else np.arange(n)
    for low in range(0, n, batch):
        yield order[low : low + batch]


def _end_epoch(
    trainer: Trainer, position: _Position, test: Any, schedule: Schedule | None, started: float
) -> Row:
    """Closes an epoch: the rule's end, the evaluation, the next learning rate."""
    trainer.end_epoch()
    loss = position.loss_sum / max(position.losses, 1)
    row: Row = {
        "epoch": position.epoch + 1,
        "loss": loss,
        "lr": trainer.lr,
        "seconds": time.perf_counter() - started,
    }
    if test is not None:
        row |= {f"test_{name}": value for name, value in trainer.evaluate(test).items()}
    position.rows.append(row)
    position.epoch, position.batch = position.epoch + 1, 0
    position.loss_sum, position.losses = 0.0, 0
    if schedule is not None:
        trainer.lr = trainer.program.optimizer.lr * schedule.scale(
            position.epoch, loss, position.memory
        )
    return row
