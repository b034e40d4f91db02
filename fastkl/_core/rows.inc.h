/* Owns the way of rows through a tier: which rows a pass is made over at once, where rows are cut, and what happens to a
   row whose sums are not accepted. A tier file opens a region, includes this and closes it. Knows nothing of entries.

   Where the sums of the first pass do not give the value, the row is still in cache: its entries are checked if the sums
   hint that one is invalid; rescaled passes are made; fallback_rows.c has the value if these are not accepted either. */
#include "operands.h"

/* One sum of each kind in every lane of a vector. */
#define LANES (FASTKL_VECTOR_BITS / REAL_BITS)
#define DOUBLES (FASTKL_VECTOR_BITS / 64)

/* Rows up to this length are transposed, LANES of them at a time, so that each lane has a row. Longer rows fill the lanes
   well enough: adding up the lanes of a row, and what is left beside full columns, then costs less than copying it. The
   length was measured. */
#define MOST_TRANSPOSED (FASTKL_VECTOR_BITS == 512 ? 320 : TILE)

/* Rows up to this length are transposed as a whole, so that their sums stay in registers; longer rows, up to COPIED_STRIP
   columns at a time. Two tiles of 512 bits, with the rows that they are copied from, fill the first cache sooner. */
#define TILE (FASTKL_VECTOR_BITS == 512 ? 160 : FASTKL_VECTOR_BITS == 256 ? 200 : 128)
#define COPIED_STRIP 128

/* Columns of tiles that are copied before the first of them is added, where rows are so short that these are several tiles:
   they stay in the first cache, with the entries that they are copied from. */
#define BATCH 64

/* Up to this length, rows that are copied are prefetched to the first cache, TILE columns of LANES entries ahead; longer
   ones to the second, and twice as far. In 512 bits the first has no room for them beside the tiles and the rows from which
   these are copied: with them, two operands of 50 columns took 1.1 to 1.9 times the time. Narrower vectors have smaller
   tiles, and compute for longer. */
#define MOST_NEAR (FASTKL_VECTOR_BITS == 512 ? 0 : REAL_BITS == 64 ? BATCH : TILE)

/* Integers of so few columns are multiplied before the first pass, whatever the measure is. */
#define MOST_SCALED 128

/* The columns of interleaved rows over which a pass goes before it comes to the next LANES rows. */
#define STRIP 64

/* The most rows over which a pass is made at once. */
#define MOST_ROWS 128

/* The sums of a group of rows, with the rest of what fastkl_sums says of a row. What rounding took
   from the three sums is there only if `keeps_low`, for sums that are to be joined with others. A total variation is
   `corrected` by a second pass. If the pass `scales`, the
   sums are those of multiples of the rows, unless they are `refused`. */
typedef struct {
    double term[MOST_ROWS], other[MOST_ROWS], weight[MOST_ROWS], clipped[MOST_ROWS];
    double p_clipped[MOST_ROWS];
    uint64_t entry_bits[MOST_ROWS], guard_bits[MOST_ROWS];
    int keeps_low, corrected, scales;
    uint64_t refused[MOST_ROWS];
    double term_low[MOST_ROWS], other_low[MOST_ROWS], weight_low[MOST_ROWS];
} group_sums;

/* The sums of a comparison of a group of rows: those of the terms of each measure, of p, of q, and of q - p, which has
   digits that the difference of the other two has not; of the total variation, as its second pass leaves it; the largest
   entries, and whether they are in the same column, which is NaN where that is not known; and the OR of all entries' bits,
   and the guard bits of fastkl_sums, for small entries of p and of q. */
typedef struct {
    double forward[MOST_ROWS], reverse[MOST_ROWS], js[MOST_ROWS], p_log_p[MOST_ROWS], q_log_q[MOST_ROWS];
    double p[MOST_ROWS], q[MOST_ROWS], difference[MOST_ROWS], variation[MOST_ROWS];
    double largest_p[MOST_ROWS], largest_q[MOST_ROWS], same_argmax[MOST_ROWS];
    uint64_t entry_bits[MOST_ROWS], p_guard_bits[MOST_ROWS], q_guard_bits[MOST_ROWS];
} compared_sums;

/* What code that adds up columns is compiled for: whether the measure has a q, whether zeros in q can make it infinite, the
   type of the entries, and whether the measure is common. All are constants. */
typedef struct {
    int pair, infinite, dtype, common;
} traits;

/* The sums of some entries of a row in each lane, of which there are as many as of floats; what rounding took from them;
   the OR of the entries' bits. And the entries that are added at a time. */
