"""FPTT for a spiking network of snnTorch: MNIST row by row, neurons that keep their own state.

    pip install snntorch==1.0.0
    python examples/snntorch_leaky.py

The brightness of a row flows as a current into 200 leaky integrate-and-fire neurons that are
connected to one another; the output neurons integrate without spiking, and their membrane potential
is the prediction. fptt.torch.parts resets the neurons before each batch and cuts their state off
from the graph after each part.
"""

import argparse

import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn

import fptt.torch
from fptt.tasks import load


def network(hidden: int) -> nn.Module:
    spike = surrogate.fast_sigmoid(slope=10)
    return fptt.torch.Stateful(
        nn.Sequential(
            nn.Linear(28, hidden),
            snn.RLeaky(
                beta=0.9,
                learn_beta=True,
                linear_features=hidden,
                init_hidden=True,
                spike_grad=spike,
            ),
            nn.Linear(hidden, 10),
            # returns spike and membrane potential, of which `output` takes the second
            snn.Leaky(beta=0.99, init_hidden=True, reset_mechanism="none", output=True),
        ),
        output=1,
    )


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--parts", type=int, default=4, help="K; 1 is full BPTT")
    parser.add_argument("--limit", type=int, help="train on so many images only")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = load("mnist-rows", subset=True, limit=options.limit)
    x, x_test = (torch.tensor(part.x, device=device) for part in (task.train, task.test))
    y, y_test = (torch.tensor(part.y, device=device).long() for part in (task.train, task.test))

    model = network(hidden=200).to(device)
    loss_function = fptt.torch.AuxiliaryLoss(10).to(device)
    optimizer = fptt.torch.FPTT(torch.optim.Adam(model.parameters(), lr=3e-3), alpha=0.1, clip=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    accuracy = 0.0
    for epoch in range(1, options.epochs + 1):
        for rows in torch.randperm(len(x), device=device).split(50):
            run = fptt.torch.parts(model, x[rows], y[rows], parts=options.parts, loss=loss_function)
            for loss in run:
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        optimizer.end_epoch()
        scheduler.step()
        accuracy = (fptt.torch.predict(model, x_test).argmax(1) == y_test).float().mean().item()
        print(f"epoch {epoch}: accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
