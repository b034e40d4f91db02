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
FASTKL_INLINE int NAME(refuses)(const fastkl_task *task, REAL p_sum, REAL q_sum) {
    const int exact = !fastkl_is_divergence(task->measure) | ((double)(p_sum * q_sum) <= MOST_EXACT);
    return !(exact & (p_sum > 0) & (q_sum > 0) & (fabs((double)p_sum - 1) <= task->p_tolerance) &
             (fabs((double)q_sum - 1) <= task->q_tolerance));
}

/* The sums of the columns of a tile. */
FASTKL_INLINE void NAME(sum_tile)(const REAL *tile, int n, REAL *sum) {
    REAL sums[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        sums[j] = 0;
    for (int i = 0; i < n; i++) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            sums[j] += tile[i * LANES + j];
    }
    memcpy(sum, sums, sizeof sums);
}

/* Multiplies the columns of a tile. */
FASTKL_INLINE void NAME(multiply_tile)(REAL *tile, int n, const REAL *factor) {
    REAL by[LANES];
    memcpy(by, factor, sizeof by);
    for (int i = 0; i < n; i++) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            tile[i * LANES + j] *= by[j];
    }
}

/* Multiplies the rows of two tiles, of which q is NULL where there is no q, so that the first pass over them is accepted,
   and says which rows are refused. */
FASTKL_NOINLINE void NAME(scale_tile)(const fastkl_task *task, REAL *p, REAL *q, int n, uint64_t *refused) {
    const fastkl_task constant = *task;
    REAL p_sum[LANES], q_sum[LANES], p_factor[LANES], q_factor[LANES];
    NAME(sum_tile)(p, n, p_sum);
    if (q)
        NAME(sum_tile)(q, n, q_sum);
    else
        memcpy(q_sum, p_sum, sizeof q_sum);
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        NAME(whole_factors)(constant.measure, p_sum[j], q_sum[j], &p_factor[j], &q_factor[j]);
        refused[j] = (uint64_t)NAME(refuses)(&constant, p_sum[j], q_sum[j]);
    }
    if (constant.measure != FASTKL_cross_entropy)
        NAME(multiply_tile)(p, n, p_factor);
    if (q)
        NAME(multiply_tile)(q, n, q_factor);
}

#if REAL_BITS == 64
/* The sums of a row that is longer than a tile, and of the other row of its pair, each multiplied; are they refused? */
FASTKL_NOINLINE uint64_t NAME(whole_row_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                              ptrdiff_t n, fastkl_sums *sums) {
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], p_factor, q_factor;
    UINT bits;
    const REAL p_sum = (REAL)NAME(sum_row)(p, p->data, n, &bits), q_sum = (REAL)NAME(sum_row)(q, q->data, n, &bits);
    NAME(lanes) lanes;
    NAME(clear)(&lanes);
    NAME(whole_factors)(task->measure, p_sum, q_sum, &p_factor, &q_factor);
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        const ptrdiff_t count = columns_of_piece(n, start, CHUNK);
        const NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, 0);
        const NAME(columns) q_now = NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, 0);
        for (int i = 0; i < count; i++)
            p_chunk[i] *= p_factor, q_chunk[i] *= q_factor;
        NAME(adders)[task->measure][0](&lanes, &p_now, &q_now, count / LANES, NULL);
    }
    NAME(collect)(&lanes, sums);
    sums->clipped = 0;
    return (uint64_t)NAME(refuses)(task, p_sum, q_sum);
}
#endif
