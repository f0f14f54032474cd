"""Predictions files: read from CSV, JSON lines, Parquet and Arrow, checked, held compactly."""
