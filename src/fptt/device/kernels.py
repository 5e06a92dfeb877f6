"""Which files of the run time a model needs on a target, and how each is compiled.

The flags that decide over floating-point results stand here, beside the files that they are for, as
they stand in meson.build for the host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.device.targets import Target
from fptt.errors import FpttError

if TYPE_CHECKING:
    from fptt.program.program import Program

#: what every file of a firmware is compiled with; the flags of floating point belong to the files
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
    "src/fptt_fused.h",
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
        headers: of its own.
        compiler: another one than the target's, where that knows too little of the processor.
        machine: the flags that tell that one what to compile for.
    """

    path: str
    flags: tuple[str, ...]
    kernels: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    compiler: str = ""
    machine: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name in an exported folder: "src/mve/cells.c" is mve_cells.c."""
        return "_".join(self.path.split("/")[1:])


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

#: the names of all kernels
NAMES = frozenset((*_PRODUCTS, *_CELLS, *_ELEMENTWISE, *_LOSSES, *_UPDATES))

_ALWAYS = (
    KernelFile("src/learner.c", _EXACT),
    KernelFile("src/flash.c", ()),
    KernelFile("src/status.c", ()),
)
#: any processor: rounds as the host does
PORTABLE = (
    KernelFile("src/products.c", _FUSED, _PRODUCTS),
    KernelFile("src/cells.c", _EXACT, _CELLS),
    KernelFile("src/elementwise.c", _EXACT, _ELEMENTWISE),
    KernelFile("src/losses.c", _EXACT, _LOSSES),
    KernelFile("src/updates.c", _EXACT, _UPDATES),
    *_ALWAYS,
)
_FUSED_MATH = "-DFPTT_FUSED=1"
#: otherwise gcc 12 keeps sums on the stack
_TILES = ("-fno-schedule-insns", "-fno-ivopts")


def _scalar(cells: tuple[str, ...], updates: tuple[str, ...]) -> tuple[KernelFile, ...]:
    """For processors with fused multiply-add that compute one number at a time.

    Args:
        cells, updates: flags with which gcc 12 makes the fewest instructions of these files.
    """
    return (
        KernelFile(
            "src/products_scalar.c",
            (*_FUSED, _FUSED_MATH, *_TILES),
            _PRODUCTS,
            ("src/products_cortex_m4.h",),
        ),
        KernelFile("src/cells_fused.c", (*_EXACT, _FUSED_MATH, *cells), _CELLS),
        KernelFile("src/elementwise.c", (*_EXACT, _FUSED_MATH), _ELEMENTWISE),
        KernelFile("src/losses.c", (*_EXACT, _FUSED_MATH), _LOSSES),
        KernelFile("src/updates.c", (*_EXACT, _FUSED_MATH, *updates), _UPDATES),
        *_ALWAYS,
    )


_RISCV = _scalar(
    ("-fira-loop-pressure", "-frename-registers"), ("-fira-loop-pressure", "-frename-registers")
)
_CORTEX_M4 = _scalar(
    ("-fno-schedule-insns", "-fira-loop-pressure", "-frename-registers"),
    ("-fno-schedule-insns", "-frename-registers", "-fno-ivopts"),
)
#: the vectors of Armv8.1-M. The compiler must not make vectors of its own of the other files: its
#: comparisons take a NaN for less
_NO_VECTORS = "-mcpu=cortex-m55+nomve"
_MVE = ("src/mve/apply.h",)
_HELIUM = (
    KernelFile("src/mve/products.c", _FUSED, _PRODUCTS, _MVE),
    KernelFile("src/mve/cells.c", _EXACT, _CELLS, _MVE),
    KernelFile("src/mve/updates.c", _EXACT, ("apply",), _MVE),
    KernelFile("src/updates.c", (*_EXACT, "-DFPTT_APPLY_ELSEWHERE=1", _NO_VECTORS), _UPDATES),
    KernelFile("src/elementwise.c", (*_EXACT, _NO_VECTORS), _ELEMENTWISE),
    KernelFile("src/losses.c", (*_EXACT, _NO_VECTORS), _LOSSES),
    KernelFile("src/learner.c", (*_EXACT, _NO_VECTORS)),
    *_ALWAYS[1:],
)


#: vectors of RISC-V. gcc 12 has no intrinsics for them; the last two flags keep clang from spilling
#: vectors and from adding up addresses
_CLANG = "clang-19"
_RVV_MACHINE = (
    "--target=riscv64-unknown-elf",
    "-march=rv64gcv",
    "-mabi=lp64d",
    "-mcmodel=medany",
    "-isystem",
    "/usr/lib/picolibc/riscv64-unknown-elf/include",
)
_RVV_FLAGS = (
    "-O3",
    *_EXACT,
    "-fno-vectorize",
    "-fno-slp-vectorize",
    "-mllvm",
    "-enable-misched=false",
    "-mllvm",
    "-disable-lsr",
)
_RVV_HEADERS = ("src/rvv/rvv.h", "src/rvv/functions.h")


def _rvv(name: str, kernels: tuple[str, ...]) -> KernelFile:
    return KernelFile(f"src/rvv/{name}.c", _RVV_FLAGS, kernels, _RVV_HEADERS, _CLANG, _RVV_MACHINE)


_RISCV_VECTOR = (
    _rvv("products", _PRODUCTS),
    _rvv("cells", _CELLS),
    _rvv("updates", _UPDATES),
    KernelFile("src/elementwise.c", (*_EXACT, _FUSED_MATH), _ELEMENTWISE),
    KernelFile("src/losses.c", (*_EXACT, _FUSED_MATH), _LOSSES),
    *_ALWAYS,
)


#: what the kernels, the learner and a save take of the stack at most: the deepest is the gradient
#: that is applied at once, which holds a few lines of it. Measured under emulation over the
#: networks of the tests (posix: on x86-64), and rounded up
_STACK = {"rv64": 3072, "rv32": 3072, "cortex-m4": 3072, "rv64gcv": 5120, "cortex-m55": 5120}
#: and what the longest routine takes for each of its operations, by the size of a pointer: the
#: compiler keeps room for what some of them hand over
_STACK_OF_OPERATION = {8: 8, 4: 4}


def stack_bytes(program: Program, target: Target) -> int:
    """The bound of the stack that a model takes, with all that it calls."""
    longest = max(sum(1 for _ in routine.ops()) for routine in program.routines.values())
    more = longest * _STACK_OF_OPERATION[target.pointer_bytes]
    return -(-(_STACK.get(target.name, 8192) + more) // 64) * 64


def kernels_for(target: str, dtype: str, activation_dtype: str) -> tuple[KernelFile, ...]:
    """All kernels for a target and a pair of number types."""
    if target in ("rv64", "rv32"):
        return _RISCV
    if target == "rv64gcv":
        return _RISCV_VECTOR
    if target == "cortex-m4":
        return _CORTEX_M4
    if target == "cortex-m55":
        # the vectors are for float32
        return _HELIUM if dtype == activation_dtype == "float32" else _CORTEX_M4
    return PORTABLE


def kernel_files(target: Target, code: str, dtype: str, activation_dtype: str) -> list[KernelFile]:
    """The files that generated code needs.

    Args:
        target: where it runs.
        code: the text of model.c.
        dtype, activation_dtype: of the program.
    """
    all_files = kernels_for(target.name, dtype, activation_dtype)
    called = set(re.findall(r"\bfptt_(\w+)\(", code)) | {"apply"}
    files = [f for f in all_files if not f.kernels or called & set(f.kernels)]
    known = {kernel for f in all_files for kernel in f.kernels}
    missing = called & NAMES - known
    if missing:
        raise FpttError(f"no file of the run time defines {', '.join(sorted(missing))}")
    return files


def definitions(dtype: str, activation_dtype: str, *, assembly: bool = True) -> Sequence[str]:
    """Flags that choose the number types, the width of vectors, and C for inline assembly."""
    flags = ["-DFPTT_LANES=1", "-DFPTT_REGISTERS=32"]
    if activation_dtype == "bfloat16":
        flags.append("-DFPTT_ACTIVATION_BF16=1")
    if dtype == "bfloat16":
        flags.append("-DFPTT_PARAMETER_BF16=1")
    if not assembly:
        flags.append("-DFPTT_ASSEMBLY=0")
    return flags
