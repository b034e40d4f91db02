/* Owns the values of short rows of logits, from the sums of passes in which each lane has a row; rows that are not
   accepted go one by one. In double. Knows nothing of loops over entries. */

/* log(1 + x), of x > -1, to two units in the last place: log y and what rounding took from y, by y. That is next to
   nothing if y > 2, and is divided by something near enough to 1 if not. */
FASTKL_INLINE double log_of_1_and(double x) {
    const double y = 1 + x;
    return log_f64(y) + (y < 2 ? x - (y - 1) : 0);
}

/* D of each row, and whether it is accepted: as try_divergence. */
FASTKL_INLINE void finish_short_moments(const short_moments *sums, int count, double least, int scaled,
                                        const logits_lanes *lanes, double *value, int64_t *accepts) {
    const double max_mean = lanes->is_float ? 0x1p20 : MAX_MEAN;
    const double max_shift_squared = lanes->max_shift_squared, max_log_ratio = lanes->max_log_ratio;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const double weight = sums->weight[i], psi = sums->psi[i], shift = sums->shift[i], max_x = sums->max_x[i];
        const double by_weight = 1 / weight, mean = sums->first[i] * by_weight;
        const double divergence = log_of_1_and(mean + psi * by_weight) - mean;
        const int masked = (sums->found[i] & SHORT_MASKED) != 0, equal = (psi == 0) & (sums->first[i] == 0) & (max_x <= 0);
        const int exact = (psi >= least * weight) & (!scaled | (shift * shift <= divergence * max_shift_squared)) &
                          (max_x <= max_log_ratio) & (divergence < (double)INFINITY) &
                          (fabs(mean) <= max_mean * divergence);
        const int whole = (weight < (double)INFINITY) & (psi < (double)INFINITY);
        const double finite = equal ? 0 : divergence;
        value[i] = masked ? (double)INFINITY : finite;
        accepts[i] = ((sums->found[i] & (SHORT_INVALID | SHORT_UNDERFLOW)) == 0) & whole &
                     (masked | equal | exact);
    }
}

/* The entropy, the cross-entropy or the loss of each row's label, and whether it is accepted: as entropy_of_sums and
   nll_of_logit. Only a loss is infinite without a mask in q where p has none. */
FASTKL_INLINE void finish_short_entropies(const short_entropies *sums, int count, factor_f64 c, int is_loss, double *value,
                                          int64_t *accepts) {
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const double weight = sums->q_weight[i], reference = sums->reference[i], product = sums->product[i];
        const double log_sum = log_beyond_f64(sums->exponent[i], reference, c) + log_f64(weight);
        const double mean = is_loss ? product - reference : product / sums->p_weight[i];
        const double finite = non_negative(log_sum - scale_f64(mean, c));
        const double infinite = sums->found[i] & SHORT_MASKED ? (double)INFINITY : 0;
        value[i] = finite + infinite;
        accepts[i] = ((sums->found[i] & (SHORT_INVALID | SHORT_UNDERFLOW)) == 0) & (weight < (double)INFINITY) &
                     (sums->p_weight[i] < (double)INFINITY) & (is_loss ? weight > 0 : finite <= DBL_MAX + infinite);
    }
}

/* Are the rows short enough for a lane each, and can their passes use the temperature? With two lanes a vector, chunks of a
   row are as fast from half the length on. */
static int has_short_logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    const int is_float = in_float(task, p, q);
    const int most_of_pairs = FASTKL_VECTOR_BITS > 128 || is_float ? SHORT_LOGITS : SHORT_LOGITS / 2;
    const int most = is_float && !q->data ? SHORT_WEIGHTS : most_of_pairs;
    return n > 1 && n <= most && task->eps == 0 && scale_is_in_range(task) && p->logits && (!q->data || q->logits);
}

/* Has an array a zero? */
FASTKL_INLINE int has_zero(const int64_t *of, int count) {
    int64_t found = 0;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++)
        found |= of[i] == 0 ? 1 : 0;
    return found != 0;
}

/* Do not accept a divergence of 0 of rows that differ, by weights that underflow in float: as is_of_equal_rows. */
FASTKL_NOINLINE void refuse_differences(const logits_pair *pair, int count, const double *value, int64_t *accepts) {
    for (int i = 0; i < count; i++)
        if (value[i] == 0 && accepts[i])
            accepts[i] = !fastkl_order(moved(pair->p, i, 0), moved(pair->q, i, 0), pair->n);
}

/* The same, if there is a divergence of 0. */
FASTKL_INLINE void check_equal_rows(const logits_pair *pair, int count, const double *value, int64_t *accepts) {
    int64_t found = 0;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++)
        found |= value[i] == 0 ? 1 : 0;
    if (found && pair->lanes->is_float)
        refuse_differences(pair, count, value, accepts);
}

