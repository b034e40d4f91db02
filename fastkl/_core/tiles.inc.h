/* Owns the pass over rows of up to TILE entries, of which each lane has one: their sums stay in registers while the pass
   goes over their columns. In REAL. Knows nothing of longer rows. */

/* Rows in columns: column i of the first LANES rows stands i `column` bytes from `data` on, that of the next LANES rows
   `tile` bytes further on. Meanwhile the memory from `ahead` on is prefetched, `ahead_step` bytes a column, to the second
   cache if there are two operands and it is `far` ahead. */
typedef struct {
    const char *data;
    ptrdiff_t column, tile;
    const char *ahead;
    ptrdiff_t ahead_step;
    int far;
} NAME(tiles);

/* The columns of n entries of the LANES rows from `row` on. */
FASTKL_INLINE NAME(columns) NAME(columns_of_tile)(const NAME(tiles) *from, int n, int row) {
    const ptrdiff_t tile = row / LANES;
    const char *const ahead = from->ahead + tile * n * from->ahead_step;
    const char *const data = from->data + tile * from->tile;
    return (NAME(columns)){data, from->column, REAL_DTYPE, NULL, 0, 0, ahead, from->ahead_step, 0};
}

/* The sums of the first `count` columns, of one to four; `count` is a constant in every use. Where there were no sums
   before, there is nothing that rounding could take from them. */
FASTKL_INLINE void NAME(start)(NAME(lanes) *lanes, NAME(term) *term, traits of, NAME(columns) p, NAME(columns) q,
                               int count) {
    const NAME(factor) one = {.high = 1};
    const NAME(loose) *const p0 = NAME(column)(p, 0, 4, NULL), *const q0 = NAME(column)(q, 0, 4, NULL);
    const NAME(loose) *const p1 = NAME(column)(p, 1, 4, NULL), *const q1 = NAME(column)(q, 1, 4, NULL);
    const NAME(loose) *const p2 = NAME(column)(p, 2, 4, NULL), *const q2 = NAME(column)(q, 2, 4, NULL);
    const NAME(loose) *const p3 = NAME(column)(p, 3, 4, NULL), *const q3 = NAME(column)(q, 3, 4, NULL);
    for (int i = 0; i < count; i++) {
        NAME(prefetch)(p, i);
        if (of.pair)
            NAME(prefetch)(q, i);
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        NAME(entry) e = term(p0[j], q0[j], one);
        UINT p_bits = NAME(bits)(p0[j]);
        REAL least_q = q0[j];
        if (count > 1) {
            e = NAME(both)(e, term(p1[j], q1[j], one)), p_bits |= NAME(bits)(p1[j]);
            least_q = NAME(lesser)(least_q, q1[j]);
        }
        if (count > 3)
            e = NAME(both)(e, NAME(both)(term(p2[j], q2[j], one), term(p3[j], q3[j], one)));
        else if (count > 2)
            e = NAME(both)(e, term(p2[j], q2[j], one));
        if (count > 2)
            p_bits |= NAME(bits)(p2[j]), least_q = NAME(lesser)(least_q, q2[j]);
        if (count > 3)
            p_bits |= NAME(bits)(p3[j]), least_q = NAME(lesser)(least_q, q3[j]);
        lanes->term.sum[j] = e.term, lanes->other.sum[j] = e.other, lanes->weight.sum[j] = e.weight;
        lanes->term.low[j] = lanes->other.low[j] = lanes->weight.low[j] = 0;
        lanes->p_bits[j] = p_bits, lanes->guard_bits[j] = 0, lanes->least_q[j] = of.pair ? least_q : 1;
    }
}

/* Gives the rows what the columns have added. */
FASTKL_INLINE void NAME(give_tile)(NAME(lanes) *now, int infinite, group_sums *to, int first) {
    if (infinite) {
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            now->guard_bits[j] = NAME(is_small)(now->least_q[j]);
    }
    NAME(give)(now, to, first, 0);
}

