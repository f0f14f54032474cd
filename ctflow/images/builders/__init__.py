"""Engines that build images, one module each, and the builder that asks them."""
