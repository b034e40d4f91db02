/* Owns the rescaled pass over a few rows at once, of which each lane has one: it gives the values of rows whose first pass
   was not accepted. In double. Knows nothing of rows that are invalid, or that need more than one such pass. */

/* Longer rows are rescaled one by one: a pass over a few of them, in as many lanes as are used, would take longer. */
#define MOST_RESCALED 32

/* Rows of a group: their number and indices; their sums, and the OR of bits whose sign says that these cannot be trusted.
   The value of a row is at first `wanted`, and remains so only where this pass gives it. Where p and q are `exchanged`,
   they change places; then q is multiplied by power x high, with high in [1, 2), or p where there is no q. Of lanes without
   a row nothing is wanted. */
typedef struct {
    int count, index[DOUBLES];
    double term[DOUBLES], other[DOUBLES], weight[DOUBLES], high[DOUBLES], power[DOUBLES], value[DOUBLES];
    uint64_t signs[DOUBLES];
    int64_t wanted[DOUBLES], exchanged[DOUBLES];
} rescaled_rows;

/* The factors of valid rows without small entries, from the sums of their first passes; and whether any pass is wanted. Of
   Renyi's divergences, those of rows far apart are, by the sum of powers. */
FASTKL_INLINE int find_factors(int measure, const fastkl_task *task, const limits *within, rescaled_rows *to) {
    const fastkl_task constant = *task;
    const limits bounds = *within;
    int64_t any = 0;
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++) {
        const finished row = finish_sums(measure, &constant, (row_sums){to->term[j], to->other[j], to->weight[j], 0}, 0);
        const double of_p = (row.sum_of_p - row.excess) / row.sum_of_p, of_q = (row.sum_of_q + row.excess) / row.sum_of_q;
        const double c = to->exchanged[j] ? of_p : of_q;
        const int valid = trusted(to->term[j], to->signs[j], &row, &bounds) &
                          (fabs(row.sum_of_p - 1) <= constant.p_tolerance) &
                          (fabs(row.sum_of_q - 1) <= constant.q_tolerance) &
                          (measure != FASTKL_renyi_divergence || needs_powers(&constant, &row));
        const int64_t wanted = to->wanted[j] & valid & (to->term[j] != 0) & (c > 1 / FACTOR_MOST) & (c < FACTOR_MOST);
        const uint64_t factor = bits_f64(wanted ? c : 1);
        to->wanted[j] = wanted, any |= wanted;
        to->high[j] = from_bits_f64((factor & 0x000fffffffffffff) | 0x3ff0000000000000);
        to->power[j] = from_bits_f64(factor & 0x7ff0000000000000);
    }
    return any != 0;
}

/* Exchanges the entries of p and q in tiles where these are, and multiplies by the powers of two. */
FASTKL_INLINE void prepare_tiles(traits of, int symmetric, double *p, double *q, int n, const rescaled_rows *by) {
    const rescaled_rows constant = *by;
    for (int i = 0; i < n; i++, p += DOUBLES, q += DOUBLES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++) {
            const double a = p[j], b = q[j];
            if (symmetric)
                p[j] = constant.exchanged[j] ? b : a;
            if (of.pair)
                q[j] = constant.power[j] * (symmetric && constant.exchanged[j] ? a : b);
            else
                p[j] = constant.power[j] * a;
        }
    }
}

/* The factor for a row. */
FASTKL_INLINE factor_f64 with_high(factor_f64 c, double high) {
    c.high = high, c.low = 0, c.scaled = 1;
    return c;
}

