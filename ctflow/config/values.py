"""Values of ``ctflow.yaml`` that are more than text: names and sizes."""

from __future__ import annotations

import re

#: What Kubernetes takes as the name of an InferenceService.
KSERVE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: The name becomes part of a host name (``digits-predictor-...``), whose label has 63 characters.
KSERVE_NAME_MAX = 40

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB|TB)", re.IGNORECASE)
_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def check_name(name: str, what: str = "a project name") -> str:
    """Return ``name`` if KServe takes it as a name.

    Raises:
        ValueError: with what a valid name looks like.
    """
    if not KSERVE_NAME.fullmatch(name) or len(name) > KSERVE_NAME_MAX:
        raise ValueError(
            f"{name!r} is not {what}: KServe wants lower-case letters, digits and '-', a letter "
            f"first, no '-' last, at most {KSERVE_NAME_MAX} characters"
        )
    return name


def size_in_bytes(size: str) -> int:
    """``"20GB"`` -> 20000000000; units kB, MB, GB, TB. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(size.strip())
    if not match:
        raise ValueError(f"{size!r} is not a size such as 500MB, 20GB or 1.5TB")
    return round(float(match[1]) * _BYTES[match[2].lower()])
