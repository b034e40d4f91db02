/* Owns what a pair of entries adds to the sums: NAME(m)(p, q, c) to the three of a row, for measure m; of logits, of which
   the ratio is known, NAME(m_of_ratio)(r) by p. In REAL. Knows nothing of loops; finish.inc.h says what the sums mean.

   One operand is multiplied by c on the way: q, or p where there is no q. */

typedef struct {
    REAL term, other, weight;
} NAME(entry);

/* x = log(q/p) less the logarithm of the ratio of the rows' sums, clamped to APART, and functions of it. */
typedef struct {
    REAL x, exp, exp_less_1, psi;
} NAME(ratio);

/* H(x) = log P - (sum of p log p) / P. */
FASTKL_INLINE NAME(entry) NAME(entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL x = NAME(scale)(p, c);
    (void)q;
    return (NAME(entry)){.term = x * NAME(log)(x), .weight = x};
}

/* H(x, y) = log Q - (sum of p log q) / P. */
FASTKL_INLINE NAME(entry) NAME(cross_entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c);
    return (NAME(entry)){.term = p * NAME(log)(y), .other = y, .weight = p};
}

/* D(x || y) = (sum of phi(p, q) - phi(P, Q)) / P. */
FASTKL_INLINE NAME(entry) NAME(kl_divergence)(REAL p, REAL q, NAME(factor) c) {
    NAME(entry) entry = {.weight = p};
    entry.term = NAME(phi)(p, q, c, &entry.other);
    return entry;
}

/* ½ D(x || m) + ½ D(y || m), m = (x + y) / 2, is (sum of phi(p, (p + q) / 2) + phi(q, (p + q) / 2)) / 2P for P = Q. */
FASTKL_INLINE NAME(entry) NAME(js_divergence)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), sum = p + y, difference = -NAME(less)(p, q, c, y);
    return (NAME(entry)){.term = NAME(phi_of_both)(p, y, sum, difference), .other = difference, .weight = sum};
}

/* (p + q) g(u) by p, for JS: g(u) = (1 + u) log(1 + u) + (1 - u) log(1 - u) with u = (q - p) / (q + p) = tanh(x/2). As
   log((1 + u) / (1 - u)) is x, g(u) = u x + log(1 - u^2), of which the first is twice the second near 0. For larger |x|,
   with the larger and the smaller of p and q by p + q, g(u) = 2 log(2 larger) - 2 smaller |x|. */
FASTKL_INLINE REAL NAME(js_divergence_of_ratio)(NAME(ratio) r) {
    const REAL x = r.x, p = 1 / (1 + r.exp), q = r.exp * p, u = r.exp_less_1 * p;
    const REAL larger = NAME(greater)(p, q), smaller = NAME(lesser)(p, q);
    const int close = x * x < 1;
    const REAL argument = 4 * larger * (close ? smaller : larger);
    const UINT step = NAME(exponent_step)(NAME(bits)(argument), ONE_BITS);
    const REAL f = step ? NAME(from_bits)(NAME(bits)(argument) - step) - 1 : -u * u; /* step is 0 only if close */
    const REAL s = f / (f + 2), z = s * s, log = f - s * (f - z * NAME(T)(z));
    const REAL linear = close ? u * x : -2 * smaller * (x < 0 ? -x : x);
    return (1 + r.exp) * (linear + NAME(mul_add)(NAME(exponent)(step), LN2_HIGH * K_UNIT, log));
}
