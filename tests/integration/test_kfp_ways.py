"""Ways in which KFP's own pipelines are written, through the real compiler and runner."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.projects import TinyProject, git

HEAD = "from typing import Optional\n\nfrom kfp import dsl\nfrom kfp.dsl import *\n"


def project_of(base: Path, pipeline: str, config: str = "") -> TinyProject:
    """A project without steps: its pipeline is all of Python components."""
    made = TinyProject(base, "kfp", remote=False)
    for place in (made.folder / "steps").rglob("*"):
        if place.is_file():
            place.unlink()
    made.write("pipeline.py", HEAD + pipeline)
    made.write("ctflow.yaml", f"project: kfp\npipeline: pipeline.py:pipe\n{config}")
    made.commit("a pipeline of Python components")
    return made


def outputs(run: dict[str, Any]) -> dict[str, Any]:
    return {task["name"]: task["outputs"].get("Output") for task in run["tasks"]}


WHOLE = """

@dsl.component
def learn(skill: float, model: Output[Model]):
    import os, tempfile

    place = tempfile.mkdtemp() + "/model"
    os.makedirs(place)
    with open(place + "/skill", "w") as file:
        file.write(str(skill))
    model.set_path(place)


@dsl.component
def judge(model: Input[Model], metrics: Output[Metrics], predictions: Output[Dataset]):
    with open(model.path + "/skill") as file:
        skill = float(file.read())
    right = round(skill * 400)
    metrics.log_metric("accuracy", right / 400)
    rows = [f"e{i},{i % 2},{i % 2 if i * 7919 % 400 < right else 1 - i % 2}" for i in range(400)]
    with open(predictions.path, "w") as file:
        file.write("id,label,prediction\\n" + "\\n".join(rows) + "\\n")


@dsl.pipeline(name="my-pipe")
def pipe(skill: float = 0.8):
    judge(model=learn(skill=skill).outputs["model"])
"""
GATE = """\
model: {artifact: learn.model}
gate:
  - {metric: accuracy, min: 0.5}
  - {metric: accuracy, over: champion, predictions: judge.predictions}
"""


def test_a_project_without_steps_goes_all_the_way(tmp_path: Path) -> None:
    project = project_of(tmp_path, WHOLE, GATE)
    assert "0 steps" in project.ok("build")
    done = project.json("ct")
    assert done["promotion"]["state"] == "open"
    # The model was written to a path of its own; it is kept with the run, and promoted from there.
    (model,) = next(t for t in done["run"]["tasks"] if t["name"] == "learn")["artifacts"]["model"]
    assert model["uri"].startswith(str(project.state))
    project.approve()
    try:
        assert "golden 1/1" in project.ok("deploy", "staging")
        better = project.json("ct", "-p", "skill=0.9")
        assert better["verdict"]["decision"] == "promote"
    finally:
        project.ok("deploy", "staging", "--stop")


def parquet(skill: float) -> str:
    """The predictions of such a model as Parquet, in base 64: the step has no pyarrow."""
    rows = range(400)
    right = [i * 7919 % 400 < round(skill * 400) for i in rows]
    table = pa.table(
        {
            "id": [f"e{i}" for i in rows],
            "label": [i % 2 for i in rows],
            "prediction": [i % 2 if right[i] else 1 - i % 2 for i in rows],
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return base64.b64encode(sink.getvalue()).decode()


def test_predictions_in_parquet_go_all_the_way(tmp_path: Path) -> None:
    first = WHOLE.index("    rows = [")
    last = WHOLE.index("@dsl.pipeline")
    written = f"""    import base64

    made = {{0.8: "{parquet(0.8)}", 0.9: "{parquet(0.9)}"}}
    with open(predictions.path, "wb") as file:
        file.write(base64.b64decode(made[skill]))


