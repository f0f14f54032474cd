"""The recorded runs of this machine: found, listed, read, removed.

What runs packages is another module: to import it takes longer than to list the runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.model import Artifact, Run, Task
from ctflow.ports import state_places
from ctflow.runners.local.abandoned_runs import close_abandoned, closed_if_abandoned
from ctflow.runners.local.folders import restore
from ctflow.runners.local.logs import last_lines, lines_of
from ctflow.runners.local.record import Record

if TYPE_CHECKING:
    from ctflow.runners.local.prune import Pruned


class RunRecords:
    """What the embedded runner has on record.

    Args:
        state: the project's local state (``.ctflow``).
    """

    def __init__(self, state: Path) -> None:
        self._state = state

    def get(self, run_id: str) -> Run:
        """A recorded run, by its id, a unique prefix of it, or ``latest``.

        Raises:
            StateError: none or several of them.
        """
        with self._recording() as record:
            restore(record, self._runs)
            number, _ = self._find(record, run_id)
            return closed_if_abandoned(record, number, record.run(number), self._runs)

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs first, without their tasks."""
        if not self._record().exists:
            return []
        with self._recording() as record:
            close_abandoned(record, self._runs)
            return [run for _, run in record.runs(limit, (state,) if state else ())]

    def logs(self, run_id: str, task: str | None = None) -> Iterator[tuple[str, str]]:
        """(task name, line) of the kept logs, task after task.

        Raises:
            StateError: no such run or task.
        """
        run = self.get(run_id)
        if task is not None and run.task(task) is None:
            from ctflow.pipelinespec.parameters import nearest

            names = [one.name for one in run.tasks if not one.group]
            raise StateError(
                f"run {run.id} has no task {task!r}", next=nearest(task, names, "a task")
            )
        for one in run.tasks:
            if one.log and (task is None or one.name == task or one.name.startswith(f"{task}.")):
                for line in lines_of(Path(one.log)):
                    yield one.name, line

    def fetch(self, artifact: Artifact) -> Path:
        """The path of a run's artifact; see ``Runner``.

        An artifact names the place where the run that made it kept it. Of another machine's run
        nothing is there; where its folder came along in this project's local state, the artifact is
        at the same path below ``runs/`` here. A task from the cache names the folder of the run
        that made it.

        Raises:
            StateError: it is gone.
        """
        place = Path(artifact.uri)
        if place.exists():
            return place
        rest = artifact.uri.rpartition("/runs/r-")[2]
        moved = self._runs / f"r-{rest}"
        inside = bool(rest) and moved.resolve().is_relative_to(self._runs.resolve())
        if not (inside and moved.exists()):
            raise StateError(
                f"the artifact {artifact.name} is gone ({artifact.uri})",
                next="run the pipeline again",
            )
        return moved

    def _moved(self, run: Run) -> Run:
        """The run with its artifacts where they are now; those that are gone stay as they are."""

        def moved(artifact: Artifact) -> Artifact:
            with suppress(StateError):
                return replace(artifact, uri=str(self.fetch(artifact)))
            return artifact

        tasks = []
        for task in run.tasks:
            found = {name: tuple(map(moved, some)) for name, some in task.artifacts.items()}
            tasks.append(replace(task, artifacts=found))
        return replace(run, tasks=tuple(tasks))

    def last_log_lines(self, task: Task, count: int = 10) -> tuple[str, ...]:
        """The last lines that a task printed."""
        return last_lines(Path(task.log), count) if task.log else ()

    def prune(self, keep: int, size: int | None = None, *, dry_run: bool = False) -> Pruned:
        """Remove all but the newest ``keep`` runs, and what is over ``size`` bytes of files."""
        from ctflow.runners.local.prune import prune

        with self._recording() as record:
            return prune(record, self._runs, keep, size, dry_run=dry_run)

    # -- places -----------------------------------------------------------------------------------

    def _record(self) -> Record:
        return Record(state_places(self._state)["record"])

    @contextmanager
    def _recording(self) -> Iterator[Record]:
        record = self._record()
        try:
            yield record
        finally:
            record.close()

    @property
    def _runs(self) -> Path:
        return state_places(self._state)["runs"]

    def _folder(self, run_id: str) -> Path:
        return self._runs / run_id

    def _find(self, record: Record, run_id: str) -> tuple[int, str]:
        if not record.exists:
            raise StateError("there are no runs yet", next="start one with `ctflow run`")
        if run_id == "latest":
            found = [latest] if (latest := record.latest()) else []
        else:
            found = record.find(run_id) or record.find(f"r-{run_id}")
        if not found:
            raise StateError(f"there is no run {run_id!r}", next="see `ctflow runs list`")
        if len(found) > 1:
            raise StateError(
                f"{run_id!r} may be any of {', '.join(name for _, name in found)}",
                next="write more of the id",
            )
        return found[0]
