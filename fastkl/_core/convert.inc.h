/* Owns the conversion of entries that stand side by side, of any type and alignment, to REALs. In REAL. Knows nothing of
   rows.

   The types in CONVERTED are common enough to be converted on the way into the sums, which costs next to nothing where the
   tier has instructions for it; entries of other types are first copied. */
#undef CONVERTED
#if !defined(FASTKL_TO_LANES)
#define CONVERTED(X)
#elif REAL_BITS == 64 && FASTKL_INT64_TO_DOUBLE
#define CONVERTED(X) X(int64) X(int32)
#elif REAL_BITS == 64
#define CONVERTED(X) X(int32)
#else
#define CONVERTED(X) X(float16) X(bfloat16)
#endif

/* Can entries of the type go into the sums from where they stand? */
FASTKL_INLINE int NAME(goes_in)(int dtype) {
#define ROW(name) || dtype == FASTKL_##name
    return dtype == REAL_DTYPE CONVERTED(ROW);
#undef ROW
}

/* A REAL of any alignment. */
typedef REAL NAME(loose) FASTKL_UNALIGNED;

/* Converts `count` entries from `data` on, which stand as those of the operand `apart`, or side by side if that is NULL. */
FASTKL_INLINE void NAME(convert)(REAL *to, int dtype, const char *data, const fastkl_operand *apart, int count) {
    const ptrdiff_t col = apart ? apart->col : 0;
    const int swapped = apart && apart->swapped;
    switch (dtype) {
#define ROW(name, type, value, single)                                                                          \
    case FASTKL_##name:                                                                                         \
        for (int i = 0; i < count; i++) {                                                                       \
            type entry;                                                                                         \
            fastkl_read(&entry, data + i * (apart ? col : (ptrdiff_t)sizeof entry), sizeof entry, swapped);     \
            to[i] = (REAL)value(entry);                                                                         \
        }                                                                                                       \
        break;
        FASTKL_DTYPES(ROW)
#undef ROW
    }
}

/* Converts LANES entries from `data` on. */
FASTKL_INLINE void NAME(convert_column)(REAL *to, int dtype, const char *data) {
    switch (dtype) {
#define ROW(name)                        \
    case FASTKL_##name:                  \
        FASTKL_TO_LANES(name)(to, data); \
        break;
        CONVERTED(ROW)
#undef ROW
    default:
        NAME(convert)(to, dtype, data, NULL, LANES);
    }
}
