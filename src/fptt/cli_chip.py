"""The command for chips: `fptt explore`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fptt import cli_chip_options as options
from fptt import cli_options as given
from fptt.cli_output import notes, print_json, progress, show
from fptt.errors import FpttError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fptt.exploring import Compared
    from fptt.soc.chip import Chip

#: options that describe the network, and how it is trained
_OF_NETWORK = (
    *("inputs", "outputs", "tokens", "cell", "hidden", "layers", "readout", "dropout"),
    "embedding",
)
_OF_PROGRAM = (
    *("model", "steps", "batch", "rule", "source", "regularise", "loss", "optimizer", "momentum"),
    *("clip", "train_only", "adapters", "recompute"),
)
#: options that --emit honours
_OF_EMIT = {"emit", "out", "chip", "clock", "as_json"}


def explore(
    context: typer.Context,
    model: options.ExploreModel = None,
    # in the order of the help: the chip
    chip: options.ChipName = "published",
    mesh: options.Mesh = None,
    cores: options.Cores = None,
    design: options.Design = None,
    clock: options.ChipClock = None,
    # the network and how it is trained
    workload: options.WorkloadName = "program",
    parts: options.ExploreParts = None,
    steps: given.Steps = 784,
    batch: given.Batch = 4,
    inputs: given.Inputs = 1,
    outputs: given.Outputs = 10,
    tokens: given.Tokens = False,
    cell: given.Cell = "lstm",
    hidden: given.Hidden = 128,
    layers: given.Layers = 1,
    readout: given.Readout = 0,
    dropout: given.Dropout = 0.0,
    embedding: given.Embedding = 64,
    rule: given.RuleName = "fptt",
    source: given.Source = "bptt",
    regularise: given.Regularise = True,
    loss: given.Loss = None,
    optimizer: given.OptimizerName = "sgd",
    momentum: given.Momentum = 0.0,
    clip: given.Clip = None,
    train_only: given.TrainOnly = None,
    adapters: given.Adapters = None,
    recompute: given.Recompute = False,
    # the question
    minimise: options.Minimise = None,
    best_parts: options.BestParts = False,
    latency: options.MostLatency = None,
    memory: options.MostMemory = None,
    lut: options.MostLut = None,
    ff: options.MostFf = None,
    bram: options.MostBram = None,
    dsp: options.MostDsp = None,
    # what is written
    front: options.Front = "latency,memory,lut",
    only_front: options.OnlyFront = False,
    out: options.ExploreOut = None,
    as_json: given.Json = False,
    emit: options.Emit = None,
    # the cycle model
    validate: options.Validate = False,
    measurements: options.Measurements = None,
    calibrate: options.Calibrate = None,
    constants: options.ConstantsFile = None,
    what_if: options.WhatIf = False,
) -> None:
    """Which chip, how many cores, which array, which K: latency, memory and resources, predicted.

    A row for every chip and K: seconds of one pass over a batch with one standard deviation of the
    prediction, bytes of our program in the chip's number type, resources of the whole system on an
    FPGA, the function class that takes most of the time, and whether the point lies on the Pareto
    front. The network is named as in `fptt plan`; --workload published is the hand-written program
    of the published system. A saved model brings its network, T, loss and K; rule, optimizer and
    batch are those of the options. --chip takes several, separated by commas; each
    chip's number type is that of its programs.

    Options stand below in this order: the chip, the network and its training, the question, what is
    written, the cycle model.

    --minimise and --best-parts ask a question: the best point that keeps the limits, the next one,
    why better ones fail, and what hangs on less than the model's uncertainty. Of equal ones it is
    the one with the least latency, then LUT, then memory. Ends with code 1 where no point keeps
    them, and names the nearest.

    --validate prints what the cycle model says beside every measurement it was calibrated on, and
    beside those it was not shown; --calibrate fits its constants to measurements of your own, and
    --constants uses them. --what-if: what other units would buy over the published best point.

    --out writes one HTML page that needs no network: any figure against any other, details of a
    point under the mouse, published measurements beside. With --only-front table, JSON and the
    page's table have the points of the front alone.

    JSON: a list of {mesh, cores, parts, function, cycles, seconds, chip, design, clock_hz,
    memory_bytes, published_memory_bytes, lut, ff, bram, dsp, extrapolated, too_large, uncertainty,
    front}, a row for each function class of a point and one for the total; with a question a list
    of {design, minimise, limits: [{figure, most, unit}], points, fits, chosen: {design, chip, mesh,
    cores, parts, clock_hz, latency_s, latency_sd_s, memory_bytes, published_memory_bytes, lut, ff,
    bram, dsp, extrapolated, too_large, dominant, dominant_share, excess}, equal, runner_up, failed,
    better, nearest, loosened:
    [{figure, needed, excess, point}], doubts: [{kind, point, margin, uncertainty}]}, one for each
    chip with --best-parts, else one; with --emit {folder, design, config, files, header,
    elaborated}; with --validate [{mesh, cores, parts, function, measured, predicted, left_out,
    error}]; with --calibrate {constants: {name: value}, spreads: {function: share}, file}; with
    --what-if [{name, assumes, ours, design, units: {name: number}, seconds: {K: s}, speedup: {K:
    ratio}, shares: {function: share}, lut}]. extrapolated: why no published figure backs the
    resources; too_large: why they do not fit on the FPGA of the published system.
    """
    if emit is not None:
        _emit(context, emit, chip, clock, out, as_json)
        return
    if validate or calibrate is not None or what_if:
        _of_model(context, validate, calibrate, measurements, out, as_json)
        return
    if measurements is not None:
        raise InputError("--measurements has an effect with --validate only")
    from fptt.report import chip_tables
    from fptt.soc import explore as engine
    from fptt.soc import questions
    from fptt.soc.constants import load_constants

    known = load_constants(constants)
    asked = minimise is not None or best_parts
    sizes = {"lut": lut, "ff": ff, "bram": bram, "dsp": dsp}
    limits = options.limits(context, latency, memory, sizes)
    if asked and out is None:
        given.without_effect(context, "a question", ("front", "only_front"))
    least = options.figures(minimise or "latency", "--minimise", several=False)[0]
    weighed = options.figures(front, "--front")
    chips = _chips(context, chip, mesh, cores, design, clock)
    if out is not None:
        from fptt.report import explorer_page

        explorer_page.check_out(out)
    trained = _trained(context, workload, chips)
    with progress() as bar:
        total = sum(len(trained.trainings[one.data_type]) for one in chips)
        task = bar.add_task("predicting", total=total, note="")
        points = engine.explore(
            chips, trained.trainings, known, on_point=lambda: bar.update(task, advance=1)
        )
    if out is not None:
        size = explorer_page.write_page(
            points,
            out,
            subject=trained.subject,
            figures=weighed,
            marks=trained.marks,
            ours=trained.ours,
            only_front=only_front,
            command=_command(context),
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        line = f"{out}: {len(points)} points, {size:,} bytes"
        if asked or as_json:
            notes.print(line, markup=False, soft_wrap=True)
        else:
            show(line)
    if asked:
        answers = (
            questions.best_parts(points, limits, known.spreads)
            if best_parts
            else {None: questions.ask(points, least, limits, known.spreads)}
        )
        if as_json:
            print_json([{"design": name} | one.as_json() for name, one in answers.items()])
        else:
            show(trained.subject)
            for shown in chip_tables.answers(answers):
                show(shown)
        if not any(one.chosen for one in answers.values()):
            raise FpttError(questions.why_nothing(list(answers.values())))
    elif as_json:
        print_json(engine.rows(points, weighed, only_front=only_front))
    elif out is None:
        show(trained.subject)
        for shown in chip_tables.points(points, weighed, only_front=only_front):
            show(shown)


def _of_model(
    context: typer.Context,
    validate: bool,
    calibrate: Path | None,
    measurements: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """What is asked of the cycle model itself."""
    from fptt import cli_chip_model as model

    if calibrate is not None:
        option, honoured = "--calibrate", {"calibrate", "out", "chip"}
    elif validate:
        option, honoured = "--validate", {"validate", "measurements", "constants"}
    else:
        option, honoured = "--what-if", {"what_if", "constants"}
    given.without_effect(context, option, set(context.params) - honoured - {"as_json"})
    constants = context.params["constants"]
    if calibrate is not None:
        model.calibrate(calibrate, out, context.params["chip"], _command(context), as_json)
    elif validate:
        model.validate(measurements, constants, as_json)
    else:
        model.what_if(constants, as_json)


def _trained(context: typer.Context, workload: str, chips: Sequence[Chip]) -> Compared:
    """What the options say is trained, on these chips."""
    from fptt import exploring, runs
    from fptt.storage.modelfile import load_model

    chosen = context.params
    if workload == "published":
        given.without_effect(context, "--workload published", (*_OF_NETWORK, *_OF_PROGRAM))
        parts = options.several_parts(chosen["parts"], "fptt", exploring.STEPS)
        return exploring.compared(chips, lambda dtype: exploring.published_program(parts, dtype))
    if workload != "program":
        raise InputError(f"--workload is {workload!r}; choose one of program, published")
    model = load_model(chosen["model"]) if chosen["model"] else None
    given.without_effect(context, "MODEL", _OF_NETWORK if model else ())
    steps = chosen["steps"]
    if model and not given.was_given(context, "steps"):
        steps = int(model.notes.get("steps", steps))
    named = ("cell", "hidden", "layers", "readout", "dropout", "embedding")
    net = (
        model.net
        if model
        else runs.NetworkChoice(*(chosen[name] for name in named)).network(
            chosen["inputs"], chosen["outputs"], tokens=chosen["tokens"]
        )
    )
    rule = chosen["rule"]
    loss = chosen["loss"] or (model.loss if model else "last")
    own = int(model.notes["parts"]) if model and "parts" in model.notes else None
    parts = options.several_parts(chosen["parts"], rule, steps, own)
    if model:
        _say_whose(
            context,
            steps if "steps" in model.notes else None,
            loss,
            own if own in parts else None,
        )
    return exploring.compared(
        chips,
        lambda dtype: exploring.programs(
            net,
            lambda k: runs.make_rule(
                rule, k, regularise=chosen["regularise"], source=chosen["source"]
            ),
            parts,
            runs.make_optimizer(chosen["optimizer"], 0.01, chosen["momentum"]),
            steps=steps,
            batch=chosen["batch"],
            loss=loss,
            criterion=model.criterion if model else "cross_entropy",
            clip=chosen["clip"],
            dtype=dtype,
            train=tuple(chosen["train_only"] or ("*",)),
            adapters=given.ranks(chosen["adapters"]),
            recompute=chosen["recompute"],
        ),
    )


def _say_whose(context: typer.Context, steps: int | None, loss: str, parts: int | None) -> None:
    """What was taken from a model's training, and what the options decide."""
    from fptt.report.wording import listed

    chosen = context.params
    taken = ["the network"]
    if steps is not None and not given.was_given(context, "steps"):
        taken.append(f"T={steps}")
    if not given.was_given(context, "loss"):
        taken.append(f"loss {loss}")
    if parts is not None and chosen["parts"] is None and chosen["rule"] != "bptt":
        taken.append(f"K={parts}")
    notes.print(
        f"{chosen['model']}: taken are {listed(taken)}; by the options rule {chosen['rule']}, "
        f"optimizer {chosen['optimizer']} and batch {chosen['batch']}, however it was trained",
        markup=False,
        soft_wrap=True,
    )


