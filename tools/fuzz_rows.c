/* The function that libFuzzer calls: it makes rows of bytes, and asserts what must hold of them on every tier of this
   machine. fuzz_rows.sh compiles and runs it. Knows of the core what fastkl.h and sums.h say.

   Rows stand in memory of exactly their size, so that AddressSanitizer notices each read beside them. The assertions are:
     - the status is that of a simple check of the entries, and the same on every tier;
     - the value of a valid row is not NaN and not negative; it is infinite where q is zero and p is not, and only there;
     - JS <= log 2, H <= log n; D and JS of equal rows are 0; H, H(p, q) and D are right, by sums in long double;
     - the values of tiers differ at most by the documented errors of both;
     - a row alone, at another alignment, and in pieces has the same bits as among others. */
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"

#define MOST_ROWS 132
#define MOST_WRONG 1e300 /* above, logits times their scale may make a true divergence overflow */
#define LENGTH(table) (sizeof(table) / sizeof *(table))

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

static fastkl_operand row_of(const array *from, ptrdiff_t i) {
    fastkl_operand row = from->operand;
    if (row.data)
        row.data += i * row.row;
    return row;
}

static void fail(const call *now, const char *tier, const char *what, ptrdiff_t row, double is, double wanted) {
    static const char *const kinds[] = {"rows", "logits", "nll", "compare"};
    const fastkl_task *const task = &now->task;
    const array *const arrays[] = {&now->p, &now->q, &now->labels};
    fprintf(stderr, "%s, %s: row %td: %s: %a (%.17g), not %a (%.17g)\n", tier, kinds[now->kind], row, what, is, is, wanted,
            wanted);
    fprintf(stderr, "measure %s root %d eps %a tolerances %a %a scale %a ignores %d %lld smoothing %a n %td count %td\n",
            fastkl_measure_names[task->measure], task->root, task->eps, task->p_tolerance, task->q_tolerance, task->scale,
            task->ignores, (long long)task->ignored, task->smoothing, now->n, now->count);
    for (int k = 0; k < 3; k++) {
        const fastkl_operand from = row_of(arrays[k], row);
        if (!from.data)
            continue;
        fprintf(stderr, "%c: %s, row %td col %td swapped %d logits %d shift %zu:", "pql"[k], fastkl_dtype_names[from.dtype],
                from.row, from.col, from.swapped, from.logits, arrays[k]->shift);
        for (ptrdiff_t i = 0; i < (k == 2 ? 1 : now->n) && i < 200; i++)
            fprintf(stderr, " %a", fastkl_entry(from, i));
        fprintf(stderr, "\n");
    }
    abort();
}

/* ---- rows in memory ---- */

/* The bits of the entry of a type that is nearest to x; in the 16-bit floats, rounded towards zero. */
__attribute__((target("f16c"))) static uint64_t encoded(int dtype, double x) {
    const float single = isfinite(x) ? (float)fmin(fmax(x, -0x1.fffffep127), 0x1.fffffep127) : (float)x;
    uint64_t bits = 0;
    switch (dtype) {
    case FASTKL_float64: memcpy(&bits, &x, sizeof x); return bits;
    case FASTKL_float32: memcpy(&bits, &single, sizeof single); return bits;
    case FASTKL_float16: return _cvtss_sh(single, _MM_FROUND_TO_ZERO);
    case FASTKL_bfloat16: memcpy(&bits, &single, sizeof single); return isnan(x) ? 0x7fc0 : bits >> 16;
    case FASTKL_bool: return x > 0;
    }
    const int is_signed = fastkl_dtype_names[dtype][0] == 'i', width = 8 * (int)fastkl_size(dtype) - is_signed;
    const double least = is_signed ? -ldexp(1, width) : 0, most = nextafter(ldexp(1, width), 0);
    x = x > least ? (x < most ? x : most) : least;
    return x < 0 ? (uint64_t)(int64_t)x : (uint64_t)x;
}

