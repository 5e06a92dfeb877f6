"""From a trained model to firmware, and the proof that it learns as the host does.

>>> firmware = export(program, weights, "build/model", target="rv64")      # doctest: +SKIP
>>> report = run("build/model", on="qemu-rv64", x=x, y=y)                  # doctest: +SKIP
>>> report.require_equal()                                                 # doctest: +SKIP
"""

from fptt.deploy.export import export, host_trainer
from fptt.deploy.inputs import made_up, samples, trained
from fptt.deploy.run import Difference, Report, run
from fptt.device.folder import STACK_BYTES

__all__ = [
    "STACK_BYTES",
    "Difference",
    "Report",
    "export",
    "host_trainer",
    "made_up",
    "run",
    "samples",
    "trained",
]
