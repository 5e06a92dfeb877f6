#!/usr/bin/env python3
"""Prints fptt's version, which stands in src/fptt/__init__.py; meson.build reads it."""

import re
from pathlib import Path

package = Path(__file__).parent.parent / "src" / "fptt" / "__init__.py"
print(re.search(r'^__version__ = "(.+)"$', package.read_text(), re.MULTILINE)[1])
