"""Models of the standard formats, for the serving environment: no code of the project is needed.

A copy of this file runs beside the model server (see ``standard.py``). It answers as KServe's own
servers do: sklearnserver, xgbserver and lgbserver, MLServer for MLflow, Triton for ONNX. It uses
the standard library, numpy, pandas, kserve and the format's own library, which it imports late.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InferenceError, InvalidInput
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import get_predict_input, get_predict_response

#: What KServe's servers are started with: answers do not depend on the machine's cores.
_THREADS = 1


class StandardModel(Model):  # type: ignore[misc]
    """A model that is one file of the model's folder, known by its ending.

    ``load`` raises ValueError where there is no such file, or more than one. An answer that the
    model does not give is HTTP status 500, as KServe's servers have it.
    """

    format: ClassVar[str] = ""
    endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, model_dir: str) -> None:
        super().__init__(name)
        self.folder = Path(model_dir)
        self.model: Any = None

    def load(self) -> bool:
        """Read the model; raises ValueError where there is none."""
        self.model = self.read(self.found())
        self.ready = True
        return self.ready

    def found(self) -> Path:
        """The model's file."""
        names = [one for one in self.folder.iterdir() if one.is_file()]
        files = sorted(one for one in names if one.name.endswith(self.endings))
        if len(files) == 1:
            return files[0]
        held = ", ".join(sorted(one.name for one in (files or self.folder.iterdir()))[:5])
        fault = "more than one model file" if files else f"no {self.format} model"
        raise ValueError(
            f"{fault} in the model's folder ({held or 'it is empty'}): exactly one has to end in "
            f"{' or '.join(self.endings)}"
        )

    def read(self, file: Path) -> Any:
        raise NotImplementedError

    def answer(self, given: Any) -> Any:
        return self.model.predict(given)

    def given(self, payload: dict[str, Any] | InferRequest) -> Any:
        return get_predict_input(payload)

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer one request, V1 or Open Inference Protocol."""
        try:
            return self.response(payload, self.answer(self.given(payload)))
        except InvalidInput:
            raise
        except Exception as error:
            raise InferenceError(str(error)) from error

    def response(self, payload: Any, result: Any) -> Any:
        return get_predict_response(payload, result, self.name)


class SklearnModel(StandardModel):
    """A pickle of joblib or of Python itself."""

    format = "sklearn"
    endings = (".joblib", ".pkl", ".pickle")

    def read(self, file: Path) -> Any:
        import joblib

        return joblib.load(file)


class XgboostModel(StandardModel):
    """A booster as ``save_model`` writes it."""

    format = "xgboost"
    endings = (".bst", ".json", ".ubj")

    def read(self, file: Path) -> Any:
        import xgboost

        # The content, not the name, says which of XGBoost's formats it is.
        return xgboost.Booster({"nthread": _THREADS}, model_file=bytearray(file.read_bytes()))

    def answer(self, given: Any) -> Any:
        import xgboost

        return self.model.predict(xgboost.DMatrix(given, nthread=_THREADS))


class LightgbmModel(StandardModel):
    """A booster as ``save_model`` writes it."""

    format = "lightgbm"
    endings = (".bst", ".txt")

    def read(self, file: Path) -> Any:
        import lightgbm

        return lightgbm.Booster({"num_threads": _THREADS}, model_file=str(file))

    def given(self, payload: dict[str, Any] | InferRequest) -> Any:
        return get_predict_input(payload, columns=self.model.feature_name())


#: ONNX's element types as numpy has them.
_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class OnnxModel(StandardModel):
    """A graph with named inputs and outputs, all of them tensors.

    V2 names the inputs, with their very datatypes. V1 gives rows for the only input, or objects
    with a value for each; it gets the only output's rows, or objects with a value of each.
    """

    format = "onnx"
    endings = (".onnx",)

    def found(self) -> Path:
        """The file, also where Triton wants it: ``<name>/<version>/model.onnx``, the newest."""
        kept = [one for one in self.folder.glob("*/*/model.onnx") if one.parent.name.isdigit()]
        return max(kept, key=lambda one: int(one.parent.name)) if kept else super().found()

    def read(self, file: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = _THREADS
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        for one in (*session.get_inputs(), *session.get_outputs()):
            if one.type not in _ONNX_TYPES:
                raise ValueError(
                    f"{one.name} of the ONNX model is a {one.type}, and only tensors can be served"
                    " (skl2onnx: options={'zipmap': False})"
                )
        return session

    def given(self, payload: dict[str, Any] | InferRequest) -> Any:
        wanted = {one.name: _ONNX_TYPES[one.type] for one in self.model.get_inputs()}
        if isinstance(payload, InferRequest):
            found = {one.name: one for one in payload.inputs}
            if found.keys() != wanted.keys():
                raise InvalidInput(f"the model's inputs are {', '.join(wanted)}")
            return {name: _tensor(found[name], kind) for name, kind in wanted.items()}
        rows = payload["inputs"] if "inputs" in payload else payload["instances"]
        if len(wanted) == 1 and not (rows and isinstance(rows[0], dict)):
            return {name: np.array(rows, dtype=kind) for name, kind in wanted.items()}
        return {
            name: np.array([row[name] for row in rows], dtype=kind) for name, kind in wanted.items()
        }

    def answer(self, given: Any) -> Any:
        names = [one.name for one in self.model.get_outputs()]
        return dict(zip(names, self.model.run(names, given), strict=True))

    def response(self, payload: Any, result: Mapping[str, Any]) -> Any:
        if isinstance(payload, InferRequest):
            return _tensors(payload, result, self.name)
        columns = {name: np.asarray(value).tolist() for name, value in result.items()}
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        rows = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


class MlflowModel(StandardModel):
    """A folder with the file ``MLmodel``, answered through its Python function.

    V2 gives the function what the model's signature asks for: columns, named tensors, or one.
    """

    format = "mlflow"

    def found(self) -> Path:
        """The folder that holds ``MLmodel``."""
        inside = sorted(file.parent for file in self.folder.glob("*/MLmodel"))
        if (self.folder / "MLmodel").is_file():
            return self.folder
        if len(inside) == 1:
            return inside[0]
        raise ValueError("no mlflow model in the model's folder: it has to hold the file MLmodel")

    def read(self, file: Path) -> Any:
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(file))

    def given(self, payload: dict[str, Any] | InferRequest) -> Any:
        schema = self.model.metadata.get_input_schema()
        if not isinstance(payload, InferRequest):
            return _in_columns(_rows(payload), schema)
        kind = (payload.parameters or {}).get("content_type")
        if kind == "pd" or (kind is None and schema is not None and not schema.is_tensor_spec()):
            return _in_columns(payload.as_dataframe(), schema)
        named = schema is not None and schema.has_input_names()
        if kind == "np" or (kind is None and not named and len(payload.inputs) == 1):
            return get_predict_input(payload)
        return {one.name: one.as_numpy() for one in payload.inputs}

    def response(self, payload: Any, result: Any) -> Any:
        if not isinstance(payload, InferRequest) or hasattr(result, "columns"):
            return get_predict_response(payload, result, self.name)
        tensors = result if isinstance(result, dict) else {"output-1": result}
        return _tensors(payload, {name: _column(one) for name, one in tensors.items()}, self.name)


def _rows(payload: dict[str, Any]) -> Any:
    """V1's rows: a table where they are objects, else an array."""
    import pandas as pd

    rows = payload["inputs"] if "inputs" in payload else payload["instances"]
    return pd.DataFrame(rows) if rows and isinstance(rows[0], dict) else np.array(rows)


