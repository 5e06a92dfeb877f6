import math

import numpy as np
import pytest
from tasks_helpers import data_dir, whole  # noqa: F401

from fptt.errors import InputError
from fptt.tasks import fsdd, load, logmel

NAMES = ["anna", "ben", "cleo"]


def archive(**changes):
    """3 speakers x 10 digits x 4 recordings of noise, 250 to 1449 samples long."""
    rng = np.random.default_rng(0)
    n = 3 * 10 * 4
    lengths = 250 + 10 * np.arange(n)
    speakers, labels, index = np.unravel_index(np.arange(n), (3, 10, 4))
    loudness = np.repeat(100 * (1 + speakers), lengths)  # speakers differ, so statistics do
    arrays = {
        "audio": (rng.normal(size=lengths.sum()) * loudness).astype(np.int16),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "labels": labels.astype(np.int8),
        "speakers": speakers.astype(np.int8),
        "speaker_names": np.array(NAMES),
        "is_test": index == 0,
        "sample_rate": np.int32(8000),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fsdd").mkdir()
    np.savez(tmp_path / "fsdd" / "fsdd.npz", **archive())
    return tmp_path


def in_use(data):
    return np.concatenate([x[:length] for x, length in zip(data.x, data.lengths, strict=True)])


def test_log_mel_against_the_formula_written_out():
    rng = np.random.default_rng(1)
    audio = rng.integers(-20_000, 20_000, 473).astype(np.int16)
    found = logmel.log_mel(audio)
    assert (found.dtype, found.shape) == (np.float32, (3, 32))  # 1 + (473 - 200) // 100
    mel = [2595 * math.log10(1 + f / 700) for f in (0, 4000)]
    points = [700 * (10 ** ((mel[1] * i / 33) / 2595) - 1) for i in range(34)]
    for frame, band in [(0, 0), (1, 13), (2, 31)]:
        energy = 0.0
        for k in range(129):
            value = sum(
                (0.5 - 0.5 * math.cos(2 * math.pi * n / 200))
                * (audio[100 * frame + n] / 32768)
                * complex(math.cos(2 * math.pi * k * n / 256), -math.sin(2 * math.pi * k * n / 256))
                for n in range(200)
            )
            low, mid, high = points[band : band + 3]
            f = k * 31.25
            weight = max(0.0, min((f - low) / (mid - low), (high - f) / (high - mid)))
            energy += weight * abs(value) ** 2
        assert found[frame, band] == pytest.approx(math.log(1e-6 + energy), rel=1e-5)


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (200, 1), (299, 1), (300, 2), (399, 2), (400, 3)]
)
def test_number_of_frames(samples, frames):
    assert logmel.log_mel(np.ones(samples, np.int16)).shape == (frames, 32)


def test_silence_is_the_floor():
    assert np.allclose(logmel.log_mel(np.zeros(500, np.int16)), math.log(1e-6))


def test_a_tone_is_loudest_in_the_band_around_its_frequency():
    audio = (10_000 * np.sin(2 * np.pi * 1000 * np.arange(800) / 8000)).astype(np.int16)
    band = set(logmel.log_mel(audio).argmax(axis=1).tolist())
    peaks = logmel.mel_weights().argmax(axis=1) * 31.25
    assert len(band) == 1
    assert abs(peaks[band.pop()] - 1000) < 100


def test_every_band_hears_something_and_bands_cover_the_spectrum():
    weights = logmel.mel_weights()
    assert ((weights > 0).sum(axis=1) >= 2).all()
    # Between the first and the last peak the triangles add up to 1 at every bin (62 to 3719 Hz).
    assert np.allclose(weights[:, 2:120].sum(axis=0), 1)
    assert (weights[:, 0] == 0).all()


def test_default_split_and_lengths(folder):
    task = load("fsdd", folder, steps=10)
    assert (task.inputs, task.outputs, task.steps, task.loss) == (32, 10, 10, "last")
    assert (task.train.x.shape, task.test.x.shape) == ((90, 10, 32), (30, 10, 32))
    samples = 250 + 10 * np.arange(120)
    frames = 1 + (samples - 200) // 100
    held_out = np.arange(120) % 4 == 0
    assert task.test.lengths.tolist() == np.minimum(frames[held_out], 10).tolist()
    assert task.train.lengths.tolist() == np.minimum(frames[~held_out], 10).tolist()
    assert task.test.y.tolist() == list(range(10)) * 3
    cut = int((frames > 10).sum())
    assert cut > 0
    assert task.description == (
        "Spoken digits, 3 speakers, the official split: 90 training and 30 test recordings, 32 "
        f"log-mel bands every 12.5 ms; {cut} recordings were cut at 10 frames."
    )


