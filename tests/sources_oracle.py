"""Forward-mode gradients by autograd: the whole history kept, and the paths that a source leaves
out cut by hand. Written from the definitions; nothing here knows a trace.

    rtrl    nothing is cut, and nothing is detached between parts
    ostl, diagonal
            for the parameters of layer l: its input is a constant, its own recurrence is whole, and
            the layers above it take the state before the step as a constant
    eprop   as ostl, and an LSTM's h of the step before is a constant, too; c is not; of a spiking
            cell the z of the step before that goes through W_hh is, that in the adaptation is not

Where weights change between parts, each step keeps the weights that it was computed with, and the
gradient is the sum over these copies.
"""

from __future__ import annotations

import numpy as np
import torch
from oracle import CELLS, Oracle, lif, lstm, parameter_shapes, spike


def constant(state):
    return tuple(value.detach() for value in state)


# --- cells that do not see where their own outputs come from ----------


def lstm_alone(w, x, state):
    h, c = state
    return lstm(w, x, (h.detach(), c))


def lif_alone(w, x, state, **constants):
    z, v = state
    return lif(w, x, (z.detach(), v), **constants)


def alif_alone(w, x, state, tau=20.0, tau_adaptation=200.0, threshold=1.0, beta=0.1, **surrogate):
    """As `oracle.alif`; z acts on the neuron's own adaptation, and that way stays whole."""
    z, v, a = state
    seen = z.detach()
    v = np.exp(-1 / tau) * v + x @ w["weight_ih"].T + seen @ w["weight_hh"].T + w["bias"]
    v = v - threshold * seen
    a = np.exp(-1 / tau_adaptation) * a + z
    z = spike(v - threshold - beta * a, **surrogate)
    return z, (z, v, a)


ALONE = dict(LSTM=lstm_alone, LIF=lif_alone, ALIF=alif_alone)


class ForwardOracle(Oracle):
    """An Oracle whose gradient comes from a forward-mode source; `rule` names it as `source`."""

    def __init__(self, layers, rule, *args, **options):
        super().__init__(layers, rule, *args, **options)
        self.source = rule["source"]
        #: the layers whose parameters one pass is for
        whole = self.source == "rtrl"
        self.passes = [None] if whole else list(range(len(layers)))
        self.copies, self.focus, self.histories = [], None, None

    def weights(self):
        return self.copies[-1]

    def step(self, x, state):
        after = []
        for n, (kind, *_) in enumerate(self.layers):
            prefix = f"{n}."
            w = {k[len(prefix) :]: v for k, v in self.weights().items() if k.startswith(prefix)}
            before, cell = state[n], CELLS[kind]
            if self.focus == n:
                x = x.detach()
                cell = ALONE.get(kind, cell) if self.source == "eprop" else cell
            elif self.focus is not None and n > self.focus:
                before = constant(before)
            x, layer_state = cell(w, x, before, **self.options[n])
            after.append(layer_state)
        return x, after

    def new_weights(self):
        self.copies.append(
            {n: v.detach().clone().requires_grad_(True) for n, v in self.theta.items()}
        )

    def through_time(self, x, y, lengths, state):
        """(part, its loss, gradient, what Q learns); the caller may update after each."""
        if self.histories is None or self.rule["state"] == "reset":
            self.copies, self.histories = [], dict.fromkeys(self.passes, state)
        for part in range(self.parts):
            self.new_weights()
            gradient = {n: torch.zeros_like(v) for n, v in self.theta.items()}
            for focus in self.passes:
                self.focus = focus
                loss, self.histories[focus], lessons = self.part_loss(
                    part, x, y, lengths, self.histories[focus]
                )
                if loss is not None:
                    self.add_gradient(gradient, loss, focus)
            yield part, loss, gradient, lessons

    def add_gradient(self, gradient, loss, focus):
        names = [n for n in gradient if focus is None or n.startswith(f"{focus}.")]
        for copy in self.copies if names else ():
            grads = torch.autograd.grad(
                loss, [copy[n] for n in names], allow_unused=True, retain_graph=True
            )
            for name, g in zip(names, grads, strict=True):
                if g is not None:
                    gradient[name] += g

    def train_batch(self, x, y, lengths=None):
        losses = []
        for _, loss, gradient, lessons in self.through_time(*self.start(x, y, lengths)):
            if loss is not None:
                self.update(gradient)
                self.learn_q(lessons)
                losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def part_gradients(self, x, y, lengths=None):
        return [
            None if loss is None else {n: g.numpy().copy() for n, g in gradient.items()}
            for _, loss, gradient, _ in self.through_time(*self.start(x, y, lengths))
        ]


# --- how far what approximates is from what is exact ----------


def cosine(a, b):
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def mean_cosine(exact, approximate, layers, batches, lengths):
    """Of two trainers' gradients of the first part; every batch gets weights of its own."""
    cosines = []
    for seed, (x, y) in enumerate(batches):
        rng = np.random.default_rng(seed)
        drawn = {n: rng.uniform(-1, 1, s) for n, s in parameter_shapes(layers).items()}
        for trainer in (exact, approximate):
            trainer.load_parameters(drawn)
        wanted, found = (t.part_gradients(x, y, lengths)[0] for t in (exact, approximate))
        lowest = [n for n in wanted if n[0] == "0"]  # the lowest layer loses the most
        cosines.append(np.mean([cosine(found[n], wanted[n]) for n in lowest]))
    return float(np.mean(cosines))
