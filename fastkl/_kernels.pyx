"""Requests, and loops over blocks of rows: without the GIL, in parallel where the work pays for it.

    _request.pxi    Request: the arguments of a call; Kind: what a dtype means
    _blocks.pxi     how a call is cut into blocks, what a thread does, when signals are polled
    _coarsen.pxi    rows of a few entries and one for all others
    _scipy_rows.pxi which rows have SciPy's sums, and not those of the passes
    _compiled.pxi   the functions for compiled callers

Owns threads, signals and the floating-point mode around the core. It takes arrays that call.py has checked and aligned: the
last axis holds the distributions, and the leading axes broadcast to those of the result. It decides nothing about rows; it
reports the first invalid one. The maths is in `_core`.

No call leaves a state behind that another call could meet. What is global is set at import, and later by tests only.
"""

from threading import get_ident, main_thread

from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, NAN, fabs, log, signbit, sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastkl._core cimport (
    FASTKL_DTYPE_COUNT, FASTKL_FIELD_COUNT, FASTKL_INDEX, FASTKL_INTERLEAVED_PIECE, FASTKL_LABEL, FASTKL_MEASURE_COUNT,
    FASTKL_PIECE, FASTKL_P_ENTRY, FASTKL_P_SUM, FASTKL_Q_ENTRY, FASTKL_Q_SUM, FASTKL_REFUSED, FASTKL_VALID,
    FASTKL_cross_entropy, FASTKL_entropy, FASTKL_float32, FASTKL_float64, FASTKL_generalized_kl,
    FASTKL_jeffreys_divergence, FASTKL_js_divergence, FASTKL_kl_divergence, FASTKL_nll_p_field, FASTKL_renyi_divergence,
    FASTKL_same_argmax_field, FASTKL_total_variation_field, fastkl_add_differences, fastkl_columns, fastkl_compiler,
    fastkl_dtype_names, fastkl_field_names, fastkl_forked, fastkl_get, fastkl_has_root, fastkl_is_single,
    fastkl_join_sums, fastkl_measure_names, fastkl_mode, fastkl_mode_enter, fastkl_mode_leave, fastkl_most_threads,
    fastkl_next, fastkl_openmp, fastkl_openmp_threads, fastkl_operand, fastkl_read_file, fastkl_seconds, fastkl_set,
    fastkl_shared, fastkl_sum_as_scipy, fastkl_sums, fastkl_task, fastkl_tier, fastkl_tiers,
)

import numpy as np

cimport numpy as cnp

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState *PyInterpreterState_Get() noexcept
    int64_t PyInterpreterState_GetID(PyInterpreterState *) except -1

cnp.import_array()

# None of these numbers changes a result: a row's value does not depend on the rows around it.
cdef enum:
    BLOCK_ENTRIES = 32768  # A thread takes so many at a time: taking them costs little, and threads end at the same time.
    BLOCK_ROWS = 512
    COMPARED_ROWS = 128  # the same for a comparison: 512 would take 31 of the 128 kB that a thread's stack has under musl
    BLOCK_VALUES = COMPARED_ROWS * 10  # FASTKL_FIELD_COUNT values a row
    MOST_ENTRIES = 262144  # the most in a block: it bounds how long a signal waits
    INTERLEAVED_GROUPS = 4  # groups of interleaved rows in a block, where there are many: neighbours share memory pages
    INTERLEAVED_ROWS = 16  # the fewest interleaved rows in a block: in float32 they share a cache line
    ENTRIES_PER_THREAD = 262144  # One more thread for so many (0.2 ms of work): waking a busy core costs more.
    ENTRIES_PER_REQUESTED_THREAD = 32768  # the same if the caller names a number of threads
    ROWS_PER_THREAD = 8  # With fewer rows a thread, all threads share each row that is wider than a piece.
    SUMS = 4096  # sums of pieces that are kept before they are joined
    SHARED_SUMS = 1024  # the same for a row of logits
    PIECES_PER_THREAD = 16  # pieces in a region at the least, so that threads end at the same time
    LINE = 64  # bytes of a cache line
    SMALL_ENTRIES = 1024  # Calls of so few do not give up the GIL.
    MOST_AXES = 64  # NumPy's own limit
    MOST_SCALAR = 65536  # the longest row that is summed entry by entry, which takes a thread less than a millisecond

# A sum of p log(p/q) may be so many times smaller than that of p log(p/q) - p + q: the errors of its terms are relative to
# both, so that it is right to some ten ε.
cdef double MOST_CANCELLED = 4
cdef double MOST_UNCUT = 2.0**33  # columns of rows that are not cut into pieces: no signal is polled meanwhile
cdef double PATIENCE = 0.03  # seconds of a region, after which signals are polled
cdef double MOST_PATIENCE = 0.2
cdef double POLLS = 8  # A region takes at least so many times what the last poll took, which waits for the GIL.