#define SUM_LANES (2 * DOUBLES)
#define ADDED_ENTRIES (4 * SUM_LANES)
typedef struct {
    double sum[SUM_LANES], low[SUM_LANES];
    uint64_t bits[SUM_LANES];
} double_sums;

#include "logits_sums.inc.h"
#include "logits_short_sums.inc.h"

#define REAL_BITS 64
#include "pass.inc.h"
#include "compare_accumulate.inc.h"
#include "compare_pass.inc.h"
#include "finish.inc.h"
static const limits limits_f64 = LIMITS;
#undef REAL_BITS
#define REAL_BITS 32
#include "pass.inc.h"
#include "compare_accumulate.inc.h"
#include "compare_pass.inc.h"
static const limits limits_f32 = LIMITS;
#undef REAL_BITS

/* Row i's three sums. */
FASTKL_INLINE row_sums sums_of_row(const group_sums *sums, int i) {
    return (row_sums){sums->term[i], sums->other[i], sums->weight[i], sums->corrected};
}

/* A row's sums as one number each. */
FASTKL_INLINE row_sums rounded(const fastkl_sums *sums) {
    return (row_sums){sums->term + sums->term_low, sums->other + sums->other_low, sums->weight + sums->weight_low, 0};
}

FASTKL_INLINE const limits *limits_of(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q) {
    return in_float(task, p, q) ? &limits_f32 : &limits_f64;
}

#include "rescaled.inc.h"

/* Makes the second pass over row i, if the measure needs one. */
static void correct(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, int i, group_sums *sums) {
    if (task->measure != FASTKL_total_variation)
        return;
    (in_float(task, &p, &q) ? correct_row_f32 : correct_row_f64)(&p, &q, n, i, sums);
    sums->corrected = 1;
}

/* Rows that are passed over before the first of them is finished have
   at most so many entries, so that a rescaled pass finds them in cache. */
#define CACHED_ENTRIES 16384
#define CACHED_ROWS 16

/* Short rows that are transposed, a tile after the other, before the first of them is finished: the fewest, and the entries
   of more. */
#define SHORT_ROWS 32
#define SHORT_ENTRIES 4096

/* The rows over which a pass is best made at once: a property of the layout alone, so that a row's bits do not depend on
   its neighbours or on the threads. Integers that are multiplied before the first pass are so in tiles, or row by row. */
static int group(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    if (interleaved(p, q))
        return MOST_ROWS;
    if (n > (fastkl_is_whole(p->dtype) && fastkl_is_whole(q->dtype) ? TILE : MOST_TRANSPOSED))
        return 1;
    return n * MOST_ROWS <= SHORT_ENTRIES ? MOST_ROWS : SHORT_ROWS;
}

/* The rows that are passed over before the first of them is finished. */
static ptrdiff_t rows_in_cache(int group, ptrdiff_t n) {
    const ptrdiff_t fit = CACHED_ENTRIES / n;
    return group > 1 ? group : fit < 1 ? 1 : fit < CACHED_ROWS ? fit : CACHED_ROWS;
}

/* The sums of the first row, or of a piece of it, in the lanes that suit the operands. */
static void first_pass(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                       fastkl_sums *sums) {
    if (in_float(task, p, q))
        row_pass_f32(task, p, q, n, 1, NULL, sums);
    else
        row_pass_f64(task, p, q, n, 1, NULL, sums);
}

/* The sums of the first row, piece after piece, however wide it is. */
static void pass_over_row(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                          fastkl_sums *sums) {
    first_pass(task, p, q, columns_of_piece(n, 0, FASTKL_PIECE), sums);
    for (ptrdiff_t start = FASTKL_PIECE; start < n; start += FASTKL_PIECE) {
        const fastkl_operand p_piece = moved(p, 0, start), q_piece = moved(q, 0, start);
        fastkl_sums next;
        first_pass(task, &p_piece, &q_piece, columns_of_piece(n, start, FASTKL_PIECE), &next);
        fastkl_join_sums(sums, &next);
    }
}

static void pass(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
                 int rows, fastkl_sums *sums) {
    const ptrdiff_t start = index * piece(p, q), count = columns_of_piece(n, start, piece(p, q));
    const fastkl_operand p_piece = moved(p, 0, start), q_piece = moved(q, 0, start);
    group_sums of;
    if (group(p, q, n) == 1) {
        first_pass(task, &p_piece, &q_piece, count, sums);
        return;
    }
    of.keeps_low = 1, of.corrected = of.scales = 0;
    (in_float(task, p, q) ? group_pass_f32 : group_pass_f64)(task, &p_piece, &q_piece, count, rows, &of);
    for (int i = 0; i < rows; i++)
        sums[i] = (fastkl_sums){of.term[i],      of.other[i],   of.weight[i],     of.term_low[i],  of.other_low[i],
                                of.weight_low[i], of.clipped[i], of.p_clipped[i], of.entry_bits[i],
                                of.guard_bits[i]};
}

