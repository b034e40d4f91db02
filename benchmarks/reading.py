"""The speed of memory and of additions: compiles reading.c for the instruction set that fastkl uses, and calls it.

Without a compiler for it there is no share of reading, and `PROBLEM` says why.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import setuptools  # type: ignore[import-untyped] # noqa: F401  (brings distutils where Python has none)

import fastkl

SOURCE = Path(__file__).with_name("reading.c")
# Each tier's bytes in a vector, and the compiler's options for it.
TIERS = {
    "avx512": (64, ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]),
    "avx2": (32, ["-mavx2"]),
    "baseline": (16, []),
    "neon": (16, []),
}


def _compile(tier: str, openmp: bool) -> ctypes.CDLL:
    width, flags = TIERS[tier]
    compiler = import_module("distutils.ccompiler").new_compiler()
    import_module("distutils.sysconfig").customize_compiler(compiler)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        parallel = ["-fopenmp"] if openmp else []
        objects = compiler.compile(
            [str(SOURCE)], output_dir=folder, macros=[("WIDTH", str(width))], extra_postargs=["-O3", *flags, *parallel]
        )
        library = Path(folder, "reading.so")
        compiler.link_shared_object(objects, str(library), extra_postargs=parallel)
        loaded = ctypes.CDLL(str(library))
    loaded.read_streams.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
    loaded.add_chain.argtypes = [ctypes.c_uint64]
    loaded.read_streams.restype = loaded.add_chain.restype = ctypes.c_uint64
    return loaded


def _find() -> tuple[ctypes.CDLL | None, str]:
    """Return the library, if there is one, and the problem, if there is one."""
    tier = fastkl.build_info()["simd"]
    with suppress(Exception):  # each compiler class has errors of its own
        return _compile(tier, openmp=True), ""
    try:
        return _compile(tier, openmp=False), "reading.c does not compile with -fopenmp: no share of it with 2 threads"
    except Exception as error:
        return None, f"reading.c does not compile, and no share of it is known: {error}"


_library, PROBLEM = _find()


def chain(additions: int) -> float | None:
    """Return the seconds that a chain of so many additions takes; None if that is not known."""
    if _library is None:
        return None
    start = time.perf_counter()
    _library.add_chain(additions)
    return time.perf_counter() - start


def reader(operands: tuple[np.ndarray[Any, Any], ...], threads: int) -> Callable[[], int] | None:
    """Return a call that reads the operands with so many threads."""
    if _library is None or (PROBLEM and threads > 1):
        return None
    read = _library.read_streams
    if len({x.nbytes for x in operands}) == 1:
        a, b = operands[0].ctypes.data, operands[1].ctypes.data if len(operands) > 1 else None
        return lambda: read(a, b, operands[0].nbytes, threads)
    return lambda: sum(read(x.ctypes.data, None, x.nbytes, threads) for x in operands)
