/* The measures: what a pair of entries adds to a row's three sums, and what the sums say of the row. No loop stands here.

   NAME(m)(p, q, c) is the term of measure m. One operand is multiplied by c on the way: q, or p where it is the only one.
   What is added to the row's sums is term, other and weight; fastkl.h says which of them make the sum of q. */

typedef struct {
    REAL term, other, weight;
} NAME(entry);

/* H(x) = log P - (sum of p log p) / P. */
FASTKL_INLINE NAME(entry) NAME(entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL x = NAME(scale)(p, c);
    (void)q;
    return (NAME(entry)){.term = x * NAME(log)(x), .weight = x};
}

/* H(x, y) = log Q - (sum of p log q) / P. */
FASTKL_INLINE NAME(entry) NAME(cross_entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c);
    return (NAME(entry)){.term = p * NAME(log)(y), .other = y, .weight = p};
}

/* D(x || y) = (sum of phi(p, q) - phi(P, Q)) / P. */
FASTKL_INLINE NAME(entry) NAME(kl_divergence)(REAL p, REAL q, NAME(factor) c) {
    NAME(entry) entry = {.weight = p};
    entry.term = NAME(phi)(p, q, c, &entry.other);
    return entry;
}

/* ½ D(x || m) + ½ D(y || m), m = (x + y) / 2, is (sum of phi(p, (p + q) / 2) + phi(q, (p + q) / 2)) / 2P for P = Q. */
FASTKL_INLINE NAME(entry) NAME(js_divergence)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), sum = p + y, difference = -NAME(less)(p, q, c, y);
    return (NAME(entry)){.term = NAME(phi_of_both)(p, y, sum, difference), .other = difference, .weight = sum};
}

#if REAL_BITS == 64
/* What the sums of a row say: its value, and whether that is settled. It is not where rounding in these sums could be seen
   in it: then the row needs another look. The logarithm is the entries' own, which is exact near 1. */
typedef struct {
    double value;
    int settled;
} conclusion;

FASTKL_INLINE double non_negative(double x) { return x > 0 ? x : 0; }

/* |S/P| and log P are subtracted: that costs at most 4 units of the result and 2 besides while this holds. Otherwise a look
   at p/P, where log P is next to nothing, settles it. */
FASTKL_INLINE conclusion entropy_finish(row_sums sum) {
    const double log_weight = log_f64(sum.weight), mean = sum.term / sum.weight, value = non_negative(log_weight - mean);
    return (conclusion){value, 1.5 * fabs(mean) + fabs(log_weight) <= 3 * value + 1};
}

/* As entropy_finish. Logarithms of both signs may have met in the mean; none is larger than log Q. */
FASTKL_INLINE conclusion cross_entropy_finish(row_sums sum) {
    const double log_other = log_f64(sum.other), mean = sum.term / sum.weight, value = non_negative(log_other - mean);
    return (conclusion){value, 1.5 * fabs(mean) + 4 * non_negative(log_other) + fabs(log_other) <= 3 * value + 1};
}

/* Both terms are non-negative and the second is of second order in P - Q. Where it takes more than a sixteenth of the
   first, a look at q P/Q makes it next to nothing. So does one where Q, found as P + (Q - P), has lost digits, or where the
   terms are too small for a double but not nothing. */
FASTKL_INLINE conclusion kl_divergence_finish(row_sums sum) {
    const double mismatch = phi_of_difference_f64(sum.weight, -sum.other);
    const double value = non_negative(sum.term - mismatch) / sum.weight;
    return (conclusion){value, (mismatch <= 0.0625 * sum.term) & (2 * sum.other >= -sum.weight) &
                                   ((sum.term > 0) | (sum.other == 0))};
}

/* The sum of all terms is (P + Q) JS + phi(P, (P + Q) / 2) + phi(Q, (P + Q) / 2), for
   a JS with the weights P / (P + Q) and Q / (P + Q) instead of two halves, which is
   off by no more than |P - Q| / (P + Q) of it: tier.inc.h sees that this is small. */
FASTKL_INLINE conclusion js_divergence_finish(row_sums sum) {
    const double p = 0.5 * (sum.weight - sum.other), q = 0.5 * (sum.weight + sum.other);
    const double mismatch = phi_of_both_f64(p, q, sum.weight, sum.other);
    const double value = non_negative(sum.term - mismatch) / sum.weight;
    return (conclusion){value < LN2_HIGH ? value : LN2_HIGH,
                        (mismatch <= 0.0625 * sum.term) & ((sum.term > 0) | (sum.other == 0))};
}
#endif
