/* Owns every property of the lane type that the maths uses, in double and in float: the macros have the values of the type
   that REAL_BITS says where they are used. Knows nothing of the maths.

   TINY        is added to an entry before its exponent is taken, so that zeros and subnormal numbers have one. It is so far
               above the smallest normal number that a neighbour in [2/3, 3/2] TINY, times the c in [1, 2] of a rescaled
               pass, is normal
   SMALL       the entries below it are those in whose logarithm TINY can show (2^56 TINY in double, 2^28 TINY in float)
   LEAST       the smallest number above zero
   SUM_LEAST, SUM_MOST, TERM_LEAST
               sums outside are not trusted: an entry near TINY, or a rounding to a subnormal number, could count
   EXCESS_MOST P and Q that differ by this share of P + Q count as equal, which costs two units in the last place
   MOST_COLUMNS
               after so many columns a lane's sum is added to one in double: what rounding takes from it is itself summed in
               REAL, with an error that grows with the square of their number, to 2^-31 of the sum in float. A multiple of
               STRIP
   LN2         = LN2_HEAD + LN2_REST, the head so short that head x exponent x (upper half of a significand) is exact;
               = LN2_HIGH + LN2_LOW, the nearest REAL and the nearest REAL to the rest (sums.h has them in double)
   T           the polynomial in 2 atanh(s) = 2s + s z T(z), z = s^2: T(z) = 2/3 + 2z/5 + 2z^2/7 + ..., highest power first.
               With n coefficients, by interpolation at the squares of the positive zeros of the Chebyshev polynomial of
               degree 2n + 1 on s^2 <= 0.0401, which makes the error of s T(s^2) as small as it can be; at 60 digits, then
               rounded. The reduction makes z <= 0.04.
   WIDE_T      the same on s^2 <= 0.1113, for x of at most 2y, which needs no reduction: then z <= 1/9. Highest power first
   E           the polynomial in e^r - 1 - r = r^2 E(r): E(r) = 1/2 + r/6 + r^2/24 + ..., lowest power first. With n
               coefficients, by interpolation at the zeros of the Chebyshev polynomial of degree n on |r| <= 0.3477; at 60
               digits, then rounded. The reduction makes |r| <= ln(2)/2, except for rounding.
   EXP         the polynomial in e^r = EXP_FACTOR (1 + r EXP(r)), highest power first. With n coefficients, from that of
               degree n that interpolates e^r at the zeros of the Chebyshev polynomial of degree n + 1 on |r| <= 0.3477,
               over its constant term, which is EXP_FACTOR; at 60 digits, then rounded
   K           the polynomial in g(tanh(x/2)) = x tanh(x/2) - 2 log cosh(x/2) = x^2 K(x^2): K(z) = 1/4 - z/32 + ..., highest
               power first. With n coefficients, by interpolation at the zeros of the Chebyshev polynomial of degree n on
               0 <= z <= 4.01; at 60 digits, then rounded. NEAR_RATIO limits |x|; K's own limit is pi
   ROUNDER     added to a number below 2^(MANTISSA_BITS - 1), it leaves the nearest integer in the lowest bits
   LOST        logits whose weight is below 2^-LOST of the largest of a chunk count as if they had that weight
   LEAST_WEIGHT
               = 2^-LOST
   WINDOW_BITS the exponents of weights may have 2^WINDOW_BITS values, from -LOST on: no sum of theirs overflows
   LEAST_POWER 2 to this, and less, does not count beside 1
   INFINITE_POWER
               2 to this, by its bit pattern, is infinite
   APART       the logarithm of a quotient of weights must be below it: no weight then overflows that counts from 2^-LOST

   tests/test_constants.py finds the coefficients again and holds them to the errors stated. */
#ifndef FASTKL_REAL_H
#define FASTKL_REAL_H

#define JOIN_AS_WRITTEN(a, b) a##b
#define JOIN(a, b) JOIN_AS_WRITTEN(a, b)
#define PICK_64(of_double, of_float) of_double
#define PICK_32(of_double, of_float) of_float
#define PICK(of_double, of_float) JOIN(PICK_, REAL_BITS)(of_double, of_float)

