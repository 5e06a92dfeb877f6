"""MNIST by rows: fptt beside PyTorch, with the same net, weights, batches and learning rates.

    python bench/mnist_rows_vs_pytorch.py --data-dir DIR --rule both

One table a rule, one row an epoch: loss and test accuracy of each, and the difference of the two
accuracies. Exit code 0 if the last epoch's accuracies lie within `TOLERANCE` points of each other,
1 if not, 2 for wrong use.

The net is the simplified one of the seeds: LSTM 28-128, Linear 128-10, SGD with momentum. PyTorch's
side shares nothing with fptt but the numbers it is handed: its LSTM is nn.LSTM (bias_hh frozen at
0, because fptt's LSTM has one bias), its optimizer torch.optim.SGD, and FPTT is written out below.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import fptt
from fptt.backends import BACKENDS
from fptt.tasks import Task, load

HIDDEN = 128
#: points of accuracy that fptt and PyTorch may differ by at the end
TOLERANCE = 0.3
#: images that PyTorch evaluates together; it bounds memory
EVALUATED = 1000

Row = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """What both sides share.

    Attributes:
        epochs: how many, along half a cosine from `lr` to 0.
        lr, momentum: of SGD. In 4 epochs of BPTT on 6,000 images the rates 0.02 and 0.05 hardly
            learnt; with 0.1 the two sides still agreed to 1e-6, with 0.2 no longer.
        batch: images a batch.
        parts: K of FPTT; BPTT has one.
        alpha, beta: of FPTT.
    """

    epochs: int = 6
    lr: float = 0.1
    momentum: float = 0.9
    batch: int = 100
    parts: int = 4
    alpha: float = 0.1
    beta: float = 0.5

    def rule(self, name: str) -> fptt.BPTT | fptt.FPTT:
        """The rule of fptt called "bptt" or "fptt"."""
        if name == "bptt":
            return fptt.BPTT()
        return fptt.FPTT(parts=self.parts, alpha=self.alpha, beta=self.beta)


class TorchSide:
    """The same training in PyTorch.

    Args:
        start: fptt's parameters to start from.
        setting: of the training.
        wrapped: FPTT if true, otherwise BPTT.
    """

    def __init__(self, start: dict[str, np.ndarray], setting: Setting, wrapped: bool) -> None:
        self.setting, self.wrapped = setting, wrapped
        hidden = start["0.weight_hh"].shape[1]
        self.lstm = torch.nn.LSTM(start["0.weight_ih"].shape[1], hidden, batch_first=True)
        self.linear = torch.nn.Linear(hidden, len(start["1.bias"]))
        self.tensors = {
            "0.weight_ih": self.lstm.weight_ih_l0,
            "0.weight_hh": self.lstm.weight_hh_l0,
            "0.bias": self.lstm.bias_ih_l0,
            "1.weight": self.linear.weight,
            "1.bias": self.linear.bias,
        }
        with torch.no_grad():
            self.lstm.bias_hh_l0.zero_().requires_grad_(False)
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.tensor(start[name]))
        self.thetas = list(self.tensors.values())
        self.means = [theta.detach().clone() for theta in self.thetas]
        self.lambdas = [torch.zeros_like(theta) for theta in self.thetas]
        self.optimizer = torch.optim.SGD(self.thetas, setting.lr, setting.momentum)

    def train_batch(self, x: np.ndarray, y: np.ndarray, lr: float) -> float:
        """One batch; the mean loss over the parts. x float32 [batch, steps, 28], y int [batch]."""
        self.optimizer.param_groups[0]["lr"] = lr
        inputs, labels = torch.tensor(x), torch.tensor(y, dtype=torch.int64)
        parts, steps = self.setting.parts if self.wrapped else 1, inputs.shape[1]
        losses, state = [], None
        for part in range(parts):
            low, high = part * steps // parts, (part + 1) * steps // parts
            outputs, (h, c) = self.lstm(inputs[:, low:high], state)
            state = h.detach(), c.detach()
            loss = torch.nn.functional.cross_entropy(self.linear(outputs[:, -1]), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self._update()
            losses.append(loss.item())
        return float(np.mean(losses))

    @torch.no_grad()
    def _update(self) -> None:
        """The optimizer's step on d = g - lambda + alpha (theta - m), then lambda and m."""
        alpha, beta = self.setting.alpha, self.setting.beta
        if not self.wrapped:
            self.optimizer.step()
            return
        states = list(zip(self.thetas, self.means, self.lambdas, strict=True))
        for theta, mean, lam in states:
            theta.grad += -lam + alpha * (theta - mean)
        self.optimizer.step()
        for theta, mean, lam in states:
            lam -= alpha * (theta - mean)
            mean.mul_(1 - beta).add_(beta * theta - beta / alpha * lam)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """FPTT's end of an epoch: theta becomes m, lambda 0."""
        if self.wrapped:
            for theta, mean, lam in zip(self.thetas, self.means, self.lambdas, strict=True):
                theta.copy_(mean)
                lam.zero_()

    @torch.no_grad()
    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """Share of images whose class is right."""
        right = 0
        for low in range(0, len(x), EVALUATED):
            outputs, _ = self.lstm(torch.tensor(x[low : low + EVALUATED]))
            found = self.linear(outputs[:, -1]).argmax(dim=1).numpy()
            right += int((found == y[low : low + EVALUATED]).sum())
        return right / len(x)

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies, by fptt's names."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}


