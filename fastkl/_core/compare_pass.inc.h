/* Owns the pass of a comparison over rows of probabilities, whose entries are read once. In REAL. Knows nothing of terms
   and of what the sums mean.

   One row has all lanes, or each lane has a row, as in pass.inc.h. */

/* The columns that a search goes over at once. */
#define SEARCHED 8

/* Gives the bits of each lane to its row. */
FASTKL_INLINE void NAME(give_bits)(const UINT *bits, uint64_t *to) {
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        to[j] |= (uint64_t)bits[j] << (64 - REAL_BITS);
}

FASTKL_INLINE void NAME(give_compared)(const NAME(compared_lanes) *lanes, compared_sums *to, int row, int add) {
    NAME(give_sum)(&lanes->forward, to->forward + row, add);
    NAME(give_sum)(&lanes->reverse, to->reverse + row, add);
    NAME(give_sum)(&lanes->js, to->js + row, add);
    NAME(give_sum)(&lanes->p_log_p, to->p_log_p + row, add);
    NAME(give_sum)(&lanes->q_log_q, to->q_log_q + row, add);
    NAME(give_sum)(&lanes->p, to->p + row, add);
    NAME(give_sum)(&lanes->q, to->q + row, add);
    NAME(give_sum)(&lanes->difference, to->difference + row, add);
    NAME(give_bits)(lanes->bits, to->entry_bits + row);
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        to->largest_p[row + j] = (double)lanes->largest_p[j];
        to->largest_q[row + j] = (double)lanes->largest_q[j];
        to->same_argmax[row + j] = (double)lanes->same[j];
    }
}

/* The second pass of the total variation. */
FASTKL_NOINLINE void NAME(correct_tile)(NAME(columns) p, NAME(columns) q, int n, int row, compared_sums *to) {
    const double *const difference = to->difference + row, *const p_sum = to->p + row, *const q_sum = to->q + row;
    REAL shift[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        shift[j] = (REAL)(difference[j] / (p_sum[j] + q_sum[j]));
    NAME(correct_lanes)(p, q, n, shift, to->variation + row, 0);
}

/* The pass over rows of up to TILE entries. */
FASTKL_NOINLINE void NAME(compare_tiles)(const fastkl_operand *p, const fastkl_operand *q, int n, int rows,
                                         compared_sums *to) {
    const NAME(clipping) none = {0, NULL, NULL};
    const int most = NAME(batch)(n);
    REAL p_copy[TILE * LANES], q_copy[TILE * LANES];
    for (int first = 0, now; first < rows; first += now) {
        now = rows - first < most ? rows - first : most;
        if (now > LANES) /* the last rows are copied if there are fewer than LANES */
            now -= now % LANES;
        const NAME(tiles) p_tiles = NAME(tiles_of)(p_copy, first > 0, p, n, first, now, none);
        const NAME(tiles) q_tiles = NAME(tiles_of)(q_copy, first > 0, q, n, first, now, none);
        for (int i = 0; i < now; i += LANES) {
            const NAME(columns) p_now = NAME(columns_of_tile)(&p_tiles, n, i);
            const NAME(columns) q_now = NAME(columns_of_tile)(&q_tiles, n, i);
            UINT p_guard_bits[LANES] = {0}, q_guard_bits[LANES] = {0};
            NAME(compared_lanes) lanes;
            NAME(clear_compared)(&lanes);
            NAME(compare_columns)(&lanes, 0, p_now, q_now, n);
            NAME(find_small_of_both)(&lanes, &p_now, &q_now, n, p_guard_bits, q_guard_bits);
            NAME(give_compared)(&lanes, to, first + i, 0);
            NAME(correct_tile)(p_now, q_now, n, first + i, to);
            NAME(give_bits)(p_guard_bits, to->p_guard_bits + first + i);
            NAME(give_bits)(q_guard_bits, to->q_guard_bits + first + i);
        }
    }
}

/* The pass over longer rows from row `first` on, STRIP columns at a time. */
FASTKL_NOINLINE void NAME(compare_strips)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int first,
                                          int rows, compared_sums *to) {
    const NAME(clipping) none = {0, NULL, NULL};
    REAL p_copy[STRIP * LANES], q_copy[STRIP * LANES];
    NAME(compared_lanes) lanes[MOST_ROWS / LANES];
    for (int i = 0; i < rows; i += LANES)
        NAME(clear_compared)(&lanes[i / LANES]);
    for (ptrdiff_t start = 0; start < n; start += STRIP) {
        const int count = (int)(n - start < STRIP ? n - start : STRIP);
        const fastkl_operand p_strip = moved(p, 0, start), q_strip = moved(q, 0, start);
        const ptrdiff_t ahead = interleaved(p, q) ? 0 : start * (LANES - 1); /* as strips_pass */
        for (int i = 0; i < rows; i += LANES) {
            const int row = first + i, known = rows - i < LANES ? rows - i : LANES;
            UINT p_guard_bits[LANES] = {0}, q_guard_bits[LANES] = {0};
            NAME(compared_lanes) now = lanes[i / LANES];
            NAME(columns) p_now = NAME(strip_of)(p_copy, i > 0, &p_strip, count, row, known, none);
            NAME(columns) q_now = NAME(strip_of)(q_copy, i > 0, &q_strip, count, row, known, none);
            p_now.ahead += ahead * p->col, q_now.ahead += ahead * q->col;
            NAME(compare_columns)(&now, 0, p_now, q_now, count);
            NAME(find_small_of_both)(&now, &p_now, &q_now, count, p_guard_bits, q_guard_bits);
            NAME(give_bits)(p_guard_bits, to->p_guard_bits + row);
            NAME(give_bits)(q_guard_bits, to->q_guard_bits + row);
            if (start + count == n || (start + count) % MOST_COLUMNS == 0) {
                NAME(give_compared)(&now, to, row, start >= MOST_COLUMNS);
                NAME(clear_compared_sums)(&now);
            }
            lanes[i / LANES] = now;
        }
    }
}

