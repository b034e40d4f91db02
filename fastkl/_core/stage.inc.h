/* How entries of any type, stride and alignment come to stand in columns: where they are, if they can be used there, else copied
   to a chunk of a row or to a tile of LANES rows. In REAL. */

/* Entries of a row that are staged together. */
#define CHUNK (64 * LANES)

/* The task's eps. Rounded to a float it would be another one: with eps > 0, tier.inc.h looks in double. */
FASTKL_INLINE REAL NAME(eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->eps : 0; }

/* Can entries be used where they stand, from `data` on, `stride` bytes apart? */
FASTKL_INLINE int NAME(usable_at)(const fastkl_operand *operand, const char *data, ptrdiff_t stride) {
    return operand->dtype == REAL_DTYPE && !operand->swapped && ((uintptr_t)data | (uintptr_t)stride) % sizeof(REAL) == 0;
}

#if REAL_BITS == 64
/* Do the entries of a row stand side by side? The entries of a column? In this machine's byte order, of any alignment. */
FASTKL_INLINE int in_a_row(const fastkl_operand *operand) {
    return operand->col == fastkl_size(operand->dtype) && !operand->swapped;
}
FASTKL_INLINE int in_a_column(const fastkl_operand *operand) {
    return operand->row == fastkl_size(operand->dtype) && !operand->swapped;
}
#endif

/* Copies `count` entries, side by side from `data` on, into the chunk, -0 as 0. */
FASTKL_INLINE void NAME(convert)(REAL *chunk, int dtype, const char *data, int count) {
    switch (dtype) {
#define ROW(name, type, value, single)                                  \
    case FASTKL_##name:                                                 \
        for (int i = 0; i < count; i++) {                               \
            type entry;                                                 \
            memcpy(&entry, data + i * sizeof entry, sizeof entry);      \
            chunk[i] = (REAL)value(entry) + 0;                          \
        }                                                               \
        break;
        FASTKL_DTYPES(ROW)
#undef ROW
    }
}

/* Copies `count` entries from `data` on into the chunk, -0 as 0, and fills up to `size` with zeros: they add nothing. */
FASTKL_NOINLINE void NAME(stage)(REAL *chunk, const fastkl_operand *from, const char *data, int count, int size) {
    const ptrdiff_t col = from->col;
    const int swapped = from->swapped;
    if (in_a_row(from)) {
        for (ptrdiff_t i = 0; i < count * col; i += FASTKL_LINE)
            FASTKL_PREFETCH(data + i + FASTKL_PREFETCH_AHEAD);
        NAME(convert)(chunk, from->dtype, data, count);
    } else {
        switch (from->dtype) {
#define ROW(name, type, value, single)                                  \
    case FASTKL_##name:                                                 \
        for (int i = 0; i < count; i++) {                               \
            type entry;                                                 \
            fastkl_read(&entry, data + i * col, sizeof entry, swapped); \
            chunk[i] = (REAL)value(entry) + 0;                          \
        }                                                               \
        break;
            FASTKL_DTYPES(ROW)
#undef ROW
        }
    }
    for (int i = count; i < size; i++)
        chunk[i] = 0;
}

/* Raises the chunk's entries to eps; takes note of what they were. */
FASTKL_NOINLINE void NAME(raise)(REAL *chunk, int count, REAL eps, double *raised, uint64_t *bits) {
    UINT seen = 0;
    double sum = 0;
    for (int i = 0; i < count; i++) {
        const REAL entry = chunk[i];
        chunk[i] = entry < eps ? eps : entry;
        seen |= NAME(bits)(entry);
        sum += (double)chunk[i] - (double)entry;
    }
    *raised += sum;
    *bits |= (uint64_t)seen << (64 - REAL_BITS);
}

/* The next `count` entries in columns, where they stand or staged; but the last column is staged if it is not full. */
FASTKL_INLINE NAME(columns) NAME(line)(REAL *chunk, const fastkl_operand *from, const char *data, ptrdiff_t count, int in_place) {
    const ptrdiff_t rest = count % LANES, whole = count - rest;
    NAME(columns) columns = {chunk, LANES, chunk + whole, (int)rest, 1, data + FASTKL_PREFETCH_AHEAD, COLUMN_BYTES};
    if (in_place) {
        columns.data = (const REAL *)data;
        columns.last = chunk;
        if (rest)
            for (int j = 0; j < LANES; j++)
                chunk[j] = j < rest ? columns.data[whole + j] : 0;
    } else {
        NAME(stage)(chunk, from, data, (int)count, (int)(whole + LANES));
    }
    return columns;
}

