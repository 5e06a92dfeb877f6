"""fptt.torch trains any module as the reference back end trains the same network: 20 updates."""

import numpy as np
import pytest
import torch
from cases import assert_close, fptt_trainer, random_data, random_parameters
from torch_models import Recurrent, layers_of

import fptt.torch

OPTIMIZERS = {
    "SGD": (("sgd", dict(lr=0.2)), torch.optim.SGD),
    "momentum": (("sgd", dict(lr=0.1, momentum=0.9)), torch.optim.SGD),
    "Adam": (("adam", dict(lr=0.02)), torch.optim.Adam),
}
ALPHA, PARTS, STEPS, BATCH, CLASSES = 0.4, 4, 11, 5, 4  # parts of 2, 3, 3, 3 steps


class Pair:
    """The reference and a PyTorch module that start from the same parameters."""

    def __init__(
        self,
        kind="LSTM",
        depth=1,
        optimizer="SGD",
        rule=None,
        loss="last",
        criterion=None,
        clip=None,
    ):
        self.loss, self.criterion = loss, criterion or "cross_entropy"
        sizes = (kind, 3, 7, depth, CLASSES)
        layers = layers_of(*sizes)
        parameters = random_parameters(layers, seed=3)
        self.rule = dict(alpha=ALPHA, mode="code", regularise=True) | (rule or {})
        (name, options), make = OPTIMIZERS[optimizer]
        self.layers = layers
        self.reference = fptt_trainer(
            layers,
            dict(parts=PARTS, **self.rule),
            (name, options),
            STEPS,
            BATCH,
            loss=loss,
            criterion=self.criterion,
            clip=clip,
            parameters=parameters,
        )
        self.model = Recurrent(*sizes, parameters, batch_first=True)
        # the frozen bias is given too, and must be left alone
        self.optimizer = fptt.torch.FPTT(
            make(self.model.parameters(), **options), clip=clip, **self.rule
        )
        self.schedule = loss
        if loss == "auxiliary" or isinstance(loss, tuple):
            options = loss[1] if isinstance(loss, tuple) else {}
            if options.get("per_part"):
                options = {**options, "parts": PARTS}
            self.schedule = fptt.torch.AuxiliaryLoss(CLASSES, **options).double()

    def data(self, seed):
        schedule = self.loss[0] if isinstance(self.loss, tuple) else self.loss
        return random_data(self.layers, BATCH, STEPS, schedule, self.criterion, seed)

    def train(self, x, y, lengths=None):
        """One batch on both sides; the number of updates."""
        found = self.reference.train_batch(x, y, lengths)
        losses = []
        run = fptt.torch.parts(
            self.model,
            torch.tensor(x),
            torch.tensor(y),
            parts=PARTS,
            steps=STEPS,
            loss=self.schedule,
            criterion=self.criterion,
            lengths=lengths,
        )
        for loss in run:
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        assert np.mean(losses) == pytest.approx(found, rel=1e-9)
        return len(losses)

    def end_epoch(self, **options):
        self.reference.end_epoch()
        self.optimizer.end_epoch(**options)

    def check(self):
        wanted = self.reference.parameters()
        for name, value in self.model.trained().items():
            assert_close(value, wanted[name], 1e-9, name)
        state = self.reference.state()
        if self.rule["regularise"]:
            for name, tensor in self.model.names.items():
                found = self.optimizer.state[tensor]
                floor = ALPHA * np.linalg.norm(wanted[name])
                assert_close(
                    found["lambda"], state[f"lambda/{name}"], 1e-9, f"lambda {name}", floor
                )
                assert_close(found["mean"], state[f"mean/{name}"], 1e-9, f"mean {name}")
        if "auxiliary.Q" in state:
            assert_close(self.schedule.Q, state["auxiliary.Q"], 1e-9, "Q")


def train_20_updates(pair):
    start = pair.model.trained()
    updates = sum(pair.train(*pair.data(seed)) for seed in range(5))
    assert updates == 20
    pair.check()
    moved = [np.abs(value - start[name]).max() for name, value in pair.model.trained().items()]
    assert min(moved) > 1e-3  # what does not move proves nothing


