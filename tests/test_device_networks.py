"""Firmware under emulation learns what the host learns: many networks, and real digits."""

import itertools

import numpy as np
import pytest
from device_tools import need as need_command
from device_tools import need_emulator, need_target

import fptt
from fptt import deploy
from fptt.deploy.inputs import made_up
from fptt.device.emulator import EMULATORS
from fptt.tasks import load

#: emulators, each with the targets that it runs
MACHINES = [
    (name, target)
    for name, emulator in EMULATORS.items()
    if name != "posix"
    for target in (emulator.target, emulator.also)
    if target
]


def need(on, target):
    need_emulator(on)
    need_target(target)
    if target == "rv64gcv":
        need_command("clang-19")


def draw(seed):
    """A network and how it learns, drawn: cells, sizes, layers, rule, optimizer, loss, types."""
    rng = np.random.default_rng(seed)
    pick = rng.choice
    steps, batch = int(rng.integers(5, 20)), int(rng.integers(1, 6))
    tokens = rng.random() < 0.2
    width = int(rng.integers(1, 6))
    layers = [fptt.Embedding(7, width)] if tokens else []
    for _ in range(int(rng.integers(1, 4))):
        cell = (fptt.LSTM, fptt.GRU, fptt.RNN)[int(rng.integers(3))]
        above = int(rng.integers(1, 34))
        layers.append(cell(width, above))
        width = above
    if rng.random() < 0.4:
        above = int(rng.integers(2, 20))
        layers += [fptt.Linear(width, above), fptt.ReLU()]
        width = above
    if rng.random() < 0.3:
        layers.append(fptt.Dropout(0.25))
    outputs = int(rng.integers(2, 9))
    net = fptt.Network([*layers, fptt.Linear(width, outputs)])
    parts = int(rng.integers(1, steps + 1))
    rule = [
        fptt.FPTT(parts=parts),
        fptt.FPTT(parts=parts, mode="paper", beta=0.25),
        fptt.TBPTT(parts=parts),
        fptt.FPTT(parts=parts, state="carry"),
        fptt.BPTT(),
    ][int(rng.integers(5))]
    optimizer = [
        fptt.SGD(lr=0.05),
        fptt.SGD(lr=0.02, momentum=0.9),
        fptt.Adam(lr=0.002),
    ][int(rng.integers(3))]
    criterion = "mse" if rng.random() < 0.2 else "cross_entropy"
    loss = str(pick(["last", "every_step", "auxiliary"]))
    if criterion == "mse" and loss == "auxiliary":
        loss = "last"
    bfloat16 = rng.random() < 0.2
    return fptt.build(
        net,
        rule,
        optimizer,
        steps=steps,
        batch=batch,
        loss=loss,
        criterion=criterion,
        clip=1.0 if rng.random() < 0.2 else None,
        dtype="bfloat16" if bfloat16 else "float32",
        rounding="stochastic" if bfloat16 and rng.random() < 0.5 else "nearest",
        train=("*",) if rng.random() < 0.8 else ("*.bias*", f"{len(net.layers) - 1}.*"),
    )


DRAWN = list(enumerate(itertools.islice(itertools.cycle(MACHINES), 28)))


@pytest.mark.parametrize(("seed", "machine"), DRAWN)
def test_networks_of_every_kind(seed, machine, tmp_path):
    on, target = machine
    need(on, target)
    program = draw(seed)
    folder = tmp_path / "model"
    deploy.export(
        program,
        program.net.initial(seed),
        folder,
        target=target,
        seed=seed,
    )
    x, y = made_up(program, 3 * program.batch, seed)
    report = deploy.run(folder, on=on, x=x, y=y, timeout=60)
    report.require_equal()
    limit = 0.05 if program.dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(report.losses, report.host_losses, rtol=limit, atol=limit)
    # every class of work that the program has was seen, and nothing counted below zero
    assert report.instructions > 0
    assert min(report.classes.values()) >= 0
    assert 0 < report.stack_bytes <= report.stack_bound


@pytest.mark.parametrize(
    "machine", [("qemu-rv64", "rv64"), ("qemu-rv64", "rv64gcv"), ("qemu-cortex-m4", "cortex-m4")]
)
def test_the_stack_of_a_deep_network(machine, tmp_path):
    """The compiler keeps room for some of what every operation hands over."""
    on, target = machine
    need(on, target)
    program = fptt.build(
        fptt.Network([*[fptt.LSTM(9, 9)] * 24, fptt.Linear(9, 9)]),
        fptt.FPTT(parts=2),
        steps=4,
        recompute=True,
        clip=1.0,
        adapters={"*.weight_hh": 2},
    )
    deploy.export(program, program.net.initial(0), tmp_path / "m", target=target)
    x, y = made_up(program, 1)
    deploy.run(tmp_path / "m", on=on, x=x, y=y, count_classes=False).require_equal()


SHAPES = {
    "GRU": (fptt.GRU(28, 20), fptt.Linear(20, 10)),
    "two layers": (fptt.LSTM(28, 16), fptt.LSTM(16, 12), fptt.Linear(12, 10)),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_other_cells_on_rows_of_digits(shape, machine, tmp_path):
    on, target = machine
    need(on, target)
    task = load("mnist-rows", subset=True)
    net = fptt.Network(SHAPES[shape])
    program = fptt.build(net, fptt.FPTT(parts=7), fptt.SGD(lr=0.05), steps=28, batch=2)
    deploy.export(program, net.initial(1), tmp_path / "m", target=target)
    report = deploy.run(
        tmp_path / "m", on=on, x=task.train.x[::300], y=task.train.y[::300], timeout=120
    )
    report.require_equal()


#: Spike takes minutes for these; it runs the same files as qemu-rv64, and the smaller networks
QUICK = [machine for machine in MACHINES if machine[0] != "spike-rv64"]


@pytest.mark.parametrize(("parts", "batch"), [(28, 1), (784, 4)])
@pytest.mark.parametrize("machine", QUICK)
def test_eight_real_digits_pixel_by_pixel(machine, parts, batch, tmp_path):
    """LSTM 1-128-10, T = 784, FPTT on: every parameter within 1e-5 of the host's."""
    on, target = machine
    need(on, target)
    task = load("s-mnist", subset=True)
    net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
    program = fptt.build(net, fptt.FPTT(parts=parts), fptt.SGD(lr=0.01), steps=784, batch=batch)
    deploy.export(
        program,
        net.initial(1),
        tmp_path / "m",
        target=target,
        normalisation=task.normalisation,
    )
    x, y = task.train.x[::250][:8], task.train.y[::250][:8]
    report = deploy.run(tmp_path / "m", on=on, x=x, y=y, count_classes=False, timeout=500)
    report.require_equal()
    assert report.largest_parameter_difference.relative <= 1e-5
    assert report.updates == 8 // batch * parts
