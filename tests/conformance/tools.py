"""Small packages written by hand, and a runner whose steps are plain shell commands."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctflow.errors import Interrupted
from ctflow.model import Package, Run
from ctflow.ports import Environment, Event, RunRequest, Watch, Workspace
from ctflow.runners.local.runner import LocalRunner

IMAGE = "steps/shell@sha256:" + "0" * 64
TYPES = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN",
         list: "LIST", dict: "STRUCT"}  # fmt: skip


class ShellWorkspaces:
    """One step whose environment is the tests' own; its ``key`` stands for its content."""

    def __init__(self, folder: Path, key: str = "shell") -> None:
        self.folder = folder
        self.key = key

    def open(self, reference: str) -> Workspace | None:
        if reference != IMAGE:
            return None
        return Workspace("shell", self.folder, own_environment(), self.key)


class OwnEnvironments:
    """Every requirement is met by the tests' own environment."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        self.asked.append(requirements)
        return own_environment()

    def find(self, requirements: str, python: str = "") -> Environment | None:
        return own_environment()


def own_environment() -> Environment:
    python = Path(sys.executable)
    return Environment(
        "own", Path(sys.prefix), python, {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    )


class Pipeline:
    """Builds a package: each task is a shell script with KFP's placeholders in it."""

    def __init__(self, name: str = "test", **parameters: Any) -> None:
        self.name = name
        self.components: dict[str, Any] = {}
        self.executors: dict[str, Any] = {}
        self.tasks: dict[str, Any] = {}
        self.inputs = {
            key: {"parameterType": value} if isinstance(value, str) and value in TYPES.values()
            else {"parameterType": TYPES[type(value)], "defaultValue": value, "isOptional": True}
            for key, value in parameters.items()
        }  # fmt: skip

    def task(
        self,
        name: str,
        script: str = "true",
        *,
        reads: Mapping[str, str] | None = None,
        writes: Sequence[str] = (),
        takes: Mapping[str, Any] | None = None,
        gives: Mapping[str, type] | None = None,
        after: Sequence[str] = (),
        kind: str = "system.Dataset",
        into: dict[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Pipeline:
        """Add a task.

        ``reads``: input artifact -> ``task.output``. ``takes``: input parameter -> a constant,
        ``=parent input`` or ``@task.output`` (typed by a pair ``(type, source)``). ``more`` goes
        into the task as it is, ``container`` into its executor.
        """
        types = {key: _type_of(value) for key, value in (takes or {}).items()}
        self.components[f"comp-{name}"] = {
            "executorLabel": f"exec-{name}",
            "inputDefinitions": {
                "parameters": {key: {"parameterType": kind_} for key, kind_ in types.items()},
                "artifacts": {key: _artifact("system.Dataset") for key in reads or {}},
            },
            "outputDefinitions": {
                "parameters": {k: {"parameterType": TYPES[v]} for k, v in (gives or {}).items()},
                "artifacts": {key: _artifact(kind) for key in writes},
            },
        }
        self.executors[f"exec-{name}"] = {
            "container": {"image": IMAGE, "command": ["sh", "-ec", script], **(container or {})}
        }
        spec = {
            "componentRef": {"name": f"comp-{name}"},
            "taskInfo": {"name": name},
            "cachingOptions": {"enableCache": True},
            "dependentTasks": list(after),
            "inputs": {
                "parameters": {key: _source(value) for key, value in (takes or {}).items()},
                "artifacts": {key: _artifact_source(value) for key, value in (reads or {}).items()},
            },
            **more,
        }
        (self.tasks if into is None else into)[name] = spec
        return self

    def group(self, name: str, tasks: dict[str, Any], **more: Any) -> Pipeline:
        """Add a DAG task with the tasks that were collected in ``tasks``."""
        inputs = more.pop("inputs", {})
        definitions = {key: {"parameterType": kind} for key, (kind, _) in inputs.items()}
        item = (more.get("parameterIterator") or {}).get("itemInput")
        if item:
            definitions[item] = {"parameterType": more.pop("item_type", "NUMBER_INTEGER")}
        self.components[f"comp-{name}"] = {
            "dag": {"tasks": tasks, "outputs": more.pop("outputs", {})},
            "inputDefinitions": {"parameters": definitions},
            "outputDefinitions": more.pop("output_definitions", {}),
        }
        self.tasks[name] = {
            "componentRef": {"name": f"comp-{name}"},
            "taskInfo": {"name": name},
            "inputs": {"parameters": {key: _source(value) for key, (_, value) in inputs.items()}},
            **more,
        }
        return self

    def data(self) -> dict[str, Any]:
        return {
            "pipelineInfo": {"name": self.name},
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
            "root": {"dag": {"tasks": self.tasks}, "inputDefinitions": {"parameters": self.inputs}},
            "schemaVersion": "2.1.0",
        }

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.data()), encoding="utf-8")
        return path


