"""The NumPy interpreter of a program: it defines the semantics."""

from fptt.reference.interpreter import Interpreter

__all__ = ["Interpreter"]
