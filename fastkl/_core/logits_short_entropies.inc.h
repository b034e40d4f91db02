/* Owns the passes over short rows of logits for entropies, cross-entropies and losses, LANES rows at a time. In REAL.
   Knows nothing of what the sums mean. */

/* log(2^exponent / e^(reference c)), of nearly equal numbers, as log_beyond_reference. Without FMA, the product of the
   exponent and LN2_HEAD is exact, and so is its difference from the other. */
FASTKL_INLINE REAL NAME(log_beyond)(REAL exponent, REAL reference, NAME(factor) c) {
    const REAL product = NAME(scale)(reference, c), low = c.scaled ? NAME(scale_low)(reference, c, product) : 0;
    if (FASTKL_FMA)
        return FMA(exponent, LN2_HIGH, -product) + (exponent * LN2_LOW - low);
    return (exponent * LN2_HEAD - product) + (exponent * LN2_REST - low);
}

/* The sums that entropy_sums has, of LANES rows, to the rows from `row` on. There is no p but for a cross-entropy. */
FASTKL_INLINE void NAME(lanes_entropies)(NAME(short_columns) p, NAME(short_columns) q, int n, NAME(factor) c, int kind,
                                         short_entropies *to, int row) {
    const REAL ln2 = (REAL)(FASTKL_LN2 / (double)c.high);
    const int has_p = kind == SUM_CROSS_ENTROPY;
    NAME(short_reference) p_reference, q_reference;
    NAME(short_sum) p_weight, q_weight, product;
    REAL max[LANES], q_max[LANES], q_min[LANES], far[LANES], reference[LANES];
    INT found[LANES], any_far = 0;
    if (has_p) {
        NAME(short_largest)(p, n, max);
        NAME(short_extremes)(q, n, q_max, q_min);
        NAME(set_short_reference)(max, c, &p_reference);
    } else {
        NAME(short_largest)(q, n, q_max);
    }
    NAME(set_short_reference)(q_max, c, &q_reference);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        reference[j] = q_reference.exponent[j] * ln2;
    NAME(clear_short)(&q_weight);
    NAME(clear_short)(&p_weight);
    NAME(clear_short)(&product);
    for (int i = 0; i < n; i++) {
        const NAME(loose) *const x = NAME(short_column)(p, i), *const y = NAME(short_column)(q, i);
        REAL *const p_part = p_weight.part[i % SHORT_PARTS], *const q_part = q_weight.part[i % SHORT_PARTS];
        REAL *const part = product.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL q_low = q_reference.low[j], beyond = y[j] - reference[j];
            const REAL of_q = NAME(exp)(NAME(greater)(q_low, y[j]), c, q_reference.unit[j]);
            q_part[j] += of_q;
            if (kind == SUM_ENTROPY)
                part[j] = NAME(mul_add)(of_q, y[j] > q_low ? beyond : 0, part[j]);
            if (has_p) {
                const REAL p_low = p_reference.low[j];
                const REAL of_p = NAME(exp)(NAME(greater)(p_low, x[j]), c, p_reference.unit[j]);
                p_part[j] += of_p;
                part[j] = NAME(mul_add)(of_p, x[j] > p_low ? beyond : 0, part[j]);
            }
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const REAL q_largest = q_max[j] * c.high, largest = has_p ? max[j] * c.high : 0;
        const INT valid = (SIZE(q_largest) <= MAX_LOG_WEIGHT) & (SIZE(largest) <= MAX_LOG_WEIGHT);
        found[j] = valid ? 0 : SHORT_INVALID;
        far[j] = q_reference.exponent[j] * (REAL)FASTKL_LN2 - NEGLIGIBLE_LOG_RATIO;
        any_far |= has_p ? valid & (q_min[j] * c.high < far[j]) : 0;
    }
    if (has_p && any_far)
        NAME(find_short_masks)(p, q, n, c.high, far, &p_reference, found);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        to->exponent[row + j] = (double)q_reference.exponent[j];
        to->reference[row + j] = (double)reference[j];
        to->q_weight[row + j] = (double)NAME(short_total)(&q_weight, j);
        to->product[row + j] = (double)NAME(short_total)(&product, j);
        to->p_weight[row + j] = (double)(has_p ? NAME(short_total)(&p_weight, j) : NAME(short_total)(&q_weight, j));
        to->found[row + j] = found[j];
    }
}

FASTKL_INLINE void NAME(rows_entropies)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows, NAME(factor) c,
                                        int kind, const int64_t *labels, short_entropies *to) {
    REAL p_tile[SHORT_LOGITS * LANES], q_tile[SHORT_WEIGHTS * LANES];
    for (int i = 0; i < rows; i += LANES) {
        const int known = rows - i < LANES ? rows - i : LANES;
        const NAME(short_columns) y = NAME(load_short)(q_tile, q, i, n, known);
        const NAME(short_columns) x = kind == SUM_CROSS_ENTROPY ? NAME(load_short)(p_tile, p, i, n, known) : y;
        NAME(lanes_entropies)(x, y, n, c, kind, to, i);
        for (int j = 0; kind == SUM_WEIGHT && j < known; j++)
            to->product[i + j] = (double)NAME(short_column)(y, (int)labels[i + j])[j];
    }
}

/* The sums of up to LOGIT_ROWS rows that `kind` names. With SUM_WEIGHT, the products are the logits of the labels. */
FASTKL_NOINLINE void NAME(short_entropies_pass)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows,
                                                fastkl_parts c, int kind, const int64_t *labels, short_entropies *to) {
    const int scaled = c.high != 1;
    switch (kind * 2 + scaled) {
#define ROW(sum)                                                                                        \
    case sum * 2:                                                                                       \
        NAME(rows_entropies)(p, q, n, rows, NAME(scaling_of)(c, 0), sum, labels, to);                   \
        break;                                                                                          \
    case sum * 2 + 1:                                                                                   \
        NAME(rows_entropies)(p, q, n, rows, NAME(scaling_of)(c, 1), sum, labels, to);                   \
        break;
        ROW(SUM_WEIGHT)
        ROW(SUM_ENTROPY)
        ROW(SUM_CROSS_ENTROPY)
#undef ROW
    }
}
