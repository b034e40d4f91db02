/* Owns the passes over short rows of logits, LANES rows at a time, of which each lane has one. In REAL. Knows nothing of
   what the sums mean.

   All that a row needs is in its lane: its largest logit, the reference of its weights, its mean log(q/p) and the form of
   its terms. If a lane needs a form that costs more, all lanes compute it, and those that do not need it keep what they
   have: a row's bits do not depend on its neighbours. */

/* The columns of the rows' logits: column i stands `step` i bytes from `data` on. */
typedef struct {
    const char *data;
    ptrdiff_t step;
} NAME(short_columns);

FASTKL_INLINE const NAME(loose) *NAME(short_column)(NAME(short_columns) from, int i) {
    return (const NAME(loose) *)(from.data + i * from.step);
}

/* Copies the entries of LANES rows of two or three, which follow each other without a gap, to the columns of a tile.
   Loops of this form become shuffles. */
FASTKL_INLINE void NAME(deal_out)(REAL *tile, const NAME(loose) *from, int n) {
    if (n == 2) {
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL first = from[2 * j], second = from[2 * j + 1];
            tile[j] = first, tile[LANES + j] = second;
        }
    } else {
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL first = from[3 * j], second = from[3 * j + 1], third = from[3 * j + 2];
            tile[j] = first, tile[LANES + j] = second, tile[2 * LANES + j] = third;
        }
    }
}

/* The columns of up to LANES rows of n logits, where they stand or copied to the tile. */
FASTKL_NOINLINE NAME(short_columns) NAME(load_short)(REAL *tile, const fastkl_operand *from, int first, int n, int rows) {
    const char *const data = from->data + first * from->row;
    if (n <= 3 && from->dtype == REAL_DTYPE && rows == LANES && in_a_row(from) && from->row == n * from->col) {
        NAME(deal_out)(tile, (const NAME(loose) *)data, n);
        return (NAME(short_columns)){(const char *)tile, COLUMN_BYTES};
    }
    const NAME(columns) columns = NAME(group_columns)(tile, from, data, n, rows);
    return (NAME(short_columns)){columns.data, columns.step};
}

/* A sum in each lane. Columns are added to its parts in turn. */
typedef struct {
    REAL part[SHORT_PARTS][LANES];
} NAME(short_sum);

FASTKL_INLINE void NAME(clear_short)(NAME(short_sum) *sum) {
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        sum->part[0][j] = sum->part[1][j] = sum->part[2][j] = sum->part[3][j] = 0;
}

FASTKL_INLINE REAL NAME(short_total)(const NAME(short_sum) *sum, int j) {
    return (sum->part[0][j] + sum->part[1][j]) + (sum->part[2][j] + sum->part[3][j]);
}

/* The largest logit of each lane. A NaN may be missed here, because it shows in all sums. */
FASTKL_INLINE void NAME(short_largest)(NAME(short_columns) x, int n, REAL *max) {
    REAL largest[LANES];
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        largest[j] = NAME(short_column)(x, 0)[j];
    for (int i = 1; i < n; i++) {
        const NAME(loose) *const now = NAME(short_column)(x, i);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            largest[j] = NAME(greater)(largest[j], now[j]);
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        max[j] = largest[j];
}

/* The same, and the least logit. */
FASTKL_INLINE void NAME(short_extremes)(NAME(short_columns) x, int n, REAL *max, REAL *min) {
    REAL largest[LANES], least[LANES];
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        largest[j] = least[j] = NAME(short_column)(x, 0)[j];
    for (int i = 1; i < n; i++) {
        const NAME(loose) *const now = NAME(short_column)(x, i);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            largest[j] = NAME(greater)(largest[j], now[j]);
            least[j] = NAME(lesser)(least[j], now[j]);
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        max[j] = largest[j], min[j] = least[j];
}

/* The reference of each lane's weights: the exponent that makes the weight of its largest logit about 1, the bit pattern
   of 2^-exponent, and the least logit that does not underflow. */
typedef struct {
    REAL exponent[LANES], low[LANES];
    UINT unit[LANES];
} NAME(short_reference);

FASTKL_INLINE void NAME(set_short_reference)(const REAL *max, NAME(factor) c, NAME(short_reference) *to) {
    const REAL ln2 = (REAL)(FASTKL_LN2 / (double)c.high);
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
        const REAL rounded = NAME(mul_add)(NAME(scale)(max[j], c), LOG2E, ROUNDER), exponent = rounded - ROUNDER;
        to->unit[j] = ONE_BITS - (NAME(bits)(rounded) << MANTISSA_BITS);
        to->exponent[j] = exponent;
        to->low[j] = (exponent - LOST) * ln2;
    }
}

/* Sets bits for what NAME(find_masks) finds, in each lane, but one if the value is infinite. `far` is by temperature. */
FASTKL_NOINLINE void NAME(find_short_masks)(NAME(short_columns) p, NAME(short_columns) q, int n, REAL c, const REAL *far,
                                            const NAME(short_reference) *at, INT *found) {
    const REAL infinity = INFINITY, negligible = PICK(1024, 128) / c;
    for (int i = 0; i < n; i++) {
        const NAME(loose) *const x = NAME(short_column)(p, i), *const y = NAME(short_column)(q, i);
        FASTKL_VECTORIZE_INNER
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const INT unmasked = x[j] > -infinity ? SHORT_MASKED : 0;
            const INT counts = x[j] > at->low[j] - negligible ? SHORT_UNDERFLOW : 0;
            found[j] |= y[j] == -infinity ? unmasked : 0;
            found[j] |= y[j] * c < far[j] ? x[j] <= at->low[j] ? counts : 0 : 0;
        }
    }
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++) /* the value is infinite either way */
        found[j] = found[j] & SHORT_MASKED ? found[j] & ~SHORT_UNDERFLOW : found[j];
}

#include "logits_short_moments.inc.h"
#include "logits_short_entropies.inc.h"
#include "logits_short_ratios.inc.h"
