"""Judging a run's model: its scores, the champion's on the same examples, golden requests."""
