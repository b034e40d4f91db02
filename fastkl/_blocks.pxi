# The blocks of a call, the work of a thread, and the regions between which signals are polled, included by _kernels.pyx.
# It knows nothing of requests, and of Python only how to poll signals.

# ---- the layout of a call ---------------------------------------------------------------------------------------------

# The order of the work: whole rows; or, for rows that are cut, the sums of pieces, and then the values of rows. For rows of
# logits, START finds the first pass that each wants, and PIECES come again as long as rows want more.
cdef enum Stage:
    BLOCKS, START, PIECES, FINISH, DONE

# One leading axis: its length and strides in bytes.
cdef struct Axis:
    ptrdiff_t length, p, q, labels, out

# The first invalid row that a thread has met, in a cache line of its own.
cdef struct Invalid:
    ptrdiff_t row
    ptrdiff_t status
    ptrdiff_t padding[6]

# Where a row and its result are.
cdef struct Place:
    fastkl_operand p, q, labels
    char *out

# All that the threads of a call know. The leading axes are coalesced: there are runs of `run.length` rows, one for each
# index of the outer axes.
cdef struct Call:
    const fastkl_tier *tier
    Task kind
    fastkl_task task
    fastkl_operand p, q, labels
    char *out
    bint single  # The result is float32.
    ptrdiff_t n, rows, runs
    double unit
    int fields  # values of a row, each in an array of its own, `field` bytes after the last one
    ptrdiff_t field
    Axis run
    Axis outer[MOST_AXES]
    int outer_count
    # Blocks: `missing` rows are missing in the first of a run, so that the others begin where cache lines do.
    ptrdiff_t block_rows, blocks_per_run, missing
    # Rows that are cut: `group` interleaved rows (or 1) at a time into `pieces`; a region takes `groups` of them from row
    # `first` on, and `width` of their pieces from the piece `start` on. `sums` has those, and `rows_sums` the rows'.
    ptrdiff_t group, groups, pieces, first, start, width
    fastkl_sums *sums
    fastkl_sums *row_sums
    # The same of rows of logits: what is known of the rows of a region, and the sums of their pieces.
    char *shared
    char *shared_sums
    # The work of a stage, which threads take by an atomic counter.
    Stage stage
    ptrdiff_t taken, stop
    int threads
    Invalid *invalid  # one for each thread
    const int *stopped  # whether the caller has ended, and needs no result; NULL if it cannot say so
    bint stop_at_invalid
    bint as_scipy  # Rows that the core refuses have SciPy's value.
    int found  # An invalid row was found, and later rows need no value.
    bint polls  # The calling thread may poll signals.
    double patience, deadline


cdef fastkl_operand _operand(cnp.ndarray a, Kind kind, bint logits) noexcept:
    """The first row of an array. The place of another row is added later."""
    cdef fastkl_operand operand
    operand.data, operand.row, operand.col = <const char *>cnp.PyArray_DATA(a), 0, a.strides[a.ndim - 1]
    if a.shape[a.ndim - 1] == 1:  # NumPy gives an axis of length 1 any stride, with which an address could overflow
        operand.col = cnp.PyArray_ITEMSIZE(a)
    operand.dtype, operand.swapped, operand.logits = kind.code, not cnp.PyArray_ISNOTSWAPPED(a), logits
    return operand


cdef inline ptrdiff_t _stride(cnp.ndarray a, int axis, int leading) noexcept:
    """The stride of the leading axis of `a` that meets the result's `axis`; 0 where it is repeated."""
    if a is None:
        return 0
    cdef int own = axis - (leading - (a.ndim - 1))
    return 0 if own < 0 or a.shape[own] == 1 else a.strides[own]


cdef void _coalesce(Call *call, cnp.ndarray p, cnp.ndarray q, cnp.ndarray labels, cnp.ndarray out, int first) noexcept:
    """The fewest axes that have the same rows in the same order: axes of length 1 go, axes that continue each other join.

    The leading axes are those of `out` from the axis `first` on.
    """
    cdef Axis axis, last
    cdef int i, leading = out.ndim - first
    call.outer_count, call.runs, call.rows = 0, 1, 1
    last.length, last.p, last.q, last.labels, last.out = 1, 0, 0, 0, 0
    for i in range(leading):
        axis.length = out.shape[first + i]
        call.rows *= axis.length
        if axis.length == 1:
            continue
        axis.p, axis.q, axis.labels = _stride(p, i, leading), _stride(q, i, leading), _stride(labels, i, leading)
        axis.out = out.strides[first + i]
        if last.length == 1:
            last = axis
        elif (last.p == axis.p * axis.length and last.q == axis.q * axis.length
              and last.labels == axis.labels * axis.length and last.out == axis.out * axis.length):
            axis.length *= last.length
            last = axis
        else:
            call.outer[call.outer_count] = last
            call.outer_count += 1
            call.runs *= last.length
            last = axis
    call.run = last
    call.p.row, call.q.row, call.labels.row = last.p, last.q, last.labels


