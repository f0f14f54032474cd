"""The cache of task results: what a task's key is made of, hits and misses, and why a miss."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctflow.errors import StateError
from ctflow.lib.digests import digest_path
from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, Task, Value
from ctflow.pipelinespec.placeholders import local_path
from ctflow.pipelinespec.spec import TaskSpec
from ctflow.runners.local.outputs import fingerprint
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.record import Record, task_from, task_to

#: Changed when what a key is made of changes: no entry of the old kind is found any more.
LAYOUT = 1


@dataclass(frozen=True)
class Key:
    """A task's key, and the digest of each part that went into it."""

    digest: str
    parts: Mapping[str, str]


def key_of(
    plan: Plan,
    parameters: Mapping[str, Value],
    given: frozenset[str],
    artifacts: Mapping[str, tuple[Artifact, ...]],
    spec: TaskSpec,
) -> Key:
    """The key of a task.

    The command goes in with its placeholders: what they stand for goes in as the inputs, and where
    the outputs lie must not count.

    Args:
        plan: the step's content, its environment, command and variables.
        parameters: the task's input parameters, with defaults.
        given: those that the pipeline gave, which IfPresent placeholders see.
        artifacts: its input artifacts, which count by content.
        spec: the task; a cache key that the pipeline chose for it replaces all but the step.
    """
    if spec.cache_key:
        parts = {"cache key": spec.cache_key, "step": plan.code}
        return Key(_digest([LAYOUT, parts]), parts)
    parts = {"step": plan.code, "command": _digest(plan.words), "env": _digest(dict(plan.env))}
    if plan.platform.mounts:  # by name: what is in a volume is not the pipeline's to know
        parts["volumes"] = _digest({key: str(to) for key, to in plan.platform.mounts.items()})
    for name, value in parameters.items():
        parts[f"parameter {name}"] = _digest([value, name in given])
    for name, found in artifacts.items():
        parts[f"artifact {name}"] = _digest(
            [[one.type, one.digest or one.uri, dict(one.metadata)] for one in found]
        )
    return Key(_digest([LAYOUT, parts]), parts)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:40]


@lru_cache(maxsize=1)
def boot() -> str:
    """Names this boot of the machine. After another one no time stamp is believed: what had not
    reached the disk is lost then, though the record may say it is there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def marks_of(task: Task) -> str:
    """The fingerprints of a task's output artifacts, as JSON."""
    marks = {
        one.uri: fingerprint(local_path(one.uri))
        for some in task.artifacts.values()
        for one in some
        if one.digest
    }
    return json.dumps([boot(), marks], separators=(",", ":"))


def intact(task: Task, marks: str) -> str:
    """Whether the task's outputs are still what they were: '' or what is wrong with them.

    Files whose size, time and inode are unchanged are believed; others are hashed again.
    """
    booted, known = json.loads(marks) if marks else ("", {})
    for name, some in task.artifacts.items():
        for one in some:
            if not one.digest:
                continue
            path = local_path(one.uri)
            found = fingerprint(path)
            if not found:
                return f"output {name} of the earlier task is gone"
            if found == known.get(one.uri) and booted == boot():
                continue
            try:
                digest, _ = digest_path(Path(path))
            except (OSError, StateError):
                return f"output {name} of the earlier task cannot be read"
            if digest != one.digest:
                return f"output {name} of the earlier task was changed"
    return ""


class Cache:
    """Results of earlier tasks by key."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def find(self, key: Key, task: str, run: str) -> tuple[Task, str] | str:
        """(the earlier task, its marks), or why there is none.

        Two equal tasks of one run (``run``) both run: whether the second finds the first one's
        result must not depend on which is faster.
        """
        row = self._record.connection.execute(
            "SELECT doc, marks, run FROM cache WHERE key = ?", (key.digest,)
        ).fetchone()
        if row is None:
            return self._why(key, task)
        doc, marks, maker = row
        if maker == run:
            return "an equal task of the same run is the only one"
        earlier = task_from(json.loads(doc))
        if wrong := intact(earlier, marks):
            self._record.begin()
            self._record.connection.execute("DELETE FROM cache WHERE key = ?", (key.digest,))
            return wrong
        self._record.begin()
        used = self._record.connection.execute(
            "UPDATE cache SET used = ? WHERE key = ?", (time.time(), key.digest)
        )
        # From here to the commit, which also says that this run refers to it, nobody removes it.
        return (earlier, marks) if used.rowcount else "the earlier task was removed just now"

    def usable(self, task: Task, marks: str) -> bool:
        """Whether a task's outputs are still what they were, and stay so until the commit: files
        are only ever removed under the record's lock, so they are looked for under it once more.
        """
        if intact(task, marks):
            return False
        self._record.begin()
        uris = [one.uri for some in task.artifacts.values() for one in some if one.digest]
        return all(fingerprint(local_path(uri)) for uri in uris)

    def put(self, key: Key, task: str, run: str, result: Task, marks: str) -> None:
        """Keep a result."""
        doc = task_to(result)
        self._record.begin()
        self._record.connection.execute(
            "INSERT OR REPLACE INTO cache (key, task, run, doc, marks, parts, used)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key.digest, task, run, json.dumps(doc), marks, json.dumps(dict(key.parts)),
             time.time()),
        )  # fmt: skip

    def _why(self, key: Key, task: str) -> str:
        row = self._record.connection.execute(
            "SELECT parts, run FROM cache WHERE task = ? ORDER BY used DESC LIMIT 1", (task,)
        ).fetchone()
        if row is None:
            return "it has not been run before"
        before, run = json.loads(row[0]), row[1]
        changed = sorted(
            name
            for name in before.keys() | key.parts.keys()
            if before.get(name) != key.parts.get(name)
        )
        return f"since {run} there is another " + ", ".join(changed)
