"""Penn Treebank by words and by characters, from small made-up files in its format."""

import numpy as np
import pytest
from tasks_helpers import whole

from fptt import FPTT, LSTM, SGD, Embedding, Linear, Network, Trainer, build
from fptt.errors import InputError
from fptt.tasks import load

#: a space at both ends of every line, as in Mikolov's files
LINES = {
    "train": ["the cat <unk> the dog", "", "N cats n't"],
    "valid": ["a cat"],
    "test": ["zoe the end"],
}
ENDED = "<eos>"


def write(folder, prefix="ptb.", line=" {} \n".format):
    folder.mkdir(exist_ok=True)
    for part, lines in LINES.items():
        (folder / f"{prefix}{part}.txt").write_text("".join(map(line, lines)))
    return folder


def by_characters(line):
    return " ".join(line.replace(" ", "_")) + "\n"


@pytest.fixture
def both(tmp_path):
    """A data directory with Penn Treebank by words and with the text of Shakespeare."""
    write(tmp_path / "ptb")
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "input.txt").write_text("To be, or not.\n" * 20)
    return tmp_path


def tokens_of(task, data):
    used = data.y >= 0
    return [task.vocabulary[token] for token in [data.x[0, 0], *data.y[used]]]


def characters_of(part):
    return [entry for line in LINES[part] for entry in [*line, ENDED]]


def test_characters_of_the_files_by_words(both):
    task = load("char", both, batch=1, steps=4)
    assert task.vocabulary == ("<unk>", ENDED, *sorted(set("".join(LINES["train"]))))
    assert task.inputs == task.outputs == len(task.vocabulary)
    assert tokens_of(task, task.train) == characters_of("train")
    # z is not in the training text: <unk>, and the vocabulary does not grow
    assert tokens_of(task, task.test) == ["<unk>", *characters_of("test")[1:]]
    assert task.description == (
        "Next character of Penn Treebank (test text held out): 34 characters to train on and 12 "
        "held out, vocabulary 19, 1 streams, 4 steps a row."
    )
    valid = load("char", both, batch=1, steps=4, held_out="valid")
    assert tokens_of(valid, valid.test) == characters_of("valid")
    assert valid.vocabulary == task.vocabulary


def test_the_files_by_characters_give_the_same(both, tmp_path):
    other = tmp_path / "other"
    write(other, "ptb.char.", by_characters)
    one, two = (load("char", place, batch=2, steps=3) for place in (both, other))
    assert one.vocabulary == two.vocabulary
    for a, b in ((one.train, two.train), (one.test, two.test)):
        assert np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y)
    # and go before those by words, which may be another selection
    (both / "ptb" / "ptb.char.train.txt").write_text("q q\n" * 9)
    (both / "ptb" / "ptb.char.test.txt").write_text("q q\n" * 9)
    assert load("char", both, batch=1).vocabulary == ("<unk>", ENDED, "q")


def test_a_file_by_words_with_the_other_name(tmp_path):
    write(tmp_path, "ptb.char.")
    message = (
        f"{tmp_path}/ptb.char.train.txt: 'the' is more than one character; expected characters "
        "separated by spaces, and _ for a space: is it a file by words? Then call it ptb.*.txt"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("char", tmp_path)


def test_words(both):
    task = load("words", both, batch=1, steps=3)
    assert task.vocabulary == ("<unk>", ENDED, "the", "N", "cat", "cats", "dog", "n't")
    expected = "the cat <unk> the dog <eos> <eos> N cats n't <eos>"
    assert tokens_of(task, task.train) == expected.split()
    assert tokens_of(task, task.test) == ["<unk>", "the", "<unk>", ENDED]


@pytest.mark.parametrize("name", ["char", "words"])
def test_which_text_is_taken(both, name):
    source = f"Next {'character' if name == 'char' else 'word'} of "
    treebank, shakespeare = f"{source}Penn Treebank (", f"{source}input.txt: "
    options = dict(batch=1, steps=3)
    assert load(name, both, **options).description.startswith(treebank)
    assert load(name, both, corpus="ptb", **options).description.startswith(treebank)
    assert load(name, both, corpus="shakespeare", **options).description.startswith(shakespeare)
    path = both / "shakespeare" / "input.txt"
    assert load(name, both, text_file=path, **options).description.startswith(shakespeare)
    (both / "ptb" / "ptb.train.txt").unlink()
    assert load(name, both, **options).description.startswith(shakespeare)
    message = (
        f"task '{name}': ptb.train.txt not found in {both}/ptb; expected ptb.train.txt, "
        f"ptb.test.txt in {both}/ptb or in {both}: Penn Treebank is not free to pass on, so copy "
        "your own there: the files of that name in the folder data of Mikolov's "
        "simple-examples.tgz"
    )
    with pytest.raises(InputError, match=whole(message)):
        load(name, both, corpus="ptb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus": "wiki"}, "corpus is 'wiki'; expected one of ptb, shakespeare"),
        ({"corpus": "ptb", "text_file": "t.txt"}, "give either corpus or text_file"),
        ({"held_out": "dev"}, "held_out is 'dev'; expected 'test' or 'valid'"),
    ],
)
@pytest.mark.parametrize("name", ["char", "words"])
def test_refuses_options(both, name, options, message):
    with pytest.raises(InputError, match=whole(message)):
        load(name, both, **options)


def test_perplexity_of_a_text_that_can_be_learnt(tmp_path):
    """Rows of 300 words in 20 parts, as PTB-300: what comes next is certain, but for <eos>."""
    for part in ("train", "test"):
        (tmp_path / f"ptb.{part}.txt").write_text(" one two three four \n" * 250)
    task = load("words", tmp_path, steps=300, batch=4, corpus="ptb")
    assert (task.inputs, task.steps, task.contiguous) == (6, 300, True)
    net = Network([Embedding(6, 8), LSTM(8, 8), Linear(8, 6)])
    program = build(
        net,
        FPTT(parts=20, state="carry"),
        SGD(lr=2.0),
        steps=300,
        batch=task.batch,
        loss="every_step",
        clip=1.0,
    )
    trainer = Trainer(program, seed=0)
    before = trainer.evaluate(task.test)["perplexity"]
    trainer.fit(task.train, 8)
    after = trainer.evaluate(task.test)["perplexity"]
    assert before > 5  # six tokens, nothing learnt yet
    assert after < 1.2
