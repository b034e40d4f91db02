# What `from fastkl cimport ...` finds: the measures and functions for compiled modules, and a check. See
# docs/reference/compiled.md.
from fastkl._kernels cimport Measure, row_f32, row_f64, rows_f32, rows_f64


cdef enum:
    INTERFACE_VERSION = 2  # FASTKL_INTERFACE_VERSION of include/fastkl_c.h, which says when it changes


cdef inline int check_interface() except -1:
    """ImportError unless the installed fastkl has the interface that this module was compiled for."""
    from fastkl._kernels import INTERFACE_VERSION as found
    if found != INTERFACE_VERSION:
        raise ImportError(
            f"the installed fastkl has version {found} of its compiled interface: this was compiled for version "
            f"{INTERFACE_VERSION}"
        )
    return 0
