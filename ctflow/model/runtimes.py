"""What serves a model: the project's own predictor, or the standard runtime of its format.

A standard runtime is KServe's own server of a model format: it needs no code of the project, only
the format's name in the manifest. On this machine a program of ctflow stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The runtime of a release that is served by the project's own code.
OWN = "predictor"
#: Where the names of images begin that are in no registry: they name a content.
LOCAL_IMAGES = "ctflow.local"


def is_local_image(reference: str) -> bool:
    """Whether an image only names a content, so that nobody can pull it."""
    return reference.startswith(f"{LOCAL_IMAGES}/")


@dataclass(frozen=True)
class Standard:
    """A format's standard runtime.

    Attributes:
        library: the packages that load such a model, any one of them; the first is named in errors.
        beside: packages whose version matters beside it, because the model's file holds their
            objects or the library computes with them.
        default: what is installed where nothing says a version; empty: that is an error, for a
            model must be loaded with the library that wrote it.
        v2_only: whether KServe's server of the format answers the Open Inference Protocol only.
            KServe takes a model without ``protocolVersion`` for one of V1 and finds no server then.
    """

    library: tuple[str, ...]
    beside: tuple[str, ...] = ("numpy", "scipy")
    default: str = ""
    v2_only: bool = False


#: By KServe's modelFormat. That of mlflow says its requirements itself, in its folder.
STANDARD = {
    "sklearn": Standard(("scikit-learn",), ("joblib", "numpy", "scipy")),
    "xgboost": Standard(("xgboost", "xgboost-cpu")),
    "lightgbm": Standard(("lightgbm",)),
    # Each onnxruntime reads the files of all ONNX versions before it.
    "onnx": Standard(("onnxruntime",), ("numpy",), "onnxruntime==1.23.2", v2_only=True),
    "mlflow": Standard(("mlflow", "mlflow-skinny"), (), v2_only=True),
}
