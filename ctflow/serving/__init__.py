"""Serving targets, and the golden requests that models answer."""
