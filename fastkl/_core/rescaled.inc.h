/* Owns the rescaled passes: passes in double over a valid row of which one operand is multiplied so that both sums agree,
   or that the only one is 1. Rounding then no longer shows in the value. Knows nothing of float lanes and of groups of
   rows. */

/* Enough passes to take the factor from rough sums to a double, and on to its low part. */
#define RESCALED_PASSES 4

/* A factor above this stems from a sum of q that, as a difference, may have lost all digits. */
#define FACTOR_MOST 0x1p40

/* In a divergence below this, the square of the factor's error of 2^-107 could show. */
#define SMALL_VALUE 0x1p-150

/* In a total variation below this, the roundings of differences to 2^-106 could show. */
#define SMALL_VARIATION 0x1p-50

/* The value of a valid row whose first pass, of which `first` tells, was not accepted. */
static double rescale(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const finished *first) {
    const double least = task->measure == FASTKL_total_variation ? SMALL_VARIATION : SMALL_VALUE;
    double c = (first->sum_of_q + first->excess) / first->sum_of_q, c_low = 0;
    if (fastkl_is_symmetric(task->measure) && fastkl_order(p, q, n) > 0) { /* scale the same row, whether it is p or q */
        const fastkl_operand before = p;
        p = q, q = before, c = (first->sum_of_p - first->excess) / first->sum_of_p;
    }
    if (!(c > 0 && c < FACTOR_MOST))
        c = fastkl_ratio_of_sums(task, p, q, n);
    int powers = needs_powers(task, first);
    for (int i = 0; i < RESCALED_PASSES; i++) {
        int exponent = 0; /* frexp need not set it where c is infinite, the quotient of sums that are far apart */
        const double high = 2 * frexp(c, &exponent), power = ldexp(1, exponent - 1);
        factor_f64 factor = no_factor_f64(task);
        factor.high = high, factor.low = c_low / power, factor.scaled = 1, factor.powers = powers;
        fastkl_sums sums;
        row_pass_f64(task, &p, &q, n, power, &factor, &sums);
        const finished row = finish_sums(task->measure, task, rounded(&sums), 0);
        if (!trusted(sums.term, sums.guard_bits, &row, &limits_f64))
            break;
        if (powers && fabs(row.excess) <= limits_f64.excess_most * row.sum_of_p)
            return renyi_of_powers(rounded(&sums), task);
        if (!powers && acceptable(task->measure, &row, &limits_f64) && row.value >= least)
            return apply_root(task->root, row.value);
        const double before = c;
        c_low += c * (row.excess / row.sum_of_q);
        c += c_low;
        c_low -= c - before;
        powers |= needs_powers(task, &row);
    }
    return fastkl_fallback(task, p, q, n);
}
