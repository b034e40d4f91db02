/* Owns all that depends on the compiler, on the operating system or on the architecture. Knows nothing of rows.

   FASTKL_REGION(isa) ... FASTKL_REGION_END enclose code compiled for the instruction sets named in `isa`; everything
   outside such a region is built for the plainest machine of the architecture. Include system headers before a region. */
#ifndef FASTKL_COMPILER_H
#define FASTKL_COMPILER_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Compensated sums need each operation as it is written, rounded to its own type. */
#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || FLT_EVAL_METHOD != 0
#error "fastkl needs IEEE arithmetic: compile without -ffast-math, and with FLT_EVAL_METHOD == 0"
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define FASTKL_X86 1
#include <immintrin.h>
#else
#define FASTKL_X86 0
#endif

#define FASTKL_PRAGMA(text) _Pragma(#text)

/* FASTKL_WHOLE_VECTORS ends the 512-bit tier's list, because GCC by itself prefers vectors of 256 bits. With a compiler
   that has no regions, a build has the baseline tier alone.

   FASTKL_VECTORIZE before a loop over lanes says that they do not depend on each other, and FASTKL_TRIPS(n) in its
   condition is n. (clang would unroll the loop first, and could then not vectorise it. If it saw that there are two trips,
   it would put a constant in the place of the second j, and no longer know the loop for one that counts. Until just before
   it vectorises, it cannot tell whether what the empty assembly leaves is a constant, which that never is.) GCC and clang
   vectorise a loop that
   - counts an int from 0 to FASTKL_TRIPS of a constant, the lanes of the tier or a part of them, and has one exit;
   - reads and writes the entries j, or j and a constant or a ptrdiff_t, of arrays, also in functions, if those are inline;
     Python's own flags have -fwrapv, by which the sum of two ints could wrap;
   - chooses by ?: between numbers that are both computed, with no &&, || or if around a load, a store or a call; and by
     comparing numbers, because SSE2 cannot compare 64-bit integers, and GCC does not do that in parts, as clang does;
   - neither prefetches nor calls a function of a library, not even fma in the baseline tier of x86-64.
   tools/packed_instructions.py counts what they make of it. FASTKL_VECTORIZE_INNER is for loops of few operations within
   other loops, which GCC would unroll first. */
#if defined(__clang__)
#define FASTKL_WHOLE_VECTORS ""
#define FASTKL_REGION(isa) FASTKL_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define FASTKL_REGION_END FASTKL_PRAGMA(clang attribute pop)
#define FASTKL_VECTORIZE FASTKL_PRAGMA(clang loop vectorize(assume_safety) interleave(disable) unroll(disable))
#define FASTKL_VECTORIZE_INNER FASTKL_VECTORIZE
#define FASTKL_TRIPS(n) ((n) == 2 ? fastkl_two() : (n))
static inline __attribute__((always_inline)) int fastkl_two(void) {
    int unknown;
    __asm__("" : "=r"(unknown));
    return 2 + __builtin_constant_p(unknown);
}
#elif defined(__GNUC__)
#define FASTKL_WHOLE_VECTORS ",prefer-vector-width=512"
#define FASTKL_REGION(isa) FASTKL_PRAGMA(GCC push_options) FASTKL_PRAGMA(GCC target(isa))
#define FASTKL_REGION_END FASTKL_PRAGMA(GCC pop_options)
#define FASTKL_VECTORIZE FASTKL_PRAGMA(GCC ivdep)
#define FASTKL_VECTORIZE_INNER FASTKL_PRAGMA(GCC ivdep) FASTKL_PRAGMA(GCC unroll 1)
#define FASTKL_TRIPS(n) (n)
#else
#define FASTKL_VECTORIZE
#define FASTKL_VECTORIZE_INNER
#define FASTKL_TRIPS(n) (n)
#endif

/* A prefetch brings a cache line to all caches; FASTKL_PREFETCH_L2 spares the first, for when it could not hold them all.
   Addresses to prefetch may be beyond the operand, where C has no pointers: those of logits are integers. As integers,
   those of probabilities made GCC 12 take 1.3 times as long for KL of 200 float64 columns.
   FASTKL_UNALIGNED says of a type that its numbers may have any address; where there is no such word, any address will do.
   One thread sets a word while others read it, and all threads take from a counter; neither orders other accesses.
   (MSVC's volatile does as much.) */
