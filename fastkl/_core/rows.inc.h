/* One look at a row: its entries, a chunk at a time, into three sums. In REAL. Knows the order of summation and how entries
   of any type, stride and alignment come to stand in a chunk; knows nothing of what the sums mean. */
#include "real.inc.h"

#include "logratio.inc.h"
#include "measures.inc.h"

/* A lane's entries in a chunk: additions that follow each other without compensation, the cost of folding against error. */
#define PER_LANE 8
#define CHUNK (LANES * PER_LANE)

typedef NAME(entry) NAME(term)(REAL p, REAL q, NAME(factor) c);

/* sum + low += x, exactly but for the rounding of low (Knuth's two-sum). */
FASTKL_INLINE void NAME(add)(double *sum, double *low, double x) {
    const double total = *sum + x, x_part = total - *sum;
    *low += (*sum - (total - x_part)) + (x - x_part);
    *sum = total;
}

/* The lanes' sum, by halving. */
FASTKL_INLINE double NAME(fold)(const REAL *lane) {
    double sum[LANES / 2];
    for (int j = 0; j < LANES / 2; j++)
        sum[j] = (double)lane[j] + (double)lane[j + LANES / 2];
    for (int half = LANES / 4; half; half /= 2)
        for (int j = 0; j < half; j++)
            sum[j] += sum[j + half];
    return sum[0];
}

/* Adds a chunk of contiguous entries, `count` of them, a multiple of LANES. */
FASTKL_INLINE void NAME(chunk)(NAME(term) *term, int pair, const REAL *p, const REAL *q, NAME(factor) c, int count,
                               fastkl_sums *sums) {
    REAL term_sum[LANES] = {0}, other_sum[LANES] = {0}, weight_sum[LANES] = {0};
    UINT entry_bits[LANES] = {0}, guard_bits[LANES] = {0};
    for (int i = 0; i < count; i += LANES)
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            const NAME(entry) entry = term(p[i + j], q[i + j], c);
            term_sum[j] += entry.term;
            weight_sum[j] += entry.weight;
            entry_bits[j] |= NAME(bits)(p[i + j]);
            if (pair) {
                other_sum[j] += entry.other;
                entry_bits[j] |= NAME(bits)(q[i + j]);
                guard_bits[j] |= NAME(bits)(entry.guard);
            }
        }
    NAME(add)(&sums->term, &sums->term_low, NAME(fold)(term_sum));
    NAME(add)(&sums->weight, &sums->weight_low, NAME(fold)(weight_sum));
    if (pair)
        NAME(add)(&sums->other, &sums->other_low, NAME(fold)(other_sum));
    UINT entry = 0, guard = 0;
    for (int j = 0; j < LANES; j++) {
        entry |= entry_bits[j];
        guard |= guard_bits[j];
    }
    sums->entry_bits |= (uint64_t)entry << (64 - REAL_BITS);
    sums->guard_bits |= (uint64_t)guard << (64 - REAL_BITS);
}

/* Copies `count` entries from `start` on into the chunk, -0 as 0, and fills up with zeros: they add nothing. */
FASTKL_NOINLINE void NAME(stage)(REAL *chunk, fastkl_operand from, ptrdiff_t start, int count) {
    const char *data = from.data + start * from.col;
    switch (from.dtype) {
#define ROW(name, type)                                        \
    case FASTKL_##name:                                        \
        for (int i = 0; i < count; i++) {                      \
            type entry;                                        \
            memcpy(&entry, data + i * from.col, sizeof entry); \
            chunk[i] = (REAL)entry + 0;                        \
        }                                                      \
        break;
        FASTKL_DTYPES(ROW)
#undef ROW
    }
    for (int i = count; i % LANES; i++)
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
    return operand.dtype == REAL_DTYPE && operand.col == sizeof(REAL) && (uintptr_t)operand.data % sizeof(REAL) == 0;
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
        NAME(chunk)(term, pair, p_now, q_now, c, (count + LANES - 1) / LANES * LANES, sums);
    }
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
