/* Owns what a pair of logits adds to the sums of a pass, as branch-free scalar code. In REAL. Knows nothing of loops.

   A logit whose weight is below 2^-LOST underflows: it counts as one of just that weight, so that no weight is 0 and every
   ratio of weights is finite. The least logits, which the passes report, tell whether that can matter. */

/* What is the same for all entries of a chunk: the least logit that does not underflow, and whether smaller ones are made
   that; what is subtracted from logits in products; the least q - p where p underflows; what is subtracted from log(q/p);
   the bit pattern of 2^-exponent, and the rounders of weights; the factor of logits. */
typedef struct {
    REAL p_low, q_low, p_reference, q_reference, min_difference, shift, shift_low, p_rounder, q_rounder;
    UINT p_unit;
    int clips;
    NAME(factor) c;
} NAME(term_constants);

/* An entry's terms of up to three sums, two numbers of which a pass finds the least and the largest, and a bit pattern of
   which it finds the OR. */
typedef struct {
    REAL first, second, third, min, max;
    UINT bits;
} NAME(logit_terms);

/* The logits of an entry, and p's weight, after a first term has written it. */
typedef struct {
    REAL p, q, w;
} NAME(entry_logits);

typedef NAME(logit_terms) NAME(logit_term)(NAME(entry_logits) *x, const NAME(term_constants) *at);

FASTKL_INLINE REAL NAME(weight_of_p)(REAL p, const NAME(term_constants) *at) {
    return NAME(exp)(NAME(greater)(at->p_low, p), at->c, at->p_unit);
}

/* The logit that counts instead of x, if `low` is the least that does not underflow. */
FASTKL_INLINE REAL NAME(clipped)(REAL x, REAL low, const NAME(term_constants) *at) {
    return at->clips ? NAME(greater)(low, x) : x;
}

/* q - p. Where p underflows, that is not less than min_difference. */
FASTKL_INLINE REAL NAME(difference)(REAL p, REAL q, const NAME(term_constants) *at) {
    const REAL difference = q - NAME(clipped)(p, at->p_low, at);
    return !at->clips || p > at->p_low ? difference : NAME(greater)(at->min_difference, difference);
}

/* The first term for D writes p's weight w; the sums of w and of w (q - p). The least q - p of logits, a NaN if both are
   masked. */
FASTKL_INLINE NAME(logit_terms) NAME(difference_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    UINT bits;
    e->w = NAME(weight)(NAME(clipped)(e->p, at->p_low, at), at->c, at->p_rounder, &bits);
    return (NAME(logit_terms)){e->w, e->w * NAME(difference)(e->p, e->q, at), .min = e->q - e->p, .bits = bits};
}

/* For a row that is to be infinite: a NaN if p or q is a NaN or infinite; the least q - p, which is -inf if q is masked and
   p is not; the largest q. */
FASTKL_INLINE NAME(logit_terms) NAME(mask_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    (void)at;
    return (NAME(logit_terms)){0 * NAME(greater)(0, e->p) + 0 * NAME(greater)(0, e->q), .min = e->q - e->p, .max = e->q};
}

/* What rounding took from a - b = difference. This is Knuth's two-sum, in the form for which GCC schedules loops best. */
FASTKL_INLINE REAL NAME(difference_low)(REAL a, REAL b, REAL difference) {
    const REAL b_part = a - difference;
    return (a - (difference + b_part)) + (b_part - b);
}

/* x = log(q/p) - shift and, in *low, what rounding took from it. It matters where p and q nearly agree in all entries that
   count, or differ so much that the error of e^x does, which is x times that of x. */
