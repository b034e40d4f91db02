/* Owns the pass over two rows of logits that gives JS, and the rest of a comparison, from log(q/p) of their softmax. In
   REAL. Knows nothing of what the sums mean.

   With p's weight w and x = log(q/p) less the logarithm of the ratio of the rows' sums, q's weight is v = w e^x, and an
   entry of JS is (w + v) g(tanh(x/2)) = (w + v) x^2 K(x^2): NAME(js_divergence_of_ratio) has g. A chunk in which no |x| is
   large needs neither a division nor a logarithm. */

/* An entry's terms of a comparison: of JS; of the reverse divergence, w ((x - 1) e^x + 1); of the entropies, w
   (p's logit - p_reference) and v (q's logit - q_reference); v. Of the total variation: v - w where it is positive and w -
   v where that is, and w + v where x is positive and where it is next to nothing. And |x|; and a negative number where p
   underflows and q is not masked. */
typedef struct {
    REAL js, reverse, p_logit, q_logit, q_weight, above, below, weight_above, weight_near, far, lost;
} NAME(ratio_terms);

typedef struct {
    REAL js[LANES], reverse[LANES], p_logit[LANES], q_logit[LANES], q_weight[LANES], far[LANES], lost[LANES];
    REAL above[LANES], below[LANES], weight_above[LANES], weight_near[LANES];
} NAME(ratio_lanes);

/* An x of this size or less may have another sign where the ratio of the rows' sums is exact. */
#define UNSIGNED_RATIO PICK(0x1p-46, 0x1p-17f)

/* K(z) by Horner's rule. */
FASTKL_INLINE REAL NAME(K)(REAL z) {
    REAL sum = K_HIGHEST;
    K_COEFFICIENTS(STEP)
    return sum;
}

FASTKL_INLINE NAME(ratio_terms) NAME(terms_of_ratio)(REAL x, REAL w, REAL v, REAL apart, REAL js, REAL p, REAL q,
                                                     const NAME(term_constants) *at) {
    const REAL clipped = NAME(greater)(at->p_low, p), lost = p - clipped;
    return (NAME(ratio_terms)){js, 0, w * (clipped - at->p_reference),
                               v * (NAME(greater)(at->q_low, q) - at->q_reference), v,
                               .above = NAME(greater)(apart, 0), .below = NAME(greater)(-apart, 0),
                               .weight_above = apart > 0 ? w + v : 0,
                               .weight_near = NAME(greater)(x, -x) <= UNSIGNED_RATIO ? w + v : 0,
                               .far = NAME(greater)(x, -x), .lost = q > -(REAL)INFINITY ? lost : 0};
}

/* The terms where |x| <= NEAR_RATIO, or q is masked where p is not. */
FASTKL_INLINE NAME(ratio_terms) NAME(near_ratio_terms)(REAL p, REAL q, int js_only, const NAME(term_constants) *at) {
    const REAL infinity = INFINITY, clipped = NAME(greater)(at->p_low, p), plain = q - clipped;
    const REAL difference = p < at->p_low ? NAME(greater)(at->min_difference, plain) : plain;
    const REAL w = NAME(exp)(clipped, at->c, at->p_unit), of_difference = NAME(scale)(difference, at->c) - at->shift;
    NAME(ratio) r = {.x = difference > -infinity ? of_difference : 0};
    const REAL kept = difference > -infinity ? w : 0, masked = w - kept;
    r.psi = NAME(psi_and_exp)(r.x, r.x, 0, &r.exp);
    const REAL z = r.x * r.x, v = kept * r.exp, js = NAME(mul_add)(kept + v, z * NAME(K)(z), masked * (2 * LN2_HIGH));
    const REAL reverse = NAME(mul_add)(kept, NAME(mul_add)(r.x, r.x + r.psi, -r.psi), masked);
    const REAL apart = NAME(mul_add)(kept, r.x + r.psi, -masked);
    NAME(ratio_terms) terms = NAME(terms_of_ratio)(r.x, w, v, apart, js, p, q, at);
    terms.reverse = js_only ? 0 : reverse;
    return terms;
}

