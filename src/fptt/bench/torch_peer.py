"""The training that is timed beside fptt's, in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

Array = NDArray[Any]
Form = Literal["sequence", "steps"]

_CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
_STEPS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm_cell,
    "gru": torch.gru_cell,
    "rnn": torch.rnn_tanh_cell,
}


class TorchPeer:
    """A stack of recurrent layers and a Linear readout, trained as fptt does, in eager PyTorch.

    Autograd finds the gradients; the loss is the cross-entropy of each part's last output against
    the label. The caller chooses the threads (`torch.set_num_threads`).

    It is meant to be as fast as eager PyTorch gets. What was tried (LSTM 1-128-10, 784 steps, one
    thread of an x86-64 with AVX-512, PyTorch 2.13):

    - nn.LSTM takes a whole part in one oneDNN call, which costs 0.2 ms however short the part is;
      step by step through `torch.lstm_cell` (nn.LSTMCell without the module) a step costs 0.1 ms
      forward and back. For batch 1 (ms, K = 1, 28, 784): 5, 12, 215 as a sequence, 65, 65, 90 by
      steps. GRU in batch 128: 623, 465, 434 as a sequence, 473, 446, 389 by steps. The faster one
      changes with cell, batch and part, so `form=None` times both. nn.LSTM with oneDNN off: 51, 55,
      117.
    - One's own step of addmm, chunk and sigmoid, with the inputs' product before the loop: 59, 57,
      101. Ahead of `torch.lstm_cell` only where the sequence is far ahead of both.
    - Time before batch, copied once a batch: 0 to 7 % faster than batch_first.
    - loss.backward() into empty .grad: up to 7 % faster than torch.autograd.grad, seldom slower.
    - FPTT's update with momentum, microseconds: in-place operations tensor by tensor 100,
      torch._foreach 82, torch._foreach with torch._fused_sgd_ (what torch.optim.SGD(fused=True)
      calls) 56, and as below, with one flat buffer for lambda and s, 33 to 34, whether or not a
      loop replaces torch._foreach_sub_; with the gradients first joined in a flat buffer 39. The
      fused SGD alone takes 9.

    FPTT's update is d = g - lambda + alpha (theta - m), v = mu v + d, theta' = theta - lr v,
    lambda' = lambda - alpha (theta' - m), m' = (1 - beta) m + beta theta' - beta/alpha lambda'.
    Instead of m we keep s = lambda + alpha m. Then d = g - s + alpha theta is SGD with weight decay
    alpha on g - s, which the fused kernel computes in one pass, and

        lambda' = s - alpha theta',   s' = (1 - beta) (2 s - lambda) + (2 beta - 1) alpha theta'.

    Args:
        cell: "lstm", "gru" or "rnn".
        inputs, hidden, layers, classes: sizes.
        steps, batch, parts: T, rows and K; part p covers floor(p T/K) to floor((p + 1) T/K) - 1.
        rule: "fptt", or "bptt" or "tbptt" for the plain update.
        lr, momentum: of SGD; momentum 0 keeps no moments.
        alpha, beta: of FPTT, mode "code".
        form: "sequence" gives whole parts to nn.LSTM, nn.GRU or nn.RNN; "steps" loops over the
            steps in Python; None times both and takes the faster (`form` tells which).
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
        form: Form | None = None,
    ) -> None:
        if rule not in ("fptt", "bptt", "tbptt"):
            raise ValueError(f"TorchPeer: rule is {rule!r}; choose fptt, bptt or tbptt")
        self.cell, self.layers, self.hidden = cell, layers, hidden
        self.lr, self.momentum, self.alpha, self.beta = lr, momentum, alpha, beta
        self.fptt = rule == "fptt"
        cuts = [part * steps // parts for part in range(parts + 1)]
        self.lengths = [after - before for before, after in pairwise(cuts)]
        self.net = _CELLS[cell](inputs, hidden, layers)
        self.readout = torch.nn.Linear(hidden, classes)
        self._adopt(self._names())
        self._gather_steps(torch.zeros(batch, hidden))
        self.load(self.parameters())
        self.form: Form = form or self._faster_form(batch, inputs)

    def _names(self) -> dict[str, torch.nn.Parameter]:
        """What trains, by fptt's names; one bias of LSTM and RNN is frozen at 0."""
        found = {}
        for name, tensor in self.net.named_parameters():
            kind, layer = name.rsplit("_l", 1)
            if self.cell == "gru" or not kind.startswith("bias"):
                found[f"{layer}.{kind}"] = tensor
            elif kind == "bias_ih":
                found[f"{layer}.bias"] = tensor
            else:
                tensor.requires_grad_(False).zero_()
        found[f"{self.layers}.weight"] = self.readout.weight
        found[f"{self.layers}.bias"] = self.readout.bias
        return found

    def _adopt(self, trained: dict[str, torch.nn.Parameter]) -> None:
        """Moves what trains into one flat buffer, beside which lie lambda, s and the momentum."""
        self.trained = trained
        self.tensors = list(trained.values())
        self.theta = torch.cat([tensor.detach().reshape(-1) for tensor in self.tensors])
        self.lam, self.s, self.v = (torch.zeros_like(self.theta) for _ in range(3))
        self.theta_views, self.lam_views, self.s_views, self.v_views = (
            self._views(flat) for flat in (self.theta, self.lam, self.s, self.v)
        )
        for tensor, view in zip(self.tensors, self.theta_views, strict=True):
            tensor.data = view
        if not self.momentum:
            self.v_views = []

    def _views(self, flat: Tensor) -> list[Tensor]:
        sizes = [tensor.numel() for tensor in self.tensors]
        return [
            part.view(tensor.shape)
            for part, tensor in zip(torch.split(flat, sizes), self.tensors, strict=True)
        ]

    def _gather_steps(self, zeros: Tensor) -> None:
        """The weights of every layer and the states that sequences start from, for both forms."""
        self.weights = [list(weights) for weights in self.net.all_weights]
        lstm = self.cell == "lstm"
        self.step_start = [(zeros, zeros) if lstm else zeros] * self.layers
        stacked = zeros.expand(self.layers, -1, -1).contiguous()
        self.sequence_start = (stacked, stacked) if lstm else stacked

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Sets all parameters, by fptt's names, and starts learning anew."""
        for name, view in zip(self.trained, self.theta_views, strict=True):
            view.copy_(torch.from_numpy(np.array(parameters[name], np.float32)))
        self.lam.zero_()
        self.v.zero_()
        torch.mul(self.theta, self.alpha, out=self.s)

    def parameters(self) -> dict[str, Array]:
        """Copies of all parameters, by fptt's names."""
        return {
            name: view.numpy().copy()
            for name, view in zip(self.trained, self.theta_views, strict=True)
        }

    def train_batch(self, x: NDArray[np.float32], y: Array) -> None:
        """Trains on x [batch, steps, inputs] with labels y [batch]: K parts, K updates."""
        labels = torch.from_numpy(np.asarray(y, np.int64))
        inputs = torch.from_numpy(x).transpose(0, 1).contiguous()
        state = None
        for part in torch.split(inputs, self.lengths):
            state = self._learn(part, labels, state)
            self._update()

    def _learn(self, x: Tensor, labels: Tensor, state: Any) -> Any:
        """Fills every .grad from one part; returns the detached state after it."""
        forward = self._sequence if self.form == "sequence" else self._steps
        h, state = forward(x, state)
        loss = cross_entropy(linear(h, self.readout.weight, self.readout.bias), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return state

    def _sequence(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Last output of a part and the detached state, by one call for the part."""
        _, after = self.net(x, self.sequence_start if state is None else state)
        if self.cell == "lstm":
            h, c = after
            return h[-1], (h.detach(), c.detach())
        return after[-1], after.detach()

    def _steps(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same, by one call for every step and layer."""
        states, step, lstm = list(state or self.step_start), _STEPS[self.cell], self.cell == "lstm"
        out = x
        for out in x.unbind():
            for layer, weights in enumerate(self.weights):
                states[layer] = after = step(out, states[layer], *weights)
                out = after[0] if lstm else after
        if lstm:
            return out, [(h.detach(), c.detach()) for h, c in states]
        return out, [h.detach() for h in states]

    def _update(self) -> None:
        """One step of SGD, in FPTT on d; no gradient is left."""
        gradients = [tensor.grad for tensor in self.tensors if tensor.grad is not None]
        if self.fptt:
            torch._foreach_sub_(gradients, self.s_views, alpha=1)
        torch._fused_sgd_(
            self.theta_views,
            gradients,
            self.v_views,
            weight_decay=self.alpha if self.fptt else 0.0,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        if self.fptt:
            self._remember()
        for tensor in self.tensors:
            tensor.grad = None

    def _remember(self) -> None:
        """lambda and s after theta moved; each is computed in the other's place."""
        torch.sub(self.s, self.lam, alpha=0.5, out=self.lam)
        if self.beta != 0.5:
            self.lam.mul_(2 - 2 * self.beta)
            self.lam.add_(self.theta, alpha=(2 * self.beta - 1) * self.alpha)
        self.s.sub_(self.theta, alpha=self.alpha)
        self.lam, self.s = self.s, self.lam
        self.lam_views, self.s_views = self.s_views, self.lam_views

    def _faster_form(self, batch: int, inputs: int) -> Form:
        """Which form finds the gradients of a part in less time."""
        x, labels = torch.randn(max(self.lengths), batch, inputs), torch.zeros(batch).long()
        best: dict[Form, float] = {}
        forms: tuple[Form, Form] = ("sequence", "steps")
        for self.form in forms:
            seconds = []
            for _ in range(4):
                begin = time.perf_counter()
                self._learn(x, labels, None)
                seconds.append(time.perf_counter() - begin)
                for tensor in self.tensors:
                    tensor.grad = None
            best[self.form] = min(seconds[1:])
        return min(forms, key=best.__getitem__)
