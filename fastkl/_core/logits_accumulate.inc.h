/* Owns the loop that adds up terms over a chunk of logits, one sum of each kind in each lane. In REAL. Knows nothing of
   what the terms are. */

/* What code that adds up terms is compiled for: how many sums a term has; whether it has extremes (both, or the least
   alone); whether it writes weights, and has bits; and of which operand the next chunk is prefetched. All are constants. */
typedef struct {
    int sums, extremes, writes, bits, prefetched;
} NAME(outputs);

FASTKL_INLINE void NAME(halve_sum)(int half, double *sum) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(half); j++)
        sum[j] += sum[j + half];
}

FASTKL_INLINE double NAME(sum_of_lanes)(const REAL *lanes) {
    double sum[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        sum[j] = (double)lanes[j];
    HALVE_LANES(NAME(halve_sum), sum);
    return sum[0];
}

FASTKL_INLINE void NAME(halve_bits)(int half, UINT *bits) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(half); j++)
        bits[j] |= bits[j + half];
}

FASTKL_INLINE UINT NAME(or_of_lanes)(UINT *bits) {
    HALVE_LANES(NAME(halve_bits), bits);
    return bits[0];
}

/* A chunk of a pair of rows, and room for p's weights, where terms write them. */
typedef struct {
    NAME(logits) p, q;
    REAL *w;
} NAME(logits_chunk);

/* Room for a chunk's logits. */
typedef struct {
    REAL p[MOST_LOGITS + GROUP], q[MOST_LOGITS + GROUP];
} NAME(room);

/* The chunk of a pair of rows that begins at `start`, without room for more; q stands in for p if p is NULL. */
FASTKL_INLINE NAME(logits_chunk) NAME(load_pair)(logits_row *p, logits_row *q, NAME(room) *room, ptrdiff_t start,
                                                 ptrdiff_t n, int most) {
    const NAME(logits) of_q = NAME(load_logits)(q, room->q, start, n, most);
    return (NAME(logits_chunk)){p ? NAME(load_logits)(p, room->p, start, n, most) : of_q, of_q, room->p};
}

/* The sums of the terms over all entries of the chunk. A lane has at most MOST_LOGITS / LANES entries, and four are added
   to each other first, so that the sums need no compensation. An extreme is that of the numbers that are no NaN. */
FASTKL_INLINE term_sums NAME(sum_terms)(NAME(logit_term) *term, NAME(outputs) out, NAME(logits_chunk) chunk,
                                        const NAME(term_constants) *at) {
    REAL first[LANES], second[LANES], third[LANES], min[LANES], max[LANES];
    UINT bits[LANES];
    const NAME(term_constants) constants = *at;
    term_sums result = {{0}, INFINITY, -INFINITY, 0};
    REAL *w = chunk.w;
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        first[j] = second[j] = third[j] = 0;
        min[j] = INFINITY, max[j] = -(REAL)INFINITY;
        bits[j] = 0;
    }
    for (ptrdiff_t i = 0; i < NAME(group_count)(chunk.p); i++, w += GROUP) {
        const NAME(loose) *const p = NAME(group)(chunk.p, i), *const q = NAME(group)(chunk.q, i);
        if (out.prefetched == PREFETCH_P)
            NAME(prefetch_group)(chunk.p, i);
        if (out.prefetched == PREFETCH_Q)
            NAME(prefetch_group)(chunk.q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const int k = j + LANES, l = k + LANES, m = l + LANES;
            NAME(entry_logits) x0 = {p[j], q[j], w[j]}, x1 = {p[k], q[k], w[k]};
            NAME(entry_logits) x2 = {p[l], q[l], w[l]}, x3 = {p[m], q[m], w[m]};
            const NAME(logit_terms) t0 = term(&x0, &constants), t1 = term(&x1, &constants);
            const NAME(logit_terms) t2 = term(&x2, &constants), t3 = term(&x3, &constants);
            first[j] += (t0.first + t1.first) + (t2.first + t3.first);
            if (out.sums > 1)
                second[j] += (t0.second + t1.second) + (t2.second + t3.second);
            if (out.sums > 2)
                third[j] += (t0.third + t1.third) + (t2.third + t3.third);
            if (out.extremes)
                min[j] = NAME(lesser)(t0.min, NAME(lesser)(t1.min, NAME(lesser)(t2.min, NAME(lesser)(t3.min, min[j]))));
            if (out.extremes == BOTH_EXTREMES)
                max[j] = NAME(greater)(t0.max, NAME(greater)(t1.max, NAME(greater)(t2.max, NAME(greater)(t3.max, max[j]))));
            if (out.bits)
                bits[j] |= (t0.bits | t1.bits) | (t2.bits | t3.bits);
            if (out.writes)
                w[j] = x0.w, w[k] = x1.w, w[l] = x2.w, w[m] = x3.w;
        }
    }
    result.sum[0] = NAME(sum_of_lanes)(first);
    if (out.sums > 1)
        result.sum[1] = NAME(sum_of_lanes)(second);
    if (out.sums > 2)
        result.sum[2] = NAME(sum_of_lanes)(third);
    if (out.extremes)
        result.min = (double)NAME(extreme)(min, 1);
    if (out.extremes == BOTH_EXTREMES)
        result.max = (double)NAME(extreme)(max, 0);
    if (out.bits)
        result.bits = (uint64_t)NAME(or_of_lanes)(bits);
    return result;
}

/* The same, compiled for logits that are clipped, and for those that are not. */
FASTKL_INLINE term_sums NAME(sum_clipped)(NAME(logit_term) *term, NAME(outputs) out, NAME(logits_chunk) chunk,
                                          const NAME(term_constants) *at, int clips) {
    NAME(term_constants) constants = *at;
    constants.clips = clips;
    return NAME(sum_terms)(term, out, chunk, &constants);
}

/* The same of terms that have bits, and extremes where weights of the chunk may underflow. If none of the row's is known
   to, that is found out first; logits that a temperature divides are always clipped, because the code has its size. */
FASTKL_INLINE term_sums NAME(sum_weights)(NAME(logit_term) *term, NAME(outputs) out, NAME(logits_chunk) chunk,
                                          const NAME(term_constants) *at, logits_row *row) {
    if (!at->c.scaled && !row->underflows) {
        const NAME(outputs) plain = {out.sums, 0, out.writes, 1, out.prefetched};
        const term_sums found = NAME(sum_clipped)(term, plain, chunk, at, 0);
        row->underflows = !NAME(is_in_window)(found.bits);
        if (!row->underflows)
            return found;
    }
    return NAME(sum_clipped)(term, out, chunk, at, 1);
}
