"""Gradient sources: where the gradient of a part comes from. One source a file."""

from __future__ import annotations

from collections.abc import Mapping

from fptt.rules.sources.bptt import BackpropagationThroughTime
from fptt.rules.sources.diagonal import DiagonalRTRL
from fptt.rules.sources.eprop import EProp
from fptt.rules.sources.ostl import OSTL
from fptt.rules.sources.rtrl import RealTimeRecurrentLearning
from fptt.rules.sources.source import Source

SOURCES: Mapping[str, Source] = {
    "bptt": BackpropagationThroughTime(),
    "rtrl": RealTimeRecurrentLearning(),
    "diagonal": DiagonalRTRL(),
    "ostl": OSTL(),
    "eprop": EProp(),
}

__all__ = ["SOURCES", "Source"]
