/* Everything that a tier has: a tier file opens a region, includes this and closes the region. Here sums become values.

   A row that the first look does not settle is looked at again, still in cache: to see that its entries are valid, if the
   sums hint at the contrary; with an operand scaled so that both sums agree; in the last resort by careful.c. */
typedef struct {
    double sum_least, sum_most, term_least;
} limits;

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

/* Rows up to this length are looked at together: longer ones fill the lanes well enough. */
#define SHORT 64
#define MOST_TOGETHER 16

/* What a look's sums say. `value` is NaN where the look does not settle the row. */
typedef struct {
    double sum_of_p, sum_of_q, excess, value;
} reading;

FASTKL_INLINE reading read_sums(int measure, const fastkl_sums *sums) {
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

/* Can the sums be trusted, whatever the measure? */
FASTKL_INLINE int trusted(const fastkl_sums *sums, const reading *now, const limits *within) {
    const double p = now->sum_of_p, q = now->sum_of_q, term = sums->term;
    return !(sums->guard_bits & FASTKL_SIGN) & (p >= within->sum_least) & (p <= within->sum_most) & (q >= within->sum_least) &
           (q <= within->sum_most) & ((term == 0) | (fabs(term) >= within->term_least));
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
        if (!trusted(&sums, &now, &limits_f64))
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

/* The value and the status of a row that the first look did not settle, or found invalid. No entry is invalid where no sign is
   set and the sums are finite. */
static void conclude_unsettled(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                               const fastkl_sums *sums, double *value, uint8_t *status) {
    const reading first = read_sums(task->measure, sums);
    *value = NAN;
    *status = FASTKL_VALID;
    if ((sums->entry_bits & FASTKL_SIGN) || !isfinite(sums->weight + sums->other))
        *status = (uint8_t)fastkl_check_entries(p, q, n);
    if (*status)
        return;
    if (misses_one(first.sum_of_p, task->p_tolerance) || first.sum_of_p == 0)
        *status = FASTKL_P_SUM;
    else if (q.data && (misses_one(first.sum_of_q - sums->raised, task->q_tolerance) || !fastkl_has_weight(q, n, task->eps)))
        *status = FASTKL_Q_SUM;
    else if ((sums->guard_bits & FASTKL_SIGN) && fastkl_is_infinite(task, p, q, n))
        *value = INFINITY;
    else
        *value = look_again(task, p, q, n, &first);
}

/* The values that the sums of first looks give, and whether they settle their rows. */
FASTKL_INLINE void settle(int measure, const fastkl_task *task, const limits *within, int count, const fastkl_sums *sums,
                          double *value, int64_t *settled) {
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const reading now = read_sums(measure, &sums[i]);
        value[i] = now.value;
        settled[i] = trusted(&sums[i], &now, within) & !(sums[i].entry_bits & FASTKL_SIGN) & (now.value == now.value) &
                     (fabs(now.sum_of_p - 1) <= task->p_tolerance) &
                     (fabs(now.sum_of_q - sums[i].raised - 1) <= task->q_tolerance);
    }
}

/* The values and statuses of up to MOST_TOGETHER rows, from the sums of first looks. */
static void conclude(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, int count,
                     const fastkl_sums *sums, double *value, uint8_t *status) {
    const limits *const within = in_float(task, p, q) ? &limits_f32 : &limits_f64;
    int64_t settled[MOST_TOGETHER] = {0};
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                                          \
    case FASTKL_##name:                                                            \
        settle(FASTKL_##name, task, within, count, sums, value, settled);          \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
    for (int i = 0; i < count; i++, p.data += p.row, q.data += q.data ? q.row : 0) {
        status[i] = FASTKL_VALID;
        if (!settled[i])
            conclude_unsettled(task, p, q, n, &sums[i], &value[i], &status[i]);
    }
}

/* A row by itself, piece by piece. */
static void one_row(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, double *value, uint8_t *status) {
    fastkl_sums sums, next;
    piece(task, p, q, n, 0, &sums);
    for (ptrdiff_t index = 1; index * FASTKL_PIECE < n; index++) {
        piece(task, p, q, n, index, &next);
        add_piece(&sums, &next);
    }
    conclude(task, p, q, n, 1, &sums, value, status);
}

/* How many rows are looked at together: one unless they would not fill the lanes, or are neighbours in memory. That follows from
   the operands' layout alone, so that a row's value does not depend on its place, its neighbours or the threads. */
static int together(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n) {
    if (in_float(task, p, q))
        return n <= SHORT || (neighbours_f32(p) && (!q.data || neighbours_f32(q))) ? 64 / sizeof(float) : 1;
    return n <= SHORT || (neighbours_f64(p) && (!q.data || neighbours_f64(q))) ? 64 / sizeof(double) : 1;
}

static void rows(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, ptrdiff_t count, double *value,
                 uint8_t *status) {
    const int at_once = together(task, p, q, n);
    for (ptrdiff_t i = 0; i < count; i += at_once) {
        const int now = count - i < at_once ? (int)(count - i) : at_once;
        if (at_once == 1) {
            one_row(task, p, q, n, &value[i], &status[i]);
        } else {
            fastkl_sums sums[MOST_TOGETHER] = {{0}};
            (in_float(task, p, q) ? first_look_together_f32 : first_look_together_f64)(task, p, q, n, now, sums);
            conclude(task, p, q, n, now, sums, &value[i], &status[i]);
        }
        p.data += at_once * p.row;
        q.data += q.data ? at_once * q.row : 0;
    }
}

static void finish(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const fastkl_sums *pieces,
                   double *value, uint8_t *status) {
    fastkl_sums sums = pieces[0];
    for (ptrdiff_t index = 1; index * FASTKL_PIECE < n; index++)
        add_piece(&sums, &pieces[index]);
    conclude(task, p, q, n, 1, &sums, value, status);
}
