/* Owns the rows that no pass of a tier accepts: entries to be checked one by one, subnormal numbers, sums that overflow,
   quotients beyond any float. Plain double arithmetic, entry after entry, compiled once, the same on every tier. Knows
   nothing of lanes.

   Every number is kept as m 2^e with m in [1/2, 1), so that nothing overflows or is flushed, and the exponents of p and of
   q count from those of their largest entries. */
#include "sums.h"

/* The element maths in double, with the plainest instructions. */
#define FASTKL_FMA 0
#define FASTKL_INT64_TO_DOUBLE 0
#define REAL_BITS 64
#include "real.inc.h"
#include "logratio.inc.h"
#include "exponential.inc.h"

/* Terms are kept 2^HEADROOM times larger than p relative to its largest entry: room for small divergences. Where their sum
   is infinite then, they are added again without it, and at last 2^LEAST_HEADROOM times as large: a divergence times the
   sum of p, which is below 2^64, then cannot become infinite before the divergence does. */
#define HEADROOM 900
#define LEAST_HEADROOM -64
/* Below this, the square of the sums' rounding to 2^-53 could show: of nearly equal rows, no measure is less than an eighth
   of D, as JS is. */
#define SMALL_DIVERGENCE 0x1p-103
/* Exponents of p and q that are farther apart leave no digit of the smaller in a sum of both. */
#define COMPARABLE 64
/* The exponential of a larger logarithm of a power may overflow where it is multiplied by others; next to it, the logarithm
   does not count. */
#define MOST_LOG_POWER 100
/* Any double but 0, times 2 to this, is infinite. */
#define MOST_EXPONENT_STEP 2100
/* Numbers with a smaller exponent are near the smallest double. */
#define LEAST_EXPONENT -1000

double fastkl_entry(fastkl_operand operand, ptrdiff_t i) {
    switch (operand.dtype) {
#define ROW(name, type, value, single)                                                      \
    case FASTKL_##name: {                                                                   \
        type entry;                                                                         \
        fastkl_read(&entry, operand.data + i * operand.col, sizeof entry, operand.swapped); \
        return (double)value(entry);                                                        \
    }
        FASTKL_DTYPES(ROW)
#undef ROW
    }
    return NAN;
}

/* An entry, clipped to eps from below. */
static double clipped_entry(fastkl_operand operand, ptrdiff_t i, double eps) {
    const double entry = fastkl_entry(operand, i);
    return entry < eps ? eps : entry;
}

/* Logits may also be negative, and -inf. */
static int all_valid(fastkl_operand operand, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double entry = fastkl_entry(operand, i);
        if (!((entry >= 0 || (operand.logits && entry < 0)) && entry < INFINITY))
            return 0;
    }
    return 1;
}

int fastkl_check_entries(fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (!all_valid(p, n))
        return FASTKL_P_ENTRY;
    return q.data && !all_valid(q, n) ? FASTKL_Q_ENTRY : FASTKL_VALID;
}

/* Do all entries, of this size, have the same bytes? */
static inline int same_bytes(fastkl_operand p, fastkl_operand q, ptrdiff_t n, ptrdiff_t size) {
    if (p.col == size && q.col == size)
        return !memcmp(p.data, q.data, (size_t)(n * size));
    for (ptrdiff_t i = 0; i < n; i++)
        if (memcmp(p.data + i * p.col, q.data + i * q.col, (size_t)size))
            return 0;
    return 1;
}

int fastkl_order(fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const ptrdiff_t size = fastkl_size(p.dtype);
    if (p.dtype == q.dtype && p.swapped == q.swapped &&
        (size == 4   ? same_bytes(p, q, n, 4) /* sizes that the compiler knows */
         : size == 8 ? same_bytes(p, q, n, 8)
                     : same_bytes(p, q, n, size)))
        return 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double a = fastkl_entry(p, i), b = fastkl_entry(q, i);
        if (a != b)
            return a < b ? -1 : 1;
    }
    return 0;
}

int fastkl_has_weight(fastkl_operand operand, ptrdiff_t n, double eps) {
    for (ptrdiff_t i = 0; i < n; i++)
        if (operand.logits ? fastkl_entry(operand, i) > -INFINITY : clipped_entry(operand, i, eps) > 0)
            return 1;
    return 0;
}

