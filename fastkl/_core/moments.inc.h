/* What looks at rows of logits leave behind, and what they are told: in double, whatever the lanes are. */

/* What is seen in a row that its sums do not say. */
enum { SETTLED, BROKEN = 1, FAR = 2, MASKED = 4, UNDERRATED = 8, UNSETTLED = 16, EMPTY = 32, GUESSED = 64 };

#define LN2_OF_DOUBLE 0x1.62e42fefa39efp-1

/* Logits beyond, as logarithms of weights, have their row's largest subtracted first. */
#define FARTHEST 1024

/* A sum of probabilities that is larger, or less than 1 by it, is of a row whose logarithms have lost digits. */
#define UNSCALED_TO 0x1p32

/* What a log(q/p) may be below, with a weight that is lost, and count for nothing. */
#define UNDERRATED_FROM 1024

/* 1/temperature beyond, or less than 1 by it, is none that lanes can do with. */
#define STEEPEST 0x1p900

/* By how much a chunk's largest logit may exceed the one that its weights count from, as a logarithm. */
#define MISGUESSED 60

/* Is a mean log(q/p) so small, by the divergence, that what is wrong with it (4 of its own units where roundings of its sum
   do not cancel) is 16 units in the last place of that, at most? What is left of log(q/p) is of a size with the divergence
   if that is large, with its root if it is small. Not where one is no number. */
FASTKL_INLINE int holds_digits(double shift, double divergence) {
    return shift * shift <= 32 * divergence * (1 + divergence);
}

/* A logarithm of a quotient, rounded, whose exponential is wrong by more than 16 units in the last place. */
#define WRONG_FROM 32

/* A row as logits: as they stand if that is `plain`; else with `centre` subtracted and then
   multiplied by `factor`, none left below `least`. Where that was beyond any double, and so is
   no mask, it `overflows`. Those of probabilities are their logarithms, once they are multiplied
   by `factor`; then the sum and the rest of what fastkl_sums says of q are found, too. */
typedef struct {
    const fastkl_task *task;
    const fastkl_operand *from;
    int plain, centred, overflows;
    double centre, factor, least, eps;
    double sum, raised;
    uint64_t bits;
} source;

/* 1/temperature. */
typedef struct {
    double high, low;
} inverse;

/* What entries, each of weight w and with x = log(q/p) less the shift, say of D: the sums of w, w x and w psi(x), all by
   2^exponent. The shift being nearly the mean of log(q/p), that of w x is nearly nothing. And the largest x, whatever shift
   it was found with; the least logit of q. */
typedef struct {
    int exponent;
    double shift, shift_low, weight, first, excess, most, least_q;
} moments;

/* What entries say of entropies: the sums of p's weights w, by 2^exponent;
   of w times q's logits, less `top`; of q's weights, by 2^other_exponent. */
typedef struct {
    int exponent, other_exponent;
    double weight, term, top, other;
} masses;

/* What visits of entries add up to: sums, and the least and the largest of what was asked for. */
typedef struct {
    double sum[3], least, most;
} seen_of_chunk;

/* What was seen before, and what more of the same row says. */
static void join(moments *to, const moments *next);
static void join_masses(masses *to, const masses *next);
