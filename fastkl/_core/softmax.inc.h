/* Rows of logits: the sums of their chunks become values. Here chunks are joined, in double;
   a row that float lanes do not settle is looked at again, still in cache, in double; in the
   last resort by careful_logits.c. Which measure has which sums, this knows. */

/* The moments about another shift, less than its own by x: as psi(x + y) = e^x psi(y) + psi(x) + (e^x - 1) y. Nothing
   cancels where the sum of w x is nothing. */
FASTKL_INLINE void shift_by(moments *of, double x) {
    double exp;
    const double excess = psi_f64(x, &exp);
    if (x > apart_from_f64)
        exp = INFINITY;
    of->excess = exp * of->excess + excess * of->weight + (x + excess) * of->first;
    of->first += x * of->weight;
}

/* The moments of both. */
static void join(moments *to, const moments *next) {
    moments a = *to, b = *next;
    a.least_q = b.least_q = to->least_q < next->least_q ? to->least_q : next->least_q;
    if ((a.weight == 0 && a.excess == 0) || (b.weight == 0 && b.excess == 0)) {
        *to = a.weight == 0 && a.excess == 0 ? b : a;
        return;
    }
    const int exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
    const double p = ldexp(1, a.exponent - exponent), q = ldexp(1, b.exponent - exponent);
    double shift = a.shift, low = a.shift_low;
    const double apart = (b.shift - a.shift) + (b.shift_low - a.shift_low);
    if (apart != 0) {
        /* To the mean of both, weighted, so that w x stays next to nothing. */
        const double weight = p * a.weight + q * b.weight, step = weight > 0 ? apart * (q * b.weight / weight) : 0;
        two_sum(&shift, &low, step);
        shift_by(&a, -step);
        shift_by(&b, apart - step);
    }
    *to = (moments){exponent, shift, low, p * a.weight + q * b.weight, p * a.first + q * b.first,
                    p * a.excess + q * b.excess, a.most > b.most ? a.most : b.most, a.least_q};
}

static void join_masses(masses *to, const masses *next) {
    const int p_first = to->weight == 0 || (next->weight != 0 && next->exponent > to->exponent);
    const int q_first = to->other == 0 || (next->other != 0 && next->other_exponent > to->other_exponent);
    const int exponent = p_first ? next->exponent : to->exponent;
    const int other_exponent = q_first ? next->other_exponent : to->other_exponent;
    const double top = q_first ? next->top : to->top;
    masses both = {exponent, other_exponent, 0, 0, top, 0};
    for (int i = 0; i < 2; i++) {
        const masses *const now = i ? next : to;
        const double p = ldexp(1, now->exponent - exponent), q = ldexp(1, now->other_exponent - other_exponent);
        if (now->weight != 0) { /* be it NaN */
            both.weight += p * now->weight;
            both.term += p * (now->term + now->weight * (now->top - top));
        }
        if (now->other != 0)
            both.other += q * now->other;
    }
    *to = both;
}

/* A row of logits: its operands as sources, and what their logits are still to be multiplied by. */
typedef struct {
    const fastkl_task *task;
    const fastkl_operand *p, *q;
    ptrdiff_t n;
    source p_source, q_source;
    inverse c;
} softmax_row;

static const inverse one = {1, 0};

/* The operands as sources. If one holds probabilities, whose logarithms no temperature divides, or eps makes a least logit,
   the other's are divided on the way; all that is then in double. */
static softmax_row softmax_row_of(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    const int alike = p->logits && (!q->data || (q->logits && task->eps == 0));
    const double p_factor = alike || !p->logits ? 1 : task->scale, q_factor = alike || !q->logits ? 1 : task->scale;
    return (softmax_row){
        .task = task, .p = p, .q = q, .n = n,
        .p_source = {.task = task, .from = p, .plain = p_factor == 1, .factor = p_factor, .least = -INFINITY},
        .q_source =
            {.task = task, .from = q, .plain = q_factor == 1, .factor = q_factor, .least = -INFINITY, .eps = task->eps},
        .c = alike ? (inverse){task->scale, task->scale_low} : one,
    };
}

/* Has a row's largest logit subtracted, unless it is near 0: then the others' digits might be lost, and nothing be won. But
   the logarithm of eps, that some count as, has only so many digits that it must always be near. */
