"""Tensors of .safetensors files and of indices: every dtype, damaged headers, and what the library writes and refuses.

What all formats have in common (resuming, changes during a run, damaged files, memory) is in test_batch_formats.py.
"""

import contextlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import npy, refused, rows, shards, small_parts, tensors
from support.inputs import BFLOATS
from support.measures import assert_same_bits

import fastkl
from fastkl.batch import score
from fastkl.batch.readers import open_source

_in_small_parts = small_parts(1000, 300)

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_any_dtype(dtype):
    p = np.random.default_rng(1).integers(1, 2 if dtype == "?" else 50, (33, 7)).astype(dtype)
    Path("p.safetensors").write_bytes(tensors(p=p))
    npy(q=rows(2, shape=(33, 7)))
    score("p.safetensors:p", "q.npy", normalize=True, out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.kl_divergence(p, np.load("q.npy"), normalize=True))


def test_bfloat16():
    values = (rows(1, "f4", (33, 7)).view("u4") >> 16).astype("u2")
    Path("p.safetensors").write_bytes(tensors(p=values.view("V2")))
    p = values.view(next(x for x in BFLOATS if x.isnative))
    score("p.safetensors", measure="entropy", normalize=True, out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.entropy(p, normalize=True))


@pytest.mark.parametrize("shape", [(7,), (1, 7), (33, 7), (5, 6, 7), (2, 3, 4, 5), (0, 7), (3, 0, 7), (3, 1000)], ids=str)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_any_leading_axes_at_any_place(shape, before):
    """A tensor may begin at any byte."""
    p = rows(1, shape=shape)
    Path("p.safetensors").write_bytes(tensors(before=np.zeros(before, "u1"), p=p))
    score("p.safetensors:p", measure="entropy", out="out.npy")
    assert_same_bits(np.load("out.npy"), np.asarray(fastkl.entropy(p)))


def test_several_tensors_need_a_name():
    Path("p.safetensors").write_bytes(tensors(a=rows(1), b=rows(2)))
    refused(r"p\.safetensors: name one of its tensors after a colon: it has 'a', 'b'", "p.safetensors")
    refused(r"p\.safetensors:c: name one of its tensors", "p.safetensors:c")
    shards("s", rows(1))
    refused(
        r"s\.safetensors\.index\.json: name one of its tensors after a colon: it has 'y', 'x', 'z'",
        "s.safetensors.index.json",
    )
    Path("none.safetensors").write_bytes(tensors())
    refused(r"none\.safetensors: name one of its tensors after a colon: it has none", "none.safetensors")
    Path("single.safetensors").write_bytes(tensors(a=np.array(1.0)))
    refused(r"single\.safetensors holds a single number", "single.safetensors")


