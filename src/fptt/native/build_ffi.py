"""Writes the C file of the extension module: python build_ffi.py OUTPUT HEADER...

meson.build runs it. What Python may call is declared once, in the headers, between the lines
`/* cdef begin */` and `/* cdef end */`. cffi has no preprocessor: there, only plain C.
"""

import re
import sys
from pathlib import Path

MODULE = "fptt.native._engine"

#: what the headers say with the preprocessor, and what Python need not look into
PREAMBLE = """
typedef enum { FPTT_OK, ... } fptt_status;
typedef ... fptt_kernels;
typedef ... fptt_pool;
"""


def declarations(header: str) -> str:
    """The marked sections of a header.

    >>> declarations("#include <a.h>\\n/* cdef begin */\\nint f(void);\\n/* cdef end */\\nint g;")
    'int f(void);\\n'
    """
    return "".join(re.findall(r"(?ms)^/\* cdef begin \*/\n(.*?)^/\* cdef end \*/$", header))


def write(output: str, headers: list[str]) -> None:
    # the installed package does not need what builds it
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(PREAMBLE)
    for header in headers:
        ffi.cdef(declarations(Path(header).read_text()))
    ffi.set_source(MODULE, "".join(f'#include "{Path(header).name}"\n' for header in headers))
    ffi.emit_c_code(output)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2:])
