"""The training program: built once, then executed, counted, costed and printed by others."""

from fptt.program.build import build, build_inference
from fptt.program.program import Program

__all__ = ["Program", "build", "build_inference"]
