/* Rows of logits that the vectorised looks do not settle: differences beyond any float, weights that underflow where their
   logarithms count. Plain double arithmetic, entry after entry, compiled once, the same on every tier.

   Weights are kept as logarithms. A difference of logits is kept as a double and what its rounding took from it. */
#include "fastkl.h"

#include <math.h>

/* Above, the logarithm of a weight has an exponential that is no subnormal number. */
#define LEAST_LOGARITHM -700
/* Below, a weight leaves nothing of a difference of any two doubles:
   the logarithm of the least double by twice the largest. */
#define MOST_LOST -1456
/* Above, the exponential of a sum's logarithm may not be a double. */
#define BEYOND 600
/* Above, differences of logits by temperature are not known well enough. */
#define FAR 1e9
#define LN2 0x1.62e42fefa39efp-1

/* A row, as logarithms of weights whose largest is 1: of probabilities by the largest, or of logits less the largest, by
   temperature. No weight is below `least`. */
typedef struct {
    const fastkl_task *task;
    fastkl_operand operand;
    ptrdiff_t n;
    double scale, most, log_sum, least;
} row;

typedef struct {
    double high, low;
} parts;

/* A compensated sum (Neumaier). */
static void add(parts *to, double x) {
    const double sum = to->high + x;
    to->low += fabs(to->high) >= fabs(x) ? (to->high - sum) + x : (x - sum) + to->high;
    to->high = sum;
}

static double total(parts sum) { return isfinite(sum.high) ? sum.high + sum.low : sum.high; }

/* a - b, exactly, if that is no larger than any double (Knuth). */
static parts minus(double a, double b) {
    const double high = a - b, part = a - high;
    return (parts){high, isfinite(high) ? (a - (high + part)) + (part - b) : 0};
}

/* A difference of logits by temperature. */
static parts scaled(parts x, double scale) {
    const double product = x.high * scale;
    if (x.high == 0) /* whatever the scale is */
        return x;
    return (parts){product, isfinite(product) ? fma(x.high, scale, -product) + x.low * scale : 0};
}

/* a - b by temperature, also where that is a double and a - b is not. */
static parts difference(double a, double b, double scale) {
    const int far = fabs(a) >= 0x1p1022 || fabs(b) >= 0x1p1022;
    return far ? scaled(minus(a / 2, b / 2), 2 * scale) : scaled(minus(a, b), scale);
}

/* log(x/y) for x <= y, also where the quotient is no normal number. */
static double log_of_quotient(double x, double y) { return x / y > 0x1p-1000 ? log(x / y) : log(x) - log(y); }

/* The logarithm of an entry's weight. */
static double log_weight(const row *from, ptrdiff_t i) {
    const double x = fastkl_entry(from->operand, i);
    double logarithm;
    if (from->operand.logits)
        logarithm = x == -INFINITY ? x : total(difference(x, from->most, from->scale));
    else
        logarithm = x > 0 ? log_of_quotient(x, from->most) : -INFINITY;
    return logarithm > from->least ? logarithm : from->least;
}

static double total_weight(const row *of) {
    parts sum = {0, 0};
    for (ptrdiff_t i = 0; fastkl_goes_on(of->task, i, of->n); i++)
        add(&sum, exp(log_weight(of, i)));
    return total(sum);
}

static row row_of(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n, double eps) {
    row result = {task, operand, n, operand.logits ? task->scale : 1, operand.logits ? -INFINITY : 0, 0, -INFINITY};
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++)
        result.most = fastkl_entry(operand, i) > result.most ? fastkl_entry(operand, i) : result.most;
    if (!operand.logits && eps > 0) {
        result.most = result.most > eps ? result.most : eps;
        result.least = log_of_quotient(eps, result.most);
    }
    for (int pass = 0; pass < (operand.logits && eps > 0 ? 2 : 1); pass++) {
        if (pass == 1) /* what is raised is normalised before, too */
            result.least = log(eps) + result.log_sum;
        result.log_sum = log(total_weight(&result));
    }
    return result;
}

/* x times an entry's weight, also where that alone would underflow. A probability's is a quotient: of a small one's
   logarithm, rounded, the exponential is worse. */
static double times(const row *from, ptrdiff_t i, double x) {
    const double logarithm = log_weight(from, i), quotient = fastkl_entry(from->operand, i) / from->most;
    if (x == 0 || logarithm == -INFINITY || (isinf(x) && logarithm + log(from->scale) < MOST_LOST))
        return 0;
    if (!from->operand.logits && from->least == -INFINITY && quotient > 0x1p-1000)
        return quotient * x;
    return logarithm > LEAST_LOGARITHM ? exp(logarithm) * x : copysign(exp(logarithm + log(fabs(x))), x);
}

/* Has an entry no weight, be it ever so small? */
static int absent(const row *from, ptrdiff_t i) {
    return from->least == -INFINITY && fastkl_entry(from->operand, i) <= (from->operand.logits ? -INFINITY : 0);
}

/* By how much the rows' largest logits are apart, if log(q/p) of entries are to be differences of logits as they stand: if
   these are known well enough. Else they are differences of weights, which count from each row's largest. */
static int alike(const row *p, const row *q, parts *apart) {
    *apart = (parts){0, 0};
    if (!p->operand.logits || !q->operand.logits || q->least > -INFINITY)
        return 0;
    const parts largest = difference(q->most, p->most, p->scale);
    if (!(fabs(largest.high) < FAR))
        return 0;
    *apart = largest;
    return 1;
}

