/* How entries of any type, stride and alignment come to stand in columns: where they are, if they can be used there, else
   copied to a chunk of a row or to a tile of LANES rows. In REAL. */

/* Entries of a row that are staged together. */
#define CHUNK (64 * LANES)

/* The task's eps. Rounded to a float it would be another one: with eps > 0, tier.inc.h looks in double. */
FASTKL_INLINE REAL NAME(eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->eps : 0; }

#if REAL_BITS == 64
/* Do the entries of a row stand side by side? The entries of a column? In this machine's byte order, of any alignment. */
FASTKL_INLINE int in_a_row(const fastkl_operand *operand) {
    return operand->col == fastkl_size(operand->dtype) && !operand->swapped;
}
FASTKL_INLINE int in_a_column(const fastkl_operand *operand) {
    return operand->row == fastkl_size(operand->dtype) && !operand->swapped;
}
#endif

/* Copies `count` entries from `data` on into the chunk and fills up to `size` with zeros: they add nothing. */
FASTKL_NOINLINE void NAME(stage)(REAL *chunk, const fastkl_operand *from, const char *data, int count, int size) {
    const ptrdiff_t col = from->col;
    const int swapped = from->swapped;
    if (in_a_row(from)) {
        NAME(convert)(chunk, from->dtype, data, count);
    } else {
        switch (from->dtype) {
#define ROW(name, type, value, single)                                  \
    case FASTKL_##name:                                                 \
        for (int i = 0; i < count; i++) {                               \
            type entry;                                                 \
            fastkl_read(&entry, data + i * col, sizeof entry, swapped); \
            chunk[i] = (REAL)value(entry);                              \
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

/* Copies `count` columns of LANES entries, side by side, to the tile; asks for the memory of the columns STRIP further. */
FASTKL_NOINLINE void NAME(stage_columns)(REAL *tile, const fastkl_operand *from, const char *data, int count) {
    const ptrdiff_t col = from->col;
    for (int i = 0; i < count; i++)
        FASTKL_PREFETCH_FAR(data + (STRIP + i) * col);
    switch (from->dtype) {
#define ROW(name, ...)                                                             \
    case FASTKL_##name:                                                            \
        for (int i = 0; i < count; i++)                                            \
            NAME(convert_column)(tile + i * LANES, FASTKL_##name, data + i * col); \
        break;
        FASTKL_DTYPES(ROW)
#undef ROW
    }
}

/* The next `count` entries in columns, where they stand or staged; but the last column is staged if it is not full. */
FASTKL_INLINE NAME(columns) NAME(line)(REAL *chunk, const fastkl_operand *from, const char *data, ptrdiff_t count,
                                       int in_place) {
    const ptrdiff_t rest = count % LANES, whole = count - rest, step = LANES * from->col;
    NAME(columns) columns = {
        (const char *)chunk, COLUMN_BYTES, REAL_DTYPE, chunk + whole, (int)rest, 1, data + count * from->col, step};
    if (in_place) {
        columns = (NAME(columns)){data, step, from->dtype, chunk, (int)rest, 1, data + FASTKL_PREFETCH_AHEAD, step};
        if (rest)
            NAME(stage)(chunk, from, data + whole * from->col, (int)rest, LANES);
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
            tile[i * LANES + r] = ((const NAME(loose) *)from)[i];
}

/* Columns of up to LANES rows whose entries start at `data`, where they stand or staged. */
FASTKL_INLINE NAME(columns) NAME(tile)(REAL *tile, const fastkl_operand *from, const char *data, int count, int rows,
                                       REAL eps, double *raised, uint64_t *bits) {
    const int raised_now = eps > 0, usable = from->dtype == REAL_DTYPE && !raised_now;
    const char *const ahead = data + rows * from->row;
    REAL chunk[LANES * TILE];
    if (usable && rows == LANES && in_a_column(from))
        return (NAME(columns)){data, from->col, REAL_DTYPE, NULL, 0, 0, data + STRIP * from->col, from->col};
    if (rows < LANES)
        memset(tile, 0, (size_t)count * LANES * sizeof(REAL));
    if (usable && in_a_row(from)) {
        NAME(turn)(tile, data, from->row, count, rows);
    } else if (in_a_column(from) && rows == LANES && !raised_now) {
        NAME(stage_columns)(tile, from, data, count);
    } else if (from->row == 0 && !raised_now) { /* one row for all */
        NAME(stage)(chunk, from, data, count, count);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < LANES; j++)
                tile[i * LANES + j] = chunk[i];
    } else if (in_a_row(from) && from->row == count * from->col && !raised_now) { /* all rows are as one */
        NAME(stage)(chunk, from, data, rows * count, rows * count);
        NAME(turn)(tile, (const char *)chunk, count * (ptrdiff_t)sizeof(REAL), count, rows);
    } else {
        for (int row = 0; row < rows; row++, data += from->row) {
            NAME(stage)(chunk + row * TILE, from, data, count, count);
            if (raised_now)
                NAME(raise)(chunk + row * TILE, count, eps, &raised[row], &bits[row]);
        }
        NAME(turn)(tile, (const char *)chunk, TILE * sizeof(REAL), count, rows);
    }
    return (NAME(columns)){(const char *)tile, COLUMN_BYTES, REAL_DTYPE, NULL, 0, 0, ahead, COLUMN_BYTES};
}
