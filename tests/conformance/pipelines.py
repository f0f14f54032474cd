"""One small pipeline a construct of KFP's language, and a compiler for all of them.

``python -m tests.conformance.pipelines FOLDER`` writes ``<name>.yaml`` for each. It runs in a child
process: kfp keeps global state, and takes half a second to import.
"""
# kfp reads these annotations: they stay as its DSL has them, and functions hold all that they use.
# mypy: ignore-errors
# ruff: noqa: UP014, UP045, PTH123, E741, B006, E712

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Optional

from kfp import compiler, dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

IMAGE = "steps/shell@sha256:" + "0" * 64
PIPELINES: dict[str, Any] = {}

warnings.simplefilter("ignore")


def component(function: Any) -> Any:
    """A lightweight Python component; kfp itself comes from the environment."""
    install = "WITHOUT_KFP" not in os.environ  # kfp.local would call pip for it
    return dsl.component(function, base_image="python:3.11", install_kfp_package=install)


def pipeline(function: Any) -> Any:
    """A pipeline of the suite."""
    made = dsl.pipeline(name=function.__name__.replace("_", "-"))(function)
    PIPELINES[function.__name__] = made
    return made


@component
def add(a: int, b: int = 2) -> int:
    return a + b


@component
def say(text: str) -> str:
    return text


@component
def number(x: float) -> float:
    return x


@component
def flip(x: bool) -> bool:
    return not x


@component
def show(
    i: int,
    f: float,
    b: bool,
    s: str,
    l: list,
    d: dict,
    o: Optional[str] = None,
) -> str:
    import json

    def kind(v):
        if isinstance(v, list):
            return [kind(x) for x in v]
        if isinstance(v, dict):
            return {k: kind(x) for k, x in v.items()}
        return type(v).__name__

    return json.dumps([[i, f, b, s, l, d, o], [kind(v) for v in (i, f, b, s, l, d, o)]])


@component
def two(x: int) -> NamedTuple("Two", [("n", int), ("flag", bool)]):
    return (x * 10, x > 1)


@component
def numbers(n: int) -> list[int]:
    return list(range(n))


@component
def records() -> list:
    return [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@component
def nothing() -> list[int]:
    return []


@component
def total(values: list[int]) -> int:
    return sum(values)


@component
def join(values: list[str]) -> str:
    return ",".join(values)


@component
def write(text: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(text)
    data.metadata["length"] = len(text)


@component
def upper(data: Input[Dataset], copy: Output[Dataset]) -> str:
    with open(data.path) as file:
        text = file.read().upper()
    with open(copy.path, "w") as file:
        file.write(text)
    return text + str(data.metadata.get("length"))


@component
def note(text: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(text)
    data.metadata["note"] = f"of {text}"
    data.metadata["all"] = {"parts": [text, True, 0.5]}


@component
def copy(data: Input[Dataset], copy: Output[Dataset]) -> str:
    with open(data.path) as file, open(copy.path, "w") as other:
        other.write(file.read())
    copy.metadata.update(data.metadata)
    return str(sorted(data.metadata.items()))


@component
def returned(text: str) -> Dataset:
    uri = dsl.get_uri(suffix="mine")
    with open(uri, "w") as file:
        file.write(text)
    return Dataset(uri=uri, metadata={"note": text})


@component
def append(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text)
    with open(path) as file:
        return file.read()


@component
def gather(parts: Input[list[Dataset]]) -> str:
    return "+".join(open(part.path).read() for part in parts)


@component
def measure(metrics: Output[Metrics]):
    metrics.log_metric("accuracy", 0.75)


@component
def fail(text: str) -> str:
    raise RuntimeError(text)


@component
def last(status: dsl.PipelineTaskFinalStatus, note: str = "n") -> str:
    return f"{status.state} {status.pipeline_task_name} {note} {status.error_message or ''}".strip()


@component
def missing() -> float:
    return float("nan")


@component
def missing_file(x: dsl.OutputPath(float)):
    with open(x, "w") as file:
        file.write("NaN")


@component
def back(l: list, d: dict) -> NamedTuple("Back", [("l", list), ("d", dict)]):
    return (l, d)


@component
def choose(text: str, data: Input[Dataset] = None) -> str:
    return text + (open(data.path).read() if data else "-")


@component
def by_file(n: int, number: dsl.OutputPath(int), words: dsl.OutputPath(list)):
    with open(number, "w") as file:
        file.write(f" {n}\n")
    with open(words, "w") as file:
        file.write('["a", 1, 2.5]')


@component
def greeting() -> str:
    import os

    return os.environ["GREETING"]


@component
def where(data: Input[Dataset]) -> str:
    return f"{data.uri} {data.metadata['note']}"


@component
def report(
    page: Output[dsl.HTML], text: Output[dsl.Markdown], table: Output[dsl.ClassificationMetrics]
):
    with open(page.path, "w") as file:
        file.write("<p>é</p>")
    with open(text.path, "w") as file:
        file.write("# é")
    table.log_confusion_matrix(["a", "b"], [[3, 1], [0, 2]])


@dsl.container_component
def shell(s: str, data: Output[Dataset], n: int = 3, k: Optional[str] = None):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'printf "%s|" "$@" > "$0"', data.path],
        args=[
            s,
            n,
            dsl.ConcatPlaceholder(["a=", s, "/", n]),
            dsl.IfPresentPlaceholder(input_name="k", then=["--k", k], else_=["--no-k"]),
            dsl.ConcatPlaceholder(["x", dsl.IfPresentPlaceholder("k", then="yes", else_="no")]),
        ],
    )


@dsl.container_component
def words(d: dict, l: list, b: bool, f: float, data: Output[Dataset]):
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-ec", 'printf "%s|" "$@" > "$0"', data.path], args=[d, l, b, f]
    )


