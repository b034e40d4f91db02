/* Owns what a pair of entries adds to the sums: NAME(m)(p, q, c) to the three of a row, for measure m; of logits, of which
   the ratio is known, NAME(m_of_ratio)(r) by p. In REAL. Knows nothing of loops; finish.inc.h says what the sums mean.

   One operand is multiplied by c on the way: q, or p where there is no q. */

typedef struct {
    REAL term, other, weight;
} NAME(entry);

/* What a pair of entries adds to the divergences of a comparison: phi(p, q), phi(q, p) and the term of JS; log(p/q); and a
   number whose sign says that an entry is small, unless one is negative or -0.0. */
typedef struct {
    REAL forward, reverse, js, log_ratio;
    UINT small;
} NAME(divergences);

typedef struct {
    REAL log_p, log_q;
} NAME(logarithms);

/* x = log(q/p) less the logarithm of the ratio of the rows' sums, clamped to APART, and functions of it. */
typedef struct {
    REAL x, exp, exp_less_1, psi;
} NAME(ratio);

/* H(x) = log P - (sum of p log p) / P. */
FASTKL_INLINE NAME(entry) NAME(entropy)(REAL p, REAL q, NAME(factor) c) {
    const REAL x = NAME(scale)(p, c);
    (void)q;
    return (NAME(entry)){.term = x * NAME(log)(x), .other = 0, .weight = x};
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

/* The terms of the divergences from one log(p/q), with k and s of phi: for phi(q, p) both change their signs. With the
   larger, a, and the smaller of p and q, b, and their mean m,
       phi(a, m) + phi(b, m) = phi(b, a) - 2 ((a - m) - m log(a/m)),
   where phi(b, a) is less than phi(a, b), the difference is half of it at most, and log(a/m) needs no reduction. So an
   error in phi counts twice: T is exact enough if what rounding takes from k ln 2 is added after the rest of the product,
   with the small terms, which need no rounding of their own where the tier fuses. */
FASTKL_INLINE NAME(divergences) NAME(compare_entries)(REAL p, REAL q) {
    const REAL p_or_tiny = p + TINY, larger = NAME(greater)(p, q), smaller = NAME(lesser)(p, q);
    const REAL apart = larger - smaller, sum = p_or_tiny + q;
    const UINT step = NAME(exponent_step)(NAME(bits)(p_or_tiny), NAME(bits)(q));
    const REAL k = NAME(exponent)(step), k_ln2 = k * (LN2_HIGH * K_UNIT);
    const REAL q_near = NAME(from_bits)(NAME(bits)(q) + step), p_near = NAME(from_bits)(NAME(bits)(p_or_tiny) - step);
    const REAL e = p - q_near, s = e / (p + q_near), z_T = s * s * (FASTKL_FMA ? NAME(T)(s * s) : NAME(wide_T)(s * s));
    const REAL small_part = FASTKL_FMA ? FMA(s, z_T, k * (LN2_LOW * K_UNIT)) : s * z_T;
    const REAL p_k_ln2 = FASTKL_FMA ? FMA(p, k_ln2, q - q_near) : NAME(add_p_k_ln2)(p, k, q - q_near);
    const REAL q_k_ln2 = FASTKL_FMA ? FMA(-q, k_ln2, p - p_near) : NAME(add_p_k_ln2)(q, -k, p - p_near);
    const REAL forward = NAME(mul_add)(s, e, NAME(mul_add)(p, small_part, p_k_ln2));
    const REAL reverse = NAME(mul_add)(-s, q - p_near, NAME(mul_add)(-q, small_part, q_k_ln2));
    const REAL to_mean = apart / NAME(mul_add)(2, larger, sum), z = to_mean * to_mean;
    const REAL js = NAME(mul_add)(to_mean, NAME(mul_add)(sum * z, NAME(wide_T)(z), -apart), NAME(lesser)(forward, reverse));
    const REAL log_near = NAME(mul_add)(2, s, small_part);
    return (NAME(divergences)){forward, reverse, js, FASTKL_FMA ? k_ln2 + log_near : NAME(add_k_ln2)(k, log_near),
                               NAME(bits)(smaller) - NAME(bits)(SMALL)};
}

/* The logarithm of the smaller of p and q is that of the larger less |log(p/q)|: where entries are at most 1, both have the
   same sign, and nothing cancels. */
FASTKL_INLINE NAME(logarithms) NAME(compare_logarithms)(REAL p, REAL q, REAL log_ratio) {
    const REAL log_larger = NAME(log)(NAME(greater)(p, q));
    return (NAME(logarithms)){log_larger + NAME(lesser)(log_ratio, 0), log_larger - NAME(greater)(log_ratio, 0)};
}

/* (p + q) g(u) by p, for JS: g(u) = (1 + u) log(1 + u) + (1 - u) log(1 - u) with u = (q - p) / (q + p) = tanh(x/2). As
   log((1 + u) / (1 - u)) is x, g(u) = u x + log(1 - u^2), of which the first is twice the second near 0. For larger |x|,
   with the larger and the smaller of p and q by p + q, g(u) = 2 log(2 larger) - 2 smaller |x|. */
FASTKL_INLINE REAL NAME(js_divergence_of_ratio)(NAME(ratio) r, NAME(factor) c) {
    (void)c;
    const REAL x = r.x, p = 1 / (1 + r.exp), q = r.exp * p, u = r.exp_less_1 * p;
    const REAL larger = NAME(greater)(p, q), smaller = NAME(lesser)(p, q);
    const int close = x * x < 1;
    const REAL argument = 4 * larger * (close ? smaller : larger);
    const UINT step = NAME(exponent_step)(NAME(bits)(argument), ONE_BITS);
    const REAL reduced = NAME(from_bits)(NAME(bits)(argument) - step);
    const REAL f = reduced != argument ? reduced - 1 : -u * u; /* the same only if close */
    const REAL s = f / (f + 2), z = s * s, log = f - s * (f - z * NAME(T)(z));
    const REAL linear = close ? u * x : -2 * smaller * (x < 0 ? -x : x);
    return (1 + r.exp) * (linear + NAME(mul_add)(NAME(exponent)(step), LN2_HIGH * K_UNIT, log));
}

/* H^2(x, y) = ½ (sum of (√x - √y)^2) is (½ (sum of (√p - √q)^2) - ½ (√P - √Q)^2) / √(PQ), of which a term is (p - q)^2 /
   (√p + √q)^2. A root takes as long as a division; the product of two small floats could underflow where it counts. */
FASTKL_INLINE NAME(entry) NAME(hellinger_distance)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), difference = -NAME(less)(p, q, c, y);
    if (REAL_BITS == 64) {
        const REAL square = NAME(mul_add)(2, ROOT(p * y), p + y);
        return (NAME(entry)){.term = difference * (difference / (square + TINY)), .other = difference, .weight = p + y};
    }
    const REAL root = difference / ((ROOT(p) + ROOT(y)) + TINY);
    return (NAME(entry)){.term = root * root, .other = difference, .weight = p + y};
}
FASTKL_INLINE REAL NAME(hellinger_distance_of_ratio)(NAME(ratio) r, NAME(factor) c) {
    (void)c;
    const REAL root = r.exp_less_1 / (ROOT(r.exp) + 1);
    return root * root;
}

