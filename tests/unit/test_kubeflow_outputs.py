"""Reading a cluster's outputs: the wire format, what results were made of, a bucket's listing."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ctflow.config.kubeflow import KubeflowConfig
from ctflow.errors import StateError
from ctflow.model import Artifact, Run, Task, making_digest
from ctflow.pipelinespec.spec_reader import parse
from ctflow.ports import Declared, RunPlace
from ctflow.runners.kubeflow.listing import Listed
from ctflow.runners.kubeflow.making import making_of
from ctflow.runners.kubeflow.scoring import place_of, scoring_spec
from ctflow.runners.kubeflow.wire import Malformed, decode, encode
from tests.mlmd_server import MESSAGES

# -- the wire -------------------------------------------------------------------------------------

ASKED = {1: ("type_name", "text"), 2: ("context_name", "text")}
IDS = {1: ("ids*", "int")}


@given(st.text(), st.text())
def test_texts_are_written_as_protobuf_reads_them(one: str, two: str) -> None:
    if "\\ud800" <= max(one + two, default="") <= "\\udfff":
        return
    data = encode({1: one, 2: two})
    message = MESSAGES["GetContextByTypeAndNameRequest"].FromString(data)
    assert (message.type_name, message.context_name) == (one, two)
    assert decode(data, ASKED) == {"type_name": one, "context_name": two}


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_numbers_are_written_as_protobuf_reads_them(numbers: list[int]) -> None:
    data = encode({1: numbers})
    assert list(MESSAGES["GetArtifactsByIDRequest"].FromString(data).artifact_ids) == numbers
    assert decode(data, IDS) == {"ids": numbers}


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
def test_values_are_read_as_protobuf_wrote_them(whole: int, real: float) -> None:
    shape = {1: ("int", "int"), 2: ("double", "double")}
    value = MESSAGES["Value"]
    assert decode(value(int_value=whole).SerializeToString(), shape) == {"int": whole}
    assert decode(value(double_value=real).SerializeToString(), shape) == {"double": real}


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused_and_nothing_else_happens(data: bytes) -> None:
    inner: dict[int, Any] = {1: ("a", "text"), 2: ("b", "double"), 3: ("c", "int")}
    inner[4] = ("d*", inner)
    with suppress(Malformed):
        decode(data, inner)


def test_a_message_that_is_cut_short_is_refused() -> None:
    data = encode({1: "system.PipelineRun", 2: "run"})
    for end in (1, 5, len(data) - 1):
        with pytest.raises(Malformed, match="cut short"):
            decode(data[:end], ASKED)


# -- what results were made of --------------------------------------------------------------------

PACKAGE = """
pipelineInfo: {name: tiny}
schemaVersion: 2.1.0
root:
  dag:
    tasks:
      train: {componentRef: {name: comp-train}}
      evaluate:
        componentRef: {name: comp-evaluate}
        taskInfo: {name: evaluate}
        cachingOptions: {enableCache: true}
        inputs:
          parameters: {share: {runtimeValue: {constant: 0.5}}, seed: {runtimeValue: {constant: 7}}}
          artifacts:
            model: {taskOutputArtifact: {producerTask: train, outputArtifactKey: model}}
            data: {taskOutputArtifact: {producerTask: train, outputArtifactKey: data}}
components:
  comp-train:
    executorLabel: exec-train
    outputDefinitions:
      artifacts:
        model: {artifactType: {schemaTitle: system.Model, schemaVersion: 0.0.1}}
        data: {artifactType: {schemaTitle: system.Dataset, schemaVersion: 0.0.1}}
  comp-evaluate:
    executorLabel: exec-evaluate
    inputDefinitions:
      parameters: {share: {parameterType: NUMBER_DOUBLE}, seed: {parameterType: NUMBER_INTEGER}}
      artifacts:
        model: {artifactType: {schemaTitle: system.Model, schemaVersion: 0.0.1}}
        data: {artifactType: {schemaTitle: system.Dataset, schemaVersion: 0.0.1}}
    outputDefinitions:
      artifacts:
        predictions: {artifactType: {schemaTitle: system.Dataset, schemaVersion: 0.0.1}}
deploymentSpec:
  executors:
    exec-train: {container: {image: "r/train@sha256:11", command: [python, main.py]}}
    exec-evaluate:
      container:
        image: "r/evaluate@sha256:22"
        command: [python, main.py]
        args: ["{{$.inputs.artifacts['model'].path}}"]
