/* Owns the decoding of a row of 16-bit codes of log-probabilities, as llama.cpp stores them (batch/readers/kld.py has the
   format, and the reasons for the floor). In float. Knows nothing of files and measures.

   A weight is e^(scale code). scale code is at most 16 and rounded by 2^-21, or 4.8e-7. With the polynomial's 1.1e-7, what
   the remainder lacks, 4.4e-8, a unit in the last place and two additions in float, the sum is right to 8.8e-7; the other
   additions are in double. What it is multiplied by, e^least, is not known better: a stored `least` between 16 and 32 below
   0 is rounded by 2^-20, or 9.5e-7. */
#define REAL_BITS 32
#define CODES (FASTKL_VECTOR_BITS / 16) /* in a vector */

/* e^(scale code) / EXP_FACTOR; exactly 1 for the code 0. */
FASTKL_INLINE float code_weight(uint16_t code, float scale) {
    const factor_f32 one = {.high = 1};
    uint32_t bits;
    return weight_f32((float)code * scale, one, rounder_from_f32(-LOST), &bits);
}

/* The sum of e^(scale code) of the codes that are not 0, and how many are. */
static double sum_of_weights(const uint16_t *codes, ptrdiff_t n, float scale, ptrdiff_t *zeros) {
    double sums[CODES] = {0}, sum = 0;
    int32_t counts[CODES] = {0};
    ptrdiff_t i = 0;
    *zeros = 0;
    for (; i + 4 * CODES <= n; i += 4 * CODES) {
        const uint16_t *const a = codes + i, *const b = a + CODES, *const c = b + CODES, *const d = c + CODES;
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(CODES); j++) {
            sums[j] += (double)((code_weight(a[j], scale) + code_weight(b[j], scale)) +
                                (code_weight(c[j], scale) + code_weight(d[j], scale)));
            counts[j] += (a[j] == 0) + (b[j] == 0) + (c[j] == 0) + (d[j] == 0);
        }
    }
    for (; i < n; i++) {
        sum += (double)code_weight(codes[i], scale);
        *zeros += codes[i] == 0;
    }
    for (int j = 0; j < CODES; j++) {
        sum += sums[j];
        *zeros += counts[j];
    }
    return (sum - (double)*zeros) * EXP_FACTOR;
}

/* A float of which the record has the lower half first, whatever the byte order of this machine. */
static float joined(const uint16_t *halves) { return from_bits_f32((uint32_t)halves[1] << 16 | halves[0]); }

static int decode(const uint16_t *record, ptrdiff_t n, float floor_scale, float *values) {
    const float scale = joined(record), least = joined(record + 2);
    const uint16_t *const codes = record + 4;
    const int floored = scale == floor_scale;
    float lowest = scale * 0 + least; /* a NaN if the scale is one, or infinite */
    if (scale < 0 || least > 0)
        return -1;
    if (floored) {
        ptrdiff_t zeros;
        const double missing = 1 - exp(least) * sum_of_weights(codes, n, scale, &zeros);
        const double share = missing > 0 && zeros ? log(missing / (double)zeros) : least;
        lowest = share < least ? (float)share : least;
    }
    FASTKL_VECTORIZE
    for (ptrdiff_t i = 0; i < n; i++) {
        const float value = (float)codes[i] * scale + least;
        values[i] = codes[i] ? value : lowest;
    }
    return floored;
}

#undef CODES
#undef REAL_BITS
