"""The blocks of docs/howto/neighbours.md that test_docs.py leaves out: pynndescent and UMAP compile for half a minute."""

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/howto/neighbours.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*inverse_transform will be unavailable:UserWarning")
def test_the_page_on_neighbours(tmp_path, monkeypatch):
    for module in "numba", "sklearn", "pynndescent", "umap":
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(
        r"^```(?:python\n|\{code-block\} python\n:class: not-executed\n\n)(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        program = doctest.script_from_examples(block) if block.startswith(">>>") else block
        exec(compile(program, str(PAGE), "exec"), names)
    assert names["recall"] > 0.99
    assert names["embedded"].shape == names["from_matrix"].shape == (1797, 2)