/* The pass over up to MOST_ROWS rows, of which each lane has one, in the order of group_pass. */
static void NAME(compare_group)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int rows,
                                compared_sums *to) {
    if (n <= TILE)
        NAME(compare_tiles)(p, q, (int)n, rows, to);
    else if (interleaved(p, q))
        NAME(compare_strips)(p, q, n, 0, rows, to);
    else
        for (int i = 0; i < rows; i += LANES)
            NAME(compare_strips)(p, q, n, i, rows - i < LANES ? rows - i : LANES, to);
}

/* Are the largest entries of p and of q, which are given, first found in the same place? The entries stand side by side. */
FASTKL_NOINLINE int NAME(largest_in_one_place)(const NAME(loose) *p, const NAME(loose) *q, ptrdiff_t n, REAL p_max,
                                               REAL q_max) {
    UINT found = 0;
    ptrdiff_t i = 0;
    for (; i + SEARCHED * LANES <= n && !found; i += found ? 0 : SEARCHED * LANES) {
        UINT in_lane[LANES] = {0};
        for (int k = 0; k < SEARCHED; k++) {
            FASTKL_VECTORIZE
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                const UINT in_p = p[i + k * LANES + j] == p_max ? 1 : 0, in_q = q[i + k * LANES + j] == q_max ? 1 : 0;
                in_lane[j] |= in_p | in_q;
            }
        }
        for (int j = 0; j < LANES; j++)
            found |= in_lane[j];
    }
    while (i < n && p[i] != p_max && q[i] != q_max) /* of a row of negative entries, neither is there */
        i++;
    return i < n && p[i] == p_max && q[i] == q_max;
}

/* The sums of the lanes of as many rows as a vector has doubles, as fold_doubles takes them: of each sum, and of what
   rounding took from it. */
#define COMPARED_SUMS 8
typedef struct {
    double sum[COMPARED_SUMS][DOUBLES * DOUBLES], low[COMPARED_SUMS][DOUBLES * DOUBLES];
} NAME(compared_doubles);

/* Enters the lanes of row i of these. */
FASTKL_INLINE void NAME(enter_compared)(const NAME(compared_lanes) *lanes, int i, NAME(compared_doubles) *to) {
    const NAME(lane_sum) *const of[COMPARED_SUMS] = {&lanes->forward, &lanes->reverse, &lanes->js, &lanes->p_log_p,
                                                     &lanes->q_log_q, &lanes->p,       &lanes->q,  &lanes->difference};
    for (int k = 0; k < COMPARED_SUMS; k++)
        NAME(as_doubles)(of[k], to->sum[k] + i * DOUBLES, to->low[k] + i * DOUBLES);
}

/* Gives these sums to rows from row `first` on, or adds them to what the rows have. */
FASTKL_INLINE void NAME(fold_compared)(const NAME(compared_doubles) *of, int first, int rows, int add,
                                       compared_sums *to) {
    double *const result[COMPARED_SUMS] = {to->forward, to->reverse, to->js, to->p_log_p,
                                           to->q_log_q, to->p,       to->q,  to->difference};
    for (int k = 0; k < COMPARED_SUMS; k++) {
        double next[DOUBLES];
        if (REAL_BITS == 64)
            fold_doubles(of->sum[k], of->low[k], next);
        else
            fold_doubles_only(of->sum[k], next);
        for (int i = 0; i < rows; i++)
            result[k][first + i] = (add ? result[k][first + i] : 0) + next[i];
    }
}

