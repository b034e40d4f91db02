/* Owns passes over rows of logits that are wider than a piece: over each piece by itself, and the sums of pieces joined in
   their order, so that a row has the same bits, however many threads pass over its pieces. In double. Knows nothing of
   chunks and of what the sums mean.

   If threads share a row, its evaluation breaks off at the first pass whose sums are not known (PASS_WANTED). Threads pass
   over the pieces, and the row is evaluated again with the sums of that pass, up to the next one or to its end. */

/* The passes, as of logits_lanes; the search for the largest logit is not there. */
enum { MOMENTS_PASS, WEIGHTS_PASS, RATIO_PASS, COMPARE_PASS, MASKS_PASS, LARGEST_PASS, LOGITS_PASS };

/* A pass over a row: its rows, of which q alone is there if p has no data; the kind of sums, the measure or js_only; the
   reference of ratios; the limits of find_masks, or the reference of sum_logits. */
typedef struct {
    int pass, kind;
    const ratio_reference *reference;
    double limits[3];
    const logits_lanes *lanes;
    ptrdiff_t n;
    fastkl_parts c;
    logits_row p, q;
} wide_pass;

/* What a pass says, its sums, and what it adds to the rows' own. */
typedef struct {
    int status;
    logits_row p, q;
    union {
        moments moments;
        entropy_sums entropies;
        term_sums terms;
        ratio_sums ratios;
        struct {
            double value;
            ptrdiff_t at;
        } logit;
    } of;
} pass_sums;

/* The passes of a row that threads share, in the order in which its evaluation wants them: `found` are the sums of those
   that are known, and `pass` the next one, over copies of the operands. A row that wants more passes goes on alone, and so
   does one that is `closed`, because what it would repeat takes longer than passes. */
#define SHARED_PASSES 16
struct shared_passes {
    fastkl_shared head;
    int known, used, closed;
    wide_pass pass;
    ratio_reference reference;
    fastkl_operand p, q;
    pass_sums found[SHARED_PASSES];
};

static int is_wanted(const fastkl_task *task) { return task->shared && task->shared->wanted; }

static void close_shared(const fastkl_task *task) {
    if (task->shared)
        ((struct shared_passes *)task->shared)->closed = 1;
}

static void pass_over_piece(const wide_pass *over, ptrdiff_t index, pass_sums *sums) {
    const logits_lanes *const lanes = over->lanes;
    const ptrdiff_t start = index * FASTKL_PIECE, n = columns_of_piece(over->n, start, FASTKL_PIECE);
    const fastkl_operand p_piece = moved(over->p.operand, 0, start), q_piece = moved(over->q.operand, 0, start);
    logits_row p_row = over->p, q_row = over->q, *const p = p_piece.data ? &p_row : NULL, *const q = &q_row;
    p_row.operand = &p_piece, q_row.operand = &q_piece;
    sums->status = PASS_ACCEPTED;
    switch (over->pass) {
    case MOMENTS_PASS:
        sums->status = lanes->moments_pass(p, q, n, over->c, &sums->of.moments);
        break;
    case WEIGHTS_PASS:
        sums->status = lanes->weights_pass(p, q, n, over->c, over->kind, &sums->of.entropies);
        break;
    case RATIO_PASS:
        lanes->ratio_pass(p, q, n, over->c, over->kind, over->reference, &sums->of.terms);
        break;
    case COMPARE_PASS:
        lanes->compare_pass(p, q, n, over->c, over->kind, over->reference, &sums->of.ratios);
        break;
    case MASKS_PASS:
        sums->status = lanes->find_masks(p, q, n, over->limits[0], over->limits[1], over->limits[2]);
        break;
    case LARGEST_PASS:
        sums->of.logit.at = start + (lanes->is_float ? find_largest_f32 : find_largest_f64)(q, n, &sums->of.logit.value);
        break;
    case LOGITS_PASS:
        sums->of.logit.value = lanes->sum_logits(q, n, over->limits[0]);
    }
    sums->p = p_row, sums->q = q_row;
    sums->p.operand = sums->q.operand = NULL;
}

static void join_row(logits_row *to, const logits_row *next) {
    to->sum += next->sum, to->clipped += next->clipped;
    to->entry_bits |= next->entry_bits, to->overflows |= next->overflows;
}

