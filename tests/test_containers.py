"""Other libraries' containers: a call gives the values of the same call with NumPy arrays, in a container of the same kind.

Here is what every library has, and what is refused; test_array_libraries.py, test_frames.py and test_dask.py have the rest.
These tests do not check that values are right, but that they are NumPy's: bit for bit where the kernels read rows of the
same layout, else to within rounding. Memory must be read where it is.
"""

from functools import partial

import numpy as np
import pytest
from support.checks import (
    MASKED,
    SUM,
    assert_allocates_less,
    assert_close,
    assert_invalid,
    assert_refused,
    distributions,
    with_entry,
)
from support.containers import BAD, CONTAINERS, FILL, NEGATIVE, P, Q, dask_array, pandas_blocks, polars_frame
from support.measures import MEASURES, PAIR_MEASURES, accepted
from support.processes import python

import fastkl

kl, entropy, nll, compare = fastkl.kl_divergence, fastkl.entropy, fastkl.nll, fastkl.compare


def each_container(*without):
    """Run the test with each container as `make`, except those of these names."""
    chosen = {name: of for name, of in CONTAINERS.items() if name not in without}
    return pytest.mark.parametrize("make", chosen.values(), ids=chosen)


LIBRARIES = {"torch", "pandas", "xarray", "pyarrow", "polars", "jax", "dask", "scipy", "ml_dtypes", "array_api_compat"}


def test_no_library_is_imported():
    """Not even fastkl's own package for other libraries, for NumPy arrays."""
    python(
        "import fastkl, numpy as np, sys\n"
        "p = np.full((2, 2), 0.5); fastkl.kl_divergence(p, p)\n"
        "assert 'fastkl.containers' not in sys.modules\n"
        "fastkl.kl_divergence([0.5, 0.5], p)\n"
        f"assert not {LIBRARIES} & sys.modules.keys()"
    )


def test_pandas_frames_import_no_other_library():
    pytest.importorskip("pandas")
    python(
        "import sys, numpy as np, pandas, fastkl\n"
        "frame = pandas.DataFrame(np.full((2, 2), 0.5))\n"
        "assert type(fastkl.entropy(frame)) is pandas.Series\n"
        f"assert not {LIBRARIES - {'pandas', 'pyarrow', 'scipy'}} & sys.modules.keys()"
    )


def assert_result(make, result, expected):
    assert type(result).__module__.partition(".")[0] == make.module.partition(".")[0]
    assert type(result).__name__ == make.result
    assert_close(result, expected)


@each_container()
def test_values_and_kind(make):
    p, q = make(P), make(Q)
    for measure in MEASURES:
        base = accepted(measure, base=2)
        for pair in (p, q), (p, Q), (p, Q.tolist()):
            assert_result(make, measure(*pair, **base), measure(P, Q, **base))
    for measure in PAIR_MEASURES:
        base = accepted(measure, base=2)
        assert_result(make, measure(P, q, **base), measure(P, Q, **base))
    for pair, expected in ((p, Q[0]), kl(P, Q[0])), ((Q[0], p), kl(Q[0], P)), ((p, Q[:1]), kl(P, Q[0])):
        assert_result(make, kl(*pair), expected)
    assert_result(make, kl(make(P[:0]), Q[0]), np.empty(0))
    for pair in (p, q), (p, Q), (P, q), (p, Q.tolist()):
        assert fastkl.score(*pair)["mean"] == pytest.approx(kl(P, Q).mean(), rel=1e-12)


def values(measure, *operands, **keywords):
    """The result as a NumPy array: at the latest here, dask computes."""
    return np.asarray(measure(*operands, **keywords))


@each_container()
def test_errors_have_the_index_in_the_users_operand(make):
    """The index counts from the start of the operand, not of a chunk or a block; it is 0 where the operand is broadcast."""
    p, bad = make(P), make(BAD)
    assert_invalid("p[3, 4]", NEGATIVE, values, kl, bad, Q)
    for place, q in ("q[3, 4]", bad), ("q[3, 4]", BAD), ("q[0, 4]", BAD[3:4]), ("q[4]", BAD[3]):
        assert_invalid(place, NEGATIVE, values, kl, p, q)
    assert_invalid("p[4]", f" sums to 1.5: {SUM}", values, kl, make(with_entry((4, 0), P[4, 0] + 0.5, P)), Q)
    assert np.isnan(values(kl, bad, Q, invalid="nan")).tolist() == [False, False, False, True, False]


