/* The function that libFuzzer calls: it makes rows of bytes, and asserts what must hold of them on every tier of this
   machine. fuzz_rows.sh compiles and runs it. Knows of the core what fastkl.h and sums.h say.

   Rows stand in memory of exactly their size, so that AddressSanitizer notices each read beside them. The assertions are:
     - the status is that of a simple check of the entries, and the same on every tier;
     - the value of a valid row is not NaN and not negative; it is infinite where q is zero and p is not, and only there;
     - JS <= log 2, H <= log n; D and JS of equal rows are 0; H, H(p, q) and D are right, by sums in long double;
     - the values of tiers differ at most by the documented errors of both;
     - a row alone, at another alignment, and in pieces has the same bits as among others. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"

#define MOST_ROWS 132
#define MOST_WRONG 1e300 /* above, logits times their scale may make a true divergence overflow */

enum { ROWS, LOGITS, NLL, COMPARE, KINDS };

typedef struct {
    const uint8_t *data;
    size_t left;
    uint64_t state; /* of the numbers that follow the data */
} bytes;

typedef struct {
    fastkl_operand operand; /* of the first row */
    char *memory;
    size_t size, shift;
    ptrdiff_t least; /* offset from the first row's data to the first byte */
} array;

typedef struct {
    int kind;
    fastkl_task task;
    ptrdiff_t n, count;
    array p, q, labels;
} call;

static uint64_t next_random(bytes *from) {
    uint64_t x = from->state += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static unsigned take(bytes *from) {
    if (!from->left)
        return next_random(from) & 0xff;
    from->left--;
    return *from->data++;
}

/* A number below `count`, which is 0 half of the time. */
static unsigned often_first(bytes *from, unsigned count) {
    const unsigned byte = take(from);
    return byte < 128 ? 0 : byte % count;
}

static void fail(const call *now, const char *tier, const char *what, ptrdiff_t row, double is, double wanted) {
    static const char *const kinds[] = {"rows", "logits", "nll", "compare"};
    fprintf(stderr, "%s, %s: row %td: %s: %a (%.17g), not %a (%.17g)\n", tier, kinds[now->kind], row, what, is, is, wanted,
            wanted);
    fprintf(stderr,
            "measure %s root %d eps %a tolerances %a %a scale %a + %a ignores %d %lld smoothing %a n %td count %td\n",
            fastkl_measure_names[now->task.measure], now->task.root, now->task.eps, now->task.p_tolerance,
            now->task.q_tolerance, now->task.scale, now->task.scale_low, now->task.ignores, (long long)now->task.ignored,
            now->task.smoothing, now->n, now->count);
    const array *const arrays[] = {&now->p, &now->q, &now->labels};
    for (int k = 0; k < 3; k++) {
        fastkl_operand from = arrays[k]->operand;
        if (!from.data)
            continue;
        fprintf(stderr, "%c: %s, row %td col %td swapped %d logits %d shift %zu:", "pql"[k], fastkl_dtype_names[from.dtype],
                from.row, from.col, from.swapped, from.logits, arrays[k]->shift);
        from.data += row * from.row;
        for (ptrdiff_t i = 0; i < (k == 2 ? 1 : now->n) && i < 200; i++)
            fprintf(stderr, " %a", fastkl_entry(from, i));
        fprintf(stderr, "\n");
    }
    abort();
}

/* ---- rows in memory ---- */

static uint16_t half_of(float x) { /* rounded towards zero */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x47800000)
        return (uint16_t)(sign | (magnitude > 0x7f800000 ? 0x7e00 : magnitude == 0x7f800000 ? 0x7c00 : 0x7bff));
    if (magnitude >= 0x38800000)
        return (uint16_t)(sign | ((magnitude - 0x38000000) >> 13));
    return (uint16_t)(sign | (uint32_t)ldexpf(fastkl_float_of_bits(magnitude), 24));
}

static double within(double x, double least, double most) { return x > least ? (x < most ? x : most) : least; }

