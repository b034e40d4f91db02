"""fastkl.compat.torch against torch's kl_div: values, dtypes, errors, deprecations and the documented differences."""

from itertools import product
from math import inf, nan

import numpy as np
import pytest
from support.compat import EPS, both_raise, difference, kinds, original, peer, quietly, weights

import fastkl
from fastkl.compat.torch import kl_div

REDUCTIONS = ["none", "mean", "sum", "batchmean"]


@pytest.fixture
def torch():
    return peer("torch")


def losses(torch, kind, dtype="float64"):
    """Logarithms of positive weights, and weights."""
    p, q = weights(kind, (7, 5, 30))
    return torch.from_numpy(np.log(q + 1e-300)).to(getattr(torch, dtype)), torch.from_numpy(p).to(getattr(torch, dtype))


def both(x, t, **keywords):
    """Our value and torch's."""
    return quietly(kl_div, x, t, **keywords), quietly(original(kl_div), x, t, **keywords)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@kinds
def test_values_are_torchs(torch, kind, reduction):
    x, weight = losses(torch, kind)
    x = x.clip(-1e3)
    for t, log_target in (weight, False), (weight.log().clip(-1e3, 100), True):
        for a, b in (x, t), (x[0, 0], t), (x, t[:, :1]), (x.transpose(0, 2), t.transpose(0, 2)), (x[0, 0, 0], t[0, 0, 0]):
            ours, theirs = both(a, b, reduction=reduction, log_target=log_target)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            # Four roundings in a term, relative to this, and those of a sum in any order.
            terms = b.exp() * (b.abs() + a.abs()) if log_target else b * (torch.where(b > 0, b.log().abs(), 0) + a.abs())
            terms = EPS[np.dtype(float)] * terms
            divisor = {"sum": 1, "mean": terms.numel(), "batchmean": a.shape[0] if a.ndim else 1}
            atol = 4 * terms if reduction == "none" else (4 + terms.numel()) * terms.sum() / divisor[reduction]
            assert torch.all((ours - theirs).abs() <= atol)


@difference("float32, float16 and bfloat16")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_tensors(torch, dtype, reduction):
    x, t = losses(torch, "random", dtype)
    for a, b, log_target in (x, t, False), (x, t.log(), True):
        ours, theirs = both(a, b, reduction=reduction, log_target=log_target)
        assert ours.dtype == theirs.dtype == a.dtype
        exact = both(a.double(), b.double(), reduction=reduction, log_target=log_target)[1]
        # One rounding, which is at most eps/2, and float64's errors.
        half = torch.finfo(a.dtype).eps / 2 * (1 + 1e-3)
        assert torch.all((ours.double() - exact).abs() <= half * exact.abs())
        if reduction == "none":
            assert torch.any((theirs.double() - exact).abs() > half * exact.abs())


def test_mixed_dtypes(torch):
    for first, second in product(["float64", "float32", "float16", "bfloat16"], repeat=2):
        x, t = losses(torch, "random", first)[0], losses(torch, "random", second)[1]
        for a, b in (x, t), (x, t[0, 0, 0]), (x[0, 0, 0], t):
            ours, theirs = both(a, b, reduction="sum")
            assert ours.dtype == theirs.dtype, (first, second)


def test_deprecated_arguments(torch):
    x, t = losses(torch, "random")
    calls = [{name: value} for name in ("size_average", "reduce") for value in (True, False)]
    calls += [{"reduce": True, "size_average": False}, {"reduction": "mean"}, {"reduction": "elementwise_mean"}, {}]
    calls += [{"reduction": "batchmean", **keywords} for keywords in ({"size_average": True}, {"reduce": False})]
    for keywords in calls:
        values = []
        for function in kl_div, original(kl_div):
            with pytest.warns(UserWarning, match="reduction") as caught:
                values.append(function(x, t, **keywords))
            assert len(caught) == 1, keywords
        assert torch.allclose(*values, rtol=1e-12, atol=0), keywords


def test_empty_tensors(torch):
    for shape in (0,), (0, 3), (3, 0):
        for reduction in REDUCTIONS:
            ours, theirs = both(torch.zeros(shape), torch.zeros(shape), reduction=reduction)
            assert torch.equal(ours, theirs) or (ours.isnan() and theirs.isnan())


def test_errors_of_kl_div(torch):
    x = torch.zeros(2, 3)
    for arguments in (x.numpy(), x), (x, [0.5, 0.5]), (x, x.int()), (x.bool(), x), (x + 0j, x), (x, torch.zeros(2)), (x,):
        both_raise(kl_div, *arguments)
    both_raise(kl_div, x, x, reduction="average")


