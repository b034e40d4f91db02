/* The measures, from which the core and the compiled interface make their lists: X(name, NAME, pair, infinite, symmetric,
   equal, root, common). A measure's place is its number for compiled callers, so that new ones are appended.

       pair        does it compare p with q?
       infinite    is it infinite where q is zero and p is not (1), or where one of them is and the other is not (2), or
                   does it depend on the order (3)?
       symmetric   is it the same, to the bit, for p and q exchanged?
       equal       does it need sums of p and q that agree? A row in which they do not is passed over again, rescaled.
       root        is it the square root of what its functions give?
       common      is it compiled for every type, layout and kind of pass? The others take less code, and a little longer.
   Its name also names its functions: an entry (measures.inc.h), name_finish (finish.inc.h), name_fallback
   (fallback_logits.c), and for a divergence name_term, name_far and name_value (fallback_rows.c). */

/* From logits, an entry of these adds p times a function of q/p: name_of_ratio
   (measures.inc.h), from the mean of which name_finish_ratios (finish.inc.h) makes the value. */
#define FASTKL_F_DIVERGENCES(X) \
    X(js_divergence, JS_DIVERGENCE, 1, 0, 1, 1, 0, 0) \
    X(hellinger_distance, HELLINGER_DISTANCE, 1, 0, 1, 0, 1, 0) \
    X(total_variation, TOTAL_VARIATION, 1, 0, 1, 0, 0, 0) \
    X(chi2_divergence, CHI2_DIVERGENCE, 1, 1, 0, 0, 0, 0) \
    X(renyi_divergence, RENYI_DIVERGENCE, 1, 3, 0, 0, 0, 0)

/* These are 0 for equal rows. A rescaled pass makes the sums of p and q equal, of the others one of them 1. */
#define FASTKL_DIVERGENCES(X) \
    X(kl_divergence, KL_DIVERGENCE, 1, 1, 0, 0, 0, 1) \
    FASTKL_F_DIVERGENCES(X) \
    X(jeffreys_divergence, JEFFREYS_DIVERGENCE, 1, 2, 1, 1, 0, 0)

/* The measures that have entries of their own. That of weights as they are has the entries of D, and no logits. */
#define FASTKL_ENTRIES(X) \
    X(entropy, ENTROPY, 0, 0, 0, 0, 0, 1) \
    X(cross_entropy, CROSS_ENTROPY, 1, 1, 0, 0, 0, 1) \
    FASTKL_DIVERGENCES(X)

#define FASTKL_MEASURES(X) \
    FASTKL_ENTRIES(X) \
    X(generalized_kl, GENERALIZED_KL, 1, 1, 0, 0, 0, 1)
