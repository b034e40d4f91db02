/* Owns the loop that adds up terms over a chunk of logits, one sum of each kind in each lane. In REAL. Knows nothing of
   what the terms are. */

/* What code that adds up terms is compiled for: how many sums a term has; whether it has extremes; whether it writes
   weights (1), or differences too (2); for how many operands memory is prefetched. All are constants. */
typedef struct {
    int sums, extremes, writes, prefetched;
} NAME(outputs);

/* The sums of each lane. A lane has at most CHUNK_LOGITS / LANES entries, and four are added to each other first, so that
   the sums need no compensation. */
typedef struct {
    REAL first[LANES], second[LANES], third[LANES], min[LANES], max[LANES];
} NAME(term_lanes);

FASTKL_INLINE NAME(logit_terms) NAME(add_terms)(NAME(logit_terms) a, NAME(logit_terms) b) {
    return (NAME(logit_terms)){a.first + b.first, a.second + b.second, a.third + b.third, NAME(lesser)(a.min, b.min),
                               NAME(greater)(a.max, b.max)};
}

FASTKL_INLINE void NAME(halve_sum)(int half, double *sum) {
    FASTKL_VECTORIZE
    for (int j = 0; j < half; j++)
        sum[j] += sum[j + half];
}

FASTKL_INLINE double NAME(sum_of_lanes)(const REAL *lanes) {
    double sum[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++)
        sum[j] = (double)lanes[j];
    HALVE_LANES(NAME(halve_sum), sum);
    return sum[0];
}

/* A chunk of a pair of rows, and room for p's weights and for q - p, where terms write them. */
typedef struct {
    NAME(logits) p, q;
    REAL *w, *d;
} NAME(logits_chunk);

/* Room for a chunk's logits. */
typedef struct {
    REAL p[CHUNK_LOGITS + GROUP], q[CHUNK_LOGITS + GROUP];
} NAME(room);

/* The chunk of a pair of rows that begins at `start`, without room for more; q stands in for p if p is NULL. */
FASTKL_INLINE NAME(logits_chunk) NAME(load_pair)(logits_row *p, logits_row *q, NAME(room) *room, ptrdiff_t start,
                                                 ptrdiff_t n) {
    const NAME(logits) of_q = NAME(load_logits)(q, room->q, start, n);
    return (NAME(logits_chunk)){p ? NAME(load_logits)(p, room->p, start, n) : of_q, of_q, room->p, room->p};
}

/* The sums of the terms over all entries of the chunk. */
FASTKL_INLINE term_sums NAME(sum_terms)(NAME(logit_term) *term, NAME(outputs) out, NAME(logits_chunk) chunk,
                                        const NAME(term_constants) *at) {
    NAME(term_lanes) lanes;
    term_sums result = {{0}, INFINITY, -INFINITY};
    REAL *w = chunk.w, *d = chunk.d;
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++) {
        lanes.first[j] = lanes.second[j] = lanes.third[j] = 0;
        lanes.min[j] = INFINITY, lanes.max[j] = -(REAL)INFINITY;
    }
    for (ptrdiff_t i = 0; i < NAME(group_count)(chunk.p); i++, w += GROUP, d += GROUP) {
        const NAME(loose) *const p = NAME(group)(chunk.p, i), *const q = NAME(group)(chunk.q, i);
        if (out.prefetched > 0)
            NAME(prefetch_group)(chunk.p, i);
        if (out.prefetched > 1)
            NAME(prefetch_group)(chunk.q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            const int k = j + LANES, l = k + LANES, m = l + LANES;
            NAME(entry_logits) x0 = {p[j], q[j], w[j], d[j]}, x1 = {p[k], q[k], w[k], d[k]};
            NAME(entry_logits) x2 = {p[l], q[l], w[l], d[l]}, x3 = {p[m], q[m], w[m], d[m]};
            const NAME(logit_terms) sums = NAME(add_terms)(NAME(add_terms)(term(&x0, at), term(&x1, at)),
                                                           NAME(add_terms)(term(&x2, at), term(&x3, at)));
            lanes.first[j] += sums.first;
            if (out.sums > 1)
                lanes.second[j] += sums.second;
            if (out.sums > 2)
                lanes.third[j] += sums.third;
            if (out.extremes) {
                lanes.min[j] = NAME(lesser)(lanes.min[j], sums.min);
                lanes.max[j] = NAME(greater)(lanes.max[j], sums.max);
            }
            if (out.writes)
                w[j] = x0.w, w[k] = x1.w, w[l] = x2.w, w[m] = x3.w;
            if (out.writes > 1)
                d[j] = x0.d, d[k] = x1.d, d[l] = x2.d, d[m] = x3.d;
        }
    }
    result.sum[0] = NAME(sum_of_lanes)(lanes.first);
    if (out.sums > 1)
        result.sum[1] = NAME(sum_of_lanes)(lanes.second);
    if (out.sums > 2)
        result.sum[2] = NAME(sum_of_lanes)(lanes.third);
    if (out.extremes) {
        result.min = (double)NAME(extreme)(lanes.min, 1);
        result.max = (double)NAME(extreme)(lanes.max, 0);
    }
    return result;
}
