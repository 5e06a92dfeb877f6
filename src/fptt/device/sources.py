"""Where the C run time lies: beside the package when it is installed, else in the source folder."""

from pathlib import Path

from fptt.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]


def runtime_folder() -> Path:
    """The folder with `include/`, `src/` and `ports/` of the C run time.

    Raises:
        InputError: the installation has none.
    """
    for folder in (_PACKAGE / "runtime", _PACKAGE.parents[1] / "runtime"):
        if (folder / "include" / "fptt.h").is_file():
            return folder
    raise InputError(
        f"the C run time is neither in {_PACKAGE} nor beside its sources; install fptt again"
    )