/* (significand + low) 2^exponent; of a sum, `low` is what rounding took from it. */
typedef struct {
    double significand;
    int exponent;
    double low;
} scaled;

static scaled split(double x) {
    scaled result;
    result.significand = frexp(x, &result.exponent);
    result.low = 0;
    return result;
}

static void add(fastkl_parts *to, double x) { two_sum(&to->high, &to->low, x); }

/* The index of a row's largest entry. */
static ptrdiff_t largest(fastkl_operand operand, ptrdiff_t n) {
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 1; i < n; i++)
        if (fastkl_entry(operand, i) > fastkl_entry(operand, at))
            at = i;
    return at;
}

/* A row's sum; the exponent is that of its largest entry. The total variation of proportional rows is of first order in the
   sum's error, so that the sum of what rounding takes has two parts, too. */
static scaled sum_of(fastkl_operand operand, ptrdiff_t n, double eps) {
    const int exponent = split(clipped_entry(operand, largest(operand, n), eps)).exponent;
    fastkl_parts sum = {0, 0}, rest = {0, 0};
    for (ptrdiff_t i = 0; i < n; i++) {
        add(&sum, ldexp(clipped_entry(operand, i, eps), -exponent));
        add(&rest, sum.low);
        sum.low = 0;
    }
    const double rounded = sum.high + rest.high;
    return (scaled){rounded, exponent, ((sum.high - rounded) + rest.high) + rest.low};
}

double fastkl_ratio_of_sums(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (!fastkl_is_normalized(task->measure))
        return 1;
    const scaled Q = sum_of(q.data ? q : p, n, task->eps);
    const scaled wanted = fastkl_is_divergence(task->measure) ? sum_of(p, n, task->p_eps) : (scaled){1, 0, 0};
    return ldexp(wanted.significand / Q.significand, wanted.exponent - Q.exponent);
}

/* a b - c d, exact except for one rounding where the products nearly agree. */
static double difference_of_products(double a, double b, double c, double d) {
    const double ab = a * b, cd = c * d;
    return (ab - cd) + (fma(a, b, -ab) - fma(c, d, -cd));
}

static double log_of(scaled x) { return log(x.significand) + x.exponent * FASTKL_LN2; }

/* What a pair of entries a and b adds to a divergence of a and c b, and what the sums say:
       name_term   where a and b are comparable. `difference` is a - c b, rounded once where they nearly agree
       name_far    where they are not, or one of them is zero, from x = a, y = c b and x/y, which has any exponent
       name_value  the value, of which name_finish says more, from the sums of the terms, of x and of x - y: times the sum
                   of x, so that it can be too small for a double only at the end. The factor c makes the sums of x and y
                   nearly equal. */
static double kl_divergence_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task;
    double further;
    return fabs(difference) < a / 4 ? phi_to_mean_f64(a, b * c.high, difference) : phi_f64(a, b, c, &further);
}
static double kl_divergence_far(double x, double y, scaled ratio, const fastkl_task *task) {
    (void)task;
    return x > 0 ? x * (log_of(ratio) - 1) + y : y;
}
static double kl_divergence_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task;
    return term - phi_of_difference_f64(weight, difference);
}

static double js_divergence_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task;
    return phi_of_both_f64(a, b * c.high, a + b * c.high, -difference);
}
static double js_divergence_far(double x, double y, scaled ratio, const fastkl_task *task) {
    (void)task, (void)ratio;
    return (x + y) * FASTKL_LN2;
}
static double js_divergence_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task;
    const double value = (term - phi_of_both_f64(weight, weight - difference, 2 * weight - difference, -difference)) / 2;
    return value < FASTKL_LN2 * weight ? value : FASTKL_LN2 * weight;
}

