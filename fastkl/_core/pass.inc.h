/* Owns the passes: the entries of rows go into three sums, and are read once. In REAL. Knows nothing of what the sums mean.

   The successive entries of a row are dealt out to the lanes. Where rows are too short for that, or are neighbours in
   memory, a pass is made over LANES rows at once, of which each lane has one. */
#include "real.inc.h"
#include "logratio.inc.h"
#include "exponential.inc.h"
#include "measures.inc.h"
#include "convert.inc.h"
#include "accumulate.inc.h"
#include "transpose.inc.h"
#include "load.inc.h"
#include "fold.inc.h"
#include "row_sums.inc.h"
#include "whole_numbers.inc.h"
#include "logits_pass.inc.h"
#include "logits_short.inc.h"

/* Adds a row, or a piece of one, to lanes that are clear: in a first pass where c is NULL, else in a rescaled pass, with
   one operand multiplied by `power`, a power of two, and then by c. The sums get what clipping adds, and the bits of what
   is clipped. */
FASTKL_INLINE void NAME(add_row)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                 REAL power, const NAME(factor) *c, NAME(lanes) *lanes, fastkl_sums *sums) {
    const REAL p_eps = NAME(p_eps)(task), eps = NAME(eps)(task);
    const NAME(factor) one = NAME(no_factor)(task);
    const int pair = q->data != NULL, converts = fastkl_is_common(task->measure);
    const int p_fits = !c && in_a_row(p) && !(p_eps > 0), q_fits = pair ? !c && in_a_row(q) && !(eps > 0) : p_fits;
    const int dtype =
        converts && p_fits && q_fits && p->dtype == q->dtype && NAME(goes_in)(p->dtype) ? p->dtype : REAL_DTYPE;
    const int p_in_place = p_fits && p->dtype == dtype, q_in_place = q_fits && q->dtype == dtype;
    const ptrdiff_t most = p_in_place && q_in_place ? n : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], *const scaled = pair ? q_chunk : p_chunk;
    for (ptrdiff_t start = 0, count; start < n; start += count) {
        count = n - start < most ? n - start : most;
        const NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, p_in_place);
        const NAME(columns) q_now =
            pair ? NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, q_in_place) : p_now;
        if (p_eps > 0)
            NAME(clip)(p_chunk, (int)count, p_eps, &sums->p_clipped, &sums->entry_bits);
        if (pair && eps > 0)
            NAME(clip)(q_chunk, (int)count, eps, &sums->clipped, &sums->entry_bits);
        if (c)
            for (int i = 0; i < count; i++)
                scaled[i] *= power;
        NAME(adders)[fastkl_terms_of(task)][c != NULL](lanes, &p_now, &q_now, count / LANES, c ? c : &one);
    }
}

/* The sums of a row, or of a piece of one; add_row says which. */
FASTKL_NOINLINE void NAME(row_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                    REAL power, const NAME(factor) *c, fastkl_sums *sums) {
    NAME(lanes) lanes;
    NAME(clear)(&lanes);
    sums->clipped = sums->p_clipped = 0, sums->entry_bits = 0;
    NAME(add_row)(task, p, q, n, power, c, &lanes, sums);
    NAME(collect)(&lanes, sums);
}

/* The first pass over as many rows as a vector has doubles, one after the other. */
FASTKL_NOINLINE void NAME(rows_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                     group_sums *to, int first) {
    NAME(lanes) lanes[DOUBLES];
    fastkl_sums sums = {0};
    for (int i = 0; i < DOUBLES; i++) {
        const fastkl_operand p_row = moved(p, first + i, 0), q_row = moved(q, first + i, 0);
        NAME(clear)(&lanes[i]);
        sums.clipped = sums.p_clipped = 0, sums.entry_bits = 0;
        NAME(add_row)(task, &p_row, &q_row, n, 1, NULL, &lanes[i], &sums);
        to->clipped[first + i] = sums.clipped, to->p_clipped[first + i] = sums.p_clipped;
        to->entry_bits[first + i] = sums.entry_bits;
    }
    NAME(collect_rows)(lanes, to, first);
}

