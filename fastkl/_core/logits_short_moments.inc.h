/* Owns the passes over short rows of logits for D, LANES rows at a time. In REAL. Knows nothing of what the sums mean. */

/* The state of LANES rows between the steps of a pass: where their logits stand; room for p's weights, for d = q - p and
   for what rounding took from d; the largest logits and q's least; the sums; and what has been found. */
typedef struct {
    NAME(short_columns) p, q;
    REAL *w, *d, *low;
    REAL max[LANES], q_max[LANES], q_min[LANES];
    NAME(short_reference) p_reference, q_reference;
    REAL min_difference[LANES], shift[LANES], shift_low[LANES], max_x[LANES];
    REAL weight[LANES], first[LANES], psi[LANES];
    INT found[LANES];
} NAME(short_state);

FASTKL_INLINE NAME(term_constants) NAME(constants_of)(const NAME(short_state) *of, int j, NAME(factor) c) {
    return (NAME(term_constants)){.p_low = of->p_reference.low[j], .p_unit = of->p_reference.unit[j],
                                  .shift = of->shift[j], .shift_low = of->shift_low[j],
                                  .min_difference = of->min_difference[j], .c = c};
}

/* q, or where q is masked, p and the difference of the largest logits, because all sums must be finite. The rows where p
   is not masked there are found by themselves. */
FASTKL_INLINE REAL NAME(unmasked)(REAL p, REAL q, REAL difference) {
    const REAL like_p = p + difference;
    return q == -(REAL)INFINITY ? like_p : q;
}

/* The psi terms in the exact form, for lanes that need it; the second time, about the mean that the first time found. */
FASTKL_NOINLINE void NAME(exact_short_psi)(NAME(short_state) *of, int n, NAME(factor) c, const INT *needs) {
    for (int pass = 0; pass < 2; pass++) {
        NAME(short_sum) psi, mean;
        REAL max[LANES];
        int again = 0;
        NAME(clear_short)(&psi);
        NAME(clear_short)(&mean);
        for (int j = 0; j < LANES; j++)
            max[j] = -(REAL)INFINITY;
        for (int i = 0; i < n; i++) {
            const NAME(loose) *const p = NAME(short_column)(of->p, i), *const q = NAME(short_column)(of->q, i);
            const REAL *const w = of->w + i * LANES;
            REAL *const psi_part = psi.part[i % SHORT_PARTS], *const mean_part = mean.part[i % SHORT_PARTS];
            FASTKL_VECTORIZE_INNER
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                const NAME(term_constants) constants = NAME(constants_of)(of, j, c);
                NAME(entry_logits) entry = {p[j], NAME(unmasked)(p[j], q[j], of->min_difference[j]), w[j]};
                const NAME(logit_terms) terms = NAME(exact_psi_term)(&entry, &constants);
                psi_part[j] += terms.first;
                mean_part[j] += terms.second;
                max[j] = NAME(greater)(max[j], terms.max);
            }
        }
        for (int j = 0; j < LANES; j++) {
            const double rest = (double)NAME(short_total)(&mean, j), size = fabs(rest);
            if (!needs[j])
                continue;
            of->psi[j] = NAME(short_total)(&psi, j), of->first[j] = (REAL)rest, of->max_x[j] = max[j];
            if (!(size > MAX_MEAN * (double)of->psi[j] && size < INFINITY))
                continue;
            if (pass == 1) {
                of->found[j] |= SHORT_INVALID;
            } else {
                double sum = (double)of->shift[j], low = (double)of->shift_low[j];
                two_sum(&sum, &low, rest / (double)of->weight[j]);
                of->shift[j] = (REAL)(sum + low);
                of->shift_low[j] = (REAL)((sum - (double)of->shift[j]) + low);
                again = 1;
            }
        }
        if (!again)
            break;
    }
}

