/* fastkl for C and C++: the measures of one row, and of a block of rows, without Python's objects, without the GIL.

   A file that calls them includes this, and calls fastkl_import() once before, with the GIL held:

       if (fastkl_import() < 0)
           return NULL; // an ImportError is set
       double d = fastkl_kl_divergence_row_f64(p, sizeof *p, q, sizeof *q, n);

   There is nothing to link with: the functions come from the fastkl that Python imports. The folder of this file is
   fastkl.get_include(); docs/compiled.md has a program.

   A row is n numbers, p_stride or q_stride bytes apart; the next row starts p_row_stride or q_row_stride bytes
   further. Strides may be negative or 0, and numbers need not be aligned. A row stands for itself divided by its
   sum. Its value is in nats: infinite where a measure is, and NaN for a row that has a negative, infinite or NaN
   entry, no positive one, or none at all. float values are rounded once, at the end. The rows functions write
   theirs to out, out_stride bytes apart, which must not overlap p and q.

   Any number of threads may call; each call computes in its own. The floating-point mode of the caller does not
   matter and stays as it is, flags included. */
#ifndef FASTKL_C_H
#define FASTKL_C_H

#include <Python.h>
#include <stddef.h>

/* Incremented when anything changes that is there already. What is added, at the end of the table, changes its size
   alone. */
#define FASTKL_INTERFACE_VERSION 1
#define FASTKL_CAPSULE "fastkl._kernels.c_interface"

/* The functions of entropy, then those of the measures that compare p with q. */
typedef double fastkl_row_f64(const double *p, ptrdiff_t p_stride, ptrdiff_t n);
typedef float fastkl_row_f32(const float *p, ptrdiff_t p_stride, ptrdiff_t n);
typedef double fastkl_pair_row_f64(const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n);
typedef float fastkl_pair_row_f32(const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n);
typedef void fastkl_rows_f64(const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
                             ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride);
typedef void fastkl_rows_f32(const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
                             ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride);
typedef void fastkl_pair_rows_f64(const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
                                  const double *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
                                  ptrdiff_t rows, ptrdiff_t n, double *out, ptrdiff_t out_stride);
typedef void fastkl_pair_rows_f32(const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride,
                                  const float *q, ptrdiff_t q_row_stride, ptrdiff_t q_stride,
                                  ptrdiff_t rows, ptrdiff_t n, float *out, ptrdiff_t out_stride);

typedef struct {
    int version;
    size_t size; /* in bytes */
    fastkl_row_f64 *entropy_row_f64;
    fastkl_row_f32 *entropy_row_f32;
    fastkl_rows_f64 *entropy_rows_f64;
    fastkl_rows_f32 *entropy_rows_f32;
    fastkl_pair_row_f64 *cross_entropy_row_f64;
    fastkl_pair_row_f32 *cross_entropy_row_f32;
    fastkl_pair_rows_f64 *cross_entropy_rows_f64;
    fastkl_pair_rows_f32 *cross_entropy_rows_f32;
    fastkl_pair_row_f64 *kl_divergence_row_f64;
    fastkl_pair_row_f32 *kl_divergence_row_f32;
    fastkl_pair_rows_f64 *kl_divergence_rows_f64;
    fastkl_pair_rows_f32 *kl_divergence_rows_f32;
    fastkl_pair_row_f64 *js_divergence_row_f64;
    fastkl_pair_row_f32 *js_divergence_row_f32;
    fastkl_pair_rows_f64 *js_divergence_rows_f64;
    fastkl_pair_rows_f32 *js_divergence_rows_f32;
} fastkl_interface;

static const fastkl_interface *fastkl_imported = NULL;

/* Imports fastkl. 0, or -1 with an ImportError if there is none, or one with another interface than this. */
static inline int fastkl_import(void) {
    const fastkl_interface *found = (const fastkl_interface *)PyCapsule_Import(FASTKL_CAPSULE, 0);
    if (found == NULL)
        return -1;
    if (found->version != FASTKL_INTERFACE_VERSION || found->size < sizeof(fastkl_interface)) {
        PyErr_Format(PyExc_ImportError,
                     "the installed fastkl has version %d of its compiled interface, of %zu bytes: this was compiled for "
                     "version %d, of %zu or more",
                     found->version, found->size, FASTKL_INTERFACE_VERSION, sizeof(fastkl_interface));
        return -1;
    }
    fastkl_imported = found;
    return 0;
}

#define fastkl_entropy_row_f64 (fastkl_imported->entropy_row_f64)
#define fastkl_entropy_row_f32 (fastkl_imported->entropy_row_f32)
#define fastkl_entropy_rows_f64 (fastkl_imported->entropy_rows_f64)
#define fastkl_entropy_rows_f32 (fastkl_imported->entropy_rows_f32)
#define fastkl_cross_entropy_row_f64 (fastkl_imported->cross_entropy_row_f64)
#define fastkl_cross_entropy_row_f32 (fastkl_imported->cross_entropy_row_f32)
#define fastkl_cross_entropy_rows_f64 (fastkl_imported->cross_entropy_rows_f64)
#define fastkl_cross_entropy_rows_f32 (fastkl_imported->cross_entropy_rows_f32)
#define fastkl_kl_divergence_row_f64 (fastkl_imported->kl_divergence_row_f64)
#define fastkl_kl_divergence_row_f32 (fastkl_imported->kl_divergence_row_f32)
#define fastkl_kl_divergence_rows_f64 (fastkl_imported->kl_divergence_rows_f64)
#define fastkl_kl_divergence_rows_f32 (fastkl_imported->kl_divergence_rows_f32)
#define fastkl_js_divergence_row_f64 (fastkl_imported->js_divergence_row_f64)
#define fastkl_js_divergence_row_f32 (fastkl_imported->js_divergence_row_f32)
#define fastkl_js_divergence_rows_f64 (fastkl_imported->js_divergence_rows_f64)
#define fastkl_js_divergence_rows_f32 (fastkl_imported->js_divergence_rows_f32)

#endif
