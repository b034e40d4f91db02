# What the compiled core offers: externs only. The facts about each name stand in _core/fastkl.h.
from libc.stdint cimport int64_t, uint8_t


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
        FASTKL_FIELD_COUNT
        FASTKL_float64
        FASTKL_float32
        FASTKL_same_argmax_field
        FASTKL_entropy
        FASTKL_cross_entropy
        FASTKL_kl_divergence
        FASTKL_js_divergence

    ptrdiff_t FASTKL_PIECE

    ctypedef struct fastkl_operand:
        const char *data
        ptrdiff_t row
        ptrdiff_t col
        int dtype
        int swapped
        int logits

    ctypedef struct fastkl_task:
        int (*called_off)(void *with_) noexcept nogil
        void *with_ "with"
        int measure
        int root
        double eps
        double p_tolerance
        double q_tolerance
        double scale
        double scale_low
        int ignores
        int64_t ignored
        double smoothing

    ctypedef struct fastkl_sums:
        pass

    ctypedef struct fastkl_tier:
        const char *name
        int (*usable)() noexcept nogil
        int (*together)(
            const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n
        ) noexcept nogil
        void (*rows)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
            double *value, uint8_t *status
        ) noexcept nogil
        void (*piece)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t index,
            fastkl_sums *sums
        ) noexcept nogil
        void (*finish)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q,
            ptrdiff_t n, const fastkl_sums *pieces,
            double *value, uint8_t *status
        ) noexcept nogil
        void (*logits)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, ptrdiff_t n, ptrdiff_t count,
            double *value, uint8_t *status
        ) noexcept nogil
        void (*losses)(
            const fastkl_task *task, const fastkl_operand *q, const fastkl_operand *labels, ptrdiff_t n, ptrdiff_t count,
            double *value, uint8_t *status
        ) noexcept nogil
        void (*compare)(
            const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q, const fastkl_operand *labels,
            ptrdiff_t n, ptrdiff_t count, double *values, uint8_t *status
        ) noexcept nogil

    const fastkl_tier *fastkl_tiers[]
    const char *fastkl_measure_names[]
    const char *fastkl_dtype_names[]
    const char *fastkl_field_names[]
    int fastkl_openmp() noexcept
    int fastkl_openmp_threads() noexcept
    int fastkl_most_threads() noexcept
    int fastkl_thread() noexcept
    double fastkl_seconds() noexcept
    void fastkl_share(
        ptrdiff_t start, ptrdiff_t stop, int threads,
        void (*visit)(void *with_, ptrdiff_t i, int thread) noexcept nogil, void (*meanwhile)(void *with_) noexcept nogil,
        void *with_
    ) noexcept
    int fastkl_forked() noexcept
    int fastkl_in_a_new_thread(
        void (*work)(void *) noexcept nogil, void (*meanwhile)(void *) noexcept nogil, double seconds, void *with_
    ) noexcept
    const char *fastkl_compiler() noexcept


cdef extern from "_core/region.h" nogil:
    ctypedef struct fastkl_mode:
        pass

    int fastkl_get(const int *word) noexcept
    void fastkl_set(int *word) noexcept
    fastkl_mode fastkl_mode_enter() noexcept
    void fastkl_mode_leave(fastkl_mode caller) noexcept
