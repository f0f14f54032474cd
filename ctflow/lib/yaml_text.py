"""YAML to plain data and back; the library is imported at the first use, for it takes a while."""

from __future__ import annotations

import json
from typing import Any


class NotYaml(ValueError):
    """The text is not valid YAML; the message is the parser's, on one line."""


def read(data: str | bytes) -> Any:
    """The plain data of one document. Raises NotYaml."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(data, Loader=loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        raise NotYaml(" ".join(str(error).split())) from None


def write(data: Any) -> str:
    """Plain data as YAML, the keys in their order."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    # Through JSON first: tuples become lists, and nothing but plain data is written.
    plain = json.loads(json.dumps(data))
    return str(yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))