/* Is the value of row i right, and is the row valid? It is not accepted where one of the signs is set. */
FASTKL_INLINE int accepted(const fastkl_task *task, int measure, const group_sums *sums, int i, uint64_t signs,
                           const finished *row, const limits *within) {
    return acceptable(measure, row, within) & trusted(sums->term[i], signs, row, within) &
           (fabs(row->sum_of_p - sums->p_clipped[i] - 1) <= task->p_tolerance) &
           (fabs(row->sum_of_q - sums->clipped[i] - 1) <= task->q_tolerance);
}

/* A row's sum, entry by entry. */
static double sum_of_entries(fastkl_operand operand, ptrdiff_t n) {
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        sum += fastkl_entry(operand, i);
    return sum;
}

/* The value and the status of row i, which was not accepted. All entries are valid where no sign is set and the sums are
   finite. */
FASTKL_NOINLINE void finish_unaccepted(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                                       const group_sums *sums, int i, double *value, uint8_t *status) {
    const row_sums of = sums_of_row(sums, i);
    const finished first = finish_sums(task->measure, task, of, 0);
    const int no_terms = fastkl_is_divergence(task->measure) && of.term == 0;
    *value = NAN;
    *status = FASTKL_VALID;
    if ((sums->entry_bits[i] & FASTKL_SIGN) || !isfinite(of.weight + of.other))
        *status = (uint8_t)fastkl_check_entries(p, q, n);
    if (*status)
        return;
    const int q_differs = q.data && differs_from_one(first.sum_of_q - sums->clipped[i], task->q_tolerance);
    /* A sum of p that is a difference from a much larger one of q has lost its digits, and may even seem to be 1. */
    const double sum_of_p =
        fastkl_is_symmetric(task->measure) && q_differs ? sum_of_entries(p, n) : first.sum_of_p - sums->p_clipped[i];
    const int needs_weight = fastkl_is_normalized(task->measure);
    if (differs_from_one(sum_of_p, task->p_tolerance) || (needs_weight && !fastkl_has_weight(p, n, task->p_eps)))
        *status = FASTKL_P_SUM;
    else if (q_differs || (needs_weight && q.data && !fastkl_has_weight(q, n, task->eps)))
        *status = FASTKL_Q_SUM;
    else if (sums->guard_bits[i] & FASTKL_ZERO && fastkl_zero_is_infinite(task))
        *value = INFINITY;
    else if (no_terms && sums->clipped[i] == 0 && !fastkl_order(p, q, n))
        *value = 0;
    /* Logarithms of whole numbers have no signs that could have met in the mean, as cross_entropy_finish assumes. */
    else if (task->measure == FASTKL_cross_entropy && fastkl_is_whole(q.dtype) && sums->clipped[i] == 0 &&
             trusted(of.term, sums->guard_bits[i], &first, limits_of(task, &p, &q)) &&
             loses_little(1.5 * of.term / of.weight + log(of.other), first.value))
        *value = first.value;
    /* A sign alone is that of a zero, and the value is the same as with 0 there. */
    else if (!no_terms &&
             accepted(task, task->measure, sums, i, sums->guard_bits[i], &first, limits_of(task, &p, &q)))
        *value = apply_root(task->root, first.value);
    else
        *value = rescale(task, p, q, n, &first);
}

#include "rescaled_rows.inc.h"

/* The values that the sums give, whether they are accepted, and whether all are; for one measure, and for one `near`. */
FASTKL_INLINE int accept(int measure, int near, const fastkl_task *task, const limits *within, int count,
                         const group_sums *sums, double *value, int64_t *accepts) {
    const fastkl_task constant = *task; /* results could overlap *task, which would keep the loop from being vectorised */
    const limits bounds = *within;
    int64_t all = 1;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const finished row = finish_sums(measure, &constant, sums_of_row(sums, i), near);
        value[i] = row.value;
        accepts[i] = accepted(&constant, measure, sums, i, sums->guard_bits[i] | sums->entry_bits[i], &row, &bounds);
        all &= accepts[i] & (!fastkl_is_divergence(measure) | (sums->term[i] != 0));
    }
    if (constant.root)
        for (int i = 0; i < count; i++)
            value[i] = sqrt(value[i]);
    return (int)all;
}

