"""Puts a model into a store and is killed (-9) when it opens a file of the model for the Nth time.

usage: python killed_put.py N MODEL DIGEST KIND WORD...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from ctflow.model import Artifact
from ctflow.ports import ModelStore
from ctflow.stores.folder_store import FolderStore
from ctflow.stores.object_store import open_store


def main() -> None:
    """Count, kill, put."""
    limit, model, digest, kind, *words = sys.argv[1:]
    store: ModelStore
    if kind == "folder":
        store = FolderStore(Path(words[0]))
    else:
        store = open_store(words[0], words[1], Path(words[2]))
    opened = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal opened
        if event == "open" and str(args[0]).startswith(f"{model}/"):
            opened += 1
            if opened == int(limit):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    store.put(Artifact("model", "system.Model", model, digest), "sklearn")


main()