/* Gives the sums of each lane to its row, from row `first` of the group on, or adds them to what the row has. */
FASTKL_INLINE void NAME(give)(const NAME(lanes) *lanes, group_sums *to, int first, int add) {
    double *const term = to->term + first, *const other = to->other + first, *const weight = to->weight + first;
    uint64_t *const entry_bits = to->entry_bits + first, *const guard_bits = to->guard_bits + first;
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const double of_term = (double)lanes->term.sum[j] + (double)lanes->term.low[j];
        const double of_other = (double)lanes->other.sum[j] + (double)lanes->other.low[j];
        const double of_weight = (double)lanes->weight.sum[j] + (double)lanes->weight.low[j];
        term[j] = add ? term[j] + of_term : of_term;
        other[j] = add ? other[j] + of_other : of_other;
        weight[j] = add ? weight[j] + of_weight : of_weight;
        entry_bits[j] |= (uint64_t)(lanes->p_bits[j] | NAME(bits)(lanes->least_q[j])) << (64 - REAL_BITS);
        guard_bits[j] |= (uint64_t)lanes->guard_bits[j] << (64 - REAL_BITS);
    }
}

/* What rounding to a double took from a lane's sum: nothing that counts from a sum in float. */
FASTKL_INLINE double NAME(low_of)(const NAME(lane_sum) *sum, int j, double rounded) {
    return REAL_BITS == 64 ? ((double)sum->sum[j] - rounded) + (double)sum->low[j] : 0;
}

/* Gives the rows of a group, from row `first` on, what rounding took from their sums. */
FASTKL_NOINLINE void NAME(give_low)(const NAME(lanes) *lanes, group_sums *to, int first) {
    for (int j = 0; j < LANES; j++) {
        to->term_low[first + j] = NAME(low_of)(&lanes->term, j, to->term[first + j]);
        to->other_low[first + j] = NAME(low_of)(&lanes->other, j, to->other[first + j]);
        to->weight_low[first + j] = NAME(low_of)(&lanes->weight, j, to->weight[first + j]);
    }
}

/* Gives the sums of each lane to its row, or adds them to what the row has. */
FASTKL_INLINE void NAME(give_sum)(const NAME(lane_sum) *sum, double *to, int add) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        to[j] = (add ? to[j] : 0) + ((double)sum->sum[j] + (double)sum->low[j]);
}

#include "total_variation.inc.h"
#include "tiles.inc.h"

/* The columns of a strip of up to LANES rows. What stands where it is used is prefetched STRIP columns ahead; in place of
   what is copied, the next LANES rows are. */
FASTKL_INLINE NAME(columns) NAME(strip_of)(REAL *copy, int holds, const fastkl_operand *from, int count, int first,
                                           int rows, NAME(clipping) by) {
    const NAME(tiles) tile = NAME(tiles_of)(copy, holds, from, count, first, rows, by);
    NAME(columns) columns = NAME(columns_of_tile)(&tile, count, 0);
    const char *const data = from->data + first * from->row;
    columns.far = 1; /* LANES rows of two operands, and the next, would not fit into the first cache */
    columns.ahead = data + (tile.data == (const char *)copy ? LANES * from->row : STRIP * from->col);
    return columns;
}

/* The columns of a strip. Those of copies are as many as the first cache has room for, and nearly as many each time. */
FASTKL_INLINE ptrdiff_t NAME(strip_width)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    const ptrdiff_t strips = (n - 1) / COPIED_STRIP + 1;
    return interleaved(p, q) ? STRIP : (n - 1) / (4 * strips) * 4 + 4;
}

