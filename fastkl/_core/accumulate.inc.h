/* Owns sums side by side: columns of LANES entries are added up, one sum of each kind in each lane. In REAL. Knows nothing
   of where entries come from: a column may belong to one row or to LANES rows.

   Four entries of a lane are added pairwise, the lane's sum takes in the sum of the four, and what rounding takes from that
   is summed beside it. So a sum of non-negative terms is right to 2 units in the last place, however long the row is. */

#define COLUMN_BYTES (FASTKL_VECTOR_BITS / 8)

/* The search for zeros tests after so many columns whether it may end. */
#define COLUMNS_PER_TEST 8

/* A sum in each lane, and what rounding took from it. */
typedef struct {
    REAL sum[LANES], low[LANES];
} NAME(lane_sum);

/* The state of the lanes: the three sums, the OR of the bits of p, the least q and at most 1, or the least p and q if
   either can make the measure infinite, and the guard bits of fastkl_sums. */
typedef struct {
    NAME(lane_sum) term, other, weight;
    UINT p_bits[LANES], guard_bits[LANES];
    REAL least_q[LANES];
} NAME(lanes);

/* Columns of LANES entries of type `dtype`, which stand side by side: column i `step` i bytes from `data` on. The `left`
   entries of one more column, and zeros after them, stand at `last`. All belong to one row, or each lane has a row of its
   own. While column i is added, the memory `ahead_step` i bytes from `ahead` on is prefetched: to the second cache if the
   columns are `far` apart. */
typedef struct {
    const char *data;
    ptrdiff_t step;
    int dtype;
    const REAL *last;
    int left, one_row;
    const char *ahead;
    ptrdiff_t ahead_step;
    int far;
} NAME(columns);

typedef NAME(entry) NAME(term)(REAL p, REAL q, NAME(factor) c);

FASTKL_INLINE void NAME(clear)(NAME(lanes) *lanes) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        lanes->term.sum[j] = lanes->term.low[j] = lanes->other.sum[j] = lanes->other.low[j] = 0;
        lanes->weight.sum[j] = lanes->weight.low[j] = 0;
        lanes->p_bits[j] = lanes->guard_bits[j] = 0;
        lanes->least_q[j] = 1;
    }
}

/* sum + low += x where |x| <= |sum| (Dekker's fast two-sum). An x that is larger costs half a unit of it; among
   non-negative x such are at least twice as large each time, so that all cost 1 unit of the last. */
FASTKL_INLINE void NAME(accumulate)(NAME(lane_sum) *to, int j, REAL x) {
    const REAL total = to->sum[j] + x;
    to->low[j] += x - (total - to->sum[j]);
    to->sum[j] = total;
}

FASTKL_INLINE NAME(entry) NAME(both)(NAME(entry) a, NAME(entry) b) {
    return (NAME(entry)){a.term + b.term, a.other + b.other, a.weight + b.weight};
}

/* The same columns, with a type and a step that are constants. */
FASTKL_INLINE NAME(columns) NAME(known)(NAME(columns) from, int dtype, int side_by_side) {
    from.dtype = dtype;
    from.far |= !side_by_side;
    if (side_by_side)
        from.step = LANES * fastkl_size(dtype);
    return from;
}

/* The columns from `count` further on. */
FASTKL_INLINE NAME(columns) NAME(advance)(NAME(columns) from, ptrdiff_t count) {
    from.data += count * from.step;
    from.ahead += count * from.ahead_step;
    return from;
}

/* `count` columns as REALs: where they stand if they are REALs, else in `to`. */
FASTKL_INLINE NAME(columns) NAME(as_reals)(NAME(columns) from, int count, REAL *to) {
    if (from.dtype != REAL_DTYPE) {
        for (int i = 0; i < count; i++)
            NAME(convert_column)(to + i * LANES, from.dtype, from.data + i * from.step);
        from.data = (const char *)to;
        from.step = COLUMN_BYTES;
        from.dtype = REAL_DTYPE;
    }
    return from;
}

/* Column i as REALs: where it stands if it holds REALs, else in `to`. */
FASTKL_INLINE const NAME(loose) *NAME(column)(NAME(columns) from, ptrdiff_t i, ptrdiff_t count, REAL *to) {
    if (i == count)
        return from.last;
    return (const NAME(loose) *)NAME(as_reals)(NAME(advance)(from, i), 1, to).data;
}

