/* Owns what the sums of passes over logits say of a pair of rows: how the sums of chunks are merged, which measure needs
   which pass, and whether its value is accepted. In double. Knows nothing of loops over entries and of invalid rows. */

/* Makes the shift of the moments smaller by x: psi(x + y) = e^x psi(y) + psi(x) + (e^x - 1) y. Nothing cancels where the
   sum of w y is nearly 0. */
FASTKL_INLINE void shift_moments(moments *of, double x) {
    double exp;
    const double psi = psi_f64(x, &exp);
    if (x > logits_lanes_f64.max_log_ratio)
        exp = INFINITY;
    of->psi = exp * of->psi + psi * of->weight + (x + psi) * of->first;
    of->first += x * of->weight;
}

/* 2^exponent for an exponent <= 0; 0 instead of a subnormal number. */
FASTKL_INLINE double power_of_two(int exponent) {
    return exponent > -1023 ? from_bits_f64((uint64_t)(1023 + exponent) << 52) : 0;
}

static void merge_moments(moments *to, const moments *next) {
    moments a = *to, b = *next;
    a.min_difference = b.min_difference =
        to->min_difference < next->min_difference ? to->min_difference : next->min_difference;
    if ((a.weight == 0 && a.psi == 0) || (b.weight == 0 && b.psi == 0)) {
        *to = a.weight == 0 && a.psi == 0 ? b : a;
        return;
    }
    const int exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
    const double p = power_of_two(a.exponent - exponent), q = power_of_two(b.exponent - exponent);
    double shift = a.shift, low = a.shift_low;
    const double difference = (b.shift - a.shift) + (b.shift_low - a.shift_low);
    if (difference != 0) {
        /* To the weighted mean of both, so that the sum of w x stays nearly 0. */
        const double weight = p * a.weight + q * b.weight, step = weight > 0 ? difference * (q * b.weight / weight) : 0;
        two_sum(&shift, &low, step);
        shift_moments(&a, -step);
        shift_moments(&b, difference - step);
    }
    *to = (moments){exponent, shift, low, p * a.weight + q * b.weight, p * a.first + q * b.first, p * a.psi + q * b.psi,
                    a.max_x > b.max_x ? a.max_x : b.max_x, a.min_difference};
}

static void merge_entropy_sums(entropy_sums *to, const entropy_sums *next) {
    if (to->p_weight == 0 && to->q_weight == 0) {
        const double min_q = to->min_q < next->min_q ? to->min_q : next->min_q;
        *to = *next;
        to->min_q = min_q;
        return;
    }
    const int by_next_p = to->p_weight == 0 || (next->p_weight != 0 && next->p_exponent > to->p_exponent);
    const int by_next_q = to->q_weight == 0 || (next->q_weight != 0 && next->q_exponent > to->q_exponent);
    const entropy_sums *const by_p = by_next_p ? next : to, *const by_q = by_next_q ? next : to;
    entropy_sums both = {by_p->p_exponent, by_q->q_exponent, .q_reference = by_q->q_reference,
                         .min_q = to->min_q < next->min_q ? to->min_q : next->min_q};
    for (int i = 0; i < 2; i++) {
        const entropy_sums *const now = i ? next : to;
        const double p = power_of_two(now->p_exponent - both.p_exponent);
        const double q = power_of_two(now->q_exponent - both.q_exponent);
        if (now->p_weight != 0) { /* true of NaN */
            both.p_weight += p * now->p_weight;
            both.product += p * (now->product + now->p_weight * (now->q_reference - both.q_reference));
        }
        if (now->q_weight != 0)
            both.q_weight += q * now->q_weight;
    }
    *to = both;
}

/* log(2^exponent / e^(reference c)), of nearly equal numbers. */
static double log_beyond_reference(int exponent, double reference, fastkl_parts c) {
    const double product = reference * c.high, low = fma(reference, c.high, -product) + reference * c.low;
    return fma(exponent, FASTKL_LN2, -product) + (exponent * FASTKL_LN2_LOW - low);
}

/* The logarithm of e^logit for the least logit that does not underflow. */
static double min_log_weight(const logits_lanes *lanes, int exponent) { return (exponent - lanes->lost_bits) * FASTKL_LN2; }

/* Whether q is masked where p is not, or a weight of p that underflows may count where q is below `far`: a pass status. Any
   weight of probabilities p may count there, because it has to be better than the exponential of a rounded logarithm. */
static int check_masks(const logits_pair *pair, int exponent, double far) {
    const double c = pair->c.high, low = min_log_weight(pair->lanes, exponent), negligible = low - pair->lanes->negligible;
    return run_masks(pair, far / c, pair->p->logits ? low / c : INFINITY, negligible / c);
}

