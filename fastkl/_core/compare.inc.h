/* Owns the comparison of two rows, measure by measure where logits_compare.inc.h does not have it. Knows nothing of loops
   over entries. */

/* The measures of a comparison, of p and q or of these exchanged. D comes first, and finds what is wrong with a row. */
static const struct {
    int measure, exchanged, field;
} compared[] = {
    {FASTKL_kl_divergence, 0, FASTKL_kl_field},  {FASTKL_kl_divergence, 1, FASTKL_reverse_kl_field},
    {FASTKL_js_divergence, 0, FASTKL_js_field},  {FASTKL_entropy, 0, FASTKL_entropy_p_field},
    {FASTKL_entropy, 1, FASTKL_entropy_q_field},
};
enum { COMPARED = sizeof compared / sizeof *compared };

/* One of the compared measures by itself, of `count` rows of probabilities or of one row. */
static void evaluate_alone(const fastkl_task *task, int i, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                           int count, double *values, uint8_t *status) {
    const fastkl_operand *const first = compared[i].exchanged ? q : p, *const second = compared[i].exchanged ? p : q;
    /* H(p) is in double if q is, because H(p, q) = H(p) + D has it. */
    const fastkl_operand none = {.dtype = second->dtype};
    const fastkl_operand *const other = compared[i].measure == FASTKL_entropy ? &none : second;
    fastkl_task own = *task;
    double value[MOST_ROWS];
    own.measure = compared[i].measure;
    if (compared[i].exchanged)
        own.p_tolerance = task->q_tolerance, own.q_tolerance = task->p_tolerance;
    if (first->logits || other->logits) {
        logits_pair pair = pair_of(&own, first, other, n);
        moments sums;
        *status = (uint8_t)evaluate_pair(&pair, value, &sums);
    } else { /* the rounded logarithms of probabilities are less exact */
        rows(&own, first, other, n, count, value, status);
    }
    for (int k = 0; k < count; k++)
        values[k * FASTKL_FIELD_COUNT + compared[i].field] = value[k];
}

/* The index of a valid row's first entry that is largest. The logarithms of two probabilities may be the same, so these are
   compared as they are. */
static ptrdiff_t argmax(const fastkl_operand *row, ptrdiff_t n) {
    fastkl_operand operand = *row;
    logits_row entries = {.operand = &operand, .as_is = 1};
    double max;
    operand.logits = 1;
    return (fastkl_is_single(row->dtype) ? find_largest_f32 : find_largest_f64)(&entries, n, &max);
}

/* Completes the fields of a valid row; what is wrong with its label. Its losses are given if `has_losses`. */
static int complete(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, int has_losses, double *field) {
    fastkl_task own = *task;
    field[FASTKL_cross_entropy_field] = field[FASTKL_entropy_p_field] + field[FASTKL_kl_field];
    field[FASTKL_same_argmax_field] = argmax(p, n) == argmax(q, n);
    if (!labels->data || has_losses)
        return FASTKL_VALID;
    own.q_tolerance = INFINITY;
    const int status = nll_of_row(&own, p, labels, n, &field[FASTKL_nll_p_field]);
    return status ? status : nll_of_row(&own, q, labels, n, &field[FASTKL_nll_q_field]);
}

/* All fields of a row of which one operand holds logits, or both do, and what is wrong with it. */
static int compare_logits(const fastkl_task *task, fastkl_operand p, fastkl_operand q, const fastkl_operand *labels,
                          ptrdiff_t n, double *field) {
    logits_pair pair = pair_of(task, &p, &q, n);
    moments sums;
    entropy_sums p_sums, q_sums;
    const int status = evaluate_pair(&pair, &field[FASTKL_kl_field], &sums);
    if (status)
        return status;
    fastkl_task own = *task;
    own.p_tolerance = own.q_tolerance = INFINITY;
    p.row = q.row = 0; /* a row's bits do not depend on its neighbours in memory */
    const int by_passes = pair.lanes && compare_by_passes(&pair, &sums, field, &p_sums, &q_sums);
    for (int i = 1; i < COMPARED; i++) {
        const int has_logits = compared[i].measure != FASTKL_entropy || (compared[i].exchanged ? q : p).logits;
        uint8_t valid;
        if (!by_passes || !has_logits)
            evaluate_alone(&own, i, &p, &q, n, 1, field, &valid);
    }
    const int64_t label = by_passes && labels->data ? read_label(labels) : -1;
    const int has_losses = label >= 0 && label < n && !(task->ignores && label == task->ignored);
    if (has_losses) {
        field[FASTKL_nll_p_field] = nll_of_logit(&pair.p_row, pair.c, &p_sums, (ptrdiff_t)label);
        field[FASTKL_nll_q_field] = nll_of_logit(&pair.q_row, pair.c, &q_sums, (ptrdiff_t)label);
    }
    return complete(&own, &p, &q, labels, n, has_losses, field);
}

/* The fields of up to MOST_ROWS rows of probabilities, which fit into cache, and what is wrong with each row. */
static void compare_probabilities(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                  const fastkl_operand *labels, ptrdiff_t n, int count, double *values, uint8_t *status) {
    uint8_t valid[MOST_ROWS];
    for (int i = 0; i < COMPARED; i++)
        evaluate_alone(task, i, p, q, n, count, values, i ? valid : status);
    for (int k = 0; k < count; k++) {
        const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0), label = moved(labels, k, 0);
        if (!status[k])
            status[k] = (uint8_t)complete(task, &p_row, &q_row, &label, n, 0, values + k * FASTKL_FIELD_COUNT);
    }
}

static void compare(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status) {
    const int probabilities = !p->logits && !q->logits;
    const ptrdiff_t at_once = probabilities ? rows_in_cache(group(p, q, n), n) : 1;
    for (ptrdiff_t i = 0, now; i < count; i += now) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0), label = moved(labels, i, 0);
        now = count - i < at_once ? count - i : at_once;
        if (probabilities)
            compare_probabilities(task, &p_row, &q_row, &label, n, (int)now, values, status + i);
        else
            status[i] = (uint8_t)compare_logits(task, p_row, q_row, &label, n, values);
        for (ptrdiff_t k = 0; k < now; k++, values += FASTKL_FIELD_COUNT)
            for (int field = 0; status[i + k] && field < FASTKL_FIELD_COUNT; field++)
                values[field] = NAN;
    }
}