/* A number whose sign says that q is small, or that it is negative or -0.0. */
FASTKL_INLINE UINT NAME(is_small)(REAL q) { return (NAME(bits)(q) - NAME(bits)(SMALL)) | NAME(bits)(q); }

/* Searches for a p > 0 where q is zero; in one row, until one is found. */
FASTKL_NOINLINE void NAME(find_zeros)(const NAME(columns) *p, const NAME(columns) *q, ptrdiff_t count, UINT *guard_bits) {
    const ptrdiff_t all = count + (p->left > 0);
    const UINT sign = (UINT)1 << (REAL_BITS - 1);
    UINT found = 0;
    for (ptrdiff_t i = 0; i < all && !(p->one_row && (found & sign >> 1)); i++) {
        REAL p_column[LANES], q_column[LANES];
        const NAME(loose) *const a = NAME(column)(*p, i, count, p_column), *const b = NAME(column)(*q, i, count, q_column);
        for (int j = 0; j < LANES; j++)
            guard_bits[j] |= (NAME(bits)(b[j] - LEAST) & NAME(bits)(0 - a[j]) & sign) >> 1;
        if (i % COLUMNS_PER_TEST == 0)
            for (int j = 0; j < LANES; j++)
                found |= guard_bits[j];
    }
}

/* Sets the guard bits where q is small. Most of a sparse row's small q have a p that is not larger: those are let pass in a
   loop with few instructions. */
FASTKL_INLINE void NAME(find_small)(NAME(columns) p, NAME(columns) q, ptrdiff_t count, UINT *guard_bits) {
    const UINT sign = (UINT)1 << (REAL_BITS - 1);
    UINT small[LANES] = {0}, any = 0;
    ptrdiff_t i = 0;
    for (; i + 4 <= count; i += 4) { /* a loop over the lanes of one column is so short that GCC takes it apart */
        REAL p_four[4 * LANES], q_four[4 * LANES];
        const NAME(columns) p_now = NAME(as_reals)(NAME(advance)(p, i), 4, p_four);
        const NAME(columns) q_now = NAME(as_reals)(NAME(advance)(q, i), 4, q_four);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL a0 = NAME(column)(p_now, 0, 4, NULL)[j], a1 = NAME(column)(p_now, 1, 4, NULL)[j];
            const REAL a2 = NAME(column)(p_now, 2, 4, NULL)[j], a3 = NAME(column)(p_now, 3, 4, NULL)[j];
            const REAL b0 = NAME(column)(q_now, 0, 4, NULL)[j], b1 = NAME(column)(q_now, 1, 4, NULL)[j];
            const REAL b2 = NAME(column)(q_now, 2, 4, NULL)[j], b3 = NAME(column)(q_now, 3, 4, NULL)[j];
            small[j] |= ((NAME(bits)(b0 - SMALL) & NAME(bits)(b0 - a0)) | (NAME(bits)(b1 - SMALL) & NAME(bits)(b1 - a1))) |
                        ((NAME(bits)(b2 - SMALL) & NAME(bits)(b2 - a2)) | (NAME(bits)(b3 - SMALL) & NAME(bits)(b3 - a3)));
        }
    }
    for (; i < count + (p.left > 0); i++) {
        REAL p_column[LANES], q_column[LANES];
        const NAME(loose) *const a = NAME(column)(p, i, count, p_column), *const b = NAME(column)(q, i, count, q_column);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            small[j] |= NAME(bits)(b[j] - SMALL) & NAME(bits)(b[j] - a[j]);
    }
    for (int j = 0; j < LANES; j++)
        guard_bits[j] |= small[j] & sign, any |= small[j];
    if (any & sign)
        NAME(find_zeros)(&p, &q, count, guard_bits);
}

/* Prefetches what will be added some time after column i. */
FASTKL_INLINE void NAME(prefetch)(NAME(columns) from, ptrdiff_t i) {
    if (from.far)
        FASTKL_PREFETCH_L2(from.ahead + i * from.ahead_step);
    else if (i % (FASTKL_LINE / COLUMN_BYTES) == 0)
        FASTKL_PREFETCH(from.ahead + i * from.ahead_step);
}

