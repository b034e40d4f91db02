/* What the parts of the core say to each other. Knows nothing of Python, of compilers and of the maths.

   A *row* is a distribution: n numbers, `col` bytes apart. An *operand* is a run of rows, `row` bytes apart. All strides
   are in bytes and may be negative or zero. Results are in nats and in double. */
#ifndef FASTKL_H
#define FASTKL_H

#include <stddef.h>
#include <stdint.h>

#include "dtypes.h"

/* The measures, one row each: X(name, pair, infinite, symmetric, divergence, sum_of_p, sum_of_q, excess). A measure is this
   row, a term and a finish in measures.inc.h and a case in careful.c. The last three are said in the three sums of a look:
       pair        does it compare p with q?
       infinite    is it infinite where q is zero and p is not?
       symmetric   is it the same, to the bit, for p and q exchanged?
       divergence  is it 0 for equal rows?
       sum_of_q    the sum of the operand that a second look scales: q, or p where there is no q
       excess      what that sum should be, less what it is */
#define FASTKL_MEASURES(X)                                                                 \
    X(entropy, 0, 0, 0, 0, weight, weight, 1 - weight)                                     \
    X(cross_entropy, 1, 1, 0, 0, weight, other, 1 - other)                                 \
    X(kl_divergence, 1, 1, 0, 1, weight, weight + other, -other)                           \
    X(js_divergence, 1, 0, 1, 1, 0.5 * (weight - other), 0.5 * (weight + other), -other)

#define FASTKL_ROW(name, ...) FASTKL_##name,
enum { FASTKL_MEASURES(FASTKL_ROW) FASTKL_MEASURE_COUNT };
#undef FASTKL_ROW

/* What was found wrong with a row; 0 is nothing. */
enum { FASTKL_VALID, FASTKL_P_ENTRY, FASTKL_Q_ENTRY, FASTKL_P_SUM, FASTKL_Q_SUM, FASTKL_LABEL };

/* Without data and strides for the q of a measure that has none, and for labels that are not there; its dtype is then p's.
   `swapped`: in the other byte order. A row of `logits` stands for its softmax. */
typedef struct {
    const char *data;
    ptrdiff_t row, col;
    int dtype, swapped, logits;
} fastkl_operand;

/* What is asked of every row: a measure, or its square root. A tolerance says how far a row's sum may be from 1; INFINITY
   accepts every positive sum. `scale` multiplies logits; scale_low is what its rounding left. Of labels: the one that is
   `ignored`, if one is, and the share that label smoothing gives to all. `called_off` is asked now and then, if it is
   there, while a call is long: if so, the rest is left, and no value or status is to be read. */
typedef struct {
    int (*called_off)(void *with);
    void *with;
    int measure, root;
    double eps;
    double p_tolerance, q_tolerance;
    double scale, scale_low;
    int ignores;
    int64_t ignored;
    double smoothing;
} fastkl_task;

/* Entries of a row, or of each of those that are looked at together, after which a call may turn out to be called off. */
#define FASTKL_LONG ((ptrdiff_t)1 << 13)

/* Is the rest of the call to be left? The answer stays, once it is yes. */
static inline int fastkl_is_off(const fastkl_task *task) { return task->called_off && task->called_off(task->with); }

/* The condition of a loop over n entries: is there an i-th, and the call, if it may be long, not off? */
static inline int fastkl_goes_on(const fastkl_task *task, ptrdiff_t i, ptrdiff_t n) {
    return i < n && !(n > FASTKL_LONG && i % FASTKL_LONG == 0 && fastkl_is_off(task));
}

/* Label smoothing of a label's loss, by the mean of all. A loss
   that is infinite counts for nothing where it has no share. */
static inline double fastkl_smoothed(const fastkl_task *task, double loss, double mean) {
    return (task->smoothing < 1 ? (1 - task->smoothing) * loss : 0) + (task->smoothing > 0 ? task->smoothing * mean : 0);
}

/* The values that a comparison gives for a row. */
#define FASTKL_FIELDS(X) \
    X(entropy_p) X(entropy_q) X(cross_entropy) X(kl) X(reverse_kl) X(js) X(same_argmax) X(nll_p) X(nll_q)

#define FASTKL_ROW(name) FASTKL_##name##_field,
enum { FASTKL_FIELDS(FASTKL_ROW) FASTKL_FIELD_COUNT };
#undef FASTKL_ROW

