"""Instructions and 128-bit beats of the RISC-V vector kernels, every function, for one part.

    python tools/rvv_beats.py --batch 1,4
    python tools/rvv_beats.py --hidden 32 --batch 4 --steps 8

Needs Spike, clang 19 and the RISC-V compiler (scripts/cross_tools.sh). What a beat is stands in
src/fptt/bench/beats.py; `fptt bench --device --target rv64gcv` prints the same beside the rest.
"""

from __future__ import annotations

import argparse

from fptt.bench.device import BUILDS, beat_rows, cases


def main() -> None:
    """Print one line for each function."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", default="1,4")
    parser.add_argument("--steps", type=int, default=28, help="of the part")
    given = parser.parse_args()
    batches = [int(batch) for batch in given.batch.split(",")]
    for case in cases((given.hidden,), batches, (1,), given.steps):
        print(f"{case.name}, T={case.steps}")
        print(f"{'':24} {'instructions':>12} {'of vectors':>12} {'beats':>12}   per multiply-add")
        for row in beat_rows(case, BUILDS["rv64gcv"]):
            print(
                f"{row['function']:24} {row['instructions']:12,} "
                f"{row['vector_instructions']:12,} {row['beats']:12,} "
                f"{row['instructions_per_multiply_add']:9.4f} {row['beats_per_multiply_add']:9.4f}"
            )


if __name__ == "__main__":
    main()