static void store(const array *to, ptrdiff_t row, ptrdiff_t column, double x, const uint64_t *raw) {
    const fastkl_operand *const operand = &to->operand;
    char *const at = to->memory + to->shift + (row * operand->row + column * operand->col - to->least);
    const size_t size = (size_t)fastkl_size(operand->dtype);
    union {
        double f8;
        float f4;
        uint16_t u2;
        int8_t i1;
        uint8_t u1;
        int16_t i2;
        int32_t i4;
        uint32_t u4;
        int64_t i8;
        uint64_t u8;
        char bytes[8];
    } entry;
    uint32_t bits;
    float single = x > 3.4e38 && x < INFINITY     ? 0x1.fffffep127f
                   : x < -3.4e38 && x > -INFINITY ? -0x1.fffffep127f
                                                  : (float)x;
    entry.u8 = raw ? *raw : 0;
    if (raw && operand->dtype == FASTKL_bool)
        entry.u1 &= 1;
    else if (!raw)
        switch (operand->dtype) {
        case FASTKL_float64: entry.f8 = x; break;
        case FASTKL_float32: entry.f4 = single; break;
        case FASTKL_float16: entry.u2 = half_of(single); break;
        case FASTKL_bfloat16:
            memcpy(&bits, &single, sizeof bits);
            entry.u2 = x != x ? 0x7fc0 : (uint16_t)(bits >> 16);
            break;
        case FASTKL_bool: entry.u1 = x > 0; break;
        case FASTKL_int8: entry.i1 = (int8_t)within(x, -128, 127); break;
        case FASTKL_uint8: entry.u1 = (uint8_t)within(x, 0, 255); break;
        case FASTKL_int16: entry.i2 = (int16_t)within(x, -0x1p15, 0x1p15 - 1); break;
        case FASTKL_uint16: entry.u2 = (uint16_t)within(x, 0, 0x1p16 - 1); break;
        case FASTKL_int32: entry.i4 = (int32_t)within(x, -0x1p31, 0x1p31 - 1); break;
        case FASTKL_uint32: entry.u4 = (uint32_t)within(x, 0, 0x1p32 - 1); break;
        case FASTKL_int64: entry.i8 = (int64_t)within(x, -0x1p63, 0x1p63 - 1024); break;
        case FASTKL_uint64: entry.u8 = (uint64_t)within(x, 0, 0x1p64 - 2048); break;
        }
    for (size_t i = 0; i < size; i++)
        at[i] = entry.bytes[operand->swapped ? size - 1 - i : i];
}

/* Memory for `count` rows of n entries where the layout and the alignment say. */
static void allocate(array *to, ptrdiff_t n, ptrdiff_t count, unsigned layout, size_t shift) {
    const ptrdiff_t size = fastkl_size(to->operand.dtype);
    static const signed char gaps[] = {1, 1, 2, -1, -2, 3, 0, 1};
    ptrdiff_t col = gaps[layout & 7] * size, row = n * (col ? col : size);
    if ((layout >> 3 & 7) == 4) /* columns */
        row = size, col = (count + (layout >> 6)) * size;
    if ((layout >> 3 & 7) == 5)
        row = -row;
    if ((layout >> 3 & 7) == 6)
        row += size;
    if ((layout >> 3 & 7) == 7)
        row = 0;
    if ((layout >> 3 & 7) == 3 && layout >> 6 == 3)
        row += 1, col += col > 0; /* strides that are no multiple of the size */
    const ptrdiff_t columns = (n - 1) * col, rows = (count - 1) * row;
    to->operand.row = row, to->operand.col = col;
    to->least = (columns < 0 ? columns : 0) + (rows < 0 ? rows : 0);
    to->size = (size_t)(labs(columns) + labs(rows) + size);
    to->shift = shift;
    to->memory = malloc(to->size + shift);
    memset(to->memory, 0, to->size + shift);
    to->operand.data = to->memory + shift - to->least;
}

/* The same bytes elsewhere. */
static array moved(const array *from, size_t shift) {
    array to = *from;
    if (!from->operand.data)
        return to;
    to.shift = shift;
    to.memory = malloc(to.size + shift);
    memcpy(to.memory + shift, from->memory + from->shift, to.size);
    to.operand.data = to.memory + shift - to.least;
    return to;
}

/* ---- entries ---- */

