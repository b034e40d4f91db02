/* The lane type: double if REAL_BITS is 64, float if 32. Every property of the type that the maths uses is defined here
   and nowhere else; include this again after changing REAL_BITS.

   TINY        added to an entry before its exponent is taken, so that zeros and subnormals have one: far enough above the
               smallest normal number that a neighbour in [2/3, 3/2] TINY, times the c in [1, 2] of a second look, is normal
   SMALL       below it, TINY can be seen in an entry's logarithm (2^56 TINY in double, 2^28 TINY in float)
   LEAST       the smallest number above zero
   SUM_LEAST, SUM_MOST, TERM_LEAST
               sums outside are not trusted: an entry near TINY, or a rounding to a subnormal number, could count
   EXCESS_MOST the share of P + Q that P and Q may differ by and count as equal, at half a unit in the last place of a value
   LANES       sums side by side that a row is dealt out to: those of one of the tier's vectors
   MOST_COLUMNS
               a lane's sum of more is taken on in double: what rounding takes from it is itself summed in REAL, with an
               error that grows with the square of their number, to 2^-31 of the sum in float. A multiple of STRIP
   LN2         = LN2_HEAD + LN2_REST, the head so short that head x exponent x (upper half of a significand) is exact;
               = LN2_HIGH + LN2_LOW, the nearest REAL and what it leaves
   T           the polynomial in 2 atanh(s) = 2s + s z T(z), z = s^2: T(z) = 2/3 + 2z/5 + 2z^2/7 + ..., highest power first.
               With n coefficients, by interpolation at the squares of the positive zeros of the Chebyshev polynomial of
               degree 2n + 1 on s^2 <= 0.0401, which makes the error of s T(s^2) as small as it can be; at 60 digits, then
               rounded. The reduction makes z <= 0.04.
   E           the polynomial in e^r - 1 - r = r^2 E(r): E(r) = 1/2 + r/6 + r^2/24 + ..., lowest power first. With n
               coefficients, by interpolation at the zeros of the Chebyshev polynomial of degree n on |r| <= 0.3477; at 60
               digits, then rounded. The reduction makes |r| <= ln(2)/2, but for rounding.
   ROUNDER     added to a number below 2^(MANTISSA_BITS - 1), it leaves the nearest integer in the lowest bits
   LOST        logits whose weight is below 2^-LOST of the largest of a chunk count as one of just that weight
   APART       a logarithm of a quotient of weights must be below: from 2^-LOST, and far from it, no weight overflows
               tests/test_constants.py finds the coefficients again and holds them to the errors stated. */
#undef REAL
#undef UINT
#undef INT
#undef NAME
#undef REAL_DTYPE
#undef MANTISSA_BITS
#undef ONE_BITS
#undef TINY
#undef SMALL
#undef LOG_SMALL
#undef LEAST
#undef MOST_COLUMNS
#undef K_UNIT
#undef SUM_LEAST
#undef SUM_MOST
#undef TERM_LEAST
#undef EXCESS_MOST
#undef T_HIGHEST
#undef T_COEFFICIENTS
#undef E_COEFFICIENTS
#undef LOG2E
#undef ROUNDER
#undef LOST
#undef APART
#undef LN2_HEAD
#undef LN2_REST
#undef LN2_HIGH
#undef LN2_LOW
#undef UPPER_HALF
#undef FMA

#if REAL_BITS == 64
#define REAL double
#define UINT uint64_t
#define INT int64_t
#define NAME(name) name##_f64
#define REAL_DTYPE FASTKL_float64
#define MANTISSA_BITS 52
#define ONE_BITS 0x3ff0000000000000
#define TINY 0x1p-1018
#define SUM_LEAST 0x1p-500
#define SUM_MOST 0x1p500
#define TERM_LEAST 0x1p-950
#define EXCESS_MOST 0x1p-53
#define SMALL 0x1p-962
#define LOG_SMALL (-962 * LN2_OF_DOUBLE)
#define LEAST 0x1p-1074
#define MOST_COLUMNS PTRDIFF_MAX
#define FMA fma
/* largest error of s T(s^2) on [0, 0.2]: 3.0e-16 */
#define T_HIGHEST 0x1.386bb3dc5d62ep-3
#define T_COEFFICIENTS(C)                                                                                    \
    C(0x1.38a5786763bc7p-3) C(0x1.747065110c0fap-3) C(0x1.c71c2020e21d9p-3) C(0x1.2492497cf3d14p-2)     \
    C(0x1.999999994564bp-2) C(0x1.555555555560fp-1)
/* largest error of E on [-0.3477, 0.3477]: 1.2e-16 */
#define E_COEFFICIENTS                                                                                           \
    0x1.0000000000001p-1, 0x1.5555555555556p-3, 0x1.5555555553cc7p-5, 0x1.1111111110983p-7, 0x1.6c16c178c8a07p-10,  \
        0x1.a01a01a7e981bp-13, 0x1.a019b821cf799p-16, 0x1.71de0d1d98727p-19, 0x1.28929c5f87dfdp-22, 0x1.af3a00f8152c3p-26
#define LOG2E 0x1.71547652b82fep+0
#define ROUNDER 0x1.8p52
#define LOST 900
#define APART 700
#define LN2_HEAD 0x1.62e4p-1
#define LN2_REST 0x1.7f7d1cf79abcap-20
#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56
#define UPPER_HALF 0xfffffffffc000000
#else
#define REAL float
#define UINT uint32_t
#define INT int32_t
#define NAME(name) name##_f32
#define REAL_DTYPE FASTKL_float32
#define MANTISSA_BITS 23
#define ONE_BITS 0x3f800000
#define TINY 0x1p-124f
#define SUM_LEAST 0x1p-30
#define SUM_MOST 0x1p60
#define TERM_LEAST 0x1p-60
#define EXCESS_MOST 0x1p-24
#define SMALL 0x1p-96f
#define LOG_SMALL (-96 * (float)LN2_OF_DOUBLE)
#define LEAST 0x1p-149f
#define MOST_COLUMNS 4096
#define FMA fmaf
/* largest error of s T(s^2) on [0, 0.2]: 5.4e-8 */
#define T_HIGHEST 0x1.35386cp-2f
#define T_COEFFICIENTS(C) C(0x1.994314p-2f) C(0x1.55558ep-1f)
/* largest error of E on [-0.3477, 0.3477]: 6.7e-8 */
#define E_COEFFICIENTS 0x1p-1f, 0x1.5554dcp-3f, 0x1.555518p-5f, 0x1.120d04p-7f, 0x1.6d129ep-10f
#define LOG2E 0x1.715476p+0f
#define ROUNDER 0x1.8p23f
#define LOST 100
#define APART 80
#define LN2_HEAD 0x1.6p-1f
#define LN2_REST 0x1.7217f8p-8f
#define LN2_HIGH 0x1.62e43p-1f
#define LN2_LOW -0x1.05c610p-29f
#define UPPER_HALF 0xfffff000
#endif
