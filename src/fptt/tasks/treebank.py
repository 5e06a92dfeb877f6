"""Penn Treebank as language models use it: Mikolov's preparation, by words or by characters.

The text is prepared already: lower case, the 10,000 most frequent words, <unk> for the others, N
for numbers, no punctuation. One sentence a line; its end is a token of its own, <eos>.
"""

from __future__ import annotations

from pathlib import Path

from fptt.errors import InputError
from fptt.tasks.files import find_files

UNKNOWN, END = "<unk>", "<eos>"
_BY_WORDS, _BY_CHARACTERS = "ptb.", "ptb.char."
_HINT = "copy the text there, or name another one with text_file"
_GET = (
    "Penn Treebank is not free to pass on, so copy your own there: the files of that name in the "
    "folder data of Mikolov's simple-examples.tgz"
)


def files(directory: Path, task: str, held_out: str, *, required: bool) -> list[Path] | None:
    """The training and the held-out file of Penn Treebank.

    Args:
        directory: the data directory; the files lie in its folder ptb or in itself.
        task: "words", or "char", for which there may also be files ptb.char.*.txt.
        held_out: "test" or "valid".
        required: whether to raise an error if there is no training file.

    Returns:
        Two paths; None if there is no training file.

    Raises:
        InputError: the held-out file is missing; or the training file is, and it is required.
    """
    prefixes = [_BY_WORDS] if task == "words" else [_BY_CHARACTERS, _BY_WORDS]
    for prefix in prefixes:
        if any((p / f"{prefix}train.txt").is_file() for p in (directory / "ptb", directory)):
            names = [f"{prefix}train.txt", f"{prefix}{held_out}.txt"]
            return find_files(directory, "ptb", names, task, _HINT)
    if required:
        names = [f"{_BY_WORDS}train.txt", f"{_BY_WORDS}{held_out}.txt"]
        return find_files(directory, "ptb", names, task, _GET)
    return None


def words(text: str) -> list[str]:
    """The words of every line, and <eos> after each line.

    Example:
        >>> words(" no it was n't \\n so <unk> \\n")
        ['no', 'it', 'was', "n't", '<eos>', 'so', '<unk>', '<eos>']
    """
    return [word for line in text.splitlines() for word in [*line.split(), END]]


def characters(path: Path, text: str) -> list[str]:
    """The characters of every line, and <eos> after each line.

    A file ptb.char.*.txt has them separated by spaces, with _ for the space between words. The
    files by words give the same: their characters, less the spaces at both ends of a line. An
    <unk> of theirs is the five characters < u n k >.

    Args:
        path: whose name tells which kind of file it is.
        text: its content.

    Raises:
        InputError: a file ptb.char.*.txt has something longer than a character between spaces.

    Example:
        >>> characters(Path("ptb.train.txt"), " so it \\n")
        ['s', 'o', ' ', 'i', 't', '<eos>']
        >>> characters(Path("ptb.char.train.txt"), "s o _ i t\\n")
        ['s', 'o', ' ', 'i', 't', '<eos>']
    """
    if not path.name.startswith(_BY_CHARACTERS):
        return [entry for line in text.splitlines() for entry in [*line.strip(), END]]
    found = words(text)
    long = next((entry for entry in found if len(entry) > 1 and entry != END), None)
    if long is not None:
        raise InputError(
            f"{path}: {long!r} is more than one character; expected characters separated by "
            f"spaces, and _ for a space: is it a file by words? Then call it {_BY_WORDS}*.txt"
        )
    return [" " if entry == "_" else entry for entry in found]
