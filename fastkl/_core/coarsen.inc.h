/* Owns the coarser row of a few entries of a row and one for all others, which are summed without the few. In double,
   whatever the dtype is. Knows nothing of measures.

   Where the values and the divergence are floats, the sum of the others is that of all less the few, because that is
   faster. Where it would lack digits, a second pass, over a row that is then in cache, leaves the few out. */

/* Others that are this share of all, or more, have the digits that count: that of all has a relative error of 2^-52, and
   one of 2^-43 does not show in a divergence in float. */
#define LEAST_SHARE 0x1p-9

/* The copied entries that are added at a time. */
#define COPIED_ENTRIES (8 * ADDED_ENTRIES)

/* The sum of a row's entries but those at the columns, in two parts, and the OR of their bits. Only the entries beside a
   column are copied, which becomes 0 in the copy, and all of a row that cannot be summed where it stands. */
static fastkl_parts sum_of_others(const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *but, uint64_t *bits) {
    const int is_float = q->dtype == FASTKL_float32 && !but->exact;
    const int in_place = in_a_row(q) && (is_float || q->dtype == FASTKL_float64);
    double_sums sums = {{0}, {0}, {0}};
    double copy[COPIED_ENTRIES];
    int copied = 0;
    ptrdiff_t i = 0;
    for (ptrdiff_t start = 0, end; start < n; start = end) {
        const char *const data = q->data + start * q->col;
        end = (i < but->count ? (ptrdiff_t)but->sorted[i] : n) / ADDED_ENTRIES * ADDED_ENTRIES;
        if (in_place && end > start) {
            (is_float ? add_entries_f32 : add_entries_f64)(data, end - start, &sums);
            continue;
        }
        const int count = (int)columns_of_piece(n, start, in_place ? ADDED_ENTRIES : COPIED_ENTRIES - copied);
        const int filled = (count + ADDED_ENTRIES - 1) / ADDED_ENTRIES * ADDED_ENTRIES;
        double *const now = copy + copied;
        end = start + count;
        for (ptrdiff_t k = 0; in_a_row(q) && k < count * q->col; k += FASTKL_LINE)
            FASTKL_PREFETCH(beyond(data, FASTKL_PREFETCH_AHEAD + k));
        load_f64(now, q, data, count, filled);
        for (; i < but->count && but->sorted[i] < end; i++)
            now[but->sorted[i] - start] = 0;
        copied += filled;
        if (copied == COPIED_ENTRIES) {
            add_entries_f64((const char *)copy, copied, &sums);
            copied = 0;
        }
    }
    add_entries_f64((const char *)copy, copied, &sums);
    fastkl_parts total = {0, 0};
    *bits = 0;
    for (int j = 0; j < SUM_LANES; j++) {
        two_sum(&total.high, &total.low, sums.sum[j]);
        total.low += sums.low[j];
        *bits |= sums.bits[j];
    }
    return total;
}

/* The entries at the columns; floats, which are most, without a call for each. It is called after the pass over the row,
   which is then in cache. */
static void read_few(const fastkl_operand *q, const fastkl_columns *at, double *entries) {
    const int is_float = q->dtype == FASTKL_float32 && !q->swapped;
    for (ptrdiff_t i = 0; is_float && i < at->count; i++) {
        float single;
        memcpy(&single, q->data + at->at[i] * q->col, sizeof single);
        entries[i] = (double)single;
    }
    for (ptrdiff_t i = 0; !is_float && i < at->count; i++)
        entries[i] = fastkl_entry(*q, (ptrdiff_t)at->at[i]);
}

