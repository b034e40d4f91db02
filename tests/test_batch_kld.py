"""llama.cpp's .kld files: a real pair against the models' own logits, and made-up files against the format's definition.

What all formats have in common (resuming, changes during a run, damaged files, memory) is in test_batch_formats.py.
"""

import contextlib
import json
import lzma
import math
import re
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import npy, refused, small_parts
from support.batch_runs import call_after, interrupt, without_speed
from support.kld import encoded, header, labels_of, records, save_kld, tokens_of
from support.measures import assert_same_bits

import fastkl
from fastkl.__main__ import main
from fastkl.batch import score
from fastkl.batch.readers import kld, open_source

_in_small_parts = small_parts(2000, 300)

DATA = Path(__file__).parent / "data" / "kld"
# Of the float32 logits of the same two models and text, before llama.cpp wrote them as codes: float64 figures by NumPy.
# data/kld/README.md names the models and the version of llama.cpp.
UNCODED = {
    "kl": 0.4404606865113828,
    "reverse_kl": 0.5219920188756163,
    "perplexity_p": 93.12883802844618,
    "perplexity_q": 100.8739429408999,
    "nll_increase": 0.07988775805584655,
    "top1_agreement": 5 / 14,
}
LARGEST = (0.8123904923517633, 5)  # KL and its row
SUMS = (1.0009181592380132, 1.0005690143709096)  # the means of the sums of the probabilities as they are stored
# From 8 to 32, float32 rounds the product to 2^-21 and the sum to 2^-20.
ROUNDING = 2.0**-21 + 2.0**-20
SUM = 8.8e-7  # of the sum of a row's weights, from which the floor follows (coded_rows.inc.h)
FLOOR = np.float32(16 / 65535)


@pytest.fixture
def pair():
    """The real pair in the current folder."""
    for name in "base", "worse":
        Path(f"{name}.kld").write_bytes(lzma.decompress((DATA / f"{name}.kld.xz").read_bytes()))
    return "base.kld", "worse.kld"


def read(path, member=""):
    """All rows of a file, or all labels."""
    with contextlib.closing(open_source("p", path + member)) as source:
        source.set_labels(bool(member))
        return source.read(0, source.rows)


def assert_rows(values, scales, least, codes):
    """They are the log-probabilities of these numbers and codes: in float64, by the definition, one row at a time."""
    assert values.dtype == np.float32
    assert len(values) == len(codes)
    for read, scale, low, row in zip(values.astype(float), scales[:, 0], least[:, 0], codes, strict=True):
        expected = float(scale) * row.astype(float) + float(low)
        bounds = np.where(row == 0, 0, ROUNDING)
        missing = 1 - math.fsum(np.exp(expected[row > 0]))
        if scale == FLOOR and (row == 0).any():
            shares = [(missing + error) / np.count_nonzero(row == 0) for error in (-SUM, 0, SUM)]
            lowest, middle, highest = (min(math.log(x), float(low)) if x > 0 else float(low) for x in shares)
            expected[row == 0] = middle
            bounds[row == 0] = max(middle - lowest, highest - middle) if shares[0] > 0 else math.inf
        assert (np.abs(read - expected) <= bounds + 2.0**-24 * np.abs(expected)).all()
        assert (read[row == 0] <= low).all()