static const double numbers[] = {
    0, 1, 0.5, 0.25, -0.0, 2, 3, 1e-3, 0x1p-1074, 0x1p-149, 0x1p-1022, 0x1p-126, 0x1p-24, 0x1p-130, 0x1p-1040, 1e-10,
    1e-30, 1e-300, 1 - 0x1p-53, 1 + 0x1p-52, 1 - 0x1p-24f, 1 + 0x1p-23f, 1e10, 1e30, 1e300, 0x1.fffffep127,
    0x1.fffffffffffffp1023, 65504, 1e-40, 1e-310, NAN, INFINITY, -1, -0x1p-1074, -INFINITY, -1e-30, 0x1p53 + 2, 0x1p62,
    255, 127
};
static const double logits_of_note[] = {
    0, 1, -1, -INFINITY, -INFINITY, 2, 0.5, -0.0, 10, 50, -50, 88.7, -87.3, -103.9, 104, 709.7, -708.4, -745.1, 746,
    1e4, -1e4, 1e30, -1e30, 1e300, -1e300, 0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023, 0x1.fffffep127,
    -0x1.fffffep127, 1e-8, 0x1p-1074, 0x1p-52, INFINITY, NAN, 40, -40, 16, 17, 33, 65504
};
#define LENGTH(table) (sizeof(table) / sizeof *(table))

static double nudged(double x, int dtype, unsigned byte) {
    const double away = byte & 1 ? INFINITY : 0;
    if (byte & 6)
        return x;
    return dtype == FASTKL_float64   ? nextafter(x, away)
           : dtype == FASTKL_float32 ? (double)nextafterf((float)x, (float)away)
           : dtype <= FASTKL_bfloat16 ? x * (byte & 1 ? 1.02 : 0.99)
                                      : x + (byte & 1);
}

/* Fills p's or q's rows; q's may be made of p's. */
static void fill(bytes *from, array *to, ptrdiff_t n, ptrdiff_t count, const array *p) {
    const unsigned style = take(from), sum = take(from);
    const ptrdiff_t rows = to->operand.row ? count : 1;
    double entries[64];
    for (ptrdiff_t i = 0; i < rows; i++) {
        const unsigned own = style < 192 ? style : take(from);
        const int power = (int)(sum >> 2) * 2 - 63;
        double total = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            const unsigned byte = take(from);
            double x = 0;
            if (p && (own & 7) >= 5 && to->operand.logits == p->operand.logits) {
                fastkl_operand row = p->operand;
                row.data += i * row.row;
                x = fastkl_entry(row, j);
                x = (own & 7) == 6 ? nudged(x, to->operand.dtype, byte) : x;
                x = (own & 7) == 7 ? (to->operand.logits ? x + power * 0.25 : ldexp(x, power * 8)) : x;
            } else if ((own & 7) == 0) {
                uint64_t raw = byte;
                for (size_t k = 1; k < (size_t)fastkl_size(to->operand.dtype); k++)
                    raw |= (uint64_t)take(from) << 8 * k;
                store(to, i, j, 0, &raw);
                continue;
            } else if (to->operand.logits) {
                x = (own & 7) == 1   ? logits_of_note[byte % LENGTH(logits_of_note)]
                    : (own & 7) == 2 ? ldexp((double)byte - 128, power / 2)
                    : (own & 7) == 3 ? ((double)byte - 128) / 8
                                     : (byte ? ((double)byte - 128) / 4 : -INFINITY);
            } else {
                x = (own & 7) == 1   ? numbers[byte % LENGTH(numbers)]
                    : (own & 7) == 2 ? ldexp(1 + byte / 256.0, power * (int)(byte & 15))
                    : (own & 7) == 3 ? byte & 3
                                     : byte;
            }
            total += x;
            if (n <= (ptrdiff_t)LENGTH(entries))
                entries[j] = x;
            store(to, i, j, x, NULL);
        }
        if ((sum & 3) && (own & 7) && n <= (ptrdiff_t)LENGTH(entries) && !to->operand.logits && total > 0 &&
            total < INFINITY)
            for (ptrdiff_t j = 0; j < n; j++)
                store(to, i, j, entries[j] / total, NULL);
    }
}

/* ---- the right results ---- */

typedef struct {
    int entry, weight, edge; /* is an entry invalid; is one positive; is the sum too near its tolerance to judge? */
    int far; /* is the sum beyond its tolerance? */
} checked;