/* The first steps: the references, the weights, their sum and the mean of log(q/p). */
FASTKL_INLINE void NAME(short_weights)(NAME(short_state) *of, int n, NAME(factor) c) {
    NAME(short_sum) weight, first; /* the sums of w and of w d */
    NAME(short_largest)(of->p, n, of->max);
    NAME(short_extremes)(of->q, n, of->q_max, of->q_min);
    NAME(set_short_reference)(of->max, c, &of->p_reference);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        of->min_difference[j] = of->q_max[j] - of->max[j];
        of->shift_low[j] = 0;
    }
    NAME(clear_short)(&weight);
    NAME(clear_short)(&first);
    for (int i = 0; i < n; i++) {
        const NAME(loose) *const p = NAME(short_column)(of->p, i), *const q = NAME(short_column)(of->q, i);
        REAL *const w = of->w + i * LANES, *const d = of->d + i * LANES, *const low = of->low + i * LANES;
        REAL *const weight_part = weight.part[i % SHORT_PARTS], *const first_part = first.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            /* Each operand is loaded once, and not where a condition holds: without masks for that, no vectors. */
            const REAL x = p[j], min_p = of->p_reference.low[j], least = of->min_difference[j];
            const REAL clipped = NAME(greater)(min_p, x);
            const REAL unmasked = NAME(unmasked)(x, q[j], least), plain = unmasked - clipped;
            const REAL at_least = NAME(greater)(least, plain);
            const REAL weight_of_p = NAME(exp)(clipped, c, of->p_reference.unit[j]);
            const REAL difference = x > min_p ? plain : at_least;
            const REAL lost = NAME(difference_low)(unmasked, clipped, difference);
            w[j] = weight_of_p, d[j] = difference;
            low[j] = difference == plain ? lost : 0;
            weight_part[j] += weight_of_p;
            first_part[j] = NAME(mul_add)(weight_of_p, difference, first_part[j]);
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        of->weight[j] = NAME(short_total)(&weight, j);
        of->shift[j] = NAME(scale)(NAME(short_total)(&first, j) / of->weight[j], c);
    }
}

/* The next step: the terms in their simple form, psi(x) and x = log(q/p) - shift. The errors of x are of its own size,
   unless products with c cannot be had exactly. */
FASTKL_INLINE void NAME(short_psi)(NAME(short_state) *of, int n, NAME(factor) c) {
    NAME(short_sum) psi, mean;
    NAME(clear_short)(&psi);
    NAME(clear_short)(&mean);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        of->max_x[j] = -(REAL)INFINITY;
    for (int i = 0; i < n; i++) {
        const REAL *const w = of->w + i * LANES, *const d = of->d + i * LANES, *const low = of->low + i * LANES;
        REAL *const psi_part = psi.part[i % SHORT_PARTS], *const mean_part = mean.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            REAL exp;
            const REAL product = NAME(scale)(d[j], c), rounded = product - of->shift[j];
            const REAL x = !c.scaled    ? rounded + low[j]
                           : FASTKL_FMA ? rounded + NAME(mul_add)(low[j], c.high, NAME(scale_low)(d[j], c, product))
                                        : rounded;
            psi_part[j] = NAME(mul_add)(w[j], NAME(psi_and_exp)(x, NAME(greater)(-APART, x), 0, &exp), psi_part[j]);
            mean_part[j] = NAME(mul_add)(w[j], x, mean_part[j]);
            of->max_x[j] = NAME(greater)(of->max_x[j], x);
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        of->psi[j] = NAME(short_total)(&psi, j), of->first[j] = NAME(short_total)(&mean, j);
}

/* Limits of the simple form.
   SHORT_MEAN     the square of the shift, by the divergence. Beyond, what the low part of a product with c lacks, 2^-48
                  (2^-106) of it, could show in x; or, without a low part, its rounding
   SHORT_REST     the mean of x, by the divergence from which it is subtracted in double: for doubles as MAX_MEAN, and sums
                  in float leave digits enough
   SHORT_COARSE   the largest logit of q: chunk_moments says why */
#define SHORT_MEAN(c) (FASTKL_FMA || !(c).scaled ? PICK(0x1p80, 0x1p40f) : 128)
#define SHORT_REST PICK(MAX_MEAN, 0x1p20f)
#define SHORT_COARSE PICK(0x1p58, 0x1p25f)

/* The last step: finds masks and computes exact terms in lanes that need it, and gives the sums to the rows from `row`
   on. */
FASTKL_INLINE void NAME(short_finish)(NAME(short_state) *of, int n, NAME(factor) c, short_moments *to, int row) {
    const REAL most_mean = SHORT_MEAN(c);
    REAL far[LANES];
    INT needs[LANES], any_far = 0, any_exact = 0;
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const REAL psi = of->psi[j], mean = of->shift[j], largest = of->max[j] * c.high, q_largest = of->q_max[j] * c.high;
        const INT is_valid = (SIZE(largest) <= MAX_LOG_WEIGHT) & (SIZE(q_largest) <= SHORT_COARSE);
        /* The divergence is at least psi / (weight + psi). */
        const INT is_simple = (of->max_x[j] <= MAX_ROUNDED_LOG_RATIO) & (SIZE(of->first[j]) <= SHORT_REST * psi) &
                              (mean * mean * (of->weight[j] + psi) <= most_mean * psi);
        far[j] = of->p_reference.exponent[j] * (REAL)FASTKL_LN2 +
                 (mean - (LOST * (REAL)FASTKL_LN2 + NEGLIGIBLE_LOG_RATIO));
        of->found[j] = is_valid ? 0 : SHORT_INVALID;
        needs[j] = is_valid & !is_simple;
        any_exact |= needs[j];
        any_far |= is_valid & (of->q_min[j] * c.high < far[j]);
    }
    if (any_far)
        NAME(find_short_masks)(of->p, of->q, n, c.high, far, &of->p_reference, of->found);
    if (any_exact)
        NAME(exact_short_psi)(of, n, c, needs);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        to->weight[row + j] = (double)of->weight[j];
        to->psi[row + j] = (double)of->psi[j];
        to->shift[row + j] = (double)of->shift[j];
        to->max_x[row + j] = (double)of->max_x[j];
        to->first[row + j] = (double)of->first[j];
        to->found[row + j] = of->found[j];
    }
}

