/* Owns the passes over short rows of logits for JS and for a comparison, LANES rows at a time. In REAL. Knows nothing of
   what the sums mean.

   Both rows have weights, so that nothing changes but signs if they are exchanged. An entry's terms are the larger of
   the two weights times functions of -|x|, x = log(q/p) less the logarithm of the ratio of the rows' sums. */

/* The state of LANES rows: where their logits stand; room for the rows' weights, for d = q - p and for what rounding took
   from d, and for differences of weights; the largest logits and the least; the sums of weights; the logarithm of their
   ratio in two parts; what a ratio pass has summed up; what has been found. */
typedef struct {
    NAME(short_columns) p, q;
    REAL *w, *v, *d, *low, *apart;
    REAL p_max[LANES], q_max[LANES];
    NAME(short_reference) p_reference, q_reference;
    REAL p_weight[LANES], q_weight[LANES], shift[LANES], shift_low[LANES];
    REAL js[LANES], reverse[LANES], variation[LANES];
    INT valid[LANES];
} NAME(short_pair);

/* The weights of both rows, their sums, and the logarithm of the ratio of these. If `has_p`, p's weights are there, the
   reference and the sum of these and the largest logits. */
FASTKL_INLINE void NAME(pair_weights)(NAME(short_pair) *of, int n, NAME(factor) c, int has_p) {
    NAME(short_sum) p_weight, q_weight;
    if (!has_p) {
        NAME(short_largest)(of->p, n, of->p_max);
        NAME(short_largest)(of->q, n, of->q_max);
        NAME(set_short_reference)(of->p_max, c, &of->p_reference);
    }
    NAME(set_short_reference)(of->q_max, c, &of->q_reference);
    NAME(clear_short)(&p_weight);
    NAME(clear_short)(&q_weight);
    for (int i = 0; i < n; i++) {
        const NAME(loose) *const p = NAME(short_column)(of->p, i), *const q = NAME(short_column)(of->q, i);
        REAL *const w = of->w + i * LANES, *const v = of->v + i * LANES;
        REAL *const d = of->d + i * LANES, *const low = of->low + i * LANES;
        REAL *const p_part = p_weight.part[i % SHORT_PARTS], *const q_part = q_weight.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL p_clipped = NAME(greater)(of->p_reference.low[j], p[j]);
            const REAL q_clipped = NAME(greater)(of->q_reference.low[j], q[j]), difference = q_clipped - p_clipped;
            const REAL of_q = NAME(exp)(q_clipped, c, of->q_reference.unit[j]);
            v[j] = of_q, d[j] = difference;
            low[j] = NAME(difference_low)(q_clipped, p_clipped, difference);
            q_part[j] += of_q;
            if (!has_p) {
                w[j] = NAME(exp)(p_clipped, c, of->p_reference.unit[j]);
                p_part[j] += w[j];
            }
        }
    }
    /* The product of the exponent and LN2_HEAD is exact. All is the same but for its sign if p and q are exchanged. */
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const REAL p_sum = has_p ? of->p_weight[j] : NAME(short_total)(&p_weight, j);
        const REAL q_sum = NAME(short_total)(&q_weight, j);
        const REAL exponent = of->q_reference.exponent[j] - of->p_reference.exponent[j], head = exponent * LN2_HEAD;
        const REAL rest = (NAME(log)(q_sum) - NAME(log)(p_sum)) + exponent * LN2_REST, shift = head + rest;
        const REAL p_largest = of->p_max[j] * c.high, q_largest = of->q_max[j] * c.high;
        of->p_weight[j] = p_sum, of->q_weight[j] = q_sum;
        of->shift[j] = shift;
        of->shift_low[j] = NAME(difference_low)(head, -rest, shift);
        of->valid[j] = (SIZE(p_largest) <= MAX_LOG_WEIGHT) & (SIZE(q_largest) <= MAX_LOG_WEIGHT) & (shift < (REAL)INFINITY);
    }
}

/* (1 + e^x) g(tanh(x/2)) of x <= 0, as js_divergence_of_ratio, whose form for larger |x| becomes 2 (1 + e^x) log(2/(1 +
   e^x)) + 2 x e^x: both logarithms are near enough to 1 to need no reduction. */
FASTKL_INLINE REAL NAME(js_of_negative)(NAME(ratio) r) {
    const int close = r.x * r.x < 1;
    const REAL sum = 1 + r.exp, u = r.exp_less_1 / sum, f = close ? -u * u : r.exp;
    const REAL s = f / (f + 2), z = s * s, log = f - s * (f - z * NAME(T)(z));
    const REAL near = sum * NAME(mul_add)(u, r.x, log), far = NAME(mul_add)(sum, (REAL)FASTKL_LN2 - log, r.exp * r.x);
    return close ? near : 2 * far;
}