/* TV(x, y) = ½ (sum of |p/P - q/Q|): total_variation.inc.h has what makes p/P and q/Q of p and q. */
FASTKL_INLINE NAME(entry) NAME(total_variation)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), difference = -NAME(less)(p, q, c, y);
    return (NAME(entry)){.term = SIZE(difference), .other = difference, .weight = p + y};
}
FASTKL_INLINE REAL NAME(total_variation_of_ratio)(NAME(ratio) r, NAME(factor) c) {
    (void)c;
    return SIZE(r.exp_less_1);
}

/* chi^2(x, y) = (Q (sum of (p - q)^2 / q) - (P - Q)^2) / P^2. */
FASTKL_INLINE NAME(entry) NAME(chi2_divergence)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), difference = -NAME(less)(p, q, c, y);
    return (NAME(entry)){.term = difference * (difference / (y + TINY)), .other = difference, .weight = p};
}
FASTKL_INLINE REAL NAME(chi2_divergence_of_ratio)(NAME(ratio) r, NAME(factor) c) {
    (void)c;
    return r.exp_less_1 * (r.exp_less_1 / r.exp);
}

/* D(x || y) + D(y || x) is (sum of (p - q) log(p/q)) / P for P = Q. The larger and the smaller of p and q have the same
   logarithm, to the bit, when they are exchanged; its parts are those of phi. */
FASTKL_INLINE NAME(entry) NAME(jeffreys_divergence)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), difference = -NAME(less)(p, q, c, y), apart = SIZE(difference);
    const REAL larger = NAME(greater)(p, y) + TINY, smaller = NAME(lesser)(p, y);
    const UINT step = NAME(exponent_step)(NAME(bits)(larger), NAME(bits)(smaller));
    const REAL near = NAME(from_bits)(NAME(bits)(smaller) + step), e = near != smaller ? larger - near : apart;
    const REAL s = e / (larger + near), z = s * s, log_near = NAME(mul_add)(s, z * NAME(T)(z), 2 * s);
    const REAL log = NAME(add_k_ln2)(NAME(exponent)(step), log_near);
    return (NAME(entry)){.term = apart * log, .other = difference, .weight = p + y};
}

