/* The first look at a row, and the second: its entries into three sums, in one pass. In REAL. Knows nothing of what the sums
   mean.

   A row's successive entries are dealt out to the lanes; or, if rows are too short for that or are neighbours in memory, LANES
   rows are looked at together, one in each lane. */
#include "real.inc.h"

#include "logratio.inc.h"
#include "measures.inc.h"
#include "lanes.inc.h"

/* The task's eps. Rounded to a float it would be another one: with eps > 0, tier.inc.h looks in double. */
FASTKL_INLINE REAL NAME(eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->eps : 0; }

/* Can the entries be used where they stand? */
FASTKL_INLINE int NAME(in_place)(fastkl_operand operand) {
    return operand.dtype == REAL_DTYPE && operand.col == sizeof(REAL) && !operand.swapped &&
           (uintptr_t)operand.data % sizeof(REAL) == 0;
}

/* Adds a row, or a piece of one, to the sums. The operand that c multiplies is multiplied by `power`, of two, before. */
FASTKL_INLINE void NAME(look)(NAME(term) *term, int pair, const fastkl_task *task, fastkl_operand p, fastkl_operand q,
                              ptrdiff_t n, REAL power, NAME(factor) c, fastkl_sums *sums) {
    const REAL eps = NAME(eps)(task);
    const int p_in_place = NAME(in_place)(p) && !c.scaled, q_in_place = NAME(in_place)(q) && !c.scaled && !(eps > 0);
    REAL p_chunk[CHUNK], q_chunk[CHUNK], *const scaled_chunk = pair ? q_chunk : p_chunk;
    NAME(lanes) lanes = {0};
    for (ptrdiff_t start = 0; start < n;) {
        const int left = n - start < CHUNK ? (int)(n - start) : CHUNK, count = left < GROUP ? left : left / GROUP * GROUP;
        const REAL *p_now = p_chunk, *q_now = q_chunk;
        if (p_in_place && count % GROUP == 0) {
            p_now = (const REAL *)p.data + start;
        } else {
            NAME(stage)(p_chunk, p, start, count);
        }
        if (pair && q_in_place && count % GROUP == 0) {
            q_now = (const REAL *)q.data + start;
        } else if (pair) {
            NAME(stage)(q_chunk, q, start, count);
            if (eps > 0)
                NAME(raise)(q_chunk, count, eps, sums);
        } else {
            q_now = p_now;
        }
        if (c.scaled)
            for (int i = 0; i < count; i++)
                scaled_chunk[i] *= power;
        NAME(add_columns)(term, pair, p_now, LANES, q_now, LANES, c, (count + GROUP - 1) / GROUP * 4, &lanes);
        start += count;
    }
    NAME(collect)(&lanes, sums);
}

/* The first look: no scaling. */
FASTKL_NOINLINE void NAME(first_look)(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                                      fastkl_sums *sums) {
    const NAME(factor) one = {1, 0, 0};
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                          \
    case FASTKL_##name:                                            \
        NAME(look)(NAME(name), pair, task, p, q, n, 1, one, sums); \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
}

/* Columns of LANES rows that are staged together. */
#define TILE 64

/* Are the rows neighbours in memory? No question of alignment, on which no result may depend. */
FASTKL_INLINE int NAME(neighbours)(fastkl_operand operand) {
    return operand.dtype == REAL_DTYPE && operand.row == sizeof(REAL);
}

/* Can a column of them be used where it is? */
FASTKL_INLINE int NAME(column_in_place)(fastkl_operand operand) {
    return NAME(neighbours)(operand) && operand.col % (ptrdiff_t)sizeof(REAL) == 0 && !operand.swapped &&
           (uintptr_t)operand.data % sizeof(REAL) == 0;
}

