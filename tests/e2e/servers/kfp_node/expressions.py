"""Values and conditions of a package as Argo's own, which knows parameters as text only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.kfp_server.errors import unsupported

#: Before the names of parameters that carry an artifact.
ARTIFACT = "artifact--"
_IN_CONSTANT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_IN_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
_SELECTED = re.compile(r'parseJson\(string_value\)\["([^"]+)"\]')
_TYPED = {
    "NUMBER_DOUBLE": "asFloat({})",
    "NUMBER_INTEGER": "asInt({})",
    "BOOLEAN": "({} == 'true')",
}


def of_input(name: str) -> str:
    """An input of the template, as Argo writes it."""
    return f"{{{{inputs.parameters.{name}}}}}"


def of_task(task: str, output: str) -> str:
    """An output of another task, as Argo writes it."""
    return f"{{{{tasks.{task}.outputs.parameters.{output}}}}}"


def text(value: Any) -> str:
    """A value as a command is given it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def parameter(
    value: Mapping[str, Any], inputs: Mapping[str, Any], names: Mapping[str, str]
) -> str | None:
    """An argument of a task; None for an optional input that nobody gave.

    `inputs` are the arguments of the same task, which a constant may name; `names` the enclosing
    task's inputs that have a value, as the template has them.
    """
    if "runtimeValue" in value:
        return _constant(value["runtimeValue"].get("constant", ""), inputs, names)
    if "componentInputParameter" in value:
        name = value["componentInputParameter"]
        if name not in names:
            return None
        selector = value.get("parameterExpressionSelector", "")
        if not selector:
            return of_input(name)
        match = _SELECTED.fullmatch(selector)
        if match is None:
            raise unsupported(f"does not select by {selector!r}")
        return f"{{{{=jsonpath(inputs.parameters['{name}'], '$.{match[1]}')}}}}"
    if "taskOutputParameter" in value:
        made = value["taskOutputParameter"]
        return of_task(made["producerTask"], made["outputParameterKey"])
    if "taskFinalStatus" in value:
        task = value["taskFinalStatus"]["producerTask"]
        state = f"{{{{=sprig.upper(tasks['{task}'].status)}}}}"
        return json.dumps({
            "state": state, "pipelineTaskName": task, "pipelineJobResourceName": "", "error": {},
        })  # fmt: skip
    raise unsupported(f"does not know the value {sorted(value)}")


def _constant(constant: Any, inputs: Mapping[str, Any], names: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        found = parameter(inputs[match[1]], inputs, names)
        return "" if found is None else found

    result = _IN_CONSTANT.sub(one, text(constant))
    if "{{$" in result:
        raise unsupported(f"does not fill {result[:80]!r}")
    return result


def artifact(value: Mapping[str, Any]) -> str:
    """An artifact that a task is given: the parameter that carries it."""
    if "taskOutputArtifact" in value:
        made = value["taskOutputArtifact"]
        return of_task(made["producerTask"], ARTIFACT + made["outputArtifactKey"])
    return of_input(ARTIFACT + str(value["componentInputArtifact"]))


def condition(words: str, inputs: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """A `dsl.If` as an expression of Argo's."""

    def one(match: re.Match[str]) -> str:
        value = inputs[match[1]]
        if "runtimeValue" in value:
            found = json.dumps(text(value["runtimeValue"]["constant"]))
        elif "componentInputParameter" in value:
            found = f"inputs.parameters['{value['componentInputParameter']}']"
        else:
            made = value["taskOutputParameter"]
            task, key = made["producerTask"], made["outputParameterKey"]
            found = f"tasks['{task}'].outputs.parameters['{key}']"
        kind = types.get(match[1], {}).get("parameterType", "")
        return _TYPED.get(kind, "{}").format(found)

    # Each value has its type already.
    words = re.sub(r"\b(int|double|string)\(", "(", words)
    return "{{=" + _IN_CONDITION.sub(one, words) + "}} == true"