/* May the rounding of a shift show in the divergence? */
static int shift_is_inexact(const logits_pair *pair, double shift, double divergence) {
    return pair->c.high != 1 && shift * shift > divergence * pair->lanes->max_shift_squared;
}

/* The same of an f-divergence. A total variation is of first order in the shift, which is in two parts, scaled or not. */
static int ratio_is_inexact(const logits_pair *pair, double shift, double value) {
    return pair->task->measure == FASTKL_total_variation ? shift * shift > value * value * pair->lanes->max_shift_squared
                                                         : shift_is_inexact(pair, shift, value);
}

/* May a weight of p that underflows count, however small it is, because the measure multiplies it by a power of p/q? */
static int power_underflows(const logits_pair *pair, int exponent) {
    return fastkl_zero_is_infinite(pair->task) && pair->p_row.underflows &&
           run_masks(pair, INFINITY, min_log_weight(pair->lanes, exponent) / pair->c.high, -INFINITY) != PASS_ACCEPTED;
}

/* Is a divergence that is too small to be accepted 0, because the rows are the same? What fills up their last groups may
   keep the sums from being 0 then. (In float, the sums of rows that differ may be 0, by weights that underflow.) */
static int is_of_equal_rows(const logits_pair *pair) {
    return pair->p->logits == pair->q->logits && pair->task->eps == 0 && !fastkl_order(*pair->p, *pair->q, pair->n);
}

/* The weights pass, and whether its sums can be used. p is NULL for SUM_WEIGHT and SUM_ENTROPY. */
static int sum_weights(const logits_pair *pair, logits_row *p, logits_row *q, int kind, entropy_sums *sums) {
    int status = run_weights(pair, p, q, kind, sums);
    if (status)
        return status;
    if (isnan(sums->p_weight) || isnan(sums->q_weight))
        return PASS_NOT_FINITE;
    if (kind != SUM_WEIGHT && sums->p_weight == 0)
        return PASS_INACCURATE;
    const double far = sums->q_reference * pair->c.high - NEGLIGIBLE_LOG_RATIO;
    if (kind == SUM_CROSS_ENTROPY && !(sums->min_q * pair->c.high >= far))
        status = check_masks(pair, sums->p_exponent, far);
    return status ? status : sums->q_weight == 0 ? PASS_INACCURATE : PASS_ACCEPTED;
}

static double entropy_of_sums(const entropy_sums *sums, fastkl_parts c) {
    return non_negative(log_beyond_reference(sums->q_exponent, sums->q_reference, c) + log_f64(sums->q_weight) -
                        sums->product / sums->p_weight * c.high);
}

/* H(p, q), or H(p) if there is no q. */
static int try_cross_entropy(logits_pair *pair, double *value) {
    entropy_sums sums;
    const int status = pair->q->data ? sum_weights(pair, &pair->p_row, &pair->q_row, SUM_CROSS_ENTROPY, &sums)
                                     : sum_weights(pair, NULL, &pair->p_row, SUM_ENTROPY, &sums);
    *value = status ? NAN : entropy_of_sums(&sums, pair->c);
    return status || isfinite(*value) ? status : PASS_INACCURATE;
}

/* D(p || q), and its sums. */
static int try_divergence(logits_pair *pair, double *value, moments *sums) {
    const logits_lanes *const lanes = pair->lanes;
    int status = run_moments(pair, sums);
    if (status)
        return status;
    if (isnan(sums->weight) || isnan(sums->psi))
        return PASS_NOT_FINITE;
    if (sums->weight == 0)
        return PASS_INACCURATE;
    const double negligible = sums->shift - NEGLIGIBLE_LOG_RATIO;
    if (!(sums->min_difference * pair->c.high >= negligible))
        status = check_masks(pair, sums->exponent, min_log_weight(lanes, sums->exponent) + negligible);
    if (status)
        return status;
    const double mean = sums->first / sums->weight;
    *value = non_negative(log1p(mean + sums->psi / sums->weight) - mean);
    const double least = (double)pair->n * lanes->min_divergence * sums->weight;
    if (sums->psi < least && is_of_equal_rows(pair)) {
        *value = 0;
        return PASS_ACCEPTED;
    }
    if (sums->psi == 0 && sums->first == 0 && sums->max_x <= 0 && !lanes->is_float)
        return PASS_ACCEPTED;
    const int exact =
        sums->psi >= least && !shift_is_inexact(pair, sums->shift, *value) && sums->max_x <= lanes->max_log_ratio;
    return exact && isfinite(*value) && fabs(mean) <= MAX_MEAN * *value ? PASS_ACCEPTED : PASS_INACCURATE;
}

