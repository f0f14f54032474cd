"""Seconds for images: an unchanged project, one changed step, a cold build; medians.

Usage: python benchmarks/images.py [--runs N]. Needs what .ci/install-containers installs; the
registry is on loopback. The cold build is that of the template's four steps; uv's and pip's
downloads come from an index on this machine, so that the network is not measured. Where the
packages cannot be downloaded beforehand, it is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.containers import PYTHON, Containers, missing  # noqa: E402

DOCKERFILE = (
    "ARG BASE\nFROM ${BASE}\nWORKDIR /step\nCOPY requirements.txt ./\n"
    "RUN pip install --no-cache-dir -r requirements.txt\nCOPY . ./\n"
    'CMD ["python", "main.py"]\n'
)


def project(root: Path, made: Containers, steps: int, builder: str) -> Path:
    """A committed project of so many small steps."""
    for number in range(steps):
        folder = root / "steps" / f"step-{number}"
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text(DOCKERFILE)
        (folder / "main.py").write_text(f"print({number})\n")
        (folder / "requirements.txt").write_text("# none\n")
    (root / "ctflow.yaml").write_text(
        f"project: bench\nimages:\n  registry: {made.address}/{root.name}\n"
        f"  base: {made.base}\n  builder: {builder}\n"
    )
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run(["git", "-c", "user.name=b", "-c", "user.email=b@example.org", *words],
                       cwd=root, check=True)  # fmt: skip
    return root


def build(root: Path, environ: Mapping[str, str]) -> None:
    """`ctflow build` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", "build"], cwd=root, env={**os.environ, **environ},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)


def seconds(work: Callable[[], None]) -> float:
    """How long it takes once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def unchanged(folder: Path, made: Containers, environ: Mapping[str, str], runs: int) -> None:
    """50 steps, none of them changed."""
    root = project(folder / "fifty", made, 50, "layers")
    build(root, environ)
    median = statistics.median(seconds(lambda: build(root, environ)) for _ in range(runs))
    print(f"unchanged, 50 steps            {median:6.2f} s   (aim: under 0.5)")


def one_changed(folder: Path, made: Containers, environ: Mapping[str, str], runs: int) -> None:
    """One main.py of seven steps, from save to pushed digest."""
    for builder, aim in (("podman", 2), ("layers", 1)):
        root = project(folder / f"seven-{builder}", made, 7, builder)
        build(root, environ)

        def change(root: Path = root) -> None:
            with (root / "steps/step-3/main.py").open("a") as file:
                file.write(f"# {time.time_ns()}\n")
            build(root, environ)

        median = statistics.median(seconds(change) for _ in range(runs))
        print(f"one main.py of 7, {builder:<10}   {median:6.2f} s   (aim: under {aim})")


def cold(folder: Path, made: Containers, environ: Mapping[str, str]) -> None:
    """The template's steps from nothing, against podman build and push one after another."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    wheels = folder / "wheels"
    words = [uv, "tool", "run", "pip", "download", "-q", "--only-binary", ":all:",
             "--python-version", PYTHON, "-d", str(wheels), "numpy==2.2.6",
             "scikit-learn==1.7.2"]  # fmt: skip
    if subprocess.run(words, capture_output=True).returncode:
        print("cold build: left out, the packages cannot be downloaded here")
        return
    for wheel in wheels.glob("*.whl"):
        made.index.serve(wheel)
    subprocess.run([sys.executable, "-m", "ctflow", "new", "demo", "--no-input"], cwd=folder,
                   env={**os.environ, **environ}, check=True, capture_output=True)  # fmt: skip
    root = folder / "demo"
    shared = {
        **environ,
        "UV_DEFAULT_INDEX": made.index.url,
        "UV_FIND_LINKS": "",
        "PIP_FIND_LINKS": "",
    }

    def forget() -> None:
        made.run(["podman", "rmi", "--all", "--force"])

    def plainly() -> None:
        for step in sorted((root / "steps").iterdir()):
            name = f"{made.address}/plain/{step.name}:1"
            made.run(["podman", "build", "-q", "--build-arg", f"BASE={made.base}", "-t", name,
                      str(step)])  # fmt: skip
            made.run(["podman", "push", "-q", name])

    forget()
    base = seconds(plainly)
    print(f"cold, 4 steps, podman one by one {base:6.2f} s")
    text = (root / "ctflow.yaml").read_text().replace("python:3.11-slim", made.base)
    for builder in ("podman", "layers"):
        forget()
        (root / "ctflow.yaml").write_text(text.replace(
            "\nimages:\n",
            f"\nimages:\n  registry: {made.address}/cold-{builder}\n  builder: {builder}\n",
        ))  # fmt: skip
        fresh = {**shared, "CTFLOW_CACHE": str(folder / f"cold-{builder}"),
                 "UV_CACHE_DIR": str(folder / f"uv-{builder}")}  # fmt: skip
        took = seconds(lambda fresh=fresh: build(root, fresh))  # type: ignore[misc]
        print(f"cold, 4 steps, ctflow {builder:<10} {took:6.2f} s   ratio {took / base:.2f}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    if absent := missing():
        print(f"left out: needs {', '.join(absent)} (run .ci/install-containers)")
        return 0
    with tempfile.TemporaryDirectory(prefix="ctflow-b-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made = Containers(folder / "c")
        environ = {**made.environ, "CTFLOW_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        try:
            unchanged(folder, made, environ, runs)
            one_changed(folder, made, environ, runs)
            cold(folder, made, environ)
        finally:
            made.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