MEASURES = {fastkl_measure_names[i].decode(): i for i in range(FASTKL_MEASURE_COUNT)}
FIELDS = [fastkl_field_names[i].decode() for i in range(FASTKL_FIELD_COUNT)]
P_ENTRY, Q_ENTRY, P_SUM, Q_SUM, LABEL = FASTKL_P_ENTRY, FASTKL_Q_ENTRY, FASTKL_P_SUM, FASTKL_Q_SUM, FASTKL_LABEL
INDEX, REFUSED = FASTKL_INDEX, FASTKL_REFUSED
MOST_THREADS = INT_MAX

cdef const fastkl_tier *tier = NULL
cdef object cpu_quota = None
cdef object before_threads = None
cdef bint in_subinterpreter = PyInterpreterState_GetID(PyInterpreterState_Get()) != 0  # Each has a module of its own.


# ---- the build and the process ----------------------------------------------------------------------------------------


def tiers():
    """The names of the SIMD tiers that this machine can run, best first."""
    names = []
    cdef int i = 0
    while fastkl_tiers[i] != NULL:
        if fastkl_tiers[i].usable():
            names.append(fastkl_tiers[i].name.decode())
        i += 1
    return names


def use_tier(str name):
    """Compute with the named tier, one of `tiers()`, from now on."""
    global tier
    cdef int i = 0
    while fastkl_tiers[i] != NULL:
        if fastkl_tiers[i].name.decode() == name and fastkl_tiers[i].usable():
            tier = fastkl_tiers[i]
            return
        i += 1
    raise ValueError(f"{name!r} is not a SIMD tier that is usable here: must be one of {', '.join(tiers())}")


def tier_in_use():
    """The name of the tier that computes."""
    return tier.name.decode()


def limit_threads(quota):
    """Use at most as many threads as `quota()` processors run, unless a call asks for more. None: there is no limit."""
    global cpu_quota
    cpu_quota = quota


def call_before_threads(function):
    """Call `function(threads)` before a call that could use a second thread; `threads` is 0 if the call names none.

    None: there is nothing to be called.
    """
    global before_threads
    before_threads = function


def default_threads():
    """The number of threads of a large call that names none."""
    return _default_threads()


def openmp():
    """Whether this was built with OpenMP."""
    return bool(fastkl_openmp())


def compiler():
    """The C compiler's name and version."""
    return fastkl_compiler().decode()


def in_default_mode(function, *arguments):
    """The result of the function in the default floating-point mode, whatever the caller's mode is."""
    cdef fastkl_mode caller = fastkl_mode_enter()
    try:
        return function(*arguments)
    finally:
        fastkl_mode_leave(caller)


cdef int _default_threads() except -1:
    cdef int most = fastkl_openmp_threads()
    if most > 1 and fastkl_forked():
        return 1
    if most > 1 and cpu_quota is not None:
        quota = cpu_quota()
        if quota is not None:
            most = max(1, min(most, round(quota)))
    return most


include "_request.pxi"
include "_blocks.pxi"
include "_coarsen.pxi"
include "_scipy_rows.pxi"


# ---- evaluation -------------------------------------------------------------------------------------------------------


cdef int _prepare(Call *call, Request request, cnp.ndarray out) except -1:
    """Everything about a call except its threads."""
    cdef cnp.ndarray p = request.p_rows, q = request.q_rows, labels = request.label_rows
    cdef Kind p_kind = request.p_kind, q_kind = request.q_kind
    cdef bint compare = request.task == COMPARE
    cdef fastkl_mode caller
    call.tier, call.kind = tier, <Task>request.task
    if call.kind == ROWS and (request.p_logits or request.q_logits):
        call.kind = LOGITS
    call.task.measure, call.task.root, call.task.eps = request.code, request.root, request.clip
    call.task.alpha, call.task.beta = request.order, 1 - request.order
    call.task.p_eps = request.clip if request.code == FASTKL_jeffreys_divergence else 0
    call.task.scale, call.task.scale_low, call.task.smoothing = request.scale, request.scale_low, request.smoothing
    call.task.ignores, call.task.ignored = request.ignores, request.ignored
    call.task.p_tolerance = INFINITY if request.any_sum or p is None else p_kind.tolerance
    call.task.q_tolerance = INFINITY if request.any_sum or q is None else q_kind.tolerance
    call.unit = 1
    if request.log_base:
        caller = fastkl_mode_enter()
        call.unit = sqrt(log(request.log_base)) if request.root else log(request.log_base)
        fastkl_mode_leave(caller)
    call.as_scipy = request.as_scipy
    call.stop_at_invalid = request.invalid == _RAISE
    call.stopped = NULL if request.stop is None else &request.stop.word
    # An operand that is not there has no data, no strides, and the dtype of the other.
    if p is None:
        call.q = _operand(q, q_kind, request.q_logits)
        call.p = call.q
        call.p.data, call.p.col = NULL, 0
    else:
        call.p = _operand(p, p_kind, request.p_logits)
        call.q = call.p
        call.q.data, call.q.col = NULL, 0
        if q is not None:
            call.q = _operand(q, q_kind, request.q_logits)
    call.n = (q if p is None else p).shape[(q if p is None else p).ndim - 1]
    call.labels = call.p
    call.labels.data = NULL
    if labels is not None:
        call.labels = _operand(labels, request.label_kind, False)
    call.fields, call.field = 1, 0
    if compare:
        call.fields = FASTKL_FIELD_COUNT if labels is not None else FASTKL_nll_p_field  # these come last
        call.field = out.strides[0]
    call.out, call.single = cnp.PyArray_BYTES(out), cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT32
    call.sums, call.shared, call.task.shared = NULL, NULL, NULL
    call.found, call.polls, call.threads = False, False, 1
    _coalesce(call, p, q, labels, out, compare)
    _cut_into_blocks(call)
    if call.pieces == 1 and call.n > MOST_UNCUT:
        name = "p" if compare else "q"
        raise ValueError(f"{name} has {call.n} columns: {request.measure} of probabilities takes at most {MOST_UNCUT:.0f}")
    return 0


