"""Refuses answers that would make a broken project, before any file is written.

`ctflow new` asks the same of the answers with the same rules; this hook is for `cookiecutter`.
"""

import re
import sys

ANSWERS = {
    "project": {{ cookiecutter.project | jsonify }},
    "description": {{ cookiecutter.description | jsonify }},
    "repository": {{ cookiecutter.repository | jsonify }},
    "registry": {{ cookiecutter.registry | jsonify }},
    "branch": {{ cookiecutter.branch | jsonify }},
    "runner": {{ cookiecutter.runner | jsonify }},
}
RULES = {
    "project": (
        r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
        "KServe wants lower-case letters, digits and '-', a letter first, no '-' last, "
        "at most 40 characters",
    ),
    "description": (r"[^\x00-\x1f\x7f]{1,200}", "write one line of at most 200 characters"),
    "repository": (
        r"([A-Za-z0-9]([-A-Za-z0-9]{0,38})/(?!\.+$)[A-Za-z0-9._-]{1,100})?",
        "write owner/name, or nothing",
    ),
    "registry": (
        r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+(([._-]|__)[a-z0-9]+)*)*)?",
        "write host/path in lower case, such as ghcr.io/acme/digits, or nothing",
    ),
    "branch": (
        r"(?!ctflow/)(?!.*(//|/\.|\.\.|\.lock(/|$)))(?!HEAD$)[A-Za-z0-9_][A-Za-z0-9._/-]*(?<![./])",
        "write a branch name of letters, digits and ._/-, such as master",
    ),
    "runner": (r"local|kubeflow", "write local or kubeflow"),
}

for key, (rule, hint) in RULES.items():
    if not re.fullmatch(rule, ANSWERS[key]):
        sys.exit(f"{key} {ANSWERS[key]!r} is not valid; {hint}")
