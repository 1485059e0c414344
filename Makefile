# Everything is a script or a cargo command; this file only names them. `make` prints this list.
SHELL := /bin/bash
STEP := .ci/step
SCRIPTS := $(shell git ls-files -s hw-setup xdp-prog .ci benches 2>/dev/null | awk '$$1 == "100755" { print $$4 }')

.DEFAULT_GOAL := help
.PHONY: help demo test bench setup doctor lab-up lab-down clean
.PHONY: check-format check-clippy check-scripts test-cargo test-object test-fuzz test-instructions check-docs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## install what is missing, build, run engine and generator on a lab, report, clean up
	@hw-setup/demo

test: ## install what is missing, rebuild the eBPF object, run every test and check
	@$(STEP) 'dependencies' hw-setup/deps test
	@$(STEP) 'format' $(MAKE) --no-print-directory check-format
	@$(STEP) 'scripts' $(MAKE) --no-print-directory check-scripts
	@$(STEP) 'eBPF object' $(MAKE) --no-print-directory test-object
	@$(STEP) 'clippy' $(MAKE) --no-print-directory check-clippy
	@$(STEP) 'tests' $(MAKE) --no-print-directory test-cargo
	@$(STEP) 'fuzz' $(MAKE) --no-print-directory test-fuzz
	@$(STEP) 'instructions per packet' $(MAKE) --no-print-directory test-instructions
	@$(STEP) 'documentation' $(MAKE) --no-print-directory check-docs

bench: ## install the peers, measure ours against them, write target/bench/*.json
	@hw-setup/deps bench
	cargo build --release -p volley -p volley-bench
	target/release/volley-bench all

setup: ## install everything that demo, test and bench need
	hw-setup/deps test
	hw-setup/deps bench

doctor: ## say what this machine can and cannot do, and what to do about it
	@hw-setup/deps build
	cargo run --quiet --release -p volley -- doctor

lab-up: ## make a namespace and a veth pair to try things on
	@hw-setup/deps run
	@hw-setup/veth-lab up

lab-down: ## remove them
	@hw-setup/veth-lab down

clean: ## remove what was built
	cargo clean
