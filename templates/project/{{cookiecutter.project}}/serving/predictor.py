"""How the model is served: a KServe model over the V1 and the Open Inference (V2) protocol.

`ctflow deploy` starts the class on this machine; an image of the Dockerfile here starts `main`.
"""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput

FEATURES = 64


class Predictor(Model):
    """Predicts the digit in an image of 64 pixels, each 0 to 16.

    V1: `{"instances": [[64 numbers], ...]}` -> `{"predictions": [digit, ...]}`.
    V2: one input of shape (images, 64) -> one output `predictions`, INT64, shape (images,).
    """

    def __init__(self, name: str, model_dir: str) -> None:
        super().__init__(name)
        self.model_dir = Path(model_dir)
        self.model: Any = None

    def load(self) -> bool:
        """Read `model.joblib`; raises OSError where there is none."""
        self.model = joblib.load(self.model_dir / "model.joblib")
        self.ready = True
        return self.ready

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer one request; raises InvalidInput (HTTP 400) where it is not as above."""
        if isinstance(payload, InferRequest):
            images = self._check(self._tensor(payload))
            output = InferOutput(name="predictions", shape=[len(images)], datatype="INT64")
            binary = payload.use_binary_outputs
            output.set_data_from_numpy(self._digits(images), binary_data=binary)
            return InferResponse(
                # The protocol requires an id in every response, even if the request has none.
                response_id=payload.id or str(uuid.uuid4()),
                model_name=self.name,
                infer_outputs=[output],
                use_binary_outputs=binary,
                requested_outputs=payload.request_outputs,
            )
        if not isinstance(payload, dict) or not isinstance(payload.get("instances"), list):
            raise InvalidInput('expected {"instances": [[64 numbers], ...]}')
        return {"predictions": self._digits(self._check(payload["instances"])).tolist()}

    def _digits(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self.model.predict(images), dtype=np.int64)

    @staticmethod
    def _tensor(request: InferRequest) -> Any:
        if len(request.inputs) != 1:
            raise InvalidInput(f"expected one input tensor, got {len(request.inputs)}")
        try:
            return request.inputs[0].as_numpy()
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the input does not fit its shape and datatype: {error}") from None

    @staticmethod
    def _check(images: Any) -> np.ndarray:
        """The images as floats, (images, 64)."""
        try:
            array = np.asarray(images, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidInput(f"expected rows of {FEATURES} numbers each") from None
        if array.shape == (0,):
            return array.reshape(0, FEATURES)
        if array.ndim != 2 or array.shape[1] != FEATURES:
            raise InvalidInput(
                f"expected rows of {FEATURES} numbers, got an array of shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise InvalidInput("a pixel is not a finite number")
        return array


def main() -> None:
    # The server's own flags (--http_port, --workers, ...) are left for it to read.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_name", default="{{ cookiecutter.project }}")
    parser.add_argument("--model_dir", default="/mnt/models", help="where KServe puts the model")
    args, _ = parser.parse_known_args()
    predictor = Predictor(args.model_name, args.model_dir)
    predictor.load()
    ModelServer().start([predictor])


if __name__ == "__main__":
    main()
