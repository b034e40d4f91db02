/* The element maths of logits: e^x, and e^x - 1 - x, for one number, in REAL, as branch-free scalar code that the compiler
   vectorises. Knows nothing of rows and sums.

   x = k ln 2 + r with the nearest integer k; adding k to the exponent of a bit pattern multiplies by 2^k. */

/* What logits are multiplied by: 1/temperature, high + low. `tempered`
   is a constant wherever it occurs: 0 says that it is 1. */
typedef struct {
    REAL high, low;
    int tempered;
} NAME(scaling);

/* E(r), by Estrin's scheme, whose parts do not wait for each other. */
FASTKL_INLINE REAL NAME(E)(REAL r) {
    static const REAL c[] = {E_COEFFICIENTS};
    const REAL r2 = r * r, low = NAME(mul_add)(r, c[1], c[0]), next = NAME(mul_add)(r, c[3], c[2]);
#if REAL_BITS == 64
    const REAL r4 = r2 * r2, high = NAME(mul_add)(r2, NAME(mul_add)(r, c[7], c[6]), NAME(mul_add)(r, c[5], c[4]));
    return NAME(mul_add)(r4, NAME(mul_add)(r4, NAME(mul_add)(r, c[9], c[8]), high), NAME(mul_add)(r2, next, low));
#else
    return NAME(mul_add)(r2, NAME(mul_add)(r2, c[4], next), low);
#endif
}

/* r of x, and k as what has to be added to a bit pattern, modulo the pattern's range. |x| < 2^20. Without FMA, k LN2_HEAD
   and what it leaves of x are exact, and k LN2_REST is rounded: an error of k 2^-33 (k 2^-73 in double). If not `full`, r
   lacks k LN2_LOW, or so: no more than what an x that was rounded lacks itself. */
FASTKL_INLINE REAL NAME(reduced)(REAL x, int full, UINT *step) {
    const REAL rounded = NAME(mul_add)(x, LOG2E, ROUNDER), k = rounded - ROUNDER;
    *step = NAME(bits)(rounded) << MANTISSA_BITS;
#if FASTKL_FMA
    const REAL r = FMA(-k, LN2_HIGH, x);
    return full ? FMA(-k, LN2_LOW, r) : r;
#else
    (void)full;
    return (x - k * LN2_HEAD) - k * LN2_REST;
#endif
}

/* e^(x c), times the power of two whose bit pattern is `unit`: for the largest logit
   it had better be near 1. The logit is never subtracted from another, which would be
   rounded: this is within 1.2 units in the last place, whatever the logit's size. */
FASTKL_INLINE REAL NAME(exp)(REAL x, NAME(scaling) c, UINT unit) {
    const REAL y = c.tempered ? x * c.high : x;
    UINT step;
    REAL r = NAME(reduced)(y, 1, &step);
    if (c.tempered)
        r += FMA(x, c.high, -y) + x * c.low;
    return (NAME(mul_add)(r * r, NAME(E)(r), r) + 1) * NAME(from_bits)(unit + step);
}

/* psi(x) = e^x - 1 - x >= 0, with full relative accuracy near 0, where it
   is x^2/2; and e^x. For k = 0, r is x and all terms but psi(r) vanish. */
FASTKL_INLINE REAL NAME(psi_and_exp)(REAL x, REAL within, int full, REAL *exp) {
    UINT step;
    const REAL r = NAME(reduced)(within, full, &step), of_r = r * r * NAME(E)(r), power = NAME(from_bits)(ONE_BITS + step);
    *exp = power * (1 + (r + of_r));
    return NAME(mul_add)(power, of_r, (power - 1) + NAME(mul_add)(power, r, -x));
}

/* psi(x) for |x| <= APART, of an x that was rounded; psi and e^x
   for any x, beyond APART with the exponential from there. */
FASTKL_INLINE REAL NAME(psi_within)(REAL x) {
    REAL exp;
    return NAME(psi_and_exp)(x, x, 0, &exp);
}
FASTKL_INLINE REAL NAME(psi)(REAL x, REAL *exp) {
    const REAL high = x < APART ? x : APART, within = high > -APART ? high : -APART;
    return NAME(psi_and_exp)(x, within, 1, exp);
}