/* Has a piece, of which a mask in q may be known, a finite q? */
static int has_finite_q(int pass, const pass_sums *sums) {
    if (sums->status)
        return sums->status == PASS_MASKED;
    return pass == WEIGHTS_PASS ? sums->of.entropies.q_weight > 0 : sums->of.moments.weight > 0 || sums->of.moments.psi > 0;
}

static int is_broken_off(const pass_sums *sums) { return (sums->status & (PASS_NOT_FINITE | PASS_OUT_OF_RANGE)) != 0; }

/* Joins the sums of the next piece to those of the pieces before it. The first piece that a pass broke off at counts alone,
   as if there were none behind it. */
static void join_piece(int pass, pass_sums *to, const pass_sums *next) {
    if (is_broken_off(to))
        return;
    join_row(&to->p, &next->p);
    join_row(&to->q, &next->q);
    if (pass == MASKS_PASS)
        to->status |= next->status;
    else if (is_broken_off(next))
        to->status = next->status;
    else if ((to->status | next->status) & PASS_MASKED)
        to->status = PASS_MASKED | (has_finite_q(pass, to) || has_finite_q(pass, next) ? 0 : PASS_INACCURATE);
    else if (pass == MOMENTS_PASS)
        merge_moments(&to->of.moments, &next->of.moments);
    else if (pass == WEIGHTS_PASS)
        merge_entropy_sums(&to->of.entropies, &next->of.entropies);
    else if (pass == LOGITS_PASS)
        to->of.logit.value += next->of.logit.value;
    else if (pass == LARGEST_PASS && next->of.logit.value > to->of.logit.value)
        to->of.logit = next->of.logit;
    for (int i = 0; pass == RATIO_PASS && i < 3; i++)
        to->of.terms.sum[i] += next->of.terms.sum[i];
    if (pass == RATIO_PASS)
        to->of.terms.min = lesser_f64(to->of.terms.min, next->of.terms.min);
    if (pass == COMPARE_PASS)
        add_ratio_sums(&to->of.ratios, &next->of.ratios);
}

/* A row as a pass over pieces takes it. Chunks that are too far below the row's first have no weight: a piece does not know
   the chunks before it. */
static logits_row row_of_pieces(const wide_pass *over, const logits_row *row) {
    logits_row result = *row;
    double max;
    (over->lanes->is_float ? find_largest_f32 : find_largest_f64)(&result, CHUNK_LOGITS, &max);
    result = *row;
    result.sum = result.clipped = 0, result.entry_bits = 0, result.overflows = 0;
    if (isfinite(max))
        result.least = max * over->c.high - 2 * MAX_LOG_WEIGHT;
    return result;
}

/* The sums of a pass over a row of more than a piece. p may be NULL. */
FASTKL_NOINLINE void pass_over_pieces(const fastkl_task *task, wide_pass *over, logits_row *p, logits_row *q,
                                      pass_sums *found) {
    static const fastkl_operand none;
    struct shared_passes *const shared = (struct shared_passes *)task->shared;
    *found = (pass_sums){.status = PASS_WANTED};
    if (is_wanted(task))
        return;
    over->q = row_of_pieces(over, q), over->p.operand = &none;
    if (p)
        over->p = row_of_pieces(over, p);
    if (shared && shared->used < shared->known) {
        *found = shared->found[shared->used++];
    } else if (shared && !shared->closed && shared->known < SHARED_PASSES) {
        shared->pass = *over, shared->p = *over->p.operand, shared->q = *over->q.operand;
        shared->pass.p.operand = &shared->p, shared->pass.q.operand = &shared->q;
        if (over->reference)
            shared->reference = *over->reference, shared->pass.reference = &shared->reference;
        shared->head.wanted = 1;
        return;
    } else {
        pass_over_piece(over, 0, found);
        for (ptrdiff_t i = 1; i * FASTKL_PIECE < over->n && !is_broken_off(found); i++) {
            pass_sums next;
            pass_over_piece(over, i, &next);
            join_piece(over->pass, found, &next);
        }
    }
    join_row(q, &found->q);
    if (p)
        join_row(p, &found->p);
}

/* The sums of a piece of the pass that a shared row wants. */
static void pass_over_shared(const fastkl_shared *row, ptrdiff_t index, void *sums) {
    pass_over_piece(&((const struct shared_passes *)row)->pass, index, sums);
}