static void store(const array *to, ptrdiff_t row, ptrdiff_t column, uint64_t bits) {
    const fastkl_operand *const operand = &to->operand;
    char *const at = to->memory + to->shift + (row * operand->row + column * operand->col - to->least);
    const size_t size = (size_t)fastkl_size(operand->dtype);
    for (size_t i = 0; i < size; i++)
        at[operand->swapped ? size - 1 - i : i] = (char)(bits >> 8 * i);
}

/* Memory for `count` rows of n entries where the layout and the alignment say. */
static void allocate(array *to, ptrdiff_t n, ptrdiff_t count, unsigned layout, size_t shift) {
    const ptrdiff_t size = fastkl_size(to->operand.dtype);
    static const signed char gaps[] = {1, 1, 2, -1, -2, 3, 0, 1};
    ptrdiff_t col = gaps[layout & 7] * size, row = n * (col ? col : size);
    switch (layout >> 3 & 7) {
    case 3: row += layout >> 6 == 3, col += layout >> 6 == 3 && col > 0; break; /* no multiples of the size */
    case 4: row = size, col = (count + (layout >> 6)) * size; break;            /* columns */
    case 5: row = -row; break;
    case 6: row += size; break;
    case 7: row = 0; break;
    }
    const ptrdiff_t columns = (n - 1) * col, rows = (count - 1) * row;
    to->operand.row = row, to->operand.col = col;
    to->least = (columns < 0 ? columns : 0) + (rows < 0 ? rows : 0);
    to->size = (size_t)(labs(columns) + labs(rows) + size);
    to->shift = shift;
    to->memory = calloc(to->size + shift, 1);
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

static double nudged(double x, int dtype, unsigned byte) {
    const double away = byte & 1 ? INFINITY : 0;
    if (byte & 6)
        return x;
    return dtype == FASTKL_float64    ? nextafter(x, away)
           : dtype == FASTKL_float32  ? (double)nextafterf((float)x, (float)away)
           : dtype <= FASTKL_bfloat16 ? x * (byte & 1 ? 1.02 : 0.99)
                                      : x + (byte & 1);
}

/* An entry in one of eight styles; the last three are made of p's entry, which is NULL where there is none. */
static double number(unsigned style, unsigned byte, int power, int logits, int dtype, const double *of_p) {
    switch (style) {
    case 1: return logits ? logits_of_note[byte % LENGTH(logits_of_note)] : numbers[byte % LENGTH(numbers)];
    case 2: return logits ? ldexp((double)byte - 128, power / 2) : ldexp(1 + byte / 256.0, power * (int)(byte & 15));
    case 3: return logits ? ((double)byte - 128) / 8 : byte & 3;
    }
    if (style < 5 || !of_p)
        return !logits ? byte : byte ? ((double)byte - 128) / 4 : -INFINITY;
    if (style == 6)
        return nudged(*of_p, dtype, byte);
    return style == 5 ? *of_p : logits ? *of_p + power * 0.25 : ldexp(*of_p, power * 8);
}

/* Fills p's or q's rows; q's may be made of p's. */
static void fill(bytes *from, array *to, ptrdiff_t n, ptrdiff_t count, const array *p) {
    const unsigned style = take(from), sum = take(from);
    const int dtype = to->operand.dtype, logits = to->operand.logits, power = (int)(sum >> 2) * 2 - 63;
    const int by_p = p && logits == p->operand.logits;
    for (ptrdiff_t i = 0; i < (to->operand.row ? count : 1); i++) {
        const unsigned own = (style < 192 ? style : take(from)) & 7;
        double entries[64], total = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            const unsigned byte = take(from);
            const double of_p = by_p ? fastkl_entry(row_of(p, i), j) : 0;
            const double x = number(own, byte, power, logits, dtype, by_p ? &of_p : NULL);
            uint64_t bits = byte & (dtype == FASTKL_bool ? 1 : 255);
            for (ptrdiff_t k = 1; own == 0 && k < fastkl_size(dtype); k++)
                bits |= (uint64_t)take(from) << 8 * k;
            store(to, i, j, own ? encoded(dtype, x) : bits);
            total += entries[j % (ptrdiff_t)LENGTH(entries)] = x;
        }
        const int sums_to_one = (sum & 3) && own && !logits && total > 0 && total < INFINITY;
        for (ptrdiff_t j = 0; sums_to_one && n <= (ptrdiff_t)LENGTH(entries) && j < n; j++)
            store(to, i, j, encoded(dtype, entries[j] / total));
    }
}

