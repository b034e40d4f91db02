/* Owns compensated addition and ln 2, which the tiers and the fallbacks share. Knows nothing of measures and of dtypes. */
#ifndef FASTKL_SUMS_H
#define FASTKL_SUMS_H

#include "compiler.h"
#include "fastkl.h"

/* ln 2 = FASTKL_LN2 + FASTKL_LN2_LOW: the nearest double, and the nearest double to what that leaves. */
#define FASTKL_LN2 0x1.62e42fefa39efp-1
#define FASTKL_LN2_LOW 0x1.abc9e3b39803fp-56

/* A number in two parts: a sum, and what rounding took from it. */
typedef struct {
    double high, low;
} fastkl_parts;

/* x, or 0 if x is negative or NaN. */
FASTKL_INLINE double non_negative(double x) { return x > 0 ? x : 0; }

/* high + low += x, exactly except for the rounding of low (Knuth's two-sum). */
FASTKL_INLINE void two_sum(double *high, double *low, double x) {
    const double total = *high + x, x_part = total - *high;
    *low += (*high - (total - x_part)) + (x - x_part);
    *high = total;
}

/* Adds the sums of the next piece of a row to those of the pieces before it. */
static inline void fastkl_join_sums(fastkl_sums *to, const fastkl_sums *next) {
    two_sum(&to->term, &to->term_low, next->term);
    two_sum(&to->other, &to->other_low, next->other);
    two_sum(&to->weight, &to->weight_low, next->weight);
    to->term_low += next->term_low;
    to->other_low += next->other_low;
    to->weight_low += next->weight_low;
    to->clipped += next->clipped;
    to->p_clipped += next->p_clipped;
    to->entry_bits |= next->entry_bits;
    to->guard_bits |= next->guard_bits;
}

#endif
