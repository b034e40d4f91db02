/* Owns what the three sums of a pass say of a row: name_finish gives the value of each measure, and whether it is accepted;
   name_finish_ratios gives that of an f-divergence of logits. In double. Knows nothing of entries and of operands. */

/* The limits within which the sums of lanes of one type can be trusted; real.inc.h says why. */
typedef struct {
    double sum_least, sum_most, term_least, excess_most;
} limits;
#define LIMITS {SUM_LEAST, SUM_MOST, TERM_LEAST, EXCESS_MOST}

/* A row's three sums, and whether those of a total variation are `corrected` by a second pass. */
typedef struct {
    double term, other, weight;
    int corrected;
} row_sums;

/* The value; whether it is accepted, which it is not where rounding in these sums could show in it, so that the row needs a
   rescaled pass; the sums of p and of the operand that such a pass scales, which is q, or p where there is no q; and the
   excess, which is what that sum should be, less what it is. */
typedef struct {
    double value;
    int accepted;
    double sum_of_p, sum_of_q, excess;
} finished;

/* A correction of second order in P - Q, the mismatch, may take this share of the terms from which it is subtracted. */
#define MISMATCH_MOST 0.0625

/* Sums that differ by so little that five terms of a logarithm's series have its digits: with t = Q/P - 1, what they lack
   of t - log1p(t) is 2^-51 of it at most, and that is a mismatch, which may be MISMATCH_MOST; of log1p(t) it is 2^-62. */
#define NEAR_SUMS 0x1p-10

/* Is the other of two sums, which differs from `sum` by `difference`, near it? */
FASTKL_INLINE int is_near(double sum, double difference) { return fabs(difference) <= NEAR_SUMS * sum; }

/* Are those sums of a row near each other of which the measure needs a logarithm? */
FASTKL_INLINE int has_near_sums(int measure, row_sums sums) {
    const double scaled = measure == FASTKL_entropy ? sums.weight : sums.other;
    return fastkl_is_divergence(measure) ? is_near(sums.weight, sums.other) : is_near(1, scaled - 1);
}

/* (t - log1p(t)) / t for |t| <= NEAR_SUMS */
FASTKL_INLINE double near_psi_by_t(double t) {
    double sum = 1 / 6.0;
    sum = mul_add_f64(-t, sum, 1 / 5.0);
    sum = mul_add_f64(-t, sum, 1 / 4.0);
    sum = mul_add_f64(-t, sum, 1 / 3.0);
    return t * mul_add_f64(-t, sum, 0.5);
}

/* The logarithm of a sum. `near`, a constant in every use, says that the sum is known to be near 1: the rest then compiles
   to nothing. A sum has the same logarithm either way. */
FASTKL_INLINE double log_of_sum(double sum, int near) {
    const double t = sum - 1, log = t - t * near_psi_by_t(t);
    return near || is_near(1, t) ? log : log_f64(sum);
}

/* phi(P, Q) from P and Q - P. */
FASTKL_INLINE double mismatch_of_sums(double p, double difference, int near) {
    const double mismatch = difference * near_psi_by_t(difference / p);
    return near || is_near(p, difference) ? mismatch : phi_of_difference_f64(p, -difference);
}

/* phi(P, M) + phi(Q, M), M = (P + Q) / 2, from P + Q and Q - P: with u = (Q - P) / (P + Q) it is
   M ((1 + u) log(1 + u) + (1 - u) log(1 - u)) = M (u^2 + u^4 / 6 + u^6 / 15 + ...). */
FASTKL_INLINE double mismatch_with_mean(double sum, double difference, int near) {
    const double u = difference / sum, p = 0.5 * (sum - difference), q = 0.5 * (sum + difference);
    const double mismatch = 0.5 * difference * u * mul_add_f64(u * u, mul_add_f64(u * u, 1 / 15.0, 1 / 6.0), 1);
    return near || is_near(sum, difference) ? mismatch : phi_of_both_f64(p, q, sum, difference);
}

