/* Rows that the vectorised looks do not settle: entries to be told valid from invalid
   one by one, subnormal numbers, sums that overflow, quotients beyond any float.
   Plain double arithmetic, entry after entry, compiled once, the same on every tier.

   Every number is kept as m 2^e with m in [1/2, 1), so that nothing overflows or is flushed, and p's and q's exponents
   count from those of the largest entry. */
#include "fastkl.h"

#include <math.h>
#include <string.h>

/* Sums are kept 2^HEADROOM times larger than p relative to its largest entry: room for small divergences. */
#define HEADROOM 900
/* Below, the rounding of the sums to 2^-53, squared, could be seen. Of nearly equal rows, JS is an eighth of D. */
#define SMALL_DIVERGENCE 0x1p-100
#define LN2 0x1.62e42fefa39efp-1

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

static double raised_entry_at(fastkl_operand operand, ptrdiff_t i, double eps) {
    const double entry = fastkl_entry(operand, i);
    return entry < eps ? eps : entry;
}

static int all_valid(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n) {
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++) {
        const double entry = fastkl_entry(operand, i);
        if (!((entry >= 0 || (operand.logits && entry < 0)) && entry < INFINITY))
            return 0;
    }
    return 1;
}

int fastkl_check_entries(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (!all_valid(task, p, n))
        return FASTKL_P_ENTRY;
    return q.data && !all_valid(task, q, n) ? FASTKL_Q_ENTRY : FASTKL_VALID;
}

/* Have all entries, of this size, the same bytes? */
static inline int same_bytes(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, ptrdiff_t size) {
    if (p.col == size && q.col == size) {
        for (ptrdiff_t i = 0, count; fastkl_goes_on(task, i, n); i += count) {
            count = n - i < FASTKL_LONG ? n - i : FASTKL_LONG;
            if (memcmp(p.data + i * size, q.data + i * size, (size_t)(count * size)))
                return 0;
        }
    } else {
        for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++)
            if (memcmp(p.data + i * p.col, q.data + i * q.col, (size_t)size))
                return 0;
    }
    return 1;
}

int fastkl_order(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const ptrdiff_t size = fastkl_size(p.dtype);
    if (p.dtype == q.dtype && p.swapped == q.swapped &&
        (size == 4   ? same_bytes(task, p, q, n, 4) /* sizes that the compiler knows */
         : size == 8 ? same_bytes(task, p, q, n, 8)
                     : same_bytes(task, p, q, n, size)))
        return 0;
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++) {
        const double a = fastkl_entry(p, i), b = fastkl_entry(q, i);
        if (a != b)
            return a < b ? -1 : 1;
    }
    return 0;
}

int fastkl_has_weight(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n, double eps) {
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++)
        if (operand.logits ? fastkl_entry(operand, i) > -INFINITY : raised_entry_at(operand, i, eps) > 0)
            return 1;
    return 0;
}

/* A compensated sum (Neumaier). */
typedef struct {
    double sum, low;
} total;

static void add(total *to, double x) {
    const double sum = to->sum + x;
    to->low += fabs(to->sum) >= fabs(x) ? (to->sum - sum) + x : (x - sum) + to->sum;
    to->sum = sum;
}

/* significand 2^exponent */
typedef struct {
    double significand;
    int exponent;
} scaled;

static scaled split(double x) {
    scaled result;
    result.significand = frexp(x, &result.exponent);
    return result;
}

/* Where a row's largest entry is. */
static ptrdiff_t largest(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n) {
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 1; fastkl_goes_on(task, i, n); i++)
        if (fastkl_entry(operand, i) > fastkl_entry(operand, at))
            at = i;
    return at;
}

/* A row's sum; the exponent is that of its largest entry. */
static scaled sum_of(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n, double eps) {
    const int exponent = split(raised_entry_at(operand, largest(task, operand, n), eps)).exponent;
    total sum = {0, 0};
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++)
        add(&sum, ldexp(raised_entry_at(operand, i, eps), -exponent));
    return (scaled){sum.sum + sum.low, exponent};
}

double fastkl_quotient(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const scaled Q = sum_of(task, q.data ? q : p, n, task->eps);
    const int one = task->measure == FASTKL_entropy || task->measure == FASTKL_cross_entropy;
    const scaled wanted = one ? (scaled){1, 0} : sum_of(task, p, n, 0);
    return ldexp(wanted.significand / Q.significand, wanted.exponent - Q.exponent);
}

/* 2 atanh(s) - 2s for |s| <= 0.6, by its series: 2 s^3/3 + 2 s^5/5 + ... */
static double atanh_tail(double s) {
    const double z = s * s;
    double power = 2 * s * z, sum = 0;
    for (int i = 3; i < 75; i += 2, power *= z) /* 0.6^75 < 2^-55 */
        sum += power / i;
    return sum;
}

