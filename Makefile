# Targets for people. Each is one command that also works without make.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X $(VERSION_VAR)=$(VERSION)
VERSION_VAR = github.com/nucleus-container/nucleus/internal/cli.version
SUITE    = $(GO) run ./internal/suite
FUZZTIME ?= 20s
SHELL    = /bin/bash
export CGO_ENABLED = 0
# A clone that belongs to somebody else has no revision that git would tell.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

.PHONY: help build demo check test test-vm test-all golden fuzz bench soak man clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

build: ## make bin/nucleus, one static file, and its companion bin/nucleus-otel
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/nucleus ./cmd/nucleus
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/nucleus-otel ./cmd/nucleus-otel

demo: build ## show what it does
	./scripts/demo

check: ## format, vet on amd64 and arm64, the shape of the module
	$(SUITE) -check

test: ## all tests here: as root and as an ordinary user, or as you
	@if [ "$$(id -u)" = 0 ]; then scripts/setup test && $(SUITE) -root -user; \
	else echo "not root: running as $$(id -un) only; the same as root runs both" >&2; $(SUITE) -user; fi

test-vm: ## all tests in a virtual machine with systemd and cgroup v2, some with a newer kernel
	scripts/setup vm && $(SUITE) -guest

test-all: check test test-vm ## everything

golden: ## rewrite golden files; read the difference before you commit it
	@for p in $$(grep -rl --include=*_test.go 'flag.Bool("update"' . | xargs -r -n1 dirname | sort -u); do \
		$(GO) test "$$p" -update || exit 1; done; git status --short -- '*golden*' '*testdata*'

fuzz: ## every fuzz target, FUZZTIME each
	@grep -ro --include=*_test.go '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func / /' | while read -r f t; do \
		$(GO) test "$$(dirname "$$f")" -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) </dev/null || exit 1; done

bench: build ## measure the promises, beside the neighbours
	@[ "$$(id -u)" != 0 ] || scripts/setup bench
	$(GO) run ./internal/bench

soak: build ## 1000 sandboxes at once, then 10000 lives of one with kills; an hour or less
	$(GO) run ./internal/soak -nucleus bin/nucleus
	$(GO) run ./internal/soak -nucleus bin/nucleus -many 0 -kill

man: build ## manual pages into bin/man
	bin/nucleus man bin/man
	bin/nucleus-otel --man > bin/man/nucleus-otel.1

clean: ## remove what was built; the virtual machine's image stays in .cache
	rm -rf bin