static void subtract_largest(source *from, ptrdiff_t n, inverse c) {
    double most;
    source plain = *from;
    plain.plain = 1;
    first_largest_f64(&plain, n, &most);
    from->centred = 1;
    if (isfinite(most) && (fabs(most * c.high) > FARTHEST || from->factor != 1 || (from->eps > 0 && from->from->logits)))
        from->plain = 0, from->centre = most;
}

/* e^x by temperature, as a logarithm: the difference of `exponent`
   ln 2 and what `top`, of a size with it, is multiplied to. */
static double beyond_top(int exponent, double top, inverse c) {
    const double product = top * c.high, low = fma(top, c.high, -product) + top * c.low;
    return fma(exponent, LN2_OF_DOUBLE, -product) + (exponent * 0x1.abc9e3b39803fp-56 - low);
}

/* The logarithm of the weight below which a logit is lost. */
static double lost(int exponent, int in_float) {
    return (exponent - (in_float ? lost_from_f32 : lost_from_f64)) * LN2_OF_DOUBLE;
}

/* Are there entries of q that are masked where p's are not, or others that these sums
   do not say enough of? `far` is where q's logits begin that are worth a search. There,
   a probability's weight must be better than the exponential of a rounded logarithm. */
static int masks(softmax_row *row, int in_float, int exponent, double least_q, double far) {
    const double low = lost(exponent, in_float), negligible = low - (in_float ? 128 : 1024);
    source p = row->p_source, q = row->q_source;
    if (least_q * row->c.high >= far)
        return SETTLED;
    return (in_float ? look_for_masks_f32 : look_for_masks_f64)(&p, &q, row->n, far / row->c.high,
                                                                row->p->logits ? low / row->c.high : INFINITY,
                                                                negligible / row->c.high);
}

/* Differences of logits are exact in two numbers, but not if divided
   by a temperature: can the shift then be seen in the divergence? */
static int far_apart(const softmax_row *row, int in_float, double shift, double divergence) {
    return row->c.high != 1 && shift * shift > divergence * (in_float ? 0x1p54 : 0x1p113);
}

/* D, from sums in the lanes asked for; and those. */
static int attempt_divergence(softmax_row *row, int in_float, double *value, moments *sums) {
    int seen =
        (in_float ? look_at_quotients_f32 : look_at_quotients_f64)(&row->p_source, &row->q_source, row->n, row->c, sums);
    if (seen)
        return seen;
    if (isnan(sums->weight) || isnan(sums->excess))
        return BROKEN;
    if (sums->weight == 0)
        return EMPTY;
    seen =
        masks(row, in_float, sums->exponent, sums->least_q, lost(sums->exponent, in_float) + sums->shift - UNDERRATED_FROM);
    if (seen)
        return seen;
    const double mean = sums->first / sums->weight, least = (double)row->n * (in_float ? 0x1p-66 : 0x1p-800);
    *value = non_negative(log1p(mean + sums->excess / sums->weight) - mean);
    /* Nothing is nothing, but for weights that are lost: equal rows are known by their entries, others by double lanes. */
    if (sums->excess == 0 && sums->first == 0 && sums->most <= 0 &&
        (!in_float || !fastkl_order(row->task, *row->p, *row->q, row->n)))
        return SETTLED;
    const double most = in_float ? apart_from_f32 : apart_from_f64;
    const int enough = sums->excess >= least * sums->weight && fabs(mean) <= 0.125 * *value;
    const int settled = isfinite(*value) && enough && sums->most <= most && !far_apart(row, in_float, sums->shift, *value);
    return settled ? SETTLED : UNSETTLED;
}

/* The sums for H(p, q), or with no p, for H(q), or without `own` only the sum of e^logit. */
static int attempt_weights(softmax_row *row, int in_float, source *p, source *q, int own, masses *sums) {
    double least_q;
    const int seen = (in_float ? look_at_weights_f32 : look_at_weights_f64)(p, q, row->n, row->c, own, sums, &least_q);
    if (seen)
        return seen;
    if (isnan(sums->weight) || isnan(sums->other))
        return BROKEN;
    if ((p || own) && sums->weight == 0)
        return EMPTY;
    if (p) {
        const int masked = masks(row, in_float, sums->exponent, least_q, sums->top * row->c.high - UNDERRATED_FROM);
        if (masked)
            return masked;
    }
    return sums->other == 0 ? EMPTY : SETTLED;
}