/* The entry that must not be small. */
FASTKL_INLINE REAL NAME(least_of)(traits of, REAL p, REAL q) {
    return of.infinite == 2 ? NAME(lesser)(p, q) : of.infinite == 3 ? NAME(lesser)(p > 0 ? p : 1, q) : q;
}

/* Sets the guard bits where p is small, and that of a zero only where it makes the measure infinite. */
FASTKL_NOINLINE void NAME(find_small_p)(int infinite, NAME(columns) p, NAME(columns) q, ptrdiff_t count,
                                        UINT *guard_bits) {
    UINT found[LANES] = {0};
    NAME(find_small)(q, p, count, found);
    for (int j = 0; j < LANES; j++)
        guard_bits[j] |= infinite == 2 ? found[j] : found[j] & (UINT)1 << (REAL_BITS - 1);
}

/* The terms of up to four columns for a Renyi divergence, step by step: as one they would take so many instructions that a
   CPU has too few columns under way to hide that each waits for the one before. `below` says that the order is below 1. */
FASTKL_INLINE void NAME(find_renyi_terms)(NAME(columns) p, NAME(columns) q, int count, int below, NAME(factor) c,
                                          REAL *terms) {
    const NAME(columns) a_now = c.exchanged ? q : p, b_now = c.exchanged ? p : q;
    REAL k_of[4 * LANES], s_of[4 * LANES], tail[4 * LANES], phi[4 * LANES];
    for (int i = 0; i < count; i++) {
        const NAME(loose) *const a = NAME(column)(a_now, i, 4, NULL), *const b = NAME(column)(b_now, i, 4, NULL);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const NAME(renyi_logs) of = NAME(find_renyi_logs)(a[j], b[j], b[j], NAME(unscaled)(c));
            k_of[i * LANES + j] = of.k, s_of[i * LANES + j] = of.s;
            tail[i * LANES + j] = of.tail, phi[i * LANES + j] = of.phi;
        }
    }
    for (int i = 0; i < count; i++) {
        const NAME(loose) *const a = NAME(column)(a_now, i, 4, NULL), *const b = NAME(column)(b_now, i, 4, NULL);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const int k = i * LANES + j;
            const NAME(renyi_logs) of = {k_of[k], s_of[k], tail[k], phi[k]};
            terms[k] = NAME(renyi_term)(a[j], b[j], of, below, c);
        }
    }
}

/* The same, compiled for orders below 1 and above, once for all loops. */
FASTKL_NOINLINE void NAME(renyi_terms)(NAME(columns) p, NAME(columns) q, int count, NAME(factor) c, REAL *terms) {
    const NAME(columns) p_now = NAME(known)(p, REAL_DTYPE, 0), q_now = NAME(known)(q, REAL_DTYPE, 0);
    if (c.gamma < 0)
        NAME(find_renyi_terms)(p_now, q_now, count, 1, c, terms);
    else
        NAME(find_renyi_terms)(p_now, q_now, count, 0, c, terms);
}

