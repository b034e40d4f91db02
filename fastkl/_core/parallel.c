/* A loop whose rounds threads share. Knows nothing of what is computed.

   Not by Cython's prange: where it is compiled for threads that may have the GIL or not, it asks Python, and Python before
   3.12 says that every thread has it, once there is a subinterpreter; or it takes the GIL to be sure. */
#include "fastkl.h"

void fastkl_share(ptrdiff_t start, ptrdiff_t stop, int threads, void (*visit)(void *with, ptrdiff_t i, int thread),
                  void *with) {
    ptrdiff_t i;
    (void)threads; /* without OpenMP */
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic)
#endif
    for (i = start; i < stop; i++)
        visit(with, i, fastkl_thread());
}