/* What those sums say of the entropy. */
static double entropy_of(const masses *sums, inverse c) {
    return non_negative(beyond_top(sums->other_exponent, sums->top, c) + log_f64(sums->other) -
                        sums->term / sums->weight * c.high);
}

static int attempt_cross_entropy(softmax_row *row, int in_float, double *value) {
    masses sums;
    source *const p = row->q->data ? &row->p_source : NULL, *const q = p ? &row->q_source : &row->p_source;
    const int seen = attempt_weights(row, in_float, p, q, !p, &sums);
    *value = seen ? NAN : entropy_of(&sums, row->c);
    return seen || isfinite(*value) ? seen : UNSETTLED;
}

/* log(q/p) of the rows' sums, of which p's counts from 2^exponent,
   for looks that want it; what JS, and the look, then are. */
static double look_for_js(softmax_row *row, int in_float, int exponent, double weight, double *shift, double *shift_low) {
    seen_of_chunk seen;
    double js = 0;
    for (int look = 0; look < 4; look++) {
        (in_float ? look_both_ways_f32 : look_both_ways_f64)(&row->p_source, &row->q_source, row->n, row->c, 0, exponent,
                                                             *shift, *shift_low, 0, &seen);
        const double rest = seen.sum[1] / weight, eps = in_float ? 0x1p-23 : 0x1p-52;
        js = 0.25 * seen.sum[0] / weight;
        /* JS grows by rest^2/8 where the sums do not agree, and at most by rest times itself. */
        if (!(rest * rest > 2 * eps * js || fabs(rest) > 8 * eps))
            break;
        two_sum(shift, shift_low, log1p(rest));
    }
    return js > LN2_OF_DOUBLE ? LN2_OF_DOUBLE : js;
}

static int attempt_js(softmax_row *row, int in_float, double *value) {
    masses sums;
    source p = row->p_source, q = row->q_source;
    int seen = attempt_weights(row, in_float, &row->p_source, &row->q_source, 0, &sums);
    if (seen & (MASKED | UNDERRATED)) /* which JS is not concerned with */
        seen = sums.other == 0 ? EMPTY : SETTLED;
    if (seen)
        return seen;
    double shift = (sums.other_exponent - sums.exponent) * LN2_OF_DOUBLE, low = 0;
    two_sum(&shift, &low, log(sums.other / sums.weight));
    softmax_row again = *row;
    again.p_source = p, again.q_source = q;
    *value = look_for_js(&again, in_float, sums.exponent, sums.weight, &shift, &low);
    const double least = (double)row->n * (in_float ? 0x1p-66 : 0x1p-800);
    if (far_apart(row, in_float, shift, *value) && *value > 0)
        return UNSETTLED;
    const int settled =
        *value >= least || (*value == 0 && shift == 0 && (!in_float || !fastkl_order(row->task, *row->p, *row->q, row->n)));
    return settled ? SETTLED : UNSETTLED;
}

/* What is wrong with a row, of which was `seen` what a look sees. A look that breaks off leaves sums unfinished. */
static int examine(const softmax_row *row, int seen) {
    const fastkl_operand p = *row->p, q = *row->q;
    const fastkl_task *const task = row->task;
    const int p_sums = !p.logits, q_sums = q.data && !q.logits, broken_off = seen & (BROKEN | FAR);
    if (seen == SETTLED && !p_sums && !q_sums)
        return FASTKL_VALID;
    if (broken_off || ((row->p_source.bits | row->q_source.bits) & FASTKL_SIGN) ||
        !isfinite(row->p_source.sum + row->q_source.sum)) {
        const int status = fastkl_check_entries(task, p, q, row->n);
        if (status)
            return status;
    }
    const double p_sum = !p_sums ? 1 : broken_off ? sum_of_entries(task, p, row->n) : row->p_source.sum;
    const double q_sum = !q_sums      ? 1
                         : broken_off ? sum_of_entries(task, q, row->n)
                                      : row->q_source.sum - row->q_source.raised;
    if (misses_one(p_sum, task->p_tolerance) || !fastkl_has_weight(task, p, row->n, 0))
        return FASTKL_P_SUM;
    if (q.data && (misses_one(q_sum, task->q_tolerance) || !fastkl_has_weight(task, q, row->n, task->eps)))
        return FASTKL_Q_SUM;
    return FASTKL_VALID;
}

