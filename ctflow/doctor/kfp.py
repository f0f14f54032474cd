"""Kubeflow Pipelines: version, mode, who asks, and what that may do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ctflow.errors import OutsideError
from ctflow.model.doctor import Finding, Skipped
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow.api import ROOT, Kfp

#: From this version on a server keeps tags of versions.
_TAGS = (2, 17)
#: The versions of servers that ctflow was tried with.
_TRIED = ((2, 15), (2, 17))
#: What is listed, by its path.
_LISTS = {
    "pipelines": "pipelines",
    "experiments": "experiments",
    "runs": "runs",
    "recurringruns": "recurring runs",
}


class KubeflowPipelines:
    """The server.

    Args:
        connect: reaches it; nothing is sent before.
        host: as ctflow.yaml has it; None: none is named.
        pipeline: the project's pipeline there.
        who: who asks.
    """

    system = "kubeflow"

    def __init__(
        self, connect: Callable[[], Kfp], host: str | None, pipeline: str, who: str, *, needed: bool
    ) -> None:
        self._connect, self._host, self._pipeline, self._who = connect, host, pipeline, who
        self.needed = needed

    def look(self) -> Sequence[Finding] | Skipped:
        """The server, what it may be asked for, and what it lacks."""
        if self._host is None and not self.needed:
            return Skipped("kubeflow.host is not set")
        kfp = self._connect()
        try:
            health = kfp.health()
        except ApiError as error:
            if error.status != 404:
                raise
            raise OutsideError(
                f"{kfp.api.name} is not there (404)",
                cause=error.cause,
                next="correct kubeflow.host, or kubeflow.service with `host: kubernetes`",
            ) from None
        version = str(health.get("tag_name") or "")
        users = health.get("multi_user") is True
        store = str(health.get("pipeline_store") or "database")
        mode = f"{'multi-user' if users else 'single-user'}, pipelines in {store}"
        found = [Finding(self.system, "ok", kfp.api.name, version, mode, self._who)]
        if users and not kfp.namespace:
            found.append(self._bad("it has users, and runs need a namespace",
                                   "set kubeflow.namespace"))  # fmt: skip
        elif refused := self._refused(kfp):
            found += refused
        else:
            text = "may list pipelines, experiments, runs and recurring runs"
            found.append(Finding(self.system, "ok", text))
            found.append(self._uploading(kfp, users=users))
        return [*found, *self._limits(version)]

    def _refused(self, kfp: Kfp) -> list[Finding]:
        query = {"page_size": "1"} | ({"namespace": kfp.namespace} if kfp.namespace else {})
        found = []
        for path, what in _LISTS.items():
            try:
                kfp.api.get(f"{ROOT}/{path}", query)
            except ApiError as error:
                if error.status not in (400, 401, 403):
                    raise
                cause = f" ({error.cause})" if error.cause else ""
                found.append(self._bad(f"may not list {what}: {error.fact}{cause}", error.next))
                if error.status == 401:
                    break
        return found

    def _uploading(self, kfp: Kfp, *, users: bool) -> Finding:
        """Uploading cannot be asked without doing it."""
        there = kfp.pipeline(self._pipeline) is not None
        state = "is there" if there else "is not there yet: `ctflow upload` makes it"
        text = f"pipeline {self._pipeline} {state}"
        if not users:
            return Finding(self.system, "ok", f"{text}; whoever reaches this server may upload")
        return Finding(
            self.system, "ok",
            f"{text}; whether {self._who} may upload is seen only when it is done",
        )  # fmt: skip

    def _limits(self, version: str) -> list[Finding]:
        numbers = version_of(version)
        if numbers is None:
            text = f"it does not say its version ({version or 'empty'})"
            mend = f"use one from {_text(_TRIED[0])} to {_text(_TRIED[1])}"
            return [self._warning(f"{text}, so what it lacks is not known", mend)]
        found = []
        if numbers < (2, 0):
            found.append(self._bad("servers before 2.0 run no pipelines of ctflow", "upgrade it"))
        elif numbers < _TRIED[0]:
            found.append(self._warning(f"ctflow was tried with {_text(_TRIED[0])} and newer ones",
                                       "upgrade it if something fails"))  # fmt: skip
        if numbers < _TAGS:
            found.append(self._warning(
                "versions get no tags (commit, branch, digest); their descriptions say the same",
                "none is needed; servers from 2.17 on have tags",
            ))  # fmt: skip
        if numbers > _TRIED[1]:
            found.append(self._warning(f"ctflow was tried with servers up to {_text(_TRIED[1])}",
                                       "upgrade ctflow if something fails"))  # fmt: skip
        return found

    def _bad(self, text: str, mend: str) -> Finding:
        return Finding(self.system, "failed" if self.needed else "warning", text, next=mend)

    def _warning(self, text: str, mend: str) -> Finding:
        return Finding(self.system, "warning", text, next=mend)


def version_of(text: str) -> tuple[int, int] | None:
    """``2.17.0`` -> (2, 17); None where it says no numbers."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
