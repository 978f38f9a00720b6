# Everything is a Go build; these are the command lines one would forget.

.DEFAULT_GOAL := help
SHELL := bash

# The race detector needs a C compiler.
RACE = $(shell command -v gcc >/dev/null && echo -race)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/vecino
	@mkdir -p bin
	go build -trimpath -o bin/vecino ./cmd/vecino

.PHONY: run
run: build ## build, and run a whole world on this machine
	@exec bin/vecino up

.PHONY: demo
demo: build ## watch the story of Isa's recipe, told by a world of its own
	@exec bin/vecino demo

.PHONY: test
test: needs fmt vet build ## install what tests need, then format, vet, test with -race, and fuzz for a moment
	CGO_ENABLED=$(if $(RACE),1,0) go test $(RACE) -p 2 -timeout 20m $$(go list ./... | grep -v '/e2e$$')
	VECINO_E2E_RACE=$(if $(RACE),1) CGO_ENABLED=$(if $(RACE),1,0) go test $(RACE) -timeout 20m ./e2e # alone: it keeps a machine busy
	.ci/fuzz 2000x
	@echo "make test: all is well"

.PHONY: check
check: test ## the same as test

.PHONY: fuzz
fuzz: ## run each fuzz target for half a minute
	.ci/fuzz 30s

.PHONY: bench
bench: ## measure, beside redis-server, and write docs/benchmarks.md
	@if [ -d bench ]; then go run ./bench; else echo "there is no bench in this tree"; fi

.PHONY: profile
profile: ## measure what builds are optimized by, cmd/vecino/default.pgo: ten minutes
	go run ./bench -only server -o "" -profile bin/profiles
	go run ./bench pgo bin/profiles cmd/vecino/default.pgo

.PHONY: soak
soak: ## ten minutes of everything at once, with a ledger; SOAK=1m for less
	go run ./bench soak -for $${SOAK:-10m}

.PHONY: needs
needs:
	@.ci/needs

.PHONY: fmt
fmt:
	@unformatted="$$(gofmt -l .)"; \
	if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on: $$unformatted"; exit 1; fi

.PHONY: vet
vet:
	go vet ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
