# What the compiled core offers: externs only. The facts about each name stand in _core/fastkl.h.
from libc.stdint cimport int64_t, uint8_t, uint16_t


cdef extern from "_core/fastkl.h" nogil:
    enum:
        FASTKL_MEASURE_COUNT
        FASTKL_DTYPE_COUNT
        FASTKL_VALID
        FASTKL_P_ENTRY
        FASTKL_Q_ENTRY
        FASTKL_P_SUM
        FASTKL_Q_SUM
        FASTKL_LABEL
        FASTKL_INDEX
        FASTKL_REFUSED
        FASTKL_FIELD_COUNT
        FASTKL_float64
        FASTKL_float32
        FASTKL_nll_p_field
        FASTKL_same_argmax_field
        FASTKL_total_variation_field
        FASTKL_entropy
        FASTKL_cross_entropy
        FASTKL_kl_divergence
        FASTKL_js_divergence
        FASTKL_jeffreys_divergence
        FASTKL_generalized_kl
        FASTKL_renyi_divergence

    ptrdiff_t FASTKL_PIECE, FASTKL_INTERLEAVED_PIECE

    int fastkl_has_root(int measure) noexcept

    ctypedef struct fastkl_operand:
        const char *data
        ptrdiff_t row, col
        int dtype, swapped, logits

    double fastkl_sum_as_scipy(
        int is_rel_entr, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t row, int is_valid
    ) noexcept
    int fastkl_add_differences(
        const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t rows, double *values
    ) noexcept

    ctypedef struct fastkl_shared:
        int wanted, is_done
        ptrdiff_t pieces_done
        uint8_t status

    ctypedef struct fastkl_task:
        int measure, root, ignores
        fastkl_shared *shared
        int64_t ignored
        double eps, p_eps, alpha, beta, p_tolerance, q_tolerance, scale, scale_low, smoothing

    ctypedef struct fastkl_columns:
        const int64_t *at
        const int64_t *sorted
        ptrdiff_t count
        int exact

    ctypedef struct fastkl_sums:
        pass

    # p and q; for nll q and labels
    ctypedef void rows_function "fastkl_rows_function"(
        const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
        double *value, uint8_t *status
    ) noexcept nogil

    ctypedef struct fastkl_tier:
        const char *name
        int (*usable)() noexcept nogil
        int (*group)(const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n) noexcept nogil
        ptrdiff_t (*piece)(const fastkl_operand *p, const fastkl_operand *q) noexcept nogil
        rows_function *rows
        rows_function *logits
        rows_function *nll
        void (*pass_ "pass")(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
            int rows, fastkl_sums *sums
        ) noexcept nogil
        void (*finish)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n,
            const fastkl_sums *sums, double *value, uint8_t *status
        ) noexcept nogil
        void (*compare)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
            ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status
        ) noexcept nogil
        int (*decode)(const uint16_t *record, ptrdiff_t n, float floor_scale, float *values) noexcept nogil
        void (*coarsen)(
            const fastkl_task *task, const fastkl_operand *q, ptrdiff_t n, const fastkl_columns *columns,
            double *entries, uint8_t *status
        ) noexcept nogil
        void (*pass_shared)(const fastkl_shared *row, ptrdiff_t index, void *sums) noexcept nogil
        void (*join_shared)(fastkl_shared *row, const void *sums, ptrdiff_t pieces, int begins, int ends) noexcept nogil
        size_t shared_size, sums_size

    const fastkl_tier *fastkl_tiers[]
    const char *fastkl_measure_names[]
    const char *fastkl_dtype_names[]
    const char *fastkl_field_names[]
    int fastkl_is_single(int dtype) noexcept
    int fastkl_openmp() noexcept
    int fastkl_openmp_threads() noexcept
    int fastkl_most_threads() noexcept
    double fastkl_seconds() noexcept
    int fastkl_forked() noexcept
    const char *fastkl_compiler() noexcept
    int fastkl_read_file(int file, char *to, ptrdiff_t size, int64_t position) noexcept


cdef extern from "_core/sums.h" nogil:
    void fastkl_join_sums(fastkl_sums *to, const fastkl_sums *next) noexcept


cdef extern from "_core/compiler.h" nogil:
    ctypedef struct fastkl_mode:
        pass

    int fastkl_get(const int *word) noexcept
    void fastkl_set(int *word) noexcept
    ptrdiff_t fastkl_next(ptrdiff_t *counter) noexcept
    fastkl_mode fastkl_mode_enter() noexcept
    void fastkl_mode_leave(fastkl_mode caller) noexcept
