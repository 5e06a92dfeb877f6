"""Spoken digits of six speakers (Free Spoken Digit Dataset) as log-mel sequences.

Recordings have unequal lengths, and every one names its speaker: this is the task for learning
on the device from the voice of its owner (`speaker_split`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks import logmel
from fptt.tasks.checks import whole_number
from fptt.tasks.files import data_directory, find_files, read_npz
from fptt.tasks.sequences import SequenceData, Task

DIGITS = 10
STEPS = 96
_KEYS = ("audio", "offsets", "labels", "speakers", "speaker_names", "is_test", "sample_rate")

Indices = NDArray[np.intp]
Normalisation = dict[str, float | list[float]]


@dataclass(frozen=True, eq=False)
class _Recordings:
    frames: tuple[NDArray[np.float32], ...]  # log-mel, [frames, 32] each
    labels: NDArray[np.int32]
    speakers: NDArray[np.int32]
    names: tuple[str, ...]
    is_test: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SpeakerSplit:
    """Sequences for adapting a model to a speaker whom it has never heard.

    Attributes:
        speaker: name of the sixth speaker.
        others_train: all recordings of the five others, to train the base model on.
        adapt: a few recordings per digit of the sixth, to adapt the base model with.
        test: all other recordings of the sixth.
        normalisation: of these three; mean and std come from others_train only.
        adapt_own: the recordings of `adapt`, for the baseline that learns from them alone.
        test_own: the recordings of `test`, for that baseline.
        normalisation_own: of these two; mean and std come from the recordings of `adapt` only.
    """

    speaker: str
    others_train: SequenceData
    adapt: SequenceData
    test: SequenceData
    normalisation: Normalisation
    adapt_own: SequenceData
    test_own: SequenceData
    normalisation_own: Normalisation


def fsdd(
    data_dir: str | Path | None = None, *, steps: int = STEPS, speaker: str | None = None
) -> Task:
    """The task `fsdd`: which digit is spoken?

    x = (log_mel - mean) / std per band, with mean and std over all frames in use of the training
    recordings; 0 after the end of a recording. y = the digit.

    Args:
        data_dir: directory with fsdd.npz or fsdd/fsdd.npz; default is the variable FPTT_DATA.
        steps: frames kept of a recording; what is longer is cut at its end.
        speaker: None for the official split (recordings 0 to 4 of each digit and speaker are the
            test set); a name for leave-one-speaker-out: train on all recordings of the five
            others, test on all of this speaker.

    Returns:
        A task with x float32 [n, steps, 32], y int32 [n], and lengths.

    Raises:
        InputError: the file is missing, damaged or not this data set; unknown speaker; steps < 1.

    Example:
        >>> fsdd("data", speaker="theo").test.x.shape  # doctest: +SKIP
        (500, 96, 32)

    Source: github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
    """
    steps = whole_number("steps", steps, minimum=1)
    recordings = _load(data_dir)
    held_out = recordings.is_test
    split = "the official split"
    if speaker is not None:
        held_out = recordings.speakers == _speaker_number(recordings, speaker)
        split = f"speaker {speaker} held out"
    train_rows, test_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    mean, std = _statistics(recordings, train_rows, steps)
    cut = sum(len(frames) > steps for frames in recordings.frames)
    return Task(
        name="fsdd",
        train=_sequences(recordings, train_rows, steps, mean, std),
        test=_sequences(recordings, test_rows, steps, mean, std),
        inputs=logmel.BANDS,
        outputs=DIGITS,
        steps=steps,
        loss="last",
        criterion="cross_entropy",
        description=(
            f"Spoken digits, {len(recordings.names)} speakers, {split}: {len(train_rows):,} "
            f"training and {len(test_rows):,} test recordings, {logmel.BANDS} log-mel bands every "
            f"12.5 ms; {cut} recordings were cut at {steps} frames."
        ),
        normalisation=_normalisation(mean, std, steps),
    )


def personal(
    data_dir: str | Path | None = None,
    *,
    seed: int = 0,
    steps: int = STEPS,
    speaker: str = "theo",
    per_digit: int = 5,
) -> Task:
    """The task `fsdd-personal`: one speaker's few recordings, for a model of the five others.

    x is scaled with mean and std of the five others, as in `fsdd(speaker=speaker)`, so that a
    model that was trained on that task goes on learning on this one.

    Args:
        data_dir, steps: as for `fsdd`.
        seed: of the draw of the training recordings.
        speaker: whose recordings.
        per_digit: recordings of every digit to learn from; the others are the test set.

    Raises:
        InputError: as for `speaker_split`.

    Example:
        >>> len(personal("data", speaker="theo").train)  # doctest: +SKIP
        50
    """
    split = speaker_split(data_dir, speaker, per_digit, seed, steps=steps)
    return Task(
        name="fsdd-personal",
        train=split.adapt,
        test=split.test,
        inputs=logmel.BANDS,
        outputs=DIGITS,
        steps=split.adapt.steps,
        loss="last",
        criterion="cross_entropy",
        description=(
            f"Spoken digits of {speaker}: {len(split.adapt):,} recordings to learn from, "
            f"{len(split.test):,} for the test, scaled as the five other speakers are."
        ),
        normalisation=split.normalisation,
    )


def speakers(data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names of the speakers.

    Raises:
        InputError: the file is missing, damaged or not this data set.

    Example:
        >>> speakers("data")  # doctest: +SKIP
        ('george', 'jackson', 'lucas', 'nicolas', 'theo', 'yweweler')
    """
    return _load(data_dir).names


