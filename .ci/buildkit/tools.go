//go:build tools

// Package tools names the programs that .ci/install-buildkit builds, so that go.mod and go.sum pin
// them and all that they need. After a change of a version: `go mod tidy` in this folder.
package tools

import (
	_ "github.com/docker/buildx/cmd/buildx"
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
