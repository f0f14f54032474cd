"""KFP components that judge and propose a model inside the pipeline, in ctflow's own image.

They do what ``ctflow gate`` and ``ctflow promote`` do, where the training ran, so that no other
machine has to wait for it. Like the module ``ctflow`` this one holds to the standard library and
kfp: a pipeline may be compiled where nothing else of ctflow's is installed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["COMMIT", "PACKAGE", "gate", "promote"]

#: Parameters that a runner of ctflow's fills in, where a pipeline has them.
COMMIT, PACKAGE = "ctflow_commit", "ctflow_package"
#: The key of ctflow's own image among the images of ``ctflow.image``; no step can be called so.
OWN_IMAGE = "ctflow/ctflow"
#: Where ctflow's own image is published.
RELEASED_IMAGE = "ghcr.io/ctflow/ctflow"
_IMAGES_VARIABLE = "CTFLOW_IMAGES"
#: Variables that hold what git and the model store want to know, by the key in a secret.
_GIT = {"token": "CTFLOW_GIT_TOKEN"}
_STORE = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}


def gate(
    outputs: Mapping[str, Any],
    *,
    environment: str = "",
    repository: str = "",
    folder: str = "",
    commit: Any = "",
    package: Any = "",
    parameters: Any = None,
    golden: bool = True,
    git_secret: str = "",
    store_secret: str = "",
) -> Any:
    """Judge the run's model; a task with the outputs ``decision`` and ``evidence``.

    ``decision`` is ``promote``, ``hold`` or ``reject``. ``evidence`` says everything that a
    promotion needs; it is kept in the model store too, with the model and its predictions.

    Args:
        outputs: the outputs of tasks that the gate's rules and ``model.artifact`` name, such as
            ``{"train.model": trained.outputs["model"], ...}``.
        environment: which one; default: the first of ctflow.yaml.
        repository: the git URL of the project, with its rules and its releases; on one machine the
            project itself is read.
        folder: the project's folder in it, where it is not the top.
        commit, package: the pipeline's parameters ``ctflow_commit`` and ``ctflow_package``, which
            ctflow fills in when it starts a run.
        parameters: the run's parameters, for the release's record.
        golden: whether the model is started and asked the golden requests. It needs the package
            index from inside the cluster.
        git_secret, store_secret: Kubernetes secrets in the run's namespace: key ``token`` for git,
            keys ``accesskey`` and ``secretkey`` for the model store.
    """
    from kfp import dsl

    names = [f"output_{number}" for number in range(len(outputs))]

    def container(given: Mapping[str, Any]) -> Any:
        words: list[Any] = []
        for name, (output, artifact) in zip(names, outputs.items(), strict=True):
            one = given[name]
            said = [_kind_of(artifact), _made_by(artifact)]
            words += ["--output", output, *said, one.path, one.uri, one.metadata]
        return dsl.ContainerSpec(
            image=_image(),
            command=["ctflow", "task", "gate"],
            args=[
                *("--run", dsl.PIPELINE_JOB_ID_PLACEHOLDER),
                *("--pipeline", dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER),
                *("--created", dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER),
                *("--repository", given["repository"]),
                *("--folder", given["folder"]),
                *("--commit", given["commit"]),
                *("--package", given["package"]),
                *("--parameters", given["parameters"]),
                *("--images", _images()),
                *("--to", given["environment"]),
                *([] if golden else ["--no-golden"]),
                *("--decision", given["decision"]),
                *("--evidence", given["evidence"].path),
                *words,
            ],
        )

    texts = {
        "repository": repository, "folder": folder, "commit": commit, "package": package,
        "environment": environment,
    }  # fmt: skip
    signature: dict[str, Any] = dict.fromkeys(texts, str)
    signature["parameters"] = dict
    signature |= dict.fromkeys(names, dsl.Input[dsl.Artifact])
    signature |= {"decision": dsl.OutputPath(str), "evidence": dsl.Output[dsl.Artifact]}
    task = _component(container, "gate", signature)(
        **texts,
        parameters=parameters or {},
        **dict(zip(names, outputs.values(), strict=True)),
    )
    return _secured(task, git_secret, store_secret)


def promote(
    evidence: Any,
    *,
    repository: str = "",
    folder: str = "",
    git_secret: str = "",
    store_secret: str = "",
) -> Any:
    """Propose the model that ``gate`` judged; a task with the output ``promotion``.

    Where the environment merges by itself it is merged too. The output is the promotion as JSON.

    Args:
        evidence: the output of that name of ``gate``.
    """
    from kfp import dsl

    def container(given: Mapping[str, Any]) -> Any:
        return dsl.ContainerSpec(
            image=_image(),
            command=["ctflow", "task", "promote"],
            args=[
                *("--repository", given["repository"]),
                *("--folder", given["folder"]),
                *("--evidence", given["evidence"].path),
                *("--promotion", given["promotion"].path),
            ],
        )

    signature = {
        "repository": str, "folder": str, "evidence": dsl.Input[dsl.Artifact],
        "promotion": dsl.Output[dsl.Artifact],
    }  # fmt: skip
    made = _component(container, "promote", signature)
    task = made(repository=repository, folder=folder, evidence=evidence)
    return _secured(task, git_secret, store_secret)


def _component(
    container: Callable[[Mapping[str, Any]], Any], name: str, signature: Mapping[str, Any]
) -> Any:
    """A container component with these inputs and outputs: kfp reads them from a signature."""
    from kfp import dsl

    def asked(*values: Any) -> Any:
        return container(dict(zip(signature, values, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(key, kind, annotation=one) for key, one in signature.items()]
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asked.__annotations__ = dict(signature)
    asked.__name__ = asked.__qualname__ = name
    return dsl.container_component(asked)


def _secured(task: Any, git_secret: str, store_secret: str) -> Any:
    """The task, with secrets as variables; and never from the cache: what serves may change."""
    task.set_caching_options(False)
    for secret, keys in ((git_secret, _GIT), (store_secret, _STORE)):
        if secret:
            from kfp import kubernetes

            # Optional: on one machine nothing has to hold them.
            kubernetes.use_secret_as_env(
                task, secret_name=secret, secret_key_to_env=keys, optional=True
            )
    return task


def _kind_of(artifact: Any) -> str:
    """KFP's type of an output, such as ``system.Model``."""
    return str(getattr(artifact, "channel_type", "") or "system.Artifact").partition("@")[0]


def _made_by(artifact: Any) -> str:
    """The digest of what makes an output: its task's image, command and arguments.

    Only predictions that the same code made are compared. Empty where kfp does not say.
    """
    task = getattr(artifact, "task", None)
    container = getattr(task, "container_spec", None)
    if container is None:
        return ""
    words = [str(one) for one in (*(container.command or ()), *(container.args or ()))]
    text = json.dumps([str(container.image), words])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _images() -> str:
    """The steps' images, which the release names."""
    found = json.loads(os.environ.get(_IMAGES_VARIABLE, "{}"))
    return json.dumps({step: one for step, one in sorted(found.items()) if "/" not in step})


def _image() -> str:
    """ctflow's own image: as ctflow.yaml names it, else the released one of this version."""
    import ctflow

    found = json.loads(os.environ.get(_IMAGES_VARIABLE, "{}"))
    return str(found.get(OWN_IMAGE) or f"{RELEASED_IMAGE}:{ctflow.__version__}")
