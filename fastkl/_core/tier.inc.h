/* Everything that a tier has: a tier file opens a region, includes this and closes the region. Here sums become values.

   A row that the first look does not settle is looked at again, still in cache: to see that its entries are valid, if the
   sums hint at the contrary; with an operand scaled so that both sums agree; in the last resort by careful.c. */
typedef struct {
    double sum_least, sum_most, term_least, excess_most;
} limits;

/* A row's three sums; and those of some rows, with what else looks found: fastkl_sums says what it is. */
typedef struct {
    double term, other, weight;
} row_sums;

#define MOST_AT_ONCE 128
typedef struct {
    double term[MOST_AT_ONCE], other[MOST_AT_ONCE], weight[MOST_AT_ONCE], raised[MOST_AT_ONCE];
    uint64_t entry_bits[MOST_AT_ONCE], guard_bits[MOST_AT_ONCE];
} totals;

/* sum + low += x, exactly but for the rounding of low (Knuth's two-sum). */
FASTKL_INLINE void two_sum(double *sum, double *low, double x) {
    const double total = *sum + x, x_part = total - *sum;
    *low += (*sum - (total - x_part)) + (x - x_part);
    *sum = total;
}

/* One sum of each kind in every lane of a vector. */
#define LANES (FASTKL_VECTOR_BITS / REAL_BITS)

/* Rows up to this length are turned, LANES of them into a tile, and looked at together. Longer ones fill the lanes well
   enough, and would leave no room in the first cache. */
#define TILE 128

/* Columns of rows that are neighbours in memory that are looked at before the next rows' are. */
#define STRIP 64

/* After so many entries, of all rows that are looked at before any is concluded: is the call off? */
FASTKL_INLINE int is_off(const fastkl_task *task, ptrdiff_t entries) {
    return entries > FASTKL_LONG && fastkl_is_off(task);
}

#include "moments.inc.h"

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

/* Rows that are looked at before any is concluded hold no more
   entries than this, so that a second look finds them in cache. */
#define ENTRIES_AT_ONCE 16384
#define ROWS_AT_ONCE 16

/* Rows that are turned, a tile after the other, before any is concluded. */
#define SHORT_ROWS_AT_ONCE 32

/* What a look's sums say, whatever the measure. */
typedef struct {
    double sum_of_p, sum_of_q, excess;
    int symmetric, divergence;
    conclusion row;
} reading;