/* Forgets what a look found. */
static void forget(source *from) {
    from->sum = from->raised = 0;
    from->bits = 0;
}

/* Has the largest logits subtracted, if they are not yet. */
static int centre(softmax_row *row) {
    if (row->p_source.centred)
        return 0;
    subtract_largest(&row->p_source, row->n, row->c);
    if (row->q->data && !row->q_source.centred)
        subtract_largest(&row->q_source, row->n, row->c);
    return 1;
}

/* With eps, no logit of q counts as less than that of eps. */
static void raise_logits(softmax_row *row) {
    masses sums;
    subtract_largest(&row->q_source, row->n, row->c);
    if (attempt_weights(row, 0, NULL, &row->q_source, 0, &sums) == SETTLED) {
        row->q_source.plain = 0;
        row->q_source.least = log(row->task->eps) + sums.other_exponent * LN2_OF_DOUBLE + log(sums.other);
    }
}

/* Is there a look that can do with the temperature? */
static int can_look(const softmax_row *row) { return row->task->scale <= STEEPEST && row->task->scale >= 1 / STEEPEST; }

/* Did it tell masks from what is left of the others? */
static int told_masks(const softmax_row *row) { return !row->p_source.overflows && !row->q_source.overflows; }

/* Has probabilities counted from a power of two that is near their sum, if they are not yet and that is far from 1: the
   larger ones' logarithms are then small, and none of their digits lost. */
static int scale_to_sum(source *from, int holds_probabilities) {
    if (!holds_probabilities || from->factor != 1 || (from->sum <= UNSCALED_TO && from->sum >= 1 / UNSCALED_TO))
        return 0;
    const int exponent = isfinite(from->sum) ? ilogb(from->sum) : 1022;
    from->factor = ldexp(1, exponent > 1022 ? -1022 : exponent < -1022 ? 1022 : -exponent);
    return 1;
}

/* Can float lanes be tried? */
static int starts_in_float(const softmax_row *row) {
    return in_float(row->task, row->p, row->q) && row->p->logits && (!row->q->data || row->q->logits) &&
           row->c.high < 0x1p60 && row->c.high > 0x1p-60;
}

/* A measure of a row, by whichever sums settle it: those in float, if the row is; in double; either with the largest logits
   subtracted; or by careful_logits.c. Answers what is wrong with the row, and which lanes it was, for D with the sums. */
#define NEITHER 2
static int softmax_value(softmax_row *row, double *value, moments *sums, int *lanes) {
    const fastkl_task *const task = row->task;
    int seen;
    *lanes = starts_in_float(row);
    if (row->q->data && row->q->logits && task->eps > 0 && can_look(row))
        raise_logits(row);
    /* rounded, logits had better be near 0 */
    if ((row->p_source.factor != 1 || row->q_source.factor != 1) && can_look(row))
        centre(row);
    for (;;) {
        forget(&row->p_source);
        forget(&row->q_source);
        switch (can_look(row) ? task->measure : -1) {
        case -1:
            seen = BROKEN, *lanes = 0;
            break;
        case FASTKL_kl_divergence:
            seen = attempt_divergence(row, *lanes, value, sums);
            break;
        case FASTKL_js_divergence:
            seen = attempt_js(row, *lanes, value);
            break;
        default:
            seen = attempt_cross_entropy(row, *lanes, value);
        }
        if (!told_masks(row))
            seen = BROKEN, *lanes = 0;
        if (seen == FAR && centre(row)) {
            *lanes = 0; /* a float can overflow where the centre is subtracted */
            continue;
        }
        const int status = examine(row, seen);
        if (status) {
            *value = NAN;
            return status;
        }
        if (seen == SETTLED) {
            const int p_scaled = scale_to_sum(&row->p_source, !row->p->logits);
            if (scale_to_sum(&row->q_source, row->q->data && !row->q->logits) || p_scaled)
                continue;
            return FASTKL_VALID;
        }
        if ((seen & MASKED) || !*lanes) {
            *value = seen & MASKED ? INFINITY : fastkl_careful_logits(task, *row->p, *row->q, row->n);
            *lanes = NEITHER;
            return FASTKL_VALID;
        }
        *lanes = 0;
    }
}

