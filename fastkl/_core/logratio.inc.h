/* Owns the element maths: log x and phi(p, q) = p log(p/q) - (p - q) for one pair of numbers, as branch-free scalar code
   that the compiler vectorises. In REAL. Knows nothing of rows and sums.

   Both reduce to a ratio near 1: the difference of two bit patterns, rounded to a whole number of exponents, is the k for
   which x / (y 2^k) lies in [2/3, 3/2]; adding it to y's pattern multiplies y by 2^k. Then
       s = (x - y') / (x + y'),  |s| <= 0.2,  log(x/y) = k ln 2 + 2 atanh(s) = k ln 2 + 2s + s z T(z),  z = s^2.
   The patterns of normal numbers, TINY or more, allow this; log and phi say what smaller numbers count as. */

FASTKL_INLINE UINT NAME(bits)(REAL x) {
    UINT u;
    memcpy(&u, &x, sizeof u);
    return u;
}

FASTKL_INLINE REAL NAME(from_bits)(UINT u) {
    REAL x;
    memcpy(&x, &u, sizeof x);
    return x;
}

FASTKL_INLINE REAL NAME(lesser)(REAL a, REAL b) { return a < b ? a : b; }
FASTKL_INLINE REAL NAME(greater)(REAL a, REAL b) { return a > b ? a : b; }

/* a b + c, fused where the tier has the instruction. Code relies on that only where FASTKL_FMA is 1. */
FASTKL_INLINE REAL NAME(mul_add)(REAL a, REAL b, REAL c) { return FASTKL_FMA ? FMA(a, b, c) : a * b + c; }

/* x y - product: what rounding took from a product. Without FMA, by the product of upper halves, which is exact. */
FASTKL_INLINE REAL NAME(product_low)(REAL x, REAL y, REAL product) {
    if (FASTKL_FMA)
        return FMA(x, y, -product);
    const REAL upper_x = NAME(from_bits)(NAME(bits)(x) & (UINT)UPPER_HALF);
    const REAL upper_y = NAME(from_bits)(NAME(bits)(y) & (UINT)UPPER_HALF);
    return ((upper_x * upper_y - product) + (x - upper_x) * upper_y) + x * (y - upper_y);
}

/* k 2^MANTISSA_BITS, an integer to be added to a bit pattern: the rounded difference of the patterns of x and y. */
FASTKL_INLINE UINT NAME(exponent_step)(UINT x, UINT y) {
    const UINT half = (UINT)1 << (MANTISSA_BITS - 1), mask = ~(((UINT)1 << MANTISSA_BITS) - 1);
    return (x - y + half) & mask;
}

/* That step as a number: k is K_UNIT times it. */
#define K_UNIT PICK((FASTKL_INT64_TO_DOUBLE ? 0x1p-52 : 1), 0x1p-23f)
FASTKL_INLINE REAL NAME(exponent)(UINT step) {
#if REAL_BITS == 64 && !FASTKL_INT64_TO_DOUBLE
    /* The tier has no instruction for this conversion: k + 2048 goes into the low bits of 2^52. */
    const UINT moved = ((step ^ (UINT)1 << 63) >> MANTISSA_BITS) | 0x4330000000000000;
    return NAME(from_bits)(moved) - (0x1p52 + 2048);
#else
    return (REAL)(INT)step;
#endif
}

/* p k ln 2 + r. The result can be smaller than its parts, so the large product must not be rounded. */
FASTKL_INLINE REAL NAME(add_p_k_ln2)(REAL p, REAL k, REAL r) {
    if (FASTKL_FMA)
        return FMA(p * k, LN2_LOW * K_UNIT, FMA(p * k, LN2_HIGH * K_UNIT, r));
    const REAL upper = NAME(from_bits)(NAME(bits)(p) & (UINT)UPPER_HALF), k_head = k * (LN2_HEAD * K_UNIT);
    return (upper * k_head + r) + ((p - upper) * k_head + p * (k * (LN2_REST * K_UNIT)));
}

