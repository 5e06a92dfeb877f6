"""gemmini_params.h: what C code must know of a Gemmini array.

The derived numbers, with the names of Gemmini's generator (GemminiConfigs.scala, generateHeader):

    DIM               = mesh
    BANK_ROWS         = floor(scratchpad_bits / (banks * DIM * input_bits))
    ACC_ROWS          = banks * floor(accumulator_bits / (banks * DIM * accumulator_bits_each))
    MAX_BLOCK_LEN     = MAX_BYTES / (DIM * input_bytes), 1 where a row is longer than MAX_BYTES
    MAX_BLOCK_LEN_ACC = the same with the accumulator's type
"""

from __future__ import annotations

from dataclasses import dataclass

from fptt.errors import InputError
from fptt.soc.chip import Chip

#: of one transfer of Gemmini's DMA (dma_maxbytes)
MAX_BYTES = 64


@dataclass(frozen=True)
class NumberType:
    """A type of numbers as Gemmini's header describes it.

    Attributes:
        bits: of a number.
        c_type: in C; bfloat16 has none and is kept in its bits.
        significand: bits with the hidden one; 0 for integers.
        largest: the largest finite number, as a C literal.
    """

    bits: int
    c_type: str
    significand: int
    largest: str

    @property
    def bytes(self) -> int:
        return self.bits // 8


#: of both floating-point types
EXPONENT_BITS = 8
TYPES = {
    "bf16": NumberType(16, "uint16_t", 8, "0x1.fep+127f"),
    "fp32": NumberType(32, "float", 24, "0x1.fffffep+127f"),
}


@dataclass(frozen=True)
class Derived:
    """The header's derived numbers; attributes are its macros in lower case."""

    dim: int
    bank_num: int
    bank_rows: int
    acc_rows: int
    max_block_len: int
    max_block_len_acc: int


