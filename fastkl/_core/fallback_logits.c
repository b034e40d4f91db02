/* Owns the values of rows of logits of which no pass is accepted: differences beyond any float, weights that underflow
   where their logarithms count. Plain double arithmetic, entry by entry, compiled once, the same on every tier. Knows
   nothing of lanes.

   Weights are kept as logarithms. A difference of logits is kept as a double and what its rounding took from it. */
#include "sums.h"

#define FASTKL_FMA 0
#define FASTKL_INT64_TO_DOUBLE 0
#define REAL_BITS 64
#include "real.inc.h"
#include "logratio.inc.h"
#include "exponential.inc.h"

/* The exponential of a smaller logarithm, times any double, is 0: log(2^-1075 / 2^1024), rounded down. */
#define MIN_LOG -1500
/* A quotient of doubles above is a normal number. */
#define MIN_NORMAL_RATIO 0x1p-1000
/* A weight with a smaller logarithm makes 0 of any difference of two doubles: log(2^-1075 / (2 2^1024)). */
#define MIN_LOG_BY_DIFFERENCE -1456
/* The exponential of a larger logarithm of a sum may overflow, if multiplied further. */
#define MAX_LOG 600
/* The exponential of a larger number is so much more than any usual order of Rényi's divergence that a power of an order
   above 1 loses nothing when multiples of p and q are subtracted from it. */
#define FAR_POWER 16
/* If the largest logits of the rows differ by more, by temperature, the differences of their logits have lost too many
   digits to be shifted by that. */
#define MAX_EXACT_DIFFERENCE 1e9

/* A row as logarithms of weights of which the largest is 1: of probabilities by `max`, or of logits less `max` by
   temperature. No weight is below `min`. log_sum is the logarithm of the weights' sum. */
typedef struct {
    const fastkl_task *task;
    fastkl_operand operand;
    ptrdiff_t n;
    fastkl_parts scale;
    double max, log_sum, min;
} weights;

static void add(fastkl_parts *to, double x) { two_sum(&to->high, &to->low, x); }

static double total(fastkl_parts sum) { return isfinite(sum.high) ? sum.high + sum.low : sum.high; }

/* a - b, exactly, unless it overflows. */
static fastkl_parts minus(double a, double b) {
    fastkl_parts result = {a, 0};
    add(&result, -b);
    return isfinite(result.high) ? result : (fastkl_parts){result.high, 0};
}

/* A difference of logits by temperature; 0 if the difference is, even if the scale is infinite. What rounding took from the
   scale counts: the logarithm of a small weight is of hundreds, and its error is the weight's. */
static fastkl_parts scaled(fastkl_parts x, fastkl_parts scale) {
    const double product = x.high * scale.high;
    const double low = fma(x.high, scale.high, -product) + (x.low * scale.high + x.high * scale.low);
    return x.high == 0 ? x : (fastkl_parts){product, isfinite(product) ? low : 0};
}

/* a - b by temperature, also where that is finite and a - b overflows. */
static fastkl_parts difference(double a, double b, fastkl_parts scale) {
    if (fabs(a) < 0x1p1022 && fabs(b) < 0x1p1022)
        return scaled(minus(a, b), scale);
    return scaled(minus(a / 2, b / 2), (fastkl_parts){2 * scale.high, 2 * scale.low});
}

/* log(x/y) for x <= y, also where the quotient is not normal. */
static double log_of_quotient(double x, double y) { return x / y > MIN_NORMAL_RATIO ? log(x / y) : log(x) - log(y); }

static double log_weight(const weights *of, ptrdiff_t i) {
    const double x = fastkl_entry(of->operand, i);
    double logarithm;
    if (of->operand.logits)
        logarithm = x == -INFINITY ? x : total(difference(x, of->max, of->scale));
    else
        logarithm = x > 0 ? log_of_quotient(x, of->max) : -INFINITY;
    return logarithm > of->min ? logarithm : of->min;
}

static double sum_of_weights(const weights *of) {
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; i < of->n; i++)
        add(&sum, exp(log_weight(of, i)));
    return total(sum);
}

static weights weights_of(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n, double eps) {
    weights result = {task, operand, n, {1, 0}, .max = operand.logits ? -INFINITY : 0, .min = -INFINITY};
    if (operand.logits)
        result.scale = (fastkl_parts){task->scale, task->scale_low};
    for (ptrdiff_t i = 0; i < n; i++)
        result.max = fastkl_entry(operand, i) > result.max ? fastkl_entry(operand, i) : result.max;
    if (!operand.logits && eps > 0) {
        result.max = result.max > eps ? result.max : eps;
        result.min = log_of_quotient(eps, result.max);
    }
    result.log_sum = log(sum_of_weights(&result));
    if (operand.logits && eps > 0) { /* eps clips probabilities, which need the sum, and they are normalized again */
        result.min = log(eps) + result.log_sum;
        result.log_sum = log(sum_of_weights(&result));
    }
    return result;
}