/* The means of the terms: JS times four, and, if `compares`, the reverse divergence q (e^-x - 1 + x). Where the mean of
   q/p - 1 is not 0, the shift is corrected, and the lanes that need it get new sums. */
FASTKL_INLINE void NAME(pair_ratios)(NAME(short_pair) *of, int n, NAME(factor) c, int compares) {
    const REAL epsilon = PICK(0x1p-52, 0x1p-23f);
    INT needs[LANES], again = 1;
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        needs[j] = of->valid[j];
    for (int pass = 0; pass < MAX_RATIO_PASSES && again; pass++) {
        NAME(short_sum) js, rest, reverse;
        REAL by_p[LANES], by_q[LANES];
        NAME(clear_short)(&js);
        NAME(clear_short)(&rest);
        if (compares)
            NAME(clear_short)(&reverse);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            by_p[j] = 1 / of->p_weight[j], by_q[j] = 1 / of->q_weight[j];
        for (int i = 0; i < n; i++) {
            const REAL *const w = of->w + i * LANES, *const v = of->v + i * LANES;
            const REAL *const d = of->d + i * LANES, *const low = of->low + i * LANES;
            REAL *const js_part = js.part[i % SHORT_PARTS], *const rest_part = rest.part[i % SHORT_PARTS];
            REAL *const reverse_part = reverse.part[i % SHORT_PARTS];
            FASTKL_VECTORIZE_INNER
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                const REAL product = NAME(scale)(d[j], c), rounded = product - of->shift[j];
                const REAL d_low = c.scaled ? NAME(mul_add)(low[j], c.high, NAME(scale_low)(d[j], c, product)) : low[j];
                const REAL x = rounded + (d_low - of->shift_low[j]), above = x > 0 ? -x : x;
                NAME(ratio) r = {.x = NAME(greater)(-APART, above)};
                /* The square of the exponential of half of APART is normal, and nothing beside 1. */
                r.psi = NAME(psi_and_exp)(r.x, NAME(greater)(-APART / 2, r.x), 0, &r.exp);
                const REAL less_1 = r.x + r.psi, far_less_1 = r.exp - 1;
                r.exp_less_1 = r.x * r.x < 1 ? less_1 : far_less_1;
                const REAL of_q = v[j] * by_q[j], of_p = w[j] * by_p[j], weight = x > 0 ? of_q : of_p;
                js_part[j] = NAME(mul_add)(weight, NAME(js_of_negative)(r), js_part[j]);
                rest_part[j] = NAME(mul_add)(x > 0 ? -weight : weight, r.exp_less_1, rest_part[j]);
                if (compares) {
                    of->apart[i * LANES + j] = x > 0 ? -weight * r.exp_less_1 : weight * r.exp_less_1;
                    const REAL near = r.x * r.exp_less_1 - r.psi, far = (r.x - 1) * r.exp + 1;
                    const REAL of_less = r.x * r.x < 1 ? near : far;
                    reverse_part[j] = NAME(mul_add)(weight, x > 0 ? r.psi : of_less, reverse_part[j]);
                }
            }
        }
        again = 0;
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL left = NAME(short_total)(&rest, j);
            const REAL value = NAME(short_total)(&js, j);
            const REAL reversed = compares ? NAME(short_total)(&reverse, j) : 0;
            const REAL least = compares ? NAME(lesser)(value, reversed) : value;
            const REAL high = of->shift[j] + left, low = NAME(difference_low)(of->shift[j], -left, high);
            const INT repeats = needs[j] & ((left * left > epsilon / 2 * least) | (SIZE(left) > 8 * epsilon));
            of->js[j] = needs[j] ? value : of->js[j];
            if (compares)
                of->reverse[j] = needs[j] ? reversed : of->reverse[j];
            of->shift_low[j] = repeats ? of->shift_low[j] + low : of->shift_low[j];
            of->shift[j] = repeats ? high : of->shift[j];
            needs[j] = repeats;
            again |= repeats;
        }
    }
}

/* The total variation from the differences of weights by their sums. They must add up to 0, as total_variation.inc.h has
   it: each gets its share of what they do. */