/* The same, the faster way if the sums of all rows are near, which changes no value. */
FASTKL_INLINE int accept_rows(int measure, const fastkl_task *task, const limits *within, int count,
                              const group_sums *sums, double *value, int64_t *accepts) {
    int64_t near = 1;
    if (!fastkl_is_common(measure) && measure != FASTKL_js_divergence) /* no logarithm would be worth a second loop */
        return accept(measure, 0, task, within, count, sums, value, accepts);
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++)
        near &= has_near_sums(measure, sums_of_row(sums, i));
    return near ? accept(measure, 1, task, within, count, sums, value, accepts)
                : accept(measure, 0, task, within, count, sums, value, accepts);
}

/* Enters a row's sums as row i of a group. */
FASTKL_INLINE void enter(const fastkl_sums *sums, group_sums *to, int i) {
    const row_sums row = rounded(sums);
    to->term[i] = row.term, to->other[i] = row.other, to->weight[i] = row.weight;
    to->clipped[i] = sums->clipped, to->p_clipped[i] = sums->p_clipped;
    to->entry_bits[i] = sums->entry_bits, to->guard_bits[i] = sums->guard_bits;
}

/* Are rows multiplied before the first pass? Of long rows, the first pass is as good for most measures. */
static int scales_first(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    const int can = n <= TILE || (n <= FASTKL_PIECE && group(p, q, n) == 1);
    const int is_short = n <= MOST_SCALED && fastkl_is_normalized(task->measure);
    const int fits = is_short || (fastkl_is_f_divergence(task->measure) && can);
    return fits && task->eps == 0 && fastkl_is_whole(p->dtype) && fastkl_is_whole(q->dtype);
}

/* The value and the status of a row whose multiple was refused, or not accepted: by a pass over the row as it is. */
FASTKL_NOINLINE void finish_refused(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                                    const group_sums *sums, int i, double *value, uint8_t *status) {
    group_sums own;
    if (!sums->refused[i] && !(sums->entry_bits[i] & FASTKL_SIGN) && sums->guard_bits[i] & FASTKL_ZERO &&
        fastkl_zero_is_infinite(task)) {
        *value = INFINITY, *status = FASTKL_VALID;
        return;
    }
    own.keeps_low = own.corrected = own.scales = 0;
    if (group(&p, &q, n) > 1) {
        group_pass_f64(task, &p, &q, n, 1, &own);
    } else {
        fastkl_sums of;
        pass_over_row(task, &p, &q, n, &of);
        enter(&of, &own, 0);
        correct(task, p, q, n, 0, &own);
    }
    finish_unaccepted(task, p, q, n, &own, 0, value, status);
}

/* The values and the statuses of a group of rows, from its sums. A divergence without terms is that of equal rows, or of
   rows whose terms are too small for a number. */
static void finish_rows(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int count,
                        const group_sums *sums, double *value, uint8_t *status) {
    const int divergence = fastkl_is_divergence(task->measure);
    int64_t accepts[MOST_ROWS];
    int all = 0;
    fastkl_task own = *task;
    if (sums->scales) /* the sums of the rows themselves were compared */
        own.p_tolerance = own.q_tolerance = INFINITY;
    switch (task->measure) {
#define ROW(name, ...)                                                                              \
    case FASTKL_##name:                                                                             \
        all = accept_rows(FASTKL_##name, &own, limits_of(task, p, q), count, sums, value, accepts); \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    default:
        memset(accepts, 0, sizeof accepts); /* never reached: it tells GCC 16 that all entries which are read are set */
    }
    for (int i = 0; i < count; i++)
        status[i] = FASTKL_VALID;
    for (int i = 0; sums->scales && i < count; i++)
        if (!accepts[i] || sums->refused[i])
            finish_refused(task, moved(p, i, 0), moved(q, i, 0), n, sums, i, &value[i], &status[i]);
    /* What clips, entropies of whole numbers, and Renyi's orders above 1 have ways of their own. */
    const int alone = task->measure == FASTKL_renyi_divergence && task->alpha >= 1;
    if (!all && !sums->scales && n <= MOST_RESCALED && task->eps == 0 && rescalers[task->measure] && !alone &&
        !fastkl_is_whole(p->dtype) && !fastkl_is_whole(q->dtype))
        rescale_group(task, p, q, (int)n, count, sums, value, accepts);
    for (int i = 0; !all && !sums->scales && i < count; i++) {
        const int no_terms = divergence && sums->term[i] == 0;
        if (!accepts[i] || no_terms) {
            const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0);
            if (!accepts[i] || sums->clipped[i] > 0 || fastkl_order(p_row, q_row, n))
                finish_unaccepted(task, p_row, q_row, n, sums, i, &value[i], &status[i]);
        }
    }
}