/* What is wrong with rows that were exchanged: p comes first. */
static uint8_t of_the_other(const softmax_row *row, int status) {
    if (status == FASTKL_P_ENTRY && fastkl_check_entries(row->task, *row->q, *row->p, row->n) == FASTKL_P_ENTRY)
        return FASTKL_P_ENTRY;
    if (status == FASTKL_P_SUM && !fastkl_has_weight(row->task, *row->q, row->n, 0))
        return FASTKL_P_SUM;
    return status == FASTKL_P_ENTRY   ? FASTKL_Q_ENTRY
           : status == FASTKL_Q_ENTRY ? FASTKL_P_ENTRY
           : status == FASTKL_P_SUM   ? FASTKL_Q_SUM
                                      : FASTKL_P_SUM;
}

static void logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                   double *value, uint8_t *status) {
    fastkl_operand p_row = *p, q_row = *q;
    for (ptrdiff_t i = 0; i < count; i++) {
        /* The same bits for p and q exchanged: the same of them is looked at as p, whichever it is called. */
        const int swapped = task->measure == FASTKL_js_divergence &&
                            (p->logits == q->logits ? fastkl_order(task, p_row, q_row, n) > 0 : p->logits);
        fastkl_task now = *task;
        if (swapped)
            now.p_tolerance = task->q_tolerance, now.q_tolerance = task->p_tolerance;
        softmax_row row = softmax_row_of(&now, swapped ? &q_row : &p_row, swapped ? &p_row : &q_row, n);
        moments sums;
        int lanes;
        status[i] = (uint8_t)softmax_value(&row, &value[i], &sums, &lanes);
        if (swapped && status[i])
            status[i] = of_the_other(&row, status[i]);
        value[i] = asked(task->root, value[i]);
        p_row.data += p->row;
        q_row.data = further(q_row.data, q->row);
    }
}

/* What a label costs, by the logarithm of the row's sum of e^logit; logits count from `top`. */
static double loss_of_logit(const softmax_row *row, const source *from, double log_sum, double top, ptrdiff_t label) {
    const fastkl_operand *const operand = from->from;
    double logit = fastkl_entry(*operand, label);
    if (!operand->logits)
        logit = logit * from->factor > 0x1p-900 ? log(logit * from->factor) : log(logit) + log(from->factor);
    else
        logit = (logit - from->centre) * from->factor;
    return non_negative(log_sum - (logit - top) * row->c.high);
}

/* -log(q[label] / sum of q) for logits q, smoothed; what is wrong with the row. */
static int loss_of_logits(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t label, double *value) {
    const fastkl_operand none = {.dtype = q->dtype};
    softmax_row row = softmax_row_of(task, q, &none, n);
    masses sums;
    int lanes = starts_in_float(&row), seen, status;
    if (task->eps > 0 && can_look(&row)) {
        row = softmax_row_of(task, q, q, n);
        raise_logits(&row);
        row.p_source = row.q_source, row.q = &none, lanes = 0;
    }
    for (;;) {
        seen = can_look(&row) ? attempt_weights(&row, lanes, NULL, &row.p_source, 0, &sums) : BROKEN;
        if (seen == SETTLED || (seen == FAR ? !centre(&row) : lanes == 0))
            break;
        lanes = 0;
    }
    status = examine(&row, seen);
    if (status) {
        *value = NAN;
        return status;
    }
    if (seen != SETTLED) {
        *value = fastkl_careful_loss(task, *q, n, label);
        return FASTKL_VALID;
    }
    const double log_sum = beyond_top(sums.other_exponent, sums.top, row.c) + log(sums.other);
    double loss = loss_of_logit(&row, &row.p_source, log_sum, sums.top, label);
    if (task->eps > 0) {
        const double most = (sums.other_exponent * LN2_OF_DOUBLE + log(sums.other)) - row.p_source.least;
        loss = loss < most ? loss : most;
    }
    if (task->smoothing > 0) {
        const double sum = (lanes > 0 ? plain_sum_of_f32 : plain_sum_of_f64)(&row.p_source, n, sums.top);
        loss = fastkl_smoothed(task, loss, non_negative(log_sum - sum / (double)n * row.c.high));
    }
    *value = loss;
    return FASTKL_VALID;
}

