"""The page of summaries is well-formed, escaped and complete, and its bars count every finite value."""

import math
import re
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from fastkl.batch import chart, report
from fastkl.batch.summary import Summary

MAX = float(np.finfo(np.float64).max)
NASTY = "<script>alert('1')</script> & \"quoted\" \x00\x1b\u202e\udc80 ü"
CASES = {
    "none": [],
    "none finite": [math.nan, math.inf, -math.inf],
    "one": [0.3],
    "one zero": [0.0],
    "equal": [-2.5] * 40,
    "linear": [1.0, 2.0, 3.0, 5.5],
    "negative": [-3.0, -1.0, 4.0, math.inf],
    "logarithmic": [1e-9, 1e-5, 0.5, 3.0, 3.0, math.nan],
    "with zeros": [0.0, 0.0, 0.0, 1e-9, 1.0],
    "mostly zeros": [0.0] * 9999 + [1.0, 1000.0],
    "two values": [0.0, 1.0, 1.0],
    "neighbours": [1.0, math.nextafter(1, 2)],
    "near": [1 + k * 1e-9 for k in range(50)],
    "large": [1e12 + 1e7 * k for k in range(50)],
    "tiny": [1e-300, 2e-300],
    "subnormal": [0.0, 5e-324, 1e-323],
    "widest": [-MAX, 0.0, MAX],
    "all decades": [5e-324, 1.0, MAX],
    "rare": [1.0] * 100_000 + [2.0],
}


def summarised(values):
    made = Summary()
    made.update(values)
    return made


def page(name, unit="", values=None, title="A title", facts=None):
    """The page of a measure, named like its case."""
    summary = summarised(CASES[name] if values is None else values)
    return report.html(title, facts or {"P": "p.npy"}, summary.result(), {"": {"": summary}}, {name: unit})


def page_of_fields(models, units=None):
    """The page of comparisons: of each model the case of each field."""
    summaries = {
        model: {field: summarised(CASES[case]) for field, case in fields.items()} for model, fields in models.items()
    }
    results = {model: {field: x.result() for field, x in fields.items()} for model, fields in summaries.items()}
    several = {"models": [{"q": model} | result for model, result in results.items()], "paired": []}
    return report.html(
        "A title", {}, results[""] if "" in models else several, summaries, {"compare": "nats"} | (units or {})
    )


def parsed(name, unit=""):
    return ElementTree.fromstring(page(name, unit))


def label(root):
    return root.find(".//svg").get("aria-label")


def percent(element, name):
    return float(element.get(name, "").removesuffix("%"))


def texts(root, path):
    return ["".join(found.itertext()) for found in root.iterfind(path)]


def tables(root):
    """The cells of each table, by its caption."""
    return {
        table.findtext("caption", ""): [["".join(x.itertext()) for x in row] for row in table.iterfind("tbody/tr")]
        for table in root.iter("table")
    }


def bars(root):
    """The ranges and counts in the tooltips of the bars."""
    said = [title.text or "" for title in root.iterfind(".//svg/g/title")]
    matches = [re.fullmatch(r"(.+): (1 row|(?!1 )[\d,]+ rows)", text).groups() for text in said]
    return [(values, int(count.split()[0].replace(",", ""))) for values, count in matches]