"""


def documents() -> list[Any]:
    return [yaml.safe_load(PACKAGE)]


def run_of(number: int, model: str = "a" * 64, data: str = "d" * 64, **more: Any) -> Run:
    base = f"minio://mlpipeline/v2/artifacts/tiny/{number}"
    found = Artifact("model", "system.Model", f"{base}/train/1/model", f"sha256:{model}", 3)
    table = Artifact("data", "system.Dataset", f"{base}/train/1/data", f"sha256:{data}", 9)
    outputs: dict[str, tuple[Artifact, ...]] = {"model": (found,), "data": (table,)}
    evaluate = Task("evaluate", "succeeded", inputs={"share": 0.5, "seed": 7},
                    input_artifacts=outputs)  # fmt: skip
    train = Task("train", "succeeded", artifacts=outputs)
    return Run(f"run-{number}", "tiny", "tiny", "", "succeeded", 0.0,
               tasks=(train, replace(evaluate, **more)))  # fmt: skip


def made(run: Run, changed: Any = None) -> str:
    task = run.tasks[1]
    pipeline = parse(changed or documents())
    known = replace(
        run, tasks=(run.tasks[0], replace(task, made_of=making_of(run, task, pipeline)))
    )
    model = known.artifact("train.model")
    assert model is not None
    return making_digest(known, "evaluate.predictions", model)


def test_two_models_scored_alike_are_comparable() -> None:
    assert made(run_of(1, "a" * 64)) == made(run_of(2, "b" * 64))


def test_other_code_data_or_parameters_are_not() -> None:
    first = made(run_of(1))
    assert made(run_of(2, data="e" * 64)) != first
    assert made(run_of(2, inputs={"share": 0.4, "seed": 7})) != first
    for path, value in {"image": "r/evaluate@sha256:33", "args": ["--fast"], "command": ["sh"],
                        "env": [{"name": "FAST", "value": "1"}]}.items():  # fmt: skip
        changed = documents()
        changed[0]["deploymentSpec"]["executors"]["exec-evaluate"]["container"][path] = value
        assert made(run_of(2), changed) != first, path
    moved = documents()
    moved[0]["deploymentSpec"]["executors"]["exec-evaluate"]["container"]["image"] = (
        "elsewhere/evaluate@sha256:22"
    )
    assert made(run_of(2), moved) == first  # the same image in another registry


def test_what_nobody_knows_is_comparable_to_nothing() -> None:
    assert made(run_of(1, inputs={"share": 0.5})) != made(run_of(2, inputs={"share": 0.5}))
    unread = {"model": run_of(1).tasks[1].input_artifacts["model"]}
    assert made(run_of(1, input_artifacts=unread)) != made(run_of(2, input_artifacts=unread))


# -- one task as a package ------------------------------------------------------------------------


def test_the_package_of_one_task_reads_its_inputs_by_importers() -> None:
    run = run_of(1)
    given = documents()
    before = copy.deepcopy(given)
    (spec,) = scoring_spec(run, given, "evaluate", "train.model", "minio://mlpipeline/x/model")
    assert given == before
    tasks = spec["root"]["dag"]["tasks"]
    assert sorted(tasks) == ["evaluate", "importer-1", "importer-2"]
    assert tasks["evaluate"]["inputs"]["parameters"] == {
        "share": {"runtimeValue": {"constant": 0.5}}, "seed": {"runtimeValue": {"constant": 7}}
    }  # fmt: skip
    pipeline = parse([spec])
    task = pipeline.root.dag.tasks["evaluate"] if pipeline.root.dag else None
    assert task is not None
    uris = {}
    for name, source in task.artifacts.items():
        importer = pipeline.components[f"comp-{source.task}"].importer
        assert importer is not None
        uris[name] = (importer.uri.value, importer.type)
    assert uris == {
        "model": ("minio://mlpipeline/x/model", "system.Model"),
        "data": (run.tasks[0].artifacts["data"][0].uri, "system.Dataset"),
    }
    assert sorted(spec["components"]) == ["comp-evaluate", "comp-importer-1", "comp-importer-2"]


def test_importers_are_written_as_kfp_writes_them(tmp_path: Path) -> None:
    from kfp import compiler, dsl

    def pipeline():  # type: ignore[no-untyped-def]  # kfp reads the annotations
        dsl.importer(artifact_uri="minio://b/x", artifact_class=dsl.Model, metadata={"a": "b"})

    compiler.Compiler().compile(dsl.pipeline(pipeline, name="tiny"), str(tmp_path / "package.yaml"))
    theirs = yaml.safe_load((tmp_path / "package.yaml").read_text())
    run = run_of(1)
    model = replace(run.tasks[0].artifacts["model"][0], metadata={"a": "b"}, uri="minio://b/x")
    data = {**run.tasks[1].input_artifacts, "data": (replace(model, name="data"),)}
    other = replace(run, tasks=(run.tasks[0], replace(run.tasks[1], input_artifacts=data)))
    (ours,) = scoring_spec(other, documents(), "evaluate", "train.model", "minio://b/y")
    executor = ours["deploymentSpec"]["executors"]["exec-importer-1"]
    assert executor == theirs["deploymentSpec"]["executors"]["exec-importer"]
    component = theirs["components"]["comp-importer"] | {"executorLabel": "exec-importer-1"}
    # What is inside is the same; descriptions are the compiler's own.
    component["inputDefinitions"]["parameters"].pop("metadata", None)
    assert ours["components"]["comp-importer-1"] == component


def test_what_cannot_run_again_is_refused() -> None:
    run = run_of(1)
    read = run.tasks[1].input_artifacts | {"model": run.tasks[0].artifacts["data"]}
    cases = {
        "reads no artifact": run_of(1, input_artifacts=read),
        "not on record what evaluate": run_of(1, inputs={}),
        "no finished task": run_of(1, state="failed"),
    }  # fmt: skip
    for words, one in cases.items():
        with pytest.raises(StateError, match=words):
            scoring_spec(one, documents(), "evaluate", "train.model", "minio://b/x")
    with pytest.raises(StateError, match="the package of run run-1 is gone"):
        scoring_spec(run, None, "evaluate", "train.model", "minio://b/x")


def test_the_other_model_lies_beside_the_runs_artifacts() -> None:
    assert place_of(run_of(1), "train.model", "sha256:ab") == (
        "minio://mlpipeline/v2/artifacts/scored-again/sha256-ab"
    )


# -- a bucket's listing ---------------------------------------------------------------------------


class Names:
    """Files of which only the names are asked."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    def below(self, uri: str) -> list[str]:
        self.asked.append(uri)
        return list(self.names)

    def fetch(self, uri: str) -> tuple[Path, str, int]:
        raise AssertionError(uri)

    def put(self, uri: str, content: Path) -> None:
        raise AssertionError(uri)


