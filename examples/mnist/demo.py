"""The whole walk on one machine: new project, push, promotion, prediction, a better model, a worse
one, a rollback, and the held model not proposed again.

Everything is real: a bare repository whose hook starts the training, Python environments, the
compiled KFP package, the gate, git merges, a KServe model server. Run it with ``make demo``, or
``python demo.py [FOLDER]`` to keep what it makes in a folder of yours.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOUR = sys.stdout.isatty()
CTFLOW = [sys.executable, "-m", "ctflow"]
#: Who commits, where git does not know anybody yet.
PERSON = {
    "GIT_AUTHOR_NAME": "Ada Lovelace", "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada Lovelace", "GIT_COMMITTER_EMAIL": "ada@example.org",
}  # fmt: skip


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def chapter(text: str) -> None:
    print(f"\n{paint(text, '1')}", flush=True)


def call(words: Sequence[str], folder: Path, expect: int = 0, shown: str = "") -> None:
    """Run a command, its output on the screen; stop on an unexpected exit code."""
    print(paint(f"$ {shown or shlex.join(words)}", "36"), flush=True)
    done = subprocess.run(words, cwd=folder)
    if done.returncode != expect:
        sys.exit(f"demo: exit code {done.returncode}, where {expect} was expected")


def ctflow(folder: Path, *words: str, expect: int = 0) -> None:
    call([*CTFLOW, *words], folder, expect, shlex.join(["ctflow", *words]))


def answer(folder: Path, *words: str) -> Any:
    """A reading verb's --json."""
    done = subprocess.run([*CTFLOW, *words, "--json"], cwd=folder, capture_output=True, check=True)
    return json.loads(done.stdout)


def push(project: Path, text: str, expect: int = 0, **parameters: object) -> None:
    """Change parameters in ctflow.yaml, commit, push, and follow what the push started."""
    file = project / "ctflow.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    for name, value in parameters.items():
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        lines[at] = f"  {name}: {value}"
    if parameters:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        call(
            ["git", "--no-pager", "diff", "-U0", "--no-color", "ctflow.yaml"],
            project,
            shown="git diff",
        )
        call(["git", "commit", "-qam", text], project, shown=f"git commit -am '{text}'")
    call(["git", "push", "-q", "origin", "master"], project)
    ctflow(project, "trigger", "logs", expect=expect)


def approve(project: Path) -> None:
    """Approve what is proposed, by the id that was shown."""
    (proposed,) = answer(project, "promotions", "list")
    ctflow(project, "promotions", "approve", "staging", proposed["id"])


def predict(project: Path) -> None:
    """Ask the served model about a real digit, over HTTP as any client would."""
    status = answer(project, "status")
    url = status[0]["deployment"]["url"]
    golden = json.loads((project / "serving" / "golden.json").read_text(encoding="utf-8"))
    case = next(one for one in golden if one["protocol"] == "v1")
    address = f"{url}/v1/models/digits:predict"
    print(paint(f"$ curl -H 'content-type: application/json' -d @digit.json {address}", "36"))
    request = urllib.request.Request(  # noqa: S310 (a server that we started)
        address, json.dumps(case["request"]).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        model = response.headers["x-ctflow-model"]
        print(f"  {response.read().decode()}   from model {model[:19]}")
    pixels = case["request"]["instances"][0]
    for row in range(8):
        line = "".join(" ░▒▓█"[min(4, int(p) // 4)] * 2 for p in pixels[row * 8 : row * 8 + 8])
        print(f"    {line}")


def walk(base: Path) -> None:
    """All of it."""
    chapter("1. A new project, and a bare repository that trains on every push")
    ctflow(base, "new", "--no-input", "project=digits")
    project = base / "digits"
    call(["git", "init", "-q", "--bare", "-b", "master", "digits.git"], base)
    call(["git", "remote", "add", "origin", "../digits.git"], project)
    ctflow(project, "trigger", "install")
    # The first push only says where master is; from now on every push trains.
    chapter("2. The first push: trained, judged by absolute rules, proposed, approved, served")
    push(project, "first")
    ctflow(project, "promotions", "list")
    approve(project)
    ctflow(project, "trigger", "logs")
    predict(project)

    chapter("3. A better model: promoted over the champion on evidence")
    push(project, "Train a wider network", **BETTER)
    ctflow(project, "promotions", "show", "staging")
    approve(project)
    ctflow(project, "trigger", "logs")
    predict(project)

    chapter("4. A worse model: held back by the gate")
    call(["git", "pull", "-q", "--rebase", "origin", "master"], project)
    push(project, "Save money on training", expect=3, **WORSE)
    ctflow(project, "promotions", "list")

    chapter("5. The better model misbehaves after all: back to the one before")
    call(["git", "pull", "-q", "--rebase", "origin", "master"], project)
    ctflow(project, "rollback", "staging", "--reason", "slow on the old phones")
    ctflow(project, "trigger", "logs")
    predict(project)

    chapter("6. ... and the held model is not proposed again, whoever trains it")
    call(["git", "pull", "-q", "--rebase", "origin", "master"], project)
    push(project, "Train the wide network again", expect=3, **BETTER)
    ctflow(project, "status")
    ctflow(project, "why", "staging")
    ctflow(project, "runs", "list")


#: Found on this data: see the template's README for what each parameter does.
BETTER = {"epochs": 30, "hidden_units": 128}
WORSE = {"hidden_units": 24, "epochs": 15}


def main() -> int:
    """Walk, then stop the server and remove the folder, unless one was named."""
    started = time.monotonic()
    named = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    base = named or Path(tempfile.mkdtemp(prefix="ctflow-demo-"))
    base.mkdir(parents=True, exist_ok=True)
    os.environ.pop("CTFLOW_STATE", None)
    known = subprocess.run(["git", "config", "user.email"], capture_output=True)
    if known.returncode:
        os.environ.update(PERSON)
    try:
        walk(base)
        print(f"\n{paint('Done', '1;32')} in {time.monotonic() - started:.0f} s.", end=" ")
        print(f"It is all in {base}." if named else "Try it: ctflow new")
    finally:
        project = base / "digits"
        if project.is_dir():
            subprocess.run(
                [*CTFLOW, "deploy", "staging", "--stop"], cwd=project, capture_output=True
            )
        if not named:
            shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
