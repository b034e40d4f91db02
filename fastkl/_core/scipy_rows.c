/* Owns the sums of p log(p/q), and of p log(p/q) - p + q, that have SciPy's value whatever the entries are: of rows that
   the passes refuse, or for which they would lose digits. Plain double arithmetic, compiled once, the same on every tier.
   Knows nothing of lanes, blocks of rows and results. */
#include "operands.h"
#include "sums.h"

#define SMALLEST_NORMAL 0x1p-1022
#define LANES 8 /* sums that need not wait for each other */
#define CHUNK 256 /* entries of both operands that are in double at a time */

/* Do rows hold doubles, or floats, side by side, aligned and in this machine's byte order? */
static int are_plain_floats(const fastkl_operand *p, const fastkl_operand *q) {
    const size_t size = (size_t)fastkl_size(p->dtype);
    const size_t places = (size_t)p->data | (size_t)q->data | (size_t)p->row | (size_t)q->row;
    return (p->dtype == FASTKL_float64 || p->dtype == FASTKL_float32) && p->dtype == q->dtype && in_a_row(p) &&
           in_a_row(q) && places % size == 0;
}

/* The next `count` entries of a row, from `first` on, in double. */
static void read_entries(const fastkl_operand *row, ptrdiff_t first, ptrdiff_t count, double *to) {
    float floats[CHUNK];
    if (row->dtype == FASTKL_float64 && in_a_row(row)) {
        memcpy(to, row->data + first * row->col, (size_t)count * sizeof *to);
    } else if (row->dtype == FASTKL_float32 && in_a_row(row)) {
        memcpy(floats, row->data + first * row->col, (size_t)count * sizeof *floats);
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] = floats[i];
    } else {
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] = fastkl_entry(*row, first + i);
    }
}

/* SciPy's rel_entr of p > 0 and q > 0, to the last bits. */
static double rel_entr(double p, double q) {
    const double ratio = p / q;
    if (0.5 < ratio && ratio < 2)
        return p * log1p((p - q) / q);
    return p * (SMALLEST_NORMAL < ratio && ratio < INFINITY ? log(ratio) : log(p) - log(q));
}

/* Which infinite terms a row has. */
typedef struct {
    int positive, negative;
} infinities;

/* Finds the infinite terms of entries that are infinite or negative, or of which q is 0 and p is not. Returns whether a
   term is NaN. */
static int find_infinities(const double *p, const double *q, ptrdiff_t count, int is_rel_entr, infinities *found) {
    for (ptrdiff_t i = 0; i < count; i++) {
        const double a = p[i], b = q[i];
        /* Once there is an infinite term, entries that are finite change nothing. */
        if (a < INFINITY && b < INFINITY && (found->positive || (b > 0 && a >= 0) || (b == 0 && a == 0)))
            continue;
        if (isnan(a) || isnan(b))
            return 1;
        if (a > 0 && b == INFINITY) {
            if (!is_rel_entr || a == INFINITY)
                return 1;
            found->negative = 1;
        } else if (!is_rel_entr && a == INFINITY && b > 0) {
            return 1;
        } else if (!(is_rel_entr && a == 0 && b == INFINITY)) {
            found->positive = 1;
        }
    }
    return 0;
}

/* The sum of a row's terms. That of p log(p/q) - p + q is called only for rows with a term that is not finite. */
double fastkl_sum_as_scipy(int is_rel_entr, const fastkl_operand *first_p, const fastkl_operand *first_q, ptrdiff_t n,
                           ptrdiff_t row, int is_valid) {
    const fastkl_operand p = moved(first_p, row, 0), q = moved(first_q, row, 0);
    double total = 0, low = 0, a[CHUNK], b[CHUNK];
    infinities found = {0};
    for (ptrdiff_t i = 0, count; i < n && !is_valid; i += count) {
        count = n - i < CHUNK ? n - i : CHUNK;
        read_entries(&p, i, count, a);
        read_entries(&q, i, count, b);
        if (find_infinities(a, b, count, is_rel_entr, &found))
            return NAN;
    }
    if (found.positive)
        return found.negative ? NAN : INFINITY;
    for (ptrdiff_t i = 0, count; i < n; i += count) {
        count = n - i < CHUNK ? n - i : CHUNK;
        read_entries(&p, i, count, a);
        read_entries(&q, i, count, b);
        for (ptrdiff_t j = 0; j < count; j++)
            if (a[j] > 0)
                two_sum(&total, &low, rel_entr(a[j], b[j]));
    }
    return isfinite(total) ? total + low : total;
}

/* One for each type: rows that are read into doubles first, as above, take 40 % longer for it. */
static double sum_of_double_differences(const double *p, const double *q, ptrdiff_t n) {
    double sums[LANES] = {0};
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            sums[k] += q[i + k] - p[i + k];
    for (; i < n; i++)
        sums[0] += q[i] - p[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static double sum_of_float_differences(const float *p, const float *q, ptrdiff_t n) {
    double sums[LANES] = {0};
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            sums[k] += q[i + k] - p[i + k];
    for (; i < n; i++)
        sums[0] += q[i] - p[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* Adds to `values` the sums of q - p of so many rows, to some digits. Returns 0, and adds nothing, if the rows are not
   plain floats. */
int fastkl_add_differences(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t rows, double *values) {
    if (!are_plain_floats(p, q))
        return 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const char *a = p->data + i * p->row, *b = q->data + i * q->row;
        if (p->dtype == FASTKL_float64)
            values[i] += sum_of_double_differences((const double *)a, (const double *)b, n);
        else
            values[i] += sum_of_float_differences((const float *)a, (const float *)b, n);
    }
    return 1;
}
