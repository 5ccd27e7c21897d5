# The verbs of this repository. `make run` and `make test` need Go and nothing else; what the tests
# drive (nginx, Python, Postgres, Redis, HAProxy, Prometheus, Chromium) is installed with apt when this runs as root, and named otherwise.

GO ?= go
BIN := bin/gantry
FUZZTIME ?= 5m
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: run build test lint bench fuzz tools

run: build
	./$(BIN) serve

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN) ./cmd/gantry

test: tools
	GO="$(GO)" .ci/test

lint:
	@unformatted=$$($(GO) tool gofumpt -l .); test -z "$$unformatted" || { echo "not gofumpt clean:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...
	./bench/footprint.sh

# Every fuzz target in turn, each for FUZZTIME.
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

# What the tests drive, as program:package. Debian keeps some programs out of PATH.
PROGRAMS := nginx:nginx-light python3:python3 postgres:postgresql pgbouncer:pgbouncer redis-server:redis-server haproxy:haproxy \
  prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager chromium:chromium

tools:
	@PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')"; missing=; \
	for p in $(PROGRAMS); do command -v $${p%%:*} >/dev/null || missing="$$missing $${p#*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "some tests will be skipped; to run them: apt-get install$$missing"; fi; \
	fi