static int coarsen_probabilities(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *at,
                                 double *entries) {
    const fastkl_operand none = {.dtype = q->dtype};
    const fastkl_columns no_columns = {0};
    const int is_float = q->dtype == FASTKL_float32 && !at->exact;
    uint64_t bits, bits_of_others;
    fastkl_parts others = sum_of_others(q, n, is_float ? &no_columns : at, &bits);
    double sum = others.high + others.low;
    read_few(q, at, entries);
    for (ptrdiff_t i = 0; i < at->count; i++) {
        if (is_float)
            two_sum(&others.high, &others.low, -entries[i]);
        else
            sum += entries[i], bits |= bits_f64(entries[i]);
    }
    if (is_float && !(others.high >= LEAST_SHARE * sum))
        others = sum_of_others(q, n, at, &bits_of_others);
    const double rounded = others.high + others.low;
    entries[at->count] = rounded;
    entries[at->count + 1] = at->exact ? (others.high - rounded) + others.low : 0;
    if (((bits & FASTKL_SIGN) || !isfinite(sum)) && fastkl_check_entries(*q, none, n))
        return FASTKL_Q_ENTRY;
    if (differs_from_one(sum, task->q_tolerance) || (sum == 0 && !fastkl_has_weight(*q, n, task->eps)))
        return FASTKL_Q_SUM;
    return isfinite(sum) ? FASTKL_VALID : FASTKL_REFUSED;
}

/* The weights of the others are summed in double lanes also for floats: the divergence is of second order in errors of all
   weights together, but of first order in that of one. */
static int coarsen_logits(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *at,
                          double *entries) {
    const fastkl_parts c = {task->scale, task->scale_low};
    logits_row row = {.operand = q, .hidden = at, .as_is = 1, .factor = 1, .min = -INFINITY, .least = -INFINITY};
    entropy_sums sums;
    const int in_range = scale_is_in_range(task);
    int status = in_range ? weights_pass_f64(NULL, &row, n, c, SUM_WEIGHT, &sums) : PASS_INACCURATE, is_finite = 0;
    if (status == PASS_OUT_OF_RANGE) {
        find_largest_f64(&row, n, &row.centre);
        row.centred = 1, row.as_is = 0;
        status = weights_pass_f64(NULL, &row, n, c, SUM_WEIGHT, &sums);
    }
    if (status || isnan(sums.q_weight)) {
        const fastkl_operand none = {.dtype = q->dtype};
        if (fastkl_check_entries(*q, none, n))
            return FASTKL_Q_ENTRY;
        return fastkl_has_weight(*q, n, 0) ? FASTKL_REFUSED : FASTKL_Q_SUM;
    }
    read_few(q, at, entries);
    for (ptrdiff_t i = 0; i < at->count; i++) {
        if (!(entries[i] < INFINITY))
            return FASTKL_Q_ENTRY;
        is_finite |= entries[i] > -INFINITY;
    }
    const int has_others = sums.q_weight > 0;
    if (!has_others && !is_finite)
        return FASTKL_Q_SUM;
    const double centre = has_others ? row.centre : 0, reference = has_others ? sums.q_reference : 0;
    for (ptrdiff_t i = 0; i < at->count; i++) {
        const double logit = (entries[i] - centre) - reference, product = logit * c.high;
        if (isinf(product) && isfinite(entries[i]))
            return FASTKL_REFUSED;
        entries[i] = isinf(product) || c.high == 1 ? product : fma(logit, c.high, logit * c.low);
    }
    entries[at->count] =
        has_others ? log_beyond_reference(sums.q_exponent, reference, c) + log(sums.q_weight) : -INFINITY;
    entries[at->count + 1] = (centre + reference) * c.high;
    return FASTKL_VALID;
}

static void coarsen(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *at,
                    double *entries, uint8_t *status) {
    *status = FASTKL_INDEX;
    for (ptrdiff_t i = 0; i < at->count; i++)
        if (at->sorted[i] < 0 || at->sorted[i] >= n || (i > 0 && at->sorted[i] == at->sorted[i - 1]))
            return;
    *status = (uint8_t)(q->logits ? coarsen_logits : coarsen_probabilities)(task, q, n, at, entries);
}
