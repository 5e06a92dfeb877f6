"""Mistakes, as exact replacements in the source, each of which must turn some test red.

    python tests/mutations.py              every mutation; exit code 1 if one survives
    python tests/mutations.py GRU carry    those whose names contain a word

For every mutation src is copied, the replacements are made (each old text must stand exactly once
in its file), and the tests that the mutation names run on the copy. They must fail with pytest's
exit code 1: 2 to 5 mean that nothing was tested. Before that, all these tests must pass on a copy
without mutation.

To be quick, one server process loads PyTorch and pytest once and forks for every run; fptt is
loaded after the fork, from the copy, and a plugin makes sure of it.
"""

from __future__ import annotations

import compileall
import gc
import importlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
#: exit code of a run that did not import the copy
WRONG_COPY = 99


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Attributes:
        name: what is wrong.
        edits: (file below src/fptt, old text, new text).
        tests: node ids below tests/, some of which must fail.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


class StaleMutation(Exception):
    """A mutation's old text does not stand exactly once in the source."""


MUTATIONS: list[Mutation] = []


def mutation(name, *edits, tests):
    tests = (tests,) if isinstance(tests, str) else tests
    MUTATIONS.append(Mutation(name, edits, tuple(tests)))


CELLS, UPDATES = "program/opset/cells.py", "program/opset/updates.py"
LOSSES, TRAINING = "program/opset/losses.py", "program/training.py"
SIMPLE, PRODUCTS = "program/opset/elementwise.py", "program/opset/products.py"


def gradients(cell, loss="last-cross_entropy", parts=3):
    return f"test_gradients.py::test_cell_gradients[{cell}-{parts}-{loss}-float64]"


def trajectory(cell="LSTM", rule="FPTT-code", objective="last-ce", optimizer="SGD"):
    return f"test_trajectories.py::test_every_combination[{cell}-{rule}-{objective}-{optimizer}]"


PAPER = trajectory(rule="FPTT-paper")

# --- cells ----------

mutation(
    "LSTM: gates i and f swapped",
    (
        CELLS,
        "a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)",
        "a_f, a_i, a_g, a_o = np.split(a, 4, axis=1)",
    ),
    tests=gradients("LSTM"),
)
mutation(
    "LSTM: gates f and o swapped throughout",
    (
        CELLS,
        "a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)",
        "a_i, a_o, a_g, a_f = np.split(a, 4, axis=1)",
    ),
    (
        CELLS,
        "return np.concatenate((i, f, g, o), axis=1), c,",
        "return np.concatenate((i, o, g, f), axis=1), c,",
    ),
    (CELLS, "i, f, g, o = np.split(gates, 4, axis=1)", "i, o, g, f = np.split(gates, 4, axis=1)"),
    (
        CELLS,
        "return np.concatenate(da, axis=1), dc * f",
        "return np.concatenate((da[0], da[3], da[2], da[1]), axis=1), dc * f",
    ),
    tests=gradients("LSTM"),
)
mutation(
    "LSTM: carry path of dc dropped",
    (
        CELLS,
        "return np.concatenate(da, axis=1), dc * f",
        "return np.concatenate(da, axis=1), dc * 0",
    ),
    tests=gradients("LSTM"),
)
mutation(
    "LSTM: derivative of tanh(c) dropped",
    (CELLS, "dc = dc + dh * o * (1 - tanh_c * tanh_c)", "dc = dc + dh * o"),
    tests=gradients("LSTM", parts=11),
)
mutation(
    "LSTM: forget gate's gradient takes c instead of c before",
    (CELLS, "dc * c_before * (f * (1 - f))", "dc * c * (f * (1 - f))"),
    tests=gradients("LSTM"),
)
for cell in ("LSTM", "GRU", "RNN"):
    mutation(
        f"{cell}: h instead of h before in the gradient of weight_hh",
        (
            "nets/layer.py",
            'sources = {"weight_ih": x, "weight_hh": self.state(e)[0].all(-1)}',
            'sources = {"weight_ih": x, "weight_hh": self.state(e)[0].all()}',
        ),
        tests=gradients(cell),
    )
mutation(
    "LSTM: no gradient through h to the step before",
    (
        "nets/lstm.py",
        'e.emit("product", [gates, weight_hh, None], [dh], after_first=True)',
        'e.emit("fill", [], [dh], value=0.0)',
    ),
    tests=gradients("LSTM"),
)
mutation(
    "GRU: r applied to the whole sum",
    (CELLS, "n = np.tanh(a_n + r * q)", "n = np.tanh(r * (a_n + q))"),
    tests=gradients("GRU"),
)
mutation(
    "GRU: z and 1 - z swapped",
    (CELLS, "(1 - z) * n + z * h_before", "z * n + (1 - z) * h_before"),
    tests=gradients("GRU"),
)
mutation(
    "GRU: path through z to h before dropped",
    (CELLS, "da_n, da_n * r), axis=1), dh * z", "da_n, da_n * r), axis=1), dh * 0"),
    tests=gradients("GRU"),
)
mutation(
    "GRU: the gradient of q is that of n",
    (
        CELLS,
        "np.concatenate((da_r, da_z, da_n, da_n * r), axis=1)",
        "np.concatenate((da_r, da_z, da_n, da_n), axis=1)",
    ),
    tests=gradients("GRU"),
)
mutation(
    "GRU: bias_hh joins bias_ih outside r",
    (
        "nets/gru.py",
        "[h.at(before), weight_n, bias_n, None], [q])",
        "[h.at(before), weight_n, None, None], [q])",
    ),
    tests=gradients("GRU"),
)
mutation(
    "RNN: derivative of tanh is 1 - y",
    (CELLS, "dh * (1 - y * y)", "dh * (1 - y)"),
    tests=gradients("RNN"),
)

# --- spiking cells ----------

SPIKES = "program/opset/spiking.py"


def spiking(cell):
    return f"test_spiking.py::test_cell_gradients[{cell}-3-last-cross_entropy]"


for cell in ("LIF", "ALIF", "LTC"):
    mutation(
        f"{cell}: the surrogate's side lobes are added",
        (SPIKES, "* peak - lobes * side_peak", "* peak + lobes * side_peak"),
        tests=spiking(cell),
    )
mutation(
    "LIF: triangle without its width in the height",
    (SPIKES, "(gamma / width**2)", "(gamma / width)"),
    tests="test_spiking.py::test_stack_gradients[other constants-last-kept]",
)
mutation(
    "LIF: no gradient through the potential to the step before",
    (SPIKES, "return dcurrent, dcurrent * decay\n", "return dcurrent, dcurrent * 0\n"),
    tests=spiking("LIF"),
)
mutation(
    "LIF: reset takes the spike of the same step",
    (
        SPIKES,
        "    v = v_before * decay + current - z_before * threshold\n"
        "    return v, _spikes(v - threshold)",
        "    v = v_before * decay + current\n"
        "    return v - _spikes(v - threshold) * threshold, _spikes(v - threshold)",
    ),
    tests=spiking("LIF"),
)
mutation(
    "LIF: gradient through the reset",
    ("nets/lif.py", "self.emit_below(e, dx, start, None)", "self.emit_below(e, dx, start, dz)"),
    tests=spiking("LIF"),
)
mutation(
    "ALIF: spikes before do not feel what the adaptation costs",
    ("nets/alif.py", "self.emit_below(e, dx, start, dz)", "self.emit_below(e, dx, start, None)"),
    tests=spiking("ALIF"),
)
mutation(
    "ALIF: no gradient from a spike to the adaptation",
    (
        SPIKES,
        "    da = da - s * beta\n    return dcurrent, da,",
        "    da = da * 1\n    return dcurrent, da,",
    ),
    tests=(
        spiking("ALIF"),
        "test_spiking.py::test_eligibility_traces_of_e_prop_give_the_gradient_of_neurons_that_do_not_see_each_other",
    ),
)
mutation(
    "ALIF: adaptation forgets as fast as the potential",
    (SPIKES, "dcurrent * decay, da * rho", "dcurrent * decay, da * decay"),
    tests=spiking("ALIF"),
)
mutation(
    "LTC: no gradient through the reset",
    (SPIKES, "(dz - u * dv)", "dz"),
    tests=spiking("LTC"),
)
mutation(
    "LTC: the potential's gradient passes a reset",
    (SPIKES, "np.where(z > 0, np.zeros_like(dv), dv)", "dv"),
    tests=spiking("LTC"),
)
mutation(
    "LTC: m and r swapped in the gradient",
    (SPIKES, "np.concatenate((dm, dr), axis=1)", "np.concatenate((dr, dm), axis=1)"),
    tests=spiking("LTC"),
)
mutation(
    "LTC: the current's gradient lacks what the time constants add",
    (
        "nets/ltc.py",
        'e.emit("product", [of_gate, from_current, dcurrent], [dcurrent])',
        "pass",
    ),
    tests=spiking("LTC"),
)
mutation(
    "LTC: gradient of W_vm from the potential of the same step",
    (
        "nets/ltc.py",
        "current, v.all(-1), a.all(-1), add=False",
        "current, v.all(), a.all(-1), add=False",
    ),
    tests=spiking("LTC"),
)
mutation(
    "LTC, recompute: gradient of W_ar from the adaptation of the same step",
    (
        "nets/ltc.py",
        "current, v.at(-1), a.at(-1), add=True",
        "current, v.at(-1), a.at(0), add=True",
    ),
    tests="test_spiking.py::test_stack_gradients[Linear-LTC-LTC-Linear-last-recompute]",
)
mutation(
    "LeakyIntegrator: nothing leaks",
    (SPIKES, "np.asarray(y_before * decay + current)", "np.asarray(y_before + current)"),
    tests=spiking("LIF"),
)
mutation(
    "LeakyIntegrator: no gradient to earlier steps",
    (SPIKES, "return dy, dy * decay", "return dy, dy * 0"),
    tests=spiking("LIF"),
)
for cell, line in (
    ("ALIF", "a = layer.rho * a + z"),
    ("LTC", "u = v + m * (i - v)"),
):
    mutation(
        f"torch: {cell}: the spike passes no gradient on",
        (
            "torch/spiking.py",
            line,
            line.replace("a + z", "a + z.detach()").replace("(i", "(i.detach()"),
        ),
        tests=f"test_spiking.py::test_the_module_is_the_layer[{cell}-defaults]",
    )
mutation(
    "torch: LIF: gradient through the reset",
    (
        "torch/spiking.py",
        "- layer.threshold * z.detach()\n        return",
        "- layer.threshold * z\n        return",
    ),
    tests="test_spiking.py::test_the_module_is_the_layer[LIF-defaults]",
)

# --- layers and the order of things ----------

