/* Owns the passes over rows of logits, chunk by chunk. In REAL. Knows nothing of what the sums mean.

   A chunk's entries are used several times while they are in the first cache: for the largest logit, which is the reference
   of the weights; for the weights and the mean of log(q/p) under them; for the terms of the measure. */
#include "logits_load.inc.h"
#include "logits_terms.inc.h"
#include "logits_accumulate.inc.h"
#include "logits_search.inc.h"

/* The bit pattern of 1 for weights by 2^exponent, and the least logit that does not underflow. */
FASTKL_INLINE void NAME(set_exponent)(int exponent, NAME(factor) c, UINT *unit, REAL *low) {
    *unit = ONE_BITS - ((UINT)exponent << MANTISSA_BITS);
    *low = (REAL)((exponent - LOST) * FASTKL_LN2 / (double)c.high);
}

/* The exponent that makes the weight of the logit x about 1. */
FASTKL_INLINE int NAME(exponent_of)(REAL x, NAME(factor) c) {
    return (int)floor((double)x * (double)c.high * (double)LOG2E + 0.5);
}

/* Sets what terms need for weights of p, or of q, by 2^exponent. */
FASTKL_INLINE void NAME(set_p_exponent)(int exponent, NAME(term_constants) *at) {
    NAME(set_exponent)(exponent, at->c, &at->p_unit, &at->p_low);
    at->p_rounder = NAME(rounder_from)(exponent - LOST);
}
FASTKL_INLINE void NAME(set_q_exponent)(int exponent, NAME(term_constants) *at) {
    UINT unit;
    NAME(set_exponent)(exponent, at->c, &unit, &at->q_low);
    at->q_rounder = NAME(rounder_from)(exponent - LOST);
    at->q_reference = (REAL)(exponent * FASTKL_LN2 / (double)at->c.high);
}

/* Makes both last groups be filled up with what adds next to nothing to the sums and changes no extreme: a p that just
   underflows, and a q that is just below all others there. */
FASTKL_INLINE void NAME(fill_up_pair)(NAME(logits_chunk) *chunk, const NAME(term_constants) *at) {
    const REAL q_low = at->p_low + at->min_difference, unit = REAL_BITS == 64 ? 0x1p-52 : 0x1p-23;
    chunk->p.filler = at->p_low;
    chunk->q.filler = q_low - (q_low < 0 ? -q_low : q_low) * unit;
}

/* Can the exponential of a chunk's largest logit, times c, be computed? */
FASTKL_INLINE int NAME(in_range)(REAL max, NAME(factor) c) { return fabs((double)max * (double)c.high) <= MAX_LOG_WEIGHT; }

/* Has the chunk no weight? Its logits are all -inf, or too far below the row's largest, or that of other chunks: of those
   before, the weight and the exponent are given. */
FASTKL_INLINE int NAME(is_weightless)(REAL max, NAME(factor) c, const logits_row *row, double weight, int exponent) {
    const double logarithm = (double)max * (double)c.high;
    return max == -(REAL)INFINITY || (row->centred && logarithm < -MAX_LOG_WEIGHT) || logarithm < row->least ||
           (weight > 0 && logarithm < exponent * FASTKL_LN2 - 2 * MAX_LOG_WEIGHT);
}

/* Brings a sum of weights, by 2^exponent, into [1, 2), so that the reference is near the largest logit, guessed or not.
   Returns the power of two that it is multiplied by. */
FASTKL_INLINE double NAME(normalize)(double *weight, int *exponent) {
    const int above = (int)(bits_f64(*weight) >> 52) - 1023;
    const double power = from_bits_f64((uint64_t)(1023 - above) << 52);
    *weight *= power;
    *exponent += above;
    return power;
}

/* The moments of a chunk of which p has no weight: q's weight is all that counts. This and what else is seldom needed is
   compiled once, for logits that a temperature divides, and not inlined, because the code has its size. */
