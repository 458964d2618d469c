"""The wheel, in an environment without the checkout: it trains, and brings the configs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from processes import ROOT

CONFIGS = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "configs").glob("*/*.py")}


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> pathlib.Path:
    """The Python of an environment that has the wheel and what it depends on, and not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("jaxgen", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["uv", "build", "--wheel", "--python", sys.executable, "--out-dir", str(folder / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # A folder that a .pth names is not searched for further .pth files, of which one would lead to the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "python"


def said(python: pathlib.Path, cwd: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    command = [str(python), "-m", "jaxgen", *arguments]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_wheel_trains_a_config_by_its_name(python, tmp_path):
    listed = said(python, tmp_path, "list", "--json")
    assert {row["name"] for row in json.loads(listed.stdout)["configs"]} == CONFIGS
    short = ["--steps", "2", "--batch-size", "8", "--preview-every", "2"]
    trained = said(python, tmp_path, "train", "gan/digits_dcgan", *short, "--test-batch-size", "8")
    assert trained.returncode == 0, trained.stderr
    assert "run folder: runs/digits_dcgan" in trained.stdout
    assert "uPlot" in (tmp_path / "runs" / "digits_dcgan" / "report.html").read_text()  # the wheel has its parts
    assert json.loads(said(python, tmp_path, "inspect", "runs/digits_dcgan", "--json").stdout)["step"] == 2
    planned = said(python, tmp_path, "plan", "classification/digits_cnn", "--topology", "cpu:1", "--json")
    assert json.loads(planned.stdout)["flops_per_chip_per_step"] > 0
    missing = said(python, tmp_path, "train", "gan/digits_dcgam")
    assert missing.returncode == 2
    assert missing.stderr == "error: there is no config gan/digits_dcgam; perhaps you meant gan/digits_dcgan\n"
