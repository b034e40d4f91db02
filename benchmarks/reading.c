/* The upper bound of speed: reads the bytes that a measure reads, and only adds them up.
 *
 * It is as wide and as parallel as a measure could be, and prefetches as far: vectors of WIDTH bytes, several independent
 * sums, both matrices at once. The sums are of integers, because some CPUs are slow at some floating-point values, such as
 * subnormal numbers. A chain of additions gives the clock. reading.py compiles all for the instruction set that fastkl
 * uses, with WIDTH from there. */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t vector __attribute__((vector_size(WIDTH)));
typedef uint64_t unaligned __attribute__((vector_size(WIDTH), aligned(8), may_alias));

enum {
    LINE = 64,
    STEP = 4 * LINE,   /* of each stream, in one iteration */
    SUMS = 4,          /* of each stream */
    AHEAD = 2048,
    BLOCK = 1 << 18    /* of a thread, at a time */
};

static inline uint64_t folded(vector sum)
{
    uint64_t total = 0;
    for (int i = 0; i < (int)(WIDTH / sizeof(uint64_t)); i++)
        total += sum[i];
    return total;
}

/* Sums of two streams of the same length. */
static uint64_t sum_block(const char *a, const char *b, ptrdiff_t bytes)
{
    vector a_sums[SUMS] = {{0}}, b_sums[SUMS] = {{0}};
    ptrdiff_t at = 0;
    for (; at + STEP <= bytes; at += STEP) {
        for (int i = 0; i < STEP; i += LINE) {
            __builtin_prefetch(a + at + i + AHEAD);
            __builtin_prefetch(b + at + i + AHEAD);
        }
        for (int i = 0; i < STEP / WIDTH; i++) {
            a_sums[i % SUMS] += *(const unaligned *)(a + at + i * WIDTH);
            b_sums[i % SUMS] += *(const unaligned *)(b + at + i * WIDTH);
        }
    }
    uint64_t total = 0;
    for (; at < bytes; at++)
        total += (unsigned char)a[at] + (unsigned char)b[at];
    for (int i = 0; i < SUMS; i++)
        total += folded(a_sums[i] + b_sums[i]);
    return total;
}

/* The sum of everything in two streams of the same length; the second may be NULL. With one stream, the two halves of each
 * block are read side by side. */
uint64_t read_streams(const char *a, const char *b, ptrdiff_t bytes, int threads)
{
    uint64_t total = 0;
    ptrdiff_t blocks = (bytes + BLOCK - 1) / BLOCK;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(+ : total)
#else
    (void)threads;
#endif
    for (ptrdiff_t i = 0; i < blocks; i++) {
        ptrdiff_t start = i * BLOCK, length = bytes - start < BLOCK ? bytes - start : BLOCK;
        if (b) {
            total += sum_block(a + start, b + start, length);
        } else {
            ptrdiff_t half = length / 2;
            total += sum_block(a + start, a + start + half, half);
            if (length % 2)
                total += (unsigned char)a[start + length - 1];
        }
    }
    return total;
}

/* A chain of additions, each of which waits for the one before it: one cycle each. */
uint64_t add_chain(uint64_t count)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < count; i += 8)
        for (int j = 0; j < 8; j++) {
            total += count;
            __asm__ volatile("" : "+r"(total)); /* keeps the compiler from joining the additions */
        }
    return total;
}