/* log(q/p) of an entry that p has, less what `alike` says that is apart. */
static parts log_quotient(const row *p, const row *q, int as_they_stand, ptrdiff_t i) {
    if (as_they_stand)
        return difference(fastkl_entry(q->operand, i), fastkl_entry(p->operand, i), p->scale);
    return minus(log_weight(q, i), log_weight(p, i));
}

/* psi(x) = e^x - 1 - x, for x that is no large one. */
static double psi(double x) {
    double term = x * x / 2, sum = 0;
    if (fabs(x) > 0.5)
        return expm1(x) - x;
    for (int i = 3; i < 18; i++, term *= x / (i - 1))
        sum += term;
    return sum;
}

static double cross_entropy(const row *p, const row *q) {
    const double weight = total_weight(p);
    parts sum = {0, 0};
    for (ptrdiff_t i = 0; fastkl_goes_on(p->task, i, p->n); i++) {
        if (!absent(p, i) && absent(q, i))
            return INFINITY;
        add(&sum, times(p, i, (q->log_sum - log_weight(q, i)) / weight)); /* whose sum may be no double */
    }
    return total(sum) > 0 ? total(sum) : 0;
}

/* D = log E[e^x] of x = log(q/p) less its mean; where e^x is beyond a double, of its logarithm. */
static double divergence(const row *p, const row *q) {
    parts apart;
    const int as_they_stand = alike(p, q, &apart);
    const double weight = total_weight(p);
    parts excess = {0, 0}, rest = {0, 0};
    double mean = 0, mean_low = 0, most = -INFINITY;
    for (int pass = 0; pass < 2; pass++) { /* the second time, of what is left */
        parts first = {0, 0};
        for (ptrdiff_t i = 0; fastkl_goes_on(p->task, i, p->n); i++) {
            if (absent(p, i))
                continue;
            if (absent(q, i))
                return INFINITY;
            const parts x = log_quotient(p, q, as_they_stand, i);
            if (log_weight(p, i) > -INFINITY)
                add(&first, times(p, i, (x.high - mean) + x.low));
        }
        const parts sum = minus(mean, -total(first) / weight);
        mean = sum.high, mean_low = sum.low;
    }
    if (!(fabs(mean) < 2 * FAR)) /* so is D, or more than any double */
        return cross_entropy(p, q) - cross_entropy(p, p);
    const double shift = (apart.high - mean) + (apart.low - mean_low); /* of q's weights, to count as p's do */
    for (ptrdiff_t i = 0; fastkl_goes_on(p->task, i, p->n); i++)
        most = log_weight(q, i) > most ? log_weight(q, i) : most;
    most += shift;
    if (most > BEYOND)
        return most + (q->log_sum - log(weight));
    for (ptrdiff_t i = 0; fastkl_goes_on(p->task, i, p->n); i++) {
        const double a = log_weight(p, i), b = exp(log_weight(q, i) + shift);
        if (a == -INFINITY) {
            add(&excess, b);
        } else {
            const parts x = log_quotient(p, q, as_they_stand, i);
            const double now = (x.high - mean) + (x.low - mean_low);
            add(&rest, times(p, i, now));
            add(&excess, fabs(now) < 1 ? times(p, i, psi(now)) : b - times(p, i, 1 + now));
        }
    }
    const double left = total(rest) / weight, value = log1p(total(excess) / weight + left) - left;
    return value > 0 ? value : 0;
}

/* JS, of (p + q) g(u), u = tanh(x/2): see logits.inc.h. */
static double js(const row *p, const row *q) {
    parts apart, sum = {0, 0};
    const int as_they_stand = alike(p, q, &apart);
    for (ptrdiff_t i = 0; fastkl_goes_on(p->task, i, p->n); i++) {
        const double a = log_weight(p, i), b = log_weight(q, i);
        const double both = exp(a - p->log_sum) + exp(b - q->log_sum);
        const parts x = log_quotient(p, q, as_they_stand, i);
        double now = fabs(((x.high - apart.high) - (q->log_sum - p->log_sum)) + (x.low - apart.low));
        if (!(a > -INFINITY && b > -INFINITY))
            now = INFINITY;
        double g = 0;
        if (now < 0.5) {
            const double u = tanh(now / 2), z = u * u;
            double power = z;
            for (int k = 1; k < 20; k++, power *= z)
                g += power / (k * (2 * k - 1));
        } else {
            const double e = exp(-now);
            g = 2 * LN2 - 2 * log1p(e) - (now < BEYOND ? 2 * e * now / (1 + e) : 0);
        }
        add(&sum, both * g);
    }
    return total(sum) / 4 < LN2 ? total(sum) / 4 : LN2;
}

double fastkl_careful_logits(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const row a = row_of(task, p, n, 0), b = q.data ? row_of(task, q, n, task->eps) : a;
    switch (task->measure) {
    case FASTKL_kl_divergence:
        return divergence(&a, &b);
    case FASTKL_js_divergence:
        return js(&a, &b);
    }
    return cross_entropy(&a, &b);
}

double fastkl_careful_loss(const fastkl_task *task, fastkl_operand q, ptrdiff_t n, ptrdiff_t label) {
    const row from = row_of(task, q, n, task->eps);
    const double loss = from.log_sum - log_weight(&from, label);
    parts sum = {0, 0};
    for (ptrdiff_t i = 0; task->smoothing > 0 && fastkl_goes_on(task, i, n); i++)
        add(&sum, (from.log_sum - log_weight(&from, i)) / (double)n); /* whose sum may be no double */
    const double value = fastkl_smoothed(task, loss, total(sum));
    return value > 0 ? value : 0;
}