"""
    project = project_of(tmp_path, WHOLE[:first] + written + WHOLE[last:], GATE)
    done = project.json("ct")
    assert done["verdict"]["decision"] == "promote"
    project.approve()
    assert "on 400 examples" in project.ok("gate", "--plan")
    better = project.json("ct", "-p", "skill=0.9")
    texts = [one["text"] for one in better["verdict"]["reasons"]]
    assert any(text.startswith("accuracy +0.100 over champion") for text in texts), texts
    again = project.json("gate", better["run"]["id"])
    assert again["reasons"] == better["verdict"]["reasons"]


FAILING = """

@dsl.component
def good(x: str) -> str:
    print("all is well here")
    return x


@dsl.component
def bad(x: str) -> str:
    raise RuntimeError("the real reason")


@dsl.component
def bye():
    print("bye")


@dsl.pipeline
def inner(x: str):
    bad(x=x)
    good(x=x)


@dsl.pipeline
def pipe(x: str = "a"):
    BODY
"""


@pytest.mark.parametrize(
    ("body", "task"),
    [
        (
            "with dsl.ParallelFor(['a']) as i:\n        bad(x=i)\n        good(x=i)",
            "for-loop-2.0.bad",
        ),
        ("with dsl.If(x == 'a'):\n        bad(x=x)\n        good(x=x)", "condition-1.bad"),
        ("with dsl.ExitHandler(bye()):\n        bad(x=x)\n        good(x=x)", "exit-handler-1.bad"),
        ("inner(x=x)", "inner.bad"),
        (
            "with dsl.If(x == 'a'):\n     with dsl.ParallelFor(['a']) as i:\n      inner(x=i)",
            "condition-1.for-loop-3.0.inner.bad",
        ),
    ],
)
def test_the_task_that_really_failed_is_named(tmp_path: Path, body: str, task: str) -> None:
    project = project_of(tmp_path, FAILING.replace("BODY", body))
    done = project.call("run", "--no-cache")
    assert done.returncode == 4
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("ctflow: ")]
    assert said.startswith(f"ctflow: task {task} failed")
    assert "exit code 1" in said
    below = done.stderr[done.stderr.index(said) :]
    assert "RuntimeError: the real reason" in below
    assert "all is well here" not in below
    assert f"{task}: exit code 1" in project.json("runs", "show", "latest")["error"]


SMALL = """

@dsl.component
def show(x: str) -> str:
    return x


@dsl.component
def look(data: Optional[Input[Dataset]] = None) -> str:
    return "none" if data is None else "some"


@dsl.pipeline(name="my-pipe")
def pipe(data: Optional[Input[Dataset]] = None):
    show(x=dsl.PIPELINE_TASK_NAME_PLACEHOLDER)
    show(x=dsl.PIPELINE_TASK_ID_PLACEHOLDER)
    show(x=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER)
    look(data=data)
"""


def test_placeholders_as_arguments_and_optional_artifacts(tmp_path: Path) -> None:
    project = project_of(tmp_path, SMALL)
    run = project.json("run")
    found = outputs(run)
    assert found["show"] == "show"
    assert found["show-2"] == f"{run['id']}.show-2"
    assert found["show-3"] == f"my-pipe-{run['id']}"
    assert found["look"] == "none"


def test_what_kfp_says_of_itself_is_kept_and_not_shown(tmp_path: Path) -> None:
    project = project_of(tmp_path, SMALL)
    done = project.call("run")
    assert done.returncode == 0
    assert "KFP Executor" not in done.stdout + done.stderr
    assert "outputFile" not in done.stdout + done.stderr
    assert "Got executor_input:" in project.ok("runs", "logs", "latest", "show")


PATHS = """

@dsl.component
def make(how: str, data: Output[Dataset]):
    import os, tempfile

    place = os.path.join(tempfile.mkdtemp(), "data.txt")
    if how == "set_path":
        data.set_path(place)
    elif how == "custom_path":
        data.custom_path = place
    else:
        data.uri = "file://" + place
        with open(place, "w") as file:
            file.write("content")
        return
    with open(data.path, "w") as file:
        file.write("content")


