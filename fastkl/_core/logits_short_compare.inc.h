/* Owns the comparison of short rows of logits, from the sums of passes in which each lane has a row. In double. Knows
   nothing of loops over entries and of rows that are not accepted. */

/* Whether a short row's values are accepted: none, all, or only D. */
enum { SHORT_NONE, SHORT_ALL, SHORT_DIVERGENCE };

/* All values but D and the cross-entropy, in an array for each field, and whether they are accepted. */
FASTKL_INLINE void finish_short_comparisons(const short_comparisons *of, const double *kl, int count, factor_f64 c,
                                            const logits_lanes *lanes, double least, double (*field)[LOGIT_ROWS],
                                            int64_t *accepts) {
    const double max_shift_squared = lanes->max_shift_squared;
    FASTKL_VECTORIZE
    for (int i = 0; i < count; i++) {
        const double log_p = log_beyond_f64(of->p_exponent[i], of->p_reference[i], c) + log_f64(of->p_weight[i]);
        const double log_q = log_beyond_f64(of->q_exponent[i], of->q_reference[i], c) + log_f64(of->q_weight[i]);
        const double js = js_divergence_finish_ratios(of->js[i], NULL), finite = of->reverse[i], shift = of->shift[i];
        const double smaller = js < finite ? js : finite, larger = js < finite ? finite : js;
        const double square = c.scaled ? shift * shift : 0;
        const int exact = (smaller >= least) & (square <= smaller * max_shift_squared);
        field[FASTKL_entropy_p_field][i] = non_negative(log_p - scale_f64(of->p_product[i] / of->p_weight[i], c));
        field[FASTKL_entropy_q_field][i] = non_negative(log_q - scale_f64(of->q_product[i] / of->q_weight[i], c));
        field[FASTKL_nll_p_field][i] = non_negative(log_p - scale_f64(of->p_logit[i] - of->p_reference[i], c));
        field[FASTKL_nll_q_field][i] = non_negative(log_q - scale_f64(of->q_logit[i] - of->q_reference[i], c));
        field[FASTKL_js_field][i] = js;
        field[FASTKL_total_variation_field][i] = of->variation[i] < 1 ? of->variation[i] : 1;
        field[FASTKL_reverse_kl_field][i] = finite + (of->found[i] & SHORT_MASKED ? (double)INFINITY : 0);
        field[FASTKL_same_argmax_field][i] = (double)of->same_place[i];
        accepts[i] = ((of->found[i] & (SHORT_INVALID | SHORT_UNDERFLOW)) == 0) & (larger < (double)INFINITY) &
                     (exact | ((kl[i] == 0) & (larger == 0)));
    }
}

/* The fields of up to LOGIT_ROWS short rows whose labels are given, and what is accepted. Without labels, the losses are
   those of the first. */
FASTKL_NOINLINE void compare_short(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
                                   const int64_t *labels, ptrdiff_t n, int count, double (*field)[LOGIT_ROWS],
                                   int64_t *accepts) {
    const logits_pair pair = pair_of(task, p, q, n);
    const int is_float = pair.lanes->is_float, scaled = pair.c.high != 1;
    const double least = (double)n * pair.lanes->min_divergence;
    short_moments sums;
    short_comparisons more;
    double *const kl = field[FASTKL_kl_field];
    int64_t places[LOGIT_ROWS] = {0}, all[LOGIT_ROWS];
    for (int i = 0; i < count; i++)
        places[i] = labels[i] >= 0 && labels[i] < n ? labels[i] : 0;
    (is_float ? short_comparisons_pass_f32 : short_comparisons_pass_f64)(p, q, (int)n, count, pair.c, places, &sums, &more);
    finish_short_divergences(&pair, &sums, count, kl, accepts);
    if (scaled)
        finish_short_comparisons(&more, kl, count, scaling_of_f64(pair.c, 1), pair.lanes, least, field, all);
    else
        finish_short_comparisons(&more, kl, count, scaling_of_f64(pair.c, 0), pair.lanes, least, field, all);
    for (int i = 0; i < count; i++) {
        const int ignored = task->ignores && labels[i] == task->ignored;
        if (accepts[i])
            accepts[i] = all[i] ? SHORT_ALL : SHORT_DIVERGENCE;
        field[FASTKL_cross_entropy_field][i] = field[FASTKL_entropy_p_field][i] + kl[i];
        if (ignored)
            field[FASTKL_nll_p_field][i] = field[FASTKL_nll_q_field][i] = 0;
    }
}
