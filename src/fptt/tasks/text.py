"""Language modelling: predict the next character or word of a text at every step."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks import treebank
from fptt.tasks.checks import fraction, whole_number
from fptt.tasks.files import data_directory, find_files
from fptt.tasks.sequences import SequenceData, Task
from fptt.tasks.treebank import END, UNKNOWN

CORPORA = ("ptb", "shakespeare")
_WORD_OR_MARK = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_HINT = "copy the text there, or name another one with text_file"

Tokens = NDArray[np.int32]


def char(
    data_dir: str | Path | None = None,
    *,
    steps: int = 100,
    batch: int = 20,
    test_fraction: float = 0.1,
    text_file: str | Path | None = None,
    corpus: str | None = None,
    held_out: str = "test",
) -> Task:
    """The task `char`: predict the next character of a text.

    Of Penn Treebank, where the data directory has it; see `fptt.tasks.treebank.characters`. Its
    training text alone makes the vocabulary: <unk>, <eos> and its characters in code point order.
    Of any other text, token k stands for the k-th of the file's distinct characters, in code
    point order.

    Args:
        data_dir: directory with the files of Penn Treebank (those by characters or those by
            words, as for `words`), or with shakespeare/input.txt or input.txt; default is
            FPTT_DATA.
        steps: length T of a row.
        batch: number B of streams the text is cut into; see `streams`.
        test_fraction: how much of the end of a text is held out; Penn Treebank has its own split.
        text_file: any text in UTF-8, instead of what is in data_dir.
        corpus: "ptb" or "shakespeare", where data_dir has both or must have this one.
        held_out: which file of Penn Treebank to test on, "test" or "valid".

    Returns:
        A contiguous task with x int32 [n, T], y int32 [n, T], every-step cross-entropy.

    Raises:
        InputError: no text, not UTF-8, too short for `batch`, or an option out of range.

    Example:
        >>> char("data", steps=50).train.x.shape[1]  # doctest: +SKIP
        50
    """
    batch = whole_number("batch", batch, minimum=1)
    paths = _treebank(data_dir, "char", text_file, corpus, held_out)
    if paths is not None:
        train_text, test_text = (treebank.characters(path, _read(path)) for path in paths)
        known = (UNKNOWN, END, *sorted(set(train_text) - {END}))
        source = _treebank_source(held_out)
        return _task("char", source, "characters", train_text, test_text, known, steps, batch)
    path = _text_path(data_dir, text_file, "char")
    text = _read(path)
    first_test = _first_test(len(text), test_fraction)
    train_text, test_text = list(text[:first_test]), list(text[first_test:])
    known = tuple(sorted(set(text)))
    return _task("char", path.name, "characters", train_text, test_text, known, steps, batch)


def words(
    data_dir: str | Path | None = None,
    *,
    steps: int = 100,
    batch: int = 20,
    vocabulary: int = 10_000,
    test_fraction: float = 0.1,
    text_file: str | Path | None = None,
    corpus: str | None = None,
    held_out: str = "test",
) -> Task:
    """The task `words`: predict the next word of a text.

    Penn Treebank, where the data directory has it: words are separated by spaces, and every line
    ends with <eos>. Any other text is put in lower case, words and punctuation marks are tokens,
    and every line that is not empty ends with <eos>. The training text alone makes the
    vocabulary; words outside it become <unk>.

    With steps=300 this is the task PTB-300 of the FPTT paper, judged by perplexity.

    Args:
        data_dir: directory with ptb/ptb.train.txt or ptb.train.txt (and ptb.test.txt,
            ptb.valid.txt beside it), or else with a text as for `char`; default is FPTT_DATA.
        steps: length T of a row.
        batch: number B of streams the text is cut into; see `streams`.
        vocabulary: at most this many tokens: <unk>, <eos> and the words most frequent in the
            training text. Penn Treebank has 10,000 in all.
        test_fraction: how much of the end of a text is held out; Penn Treebank has its own split.
        text_file: any text in UTF-8, instead of what is in data_dir.
        corpus: "ptb" or "shakespeare", where data_dir has both or must have this one.
        held_out: which file of Penn Treebank to test on, "test" or "valid".

    Returns:
        A contiguous task with x int32 [n, T], y int32 [n, T], every-step cross-entropy.

    Raises:
        InputError: as for `char`.

    Example:
        >>> words("data", vocabulary=2000).inputs  # doctest: +SKIP
        2000
    """
    batch = whole_number("batch", batch, minimum=1)
    size = whole_number("vocabulary", vocabulary, minimum=3)
    paths = _treebank(data_dir, "words", text_file, corpus, held_out)
    if paths is not None:
        source = _treebank_source(held_out)
        train_words, test_words = (treebank.words(_read(path)) for path in paths)
    else:
        path = _text_path(data_dir, text_file, "words")
        source = path.name
        all_words = _plain_words(_read(path))
        first_test = _first_test(len(all_words), test_fraction)
        train_words, test_words = all_words[:first_test], all_words[first_test:]
    known = _vocabulary(train_words, size)
    return _task("words", source, "words", train_words, test_words, known, steps, batch)


def streams(tokens: Tokens, batch: int, steps: int, part: str = "text") -> SequenceData:
    """Arrange a text so that the state of a network can be carried from batch to batch.

    The N - 1 pairs (token, next token) are cut into `batch` streams, equal to within one pair.
    Batch j holds steps j T .. (j + 1) T - 1 of every stream, so row r of batch j + 1 goes on
    where row r of batch j ends. Rows are stored batch after batch: row j B + r is row r of batch
    j. Every pair occurs exactly once; where a stream has ended, x is 0 and y is -1 (no target).

    Args:
        tokens: int32 [N].
        batch: number of streams B.
        steps: length T of a row.
        part: what to call the text in an error.

    Returns:
        x int32 [n, T], y int32 [n, T], with n = B * ceil(longest stream / T).

    Raises:
        InputError: fewer than one pair per stream.

    Example:
        >>> streams(np.arange(7, dtype=np.int32), batch=2, steps=2).x.tolist()
        [[0, 1], [3, 4], [2, 0], [5, 0]]
    """
    pairs = len(tokens) - 1
    if pairs < batch:
        raise InputError(
            f"the {part} text has {len(tokens)} tokens; {batch} streams need at least {batch + 1}: "
            "give a longer text or a smaller batch"
        )
    starts = [stream * pairs // batch for stream in range(batch + 1)]
    rounds = -(-max(np.diff(starts)) // steps)
    x = np.zeros((batch, rounds * steps), np.int32)
    y = np.full((batch, rounds * steps), -1, np.int32)
    for stream, (first, last) in enumerate(pairwise(starts)):
        x[stream, : last - first] = tokens[first:last]
        y[stream, : last - first] = tokens[first + 1 : last + 1]

    def batch_after_batch(array: Tokens) -> Tokens:
        rows = array.reshape(batch, rounds, steps).swapaxes(0, 1)
        return np.ascontiguousarray(rows).reshape(batch * rounds, steps)

    return SequenceData(batch_after_batch(x), batch_after_batch(y))


def _task(
    name: str,
    source: str,
    unit: str,
    train_text: list[str],
    test_text: list[str],
    vocabulary: tuple[str, ...],
    steps: int,
    batch: int,
) -> Task:
    steps = whole_number("steps", steps, minimum=1)
    index = {entry: token for token, entry in enumerate(vocabulary)}
    # Token 0 is <unk> wherever something can be outside the vocabulary.
    train, test = (
        np.array([index.get(entry, 0) for entry in part], np.int32)
        for part in (train_text, test_text)
    )
    return Task(
        name=name,
        train=streams(train, batch, steps, "training"),
        test=streams(test, batch, steps, "test"),
        inputs=len(vocabulary),
        outputs=len(vocabulary),
        steps=steps,
        loss="every_step",
        criterion="cross_entropy",
        tokens=True,
        contiguous=True,
        description=(
            f"Next {unit[:-1]} of {source}: {len(train):,} {unit} to train on and {len(test):,} "
            f"held out, vocabulary {len(vocabulary):,}, {batch} streams, {steps} steps a row."
        ),
        vocabulary=vocabulary,
        batch=batch,
    )


def _text_path(data_dir: str | Path | None, text_file: str | Path | None, task: str) -> Path:
    if text_file is not None:
        return Path(text_file).expanduser()
    directory = data_directory(data_dir, task, "or name a text with text_file")
    return find_files(directory, "shakespeare", ["input.txt"], task, _HINT)[0]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a text file"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8; expected a text file in UTF-8: convert it"
        ) from None


def _first_test(count: int, test_fraction: float) -> int:
    return int(count * (1 - fraction("test_fraction", test_fraction)))


def _treebank(
    data_dir: str | Path | None,
    task: str,
    text_file: str | Path | None,
    corpus: str | None,
    held_out: str,
) -> list[Path] | None:
    """The training and the held-out file of Penn Treebank, if that is the text to take."""
    if held_out not in ("test", "valid"):
        raise InputError(f"held_out is {held_out!r}; expected 'test' or 'valid'")
    if corpus is not None and corpus not in CORPORA:
        raise InputError(f"corpus is {corpus!r}; expected one of {', '.join(CORPORA)}")
    if text_file is not None:
        if corpus is not None:
            raise InputError("give either corpus or text_file")
        return None
    if corpus == "shakespeare":
        return None
    directory = data_directory(data_dir, task, "or name a text with text_file")
    return treebank.files(directory, task, held_out, required=corpus == "ptb")


def _treebank_source(held_out: str) -> str:
    return f"Penn Treebank ({held_out} text held out)"


def _plain_words(text: str) -> list[str]:
    found: list[str] = []
    for line in text.lower().splitlines():
        if line.strip():
            found += [*_WORD_OR_MARK.findall(line), END]
    return found


def _vocabulary(train_words: list[str], size: int) -> tuple[str, ...]:
    counts = Counter(train_words)
    del counts[UNKNOWN], counts[END]
    # Ties go by the alphabet, so that the vocabulary depends on the text alone.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (UNKNOWN, END, *ranked[: size - 2])
