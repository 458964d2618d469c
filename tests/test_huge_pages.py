"""A process that begins by itself asks for large pages of memory, once, and never against what the user has set."""

import os
import subprocess
import sys

import pytest

from jaxgen.parallel import huge_pages

SCRIPT = """
import os, pathlib, sys
from jaxgen.parallel import huge_pages
huge_pages.LINUX = pathlib.Path(sys.argv[1])
print("begun", flush=True)
huge_pages.ask()
print(os.environ.get(huge_pages.SETTINGS), sys.argv[2:])
"""
ON_REQUEST = "always [madvise] never\n"


def ran(tmp_path, kernel, given):
    file = tmp_path / "enabled"
    file.write_text(kernel)
    env = {name: value for name, value in os.environ.items() if name != huge_pages.SETTINGS}
    if given is not None:
        env[huge_pages.SETTINGS] = given
    command = [sys.executable, "-c", SCRIPT, str(file), "--a", "b c"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are Linux's")
@pytest.mark.parametrize(
    ("given", "then"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
    ],
)
def test_a_process_begins_again_with_its_arguments_where_that_gives_large_pages(tmp_path, given, then):
    assert ran(tmp_path, ON_REQUEST, given) == ["begun", "begun", f"{then} ['--a', 'b c']"]


@pytest.mark.parametrize(
    ("kernel", "given"),
    [
        (ON_REQUEST, "glibc.malloc.hugetlb=0"),
        ("[always] madvise never\n", None),
        ("always madvise [never]\n", None),
    ],
)
def test_it_goes_on_where_the_user_or_the_system_has_decided(tmp_path, kernel, given):
    assert ran(tmp_path, kernel, given) == ["begun", f"{given} ['--a', 'b c']"]


def test_the_pages_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(huge_pages, "LINUX", tmp_path / "none")
    monkeypatch.delenv(huge_pages.SETTINGS, raising=False)
    assert huge_pages.described() == "as the system gives them"
    monkeypatch.setenv(huge_pages.SETTINGS, "glibc.malloc.hugetlb=0")
    assert "glibc.malloc.hugetlb=0" in huge_pages.described()
