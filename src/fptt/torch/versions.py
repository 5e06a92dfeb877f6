"""Which PyTorch there is."""

from __future__ import annotations

import re

from fptt.errors import InputError

#: the first version that is supported, and the first that is not; tests pin one of them
SUPPORTED = ((2, 4), (3, 0))


def require_torch(what: str = "fptt.torch") -> None:
    """Raises InputError where PyTorch is missing or of a version that is not supported.

    Example:
        >>> require_torch()
    """
    (low, high) = (".".join(map(str, version)) for version in SUPPORTED)
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{what} needs PyTorch, which cannot be imported here ({error}); "
            "install it: pip install 'fptt[torch]'"
        ) from None
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if not SUPPORTED[0] <= version < SUPPORTED[1]:
        raise InputError(
            f"{what} works with PyTorch from {low} to below {high}, and here is "
            f"{torch.__version__}; install another one: pip install 'torch>={low},<{high}'"
        )
