"""The measures of a TopK, which are those of coarser rows with one bucket for the rest.

Owns how operands become coarser rows. The rows are summed and compared in the kernels.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from . import _kernels, call
from ._kernels import Kind, Request, in_default_mode
from .call import Array
from .topk import TopK, as_float64, row_error

__all__ = ["run"]

_MEASURES: Final = ("kl_divergence", "cross_entropy", "js_divergence", "total_variation")
_, _FLOAT64 = call.read_operand("p", np.empty(0))
# A block of rows has at most so many entries of q, some ten milliseconds of work, and so many of the coarser rows.
_ENTRIES: Final = 1 << 25
_COARSE: Final = 1 << 19
_COPIED: Final = 1 << 18  # entries of q in a block, if it has to be copied because rows are not along memory


def run(request: Request) -> Any:
    """The values of a measure of which an operand is a TopK, in a container of the operands' library."""
    top, q = request.p, request.q
    if request.measure not in _MEASURES:
        raise TypeError(f"{request.measure} takes no TopK: only {', '.join(_MEASURES[:-1])} and {_MEASURES[-1]} do")
    if not isinstance(top, TopK):
        raise TypeError("q is a TopK and p is none: a TopK q is taken beside a TopK p only")
    other = q if isinstance(q, TopK) else None
    request = request.replace(p=top.values, q=other.values if other else q)
    evaluate = partial(in_default_mode, _evaluate, top, other)
    if request.only_numpy():
        return evaluate(request)
    from . import containers

    return containers.run(request, evaluate, takes_frames=False)


class _Rows(NamedTuple):
    """The rows of a TopK that are to be evaluated: arrays whose leading axes are those of the result."""

    columns: Array
    values: Array
    kind: Kind
    tail: Array | None
    log: bool

    def block(self, block: Any) -> _Rows:
        columns = np.ascontiguousarray(self.columns[block], np.int64)  # negative for a uint64 that is too large
        values = as_float64(self.values[block], self.kind)
        return self._replace(columns=columns, values=values, tail=None if self.tail is None else self.tail[block])


def _rows_of(top: TopK, values: Array, kind: Kind, leading: tuple[int, ...]) -> _Rows:
    def spread(x: Array, *last: int) -> Array:
        return np.broadcast_to(x, leading + last)

    k = values.shape[-1]
    tail = None if top.tail is None else spread(np.broadcast_to(top.tail, values.shape[:-1]))
    return _Rows(spread(top.indices, k), spread(values, k), kind, tail, top.log_probs)