@dsl.container_component
def length(data: Input[Dataset], out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'wc -c < "$0" > "$1"'],
        args=[data.path, out],
    )


@dsl.container_component
def about(data: Input[Artifact], out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'printf "%s %s" "$0" "$1" > "$2"'],
        args=[data.uri, data.metadata["note"], out],
    )


@dsl.container_component
def model(content: str, model: Output[Model]):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'mkdir "$0"; printf %s "$1" > "$0/weights"'],
        args=[model.path, content],
    )


@dsl.container_component
def env(out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-ec", 'printf %s "$GREETING" > "$0"'], args=[out]
    )


@dsl.container_component
def names(out: dsl.OutputPath(str), root: str = dsl.PIPELINE_ROOT_PLACEHOLDER):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'printf "%s|" "$@" > "$0"', out],
        args=[
            dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
            dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        ],
    )


@pipeline
def chain(x: int = 1) -> int:
    return add(a=add(a=x).output, b=10).output


@pipeline
def types(
    i: int = 3,
    f: float = 2.0,
    b: bool = True,
    s: str = 'it\'s "q" ü',
    l: list = [1, 2.5, {"x": 1}],
    d: dict = {"a": 1, "b": [1, 2], "c": 0.5},
    o: Optional[str] = None,
) -> str:
    return show(i=i, f=f, b=b, s=s, l=l, d=d, o=o).output


@pipeline
def format_string(name: str = "Ada", n: int = 3) -> str:
    return say(text=f"hi {name} {n} {add(a=n).output}").output


@pipeline
def artifacts(text: str = "abc") -> str:
    return upper(data=upper(data=write(text=text).outputs["data"]).outputs["copy"]).outputs[
        "Output"
    ]


@pipeline
def metrics():
    measure()


@pipeline
def named_outputs(x: int = 2) -> int:
    done = two(x=x)
    with dsl.If(done.outputs["flag"] == True):
        add(a=done.outputs["n"])
    return add(a=done.outputs["n"], b=0).output


@pipeline
def bare_if_named(x: int = 2):
    with dsl.If(two(x=x).outputs["flag"] == True):
        say(text="yes")
    with dsl.If(two(x=0).outputs["flag"] == True):
        say(text="no")


