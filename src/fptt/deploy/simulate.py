"""One whole update of a real training run through the simulated unit, beside the C run time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.deploy.update_vectors import RecordedUpdate
from fptt.errors import FpttError
from fptt.rtl.parameters import UnitParameters

Array = NDArray[Any]


@dataclass(frozen=True)
class WholeUpdate:
    """What the unit made of an update.

    Attributes:
        parameters: how the unit is built; its banks hold all parameters of the network.
        results: param, lam, rmean -> bits, in the order of the network.
        model: the same by `unit_model.update`.
        cycles: busy cycles that the unit counted.
        expected_cycles: those of `fptt.rtl.unit.cycles`.
        gradients_cleared: whether every gradient is zero afterwards.
        shares: param, lam, rmean -> largest |unit - C run time| / bound of `fptt.rtl.rounding`.
        differences: param, lam, rmean -> largest |unit - C run time|.
    """

    parameters: UnitParameters
    results: dict[str, Array]
    model: dict[str, Array]
    cycles: int
    expected_cycles: int
    gradients_cleared: bool
    shares: dict[str, float]
    differences: dict[str, float]

    def require_equal(self) -> None:
        """Raises FpttError where bits differ from the model's, or numbers by more than rounding."""
        for name, bits in self.results.items():
            wrong = int((bits != self.model[name]).sum())
            if wrong:
                raise FpttError(f"{name}: {wrong} of {len(bits)} differ from the unit's model")
            if not self.shares[name] <= 1:
                raise FpttError(
                    f"{name}: {self.shares[name]:.2f} times as far from the C run time as rounding "
                    "explains"
                )
        if self.cycles != self.expected_cycles:
            raise FpttError(f"{self.cycles} cycles; the schedule has {self.expected_cycles}")
        if not self.gradients_cleared:
            raise FpttError("gradients were not cleared")

    def as_json(self) -> dict[str, Any]:
        """Figures as one JSON object."""
        return {
            "parameters": len(self.results["param"]),
            "cycles": self.cycles,
            "differences": self.differences,
            "shares_of_bound": self.shares,
        }


def simulate_update(parameters: UnitParameters, step: RecordedUpdate) -> WholeUpdate:
    """Runs an update through the compiled simulator of the unit with its banks.

    Args:
        parameters: how the unit is built, with R(t); the depth of its banks is raised to what the
            network needs.
        step: the update; its program's number type is the unit's.

    Raises:
        InputError: Amaranth or a C++ compiler is not installed.
    """
    from fptt.rtl.rounding import engine_bounds, unit_bounds
    from fptt.rtl.simulation import Simulator
    from fptt.rtl.unit import BankedUnit, cycles  # first: this one says what is not installed
    from fptt.rtl.unit_model import Constants, update

    lanes = parameters.lanes
    p = replace(parameters, depth=max(parameters.depth, -(-step.count // lanes)))
    numbers = {name: step.bits(values) for name, values in step.before.items()}
    constants = Constants.of(p, step.lr, step.alpha)

    simulator = Simulator(BankedUnit(p))
    simulator.reset()
    settings = {**vars(constants), "regularise": 1, "clear_gradient": 1, "count": step.count}
    for name, value in settings.items():
        simulator.set(name, value)
    banks = {
        (name, lane): simulator.memory(f"bank_{lane} {name}")[:, 0]
        for name in p.inputs
        for lane in range(lanes)
    }
    for (name, lane), bank in banks.items():
        rows = numbers[name][lane::lanes]
        bank[: len(rows)] = rows
    simulator.set("start", 1)
    simulator.step()
    simulator.set("start", 0)
    expected = cycles(p, step.count)
    simulator.wait("busy", 0, limit=2 * expected + 1000)

    found = {name: np.zeros_like(bits) for name, bits in numbers.items()}
    for (name, lane), bank in banks.items():
        rows = found[name][lane::lanes]
        rows[:] = bank[: len(rows)]
    gradients = found.pop("grad")
    model = update(p, constants, *(numbers[k] for k in ("grad", "param", "lam", "rmean")))
    bounds = unit_bounds(p, step.before, lr=step.lr, alpha=step.alpha)
    engine = engine_bounds(p.dtype, step.before, lr=step.lr, alpha=step.alpha)
    away = {name: np.abs(p.format.decode(bits) - step.after[name]) for name, bits in found.items()}
    return WholeUpdate(
        p,
        found,
        dict(zip(("param", "lam", "rmean"), model, strict=True)),
        simulator.get("cycles"),
        expected,
        not gradients.any(),
        {name: float((away[name] / (bounds[name] + engine[name])).max()) for name in found},
        {name: float(away[name].max()) for name in found},
    )
