/* The measures: what a pair of entries adds to a row's three sums, and what the sums say of the row. No loop stands here.

   NAME(m)(p, q, c) is the term of measure m. One operand is multiplied by c on the way: q, or p where it is the only one.
       term, other, weight   what is added to the row's sums; fastkl.h says which of them make the sum of q
       guard                 its sign bit is set where p > 0 and q is zero, or too small for the term to be trusted */

typedef struct {
    REAL term, other, weight;
    UINT guard, bits;
} NAME(entry);

/* The sign of y - SMALL and of y - p: set where y < p and y < SMALL. */
FASTKL_INLINE UINT NAME(guard)(REAL y, REAL y_less_p) { return NAME(bits)(y - SMALL) & NAME(bits)(y_less_p); }

/* H(x) = log P - (sum of p log p) / P. */
FASTKL_INLINE NAME(entry) NAME(entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL x = NAME(scale)(p, c);
    (void)q;
    return (NAME(entry)){.term = x * NAME(log)(x + TINY), .weight = x};
}

/* H(x, y) = log Q - (sum of p log q) / P. */
FASTKL_INLINE NAME(entry) NAME(cross_entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c);
    return (NAME(entry)){.term = p * NAME(log)(y + TINY), .other = y, .weight = p, .guard = NAME(guard)(y, y - p)};
}

/* D(x || y) = (sum of phi(p, q) - phi(P, Q)) / P. */
FASTKL_INLINE NAME(entry) NAME(kl_divergence)(REAL p, REAL q, NAME(factor) c) {
    NAME(entry) entry = {.weight = p};
    entry.term = NAME(phi)(p, q, c, &entry.other);
    entry.guard = NAME(guard)(NAME(scale)(q, c), entry.other);
    return entry;
}

#if REAL_BITS == 64
/* m_finish is the row's value, or NaN where rounding in these sums could be seen in it: then the row needs another look. The
   logarithm is the entries' own, which is exact near 1. */
typedef struct {
    double term, other, weight;
} fastkl_totals;

FASTKL_INLINE double non_negative(double x) { return x > 0 ? x : 0; }

/* |S/P| and log P are subtracted: that costs at most 4 units of the result and 2 besides while this holds. Otherwise a look
   at p/P, where log P is next to nothing, settles it. */
FASTKL_INLINE double entropy_finish(fastkl_totals sum) {
    const double log_weight = log_f64(sum.weight), mean = sum.term / sum.weight, value = non_negative(log_weight - mean);
    return 1.5 * fabs(mean) + fabs(log_weight) <= 3 * value + 1 ? value : NAN;
}

/* As entropy_finish. Logarithms of both signs may have met in the mean; none is larger than log Q. */
FASTKL_INLINE double cross_entropy_finish(fastkl_totals sum) {
    const double log_other = log_f64(sum.other), mean = sum.term / sum.weight, value = non_negative(log_other - mean);
    return 1.5 * fabs(mean) + 4 * non_negative(log_other) + fabs(log_other) <= 3 * value + 1 ? value : NAN;
}

/* Both terms are non-negative and the second is of second order in P - Q. Where it takes more than a quarter of the first,
   a look at q P/Q makes it next to nothing. So does one where Q, found as P + (Q - P), has lost digits, or where the terms
   are too small for a double but not nothing. */
FASTKL_INLINE double kl_divergence_finish(fastkl_totals sum) {
    const double mismatch = phi_of_difference_f64(sum.weight, -sum.other);
    const double value = non_negative(sum.term - mismatch) / sum.weight;
    const int settled = (mismatch <= 0.25 * sum.term) & (2 * sum.other >= -sum.weight) & ((sum.term > 0) | (sum.other == 0));
    return settled ? value : NAN;
}
#endif
