"""Loops over blocks of rows, without the GIL, in parallel where the work pays for it.

Takes arrays whose last axis holds the distributions and whose leading axes broadcast to those of `out`; `_rows` has
checked everything. Raises nothing about rows: it answers with the first invalid one. The maths is in `_core`.

No call leaves anything behind that another could meet: what is global is set at import, and else by tests alone.
"""

from threading import get_ident, main_thread

from cpython.pycapsule cimport PyCapsule_New
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, NAN, log, sqrt
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastkl._core cimport (
    FASTKL_DTYPE_COUNT, FASTKL_FIELD_COUNT, FASTKL_LABEL, FASTKL_MEASURE_COUNT, FASTKL_PIECE, FASTKL_P_ENTRY,
    FASTKL_P_SUM, FASTKL_Q_ENTRY, FASTKL_Q_SUM, FASTKL_VALID, FASTKL_cross_entropy, FASTKL_entropy, FASTKL_float32,
    FASTKL_float64, FASTKL_js_divergence, FASTKL_kl_divergence, FASTKL_same_argmax_field, fastkl_compiler,
    fastkl_dtype_names, fastkl_field_names, fastkl_forked, fastkl_in_a_new_thread, fastkl_get, fastkl_measure_names,
    fastkl_mode, fastkl_mode_enter, fastkl_mode_leave, fastkl_most_threads, fastkl_openmp, fastkl_openmp_threads,
    fastkl_operand, fastkl_seconds, fastkl_set, fastkl_share, fastkl_sums, fastkl_task, fastkl_thread, fastkl_tier,
    fastkl_tiers,
)

cimport numpy as cnp

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState *PyInterpreterState_Get() noexcept
    int64_t PyInterpreterState_GetID(PyInterpreterState *) except -1
    void PyErr_SetObject(object, object) noexcept

cnp.import_array()

# None of these changes a result: a row's value does not depend on its surroundings.
cdef enum:
    BLOCK_ENTRIES = 32768  # what a thread takes at a time: enough to make taking it cheap, few enough to share evenly
    BLOCK_ROWS = 512
    BLOCK_VALUES = BLOCK_ROWS * 9  # of FASTKL_FIELD_COUNT each
    GROUPS = 4  # so many times the rows that are looked at together, if there are plenty: neighbours in memory share pages
    PLENTY = 16
    ENTRIES_PER_THREAD = 262144  # one more thread for so many, 0.2 ms of work: to wait for a busy core costs more
    ENTRIES_PER_ASKED_THREAD = 32768  # the same if the caller has said how many: below, waking it costs more than it saves
    ROWS_PER_THREAD = 8  # with fewer, the threads share every row that is wider than a piece
    REGION = 65536  # blocks in a parallel region: what a signal leaves of one is still dealt out, and a region costs little
    LINE = 64  # bytes of a cache line
    MOST_AXES = 64  # NumPy's own limit

MEASURES = {fastkl_measure_names[i].decode(): i for i in range(FASTKL_MEASURE_COUNT)}
DTYPES = {fastkl_dtype_names[i].decode(): i for i in range(FASTKL_DTYPE_COUNT)}
FIELDS = [fastkl_field_names[i].decode() for i in range(FASTKL_FIELD_COUNT)]
P_ENTRY, Q_ENTRY, P_SUM, Q_SUM, LABEL = FASTKL_P_ENTRY, FASTKL_Q_ENTRY, FASTKL_P_SUM, FASTKL_Q_SUM, FASTKL_LABEL
MOST_THREADS = INT_MAX

cdef double PATIENCE = 0.03  # seconds that a signal waits; to answer can take 5 ms, if another thread has the GIL

cdef const fastkl_tier *tier = NULL
cdef object cpu_quota = None
cdef bint in_subinterpreter = PyInterpreterState_GetID(PyInterpreterState_Get()) != 0  # Cython's modules have one

ctypedef fused real:
    float
    double

# Which of a tier's functions looks at the rows.
cdef enum Task:
    ROWS, LOGITS, LOSSES, COMPARE

# One leading axis: its length and strides in bytes.
cdef struct Axis:
    ptrdiff_t length, p, q, labels, out

