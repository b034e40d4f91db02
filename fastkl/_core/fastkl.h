/* Owns what the parts of the core say to each other: measures, statuses, operands, tasks, sums and tiers. Knows nothing of
   Python, of compilers and of the maths.

   A *row* is a distribution: n numbers, `col` bytes apart. An *operand* is a run of rows, `row` bytes apart. All strides
   are in bytes and may be negative or zero. Results are in nats and in double. */
#ifndef FASTKL_H
#define FASTKL_H

#include <stddef.h>
#include <stdint.h>

#include "../include/fastkl_measures.h"
#include "dtypes.h"

enum { FASTKL_MEASURES(FASTKL_NUMBERED) FASTKL_MEASURE_COUNT };

#define FASTKL_TRAITS(name, upper, pair, infinite, symmetric, equal, root, common) \
    {infinite, symmetric, equal, root, common},
static const struct {
    int infinite, symmetric, equal, root, common;
} fastkl_measures[] = {FASTKL_MEASURES(FASTKL_TRAITS)};

static inline int fastkl_is_infinite(int measure) { return fastkl_measures[measure].infinite; }
static inline int fastkl_is_symmetric(int measure) { return fastkl_measures[measure].symmetric; }

static inline int fastkl_needs_equal_sums(int measure) { return fastkl_measures[measure].equal; }
static inline int fastkl_has_root(int measure) { return fastkl_measures[measure].root; }
static inline int fastkl_is_common(int measure) { return fastkl_measures[measure].common; }

static inline int fastkl_is_normalized(int measure) { return measure != FASTKL_generalized_kl; }
static inline int fastkl_entries_of(int measure) {
    return measure == FASTKL_generalized_kl ? FASTKL_kl_divergence : measure;
}

static inline int fastkl_is_divergence(int measure) {
#define FASTKL_ROW(name, ...) || measure == FASTKL_##name
    return measure == FASTKL_generalized_kl FASTKL_DIVERGENCES(FASTKL_ROW);
#undef FASTKL_ROW
}

static inline int fastkl_is_f_divergence(int measure) {
#define FASTKL_ROW(name, ...) || measure == FASTKL_##name
    return 0 FASTKL_F_DIVERGENCES(FASTKL_ROW);
#undef FASTKL_ROW
}

/* The status of a row says what is wrong with it; 0 says that nothing is. A row that `coarsen` refuses may be valid. */
enum {
    FASTKL_VALID,
    FASTKL_P_ENTRY,
    FASTKL_Q_ENTRY,
    FASTKL_P_SUM,
    FASTKL_Q_SUM,
    FASTKL_LABEL,
    FASTKL_INDEX,
    FASTKL_REFUSED
};

/* The q of a measure of one row, and labels that are not given, have no data and no strides; their dtype is p's.
   `swapped` says that the bytes are in the other order. A row of `logits` stands for its softmax. */
typedef struct {
    const char *data;
    ptrdiff_t row, col;
    int dtype, swapped, logits;
} fastkl_operand;

/* The head of what is known of a wide row of logits while threads share it, at first all 0. The row has no value while a
   pass is `wanted`. The rest is the scheduler's: whether the row has its value, its status, and the pieces that have been
   passed over. */
typedef struct {
    int wanted, is_done;
    ptrdiff_t pieces_done;
    uint8_t status;
} fastkl_shared;

/* So many columns of a row, in an order of their own and sorted; and whether the sum of the other entries needs more digits
   than a double has. */
typedef struct {
    const int64_t *at, *sorted;
    ptrdiff_t count;
    int exact;
} fastkl_columns;

/* What a call computes of every row: a measure, or its square root (`root`). Entries of q are clipped to `eps` from below,
   and those of p to `p_eps`, which is 0 if eps is. A tolerance is the distance that a row's sum may have from 1; INFINITY
   accepts every positive sum. Logits are multiplied by `scale`, whose rounding left `scale_low`. `shared` is NULL, or that
   of the row of which the call is. `alpha` is Renyi's order, and `beta` is 1 - alpha. Of generalized_kl, alpha is the
   weight of the sum of q - p: 1, or 0 for the sum of p log(p/q). The label `ignored` costs nothing, if `ignores`.
   `smoothing` is the share that label smoothing gives to all labels. */
typedef struct {
    int measure, root;
    double eps, p_eps, alpha, beta;
    double p_tolerance, q_tolerance;
    double scale, scale_low;
    fastkl_shared *shared;
    int ignores;
    int64_t ignored;
    double smoothing;
} fastkl_task;

