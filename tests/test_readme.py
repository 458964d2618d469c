"""The README's Python runs as it stands there, in a folder that has the configs and nothing else."""

import re

import pytest
from processes import ROOT, call

CHECKS = """
assert points.shape == (8, 2) and int(state_of_gan.step) == 100
assert answer.probability.shape == (1, 10) and abs(float(answer.probability.sum()) - 1) < 1e-5
"""


@pytest.mark.slow
def test_the_functional_face_is_what_the_readme_says(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if b.startswith(("from ", "import "))]
    assert len(blocks) == 2  # one makes, one maps
    script = tmp_path / "notebook.py"
    script.write_text(f"{blocks[0]}\nstate_of_gan = state\n{blocks[1]}\n{CHECKS}")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = call(script, cache=tmp_path / "cache", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state" / "100").is_dir()
