"""Compiling a pipeline definition to KFP's package."""