mutation(
    "no carry of the state between parts",
    (TRAINING, 'self.emit("copy", [buffer.last()], [buffer.initial()])', "pass"),
    tests=gradients("RNN"),
)
mutation(
    "state not reset between sequences",
    (TRAINING, 'if rule.state == "reset":', 'if rule.state == "never":'),
    tests=trajectory("RNN"),
)
mutation(
    "state reset where it should be carried",
    (TRAINING, 'if rule.state == "reset":', "if True:"),
    tests="test_sequences.py::test_state_between_batches[LSTM-carry-TBPTT]",
)
mutation(
    "every_step: the head's gradient replaces that of the steps after",
    (
        TRAINING,
        "self._head_gradient(self.body_end, in_loop=True), dh, dh)",
        "self._head_gradient(self.body_end, in_loop=True), dh, None)",
    ),
    tests=gradients("GRU", "every_step-mse"),
)
mutation(
    "stack: the upper layer's gradient replaces that of the steps after",
    (TRAINING, "return dh, dh\n        return", "return dh, None\n        return"),
    tests="test_gradients.py::test_stack_gradients[LSTM-LSTM-Linear-last-cross_entropy-float64]",
)
mutation(
    "bias gradient is a mean over the rows",
    (PRODUCTS, "total: Array = dy.sum(axis=0)", "total: Array = dy.mean(axis=0)"),
    tests=gradients("LSTM"),
)
mutation(
    "ReLU lets gradients through at 0",
    (SIMPLE, "np.where(y > 0, dy", "np.where(y >= 0, dy"),
    tests="test_gradients.py::test_stack_gradients["
    "LSTM-Linear-ReLU-Linear-last-cross_entropy-float64]",
)
mutation(
    "embedding: a token that comes twice counts once",
    (SIMPLE, "np.add.at(start, token, dy)", "start[token] += dy"),
    tests=(
        "test_gradients.py::test_stack_gradients[Embedding-LSTM-Linear-last-cross_entropy-float64]"
    ),
)
mutation(
    "dropout left on in prediction",
    ("nets/dropout.py", "if training:", "if True:"),
    tests="test_gradients.py::test_dropout_is_off_in_inference_and_on_in_training",
)
mutation(
    "dropout does not scale by 1 / (1 - p)",
    (
        SIMPLE,
        "np.where(keep, x * (1 / (1 - p)), np.zeros_like(x))",
        "np.where(keep, x, np.zeros_like(x))",
    ),
    tests="test_op_table.py::test_numbers[dropout]",
)
mutation(
    "dropout: another mask in the backward pass",
    (
        "nets/dropout.py",
        "self._masked(e, dy, dx, start)",
        (
            'e.emit("dropout", [dy, e.random_state.whole, start], [dx], p=float(self.p), '
            "layer=e.index + 1)"
        ),
    ),
    tests="test_dropout.py::test_forward_and_backward_use_the_same_mask",
)
mutation(
    "dropout: the same mask for every sequence",
    ("program/opset/movement.py", "(int(random[1]) + 1) & 0xFFFFFFFF", "random[1]"),
    tests="test_dropout.py::test_every_sequence_gets_another_mask",
)
mutation(
    "dropout: the mask depends on the step within the part",
    (
        "reference/interpreter.py",
        "steps = np.full(len(rows), frame.begin + t)",
        "steps = np.full(len(rows), t)",
    ),
    tests="test_dropout.py::test_uniform_numbers_reach_operations_by_absolute_step",
)

mutation(
    "dropout: an endless stream repeats its masks",
    ("training/stream.py", "elif self.position == 0:", "elif False:"),
    tests="test_dropout.py::test_an_endless_stream_is_a_row_of_batches",
)

# --- parts, losses ----------

mutation(
    "the running mean starts at zero",
    (
        "rules/fptt.py",
        'e.emit("copy", [theta.whole], [mean.whole])',
        'e.emit("fill", [], [mean.whole], value=0.0)',
    ),
    tests=trajectory(),
)
mutation(
    "Q starts at zero",
    ("rules/losses.py", "value=1 / classes", "value=0.0"),
    tests=trajectory(objective="aux-ce"),
)
mutation(
    "one step is kept of the input of the lowest layer that trains",
    (
        "program/training.py",
        "feeds_gradient = self._source.keeps_steps and end == self.lowest < self.body_end",
        "feeds_gradient = False",
    ),
    tests="test_frozen.py",
)
mutation(
    "parts drop the tail",
    (
        "rules/rule.py",
        "(p * steps // self.parts, (p + 1) * steps // self.parts)",
        "(p * (steps // self.parts), (p + 1) * (steps // self.parts))",
    ),
    tests=gradients("RNN"),
)
mutation(
    "parts are cut one step late",
    (
        "rules/rule.py",
        "(p * steps // self.parts, (p + 1) * steps // self.parts)",
        "(-(-p * steps // self.parts), -(-(p + 1) * steps // self.parts))",
    ),
    tests=gradients("RNN"),
)
mutation(
    "a sequence takes one step more than its length",
    ("program/frame.py", "bisect.bisect_right", "bisect.bisect_left"),
    tests="test_gradients.py::test_unequal_length_gradients["
    "RNN-last-cross_entropy-[11, 1, 4, 8, 3]]",
)
mutation(
    "the loss of a short row is at the part's last step",
    ("program/frame.py", "return self.rows[-1] != self.rows[0]", "return False"),
    tests="test_sequences.py::test_unequal_lengths[LSTM-last-ce-mixed]",
)
mutation(
    "cross-entropy averages over all rows instead of the labelled",
    (
        LOSSES,
        (
            "label, share = target[rows], 1 / max(len(rows), 1)\n"
            "    probability, surprise = _softmax(logits)\n    d = probability"
        ),
        (
            "label, share = target[rows], 1 / max(len(target), 1)\n"
            "    probability, surprise = _softmax(logits)\n    d = probability"
        ),
    ),
    tests="test_gradients.py::test_part_without_labels_has_no_gradient",
)
mutation(
    "squared error is summed over the outputs",
    (LOSSES, "share = 1 / max(len(rows) * y.shape[1], 1)", "share = 1 / max(len(rows), 1)"),
    tests=gradients("RNN", "last-mse"),
)
mutation(
    "a part without labels updates all the same",
    ("training/parts.py", "if self._counts(targets, frame):", "if True:"),
    tests="test_sequences.py::test_missing_labels[whole part]",
)
mutation(
    "auxiliary: b = (p - 1)/K",
    (
        "training/parts.py",
        "np.full(rows, (frame.part + 1) / self.program.rule.parts)",
        "np.full(rows, frame.part / self.program.rule.parts)",
    ),
    tests=trajectory(objective="aux-ce"),
)
mutation(
    "auxiliary: b and 1 - b swapped",
    (
        LOSSES,
        ("soft = (1 - b)[:, None] * q[row_of_q]\n    soft[np.arange(len(rows)), label] += b"),
        "soft = b[:, None] * q[row_of_q]\n    soft[np.arange(len(rows)), label] += 1 - b",
    ),
    tests=trajectory(objective="aux-ce"),
)
mutation(
    "auxiliary: Q of the wrong class in the loss",
    (LOSSES, "soft = (1 - b)[:, None] * q[row_of_q]", "soft = (1 - b)[:, None] * q[row_of_q - 1]"),
    tests=trajectory(objective="aux-ce"),
)
mutation(
    "auxiliary: Q of the wrong class learns",
    (
        LOSSES,
        "for row, of in zip(rows, row_of_q, strict=True):",
        "for row, of in zip(rows, row_of_q[::-1], strict=True):",
    ),
    tests=trajectory(objective="aux-ce"),
)
mutation(
    "auxiliary: Q learns before the end of a sequence",
    (LOSSES, "if per_part or fraction[row] == 1:", "if per_part or fraction[row] > 0:"),
    tests=trajectory(objective="aux-ce"),
)

# --- the wrapper ----------

mutation(
    "lambda dropped from d",
    (UPDATES, "return g - pull + alpha * (theta - mean)", "return g + alpha * (theta - mean)"),
    tests=trajectory(),
)
mutation(
    "sign of R(t) flipped",
    (
        UPDATES,
        "return g - pull + alpha * (theta - mean)",
        "return g + pull - alpha * (theta - mean)",
    ),
    tests=trajectory(),
)
mutation(
    "sign of the pull to the mean flipped",
    (
        UPDATES,
        "return g - pull + alpha * (theta - mean)",
        "return g - pull - alpha * (theta - mean)",
    ),
    tests=trajectory(),
)
mutation(
    "R(t) averaged instead of summed",
    (
        UPDATES,
        "return g - pull + alpha * (theta - mean)",
        "return g - pull + alpha * (theta - mean) / theta.size",
    ),
    tests=trajectory(),
)
mutation(
    "paper: 1 instead of 1/2 in d",
    (UPDATES, 'pull = lam if mode == "code" else 0.5 * lam', "pull = lam"),
    tests=PAPER,
)
mutation(
    "paper: lambda instead of lambda/2 goes on",
    (UPDATES, 'kept = lam if mode == "code" else 0.5 * lam', "kept = lam"),
    tests=PAPER,
)
mutation(
    "lambda learns from theta before the update",
    (
        UPDATES,
        "lam_out = kept - alpha * (theta_out - mean)",
        "lam_out = kept - alpha * (theta - mean)",
    ),
    tests=trajectory(),
)
mutation(
    "lambda learns from the new mean",
    (
        UPDATES,
        (
            "    lam_out = kept - alpha * (theta_out - mean)\n"
            "    mean_out = (1 - beta) * mean + beta * theta_out - (beta / alpha) * lam_out"
        ),
        (
            "    lam_out = kept - alpha * (theta_out - mean)\n"
            "    mean_out = (1 - beta) * mean + beta * theta_out - (beta / alpha) * lam_out\n"
            "    lam_out = kept - alpha * (theta_out - mean_out)"
        ),
    ),
    tests=trajectory(),
)
mutation(
    "stale mean: it never moves",
    (
        UPDATES,
        "_rounded(mean_out, 2, noise, attrs)",
        "_rounded(mean, 2, noise, attrs)",
    ),
    tests=trajectory(),
)
mutation(
    "stale mean: it takes theta before the update",
    (
        UPDATES,
        "mean_out = (1 - beta) * mean + beta * theta_out -",
        "mean_out = (1 - beta) * mean + beta * theta -",
    ),
    tests=trajectory(),
)
mutation(
    "stale mean: it takes the old lambda",
    (UPDATES, "- (beta / alpha) * lam_out", "- (beta / alpha) * lam"),
    tests=trajectory(),
)
mutation(
    "the mean is an alias of theta",
    (
        UPDATES,
        "_rounded(mean_out, 2, noise, attrs)",
        "_rounded(theta_out, 0, noise, attrs)",
    ),
    tests=trajectory(),
)
mutation(
    "beta and 1 - beta swapped",
    (
        UPDATES,
        "mean_out = (1 - beta) * mean + beta * theta_out -",
        "mean_out = beta * mean + (1 - beta) * theta_out -",
    ),
    tests="test_trajectories.py::test_alpha_and_beta[0.5-0.25-code]",
)
mutation(
    "momentum gathers g instead of d",
    (
        UPDATES,
        (
            "    theta_out, first, second = _step(theta, d, lr, first, second, correction, attrs)\n"
            "    kept ="
        ),
        (
            "    theta_out, first, second = _step(theta, g, lr, first, second, correction, attrs)\n"
            "    theta_out = theta_out - lr * (d - g)\n"
            "    kept ="
        ),
    ),
    tests=trajectory(optimizer="momentum"),
)
mutation(
    "clipping looks at g instead of d",
    ("rules/fptt.py", "directed = clip is not None", "directed = False"),
    tests="test_trajectories.py::test_clip_is_the_global_norm_of_d[FPTT-code-0.05]",
)
mutation(
    "clipping by the norm of one tensor",
    ("rules/rule.py", "        start = total\n", "        start = None\n"),
    tests="test_trajectories.py::test_clip_is_the_global_norm_of_d[TBPTT-0.05]",
)
mutation(
    "clipping also lengthens",
    (
        UPDATES,
        "return np.minimum(clip / (np.sqrt(total) + 1e-6), 1)",
        "return clip / (np.sqrt(total) + 1e-6)",
    ),
    tests=(
        "test_trajectories.py::test_clip_is_the_global_norm_of_d[TBPTT-1.0]",
        "test_op_table.py::test_numbers[clip_factor]",
    ),
)
mutation(
    "end of epoch leaves theta",
    ("rules/fptt.py", 'if self.epoch_end == "average":', "if False:"),
    tests="test_trajectories.py::test_end_of_epoch[momentum-average-zero]",
)
mutation(
    "end of epoch leaves lambda",
    ("rules/fptt.py", 'if self.epoch_lambda == "zero":', "if False:"),
    tests="test_trajectories.py::test_end_of_epoch[momentum-average-zero]",
)