/* Gives the largest entries of a piece to row i of the group; whether a lane has both the largest p and the largest q. */
FASTKL_INLINE int NAME(give_largest)(const NAME(compared_lanes) *lanes, int i, compared_sums *to) {
    REAL p[LANES], q[LANES];
    UINT shared = 0;
    memcpy(p, lanes->largest_p, sizeof p);
    memcpy(q, lanes->largest_q, sizeof q);
    const REAL p_max = NAME(extreme)(p, 0), q_max = NAME(extreme)(q, 0);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        shared |= (lanes->largest_p[j] == p_max ? 1 : 0) & (lanes->largest_q[j] == q_max ? 1 : 0);
    to->largest_p[i] = greater_f64(to->largest_p[i], (double)p_max);
    to->largest_q[i] = greater_f64(to->largest_q[i], (double)q_max);
    return (int)shared;
}

/* Adds a piece of a row to lanes that are clear, and its bits to row i of the group. */
FASTKL_INLINE void NAME(compare_piece)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int i,
                                       NAME(compared_lanes) *lanes, compared_sums *to) {
    const int p_in_place = in_a_row(p) && p->dtype == REAL_DTYPE, q_in_place = in_a_row(q) && q->dtype == REAL_DTYPE;
    const ptrdiff_t most = p_in_place && q_in_place ? n : CHUNK;
    REAL p_chunk[CHUNK + LANES], q_chunk[CHUNK + LANES];
    UINT bits = 0, p_bits = 0, q_bits = 0, p_guard_bits[LANES] = {0}, q_guard_bits[LANES] = {0};
    for (ptrdiff_t start = 0, count; start < n; start += count) {
        count = n - start < most ? n - start : most;
        const NAME(columns) p_now = NAME(row_columns)(p_chunk, p, p->data + start * p->col, count, p_in_place);
        const NAME(columns) q_now = NAME(row_columns)(q_chunk, q, q->data + start * q->col, count, q_in_place);
        NAME(compare_columns)(lanes, 1, p_now, q_now, count / LANES);
        NAME(find_small_of_both)(lanes, &p_now, &q_now, count / LANES, p_guard_bits, q_guard_bits);
    }
    for (int j = 0; j < LANES; j++)
        bits |= lanes->bits[j], p_bits |= p_guard_bits[j], q_bits |= q_guard_bits[j];
    to->entry_bits[i] |= (uint64_t)bits << (64 - REAL_BITS);
    to->p_guard_bits[i] |= (uint64_t)p_bits << (64 - REAL_BITS);
    to->q_guard_bits[i] |= (uint64_t)q_bits << (64 - REAL_BITS);
}

/* The pass over up to as many rows as a vector has doubles, one after the other; they become those from row `first` on. */
FASTKL_NOINLINE void NAME(compare_rows)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, int first, int rows,
                                        compared_sums *to) {
    NAME(compared_doubles) sums;
    NAME(compared_lanes) lanes;
    if (rows < DOUBLES)
        memset(&sums, 0, sizeof sums);
    for (int i = first; i < first + rows; i++)
        to->largest_p[i] = to->largest_q[i] = -1;
    for (ptrdiff_t start = 0; start < n; start += FASTKL_PIECE) {
        const ptrdiff_t count = columns_of_piece(n, start, FASTKL_PIECE);
        for (int i = 0; i < rows; i++) {
            const fastkl_operand p_piece = moved(p, first + i, start), q_piece = moved(q, first + i, start);
            NAME(clear_compared)(&lanes);
            NAME(compare_piece)(&p_piece, &q_piece, count, first + i, &lanes, to);
            NAME(enter_compared)(&lanes, i, &sums);
            /* Entries of one place are in one lane. */
            const int apart = !NAME(give_largest)(&lanes, first + i, to) && count == n;
            to->same_argmax[first + i] = apart ? 0 : NAN;
        }
        NAME(fold_compared)(&sums, first, rows, start > 0, to);
    }
    const int in_place = in_a_row(p) && p->dtype == REAL_DTYPE && in_a_row(q) && q->dtype == REAL_DTYPE;
    for (int i = first; i < first + rows; i++) {
        if (in_place && isnan(to->same_argmax[i]) && isfinite(to->p[i] + to->q[i]))
            to->same_argmax[i] = NAME(largest_in_one_place)((const NAME(loose) *)(p->data + i * p->row),
                                                            (const NAME(loose) *)(q->data + i * q->row), n,
                                                            (REAL)to->largest_p[i], (REAL)to->largest_q[i]);
    }
}