/* Joins the sums of the next pieces of the pass that a shared row wants. With the last of them, it can be evaluated. */
static void join_shared(fastkl_shared *row, const void *sums, ptrdiff_t pieces, int begins, int ends) {
    struct shared_passes *const shared = (struct shared_passes *)row;
    const pass_sums *const of = sums;
    pass_sums *const to = &shared->found[shared->known];
    if (begins)
        *to = of[0];
    for (ptrdiff_t i = begins; i < pieces; i++)
        join_piece(shared->pass.pass, to, &of[i]);
    if (ends)
        shared->known++, shared->used = 0, row->wanted = 0;
}

/* ---- the passes of a pair, which are over pieces where there are several ---- */

static int run_moments(logits_pair *pair, moments *sums) {
    if (pair->n <= FASTKL_PIECE)
        return pair->lanes->moments_pass(&pair->p_row, &pair->q_row, pair->n, pair->c, sums);
    wide_pass over = {.pass = MOMENTS_PASS, .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, &pair->p_row, &pair->q_row, &found);
    *sums = found.of.moments;
    return found.status;
}

static int run_weights(const logits_pair *pair, logits_row *p, logits_row *q, int kind, entropy_sums *sums) {
    if (pair->n <= FASTKL_PIECE)
        return pair->lanes->weights_pass(p, q, pair->n, pair->c, kind, sums);
    wide_pass over = {.pass = WEIGHTS_PASS, .kind = kind, .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, p, q, &found);
    *sums = found.of.entropies;
    return found.status;
}

static int run_ratios(const logits_pair *pair, logits_row *p, logits_row *q, const ratio_reference *from, term_sums *sums) {
    if (pair->n <= FASTKL_PIECE) {
        pair->lanes->ratio_pass(p, q, pair->n, pair->c, fastkl_terms_of(pair->task), from, sums);
        return PASS_ACCEPTED;
    }
    wide_pass over = {.pass = RATIO_PASS, .kind = fastkl_terms_of(pair->task), .reference = from,
                      .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, p, q, &found);
    *sums = found.of.terms;
    return found.status;
}

static int run_compare(const logits_pair *pair, logits_row *p, logits_row *q, int js_only, const ratio_reference *from,
                       ratio_sums *sums) {
    if (pair->n <= FASTKL_PIECE) {
        pair->lanes->compare_pass(p, q, pair->n, pair->c, js_only, from, sums);
        return PASS_ACCEPTED;
    }
    wide_pass over = {.pass = COMPARE_PASS, .kind = js_only, .reference = from,
                      .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, p, q, &found);
    *sums = found.of.ratios;
    return found.status;
}

static int run_masks(const logits_pair *pair, double far, double low, double negligible) {
    logits_row p = pair->p_row, q = pair->q_row;
    if (pair->n <= FASTKL_PIECE)
        return pair->lanes->find_masks(&p, &q, pair->n, far, low, negligible);
    wide_pass over = {.pass = MASKS_PASS, .limits = {far, low, negligible},
                      .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, &p, &q, &found);
    return found.status;
}

static double run_sum(logits_pair *pair, double reference) {
    if (pair->n <= FASTKL_PIECE)
        return pair->lanes->sum_logits(&pair->q_row, pair->n, reference);
    wide_pass over = {.pass = LOGITS_PASS, .limits = {reference}, .lanes = pair->lanes, .n = pair->n, .c = pair->c};
    pass_sums found;
    pass_over_pieces(pair->task, &over, NULL, &pair->q_row, &found);
    return found.of.logit.value;
}

/* The index of the first of a row's largest logits, and that. */
static ptrdiff_t run_largest(const fastkl_task *task, const logits_lanes *lanes, logits_row *row, ptrdiff_t n,
                             double *max) {
    if (n <= FASTKL_PIECE)
        return (lanes->is_float ? find_largest_f32 : find_largest_f64)(row, n, max);
    wide_pass over = {.pass = LARGEST_PASS, .lanes = lanes, .n = n, .c = {1, 0}};
    pass_sums found;
    pass_over_pieces(task, &over, NULL, row, &found);
    *max = found.of.logit.value;
    return found.of.logit.at;
}
