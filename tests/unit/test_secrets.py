"""Secrets: masked on every way out, and never handed to who does not need them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctflow.cli.common import print_json
from ctflow.cli.trigger import _copy
from ctflow.config.project import RolloutConfig
from ctflow.errors import RunFailed
from ctflow.images.builders.commands import execute
from ctflow.lib.secrets import KNOWN, MaskedStream, Masker, pieces
from ctflow.lib.variables import handed_on
from ctflow.model import Hold, ModelRef, Override, Reason, Release, Verdict
from ctflow.release.files import read, reason_of, without_secrets, write, write_holds
from ctflow.report import Evidence, promotion_report
from ctflow.report.blocks import Bullets, Table
from ctflow.report.markdown import to_markdown
from tests.projects import environ

KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KNOWN, "_values", set())
    monkeypatch.setattr(KNOWN, "_pieces", ())


def test_a_secret_is_masked_whole_and_line_by_line() -> None:
    masker = Masker()
    masker.add(KEY, "hunter22")
    for text in (KEY, "the key MIIEvQIBADANBg, and", "kqhkiG9w0BAQEF", "hunter22!"):
        masked = masker.mask(text)
        assert "***" in masked
        assert not any(piece in masked for piece in pieces([KEY, "hunter22"]))
    assert masker.mask("nothing here") == "nothing here"


def test_what_is_in_another_secret_does_not_leave_its_rest() -> None:
    masker = Masker()
    masker.add("word", "password1word")
    assert masker.mask("is password1word") == "is ***"


def test_short_values_are_not_looked_for() -> None:
    masker = Masker()
    masker.add("abc", "", "\n", "a\nbcd\nlonger")
    assert masker.mask("abc a bcd") == "abc a bcd"
    assert masker.mask("longer") == "***"


ODD = ('pa"ss\\word', "pässwörd", "two\nlines\tof it")


@pytest.mark.parametrize("value", ODD)
def test_a_quoted_secret_is_masked(value: str) -> None:
    masker = Masker()
    masker.add(value)
    for text in (json.dumps({"a": value}), json.dumps({"a": value}, ensure_ascii=False)):
        assert json.loads(masker.mask(text)) == {"a": "***"}
    assert (
        masker.mask(f"unknown word {value!r}")
        == f"unknown word {repr(value)[0]}***{repr(value)[0]}"
    )


def test_data_is_masked_whatever_it_is_made_of() -> None:
    masker = Masker()
    masker.add("hunter22")
    report = [Bullets(("is hunter22", "b")), Table(("a",), (("hunter22",),), frozenset({0}))]
    assert masker.masked(report) == [
        Bullets(("is ***", "b")), Table(("a",), (("***",),), frozenset({0})),
    ]  # fmt: skip
    plain = {"hunter": ["hunter22", 1, None, 2.5, True], "b": {"c": ("x", "hunter22")}}
    assert masker.masked(plain) == {
        "hunter": ["***", 1, None, 2.5, True], "b": {"c": ("x", "***")},
    }  # fmt: skip


@pytest.mark.parametrize("value", ODD)
def test_json_on_standard_output_is_masked(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    KNOWN.add(value)
    print_json({"a": [value, "b"]})
    assert json.loads(capsys.readouterr().out) == {"a": ["***", "b"]}


@pytest.mark.parametrize("value", ["it's pa*s<s>w|ord", *ODD])
def test_what_git_keeps_of_a_release_is_masked(value: str) -> None:
    KNOWN.add(value, "abcd")
    override = Override(f"because {value}", "a <a@b>")
    reason = Reason("accuracy", "reject", f"it says {value}")
    verdict = Verdict("p", "e", "r-1", "reject", (reason,), override=override, notes=(value,))
    digest = f"sha256:{'abcd' * 16}"
    model = ModelRef("file:///abcd", digest, "sklearn", 1)
    known = {"key": value, "all": [value]}
    release = without_secrets(
        Release("p", "staging", model, "r-1", "p", "v", digest, "abcd" * 10, 0.0, verdict, known)
    )
    made = write(release, None, None)
    report = promotion_report(Evidence(release, None, RolloutConfig()))
    made["report"] = to_markdown(report).encode()
    made["holds"] = write_holds([Hold(digest, reason_of(f"it is {value}"), "a", "b")])
    for name in ("deploy/staging/release.yaml", "report", "holds"):
        text = made[name].decode().replace("\\", "")
        assert "***" in text
        for part in ("pa*s", "s<s", "word", "ssw", "lines"):
            assert part not in text, name
    kept = read(made["deploy/staging/release.yaml"], "release.yaml")
    assert kept == release
    assert kept.model.digest == digest  # with a secret's letters in it, and still itself
    assert kept.parameters == {"key": "***", "all": ["***"]}


def test_logins_in_urls_are_masked_without_being_known() -> None:
    masker = Masker()
    assert (
        masker.mask("at https://me:s3cr3t@host.example/x.git")
        == "at https://***@host.example/x.git"
    )
    assert masker.mask("at https://ghp_abc@host.example/x") == "at https://***@host.example/x"
    for kept in ("ssh://git@host.example/x", "git@host.example:x", "https://host.example/@a"):
        assert masker.mask(kept) == kept


def test_variables_whose_names_say_so_are_known() -> None:
    masker = Masker()
    masker.learn({
        "GITHUB_TOKEN": "ghp_0123456789", "DB_PASSWORD": "correct horse", "API_KEY": "true",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/key.json", "EDITOR": "emacs-nox",
    })  # fmt: skip
    text = "ghp_0123456789 correct horse true /home/me/key.json emacs-nox"
    assert masker.mask(text) == "*** *** true /home/me/key.json emacs-nox"


def test_a_masked_stream_is_the_stream_otherwise() -> None:
    masker, stream = Masker(), io.StringIO()
    masker.add("hunter22")
    masked = MaskedStream(stream, masker)
    print("it is hunter22", file=masked)
    masked.writelines(["hunter22\n", "b\n"])
    assert stream.getvalue() == "it is ***\n***\nb\n"
    assert masked.isatty() is False


def test_a_secret_written_in_parts_is_masked() -> None:
    masker, stream = Masker(), io.StringIO()
    masker.add("hunter22")
    masked = MaskedStream(stream, masker)
    for part in ("it is hun", "ter22, ", "and hunter", "22\nnext hun"):
        masked.write(part)
    assert stream.getvalue() == "it is ***, and ***\n"
    masked.write("ter22\rhunt")
    assert stream.getvalue() == "it is ***, and ***\nnext ***\r"
    masked.flush()
    assert stream.getvalue().endswith("\rhunt")
    masked.write("hunter")
    masked.write("22")
    masked.close()
    assert stream.getvalue().endswith("\rhunt***")
    assert not stream.closed


@pytest.mark.parametrize("ends", ["return 3", "raise OSError(28, 'no')", "raise ZeroDivisionError"])
def test_what_a_verb_wrote_last_comes_out_however_it_ends(ends: str) -> None:
    script = (
        "import argparse, sys\nfrom ctflow.cli import _masked\n"
        "def run(args):\n    sys.stdout.write('hun')\n    sys.stdout.write('ter2222')\n"
        f"    sys.stderr.write('last word')\n    {ends}\n"
        "sys.exit(_masked(run, argparse.Namespace(verbose=False)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env=environ({"MY_TOKEN": "hunter2222"}),
    )  # fmt: skip
    assert done.returncode == {"ret": 3, "rai": 5}[ends[:3]] or "Zero" in ends
    assert done.stdout == "***"
    assert "last word" in done.stderr


def test_a_followed_log_is_masked_line_by_line(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    KNOWN.add("hunter22")
    log = tmp_path / "log"
    log.write_bytes(b"a hunter22 \xff\nit is hun")
    at = _copy(log, 0, whole=False)
    log.write_bytes(log.read_bytes() + b"ter22")
    assert _copy(log, at, whole=True) == len(log.read_bytes())
    assert capfdbinary.readouterr().out == b"a *** \xff\nit is ***"


def test_the_last_lines_of_a_failing_command_are_masked() -> None:
    KNOWN.add(KEY)
    seen: list[str] = []
    script = f"printf '%s' '{KEY}'; echo oops; exit 3"
    with pytest.raises(RunFailed) as caught:
        execute(["sh", "-c", script], seen.append, what="building", environ=dict(os.environ))
    for lines in (seen, caught.value.details):
        assert "MIIEvQ" not in " ".join(lines)
        assert "oops" in lines


def test_whatever_a_verb_prints_is_masked(tmp_path: Path) -> None:
    (tmp_path / "ctflow.yaml").write_text("project: tiny\nbranch: ghp_0123456789\n")
    registry = "images.registry=https://u:pw123456@h/ghp_0123456789"
    for words in (["config"], ["config", "--json"], ["deploy", "nowhere", "-v"],
                  ["build", "--set", registry]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "ctflow", *words], cwd=tmp_path, capture_output=True, text=True,
            env=environ({"MY_TOKEN": "ghp_0123456789"}),
        )  # fmt: skip
        assert "ghp_0123456789" not in done.stdout + done.stderr, words
        assert "pw123456" not in done.stdout + done.stderr, words
        assert done.stdout + done.stderr


def test_only_what_is_needed_is_handed_on() -> None:
    given = {
        "PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C", "https_proxy": "http://p", "TZ": "UTC",
        "CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "2", "GITHUB_TOKEN": "x",
        "PYTHONPATH": "/x",
        "AWS_SECRET_ACCESS_KEY": "x", "GIT_DIR": "/x", "CTFLOW_STATE": "/x", "DATA_DIR": "/data",
        "UV_INDEX_PASSWORD": "x", "VIRTUAL_ENV": "/x",
    }  # fmt: skip
    usual = ["PATH", "HOME", "LC_ALL", "https_proxy", "TZ", "CUDA_VISIBLE_DEVICES",
             "OMP_NUM_THREADS"]  # fmt: skip
    assert list(handed_on(given)) == usual
    assert list(handed_on(given, ["DATA_DIR"])) == [*usual, "DATA_DIR"]