/* Subtracting logarithms of the given size costs at most 4 units of the value, and 2 units of 1 besides, while this holds.
   Where it does not, a pass over p/P (or q/Q), of which the logarithm of the sum is next to nothing, does better. */
FASTKL_INLINE int loses_little(double size, double value) { return size <= 3 * value + 1; }

/* The logarithm is the entries' own, which is exact near 1. */
FASTKL_INLINE finished entropy_finish(row_sums sum, const fastkl_task *task, int near) {
    (void)task;
    const double log_weight = log_of_sum(sum.weight, near), mean = sum.term / sum.weight;
    const double value = non_negative(log_weight - mean);
    return (finished){value, loses_little(1.5 * fabs(mean) + fabs(log_weight), value), sum.weight, sum.weight,
                      1 - sum.weight};
}

/* As entropy_finish. Logarithms of both signs may have met in the mean; none is larger than log Q. */
FASTKL_INLINE finished cross_entropy_finish(row_sums sum, const fastkl_task *task, int near) {
    (void)task;
    const double log_other = log_of_sum(sum.other, near), mean = sum.term / sum.weight;
    const double value = non_negative(log_other - mean);
    return (finished){value,
                      loses_little(1.5 * fabs(mean) + 4 * non_negative(log_other) + fabs(log_other), value),
                      sum.weight, sum.other, 1 - sum.other};
}

/* Both terms are non-negative, and the second is of second order in P - Q. Where it takes too much of the first, a pass
   over q P/Q makes it next to nothing. So does one where Q, which is P + (Q - P), has lost digits, or where the terms are
   too small for a double without being 0. */
FASTKL_INLINE finished kl_divergence_finish(row_sums sum, const fastkl_task *task, int near) {
    (void)task;
    const double mismatch = mismatch_of_sums(sum.weight, sum.other, near);
    const int accepted = (mismatch <= MISMATCH_MOST * sum.term) & (2 * sum.other >= -sum.weight) &
                         ((sum.term > 0) | (sum.other == 0));
    return (finished){non_negative(sum.term - mismatch) / sum.weight, accepted, sum.weight, sum.weight + sum.other,
                      -sum.other};
}

/* The sum of all terms is (P + Q) JS + phi(P, (P + Q) / 2) + phi(Q, (P + Q) / 2), with a JS of the
   weights P / (P + Q) and Q / (P + Q) instead of two halves. That JS is wrong by at most |P - Q| / (P + Q)
   of itself: `acceptable` demands that this is small. */
FASTKL_INLINE finished js_divergence_finish(row_sums sum, const fastkl_task *task, int near) {
    (void)task;
    const double p = 0.5 * (sum.weight - sum.other), q = 0.5 * (sum.weight + sum.other);
    const double mismatch = mismatch_with_mean(sum.weight, sum.other, near);
    const double value = non_negative(sum.term - mismatch) / sum.weight;
    const int accepted = (mismatch <= MISMATCH_MOST * sum.term) & ((sum.term > 0) | (sum.other == 0));
    return (finished){value < FASTKL_LN2 ? value : FASTKL_LN2, accepted, p, q, -sum.other};
}

/* The mean of (p + q) g(u) by p is four times JS. */
FASTKL_INLINE double js_divergence_finish_ratios(double mean, const fastkl_task *task) {
    (void)task;
    return 0.25 * mean > FASTKL_LN2 ? FASTKL_LN2 : 0.25 * mean;
}

/* The square. Its terms and its mismatch are as those of D. Products of entries that underflow could show in smaller terms.
   */
