"""Renders the project template with cookiecutter and makes the first commit with GitPython.

Cookiecutter's high-level call reads ``~/.cookiecutterrc`` and writes replay files into the home
folder; its renderer is called directly instead, which does neither.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ctflow
from ctflow.errors import OutsideError, StateError, UsageError
from ctflow.lib.git_command import LONG, answer, missing_git, no_redirections, run
from ctflow.lib.text import one_line

#: The templates that come with ctflow, and their folders.
TEMPLATES = {"digits": "project", "minimal": "minimal", "tabular": "tabular"}


def template_folder(name: str = "digits") -> Path:
    """One of ctflow's templates: in the installed package, else in the checkout.

    Raises:
        OutsideError: it is in neither, so the installation is broken.
    """
    folder = TEMPLATES[name]
    package = Path(ctflow.__file__).resolve().parent
    for place in (package / "templates", package.parent / "templates"):
        if (place / folder / "cookiecutter.json").is_file():
            return place / folder
    raise OutsideError(
        "ctflow's project template is missing", cause=f"{package} is incomplete",
        next="install ctflow again",
    )  # fmt: skip


@contextmanager
def found_template(name: str) -> Iterator[Path]:
    """A template's folder: one of ctflow's by its name, a folder, or a git URL, which is cloned.

    Raises:
        UsageError: it is none of these, or holds no cookiecutter.json.
        OutsideError: git cannot clone it.
    """
    if name in TEMPLATES:
        yield template_folder(name)
        return
    place = Path(name).expanduser()
    if place.is_dir():
        yield _checked(place, name)
        return
    if "://" not in name and not (":" in name and "@" in name) and not name.endswith(".git"):
        raise UsageError(
            f"there is no template {name!r}",
            next=f"name one of {', '.join(TEMPLATES)}, a folder, or a git URL",
        )
    with tempfile.TemporaryDirectory(prefix="ctflow-template-") as folder:
        try:
            answer(Path(folder), "clone", "--quiet", "--depth=1", "--", name, "t", timeout=LONG)
        except OutsideError as error:
            raise OutsideError(
                f"cannot clone the template {name}", cause=error.fact, next=error.next
            ) from None
        yield _checked(Path(folder) / "t", name)


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "cookiecutter.json").is_file():
        raise UsageError(
            f"{name} is not a template: it has no cookiecutter.json",
            next="name the folder that holds it",
        )
    return folder


def own_requirement() -> str:
    """A requirement that installs this very ctflow: its version, or the folder or wheel it is from.

    Where it came from is what the installer wrote down (PEP 610, ``direct_url.json``).
    """
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution("ctflow")
        direct = json.loads(found.read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return f"ctflow=={ctflow.__version__}"
    url = str(direct.get("url") or "")
    if not url:
        return f"ctflow=={found.version}"
    if (direct.get("dir_info") or {}).get("editable"):
        return f"-e {url.removeprefix('file://')}"
    vcs = direct.get("vcs_info") or {}
    if vcs:
        return f"ctflow @ {vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}".rstrip("@")
    return f"ctflow @ {url}"


class TemplateScaffold:
    """The ``Scaffold`` of ``ctflow.stages.new``.

    Args:
        template: a cookiecutter template's folder; by default ctflow's own.
    """

    def __init__(self, template: Path | None = None) -> None:
        self._template = template or template_folder()

    def defaults(self) -> dict[str, str]:
        """The template's own default answers."""
        found = self._read()
        return {key: value for key, value in found.items() if isinstance(value, str)}

    def _read(self) -> dict[str, Any]:
        file = self._template / "cookiecutter.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{file} is not a JSON object: {error}") from None

    def require_identity(self) -> None:
        """Raise StateError unless git knows who commits, OutsideError where there is no git."""
        for who in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            # Without the setting git would make an address up from the machine's name.
            done = run(Path.cwd(), "-c", "user.useConfigOnly=true", "var", who)
            if done.returncode != 0:
                raise StateError(
                    "git does not know who commits here",
                    next='run `git config --global user.name "Your Name"` and '
                    "`git config --global user.email you@example.com`, then this again",
                )

    def render(self, answers: Mapping[str, str], folder: Path) -> Path:
        """Write the project's files below ``folder``; the project's folder in it.

        The template's hooks are not run: the answers are checked already, by the same rules.
        Raises OutsideError when the template does not render or the disk fails.
        """
        from cookiecutter.exceptions import CookiecutterException
        from cookiecutter.generate import generate_files
        from jinja2 import TemplateError

        defaults = self._read()
        own = {key: value for key, value in defaults.items() if key.startswith("_")}
        own["_ctflow"] = own_requirement()
        # A template of somebody's own may ask for more than ours do.
        others = {k: v for k, v in defaults.items() if not k.startswith("_") and k not in answers}
        try:
            made = generate_files(
                repo_dir=str(self._template),
                context={"cookiecutter": {**own, **others, **answers}},
                output_dir=str(folder),
                accept_hooks=False,
            )
        except (CookiecutterException, TemplateError) as error:
            raise OutsideError(
                f"the template does not render: {error}", cause=str(self._template)
            ) from error
        project = Path(made)
        for cache in list(project.rglob("__pycache__")):
            shutil.rmtree(cache)
        return project

    def first_commit(self, folder: Path, branch: str, message: str) -> str:
        """Make ``folder`` a repository with one commit on ``branch``; the commit's id.

        The user's own hooks are not asked: they may want tools that the project does not have
        yet. Raises OutsideError when git fails.
        """
        try:
            import git  # late: it takes 0.1 s
        except ImportError:
            raise missing_git() from None
        with no_redirections():
            try:
                repo = git.Repo.init(folder)
                try:
                    # `git init -b` would need git 2.28.
                    repo.git.symbolic_ref("HEAD", f"refs/heads/{branch}")
                    # Forced: the user's global ignore file shall not thin the project out.
                    repo.git.add("--all", "--force")
                    repo.git.commit("--no-verify", "--quiet", "-m", message)
                    return str(repo.head.commit.hexsha)
                finally:
                    repo.close()
            except git.GitCommandError as error:
                text = str(error.stderr or error).strip().removeprefix("stderr: ").strip("'\n ")
                raise OutsideError(
                    f"git could not make the first commit: {one_line(text, 500)}",
                    next="fix that and run the same command again",
                ) from error
