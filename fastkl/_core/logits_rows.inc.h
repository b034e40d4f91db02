/* Owns the way of rows of logits through a tier: how a row is prepared for a pass, and what happens if its sums are not
   accepted. Knows nothing of loops over entries and of what the sums mean.

   If sums in float lanes are not accepted, there is another pass, still in cache, in double lanes; if logits are out of
   range, one after the largest are subtracted. fallback_logits.c has the rest of the values. */

/* If one operand holds probabilities, whose logarithms no temperature divides, or eps clips q, then logits are divided by
   the temperature when they are loaded, and lanes are double. */
static logits_pair pair_of(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    const int alike = p->logits && (!q->data || (q->logits && task->eps == 0));
    const double p_factor = alike || !p->logits ? 1 : task->scale, q_factor = alike || !q->logits ? 1 : task->scale;
    const int in_f32 = in_float(task, p, q) && alike && task->scale < MAX_FLOAT_SCALE && task->scale > 1 / MAX_FLOAT_SCALE;
    return (logits_pair){
        .task = task, .p = p, .q = q, .n = n,
        .p_row = {.operand = p, .as_is = p_factor == 1, .factor = p_factor, .min = -INFINITY, .least = -INFINITY,
                  .eps = task->p_eps},
        .q_row = {.operand = q, .as_is = q_factor == 1, .factor = q_factor, .min = -INFINITY, .least = -INFINITY,
                  .eps = task->eps},
        .c = alike ? (fastkl_parts){task->scale, task->scale_low} : (fastkl_parts){1, 0},
        .lanes = in_f32 ? &logits_lanes_f32 : &logits_lanes_f64,
    };
}

/* Can passes use the temperature? */
static int scale_is_in_range(const fastkl_task *task) { return task->scale <= MAX_SCALE && task->scale >= 1 / MAX_SCALE; }

/* Subtracts a row's largest logit, unless it is near 0: then the others would lose digits for nothing. If eps clips logits,
   its logarithm must be near 0 to have enough digits, so that the largest is always subtracted. */
static void centre_row(const logits_pair *pair, logits_row *row) {
    double max;
    logits_row stored = *row;
    stored.as_is = 1;
    run_largest(pair->task, &logits_lanes_f64, &stored, pair->n, &max);
    row->centred = 1;
    const int clips = row->eps > 0 && row->operand->logits;
    if (isfinite(max) && (fabs(max * pair->c.high) > MAX_LOG_WEIGHT || row->factor != 1 || clips))
        row->as_is = 0, row->centre = max;
}

/* Subtracts the largest logits of both rows; 0 if they were subtracted before. */
static int centre(logits_pair *pair) {
    const int p_is_new = pair->p->data && !pair->p_row.centred, q_is_new = pair->q->data && !pair->q_row.centred;
    if (p_is_new)
        centre_row(pair, &pair->p_row);
    if (q_is_new)
        centre_row(pair, &pair->q_row);
    return p_is_new || q_is_new;
}

/* Is the sum of a row of probabilities wrong, or has the row no weight? A pass that broke off has no sum of all. */
static int has_invalid_sum(const logits_row *row, ptrdiff_t n, double tolerance, double eps, int broken_off) {
    const double sum = row->operand->logits ? 1 : broken_off ? sum_of_entries(*row->operand, n) : row->sum - row->clipped;
    return differs_from_one(sum, tolerance) || !fastkl_has_weight(*row->operand, n, eps);
}

/* What is wrong with a pair of rows of which a pass gave the status. */
static int validate(const logits_pair *pair, int pass_status) {
    const fastkl_task *const task = pair->task;
    const int has_q = pair->q->data != NULL, broken_off = (pass_status & (PASS_NOT_FINITE | PASS_OUT_OF_RANGE)) != 0;
    if (!(pass_status & ~PASS_MASKED) && pair->p->logits && (!has_q || pair->q->logits))
        return FASTKL_VALID;
    if (broken_off || ((pair->p_row.entry_bits | pair->q_row.entry_bits) & FASTKL_SIGN) ||
        !isfinite(pair->p_row.sum + pair->q_row.sum)) {
        const int status = fastkl_check_entries(*pair->p, *pair->q, pair->n);
        if (status)
            return status;
    }
    if (has_invalid_sum(&pair->p_row, pair->n, task->p_tolerance, task->p_eps, broken_off))
        return FASTKL_P_SUM;
    return has_q && has_invalid_sum(&pair->q_row, pair->n, task->q_tolerance, task->eps, broken_off) ? FASTKL_Q_SUM
                                                                                                     : FASTKL_VALID;
}