def speaker_split(
    data_dir: str | Path | None,
    speaker: str,
    adapt_per_digit: int = 5,
    seed: int = 0,
    *,
    steps: int = STEPS,
) -> SpeakerSplit:
    """Split the recordings for adapting to one speaker; see `SpeakerSplit`.

    Args:
        data_dir: as for `fsdd`.
        speaker: the speaker to adapt to; one of `speakers(data_dir)`.
        adapt_per_digit: recordings per digit to adapt with, drawn at random; the rest is for test.
        seed: of this draw.
        steps: as for `fsdd`. `others_train` is the training set of `fsdd(..., speaker=speaker)`.

    Raises:
        InputError: as for `fsdd`, or adapt_per_digit leaves no recording of a digit for the test.

    Example:
        >>> len(speaker_split("data", "lucas").adapt)  # doctest: +SKIP
        50
    """
    steps = whole_number("steps", steps, minimum=1)
    count = whole_number("adapt_per_digit", adapt_per_digit, minimum=1)
    rng = np.random.default_rng(whole_number("seed", seed, minimum=0))
    recordings = _load(data_dir)
    own = recordings.speakers == _speaker_number(recordings, speaker)
    drawn: list[Indices] = []
    for digit in range(DIGITS):
        of_digit = np.flatnonzero(own & (recordings.labels == digit))
        if count >= len(of_digit):
            raise InputError(
                f"adapt_per_digit is {count}, but {speaker} has {len(of_digit)} recordings of "
                f"digit {digit}; at most {len(of_digit) - 1} leave one for the test"
            )
        drawn.append(rng.permutation(of_digit)[:count])
    adapt = np.sort(np.concatenate(drawn))
    others = np.flatnonzero(~own)
    test = np.setdiff1d(np.flatnonzero(own), adapt)
    base = _statistics(recordings, others, steps)
    alone = _statistics(recordings, adapt, steps)
    return SpeakerSplit(
        speaker=speaker,
        others_train=_sequences(recordings, others, steps, *base),
        adapt=_sequences(recordings, adapt, steps, *base),
        test=_sequences(recordings, test, steps, *base),
        normalisation=_normalisation(*base, steps),
        adapt_own=_sequences(recordings, adapt, steps, *alone),
        test_own=_sequences(recordings, test, steps, *alone),
        normalisation_own=_normalisation(*alone, steps),
    )