static checked check_row(fastkl_operand row, ptrdiff_t n, double eps, double tolerance) {
    checked result = {0, 0, 0, 0};
    long double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double x = fastkl_entry(row, i);
        if (row.logits ? !(x < INFINITY) : !(x >= 0 && x < INFINITY))
            result.entry = 1;
        result.weight |= row.logits ? x > -INFINITY : x > 0 || eps > 0;
        sum += x;
    }
    if (!row.logits && tolerance < INFINITY && !result.entry) {
        const double off = (double)fabsl(sum - 1);
        result.far = off > tolerance;
        result.edge = fabs(off - tolerance) <= 1e-5 * (1 + off) * (fastkl_is_single(row.dtype) ? 1 : 1e-6);
    }
    return result;
}

static int64_t label_at(fastkl_operand labels) {
    const double x = fastkl_entry(labels, 0);
    int64_t whole;
    if (labels.dtype != FASTKL_int64)
        return x < 0x1p63 ? (int64_t)x : INT64_MAX;
    fastkl_read(&whole, labels.data, sizeof whole, labels.swapped);
    return whole;
}

/* The right status; -1 where a sum is too near its tolerance to judge. */
static int wanted_status(const call *now, fastkl_operand p, fastkl_operand q, fastkl_operand labels) {
    const fastkl_task *const task = &now->task;
    const double eps = now->kind == COMPARE ? 0 : task->eps;
    if (now->kind == NLL) {
        const int64_t label = label_at(labels);
        if (task->ignores && label == task->ignored)
            return FASTKL_VALID;
        if (label < 0 || label >= now->n)
            return FASTKL_LABEL;
        const checked row = check_row(p, now->n, eps, task->q_tolerance);
        return row.entry ? FASTKL_Q_ENTRY : row.edge ? -1 : row.far || !row.weight ? FASTKL_Q_SUM : FASTKL_VALID;
    }
    const checked of_p = check_row(p, now->n, 0, task->p_tolerance);
    checked of_q = {0, 1, 0, 0};
    if (q.data)
        of_q = check_row(q, now->n, eps, task->q_tolerance);
    if (of_p.entry)
        return FASTKL_P_ENTRY;
    if (of_q.entry)
        return FASTKL_Q_ENTRY;
    if (of_p.edge)
        return -1;
    if (of_p.far || !of_p.weight)
        return FASTKL_P_SUM;
    if (of_q.edge)
        return -1;
    if (of_q.far || !of_q.weight)
        return FASTKL_Q_SUM;
    if (now->kind == COMPARE && labels.data) {
        const int64_t label = label_at(labels);
        if (!(task->ignores && label == task->ignored) && (label < 0 || label >= now->n))
            return FASTKL_LABEL;
    }
    return FASTKL_VALID;
}

typedef struct {
    int equal, lacks; /* same values; p > 0 = q somewhere */
    int moderate; /* no logit so large that differences overflow */
    long double entropy, cross, error; /* of probabilities, and the error that these may have */
} facts;

static facts facts_of(const call *now, fastkl_operand p, fastkl_operand q, int with_values) {
    const double eps = now->kind == COMPARE ? 0 : now->task.eps;
    facts known = {p.logits == q.logits, 0, 1, 0, 0, 0};
    long double p_sum = 0, q_sum = 0, p_terms = 0, q_terms = 0, size = 0;
    for (ptrdiff_t i = 0; i < now->n; i++) {
        const double a = fastkl_entry(p, i), b = q.data ? fastkl_entry(q, i) : a;
        const double clipped = !q.logits && b < eps ? eps : b;
        known.equal &= a == b;
        known.lacks |= (p.logits ? a > -INFINITY : a > 0) && (q.logits ? b == -INFINITY : clipped == 0) && eps == 0;
        if (p.logits || q.logits)
            known.moderate &= !((p.logits && fabs(a) * now->task.scale > MOST_WRONG && a > -INFINITY) ||
                                (q.logits && fabs(b) * now->task.scale > MOST_WRONG && b > -INFINITY));
        if (with_values) {
            p_sum += a, q_sum += clipped;
            if (a > 0) {
                const long double p_log = logl(a), q_log = clipped > 0 ? logl(clipped) : 0;
                p_terms += a * p_log, q_terms += a * q_log, size += a * (fabsl(p_log) + fabsl(q_log));
            }
        }
    }
    if (with_values) {
        known.entropy = logl(p_sum) - p_terms / p_sum;
        known.cross = logl(q_sum) - q_terms / p_sum;
        known.error = 0x1p-62L * (now->n + 4) * (1 + fabsl(logl(p_sum)) + fabsl(logl(q_sum)) + size / p_sum);
    }
    return known;
}

