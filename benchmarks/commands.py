"""What the commands that only read cost in CPU time, as whole processes.

    python benchmarks/commands.py [--runs N] [--before FOLDER]

Prints user and system time together, of the command and of all processes that it starts, in
seconds: the least and the median of several calls, and the git processes of one. In a project of
two environments that serve nothing and a few runs. With ``--before``, a checkout of another version
takes turns with this one, and the last column is the median of the ratios of neighbours: on a busy
machine trust that.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import IDENTITY, call, project

VERBS = ("--help", "config", "schema", "runs list", "runs show", "promotions list", "status")
HERE = Path(__file__).resolve().parents[1]


def cpu(words: list[str], folder: Path, code: Path) -> float:
    """Seconds of CPU of one call with the ctflow of a checkout."""
    environ = {**os.environ, "PYTHONPATH": str(code), "CTFLOW_CACHE": f"{folder}.{code.name}"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ctflow", *words]
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def git_processes(words: list[str], folder: Path, shims: Path) -> int:
    """How many git processes one call starts: a shim in front of git counts them."""
    log, git = shims / "calls", shutil.which("git")
    shims.mkdir(exist_ok=True)
    shim = shims / "git"
    shim.write_text(f'#!/bin/sh\necho >> "{log}"\nexec "{git}" "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    log.write_text("", encoding="utf-8")
    environ = {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "ctflow", *words]
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    return len(log.read_text(encoding="utf-8").splitlines())


def made(base: Path) -> Path:
    """A project in a repository, with two environments and three runs."""
    folder = Path(project(base, 5))
    file = folder / "ctflow.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}environments: {{staging: {{}}, production: {{}}}}\n", encoding="utf-8")
    if not (folder / ".git").exists():
        call("git", "-C", folder, "init", "-q", "-b", "master")
    call("git", "-C", folder, "add", ".")
    call("git", "-C", folder, "commit", "-qm", "all")
    for number in range(3):
        call(sys.executable, "-m", "ctflow", "run", "-C", folder, "-p", f"salt=s{number}")
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    os.environ.update(IDENTITY)
    base = Path(tempfile.mkdtemp(prefix="ctflow-bench-"))
    versions = {"now": HERE, **({"before": args.before.resolve()} if args.before else {})}
    head = "".join(f"{name:>8} {'median':>8}" for name in versions)
    print(f"{'command':<18} {head} {'git':>4}" + ("  now/before" if args.before else ""))
    try:
        folder = made(base)
        for verb in VERBS:
            words = verb.split()
            found: dict[str, list[float]] = {name: [] for name in versions}
            for number in range(args.runs + 1):
                for name, code in versions.items():
                    took = cpu(words, folder, code)
                    if number:  # the first call fills caches
                        found[name].append(took)
            row = "".join(f"{min(t):>8.3f} {statistics.median(t):>8.3f}" for t in found.values())
            git = git_processes(words, folder, base / "shims")
            ratio = ""
            if args.before:
                pairs = zip(found["now"], found["before"], strict=True)
                ratio = f"  {statistics.median(one / other for one, other in pairs):>10.2f}"
            print(f"{verb:<18} {row} {git:>4}{ratio}", flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
