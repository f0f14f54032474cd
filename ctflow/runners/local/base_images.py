"""Base images of Python components where no container runs them: which Python they ask for.

An image that is a Python and nothing else is replaced by that Python and the component's packages.
Any other image brings more than can be seen in its name: ``packages`` in ctflow.yaml says what to
install instead of it, else it is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass
from ctflow.pipelinespec.spec import Container
from ctflow.runners.local.python_components import requirements_of

#: ``python:3.11``, also of a mirror and of a variant: ``mirror/library/python:3.11.9-slim``.
_PYTHON = re.compile(
    r"(?:[\w.:-]+/)*python(?::(?P<version>\d+\.\d+)?[\w.-]*)?(?:@sha256:[0-9a-f]+)?"
)


@dataclass(frozen=True)
class Asked:
    """An environment: the text of a requirements.txt, and a Python (``3.13``; empty: ours)."""

    requirements: str
    python: str = ""


def own_python() -> str:
    """The version of the Python that runs this, such as ``3.11``."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def asked(component: str, container: Container, packages: Mapping[str, Sequence[str]]) -> Asked:
    """The environment of a lightweight component, in place of its image.

    Args:
        packages: what to install instead of an image, by the image.

    Raises:
        ConfigError: the image is more than a Python, and ``packages`` does not name it.
    """
    image, text = container.image, requirements_of(container)
    if image in packages:
        lines = sorted({*text.splitlines(), *packages[image]})
        return Asked("".join(f"{line}\n" for line in lines))
    found = _PYTHON.fullmatch(image)
    if found is None:
        raise ConfigError(
            f"component {component.removeprefix('comp-')} runs in image {image}, which holds more"
            " than Python",
            cause="without an engine Python components run in an environment on this machine",
            next=f"run with `--engine podman` (or docker), or list its packages: `packages:"
            f" {{'{image}': [name==version]}}` in ctflow.yaml",
        )
    version = found["version"] or ""
    return Asked(text, "" if version == own_python() else version)
