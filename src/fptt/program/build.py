"""`fptt.build`: from a network, a rule and a few numbers to a verified training program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.nets.layer import check_size
from fptt.nets.network import Network
from fptt.program.builder import Builder
from fptt.program.program import Program
from fptt.program.tracing import TracingBuilder
from fptt.program.training import TrainingBuilder
from fptt.program.verify import verify
from fptt.rules.losses import Criterion, EveryStep, Last, LossSchedule, as_schedule
from fptt.rules.optimizers import SGD, Optimizer
from fptt.rules.rule import BPTT, Rule, check_choice
from fptt.rules.sources import SOURCES

DTYPES = ("float64", "float32", "bfloat16")


def build(
    net: Network,
    rule: Rule,
    optimizer: Optimizer | None = None,
    *,
    steps: int,
    batch: int = 1,
    loss: str | LossSchedule = "last",
    criterion: Criterion = "cross_entropy",
    dtype: str = "float32",
    activation_dtype: str | None = None,
    clip: float | None = None,
    train: Sequence[str] = ("*",),
    keep_gradients: bool = False,
    rounding: str = "nearest",
    recompute: bool = False,
    adapters: Mapping[str, int] | None = None,
) -> Program:
    """Builds and verifies the training program of a network under a rule.

    Args:
        net: the network.
        rule: BPTT(), TBPTT(parts=..) or FPTT(parts=..); with source="rtrl", "diagonal", "ostl" or
            "eprop" the gradient is computed forwards in time: input, activations and targets have
            the place of one step, traces (role rule_state) that of their theory, and only the
            reference runs it.
        optimizer: SGD or Adam; SGD(lr=0.01) by default.
        steps: T, the longest sequence. Shorter ones keep the parts' cuts and stop early.
        batch: the largest batch. Means use the actual sizes.
        loss: "last", "every_step", "auxiliary", or a schedule such as Auxiliary(rate=0.1).
        criterion: "cross_entropy" (integer targets) or "mse" (float targets).
        dtype: "float32", "float64" or "bfloat16", of parameters, states and gradients.
        activation_dtype: of inputs, activations and carried state; dtype by default.
        clip: largest global norm of the update direction d, or None.
        train: shell-style patterns of the parameters that train, such as ("1.*",) for the second
            layer only, ("*.bias*",) for biases or ("0.weight_hh",) for recurrent weights; the
            others are constant and cost no gradient, lambda or running mean.
        keep_gradients: give every gradient memory of its own. Otherwise, and without `clip`, those
            that are products over all steps of a part are applied piece by piece as they are
            finished.
        rounding: "nearest", or with dtype="bfloat16" "stochastic": new parameters, lambda and
            running mean are rounded up or down at random (seeded, the same on every back end), the
            nearer the more likely. To nearest, small updates vanish.
        recompute: recurrent layers keep their states, but not the gates; the backward pass
            computes these again, step by step, with the same bits. What trains in such a layer then
            needs memory for its gradient, which adds up step by step: less in all where
            part steps x batch x gates is more than those parameters, more where it is not (`fptt
            plan --recompute` shows both). In bfloat16 every step's addition is rounded: for parts
            of hundreds of steps take dtype="float32" with activation_dtype="bfloat16". Parts of
            one step stay as they are.
        adapters: matrix (name or pattern, such as "0.weight_hh" or "*.weight_hh") -> rank r. The
            matrix W stays as it is, and W + up down takes its place, where up [outputs, r] starts
            at zero and down [r, inputs] is drawn uniformly within 1/sqrt(inputs). These two train,
            as "0.weight_hh.up" and "0.weight_hh.down", whatever `train` says; gradient, lambda and
            running mean exist only for them. For LSTM, GRU, RNN and Linear. A wildcard in `train`
            passes over W. By default those that the network has already.

    Returns:
        The program; `print` shows it, `.memory()` and `.work()` count it, `Trainer` runs it.

    Raises:
        InputError: values that do not fit together, or a layer that does not serve the source.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(28, 128), fptt.Linear(128, 10)])
        >>> program = build(net, fptt.FPTT(parts=7), fptt.SGD(lr=0.1), steps=28, batch=4)
        >>> program.part_steps
        4
        >>> build(net, fptt.FPTT(parts=7), steps=28, train="1.*", adapters={"0.*_hh": 4}).trained
        ('1.weight', '1.bias', '0.weight_hh.down', '0.weight_hh.up')
    """
    if not isinstance(net, Network):
        raise InputError(f"build: net is {net!r}; give a Network([...])")
    if not isinstance(rule, Rule):
        raise InputError(f"build: rule is {rule!r}; give BPTT(), TBPTT(parts=..) or FPTT(parts=..)")
    optimizer = SGD() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"build: optimizer is {optimizer!r}; give SGD(lr=..) or Adam(lr=..)")
    check_size("build", "steps", steps)
    check_size("build", "batch", batch)
    steps, batch = int(steps), int(batch)
    if rule.parts > steps:
        raise InputError(
            f"build: {rule.parts} parts of a sequence of {steps} steps; give parts <= {steps}"
        )
    check_choice("build", "dtype", dtype, DTYPES)
    activation_dtype = activation_dtype or dtype
    check_choice("build", "activation_dtype", activation_dtype, DTYPES)
    if clip is not None and not (is_number(clip) and 0 < clip < float("inf")):
        raise InputError(f"build: clip is {clip!r}; give a norm above 0, or None")
    train = (train,) if isinstance(train, str) else tuple(train or ())
    if not all(isinstance(pattern, str) for pattern in train):
        raise InputError(f"build: train is {train!r}; give names or patterns such as ('1.*',)")
    check_choice("build", "rounding", rounding, ("nearest", "stochastic"))
    if rounding == "stochastic" and dtype != "bfloat16":
        raise InputError(
            f'build: rounding="stochastic" is for dtype="bfloat16", and dtype is "{dtype}"; '
            "leave it out, or choose bfloat16"
        )
    if adapters and net.adapters:
        raise InputError(
            f"build: the network has adapters already ({net}); leave adapters out, or merge them "
            "into the weights first"
        )
    if adapters is not None and not net.adapters:
        net = net.adapted(adapters)
    if not isinstance(recompute, bool):
        raise InputError(f"build: recompute is {recompute!r}; give True or False")
    schedule = as_schedule(loss)
    schedule.check(criterion)

    source = SOURCES[rule.source]
    if not source.keeps_steps:
        for what, given in (("recompute", recompute), ("adapters", net.adapters)):
            if given:
                raise InputError(
                    f'build: {what} goes with source="bptt" only, and the rule has '
                    f'source="{rule.source}"; leave one of the two out'
                )
    part_steps = -(-steps // rule.parts)  # of the longest part
    make = TrainingBuilder if source.keeps_steps else TracingBuilder
    builder = make(
        net,
        source,
        loss_in_place=schedule.in_place,
        keep_gradients=keep_gradients or clip is not None,
        stochastic=rounding == "stochastic",
        recompute=recompute,
        steps=part_steps,
        batch=batch,
        dtype=dtype,
        activation_dtype=activation_dtype,
        every_step=schedule.every_step,
        train=train,
    )
    if not builder.trained:
        raise InputError("build: train names no parameter, so there is nothing to learn")
    if isinstance(builder, TracingBuilder):
        builder.check(rule.source)
    builder.write_inference()
    builder.write_training(rule, optimizer, schedule, criterion, clip)
    return _finish(
        builder,
        rule,
        optimizer,
        schedule,
        criterion,
        steps,
        clip,
        tuple(train),
        keep_gradients,
        rounding,
        recompute,
    )


def build_inference(
    net: Network,
    *,
    batch: int = 1,
    every_step: bool = False,
    dtype: str = "float32",
    activation_dtype: str | None = None,
    criterion: Criterion = "cross_entropy",
) -> Program:
    """A program that only infers, one step at a time, on a batch of its own size.

    Its arena holds the parameters, one step's activations and the state; it serves evaluation,
    which may use larger batches than training does.

    Args:
        net: the network.
        batch: the largest batch.
        every_step: whether outputs of every step are wanted, or those of the last step.
        dtype, activation_dtype, criterion: as in `build`.

    Raises:
        InputError: values that do not fit together.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(28, 128), fptt.Linear(128, 10)])
        >>> sorted(build_inference(net, batch=64).routines)
        ['begin_inference', 'infer', 'readout']
    """
    check_size("build_inference", "batch", batch)
    batch = int(batch)
    check_choice("build_inference", "dtype", dtype, DTYPES)
    activation_dtype = activation_dtype or dtype
    check_choice("build_inference", "activation_dtype", activation_dtype, DTYPES)
    builder = Builder(
        net,
        steps=1,
        batch=batch,
        dtype=dtype,
        activation_dtype=activation_dtype,
        every_step=every_step,
    )
    builder.write_inference()
    return _finish(
        builder, BPTT(), SGD(), EveryStep() if every_step else Last(), criterion, 1, None, ()
    )


def _finish(
    builder: Builder,
    rule: Rule,
    optimizer: Optimizer,
    schedule: LossSchedule,
    criterion: Criterion,
    steps: int,
    clip: float | None,
    train: tuple[str, ...],
    keep_gradients: bool = False,
    rounding: str = "nearest",
    recompute: bool = False,
) -> Program:
    program = Program(
        net=builder.net,
        rule=rule,
        optimizer=optimizer,
        schedule=schedule,
        criterion=criterion,
        steps=steps,
        batch=builder.batch,
        part_steps=builder.part_steps,
        dtype=builder.dtype,
        activation_dtype=builder.activation_dtype,
        clip=clip,
        train=train,
        keep_gradients=keep_gradients,
        rounding=rounding,
        recompute=recompute,
        buffers=builder.buffers,
        routines=builder.routines,
        output=builder.values[-1],
        carried=tuple(builder.carried()),
        trained=tuple(name for name, _, _ in builder.trained),
    )
    verify(program)
    return program