/* k ln 2 + r. What LN2_HIGH lacks costs at most a sixth of a unit in the last place of the result. */
FASTKL_INLINE REAL NAME(add_k_ln2)(REAL k, REAL r) {
    return FASTKL_FMA ? FMA(k, LN2_HIGH * K_UNIT, r) : k * (LN2_HEAD * K_UNIT) + (r + k * (LN2_REST * K_UNIT));
}

/* T(z) by Horner's rule, written out, because a loop here would keep the loop around it from being vectorised. */
#define STEP(coefficient) sum = NAME(mul_add)(sum, z, coefficient);
FASTKL_INLINE REAL NAME(T)(REAL z) {
    REAL sum = T_HIGHEST;
    T_COEFFICIENTS(STEP)
    return sum;
}

/* The same for |s| <= 1/3, where x is at most twice y. */
FASTKL_INLINE REAL NAME(wide_T)(REAL z) {
    REAL sum = WIDE_T_HIGHEST;
    WIDE_T_COEFFICIENTS(STEP)
    return sum;
}

/* log x for x >= 0, where zero and subnormal numbers count as some number near the smallest. With m = x 2^-k in [3/4, 3/2)
   and f = m - 1, exact: 2 atanh(s) = f - s (f - z T(z)), as in FDLIBM's e_log.c, keeps full relative accuracy where x is
   near 1. */
FASTKL_INLINE REAL NAME(log)(REAL x) {
    const UINT step = NAME(exponent_step)(NAME(bits)(x), ONE_BITS);
    const REAL k = NAME(exponent)(step);
    const REAL f = NAME(from_bits)(NAME(bits)(x) - step) - 1;
    const REAL s = f / (f + 2), z = s * s;
    if (FASTKL_FMA)
        return NAME(add_k_ln2)(k, FMA(-s, FMA(-z, NAME(T)(z), f), f));
    return k * (LN2_HEAD * K_UNIT) + (f - (s * (f - z * NAME(T)(z)) - k * (LN2_REST * K_UNIT)));
}

/* phi(p, y) = p log(p/y) - (p - y) >= 0, reduced: y_near = y 2^k is the neighbour of p, e = p - y_near. As 2 p s = e + s e,
   phi is p k ln 2 + (y - y_near) + s e + p s z T(z); for k = 0 the first two vanish and nothing cancels. For other k they
   cancel in part, so that what y - y_near lacks, `low`, comes after them. */
FASTKL_INLINE REAL NAME(phi_reduced)(REAL p, REAL k, REAL e, REAL p_plus_near, REAL y_minus_near, REAL low) {
    const REAL s = e / p_plus_near, z = s * s;
    return NAME(mul_add)(s, NAME(mul_add)(p * z, NAME(T)(z), e), NAME(add_p_k_ln2)(p, k, y_minus_near) + low);
}

/* A factor, c.high + c.low. `scaled` is a constant in every use: 0 says that c is 1, and compiles to nothing. With it comes
   what the terms of a Renyi divergence need: gamma, whose e^(gamma log(a/b)) is taken, its size and its sign; whether a is
   q and b is p, which are p and q otherwise; whether a term is p^alpha q^(1 - alpha) itself, in a rescaled pass. */
typedef struct {
    REAL high, low;
    int scaled, exchanged, powers;
    REAL gamma, size, sign;
} NAME(factor);

/* Of alpha and 1 - alpha, the larger becomes that of a. */
FASTKL_INLINE void NAME(set_order)(NAME(factor) *c, double alpha, double beta) {
    c->exchanged = alpha < 0.5;
    const double gamma = c->exchanged ? -alpha : -beta;
    c->gamma = (REAL)gamma, c->size = (REAL)fabs(gamma), c->sign = gamma < 0 ? -1 : 1;
}

/* The factor of a pass that does not multiply. */
FASTKL_INLINE NAME(factor) NAME(no_factor)(const fastkl_task *task) {
    NAME(factor) c = {.high = 1};
    if (task->measure == FASTKL_renyi_divergence)
        NAME(set_order)(&c, task->alpha, task->beta);
    return c;
}

/* The same, of which the compiler knows that it does not. */
FASTKL_INLINE NAME(factor) NAME(unscaled)(NAME(factor) c) {
    c.high = 1, c.low = 0, c.scaled = 0;
    return c;
}