static double hellinger_distance_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task;
    const double root = difference / (sqrt(a) + sqrt(b * c.high));
    return root * root;
}
static double hellinger_distance_far(double x, double y, scaled ratio, const fastkl_task *task) {
    const double roots = sqrt(x) - sqrt(y);
    (void)task, (void)ratio;
    return roots * roots;
}
static double hellinger_distance_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task;
    const double rest = weight - difference, roots = sqrt(weight) + sqrt(rest);
    const double value = (term - difference / roots * (difference / roots)) / 2 * sqrt(weight / rest);
    return value < weight ? value : weight;
}

static double total_variation_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task, (void)a, (void)b, (void)c;
    return fabs(difference);
}
static double total_variation_far(double x, double y, scaled ratio, const fastkl_task *task) {
    (void)task, (void)ratio;
    return fabs(x - y);
}
static double total_variation_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task, (void)difference;
    return term < 2 * weight ? term / 2 : weight;
}

static double chi2_divergence_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task, (void)a;
    return difference * (difference / (b * c.high));
}
static double chi2_divergence_far(double x, double y, scaled ratio, const fastkl_task *task) {
    (void)task;
    return ldexp(x * ratio.significand, ratio.exponent) - 2 * x + y;
}
static double chi2_divergence_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task;
    return term * ((weight - difference) / weight) - difference * (difference / weight);
}

static double jeffreys_divergence_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    (void)task;
    const double y = b * c.high;
    return fabs(difference) < a / 4 ? difference * -log1p(-difference / a) : (a - y) * log(a / y);
}
static double jeffreys_divergence_far(double x, double y, scaled ratio, const fastkl_task *task) {
    (void)task;
    return x == y ? 0 : (x - y) * log_of(ratio);
}
static double jeffreys_divergence_value(double term, double weight, double difference, const fastkl_task *task) {
    (void)task;
    return term + difference * log1p(-difference / weight);
}

/* x e^y for a large y. */
static double times_exp(double x, double y) {
    const double k = rint(y / FASTKL_LN2);
    return k < MOST_EXPONENT_STEP ? ldexp(x * exp(fma(-k, FASTKL_LN2, y) - k * FASTKL_LN2_LOW), (int)k) : INFINITY;
}

/* Of an order of at least ½: the g of measures.inc.h, from phi(a, b) and log(a/b). */
static double renyi_gap(double a, double b, double phi, double log_ratio, const fastkl_task *task) {
    const double gamma = -task->beta, w = gamma * log_ratio;
    double power;
    const double psi = psi_f64(w, &power);
    if (w > MOST_LOG_POWER)
        return a > 0 || gamma < 0 ? (phi + times_exp(a, w) / gamma) / task->alpha : INFINITY; /* `a` underflows */
    return (gamma < 0 && w < -1 ? (a * power - (a + gamma * (a - b))) / gamma : phi + a * psi / gamma) / task->alpha;
}
static double renyi_divergence_term(double a, double b, factor_f64 c, double difference, const fastkl_task *task) {
    const double y = b * c.high, phi = kl_divergence_term(a, b, c, difference, task);
    return renyi_gap(a, y, phi, fabs(difference) < a / 4 ? -log1p(-difference / a) : log(a / y), task);
}
static double renyi_divergence_far(double x, double y, scaled ratio, const fastkl_task *task) {
    if (ratio.significand == 0) /* x and y may be 0 because they underflow */
        return y / task->alpha;
    if (isinf(ratio.significand))
        return task->beta > 0 ? x / task->beta : INFINITY;
    return renyi_gap(x, y, kl_divergence_far(x, y, ratio, task), log_of(ratio), task);
}
static double renyi_divergence_value(double term, double weight, double difference, const fastkl_task *task) {
    const double t = difference / weight, z = -task->alpha * task->beta * (term / weight - 0.5 * t * t);
    if (z < -0.75) /* it has lost digits: renyi_apart has the value */
        return NAN;
    return fabs(z) < 0x1p-60 ? task->alpha * (term - 0.5 * t * difference) : weight * log1p(z) / -task->beta;
}

