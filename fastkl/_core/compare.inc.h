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

/* One of the compared measures by itself: the task, and its operands. */
typedef struct {
    fastkl_task task;
    const fastkl_operand *first;
    fastkl_operand second;
} measured_alone;

static measured_alone alone_of(const fastkl_task *task, int i, const fastkl_operand *p, const fastkl_operand *q) {
    const fastkl_operand *const other = compared[i].exchanged ? p : q;
    /* H(p) is in double if q is, because H(p, q) = H(p) + D has it. */
    const fastkl_operand none = {.dtype = other->dtype};
    measured_alone alone = {*task, compared[i].exchanged ? q : p, compared[i].measure == FASTKL_entropy ? none : *other};
    alone.task.measure = compared[i].measure;
    if (compared[i].exchanged)
        alone.task.p_tolerance = task->q_tolerance, alone.task.q_tolerance = task->p_tolerance;
    return alone;
}

/* The value of one of the compared measures of a valid row. */
static double evaluate_alone(const fastkl_task *task, int i, const fastkl_operand *p, const fastkl_operand *q,
                             ptrdiff_t n) {
    const measured_alone alone = alone_of(task, i, p, q);
    uint8_t status;
    double value;
    if (alone.first->logits || alone.second.logits) {
        logits_pair pair = pair_of(&alone.task, alone.first, &alone.second, n);
        moments sums;
        evaluate_pair(&pair, &value, &sums);
    } else { /* the rounded logarithms of probabilities are less exact */
        rows(&alone.task, alone.first, &alone.second, n, 1, &value, &status);
    }
    return value;
}

static inline int has_long_integers(const fastkl_operand *row) {
    return row->dtype == FASTKL_int64 || row->dtype == FASTKL_uint64;
}

static ptrdiff_t argmax_of_long_integers(const fastkl_operand *row, ptrdiff_t n) {
    const uint64_t flipped = row->dtype == FASTKL_int64 ? FASTKL_SIGN : 0; /* the order of unsigned integers */
    uint64_t largest = 0;
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t entry;
        fastkl_read(&entry, row->data + i * row->col, sizeof entry, row->swapped);
        entry ^= flipped;
        if (entry > largest)
            largest = entry, at = i;
    }
    return at;
}

/* The index of a valid row's first entry that is largest. The logarithms of two probabilities may be the same, and so may
   two integers as doubles: entries are compared as they are. */
static ptrdiff_t argmax(const fastkl_operand *row, ptrdiff_t n) {
    if (has_long_integers(row))
        return argmax_of_long_integers(row, n);
    fastkl_operand operand = *row;
    logits_row entries = {.operand = &operand, .as_is = 1};
    double max;
    operand.logits = 1;
    return (fastkl_is_single(row->dtype) ? find_largest_f32 : find_largest_f64)(&entries, n, &max);
}

/* The losses of a valid row, and what is wrong with its label. */
static int losses(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                  ptrdiff_t n, double *field) {
    fastkl_task own = *task;
    own.q_tolerance = INFINITY;
    const int64_t label = read_label(labels);
    const int status = nll_of_row(&own, p, label, n, &field[FASTKL_nll_p_field]);
    return status ? status : nll_of_row(&own, q, label, n, &field[FASTKL_nll_q_field]);
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
    int by_passes = pair.lanes && compare_by_moments(&pair, &sums, field, &p_sums, &q_sums);
    if (!by_passes && p.logits && q.logits && scale_is_in_range(task) &&
        field[FASTKL_kl_field] > MAX_COMPARED_DIVERGENCE) {
        if (!pair.lanes)
            pair = pair_of(task, &p, &q, n);
        by_passes = compare_by_weights(&pair, field, &p_sums, &q_sums);
    }
    for (int i = 1; i < COMPARED; i++) {
        const int has_logits = compared[i].measure != FASTKL_entropy || (compared[i].exchanged ? q : p).logits;
        if (!by_passes || !has_logits)
            field[compared[i].field] = evaluate_alone(&own, i, &p, &q, n);
    }
    const int64_t label = by_passes && labels->data ? read_label(labels) : -1;
    const int has_losses = label >= 0 && label < n && !(task->ignores && label == task->ignored);
    if (has_losses) {
        field[FASTKL_nll_p_field] = nll_of_logit(&pair.p_row, pair.c, &p_sums, (ptrdiff_t)label);
        field[FASTKL_nll_q_field] = nll_of_logit(&pair.q_row, pair.c, &q_sums, (ptrdiff_t)label);
    }
    field[FASTKL_cross_entropy_field] = field[FASTKL_entropy_p_field] + field[FASTKL_kl_field];
    field[FASTKL_same_argmax_field] = argmax(&p, n) == argmax(&q, n);
    return labels->data && !has_losses ? losses(&own, &p, &q, labels, n, field) : FASTKL_VALID;
}

/* Entries above this may have a logarithm so much larger than that of the other operand's that this, as their difference,
   has lost digits. */
#define SHARED_LOG_MOST 1.5

