"""The training that is timed beside fptt's, in JAX: a whole batch is one compiled program.

Nothing here imports jax before a peer is made, and what `environment` returns must be set before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: a traced array of JAX
Traced = Any

#: batches from 2 to this train faster with a transposed copy of weight_hh (see JaxPeer)
_TRANSPOSED = 16


def environment(threads: int) -> dict[str, str]:
    """Environment variables that keep JAX on the CPU and to so many threads.

    They must be set before jax is imported: XLA reads them once.
    """
    eigen = "true" if threads > 1 else "false"
    return {
        "JAX_PLATFORMS": "cpu",
        "NPROC": str(threads),  # the size of XLA's thread pool
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}",
    }


@dataclass(frozen=True)
class _Setting:
    """Everything that the compiled program depends on; see JaxPeer."""

    cell: str
    inputs: int
    hidden: int
    classes: int
    steps: int
    batch: int
    parts: int
    fptt: bool
    lr: float
    momentum: float
    alpha: float
    beta: float
    transposed: bool


class JaxPeer:
    """One recurrent layer and a Linear readout, trained as fptt does, as one program of XLA's.

    A scan over the K parts; in it a scan forward over the steps that keeps gates and states, a scan
    backward that is written by hand and gives the gradient of the gates' sums, one product over all
    steps for each weight matrix, and the update, which XLA fuses. The state of learning is donated:
    it is updated in place.

    It is meant to be as fast as JAX gets. What was tried (LSTM 1-128-10, 784 steps, K = 1, 28 and
    784, one thread of an x86-64 with AVX-512, JAX 0.10; ms):

    - Weights as [inputs, gates] instead of fptt's [gates, inputs]: batch 128 takes 598, 268, 178
      instead of 660, 455, 293; batch 1 the same within 12 %.
    - One input feature multiplied inside the step instead of before the scan: batch 128 takes 500,
      251, 182 instead of 598, 268, 178; batch 1 and 4 up to 20 % less.
    - A transposed copy of weight_hh, made once a part for the backward scan: batch 4 takes 8.7, 9.4
      instead of 14.3, 14.2, batch 16 64, 37 instead of 68, 44; from batch 32 on, and for batch 1,
      within 15 % either way. Parts of one step need no such product.
    - Gates kept apart instead of as one array: 0 to 20 % faster.
    - No gain: scans unrolled by 2 or 4 steps (mostly slower), one product over [x, h, 1], tanh(c)
      computed again in the backward pass, the sigmoid written with tanh.

    Args:
        cell: "lstm" or "gru".
        inputs, hidden, classes: sizes.
        layers: 1.
        steps, batch, parts: T, rows and K; K divides T.
        rule: "fptt", or "bptt" or "tbptt" for the plain update.
        lr, momentum: of SGD; momentum 0 keeps no moments.
        alpha, beta: of FPTT, mode "code".
        transposed: whether to keep a transposed copy of weight_hh; None chooses by the batch.
    """

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        layers: int,
        classes: int,
        steps: int,
        batch: int,
        parts: int,
        rule: str,
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        alpha: float = 0.1,
        beta: float = 0.5,
        transposed: bool | None = None,
    ) -> None:
        if cell not in _CELLS or layers != 1 or steps % parts:
            raise ValueError(
                f"JaxPeer: {layers} layers of {cell!r}, {steps} steps in {parts} parts; "
                "it trains one layer of lstm or gru, in parts of equal length"
            )
        if rule not in ("fptt", "bptt", "tbptt"):
            raise ValueError(f"JaxPeer: rule is {rule!r}; choose fptt, bptt or tbptt")
        import jax

        if transposed is None:
            transposed = 1 < batch <= _TRANSPOSED
        setting = _Setting(
            cell,
            inputs,
            hidden,
            classes,
            steps,
            batch,
            parts,
            rule == "fptt",
            lr,
            momentum,
            alpha,
            beta,
            transposed and parts < steps,
        )
        self.setting = setting
        self._jax = jax
        self._train = jax.jit(lambda *given: _train_batch(setting, *given), donate_argnums=0)
        #: name -> (theta, lambda, m, v), in the program's layout
        self._state: dict[str, tuple[Traced, ...]] = {}

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Sets all parameters, by fptt's names, and starts learning anew."""
        for name, value in parameters.items():
            theta = np.array(value, np.float32).T
            rule = (np.zeros_like(theta), theta) if self.setting.fptt else ()
            moment = (np.zeros_like(theta),) if self.setting.momentum else ()
            # each its own copy, because all are donated
            self._state[name] = tuple(
                self._jax.numpy.array(array, copy=True) for array in (theta, *rule, *moment)
            )

    def parameters(self) -> dict[str, Array]:
        """Copies of all parameters, by fptt's names."""
        return {name: np.array(theta).T.copy() for name, (theta, *_) in self._state.items()}

    def train_batch(self, x: NDArray[np.float32], y: Array) -> None:
        """Trains on x [batch, steps, inputs] with labels y [batch]: K parts, K updates."""
        self._state = self._train(self._state, x, np.asarray(y, np.int32))
        self._jax.block_until_ready(self._state)


