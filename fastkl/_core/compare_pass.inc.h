/* Owns the pass of a comparison over rows of probabilities: the terms of all measures go into sums of their own, and
   entries are read once. In REAL. Knows nothing of what the sums mean. */

/* The columns that a search goes over at once. */
#define SEARCHED 8

/* The sums of a comparison in each lane: the terms, p, q and q - p; the OR of all entries' bits; the least entry and at
   most 1; the largest p and the largest q. Where each lane has a row, `same` says whether p and q are largest in the same
   column, the first of those in which they are. */
typedef struct {
    NAME(lane_sum) forward, reverse, js, p_log_p, q_log_q, p, q, difference;
    UINT bits[LANES], same[LANES], p_guard_bits[LANES], q_guard_bits[LANES];
    REAL least[LANES], largest_p[LANES], largest_q[LANES];
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
        lanes->bits[j] = lanes->same[j] = lanes->p_guard_bits[j] = lanes->q_guard_bits[j] = 0;
        lanes->least[j] = 1;
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

/* Adds up the divergences of columns by fours, and of the rest one by one; gives log(p/q) of each pair of entries. */
FASTKL_INLINE void NAME(add_divergences)(NAME(compared_lanes) *lanes, NAME(columns) p, NAME(columns) q, ptrdiff_t count,
                                         REAL *log_ratio) {
    ptrdiff_t i = 0;
    for (; i + 4 <= count; i += 4, log_ratio += 4 * LANES) {
        for (int k = 0; k < 4; k++) {
            NAME(prefetch)(p, i + k);
            NAME(prefetch)(q, i + k);
        }
        const NAME(columns) p_now = NAME(advance)(p, i), q_now = NAME(advance)(q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(divergences) e0 =
                NAME(compare_entries)(NAME(column)(p_now, 0, 4, NULL)[j], NAME(column)(q_now, 0, 4, NULL)[j]);
            const NAME(divergences) e1 =
                NAME(compare_entries)(NAME(column)(p_now, 1, 4, NULL)[j], NAME(column)(q_now, 1, 4, NULL)[j]);
            const NAME(divergences) e2 =
                NAME(compare_entries)(NAME(column)(p_now, 2, 4, NULL)[j], NAME(column)(q_now, 2, 4, NULL)[j]);
            const NAME(divergences) e3 =
                NAME(compare_entries)(NAME(column)(p_now, 3, 4, NULL)[j], NAME(column)(q_now, 3, 4, NULL)[j]);
            NAME(accumulate)(&lanes->forward, j, (e0.forward + e1.forward) + (e2.forward + e3.forward));
            NAME(accumulate)(&lanes->reverse, j, (e0.reverse + e1.reverse) + (e2.reverse + e3.reverse));
            NAME(accumulate)(&lanes->js, j, (e0.js + e1.js) + (e2.js + e3.js));
            log_ratio[j] = e0.log_ratio, log_ratio[j + LANES] = e1.log_ratio;
            log_ratio[j + 2 * LANES] = e2.log_ratio, log_ratio[j + 3 * LANES] = e3.log_ratio;
        }
    }
    for (; i < count + (p.left > 0); i++, log_ratio += LANES) {
        const NAME(loose) *const a = NAME(column)(p, i, count, NULL), *const b = NAME(column)(q, i, count, NULL);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(divergences) e = NAME(compare_entries)(a[j], b[j]);
            NAME(accumulate)(&lanes->forward, j, e.forward);
            NAME(accumulate)(&lanes->reverse, j, e.reverse);
            NAME(accumulate)(&lanes->js, j, e.js);
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
            const NAME(entropies) e0 = NAME(compare_logarithms)(a0, b0, log_ratio[j]);
            const NAME(entropies) e1 = NAME(compare_logarithms)(a1, b1, log_ratio[j + LANES]);
            const NAME(entropies) e2 = NAME(compare_logarithms)(a2, b2, log_ratio[j + 2 * LANES]);
            const NAME(entropies) e3 = NAME(compare_logarithms)(a3, b3, log_ratio[j + 3 * LANES]);
            NAME(accumulate)(&lanes->p_log_p, j, (e0.p_log_p + e1.p_log_p) + (e2.p_log_p + e3.p_log_p));
            NAME(accumulate)(&lanes->q_log_q, j, (e0.q_log_q + e1.q_log_q) + (e2.q_log_q + e3.q_log_q));
            NAME(accumulate)(&lanes->p, j, (a0 + a1) + (a2 + a3));
            NAME(accumulate)(&lanes->q, j, (b0 + b1) + (b2 + b3));
            NAME(accumulate)(&lanes->difference, j, ((b0 - a0) + (b1 - a1)) + ((b2 - a2) + (b3 - a3)));
            lanes->bits[j] |= ((NAME(bits)(a0) | NAME(bits)(a1)) | (NAME(bits)(a2) | NAME(bits)(a3))) |
                              ((NAME(bits)(b0) | NAME(bits)(b1)) | (NAME(bits)(b2) | NAME(bits)(b3)));
            lanes->least[j] = NAME(lesser)(
                lanes->least[j], NAME(lesser)(NAME(lesser)(NAME(lesser)(a0, b0), NAME(lesser)(a1, b1)),
                                              NAME(lesser)(NAME(lesser)(a2, b2), NAME(lesser)(a3, b3))));
            NAME(find_largest_of_both)(lanes, j, one_row, a0, b0);
            NAME(find_largest_of_both)(lanes, j, one_row, a1, b1);
            NAME(find_largest_of_both)(lanes, j, one_row, a2, b2);
            NAME(find_largest_of_both)(lanes, j, one_row, a3, b3);
        }
    }
    for (; i < count + (p.left > 0); i++, log_ratio += LANES) {
        const NAME(loose) *const a = NAME(column)(p, i, count, NULL), *const b = NAME(column)(q, i, count, NULL);
        const int real = i < count ? LANES : p.left;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(entropies) e = NAME(compare_logarithms)(a[j], b[j], log_ratio[j]);
            NAME(accumulate)(&lanes->p_log_p, j, e.p_log_p);
            NAME(accumulate)(&lanes->q_log_q, j, e.q_log_q);
            NAME(accumulate)(&lanes->p, j, a[j]);
            NAME(accumulate)(&lanes->q, j, b[j]);
            NAME(accumulate)(&lanes->difference, j, b[j] - a[j]);
            lanes->bits[j] |= NAME(bits)(a[j]) | NAME(bits)(b[j]);
            lanes->least[j] = NAME(lesser)(lanes->least[j], j < real ? NAME(lesser)(a[j], b[j]) : 1);
            NAME(find_largest_of_both)(lanes, j, one_row, a[j], b[j]);
        }
    }
}