@pipeline
def if_elif_else(x: int = 3) -> str:
    n = add(a=x, b=0)
    with dsl.If(n.output == 1):
        one = say(text="one")
    with dsl.Elif(n.output > 2):
        other = say(text="more")
    with dsl.Else():
        rest = say(text="else")
    return dsl.OneOf(one.output, other.output, rest.output)


@pipeline
def conditions(s: str = "b", b: bool = False, f: float = 0.5, i: int = 2):
    with dsl.If(s == "b", name="eq"):
        say(text="1")
    with dsl.If(s > "a", name="gt"):
        say(text="2")
    with dsl.If(b == False, name="not"):
        say(text="3")
    with dsl.If(f >= 0.5, name="ge"):
        say(text="4")
    with dsl.If(f < i, name="lt"):
        say(text="5")
    with dsl.If(i != 2, name="ne"):
        say(text="6")
    with dsl.If(flip(x=b).output == True):
        say(text="7")


@pipeline
def nested_if(i: int = 2):
    with dsl.If(i > 1):
        with dsl.If(i > 2):
            say(text="deep")
        say(text="outer")


@pipeline
def loop_constant() -> int:
    with dsl.ParallelFor([1, 2, 3]) as item:
        done = add(a=item)
    return total(values=dsl.Collected(done.output)).output


@pipeline
def loop_parameter(items: list[int] = [4, 5]) -> int:
    with dsl.ParallelFor(items, parallelism=1) as item:
        done = add(a=item)
    return total(values=dsl.Collected(done.output)).output


@pipeline
def loop_output(n: int = 4) -> int:
    with dsl.ParallelFor(numbers(n=n).output) as item:
        done = add(a=item, b=0)
    return total(values=dsl.Collected(done.output)).output


@pipeline
def loop_records() -> int:
    with dsl.ParallelFor([{"a": 1, "b": 10}, {"a": 2, "b": 20}]) as item:
        done = add(a=item.a, b=item.b)
    return total(values=dsl.Collected(done.output)).output


@pipeline
def loop_records_output() -> str:
    with dsl.ParallelFor(records().output) as item:
        done = say(text=item.b)
    return join(values=dsl.Collected(done.output)).output


@pipeline
def loop_nested() -> int:
    with dsl.ParallelFor([1, 2]) as outer:
        with dsl.ParallelFor([10, 20]) as inner:
            add(a=outer, b=inner)
        done = add(a=outer, b=0)
    return total(values=dsl.Collected(done.output)).output


@pipeline
def loop_empty():
    with dsl.ParallelFor(nothing().output) as item:
        done = add(a=item)
    total(values=dsl.Collected(done.output))


@pipeline
def loop_artifacts() -> str:
    with dsl.ParallelFor(["a", "b", "c"]) as item:
        done = write(text=item)
    return gather(parts=dsl.Collected(done.outputs["data"])).output


@pipeline
def loop_condition():
    with dsl.ParallelFor([1, 2, 3]) as item, dsl.If(item > 1):
        add(a=item)


@dsl.pipeline
def inner_pipeline(q: int = 3, name: str = "x") -> NamedTuple("O", [("n", int), ("data", Dataset)]):
    first = add(a=q)
    data = write(text=f"{name}{first.output}")
    outputs = NamedTuple("O", [("n", int), ("data", Dataset)])
    return outputs(n=add(a=first.output).output, data=data.outputs["data"])


@pipeline
def nested(x: int = 1) -> int:
    once = inner_pipeline(q=x)
    upper(data=once.outputs["data"])
    twice = inner_pipeline(name="y")
    return add(a=once.outputs["n"], b=twice.outputs["n"]).output


@pipeline
def nested_in_loop() -> int:
    with dsl.ParallelFor([1, 2]) as item:
        done = inner_pipeline(q=item)
    return total(values=dsl.Collected(done.outputs["n"])).output


@pipeline
def exit_handler_good(note: str = "fine"):
    with dsl.ExitHandler(last(note=note), name="work"):
        say(text="x")


