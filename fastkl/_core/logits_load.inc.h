/* Owns how a chunk of a row becomes logits that stand side by side: its entries are used where they are, or copied and
   transformed. In REAL. Knows nothing of weights and sums. */

/* `groups` groups of logits stand side by side from `data` on. If `left` more are left over, they stand at `last`, filled
   up to a group with -inf. While group i is used, memory is prefetched from `ahead` + i `ahead_step` on,
   unless the step is 0. */
typedef struct {
    const NAME(loose) *data;
    REAL *last;
    ptrdiff_t groups;
    int left;
    const char *ahead;
    ptrdiff_t ahead_step;
} NAME(logits);

FASTKL_INLINE ptrdiff_t NAME(group_count)(NAME(logits) x) { return x.groups + (x.left > 0); }

FASTKL_INLINE const NAME(loose) *NAME(group)(NAME(logits) x, ptrdiff_t i) {
    return i < x.groups ? x.data + i * GROUP : (const NAME(loose) *)x.last;
}

/* Prefetches what the next chunk has in the place of group i, unless its entries are far apart. */
FASTKL_INLINE void NAME(prefetch_group)(NAME(logits) x, ptrdiff_t i) {
    if (x.ahead_step)
        for (int k = 0; k < 4 * COLUMN_BYTES; k += FASTKL_LINE)
            FASTKL_PREFETCH(x.ahead + i * x.ahead_step + k);
}

/* The bytes between groups, or 0 if they are not to be prefetched. */
FASTKL_INLINE ptrdiff_t NAME(prefetched_step)(ptrdiff_t col) {
    const ptrdiff_t step = GROUP * col;
    return step > 0 && step <= 4 * COLUMN_BYTES ? step : 0;
}

/* Fills up the last group with another number. */
FASTKL_INLINE void NAME(fill_up)(NAME(logits) x, REAL filler) {
    for (int i = x.left; x.left && i < GROUP; i++)
        x.last[i] = filler;
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

/* The chunk of a row of n logits that begins at `start`. `chunk` has room for CHUNK_LOGITS + GROUP. */
FASTKL_INLINE NAME(logits) NAME(load_logits)(logits_row *row, REAL *chunk, ptrdiff_t start, ptrdiff_t n) {
    const ptrdiff_t count = n - start < CHUNK_LOGITS ? n - start : CHUNK_LOGITS;
    const fastkl_operand *const from = row->operand;
    const char *const data = from->data + start * from->col;
    const ptrdiff_t rest = count % GROUP, whole = count - rest;
    const int in_place = row->as_is && from->logits && from->dtype == REAL_DTYPE && in_a_row(from);
    REAL *const last = in_place ? chunk : chunk + whole;
    if (in_place) {
        if (rest)
            NAME(load)(chunk, from, data + whole * from->col, (int)rest, (int)rest);
    } else {
        NAME(load)(chunk, from, data, (int)count, (int)count);
        if (!from->logits)
            NAME(take_logarithms)(row, chunk, (int)count);
        else if (!row->as_is)
            NAME(transform)(row, chunk, (int)count);
    }
    for (ptrdiff_t i = rest; rest && i < GROUP; i++)
        last[i] = -(REAL)INFINITY;
    return (NAME(logits)){(const NAME(loose) *)(in_place ? data : (const char *)chunk), last, whole / GROUP, (int)rest,
                          data + count * from->col, NAME(prefetched_step)(from->col)};
}

/* A chunk's largest logit, and the least. A NaN may be missed here, because it shows in all sums. */
FASTKL_INLINE void NAME(find_extremes)(NAME(logits) x, REAL *max, REAL *min) {
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
    for (int i = 0; i < x.left; i += LANES) {
        const int valid = x.left - i;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL now = x.last[i + j];
            largest[j] = NAME(greater)(largest[j], now);
            least[j] = NAME(lesser)(least[j], j < valid ? now : (REAL)INFINITY);
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