def _chips(
    context: typer.Context,
    chip: str,
    mesh: str | None,
    cores: str | None,
    design: str | None,
    clock: str | None,
) -> list[Chip]:
    """The chips that the options describe."""
    from fptt import exploring
    from fptt.deploy.budget import read_hertz

    if design is not None:
        given.without_effect(context, "--design", ("mesh", "cores"))
    return exploring.chips(
        chip,
        meshes=None if mesh is None else [exploring.read_mesh(one) for one in mesh.split(",")],
        cores=None if cores is None else options.core_list(cores),
        designs=None
        if design is None
        else [exploring.read_design(one) for one in design.split(",")],
        clock_hz=None if clock is None else read_hertz(clock),
    )


def _command(context: typer.Context) -> str:
    """The command line again, for whoever reads the page."""
    words = ["fptt", "explore"]
    for parameter in context.command.params:
        name = str(parameter.name)
        if not given.was_given(context, name):
            continue
        value = context.params[name]
        option = [max(parameter.opts, key=len)] if parameter.param_type_name == "option" else []
        if isinstance(value, bool):
            words += option if value else [max(parameter.secondary_opts, key=len)]
        elif isinstance(value, list):
            words += [word for item in value for word in (*option, str(item))]
        else:
            words += [*option, str(value)]
    return shlex.join(words)


