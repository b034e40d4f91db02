/* Owns searches of whole rows of logits, and their plain sum. In REAL. Knows nothing of weights. */

/* Is there an entry that is masked in q and not in p (PASS_MASKED), or one whose q is below `far` while p underflows, being
   at most `low`, and is above `negligible`, so that their product may count (PASS_UNDERFLOW)? */
FASTKL_NOINLINE int NAME(find_masks)(logits_row *p, logits_row *q, ptrdiff_t n, double far, double low, double negligible) {
    const REAL infinity = INFINITY, q_limit = (REAL)far, p_limit = (REAL)low, p_least = (REAL)negligible;
    NAME(room) room;
    UINT found[LANES] = {0}, all = 0;
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        const NAME(logits_chunk) chunk = NAME(load_pair)(p, q, &room, start, n, CHUNK_LOGITS);
        for (ptrdiff_t i = 0; i < 4 * NAME(group_count)(chunk.p); i++) {
            const NAME(loose) *const x = NAME(group)(chunk.p, i / 4) + i % 4 * LANES;
            const NAME(loose) *const y = NAME(group)(chunk.q, i / 4) + i % 4 * LANES;
            FASTKL_VECTORIZE
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
                const UINT unmasked = x[j] > -infinity ? PASS_MASKED : 0, counts = x[j] > p_least ? PASS_UNDERFLOW : 0;
                found[j] |= y[j] == -infinity ? unmasked : 0;
                found[j] |= y[j] < q_limit ? x[j] <= p_limit ? counts : 0 : 0;
            }
        }
    }
    for (int j = 0; j < LANES; j++)
        all |= found[j];
    return (int)all;
}

/* The index of the first logit that is largest, and that. */
FASTKL_NOINLINE ptrdiff_t NAME(find_largest)(logits_row *row, ptrdiff_t n, double *value) {
    REAL chunk[CHUNK_LOGITS + GROUP];
    ptrdiff_t at = 0;
    *value = -INFINITY;
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        const NAME(logits) x = NAME(load_logits)(row, chunk, start, n, CHUNK_LOGITS);
        REAL max, min;
        NAME(find_extremes)(x, &max, &min);
        if ((double)max > *value) {
            ptrdiff_t i = 0;
            while (i < x.groups && NAME(max_of_group)(x, i) != max)
                i++;
            const NAME(loose) *const group = NAME(group)(x, i);
            for (at = 0; at < GROUP - 1 && group[at] != max;)
                at++;
            at += start + i * GROUP - (i == x.groups ? GROUP - x.left : 0);
            *value = (double)max;
        }
    }
    return at;
}

/* The sum of a row's logits, each less the reference. */
FASTKL_NOINLINE double NAME(sum_logits)(logits_row *row, ptrdiff_t n, double reference) {
    const double top = (double)(REAL)reference;
    REAL chunk[CHUNK_LOGITS + GROUP];
    double total = 0;
    for (ptrdiff_t start = 0; start < n; start += CHUNK_LOGITS) {
        const NAME(logits) x = NAME(load_logits)(row, chunk, start, n, CHUNK_LOGITS);
        double sum[LANES] = {0};
        for (ptrdiff_t i = 0; i < x.groups * 4; i++) {
            FASTKL_VECTORIZE
            for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
                sum[j] += (double)x.data[i * LANES + j] - top;
        }
        for (int j = 0; j < x.left; j++)
            sum[0] += (double)x.tail[GROUP - x.left + j] - top;
        for (int j = 1; j < LANES; j++)
            sum[0] += sum[j];
        total += sum[0];
    }
    return total;
}
