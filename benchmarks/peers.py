"""The same no-op pipelines by ctflow and by its peers, as whole cold processes.

    python benchmarks/peers.py [--runs N] [--sizes N ...] [--long]

A *chain* of N steps, each adding one to what the step before returned, and N *wide* ones that need
nothing of each other. The tools take turns, so that a busy machine is busy for all; nothing is
cached. Prints wall times in seconds, and ctflow's time divided by each peer's: less than 1 means
that ctflow is faster. Each peer has an environment of its own, made once with uv in
``~/.cache/ctflow-bench``; one that does not install is named with the reason. What they write goes
to a folder that is removed at the end, and they are told to report to nobody.

Where the steps run differs, and matters: ``process`` is a new process for each step, ``pool`` is a
few processes that share the steps, ``inside`` the very process that runs the pipeline. kfp.local
uses the environment that it runs in (it would otherwise make one for every task). metaflow has
three steps of its own besides the independent ones.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common import CTFLOW, IDENTITY, call, project, turns
from uv import find_uv_bin

from ctflow import __version__

HERE = Path(__file__).resolve().parent / "peers"
CACHE = Path.home() / ".cache" / "ctflow-bench"
SHAPES = {"chain": "one after another", "wide": "independent of each other"}
LIMIT = 600.0
#: The figures that all others are divided into.
OURS = ("ctflow: containers", "ctflow: Python")
QUIET = {
    "AUTO_OPEN_DASHBOARD": "false",
    "DO_NOT_TRACK": "1",
    "FLYTE_LOCAL_CACHE_ENABLED": "false",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "ZENML_ANALYTICS_OPT_IN": "false",
}


@dataclass(frozen=True)
class Peer:
    """A row of the tables.

    Attributes:
        name: as shown.
        package: what is installed; the environment has its name, without extras.
        program: in ``peers/``; it is given the shape, the number of steps and ``more``.
        where: a step's place: ``process``, ``pool`` or ``inside``.
        command: the package's command, for ``--help``.
    """

    name: str
    package: str
    program: str
    where: str
    command: str
    more: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Its environment."""
        return CACHE / self.package.partition("[")[0]


PEERS = (
    Peer("kfp.local", "kfp", "noop_kfp.py", "process", "kfp"),
    Peer("metaflow", "metaflow", "noop_metaflow.py", "process", "metaflow"),
    Peer("kedro", "kedro", "noop_kedro.py", "inside", "kedro", ("SequentialRunner",)),
    Peer("kedro parallel", "kedro", "noop_kedro.py", "pool", "kedro", ("ParallelRunner",)),
    Peer("flytekit", "flytekit", "noop_flytekit.py", "inside", "pyflyte"),
    Peer("zenml", "zenml[local]", "noop_zenml.py", "inside", "zenml"),
)
WHERE = dict.fromkeys(OURS, "process") | {peer.name: peer.where for peer in PEERS}


def reason(error: Exception) -> str:
    """The last line of what a process said when it failed."""
    said = str(getattr(error, "stderr", "") or getattr(error, "output", "") or error)
    return said.strip().splitlines()[-1] if said.strip() else str(error)


def install(peer: Peer) -> str:
    """Its version, from an environment that is made unless it is there."""
    python, ready = peer.folder / "bin" / "python", peer.folder / ".ready"
    name = peer.package.partition("[")[0]
    if not ready.exists():
        shutil.rmtree(peer.folder, ignore_errors=True)
        call(find_uv_bin(), "venv", "-q", "--python", sys.executable, peer.folder, timeout=LIMIT)
        call(find_uv_bin(), "pip", "install", "-q", "--python", python, peer.package, timeout=LIMIT)
        ready.touch()
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return call(python, "-c", code).strip()