/* The divergences of up to LOGIT_ROWS short rows, and whether they are accepted. */
static void finish_short_divergences(const logits_pair *pair, const short_moments *sums, int count, double *value,
                                     int64_t *accepts) {
    const double least = (double)pair->n * pair->lanes->min_divergence;
    finish_short_moments(sums, count, least, pair->c.high != 1, pair->lanes, value, accepts);
    check_equal_rows(pair, count, value, accepts);
}

/* The values of up to LOGIT_ROWS short rows, and whether they are accepted. */
FASTKL_NOINLINE void short_divergences(const logits_pair *pair, int count, double *value, int64_t *accepts) {
    const int n = (int)pair->n;
    short_moments sums;
    (pair->lanes->is_float ? short_moments_pass_f32 : short_moments_pass_f64)(pair->p, pair->q, n, count, pair->c, &sums);
    finish_short_divergences(pair, &sums, count, value, accepts);
}

/* The same in both directions. */
FASTKL_NOINLINE void short_jeffreys(const logits_pair *pair, int count, double *value, int64_t *accepts) {
    logits_pair exchanged = *pair;
    double reverse[LOGIT_ROWS];
    int64_t accepts_reverse[LOGIT_ROWS];
    exchanged.p = pair->q, exchanged.q = pair->p;
    short_divergences(pair, count, value, accepts);
    short_divergences(&exchanged, count, reverse, accepts_reverse);
    for (int i = 0; i < count; i++)
        value[i] += reverse[i], accepts[i] &= accepts_reverse[i];
}

/* The same for entropies, cross-entropies and, if there are labels, losses of q. */
FASTKL_NOINLINE void short_weights(const logits_pair *pair, int count, int kind, const int64_t *labels, double *value,
                                   int64_t *accepts) {
    const int n = (int)pair->n;
    const fastkl_operand *const q = pair->q->data ? pair->q : pair->p;
    short_entropies sums;
    (pair->lanes->is_float ? short_entropies_pass_f32 : short_entropies_pass_f64)(pair->p, q, n, count, pair->c, kind,
                                                                                  labels, &sums);
    if (pair->c.high == 1)
        finish_short_entropies(&sums, count, scaling_of_f64(pair->c, 0), labels != NULL, value, accepts);
    else
        finish_short_entropies(&sums, count, scaling_of_f64(pair->c, 1), labels != NULL, value, accepts);
}

/* The same for JS: as try_ratios. */
FASTKL_NOINLINE void short_js(const logits_pair *pair, int count, double *value, int64_t *accepts) {
    const int n = (int)pair->n, is_float = pair->lanes->is_float;
    const double least = n * pair->lanes->min_divergence, max_shift_squared = pair->lanes->max_shift_squared;
    const double scaled = pair->c.high != 1 ? 1 : 0;
    short_ratios sums;
    (is_float ? short_ratios_pass_f32 : short_ratios_pass_f64)(pair->p, pair->q, n, count, pair->c, &sums);
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const double js = js_divergence_finish_ratios(sums.js[i], NULL), shift = sums.shift[i];
        const int exact = (js >= least) & (scaled * shift * shift <= js * max_shift_squared);
        value[i] = js;
        accepts[i] = (sums.found[i] == 0) & (exact | ((js == 0) & (shift == 0)));
    }
    check_equal_rows(pair, count, value, accepts);
    for (int i = 0; pair->task->root && i < count; i++)
        value[i] = sqrt(value[i]);
}

FASTKL_NOINLINE void short_logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                  int count, double *value, int64_t *accepts) {
    const logits_pair pair = pair_of(task, p, q, n);
    if (task->measure == FASTKL_kl_divergence)
        short_divergences(&pair, count, value, accepts);
    else if (task->measure == FASTKL_jeffreys_divergence)
        short_jeffreys(&pair, count, value, accepts);
    else if (!fastkl_is_divergence(task->measure))
        short_weights(&pair, count, q->data ? SUM_CROSS_ENTROPY : SUM_ENTROPY, NULL, value, accepts);
    else if (task->measure == FASTKL_js_divergence)
        short_js(&pair, count, value, accepts);
    else
        memset(accepts, 0, (size_t)count * sizeof *accepts);
}

static void logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                   double *value, uint8_t *status) {
    const int is_short = has_short_logits(task, p, q, n);
    for (ptrdiff_t i = 0, now; i < count; i += now) {
        const fastkl_operand p_rows = moved(p, i, 0), q_rows = moved(q, i, 0);
        int64_t accepts[LOGIT_ROWS] = {0};
        now = count - i < LOGIT_ROWS ? count - i : LOGIT_ROWS;
        if (is_short)
            short_logits(task, &p_rows, &q_rows, n, (int)now, value + i, accepts);
        for (ptrdiff_t k = 0; k < now; k++)
            status[i + k] = FASTKL_VALID;
        for (ptrdiff_t k = has_zero(accepts, (int)now) ? 0 : now; k < now; k++)
            if (!accepts[k]) {
                const fastkl_operand p_row = moved(&p_rows, k, 0), q_row = moved(&q_rows, k, 0);
                logits_row_alone(task, &p_row, &q_row, n, &value[i + k], &status[i + k]);
            }
    }
}