/* ---- the right results ---- */

/* What a simple check finds in a row: an invalid entry, an invalid sum, or a sum too near its tolerance to judge. */
enum { SOUND, BAD_ENTRY, BAD_SUM, UNCLEAR };

static int check_row(fastkl_operand row, ptrdiff_t n, double eps, double tolerance) {
    int weight = 0;
    long double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double x = fastkl_entry(row, i);
        if (row.logits ? !(x < INFINITY) : !(x >= 0 && x < INFINITY))
            return BAD_ENTRY;
        weight |= row.logits ? x > -INFINITY : x > 0 || eps > 0;
        sum += x;
    }
    const double off = (double)fabsl(sum - 1), unclear = 1e-5 * (1 + off) * (fastkl_is_single(row.dtype) ? 1 : 1e-6);
    if (row.logits || tolerance == INFINITY)
        return weight ? SOUND : BAD_SUM;
    return fabs(off - tolerance) <= unclear ? UNCLEAR : off > tolerance || !weight ? BAD_SUM : SOUND;
}

static int64_t label_at(fastkl_operand labels) {
    int64_t whole;
    if (labels.dtype != FASTKL_int64)
        return fastkl_entry(labels, 0) < 0x1p63 ? (int64_t)fastkl_entry(labels, 0) : INT64_MAX;
    fastkl_read(&whole, labels.data, sizeof whole, labels.swapped);
    return whole;
}

static int is_ignored(const call *now, fastkl_operand labels) {
    return now->task.ignores && label_at(labels) == now->task.ignored;
}

/* The right status; -1 where a sum is too near its tolerance to judge. */
static int wanted_status(const call *now, fastkl_operand p, fastkl_operand q, fastkl_operand labels) {
    static const int of_p[] = {FASTKL_VALID, FASTKL_P_ENTRY, FASTKL_P_SUM, -1};
    static const int of_q[] = {FASTKL_VALID, FASTKL_Q_ENTRY, FASTKL_Q_SUM, -1};
    const fastkl_task *const task = &now->task;
    const double eps = now->kind == COMPARE ? 0 : task->eps;
    const int labelled = labels.data && !is_ignored(now, labels);
    const int outside = labelled && (label_at(labels) < 0 || label_at(labels) >= now->n);
    if (now->kind == NLL) {
        if (!labelled || outside)
            return outside ? FASTKL_LABEL : FASTKL_VALID;
        return of_q[check_row(p, now->n, eps, task->q_tolerance)];
    }
    const int first = check_row(p, now->n, 0, task->p_tolerance);
    const int second = q.data ? check_row(q, now->n, eps, task->q_tolerance) : SOUND;
    if (first && (first == BAD_ENTRY || second != BAD_ENTRY))
        return of_p[first];
    return second ? of_q[second] : outside ? FASTKL_LABEL : FASTKL_VALID;
}

typedef struct {
    int equal, lacks; /* same values; p > 0 = q somewhere */
    int moderate;     /* no logit so large that differences overflow */
    long double entropy, cross, error; /* of probabilities, and the error that these may have */
} facts;

static int is_large(const call *now, fastkl_operand of, double x) {
    return of.logits && fabs(x) * now->task.scale > MOST_WRONG && x > -INFINITY;
}

