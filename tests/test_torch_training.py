"""The engine "torch" of experiments: what stands beside the C engine trains the same."""

from dataclasses import replace

import pytest
from test_experiments import TINY, told

from fptt.experiments.execute import execute

pytest.importorskip("torch")

WAYS = {
    "FPTT + auxiliary, Adam": {"clip": 0.5},
    "FPTT, paper, kept lambda": {"mode": "paper", "epoch_lambda": "keep", "loss": None},
    "TBPTT, momentum": {"rule": "tbptt", "optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
    "BPTT, GRU, readout": {"rule": "bptt", "parts": 1, "cell": "gru", "readout": 5, "loss": None},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_epochs_as_the_c_engine(way):
    run = replace(TINY, schedule="step:1:0.3", lr=0.01)
    run = replace(run, **WAYS[way])
    ours, theirs = (execute(replace(run, engine=e))["epochs"] for e in ("native", "torch"))
    assert len(ours) == len(theirs) == run.epochs
    for one, other in zip(ours, theirs, strict=True):
        for name in ("epoch", "lr", "loss", "test_loss", "test_accuracy"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), name


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    """Stopped in every epoch, with dropout and Q: the same as if it had not been."""
    run = replace(TINY, engine="torch", dropout=0.4, schedule="step:1,2:0.3")
    stops, done = 0, []
    while True:
        batches = iter([False] * 4 + [True] * 1000)  # an epoch has as many batches

        def stop(batches=batches):
            return next(batches)

        try:
            record = execute(run, state_dir=tmp_path, should_stop=stop, on_epoch=done.append)
            break
        except KeyboardInterrupt:
            stops += 1
            assert stops < 10
    assert stops == run.epochs - 1
    assert told([record]) == told([execute(run)])
