/* Owns the passes: the entries of rows go into three sums, and are read once. In REAL. Knows nothing of what the sums mean.

   The successive entries of a row are dealt out to the lanes. Where rows are too short for that, or are neighbours in
   memory, a pass is made over LANES rows at once, of which each lane has one. */
#include "real.inc.h"
#include "logratio.inc.h"
#include "measures.inc.h"
#include "convert.inc.h"
#include "accumulate.inc.h"
#include "load.inc.h"
#include "exponential.inc.h"
#include "logits_pass.inc.h"

/* The sums of a row, or of a piece of one: of a first pass where c is NULL, else of a rescaled pass, with one operand
   multiplied by `power`, a power of two, and then by c. */
FASTKL_NOINLINE void NAME(row_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                    REAL power, const NAME(factor) *c, fastkl_sums *sums) {
    const REAL eps = NAME(eps)(task);
    const int pair = q->data != NULL;
    const int p_fits = !c && in_a_row(p), q_fits = pair ? !c && in_a_row(q) && !(eps > 0) : p_fits;
    const int dtype = p_fits && q_fits && p->dtype == q->dtype && NAME(goes_in)(p->dtype) ? p->dtype : REAL_DTYPE;
    const int p_in_place = p_fits && p->dtype == dtype, q_in_place = q_fits && q->dtype == dtype;
    const ptrdiff_t most = p_in_place && q_in_place ? n : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], *const scaled = pair ? q_chunk : p_chunk;
    double clipped = 0;
    uint64_t bits = 0;
    NAME(lanes) lanes;
    NAME(clear)(&lanes);
    for (ptrdiff_t start = 0, count; start < n; start += count) {
        count = n - start < most ? n - start : most;
        const NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, p_in_place);
        const NAME(columns) q_now =
            pair ? NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, q_in_place) : p_now;
        if (pair && eps > 0)
            NAME(clip)(q_chunk, (int)count, eps, &clipped, &bits);
        if (c)
            for (int i = 0; i < count; i++)
                scaled[i] *= power;
        NAME(adders)[task->measure][c != NULL](&lanes, &p_now, &q_now, count / LANES, c);
    }
    NAME(collect)(&lanes, sums);
    sums->clipped = clipped;
    sums->entry_bits |= bits;
}

/* Gives the sums of each lane to its row, or adds them to what the row has. */
FASTKL_INLINE void NAME(give)(const NAME(lanes) *lanes, group_sums *to, int row, int add) {
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++) {
        const double term = (double)lanes->term.sum[j] + (double)lanes->term.low[j];
        const double other = (double)lanes->other.sum[j] + (double)lanes->other.low[j];
        const double weight = (double)lanes->weight.sum[j] + (double)lanes->weight.low[j];
        to->term[row + j] = add ? to->term[row + j] + term : term;
        to->other[row + j] = add ? to->other[row + j] + other : other;
        to->weight[row + j] = add ? to->weight[row + j] + weight : weight;
        to->entry_bits[row + j] |= (uint64_t)(lanes->p_bits[j] | NAME(bits)(lanes->least_q[j])) << (64 - REAL_BITS);
        to->guard_bits[row + j] |= (uint64_t)lanes->guard_bits[j] << (64 - REAL_BITS);
    }
}

/* What rounding to a double took from a lane's sum: nothing that counts from a sum in float. */
FASTKL_INLINE double NAME(low_of)(const NAME(lane_sum) *sum, int j, double rounded) {
    return REAL_BITS == 64 ? ((double)sum->sum[j] - rounded) + (double)sum->low[j] : 0;
}

/* Gives the rows of a group what rounding took from their sums. */
FASTKL_NOINLINE void NAME(give_low)(const NAME(lanes) *lanes, group_sums *to, int rows) {
    for (int i = 0; i < rows; i++, lanes += i % LANES == 0) {
        to->term_low[i] = NAME(low_of)(&lanes->term, i % LANES, to->term[i]);
        to->other_low[i] = NAME(low_of)(&lanes->other, i % LANES, to->other[i]);
        to->weight_low[i] = NAME(low_of)(&lanes->weight, i % LANES, to->weight[i]);
    }
}

/* The first pass over up to MOST_ROWS rows, LANES at a time. */
FASTKL_NOINLINE void NAME(group_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                      ptrdiff_t n, int rows, group_sums *to) {
    const REAL eps = NAME(eps)(task);
    const int pair = q->data != NULL;
    const ptrdiff_t width = n <= TILE ? n : STRIP;
    REAL p_tile[TILE * LANES], q_tile[TILE * LANES];
    NAME(lanes) lanes[MOST_ROWS / LANES];
    for (int i = 0; i < rows; i += LANES) {
        NAME(clear)(&lanes[i / LANES]);
        for (int j = i; j < i + LANES; j++)
            to->clipped[j] = 0, to->entry_bits[j] = to->guard_bits[j] = 0;
    }
    for (ptrdiff_t start = 0; start < n; start += width) {
        for (int i = 0; i < rows; i += LANES) {
            const int count = (int)(n - start < width ? n - start : width), known = rows - i < LANES ? rows - i : LANES;
            const NAME(columns) p_now =
                NAME(group_columns)(p_tile, p, p->data + i * p->row + start * p->col, count, known, 0, NULL, NULL);
            const NAME(columns) q_now = pair ? NAME(group_columns)(q_tile, q, q->data + i * q->row + start * q->col, count,
                                                                   known, eps, to->clipped + i, to->entry_bits + i)
                                             : p_now;
            NAME(adders)[task->measure][0](&lanes[i / LANES], &p_now, &q_now, count, NULL);
            if (start + count < n && (start + count) % MOST_COLUMNS)
                continue;
            NAME(give)(&lanes[i / LANES], to, i, start >= MOST_COLUMNS);
            if (start + count < n)
                NAME(clear)(&lanes[i / LANES]);
        }
    }
    if (to->keeps_low)
        NAME(give_low)(lanes, to, rows);
}
