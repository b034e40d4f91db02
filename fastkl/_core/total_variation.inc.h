/* Owns the second pass of the total variation, over rows that are in cache. In REAL. Knows nothing of first passes.

   The sums of p and q differ at least by rounding, and |p/P - q/Q| is of first order in that. So each difference p - q
   gets (p + q) (Q - P) / (P + Q), which makes it 2PQ / (P + Q) (p/P - q/Q). The first pass has summed Q - P as
   differences q - p: its error is some units in the last place of the sum of |q - p|, and so of the total variation, if
   the correction does not take most of that. */

FASTKL_INLINE REAL NAME(corrected)(REAL p, REAL q, REAL shift) { return SIZE(NAME(mul_add)(shift, p + q, p - q)); }

/* Adds |p - q + shift (p + q)| over columns to the sum in each lane; each lane has a shift. */
FASTKL_INLINE void NAME(add_corrected)(NAME(columns) p, NAME(columns) q, ptrdiff_t count, int prefetches,
                                       const REAL *shift, NAME(lane_sum) *sum) {
    NAME(lane_sum) now = *sum;
    ptrdiff_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const NAME(columns) p_now = NAME(advance)(p, i), q_now = NAME(advance)(q, i);
        for (int k = 0; prefetches && k < 4; k++) {
            NAME(prefetch)(p_now, k);
            NAME(prefetch)(q_now, k);
        }
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL a0 = NAME(column)(p_now, 0, 4, NULL)[j], b0 = NAME(column)(q_now, 0, 4, NULL)[j];
            const REAL a1 = NAME(column)(p_now, 1, 4, NULL)[j], b1 = NAME(column)(q_now, 1, 4, NULL)[j];
            const REAL a2 = NAME(column)(p_now, 2, 4, NULL)[j], b2 = NAME(column)(q_now, 2, 4, NULL)[j];
            const REAL a3 = NAME(column)(p_now, 3, 4, NULL)[j], b3 = NAME(column)(q_now, 3, 4, NULL)[j];
            NAME(accumulate)(&now, j, (NAME(corrected)(a0, b0, shift[j]) + NAME(corrected)(a1, b1, shift[j])) +
                                          (NAME(corrected)(a2, b2, shift[j]) + NAME(corrected)(a3, b3, shift[j])));
        }
    }
    for (; i < count + (p.left > 0); i++) {
        const NAME(loose) *const a = NAME(column)(p, i, count, NULL), *const b = NAME(column)(q, i, count, NULL);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            NAME(accumulate)(&now, j, NAME(corrected)(a[j], b[j], shift[j]));
    }
    *sum = now;
}

/* The shifts of LANES rows of a group, or of one row. */
FASTKL_INLINE void NAME(shifts_of)(const group_sums *of, int first, int one_row, REAL *shift) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const int i = one_row ? first : first + j;
        shift[j] = (REAL)(of->other[i] / of->weight[i]);
    }
}

/* Gives the corrected sums of columns of LANES rows to these, or adds them to what these have. */
FASTKL_INLINE void NAME(correct_lanes)(NAME(columns) p, NAME(columns) q, ptrdiff_t count, const REAL *shift, double *to,
                                       int add) {
    NAME(lane_sum) sum;
    memset(&sum, 0, sizeof sum);
    NAME(add_corrected)(NAME(known)(p, REAL_DTYPE, 0), NAME(known)(q, REAL_DTYPE, 0), count, 0, shift, &sum);
    NAME(give_sum)(&sum, to, add);
}

/* The pass over a row, which is row i of a group. Meanwhile the row that is DOUBLES rows further on is prefetched. */
FASTKL_NOINLINE void NAME(correct_row)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int i,
                                       group_sums *to) {
    const int p_in_place = p->dtype == REAL_DTYPE && in_a_row(p), q_in_place = q->dtype == REAL_DTYPE && in_a_row(q);
    const ptrdiff_t most = p_in_place && q_in_place ? FASTKL_PIECE : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], shift[LANES];
    NAME(lane_sum) sum;
    double total = 0, total_low = 0, next, low;
    NAME(shifts_of)(to, i, 1, shift);
    memset(&sum, 0, sizeof sum);
    for (ptrdiff_t start = 0; start < n; start += most) {
        const ptrdiff_t count = columns_of_piece(n, start, most);
        NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, p_in_place);
        NAME(columns) q_now = NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, q_in_place);
        p_now.ahead = p->data + start * p->col + DOUBLES * p->row;
        q_now.ahead = q->data + start * q->col + DOUBLES * q->row;
        p_now.far = q_now.far = 1;
        NAME(add_corrected)(NAME(known)(p_now, REAL_DTYPE, 1), NAME(known)(q_now, REAL_DTYPE, 1), count / LANES, 1,
                            shift, &sum);
        if (start + count < n && (start + count) % FASTKL_PIECE)
            continue;
        NAME(fold)(&sum, &next, &low);
        two_sum(&total, &total_low, next);
        total_low += low;
        memset(&sum, 0, sizeof sum);
    }
    to->term[i] = total + total_low;
}