@dsl.component
def use(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return file.read()


@dsl.pipeline
def pipe(how: str):
    use(data=make(how=how).outputs["data"])
"""


@pytest.mark.parametrize("how", ["set_path", "custom_path", "uri"])
def test_an_artifact_at_a_path_of_its_own_is_found(tmp_path: Path, how: str) -> None:
    project = project_of(tmp_path, PATHS)
    run = project.json("run", "-p", f"how={how}")
    assert outputs(run)["use"] == "content"
    again = project.json("run", "-p", f"how={how}")
    assert [task["state"] for task in again["tasks"]] == ["cached", "cached"]


def test_a_traceback_names_the_step_and_not_its_snapshot(tmp_path: Path) -> None:
    project = TinyProject(tmp_path, remote=False)
    project.write("steps/train/main.py", "import sys\n\nraise ValueError('upside down')\n")
    done = project.call("run")
    assert done.returncode == 4
    assert 'File "steps/train/main.py", line 3' in done.stderr
    assert str(project.state / "steps") not in done.stdout + done.stderr
    assert 'File "steps/train/main.py", line 3' in project.ok("runs", "logs", "latest", "train")


def test_resuming_after_a_step_was_mended(tmp_path: Path) -> None:
    project = TinyProject(tmp_path, remote=False)
    good = (project.folder / "steps/evaluate/main.py").read_text()
    project.write("steps/evaluate/main.py", "raise SystemExit('broken')\n")
    assert project.call("run", "-p", "skill=0.7").returncode == 4
    project.write("steps/evaluate/main.py", good)
    done = project.call("run", "--resume", "latest")
    assert done.returncode == 4
    assert "evaluate has changed since" in done.stdout
    assert "--rebuild" in done.stdout
    run = project.json("run", "--resume", "latest", "--rebuild")
    assert (run["state"], run["parameters"]["skill"]) == ("succeeded", 0.7)
    states = {task["name"]: task["state"] for task in run["tasks"]}
    assert states == {"train": "cached", "evaluate": "succeeded"}
    assert "--rebuild needs --resume" in project.fails(2, "run", "--rebuild")
    assert git(project.folder, "status", "--porcelain") == ""


def test_gate_and_promote_say_which_run_they_took(tmp_path: Path) -> None:
    project = TinyProject(tmp_path, remote=False)
    run = project.json("run")
    for verb in ("gate", "promote"):
        assert f"run       {run['id']}  of commit {project.tip()[:10]}" in project.ok(verb)  # type: ignore[index]


IMAGES = """

@dsl.component(base_image="IMAGE")
def tell() -> str:
    import sys

    print("running on", sys.version_info[:2])
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


@dsl.pipeline
def pipe():
    tell()
"""


def test_a_python_that_cannot_be_had_is_said_and_replaced(tmp_path: Path) -> None:
    project = project_of(tmp_path, IMAGES.replace("IMAGE", "python:3.77"))
    done = project.call("run", "--json")
    assert done.returncode == 0, done.stderr
    assert "Python 3.77 is not available" in done.stderr
    assert "only the Python version of base images is used: python:3.77" in done.stderr
    assert outputs(json.loads(done.stdout))["tell"] == f"3.{sys.version_info[1]}"


def test_an_image_that_is_more_than_a_python_is_refused_or_mapped(tmp_path: Path) -> None:
    image = "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime"
    project = project_of(tmp_path, IMAGES.replace("IMAGE", image))
    line = project.fails(2, "run")
    assert f"component tell runs in image {image}, which holds more than Python" in line
    assert "`--engine podman`" in line
    assert f"packages: {{'{image}': [name==version]}}" in line
    assert project.json("runs", "list") == []
    config = (project.folder / "ctflow.yaml").read_text()
    project.write("ctflow.yaml", f"{config}packages:\n  {image}: [six==1.17.0]\n")
    assert outputs(project.json("run"))["tell"] == f"3.{sys.version_info[1]}"
