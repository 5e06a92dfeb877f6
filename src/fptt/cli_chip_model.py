"""What `fptt explore` says of its own cycle model: validation, calibration, what-if chips."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fptt.cli_output import print_json, show


def validate(measurements: Path | None, constants: Path | None, as_json: bool) -> None:
    """Predicted beside measured, with all measurements known and with some left out."""
    from fptt.report import cycle_tables
    from fptt.soc.constants import load_constants
    from fptt.soc.measurements import read_measurements
    from fptt.soc.validation import MEASURED, compare, dominant, errors, leave_one_out, outside

    measured = read_measurements(measurements or MEASURED)
    known = load_constants(constants)
    cells, unseen = compare(measured, known), leave_one_out(measured)
    if as_json:
        print_json([{**asdict(cell), "error": cell.error} for cell in (*cells, *unseen)])
        return
    tables = cycle_tables.validation(
        cells,
        unseen,
        errors(cells),
        errors(unseen),
        dominant(cells),
        outside(measured, known),
        known.source,
    )
    for table in tables:
        show(table)


def calibrate(measurements: Path, out: Path | None, chip: str, command: str, as_json: bool) -> None:
    """Fits the model's constants to measurements of one's own and writes them."""
    from fptt.errors import InputError
    from fptt.report import cycle_tables
    from fptt.soc.chip import load_chip
    from fptt.soc.constants import NAMES, constants_text
    from fptt.soc.measurements import read_measurements
    from fptt.soc.validation import calibrated
    from fptt.storage.files import write_atomically

    if out is None:
        raise InputError("--calibrate needs --out FILE, where the constants go")
    measured = read_measurements(measurements)
    constants = calibrated(measured, load_chip(chip), source=str(measurements))
    write_atomically(out, constants_text(constants, command).encode())
    if as_json:
        values = {name: getattr(constants, name) for name in NAMES}
        print_json({"constants": values, "spreads": dict(constants.spreads), "file": str(out)})
        return
    for table in cycle_tables.calibration(constants, sum(len(m.cycles) - 1 for m in measured)):
        show(table)


def what_if(constants: Path | None, as_json: bool) -> None:
    """The published best point with other units."""
    from fptt import exploring
    from fptt.report import cycle_tables
    from fptt.soc.constants import load_constants
    from fptt.soc.whatif import PARTS
    from fptt.soc.whatif import what_if as outcomes

    # with room for whole gradients: what units buy should not hang on pieces of them
    programs = {k: exploring.our_program(k, "bfloat16").keeping_gradients() for k in PARTS}
    rows = outcomes(programs, load_constants(constants))
    if as_json:
        print_json(
            [
                {
                    "name": row.change.name,
                    "assumes": row.change.assumes,
                    "ours": row.change.ours,
                    "design": row.change.chip.design,
                    "units": dict(row.change.chip.extras),
                    "seconds": {str(k): value for k, value in row.seconds.items()},
                    "uncertainty": {str(k): value for k, value in row.uncertainty.items()},
                    "speedup": {str(k): value for k, value in row.speedup.items()},
                    "shares": row.classes,
                    "lut": row.resources.lut,
                }
                for row in rows
            ]
        )
        return
    for table in cycle_tables.what_if(rows):
        show(table)
