/* Owns -log q[label] of rows of logits and of probabilities q, with label smoothing. Knows nothing of a row p. */

/* ln 2 by what exponent_f64 has for an exponent of 1. */
#define LN2_OF_STEP (FASTKL_LN2 * (FASTKL_INT64_TO_DOUBLE ? 0x1p-52 : 1))

/* A label. INT64_MAX stands for labels that are too large for the type; it is out of range too. */
static int64_t read_label(const fastkl_operand *labels) {
    switch (labels->dtype) {
#define ROW(name, type, value, single)                                        \
    case FASTKL_##name: {                                                     \
        type entry;                                                           \
        fastkl_read(&entry, labels->data, sizeof entry, labels->swapped);     \
        return (double)value(entry) < 0x1p63 ? (int64_t)entry : INT64_MAX;    \
    }
        FASTKL_DTYPES(ROW)
#undef ROW
    }
    return INT64_MAX;
}

static double log_sum_of(const entropy_sums *sums, fastkl_parts c) {
    return log_beyond_reference(sums->q_exponent, sums->q_reference, c) + log(sums->q_weight);
}

/* The logarithm of the sum of all weights, less the label's logit, from which the reference is subtracted. */
static double nll_of_logit(const logits_row *row, fastkl_parts c, const entropy_sums *sums, ptrdiff_t label) {
    double logit = fastkl_entry(*row->operand, label);
    if (!row->operand->logits)
        logit = logit * row->factor > MIN_NORMAL_QUOTIENT ? log(logit * row->factor) : log(logit) + log(row->factor);
    else
        logit = (logit - row->centre) * row->factor;
    return non_negative(log_sum_of(sums, c) - (logit - sums->q_reference) * c.high);
}

/* The value for logits q, and what is wrong with the row. */
static int nll_of_logits(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t label, double *value) {
    const fastkl_operand no_p = {.dtype = q->dtype, .logits = 1};
    const int in_range = scale_is_in_range(task);
    logits_pair pair = pair_of(task, &no_p, q, n);
    entropy_sums sums;
    int pass_status = PASS_NOT_FINITE;
    if (task->eps > 0 && in_range)
        clip_logits(&pair, &pair.q_row);
    while (in_range) {
        pass_status = sum_weights(&pair, NULL, &pair.q_row, SUM_WEIGHT, &sums);
        if (pass_status == PASS_ACCEPTED || (pass_status == PASS_OUT_OF_RANGE ? !centre(&pair) : !pair.lanes->is_float))
            break;
        pair.lanes = &logits_lanes_f64;
    }
    if (is_wanted(task))
        return FASTKL_VALID;
    if (pass_status != PASS_ACCEPTED) {
        const int finite = !(pass_status & (PASS_NOT_FINITE | PASS_OUT_OF_RANGE)) || !fastkl_check_entries(*q, no_p, n);
        const int status = !finite ? FASTKL_Q_ENTRY : fastkl_has_weight(*q, n, 0) ? FASTKL_VALID : FASTKL_Q_SUM;
        *value = status ? NAN : fastkl_fallback_nll(task, *q, n, label);
        return status;
    }
    *value = nll_of_logit(&pair.q_row, pair.c, &sums, label);
    if (task->eps > 0) {
        const double most = (sums.q_exponent * FASTKL_LN2 + log(sums.q_weight)) - pair.q_row.min;
        *value = *value < most ? *value : most;
    }
    if (task->smoothing > 0) {
        const double mean = run_sum(&pair, sums.q_reference) / (double)n * pair.c.high;
        *value = fastkl_smoothed(task, *value, non_negative(log_sum_of(&sums, pair.c) - mean));
    }
    return FASTKL_VALID;
}

/* log(sum / entry) for an entry that is at most the sum, except for rounding; both normal. */
FASTKL_INLINE double log_quotient(double sum, double entry) {
    const uint64_t step = exponent_step_f64(bits_f64(sum), bits_f64(entry));
    const double near = from_bits_f64(bits_f64(entry) + step);
    const double s = (sum - near) / (sum + near), z = s * s;
    return non_negative(mul_add_f64(exponent_f64(step), LN2_OF_STEP, mul_add_f64(s * z, T_f64(z), 2 * s)));
}

/* The sums of rows of probabilities, and the OR of the bits of each row's entries. */
static void sum_rows(const fastkl_operand *q, ptrdiff_t n, int rows, double *sum, uint64_t *bits) {
    (fastkl_is_single(q->dtype) ? sum_rows_f32 : sum_rows_f64)(q, n, rows, sum, bits);
}

