/* Owns how a chunk of a row becomes logits that stand side by side: its entries are used where they are, or copied and
   transformed. In REAL. Knows nothing of weights and sums. */

/* `groups` groups of logits stand side by side from `data` on. If `left` more are left over, they are the last of a group
   at `tail`, before which there may be anything: that group is copied to `last`, with `filler` in its beginning, when it
   is used, because CPUs prefetch by themselves where memory is read in its order. The next chunk begins at `ahead`, if it
   is used where it stands. */
typedef struct {
    const NAME(loose) *data, *tail;
    REAL *last, filler;
    ptrdiff_t groups;
    int left;
    uintptr_t ahead;
} NAME(logits);

FASTKL_INLINE ptrdiff_t NAME(group_count)(NAME(logits) x) { return x.groups + (x.left > 0); }

FASTKL_INLINE void NAME(fill_last)(NAME(logits) x) {
    for (int i = 0; i < GROUP; i += LANES) {
        const int filled = GROUP - x.left - i;
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL now = x.tail[i + j];
            x.last[i + j] = j < filled ? x.filler : now;
        }
    }
}

FASTKL_INLINE const NAME(loose) *NAME(group)(NAME(logits) x, ptrdiff_t i) {
    if (i < x.groups)
        return x.data + i * GROUP;
    NAME(fill_last)(x);
    return (const NAME(loose) *)x.last;
}

FASTKL_INLINE void NAME(halve_extremes)(int half, REAL *lanes, int least) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(half); j++)
        lanes[j] = least ? NAME(lesser)(lanes[j], lanes[j + half]) : NAME(greater)(lanes[j], lanes[j + half]);
}

/* The largest of the lanes, or the least. */
FASTKL_INLINE REAL NAME(extreme)(REAL *lanes, int least) {
    HALVE_LANES(NAME(halve_extremes), lanes, least);
    return lanes[0];
}

/* Replaces the chunk's probabilities by the logarithms of `factor` times them, -inf of zero. */
FASTKL_NOINLINE void NAME(take_logarithms)(logits_row *row, REAL *chunk, int count) {
    const REAL factor = (REAL)row->factor, log_small = LOG_SMALL + (REAL)log(row->factor);
    UINT bits = 0;
    double sum = 0;
    if (row->eps > 0)
        NAME(clip)(chunk, count, (REAL)row->eps, &row->clipped, &row->entry_bits);
    for (int i = 0; i < count; i++) {
        const REAL entry = chunk[i], scaled = entry * factor,
                   log = NAME(log)(scaled < SMALL ? entry * (1 / SMALL) : scaled);
        sum += (double)entry;
        bits |= NAME(bits)(entry);
        chunk[i] = entry > 0 ? scaled < SMALL ? log + log_small : log : -(REAL)INFINITY;
    }
    row->sum += sum;
    row->entry_bits |= (uint64_t)bits << (64 - REAL_BITS);
}

/* Subtracts the centre from a chunk's logits, multiplies by the factor and clips. */
FASTKL_INLINE void NAME(transform)(logits_row *row, REAL *chunk, int count) {
    const REAL factor = (REAL)row->factor, centre = (REAL)row->centre, min = (REAL)row->min, masked = -(REAL)INFINITY;
    UINT overflows = 0;
    for (int i = 0; i < count; i++) {
        const REAL logit = NAME(greater)(min, (chunk[i] - centre) * factor);
        overflows |= logit == masked ? chunk[i] > masked : 0;
        chunk[i] = logit;
    }
    row->overflows |= overflows > 0;
}

/* The chunk of a row of n logits that begins at `start`, of at most `most` entries. `chunk` has room for them and GROUP. */
FASTKL_INLINE NAME(logits) NAME(load_logits)(logits_row *row, REAL *chunk, ptrdiff_t start, ptrdiff_t n, int most) {
    const ptrdiff_t count = n - start < most ? n - start : most;
    const fastkl_operand *const from = row->operand;
    const char *const data = from->data + start * from->col;
    const ptrdiff_t rest = count % GROUP, whole = count - rest;
    const int in_place = row->as_is && from->logits && from->dtype == REAL_DTYPE && in_a_row(from) &&
                         !(REAL_BITS == 64 && row->hidden);
    NAME(logits) x = {(const NAME(loose) *)data, (const NAME(loose) *)data + (count - GROUP), chunk, -(REAL)INFINITY,
                      whole / GROUP, (int)rest, beyond(data, count * from->col)};
    if (in_place && n >= GROUP) /* what is before the entries of the last group is of the same row */
        return x;
    for (ptrdiff_t i = count; i < GROUP; i++)
        *chunk++ = -(REAL)INFINITY;
    NAME(load)(chunk, from, data, (int)count, (int)count);
    if (REAL_BITS == 64 && row->hidden)
        NAME(hide)(row->hidden, chunk, start, count, -(REAL)INFINITY);
    if (!from->logits)
        NAME(take_logarithms)(row, chunk, (int)count);
    else if (!row->as_is)
        NAME(transform)(row, chunk, (int)count);
    x.data = (const NAME(loose) *)chunk;
    x.last = chunk + count;
    x.tail = (const NAME(loose) *)x.last - GROUP;
    return x;
}

