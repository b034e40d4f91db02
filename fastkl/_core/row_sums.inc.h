/* Owns the sums of rows of one operand, with the OR of their entries' bits, where no measure is wanted. In REAL lanes;
   those of short rows, and those of a part of a row, in double. Knows nothing of labels. */

/* Up to FEW_ENTRIES are added in an order in which at most four additions are rounded one after the other, which costs two
   units in the last place; up to SOME_ENTRIES, eight at a time. */
#define FEW_ENTRIES 12
#define SOME_ENTRIES 256

/* The sum of a few entries that stand side by side. */
FASTKL_INLINE double NAME(sum_few)(const NAME(loose) *x, ptrdiff_t n, UINT *bits) {
    double a = 0, b = 0, c = 0, d = 0;
    UINT a_bits = 0, b_bits = 0, c_bits = 0, d_bits = 0;
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) {
        a += (double)x[i], b += (double)x[i + 1], c += (double)x[i + 2], d += (double)x[i + 3];
        a_bits |= NAME(bits)(x[i]), b_bits |= NAME(bits)(x[i + 1]);
        c_bits |= NAME(bits)(x[i + 2]), d_bits |= NAME(bits)(x[i + 3]);
    }
    if (i < n)
        a += (double)x[i], a_bits |= NAME(bits)(x[i]);
    if (i + 1 < n)
        b += (double)x[i + 1], b_bits |= NAME(bits)(x[i + 1]);
    if (i + 2 < n)
        c += (double)x[i + 2], c_bits |= NAME(bits)(x[i + 2]);
    *bits = (a_bits | b_bits) | (c_bits | d_bits);
    return (a + b) + (c + d);
}

/* The sum of some entries that stand side by side. */
FASTKL_INLINE double NAME(sum_some)(const NAME(loose) *x, ptrdiff_t n, UINT *bits) {
    double sum[8], low[8];
    UINT all[8];
    FASTKL_VECTORIZE
    for (int j = 0; j < 8; j++)
        sum[j] = (double)x[j], low[j] = 0, all[j] = NAME(bits)(x[j]);
    for (x += 8, n -= 8; n >= 8; x += 8, n -= 8) {
        FASTKL_VECTORIZE
        for (int j = 0; j < 8; j++) {
            const double entry = (double)x[j], total = sum[j] + entry;
            low[j] += REAL_BITS == 64 ? entry - (total - sum[j]) : 0;
            sum[j] = total;
            all[j] |= NAME(bits)(x[j]);
        }
    }
    *bits = ((all[0] | all[1]) | (all[2] | all[3])) | ((all[4] | all[5]) | (all[6] | all[7]));
    UINT rest_bits = 0;
    const double rest = NAME(sum_few)(x, n, &rest_bits);
    *bits |= rest_bits;
    double total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double total_low = ((low[0] + low[1]) + (low[2] + low[3])) + ((low[4] + low[5]) + (low[6] + low[7]));
    two_sum(&total, &total_low, (sum[4] + sum[5]) + (sum[6] + sum[7]));
    two_sum(&total, &total_low, rest);
    return total + total_low;
}

/* Adds columns of one row to its sum in each lane. */
FASTKL_INLINE void NAME(sum_columns)(NAME(columns) x, ptrdiff_t count, NAME(lane_sum) *sum, UINT *bits) {
    NAME(lane_sum) now = *sum;
    UINT all[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        all[j] = 0;
    for (ptrdiff_t i = 0; i < count / 4; i++, x = NAME(advance)(x, 4)) {
        const NAME(loose) *const a = (const NAME(loose) *)x.data, *const b = a + LANES;
        const NAME(loose) *const c = b + LANES, *const d = c + LANES;
        for (int k = 0; k < 4; k++)
            NAME(prefetch)(x, k);
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            NAME(accumulate)(&now, j, (a[j] + b[j]) + (c[j] + d[j]));
            all[j] |= (NAME(bits)(a[j]) | NAME(bits)(b[j])) | (NAME(bits)(c[j]) | NAME(bits)(d[j]));
        }
    }
    count %= 4;
    for (ptrdiff_t i = 0; i < count + (x.left > 0); i++) {
        const NAME(loose) *const a = i < count ? (const NAME(loose) *)x.data + i * LANES : x.last;
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            NAME(accumulate)(&now, j, a[j]);
            all[j] |= NAME(bits)(a[j]);
        }
    }
    *sum = now;
    for (int j = 0; j < LANES; j++)
        *bits |= all[j];
}

