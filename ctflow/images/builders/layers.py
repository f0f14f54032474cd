"""Images without a container engine: layers appended to the base's manifest in the registry.

What ko does for Go and Jib for Java: the requirements are one layer, the step's source another,
and the base's layers are not even downloaded where the registry can mount them. Formats: the OCI
image specification 1.1; a base in Docker's own formats keeps them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, CtflowError, StateError
from ctflow.images.builders.base_image import BaseImage, Contents, load_base, look_inside
from ctflow.images.builders.engine import Line, Options, Target
from ctflow.images.builders.layer import Layer, pack
from ctflow.images.builders.requirements import Wanted, names, requirements_layer
from ctflow.images.builders.simple import Recipe, read_simple_target
from ctflow.images.registry import Blob, Broken, OciRegistry, parse_reference
from ctflow.images.registry.oci import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from ctflow.steps.context import ContextFile

_LAYER_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True)
class Made:
    """An image for one platform, ready to be pushed."""

    base: BaseImage
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes
    media_type: str


class LayersEngine:
    """Implements ``Engine`` with a registry and uv alone.

    Args:
        cache: a folder of the user's for layers of requirements and what bases hold.
    """

    name = "layers"

    def __init__(self, registry: OciRegistry, cache: Path, environ: Mapping[str, str]) -> None:
        self._registry = registry
        self._cache = cache
        self._environ = environ
        self._made: dict[str, list[Made]] = {}
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """As the protocol says; the id is the manifest's digest."""
        if options.secrets:
            raise ConfigError(
                "build secrets need a container engine", next="use docker, podman or buildctl"
            )
        recipe = read_simple_target(target, options.args)
        made = []
        for platform in options.platforms or (None,):
            base = load_base(self._registry, recipe.base, platform)
            contents = look_inside(self._registry, base, self._cache / "bases")
            layers = self._layers(target, recipe, base, contents, work, line)
            made.append(_assemble(base, recipe, layers, options))
            line(f"{base.platform}: {len(layers)} layers on {base.reference}")
        self._made[target.reference] = made
        return _digest(made[0].manifest)

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """As the protocol says."""
        made = self._made.pop(target.reference)
        for one in made:
            self._push(target, one, line)
        with suppress(Broken):  # a damaged tag: pushing mends it
            if self._registry.digest(target.reference) is not None:
                return  # another machine was first: its image is the image
        if len(made) == 1:
            self._registry.push_manifest(target.reference, made[0].media_type, made[0].manifest)
            return
        entries = []
        for one in made:
            where = f"{target.name}@{_digest(one.manifest)}"
            self._registry.push_manifest(where, one.media_type, one.manifest)
            system, _, machine = one.base.platform.partition("/")
            entries.append(
                _descriptor(one.media_type, _digest(one.manifest), len(one.manifest))
                | {"platform": {"architecture": machine, "os": system}}
            )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self._registry.push_manifest(target.reference, OCI_INDEX, _json(index))

    def find(self, target: Target) -> str | None:
        """As the protocol says: it has no store."""
        return None

    def _layers(
        self,
        target: Target,
        recipe: Recipe,
        base: BaseImage,
        contents: Contents,
        work: Path,
        line: Line,
    ) -> tuple[Layer, ...]:
        for path in [one.path for one in recipe.files]:
            for link in contents.links:
                if path.startswith(f"{link}/"):
                    raise ConfigError(
                        f"step {target.step}: /{link} is a link in the base image",
                        next=f"copy to /{contents.links[link].strip('/')} instead",
                    )
        found = []
        if recipe.requirements:
            line(f"installing {names(recipe.requirements)} for {base.platform}")
            wanted = Wanted(recipe.requirements, contents, base.platform)
            try:
                layer = requirements_layer(wanted, self._cache / "layers", self._environ)
            except CtflowError as error:
                raise type(error)(
                    f"step {target.step}: {error.fact}",
                    cause=error.cause, next=error.next, details=error.details,
                ) from None  # fmt: skip
            found += [layer] if layer is not None else []

        def changed(one: ContextFile) -> Exception:
            return StateError(
                f"step {target.step}: {one.source} changed while it was read",
                next="run the same command again",
            )

        file = work / f"source-{base.platform.replace('/', '-')}.tar.gz"
        made = [path for path in recipe.made if path and path not in contents.folders]
        if recipe.files or made:
            found.append(pack(recipe.files, file, contents.folders, made, changed=changed))
        return tuple(found)

    def _push(self, target: Target, made: Made, line: Line) -> None:
        base = made.base
        same = base.reference.host == parse_reference(target.name).host
        for descriptor in base.layers:
            if descriptor.get("urls"):
                continue  # a foreign layer: whoever runs the image gets it from there
            digest, size = str(descriptor["digest"]), int(descriptor["size"])
            if same:
                blob = self._remote(base, digest, size)
                self._registry.push_blob(target.name, blob, mount=base.reference.repository)
            elif not self._registry.has_blob(target.name, digest):
                line(f"copying {digest[:19]} of the base image, {size >> 20} MiB")
                self._registry.push_blob(target.name, self._remote(base, digest, size))
        for layer in made.layers:
            self._send(target, layer, line)
        config = Blob.of_bytes(made.config, _digest(made.config))
        self._registry.push_blob(target.name, config)

    def _send(self, target: Target, layer: Layer, line: Line) -> None:
        """Push a layer; a repository of the registry that got it before is mounted from."""
        where = parse_reference(target.name)
        with self._lock:
            own = self._locks.setdefault(f"{where.host} {layer.digest}", threading.Lock())
        # Steps with the same requirements wait for the first of them to send the layer.
        with own:
            note = self._cache / "pushed" / f"{layer.digest[7:]}-{where.host.replace(':', '-')}"
            before = note.read_text(encoding="utf-8") if note.exists() else None
            blob = Blob.of_file(Path(layer.file), layer.digest)
            sent = self._registry.push_blob(target.name, blob, mount=before)
            if sent or before is None:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(where.repository, encoding="utf-8")
        line(f"layer {layer.digest[:19]}: {'pushed' if sent else 'already there'}")

    def _remote(self, base: BaseImage, digest: str, size: int) -> Blob:
        """A blob of the base, fetched when it has to be sent after all."""

        def fetch() -> Any:
            spool = tempfile.TemporaryFile(dir=self._cache)  # noqa: SIM115 (the sender closes it)
            for chunk in self._registry.stream(str(base.reference), digest):
                spool.write(chunk)
            spool.seek(0)
            return spool

        return Blob(digest, size, fetch)


