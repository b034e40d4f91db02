/* Looks at rows of logits: sums of softmax(p), of softmax(q) and of what compares them, chunk after chunk. In REAL.

   A chunk is looked at more than once while it is in the first cache: for its largest
   logit, from which weights count; for the weights, and the mean of log(q/p) under
   them; for what the measure adds up. Sums of chunks are joined in softmax.inc.h.

   An operand's logits are multiplied by 1/temperature on the way. A logit far below the
   largest is LOST: it counts as one of weight 2^-LOST, so that no weight is zero and
   every quotient of weights is finite; `least` tells the caller if that could matter. */

/* For softmax.inc.h, which knows no REAL. */
enum { NAME(lost_from) = LOST, NAME(apart_from) = APART };

/* Entries of a row that are looked at together: they, their weights,
   and what is asked for meanwhile, stay in the first cache. */
#define LOGITS 1024

/* Entries that are visited together, to give every lane four. */
#define GROUP (4 * LANES)

/* Logits in groups, side by side from `data` on; those `left` over stand at `last`, filled up with -inf. While the i-th
   group is visited, memory is asked for i steps from `ahead` on, if that is near enough. */
typedef struct {
    const NAME(loose) *data;
    REAL *last;
    ptrdiff_t groups;
    int left;
    const char *ahead;
    ptrdiff_t ahead_step;
} NAME(logits);

FASTKL_INLINE ptrdiff_t NAME(groups)(NAME(logits) x) { return x.groups + (x.left > 0); }

FASTKL_INLINE const NAME(loose) *NAME(group)(NAME(logits) x, ptrdiff_t i) {
    return i < x.groups ? x.data + i * GROUP : (const NAME(loose) *)x.last;
}

/* Asks for the memory that will be wanted after a chunk has been visited. */
FASTKL_INLINE void NAME(ask_after)(NAME(logits) x, ptrdiff_t i) {
    if (x.ahead_step > 0 && x.ahead_step <= 4 * COLUMN_BYTES)
        for (ptrdiff_t k = 0; k < x.ahead_step; k += FASTKL_LINE)
            FASTKL_PREFETCH(x.ahead + i * x.ahead_step + k);
}

/* What a visitor of entries is told: the least logit of p that is not lost, and the least
   q - p where it is; what logits are multiplied by and the pattern that their exponentials
   are; the log(q/p) to be subtracted; what terms count from; of q, what is said of p. */
typedef struct {
    REAL low, floor;
    NAME(scaling) c;
    UINT unit;
    REAL shift, shift_low, p_top, q_top;
    UINT q_unit;
    REAL q_low;
} NAME(visit);

/* What it answers: terms of up to three sums, and numbers of which the least and the most are wanted. */
typedef struct {
    REAL first, second, third, least, most;
} NAME(answer);

/* It is told an entry's logits; p's weight and the logits' difference, as the first visitor left them. */
typedef NAME(answer) NAME(visitor)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at);

FASTKL_INLINE REAL NAME(greater)(REAL a, REAL b) { return a > b ? a : b; }

FASTKL_INLINE NAME(answer) NAME(together)(NAME(answer) a, NAME(answer) b) {
    return (NAME(answer)){a.first + b.first, a.second + b.second, a.third + b.third, NAME(lesser)(a.least, b.least),
                          NAME(greater)(a.most, b.most)};
}

/* How many sums a visitor gives, whether extremes, and whether it writes weights (1) or differences, too (2); of how many
   operands memory is to be asked for. All constants. */
typedef struct {
    int sums, extremes, writes, operands;
} NAME(interest);

/* What visits add up to, lane by lane. A lane has no more than LOGITS
   / LANES entries, four of which are added first: plain sums do. */
typedef struct {
    REAL first[LANES], second[LANES], third[LANES], least[LANES], most[LANES];
} NAME(tally);

FASTKL_INLINE void NAME(count_in)(NAME(tally) *tally, NAME(interest) in, int j, NAME(answer) x) {
    tally->first[j] += x.first;
    if (in.sums > 1)
        tally->second[j] += x.second;
    if (in.sums > 2)
        tally->third[j] += x.third;
    if (in.extremes) {
        tally->least[j] = NAME(lesser)(tally->least[j], x.least);
        tally->most[j] = NAME(greater)(tally->most[j], x.most);
    }
}

FASTKL_INLINE double NAME(sum_of)(const REAL *lanes) {
    double sum[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++)
        sum[j] = (double)lanes[j];
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            sum[j] += sum[j + half];
    return sum[0];
}

FASTKL_INLINE double NAME(least_of)(REAL *lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] = NAME(lesser)(lanes[j], lanes[j + half]);
    return (double)lanes[0];
}

FASTKL_INLINE double NAME(most_of)(REAL *lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] = NAME(greater)(lanes[j], lanes[j + half]);
    return (double)lanes[0];
}