def parts_of(path, width):
    """Scales, smallest log-probabilities and codes of a file without a code that means nothing."""
    rows = np.fromfile(path, "<u2")[(20 + 4 * 32) // 2 :].reshape(-1, 4 + width)
    numbers = rows[:, :4].copy().view("<f4")
    return numbers[:, :1], numbers[:, 1:], rows[:, 4:]


def test_real_pair_agrees_with_uncoded_logits(pair):
    """KL within 0.05 %, its reverse within 0.4 % and perplexities within 0.01 % of those of the models' own logits."""
    result = score(*pair)
    for name, bound in {"kl": 5e-4, "reverse_kl": 4e-3}.items():
        assert result[name]["mean"] == pytest.approx(UNCODED[name], rel=bound)
    for name in "perplexity_p", "perplexity_q":
        assert result[name] == pytest.approx(UNCODED[name], rel=1e-4)
    assert result["nll_increase"]["mean"] == pytest.approx(UNCODED["nll_increase"], abs=1e-4)  # both perplexities' bound
    assert result["top1_agreement"] == pytest.approx(UNCODED["top1_agreement"])
    assert result["kl"]["max"] == pytest.approx(LARGEST[0], rel=5e-4)
    assert result["kl"]["max_row"] == LARGEST[1]
    assert result["rows"] == 14


def test_real_rows_are_those_of_the_definition(pair, tier):
    for path, mean_of_sums in zip(pair, SUMS, strict=True):
        stored = parts_of(path, 49152)
        assert np.exp(stored[0] * stored[2].astype(float) + stored[1]).sum(axis=1).mean() == pytest.approx(mean_of_sums)
        values = read(path)
        assert_rows(values, *stored)
        np.testing.assert_allclose(np.exp(values.astype(float)).sum(axis=1), 1, atol=ROUNDING + SUM)


def test_one_real_file_has_rows_and_labels(pair):
    """Files of logits and of labels give the same values."""
    values, labels = read(pair[0]), read(pair[0], ":labels")[:, 0]
    score(pair[0], measure="nll", out="losses.npy")
    assert_same_bits(np.load("losses.npy"), fastkl.nll(labels, values, from_logits=True))
    score(pair[0], measure="entropy", out="entropies.npy")
    assert_same_bits(np.load("entropies.npy"), fastkl.entropy(values, from_logits=True))


def logits(seed, shape=(40, 9), size=8.0):
    return np.random.default_rng(seed).normal(size=shape) * size


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 1000, 1001])
@pytest.mark.parametrize("size", [0.0, 1.0, 8.0, 100.0])
def test_any_vocabulary(width, size, tier):
    """Rows with a floor and without one, and rows of equal logits; an odd vocabulary has a code that means nothing."""
    save_kld("p.kld", logits(width, (12, width), size), 9)
    assert_rows(read("p.kld"), *encoded(logits(width, (12, width), size)))