@pytest.mark.parametrize("name", CASES)
def test_bars_count_every_finite_value(name):
    root = parsed(name, unit="bits")
    finite = [x for x in CASES[name] if math.isfinite(x)]
    held = bars(root)
    assert sum(count for _, count in held) == len(finite)
    assert texts(root, ".//p[@class='none']") == ([] if finite else ["no finite value"])
    rects = root.iterfind(".//svg/g/rect[@class='hover']")
    places = [(percent(rect, "x"), percent(rect, "width")) for rect in rects]
    assert len(places) == len(held)
    assert all(-0.001 <= x < x + width <= 100.002 for x, width in places)  # of three decimals
    assert all(a[0] + a[1] <= b[0] + 0.002 for a, b in pairwise(places))
    attributes = [item for element in root.iterfind(".//svg//*") for item in element.items()]
    lengths = [x for name, x in attributes if name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height")]
    assert all(-10 <= float(x.removesuffix("%")) <= 300 for x in lengths)
    heights = [float(rect.get("height", "")) for rect in root.iterfind(".//svg/g/rect[@class='bar']")]
    assert all(1 <= height <= chart.FLOOR - chart.TOP for height in heights)
    if finite:
        most = max(count for _, count in held)
        for (_, count), height in zip(held, heights, strict=True):
            assert height == pytest.approx(max(1, (chart.FLOOR - chart.TOP) * count / most), abs=0.01)


@pytest.mark.parametrize("name", [name for name, values in CASES.items() if any(map(math.isfinite, values))])
def test_numbers_of_the_axis_are_in_their_places(name):
    values = sorted(x for x in CASES[name] if math.isfinite(x))
    labels = [text for text in parsed(name).iterfind(".//svg//text[@y]") if text.get("y") == str(chart.NUMBERS)]
    places = [percent(text, "x") for text in labels]
    numbers = [float((text.text or "").replace(",", "")) for text in labels]
    assert 1 <= len(numbers) <= 8
    assert numbers == sorted(set(numbers))
    assert all(values[0] <= x <= values[-1] or x == pytest.approx(values[0]) for x in numbers)
    assert places == sorted(places)
    if values[0] >= 0 and values[-1] / 100 > (least := next((x for x in values if x > 0), math.inf)):
        assert all(round(math.log10(x)) == pytest.approx(math.log10(x), abs=1e-9) for x in numbers if x)
        start = chart.BESIDE_ZEROS if values[0] == 0 else 0
        for x, number in zip(places, numbers, strict=True):
            low, place = math.log(least), math.log(number or 1)
            share = (place - low) / (math.log(values[-1]) - low)
            assert x == pytest.approx(start + (100 - start) * share if number else chart.ZEROS / 2, abs=0.002)
    elif values[0] < values[-1]:
        low, high = Fraction(values[0]), Fraction(values[-1])
        for x, number in zip(places, numbers, strict=True):
            assert x == pytest.approx(float(100 * (Fraction(number) - low) / (high - low)), abs=0.02)


AXES = [
    (0.0, 1.0, "0.0 0.2 0.4 0.6 0.8 1.0"),
    (0.0, 3.0, "0.0 0.5 1.0 1.5 2.0 2.5 3.0"),
    (-4000.0, 2500.0, "-4,000 -2,000 0 2,000"),
    (1e12, 1.001e12, "1e12 1.0002e12 1.0004e12 1.0006e12 1.0008e12 1.001e12"),
    (-1e-6, 2e-6, "-1e-6 -5e-7 0 5e-7 1e-6 1.5e-6 2e-6"),
    (1e-5, 10.0, "1e-5 0.0001 0.001 0.01 0.1 1 10"),
    (3e-12, 7e5, "1e-9 1e-6 0.001 1 1,000"),
]


@pytest.mark.parametrize(("low", "high", "numbers"), AXES)
def test_numbers_of_an_axis(low, high, numbers):
    logarithmic = low > 0 and high > 100 * low
    assert " ".join(number for _, number in chart.Axis(low, high, logarithmic, 0).ticks()) == numbers


def test_zeros_have_a_bar_of_their_own():
    root = parsed("with zeros")
    assert "of 5 finite values of with zeros, from 0 to 1; " in label(root)
    marks = [line.get("x1") for line in root.iterfind(".//svg/line[@class='mark']")]
    assert marks == [f"{chart.ZEROS / 2:.3f}%"]
    assert bars(root)[0] == ("0", 3)
    assert "0" in texts(root, ".//svg/g/text")
    assert bars(parsed("two values"))[0][0].startswith("0 to ")


def test_median_and_mean_are_marked():
    root = parsed("linear")
    assert texts(root, ".//svg/text[@class='label']") == ["median 2.5", "mean 2.875"]
    assert label(root) == "Histogram of 4 finite values of linear, from 1 to 5.5; median 2.5, mean 2.875"
    assert root.find(".//svg").get("role") == "img"
    places = [percent(line, "x1") for line in root.iterfind(".//svg/line") if "mark" in line.get("class", "")]
    assert places == pytest.approx([100 * 1.5 / 4.5, 100 * 1.875 / 4.5], abs=0.001)


def test_labels_stay_inside_and_beside_the_lines():
    """A label fits into a third of the width; with both marks inside their halves, into a little less."""
    for left, right in combinations_with_replacement(range(101), 2):
        (level, side), (other_level, other_side) = chart.place_labels(left, right)
        assert {level, other_level} == {chart.UPPER, chart.LOWER}
        assert all(x <= 64 if to == "start" else x >= 36 for x, to in ((left, side), (right, other_side)))
        x, to, passing = (left, side, right) if level == chart.LOWER else (right, other_side, left)
        assert not (x < passing < x + 28 if to == "start" else x - 28 < passing < x)


def test_statistics():
    made = summarised([0.5, math.nan, math.inf, 1.5, math.nan, -1234567.25, 12345678.0])
    found = tables(ElementTree.fromstring(report.html("t", {}, made.result(), {"": {"": made}}, {"kl": ""})))
    statistics = dict(found["Statistics"])
    names = [
        "rows",
        "with a finite value",
        "mean",
        "its standard error",
        "deviation",
        "mean of the worst 5 %",
        "min",
        "max",
    ]
    assert [*statistics] == names
    assert statistics["mean of the worst 5 %"] == "1.23457e7"
    assert [statistics[name] for name in ("rows", "with a finite value", "min", "max")] == ["7", "4", "-1.23457e6", "∞"]
    assert dict(found["Quantiles"])["50 %"] == "1"
    assert [row[0] for row in found["Quantiles"]] == [f"{x} %" for x in (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)]
    assert found["Rows without a finite value"] == [["infinite", "1", "2"], ["invalid", "2", "1, 4"]]
    assert found["Largest values; rows count from 0"][:3] == [["2", "∞"], ["6", "1.23457e7"], ["3", "1.5"]]


FIELDS = {"kl": "linear", "reverse_kl": "none", "nll_q": "equal"}


def test_fields_have_sections_and_facts_a_table():
    root = ElementTree.fromstring(page_of_fields({"": FIELDS}, {"kl": "nats"}))
    assert texts(root, ".//h2") == ["Comparison", "kl in nats", "reverse_kl", "nll_q"]
    links = [a.get("href", "") for a in root.iterfind(".//nav//a")]
    assert [f"#{section.get('id')}" for section in root.iter("section")] == ["#comparison", *links]
    fields = [["kl", "2.875", "2.5", "5.5"], ["reverse_kl", *"———"], ["nll_q", *["-2.5"] * 3]]
    assert tables(root)["The fields"] == fields
    assert parsed("linear").find(".//nav") is None
    assert texts(parsed("linear", "bits"), ".//h2") == ["Comparison", "linear in bits"]
    root = ElementTree.fromstring(page("one", facts={"P": "a.npy", "options": "base 2\nnormalize"}, title="The title"))
    assert tables(root)["The whole"] == [["P", "a.npy"], ["options", "base 2\nnormalize"]]
    assert texts(root, ".//h1") == texts(root, "head/title") == ["The title"]


def test_a_comparison_of_models_comes_first():
    models = {"a": FIELDS, "b": FIELDS | {"kl": "negative"}}
    root = ElementTree.fromstring(page_of_fields(models, dict.fromkeys(FIELDS, "bits")))
    first, *others = root.iter("section")
    table = next(first.iter("table"))
    heads = texts(table, "thead/tr/*")
    rows = [texts(row, "*") for row in table.iterfind("tbody/tr")]
    assert heads == ["", "kl in nats, mean", "50 %", "99 %", "99.9 %", "worst 5 %, mean", "max", "infinite rows"]
    assert [row[0] for row in rows] == ["a", "b"]
    assert [row[-2:] for row in rows] == [["5.5", "0"], ["∞", "1"]]
    assert rows[0][1] == "2.875 ± 0.97"
    assert [cell.get("data-name") for cell in table.iterfind("tbody/tr/td")] == heads[1:] * 2
    titles = ["kl in bits of a", "nll_q in bits of a", "kl in bits of b", "nll_q in bits of b"]
    assert texts(first, ".//h3") == titles
    assert len([*first.iter("svg")]) == 4
    assert [section.findtext("h2") for section in others] == [f"{field} of {model}" for model in "ab" for field in FIELDS]


def test_worst_rows_and_differences():
    made = summarised(CASES["linear"])
    top = [{"row": 3, "value": 5.5, "label": -100, "argmax_p": 7, "argmax_q": 123456}]
    models = [{"q": name} | made.result() | {"top": top} for name in ("<a>", "b")]
    paired = [{"q": ["<a>", "b"], "rows": 4, "mean": -0.5, "stderr": 0.25}]
    summaries = {name: {"": made} for name in ("<a>", "b")}
    result = {"models": models, "paired": paired}
    root = ElementTree.fromstring(report.html("t", {}, result, summaries, {"kl": "nats"}))
    found = tables(root)
    assert found["Rows that diverge most, <a>; rows count from 0"] == [["3", "5.5", "-100", "7", "123456"]]
    assert found["Differences of models in the same row"] == [["<a> - b", "-0.5 ± 0.25"]]
    assert len(texts(root, ".//section[@id='comparison']//h3")) == 2


def test_everything_is_escaped():
    made = page(NASTY, NASTY, [1.0, 2.0], title=NASTY, facts={NASTY: NASTY})
    made.encode("utf-8")
    assert "<script" not in made
    root = ElementTree.fromstring(made)
    shown = "".join(f"{x!a}"[1:-1] if x in "\x00\x1b\u202e\udc80" else x for x in NASTY)
    assert texts(root, "head/title") == texts(root, ".//h1") == [shown]
    assert tables(root)["The whole"] == [[shown, shown]]
    assert texts(root, ".//h2") == ["Comparison", f"{shown} in {shown}"]
    assert f"of {shown} in {shown}, from" in label(root)
    made = page_of_fields({NASTY: FIELDS | {NASTY: "one"}, "b": FIELDS}, {NASTY: NASTY})
    made.encode("utf-8")
    assert "<script" not in made
    root = ElementTree.fromstring(made)
    assert f"{shown} of {shown} in {shown}" in texts(root, ".//h2")
    assert f"kl of {shown}" in texts(root, ".//nav//a")
    assert shown in texts(root, ".//table/tbody/tr/th")


def test_page_is_html_that_loads_nothing():
    made = page_of_fields({"a": {name: name for name in CASES} | FIELDS, "b": {name: name for name in CASES} | FIELDS})
    assert made.startswith("<!DOCTYPE html>\n")
    assert not re.search(r"http|@import|url\(|<link|<script|<img|<iframe", made)
    root = ElementTree.fromstring(made)
    assert {a.get("href", "")[0] for a in root.iter("a")} == {"#"}
    names = {name for element in root.iter() for name in element.keys()}  # noqa: SIM118 - it is no dict
    assert not [name for name in names if name in ("src", "style") or name.startswith("on")]
    for table in root.iter("table"):
        assert table.findtext("caption")
        assert all(row[0].tag == "th" and row[0].get("scope") == "row" for row in table.iterfind("tbody/tr"))
        assert all(cell.get("scope") == "col" for cell in table.iterfind("thead/tr/th"))
