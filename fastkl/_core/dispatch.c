/* The tables that the world outside reads: the tiers that this build has, the names of measures, dtypes and fields. */
#include "fastkl.h"
#include "region.h"

extern const fastkl_tier fastkl_tier_avx512, fastkl_tier_avx2, fastkl_tier_baseline;

const fastkl_tier *const fastkl_tiers[] = {
#if FASTKL_X86_TIERS
    &fastkl_tier_avx512,
    &fastkl_tier_avx2,
#endif
    &fastkl_tier_baseline,
    NULL,
};

const char *const fastkl_measure_names[] = {
#define ROW(name, ...) #name,
    FASTKL_MEASURES(ROW)
#undef ROW
};

const char *const fastkl_dtype_names[] = {
#define ROW(name, ...) #name,
    FASTKL_DTYPES(ROW)
#undef ROW
};

const char *const fastkl_field_names[] = {
#define ROW(name) #name,
    FASTKL_FIELDS(ROW)
#undef ROW
};