def _train_batch(
    s: _Setting, state: dict[str, tuple[Traced, ...]], x: Traced, y: Traced
) -> dict[str, tuple[Traced, ...]]:
    """The state of learning after one batch."""
    import jax
    import jax.numpy as jnp

    def part(carried: Any, x_part: Traced) -> tuple[Any, None]:
        state, cell_state = carried
        theta = {name: tensors[0] for name, tensors in state.items()}
        gradients, cell_state = _gradients(s, theta, cell_state, x_part, y)
        state = {name: _update(s, gradients[name], *tensors) for name, tensors in state.items()}
        return (state, cell_state), None

    length = s.steps // s.parts
    parts = jnp.swapaxes(x, 0, 1).reshape(s.parts, length, s.batch, s.inputs)
    zeros = jnp.zeros((s.batch, s.hidden), jnp.float32)
    start = (state, (zeros, zeros) if s.cell == "lstm" else (zeros,))
    if s.parts == 1:
        (state, _), _ = part(start, parts[0])
    else:
        (state, _), _ = jax.lax.scan(part, start, parts)
    return state


def _update(s: _Setting, g: Traced, theta: Traced, *remembered: Traced) -> tuple[Traced, ...]:
    """One tensor's update: (theta, lambda and m in FPTT, v with momentum)."""
    d = g
    if s.fptt:
        lam, mean = remembered[:2]
        d = g - lam + s.alpha * (theta - mean)
    if s.momentum:
        d = s.momentum * remembered[-1] + d
    theta = theta - s.lr * d
    moment = (d,) if s.momentum else ()
    if not s.fptt:
        return (theta, *moment)
    lam = lam - s.alpha * (theta - mean)
    mean = (1 - s.beta) * mean + s.beta * theta - s.beta / s.alpha * lam
    return (theta, lam, mean, *moment)


def _gradients(
    s: _Setting, theta: dict[str, Traced], state: tuple[Traced, ...], x: Traced, y: Traced
) -> tuple[dict[str, Traced], tuple[Traced, ...]]:
    """Gradients of one part's loss, and the state after it.

    Args:
        theta: the weights, [inputs, outputs].
        state: (h, c) or (h,) before the part.
        x: [length, batch, inputs].
        y: [batch].
    """
    import jax
    import jax.numpy as jnp

    forward, backward = _CELLS[s.cell]
    w_hh, bias = theta["0.weight_hh"], theta["0.bias" if s.cell == "lstm" else "0.bias_ih"]
    # the product of one feature is cheaper inside the step
    inside = s.inputs == 1
    sums = x if inside else x @ theta["0.weight_ih"] + bias
    w_back = jax.lax.optimization_barrier(w_hh.T) if s.transposed else w_hh

    def step(state: tuple[Traced, ...], a: Traced) -> tuple[tuple[Traced, ...], Any]:
        a = a * theta["0.weight_ih"] + bias if inside else a
        u = state[0] @ w_hh
        if s.cell == "gru":
            u = u + theta["0.bias_hh"]
        after, kept = forward(a, u, *state)
        return after, (state[0], kept)

    def step_back(ahead: tuple[Traced, ...], saved: Any) -> tuple[tuple[Traced, ...], Any]:
        h_before, kept = saved
        da, direct, carried = backward(*ahead, h_before, *kept)
        through = da[-1] @ w_back if s.transposed else _times_transposed(da[-1], w_hh)
        return (through if direct is None else through + direct, *carried), da

    state, (h_before, kept) = _scan(step, state, sums)
    h = state[0]
    logits = h @ theta["1.weight"] + theta["1.bias"]
    d_logits = (jax.nn.softmax(logits) - jax.nn.one_hot(y, s.classes)) / s.batch
    ahead = (_times_transposed(d_logits, theta["1.weight"]), *map(jnp.zeros_like, state[1:]))
    _, da = _scan(step_back, ahead, (h_before, kept), reverse=True)

    rows = [array.reshape(-1, array.shape[-1]) for array in da]
    d_input, d_hidden = rows[0], rows[-1]
    biases = (
        {"0.bias": d_input.sum(0)}
        if s.cell == "lstm"
        else {"0.bias_ih": d_input.sum(0), "0.bias_hh": d_hidden.sum(0)}
    )
    return {
        "0.weight_ih": x.reshape(-1, s.inputs).T @ d_input,
        "0.weight_hh": h_before.reshape(-1, s.hidden).T @ d_hidden,
        **biases,
        "1.weight": h.T @ d_logits,
        "1.bias": d_logits.sum(0),
    }, state


