/* The measures, from which the core and the compiled interface make their lists: X(name, NAME, pair, infinite, symmetric,
   divergence). A measure's place is its number for compiled callers, so that new ones are appended.

       pair        does it compare p with q?
       infinite    is it infinite where q is zero and p is not?
       symmetric   is it the same, to the bit, for p and q exchanged?
       divergence  is it 0 for equal rows? A rescaled pass then makes the sums of p and q equal, otherwise one of them 1.
   Its name also names its functions: an entry (measures.inc.h), name_finish (finish.inc.h) and name_fallback
   (fallback_rows.c, fallback_logits.c). */

/* These are right only where the sums of p and q agree. From logits, an entry adds p times a function of q/p: name_of_ratio
   (measures.inc.h), from the mean of which name_finish_ratios (finish.inc.h) makes the value. */
#define FASTKL_F_DIVERGENCES(X) \
    X(js_divergence, JS_DIVERGENCE, 1, 0, 1, 1)

#define FASTKL_MEASURES(X)                      \
    X(entropy, ENTROPY, 0, 0, 0, 0)             \
    X(cross_entropy, CROSS_ENTROPY, 1, 1, 0, 0) \
    X(kl_divergence, KL_DIVERGENCE, 1, 1, 0, 1) \
    FASTKL_F_DIVERGENCES(X)