/* The value for probabilities q, and what is wrong with the row. */
static int nll_of_probabilities(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t label,
                                double *value) {
    const fastkl_operand none = {.dtype = q->dtype};
    fastkl_task own = *task;
    double sum;
    uint64_t bits;
    sum_rows(q, n, 1, &sum, &bits);
    *value = NAN;
    const int normal = sum >= limits_f32.sum_least && sum <= limits_f32.sum_most;
    if (((bits & FASTKL_SIGN) || !isfinite(sum)) && fastkl_check_entries(*q, none, n))
        return FASTKL_Q_ENTRY;
    if (differs_from_one(sum, task->q_tolerance) || (!normal && !fastkl_has_weight(*q, n, task->eps)))
        return FASTKL_Q_SUM;
    if (normal && task->eps == 0) {
        const double entry = fastkl_entry(*q, label);
        *value = entry > MIN_NORMAL_QUOTIENT ? log_quotient(sum, entry) : entry > 0 ? log(sum) - log(entry) : INFINITY;
    } else {
        own.smoothing = 0, own.eps = task->eps;
        *value = fastkl_fallback_nll(&own, *q, n, label);
    }
    if (task->smoothing > 0) { /* the mean over all labels is the cross-entropy of a uniform distribution with q */
        static const float one = 1;
        const fastkl_operand uniform = {.data = (const char *)&one, .dtype = FASTKL_float32};
        double mean;
        uint8_t status;
        own.measure = FASTKL_cross_entropy, own.eps = task->eps, own.p_tolerance = own.q_tolerance = INFINITY;
        rows(&own, &uniform, q, n, 1, &mean, &status);
        *value = fastkl_smoothed(task, *value, mean);
    }
    return FASTKL_VALID;
}

/* The value for a row and its label, and what is wrong with the label or with the row; 0 if the label is ignored. */
static int nll_of_row(const fastkl_task *task, const fastkl_operand *q, int64_t label, ptrdiff_t n, double *value) {
    *value = 0;
    if (task->ignores && label == task->ignored)
        return FASTKL_VALID;
    if (label < 0 || label >= n) {
        *value = NAN;
        return FASTKL_LABEL;
    }
    return (q->logits ? nll_of_logits : nll_of_probabilities)(task, q, n, (ptrdiff_t)label, value);
}

/* The rows whose losses are computed at once. */
#define LOSSES 64

/* The labels of rows, those that are no integers of 64 or 32 bits one by one. */
static void read_labels(const fastkl_operand *labels, int rows, int64_t *label) {
    const ptrdiff_t step = labels->row;
    const int dtype = labels->swapped ? FASTKL_DTYPE_COUNT : labels->dtype;
    for (int i = 0; i < rows && dtype == FASTKL_int64; i++)
        memcpy(&label[i], labels->data + i * step, sizeof *label);
    for (int i = 0; i < rows && dtype == FASTKL_int32; i++) {
        int32_t entry;
        memcpy(&entry, labels->data + i * step, sizeof entry);
        label[i] = entry;
    }
    for (int i = 0; i < rows && dtype != FASTKL_int64 && dtype != FASTKL_int32; i++) {
        const fastkl_operand at = moved(labels, i, 0);
        label[i] = read_label(&at);
    }
}

/* The entries at the labels of LOSSES rows, of which `rows` are there; -1 where a label is ignored or out of range. */
static void read_entries(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, int rows, const int64_t *label,
                         double *entry) {
    const int ignores = task->ignores, in_order = !q->swapped;
    const int64_t ignored = task->ignored;
    ptrdiff_t place[LOSSES];
    FASTKL_VECTORIZE
    for (int i = 0; i < LOSSES; i++) {
        const int there = (label[i] >= 0) & (label[i] < n) & !((label[i] == ignored) & ignores);
        place[i] = there ? (ptrdiff_t)label[i] : -1;
    }
    if (in_order && q->dtype == FASTKL_float64) {
        for (int i = 0; i < rows; i++)
            memcpy(&entry[i], q->data + i * q->row + (place[i] < 0 ? 0 : place[i]) * q->col, sizeof *entry);
    } else if (in_order && q->dtype == FASTKL_float32) {
        for (int i = 0; i < rows; i++) {
            float single;
            memcpy(&single, q->data + i * q->row + (place[i] < 0 ? 0 : place[i]) * q->col, sizeof single);
            entry[i] = (double)single;
        }
    } else {
        for (int i = 0; i < rows; i++)
            entry[i] = fastkl_entry(moved(q, i, 0), place[i] < 0 ? 0 : place[i]);
    }
    FASTKL_VECTORIZE
    for (int i = 0; i < LOSSES; i++)
        entry[i] = place[i] < 0 ? -1 : entry[i];
}