def _scan(step: Any, carry: Any, rows: Any, *, reverse: bool = False) -> Any:
    """lax.scan; a single step runs without the loop."""
    import jax

    if len(jax.tree.leaves(rows)[0]) > 1:
        return jax.lax.scan(step, carry, rows, reverse=reverse)
    carry, out = step(carry, jax.tree.map(lambda array: array[0], rows))
    return carry, jax.tree.map(lambda array: array[None], out)


def _times_transposed(a: Traced, b: Traced) -> Traced:
    """a b^T without a transposed copy."""
    import jax

    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())))


def _lstm(a: Traced, u: Traced, h: Traced, c: Traced) -> tuple[tuple[Traced, ...], Any]:
    """One step: (h, c) after it, and what the backward pass needs."""
    import jax
    import jax.numpy as jnp

    n = h.shape[1]
    a = a + u
    i, f, o = (jax.nn.sigmoid(a[:, k * n : (k + 1) * n]) for k in (0, 1, 3))
    g = jnp.tanh(a[:, 2 * n : 3 * n])
    after = f * c + i * g
    squashed = jnp.tanh(after)
    return (o * squashed, after), (i, f, g, o, c, squashed)


def _lstm_back(
    dh: Traced,
    dc: Traced,
    _: Traced,
    i: Traced,
    f: Traced,
    g: Traced,
    o: Traced,
    c: Traced,
    squashed: Traced,
) -> tuple[tuple[Traced], None, tuple[Traced]]:
    """Gradients of the gates' sums; of h before, but for that through W_hh; of c before."""
    import jax.numpy as jnp

    dc = dc + dh * o * (1 - squashed * squashed)
    da = [
        dc * g * i * (1 - i),
        dc * c * f * (1 - f),
        dc * i * (1 - g * g),
        dh * squashed * o * (1 - o),
    ]
    return (jnp.concatenate(da, 1),), None, (dc * f,)


def _gru(a: Traced, u: Traced, h: Traced) -> tuple[tuple[Traced, ...], Any]:
    """One step: (h,) after it, and what the backward pass needs."""
    import jax
    import jax.numpy as jnp

    n = h.shape[1]
    r, z = (jax.nn.sigmoid((a + u)[:, k * n : (k + 1) * n]) for k in (0, 1))
    q = u[:, 2 * n :]
    new = jnp.tanh(a[:, 2 * n :] + r * q)
    return ((1 - z) * new + z * h,), (r, z, q, new)


def _gru_back(
    dh: Traced, h: Traced, r: Traced, z: Traced, q: Traced, new: Traced
) -> tuple[tuple[Traced, Traced], Traced, tuple[()]]:
    """Gradients of the input's and of h's sums; of h before, but for that through W_hh."""
    import jax.numpy as jnp

    d_new = dh * (1 - z) * (1 - new * new)
    d_r = d_new * q * r * (1 - r)
    d_z = dh * (h - new) * z * (1 - z)
    d_input = jnp.concatenate([d_r, d_z, d_new], 1)
    d_hidden = jnp.concatenate([d_r, d_z, d_new * r], 1)
    return (d_input, d_hidden), dh * z, ()


_CELLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "lstm": (_lstm, _lstm_back),
    "gru": (_gru, _gru_back),
}
