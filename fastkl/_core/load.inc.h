/* Owns the way of entries of any type, stride and alignment into columns: they stay where they are if they can be used
   there, else they are copied to a chunk of a row or to a tile of LANES rows. In REAL. Knows nothing of measures. */

/* The entries of a row that are copied at once. */
#define CHUNK (64 * LANES)

/* The task's eps. Rounded to a float it would be another number: with eps > 0, rows are summed in double (operands.h). */
FASTKL_INLINE REAL NAME(eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->eps : 0; }

/* Copies `count` entries from `data` on into the chunk, and fills it up to `size` with zeros, which add nothing. */
FASTKL_NOINLINE void NAME(load)(REAL *chunk, const fastkl_operand *from, const char *data, int count, int size) {
    if (in_a_row(from))
        NAME(convert)(chunk, from->dtype, data, NULL, count);
    else
        NAME(convert)(chunk, from->dtype, data, from, count);
    for (int i = count; i < size; i++)
        chunk[i] = 0;
}

/* Clips the chunk's entries to eps from below; adds what that adds to *clipped, and the entries' bits to *bits. */
FASTKL_NOINLINE void NAME(clip)(REAL *chunk, int count, REAL eps, double *clipped, uint64_t *bits) {
    UINT all = 0;
    double sum = 0;
    for (int i = 0; i < count; i++) {
        const REAL entry = chunk[i];
        chunk[i] = entry < eps ? eps : entry;
        all |= NAME(bits)(entry);
        sum += (double)chunk[i] - (double)entry;
    }
    *clipped += sum;
    *bits |= (uint64_t)all << (64 - REAL_BITS);
}

/* Copies `count` columns of LANES entries, side by side, to the tile, and prefetches the columns STRIP further on. */
FASTKL_NOINLINE void NAME(load_columns)(REAL *tile, const fastkl_operand *from, const char *data, int count) {
    const ptrdiff_t col = from->col;
    for (int i = 0; i < count; i++)
        FASTKL_PREFETCH_L2(data + (STRIP + i) * col);
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

/* The next `count` entries of a row in columns, where they stand or copied. The last column is copied if it is not full. */
FASTKL_INLINE NAME(columns) NAME(row_columns)(REAL *chunk, const fastkl_operand *from, const char *data, ptrdiff_t count,
                                              int in_place) {
    const ptrdiff_t rest = count % LANES, whole = count - rest, step = LANES * from->col;
    NAME(columns) columns = {
        (const char *)chunk, COLUMN_BYTES, REAL_DTYPE, chunk + whole, (int)rest, 1, data + count * from->col, step};
    if (in_place) {
        columns = (NAME(columns)){data, step, from->dtype, chunk, (int)rest, 1, data + FASTKL_PREFETCH_AHEAD, step};
        if (rest)
            NAME(load)(chunk, from, data + whole * from->col, (int)rest, LANES);
    } else {
        NAME(load)(chunk, from, data, (int)count, (int)(whole + LANES));
    }
    return columns;
}

#ifdef FASTKL_SHUFFLE
typedef FASTKL_VECTOR(REAL, 4 * sizeof(REAL)) NAME(four);

/* Transposes four entries of each of four rows, `row` bytes apart, to columns LANES apart. */
FASTKL_INLINE void NAME(transpose_4x4)(REAL *to, const char *from, ptrdiff_t row) {
    NAME(four) a, b, c, d, column[4];
    memcpy(&a, from, sizeof a);
    memcpy(&b, from + row, sizeof b);
    memcpy(&c, from + 2 * row, sizeof c);
    memcpy(&d, from + 3 * row, sizeof d);
#if REAL_BITS == 64 /* each order is the one for which there are instructions, on four doubles or on four floats */
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

/* Transposes `count` entries of each of some rows, `row` bytes apart, to the columns of a tile. */
FASTKL_INLINE void NAME(transpose)(REAL *tile, const char *from, ptrdiff_t row, int count, int rows) {
    int r = 0;
#ifdef FASTKL_SHUFFLE
    for (; r + 4 <= rows && count >= 4; r += 4, from += 4 * row) {
        for (int i = 0; i + 4 <= count; i += 4)
            NAME(transpose_4x4)(tile + i * LANES + r, from + i * (ptrdiff_t)sizeof(REAL), row);
        if (count % 4)
            NAME(transpose_4x4)(tile + (count - 4) * LANES + r, from + (count - 4) * (ptrdiff_t)sizeof(REAL), row);
    }
#endif
    for (; r < rows; r++, from += row)
        for (int i = 0; i < count; i++)
            tile[i * LANES + r] = ((const NAME(loose) *)from)[i];
}

/* Columns of up to LANES rows whose entries start at `data`, where they stand or copied; clipped if eps > 0. */
FASTKL_INLINE NAME(columns) NAME(group_columns)(REAL *tile, const fastkl_operand *from, const char *data, int count,
                                                int rows, REAL eps, double *clipped, uint64_t *bits) {
    const int clips = eps > 0, fits = from->dtype == REAL_DTYPE && !clips;
    const char *const ahead = data + rows * from->row;
    REAL chunk[LANES * TILE];
    if (fits && rows == LANES && in_a_column(from))
        return (NAME(columns)){data, from->col, REAL_DTYPE, NULL, 0, 0, data + STRIP * from->col, from->col};
    if (rows < LANES)
        memset(tile, 0, (size_t)count * LANES * sizeof(REAL));
    if (fits && in_a_row(from)) {
        NAME(transpose)(tile, data, from->row, count, rows);
    } else if (in_a_column(from) && rows == LANES && !clips) {
        NAME(load_columns)(tile, from, data, count);
    } else if (from->row == 0 && !clips) { /* one row for all */
        NAME(load)(chunk, from, data, count, count);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < LANES; j++)
                tile[i * LANES + j] = chunk[i];
    } else if (in_a_row(from) && from->row == count * from->col && !clips) { /* the rows follow each other without a gap */
        NAME(load)(chunk, from, data, rows * count, rows * count);
        NAME(transpose)(tile, (const char *)chunk, count * (ptrdiff_t)sizeof(REAL), count, rows);
    } else {
        for (int row = 0; row < rows; row++, data += from->row) {
            NAME(load)(chunk + row * TILE, from, data, count, count);
            if (clips)
                NAME(clip)(chunk + row * TILE, count, eps, &clipped[row], &bits[row]);
        }
        NAME(transpose)(tile, (const char *)chunk, TILE * sizeof(REAL), count, rows);
    }
    return (NAME(columns)){(const char *)tile, COLUMN_BYTES, REAL_DTYPE, NULL, 0, 0, ahead, COLUMN_BYTES};
}