#define REAL PICK(double, float)
#define UINT PICK(uint64_t, uint32_t)
#define INT PICK(int64_t, int32_t)
#define NAME(name) JOIN(name##_f, REAL_BITS)
#define REAL_DTYPE PICK(FASTKL_float64, FASTKL_float32)
#define FMA PICK(fma, fmaf)
#define SIZE PICK(fabs, fabsf)
#define ROOT PICK(sqrt, sqrtf)
#define MANTISSA_BITS PICK(52, 23)
#define ONE_BITS PICK(0x3ff0000000000000, 0x3f800000)
#define UPPER_HALF PICK(0xfffffffffc000000, 0xfffff000)
#define TINY PICK(0x1p-1018, 0x1p-124f)
#define SMALL PICK(0x1p-962, 0x1p-96f)
#define LOG_SMALL (PICK(-962, -96) * (REAL)FASTKL_LN2)
#define LEAST PICK(0x1p-1074, 0x1p-149f)
#define SUM_LEAST PICK(0x1p-500, 0x1p-30)
#define SUM_MOST PICK(0x1p500, 0x1p60)
#define TERM_LEAST PICK(0x1p-950, 0x1p-60)
#define EXCESS_MOST PICK(0x1p-51, 0x1p-22)
#define MOST_COLUMNS PICK(PTRDIFF_MAX, 4096)
#define LN2_HEAD PICK(0x1.62e4p-1, 0x1.6p-1f)
#define LN2_REST PICK(0x1.7f7d1cf79abcap-20, 0x1.7217f8p-8f)
#define LN2_HIGH PICK(FASTKL_LN2, 0x1.62e43p-1f)
#define LN2_LOW PICK(FASTKL_LN2_LOW, -0x1.05c610p-29f)
#define LOG2E PICK(0x1.71547652b82fep+0, 0x1.715476p+0f)
#define ROUNDER PICK(0x1.8p52, 0x1.8p23f)
#define LOST PICK(900, 100)
#define LEAST_WEIGHT PICK(0x1p-900, 0x1p-100f)
#define WINDOW_BITS PICK(10, 7)
#define APART PICK(700, 80)
#define LEAST_POWER PICK(-1000, -100)
#define INFINITE_POWER PICK(1024, 128)

/* largest error of s T(s^2) on [0, 0.2]: 3.0e-16 in double, 5.4e-8 in float */
#define T_HIGHEST PICK(0x1.386bb3dc5d62ep-3, 0x1.35386cp-2f)
#define T_COEFFICIENTS_64(C)                                                                              \
    C(0x1.38a5786763bc7p-3) C(0x1.747065110c0fap-3) C(0x1.c71c2020e21d9p-3) C(0x1.2492497cf3d14p-2)     \
    C(0x1.999999994564bp-2) C(0x1.555555555560fp-1)
#define T_COEFFICIENTS_32(C) C(0x1.994314p-2f) C(0x1.55558ep-1f)
#define T_COEFFICIENTS(C) PICK(T_COEFFICIENTS_64(C), T_COEFFICIENTS_32(C))

/* largest error of s WIDE_T(s^2) on [0, 1/3]: 2.8e-17 in double, 5.1e-8 in float */
#define WIDE_T_HIGHEST PICK(0x1.54445b72a91b6p-3, 0x1.19abf0p-2f)
#define WIDE_T_COEFFICIENTS_64(C)                                                                         \
    C(0x1.5ec53d90e2c39p-4) C(0x1.edb6b4eb97d34p-4) C(0x1.108b24c73e680p-3) C(0x1.3b1b1820a96e4p-3)     \
    C(0x1.745cd6061973ap-3) C(0x1.c71c731f7d565p-3) C(0x1.24924922a029ap-2) C(0x1.999999999c2cep-2)     \
    C(0x1.555555555554dp-1)
