"""Systems on chip: what they consist of, and what a training program costs on them."""

from fptt.soc.chip import Chip, available_chips, load_chip
from fptt.soc.cycles import cycles
from fptt.soc.uncertainty import uncertainty
from fptt.soc.workload import Workload, of_program, published

__all__ = [
    "Chip",
    "Workload",
    "available_chips",
    "cycles",
    "load_chip",
    "of_program",
    "published",
    "uncertainty",
]
