"""``ctflow.yaml``: what may be said, and how it is read."""
