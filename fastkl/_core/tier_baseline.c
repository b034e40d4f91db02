/* The tier that every machine has: what the compiler builds for the plainest CPU of the architecture. */
#include "fastkl.h"
#include "region.h"

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

#include "tier.inc.h"

static int usable(void) { return 1; }

const fastkl_tier fastkl_tier_baseline = {FASTKL_NAME, usable, together, rows, piece, finish, logits, losses, compare};