/* The same for probabilities q. */
static int loss_of_probabilities(const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t label,
                                 double *value) {
    fastkl_task sum_task = *task;
    fastkl_operand none = {.dtype = q->dtype};
    fastkl_sums sums;
    sum_task.measure = FASTKL_entropy, sum_task.eps = 0;
    look_at_pieces(&sum_task, q, &none, q->data, NULL, n, &sums);
    *value = NAN;
    const double sum = sums.weight + sums.weight_low;
    const int plain = sum >= limits_f32.sum_least && sum <= limits_f32.sum_most;
    if ((sums.entry_bits & FASTKL_SIGN) || !isfinite(sum)) {
        const int status = fastkl_check_entries(task, *q, none, n);
        if (status)
            return status;
    }
    if (misses_one(sum, task->q_tolerance) || (!plain && !fastkl_has_weight(task, *q, n, task->eps)))
        return FASTKL_P_SUM;
    if (plain && task->eps == 0) {
        const double entry = fastkl_entry(*q, label);
        *value = entry > 0x1p-900 ? log1p(non_negative(sum - entry) / entry) : entry > 0 ? log(sum) - log(entry) : INFINITY;
    } else {
        sum_task.smoothing = 0, sum_task.eps = task->eps;
        *value = fastkl_careful_loss(&sum_task, *q, n, label);
    }
    if (task->smoothing > 0) {
        static const float ones = 1;
        const fastkl_operand uniform = {.data = (const char *)&ones, .dtype = FASTKL_float32};
        fastkl_task mean_task = *task;
        uint8_t status;
        double mean = NAN;
        mean_task.measure = FASTKL_cross_entropy, mean_task.p_tolerance = mean_task.q_tolerance = INFINITY;
        rows(&mean_task, &uniform, q, n, 1, &mean, &status);
        *value = fastkl_smoothed(task, *value, mean);
    }
    return FASTKL_VALID;
}

