"""Reports: markdown and HTML from the same documents."""