@each_container("polars chunks", "arrow chunks")
def test_errors_along_axis_0_have_the_column(make):
    """A dask array has several blocks of columns here."""
    p, q = distributions(28, (5, 7), axis=0), distributions(29, (5, 7), axis=0)
    bad, long = with_entry((2, 5), -1, p), with_entry((0, 5), p[0, 5] + 0.5, p)
    for place, *pair in (
        ("p[2, 5]", make(bad), q),
        ("q[2, 5]", make(p), make(bad)),
        ("q[2, 0]", make(p), bad[:, 5:6]),
        ("p[:, 5]", make(long), make(q)),
        ("q[:, 5]", p, make(long)),
        ("q[:, 0]", make(p), long[:, 5:6]),
    ):
        assert_invalid(place, f" sums to 1.5: {SUM}" if ":" in place else NEGATIVE, values, kl, *pair, axis=0)


@each_container()
def test_arguments_are_checked(make):
    p = make(P)
    for keywords in {"base": -1}, {"threads": 0}, {"invalid": "?"}, {"axis": 2}, {"axis": "x"}, {"eps": 2}, {"out": "x"}:
        with pytest.raises((ValueError, TypeError), match="must be"):
            kl(p, Q, **keywords)
    for q in Q[:4], Q[:, :6], distributions(3, (4, 1, 7))[:, :, :3], [["x"] * 7] * 5, 1.0:
        with pytest.raises((ValueError, TypeError)):
            kl(p, q)


@each_container("dask")
def test_out_is_an_array(make):
    out, kept = np.full(5, np.nan, "f4"), np.full((5, 1), np.nan)
    assert kl(make(P), make(Q), out=out) is out
    assert_close(out, kl(P, Q, out=np.empty(5, "f4")))
    assert kl(make(P), make(Q), out=kept, keepdims=True) is kept
    assert_close(kept[:, 0], kl(P, Q))
    assert_refused(ValueError, "out has shape (4,): must be (5,)", kl, make(P), Q, out=out[:4])


@pytest.mark.parametrize("make", [pandas_blocks, polars_frame])
def test_errors_in_later_pieces_of_a_data_frame(make):
    """A frame of many blocks of memory is read some rows or columns at a time."""
    for axis, at, row in (-1, (15_000, 3), "p[15000]"), (0, (15_000, 43), "p[:, 43]"):
        p = distributions(30, (20_000, 50), axis=axis)
        assert_close(np.ravel(entropy(make(p), axis=axis)), entropy(p, axis=axis))
        assert_invalid(f"p[{at[0]}, {at[1]}]", NEGATIVE, entropy, make(with_entry(at, -1, p)), axis=axis)
        assert_invalid(row, f" sums to 1.5: {SUM}", entropy, make(with_entry(at, p[at] + 0.5, p)), axis=axis)


@pytest.mark.parametrize("name", ["dask", "xarray"])
def test_bfloat16_beside_libraries_without_it(name):
    half, make = Q.astype(pytest.importorskip("ml_dtypes").bfloat16), CONTAINERS[name]
    assert_close(kl(make(P), half), kl(P, half))
    assert_close(kl(half, make(P)), kl(half, P))


# A container, the axis, and the part of the matrix's size that a call may allocate, apart from what pyarrow and polars do.
# A frame of more blocks of memory than one is read a piece at a time.
MEMORY = [
    ("torch", -1, 20), ("torch", 0, 20), ("xarray", -1, 8), ("xarray", 0, 8), ("array API", -1, 20),
    ("pandas", -1, 20), ("pandas", 0, 20), ("pandas, many blocks", -1, 8), ("pandas, many blocks", 0, 8),
    ("polars series", -1, 20), ("polars chunks", -1, 20), ("polars frame", -1, 8), ("polars frame", 0, 8),
    ("arrow", -1, 20), ("arrow chunks", -1, 20),
]  # fmt: skip


@pytest.mark.parametrize(("name", "axis", "part"), MEMORY)
def test_operands_are_read_where_they_are(name, axis, part):
    """The container's memory, and that of a NumPy array beside it."""
    matrix = distributions(9, (20_000, 50))
    p = CONTAINERS[name](matrix)
    if axis == 0 and name in ("torch", "xarray"):
        p, matrix = p.T, matrix.T
    assert_allocates_less(matrix.nbytes / part, lambda: entropy(p, axis=axis, normalize=True))
    assert_allocates_less(matrix.nbytes / part, lambda: kl(matrix, p, axis=axis, normalize=True))


WANTED_COLUMN = "must be floating, integer or bool"
SPARSE = "sparse matrices are not supported; toarray() makes it dense"
FIXED_LIST = "must be a list of fixed size (cast it to pyarrow.list_(value_type, n))"
IN_CHUNKS = "axis=0: an operand is in chunks along this axis: combine them before the call"
DASK_OUT = "out: must be None for dask arrays, whose values are computed later"
ROOM = "of the rows, or broadcast with it"


