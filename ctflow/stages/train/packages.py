"""Compile: images -> package. A package is compiled again only if what goes into it changed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from ctflow.components import OWN_IMAGE
from ctflow.errors import ConfigError
from ctflow.lib.digests import digest_file, hexadecimal
from ctflow.lib.files import write_file
from ctflow.model import Images, Package
from ctflow.ports import Compiler, Watch, ignore


def compile_package(
    root: Path,
    pipeline: str,
    images: Images,
    compiler: Compiler,
    packages: Path,
    watch: Watch = ignore,
    own_image: str = "",
) -> Package:
    """The package of ``pipeline`` (``file.py:function``) with the images' references in it.

    Args:
        own_image: that of ``ctflow.components``.
        packages: where packages are kept by their digest, and an index of what each was made from.

    Raises:
        ConfigError: the definition does not compile; with the user's own line.
        OutsideError: no compiler can be had.
    """
    references = {image.step: image.reference for image in images.images}
    references[OWN_IMAGE] = own_image
    key = _key(compiler.fingerprint(), pipeline, references)
    index = packages / f"index-{key}.json"
    known = _known(index, root, packages)
    digest = known or _compile(root, pipeline, references, compiler, packages, index, watch)
    return Package(
        project=images.project,
        pipeline=pipeline.rpartition(":")[2],
        digest=digest,
        path=str(_place(packages, digest)),
        images=images.images,
        commit=images.commit,
        built=known is None,
    )


def with_content(package: Package) -> Package:
    """The package carrying its own file, for another machine."""
    from dataclasses import replace

    return replace(package, content=Path(package.path).read_text(encoding="utf-8"))


def unpack(package: Package, packages: Path) -> Package:
    """A package that came from another machine, with its file in place here.

    Raises:
        ConfigError: it carries no file and none is here, or the file is not what the digest says.
    """
    from dataclasses import replace

    place = _place(packages, package.digest)
    if not place.is_file():
        if package.content is None:
            raise ConfigError(
                f"package {package.digest} is not on this machine and the document does not"
                " carry it",
                next="make the document with `ctflow compile --json`",
            )
        data = package.content.encode()
        if hashlib.sha256(data).hexdigest() != hexadecimal(package.digest):
            raise ConfigError("the package does not match its digest", next="compile it again")
        write_file(place, data)
    return replace(package, path=str(place), content=None)


def _place(packages: Path, digest: str) -> Path:
    return packages / f"{hexadecimal(digest)}.yaml"


def _key(fingerprint: str, pipeline: str, references: dict[str, str]) -> str:
    text = json.dumps([1, fingerprint, pipeline, references], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _known(index: Path, root: Path, packages: Path) -> str | None:
    """The digest of the package that is there, if all that went into it is as it was."""
    try:
        data: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        digest: str = data["package"]
        files: dict[str, str] = data["files"]
        if all(digest_file(root / name)[0] == was for name, was in files.items()):
            return digest if digest_file(_place(packages, digest))[0] == digest else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no index, or one that a kill or a full disk cut short: compile again
    return None


def _compile(
    root: Path,
    pipeline: str,
    references: dict[str, str],
    compiler: Compiler,
    packages: Path,
    index: Path,
    watch: Watch,
) -> str:
    packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages, prefix=".new-") as scratch:
        output = Path(scratch) / "package.yaml"
        sources = compiler.compile(root, pipeline, references, output, watch)
        digest, _ = digest_file(output)
        files = {str(source): digest_file(root / source)[0] for source in sources}
        output.replace(_place(packages, digest))
    write_file(index, json.dumps({"package": digest, "files": files}, indent=1).encode())
    return digest