FASTKL_INLINE finished hellinger_distance_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = 0.5 * (sum.weight - sum.other), q = 0.5 * (sum.weight + sum.other);
    const double roots = sqrt(p) + sqrt(q), apart = sum.other / roots;
    const double least = 0x1p-400, mismatch = apart * apart, value = 0.5 * non_negative(sum.term - mismatch) / sqrt(p * q);
    const int accepted = (mismatch <= MISMATCH_MOST * sum.term) & (2 * fabs(sum.other) <= sum.weight) &
                         ((sum.term >= least) | ((sum.term == 0) & (sum.other == 0)));
    (void)task, (void)near;
    return (finished){value < 1 ? value : 1, accepted, p, q, -sum.other};
}
FASTKL_INLINE double hellinger_distance_finish_ratios(double mean, const fastkl_task *task) {
    (void)task;
    return 0.5 * mean < 1 ? 0.5 * mean : 1;
}

/* The sum of all terms is 4PQ / (P + Q) TV, corrected or where P = Q. |Q - P| is at most the sum of |q - p|: a value of
   which the correction took at most half has twice its relative error. */
FASTKL_INLINE finished total_variation_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = 0.5 * (sum.weight - sum.other), q = 0.5 * (sum.weight + sum.other);
    const double most = sum.corrected ? 1 : 0x1p-52, value = sum.term * (0.25 * sum.weight / (p * q));
    const int accepted = (fabs(sum.other) <= most * sum.term) & (2 * fabs(sum.other) <= sum.weight);
    (void)task, (void)near;
    return (finished){value < 1 ? value : 1, accepted, p, q, -sum.other};
}
FASTKL_INLINE double total_variation_finish_ratios(double mean, const fastkl_task *task) {
    (void)task;
    return 0.5 * mean < 1 ? 0.5 * mean : 1;
}

/* Its terms and its mismatch are as those of D. Weights as large as are accepted can make a term infinite. */
FASTKL_INLINE finished chi2_divergence_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = sum.weight, q = sum.weight + sum.other, mismatch = sum.other * (sum.other / q);
    const int accepted = (mismatch <= MISMATCH_MOST * sum.term) & (2 * sum.other >= -sum.weight) &
                         (sum.term < (double)INFINITY) & ((sum.term > 0) | (sum.other == 0));
    (void)task, (void)near;
    return (finished){non_negative(sum.term - mismatch) / p * (q / p), accepted, p, q, -sum.other};
}
FASTKL_INLINE double chi2_divergence_finish_ratios(double mean, const fastkl_task *task) {
    (void)task;
    return mean;
}

/* The sum of all terms is (P + Q) / 2 times the value, and (P - Q) log(P/Q): at most |P - Q| / (P + Q) of the value are
   missing, which `acceptable` demands to be small. */
FASTKL_INLINE finished jeffreys_divergence_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = 0.5 * (sum.weight - sum.other), q = 0.5 * (sum.weight + sum.other);
    const double mismatch = 2 * sum.other * (sum.other / sum.weight);
    const int accepted = (mismatch <= MISMATCH_MOST * sum.term) & ((sum.term > 0) | (sum.other == 0));
    (void)task, (void)near;
    return (finished){2 * non_negative(sum.term - mismatch) / sum.weight, accepted, p, q, -sum.other};
}

/* Nothing is divided: sums below 1 need no more digits than 1 has. */
FASTKL_INLINE finished generalized_kl_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = sum.weight, q = sum.weight + sum.other;
    (void)near;
    const double value = sum.term - (1 - task->alpha) * sum.other;
    return (finished){value, sum.term < (double)INFINITY, p < 1 ? 1 : p, q < 1 ? 1 : q, 0};
}

/* D_alpha from |z|, z = alpha (alpha - 1) E. A sum of powers below this, which is 1 + z, has lost three bits to the
   subtraction. */
#define LEAST_POWERS 0.125
FASTKL_INLINE double renyi_of_excess(double size, const fastkl_task *task) {
    const double z = task->beta > 0 ? -size : size, powers = 1 + z;
    const double log = log_f64(powers) + (z - (powers - 1)) / powers;
    return ((powers >= LEAST_POWERS) & (size <= DBL_MAX)) ? fabs(log / task->beta) : NAN;
}