/* Visits all entries; on a first visit, memory is asked for. */
FASTKL_INLINE seen_of_chunk NAME(visit_all)(NAME(visitor) *visitor, NAME(interest) in, NAME(logits) p, NAME(logits) q,
                                            REAL *w, REAL *d, const NAME(visit) *at) {
    NAME(tally) tally;
    seen_of_chunk seen = {{0}, INFINITY, -INFINITY};
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++) {
        tally.first[j] = tally.second[j] = tally.third[j] = 0;
        tally.least[j] = INFINITY, tally.most[j] = -(REAL)INFINITY;
    }
    for (ptrdiff_t i = 0; i < NAME(groups)(p); i++, w += GROUP, d += GROUP) {
        const NAME(loose) *const a = NAME(group)(p, i), *const b = NAME(group)(q, i);
        if (in.operands > 0)
            NAME(ask_after)(p, i);
        if (in.operands > 1)
            NAME(ask_after)(q, i);
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            REAL w0 = w[j], w1 = w[LANES + j], w2 = w[2 * LANES + j], w3 = w[3 * LANES + j];
            REAL d0 = d[j], d1 = d[LANES + j], d2 = d[2 * LANES + j], d3 = d[3 * LANES + j];
            const NAME(answer) x0 = visitor(a[j], b[j], &w0, &d0, at),
                               x1 = visitor(a[LANES + j], b[LANES + j], &w1, &d1, at);
            const NAME(answer) x2 = visitor(a[2 * LANES + j], b[2 * LANES + j], &w2, &d2, at);
            const NAME(answer) x3 = visitor(a[3 * LANES + j], b[3 * LANES + j], &w3, &d3, at);
            if (in.writes)
                w[j] = w0, w[LANES + j] = w1, w[2 * LANES + j] = w2, w[3 * LANES + j] = w3;
            if (in.writes > 1)
                d[j] = d0, d[LANES + j] = d1, d[2 * LANES + j] = d2, d[3 * LANES + j] = d3;
            NAME(count_in)(&tally, in, j, NAME(together)(NAME(together)(x0, x1), NAME(together)(x2, x3)));
        }
    }
    seen.sum[0] = NAME(sum_of)(tally.first);
    if (in.sums > 1)
        seen.sum[1] = NAME(sum_of)(tally.second);
    if (in.sums > 2)
        seen.sum[2] = NAME(sum_of)(tally.third);
    if (in.extremes) {
        seen.least = NAME(least_of)(tally.least);
        seen.most = NAME(most_of)(tally.most);
    }
    return seen;
}

/* The logarithms of the chunk's probabilities by the row's factor, -inf of zero. */
FASTKL_NOINLINE void NAME(take_logarithms)(source *row, REAL *chunk, int count) {
    const REAL factor = (REAL)row->factor, log_small = LOG_SMALL + (REAL)log(row->factor);
    UINT bits = 0;
    double sum = 0;
    if (row->eps > 0)
        NAME(raise)(chunk, count, (REAL)row->eps, &row->raised, &row->bits);
    for (int i = 0; i < count; i++) {
        const REAL entry = chunk[i], scaled = entry * factor,
                   log = NAME(log)(scaled < SMALL ? entry * (1 / SMALL) : scaled);
        sum += (double)entry;
        bits |= NAME(bits)(entry);
        chunk[i] = entry > 0 ? scaled < SMALL ? log + log_small : log : -(REAL)INFINITY;
    }
    row->sum += sum;
    row->bits |= (uint64_t)bits << (64 - REAL_BITS);
}

/* The next `count` logits in groups. */
FASTKL_INLINE NAME(logits) NAME(fetch)(source *row, REAL *chunk, ptrdiff_t start, ptrdiff_t count) {
    const fastkl_operand *const from = row->from;
    const char *const data = from->data + start * from->col;
    const ptrdiff_t rest = count % GROUP, whole = count - rest;
    const int in_place = row->plain && from->logits && from->dtype == REAL_DTYPE && in_a_row(from);
    REAL *const last = in_place ? chunk : chunk + whole;
    if (in_place) {
        if (rest)
            NAME(stage)(chunk, from, data + whole * from->col, (int)rest, (int)rest);
    } else {
        NAME(stage)(chunk, from, data, (int)count, (int)count);
        if (!from->logits) {
            NAME(take_logarithms)(row, chunk, (int)count);
        } else if (!row->plain) {
            const REAL factor = (REAL)row->factor, centre = (REAL)row->centre, least = (REAL)row->least,
                       masked = -(REAL)INFINITY;
            UINT overflows = 0;
            for (int i = 0; i < count; i++) {
                const REAL logit = NAME(greater)(least, (chunk[i] - centre) * factor);
                overflows |= logit == masked ? chunk[i] > masked : 0;
                chunk[i] = logit;
            }
            row->overflows |= overflows > 0;
        }
    }
    for (ptrdiff_t i = rest; rest && i < GROUP; i++)
        last[i] = -(REAL)INFINITY;
    return (NAME(logits)){(const NAME(loose) *)(in_place ? data : (const char *)chunk), last, whole / GROUP, (int)rest,
                          data + count * from->col, GROUP * from->col};
}