/* The first pass over rows of a group from row `first` on, LANES at a time and a strip at a time. */
FASTKL_NOINLINE void NAME(strips_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                       ptrdiff_t n, int first, int rows, group_sums *to) {
    const NAME(clipping) of_p = NAME(clipping_of_p)(task, to), of_q = NAME(clipping_of_q)(task, to);
    const NAME(factor) one = NAME(no_factor)(task);
    const int pair = q->data != NULL;
    _Alignas(COLUMN_BYTES) REAL p_copy[COPIED_STRIP * LANES], q_copy[COPIED_STRIP * LANES];
    NAME(lanes) lanes[MOST_ROWS / LANES];
    for (int i = 0; i < rows; i += LANES)
        NAME(clear)(&lanes[i / LANES]);
    const ptrdiff_t width = NAME(strip_width)(p, q, n);
    for (ptrdiff_t start = 0; start < n; start += width) {
        const int count = (int)(n - start < width ? n - start : width);
        const fastkl_operand p_strip = moved(p, 0, start), q_strip = moved(q, 0, start);
        /* Rows that follow each other are prefetched in their order. */
        const ptrdiff_t ahead = interleaved(p, q) ? 0 : start * (LANES - 1);
        for (int i = 0; i < rows; i += LANES) {
            const int now = rows - i < LANES ? rows - i : LANES;
            NAME(columns) p_now = NAME(strip_of)(p_copy, i > 0, &p_strip, count, first + i, now, of_p);
            NAME(columns) q_now = pair ? NAME(strip_of)(q_copy, i > 0, &q_strip, count, first + i, now, of_q) : p_now;
            p_now.ahead += ahead * p->col, q_now.ahead += ahead * q->col;
            NAME(adders)[fastkl_terms_of(task)][0](&lanes[i / LANES], &p_now, &q_now, count, &one);
            if (start + count < n && (start + count) % MOST_COLUMNS)
                continue;
            NAME(give)(&lanes[i / LANES], to, first + i, start >= MOST_COLUMNS);
            if (start + count < n)
                NAME(clear)(&lanes[i / LANES]);
            else if (to->keeps_low)
                NAME(give_low)(&lanes[i / LANES], to, first + i);
        }
    }
}

/* The second pass of the total variation over interleaved rows. */
FASTKL_NOINLINE void NAME(correct_strips)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int rows,
                                          group_sums *to) {
    const NAME(clipping) none = {0, NULL, NULL};
    _Alignas(COLUMN_BYTES) REAL p_copy[STRIP * LANES], q_copy[STRIP * LANES];
    REAL shift[MOST_ROWS];
    for (int i = 0; i < rows; i += LANES)
        NAME(shifts_of)(to, i, 0, shift + i);
    for (ptrdiff_t start = 0; start < n; start += STRIP) {
        const int count = (int)columns_of_piece(n, start, STRIP);
        const fastkl_operand p_strip = moved(p, 0, start), q_strip = moved(q, 0, start);
        for (int i = 0; i < rows; i += LANES) {
            const int now = rows - i < LANES ? rows - i : LANES;
            const NAME(columns) p_now = NAME(strip_of)(p_copy, i > 0, &p_strip, count, i, now, none);
            const NAME(columns) q_now = NAME(strip_of)(q_copy, i > 0, &q_strip, count, i, now, none);
            NAME(correct_lanes)(p_now, q_now, count, shift + i, to->term + i, start > 0);
        }
    }
}

/* The first pass over up to MOST_ROWS rows, of which each lane has one. Interleaved rows share memory pages, so that a pass
   goes over a strip of all of them; others follow each other. */
static void NAME(group_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                             int rows, group_sums *to) {
    for (int i = 0; i < rows; i += LANES)
        for (int j = i; j < i + LANES; j++)
            to->clipped[j] = to->p_clipped[j] = 0, to->entry_bits[j] = to->guard_bits[j] = 0;
    const int corrects = task->measure == FASTKL_total_variation && !to->keeps_low;
    if (n <= TILE)
        NAME(tiles_pass)(task, p, q, (int)n, rows, to);
    else if (interleaved(p, q))
        NAME(strips_pass)(task, p, q, n, 0, rows, to);
    else
        for (int i = 0; i < rows; i += LANES)
            NAME(strips_pass)(task, p, q, n, i, rows - i < LANES ? rows - i : LANES, to);
    if (corrects && n > TILE && interleaved(p, q))
        NAME(correct_strips)(p, q, n, rows, to);
    for (int i = 0; corrects && n > TILE && !interleaved(p, q) && i < rows; i++) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0);
        NAME(correct_row)(&p_row, &q_row, n, i, to);
    }
    to->corrected = corrects;
}
