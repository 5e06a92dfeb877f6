"""The commands for devices: `fptt export` and `fptt run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fptt import cli_options as given
from fptt.cli_output import notes, print_json, show
from fptt.errors import FpttError, InputError

if TYPE_CHECKING:
    from fptt.nets.network import Network
    from fptt.storage.modelfile import Model

ExportModel = Annotated[
    Path,
    typer.Argument(help="A model that `fptt train --out` wrote, or a checkpoint of a training."),
]
Target = Annotated[
    str, typer.Option("--target", help="rv64, rv64gcv, rv32, cortex-m4, cortex-m55 or posix.")
]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Name = Annotated[str, typer.Option(help="Prefix of the C interface.")]
ExportParts = Annotated[
    int, typer.Option("--parts", help="K, parts of a sequence.  [default: as in training, or 28]")
]
ExportSteps = Annotated[
    int | None, typer.Option("--steps", help="T, steps of a sequence.  [default: as in training]")
]
ExportBatch = Annotated[int, typer.Option("--batch", help="Sequences learnt from together.")]
ExportRule = Annotated[str, typer.Option("--rule", help="fptt, tbptt or bptt.")]
ExportLr = Annotated[float, typer.Option("--lr", help="Learning rate.")]
LossLimit = Annotated[
    float | None,
    typer.Option(
        help="Learning stops when a part's loss passes this.  [default: 100 for classes, none "
        "for regression]"
    ),
]
ExportSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Of dropout, stochastic rounding and adapters.")
]
Folder = Annotated[Path, typer.Argument(help="A folder that `fptt export` wrote.")]
On = Annotated[
    str,
    typer.Option(
        help="qemu-rv64, qemu-rv32, qemu-cortex-m4, qemu-cortex-m55, spike-rv64 or posix."
    ),
]
Sequences = Annotated[int, typer.Option(min=1, help="Sequences to train on.")]
RunTask = Annotated[
    str | None,
    typer.Option("--task", help="A task, as in `fptt train`.  [default: that of the model]"),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that the emulator may take.")]


PlanTarget = Annotated[
    str | None,
    typer.Option("--target", help="What fits a device: rv64, rv32, cortex-m4 or cortex-m55."),
]
Ram = Annotated[str | None, typer.Option(help="RAM of the device, such as 256KiB.")]
Flash = Annotated[str | None, typer.Option(help="Its flash for firmware and saves, such as 1MiB.")]
Clock = Annotated[str | None, typer.Option(help="Its clock, such as 168MHz.")]
Cpi = Annotated[
    float | None,
    typer.Option(help="Cycles per instruction.  [default: assumed for the target, with a band]"),
]
Erase = Annotated[
    str | None, typer.Option(help="Erase block of the flash.  [default: usual for the target]")
]
Write = Annotated[
    str | None, typer.Option(help="Smallest write of the flash.  [default: usual for the target]")
]
Endurance = Annotated[int, typer.Option(help="Erases that a block of flash is rated for.")]
Lines = Annotated[int, typer.Option(help="Configurations to show; --json has all.")]
#: options of `fptt plan` that need --target
_OF_DEVICE = ("ram", "flash", "clock", "cpi", "erase", "write", "endurance", "lines")

#: options that do not choose the program
_OF_EXPORT = {"model", "target", "out", "name", "loss_limit", "seed", "as_json"}


def export(
    context: typer.Context,
    model: ExportModel,
    target: Target,
    out: OutFolder,
    name: Name = "model",
    rule: ExportRule = "fptt",
    parts: ExportParts = 28,
    steps: ExportSteps = None,
    batch: ExportBatch = 1,
    lr: ExportLr = 0.01,
    optimizer: given.OptimizerName = "sgd",
    momentum: given.Momentum = 0.0,
    alpha: given.Alpha = 0.1,
    beta: given.Beta = 0.5,
    mode: given.Mode = "code",
    regularise: given.Regularise = True,
    loss: given.Loss = None,
    clip: given.Clip = None,
    dtype: given.Dtype = "float32",
    activation_dtype: given.ActivationDtype = None,
    rounding: given.Rounding = "nearest",
    train_only: given.TrainOnly = None,
    recompute: given.Recompute = False,
    adapters: given.Adapters = None,
    loss_limit: LossLimit = None,
    seed: ExportSeed = 0,
    as_json: given.Json = False,
) -> None:
    """Write a model as a folder of C that goes on learning on a device.

    The folder needs nothing else: the training program as C, the run time, the weights, a
    Makefile, an example and a README with the memory that it takes. A checkpoint brings its own
    program; a model is trained on by the rule and the optimizer named here.

    JSON: {folder, target, name, arena_bytes, ram_bytes, constant_bytes, identity,
    kept: files that you changed after an earlier export}.
    """
    from fptt import deploy

    program, parameters, normalisation, task = deploy.trained(
        model,
        rule=rule,
        parts=parts,
        steps=steps,
        batch=batch,
        loss=loss,
        optimizer=(optimizer, lr, momentum),
        fptt={"alpha": alpha, "beta": beta, "mode": mode, "regularise": regularise},
        options={
            "clip": clip,
            "dtype": dtype,
            "activation_dtype": activation_dtype,
            "rounding": rounding,
            "train": tuple(train_only or ("*",)),
            "recompute": recompute,
            "adapters": given.ranks(adapters),
        },
        seed=seed,
        chosen=given.chosen(context, set(context.params) - _OF_EXPORT),
    )
    firmware = deploy.export(
        program,
        parameters,
        out,
        target=target,
        name=name,
        seed=seed,
        normalisation=normalisation,
        task=task,
        loss_limit=loss_limit,
    )
    if as_json:
        print_json(firmware.as_json())
        return
    size = firmware.as_json()
    if firmware.kept:
        notes.print(f"left as you changed them: {', '.join(firmware.kept)}", soft_wrap=True)
    show(f"{program.net}, {program.rule}, batch {program.batch}")
    show(
        f"{out}: RAM {size['ram_bytes']:,} bytes, constants in flash "
        f"{size['constant_bytes']:,} bytes; its README says the rest"
    )


def run(
    folder: Folder,
    on: On,
    sequences: Sequences = 8,
    task: RunTask = None,
    data: given.Data = None,
    data_dir: given.DataDir = None,
    subset: given.Subset = False,
    option: given.Option = None,
    timeout: Timeout = 600.0,
    as_json: given.Json = False,
) -> None:
    """Train an exported model under an emulator and compare it with the host, number by number.

    Ends with code 1 where a parameter differs from the host's by more than rounding explains: 1e-5
    (bfloat16: 0.05), or where learning amplifies rounding, ten times as much as it does to a host
    that starts with other last bits. Without data, and where the model's task does not come with
    fptt, the sequences are made up.

    JSON: {emulator, target, sequences, data, parts, updates, status, multiply_adds, instructions,
    instructions_per_multiply_add, classes, losses, host_losses, differences,
    largest_parameter_difference, tolerance, arena_bytes, ram_bytes, linked_ram_bytes, flash_bytes,
    stack_bytes, stack_bound, refuses_one_byte_less, seconds}.
    """
    from fptt import deploy
    from fptt.device.emulator import emulator
    from fptt.report import device_tables

    emulator(on)  # a name that there is not is said first
    x, y, source = deploy.samples(
        folder,
        sequences,
        task=task,
        data=data,
        data_dir=data_dir,
        subset=subset,
        **given.task_options(option),
    )
    if as_json:
        report = deploy.run(folder, on=on, x=x, y=y, timeout=timeout)
        print_json(report.as_json() | {"data": source})
    else:
        notes.print(f"building for {on}, and training on {source}")
        report = deploy.run(folder, on=on, x=x, y=y, timeout=timeout)
        for part in device_tables.run(report):
            show(part)
    report.require_equal()


def check_plan(context: typer.Context, target: str | None) -> None:
    """Raises InputError where options for a device stand without one, or others beside it."""
    if target is None:
        for name in given.chosen(context, _OF_DEVICE):
            raise InputError(f"--{name} needs --target, such as --target cortex-m4")
        return
    given.without_effect(
        context, "--target", ("activation_dtype", "program", "adapters", "recompute", "source")
    )


def plan(
    context: typer.Context,
    net: Network,
    model: Model | None,
    target: str,
    *,
    limits: tuple[str | None, str | None, str | None],
    part: tuple[str | None, str | None, int],
    cpi: float | None,
    rule: str,
    steps: int,
    parts: str | None,
    batch: int,
    dtype: str,
    train_only: list[str] | None,
    options: dict[str, Any],
    regularise: bool,
    lines: int,
    as_json: bool,
) -> None:
    """`fptt plan --target`: what fits a device."""
    from fptt import runs
    from fptt.deploy import budget as fitting
    from fptt.report import device_tables

    if "," in rule:
        raise InputError(f"--rule is {rule!r}; with --target give one")
    if dtype == "float64":
        raise InputError("--dtype is 'float64'; devices compute in float32 or bfloat16")
    if lines < 1:
        raise InputError(f"--lines is {lines}; give at least 1")
    ram, flash, clock = limits
    erase, write, endurance = part
    if model is not None:
        options |= {"criterion": model.criterion, "loss": options["loss"] or model.loss}
    several = given.number_list(parts) if parts is not None else None
    found = fitting.budget(
        net,
        lambda k: runs.make_rule(rule, k, regularise=regularise),
        target=target,
        steps=steps,
        ram=None if ram is None else fitting.read_bytes(ram, "--ram"),
        flash=None if flash is None else fitting.read_bytes(flash, "--flash"),
        clock=None if clock is None else fitting.read_hertz(clock),
        cpi=cpi,
        part=fitting.flash_part(
            target,
            None if erase is None else fitting.read_bytes(erase, "--erase"),
            None if write is None else fitting.read_bytes(write, "--write"),
            endurance,
        ),
        parts=[1] if rule == "bptt" and several is None else several,
        batches=[batch] if given.was_given(context, "batch") else fitting.BATCHES,
        dtypes=[dtype] if given.was_given(context, "dtype") else ("float32", "bfloat16"),
        train=train_only,
        **{**options, "loss": options["loss"] or "last"},
    )
    if as_json:
        print_json(found.as_json())
    else:
        for shown in device_tables.budget(found, lines):
            show(shown)
    if not found.fits:
        raise FpttError(found.message())
