# Sums of p log(p/q), and of p log(p/q) - p + q, that have SciPy's value whatever the entries are, included by _kernels.pyx.
# It has the rows that the core refuses, or for which it would lose digits, and knows nothing of blocks and threads.

cdef inline double _entry(const fastkl_operand *row, ptrdiff_t i) noexcept nogil:
    cdef double double_entry
    cdef float float_entry
    if row.dtype == FASTKL_float64 and not row.swapped:
        memcpy(&double_entry, row.data + i * row.col, sizeof(double_entry))
        return double_entry
    if row.dtype == FASTKL_float32 and not row.swapped:
        memcpy(&float_entry, row.data + i * row.col, sizeof(float_entry))
        return float_entry
    return fastkl_entry(row[0], i)


cdef inline double _rel_entr(double p, double q) noexcept nogil:
    """SciPy's rel_entr, to the last bits."""
    cdef double ratio
    if p > 0 and q > 0:
        ratio = p / q
        if 0.5 < ratio < 2:
            return p * log1p((p - q) / q)
        return p * (log(ratio) if SMALLEST_NORMAL < ratio < INFINITY else log(p) - log(q))
    if isnan(p) or isnan(q):
        return NAN
    return 0 if p == 0 and q >= 0 else INFINITY


cdef inline double _kl_div(double p, double q) noexcept nogil:
    """SciPy's kl_div, to the last bits, in a row that has an entry for which it is inf or NaN."""
    if p > 0 and q > 0:
        return NAN if p == INFINITY or q == INFINITY else 0
    if isnan(p) or isnan(q):
        return NAN
    return q if p == 0 and q >= 0 else INFINITY


cdef double _sum_as_scipy(const Call *call, const fastkl_operand *p, const fastkl_operand *q) noexcept nogil:
    """The sum of a row's terms, one after the other; what rounding takes from it is summed beside it."""
    cdef double total = 0, low = 0, term, sum
    cdef bint rel_entr = call.task.alpha == 0
    cdef ptrdiff_t i
    for i in range(call.n):
        term = _rel_entr(_entry(p, i), _entry(q, i)) if rel_entr else _kl_div(_entry(p, i), _entry(q, i))
        sum = total + term
        low += (total - sum) + term if fabs(total) >= fabs(term) else (term - sum) + total
        total = sum
    return total + low if isfinite(total) else total


cdef bint _are_plain_floats(const fastkl_operand *p, const fastkl_operand *q) noexcept nogil:
    """Whether rows hold doubles, or floats, side by side, aligned and in this machine's byte order."""
    cdef ptrdiff_t size = sizeof(double) if p.dtype == FASTKL_float64 else sizeof(float)
    cdef size_t places = <size_t>p.data | <size_t>q.data | <size_t>p.row | <size_t>q.row
    return ((p.dtype == FASTKL_float64 or p.dtype == FASTKL_float32) and p.dtype == q.dtype and p.col == size
            and q.col == size and not p.swapped and not q.swapped and places % <size_t>size == 0)


cdef double _sum_of_differences(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) noexcept nogil:
    """The sum of q - p of plain floats, to some digits: four sums, so that additions need not wait for each other."""
    cdef double sums[4]
    cdef const double *a = <const double *>p.data
    cdef const double *b = <const double *>q.data
    cdef const float *c = <const float *>p.data
    cdef const float *d = <const float *>q.data
    cdef ptrdiff_t whole = n - n % 4, i
    cdef int k
    sums[0] = sums[1] = sums[2] = sums[3] = 0
    if p.dtype == FASTKL_float64:
        for i in range(0, whole, 4):
            for k in range(4):
                sums[k] += b[i + k] - a[i + k]
        for i in range(whole, n):
            sums[0] += b[i] - a[i]
    else:
        for i in range(0, whole, 4):
            for k in range(4):
                sums[k] += d[i + k] - c[i + k]
        for i in range(whole, n):
            sums[0] += d[i] - c[i]
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


cdef void _accept_as_scipy(
    const Call *call, const Place *at, ptrdiff_t row, double divergence, double *value, uint8_t *status
) noexcept nogil:
    """Replace the value of a row, with what is wrong with it, by SciPy's where the core's is not right.

    `divergence` is the sum of p log(p/q) - p + q. A row that is too long stays invalid.
    """
    cdef fastkl_operand p = at.p, q = at.q
    if status[0] == FASTKL_VALID and (call.task.alpha != 0 or divergence <= MOST_CANCELLED * fabs(value[0])):
        return
    if call.n > MOST_SCALAR:
        value[0], status[0] = NAN, status[0] if status[0] else FASTKL_P_SUM
        return
    p.data += row * p.row
    q.data += row * q.row
    value[0], status[0] = _sum_as_scipy(call, &p, &q), FASTKL_VALID


cdef void _accept_rows_as_scipy(
    const Call *call, const Place *at, ptrdiff_t count, double *values, uint8_t *status
) noexcept nogil:
    """The same of the rows of a block, which are still in cache."""
    cdef double divergences[BLOCK_ROWS]
    cdef uint8_t ignored[BLOCK_ROWS]
    cdef fastkl_task task = call.task
    cdef fastkl_operand p = at.p, q = at.q
    cdef ptrdiff_t i
    if call.task.alpha == 0:
        if _are_plain_floats(&p, &q):
            for i in range(count):
                divergences[i] = values[i] + _sum_of_differences(&p, &q, call.n)
                p.data += p.row
                q.data += q.row
        else:
            task.alpha = 1
            _evaluate(call, &task, at, count, divergences, ignored)
    for i in range(count):
        _accept_as_scipy(call, at, i, divergences[i], values + i, status + i)