/* Adds the columns of tiles of which one is multiplied. */
FASTKL_INLINE void add_rescaled(lanes_f64 *lanes, term_f64 *term, traits of, const double *p, const double *q, int n,
                                factor_f64 c, const double *high) {
    for (int i = 0; i < n % 4; i++, p += DOUBLES, q += DOUBLES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++)
            add_one_f64(lanes, term(p[j], q[j], with_high(c, high[j])), j, of, p[j], q[j]);
    }
    for (int i = 0; i < n / 4; i++, p += 4 * DOUBLES, q += 4 * DOUBLES) {
        const double *const p1 = p + DOUBLES, *const p2 = p1 + DOUBLES, *const p3 = p2 + DOUBLES;
        const double *const q1 = q + DOUBLES, *const q2 = q1 + DOUBLES, *const q3 = q2 + DOUBLES;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++) {
            const factor_f64 own = with_high(c, high[j]);
            const entry_f64 e = both_f64(both_f64(term(p[j], q[j], own), term(p1[j], q1[j], own)),
                                         both_f64(term(p2[j], q2[j], own), term(p3[j], q3[j], own)));
            add_one_f64(lanes, e, j, of, p[j], lesser_f64(lesser_f64(q[j], q1[j]), lesser_f64(q2[j], q3[j])));
        }
    }
}

/* Copies the rows of one operand to a tile. */
FASTKL_NOINLINE void gather_rows(double *tile, const fastkl_operand *from, int n, const rescaled_rows *rows) {
    double copy[MOST_RESCALED * DOUBLES];
    const char *const data = from->data + rows->index[0] * from->row;
    if (rows->index[rows->count - 1] - rows->index[0] == rows->count - 1) { /* they follow each other */
        load_tiles_f64(tile, from, data, n, rows->count);
        return;
    }
    for (int i = 0; i < DOUBLES; i++) /* in place of rows that are missing, the first stands again */
        load_f64(copy + i * n, from, from->data + rows->index[i < rows->count ? i : 0] * from->row, n, n);
    transpose_f64(tile, (const char *)copy, n * (ptrdiff_t)sizeof(double), n);
}

/* The pass. */
FASTKL_INLINE void rescaled_pass(term_f64 *term, traits of, factor_f64 c, int symmetric, const fastkl_operand *p,
                                 const fastkl_operand *q, int n, rescaled_rows *rows) {
    _Alignas(COLUMN_BYTES) double p_tile[MOST_RESCALED * DOUBLES], q_tile[MOST_RESCALED * DOUBLES], high[DOUBLES];
    double *const second = of.pair ? q_tile : p_tile;
    uint64_t small = 0;
    lanes_f64 lanes;
    clear_f64(&lanes);
    memcpy(high, rows->high, sizeof high);
    gather_rows(p_tile, p, n, rows);
    if (of.pair)
        gather_rows(q_tile, q, n, rows);
    prepare_tiles(of, symmetric, p_tile, second, n, rows);
    add_rescaled(&lanes, term, of, p_tile, second, n, c, high);
    for (int j = 0; of.infinite && j < DOUBLES; j++)
        small |= is_small_f64(lanes.least_q[j]);
    if (small & FASTKL_SIGN) {
        columns_f64 columns[2] = {{(const char *)p_tile, COLUMN_BYTES, FASTKL_float64}, {0}};
        columns[1] = columns[0], columns[1].data = (const char *)q_tile;
        find_small_f64(columns[0], columns[1], n, lanes.guard_bits);
    }
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++) {
        rows->term[j] = lanes.term.sum[j] + lanes.term.low[j];
        rows->other[j] = lanes.other.sum[j] + lanes.other.low[j];
        rows->weight[j] = lanes.weight.sum[j] + lanes.weight.low[j];
        rows->signs[j] = lanes.guard_bits[j];
    }
}

/* The values that the pass gives, and where it does. Values of rows in float are right to a float where their sums agree to
   one. */
