/* A loop whose rounds threads share. Knows nothing of what is computed.

   Not by Cython's prange: where it is compiled for threads that may have the GIL or not, it asks Python, and Python before
   3.12 says that every thread has it, once there is a subinterpreter; or it takes the GIL to be sure. */
#include "fastkl.h"
#include "region.h"

#ifdef _OPENMP
#include <omp.h>

/* So often, for about a millisecond, a thread that waits looks up before it rests in between. Most blocks take less: to
   rest for longer than they do made calls with two threads 20 % slower. */
#define LOOKS 20000
#endif

void fastkl_share(ptrdiff_t start, ptrdiff_t stop, int threads, void (*visit)(void *with, ptrdiff_t i, int thread),
                  void (*meanwhile)(void *with), void *with) {
    ptrdiff_t i;
    (void)threads; /* without OpenMP */
#ifdef _OPENMP
    if (threads > 1) {
        int ready = 0; /* how many threads have no round left */
#pragma omp parallel num_threads(threads)
        {
            const int thread = fastkl_thread();
#pragma omp for schedule(dynamic) nowait
            for (i = start; i < stop; i++) {
                if (thread == 0)
                    meanwhile(with);
                visit(with, i, thread);
            }
#pragma omp atomic
            ready++;
            /* OpenMP would have it wait deaf. */
            for (int looks = 0; thread == 0 && fastkl_get(&ready) < omp_get_num_threads(); looks += looks < LOOKS) {
                meanwhile(with);
                if (looks == LOOKS)
                    fastkl_rest();
            }
        }
        return;
    }
#endif
    for (i = start; i < stop; i++) {
        meanwhile(with);
        visit(with, i, 0);
    }
}
