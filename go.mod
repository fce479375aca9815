module github.com/nucleus-container/nucleus

go 1.26.0

require (
	github.com/moby/profiles/seccomp v0.3.0
	github.com/pelletier/go-toml/v2 v2.4.3
	github.com/rogpeppe/go-internal v1.16.0
	go.opentelemetry.io/proto/slim/otlp v1.11.1
	golang.org/x/sys v0.49.0
	golang.org/x/term v0.47.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/opencontainers/runtime-spec v1.2.1 // indirect
	golang.org/x/tools v0.26.0 // indirect
)
