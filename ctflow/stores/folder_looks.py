"""The looks of this machine, in a folder: the ``Looks`` port.

Each environment has a file of JSON lines, one for each model and evaluation set. A line that a
killed process left unfinished is skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.lib.locks import lock


class FolderLooks:
    """Looks under ``root``, which is made when the first one comes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def models(self, environment: str) -> dict[str, tuple[str, ...]]:
        """See ``Looks``.

        Raises:
            OutsideError: the file cannot be read.
        """
        found: dict[str, dict[str, None]] = {}
        try:
            data = self._file(environment).read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._failed("read", environment, error) from None
        for line in data.splitlines():
            try:
                row = json.loads(line)
                evaluation_set, model = row["set"], row["model"]
            except (ValueError, KeyError, TypeError):
                continue
            if isinstance(evaluation_set, str) and isinstance(model, str):
                found.setdefault(evaluation_set, {})[model] = None
        return {name: tuple(models) for name, models in found.items()}

    def add(self, environment: str, evaluation_set: str, model: str) -> None:
        """See ``Looks``.

        Raises:
            OutsideError: the file cannot be written.
        """
        file = self._file(environment)
        line = json.dumps({"set": evaluation_set, "model": model}) + "\n"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held = lock(file, wait=True)
            try:
                if model in self.models(environment).get(evaluation_set, ()):
                    return
                with file.open("a+b") as stream:
                    end = stream.seek(0, os.SEEK_END)
                    if end:
                        stream.seek(end - 1)
                        line = line if stream.read(1) == b"\n" else f"\n{line}"
                    stream.write(line.encode())
                    stream.flush()
                    os.fsync(stream.fileno())
            finally:
                if held is not None:
                    os.close(held)
        except OSError as error:
            raise self._failed("write", environment, error) from None

    def _file(self, environment: str) -> Path:
        return self._root / f"{environment}.jsonl"

    def _failed(self, verb: str, environment: str, error: OSError) -> OutsideError:
        return OutsideError(
            f"cannot {verb} {self._file(environment)}: {error.strerror or error}",
            next="make its folder readable and writable",
        )
