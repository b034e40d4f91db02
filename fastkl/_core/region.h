/* The only file that knows one compiler, operating system or architecture from another.

   FASTKL_REGION(isa) ... FASTKL_REGION_END enclose code compiled for the instruction sets named in `isa`; everything
   outside such a region is built for the plainest machine of the architecture. Include system headers before a region. */
#ifndef FASTKL_REGION_H
#define FASTKL_REGION_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define FASTKL_X86 1
#include <immintrin.h>
#else
#define FASTKL_X86 0
#endif

#define FASTKL_PRAGMA(text) _Pragma(#text)

/* Appended to the 512-bit tier's list: use the whole vectors, which GCC does not by itself. */
#if defined(__clang__)
#define FASTKL_WHOLE_VECTORS ""
#define FASTKL_REGION(isa) FASTKL_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define FASTKL_REGION_END FASTKL_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define FASTKL_WHOLE_VECTORS ",prefer-vector-width=512"
#define FASTKL_REGION(isa) FASTKL_PRAGMA(GCC push_options) FASTKL_PRAGMA(GCC target(isa))
#define FASTKL_REGION_END FASTKL_PRAGMA(GCC pop_options)
#endif

/* Regions need GCC or clang; with another compiler a build has the baseline tier alone. */
#if FASTKL_X86 && (defined(__GNUC__) || defined(__clang__))
#define FASTKL_X86_TIERS 1
#else
#define FASTKL_X86_TIERS 0
#endif

/* Memory is asked for: to come to all caches; or, where so much is that it would not stay in the first, to the others. */
#if defined(__GNUC__) || defined(__clang__)
#define FASTKL_INLINE static inline __attribute__((always_inline))
#define FASTKL_NOINLINE static __attribute__((noinline))
#define FASTKL_PREFETCH(address) __builtin_prefetch(address)
#define FASTKL_PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2)
#elif defined(_MSC_VER)
#define FASTKL_INLINE static __forceinline
#define FASTKL_NOINLINE static __declspec(noinline)
#define FASTKL_PREFETCH(address) ((void)(address))
#define FASTKL_PREFETCH_FAR(address) ((void)(address))
#else
#define FASTKL_INLINE static inline
#define FASTKL_NOINLINE static
#define FASTKL_PREFETCH(address) ((void)(address))
#define FASTKL_PREFETCH_FAR(address) ((void)(address))
#endif

/* After a type: its numbers may stand anywhere. (Where there is no such word, x86 and arm64 do not mind.) */
#if defined(__GNUC__) || defined(__clang__)
#define FASTKL_UNALIGNED __attribute__((aligned(1)))
#else
#define FASTKL_UNALIGNED
#endif

/* Before a loop over lanes, which depend on nothing in each other.
   (clang would unroll the loop first, and then give up.) */
#if defined(__clang__)
#define FASTKL_VECTORIZE FASTKL_PRAGMA(clang loop vectorize(assume_safety) interleave(disable) unroll(disable))
#elif defined(__GNUC__)
#define FASTKL_VECTORIZE FASTKL_PRAGMA(GCC ivdep)
#else
#define FASTKL_VECTORIZE
#endif

/* Vectors as a type, and any of the entries of two of them as a third. */
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define FASTKL_VECTOR(type, size) type __attribute__((vector_size(size)))
#define FASTKL_SHUFFLE __builtin_shufflevector
#endif

/* A vector of floats or doubles from entries of another type, in two or three instructions, to which GCC 12 does not come
   by itself. Not for clang 14, which does, and would not vectorise a loop over what these leave in memory. */
#if FASTKL_X86_TIERS && !defined(__clang__)
#define FASTKL_512_float16(to, from) _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#define FASTKL_512_bfloat16(to, from) \
    _mm512_storeu_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from))), 16))
#define FASTKL_512_int64(to, from) _mm512_storeu_pd(to, _mm512_cvtepi64_pd(_mm512_loadu_si512(from)))
#define FASTKL_512_int32(to, from) _mm512_storeu_pd(to, _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)(from))))
#define FASTKL_512_uint8(to, from) \
    _mm512_storeu_pd(to, _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from)))))
#define FASTKL_256_float16(to, from) _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#define FASTKL_256_bfloat16(to, from)                                                                                      \
    _mm256_storeu_si256((__m256i *)(to),                                                                                   \
                        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from))), 16))
#define FASTKL_256_int32(to, from) _mm256_storeu_pd(to, _mm256_cvtepi32_pd(_mm_loadu_si128((const __m128i *)(from))))
#define FASTKL_256_uint8(to, from) \
    _mm256_storeu_pd(to, _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_loadu_si32(from))))
#endif

/* Do processes fork here, and are threads POSIX's? */
#if defined(__unix__) || defined(__APPLE__)
#define FASTKL_POSIX 1
#else
#define FASTKL_POSIX 0
#endif

/* A word that one thread sets and others look at meanwhile, and
   that orders nothing else. (MSVC's volatile does as much.) */
#if defined(__GNUC__) || defined(__clang__)
static inline int fastkl_get(const int *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void fastkl_set(int *word) { __atomic_store_n(word, 1, __ATOMIC_RELAXED); }
#else
static inline int fastkl_get(const int *word) { return *(const volatile int *)word; }
static inline void fastkl_set(int *word) { *(volatile int *)word = 1; }
#endif

/* Does this CPU, under this operating system, run the tier? (The compilers' test covers both: it asks XGETBV too.) */
#if FASTKL_X86_TIERS
#define FASTKL_CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#endif

/* The floating-point mode of the calling thread. The maths needs rounding to nearest and subnormals as they are, and the
   caller is owed its own mode and its own exception flags back. */
#if FASTKL_X86
typedef unsigned int fastkl_mode;
static inline fastkl_mode fastkl_mode_enter(void) {
    fastkl_mode caller = _mm_getcsr();
    _mm_setcsr(0x1f80); /* the power-on state: all exceptions masked, nearest, no FTZ, no DAZ */
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
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return caller;
}
static inline void fastkl_mode_leave(fastkl_mode caller) {
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(caller.control), "r"(caller.status));
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