# All that a call needs. The leading axes are coalesced: runs of `run.length` rows, one for each index of the outer axes.
cdef struct Job:
    Task kind
    fastkl_task task
    fastkl_operand p, q, labels
    ptrdiff_t n
    double unit
    bint stop_at_invalid
    int fields  # values a row, each in an array of its own, so many bytes after the last's
    ptrdiff_t field
    Axis run
    Axis outer[MOST_AXES]
    int outer_count
    ptrdiff_t runs, block_rows, blocks_per_run
    ptrdiff_t missing  # rows that the first block of a run has fewer
    const fastkl_tier *tier
    int together
    bint listens  # does the first thread of a region have signals answered?
    bint deaf  # does Python answer no signals in the calling thread, or in its interpreter?
    double answered  # when signals were, or the job began
    fastkl_mode mode  # of arithmetic, the caller's
    int stopped  # an exception is set, and all that is left is to leave

# The first invalid row that a thread has met, in a cache line of its own.
cdef struct Invalid:
    ptrdiff_t row
    ptrdiff_t status
    ptrdiff_t padding[6]


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
    raise ValueError(f"{name!r} is no SIMD tier that is usable here: must be one of {', '.join(tiers())}")


def tier_in_use():
    """The name of the tier that computes."""
    return tier.name.decode()


def limit_threads(quota):
    """Use no more threads than `quota()` processors run, unless a call asks for more. None, said or answered: no limit."""
    global cpu_quota
    cpu_quota = quota


def default_threads():
    """How many threads a large enough call uses that does not ask for a number."""
    return _default_threads()


def openmp():
    """Was this built with OpenMP?"""
    return bool(fastkl_openmp())


def compiler():
    """The C compiler's name and version."""
    return fastkl_compiler().decode()


def in_usual_mode(function, *arguments):
    """What the function gives with the arguments in the usual mode of arithmetic, whatever the caller's."""
    cdef fastkl_mode caller = fastkl_mode_enter()
    try:
        return function(*arguments)
    finally:
        fastkl_mode_leave(caller)


cdef int _default_threads() except -1:
    cdef int most = fastkl_openmp_threads()
    if most > 1 and cpu_quota is not None:
        quota = cpu_quota()
        if quota is not None:
            most = max(1, min(most, round(quota)))
    return most


cdef int _threads(Job *job, int asked) except -1:
    """The number of threads for the job: what was asked for, but no more than may be had, or the work is worth or can be
    cut into.
    """
    cdef ptrdiff_t per_thread = ENTRIES_PER_ASKED_THREAD if asked > 0 else ENTRIES_PER_THREAD
    cdef ptrdiff_t rows = job.runs * job.run.length, blocks = job.runs * job.blocks_per_run
    cdef bint pieces = job.kind == ROWS and job.together == 1
    cdef ptrdiff_t parts = max(blocks, _pieces(job)) if pieces else blocks
    cdef double worth = min(<double>parts, 1 + <double>rows * <double>job.n / per_thread)
    if worth < 2 or asked == 1:
        return 1
    return <int>min(worth, min(asked, fastkl_most_threads()) if asked > 0 else _default_threads())


cdef inline ptrdiff_t _pieces(const Job *job) noexcept nogil:
    """How many pieces a row has."""
    return (job.n + FASTKL_PIECE - 1) // FASTKL_PIECE


cdef fastkl_operand _operand(cnp.ndarray a, int dtype) noexcept:
    """The first row of an array; a row's place in it is added later."""
    cdef fastkl_operand operand
    operand.data, operand.row, operand.col = <const char *>cnp.PyArray_DATA(a), 0, a.strides[a.ndim - 1]
    operand.dtype, operand.swapped, operand.logits = dtype, not cnp.PyArray_ISNOTSWAPPED(a), False
    return operand


cdef inline ptrdiff_t _stride(cnp.ndarray a, int axis, int leading) noexcept:
    """The stride of a's leading axis that meets the result's `axis`; 0 where it is repeated."""
    cdef int own = axis - (leading - (a.ndim - 1))
    return 0 if own < 0 or a.shape[own] == 1 else a.strides[own]


cdef void _coalesce(Job *job, cnp.ndarray p, cnp.ndarray q, cnp.ndarray labels, cnp.ndarray out) noexcept:
    """Fewest axes with the same rows in the same order: drop those of length 1, join those that continue each other."""
    cdef Axis axis, last
    cdef int i, leading = out.ndim
    job.outer_count = 0
    job.runs = 1
    last.length, last.p, last.q, last.labels, last.out = 1, 0, 0, 0, 0
    for i in range(leading):
        axis.length = out.shape[i]
        if axis.length == 1:
            continue
        axis.p, axis.q, axis.labels = _stride(p, i, leading), _stride(q, i, leading), _stride(labels, i, leading)
        axis.out = out.strides[i]
        if last.length == 1:
            last = axis
        elif (last.p == axis.p * axis.length and last.q == axis.q * axis.length
              and last.labels == axis.labels * axis.length and last.out == axis.out * axis.length):
            axis.length *= last.length
            last = axis
        else:
            job.outer[job.outer_count] = last
            job.outer_count += 1
            job.runs *= last.length
            last = axis
    job.run = last
    job.p.row, job.q.row, job.labels.row = last.p, last.q, last.labels