def _assemble(base: BaseImage, recipe: Recipe, layers: tuple[Layer, ...], options: Options) -> Made:
    media_type = (
        base.manifest.media_type if base.manifest.media_type in _LAYER_TYPES else (OCI_MANIFEST)
    )
    config = _json(_config(base, recipe, layers, options))
    manifest = copy.deepcopy(dict(base.manifest.body))
    manifest.pop("annotations", None)
    manifest["mediaType"] = media_type
    manifest["config"] = {
        **manifest["config"], "digest": _digest(config), "size": len(config),
    }  # fmt: skip
    kind = _LAYER_TYPES[media_type]
    manifest["layers"] = [
        *manifest["layers"], *(_descriptor(kind, one.digest, one.size) for one in layers)
    ]  # fmt: skip
    if media_type == OCI_MANIFEST and options.labels:
        manifest["annotations"] = dict(options.labels)
    return Made(base, layers, config, _json(manifest), media_type)


def _config(
    base: BaseImage, recipe: Recipe, layers: tuple[Layer, ...], options: Options
) -> dict[str, Any]:
    config = copy.deepcopy(dict(base.config))
    moment = datetime.fromtimestamp(options.created or 0, timezone.utc)
    created = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    config["created"] = created
    for key in ("container", "container_config", "docker_version", "id", "parent"):
        config.pop(key, None)
    inner = config.setdefault("config", {}) or {}
    config["config"] = inner
    env = dict(word.partition("=")[::2] for word in inner.get("Env") or [])
    inner["Env"] = [f"{name}={value}" for name, value in {**env, **recipe.env}.items()]
    if recipe.workdir is not None:
        inner["WorkingDir"] = recipe.workdir
    if recipe.user is not None:
        inner["User"] = recipe.user
    if recipe.entrypoint is not None:
        inner["Entrypoint"] = list(recipe.entrypoint)
        inner.pop("Cmd", None)  # as docker does: the base's command was for its own entry point
    if recipe.cmd is not None:
        inner["Cmd"] = list(recipe.cmd)
    labels = {**(inner.get("Labels") or {}), **recipe.labels, **options.labels}
    if labels:
        inner["Labels"] = labels
    if recipe.ports:
        inner["ExposedPorts"] = {
            **(inner.get("ExposedPorts") or {}),
            **{p: {} for p in recipe.ports},
        }
    root = config.setdefault("rootfs", {"type": "layers", "diff_ids": []})
    root["diff_ids"] = [*root["diff_ids"], *(one.diff for one in layers)]
    history = list(config.get("history") or [])
    config["history"] = [
        *history, *({"created": created, "created_by": "ctflow build"} for _ in layers)
    ]  # fmt: skip
    return config


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
