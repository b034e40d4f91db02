# The functions for compiled callers, included by _kernels.pyx: a measure of one row, and of many, in the calling thread, on
# the tier in use. docs/reference/compiled.md says what they do. They know nothing of Python's objects; C takes them from
# the capsule.

cdef extern from "include/fastkl_c.h" nogil:
    enum:
        FASTKL_INTERFACE_VERSION

    const char *FASTKL_CAPSULE

    ctypedef struct fastkl_interface:
        int version
        size_t size
        void *row_f64
        void *row_f32
        void *rows_f64
        void *rows_f32

ctypedef fused real:
    float
    double


cdef ptrdiff_t _rows(
    int measure, fastkl_operand p, fastkl_operand q, ptrdiff_t rows, ptrdiff_t n, real *out, ptrdiff_t out_stride,
    double parameter,
) noexcept nogil:
    """The values of rows into `out`, as of the documented functions with normalize=True and invalid="nan"; how many are
    invalid.
    """
    cdef double value[BLOCK_ROWS]
    cdef uint8_t status[BLOCK_ROWS]
    cdef ptrdiff_t first = 0, count, i, invalid = 0
    cdef fastkl_task task
    cdef const fastkl_tier *now = tier
    cdef bint valid = n > 0 and 0 <= measure < FASTKL_MEASURE_COUNT
    cdef fastkl_mode caller = fastkl_mode_enter()
    cdef real rounded
    task.measure, task.root, task.eps = measure, valid and fastkl_has_root(measure), 0
    task.p_eps, task.alpha, task.beta = 0, 1, 0
    if measure == FASTKL_renyi_divergence:
        task.alpha, task.beta = parameter, 1 - parameter
        valid = valid and parameter > 0
        if parameter == 1:
            task.measure = FASTKL_kl_divergence
    task.p_tolerance = task.q_tolerance = INFINITY
    if measure == FASTKL_entropy:
        q.data = NULL
    if rows == 1:  # A row alone has no neighbours: see _coalesce.
        p.row = q.row = 0
    if n == 1:  # as in _operand
        p.col = q.col = sizeof(rounded)
    while first < rows:
        count = min(<ptrdiff_t>BLOCK_ROWS, rows - first)
        if valid:
            now.rows(&task, &p, &q, n, count, value, status)
        for i in range(count):
            rounded = <real>(value[i] if valid else NAN)
            memcpy(<char *>out + (first + i) * out_stride, &rounded, sizeof(rounded))
            invalid += not valid or status[i] != FASTKL_VALID
        p.data += count * p.row
        if q.data != NULL:
            q.data += count * q.row
        first += count
    fastkl_mode_leave(caller)
    return invalid


cdef inline fastkl_operand _matrix(const void *data, ptrdiff_t row_stride, ptrdiff_t stride, int dtype) noexcept nogil:
    cdef fastkl_operand operand
    operand.data, operand.row, operand.col = <const char *>data, row_stride, stride
    operand.dtype, operand.swapped, operand.logits = dtype, False, False
    return operand


cdef double row_f64(
    int measure, const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n, double parameter
) noexcept nogil:
    cdef double value
    rows_f64(measure, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0, parameter)
    return value


cdef float row_f32(
    int measure, const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n, double parameter
) noexcept nogil:
    cdef float value
    rows_f32(measure, p, 0, p_stride, q, 0, q_stride, 1, n, &value, 0, parameter)
    return value


cdef ptrdiff_t rows_f64(
    int measure, const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride, double parameter
) noexcept nogil:
    return _rows(measure, _matrix(p, p_row_stride, p_stride, FASTKL_float64),
                 _matrix(q, q_row_stride, q_stride, FASTKL_float64), rows, n, out, out_stride, parameter)


cdef ptrdiff_t rows_f32(
    int measure, const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride, double parameter
) noexcept nogil:
    return _rows(measure, _matrix(p, p_row_stride, p_stride, FASTKL_float32),
                 _matrix(q, q_row_stride, q_stride, FASTKL_float32), rows, n, out, out_stride, parameter)


cdef fastkl_interface interface
interface.version, interface.size = FASTKL_INTERFACE_VERSION, sizeof(fastkl_interface)
interface.row_f64, interface.row_f32 = <void *>row_f64, <void *>row_f32
interface.rows_f64, interface.rows_f32 = <void *>rows_f64, <void *>rows_f32

INTERFACE_VERSION = FASTKL_INTERFACE_VERSION
c_interface = PyCapsule_New(&interface, FASTKL_CAPSULE, NULL)