static void finish(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                   const fastkl_sums *sums, double *value, uint8_t *status) {
    group_sums one;
    one.corrected = one.scales = 0;
    enter(sums, &one, 0);
    correct(task, *p, *q, n, 0, &one);
    finish_rows(task, p, q, n, 1, &one, value, status);
}

/* The interleaved rows whose sums are joined at once: 128 would take 18 of the 128 kB of a thread's stack under musl. */
#define JOINED_ROWS 16

/* The sums of `count` interleaved rows that are wider than a piece. */
FASTKL_NOINLINE void join_pieces(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                 int count, group_sums *to) {
    fastkl_sums sums[JOINED_ROWS], next[JOINED_ROWS];
    for (int first = 0; first < count; first += JOINED_ROWS) {
        const int now = count - first < JOINED_ROWS ? count - first : JOINED_ROWS;
        const fastkl_operand p_rows = moved(p, first, 0), q_rows = moved(q, first, 0);
        for (ptrdiff_t index = 0; index * FASTKL_INTERLEAVED_PIECE < n; index++) {
            pass(task, &p_rows, &q_rows, n, index, now, index ? next : sums);
            for (int i = 0; index && i < now; i++)
                fastkl_join_sums(&sums[i], &next[i]);
        }
        for (int i = 0; i < now; i++) {
            enter(&sums[i], to, first + i);
            correct(task, moved(&p_rows, i, 0), moved(&q_rows, i, 0), n, first + i, to);
        }
    }
}

/* The sums of `count` rows, passed over one after the other: the lanes of DOUBLES rows are added at once, which
   gives the same bits. */
static void pass_over_rows(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                           int count, group_sums *to) {
    const int is_float = in_float(task, p, q);
    int i = 0;
    for (; n <= FASTKL_PIECE && i + DOUBLES <= count; i += DOUBLES)
        (is_float ? rows_pass_f32 : rows_pass_f64)(task, p, q, n, to, i);
    for (int k = 0; k < i; k++)
        correct(task, moved(p, k, 0), moved(q, k, 0), n, k, to);
    for (; i < count; i++) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0);
        fastkl_sums of;
        pass_over_row(task, &p_row, &q_row, n, &of);
        enter(&of, to, i);
        correct(task, p_row, q_row, n, i, to);
    }
}

static void rows(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                 double *value, uint8_t *status) {
    const int lanes = group(p, q, n);
    const ptrdiff_t step = rows_in_cache(lanes, n);
    for (ptrdiff_t i = 0; i < count; i += step) {
        const fastkl_operand p_rows = moved(p, i, 0), q_rows = moved(q, i, 0);
        const int now = (int)(count - i < step ? count - i : step);
        group_sums sums;
        sums.corrected = 0, sums.scales = scales_first(task, &p_rows, &q_rows, n);
        if (lanes > 1 && n > FASTKL_INTERLEAVED_PIECE) {
            join_pieces(task, &p_rows, &q_rows, n, now, &sums);
        } else if (lanes > 1) {
            sums.keeps_low = 0;
            (in_float(task, p, q) ? group_pass_f32 : group_pass_f64)(task, &p_rows, &q_rows, n, now, &sums);
        } else if (sums.scales) {
            for (int k = 0; k < now; k++) {
                const fastkl_operand p_row = moved(&p_rows, k, 0), q_row = moved(&q_rows, k, 0);
                fastkl_sums of;
                sums.refused[k] = whole_row_pass_f64(task, &p_row, &q_row, n, &of);
                enter(&of, &sums, k);
            }
        } else {
            pass_over_rows(task, &p_rows, &q_rows, n, now, &sums);
        }
        finish_rows(task, &p_rows, &q_rows, n, now, &sums, &value[i], &status[i]);
    }
}

#include "logits_pieces.inc.h"
#include "logits_values.inc.h"
#include "logits_rows.inc.h"
#include "logits_short_rows.inc.h"
#include "nll.inc.h"
#include "logits_compare.inc.h"
#include "logits_short_compare.inc.h"
#include "compare.inc.h"
#include "coded_rows.inc.h"
#include "coarsen.inc.h"
