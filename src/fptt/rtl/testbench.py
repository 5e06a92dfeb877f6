"""A Verilog testbench that checks the generated unit by itself, through its AXI4-Lite port.

It needs Verilog-2005 and `$fatal`, nothing of Python or Amaranth: `vvp` ends with code 1 where a
word differs. Two files say what it does: what to write where before the run, and what must be
found where after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.rtl.parameters import UnitParameters
from fptt.rtl.registers import Window, register_map
from fptt.rtl.unit_model import Constants, update

#: names in the folder
TESTBENCH, WRITES, EXPECTED = "fptt_unit_tb.v", "writes.hex", "expected.hex"
#: the published model of the bus: address and data of one transfer
_WORD = "{:08x}{:08x}"


@dataclass(frozen=True)
class Vectors:
    """One run of the unit as transfers of its bus.

    Attributes:
        writes: address and data, in order, all before the start.
        expected: address and data that a read must give after the run.
        cycles: that the run must take.
        count: parameters.
    """

    writes: tuple[tuple[int, int], ...]
    expected: tuple[tuple[int, int], ...]
    cycles: int
    count: int

    @property
    def files(self) -> dict[str, str]:
        """What `$readmemh` reads: one transfer a line, address and data, 8 digits each."""
        lists = {WRITES: self.writes, EXPECTED: self.expected}
        return {
            name: "".join(_WORD.format(*transfer) + "\n" for transfer in transfers)
            for name, transfers in lists.items()
        }


def make_vectors(
    parameters: UnitParameters,
    numbers: Mapping[str, NDArray[Any]],
    *,
    lr: float,
    alpha: float,
    regularise: bool | None = None,
) -> Vectors:
    """The transfers of one update; what must come out is said by `unit_model.update`.

    Args:
        parameters: how the unit is built.
        numbers: grad, param, lam, rmean as bits, [count] each; the last two only with R(t).
        lr, alpha: of the update.
        regularise: the switch; by default as the unit is built.

    Raises:
        InputError: more parameters than the banks hold, or none.

    Example:
        >>> unit = UnitParameters(lanes=2, regularise=False)
        >>> one = np.full(3, 0x3F800000, np.uint32)
        >>> vectors = make_vectors(unit, {"grad": one, "param": one}, lr=0.5, alpha=0.1)
        >>> [hex(data) for _, data in vectors.expected]  # 0.5, and gradients that are cleared
        ['0x0', '0x3f000000', '0x0', '0x3f000000', '0x0', '0x3f000000']
    """
    from fptt.rtl.unit import cycles

    on = parameters.regularise if regularise is None else regularise
    count = len(numbers["param"])
    if not 0 < count <= parameters.capacity:
        raise InputError(
            f"{count} parameters for a unit that holds {parameters.capacity}; give 1 to as many"
        )
    words = {name: np.asarray(numbers[name]) for name in parameters.inputs}
    zeros = np.zeros_like(words["param"])
    constants = Constants.of(parameters, lr, alpha)
    after = update(
        parameters,
        constants,
        *(words.get(name, zeros) for name in ("grad", "param", "lam", "rmean")),
        regularise=on,
    )
    found = {"grad": zeros, **dict(zip(("param", "lam", "rmean"), after, strict=True))}
    registers, window = register_map(parameters), Window(parameters)
    writes = [
        (registers[name.upper()].offset, value)
        for name, value in vars(constants).items()
        if name.upper() in registers
    ]
    writes.append((registers["COUNT"].offset, count))
    control = registers["CONTROL"]
    setting = control["clear_gradient"].mask
    if parameters.regularise and on:
        setting |= control["regularise"].mask
    writes.append((control.offset, setting))
    places = [(i, name) for i in range(count) for name in parameters.inputs]
    writes += [(window.address(i, name), int(words[name][i])) for i, name in places]
    expected = tuple((window.address(i, name), int(found[name][i])) for i, name in places)
    return Vectors(tuple(writes), expected, cycles(parameters, count), count)


def make_testbench(parameters: UnitParameters, vectors: Vectors, top: str = "fptt_unit") -> str:
    """The Verilog of the testbench; it reads `Vectors.files` from the folder in which it runs.

    Args:
        parameters: how the unit is built.
        vectors: what it runs.
        top: module of the unit.
    """
    registers, window = register_map(parameters), Window(parameters)
    control, status = registers["CONTROL"], registers["STATUS"]
    setting = next(data for address, data in reversed(vectors.writes) if address == control.offset)
    return _TEMPLATE.format(
        top=top,
        bits=window.address_bits,
        writes=len(vectors.writes),
        expected=len(vectors.expected),
        writes_file=WRITES,
        expected_file=EXPECTED,
        count=vectors.count,
        lanes=parameters.lanes,
        cycles=vectors.cycles,
        limit=4 * vectors.cycles + 1000,
        control=control.offset,
        start=setting | control["start"].mask,
        status=status.offset,
        busy=status["busy"].mask,
        done=status["done"].mask,
        cycles_at=registers["CYCLES"].offset,
        identity_at=registers["ID"].offset,
        identity=registers["ID"]["id"].reset,
    )


_TEMPLATE = """\
// Checks {top} with one update of a training run: {count} parameters in {lanes} lane(s).
//   iverilog -g2012 -o testbench {top}.v {top}_tb.v && vvp -n testbench
// prints PASS and ends with code 0, or FAIL and ends with code 1.
`timescale 1ns / 1ps

module {top}_tb;
  reg clk = 0, rst = 1;
  always #5 clk = ~clk;

  reg [{bits}-1:0] awaddr = 0, araddr = 0;
  reg awvalid = 0, wvalid = 0, bready = 0, arvalid = 0, rready = 0;
  reg [31:0] wdata = 0;
  wire awready, wready, bvalid, arready, rvalid, interrupt;
  wire [1:0] bresp, rresp;
  wire [31:0] rdata;

  {top} unit (
      .clk(clk), .rst(rst), .interrupt(interrupt),
      .s_axi_awaddr(awaddr), .s_axi_awprot(3'd0), .s_axi_awvalid(awvalid), .s_axi_awready(awready),
      .s_axi_wdata(wdata), .s_axi_wstrb(4'hf), .s_axi_wvalid(wvalid), .s_axi_wready(wready),
      .s_axi_bresp(bresp), .s_axi_bvalid(bvalid), .s_axi_bready(bready),
      .s_axi_araddr(araddr), .s_axi_arprot(3'd0), .s_axi_arvalid(arvalid), .s_axi_arready(arready),
      .s_axi_rdata(rdata), .s_axi_rresp(rresp), .s_axi_rvalid(rvalid), .s_axi_rready(rready));

  reg [63:0] writes [0:{writes}-1];
  reg [63:0] expected [0:{expected}-1];
  reg [31:0] got;
  integer i, checked, failed, waited, seed;

  task fail;
    begin
      $display("FAIL %0d of %0d words wrong", failed, checked);
      $fatal(1, "the unit and its vectors differ");
    end
  endtask

  // Nothing may hang: every wait is limited.
  task tick;
    begin
      @(posedge clk); #1;
      waited = waited + 1;
      if (waited > {limit}) begin
        $display("no answer within {limit} cycles");
        failed = failed + 1;
        fail;
      end
    end
  endtask

  // Address and data come in either order, and answers are taken early or late.
  task write(input [31:0] address, input [31:0] data);
    begin
      waited = 0;
      awaddr = address[{bits}-1:0];
      wdata = data;
      awvalid = 1;
      wvalid = $random(seed);
      while (awvalid || wvalid) begin : offer
        reg took_address, took_data;
        took_address = awvalid && awready;
        took_data = wvalid && wready;
        tick;
        if (took_address) begin
          awvalid = 0;
          if (!took_data && !wvalid) wvalid = 1;
        end
        if (took_data) wvalid = 0;
      end
      while ($random(seed) & 1) tick;
      bready = 1;
      while (!bvalid) tick;
      if (bresp !== 2'b00) begin
        $display("write to %h: answer %b", address, bresp);
        failed = failed + 1;
      end
      tick;
      bready = 0;
    end
  endtask

  task read(input [31:0] address);
    begin
      waited = 0;
      araddr = address[{bits}-1:0];
      arvalid = 1;
      while (!arready) tick;
      tick;
      arvalid = 0;
      while ($random(seed) & 1) tick;
      rready = 1;
      while (!rvalid) tick;
      got = rdata;
      if (rresp !== 2'b00) begin
        $display("read of %h: answer %b", address, rresp);
        failed = failed + 1;
      end
      tick;
      rready = 0;
    end
  endtask

  task check(input [31:0] address, input [31:0] data);
    begin
      read(address);
      checked = checked + 1;
      if (got !== data) begin
        failed = failed + 1;
        if (failed <= 10) $display("at %h: %h, expected %h", address, got, data);
      end
    end
  endtask

  initial begin
    seed = 1; checked = 0; failed = 0; waited = 0;
    for (i = 0; i < {writes}; i = i + 1) writes[i] = 64'hx;
    for (i = 0; i < {expected}; i = i + 1) expected[i] = 64'hx;
    $readmemh("{writes_file}", writes);
    $readmemh("{expected_file}", expected);
    for (i = 0; i < {writes}; i = i + 1)
      if (^writes[i] === 1'bx) failed = failed + 1;
    for (i = 0; i < {expected}; i = i + 1)
      if (^expected[i] === 1'bx) failed = failed + 1;
    if (failed) begin
      $display("{writes_file} or {expected_file} is missing or damaged");
      fail;
    end
    repeat (4) tick;
    rst = 0;
    tick;
    check({identity_at}, {identity});
    for (i = 0; i < {writes}; i = i + 1) write(writes[i][63:32], writes[i][31:0]);
    write({control}, {start});
    waited = 0;
    while (!interrupt) tick;
    check({status}, {done});
    check({cycles_at}, {cycles});
    for (i = 0; i < {expected}; i = i + 1) check(expected[i][63:32], expected[i][31:0]);
    if (failed) fail;
    $display("PASS %0d words, {count} parameters in {cycles} cycles", checked);
    $finish;
  end
endmodule
"""
