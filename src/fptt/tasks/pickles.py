"""Reader of pickled dictionaries of numbers that runs no code from the file.

A pickle is a small program, which may call any function that it names. This reader knows three
names of numpy, and stands in for each with a class that only notes down what it is given; the
array is then made from the notes, after they were checked. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

MOST_BYTES = 1 << 26
"""The largest pickle that is read; the files of CIFAR-10 hold 31,035,704 bytes at most."""


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: a byte has none."""


class _Array:
    """Stands in for numpy's _reconstruct, whose state is (version, shape, dtype, order, bytes)."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


_NDARRAY = "numpy.ndarray"  # an argument of _reconstruct; a text cannot be called
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype,
}


class _Refused(Exception):
    """The pickle names something else."""


class _Reader(pickle._Unpickler):
    """Python's own reader, the one written in Python.

    The one in C reserves a table for the largest index that the file names, gigabytes for nine
    bytes. This one needs 7 ms for 10,000 images.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read_pickle(content: bytes, name: str) -> dict[str, Any]:
    """A pickled dictionary of texts, numbers, lists and uint8 arrays; nothing in it is run.

    Args:
        content: of the file, written by Python 2 or 3.
        name: of the file, for errors.

    Returns:
        The dictionary: keys as str, arrays of uint8 as such, all else as it is in the file.

    Raises:
        InputError: not a pickle, not a dictionary, truncated, larger than MOST_BYTES, or naming
            any class or function besides those of a numpy array.

    Example:
        >>> read_pickle(pickle.dumps({"labels": [1, 2]}), "a file")
        {'labels': [1, 2]}
        >>> try:
        ...     read_pickle(pickle.dumps(print), "a file")
        ... except InputError as error:
        ...     print(str(error).partition(";")[0])
        a file: names builtins.print, which data have no need of
    """
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{name}: holds {len(content):,} bytes; expected at most {MOST_BYTES:,}: is this the "
            "right file?"
        )
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
    except _Refused as refused:
        raise InputError(
            f"{name}: names {refused}, which data have no need of; fptt runs no code from a "
            "file: download it from where it was published"
        ) from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(
            f"{name}: is not a whole pickle ({type(error).__name__}); download it again"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{name}: holds no dictionary; is this the right file?")
    return {_text(key): _plain(value, f"{name}: {_text(key)}") for key, value in found.items()}


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _plain(value: object, what: str) -> Any:
    return _array(value.state, what) if isinstance(value, _Array) else value


def _array(state: Any, what: str) -> NDArray[np.uint8]:
    match state:
        case (_, tuple() as shape, _Dtype(code=b"u1" | "u1"), int() as columns, bytes() as raw):
            pass
        case _:
            raise InputError(f"{what} is not an array of unsigned bytes: is this the right file?")
    stated = 1
    for count in shape:
        if not isinstance(count, int) or count < 0:
            raise InputError(f"{what} has the shape {shape}: download it again")
        stated *= count
    if stated != len(raw):
        raise InputError(
            f"{what} has {len(raw)} bytes for the shape {list(shape)}, which needs {stated}: "
            "download it again"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if columns else "C")