FASTKL_INLINE reading read_sums(int measure, row_sums sums) {
    const double other = sums.other, weight = sums.weight;
    switch (measure) {
#define ROW(name, pair, infinite, symmetric, divergence, sum_of_p, sum_of_q, excess) \
    case FASTKL_##name:                                                              \
        return (reading){sum_of_p, sum_of_q, excess, symmetric, divergence, name##_finish(sums)};
        FASTKL_MEASURES(ROW)
#undef ROW
    }
    return (reading){NAN, NAN, NAN, 0, 0, {NAN, 0}};
}

/* A row's sums as one number each. */
FASTKL_INLINE row_sums rounded(const fastkl_sums *sums) {
    return (row_sums){sums->term + sums->term_low, sums->other + sums->other_low, sums->weight + sums->weight_low};
}

/* Double lanes, unless both operands want no more than float and eps, which has no exact float, is not in play. */
FASTKL_INLINE int in_float(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q) {
    return fastkl_is_single(p->dtype) && fastkl_is_single(q->dtype) && task->eps == 0;
}

/* So many bytes on; where there is no row, nowhere: C does not count from a null pointer, not even 0. */
FASTKL_INLINE const char *further(const char *data, ptrdiff_t bytes) { return data ? data + bytes : NULL; }

/* The first look at the index-th piece of a row whose entries start at the data given. */
static void look_at_piece(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const char *p_data,
                          const char *q_data, ptrdiff_t n, ptrdiff_t index, fastkl_sums *sums) {
    const ptrdiff_t start = index * FASTKL_PIECE, left = n - start, count = left < FASTKL_PIECE ? left : FASTKL_PIECE;
    (in_float(task, p, q) ? first_look_f32 : first_look_f64)(task, p, q, p_data + start * p->col,
                                                             further(q_data, start * q->col), count, sums);
}

static void piece(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
                  fastkl_sums *sums) {
    look_at_piece(task, p, q, p->data, q->data, n, index, sums);
}

/* Adds a piece's sums to those of the pieces before it. */
static void add_piece(fastkl_sums *sums, const fastkl_sums *next) {
    two_sum(&sums->term, &sums->term_low, next->term);
    two_sum(&sums->other, &sums->other_low, next->other);
    two_sum(&sums->weight, &sums->weight_low, next->weight);
    sums->term_low += next->term_low;
    sums->other_low += next->other_low;
    sums->weight_low += next->weight_low;
    sums->raised += next->raised;
    sums->entry_bits |= next->entry_bits;
    sums->guard_bits |= next->guard_bits;
}

/* The first look at a whole row whose entries start at the data given, piece by piece. */
static void look_at_pieces(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const char *p_data,
                           const char *q_data, ptrdiff_t n, fastkl_sums *sums) {
    fastkl_sums next;
    look_at_piece(task, p, q, p_data, q_data, n, 0, sums);
    for (ptrdiff_t index = 1; fastkl_goes_on(task, index * FASTKL_PIECE, n); index++) {
        look_at_piece(task, p, q, p_data, q_data, n, index, &next);
        add_piece(sums, &next);
    }
}

/* Can the sums be trusted, whatever the measure? Not where one of the signs is set. */
FASTKL_INLINE int trusted(double term, uint64_t signs, const reading *now, const limits *within) {
    const double p = now->sum_of_p, q = now->sum_of_q;
    return ((int64_t)signs >= 0) & (p >= within->sum_least) & (p <= within->sum_most) & (q >= within->sum_least) &
           (q <= within->sum_most) & ((term == 0) | (fabs(term) >= within->term_least));
}

/* Do the sums settle the value, if they can be trusted? Not where p and q weigh the same but have different sums. */
FASTKL_INLINE int settled_value(const reading *now, const limits *within) {
    const int equal = fabs(now->excess) <= within->excess_most * (now->sum_of_p + now->sum_of_q);
    return now->row.settled & (!now->symmetric || equal);
}

/* Does the first look settle row i, of which it says `now`? It does not where one of the signs is set. */
FASTKL_INLINE int settles(const totals *rows, int i, uint64_t signs, const reading *now, const limits *within,
                          double p_tolerance, double q_tolerance) {
    return settled_value(now, within) & trusted(rows->term[i], signs, now, within) &
           (fabs(now->sum_of_p - 1) <= p_tolerance) & (fabs(now->sum_of_q - rows->raised[i] - 1) <= q_tolerance);
}

/* What is asked for, from the measure's value. */
FASTKL_INLINE double asked(int root, double value) { return root ? sqrt(value) : value; }

/* A valid row that the first look, of which `first` tells, did not settle: scale an operand, and look at it in double. */
static double look_again(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, const reading *first) {
    double c = (first->sum_of_q + first->excess) / first->sum_of_q, c_low = 0;
    if (first->symmetric && fastkl_order(task, p, q, n) > 0) { /* the same operand is scaled, whichever it is called */
        const fastkl_operand before = p;
        p = q, q = before, c = (first->sum_of_p - first->excess) / first->sum_of_p;
    }
    if (!(c > 0 && c < 0x1p40)) /* the sum of q, found as a difference, may have lost all digits */
        c = fastkl_quotient(task, p, q, n);
    for (int i = 0; i < SECOND_LOOKS; i++) {
        int exponent = 0; /* c may be no number if the call is off; frexp then need not set it */
        const double high = 2 * frexp(c, &exponent), power = ldexp(1, exponent - 1);
        fastkl_sums sums;
        second_look(task, p, q, n, power, high, c_low / power, &sums);
        const reading now = read_sums(task->measure, rounded(&sums));
        if (!trusted(sums.term, sums.guard_bits, &now, &limits_f64))
            break;
        if (settled_value(&now, &limits_f64) && now.row.value >= SMALL_VALUE)
            return asked(task->root, now.row.value);
        const double before = c;
        c_low += c * (now.excess / now.sum_of_q);
        c += c_low;
        c_low -= c - before;
    }
    return fastkl_careful(task, p, q, n);
}

/* Does a sum miss 1 by more than the tolerance? An infinite tolerance accepts any. */
static int misses_one(double sum, double tolerance) { return tolerance < INFINITY && !(fabs(sum - 1) <= tolerance); }

/* A row's sum, entry by entry. */
static double sum_of_entries(const fastkl_task *task, fastkl_operand operand, ptrdiff_t n) {
    double sum = 0;
    for (ptrdiff_t i = 0; fastkl_goes_on(task, i, n); i++)
        sum += fastkl_entry(operand, i);
    return sum;
}

/* The value and the status of row i, which the first look did not settle, or found invalid. No entry is invalid where no
   sign is set and the sums are finite. */
static void conclude_unsettled(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                               const limits *within, const totals *rows, int i, double *value, uint8_t *status) {
    const row_sums sums = {rows->term[i], rows->other[i], rows->weight[i]};
    const reading first = read_sums(task->measure, sums);
    *value = NAN;
    *status = FASTKL_VALID;
    if ((rows->entry_bits[i] & FASTKL_SIGN) || !isfinite(sums.weight + sums.other))
        *status = (uint8_t)fastkl_check_entries(task, p, q, n);
    if (*status)
        return;
    const int q_misses = q.data && misses_one(first.sum_of_q - rows->raised[i], task->q_tolerance);
    /* A sum of p that was found beside a much larger one of q has lost its digits, and may even seem to be 1. */
    const double sum_of_p = first.symmetric && q_misses ? sum_of_entries(task, p, n) : first.sum_of_p;
    if (misses_one(sum_of_p, task->p_tolerance) || !fastkl_has_weight(task, p, n, 0))
        *status = FASTKL_P_SUM;
    else if (q_misses || (q.data && !fastkl_has_weight(task, q, n, task->eps)))
        *status = FASTKL_Q_SUM;
    else if (rows->guard_bits[i] & FASTKL_ZERO)
        *value = INFINITY;
    else if (first.divergence && sums.term == 0 && rows->raised[i] == 0 && !fastkl_order(task, p, q, n))
        *value = 0;
    else {
        /* If only a sign was in the way, it is that of a zero: the value is no other than with a 0 there. */
        const int settled = !(first.divergence && sums.term == 0) &&
                            settles(rows, i, rows->guard_bits[i], &first, within, task->p_tolerance, task->q_tolerance);
        *value = settled ? asked(task->root, first.row.value) : look_again(task, p, q, n, &first);
    }
}

/* The values that the sums of first looks give, and whether they settle their rows. */
FASTKL_INLINE void settle(int measure, const fastkl_task *task, const limits *within, int count, const totals *rows,
                          double *value, int64_t *settled) {
    const double p_tolerance = task->p_tolerance, q_tolerance = task->q_tolerance;
    const limits bounds = *within;
    const int root = task->root;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const reading now = read_sums(measure, (row_sums){rows->term[i], rows->other[i], rows->weight[i]});
        value[i] = asked(root, now.row.value);
        settled[i] = settles(rows, i, rows->guard_bits[i] | rows->entry_bits[i], &now, &bounds, p_tolerance, q_tolerance);
    }
}