/* Adds columns, and finds the zeros of one operand where the other has none. */
FASTKL_INLINE void NAME(compare_columns)(NAME(compared_lanes) *lanes, int one_row, NAME(columns) p, NAME(columns) q,
                                         ptrdiff_t count) {
    REAL log_ratio[(COMPARED_COLUMNS + 1) * LANES];
    NAME(compared_lanes) now = *lanes;
    NAME(columns) p_now = NAME(known)(p, REAL_DTYPE, one_row), q_now = NAME(known)(q, REAL_DTYPE, one_row);
    int small = 0;
    for (ptrdiff_t i = 0; i < count || i == 0; i += COMPARED_COLUMNS) {
        const int is_last = count - i <= COMPARED_COLUMNS;
        const ptrdiff_t columns = is_last ? count - i : COMPARED_COLUMNS;
        p_now.left = is_last ? p.left : 0;
        NAME(add_divergences)(&now, p_now, q_now, columns, log_ratio);
        NAME(add_entropies)(&now, one_row, p_now, q_now, columns, log_ratio);
        p_now = NAME(advance)(p_now, columns), q_now = NAME(advance)(q_now, columns);
    }
    for (int j = 0; j < LANES; j++)
        small |= now.least[j] < SMALL;
    if (small) {
        NAME(find_small)(p, q, count, now.q_guard_bits);
        NAME(find_small)(q, p, count, now.p_guard_bits);
    }
    *lanes = now;
}

/* Gives the sums of each lane to its row, or adds them to what the row has. */
FASTKL_INLINE void NAME(give_sum)(const NAME(lane_sum) *sum, double *to, int add) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        to[j] = (add ? to[j] : 0) + ((double)sum->sum[j] + (double)sum->low[j]);
}

/* Gives the bits of each lane to its row. */
FASTKL_INLINE void NAME(give_bits)(const UINT *bits, uint64_t *to) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        to[j] = (uint64_t)bits[j] << (64 - REAL_BITS);
}

FASTKL_INLINE void NAME(give_compared)(const NAME(compared_lanes) *lanes, compared_sums *to, int row, int add) {
    NAME(give_sum)(&lanes->forward, to->forward + row, add);
    NAME(give_sum)(&lanes->reverse, to->reverse + row, add);
    NAME(give_sum)(&lanes->js, to->js + row, add);
    NAME(give_sum)(&lanes->p_log_p, to->p_log_p + row, add);
    NAME(give_sum)(&lanes->q_log_q, to->q_log_q + row, add);
    NAME(give_sum)(&lanes->p, to->p + row, add);
    NAME(give_sum)(&lanes->q, to->q + row, add);
    NAME(give_sum)(&lanes->difference, to->difference + row, add);
    NAME(give_bits)(lanes->bits, to->entry_bits + row);
    NAME(give_bits)(lanes->p_guard_bits, to->p_guard_bits + row);
    NAME(give_bits)(lanes->q_guard_bits, to->q_guard_bits + row);
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        to->largest_p[row + j] = (double)lanes->largest_p[j];
        to->largest_q[row + j] = (double)lanes->largest_q[j];
        to->same_argmax[row + j] = (double)lanes->same[j];
    }
}