/* The documented error of a value; `eps` is that of the result's type. */
static double bound(const call *now, int measure, double value, double eps) {
    const int logits = now->p.operand.logits + (now->q.operand.data ? now->q.operand.logits : now->p.operand.logits);
    if (measure == FASTKL_entropy || measure == FASTKL_cross_entropy)
        return logits ? eps * (32 * value + 4) : 4 * eps * (value + 0.5);
    if (logits)
        return 32 * eps * fmax(value, 1e-14) + (logits == 1 || now->task.eps > 0 ? 64 * 0x1p-52 * sqrt(value) : 0);
    return (measure == FASTKL_js_divergence ? 6 : 4) * eps * value;
}

static void check_value(const call *now, const char *tier, ptrdiff_t row, int measure, double value, const facts *known,
                        double eps) {
    const int logits = now->p.operand.logits || now->q.operand.logits;
    const double log_n = log((double)now->n);
    if (value != value || signbit(value))
        fail(now, tier, "NaN or negative", row, value, 0);
    if (measure == FASTKL_js_divergence && value > FASTKL_LN2)
        fail(now, tier, "JS above log 2", row, value, FASTKL_LN2);
    if (measure == FASTKL_entropy && value > log_n + bound(now, measure, log_n, eps))
        fail(now, tier, "H above log n", row, value, log_n);
    const int may = measure == FASTKL_cross_entropy || measure == FASTKL_kl_divergence;
    if (may && known->lacks && value != INFINITY)
        fail(now, tier, "q lacks what p has", row, value, INFINITY);
    if (value == INFINITY && !(may && (known->lacks || !known->moderate)))
        fail(now, tier, "infinite", row, value, 0);
    if (known->equal && (measure == FASTKL_js_divergence || (measure == FASTKL_kl_divergence && now->task.eps == 0)) &&
        value != 0)
        fail(now, tier, "equal rows diverge", row, value, 0);
    if (known->error > 0 && !logits && value < INFINITY && measure != FASTKL_js_divergence) {
        const long double wanted = measure == FASTKL_entropy         ? known->entropy
                                   : measure == FASTKL_cross_entropy ? known->cross
                                                                     : known->cross - known->entropy;
        if (fabsl(value - wanted) > bound(now, measure, (double)fabsl(wanted), eps) + 2 * known->error)
            fail(now, tier, "wrong value", row, value, (double)wanted);
    }
}

/* ---- calls ---- */

static int fields_of(const call *now) { return now->kind == COMPARE ? FASTKL_FIELD_COUNT : 1; }

static void compute(const fastkl_tier *tier, const call *now, const fastkl_operand *p, const fastkl_operand *q,
                    const fastkl_operand *labels, ptrdiff_t count, double *value, uint8_t *status) {
    switch (now->kind) {
    case ROWS: tier->rows(&now->task, p, q, now->n, count, value, status); break;
    case LOGITS: tier->logits(&now->task, p, q, now->n, count, value, status); break;
    case NLL: tier->nll(&now->task, p, labels, now->n, count, value, status); break;
    default: tier->compare(&now->task, p, q, labels, now->n, count, value, status);
    }
}

static fastkl_operand row_of(const array *from, ptrdiff_t i) {
    fastkl_operand row = from->operand;
    if (row.data)
        row.data += i * row.row;
    return row;
}

static int same_bits(const double *a, const double *b, int count) {
    for (int i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) && !(a[i] != a[i] && b[i] != b[i]))
            return 0;
    return 1;
}

/* Without labels, the last two fields of a comparison are not values. */
static int fields_to_check(const call *now) {
    return now->kind == COMPARE && !now->labels.operand.data ? FASTKL_nll_p_field : fields_of(now);
}