def test_statistics_are_of_the_training_frames_in_use_and_no_others(folder):
    task = load("fsdd", folder, steps=6)
    frames = in_use(task.train).astype(np.float64)
    assert np.abs(frames.mean(axis=0)).max() < 1e-4
    assert np.abs(frames.std(axis=0) - 1).max() < 1e-4
    assert np.abs(in_use(task.test).mean(axis=0)).max() > 0.01


def test_normalisation_holds_all_that_a_device_needs(folder):
    task = load("fsdd", folder)
    norm = task.normalisation
    audio = archive()["audio"][archive()["offsets"][0] : archive()["offsets"][1]]
    expected = (logmel.log_mel(audio) - np.float32(norm["mean"])) / np.float32(norm["std"])
    length = task.test.lengths[0]
    assert np.allclose(task.test.x[0, :length], expected, atol=1e-6)
    assert {key: value for key, value in norm.items() if key not in ("mean", "std")} == {
        "sample_rate_hz": 8000.0,
        "divide_by": 32768.0,
        "window_samples": 200.0,
        "hop_samples": 100.0,
        "fft_samples": 256.0,
        "log_floor": 1e-6,
        "steps": 96.0,
    }


def test_nothing_after_the_end_of_a_recording(folder):
    task = load("fsdd", folder)
    beyond = np.arange(96) >= task.train.lengths[:, None]
    assert (task.train.x[beyond] == 0).all()
    assert (task.train.x[~beyond] != 0).any()


