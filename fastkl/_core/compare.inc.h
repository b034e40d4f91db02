/* Owns the comparison of two rows, measure by measure where logits_compare.inc.h does not have it. Knows nothing of loops
   over entries. */

/* The measures of a comparison, of p and q or of these exchanged. D comes first, and finds what is wrong with a row. */
enum { FORWARD, REVERSE, JS, ENTROPY_P, ENTROPY_Q, VARIATION, COMPARED };
static const struct {
    int measure, exchanged, field;
} compared[COMPARED] = {
    {FASTKL_kl_divergence, 0, FASTKL_kl_field},  {FASTKL_kl_divergence, 1, FASTKL_reverse_kl_field},
    {FASTKL_js_divergence, 0, FASTKL_js_field},  {FASTKL_entropy, 0, FASTKL_entropy_p_field},
    {FASTKL_entropy, 1, FASTKL_entropy_q_field}, {FASTKL_total_variation, 0, FASTKL_total_variation_field},
};

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
    measured_alone alone = {compared[i].exchanged ? fastkl_exchanged(task) : *task, compared[i].exchanged ? q : p,
                            compared[i].measure == FASTKL_entropy ? none : *other};
    alone.task.measure = compared[i].measure;
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
static ptrdiff_t argmax(const fastkl_task *task, const fastkl_operand *row, ptrdiff_t n) {
    if (has_long_integers(row))
        return argmax_of_long_integers(row, n);
    fastkl_operand operand = *row;
    logits_row entries = {.operand = &operand, .as_is = 1};
    double max;
    operand.logits = 1;
    return run_largest(task, fastkl_is_single(row->dtype) ? &logits_lanes_f32 : &logits_lanes_f64, &entries, n, &max);
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
    if (status || is_wanted(task))
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
        if (!by_passes || !has_logits || (i == VARIATION && isnan(field[FASTKL_total_variation_field])))
            field[compared[i].field] = evaluate_alone(&own, i, &p, &q, n);
    }
    const int64_t label = by_passes && labels->data ? read_label(labels) : -1;
    const int has_losses = label >= 0 && label < n && !(task->ignores && label == task->ignored);
    if (has_losses) {
        field[FASTKL_nll_p_field] = nll_of_logit(&pair.p_row, pair.c, &p_sums, (ptrdiff_t)label);
        field[FASTKL_nll_q_field] = nll_of_logit(&pair.q_row, pair.c, &q_sums, (ptrdiff_t)label);
    }
    field[FASTKL_cross_entropy_field] = field[FASTKL_entropy_p_field] + field[FASTKL_kl_field];
    field[FASTKL_same_argmax_field] = argmax(task, &p, n) == argmax(task, &q, n);
    return labels->data && !has_losses ? losses(&own, &p, &q, labels, n, field) : FASTKL_VALID;
}

/* Entries above this may have a logarithm so much larger than that of the other operand's that this, as their difference,
   has lost digits. */
#define SHARED_LOG_MOST 1.5

/* Whether a comparison accepts the value of each compared measure of a row: a bit for each of them. */
#define ACCEPTS_ALL (((int64_t)1 << COMPARED) - 1)

/* The values of the compared measures of a group of rows, an array for each, from the sums of the pass, and which of these
   are accepted; whether all are. Others are left to finish_compared. */