static void check_places(const fastkl_tier *tier, const call *now, const double *value, const uint8_t *status,
                         bytes *from) {
    const int fields = fields_of(now), compared = fields_to_check(now);
    const array p = moved(&now->p, take(from) & 63), q = moved(&now->q, take(from) & 63),
                labels = moved(&now->labels, take(from) & 7);
    const ptrdiff_t i = take(from) % now->count;
    const fastkl_operand p_row = row_of(&p, i), q_row = row_of(&q, i), label = row_of(&labels, i);
    double alone[FASTKL_FIELD_COUNT];
    uint8_t own_status;
    compute(tier, now, &p_row, &q_row, &label, 1, alone, &own_status);
    if (own_status != status[i])
        fail(now, tier->name, "status alone", i, own_status, status[i]);
    for (int k = 0; k < compared; k++)
        if (!same_bits(&alone[k], &value[i * fields + k], 1))
            fail(now, tier->name, "value alone, elsewhere", i, alone[k], value[i * fields + k]);
    if (now->kind == ROWS) {
        fastkl_sums sums, next;
        for (ptrdiff_t k = 0; k * tier->piece(&p_row, &q_row) < now->n; k++) {
            tier->pass(&now->task, &p_row, &q_row, now->n, k, 1, k ? &next : &sums);
            if (k)
                fastkl_join_sums(&sums, &next);
        }
        tier->finish(&now->task, &p_row, &q_row, now->n, &sums, alone, &own_status);
        if (own_status != status[i] || !same_bits(alone, &value[i], 1))
            fail(now, tier->name, "value in pieces", i, alone[0], value[i]);
    }
    if (p.operand.data)
        free(p.memory);
    if (q.operand.data)
        free(q.memory);
    if (labels.operand.data)
        free(labels.memory);
}

static void check_nll(const call *now, const char *tier, ptrdiff_t row, double loss, fastkl_operand q,
                         fastkl_operand labels, double eps) {
    const int64_t label = label_at(labels);
    const int ignored = now->task.ignores && label == now->task.ignored;
    if (loss != loss || signbit(loss))
        fail(now, tier, "NaN or negative loss", row, loss, 0);
    if (ignored && loss != 0)
        fail(now, tier, "loss of an ignored label", row, loss, 0);
    if (!ignored && eps == 0 && now->task.smoothing == 0) {
        const double x = fastkl_entry(q, label);
        const facts known = facts_of(now, q, q, 0);
        if (known.moderate && (loss == INFINITY) != (q.logits ? x == -INFINITY : x == 0))
            fail(now, tier, "an infinite loss, or a finite one", row, loss, x);
    }
}

