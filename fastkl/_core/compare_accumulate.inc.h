/* Owns the sums of a comparison of probabilities, side by side as in accumulate.inc.h: the terms of all measures go into
   sums of their own. In REAL. Knows nothing of where entries come from and of what the sums mean. */

/* The sums of a comparison in each lane: the terms, p, q and q - p; the OR of all entries' bits; a number whose sign says
   that an entry is small; the largest p and the largest q. Where each lane has a row, `same` says whether p and q are
   largest in the same column, the first of those in which they are. */
typedef struct {
    NAME(lane_sum) forward, reverse, js, p_log_p, q_log_q, p, q, difference;
    UINT bits[LANES], small[LANES], same[LANES];
    REAL largest_p[LANES], largest_q[LANES];
} NAME(compared_lanes);

FASTKL_INLINE void NAME(clear_sum)(NAME(lane_sum) *sum, int j) { sum->sum[j] = sum->low[j] = 0; }

FASTKL_INLINE void NAME(clear_compared_sums)(NAME(compared_lanes) *lanes) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        NAME(clear_sum)(&lanes->forward, j);
        NAME(clear_sum)(&lanes->reverse, j);
        NAME(clear_sum)(&lanes->js, j);
        NAME(clear_sum)(&lanes->p_log_p, j);
        NAME(clear_sum)(&lanes->q_log_q, j);
        NAME(clear_sum)(&lanes->p, j);
        NAME(clear_sum)(&lanes->q, j);
        NAME(clear_sum)(&lanes->difference, j);
    }
}

FASTKL_INLINE void NAME(clear_compared)(NAME(compared_lanes) *lanes) {
    NAME(clear_compared_sums)(lanes);
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        lanes->bits[j] = lanes->small[j] = lanes->same[j] = 0;
        lanes->largest_p[j] = lanes->largest_q[j] = -1;
    }
}

/* Takes the next entries into the lane's largest. */
FASTKL_INLINE void NAME(find_largest_of_both)(NAME(compared_lanes) *lanes, int j, int one_row, REAL p, REAL q) {
    const REAL largest_p = lanes->largest_p[j], largest_q = lanes->largest_q[j];
    if (!one_row) {
        const UINT both = q > largest_q ? 1 : 0, neither = q > largest_q ? 0 : lanes->same[j];
        lanes->same[j] = p > largest_p ? both : neither;
    }
    lanes->largest_p[j] = NAME(greater)(p, largest_p);
    lanes->largest_q[j] = NAME(greater)(q, largest_q);
}

/* Columns that are gone over twice, so that fewer numbers are under way at a time than registers hold. */
#define COMPARED_COLUMNS 32

/* Adds up the divergences of columns by twos, because registers do not hold more, and of the rest one by one; gives
   log(p/q) of each pair of entries. */
FASTKL_INLINE void NAME(add_divergences)(NAME(compared_lanes) *lanes, NAME(columns) p, NAME(columns) q, ptrdiff_t count,
                                         REAL *log_ratio) {
    ptrdiff_t i = 0;
    for (; i + 2 <= count; i += 2, log_ratio += 2 * LANES) {
        for (int k = 0; k < 2; k++) {
            NAME(prefetch)(p, i + k);
            NAME(prefetch)(q, i + k);
        }
        const NAME(columns) p_now = NAME(advance)(p, i), q_now = NAME(advance)(q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(divergences) e0 =
                NAME(compare_entries)(NAME(column)(p_now, 0, 2, NULL)[j], NAME(column)(q_now, 0, 2, NULL)[j]);
            const NAME(divergences) e1 =
                NAME(compare_entries)(NAME(column)(p_now, 1, 2, NULL)[j], NAME(column)(q_now, 1, 2, NULL)[j]);
            NAME(accumulate)(&lanes->forward, j, e0.forward + e1.forward);
            NAME(accumulate)(&lanes->reverse, j, e0.reverse + e1.reverse);
            NAME(accumulate)(&lanes->js, j, e0.js + e1.js);
            lanes->small[j] |= e0.small | e1.small;
            log_ratio[j] = e0.log_ratio, log_ratio[j + LANES] = e1.log_ratio;
        }
    }
    for (; i < count + (p.left > 0); i++, log_ratio += LANES) {
        const NAME(loose) *const a = NAME(column)(p, i, count, NULL), *const b = NAME(column)(q, i, count, NULL);
        const int real = i < count ? LANES : p.left;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(divergences) e = NAME(compare_entries)(a[j], b[j]);
            NAME(accumulate)(&lanes->forward, j, e.forward);
            NAME(accumulate)(&lanes->reverse, j, e.reverse);
            NAME(accumulate)(&lanes->js, j, e.js);
            lanes->small[j] |= j < real ? e.small : 0;
            log_ratio[j] = e.log_ratio;
        }
    }
}