/* A chunk's largest logit, and the least. A NaN may be passed over: it is in all sums. */
FASTKL_INLINE void NAME(extremes)(NAME(logits) x, REAL *largest, REAL *smallest) {
    REAL most[LANES], least[LANES];
    for (int j = 0; j < LANES; j++)
        most[j] = -(REAL)INFINITY, least[j] = INFINITY;
    for (ptrdiff_t i = 0; i < x.groups; i++) {
        const NAME(loose) *const now = x.data + i * GROUP;
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            const REAL x0 = now[j], x1 = now[LANES + j], x2 = now[2 * LANES + j], x3 = now[3 * LANES + j];
            most[j] = NAME(greater)(most[j], NAME(greater)(NAME(greater)(x0, x1), NAME(greater)(x2, x3)));
            least[j] = NAME(lesser)(least[j], NAME(lesser)(NAME(lesser)(x0, x1), NAME(lesser)(x2, x3)));
        }
    }
    for (int i = 0; i < x.left; i += LANES) {
        const int real = x.left - i;
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++) {
            const REAL now = x.last[i + j];
            most[j] = NAME(greater)(most[j], now);
            least[j] = NAME(lesser)(least[j], j < real ? now : (REAL)INFINITY);
        }
    }
    *largest = (REAL)NAME(most_of)(most);
    *smallest = (REAL)NAME(least_of)(least);
}

/* The largest logit of the first group. */
FASTKL_INLINE REAL NAME(largest_at_first)(NAME(logits) x) {
    const NAME(loose) *const first = NAME(group)(x, 0);
    REAL most[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < LANES; j++)
        most[j] = NAME(greater)(NAME(greater)(first[j], first[LANES + j]),
                                NAME(greater)(first[2 * LANES + j], first[3 * LANES + j]));
    return (REAL)NAME(most_of)(most);
}

/* Less than x, by a unit in the last place or two. */
FASTKL_INLINE REAL NAME(less_than)(REAL x) { return x - (x < 0 ? -x : x) * (REAL)(REAL_BITS == 64 ? 0x1p-52 : 0x1p-23); }

/* Fills up the last group anew: with what an extreme does not mind. */
FASTKL_INLINE void NAME(fill_up)(NAME(logits) x, REAL filler) {
    for (int i = x.left; x.left && i < GROUP; i++)
        x.last[i] = filler;
}

/* For weights that count from 2^exponent: the pattern of 1 by it, and the least logit that is not lost. */
FASTKL_INLINE void NAME(count_from)(int exponent, NAME(scaling) c, UINT *unit, REAL *low) {
    *unit = ONE_BITS - ((UINT)exponent << MANTISSA_BITS);
    *low = (REAL)((exponent - LOST) * LN2_OF_DOUBLE / (double)c.high);
}

/* The same, with the exponent that is near e^(x c) for a chunk's largest logit x. */
FASTKL_INLINE int NAME(unit)(REAL x, NAME(scaling) c, UINT *unit, REAL *low) {
    const int exponent = (int)floor((double)x * (double)c.high * (double)LOG2E + 0.5);
    NAME(count_from)(exponent, c, unit, low);
    return exponent;
}

/* p's weight, and q - p, both written; sums of it, and of it times that. The least logit of q, and the largest of p. */
FASTKL_INLINE NAME(answer) NAME(weigh)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    const REAL within = NAME(greater)(at->low, a), difference = b - within;
    *w = NAME(exp)(within, at->c, at->unit);
    *d = a > at->low ? difference : NAME(greater)(at->floor, difference);
    return (NAME(answer)){*w, *w * *d, 0, b, a};
}

/* p's weight alone, written; the least logit of p. */
FASTKL_INLINE NAME(answer) NAME(weigh_again)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    (void)b, (void)d;
    *w = NAME(exp)(NAME(greater)(at->low, a), at->c, at->unit);
    return (NAME(answer)){0, 0, 0, a, a};
}

/* x = log(q/p) - shift. */
FASTKL_INLINE REAL NAME(log_quotient)(REAL d, const NAME(visit) *at) {
    return (at->c.tempered ? d * at->c.high : d) - at->shift;
}

/* The same and, in `rest`, what rounding took from it: for where p and q nearly agree in all that matters; or differ so
   much that the error of e^x, which is x times that of x, would be seen. */
