"""Find the coefficients of runtime/src/fptt_math.h and fptt_fused.h.

    python tools/fit_math.py            print them as they stand in the headers
    python tools/fit_math.py --check    compare with the headers; exit status 1 if any differs

Remez exchange in float64 on a dense grid. The coefficients become float32 one after the other, the
lowest power first; each time the rest is fitted again, and takes up what the rounding left over.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SOURCES = Path(__file__).parents[1] / "runtime" / "src"
HEADERS = [SOURCES / "fptt_math.h", SOURCES / "fptt_fused.h"]
POINTS = 20001
TANH_SCALE = 27 / 32  # why: see fptt_tanh


def minimax(columns: Array, target: Array) -> Array:
    """The c for which max |columns @ c - target| over the grid points is smallest.

    The error of the best c reaches its maximum at n + 1 points, with alternating sign. Exchange:
    solve for equal errors at n + 1 points, go to the extrema of that error, and again.
    """
    n = columns.shape[1]
    signs = (-1.0) ** np.arange(n + 1)
    places = np.arange(n + 1) / n
    at = np.rint((0.5 - 0.5 * np.cos(np.pi * places)) * (len(target) - 1)).astype(int)
    for _ in range(50):
        solved = np.linalg.solve(np.column_stack([columns[at], signs]), target[at])
        error = columns @ solved[:n] - target
        changes = np.flatnonzero(np.diff(np.sign(error)) != 0) + 1
        runs = np.split(np.arange(len(error)), changes)
        extrema = [run[np.abs(error[run]).argmax()] for run in runs]
        while len(extrema) > n + 1:
            extrema.pop(0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else -1)
        before, at = at, np.array(extrema)
        if len(at) < n + 1:
            raise RuntimeError(f"{len(at)} extrema instead of {n + 1}")
        if np.array_equal(before, at):
            return solved[:n]
    raise RuntimeError("no convergence in 50 exchanges")


def fit(function: Callable[[Array], Array], end: float, terms: int) -> tuple[list[float], float]:
    """Float32 coefficients of function(r) = c1 r^2 + c2 r^4 + ... on (0, end], and their error."""
    r = end * np.linspace(0.01, 1.0, POINTS)
    columns = np.stack([r ** (2 * k) for k in range(1, terms + 1)], axis=1)
    rest = function(r)
    coefficients = []
    for k in range(terms):
        lowest = float(np.float32(minimax(columns[:, k:], rest)[0]))
        coefficients.append(lowest)
        rest = rest - lowest * columns[:, k]
    return coefficients, float(np.abs(rest).max())


def constants() -> dict[str, float]:
    """Every fitted or derived constant of the headers, by name."""
    ln2 = float(np.log(2.0))
    # half a permille wider: the rounding of x / ln 2 is not exact
    coth, coth_error = fit(lambda r: r / np.tanh(r) - 1, ln2 / 4 * 1.0005, 2)
    atanh, atanh_error = fit(lambda s: 2 * np.arctanh(s) / s - 2, (2**0.5 - 1) ** 2, 3)
    print(f"r coth(r): error {coth_error:.2g}; 2 atanh(s)/s: error {atanh_error:.2g}")
    ln2_hi = np.rint(ln2 * 2**15) / 2**15  # 15 bits: times an integer below 2^9 it is exact
    square_a = float(np.float32(-2 * coth[0] / coth[1]))
    return {
        "FPTT_COTH_A": coth[0],
        "FPTT_COTH_B": -coth[1],
        "FPTT_TANH_SCALE": TANH_SCALE,
        "FPTT_TANH_A": coth[0] / TANH_SCALE,
        "FPTT_TANH_B": -coth[1] / TANH_SCALE**3,
        "FPTT_ATANH_A": atanh[0],
        "FPTT_ATANH_B": atanh[1],
        "FPTT_ATANH_C": atanh[2],
        "FPTT_LOG2_E": 1 / ln2,
        "FPTT_LN2": ln2,
        "FPTT_LN2_HI": ln2_hi,
        "FPTT_LN2_LO": ln2 - ln2_hi,
        "FPTT_SQUARE_A": square_a,
        "FPTT_SQUARE_B": square_a**2 - 16 / coth[1],
        "FPTT_SQUARE_Q": -8 / coth[1],
        "FPTT_LN2_OVER": float(np.float32(ln2)) - ln2,
    }


def literal(value: float) -> str:
    """The nearest float32 as a C literal."""
    mantissa, exponent = float(np.float32(value)).hex().split("p")
    return mantissa.rstrip("0") + "p" + exponent + "f"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the headers")
    check = parser.parse_args().check
    text = "".join(header.read_text() for header in HEADERS)
    header = dict(re.findall(r"^#define (FPTT_\w+) (\S+f)\b", text, re.MULTILINE))
    wrong = 0
    for name, value in constants().items():
        found = literal(value)
        if not check:
            print(f"#define {name} {found}")
        elif header.get(name) != found:
            wrong += 1
            print(f"{name} is {header.get(name)} in the headers; fitted {found}")
    if check and not wrong:
        print("the headers agree")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
