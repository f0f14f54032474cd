"""What serves a release: the project's own predictor, or the standard runtime of a model's format.

The commit decides. Where ``serving.runtime`` is ``auto``, a commit that holds the predictor is
served by it, and one without any serving code by the format's standard runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.config.serving_code import code_files, folder_of, included, includes_of
from ctflow.errors import ConfigError, StateError
from ctflow.lib.digests import digest_bytes
from ctflow.lib.requirements import is_pinned, name_of
from ctflow.model import OWN, STANDARD, Run, ServingRef
from ctflow.ports import Scm, TreeFile
from ctflow.release.paths import SERVING, path
from ctflow.release.runtime_requirements import runtime_requirements
from ctflow.release.serving_links import LINK, check_links

if TYPE_CHECKING:
    from ctflow.config.project import Project

Kept = tuple[ServingRef, dict[str, TreeFile]]


def serving_at(
    scm: Scm,
    commit: str,
    project: Project,
    environment: str,
    run: Run,
    model: Callable[[], Path],
    image: Callable[[ServingRef], str],
    known: tuple[str, ...] = (),
) -> Kept:
    """What serves a run's model, and its files at their place in the environment's folder.

    Args:
        commit: the run's, which says what serves.
        run: its model's maker, and the files of the model, say what a standard runtime needs.
        model: gives the model's content on this machine.
        image: gives the reference of the image of the predictor; empty: it has none.
        known: what a release of the same model says that a standard runtime needs.

    Raises:
        StateError: the commit lacks a file of the serving code, or a link there leads out of it.
        ConfigError: there is no standard runtime for the format, or nothing says which version of
            its library made the model.
    """
    runtime = runtime_at(scm, commit, project)
    if runtime == OWN:
        own, files = own_serving(scm, commit, project, environment)
        return replace(own, image=image(own)), files
    golden, found = _golden(scm, commit, project, environment)
    requirements = known or runtime_requirements(runtime, project, run, scm, commit, model)
    rows = [f"{file.mode}\0{file.blob}" for file in found.values()]
    decides = ("standard", runtime, golden, *rows, *requirements)
    digest = digest_bytes("\0\0".join(decides).encode())
    place = path(environment, SERVING)
    return ServingRef(place, "", golden, digest, runtime, requirements), found


def check_serving(scm: Scm, commit: str, project: Project) -> None:
    """See that a commit says what serves, before anything is trained; raises as ``serving_at``."""
    if runtime_at(scm, commit, project) == OWN:
        own_serving(scm, commit, project, "")
    else:
        _golden(scm, commit, project, "")


def runtime_at(scm: Scm, commit: str, project: Project) -> str:
    """``predictor``, or the model format whose standard runtime serves a commit's model.

    Raises:
        StateError: there is serving code, but no predictor.
        ConfigError: there is no standard runtime for the format.
    """
    serving, source = project.serving, _source(project)
    if serving.runtime == OWN:
        return OWN
    found = scm.files(commit, source)
    if serving.runtime == "auto":
        if f"{source}/{serving.predictor}" in found:
            return OWN
        code = [name for name in found if _is_code(name.removeprefix(f"{source}/"), serving.golden)]
        if code or "predictor" in serving.model_fields_set:
            raise _missing(
                commit,
                f"{source}/{serving.predictor}",
                source,
                "or, to be served without code of yours, say `serving: {runtime: standard}`",
            )
    if project.model.format not in STANDARD:
        raise ConfigError(
            f"no standard runtime serves models of format {project.model.format!r} here",
            cause=f"there are {', '.join(STANDARD)}",
            next=f"write {source}/{serving.predictor}, or correct model.format",
        )
    return project.model.format


def own_serving(scm: Scm, commit: str, project: Project, environment: str) -> Kept:
    """A commit's own predictor with all of its folder.

    Raises:
        StateError: the commit does not hold the predictor or the golden requests, or a link there
            leads out of the folder: what it points to is not kept with the release.
    """
    serving = project.serving
    source = _source(project)
    place = path(environment, SERVING)
    found = code_files(scm, commit, serving)
    for name in (serving.predictor, serving.golden):
        if name not in found:
            raise _missing(commit, f"{source}/{name}", source)
    check_links(scm, commit, source, scm.files(commit, source))
    for include in includes_of(serving):
        check_links(scm, commit, include, included(scm, commit, include))
    rows = {name: file for name, (_, file) in found.items()}
    lines = [f"{name}\0{file.mode}\0{file.blob}" for name, file in sorted(rows.items())]
    digest = digest_bytes("\0\0".join((serving.predictor, serving.golden, *lines)).encode())
    ref = ServingRef(place, serving.predictor, serving.golden, digest)
    return ref, {f"{place}/{name}": file for name, file in rows.items()}


def described(serving: ServingRef) -> str:
    """A standard runtime in a few words; empty for an own predictor."""
    if serving.runtime == OWN:
        return ""
    return f"standard runtime {serving.runtime} ({', '.join(serving.requirements)})"


def unpinned(serving: ServingRef) -> str:
    """The library of a standard runtime that may be another version tomorrow; empty: none."""
    if serving.runtime not in STANDARD:
        return ""
    library = STANDARD[serving.runtime].library
    loose = (one for one in serving.requirements if name_of(one) in library and not is_pinned(one))
    return next(loose, "")


def change_of(before: ServingRef | None, after: ServingRef) -> str:
    """What is new in how a model is served."""
    if before is None or (before.runtime == after.runtime == OWN):
        same = before is not None and before.digest == after.digest
        return "image of the predictor" if same else "serving code"
    if before.runtime != after.runtime:
        return f"runtime ({before.runtime} -> {after.runtime})"
    if before.requirements != after.requirements:
        return f"requirements of the runtime {after.runtime}"
    return "golden requests"


def _golden(
    scm: Scm, commit: str, project: Project, environment: str
) -> tuple[str, dict[str, TreeFile]]:
    """The golden requests of a standard runtime, which may have none, and their file."""
    source, name = _source(project), project.serving.golden
    where = f"{source}/{name}"
    file = scm.files(commit, source).get(where)
    if file is None:
        if "golden" in project.serving.model_fields_set:
            raise _missing(commit, where, source)
        return "", {}
    if file.mode == LINK:
        raise StateError(
            f"{where} is a link", next="copy the file there instead of the link, and commit it"
        )
    return name, {path(environment, f"{SERVING}/{name}"): file}


def _source(project: Project) -> str:
    return folder_of(project.serving)


def _is_code(name: str, golden: str) -> bool:
    """Whether a file of the serving folder says that a predictor was meant."""
    return name != golden and not name.startswith(".") and not name.lower().endswith(".md")


def _missing(commit: str, where: str, source: str, otherwise: str = "") -> StateError:
    see = f"commit it; see `git status --ignored {source}`"
    return StateError(
        f"commit {commit[:10]} has no {where}",
        cause="it is missing, or git ignores it",
        next=f"{see}; {otherwise}" if otherwise else see,
    )