cdef void _cut_into_blocks(Call *call) noexcept:
    """Blocks of few enough entries that threads end at the same time, and that a signal does not wait long."""
    cdef const fastkl_operand *rows = &call.q if call.kind == NLL else &call.p
    cdef bint probabilities = call.kind == ROWS or (call.kind == COMPARE and not call.p.logits and not call.q.logits)
    cdef ptrdiff_t group = call.tier.group(&call.p, &call.q, call.n) if probabilities else 1
    cdef ptrdiff_t groups = BLOCK_ENTRIES // call.n // group, before
    cdef ptrdiff_t most_rows = COMPARED_ROWS if call.kind == COMPARE else BLOCK_ROWS
    cdef ptrdiff_t piece = call.tier.piece(&call.p, &call.q) if probabilities else call.n
    cdef bint interleaved = piece == FASTKL_INTERLEAVED_PIECE and probabilities
    if interleaved:
        groups = max(groups, min(INTERLEAVED_GROUPS, call.run.length // (4 * INTERLEAVED_GROUPS * group)))
        while group > INTERLEAVED_ROWS and group * call.n > MOST_ENTRIES:
            group //= 2
        groups = min(groups, MOST_ENTRIES // (group * call.n))
    call.block_rows = group * max(1, min(groups, most_rows // group))
    call.missing = 0
    before = <size_t>rows.data % LINE
    if interleaved and rows.row > 0 and before % rows.row == 0:
        call.missing = before // rows.row % call.block_rows
    call.blocks_per_run = (call.run.length + call.missing + call.block_rows - 1) // call.block_rows
    call.stage, call.taken, call.stop = BLOCKS, 0, call.runs * call.blocks_per_run
    # Rows of more than one piece can be cut; the bits are the same either way.
    call.group = min(<ptrdiff_t>INTERLEAVED_ROWS, call.run.length) if interleaved else 1
    call.pieces = 1
    if call.kind == ROWS:
        call.pieces = (call.n - 1) // piece + 1
    elif call.kind == LOGITS or ((call.p.data == NULL or call.p.logits) and (call.q.data == NULL or call.q.logits)):
        call.pieces = (call.n - 1) // FASTKL_PIECE + 1


cdef int _count_threads(const Call *call, int most) except -1:
    """The number of threads: no more than requested, than there are, than the work is worth and than it can be cut into."""
    cdef ptrdiff_t per_thread = ENTRIES_PER_REQUESTED_THREAD if most > 0 else ENTRIES_PER_THREAD
    cdef double parts = call.stop
    if call.pieces > 1:
        parts = max(parts, <double>call.rows / call.group * call.pieces)
    cdef double worth = min(parts, 1 + <double>call.rows * <double>call.n / per_thread)
    if worth < 2 or most == 1 or fastkl_forked():
        return 1
    if before_threads is not None:
        before_threads(most)
    return <int>min(worth, min(most, fastkl_most_threads()) if most > 0 else _default_threads())


cdef inline ptrdiff_t _groups_in_run(const Call *call) noexcept nogil:
    return (call.run.length - 1) // call.group + 1


cdef int _cut_into_pieces(Call *call) except -1:
    """Cut rows, if they are too wide for a block or there are too few of them for the threads."""
    cdef bint wide = call.group * call.n > MOST_ENTRIES
    cdef bint few = call.threads > 1 and call.rows < call.threads * ROWS_PER_THREAD
    if call.pieces == 1 or call.rows == 0 or not (wide or few):
        return 0
    call.first, call.start = 0, 0
    if call.kind != ROWS:
        return _share_logits(call)
    call.sums = <fastkl_sums *>malloc((SUMS + PIECES_PER_THREAD * INTERLEAVED_ROWS * call.threads) * sizeof(fastkl_sums))
    if call.sums == NULL:
        raise MemoryError
    call.row_sums = call.sums + SUMS
    _next_groups(call)
    return 0


cdef int _share_logits(Call *call) except -1:
    """Memory for the rows of logits of a region."""
    cdef ptrdiff_t rows = max(1, PIECES_PER_THREAD * call.threads // call.pieces)
    cdef ptrdiff_t sums = min(call.pieces, SHARED_SUMS)
    call.shared = <char *>malloc(rows * (call.tier.shared_size + sums * call.tier.sums_size))
    if call.shared == NULL:
        raise MemoryError
    call.shared_sums = call.shared + rows * call.tier.shared_size
    _next_groups(call)
    return 0


cdef void _next_groups(Call *call) noexcept nogil:
    """The groups and pieces of the next region: `first` counts groups."""
    cdef ptrdiff_t groups = call.runs * _groups_in_run(call) - call.first
    call.groups = min(groups, max(1, PIECES_PER_THREAD * call.threads // call.pieces))
    if call.kind != ROWS:
        memset(call.shared, 0, call.groups * call.tier.shared_size)
        call.stage, call.taken, call.stop = START, 0, call.groups
        return
    call.width = min(call.pieces - call.start, SUMS // call.group)
    call.groups = max(1, min(call.groups, SUMS // (call.group * call.width)))
    if call.start or call.width < call.pieces:
        call.groups = 1
    call.stage, call.taken, call.stop = PIECES, 0, call.groups * call.width


# ---- the work of a thread ---------------------------------------------------------------------------------------------


cdef Place _place(const Call *call, ptrdiff_t run, ptrdiff_t row) noexcept nogil:
    """Where a row of a run is."""
    cdef Place at
    cdef ptrdiff_t index
    cdef int i
    at.p, at.q, at.labels, at.out = call.p, call.q, call.labels, call.out + row * call.run.out
    cdef ptrdiff_t p = row * call.run.p, q = row * call.run.q, labels = row * call.run.labels
    for i in range(call.outer_count - 1, -1, -1):
        index = run % call.outer[i].length
        run //= call.outer[i].length
        p += index * call.outer[i].p
        q += index * call.outer[i].q
        labels += index * call.outer[i].labels
        at.out += index * call.outer[i].out
    if at.p.data != NULL:
        at.p.data += p
    if at.q.data != NULL:
        at.q.data += q
    if at.labels.data != NULL:
        at.labels.data += labels
    return at


cdef inline bint _takes_values(const Call *call, const char *out) noexcept nogil:
    """Whether the values of rows are the result as they are: one a row, doubles, side by side and aligned."""
    cdef ptrdiff_t size = sizeof(double)
    return call.fields == 1 and call.unit == 1 and not call.single and call.run.out == size and <size_t>out % size == 0


cdef inline void _store(const Call *call, char *out, const double *values, ptrdiff_t count) noexcept nogil:
    """The values of rows into the result, which may stand at any address."""
    cdef ptrdiff_t step = call.run.out, size = sizeof(float) if call.single else sizeof(double), i
    cdef int k
    cdef double unit, value
    cdef float single
    for k in range(call.fields):
        unit = 1 if k == FASTKL_same_argmax_field or k == FASTKL_total_variation_field else call.unit
        if unit == 1 and step == size and <size_t>out % size == 0:  # most results; the loop is vectorised
            if call.single:
                for i in range(count):
                    (<float *>out)[i] = <float>values[i]
            else:
                memcpy(out, values, count * size)
        elif call.single:
            for i in range(count):
                single = <float>(values[i] if unit == 1 else values[i] / unit)
                memcpy(out + i * step, &single, sizeof(single))
        else:
            for i in range(count):
                value = values[i] if unit == 1 else values[i] / unit
                memcpy(out + i * step, &value, sizeof(value))
        out += call.field
        values += count


cdef inline void _note_invalid(Call *call, ptrdiff_t row, int status, Invalid *invalid) noexcept nogil:
    """The status of a row, if it is the first invalid one that the thread has met."""
    if not invalid.status or row < invalid.row:
        invalid.row, invalid.status = row, status
        if call.stop_at_invalid:
            fastkl_set(&call.found)


cdef void _evaluate(
    const Call *call, const fastkl_task *task, const Place *at, ptrdiff_t count, double *values, uint8_t *status
) noexcept nogil:
    """The values of rows."""
    if call.kind == ROWS:
        call.tier.rows(task, &at.p, &at.q, call.n, count, values, status)
    elif call.kind == LOGITS:
        call.tier.logits(task, &at.p, &at.q, call.n, count, values, status)
    elif call.kind == NLL:
        call.tier.nll(task, &at.q, &at.labels, call.n, count, values, status)
    else:
        call.tier.compare(task, &at.p, &at.q, &at.labels, call.n, count, values, status)


cdef void _block(Call *call, ptrdiff_t block, Invalid *invalid) noexcept nogil:
    """The rows of one block."""
    cdef double copy[BLOCK_VALUES]
    cdef double *values = copy
    cdef uint8_t status[BLOCK_ROWS]
    cdef uint8_t any_invalid = 0
    cdef ptrdiff_t run = block // call.blocks_per_run, i
    cdef ptrdiff_t start = (block - run * call.blocks_per_run) * call.block_rows - call.missing
    cdef ptrdiff_t first = max(start, 0), count = min(start + call.block_rows, call.run.length) - first
    cdef Place at = _place(call, run, first)
    if _takes_values(call, at.out):
        values = <double *>at.out
    _evaluate(call, &call.task, &at, count, values, status)
    if call.as_scipy:
        _accept_rows_as_scipy(call, &at, count, values, status)
    if values == copy:
        _store(call, at.out, values, count)
    for i in range(count):
        any_invalid |= status[i]
    for i in range(count if any_invalid else 0):
        if status[i]:
            _note_invalid(call, run * call.run.length + first + i, status[i], invalid)


cdef void _piece(Call *call, ptrdiff_t i) noexcept nogil:
    """The sums of one piece of a group of rows."""
    cdef ptrdiff_t group = call.first + i // call.width, per_run = _groups_in_run(call), row = group % per_run * call.group
    cdef Place at = _place(call, group // per_run, row)
    call.tier.pass_(&call.task, &at.p, &at.q, call.n, call.start + i % call.width,
                    <int>min(call.group, call.run.length - row), call.sums + i * call.group)


cdef void _row_of_pieces(Call *call, ptrdiff_t i, Invalid *invalid) noexcept nogil:
    """The value of a row whose pieces have been summed."""
    cdef ptrdiff_t group = call.first + i // call.group, per_run = _groups_in_run(call), run = group // per_run
    cdef ptrdiff_t row = group % per_run * call.group + i % call.group
    cdef Place at
    cdef double value, divergence
    cdef uint8_t status, ignored
    cdef fastkl_task task
    if row < call.run.length:
        at = _place(call, run, row)
        call.tier.finish(&call.task, &at.p, &at.q, call.n, call.row_sums + i, &value, &status)
        if call.as_scipy:
            task = call.task
            task.alpha = 1
            call.tier.finish(&task, &at.p, &at.q, call.n, call.row_sums + i, &divergence, &ignored)
            if not _is_right(call, value, divergence, status):
                _compute_as_scipy(call, &at, 0, &value, &status)
        _store(call, at.out, &value, 1)
        if status:
            _note_invalid(call, run * call.run.length + row, status, invalid)


cdef inline fastkl_shared *_shared(const Call *call, ptrdiff_t i) noexcept nogil:
    return <fastkl_shared *>(call.shared + i * call.tier.shared_size)


cdef inline char *_sums_of_shared(const Call *call, ptrdiff_t i, ptrdiff_t piece) noexcept nogil:
    """Where the sums of row i are of a piece, counted from `start` on."""
    return call.shared_sums + (i * call.width + piece) * call.tier.sums_size


cdef void _row_of_logits(Call *call, ptrdiff_t i) noexcept nogil:
    """The value of a row of logits, or the next pass that it wants."""
    cdef fastkl_shared *row = _shared(call, i)
    cdef ptrdiff_t index = call.first + i, run = index // call.run.length
    cdef fastkl_task task = call.task
    cdef Place at = _place(call, run, index - run * call.run.length)
    cdef double values[FASTKL_FIELD_COUNT]
    task.shared = row
    _evaluate(call, &task, &at, 1, values, &row.status)
    row.is_done = not row.wanted
    if row.is_done:
        _store(call, at.out, values, 1)


cdef void _piece_of_logits(Call *call, ptrdiff_t i) noexcept nogil:
    """The sums of one piece of the pass that a row of logits wants. After the last piece, the row goes on."""
    cdef ptrdiff_t row = i // call.width, piece = i % call.width
    cdef bint ends = call.start + call.width == call.pieces
    cdef fastkl_shared *shared = _shared(call, row)
    if not shared.is_done:
        call.tier.pass_shared(shared, call.start + piece, _sums_of_shared(call, row, piece))
        if fastkl_next(&shared.pieces_done) == call.width - 1:
            shared.pieces_done = 0
            call.tier.join_shared(shared, _sums_of_shared(call, row, 0), call.width, call.start == 0, ends)
            if ends:
                _row_of_logits(call, row)


cdef bint _want_passes(const Call *call) noexcept nogil:
    """Whether rows of logits want a pass."""
    cdef ptrdiff_t i
    for i in range(call.groups):
        if not _shared(call, i).is_done:
            return True
    return False


cdef inline bint _is_stopped(const Call *call) noexcept nogil:
    return call.stopped != NULL and fastkl_get(call.stopped)


cdef void _work(Call *call, int thread) noexcept nogil:
    """Take work, and do it, until the stage has none or the region has lasted long enough.

    Work is taken in order, and what is taken is done: all that comes before an invalid row is there.
    """
    cdef ptrdiff_t i
    cdef bint first = thread == 0
    cdef fastkl_mode caller = fastkl_mode_enter()
    while not fastkl_get(&call.found) and not _is_stopped(call):
        if not first and call.polls and fastkl_seconds() >= call.deadline:
            break
        i = fastkl_next(&call.taken)
        if i >= call.stop:
            break
        if call.stage == BLOCKS:
            _block(call, i, &call.invalid[thread])
        elif call.stage == PIECES and call.kind != ROWS:
            _piece_of_logits(call, i)
        elif call.stage == PIECES:
            _piece(call, i)
        elif call.stage == START:
            _row_of_logits(call, i)
        else:
            _row_of_pieces(call, i, &call.invalid[thread])
        first = False
    fastkl_mode_leave(caller)


# ---- the loop over regions --------------------------------------------------------------------------------------------


cdef void _join_pieces(Call *call) noexcept nogil:
    """Add the sums of pieces to those of their rows, in the order of the pieces."""
    cdef ptrdiff_t g, r, k
    cdef fastkl_sums *row
    for g in range(call.groups):
        for r in range(call.group):
            row = call.row_sums + g * call.group + r
            for k in range(call.width):
                if call.start + k == 0:
                    row[0] = call.sums[g * call.width * call.group + r]
                else:
                    fastkl_join_sums(row, call.sums + (g * call.width + k) * call.group + r)
    call.start += call.width


cdef void _note_invalid_logits(Call *call) noexcept nogil:
    """Only now, because a row may get its value before one that precedes it."""
    cdef ptrdiff_t i
    for i in range(call.groups if call.shared != NULL else 0):
        if _shared(call, i).status:
            _note_invalid(call, call.first + i, _shared(call, i).status, &call.invalid[0])


cdef void _next_stage(Call *call) noexcept nogil:
    """What follows when all work of a stage is done."""
    if call.shared != NULL and _want_passes(call):
        if call.stage == PIECES:
            call.start += call.width
        if call.start == call.pieces:
            call.start = 0  # of the next pass
        call.width = min(call.pieces - call.start, SHARED_SUMS)
        call.stage, call.taken, call.stop = PIECES, 0, call.groups * call.width
    elif call.shared == NULL and call.stage == PIECES:
        _join_pieces(call)
        if call.start < call.pieces:
            _next_groups(call)
        else:
            call.stage, call.taken, call.stop = FINISH, 0, call.groups * call.group
    elif call.stage != BLOCKS and call.first + call.groups < call.runs * _groups_in_run(call):
        _note_invalid_logits(call)
        call.first, call.start = call.first + call.groups, 0
        _next_groups(call)
    else:
        _note_invalid_logits(call)
        call.stage = DONE


cdef int _poll_signals(Call *call) except -1 nogil:
    """Let Python handle signals, Ctrl-C among them. Most of the time that this takes is a wait for the GIL."""
    cdef double start = fastkl_seconds()
    with gil:
        PyErr_CheckSignals()
    call.patience = max(PATIENCE, min(MOST_PATIENCE, POLLS * (fastkl_seconds() - start)))
    return 0


cdef int _next_region(Call *call) except -1 nogil:
    """Whether there is work for another region; polls signals before it if the last one has lasted long enough."""
    if call.taken >= call.stop:
        _next_stage(call)
    if call.stage == DONE or call.found or _is_stopped(call):
        return 0
    if call.polls:
        if fastkl_seconds() >= call.deadline:
            _poll_signals(call)
            call.deadline = fastkl_seconds() + call.patience
    if fastkl_forked():
        call.threads = 1
    return 1