FASTKL_NOINLINE int NAME(weightless_moments)(NAME(logits_chunk) chunk, REAL max, REAL q_max, const logits_row *q,
                                             NAME(factor) c, moments *sums) {
    NAME(term_constants) at = {.c = c};
    at.c.scaled = 1;
    sums->min_difference = max == -(REAL)INFINITY ? INFINITY : -INFINITY;
    if (NAME(has_nan)(chunk.p) || NAME(has_nan)(chunk.q))
        return PASS_NOT_FINITE;
    if (NAME(is_weightless)(q_max, c, q, 0, 0))
        return PASS_ACCEPTED;
    if (!NAME(in_range)(q_max, c))
        return PASS_OUT_OF_RANGE;
    sums->exponent = NAME(exponent_of)(q_max, c);
    NAME(set_q_exponent)(sums->exponent, &at);
    at.clips = 1;
    sums->psi = NAME(sum_terms)(NAME(q_weight_term), (NAME(outputs)){1, 0, 0, 0}, chunk, &at).sum[0] *
                NAME(weight_factor)(sums->exponent);
    return PASS_ACCEPTED;
}

/* Does the first group say that q is masked where p is not? If p is masked too, that is left to the sums. */
FASTKL_INLINE int NAME(seems_masked)(REAL p_min, REAL q_min) {
    return p_min > -(REAL)INFINITY && q_min == -(REAL)INFINITY;
}

/* The exact terms, and the extremes of log(q/p). */
FASTKL_NOINLINE term_sums NAME(sum_exact_terms)(NAME(logits_chunk) chunk, const NAME(term_constants) *at) {
    NAME(term_constants) constants = *at;
    constants.c.scaled = 1;
    return NAME(sum_terms)(NAME(exact_psi_term), (NAME(outputs)){2, BOTH_EXTREMES, 0, 0}, chunk, &constants);
}

/* The moments of a chunk, about their own mean. If `guess`, the weights' reference is that of the chunks before, or the
   largest logit of the first group: that does as well, if it is not far from the chunk's. */
FASTKL_INLINE int NAME(chunk_moments)(NAME(logits_chunk) chunk, logits_row *p, const logits_row *q, NAME(factor) c,
                                      int guess, const moments *before, moments *sums) {
    NAME(term_constants) at = {.c = c};
    const int known = guess && before->weight > 0;
    REAL max = 0, min = INFINITY, q_max = 0, q_min;
    *sums = (moments){.max_x = -INFINITY, .min_difference = INFINITY};
    if (known) {
        sums->exponent = before->exponent;
        at.min_difference = (REAL)(before->shift / (double)c.high);
    } else if (guess) {
        NAME(first_extremes)(chunk.p, &max, &min), NAME(first_extremes)(chunk.q, &q_max, &q_min);
        if (NAME(seems_masked)(min, q_min))
            return PASS_MASKED;
        if (!NAME(in_range)(max, c) || !NAME(in_range)((q_max - max) / 2, c))
            return PASS_RETRY;
    } else {
        NAME(find_extremes)(chunk.p, &max, &min);
        NAME(find_extremes)(chunk.q, &q_max, &q_min);
        if (!(max < INFINITY && q_max < INFINITY))
            return PASS_NOT_FINITE;
        if (NAME(is_weightless)(max, c, p, before->weight, before->exponent))
            return NAME(weightless_moments)(chunk, max, q_max, q, c, sums);
    }
    /* If q's largest logit is so large that the rounding of q - p can exceed 32, or 2 in float, a weight that underflows
       would count if it were multiplied by the exponential of that. It is not if all of q is masked. */
    const int is_coarse = fabs((double)q_max * (double)c.high) > (REAL_BITS == 64 ? 0x1p58 : 0x1p25);
    if (!NAME(in_range)(max, c) || (is_coarse && q_max > -(REAL)INFINITY))
        return PASS_OUT_OF_RANGE;
    if (!known)
        sums->exponent = NAME(exponent_of)(max, c), at.min_difference = q_max - max;
    NAME(set_p_exponent)(sums->exponent, &at);
    p->underflows |= min <= at.p_low;
    NAME(fill_up_pair)(&chunk, &at);
    /* The CPU prefetches while the first loop reads memory, but cannot keep up with two streams of doubles. With floats,
       prefetches take more time than they spare. */
    const NAME(outputs) out = {2, LEAST_EXTREME, 1, 1, PICK(PREFETCH_P, 0)};
    const NAME(outputs) psi_out = {1, 0, 0, 1, PICK(PREFETCH_Q, 0)};
    term_sums found = NAME(sum_weights)(NAME(difference_term), out, chunk, &at, p);
    if (!NAME(is_in_window)(found.bits))
        return guess ? PASS_RETRY : PASS_NOT_FINITE;
    sums->weight = found.sum[0];
    sums->min_difference = found.min;
    at.shift = (REAL)(found.sum[1] / found.sum[0] * (double)c.high);
    if (!isfinite(at.shift))
        return found.sum[1] == -INFINITY ? PASS_MASKED : PASS_NOT_FINITE;
    sums->first = found.sum[1] * (double)c.high - (double)at.shift * sums->weight;
    found = c.scaled || p->underflows ? NAME(sum_clipped)(NAME(psi_term), psi_out, chunk, &at, 1)
                                      : NAME(sum_clipped)(NAME(psi_term), psi_out, chunk, &at, 0);
    /* The error of a mean log(q/p) is 4 of its own units in the last place where the roundings of its sum do not cancel. It
       may be 16 units of the divergence. A deviation of log(q/p) from the mean is as large as the divergence if that is
       large, and as its root if that is small. The comparison is false if one of them is NaN. */
    const double mean = (double)at.shift, psi = found.sum[0] / sums->weight, least = psi / (1 + psi);
    found.max = MAX_ROUNDED_LOG_RATIO;
    if (!(NAME(is_in_window)(found.bits) && psi > 0 && /* least <= log1p(psi) */
          (mean * mean <= 32 * least * (1 + least) || mean * mean <= 32 * log1p(psi) * (1 + log1p(psi)))))
        for (int i = 0; i < 2; i++) { /* the second time, about the mean that the first time found */
            found = NAME(sum_exact_terms)(chunk, &at);
            sums->first = found.sum[1];
            double sum = (double)at.shift, low = (double)at.shift_low;
            if (i == 1 || !isfinite(found.sum[1]) || fabs(found.sum[1]) <= MAX_MEAN * found.sum[0])
                break;
            two_sum(&sum, &low, found.sum[1] / sums->weight);
            at.shift = (REAL)(sum + low);
            at.shift_low = (REAL)((sum - (double)at.shift) + low);
        }
    sums->shift = (double)at.shift, sums->shift_low = (double)at.shift_low;
    sums->psi = found.sum[0], sums->max_x = found.max;
    const double factor = NAME(weight_factor)(sums->exponent);
    sums->weight *= factor;
    const double power = NAME(normalize)(&sums->weight, &sums->exponent);
    sums->first *= factor * power, sums->psi *= factor * power;
    return PASS_ACCEPTED;
}

