"""The errors and warnings that users see. An error carries the exit code of the command line."""

from collections.abc import Mapping, Sequence


class FpttError(Exception):
    """The work failed (a full disk, a loss that became NaN, ...)."""

    exit_code = 1


class InputError(FpttError, ValueError):
    """The caller gave something that cannot be used; the message says what to give instead."""

    exit_code = 2


class NumericalError(FpttError, ArithmeticError):
    """NaN or Inf appeared; training stopped and the last good state was kept.

    Attributes:
        rows: of the epochs that were complete, where it happened in `Trainer.fit`.
    """

    rows: Sequence[Mapping[str, float]] = ()


class SaveError(FpttError, OSError):
    """A file could not be written; what was there before is untouched."""


class SnapshotWarning(UserWarning):
    """A snapshot's newest state was damaged or not complete; the one before it was taken."""