/* Adds groups of four columns. */
FASTKL_INLINE void NAME(add_groups)(NAME(lanes) *lanes, NAME(term) *term, traits of, NAME(columns) p, NAME(columns) q,
                                    ptrdiff_t groups, NAME(factor) c) {
    for (; groups; groups--, p = NAME(advance)(p, 4), q = NAME(advance)(q, 4)) {
        /* A prefetch would keep the loop over lanes from being vectorised. */
        for (int i = 0; i < 4; i++) {
            NAME(prefetch)(p, i);
            if (of.pair)
                NAME(prefetch)(q, i);
        }
        REAL p_four[4 * LANES], q_four[4 * LANES];
        const NAME(columns) p_now = NAME(as_reals)(p, 4, p_four), q_now = of.pair ? NAME(as_reals)(q, 4, q_four) : p_now;
        REAL terms[4 * LANES];
        if (of.infinite == 3 && !c.scaled)
            NAME(renyi_terms)(p_now, q_now, 4, c, terms);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL a0 = NAME(column)(p_now, 0, 4, NULL)[j], a1 = NAME(column)(p_now, 1, 4, NULL)[j];
            const REAL a2 = NAME(column)(p_now, 2, 4, NULL)[j], a3 = NAME(column)(p_now, 3, 4, NULL)[j];
            const REAL b0 = NAME(column)(q_now, 0, 4, NULL)[j], b1 = NAME(column)(q_now, 1, 4, NULL)[j];
            const REAL b2 = NAME(column)(q_now, 2, 4, NULL)[j], b3 = NAME(column)(q_now, 3, 4, NULL)[j];
            NAME(entry) e = NAME(both)(NAME(both)(term(a0, b0, c), term(a1, b1, c)),
                                       NAME(both)(term(a2, b2, c), term(a3, b3, c)));
            if (of.infinite == 3 && !c.scaled)
                e.term = (terms[j] + terms[j + LANES]) + (terms[j + 2 * LANES] + terms[j + 3 * LANES]);
            NAME(accumulate)(&lanes->term, j, e.term);
            NAME(accumulate)(&lanes->weight, j, e.weight);
            lanes->p_bits[j] |= (NAME(bits)(a0) | NAME(bits)(a1)) | (NAME(bits)(a2) | NAME(bits)(a3));
            if (of.pair) {
                NAME(accumulate)(&lanes->other, j, e.other);
                const REAL least = NAME(lesser)(NAME(lesser)(NAME(least_of)(of, a0, b0), NAME(least_of)(of, a1, b1)),
                                                NAME(lesser)(NAME(least_of)(of, a2, b2), NAME(least_of)(of, a3, b3)));
                lanes->least_q[j] = NAME(lesser)(lanes->least_q[j], least);
            }
        }
    }
}

/* Adds to lane j what a pair of entries adds, of which p is one and `least` counts as the other. */
FASTKL_INLINE void NAME(add_one)(NAME(lanes) *lanes, NAME(entry) e, int j, traits of, REAL p, REAL least) {
    NAME(accumulate)(&lanes->term, j, e.term);
    NAME(accumulate)(&lanes->weight, j, e.weight);
    lanes->p_bits[j] |= NAME(bits)(p);
    if (of.pair) {
        NAME(accumulate)(&lanes->other, j, e.other);
        lanes->least_q[j] = NAME(lesser)(lanes->least_q[j], least);
    }
}

/* Adds columns one by one. */
FASTKL_INLINE void NAME(add_singly)(NAME(lanes) *lanes, NAME(term) *term, traits of, NAME(columns) p, NAME(columns) q,
                                    ptrdiff_t count, NAME(factor) c) {
    REAL terms[4 * LANES];
    if (of.infinite == 3 && !c.scaled) /* of which there are less than four columns */
        NAME(renyi_terms)(p, q, (int)count, c, terms);
    for (ptrdiff_t i = 0; i < count; i++) {
        REAL p_column[LANES], q_column[LANES];
        const NAME(loose) *const a = NAME(column)(p, i, count, p_column);
        const NAME(loose) *const b = of.pair ? NAME(column)(q, i, count, q_column) : a;
        NAME(prefetch)(p, i);
        if (of.pair)
            NAME(prefetch)(q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            NAME(entry) e = term(a[j], b[j], c);
            if (of.infinite == 3 && !c.scaled)
                e.term = terms[i * LANES + j];
            NAME(add_one)(lanes, e, j, of, a[j], NAME(least_of)(of, a[j], b[j]));
        }
    }
}

/* Adds the last column, which is not full. */
FASTKL_INLINE void NAME(add_last)(NAME(lanes) *lanes, NAME(term) *term, traits of, NAME(columns) p, NAME(columns) q,
                                  NAME(factor) c) {
    const REAL *const a = p.last, *const b = of.pair ? q.last : a;
    REAL least[LANES];
    for (int j = 0; j < LANES; j++)
        least[j] = j < p.left ? NAME(least_of)(of, a[j], b[j]) : 1;
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        NAME(add_one)(lanes, term(a[j], b[j], c), j, of, a[j], least[j]);
}

