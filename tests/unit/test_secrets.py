"""Secrets: masked on every way out, and never handed to who does not need them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctflow.adapters.builders.engine import execute
from ctflow.errors import RunFailed
from ctflow.secrets import KNOWN, MaskedStream, Masker, pieces
from ctflow.variables import handed_on
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
