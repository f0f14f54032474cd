"""Base images of Python components: which are a Python and nothing else."""

from __future__ import annotations

import pytest

from ctflow.errors import ConfigError
from ctflow.pipelinespec.spec import Container
from ctflow.runners.local.base_images import Asked, asked, own_python

INSTALL = 'python3 -m pip install --quiet \'numpy==2.2.6\' && "$0" "$@"\n'


def component(image: str) -> Container:
    return Container(image, ("sh", "-c", INSTALL, "the source"), (), {})


@pytest.mark.parametrize(
    ("image", "python"),
    [
        ("python:3.77", "3.77"),
        ("python:3.77.1", "3.77"),
        ("python:3.77-slim", "3.77"),
        ("python:3.77.1-slim-bookworm", "3.77"),
        ("docker.io/library/python:3.77", "3.77"),
        ("mirror.example:5000/hub/library/python:3.77-alpine@sha256:" + "a" * 64, "3.77"),
        (f"python:{own_python()}", ""),
        ("python", ""),
        ("python:3", ""),
        ("python:latest", ""),
        ("python:slim", ""),
    ],
)
def test_a_python_and_nothing_else(image: str, python: str) -> None:
    assert asked("comp-x", component(image), {}) == Asked("numpy==2.2.6\n", python)


@pytest.mark.parametrize(
    "image",
    ["pytorch/pytorch:2.4.0", "acme/python-torch:3.11", "mypython:3.11", "python-dev:3.11", "",
     "python:3.11 extra", "condaforge/miniforge3"],
)  # fmt: skip
def test_more_than_a_python(image: str) -> None:
    with pytest.raises(ConfigError, match=r"component x runs in image .*, which holds more"):
        asked("comp-x", component(image), {"other": ["torch"]})
    mapped = asked("comp-x", component(image), {image: ["torch==2.4.0", "numpy==2.2.6"]})
    assert mapped == Asked("numpy==2.2.6\ntorch==2.4.0\n")
