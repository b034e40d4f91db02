/* Sums side by side: how entries of any type, stride and alignment come to stand in columns of LANES, and how the columns are
   added up. In REAL. Whether a column belongs to one row or to LANES of them, rows.inc.h knows. */

/* Four entries of a lane are added in REAL, pairwise; from there on the lanes' sums, and at last the row's, are in double and
   compensated. So a sum of non-negative terms is right to 2 units in the last place of REAL, however long the row. */
#define GROUP (4 * LANES)
#define CHUNK (16 * GROUP)

typedef NAME(entry) NAME(term)(REAL p, REAL q, NAME(factor) c);

/* A sum in each lane, and what rounding took from it. */
typedef struct {
    double sum[LANES], low[LANES];
} NAME(lane_sums);

typedef struct {
    NAME(lane_sums) term, other, weight;
    UINT entry_bits[LANES], guard_bits[LANES];
} NAME(lanes);

/* sum + low += x, exactly but for the rounding of low (Knuth's two-sum). */
FASTKL_INLINE void NAME(add)(double *sum, double *low, double x) {
    const double total = *sum + x, x_part = total - *sum;
    *low += (*sum - (total - x_part)) + (x - x_part);
    *sum = total;
}

/* As `add` where |x| <= |sum| (Dekker's fast two-sum), or where doubles take in the sums of floats. An x that is larger costs
   half a unit of it; among non-negative x such are at least twice as large each time, so that all cost 1 unit of the last. */
FASTKL_INLINE void NAME(accumulate)(double *sum, double *low, REAL x) {
#if REAL_BITS == 64
    const double total = *sum + x;
    *low += x - (total - *sum);
    *sum = total;
#else
    (void)low;
    *sum += (double)x;
#endif
}

/* Adds the lanes up, by halving, into the row's sum. */
FASTKL_INLINE void NAME(fold)(NAME(lane_sums) *lane, double *sum, double *low) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) {
            NAME(add)(&lane->sum[j], &lane->low[j], lane->sum[j + half]);
            lane->low[j] += lane->low[j + half];
        }
    NAME(add)(sum, low, lane->sum[0]);
    *low += lane->low[0];
}

/* What a pair of entries adds, its bits included; and what two such add together. */
FASTKL_INLINE NAME(entry) NAME(pair)(NAME(term) *term, REAL p, REAL q, NAME(factor) c) {
    NAME(entry) entry = term(p, q, c);
    entry.bits = NAME(bits)(p) | NAME(bits)(q);
    return entry;
}

FASTKL_INLINE NAME(entry) NAME(both)(NAME(entry) a, NAME(entry) b) {
    return (NAME(entry)){a.term + b.term, a.other + b.other, a.weight + b.weight, a.guard | b.guard, a.bits | b.bits};
}

/* Adds `columns` columns of LANES entries each, four at a time; entry j of column i stands at p[i p_step + j]. A column holds
   LANES successive entries of one row, or one entry of each of LANES rows. */
FASTKL_INLINE void NAME(add_columns)(NAME(term) *term, int pair, const REAL *p, ptrdiff_t p_step, const REAL *q,
                                     ptrdiff_t q_step, NAME(factor) c, int columns, NAME(lanes) *lanes) {
    for (int i = 0; i < columns; i += 4, p += 4 * p_step, q += 4 * q_step) {
        /* Memory is asked for ahead of the arithmetic, outside of the loop that is vectorised. */
        for (int line = 0; line < 4; line++) {
            FASTKL_PREFETCH((const char *)(p + line * p_step) + FASTKL_PREFETCH_AHEAD);
            if (pair)
                FASTKL_PREFETCH((const char *)(q + line * q_step) + FASTKL_PREFETCH_AHEAD);
        }
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            const NAME(entry) e = NAME(both)(
                NAME(both)(NAME(pair)(term, p[j], q[j], c), NAME(pair)(term, p[j + p_step], q[j + q_step], c)),
                NAME(both)(NAME(pair)(term, p[j + 2 * p_step], q[j + 2 * q_step], c),
                           NAME(pair)(term, p[j + 3 * p_step], q[j + 3 * q_step], c)));
            NAME(accumulate)(&lanes->term.sum[j], &lanes->term.low[j], e.term);
            NAME(accumulate)(&lanes->weight.sum[j], &lanes->weight.low[j], e.weight);
            lanes->entry_bits[j] |= e.bits;
            if (pair) {
                NAME(accumulate)(&lanes->other.sum[j], &lanes->other.low[j], e.other);
                lanes->guard_bits[j] |= e.guard;
            }
        }
    }
}

/* Adds what all lanes hold to one row's sums. */
FASTKL_INLINE void NAME(collect)(NAME(lanes) *lanes, fastkl_sums *sums) {
    UINT entry_bits = 0, guard_bits = 0;
    NAME(fold)(&lanes->term, &sums->term, &sums->term_low);
    NAME(fold)(&lanes->other, &sums->other, &sums->other_low);
    NAME(fold)(&lanes->weight, &sums->weight, &sums->weight_low);
    for (int j = 0; j < LANES; j++) {
        entry_bits |= lanes->entry_bits[j];
        guard_bits |= lanes->guard_bits[j];
    }
    sums->entry_bits |= (uint64_t)entry_bits << (64 - REAL_BITS);
    sums->guard_bits |= (uint64_t)guard_bits << (64 - REAL_BITS);
}

/* Copies `count` entries from `start` on into the chunk, -0 as 0, and fills up with zeros: they add nothing. */
FASTKL_NOINLINE void NAME(stage)(REAL *chunk, fastkl_operand from, ptrdiff_t start, int count) {
    const char *data = from.data + start * from.col;
    switch (from.dtype) {
#define ROW(name, type)                                                        \
    case FASTKL_##name:                                                        \
        for (int i = 0; i < count; i++) {                                      \
            type entry;                                                        \
            fastkl_read(&entry, data + i * from.col, sizeof entry, from.swapped); \
            chunk[i] = (REAL)entry + 0;                                        \
        }                                                                      \
        break;
        FASTKL_DTYPES(ROW)
#undef ROW
    }
    for (int i = count; i % GROUP; i++)
        chunk[i] = 0;
}

/* Raises the chunk's entries to eps; the sums take note of what the entries were. */
FASTKL_NOINLINE void NAME(raise)(REAL *chunk, int count, REAL eps, fastkl_sums *sums) {
    UINT bits = 0;
    double raised = 0;
    for (int i = 0; i < count; i++) {
        const REAL entry = chunk[i];
        chunk[i] = entry < eps ? eps : entry;
        bits |= NAME(bits)(entry);
        raised += (double)chunk[i] - (double)entry;
    }
    sums->entry_bits |= (uint64_t)bits << (64 - REAL_BITS);
    sums->raised += raised;
}
