"""Exported programs learn what the host learns: any legal program, on this computer."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from programs import cases, examples

from fptt import deploy


def run_case(case, folder, *, target="posix", on="posix", batches=3, **options):
    """Trains `batches` batches on device and host; the report."""
    trainer = case.trainer("native")
    deploy.export(case.program, trainer.parameters(), folder, target=target, seed=3)
    x, y = full(case, batches)
    return deploy.run(folder, on=on, x=x, y=y, count_classes=False, timeout=60, **options)


def full(case, batches):
    """Sequences of all T steps for whole batches, made from those of the case."""
    rows = case.program.batch * batches
    steps = case.program.steps
    x = np.resize(case.x, (rows, steps, *case.x.shape[2:]))
    every_step = case.program.schedule.every_step
    y = np.resize(
        case.y, (rows, steps, *case.y.shape[2:]) if every_step else (rows, *case.y.shape[1:])
    )
    # other numbers in each batch
    if x.dtype == np.float32:
        x = x * np.linspace(0.5, 1.0, rows, dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return x, y


def tolerance(program):
    return 0.1 if "bfloat16" in (program.dtype, program.activation_dtype) else 3e-4


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases(engine=True, dtypes=("float32", "bfloat16")))
def test_learns_what_the_host_learns(case, tmp_path):
    report = run_case(case, tmp_path / "model")
    assert report.status == "FPTT_OK"
    assert len(report.losses) == len(report.host_losses)
    limit = tolerance(case.program)
    np.testing.assert_allclose(report.losses, report.host_losses, rtol=limit, atol=limit)
    for difference in report.differences:
        if difference.role == "parameter":
            assert difference.relative <= limit, difference
    assert report.refuses_one_byte_less


def test_every_operation_with_a_kernel_can_be_written():
    from fptt.device.calls import symbols
    from fptt.program.ops import table

    assert symbols() == {entry.c_symbol for entry in table().values() if entry.c_symbol}


def test_float64_is_refused(tmp_path):
    import fptt
    from fptt.errors import InputError

    net = fptt.Network([fptt.LSTM(2, 3), fptt.Linear(3, 2)])
    program = fptt.build(net, fptt.BPTT(), steps=4, dtype="float64")
    with pytest.raises(InputError, match=r'float64.*dtype="float32"'):
        deploy.export(program, net.initial(0), tmp_path / "model", target="posix")
