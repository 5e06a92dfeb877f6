"""Trains a network of fptt in PyTorch: the same weights, order and rule, another engine.

What `fptt reproduce` puts beside the C engine. The network becomes an nn.Sequential, and `parts`,
`FPTT` and `AuxiliaryLoss` of this package train it, as anybody's own loop would.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fptt.errors import InputError, NumericalError
from fptt.nets import GRU, LSTM, RNN, Dropout, Embedding, Linear, Network, ReLU
from fptt.rules import FPTT as FPTTRule
from fptt.rules import SGD, Adam, Auxiliary, Optimizer, Rule, Schedule
from fptt.storage.files import read_bytes, write_atomically
from fptt.torch.cutting import parts
from fptt.torch.losses import AuxiliaryLoss
from fptt.torch.optimizer import FPTT
from fptt.torch.stateful import Stateful
from fptt.training.fitting import History, Row, batches

Array = NDArray[Any]

_RECURRENT = {LSTM: nn.LSTM, GRU: nn.GRU, RNN: nn.RNN}
#: rows of one evaluation
ROWS = 500


class TorchTrainer:
    """Trains on whole batches, one epoch after the other.

    PyTorch adds two biases where LSTM and RNN have one; `bias_hh` stays at 0 and does not train.

    Args:
        net: with LSTM, GRU, RNN, Linear, ReLU, Dropout and Embedding.
        rule: BPTT, TBPTT or FPTT, with the source "bptt".
        optimizer: SGD or Adam.
        loss: the schedule.
        steps, batch, clip, seed: as in `fptt.build` and `fptt.Trainer`.

    Raises:
        InputError: a layer or a source that PyTorch does not have.

    Example:
        >>> import fptt, numpy as np
        >>> net = fptt.Network([fptt.LSTM(2, 8), fptt.Linear(8, 3)])
        >>> trainer = TorchTrainer(net, fptt.FPTT(parts=5), fptt.SGD(0.1), fptt.Last(), 10, 4)
        >>> x, y = np.ones((4, 10, 2), np.float32), np.array([0, 1, 2, 0])
        >>> rows = trainer.fit((x, y), 3).rows
        >>> rows[2]["loss"] < rows[0]["loss"]
        True
    """

    def __init__(
        self,
        net: Network,
        rule: Rule,
        optimizer: Optimizer,
        loss: Any,
        steps: int,
        batch: int,
        *,
        criterion: str = "cross_entropy",
        clip: float | None = None,
        seed: int = 0,
    ) -> None:
        if rule.source != "bptt" or rule.state != "reset":
            raise InputError(
                f"PyTorch trains sequences that begin anew, with the source bptt, not {rule}"
            )
        torch.manual_seed(seed)
        self.net, self.rule, self.seed, self.batch, self.steps = net, rule, seed, batch, steps
        self.criterion = criterion
        self.model = sequential(net, seed)
        self.loss = (
            AuxiliaryLoss(net.outputs, loss.rate) if isinstance(loss, Auxiliary) else loss.name
        )
        trained = [p for p in self.model.parameters() if p.requires_grad]
        inner: torch.optim.Optimizer
        if isinstance(optimizer, SGD):
            inner = torch.optim.SGD(trained, lr=optimizer.lr, momentum=optimizer.momentum)
        elif isinstance(optimizer, Adam):
            inner = torch.optim.Adam(trained, lr=optimizer.lr)
        else:
            raise InputError(f"optimizer is {optimizer}; PyTorch trains here with SGD or Adam")
        self.lr = optimizer.lr
        regularise = isinstance(rule, FPTTRule) and rule.regularise
        options: dict[str, Any] = (
            {"alpha": rule.alpha, "beta": rule.beta, "mode": rule.mode}
            if isinstance(rule, FPTTRule)
            else {}
        )
        self.optimizer = FPTT(inner, regularise=regularise, clip=clip, **options)

    def describe(self) -> str:
        """What trains, in a few words."""
        threads = torch.get_num_threads()
        return f"PyTorch {torch.__version__}, {threads} thread{'s' * (threads > 1)}"

    def fit(
        self,
        data: Any,
        epochs: int,
        *,
        test: Any = None,
        schedule: Schedule | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        on_epoch: Callable[[Row], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> History:
        """As `fptt.Trainer.fit`, with a checkpoint after every epoch."""
        x, y = (torch.from_numpy(np.asarray(array)) for array in _pair(data))
        rows: list[Row] = []
        memory: dict[str, float] = {}
        if checkpoint is not None and resume and Path(checkpoint).exists():
            rows, memory = self._load(checkpoint)
        for epoch in range(len(rows), epochs):
            started = time.perf_counter()
            self.model.train()
            total, count = 0.0, 0
            for chosen in batches(self.seed, self.batch, len(x), epoch, shuffle=True):
                try:
                    losses = self._train(x[chosen], y[chosen])
                except NumericalError as error:
                    error.rows = rows
                    raise
                total, count = total + float(np.mean(losses)), count + 1
                if should_stop is not None and should_stop():
                    raise KeyboardInterrupt
            self._end_epoch()
            row: Row = {
                "epoch": epoch + 1,
                "loss": total / max(count, 1),
                "lr": self.optimizer.param_groups[0]["lr"],
                "seconds": time.perf_counter() - started,
            }
            if test is not None:
                row |= {f"test_{name}": value for name, value in self.evaluate(test).items()}
            rows.append(row)
            if schedule is not None:
                factor = schedule.scale(epoch + 1, row["loss"], memory)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.lr * factor
            if on_epoch:
                on_epoch(row)
            if checkpoint is not None:
                self._save(checkpoint, rows, memory)
        return History(rows)

    def _train(self, x: torch.Tensor, y: torch.Tensor) -> list[float]:
        losses: list[float] = []
        for loss in parts(
            self.model,
            x,
            y.long() if self.criterion == "cross_entropy" else y,
            parts=self.rule.parts,
            loss=self.loss,
            criterion=self.criterion,  # type: ignore[arg-type]
            steps=self.steps,
        ):
            if not torch.isfinite(loss):
                raise NumericalError(
                    f"the loss became NaN or Inf in part {len(losses) + 1} of {self.rule.parts}"
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def _end_epoch(self) -> None:
        if isinstance(self.rule, FPTTRule) and self.rule.regularise:
            self.optimizer.end_epoch(
                average=self.rule.epoch_end == "average",
                zero_lambda=self.rule.epoch_lambda == "zero",
            )

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss and, for classes, accuracy at the last step."""
        x, y = (torch.from_numpy(np.asarray(array)) for array in _pair(data))
        self.model.eval()
        loss, right = 0.0, 0
        with torch.no_grad():
            for low in range(0, len(x), ROWS):
                outputs = self.model(x[low : low + ROWS])[0][:, -1]
                target = y[low : low + ROWS]
                if self.criterion == "mse":
                    loss += float((outputs - target).square().mean(dim=1).sum())
                    continue
                loss += float(nn.functional.cross_entropy(outputs, target.long(), reduction="sum"))
                right += int((outputs.argmax(dim=1) == target).sum())
        found = {"loss": loss / len(x)}
        return found if self.criterion == "mse" else {**found, "accuracy": right / len(x)}

    def parameters(self) -> dict[str, Array]:
        """Copies of the parameters, by fptt's names."""
        return {name: tensor.detach().numpy().copy() for name, tensor in named(self.model)}

    def _save(self, path: str | Path, rows: list[Row], memory: Mapping[str, float]) -> None:
        stream = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss": self.loss.state_dict() if isinstance(self.loss, nn.Module) else {},
                "random": torch.get_rng_state(),
                "rows": rows,
                "memory": dict(memory),
            },
            stream,
        )
        write_atomically(path, stream.getvalue())

    def _load(self, path: str | Path) -> tuple[list[Row], dict[str, float]]:
        try:
            kept = torch.load(io.BytesIO(read_bytes(path, "the checkpoint")), weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            if isinstance(self.loss, nn.Module):
                self.loss.load_state_dict(kept["loss"])
            torch.set_rng_state(kept["random"])
            return list(kept["rows"]), dict(kept["memory"])
        except InputError:
            raise
        except Exception as error:  # torch.load raises whatever unpickling does
            raise InputError(
                f"{path} is no checkpoint of this training in PyTorch ({type(error).__name__}); "
                "delete it"
            ) from None


def sequential(net: Network, seed: int) -> Stateful:
    """The network as a module from (x, state) to (outputs, state), with its initial weights."""
    modules: list[nn.Module] = []
    for index, layer in enumerate(net.layers):
        if type(layer) in _RECURRENT:
            made = _RECURRENT[type(layer)](layer.inputs, layer.hidden, batch_first=True)
            if not isinstance(layer, GRU):
                made.bias_hh_l0.requires_grad_(False).zero_()
        elif isinstance(layer, Linear):
            made = nn.Linear(layer.inputs, layer.outputs)
        elif isinstance(layer, ReLU):
            made = nn.ReLU()
        elif isinstance(layer, Dropout):
            made = nn.Dropout(layer.p)
        elif isinstance(layer, Embedding):
            made = nn.Embedding(layer.tokens, layer.outputs)
        else:
            raise InputError(f"layer {index} is {layer}, which PyTorch does not have")
        modules.append(made)
    model = Stateful(nn.Sequential(*modules))
    weights = net.initial(seed)
    with torch.no_grad():
        for name, tensor in named(model):
            tensor.copy_(torch.from_numpy(np.asarray(weights[name])))
    return model


def named(model: Stateful) -> list[tuple[str, torch.Tensor]]:
    """The tensors that train, by fptt's names."""
    found: list[tuple[str, torch.Tensor]] = []
    for index, module in enumerate(model.module.children()):
        for own, tensor in module.named_parameters():
            kind = own.removesuffix("_l0")
            one_bias = isinstance(module, (nn.LSTM, nn.RNN)) and kind.startswith("bias")
            if one_bias and kind == "bias_hh":
                continue
            found.append((f"{index}.{'bias' if one_bias else kind}", tensor))
    return found


def _pair(data: Any) -> tuple[Any, Any]:
    if hasattr(data, "x"):
        if data.lengths is not None:
            raise InputError("PyTorch trains sequences of equal lengths here; this data has others")
        return data.x, data.y
    x, y = data
    return x, y