def _artifact(kind: str) -> dict[str, Any]:
    return {"artifactType": {"schemaTitle": kind, "schemaVersion": "0.0.1"}}


def _type_of(value: Any) -> str:
    if isinstance(value, tuple):
        return str(value[0])
    if isinstance(value, str) and value[:1] in ("=", "@"):
        return "STRING"
    return TYPES[type(value)]


def _source(value: Any) -> dict[str, Any]:
    if isinstance(value, tuple):
        value = value[1]
    if isinstance(value, str) and value.startswith("="):
        return {"componentInputParameter": value[1:]}
    if isinstance(value, str) and value.startswith("@"):
        task, _, output = value[1:].partition(".")
        return {"taskOutputParameter": {"producerTask": task, "outputParameterKey": output}}
    return {"runtimeValue": {"constant": value}}


def _artifact_source(value: str) -> dict[str, Any]:
    task, _, output = value.partition(".")
    return {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": output}}


def out(name: str) -> str:
    """The placeholder of an output artifact's path."""
    return "{{$.outputs.artifacts['" + name + "'].path}}"


def read(name: str) -> str:
    """The placeholder of an input artifact's path."""
    return "{{$.inputs.artifacts['" + name + "'].path}}"


def value(name: str) -> str:
    """The placeholder of an input parameter."""
    return "{{$.inputs.parameters['" + name + "']}}"


def give(name: str) -> str:
    """The placeholder of an output parameter's file."""
    return "{{$.outputs.parameters['" + name + "'].output_file}}"


class Bench:
    """A state folder and a runner on it."""

    def __init__(self, folder: Path, *, slots: int | None = 4, key: str = "shell") -> None:
        self.folder = folder
        self.state = folder / "state"
        self.work = folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.environments = OwnEnvironments()
        self.runner = LocalRunner(
            self.state, ShellWorkspaces(self.work, key), self.environments, slots=slots
        )
        self.events: list[Event] = []

    def request(self, package: Path, caching: bool = True, **parameters: Any) -> RunRequest:
        return RunRequest("test", Package("test", "", "", str(package), ()), parameters,
                          caching=caching)  # fmt: skip

    def run(self, what: Pipeline | Path, caching: bool = True, **parameters: Any) -> Run:
        package = what.write(self.folder / "package.json") if isinstance(what, Pipeline) else what
        self.events.clear()
        return self.runner.run(self.request(package, caching, **parameters), self.events.append)

    def states(self, run: Run) -> dict[str, str]:
        return {task.name: task.state for task in run.tasks}


def text_of(run: Run, where: str) -> str:
    """The content of an output artifact."""
    artifact = run.artifact(where)
    assert artifact is not None, where
    return Path(artifact.uri).read_text(encoding="utf-8")


def _terminate(number: int, frame: object) -> None:
    raise Interrupted("stopped")


def main() -> None:
    """``python -m tests.conformance.tools STATE_FOLDER PACKAGE [RUN]``: run, or go on, and die."""
    signal.signal(signal.SIGTERM, _terminate)
    bench = Bench(Path(sys.argv[1]), slots=3)

    def watch(event: Event) -> None:
        if event.kind == "task" and event.task is not None:
            print(event.name, event.task.state, flush=True)

    if len(sys.argv) > 3:
        run = bench.runner.resume(sys.argv[3], watch)
    else:
        run = bench.runner.run(bench.request(Path(sys.argv[2])), watch)
    print(run.state, flush=True)


if __name__ == "__main__":
    main()