/* x c */
FASTKL_INLINE REAL NAME(scale)(REAL x, NAME(factor) c) { return c.scaled ? x * c.high : x; }

/* x c - y for y = scale(x, c): what rounding took from the product. */
FASTKL_INLINE REAL NAME(scale_low)(REAL x, NAME(factor) c, REAL y) { return FMA(x, c.high, -y) + x * c.low; }

/* p - x c for y = scale(x, c), rounded once where p and x c nearly agree. */
FASTKL_INLINE REAL NAME(less)(REAL p, REAL x, NAME(factor) c, REAL y) {
    return c.scaled ? FMA(-x, c.low, (p - y) - FMA(x, c.high, -y)) : p - y;
}

/* phi(p, c q), and c q - p in *difference, for p and q >= 0 and finite, c in [1, 2]. A q that is zero or subnormal counts
   as a number near the smallest, and a p near or below TINY as one near TINY: the caller detects both. For p = 0, y_near
   is near TINY and phi is y. For normal numbers any c will do that does not take them to other numbers. */
FASTKL_INLINE REAL NAME(phi)(REAL p, REAL q, NAME(factor) c, REAL *difference) {
    const REAL y = NAME(scale)(q, c);
    const UINT step = NAME(exponent_step)(NAME(bits)(p + TINY), NAME(bits)(y));
    const REAL q_near = NAME(from_bits)(NAME(bits)(q) + step), y_near = NAME(scale)(q_near, c);
    const REAL low = c.scaled ? NAME(scale_low)(q, c, y) - NAME(scale_low)(q_near, c, y_near) : -0.0f; /* x + -0 is x */
    *difference = c.scaled ? -NAME(less)(p, q, c, y) : y - p;
    return NAME(phi_reduced)(p, NAME(exponent)(step), NAME(less)(p, q_near, c, y_near), p + y_near, y - y_near, low);
}

/* phi(p, mean) where `difference` is a better p - mean than can be had from the mean, which is within a factor of 2^k of p
   for the k of a phi, and at least half of p. For p = 0 the same holds as for phi. Where the step is 0, near is the mean;
   numbers are compared, because SSE2 cannot compare 64-bit integers. */
FASTKL_INLINE REAL NAME(phi_to_mean)(REAL p, REAL mean, REAL difference) {
    const UINT step = NAME(exponent_step)(NAME(bits)(p + TINY), NAME(bits)(mean));
    const REAL near = NAME(from_bits)(NAME(bits)(mean) + step), e = near != mean ? p - near : difference;
    return NAME(phi_reduced)(p, NAME(exponent)(step), e, p + near, mean - near, -0.0f);
}

/* The same for mean <= p <= 2 mean, which needs no reduction; 0 for two zeros. What TINY adds shows only in numbers that
   are too small to count. */
FASTKL_INLINE REAL NAME(phi_to_lower_mean)(REAL p, REAL mean, REAL difference) {
    const REAL s = difference / ((p + mean) + TINY), z = s * s;
    return s * NAME(mul_add)(p * z, NAME(wide_T)(z), difference);
}

/* phi(p, m) + phi(q, m) for m = (p + q) / 2, from p + q and q - p: the same bits for p and q exchanged. */
FASTKL_INLINE REAL NAME(phi_of_both)(REAL p, REAL q, REAL sum, REAL difference) {
    const REAL mean = (REAL)0.5 * sum, half = (REAL)0.5 * difference, apart = NAME(greater)(half, -half);
    return NAME(phi_to_mean)(NAME(lesser)(p, q), mean, -apart) +
           NAME(phi_to_lower_mean)(NAME(greater)(p, q), mean, apart);
}

/* phi(p, p - d) where d is known better than p - d can be: of the sums of rows. */
FASTKL_INLINE REAL NAME(phi_of_difference)(REAL p, REAL d) {
    const REAL q = p - d, low = (p - q) - d;
    const UINT step = NAME(exponent_step)(NAME(bits)(p), NAME(bits)(q));
    const REAL q_near = NAME(from_bits)(NAME(bits)(q) + step), low_near = step ? 0 : low;
    return NAME(phi_reduced)(p, NAME(exponent)(step), (p - q_near) - low_near, p + q_near, q - q_near, low - low_near);
}