/* With t = Q/P - 1, z is that of the sum of g / P - h over (1 + t)^beta, which is 1 + beta t - alpha beta h; h is of second
   order in t, as the mismatch of D is. Its series has so many terms that t is limited. */
FASTKL_INLINE finished renyi_divergence_finish(row_sums sum, const fastkl_task *task, int near) {
    const double p = sum.weight, q = sum.weight + sum.other, t = sum.other / p, beta = task->beta;
    double h = mul_add_f64((beta - 5) * t, 1 / 6.0, 1);
    h = mul_add_f64((beta - 4) * t * (1 / 5.0), h, 1);
    h = mul_add_f64((beta - 3) * t * (1 / 4.0), h, 1);
    h = 0.5 * t * t * mul_add_f64((beta - 2) * t * (1 / 3.0), h, 1);
    const double size = fabs(task->alpha * beta), power = 1 + (beta * t - task->alpha * beta * h);
    const double value = renyi_of_excess(non_negative(sum.term / p - size * h) / power, task);
    const int accepted = (fabs(t) * (6 + fabs(beta)) <= NEAR_SUMS) & (size * h * p <= MISMATCH_MOST * sum.term) &
                         (value < (double)INFINITY) & ((sum.term > 0) | (sum.other == 0));
    (void)near;
    return (finished){value, accepted, p, q, -sum.other};
}
FASTKL_INLINE double renyi_divergence_finish_ratios(double mean, const fastkl_task *task) {
    return renyi_of_excess(mean, task);
}

/* Is an order of Renyi's below 1, and are the rows so far apart that the sum of powers itself is needed? */
FASTKL_INLINE int needs_powers(const fastkl_task *task, const finished *row) {
    return (task->measure == FASTKL_renyi_divergence) & (task->alpha < 1) & isnan(row->value) &
           is_near(row->sum_of_p, row->excess);
}
/* That divergence, of rows whose sums agree. */
FASTKL_INLINE double renyi_of_powers(row_sums sum, const fastkl_task *task) {
    return non_negative(log_f64(sum.term / sum.weight) / -task->beta);
}

/* `near` is a constant, and says that has_near_sums is known to hold; no value depends on it. The measure is a constant,
   too, in loops; elsewhere it is the task's. */
FASTKL_INLINE finished finish_sums(int measure, const fastkl_task *task, row_sums sums, int near) {
    switch (measure) {
#define ROW(name, ...)  \
    case FASTKL_##name: \
        return name##_finish(sums, task, near);
        FASTKL_MEASURES(ROW)
#undef ROW
    }
    return (finished){NAN, 0, NAN, NAN, NAN};
}

/* Can the sums be trusted, whatever the measure is? `signs` has the sign bit of what forbids it. */
FASTKL_INLINE int trusted(double term, uint64_t signs, const finished *row, const limits *within) {
    const double p = row->sum_of_p, q = row->sum_of_q;
    return ((int64_t)signs >= 0) & (p >= within->sum_least) & (p <= within->sum_most) & (q >= within->sum_least) &
           (q <= within->sum_most) & ((term == 0) | (fabs(term) >= within->term_least));
}

/* Is the value right if the sums can be trusted? */
FASTKL_INLINE int acceptable(int measure, const finished *row, const limits *within) {
    const int equal = fabs(row->excess) <= within->excess_most * (row->sum_of_p + row->sum_of_q);
    return row->accepted & (!fastkl_needs_equal_sums(measure) || equal);
}

/* The measure or its square root, from the measure. */
FASTKL_INLINE double apply_root(int root, double value) { return root ? sqrt(value) : value; }

/* Does a sum differ from 1 by more than the tolerance? An infinite tolerance accepts any sum. */
FASTKL_INLINE int differs_from_one(double sum, double tolerance) {
    return tolerance < INFINITY && !(fabs(sum - 1) <= tolerance);
}
