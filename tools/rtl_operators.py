"""Prints what the FPTT unit's operators take on ECP5 and UltraScale+, each by itself.

    python tools/rtl_operators.py                    # the default pipelines
    python tools/rtl_operators.py --stages 1-8       # others
    python tools/rtl_operators.py --only FloatAdder --dtype float32 --subnormals keep

Each operator stands between registers for its inputs and its own output registers, which are
counted too. ECP5: LFE5U-25F, speed grade 6 (the slowest), Yosys and nextpnr of YoWASP, one seed.
A line takes half a minute to two minutes; nextpnr's logs go to --folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fptt.errors import InputError
from fptt.rtl.adder import FloatAdder
from fptt.rtl.formats import FORMATS, by_name
from fptt.rtl.hdl import Component, In, Module, Out, Signal
from fptt.rtl.multiplier import FloatMultiplier
from fptt.rtl.synthesis import Ecp5, synthesise, verilog


class Registered(Component):
    """An operator with registers at its inputs, so that paths end at registers."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.inputs = [name for name in ("a", "b", "subtract") if hasattr(inner, name)]
        members = {name: In(len(getattr(inner, name))) for name in self.inputs}
        super().__init__({**members, "enable": In(1), "result": Out(inner.format.width)})

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        m = Module()
        m.submodules.inner = self.inner
        for name in self.inputs:
            held = Signal(len(getattr(self, name)), name=f"{name}_held", reset_less=True)
            with m.If(self.enable):
                m.d.sync += held.eq(getattr(self, name))
            m.d.comb += getattr(self.inner, name).eq(held)
        m.d.comb += [self.inner.enable.eq(self.enable), self.result.eq(self.inner.result)]
        return m


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=["FloatAdder", "FloatMultiplier"])
    parser.add_argument("--dtype", choices=list(FORMATS))
    parser.add_argument("--subnormals", choices=["flush", "keep"])
    parser.add_argument("--stages", default="", help="such as 4 or 1-8; default: the default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    first, _, last = given.stages.partition("-")
    stages = range(int(first), int(last or first) + 1) if first else [None]
    folder = given.folder or Path(tempfile.mkdtemp())
    part = Ecp5("25k", seed=given.seed)
    print(f"{part}; UltraScale+ with Yosys only")
    head = "operator         dtype     subnormals  latency   LUT4    FF  MULT18X18D    MHz"
    print(f"{head}  |   LUT    FF  DSP48E2")
    for kind in (FloatAdder, FloatMultiplier):
        for dtype in FORMATS:
            for subnormals in ("flush", "keep"):
                wanted = {"only": kind.__name__, "dtype": dtype, "subnormals": subnormals}
                if any(getattr(given, k) not in (None, v) for k, v in wanted.items()):
                    continue
                for number in stages:
                    try:
                        inner = kind(by_name(dtype), number, subnormals)
                    except InputError:
                        continue
                    name = f"{kind.__name__}_{dtype}_{subnormals}_{inner.latency}"
                    place = folder / name
                    place.mkdir(parents=True, exist_ok=True)
                    source = place / f"{name}.v"
                    source.write_text(verilog(Registered(inner), name))
                    e = synthesise(source, name, "ecp5", place / "ecp5", ecp5=part)
                    x = synthesise(source, name, "xcup", place / "xcup")
                    print(
                        f"{kind.__name__:15}  {dtype:8}  {subnormals:10}  {inner.latency:7}  "
                        f"{e.lut:5} {e.ff:5}  {e.dsp:10}  {e.mhz:5.1f}  | "
                        f"{x.lut:5} {x.ff:5}  {x.dsp:7}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
