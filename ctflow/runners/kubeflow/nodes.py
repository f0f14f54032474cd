"""Which entry of a run's ``task_details`` is which task of the package.

KFP compiles a package to an Argo workflow and gives an entry for each node of it, without saying
where in the pipeline it is: names like ``executor`` come once for each task. Argo's id of a node is
the workflow's name and the FNV-1a hash (32 bits) of the node's full name, and an entry lists its
children by id; the full names follow from the package:

    WORKFLOW(0).root(0).GROUP(0).TASK(0).executor(ATTEMPT)

Source: Argo Workflows, ``workflow/util/pod_name.go`` and ``NodeID``; KFP, ``argocompiler``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ctflow.pipelinespec.spec import Component, Pipeline, TaskSpec

_ATTEMPT = re.compile(r"\(\d+\)$")
#: The template of KFP's that runs a step, which is in the pod's name.
_TEMPLATE = "system-container-impl"
#: What KFP adds to each task, by the end of the name.
_DRIVER = "-driver"
_OWN = frozenset({"root", "root-driver", "executor"})

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Spot:
    """A task of the package. ``path`` is its name in ctflow, such as ``condition-1.announce``."""

    path: str
    spec: TaskSpec
    component: Component
    keys: tuple[str, ...]


@dataclass
class Found:
    """What a run says of a task.

    Attributes:
        entry: of the task; None: not reached yet.
        executor: of what runs its container; None where it has none, or has not started.
        pods: of its attempts, the first one first.
    """

    entry: Entry | None = None
    executor: Entry | None = None
    pods: list[str] = field(default_factory=list)


def spots(pipeline: Pipeline) -> Iterator[Spot]:
    """All tasks of a package, groups before what is in them; a loop's body once."""
    yield from _spots(pipeline.root, (), pipeline.components)


def _spots(
    component: Component, above: tuple[str, ...], components: Mapping[str, Component]
) -> Iterator[Spot]:
    if component.dag is None:
        return
    for key, task in component.dag.tasks.items():
        keys = (*above, key)
        inner = components[task.component]
        yield Spot(".".join(keys), task, inner, keys)
        yield from _spots(inner, keys, components)


def node_hash(name: str) -> int:
    """FNV-1a with 32 bits of a node's full name."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


class Nodes:
    """The entries of a run."""

    def __init__(self, details: Any) -> None:
        entries = details if isinstance(details, list) else []
        self._entries = [
            one for one in entries if isinstance(one, dict) and one.get("display_name")
        ]
        self._by_child: dict[int, Entry] = {}
        self._by_name: dict[str, list[Entry]] = {}
        self.workflow = ""
        for one in self._entries:
            self._by_name.setdefault(str(one["display_name"]), []).append(one)
            for pod in _children(one):
                name, _, number = pod.rpartition("-")
                if number.isdigit():
                    self.workflow = self.workflow or name
                    self._by_child.setdefault(int(number), one)

    def find(self, spot: Spot) -> Found:
        """What the run says of a task. By the nodes' ids; by the name where that finds none."""
        name = f"{self.workflow}(0).root" + "".join(f"(0).{key}" for key in spot.keys)
        entry = self._by_child.get(node_hash(f"{name}(0)"))
        if entry is None or entry["display_name"] != spot.keys[-1]:
            same = self._by_name.get(spot.keys[-1], [])
            # A loop's iterations have one name each: the worst of them says how it stands.
            return Found(min(same, key=_rank)) if same else Found()
        found = Found(entry)
        executor = self._by_child.get(node_hash(f"{name}(0).executor(0)"))
        if executor is not None and executor["display_name"] == "executor":
            found.executor = executor
            for attempt in range(len(_children(executor))):
                number = node_hash(f"{name}(0).executor({attempt})")
                found.pods.append(f"{self.workflow}-{_TEMPLATE}-{number}")
        return found

    def names(self) -> list[str]:
        """The tasks' names where the package is not known."""
        found = []
        for name in self._by_name:
            driver = name.endswith(_DRIVER) and name[: -len(_DRIVER)] in self._by_name
            if not (_ATTEMPT.search(name) or driver or name in _OWN or name == self.workflow):
                found.append(name)
        return found

    def named(self, name: str) -> Found:
        """What the run says of a task of that name."""
        return Found(self._by_name[name][0])


def _children(entry: Entry) -> list[str]:
    found = entry.get("child_tasks")
    children = found if isinstance(found, list) else []
    return [str(one["pod_name"]) for one in children if isinstance(one, dict) and "pod_name" in one]


_ORDER = ("FAILED", "RUNNING", "CANCELING", "PENDING", "CANCELED")


def _rank(entry: Entry) -> int:
    state = str(entry.get("state"))
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)
