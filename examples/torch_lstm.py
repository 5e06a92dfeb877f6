"""FPTT for a PyTorch LSTM: MNIST row by row, with a quarter of BPTT's activation memory.

    python examples/torch_lstm.py

It trains on the 2,000 images that come with fptt and prints the accuracy on 1,000 others.
"""

import argparse

import torch
from torch import nn

import fptt.torch
from fptt.tasks import load


class Classifier(nn.Module):
    """An ordinary module: the state goes in and out, and is None at first."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x, state=None):
        outputs, state = self.lstm(x, state)
        return self.head(outputs), state


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

    model = Classifier(hidden=128).to(device)
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
        optimizer.end_epoch()  # the weights become their running mean
        scheduler.step()
        accuracy = (fptt.torch.predict(model, x_test).argmax(1) == y_test).float().mean().item()
        print(f"epoch {epoch}: accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