FASTKL_INLINE REAL NAME(exact_log_quotient)(REAL a, REAL b, const NAME(visit) *at, REAL *rest) {
    const REAL p = NAME(greater)(at->low, a), naive = b - p;
    const REAL difference = a > at->low ? naive : NAME(greater)(at->floor, naive);
    const REAL product = at->c.tempered ? difference * at->c.high : difference, x = product - at->shift;
    /* Knuth's two-sum of both differences */
    const REAL p_part = b - difference, low = difference == naive ? (b - (difference + p_part)) + (p_part - p) : 0;
    const REAL shift_part = product - x, x_low = (product - (x + shift_part)) + (shift_part - at->shift);
    const REAL of_product =
        at->c.tempered ? FMA(difference, at->c.high, -product) + (difference * at->c.low + low * at->c.high) : low;
    const REAL low_sum = x_low + (of_product - at->shift_low), sum = x + low_sum;
    *rest = x > -4 * APART ? low_sum - (sum - x) : 0;
    return x > -4 * APART ? sum : x; /* -inf has no parts */
}

/* psi(x + rest), e^(x + rest) and e^(x + rest) - 1, for x within APART of 0. */
FASTKL_INLINE REAL NAME(excess)(REAL x, REAL rest, REAL *exp, REAL *less_one) {
    const REAL of_x = NAME(psi)(x, exp), less = x * x < 1 ? x + of_x : *exp - 1;
    *less_one = NAME(mul_add)(*exp, rest, less);
    *exp = NAME(mul_add)(*exp, rest, *exp);
    return NAME(mul_add)(less, rest, of_x);
}

/* For D: p's weight times psi(x), and for what `weigh` does not say well enough, times x; the least x, and the largest. */
FASTKL_INLINE NAME(answer) NAME(diverge)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    const REAL x = NAME(log_quotient)(*d, at);
    (void)a, (void)b;
    return (NAME(answer)){*w * NAME(psi_within)(x), 0, 0, x, x};
}
FASTKL_INLINE NAME(answer) NAME(diverge_exactly)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    REAL exp, less_one, rest;
    const REAL x = NAME(exact_log_quotient)(a, b, at, &rest), excess = NAME(excess)(x, rest, &exp, &less_one);
    (void)d;
    return (NAME(answer)){*w * excess, *w * (x + rest), 0, x, x};
}

/* For JS: p + q times g(u) = (1 + u) log(1 + u) + (1 - u) log(1 - u), with u = (q - p) / (q + p) = tanh(x/2) for x =
   log(q/p), all by p. As log((1 + u) / (1 - u)) is x, g(u) = u x + log(1 - u^2), of which the first is twice the second
   near 0. Further off, with the larger and the smaller of p and q by p + q, g(u) = 2 log(2 larger) - 2 smaller |x|. */
FASTKL_INLINE REAL NAME(balance)(REAL x, REAL less_one, REAL exp) {
    const REAL p = 1 / (1 + exp), q = exp * p, u = less_one * p, larger = NAME(greater)(p, q), smaller = NAME(lesser)(p, q);
    const int close = x * x < 1;
    const REAL argument = 4 * larger * (close ? smaller : larger);
    const UINT step = NAME(exponent_step)(NAME(bits)(argument), ONE_BITS);
    const REAL f = step ? NAME(from_bits)(NAME(bits)(argument) - step) - 1 : -u * u; /* step is 0 only if close */
    const REAL s = f / (f + 2), z = s * s, log = f - s * (f - z * NAME(T)(z));
    const REAL linear = close ? u * x : -2 * smaller * (x < 0 ? -x : x);
    return (1 + exp) * (linear + NAME(mul_add)(NAME(exponent)(step), LN2_HIGH * K_UNIT, log));
}

/* For JS, times p's weight: that, and e^x - 1. For all at once, instead of the second, (x - 1) e^x + 1 = x (e^x - 1) -
   psi(x) of the reverse divergence; and p's logit, from p_top. */
FASTKL_INLINE NAME(answer) NAME(weigh_both)(REAL a, REAL b, REAL w, const NAME(visit) *at, int all) {
    REAL exp, less_one, rest;
    const REAL quotient = NAME(exact_log_quotient)(a, b, at, &rest);
    const REAL high = quotient < APART ? quotient : APART, x = high > -APART ? high : -APART;
    const REAL excess = NAME(excess)(x, rest, &exp, &less_one), balance = w * NAME(balance)(x, less_one, exp);
    NAME(answer) answer = {balance, w * less_one, 0, quotient, quotient};
    if (all) {
        answer.second = w * (x * x < 1 ? x * less_one - excess : (x - 1) * exp + 1);
        answer.third = w * (a > at->low ? a - at->p_top : 0);
    }
    return answer;
}
FASTKL_INLINE NAME(answer) NAME(weigh_js)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    (void)d;
    return NAME(weigh_both)(a, b, *w, at, 0);
}
FASTKL_INLINE NAME(answer) NAME(weigh_all)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    (void)d;
    return NAME(weigh_both)(a, b, *w, at, 1);
}

/* For entropies: p's weight times its logit, from p_top; p's weight;
   for the cross-entropy, q's logit, from q_top, and q's weight. */