@pytest.mark.parametrize("mode", ["code", "paper", "none"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_modes(optimizer, mode):
    rule = dict(regularise=False) if mode == "none" else dict(mode=mode)
    train_20_updates(Pair(optimizer=optimizer, rule=rule))


@pytest.mark.parametrize(("kind", "depth"), [("LSTM", 2), ("GRU", 1), ("GRU", 2), ("RNN", 1)])
def test_cells(kind, depth):
    train_20_updates(Pair(kind, depth, optimizer="momentum"))


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_norm_of_d_is_clipped(optimizer, mode):
    train_20_updates(Pair(optimizer=optimizer, clip=0.3, rule=dict(mode=mode)))


@pytest.mark.parametrize(
    ("loss", "criterion"),
    [
        ("every_step", "cross_entropy"),
        ("every_step", "mse"),
        ("last", "mse"),
        ("auxiliary", "cross_entropy"),
        (("auxiliary", dict(rate=0.3, per_part=True)), "cross_entropy"),
    ],
    ids=["every-ce", "every-mse", "last-mse", "auxiliary", "one-Q-per-part"],
)
def test_losses(loss, criterion):
    train_20_updates(Pair(optimizer="momentum", loss=loss, criterion=criterion))


@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
def test_unequal_lengths(loss):
    """Samples that end inside a part, at its end, in the first part; a batch that ends early."""
    pair = Pair(optimizer="momentum", loss=loss, rule=dict(mode="paper"))
    counts = []
    for seed, lengths in enumerate([[11, 2, 5, 4, 7], [5, 3, 5, 5, 1], [2, 1, 2, 2, 2], [8] * 5]):
        x, y = pair.data(seed)
        x = np.where(np.arange(STEPS)[None, :, None] < np.array(lengths)[:, None, None], x, np.nan)
        if loss == "every_step":
            y[1, 3:] = -1  # row 1 has no target behind its third step
        # the reference takes the padding too, but refuses NaN
        found = pair.reference.train_batch(np.nan_to_num(x), y, lengths)
        losses = []
        for value in fptt.torch.parts(
            pair.model,
            torch.tensor(x),
            torch.tensor(y),
            parts=PARTS,
            loss=pair.schedule,
            lengths=lengths,
        ):
            value.backward()
            pair.optimizer.step()
            pair.optimizer.zero_grad()
            losses.append(value.item())
        assert np.mean(losses) == pytest.approx(found, rel=1e-9)
        counts.append(len(losses))
        pair.check()
    assert counts == [4, 2, 1, 3]


def test_a_shorter_input_keeps_the_cuts():
    pair = Pair(loss="auxiliary")
    for seed in range(4):
        x, y = pair.data(seed)
        pair.train(x, y)
        assert pair.train(x[:, :6], y) == 3  # 2, 3 and 1 steps
    pair.check()


@pytest.mark.parametrize(
    ("epoch_end", "epoch_lambda"), [("average", "zero"), ("average", "keep"), ("keep", "zero")]
)
def test_end_of_epoch(epoch_end, epoch_lambda):
    rule = dict(epoch_end=epoch_end, epoch_lambda=epoch_lambda)
    pair = Pair(optimizer="Adam")
    pair.reference = fptt_trainer(
        pair.layers,
        dict(parts=PARTS, alpha=ALPHA, **rule),
        OPTIMIZERS["Adam"][0],
        STEPS,
        BATCH,
        parameters=pair.model.trained(),
    )
    for seed in range(5):
        pair.train(*pair.data(seed))
        if seed in (1, 3):
            pair.end_epoch(average=epoch_end == "average", zero_lambda=epoch_lambda == "zero")
    pair.check()


def test_a_state_that_goes_on_from_batch_to_batch():
    """Language modelling: state="carry" of the reference."""
    pair = Pair("GRU", depth=2, optimizer="SGD", loss="every_step")
    trainer = fptt_trainer(
        pair.layers,
        dict(parts=PARTS, alpha=ALPHA, state="carry"),
        ("sgd", dict(lr=0.2)),
        STEPS,
        BATCH,
        loss="every_step",
        parameters=pair.model.trained(),
    )
    pair.reference, state = trainer, None
    for seed in range(5):
        x, y = pair.data(seed)
        trainer.train_batch(x, y)
        run = fptt.torch.parts(
            pair.model,
            torch.tensor(x),
            torch.tensor(y),
            parts=PARTS,
            loss="every_step",
            state=state,
        )
        for loss in run:
            loss.backward()
            pair.optimizer.step()
            pair.optimizer.zero_grad()
        state = run.state
    pair.check()
