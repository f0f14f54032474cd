"""How the model is served: four numbers of an iris in, its kind out (V1 protocol).

`ctflow deploy` starts the class on this machine; an image of the Dockerfile here starts `main`.
"""

import argparse
from pathlib import Path

import joblib
from kserve import Model, ModelServer
from kserve.errors import InvalidInput


class Predictor(Model):
    """`{"instances": [[4 numbers], ...]}` -> `{"predictions": [0, 1 or 2, ...]}`."""

    def __init__(self, name, model_dir):
        super().__init__(name)
        self.folder = Path(model_dir)

    def load(self):
        self.forest = joblib.load(self.folder / "model.joblib")
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        try:
            answers = self.forest.predict(payload["instances"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f'expected {{"instances": [[4 numbers], ...]}}: {error}') from None
        return {"predictions": [int(answer) for answer in answers]}


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