static void check(const call *now, bytes *from) {
    static double values[3][MOST_ROWS * FASTKL_FIELD_COUNT];
    static uint8_t statuses[3][MOST_ROWS];
    static const int measures[] = {FASTKL_entropy,       FASTKL_entropy,       FASTKL_cross_entropy,
                                   FASTKL_kl_divergence, FASTKL_kl_divergence, FASTKL_js_divergence};
    const fastkl_tier *tiers[3];
    const int fields = fields_of(now);
    const unsigned more = take(from);
    const int single = fastkl_is_single(now->p.operand.dtype) &&
                       (!now->q.operand.data || fastkl_is_single(now->q.operand.dtype));
    const double eps = single ? 0x1p-23 : 0x1p-52;
    int count = 0;
    for (int i = 0; fastkl_tiers[i]; i++)
        if (fastkl_tiers[i]->usable())
            tiers[count++] = fastkl_tiers[i];
    if (count == 3) /* two are enough to show that one differs */
        tiers[(more >> 5) % 3] = tiers[--count];
    for (int t = 0; t < count; t++)
        compute(tiers[t], now, &now->p.operand, &now->q.operand, &now->labels.operand, now->count, values[t], statuses[t]);
    for (ptrdiff_t i = 0; i < now->count; i++) {
        const fastkl_operand p = row_of(&now->p, i), q = row_of(&now->q, i), label = row_of(&now->labels, i);
        const int wanted = wanted_status(now, p, q, label);
        if (wanted == -1)
            continue;
        for (int t = 0; t < count; t++)
            if (statuses[t][i] != wanted)
                fail(now, tiers[t]->name, "status", i, statuses[t][i], wanted);
        const double *const first = &values[0][i * fields];
        if (wanted != FASTKL_VALID) {
            for (int t = 0; t < count; t++)
                if (values[t][i * fields] == values[t][i * fields])
                    fail(now, tiers[t]->name, "value of an invalid row", i, values[t][i * fields], NAN);
            continue;
        }
        if (now->kind == NLL) {
            for (int t = 0; t < count; t++) {
                const double loss = values[t][i], off = fabs(loss - first[0]);
                check_nll(now, tiers[t]->name, i, loss, p, label, now->task.eps);
                if (loss != first[0] && !(off <= 2 * eps * (32 * first[0] + 4)))
                    fail(now, tiers[t]->name, "loss on other tiers", i, loss, first[0]);
            }
            continue;
        }
        const facts known = facts_of(now, p, q, now->kind == ROWS && (more & 7) == 0);
        const int checked_fields = now->kind == COMPARE ? FASTKL_same_argmax_field : 1;
        for (int k = 0; k < checked_fields; k++) {
            const int measure = now->kind == COMPARE ? measures[k] : now->task.measure;
            facts as_field = known;
            double field_eps = eps; /* an entropy's is that of its own row, as alone */
            if (now->kind == COMPARE && measure == FASTKL_entropy)
                field_eps = fastkl_is_single((k == FASTKL_entropy_q_field ? q : p).dtype) ? 0x1p-23 : 0x1p-52;
            if (now->kind == COMPARE && k == FASTKL_cross_entropy_field && fastkl_is_single(p.dtype))
                field_eps = 0x1p-23;
            if (now->kind == COMPARE && k == FASTKL_reverse_kl_field)
                as_field = facts_of(now, q, p, 0);
            for (int t = 0; t < count; t++) {
                double value = values[t][i * fields + k], other = first[k];
                if (now->task.root)
                    value = value * value * (1 - 0x1p-51), other *= other; /* rounded, and not above log 2 for that */
                check_value(now, tiers[t]->name, i, measure, value, &as_field, field_eps);
                if (value != other && !(fabs(value - other) <= 2 * bound(now, measure, other, field_eps) +
                                                                   0x1p-50 * other * now->task.root + 0x1p-1000))
                    fail(now, tiers[t]->name, "value on other tiers", i, value, other);
            }
        }
        for (int t = 0; t < count && now->kind == COMPARE; t++) {
            const double *const field = &values[t][i * fields];
            if (field[FASTKL_same_argmax_field] != first[FASTKL_same_argmax_field])
                fail(now, tiers[t]->name, "argmax on other tiers", i, field[FASTKL_same_argmax_field],
                     first[FASTKL_same_argmax_field]);
            if (now->labels.operand.data) {
                check_nll(now, tiers[t]->name, i, field[FASTKL_nll_p_field], p, label, 0);
                check_nll(now, tiers[t]->name, i, field[FASTKL_nll_q_field], q, label, 0);
            }
        }
    }
    if (more & 0x10)
        check_places(tiers[more % (unsigned)count], now, values[more % (unsigned)count], statuses[more % (unsigned)count],
                     from);
}

/* ---- from bytes to a call ---- */

static int dtype_of(unsigned byte) {
    return byte < 80 ? FASTKL_float64 : byte < 160 ? FASTKL_float32 : byte % FASTKL_DTYPE_COUNT;
}