/* The value of an f-divergence, from the mean of its terms under p. */
static double (*const finish_ratios[FASTKL_MEASURE_COUNT])(double mean, const fastkl_task *task) = {
#define ROW(name, ...) [FASTKL_##name] = name##_finish_ratios,
    FASTKL_F_DIVERGENCES(ROW)
#undef ROW
};

/* Is a JS from one pass over rounded log(q/p) exact enough? The shift stems from sums of exponentials and is
   wrong by some 4 units in the last place, which makes JS larger by an eighth of its square and by as much of
   itself; a rounding of log(q/p) is a unit of the shift, and shows in JS as the shift by the root of JS. */
#define MAX_SHIFT_BY_JS 512
static int js_is_exact(const logits_lanes *lanes, double js, double shift) {
    return js >= 16 * lanes->epsilon && shift * shift <= MAX_SHIFT_BY_JS * js;
}

/* The logarithm of the ratio of the rows' sums, from both. */
static ratio_reference ratio_of_weights(const entropy_sums *sums) {
    const double steps = sums->q_exponent - sums->p_exponent;
    ratio_reference ratio = {.exponent = sums->p_exponent, .shift = steps * FASTKL_LN2};
    ratio.shift_low = fma(steps, FASTKL_LN2, -ratio.shift) + steps * FASTKL_LN2_LOW;
    two_sum(&ratio.shift, &ratio.shift_low, log(sums->q_weight / sums->p_weight));
    return ratio;
}

/* An f-divergence: a weights pass gives the ratio of the rows' sums; ratio passes give the value, and correct the ratio by
   `rest`. A wrong ratio makes the mean of the terms larger by rest^2 at most (JS by rest^2/8, a quarter of that), and by at
   most |rest| of it: by half a unit in the last place, and by 8 units, when no more passes are made. That of a total
   variation becomes larger by |rest|. */
static int try_ratios(logits_pair *pair, double *value) {
    const logits_lanes *const lanes = pair->lanes;
    const int measure = pair->task->measure;
    entropy_sums sums;
    logits_row p = pair->p_row, q = pair->q_row;
    const int kind = fastkl_zero_is_infinite(pair->task) ? SUM_CROSS_ENTROPY : SUM_BOTH;
    const int status = sum_weights(pair, &pair->p_row, &pair->q_row, kind, &sums);
    if (status)
        return status;
    ratio_reference from = ratio_of_weights(&sums);
    from.alpha = pair->task->alpha, from.beta = pair->task->beta;
    if (measure == FASTKL_js_divergence) {
        ratio_sums near;
        if (run_compare(pair, &p, &q, 1, &from, &near))
            return PASS_WANTED;
        *value = js_divergence_finish_ratios(near.js / sums.p_weight, pair->task);
        if (js_is_exact(lanes, *value, from.shift))
            return PASS_ACCEPTED;
    }
    double least_x = 0;
    for (int i = 0; i < MAX_RATIO_PASSES; i++) {
        term_sums found;
        if (run_ratios(pair, &p, &q, &from, &found))
            return PASS_WANTED;
        const double rest = found.sum[1] / sums.p_weight, mean = found.sum[0] / sums.p_weight;
        least_x = found.min;
        *value = finish_ratios[measure](mean, pair->task);
        const double most = 8 * lanes->epsilon * (measure == FASTKL_total_variation ? mean : 1);
        if (!(2 * rest * rest > lanes->epsilon * mean || fabs(rest) > most))
            break;
        two_sum(&from.shift, &from.shift_low, log1p(rest));
    }
    if (power_underflows(pair, sums.p_exponent))
        return is_wanted(pair->task) ? PASS_WANTED : PASS_INACCURATE;
    if (fastkl_is_infinite(measure) && least_x <= -lanes->max_log_ratio) /* it was clamped, and e^-x is larger */
        return PASS_INACCURATE;
    const double least = (double)pair->n * lanes->min_divergence;
    if (*value < least && is_of_equal_rows(pair)) {
        *value = 0;
        return PASS_ACCEPTED;
    }
    const int exact = *value >= least && *value < INFINITY && !ratio_is_inexact(pair, from.shift, *value);
    return exact || (*value == 0 && from.shift == 0 && !lanes->is_float) ? PASS_ACCEPTED : PASS_INACCURATE;
}

/* A measure by its pass. */
static int try_measure(logits_pair *pair, double *value, moments *sums) {
    switch (pair->task->measure) {
    case FASTKL_entropy:
    case FASTKL_cross_entropy:
        return try_cross_entropy(pair, value);
    case FASTKL_kl_divergence:
        return try_divergence(pair, value, sums);
    }
    return try_ratios(pair, value);
}
