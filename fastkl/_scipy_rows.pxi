# Which rows' sums of p log(p/q), and of p log(p/q) - p + q, are not those of the core's passes, included by _kernels.pyx.
# _core/scipy_rows.c computes them as SciPy does.

cdef inline bint _is_right(const Call *call, double value, double divergence, uint8_t status) noexcept nogil:
    """Whether the value of a row is SciPy's; `divergence` is the sum of p log(p/q) - p + q."""
    return status == FASTKL_VALID and (call.task.alpha != 0 or divergence <= MOST_CANCELLED * fabs(value))


cdef void _compute_as_scipy(
    const Call *call, const Place *at, ptrdiff_t row, double *value, uint8_t *status
) noexcept nogil:
    """SciPy's value of a row in place of the core's, and of what is wrong with it. A row that is too long stays invalid."""
    if call.n > MOST_SCALAR:
        value[0], status[0] = NAN, status[0] if status[0] else FASTKL_P_SUM
        return
    value[0] = fastkl_sum_as_scipy(call.task.alpha == 0, &at.p, &at.q, call.n, row, status[0] == FASTKL_VALID)
    status[0] = FASTKL_VALID


cdef void _accept_rows_as_scipy(
    const Call *call, const Place *at, ptrdiff_t count, double *values, uint8_t *status
) noexcept nogil:
    """Replace those values of a block's rows, which are still in cache, that are not SciPy's."""
    cdef double divergences[BLOCK_ROWS]
    cdef uint8_t ignored[BLOCK_ROWS]
    cdef fastkl_task task = call.task
    cdef ptrdiff_t i
    if call.task.alpha == 0:
        memcpy(divergences, values, count * sizeof(double))
        if not fastkl_add_differences(&at.p, &at.q, call.n, count, divergences):
            task.alpha = 1
            _evaluate(call, &task, at, count, divergences, ignored)
    for i in range(count):
        if not _is_right(call, values[i], divergences[i], status[i]):
            _compute_as_scipy(call, at, i, values + i, status + i)