def of_one_entry(torch, x, t, log_target):
    """Our value and torch's, each the same for every reduction and dtype."""
    values = []
    for reduction, dtype in product(REDUCTIONS, (torch.float64, torch.float32, torch.bfloat16)):
        pair = both(*torch.tensor([[x], [t]], dtype=dtype), reduction=reduction, log_target=log_target)
        values.append([value.item() for value in pair])
    np.testing.assert_array_equal(values, values[:1] * len(values))
    return values[0][0], values[0][1]


@difference("target = 0, input = -inf")
@difference("log target = -inf")
@difference("input = -inf, log target too small for its exponential")
@difference("target = inf, 0 <= input < inf")
def test_terms_that_are_nan_in_torch(torch):
    for entries, log_target, value in (
        ([(-inf, 0.0), (inf, 0.0)], False, 0),
        ([(-inf, -inf), (inf, -inf), (-1.0, -inf)], True, 0),
        ([(-inf, -800.0)], True, inf),
        ([(1.0, inf)], False, inf),
    ):
        for x, t in entries:
            ours, theirs = of_one_entry(torch, x, t, log_target)
            assert ours == value, (x, t)
            assert np.isnan(theirs), (x, t)


def test_other_terms_of_strange_entries(torch):
    plain = [(-inf, 0.5), (-1.0, 0.0), (inf, 0.5), (nan, 0.0), (0.5, nan), (-1.0, -1.0)]
    for x, t in plain:
        np.testing.assert_array_equal(*of_one_entry(torch, x, t, False))
    for x, t in (-inf, -1.0), (inf, -1.0), (nan, -inf), (-1.0, nan):
        np.testing.assert_array_equal(*of_one_entry(torch, x, t, True))


def test_replacements_of_torchs_cross_entropy(torch):
    """The table of docs/howto/torch.md."""
    theirs = torch.nn.functional
    rng = np.random.default_rng(1)
    logits, weight = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((7, 5, 4), (5,)))
    labels = torch.from_numpy(rng.integers(5, size=(7, 4)))
    labels[2, 1] = -100
    every = torch.from_numpy(rng.dirichlet(np.ones(5), 7))
    one, other = logits[:, :, 0], logits[:, :, 1]
    unreduced = {"reduction": "none"}

    def ours(**keywords):
        return fastkl.nll(labels, logits, axis=1, from_logits=True, ignore_index=-100, **keywords)

    divergences = theirs.kl_div(one.log_softmax(1), other.log_softmax(1), log_target=True, **unreduced)
    # Logits are below 4 and values below 10: logarithms have errors of some eps of that, and at most 28 values are added.
    for a, b in (
        (fastkl.nll(labels[:, 0], one, from_logits=True), theirs.cross_entropy(one, labels[:, 0], **unreduced)),
        (ours(), theirs.cross_entropy(logits, labels, **unreduced)),
        (ours(label_smoothing=0.3), theirs.cross_entropy(logits, labels, label_smoothing=0.3, **unreduced)),
        (ours().sum(), theirs.cross_entropy(logits, labels, reduction="sum")),
        (ours().sum() / (labels != -100).sum(), theirs.cross_entropy(logits, labels)),
        (fastkl.cross_entropy(every, one, from_logits="q"), theirs.cross_entropy(one, every, **unreduced)),
        (ours() * weight[labels.clip(0)], theirs.cross_entropy(logits, labels, weight, **unreduced)),
        (fastkl.kl_divergence(other, one, from_logits=True), divergences.sum(1)),
    ):
        assert a.dtype == b.dtype == torch.float64
        assert a.shape == b.shape
        assert torch.all((a - b).abs() <= 28 * 10 * 8 * EPS[np.dtype(float)])
    for dtype in torch.float32, torch.float16, torch.bfloat16:
        assert fastkl.nll(labels[:, 0], one.to(dtype), from_logits=True).dtype == torch.float32


@difference("gradients")
def test_gradients(torch):
    x, t = losses(torch, "random")
    for name, a, b in ("input", x.clone().requires_grad_(), t), ("target", x, t.clone().requires_grad_()):
        with pytest.raises(RuntimeError, match=rf"^{name} requires a gradient.* pass {name}.detach\(\)"):
            kl_div(a, b, reduction="sum")
        assert original(kl_div)(a, b, reduction="sum").requires_grad
        assert kl_div(a.detach(), b.detach(), reduction="sum") == kl_div(x, t, reduction="sum")


@difference("tensors elsewhere than on the CPU")
def test_devices(torch):
    x = torch.zeros(2, device="meta")
    for name, a, b in ("input", x, torch.zeros(2)), ("target", torch.zeros(2), x):
        with pytest.raises(RuntimeError, match=f"^{name} is on device meta"):
            kl_div(a, b, reduction="sum")
    assert original(kl_div)(x, x, reduction="sum").device.type == "meta"