FASTKL_INLINE NAME(answer) NAME(weigh_own)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    const REAL weight = NAME(exp)(NAME(greater)(at->low, a), at->c, at->unit);
    (void)b, (void)w, (void)d;
    return (NAME(answer)){weight * (a > at->low ? a - at->p_top : 0), weight, 0, 0, 0};
}
FASTKL_INLINE NAME(answer) NAME(weigh_cross)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    const REAL weight = NAME(exp)(NAME(greater)(at->low, a), at->c, at->unit);
    (void)w, (void)d;
    return (NAME(answer)){weight * (a > at->low ? b - at->q_top : 0), weight,
                          NAME(exp)(NAME(greater)(at->q_low, b), at->c, at->q_unit), 0, 0};
}
FASTKL_INLINE NAME(answer) NAME(weigh_alone)(REAL a, REAL b, REAL *w, REAL *d, const NAME(visit) *at) {
    (void)b, (void)w, (void)d;
    return (NAME(answer)){NAME(exp)(NAME(greater)(at->low, a), at->c, at->unit), 0, 0, a, a};
}

/* Where nothing is added up, no sum shows a NaN that extremes passed over. */
FASTKL_NOINLINE int NAME(has_nan)(NAME(logits) x) {
    int found = 0;
    for (ptrdiff_t i = 0; i < NAME(groups)(x); i++)
        for (int j = 0; j < GROUP; j++)
            found |= isnan(NAME(group)(x, i)[j]);
    return found;
}

/* Is a chunk's largest logit, times c, where its exponential can be had? Else the row wants its centre subtracted. */
FASTKL_INLINE int NAME(near)(REAL most, NAME(scaling) c) { return fabs((double)most * (double)c.high) <= FARTHEST; }

/* Is q's so large that q - p can be wrong by more than 32, or 2 in float? A lost weight, times the exponential of that,
   would be seen. Not if all of q is masked. */
FASTKL_INLINE int NAME(coarse)(REAL q_most, NAME(scaling) c) {
    return q_most > -(REAL)INFINITY && fabs((double)q_most * (double)c.high) > (REAL_BITS == 64 ? 0x1p58 : 0x1p25);
}

/* A chunk without weight: its logits are all -inf, or too far
   below the row's largest, or that of chunks before, to count. */
FASTKL_INLINE int NAME(weightless)(REAL most, NAME(scaling) c, const source *row, double before, int exponent) {
    const double logarithm = (double)most * (double)c.high;
    return most == -(REAL)INFINITY || (row->centred && logarithm < -FARTHEST) ||
           (before > 0 && logarithm < exponent * LN2_OF_DOUBLE - 2 * FARTHEST);
}

/* What a row's chunks say of D. */
FASTKL_INLINE int NAME(quotients_of_chunk)(NAME(logits) a, NAME(logits) b, const source *p, const source *q,
                                           NAME(scaling) c, int guess, const moments *before, moments *chunk, REAL *w,
                                           REAL *d) {
    NAME(visit) at = {.c = c};
    REAL most, least, q_most, q_least;
    seen_of_chunk seen;
    *chunk = (moments){.most = -INFINITY, .least_q = INFINITY};
    if (guess) { /* from which weights count as well, if it is not far from the largest */
        most = NAME(largest_at_first)(a), q_most = NAME(largest_at_first)(b);
        if (!NAME(near)(most, c) || !NAME(near)((q_most - most) / 2, c))
            return GUESSED;
    } else {
        NAME(extremes)(a, &most, &least);
        NAME(extremes)(b, &q_most, &q_least);
        if (!(most < INFINITY && q_most < INFINITY))
            return BROKEN;
    }
    if (!guess && NAME(weightless)(most, c, p, before->weight, before->exponent)) {
        chunk->least_q = -INFINITY;
        if (NAME(has_nan)(a) || NAME(has_nan)(b))
            return BROKEN;
        if (NAME(weightless)(q_most, c, q, 0, 0))
            return SETTLED;
        if (!NAME(near)(q_most, c))
            return FAR;
        chunk->exponent = NAME(unit)(q_most, c, &at.unit, &at.low);
        chunk->excess = NAME(visit_all)(NAME(weigh_alone), (NAME(interest)){1, 0, 0, 1}, b, b, w, d, &at).sum[0];
        return SETTLED;
    }
    if (!NAME(near)(most, c) || NAME(coarse)(q_most, c))
        return FAR;
    chunk->exponent = NAME(unit)(most, c, &at.unit, &at.low);
    at.floor = q_most - most;
    NAME(fill_up)(a, at.low);
    NAME(fill_up)(b, NAME(less_than)(at.low + at.floor));
    seen = NAME(visit_all)(NAME(weigh), (NAME(interest)){2, 1, 2, 2}, a, b, w, d, &at);
    if (guess && !((seen.most - (double)most) * (double)c.high <= MISGUESSED))
        return GUESSED;
    chunk->weight = seen.sum[0];
    chunk->least_q = seen.least;
    at.shift = (REAL)(seen.sum[1] / seen.sum[0] * (double)c.high);
    if (!isfinite(at.shift))
        return BROKEN;
    chunk->first = seen.sum[1] * (double)c.high - (double)at.shift * chunk->weight;
    seen = NAME(visit_all)(NAME(diverge), (NAME(interest)){1, 1, 0, 0}, a, b, w, d, &at);
    if (!(seen.most <= WRONG_FROM && seen.least >= -APART &&
          holds_digits((double)at.shift, log1p(seen.sum[0] / chunk->weight))))
        for (int i = 0; i < 2; i++) { /* the second time, about what was the mean */
            seen = NAME(visit_all)(NAME(diverge_exactly), (NAME(interest)){2, 1, 0, 0}, a, b, w, d, &at);
            chunk->first = seen.sum[1];
            double sum = (double)at.shift, low = (double)at.shift_low;
            if (i == 1 || !isfinite(seen.sum[1]) || fabs(seen.sum[1]) <= seen.sum[0] / 8)
                break;
            two_sum(&sum, &low, seen.sum[1] / chunk->weight);
            at.shift = (REAL)(sum + low);
            at.shift_low = (REAL)((sum - (double)at.shift) + low);
        }
    chunk->shift = (double)at.shift, chunk->shift_low = (double)at.shift_low;
    chunk->excess = seen.sum[0], chunk->most = seen.most;
    if (guess && isfinite(chunk->weight)) {
        int above;
        const double power = chunk->weight / frexp(chunk->weight, &above);
        chunk->exponent += above;
        chunk->weight /= power, chunk->first /= power, chunk->excess /= power;
    }
    return SETTLED;
}

