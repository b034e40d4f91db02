/* Owns the tier that every machine has: the code for the plainest CPU of the architecture. */
#include "sums.h"

#define FASTKL_VECTOR_BITS 128
#if defined(__aarch64__) || defined(_M_ARM64)
#define FASTKL_FMA 1
#define FASTKL_INT64_TO_DOUBLE 1
#define FASTKL_NAME "neon"
#else
#define FASTKL_FMA 0
#define FASTKL_INT64_TO_DOUBLE 0
#define FASTKL_NAME "baseline"
#endif

#include "rows.inc.h"

static int usable(void) { return 1; }

const fastkl_tier fastkl_tier_baseline = {
    FASTKL_NAME, usable, group, piece, rows, pass, finish, logits, nll, compare, decode, coarsen,
    pass_over_shared, join_shared, sizeof(struct shared_passes), sizeof(pass_sums),
};
