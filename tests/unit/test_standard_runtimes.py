"""The standard runtimes' parts: requirements, the manifest, layouts, the folder, the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ctflow.config.settings import project_of
from ctflow.errors import ConfigError
from ctflow.lib.requirements import is_pinned, is_requirement, name_of, restricted
from ctflow.model import OWN, STANDARD, ModelRef, Release, ServingRef, Verdict, from_json, to_json
from ctflow.release.manifest import odd_protocol, render
from ctflow.release.serving import change_of, described, unpinned
from ctflow.serving.golden import READY, golden_in
from ctflow.serving.local.standard import KSERVE, MODELS, write_runtime
from ctflow.serving.local.timing import worth_timing

REQUIREMENTS = """\
--extra-index-url https://packages.example.org/simple
Scikit_Learn==1.7.2 \\
    --hash=sha256:00 --hash=sha256:11
numpy>=2 ; python_version >= "3.10"  # for the arrays
requests==2
"""


def release(runtime: str, kind: str = "sklearn") -> Release:
    serving = ServingRef("deploy/staging/serving", "", "", "sha256:1", runtime)
    return Release(
        "digits", "staging", ModelRef("file:///m", "sha256:2", kind), "r-1", "p", "v", "sha256:3",
        "c" * 40, 1.0, Verdict("digits", "staging", "r-1", "promote", ()), serving=serving,
    )  # fmt: skip


def test_only_the_formats_packages_are_taken_and_where_they_come_from() -> None:
    names = ("scikit-learn", "numpy", "scipy")
    assert restricted(REQUIREMENTS, names) == (
        "--extra-index-url https://packages.example.org/simple",
        "Scikit_Learn==1.7.2",
        'numpy>=2 ; python_version >= "3.10"',
    )
    assert restricted(REQUIREMENTS, ("xgboost",)) == ()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Scikit.Learn[extra] == 1.0", "scikit-learn"),
        ("a@https://x.test/a.whl", "a"),
        ("numpy", "numpy"),
        ("-r other.txt", ""),
        ("./here", ""),
        ("a @ file:///etc", ""),
        ("numpy==1\x1b[31m", ""),
        ("two words", ""),
    ],
)
def test_the_package_that_a_line_names(line: str, name: str) -> None:
    assert name_of(line) == name
    assert is_requirement(line) == bool(name)


def test_an_option_behind_a_package_is_no_requirement() -> None:
    assert not is_requirement("numpy==1 --index-url https://x.test")
    assert [is_pinned(line) for line in ("a==1", "a>=1", 'a>1; python_version == "3.10"')] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["-r other.txt", "--index-url https://x.test", "../a", ""])
def test_the_setting_takes_packages_only(line: str) -> None:
    text = yaml.safe_dump({"project": "p", "serving": {"requirements": [line]}})
    with pytest.raises(ConfigError, match="is not a package such as"):
        project_of(text, "ctflow.yaml")


def test_every_format_has_a_model_class_here() -> None:
    assert MODELS.keys() == STANDARD.keys()
    text = (Path(write_runtime.__code__.co_filename).parent / "standard_models.py").read_text()
    assert all(f"class {name}(StandardModel):" in text for name in MODELS.values())


def test_the_runtimes_folder(tmp_path: Path) -> None:
    write_runtime(tmp_path, "xgboost", ("xgboost==3.2.0",))
    assert (tmp_path / "requirements.txt").read_text() == f"{KSERVE}\nxgboost==3.2.0\n"
    assert "import XgboostModel as Predictor" in (tmp_path / "predictor.py").read_text()
    write_runtime(tmp_path, "xgboost", ("KServe==0.20.0", "xgboost==3.2.0"))
    assert (tmp_path / "requirements.txt").read_text() == "KServe==0.20.0\nxgboost==3.2.0\n"
    with pytest.raises(ConfigError, match="no standard runtime 'pmml'; it has sklearn, xgboost"):
        write_runtime(tmp_path, "pmml", ())


def test_without_golden_requests_only_readiness_is_asked(tmp_path: Path) -> None:
    assert golden_in(tmp_path, "") == (READY,)
    assert worth_timing(golden_in(tmp_path, "")) == []
    with pytest.raises(ConfigError, match=r"cannot read golden\.json"):
        golden_in(tmp_path, "golden.json")


@pytest.mark.parametrize(
    ("runtime", "protocol"),
    [("sklearn", None), ("xgboost", None), ("lightgbm", None), ("onnx", "v2"), ("mlflow", "v2"),
     (OWN, "v2")],
)  # fmt: skip
def test_the_manifest_names_what_makes_kserve_choose_its_own_server(
    runtime: str, protocol: str | None
) -> None:
    """KServe takes no protocol for V1, which MLServer and Triton do not serve."""
    kind = "sklearn" if runtime == OWN else runtime
    made = yaml.safe_load(render(release(runtime, kind), None, "here"))
    model = made["spec"]["predictor"]["model"]
    assert model.pop("modelFormat") == {"name": kind}
    assert model.pop("storageUri") == "file:///m"
    assert model == ({"protocolVersion": protocol} if protocol else {})


def test_a_manifest_from_before_gets_the_protocol_that_the_format_needs() -> None:
    before = render(release("sklearn"), None, "here")
    after = yaml.safe_load(render(release("mlflow", "mlflow"), before, "here"))
    assert after["spec"]["predictor"]["model"]["protocolVersion"] == "v2"


def test_a_manifest_that_makes_kserve_choose_another_server_is_told_of() -> None:
    own = render(release(OWN), None, "here")
    assert "KServe chooses MLServer" in odd_protocol(release("sklearn"), own)
    assert odd_protocol(release(OWN), own) == ""
    assert odd_protocol(release("onnx", "onnx"), own) == ""
    assert odd_protocol(release("sklearn"), render(release("sklearn"), None, "here")) == ""
    named = own.replace(
        "      protocolVersion", "      runtime: kserve-mlserver\n      protocolVersion"
    )
    assert odd_protocol(release("sklearn"), named) == ""


def test_a_release_of_before_is_served_by_its_own_predictor() -> None:
    data = to_json(release(OWN))
    assert data["version"] == 4
    old = data | {"version": 2}
    old["serving"] = {"folder": "f", "predictor": "p.py", "golden": "g.json", "digest": "sha256:1"}
    found = from_json(Release, old).serving
    assert found == ServingRef("f", "p.py", "g.json", "sha256:1", OWN, (), "")
    none = from_json(Release, data | {"version": 2, "serving": None})
    assert none.serving is None
    kept = replace(release("sklearn"), serving=replace(SKLEARN, requirements=("a==1",)))
    assert from_json(Release, to_json(kept)) == kept


SKLEARN = ServingRef("f", "", "golden.json", "sha256:1", "sklearn", ("scikit-learn==1.7.2",))


def test_what_is_new_in_how_a_model_is_served() -> None:
    own = ServingRef("f", "predictor.py", "golden.json", "sha256:0")
    assert change_of(own, SKLEARN) == "runtime (predictor -> sklearn)"
    assert change_of(SKLEARN, own) == "runtime (sklearn -> predictor)"
    assert change_of(own, replace(own, digest="sha256:2")) == "serving code"
    assert change_of(own, replace(own, image="x@sha256:3")) == "image of the predictor"
    loose = replace(SKLEARN, requirements=("scikit-learn", "numpy==2.2.6"))
    assert change_of(SKLEARN, loose) == "requirements of the runtime sklearn"
    assert change_of(SKLEARN, replace(SKLEARN, digest="sha256:2")) == "golden requests"
    assert described(SKLEARN) == "standard runtime sklearn (scikit-learn==1.7.2)"
    assert (unpinned(SKLEARN), unpinned(loose), unpinned(own)) == ("", "scikit-learn", "")
