/* Owns the transposition of LANES rows of REALs to columns, of which each lane has a row. In REAL. Knows nothing of other
   types and of operands.

   Each column is stored as one vector: one that is stored entry by entry, or in quarters, and loaded as a whole soon after,
   has to wait until the stores have left the queue. */

#ifdef FASTKL_SHUFFLE
/* Entries in 128 bits, within which the instructions for this work. */
#define PART PICK(2, 4)
typedef FASTKL_VECTOR(double, 16) NAME(part);
typedef FASTKL_VECTOR(REAL, COLUMN_BYTES) NAME(whole);

/* Every second index into a pair of vectors. */
#define FOUR_LANES(o) (o), (o) + 2, (o) + 4, (o) + 6
#if LANES == 16
#define ALL_LANES(o) FOUR_LANES(o), FOUR_LANES(o + 8), FOUR_LANES(o + 16), FOUR_LANES(o + 24)
#elif LANES == 8
#define ALL_LANES(o) FOUR_LANES(o), FOUR_LANES(o + 8)
#elif LANES == 4
#define ALL_LANES(o) FOUR_LANES(o)
#else
#define ALL_LANES(o) o, o + 2
#endif

/* Transposes two entries of each row, where nothing stands between the rows. */
FASTKL_INLINE void NAME(transpose_pairs)(REAL *to, const char *from) {
    NAME(whole) a, b, column[2];
    memcpy(&a, from, sizeof a);
    memcpy(&b, from + sizeof a, sizeof b);
    column[0] = FASTKL_SHUFFLE(a, b, ALL_LANES(0)), column[1] = FASTKL_SHUFFLE(a, b, ALL_LANES(1));
    memcpy(to, column, sizeof column);
}

/* Indices into a pair of vectors, for each part of it. */
#if FASTKL_VECTOR_BITS == 512
#define OF_ALL_PARTS(indices) indices(0), indices(PART), indices(2 * PART), indices(3 * PART)
#elif FASTKL_VECTOR_BITS == 256
#define OF_ALL_PARTS(indices) indices(0), indices(PART)
#else
#define OF_ALL_PARTS(indices) indices(0)
#endif

/* The parts that stand `step` bytes apart. */
FASTKL_INLINE NAME(whole) NAME(parts)(const char *from, ptrdiff_t step) {
    NAME(part) a;
    memcpy(&a, from, sizeof a);
#if FASTKL_VECTOR_BITS == 128
    return (NAME(whole))a;
#else
    NAME(part) b;
    memcpy(&b, from + step, sizeof b);
#if FASTKL_VECTOR_BITS == 256
    return (NAME(whole))FASTKL_SHUFFLE(a, b, 0, 1, 2, 3);
#else
    NAME(part) c, d;
    memcpy(&c, from + 2 * step, sizeof c);
    memcpy(&d, from + 3 * step, sizeof d);
    return (NAME(whole))FASTKL_SHUFFLE(FASTKL_SHUFFLE(a, b, 0, 1, 2, 3), FASTKL_SHUFFLE(c, d, 0, 1, 2, 3), 0, 1, 2, 3, 4, 5,
                                       6, 7);
#endif
#endif
}

/* Transposes a part of each row, `row` bytes apart, to as many columns. */
FASTKL_INLINE void NAME(transpose_part)(REAL *to, const char *from, ptrdiff_t row) {
    NAME(whole) column[PART];
#if REAL_BITS == 64
#define EVEN(o) o, LANES + o
#define ODD(o) o + 1, LANES + o + 1
    const NAME(whole) a = NAME(parts)(from, 2 * row), b = NAME(parts)(from + row, 2 * row);
    column[0] = FASTKL_SHUFFLE(a, b, OF_ALL_PARTS(EVEN)), column[1] = FASTKL_SHUFFLE(a, b, OF_ALL_PARTS(ODD));
#undef EVEN
#undef ODD
#else
#define FIRST(o) o, LANES + o, o + 1, LANES + o + 1
#define SECOND(o) o + 2, LANES + o + 2, o + 3, LANES + o + 3
#define LOWER(o) o, o + 1, LANES + o, LANES + o + 1
#define UPPER(o) o + 2, o + 3, LANES + o + 2, LANES + o + 3
    const NAME(whole) a = NAME(parts)(from, 4 * row), b = NAME(parts)(from + row, 4 * row);
    const NAME(whole) c = NAME(parts)(from + 2 * row, 4 * row), d = NAME(parts)(from + 3 * row, 4 * row);
    const NAME(whole) ab = FASTKL_SHUFFLE(a, b, OF_ALL_PARTS(FIRST)), cd = FASTKL_SHUFFLE(c, d, OF_ALL_PARTS(FIRST));
    const NAME(whole) ab_second = FASTKL_SHUFFLE(a, b, OF_ALL_PARTS(SECOND));
    const NAME(whole) cd_second = FASTKL_SHUFFLE(c, d, OF_ALL_PARTS(SECOND));
    column[0] = FASTKL_SHUFFLE(ab, cd, OF_ALL_PARTS(LOWER)), column[1] = FASTKL_SHUFFLE(ab, cd, OF_ALL_PARTS(UPPER));
    column[2] = FASTKL_SHUFFLE(ab_second, cd_second, OF_ALL_PARTS(LOWER));
    column[3] = FASTKL_SHUFFLE(ab_second, cd_second, OF_ALL_PARTS(UPPER));
#undef FIRST
#undef SECOND
#undef LOWER
#undef UPPER
#endif
    for (int i = 0; i < PART; i++)
        memcpy(to + i * LANES, &column[i], sizeof column[i]);
}
#endif

/* Transposes `count` entries of each of LANES rows, `row` bytes apart, to the columns of a tile. */
FASTKL_INLINE void NAME(transpose)(REAL *tile, const char *from, ptrdiff_t row, int count) {
#ifdef FASTKL_SHUFFLE
    if (count == 2 && row == 2 * (ptrdiff_t)sizeof(REAL)) {
        NAME(transpose_pairs)(tile, from);
        return;
    }
    for (int i = 0; i + PART <= count; i += PART)
        NAME(transpose_part)(tile + i * LANES, from + i * (ptrdiff_t)sizeof(REAL), row);
    if (count >= PART && count % PART)
        NAME(transpose_part)(tile + (count - PART) * LANES, from + (count - PART) * (ptrdiff_t)sizeof(REAL), row);
    if (count >= PART)
        return;
#endif
    for (int i = 0; i < count; i++)
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
            tile[i * LANES + j] = *(const NAME(loose) *)(from + j * row + i * (ptrdiff_t)sizeof(REAL));
}

#undef PART
#undef OF_ALL_PARTS
#undef FOUR_LANES
#undef ALL_LANES
