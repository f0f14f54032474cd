"""A small cluster: what the stand-in for Kubeflow Pipelines is given to run is really run.

Each container of a package is a process here; inputs and outputs go through S3, and what was read
and written is recorded in ML Metadata, as KFP's driver and launcher do. Packages are flat: groups
are refused.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctflow.model import Artifact
from ctflow.pipelinespec.executor_input import build
from ctflow.pipelinespec.placeholders import Context, command_line
from ctflow.pipelinespec.spec import Component, Source, TaskSpec
from ctflow.pipelinespec.spec_reader import parse
from tests.kfp_server import KfpServer
from tests.kfp_server.parameters import filled, pipeline_of
from tests.mlmd_server import Recorder

BUCKET = "mlpipeline"


@dataclass
class Cluster:
    """Runs what comes to the server, one run after the other.

    Args:
        mlmd: the address of ML Metadata.
        s3: a client of the object store, which has the bucket.
        programs: an image's reference -> the folder that is its working directory.
    """

    server: KfpServer
    mlmd: str
    s3: Any
    work: Path
    programs: dict[str, Path] = field(default_factory=dict)
    #: The runs that were begun, in their order: (id, pipeline's name).
    begun: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Cluster:  # noqa: PYI034 (Self is Python 3.11's)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        seen: set[str] = set()
        while not self._stop.is_set():
            with self.server.store.lock:
                new = [run for name, run in self.server.store.runs.items() if name not in seen]
            for run in new:
                seen.add(run["run_id"])
                failed: list[str] = []
                try:
                    _Execution(self, run).go(failed)
                except Exception:  # noqa: BLE001 (whatever it is, the run ends)
                    traceback.print_exc()
                    failed = failed or ["-"]
                self.server.finish(
                    run["run_id"], "FAILED" if failed else "SUCCEEDED", failed=failed
                )
            time.sleep(0.02)


class _Execution:
    """One run."""

    def __init__(self, cluster: Cluster, run: Mapping[str, Any]) -> None:
        self.cluster, self.id = cluster, str(run["run_id"])
        spec = pipeline_of(run["_spec"])
        self.pipeline = parse([spec])
        config = run["runtime_config"]
        self.parameters = filled(spec, config.get("parameters") or {})
        root = config.get("pipeline_root") or f"minio://{BUCKET}/v2/artifacts"
        self.root = f"{root}/{self.pipeline.name}/{self.id}"
        self.outputs: dict[str, dict[str, tuple[int, Artifact]]] = {}
        cluster.begun.append((self.id, self.pipeline.name))

    def go(self, failed: list[str]) -> None:
        recorder = Recorder(self.cluster.mlmd, self.id)
        dag = self.pipeline.root.dag
        assert dag is not None
        left = dict(dag.tasks)
        try:
            while left:
                key = next(one for one, task in left.items() if not set(task.needs) & set(left))
                task = left.pop(key)
                component = self.pipeline.components[task.component]
                failed.append(key)
                self._task(key, task, component, recorder)
                failed.remove(key)
        finally:
            recorder.close()

    def _task(self, key: str, task: TaskSpec, component: Component, recorder: Recorder) -> None:
        parameters = {name: self._value(one) for name, one in task.parameters.items()}
        read = {name: self.outputs[one.task][one.name] for name, one in task.artifacts.items()}
        written: dict[str, tuple[str, str, Mapping[str, Any]]]
        if component.importer is not None:
            uri = self._value(component.importer.uri)
            said = dict(component.importer.metadata)
            one = (component.importer.type, uri, said)
            written = dict.fromkeys(component.output_artifacts, one)
        else:
            written = self._container(
                key, component, parameters, {n: a for n, (_, a) in read.items()}
            )
        ids = recorder.task(
            key, written, inputs={name: number for name, (number, _) in read.items()},
            parameters=parameters,
        )  # fmt: skip
        self.outputs[key] = {
            name: (ids[name], Artifact(name, kind, uri, metadata=dict(said)))
            for name, (kind, uri, said) in written.items()
        }

    def _value(self, source: Source) -> Any:
        return source.value if source.kind == "constant" else self.parameters[source.name]

    def _container(
        self, key: str, component: Component, parameters: Mapping[str, Any],
        read: Mapping[str, Artifact],
    ) -> dict[str, tuple[str, str, Mapping[str, Any]]]:  # fmt: skip
        container = component.container
        assert container is not None, f"{key} is no container"
        folder = self.cluster.work / self.id / key
        inputs = {
            name: (Artifact(name, one.type, str(self._download(one.uri, folder / "in" / name))),)
            for name, one in read.items()
        }
        (folder / "out").mkdir(parents=True)
        message = build(component, parameters, inputs, str(folder / "out"))
        line = command_line([*container.command, *container.args], Context(message))
        program = sys.executable if line[0] == "python" else line[0]
        done = subprocess.run(
            [program, *line[1:]], cwd=self.cluster.programs[container.image],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
        for name, kind in component.output_artifacts.items():
            uri = f"{self.root}/{key}/0f3a/{name}"
            self._upload(folder / "out" / name, uri)
            found[name] = (kind.type, uri, {})
        return found

    def _upload(self, place: Path, uri: str) -> None:
        bucket, _, path = uri.partition("://")[2].partition("/")
        if place.is_file():
            self.cluster.s3.put_object(Bucket=bucket, Key=path, Body=place.read_bytes())
        for file in place.rglob("*") if place.is_dir() else ():
            if file.is_file():
                name = f"{path}/{file.relative_to(place)}"
                self.cluster.s3.put_object(Bucket=bucket, Key=name, Body=file.read_bytes())

    def _download(self, uri: str, place: Path) -> Path:
        bucket, _, path = uri.partition("://")[2].partition("/")
        found = self.cluster.s3.list_objects_v2(Bucket=bucket, Prefix=path)["Contents"]
        for one in found:
            rest = one["Key"].removeprefix(path).strip("/")
            target = place / rest if rest else place
            target.parent.mkdir(parents=True, exist_ok=True)
            data = self.cluster.s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            target.write_bytes(data)
        return place
