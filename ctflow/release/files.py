"""A release as files of git: their names, how they are written and read, and the holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ctflow.config.values import check_name
from ctflow.errors import ConfigError, GateHeld, StateError
from ctflow.lib import yaml_text
from ctflow.lib.digests import short
from ctflow.lib.quick import dataclass
from ctflow.lib.secrets import KNOWN
from ctflow.lib.yaml_text import NotYaml
from ctflow.model import Hold, Release, ServingRef, from_json, to_json
from ctflow.ports import Scm
from ctflow.release.manifest import FRESH_KUSTOMIZATION, read_values, render
from ctflow.release.paths import SERVING as SERVING
from ctflow.release.paths import folder as folder
from ctflow.release.paths import path as path
from ctflow.release.serving import own_serving

if TYPE_CHECKING:
    from ctflow.config.project import Project

RELEASE = "release.yaml"
MANIFEST = "inferenceservice.yaml"
REPORT = "report.md"
HOLDS = "holds.yaml"
APPROVALS = "approvals.yaml"
#: Lines of commit messages by which other stages find what they need again.
RUN_LINE = "Ctflow-Run: "
ID_LINE = "Ctflow-Promotion: "
HOLD_LINE = "Ctflow-Hold: "
#: How many commits of a proposal's branch are looked through for ctflow's own.
OWN_WITHIN = 50
KUSTOMIZATION = "kustomization.yaml"

#: The keys of a kustomization that says nothing.
_BARE = {"apiVersion", "kind", "resources"}


def branch(project: str, environment: str) -> str:
    """The branch that proposes a change of it."""
    return f"ctflow/{environment}/{project}"


@dataclass(frozen=True)
class Identity:
    """What makes two releases the same to whoever is served by them.

    ``serving`` is the digest of what serves, the image too; empty where it is not known any more.
    ``code`` is that of its files alone.
    """

    model: str
    format: str
    serving: str
    code: str


def identity_of(release: Release) -> Identity:
    """What a release says that it serves."""
    return identity_with(release.model.digest, release.model.format, release.serving)


def identity_with(model: str, format: str, serving: ServingRef | None) -> Identity:
    """A model, served by that."""
    found = (serving.identity, serving.digest) if serving else ("", "")
    return Identity(model, format, *found)


def identity(release: Release | None, project: Project, scm: Scm) -> Identity | None:
    """What a release serves; None for none.

    A release of an older version of ctflow names no serving code: it is that of its run's commit.
    """
    if release is None:
        return None
    found = identity_of(release)
    if not found.serving and scm.has(release.commit):
        with suppress(StateError):
            ref, _ = own_serving(scm, release.commit, project, release.environment)
            found = replace(found, serving=ref.digest, code=ref.digest)
    return found


def merged_by(scm: Scm, proposal: str, tip: str, environment: str) -> str | None:
    """The commit of the default branch that brought a proposal's release in, or None.

    However it came: by a merge, a squash, a rebase or by hand, its ``release.yaml`` is there.

    Args:
        proposal: a commit of the proposal's branch.
        tip: the default branch's commit.
    """
    where = path(environment, RELEASE)
    file = scm.files(proposal, folder(environment)).get(where)
    start = scm.merge_base(tip, proposal)
    if file is None or start is None:
        return None
    if start == proposal:
        return scm.written_by(tip, where, file) or proposal
    if scm.files(start, folder(environment)).get(where) == file:
        return start  # it proposes nothing any more
    return scm.written_by(tip, where, file, since=start)


def held(environment: str, hold: Hold) -> GateHeld:
    """What to say of a model that is on hold."""
    return GateHeld(
        f"model {short(hold.digest)} is on hold for {environment} ({hold.reason})",
        next=f"to allow it, remove its entry from {path(environment, HOLDS)} and commit",
    )


def without_secrets(release: Release) -> Release:
    """The release without the secrets that a parameter or a person's or step's words may hold.

    Only those: a digest or name with a short secret's letters in it must stay what it is, and a
    release is compared and found again by them.
    """
    verdict, mask = release.verdict, KNOWN.masked
    verdict = replace(
        verdict,
        reasons=tuple(replace(one, text=mask(one.text)) for one in verdict.reasons),
        notes=mask(verdict.notes),
        override=mask(verdict.override),
        trial=mask(verdict.trial),
    )
    return replace(release, parameters=mask(release.parameters), verdict=verdict)


def reason_of(words: str) -> str:
    """A person's reason as it is kept in git: one line, without secrets."""
    return " ".join(KNOWN.mask(words).split())


def write(
    release: Release, manifest: bytes | None, kustomization: bytes | None
) -> dict[str, bytes]:
    """The files of a release but its report, given the manifest and kustomization of now.

    Raises:
        ConfigError: the present manifest cannot be updated.
    """
    env = release.environment
    text = None if manifest is None else manifest.decode("utf-8")
    head = (
        "# Written by ctflow: the release that this environment should serve, and its evidence.\n"
    )
    files = {
        path(env, MANIFEST): render(release, text, path(env, MANIFEST)).encode(),
        path(env, RELEASE): (head + yaml_text.write(to_json(_without_looks(release)))).encode(),
    }
    if kustomization is None or _is_placeholder(kustomization):
        files[path(env, KUSTOMIZATION)] = FRESH_KUSTOMIZATION.encode()
    return files


