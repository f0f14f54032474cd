"""What kfp.local (2.16.1) does with the pipelines that it runs wrong, or cannot run.

Seen, not read: the test asserts that it still does precisely this, so that a kfp in which one of
them is mended fails the test, and the pipeline then belongs to those on which both agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wrong:
    """What is wrong, and what shows it.

    Attributes:
        why: in words.
        error: what the pipeline ends with; empty: it "succeeds".
        warning: of what it warns.
        tasks: the tasks that it runs, by component, and what they give; None: not always the same.
        among: one of them, where that is enough.
    """

    why: str
    error: str = ""
    warning: str = ""
    tasks: list[list[Any]] | None = None
    among: list[Any] | None = None


_DOCKER = Wrong(
    "container components need Docker",
    "RuntimeError: The SubprocessRunner only supports running Lightweight Python Components. "
    "You are attempting to run a Container Component.",
)


def _collected(loop: str) -> Wrong:
    return Wrong("dsl.Collected of a loop is not known", f"KeyError: 'for-loop-{loop}'", tasks=[])


def _failed(pipeline: str, task: str) -> str:
    return (
        f"RuntimeError: Pipeline '{pipeline}' finished with status FAILURE. "
        f"Inner task failed: {task}."
    )


def _unevaluated(condition: str, *tasks: list[Any]) -> Wrong:
    return Wrong(
        "no condition can be evaluated, and one that cannot be is false",
        warning=f"Condition evaluation failed for \"{condition}\": name 'inputs' is not defined",
        tasks=list(tasks),
    )


def _unresolved(channel: str, *tasks: list[Any]) -> Wrong:
    return Wrong(
        "a named output, or a loop's item, is not found by a condition, which then is false",
        warning=f"Could not resolve channel reference: pipelinechannel--{channel}",
        tasks=list(tasks),
    )


_NULL = Wrong("an optional input of None is refused", "ValueError: Unknown value type: ", tasks=[])

WRONG_THERE = {
    "artifacts": Wrong(
        "an integer in an artifact's metadata becomes a float",
        tasks=[
            ["upper", {"Output": "ABC3.0", "copy": ["system.Dataset", {}, "ABC"]}],
            ["upper", {"Output": "ABCNone", "copy": ["system.Dataset", {}, "ABC"]}],
            ["write", {"data": ["system.Dataset", {"length": 3.0}, "abc"]}],
        ],
    ),
    "bare_if_named": _unresolved(
        "two-flag", ["two", {"n": 0, "flag": False}], ["two", {"n": 20, "flag": True}]
    ),
    "conditions": _unevaluated(
        "inputs.parameter_values['pipelinechannel--f'] >= 0.5", ["flip", {"Output": True}]
    ),
    "container_model": _DOCKER,
    "container_outputs": _DOCKER,
    "containers": _DOCKER,
    "exit_handler_bad": Wrong(
        "the exit task does not run",
        _failed("exit-handler-bad", "'fail' inside 'exit-handler-1'"),
    ),
    "exit_handler_good": Wrong(
        "the exit task does not run",
        "NotImplementedError: 'dsl.ExitHandler' is not yet support for local execution.",
        tasks=[["say", {"Output": "x"}]],
    ),
    "format_string": Wrong(
        "integers in a format string become floats",
        tasks=[["add", {"Output": 5}], ["say", {"Output": "hi Ada 3.0 5.0"}]],
    ),
    "if_elif_else": Wrong(
        "all branches run, and OneOf is not known",
        "NotImplementedError: 'dsl.OneOf' is not yet supported in local execution.",
        tasks=[
            ["add", {"Output": 3}],
            ["say", {"Output": "else"}],
            ["say", {"Output": "more"}],
            ["say", {"Output": "one"}],
        ],
    ),
    "if_else": Wrong(
        "both branches run",
        tasks=[["say", {"Output": "less"}], ["say", {"Output": "more"}]],
    ),
    "if_in_pipeline": Wrong(
        "a condition within a nested pipeline is passed over", tasks=[["say", {"Output": "more"}]]
    ),
    "ignore_failure": Wrong(
        "a failed task ends the pipeline, whatever ignores its failure",
        _failed("ignore-failure", "'fail'"),
        tasks=[["fail", "failed"]],
    ),
    "importer": _DOCKER,
    "loop_artifacts": _collected("2"),
    "loop_condition": _unresolved("loop-item-param-1"),
    "loop_constant": _collected("2"),
    "loop_empty": _collected("1"),
    "loop_nested": _collected("2"),
    "loop_output": _collected("1"),
    "loop_parameter": _collected("1"),
    "loop_records": _collected("2"),
    "loop_records_output": _collected("1"),
    "named_outputs": _unresolved(
        "two-flag", ["add", {"Output": 20}], ["two", {"n": 20, "flag": True}]
    ),
    "nested": Wrong(
        "integers in a format string become floats",
        among=["write", {"data": ["system.Dataset", {"length": 4.0}, "x3.0"]}],
    ),
    "nested_if": _unevaluated("int(inputs.parameter_values['pipelinechannel--i']) > 1"),
    "nested_in_loop": _collected("2"),
    "nested_optional": _NULL,
    "not_a_number": Wrong(
        "NaN is passed on, which no JSON can hold", tasks=[["missing", {"Output": "nan"}]]
    ),
    "one_of_artifact": Wrong(
        "OneOf is not known for artifacts either",
        "ValueError: Expected 1 artifact in ArtifactSelectorSpec. Got: 2",
    ),
    "optional": _NULL,
    "optional_artifact": Wrong(
        "an optional artifact that is not given is looked for", "KeyError: 'data'"
    ),
    "retry": Wrong(
        "a failed task is not tried again",
        _failed("retry", "'fail'"),
        tasks=[["fail", "failed"]],
    ),
    "run_names": Wrong(
        "the placeholder of the job's resource name is not known",
        "IndexError: list index out of range",
    ),
    "types": _NULL,
    "types_whole": Wrong(
        "integers within lists and dicts become floats",
        among=[
            "show",
            {
                "Output": '[[1, 1.0, true, "s", [1.0, {"x": 2.0}], {"a": 1.0}, "o"], ["int", '
                '"float", "bool", "str", ["float", {"x": "float"}], {"a": "float"}, "str"]]'
            },
        ],
    ),
    "variable_python": Wrong(
        "a task's environment variables are not set",
        _failed("variable-python", "'greeting'"),
        tasks=[["greeting", "failed"]],
    ),
    "variables": _DOCKER,
}