#ifdef FASTKL_SHUFFLE
typedef FASTKL_VECTOR(REAL, 4 * sizeof(REAL)) NAME(four);

/* Four entries of each of four rows, `row` bytes apart, to columns LANES apart. */
FASTKL_INLINE void NAME(turn_4_by_4)(REAL *to, const char *from, ptrdiff_t row) {
    NAME(four) a, b, c, d, column[4];
    memcpy(&a, from, sizeof a);
    memcpy(&b, from + row, sizeof b);
    memcpy(&c, from + 2 * row, sizeof c);
    memcpy(&d, from + 3 * row, sizeof d);
#if REAL_BITS == 64 /* the order that suits the instructions on four doubles, and on four floats */
    const NAME(four) ab = FASTKL_SHUFFLE(a, b, 0, 4, 2, 6), ab_odd = FASTKL_SHUFFLE(a, b, 1, 5, 3, 7);
    const NAME(four) cd = FASTKL_SHUFFLE(c, d, 0, 4, 2, 6), cd_odd = FASTKL_SHUFFLE(c, d, 1, 5, 3, 7);
    column[0] = FASTKL_SHUFFLE(ab, cd, 0, 1, 4, 5), column[1] = FASTKL_SHUFFLE(ab_odd, cd_odd, 0, 1, 4, 5);
    column[2] = FASTKL_SHUFFLE(ab, cd, 2, 3, 6, 7), column[3] = FASTKL_SHUFFLE(ab_odd, cd_odd, 2, 3, 6, 7);
#else
    const NAME(four) ab = FASTKL_SHUFFLE(a, b, 0, 4, 1, 5), ab_high = FASTKL_SHUFFLE(a, b, 2, 6, 3, 7);
    const NAME(four) cd = FASTKL_SHUFFLE(c, d, 0, 4, 1, 5), cd_high = FASTKL_SHUFFLE(c, d, 2, 6, 3, 7);
    column[0] = FASTKL_SHUFFLE(ab, cd, 0, 1, 4, 5), column[1] = FASTKL_SHUFFLE(ab, cd, 2, 3, 6, 7);
    column[2] = FASTKL_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5), column[3] = FASTKL_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
#endif
    for (int i = 0; i < 4; i++)
        memcpy(to + i * LANES, &column[i], sizeof column[i]);
}
#endif

/* `count` entries of each of some rows, `row` bytes apart, to the columns of a tile. */
FASTKL_INLINE void NAME(turn)(REAL *tile, const char *from, ptrdiff_t row, int count, int rows) {
    int r = 0;
#ifdef FASTKL_SHUFFLE
    for (; r + 4 <= rows && count >= 4; r += 4, from += 4 * row) {
        for (int i = 0; i + 4 <= count; i += 4)
            NAME(turn_4_by_4)(tile + i * LANES + r, from + i * (ptrdiff_t)sizeof(REAL), row);
        if (count % 4)
            NAME(turn_4_by_4)(tile + (count - 4) * LANES + r, from + (count - 4) * (ptrdiff_t)sizeof(REAL), row);
    }
#endif
    for (; r < rows; r++, from += row)
        for (int i = 0; i < count; i++)
            tile[i * LANES + r] = ((const REAL *)from)[i];
}

/* Columns of up to LANES rows whose entries start at `data`, where they stand or staged. */
FASTKL_INLINE NAME(columns) NAME(tile)(REAL *tile, const fastkl_operand *from, const char *data, int count, int rows, REAL eps,
                                       double *raised, uint64_t *bits) {
    const int usable = NAME(usable_at)(from, data, from->col | from->row) && !(eps > 0);
    const char *const ahead = data + rows * from->row;
    if (usable && rows == LANES && from->row == sizeof(REAL))
        return (NAME(columns)){(const REAL *)data, from->col / (ptrdiff_t)sizeof(REAL), NULL, 0, 0, data + STRIP * from->col,
                               from->col};
    if (rows < LANES)
        memset(tile, 0, (size_t)count * LANES * sizeof(REAL));
    if (usable && from->col == sizeof(REAL)) {
        NAME(turn)(tile, data, from->row, count, rows);
    } else {
        REAL chunk[LANES * TILE];
        for (int row = 0; row < rows; row++, data += from->row) {
            NAME(stage)(chunk + row * TILE, from, data, count, count);
            if (eps > 0)
                NAME(raise)(chunk + row * TILE, count, eps, &raised[row], &bits[row]);
        }
        NAME(turn)(tile, (const char *)chunk, TILE * sizeof(REAL), count, rows);
    }
    return (NAME(columns)){tile, LANES, NULL, 0, 0, ahead, COLUMN_BYTES};
}