/* The sum of a row whose entries start at `data`. */
FASTKL_NOINLINE double NAME(sum_row)(const fastkl_operand *from, const char *data, ptrdiff_t n, UINT *bits) {
    const int in_place = from->dtype == REAL_DTYPE && in_a_row(from);
    const ptrdiff_t most = in_place ? FASTKL_PIECE : CHUNK;
    REAL chunk[CHUNK + LANES];
    NAME(lane_sum) lanes;
    double sum = 0, low = 0, next, next_low;
    *bits = 0;
    memset(&lanes, 0, sizeof lanes);
    for (ptrdiff_t start = 0; start < n; start += most) {
        const ptrdiff_t count = columns_of_piece(n, start, most);
        const NAME(columns) columns = NAME(row_columns)(chunk, from, data + start * from->col, count, in_place);
        NAME(sum_columns)(NAME(known)(columns, REAL_DTYPE, 1), count / LANES, &lanes, bits);
        if (start + count < n && (start + count) % FASTKL_PIECE)
            continue;
        NAME(fold)(&lanes, &next, &next_low);
        two_sum(&sum, &low, next);
        low += next_low;
        memset(&lanes, 0, sizeof lanes);
    }
    return sum + low;
}

/* The sums of rows, and the OR of the bits of each row's entries: a sign says that one may be negative. */
static void NAME(sum_rows)(const fastkl_operand *from, ptrdiff_t n, int rows, double *sum, uint64_t *bits) {
    const int in_place = from->dtype == REAL_DTYPE && in_a_row(from);
    REAL copy[SOME_ENTRIES];
    for (int i = 0; i < rows; i++) {
        const char *const data = from->data + i * from->row;
        const NAME(loose) *entries = (const NAME(loose) *)data;
        UINT all;
        if (!in_place && n <= SOME_ENTRIES) {
            NAME(load)(copy, from, data, (int)n, (int)n);
            entries = copy;
        }
        sum[i] = n <= FEW_ENTRIES    ? NAME(sum_few)(entries, n, &all)
                 : n <= SOME_ENTRIES ? NAME(sum_some)(entries, n, &all)
                                     : NAME(sum_row)(from, data, n, &all);
        bits[i] = (uint64_t)all << (64 - REAL_BITS);
    }
}

/* Adds entries that stand side by side, a multiple of ADDED_ENTRIES. Of doubles, the sum in two parts has 2^-100 as
   relative error; of floats 2^-52, because four are added before what rounding takes is kept. */
FASTKL_NOINLINE void NAME(add_entries)(const char *data, ptrdiff_t count, double_sums *sums) {
    const NAME(loose) *x = (const NAME(loose) *)data, *const end = x + count;
    double_sums now = *sums;
    for (; x < end; x += ADDED_ENTRIES) {
        for (int i = 0; i < ADDED_ENTRIES * (int)sizeof *x; i += FASTKL_LINE)
            FASTKL_PREFETCH(beyond((const char *)x, FASTKL_PREFETCH_AHEAD + i));
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(SUM_LANES); j++) {
            double a = (double)x[j], c = (double)x[j + 2 * SUM_LANES], high = now.sum[j], rest = now.low[j];
            const double b = (double)x[j + SUM_LANES], d = (double)x[j + 3 * SUM_LANES];
            now.bits[j] |= (bits_f64(a) | bits_f64(b)) | (bits_f64(c) | bits_f64(d));
            if (REAL_BITS == 64) {
                two_sum(&a, &rest, b);
                two_sum(&c, &rest, d);
                two_sum(&a, &rest, c);
            } else {
                a = (a + b) + (c + d);
            }
            two_sum(&high, &rest, a);
            now.sum[j] = high, now.low[j] = rest;
        }
    }
    *sums = now;
}
