"""What a verb is given: parameters, an override, the results of stages in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctflow.errors import UsageError
from ctflow.model import Images, Override, Package, Promotion, Run, Value, Verdict, from_json
from ctflow.release.files import reason_of
from ctflow.tools import Tools


def override_of(tools: Tools, forced: bool, reason: str | None) -> Override | None:
    """The override that a person asks for, under their own name.

    Raises:
        UsageError: an override without a reason, or a reason without an override.
    """
    if not forced:
        if reason is not None:
            raise UsageError("--reason goes with --override")
        return None
    if not reason or not reason.strip():
        raise UsageError("--override needs a reason", next="give one with --reason TEXT")
    return Override(reason_of(reason), tools.scm.identity())


def parameters_of(words: Sequence[str]) -> dict[str, Value]:
    """``name=value`` words, as text: what the value is says the type that the package declares.

    Raises:
        UsageError: a word without ``=``.
    """
    found: dict[str, Value] = {}
    for word in words:
        name, equals, raw = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {word} is not name=value")
        found[name] = raw
    return found


def documents(names: Sequence[str], *wanted: str) -> dict[str, Any]:
    """The stages' results in JSON files, by kind.

    Args:
        wanted: the kinds that the verb can go on from; all of them by default.

    Raises:
        UsageError: a file that cannot be read, or holds no such document.
    """
    kinds: dict[str, type[Any]] = {
        cls.kind: cls for cls in (Images, Package, Run, Verdict, Promotion)
    }
    found: dict[str, Any] = {}
    for name in names:
        try:
            data = json.loads(Path(name).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from None
        except ValueError:
            raise UsageError(f"{name} is not JSON", next="give the output of --json") from None
        kind = data.get("kind") if isinstance(data, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise UsageError(
                f"{name} does not hold the result of a stage",
                next="give the output of a stage's --json",
            )
        if wanted and kind not in wanted:
            raise UsageError(f"{name} holds a {kind}", next=f"give {' or '.join(wanted)}")
        found[kind] = from_json(kinds[kind], data, name)
    return found
