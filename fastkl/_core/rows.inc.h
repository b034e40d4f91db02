/* The first look at a row, and the second: its entries into three
   sums, in one pass. In REAL. Knows nothing of what the sums mean.

   A row's successive entries are dealt out to the lanes; or, if rows are too short for that or are neighbours in memory,
   LANES rows are looked at together, one in each lane. */
#include "real.inc.h"

#include "logratio.inc.h"
#include "measures.inc.h"
#include "convert.inc.h"
#include "lanes.inc.h"
#include "stage.inc.h"
#include "exponential.inc.h"
#include "logits.inc.h"

/* Looks at a row, or at a piece of one, whose entries start at the data given.
   The operand that c multiplies is multiplied by `power`, of two, before. */
FASTKL_INLINE void NAME(look)(NAME(adder) *add, const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                              const char *p_data, const char *q_data, ptrdiff_t n, REAL power, NAME(factor) c,
                              fastkl_sums *sums) {
    const REAL eps = NAME(eps)(task);
    const int pair = q->data != NULL;
    const int p_fits = !c.scaled && in_a_row(p), q_fits = pair ? !c.scaled && in_a_row(q) && !(eps > 0) : p_fits;
    const int dtype = p_fits && q_fits && p->dtype == q->dtype && NAME(goes_in)(p->dtype) ? p->dtype : REAL_DTYPE;
    const int p_in_place = p_fits && p->dtype == dtype, q_in_place = q_fits && q->dtype == dtype;
    const ptrdiff_t most = p_in_place && q_in_place ? n : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES], *const scaled = pair ? q_chunk : p_chunk;
    double raised = 0;
    uint64_t bits = 0;
    NAME(lanes) lanes;
    NAME(clear)(&lanes);
    /* No first look is at more than a piece. */
    for (ptrdiff_t start = 0, count; c.scaled ? fastkl_goes_on(task, start, n) : start < n; start += count) {
        count = n - start < most ? n - start : most;
        const NAME(columns) p_now = NAME(line)(p_chunk, p, p_data + start * p->col, count, p_in_place);
        const NAME(columns) q_now = pair ? NAME(line)(q_chunk, q, q_data + start * q->col, count, q_in_place) : p_now;
        if (pair && eps > 0)
            NAME(raise)(q_chunk, (int)count, eps, &raised, &bits);
        if (c.scaled)
            for (int i = 0; i < count; i++)
                scaled[i] *= power;
        add(&lanes, &p_now, &q_now, count / LANES, &c);
    }
    NAME(collect)(&lanes, sums);
    sums->raised = raised;
    sums->entry_bits |= bits;
}

/* The first look: no scaling. */
FASTKL_NOINLINE void NAME(first_look)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                      const char *p_data, const char *q_data, ptrdiff_t n, fastkl_sums *sums) {
    NAME(look)(NAME(adders)[task->measure], task, p, q, p_data, q_data, n, 1, (NAME(factor)){1, 0, 0}, sums);
}

/* Gives what each lane holds to the totals of its row: for a start, or to be added to what they are. */
FASTKL_INLINE void NAME(give)(const NAME(lanes) *lanes, totals *to, int row, int add) {
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

/* The first look at up to MOST_AT_ONCE rows together, LANES at a time. */
FASTKL_NOINLINE void NAME(first_look_together)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                               const char *p_data, const char *q_data, ptrdiff_t n, int rows, totals *to) {
    const REAL eps = NAME(eps)(task);
    const int pair = q->data != NULL;
    const ptrdiff_t width = n <= TILE ? n : STRIP;
    REAL p_tile[TILE * LANES], q_tile[TILE * LANES];
    NAME(lanes) lanes[MOST_AT_ONCE / LANES];
    for (int i = 0; i < rows; i += LANES) {
        NAME(clear)(&lanes[i / LANES]);
        for (int j = i; j < i + LANES; j++)
            to->raised[j] = 0, to->entry_bits[j] = to->guard_bits[j] = 0;
    }
    for (ptrdiff_t start = 0; fastkl_goes_on(task, start, n); start += width) {
        for (int i = 0; i < rows; i += LANES) {
            const int count = (int)(n - start < width ? n - start : width), known = rows - i < LANES ? rows - i : LANES;
            const NAME(columns) p_now =
                NAME(tile)(p_tile, p, p_data + i * p->row + start * p->col, count, known, 0, NULL, NULL);
            const NAME(columns) q_now = pair ? NAME(tile)(q_tile, q, q_data + i * q->row + start * q->col, count, known,
                                                          eps, to->raised + i, to->entry_bits + i)
                                             : p_now;
            NAME(adders)[task->measure](&lanes[i / LANES], &p_now, &q_now, count, NULL);
            if (start + count < n && (start + count) % MOST_COLUMNS)
                continue;
            NAME(give)(&lanes[i / LANES], to, i, start >= MOST_COLUMNS);
            if (start + count < n)
                NAME(clear)(&lanes[i / LANES]);
        }
    }
}

/* Where such sums can be trusted, whatever the measure. */
static const limits NAME(limits) = {SUM_LEAST, SUM_MOST, TERM_LEAST, EXCESS_MOST};

#if REAL_BITS == 64
/* Another look, with an operand scaled by c: always in double. */
FASTKL_NOINLINE void second_look(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, double power,
                                 double high, double low, fastkl_sums *sums) {
    look_f64(scaled_adders[task->measure], task, &p, &q, p.data, q.data, n, power, (factor_f64){high, low, 1}, sums);
}
#endif