static double tolerance_of(unsigned byte) {
    return byte & 1 ? 3.5e-4 : byte & 2 ? 1.5e-8 : 0.088;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const double epsilons[] = {0, 1e-10, 1e-300, 0.01, 0.5, 0x1p-1074, 1e-5, 0.999};
    static const double scales[] = {1, 0.5, 1 / 3.0, 2, 1e-3, 100, 1e-300, 1e300};
    static const double smoothings[] = {0, 0.1, 1, 1e-3};
    static const int label_dtypes[] = {FASTKL_int64, FASTKL_int8, FASTKL_uint8, FASTKL_int32, FASTKL_uint64, FASTKL_uint16};
    static const int lengths[] = {63, 64, 65, 127, 128, 129, 130, 255, 257, 300, 511, 513};
    static const int counts[] = {31, 32, 33, 63, 65, 127, 128, 129};
    bytes from = {data, size, 0};
    call now;
    memset(&now, 0, sizeof now);
    for (size_t i = 0; i < size; i++)
        from.state = (from.state ^ data[i]) * 0x100000001b3;
    const uint64_t chance = next_random(&from);
    const unsigned kind = take(&from), what = take(&from), length = take(&from), many = take(&from), flags = take(&from);
    now.kind = kind & 1 ? ROWS : (int)(kind >> 1) % KINDS;
    now.n = 1 + length % (length < 160 ? 8 : 40);
    now.count = 1 + (many < 160 ? 0 : many % 4);
    /* Chance chooses what takes long: the fuzzer would otherwise vary the inputs that lead to it. */
    const size_t any = (size_t)(chance >> 32);
    if (chance % 262144 == 0)
        now.n = (any & 4 ? FASTKL_PIECE : FASTKL_INTERLEAVED_PIECE) + (ptrdiff_t)(any % 3) - 1, now.count = 1;
    else if (chance % 16384 == 1)
        now.n = 1000 + (ptrdiff_t)(any % 100);
    else if (chance % 256 == 2)
        now.n = lengths[any % LENGTH(lengths)];
    else if (chance % 256 == 3 && now.n <= 16)
        now.count = counts[any % LENGTH(counts)];
    now.task.measure = (int)what % FASTKL_MEASURE_COUNT;
    now.task.root = now.task.measure == FASTKL_js_divergence && now.kind != COMPARE && what & 0x80;
    now.task.p_tolerance = now.task.q_tolerance = INFINITY;
    if (flags & 1) /* of both or of neither: the sum of q is computed beside that of p */
        now.task.p_tolerance = tolerance_of(flags >> 1), now.task.q_tolerance = tolerance_of(flags >> 3);
    now.task.scale = 1;
    if (now.kind == COMPARE)
        now.task.measure = FASTKL_kl_divergence;
    const int pair = now.kind == NLL ? 0 : now.kind == COMPARE || now.task.measure != FASTKL_entropy;
    const int infinite =
        now.kind == NLL || now.task.measure == FASTKL_cross_entropy || now.task.measure == FASTKL_kl_divergence;
    if (infinite && now.kind != COMPARE)
        now.task.eps = epsilons[often_first(&from, LENGTH(epsilons))];
    const int p_dtype = dtype_of(take(&from)), q_dtype = flags & 0x40 ? dtype_of(take(&from)) : p_dtype;
    now.p.operand.dtype = p_dtype, now.q.operand.dtype = pair ? q_dtype : p_dtype;
    const unsigned order = take(&from);
    now.p.operand.swapped = (order & 7) == 7 && fastkl_size(p_dtype) > 1;
    now.q.operand.swapped = (order & 56) == 56 && pair && fastkl_size(q_dtype) > 1;
    if (now.kind != ROWS) {
        const unsigned which = take(&from);
        now.p.operand.logits = now.kind == LOGITS   ? which % 3 != 1
                               : now.kind == NLL ? which & 1
                                                    : which % 3 == 0 || which % 3 == 1;
        now.q.operand.logits = pair && (now.kind == LOGITS ? which % 3 != 2 || !now.p.operand.logits : which % 3 == 0);
        if (now.kind == LOGITS && !pair)
            now.p.operand.logits = 1;
        if (now.kind == NLL || now.p.operand.logits || now.q.operand.logits)
            now.count = 1 + now.count % 2; /* these are taken row by row */
        if (now.p.operand.logits || now.q.operand.logits)
            now.task.scale = scales[often_first(&from, LENGTH(scales))];
    }
    const unsigned p_layout = take(&from), q_layout = take(&from), shifts = take(&from);
    allocate(&now.p, now.n, now.count, p_layout < 96 ? 0 : p_layout, shifts & 64 ? shifts & 7 : 0);
    fill(&from, &now.p, now.n, now.count, NULL);
    if (pair) {
        allocate(&now.q, now.n, now.count, p_layout < 96 ? 0 : q_layout, shifts & 128 ? shifts >> 3 & 7 : 0);
        fill(&from, &now.q, now.n, now.count, &now.p);
    }
    if (now.kind == NLL || (now.kind == COMPARE && kind & 64)) {
        const unsigned which = take(&from);
        now.labels.operand.dtype = label_dtypes[which % LENGTH(label_dtypes)];
        now.labels.operand.swapped = which >> 6 == 3 && fastkl_size(now.labels.operand.dtype) > 1;
        now.task.ignores = which >> 5 & 1, now.task.ignored = which & 16 ? -100 : 1;
        now.task.smoothing = now.kind == NLL ? smoothings[often_first(&from, LENGTH(smoothings))] : 0;
        allocate(&now.labels, 1, now.count, 1, 0);
        for (ptrdiff_t i = 0; i < now.count; i++) {
            const unsigned byte = take(&from);
            store(&now.labels, i, 0, byte < 240 ? (double)(byte % (unsigned)now.n) : (double)byte - 245, NULL);
        }
    }
    check(&now, &from);
    free(now.p.memory);
    free(now.q.memory);
    free(now.labels.memory);
    return 0;
}