/* Makes eps clip a row: the least logit becomes that of a probability eps. */
static void clip_logits(const logits_pair *pair, logits_row *row) {
    entropy_sums sums;
    centre_row(pair, row);
    if (sum_weights(pair, NULL, row, SUM_WEIGHT, &sums) == PASS_ACCEPTED) {
        row->as_is = 0;
        row->min = log(row->eps) + sums.q_exponent * FASTKL_LN2 + log(sums.q_weight);
    }
}

/* Scales probabilities by a power of two that makes their sum nearly 1, so that the logarithms of the larger ones are small
   and lose no digits. 0 if they are scaled, or the sum is not far from 1. */
static int scale_to_sum(logits_row *row) {
    const int holds_probabilities = row->operand->data && !row->operand->logits;
    if (!holds_probabilities || row->factor != 1 || (row->sum <= MAX_UNSCALED_SUM && row->sum >= 1 / MAX_UNSCALED_SUM))
        return 0;
    const int exponent = isfinite(row->sum) ? ilogb(row->sum) : 1022;
    row->factor = ldexp(1, exponent > 1022 ? -1022 : exponent < -1022 ? 1022 : -exponent);
    return 1;
}

/* The value of the task's measure, for D with its sums, and what is wrong with the pair. */
static int evaluate_pair(logits_pair *pair, double *value, moments *sums) {
    const fastkl_task *const task = pair->task;
    const int in_range = scale_is_in_range(task);
    if (in_range && pair->p->logits && task->p_eps > 0)
        clip_logits(pair, &pair->p_row);
    if (in_range && pair->q->data && pair->q->logits && task->eps > 0)
        clip_logits(pair, &pair->q_row);
    if (in_range && (pair->p_row.factor != 1 || pair->q_row.factor != 1))
        centre(pair); /* products with the factor are rounded, and lose least near 0 */
    for (;;) {
        pair->p_row.sum = pair->q_row.sum = pair->p_row.clipped = pair->q_row.clipped = 0;
        pair->p_row.entry_bits = pair->q_row.entry_bits = 0;
        int pass_status = in_range ? try_measure(pair, value, sums) : PASS_NOT_FINITE;
        if (is_wanted(task))
            return FASTKL_VALID;
        if (!in_range || pair->p_row.overflows || pair->q_row.overflows)
            pass_status = PASS_NOT_FINITE, pair->lanes = &logits_lanes_f64;
        if (pass_status == PASS_OUT_OF_RANGE && centre(pair)) {
            pair->lanes = &logits_lanes_f64; /* a float can overflow where the centre is subtracted */
            continue;
        }
        const int status = validate(pair, pass_status);
        if (status)
            *value = NAN;
        if (status || (pass_status == PASS_ACCEPTED && !(scale_to_sum(&pair->p_row) | scale_to_sum(&pair->q_row))))
            return status;
        if (pass_status != PASS_ACCEPTED && ((pass_status & PASS_MASKED) || !pair->lanes->is_float)) {
            close_shared(task);
            *value = pass_status & PASS_MASKED ? INFINITY : fastkl_fallback_logits(task, *pair->p, *pair->q, pair->n);
            pair->lanes = NULL;
            return FASTKL_VALID;
        }
        if (pass_status != PASS_ACCEPTED)
            pair->lanes = &logits_lanes_f64;
    }
}

/* The value of the first row, and what is wrong with it. That of Jeffreys is the sum of D in both directions. */
FASTKL_NOINLINE void logits_row_alone(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                      ptrdiff_t n, double *value, uint8_t *status) {
    if (task->measure == FASTKL_jeffreys_divergence) {
        fastkl_task forward = *task;
        forward.measure = FASTKL_kl_divergence;
        const fastkl_task reverse = fastkl_exchanged(&forward);
        double other = 0;
        logits_row_alone(&forward, p, q, n, value, status);
        if (!*status && !is_wanted(task))
            logits_row_alone(&reverse, q, p, n, &other, status);
        *value += other;
        return;
    }
    const fastkl_task exchanged = fastkl_exchanged(task);
    /* The same row is p in either order, so that a symmetric measure has the same bits. */
    const int by_order = task->measure == FASTKL_renyi_divergence && task->alpha < 0.5; /* alpha D_beta(y || x) / beta */
    const int exchanges = by_order || (fastkl_is_symmetric(task->measure) &&
                                       (p->logits == q->logits ? fastkl_order(*p, *q, n) > 0 : p->logits));
    logits_pair pair = exchanges ? pair_of(&exchanged, q, p, n) : pair_of(task, p, q, n);
    moments sums;
    *status = (uint8_t)evaluate_pair(&pair, value, &sums);
    if (exchanges && *status) { /* what is wrong with p comes first */
        pair = pair_of(task, p, q, n);
        *status = (uint8_t)evaluate_pair(&pair, value, &sums);
    }
    *value = apply_root(task->root, by_order ? *value * (task->alpha / task->beta) : *value);
}
