from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks_helpers import data_dir, whole  # noqa: F401

from fptt.errors import InputError
from fptt.tasks import load
from fptt.tasks.text import streams


def test_streams_by_hand():
    # 11 pairs in 2 streams: 0..4 and 5..10; batches of 2 rows and 3 steps.
    data = streams(np.arange(12, dtype=np.int32), batch=2, steps=3)
    assert data.x.tolist() == [[0, 1, 2], [5, 6, 7], [3, 4, 0], [8, 9, 10]]
    assert data.y.tolist() == [[1, 2, 3], [6, 7, 8], [4, 5, -1], [9, 10, 11]]
    assert data.lengths is None
    assert (data.x.dtype, data.y.dtype) == (np.int32, np.int32)


@given(n=st.integers(2, 200), batch=st.integers(1, 12), steps=st.integers(1, 30))
def test_every_pair_of_neighbours_occurs_once_and_streams_go_on(n, batch, steps):
    if n - 1 < batch:
        return
    data = streams(np.arange(n, dtype=np.int32), batch, steps)
    used = data.y >= 0
    assert sorted(data.x[used].tolist()) == list(range(n - 1))
    assert np.array_equal(data.y[used], data.x[used] + 1)
    assert (data.x[~used] == 0).all()
    assert len(data) % batch == 0
    ends = []
    for row in range(batch):
        stream, has_target = data.x[row::batch].ravel(), used[row::batch].ravel()
        length = int(has_target.sum())
        assert has_target[:length].all()
        assert (np.diff(stream[:length]) == 1).all()
        ends.append(length)
    assert max(ends) - min(ends) <= 1
    assert min(ends) >= 1
    assert len(data) // batch == -(-max(ends) // steps)


def test_char_by_hand(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"abra\ncadabra\r\n-abba-b")  # 21 characters, 18 to train on
    task = load("char", text_file=path, batch=2, steps=4)
    assert task.vocabulary == ("\n", "\r", "-", "a", "b", "c", "d", "r")
    assert (task.inputs, task.outputs, task.steps, task.batch) == (8, 8, 4, 2)
    assert (task.tokens, task.contiguous, task.loss) == (True, True, "every_step")

    def letters(tokens):
        return "".join(task.vocabulary[token] for token in tokens)

    # 18 tokens make 17 pairs: streams of 8 and 9.
    assert [letters(row) for row in task.train.x[:4]] == ["abra", "abra", "\ncad", "\r\n-a"]
    assert [letters(row) for row in task.train.y[:4]] == ["bra\n", "bra\r", "cada", "\n-ab"]
    assert task.train.y[4].tolist() == [-1] * 4
    assert task.train.y[5].tolist() == [4, -1, -1, -1]
    assert [letters(task.test.x[0][:1]), letters(task.test.y[0][:1])] == ["a", "-"]
    assert task.description == (
        "Next character of text.txt: 18 characters to train on and 3 held out, vocabulary 8, 2 "
        "streams, 4 steps a row."
    )


def test_test_fraction(tmp_path):
    (tmp_path / "input.txt").write_text("ab" * 50)
    task = load("char", tmp_path, test_fraction=0.25, batch=1, steps=100)
    assert [int((data.y >= 0).sum()) for data in (task.train, task.test)] == [74, 24]


PTB = {
    "train": " the cat <unk> the dog \n the cat sat \n",
    "valid": " a cat \n the end \n",
    "test": " the dog sat \n no cat <unk> \n",
}


@pytest.fixture
def treebank(tmp_path):
    (tmp_path / "ptb").mkdir()
    for part, text in PTB.items():
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text(text)
    return tmp_path


def tokens_of(data):
    """The text again, from a single stream."""
    used = data.y >= 0
    return [int(data.x[0, 0]), *data.y[used].tolist()]


def test_penn_treebank(treebank):
    task = load("words", treebank, batch=1, steps=3)
    assert task.vocabulary == ("<unk>", "<eos>", "the", "cat", "dog", "sat")
    # the cat <unk> the dog <eos> the cat sat <eos>
    assert tokens_of(task.train) == [2, 3, 0, 2, 4, 1, 2, 3, 5, 1]
    # the dog sat <eos> no cat <unk> <eos>; "no" is unknown
    assert tokens_of(task.test) == [2, 4, 5, 1, 0, 3, 0, 1]
    assert "Penn Treebank (test text held out)" in task.description
    valid = load("words", treebank, batch=1, steps=3, held_out="valid")
    assert tokens_of(valid.test) == [0, 3, 1, 2, 0, 1]  # a cat <eos> the end <eos>
    assert tokens_of(valid.train) == tokens_of(task.train)


def test_vocabulary_keeps_the_most_frequent_and_breaks_ties_by_the_alphabet(treebank):
    task = load("words", treebank, batch=1, steps=3, vocabulary=5)
    assert task.vocabulary == ("<unk>", "<eos>", "the", "cat", "dog")
    assert task.inputs == task.outputs == 5
    assert tokens_of(task.train) == [2, 3, 0, 2, 4, 1, 2, 3, 0, 1]


