/* Owns the comparison of two rows of logits by passes: after the pass for D, one ratio pass and a weights pass over q give
   all values. Knows nothing of loops over entries. */

/* The ratio of the rows' sums has an error as large as that of D, so that a larger D leaves it too inexact. */
#define MAX_COMPARED_DIVERGENCE 4

/* Entropies, reverse divergence and JS, after the pass for D, whose sums are given; whether they are accepted. The sums of
   p's weights and of q's go to p_sums and q_sums, for labels. */
static int compare_by_passes(logits_pair *pair, const moments *sums, double *field, entropy_sums *p_sums,
                             entropy_sums *q_sums) {
    const logits_lanes *const lanes = pair->lanes;
    const double weight = sums->weight, c = pair->c.high, mean = sums->first / weight, kl = field[FASTKL_kl_field];
    const double least = (double)pair->n * lanes->min_divergence;
    /* The shift is wrong by at most 32 units of D, and the other values by half the square of that: by at most 8 units of a
       JS that is larger than this, and by fewer of the reverse divergence, which is larger. */
    const double min_js = 64 * lanes->epsilon * kl * kl;
    ratio_reference from = {.exponent = sums->exponent, .shift = sums->shift, .shift_low = sums->shift_low};
    term_sums found;
    two_sum(&from.shift, &from.shift_low, log1p(mean + sums->psi / weight));
    /* Values down to 2^-10 D have to be free of the error of the shift. */
    if (kl > MAX_COMPARED_DIVERGENCE || shift_is_inexact(pair, from.shift, 0x1p-10 * kl) ||
        sum_weights(pair, NULL, &pair->q_row, SUM_ENTROPY, q_sums) != PASS_ACCEPTED)
        return 0;
    from.p_reference = sums->exponent * FASTKL_LN2 / c;
    if (lanes->is_float)
        from.p_reference = (float)from.p_reference;
    lanes->ratio_pass(&pair->p_row, &pair->q_row, pair->n, pair->c, COMPARISON, &from, &found);
    *p_sums = (entropy_sums){.q_exponent = sums->exponent, .q_reference = from.p_reference, .q_weight = weight};
    field[FASTKL_entropy_p_field] = non_negative(log_sum_of(p_sums, pair->c) - found.sum[2] / weight * c);
    field[FASTKL_entropy_q_field] = entropy_of_sums(q_sums, pair->c);
    field[FASTKL_reverse_kl_field] = non_negative(found.sum[1] / weight);
    field[FASTKL_js_field] = js_divergence_finish_ratios(found.sum[0] / weight);
    /* No weight of p has underflowed, the least logit for which the pass has as a REAL. */
    const double lane_c = lanes->is_float ? (double)(float)c : c, low = min_log_weight(lanes, sums->exponent) / lane_c;
    return found.min >= (lanes->is_float ? (double)(float)low : low) &&
           (kl == 0 || (kl >= least && found.sum[0] >= least * weight && field[FASTKL_js_field] >= min_js));
}
