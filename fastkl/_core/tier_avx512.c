/* Owns the tier of x86-64-v4: AVX-512 with the F, CD, BW, DQ and VL parts. */
#include "sums.h"

#if FASTKL_X86_TIERS
#define FASTKL_VECTOR_BITS 512
#define FASTKL_FMA 1
#define FASTKL_INT64_TO_DOUBLE 1
#ifdef FASTKL_512_float16
#define FASTKL_TO_LANES(dtype) FASTKL_512_##dtype
#endif

FASTKL_REGION("avx512f,avx512cd,avx512bw,avx512dq,avx512vl," FASTKL_AVX2 FASTKL_WHOLE_VECTORS)
#include "rows.inc.h"
FASTKL_REGION_END

static int usable(void) {
    return fastkl_has_avx2() && FASTKL_CPU_HAS("avx512f") && FASTKL_CPU_HAS("avx512cd") && FASTKL_CPU_HAS("avx512bw") &&
           FASTKL_CPU_HAS("avx512dq") && FASTKL_CPU_HAS("avx512vl");
}

const fastkl_tier fastkl_tier_avx512 = {
    "avx512", usable, group, piece, rows, pass, finish, logits, nll, compare, decode, coarsen,
    pass_over_shared, join_shared, sizeof(struct shared_passes), sizeof(pass_sums),
};
#endif
