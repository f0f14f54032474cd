"""A script that completes verbs and flags in a shell.

bash: `source <(ctflow completion bash)`; zsh: the same with zsh; fish: `ctflow completion fish |
source`. In the shell's start-up file it holds for every session.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping

_BASH = """\
_ctflow() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} below=${{COMP_WORDS[2]}}
  local words="{verbs}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    words=
    case "$verb $below" in
{below}
    esac
    [ -n "$words" ] || case "$verb" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _ctflow ctflow
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow completion``."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    words = known_words()
    if args.shell == "fish":
        print(_fish(words), end="")
        return 0
    if args.shell == "zsh":
        print("autoload -Uz compinit bashcompinit && compinit && bashcompinit")
    verbs = " ".join(name for name in words if " " not in name)
    below = [name for name in words if " " in name]
    print(
        _BASH.format(
            verbs=verbs,
            below="\n".join(_case(name, words[name]) for name in below) or "      *) ;;",
            cases="\n".join(_case(name, words[name]) for name in words if " " not in name),
        ),
        end="",
    )
    return 0


def known_words() -> Mapping[str, list[str]]:
    """What may follow each verb, and each verb below a verb: names and flags."""
    from ctflow.cli import VERBS

    found: dict[str, list[str]] = {}
    for verb, (module, _) in VERBS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"ctflow.cli.{module}").add_arguments(parser)
        found[verb] = _flags(parser)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found[verb] = [*action.choices, *found[verb]]
                for name, one in action.choices.items():
                    found[f"{verb} {name}"] = _flags(one)
            elif not action.option_strings and action.choices:
                found[verb] = [*map(str, action.choices), *found[verb]]
    return found


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for flag in parser._option_string_actions if flag.startswith("--")]


def _case(name: str, words: list[str]) -> str:
    return f'      "{name}") words="{" ".join(words)}" ;;'


def _fish(words: Mapping[str, list[str]]) -> str:
    verbs = [name for name in words if " " not in name]
    lines = [f"complete -c ctflow -n __fish_use_subcommand -f -a '{' '.join(verbs)}'"]
    for verb in verbs:
        for word in words[verb]:
            where = f"-n '__fish_seen_subcommand_from {verb}'"
            what = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c ctflow {where} {what}")
    for name in words:
        verb, _, below = name.partition(" ")
        if below:
            where = f"'__fish_seen_subcommand_from {verb}; and __fish_seen_subcommand_from {below}'"
            lines += [f"complete -c ctflow -n {where} -l {word[2:]}" for word in words[name]]
    return "".join(f"{line}\n" for line in lines)
