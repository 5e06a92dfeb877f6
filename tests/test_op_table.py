"""The op table is complete and in use, and every operation's numbers are right.

One case class per operation: random operands in float64, the formula in float64 against finite
differences (or against a plain statement of the operation), and in float32 against float64 within
the case's own tolerance. FPTT_SEED=7 repeats the run with seed 7; a failure prints its seed.
"""

import inspect
import math
import os
import re
import zlib

import numpy as np
import pytest

import fptt
from fptt.native.compile import KINDS as KERNELS
from fptt.program.ops import FUNCTION_CLASSES, Place, Work, bind, spec, table
from fptt.program.opset.spiking import pseudo_derivative
from fptt.program.opspec import op, parse_operand
from fptt.program.philox import philox

SEED = int(os.environ.get("FPTT_SEED", "0"))
KINDS = sorted(table())
#: operations without a C kernel
REFERENCE_ONLY = {
    "diagonal_sum",
    "diagonal_product",
    "diagonal_gradient",
    "lru_forward",
    "lru_backward",
    "lru_decay_gradient",
    "lru_phase_gradient",
    "affine_tangent",
    "average",
    "cross_entropy_sum",
    "dropout_tangent",
    "embedding_tangent",
    "gru_tangent",
    "lstm_eprop_gradient",
    "lstm_eprop_trace",
    "lstm_tangent",
    "relu_tangent",
    "rnn_tangent",
    "squared_error_sum",
    "tangent_gradient",
    "weight_tangent",
    *(
        kind
        for kind in table()
        if spec(kind).formula.__module__.rpartition(".")[2]
        in ("spiking", "spiking_traces", "diagonal_traces")
    ),
}
#: a product joined with the update along it -> what its name says instead of "update"
MERGED = {
    f"{rule}{product}_update": f"{product}_update"
    for rule in ("", "fptt_")
    for product in ("weight", "bias")
}