/* Is q really masked where p is not, from the chunk on that seems to say so, and are all entries after it valid? The pass
   status, which also says if no q is finite there and none was before. */
FASTKL_NOINLINE int NAME(confirm_mask)(NAME(logits_chunk) chunk, logits_row *p, logits_row *q, NAME(room) *room,
                                       ptrdiff_t start, ptrdiff_t n, int has_finite_q) {
    const NAME(term_constants) none = {0};
    int masked = 0;
    for (;;) {
        const NAME(outputs) out = {1, BOTH_EXTREMES, 0, 0};
        const term_sums found = NAME(sum_terms)(NAME(mask_term), out, chunk, &none);
        if (found.sum[0] != 0)
            return PASS_NOT_FINITE;
        masked |= found.min == -INFINITY;
        has_finite_q |= found.max > -INFINITY;
        start += GROUP * chunk.p.groups + chunk.p.left;
        if (start >= n)
            return !masked ? PASS_NOT_FINITE : has_finite_q ? PASS_MASKED : PASS_MASKED | PASS_INACCURATE;
        chunk = NAME(load_pair)(p, q, room, start, n, CHUNK_LOGITS);
    }
}

FASTKL_INLINE int NAME(row_moments)(logits_row *p, logits_row *q, ptrdiff_t n, NAME(factor) c, moments *row) {
    NAME(room) room;
    REAL w[CHUNK_LOGITS + GROUP];
    p->underflows = !p->operand->logits; /* check_masks needs the least difference, too */
    *row = (moments){.max_x = -INFINITY, .min_difference = INFINITY};
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        NAME(logits_chunk) chunk = NAME(load_pair)(p, q, &room, start, n, CHUNK_LOGITS);
        chunk.w = w;
        moments sums;
        int status = PASS_RETRY;
        for (int guess = 1; guess >= 0 && status == PASS_RETRY; guess--)
            status = NAME(chunk_moments)(chunk, p, q, c, guess, row, &sums);
        if (status == PASS_MASKED)
            return NAME(confirm_mask)(chunk, p, q, &room, start, n, row->weight > 0 || row->psi > 0);
        if (status)
            return status;
        merge_moments(row, &sums);
    }
    return PASS_ACCEPTED;
}

