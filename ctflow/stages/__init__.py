"""The stages, each a function of the result before it and of ports."""