/* The terms of any entry, with what rounding took from x. */
FASTKL_INLINE NAME(ratio_terms) NAME(far_ratio_terms)(REAL p, REAL q, int js_only, const NAME(term_constants) *at) {
    const REAL w = NAME(weight_of_p)(p, at);
    const NAME(ratio) r = NAME(ratio_of)(p, q, at);
    const REAL reverse = r.x * r.x < 1 ? r.x * r.exp_less_1 - r.psi : (r.x - 1) * r.exp + 1;
    const REAL js = w * NAME(js_divergence_of_ratio)(r, at->c);
    NAME(ratio_terms) terms = NAME(terms_of_ratio)(r.x, w, w * r.exp, w * r.exp_less_1, js, p, q, at);
    terms.reverse = js_only ? 0 : w * reverse;
    return terms;
}

/* Is an |x| of the chunk's first group too large? Then a pass for near ones would be in vain. */
FASTKL_INLINE int NAME(begins_far)(NAME(logits_chunk) chunk, const NAME(term_constants) *at) {
    const NAME(loose) *const p = NAME(group)(chunk.p, 0), *const q = NAME(group)(chunk.q, 0);
    const REAL infinity = INFINITY;
    REAL farthest[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        farthest[j] = 0;
    for (int i = 0; i < GROUP; i += LANES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL x = NAME(scale)(q[i + j] - p[i + j], at->c) - at->shift, far = NAME(greater)(x, -x);
            farthest[j] = NAME(greater)(q[i + j] > -infinity ? far : 0, farthest[j]);
        }
    }
    return NAME(extreme)(farthest, 0) > NEAR_RATIO;
}

FASTKL_INLINE NAME(ratio_terms) NAME(add_ratio_terms)(NAME(ratio_terms) a, NAME(ratio_terms) b) {
    return (NAME(ratio_terms)){a.js + b.js, a.reverse + b.reverse, a.p_logit + b.p_logit, a.q_logit + b.q_logit,
                               a.q_weight + b.q_weight, a.above + b.above, a.below + b.below,
                               a.weight_above + b.weight_above, a.weight_near + b.weight_near,
                               NAME(greater)(a.far, b.far), NAME(lesser)(a.lost, b.lost)};
}