/* What one look at a row, or at a piece of one, leaves behind: three sums, each with the part that rounding took from it,
   and the OR of the entries' and of the guards' bit patterns: FASTKL_SIGN of the former says that there was a negative
   entry (or -0), that of the latter and FASTKL_ZERO what lanes.inc.h says. `raised` is what eps added to q. */
typedef struct {
    double term, other, weight;
    double term_low, other_low, weight_low;
    double raised;
    uint64_t entry_bits, guard_bits;
} fastkl_sums;

/* A row wider than this is looked at in pieces, cut at multiples of it, and the pieces' sums are added in index order:
   the same bits, whoever looks at which piece. */
#define FASTKL_PIECE ((ptrdiff_t)1 << 16)

#define FASTKL_SIGN ((uint64_t)1 << 63)
#define FASTKL_ZERO ((uint64_t)1 << 62)

/* How far ahead of the arithmetic memory is asked for, and how much of it at once, in bytes. */
#define FASTKL_PREFETCH_AHEAD 4096
#define FASTKL_LINE 64

/* The maths compiled for one instruction set. `rows` gives `count` rows' values and statuses; it is at its best with
   multiples of `together` rows. Where that is 1, `piece` and `finish` are its two halves for a row that many threads share:
   look at one piece of it, and conclude from the sums of all. `logits` is `rows` where an operand holds logits; `losses`
   gives -log(q[label]/sum of q); `compare` FASTKL_FIELD_COUNT values a row, the last two only if the labels have data. */
typedef struct {
    const char *name;
    int (*usable)(void);
    int (*together)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n);
    void (*rows)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                 double *value, uint8_t *status);
    void (*piece)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
                  fastkl_sums *);
    void (*finish)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                   const fastkl_sums *pieces, double *value, uint8_t *status);
    void (*logits)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
                   double *value, uint8_t *status);
    void (*losses)(const fastkl_task *, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n, ptrdiff_t count,
                   double *value, uint8_t *status);
    void (*compare)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status);
} fastkl_tier;

/* dispatch.c: the tiers that this build has, best first, up to a NULL; the tables' names. */
extern const fastkl_tier *const fastkl_tiers[];
extern const char *const fastkl_measure_names[FASTKL_MEASURE_COUNT];
extern const char *const fastkl_dtype_names[FASTKL_DTYPE_COUNT];
extern const char *const fastkl_field_names[FASTKL_FIELD_COUNT];

/* careful.c: is an entry invalid (a status), the order of the first entries in which p and q differ (-1, 1, or 0 if none
   does), has a row a positive entry, the factor that a second look wants (the sum that q should have, by the sum that it
   has), and the value of a valid row that is not infinite. Any answer will do if the call is off. */
int fastkl_check_entries(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
int fastkl_order(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
int fastkl_has_weight(const fastkl_task *, fastkl_operand, ptrdiff_t n, double eps);
double fastkl_quotient(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
double fastkl_careful(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
double fastkl_entry(fastkl_operand, ptrdiff_t i);

/* careful_logits.c: the same for rows of which one holds logits, or both do; the loss of a label. */
double fastkl_careful_logits(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
double fastkl_careful_loss(const fastkl_task *, fastkl_operand q, ptrdiff_t n, ptrdiff_t label);

/* surroundings.c: the build and its surroundings; how many threads a call has that asks for no number, and at most; which
   of its parallel region's threads the calling one is, from 0 on; seconds since whenever. To rest is to leave the processor
   to others for some 0.1 ms, where that can be done. */
int fastkl_openmp(void);
int fastkl_openmp_threads(void);
int fastkl_most_threads(void);
int fastkl_thread(void);
double fastkl_seconds(void);
void fastkl_rest(void);
const char *fastkl_compiler(void);

/* parallel.c: has every i from start up to stop visited, by one of so many threads, counted from the calling one, 0. That
   calls `meanwhile` before each visit of its own, and again and again while it waits for the others'. */
void fastkl_share(ptrdiff_t start, ptrdiff_t stop, int threads, void (*visit)(void *with, ptrdiff_t i, int thread),
                  void (*meanwhile)(void *with), void *with);

/* forks.c: has the calling thread come here through a fork, and has it to leave what is parallel to a new thread? Have work
   done by one: `meanwhile` is called every so many seconds until it is. 0 if there is none: then nothing is done. */
int fastkl_forked(void);
int fastkl_in_a_new_thread(void (*work)(void *), void (*meanwhile)(void *), double seconds, void *with);

#endif