def _load(data_dir: str | Path | None) -> _Recordings:
    directory = data_directory(data_dir, "fsdd")
    hint = "copy the packed Free Spoken Digit Dataset there"
    [path] = find_files(directory, "fsdd", ["fsdd.npz"], "fsdd", hint)
    state = path.stat()
    return _load_once(path.resolve(), state.st_mtime_ns, state.st_size)


# The time and size are part of the key, so that a file that has changed is read again.
@lru_cache(maxsize=2)
def _load_once(path: Path, mtime_ns: int, size_bytes: int) -> _Recordings:
    arrays = read_npz(path)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)} missing; expected the keys {', '.join(_KEYS)}"
        )
    _check(path, arrays)
    audio, offsets = arrays["audio"], arrays["offsets"]
    frames = tuple(logmel.log_mel(audio[first:last]) for first, last in pairwise(offsets))
    return _Recordings(
        frames=frames,
        labels=arrays["labels"].astype(np.int32),
        speakers=arrays["speakers"].astype(np.int32),
        names=tuple(str(name) for name in arrays["speaker_names"]),
        is_test=arrays["is_test"].astype(np.bool_),
    )


def _check(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    rate = arrays["sample_rate"]
    if rate.size != 1 or int(rate.flat[0]) != logmel.SAMPLE_RATE_HZ:
        raise InputError(f"{path}: sample_rate is {rate}; expected {logmel.SAMPLE_RATE_HZ} Hz")
    audio, offsets, labels = arrays["audio"], arrays["offsets"], arrays["labels"]
    if audio.dtype != np.int16 or audio.ndim != 1:
        raise InputError(
            f"{path}: audio is {audio.dtype} of shape {list(audio.shape)}; expected int16 [samples]"
        )
    for key in ("speakers", "is_test"):
        if arrays[key].shape != labels.shape:
            raise InputError(
                f"{path}: {key} has shape {list(arrays[key].shape)} and labels "
                f"{list(labels.shape)}; they must agree"
            )
    bounds_fit = (
        labels.size > 0
        and offsets.shape == (labels.size + 1,)
        and (offsets[0], offsets[-1]) == (0, len(audio))
        and bool(np.all(np.diff(offsets) > 0))
    )
    if not bounds_fit:
        raise InputError(
            f"{path}: offsets do not cut the {len(audio)} samples into {labels.size} recordings; "
            "expected rising positions from 0 to the number of samples, one more than recordings"
        )


def _speaker_number(recordings: _Recordings, speaker: str) -> int:
    if speaker in recordings.names:
        return recordings.names.index(speaker)
    close = difflib.get_close_matches(str(speaker), recordings.names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"unknown speaker {speaker!r}; expected one of {', '.join(recordings.names)}{guess}"
    )


def _statistics(
    recordings: _Recordings, rows: Indices, steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    frames = np.concatenate([recordings.frames[row][:steps] for row in rows]).astype(np.float64)
    # A band that never changes would divide by 0; it carries nothing either way.
    std = np.maximum(frames.std(axis=0), 1e-6)
    return frames.mean(axis=0).astype(np.float32), std.astype(np.float32)


def _sequences(
    recordings: _Recordings,
    rows: Indices,
    steps: int,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> SequenceData:
    x = np.zeros((len(rows), steps, logmel.BANDS), np.float32)
    lengths = np.zeros(len(rows), np.int32)
    for place, row in enumerate(rows):
        frames = recordings.frames[row][:steps]
        lengths[place] = len(frames)
        x[place, : len(frames)] = (frames - mean) / std
    return SequenceData(x, recordings.labels[rows], lengths)


def _normalisation(
    mean: NDArray[np.float32], std: NDArray[np.float32], steps: int
) -> Normalisation:
    return {
        "sample_rate_hz": float(logmel.SAMPLE_RATE_HZ),
        "divide_by": logmel.FULL_SCALE,
        "window_samples": float(logmel.WINDOW),
        "hop_samples": float(logmel.HOP),
        "fft_samples": float(logmel.FFT),
        "log_floor": logmel.FLOOR,
        "steps": float(steps),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
    }