@pipeline
def exit_handler_bad():
    with dsl.ExitHandler(last(), name="work"):
        fail(text="boom")
        say(text="x")


@pipeline
def ignore_failure():
    bad = fail(text="boom")
    add(a=1, b=1).after(bad).ignore_upstream_failure()
    add(a=2).after(bad)


@pipeline
def after():
    first = say(text="a")
    second = say(text="b").after(first)
    say(text="c").after(first, second)


@pipeline
def containers(s: str = "it's $HOME; é"):
    shell(s=s)
    shell(s=s, n=7, k="key")
    words(d={"a": 1, "b": [1, 2.5]}, l=[1, "x", 2.5], b=True, f=30.0)


@pipeline
def container_outputs() -> int:
    return length(data=write(text="12345").outputs["data"]).output


@pipeline
def container_model():
    model(content="w")


@pipeline
def variables():
    env().set_env_variable("GREETING", "hello é").set_display_name("Greets")


@pipeline
def run_names():
    names()


@pipeline
def importer(note: str = "hi"):
    found = dsl.importer(
        artifact_uri="gs://bucket/data", artifact_class=Dataset, metadata={"note": note, "n": 1}
    )
    about(data=found.output)


@pipeline
def retry():
    fail(text="always").set_retry(num_retries=1, backoff_duration="0s")


@pipeline
def not_a_number():
    with dsl.If(missing().output > 0.5):
        say(text="yes")


@pipeline
def not_a_number_file():
    number(x=missing_file().outputs["x"])


@pipeline
def optional(x: Optional[int] = None) -> int:
    return add(a=1, b=x).output


@pipeline
def limits():
    add(a=1).set_cpu_limit("1").set_memory_limit("2G").set_caching_options(False)


# What follows is smaller than the pipelines above by what kfp.local cannot do, so that it and the
# embedded runner are compared on as much as possible.


@pipeline
def types_given(
    i: int = 3,
    f: float = 2.0,
    b: bool = True,
    s: str = 'it\'s "q" ü',
    l: list = [1.5, "x", True],
    d: dict = {"é": {"b": 0.5}},
    o: str = "given",
) -> str:
    return show(i=i, f=f, b=b, s=s, l=l, d=d, o=o).output


@pipeline
def types_whole(l: list = [1, {"x": 2}], d: dict = {"a": 1}) -> str:
    return show(i=1, f=1.0, b=True, s="s", l=l, d=d, o="o").output


@pipeline
def types_passed_on():
    first = back(l=[1.5, "x"], d={"k": [0.5]})
    back(l=first.outputs["l"], d=first.outputs["d"])


@pipeline
def types_by_file():
    done = by_file(n=7)
    add(a=done.outputs["number"])
    back(l=done.outputs["words"], d={})


@pipeline
def format_text(name: str = "Ada", other: str = "it's é") -> str:
    return say(text=f"hi {name}: {say(text=other).output}!").output


@pipeline
def optional_given(x: Optional[int] = 4) -> int:
    return add(a=1, b=x).output


@pipeline
def optional_artifact():
    choose(text="without")
    choose(text="with", data=write(text="it").outputs["data"])


@pipeline
def reports():
    report()


@pipeline
def variable_python():
    greeting().set_env_variable("GREETING", "hello é")


@pipeline
def importer_python():
    found = dsl.importer(
        artifact_uri="gs://bucket/data", artifact_class=Dataset, metadata={"note": "hi"}
    )
    where(data=found.output)


@pipeline
def several_outputs(x: int = 2) -> NamedTuple("Out", [("n", int), ("flag", bool), ("t", str)]):
    done = two(x=x)
    out = NamedTuple("Out", [("n", int), ("flag", bool), ("t", str)])
    return out(n=done.outputs["n"], flag=done.outputs["flag"], t=say(text="t").output)


