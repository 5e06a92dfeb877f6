"""Which files of the run time a model needs on a target, and how each is compiled.

The flags that decide over floating-point results stand here, beside the files that they are for, as
they stand in meson.build for the host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fptt.device.targets import Target
from fptt.errors import FpttError

#: what every file is compiled with
CFLAGS = ("-std=c11", "-O2", "-ffunction-sections", "-fdata-sections")
_MATH = ("-fno-math-errno", "-fno-trapping-math")
#: rounds after every operation, as on the host
_EXACT = ("-ffp-contract=off", *_MATH)
#: may round a * b + c once
_FUSED = ("-ffp-contract=fast", *_MATH)

#: headers that the run time includes, and those that generated code does
HEADERS = (
    "include/fptt.h",
    "include/fptt_flash.h",
    "include/fptt_learner.h",
    "src/fptt_kernels.h",
    "src/fptt_math.h",
    "src/kernels.h",
    "src/random.h",
    "src/target.h",
    "src/vector.h",
)


@dataclass(frozen=True)
class KernelFile:
    """A source file of the run time.

    Attributes:
        path: below `runtime/`.
        flags: for the compiler, besides CFLAGS and the target's.
        kernels: what it defines, without the prefix `fptt_`; empty for files that always belong.
    """

    path: str
    flags: tuple[str, ...]
    kernels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name in an exported folder."""
        return self.path.rsplit("/", 1)[-1]


_PRODUCTS = ("product", "product_transposed", "gradient", "gradient_update")
_CELLS = (
    "lstm_forward",
    "lstm_backward",
    "gru_forward",
    "gru_backward",
    "rnn_forward",
    "rnn_backward",
)
_ELEMENTWISE = ("relu", "relu_gradient", "dropout", "embedding", "embedding_gradient", "add")
_LOSSES = ("cross_entropy", "auxiliary_cross_entropy", "auxiliary_learn", "squared_error")
_UPDATES = ("update", "direction", "square_sum", "largest_float", "largest_bf16", "apply")

SCALAR = (
    KernelFile("src/products.c", _FUSED, _PRODUCTS),
    KernelFile("src/cells.c", _EXACT, _CELLS),
    KernelFile("src/elementwise.c", _EXACT, _ELEMENTWISE),
    KernelFile("src/losses.c", _EXACT, _LOSSES),
    KernelFile("src/updates.c", _EXACT, _UPDATES),
    KernelFile("src/learner.c", _EXACT),
    KernelFile("src/flash.c", ()),
    KernelFile("src/status.c", ()),
)


def kernel_files(target: Target, code: str) -> list[KernelFile]:
    """The files that generated code needs.

    Args:
        target: where it runs.
        code: the text of model.c.
    """
    del target  # one set of kernels serves all for now
    called = set(re.findall(r"\bfptt_(\w+)\(", code))
    files = [f for f in SCALAR if not f.kernels or called & set(f.kernels) or "apply" in f.kernels]
    known = {kernel for f in SCALAR for kernel in f.kernels}
    missing = called & set(_PRODUCTS + _CELLS + _ELEMENTWISE + _LOSSES + _UPDATES) - known
    if missing:
        raise FpttError(f"no file of the run time defines {', '.join(sorted(missing))}")
    return files


def definitions(dtype: str, activation_dtype: str) -> Sequence[str]:
    """Flags that choose the number types and the width of vectors."""
    flags = ["-DFPTT_LANES=1", "-DFPTT_REGISTERS=32"]
    if activation_dtype == "bfloat16":
        flags.append("-DFPTT_ACTIVATION_BF16=1")
    if dtype == "bfloat16":
        flags.append("-DFPTT_PARAMETER_BF16=1")
    return flags