def evaluate(Request request not None, cnp.ndarray out not None):
    """Fill `out`, float32 or float64, with the values of the request's aligned rows.

    `out` has the shape to which the leading axes broadcast; for a comparison, FIELDS come before these as a first axis.
    The result is None, or (row, status) of the first invalid row, counted in C order. The value of an invalid row is NaN;
    with `invalid="raise"` values of later rows may be missing.
    """
    cdef Call call
    cdef Invalid alone
    cdef int thread, threads
    if cnp.PyArray_SIZE(out) == 0:
        return None
    _prepare(&call, request, out)
    call.invalid = &alone
    alone.status = FASTKL_VALID
    try:
        threads = call.threads = _count_threads(&call, request.most_threads)
        _cut_into_pieces(&call)
        if call.stage != BLOCKS or call.stop > 1:
            call.polls = not in_subinterpreter and get_ident() == main_thread().ident
            call.patience, call.deadline = PATIENCE, fastkl_seconds() + PATIENCE
        if threads > 1:
            call.invalid = <Invalid *>malloc(threads * sizeof(Invalid))
            if call.invalid == NULL:
                raise MemoryError
            for thread in range(threads):
                call.invalid[thread].status = FASTKL_VALID
        with nogil:
            while _next_region(&call):
                if call.threads == 1 or call.stage == START:
                    _work(&call, 0)
                else:
                    # Each thread takes its work by itself: the loop has a round for each.
                    for thread in prange(call.threads, num_threads=call.threads, schedule="static", chunksize=1):
                        _work(&call, thread)
        for thread in range(1, threads):
            if call.invalid[thread].status and (not call.invalid.status or call.invalid[thread].row < call.invalid.row):
                call.invalid[0] = call.invalid[thread]
        return (call.invalid.row, call.invalid.status) if call.invalid.status else None
    finally:
        free(call.sums)
        free(call.shared)
        if call.invalid != &alone:
            free(call.invalid)


def evaluate_plain(Request request not None):
    """The result and what `evaluate` gives, of a request that needs no check and no alignment; None, None of others.

    It is for speed alone, because checks are most of the time of a small call. A very small one keeps the GIL, too.
    """
    cdef cnp.ndarray p, q = None, result
    cdef Kind kind, q_kind = None
    cdef Call call
    cdef Invalid invalid
    if not request.plain or request.task != ROWS or type(request.p) is not <type>cnp.ndarray:
        return None, None
    p = request.p
    kind = kind_of(p)
    if kind is None or p.ndim == 0 or p.shape[p.ndim - 1] == 0:
        return None, None
    if request.code != FASTKL_entropy:
        if type(request.q) is not <type>cnp.ndarray:
            return None, None
        q = request.q
        q_kind = kind_of(q)
        if q_kind is None or q_kind.result is not kind.result or not cnp.PyArray_SAMESHAPE(p, q):
            return None, None
    request.p_rows, request.p_kind, request.q_rows, request.q_kind, request.label_rows = p, kind, q, q_kind, None
    result = cnp.PyArray_EMPTY(p.ndim - 1, p.shape, kind.number, False)
    if p.size > SMALL_ENTRIES:
        found = evaluate(request, result)
    else:
        _prepare(&call, request, result)
        call.invalid = &invalid
        invalid.status = FASTKL_VALID
        _work(&call, 0)
        found = (invalid.row, invalid.status) if invalid.status else None
    return result if p.ndim > 1 else cnp.PyArray_ToScalar(cnp.PyArray_DATA(result), result), found


