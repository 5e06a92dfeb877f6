"""Types of the compiled module: cffi's, which have none."""

from typing import Any

ffi: Any
lib: Any
