/* Owns what the passes over rows of logits take and give: a row seen as logits, a pair of rows, the sums of a pass, and the
   thresholds that both lane types share. In double, whichever type the lanes have. Knows nothing of loops over entries.

   The weight of a logit is e^(logit/temperature) 2^-exponent. The exponent makes the weight of the reference, which is the
   largest logit or one near it, about 1. */

/* What a pass says of a row besides its sums. All but PASS_ACCEPTED are bits; a search for masks may set several. */
enum {
    PASS_ACCEPTED = 0,
    PASS_NOT_FINITE = 1,   /* there is an infinite or NaN sum, and the row may be invalid */
    PASS_OUT_OF_RANGE = 2, /* a logit is too far from 0: the row's largest has to be subtracted first */
    PASS_MASKED = 4,       /* q is masked where p is not; all entries are valid, and the sums are not complete. With
                              PASS_INACCURATE: no entry of q is finite */
    PASS_UNDERFLOW = 8,    /* a weight of p underflows where log(q/p) may be so large that it counts */
    PASS_INACCURATE = 16,  /* the value may have lost digits, or all entries are masked */
    PASS_RETRY = 32,       /* the reference that was guessed for a chunk is too far from its largest logit */
    PASS_WANTED = 64       /* threads have to make the pass first: logits_pieces.inc.h */
};

/* Entries of a row that a pass takes at a time: they and their weights stay in the first cache. The end of a chunk costs as
   much time as a hundred entries, so that the weights pass, which goes over them once, takes more where there are 16 lanes:
   each lane has as many as one of 8 then. (The other passes would wait for memory more often.) */
#define CHUNK_LOGITS 1024
#define MOST_LOGITS PICK(CHUNK_LOGITS, CHUNK_LOGITS * (FASTKL_VECTOR_BITS == 512 ? 2 : 1))

/* Entries that are added to the lanes at a time: four for each lane. */
#define GROUP (4 * LANES)

/* Merges the upper half of an array of LANES with the lower, until one is left: `halve` gets the half's length first. */
#define HALVE_LANES(halve, ...)                                                                     \
    ((LANES > 8 ? halve(8, __VA_ARGS__) : (void)0), (LANES > 4 ? halve(4, __VA_ARGS__) : (void)0),  \
     (LANES > 2 ? halve(2, __VA_ARGS__) : (void)0), halve(1, __VA_ARGS__))

/* Limits that both lane types share.
   MAX_LOG_WEIGHT         if a logit by temperature is farther from 0, the row's largest is subtracted first. The k of an
                          exponential is at most 1478 then, and without FMA it costs a float 1.5 units in the last place:
                          exponential.inc.h has the error by k
   MAX_UNSCALED_SUM       if a sum of probabilities is larger, or less than 1 by this, their logarithms have lost digits,
                          which those of a row that is scaled to a sum near 1 have
   NEGLIGIBLE_LOG_RATIO   a log(q/p) of at least minus this adds nothing if p's weight underflows: 2^-LOST of it is less
                          than a rounding of the least divergence that is accepted
   MAX_SCALE, MAX_FLOAT_SCALE
                          if 1/temperature is larger, or less than 1 by this, its products with logits may overflow or
                          underflow. The fallback multiplies differences instead; float lanes are left for double lanes
   MAX_GUESSED_MEAN       if the mean of a chunk's logits less the reference, by weight, is larger than this and 4 times the
                          value, the reference must not be a guess: the roundings of products are as large as the mean
   MAX_ROUNDED_LOG_RATIO  if a rounded log(q/p) is larger, its exponential is wrong by more than 16 units in the last place;
                          32.2, the largest that has the nearest integer MAX_RATIO_EXPONENT times ln 2
   MIN_NORMAL_QUOTIENT    a quotient or a product of doubles that is larger is normal, and so its logarithm has all digits
   MAX_MEAN               the mean of log(q/p) - shift may be this share of the divergence, from which it is subtracted
   MAX_RATIO_PASSES       the passes that an f-divergence may take until the ratio of the rows' sums is exact enough */
#define MAX_LOG_WEIGHT 1024
#define MAX_UNSCALED_SUM 0x1p32
#define NEGLIGIBLE_LOG_RATIO 1024
#define MAX_SCALE 0x1p900
#define MAX_FLOAT_SCALE 0x1p60
#define MAX_GUESSED_MEAN 2
#define MAX_RATIO_EXPONENT 46
#define MAX_ROUNDED_LOG_RATIO 32.3
#define MIN_NORMAL_QUOTIENT 0x1p-900
#define MAX_MEAN 0.125
#define MAX_RATIO_PASSES 4

/* A row of an operand, seen as logits. Logits are used `as_is`; or `centre` is subtracted, the difference is multiplied by
   `factor`, and the result is clipped to be at least `min`. If that makes -inf of a finite logit, the row `overflows`: the
   result looks like a mask. Once a weight `underflows`, the rest of the row, or of both rows if that is p's, is passed over
   as if others did, because masks are seldom alone. A chunk whose largest logit by temperature is below `least` has no
   weight. The logits of probabilities are the logarithms of `factor` times them, and a pass over them adds up `sum`,
   `clipped` and `entry_bits`, which fastkl_sums has of q. Entries at `hidden` columns, if not NULL, are read as masks. */