# --- optimizers ----------

mutation(
    "Adam: no bias correction of the second moment",
    (UPDATES, "np.sqrt(second / correction[1])", "np.sqrt(second)"),
    tests=trajectory(optimizer="Adam"),
)
mutation(
    "Adam: moments corrected once for every tensor",
    (
        "rules/optimizers.py",
        'first, second = self._moment(e, "adam_m", name), ',
        'self.emit_tick(e)\n        first, second = self._moment(e, "adam_m", name), ',
    ),
    tests=trajectory(optimizer="Adam"),
)
mutation(
    "momentum: velocity scaled by 1 - momentum",
    (
        UPDATES,
        'first = attrs["momentum"] * first + d',
        'first = attrs["momentum"] * first + (1 - attrs["momentum"]) * d',
    ),
    tests=trajectory(optimizer="momentum"),
)

# --- memory, work, numbers, printing, checking ----------

mutation(
    "plan: a buffer dies at its first use",
    (
        "program/plan.py",
        "first_last.setdefault(ref.buffer.name, [clock, clock])[1] = clock",
        "first_last.setdefault(ref.buffer.name, [clock, clock])",
    ),
    tests="test_program_properties.py::"
    "test_nothing_is_clobbered_and_the_peak_holds_the_largest_live_set",
)
mutation(
    "plan: the loss may be overwritten before it is read",
    ("program/plan.py", 'if name == PART[-1] and "loss" in first_last:', "if False:"),
    tests="test_program_properties.py::test_the_loss_outlives_the_part",
)
mutation(
    "plan: the carried slot is no longer its own",
    (
        "program/ir.py",
        "return self.role in PERSISTENT or self.lead > 0",
        "return self.role in PERSISTENT",
    ),
    tests="test_program_properties.py::"
    "test_nothing_is_clobbered_and_the_peak_holds_the_largest_live_set",
)
mutation(
    "memory table: gaps forgotten",
    ("program/plan.py", "planned.arena_bytes - covered,", "0,"),
    tests="test_program_properties.py::test_verify_passes_again_and_the_memory_table_adds_up",
)
mutation(
    "work: one addition of the LSTM forgotten",
    (CELLS, "EWO_combo=(16, 6, 0)", "EWO_combo=(16, 5, 0)"),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "work: rows that ended still count",
    (
        "program/count.py",
        "for rows, steps in Counter(frame.rows[op.after_first :]).items():",
        "for rows, steps in {frame.rows[0]: frame.steps}.items():",
    ),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "work: the first step of a part counts like the others",
    ("program/count.py", "Counter(frame.rows[op.after_first :])", "Counter(frame.rows)"),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "work: the first step's product is computed all the same",
    ("reference/interpreter.py", "if t > 0 or not op.after_first:", "if True:"),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "no gradient reaches the step before",
    ("reference/interpreter.py", "if t > 0 or not op.after_first:", "if not op.after_first:"),
    tests=gradients("LSTM"),
)
mutation(
    "no gradient reaches the first step",
    (
        "reference/interpreter.py",
        "if t > 0 or not op.after_first:",
        "if t > 1 or not op.after_first:",
    ),
    tests=gradients("RNN"),
)
mutation(
    "verify: a loop forwards may leave its first turn out",
    (
        "program/verify.py",
        "if op.after_first and not (loop and loop.reverse):",
        "if op.after_first and not loop:",
    ),
    tests="test_verify.py::test_first_step",
)
mutation(
    "text: the first step is not mentioned",
    ("program/text.py", '"if t > 0: " if op.after_first else ""', '""'),
    tests="test_golden_text.py::test_a_program_prints_as_before[lstm_fptt]",
)
mutation(
    "input and state: the state is left out",
    (
        PRODUCTS,
        "return multiply_add(h, v.T, multiply_add(x, w.T, bias, start))",
        "return multiply_add(x, w.T, bias, start)",
    ),
    tests=("test_op_table.py::test_numbers[affine_sum]", gradients("LSTM")),
)
mutation(
    "work: input and state start two sums",
    (
        PRODUCTS,
        "multiply_add(h, v.T, multiply_add(x, w.T, bias, start))",
        "multiply_add(x, w.T, bias, multiply_add(h, v.T, start))",
    ),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "least work: every step of the way back reads the weights",
    ("bench/floor.py", "for op in ops if not op.after_first)", "for op in ops)"),
    tests="test_bench_command.py::test_least_work_of_lstm",
)
mutation(
    "rounding at random: every update draws the same",
    ("program/bfloat16.py", "[which, tensor, update, 0]", "[which, tensor, 0, 0]"),
    tests="test_stochastic_rounding.py::test_what_tells_random_numbers_apart",
)
mutation(
    "rounding at random: theta, lambda and m draw the same",
    ("program/bfloat16.py", "[which, tensor, update, 0]", "[0, tensor, update, 0]"),
    tests="test_op_table.py::test_numbers[fptt_update]",
)
mutation(
    "rounding at random: NaN becomes a number",
    (
        "program/bfloat16.py",
        "np.where(np.isfinite(single), rounded.view(np.float32), single)",
        "rounded.view(np.float32)",
    ),
    tests="test_stochastic_rounding.py::"
    "test_numbers_that_bfloat16_holds_and_those_that_are_none_stay",
)
mutation(
    "rounding at random: always away from zero",
    ("program/bfloat16.py", "(noise & np.uint32(0xFFFF))) &", "np.uint32(0xFFFF)) &"),
    tests="test_stochastic_rounding.py::test_the_mean_of_many_is_the_value",
)
mutation(
    "rounding at random: updates are not counted",
    ("rules/rule.py", 'e.emit("next_sequence", [e.noise], [e.noise])', "pass"),
    tests="test_stochastic_rounding.py::test_every_update_has_its_number",
)
mutation(
    "rounding at random: pieces of a tensor draw the same",
    (TRAINING, '{"first_row": self.rows[0]} if self.rows else {}', "{}"),
    tests="test_stochastic_rounding.py::test_every_number_of_a_program_has_random_bits_of_its_own",
)
mutation(
    "rounding at random: the seed has no part in it",
    ("trainer.py", "np.array([self.seed, 0], np.uint32)", "np.array([0, 0], np.uint32)"),
    tests="test_stochastic_rounding.py::test_the_seed_decides",
)
mutation(
    "rounding at random: a snapshot forgets it",
    ("storage/snapshot.py", 'rounding=config.get("rounding", "nearest")', 'rounding="nearest"'),
    tests="test_stochastic_rounding.py::test_a_snapshot_goes_on_with_the_same_bits",
)
mutation(
    "rounding at random: snapshots from before it are refused",
    ("storage/snapshot.py", 'its = {"rounding": "nearest", "recompute": False, **its}', "pass"),
    tests="test_files.py::test_a_snapshot_that_fptt_wrote_before_there_were_slots",
)
mutation(
    "an engine that is gone keeps its threads",
    ("native/engine.py", "weakref.finalize(self, _stop, self._pool)", "pass"),
    tests="test_native_threads.py::test_an_engine_that_is_gone_stops_its_threads",
)
mutation(
    "work: a lookup moves the whole table",
    (SIMPLE, 'touched="table:n,e",', 'touched="",'),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "bfloat16: truncation instead of rounding",
    (
        "program/bfloat16.py",
        "(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))",
        "bits",
    ),
    tests="test_bfloat16.py::test_rounding_around_every_pattern",
)
mutation(
    "bfloat16: ties away from zero",
    (
        "program/bfloat16.py",
        "(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))",
        "(bits + np.uint32(0x8000))",
    ),
    tests="test_bfloat16.py::test_rounding_around_every_pattern",
)
mutation(
    "bfloat16: what is computed is stored unrounded in float32 places",
    (
        "program/builder.py",
        "dtype or (self.activation_dtype if activation else self.dtype)",
        "dtype or self.dtype",
    ),
    tests="test_bfloat16.py::test_which_buffers_are_bfloat16",
)
mutation(
    "Philox: nine rounds",
    ("program/philox.py", "for _ in range(10):", "for _ in range(9):"),
    tests="test_dropout.py::test_known_answers_of_philox4x32_10",
)
mutation(
    "plan: buffers start anywhere",
    ("program/plan.py", "return -(-offset // step) * step", "return -(-offset // 4) * 4"),
    tests="test_program_properties.py::test_verify_passes_again_and_the_memory_table_adds_up",
)
mutation(
    "an arena that is too small is taken",
    ("program/arena.py", "if self.arena.nbytes < planned.arena_bytes:", "if False:"),
    tests="test_program_properties.py::test_an_arena_of_one_byte_less_is_refused",
)
mutation(
    "the arena must be larger than planned",
    (
        "program/arena.py",
        "if self.arena.nbytes < planned.arena_bytes:",
        "if self.arena.nbytes <= planned.arena_bytes:",
    ),
    tests="test_program_properties.py::test_an_arena_of_one_byte_less_is_refused",
)
mutation(
    "interpreter: reads a step that did not run",
    (
        "reference/interpreter.py",
        "chosen = view[first + frame.steps - 1, :rows]",
        "chosen = view[-1, :rows]",
    ),
    tests="test_program_properties.py::test_a_part_relies_on_nothing_that_does_not_persist",
)
mutation(
    "interpreter: an operation clears what lies beside its rows",
    (
        "reference/interpreter.py",
        "                self._write(ref, frame, t, result)",
        (
            "                self._write(ref, frame, t, result)\n"
            "                if ref.index == 'step':\n"
            "                    self._views[ref.buffer.name][:, frame.rows[t]:] = 0"
        ),
    ),
    tests="test_program_properties.py::"
    "test_nothing_is_clobbered_and_the_peak_holds_the_largest_live_set",
)
mutation(
    "interpreter: strays into a gap",
    (
        "reference/interpreter.py",
        "                self._write(ref, frame, t, result)",
        (
            "                self._write(ref, frame, t, result)\n"
            "                if ref.buffer.name == 'lr' or op.kind == 'copy':\n"
            "                    self.arena[-1] ^= 1"
        ),
    ),
    tests="test_program_properties.py::test_memory_outside_the_plan_stays_untouched",
)
mutation(
    "text: the offset lies",
    ("program/text.py", "_buffer(buffer, program.plan.offsets[buffer.name])", "_buffer(buffer, 0)"),
    tests=("test_golden_text.py::test_a_program_says_all_that_it_holds"),
)
mutation(
    "program imports a consumer",
    (
        "program/frame.py",
        "from functools import cached_property",
        "from functools import cached_property\n\nimport fptt.reference.interpreter",
    ),
    tests="test_imports.py::test_direction_of_imports",
)
mutation(
    "import fptt loads what only some need",
    (
        "__init__.py",
        "from fptt.storage.snapshot import load",
        ("import ml_dtypes\nfrom fptt.storage.snapshot import load"),
    ),
    tests="test_imports.py::test_import_loads_nothing_heavy",
)

# --- gradients without memory, layouts, two back ends ----------