/* What rounding took from the logarithm of a logit's weight, unless it is clipped: that of a small weight is large. */
static double log_weight_low(const weights *of, ptrdiff_t i, double logarithm) {
    if (!of->operand.logits || logarithm <= of->min)
        return 0;
    const fastkl_parts exact = difference(fastkl_entry(of->operand, i), of->max, of->scale);
    return (exact.high - logarithm) + exact.low;
}

/* x times an entry's weight, also where the weight alone would underflow. That of a small probability is a quotient,
   because the exponential of its rounded logarithm is less exact. */
static double times_weight(const weights *of, ptrdiff_t i, double x) {
    const double logarithm = log_weight(of, i), quotient = fastkl_entry(of->operand, i) / of->max;
    if (x == 0 || logarithm == -INFINITY || (isinf(x) && logarithm + log(of->scale.high) < MIN_LOG_BY_DIFFERENCE))
        return 0;
    if (!of->operand.logits && of->min == -INFINITY && quotient > MIN_NORMAL_RATIO)
        return quotient * x;
    if (logarithm < MIN_LOG)
        return 0;
    int exponent = 0; /* frexp need not set it where x is infinite */
    const double significand = frexp(x, &exponent), k = rint(logarithm / FASTKL_LN2);
    const double rest = fma(-k, FASTKL_LN2, logarithm) + (log_weight_low(of, i, logarithm) - k * FASTKL_LN2_LOW);
    return ldexp(exp(rest) * significand, exponent + (int)k);
}

/* Is an entry masked or zero, and not clipped? Its weight may underflow to 0 without that. */
static int is_absent(const weights *of, ptrdiff_t i) {
    return of->min == -INFINITY && fastkl_entry(of->operand, i) <= (of->operand.logits ? -INFINITY : 0);
}

/* log(q/p) + *apart of weights relative to each row's largest. It is the difference of the logits as they are, with the
   largest logits *apart, if both rows have them unclipped and that is exact enough; else that of the log weights. */
static fastkl_parts log_ratio(const weights *p, const weights *q, ptrdiff_t i, fastkl_parts *apart) {
    if (p->operand.logits && q->operand.logits && q->min == -INFINITY) {
        *apart = difference(q->max, p->max, p->scale);
        if (fabs(apart->high) < MAX_EXACT_DIFFERENCE)
            return difference(fastkl_entry(q->operand, i), fastkl_entry(p->operand, i), p->scale);
    }
    *apart = (fastkl_parts){0, 0};
    return minus(log_weight(q, i), log_weight(p, i));
}

static double cross_entropy_fallback(const weights *p, const weights *q) {
    const double weight = sum_of_weights(p);
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; i < p->n; i++) {
        if (!is_absent(p, i) && is_absent(q, i))
            return INFINITY;
        add(&sum, times_weight(p, i, (q->log_sum - log_weight(q, i)) / weight)); /* the sum of products may overflow */
    }
    return non_negative(total(sum));
}

/* There is no q, and p stands in for it. */
static double entropy_fallback(const weights *p, const weights *q) { return cross_entropy_fallback(p, q); }

/* D = log E[e^x] of x = log(q/p) less its mean; where e^x overflows, by logarithms. */
static double kl_divergence_fallback(const weights *p, const weights *q) {
    const double weight = sum_of_weights(p);
    fastkl_parts excess = {0, 0}, rest = {0, 0}, mean = {0, 0}, apart = {0, 0};
    for (int pass = 0; pass < 2; pass++) { /* the second time, of what the first left */
        fastkl_parts first = {0, 0};
        for (ptrdiff_t i = 0; i < p->n; i++) {
            if (is_absent(p, i))
                continue;
            if (is_absent(q, i))
                return INFINITY;
            const fastkl_parts x = log_ratio(p, q, i, &apart);
            add(&first, times_weight(p, i, (x.high - mean.high) + x.low));
        }
        mean = minus(mean.high, -total(first) / weight);
    }
    if (!(fabs(mean.high) < 2 * MAX_EXACT_DIFFERENCE)) /* so large is D, or it overflows */
        return cross_entropy_fallback(p, q) - cross_entropy_fallback(p, p);
    /* q's weights times e^shift are relative to the same as p's. */
    const double shift = (apart.high - mean.high) + (apart.low - mean.low);
    const double max = (q->min > 0 ? q->min : 0) + shift; /* clipped weights may be larger than 1 */
    if (max > MAX_LOG)
        return max + (q->log_sum - log(weight));
    for (ptrdiff_t i = 0; i < p->n; i++) {
        const double log_p = log_weight(p, i), q_weight = exp(log_weight(q, i) + shift);
        if (log_p == -INFINITY) {
            add(&excess, q_weight);
        } else {
            const fastkl_parts ratio = log_ratio(p, q, i, &apart);
            const double x = (ratio.high - mean.high) + (ratio.low - mean.low);
            double unused;
            add(&rest, times_weight(p, i, x));
            add(&excess,
                fabs(x) < 1 ? times_weight(p, i, psi_f64(x, &unused)) : q_weight - times_weight(p, i, 1 + x));
        }
    }
    const double left = total(rest) / weight;
    return non_negative(log1p(total(excess) / weight + left) - left);
}