cdef ptrdiff_t _rows_before_a_line(Job *job, cnp.ndarray p) noexcept:
    """How many rows, neighbours in memory, a cache line has before p's first: blocks had better begin where lines do."""
    cdef size_t before = <size_t>job.p.data % LINE
    return before // job.p.row if job.p.row == p.itemsize and before % <size_t>p.itemsize == 0 else 0


cdef Axis _start(Job *job, ptrdiff_t run) noexcept nogil:
    """Where a run begins: byte offsets into the operands and out."""
    cdef Axis at
    cdef ptrdiff_t index
    cdef int i
    at.length, at.p, at.q, at.labels, at.out = 0, 0, 0, 0, 0
    for i in range(job.outer_count - 1, -1, -1):
        index = run % job.outer[i].length
        run //= job.outer[i].length
        at.p += index * job.outer[i].p
        at.q += index * job.outer[i].q
        at.labels += index * job.outer[i].labels
        at.out += index * job.outer[i].out
    return at


cdef void _answer_signals(Job *job) noexcept with gil:
    """Have Python handle signals, Ctrl-C among them, which it does in its main thread alone. Stop if a handler raises.

    The exception is set, for the call to raise: those who called this cannot.
    """
    cdef object raised = None
    try:
        job.deaf = get_ident() != main_thread().ident
        if not job.deaf:
            PyErr_CheckSignals()
    except BaseException as error:
        raised = error
    if raised is not None:
        PyErr_SetObject(type(raised), raised)
        fastkl_set(&job.stopped)


cdef void _answer(Job *job) noexcept nogil:
    """Have signals answered, in the caller's mode of arithmetic."""
    cdef fastkl_mode ours
    if not job.deaf and not fastkl_get(&job.stopped):
        ours = fastkl_mode_enter()
        fastkl_mode_leave(job.mode)
        _answer_signals(job)
        fastkl_mode_leave(ours)


cdef inline void _listen(Job *job) noexcept nogil:
    """In the thread that called, within work or between: have signals answered now and then."""
    cdef double now
    if job.listens:
        now = fastkl_seconds()
        if not 0 <= now - job.answered < PATIENCE:
            _answer(job)
            job.answered = now


cdef int _called_off(void *pointer) noexcept nogil:
    """Asked within a long piece of work, in any thread."""
    cdef Job *job = <Job *>pointer
    if fastkl_thread() == 0:
        _listen(job)
    return fastkl_get(&job.stopped)


cdef inline void _store(char *to, real value) noexcept nogil:
    """A result into out, which may stand at any address."""
    memcpy(to, &value, sizeof(real))


cdef void _block(Job *job, ptrdiff_t block, Invalid *invalid, real *out) noexcept nogil:
    """The rows of one block, into out."""
    cdef double value[BLOCK_VALUES]
    cdef uint8_t status[BLOCK_ROWS]
    cdef ptrdiff_t run = block // job.blocks_per_run, i
    cdef ptrdiff_t start = (block - run * job.blocks_per_run) * job.block_rows - job.missing
    cdef ptrdiff_t first = max(start, 0), count = min(start + job.block_rows, job.run.length) - first
    cdef ptrdiff_t row = run * job.run.length + first
    cdef Axis at = _start(job, run)
    cdef fastkl_operand p = job.p, q = job.q, labels = job.labels
    cdef char *to = <char *>out + at.out + first * job.run.out
    cdef int k
    if fastkl_get(&job.stopped) or (job.stop_at_invalid and invalid.status and invalid.row < row):
        return
    p.data += at.p + first * job.run.p
    if q.data != NULL:
        q.data += at.q + first * job.run.q
    if labels.data != NULL:
        labels.data += at.labels + first * job.run.labels
    cdef fastkl_mode caller = fastkl_mode_enter()
    if job.kind == ROWS:
        job.tier.rows(&job.task, &p, &q, job.n, count, value, status)
    elif job.kind == LOGITS:
        job.tier.logits(&job.task, &p, &q, job.n, count, value, status)
    elif job.kind == LOSSES:
        job.tier.losses(&job.task, &p, &labels, job.n, count, value, status)
    else:
        job.tier.compare(&job.task, &p, &q, &labels, job.n, count, value, status)
    for i in range(0 if fastkl_get(&job.stopped) else count):
        for k in range(job.fields):
            _store(
                to + k * job.field + i * job.run.out,
                <real>(value[i * job.fields + k] / (1 if k == FASTKL_same_argmax_field else job.unit)),
            )
        if status[i] and (not invalid.status or row + i < invalid.row):
            invalid.row = row + i
            invalid.status = status[i]
    fastkl_mode_leave(caller)


