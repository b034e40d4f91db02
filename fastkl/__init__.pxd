# What `from fastkl cimport ...` finds: the functions that other compiled modules may call, and a check. docs/compiled.md.
from fastkl._kernels cimport (
    entropy_row_f32, entropy_row_f64,
    entropy_rows_f32, entropy_rows_f64,
    cross_entropy_row_f32, cross_entropy_row_f64,
    cross_entropy_rows_f32, cross_entropy_rows_f64,
    kl_divergence_row_f32, kl_divergence_row_f64,
    kl_divergence_rows_f32, kl_divergence_rows_f64,
    js_divergence_row_f32, js_divergence_row_f64,
    js_divergence_rows_f32, js_divergence_rows_f64,
)


cdef enum:
    INTERFACE_VERSION = 1  # FASTKL_INTERFACE_VERSION of include/fastkl_c.h, which says when it changes


cdef inline int check_interface() except -1:
    """ImportError unless the installed fastkl has the interface that this module was compiled for."""
    from fastkl._kernels import INTERFACE_VERSION as found
    if found != INTERFACE_VERSION:
        raise ImportError(
            f"the installed fastkl has version {found} of its compiled interface: this was compiled for version "
            f"{INTERFACE_VERSION}"
        )
    return 0
