"""From a trained model to firmware, and the proof that it learns as the host does.

>>> firmware = export(program, weights, "build/model", target="rv64")      # doctest: +SKIP
>>> report = run("build/model", on="qemu-rv64", x=x, y=y)                  # doctest: +SKIP
>>> report.require_equal()                                                 # doctest: +SKIP
"""

from fptt.deploy.export import export, host_trainer
from fptt.deploy.inputs import samples, trained
from fptt.deploy.run import Difference, Report, run

__all__ = ["Difference", "Report", "export", "host_trainer", "run", "samples", "trained"]
