"""`ctflow build` with real engines, a real registry, and without an engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ctflow.cli import main
from tests.containers import PYTHON, Containers

DOCKERFILE = """\
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /step
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . ./
CMD ["python", "main.py", "--help"]
"""
MAIN = """\
import importlib.metadata, json, os, pathlib, sys
import hello
rows = []
for folder, names, files in os.walk("."):
    for name in sorted(files):
        path = os.path.join(folder, name)
        if not path.endswith(".pyc"):
            rows.append([path, os.stat(path).st_mode & 0o777, os.path.islink(path)])
print(json.dumps({"cwd": os.getcwd(), "hello": hello.say(), "rows": sorted(rows),
                  "version": importlib.metadata.version("hello"), "uid": os.getuid(),
                  "env": os.environ.get("COLOUR"), "argv": sys.argv[1:]}))
"""


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def world(containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project of three steps, beside the engines' settings."""
    for name, value in containers.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path / "cache"))
    # The packages of the tests' own index on this machine.
    monkeypatch.setenv("UV_DEFAULT_INDEX", containers.index.url)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    containers.index.add(
        "hello", "1.0", {"hello/__init__.py": "def say():\n    return 'hello'\n"},
        "hello-say = hello:say",
    )  # fmt: skip
    root = tmp_path / "project"
    name = f"{containers.address}/{tmp_path.name.replace('_', '-').lower()}"
    write(root, {
        "ctflow.yaml": f"project: walk\nimages:\n  registry: {name}\n  base: {containers.base}\n"
                       "steps:\n  one: {include: [common]}\n",
        "common/shared.py": "VALUE = 1\n",
    })  # fmt: skip
    for step in ("one", "two", "three"):
        write(root / "steps" / step, {
            "Dockerfile": DOCKERFILE, "main.py": f"# {step}\n{MAIN}",
            "requirements.txt": "hello==1.0\n", ".dockerignore": "*.md\n!keep.md\n",
            "drop.md": "x", "keep.md": "x", "sub/ünï.txt": "x",
        })  # fmt: skip
        (root / "steps" / step / "link").symlink_to("main.py")
        (root / "steps" / step / "tool.sh").write_text("#!/bin/sh\n")
        (root / "steps" / step / "tool.sh").chmod(0o755)
    git(root.parent, "init", "-q", str(root))
    git(root, "remote", "add", "origin", "https://ada:secret@example.org/acme/walk.git")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    return root


def build(
    root: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> dict[str, dict[str, object]]:
    """`ctflow build --json`; the images by step."""
    capsys.readouterr()
    assert main(["build", "-C", str(root), "--json", *words]) == code, capsys.readouterr().err
    out = capsys.readouterr().out
    return {one["step"]: one for one in json.loads(out)["images"]} if code == 0 else {}


@pytest.mark.parametrize("engine", ["podman", "buildah", "layers"])
def test_builds_what_changed(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """Each once; then nothing; then only the step whose file changed."""
    use = ("--set", f"images.builder={engine}")
    first = build(world, capsys, *use)
    assert [one["built"] for one in first.values()] == [True] * 3
    again = build(world, capsys, *use)
    assert [one["built"] for one in again.values()] == [False] * 3
    assert [a["reference"] for a in again.values()] == [a["reference"] for a in first.values()]
    with (world / "steps/two/main.py").open("a") as file:
        file.write("# more\n")
    third = build(world, capsys, *use)
    assert {name for name, one in third.items() if one["built"]} == {"two"}
    said = containers.run(
        ["podman", "run", "--rm", str(third["one"]["reference"]), "python", "main.py", "a"]
    )
    told = json.loads(said)
    assert told["cwd"] == "/step" and told["hello"] == "hello" and told["argv"] == ["a"]
    paths = [row[0] for row in told["rows"]]
    assert "./common/shared.py" in paths and "./keep.md" in paths and "./drop.md" not in paths
    os.environ.get("x")
    print(PYTHON)