typedef struct {
    const fastkl_operand *operand;
    const fastkl_columns *hidden;
    int as_is, centred, overflows, underflows;
    double centre, factor, min, eps, least;
    double sum, clipped;
    uint64_t entry_bits;
} logits_row;

/* The moments of x = log(q/p) - shift under p's weights w: the sums of w, of w x and of w psi(x), all by 2^exponent. The
   shift is nearly the mean of log(q/p), so that the sum of w x is nearly 0. `max_x` is the largest x, whichever chunk's
   shift it had, or a bound of it where psi is not 0; `min_difference` is the least q - p of logits where p is not masked,
   in chunks where a weight of p underflows. */
typedef struct {
    int exponent;
    double shift, shift_low, weight, first, psi, max_x, min_difference;
} moments;

/* The sums for entropies: of p's weights w and of w (q's logit - q_reference), by 2^p_exponent; of q's weights, by
   2^q_exponent. For the entropy of q alone, w and p_exponent are those of q. `min_q` is the least logit of q where p is not
   masked, in chunks where a weight of p underflows. */
typedef struct {
    int p_exponent, q_exponent;
    double p_weight, product, q_reference, q_weight, min_q;
} entropy_sums;

/* What the weights pass adds up: q's weights alone, the sums for the entropy of q, the weights of both rows, or the sums
   for the cross-entropy. */
enum { SUM_WEIGHT, SUM_ENTROPY, SUM_BOTH, SUM_CROSS_ENTROPY };

/* What the passes over log(q/p) take: the exponent of p's weights; the shift of log(q/p), which is the logarithm of the
   ratio of the rows' sums; Renyi's alpha and 1 - alpha, of which the former is at least ½; and for compare_pass, what is
   subtracted from the logits of either, and whether it counts what rounding takes from log(q/p). */
typedef struct {
    int exponent;
    double shift, shift_low, p_reference, q_reference, alpha, beta;
    int exact;
} ratio_reference;

/* What compare_pass adds up, by p's weights: JS; and for a comparison the reverse divergence, p's logit and q's less their
   references, and q's weights; q's weights less p's where they are larger, and p's less q's where these are; both where q's
   are larger, and where they nearly agree. Is there a q that is not masked where p's weight underflows? */
typedef struct {
    double js, reverse, p_logit, q_logit, q_weight, above, below, weight_above, weight_near;
    int lost;
} ratio_sums;

static inline void add_ratio_sums(ratio_sums *to, const ratio_sums *next) {
    to->js += next->js, to->reverse += next->reverse, to->p_logit += next->p_logit, to->q_logit += next->q_logit;
    to->q_weight += next->q_weight, to->above += next->above, to->below += next->below;
    to->weight_above += next->weight_above, to->weight_near += next->weight_near, to->lost |= next->lost;
}

/* Up to three sums of terms, the least and the largest of the numbers that the terms give for that, and the OR of the bit
   patterns. */
typedef struct {
    double sum[3], min, max;
    uint64_t bits;
} term_sums;

/* Which extremes a loop over terms finds, and of which operand it prefetches the next chunk. */
enum { BOTH_EXTREMES = 1, LEAST_EXTREME = 2 };
enum { PREFETCH_P = 1, PREFETCH_Q = 2 };

/* The passes of one lane type, with c = 1/temperature, and where their sums are accurate. */
typedef struct {
    int (*moments_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, moments *sums);
    int (*weights_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int kind, entropy_sums *sums);
    void (*ratio_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int measure,
                       const ratio_reference *reference, term_sums *sums);
    void (*compare_pass)(logits_row *p, logits_row *q, ptrdiff_t n, fastkl_parts c, int js_only,
                         const ratio_reference *reference, ratio_sums *sums);
    int (*find_masks)(logits_row *p, logits_row *q, ptrdiff_t n, double far, double lost, double negligible);
    double (*sum_logits)(logits_row *row, ptrdiff_t n, double reference);
    int is_float;
    double epsilon, max_log_ratio; /* APART */
    /* A weight below 2^-lost_bits (LOST) counts as that. The largest number of the lane type times a weight that is below
       e^-negligible of that is less than the smallest number. */
    int lost_bits, negligible;
    /* A divergence that is smaller than this times the number of entries may have lost digits to weights that underflow. */
    double min_divergence;
    /* Differences of logits are exact in two parts, but their quotients by a temperature are not. If the square of the
       shift is larger than this, by the divergence, the error of the shift may show in the divergence. */
    double max_shift_squared;
} logits_lanes;

/* A pair of rows of which at least one holds logits, or a single row; the factor that the passes multiply all logits by;
   the lanes whose passes gave the value, NULL if none did. */
typedef struct {
    const fastkl_task *task;
    const fastkl_operand *p, *q;
    ptrdiff_t n;
    logits_row p_row, q_row;
    fastkl_parts c;
    const logits_lanes *lanes;
} logits_pair;

/* These merge the sums of the next chunk into those of the chunks before it: logits_values.inc.h. */
static void merge_moments(moments *to, const moments *next);
static void merge_entropy_sums(entropy_sums *to, const entropy_sums *next);