#define WIDE_T_COEFFICIENTS_32(C) C(0x1.1fd86cp-2f) C(0x1.99bfbcp-2f) C(0x1.55552cp-1f)
#define WIDE_T_COEFFICIENTS(C) PICK(WIDE_T_COEFFICIENTS_64(C), WIDE_T_COEFFICIENTS_32(C))

/* largest error of E on [-0.3477, 0.3477]: 1.2e-16 in double, 6.7e-8 in float */
#define E_COEFFICIENTS_64                                                                                           \
    0x1.0000000000001p-1, 0x1.5555555555556p-3, 0x1.5555555553cc7p-5, 0x1.1111111110983p-7, 0x1.6c16c178c8a07p-10,  \
        0x1.a01a01a7e981bp-13, 0x1.a019b821cf799p-16, 0x1.71de0d1d98727p-19, 0x1.28929c5f87dfdp-22, 0x1.af3a00f8152c3p-26
#define E_COEFFICIENTS_32 0x1p-1f, 0x1.5554dcp-3f, 0x1.555518p-5f, 0x1.120d04p-7f, 0x1.6d129ep-10f
#define E_COEFFICIENTS JOIN(E_COEFFICIENTS_, REAL_BITS)

/* largest error of e^r, by e^r, on [-0.3477, 0.3477]: 6.9e-18 in double, 1.1e-7 in float */
#define EXP_FACTOR PICK(0x1p0, 0x1.0000014a745dap+0)
#define EXP_HIGHEST PICK(0x1.af64c61cbd131p-26, 0x1.123f76p-7f)
#define EXP_COEFFICIENTS_64(C)                                                                            \
    C(0x1.28b55f0399965p-22) C(0x1.71ddf48e17b9fp-19) C(0x1.a0199035cefefp-16) C(0x1.a01a01b199e4dp-13)   \
    C(0x1.6c16c188885b2p-10) C(0x1.111111110f154p-7) C(0x1.555555554ee29p-5) C(0x1.555555555555bp-3)      \
    C(0x1.0000000000011p-1) C(0x1.0p+0)
#define EXP_COEFFICIENTS_32(C) C(0x1.5766dp-5f) C(0x1.555478p-3f) C(0x1.fffcfcp-2f) C(0x1.fffffep-1f)
#define EXP_COEFFICIENTS(C) PICK(EXP_COEFFICIENTS_64(C), EXP_COEFFICIENTS_32(C))

/* largest error of K(z), by K(z), on [0, 4]: 4.7e-17 in double, 2.9e-8 in float */
#define NEAR_RATIO 0x2p0
#define K_HIGHEST PICK(-0x1.fe646a08dc532p-56, -0x1.5580acp-27f)
#define K_COEFFICIENTS_64(C)                                                                                  \
    C(0x1.4e4ee4d85f16dp-50) C(-0x1.b601e1c5f3abbp-46) C(0x1.8bd7de53e3d89p-42) C(-0x1.2150181c5e87bp-38)     \
    C(0x1.7b0b759d488a8p-35) C(-0x1.da205529a8e37p-32) C(0x1.23f0c0eb9df75p-28) C(-0x1.65c159e7912d6p-25)     \
    C(0x1.b5319c457ce9dp-22) C(-0x1.0a3a547e10ff7p-18) C(0x1.427a8dbb35514p-15) C(-0x1.82d82d807b664p-12)     \
    C(0x1.c71c71c7137cfp-9) C(-0x1.fffffffffff29p-6) C(0x1.0000000000000p-2)
#define K_COEFFICIENTS_32(C)                                                                                  \
    C(0x1.132172p-22f) C(-0x1.d9be7cp-19f) C(0x1.3c2b22p-15f) C(-0x1.8214bep-12f) C(0x1.c71094p-9f)           \
    C(-0x1.ffffb8p-6f) C(0x1.000000p-2f)
#define K_COEFFICIENTS(C) PICK(K_COEFFICIENTS_64(C), K_COEFFICIENTS_32(C))

#endif
