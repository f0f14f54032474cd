module ctflow/tests/e2e/servers/pause

go 1.26.0