APPLIED = "test_applied_gradients.py::"
EXPLOSIONS = "test_trainer.py::test_an_explosion_keeps_the_last_good_state"
mutation(
    "layout: every matrix lies by rows",
    ("program/arena.py", "if buffer.transposed:", "if False:"),
    tests=APPLIED + "test_tall_matrices_lie_by_columns",
)
mutation(
    "layout: what is shaped like a parameter lies by rows",
    (
        "program/builder.py",
        "theta.inner, role, transposed=theta.transposed",
        "theta.inner, role",
    ),
    tests=APPLIED + "test_tall_matrices_lie_by_columns",
)
mutation(
    "layout: tables lie by columns",
    (
        "nets/layer.py",
        "if self.by_columns is not None:",
        "if self.by_columns:",
    ),
    tests=APPLIED + "test_tall_matrices_lie_by_columns",
)
mutation(
    "layout: the engine takes every matrix for one by rows",
    ("native/compile.py", "to.transposed = buffer.transposed", "to.transposed = False"),
    tests=APPLIED + "test_a_part_of_so_many_rows_that_a_gradient_is_summed_in_batches",
)
mutation(
    "applied gradients: rows chosen of the parameter alone",
    (TRAINING, "ref.buffer.inner != theta.inner", "ref.buffer != theta"),
    tests=APPLIED + "test_applied_gradients_teach_what_kept_ones_teach",
)
mutation(
    "applied gradients: rows chosen of nothing",
    (TRAINING, "ref is None or self.rows is None or", "True or"),
    tests=APPLIED + "test_applied_gradients_teach_what_kept_ones_teach",
)
mutation(
    "applied gradients: only the first piece",
    (
        TRAINING,
        "in self._applied[gradient.buffer.name]:",
        "in self._applied[gradient.buffer.name][:1]:",
    ),
    tests=APPLIED + "test_applied_gradients_teach_what_kept_ones_teach",
)
mutation(
    "applied gradients: in spite of clipping",
    (
        "program/build.py",
        "keep_gradients=keep_gradients or clip is not None",
        "keep_gradients=keep_gradients",
    ),
    tests=APPLIED + "test_which_gradients_have_memory",
)
mutation(
    "applied gradients: of layers inside the loop, too",
    (
        TRAINING,
        "late = not self.adds_in_loop(theta.name) and self._source.keeps_steps",
        "late = True",
    ),
    tests=APPLIED + "test_which_gradients_have_memory",
)
mutation(
    "applied gradients: no room for batches",
    (TRAINING, "(self.part_steps if all_steps else 1) <= TILE_ROWS", "0 <= TILE_ROWS"),
    tests=APPLIED + "test_there_is_room_for_batches_only_where_a_product_needs_it",
)
mutation(
    "applied gradients: room for batches of a head that sees one row",
    (TRAINING, "(self.part_steps if all_steps else 1)", "self.part_steps"),
    tests=APPLIED + "test_there_is_room_for_batches_only_where_a_product_needs_it",
)
mutation(
    "applied gradients: the twin trains everything",
    ("program/program.py", "train=self.train,", ""),
    tests=APPLIED + "test_which_gradients_have_memory",
)
mutation(
    "applied gradients: the twin has the weights of the seed",
    (
        "trainer.py",
        "if buffer.role in (*LEARNED, Role.FROZEN):",
        "if False:",
    ),
    tests="test_carry.py::test_part_gradients_are_those_of_the_present_weights_and_state",
)
mutation(
    "applied gradients: the twin starts from another state",
    ("trainer.py", "write_carry(copy.backend, read_carry(self.backend))", ""),
    tests="test_carry.py::test_part_gradients_are_those_of_the_present_weights_and_state",
)
mutation(
    "work: an applied product is not counted",
    (UPDATES, "return product(d, {}, frozenset()) |", "return"),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "verifier: an update of some rows passes for one of all",
    ("program/verify.py", "rows = ref.row_range or (0,", "rows = (0,"),
    tests="test_verify.py::test_trained_once",
)
mutation(
    "verifier: rows may be left out",
    (
        "program/verify.py",
        "if name not in program.trained or not ranges or not joined:",
        "if name not in program.trained or not ranges:",
    ),
    tests="test_verify.py::test_trained_once",
)
mutation(
    "verifier: the order of updates matters",
    ("program/verify.py", "for pair in sorted(ranges)", "for pair in ranges"),
    tests="test_verify.py::test_trained_once",
)
mutation(
    "NaN: the reference calls every update safe",
    ("reference/interpreter.py", "return False", "return True"),
    tests=EXPLOSIONS,
)
mutation(
    "NaN: the engine calls every update safe",
    (
        "native/engine.py",
        "return bool(lib.fptt_update_is_safe(self._engine, self._frame(frame)))",
        "return True",
    ),
    tests=EXPLOSIONS,
)
mutation(
    "NaN: the engine looks at nothing that an update reads",
    ("native/compile.py", "watched = 2 if is_input else 1", "watched = 0"),
    tests=APPLIED + "test_no_update_is_called_safe_that_may_overflow",
)
mutation(
    "NaN: what was learnt stays bad",
    ("training/parts.py", "self.backend.learned[...] = good", "pass"),
    tests=EXPLOSIONS,
)
mutation(
    "NaN: Q stays where a loss that is none has moved it",
    ("training/parts.py", "self._write(moved)", "pass"),
    tests=EXPLOSIONS,
)
mutation(
    "NaN: Q stays where the loss before a bad update has moved it",
    ("training/parts.py", "self._write(before_loss)", "pass"),
    tests=EXPLOSIONS,
)
mutation(
    "back ends: predictions by another one",
    ("trainer.py", "Inference.of(self.program, self.backend.name)", "Inference.of(self.program)"),
    tests=APPLIED + "test_predictions_and_gradients_come_from_the_trainer_s_back_end",
)
mutation(
    "back ends: gradients by another one",
    (
        "trainer.py",
        "Trainer(program, self.backend.name, self.seed)",
        "Trainer(program, None, self.seed)",
    ),
    tests=APPLIED + "test_predictions_and_gradients_come_from_the_trainer_s_back_end",
)
mutation(
    "back ends: a snapshot is loaded on another one",
    ("storage/snapshot.py", "backend: str | None = None", 'backend: str = "reference"'),
    tests="test_files.py::test_a_snapshot_is_loaded_on_the_back_end_of_a_new_trainer",
)
mutation(
    "snapshots: files without the choice of gradients are of another program",
    ("storage/snapshot.py", 'if "keep_gradients" not in its:', "if False:"),
    tests="test_files.py::test_a_snapshot_that_fptt_wrote_before_there_were_slots",
)

# --- diagonal recurrences ----------

DIAGONAL, LRU_LAYER = "program/opset/diagonal.py", "nets/lru.py"
ELSTM_LAYER = "nets/elementwise_lstm.py"
OF_CELLS = "test_diagonal_cells.py::"

for name, old, new in (
    (
        "the sign of the rotation",
        "real * x - imaginary * y + gamma",
        "real * x + imaginary * y + gamma",
    ),
    ("u is not normalised", "imaginary * x + gamma * u_y", "imaginary * x + u_y"),
    (
        "Lambda instead of its conjugate backwards",
        "real * dx + imaginary * dy",
        "real * dx - imaginary * dy",
    ),
    ("du is not normalised", "(gamma * dx, gamma * dy)", "(gamma * dx, dy)"),
    (
        "nu: the path through gamma dropped",
        "(by_gamma - by_modulus)",
        "(0 * by_gamma - by_modulus)",
    ),
    ("nu: the path through the modulus dropped", "(by_gamma - by_modulus)", "(by_gamma)"),
    (
        "nu: derivative of the inner exp dropped",
        "rate / gamma * (by_gamma",
        "1 / gamma * (by_gamma",
    ),
    (
        "nu: |Lambda| instead of its square",
        "/ gamma * _aligned(du, u)",
        "** 0.5 / gamma * _aligned(du, u)",
    ),
    (
        "theta: derivative of exp dropped",
        "np.exp(theta) / gamma * by_phase",
        "1 / gamma * by_phase",
    ),
    (
        "theta: turned the other way",
        "by_phase = real * _turned(du, state_before) -",
        "by_phase = real * _turned(du, state_before) +",
    ),
    ("theta: gamma stays in du", "np.exp(theta) / gamma * by_phase", "np.exp(theta) * by_phase"),
):
    mutation(f"LRU: {name}", (DIAGONAL, old, new), tests=gradients("LRU"))
mutation(
    "LRU: gradients from the state of the same step",
    (LRU_LAYER, "at(self.state(e)[0], -1)", "at(self.state(e)[0], 0)"),
    tests=gradients("LRU"),
)
mutation(
    "LRU: 1 - |Lambda|^2 by subtraction",
    (DIAGONAL, "np.sqrt(-np.expm1(-2 * np.exp(nu)))", "np.sqrt(1 - np.exp(-2 * np.exp(nu)))"),
    tests=OF_CELLS + "test_gamma_keeps_its_digits_near_the_unit_circle",
)
mutation(
    "LRU: moduli uniform instead of areas",
    (LRU_LAYER, "self.r_min**2, self.r_max**2", "self.r_min, self.r_max"),
    tests=OF_CELLS + "test_eigenvalues_start_uniformly_in_a_ring",
)
mutation(
    "element-wise LSTM: a gate sees h in another order",
    (DIAGONAL, "a + w * np.tile(h_before, 4)", "a + w * np.repeat(h_before, 4, axis=1)"),
    tests=gradients("ElementwiseLSTM"),
)
mutation(
    "element-wise LSTM: the way back to h through one gate dropped",
    (DIAGONAL, "np.asarray(i + f + g + o)", "np.asarray(i + f + g)"),
    tests=gradients("ElementwiseLSTM"),
)
mutation(
    "element-wise LSTM: only the first row in the gradient of the diagonals",
    (
        DIAGONAL,
        "(da * np.tile(h_before, 4)).sum(axis=0)",
        "(da * np.tile(h_before, 4))[:1].sum(axis=0)",
    ),
    tests=gradients("ElementwiseLSTM"),
)
mutation(
    "element-wise LSTM: h instead of h before in the gradient of the diagonals",
    (ELSTM_LAYER, "at(self.state(e)[0], -1)", "at(self.state(e)[0], 0)"),
    tests=gradients("ElementwiseLSTM"),
)
for cell in ("LRU", "ElementwiseLSTM"):
    mutation(
        f"recompute: {cell}: of the diagonals only the first step's gradient is left",
        ("nets/layer.py", "buffer.at(offset), add=True)", "buffer.at(offset), add=False)"),
        tests=f"test_recompute.py::test_cell_gradients[3-last-cross_entropy-{cell}-reference-float64]",
    )
mutation(
    "back ends: the engine is chosen where it has no kernels",
    ("backends.py", " or program.without_kernel else", " else"),
    tests=OF_CELLS + "test_the_reference_runs_them_by_default_and_says_why",
)
mutation(
    "device: budgets of what has no C kernels",
    ("deploy/budget.py", '    check(smallest, "plan --target")\n', ""),
    tests=OF_CELLS + "test_devices_refuse_them_by_name",
)
mutation(
    "runs: a layer of LRU is as wide as its units are many",
    ("runs.py", "width = layers[0].width(width)", "width = self.hidden"),
    tests=OF_CELLS + "test_the_command_line[lru]",
)

# --- gates computed again ----------

AGAIN = "test_recompute.py::"
AGAIN_LSTM = AGAIN + "test_cell_gradients[3-last-cross_entropy-LSTM-reference-float64]"
LAYER = "nets/layer.py"
ADD_UP = "emit_gradients(e, name, parts, sources.get(name), add=True)"

for cell in ("LSTM", "GRU"):
    mutation(
        f"recompute: {cell}: from h of the same step",
        (LAYER, "self.forward_step(e, x, before=-1)", "self.forward_step(e, x, before=0)"),
        tests=AGAIN + f"test_cell_gradients[3-last-cross_entropy-{cell}-reference-float64]",
    )
