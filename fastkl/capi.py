"""The compiled interface for callers that have neither Cython nor the C header: addresses of its functions.

docs/reference/compiled.md says what the functions do. `Measure` has the numbers that they take for a measure.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from . import _kernels
from ._kernels import INTERFACE_VERSION, Measure

__all__ = ["FUNCTIONS", "INTERFACE_VERSION", "Measure", "address"]

FUNCTIONS: Final = ("row_f64", "row_f32", "rows_f64", "rows_f32")

_name: Final[Any] = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_pointer: Final[Any] = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def address(name: str) -> int:
    """The address of a function of the compiled interface, for Numba, ctypes and others that call a pointer.

    Parameters
    ----------
    name : {"row_f64", "row_f32", "rows_f64", "rows_f32"}
        The function.

    Returns
    -------
    int
        The address, valid as long as the process lives.

    Raises
    ------
    ValueError
        For another name.

    See Also
    --------
    fastkl.get_include : The folder of the header for C.

    Examples
    --------
    >>> import ctypes, numpy as np
    >>> from fastkl.capi import Measure, address
    >>> pointer, integer = ctypes.c_void_p, ctypes.c_ssize_t
    >>> row = ctypes.CFUNCTYPE(
    ...     ctypes.c_double, ctypes.c_int, pointer, integer, pointer, integer, integer, ctypes.c_double
    ... )(address("row_f64"))
    >>> p = np.array([0.5, 0.25, 0.25])
    >>> row(Measure.ENTROPY, p.ctypes.data, 8, None, 0, 3, 0) / np.log(2)
    np.float64(1.5)
    """
    if name not in FUNCTIONS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(FUNCTIONS)}")
    capsule = _kernels.__pyx_capi__[name]
    return int(_pointer(capsule, _name(capsule)))
