"""Starts ``ctflow ct`` and ``ctflow deploy`` on pushes to a bare repository on this machine.

The repository's post-receive hook puts a job into a queue in the project's local state and starts a
worker. One worker works at a time, in a clone of its own, and a newer push supersedes a waiting one
of its kind. A job that a killed worker left running is taken up by the next one.

Layout below ``<state>/trigger``: ``jobs/<number>.json``, ``logs/<number>.log``, ``clone/``, and the
locks ``queue.lock`` (held for a moment) and ``worker.lock`` (held while a worker works).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from ctflow.agent import trigger_hook as hooks
from ctflow.agent.push_queue import Job, JobKind, PushQueue
from ctflow.errors import OutsideError, StateError
from ctflow.lib.git_command import LONG, answer
from ctflow.ports import state_places


class LocalTrigger(PushQueue):
    """The trigger of one project.

    Args:
        root: the project's folder, in a clone of the bare repository.
        state: the project's local state, which the triggered runs share.
        branch: the branch whose pushes count.
    """

    def __init__(self, root: Path, state: Path, branch: str) -> None:
        super().__init__(state_places(state)["trigger"])
        self._root = root
        self._state = state
        self._branch = branch

    # -- installing --------------------------------------------------------------------------

    def install(self, remote: str = "origin", *, replace: bool = False) -> Path:
        """Write the hook into the bare repository that ``remote`` names; the hook's path.

        Projects of one repository share the hook, each with a part of its own.

        Args:
            replace: take over from another clone of the same project.

        Raises:
            StateError: the remote is not a repository on this machine, or has another hook; or
                another clone of this project is started by it.
        """
        hook = self._hook(remote)
        parts = hooks.read(hook)
        if parts is None:
            raise StateError(
                f"{hook} exists, and ctflow did not write it",
                next=f"add this line to it: {self._command('receive')}",
            )
        project = self._folder_in_repository().as_posix()
        own = hooks.Part(project, str(self._root), self._command("receive"))
        other = next((part for part in parts if part.project == own.project), None)
        if other is not None and other.root != own.root and not replace:
            raise StateError(
                f"pushes to {hook.parent.parent} already start ctflow in {other.root}",
                next="run `ctflow trigger uninstall` there, or replace the hook with --replace",
            )
        hooks.write(hook, [*(part for part in parts if part is not other), own])
        return hook

    def deploys(self) -> bool:
        """Whether a push to ``origin`` starts a deployment of this project already."""
        try:
            parts = hooks.read(self._hook("origin")) or []
            project = self._folder_in_repository().as_posix()
        except (OutsideError, StateError, OSError, ValueError):
            return False
        return any(part.project == project for part in parts)

    def uninstall(self, remote: str = "origin") -> Path:
        """Remove this project's part of the hook; StateError when it has none."""
        hook = self._hook(remote)
        parts = hooks.read(hook) or []
        left = [part for part in parts if part.root != str(self._root)]
        if len(left) == len(parts):
            raise StateError(f"{hook} does not start this project", next="nothing was removed")
        hooks.write(hook, left)
        return hook

    def _hook(self, remote: str) -> Path:
        try:
            url = answer(self._root, "remote", "get-url", remote)
        except OutsideError:
            raise StateError(
                f"the project has no remote {remote!r}",
                next="make one: `git init --bare ../NAME.git && git remote add origin ../NAME.git`",
            ) from None
        top = Path(answer(self._root, "rev-parse", "--show-toplevel"))
        place = Path(url.removeprefix("file://"))
        place = place if place.is_absolute() else top / place
        if not (place / "hooks").is_dir() and not (place / "HEAD").is_file():
            raise StateError(
                f"the remote {url} is not a bare repository on this machine",
                next="on a forge, the project's workflows start the training",
            )
        return place.resolve() / "hooks" / "post-receive"

    def _command(self, verb: str) -> str:
        words = [sys.executable, "-m", "ctflow", "trigger", verb, "-C", str(self._root)]
        return f"CTFLOW_STATE={shlex.quote(str(self._state))} {shlex.join(words)}"

    # -- the queue ---------------------------------------------------------------------------

    def receive(self, repository: Path, lines: list[str]) -> list[Job]:
        """Put what was pushed into the queue: lines of ``old new ref``, as git gives its hook."""
        jobs = []
        desired = self._folder_in_repository() / "deploy"
        for line in lines:
            old, new, ref = line.split()
            if ref != f"refs/heads/{self._branch}" or is_zero(new):
                continue
            kinds = _kinds(repository, old, new, f"{desired.as_posix()}/")
            jobs += [self.submit(kind, new, str(repository)) for kind in kinds]
        if jobs:
            self._start_worker()
        return jobs

    def wake(self) -> None:
        """Start a worker if jobs wait, or were left by a killed one, and nobody works."""
        if any(job.state in ("waiting", "running") for job in self.jobs()) and not self.busy():
            self._start_worker()

    # -- the worker --------------------------------------------------------------------------

    def _start_worker(self) -> None:
        # A new worker waits for the lock, so a job that comes as one ends is never left behind.
        subprocess.Popen(
            [sys.executable, "-m", "ctflow", "trigger", "work", "-C", str(self._root)],
            env=os.environ | {"CTFLOW_STATE": str(self._state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def work(self) -> int:
        """Do what waits, one job after another; the number of jobs done."""
        done = 0
        with self.holding_lock("worker.lock") as lock:
            self.recover()
            while (job := self.take()) is not None:
                code = self._run(job, lock)
                self.write(replace(job, state="done", ended=time.time(), code=code))
                done += 1
        return done

    def _run(self, job: Job, lock: int) -> int:
        log = self.log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            try:
                folder, said = self._checkout(job)
                stream.write("".join(f"ctflow: {line}\n" for line in said).encode())
                stream.flush()
            except (OutsideError, OSError) as error:
                stream.write(f"ctflow: cannot check out {job.commit}: {error}\n".encode())
                return OutsideError.exit_code
            words = [sys.executable, "-m", "ctflow", job.kind, "-C", str(folder)]
            done = subprocess.run(
                words,
                env=os.environ | {"CTFLOW_STATE": str(self._state), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Where we are killed, the next worker waits for the end of what works in the clone.
                pass_fds=(lock,),
            )
        return done.returncode

    def _checkout(self, job: Job) -> tuple[Path, list[str]]:
        """The project at the job's commit in the worker's own clone: the folder of its ctflow.yaml.

        And what a reader of the log should know of it.
        """
        url = job.repository or str(self._hook("origin").parent.parent)
        clone = self._place / "clone"
        whole = clone / ".git" / "ctflow-whole"
        if not whole.is_file() or whole.read_text(encoding="utf-8") != url:
            _remove(clone)
            answer(self._place, "clone", "--quiet", "--no-checkout", url, str(clone), timeout=LONG)
            # The worker commits under the name of whoever installed the trigger.
            for key in ("user.name", "user.email"):
                answer(clone, "config", key, answer(self._root, "config", key))
            whole.write_text(url, encoding="utf-8")
        refs = "+refs/heads/*:refs/remotes/origin/*"
        answer(clone, "fetch", "--quiet", "--prune", "origin", refs, timeout=LONG)
        answer(clone, "checkout", "--quiet", "--force", "--detach", job.commit, timeout=LONG)
        answer(clone, "clean", "-ffdxq")
        return clone / self._folder_in_repository(), fetch_the_rest(clone)

    def _folder_in_repository(self) -> Path:
        top = Path(answer(self._root, "rev-parse", "--show-toplevel")).resolve()
        return self._root.resolve().relative_to(top)


def _kinds(repository: Path, old: str, new: str, desired: str) -> list[JobKind]:
    """What a push asks for: a deployment for changes below ``desired``, training for all others.

    Also an empty commit trains: that is how people start the training again.
    """
    if is_zero(old):
        return ["ct"]
    try:
        text = answer(repository, "diff", "--name-only", "--no-renames", "-z", old, new)
    except OutsideError:
        return ["ct"]  # the old commit is gone, after a forced push
    below = [path.startswith(desired) for path in text.split("\0") if path]
    kinds: list[JobKind] = []
    if any(below):
        kinds.append("deploy")
    if not all(below) or not below:
        kinds.append("ct")
    return kinds


def is_zero(commit: str) -> bool:
    """Whether git says "none": zeros, 40 of them or 64, as the repository's hash has digits."""
    return set(commit) == {"0"}


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def fetch_the_rest(clone: Path) -> list[str]:
    """Fetch what a plain checkout leaves out: submodules and Git LFS files.

    Returns what could not be fetched, a line each.
    """
    said = []
    if (clone / ".gitmodules").is_file():
        try:
            answer(clone, "submodule", "sync", "--quiet", "--recursive")
            words = ("--quiet", "--init", "--recursive", "--force")
            answer(clone, "submodule", "update", *words, timeout=LONG)
        except OutsideError as error:
            said.append(f"submodules are not fetched, their folders are empty ({error.fact})")
    try:
        answer(clone, "grep", "--quiet", "filter=lfs", "--", ":(glob)**/.gitattributes")
    except OutsideError:
        return said  # none
    try:
        answer(clone, "lfs", "pull", timeout=LONG)
    except OutsideError as error:
        said.append(f"files in Git LFS are not fetched, only their pointers are ({error.fact})")
    return said