static facts facts_of(const call *now, fastkl_operand p, fastkl_operand q, int with_values) {
    const double eps = now->kind == COMPARE ? 0 : now->task.eps;
    facts known = {p.logits == q.logits, 0, 1, 0, 0, 0};
    long double p_sum = 0, q_sum = 0, p_terms = 0, q_terms = 0, size = 0;
    for (ptrdiff_t i = 0; i < now->n; i++) {
        const double a = fastkl_entry(p, i), b = q.data ? fastkl_entry(q, i) : a;
        const double clipped = !q.logits && b < eps ? eps : b;
        known.equal &= a == b;
        known.lacks |= (p.logits ? a > -INFINITY : a > 0) && (q.logits ? b == -INFINITY : clipped == 0) && eps == 0;
        known.moderate &= !is_large(now, p, a) && !is_large(now, q, b);
        p_sum += a, q_sum += clipped;
        if (with_values && a > 0) {
            const long double p_log = logl(a), q_log = clipped > 0 ? logl(clipped) : 0;
            p_terms += a * p_log, q_terms += a * q_log, size += a * (fabsl(p_log) + fabsl(q_log));
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
    const int may = measure == FASTKL_cross_entropy || measure == FASTKL_kl_divergence;
    if (value != value || signbit(value))
        fail(now, tier, "NaN or negative", row, value, 0);
    if (measure == FASTKL_js_divergence && value > FASTKL_LN2)
        fail(now, tier, "JS above log 2", row, value, FASTKL_LN2);
    if (measure == FASTKL_entropy && value > log_n + bound(now, measure, log_n, eps))
        fail(now, tier, "H above log n", row, value, log_n);
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

static void check_nll(const call *now, const char *tier, ptrdiff_t row, double loss, fastkl_operand q,
                      fastkl_operand labels, double eps) {
    const int ignored = is_ignored(now, labels);
    if (loss != loss || signbit(loss))
        fail(now, tier, "NaN or negative loss", row, loss, 0);
    if (ignored && loss != 0)
        fail(now, tier, "loss of an ignored label", row, loss, 0);
    if (!ignored && eps == 0 && now->task.smoothing == 0) {
        const double x = fastkl_entry(q, label_at(labels));
        if (facts_of(now, q, q, 0).moderate && (loss == INFINITY) != (q.logits ? x == -INFINITY : x == 0))
            fail(now, tier, "an infinite loss, or a finite one", row, loss, x);
    }
}

/* ---- calls ---- */

static int fields_of(const call *now) { return now->kind == COMPARE ? FASTKL_FIELD_COUNT : 1; }

static void compute(const fastkl_tier *tier, const call *now, const fastkl_operand *p, const fastkl_operand *q,
                    const fastkl_operand *labels, ptrdiff_t count, double *value, uint8_t *status) {
    static double fields[FASTKL_FIELD_COUNT * MOST_ROWS]; /* of a comparison, which come field after field */
    switch (now->kind) {
    case ROWS: tier->rows(&now->task, p, q, now->n, count, value, status); break;
    case LOGITS: tier->logits(&now->task, p, q, now->n, count, value, status); break;
    case NLL: tier->nll(&now->task, p, labels, now->n, count, value, status); break;
    default:
        tier->compare(&now->task, p, q, labels, now->n, count, fields, status);
        for (ptrdiff_t i = 0; i < count; i++)
            for (int k = 0; k < FASTKL_FIELD_COUNT; k++)
                value[i * FASTKL_FIELD_COUNT + k] = fields[k * count + i];
    }
}

static int same_bits(double a, double b) { return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b)); }

/* A row alone, elsewhere, and in pieces. */
static void check_places(const fastkl_tier *tier, const call *now, const double *value, const uint8_t *status,
                         bytes *from) {
    /* Without labels, the last two fields of a comparison are not values. */
    const int fields = fields_of(now);
    const int compared = now->kind == COMPARE && !now->labels.operand.data ? FASTKL_nll_p_field : fields;
    const ptrdiff_t i = take(from) % now->count;
    const size_t shift = take(from) & 63;
    array copies[] = {moved(&now->p, shift), moved(&now->q, take(from) & 63), moved(&now->labels, shift & 7)};
    const fastkl_operand p = row_of(&copies[0], i), q = row_of(&copies[1], i), label = row_of(&copies[2], i);
    double alone[FASTKL_FIELD_COUNT];
    uint8_t own_status;
    compute(tier, now, &p, &q, &label, 1, alone, &own_status);
    if (own_status != status[i])
        fail(now, tier->name, "status alone", i, own_status, status[i]);
    for (int k = 0; k < compared; k++)
        if (!same_bits(alone[k], value[i * fields + k]))
            fail(now, tier->name, "value alone, elsewhere", i, alone[k], value[i * fields + k]);
    if (now->kind == ROWS) {
        fastkl_sums sums, next;
        for (ptrdiff_t k = 0; k * tier->piece(&p, &q) < now->n; k++) {
            tier->pass(&now->task, &p, &q, now->n, k, 1, k ? &next : &sums);
            if (k)
                fastkl_join_sums(&sums, &next);
        }
        tier->finish(&now->task, &p, &q, now->n, &sums, alone, &own_status);
        if (own_status != status[i] || !same_bits(*alone, value[i]))
            fail(now, tier->name, "value in pieces", i, *alone, value[i]);
    }
    for (int k = 0; k < 3; k++)
        if (copies[k].operand.data)
            free(copies[k].memory);
}

/* The values of a valid row on one tier, beside those of the first. */
static void check_valid(const call *now, const char *tier, ptrdiff_t i, const double *field, const double *first,
                        int with_values) {
    static const int measures[] = {FASTKL_entropy,       FASTKL_entropy,       FASTKL_cross_entropy,
                                   FASTKL_kl_divergence, FASTKL_kl_divergence, FASTKL_js_divergence};
    const fastkl_operand p = row_of(&now->p, i), q = row_of(&now->q, i), label = row_of(&now->labels, i);
    const int compare = now->kind == COMPARE, single_p = fastkl_is_single(p.dtype);
    const int single_q = q.data ? fastkl_is_single(q.dtype) : single_p;
    if (now->kind == NLL) {
        const double off = fabs(*field - *first), eps = single_p ? 0x1p-23 : 0x1p-52;
        check_nll(now, tier, i, *field, p, label, now->task.eps);
        if (*field != *first && !(off <= 2 * eps * (32 * *first + 4)))
            fail(now, tier, "loss on other tiers", i, *field, *first);
        return;
    }
    const facts known = facts_of(now, p, q, with_values), exchanged = compare ? facts_of(now, q, p, 0) : known;
    for (int k = 0; k < (compare ? FASTKL_same_argmax_field : 1); k++) {
        const int measure = compare ? measures[k] : now->task.measure;
        /* In a comparison, an entropy has the error of its own row, as alone, and the cross-entropy that of p's. */
        const int single = compare && k == FASTKL_entropy_q_field ? single_q
                           : compare && measure == FASTKL_entropy ? single_p
                           : compare && k == FASTKL_cross_entropy_field && single_p ? 1
                                                                                    : single_p && single_q;
        const double eps = single ? 0x1p-23 : 0x1p-52;
        double value = field[k], other = first[k];
        if (now->task.root)
            value = value * value * (1 - 0x1p-51), other *= other; /* rounded, and not above log 2 for that */
        check_value(now, tier, i, measure, value, compare && k == FASTKL_reverse_kl_field ? &exchanged : &known, eps);
        if (value != other && !(fabs(value - other) <= 2 * bound(now, measure, other, eps) +
                                                           0x1p-50 * other * now->task.root + 0x1p-1000))
            fail(now, tier, "value on other tiers", i, value, other);
    }
    if (compare && field[FASTKL_same_argmax_field] != first[FASTKL_same_argmax_field])
        fail(now, tier, "argmax on other tiers", i, field[FASTKL_same_argmax_field], first[FASTKL_same_argmax_field]);
    if (compare && label.data) {
        check_nll(now, tier, i, field[FASTKL_nll_p_field], p, label, 0);
        check_nll(now, tier, i, field[FASTKL_nll_q_field], q, label, 0);
    }
}

static void check(const call *now, bytes *from) {
    static double values[3][MOST_ROWS * FASTKL_FIELD_COUNT];
    static uint8_t statuses[3][MOST_ROWS];
    const fastkl_tier *tiers[3];
    const int fields = fields_of(now);
    const unsigned more = take(from);
    int count = 0;
    for (int i = 0; fastkl_tiers[i]; i++)
        if (fastkl_tiers[i]->usable())
            tiers[count++] = fastkl_tiers[i];
    if (count == 3) /* two are enough to show that one differs */
        tiers[(more >> 5) % 3] = tiers[--count];
    for (int t = 0; t < count; t++)
        compute(tiers[t], now, &now->p.operand, &now->q.operand, &now->labels.operand, now->count, values[t], statuses[t]);
    for (ptrdiff_t i = 0; i < now->count; i++) {
        const int wanted = wanted_status(now, row_of(&now->p, i), row_of(&now->q, i), row_of(&now->labels, i));
        for (int t = 0; wanted != -1 && t < count; t++) {
            const double *const field = &values[t][i * fields];
            if (statuses[t][i] != wanted)
                fail(now, tiers[t]->name, "status", i, statuses[t][i], wanted);
            if (wanted == FASTKL_VALID)
                check_valid(now, tiers[t]->name, i, field, &values[0][i * fields], now->kind == ROWS && (more & 7) == 0);
            else if (!isnan(*field))
                fail(now, tiers[t]->name, "value of an invalid row", i, *field, NAN);
        }
    }
    const unsigned one = more % (unsigned)count;
    if (more & 0x10)
        check_places(tiers[one], now, values[one], statuses[one], from);
}

/* ---- from bytes to a call ---- */

static int dtype_of(unsigned byte) {
    return byte < 80 ? FASTKL_float64 : byte < 160 ? FASTKL_float32 : byte % FASTKL_DTYPE_COUNT;
}

static double tolerance_of(unsigned byte) { return byte & 1 ? 3.5e-4 : byte & 2 ? 1.5e-8 : 0.088; }

/* The numbers of rows and of columns. Chance chooses what takes long: the fuzzer would otherwise vary the inputs that lead
   to it. */
static void set_size(call *now, uint64_t chance, unsigned length, unsigned many) {
    static const int lengths[] = {63, 64, 65, 127, 128, 129, 130, 255, 257, 300, 511, 513};
    static const int counts[] = {31, 32, 33, 63, 65, 127, 128, 129};
    const size_t any = (size_t)(chance >> 32);
    now->n = 1 + length % (length < 160 ? 8 : 40);
    now->count = 1 + (many < 160 ? 0 : many % 4);
    if (chance % 262144 == 0)
        now->n = (any & 4 ? FASTKL_PIECE : FASTKL_INTERLEAVED_PIECE) + (ptrdiff_t)(any % 3) - 1, now->count = 1;
    else if (chance % 16384 == 1)
        now->n = 1000 + (ptrdiff_t)(any % 100);
    else if (chance % 256 == 2)
        now->n = lengths[any % LENGTH(lengths)];
    else if (chance % 256 == 3 && now->n <= 16)
        now->count = counts[any % LENGTH(counts)];
}

static void fill_labels(call *now, bytes *from) {
    static const double smoothings[] = {0, 0.1, 1, 1e-3};
    static const int dtypes[] = {FASTKL_int64, FASTKL_int8, FASTKL_uint8, FASTKL_int32, FASTKL_uint64, FASTKL_uint16};
    const unsigned which = take(from);
    const int dtype = now->labels.operand.dtype = dtypes[which % LENGTH(dtypes)];
    now->labels.operand.swapped = which >> 6 == 3 && fastkl_size(dtype) > 1;
    now->task.ignores = which >> 5 & 1, now->task.ignored = which & 16 ? -100 : 1;
    now->task.smoothing = now->kind == NLL ? smoothings[often_first(from, LENGTH(smoothings))] : 0;
    allocate(&now->labels, 1, now->count, 1, 0);
    for (ptrdiff_t i = 0; i < now->count; i++) {
        const unsigned byte = take(from);
        store(&now->labels, i, 0, encoded(dtype, byte < 240 ? (double)(byte % (unsigned)now->n) : (double)byte - 245));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const double epsilons[] = {0, 1e-10, 1e-300, 0.01, 0.5, 0x1p-1074, 1e-5, 0.999};
    static const double scales[] = {1, 0.5, 1 / 3.0, 2, 1e-3, 100, 1e-300, 1e300};
    bytes from = {data, size, 0};
    call now = {.task = {.p_tolerance = INFINITY, .q_tolerance = INFINITY, .scale = 1}};
    for (size_t i = 0; i < size; i++)
        from.state = (from.state ^ data[i]) * 0x100000001b3;
    const uint64_t chance = next_random(&from);
    const unsigned kind = take(&from), what = take(&from), length = take(&from), many = take(&from), flags = take(&from);
    now.kind = kind & 1 ? ROWS : (int)(kind >> 1) % KINDS;
    set_size(&now, chance, length, many);
    now.task.measure = now.kind == COMPARE ? FASTKL_kl_divergence : (int)what % FASTKL_MEASURE_COUNT;
    now.task.root = now.task.measure == FASTKL_js_divergence && what & 0x80;
    if (flags & 1) /* of both or of neither: the sum of q is computed beside that of p */
        now.task.p_tolerance = tolerance_of(flags >> 1), now.task.q_tolerance = tolerance_of(flags >> 3);
    const int pair = now.kind == NLL ? 0 : now.task.measure != FASTKL_entropy;
    const int infinite = now.task.measure == FASTKL_cross_entropy || now.task.measure == FASTKL_kl_divergence;
    if (now.kind == NLL || (infinite && now.kind != COMPARE))
        now.task.eps = epsilons[often_first(&from, LENGTH(epsilons))];
    fastkl_operand *const p = &now.p.operand, *const q = &now.q.operand;
    p->dtype = q->dtype = dtype_of(take(&from));
    if (pair && flags & 0x40)
        q->dtype = dtype_of(take(&from));
    const unsigned order = take(&from);
    p->swapped = (order & 7) == 7 && fastkl_size(p->dtype) > 1;
    q->swapped = (order & 56) == 56 && pair && fastkl_size(q->dtype) > 1;
    if (now.kind != ROWS) { /* of logits p, q or both; for NLL, of p or not */
        const unsigned which = take(&from);
        p->logits = now.kind == NLL ? which & 1 : now.kind == LOGITS ? !pair || which % 3 != 1 : which % 3 < 2;
        q->logits = pair && (now.kind == LOGITS ? which % 3 != 2 : which % 3 == 0);
        if (now.kind == NLL || p->logits || q->logits)
            now.count = 1 + now.count % 2; /* these are taken row by row */
        if (p->logits || q->logits)
            now.task.scale = scales[often_first(&from, LENGTH(scales))];
    }
    const unsigned p_layout = take(&from), q_layout = take(&from), shifts = take(&from);
    allocate(&now.p, now.n, now.count, p_layout < 96 ? 0 : p_layout, shifts & 64 ? shifts & 7 : 0);
    fill(&from, &now.p, now.n, now.count, NULL);
    if (pair) {
        allocate(&now.q, now.n, now.count, p_layout < 96 ? 0 : q_layout, shifts & 128 ? shifts >> 3 & 7 : 0);
        fill(&from, &now.q, now.n, now.count, &now.p);
    }
    if (now.kind == NLL || (now.kind == COMPARE && kind & 64))
        fill_labels(&now, &from);
    check(&now, &from);
    free(now.p.memory);
    free(now.q.memory);
    free(now.labels.memory);
    return 0;
}