mutation(
    "recompute: the gates of the last step for all steps",
    (LAYER, "self.forward_step(e, x, before=-1)", "pass"),
    # the verifier's rule "kept" finds it first
    ("program/verify.py", "if loop and ref and ref.buffer.name in passing:", "if False:"),
    tests=AGAIN_LSTM,
)
mutation(
    "recompute: h instead of h before in the gradient of weight_hh",
    (
        LAYER,
        'sources = {"weight_ih": x, "weight_hh": self.state(e)[0].at(-1)}',
        'sources = {"weight_ih": x, "weight_hh": self.state(e)[0].at(0)}',
    ),
    tests=AGAIN_LSTM,
)
mutation(
    "recompute: only the first step's gradient is left",
    (LAYER, ADD_UP, ADD_UP.replace("True", "False")),
    tests=AGAIN_LSTM,
)
mutation(
    "recompute: the part before stays in the gradient",
    (
        TRAINING,
        'if name.startswith(f"{index}.") and self.adds_in_loop(name):',
        'if name.startswith(f"{index}.") and not self.recomputes(index):',
    ),
    # the verifier's rule "initialised" finds it first
    ("program/verify.py", "if ref.buffer.name not in written:", "if False:"),
    tests=AGAIN_LSTM,
)
mutation(
    "recompute: parts of one step too",
    (TRAINING, " and self.part_steps > 1", ""),
    tests=AGAIN + "test_parts_of_one_step_stay_as_they_are",
)
mutation(
    "recompute: gates are kept all the same",
    (
        "program/layout.py",
        "self.rows(name, width) if self.recomputes else self.history(name, width)",
        "self.history(name, width)",
    ),
    tests=AGAIN + "test_no_history_of_gates[GRU]",
)
mutation(
    "recompute: forgotten where gradients are kept",
    ("program/program.py", "recompute=self.recompute,", ""),
    tests=AGAIN + "test_keeping_gradients_recomputes_too",
)
mutation(
    "recompute: forgotten in snapshots",
    ("storage/snapshot.py", 'recompute=config.get("recompute", False),', ""),
    tests=AGAIN + "test_a_snapshot_in_the_middle_of_a_part_goes_on_with_the_same_bits",
)
mutation(
    "recompute: the plan shows one of the two",
    ("cli.py", "[False, True] if recompute else [False]", "[recompute]"),
    tests="test_cli.py::test_the_plan_shows_both_where_gates_are_computed_again",
)
mutation(
    "verifier: what a loop leaves of its last turn is read as all steps",
    ("program/verify.py", "(single.add if loop else single.discard)(ref.buffer.name)", "pass"),
    tests="test_verify.py::test_kept_after_the_loop",
)

# --- adapters ----------

ADAPTERS, FACTORS = "nets/adapters.py", "test_adapters.py::"


def factors(name="LSTM-Linear", recompute="kept", lengths="equal"):
    return FACTORS + (f"test_gradients[{name}-last-{lengths}-alone-reference-float64-{recompute}]")


ALL_STEPS = 'emit_gradients(e, f"{name}.down", dz, source, add=False)'
for way, test in (
    ("in one product", factors(lengths="unequal")),
    ("with z computed again", FACTORS + "test_long_parts_and_wide_batches_take_the_other_way"),
):
    mutation(
        f"adapters: h instead of h before in the gradient of down, {way}",
        (LAYER, ALL_STEPS, ALL_STEPS.replace("source", "replace(source, offset=0)")),
        (LAYER, "import numpy as np\n", "from dataclasses import replace\nimport numpy as np\n"),
        tests=test,
    )
mutation(
    "adapters: no gradient of down",
    (LAYER, ALL_STEPS, "pass"),
    tests=factors(),
)
mutation(
    "adapters: no gradient of down where it adds up",
    (LAYER, ALL_STEPS.replace("False", "True"), "pass"),
    tests=FACTORS + "test_long_parts_and_wide_batches_take_the_other_way",
)
mutation(
    "adapters: nothing goes back through them to h",
    (LAYER, "adapter.below(e, adapter.dz(e).at(0), dh, after_first=True)", "pass"),
    tests=factors(),
)
mutation(
    "adapters: nothing goes back through them to the layer below",
    (LAYER, "adapter.below(e, adapter.dz(e).at(0), dx)", "pass"),
    tests=factors("two recurrent layers"),
)
mutation(
    "adapters: nothing goes back through that of a linear layer",
    ("nets/linear.py", 'adapter.below(e, e.like("weight.dz", adapter.rank, dy), dx)', "pass"),
    tests=factors(),
)
mutation(
    "adapters: GRU: of the two halves only the second counts",
    (ADAPTERS, "            start = dz\n", ""),
    tests=factors("GRU-Linear"),
)
mutation(
    "adapters: RNN: z of the last step for all steps",
    ("nets/rnn.py", "adapter.forward(e, source, adapter.z(e).at(0), ())", "pass"),
    ("program/verify.py", "if loop and ref and ref.buffer.name in passing:", "if False:"),
    tests=factors("RNN-Linear", "recomputed"),
)
mutation(
    "adapters: the layer does not use them",
    (ADAPTERS, 'e.emit("affine", [z, rows_of(self.up, rows), None, y], [y])', "pass"),
    tests=factors(),
)
mutation(
    "adapters: up does not start at zero",
    (ADAPTERS, "Parameter((outputs, rank), 0.0)", "Parameter((outputs, rank), 0.1)"),
    tests=FACTORS + "test_at_first_nothing_is_changed",
)
mutation(
    "adapters: drawn from the stream of the weights",
    ("nets/network.py", "rngs[name not in own]", "rngs[0]"),
    tests=FACTORS + "test_known_weights_and_drawn_factors",
)
mutation(
    "adapters: merged with the wrong sign",
    ("nets/network.py", "merged[name].astype(np.float64) + change", "merged[name] - change"),
    tests=FACTORS + "test_merged_parameters_compute_the_same",
)
mutation(
    "adapters: a wildcard trains the matrix too",
    ("program/builder.py", "(named and name not in changed)", "named"),
    tests=FACTORS + "test_wildcards_pass_over_what_has_an_adapter[0.*]",
)
mutation(
    "adapters: train may name the matrix",
    ("program/builder.py", "if matching <= changed.keys():", "if False:"),
    tests=FACTORS + "test_what_has_an_adapter_cannot_train_itself",
)
mutation(
    "adapters: factors as large as the matrix",
    (
        ADAPTERS,
        "if rank * (outputs + inputs) >= outputs * inputs:",
        "if rank * (outputs + inputs) > outputs * inputs:",
    ),
    tests=FACTORS + "test_the_highest_rank_that_saves_anything",
)
mutation(
    "adapters: dz is kept where it is larger",
    (TRAINING, "return history > rank * inputs", "return history < rank * inputs"),
    tests=FACTORS + "test_long_parts_and_wide_batches_take_the_other_way",
)
mutation(
    "adapters: left out of model files",
    ("storage/modelfile.py", "parameters, net.adapters)", "parameters)"),
    tests=FACTORS + "test_model_files_keep_the_factors",
)
mutation(
    "adapters: left out of descriptions",
    ("nets/network.py", "ranks[own] = rank", "pass"),
    tests=FACTORS + "test_snapshots_go_on_with_the_same_bits",
)

# --- summaries of many runs ----------

SUMMARY, EQUAL = "experiments/summary.py", "experiments/equal_memory.py"
SEEDS = "test_experiments_summary.py::"
mutation(
    "the spread over seeds divides by n",
    (SUMMARY, "import mean, stdev", "import mean, pstdev as stdev"),
    tests=SEEDS + "test_mean_spread_and_best_epoch",
)
mutation(
    "the best epoch of a perplexity is the highest",
    (SUMMARY, "sign = 1 if METRICS[metric] else -1", "sign = 1"),
    tests=SEEDS + "test_less_is_better_for_loss_and_perplexity",
)
mutation(
    "runs at other learning rates are pooled as seeds",
    (
        SUMMARY,
        'configuration.items() if name != "seed"',
        'configuration.items() if name not in ("seed", "lr")',
    ),
    tests=SEEDS + "test_runs_of_other_configurations_are_never_pooled",
)
mutation(
    "the pooled variance forgets the degrees of freedom",
    (EQUAL, "+ (b.n - 1) * b.sd**2) / freedom", "+ (b.n - 1) * b.sd**2) / (a.n + b.n)"),
    tests=SEEDS + "test_the_verdict_is_that_of_a_t_test",
)
mutation(
    "the verdict takes a higher perplexity for better",
    (EQUAL, "sign * difference > 0", "difference > 0"),
    tests=SEEDS + "test_lower_is_better_turns_the_verdict",
)
mutation(
    "FPTT is set against the largest control instead of the best",
    (EQUAL, "key=lambda other: sign * other.final.mean", "key=_size"),
    tests=SEEDS + "test_against_the_best_that_fits",
)
mutation(
    "a control that needs more memory is let in",
    (EQUAL, "if _size(other) <= _size(group)]", "]"),
    tests=SEEDS + "test_against_the_best_that_fits",
)
mutation(
    "the control is interpolated linearly in bytes",
    (
        EQUAL,
        "math.log(size_bytes / _size(left)) / math.log(_size(right) / _size(left))",
        "(size_bytes - _size(left)) / (_size(right) - _size(left))",
    ),
    tests=SEEDS + "test_interpolation_is_linear_in_the_logarithm_of_bytes",
)
mutation(
    "another network is taken for a control",
    (EQUAL, '"schedule", "engine")', '"schedule", "engine", "hidden")'),
    tests=SEEDS + "test_only_like_is_set_against_like",
)
mutation(
    "published figures for R(t) on stand beside runs without",
    ("published_results.py", '"R": rule == "fptt" and', '"R": rule in ("fptt", "tbptt") and'),
    tests=SEEDS + "test_what_stands_beside_a_run",
)
mutation(
    "the page of results takes a variant's name for HTML",
    (
        "report/results_tables.py",
        """class="name">{escape(group.series)}</th>""",
        """class="name">{group.series}</th>""",
    ),
    tests="test_report_page.py::test_texts_of_a_file_are_escaped",
)

# --- snapshots ----------

