"""The C engine behind cffi: a program as a flat list of operations, run fast.

Only what runs programs with it imports this; `import fptt` does not.
"""

try:
    from fptt.native import _engine as _compiled
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error):
        raise ImportError(
            "the engine of fptt is not compiled; run `make engine` in its source folder, "
            "or install it with pip"
        ) from error
    raise

from fptt.native.engine import Engine

__all__ = ["Engine"]

del _compiled