/* The same of rows that are far apart, or with an order that is infinite: by logarithms. */
static double renyi_apart(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, scaled P, scaled Q) {
    const double c = P.significand / Q.significand;
    double largest_power = -INFINITY, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (ptrdiff_t i = 0; i < n; i++) {
            const scaled a = split(clipped_entry(p, i, task->p_eps)), b = split(clipped_entry(q, i, task->eps));
            if (a.significand == 0 || (b.significand == 0 && task->alpha < 1))
                continue;
            if (b.significand == 0)
                return INFINITY;
            const int a_exponent = a.exponent - P.exponent, apart = a_exponent - (b.exponent - Q.exponent);
            const double near = ldexp(b.significand, -apart);
            const double d =
                difference_of_products(a.significand, Q.significand, P.significand, near) / Q.significand;
            const double log_far = log_of((scaled){a.significand / (c * b.significand), apart, 0});
            const double log_ratio = fabs(d) < a.significand / 4 ? -log1p(-d / a.significand) : log_far;
            const double log_x = log_of((scaled){a.significand / P.significand, a_exponent, 0});
            const double power = isinf(task->alpha) ? log_ratio : log_x - task->beta * log_ratio;
            if (pass == 0)
                largest_power = power > largest_power ? power : largest_power;
            else
                sum += exp(power - largest_power);
        }
        if (largest_power == -INFINITY)
            return INFINITY;
        if (isinf(task->alpha))
            return non_negative(largest_power);
    }
    return non_negative((largest_power + log(sum)) / -task->beta);
}

static const struct {
    double (*term)(double a, double b, factor_f64 c, double difference, const fastkl_task *task);
    double (*far)(double x, double y, scaled ratio, const fastkl_task *task);
    double (*value)(double term, double weight, double difference, const fastkl_task *task);
} divergences[FASTKL_MEASURE_COUNT] = {
#define ROW(name, ...) [FASTKL_##name] = {name##_term, name##_far, name##_value},
    FASTKL_DIVERGENCES(ROW)
#undef ROW
};

/* The sums of the terms of p / P and q / Q, and of the differences of these, with so many bits more. */
typedef struct {
    fastkl_parts term, difference;
} divergence_sums;
static divergence_sums sum_terms(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, scaled P,
                                 scaled Q, int headroom) {
    const int entries = fastkl_entries_of(task->measure);
    const double c = P.significand / Q.significand;
    const double c_low = (fma(-c, Q.significand, P.significand) + (P.low - c * Q.low)) / Q.significand;
    const factor_f64 factor = {c, c_low, 1};
    divergence_sums sums = {{0, 0}, {0, 0}};
    for (ptrdiff_t i = 0; i < n; i++) {
        scaled a = split(clipped_entry(p, i, task->p_eps)), b = split(clipped_entry(q, i, task->eps));
        a.exponent -= P.exponent;
        b.exponent -= Q.exponent;
        const int apart = b.exponent - a.exponent, both = a.significand != 0 && b.significand != 0;
        if (both && -COMPARABLE <= apart && apart <= COMPARABLE) {
            const double near = ldexp(b.significand, apart);
            const double product = difference_of_products(a.significand, Q.significand, P.significand, near);
            const double d = (product + (a.significand * Q.low - P.low * near)) / Q.significand;
            add(&sums.term, ldexp(divergences[entries].term(a.significand, near, factor, d, task), a.exponent + headroom));
            add(&sums.difference, ldexp(d, a.exponent + headroom));
        } else {
            const double x = ldexp(a.significand, a.exponent + headroom);
            const double y = ldexp(c * b.significand, b.exponent + headroom);
            const scaled ratio = {both ? a.significand / (c * b.significand) : a.significand > 0 ? INFINITY : 0, -apart, 0};
            add(&sums.term, divergences[entries].far(x, y, ratio, task));
            add(&sums.difference, x - y);
        }
    }
    return sums;
}

/* A divergence of x and y, or its square root, with q scaled by the exact quotient of P and Q, which may be any two numbers
   for which c q is near p. */
