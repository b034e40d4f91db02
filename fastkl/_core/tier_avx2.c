/* x86-64-v3: AVX2 and FMA. */
#include "fastkl.h"
#include "region.h"

#if FASTKL_X86_TIERS
#define FASTKL_VECTOR_BITS 256
#define FASTKL_FMA 1
#define FASTKL_INT64_TO_DOUBLE 0
#ifdef FASTKL_256_float16
#define FASTKL_TO_LANES(dtype) FASTKL_256_##dtype
#endif

FASTKL_REGION("avx2,fma,bmi,bmi2,f16c")
#include "tier.inc.h"
FASTKL_REGION_END

static int usable(void) { return FASTKL_CPU_HAS("avx2") && FASTKL_CPU_HAS("fma") && FASTKL_CPU_HAS("bmi2"); }

const fastkl_tier fastkl_tier_avx2 = {"avx2", usable, together, rows, piece, finish, logits, losses, compare};
#endif