def _in_columns(given: Any, schema: Any) -> Any:
    """Rows as a table with the signature's columns and types, which JSON does not tell apart."""
    import pandas as pd

    if schema is None or schema.is_tensor_spec():
        return given
    if isinstance(given, np.ndarray) and schema.has_input_names():
        given = pd.DataFrame(given, columns=schema.input_names())
    if not isinstance(given, pd.DataFrame):
        return given
    for one in schema.inputs if schema.has_input_names() else ():
        if one.name in given and one.type.name in ("float", "double"):
            given[one.name] = given[one.name].astype(one.type.to_pandas())
    return given


def _column(value: Any) -> Any:
    """A tensor of at least two dimensions, as MLServer answers."""
    found = np.asarray(value)
    return found.reshape(-1, 1) if found.ndim < 2 else found


def _tensor(given: Any, kind: Any) -> Any:
    """A V2 input as the array that a graph takes."""
    datatype = "BYTES" if kind is np.object_ else from_np_dtype(np.dtype(kind))
    if given.datatype != datatype:
        raise InvalidInput(
            f"input {given.name} is {given.datatype}, and the model takes {datatype}"
        )
    try:
        found = given.as_numpy()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"input {given.name} does not fit its shape: {error}") from None
    if datatype != "BYTES":
        return found
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in found.ravel()]
    return np.array(texts, dtype=np.object_).reshape(found.shape)


def _tensors(request: InferRequest, result: Mapping[str, Any], model: str) -> InferResponse:
    """A V2 answer of named tensors: all, or those that the request asks for."""
    asked = [one.name for one in request.request_outputs or ()]
    if unknown := [name for name in asked if name not in result]:
        raise InvalidInput(f"there is no output {unknown[0]}; there are {', '.join(result)}")
    outputs = []
    for name in asked or result:
        value = np.asarray(result[name])
        if value.dtype.kind in "US":
            value = value.astype(np.object_)
        output = InferOutput(name, list(value.shape), from_np_dtype(value.dtype))
        output.set_data_from_numpy(value, binary_data=request.use_binary_outputs)
        outputs.append(output)
    return InferResponse(
        # The protocol wants an id in every response, also where the request has none.
        response_id=request.id or str(uuid.uuid4()),
        model_name=model,
        infer_outputs=outputs,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
