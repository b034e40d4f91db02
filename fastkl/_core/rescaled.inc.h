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

/* Entries of either operand whose quotients are taken at a time. */
#define QUOTIENTS 256

/* Renyi's divergence of infinite order, log(max(p/q) Q/P), of a valid row, from the sums of its first pass. It is right to
   two units in the last place of 1: those of a quotient, of the sums' and of the product. NaN where it has fewer digits. */
static double log_of_largest(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                             const finished *first) {
    double a[QUOTIENTS], b[QUOTIENTS], largest[DOUBLES] = {0}, most = 0, ignored = 0;
    uint64_t bits = 0;
    for (ptrdiff_t start = 0; start < n; start += QUOTIENTS) {
        const int count = (int)columns_of_piece(n, start, QUOTIENTS);
        const int filled = (count + DOUBLES - 1) / DOUBLES * DOUBLES;
        load_f64(a, p, p->data + start * p->col, count, filled);
        load_f64(b, q, q->data + start * q->col, count, filled);
        if (task->p_eps > 0)
            clip_f64(a, count, task->p_eps, &ignored, &bits);
        if (task->eps > 0)
            clip_f64(b, count, task->eps, &ignored, &bits);
        for (int i = 0; i < count; i += DOUBLES) {
            FASTKL_VECTORIZE_INNER
            for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++)
                largest[j] = greater_f64(a[i + j] > 0 ? a[i + j] / b[i + j] : 0, largest[j]);
        }
    }
    for (int j = 0; j < DOUBLES; j++)
        most = greater_f64(most, largest[j]);
    double c = first->sum_of_q / first->sum_of_p;
    if (!(c >= 0.5 && c < FACTOR_MOST)) /* the sum of q is a difference from that of p */
        c = 1 / fastkl_ratio_of_sums(task, *p, *q, n);
    const double product = most * c;
    return most > MIN_NORMAL_QUOTIENT && product < INFINITY ? non_negative(log(product)) : NAN;
}

/* The value of a valid row whose first pass, of which `first` tells, was not accepted. */
static double rescale(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const finished *first) {
    const double least = task->measure == FASTKL_total_variation ? SMALL_VARIATION : SMALL_VALUE;
    double c = (first->sum_of_q + first->excess) / first->sum_of_q, c_low = 0;
    if (isinf(task->alpha)) {
        const double value = log_of_largest(task, &p, &q, n, first);
        return isnan(value) ? fastkl_fallback(task, p, q, n) : value;
    }
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