SAVING = "test_snapshots_faults.py::"
LOADING = "test_snapshots_fuzz.py::"
mutation(
    "snapshots: commit before the payload is on the disk",
    ("storage/slots.py", "    medium.sync()\n    try:", "    try:"),
    tests=SAVING + "test_a_power_cut_that_leaves_any_part_of_what_was_not_synchronised",
)
mutation(
    "snapshots: no sync before the other slot is overwritten",
    ("storage/slots.py", "    medium.sync()\n    _write(", "    _write("),
    tests=SAVING + "test_a_power_cut_after_a_process_was_killed_before_its_last_sync",
)
mutation(
    "snapshots: the newest state is overwritten",
    ("storage/slots.py", "layout, 1 - last.index,", "layout, last.index,"),
    tests=SAVING + "test_a_write_that_is_torn_at_every_byte",
)
mutation(
    "snapshots: sequence numbers end at 2^32",
    ("storage/slots.py", "return 0 < (a - b) % 2**32 < 2**31", "return a > b"),
    tests=SAVING + "test_the_sequence_number_goes_round",
)
mutation(
    "snapshots: a damaged state is taken for the last one when saving",
    ("storage/slots.py", "if not left and total == slot.checksum:", "if True:"),
    tests=SAVING + "test_saving_never_touches_the_newest_state",
)
mutation(
    "snapshots: a commit that failed stays",
    ("storage/slots.py", "            medium.write(start, ERASED)\n", "            pass\n"),
    tests=SAVING + "test_every_call_to_the_system_fails_once",
)
mutation(
    "snapshots: nobody is told that the newest state was lost",
    ("storage/slots.py", "not damaged and slot == slots[0]", "True"),
    tests=SAVING + "test_a_damaged_newest_state_is_reported",
)
mutation(
    "snapshots: what is newer may lie in a damaged slot, untold",
    ("storage/slots.py", "not damaged and slot == slots[0]", "slot == slots[0]"),
    tests=SAVING + "test_a_damaged_newest_state_is_reported",
)
mutation(
    "snapshots: a hard link is overwritten",
    ("storage/slotfile.py", "status.st_nlink > 1", "status.st_nlink > 9"),
    tests=SAVING + "test_a_second_name_keeps_what_it_had",
)
mutation(
    "snapshots: room that a full disk gave stays",
    (
        "storage/slotfile.py",
        "                self._file.truncate(before)\n",
        "                pass\n",
    ),
    tests=SAVING + "test_a_full_disk_is_noticed_before_anything_is_overwritten",
)
mutation(
    "snapshots: a state that outgrows its slot runs into the other",
    ("storage/slotfile.py", "if layout is None or length > layout.room:", "if layout is None:"),
    tests=SAVING + "test_a_state_that_outgrows_its_slots",
)
mutation(
    "snapshots: NaN is taken up",
    ("storage/fitness.py", "and not np.isfinite(array).all()", "and False"),
    tests=LOADING + "test_what_is_learnt_must_be_finite",
)
mutation(
    "snapshots: labels outside the classes are taken up",
    ("storage/fitness.py", "fits = is_whole(value) and -1 <= value < outputs", "fits = True"),
    tests=LOADING + "test_what_does_not_fit_changes_nothing",
)
mutation(
    "snapshots: the shape of a buffer is not looked at",
    ("storage/fitness.py", " or array.shape != item.shape", ""),
    tests=LOADING + "test_hostile_contents_with_checksums_that_fit",
)
for rule in (
    "known_kind",
    "operand_count",
    "attributes",
    "declared",
    "ranges",
    "steps",
    "shapes",
    "same_rows",
    "number_types",
    "aliasing",
    "write_permission",
):
    head = f"def {rule}(program: Program, site: Site) -> None:\n"
    mutation(
        f"verifier: {rule} is not checked",
        ("program/verify.py", head, head + "    return\n"),
        tests=f"test_verify.py::test_{rule}",
    )
for rule in ("initialised", "kept", "trained_once", "loop_direction", "placement"):
    head = f"def {rule}(program: Program) -> None:\n"
    mutation(
        f"verifier: {rule} is not checked",
        ("program/verify.py", head, head + "    return\n"),
        tests=f"test_verify.py::test_{rule}",
    )


def compiled_copy(folder: Path) -> Path:
    """Copies src into `folder`, compiled; Python checks every file against its compiled one."""
    copy = Path(folder) / "src"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(
        copy, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )
    return copy


def mutated_copy(chosen: Mutation | None, folder: Path, source: Path = SOURCE) -> Path:
    """Copies src into `folder` and makes the mutation's edits; returns the copy.

    Raises:
        StaleMutation: an old text that does not stand exactly once in its file.
    """
    copy = Path(folder) / "src"
    shutil.copytree(source, copy)
    for name, old, new in chosen.edits if chosen else ():
        path = copy / "fptt" / name
        text = path.read_text()
        found = list(re.finditer(_any_layout(old), text))
        if len(found) != 1:
            raise StaleMutation(
                f"{chosen.name}: {old!r} stands {len(found)} times in {name}; "
                "it must stand there once"
            )
        path.write_text(text[: found[0].start()] + new + text[found[0].end() :])
    return copy


def _any_layout(code: str) -> str:
    """A pattern for a piece of code, however the formatter has broken its lines."""
    tokens = re.findall(r"\w+|[^\w\s]", code)
    pattern = r"\s*".join(re.escape(token) for token in tokens)
    pattern = re.sub(r"\\s\*(?=\\[)\]}])", r"\\s*,?\\s*", pattern)
    # whole lines are replaced with their indentation and their end
    return (r"[ ]*" if code[:1] == " " else "") + pattern + (r"\n" if code[-1:] == "\n" else "")


# -- devices ------------------------------------------------------------------------------------

DEVICE = "test_device_programs.py"
CALLS = "device/calls.py"
EMIT = "device/emit.py"
mutation(
    "device: a gate's sum takes h for x",
    (CALLS, "{c.factors(x, w)}, {c.factors(h, v)}", "{c.factors(h, v)}, {c.factors(h, v)}"),
    tests="test_device_learner.py",
)
mutation(
    "device: the state before a step is that after it",
    (CALLS, '"step": _sum("t", buffer.lead + ref.offset)', '"step": _sum("t", buffer.lead)'),
    tests="test_device_learner.py",
)
mutation(
    "device: the last step is the first of the part",
    (CALLS, '"last": _sum("steps", buffer.lead - 1)', '"last": str(buffer.lead)'),
    tests="test_device_learner.py",
)
mutation(
    "device: the bias is left out",
    (
        CALLS,
        '@writes("affine")\ndef _write_affine(c: Call) -> Iterator[str]:\n'
        '    yield _affine(c, "x", "w", c.at("bias"),',
        '@writes("affine")\ndef _write_affine(c: Call) -> Iterator[str]:\n'
        '    yield _affine(c, "x", "w", NONE,',
    ),
    tests=DEVICE,
)
mutation(
    "device: gradients take dy for x",
    (
        CALLS,
        'p, q = ("x", "dy") if matrix(c.ref("theta"))',
        'p, q = ("x", "x") if matrix(c.ref("theta"))',
    ),
    tests="test_device_learner.py",
)
mutation(
    "device: dropout forgets the part's first step",
    (CALLS, "at.begin + {step}", "{step}"),
    tests="test_device_learner.py",
)
mutation(
    "device: Q of another part",
    (CALLS, "+ at.part *", "+ 0 *"),
    tests="test_device_learner.py",
)
mutation(
    "device: constants that are not zero are",
    (CALLS, "    if bits == 0:", "    if True:"),
    tests=DEVICE,
)
mutation(
    "device: an operation is left out at the second step, too",
    (EMIT, 'start = "if (t > 0) {"', 'start = "if (t > 1) {"'),
    tests="test_device_learner.py",
)
mutation(
    "device: the reverse loop runs forwards",
    (EMIT, "                if item.reverse", "                if not item"),
    tests="test_device_learner.py",
)
mutation(
    "device: no learning rate",
    (EMIT, "float_literal(self.program.optimizer.lr)", "float_literal(0.0)"),
    tests="test_device_learner.py",
)
mutation(
    "device: only gradients are watched",
    (
        EMIT,
        '            what = "input" if is_input else "gradient"',
        '            what = "gradient"\n            if is_input:\n                continue',
    ),
    tests="test_device_learner.py",
)
mutation(
    "device: Q is learnt before the part was found sound",
    (
        "program/plan.py",
        "                                first_last[touched.buffer.name][1] = clock",
        "                                pass",
    ),
    tests="test_golden_text.py",
)

# -- arithmetic of the FPTT unit -----------------------------------------------------------------

RTL = "test_rtl_arithmetic.py"

mutation(
    "the definition rounds ties up",
    (
        "rtl/formats.py",
        "np.rint(np.ldexp(magnitude, -unit))",
        "np.floor(np.ldexp(magnitude, -unit) + 0.5)",
    ),
    tests=f"{RTL}::test_definition_against_exact_fractions",
)
mutation(
    "the definition flushes to a zero without sign",
    ("rtl/arithmetic.py", "np.copysign(0.0, values)", "0.0"),
    tests=f"{RTL}::test_definition_against_exact_fractions",
)
mutation(
    "registers of an operator do not hold",
    ("rtl/pipeline.py", "    with module.If(enable):\n", "    with module.If(1):\n"),
    tests=f"{RTL}::test_latency_and_enable",
)
mutation(
    "the adder ignores the subtract bit",
    ("rtl/adder.py", 'sign_b = v["b"][-1] ^ v["subtract"]', 'sign_b = v["b"][-1]'),
    tests=f"{RTL}::test_subtract_bit",
)
mutation(
    "the adder calls Inf - Inf Inf",
    ("rtl/adder.py", "(a_special & b_special & (a[-1] ^ sign_b))", "Const(0, 1)"),
    tests=f"{RTL}::test_latency_and_enable",
)
mutation(
    "the multiplier forgets a carry of the product",
    ("rtl/multiplier.py", 'Mux(carry, v["exponent_2"], v["exponent"])', 'v["exponent"]'),
    tests=f"{RTL}::test_latency_and_enable",
)

# --- PyTorch's modules ----------

REFUSED = "test_torch_refusals.py::test_forwards_that_cannot_be_read"

mutation(
    "import: one of the two biases",
    ("torch/imported.py", '("bias_ih", "bias_hh") if summed', '("bias_ih",) if summed'),
    tests="test_torch_import.py::test_biases_are_added_in_lstm_and_rnn_and_kept_in_gru",
)
mutation(
    "export: the bias twice",
    ("torch/writing.py", "values if index == 0 else torch.zeros_like(values)", "values"),
    tests="test_torch_import.py::test_trained_weights_go_back_into_pytorch[LSTM-float64]",
)
mutation(
    "export: adapters are forgotten",
    ("torch/writing.py", "source.merged_parameters()", "source.parameters()"),
    tests="test_torch_import.py::test_adapters_are_merged",
)
mutation(
    "import: any state of the step before",
    (
        "torch/walking.py",
        "return h.stage is stage and h.at == (axis, step - 1) and others == wanted",
        "return True",
    ),
    tests=f"{REFUSED}[older state]",
)
mutation(
    "import: any initial state",
    (
        "torch/walking.py",
        "return Constant() if value.requires_grad or value.any() else Zeros()",
        "return Zeros()",
    ),
    tests=f"{REFUSED}[initial state]",
)
mutation(
    "import: dropout of evaluation",
    ("torch/walking.py", "if training and not self.training:", "if False:"),
    tests=f"{REFUSED}[always dropping]",
)
mutation(
    "import: any step for the last one",
    ("torch/reading.py", "if output.at != (axes.time, steps - 1) or", "if"),
    tests=f"{REFUSED}[first step]",
)
mutation(
    "import: what was read is not compared",
    ("torch/comparing.py", "if not distance <= allowed:", "if False:"),
    tests=f"{REFUSED}[in place]",
)
mutation(
    "import: training flags are left behind",
    ("torch/tracing.py", "one.training = flag\n", "pass\n"),
    tests="test_torch_import.py::test_a_module_is_left_as_it_was",
)
mutation(
    "import: pairs are no pairs",
    ("torch/tracing.py", "if type(value) not in (tuple, list):", "if True:"),
    tests="test_torch_import.py::test_loops_around_cells_give_the_same_outputs",
)
mutation(
    "import: the order of a safetensors file is believed",
    ("torch/statedict.py", "if not found or not ordered:", "if not found:"),
    tests="test_torch_files.py::test_files_without_order_are_not_believed",
)
mutation(
    "import: bfloat16 shifted by a bit",
    ("torch/tensorfiles.py", "astype(np.uint32) << 16", "astype(np.uint32) << 15"),
    tests="test_torch_files.py::test_files",
)
mutation(
    "import: the task's normalisation is forgotten",
    ("torch/convert.py", '"normalisation": task.normalisation,', ""),
    tests="test_torch_files.py::test_a_pytorch_lstm_runs_in_c_in_three_commands",
)


# -- fptt.torch: training ------------------------------------------------------------------------

