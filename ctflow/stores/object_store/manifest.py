"""The manifest of a model in an object store: written last, so that what has one is complete.

A JSON object at ``manifests/<digest>.json``. It lies apart from the model's files, because KServe
downloads all that is below the model's URI.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

from ctflow.lib.digests import digest_listing, hexadecimal
from ctflow.lib.quick import dataclass

#: Bytes: some 500,000 files.
MOST = 100 << 20
_VERSION = 1
#: A name that means the same in a URI, in a path and to KServe's downloader.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*")


@dataclass(frozen=True)
class File:
    """A file of a model: its path below the model's folder, or empty where the model is a file."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a model is made of. ``name`` is that of its file or folder."""

    digest: str
    name: str
    folder: bool
    files: tuple[File, ...]

    @property
    def place(self) -> str:
        """Where its files lie in the store, relative to the store's URL."""
        return f"sha256-{hexadecimal(self.digest)}/{self.name}"

    def object_of(self, file: File) -> str:
        """The path of a file's object."""
        return f"{self.place}/{file.path}" if self.folder else self.place

    def dump(self) -> bytes:
        """As it is kept: the same model gives the same bytes."""
        data = {
            "kind": "model", "version": _VERSION, "digest": self.digest, "name": self.name,
            "folder": self.folder,
            "files": [{"path": f.path, "digest": f.digest, "size": f.size} for f in self.files],
        }  # fmt: skip
        return json.dumps(data, indent=1).encode() + b"\n"


def manifest_path(digest: str) -> str:
    """Where a model's manifest lies, relative to the store's URL."""
    return f"manifests/{hexadecimal(digest)}.json"


def plain_name(name: str) -> str:
    """A model's name as it may stand in its URI: its own, where that is plain."""
    return name if _PLAIN.fullmatch(name) and len(name) <= 200 else "model"


def parse_manifest(data: bytes, digest: str) -> Manifest | None:
    """The manifest of a model, or None where the bytes are not that; nothing in it is believed.

    Its files' digests give the model's, so that it cannot name other files than the model's own.
    """
    try:
        raw: dict[str, Any] = json.loads(data)
        files = tuple(File(f["path"], f["digest"], f["size"]) for f in raw["files"])
        made = Manifest(raw["digest"], raw["name"], raw["folder"], files)
        if raw["kind"] != "model" or raw["version"] != _VERSION or made.digest != digest:
            return None
        return made if _sound(made) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _sound(made: Manifest) -> bool:
    if plain_name(made.name) != made.name or not isinstance(made.folder, bool):
        return False
    for file in made.files:
        hexadecimal(file.digest)
        if type(file.size) is not int or file.size < 0:
            return False
        if made.folder and not _inside(file.path):
            return False
    if not made.folder:
        return [(f.path, f.digest) for f in made.files] == [("", made.digest)]
    rows = [(file.path.encode(), file.digest, file.size) for file in made.files]
    return rows == sorted(rows) and digest_listing(rows)[0] == made.digest


def _inside(path: str) -> bool:
    """Whether a path leads to a file below a folder, written in the one way there is."""
    parts = PurePosixPath(path).parts
    return bool(parts) and "/".join(parts) == path and not {"/", "..", "."} & set(parts)
