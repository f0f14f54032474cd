"""A package as an Argo workflow: a template for each task, all data in parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.e2e.servers.kfp_node import expressions, platforms, pods
from tests.e2e.servers.kfp_node.expressions import ARTIFACT, of_task, text
from tests.kfp_server import parameters
from tests.kfp_server.errors import unsupported
from tests.kfp_server.values import Item

DEFAULT_ROOT = "s3://mlpipeline/v2/artifacts"
_CACHE = "s3://mlpipeline/cache"
_SUCCEEDED = ("Succeeded", "Skipped")
_ENDED = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted")


@dataclass
class Compiler:
    """Makes the workflow of one run; `paths` tells afterwards which template is which task."""

    run: Item
    spec: Item
    #: A retried run takes what its first try stored.
    retried: bool = False
    templates: list[Item] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)

    def workflow(self, name: str) -> Item:
        """The whole; raises Refused (code 12) for what this node cannot run."""
        self._check()
        values = parameters.filled(self.spec, self.run["runtime_config"].get("parameters") or {})
        given = {key: text(value) for key, value in values.items()}
        root = self._pipeline["root"]
        self.templates.append(self._dag("root", "root", root, dict.fromkeys(given, ""), set()))
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name, "labels": {"pipeline/runid": self.run["run_id"]}},
            "spec": {
                "entrypoint": "root",
                "serviceAccountName": self.run["service_account"],
                "arguments": {
                    "parameters": [{"name": key, "value": value} for key, value in given.items()]
                },
                "templates": self.templates,
            },
        }

    @property
    def _pipeline(self) -> Item:
        return parameters.pipeline_of(self.spec)

    def _check(self) -> None:
        if not re.fullmatch(r"2\.\d+\.\d+", str(self._pipeline.get("schemaVersion", ""))):
            raise unsupported("runs packages of schema 2")
        if "deploymentSpec" not in self._pipeline:
            raise unsupported("runs packages with executors only")

    def _dag(
        self, name: str, path: str, component: Item, names: dict[str, str], collected: set[str]
    ) -> Item:
        """The template of a pipeline or a group; `names` are its inputs that have a value."""
        self.paths[name] = path
        tasks = component["dag"]["tasks"]
        loops = {key for key, task in tasks.items() if "parameterIterator" in task}
        made = [
            self._task(key, task, f"{path}/{key}", names, collected, loops)
            for key, task in tasks.items()
        ]
        last = [key for key, task in tasks.items() if _is_exit(task)]
        dag: Item = {"tasks": made}
        if last:
            # Else what failed would be forgotten once the exit task has succeeded.
            dag |= {"target": " ".join(tasks), "failFast": False}
        return {
            "name": name,
            "inputs": {"parameters": [{"name": key} for key in names]},
            "outputs": {"parameters": self._outputs(component)},
            "dag": dag,
        }

    def _outputs(self, component: Item) -> list[Item]:
        told, found = component["dag"].get("outputs", {}), []
        for key, value in told.get("parameters", {}).items():
            if "valueFromParameter" not in value:
                raise unsupported("has no dsl.OneOf")
            source = value["valueFromParameter"]
            found.append((key, source["producerSubtask"], source["outputParameterKey"]))
        for key, value in told.get("artifacts", {}).items():
            selectors = value.get("artifactSelectors", [])
            if len(selectors) != 1:
                raise unsupported("has no dsl.OneOf")
            source = selectors[0]
            found.append(
                (ARTIFACT + key, source["producerSubtask"], ARTIFACT + source["outputArtifactKey"])
            )
        return [
            {"name": key, "valueFrom": {
                "parameter": of_task(task, output)}}
            for key, task, output in found
        ]  # fmt: skip

    def _task(
        self, key: str, task: Item, path: str, names: dict[str, str], collected: set[str],
        loops: set[str],
    ) -> Item:  # fmt: skip
        if "artifactIterator" in task:
            raise unsupported(f"does not loop over artifacts: {key}")
        component = self._pipeline["components"][task["componentRef"]["name"]]
        arguments = self._arguments(task, component, names)
        if label := component.get("executorLabel"):
            arguments |= platforms.arguments(
                self._platform(label), task.get("inputs", {}).get("parameters", {}), names
            )
        loop = task.get("parameterIterator")
        if loop:
            arguments[loop["itemInput"]] = "{{item}}"
        inner = {
            name
            for name, value in task.get("inputs", {}).get("parameters", {}).items()
            if value.get("taskOutputParameter", {}).get("producerTask") in loops
            or value.get("componentInputParameter") in collected
        }
        template = f"t{len(self.paths)}-{key}"[:60]
        made = {
            "name": key,
            "template": template,
            "arguments": {
                "parameters": [{"name": n, "value": value} for n, value in arguments.items()]
            },
        }
        states = _ENDED if _is_exit(task) else _SUCCEEDED
        if before := task.get("dependentTasks", []):
            made["depends"] = " && ".join(
                "(" + " || ".join(f"{one}.{state}" for state in states) + ")" for one in before
            )
        if words := task.get("triggerPolicy", {}).get("condition"):
            types = component.get("inputDefinitions", {}).get("parameters", {})
            made["when"] = expressions.condition(
                words, task.get("inputs", {}).get("parameters", {}), types
            )
        if loop:
            made["withParam"] = self._items(loop, task, names)
        self._template(template, path, task, component, dict.fromkeys(arguments, ""), inner)
        return made

    def _items(self, loop: Item, task: Item, names: dict[str, str]) -> str:
        items = loop["items"]
        if "raw" in items:
            return str(items["raw"])
        inputs = task["inputs"]["parameters"]
        found = expressions.parameter(inputs[items["inputParameter"]], inputs, names)
        if found is None:
            raise unsupported("loops over what is given only")
        return found

    def _arguments(self, task: Item, component: Item, names: dict[str, str]) -> dict[str, str]:
        given = task.get("inputs", {})
        inputs = given.get("parameters", {})
        found = {key: expressions.parameter(value, inputs, names) for key, value in inputs.items()}
        arguments = {key: value for key, value in found.items() if value is not None}
        defined = component.get("inputDefinitions", {})
        for key, definition in defined.get("parameters", {}).items():
            if key not in arguments and "defaultValue" in definition:
                arguments[key] = text(definition["defaultValue"])
        for key, value in given.get("artifacts", {}).items():
            source = value.get("componentInputArtifact")
            if source is None or ARTIFACT + source in names:
                arguments[ARTIFACT + key] = expressions.artifact(value)
        return arguments

    def _template(
        self, name: str, path: str, task: Item, component: Item, names: dict[str, str],
        collected: set[str],
    ) -> None:  # fmt: skip
        self.paths[name] = path
        if "dag" in component:
            made = self._dag(name, path, component, names, collected)
            if limit := task.get("iteratorPolicy", {}).get("parallelismLimit"):
                raise unsupported(f"has no limit of {limit} to a loop's parallelism")
        else:
            label = component["executorLabel"]
            made = pods.template(
                name, component, self._pipeline["deploymentSpec"]["executors"][label],
                self._platform(label), names=names, collected=collected,
                root="/".join((self._root, *path.split("/")[1:])),
                cache=self.retried or self._caches(task), run_id=self.run["run_id"],
                cache_root=_CACHE if self._caches(task) else f"{self._root}/retries",
            )  # fmt: skip
        if retry := task.get("retryPolicy"):
            made["retryStrategy"] = _retry(retry)
        self.templates.append(made)

    def _caches(self, task: Item) -> bool:
        return bool(task.get("cachingOptions", {}).get("enableCache"))

    @property
    def _root(self) -> str:
        root = self.run["runtime_config"].get("pipeline_root") or DEFAULT_ROOT
        return f"{root.rstrip('/')}/{self._pipeline['pipelineInfo']['name']}/{self.run['run_id']}"

    def _platform(self, label: str) -> Item:
        platforms = self.spec.get("platform_spec", {}).get("platforms", {})
        executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        found: Item = executors.get(label, {})
        return found


def _is_exit(task: Item) -> bool:
    found = task.get("triggerPolicy", {}).get("strategy")
    return bool(found == "ALL_UPSTREAM_TASKS_COMPLETED")


def _retry(policy: Item) -> Item:
    made: Item = {"limit": int(policy.get("maxRetryCount") or 0), "retryPolicy": "Always"}
    if duration := policy.get("backoffDuration"):
        made["backoff"] = {
            "duration": duration, "factor": int(policy.get("backoffFactor") or 2),
            "maxDuration": policy.get("backoffMaxDuration") or "3600s",
        }  # fmt: skip
    return made
