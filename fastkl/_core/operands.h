/* Owns where the entries of operands stand, and what follows from that. Knows nothing of their values. */
#ifndef FASTKL_OPERANDS_H
#define FASTKL_OPERANDS_H

#include "fastkl.h"

/* The address so many bytes further on; NULL for an operand that is not there, because C does not add even 0 to NULL. */
static inline const char *advance(const char *data, ptrdiff_t bytes) { return data ? data + bytes : NULL; }

/* An address so many bytes further on, to prefetch. */
static inline uintptr_t beyond(const char *data, ptrdiff_t bytes) { return (uintptr_t)data + (uintptr_t)bytes; }

/* The operand from so many rows and columns further on. */
static inline fastkl_operand moved(const fastkl_operand *operand, ptrdiff_t rows, ptrdiff_t columns) {
    fastkl_operand result = *operand;
    result.data = advance(operand->data, rows * operand->row + columns * operand->col);
    return result;
}

/* Do the entries of a row stand side by side, in this machine's byte order? They may have any alignment. */
static inline int in_a_row(const fastkl_operand *operand) {
    return operand->col == fastkl_size(operand->dtype) && !operand->swapped;
}

/* The same of the entries of a column. */
static inline int in_a_column(const fastkl_operand *operand) {
    return operand->row == fastkl_size(operand->dtype) && !operand->swapped;
}

/* Are rows neighbours in memory, so that each lane can have a row, however long the rows are? */
static inline int interleaved(const fastkl_operand *p, const fastkl_operand *q) {
    return in_a_column(p) ? !q->data || in_a_column(q) || q->row == 0 : p->row == 0 && q->data && in_a_column(q);
}

/* The columns at multiples of which rows are cut: a property of the layout, so that a row's bits depend on nothing else. */
static inline ptrdiff_t piece(const fastkl_operand *p, const fastkl_operand *q) {
    return interleaved(p, q) ? FASTKL_INTERLEAVED_PIECE : FASTKL_PIECE;
}

/* The number of columns of a piece that begins at `start`. */
static inline ptrdiff_t columns_of_piece(ptrdiff_t n, ptrdiff_t start, ptrdiff_t piece) {
    return n - start < piece ? n - start : piece;
}

/* Rows are summed in double lanes, unless float is enough for both operands and eps, which has no exact float, is 0. */
static inline int in_float(const fastkl_task *task, const fastkl_operand *p, const fastkl_operand *q) {
    return fastkl_is_single(p->dtype) && fastkl_is_single(q->dtype) && task->eps == 0;
}

#endif