FASTKL_INLINE void finish_rescaled(int measure, const fastkl_task *task, const limits *of_first, rescaled_rows *rows) {
    const fastkl_task constant = *task;
    const limits bounds = {limits_f64.sum_least, limits_f64.sum_most, limits_f64.term_least, of_first->excess_most};
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(DOUBLES); j++) {
        const row_sums sums = {rows->term[j], rows->other[j], rows->weight[j], 0};
        const finished row = finish_sums(measure, &constant, sums, 0);
        const int powers = measure == FASTKL_renyi_divergence;
        const int near = fabs(row.excess) <= bounds.excess_most * row.sum_of_p;
        rows->value[j] = powers ? renyi_of_powers(sums, &constant) : row.value;
        rows->wanted[j] &= trusted(rows->term[j], rows->signs[j], &row, &bounds) &
                           (powers ? near : acceptable(measure, &row, &bounds));
    }
}

/* Each finds the factors, does the pass and gives the values. There is one for each measure that is rescaled in groups. */
typedef void rescaler(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, int n,
                      rescaled_rows *rows);

#define ROW(name, pair, infinite, symmetric)                                                                         \
    static void rescale_##name(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, int n,     \
                               rescaled_rows *rows) {                                                                \
        const limits *const within = limits_of(task, p, q);                                                          \
        const traits of = {pair, infinite, FASTKL_float64};                                                          \
        factor_f64 c = no_factor_f64(task);                                                                          \
        c.powers = 1;                                                                                                \
        if (find_factors(FASTKL_##name, task, within, rows)) {                                                       \
            rescaled_pass(name##_f64, of, c, symmetric, p, q, n, rows);                                              \
            finish_rescaled(FASTKL_##name, task, within, rows);                                                      \
        }                                                                                                            \
    }
ROW(entropy, 0, 0, 0)
ROW(cross_entropy, 1, 1, 0)
ROW(kl_divergence, 1, 1, 0)
ROW(js_divergence, 1, 0, 1)
ROW(renyi_divergence, 1, 0, 0)
#undef ROW
#define ENTRY(name) [FASTKL_##name] = rescale_##name
static rescaler *const rescalers[FASTKL_MEASURE_COUNT] = {ENTRY(entropy), ENTRY(cross_entropy), ENTRY(kl_divergence),
                                                          ENTRY(js_divergence), ENTRY(renyi_divergence)};
#undef ENTRY

/* Enters row i of a group. */
FASTKL_INLINE void enter_row(const fastkl_task *task, fastkl_operand p, fastkl_operand q, int n, const group_sums *sums,
                             int i, rescaled_rows *to) {
    const int j = to->count++;
    to->index[j] = i, to->wanted[j] = 1;
    to->term[j] = sums->term[i], to->other[j] = sums->other[i], to->weight[j] = sums->weight[i];
    to->signs[j] = sums->guard_bits[i];
    if (sums->entry_bits[i] & FASTKL_SIGN && fastkl_check_entries(p, q, n)) /* it is not that of a zero */
        to->signs[j] = FASTKL_SIGN;
    if (fastkl_is_symmetric(task->measure)) { /* multiply the same row, whether it is p or q */
        const double a = fastkl_entry(p, 0), b = fastkl_entry(q, 0);
        to->exchanged[j] = a != b ? a > b : fastkl_order(p, q, n) > 0;
    }
}

/* Gives the rows of a group that are not accepted the values of one rescaled pass, as far as it is accepted. */
FASTKL_NOINLINE void rescale_group(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, int n,
                                   int count, const group_sums *sums, double *value, int64_t *accepts) {
    const rescaled_rows none = {0};
    rescaled_rows rows = none;
    for (int i = 0; i < count; i++) {
        if (!accepts[i])
            enter_row(task, moved(p, i, 0), moved(q, i, 0), n, sums, i, &rows);
        if (rows.count < DOUBLES && (i < count - 1 || rows.count == 0))
            continue;
        rescalers[task->measure](task, p, q, n, &rows);
        for (int j = 0; j < rows.count; j++)
            if (rows.wanted[j] && rows.value[j] >= SMALL_VALUE)
                value[rows.index[j]] = apply_root(task->root, rows.value[j]), accepts[rows.index[j]] = 1;
        rows = none;
    }
}