class Pair(fptt.Trainer):
    """A trainer that hands every batch and every end of an epoch to PyTorch, too.

    So both see the batches, their order and the learning rates that `fit` chooses.
    """

    def __init__(self, program: fptt.Program, setting: Setting, **options: Any) -> None:
        super().__init__(program, **options)
        wrapped = isinstance(program.rule, fptt.FPTT)
        self.torch = TorchSide(self.parameters(), setting, wrapped)
        self.torch_losses: list[float] = []
        self.seconds = {"fptt": 0.0, "torch": 0.0}

    def train_batch(self, x: Any, y: Any, lengths: Any = None) -> float:
        """Trains both; the loss of fptt."""
        before = time.perf_counter()
        loss = super().train_batch(x, y, lengths)
        between = time.perf_counter()
        self.torch_losses.append(self.torch.train_batch(x, y, self.lr))
        self.seconds["fptt"] += between - before
        self.seconds["torch"] += time.perf_counter() - between
        return loss

    def end_epoch(self) -> None:
        """Ends the epoch of both."""
        super().end_epoch()
        self.torch.end_epoch()

    def distance(self) -> float:
        """The largest ||fptt - torch|| / ||torch|| of a parameter."""
        others = self.torch.parameters()
        return max(
            float(np.linalg.norm(mine - others[name]) / np.linalg.norm(others[name]))
            for name, mine in self.parameters().items()
        )


def compare(
    task: Task,
    rule: str,
    setting: Setting,
    *,
    seed: int = 0,
    backend: str = "reference",
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> tuple[list[Row], Pair]:
    """Trains both sides and evaluates each after every epoch.

    Args:
        task: mnist-rows.
        rule: "bptt" or "fptt".
        setting: what both sides share.
        seed: of the initial weights and of the batches' order.
        backend: of fptt.
        on_epoch: called with every row.

    Returns:
        Rows (epoch, losses, accuracies and their difference in percent, seconds of training, and
        the distance of the parameters), and the trained pair.
    """
    net = fptt.Network([fptt.LSTM(task.inputs, HIDDEN), fptt.Linear(HIDDEN, task.outputs)])
    program = fptt.build(
        net,
        setting.rule(rule),
        fptt.SGD(setting.lr, setting.momentum),
        steps=task.steps,
        batch=setting.batch,
        loss="last",
    )
    pair = Pair(program, setting, backend=backend, seed=seed)
    rows: list[Row] = []

    def finish(row: Row) -> None:
        mine, other = (
            100 * value
            for value in (row["test_accuracy"], pair.torch.accuracy(task.test.x, task.test.y))
        )
        rows.append(
            {
                "epoch": row["epoch"],
                "lr": row["lr"],
                "fptt_loss": row["loss"],
                "torch_loss": float(np.mean(pair.torch_losses)),
                "fptt_accuracy": mine,
                "torch_accuracy": other,
                "difference": mine - other,
                "distance": pair.distance(),
                "fptt_seconds": pair.seconds["fptt"],
                "torch_seconds": pair.seconds["torch"],
            }
        )
        pair.torch_losses, pair.seconds = [], {"fptt": 0.0, "torch": 0.0}
        on_epoch(rows[-1])

    pair.fit(
        task.train,
        setting.epochs,
        test=task.test,
        on_epoch=finish,
        schedule=fptt.CosineSchedule(setting.epochs),
    )
    return rows, pair


HEADER = (
    "epoch      lr   loss fptt  loss torch   acc fptt  acc torch  difference   distance"
    "   s fptt  s torch"
)


def line(row: Row) -> str:
    """A row of the table under HEADER."""
    return (
        f"{row['epoch']:5.0f}  {row['lr']:.4f}   {row['fptt_loss']:9.4f}   "
        f"{row['torch_loss']:9.4f}   {row['fptt_accuracy']:6.2f} %   "
        f"{row['torch_accuracy']:6.2f} %  {row['difference']:+10.2f}   "
        f"{row['distance']:8.1e}  {row['fptt_seconds']:7.1f}  {row['torch_seconds']:7.1f}"
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    standard = Setting()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="directory with MNIST; default: variable FPTT_DATA")
    parser.add_argument("--subset", action="store_true", help="the 3,000 embedded images instead")
    parser.add_argument("--limit", type=int, help="train on at most this many images")
    parser.add_argument("--rule", choices=("bptt", "fptt", "both"), default="both")
    parser.add_argument("--epochs", type=int, default=standard.epochs)
    parser.add_argument("--lr", type=float, default=standard.lr)
    parser.add_argument("--parts", type=int, default=standard.parts, help="K of FPTT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=BACKENDS, default="reference")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit code."""
    options = arguments(argv)
    torch.set_num_threads(1)  # as fptt's trainer, so that the seconds can be compared
    setting = Setting(epochs=options.epochs, lr=options.lr, parts=options.parts)
    try:
        task = load("mnist-rows", options.data_dir, subset=options.subset, limit=options.limit)
        rules = ("bptt", "fptt") if options.rule == "both" else (options.rule,)
        print(task.description, file=sys.stderr if options.json else sys.stdout)
        document = []
        for rule in rules:
            if not options.json:
                print(f"\n{setting.rule(rule)}, seed {options.seed}\n{HEADER}", flush=True)
            rows, _ = compare(
                task,
                rule,
                setting,
                seed=options.seed,
                backend=options.backend,
                on_epoch=lambda row: print(
                    line(row), flush=True, file=sys.stderr if options.json else sys.stdout
                ),
            )
            document += [{"rule": rule, "seed": options.seed, **row} for row in rows]
    except fptt.FpttError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    last = [row for row in document if row["epoch"] == options.epochs]
    if options.json:
        print(json.dumps({"setting": asdict(setting), "rows": document}))
    within = all(abs(row["difference"]) <= TOLERANCE for row in last)
    print(
        f"\nthe accuracies of fptt and PyTorch {'lie' if within else 'do NOT lie'} within "
        f"{TOLERANCE} points of each other",
        file=sys.stderr if options.json else sys.stdout,
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
