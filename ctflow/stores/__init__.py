"""Stores of models, and what is remembered of them."""