FASTKL_INLINE int accept_compared(const fastkl_task *task, const limits *within, int count, const compared_sums *of,
                                  double (*value)[MOST_ROWS], int64_t *accepts) {
    const limits bounds = *within;
    const double p_tolerance = task->p_tolerance, q_tolerance = task->q_tolerance;
    int64_t all = ACCEPTS_ALL;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const double p = of->p[i], q = of->q[i], difference = of->difference[i], both = p + q;
        const double forward = of->forward[i], reverse = of->reverse[i], js = of->js[i], least = bounds.term_least;
        const double variation = of->variation[i], p_sum = of->p_log_p[i], q_sum = of->q_log_q[i];
        const double p_mean = p_sum / p, q_mean = q_sum / q, log_p = log_f64(p), log_q = log_f64(q);
        const double p_entropy = non_negative(log_p - p_mean), q_entropy = non_negative(log_q - q_mean);
        const double forward_less = mismatch_of_sums(p, difference, 1), reverse_less = mismatch_of_sums(q, -difference, 1);
        const double js_less = mismatch_with_mean(both, difference, 1);
        const double of_js = (js - js_less) / both;
        const uint64_t signs = of->entry_bits[i], guards = of->p_guard_bits[i] | of->q_guard_bits[i];
        const int64_t common = ((int64_t)signs >= 0) & (p >= bounds.sum_least) & (p <= bounds.sum_most) &
                               (q >= bounds.sum_least) & (q <= bounds.sum_most) & (fabs(p - 1) <= p_tolerance) &
                               (fabs(q - 1) <= q_tolerance) & is_near(p, difference) & is_near(q, difference);
        const int64_t divergences = common & ((int64_t)guards >= 0);
        const int64_t by_forward = divergences & (forward >= least) & (forward_less <= MISMATCH_MOST * forward);
        const int64_t by_reverse = divergences & (reverse >= least) & (reverse_less <= MISMATCH_MOST * reverse);
        const int64_t by_js = common & (js >= least) & (js_less <= MISMATCH_MOST * js) &
                              (fabs(difference) <= bounds.excess_most * both);
        const int64_t by_p = common & (of->largest_p[i] <= SHARED_LOG_MOST) & ((p_sum == 0) | (fabs(p_sum) >= least)) &
                             loses_little(1.5 * fabs(p_mean) + fabs(log_p), p_entropy);
        const int64_t by_q = common & (of->largest_q[i] <= SHARED_LOG_MOST) & ((q_sum == 0) | (fabs(q_sum) >= least)) &
                             loses_little(1.5 * fabs(q_mean) + fabs(log_q), q_entropy);
        const int64_t by_variation = common & (variation >= least) & (fabs(difference) <= variation);
        const double of_variation = variation * (0.25 * both / (p * q));
        value[VARIATION][i] = of_variation < 1 ? of_variation : 1;
        value[FORWARD][i] = (forward - forward_less) / p;
        value[REVERSE][i] = (reverse - reverse_less) / q;
        value[JS][i] = of_js < FASTKL_LN2 ? of_js : FASTKL_LN2;
        value[ENTROPY_P][i] = p_entropy;
        value[ENTROPY_Q][i] = q_entropy;
        accepts[i] = by_forward << FORWARD | by_reverse << REVERSE | by_js << JS | by_p << ENTROPY_P | by_q << ENTROPY_Q |
                     by_variation << VARIATION;
        all &= accepts[i];
    }
    return all == ACCEPTS_ALL;
}

/* The sums of compared measure m of row i, as those of a group of one row. They are not accepted where a sign may be that
   of a zero. */
static void sums_of_compared(int m, const compared_sums *of, int i, group_sums *to) {
    const int exchanged = compared[m].exchanged, entropy = compared[m].measure == FASTKL_entropy;
    const int variation = compared[m].measure == FASTKL_total_variation;
    const int js = variation || compared[m].measure == FASTKL_js_divergence; /* it has sums of both */
    const double difference = of->difference[i], p = of->p[i], q = of->q[i];
    const double largest = exchanged ? of->largest_q[i] : of->largest_p[i];
    const uint64_t guards = exchanged ? of->p_guard_bits[i] : of->q_guard_bits[i];
    const uint64_t shared = entropy && !(largest <= SHARED_LOG_MOST) ? FASTKL_SIGN : 0;
    to->keeps_low = to->scales = 0, to->corrected = variation;
    to->term[0] = entropy ? (exchanged ? of->q_log_q[i] : of->p_log_p[i]) : variation ? of->variation[i]
                                                                    : js ? of->js[i]
                                                                    : exchanged ? of->reverse[i]
                                                                                : of->forward[i];
    to->other[0] = entropy ? 0 : exchanged ? -difference : difference;
    to->weight[0] = js ? p + q : exchanged ? q : p;
    to->clipped[0] = to->p_clipped[0] = 0;
    to->entry_bits[0] = of->entry_bits[i];
    to->guard_bits[0] = (entropy || js ? 0 : guards) | (of->entry_bits[i] & FASTKL_SIGN) | shared;
}

