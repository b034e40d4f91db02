/* Owns the table of the element types, and the number that an entry's bytes stand for. Knows nothing of rows. */
#ifndef FASTKL_DTYPES_H
#define FASTKL_DTYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(name, type, value, single): the C type of a stored entry; the function that makes a number of it, or nothing if it is
   one; whether rows of the type have float results and may be summed in float. */
#define FASTKL_DTYPES(X)                       \
    X(float64, double, , 0)                    \
    X(float32, float, , 1)                     \
    X(float16, uint16_t, fastkl_float16, 1)    \
    X(bfloat16, uint16_t, fastkl_bfloat16, 1)  \
    X(bool, uint8_t, , 0)                      \
    X(int8, int8_t, , 0)                       \
    X(uint8, uint8_t, , 0)                     \
    X(int16, int16_t, , 0)                     \
    X(uint16, uint16_t, , 0)                   \
    X(int32, int32_t, , 0)                     \
    X(uint32, uint32_t, , 0)                   \
    X(int64, int64_t, , 0)                     \
    X(uint64, uint64_t, , 0)

#define FASTKL_NUMBERED(name, ...) FASTKL_##name,
enum { FASTKL_DTYPES(FASTKL_NUMBERED) FASTKL_DTYPE_COUNT };

#define FASTKL_PROPERTIES(name, type, value, single) {sizeof(type), single},
static const struct {
    ptrdiff_t size;
    int single;
} fastkl_dtypes[] = {FASTKL_DTYPES(FASTKL_PROPERTIES)};

static inline ptrdiff_t fastkl_size(int dtype) { return fastkl_dtypes[dtype].size; }
static inline int fastkl_is_whole(int dtype) { return dtype >= FASTKL_bool; }
static inline int fastkl_is_single(int dtype) { return fastkl_dtypes[dtype].single; }

static inline float fastkl_float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A bfloat16 is the upper half of a float. */
static inline float fastkl_bfloat16(uint16_t bits) { return fastkl_float_of_bits((uint32_t)bits << 16); }

/* IEEE 754's binary16, without a branch and without subnormal floats, with which some CPUs are slow. Its exponent has 5
   bits and counts from 112 less than a float's; 31 stands for inf and NaN. A subnormal number lacks the leading bit that
   normal numbers do not store: it gets that bit, which is then subtracted. */
static inline float fastkl_float16(uint16_t bits) {
    const uint32_t exponent = (uint32_t)1 << 23, magnitude = (uint32_t)(bits & 0x7fff) << 13;
    const float subnormal = fastkl_float_of_bits(magnitude + 113 * exponent) - 0x1p-14f;
    uint32_t result = magnitude + (magnitude < 31 * exponent ? 112 : 224) * exponent, small;
    memcpy(&small, &subnormal, sizeof small);
    result = magnitude < exponent ? small : result;
    return fastkl_float_of_bits(result | (uint32_t)(bits & 0x8000) << 16);
}

/* Copies one entry's bytes, of any alignment, into this machine's order. */
static inline void fastkl_read(void *entry, const char *from, size_t size, int swapped) {
    memcpy(entry, from, size);
    for (size_t i = 0; swapped && i < size / 2; i++) {
        char *const bytes = (char *)entry, byte = bytes[i];
        bytes[i] = bytes[size - 1 - i];
        bytes[size - 1 - i] = byte;
    }
}

#endif
