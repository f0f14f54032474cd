"""Makes an image of one layer with no engine: image.py ARCHIVE NAME ROOT [--entrypoint JSON] ...

ROOT is a folder that becomes the image's whole content; ARCHIVE is an OCI layout, which
`ctr images import` reads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

_KIND = "application/vnd.oci.image"


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0  # The same content has the same digest, whoever made it.
    info.uname = info.gname = ""
    return info


def _layer(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for path in sorted(root.rglob("*")):
            layer.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)
    return buffer.getvalue()


def write(archive: Path, name: str, root: Path, settings: dict[str, Any]) -> None:
    """Write the image `name` of what is under `root`; `settings` are its configuration."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        described = {"mediaType": f"{_KIND}.{kind}", "digest": f"sha256:{digest}"}
        return {**described, "size": len(data), **more}

    layer = blob(_layer(root), "layer.v1.tar")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_KIND}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer],
    }
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json", annotations=annotations)
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    with tarfile.open(archive, "w") as made:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))


def main() -> None:
    """Write what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("name")
    parser.add_argument("root", type=Path)
    parser.add_argument("--entrypoint", type=json.loads)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--user", default="")
    asked = parser.parse_args()
    settings = {
        "Entrypoint": asked.entrypoint,
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *asked.env],
        "User": asked.user,
    }
    write(asked.archive, asked.name, asked.root, settings)


if __name__ == "__main__":
    main()
