/* Owns what the passes over short rows of logits give: sums of which each lane's row has its own. In double, whichever
   type the lanes have. Knows nothing of loops over entries and of what the sums mean. */

/* Rows of up to SHORT_LOGITS logits have a lane each. For entropies and losses, of one operand, so do rows of up to
   SHORT_WEIGHTS in float, where 16 lanes then take half the time of a pass chunk by chunk. A lane's sum has SHORT_PARTS
   parts, of at most 16 entries each, or 32 as in a chunk, so that it needs no compensation. Passes are made over
   LOGIT_ROWS rows at a time, which are then finished together. */
#define SHORT_LOGITS 64
#define SHORT_WEIGHTS (FASTKL_VECTOR_BITS == 512 ? 128 : SHORT_LOGITS)
#define SHORT_PARTS 4
#define SHORT_GROUPS 4
#define LOGIT_ROWS 64

/* What a pass over short rows finds besides the sums, as bits: q is masked where p is not; a weight of p that underflows
   may count; the sums are not those of a valid row with logits near 0. */
enum { SHORT_MASKED = 2, SHORT_UNDERFLOW = 4, SHORT_INVALID = 8 };

/* The moments of short rows. */
typedef struct {
    double weight[LOGIT_ROWS], first[LOGIT_ROWS], psi[LOGIT_ROWS], shift[LOGIT_ROWS], max_x[LOGIT_ROWS];
    int64_t found[LOGIT_ROWS];
} short_moments;

/* The sums for entropies of short rows. With SUM_WEIGHT, `product` has the logits of the labels. */
typedef struct {
    double exponent[LOGIT_ROWS], reference[LOGIT_ROWS], q_weight[LOGIT_ROWS], p_weight[LOGIT_ROWS], product[LOGIT_ROWS];
    int64_t found[LOGIT_ROWS];
} short_entropies;

/* JS of short rows, times four, and the logarithms of the ratios of the rows' sums. */
typedef struct {
    double js[LOGIT_ROWS], shift[LOGIT_ROWS];
    int64_t found[LOGIT_ROWS];
} short_ratios;

/* What a comparison needs of short rows besides the moments: for both rows, what short_entropies has; 1 if the largest
   entries are in the same place. SHORT_MASKED says that p is masked where q is not. */
typedef struct {
    double p_exponent[LOGIT_ROWS], p_reference[LOGIT_ROWS], p_weight[LOGIT_ROWS], p_product[LOGIT_ROWS];
    double q_exponent[LOGIT_ROWS], q_reference[LOGIT_ROWS], q_weight[LOGIT_ROWS], q_product[LOGIT_ROWS];
    double p_logit[LOGIT_ROWS], q_logit[LOGIT_ROWS], js[LOGIT_ROWS], reverse[LOGIT_ROWS];
    double variation[LOGIT_ROWS], shift[LOGIT_ROWS];
    int64_t same_place[LOGIT_ROWS], found[LOGIT_ROWS];
} short_comparisons;
