/* Owns the addition of the lanes of a row, to which its entries were dealt out: of one row, and of LANES rows at once, with
   the same bits. In REAL. Knows nothing of where entries come from.

   The upper half of the lanes is added to the lower, until one is left. For sums in float a double has digits to spare. */

/* Adds `rows` sums to others; `rows` is a constant in every use. */
FASTKL_INLINE void NAME(add_lane)(int rows, double *sum, double *low, const double *next, const double *next_low) {
    FASTKL_VECTORIZE_INNER
    for (int i = 0; i < rows; i++) {
        if (REAL_BITS == 64) {
            two_sum(&sum[i], &low[i], next[i]);
            low[i] += next_low[i];
        } else {
            sum[i] += next[i];
        }
    }
}

/* Adds the lanes of a row to a sum in double. */
FASTKL_INLINE void NAME(fold)(const NAME(lane_sum) *from, double *to, double *to_low) {
    double sum[LANES], low[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const double high = (double)from->sum[j], rest = (double)from->low[j];
        sum[j] = REAL_BITS == 64 ? high : high + rest;
        low[j] = REAL_BITS == 64 ? rest : 0;
    }
    for (int half = LANES / 2; half; half /= 2)
        NAME(add_lane)(half, sum, low, sum + half, low + half);
    *to = sum[0], *to_low = low[0];
}

/* The sums of one row. */
FASTKL_INLINE void NAME(collect)(const NAME(lanes) *lanes, fastkl_sums *sums) {
    UINT entry_bits = 0, guard_bits = 0;
    NAME(fold)(&lanes->term, &sums->term, &sums->term_low);
    NAME(fold)(&lanes->other, &sums->other, &sums->other_low);
    NAME(fold)(&lanes->weight, &sums->weight, &sums->weight_low);
    for (int j = 0; j < LANES; j++) {
        entry_bits |= lanes->p_bits[j] | NAME(bits)(lanes->least_q[j]);
        guard_bits |= lanes->guard_bits[j];
    }
    sums->entry_bits |= (uint64_t)entry_bits << (64 - REAL_BITS);
    sums->guard_bits = (uint64_t)guard_bits << (64 - REAL_BITS);
}

/* The lanes of a row as so many doubles, which `fold` has after its first step where there are more floats. */
#if REAL_BITS == 64
FASTKL_INLINE void NAME(as_doubles)(const NAME(lane_sum) *from, double *sum, double *low) {
    memcpy(sum, from->sum, sizeof from->sum), memcpy(low, from->low, sizeof from->low);
}

/* Adds as many lanes of as many rows to sums in double, rounded. */
FASTKL_NOINLINE void fold_doubles(const double *sums, const double *lows, double *to) {
    double sum[LANES * LANES], low[LANES * LANES];
    transpose_f64(sum, (const char *)sums, LANES * sizeof(double), LANES);
    transpose_f64(low, (const char *)lows, LANES * sizeof(double), LANES);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            add_lane_f64(LANES, sum + j * LANES, low + j * LANES, sum + (j + half) * LANES, low + (j + half) * LANES);
    FASTKL_VECTORIZE_INNER
    for (int i = 0; i < FASTKL_TRIPS(LANES); i++)
        to[i] = sum[i] + low[i];
}

/* The same of lanes of which rounding has taken nothing that counts. */
FASTKL_NOINLINE void fold_doubles_only(const double *sums, double *to) {
    double sum[LANES * LANES];
    transpose_f64(sum, (const char *)sums, LANES * sizeof(double), LANES);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half * LANES; j++)
            sum[j] += sum[j + half * LANES];
    memcpy(to, sum, LANES * sizeof *to);
}
#else
FASTKL_INLINE void NAME(as_doubles)(const NAME(lane_sum) *from, double *sum, double *low) {
    (void)low;
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < LANES / 2; j++)
        sum[j] = ((double)from->sum[j] + (double)from->low[j]) +
                 ((double)from->sum[j + LANES / 2] + (double)from->low[j + LANES / 2]);
}
#endif

/* The sums of as many rows as a vector has doubles, which are those of a group from row `first` on. */
FASTKL_NOINLINE void NAME(collect_rows)(const NAME(lanes) *lanes, group_sums *to, int first) {
    double *const result[3] = {to->term + first, to->other + first, to->weight + first};
    double sum[3][DOUBLES * DOUBLES], low[3][DOUBLES * DOUBLES];
    UINT guard_bits = 0;
    for (int i = 0; i < DOUBLES; i++) {
        UINT entry_bits = 0;
        NAME(as_doubles)(&lanes[i].term, sum[0] + i * DOUBLES, low[0] + i * DOUBLES);
        NAME(as_doubles)(&lanes[i].other, sum[1] + i * DOUBLES, low[1] + i * DOUBLES);
        NAME(as_doubles)(&lanes[i].weight, sum[2] + i * DOUBLES, low[2] + i * DOUBLES);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            entry_bits |= lanes[i].p_bits[j] | NAME(bits)(lanes[i].least_q[j]);
            guard_bits |= lanes[i].guard_bits[j];
        }
        to->entry_bits[first + i] |= (uint64_t)entry_bits << (64 - REAL_BITS);
        to->guard_bits[first + i] = 0;
    }
    for (int k = 0; k < 3; k++)
        if (REAL_BITS == 64)
            fold_doubles(sum[k], low[k], result[k]);
        else
            fold_doubles_only(sum[k], result[k]);
    for (int i = 0; guard_bits && i < DOUBLES; i++)
        for (int j = 0; j < LANES; j++)
            to->guard_bits[first + i] |= (uint64_t)lanes[i].guard_bits[j] << (64 - REAL_BITS);
}
