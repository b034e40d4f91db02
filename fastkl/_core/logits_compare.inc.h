/* Owns the comparison of two rows of logits by passes: one pass over log(q/p) gives all values but D, after the pass for D
   or after one for the weights of both rows. Knows nothing of loops over entries. */

/* The ratio of the rows' sums that D gives has an error as large as that of D, so that a larger D leaves it too inexact. */
#define MAX_COMPARED_DIVERGENCE 4

/* If D is larger, that error may be more than half a unit, and the logarithm of q's sum takes it from q's weights. */
#define MAX_UNCORRECTED_DIVERGENCE 0x1p-6

/* If the logarithm of the ratio of the rows' sums is larger, a rounded log(q/p) shows in q's weights. */
#define MAX_SHARED_SHIFT 2

/* The sums of weights for the logarithm of a row's sum, whose reference is nearly that logarithm: so the mean of the logits
   less the reference is as small as the entropy. `log_weight` is the logarithm of the row's sum less that of 2^exponent. */
static entropy_sums near_log_sum(const logits_pair *pair, int exponent, double log_weight, double low) {
    const double steps = nearbyint(log_weight / FASTKL_LN2);
    const double rest = fma(-steps, FASTKL_LN2, log_weight) + (low - steps * FASTKL_LN2_LOW);
    entropy_sums sums = {.q_exponent = exponent + (int)steps, .q_weight = exp(rest)};
    sums.q_reference = sums.q_exponent * FASTKL_LN2 / pair->c.high;
    if (pair->lanes->is_float)
        sums.q_reference = (float)sums.q_reference;
    return sums;
}

/* The total variation from differences of weights. Where the ratio of the rows' sums is exact, these add up to 0: each is
   too large by `rest` of the sum of both weights, which changes the sign of none but those that nearly agree. NAN if they
   could show. */
static double variation_of_ratios(const ratio_sums *found, double weight, const logits_lanes *lanes) {
    const double both = weight + found->q_weight, rest = (found->above - found->below) / both;
    const double sum = found->above + found->below - rest * (2 * found->weight_above - both), value = sum / both;
    const double most = lanes->is_float ? (double)0x1p-19 : 0x1p-48; /* a quarter of UNSIGNED_RATIO */
    const int exact = fabs(rest) <= most && 2 * fabs(rest) * found->weight_near <= 4 * lanes->epsilon * sum;
    return exact && value >= 4 * lanes->epsilon ? value < 1 ? value : 1 : NAN;
}

/* Entropies, reverse divergence, JS and total variation, with p's weight and the ratio of the rows' sums. `q_sums` has q's
   weight if that is better known than the ratio. If what rounding takes from log(q/p) shows, there is another
   pass, of which `from` then says that it counts that. The sums of p's weights and of q's go to p_sums and q_sums,
   for labels. Has every q that is not masked a p of some weight? */
static int compare_with_ratio(logits_pair *pair, ratio_reference *from, double weight, double *field, entropy_sums *p_sums,
                              entropy_sums *q_sums) {
    const double c = pair->c.high, log_weight = log(weight), known = q_sums->q_weight, kl = field[FASTKL_kl_field];
    ratio_sums found;
    const entropy_sums of_p = near_log_sum(pair, from->exponent, log_weight, 0);
    entropy_sums of_q = known > 0 ? near_log_sum(pair, q_sums->q_exponent, log(known), 0)
                                  : near_log_sum(pair, from->exponent, from->shift + log_weight, from->shift_low);
    from->p_reference = of_p.q_reference, from->q_reference = of_q.q_reference;
    if (run_compare(pair, &pair->p_row, &pair->q_row, 0, from, &found))
        return 0;
    field[FASTKL_reverse_kl_field] = non_negative(found.reverse / weight);
    field[FASTKL_js_field] = js_divergence_finish_ratios(found.js / weight, pair->task);
    field[FASTKL_total_variation_field] = variation_of_ratios(&found, weight, pair->lanes);
    const double js = field[FASTKL_js_field], reverse = field[FASTKL_reverse_kl_field], least = js < reverse ? js : reverse;
    if (!from->exact && from->shift * from->shift > MAX_SHIFT_BY_JS * least) {
        from->exact = 1;
        return compare_with_ratio(pair, from, weight, field, p_sums, q_sums);
    }
    if (found.lost || !(found.q_weight > 0))
        return 0;
    const int is_shared = fabs(from->shift) <= MAX_SHARED_SHIFT;
    if (!(known > 0) && (kl > MAX_UNCORRECTED_DIVERGENCE || from->exact))
        of_q.q_weight *= found.q_weight / weight;
    field[FASTKL_entropy_p_field] = non_negative(log_sum_of(&of_p, pair->c) - found.p_logit / weight * c);
    field[FASTKL_entropy_q_field] = non_negative(log_sum_of(&of_q, pair->c) - found.q_logit / found.q_weight * c);
    *p_sums = of_p, *q_sums = of_q;
    if (!is_shared) {
        if (sum_weights(pair, NULL, &pair->q_row, SUM_ENTROPY, q_sums) != PASS_ACCEPTED)
            return 0;
        field[FASTKL_entropy_q_field] = entropy_of_sums(q_sums, pair->c);
    }
    return 1;
}

/* The comparison after the pass for D, whose sums are given; whether it is accepted. */
static int compare_by_moments(logits_pair *pair, const moments *sums, double *field, entropy_sums *p_sums,
                              entropy_sums *q_sums) {
    const logits_lanes *const lanes = pair->lanes;
    const double mean = sums->first / sums->weight, kl = field[FASTKL_kl_field];
    const double least = (double)pair->n * lanes->min_divergence;
    /* The shift is wrong by at most 32 units of D, and the other values by half the square of that: by at most 8 units of a
       JS that is larger than this, and by fewer of the reverse divergence, which is larger. */
    const double min_js = 64 * lanes->epsilon * kl * kl;
    ratio_reference from = {.exponent = sums->exponent, .shift = sums->shift, .shift_low = sums->shift_low};
    two_sum(&from.shift, &from.shift_low, log1p(mean + sums->psi / sums->weight));
    q_sums->q_weight = 0;
    /* Values down to 2^-10 D have to be free of the error of the shift. */
    if (kl > MAX_COMPARED_DIVERGENCE || shift_is_inexact(pair, from.shift, 0x1p-10 * kl) ||
        !compare_with_ratio(pair, &from, sums->weight, field, p_sums, q_sums))
        return 0;
    return kl == 0 || (kl >= least && 4 * field[FASTKL_js_field] >= least && field[FASTKL_js_field] >= min_js);
}

/* The comparison of rows whose D is large or infinite. */
static int compare_by_weights(logits_pair *pair, double *field, entropy_sums *p_sums, entropy_sums *q_sums) {
    const logits_lanes *const lanes = pair->lanes;
    entropy_sums sums;
    if (run_weights(pair, &pair->p_row, &pair->q_row, SUM_BOTH, &sums) ||
        !(sums.p_weight > 0 && sums.q_weight > 0 && isfinite(sums.p_weight + sums.q_weight)))
        return 0;
    ratio_reference from = ratio_of_weights(&sums);
    *q_sums = sums;
    return compare_with_ratio(pair, &from, sums.p_weight, field, p_sums, q_sums) &&
           js_is_exact(lanes, field[FASTKL_js_field], 0) && js_is_exact(lanes, field[FASTKL_reverse_kl_field], 0) &&
           !shift_is_inexact(pair, from.shift, field[FASTKL_js_field]) &&
           !shift_is_inexact(pair, from.shift, field[FASTKL_reverse_kl_field]);
}