/* Copies columns from `start` on of `rows` rows into the tile, and fills up with zeros. */
FASTKL_INLINE void NAME(stage_tile)(REAL *tile, fastkl_operand from, ptrdiff_t start, int columns, int rows, REAL eps,
                                    fastkl_sums *sums) {
    REAL chunk[TILE];
    for (int row = 0; row < LANES; row++, from.data += from.row) {
        const REAL *entries = chunk;
        int known = row < rows ? columns : 0;
        if (NAME(in_place)(from) && !(eps > 0))
            entries = (const REAL *)from.data + start;
        else if (row < rows)
            NAME(stage)(chunk, from, start, columns);
        if (eps > 0 && row < rows)
            NAME(raise)(chunk, columns, eps, &sums[row]);
        for (int i = 0; i < known; i++)
            tile[i * LANES + row] = entries[i];
        for (int i = known; i < (columns + 3) / 4 * 4; i++)
            tile[i * LANES + row] = 0;
    }
}

/* The first look at up to LANES rows together. */
FASTKL_INLINE void NAME(look_together)(NAME(term) *term, int pair, const fastkl_task *task, fastkl_operand p,
                                       fastkl_operand q, ptrdiff_t n, int rows, fastkl_sums *sums) {
    const REAL eps = NAME(eps)(task);
    const NAME(factor) one = {1, 0, 0};
    const int full = rows == LANES, p_in_place = full && NAME(column_in_place)(p);
    const int q_in_place = full && NAME(column_in_place)(q) && !(eps > 0);
    REAL p_tile[TILE * LANES], q_tile[TILE * LANES];
    NAME(lanes) lanes = {0};
    for (ptrdiff_t start = 0; start < n; start += TILE) {
        const int columns = n - start < TILE ? (int)(n - start) : TILE;
        const REAL *p_now = p_tile, *q_now = q_tile;
        ptrdiff_t p_step = LANES, q_step = LANES;
        if (p_in_place && columns % 4 == 0) {
            p_now = (const REAL *)(p.data + start * p.col);
            p_step = p.col / (ptrdiff_t)sizeof(REAL);
        } else {
            NAME(stage_tile)(p_tile, p, start, columns, rows, 0, sums);
        }
        if (pair && q_in_place && columns % 4 == 0) {
            q_now = (const REAL *)(q.data + start * q.col);
            q_step = q.col / (ptrdiff_t)sizeof(REAL);
        } else if (pair) {
            NAME(stage_tile)(q_tile, q, start, columns, rows, eps, sums);
        } else {
            q_now = p_now, q_step = p_step;
        }
        NAME(add_columns)(term, pair, p_now, p_step, q_now, q_step, one, (columns + 3) / 4 * 4, &lanes);
    }
    for (int row = 0; row < rows; row++) {
        sums[row].term = lanes.term.sum[row], sums[row].term_low = lanes.term.low[row];
        sums[row].other = lanes.other.sum[row], sums[row].other_low = lanes.other.low[row];
        sums[row].weight = lanes.weight.sum[row], sums[row].weight_low = lanes.weight.low[row];
        sums[row].entry_bits |= (uint64_t)lanes.entry_bits[row] << (64 - REAL_BITS);
        sums[row].guard_bits |= (uint64_t)lanes.guard_bits[row] << (64 - REAL_BITS);
    }
}

FASTKL_NOINLINE void NAME(first_look_together)(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n,
                                               int rows, fastkl_sums *sums) {
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                                    \
    case FASTKL_##name:                                                      \
        NAME(look_together)(NAME(name), pair, task, p, q, n, rows, sums);    \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
}

/* Where such sums can be trusted, whatever the measure. */
static const limits NAME(limits) = {SUM_LEAST, SUM_MOST, TERM_LEAST};

#if REAL_BITS == 64
/* Another look, with an operand scaled by c: always in double. */
FASTKL_NOINLINE void second_look(const fastkl_task *task, fastkl_operand p, fastkl_operand q, ptrdiff_t n, double power,
                                 double high, double low, fastkl_sums *sums) {
    const factor_f64 c = {high, low, 1};
    switch (task->measure) {
#define ROW(name, pair, sum_of_q, excess)                             \
    case FASTKL_##name:                                               \
        look_f64(name##_f64, pair, task, p, q, n, power, c, sums);    \
        break;
        FASTKL_MEASURES(ROW)
#undef ROW
    }
}
#endif