FASTKL_INLINE void NAME(pair_variation)(NAME(short_pair) *of, int n) {
    NAME(short_sum) rest, sum;
    REAL shift[LANES], by_p[LANES], by_q[LANES];
    NAME(clear_short)(&rest);
    NAME(clear_short)(&sum);
    for (int i = 0; i < n; i++) {
        const REAL *const apart = of->apart + i * LANES;
        REAL *const part = rest.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            part[j] += apart[j];
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        shift[j] = (REAL)0.5 * NAME(short_total)(&rest, j);
        by_p[j] = 1 / of->p_weight[j], by_q[j] = 1 / of->q_weight[j];
    }
    for (int i = 0; i < n; i++) {
        const REAL *const apart = of->apart + i * LANES, *const w = of->w + i * LANES, *const v = of->v + i * LANES;
        REAL *const part = sum.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            part[j] += SIZE(apart[j] - shift[j] * NAME(mul_add)(w[j], by_p[j], v[j] * by_q[j]));
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        of->variation[j] = (REAL)0.5 * NAME(short_total)(&sum, j);
}

FASTKL_INLINE void NAME(rows_ratios)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows, NAME(factor) c,
                                     short_ratios *to) {
    REAL p_tile[SHORT_LOGITS * LANES], q_tile[SHORT_LOGITS * LANES];
    REAL w[SHORT_LOGITS * LANES], v[SHORT_LOGITS * LANES], d[SHORT_LOGITS * LANES], low[SHORT_LOGITS * LANES];
    NAME(short_pair) state[SHORT_GROUPS];
    const int fit = SHORT_LOGITS / n, groups = fit < SHORT_GROUPS ? fit : SHORT_GROUPS;
    for (int i = 0; i < rows; i += groups * LANES) {
        const int left = (rows - i + LANES - 1) / LANES, now = left < groups ? left : groups;
        for (int k = 0; k < now; k++) {
            const int first = i + k * LANES, known = rows - first < LANES ? rows - first : LANES, at = k * n * LANES;
            state[k].p = NAME(load_short)(p_tile + at, p, first, n, known);
            state[k].q = NAME(load_short)(q_tile + at, q, first, n, known);
            state[k].w = w + at, state[k].v = v + at, state[k].d = d + at, state[k].low = low + at;
        }
        for (int k = 0; k < now; k++)
            NAME(pair_weights)(&state[k], n, c, 0);
        for (int k = 0; k < now; k++)
            NAME(pair_ratios)(&state[k], n, c, 0);
        for (int k = 0; k < now; k++) {
            FASTKL_VECTORIZE_INNER
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                to->js[i + k * LANES + j] = (double)state[k].js[j];
                to->shift[i + k * LANES + j] = (double)state[k].shift[j];
                to->found[i + k * LANES + j] = state[k].valid[j] ? 0 : SHORT_INVALID;
            }
        }
    }
}

/* The JS of up to LOGIT_ROWS rows, times four, and the logarithms of the ratios of the rows' sums. */
FASTKL_NOINLINE void NAME(short_ratios_pass)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows,
                                             fastkl_parts c, short_ratios *to) {
    if (c.high == 1)
        NAME(rows_ratios)(p, q, n, rows, NAME(scaling_of)(c, 0), to);
    else
        NAME(rows_ratios)(p, q, n, rows, NAME(scaling_of)(c, 1), to);
}

/* What a comparison needs besides the sums for D, of LANES rows: the sums for the entropies, the largest entries'
   places, and where the reverse divergence is infinite or may be inexact. `w` has p's weights. */
FASTKL_INLINE void NAME(compare_lanes)(NAME(short_pair) *of, int n, NAME(factor) c, short_comparisons *to, int row) {
    const REAL ln2 = (REAL)(FASTKL_LN2 / (double)c.high), negligible = PICK(1024, 128) / c.high, infinity = INFINITY;
    NAME(short_sum) p_product, q_product;
    REAL p_reference[LANES], q_reference[LANES];
    INT p_place[LANES], q_place[LANES], found[LANES];
    NAME(clear_short)(&p_product);
    NAME(clear_short)(&q_product);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        p_reference[j] = of->p_reference.exponent[j] * ln2, q_reference[j] = of->q_reference.exponent[j] * ln2;
        p_place[j] = q_place[j] = n;
        found[j] = of->valid[j] ? 0 : SHORT_INVALID;
    }
    for (int i = n - 1; i >= 0; i--) {
        const NAME(loose) *const p = NAME(short_column)(of->p, i), *const q = NAME(short_column)(of->q, i);
        const REAL *const w = of->w + i * LANES, *const v = of->v + i * LANES;
        REAL *const p_part = p_product.part[i % SHORT_PARTS], *const q_part = q_product.part[i % SHORT_PARTS];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL p_low = of->p_reference.low[j], q_low = of->q_reference.low[j];
            const INT counts = q[j] > q_low - negligible ? SHORT_UNDERFLOW : 0;
            const INT unmasked = q[j] > -infinity ? SHORT_MASKED : 0;
            const INT lost = p[j] == -infinity ? unmasked : counts;
            p_part[j] = NAME(mul_add)(w[j], p[j] > p_low ? p[j] - p_reference[j] : 0, p_part[j]);
            q_part[j] = NAME(mul_add)(v[j], q[j] > q_low ? q[j] - q_reference[j] : 0, q_part[j]);
            found[j] |= p[j] > p_low ? 0 : lost;
            p_place[j] = p[j] == of->p_max[j] ? i : p_place[j];
            q_place[j] = q[j] == of->q_max[j] ? i : q_place[j];
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        to->p_exponent[row + j] = (double)of->p_reference.exponent[j];
        to->q_exponent[row + j] = (double)of->q_reference.exponent[j];
        to->p_reference[row + j] = (double)p_reference[j];
        to->q_reference[row + j] = (double)q_reference[j];
        to->p_weight[row + j] = (double)of->p_weight[j];
        to->q_weight[row + j] = (double)of->q_weight[j];
        to->p_product[row + j] = (double)NAME(short_total)(&p_product, j);
        to->q_product[row + j] = (double)NAME(short_total)(&q_product, j);
        to->js[row + j] = (double)of->js[j];
        to->reverse[row + j] = (double)of->reverse[j];
        to->variation[row + j] = (double)of->variation[j];
        to->shift[row + j] = (double)of->shift[j];
        to->same_place[row + j] = p_place[j] == q_place[j] ? 1 : 0;
        to->found[row + j] = found[j];
    }
}