def pairs(module, *rows):
    """A column of polars or of pyarrow of lists of two numbers."""
    if module.__name__ == "polars":
        return module.Series(rows, dtype=module.Array(module.Float64, 2))
    return module.array(rows, module.list_(module.float64(), 2))


# By the module that a function has as its argument: the error, its message, the function that is called, and its operands.
REFUSED = {
    "torch": lambda torch: [
        (ValueError, "out has shape (4,): must be (5,)", partial(kl, out=torch.empty(4)), torch.tensor(P), Q),
        (TypeError, "out is a Tensor: must be an array", partial(kl, out=torch.empty(5)), P, Q),
        (TypeError, "out requires grad...", partial(kl, out=torch.empty(5, requires_grad=True)), torch.tensor(P), Q),
        (TypeError, "p requires grad: fastkl computes no gradients; p.detach() is accepted",
         kl, torch.ones(5, 7, requires_grad=True), Q),
        (TypeError, "q is a tensor on device meta: must be on the CPU (q.cpu() copies it there)",
         kl, P, torch.empty(5, 7, device="meta")),
        (TypeError, "p is a tensor of layout torch.sparse_coo: must be dense (to_dense() makes it so)",
         kl, torch.tensor(P).to_sparse(), Q),
        (TypeError, "p is a tensor of torch.float8_e4m3fn, which is no NumPy array: ...",
         kl, torch.tensor(P).to(torch.float8_e4m3fn), Q),
        (TypeError, "p has dtype complex128: ...", kl, torch.tensor(P + 0j), Q),
        (TypeError, "p has dtype complex128: ...", kl, torch.tensor(P + 0j).conj(), Q),
    ],
    "scipy.sparse": lambda sparse: [
        (TypeError, f"p is a scipy.csr_matrix: {SPARSE}", entropy, sparse.csr_matrix(P)),
        (TypeError, f"q is a scipy.csr_matrix: {SPARSE}", kl, P, sparse.csr_matrix(P)),
        (TypeError, f"p is a scipy.coo_array: {SPARSE}", entropy, sparse.coo_array(P)),
        (TypeError, f"q is a scipy.coo_array: {SPARSE}", kl, P, sparse.coo_array(P)),
    ],
    "pandas": lambda pd: [
        *((TypeError, f"p has a column of dtype {dtype}: {WANTED_COLUMN}",
           entropy, pd.DataFrame(P).assign(a=pd.Series([1] * 5).astype(dtype)))
          for dtype in ("object", "category", "str", "datetime64[ns]")),
        (ValueError, "the result has shape (2, 5): must have at most one axis beside data frames",
         kl, pd.DataFrame(P), np.stack([Q, Q])),
    ],
    "polars": lambda pl: [
        (TypeError, "p is a polars.LazyFrame: call its collect() first", kl, pl.LazyFrame(P), Q),
        (TypeError, f"q['a'] has dtype String: {WANTED_COLUMN}", kl, P, pl.DataFrame(Q[:, 1:]).with_columns(a=pl.lit("x"))),
        (ValueError, f"q[2, 'b'] is null: {FILL}",
         kl, P, pl.DataFrame(Q[:, 1:]).with_columns(b=pl.Series([1, 1, None, 1, None]))),
        (ValueError, f"p[1, 0] is null: {FILL}", entropy, pairs(pl, [1, 0], [None, 1])),
        (ValueError, f"p[1] is null: {FILL}", entropy, pairs(pl, [1, 0], None)),
        (ValueError, f"p[2, 1] is null: {FILL}",
         entropy, pl.concat([pairs(pl, [1, 0], [1, 0]), pairs(pl, [1, None])], rechunk=False)),
        (TypeError, "p has dtype List(Float64): must be an Array (cast it to polars.Array(inner, n))",
         entropy, pl.Series([[1.0]])),
        (TypeError, "p has dtype String: must be numbers, or an Array of numbers", entropy, pl.Series(["a"])),
        (ValueError, IN_CHUNKS, partial(entropy, axis=0), CONTAINERS["polars chunks"](P)),
    ],
    "pyarrow": lambda pa: [
        (TypeError, f"p has type list<item: double>: {FIXED_LIST}", entropy, pa.array(P.tolist())),
        (TypeError, "p has type string: must be numbers, or lists of fixed size of numbers", entropy, pa.array(["a"])),
        (TypeError, "q is a pyarrow.Table: pass one of its columns...", kl, P, pa.table({"p": pairs(pa, [1, 0])})),
        (TypeError, "q is a pyarrow.RecordBatch: pass one of its columns...",
         kl, P, pa.record_batch({"p": pairs(pa, [1, 0])})),
        (ValueError, f"p[1] is null: {FILL}", entropy, pairs(pa, [1, 0], None, [0, None])),
        (ValueError, f"p[0, 1] is null: {FILL}", entropy, pairs(pa, [1, 0], None, [0, None])[2:]),
        (ValueError, f"p[2, 1] is null: {FILL}",
         entropy, pa.chunked_array([pairs(pa, [1, 0]), pairs(pa, [1, 0]), pairs(pa, None, [0, None])[1:]])),
        (ValueError, f"q[1] is null: {FILL}", kl, [0.5, 0.5], pa.array([1.0, None])),
        (ValueError, IN_CHUNKS, partial(entropy, axis=0), CONTAINERS["arrow chunks"](P)),
    ],
    "xarray": lambda xr: [
        (ValueError, "q has dimensions ('t', 'd'): must have 'c', which holds the distributions",
         kl, xr.DataArray(P, dims=("t", "c")), xr.DataArray(Q, dims=("t", "d"))),
        (ValueError, "q has shape (1, 5, 7): must have no more axes than the dimensions ('t', 'c')",
         kl, xr.DataArray(P, dims=("t", "c")), Q[np.newaxis]),
        *((ValueError, f"p and q: cannot {problem}...", kl, xr.DataArray(P, dims=("t", "c"), coords={"t": range(5)}), q)
          for problem, q in (("reindex or align along dimension 't'", xr.DataArray(Q[:4], dims=("t", "c"))),
                             ("reindex or align along dimension 'c'", Q[:, 1:]),
                             ("align objects with join", xr.DataArray(Q, dims=("t", "c"), coords={"t": range(1, 6)})))),
        (TypeError, "p is a xarray.Dataset: pass one of its variables, a DataArray", entropy, xr.Dataset({"p": ((), 1)})),
    ],
    "dask.dataframe": lambda dd: [
        (TypeError, "p is a dask.DataFrame: pass its to_dask_array(lengths=True)",
         entropy, dd.from_pandas(CONTAINERS["pandas"](P), npartitions=2)),
    ],
    "dask.array": lambda da: [
        (TypeError, DASK_OUT, partial(kl, out=np.empty(5)), dask_array(P), Q),
        (TypeError, DASK_OUT, partial(nll, out=np.empty(5)), da.zeros(5, dtype=int), P),
        (ValueError, "p has shape (5, 7) and q has shape (4, 7): all axes except axis -1 must broadcast",
         kl, dask_array(P), dask_array(Q)[:4]),
        (ValueError, "q has an unknown length along axis -1: call its compute_chunk_sizes() first",
         kl, P, dask_array(P)[:, dask_array(P)[0] >= 0]),
        (ValueError, "q has shape (1, 0): the distribution axis, axis -1, must not be empty", nll, [0], da.zeros((1, 0))),
        (ValueError, f"labels has shape (4,): must have the shape (5,) {ROOM}", nll, da.zeros(4, dtype=int), dask_array(P)),
        *((ValueError, f"labels has shape {shape}: must have the shape {rows} {ROOM}",
           compare, dask_array(P), Q, da.zeros(shape, dtype=int))
          for shape, rows in (((4,), (5,)), ((5, 4), (1, 5)), ((1, 5, 4), (1, 1, 5)))),
        (TypeError, "labels has dtype float64: must be an integer dtype", compare, dask_array(P), Q, da.zeros(5)),
        (TypeError, f"labels {MASKED}", compare, dask_array(P), Q, np.ma.masked_all(5, int)),
        (TypeError, f"labels {MASKED}", nll, np.ma.masked_all(5, int), dask_array(P)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("module", REFUSED)
def test_what_is_refused(module):
    for error, message, call, *operands in REFUSED[module](pytest.importorskip(module)):
        assert_refused(error, message, call, *operands)
        if call in (kl, entropy) and not message.startswith("the result"):  # score, which has none, says the same
            assert_refused(error, message, fastkl.score, *operands, measure="kl" if call is kl else "entropy")


def test_two_libraries_are_refused():
    tensor, frame = CONTAINERS["torch"](P), CONTAINERS["pandas"](P)
    problem = "must be of one library, or NumPy arrays"
    assert_refused(TypeError, f"p is a pandas.DataFrame and q a torch.Tensor: {problem}", kl, frame, tensor)
    assert_refused(TypeError, f"p is a torch.Tensor and q a pandas.DataFrame: {problem}", kl, tensor, frame)