@pytest.mark.parametrize("context", [3, 4, 5, 6, 7, 8, 80, 81])
def test_any_context(context):
    each = context - 1 - context // 2
    tokens = tokens_of(context, 9, 40 // each)
    q = logits(1, (each * len(tokens), 9))
    save_kld("p.kld", q, context, tokens)
    labels = labels_of(tokens)
    for first, last in (0, len(labels)), (3, 3), (len(labels) - 1, len(labels)), (2, 7):
        with contextlib.closing(open_source("labels", "p.kld:labels")) as source:
            source.set_labels(True)
            assert_same_bits(source.read(first, last)[:, 0].astype(int), labels[first:last])
    assert score("p.kld:labels", "p.kld:labels", normalize=True)["max"] == 0  # one row of numbers, if they are rows
    score("p.kld", measure="nll", out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.nll(labels, read("p.kld"), from_logits=True))


@pytest.mark.parametrize(("context", "chunks"), [(1, 3), (2, 3), (9, 0)])
def test_file_without_a_row(context, chunks):
    Path("p.kld").write_bytes(header(context, 5, chunks) + bytes(4 * context * chunks))
    for member in "", ":labels":
        assert read("p.kld", member).shape == (0, 1 if member else 5)
    assert score("p.kld", "p.kld")["rows"] == 0


def row_of(codes, least, scale=FLOOR):
    """The values that are read from a file of one row; they are checked."""
    codes, least, scales = np.array([codes], np.uint16), np.array([[least]], np.float32), np.full((1, 1), scale, np.float32)
    Path("p.kld").write_bytes(header(3, codes.shape[1], 1) + bytes(12) + records(scales, least, codes))
    values = read("p.kld")
    assert_rows(values, scales, least, codes)
    return values[0].astype(float)


@pytest.mark.parametrize("zeros", [1, 2, 10, 100_000, 1_000_003])
def test_floor_shares_what_is_missing_to_one(zeros, tier):
    """But no entry gets more than is stored."""
    values = row_of([65535, *[30000] * 20, *[0] * zeros], -16.01)
    stored = float(np.float32(-16.01))
    missing = 1 - math.exp(65535 * float(FLOOR) + stored) - 20 * math.exp(30000 * float(FLOOR) + stored)
    assert missing == pytest.approx(0.00657, rel=0.01)
    assert len({*values[21:]}) == 1
    assert math.exp(values[-1]) == pytest.approx(min(missing / zeros, math.exp(stored)), rel=SUM / missing + 2.0**-19)
    assert (math.exp(values[-1]) < 0.99 * math.exp(stored)) == (zeros >= 100_000)


def test_floor_stays_where_nothing_is_missing(tier):
    values = row_of([65535, 0, 0, 1], -15.9)
    assert values[0] > 0
    assert [*values[1:3]] == [np.float32(-15.9)] * 2


def test_other_scales_have_no_floor():
    """Code 0 is then the smallest logit, exactly."""
    for scale in np.nextafter(FLOOR, np.float32(0)), np.nextafter(FLOOR, np.float32(1)), np.float32(1e-5):
        values = row_of([65535, 0, 100], -17, scale)
        assert values[1] == -17


def test_own_labels_serve_and_others_win(capsys):
    p, q = logits(1), logits(2)
    save_kld("p.kld", p)
    save_kld("q.kld", q)
    own = labels_of(tokens_of(81, 9, 1))
    others = (own + 1) % 9
    npy(other=others, logits=q.astype("f4"))
    fields = fastkl.compare(read("p.kld"), read("q.kld"), own, from_logits=True)
    assert score("p.kld", "q.kld")["nll_q"]["mean"] == pytest.approx(fields.nll_q.mean(), rel=1e-6)
    mixed = fastkl.nll(own, q.astype("f4"), from_logits=True).mean()
    for files, name in (("p.kld", "logits.npy"), "nll_q"), (("logits.npy", "p.kld"), "nll_p"):
        assert score(*files, from_logits=True)[name]["mean"] == pytest.approx(mixed, rel=1e-6)
    fields = fastkl.compare(read("p.kld"), read("q.kld"), others, from_logits=True)
    assert score("p.kld", "q.kld", "other.npy")["nll_p"]["mean"] == pytest.approx(fields.nll_p.mean(), rel=1e-6)
    npy(rows=q.astype("f4"))
    assert score("rows.npy", "logits.npy", "p.kld:labels", from_logits=True)["nll_p"]["mean"] == pytest.approx(
        mixed, rel=1e-6
    )
    assert main(["score", "p.kld", "q.kld", "--measure", "kl"]) == 0
    assert "perplexity" not in capsys.readouterr().out


@pytest.mark.parametrize("measure", ["kl", "js", "compare", "total_variation"])
@pytest.mark.parametrize("place", [0, 1])
def test_beside_logits_and_probabilities(measure, place):
    """The rows of .kld are log-probabilities without an option; the option is for the other operand."""
    save_kld("p.kld", logits(1))
    coded, other = read("p.kld"), logits(2).astype("f4")
    probabilities = np.exp(other.astype(float))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype("f4")
    npy(logits=other, probabilities=probabilities)
    names = {"kl": "kl_divergence", "js": "js_divergence"}
    function = getattr(fastkl, names.get(measure, measure))
    own, its = ("p", "q") if place == 0 else ("q", "p")
    labels = {"labels": labels_of(tokens_of(81, 9, 1))} if measure == "compare" else {}
    cases = [("logits", other, True, True), ("logits", other, its, True), ("probabilities", probabilities, False, own)]
    cases += [("probabilities", probabilities, own, own)]
    for name, values, given, means in cases:
        order = slice(None, None, 1 if place == 0 else -1)
        score(*["p.kld", f"{name}.npy"][order], measure=measure, from_logits=given, out="out.npy")
        expected = function(*[coded, values][order], from_logits=means, **labels)
        written = np.load("out.npy")
        if measure == "compare":
            for field in written.dtype.names:
                assert_same_bits(written[field], getattr(expected, field))
        else:
            assert_same_bits(written, expected)


def test_numbers_as_they_are_are_not_log_probabilities():
    save_kld("p.kld", logits(1))
    refused(r"p\.kld holds log-probabilities: must hold", "p.kld", "p.kld", measure="generalized_kl")


def test_pair_of_different_texts_is_refused():
    tokens = tokens_of(9, 9, 10)
    save_kld("p.kld", logits(1), 9, tokens)
    other = tokens.copy()
    other[7, 4] = (other[7, 4] + 1) % 9
    save_kld("q.kld", logits(2), 9, other)
    message = rf"p\.kld and q\.kld have different tokens, {tokens[7, 4]} and {other[7, 4]} at position 67: "
    for options in {}, {"measure": "kl"}:
        refused(message, "p.kld", "q.kld", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kld, "_READ", 80)  # two chunks at once
        refused(message, "p.kld", "q.kld")
    save_kld("q.kld", logits(2), 10, tokens_of(10, 9, 10))
    refused(r"p\.kld and q\.kld have different tokens, of other lengths", "p.kld", "q.kld")
    save_kld("q.kld", logits(2, (40, 8)), 9)
    refused(r"p\.kld has shape \(40, 9\) and q\.kld has shape \(40, 8\)", "p.kld", "q.kld")


def changed(data, *changes):
    """The bytes of a file, with numbers in place of those at some positions."""
    new = bytearray(data)
    for position, number in changes:
        new[position : position + len(number)] = number
    return bytes(new)


def int32(number):
    return int(number).to_bytes(4, "little", signed=True)


ROWS_AT = 20 + 4 * 81
HEADERS = {
    "empty": (lambda data: b"", "is no .kld file: it does not begin as one"),
    "12 bytes": (lambda data: data[:12], "ends in its header, at byte 12: llama.cpp leaves such a file"),
    "19 bytes": (lambda data: data[:19], "ends in its header"),
    "another beginning": (lambda data: b"_logitz_" + data[8:], "is no .kld file"),
    "interrupted": (
        lambda data: data[: ROWS_AT + 17 * 28 + 3],
        "is truncated: it has 17 of 40 rows: 1 chunks",
    ),
    "ends in its tokens": (lambda data: data[:100], "is truncated: it has 0 of 40 rows"),
    "a byte more": (lambda data: data + b"\0", "has 1 bytes after its rows"),
    "one row more": (lambda data: data + data[-28:], "has 28 bytes after its rows"),
    "no context": (lambda data: changed(data, (8, int32(0))), "n_ctx = 0 and n_vocab = 9 must be positive"),
    "negative context": (lambda data: changed(data, (8, int32(-1))), "n_ctx = -1"),
    "no vocabulary": (lambda data: changed(data, (12, int32(0))), "n_vocab = 0 must be positive"),
    "negative vocabulary": (lambda data: changed(data, (12, int32(-9))), "n_vocab = -9"),
    "negative chunks": (lambda data: changed(data, (16, int32(-1))), "n_chunk = -1 not negative"),
    "largest numbers": (lambda data: changed(data, *((at, int32(2**31 - 1)) for at in (8, 12, 16))), "is truncated"),
    "more chunks": (lambda data: changed(data, (16, int32(2))), "is truncated: it has 28 of 80 rows"),
}


@pytest.mark.parametrize(("change", "message"), HEADERS.values(), ids=HEADERS)
def test_damaged_headers_are_refused(change, message):
    save_kld("p.kld", logits(1))
    Path("p.kld").write_bytes(change(Path("p.kld").read_bytes()))
    for member in "", ":labels":
        refused(rf"p\.kld{member}: .*{re.escape(message)}", f"p.kld{member}")


def test_other_members_and_labels_are_refused():
    save_kld("p.kld", logits(1))
    refused(r"p\.kld:tokens: a \.kld file has the member 'labels' and no other", "p.kld:tokens")
    tokens = tokens_of(81, 9, 1)
    tokens[0, 41 + 5] = 9
    save_kld("p.kld", logits(1), tokens=tokens)
    refused(r"p\.kld:labels: labels\[5\] = 9", "p.kld", measure="nll")


def test_row_numbers_that_no_file_has():
    """Those that are not finite make the row invalid, and impossible ones end the run."""
    row = 5
    for i, number in (0, math.nan), (0, math.inf), (4, math.nan), (4, math.inf), (4, -math.inf):
        save_kld("p.kld", logits(1))
        at = ROWS_AT + row * 28 + i
        Path("p.kld").write_bytes(changed(Path("p.kld").read_bytes(), (at, np.array(number, "<f4").tobytes())))
        if number == math.inf and i == 4:
            refused(r"p\.kld: is damaged in row 5: its scale .* min_log_prob inf not positive", "p.kld")
            continue
        refused(r"p\.kld: p\[5(, 0)?\]", "p.kld", error=fastkl.InvalidRowError)
        result = score("p.kld", measure="entropy", invalid="nan")
        assert result["first_invalid_rows"] == [row]
    for i, number in (0, -1e-4), (4, 0.5):
        save_kld("p.kld", logits(1))
        at = ROWS_AT + row * 28 + i
        Path("p.kld").write_bytes(changed(Path("p.kld").read_bytes(), (at, np.array(number, "<f4").tobytes())))
        refused(r"p\.kld: is damaged in row 5: its scale", "p.kld", invalid="nan")


def test_format_is_known_by_its_beginning():
    save_kld("p.kld", logits(1))
    Path("p.kld").rename("logits.bin")
    assert score("logits.bin", "logits.bin")["kl"]["max"] == 0


def test_notes_say_how_many_rows_have_a_floor(capsys):
    """Also after a run that resumed, and of a cluster's workers, whose rows this process has not read."""
    sizes = np.where(np.arange(40) % 4 == 0, 20.0, 1.0)[:, None]  # ten rows with entries 16 below the largest
    for seed, name in enumerate(["p", "q"]):
        x = logits(seed, size=1.0) * (sizes if name == "p" else 20.0)
        x[:, 0] = x.max(axis=1) - np.where(sizes[:, 0] > 1, 30, 1) if name == "p" else x.max(axis=1) - 30
        save_kld(f"{name}.kld", x)
    notes = score("p.kld", "q.kld")["notes"]
    assert [notes[name]["rows"] for name in "pq"] == [10, 40]
    assert "llama.cpp" in notes["p"]["text"]
    npy(q=np.exp(read("q.kld")))
    assert score("p.kld", "q.npy")["notes"] == {"p": notes["p"]}
    assert "notes" not in score("q.npy", measure="entropy")
    save_kld("none.kld", np.zeros((40, 9)))
    assert score("none.kld", measure="entropy")["notes"]["p"]["rows"] == 0
    assert main(["score", "none.kld", "--measure", "entropy"]) == 0
    assert "note" not in capsys.readouterr().out
    arguments = ["score", "p.kld", "q.kld", "--report", "r.html"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for text in said, Path("r.html").read_text("utf-8"):
        assert "10 rows of p and 40 rows of q: llama.cpp stored entries from 16 below the largest" in text
    with pytest.MonkeyPatch.context() as patch:
        call_after(1, interrupt, patch.setattr)
        with pytest.raises(KeyboardInterrupt):
            score("p.kld", "q.kld", out="out.npy", threads=1)
    assert score("p.kld", "q.kld", out="out.npy", resume=True)["notes"] == notes


def test_several_models(capsys):
    """Each has the values and the notes of a run of its own; all must hold logarithms, or logits, if one does."""
    for seed, name in enumerate(["p", "q", "r"]):
        x = logits(seed)
        x[:, 0] = x.max(axis=1) - 20
        save_kld(f"{name}.kld", x)
    result = score("p.kld", {"one": "q.kld", "other": "r.kld"})
    for model, path in zip(result["models"], ["q.kld", "r.kld"], strict=True):
        alone = score("p.kld", path)
        assert without_speed(model) == without_speed(alone) | {"q": model["q"]}
    counts = [model["notes"]["q"]["rows"] for model in result["models"]]
    said = f"40 rows of p and {counts[0]} rows of q and {counts[1]} rows of r: llama.cpp stored"
    arguments = ["score", "p.kld", "q.kld", "r.kld", "--report", "r.html"]
    assert main(arguments) == 0
    for text in capsys.readouterr().out, Path("r.html").read_text("utf-8"):
        assert said in text
    npy(logits=logits(2).astype("f4"))
    message = r"logits\.npy holds no log-probabilities, as another q does: must hold logits, with from_logits"
    refused(message, "p.kld", {"one": "q.kld", "other": "logits.npy"})
    with_logits = score("p.kld", {"one": "q.kld", "other": "logits.npy"}, from_logits=True)
    alone = score("p.kld", "logits.npy", from_logits=True)
    assert without_speed(with_logits["models"][1]) == without_speed(alone) | {"q": "other"}


def test_cluster_gives_the_same_result(capsys):
    pytest.importorskip("distributed")
    save_kld("p.kld", logits(1))
    save_kld("q.kld", logits(2))
    arguments = ["score", "p.kld", "q.kld", "--json", "--out"]
    assert main([*arguments, "a.npy"]) == 0
    assert main([*arguments, "b.npy", "--threads", "1", "--dask"]) == 0
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
    one, other = (without_speed(json.loads(line)) for line in capsys.readouterr().out.splitlines())
    assert one == other


def test_documented_figures_are_those_of_the_pair(pair):
    page = (Path(__file__).parents[1] / "docs" / "guide" / "files.md").read_text("utf-8")
    result = score(*pair)
    names = {"mean KL(P, Q)": "kl", "mean KL(Q, P)": "reverse_kl", "perplexity of P": "perplexity_p"}
    for shown, name in (names | {"perplexity of Q": "perplexity_q"}).items():
        uncoded, own = re.search(rf"\| {re.escape(shown)} \| ([\d.]+) \| ([\d.]+) \|", page).groups()
        value = result[name] if name.startswith("perplexity") else result[name]["mean"]
        decimals = len(own.partition(".")[2])
        assert (own, uncoded) == (f"{value:.{decimals}f}", f"{UNCODED[name]:.{decimals}f}")