/* The logarithm of an entry of a row's distribution. */
static fastkl_parts log_probability(const weights *of, ptrdiff_t i) {
    const double logarithm = log_weight(of, i);
    fastkl_parts result = minus(logarithm, of->log_sum);
    if (isfinite(result.high))
        result.low += log_weight_low(of, i, logarithm);
    return result;
}

/* e^x; what rounding took from a large logarithm counts, unless it took so much that the power is 0 or infinite. */
static double exp_of(fastkl_parts x) { return exp(x.high) * (fabs(x.low) < 1 ? 1 + x.low : 1); }

static double probability(const weights *of, ptrdiff_t i) { return exp_of(log_probability(of, i)); }

/* log(q/p) of an entry of the distributions: infinite where one is absent or next to it, and 0 where both are. */
static fastkl_parts log_ratio_in_parts(const weights *p, const weights *q, ptrdiff_t i) {
    const double log_p = log_weight(p, i), log_q = log_weight(q, i);
    if (log_p == -INFINITY || log_q == -INFINITY)
        return (fastkl_parts){log_q > log_p ? INFINITY : log_q < log_p ? -INFINITY : 0, 0};
    fastkl_parts apart;
    const fastkl_parts ratio = log_ratio(p, q, i, &apart);
    fastkl_parts result = minus(ratio.high, apart.high);
    if (isfinite(result.high)) {
        add(&result, p->log_sum - q->log_sum);
        result.low += ratio.low - apart.low;
    }
    return result;
}
static double log_ratio_of_rows(const weights *p, const weights *q, ptrdiff_t i) {
    return total(log_ratio_in_parts(p, q, i));
}

/* JS, of (p + q) g(u), u = tanh(x/2): measures.inc.h has g. */
static double js_divergence_fallback(const weights *p, const weights *q) {
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; i < p->n; i++) {
        const double both = probability(p, i) + probability(q, i), x = fabs(log_ratio_of_rows(p, q, i));
        double g = 0;
        if (x < 0.5) {
            const double u = tanh(x / 2), z = u * u;
            double power = z;
            for (int k = 1; k < 20; k++, power *= z)
                g += power / (k * (2 * k - 1));
        } else {
            const double e = exp(-x);
            g = 2 * FASTKL_LN2 - 2 * log1p(e) - (x < MAX_LOG ? 2 * e * x / (1 + e) : 0);
        }
        add(&sum, both * g);
    }
    return total(sum) / 4 < FASTKL_LN2 ? total(sum) / 4 : FASTKL_LN2;
}

/* The square of the Hellinger distance: an entry of it is ½ y (1 - e^(x/2))^2 by the larger weight y, x = -|log(p/q)|. */
static double hellinger_distance_fallback(const weights *p, const weights *q) {
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; i < p->n; i++) {
        const double root = expm1(-fabs(log_ratio_of_rows(p, q, i)) / 2), a = probability(p, i), b = probability(q, i);
        add(&sum, (a > b ? a : b) * root * root);
    }
    return total(sum) / 2 < 1 ? total(sum) / 2 : 1;
}

/* The total variation, of y (1 - e^x) with the same y and x, with the sign of q - p. Their sum is 0, except for the error
   of the logarithms of the rows' sums: each entry gets its share of it, as in total_variation.inc.h. */
static double total_variation_fallback(const weights *p, const weights *q) {
    fastkl_parts rest = {0, 0}, sum = {0, 0};
    for (int pass = 0; pass < 2; pass++)
        for (ptrdiff_t i = 0; i < p->n; i++) {
            const double x = log_ratio_of_rows(p, q, i), a = probability(p, i), b = probability(q, i);
            const double apart = x > 0 ? -b * expm1(-x) : a * expm1(x);
            if (pass == 0)
                add(&rest, apart);
            else
                add(&sum, fabs(apart - total(rest) / 2 * (a + b)));
        }
    return total(sum) / 2 < 1 ? total(sum) / 2 : 1;
}

