"""The formulas of tests and intervals, each with its source."""