class Bench:
    """Projects, flows and all the tools' state in a folder that goes away."""

    def __init__(self, folder: Path, runs: int) -> None:
        self.folder = folder
        self.runs = runs
        self.peers: list[Peer] = []
        self.count = itertools.count()

    def install(self) -> None:
        """Make the peers' environments, and say which versions they have."""
        kfp = metadata.version("kfp")
        print(f"ctflow {__version__} (compiles with kfp {kfp})", flush=True)
        for peer in PEERS:
            try:
                version = install(peer)
            except (subprocess.SubprocessError, OSError) as error:
                print(f"{peer.name}: left out, it does not install: {reason(error)}", flush=True)
                continue
            if peer.folder not in [one.folder for one in self.peers]:
                print(f"{peer.package.partition('[')[0]} {version}", flush=True)
            self.peers.append(peer)

    def work(self, shape: str, steps: int, sort: str) -> dict[str, Callable[[], object]]:
        """A call for each tool that runs the pipeline once, made ready in a folder ``sort``."""
        found: dict[str, Callable[[], object]] = {}
        for name, kind in zip(OURS, ("containers", "python"), strict=True):
            place = project(self.folder / sort, steps, kind, shape)
            found[name] = lambda place=place: call(  # type: ignore[misc]
                *CTFLOW, "run", "-C", place, "-p", f"salt=s{next(self.count)}", timeout=LIMIT
            )
        for peer in self.peers:
            words = self._words(peer, shape, steps)
            found[peer.name] = lambda words=words: call(*words, timeout=LIMIT)  # type: ignore[misc]
        return found

    def _words(self, peer: Peer, shape: str, steps: int) -> list[str | Path]:
        python: str | Path = peer.folder / "bin" / "python"
        words = [python, HERE / peer.program, shape, str(steps), *peer.more]
        if peer.name != "metaflow":
            return words
        flow = self.folder / f"flow_{shape}{steps}.py"
        call(*words, flow)
        return [python, flow, "run", "--max-num-splits", str(steps)]

    def warm(self) -> None:
        """Run each once, for what a tool does only the first time; leave out those that fail."""
        for name, one in self.work("chain", 3, "warm").items():
            try:
                one()
            except subprocess.SubprocessError as error:
                if name in OURS:
                    raise
                print(f"{name}: left out, it fails: {reason(error)}", flush=True)
                self.peers = [peer for peer in self.peers if peer.name != name]


def table(title: str, found: dict[str, list[float]]) -> dict[str, float]:
    """Print it; the medians."""
    print(f"\n{title}")
    print(f"{'tool':<18} {'steps in':<8} {'median':>8} {'least':>8} {'most':>8} "
          f"{'containers/it':>14} {'Python/it':>10}")  # fmt: skip
    middle = {name: statistics.median(times) for name, times in found.items()}
    for name, times in found.items():
        row = f"{name:<18} {WHERE[name]:<8} {middle[name]:>8.3f} {min(times):>8.3f}"
        first, second = (middle[one] / middle[name] for one in OURS)
        print(f"{row} {max(times):>8.3f} {first:>14.2f} {second:>10.2f}", flush=True)
    return middle


def further(shape: str, few: int, many: int, middle: dict[int, dict[str, float]]) -> None:
    """Print what a step more costs, from the medians of two sizes."""
    print(f"\neach further step, {SHAPES[shape]}, from {few} to {many} steps")
    for name in middle[few]:
        step = (middle[many][name] - middle[few][name]) / (many - few)
        print(f"{name:<18} {step * 1000:>8.1f} ms")


def helps(bench: Bench) -> None:
    """Print the time of each tool's ``--help``."""
    work: dict[str, Callable[[], object]] = {"ctflow": lambda: call(*CTFLOW, "--help")}
    for peer in bench.peers:
        words = [peer.folder / "bin" / peer.command, "--help"]
        work.setdefault(peer.command, lambda words=words: call(*words))  # type: ignore[misc]
    for one in work.values():
        one()
    found = turns(work, bench.runs)
    ours = statistics.median(found["ctflow"])
    print(f"\n{'--help':<18} {'median':>8} {'least':>8} {'most':>8} {'ctflow/it':>10}")
    for name, times in found.items():
        middle = statistics.median(times)
        row = f"{name:<18} {middle:>8.3f} {min(times):>8.3f} {max(times):>8.3f}"
        print(f"{row} {ours / middle:>10.2f}", flush=True)


def alone(folder: Path) -> None:
    """Make this process's children keep their state there, and report to nobody."""
    os.environ["UV_CACHE_DIR"] = call(find_uv_bin(), "cache", "dir").strip()
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(folder / name.lower())
    os.environ.update(QUIET | IDENTITY | {"HOME": str(folder), "USERNAME": "bench"})
    os.environ["ZENML_CONFIG_PATH"] = str(folder / "zenml")
    os.environ["METAFLOW_HOME"] = str(folder / "metaflow")
    os.environ["CTFLOW_CACHE"] = str(folder / "ctflow")
    os.chdir(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 25], metavar="N")
    parser.add_argument("--long", action="store_true", help="200 steps, too")
    args = parser.parse_args()
    sizes = sorted({*args.sizes, *([200] if args.long else [])})
    now = datetime.datetime.now(datetime.timezone.utc)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} CPUs, {memory:.0f} GB, "
          f"Python {platform.python_version()}, median of {args.runs}, in seconds")  # fmt: skip
    start = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="ctflow-bench-") as place:
        bench = Bench(Path(place).resolve(), args.runs)
        bench.install()
        alone(bench.folder)
        try:
            bench.warm()
            helps(bench)
            for shape, words in SHAPES.items():
                middle: dict[int, dict[str, float]] = {}
                for steps in sizes:
                    times = turns(bench.work(shape, steps, "cold"), bench.runs)
                    middle[steps] = table(f"{steps} steps, {words}", times)
                for few, many in itertools.pairwise(sizes):
                    further(shape, few, many, middle)
        finally:
            os.chdir(start)


if __name__ == "__main__":
    main()