@dsl.pipeline
def plain_pipeline(q: int = 3, text: str = "x") -> NamedTuple("O", [("n", int), ("data", Dataset)]):
    out = NamedTuple("O", [("n", int), ("data", Dataset)])
    data = copy(data=note(text=text).outputs["data"]).outputs["copy"]
    return out(n=add(a=add(a=q).output).output, data=data)


@dsl.pipeline
def outer_pipeline(x: int) -> int:
    return add(a=plain_pipeline(q=x).outputs["n"], b=100).output


@pipeline
def artifacts_text(text: str = "abc") -> str:
    first = copy(data=note(text=text).outputs["data"])
    return copy(data=first.outputs["copy"]).outputs["Output"]


@pipeline
def nested_plain(x: int = 1) -> int:
    once = plain_pipeline(q=x)
    copy(data=once.outputs["data"])
    return add(a=once.outputs["n"], b=plain_pipeline(text="y").outputs["n"]).output


@pipeline
def nested_deep() -> int:
    return add(a=outer_pipeline(x=1).output).output


@pipeline
def loop_alone():
    with dsl.ParallelFor(["a", "b", "c"]) as item:
        say(text=item)


@pipeline
def loop_alone_numbers():
    with dsl.ParallelFor([1, 2]) as item:
        add(a=item)


@pipeline
def loop_alone_parameter(items: list[str] = ["x", "y"]):
    with dsl.ParallelFor(items, parallelism=1) as item:
        say(text=item)


@pipeline
def loop_alone_output():
    with dsl.ParallelFor(numbers(n=2).output) as item:
        add(a=item)


@pipeline
def loop_alone_records():
    with dsl.ParallelFor([{"a": "p", "b": "q"}]) as item:
        say(text=item.a)
        say(text=item.b)


@pipeline
def loop_alone_chain():
    with dsl.ParallelFor(["a", "b"]) as item:
        say(text=say(text=item).output)


@pipeline
def loop_alone_pipeline():
    with dsl.ParallelFor([1]) as item:
        plain_pipeline(q=item)


@pipeline
def loop_alone_nested():
    with dsl.ParallelFor([1, 2]) as outer, dsl.ParallelFor([10, 20]) as inner:
        add(a=outer, b=inner)


@dsl.pipeline
def defaults_pipeline(x: Optional[int] = None, y: int = 5) -> int:
    return add(a=y, b=x).output


@pipeline
def nested_optional(z: Optional[int] = None):
    defaults_pipeline()
    defaults_pipeline(x=z)
    defaults_pipeline(x=3, y=1)


@pipeline
def one_of_artifact(x: int = 1) -> str:
    with dsl.If(x == 2):
        one = note(text="two")
    with dsl.Else():
        other = note(text="not")
    return copy(data=dsl.OneOf(one.outputs["data"], other.outputs["data"])).outputs["Output"]


@pipeline
def returned_artifact():
    copy(data=returned(text="it").output)


@pipeline
def constant_of_each_kind():
    back(l=[], d={"a": [{"b": "c"}]})
    flip(x=False)
    number(x=1e-7)
    add(a=-3, b=0)
    say(text="")


def workspace_pipeline() -> Any:
    """Tasks that share a folder: the pipeline asks for it in its configuration."""
    config = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi"))

    @dsl.pipeline(name="workspace", pipeline_config=config)
    def workspace():
        path = dsl.WORKSPACE_PATH_PLACEHOLDER + "/words"
        append(path=path, text="b").after(append(path=path, text="a"))

    return workspace


PIPELINES["workspace"] = workspace_pipeline()


@pipeline
def failing():
    say(text=fail(text="boom").output)


@pipeline
def if_else(x: int = 3):
    with dsl.If(x > 5):
        say(text="more")
    with dsl.Else():
        say(text="less")


@dsl.pipeline
def choosing_pipeline(x: int):
    with dsl.If(x > 5):
        say(text="more")


@pipeline
def if_in_pipeline():
    choosing_pipeline(x=1)


def main(folder: Path) -> None:
    """Compile all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in PIPELINES.items():
        compiler.Compiler().compile(made, str(folder / f"{name}.yaml"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