def test_leave_one_speaker_out(folder):
    task = load("fsdd", folder, speaker="ben")
    assert (len(task.train), len(task.test)) == (80, 40)
    assert "speaker ben held out" in task.description
    samples = 250 + 10 * np.arange(120)
    assert task.test.lengths.tolist() == (1 + (samples[40:80] - 200) // 100).tolist()
    assert np.abs(in_use(task.train).mean(axis=0)).max() < 1e-4


def test_speaker_split(folder):
    split = fsdd.speaker_split(folder, "cleo", adapt_per_digit=3, seed=4)
    assert (len(split.others_train), len(split.adapt), len(split.test)) == (80, 30, 10)
    assert np.bincount(split.adapt.y).tolist() == [3] * 10
    assert np.bincount(split.test.y).tolist() == [1] * 10
    # No recording is in both parts: lengths in samples are all different, frames nearly so.
    everything = load("fsdd", folder, speaker="cleo")
    assert np.array_equal(split.others_train.x, everything.train.x)
    whole_speaker = {x.tobytes() for x in everything.test.x}
    parts = [x.tobytes() for x in split.adapt.x] + [x.tobytes() for x in split.test.x]
    assert (len(parts), set(parts)) == (40, whole_speaker)
    assert split.normalisation == everything.normalisation


def test_own_statistics_come_from_the_adaptation_recordings_only(folder):
    split = fsdd.speaker_split(folder, "cleo", adapt_per_digit=2)
    frames = in_use(split.adapt_own).astype(np.float64)
    assert np.abs(frames.mean(axis=0)).max() < 1e-4
    assert np.abs(frames.std(axis=0) - 1).max() < 1e-4
    assert np.abs(in_use(split.adapt).mean(axis=0)).max() > 0.1  # louder than the others
    # The same recordings, in the same order, on another scale.
    assert np.array_equal(split.adapt.y, split.adapt_own.y)
    assert np.array_equal(split.test.lengths, split.test_own.lengths)
    base, own = split.normalisation, split.normalisation_own
    length = split.test.lengths[0]
    raw = split.test.x[0, :length] * base["std"] + base["mean"]
    assert np.allclose(split.test_own.x[0, :length] * own["std"] + own["mean"], raw, atol=1e-4)


def test_the_draw_depends_on_the_seed_alone(folder):
    one, again, other = (fsdd.speaker_split(folder, "anna", 2, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.adapt.x, again.adapt.x)
    assert not np.array_equal(one.adapt.x, other.adapt.x)


def test_audio_is_read_once_and_again_when_the_file_changes(folder, monkeypatch):
    read = []
    original = fsdd.read_npz
    monkeypatch.setattr(fsdd, "read_npz", lambda path: read.append(path) or original(path))
    assert fsdd.speakers(folder) == ("anna", "ben", "cleo")
    load("fsdd", folder)
    assert len(read) == 1
    np.savez(folder / "fsdd" / "fsdd.npz", **archive(speaker_names=np.array(["dora", "b", "c"])))
    assert fsdd.speakers(folder) == ("dora", "b", "c")
    assert len(read) == 2


def test_refuses_unknown_speakers_and_numbers(folder):
    message = "unknown speaker 'cloe'; expected one of anna, ben, cleo; did you mean 'cleo'?"
    with pytest.raises(InputError, match=whole(message)):
        load("fsdd", folder, speaker="cloe")
    message = "unknown speaker 'x'; expected one of anna, ben, cleo"
    with pytest.raises(InputError, match=whole(message)):
        fsdd.speaker_split(folder, "x")
    message = (
        "adapt_per_digit is 4, but ben has 4 recordings of digit 0; at most 3 leave one for the "
        "test"
    )
    with pytest.raises(InputError, match=whole(message)):
        fsdd.speaker_split(folder, "ben", 4)
    with pytest.raises(
        InputError, match=whole("steps is 0; it must be a whole number of at least 1")
    ):
        load("fsdd", folder, steps=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"audio": None, "labels": None},
            "{}: audio, labels missing; expected the keys audio, offsets, labels, speakers, "
            "speaker_names, is_test, sample_rate",
        ),
        ({"sample_rate": np.int32(16_000)}, "{}: sample_rate is 16000; expected 8000 Hz"),
        (
            {"audio": np.zeros(9)},
            "{}: audio is float64 of shape [9]; expected int16 [samples]",
        ),
        (
            {"speakers": np.zeros(7, np.int8)},
            "{}: speakers has shape [7] and labels [120]; they must agree",
        ),
        (
            {"audio": np.zeros(9, np.int16)},
            "{}: offsets do not cut the 9 samples into 120 recordings; expected rising positions "
            "from 0 to the number of samples, one more than recordings",
        ),
    ],
)
def test_refuses_other_archives(tmp_path, changes, message):
    np.savez(tmp_path / "fsdd.npz", **archive(**changes))
    with pytest.raises(InputError, match=whole(message)):
        load("fsdd", tmp_path)


def test_missing_and_truncated_file(tmp_path):
    message = (
        f"task 'fsdd': fsdd.npz not found in {tmp_path}/fsdd; expected fsdd.npz in "
        f"{tmp_path}/fsdd or in {tmp_path}: copy the packed Free Spoken Digit Dataset there"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("fsdd", tmp_path)
    path = tmp_path / "fsdd.npz"
    np.savez(path, **archive())
    path.write_bytes(path.read_bytes()[:50_000])
    message = (
        "{}: not a whole npz archive (File is not a zip file); expected a file made with np.savez: "
        "make or copy it again"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("fsdd", tmp_path)


def test_the_real_recordings(data_dir):  # noqa: F811
    task = load("fsdd", data_dir)
    assert (task.train.x.shape, task.test.x.shape) == ((2700, 96, 32), (300, 96, 32))
    assert np.bincount(task.train.y).tolist() == [270] * 10
    assert "5 recordings were cut at 96 frames" in task.description
    assert fsdd.speakers(data_dir) == (
        "george",
        "jackson",
        "lucas",
        "nicolas",
        "theo",
        "yweweler",
    )
    split = fsdd.speaker_split(data_dir, "lucas")
    assert (len(split.others_train), len(split.adapt), len(split.test)) == (2500, 50, 450)
    assert np.bincount(split.test_own.y).tolist() == [45] * 10
    # Nearest mean spectrum knows the digits of known speakers far better than chance.
    means = np.stack([in_use(task.train.subset(task.train.y == d)).mean(axis=0) for d in range(10)])
    heard = np.stack(
        [x[:length].mean(axis=0) for x, length in zip(task.test.x, task.test.lengths, strict=True)]
    )
    nearest = ((heard[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == task.test.y).mean() > 0.3