def _emit(
    context: typer.Context,
    emitted: tuple[str, str],
    chip: str,
    clock: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Writes a design point for another tool."""
    from fptt import exploring
    from fptt.deploy.budget import read_hertz
    from fptt.report.wording import listed
    from fptt.soc import chipyard
    from fptt.soc.resources import resources

    form, design = emitted
    if design.startswith("-"):  # the next option was read as the design
        raise InputError(
            f"--emit is {form!r} alone; the {'design' if form == 'chipyard' else 'form'} is "
            "missing: give both, such as --emit chipyard 8x8-10 --out FOLDER"
        )
    given.without_effect(context, "--emit", set(context.params) - _OF_EMIT)
    if form != "chipyard":
        raise InputError(f"--emit is {form!r}; choose chipyard")
    if out is None:
        raise InputError("--emit needs --out FOLDER")
    if "," in chip:
        raise InputError(f"--emit writes one design, and --chip is {chip!r}; give one chip")
    [point] = exploring.chips(
        chip,
        designs=[exploring.read_design(design, "--emit chipyard")],
        clock_hz=None if clock is None else read_hertz(clock),
    )
    written = chipyard.emit(point, out)
    size = resources(point)
    if size.extrapolated:
        notes.print(
            f"{point.design}: no published figure backs its resources on an FPGA "
            f"({size.extrapolated})",
            markup=False,
            soft_wrap=True,
        )
    if too_large := size.lacks():
        notes.print(f"{point.design}: {too_large}", markup=False, soft_wrap=True)
    if as_json:
        print_json(written.as_json())
    else:
        show(f"{out}: {listed(list(written.files))} for {point.design}, not elaborated here")
