/* Owns the tables that Cython reads: the tiers of this build, and the names of measures, dtypes and fields. */
#include "fastkl.h"
#include "compiler.h"

extern const fastkl_tier fastkl_tier_avx512, fastkl_tier_avx2, fastkl_tier_baseline;

const fastkl_tier *const fastkl_tiers[] = {
#if FASTKL_X86_TIERS
    &fastkl_tier_avx512,
    &fastkl_tier_avx2,
#endif
    &fastkl_tier_baseline,
    NULL,
};

#define ROW(name, ...) #name,
const char *const fastkl_measure_names[] = {FASTKL_MEASURES(ROW)};
const char *const fastkl_dtype_names[] = {FASTKL_DTYPES(ROW)};

#define FIELD(name) #name,
const char *const fastkl_field_names[] = {FASTKL_FIELDS(FIELD)};