#if defined(__GNUC__) || defined(__clang__)
#define FASTKL_X86_TIERS FASTKL_X86
#define FASTKL_INLINE static inline __attribute__((always_inline))
#define FASTKL_NOINLINE static __attribute__((noinline))
#define FASTKL_PREFETCH(address) __builtin_prefetch((const char *)(address))
#define FASTKL_PREFETCH_L2(address) __builtin_prefetch((const char *)(address), 0, 2)
#define FASTKL_UNALIGNED __attribute__((aligned(1)))
static inline int fastkl_get(const int *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void fastkl_set(int *word) { __atomic_store_n(word, 1, __ATOMIC_RELAXED); }
static inline ptrdiff_t fastkl_next(ptrdiff_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_ACQ_REL); }
#else
#define FASTKL_X86_TIERS 0
#define FASTKL_INLINE static __forceinline
#define FASTKL_NOINLINE static __declspec(noinline)
#define FASTKL_PREFETCH(address) ((void)(address))
#define FASTKL_PREFETCH_L2(address) ((void)(address))
#define FASTKL_UNALIGNED
static inline int fastkl_get(const int *word) { return *(const volatile int *)word; }
static inline void fastkl_set(int *word) { *(volatile int *)word = 1; }
static inline ptrdiff_t fastkl_next(ptrdiff_t *from) { return _InterlockedExchangeAdd64((volatile __int64 *)from, 1); }
#endif

/* FASTKL_VECTOR is a vector type; FASTKL_SHUFFLE makes a vector of chosen entries of two. */
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define FASTKL_VECTOR(type, size) type __attribute__((vector_size(size)))
#define FASTKL_SHUFFLE __builtin_shufflevector
#endif

/* A vector of floats or doubles from entries of another type, in two or three instructions that GCC 12 does not find by
   itself. clang 14 finds them, and would not vectorise a loop over what these leave in memory. */
#if FASTKL_X86_TIERS && !defined(__clang__)
#define FASTKL_512_float16(to, from) _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#define FASTKL_512_bfloat16(to, from) \
    _mm512_storeu_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from))), 16))
#define FASTKL_512_int64(to, from) _mm512_storeu_pd(to, _mm512_cvtepi64_pd(_mm512_loadu_si512(from)))
#define FASTKL_512_int32(to, from) _mm512_storeu_pd(to, _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)(from))))
#define FASTKL_256_float16(to, from) _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#define FASTKL_256_bfloat16(to, from)                                                                                      \
    _mm256_storeu_si256((__m256i *)(to),                                                                                   \
                        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from))), 16))
#define FASTKL_256_int32(to, from) _mm256_storeu_pd(to, _mm256_cvtepi32_pd(_mm_loadu_si128((const __m128i *)(from))))
#endif

/* Processes fork here, and threads are those of POSIX. */
#if defined(__unix__) || defined(__APPLE__)
#define FASTKL_POSIX
#endif

/* Whether this CPU and this operating system have a feature: the compilers' test covers both, because it also reads XGETBV.
   clang 14 has no name for F16C, so that CPUID is read; its registers are AVX2's. FASTKL_AVX2 names the instruction sets of
   x86-64-v3 for a region, and fastkl_has_avx2 tests for them; the AVX-512 tier needs them, too. */
#if FASTKL_X86_TIERS
#include <cpuid.h>
#define FASTKL_CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define FASTKL_AVX2 "avx2,fma,bmi,bmi2,f16c"
static inline int fastkl_has_avx2(void) {
    unsigned eax, ebx, ecx, edx;
    const int f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_F16C;
    return f16c && FASTKL_CPU_HAS("avx2") && FASTKL_CPU_HAS("fma") && FASTKL_CPU_HAS("bmi") && FASTKL_CPU_HAS("bmi2");
}
#endif

/* The floating-point mode of the calling thread. The maths needs rounding to nearest and subnormal numbers; afterwards the
   caller gets back its own mode and exception flags. What the compiler must not know of the mode it takes for memory, so
   that no access moves across. */
#if FASTKL_X86
typedef unsigned int fastkl_mode;
static inline fastkl_mode fastkl_mode_enter(void) {
    fastkl_mode caller = _mm_getcsr();
    _mm_setcsr(0x1f80); /* the power-on state: all exceptions masked, rounding to nearest, no FTZ, no DAZ */
    return caller;
}
static inline void fastkl_mode_leave(fastkl_mode caller) { _mm_setcsr(caller); }
#elif defined(__aarch64__)
typedef struct {
    uint64_t control, status;
} fastkl_mode;
static inline fastkl_mode fastkl_mode_enter(void) {
    fastkl_mode caller;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(caller.control), "=r"(caller.status));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return caller;
}
static inline void fastkl_mode_leave(fastkl_mode caller) {
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(caller.control), "r"(caller.status) : "memory");
}
#else
#include <fenv.h>
typedef fenv_t fastkl_mode;
static inline fastkl_mode fastkl_mode_enter(void) {
    fastkl_mode caller;
    fegetenv(&caller);
    fesetenv(FE_DFL_ENV);
    return caller;
}
static inline void fastkl_mode_leave(fastkl_mode caller) { fesetenv(&caller); }
#endif

#endif
