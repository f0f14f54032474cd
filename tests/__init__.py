"""Tests. A slow machine is no failure, so hypothesis sets no deadlines anywhere."""

from hypothesis import settings

settings.register_profile("ctflow", deadline=None)
settings.load_profile("ctflow")