/* Adds columns by fours, then one by one, then the last, if it is not full. */
FASTKL_INLINE void NAME(add_all)(NAME(lanes) *lanes, NAME(term) *term, traits of, NAME(columns) p, NAME(columns) q,
                                 ptrdiff_t count, NAME(factor) c) {
    const ptrdiff_t in_groups = count / 4 * 4;
    NAME(add_groups)(lanes, term, of, p, q, count / 4, c);
    NAME(add_singly)(lanes, term, of, NAME(advance)(p, in_groups), NAME(advance)(q, in_groups), count - in_groups, c);
    if (p.left > 0)
        NAME(add_last)(lanes, term, of, p, q, c);
}

/* Adds columns, compiled for two layouts: columns side by side, as they always are if scaled or of another type; and
   columns of interleaved rows, which have another step. A measure that is not common is compiled for the second alone. */
FASTKL_INLINE void NAME(add)(NAME(lanes) *lanes, NAME(term) *term, traits of, const NAME(columns) *p,
                             const NAME(columns) *q, ptrdiff_t count, NAME(factor) c) {
    NAME(lanes) now = *lanes;
    if (of.dtype != REAL_DTYPE || c.scaled ||
        (of.common && p->step == COLUMN_BYTES && q->step == COLUMN_BYTES))
        NAME(add_all)(&now, term, of, NAME(known)(*p, of.dtype, 1), NAME(known)(*q, of.dtype, 1), count, c);
    else
        NAME(add_all)(&now, term, of, NAME(known)(*p, of.dtype, 0), NAME(known)(*q, of.dtype, 0), count, c);
    if (of.infinite) {
        UINT small = 0;
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            small |= NAME(is_small)(now.least_q[j]);
        if (small >> (REAL_BITS - 1))
            NAME(find_small)(NAME(known)(*p, of.dtype, 0), NAME(known)(*q, of.dtype, 0), count, now.guard_bits);
        if (of.infinite > 1 && small >> (REAL_BITS - 1))
            NAME(find_small_p)(of.infinite, NAME(known)(*p, of.dtype, 0), NAME(known)(*q, of.dtype, 0), count,
                               now.guard_bits);
    }
    *lanes = now;
}

/* Adds columns of any type that can go into the sums from where it stands. */
FASTKL_INLINE void NAME(add_of_any_type)(NAME(lanes) *lanes, NAME(term) *term, traits of, const NAME(columns) *p,
                                         const NAME(columns) *q, ptrdiff_t count, NAME(factor) one) {
    switch (of.common ? p->dtype : REAL_DTYPE) {
    case REAL_DTYPE:
        NAME(add)(lanes, term, of, p, q, count, one);
        break;
#define ROW(name)                                          \
    case FASTKL_##name:                                    \
        of.dtype = FASTKL_##name;                          \
        NAME(add)(lanes, term, of, p, q, count, one);      \
        break;
        CONVERTED(ROW)
#undef ROW
    }
}

/* The functions that add columns, for each measure: without a factor, and with one, which no pass in float has. */
typedef void NAME(adder)(NAME(lanes) *lanes, const NAME(columns) *p, const NAME(columns) *q, ptrdiff_t count,
                         const NAME(factor) *c);

#define ROW(name, upper, pair, infinite, symmetric, equal, root, common)                                               \
    static void NAME(add_##name)(NAME(lanes) *lanes, const NAME(columns) *p, const NAME(columns) *q, ptrdiff_t count,  \
                                 const NAME(factor) *c) {                                                              \
        const traits of = {pair, infinite, REAL_DTYPE, common};                                                        \
        NAME(add_of_any_type)(lanes, NAME(name), of, p, q, count, NAME(unscaled)(*c));                                 \
    }                                                                                                                  \
    static void NAME(add_scaled_##name)(NAME(lanes) *lanes, const NAME(columns) *p, const NAME(columns) *q,            \
                                        ptrdiff_t count, const NAME(factor) *c) {                                      \
        if (REAL_BITS == 64) {                                                                                         \
            NAME(factor) factor = *c;                                                                                  \
            factor.scaled = 1;                                                                                         \
            NAME(add)(lanes, NAME(name), (traits){pair, infinite, REAL_DTYPE, common}, p, q, count, factor);           \
        }                                                                                                              \
    }
FASTKL_ENTRIES(ROW)
#undef ROW
#define ROW(name, ...) {NAME(add_##name), NAME(add_scaled_##name)},
static NAME(adder) *const NAME(adders)[][2] = {FASTKL_ENTRIES(ROW)};
#undef ROW