def test_outputs_are_found_by_where_kfp_puts_them() -> None:
    files = Names("train/ab/model/skill", "train/ab/model/deep/er", "train/ab/executor-logs",
                  "evaluate/cd/predictions")  # fmt: skip
    place = RunPlace("run", "tiny", "", (
        Declared("train", {"model": "system.Model"}),
        Declared("evaluate", {"predictions": "system.Dataset", "metrics": "system.Metrics"}),
    ))  # fmt: skip
    found = {one.path: one.artifacts for one in Listed(files).of_run(place)}
    base = "minio://mlpipeline/v2/artifacts/tiny/run"
    assert files.asked == [base]
    assert found == {
        "train": {"model": (Artifact("model", "system.Model", f"{base}/train/ab/model"),)},
        "evaluate": {"predictions": (
            Artifact("predictions", "system.Dataset", f"{base}/evaluate/cd/predictions"),)},
    }  # fmt: skip
    Listed(files, "gs://mine/").of_run(place)
    Listed(files).of_run(replace(place, root="s3://root/of/run"))
    assert files.asked[1:] == ["gs://mine/tiny/run", "s3://root/of/run/tiny/run"]


def test_two_tasks_of_one_name_are_left_out_of_a_listing() -> None:
    place = RunPlace("run", "tiny", "", (
        Declared("one.train", {"model": "system.Model"}),
        Declared("two.train", {"model": "system.Model"}),
    ))  # fmt: skip
    assert Listed(Names("train/ab/model")).of_run(place) == []


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"metadata": "http://x:1"}, "write host:port"),
        ({"metadata": "somewhere"}, "write host:port"),
        ({"artifacts": {"endpoint": "minio:9000"}}, "write https://host:port"),
        ({"artifacts": {"access_key_env": "KEY"}}, "go together"),
        (
            {"artifacts": {"access_key_env": "hunter2 hunter2", "secret_key_env": "B"}},
            "never the value itself",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        KubeflowConfig.model_validate(said)
    assert "hunter2" not in str(refused.value).partition("[type=")[0]