FASTKL_INLINE void NAME(rows_comparisons)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows, NAME(factor) c,
                                          const int64_t *labels, short_moments *to, short_comparisons *more) {
    REAL p_tile[SHORT_LOGITS * LANES], q_tile[SHORT_LOGITS * LANES];
    REAL w[SHORT_LOGITS * LANES], v[SHORT_LOGITS * LANES], d[SHORT_LOGITS * LANES], low[SHORT_LOGITS * LANES];
    REAL apart[SHORT_LOGITS * LANES];
    NAME(short_state) state[SHORT_GROUPS];
    NAME(short_pair) pair[SHORT_GROUPS];
    const int fit = SHORT_LOGITS / n, groups = fit < SHORT_GROUPS ? fit : SHORT_GROUPS;
    for (int i = 0; i < rows; i += groups * LANES) {
        const int left = (rows - i + LANES - 1) / LANES, now = left < groups ? left : groups;
        for (int k = 0; k < now; k++) {
            const int first = i + k * LANES, known = rows - first < LANES ? rows - first : LANES, at = k * n * LANES;
            state[k].p = pair[k].p = NAME(load_short)(p_tile + at, p, first, n, known);
            state[k].q = pair[k].q = NAME(load_short)(q_tile + at, q, first, n, known);
            state[k].w = pair[k].w = w + at, state[k].d = pair[k].d = d + at, state[k].low = pair[k].low = low + at;
            pair[k].v = v + at, pair[k].apart = apart + at;
        }
        for (int k = 0; k < now; k++)
            NAME(short_weights)(&state[k], n, c);
        for (int k = 0; k < now; k++)
            NAME(short_psi)(&state[k], n, c);
        for (int k = 0; k < now; k++)
            NAME(short_finish)(&state[k], n, c, to, i + k * LANES);
        for (int k = 0; k < now; k++) {
            memcpy(pair[k].p_max, state[k].max, sizeof pair[k].p_max);
            memcpy(pair[k].q_max, state[k].q_max, sizeof pair[k].q_max);
            memcpy(pair[k].p_weight, state[k].weight, sizeof pair[k].p_weight);
            pair[k].p_reference = state[k].p_reference;
            NAME(pair_weights)(&pair[k], n, c, 1);
        }
        for (int k = 0; k < now; k++)
            NAME(pair_ratios)(&pair[k], n, c, 1), NAME(pair_variation)(&pair[k], n);
        for (int k = 0; k < now; k++) {
            const int first = i + k * LANES, known = rows - first < LANES ? rows - first : LANES;
            NAME(compare_lanes)(&pair[k], n, c, more, first);
            for (int j = 0; j < known; j++) {
                more->p_logit[first + j] = (double)NAME(short_column)(pair[k].p, (int)labels[first + j])[j];
                more->q_logit[first + j] = (double)NAME(short_column)(pair[k].q, (int)labels[first + j])[j];
            }
        }
    }
}

/* The moments of up to LOGIT_ROWS rows, and what a comparison needs besides. */
FASTKL_NOINLINE void NAME(short_comparisons_pass)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows,
                                                  fastkl_parts c, const int64_t *labels, short_moments *to,
                                                  short_comparisons *more) {
    if (c.high == 1)
        NAME(rows_comparisons)(p, q, n, rows, NAME(scaling_of)(c, 0), labels, to, more);
    else
        NAME(rows_comparisons)(p, q, n, rows, NAME(scaling_of)(c, 1), labels, to, more);
}
