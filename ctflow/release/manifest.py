"""The InferenceService manifest of a release, made or updated.

An existing manifest is updated by replacing the text of single values, so that comments, order and
keys of which ctflow knows nothing survive byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError
from ctflow.lib import yaml_text
from ctflow.model import OWN, STANDARD, Release

if TYPE_CHECKING:
    import yaml

#: Words of these need no quotes; digits are not among them, so that ids are always quoted alike.
_PLAIN = set("abcdefghijklmnopqrstuvwxyz-")

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
    model = ("spec", "predictor", "model")
    return {
        (*notes, "ctflow.dev/commit"): release.commit,
        (*notes, "ctflow.dev/model-digest"): release.model.digest,
        (*notes, "ctflow.dev/run"): release.run,
        (*model, "modelFormat", "name"): release.model.format,
        (*model, "storageUri"): release.model.uri,
    } | ({(*model, "protocolVersion"): "v2"} if _v2_only(release) else {})


def _v2_only(release: Release) -> bool:
    """Whether KServe finds no server for the model unless the manifest names the protocol."""
    runtime = release.serving.runtime if release.serving else OWN
    return runtime in STANDARD and STANDARD[runtime].v2_only


def _protocol(release: Release) -> str:
    """The protocol's line in a new manifest.

    KServe's own servers of a standard format answer both protocols, and are chosen where none is
    named. With ``v2`` KServe prefers MLServer, which does not answer V1.
    """
    own = release.serving is None or release.serving.runtime == OWN
    return "      protocolVersion: v2\n" if own or _v2_only(release) else ""


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
    for path, value in wanted_values(release).items():
        text = _set(text, path, value, where)
    return text


def _fresh(release: Release) -> str:
    notes = "".join(
        f"    {path[-1]}: {_scalar(value)}\n"
        for path, value in wanted_values(release).items()
        if path[0] == "metadata"
    )
    return f"""\
# The desired state of {release.environment}: ctflow writes the annotations ctflow.dev/*, the
# model's format and storageUri, and does not change anything else.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {release.project}
  annotations:
    # Always set, because KServe's default differs between its versions:
    serving.kserve.io/deploymentMode: Standard
{notes}spec:
  predictor:
    model:
      modelFormat:
        name: {_scalar(release.model.format)}
{_protocol(release)}      storageUri: {_scalar(release.model.uri)}
"""


def _set(text: str, path: tuple[str, ...], value: str, where: str) -> str:
    import yaml

    try:
        # The pure loader: its marks count characters, which is what slices need.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where} is not valid YAML: {error}", next="correct or remove it"
        ) from None
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{where}: {'.'.join(path[:depth]) or 'the document'} is not a mapping",
                next="correct it, or remove the file and promote again",
            )
        found = next((child for name, child in node.value if name.value == key), None)
        if found is None:
            return _insert(text, node, path[depth:], value, where)
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{where}: {'.'.join(path)} is not a single value", next="correct it")
    if node.value == value:
        return text
    return text[: node.start_mark.index] + _scalar(value) + text[node.end_mark.index :]


def _insert(
    text: str, node: yaml.MappingNode, rest: tuple[str, ...], value: str, where: str
) -> str:
    """Put a missing key before the mapping's first one, at the same indentation."""
    if node.flow_style or not node.value:
        raise ConfigError(
            f"{where}: {'.'.join(rest)} is missing, and ctflow cannot add it", next="add that key"
        )
    mark = node.value[0][0].start_mark
    indent = " " * mark.column
    lines = ""
    for depth, key in enumerate(rest):
        end = f" {_scalar(value)}" if depth == len(rest) - 1 else ""
        lines += f"{'' if depth == 0 else indent + '  ' * depth}{_scalar(key)}:{end}\n"
    start = int(mark.index)
    return f"{text[:start]}{lines}{indent}{text[start:]}"


def _scalar(value: str) -> str:
    """A YAML scalar that reads back as this very string."""
    plain = bool(value) and set(value) <= _PLAIN and value[0].isalpha()
    if plain and yaml_text.read(value) == value:
        return value
    import yaml

    return str(yaml.safe_dump(value, default_style='"', width=1 << 30)).strip()


def read_values(text: str) -> Mapping[str, Any]:
    """The manifest as plain data; empty where it is not a mapping."""
    data = yaml_text.read(text)
    return data if isinstance(data, dict) else {}
