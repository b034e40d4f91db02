/* What a forked process has to do otherwise. Knows nothing of what is computed.

   OpenMP keeps threads waiting for the thread that began a parallel region. They do not come along
   into a forked child, but GCC's libgomp does not know: where the thread that forked begins another
   region, it waits for them for ever. Any other thread there is given new ones. So the thread that
   forked is marked, in the child, and a new thread does what it would have done in parallel. Nothing
   that others in the process use is touched: not OpenMP's settings, not its threads, not the parent.

   LLVM's libomp begins anew in a child by itself. But not where KMP_INIT_AT_FORK says so, and scikit-learn says so when it
   is imported: in such a child nothing is done in parallel. */
#define _GNU_SOURCE /* dladdr */
#include "fastkl.h"
#include "region.h"

#if defined(_OPENMP) && FASTKL_POSIX
#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* A function of libomp's, which can also stand in for libgomp when all is loaded. */
extern int kmp_get_blocktime(void) __attribute__((weak));

/* Is it libomp that the regions here are left to? Both may be there; then what both have is the one's that came first. */
static int by_libomp(void) {
    Dl_info regions, libomp;
    return kmp_get_blocktime && dladdr((void *)(uintptr_t)omp_get_max_threads, &regions) &&
           dladdr((void *)(uintptr_t)kmp_get_blocktime, &libomp) && regions.dli_fbase == libomp.dli_fbase;
}

static _Thread_local int forked;
static int alone;

static void mark(void) {
    if (!by_libomp())
        forked = 1;
    else if (getenv("KMP_INIT_AT_FORK"))
        alone = 1;
}

__attribute__((constructor)) static void notice_forks(void) { pthread_atfork(NULL, NULL, mark); }

int fastkl_forked(void) { return forked || alone; }

/* What is done, and whether it has been. */
typedef struct {
    void (*work)(void *);
    void *with;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int done;
} task;

static void *perform(void *argument) {
    task *const now = argument;
    now->work(now->with);
    pthread_mutex_lock(&now->lock);
    now->done = 1;
    pthread_cond_signal(&now->changed);
    pthread_mutex_unlock(&now->lock);
    return NULL;
}

int fastkl_in_a_new_thread(void (*work)(void *), void (*meanwhile)(void *), double seconds, void *with) {
    task now = {work, with, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t thread;
    if (alone || pthread_create(&thread, NULL, perform, &now))
        return 0;
    pthread_mutex_lock(&now.lock);
    while (!now.done) {
        struct timespec until;
        timespec_get(&until, TIME_UTC); /* the clock of conditions */
        until.tv_nsec += (long)(1e9 * seconds);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&now.changed, &now.lock, &until)) {
            pthread_mutex_unlock(&now.lock);
            meanwhile(with);
            pthread_mutex_lock(&now.lock);
        }
    }
    pthread_mutex_unlock(&now.lock);
    pthread_join(thread, NULL);
    return 1;
}
#else
int fastkl_forked(void) { return 0; }

int fastkl_in_a_new_thread(void (*work)(void *), void (*meanwhile)(void *), double seconds, void *with) {
    (void)work, (void)meanwhile, (void)seconds, (void)with;
    return 0;
}
#endif
