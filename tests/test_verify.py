"""Every rule of the verifier: a program that breaks it is refused, with the rule's name."""

import ast
import inspect
import re
from dataclasses import replace

import pytest

import fptt
from fptt.errors import FpttError
from fptt.program import verify as verify_module
from fptt.program.ir import Buffer, Loop, Op, Ref, Role
from fptt.program.verify import OP_RULES, PROGRAM_RULES, VerificationError, verify


def program_(layers=None, **options):
    net = fptt.Network(layers or [fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    return fptt.build(net, fptt.FPTT(parts=3), steps=7, batch=2, **options)


def change(program, routine, number, new):
    """The program with operation `number` of a routine (loops counted through) replaced.

    Args:
        new: a function from the old operation to the operations in its place.
    """
    count, body = 0, []

    def through(op):
        nonlocal count
        count += 1
        return new(op) if count - 1 == number else [op]

    for item in program.routines[routine].body:
        if isinstance(item, Loop):
            body.append(replace(item, body=tuple(o for op in item.body for o in through(op))))
        else:
            body.extend(through(item))
    assert count > number
    routines = dict(program.routines)
    routines[routine] = replace(program.routines[routine], body=tuple(body))
    return replace(program, routines=routines)


def one(**fields):
    return lambda op: [replace(op, **fields)]


def assert_broken(program, rule, where, expected, found):
    """verify raises, and says exactly this."""
    message = f"program rule '{rule}' is broken in {where}: expected {expected}, found {found}"
    with pytest.raises(VerificationError, match=f"^{re.escape(message)}$") as caught:
        verify(program)
    assert caught.value.rule == rule
    assert isinstance(caught.value, FpttError) and caught.value.exit_code == 1


AFFINE = "loss: affine(0.h[last], 1.weight, 1.bias, none) -> 1.y"


def test_a_sound_program_passes_and_so_does_its_copy():
    program = program_()
    verify(program)
    verify(change(program, "loss", 0, lambda op: [op]))


def test_known_kind():
    assert_broken(
        change(program_(), "loss", 0, one(kind="affin")),
        "known kind",
        AFFINE.replace("affine", "affin"),
        "an entry of the op table",
        "affin",
    )


def test_operand_count():
    program = program_()
    broken = change(program, "loss", 0, lambda op: [replace(op, inputs=op.inputs[:3])])
    assert_broken(
        broken, "operand count", AFFINE.replace(", none", ""), "(4, 1) operands", "(3, 1)"
    )
    broken = change(program, "loss", 0, lambda op: [replace(op, outputs=op.outputs * 2)])
    assert_broken(broken, "operand count", AFFINE + ", 1.y", "(4, 1) operands", "(4, 2)")
    broken = change(program, "loss", 0, lambda op: [replace(op, inputs=(None, *op.inputs[1:]))])
    assert_broken(broken, "operand count", AFFINE.replace("0.h[last]", "none"), "operand x", "none")
    broken = change(program, "loss", 0, one(outputs=(None,)))
    assert_broken(broken, "operand count", AFFINE.removesuffix("1.y"), "operand y", "none")


def test_attributes():
    where = "reset: fill() -> 0.h[initial]"
    assert_broken(
        change(program_(), "reset", 0, one(attrs={})),
        "attributes",
        where,
        "attributes ['value']",
        "[]",
    )
    broken = change(program_(), "reset", 0, one(attrs={"value": 0.0, "rate": 1}))
    assert_broken(broken, "attributes", where, "attributes ['value']", "['rate', 'value']")


def test_declared():
    program = program_()
    stranger = Buffer("stranger", (4,), "float32", Role.SCRATCH, batch=2)
    broken = change(program, "loss", 0, one(outputs=(stranger.whole,)))
    assert_broken(
        broken, "declared", AFFINE.replace("1.y", "stranger"), "a buffer of the program", "stranger"
    )
    twin = replace(program.buffers["1.y"])
    broken = change(program, "loss", 0, one(outputs=(twin.whole,)))
    assert_broken(broken, "declared", AFFINE, "a buffer of the program", "1.y")


def test_ranges():
    program = program_()
    h, y = program.buffers["0.h"].last(), program.buffers["1.y"].whole
    weight, bias = program.buffers["1.weight"].whole, program.buffers["1.bias"].whole
    for wrong, limit in (
        (weight.rows(1, 5), 4),
        (weight.rows(2, 2), 4),
        (weight.rows(-1, 3), 4),
        (weight.cols(0, 6), 5),
    ):
        broken = change(program, "loss", 0, one(inputs=(h, wrong, bias, None)))
        assert_broken(
            broken,
            "ranges",
            AFFINE.replace("1.weight", str(wrong)),
            f"a range within 0:{limit}",
            str(wrong),
        )
    broken = change(program, "loss", 0, one(outputs=(y.cols(1, 5),)))
    assert_broken(
        broken,
        "ranges",
        AFFINE.replace("1.y", "1.y{cols 1:5}"),
        "a range within 0:4",
        "1.y{cols 1:5}",
    )


def test_steps():
    program = program_()
    h, x = program.buffers["0.h"], program.buffers["input"]
    weight, bias = program.buffers["1.weight"].whole, program.buffers["1.bias"].whole
    # outside loops no [t]; no [initial] where nothing is carried; no [whole] of a history
    for wrong in (h.at(0), x.initial(), h.whole):
        broken = change(program, "loss", 0, one(inputs=(wrong, weight, bias, None)))
        assert_broken(
            broken,
            "steps",
            AFFINE.replace("0.h[last]", str(wrong)),
            "a slot that exists at this point",
            str(wrong),
        )
    # in loops: only [t], not before the carried slot, not after t
    x_, weight, _, *rest = program.routines["forward"].body[0].body[0].inputs
    for wrong in (h.all(), h.last(), h.initial(), h.at(-2), h.at(1), x.at(-1)):
        broken = change(program, "forward", 0, one(inputs=(x_, weight, wrong, *rest)))
        where = (
            f"forward: affine_sum(input[t], 0.weight_ih, {wrong}, 0.weight_hh, 0.bias, none)"
            " -> 0.gates[t]"
        )
        assert_broken(broken, "steps", where, "a slot that exists at this point", str(wrong))
    # a buffer without steps has no last one
    broken = change(program, "loss", 0, one(outputs=(Ref(program.buffers["1.y"], "last"),)))
    assert_broken(
        broken,
        "steps",
        AFFINE.replace("1.y", "1.y[last]"),
        "a slot that exists at this point",
        "1.y[last]",
    )


def test_first_step():
    """Of a loop forwards the first step is the first turn; outside of loops there are no steps."""
    program = program_()
    later = [op.after_first for op, _ in program.routines["backward"].ops()]
    assert later.count(True) == 1
    where = "forward: affine_sum(input[t], 0.weight_ih, 0.h[t-1], 0.weight_hh, 0.bias, none)"
    for routine, site in (("forward", f"{where} -> 0.gates[t]"), ("loss", AFFINE)):
        assert_broken(
            change(program, routine, 0, one(after_first=True)),
            "first step",
            site,
            "every step outside of loops backwards",
            "after_first",
        )
    verify(change(program, "backward", later.index(True), one(after_first=False)))
    verify(change(program, "forward", 0, one(first_only=True)))
    backwards = "backward: lstm_backward(0.gates[t], 0.c[t-1], 0.c[t], 0.dh, 0.dc)"
    for number, site in ((1, "fill() -> 0.dc"), (2, f"{backwards} -> 0.gates[t], 0.dc")):
        assert_broken(
            change(program, "backward", number, one(first_only=True)),
            "first step",
            site if number == 2 else f"backward: {site}",
            "every step outside of loops forwards",
            "first_only",
        )


def test_shapes():
    program = program_()
    h, y = program.buffers["0.h"].last(), program.buffers["1.y"].whole
    weight, bias = program.buffers["1.weight"].whole, program.buffers["1.bias"].whole
    broken = change(program, "loss", 0, one(inputs=(h, weight.rows(0, 3), bias, None)))
    assert_broken(
        broken,
        "shapes",
        AFFINE.replace("1.weight", "1.weight{rows 0:3}"),
        "bias [o] with i=5, o=3",
        "[4]",
    )
    broken = change(program, "loss", 0, one(outputs=(y.cols(0, 3),)))
    assert_broken(
        broken, "shapes", AFFINE.replace("1.y", "1.y{cols 0:3}"), "y [o] with i=5, o=4", "[3]"
    )
    # rows where none belong, and none where they belong
    broken = change(program, "loss", 0, one(inputs=(h, h, bias, None)))
    assert_broken(
        broken, "shapes", AFFINE.replace("1.weight", "0.h[last]"), "w without rows", "0.h[last]"
    )
    broken = change(program, "loss", 0, one(inputs=(weight, weight, bias, None)))
    assert_broken(
        broken, "shapes", AFFINE.replace("0.h[last]", "1.weight"), "x with rows", "1.weight"
    )
    # operands of any, but of the same shape
    program = program_(keep_gradients=True)
    lam = program.buffers["lambda/0.bias"].whole
    broken = change(
        program, "update", 0, lambda op: [replace(op, inputs=(*op.inputs[:2], lam, *op.inputs[3:]))]
    )
    where = (
        "update: fptt_update(0.weight_ih, grad/0.weight_ih, lambda/0.bias, mean/0.weight_ih, "
        "lr, none, none, none, none, none) -> 0.weight_ih, lambda/0.weight_ih, mean/0.weight_ih"
    )
    assert_broken(broken, "shapes", where, "equal shapes [20, 3]", "lam [20]")


def test_same_rows():
    program = program_(loss="every_step")
    h, y = program.buffers["0.h"], program.buffers["1.y"]
    weight, bias = program.buffers["1.weight"].whole, program.buffers["1.bias"].whole
    broken = change(program, "loss", 0, one(inputs=(h.last(), weight, bias, None)))
    assert_broken(
        broken,
        "same rows",
        "loss: affine(0.h[last], 1.weight, 1.bias, none) -> 1.y[:]",
        "all operands [:] or none",
        "a mixture",
    )
    # rows that end at different steps have no one place to be written to
    broken = change(program, "loss", 0, one(outputs=(y.last(),)))
    assert_broken(
        broken,
        "steps",
        "loss: affine(0.h[:], 1.weight, 1.bias, none) -> 1.y[last]",
        "a slot that exists at this point",
        "1.y[last]",
    )


def retyped(program, name, dtype):
    """The program with one buffer of another dtype, everywhere."""
    old = program.buffers[name]
    new = replace(old, dtype=dtype)

    def refs(given):
        return tuple(replace(r, buffer=new) if r and r.buffer is old else r for r in given)

    def mended(item):
        if isinstance(item, Loop):
            return replace(item, body=tuple(map(mended, item.body)))
        return replace(item, inputs=refs(item.inputs), outputs=refs(item.outputs))

    return replace(
        program,
        buffers={**program.buffers, name: new},
        routines={
            name: replace(routine, body=tuple(map(mended, routine.body)))
            for name, routine in program.routines.items()
        },
    )


def test_number_types():
    program = program_()
    y = program.buffers["1.y"].whole
    fraction = Buffer("fraction", (), "float32", Role.TARGET, batch=2)
    floats = replace(program, buffers={**program.buffers, "fraction": fraction})
    broken = change(floats, "loss", 1, one(inputs=(y, fraction.whole)))
    assert_broken(
        broken,
        "number types",
        "loss: cross_entropy(1.y, fraction) -> 1.y, loss",
        "whole numbers",
        "fraction float32",
    )
    assert_broken(
        retyped(program, "1.y", "int32"),
        "number types",
        "readout: affine(0.h[t], 1.weight, 1.bias, none) -> 1.y",
        "floats",
        "1.y int32",
    )
    assert_broken(
        retyped(program, "loss", "float16"),
        "number types",
        "loss: cross_entropy(1.y, target) -> 1.y, loss",
        "floats",
        "loss float16",
    )
    assert_broken(
        retyped(program, "target", "float32"),
        "number types",
        "loss: cross_entropy(1.y, target) -> 1.y, loss",
        "whole numbers",
        "target float32",
    )


def test_aliasing():
    program = program_([fptt.LSTM(5, 5), fptt.Linear(5, 5)])
    h, gates = program.buffers["0.h"], program.buffers["0.gates"]
    weight = program.buffers["0.weight_ih"].whole
    # affine may not write where it reads x
    bias = program.buffers["0.bias"].whole
    onto = Op("affine", (gates.at(0).cols(0, 5), weight, bias, None), (gates.at(0),))
    broken = change(program, "forward", 0, lambda op: [onto, op])
    where = "forward: affine(0.gates[t]{cols 0:5}, 0.weight_ih, 0.bias, none) -> 0.gates[t]"
    assert_broken(broken, "aliasing", where, "y apart from x", "0.gates[t]")
    # but it may where the ranges, or the steps, are apart
    apart = Op(
        "affine",
        (gates.at(0).cols(0, 5), weight.rows(0, 5), bias.rows(0, 5), None),
        (gates.at(0).cols(5, 10),),
    )
    verify(change(program, "forward", 0, lambda op: [op, apart]))
    before = Op("affine", (h.at(-1), weight.rows(0, 5), bias.rows(0, 5), None), (h.at(0),))
    verify(change(program, "forward", 0, lambda op: [op, before]))
    overlapping = replace(apart, outputs=(gates.at(0).cols(4, 9),))
    where = (
        "forward: affine(0.gates[t]{cols 0:5}, 0.weight_ih{rows 0:5}, 0.bias{rows 0:5}, none)"
        " -> 0.gates[t]{cols 4:9}"
    )
    assert_broken(
        change(program, "forward", 0, lambda op: [op, overlapping]),
        "aliasing",
        where,
        "y apart from x",
        "0.gates[t]{cols 4:9}",
    )


def test_write_permission():
    program = program_([fptt.LSTM(3, 5), fptt.Linear(5, 4)], train=["0.*"])
    weight = program.buffers["1.weight"].whole
    theta = program.buffers["0.bias"].whole
    extra = Op("fill", (), (weight,), {"value": 0.0})
    broken = change(program, "update", 0, lambda op: [op, extra])
    assert_broken(
        broken,
        "write permission",
        "update: fill() -> 1.weight",
        "frozen left alone",
        "1.weight written",
    )
    extra = Op("fill", (), (program.buffers["input"].all(),), {"value": 0.0})
    broken = change(program, "loss", 0, lambda op: [op, extra])
    assert_broken(
        broken,
        "write permission",
        "loss: fill() -> input[:]",
        "input left alone",
        "input[:] written",
    )
    extra = Op("fill", (), (program.buffers["target"].whole,), {"value": 0.0})
    broken = change(program, "carry", 0, lambda op: [op, extra])
    assert_broken(
        broken, "write permission", "carry: fill() -> target", "target left alone", "target written"
    )
    extra = Op("fill", (), (theta,), {"value": 0.0})
    broken = change(program, "loss", 0, lambda op: [op, extra])
    assert_broken(
        broken,
        "write permission",
        "loss: fill() -> 0.bias",
        "parameter left alone",
        "0.bias written",
    )
    verify(change(program, "end_epoch", 0, lambda op: [op, extra]))


def test_initialised():
    program = program_()
    broken = change(program, "loss", 0, lambda op: [])
    assert_broken(
        broken,
        "initialised",
        "loss: cross_entropy(1.y, target) -> 1.y, loss",
        "a buffer that was written before",
        "1.y",
    )
    program = program_(keep_gradients=True)
    routines = {name: r for name, r in program.routines.items() if name != "backward"}
    gradient = "0.weight_ih"
    where = (
        f"update: fptt_update({gradient}, grad/{gradient}, lambda/{gradient}, "
        f"mean/{gradient}, lr, none, none, none, none, none) -> {gradient}, lambda/{gradient}, "
        f"mean/{gradient}"
    )
    assert_broken(
        replace(program, routines=routines),
        "initialised",
        where,
        "a buffer that was written before",
        f"grad/{gradient}",
    )


def test_kept():
    """The lowest of two frozen layers keeps one step; a loop back would find the last one there."""
    program = program_([fptt.LSTM(3, 5), fptt.LSTM(5, 5), fptt.LSTM(5, 5)], train=("2.*",))
    gates = program.buffers["0.gates"]
    assert gates.steps == 0
    kinds = [op.kind for op, _ in program.routines["backward"].ops()]
    product = kinds.index("product")
    weight = program.buffers["2.weight_hh"].whole
    broken = change(program, "backward", product, one(inputs=(gates.whole, weight, None)))
    assert_broken(
        broken,
        "kept",
        "backward: product(0.gates, 2.weight_hh, none) -> 2.dh",
        "a value of every step",
        "0.gates",
    )


def test_kept_after_the_loop():
    """Where gates are computed again, what the loop leaves is that of the first step alone."""
    program = program_([fptt.LSTM(3, 5)], recompute=True, train=("0.weight_hh",))
    gates, bias = program.buffers["0.gates"].whole, program.buffers["0.bias"].whole
    state = program.buffers["0.dh"].whole
    product = Op("affine", (state, program.buffers["0.weight_hh"].whole, bias, None), (gates,))
    broken = change(program, "update", 0, lambda op: [op, product])
    found = "update: affine(0.dh, 0.weight_hh, 0.bias, none) -> 0.gates"
    assert_broken(broken, "kept", found, "a value of every step", "0.dh")
    # what is written anew after the loop may be read
    fresh = Op("fill", (), (state,), {"value": 0.0})
    verify(change(program, "update", 0, lambda op: [op, fresh, product]))


def test_trained_once():
    names = ["0.bias", "0.weight_hh", "0.weight_ih"]
    expected = f"one update of each row of {names}"
    for keep in (False, True):
        program = program_([fptt.RNN(2, 3)], keep_gradients=keep)
        broken = change(program, "update", 0, lambda op: [])
        assert_broken(broken, "trained once", "update", expected, "0.weight_ih rows []")
        broken = change(program, "update", 2, lambda op: [op, op])
        found = "0.bias rows [(0, 3), (0, 3)]"
        assert_broken(broken, "trained once", "update", expected, found)
        broken = replace(program, trained=("0.weight_ih", "0.weight_hh"))
        assert_broken(
            broken,
            "trained once",
            "update",
            "one update of each row of ['0.weight_hh', '0.weight_ih']",
            "0.bias rows [(0, 3)]",
        )
    # in pieces: one lacks, one comes twice, and all of them in another order
    program = program_([fptt.GRU(2, 3)])
    written = [str(op.outputs[0]) for op, _ in program.routines["update"].ops()]
    low, high = (written.index(f"0.weight_hh{{rows {rows}}}") for rows in ("0:6", "6:9"))
    expected = f"one update of each row of {sorted(program.trained)}"
    for number, new, found in (
        (low, lambda op: [], "[(6, 9)]"),
        (high, lambda op: [], "[(0, 6)]"),
        (high, lambda op: [op, op], "[(0, 6), (6, 9), (6, 9)]"),
    ):
        broken = change(program, "update", number, new)
        found = f"0.weight_hh rows {found}"
        assert_broken(broken, "trained once", "update", expected, found)
    turned = replace(
        program.routines["update"], body=tuple(reversed(program.routines["update"].body))
    )
    verify(replace(program, routines={**program.routines, "update": turned}))


def test_loop_direction():
    program = program_()
    for name, found in (("forward", True), ("backward", False)):
        routine = program.routines[name]
        # without operations that only a loop backwards may hold
        body = tuple(
            replace(
                item, reverse=found, body=tuple(replace(op, after_first=False) for op in item.body)
            )
            if isinstance(item, Loop)
            else item
            for item in routine.body
        )
        broken = replace(program, routines={**program.routines, name: replace(routine, body=body)})
        assert_broken(
            broken, "loop direction", name, "reverse in backward only", f"reverse={found}"
        )


def with_offsets(program, places):
    """The same program with some buffers laid elsewhere."""
    moved = replace(program)
    moved.__dict__["plan"] = replace(program.plan, offsets={**program.plan.offsets, **places})
    return moved


def test_placement():
    program = program_()
    size, offsets = program.plan.arena_bytes, program.plan.offsets
    loss = program.buffers["loss"]
    # unaligned; behind the end
    place = offsets["loss"] + 4
    assert_broken(
        with_offsets(program, {"loss": place}),
        "placement",
        "loss",
        f"an aligned place within {size} bytes",
        f"{place}..{place + 4}",
    )
    assert_broken(
        with_offsets(program, {"loss": size}),
        "placement",
        "loss",
        f"an aligned place within {size} bytes",
        f"{size}..{size + loss.bytes}",
    )
    # on a buffer that persists
    low = offsets["input"]
    assert_broken(
        with_offsets(program, {"loss": low}),
        "placement",
        "loss",
        "a place apart from input",
        f"{low}..{low + 4}",
    )
    # on a buffer that is in use at the same moment: gates and its last row
    gates = program.buffers["0.gates"]
    inside = offsets["0.gates"] + (gates.bytes - 4) // 16 * 16
    assert_broken(
        with_offsets(program, {"loss": inside}),
        "placement",
        "loss",
        "a place apart from 0.gates",
        f"{inside}..{inside + 4}",
    )


def test_buffers_that_are_never_needed_at_once_may_share():
    """Placement is no ban on sharing: the head's y is dead when the gradient of 0.bias is born."""
    program = program_(keep_gradients=True)
    verify(with_offsets(program, {"1.y": program.plan.offsets["grad/0.bias"]}))
    low = program.plan.offsets["grad/1.weight"]
    assert_broken(
        with_offsets(program, {"1.y": low}),
        "placement",
        "1.y",
        "a place apart from grad/1.weight",
        f"{low}..{low + 32}",
    )


def test_every_rule_is_broken_above():
    """The names of rules in the source are those that the tests of this file have seen."""
    tree = ast.parse(inspect.getsource(verify_module))
    named = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "VerificationError"
    }
    tests = {
        name.removeprefix("test_").replace("_", " ")
        for name in globals()
        if name.startswith("test_")
    }
    assert named <= tests
    rules = {rule.__name__.replace("_", " ") for rule in (*OP_RULES, *PROGRAM_RULES)}
    assert named == rules
