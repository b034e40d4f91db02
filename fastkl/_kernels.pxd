# What other compiled modules may call. docs/reference/compiled.md says what the functions do; include/fastkl_c.h has them
# for C.
# Cython reads this file wherever one of these names is cimported: it must not mention what is not installed.

# The values are those of include/fastkl_measures.h, which new measures are appended to.
cpdef enum Measure:
    ENTROPY = 0
    CROSS_ENTROPY = 1
    KL_DIVERGENCE = 2
    JS_DIVERGENCE = 3
    HELLINGER_DISTANCE = 4
    TOTAL_VARIATION = 5
    CHI2_DIVERGENCE = 6
    RENYI_DIVERGENCE = 7
    JEFFREYS_DIVERGENCE = 8
    GENERALIZED_KL = 9

cdef double row_f64(
    int measure, const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n, double parameter
) noexcept nogil
cdef float row_f32(
    int measure, const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n, double parameter
) noexcept nogil
cdef ptrdiff_t rows_f64(
    int measure, const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride, double parameter
) noexcept nogil
cdef ptrdiff_t rows_f32(
    int measure, const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride, double parameter
) noexcept nogil