FASTKL_INLINE REAL NAME(exact_log_ratio)(REAL p, REAL q, const NAME(term_constants) *at, REAL *low) {
    const REAL clipped = NAME(greater)(at->p_low, p), plain = q - clipped;
    const REAL difference = p > at->p_low ? plain : NAME(greater)(at->min_difference, plain);
    const REAL product = NAME(scale)(difference, at->c), x = product - at->shift;
    const REAL d_low = difference == plain ? NAME(difference_low)(q, clipped, difference) : 0;
    const REAL x_low = NAME(difference_low)(product, at->shift, x);
    const REAL product_low =
        at->c.scaled ? FMA(difference, at->c.high, -product) + (difference * at->c.low + d_low * at->c.high) : d_low;
    const REAL all_low = x_low + (product_low - at->shift_low), sum = x + all_low;
    *low = x > -4 * APART ? all_low - (sum - x) : 0;
    return x > -4 * APART ? sum : x; /* -inf has no parts */
}

/* The second term for D: p's weight times psi(x), from the rounded difference, for x in a window. Where that is not exact
   enough, from the logits, and p's weight times x besides; min and max x. */
#define LEAST_RATIO_EXPONENT (MAX_RATIO_EXPONENT + 1 - (1 << WINDOW_BITS))
FASTKL_INLINE NAME(logit_terms) NAME(psi_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    const REAL x = NAME(scale)(NAME(difference)(e->p, e->q, at), at->c) - at->shift;
    UINT bits;
    const REAL psi = NAME(psi_in_window)(x, ROUNDER - LEAST_RATIO_EXPONENT, LEAST_RATIO_EXPONENT, &bits);
    return (NAME(logit_terms)){e->w * psi, .bits = bits};
}
FASTKL_INLINE NAME(logit_terms) NAME(exact_psi_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    REAL exp, less_1, low;
    const REAL x = NAME(exact_log_ratio)(e->p, e->q, at, &low), psi = NAME(psi_of_parts)(x, low, &exp, &less_1);
    return (NAME(logit_terms)){e->w * psi, e->w * (x + low), 0, x, x};
}

/* For labels: q's weight. For H(q): q's weight times its logit less q_reference, and q's weight. */
FASTKL_INLINE NAME(logit_terms) NAME(q_weight_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    UINT bits;
    const REAL weight = NAME(weight)(NAME(clipped)(e->q, at->q_low, at), at->c, at->q_rounder, &bits);
    return (NAME(logit_terms)){weight, .bits = bits};
}
FASTKL_INLINE NAME(logit_terms) NAME(entropy_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    const REAL q = NAME(clipped)(e->q, at->q_low, at);
    UINT bits;
    const REAL weight = NAME(weight)(q, at->c, at->q_rounder, &bits);
    return (NAME(logit_terms)){weight, weight * (q - at->q_reference), .bits = bits};
}

/* q's weight and p's; for H(p, q), p's weight times q's logit less q_reference, too. Where weights of p may underflow, the
   least q of those where p is not masked: p - p is a NaN where it is. */
FASTKL_INLINE NAME(logit_terms) NAME(weights_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    UINT p_bits, q_bits;
    const REAL p_weight = NAME(weight)(NAME(clipped)(e->p, at->p_low, at), at->c, at->p_rounder, &p_bits);
    const REAL q_weight = NAME(weight)(NAME(clipped)(e->q, at->q_low, at), at->c, at->q_rounder, &q_bits);
    return (NAME(logit_terms)){q_weight, p_weight, .bits = p_bits | q_bits};
}
FASTKL_INLINE NAME(logit_terms) NAME(cross_entropy_term)(NAME(entry_logits) *e, const NAME(term_constants) *at) {
    NAME(logit_terms) terms = NAME(weights_term)(e, at);
    terms.third = terms.second * (!at->clips || e->p > at->p_low ? e->q - at->q_reference : 0);
    terms.min = e->q + (e->p - e->p);
    return terms;
}

FASTKL_INLINE NAME(ratio) NAME(ratio_of)(REAL p, REAL q, const NAME(term_constants) *at) {
    REAL low;
    const REAL unclamped = NAME(exact_log_ratio)(p, q, at, &low), high = unclamped < APART ? unclamped : APART;
    NAME(ratio) r = {.x = high > -APART ? high : -APART};
    r.psi = NAME(psi_of_parts)(r.x, low, &r.exp, &r.exp_less_1);
    return r;
}