/* The sums of a chunk; the largest |x|. */
FASTKL_INLINE REAL NAME(sum_ratios)(NAME(logits_chunk) chunk, int far, int js_only, const NAME(term_constants) *at,
                                    ratio_sums *sums) {
    NAME(ratio_lanes) lanes;
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        lanes.js[j] = lanes.reverse[j] = lanes.p_logit[j] = lanes.q_logit[j] = lanes.q_weight[j] = 0;
        lanes.above[j] = lanes.below[j] = lanes.weight_above[j] = lanes.weight_near[j] = 0;
        lanes.far[j] = lanes.lost[j] = 0;
    }
    for (ptrdiff_t i = 0; i < NAME(group_count)(chunk.p); i++) {
        const NAME(loose) *const p = NAME(group)(chunk.p, i), *const q = NAME(group)(chunk.q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const int k = j + LANES, l = k + LANES, m = l + LANES;
            const NAME(ratio_terms) x0 = far ? NAME(far_ratio_terms)(p[j], q[j], js_only, at)
                                             : NAME(near_ratio_terms)(p[j], q[j], js_only, at);
            const NAME(ratio_terms) x1 = far ? NAME(far_ratio_terms)(p[k], q[k], js_only, at)
                                             : NAME(near_ratio_terms)(p[k], q[k], js_only, at);
            const NAME(ratio_terms) x2 = far ? NAME(far_ratio_terms)(p[l], q[l], js_only, at)
                                             : NAME(near_ratio_terms)(p[l], q[l], js_only, at);
            const NAME(ratio_terms) x3 = far ? NAME(far_ratio_terms)(p[m], q[m], js_only, at)
                                             : NAME(near_ratio_terms)(p[m], q[m], js_only, at);
            const NAME(ratio_terms) now =
                NAME(add_ratio_terms)(NAME(add_ratio_terms)(x0, x1), NAME(add_ratio_terms)(x2, x3));
            lanes.js[j] += now.js;
            lanes.far[j] = NAME(greater)(lanes.far[j], now.far);
            if (!js_only) {
                lanes.reverse[j] += now.reverse;
                lanes.p_logit[j] += now.p_logit;
                lanes.q_logit[j] += now.q_logit;
                lanes.q_weight[j] += now.q_weight;
                lanes.above[j] += now.above;
                lanes.below[j] += now.below;
                lanes.weight_above[j] += now.weight_above;
                lanes.weight_near[j] += now.weight_near;
                lanes.lost[j] = NAME(lesser)(lanes.lost[j], now.lost);
            }
        }
    }
    *sums = (ratio_sums){.js = NAME(sum_of_lanes)(lanes.js)};
    if (!js_only) {
        sums->reverse = NAME(sum_of_lanes)(lanes.reverse);
        sums->p_logit = NAME(sum_of_lanes)(lanes.p_logit);
        sums->q_logit = NAME(sum_of_lanes)(lanes.q_logit);
        sums->q_weight = NAME(sum_of_lanes)(lanes.q_weight);
        sums->above = NAME(sum_of_lanes)(lanes.above);
        sums->below = NAME(sum_of_lanes)(lanes.below);
        sums->weight_above = NAME(sum_of_lanes)(lanes.weight_above);
        sums->weight_near = NAME(sum_of_lanes)(lanes.weight_near);
        sums->lost = NAME(extreme)(lanes.lost, 1) < 0;
    }
    return NAME(extreme)(lanes.far, 0);
}

FASTKL_INLINE void NAME(compare_ratios)(logits_row *p, logits_row *q, ptrdiff_t n, NAME(factor) c, int js_only,
                                        const ratio_reference *reference, ratio_sums *row) {
    NAME(room) room;
    NAME(term_constants) at = {.c = c};
    NAME(set_exponent)(reference->exponent, c, &at.p_unit, &at.p_low);
    at.shift = (REAL)reference->shift;
    at.shift_low = (REAL)((reference->shift - (double)at.shift) + reference->shift_low);
    at.min_difference = at.shift / c.high;
    at.p_reference = (REAL)reference->p_reference, at.q_reference = (REAL)reference->q_reference;
    at.q_low = at.p_low + at.min_difference - 4 / c.high;
    *row = (ratio_sums){0};
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        NAME(logits_chunk) chunk = NAME(load_pair)(p, q, &room, start, n, CHUNK_LOGITS);
        ratio_sums sums;
        NAME(fill_up_pair)(&chunk, &at);
        const int far = reference->exact || NAME(begins_far)(chunk, &at);
        if (far || NAME(sum_ratios)(chunk, 0, js_only, &at, &sums) > NEAR_RATIO)
            NAME(sum_ratios)(chunk, 1, js_only, &at, &sums);
        add_ratio_sums(row, &sums);
    }
}

/* The pass, compiled for JS alone and for a comparison, and for logits that a temperature divides. */
FASTKL_NOINLINE void NAME(compare_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int js_only,
                                        const ratio_reference *reference, ratio_sums *row) {
    const int scaled = c.high != 1;
    if (js_only && !scaled)
        NAME(compare_ratios)(p, q, n, NAME(scaling_of)(c, 0), 1, reference, row);
    else if (js_only)
        NAME(compare_ratios)(p, q, n, NAME(scaling_of)(c, 1), 1, reference, row);
    else if (!scaled)
        NAME(compare_ratios)(p, q, n, NAME(scaling_of)(c, 0), 0, reference, row);
    else
        NAME(compare_ratios)(p, q, n, NAME(scaling_of)(c, 1), 0, reference, row);
}