# A job, and what a thread needs to take part in it; what came of it.
cdef struct Call:
    Job *job
    int threads
    Invalid *invalid  # one for each thread
    void *out
    bint single  # is out float32?
    bint failed  # for want of memory
    fastkl_operand p, q  # of a wide row, whose pieces the threads share
    fastkl_sums *sums  # one for each piece


cdef void _meanwhile(void *pointer) noexcept nogil:
    _listen((<Call *>pointer).job)


cdef void _visit_piece(void *pointer, ptrdiff_t index, int thread) noexcept nogil:
    cdef Call *call = <Call *>pointer
    if fastkl_get(&call.job.stopped):
        return
    cdef fastkl_mode caller = fastkl_mode_enter()
    call.job.tier.piece(&call.job.task, &call.p, &call.q, call.job.n, index, &call.sums[index])
    fastkl_mode_leave(caller)


cdef void _wide_row(Call *call, ptrdiff_t index) noexcept nogil:
    """The row at that index, into out."""
    cdef Job *job = call.job
    cdef ptrdiff_t run = index // job.run.length, first = index - run * job.run.length
    cdef Axis at = _start(job, run)
    cdef char *to = <char *>call.out + at.out + first * job.run.out
    cdef double value
    cdef uint8_t status
    call.p, call.q = job.p, job.q
    call.p.data += at.p + first * job.run.p
    if call.q.data != NULL:
        call.q.data += at.q + first * job.run.q
    fastkl_share(0, _pieces(job), call.threads, _visit_piece, _meanwhile, call)
    if fastkl_get(&job.stopped):
        return
    cdef fastkl_mode caller = fastkl_mode_enter()
    job.tier.finish(&job.task, &call.p, &call.q, job.n, call.sums, &value, &status)
    if not fastkl_get(&job.stopped):
        value /= job.unit
        if call.single:
            _store(to, <float>value)
        else:
            _store(to, value)
        if status and not call.invalid.status:
            call.invalid.row = index
            call.invalid.status = status
    fastkl_mode_leave(caller)


cdef void _visit_block(void *pointer, ptrdiff_t index, int thread) noexcept nogil:
    cdef Call *call = <Call *>pointer
    if call.single:
        _block(call.job, index, &call.invalid[thread], <float *>call.out)
    else:
        _block(call.job, index, &call.invalid[thread], <double *>call.out)


