# Rows of a few entries and one for all others, included by _kernels.pyx. It knows nothing of measures.

cdef enum:
    COARSENED_ENTRIES = 32768  # A thread takes rows of so many at a time.


def coarsen(
    Request request not None, cnp.ndarray q not None, Kind kind not None, cnp.ndarray at not None,
    cnp.ndarray ordered not None, cnp.ndarray entries not None, cnp.ndarray status not None, bint exact
):
    """Fill `entries` with the few entries of each row and one for its others, and `status` with what is wrong with rows.

    The leading axes of `q`, whose numbers are of that kind, broadcast to those of the other arrays, which are in C order:
    int64 columns `at` of the few, the same `ordered` in each row, float64 `entries` with two columns more (fastkl.h says
    what they are), uint8 `status`. If `exact`, the sum of the others is in two parts. Of the request count the form of q,
    the temperature, the sums, eps and the threads.
    """
    cdef Call call
    cdef ptrdiff_t i, few = at.shape[at.ndim - 1]
    cdef const int64_t *columns = <const int64_t *>cnp.PyArray_DATA(at)
    cdef const int64_t *sorted_columns = <const int64_t *>cnp.PyArray_DATA(ordered)
    cdef double *to = <double *>cnp.PyArray_DATA(entries)
    cdef uint8_t *says = <uint8_t *>cnp.PyArray_DATA(status)
    cdef int threads, chunk
    if status.size == 0:
        return
    call.tier, call.kind, call.n = tier, NLL, q.shape[q.ndim - 1]
    call.task.scale, call.task.scale_low, call.task.eps = request.scale, request.scale_low, request.clip
    call.task.q_tolerance = INFINITY if request.any_sum else kind.tolerance
    call.q = _operand(q, kind, request.q_logits)
    call.p = call.labels = call.q
    call.p.data = call.labels.data = NULL
    call.out = cnp.PyArray_BYTES(status)
    _coalesce(&call, None, q, None, status, 0)
    call.stop, call.pieces, call.group = call.rows, 1, 1
    threads = _count_threads(&call, request.most_threads)
    chunk = <int>max(1, COARSENED_ENTRIES // call.n)
    with nogil:
        for i in prange(call.rows, num_threads=threads, schedule="dynamic", chunksize=chunk):
            _coarsen_row(&call, i, fastkl_columns(columns + i * few, sorted_columns + i * few, few, exact),
                         to + i * (few + 2), says + i)


cdef void _coarsen_row(
    const Call *call, ptrdiff_t i, fastkl_columns columns, double *entries, uint8_t *status
) noexcept nogil:
    cdef fastkl_mode caller = fastkl_mode_enter()
    cdef Place at = _place(call, i // call.run.length, i % call.run.length)
    call.tier.coarsen(&call.task, &at.q, call.n, &columns, entries, status)
    fastkl_mode_leave(caller)
