/* Owns -log q[label] of rows of logits and of probabilities q, with label smoothing. Knows nothing of a row p. */

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
        clip_logits(&pair);
    while (in_range) {
        pass_status = sum_weights(&pair, NULL, &pair.q_row, SUM_WEIGHT, &sums);
        if (pass_status == PASS_ACCEPTED || (pass_status == PASS_OUT_OF_RANGE ? !centre(&pair) : !pair.lanes->is_float))
            break;
        pair.lanes = &logits_lanes_f64;
    }
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
        const double mean = pair.lanes->sum_logits(&pair.q_row, n, sums.q_reference) / (double)n * pair.c.high;
        *value = fastkl_smoothed(task, *value, non_negative(log_sum_of(&sums, pair.c) - mean));
    }
    return FASTKL_VALID;
}

/* The value for probabilities q, and what is wrong with the row. */
static int nll_of_probabilities(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t label,
                                double *value) {
    const fastkl_operand none = {.dtype = q->dtype};
    fastkl_task own = *task;
    fastkl_sums sums;
    own.measure = FASTKL_entropy, own.eps = 0;
    pass_over_row(&own, q, &none, n, &sums);
    *value = NAN;
    const double sum = sums.weight + sums.weight_low;
    const int normal = sum >= limits_f32.sum_least && sum <= limits_f32.sum_most;
    if (((sums.entry_bits & FASTKL_SIGN) || !isfinite(sum)) && fastkl_check_entries(*q, none, n))
        return FASTKL_Q_ENTRY;
    if (differs_from_one(sum, task->q_tolerance) || (!normal && !fastkl_has_weight(*q, n, task->eps)))
        return FASTKL_Q_SUM;
    if (normal && task->eps == 0) {
        const double entry = fastkl_entry(*q, label);
        *value = entry > MIN_NORMAL_QUOTIENT ? log1p(non_negative(sum - entry) / entry)
                 : entry > 0                 ? log(sum) - log(entry)
                                             : INFINITY;
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

/* The value for a row's label: 0 if it is ignored. What is wrong with the label or with the row. */
static int nll_of_row(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n,
                      double *value) {
    const int64_t label = read_label(labels);
    *value = 0;
    if (task->ignores && label == task->ignored)
        return FASTKL_VALID;
    if (label < 0 || label >= n) {
        *value = NAN;
        return FASTKL_LABEL;
    }
    return (q->logits ? nll_of_logits : nll_of_probabilities)(task, q, n, (ptrdiff_t)label, value);
}

static void nll(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n,
                ptrdiff_t count, double *value, uint8_t *status) {
    fastkl_operand row = *q, label = *labels;
    for (ptrdiff_t i = 0; i < count; i++, row.data += q->row, label.data += labels->row)
        status[i] = (uint8_t)nll_of_row(task, &row, &label, n, &value[i]);
}