/* The sums of a chunk for an entropy, a cross-entropy or weights. p is NULL, and the chunk's p that of q, if there is
   none. */
FASTKL_INLINE int NAME(chunk_weights)(NAME(logits_chunk) chunk, logits_row *p, logits_row *q, NAME(factor) c, int kind,
                                      int guess, const entropy_sums *before, entropy_sums *sums) {
    const int has_p = kind == SUM_CROSS_ENTROPY || kind == SUM_BOTH;
    logits_row *const flagged = has_p ? p : q;
    const int known = guess && before->q_weight > 0 && (!has_p || before->p_weight > 0);
    REAL max = 0, min = INFINITY, q_max = 0, q_min = INFINITY;
    NAME(term_constants) at = {.c = c};
    term_sums found = {{0}, INFINITY, -INFINITY, 0};
    *sums = (entropy_sums){.min_q = INFINITY};
    if (known) {
        sums->p_exponent = before->p_exponent, sums->q_exponent = before->q_exponent;
    } else if (guess) {
        NAME(first_extremes)(chunk.q, &q_max, &q_min);
        if (has_p)
            NAME(first_extremes)(chunk.p, &max, &min);
        if (kind == SUM_CROSS_ENTROPY && NAME(seems_masked)(min, q_min))
            return PASS_MASKED;
        if (!NAME(in_range)(q_max, c) || !NAME(in_range)(max, c))
            return PASS_RETRY;
    } else {
        NAME(find_extremes)(chunk.q, &q_max, &q_min);
        if (has_p)
            NAME(find_extremes)(chunk.p, &max, &min);
        if (!(max < INFINITY && q_max < INFINITY))
            return PASS_NOT_FINITE;
    }
    const int p_counts = has_p && (guess || !NAME(is_weightless)(max, c, p, before->p_weight, before->p_exponent));
    const int q_counts = guess || !NAME(is_weightless)(q_max, c, q, before->q_weight, before->q_exponent);
    if ((p_counts && !NAME(in_range)(max, c)) || (q_counts && !NAME(in_range)(q_max, c)))
        return PASS_OUT_OF_RANGE;
    if ((has_p && !p_counts && NAME(has_nan)(chunk.p)) || (!q_counts && NAME(has_nan)(chunk.q)))
        return PASS_NOT_FINITE;
    if (!known) {
        sums->p_exponent = NAME(exponent_of)(p_counts ? max : 0, c);
        sums->q_exponent = NAME(exponent_of)(q_counts ? q_max : 0, c);
    }
    NAME(set_p_exponent)(sums->p_exponent, &at);
    NAME(set_q_exponent)(sums->q_exponent, &at);
    sums->q_reference = (double)at.q_reference;
    flagged->underflows |= (has_p && min <= at.p_low) || q_min <= at.q_low;
    chunk.p.filler = has_p ? at.p_low : at.q_low;
    chunk.q.filler = at.q_low;
    if (p_counts && kind == SUM_BOTH) {
        const NAME(outputs) out = {2, 0, 0, 1};
        found = NAME(sum_weights)(NAME(weights_term), out, chunk, &at, flagged);
    } else if (p_counts) {
        const NAME(outputs) out = {3, LEAST_EXTREME, 0, 1};
        found = NAME(sum_weights)(NAME(cross_entropy_term), out, chunk, &at, flagged);
    } else if (q_counts && kind == SUM_ENTROPY) {
        found = NAME(sum_weights)(NAME(entropy_term), (NAME(outputs)){2, 0, 0, 1}, chunk, &at, flagged);
    } else if (q_counts) {
        found = NAME(sum_weights)(NAME(q_weight_term), (NAME(outputs)){1, 0, 0, 1}, chunk, &at, flagged);
    }
    if ((p_counts || q_counts) && !NAME(is_in_window)(found.bits))
        return guess ? PASS_RETRY : PASS_NOT_FINITE;
    const double p_factor = NAME(weight_factor)(sums->p_exponent), q_factor = NAME(weight_factor)(sums->q_exponent);
    sums->q_weight = q_counts ? found.sum[0] * q_factor : 0;
    sums->min_q = has_p && !p_counts ? max == -(REAL)INFINITY ? INFINITY : -INFINITY : found.min;
    if (kind == SUM_ENTROPY)
        sums->product = found.sum[1] * q_factor, sums->p_weight = sums->q_weight, sums->p_exponent = sums->q_exponent;
    else if (p_counts)
        sums->product = found.sum[2] * p_factor, sums->p_weight = found.sum[1] * p_factor;
    if (kind == SUM_CROSS_ENTROPY && sums->product == -INFINITY)
        return PASS_MASKED;
    const double mean = sums->product / sums->p_weight * (double)c.high; /* the value is log(q_weight) - mean */
    if (guess && mean > MAX_GUESSED_MEAN && mean > MAX_GUESSED_MEAN + 4 * (log_f64(sums->q_weight) - mean))
        return PASS_RETRY;
    if (kind == SUM_WEIGHT || kind == SUM_BOTH) {
        if (q_counts)
            NAME(normalize)(&sums->q_weight, &sums->q_exponent);
        if (p_counts)
            NAME(normalize)(&sums->p_weight, &sums->p_exponent);
        sums->q_reference = sums->q_exponent * FASTKL_LN2 / (double)c.high;
    }
    return PASS_ACCEPTED;
}