/* The pass over up to MOST_ROWS rows, LANES at a time. */
FASTKL_NOINLINE void NAME(compare_group)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int rows,
                                         compared_sums *to) {
    const ptrdiff_t width = n <= TILE ? n : STRIP;
    REAL p_tile[TILE * LANES], q_tile[TILE * LANES];
    NAME(compared_lanes) lanes[MOST_ROWS / LANES];
    for (int i = 0; i < rows; i += LANES)
        NAME(clear_compared)(&lanes[i / LANES]);
    for (ptrdiff_t start = 0; start < n; start += width) {
        for (int i = 0; i < rows; i += LANES) {
            const int count = (int)(n - start < width ? n - start : width), known = rows - i < LANES ? rows - i : LANES;
            NAME(compared_lanes) *const now = &lanes[i / LANES];
            const NAME(columns) p_now =
                NAME(group_columns)(p_tile, p, p->data + i * p->row + start * p->col, count, known);
            const NAME(columns) q_now =
                NAME(group_columns)(q_tile, q, q->data + i * q->row + start * q->col, count, known);
            NAME(compare_columns)(now, 0, p_now, q_now, count);
            if (start + count < n && (start + count) % MOST_COLUMNS)
                continue;
            NAME(give_compared)(now, to, i, start >= MOST_COLUMNS);
            NAME(clear_compared_sums)(now);
        }
    }
}

/* Are the largest entries of p and of q, which are given, first found in the same place? The entries stand side by side. */
FASTKL_NOINLINE int NAME(largest_in_one_place)(const NAME(loose) *p, const NAME(loose) *q, ptrdiff_t n, REAL p_max,
                                               REAL q_max) {
    UINT found = 0;
    ptrdiff_t i = 0;
    for (; i + SEARCHED * LANES <= n && !found; i += found ? 0 : SEARCHED * LANES) {
        UINT in_lane[LANES] = {0};
        for (int k = 0; k < SEARCHED; k++) {
            FASTKL_VECTORIZE
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                const UINT in_p = p[i + k * LANES + j] == p_max ? 1 : 0, in_q = q[i + k * LANES + j] == q_max ? 1 : 0;
                in_lane[j] |= in_p | in_q;
            }
        }
        for (int j = 0; j < LANES; j++)
            found |= in_lane[j];
    }
    while (p[i] != p_max && q[i] != q_max)
        i++;
    return p[i] == p_max && q[i] == q_max;
}

/* Adds what the lanes have of one row to a sum. */
FASTKL_INLINE void NAME(fold_compared)(const NAME(lane_sum) *lanes, double *to, int add) {
    double sum, low;
    NAME(fold)(lanes, &sum, &low);
    *to = (add ? *to : 0) + (sum + low);
}

/* The pass over one row, which becomes row `i`. */
FASTKL_NOINLINE void NAME(compare_row)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int i,
                                       compared_sums *to) {
    const int p_in_place = in_a_row(p) && p->dtype == REAL_DTYPE, q_in_place = in_a_row(q) && q->dtype == REAL_DTYPE;
    const ptrdiff_t most = p_in_place && q_in_place ? FASTKL_PIECE : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES];
    NAME(compared_lanes) lanes;
    NAME(clear_compared)(&lanes);
    for (ptrdiff_t start = 0, count; start < n; start += count) {
        count = n - start < most ? n - start : most;
        const NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, p_in_place);
        const NAME(columns) q_now = NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, q_in_place);
        NAME(compare_columns)(&lanes, 1, p_now, q_now, count / LANES);
        if (start + count < n && (start + count) % FASTKL_PIECE)
            continue;
        const int add = start >= FASTKL_PIECE;
        NAME(fold_compared)(&lanes.forward, &to->forward[i], add);
        NAME(fold_compared)(&lanes.reverse, &to->reverse[i], add);
        NAME(fold_compared)(&lanes.js, &to->js[i], add);
        NAME(fold_compared)(&lanes.p_log_p, &to->p_log_p[i], add);
        NAME(fold_compared)(&lanes.q_log_q, &to->q_log_q[i], add);
        NAME(fold_compared)(&lanes.p, &to->p[i], add);
        NAME(fold_compared)(&lanes.q, &to->q[i], add);
        NAME(fold_compared)(&lanes.difference, &to->difference[i], add);
        NAME(clear_compared_sums)(&lanes);
    }
    UINT bits = 0, p_guard_bits = 0, q_guard_bits = 0;
    for (int j = 0; j < LANES; j++)
        bits |= lanes.bits[j], p_guard_bits |= lanes.p_guard_bits[j], q_guard_bits |= lanes.q_guard_bits[j];
    to->entry_bits[i] = (uint64_t)bits << (64 - REAL_BITS);
    to->p_guard_bits[i] = (uint64_t)p_guard_bits << (64 - REAL_BITS);
    to->q_guard_bits[i] = (uint64_t)q_guard_bits << (64 - REAL_BITS);
    to->largest_p[i] = (double)NAME(extreme)(lanes.largest_p, 0);
    to->largest_q[i] = (double)NAME(extreme)(lanes.largest_q, 0);
    if (p_in_place && q_in_place && isfinite(to->p[i] + to->q[i]))
        to->same_argmax[i] = NAME(largest_in_one_place)((const NAME(loose) *)p->data, (const NAME(loose) *)q->data, n,
                                                        lanes.largest_p[0], lanes.largest_q[0]);
    else
        to->same_argmax[i] = NAN;
}
