"""Run: package -> run."""

from __future__ import annotations

from collections.abc import Mapping

from ctflow.errors import RunFailed
from ctflow.model import Commit, Package, Run, Value
from ctflow.ports import Runner, RunRequest, Watch


def run(
    project: str,
    package: Package,
    runner: Runner,
    watch: Watch,
    *,
    parameters: Mapping[str, Value],
    commit: Commit | None,
    caching: bool = True,
) -> Run:
    """Run the package to its end; a failed step is a Run that says so, not an exception.

    Raises:
        ConfigError: the package, or a parameter, cannot be run.
    """
    request = RunRequest(project, package, parameters, commit, caching)
    return runner.run(request, watch)


def check(run: Run, log: tuple[str, ...] = ()) -> None:
    """Raise RunFailed unless the run succeeded; ``log`` are the failed task's last lines."""
    if run.state == "succeeded":
        return
    failures = run.failures()
    failed = failures[0] if failures else None
    what = f"task {failed.name} failed" if failed else f"run {run.id} {run.state}"
    if len(failures) > 1:
        what += f", and {len(failures) - 1} more"
    raise RunFailed(
        f"{what}: {(failed.error if failed else run.error) or 'no reason given'}",
        next=f"see `ctflow runs logs {run.id}{' ' + failed.name if failed else ''}`",
        details=log,
    )
