/* Owns the tier of x86-64-v3: AVX2 and FMA. */
#include "sums.h"

#if FASTKL_X86_TIERS
#define FASTKL_VECTOR_BITS 256
#define FASTKL_FMA 1
#define FASTKL_INT64_TO_DOUBLE 0
#ifdef FASTKL_256_float16
#define FASTKL_TO_LANES(dtype) FASTKL_256_##dtype
#endif

FASTKL_REGION(FASTKL_AVX2)
#include "rows.inc.h"
FASTKL_REGION_END

const fastkl_tier fastkl_tier_avx2 = {
    "avx2", fastkl_has_avx2, group, piece, rows, pass, finish, logits, nll, compare, decode, coarsen,
    pass_over_shared, join_shared, sizeof(struct shared_passes), sizeof(pass_sums),
};
#endif
