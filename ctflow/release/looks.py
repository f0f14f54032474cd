"""Which models were judged against the champion, by evaluation set: ``looks.json`` in git."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ctflow.errors import ConfigError
from ctflow.ports import Scm
from ctflow.release.files import path

#: Kept beside the release, and not taken back with it: what was seen stays seen.
LOOKS = "looks.json"
#: So many sets are remembered, the newest last.
KEPT_SETS = 10

#: The digests of models in the order in which they were first judged, by evaluation set.
Models = Mapping[str, tuple[str, ...]]


def looks_at(scm: Scm, rev: str, environment: str) -> dict[str, tuple[str, ...]]:
    """The looks that a commit holds for an environment; none where there is no such file.

    Raises:
        ConfigError: the file is not what ctflow wrote.
    """
    where = path(environment, LOOKS)
    data = scm.read(rev, where)
    if data is None:
        return {}
    try:
        found = json.loads(data)["sets"]
        if all(isinstance(one, str) for models in found.values() for one in models):
            return {name: tuple(models) for name, models in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(f"{where} does not hold looks by set", next="restore it from git")


def looks_in_git(
    scm: Scm, base: str, proposal: str | None, environment: str
) -> dict[str, tuple[str, ...]]:
    """The looks of the default branch, and those of the open proposal, which another may replace.

    Args:
        base: the default branch's commit.
        proposal: the commit of the open proposal, perhaps of another clone. A damaged record there
            counts for nothing, as the proposal can be made again.

    Raises:
        ConfigError: the default branch's record is not what ctflow wrote.
    """
    known = looks_at(scm, base, environment)
    if proposal is None:
        return known
    try:
        return merged(known, looks_at(scm, proposal, environment))
    except ConfigError:
        return known


def with_newest(known: Models, newest: Models) -> dict[str, tuple[str, ...]]:
    """Both, ``known`` first in each set; the sets of ``newest`` come last."""
    both = merged(known, newest)
    return {name: both[name] for name in (*(set_ for set_ in known if set_ not in newest), *newest)}


def write_looks(looks: Models) -> bytes:
    """``looks.json``: of the newest sets."""
    kept = dict(list(looks.items())[-KEPT_SETS:])
    return (
        json.dumps({"sets": {name: list(kept[name]) for name in kept}}, indent=1) + "\n"
    ).encode()


def merged(known: Models, others: Models) -> dict[str, tuple[str, ...]]:
    """Both, ``known`` first."""
    names = dict.fromkeys([*known, *others])
    return {
        name: tuple(dict.fromkeys([*known.get(name, ()), *others.get(name, ())])) for name in names
    }


def with_model(
    committed: Models, local: Models, evaluation_set: str, model: str
) -> tuple[int, dict[str, tuple[str, ...]]]:
    """The model's place (from 1) on an evaluation set, and the looks to commit with it.

    Those are what git has, and of this machine's only what came before the model: judged again, it
    has the same place and gives the same proposal. The set comes last, as the newest.
    """
    models = merged(committed, local).get(evaluation_set, ())
    place = models.index(model) if model in models else len(models)
    kept = committed.get(evaluation_set, ())
    row = tuple(one for at, one in enumerate(models) if at < place or one in kept)
    rest = {name: found for name, found in committed.items() if name != evaluation_set}
    return place + 1, rest | {evaluation_set: tuple(dict.fromkeys((*row, model)))}