/* The sums of compared measure i of a group of rows. They are not accepted where a sign may be that of a zero. */
static void sums_of_compared(int i, const compared_sums *of, int count, group_sums *to) {
    const int exchanged = compared[i].exchanged, entropy = compared[i].measure == FASTKL_entropy;
    const int js = compared[i].measure == FASTKL_js_divergence;
    const double *const first = exchanged ? of->q : of->p, *const largest = exchanged ? of->largest_q : of->largest_p;
    const double *const terms = entropy ? (exchanged ? of->q_log_q : of->p_log_p) : js        ? of->js
                                                                                  : exchanged ? of->reverse
                                                                                              : of->forward;
    const uint64_t *const guards = exchanged ? of->p_guard_bits : of->q_guard_bits;
    to->keeps_low = 0;
    for (int k = 0; k < count; k++) {
        const uint64_t shared = entropy && !(largest[k] <= SHARED_LOG_MOST) ? FASTKL_SIGN : 0;
        to->term[k] = terms[k];
        to->other[k] = entropy ? 0 : exchanged ? -of->difference[k] : of->difference[k];
        to->weight[k] = js ? of->p[k] + of->q[k] : first[k];
        to->clipped[k] = 0;
        to->entry_bits[k] = of->entry_bits[k];
        to->guard_bits[k] = (entropy || js ? 0 : guards[k]) | (of->entry_bits[k] & FASTKL_SIGN) | shared;
    }
}

/* The values and the statuses of the compared measures of a group of rows, from the sums of the pass. What is
   wrong with a row is what D says. */
FASTKL_NOINLINE void finish_compared(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                     int count, const compared_sums *of, double (*value)[MOST_ROWS], uint8_t *status) {
    uint8_t valid[MOST_ROWS];
    for (int i = 0; i < COMPARED; i++) {
        const measured_alone alone = alone_of(task, i, p, q);
        group_sums sums;
        sums.scales = 0;
        sums_of_compared(i, of, count, &sums);
        finish_rows(&alone.task, alone.first, &alone.second, n, count, &sums, value[i], i ? valid : status);
    }
}

/* The fields of up to MOST_ROWS rows of probabilities, which fit into cache, and what is wrong with each row. */
static void compare_probabilities(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                  const fastkl_operand *labels, ptrdiff_t n, int count, double *values, uint8_t *status) {
    double value[COMPARED][MOST_ROWS];
    compared_sums sums;
    if (group(p, q, n) > 1)
        (in_float(task, p, q) ? compare_group_f32 : compare_group_f64)(p, q, n, count, &sums);
    else {
        int k = 0; /* there is at least one row, which tells GCC that there are sums */
        do {
            const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0);
            (in_float(task, p, q) ? compare_row_f32 : compare_row_f64)(&p_row, &q_row, n, k, &sums);
        } while (++k < count);
    }
    finish_compared(task, p, q, n, count, &sums, value, status);
    for (int k = 0; k < count; k++, values += FASTKL_FIELD_COUNT) {
        const fastkl_operand label = moved(labels, k, 0);
        for (int i = 0; i < COMPARED; i++)
            values[compared[i].field] = value[i][k];
        values[FASTKL_cross_entropy_field] = values[FASTKL_entropy_p_field] + values[FASTKL_kl_field];
        values[FASTKL_same_argmax_field] = sums.same_argmax[k];
        if (status[k])
            continue;
        const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0);
        if (isnan(sums.same_argmax[k]))
            values[FASTKL_same_argmax_field] = argmax(&p_row, n) == argmax(&q_row, n);
        if (label.data)
            status[k] = (uint8_t)losses(task, &p_row, &q_row, &label, n, values);
    }
}

/* The fields of up to LOGIT_ROWS short rows of logits, and what is wrong with each row. */
static void compare_short_logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                 const fastkl_operand *labels, ptrdiff_t n, int count, double *values, uint8_t *status) {
    int64_t label[LOGIT_ROWS] = {0}, accepts[LOGIT_ROWS];
    if (labels->data)
        read_labels(labels, count, label);
    compare_short(task, p, q, label, n, count, values, accepts);
    for (int k = 0; k < count; k++, values += FASTKL_FIELD_COUNT) {
        const int is_label = (label[k] >= 0 && label[k] < n) || (task->ignores && label[k] == task->ignored);
        status[k] = is_label ? FASTKL_VALID : FASTKL_LABEL;
        if (accepts[k] != SHORT_ALL) {
            const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0), row_label = moved(labels, k, 0);
            const double kl = values[FASTKL_kl_field];
            status[k] = (uint8_t)compare_logits(task, p_row, q_row, &row_label, n, values);
            if (accepts[k] == SHORT_DIVERGENCE) /* D has the bits that it has alone */
                values[FASTKL_kl_field] = kl, values[FASTKL_cross_entropy_field] = values[FASTKL_entropy_p_field] + kl;
        }
    }
}

static void compare(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status) {
    const int probabilities = !p->logits && !q->logits, is_short = has_short_logits(task, p, q, n);
    const ptrdiff_t at_once = probabilities ? rows_in_cache(group(p, q, n), n) : is_short ? LOGIT_ROWS : 1;
    for (ptrdiff_t i = 0, now; i < count; i += now) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0), label = moved(labels, i, 0);
        now = count - i < at_once ? count - i : at_once;
        if (probabilities)
            compare_probabilities(task, &p_row, &q_row, &label, n, (int)now, values, status + i);
        else if (is_short)
            compare_short_logits(task, &p_row, &q_row, &label, n, (int)now, values, status + i);
        else
            status[i] = (uint8_t)compare_logits(task, p_row, q_row, &label, n, values);
        for (ptrdiff_t k = 0; k < now; k++, values += FASTKL_FIELD_COUNT) {
            for (int field = 0; status[i + k] && field < FASTKL_FIELD_COUNT; field++)
                values[field] = NAN;
            if (!status[i + k] && (has_long_integers(p) || has_long_integers(q))) {
                const fastkl_operand p_again = moved(p, i + k, 0), q_again = moved(q, i + k, 0);
                values[FASTKL_same_argmax_field] = argmax(&p_again, n) == argmax(&q_again, n);
            }
        }
    }
}
