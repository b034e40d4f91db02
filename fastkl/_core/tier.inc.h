/* Everything that a tier has: a tier file opens a region, includes this and closes the region. Here sums become values.

   A row that the first look does not settle is looked at again, still in cache: to see that its entries are valid, if the
   sums hint at the contrary; with an operand scaled so that both sums agree; in the last resort by careful.c. */
#define REAL_BITS 64
#include "rows.inc.h"
#undef REAL_BITS
#define REAL_BITS 32
#include "rows.inc.h"
#undef REAL_BITS

/* Enough to take the factor from rough sums to a double, and on to its low part. */
#define SECOND_LOOKS 4

/* Below, an error of 2^-107 in that factor, squared, could be seen in a divergence. */
#define SMALL_VALUE 0x1p-150

/* What a look's sums say. `value` is NaN where the look does not settle the row. */
typedef struct {
    double sum_of_p, sum_of_q, excess, value;
} reading;

static reading read_sums(int measure, const fastkl_sums *sums) {
    const double term = sums->term + sums->term_low, other = sums->other + sums->other_low;
    const double weight = sums->weight + sums->weight_low;
    const fastkl_totals totals = {term, other, weight};
    switch (measure) {
#define ROW(name, pair, sum_of_q, excess) \
    case FASTKL_##name:                   \
        return (reading){weight, sum_of_q, excess, name##_finish(totals)};
        FASTKL_MEASURES(ROW)
#undef ROW
    }
    return (reading){NAN, NAN, NAN, NAN};
}

/* Double lanes, unless both operands are float32 and eps, which has no exact float, is not in play. */
FASTKL_INLINE int in_float(const fastkl_task *task, fastkl_operand p, fastkl_operand q) {
    return p.dtype == FASTKL_float32 && q.dtype == FASTKL_float32 && task->eps == 0;
}

/* The first look at the index-th piece of a row. */
static void piece(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, ptrdiff_t index,
                          fastkl_sums *sums) {
    const ptrdiff_t start = index * FASTKL_PIECE, left = n - start, count = left < FASTKL_PIECE ? left : FASTKL_PIECE;
    p.data += start * p.col;
    q.data += q.data ? start * q.col : 0;
    memset(sums, 0, sizeof *sums);
    if (in_float(task, p, q))
        first_look_f32(task, p, q, count, sums);
    else
        first_look_f64(task, p, q, count, sums);
}

/* Adds a piece's sums to those of the pieces before it. */
static void add_piece(fastkl_sums *sums, const fastkl_sums *next) {
    add_f64(&sums->term, &sums->term_low, next->term);
    add_f64(&sums->other, &sums->other_low, next->other);
    add_f64(&sums->weight, &sums->weight_low, next->weight);
    sums->term_low += next->term_low;
    sums->other_low += next->other_low;
    sums->weight_low += next->weight_low;
    sums->raised += next->raised;
    sums->entry_bits |= next->entry_bits;
    sums->guard_bits |= next->guard_bits;
}

/* A valid row that the first look did not settle: scale an operand, and look at it in double. */
static double look_again(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const reading *first) {
    double c = (first->sum_of_q + first->excess) / first->sum_of_q, c_low = 0;
    if (!(c > 0 && c < 0x1p40)) /* the sum of q, found as a difference, may have lost all digits */
        c = fastkl_quotient(task, p, q, n);
    for (int i = 0; i < SECOND_LOOKS; i++) {
        int exponent;
        const double high = 2 * frexp(c, &exponent), power = ldexp(1, exponent - 1);
        fastkl_sums sums = {0};
        second_look(task, p, q, n, power, high, c_low / power, &sums);
        const reading now = read_sums(task->measure, &sums);
        if (!trusted_f64(&sums, now.sum_of_q))
            break;
        if (now.value >= SMALL_VALUE)
            return now.value;
        const double before = c;
        c_low += c * (now.excess / now.sum_of_q);
        c += c_low;
        c_low -= c - before;
    }
    return fastkl_careful(task, p, q, n);
}

/* Does a sum miss 1 by more than the tolerance? An infinite tolerance accepts any. */
static int misses_one(double sum, double tolerance) { return tolerance < INFINITY && !(fabs(sum - 1) <= tolerance); }

/* A row's value and status from the sums of a first look. No entry is invalid where no sign is set and the sums are finite. */
static void conclude(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const fastkl_sums *sums,
                     double *value, uint8_t *status) {
    const reading first = read_sums(task->measure, sums);
    const int trusted = in_float(task, p, q) ? trusted_f32(sums, first.sum_of_q) : trusted_f64(sums, first.sum_of_q);
    *value = NAN;
    *status = FASTKL_VALID;
    if ((sums->entry_bits & FASTKL_SIGN) || !isfinite(sums->weight + sums->other))
        *status = (uint8_t)fastkl_check_entries(p, q, n);
    if (*status)
        return;
    if (misses_one(first.sum_of_p, task->p_tolerance) || first.sum_of_p == 0)
        *status = FASTKL_P_SUM;
    else if (q.data && misses_one(first.sum_of_q - sums->raised, task->q_tolerance))
        *status = FASTKL_Q_SUM;
    else if (q.data && !trusted && !fastkl_has_weight(q, n, task->eps))
        *status = FASTKL_Q_SUM;
    else if (trusted && first.value == first.value)
        *value = first.value;
    else if ((sums->guard_bits & FASTKL_SIGN) && fastkl_is_infinite(task, p, q, n))
        *value = INFINITY;
    else
        *value = look_again(task, p, q, n, &first);
}

static void rows(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, ptrdiff_t count, double *value,
                 uint8_t *status) {
    for (ptrdiff_t i = 0; i < count; i++, p.data += p.row, q.data += q.data ? q.row : 0) {
        fastkl_sums sums, next;
        piece(task, p, q, n, 0, &sums);
        for (ptrdiff_t index = 1; index * FASTKL_PIECE < n; index++) {
            piece(task, p, q, n, index, &next);
            add_piece(&sums, &next);
        }
        conclude(task, p, q, n, &sums, &value[i], &status[i]);
    }
}

static void finish(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const fastkl_sums *pieces,
                   double *value, uint8_t *status) {
    fastkl_sums sums = pieces[0];
    for (ptrdiff_t index = 1; index * FASTKL_PIECE < n; index++)
        add_piece(&sums, &pieces[index]);
    conclude(task, p, q, n, &sums, value, status);
}
