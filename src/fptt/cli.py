"""The command line. Each command parses its arguments and makes one call."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fptt import (
    __version__,
    cli_chip,
    cli_compare,
    cli_device,
    cli_reproduce,
    cli_research,
    cli_rtl,
    cli_torch,
)
from fptt import cli_options as given
from fptt.cli_output import (
    interruptible,
    notes,
    print_json,
    progress,
    show,
    warnings_as_notes,
)
from fptt.errors import FpttError, InputError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train recurrent networks where the data is, by Forward Propagation Through Time.\n\n"
    "Example: fptt demo",
)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"fptt {__version__}")
        raise typer.Exit


@app.command(epilog="Example: fptt demo")
def demo(as_json: given.Json = False) -> None:
    """Personalise a trained model to a new user's hand by FPTT, pixel by pixel.

    The bundled LSTM 1-128-10 reads MNIST digits one pixel a step (T = 784). The new user's digits
    are turned by 30 degrees. FPTT with K = 1, 28 and 784 parts learns them, in batches of 4, and
    beside it truncated BPTT. Needs no network and no arguments.

    JSON: {"rows": [{rule, parts, lr, epochs, label_every, new_before, new_after, old_before,
    old_after, updates, memory_bytes, arena_bytes, seconds, seconds_per_sequence}], "summary":
    sentence}. Accuracies are shares: new_ of the new user's digits, old_ of the old test set.
    """
    from fptt.report import tables
    from fptt.studies.demo import DemoSettings, run_demo, summary

    settings = DemoSettings()
    with progress() as bar:
        total = sum(run.epochs for run in settings.runs)
        task = bar.add_task("learning", total=total, note="")

        def advance(name: str, epoch: int, epochs: int) -> None:
            bar.update(task, advance=1, note=f"{name}, epoch {epoch} of {epochs}")

        rows = run_demo(settings, on_progress=advance)
    if as_json:
        print_json({"rows": [row.as_json() for row in rows], "summary": summary(rows)})
    else:
        show(tables.demo(rows))
        show(summary(rows))


@app.command(
    epilog="Example: fptt train --task mnist-rows --subset --parts 4 --epochs 5 "
    "--out digits.safetensors"
)
def train(
    context: typer.Context,
    task: given.TrainTask = None,
    data: given.TrainData = None,
    data_dir: given.DataDir = None,
    subset: given.Subset = False,
    limit: given.TrainLimit = None,
    option: given.TrainOption = None,
    cell: given.Cell = "lstm",
    hidden: given.Hidden = 128,
    layers: given.Layers = 1,
    readout: given.Readout = 0,
    dropout: given.Dropout = 0.0,
    embedding: given.Embedding = 64,
    rule: given.RuleName = "fptt",
    parts: given.TrainParts = None,
    source: given.Source = "bptt",
    alpha: given.Alpha = 0.1,
    beta: given.Beta = 0.5,
    mode: given.Mode = "code",
    regularise: given.Regularise = True,
    epoch_end: given.EpochEnd = "average",
    epoch_lambda: given.EpochLambda = "zero",
    loss: given.Loss = None,
    optimizer: given.OptimizerName = "sgd",
    lr: given.Lr = 0.05,
    momentum: given.Momentum = 0.9,
    clip: given.Clip = 1.0,
    schedule: given.Schedule = "constant",
    epochs: given.Epochs = 10,
    batch: given.Batch = 50,
    dtype: given.Dtype = "float32",
    activation_dtype: given.ActivationDtype = None,
    rounding: given.Rounding = "nearest",
    train_only: given.TrainOnly = None,
    adapters: given.Adapters = None,
    recompute: given.Recompute = False,
    seed: given.TrainSeed = 0,
    backend: given.BackendName = None,
    threads: given.TrainThreads = 1,
    out: given.Out = None,
    checkpoint: given.Checkpoint = None,
    resume: given.Resume = False,
    as_json: given.Json = False,
) -> None:
    """Train a network on a task or on your own data.

    JSON: {task, network, rule, arena_bytes, model, epochs: [{epoch, loss, lr, seconds, test_loss,
    test_accuracy, test_perplexity}]}.
    """
    from fptt import runs

    if resume and checkpoint is None:
        raise InputError("--resume needs --checkpoint FILE")
    fptt_only = ("alpha", "beta", "mode", "regularise", "epoch_end", "epoch_lambda")
    given.without_effect(context, f"--rule {rule}", fptt_only if rule != "fptt" else ())
    given.without_effect(context, "--optimizer adam", ("momentum",) if optimizer == "adam" else ())
    given.without_effect(context, "--data", ("data_dir",) if data else ())
    options = given.task_options(option)
    if task in ("char", "words") and given.was_given(context, "batch"):
        options.setdefault("batch", batch)  # the number of streams that the text is cut into
    the_task = runs.task_of(
        task, data, data_dir=data_dir, subset=subset, limit=limit, seed=seed, **options
    )
    given.without_effect(
        context, f"task {the_task.name}", () if the_task.tokens else ("embedding",)
    )
    state = "carry" if the_task.contiguous else "reset"
    k = parts if parts is not None else 1 if rule == "bptt" else min(4, the_task.steps)
    choice = runs.NetworkChoice(cell, hidden, layers, readout, dropout, embedding)
    net = choice.network(the_task.inputs, the_task.outputs, tokens=the_task.tokens)
    program = runs.program_for(
        the_task,
        net,
        runs.make_rule(
            rule,
            k,
            alpha=alpha,
            beta=beta,
            mode=mode,
            regularise=regularise,
            state=state,
            source=source,
            epoch_end=epoch_end,
            epoch_lambda=epoch_lambda,
        ),
        runs.make_optimizer(optimizer, lr, momentum),
        batch=batch,
        loss=loss,
        dtype=dtype,
        activation_dtype=activation_dtype,
        rounding=rounding,
        clip=clip,
        train=tuple(train_only or ("*",)),
        adapters=given.ranks(adapters),
        recompute=recompute,
    )
    net = program.net
    notes.print(
        f"{the_task.description}\n{net}, {rule} with K={k}"
        f"{'' if source == 'bptt' else f', gradients by {source}'}, "
        f"{program.memory().arena_bytes:,} bytes to train, "
        f"{runs.describe_backend(program, backend, threads)}",
        markup=False,
        soft_wrap=True,
    )
    if resume and checkpoint:
        found = "going on from" if checkpoint.exists() else "starting; there is no"
        notes.print(f"{found} {checkpoint}", markup=False, soft_wrap=True)
    with progress() as bar:
        line = bar.add_task("", total=None, note="")

        def advance(done: int, of: int, mean: float) -> None:
            bar.update(line, completed=done, total=of, note=f"loss {mean:.4f}")

        def epoch_line(row: dict[str, float]) -> None:
            bar.reset(line)
            shown = ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}"
                for name, value in row.items()
                if name != "epoch"
            )
            notes.print(f"epoch {row['epoch']:.0f}: {shown}", soft_wrap=True)

        with interruptible() as interrupted:
            try:
                result = runs.run(
                    the_task,
                    program,
                    epochs=epochs,
                    seed=seed,
                    backend=backend,
                    threads=threads,
                    schedule=runs.make_schedule(schedule, epochs),
                    out=out,
                    checkpoint=checkpoint,
                    resume=resume,
                    on_batch=advance,
                    on_epoch=epoch_line,
                    should_stop=interrupted,
                )
            except KeyboardInterrupt:
                written = checkpoint is not None and checkpoint.exists()
                hint = f"; go on with --checkpoint {checkpoint} --resume" if written else ""
                raise FpttError(f"stopped{hint}") from None
    if as_json:
        print_json(result.as_json())
    else:
        last = result.rows[-1]
        show(
            ", ".join(
                f"{name.removeprefix('test_')} {value:.4f}"
                for name, value in last.items()
                if name.startswith("test_")
            )
            + (f"; model in {out}" if out else "")
        )


@app.command("eval", epilog="Example: fptt eval digits.safetensors --task mnist-rows --subset")
def evaluate(
    model: given.EvaluateModel,
    task: given.Task = None,
    data: given.Data = None,
    data_dir: given.DataDir = None,
    subset: given.Subset = False,
    limit: given.Limit = None,
    option: given.Option = None,
    seed: given.EvaluateSeed = None,
    as_json: given.Json = False,
) -> None:
    """Loss and accuracy of a saved model on a task's test data.

    JSON: {model, task, loss, accuracy, perplexity}.
    """
    from fptt import runs
    from fptt.storage.modelfile import load_model

    loaded = load_model(model)
    the_task = runs.task_of(
        task,
        data,
        data_dir=data_dir,
        subset=subset,
        limit=limit,
        # with another seed, what was trained on could be judged as if it had been held out
        seed=loaded.notes.get("seed", 0) if seed is None else seed,
        **given.task_options(option),
    )
    result = runs.evaluate(model, loaded, the_task)
    if as_json:
        print_json({"model": str(model), "task": the_task.name, **result})
    else:
        show(", ".join(f"{name} {value:.4f}" for name, value in result.items()))


@app.command(epilog="Example: fptt plan --rule bptt,tbptt,fptt --parts 1,2,7,14,28,56,112,392,784")
def plan(
    context: typer.Context,
    parts: given.Parts = None,
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
    model: given.Model = None,
    rule: given.PlanRules = "fptt",
    source: given.PlanSources = "bptt",
    regularise: given.Regularise = True,
    loss: given.Loss = None,
    optimizer: given.OptimizerName = "sgd",
    momentum: given.Momentum = 0.0,
    clip: given.Clip = None,
    dtype: given.Dtype = "float32",
    activation_dtype: given.ActivationDtype = None,
    train_only: given.TrainOnly = None,
    adapters: given.Adapters = None,
    recompute: given.PlanRecompute = False,
    seeds_configuration: given.SeedsConfiguration = False,
    program: given.Program = False,
    target: cli_device.PlanTarget = None,
    ram: cli_device.Ram = None,
    flash: cli_device.Flash = None,
    clock: cli_device.Clock = None,
    cpi: cli_device.Cpi = None,
    erase: cli_device.Erase = None,
    write: cli_device.Write = None,
    endurance: cli_device.Endurance = 10_000,
    lines: cli_device.Lines = 10,
    as_json: given.Json = False,
) -> None:
    """Exact training memory by category and work by function class, for one K or several.

    Memory: "shared" is what is saved because buffers that are never needed at once lie in one
    place, "alignment" the gaps between buffers. Work: MatMul-1 are products that carry gradients
    back, MatMul-2 those of the forward pass, MatMul-3 weight gradients, Mat2Vec bias gradients, EWO
    element-wise work (basic: forward, combo: backward, SGD: the update).

    With --target: what fits a device. All K that cut T evenly, batches, number types, ways to
    train and to save are tried, but for what is named (--parts, --batch, --dtype, --train-only).
    Those that fit are shown with RAM (arena, handle and a bound of the stack), flash (code, weights
    and both slots of the snapshots), time of a sequence, and what they give up against full
    training in float32. Best first: the fewest things given up, then the least time. Instructions
    are predicted from counts under emulation, within the band; cycles per instruction are assumed.
    Ends with code 1 where nothing fits, and says what is missing.

    JSON: a list of {rule, source, parts, part_steps, recompute, memory_bytes, arena_bytes,
    total_bytes, work}; with --seeds-configuration {memory: [..], work: [..]}; with --target
    {network, target, ram_limit, flash_limit, clock_hz, cycles_per_instruction,
    cycles_per_instruction_low, cycles_per_instruction_high, instructions_from, erase_bytes,
    write_bytes, endurance, tried, fits: [{parts, batch, dtype, recompute, trains, saves, ram_bytes,
    arena_bytes, handle_bytes, stack_bytes, flash_bytes, code_bytes, weight_bytes, snapshot_bytes,
    instructions, instructions_low, instructions_high, unmeasured, seconds, seconds_low,
    seconds_high, saves_until_worn, given_up, export}], nearest, missing_ram_bytes,
    missing_flash_bytes}, instructions and seconds of one sequence; nearest is null, or where
    nothing fits an entry as in fits.
    """
    from fptt import planning, runs
    from fptt.program import build
    from fptt.report import tables
    from fptt.storage.modelfile import load_model

    network_options = (
        "inputs",
        "outputs",
        "tokens",
        "cell",
        "hidden",
        "layers",
        "readout",
        "dropout",
        "embedding",
    )
    given.without_effect(context, "--model", network_options if model else ())
    if seeds_configuration:
        given.without_effect(
            context,
            "--seeds-configuration",
            set(context.params) - {"seeds_configuration", "as_json"},
        )
        configured = planning.seeds_program()
        memory, work = planning.seeds_memory(configured), planning.seeds_work(configured)
        if as_json:
            print_json(
                {"memory": [vars(row) for row in memory], "work": [vars(row) for row in work]}
            )
        else:
            show(tables.seeds_memory(memory))
            show(tables.seeds_work(work))
        return
    loaded = load_model(model) if model else None
    net = (
        loaded.net
        if loaded
        else runs.NetworkChoice(cell, hidden, layers, readout, dropout, embedding).network(
            inputs, outputs, tokens=tokens
        )
    )
    if loaded and not given.was_given(context, "steps"):
        steps = int(loaded.notes.get("steps", steps))
    cli_device.check_plan(context, target)
    if target is not None:
        cli_device.plan(
            context,
            net,
            loaded,
            target,
            limits=(ram, flash, clock),
            part=(erase, write, endurance),
            cpi=cpi,
            rule=rule,
            steps=steps,
            parts=parts,
            batch=batch,
            dtype=dtype,
            train_only=train_only,
            options={
                "optimizer": runs.make_optimizer(optimizer, 0.01, momentum),
                "loss": loss,
                "clip": clip,
            },
            regularise=regularise,
            lines=lines,
            as_json=as_json,
        )
        return
    several = given.number_list(parts) if parts is not None else [max(1, min(28, steps))]
    programs = [
        build(
            net,
            runs.make_rule(name, k, regularise=regularise, source=one),
            runs.make_optimizer(optimizer, 0.01, momentum),
            steps=steps,
            batch=batch,
            loss=loss or "last",
            clip=clip,
            dtype=dtype,
            activation_dtype=activation_dtype,
            train=tuple(train_only or ("*",)),
            adapters=given.ranks(adapters),
            recompute=again,
        )
        for name in rule.split(",")
        for one in source.split(",")
        for k in (
            [1] if name == "bptt" and (parts is None or len(rule.split(",")) > 1) else several
        )
        for again in ([False, True] if recompute else [False])
    ]
    rows = [planning.plan_row(one) for one in programs]
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    show(f"{programs[0].net}, T={steps}, batch {batch}, {dtype}, {programs[0].optimizer}")
    show(tables.memory_sweep(rows))
    show(tables.work_single(rows[0]) if len(rows) == 1 else tables.work_sweep(rows))
    if program:
        for one in programs:
            print(one)


@app.command(epilog="Example: fptt bench --batch 1,4 --parts 28 --against torch,jax")
def bench(
    context: typer.Context,
    cell: given.BenchCells = "lstm",
    layers: given.BenchLayers = "1",
    hidden: given.BenchHidden = "128",
    batch: given.BenchBatch = None,
    parts: given.BenchParts = None,
    sizes: given.BenchSizes = False,
    steps: given.Steps = 784,
    rule: given.RuleName = "fptt",
    optimizer: given.OptimizerName = "sgd",
    momentum: given.Momentum = 0.9,
    threads: given.Threads = 1,
    against: given.Against = None,
    rounds: given.Rounds = None,
    seconds: given.Seconds = None,
    memory: given.BenchMemory = False,
    device: given.BenchDevice = False,
    target: given.BenchTarget = None,
    quick: given.Quick = False,
    as_json: given.Json = False,
) -> None:
    """Time of training one batch beside PyTorch's and JAX's, share of the peak, time by block.

    All sides train the same network on the same batch in this process, in turns, and begin with the
    same parameters; that these are the same after the first batch is checked (distance: the largest
    relative difference). Seconds are medians, low and high their quartiles; they say little where
    cpu_share, the time on a processor per second, is below the number of threads. torch_s: nn.LSTM
    (GRU, RNN) on whole parts; torch_best_s: the faster of that and a loop over the steps,
    torch_form. ratio: torch_s / fptt_s, above 1 where fptt is faster. peak_share: FLOP of the
    matrix products per second, beside a loop of multiply-adds in registers. floor_s: the least time
    for the products and for the weights and the state of learning that must pass the caches, at the
    speeds measured in the same run. forward_s, backward_s, update_s: of the routines; shares: of
    time where the weight gradients are products of their own and count as backward.
    docs/performance.md says how to read it.

    --device: no time, but instructions of training one batch as firmware (--hidden, --batch
    [default: 1,4], --parts [default: 28], --steps; LSTM, FPTT around plain SGD), counted by an
    emulator, so exact, beside the figures to stay below; of sigmoid, tanh and the update alone; of
    vectors by function, with 128-bit beats; and the time of one Rocket core beside that published.

    JSON: a list of {cell, layers, hidden, batch, parts, steps, threads, rule, optimizer, momentum,
    inputs, outputs, isa, rounds, cpu_share, fptt_s, fptt_low_s, fptt_high_s, torch_s, torch_low_s,
    torch_high_s, ratio, torch_form, torch_best_s, best_ratio, jax_s, jax_low_s, jax_high_s,
    jax_ratio, distance, gflops, peak_gflops, peak_share, read_gbs, rewrite_gbs, part_flop,
    part_read_bytes, part_rewritten_bytes, floor_s, floor_share, forward_s, forward_floor_s,
    backward_s, backward_floor_s, update_s, update_floor_s, logic_share, forward_share,
    backward_share}, null for peers that did not train; with --memory of {cell, layers, hidden,
    batch, parts, steps, threads, rule, optimizer, momentum, inputs, outputs, peak_bytes,
    import_bytes, arena_bytes, data_bytes, over_bytes}; with --device {training: [{target, emulator,
    hidden, batch, parts, steps, data, instructions, multiply_adds, per_multiply_add,
    program_multiply_adds, per_program_multiply_add, bar, met, update_per_parameter}], functions:
    [{target, function, elements, instructions, per_element, bar, met, published_cycles}], vectors:
    [{target, hidden, batch, steps, function, instructions, vector_instructions, beats,
    instructions_per_multiply_add, beats_per_multiply_add}], rocket: [{parts, instructions,
    cycles_per_instruction, source, seconds, published_seconds}]}.
    """
    from fptt.bench.cases import cases
    from fptt.report import tables

    if target is not None and not device:
        raise InputError("--target has no effect without --device; leave it out, or give both")
    if device:
        given.without_effect(context, "--device", sorted(set(context.params) - _OF_BENCH_DEVICE))
        _bench_device(hidden, batch, parts, steps, target, as_json)
        return
    fixed = ("cell", "layers", "hidden", "batch", "parts")
    given.without_effect(context, "--sizes", fixed if sizes else ())
    given.without_effect(context, "--memory", ("against", "rounds", "seconds") if memory else ())
    given.without_effect(context, "--optimizer adam", ("momentum",) if optimizer == "adam" else ())
    chosen = cases(
        cell.split(","),
        given.number_list(layers, "--layers"),
        given.number_list(hidden, "--hidden"),
        None if batch is None else given.number_list(batch, "--batch"),
        None if parts is None else given.number_list(parts),
        steps=steps,
        threads=threads,
        rule=rule,
        optimizer=optimizer,
        momentum=momentum,
        sizes=sizes,
        quick=quick,
    )
    with progress() as bar:
        line = bar.add_task("measuring", total=len(chosen) + 1, note="")

        def advance(name: str) -> None:
            bar.update(line, advance=1, note=name)

        if memory:
            from fptt.bench.memory import measure_memory

            rows = measure_memory(chosen, advance)
        else:
            from fptt.bench.speed import QUIET, effort, measure_all

            rows = measure_all(
                chosen, given.peers(against), effort(rounds, seconds, quick=quick), advance
            )
            share = min(row["cpu_share"] for row in rows)
            if share < QUIET:
                notes.print(
                    f"this machine was busy: the measurement had {100 * share:.0f} % of a core; "
                    "repeat it when nothing else runs",
                    soft_wrap=True,
                )
    if as_json:
        print_json(rows)
    else:
        for part in (tables.bench_memory if memory else tables.bench)(rows):
            show(part)


#: options that `fptt bench --device` honours
_OF_BENCH_DEVICE = {"hidden", "batch", "parts", "steps", "device", "target", "as_json"}


def _bench_device(
    hidden: str, batch: str | None, parts: str | None, steps: int, target: str | None, as_json: bool
) -> None:
    from fptt.bench import device
    from fptt.report import device_tables

    chosen = device.cases(
        given.number_list(hidden, "--hidden"),
        given.number_list(batch or "1,4", "--batch"),
        given.number_list(parts or "28"),
        steps,
    )
    targets = device.builds(target.split(",") if target else None)
    with progress() as bar:
        line = bar.add_task("counting", total=None, note="")
        found = device.measure_device(chosen, targets, lambda name: bar.update(line, note=name))
    if as_json:
        print_json(found)
    else:
        for part in device_tables.bench(found):
            show(part)


app.command(epilog="Example: fptt compare --subset --hidden 16 --parts 4 --scale 3")(
    cli_compare.compare
)
app.command(epilog="Example: fptt explore --minimise lut --latency 1s --memory 512KiB")(
    cli_chip.explore
)
app.command(epilog="Example: fptt reproduce s-mnist --quick")(cli_reproduce.reproduce)
app.command(epilog="Example: fptt report results/")(cli_research.report)
app.command(epilog="Example: fptt export model.safetensors --target rv64 --out build/model")(
    cli_device.export
)
app.command(epilog="Example: fptt run build/model --on qemu-rv64")(cli_device.run)
app.command(epilog="Example: fptt rtl fptt-unit --lanes 4 --schedule pipelined --out build/unit")(
    cli_rtl.rtl
)
app.command(
    "import",
    epilog="Example: fptt import lstm.pt --task mnist-rows --subset --out lstm.safetensors",
)(cli_torch.import_)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 failed, 2 wrong use."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with warnings_as_notes():
            code = _run(given)
        sys.stdout.flush()
        return code
    except FpttError as error:
        return _complain(str(error), error.exit_code)
    except typer.TyperException as error:
        commands = {c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands}
        line = " ".join(["fptt", *(word for word in given[:1] if word in commands), "--help"])
        return _complain(f"{error.format_message()} ({line} shows what there is)", 2)
    except (typer.Abort, KeyboardInterrupt):
        return _complain("stopped", 1)
    except MemoryError:
        return _complain("this computer has too little memory for that; use a smaller network", 1)
    except OSError as error:
        if error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}", 1)
        # standard output failed; what still waits to be written must not fail again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1  # its reader went away: nothing is left to say
        return _complain(f"cannot write the output: {error.strerror or error}", 1)


def _run(given: list[str]) -> int:
    returned = app(given or ["--help"], standalone_mode=False)
    if returned == 130:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return 0 if given else 2


def _complain(message: str, code: int) -> int:
    print(f"fptt: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())
