/* fastkl for C and C++: a measure of one row, and of a block of rows, without Python's objects and without the GIL.

   A file that calls the functions includes this, and calls fastkl_import() once before, with the GIL held:

       if (fastkl_import() < 0)
           return NULL; // an ImportError is set
       double d = fastkl_row_f64(FASTKL_KL_DIVERGENCE, p, sizeof *p, q, sizeof *q, n, 0);

   There is nothing to link with: the functions come from the fastkl that Python imports. The folder of this file is
   fastkl.get_include(); docs/howto/compiled.md has a program.

   A row is n numbers, p_stride or q_stride bytes apart; the next row starts p_row_stride or q_row_stride bytes
   further. Strides may be negative or 0, and numbers need not be aligned. q is NULL for the entropy. A row stands for
   itself divided by its sum. Its value is in nats: infinite where a measure is, and NaN for an unknown measure and for a
   row that has a negative, infinite or NaN entry, no positive one, or none at all. float values are rounded once, at
   the end. The rows functions write the values to out, out_stride bytes apart, which must not overlap p and q, and
   return how many rows were invalid. `parameter` is ignored by the measures that have none.

   Any number of threads may call; each call computes in its own. The floating-point mode of the caller does not
   matter and stays as it is, flags included. */
#ifndef FASTKL_C_H
#define FASTKL_C_H

#include <Python.h>
#include <stddef.h>

#include "fastkl_measures.h"

/* Incremented when anything changes that is there already. What is added, at the end of the table, changes its size
   alone; a new measure changes neither. */
#define FASTKL_INTERFACE_VERSION 2
#define FASTKL_CAPSULE "fastkl._kernels.c_interface"

/* FASTKL_ENTROPY = 0, FASTKL_CROSS_ENTROPY = 1 and so on. */
#define FASTKL_ROW(name, upper, ...) FASTKL_##upper,
enum { FASTKL_MEASURES(FASTKL_ROW) };
#undef FASTKL_ROW

typedef struct {
    int version;
    size_t size; /* in bytes */
    double (*row_f64)(int measure, const double *p, ptrdiff_t p_stride, const double *q, ptrdiff_t q_stride, ptrdiff_t n,
                      double parameter);
    float (*row_f32)(int measure, const float *p, ptrdiff_t p_stride, const float *q, ptrdiff_t q_stride, ptrdiff_t n,
                     double parameter);
    ptrdiff_t (*rows_f64)(int measure, const double *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride, const double *q,
                          ptrdiff_t q_row_stride, ptrdiff_t q_stride, ptrdiff_t rows, ptrdiff_t n, double *out,
                          ptrdiff_t out_stride, double parameter);
    ptrdiff_t (*rows_f32)(int measure, const float *p, ptrdiff_t p_row_stride, ptrdiff_t p_stride, const float *q,
                          ptrdiff_t q_row_stride, ptrdiff_t q_stride, ptrdiff_t rows, ptrdiff_t n, float *out,
                          ptrdiff_t out_stride, double parameter);
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

#define fastkl_row_f64 (fastkl_imported->row_f64)
#define fastkl_row_f32 (fastkl_imported->row_f32)
#define fastkl_rows_f64 (fastkl_imported->rows_f64)
#define fastkl_rows_f32 (fastkl_imported->rows_f32)

#endif
