/* What the build and its surroundings are: OpenMP, its number of threads, the compiler; what time it is. */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "fastkl.h"
#include "region.h"

#include <time.h>

#ifdef _OPENMP
#include <limits.h>
#include <omp.h>

int fastkl_openmp(void) { return 1; }

/* OMP_NUM_THREADS and omp_set_num_threads (threadpoolctl) speak through the first, affinity through the second; a thread of
   somebody's parallel region gets no region of its own. */
int fastkl_openmp_threads(void) {
    const int most = omp_get_max_threads(), processors = omp_get_num_procs();
    return omp_in_parallel() ? 1 : most < processors ? most : processors;
}

/* More would win nothing. GCC's libgomp ends the process where the system refuses it a thread. */
int fastkl_most_threads(void) {
    const int processors = omp_get_num_procs();
    return processors < 4 ? 16 : processors < INT_MAX / 4 ? 4 * processors : INT_MAX;
}

int fastkl_thread(void) { return omp_get_thread_num(); }

double fastkl_seconds(void) { return omp_get_wtime(); }
#else
int fastkl_openmp(void) { return 0; }

int fastkl_openmp_threads(void) { return 1; }

int fastkl_most_threads(void) { return 1; }

int fastkl_thread(void) { return 0; }

double fastkl_seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
#endif

void fastkl_rest(void) {
#if FASTKL_POSIX
    nanosleep(&(const struct timespec){0, 50000}, NULL);
#endif
}

const char *fastkl_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#elif defined(_MSC_VER)
    return "msvc";
#else
    return "unknown";
#endif
}
