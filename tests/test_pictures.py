"""The pictures of the documentation: they are drawn, can be read on white and on dark pages, and pages show no others."""

import importlib
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PLOTS = DOCS / "plots"
SHOWN = re.compile(r"pictures/([\w-]+\.\w+)")
BACKGROUNDS = ("#ffffff", "#14181e")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PLOTS / "draw.py").exists(), reason="needs the sources of the pages"),
]


@pytest.fixture(scope="module")
def plots():
    """The modules that draw, by name."""
    for library in "matplotlib", "mpmath", "sklearn":
        pytest.importorskip(library)
    before = [*sys.path]
    sys.path.insert(0, str(PLOTS))
    yield {path.stem: importlib.import_module(path.stem) for path in PLOTS.glob("*.py")}
    sys.path[:] = before
    for path in PLOTS.glob("*.py"):
        del sys.modules[path.stem]


@pytest.fixture(scope="module")
def drawn(plots, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    plots["draw"].draw_all(folder)
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def words(text):
    return " ".join(
        "".join(element.itertext()) for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")
    )


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour, background):
    one, other = sorted(luminance(x) + 0.05 for x in (colour, background))
    return other / one


def test_every_picture_is_drawn(drawn):
    assert {*drawn} >= {"call.svg", "error.svg", "row-length.svg", "short-rows.svg", "throughput.svg"}
    for text in drawn.values():
        assert words(text)
        assert not re.search(r"(?:href|src)=[\"']?https?:|url\([\"']?https?:|@import|@font-face", text)


def test_pages_show_pictures_that_exist(drawn):
    shown = {name for page in DOCS.rglob("*.md") for name in SHOWN.findall(page.read_text("utf-8"))}
    assert shown <= {*drawn, "report.png"}


def test_a_picture_has_the_same_bytes_again(plots, drawn, tmp_path):
    plots["draw"].draw_all(tmp_path)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == drawn


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_colours_contrast_with_both_backgrounds(plots, background):
    style = plots["style"]
    lines = {name: line["color"] for name, line in style.STYLES.items()} | {"negative": style.NEGATIVE}
    assert not {name for name, colour in lines.items() if contrast(colour, background) < 3}
    assert contrast(style.TEXT, background) >= 4


def test_contenders_differ_in_markers(plots):
    styles = plots["style"].STYLES.values()
    assert len({style["marker"] for style in styles}) == len({style["color"] for style in styles}) == len(styles)


def test_fastkl_stays_within_its_bound(plots):
    error = plots["error"]
    for dtype, eps in (("float64", 2.0**-52), ("float32", 2.0**-23)):
        _, worst, negative = error.errors(dtype)
        assert max(worst["fastkl"]) <= error.BOUND * eps
        assert not any(negative["fastkl"])


def test_the_diagram_names_files_that_exist(plots):
    package = DOCS.parent / "fastkl"
    call = plots["call"]
    for name in [layer.name for layer in call.LAYERS] + ["batch", "compat", "capi.py"]:
        assert [*package.glob(f"{name.rstrip('/')}*")], name


def test_stored_figures_say_where_they_are_from():
    for part in json.loads((PLOTS / "measurements.json").read_text("utf-8")).values():
        assert {*part} == {"command", "measured", "machine", "figures"}