cdef void _work(void *pointer) noexcept nogil:
    """The whole job."""
    cdef Call *call = <Call *>pointer
    cdef Job *job = call.job
    cdef ptrdiff_t rows = job.runs * job.run.length, blocks = job.runs * job.blocks_per_run, i
    cdef bint few = call.threads > 1 and rows < call.threads * ROWS_PER_THREAD
    cdef bint wide = few and job.n > FASTKL_PIECE and job.together == 1 and job.kind == ROWS
    if wide or blocks > 1 or rows * job.n > BLOCK_ENTRIES:
        job.answered = fastkl_seconds()
    else:
        job.listens = False  # there is nothing to listen between
    if wide:
        call.sums = <fastkl_sums *>malloc(_pieces(job) * sizeof(fastkl_sums))
        call.failed = call.sums == NULL
        if call.failed:
            return
        for i in range(rows):
            if fastkl_get(&job.stopped) or (job.stop_at_invalid and call.invalid.status):
                break
            _wide_row(call, i)
        free(call.sums)
    else:
        for i in range((blocks + REGION - 1) // REGION):
            if fastkl_get(&job.stopped):
                break
            fastkl_share(i * REGION, min((i + 1) * REGION, blocks), call.threads, _visit_block, _meanwhile, call)


cdef void _wait(void *pointer) noexcept nogil:
    """While another thread works for this one."""
    _answer((<Call *>pointer).job)


cdef int _raise() except -1:
    """Raise the exception that is set."""
    return -1


def evaluate(int measure, bint root, cnp.ndarray p not None, int p_dtype, cnp.ndarray q, int q_dtype,
             cnp.ndarray out not None, double eps, double p_tolerance, double q_tolerance, double base,
             bint stop_at_invalid, int threads, list softmax=None):
    """Fill `out` (float32 or float64, of the leading axes' broadcast shape) with a measure of the rows of p and q, or with
    its square root.

    `base` is that of the logarithm, 0 for nats. `threads` is 0 for the default. Answers None, or (row, status) of the first
    invalid row, counted in C order; its value is NaN, and with `stop_at_invalid` later rows' values may be missing.

    `softmax` is None where all operands hold probabilities. Otherwise it says: whether p holds logits, whether q does, what
    multiplies them, and what its rounding left, labels, their dtype, which is ignored, the share of smoothing, whether to
    compare. With labels alone, a row's value is what they cost in p. To compare is to give FIELDS, along a first axis of
    `out`.
    """
    cdef Job job
    cdef Call call
    cdef int i, used
    cdef bint compare = False
    cdef ptrdiff_t groups
    cdef cnp.ndarray labels = None, leading = out
    cdef Invalid *invalid
    job.task.called_off, job.task.with_ = _called_off, &job
    job.task.measure, job.task.root, job.task.eps = measure, root, eps
    job.task.p_tolerance, job.task.q_tolerance = p_tolerance, q_tolerance
    job.mode = fastkl_mode_enter()
    job.unit = log(base) if base else 1
    if root:
        job.unit = sqrt(job.unit)
    fastkl_mode_leave(job.mode)
    job.stop_at_invalid = stop_at_invalid
    job.deaf, job.stopped, job.answered = in_subinterpreter, 0, 0
    job.n = p.shape[p.ndim - 1]
    job.p = _operand(p, p_dtype)
    if q is not None:
        job.q = _operand(q, q_dtype)
    else:
        job.q = job.p
        job.q.data = NULL
    job.kind, job.fields, job.field, job.labels = ROWS, 1, 0, job.p
    job.labels.data = NULL
    if softmax is not None:
        job.p.logits, job.q.logits, job.task.scale, job.task.scale_low = softmax[:4]
        labels, i, ignored, job.task.smoothing, compare = softmax[4:]
        job.kind = COMPARE if compare else LOSSES if labels is not None else LOGITS
        job.task.ignores, job.task.ignored = ignored is not None, 0 if ignored is None else ignored
        if labels is not None:
            job.labels = _operand(labels, i)
        if compare:
            job.fields, job.field, leading = FASTKL_FIELD_COUNT, out.strides[0], out[0, ...]
    _coalesce(&job, p, p if q is None else q, p if labels is None else labels, leading)
    if q is None:
        job.q.row = job.q.col = 0
    if labels is None:
        job.labels.row = 0
    job.tier = tier
    cdef bint probabilities = job.kind == ROWS or (job.kind == COMPARE and not job.p.logits and not job.q.logits)
    job.together = job.tier.together(&job.p, &job.q, job.n) if probabilities else 1
    groups = max(1, min(GROUPS, job.run.length // (PLENTY * job.together))) if job.together > 1 else 1
    job.block_rows = job.together * max(groups, min(BLOCK_ROWS, BLOCK_ENTRIES // job.n) // job.together)
    job.missing = _rows_before_a_line(&job, p) if job.together > 1 else 0
    job.blocks_per_run = (job.run.length + job.missing + job.block_rows - 1) // job.block_rows
    used = _threads(&job, threads)
    invalid = <Invalid *>malloc(used * sizeof(Invalid))
    if invalid == NULL:
        raise MemoryError
    for i in range(used):
        invalid[i].status = FASTKL_VALID
    call.job, call.threads, call.invalid = &job, used, invalid
    call.out, call.single, call.failed = cnp.PyArray_DATA(out), cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT32, False
    cdef bint forked = used > 1 and fastkl_forked()
    with nogil:
        job.listens = not forked
        if forked and not fastkl_in_a_new_thread(_work, _wait, PATIENCE, &call):
            job.listens = True
            call.threads = 1
        if job.listens:
            _work(&call)
    if job.stopped:
        free(invalid)
        _raise()
    found = None
    for i in range(used):
        if invalid[i].status and (found is None or invalid[i].row < found[0]):
            found = (invalid[i].row, invalid[i].status)
    free(invalid)
    if call.failed:
        raise MemoryError
    return found


include "_compiled.pxi"