def _without_looks(release: Release) -> Release:
    """``looks.json`` beside it holds them, so that a rollback does not take them back."""
    return replace(release, verdict=replace(release.verdict, looks={}))


def _is_placeholder(kustomization: bytes) -> bool:
    """Whether it is as a new project has it, listing nothing: ours to fill. A person's stays."""
    try:
        found = yaml_text.read(kustomization)
    except NotYaml:
        return False
    if found is None:
        return True
    listed = isinstance(found, dict) and found.get("resources")
    return isinstance(found, dict) and not listed and found.keys() <= _BARE


def unlisted(kustomization: bytes | None, environment: str) -> str:
    """What a person has to add to a kustomization of their own; empty: nothing."""
    if kustomization is None or _is_placeholder(kustomization):
        return ""
    if MANIFEST.encode() in kustomization:
        return ""
    return f"{path(environment, KUSTOMIZATION)} does not list {MANIFEST}: add it to resources"


def public_name(scm: Scm, rev: str | None, environment: str, project: str) -> str:
    """The name that an environment's model is served under: the manifest's, which stays as it is.

    Without a manifest it is the project's. So a renamed project does not move what clients call.
    """
    text = scm.read(rev, path(environment, MANIFEST)) if rev else None
    try:
        found = read_values((text or b"").decode("utf-8", "replace"))
        name = found.get("metadata", {}).get("name")
        return check_name(name) if isinstance(name, str) else project
    except (ValueError, AttributeError):
        return project


def read(data: bytes | None, where: str) -> Release | None:
    """The release in a ``release.yaml``; None where there is no such file.

    Raises:
        ConfigError: the file is not what ctflow wrote.
    """
    if data is None:
        return None
    found = _load(data, where)
    return from_json(Release, found, where)


def at(scm: Scm, rev: str, environment: str) -> Release | None:
    """The release that a commit holds for an environment, or None."""
    where = path(environment, RELEASE)
    return read(scm.read(rev, where), where)


def holds_at(scm: Scm, rev: str, environment: str) -> tuple[Hold, ...]:
    """The holds that a commit has for an environment."""
    where = path(environment, HOLDS)
    return read_holds(scm.read(rev, where), where)


def is_held(what: Identity, holds: Sequence[Hold]) -> Hold | None:
    """The hold on a model, or on a model with what serves it, if there is one.

    A hold from before releases named images names the files.
    """
    served = ("", what.serving, what.code)
    return next(
        (hold for hold in holds if hold.digest == what.model and hold.serving in served), None
    )


def held_serving(taken: Release, other: Release | None) -> str:
    """What a hold on ``taken`` says of its serving code, where ``other`` is what stays.

    Where both are the same model it is the serving code that is not wanted, not the model.
    """
    same = other is not None and other.model.digest == taken.model.digest
    return taken.serving.identity if same and taken.serving else ""


def hold_line(hold: Hold) -> str:
    """The line of a commit's message that names its hold."""
    return f"{HOLD_LINE}{hold.digest}{f' with {hold.serving}' if hold.serving else ''}"


def read_hold_line(body: str) -> tuple[str, str] | None:
    """The model and the serving code ("": any) that a commit's message puts on hold, or None."""
    line = next((one for one in body.splitlines() if one.startswith(HOLD_LINE)), None)
    if line is None:
        return None
    model, _, serving = line.removeprefix(HOLD_LINE).strip().partition(" with ")
    return model, serving


def read_holds(data: bytes | None, where: str) -> tuple[Hold, ...]:
    """The holds in a ``holds.yaml``; none where there is no such file.

    Raises:
        ConfigError: the file is not a list of holds. A hold that cannot be read must not be lost.
    """
    if data is None:
        return ()
    found = _load(data, where)
    rows = found.get("holds") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ConfigError(f"{where} has no list `holds`", next="correct it, or restore it from git")
    return tuple(from_json(Hold, row, where) for row in rows)


def write_holds(holds: Sequence[Hold]) -> bytes:
    """``holds.yaml``."""
    head = "# Models not to propose here again. To allow one, remove its entry and commit.\n"
    return (head + yaml_text.write({"holds": [_row(hold) for hold in holds]})).encode()


def read_approvals(data: bytes | None, id: str) -> tuple[str, ...]:
    """Who has approved the promotion ``id``, as ``approvals.yaml`` says.

    Raises:
        ConfigError: the file is not valid YAML.
    """
    found = _load(data, APPROVALS) if data is not None else None
    if not isinstance(found, dict) or found.get("promotion") != id:
        return ()
    names = found.get("approved_by")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def write_approvals(names: Sequence[str], id: str) -> bytes:
    """``approvals.yaml``."""
    head = "# Written by ctflow: who has approved this promotion so far.\n"
    return (head + yaml_text.write({"promotion": id, "approved_by": list(names)})).encode()


def _row(hold: Hold) -> dict[str, str]:
    row = asdict(hold)
    return row if hold.serving else {key: row[key] for key in row if key != "serving"}


def _load(data: bytes, where: str) -> Any:
    try:
        return yaml_text.read(data)
    except NotYaml as error:
        raise ConfigError(
            f"{where} is not valid YAML: {error}", next="restore it from git"
        ) from None