/* An entry of chi^2 is (p^2/q) (1 - e^x)^2, x = log(q/p), or q (1 - e^-x)^2. */
static double chi2_divergence_fallback(const weights *p, const weights *q) {
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; i < p->n; i++) {
        const double x = log_ratio_of_rows(p, q, i), root = expm1(-fabs(x));
        if (!is_absent(p, i) && is_absent(q, i))
            return INFINITY;
        add(&sum, (x < 0 ? exp((log_weight(p, i) - p->log_sum) - x) : probability(q, i)) * root * root);
    }
    return total(sum);
}

/* The sum of D in both directions. */
static double jeffreys_divergence_fallback(const weights *p, const weights *q) {
    return kl_divergence_fallback(p, q) + kl_divergence_fallback(q, p);
}

/* A power p^alpha q^beta of an entry by the larger one whose logarithm is |beta| max, from its logarithm by |beta|, which
   may be a number where the logarithm overflows. */
static fastkl_parts log_power(const weights *p, const weights *q, ptrdiff_t i) {
    const double size = fabs(p->task->beta), sign = p->task->beta > 0 ? 1 : -1;
    const fastkl_parts log_p = log_probability(p, i), x = log_ratio_in_parts(p, q, i);
    const double quotient = log_p.high / size;
    fastkl_parts result = minus(quotient, -sign * x.high);
    if (isfinite(result.high))
        result.low += (fma(-quotient, size, log_p.high) + log_p.low) / size + sign * x.low;
    return result;
}
static double power_of(const weights *p, fastkl_parts logarithm, double max) {
    add(&logarithm, -max);
    const double size = fabs(p->task->beta), product = size * logarithm.high;
    return exp_of((fastkl_parts){product, fma(size, logarithm.high, -product) + size * logarithm.low});
}

/* D_alpha of an order of at least ½, as fallback_rows.c has it. Where a power is far from p, it is taken itself: the
   product of p and the exponential could overflow. */
static double renyi_divergence_fallback(const weights *p, const weights *q) {
    const double alpha = p->task->alpha, beta = p->task->beta;
    double max = -INFINITY, unused;
    fastkl_parts excess = {0, 0}, sum = {0, 0};
    for (ptrdiff_t i = 0; i < p->n; i++) {
        const double x = -log_ratio_of_rows(p, q, i), w = -beta * x, a = probability(p, i), b = probability(q, i);
        if (alpha > 1 && ((!is_absent(p, i) && is_absent(q, i)) || x == INFINITY))
            return INFINITY;
        if (isinf(x) || log_weight(p, i) == -INFINITY) { /* there is a gap, and no power */
            add(&excess, x > 0 ? a / beta : b / alpha);
            continue;
        }
        const fastkl_parts logarithm = isinf(alpha) ? (fastkl_parts){x, 0} : log_power(p, q, i);
        max = logarithm.high > max ? logarithm.high : max;
        const double phi = fabs(x) < 1 ? a * psi_f64(-x, &unused) : a * (x - 1) + b;
        add(&excess, (beta > 0 ? fabs(w) > 1 : w > FAR_POWER)
                         ? (a + beta * (b - a) - power_of(p, logarithm, 0)) / (alpha * beta)
                         : (phi - a * psi_f64(w, &unused) / beta) / alpha);
    }
    const double z = -alpha * beta * total(excess);
    if (isinf(alpha) || max == -INFINITY)
        return max == -INFINITY ? INFINITY : non_negative(max);
    if (z > -0.5 && z < INFINITY)
        return non_negative(fabs(z) < 0x1p-60 ? alpha * total(excess) : log1p(z) / -beta);
    for (ptrdiff_t i = 0; i < p->n; i++)
        if (isfinite(log_ratio_of_rows(p, q, i)) && log_weight(p, i) > -INFINITY)
            add(&sum, power_of(p, log_power(p, q, i), max));
    return non_negative((beta > 0 ? -max : max) + log(total(sum)) / -beta);
}

double fastkl_fallback_logits(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const weights a = weights_of(task, p, n, task->p_eps), b = q.data ? weights_of(task, q, n, task->eps) : a;
    switch (task->measure) {
#define ROW(name, ...)  \
    case FASTKL_##name: \
        return name##_fallback(&a, &b);
        FASTKL_ENTRIES(ROW)
#undef ROW
    }
    return NAN;
}

double fastkl_fallback_nll(const fastkl_task *task, fastkl_operand q, ptrdiff_t n, ptrdiff_t label) {
    const weights of = weights_of(task, q, n, task->eps);
    const double nll = of.log_sum - log_weight(&of, label);
    fastkl_parts sum = {0, 0};
    for (ptrdiff_t i = 0; task->smoothing > 0 && i < n; i++)
        add(&sum, (of.log_sum - log_weight(&of, i)) / (double)n); /* the sum of logarithms may overflow */
    return non_negative(fastkl_smoothed(task, nll, total(sum)));
}