/* A label; one that is too large for its type here is as wrong as the largest. */
static int64_t label_of(const fastkl_operand *labels) {
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

/* The loss of a row's label. */
static int loss_of(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n,
                   double *value) {
    const int64_t label = label_of(labels);
    *value = 0;
    if (task->ignores && label == task->ignored)
        return FASTKL_VALID;
    if (label < 0 || label >= n) {
        *value = NAN;
        return FASTKL_LABEL;
    }
    return (q->logits ? loss_of_logits : loss_of_probabilities)(task, q, n, (ptrdiff_t)label, value);
}

static void losses(const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n,
                   ptrdiff_t count, double *value, uint8_t *status) {
    fastkl_operand row = *q, label = *labels;
    for (ptrdiff_t i = 0; i < count; i++) {
        status[i] = (uint8_t)loss_of(task, &row, &label, n, &value[i]);
        if (status[i] == FASTKL_P_ENTRY)
            status[i] = FASTKL_Q_ENTRY;
        if (status[i] == FASTKL_P_SUM)
            status[i] = FASTKL_Q_SUM;
        row.data += q->row;
        label.data += labels->row;
    }
}

/* Everything that compares two rows of logits, once D is known by sums in
   lanes: one look at both, one at q. Answers whether they settle it. */
static int compare_by_looks(softmax_row *row, int lanes, const moments *sums, double kl, double *field, double *log_p,
                            double *p_top, masses *q_sums) {
    const double weight = sums->weight, c = row->c.high, mean = sums->first / weight, log_weight = log(weight);
    const double least = (double)row->n * (lanes ? 0x1p-66 : 0x1p-800);
    /* The shift is wrong by 32 units of D, or less, and what is counted from it by half the square: 8 units of JS, or less,
       from here on, and fewer of the reverse divergence, which is larger. */
    const double least_js = 64 * (lanes ? 0x1p-23 : 0x1p-52) * kl * kl;
    seen_of_chunk seen;
    double shift = sums->shift, low = sums->shift_low;
    two_sum(&shift, &low, log1p(mean + sums->excess / weight));
    /* What the sums' quotient lacks is as large as the divergence is. */
    if (kl > 4 || far_apart(row, lanes, shift, 0x1p-10 * kl) ||
        attempt_weights(row, lanes, NULL, &row->q_source, 1, q_sums) != SETTLED)
        return 0;
    *p_top = sums->exponent * LN2_OF_DOUBLE / c;
    if (lanes)
        *p_top = (float)*p_top;
    (lanes ? look_both_ways_f32 : look_both_ways_f64)(&row->p_source, &row->q_source, row->n, row->c, 1, sums->exponent,
                                                      shift, low, *p_top, &seen);
    *log_p = beyond_top(sums->exponent, *p_top, row->c) + log_weight;
    field[FASTKL_entropy_p_field] = non_negative(*log_p - seen.sum[2] / weight * c);
    field[FASTKL_entropy_q_field] = entropy_of(q_sums, row->c);
    field[FASTKL_reverse_kl_field] = non_negative(seen.sum[1] / weight);
    field[FASTKL_js_field] = 0.25 * seen.sum[0] / weight < LN2_OF_DOUBLE ? 0.25 * seen.sum[0] / weight : LN2_OF_DOUBLE;
    return seen.least * c >= lost(sums->exponent, lanes) - 1 /* it was rounded */ &&
           (kl == 0 || (kl >= least && seen.sum[0] >= least * weight && field[FASTKL_js_field] >= least_js));
}

/* A measure of its own, of rows that are known to be valid. */
static double single(const fastkl_task *task, int measure, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) {
    fastkl_task other = *task;
    double value = NAN;
    moments sums;
    int lanes;
    other.measure = measure, other.p_tolerance = other.q_tolerance = INFINITY;
    if (!p->logits && !q->logits) { /* rounded logarithms are not as exact */
        fastkl_operand alone = *p; /* as a row without neighbours, wherever it stands */
        uint8_t status;
        alone.row = 0;
        rows(&other, &alone, q, n, 1, &value, &status);
        return value;
    }
    softmax_row row = softmax_row_of(&other, p, q, n);
    softmax_value(&row, &value, &sums, &lanes);
    return value;
}

/* The index of a valid row's first entry that is largest. */
static ptrdiff_t argmax(const fastkl_task *task, const fastkl_operand *row, ptrdiff_t n) {
    fastkl_operand as_they_are = *row;
    source from = {.task = task, .from = &as_they_are, .plain = 1};
    double most;
    as_they_are.logits = 1; /* of two probabilities, the logarithms may be the same */
    return (fastkl_is_single(row->dtype) ? first_largest_f32 : first_largest_f64)(&from, n, &most);
}

/* What a label costs in rows that are known to be valid. */
static int losses_of_both(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                          const fastkl_operand *labels, ptrdiff_t n, double *field) {
    fastkl_task plain = *task;
    plain.q_tolerance = INFINITY, plain.eps = 0;
    const int status = loss_of(&plain, p, labels, n, &field[FASTKL_nll_p_field]);
    if (!status)
        loss_of(&plain, q, labels, n, &field[FASTKL_nll_q_field]);
    return status;
}

static int compare_logits(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                          const fastkl_operand *labels, ptrdiff_t n, double *field) {
    /* in double if the other is: H(p, q) has H(p) */
    const fastkl_operand none = {.dtype = q->dtype}, q_none = {.dtype = p->dtype};
    softmax_row row = softmax_row_of(task, p, q, n);
    moments sums;
    masses q_sums = {0};
    double kl, log_p = 0, p_top = 0;
    int lanes, status = softmax_value(&row, &kl, &sums, &lanes);
    if (status)
        return status;
    field[FASTKL_kl_field] = kl;
    const int looked = lanes != NEITHER && compare_by_looks(&row, lanes, &sums, kl, field, &log_p, &p_top, &q_sums);
    if (!looked || !p->logits)
        field[FASTKL_entropy_p_field] = single(task, FASTKL_entropy, p, &none, n);
    if (!looked || !q->logits)
        field[FASTKL_entropy_q_field] = single(task, FASTKL_entropy, q, &q_none, n);
    if (!looked) {
        field[FASTKL_reverse_kl_field] = single(task, FASTKL_kl_divergence, q, p, n);
        field[FASTKL_js_field] = single(task, FASTKL_js_divergence, p, q, n);
    }
    field[FASTKL_cross_entropy_field] = field[FASTKL_entropy_p_field] + kl;
    field[FASTKL_same_argmax_field] = argmax(task, p, n) == argmax(task, q, n);
    if (labels->data) {
        const int64_t label = label_of(labels);
        if (looked && label >= 0 && label < n) {
            field[FASTKL_nll_p_field] = loss_of_logit(&row, &row.p_source, log_p, p_top, (ptrdiff_t)label);
            const double log_q = beyond_top(q_sums.other_exponent, q_sums.top, row.c) + log(q_sums.other);
            field[FASTKL_nll_q_field] = loss_of_logit(&row, &row.q_source, log_q, q_sums.top, (ptrdiff_t)label);
        } else {
            status = losses_of_both(task, p, q, labels, n, field);
        }
        if (task->ignores && label == task->ignored)
            field[FASTKL_nll_p_field] = field[FASTKL_nll_q_field] = 0;
    }
    return status;
}

/* Everything that compares rows of probabilities: measure after measure, of rows that fit into cache. */
static void compare_probabilities(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                  const fastkl_operand *labels, ptrdiff_t n, int count, double *values, uint8_t *status) {
    static const struct {
        int measure, swapped, field;
    } steps[] = {
        {FASTKL_kl_divergence, 0, FASTKL_kl_field},       {FASTKL_kl_divergence, 1, FASTKL_reverse_kl_field},
        {FASTKL_js_divergence, 0, FASTKL_js_field},       {FASTKL_entropy, 0, FASTKL_entropy_p_field},
        {FASTKL_entropy, 1, FASTKL_entropy_q_field},
    };
    /* in double if the other is: H(p, q) has H(p) */
    const fastkl_operand none = {.dtype = q->dtype}, q_none = {.dtype = p->dtype};
    double value[MOST_AT_ONCE];
    uint8_t found[MOST_AT_ONCE];
    fastkl_operand p_row = *p, q_row = *q, label = *labels;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const int swapped = steps[i].swapped, pair = steps[i].measure != FASTKL_entropy;
        fastkl_task now = *task;
        now.measure = steps[i].measure, now.eps = 0;
        if (swapped)
            now.p_tolerance = task->q_tolerance, now.q_tolerance = task->p_tolerance;
        const fastkl_operand *const other = pair ? (swapped ? p : q) : swapped ? &q_none : &none;
        rows(&now, swapped ? q : p, other, n, count, value, i ? found : status);
        if (is_off(task, count * n))
            return;
        for (int k = 0; k < count; k++)
            values[k * FASTKL_FIELD_COUNT + steps[i].field] = value[k];
    }
    for (int k = 0; k < count;
         k++, p_row.data += p->row, q_row.data += q->row, label.data = further(label.data, labels->row)) {
        double *const field = values + k * FASTKL_FIELD_COUNT;
        if (k % ROWS_AT_ONCE == 0 && is_off(task, count * n))
            return;
        if (status[k])
            continue;
        field[FASTKL_cross_entropy_field] = field[FASTKL_entropy_p_field] + field[FASTKL_kl_field];
        field[FASTKL_same_argmax_field] = argmax(task, &p_row, n) == argmax(task, &q_row, n);
        if (labels->data)
            status[k] = (uint8_t)losses_of_both(task, &p_row, &q_row, &label, n, field);
    }
}

static void compare(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status) {
    const int probabilities = !p->logits && !q->logits;
    const ptrdiff_t at_once = rows_at_once(together(p, q, n), n);
    fastkl_operand p_row = *p, q_row = *q, label = *labels;
    ptrdiff_t now;
    for (ptrdiff_t i = 0; i < count; i += now) {
        now = !probabilities ? 1 : count - i < at_once ? count - i : at_once;
        if (probabilities)
            compare_probabilities(task, &p_row, &q_row, &label, n, (int)now, values, status + i);
        else
            status[i] = (uint8_t)compare_logits(task, &p_row, &q_row, &label, n, values);
        if (is_off(task, now * n))
            return;
        for (ptrdiff_t k = 0; k < now; k++, values += FASTKL_FIELD_COUNT)
            for (int field = 0; status[i + k] && field < FASTKL_FIELD_COUNT; field++)
                values[field] = NAN;
        p_row.data += now * p->row, q_row.data += now * q->row;
        label.data = further(label.data, now * labels->row);
    }
}