/* D_alpha(x || y) = log1p(alpha (alpha - 1) E) / (alpha - 1), where E is nearly (sum of g) / P: with a = p, b = q, gamma =
   alpha - 1 and w = gamma log(a/b),
       g = (a e^w - (1 + gamma) a + gamma b) / (gamma (1 + gamma)) = (phi(a, b) + a psi(w) / gamma) / (1 + gamma),
   which is never negative, and the same for a = q, b = p, gamma = -alpha. So gamma is at least -1/2, and the second
   form loses at most two bits: its parts have the same sign, or w >= -1; else the first form is taken. An entry's term
   is g times |gamma (1 + gamma)|, or infinite or NaN where the power is too large. */
/* log(a/b) = k K_UNIT ln 2 + 2s + tail, and phi(a, b). */
typedef struct {
    REAL k, s, tail, phi;
} NAME(renyi_logs);

/* Where `apart` is a better a - b than can be had from b if the pass scales. */
FASTKL_INLINE NAME(renyi_logs) NAME(find_renyi_logs)(REAL a, REAL b, REAL apart, NAME(factor) c) {
    const UINT step = NAME(exponent_step)(NAME(bits)(a + TINY), NAME(bits)(b));
    const REAL near = NAME(from_bits)(NAME(bits)(b) + step), k = NAME(exponent)(step);
    const REAL e = !c.scaled || near != b ? a - near : apart, s = e / (a + near), z = s * s;
    return (NAME(renyi_logs)){k, s, s * (z * NAME(T)(z)), NAME(phi_reduced)(a, k, e, a + near, b - near, -0.0f)};
}

/* The term; `below`, which may be a constant, says that the order is below 1. With the integer m next to w / ln 2, w is
   m ln 2 + r and e^w is 2^m e^r. The difference of gamma k and m is exact where the tier fuses, so that r has no error of a
   large k; that of a large gamma is kept as small as what s has. */
FASTKL_INLINE REAL NAME(renyi_term)(REAL a, REAL b, NAME(renyi_logs) of, int below, NAME(factor) c) {
    const REAL gamma_k = c.gamma * K_UNIT, log_near = NAME(mul_add)(2, of.s, of.tail);
    const REAL rounded = NAME(mul_add)(gamma_k, of.k, c.gamma * LOG2E * log_near) + ROUNDER, m = rounded - ROUNDER;
    const REAL of_s = 2 * c.gamma * of.s, of_s_low = NAME(product_low)(2 * c.gamma, of.s, of_s);
    const REAL rest = NAME(mul_add)(gamma_k, of.k, -m), low = NAME(mul_add)(c.gamma, of.tail, of_s_low);
    const REAL r = NAME(mul_add)(rest, (REAL)FASTKL_LN2, of_s) + low, w = NAME(mul_add)(m, (REAL)FASTKL_LN2, r);
    const REAL least = NAME(greater)(rounded, ROUNDER + LEAST_POWER);
    const REAL clamped = below ? least : NAME(lesser)(least, ROUNDER + INFINITE_POWER);
    const REAL power = NAME(from_bits)(ONE_BITS + (NAME(bits)(clamped) << MANTISSA_BITS)), of_r = r * r * NAME(E)(r);
    const REAL psi = NAME(mul_add)(power, of_r, (power - 1) + NAME(mul_add)(power, r, -w));
    const REAL near_gap = NAME(mul_add)(c.size, of.phi, c.sign * a * psi);
    const REAL product = b > 0 ? a * (power * (1 + (r + of_r))) : 0, far_gap = (a + c.gamma * (a - b)) - product;
    const REAL gap = below & ((w < -1) | !(b > 0)) ? far_gap : near_gap;
    return c.scaled && c.powers ? product : gap;
}

FASTKL_INLINE NAME(entry) NAME(renyi_divergence)(REAL p, REAL q, NAME(factor) c) {
    const REAL y = NAME(scale)(q, c), a = c.exchanged ? y : p, b = c.exchanged ? p : y;
    const REAL difference = NAME(less)(p, q, c, y), apart = c.exchanged ? -difference : difference;
    const REAL term = NAME(renyi_term)(a, b, NAME(find_renyi_logs)(a, b, apart, c), c.gamma < 0, c);
    return (NAME(entry)){.term = term, .other = -difference, .weight = p};
}
FASTKL_INLINE REAL NAME(renyi_divergence_of_ratio)(NAME(ratio) r, NAME(factor) c) {
    const REAL w = -c.gamma * r.x;
    REAL exp;
    const REAL psi = NAME(psi)(w, &exp), near_gap = NAME(mul_add)(c.size, r.psi, c.sign * psi);
    const REAL far_gap = 1 + c.gamma * (1 - r.exp) - exp, gap = c.gamma < 0 && w < -1 ? far_gap : near_gap;
    return w < APART ? gap : (REAL)INFINITY;
}