def derived(
    dim: int,
    scratchpad_kib: int,
    scratchpad_banks: int,
    input_bits: int,
    accumulator_kib: int,
    accumulator_banks: int,
    accumulator_bits: int,
) -> Derived:
    """The numbers of the module's docstring.

    Args:
        dim: PEs along a side.
        scratchpad_kib, scratchpad_banks, input_bits: memory, banks and bits of an operand.
        accumulator_kib, accumulator_banks, accumulator_bits: of a result.

    Raises:
        InputError: an array that Gemmini refuses; the message says what it requires.

    Example:
        Gemmini's default for 8-bit integers, as in its public header:

        >>> derived(16, 256, 4, 8, 64, 2, 32)  # doctest: +NORMALIZE_WHITESPACE
        Derived(dim=16, bank_num=4, bank_rows=4096, acc_rows=1024, max_block_len=4,
                max_block_len_acc=1)
    """
    if dim < 2 or dim & (dim - 1):
        raise InputError(
            f"mesh is {dim}; expected a power of two of at least 2 for a Gemmini array"
        )
    rows = {}
    for what, kib, banks, bits in (
        ("scratchpad", scratchpad_kib, scratchpad_banks, input_bits),
        ("accumulator", accumulator_kib, accumulator_banks, accumulator_bits),
    ):
        rows[what], rest = divmod(kib * 8192, banks * dim * bits)
        if rest or rows[what] == 0 or rows[what] % dim:
            raise InputError(
                f"{what}_kib is {kib} in {banks} banks; expected a multiple of "
                f"{banks * dim * dim * bits / 8192:g} KiB: banks of whole rows of {dim * bits} "
                f"bits, their number a multiple of {dim}"
            )
    if rows["scratchpad"] & (rows["scratchpad"] - 1):
        raise InputError(
            f"scratchpad_kib is {scratchpad_kib}: banks of {rows['scratchpad']} rows; expected a "
            "power of two of rows, which Gemmini's addresses require"
        )
    # the two last tiles of the scratchpad are kept for addresses of their own
    tiles = scratchpad_banks * rows["scratchpad"] // dim - 2
    if tiles < accumulator_banks * rows["accumulator"] // dim:
        raise InputError(
            f"accumulator_kib is {accumulator_kib} with a scratchpad of {scratchpad_kib} KiB; "
            "expected at least two tiles fewer in the accumulator than in the scratchpad"
        )
    return Derived(
        dim=dim,
        bank_num=scratchpad_banks,
        bank_rows=rows["scratchpad"],
        acc_rows=accumulator_banks * rows["accumulator"],
        max_block_len=max(1, MAX_BYTES // (dim * input_bits // 8)),
        max_block_len_acc=max(1, MAX_BYTES // (dim * accumulator_bits // 8)),
    )


def of(chip: Chip) -> Derived:
    """The derived numbers of a chip's array.

    Raises:
        InputError: it has no array, or one that Gemmini refuses.

    Example:
        >>> from fptt.soc.chip import load_chip
        >>> of(load_chip("8x8-10")).bank_rows
        2048
    """
    if chip.mesh == 0:
        raise InputError(f"chip {chip.name} has no Gemmini array; expected a mesh of at least 2")
    try:
        return derived(
            chip.mesh,
            chip.scratchpad_kib,
            chip.scratchpad_banks,
            TYPES[chip.data_type].bits,
            chip.accumulator_kib,
            chip.accumulator_banks,
            TYPES[chip.accumulator_type].bits,
        )
    except InputError as error:
        raise InputError(f"chip {chip.name}, {chip.design}: {error}") from None


def header(chip: Chip) -> str:
    """The text of gemmini_params.h.

    Raises:
        InputError: as `of`.
    """
    own = of(chip)
    element, accumulator = TYPES[chip.data_type], TYPES[chip.accumulator_type]
    low = element.c_type != "float"
    limit = "float" if low else "elem_t"
    lines = [
        f"/* A Gemmini array of {chip.mesh_name} PEs, {chip.data_type}, for software that uses it.",
        " * NOT ELABORATED: written by fptt from formulas. Gemmini writes this file when the",
        " * configuration is elaborated: compare the two before you use it. */",
        "#ifndef GEMMINI_PARAMS_H",
        "#define GEMMINI_PARAMS_H",
        "",
        "#include <limits.h>",
        "#include <stdint.h>",
        "",
        "#define XCUSTOM_ACC 3",
        f"#define DIM {own.dim}",
        "#define ADDR_LEN 32",
        f"#define BANK_NUM {own.bank_num}",
        f"#define BANK_ROWS {own.bank_rows}",
        f"#define ACC_ROWS {own.acc_rows}",
        f"#define MAX_BYTES {MAX_BYTES}",
        f"#define MAX_BLOCK_LEN {own.max_block_len}",
        f"#define MAX_BLOCK_LEN_ACC {own.max_block_len_acc}",
        "",
        f"typedef {element.c_type} elem_t;",
        *(["#define ELEM_T_IS_LOWPREC_FLOAT"] if low else []),
        f"static const {limit} elem_t_max = {element.largest};",
        f"static const {limit} elem_t_min = -{element.largest};",
        f"typedef {accumulator.c_type} acc_t;",
        "typedef double full_t;",
        "",
        "#define ELEM_T_IS_FLOAT",
        f"#define ELEM_T_EXP_BITS {EXPONENT_BITS}",
        f"#define ELEM_T_SIG_BITS {element.significand}",
        f"#define ACC_T_EXP_BITS {EXPONENT_BITS}",
        f"#define ACC_T_SIG_BITS {accumulator.significand}",
        f"typedef uint{element.bits}_t elem_t_bits;",
        f"typedef uint{accumulator.bits}_t acc_t_bits;",
        "",
        "/* scales are float32 in both of Gemmini's floating-point configurations */",
        "#define HAS_MVIN_SCALE",
        "typedef float scale_t;",
        "typedef uint32_t scale_t_bits;",
        "#define HAS_MVIN_ACC_SCALE",
        "typedef float scale_acc_t;",
        "typedef uint32_t scale_acc_t_bits;",
        "typedef float acc_scale_t;",
        "typedef uint32_t acc_scale_t_bits;",
        "#define ACC_SCALE_T_IS_FLOAT",
        "#define ACC_SCALE_EXP_BITS 8",
        "#define ACC_SCALE_SIG_BITS 24",
        "#define MVIN_SCALE_IDENTITY 1.0",
        "#define ACC_SCALE_IDENTITY 1.0",
        "#define MVIN_SCALE(x, scale) ((x) * (scale))",
        "#define MVIN_SCALE_ACC(x, scale) ((x) * (scale))",
        "#define ACC_SCALE(x, scale) ((x) * (scale))",
        "",
        "#define row_align(blocks) __attribute__((aligned((blocks) * DIM * sizeof(elem_t))))",
        "#define row_align_acc(blocks) __attribute__((aligned((blocks) * DIM * sizeof(acc_t))))",
        "",
        "#ifdef __cplusplus",
        "#define SAME_TYPE(x) decltype(x)",
        "#else",
        "#define SAME_TYPE(x) __typeof__(x)",
        "#endif",
        "",
        _ROUNDING,
        "#define ACC_READ_SMALL_WIDTH",
        "#define ACC_READ_FULL_WIDTH",
        *(["#define HAS_FIRST_LAYER_OPTIMIZATIONS"] if chip.convolution_paths else []),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


_ROUNDING = """\
/* to the nearest, halves to even; for |x| < 2^62 */
static inline double gemmini_nearest_even(double x) {
  long long down = (long long)x;
  if ((double)down > x) down--;
  const double rest = x - (double)down;
  return (double)(down + (rest > 0.5 || (rest == 0.5 && down % 2 != 0)));
}
static inline int64_t gemmini_shift_even(int64_t x, int shift) {
  if (shift <= 0) return x * ((int64_t)1 << -shift);
  return (x + (((int64_t)1 << (shift - 1)) - 1) + ((x >> shift) & 1)) >> shift;
}
#define ROUND_NEAR_EVEN(x) ((SAME_TYPE(x))gemmini_nearest_even(x))
#define ROUNDING_RIGHT_SHIFT(x, shift) ((x) / (1 << (shift)))
#define ROUNDING_RIGHT_SHIFT_BITS(x, shift) gemmini_shift_even(x, shift)
"""