/* Each step is made for some groups of LANES rows before the next step, because the operations of one group wait for each
   other: for as many as the tiles have room for. */
FASTKL_INLINE void NAME(rows_moments)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows, NAME(factor) c,
                                      short_moments *to) {
    REAL p_tile[SHORT_LOGITS * LANES], q_tile[SHORT_LOGITS * LANES];
    REAL w[SHORT_LOGITS * LANES], d[SHORT_LOGITS * LANES], low[SHORT_LOGITS * LANES];
    NAME(short_state) state[SHORT_GROUPS];
    const int fit = SHORT_LOGITS / n, groups = fit < SHORT_GROUPS ? fit : SHORT_GROUPS;
    for (int i = 0; i < rows; i += groups * LANES) {
        const int left = (rows - i + LANES - 1) / LANES, now = left < groups ? left : groups;
        for (int k = 0; k < now; k++) {
            const int first = i + k * LANES, known = rows - first < LANES ? rows - first : LANES, at = k * n * LANES;
            state[k].p = NAME(load_short)(p_tile + at, p, first, n, known);
            state[k].q = NAME(load_short)(q_tile + at, q, first, n, known);
            state[k].w = w + at, state[k].d = d + at, state[k].low = low + at;
        }
        for (int k = 0; k < now; k++)
            NAME(short_weights)(&state[k], n, c);
        for (int k = 0; k < now; k++)
            NAME(short_psi)(&state[k], n, c);
        for (int k = 0; k < now; k++)
            NAME(short_finish)(&state[k], n, c, to, i + k * LANES);
    }
}

/* The moments of up to LOGIT_ROWS rows. */
FASTKL_NOINLINE void NAME(short_moments_pass)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows,
                                              fastkl_parts c, short_moments *to) {
    if (c.high == 1)
        NAME(rows_moments)(p, q, n, rows, NAME(scaling_of)(c, 0), to);
    else
        NAME(rows_moments)(p, q, n, rows, NAME(scaling_of)(c, 1), to);
}