def test_penn_treebank_in_the_directory_itself_and_a_missing_part(treebank):
    folder = treebank / "ptb"
    assert load("words", folder, batch=1).inputs == 6
    (folder / "ptb.valid.txt").unlink()
    assert load("words", folder, batch=1).inputs == 6
    message = (
        f"task 'words': ptb.valid.txt not found in {folder}; expected ptb.train.txt, ptb.valid.txt "
        f"in {folder}/ptb or in {folder}: copy the text there, or name another one with text_file"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("words", folder, batch=1, held_out="valid")


def test_words_of_any_text(tmp_path, treebank):
    path = tmp_path / "any.txt"
    path.write_text("Don't go.\n\nGo, THEN!\n" + "zzz qqq")
    task = load("words", treebank, text_file=path, batch=1, steps=4, test_fraction=0.25)
    # don't go . <eos> go , then ! <eos> | zzz qqq <eos>
    assert task.vocabulary == ("<unk>", "<eos>", "go", "!", ",", ".", "don't", "then")
    assert tokens_of(task.train) == [6, 2, 5, 1, 2, 4, 7, 3, 1]
    assert tokens_of(task.test) == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("char", {"batch": 0}, "batch is 0; it must be a whole number of at least 1"),
        ("char", {"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        (
            "char",
            {"test_fraction": 1.0},
            "test_fraction is 1.0; it must lie between 0 and 1, both excluded",
        ),
        (
            "char",
            {"test_fraction": "x"},
            "test_fraction is 'x'; it must lie between 0 and 1, both excluded",
        ),
        (
            "char",
            {"batch": 4},
            "the test text has 4 tokens; 4 streams need at least 5: give a longer text or a "
            "smaller batch",
        ),
        (
            "char",
            {"batch": 99},
            "the training text has 36 tokens; 99 streams need at least 100: give a longer text or "
            "a smaller batch",
        ),
        ("words", {"vocabulary": 2}, "vocabulary is 2; it must be a whole number of at least 3"),
        ("words", {"held_out": "dev"}, "held_out is 'dev'; expected 'test' or 'valid'"),
    ],
)
def test_refuses_options(tmp_path, name, options, message):
    (tmp_path / "t.txt").write_text("abcd" * 10)
    with pytest.raises(InputError, match=whole(message)):
        load(name, text_file=tmp_path / "t.txt", **options)


@pytest.mark.parametrize("name", ["char", "words"])
def test_refuses_texts(tmp_path, name):
    path = tmp_path / "t.txt"
    message = "{}: cannot be read (No such file or directory); expected a text file"
    with pytest.raises(InputError, match=whole(message)):
        load(name, text_file=path)
    path.write_bytes(b"good \xff bad")
    message = "{}: byte 5 is not UTF-8; expected a text file in UTF-8: convert it"
    with pytest.raises(InputError, match=whole(message)):
        load(name, text_file=path)
    path.write_bytes(b"")
    message = (
        "the training text has 0 tokens; 20 streams need at least 21: give a longer text or a "
        "smaller batch"
    )
    with pytest.raises(InputError, match=whole(message)):
        load(name, text_file=path)
    message = (
        f"task '{name}': input.txt not found in {tmp_path}/shakespeare; expected input.txt in "
        f"{tmp_path}/shakespeare or in {tmp_path}: copy the text there, or name another one with "
        "text_file"
    )
    with pytest.raises(InputError, match=whole(message)):
        load(name, tmp_path)


def test_tiny_shakespeare(data_dir):  # noqa: F811
    task = load("char", data_dir)
    text = (data_dir / "shakespeare" / "input.txt").read_text()
    assert task.inputs == 65
    first = "".join(task.vocabulary[token] for token in task.train.x[0])
    assert first == text[:100]
    assert "".join(task.vocabulary[token] for token in task.train.x[20]) == text[100:200]
    assert int((task.train.y >= 0).sum()) + int((task.test.y >= 0).sum()) == len(text) - 2
    counted = Counter(task.train.x[task.train.y >= 0].tolist())
    train_text = text[: int(len(text) * 0.9)]
    assert counted[task.vocabulary.index("e")] == train_text[:-1].count("e")


def test_words_of_tiny_shakespeare(data_dir):  # noqa: F811
    task = load("words", data_dir, vocabulary=1000, steps=8)
    assert (task.inputs, len(set(task.vocabulary))) == (1000, 1000)
    # Speeches end often: these two lead by count.
    assert set(task.vocabulary[2:5]) <= {",", ":", ".", "the"}
    first = " ".join(task.vocabulary[token] for token in task.train.x[0])
    assert first == "first citizen : <eos> before we <unk> any"
