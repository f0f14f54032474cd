"""How the model is served: rows of a table in, as JSON objects; predictions out (V1).

`ctflow deploy` starts the class on this machine; an image of the Dockerfile here starts `main`.
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
from kserve import Model, ModelServer
from kserve.errors import InvalidInput


class Predictor(Model):
    """`{"instances": [{"months": 3, "plan": "basic", ...}, ...]}` -> `{"predictions": [...]}`.

    A column that is left out, null or empty is missing, as in training.
    """

    def __init__(self, name, model_dir):
        super().__init__(name)
        self.folder = Path(model_dir)

    def load(self):
        self.kept = joblib.load(self.folder / "model.joblib")
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        try:
            rows = [self._values(row) for row in payload["instances"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f'expected {{"instances": [{{column: value}}]}}: {error}') from None
        if not rows:
            return {"predictions": []}
        answers = self.kept["model"].predict(np.array(rows, dtype=object))
        return {"predictions": [str(answer) for answer in answers]}

    def _values(self, row):
        unknown = row.keys() - set(self.kept["numbers"]) - set(self.kept["categories"])
        if unknown:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        given = {name: value for name, value in row.items() if value not in (None, "")}
        numbers = [float(given.get(name, "nan")) for name in self.kept["numbers"]]
        return [*numbers, *(str(given.get(name, "(none)")) for name in self.kept["categories"])]


def main():
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