/* Is a measure infinite where q is zero and p is not? */
static inline int fastkl_zero_is_infinite(const fastkl_task *task) {
    return fastkl_is_infinite(task->measure) && (task->measure != FASTKL_renyi_divergence || task->alpha > 1);
}

/* The measure whose terms a pass adds up: of an order of 2, an entry of chi^2 is that of a Renyi divergence. */
static inline int fastkl_terms_of(const fastkl_task *task) {
    return task->measure == FASTKL_renyi_divergence && task->alpha == 2 ? FASTKL_chi2_divergence
                                                                        : fastkl_entries_of(task->measure);
}

/* The task for operands that are exchanged. Of a Renyi divergence, alpha D_beta(y || x) / beta is D_alpha(x || y). */
static inline fastkl_task fastkl_exchanged(const fastkl_task *task) {
    fastkl_task exchanged = *task;
    exchanged.p_tolerance = task->q_tolerance, exchanged.q_tolerance = task->p_tolerance;
    exchanged.p_eps = task->eps, exchanged.eps = task->p_eps;
    exchanged.alpha = task->beta, exchanged.beta = task->alpha;
    return exchanged;
}

/* The smoothed loss of a label, from its own loss and the mean of all. 0 times an infinite loss would be NaN. */
static inline double fastkl_smoothed(const fastkl_task *task, double loss, double mean) {
    return (task->smoothing < 1 ? (1 - task->smoothing) * loss : 0) + (task->smoothing > 0 ? task->smoothing * mean : 0);
}

/* The values that a comparison gives of a row. */
#define FASTKL_FIELDS(X) \
    X(entropy_p) X(entropy_q) X(cross_entropy) X(kl) X(reverse_kl) X(js) X(total_variation) \
    X(same_argmax) X(nll_p) X(nll_q)

#define FASTKL_NUMBERED_FIELD(name) FASTKL_##name##_field,
enum { FASTKL_FIELDS(FASTKL_NUMBERED_FIELD) FASTKL_FIELD_COUNT };

/* What one pass over a row, or over a piece of one, leaves behind: three sums, each with the part that rounding took from
   it; what clipping to eps added to q, and to p; and the OR of the entries' and of the guards' bit patterns. FASTKL_SIGN of
   the former says that there was a negative entry (or -0). That of the latter says that there was a p > 0 where q is too
   small for the term to be trusted, FASTKL_ZERO that this q was zero. */
typedef struct {
    double term, other, weight;
    double term_low, other_low, weight_low;
    double clipped, p_clipped;
    uint64_t entry_bits, guard_bits;
} fastkl_sums;

/* Rows are cut into pieces at multiples of so many columns, and the sums of the pieces are added in index order: a row has
   the same bits, however many threads pass over its pieces. Interleaved rows (neighbours in memory, so that a pass is made
   over several at once) have shorter pieces: 16 rows of one are 2^18 entries, as many as four pieces of other rows. */
#define FASTKL_PIECE ((ptrdiff_t)1 << 16)
#define FASTKL_INTERLEAVED_PIECE ((ptrdiff_t)1 << 14)

#define FASTKL_SIGN ((uint64_t)1 << 63)
#define FASTKL_ZERO ((uint64_t)1 << 62)

/* Rows are prefetched so many bytes ahead of the arithmetic: a page, at whose end the hardware's own prefetching stops. A
   cache line comes at once. */
#define FASTKL_PREFETCH_AHEAD 4096
#define FASTKL_LINE 64