def sum_plain(str measure not None, p, q, axis):
    """The sums of "rel_entr_sum" or "kl_div_sum" along an axis, or of all entries if it is None; None if they need more.

    Operands that need no more are arrays of the same shape, and their rows are views with one stride. Like evaluate_plain
    it is for speed alone.
    """
    cdef cnp.ndarray x, y
    cdef Request request
    cdef cnp.PyArray_Dims order
    cdef cnp.npy_intp axes[MOST_AXES]
    cdef int along, i
    cdef type array = <type>cnp.ndarray
    if type(p) is not array or type(q) is not array:
        return None
    x, y = p, q
    if not cnp.PyArray_SAMESHAPE(x, y):
        return None
    if axis is None:
        if x.ndim != 1:
            if not (cnp.PyArray_IS_C_CONTIGUOUS(x) and cnp.PyArray_IS_C_CONTIGUOUS(y)):
                return None
            x, y = cnp.PyArray_Ravel(x, cnp.NPY_CORDER), cnp.PyArray_Ravel(y, cnp.NPY_CORDER)
    elif type(axis) is int and -x.ndim <= axis < x.ndim:
        along = axis if axis >= 0 else axis + x.ndim
        if along != x.ndim - 1:
            for i in range(x.ndim - 1):
                axes[i] = i + (i >= along)
            axes[x.ndim - 1] = along
            order.ptr, order.len = axes, x.ndim
            x, y = cnp.PyArray_Transpose(x, &order), cnp.PyArray_Transpose(y, &order)
    else:
        return None
    request = Request(measure, x, y)
    request.any_sum = True
    result, invalid = evaluate_plain(request)
    if result is None or invalid is not None:
        return None
    if request.p_kind.result is _FLOAT64 and cnp.PyArray_ITEMSIZE(x) < 4 and cnp.PyArray_ITEMSIZE(y) < 4:
        # SciPy makes integers float32 that float32 holds.
        return cnp.PyArray_Cast(result, cnp.NPY_FLOAT32) if x.ndim > 1 else np.float32(result)
    return result


# Where the rows of an operand are read from, and to: those of a block follow those of the block before.
cdef struct Reading:
    int file
    int64_t position
    char *to
    ptrdiff_t size


def evaluate_files(Request request not None, cnp.ndarray out not None, list reads not None):
    """Fill `out`, one-dimensional, with the values of consecutive blocks of rows, which are read from files.

    The request is aligned, and has arrays for the rows of a block. `reads` has (array, file, position) of each operand that
    is read: an array of the request in C order, an open file's number, and where the rows of the first block begin. The
    result is the number of rows that have values, of whole blocks. It ends before a block that `out` has no room for, that
    could not be read without waiting, or that has an invalid row which is an error.
    """
    cdef Reading reading[3]
    cdef Call call
    cdef Invalid invalid
    cdef cnp.ndarray array
    cdef int count = len(reads), i
    cdef ptrdiff_t block = 0, done = 0, rows = out.shape[0], step = out.strides[0]
    for i in range(count):
        array, reading[i].file, reading[i].position = reads[i]
        reading[i].to, reading[i].size = cnp.PyArray_BYTES(array), cnp.PyArray_NBYTES(array)
        block = array.shape[0]
    _prepare(&call, request, out[:block])
    call.invalid = &invalid
    with nogil:
        while block <= rows - done:
            for i in range(count):
                if not fastkl_read_file(reading[i].file, reading[i].to, reading[i].size, reading[i].position):
                    break
                reading[i].position += reading[i].size
            else:
                call.taken, invalid.status = 0, FASTKL_VALID
                _work(&call, 0)
                if not call.found and not _is_stopped(&call):
                    call.out += block * step
                    done += block
                    continue
            break
    return done


def decode(
    cnp.ndarray records not None, float floor_scale, cnp.ndarray values not None, cnp.ndarray floored not None,
):
    """Fill `values`, rows of float32, and `floored`, of int8, from records of uint16 as a tier does. All are in C order.

    The result is the number of the first record that is impossible, or -1.
    """
    cdef const char *record = cnp.PyArray_BYTES(records)
    cdef float *value = <float *>cnp.PyArray_DATA(values)
    cdef signed char *kind = <signed char *>cnp.PyArray_DATA(floored)
    cdef ptrdiff_t rows = values.shape[0], n = values.shape[1], step = records.strides[0], row, impossible = -1
    cdef const fastkl_tier *now = tier
    cdef fastkl_mode caller
    with nogil:
        caller = fastkl_mode_enter()
        for row in range(rows):
            kind[row] = now.decode(<const uint16_t *>(record + row * step), n, floor_scale, value + row * n)
            if kind[row] < 0:
                impossible = row
                break
        fastkl_mode_leave(caller)
    return impossible


include "_compiled.pxi"