static double divergence(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, scaled sum, scaled P,
                         scaled Q, int headroom) {
    const divergence_sums sums = sum_terms(task, p, q, n, P, Q, headroom);
    const fastkl_parts term = sums.term, difference = sums.difference;
    const double weight = ldexp(sum.significand, sum.exponent - P.exponent + headroom);
    const int retries = headroom >= 0 && task->measure != FASTKL_renyi_divergence; /* renyi_apart has its large values */
    if (!isfinite(term.high)) /* with less room for small terms, it may be finite */
        return retries ? divergence(task, p, q, n, sum, P, Q, headroom > 0 ? 0 : LEAST_HEADROOM) : INFINITY;
    const double part =
        divergences[task->measure].value(term.high + term.low, weight, difference.high + difference.low, task);
    const double value = part > 0 || isnan(part) ? part / weight : 0;
    if (task->root && value < ldexp(1, LEAST_EXPONENT)) /* the quotient may have lost digits */
        return sqrt(part) / sqrt(weight);
    return task->root ? sqrt(value) : value;
}

/* That of weights as they are: both are divided by a power of two that takes no digit of the smallest number, or else, if a
   sum overflows, takes those that the value does not have. */
static double generalized(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const double largest_p = fastkl_entry(p, largest(p, n)), largest_q = clipped_entry(q, largest(q, n), task->eps);
    const scaled unit = {0.5, split(largest_p > largest_q ? largest_p : largest_q).exponent + 1, 0};
    int headroom = unit.exponent > HEADROOM ? unit.exponent : HEADROOM;
    divergence_sums sums = sum_terms(task, p, q, n, unit, unit, headroom);
    if (headroom > HEADROOM && !(isfinite(sums.term.high) && isfinite(sums.difference.high)))
        sums = sum_terms(task, p, q, n, unit, unit, headroom = HEADROOM);
    const double rest = (1 - task->alpha) * (sums.difference.high + sums.difference.low);
    return ldexp((sums.term.high + sums.term.low) + rest, unit.exponent - headroom);
}

/* Scaled to equal sums, which loses nothing unless the divergence is so small that the rounding of the sums counts. (A
   total variation needs the exact quotient of the sums, and loses what is below 2^-106.) Then all entries that matter are
   nearly proportional, and scaling to equal largest entries makes their differences exact. */
static double exact_divergence(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const int renyi = task->measure == FASTKL_renyi_divergence;
    if (renyi && task->alpha < 0.5) { /* alpha D_beta(y || x) / beta */
        const fastkl_task exchanged = fastkl_exchanged(task);
        return exact_divergence(&exchanged, q, p, n) * (task->alpha / task->beta);
    }
    const scaled P = sum_of(p, n, task->p_eps), Q = sum_of(q, n, task->eps);
    const double value = isinf(task->alpha) ? INFINITY : divergence(task, p, q, n, P, P, Q, HEADROOM);
    const double square = task->root ? value * value : value;
    if (renyi && !(value < INFINITY))
        return renyi_apart(task, p, q, n, P, Q);
    if (square >= SMALL_DIVERGENCE || task->measure == FASTKL_total_variation)
        return value;
    const ptrdiff_t at = largest(p, n);
    return divergence(task, p, q, n, P, split(clipped_entry(p, at, task->p_eps)), split(clipped_entry(q, at, task->eps)),
                      HEADROOM);
}

static double cross_entropy(fastkl_operand p, fastkl_operand q, ptrdiff_t n, double eps) {
    const scaled P = sum_of(p, n, 0), Q = sum_of(q, n, eps);
    fastkl_parts term = {0, 0};
    for (ptrdiff_t i = 0; i < n; i++) {
        const double x = ldexp(fastkl_entry(p, i), -P.exponent);
        scaled y = split(clipped_entry(q, i, eps));
        y.significand /= Q.significand;
        y.exponent -= Q.exponent;
        if (x > 0)
            add(&term, -x * (y.exponent > LEAST_EXPONENT ? log(ldexp(y.significand, y.exponent))
                                                         : log(y.significand) + y.exponent * FASTKL_LN2));
    }
    const double value = (term.high + term.low) / P.significand;
    return value > 0 ? value : 0;
}

double fastkl_fallback(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (!fastkl_is_normalized(task->measure))
        return generalized(task, p, q, n);
    if (fastkl_is_divergence(task->measure))
        return exact_divergence(task, p, q, n);
    return q.data ? cross_entropy(p, q, n, task->eps) : cross_entropy(p, p, n, 0); /* of a row with itself */
}