TORCH = "torch/optimizer.py"
EQUATIONS = "test_torch_optimizer.py::test_any_optimizer[SGD-"
IN_TORCH = "test_torch_trajectories.py::test_"
PARTS = "test_torch_parts.py::test_"
SPIKING = "test_torch_spiking.py::test_"
mutation(
    "torch: lambda is added to d",
    (TORCH, "lambdas, alpha=-sign * weight", "lambdas, alpha=sign * weight"),
    tests=EQUATIONS + "code]",
)
mutation(
    "torch: paper mode has the whole lambda in d",
    (TORCH, "lambdas, alpha=-sign * weight", "lambdas, alpha=-sign"),
    tests=EQUATIONS + "paper]",
)
mutation(
    "torch: lambda is not halved in paper mode",
    (TORCH, "                if weight != 1:", "                if False:"),
    tests=EQUATIONS + "paper]",
)
mutation(
    "torch: m takes the old lambda",
    (
        TORCH,
        "                torch._foreach_mul_(means, 1 - beta)\n",
        "                torch._foreach_add_(lambdas, difference, alpha=alpha)\n"
        "                torch._foreach_mul_(means, 1 - beta)\n",
    ),
    (TORCH, "alpha=-alpha)\n                del difference", "alpha=-alpha)"),
    tests=EQUATIONS + "code]",
)
mutation(
    "torch: m shares the memory of theta",
    (TORCH, "p.detach().clone()\n        return (", "p.detach()\n        return ("),
    tests=EQUATIONS + "code]",
)
mutation(
    "torch: g is clipped, not d",
    (
        TORCH,
        "        groups = [self._moving",
        "        if self.clip is not None:\n"
        '            clip_grad_norm_(self.param_groups[0]["params"], self.clip)\n'
        "        groups = [self._moving",
    ),
    (
        TORCH,
        "        if self.clip is not None:\n            clip_grad_norm_([p",
        "        if 0:\n            ([p",
    ),
    tests=IN_TORCH + "the_norm_of_d_is_clipped[SGD-code]",
)
mutation(
    "torch: R(t) pulls the wrong way where the optimizer maximizes",
    (TORCH, 'sign = -1.0 if group.get("maximize") else 1.0', "sign = 1.0"),
    tests="test_torch_optimizer.py::test_maximize_is_the_mirror_image",
)
mutation(
    "torch: the groups are not shared after loading",
    (
        TORCH,
        "        self.param_groups = inner.param_groups\n        return inner",
        "        return inner",
    ),
    tests="test_torch_optimizer.py::test_a_scheduler_goes_on_after_loading",
)
mutation(
    "torch: theta does not come back from averaged()",
    (TORCH, "                    p.copy_(theta)", "                    pass"),
    tests="test_torch_optimizer.py::test_averaged",
)
mutation(
    "torch: an epoch ends without the mean",
    (
        TORCH,
        '            if average:\n                p.copy_(state["mean"])',
        "            if 0:\n                pass",
    ),
    tests=IN_TORCH + "end_of_epoch[average-zero]",
)
mutation(
    "torch: the state is not detached",
    ("torch/passage.py", "        self._state = detached(self._state)\n", ""),
    tests=PARTS + "states[tuple]",
)
mutation(
    "torch: the state starts anew in every part",
    (
        "torch/passage.py",
        "result = self._runner(part, self._state)",
        "result = self._runner(part, None)",
    ),
    tests=PARTS + "states[tuple]",
)
mutation(
    "torch: parts of equal length, the tail dropped",
    ("torch/cutting.py", "[number * total // parts for", "[number * (total // parts) for"),
    tests=IN_TORCH + "optimizers_and_modes[SGD-code]",
)
mutation(
    "torch: a sample's last step is the part's",
    (
        "torch/targets.py",
        "ends = [min(self.lengths[row], high) - 1 - low for",
        "ends = [high - 1 - low for",
    ),
    tests=IN_TORCH + "unequal_lengths[last]",
)
mutation(
    "torch: b is that of the part where lengths differ",
    ("torch/targets.py", "        if self.shorter:\n", "        if False:\n"),
    tests=IN_TORCH + "unequal_lengths[auxiliary]",
)
mutation(
    "torch: NaN behind a sequence's end is fed in",
    ("torch/passage.py", "        if min(self.lengths) < high:\n", "        if False:\n"),
    tests=IN_TORCH + "unequal_lengths[last]",
)
mutation(
    "torch: Q learns before the loss",
    (
        "torch/losses.py",
        "        soft = (1 - b)",
        "        self._learn(q, log_p.detach().exp(), hit, valid & (b == 1))\n"
        "        soft = (1 - b)",
    ),
    tests="test_torch_losses.py::test_equal_to_the_reference[0.7-False]",
)
mutation(
    "torch: Q weighs all rows of a class the same",
    ("torch/losses.py", "(1 - self.rate) ** after", "(1 - self.rate) ** 0"),
    tests="test_torch_losses.py::test_equal_to_the_reference[0.7-False]",
)
mutation(
    "torch: Q learns from rows that go on",
    ("torch/losses.py", "valid & (b == 1)", "valid"),
    tests="test_torch_losses.py::test_equal_to_the_reference[0.7-False]",
)
mutation(
    "torch: snnTorch's neurons are not reset",
    (
        "torch/spiking_libraries.py",
        "        write({k: v.new_zeros(0) for k, v in read().items() if isinstance(v, Tensor)})\n",
        "",
    ),
    ("torch/spiking_libraries.py", "            module.reset_mem()", "            pass"),
    tests=SPIKING + "training_equals_the_librarys_own_way[snntorch-Leaky]",
)
mutation(
    "torch: SpikingJelly's neurons are not reset",
    ("torch/spiking_libraries.py", "write, module.reset, lambda", "write, lambda: None, lambda"),
    tests=SPIKING + "the_state_goes_on_and_comes_back[spikingjelly-LIFNode]",
)

# --- gradient sources that go forwards in time ----------

TRACES, TRACING, LAYER = "program/opset/traces.py", "program/tracing.py", "nets/layer.py"
EPROP, FORWARD, RUNNING = "program/opset/eprop.py", "test_sources.py::", "test_sources_running.py::"


def rtrl(body="LSTM-LSTM-Linear", objective="last-cross_entropy"):
    return f"{FORWARD}test_rtrl_summed_over_the_parts_is_full_bptt[{objective}-{body}]"


def local(source, body="LSTM-LSTM-Linear", objective="last-cross_entropy"):
    test = "test_local_sources_are_autograd_with_the_other_paths_cut"
    return f"{FORWARD}{test}[{objective}-{source}-{body}]"


mutation(
    "RTRL: no recurrent term, own parameters",
    (TRACES, "_seeded(multiply_add(v, j), seed)", "_seeded(0 * multiply_add(v, j), seed)"),
    tests=rtrl(),
)
mutation(
    "RTRL: no recurrent term, parameters below",
    (TRACES, "multiply_add(v, j, multiply_add(w, jx))", "multiply_add(w, jx)"),
    tests=rtrl(),
)
mutation(
    "RTRL: nothing comes from the layer below",
    (TRACES, "multiply_add(v, j, multiply_add(w, jx))", "multiply_add(v, j)"),
    tests=rtrl("GRU-RNN-Linear", "auxiliary-cross_entropy"),
)
mutation(
    "RTRL: c forgets at once",
    (TRACES, "jc = f[:, :, None] * jc + d_i", "jc = d_i"),
    tests=rtrl(),
)
mutation(
    "RTRL: gate o forgotten",
    (TRACES, "return d_o + (o * (1", "return (o * (1"),
    tests=rtrl(),
)
mutation(
    "RTRL: gates i and g swapped",
    (TRACES, "by_sum = (\n        g * (i * (1 - i)),", "by_sum = (\n        i * (1 - g * g),"),
    tests=rtrl(),
)
mutation(
    "RTRL: GRU without the way through z",
    (TRACES, "        + z[:, :, None] * j\n", ""),
    tests=rtrl("GRU-RNN-Linear"),
)
mutation(
    "RTRL: GRU's biases change sides",
    ("nets/gru.py", 'recurrent=own in ("weight_hh", "bias_hh")', 'recurrent=own == "weight_hh"'),
    tests=rtrl("GRU-RNN-Linear"),
)
mutation(
    "RTRL: a rectifier lets everything through",
    (TRACES, "np.where((y > 0)[:, :, None], j, np.zeros_like(j))", "j"),
    tests=rtrl("Embedding-LSTM-ReLU-GRU-Linear"),
)
mutation(
    "RTRL: dropout lets everything through",
    (TRACES, "np.where(keep[:, :, None], j * (1 / (1 - p)), np.zeros_like(j))", "j"),
    tests=FORWARD + "test_rtrl_with_dropout_inside_the_body[last]",
)
mutation(
    "RTRL: a rectifier writes on the traces of the layer below",
    (LAYER, 'below if below.buffer.role == "scratch" else', "below if below else"),
    tests=rtrl("Embedding-LSTM-ReLU-GRU-Linear"),
)
mutation(
    "traces: h of this step in the place of the one before",
    (
        "nets/tracing.py",
        'return {"weight_ih": x, "weight_hh": self.before(e)[0]}',
        'return {"weight_ih": x, "weight_hh": self.state(e)[0].at(0)}',
    ),
    tests=(rtrl(), local("eprop")),
)
mutation(
    "traces: rows that ended do not wait",
    (
        "reference/interpreter.py",
        "rows = frame.rows[0 if t is None else t]",
        "rows = frame.rows[0]",
    ),
    tests=rtrl(),
)
mutation(
    "traces: they do not start with the state",
    ("program/builder.py", "        yield from self.traces\n", ""),
    tests=RUNNING + "test_what_ends_a_state_ends_its_traces[eprop]",
)
mutation(
    "traces: they stay where they were when a batch is sorted",
    (
        "training/carry.py",
        "    for values in state.values():",
        '    for values in [v for n, v in state.items() if n[:5] != "trace"]:',
    ),
    tests=FORWARD + "test_rtrl_through_carried_state_is_bptt_over_both_sequences",
)
mutation(
    "traces: they come back after an explosion",
    ("training/parts.py", "if isinstance(error, NumericalError):", "if False:"),
    tests=RUNNING + "test_what_ends_a_state_ends_its_traces[rtrl]",
)
mutation(
    "traces: in the type of the parameters",
    (
        "program/layout.py",
        "            Role.RULE_STATE,\n            dtype=builder.control_dtype,\n",
        "            Role.RULE_STATE,\n",
    ),
    tests=RUNNING + "test_traces_are_never_below_float32",
)
mutation(
    "e-prop: f forgotten",
    (EPROP, "np.concatenate((f, f, f), axis=1)[:, :, None] * eps + now", "eps + now"),
    tests=local("eprop"),
)
mutation(
    "e-prop: gate o forgotten",
    (EPROP, "np.concatenate((kept, now))", "np.concatenate((kept, 0 * now))"),
    tests=local("eprop"),
)
mutation(
    "e-prop: gate o remembers c's way out",
    (EPROP, "through_c = d * (o * (1 - tanh_c * tanh_c))", "through_c = d * o"),
    tests=local("eprop"),
)
mutation(
    "e-prop is OSTL",
    ("rules/sources/eprop.py", 'name: ClassVar[str] = "eprop"', 'name: ClassVar[str] = "ostl"'),
    tests=local("eprop"),
)
mutation(
    "OSTL: the signal comes through other gates",
    (
        "nets/gru.py",
        "by_input = gates.cols(0, 3 * self.hidden)",
        "by_input = gates.cols(self.hidden, 4 * self.hidden)",
    ),
    tests=local("ostl", "RNN-GRU"),
)
mutation(
    "OSTL: the signal remembers the step after",
    ("nets/lstm.py", '        e.emit("fill", [], [dc], value=0.0)\n', ""),
    # the verifier's rule "initialised" finds it first
    ("program/verify.py", "if ref.buffer.name not in written:", "if False:"),
    tests=local("ostl", objective="every_step-cross_entropy"),
)
mutation(
    "a loss at every step: sums go on from the part before",
    ("reference/interpreter.py", "if op.first_only and t > 0:", "if op.first_only and t >= 0:"),
    tests=local("eprop", objective="every_step-mse"),
)
mutation(
    "a loss at every step: sums begin at every step",
    ("reference/interpreter.py", "if op.first_only and t > 0:", "if False:"),
    tests=local("eprop", objective="every_step-mse"),
)
mutation(
    "a loss at every step: gradients are sums",
    (TRACING, "for gradient in self.gradients.values():", "for gradient in ():"),
    tests=local("eprop", objective="every_step-mse"),
)
mutation(
    "a loss at every step: the target of a stream is that of its part's end",
    ("training/stream.py", "write_step(t, x, targets)", "write_step(t, x, self._targets[0])"),
    tests=RUNNING + "test_a_stream_learns_with_the_bits_of_a_batch[every_step-eprop]",
)
mutation(
    "a snapshot takes a count for a label",
    (
        "storage/fitness.py",
        'if buffer.dtype == "int32" and buffer.role in (Role.INPUT, Role.TARGET):',
        'if buffer.dtype == "int32":',
    ),
    tests=RUNNING + "test_a_snapshot_inside_a_part_goes_on_with_the_same_bits[every_step-eprop]",
)
mutation(
    "forward-mode sources keep what they do not need",
    (TRACING, "if name in used}", "}"),
    tests=RUNNING + "test_what_no_source_needs_takes_no_memory",
)
mutation(
    "work: what is done at the first step counts at all",
    ("program/count.py", "yield op, frame.rows[0], 1\n", "yield op, frame.rows[0], frame.steps\n"),
    tests="test_count.py::test_counts_of_chosen_programs",
)
mutation(
    "work: seeds of a tangent forgotten",
    (TRACES, "Work(mul=macs, add=macs + seeds)", "Work(mul=macs, add=macs)"),
    tests="test_count.py::test_counts_of_chosen_programs",
)