/* The maths compiled for one instruction set.
       group    the number of rows over which a pass is best made at once, 1 for a row at a time
       piece    the number of columns at multiples of which rows are cut
       rows     the values and the statuses of `count` rows; it does best with multiples of `group` rows
       pass     the first half of `rows` for a row that threads share: the sums of piece `index` of the first row, or where
                `group` is more than 1, of the first `rows` rows, at most 128, one fastkl_sums a row
       finish   the second half: the value and the status of the first row, from the joined sums of its pieces
       logits   `rows` where an operand holds logits
       nll      of q and labels: -log(q[label] / sum of q); the statuses are those of q and of labels
       compare  the fields of `count` rows, field after field, the last two only if the labels have data
       decode   the values scale * code + least of a record, which has scale, least and n codes; the result is 1 if the
                scale is that of a floor. Then the codes that are 0 share what the probabilities of the others, e^value,
                leave of 1, up to e^least each. -1, and no values, if the scale is negative or least positive
       coarsen  the entries of the first row at some columns, in their order, and one number for all other entries. Of
                probabilities that is the sum of the others, and then what its rounding left. Of logits, which are
                multiplied by the scale, it is the logarithm of the sum of the others' exponentials, and all are relative
                to the number that comes then. The status is FASTKL_INDEX if a column is out of range or there twice, and
                FASTKL_REFUSED if numbers are too large or too far apart, so that the entries are left to the caller
       pass_shared, join_shared, shared_size, sums_size
                for a row of logits, wider than FASTKL_PIECE, that threads share: the sums of piece `index` of the pass that
                it wants; and those of the next pieces, of sums_size bytes each, joined to those of the pieces before them,
                unless the row `begins` with them. Once it `ends` with them, `logits`, `nll` or `compare` of this row
                alone, with the row's fastkl_shared, of shared_size bytes, in the task, go on to the next pass that it
                wants, or to its value */
typedef void fastkl_rows_function(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                                  ptrdiff_t count, double *value, uint8_t *status);
typedef struct {
    const char *name;
    int (*usable)(void);
    int (*group)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n);
    ptrdiff_t (*piece)(const fastkl_operand *p, const fastkl_operand *q);
    fastkl_rows_function *rows;
    void (*pass)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
                 int rows, fastkl_sums *sums);
    void (*finish)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
                   const fastkl_sums *sums, double *value, uint8_t *status);
    fastkl_rows_function *logits, *nll;
    void (*compare)(const fastkl_task *, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
                    ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status);
    int (*decode)(const uint16_t *record, ptrdiff_t n, float floor_scale, float *values);
    void (*coarsen)(const fastkl_task *, const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *, double *entries,
                    uint8_t *status);
    void (*pass_shared)(const fastkl_shared *, ptrdiff_t index, void *sums);
    void (*join_shared)(fastkl_shared *, const void *sums, ptrdiff_t pieces, int begins, int ends);
    size_t shared_size, sums_size;
} fastkl_tier;

/* tables.c. The tiers of this build, best first, up to a NULL; the names in the tables. */
extern const fastkl_tier *const fastkl_tiers[];
extern const char *const fastkl_measure_names[FASTKL_MEASURE_COUNT];
extern const char *const fastkl_dtype_names[FASTKL_DTYPE_COUNT];
extern const char *const fastkl_field_names[FASTKL_FIELD_COUNT];

/* fallback_rows.c. An entry as a number; the status of a row's entries; the order of the first entries in which p and q
   differ (-1, 1, or 0 if none does); whether an entry is positive; the factor of a rescaled pass (the sum that q should
   have by the sum that it has); and the value of a valid row that is not infinite. */
double fastkl_entry(fastkl_operand, ptrdiff_t i);
int fastkl_check_entries(fastkl_operand p, fastkl_operand q, ptrdiff_t n);
int fastkl_order(fastkl_operand p, fastkl_operand q, ptrdiff_t n);
int fastkl_has_weight(fastkl_operand, ptrdiff_t n, double eps);
double fastkl_ratio_of_sums(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
double fastkl_fallback(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);

/* fallback_logits.c. The value of a valid row of which one operand holds logits, or both do; the loss of a label. */
double fastkl_fallback_logits(const fastkl_task *, fastkl_operand p, fastkl_operand q, ptrdiff_t n);
double fastkl_fallback_nll(const fastkl_task *, fastkl_operand q, ptrdiff_t n, ptrdiff_t label);

/* scipy_rows.c. The sum of a row's terms as SciPy has it; the sums of q - p of rows, to some digits. */
double fastkl_sum_as_scipy(int is_rel_entr, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t row,
                           int is_valid);
int fastkl_add_differences(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t rows, double *values);

/* runtime.c. Whether the build has OpenMP; how many threads a call uses by default, and at most; seconds on a clock that is
   never set back; whether this process is a forked child, which computes with one thread; the compiler; whether so many
   bytes were read from a position of a file. On Linux they are not if the read would have to wait for a disk. */
int fastkl_openmp(void);
int fastkl_openmp_threads(void);
int fastkl_most_threads(void);
double fastkl_seconds(void);
int fastkl_forked(void);
const char *fastkl_compiler(void);
int fastkl_read_file(int file, char *to, ptrdiff_t size, int64_t position);

#endif