/* Prefetches what the next chunk has in the place of group i. The first cache has no room for it beside this chunk. */
FASTKL_INLINE void NAME(prefetch_group)(NAME(logits) x, ptrdiff_t i) {
    const uintptr_t ahead = x.ahead + (uintptr_t)i * 4 * COLUMN_BYTES;
    for (int k = 0; k < 4 * COLUMN_BYTES; k += FASTKL_LINE)
        FASTKL_PREFETCH_L2(ahead + (uintptr_t)k);
}

/* A chunk's largest logit, and the least. A NaN may be missed here, because it shows in all sums. */
FASTKL_NOINLINE void NAME(find_extremes)(NAME(logits) x, REAL *max, REAL *min) {
    REAL largest[LANES], least[LANES];
    for (int j = 0; j < LANES; j++)
        largest[j] = -(REAL)INFINITY, least[j] = INFINITY;
    for (ptrdiff_t i = 0; i < x.groups; i++) {
        const NAME(loose) *const now = x.data + i * GROUP;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL x0 = now[j], x1 = now[LANES + j], x2 = now[2 * LANES + j], x3 = now[3 * LANES + j];
            largest[j] = NAME(greater)(largest[j], NAME(greater)(NAME(greater)(x0, x1), NAME(greater)(x2, x3)));
            least[j] = NAME(lesser)(least[j], NAME(lesser)(NAME(lesser)(x0, x1), NAME(lesser)(x2, x3)));
        }
    }
    if (x.left)
        NAME(fill_last)(x);
    for (int i = 0; x.left && i < GROUP; i += LANES) {
        const int filled = GROUP - x.left - i;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL now = x.last[i + j];
            largest[j] = NAME(greater)(largest[j], now);
            least[j] = NAME(lesser)(least[j], j < filled ? (REAL)INFINITY : now);
        }
    }
    *max = NAME(extreme)(largest, 0);
    *min = NAME(extreme)(least, 1);
}

/* The largest logit of group i. */
FASTKL_INLINE REAL NAME(max_of_group)(NAME(logits) x, ptrdiff_t i) {
    const NAME(loose) *const now = NAME(group)(x, i);
    REAL largest[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        largest[j] = NAME(greater)(NAME(greater)(now[j], now[LANES + j]),
                                   NAME(greater)(now[2 * LANES + j], now[3 * LANES + j]));
    return NAME(extreme)(largest, 0);
}

/* The largest and the least logit of the first group, of those that the chunk has. */
FASTKL_INLINE void NAME(first_extremes)(NAME(logits) x, REAL *max, REAL *min) {
    const NAME(loose) *const now = NAME(group)(x, 0);
    REAL largest[LANES], least[LANES];
    if (x.groups == 0) {
        NAME(find_extremes)(x, max, min);
        return;
    }
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const REAL x0 = now[j], x1 = now[LANES + j], x2 = now[2 * LANES + j], x3 = now[3 * LANES + j];
        largest[j] = NAME(greater)(NAME(greater)(x0, x1), NAME(greater)(x2, x3));
        least[j] = NAME(lesser)(NAME(lesser)(x0, x1), NAME(lesser)(x2, x3));
    }
    *max = NAME(extreme)(largest, 0);
    *min = NAME(extreme)(least, 1);
}

/* Has the chunk a NaN? That matters if no sum of it is made, since its extremes may miss one. */
FASTKL_NOINLINE int NAME(has_nan)(NAME(logits) x) {
    int found = 0;
    for (ptrdiff_t i = 0; i < NAME(group_count)(x); i++)
        for (int j = 0; j < GROUP; j++)
            found |= isnan(NAME(group)(x, i)[j]);
    return found;
}
