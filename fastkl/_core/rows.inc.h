/* One look at a row: its entries, a chunk at a time, into three sums. In REAL. Knows the order of summation and how entries
   of any type, stride and alignment come to stand in a chunk; knows nothing of what the sums mean. */
#include "real.inc.h"

#include "logratio.inc.h"
#include "measures.inc.h"

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

/* Adds a chunk of contiguous entries, `count` of them, a multiple of GROUP. */
FASTKL_INLINE void NAME(chunk)(NAME(term) *term, int pair, const REAL *p, const REAL *q, NAME(factor) c, int count,
                               NAME(lanes) *lanes) {
    for (int i = 0; i < count; i += GROUP)
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            const REAL p0 = p[i + j], p1 = p[i + j + LANES], p2 = p[i + j + 2 * LANES], p3 = p[i + j + 3 * LANES];
            const REAL q0 = q[i + j], q1 = q[i + j + LANES], q2 = q[i + j + 2 * LANES], q3 = q[i + j + 3 * LANES];
            const NAME(entry) e0 = term(p0, q0, c), e1 = term(p1, q1, c), e2 = term(p2, q2, c), e3 = term(p3, q3, c);
            NAME(accumulate)(&lanes->term.sum[j], &lanes->term.low[j], (e0.term + e1.term) + (e2.term + e3.term));
            NAME(accumulate)(&lanes->weight.sum[j], &lanes->weight.low[j], (e0.weight + e1.weight) + (e2.weight + e3.weight));
            lanes->entry_bits[j] |= NAME(bits)(p0) | NAME(bits)(p1) | NAME(bits)(p2) | NAME(bits)(p3);
            if (pair) {
                NAME(accumulate)(&lanes->other.sum[j], &lanes->other.low[j], (e0.other + e1.other) + (e2.other + e3.other));
                lanes->entry_bits[j] |= NAME(bits)(q0) | NAME(bits)(q1) | NAME(bits)(q2) | NAME(bits)(q3);
                lanes->guard_bits[j] |= e0.guard | e1.guard | e2.guard | e3.guard;
            }
        }
}

/* Adds what the lanes hold to the row's sums. */
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

/* Can the entries be used where they stand? */
FASTKL_INLINE int NAME(in_place)(fastkl_operand operand) {
    return operand.dtype == REAL_DTYPE && operand.col == sizeof(REAL) && !operand.swapped &&
           (uintptr_t)operand.data % sizeof(REAL) == 0;
}

/* What the loop over this chunk does not wait for: the chunk two further on. (Within the loop it would not be vectorised.) */
FASTKL_INLINE void NAME(prefetch)(const REAL *chunk) {
    for (int byte = 0; byte < (int)(CHUNK * sizeof(REAL)); byte += 64)
        FASTKL_PREFETCH((const char *)chunk + FASTKL_PREFETCH_AHEAD + byte);
}

/* Adds a row, or a piece of one, to the sums. The operand that c multiplies is multiplied by `power`, of two, before. */
FASTKL_INLINE void NAME(look)(NAME(term) *term, int pair, const fastkl_task *task, fastkl_operand p, fastkl_operand q,
                              ptrdiff_t n, REAL power, NAME(factor) c, fastkl_sums *sums) {
#if REAL_BITS == 64
    const REAL eps = task->eps;
#else
    const REAL eps = 0; /* rounded, eps would be another one: tier.inc.h looks in double then */
#endif
    const int p_in_place = NAME(in_place)(p) && !c.scaled, q_in_place = NAME(in_place)(q) && !c.scaled && !(eps > 0);
    REAL p_chunk[CHUNK], q_chunk[CHUNK], *const scaled_chunk = pair ? q_chunk : p_chunk;
    NAME(lanes) lanes = {0};
    (void)task;
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        const int count = n - start < CHUNK ? (int)(n - start) : CHUNK;
        const REAL *p_now = p_chunk, *q_now = pair ? q_chunk : p_chunk;
        if (p_in_place && count == CHUNK) {
            p_now = (const REAL *)p.data + start;
            NAME(prefetch)(p_now);
        } else {
            NAME(stage)(p_chunk, p, start, count);
        }
        if (pair && q_in_place && count == CHUNK) {
            q_now = (const REAL *)q.data + start;
            NAME(prefetch)(q_now);
        } else if (pair) {
            NAME(stage)(q_chunk, q, start, count);
            if (eps > 0)
                NAME(raise)(q_chunk, count, eps, sums);
        }
        if (c.scaled)
            for (int i = 0; i < count; i++)
                scaled_chunk[i] *= power;
        NAME(chunk)(term, pair, p_now, q_now, c, (count + GROUP - 1) / GROUP * GROUP, &lanes);
    }
    NAME(collect)(&lanes, sums);
}

/* The first look: no scaling. */
FASTKL_NOINLINE void NAME(first_look)(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                                      fastkl_sums *sums) {
    const NAME(factor) one = {1, 0, 0};
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                          \
    case FASTKL_##name:                                            \
        NAME(look)(NAME(name), pair, task, p, q, n, 1, one, sums); \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
}

/* Can such sums be trusted, whatever the measure? */
FASTKL_INLINE int NAME(trusted)(const fastkl_sums *sums, double sum_of_q) {
    const double p = sums->weight, q = sum_of_q, term = sums->term;
    return !(sums->guard_bits & FASTKL_SIGN) & (p >= SUM_LEAST) & (p <= SUM_MOST) & (q >= SUM_LEAST) & (q <= SUM_MOST) &
           ((term == 0) | (fabs(term) >= TERM_LEAST));
}

#if REAL_BITS == 64
/* Another look, with an operand scaled by c: always in double. */
FASTKL_NOINLINE void second_look(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, double power,
                                 double high, double low, fastkl_sums *sums) {
    const factor_f64 c = {high, low, 1};
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                             \
    case FASTKL_##name:                                               \
        look_f64(name##_f64, pair, task, p, q, n, power, c, sums);    \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
}
#endif