def written(header, data=bytes(16)):
    """The bytes of a file with this header, an object or text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype="F64", shape=(1, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = tensor()
TWICE = json.dumps(GOOD)
DAMAGED = {
    "empty": (b"", "is truncated in its header"),
    "7 bytes": (bytes(7), "is truncated in its header"),
    "no header": (bytes(8), "its header is damaged"),
    "header beyond the end": ((99).to_bytes(8, "little") + b"{}", "is truncated in its header, which ends at byte 107"),
    "largest header": (b"\xff" * 8 + b"{}", "is truncated in its header"),
    "no JSON": (written("{"), "its header is damaged"),
    "a list": (written([]), "its header is damaged: it is no object"),
    "not UTF-8": ((3).to_bytes(8, "little") + b'"\xff"', "its header is damaged"),
    "deep": (written('{"a":' * 5000), "its header is damaged"),
    "names twice": (written(f'{{"p": {TWICE}, "p": {TWICE}}}'), "its header is damaged: it has 'p' twice"),
    "keys twice": (written('{"p": {"dtype": "F64", "dtype": "F64"}}'), "it has 'dtype' twice"),
    "a number": (written({"p": 1}), "'p' must have dtype, shape and two data_offsets"),
    "no dtype": (written({"p": {"shape": [1, 2], "data_offsets": [0, 16]}}), "'p' must have dtype"),
    "three offsets": (written({"p": tensor(offsets=(0, 8, 16))}), "'p' must have dtype, shape and two data_offsets"),
    "offsets of text": (written({"p": tensor(offsets=("0", "16"))}), "integers as data_offsets"),
    "offsets of bools": (written({"p": tensor(offsets=(False, 16))}), "integers as data_offsets"),
    "fractions": (written({"p": tensor(offsets=(0, 16.0))}), "integers as data_offsets"),
    "shape of text": (written({"p": GOOD | {"shape": "12"}}), "a list as shape"),
    "negative offset": (written({"p": tensor(offsets=(-16, 0))}), "'p' has data_offsets that are no place in a file"),
    "backwards": (written({"p": tensor(offsets=(16, 0))}), "'p' has data_offsets that are no place in a file"),
    "huge offset": (written({"p": tensor(offsets=(0, 10**4000))}), "'p' has data_offsets that are no place in a file"),
    "a hole": (written({"p": tensor(offsets=(8, 24))}, bytes(24)), "'p' begins at 8, the tensor before it ends at 0"),
    "overlap": (
        written({"p": GOOD, "o": tensor(offsets=(8, 24))}, bytes(24)),
        "'o' begins at 8, the tensor before it ends at 16",
    ),
    "truncated": (written({"p": GOOD}, bytes(15)), "is truncated, which end at byte"),
    "longer": (written({"p": GOOD}, bytes(17)), "has more bytes than its tensors"),
    "other size": (written({"p": tensor(shape=(1, 3))}), r"'p' has 16 bytes, which are not \(1, 3\) of F64"),
    "smaller shape": (written({"p": tensor(shape=(1, 1))}), r"'p' has 16 bytes, which are not \(1, 1\) of F64"),
    "negative shape": (written({"p": tensor(shape=(-1, -2))}), r"has the shape \(-1, -2\): must be of non-negative"),
    "shape of fractions": (written({"p": tensor(shape=(1.0, 2))}), r"has the shape \(1.0, 2\): must be"),
    "huge shape": (written({"p": tensor(shape=(10**400, 2))}), r"\(a huge number, 2\): NumPy has no such arrays"),
    "65 axes": (written({"p": tensor(shape=(1,) * 64 + (2,))}), "NumPy has no such arrays"),
    "another dtype": (
        written({"p": tensor("F8_E4M3", (1, 16))}),
        "has dtype 'F8_E4M3': must be one of F64, F32, F16, BF16",
    ),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_headers_are_refused(data, message):
    Path("p.safetensors").write_bytes(data)
    error = refused(rf"p\.safetensors:p.*{message}", "p.safetensors:p", error=(ValueError, TypeError))
    assert len(str(error)) < 400


def test_header_beyond_the_format_s_limit_is_refused():
    with open("p.safetensors", "wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    refused(r"p\.safetensors: its header is damaged: it has 100000001 bytes", "p.safetensors")


INDICES = {
    "no JSON": ("{", "is no index of .safetensors files"),
    "no map": ("{}", "is no index of .safetensors files: 'weight_map'"),
    "a list": ('{"weight_map": []}', "is no index of .safetensors files: weight_map is no object"),
    "a number": ('{"weight_map": {"x": 1}}', "has '1' as the file of 'x': must be a name in the same folder"),
    "another folder": ('{"weight_map": {"x": "../p.safetensors"}}', "has '../p.safetensors' as the file of 'x'"),
    "no name": ('{"weight_map": {"x": ""}}', "has '' as the file of 'x'"),
    "twice": ('{"weight_map": {"x": "a", "x": "b"}}', "is no index of .safetensors files: it has 'x' twice"),
    "no such tensor": ('{"weight_map": {"y": "p-1.safetensors"}}', "name one of its tensors after a colon: it has 'y'"),
    "tensor of another file": (
        '{"weight_map": {"x": "p-1.safetensors"}}',
        "name one of its tensors after a colon: it has 'y'",
    ),
}


@pytest.mark.parametrize(("text", "message"), INDICES.values(), ids=INDICES)
def test_damaged_indices_are_refused(text, message):
    operand = shards("p", rows(1))
    Path("p.safetensors.index.json").write_text(text)
    refused(rf"p\.safetensors\.index\.json:x: {re.escape(message)}", operand)


def test_missing_shard_is_named():
    operand = shards("p", rows(1))
    Path("p-2.safetensors").unlink()
    error = refused("No such file", operand, error=FileNotFoundError)
    assert error.filename == "p.safetensors.index.json:x: 'p-2.safetensors'"
    for name in "[" * 3000, "a\nb", "a\0b", "..":
        Path("p.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
        error = refused("No such file|too long", operand, error=OSError)
        assert error.filename == f"p.safetensors.index.json:x: {name[:100]!r}"


def test_results_never_replace_a_shard_or_its_index():
    operand = shards("p", rows(1))
    for name in "p-2.safetensors", "p.safetensors.index.json":
        refused("is an input", operand, report=name, error=OSError)


def test_cluster_gives_the_same_result():
    pytest.importorskip("distributed")
    files = shards("p", rows(1)), shards("q", rows(2))
    score(*files, out="a.npy")
    score(*files, out="b.npy", threads=1, dask="")
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_files_of_the_library_have_its_values():
    library = pytest.importorskip("safetensors.numpy")
    arrays = {f"of {dtype}": rows(i, dtype) for i, dtype in enumerate(DTYPES)}
    library.save_file(arrays, "p.safetensors", {"made": "by the library"})
    for name, values in arrays.items():
        with contextlib.closing(open_source("p", f"p.safetensors:{name}")) as source:
            assert_same_bits(source.read(0, len(values)), values)
    own = library.load(tensors(**arrays))
    for name, values in arrays.items():
        assert_same_bits(own[name], values)


def test_bfloat16_of_the_library():
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    values = torch.from_numpy(rows(1, "f4")).to(torch.bfloat16)
    library.save_file({"x": values}, "p.safetensors")
    score("p.safetensors", measure="entropy", normalize=True, out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.entropy(values, normalize=True).numpy())


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_file_is_read_that_the_library_refuses(count):
    """Of damaged headers; where both read the tensor, they read the same."""
    library = pytest.importorskip("safetensors")
    values = rows(1, shape=(9, 5))
    good = tensors(x=values, y=values[:1])
    length = 8 + int.from_bytes(good[:8], "little")
    pick, both = random.Random(1), 0
    for _ in range(count):
        data = bytearray(good)
        for _ in range(pick.randrange(1, 3)):
            data[pick.randrange(length)] = pick.choice([pick.randrange(256), *b'0129{}[]",: xyF'])
        Path("p.safetensors").write_bytes(data)
        try:
            with contextlib.closing(open_source("p", "p.safetensors:x")) as source:
                read = source.read(0, source.rows)
        except (ValueError, TypeError):
            continue
        both += 1
        try:
            file = library.safe_open("p.safetensors", "numpy")
        except library.SafetensorError as error:
            if "unknown variant" in str(error):  # the dtype of the other tensor
                continue
            raise
        with file:
            assert_same_bits(read, file.get_tensor("x").reshape(read.shape))
    assert both
