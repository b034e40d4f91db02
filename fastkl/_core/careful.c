/* Rows that the vectorised looks do not settle: entries to be told valid from invalid one by one, subnormal numbers, sums
   that overflow, quotients beyond any float. Plain double arithmetic, entry after entry, compiled once, the same on every tier.

   Every number is kept as m 2^e with m in [1/2, 1), so that nothing overflows or is flushed, and p's and q's exponents count
   from those of the largest entry. */
#include "fastkl.h"

#include <math.h>
#include <string.h>

/* Sums are kept 2^HEADROOM times larger than p relative to its largest entry: room for small divergences. */
#define HEADROOM 900
#define LN2 0x1.62e42fefa39efp-1

static double entry_at(fastkl_operand operand, ptrdiff_t i) {
    switch (operand.dtype) {
#define ROW(name, type)                                                     \
    case FASTKL_##name: {                                                   \
        type entry;                                                         \
        memcpy(&entry, operand.data + i * operand.col, sizeof entry);       \
        return (double)entry;                                               \
    }
        FASTKL_DTYPES(ROW)
#undef ROW
    }
    return NAN;
}

static double raised_entry_at(fastkl_operand operand, ptrdiff_t i, double eps) {
    const double entry = entry_at(operand, i);
    return entry < eps ? eps : entry;
}

static int all_valid(fastkl_operand operand, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double entry = entry_at(operand, i);
        if (!(entry >= 0 && entry < INFINITY))
            return 0;
    }
    return 1;
}

int fastkl_check_entries(fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (!all_valid(p, n))
        return FASTKL_P_ENTRY;
    return q.data && !all_valid(q, n) ? FASTKL_Q_ENTRY : FASTKL_VALID;
}

int fastkl_is_infinite(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    for (ptrdiff_t i = 0; q.data && i < n; i++)
        if (entry_at(p, i) > 0 && raised_entry_at(q, i, task->eps) == 0)
            return 1;
    return 0;
}

int fastkl_has_weight(fastkl_operand operand, ptrdiff_t n, double eps) {
    for (ptrdiff_t i = 0; i < n; i++)
        if (raised_entry_at(operand, i, eps) > 0)
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

/* A row's sum: significand 2^exponent, the exponent being that of its largest entry. */
typedef struct {
    double significand;
    int exponent;
} scaled_sum;

static scaled_sum sum_of(fastkl_operand operand, ptrdiff_t n, double eps) {
    double largest = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        largest = fmax(largest, raised_entry_at(operand, i, eps));
    scaled_sum result;
    frexp(largest, &result.exponent);
    total sum = {0, 0};
    for (ptrdiff_t i = 0; i < n; i++)
        add(&sum, ldexp(raised_entry_at(operand, i, eps), -result.exponent));
    result.significand = sum.sum + sum.low;
    return result;
}

/* 2 atanh(s) - 2s for |s| <= 0.6, by its series: 2 s^3/3 + 2 s^5/5 + ... */
static double atanh_tail(double s) {
    const double z = s * s;
    double power = 2 * s * z, sum = 0;
    for (int i = 3; i < 75; i += 2, power *= z) /* 0.6^75 < 2^-55 */
        sum += power / i;
    return sum;
}

/* a log(a/b) - d for a, b = c y > 0 of similar size and d = a - b, exact but for rounding. */
static double phi_near(double a, double b, double d) {
    const double s = d / (a + b);
    return fabs(s) <= 0.6 ? s * d + a * atanh_tail(s) : a * log(a / b) - d;
}

static double careful_kl_divergence(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    const scaled_sum p_sum = sum_of(p, n, 0), q_sum = sum_of(q, n, task->eps);
    const double c = p_sum.significand / q_sum.significand;
    total term = {0, 0}, difference = {0, 0};
    for (ptrdiff_t i = 0; i < n; i++) {
        int p_exponent, q_exponent;
        const double p_part = frexp(entry_at(p, i), &p_exponent);
        const double q_part = frexp(raised_entry_at(q, i, task->eps), &q_exponent);
        p_exponent -= p_sum.exponent;
        q_exponent -= q_sum.exponent;
        const int apart = q_exponent - p_exponent;
        const double x = ldexp(p_part, p_exponent + HEADROOM), y = ldexp(c * q_part, q_exponent + HEADROOM);
        if (p_part == 0 || q_part == 0) {
            add(&term, p_part > 0 ? INFINITY : y);
            add(&difference, x - y);
        } else if (-64 <= apart && apart <= 64) {
            const double near = ldexp(q_part, apart), d = fma(-c, near, p_part);
            add(&term, ldexp(phi_near(p_part, c * near, d), p_exponent + HEADROOM));
            add(&difference, ldexp(d, p_exponent + HEADROOM));
        } else {
            add(&term, x * (log(p_part / (c * q_part)) - apart * LN2 - 1) + y);
            add(&difference, x - y);
        }
    }
    const double weight = ldexp(p_sum.significand, HEADROOM), d = difference.sum + difference.low;
    const double value = (term.sum + term.low - 0.5 * d * (d / weight)) / weight;
    return value > 0 ? value : 0;
}

/* Entropy is the cross-entropy of a row with itself. */
static double careful_cross_entropy(fastkl_operand p, fastkl_operand q, ptrdiff_t n, double eps) {
    const scaled_sum p_sum = sum_of(p, n, 0), q_sum = sum_of(q, n, eps);
    total term = {0, 0};
    for (ptrdiff_t i = 0; i < n; i++) {
        int q_exponent;
        const double x = ldexp(entry_at(p, i), -p_sum.exponent);
        const double q_part = frexp(raised_entry_at(q, i, eps), &q_exponent) / q_sum.significand;
        q_exponent -= q_sum.exponent;
        if (entry_at(p, i) == 0)
            continue;
        add(&term, -x * (q_exponent > -1000 ? log(ldexp(q_part, q_exponent)) : log(q_part) + q_exponent * LN2));
    }
    const double value = (term.sum + term.low) / p_sum.significand;
    return value > 0 ? value : 0;
}

double fastkl_careful(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    switch (task->measure) {
    case FASTKL_entropy:
        return careful_cross_entropy(p, p, n, 0);
    case FASTKL_cross_entropy:
        return careful_cross_entropy(p, q, n, task->eps);
    case FASTKL_kl_divergence:
        return careful_kl_divergence(task, p, q, n);
    }
    return NAN;
}