/* The values of the compared measures of row i of a group that were not accepted, and what is wrong with the row, which is
   what D says. */
FASTKL_NOINLINE uint8_t finish_compared(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                        ptrdiff_t n, int i, const compared_sums *of, int64_t accepts,
                                        double (*value)[MOST_ROWS]) {
    const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0);
    uint8_t status = FASTKL_VALID, valid;
    for (int m = 0; m < COMPARED && !status; m++) {
        const measured_alone alone = alone_of(task, m, &p_row, &q_row);
        group_sums sums;
        if (accepts >> m & 1)
            continue;
        sums_of_compared(m, of, i, &sums);
        finish_rows(&alone.task, alone.first, &alone.second, n, 1, &sums, &value[m][i], m ? &valid : &status);
    }
    return status;
}

/* Where the values of rows go, and their statuses: field f of row k is values[f step + k]. */
typedef struct {
    double *values;
    ptrdiff_t step;
    uint8_t *status;
} compared_rows;

FASTKL_INLINE void give_fields(const double *field, int k, compared_rows to) {
    for (int f = 0; f < FASTKL_FIELD_COUNT; f++)
        to.values[f * to.step + k] = field[f];
}

/* The second pass of the total variation, over longer rows than those of tiles. */
FASTKL_NOINLINE void correct_compared(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                      ptrdiff_t n, int count, int in_lanes, compared_sums *of) {
    const int is_float = in_float(task, p, q);
    group_sums sums;
    for (int i = 0; i < count; i++)
        sums.other[i] = of->difference[i], sums.weight[i] = of->p[i] + of->q[i];
    for (int i = count; i % (FASTKL_VECTOR_BITS / 32); i++) /* lanes without a row */
        sums.other[i] = 0, sums.weight[i] = 1;
    if (in_lanes && interleaved(p, q))
        (is_float ? correct_strips_f32 : correct_strips_f64)(p, q, n, count, &sums);
    for (int i = 0; !(in_lanes && interleaved(p, q)) && i < count; i++) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0);
        (is_float ? correct_row_f32 : correct_row_f64)(&p_row, &q_row, n, i, &sums);
    }
    memcpy(of->variation, sums.term, (size_t)count * sizeof(double));
}

/* The fields of up to MOST_ROWS rows of probabilities, which fit into cache, and what is wrong with each row. */
static void compare_probabilities(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                  const fastkl_operand *labels, ptrdiff_t n, int count, compared_rows to) {
    const int is_float = in_float(task, p, q), in_lanes = group(p, q, n) > 1;
    double value[COMPARED][MOST_ROWS];
    int64_t accepts[MOST_ROWS];
    compared_sums sums;
    memset(sums.entry_bits, 0, sizeof sums.entry_bits);
    memset(sums.p_guard_bits, 0, sizeof sums.p_guard_bits);
    memset(sums.q_guard_bits, 0, sizeof sums.q_guard_bits);
    if (in_lanes)
        (is_float ? compare_group_f32 : compare_group_f64)(p, q, n, count, &sums);
    else
        for (int k = 0; k < count; k += DOUBLES)
            (is_float ? compare_rows_f32 : compare_rows_f64)(p, q, n, k, count - k < DOUBLES ? count - k : DOUBLES, &sums);
    if (!in_lanes || n > TILE)
        correct_compared(task, p, q, n, count, in_lanes, &sums);
    const int all = accept_compared(task, limits_of(task, p, q), count, &sums, value, accepts);
    for (int k = 0; k < count; k++)
        to.status[k] = FASTKL_VALID;
    for (int k = 0; !all && k < count; k++)
        if (accepts[k] != ACCEPTS_ALL)
            to.status[k] = finish_compared(task, p, q, n, k, &sums, accepts[k], value);
    for (int m = 0; m < COMPARED; m++)
        memcpy(to.values + compared[m].field * to.step, value[m], (size_t)count * sizeof(double));
    memcpy(to.values + FASTKL_same_argmax_field * to.step, sums.same_argmax, (size_t)count * sizeof(double));
    for (int k = 0; k < count; k++)
        to.values[FASTKL_cross_entropy_field * to.step + k] = value[ENTROPY_P][k] + value[FORWARD][k];
    for (int k = 0; (labels->data || !in_lanes) && k < count; k++) {
        const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0), label = moved(labels, k, 0);
        double loss[FASTKL_FIELD_COUNT];
        if (to.status[k])
            continue;
        if (isnan(sums.same_argmax[k]))
            to.values[FASTKL_same_argmax_field * to.step + k] = argmax(task, &p_row, n) == argmax(task, &q_row, n);
        if (label.data) {
            to.status[k] = (uint8_t)losses(task, &p_row, &q_row, &label, n, loss);
            to.values[FASTKL_nll_p_field * to.step + k] = loss[FASTKL_nll_p_field];
            to.values[FASTKL_nll_q_field * to.step + k] = loss[FASTKL_nll_q_field];
        }
    }
}