FASTKL_INLINE int NAME(quotients)(source *p, source *q, ptrdiff_t n, NAME(scaling) c, moments *row) {
    REAL p_chunk[LOGITS + GROUP], q_chunk[LOGITS + GROUP], w[LOGITS + GROUP], d[LOGITS + GROUP];
    *row = (moments){.most = -INFINITY, .least_q = INFINITY};
    for (ptrdiff_t start = 0, count; fastkl_goes_on(p->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        const NAME(logits) a = NAME(fetch)(p, p_chunk, start, count), b = NAME(fetch)(q, q_chunk, start, count);
        moments chunk;
        int seen = GUESSED;
        for (int guess = 1; guess >= 0 && seen == GUESSED; guess--)
            seen = NAME(quotients_of_chunk)(a, b, p, q, c, guess, row, &chunk, w, d);
        if (seen)
            return seen;
        join(row, &chunk);
    }
    return SETTLED;
}

/* What a row's chunks say of the measures that want both rows' sums first:
   `shift` is log(q/p) of their sums, and weights count from 2^exponent. */
FASTKL_INLINE void NAME(both_ways)(source *p, source *q, ptrdiff_t n, NAME(scaling) c, int all, int exponent, double shift,
                                   double shift_low, double p_top, seen_of_chunk *row) {
    REAL p_chunk[LOGITS + GROUP], q_chunk[LOGITS + GROUP], w[LOGITS + GROUP];
    NAME(visit) at = {.c = c};
    NAME(count_from)(exponent, c, &at.unit, &at.low);
    at.shift = (REAL)shift, at.shift_low = (REAL)((shift - (double)at.shift) + shift_low);
    at.floor = at.shift / c.high;
    at.p_top = (REAL)p_top;
    *row = (seen_of_chunk){{0}, INFINITY, -INFINITY};
    for (ptrdiff_t start = 0, count; fastkl_goes_on(p->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        const NAME(logits) a = NAME(fetch)(p, p_chunk, start, count), b = NAME(fetch)(q, q_chunk, start, count);
        const NAME(interest) weights = {1, 1, 1, 2}, in = {all ? 3 : 2, 0, 0, 0};
        NAME(fill_up)(a, at.low);
        NAME(fill_up)(b, NAME(less_than)(at.low + at.floor));
        seen_of_chunk seen = NAME(visit_all)(NAME(weigh_again), weights, a, b, w, w, &at);
        row->least = seen.least < row->least ? seen.least : row->least;
        if (all)
            seen = NAME(visit_all)(NAME(weigh_all), in, a, b, w, w, &at);
        else
            seen = NAME(visit_all)(NAME(weigh_js), in, a, b, w, w, &at);
        for (int i = 0; i < 3; i++)
            row->sum[i] += seen.sum[i];
    }
}

/* The sum of the chunk's logits, from `top`. */
FASTKL_INLINE double NAME(plain_sum)(NAME(logits) x, REAL top) {
    double sum[LANES] = {0};
    for (ptrdiff_t i = 0; i < x.groups * 4; i++) {
        FASTKL_VECTORIZE
        for (int j = 0; j < LANES; j++)
            sum[j] += (double)x.data[i * LANES + j] - (double)top;
    }
    for (int j = 0; j < x.left; j++)
        sum[0] += (double)x.last[j] - (double)top;
    for (int j = 1; j < LANES; j++)
        sum[0] += sum[j];
    return sum[0];
}

/* What a chunk says of a row's cross-entropy with another; without that, of its own entropy, or of its sum alone. */
FASTKL_INLINE int NAME(weights_of_chunk)(NAME(logits) a, NAME(logits) b, const source *p, const source *q, NAME(scaling) c,
                                         int own, int guess, const masses *before, masses *chunk, double *least_q,
                                         REAL *w) {
    REAL most = 0, least, q_most, q_least = INFINITY;
    NAME(visit) at = {.c = c};
    seen_of_chunk seen;
    *chunk = (masses){0};
    if (guess) {
        q_most = NAME(largest_at_first)(b);
        if (!NAME(near)(q_most, c))
            return GUESSED;
    } else {
        NAME(extremes)(b, &q_most, &q_least);
        if (p)
            NAME(extremes)(a, &most, &least);
        if (!(most < INFINITY && q_most < INFINITY))
            return BROKEN;
    }
    const int p_counts = p && !NAME(weightless)(most, c, p, before->weight, before->exponent);
    const int q_counts = guess || !NAME(weightless)(q_most, c, q, before->other, before->other_exponent);
    if ((p_counts && !NAME(near)(most, c)) || (q_counts && !NAME(near)(q_most, c)))
        return FAR;
    if ((p && !p_counts && NAME(has_nan)(a)) || (!q_counts && NAME(has_nan)(b)))
        return BROKEN;
    chunk->exponent = NAME(unit)(p_counts ? most : 0, c, &at.unit, &at.low);
    chunk->other_exponent = NAME(unit)(q_counts ? q_most : 0, c, &at.q_unit, &at.q_low);
    at.q_top = (REAL)(chunk->other_exponent * LN2_OF_DOUBLE / (double)c.high);
    chunk->top = (double)at.q_top;
    if (p_counts) {
        seen = NAME(visit_all)(NAME(weigh_cross), (NAME(interest)){3, 0, 0, 2}, a, b, w, w, &at);
        chunk->term = seen.sum[0], chunk->weight = seen.sum[1], chunk->other = q_counts ? seen.sum[2] : 0;
    } else if (q_counts) {
        at.unit = at.q_unit, at.low = at.q_low, at.p_top = at.q_top;
        chunk->exponent = chunk->other_exponent;
        if (own) {
            seen = NAME(visit_all)(NAME(weigh_own), (NAME(interest)){2, 0, 0, 1}, b, b, w, w, &at);
            chunk->term = seen.sum[0], chunk->other = chunk->weight = seen.sum[1];
        } else {
            seen = NAME(visit_all)(NAME(weigh_alone), (NAME(interest)){1, 1, 0, 1}, b, b, w, w, &at);
            chunk->other = seen.sum[0];
        }
        if (guess) {
            int above;
            if (!((seen.most - (double)q_most) * (double)c.high <= MISGUESSED))
                return GUESSED;
            if (isfinite(chunk->other))
                chunk->other = frexp(chunk->other, &above), chunk->other_exponent += above;
            chunk->top = chunk->other_exponent * LN2_OF_DOUBLE / (double)c.high;
        }
    }
    if (p && !p_counts)
        q_least = -(REAL)INFINITY;
    *least_q = (double)q_least < *least_q ? (double)q_least : *least_q;
    return SETTLED;
}

/* What a row's chunks say of its cross-entropy with another row; without that, of its own entropy, or of its sum alone. */
FASTKL_INLINE int NAME(sums_of_weights)(source *p, source *q, ptrdiff_t n, NAME(scaling) c, int own, masses *row,
                                        double *least_q) {
    REAL p_chunk[LOGITS + GROUP], q_chunk[LOGITS + GROUP], w[LOGITS + GROUP];
    *row = (masses){0};
    *least_q = INFINITY;
    for (ptrdiff_t start = 0, count; fastkl_goes_on(q->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        const NAME(logits) b = NAME(fetch)(q, q_chunk, start, count), a = p ? NAME(fetch)(p, p_chunk, start, count) : b;
        masses chunk;
        int seen = GUESSED;
        for (int guess = !p && !own; guess >= 0 && seen == GUESSED; guess--)
            seen = NAME(weights_of_chunk)(a, b, p, q, c, own, guess, row, &chunk, least_q, w);
        if (seen)
            return seen;
        join_masses(row, &chunk);
    }
    return 0;
}

/* Looks for entries of q that are masked where p's are not, and for such below `far` as stand where p's are lost, but above
   `negligible`: their product could count. */
FASTKL_NOINLINE int NAME(look_for_masks)(source *p, source *q, ptrdiff_t n, double far, double lost, double negligible) {
    const REAL infinity = INFINITY, below = (REAL)far, low = (REAL)lost, least = (REAL)negligible;
    REAL p_chunk[LOGITS + GROUP], q_chunk[LOGITS + GROUP];
    UINT found[LANES] = {0}, all = 0;
    for (ptrdiff_t start = 0, count; fastkl_goes_on(p->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        const NAME(logits) a = NAME(fetch)(p, p_chunk, start, count), b = NAME(fetch)(q, q_chunk, start, count);
        for (ptrdiff_t i = 0; i < 4 * NAME(groups)(a); i++) {
            const NAME(loose) *const x = NAME(group)(a, i / 4) + i % 4 * LANES;
            const NAME(loose) *const y = NAME(group)(b, i / 4) + i % 4 * LANES;
            FASTKL_VECTORIZE
            for (int j = 0; j < LANES; j++) {
                const UINT unmasked = x[j] > -infinity ? MASKED : 0, counts = x[j] > least ? UNDERRATED : 0;
                found[j] |= y[j] == -infinity ? unmasked : 0;
                found[j] |= y[j] < below ? x[j] <= low ? counts : 0 : 0;
            }
        }
    }
    for (int j = 0; j < LANES; j++)
        all |= found[j];
    return (int)all;
}

/* The index of the first logit that is largest, and that. */
FASTKL_NOINLINE ptrdiff_t NAME(first_largest)(source *row, ptrdiff_t n, double *value) {
    REAL chunk[LOGITS + GROUP], best = -(REAL)INFINITY;
    ptrdiff_t at = 0;
    for (ptrdiff_t start = 0, count; fastkl_goes_on(row->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        const NAME(logits) x = NAME(fetch)(row, chunk, start, count);
        REAL most, least;
        NAME(extremes)(x, &most, &least);
        if (most > best) {
            ptrdiff_t i = 0;
            for (UINT found = 0; i < x.groups; i++) {
                UINT same[LANES];
                FASTKL_VECTORIZE
                for (int j = 0; j < LANES; j++) {
                    const NAME(loose) *const now = x.data + i * GROUP + j;
                    const REAL nearest =
                        NAME(greater)(NAME(greater)(now[0], now[LANES]), NAME(greater)(now[2 * LANES], now[3 * LANES]));
                    same[j] = nearest == most ? 1 : 0;
                }
                for (int j = 0; j < LANES; j++)
                    found |= same[j];
                if (found)
                    break;
            }
            const NAME(loose) *const group = NAME(group)(x, i);
            for (at = 0; at < GROUP - 1 && group[at] != most;)
                at++;
            at += start + i * GROUP;
            best = most;
        }
    }
    *value = (double)best;
    return at;
}

/* The sum of a row's logits, from `top`. */
FASTKL_NOINLINE double NAME(plain_sum_of)(source *row, ptrdiff_t n, double top) {
    REAL chunk[LOGITS + GROUP];
    double sum = 0;
    for (ptrdiff_t start = 0, count; fastkl_goes_on(row->task, start, n); start += count) {
        count = n - start < LOGITS ? n - start : LOGITS;
        sum += NAME(plain_sum)(NAME(fetch)(row, chunk, start, count), (REAL)top);
    }
    return sum;
}

/* Looks, compiled for logits as they are, and for such that a temperature divides. */
FASTKL_INLINE NAME(scaling) NAME(scaling_of)(inverse c, int tempered) {
    const REAL high = (REAL)c.high;
    return (NAME(scaling)){tempered ? high : 1, tempered ? (REAL)((c.high - (double)high) + c.low) : 0, tempered};
}

FASTKL_NOINLINE int NAME(look_at_quotients)(source *p, source *q, ptrdiff_t n, inverse c, moments *row) {
    return c.high == 1 ? NAME(quotients)(p, q, n, NAME(scaling_of)(c, 0), row)
                       : NAME(quotients)(p, q, n, NAME(scaling_of)(c, 1), row);
}

FASTKL_NOINLINE int NAME(look_at_weights)(source *p, source *q, ptrdiff_t n, inverse c, int own, masses *row,
                                          double *least_q) {
    return c.high == 1 ? NAME(sums_of_weights)(p, q, n, NAME(scaling_of)(c, 0), own, row, least_q)
                       : NAME(sums_of_weights)(p, q, n, NAME(scaling_of)(c, 1), own, row, least_q);
}

FASTKL_NOINLINE void NAME(look_both_ways)(source *p, source *q, ptrdiff_t n, inverse c, int all, int exponent, double shift,
                                          double shift_low, double p_top, seen_of_chunk *row) {
    if (c.high == 1)
        NAME(both_ways)(p, q, n, NAME(scaling_of)(c, 0), all, exponent, shift, shift_low, p_top, row);
    else
        NAME(both_ways)(p, q, n, NAME(scaling_of)(c, 1), all, exponent, shift, shift_low, p_top, row);
}