def run_tests(copy: Path, tests: tuple[str, ...], output: Path) -> int:
    """Runs tests on a copy of src in a forked child; returns pytest's exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = WRONG_COPY
    try:
        with output.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            code = _child(copy, tests)
    finally:
        sys.stdout.flush()
        os._exit(code)


# --- diagonal RTRL, and e-prop of spiking cells ----------

DIAGONAL_TRACES, SPIKE_TRACES = (
    "program/opset/diagonal_traces.py",
    "program/opset/spiking_traces.py",
)
DIAGONALLY = "test_sources_diagonal.py::"


def exact(body, objective="last-cross_entropy"):
    return f"{DIAGONALLY}test_one_layer_is_bptt[{objective}-{body}-diagonal]"


def cut(source, body, objective="last-cross_entropy"):
    return f"{DIAGONALLY}test_autograd_with_the_other_paths_cut[{objective}-{source}-{body}]"


for name, old, new in (
    ("the trace of nu does not go on", "moved = e - np.concatenate", "moved = -np.concatenate"),
    ("gamma's part in nu dropped", "np.concatenate((by_gamma, by_gamma)) * u", "0 * u"),
    (
        "|Lambda| in the place of its square",
        "imaginary * imaginary) / _scale(nu)",
        "0) / _scale(nu)",
    ),
    (
        "theta turns the other way",
        "e_x - phase * y, e_y + phase * x",
        "e_x + phase * y, e_y - phase * x",
    ),
    ("B without gamma", "real + _scale(nu)[:, None] * x[:, None, :]", "real + x[:, None, :]"),
    ("the imaginary rows of B as the real ones", "(d_y * x - d_x * y)", "(d_x * x + d_y * y)"),
    ("only the real part of the state learns", "np.asarray(real + imaginary)", "np.asarray(real)"),
):
    mutation(f"diagonal RTRL: LRU: {name}", (DIAGONAL_TRACES, old, new), tests=exact("LRU"))
for name, old, new in (
    ("no way from h to c", "_four(f) * ec + _four(c_by_h) * eh", "_four(f) * ec"),
    ("no way from h through o", " * ec + _four(v_o * by_o) * eh", " * ec"),
    ("the way from h through f dropped", "v_i * by_i + v_f * by_f + v_g", "v_i * by_i + v_g"),
    ("f forgotten", "_four(f) * ec + _four(c_by_h)", "ec + _four(c_by_h)"),
    ("gates i and g swapped", "(by_i, by_f, by_g, by_o)", "(by_g, by_f, by_i, by_o)"),
    ("o has no weights of its own", "rest + through_o", "rest"),
):
    mutation(
        f"diagonal RTRL: element-wise LSTM: {name}",
        (DIAGONAL_TRACES, old, new),
        tests=exact("ElementwiseLSTM"),
    )
mutation(
    "diagonal RTRL: element-wise LSTM: h of this step in the place of the one before",
    (ELSTM_LAYER, '"weight_hh": (None, h_before)', '"weight_hh": (None, self.state(e)[0].at(0))'),
    tests=exact("ElementwiseLSTM"),
)
mutation(
    "diagonal RTRL: LRU: the state of this step in the place of the one before",
    (LRU_LAYER, '"lru_phase_trace", [before]', '"lru_phase_trace", [self.state(e)[0].at(0)]'),
    tests=exact("LRU"),
)
mutation(
    "diagonal RTRL: LRU: the signal below lacks gamma",
    (
        LRU_LAYER,
        'e.emit("product", [du, e.parameter("weight_ih").whole, None], [dx])',
        'e.emit("product", [dy, e.parameter("weight_ih").whole, None], [dx])',
    ),
    tests=cut("diagonal", "Embedding-ElementwiseLSTM-LRU-Linear"),
)
mutation(
    "leaky integrator: the trace does not decay",
    (SPIKE_TRACES, "np.asarray(eps * decay +", "np.asarray(eps +"),
    tests=exact("LeakyIntegrator"),
)
for name, old, new in (
    ("no adaptation", "- eps_a * beta)).sum(axis=0)", "+ 0 * eps_a)).sum(axis=0)"),
    ("the adaptation does not last", "eps_a * rho + spike", "spike"),
    ("an adapted spike costs nothing", "- eps_a * beta)\n    return", "+ 0 * eps_a)\n    return"),
    ("psi dropped from the signal", "pseudo_derivative(u, surrogate, gamma, width) * dz", "dz"),
    (
        "psi without the adapted threshold",
        "threshold if a is None else a * beta + threshold",
        "threshold",
    ),
):
    mutation(
        f"e-prop: ALIF: {name}",
        (SPIKE_TRACES, old, new),
        tests=cut("eprop", "ALIF-LeakyIntegrator", "every_step-mse"),
    )
mutation(
    "e-prop: ALIF: eps_v moves on before eps_a takes it",
    (
        "nets/alif.py",
        "            # eps_a takes eps_v of the step before\n",
        '            e.emit("leaky_trace", [eps_v, operand], [eps_v], decay=1 * self.decay)\n',
    ),
    (
        "nets/alif.py",
        '            e.emit("leaky_trace", [eps_v, operand], [eps_v], decay=self.decay)\n',
        "",
    ),
    tests=cut("eprop", "ALIF-Linear"),
)
mutation(
    "e-prop: ALIF: psi of this step in the adaptation's trace",
    (
        "nets/alif.py",
        "        _, v_before, a_before = self.before(e)\n",
        "        _, v_before, a_before = (state.at(0) for state in self.state(e))\n",
    ),
    tests=cut("eprop", "ALIF-Linear"),
)
mutation(
    "e-prop: LIF: the z that the step starts from is lost",
    (
        "nets/lif.py",
        'e.emit("copy", [self.state(e)[0].whole]',
        'e.emit("copy", [self.state(e)[1].whole]',
    ),
    tests=cut("eprop", "Embedding-LIF-ALIF-LIF-LeakyIntegrator"),
)
mutation(
    "e-prop: spiking: the signal below goes through the weights without psi",
    (
        "nets/spiking.py",
        'e.emit("product", [du, e.parameter("weight_ih").whole, None], [dx])',
        'e.emit("product", [dy, e.parameter("weight_ih").whole, None], [dx])',
    ),
    tests=cut("eprop", "LSTM-ALIF-Linear"),
)
mutation(
    "compare: no growth where a leaky integrator reads out",
    ("experiments/compare.py", "not isinstance(layer, LeakyIntegrator)", "True"),
    tests=DIAGONALLY + "test_compare_on_the_command_line[alif-eprop]",
)


def _child(copy, tests):
    import pytest

    class ImportsTheCopy:
        wrong = True

        def pytest_sessionfinish(self):
            import fptt

            self.wrong = not Path(fptt.__file__).is_relative_to(copy)

    assert "fptt" not in sys.modules
    check = ImportsTheCopy()
    os.environ.update(PYTHONPATH=str(copy), FPTT_HYPOTHESIS="quick")
    os.chdir(copy.parent)  # hypothesis keeps failures below the working directory
    code = pytest.main(
        [
            "-x",
            "-q",
            "--no-header",
            "--tb=line",
            "--assert=plain",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:unraisableexception",
            f"--rootdir={TESTS.parent}",
            "-c",
            "/dev/null",
            "-o",
            f"pythonpath={copy}",
            *(f"{TESTS}/{test}" for test in tests),
        ],
        plugins=[check],
    )
    return WRONG_COPY if check.wrong else int(code)


class Server:
    """A process that runs tests on copies of src: one line in, one line out."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="fptt_mutations_")
        self.compiled = compiled_copy(Path(self.folder.name))
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, copy: Path, tests: tuple[str, ...]) -> tuple[int, str]:
        """Exit code and output of pytest."""
        output = copy.parent / "output.txt"
        print("\t".join(map(str, (copy, output, *tests))), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline()), output.read_text()

    def try_mutation(self, chosen: Mutation | None, tests: tuple[str, ...] = ()) -> tuple[int, str]:
        """The same for a fresh copy with a mutation."""
        with tempfile.TemporaryDirectory(dir=self.folder.name) as folder:
            # exported folders take their C files from beside the package
            (Path(folder) / "runtime").symlink_to(SOURCE.parent / "runtime")
            return self.run(
                mutated_copy(chosen, Path(folder), self.compiled),
                tests or (chosen.tests if chosen else all_tests()),
            )

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def all_tests() -> tuple[str, ...]:
    """The tests of all mutations, each once."""
    return tuple(dict.fromkeys(test for m in MUTATIONS for test in m.tests))


def serve():
    """Answers requests until stdin ends. What is slow to load and is not fptt is loaded first."""
    sys.path.insert(0, str(TESTS))
    # torch.optim loads torch._dynamo at its first use
    for name in (
        "hypothesis.strategies",
        "ml_dtypes",
        "pytest",
        "threadpoolctl",
        "oracle",
        "torch._dynamo",
    ):
        importlib.import_module(name)
    assert "fptt" not in sys.modules
    gc.freeze()
    for line in sys.stdin:
        copy, output, *tests = line.rstrip("\n").split("\t")
        print(run_tests(Path(copy), tuple(tests), Path(output)), flush=True)


def main(words):
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    server = Server()
    code, output = server.try_mutation(None)
    if code:
        sys.exit(f"the tests fail without any mutation (exit code {code}):\n{output}")
    survived = 0
    for one in chosen:
        code, output = server.try_mutation(one)
        survived += code != 1
        print(f"{'red' if code == 1 else f'SURVIVED, exit code {code}':>24}  {one.name}")
        if code not in (0, 1):
            print(output)
    server.close()
    print(f"{len(chosen) - survived} of {len(chosen)} mutations turn their tests red")
    sys.exit(survived > 0)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main(sys.argv[1:])