/* The values and statuses of up to MOST_AT_ONCE rows, from the sums of first looks. A divergence without terms is that of
   equal rows, or of others whose terms are too small for a number. */
static void conclude(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const char *p_data,
                     const char *q_data, ptrdiff_t n, int count, const totals *rows, double *value, uint8_t *status) {
    const limits *const within = in_float(task, p, q) ? &limits_f32 : &limits_f64;
    int64_t settled[MOST_AT_ONCE];
    int diverges = 0;
    switch (task->measure) {
#define ROW(name, pair, infinite, symmetric, divergence, ...)             \
    case FASTKL_##name:                                                   \
        settle(FASTKL_##name, task, within, count, rows, value, settled); \
        diverges = divergence;                                            \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
    for (int i = 0; i < count; i++) {
        const int without_terms = diverges && rows->term[i] == 0;
        status[i] = FASTKL_VALID;
        if (!settled[i] || without_terms) {
            fastkl_operand p_row = *p, q_row = *q;
            p_row.data = p_data + i * p->row;
            q_row.data = further(q_data, i * q->row);
            if (!settled[i] || rows->raised[i] > 0 || fastkl_order(task, p_row, q_row, n)) {
                if (is_off(task, count * n))
                    return;
                conclude_unsettled(task, p_row, q_row, n, within, rows, i, &value[i], &status[i]);
            }
        }
    }
}

/* Enters a row's sums as row i. */
FASTKL_INLINE void enter(const fastkl_sums *sums, totals *rows, int i) {
    const row_sums row = rounded(sums);
    rows->term[i] = row.term, rows->other[i] = row.other, rows->weight[i] = row.weight;
    rows->raised[i] = sums->raised, rows->entry_bits[i] = sums->entry_bits, rows->guard_bits[i] = sums->guard_bits;
}

/* How many rows are looked at together: one unless they would not fill the lanes, or are neighbours in memory. That follows
   from the operands' layout alone, so that a row's value does not depend on its place, its neighbours or the threads. */
static int together(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    if (in_a_column(p) ? !q->data || in_a_column(q) || q->row == 0 : p->row == 0 && q->data && in_a_column(q))
        return MOST_AT_ONCE;
    return n <= TILE ? SHORT_ROWS_AT_ONCE : 1;
}

/* How many are looked at before any is concluded. */
static ptrdiff_t rows_at_once(int lanes, ptrdiff_t n) {
    const ptrdiff_t fit = ENTRIES_AT_ONCE / n;
    return lanes > 1 ? lanes : fit < 1 ? 1 : fit < ROWS_AT_ONCE ? fit : ROWS_AT_ONCE;
}

static void rows(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                 double *value, uint8_t *status) {
    const int lanes = together(p, q, n);
    const ptrdiff_t at_once = rows_at_once(lanes, n);
    const char *p_data = p->data, *q_data = q->data;
    for (ptrdiff_t i = 0; i < count; i += at_once) {
        const int now = (int)(count - i < at_once ? count - i : at_once);
        totals found;
        if (lanes > 1) {
            (in_float(task, p, q) ? first_look_together_f32 : first_look_together_f64)(task, p, q, p_data, q_data, n, now,
                                                                                       &found);
        } else {
            for (int k = 0; k < now; k++) {
                fastkl_sums sums;
                look_at_pieces(task, p, q, p_data + k * p->row, further(q_data, k * q->row), n, &sums);
                enter(&sums, &found, k);
            }
        }
        if (is_off(task, now * n))
            return;
        conclude(task, p, q, p_data, q_data, n, now, &found, &value[i], &status[i]);
        p_data += at_once * p->row;
        q_data = further(q_data, at_once * q->row);
    }
}

static void finish(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                   const fastkl_sums *pieces, double *value, uint8_t *status) {
    fastkl_sums sums = pieces[0];
    totals found;
    for (ptrdiff_t index = 1; fastkl_goes_on(task, index * FASTKL_PIECE, n); index++)
        add_piece(&sums, &pieces[index]);
    enter(&sums, &found, 0);
    conclude(task, p, q, p->data, q->data, n, 1, &found, value, status);
}

#include "softmax.inc.h"
