# What other compiled modules may call. docs/compiled.md says what the functions do; include/fastkl_c.h has them for C.
# Cython reads this file wherever one is cimported: nothing else may stand here.

cdef double entropy_row_f64(const double *p, ptrdiff_t p_stride, ptrdiff_t n) noexcept nogil
cdef void entropy_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil

cdef float entropy_row_f32(const float *p, ptrdiff_t p_stride, ptrdiff_t n) noexcept nogil
cdef void entropy_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil

cdef double cross_entropy_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void cross_entropy_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil

cdef float cross_entropy_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void cross_entropy_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil

cdef double kl_divergence_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void kl_divergence_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil

cdef float kl_divergence_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void kl_divergence_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil

cdef double js_divergence_row_f64(
    const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void js_divergence_rows_f64(
    const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride
) noexcept nogil

cdef float js_divergence_row_f32(
    const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n
) noexcept nogil
cdef void js_divergence_rows_f32(
    const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
    const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
    ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride
) noexcept nogil
