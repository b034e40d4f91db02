/* Owns the way of entries of any type, stride and alignment into columns: they stay where they are if they can be used
   there, else they are copied to a chunk of a row or to a tile of LANES rows. In REAL. Knows nothing of measures. */

/* The entries of a row that are copied at once. */
#define CHUNK (64 * LANES)

/* The task's eps, and that of p. Rounded to a float they would be other numbers: with eps > 0, rows are summed in double
   (operands.h). */
FASTKL_INLINE REAL NAME(eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->eps : 0; }
FASTKL_INLINE REAL NAME(p_eps)(const fastkl_task *task) { return REAL_BITS == 64 ? (REAL)task->p_eps : 0; }

/* What clips an operand, 0 for nothing, and where the rows of a group get what that adds to them and the entries' bits. */
typedef struct {
    REAL eps;
    double *clipped;
    uint64_t *bits;
} NAME(clipping);
FASTKL_INLINE NAME(clipping) NAME(clipping_of_p)(const fastkl_task *task, group_sums *to) {
    return (NAME(clipping)){NAME(p_eps)(task), to->p_clipped, to->entry_bits};
}
FASTKL_INLINE NAME(clipping) NAME(clipping_of_q)(const fastkl_task *task, group_sums *to) {
    return (NAME(clipping)){NAME(eps)(task), to->clipped, to->entry_bits};
}

/* Copies `count` entries from `data` on into the chunk, and fills it up to `size` with zeros, which add nothing. */
FASTKL_NOINLINE void NAME(load)(REAL *chunk, const fastkl_operand *from, const char *data, int count, int size) {
    if (in_a_row(from))
        NAME(convert)(chunk, from->dtype, data, NULL, count);
    else
        NAME(convert)(chunk, from->dtype, data, from, count);
    for (int i = count; i < size; i++)
        chunk[i] = 0;
}

/* Puts a filler in the place of entries at the columns, in a chunk of a row that begins at `start`. */
FASTKL_NOINLINE void NAME(hide)(const fastkl_columns *at, REAL *chunk, ptrdiff_t start, ptrdiff_t count, REAL filler) {
    ptrdiff_t i = 0, end = at->count; /* the first column from `start` on */
    while (i < end) {
        const ptrdiff_t middle = i + (end - i) / 2;
        if (at->sorted[middle] < start)
            i = middle + 1;
        else
            end = middle;
    }
    for (; i < at->count && at->sorted[i] < start + count; i++)
        chunk[at->sorted[i] - start] = filler;
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

/* The same of fewer than LANES REALs, which fill a column up. */
FASTKL_INLINE void NAME(load_last)(REAL *column, const NAME(loose) *from, int count) {
    FASTKL_VECTORIZE_INNER
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        column[j] = j < count ? from[j] : 0;
}

/* The next `count` entries of a row in columns, where they stand or copied. The last column is copied if it is not full. */
FASTKL_INLINE NAME(columns) NAME(row_columns)(REAL *chunk, const fastkl_operand *from, const char *data, ptrdiff_t count,
                                              int in_place) {
    const ptrdiff_t rest = count % LANES, whole = count - rest, step = LANES * from->col;
    NAME(columns) columns = {
        (const char *)chunk, COLUMN_BYTES, REAL_DTYPE, chunk + whole, (int)rest, 1, data + count * from->col, step};
    if (in_place) {
        columns = (NAME(columns)){data, step, from->dtype, chunk, (int)rest, 1, data + FASTKL_PREFETCH_AHEAD, step};
        if (rest && from->dtype == REAL_DTYPE)
            NAME(load_last)(chunk, (const NAME(loose) *)data + whole, (int)rest);
        else if (rest)
            NAME(load)(chunk, from, data + whole * from->col, (int)rest, LANES);
    } else {
        NAME(load)(chunk, from, data, (int)count, (int)(whole + LANES));
    }
    return columns;
}

/* Clips columns of a tile to eps from below, and adds what `clip` does to each lane's row. */
FASTKL_NOINLINE void NAME(clip_columns)(REAL *tile, int count, REAL eps, double *clipped, uint64_t *bits) {
    double sum[LANES];
    UINT all[LANES];
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        sum[j] = 0, all[j] = 0;
    for (int i = 0; i < count; i++, tile += LANES) {
        FASTKL_VECTORIZE
        for (int j = 0; j < FASTKL_TRIPS(LANES); j++) {
            const REAL entry = tile[j], more = entry < eps ? eps : entry;
            tile[j] = more;
            all[j] |= NAME(bits)(entry);
            sum[j] += (double)more - (double)entry;
        }
    }
    FASTKL_VECTORIZE
    for (int j = 0; j < FASTKL_TRIPS(LANES); j++)
        clipped[j] += sum[j], bits[j] |= (uint64_t)all[j] << (64 - REAL_BITS);
}

/* Loads tiles of rows whose entries start at `data`, LANES rows after LANES rows; one tile if these are the same row. In
   place of the rows that are missing in the last tile it has ones, of which no measure is infinite. */
FASTKL_NOINLINE void NAME(load_tiles)(REAL *tile, const fastkl_operand *from, const char *data, int n, int rows) {
    const int missing = (LANES - rows % LANES) % LANES, fits = from->dtype == REAL_DTYPE && in_a_row(from);
    ptrdiff_t row = from->row;
    REAL chunk[LANES * TILE];
    if (row == 0) {
        NAME(load)(chunk, from, data, n, n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < LANES; j++)
                tile[i * LANES + j] = chunk[i];
        return;
    }
    if (in_a_column(from) && !missing) {
        for (int i = 0; i < rows; i += LANES)
            NAME(load_columns)(tile + i * n, from, data + i * row, n);
        return;
    }
    if (missing || !fits) {
        if (in_a_row(from) && row == n * from->col) /* the rows follow each other without a gap */
            NAME(load)(chunk, from, data, rows * n, rows * n);
        else
            for (int i = 0; i < rows; i++)
                NAME(load)(chunk + i * n, from, data + i * row, n, n);
        for (int i = rows * n; i < (rows + missing) * n; i++)
            chunk[i] = 1;
        data = (const char *)chunk, row = n * (ptrdiff_t)sizeof(REAL);
    }
    for (int i = 0; i < rows; i += LANES)
        NAME(transpose)(tile + i * n, data + i * row, row, n);
}

/* The columns of up to LANES rows of n entries that start at `data`, where they stand or copied to the tile. */
FASTKL_INLINE NAME(columns) NAME(group_columns)(REAL *tile, const fastkl_operand *from, const char *data, int n, int rows) {
    if (from->dtype == REAL_DTYPE && in_a_column(from) && rows == LANES)
        return (NAME(columns)){data, from->col, REAL_DTYPE, NULL, 0, 0, data + STRIP * from->col, from->col, 0};
    NAME(load_tiles)(tile, from, data, n, rows);
    const char *const ahead = data + rows * from->row;
    return (NAME(columns)){(const char *)tile, COLUMN_BYTES, REAL_DTYPE, NULL, 0, 0, ahead, COLUMN_BYTES, 0};
}
