"""An independent PyTorch statement of what fptt must compute, from the specification only.

Nothing here comes from fptt: cells are written out, gradients come from autograd, optimizers and
clipping from torch; rows that ended are masked, where fptt runs on prefixes of a sorted batch.

    part p = 0..K-1 covers steps floor(p T / K) .. floor((p + 1) T / K) - 1; state detached between
    g = d(data loss of the part) / d(theta)
    d = g - kappa lambda + alpha (theta - m); clip d; theta' = opt(theta, d)
    kappa = 1 in code mode, 1/2 in paper mode
    lambda' = kappa lambda - alpha (theta' - m)
    m' = (1 - beta) m + beta theta' - (beta / alpha) lambda'
"""

from __future__ import annotations

import numpy as np
import torch

torch.set_num_threads(1)

RULE_DEFAULTS = dict(
    kind="fptt",
    parts=1,
    alpha=0.1,
    beta=0.5,
    mode="code",
    regularise=True,
    state="reset",
    epoch_end="average",
    epoch_lambda="zero",
)


# --- cells: one step each, from (parameters w, input x, state) to (output, state) ----------


def lstm(w, x, state):
    h, c = state
    i, f, g, o = (x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"]).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, (h, c)


def gru(w, x, state):
    (h,) = state
    xr, xz, xn = (x @ w["weight_ih"].T + w["bias_ih"]).chunk(3, dim=1)
    hr, hz, hn = (h @ w["weight_hh"].T + w["bias_hh"]).chunk(3, dim=1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    h = (1 - z) * torch.tanh(xn + r * hn) + z * h
    return h, (h,)


def rnn(w, x, state):
    (h,) = state
    h = torch.tanh(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"])
    return h, (h,)


def elementwise_lstm(w, x, state):
    h, c = state
    sees = torch.cat([h, h, h, h], dim=1)
    i, f, g, o = (x @ w["weight_ih"].T + w["weight_hh"] * sees + w["bias"]).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, (h, c)


def lru(w, x, state):
    """In complex numbers, which fptt does without."""
    (s,) = state
    log_eigenvalue = torch.complex(-torch.exp(w["nu"]), torch.exp(w["theta"]))
    eigenvalue = torch.exp(log_eigenvalue)
    gamma = torch.sqrt(1 - eigenvalue.abs() ** 2)
    b = torch.complex(*w["weight_ih"].chunk(2, dim=0))
    s = torch.complex(*s.chunk(2, dim=1))
    s = eigenvalue * s + gamma * (x.to(b.dtype) @ b.T)
    s = torch.cat([s.real, s.imag], dim=1)
    return s, (s,)


# --- spiking cells ----------


class Spike(torch.autograd.Function):
    """1 where u > 0; backwards psi(u), the surrogate of the derivative, written with densities."""

    @staticmethod
    def forward(ctx, u, surrogate, gamma, width):
        ctx.save_for_backward(u)
        ctx.constants = surrogate, gamma, width
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, upstream):
        (u,) = ctx.saved_tensors
        surrogate, gamma, width = ctx.constants

        def density(mean, deviation):
            normal = torch.distributions.Normal(
                torch.tensor(mean, dtype=u.dtype), torch.tensor(deviation, dtype=u.dtype)
            )
            return normal.log_prob(u).exp()

        if surrogate == "triangle":
            psi = gamma / width * torch.relu(1 - u.abs() / width)
        else:
            sides = density(width, 6.0 * width) + density(-width, 6.0 * width)
            psi = gamma * (1.15 * density(0.0, width) - 0.15 * sides)
        return upstream * psi, None, None, None


def spike(u, surrogate="multi_gaussian", gamma=0.5, surrogate_width=0.5):
    return Spike.apply(u, surrogate, gamma, surrogate_width)


def lif(w, x, state, tau=20.0, threshold=1.0, **surrogate):
    z, v = state
    v = np.exp(-1 / tau) * v + x @ w["weight_ih"].T + z @ w["weight_hh"].T + w["bias"]
    v = v - threshold * z.detach()
    z = spike(v - threshold, **surrogate)
    return z, (z, v)


def alif(w, x, state, tau=20.0, tau_adaptation=200.0, threshold=1.0, beta=0.1, **surrogate):
    z, v, a = state
    v = np.exp(-1 / tau) * v + x @ w["weight_ih"].T + z @ w["weight_hh"].T + w["bias"]
    v = v - threshold * z.detach()
    a = np.exp(-1 / tau_adaptation) * a + z
    z = spike(v - threshold - beta * a, **surrogate)
    return z, (z, v, a)


def ltc(w, x, state, threshold=0.1, beta=1.8, **surrogate):
    z, v, a = state
    i = x @ w["weight_ih"].T + z @ w["weight_hh"].T + w["bias"]
    m = torch.sigmoid(i @ w["weight_im"].T + v @ w["weight_vm"].T + w["bias_m"])
    r = torch.sigmoid(i @ w["weight_ir"].T + a @ w["weight_ar"].T + w["bias_r"])
    a = r * a + (1 - r) * z
    u = (1 - m) * v + m * i
    z = spike(u - threshold - beta * a, **surrogate)
    return z, (z, u * (1 - z), a)


def leaky_integrator(w, x, state, tau=20.0):
    (y,) = state
    y = np.exp(-1 / tau) * y + x @ w["weight_ih"].T + w["bias"]
    return y, (y,)


CELLS = dict(
    LSTM=lstm,
    GRU=gru,
    RNN=rnn,
    ElementwiseLSTM=elementwise_lstm,
    LRU=lru,
    LIF=lif,
    ALIF=alif,
    LTC=ltc,
    LeakyIntegrator=leaky_integrator,
    Linear=lambda w, x, state: (x @ w["weight"].T + w["bias"], state),
    Embedding=lambda w, x, state: (w["weight"][x], state),
    ReLU=lambda w, x, state: (torch.relu(x), state),
    Dropout=lambda w, x, state: (x, state),  # only as p = 0, or in inference
)


def width(kind, size):
    """The number of outputs of a layer."""
    return 2 * size[-1] if kind == "LRU" else size[-1]


#: tensors that a cell carries from step to step
STATES = dict(
    LSTM=2, GRU=1, RNN=1, ElementwiseLSTM=2, LRU=1, LIF=2, ALIF=3, LTC=3, LeakyIntegrator=1
)


def plain(layers):
    """The layers without their options: ("ALIF", 3, 5, dict(beta=0.3)) is ("ALIF", 3, 5)."""
    return [tuple(part for part in layer if not isinstance(part, dict)) for layer in layers]


def parameter_shapes(layers):
    """Name -> shape of every trainable tensor of a network described as [("LSTM", 3, 5), ...]."""
    shapes = {}
    for n, (kind, *size) in enumerate(plain(layers)):
        if kind == "LRU":
            inputs, hidden = size
            shapes[f"{n}.nu"] = shapes[f"{n}.theta"] = (hidden,)
            shapes[f"{n}.weight_ih"] = (2 * hidden, inputs)
        elif kind == "ElementwiseLSTM":
            inputs, hidden = size
            shapes[f"{n}.weight_ih"] = (4 * hidden, inputs)
            shapes[f"{n}.weight_hh"] = shapes[f"{n}.bias"] = (4 * hidden,)
        elif kind in ("LSTM", "GRU", "RNN"):
            inputs, hidden = size
            rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
            shapes[f"{n}.weight_ih"] = (rows, inputs)
            shapes[f"{n}.weight_hh"] = (rows, hidden)
            for bias in ("bias_ih", "bias_hh") if kind == "GRU" else ("bias",):
                shapes[f"{n}.{bias}"] = (rows,)
        elif kind in ("LIF", "ALIF", "LTC"):
            inputs, hidden = size
            shapes[f"{n}.weight_ih"], shapes[f"{n}.bias"] = (hidden, inputs), (hidden,)
            square = ["hh", "im", "vm", "ir", "ar"] if kind == "LTC" else ["hh"]
            shapes |= {f"{n}.weight_{name}": (hidden, hidden) for name in square}
            if kind == "LTC":
                shapes |= {f"{n}.bias_m": (hidden,), f"{n}.bias_r": (hidden,)}
        elif kind == "LeakyIntegrator":
            shapes[f"{n}.weight_ih"], shapes[f"{n}.bias"] = (size[1], size[0]), (size[1],)
        elif kind == "Linear":
            shapes[f"{n}.weight"], shapes[f"{n}.bias"] = (size[1], size[0]), (size[1],)
        elif kind == "Embedding":
            shapes[f"{n}.weight"] = (size[0], size[1])
    return shapes


class Oracle:
    """Trains like fptt.Trainer, by autograd.

    Args:
        layers: [(kind, *sizes), ...], for instance [("LSTM", 3, 5), ("Linear", 5, 4)]; a dict at
            the end of a layer holds the constants of its cell.
        rule: dict(kind="bptt" | "tbptt" | "fptt", parts=.., alpha=.., ...); see RULE_DEFAULTS.
        optimizer: ("sgd", dict(lr=.., momentum=..)) or ("adam", dict(lr=..)).
        steps: T, which fixes the cuts.
        loss: "last", "every_step", "auxiliary" or ("auxiliary", dict(rate=.., per_part=..)).
        criterion: "cross_entropy" or "mse".
        clip: largest global norm of d, or None.
        parameters: name -> array; every trainable tensor.
    """

    def __init__(
        self,
        layers,
        rule,
        optimizer,
        steps,
        loss="last",
        criterion="cross_entropy",
        clip=None,
        dtype=torch.float64,
        parameters=None,
    ):
        self.options = [layer[-1] if isinstance(layer[-1], dict) else {} for layer in layers]
        self.layers = layers = plain(layers)
        self.steps, self.criterion, self.clip = steps, criterion, clip
        self.dtype = dtype
        self.rule = {**RULE_DEFAULTS, **rule}
        self.parts = 1 if self.rule["kind"] == "bptt" else self.rule["parts"]
        self.wrapped = self.rule["kind"] == "fptt" and self.rule["regularise"]
        self.kappa = {"code": 1.0, "paper": 0.5}[self.rule["mode"]]
        self.cuts = [p * steps // self.parts for p in range(self.parts + 1)]

        shapes = parameter_shapes(layers)
        assert set(parameters) == set(shapes), (sorted(parameters), sorted(shapes))
        self.theta = {}
        for name, shape in shapes.items():
            value = torch.tensor(np.array(parameters[name]), dtype=dtype)
            assert tuple(value.shape) == shape, (name, value.shape, shape)
            self.theta[name] = value.requires_grad_(True)
        self.mean = {name: value.detach().clone() for name, value in self.theta.items()}
        self.lam = {name: torch.zeros_like(value) for name, value in self.mean.items()}

        kind, options = optimizer
        self.optimizer_kind = kind
        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind]
        self.optimizer = make(list(self.theta.values()), **options)

        self.schedule, options = loss if isinstance(loss, tuple) else (loss, {})
        if self.schedule == "auxiliary":
            self.rate, self.per_part = options.get("rate", 0.1), options.get("per_part", False)
            sized = [(kind, size) for kind, *size in layers if size and kind != "Dropout"]
            classes = width(*sized[-1])
            shape = (self.parts, classes, classes) if self.per_part else (classes, classes)
            self.q = torch.full(shape, 1 / classes, dtype=dtype)
        self.carry = None

    # --- the network ----------

    def zero_state(self, batch):
        def zeros(hidden, count):
            return tuple(torch.zeros(batch, hidden, dtype=self.dtype) for _ in range(count))

        return [
            zeros(width(kind, size), STATES[kind]) if kind in STATES else ()
            for kind, *size in self.layers
        ]

    def weights(self):
        """The layers' tensors by name."""
        return self.theta

    def step(self, x, state):
        """One step of the whole network for all rows."""
        after = []
        for n, (kind, *_) in enumerate(self.layers):
            prefix = f"{n}."
            w = {k[len(prefix) :]: v for k, v in self.weights().items() if k.startswith(prefix)}
            x, layer_state = CELLS[kind](w, x, state[n], **self.options[n])
            after.append(layer_state)
        return x, after

    def forward(self, x, lengths, state, start, stop):
        """Outputs [batch, stop - start, C] and the state after; rows that ended keep theirs."""
        outputs = []
        for t in range(start, stop):
            out, after = self.step(x[:, t], state)
            running = (t < lengths)[:, None]
            state = [
                tuple(torch.where(running, a, b) for a, b in zip(new, old, strict=True))
                for new, old in zip(after, state, strict=True)
            ]
            outputs.append(out)
        return torch.stack(outputs, dim=1), state

    # --- the loss of one part ----------

    def part_loss(self, part, x, y, lengths, state):
        """(mean loss over what counts, or None; the state after; what Q learns at the end)."""
        start, stop = self.cuts[part], min(self.cuts[part + 1], x.shape[1])
        rows = [row for row in range(len(x)) if lengths[row] > start]
        if not rows:
            return None, state, []
        outputs, state = self.forward(x, lengths, state, start, stop)

        if self.schedule == "every_step":
            pairs = [(r, t) for r in rows for t in range(start, min(stop, int(lengths[r])))]
            if self.criterion == "cross_entropy":
                pairs = [(r, t) for r, t in pairs if y[r, t] >= 0]
            if not pairs:
                return None, state, []
            predicted = torch.stack([outputs[r, t - start] for r, t in pairs])
            wanted = torch.stack([y[r, t] for r, t in pairs])
            return self.mean_criterion(predicted, wanted), state, []

        seen = [min(int(lengths[r]), stop) for r in rows]
        predicted = torch.stack(
            [outputs[r, s - 1 - start] for r, s in zip(rows, seen, strict=True)]
        )
        wanted = y[rows]
        if self.schedule == "last":
            return self.mean_criterion(predicted, wanted), state, []
        return self.auxiliary_loss(part, predicted, wanted, rows, seen, lengths, state)

    def mean_criterion(self, predicted, wanted):
        if self.criterion == "mse":
            return ((predicted - wanted) ** 2).mean()
        return torch.nn.functional.cross_entropy(predicted, wanted)

    def auxiliary_loss(self, part, predicted, wanted, rows, seen, lengths, state):
        """b CE + (1 - b) Div, Div = -sum_y Q[label, y] log P(y)."""
        if bool((lengths == self.steps).all()):
            b = torch.full((len(rows),), (part + 1) / self.parts, dtype=self.dtype)
        else:
            b = torch.tensor(seen, dtype=self.dtype) / lengths[rows].to(self.dtype)
        q = self.q[part] if self.per_part else self.q
        log_p = torch.log_softmax(predicted, dim=1)
        cross_entropy = -log_p[torch.arange(len(rows)), wanted]
        divergence = -(q[wanted] * log_p).sum(dim=1)
        loss = (b * cross_entropy + (1 - b) * divergence).mean()

        p = log_p.detach().exp()
        by_length = sorted(range(len(rows)), key=lambda n: -int(lengths[rows[n]]))  # stable
        ended = [n for n in by_length if self.per_part or lengths[rows[n]] == seen[n]]
        return loss, state, [(part, int(wanted[n]), p[n]) for n in ended]

    def learn_q(self, lessons):
        for part, label, p in lessons:
            q = self.q[part] if self.per_part else self.q
            q[label] = (1 - self.rate) * q[label] + self.rate * p

    # --- training ----------

    def gradient(self, loss):
        grads = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True)
        pairs = zip(self.theta.items(), grads, strict=True)
        return {n: torch.zeros_like(v) if g is None else g for (n, v), g in pairs}

    @torch.no_grad()
    def update(self, g):
        """One part's update, from the gradient of its data loss."""
        alpha, beta = self.rule["alpha"], self.rule["beta"]
        for name, theta in self.theta.items():
            theta.grad = g[name].clone()
            if self.wrapped:
                theta.grad += -self.kappa * self.lam[name] + alpha * (theta - self.mean[name])
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self.theta.values()), self.clip)
        self.optimizer.step()
        if self.wrapped:
            for name, theta in self.theta.items():
                lam, mean = self.lam[name], self.mean[name]
                self.lam[name] = lam = self.kappa * lam - alpha * (theta - mean)
                self.mean[name] = (1 - beta) * mean + beta * theta - (beta / alpha) * lam

    def train_batch(self, x, y, lengths=None):
        """One update per part that counts something; returns the mean of those parts' losses."""
        x, y, lengths, state = self.start(x, y, lengths)
        losses = []
        for part in range(self.parts):
            state = [tuple(value.detach() for value in layer) for layer in state]
            loss, state, lessons = self.part_loss(part, x, y, lengths, state)
            if loss is not None:
                self.update(self.gradient(loss))
                self.learn_q(lessons)
                losses.append(float(loss.detach()))
        self.carry = [tuple(value.detach() for value in layer) for layer in state]
        return float(np.mean(losses))

    def part_losses(self, x, y, lengths=None):
        """Every part's loss (tensors, None where nothing counts) with weights and Q held fixed."""
        x, y, lengths, state = self.start(x, y, lengths)
        losses = []
        for part in range(self.parts):
            state = [tuple(value.detach() for value in layer) for layer in state]
            loss, state, _ = self.part_loss(part, x, y, lengths, state)
            losses.append(loss)
        return losses

    def part_gradients(self, x, y, lengths=None):
        losses = self.part_losses(x, y, lengths)
        return [
            None if loss is None else {n: g.numpy().copy() for n, g in self.gradient(loss).items()}
            for loss in losses
        ]

    def full_gradient(self, x, y, lengths=None):
        """Gradient of the mean of the parts' losses with the gradient running through all time."""
        x, y, lengths, state = self.start(x, y, lengths)
        losses = []
        for part in range(self.parts):
            loss, state, _ = self.part_loss(part, x, y, lengths, state)
            if loss is not None:
                losses.append(loss)
        return {n: g.numpy().copy() for n, g in self.gradient(sum(losses) / len(losses)).items()}

    @torch.no_grad()
    def end_epoch(self):
        if self.wrapped:
            for name, theta in self.theta.items():
                if self.rule["epoch_end"] == "average":
                    theta.copy_(self.mean[name])
                if self.rule["epoch_lambda"] == "zero":
                    self.lam[name].zero_()

    @torch.no_grad()
    def predict(self, x, lengths=None):
        """Outputs at each row's own last step, or at every step for the every_step loss."""
        x, _, lengths, _ = self.start(x, np.zeros(len(x)), lengths)
        outputs, _ = self.forward(x, lengths, self.zero_state(len(x)), 0, x.shape[1])
        if self.schedule == "every_step":
            return outputs.numpy()
        return outputs[torch.arange(len(x)), lengths - 1].numpy()

    # --- arrays in and out ----------

    def start(self, x, y, lengths):
        x, y = torch.tensor(np.array(x)), torch.tensor(np.array(y))
        x = x.long() if self.layers[0][0] == "Embedding" else x.to(self.dtype)
        y = y.to(self.dtype) if self.criterion == "mse" else y.long()
        full = [x.shape[1]] * len(x)
        lengths = torch.tensor(np.array(full if lengths is None else lengths))
        assert x.shape[1] <= self.steps
        assert lengths.min() >= 1
        assert lengths.max() <= x.shape[1]
        carried = self.rule["state"] == "carry" and self.carry is not None
        return x, y, lengths, self.carry if carried else self.zero_state(len(x))

    def parameters(self):
        return {name: value.detach().numpy().copy() for name, value in self.theta.items()}

    def state(self):
        """Rule and optimizer state under fptt's names."""
        found = {}
        if self.wrapped:
            for name in self.theta:
                found[f"mean/{name}"] = self.mean[name]
                found[f"lambda/{name}"] = self.lam[name]
        if self.schedule == "auxiliary":
            found["auxiliary.Q"] = self.q
        group = self.optimizer.param_groups[0]
        keys = {}
        if self.optimizer_kind == "adam":
            keys = {"adam_m": "exp_avg", "adam_v": "exp_avg_sq"}
        elif group["momentum"]:
            keys = {"momentum": "momentum_buffer"}
        for ours, theirs in keys.items():
            for name, value in self.theta.items():
                found[f"{ours}/{name}"] = self.optimizer.state[value].get(
                    theirs, torch.zeros_like(value)
                )
        return {key: value.detach().numpy().copy() for key, value in found.items()}