# --- the table itself ----------


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_complete(kind):
    entry = spec(kind)
    assert entry.kind == kind == entry.formula.__name__
    assert re.search(r"\w+.*[.)]", entry.doc), "no docstring"
    assert entry.main_class in FUNCTION_CLASSES
    assert entry.outputs
    names = [o.name for o in entry.inputs]
    assert len(set(names)) == len(names)
    out_names = [o.name for o in entry.outputs]
    assert len(set(out_names)) == len(out_names)
    for source, target in entry.in_place:
        assert source in names and target in out_names
    assert set(entry.touched) <= {*names, *out_names}
    assert entry.c_symbol == (None if kind in REFERENCE_ONLY else kind)
    assert (kind in KERNELS) == (kind not in REFERENCE_ONLY)


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_takes_what_the_signature_says(kind):
    """Inputs by position and name; attributes, place and shape by keyword, and nothing else."""
    entry = spec(kind)
    parameters = inspect.signature(entry.formula).parameters
    given = [p.name for p in parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
    names = [operand.name for operand in entry.inputs]
    if kind in MERGED:  # what follows the product is handed on to the update alone
        assert kind.replace(MERGED[kind], "update") in KINDS
        plain = [operand.name for operand in spec(kind.replace(MERGED[kind], "update")).inputs]
        assert names[len(given) :] == plain[2:]
        names = names[: len(given)]
    assert given == names
    if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        return
    keywords = {p.name for p in parameters.values() if p.kind == p.KEYWORD_ONLY}
    expected = set(entry.attrs) | ({"place"} if entry.placed else set())
    assert keywords == expected | ({"shape"} if entry.shaped else set())


@pytest.mark.parametrize("kind", KINDS)
def test_work_falls_into_known_classes(kind):
    """Of a small operation with every optional operand, and with none."""
    entry, case = spec(kind), CASES[kind]()
    sizes = dict.fromkeys("nhikowevcrtup", 3) | {"ended": 2, "size": 6}
    required = {o.name for o in (*entry.inputs, *entry.outputs) if not o.optional}
    every = {o.name for o in (*entry.inputs, *entry.outputs)}
    for given in (required, every):
        for attrs in case.attributes(every=given == every):
            classes = entry.work(sizes, attrs, frozenset(given))
            assert set(classes) <= set(FUNCTION_CLASSES)
            assert all(min(w.mul, w.add, w.trans) >= 0 and w.bytes == 0 for w in classes.values())


CELLS = {
    cell.__name__: cell
    for cell in (
        *(fptt.LSTM, fptt.GRU, fptt.RNN, fptt.ElementwiseLSTM, fptt.LRU),
        *(fptt.LIF, fptt.ALIF, fptt.LTC, fptt.LeakyIntegrator),
    )
}


def some_programs():
    """Every cell, layer, rule, loss and optimizer at least once, gradients kept and applied."""
    for cell in CELLS.values():
        for loss, criterion in (
            ("last", "mse"),
            ("every_step", "cross_entropy"),
            ("auxiliary", "cross_entropy"),
        ):
            for rule in (fptt.BPTT(), fptt.FPTT(parts=2), fptt.FPTT(parts=2, mode="paper")):
                for optimizer in (fptt.SGD(), fptt.SGD(momentum=0.5), fptt.Adam()):
                    net = fptt.Network(
                        [
                            fptt.Embedding(5, 3),
                            fptt.Dropout(0.1),
                            cell(3, 4),
                            fptt.ReLU(),
                            fptt.Linear(cell(3, 4).width(3), 3),
                            cell(3, 2),
                        ]
                    )
                    yield fptt.build(
                        net,
                        rule,
                        optimizer,
                        steps=4,
                        batch=2,
                        loss=loss,
                        criterion=criterion,
                        clip=1.0,
                    )
    for cell, source in [(c, s) for c in CELLS.values() for s in sorted(c.sources)]:
        net = [
            fptt.Embedding(5, 3),
            cell(3, 4),
            fptt.Dropout(0.1),
            fptt.ReLU(),
            fptt.Linear(cell(3, 4).width(3), 3),
        ]
        for criterion in ("cross_entropy", "mse"):
            yield fptt.build(
                fptt.Network([*net, cell(3, 2)]),
                fptt.FPTT(parts=2, source=source),
                steps=4,
                loss="every_step",
                criterion=criterion,
            )
    for clip in (None, 1.0):
        for rule in (fptt.TBPTT(parts=2), fptt.FPTT(parts=2)):
            yield fptt.build(
                fptt.Network([fptt.GRU(2, 3), fptt.ReLU(), fptt.Linear(3, 2)]),
                rule,
                steps=4,
                clip=clip,
            )


def test_programs_use_the_table_and_the_table_holds_nothing_else():
    used = {o.kind for p in some_programs() for r in p.routines.values() for o, _ in r.ops()}
    assert used == set(table())


@pytest.mark.parametrize("layer", [*CELLS, "Linear", "ReLU", "Dropout", "Embedding"])
def test_some_programs_hold_every_layer(layer):
    assert any(type(one).__name__ == layer for p in some_programs() for one in p.net.layers)


def test_entering_a_kind_twice_or_with_an_unknown_class_is_refused():
    def copy(x):
        """y = x."""

    message = "^op copy: entered twice, or unknown class EWO-basic$"
    with pytest.raises(ValueError, match=message):
        op("x:* -> y:*", main_class="EWO-basic", work=lambda d, a, g: {})(copy)
    copy.__name__ = "copy_of_nothing"
    message = "^op copy_of_nothing: entered twice, or unknown class EWO$"
    with pytest.raises(ValueError, match=message):
        op("x:* -> y:*", main_class="EWO", work=lambda d, a, g: {})(copy)
    assert "copy_of_nothing" not in table()


def test_operands_are_read_from_text():
    operand = parse_operand("gates#int?:n,4h")
    assert (operand.name, operand.integer, operand.optional) == ("gates", True, True)
    assert operand.dims == ((1, "n"), (4, "h"))
    assert parse_operand("x:*").dims is None
    assert parse_operand("lr:1").dims == ((1, ""),)
    with pytest.raises(ValueError, match=r"^operand 'x' is not of the form name#int\?:dims$"):
        parse_operand("x")


def test_dimensions_are_matched():
    sizes = {}
    assert bind(((1, "n"), (4, "h")), (3, 20), sizes) is None
    assert sizes == {"n": 3, "h": 5}
    assert bind(((1, "n"), (4, "h")), (3, 24), sizes) == "[n,4h] with n=3, h=5"
    assert bind(((1, "n"),), (3, 1), sizes) == "[n]"
    assert bind(((4, "k"),), (6,), sizes) == "[4k] with n=3, h=5"
    assert bind(((2, ""),), (2,), sizes) is None
    assert bind(((2, ""),), (3,), sizes) == "[2] with n=3, h=5"


def test_work_adds_up():
    assert Work(1, 2, 3, 4) + Work(10, 20, 30, 40) == Work(11, 22, 33, 44)
    assert Work(1, 2, 3, 4) * 3 == Work(3, 6, 9, 12)


# --- numbers: one case class per operation ----------

SGD_ATTRS = dict(
    optimizer="sgd", momentum=0.0, beta1=0.0, beta2=0.0, epsilon=0.0, tensor=5, first_row=2
)
MOMENTUM_ATTRS = dict(SGD_ATTRS, optimizer="momentum", momentum=0.9)
ADAM_ATTRS = dict(SGD_ATTRS, optimizer="adam", beta1=0.9, beta2=0.99, epsilon=1e-8)


class Numbers:
    """Base: operands of one operation, and what its result must be.

    Attributes:
        tolerance: ||float32 - float64|| / ||float64|| of every result. A few roundings of
            6e-8 each; cases with long sums or cancellation state their own.
    """

    tolerance = 1e-6

    def __init__(self, seed=SEED):
        self.rng = np.random.default_rng([seed, zlib.crc32(type(self).__name__.encode())])

    def normal(self, *shape):
        return self.rng.normal(size=shape)

    def current(self, *shape):
        """Input currents: strong in the first row and in the last one, so that whatever is drawn
        some neurons spike and some do not."""
        current = self.normal(*shape)
        current[0] += 20
        current[-1] -= 20
        return current

    def attributes(self, every=True):
        return [{}]

    def calls(self):
        """(operands, attributes) to try."""
        return [(self.operands(), attrs) for attrs in self.attributes()]

    def check(self, operands, attrs, results):
        raise NotImplementedError


CASES = {}


def case(cls):
    CASES[cls.__name__] = cls
    return cls


def difference(formula, operands, which, upstream, step=1e-6):
    """Central differences of sum_i <upstream_i, result_i> by operand `which`."""
    slope = np.zeros_like(operands[which])
    for flat in range(slope.size):
        values = []
        for sign in (1, -1):
            moved = [None if o is None else o.copy() for o in operands]
            moved[which].flat[flat] += sign * step
            results = formula(*moved)
            values.append(sum((u * r).sum() for u, r in zip(upstream, results, strict=True)))
        slope.flat[flat] = (values[0] - values[1]) / (2 * step)
    return slope


def close(found, wanted, bound=1e-8):
    gap, norm = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
    assert found.shape == wanted.shape and gap <= bound * max(norm, 1e-3), (gap, norm)


def sig(x):
    return 1 / (1 + np.exp(-x))


@case
class lstm_forward(Numbers):
    def operands(self):
        return [self.normal(3, 20), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        a, c_before = operands
        i, f, g, o = sig(a[:, :5]), sig(a[:, 5:10]), np.tanh(a[:, 10:15]), sig(a[:, 15:])
        c = f * c_before + i * g
        for found, wanted in zip(
            results, (np.hstack([i, f, g, o]), c, o * np.tanh(c)), strict=True
        ):
            close(found, wanted)


@case
class lstm_backward(Numbers):
    def operands(self):
        self.a, c_before = self.normal(3, 20), self.normal(3, 5)
        gates, c, _ = spec("lstm_forward").formula(self.a, c_before)
        return [gates, c_before, c, self.normal(3, 5), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        _, c_before, _, dh, dc = operands

        def forward(a, c_before):
            return spec("lstm_forward").formula(a, c_before)[1:]

        for which in (0, 1):
            close(results[which], difference(forward, [self.a, c_before], which, (dc, dh)))


@case
class gru_forward(Numbers):
    def operands(self):
        return [self.normal(3, 20), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        a, h_before = operands
        r, z, q = sig(a[:, :5]), sig(a[:, 5:10]), a[:, 15:]
        n = np.tanh(a[:, 10:15] + r * q)
        close(results[0], np.hstack([r, z, n, q]))
        close(results[1], n + z * (h_before - n))


@case
class gru_backward(Numbers):
    def operands(self):
        self.a, h_before = self.normal(3, 20), self.normal(3, 5)
        gates, _ = spec("gru_forward").formula(self.a, h_before)
        return [gates, h_before, self.normal(3, 5)]

    def check(self, operands, attrs, results):
        def forward(a, h_before):
            return spec("gru_forward").formula(a, h_before)[1:]

        for which in (0, 1):
            close(results[which], difference(forward, [self.a, operands[1]], which, (operands[2],)))


@case
class rnn_forward(Numbers):
    def operands(self):
        return [self.normal(3, 5)]

    def check(self, operands, attrs, results):
        close(results[0], 1 - 2 / (1 + np.exp(2 * operands[0])))


@case
class rnn_backward(Numbers):
    def operands(self):
        self.a = self.normal(3, 5)
        return [np.tanh(self.a), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        close(results[0], difference(lambda a: (np.tanh(a),), [self.a], 0, (operands[1],)))


@case
class diagonal_sum(Numbers):
    def operands(self):
        return [self.normal(3, 20), self.normal(20), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        a, w, h = operands
        wanted = [a[:, 5 * g : 5 * g + 5] + h @ np.diag(w[5 * g : 5 * g + 5]) for g in range(4)]
        close(results[0], np.hstack(wanted))


@case
class diagonal_product(Numbers):
    def operands(self):
        return [self.normal(3, 20), self.normal(20)]

    def check(self, operands, attrs, results):
        def forward(h):
            return (spec("diagonal_sum").formula(np.zeros((3, 20)), operands[1], h),)

        close(results[0], difference(forward, [self.normal(3, 5)], 0, (operands[0],)))


@case
class diagonal_gradient(Numbers):
    def operands(self):
        return [self.normal(6, 20), self.normal(6, 5), None]

    def check(self, operands, attrs, results):
        da, h, _ = operands

        def forward(w):
            return (spec("diagonal_sum").formula(np.zeros((6, 20)), w, h),)

        wanted = difference(forward, [self.normal(20)], 0, (da,))
        close(results[0], wanted)
        onto = self.normal(20)
        close(spec("diagonal_gradient").formula(da, h, onto), onto + wanted)


class OfLRU(Numbers):
    """Eigenvalues near the circle among them, where 1 - |Lambda|^2 loses its digits."""

    tolerance = 1e-5  # sums of terms of both signs, and divisions by gamma

    def eigenvalues(self):
        self.nu = np.array([0.5, -0.3, -1.0, -3.0, -6.0])
        self.theta = self.normal(5)
        return [self.nu, self.theta]

    def forward(self, *operands):
        return (spec("lru_forward").formula(*operands),)


@case
class lru_forward(OfLRU):
    def operands(self):
        return [self.normal(3, 10), *self.eigenvalues(), self.normal(3, 10)]

    def check(self, operands, attrs, results):
        u, nu, theta, before = operands
        eigenvalue = np.exp(-np.exp(nu) + 1j * np.exp(theta))
        u, before = (v[:, :5] + 1j * v[:, 5:] for v in (u, before))
        after = eigenvalue * before + np.sqrt(1 - abs(eigenvalue) ** 2) * u
        close(results[0], np.hstack([after.real, after.imag]))


@case
class lru_backward(OfLRU):
    def operands(self):
        return [self.normal(3, 10), *self.eigenvalues()]

    def check(self, operands, attrs, results):
        at = [self.normal(3, 10), self.nu, self.theta, self.normal(3, 10)]
        for which, found in zip((0, 3), results, strict=True):
            close(found, difference(self.forward, at, which, (operands[0],)))


class OfEigenvalue(OfLRU):
    """Gradients by nu and theta, from du = gamma dstate."""

    which: int

    def operands(self):
        self.u, self.before = self.normal(6, 10), self.normal(6, 10)
        self.dstate = self.normal(6, 10)
        eigenvalues = self.eigenvalues()
        self.du, _ = spec("lru_backward").formula(self.dstate, *eigenvalues)
        return [*self.rows(), *eigenvalues, None]

    def check(self, operands, attrs, results):
        at = [self.u, self.nu, self.theta, self.before]
        wanted = difference(self.forward, at, self.which, (self.dstate,))
        close(results[0], wanted)
        onto = self.normal(5)
        found = spec(type(self).__name__).formula(*operands[:-1], onto)
        close(found, onto + wanted)


@case
class lru_decay_gradient(OfEigenvalue):
    which = 1

    def rows(self):
        return [self.u, self.du, self.before]


@case
class lru_phase_gradient(OfEigenvalue):
    which = 2

    def rows(self):
        return [self.du, self.before]


# --- spikes ----------

LIF = dict(decay=0.8, threshold=0.6)
ALIF = dict(LIF, rho=0.9, beta=0.4)
LTC = dict(threshold=0.3, beta=0.9)
SURROGATES = [
    dict(surrogate="multi_gaussian", gamma=0.7, width=0.8),
    dict(surrogate="triangle", gamma=0.3, width=1.3),
]


def smooth_spike(u, surrogate, gamma, width):
    """The function whose derivative is the surrogate; it rises from 0 around u = 0."""
    if surrogate == "triangle":
        inside = np.clip(u, -width, width)
        rising = (inside + width) ** 2 / (2 * width)
        falling = width - (width - inside) ** 2 / (2 * width)
        return gamma / width * np.where(u < 0, rising, falling)

    def distribution(mean, deviation):
        z = (u - mean) / (deviation * 2**0.5)
        return np.vectorize(lambda one: 0.5 * (1 + math.erf(one)))(z)

    sides = distribution(width, 6 * width) + distribution(-width, 6 * width)
    return gamma * (1.15 * distribution(0, width) - 0.15 * sides)


class Spikes(Numbers):
    """Neurons beside a threshold; their gradient is the slope of `moved_spike`."""

    def attributes(self, every=True):
        return [{**self.constants, **one} for one in SURROGATES]

    def moved_spike(self, u, at, attrs):
        """1 where `at` > 0, else 0, and from there the smooth function: what the gradient sees."""
        psi = {name: attrs[name] for name in SURROGATES[0]}
        return (at > 0) + smooth_spike(u, **psi) - smooth_spike(at, **psi)


@case
class lif_forward(Numbers):
    def attributes(self, every=True):
        return [LIF]

    def operands(self):
        return [self.current(3, 5), self.normal(3, 5), self.rng.integers(0, 2, (3, 5)) * 1.0]

    def check(self, operands, attrs, results):
        current, v_before, z_before = operands
        v = 0.8 * v_before + current - 0.6 * z_before
        close(results[0], v)
        assert np.array_equal(results[1], np.where(v > 0.6, 1.0, 0.0))
        assert 0 < results[1].sum() < results[1].size


@case
class lif_backward(Spikes):
    constants = LIF

    def operands(self):
        return [self.normal(3, 5) for _ in range(3)]

    def check(self, operands, attrs, results):
        v, dz, dv = operands

        def forward(current, v_before):
            moved = v + current + 0.8 * v_before
            return self.moved_spike(moved - 0.6, v - 0.6, attrs), moved

        zeros = [np.zeros_like(v), np.zeros_like(v)]
        for which in (0, 1):
            close(results[which], difference(forward, zeros, which, (dz, dv)), 1e-7)


@case
class alif_forward(Numbers):
    def attributes(self, every=True):
        return [ALIF]

    def operands(self):
        z_before = self.rng.integers(0, 2, (3, 5)) * 1.0
        return [self.current(3, 5), self.normal(3, 5), self.normal(3, 5) ** 2, z_before]

    def check(self, operands, attrs, results):
        current, v_before, a_before, z_before = operands
        v, a = 0.8 * v_before + current - 0.6 * z_before, 0.9 * a_before + z_before
        close(results[0], v)
        close(results[1], a)
        assert np.array_equal(results[2], np.where(v > 0.6 + 0.4 * a, 1.0, 0.0))
        assert 0 < results[2].sum() < results[2].size


@case
class alif_backward(Spikes):
    constants = ALIF

    def operands(self):
        return [self.normal(3, 5), self.normal(3, 5) ** 2, *(self.normal(3, 5) for _ in range(3))]

    def check(self, operands, attrs, results):
        v, a, dz, dv, da = operands
        threshold = 0.6 + 0.4 * a

        def forward(current, z_before, v_before, a_before):
            """The reset takes no part: z_before acts on a alone."""
            moved_v, moved_a = v + current + 0.8 * v_before, a + 0.9 * a_before + z_before
            u = moved_v - 0.6 - 0.4 * moved_a
            return self.moved_spike(u, v - threshold, attrs), moved_v, moved_a

        zeros = [np.zeros_like(v) for _ in range(4)]
        for which in range(4):
            close(results[which], difference(forward, zeros, which, (dz, dv, da)), 1e-7)


@case
class ltc_forward(Numbers):
    def attributes(self, every=True):
        return [LTC]

    def operands(self):
        z_before = self.rng.integers(0, 2, (3, 5)) * 1.0
        current, v_before = 2 * self.current(3, 5), self.normal(3, 5)
        return [self.normal(3, 10), current, v_before, self.normal(3, 5) ** 2 / 4, z_before]

    def check(self, operands, attrs, results):
        sums, current, v_before, a_before, z_before = operands
        m, r = sig(sums[:, :5]), sig(sums[:, 5:])
        u = (1 - m) * v_before + m * current
        a = r * a_before + (1 - r) * z_before
        z = np.where(u > 0.3 + 0.9 * a, 1.0, 0.0)
        for found, wanted in zip(results, (np.hstack([m, r]), u, u * (1 - z), a, z), strict=True):
            close(found, wanted)
        assert 0 < z.sum() < z.size


@case
class ltc_backward(Spikes):
    constants = LTC
    tolerance = 5e-6  # sums that cancel, behind a product of six factors

    def operands(self):
        given = ltc_forward.operands(self)
        _, current, v_before, a_before, z_before = given
        gates, u, _, a, z = spec("ltc_forward").formula(*given, **self.constants)
        upstream = [self.normal(3, 5) for _ in range(3)]
        return [gates, u, current, v_before, a_before, z_before, a, z, *upstream]

    def check(self, operands, attrs, results):
        gates, u, current, v_before, a_before, z_before, a, _, dz, dv, da = operands
        at = u - 0.3 - 0.9 * a
        given = [np.log(gates / (1 - gates)), current, v_before, a_before, z_before]

        def forward(*given):
            _, u, _, a, _ = spec("ltc_forward").formula(*given, **self.constants)
            z = self.moved_spike(u - 0.3 - 0.9 * a, at, attrs)
            return z, (1 - z) * u, a

        # sums, current, then z, v, a before; the operation takes v, a, z
        for found, which in zip(results, (0, 1, 4, 2, 3), strict=True):
            close(found, difference(forward, given, which, (dz, dv, da)), 1e-7)


@case
class leaky_forward(Numbers):
    def attributes(self, every=True):
        return [dict(decay=0.8)]

    def operands(self):
        return [self.normal(3, 5), self.normal(3, 5)]

    def check(self, operands, attrs, results):
        close(results[0], operands[0] + 0.8 * operands[1])


@case
class leaky_backward(Numbers):
    def attributes(self, every=True):
        return [dict(decay=0.8)]

    def operands(self):
        return [self.normal(3, 5)]

    def check(self, operands, attrs, results):
        close(results[0], operands[0])
        close(results[1], 0.8 * operands[0])


@pytest.mark.parametrize("attrs", SURROGATES, ids=lambda attrs: attrs["surrogate"])
def test_the_surrogate_is_the_slope_of_a_smooth_spike(attrs):
    u = np.linspace(-6, 6, 97) + 0.01
    slope = (smooth_spike(u + 1e-6, **attrs) - smooth_spike(u - 1e-6, **attrs)) / 2e-6
    psi = pseudo_derivative(u, **attrs)
    np.testing.assert_allclose(psi, slope, rtol=1e-6, atol=1e-9)
    # the side lobes of the Gaussians are below zero, the middle is not
    assert psi.max() > 0.2 * attrs["gamma"] / attrs["width"]
    assert (psi.min() < 0) == (attrs["surrogate"] == "multi_gaussian")


@case
class relu(Numbers):
    tolerance = 1e-7  # one rounding, of the operand

    def operands(self):
        return [self.normal(4, 5)]

    def check(self, operands, attrs, results):
        x = operands[0]
        assert ((results[0] == x) == (x >= 0)).all() and ((results[0] == 0) == (x <= 0)).all()


@case
class relu_gradient(Numbers):
    def operands(self):
        return [np.maximum(self.normal(4, 5), 0), self.normal(4, 5), self.normal(4, 5)]

    def calls(self):
        return [(self.operands(), {}), ([*self.operands()[:2], None], {})]

    def check(self, operands, attrs, results):
        y, dy, start = operands
        x = np.where(y > 0, y, -1.0)  # some x that y comes from, with no kink within a step
        wanted = difference(lambda x: (np.maximum(x, 0),), [x], 0, (dy,))
        close(results[0], wanted + (0 if start is None else start))
        assert spec("relu_gradient").formula(np.zeros((1, 1)), np.ones((1, 1)), None) == 0


@case
class dropout(Numbers):
    def operands(self):
        return [self.normal(4, 6), np.array([3, 9], np.uint32), self.normal(4, 6)]

    def attributes(self, every=True):
        place = Place(2, np.array([5, 5, 6, 7]), np.array([0, 1, 0, 2]))
        return [dict(p=p, layer=1, place=place) for p in (0.0, 0.5)]

    def calls(self):
        return [
            (o, attrs)
            for attrs in self.attributes()
            for o in (self.operands(), [*self.operands()[:2], None])
        ]

    def check(self, operands, attrs, results):
        x, random, start = operands
        y = results[0] - (0 if start is None else start)
        kept = np.abs(y) > 1e-9
        close(y, np.where(kept, x / (1 - attrs["p"]), 0))
        assert kept.all() if attrs["p"] == 0 else 0 < kept.sum() < kept.size

        def forward(x):
            return (spec("dropout").formula(x, random, None, **attrs),)

        dy = self.normal(4, 6)
        backward = spec("dropout").formula(dy, random, start, **attrs)
        wanted = difference(forward, [x], 0, (dy,))
        close(backward, wanted + (0 if start is None else start))


@case
class embedding(Numbers):
    tolerance = 1e-7  # one rounding, of the operand

    def operands(self):
        return [self.normal(5, 3), np.array([4, 0, 4, 2])]

    def check(self, operands, attrs, results):
        onehot = np.eye(5)[operands[1]]
        close(results[0], onehot @ operands[0])


@case
class embedding_gradient(Numbers):
    def operands(self):
        return [np.array([4, 0, 4, 2]), self.normal(4, 3), self.normal(5, 3)]

    def check(self, operands, attrs, results):
        token, dy, start = operands

        def forward(weights):
            return (spec("embedding").formula(weights, token),)

        close(results[0], start + difference(forward, [self.normal(5, 3)], 0, (dy,)))


@case
class affine(Numbers):
    def calls(self):
        x, w, bias, start = (
            self.normal(4, 3),
            self.normal(5, 3),
            self.normal(5),
            self.normal(4, 5),
        )
        return [([x, w, b, s], {}) for b in (bias, None) for s in (start, None)]

    def check(self, operands, attrs, results):
        x, w, bias, start = operands
        wanted = np.array(
            [[sum(x[n, i] * w[o, i] for i in range(3)) for o in range(5)] for n in range(4)]
        )
        wanted = wanted + (0 if bias is None else bias) + (0 if start is None else start)
        close(results[0], wanted, 1e-13)


@case
class affine_sum(Numbers):
    def calls(self):
        x, w, h, v = (self.normal(4, s) if r else self.normal(5, s) for s in (3, 2) for r in (1, 0))
        bias, start = self.normal(5), self.normal(4, 5)
        return [([x, w, h, v, b, s], {}) for b in (bias, None) for s in (start, None)]

    def check(self, operands, attrs, results):
        x, w, h, v, bias, start = operands
        wanted = np.zeros((4, 5)) if start is None else start.copy()
        for n in range(4):
            for o in range(5):
                wanted[n, o] += sum(x[n, i] * w[o, i] for i in range(3))
                wanted[n, o] += sum(h[n, k] * v[o, k] for k in range(2))
                wanted[n, o] += 0 if bias is None else bias[o]
        close(results[0], wanted, 1e-13)


@case
class product(Numbers):
    def calls(self):
        dy, w, start = self.normal(4, 5), self.normal(5, 3), self.normal(4, 3)
        return [([dy, w, s], {}) for s in (start, None)]

    def check(self, operands, attrs, results):
        dy, w, start = operands

        def forward(x):
            return (spec("affine").formula(x, w, None, None),)

        wanted = difference(forward, [self.normal(4, 3)], 0, (dy,))
        close(results[0], wanted + (0 if start is None else start))


@case
class weight_gradient(Numbers):
    def calls(self):
        dy, x, start = self.normal(4, 5), self.normal(4, 3), self.normal(5, 3)
        return [([dy, x, s], {}) for s in (start, None)]

    def check(self, operands, attrs, results):
        dy, x, start = operands

        def forward(w):
            return (spec("affine").formula(x, w, None, None),)

        wanted = difference(forward, [self.normal(5, 3)], 0, (dy,))
        close(results[0], wanted + (0 if start is None else start))


@case
class bias_gradient(Numbers):
    def calls(self):
        dy, start = self.normal(4, 5), self.normal(5)
        return [([dy, s], {}) for s in (start, None)]

    def check(self, operands, attrs, results):
        dy, start = operands
        x, w = self.normal(4, 3), self.normal(5, 3)

        def forward(bias):
            return (spec("affine").formula(x, w, bias, None),)

        wanted = difference(forward, [self.normal(5)], 0, (dy,))
        close(results[0], wanted + (0 if start is None else start))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@case
class cross_entropy(Numbers):
    def calls(self):
        targets = (np.array([2, 0, 4, 1]), np.array([2, -1, 4, -1]), np.array([-1, -1, -1, 3]))
        return [([self.normal(4, 5), t], {}) for t in targets]

    def check(self, operands, attrs, results):
        logits, target = operands

        def loss(logits):
            rows = [n for n in range(4) if target[n] >= 0]
            return (np.array([-np.mean([log_softmax(logits)[n, target[n]] for n in rows])]),)

        close(results[1], loss(logits)[0], 1e-12)
        close(results[0], difference(loss, [logits], 0, (np.ones(1),)))


@case
class auxiliary_cross_entropy(Numbers):
    def attributes(self, every=True):
        place = Place(1, np.zeros(4, int), np.arange(4))
        return [dict(rate=0.3, per_part=p, place=place) for p in (False, True)]

    def calls(self):
        q = np.abs(self.normal(10, 5)) + 0.1
        q /= q.sum(axis=1, keepdims=True)
        calls = []
        for target in (np.array([2, 0, 2, 1]), np.array([2, -1, 2, -1])):
            fraction = np.array([1.0, 0.5, 1.0, 0.25])
            for attrs in self.attributes():
                rows = q if attrs["per_part"] else q[:5]
                calls.append(([self.normal(4, 5), target, fraction, rows.copy()], attrs))
        return calls

    def check(self, operands, attrs, results):
        logits, target, fraction, q = operands
        base = 5 if attrs["per_part"] else 0
        rows = [n for n in range(4) if target[n] >= 0]

        def loss(logits):
            log_p = log_softmax(logits)
            terms = [
                fraction[n] * -log_p[n, target[n]]
                + (1 - fraction[n]) * -(q[base + target[n]] * log_p[n]).sum()
                for n in rows
            ]
            return (np.array([np.mean(terms)]),)

        close(results[1], loss(logits)[0], 1e-12)
        close(results[0], difference(loss, [logits], 0, (np.ones(1),)))
        wanted = q.copy()
        for n in rows:
            if attrs["per_part"] or fraction[n] == 1:
                p = np.exp(log_softmax(logits)[n])
                wanted[base + target[n]] = 0.7 * wanted[base + target[n]] + 0.3 * p
        close(results[2], wanted, 1e-12)
        assert not np.array_equal(results[2], q)


@case
class squared_error(Numbers):
    def calls(self):
        some = self.normal(4, 5)
        some[[0, 2]] = np.nan
        return [([self.normal(4, 5), t], {}) for t in (self.normal(4, 5), some)]

    def check(self, operands, attrs, results):
        y, target = operands

        def loss(y):
            return (np.array([np.nanmean((y - target) ** 2)]),)

        close(results[1], loss(y)[0], 1e-12)
        close(results[0], difference(loss, [y], 0, (np.ones(1),)))


@case
class fill(Numbers):
    def attributes(self, every=True):
        return [dict(value=value, shape=(2, 3)) for value in (0.0, -1.5)]

    def operands(self):
        return []

    def check(self, operands, attrs, results):
        assert results[0].shape == (2, 3) and (results[0] == attrs["value"]).all()


@case
class copy(Numbers):
    tolerance = 1e-7  # one rounding, of the operand

    def operands(self):
        return [self.normal(2, 3)]

    def check(self, operands, attrs, results):
        assert np.array_equal(results[0], operands[0])


@case
class add(Numbers):
    def operands(self):
        return [self.normal(2, 3), self.normal(2, 3)]

    def check(self, operands, attrs, results):
        assert np.array_equal(results[0], operands[1] + operands[0])


@case
class next_sequence(Numbers):
    def calls(self):
        return [([np.array([7, n], np.uint32)], {}) for n in (0, 41, 2**32 - 1)]

    def check(self, operands, attrs, results):
        seed, number = (int(word) for word in operands[0])
        assert results[0].dtype == np.uint32
        assert [int(word) for word in results[0]] == [seed, (number + 1) % 2**32]


def plain_step(theta, d, lr, first, second, correction, a):
    """PyTorch's formulas, one number at a time."""
    if a["optimizer"] == "sgd":
        return theta - lr * d, None, None
    if a["optimizer"] == "momentum":
        first = a["momentum"] * first + d
        return theta - lr * first, first, None
    first = a["beta1"] * first + (1 - a["beta1"]) * d
    second = a["beta2"] * second + (1 - a["beta2"]) * d**2
    m, v = first / correction[0], second / correction[1]
    return theta - lr * m / (np.sqrt(v) + a["epsilon"]), first, second


def mixed(element, key):
    """32 random bits of an element, in whole numbers without end."""
    bits = (element * 0x9E3779B9 ^ key) % 2**32
    bits = (bits ^ bits >> 16) * 0x7FEB352D % 2**32
    bits = (bits ^ bits >> 15) * 0x846CA68B % 2**32
    return bits ^ bits >> 16


def plain_rounding(values, which, noise, attrs):
    """Up or down by 16 random bits, one number at a time; without noise as they are."""
    if values is None or noise is None:
        return values
    seed, number = map(int, noise)
    words = philox(np.array([which, attrs["tensor"], number, 0], np.uint64), (seed, 0))
    rounded = np.empty(values.shape)
    for place, value in np.ndenumerate(values):
        row, column = (place[0] + attrs["first_row"], *place[1:], 0)[:2]
        element = row * 65537 + column if values.ndim == 2 else row
        bits = int(np.float32(value).view(np.uint32)) + mixed(element, int(words[0])) % 2**16
        rounded[place] = np.uint32(bits >> 16 << 16).view(np.float32)
    return rounded


@case
class update(Numbers):
    tolerance = 5e-6  # Adam divides by the root of a sum of squares

    def attributes(self, every=True):
        return [ADAM_ATTRS] if every else [SGD_ATTRS]

    def calls(self):
        calls = []
        seed_and_number = np.array([7, 2**32 - 1], np.uint32)
        for factor, noise in (
            (None, None),
            (np.array([0.25]), None),
            (None, seed_and_number),
        ):
            for attrs in (SGD_ATTRS, MOMENTUM_ATTRS, ADAM_ATTRS):
                adam = attrs["optimizer"] == "adam"
                first = None if attrs["optimizer"] == "sgd" else self.normal(3, 4)
                calls.append(
                    (
                        [
                            self.normal(3, 4),
                            self.normal(3, 4),
                            np.array([0.1]),
                            factor,
                            first,
                            self.normal(3, 4) ** 2 if adam else None,
                            np.array([0.271, 0.0297]) if adam else None,
                            noise,
                        ],
                        attrs,
                    )
                )
        return calls

    def check(self, operands, attrs, results):
        theta, g, lr, factor, first, second, correction, noise = operands
        d = g if factor is None else g * 0.25
        after, first, second = plain_step(theta, d, lr, first, second, correction, attrs)
        wanted = (plain_rounding(after, 0, noise, attrs), first, second)
        for found, expected in zip(results, wanted, strict=True):
            assert (found is None) == (expected is None)
            if expected is not None:
                close(found, expected, 1e-13)


@case
class fptt_update(Numbers):
    tolerance = 5e-6  # as for update

    def attributes(self, every=True):
        choices = [ADAM_ATTRS] if every else [SGD_ATTRS]
        return [
            dict(base, alpha=0.4, beta=0.25, mode=mode, directed=directed)
            for base in choices
            for mode in ("code", "paper")
            for directed in (False, True)
        ]

    def calls(self):
        calls = []
        for operands, base in update.calls(self):
            for mode in ("code", "paper"):
                for directed in (False, True):
                    attrs = dict(base, alpha=0.4, beta=0.25, mode=mode, directed=directed)
                    calls.append(
                        (
                            [*operands[:2], self.normal(3, 4), self.normal(3, 4), *operands[2:]],
                            attrs,
                        )
                    )
        return calls

    def check(self, operands, attrs, results):
        theta, g, lam, mean, lr, factor, first, second, correction, noise = operands
        w, alpha, beta = (1 if attrs["mode"] == "code" else 0.5), 0.4, 0.25
        d = g if attrs["directed"] else g - w * lam + alpha * (theta - mean)
        if factor is not None:
            d = 0.25 * d
        after, first, second = plain_step(theta, d, lr, first, second, correction, attrs)
        new_lam = w * lam - alpha * (after - mean)
        new_mean = (1 - beta) * mean + beta * after - beta / alpha * new_lam
        learnt = [
            plain_rounding(values, which, noise, attrs)
            for which, values in enumerate((after, new_lam, new_mean))
        ]
        for found, wanted in zip(results, (*learnt, first, second), strict=True):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                close(found, wanted, 1e-13)


def plain_product(dy, x=None):
    """The sum over the rows of dy times x, one number at a time."""
    rows, outputs = dy.shape
    if x is None:
        return np.array([sum(dy[n, o] for n in range(rows)) for o in range(outputs)])
    inputs = x.shape[1]
    return np.array(
        [
            [sum(dy[n, o] * x[n, i] for n in range(rows)) for i in range(inputs)]
            for o in range(outputs)
        ]
    )


class Merged(Numbers):
    """An update along a product of dy and x, or along the sum of dy's rows."""

    tolerance = 1e-5  # as for update, and the product's own rounding
    plain = None

    @property
    def factors(self):
        return 2 if "weight" in type(self).__name__ else 1

    def attributes(self, every=True):
        return self.plain.attributes(self, every)

    def calls(self):
        calls = []
        for operands, attrs in self.plain.calls(self):
            theta, _, *others = operands
            if self.factors == 1:
                theta, *others = (
                    o[:, 0].copy() if o is not None and o.ndim == 2 else o for o in (theta, *others)
                )
            pair = [self.normal(5, 3), self.normal(5, 4)][: self.factors]
            calls.append(([theta, *pair, *others], attrs))
        return calls

    def check(self, operands, attrs, results):
        g = plain_product(*operands[1 : 1 + self.factors])
        if self.factors == 2:
            *results, tile = results
            assert tile is None  # room for the engine; the formula needs none
        plain_operands = [operands[0], g, *operands[1 + self.factors :]]
        self.plain.check(self, plain_operands, attrs, results)


@case
class weight_update(Merged):
    plain = update


@case
class bias_update(Merged):
    plain = update


@case
class fptt_weight_update(Merged):
    plain = fptt_update


@case
class fptt_bias_update(Merged):
    plain = fptt_update


@case
class fptt_direction(Numbers):
    def attributes(self, every=True):
        return [dict(alpha=0.4, mode=mode) for mode in ("code", "paper")]

    def operands(self):
        return [self.normal(3, 4) for _ in range(4)]

    def check(self, operands, attrs, results):
        """d is the gradient of g theta + R, R = alpha/2 ||theta - m - w lambda/alpha||^2."""
        theta, g, lam, mean = operands
        w = 1 if attrs["mode"] == "code" else 0.5

        def objective(theta):
            return (
                np.array([(g * theta).sum() + 0.2 * ((theta - mean - w * lam / 0.4) ** 2).sum()]),
            )

        close(results[0], difference(objective, [theta], 0, (np.ones(1),)))


@case
class square_sum(Numbers):
    def calls(self):
        return [([self.normal(3, 4), start], {}) for start in (None, np.array([2.5]))]

    def check(self, operands, attrs, results):
        wanted = np.linalg.norm(operands[0]) ** 2 + (0 if operands[1] is None else 2.5)
        close(results[0], np.array([wanted]), 1e-13)


@case
class clip_factor(Numbers):
    def calls(self):
        return [([np.array([total])], dict(clip=2.0)) for total in (0.0, 3.9, 9.0, 1e10)]

    def attributes(self, every=True):
        return [dict(clip=2.0)]

    def check(self, operands, attrs, results):
        norm = float(operands[0][0]) ** 0.5
        wanted = 1.0 if norm + 1e-6 < 2 else 2 / (norm + 1e-6)
        close(results[0], np.array([wanted]), 1e-13)


@case
class adam_correction(Numbers):
    def attributes(self, every=True):
        return [dict(beta1=0.9, beta2=0.999)]

    def operands(self):
        return [1 - np.array([0.9, 0.999]) ** 6]

    def check(self, operands, attrs, results):
        close(results[0], 1 - np.array([0.9, 0.999]) ** 7, 1e-13)


class CellTangent(Numbers):
    """d state / d theta by central differences, where state and input depend on theta, too."""

    h, i, p = 2, 3, 4
    gates, parts = 1, 1
    tolerance = 5e-6  # sums of products of products

    def calls(self):
        h, i, rows = self.h, self.i, self.gates * self.h
        self.w, self.v = self.normal(rows, i), self.normal(rows, h)
        self.b = [self.normal(rows) for _ in range(2)]
        self.x, self.state = self.normal(3, i), [self.normal(3, h) for _ in range(self.parts)]
        calls = []
        for attrs in self.attributes():
            for seed in self.seeds(attrs):
                size = rows * (1 if seed is None else seed.shape[1])
                tangents = [self.normal(3, h, size) for _ in range(self.parts)]
                calls.append(([*self.kept(), *tangents, seed, None, None], attrs))
            tangents = [self.normal(3, h, self.p) for _ in range(self.parts)]
            below = self.normal(3, i, self.p)
            calls.append(([*self.kept(), *tangents, None, self.w, below], attrs))
        return calls

    def seeds(self, attrs):
        """What the layer's own parameters were multiplied with; None is the bias."""
        return self.x, self.state[0], None

    def check(self, operands, attrs, results):
        *_, seed, _, below = operands
        tangents = operands[-3 - self.parts : -3]
        step = 1e-6
        for q in range(tangents[0].shape[2]):
            after = []
            for by in (step, -step):
                w, v, x, b = self.w.copy(), self.v.copy(), self.x, [one.copy() for one in self.b]
                if below is not None:
                    x = x + by * below[:, :, q]
                elif seed is None:
                    b[bool(attrs.get("recurrent"))][q] += by
                else:
                    (w if seed.shape[1] == self.i else v).flat[q] += by
                state = [s + by * j[:, :, q] for s, j in zip(self.state, tangents, strict=True)]
                after.append(self.step(w, v, b, x, state))
            for found, high, low in zip(results, *after, strict=True):
                close(found[:, :, q], (high - low) / (2 * step), 1e-7)


@case
class rnn_tangent(CellTangent):
    def kept(self):
        return [*self.step(self.w, self.v, self.b, self.x, self.state), self.v]

    def step(self, w, v, b, x, state):
        return [np.tanh(x @ w.T + state[0] @ v.T + b[0])]


@case
class lstm_tangent(CellTangent):
    gates, parts = 4, 2

    def kept(self):
        gates, c, _ = self.forward(self.w, self.v, self.b, self.x, self.state)
        return [gates, self.state[1], c, self.v]

    def forward(self, w, v, b, x, state):
        return spec("lstm_forward").formula(x @ w.T + state[0] @ v.T + b[0], state[1])

    def step(self, *where):
        _, c, h = self.forward(*where)
        return [h, c]


@case
class gru_tangent(CellTangent):
    gates = 3

    def attributes(self, every=True):
        return [dict(recurrent=recurrent) for recurrent in (True, False)]

    def seeds(self, attrs):
        return self.state[0] if attrs["recurrent"] else self.x, None

    def kept(self):
        gates, _ = self.forward(self.w, self.v, self.b, self.x, self.state)
        return [gates, self.state[0], self.v]

    def forward(self, w, v, b, x, state):
        by_input, by_state = x @ w.T + b[0], state[0] @ v.T + b[1]
        rz, n, q = by_input[:, :4] + by_state[:, :4], by_input[:, 4:], by_state[:, 4:]
        return spec("gru_forward").formula(np.hstack([rz, n, q]), state[0])

    def step(self, *where):
        return [self.forward(*where)[1]]


@case
class affine_tangent(Numbers):
    def operands(self):
        return [self.normal(4, 3), self.normal(2, 3, 5)]

    def check(self, operands, attrs, results):
        w, jx = operands
        for n in range(2):
            close(
                results[0][n], np.array([[w[o] @ jx[n, :, q] for q in range(5)] for o in range(4)])
            )


@case
class weight_tangent(Numbers):
    def attributes(self, every=True):
        return [dict(shape=(2, 3, 12 if every else 3))]

    def calls(self):
        return [
            ([self.normal(2, 4)], dict(shape=(2, 3, 12))),
            ([None], dict(shape=(2, 3, 3))),
        ]

    def check(self, operands, attrs, results):
        x = np.ones((2, 1)) if operands[0] is None else operands[0]
        for n in range(2):
            for output in range(3):
                wanted = np.zeros((3, x.shape[1]))  # d (w x)_output / d w
                wanted[output] = x[n]
                assert np.array_equal(results[0][n, output], wanted.reshape(-1))


@case
class embedding_tangent(Numbers):
    tolerance = 0.0

    def attributes(self, every=True):
        return [dict(shape=(4, 3, 15))]

    def operands(self):
        return [np.array([4, 0, 4, 2])]

    def check(self, operands, attrs, results):
        for n, token in enumerate(operands[0]):
            for width in range(3):
                wanted = np.zeros((5, 3))
                wanted[token, width] = 1
                assert np.array_equal(results[0][n, width], wanted.reshape(-1))


@case
class relu_tangent(Numbers):
    tolerance = 1e-7  # one rounding, of the operand

    def operands(self):
        return [np.maximum(self.normal(4, 5), 0), self.normal(4, 5, 3)]

    def check(self, operands, attrs, results):
        y, j = operands
        for q in range(3):
            assert np.array_equal(
                results[0][:, :, q], spec("relu_gradient").formula(y, j[:, :, q], None)
            )


@case
class dropout_tangent(Numbers):
    def operands(self):
        return [self.normal(4, 6, 3), np.array([3, 9], np.uint32)]

    def attributes(self, every=True):
        return dropout.attributes(self)

    def check(self, operands, attrs, results):
        j, random = operands
        for q in range(3):
            wanted = spec("dropout").formula(j[:, :, q].copy(), random, None, **attrs)
            assert np.array_equal(results[0][:, :, q], wanted)


@case
class tangent_gradient(Numbers):
    tolerance = 5e-6  # a sum over rows and values

    def attributes(self, every=True):
        return [dict(shape=(4, 3))]

    def calls(self):
        return [
            ([self.normal(3, 2), self.normal(3, 2, 12), start], attrs)
            for attrs in self.attributes()
            for start in (None, self.normal(4, 3))
        ]

    def check(self, operands, attrs, results):
        d, j, start = operands
        wanted = sum(d[n, h] * j[n, h] for n in range(3) for h in range(2)).reshape(4, 3)
        close(results[0], wanted + (0 if start is None else start), 1e-13)


def eprop_case(rng):
    """Sums a, c before, what theta was multiplied with, and a trace: of LSTM cells (h = 2)."""
    a, c_before, x, eps = (rng.normal(size=s) for s in ((3, 8), (3, 2), (3, 4), (3, 6, 4)))
    gates, c, _ = spec("lstm_forward").formula(a, c_before)
    return a, c_before, x, eps, gates, c


@case
class lstm_eprop_trace(Numbers):
    def calls(self):
        self.a, c_before, x, eps, gates, _ = eprop_case(self.rng)
        return [
            ([gates, c_before, x, eps], {}),
            ([gates, c_before, None, eps[:, :, :1]], {}),
        ]

    def check(self, operands, attrs, results):
        _, c_before, x, eps = operands
        x = np.ones((3, 1)) if x is None else x
        rows, cells, step = 3, 2, 1e-6
        for n, k, j in np.ndindex(rows, 3 * cells, x.shape[1]):
            # c where the weight of sum k and input j, and c before along its trace, move by `by`
            c = []
            for by in (step, -step):
                a, before = self.a[n : n + 1].copy(), c_before[n : n + 1].copy()
                a[0, k] += by * x[n, j]
                before[0, k % cells] += by * eps[n, k, j]
                c.append(spec("lstm_forward").formula(a, before)[1][0, k % cells])
            assert abs(results[0][n, k, j] - (c[0] - c[1]) / (2 * step)) < 1e-7


@case
class lstm_eprop_gradient(Numbers):
    tolerance = 5e-6  # a sum over rows

    def attributes(self, every=True):
        return [dict(shape=(8, 4))]

    def calls(self):
        self.a, self.c_before, x, eps, gates, c = eprop_case(self.rng)
        d = self.normal(3, 2)
        return [
            ([gates, c, d, x, eps, start], dict(shape=(8, 4)))
            for start in (None, self.normal(8, 4))
        ] + [([gates, c, d, None, eps[:, :, :1], self.normal(8)], dict(shape=(8,)))]

    def check(self, operands, attrs, results):
        _, c, d, x, eps, start = operands
        x, step = np.ones((3, 1)) if x is None else x, 1e-6
        wanted = np.zeros((8, x.shape[1]))
        o = self.a[:, 6:]
        for n, k, j in np.ndindex(3, 8, x.shape[1]):
            cell = k % 2

            def h(by, n=n, k=k, j=j, cell=cell):
                moved = by * (eps[n, k, j] if k < 6 else 0)
                return sig(o[n, cell] + by * x[n, j] * (k >= 6)) * np.tanh(c[n, cell] + moved)

            wanted[k, j] += d[n, cell] * (h(step) - h(-step)) / (2 * step)
        wanted = wanted.reshape(attrs["shape"]) + (0 if start is None else start)
        close(results[0], wanted, 1e-8)


# --- traces of units that do not see each other ----------


class LRUTrace(OfLRU):
    """The derivative of `lru_forward` along a parameter and along the state before at once."""

    def slope(self, e, *, nu=0, theta=0, u=0, step=1e-6):
        above, below = (
            self.forward(
                self.u + by * u, self.nu + by * nu, self.theta + by * theta, self.before + by * e
            )[0]
            for by in (step, -step)
        )
        return (above - below) / (2 * step)

    def draw(self):
        self.eigenvalues()
        self.u, self.before, self.e = (self.normal(3, 10) for _ in range(3))


@case
class lru_decay_trace(LRUTrace):
    def operands(self):
        self.draw()
        return [self.e, self.u, self.before, self.nu, self.theta]

    def check(self, operands, attrs, results):
        close(results[0], self.slope(self.e, nu=1))


@case
class lru_phase_trace(LRUTrace):
    def operands(self):
        self.draw()
        return [self.e, self.before, self.nu, self.theta]

    def check(self, operands, attrs, results):
        close(results[0], self.slope(self.e, theta=1))


@case
class lru_input_trace(LRUTrace):
    def operands(self):
        self.draw()
        return [self.normal(3, 10, 4), self.normal(3, 4), self.nu, self.theta]

    def check(self, operands, attrs, results):
        e, x, *_ = operands
        for j in range(4):  # the real row of B moves the real half of u
            du = np.hstack([np.repeat(x[:, j : j + 1], 5, axis=1), np.zeros((3, 5))])
            close(results[0][:, :, j], self.slope(e[:, :, j], u=du))


@case
class lru_unit_gradient(Numbers):
    def calls(self):
        d, e = self.normal(3, 10), self.normal(3, 10)
        return [([d, e, start], {}) for start in (None, self.normal(5))]

    def check(self, operands, attrs, results):
        d, e, start = operands
        wanted = np.array([np.vdot(d[:, [h, 5 + h]], e[:, [h, 5 + h]]) for h in range(5)])
        close(results[0], wanted + (0 if start is None else start), 1e-13)


@case
class lru_input_gradient(Numbers):
    tolerance = 5e-6  # sums over rows, of both signs

    def calls(self):
        d, e = self.normal(3, 10), self.normal(3, 10, 4)
        return [([d, e, start], {}) for start in (None, self.normal(10, 4))]

    def check(self, operands, attrs, results):
        d, e, start = operands
        d, e = (part[:, :5] + 1j * part[:, 5:] for part in (d, e))
        halves = [np.einsum("nh,nhi->hi", d.conj(), e * turn).real for turn in (1, 1j)]
        wanted = np.concatenate(halves)
        close(results[0], wanted + (0 if start is None else start), 1e-13)


@case
class elementwise_lstm_trace(Numbers):
    tolerance = 5e-6

    def calls(self):
        self.a, self.h, self.c = self.normal(3, 8), self.normal(3, 2), self.normal(3, 2)
        v, x = self.normal(8), self.normal(3, 4)
        sums = spec("diagonal_sum").formula(self.a, v, self.h)
        gates, c, _ = spec("lstm_forward").formula(sums, self.c)
        first = [gates, self.c, c, v]
        eh, ec = self.normal(3, 8, 4), self.normal(3, 8, 4)
        one = [eh[:, :, :1], ec[:, :, :1]]
        return [
            ([*first, eh, ec, x, None], {}),
            ([*first, *one, None, self.h], {}),
            ([*first, *one, None, None], {}),
        ]

    def check(self, operands, attrs, results):
        _, _, _, v, eh, ec, x, h_before = operands
        times = np.ones((3, 1)) if x is None else x
        for k, j in np.ndindex(8, eh.shape[2]):
            cell = k % 2
            m = times[:, j] if h_before is None else h_before[:, cell]
            found = []
            for by in (1e-6, -1e-6):
                a, h, c = self.a.copy(), self.h.copy(), self.c.copy()
                a[:, k] += by * m
                h[:, cell] += by * eh[:, k, j]
                c[:, cell] += by * ec[:, k, j]
                sums = spec("diagonal_sum").formula(a, v, h)
                _, c_after, h_after = spec("lstm_forward").formula(sums, c)
                found.append((h_after[:, cell], c_after[:, cell]))
            for result, above, below in zip(results, *found, strict=True):
                close(result[:, k, j], (above - below) / 2e-6, 1e-7)


@case
class elementwise_lstm_gradient(Numbers):
    tolerance = 5e-6  # a sum over rows

    def attributes(self, every=True):
        return [dict(shape=(8, 4))]

    def calls(self):
        d, e = self.normal(3, 2), self.normal(3, 8, 4)
        calls = [([d, e, start], dict(shape=(8, 4))) for start in (None, self.normal(8, 4))]
        return [*calls, ([d, e[:, :, :1], self.normal(8)], dict(shape=(8,)))]

    def check(self, operands, attrs, results):
        d, e, start = operands
        wanted = np.zeros(e.shape[1:])
        for n, k in np.ndindex(3, 8):
            wanted[k] += d[n, k % 2] * e[n, k]
        close(results[0], wanted.reshape(attrs["shape"]) + (0 if start is None else start), 1e-13)


# --- eligibility traces of spiking cells ----------

OF_THRESHOLD = dict(threshold=0.6, beta=0.4)


@case
class leaky_trace(Numbers):
    def attributes(self, every=True):
        return [dict(decay=0.8)]

    def calls(self):
        attrs = self.attributes()[0]
        return [([self.normal(3, 4), x], attrs) for x in (self.normal(3, 4), None)]

    def check(self, operands, attrs, results):
        eps, x = operands
        x = np.ones_like(eps) if x is None else x
        forward = spec("leaky_forward").formula  # of neurons with one input each
        moved = [forward(by * x, by * eps, decay=0.8) for by in (1e-6, -1e-6)]
        close(results[0], (moved[0] - moved[1]) / 2e-6)


@case
class leaky_trace_gradient(Numbers):
    tolerance = 5e-6  # a sum over rows

    def attributes(self, every=True):
        return [dict(shape=(5, 4))]

    def calls(self):
        d, eps = self.normal(3, 5), self.normal(3, 4)
        calls = [([d, eps, start], dict(shape=(5, 4))) for start in (None, self.normal(5, 4))]
        return [*calls, ([d, eps[:, :1], self.normal(5)], dict(shape=(5,)))]

    def check(self, operands, attrs, results):
        d, eps, start = operands
        wanted = sum(np.outer(d[n], eps[n]) for n in range(3)).reshape(attrs["shape"])
        close(results[0], wanted + (0 if start is None else start), 1e-13)


@case
class adaptation_trace(Spikes):
    constants = OF_THRESHOLD | {"rho": 0.9}

    def operands(self):
        self.v, self.a = self.normal(3, 5), self.normal(3, 5) ** 2
        return [self.v, self.a, self.normal(3, 4), self.normal(3, 5, 4)]

    def check(self, operands, attrs, results):
        v, a, eps_v, eps_a = operands
        at = v - 0.6 - 0.4 * a
        for j in range(4):

            def adaptation(by, j=j):
                moved_v, moved_a = v + by * eps_v[:, j : j + 1], a + by * eps_a[:, :, j]
                return 0.9 * moved_a + self.moved_spike(moved_v - 0.6 - 0.4 * moved_a, at, attrs)

            wanted = (adaptation(1e-6) - adaptation(-1e-6)) / 2e-6
            close(results[0][:, :, j], wanted, 1e-7)


@case
class spike_gradient(Spikes):
    constants = OF_THRESHOLD

    def calls(self):
        v, dz = self.normal(3, 5), self.normal(3, 5)
        return [
            ([v, a, dz], one) for one in self.attributes() for a in (self.normal(3, 5) ** 2, None)
        ]

    def check(self, operands, attrs, results):
        v, a, dz = operands
        at = v - 0.6 - (0 if a is None else 0.4 * a)

        def forward(moved):
            return (self.moved_spike(at + moved, at, attrs),)

        close(results[0], difference(forward, [np.zeros_like(v)], 0, (dz,)), 1e-7)


@case
class alif_eprop_gradient(Numbers):
    tolerance = 5e-6  # a sum over rows

    def attributes(self, every=True):
        return [dict(beta=0.4, shape=(5, 4))]

    def calls(self):
        du, eps_v, eps_a = self.normal(3, 5), self.normal(3, 4), self.normal(3, 5, 4)
        starts = (None, self.normal(5, 4))
        calls = [([du, eps_v, eps_a, start], dict(beta=0.4, shape=(5, 4))) for start in starts]
        narrow = [du, eps_v[:, :1], eps_a[:, :, :1], self.normal(5)]
        return [*calls, (narrow, dict(beta=0.4, shape=(5,)))]

    def check(self, operands, attrs, results):
        du, eps_v, eps_a, start = operands
        wanted = np.zeros(eps_a.shape[1:])
        for n, h in np.ndindex(3, 5):
            wanted[h] += du[n, h] * (eps_v[n] - 0.4 * eps_a[n, h])
        close(results[0], wanted.reshape(attrs["shape"]) + (0 if start is None else start), 1e-13)


@case
class cross_entropy_sum(Numbers):
    def calls(self):
        counted = np.array([4], np.int32)
        return [
            ([self.normal(4, 5), np.array(t, np.int32), self.normal(1), counted], {})
            for t in ([0, 4, 2, 2], [1, -1, 0, -1], [-1] * 4)
        ]

    def check(self, operands, attrs, results):
        logits, target, total, count = operands
        labelled = np.count_nonzero(target >= 0)
        d, mean = spec("cross_entropy").formula(logits, target)
        close(results[0], d * labelled, 1e-13)
        close(results[1], total + mean * labelled, 1e-13)
        assert results[2] == count + labelled


@case
class squared_error_sum(Numbers):
    def calls(self):
        some, counted = self.normal(4, 5), np.array([10], np.int32)
        some[[0, 2]] = np.nan
        return [
            ([self.normal(4, 5), t, self.normal(1), counted], {}) for t in (self.normal(4, 5), some)
        ]

    def check(self, operands, attrs, results):
        y, target, total, count = operands
        numbers = np.count_nonzero(~np.isnan(target))
        d, mean = spec("squared_error").formula(y, target)
        close(results[0], d * numbers, 1e-13)
        close(results[1], total + mean * numbers, 1e-13)
        assert results[2] == count + numbers


@case
class average(Numbers):
    def calls(self):
        return [([self.normal(3, 4), np.array([n], np.int32)], {}) for n in (0, 1, 7)]

    def check(self, operands, attrs, results):
        total, count = operands
        close(results[0], total if count[0] == 0 else total / count[0], 1e-13)


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def private(operands, dtype=None):
    """Copies; floats in another dtype where one is given."""
    return [
        None if o is None else o.copy() if dtype is None or o.dtype.kind != "f" else o.astype(dtype)
        for o in operands
    ]


def test_there_is_one_case_class_for_every_operation():
    assert set(CASES) == set(table())


@pytest.mark.parametrize("kind", KINDS)
def test_numbers(kind):
    print(f"seed {SEED}: FPTT_SEED={SEED} repeats this run")
    one, entry = CASES[kind](), spec(kind)
    for operands, attrs in one.calls():
        results = as_tuple(entry.formula(*private(operands), **attrs))
        assert all(r is None or np.isfinite(r).all() for r in results)
        one.check(operands, attrs, results)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_in_float32(kind):
    """Results stay float32 and lie within the case's tolerance of float64."""
    print(f"seed {SEED}: FPTT_SEED={SEED} repeats this run")
    one, entry = CASES[kind](), spec(kind)
    for operands, attrs in one.calls():
        exact = as_tuple(entry.formula(*private(operands), **attrs))
        single = as_tuple(entry.formula(*private(operands, np.float32), **attrs))
        for found, wanted in zip(single, exact, strict=True):
            assert (found is None) == (wanted is None)
            if found is None or wanted.dtype.kind != "f":
                continue
            assert found.dtype == np.float32 or kind == "fill"
            assert np.isfinite(found).all()
            close(found.astype(float), wanted, one.tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_operands_are_left_alone(kind):
    """A formula is pure, except where the table allows it to work in place."""
    one, entry = CASES[kind](), spec(kind)
    for operands, attrs in one.calls():
        given = private(operands)
        entry.formula(*given, **attrs)
        for operand, before, after in zip(entry.inputs, operands, given, strict=True):
            own_place = any(operand.name == source for source, _ in entry.in_place)
            if before is not None and not (kind == "embedding_gradient" and own_place):
                assert np.array_equal(before, after, equal_nan=True), operand.name
