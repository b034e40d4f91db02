/* Owns the element maths of logits: e^x, and psi(x) = e^x - 1 - x, of one number, as branch-free scalar code that the
   compiler vectorises. In REAL. Knows nothing of rows and sums.

   x = k ln 2 + r with the nearest integer k; adding k to the exponent in a bit pattern multiplies by 2^k. */

/* E(r) by Estrin's scheme, whose parts do not wait for each other. */
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

/* r of x for |x| < 2^20 and its k. Without FMA, k LN2_HEAD and its difference from x are exact, and k LN2_REST is rounded:
   an error of k 2^-33 (k 2^-73 in double). If not `full`, r lacks about k LN2_LOW, which is no more than a rounded x lacks
   itself. */
FASTKL_INLINE REAL NAME(rest)(REAL x, REAL k, int full) {
#if FASTKL_FMA
    const REAL r = FMA(-k, LN2_HIGH, x);
    return full ? FMA(-k, LN2_LOW, r) : r;
#else
    (void)full;
    return (x - k * LN2_HEAD) - k * LN2_REST;
#endif
}

/* The same; and k, in *step, as the number to add to a bit pattern, modulo the pattern's range. */
FASTKL_INLINE REAL NAME(reduce)(REAL x, int full, UINT *step) {
    const REAL rounded = NAME(mul_add)(x, LOG2E, ROUNDER);
    *step = NAME(bits)(rounded) << MANTISSA_BITS;
    return NAME(rest)(x, rounded - ROUNDER, full);
}

/* e^(x c) times the power of two whose bit pattern is `unit`, which should make the weight of the largest logit about 1.
   The reference is in the exponent instead of being subtracted from the logit, which would round: the error is at most 1.2
   units in the last place, whatever the logit's size. */
FASTKL_INLINE REAL NAME(exp)(REAL x, NAME(factor) c, UINT unit) {
    const REAL y = NAME(scale)(x, c);
    UINT step;
    REAL r = NAME(reduce)(y, 1, &step);
    if (c.scaled)
        r += NAME(scale_low)(x, c, y);
    return (NAME(mul_add)(r * r, NAME(E)(r), r) + 1) * NAME(from_bits)(unit + step);
}

/* psi(x) >= 0 with full relative accuracy near 0, where it is x^2/2; and e^x. x is `clamped` to where e^x is normal. For k
   = 0, r is x and all terms but psi(r) vanish. */
FASTKL_INLINE REAL NAME(psi_and_exp)(REAL x, REAL clamped, int full, REAL *exp) {
    UINT step;
    const REAL r = NAME(reduce)(clamped, full, &step), of_r = r * r * NAME(E)(r), power = NAME(from_bits)(ONE_BITS + step);
    *exp = power * (1 + (r + of_r));
    return NAME(mul_add)(power, of_r, (power - 1) + NAME(mul_add)(power, r, -x));
}

/* psi(x) and e^x of any x; beyond APART, with the exponential of that. */
FASTKL_INLINE REAL NAME(psi)(REAL x, REAL *exp) {
    const REAL high = x < APART ? x : APART, clamped = high > -APART ? high : -APART;
    return NAME(psi_and_exp)(x, clamped, 1, exp);
}

/* psi(x + low), e^(x + low) and e^(x + low) - 1, for x within APART of 0. */
FASTKL_INLINE REAL NAME(psi_of_parts)(REAL x, REAL low, REAL *exp, REAL *exp_less_1) {
    const REAL of_x = NAME(psi)(x, exp), less_1 = x * x < 1 ? x + of_x : *exp - 1;
    *exp_less_1 = NAME(mul_add)(*exp, low, less_1);
    *exp = NAME(mul_add)(*exp, low, *exp);
    return NAME(mul_add)(less_1, low, of_x);
}

/* e^r / EXP_FACTOR times WEIGHT_UNIT, by Horner's rule, which takes the fewest instructions, where several numbers are
   computed at once. The unit spares an addition to the exponent; without FMA, products of it with r could be subnormal. */
#define WEIGHT_UNIT (FASTKL_FMA ? LEAST_WEIGHT : 1)
#define WEIGHT_STEP(coefficient) sum = NAME(mul_add)(sum, r, (coefficient) * WEIGHT_UNIT);
FASTKL_INLINE REAL NAME(exp_of_rest)(REAL r) {
    REAL sum = EXP_HIGHEST * WEIGHT_UNIT;
    EXP_COEFFICIENTS(WEIGHT_STEP)
    return NAME(mul_add)(sum, r, WEIGHT_UNIT);
}

/* What is added to find the nearest integer k, so that the last bits of the sum are k - least. */
FASTKL_INLINE REAL NAME(rounder_from)(int least) { return ROUNDER - (REAL)least; }

/* Was each k at least `least`, and less than that by 2^WINDOW_BITS, from the OR of the sums' bit patterns? All else, also
   infinities and NaNs, sets other bits. */
FASTKL_INLINE int NAME(is_in_window)(uint64_t all) {
    return all >> WINDOW_BITS == (uint64_t)NAME(bits)(ROUNDER) >> WINDOW_BITS;
}

/* e^(x c) by a power of two, as exp has it, with the rounder from the k of 2^-LOST times that power, over
   weight_factor. The result is right if k is in the window, which *bits tells. Adding to the exponent spares a product. */
FASTKL_INLINE REAL NAME(weight)(REAL x, NAME(factor) c, REAL rounder, UINT *bits) {
    const REAL y = NAME(scale)(x, c), rounded = NAME(mul_add)(y, LOG2E, rounder);
    const UINT least = FASTKL_FMA ? 0 : (UINT)LOST << MANTISSA_BITS;
    REAL r = NAME(rest)(y, rounded - rounder, REAL_BITS == 64);
    if (c.scaled)
        r += NAME(scale_low)(x, c, y);
    *bits = NAME(bits)(rounded);
    return NAME(from_bits)(NAME(bits)(NAME(exp_of_rest)(r)) + ((*bits << MANTISSA_BITS) - least));
}

/* What a sum of such weights by 2^exponent has to be multiplied by. A float's r lacks k LN2_LOW, which is a factor of e^(k
   LN2_LOW). For the weights that count, k is the exponent, or larger by at most the 27 that the window allows: what is
   left is less than half a unit in the last place. */
FASTKL_INLINE double NAME(weight_factor)(int exponent) {
    return EXP_FACTOR * (1 - (REAL_BITS == 32 && FASTKL_FMA ? exponent * (double)LN2_LOW : 0));
}

/* psi(x) for a k in the window of `rounder`, which begins at `least`. */
FASTKL_INLINE REAL NAME(psi_in_window)(REAL x, REAL rounder, int least, UINT *bits) {
    const REAL rounded = NAME(mul_add)(x, LOG2E, rounder), r = NAME(rest)(x, rounded - rounder, 0);
    const REAL of_r = r * r * NAME(E)(r);
    *bits = NAME(bits)(rounded);
    const REAL power = NAME(from_bits)((*bits << MANTISSA_BITS) + (ONE_BITS + ((UINT)least << MANTISSA_BITS)));
    return NAME(mul_add)(power, of_r, (power - 1) + NAME(mul_add)(power, r, -x));
}