/* Adds up the columns of LANES rows, which are those from row `first` of a group on. */
FASTKL_INLINE void NAME(add_tile)(NAME(term) *term, traits of, const NAME(columns) *p, const NAME(columns) *q, int n,
                                  group_sums *to, int first) {
    const NAME(factor) one = {.high = 1};
    NAME(lanes) now;
    const int first_columns = (n - 1) % 4 + 1;
    switch (first_columns) {
#define CASE(count)                                         \
    case count:                                             \
        NAME(start)(&now, term, of, *p, *q, count); \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
    const NAME(columns) p_rest = NAME(advance)(*p, first_columns), q_rest = NAME(advance)(*q, first_columns);
    NAME(add_groups)(&now, term, of, p_rest, q_rest, (n - first_columns) / 4, one);
    NAME(give_tile)(&now, of.infinite, to, first);
    if (to->keeps_low)
        NAME(give_low)(&now, to, first);
}

/* The same of so few columns that the start of a loop would take as long as they do. Nothing is kept of what rounding takes
   from their sums. For up to eight columns, which would take 0.85 of the time, and for the other measures, whose terms
   take longer, the module would be a tenth larger. */
#define MOST_FEW 5

/* Adds up n columns, of which the first are one to four, and the others a group, if any. As n is a constant, and no
   function has the address of `now`, it stays in registers. */
FASTKL_INLINE void NAME(add_known)(NAME(term) *term, traits of, const NAME(columns) *p, const NAME(columns) *q, int n,
                                   group_sums *to, int first) {
    const NAME(factor) one = {.high = 1};
    const int count = (n - 1) % 4 + 1;
    NAME(lanes) now;
    NAME(start)(&now, term, of, *p, *q, count);
    if (n > 4)
        NAME(add_groups)(&now, term, of, NAME(advance)(*p, count), NAME(advance)(*q, count), 1, one);
    NAME(give_tile)(&now, of.infinite, to, first);
}

FASTKL_INLINE void NAME(add_few)(NAME(term) *term, traits of, const NAME(columns) *p, const NAME(columns) *q, int n,
                                 group_sums *to, int first) {
    switch (n) {
#define CASE(count)                                        \
    case count:                                            \
        NAME(add_known)(term, of, p, q, count, to, first); \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(MOST_FEW)
#undef CASE
    }
}

/* The functions that add up tiles, for each common measure: of any number of columns, and of few. */
#define ADDER(adder, add, name, pair, infinite)                                                                         \
    static void NAME(adder##name)(const NAME(tiles) *p, const NAME(tiles) *q, int n, int rows, group_sums *to,          \
                                  int first) {                                                                          \
        const traits of = {pair, infinite, REAL_DTYPE};                                                                 \
        for (int i = 0; i < rows; i += LANES) {                                                                         \
            NAME(columns) p_now = NAME(columns_of_tile)(p, n, i), q_now = NAME(columns_of_tile)(pair ? q : p, n, i);    \
            p_now.far = pair && p->far, q_now.far = pair && q->far;                                                     \
            NAME(add)(NAME(name), of, &p_now, &q_now, n, to, first + i);                                                \
        }                                                                                                               \
    }
#define ROW(name, pair, infinite)                           \
    ADDER(add_tiles_, add_tile, name, pair, infinite)       \
    ADDER(add_few_tiles_, add_few, name, pair, infinite)
ROW(entropy, 0, 0)
ROW(cross_entropy, 1, 1)
ROW(kl_divergence, 1, 1)
#undef ROW
#undef ADDER

/* The same for a measure that is not common, of any number of columns. */
FASTKL_NOINLINE void NAME(add_other_tiles)(int measure, const NAME(tiles) *p, const NAME(tiles) *q, int n, int rows,
                                           const NAME(factor) *one, group_sums *to, int first) {
    for (int i = 0; i < rows; i += LANES) {
        const NAME(columns) p_now = NAME(columns_of_tile)(p, n, i), q_now = NAME(columns_of_tile)(q, n, i);
        NAME(lanes) now;
        NAME(clear)(&now);
        NAME(adders)[measure][0](&now, &p_now, &q_now, n, one);
        NAME(give)(&now, to, first + i, 0);
        if (to->keeps_low)
            NAME(give_low)(&now, to, first + i);
    }
}

FASTKL_INLINE void NAME(add_any_tiles)(int measure, const NAME(tiles) *p, const NAME(tiles) *q, int n, int rows,
                                       const NAME(factor) *one, group_sums *to, int first) {
    const int few = n <= MOST_FEW && !to->keeps_low;
    switch (measure) {
    case FASTKL_entropy:
        (few ? NAME(add_few_tiles_entropy) : NAME(add_tiles_entropy))(p, q, n, rows, to, first);
        break;
    case FASTKL_cross_entropy:
        (few ? NAME(add_few_tiles_cross_entropy) : NAME(add_tiles_cross_entropy))(p, q, n, rows, to, first);
        break;
    case FASTKL_kl_divergence:
        (few ? NAME(add_few_tiles_kl_divergence) : NAME(add_tiles_kl_divergence))(p, q, n, rows, to, first);
        break;
    default:
        NAME(add_other_tiles)(measure, p, q, n, rows, one, to, first);
    }
}

/* Clips tiles of rows of a group from row `first` on. */
FASTKL_NOINLINE void NAME(clip_tiles)(REAL *copy, const fastkl_operand *from, int n, int first, int rows,
                                      NAME(clipping) by) {
    for (int i = 0; i < rows; i += LANES) {
        double *const clipped = by.clipped + first + i;
        uint64_t *const bits = by.bits + first + i;
        if (from->row || i == 0)
            NAME(clip_columns)(copy + i * n, n, by.eps, clipped, bits);
        else /* it is the first tile again */
            memcpy(clipped, clipped - i, LANES * sizeof *clipped), memcpy(bits, bits - i, LANES * sizeof *bits);
    }
}

/* Searches the tiles in which a q is small for a p > 0 where q is zero or nearly. */
FASTKL_NOINLINE void NAME(find_zeros_in_tiles)(const NAME(tiles) *p, const NAME(tiles) *q, int n, int rows,
                                               uint64_t *bits) {
    for (int i = 0; i < rows; i += LANES, bits += LANES) {
        UINT found[LANES] = {0};
        uint64_t small = 0;
        for (int j = 0; j < LANES; j++)
            small |= bits[j];
        if (small & FASTKL_SIGN)
            NAME(find_small)(NAME(columns_of_tile)(p, n, i), NAME(columns_of_tile)(q, n, i), n, found);
        for (int j = 0; j < LANES; j++)
            bits[j] = (uint64_t)found[j] << (64 - REAL_BITS);
    }
}

/* The second pass of the total variation. */
FASTKL_NOINLINE void NAME(correct_tiles)(const NAME(tiles) *p, const NAME(tiles) *q, int n, int rows, group_sums *to,
                                         int first) {
    for (int i = 0; i < rows; i += LANES) {
        const NAME(columns) p_now = NAME(columns_of_tile)(p, n, i), q_now = NAME(columns_of_tile)(q, n, i);
        REAL shift[LANES];
        NAME(shifts_of)(to, first + i, 0, shift);
        NAME(correct_lanes)(p_now, q_now, n, shift, to->term + first + i, 0);
    }
}

/* The rows that are copied at once. */
FASTKL_INLINE int NAME(batch)(int n) { return n < BATCH ? BATCH / n * LANES : LANES; }

/* The tiles of rows of a group from row `first` on: where they stand, or a copy, which has them already if all rows are the
   same and it `holds` some. */
FASTKL_INLINE NAME(tiles) NAME(tiles_of)(REAL *copy, int holds, const fastkl_operand *from, int n, int first, int rows,
                                         NAME(clipping) by) {
    const int far = n > MOST_NEAR, columns_ahead = far ? 2 * TILE : TILE;
    const char *const data = from->data + first * from->row, *const ahead = data + columns_ahead / n * LANES * from->row;
    if (from->dtype == REAL_DTYPE && in_a_column(from) && rows % LANES == 0 && !(by.eps > 0))
        return (NAME(tiles)){data, from->col, COLUMN_BYTES, data + COLUMN_BYTES, from->col, n > BATCH};
    if (!holds || from->row || by.eps > 0)
        NAME(load_tiles)(copy, from, data, n, rows);
    if (by.eps > 0)
        NAME(clip_tiles)(copy, from, n, first, rows, by);
    const ptrdiff_t tile = from->row ? n * COLUMN_BYTES : 0;
    return (NAME(tiles)){(const char *)copy, COLUMN_BYTES, tile, ahead, LANES * from->col, far};
}

/* The first pass over rows of a group. */
FASTKL_NOINLINE void NAME(tiles_pass)(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, int n,
                                      int rows, group_sums *to) {
    const NAME(clipping) of_p = NAME(clipping_of_p)(task, to), of_q = NAME(clipping_of_q)(task, to);
    const NAME(factor) one = NAME(no_factor)(task);
    const int scales = REAL_BITS == 64 && to->scales, pair = q->data != NULL;
    const int one_tile = scales && (!p->row || (pair && !q->row)); /* a row that stands for all gets many factors */
    const int most = one_tile ? LANES : NAME(batch)(n);
    _Alignas(COLUMN_BYTES) REAL p_copy[TILE * LANES], q_copy[TILE * LANES];
    for (int first = 0, now; first < rows; first += now) {
        now = rows - first < most ? rows - first : most;
        if (now > LANES) /* the last rows are copied if there are fewer than LANES */
            now -= now % LANES;
        const int holds = first > 0 && !scales;
        const NAME(tiles) p_now = NAME(tiles_of)(p_copy, holds, p, n, first, now, of_p);
        const NAME(tiles) q_now = pair ? NAME(tiles_of)(q_copy, holds, q, n, first, now, of_q) : p_now;
        if (scales)
            NAME(scale_tiles)(task, p_copy, pair ? q_copy : NULL, n, now, to->refused + first);
        NAME(add_any_tiles)(fastkl_terms_of(task), &p_now, &q_now, n, now, &one, to, first);
        if (task->measure == FASTKL_total_variation && !to->keeps_low)
            NAME(correct_tiles)(&p_now, &q_now, n, now, to, first);
        if (fastkl_is_common(task->measure) && pair) /* the others have found theirs */
            NAME(find_zeros_in_tiles)(&p_now, &q_now, n, now, to->guard_bits + first);
    }
}
