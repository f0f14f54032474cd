"""The InferenceService manifest of a release, made or updated.

An existing manifest is updated by replacing the text of single values, so that comments, order and
keys of which ctflow knows nothing survive byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctflow.lib import yaml_text
from ctflow.model import OWN, STANDARD, Release, is_local_image
from ctflow.release.manifest_shape import (
    CONTAINER,
    STORAGE,
    container,
    model,
    to_container,
    to_model,
)
from ctflow.release.manifest_text import scalar, set_value

FRESH_KUSTOMIZATION = """\
# Point Argo CD, Flux or `kubectl apply -k` at this folder.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - inferenceservice.yaml
"""


def wanted_values(release: Release) -> dict[tuple[str, ...], str]:
    """The manifest's values that a release decides, by their path."""
    notes = ("metadata", "annotations")
    values: dict[tuple[str, ...], str] = {
        (*notes, "ctflow.dev/commit"): release.commit,
        (*notes, "ctflow.dev/model-digest"): release.model.digest,
        (*notes, "ctflow.dev/run"): release.run,
    }
    if image := image_in(release):
        own = ("spec", "predictor", "containers", f"[{CONTAINER}]")
        return values | {
            (*own, "image"): image,
            (*own, "env", f"[{STORAGE}]", "value"): release.model.uri,
        }
    model = ("spec", "predictor", "model")
    values |= {
        (*model, "modelFormat", "name"): release.model.format,
        (*model, "storageUri"): release.model.uri,
    }
    return values | ({(*model, "protocolVersion"): "v2"} if _v2_only(release) else {})


def image_in(release: Release) -> str:
    """The predictor's image, where a cluster can pull it; else the manifest names the format."""
    image = release.serving.image if release.serving else ""
    return "" if is_local_image(image) else image


def _v2_only(release: Release) -> bool:
    """Whether KServe finds no server for the model unless the manifest names the protocol."""
    runtime = release.serving.runtime if release.serving else OWN
    return runtime in STANDARD and STANDARD[runtime].v2_only


def _protocol(release: Release) -> str:
    """The protocol in a new manifest; empty: none is named.

    KServe's own servers of a standard format answer both protocols, and are chosen where none is
    named. With ``v2`` KServe prefers MLServer, which does not answer V1.
    """
    own = release.serving is None or release.serving.runtime == OWN
    return "v2" if own or _v2_only(release) else ""


def odd_protocol(release: Release, manifest: str) -> str:
    """What a person should know of ``protocolVersion`` in a manifest of theirs; empty: nothing."""
    if _protocol(release):
        return ""
    found: Any = read_values(manifest)
    for key in ("spec", "predictor", "model"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict) or found.get("protocolVersion") != "v2" or "runtime" in found:
        return ""
    return (
        "the manifest says protocolVersion v2, for which KServe chooses MLServer, and that does not"
        " answer V1: remove the line, and KServe's server of the format answers both"
    )


def render(release: Release, existing: str | None, where: str) -> str:
    """The manifest of ``release``: ``existing`` with its values replaced, or a new one.

    Raises:
        ConfigError: ``existing`` is not YAML, or has no place for a value.
    """
    text = existing if existing is not None else _fresh(release)
    uri, image = release.model.uri, image_in(release)
    if image:
        text = to_container(text, image, uri, where)
    else:
        text = to_model(text, release.model.format, uri, _protocol(release), where)
    for path, value in wanted_values(release).items():
        text = set_value(text, path, value, where)
    return text


def _fresh(release: Release) -> str:
    notes = "".join(
        f"    {path[-1]}: {scalar(value)}\n"
        for path, value in wanted_values(release).items()
        if path[0] == "metadata"
    )
    uri, image = release.model.uri, image_in(release)
    ours = "image and STORAGE_URI" if image else "model's format and storageUri"
    if image:
        served = f"    containers:\n{container(image, uri, release.project, ' ' * 6)}"
    else:
        served = model(release.model.format, uri, _protocol(release), " " * 4)
    return f"""\
# The desired state of {release.environment}: ctflow writes the annotations ctflow.dev/*, the
# {ours}, and does not change anything else.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {release.project}
  annotations:
    # Always set, because KServe's default differs between its versions:
    serving.kserve.io/deploymentMode: Standard
{notes}spec:
  predictor:
{served}"""


def read_values(text: str) -> Mapping[str, Any]:
    """The manifest as plain data; empty where it is not a mapping."""
    data = yaml_text.read(text)
    return data if isinstance(data, dict) else {}
