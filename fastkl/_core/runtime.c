/* Owns what the build, the process and the system say and do: OpenMP and its number of threads, forks, the clock, the
   compiler, bytes of files. Knows nothing of rows. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* preadv2 */
#else
#define _POSIX_C_SOURCE 200809L /* clock_gettime, pread */
#endif
#include "fastkl.h"
#include "compiler.h"

#include <time.h>

#ifdef FASTKL_POSIX
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>
#else
#include <windows.h>
#endif

#ifdef _OPENMP
#include <omp.h>

int fastkl_openmp(void) { return 1; }

/* omp_get_max_threads follows OMP_NUM_THREADS and omp_set_num_threads (threadpoolctl); omp_get_num_procs follows the
   affinity. A thread of another parallel region gets no region of its own. LLVM's libomp 14 takes what it cannot read in
   OMP_NUM_THREADS for a number of its own, which may be negative. */
int fastkl_openmp_threads(void) {
    const int most = omp_get_max_threads(), processors = omp_get_num_procs();
    return omp_in_parallel() ? 1 : 0 < most && most < processors ? most : processors;
}

/* More threads than this make nothing faster, and GCC's libgomp ends the process where the system refuses it a thread. */
#define THREADS_PER_PROCESSOR 4
#define LEAST_LIMIT 16

int fastkl_most_threads(void) {
    const int most = THREADS_PER_PROCESSOR * omp_get_num_procs();
    return most < LEAST_LIMIT ? LEAST_LIMIT : most;
}
#else
int fastkl_openmp(void) { return 0; }
int fastkl_openmp_threads(void) { return 1; }
int fastkl_most_threads(void) { return 1; }
#endif

/* LLVM's omp_get_wtime reads a clock that can be set back, so that a wait for it could last for ever. */
double fastkl_seconds(void) {
#ifdef FASTKL_POSIX
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#else
    LARGE_INTEGER now, per_second;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&per_second);
    return (double)now.QuadPart / (double)per_second.QuadPart;
#endif
}

/* An OpenMP library keeps threads for the next parallel region. A forked child has none of them, and libgomp would wait for
   them without end. So a child computes with one thread. pthread_atfork also sees the forks of C code, which Python's
   os.register_at_fork does not see. */
static int forked;

#ifdef FASTKL_POSIX
static void note_fork(void) { forked = 1; }

__attribute__((constructor)) static void register_at_fork(void) { pthread_atfork(NULL, NULL, note_fork); }
#endif

int fastkl_forked(void) { return forked; }

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

int fastkl_read_file(int file, char *to, ptrdiff_t size, int64_t position) {
#ifdef FASTKL_POSIX
    while (size > 0) {
#ifdef RWF_NOWAIT
        const struct iovec all = {to, (size_t)size};
        const ptrdiff_t count = preadv2(file, &all, 1, (off_t)position, RWF_NOWAIT);
#else
        const ptrdiff_t count = pread(file, to, (size_t)size, (off_t)position);
#endif
        if (count <= 0)
            return 0;
        to += count, size -= count, position += count;
    }
    return 1;
#else
    (void)file, (void)to, (void)size, (void)position;
    return 0;
#endif
}
