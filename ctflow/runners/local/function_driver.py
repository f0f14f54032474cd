"""Asks one function of a step; run as a script by the step's own Python.

``python function_driver.py FILE NAME``, in the step's folder, with a socket as its standard output.
Both sides send messages: four bytes of length, then JSON; rows follow theirs as 32-bit integers.
What the function itself prints goes nowhere, so that it cannot be taken for an answer.

It uses the standard library alone, and as little of it as possible: it must work in any environment
that a step may have, with any Python from 3.8 on.
"""

from __future__ import annotations

import array
import importlib.util
import json
import math
import os
import socket
import struct
import sys
import traceback
from operator import itemgetter
from typing import Any

_LENGTH = struct.Struct("!I")
#: How many characters of an error are told.
_TOLD = 400


def _receive(channel: socket.socket, size: int) -> bytes:
    """So many bytes. Ends the process where whoever asks is gone."""
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _message(channel: socket.socket) -> Any:
    return json.loads(_receive(channel, *_LENGTH.unpack(_receive(channel, _LENGTH.size))))


def _answer(channel: socket.socket, data: Any) -> None:
    body = json.dumps(data).encode()
    channel.sendall(_LENGTH.pack(len(body)) + body)


def _failure(error: BaseException, file: str) -> str:
    """An error in one line, with the place in the project's own file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == file]  # fmt: skip
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_TOLD]
    return f"{text} (line {lines[-1]})" if lines else text


def _load(file: str, name: str) -> Any:
    """The function, from its file, which finds what lies beside it and in the step's folder."""
    folder = os.getcwd()  # noqa: PTH109 (nothing more is imported than must be)
    sys.path[0] = folder  # in place of this script's own folder
    if os.path.dirname(file) != folder:  # noqa: PTH120
        sys.path.insert(0, os.path.dirname(file))  # noqa: PTH120
    title = os.path.basename(file)[: -len(".py")]  # noqa: PTH119
    found = importlib.util.spec_from_file_location(title, file)
    if found is None or found.loader is None:
        raise ImportError(f"{title}.py cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.modules[title] = module
    found.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise AttributeError(f"{title}.py has no function {name}")
    return function


def _number(value: Any) -> float:
    """The function's answer; TypeError where it is no number."""
    if value is None or isinstance(value, (str, bytes, complex)):
        raise TypeError(f"it gives {value!r:.60}, which is no number")
    return float(value)


def _values(function: Any, columns: dict[str, list[Any]], rows: array.array[int],
            sizes: list[int]) -> list[float]:  # fmt: skip
    found = []
    first = 0
    for size in sizes:
        some = rows[first : first + size]
        first += size
        if size == 1:
            table = {name: [column[some[0]]] for name, column in columns.items()}
        else:
            pick = itemgetter(*some)
            table = {name: list(pick(column)) for name, column in columns.items()}
        found.append(_number(function(table)))
    return found


def main() -> None:
    """Load the function, and answer until whoever asks is gone."""
    file, name = os.path.abspath(sys.argv[1]), sys.argv[2]  # noqa: PTH100
    channel = socket.socket(fileno=os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    tables: list[dict[str, list[Any]]] = []
    try:
        function = _load(file, name)
        _answer(channel, {"ready": True})
        while True:
            asked = _message(channel)
            if "columns" in asked:
                tables.append(asked["columns"])
                continue
            rows = array.array("i")
            rows.frombytes(_receive(channel, 4 * sum(asked["sizes"])))
            found = _values(function, tables[asked["table"]], rows, asked["sizes"])
            # JSON has no word for what is not finite.
            _answer(channel, {"values": [one if math.isfinite(one) else None for one in found]})
    except BaseException as error:  # noqa: BLE001 (SystemExit too is told, not taken for an end)
        _answer(channel, {"error": _failure(error, file)})


if __name__ == "__main__":
    main()