/* a log(a/b) - d for a, b > 0 and d = a - b, known better than a - b can be. */
static double phi(double a, double b, double d) {
    const double s = d / (a + b);
    return fabs(s) <= 0.6 ? s * d + a * atanh_tail(s) : a * log(a / b) - d;
}

/* phi(a, m) + phi(b, m) for m = (a + b) / 2, likewise. */
static double phi_of_both(double a, double b, double d) {
    const double mean = (a + b) / 2;
    return phi(a, mean, d / 2) + phi(b, mean, -d / 2);
}

/* a b - c d, exact but for one rounding where the products nearly agree. */
static double difference_of_products(double a, double b, double c, double d) {
    const double ab = a * b, cd = c * d;
    return (ab - cd) + (fma(a, b, -ab) - fma(c, d, -cd));
}

/* D(x || y), looked at with q scaled by the exact quotient P/Q. Any quotient will do: (sum of phi(p, c q) - phi(P, c Q)) /
   P. Or their JS, or its square root: with phi_of_both for phi and 2P for P; a quotient near P/Q will do. */
static double divergence(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, scaled sum, scaled P,
                         scaled Q) {
    const int js = task->measure == FASTKL_js_divergence;
    const double c = P.significand / Q.significand;
    total term = {0, 0}, difference = {0, 0};
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++) {
        scaled a = split(fastkl_entry(p, i)), b = split(raised_entry_at(q, i, task->eps));
        a.exponent -= P.exponent;
        b.exponent -= Q.exponent;
        const int apart = b.exponent - a.exponent;
        const double x = ldexp(a.significand, a.exponent + HEADROOM);
        const double y = ldexp(c * b.significand, b.exponent + HEADROOM);
        if (a.significand == 0 || b.significand == 0) {
            add(&term, js ? (x + y) * LN2 : y);
            add(&difference, x - y);
        } else if (-64 <= apart && apart <= 64) {
            const double near = ldexp(b.significand, apart);
            const double d = difference_of_products(a.significand, Q.significand, P.significand, near) / Q.significand;
            add(&term, ldexp((js ? phi_of_both : phi)(a.significand, c * near, d), a.exponent + HEADROOM));
            add(&difference, ldexp(d, a.exponent + HEADROOM));
        } else {
            add(&term, js ? (x + y) * LN2 : x * (log(a.significand / (c * b.significand)) - apart * LN2 - 1) + y);
            add(&difference, x - y);
        }
    }
    const double weight = ldexp(sum.significand, sum.exponent - P.exponent + HEADROOM), d = difference.sum + difference.low;
    const double excess = term.sum + term.low - (js ? phi_of_both : phi)(weight, weight - d, d);
    const double part = excess > 0 ? js ? excess / 2 : excess : 0;
    const double value = task->root ? sqrt(part) / sqrt(weight) : part / weight;
    const double most = !js ? INFINITY : task->root ? sqrt(LN2) : LN2;
    return value < most ? value : most;
}

/* Scaled to equal sums, which loses nothing unless the divergence is so small that the rounding of the sums counts. Then
   all entries that matter are nearly proportional, and scaling to equal largest entries makes their differences exact. */
static double careful_divergence(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const scaled P = sum_of(task, p, n, 0), Q = sum_of(task, q, n, task->eps);
    const double value = divergence(task, p, q, n, P, P, Q);
    const double square = task->root ? value * value : value;
    if ((task->measure == FASTKL_js_divergence ? 8 * square : square) >= SMALL_DIVERGENCE)
        return value;
    const ptrdiff_t at = largest(task, p, n);
    return divergence(task, p, q, n, P, split(fastkl_entry(p, at)), split(raised_entry_at(q, at, task->eps)));
}

/* Entropy is the cross-entropy of a row with itself. */
static double careful_cross_entropy(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, double eps) {
    const scaled P = sum_of(task, p, n, 0), Q = sum_of(task, q, n, eps);
    total term = {0, 0};
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++) {
        const double x = ldexp(fastkl_entry(p, i), -P.exponent);
        scaled y = split(raised_entry_at(q, i, eps));
        y.significand /= Q.significand;
        y.exponent -= Q.exponent;
        if (x > 0)
            add(&term,
                -x * (y.exponent > -1000 ? log(ldexp(y.significand, y.exponent)) : log(y.significand) + y.exponent * LN2));
    }
    const double value = (term.sum + term.low) / P.significand;
    return value > 0 ? value : 0;
}

double fastkl_careful(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    switch (task->measure) {
    case FASTKL_entropy:
        return careful_cross_entropy(task, p, p, n, 0);
    case FASTKL_cross_entropy:
        return careful_cross_entropy(task, p, q, n, task->eps);
    case FASTKL_kl_divergence:
    case FASTKL_js_divergence:
        return careful_divergence(task, p, q, n);
    }
    return NAN;
}
