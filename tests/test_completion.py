"""Completion: what the shell is given, asked of the functions and of a real bash."""

import os
import shutil
import subprocess
import sys

import pytest
from processes import ROOT

from jaxgen.cli import main
from jaxgen.commands import COMMANDS
from jaxgen.commands.completion import OF_CONFIG, OF_RUN, SCRIPTS, words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], list(COMMANDS)),
        (["in"], ["interpolate", "inspect"]),
        (["eval", "--al"], ["--allow"]),
        (["sample", "run", "--solv"], ["--solver"]),
        (["plan", "diffusion/digits_ed"], ["diffusion/digits_edm"]),
        (["train", "--run"], ["--run-dir"]),
        (["sample", "runs"], ["runs/one"]),
        (["sample", "runs/o"], []),  # the shell's own files are better here
        (["nothing", "--"], []),
    ],
)
def test_words_that_can_stand_there(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "no_run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "one" / "experiment.json").touch()
    assert sorted(words(line)) == sorted(expected)


def test_every_command_that_takes_a_config_or_a_run_says_so_here():
    for command in set(OF_CONFIG) | set(OF_RUN):
        assert command in COMMANDS
    for command, (_, text) in COMMANDS.items():
        assert command in {*OF_CONFIG, *OF_RUN, "list", "doctor", "completion"}, text


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_printed_and_takes_no_more_words(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "jaxgen completion words" in capsys.readouterr().out
    assert main(["completion", shell, "more"]) == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path):
    (tmp_path / "jaxgen").write_text(f'#!/bin/sh\nexec {sys.executable} -m jaxgen "$@"\n')
    (tmp_path / "jaxgen").chmod(0o755)
    script = f"""{SCRIPTS["bash"]}
COMP_WORDS=(jaxgen eval --js); COMP_CWORD=2; _jaxgen; echo "${{COMPREPLY[@]}}"
COMP_WORDS=(jaxgen pla); COMP_CWORD=1; _jaxgen; echo "${{COMPREPLY[@]}}"
"""
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("--json\nplan\n", "")