/* The fields of up to LOGIT_ROWS short rows of logits, and what is wrong with each row. */
static void compare_short_logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                 const fastkl_operand *labels, ptrdiff_t n, int count, compared_rows to) {
    int64_t label[LOGIT_ROWS] = {0}, accepts[LOGIT_ROWS];
    double field[FASTKL_FIELD_COUNT][LOGIT_ROWS];
    if (labels->data)
        read_labels(labels, count, label);
    compare_short(task, p, q, label, n, count, field, accepts);
    for (int f = 0; f < FASTKL_FIELD_COUNT; f++)
        memcpy(to.values + f * to.step, field[f], (size_t)count * sizeof(double));
    for (int k = 0; k < count; k++) {
        const int is_label = (label[k] >= 0 && label[k] < n) || (task->ignores && label[k] == task->ignored);
        to.status[k] = is_label ? FASTKL_VALID : FASTKL_LABEL;
        if (accepts[k] != SHORT_ALL) {
            const fastkl_operand p_row = moved(p, k, 0), q_row = moved(q, k, 0), row_label = moved(labels, k, 0);
            double own[FASTKL_FIELD_COUNT];
            to.status[k] = (uint8_t)compare_logits(task, p_row, q_row, &row_label, n, own);
            if (accepts[k] == SHORT_DIVERGENCE) /* D has the bits that it has alone */
                own[FASTKL_kl_field] = field[FASTKL_kl_field][k],
                own[FASTKL_cross_entropy_field] = own[FASTKL_entropy_p_field] + own[FASTKL_kl_field];
            give_fields(own, k, to);
        }
    }
}

static void compare(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status) {
    const int probabilities = !p->logits && !q->logits, is_short = has_short_logits(task, p, q, n);
    /* These passes compare entries as doubles; compare_logits does not. */
    const int compares_doubles = (probabilities || is_short) && (has_long_integers(p) || has_long_integers(q));
    const ptrdiff_t at_once = probabilities ? rows_in_cache(group(p, q, n), n) : is_short ? LOGIT_ROWS : 1;
    for (ptrdiff_t i = 0, now; i < count; i += now) {
        const fastkl_operand p_row = moved(p, i, 0), q_row = moved(q, i, 0), label = moved(labels, i, 0);
        const compared_rows to = {values + i, count, status + i};
        now = count - i < at_once ? count - i : at_once;
        if (probabilities) {
            compare_probabilities(task, &p_row, &q_row, &label, n, (int)now, to);
        } else if (is_short) {
            compare_short_logits(task, &p_row, &q_row, &label, n, (int)now, to);
        } else {
            double own[FASTKL_FIELD_COUNT];
            status[i] = (uint8_t)compare_logits(task, p_row, q_row, &label, n, own);
            give_fields(own, 0, to);
        }
        for (ptrdiff_t k = 0; k < now; k++)
            for (int field = 0; status[i + k] && field < FASTKL_FIELD_COUNT; field++)
                values[field * count + i + k] = NAN;
        for (ptrdiff_t k = 0; k < now && compares_doubles; k++) {
            const fastkl_operand p_again = moved(&p_row, k, 0), q_again = moved(&q_row, k, 0);
            if (!status[i + k])
                values[FASTKL_same_argmax_field * count + i + k] = argmax(task, &p_again, n) == argmax(task, &q_again, n);
        }
    }
}