FASTKL_INLINE int NAME(row_weights)(logits_row *p, logits_row *q, ptrdiff_t n, NAME(factor) c, int kind,
                                    entropy_sums *row) {
    NAME(room) room;
    const int has_p = kind == SUM_CROSS_ENTROPY || kind == SUM_BOTH;
    if (has_p)
        p->underflows = !p->operand->logits;
    else
        q->underflows = 0;
    *row = (entropy_sums){.min_q = INFINITY};
    for (ptrdiff_t start = 0; start < n; start += MOST_LOGITS) {
        const NAME(logits_chunk) chunk = NAME(load_pair)(has_p ? p : NULL, q, &room, start, n, MOST_LOGITS);
        entropy_sums sums;
        int status = PASS_RETRY;
        for (int guess = 1; guess >= 0 && status == PASS_RETRY; guess--)
            status = NAME(chunk_weights)(chunk, p, q, c, kind, guess, row, &sums);
        if (status == PASS_MASKED)
            return NAME(confirm_mask)(chunk, p, q, &room, start, n, row->q_weight > 0);
        if (status)
            return status;
        merge_entropy_sums(row, &sums);
    }
    return PASS_ACCEPTED;
}

/* The ratios of a group of entries, and the terms of an f-divergence. */
typedef struct {
    REAL x[GROUP], exp[GROUP], exp_less_1[GROUP], psi[GROUP], term[GROUP];
} NAME(ratio_group);

FASTKL_INLINE void NAME(find_terms)(int measure, NAME(factor) c, NAME(ratio_group) *of) {
    switch (measure) {
#define ROW(name, ...)                                                                                  \
    case FASTKL_##name:                                                                                 \
        FASTKL_VECTORIZE_INNER                                                                          \
        for (int j = 0; j < GROUP; j++)                                                                 \
            of->term[j] = NAME(name##_of_ratio)(                                                        \
                (NAME(ratio)){of->x[j], of->exp[j], of->exp_less_1[j], of->psi[j]}, c);                 \
        break;
        FASTKL_F_DIVERGENCES(ROW)
#undef ROW
    }
}

/* The sums of a chunk: of p's weight times the terms, and times e^x - 1, of which the mean under p is 0 if the ratio of the
   rows' sums is exact; and the least x. */
