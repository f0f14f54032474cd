"""Python components: which container executors are some, and what they need besides their image.

A *lightweight* one carries its source in its command, and what to install before. A *containerized*
one names a function of its image, which the image's ``kfp_config.ini`` says the file of. Both run
``kfp.dsl.executor_main``, so their environment needs kfp.
"""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.pipelinespec.spec import Container
from ctflow.ports import Environment, Environments, Watch, Workspace

EXECUTOR_MODULE = "kfp.dsl.executor_main"
SOURCE_FILE = "ephemeral_component.py"
CONFIG_FILE = "kfp_config.ini"
#: Where the package does not say which kfp compiled it.
_ANY_KFP = "kfp>=2.16.1,<3"
_KFP = re.compile(r"kfp\s*(?:$|[\[<>=!~;@ ])", re.IGNORECASE)
#: What kfp's own installation asks for on Pythons that nothing here runs on.
_OLD = re.compile(r"""; *python_version *< *["']3\.9["']$""")
_INSTALL = re.compile(r"\bpip install\b(.*?)(?:&&|\n|$)")


def is_lightweight(container: Container) -> bool:
    """Whether it is a lightweight Python component: its source is in its command."""
    return any(EXECUTOR_MODULE in word and "program_path" in word for word in container.command)


def is_containerized(container: Container) -> bool:
    """Whether it is a containerized Python component: a function of its image."""
    return EXECUTOR_MODULE in container.command


def requirements_of(container: Container) -> str:
    """What a lightweight component installs before it runs, as the text of a requirements.txt."""
    lines: dict[str, None] = {}
    for found in _INSTALL.finditer("\n".join(container.command[:-1])):
        words = iter(shlex.split(found[1]))
        for word in words:
            if word in ("--index-url", "-i", "--extra-index-url"):
                name = "--index-url" if word == "-i" else word
                lines[f"{name} {next(words, '')}"] = None
            elif word == "--trusted-host":
                next(words, "")
            elif not word.startswith("-") and word not in ('"$0"', '"$@"'):
                lines[word] = None
    return "".join(f"{line}\n" for line in sorted(lines))


def environment_in(
    workspace: Workspace, container: Container, sdk: str, environments: Environments, watch: Watch
) -> Environment:
    """The environment of a Python component whose image is a step.

    The step's own, where that has all it needs. Else one of the step's requirements and the
    component's together, which therefore must go together. A kfp that the step has is kept,
    whichever one the component would install over it; where it has none, it is the one that
    compiled the package.

    Args:
        sdk: the package's ``sdkVersion``, such as ``kfp-2.16.1``.

    Raises:
        ConfigError: the requirements cannot be had together.
        OutsideError: the package index or the disk fails.
    """
    lines = requirements_of(container).splitlines() if is_lightweight(container) else []
    asked = [line for line in lines if not _OLD.search(line)]
    more = [line for line in asked if not _KFP.match(line)]
    if not _has_kfp(workspace.environment):
        version = sdk.removeprefix("kfp-")
        own = f"kfp=={version}" if re.fullmatch(r"\d+(\.\d+)*", version) else _ANY_KFP
        more += [line for line in asked if _KFP.match(line)] or [own]
    if not more:
        return workspace.environment
    text = workspace.requirements
    text += "" if not text or text.endswith("\n") else "\n"
    return environments.ensure(text + "".join(f"{line}\n" for line in more), watch)


def _has_kfp(environment: Environment) -> bool:
    return any(environment.path.glob("lib/python*/site-packages/kfp/dsl/executor_main.py"))


def check_function(component: str, container: Container, workspace: Workspace) -> None:
    """See that the step knows the function of a containerized component.

    Raises:
        ConfigError: its ``kfp_config.ini`` is not there, or does not name the function.
    """
    words = list(container.args)
    if "--component_module_path" in words or "--function_to_execute" not in words[:-1]:
        return
    function = words[words.index("--function_to_execute") + 1]
    if function not in _functions(workspace.folder / CONFIG_FILE):
        raise ConfigError(
            f"component {component}: step {workspace.step} does not say where {function} is",
            cause=f"KFP looks for it in the image's {CONFIG_FILE}",
            next=f"write `[Components]` and `{function} = main.py` (its file) into {CONFIG_FILE} "
            "in the step's folder",
        )


def _functions(file: Path) -> set[str]:
    """The functions that kfp's configuration file names, read as kfp does."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # case counts
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return set()
    return set(parser["Components"]) if parser.has_section("Components") else set()
