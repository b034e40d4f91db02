/* Owns what is done differently with rows of integers, whose sums hardly ever agree: rows are multiplied by each other's
   sum before the first pass, which is exact while the product of the sums is, so that no rescaled pass is needed. In REAL,
   which is double in every use. Knows nothing of what happens to rows that it refuses. */

/* Integers up to this are exact in a double. */
#define MOST_EXACT 0x1p53

/* The factors of a pair of rows, or of one, from their sums. An entropy needs a sum near 1, and rounding may show in it. A
   divergence needs equal sums. */
FASTKL_INLINE void NAME(whole_factors)(int measure, REAL p_sum, REAL q_sum, REAL *p_factor, REAL *q_factor) {
    const int divergence = fastkl_is_divergence(measure), pair = measure != FASTKL_entropy;
    *p_factor = divergence ? q_sum : pair ? 1 : 1 / p_sum;
    *q_factor = divergence ? p_sum : 1 / q_sum;
}

/* Does the first pass not give the value of rows with these sums? */
FASTKL_INLINE int NAME(refuses)(int measure, const fastkl_task *task, REAL p_sum, REAL q_sum) {
    const int exact = !fastkl_is_divergence(measure) | ((double)(p_sum * q_sum) <= MOST_EXACT);
    return !(exact & (p_sum > 0) & (q_sum > 0) & (fabs((double)p_sum - 1) <= task->p_tolerance) &
             (fabs((double)q_sum - 1) <= task->q_tolerance));
}

/* The sums of the columns of a tile. */
FASTKL_INLINE void NAME(sum_tile)(const REAL *tile, int n, REAL *sum) {
    REAL sums[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        sums[j] = 0;
    for (int i = 0; i < n; i++, tile += LANES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            sums[j] += tile[j];
    }
    memcpy(sum, sums, sizeof sums);
}

/* Multiplies the columns of a tile. */
FASTKL_INLINE void NAME(multiply_tile)(REAL *tile, int n, const REAL *factor) {
    REAL by[LANES];
    memcpy(by, factor, sizeof by);
    for (int i = 0; i < n; i++, tile += LANES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            tile[j] *= by[j];
    }
}

/* Multiplies the rows of tiles so that the first pass over them is accepted, and says which rows are refused. Compiled for
   one measure of each kind that has its own factors, and for whether there is a q. */
FASTKL_INLINE void NAME(scale_tiles_for)(int measure, int pair, const fastkl_task *task, REAL *p, REAL *q, int n, int rows,
                                         uint64_t *refused) {
    const fastkl_task constant = *task;
    for (int i = 0; i < rows; i += LANES, p += n * LANES, q += n * LANES, refused += LANES) {
        REAL p_sum[LANES], q_sum[LANES], p_factor[LANES], q_factor[LANES];
        NAME(sum_tile)(p, n, p_sum);
        if (pair)
            NAME(sum_tile)(q, n, q_sum);
        else
            memcpy(q_sum, p_sum, sizeof q_sum);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            NAME(whole_factors)(measure, p_sum[j], q_sum[j], &p_factor[j], &q_factor[j]);
            refused[j] = (uint64_t)NAME(refuses)(measure, &constant, p_sum[j], q_sum[j]);
        }
        if (measure != FASTKL_cross_entropy)
            NAME(multiply_tile)(p, n, p_factor);
        if (pair)
            NAME(multiply_tile)(q, n, q_factor);
    }
}

FASTKL_NOINLINE void NAME(scale_tiles)(const fastkl_task *task, REAL *p, REAL *q, int n, int rows, uint64_t *refused) {
    if (task->measure == FASTKL_entropy)
        NAME(scale_tiles_for)(FASTKL_entropy, 0, task, p, p, n, rows, refused);
    else if (task->measure == FASTKL_cross_entropy)
        NAME(scale_tiles_for)(FASTKL_cross_entropy, 1, task, p, q, n, rows, refused);
    else
        NAME(scale_tiles_for)(FASTKL_kl_divergence, 1, task, p, q, n, rows, refused);
}

#if REAL_BITS == 64
/* The sums of a row that is longer than a tile, and of the other row of its pair, each multiplied; are they refused? */
FASTKL_NOINLINE uint64_t NAME(whole_row_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                              ptrdiff_t n, fastkl_sums *sums) {
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], p_factor, q_factor;
    const NAME(factor) one = NAME(no_factor)(task);
    UINT bits;
    const REAL p_sum = (REAL)NAME(sum_row)(p, p->data, n, &bits), q_sum = (REAL)NAME(sum_row)(q, q->data, n, &bits);
    NAME(lanes) lanes;
    NAME(clear)(&lanes);
    NAME(whole_factors)(task->measure, p_sum, q_sum, &p_factor, &q_factor);
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        const ptrdiff_t count = columns_of_piece(n, start, CHUNK);
        NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, 0);
        NAME(columns) q_now = NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, 0);
        /* The row has come to the cache for its sum; the next rows are prefetched. */
        p_now.ahead += p->row - count * p->col, q_now.ahead += q->row - count * q->col;
        for (int i = 0; i < count; i++)
            p_chunk[i] *= p_factor, q_chunk[i] *= q_factor;
        NAME(adders)[fastkl_terms_of(task)][0](&lanes, &p_now, &q_now, count / LANES, &one);
    }
    NAME(collect)(&lanes, sums);
    sums->clipped = sums->p_clipped = 0;
    return (uint64_t)NAME(refuses)(task->measure, task, p_sum, q_sum);
}
#endif