FASTKL_INLINE void NAME(sum_ratio_terms)(NAME(logits_chunk) chunk, int measure, const NAME(term_constants) *at,
                                         term_sums *row) {
    REAL first[LANES], second[LANES], least[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        first[j] = second[j] = 0, least[j] = INFINITY;
    for (ptrdiff_t i = 0; i < NAME(group_count)(chunk.p); i++) {
        const NAME(loose) *const p = NAME(group)(chunk.p, i), *const q = NAME(group)(chunk.q, i);
        NAME(ratio_group) of;
        REAL w[GROUP];
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < GROUP; j++) {
            const NAME(ratio) r = NAME(ratio_of)(p[j], q[j], at);
            of.x[j] = r.x, of.exp[j] = r.exp, of.exp_less_1[j] = r.exp_less_1, of.psi[j] = r.psi;
            w[j] = NAME(weight_of_p)(p[j], at);
        }
        NAME(find_terms)(measure, at->c, &of);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const int k = j + LANES, l = k + LANES, m = l + LANES;
            first[j] += (w[j] * of.term[j] + w[k] * of.term[k]) + (w[l] * of.term[l] + w[m] * of.term[m]);
            second[j] += (w[j] * of.exp_less_1[j] + w[k] * of.exp_less_1[k]) +
                         (w[l] * of.exp_less_1[l] + w[m] * of.exp_less_1[m]);
            least[j] = NAME(lesser)(NAME(lesser)(NAME(lesser)(of.x[j], of.x[k]), NAME(lesser)(of.x[l], of.x[m])), least[j]);
        }
    }
    row->sum[0] += NAME(sum_of_lanes)(first);
    row->sum[1] += NAME(sum_of_lanes)(second);
    row->min = lesser_f64(row->min, (double)NAME(extreme)(least, 1));
}

/* The ratio pass of an f-divergence. */
FASTKL_INLINE void NAME(row_ratios)(logits_row *p, logits_row *q, ptrdiff_t n, NAME(factor) c, int measure,
                                    const ratio_reference *reference, term_sums *row) {
    NAME(room) room;
    NAME(term_constants) at = {.c = c};
    NAME(set_exponent)(reference->exponent, c, &at.p_unit, &at.p_low);
    at.shift = (REAL)reference->shift;
    at.shift_low = (REAL)((reference->shift - (double)at.shift) + reference->shift_low);
    at.min_difference = at.shift / c.high;
    *row = (term_sums){{0}, INFINITY, -INFINITY};
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        NAME(logits_chunk) chunk = NAME(load_pair)(p, q, &room, start, n, CHUNK_LOGITS);
        NAME(fill_up_pair)(&chunk, &at);
        NAME(sum_ratio_terms)(chunk, measure, &at, row);
    }
}

FASTKL_INLINE NAME(factor) NAME(scaling_of)(fastkl_parts c, int scaled) {
    const REAL high = (REAL)c.high;
    return (NAME(factor)){scaled ? high : 1, scaled ? (REAL)((c.high - (double)high) + c.low) : 0, scaled};
}

#include "logits_ratios.inc.h"

/* The passes, compiled for logits as they are and for logits that a temperature divides. */
FASTKL_NOINLINE int NAME(moments_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, moments *row) {
    return c.high == 1 ? NAME(row_moments)(p, q, n, NAME(scaling_of)(c, 0), row)
                       : NAME(row_moments)(p, q, n, NAME(scaling_of)(c, 1), row);
}

FASTKL_NOINLINE int NAME(weights_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int kind,
                                       entropy_sums *row) {
    return c.high == 1 ? NAME(row_weights)(p, q, n, NAME(scaling_of)(c, 0), kind, row)
                       : NAME(row_weights)(p, q, n, NAME(scaling_of)(c, 1), kind, row);
}

/* This one is seldom made, so that it multiplies by 1, too. */
FASTKL_NOINLINE void NAME(ratio_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int measure,
                                      const ratio_reference *reference, term_sums *row) {
    NAME(factor) by = NAME(scaling_of)(c, 1);
    NAME(set_order)(&by, reference->alpha, reference->beta);
    NAME(row_ratios)(p, q, n, by, measure, reference, row);
}

static const logits_lanes NAME(logits_lanes) = {
    NAME(moments_pass), NAME(weights_pass), NAME(ratio_pass), NAME(compare_pass), NAME(find_masks), NAME(sum_logits),
    .is_float = REAL_BITS == 32, .epsilon = REAL_BITS == 64 ? 0x1p-52 : 0x1p-23,
    .lost_bits = LOST, .negligible = REAL_BITS == 64 ? 1024 : 128, .max_log_ratio = APART,
    .min_divergence = REAL_BITS == 64 ? 0x1p-800 : 0x1p-66, .max_shift_squared = REAL_BITS == 64 ? 0x1p113 : 0x1p54,
};
