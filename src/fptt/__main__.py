"""`python -m fptt`."""

from fptt.cli import entry

entry()