/* Adds up the rest of a comparison, with the given log(p/q). */
FASTKL_INLINE void NAME(add_entropies)(NAME(compared_lanes) *lanes, int one_row, NAME(columns) p, NAME(columns) q,
                                       ptrdiff_t count, const REAL *log_ratio) {
    ptrdiff_t i = 0;
    for (; i + 4 <= count; i += 4, log_ratio += 4 * LANES) {
        const NAME(columns) p_now = NAME(advance)(p, i), q_now = NAME(advance)(q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL a0 = NAME(column)(p_now, 0, 4, NULL)[j], a1 = NAME(column)(p_now, 1, 4, NULL)[j];
            const REAL a2 = NAME(column)(p_now, 2, 4, NULL)[j], a3 = NAME(column)(p_now, 3, 4, NULL)[j];
            const REAL b0 = NAME(column)(q_now, 0, 4, NULL)[j], b1 = NAME(column)(q_now, 1, 4, NULL)[j];
            const REAL b2 = NAME(column)(q_now, 2, 4, NULL)[j], b3 = NAME(column)(q_now, 3, 4, NULL)[j];
            const NAME(logarithms) e0 = NAME(compare_logarithms)(a0, b0, log_ratio[j]);
            const NAME(logarithms) e1 = NAME(compare_logarithms)(a1, b1, log_ratio[j + LANES]);
            const NAME(logarithms) e2 = NAME(compare_logarithms)(a2, b2, log_ratio[j + 2 * LANES]);
            const NAME(logarithms) e3 = NAME(compare_logarithms)(a3, b3, log_ratio[j + 3 * LANES]);
            NAME(accumulate)(&lanes->p_log_p, j, NAME(mul_add)(a0, e0.log_p, a1 * e1.log_p) +
                                                     NAME(mul_add)(a2, e2.log_p, a3 * e3.log_p));
            NAME(accumulate)(&lanes->q_log_q, j, NAME(mul_add)(b0, e0.log_q, b1 * e1.log_q) +
                                                     NAME(mul_add)(b2, e2.log_q, b3 * e3.log_q));
            NAME(accumulate)(&lanes->p, j, (a0 + a1) + (a2 + a3));
            NAME(accumulate)(&lanes->q, j, (b0 + b1) + (b2 + b3));
            NAME(accumulate)(&lanes->difference, j, ((b0 - a0) + (b1 - a1)) + ((b2 - a2) + (b3 - a3)));
            lanes->bits[j] |= ((NAME(bits)(a0) | NAME(bits)(a1)) | (NAME(bits)(a2) | NAME(bits)(a3))) |
                              ((NAME(bits)(b0) | NAME(bits)(b1)) | (NAME(bits)(b2) | NAME(bits)(b3)));
            NAME(find_largest_of_both)(lanes, j, one_row, a0, b0);
            NAME(find_largest_of_both)(lanes, j, one_row, a1, b1);
            NAME(find_largest_of_both)(lanes, j, one_row, a2, b2);
            NAME(find_largest_of_both)(lanes, j, one_row, a3, b3);
        }
    }
    for (; i < count + (p.left > 0); i++, log_ratio += LANES) {
        const NAME(loose) *const a = NAME(column)(p, i, count, NULL), *const b = NAME(column)(q, i, count, NULL);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(logarithms) e = NAME(compare_logarithms)(a[j], b[j], log_ratio[j]);
            NAME(accumulate)(&lanes->p_log_p, j, a[j] * e.log_p);
            NAME(accumulate)(&lanes->q_log_q, j, b[j] * e.log_q);
            NAME(accumulate)(&lanes->p, j, a[j]);
            NAME(accumulate)(&lanes->q, j, b[j]);
            NAME(accumulate)(&lanes->difference, j, b[j] - a[j]);
            lanes->bits[j] |= NAME(bits)(a[j]) | NAME(bits)(b[j]);
            NAME(find_largest_of_both)(lanes, j, one_row, a[j], b[j]);
        }
    }
}

/* Adds columns to lanes whose address no other function has: their sums stay in registers. */
FASTKL_INLINE void NAME(compare_columns)(NAME(compared_lanes) *lanes, int one_row, NAME(columns) p, NAME(columns) q,
                                         ptrdiff_t count) {
    REAL log_ratio[(COMPARED_COLUMNS + 1) * LANES];
    NAME(columns) p_now = NAME(known)(p, REAL_DTYPE, one_row), q_now = NAME(known)(q, REAL_DTYPE, one_row);
    for (ptrdiff_t i = 0; i < count || i == 0; i += COMPARED_COLUMNS) {
        const int is_last = count - i <= COMPARED_COLUMNS;
        const ptrdiff_t columns = is_last ? count - i : COMPARED_COLUMNS;
        p_now.left = is_last ? p.left : 0;
        NAME(add_divergences)(lanes, p_now, q_now, columns, log_ratio);
        NAME(add_entropies)(lanes, one_row, p_now, q_now, columns, log_ratio);
        p_now = NAME(advance)(p_now, columns), q_now = NAME(advance)(q_now, columns);
    }
}

/* Finds the small entries of one operand where the other has larger ones, if the lanes have met any that is small. */
FASTKL_INLINE void NAME(find_small_of_both)(const NAME(compared_lanes) *lanes, const NAME(columns) *p,
                                            const NAME(columns) *q, ptrdiff_t count, UINT *p_guard_bits,
                                            UINT *q_guard_bits) {
    UINT small = 0;
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        small |= lanes->small[j] | lanes->bits[j];
    if (small >> (REAL_BITS - 1)) {
        NAME(find_small)(*p, *q, count, q_guard_bits);
        NAME(find_small)(*q, *p, count, p_guard_bits);
    }
}

