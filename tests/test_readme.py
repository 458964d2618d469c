"""The README's Python runs as it stands there."""

import re

import pytest
from processes import ROOT

BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    if block.startswith(("from ", "import "))
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.search(r"configs/(\w+/\w+)", block).group(1))
def test_the_functional_face_is_what_the_readme_says(block, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    if "points" in names:
        assert names["points"].shape == (8, 2)
        assert int(names["state"].step) == 100
    else:
        assert names["answer"].probability.shape == (1, 10)


def test_there_is_one_for_making_and_one_for_mapping():
    assert len(BLOCKS) == 2