def _evaluate(top: TopK, other: TopK | None, request: Request) -> Any:
    """The result. The request has the values of `top`, and q or the values of `other`, as arrays."""
    values, kind = call.read_operand("p", request.p)
    q, q_kind = call.read_operand("q", request.q)
    _check(request, other)
    shapes = f"p has shape {values.shape} and q has shape {q.shape}"
    if not q.ndim:
        raise ValueError(f"q is the number {q[()]}: must have at least one axis")
    if call.check_axis(request.axis, ndim := max(values.ndim, q.ndim)) != ndim - 1:
        raise ValueError(f"axis={request.axis}: must be the last one with a TopK, which has its categories there")
    if not q.shape[-1]:
        raise ValueError(f"q has shape {q.shape}: the distribution axis, axis -1, must not be empty")
    try:
        leading = np.broadcast_shapes(values.shape[:-1], q.shape[:-1])
    except ValueError:
        raise ValueError(f"{shapes}: all axes except axis -1 must broadcast") from None
    dtype = kind.result if kind.result is q_kind.result else np.dtype(np.float64)
    out = None if request.out is None else call.check_out(request.out, -1, leading, request.keepdims)
    result = np.empty(leading, dtype if out is None else out.dtype)
    p_rows = _rows_of(top, values, kind, leading)
    if other:
        top_q = _rows_of(other, q, q_kind, leading)
    else:
        full_q = np.broadcast_to(q, leading + q.shape[-1:])
    coarse = values.shape[-1] + (q.shape[-1] if other else 0)
    entries = _ENTRIES if q.strides[-1] == q.itemsize else _COPIED
    rows = max(1, min(entries // q.shape[-1], _COARSE // coarse))
    first = 0
    for block in call.blocks(leading, rows) if result.size else ():
        if other:
            pair = _of_both(request, p_rows.block(block), top_q.block(block))
        else:
            pair = _of_full(request, p_rows.block(block), full_q[block], q_kind, dtype)
        invalid = pair.p_invalid | pair.q_invalid
        if request.invalid == "raise" and invalid.any():
            i = int(np.argmax(invalid))
            at = tuple(int(i) for i in np.unravel_index(first + i, leading))
            if pair.p_invalid.flat[i]:
                raise row_error("p", top, (values, kind), at, None if other else q.shape[-1])
            if other:
                raise row_error("q", other, (q, q_kind), at, None)
            aligned = q[(np.newaxis,) * (len(leading) + 1 - q.ndim)]
            raise call.invalid_row(request, "q", (q, q_kind), aligned, at, -1)
        pair.p[invalid] = np.nan
        result[block] = _measured(request, pair)
        first += invalid.size
    if out is not None:
        np.copyto(out, result)
        return request.out
    if request.keepdims:
        return result[..., np.newaxis]
    return result if result.ndim else result[()]


def _check(request: Request, other: TopK | None) -> None:
    """Check the options; the request then says whether a full q holds logits."""
    if other and request.from_logits:
        raise ValueError(f"from_logits={request.from_logits!r}: must be False beside a TopK, which has log_probs")
    if isinstance(request.from_logits, str) and request.from_logits == "p":
        raise ValueError("from_logits='p': p is a TopK, which has log_probs; must be False, True or 'q'")
    call.check_options(request)


class _Pair(NamedTuple):
    """Coarser rows, buckets last; whether they hold logarithms; what the rounding of q's buckets left; invalid rows."""

    p: Array
    q: Array
    p_log: bool
    q_log: bool
    rest: Array
    p_invalid: Array
    q_invalid: Array


def _measured(request: Request, pair: _Pair) -> Array:
    """The values, with q's buckets as they were before they were rounded to float64.

    That rounding shows in a small divergence, of which it is a larger part. The value is found between those of the rounded
    bucket and of its neighbours in float64: by a parabola, of which the error is of third order in the rounding; of a total
    variation, which has a kink where p and q are equal, by a line.
    """
    value = _measure(request, pair)
    if not pair.rest.any():
        return value
    bucket, rest = pair.q[..., -1], pair.rest

    def slope(toward: Array) -> tuple[Array, Array]:
        neighbour = np.nextafter(bucket, toward)
        q = np.concatenate([pair.q[..., :-1], neighbour[..., np.newaxis]], -1)
        return (_measure(request, pair._replace(q=q)) - value) / (neighbour - bucket), neighbour - bucket

    with np.errstate(all="ignore"):
        near, step = slope(np.where(rest > 0, np.inf, 0))
        between = value + near * rest
        if request.measure != "total_variation":
            far, back = slope(np.where(rest > 0, 0, np.inf))
            between += (near - far) / (step - back) * rest * (rest - step)
        return np.where((rest != 0) & (value > 0) & np.isfinite(between), np.maximum(between, 0), value)


def _measure(request: Request, pair: _Pair) -> Array:
    rows = Request(request.measure, pair.p, pair.q)
    rows.set_rows(-1, True, "nan")
    rows.set_numbers(request.base, request.eps, request.threads)
    rows.set_logits({(1, 1): True, (1, 0): "p", (0, 1): "q", (0, 0): False}[pair.p_log, pair.q_log], 1.0)
    return np.asarray(call.run(rows))


def _coarsen(request: Request, q: Array, kind: Kind, columns: Array, exact: bool) -> tuple[Array, Array]:
    """What the kernel of that name gives: entries and statuses of the rows of q."""
    leading = columns.shape[:-1]
    entries, status = np.empty((*leading, columns.shape[-1] + 2)), np.empty(leading, np.uint8)
    _kernels.coarsen(request, q, kind, columns, np.sort(columns), entries, status, exact)
    return entries, status


def _sum(values: Array) -> tuple[Array, Array]:
    """The sums of rows that are not negative, and what rounding took from them."""
    request = Request("entropy")
    request.any_sum = True
    sums, _ = _coarsen(request, values, _FLOAT64, np.empty((*values.shape[:-1], 0), np.int64), True)
    return sums[..., 0], sums[..., 1]


def _with_tail(request: Request, rows: _Rows, n: int | None = None) -> tuple[Array, Array]:
    """The values and the tail of each row, and which rows are invalid, whatever their columns are."""
    values = rows.values
    with np.errstate(all="ignore"):
        invalid = ~((values < np.inf) & (values >= (-np.inf if rows.log else 0))).all(-1)
        total, rest = _sum(np.exp(values) if rows.log else values)
        if rows.tail is None:
            tail = 1 - total
            tail = np.maximum(tail + (((1 - tail) - total) - rest), 0)
            if values.shape[-1] == n:  # What is left of 1 is rounding: there is no other category.
                tail = np.where(tail <= rows.kind.tolerance, 0, tail)
            if request.invalid != "ignore":
                invalid |= ~(total <= 1 + rows.kind.tolerance)
        else:
            tail = rows.tail
            invalid |= ~((tail >= 0) & (tail < np.inf))
            if not request.any_sum:
                invalid |= ~(abs(total + tail - 1) <= rows.kind.tolerance)
        invalid |= ~((total > 0) | (tail > 0))
        last = np.log(tail) if rows.log else tail
    return np.concatenate([values, last[..., np.newaxis]], -1), invalid


def _of_full(request: Request, top: _Rows, q: Array, kind: Kind, dtype: np.dtype[Any]) -> _Pair:
    """The rows of a TopK and those of a full q."""
    if q.strides[-1] != q.itemsize and q.size > q.shape[-1]:
        q = np.ascontiguousarray(q)  # some rows: a row at a time would read the same cache lines again and again
    p, p_invalid = _with_tail(request, top, q.shape[-1])
    # A rounding of a double shows in a double, and in a total variation, which is of first order in it.
    is_exact = dtype == np.float64 or request.measure == "total_variation"
    entries, status = _coarsen(request, q, kind, top.columns, is_exact)
    logits = bool(request.q_logits)
    for at in np.argwhere(status == _kernels.REFUSED):
        _enter_refused(request, as_float64(q[tuple(at)], kind), top.columns[tuple(at)], entries[tuple(at)])
    invalid = (status != _kernels.REFUSED) & (status != 0) & (status != _kernels.INDEX)
    rest = np.zeros(status.shape) if logits else entries[..., -1]
    return _Pair(p, entries[..., :-1], top.log, logits, rest, p_invalid | (status == _kernels.INDEX), invalid)


def _enter_refused(request: Request, q: Array, columns: Array, entries: Array) -> None:
    """Enter what the kernel leaves to others: sums that overflow, logits by a temperature beyond its numbers."""
    few, others = q[columns], np.delete(q, columns)
    with np.errstate(all="ignore"):
        if not request.q_logits:
            scale = 2.0 ** -(math.frexp(q.max())[1] + 2)  # by a power of two, which rounds no entry that counts
            entries[:-2], entries[-2], entries[-1] = few * scale, math.fsum(others * scale), 0
            return
        temperature, largest = float(request.temperature), q.max()
        x = [
            np.where(np.isinf(a - largest), a / temperature - largest / temperature, (a - largest) / temperature)
            for a in (few, others)
        ]
        entries[:-2], entries[-2], entries[-1] = np.where(np.isnan(x[0]), 0, x[0]), _log_sum(x[1]), 0


def _log_sum(logs: Array) -> Array:
    """The logarithm of the sum of exponentials of each row."""
    with np.errstate(all="ignore"):
        largest = logs.max(-1, initial=-np.inf)
        return np.where(largest > -np.inf, largest + np.log(np.exp(logs - largest[..., np.newaxis]).sum(-1)), -np.inf)


# ---- two TopKs --------------------------------------------------------------------------------------------------------


def _of_both(request: Request, p: _Rows, q: _Rows) -> _Pair:
    """The rows of two TopKs: the categories of both, and buckets with all others."""
    (p_entries, p_invalid), (q_entries, q_invalid) = _with_tail(request, p), _with_tail(request, q)
    columns = np.concatenate([p.columns, q.columns], -1)
    order = np.argsort(columns, kind="stable")
    ordered = np.take_along_axis(columns, order, -1)
    in_both = ordered[..., 1:] == ordered[..., :-1]  # at p's place; q's is the next
    edge = np.zeros((*order.shape[:-1], 1), bool)
    alone = ~(np.concatenate([in_both, edge], -1) | np.concatenate([edge, in_both], -1))

    def coarser(entries: Array, log: bool, is_first: bool) -> tuple[Array, Array]:
        nothing = -np.inf if log else 0.0
        room = np.full((*entries.shape[:-1], order.shape[-1] - (entries.shape[-1] - 1)), nothing)
        parts = [entries[..., :-1], room] if is_first else [room, entries[..., :-1]]
        values = np.take_along_axis(np.concatenate(parts, -1), order, -1)
        shared = np.where(in_both, values[..., :-1] if is_first else values[..., 1:], nothing)
        bucket = np.concatenate([np.where(alone, values, nothing), entries[..., -1:]], -1)
        total, rest = (_log_sum(bucket), np.zeros(bucket.shape[:-1])) if log else _sum(bucket)
        return np.concatenate([shared, total[..., np.newaxis]], -1), rest

    p_rows, _ = coarser(p_entries, p.log, True)
    q_rows, rest = coarser(q_entries, q.log, False)
    p_invalid, q_invalid = p_invalid | _has_wrong_index(p.columns), q_invalid | _has_wrong_index(q.columns)
    return _Pair(p_rows, q_rows, p.log, q.log, rest, p_invalid, q_invalid)


def _has_wrong_index(columns: Array) -> Array:
    ordered = np.sort(columns)
    wrong: Array = (ordered[..., 0] < 0) | (ordered[..., 1:] == ordered[..., :-1]).any(-1)
    return wrong
