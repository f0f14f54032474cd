"""Metrics as computed from predictions: values, resamples, and each example's part."""
