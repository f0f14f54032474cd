"""ctflow: continuous training and delivery of models, from ``git push`` to a served model.

This module is what a user's ``pipeline.py`` imports, so it holds to the standard library: the
pipeline may be compiled in an environment that has kfp and nothing of ctflow's own dependencies.
"""

from __future__ import annotations

import json
import os

__version__ = "0.1.0"
__all__ = ["__version__", "image"]

IMAGES_VARIABLE = "CTFLOW_IMAGES"


def image(step: str) -> str:
    """Return the image reference of ``step``, pinned by digest, for use in a pipeline definition.

    The references come from the build stage, which hands them to the compiling process as a JSON
    object (step name -> reference) in the environment variable ``CTFLOW_IMAGES``.

    Raises:
        LookupError: outside ``ctflow compile``, or when the project has no such step.
    """
    text = os.environ.get(IMAGES_VARIABLE)
    if text is None:
        raise LookupError(
            f"ctflow.image({step!r}) is only known while ctflow compiles the pipeline; "
            "run `ctflow compile` instead of calling the kfp compiler yourself"
        )
    images: dict[str, str] = json.loads(text)
    try:
        return images[step]
    except KeyError:
        known = ", ".join(sorted(images)) or "none"
        raise LookupError(
            f"ctflow.image({step!r}): the project has no step of that name (steps: {known})"
        ) from None
