# The functions for compiled callers, included by _kernels.pyx: each measure of one row, and of many, in the calling
# thread, on the tier in use. docs/compiled.md says what they do. Knows nothing of Python's objects, but for the
# capsule at the end, from which C takes the functions.

cdef extern from "include/fastkl_c.h" nogil:
    enum:
        FASTKL_INTERFACE_VERSION

    const char *FASTKL_CAPSULE

    ctypedef double fastkl_row_f64(const double *, ptrdiff_t, ptrdiff_t) noexcept
    ctypedef float fastkl_row_f32(const float *, ptrdiff_t, ptrdiff_t) noexcept
    ctypedef double fastkl_pair_row_f64(const double *, ptrdiff_t, const double *, ptrdiff_t, ptrdiff_t) noexcept
    ctypedef float fastkl_pair_row_f32(const float *, ptrdiff_t, const float *, ptrdiff_t, ptrdiff_t) noexcept
    ctypedef void fastkl_rows_f64(
        const double *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, double *, ptrdiff_t
    ) noexcept
    ctypedef void fastkl_rows_f32(
        const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *, ptrdiff_t
    ) noexcept
    ctypedef void fastkl_pair_rows_f64(
        const double *, ptrdiff_t, ptrdiff_t, const double *, ptrdiff_t, ptrdiff_t,
        ptrdiff_t, ptrdiff_t, double *, ptrdiff_t
    ) noexcept
    ctypedef void fastkl_pair_rows_f32(
        const float *, ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, ptrdiff_t,
        ptrdiff_t, ptrdiff_t, float *, ptrdiff_t
    ) noexcept

    ctypedef struct fastkl_interface:
        int version
        size_t size
        fastkl_row_f64 *entropy_row_f64
        fastkl_row_f32 *entropy_row_f32
        fastkl_rows_f64 *entropy_rows_f64
        fastkl_rows_f32 *entropy_rows_f32
        fastkl_pair_row_f64 *cross_entropy_row_f64
        fastkl_pair_row_f32 *cross_entropy_row_f32
        fastkl_pair_rows_f64 *cross_entropy_rows_f64
        fastkl_pair_rows_f32 *cross_entropy_rows_f32
        fastkl_pair_row_f64 *kl_divergence_row_f64
        fastkl_pair_row_f32 *kl_divergence_row_f32
        fastkl_pair_rows_f64 *kl_divergence_rows_f64
        fastkl_pair_rows_f32 *kl_divergence_rows_f32
        fastkl_pair_row_f64 *js_divergence_row_f64
        fastkl_pair_row_f32 *js_divergence_row_f32
        fastkl_pair_rows_f64 *js_divergence_rows_f64
        fastkl_pair_rows_f32 *js_divergence_rows_f32


cdef void _rows(
    int measure, const real *p, ptrdiff_t p_row, ptrdiff_t p_col, const real *q, ptrdiff_t q_row, ptrdiff_t q_col,
    ptrdiff_t rows, ptrdiff_t n, real *out, ptrdiff_t out_row
) noexcept nogil:
    """The measure of each row, into out: what the documented functions give with normalize=True and invalid="nan"."""
    cdef double value[BLOCK_ROWS]
    cdef uint8_t status[BLOCK_ROWS]
    cdef ptrdiff_t first = 0, count, i
    cdef fastkl_task task
    cdef fastkl_operand a, b
    task.called_off = NULL
    task.measure, task.root, task.eps = measure, False, 0
    task.p_tolerance = task.q_tolerance = INFINITY
    a.dtype = FASTKL_float64 if real is double else FASTKL_float32
    a.swapped = a.logits = False
    b = a
    a.data, a.col, a.row = <const char *>p, p_col, p_row if rows > 1 else 0  # a row alone has no neighbours: see _coalesce
    b.data, b.col, b.row = <const char *>q, q_col, q_row if rows > 1 else 0
    cdef const fastkl_tier *now = tier
    cdef fastkl_mode caller = fastkl_mode_enter()
    while first < rows:
        count = min(<ptrdiff_t>BLOCK_ROWS, rows - first)
        if n > 0:
            now.rows(&task, &a, &b, n, count, value, status)
        for i in range(count):
            _store(<char *>out + (first + i) * out_row, <real>(value[i] if n > 0 else NAN))
        a.data += count * a.row
        if q != NULL:
            b.data += count * b.row
        first += count
    fastkl_mode_leave(caller)


cdef double entropy_row_f64(const double *p, ptrdiff_t p_stride, ptrdiff_t n) noexcept nogil:
    cdef double value
    _rows(FASTKL_entropy, p, 0, p_stride, <const double *>NULL, 0, 0, 1, n, &value, 0)
    return value


cdef void entropy_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_entropy, p, p_row_stride, p_stride, <const double *>NULL, 0, 0, rows, n, out, out_stride)


cdef float entropy_row_f32(const float *p, ptrdiff_t p_stride, ptrdiff_t n) noexcept nogil:
    cdef float value
    _rows(FASTKL_entropy, p, 0, p_stride, <const float *>NULL, 0, 0, 1, n, &value, 0)
    return value


cdef void entropy_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_entropy, p, p_row_stride, p_stride, <const float *>NULL, 0, 0, rows, n, out, out_stride)


cdef double cross_entropy_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef double value
    _rows(FASTKL_cross_entropy, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void cross_entropy_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_cross_entropy, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef float cross_entropy_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef float value
    _rows(FASTKL_cross_entropy, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void cross_entropy_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_cross_entropy, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef double kl_divergence_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef double value
    _rows(FASTKL_kl_divergence, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void kl_divergence_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_kl_divergence, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef float kl_divergence_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef float value
    _rows(FASTKL_kl_divergence, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void kl_divergence_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_kl_divergence, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef double js_divergence_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef double value
    _rows(FASTKL_js_divergence, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void js_divergence_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_js_divergence, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef float js_divergence_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil:
    cdef float value
    _rows(FASTKL_js_divergence, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0)
    return value


cdef void js_divergence_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil:
    _rows(FASTKL_js_divergence, p, p_row_stride, p_stride, q, q_row_stride, q_stride, rows, n, out, out_stride)


cdef fastkl_interface interface
interface.version, interface.size = FASTKL_INTERFACE_VERSION, sizeof(fastkl_interface)
interface.entropy_row_f64, interface.entropy_rows_f64 = entropy_row_f64, entropy_rows_f64
interface.entropy_row_f32, interface.entropy_rows_f32 = entropy_row_f32, entropy_rows_f32
interface.cross_entropy_row_f64, interface.cross_entropy_rows_f64 = cross_entropy_row_f64, cross_entropy_rows_f64
interface.cross_entropy_row_f32, interface.cross_entropy_rows_f32 = cross_entropy_row_f32, cross_entropy_rows_f32
interface.kl_divergence_row_f64, interface.kl_divergence_rows_f64 = kl_divergence_row_f64, kl_divergence_rows_f64
interface.kl_divergence_row_f32, interface.kl_divergence_rows_f32 = kl_divergence_row_f32, kl_divergence_rows_f32
interface.js_divergence_row_f64, interface.js_divergence_rows_f64 = js_divergence_row_f64, js_divergence_rows_f64
interface.js_divergence_row_f32, interface.js_divergence_rows_f32 = js_divergence_row_f32, js_divergence_rows_f32

INTERFACE_VERSION = FASTKL_INTERFACE_VERSION
c_interface = PyCapsule_New(&interface, FASTKL_CAPSULE, NULL)