/* The losses of rows of probabilities, as nll_of_row gives them, which has the rare cases. */
FASTKL_NOINLINE void nll_of_rows(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels,
                                 ptrdiff_t n, int rows, double *value, uint8_t *status) {
    const double least = limits_f32.sum_least, most = limits_f32.sum_most, tolerance = task->q_tolerance;
    int64_t label[LOSSES], common[LOSSES], all = 1;
    double sum[LOSSES], entry[LOSSES], loss[LOSSES];
    uint64_t bits[LOSSES];
    for (int i = rows; i < LOSSES; i++)
        sum[i] = entry[i] = 1, bits[i] = 0, label[i] = 0;
    sum_rows(q, n, rows, sum, bits);
    read_labels(labels, rows, label);
    read_entries(task, q, n, rows, label, entry);
    FASTKL_VECTORIZE
    for (int i = 0; i < LOSSES; i++) {
        loss[i] = log_quotient(sum[i], entry[i]);
        common[i] = ((int64_t)bits[i] >= 0) & (sum[i] >= least) & (sum[i] <= most) & (fabs(sum[i] - 1) <= tolerance) &
                    (entry[i] > MIN_NORMAL_QUOTIENT);
        all &= common[i];
    }
    memcpy(value, loss, (size_t)rows * sizeof *value);
    memset(status, FASTKL_VALID, (size_t)rows);
    for (int i = 0; !all && i < rows; i++) {
        if (!common[i]) {
            const fastkl_operand row = moved(q, i, 0);
            status[i] = (uint8_t)nll_of_row(task, &row, label[i], n, &value[i]);
        }
    }
}

/* The values for short rows of logits and their labels, and whether they are accepted; 0 if the label is ignored. */
FASTKL_NOINLINE void short_losses(const fastkl_task *task, const fastkl_operand *q, const int64_t *labels, ptrdiff_t n,
                                  int count, double *value, int64_t *accepts) {
    const fastkl_operand none = {.dtype = q->dtype};
    const logits_pair pair = pair_of(task, q, &none, n);
    int64_t places[LOGIT_ROWS] = {0};
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++)
        places[i] = labels[i] < 0 ? 0 : labels[i] < n ? labels[i] : 0;
    short_weights(&pair, count, SUM_WEIGHT, places, value, accepts);
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++)
        accepts[i] = labels[i] == places[i] ? accepts[i] : 0;
    for (int i = 0; task->ignores && i < count; i++)
        if (labels[i] == task->ignored)
            value[i] = 0, accepts[i] = 1;
}

static void nll(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n,
                ptrdiff_t count, double *value, uint8_t *status) {
    if (!q->logits && task->eps == 0 && task->smoothing == 0) {
        for (ptrdiff_t i = 0, now; i < count; i += now) {
            const fastkl_operand rows = moved(q, i, 0), row_labels = moved(labels, i, 0);
            now = count - i < LOSSES ? count - i : LOSSES;
            nll_of_rows(task, &rows, &row_labels, n, (int)now, &value[i], &status[i]);
        }
        return;
    }
    const fastkl_operand none = {.dtype = q->dtype};
    const int is_short = has_short_logits(task, q, &none, n) && !(task->smoothing > 0);
    for (ptrdiff_t i = 0, now; i < count; i += now) {
        const fastkl_operand rows = moved(q, i, 0), row_labels = moved(labels, i, 0);
        int64_t label[LOGIT_ROWS], accepts[LOGIT_ROWS] = {0};
        now = count - i < LOGIT_ROWS ? count - i : LOGIT_ROWS;
        read_labels(&row_labels, (int)now, label);
        if (is_short)
            short_losses(task, &rows, label, n, (int)now, value + i, accepts);
        for (ptrdiff_t k = 0; k < now; k++)
            status[i + k] = FASTKL_VALID;
        for (ptrdiff_t k = has_zero(accepts, (int)now) ? 0 : now; k < now; k++)
            if (!accepts[k]) {
                const fastkl_operand row = moved(&rows, k, 0);
                status[i + k] = (uint8_t)nll_of_row(task, &row, label[k], n, &value[i + k]);
            }
    }
}
