# Everything is a script or a cargo command; this file only names them. `make` prints this list.
SHELL := /bin/bash
STEP := .ci/step
# Executable text: every script there is. (The list is found, so that a new one is checked, too.)
SCRIPTS = $(shell grep -Ilr --exclude-dir=target '^\#!.*sh$$' .ci hw-setup xdp-prog benches)
# What `cargo build` leaves out, since it needs a system library: DPDK.
ALL = --features volley/dpdk,volley-bench/dpdk
FUZZ = $(patsubst %/Cargo.toml,%,$(wildcard */fuzz/Cargo.toml))
# Long enough to run into what a change broke; a hunt for bugs takes hours, and is started by hand.
FUZZ_SECONDS ?= 15
# Of every scenario of `make bench`: ten are some two hours, and the least that give an interval of 95 % are six.
ROUNDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help demo demo-dpdk test test-nic bench setup doctor lab-up lab-down clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## install what is missing, build, run engine and generator on a lab, report, clean up
	@hw-setup/demo

demo-dpdk: ## the same over DPDK: install it, build with it, run over shared memory, report, clean up
	@hw-setup/demo-dpdk

test: ## install what is missing, rebuild the eBPF object, run every test and check
	@$(STEP) dependencies hw-setup/deps test
	@$(STEP) 'eBPF object' xdp-prog/build-object --check
	@$(STEP) format cargo fmt --all --check
	@$(STEP) scripts shellcheck --external-sources $(SCRIPTS)
	@$(STEP) 'tests of scripts' bats --timing hw-setup/tests
	@$(STEP) 'without DPDK' cargo check --locked --all-targets
	@$(STEP) clippy cargo clippy --locked --workspace --all-targets $(ALL) -- -D warnings
	@$(STEP) 'peers of the benches' cargo clippy --locked --manifest-path benches/peers/Cargo.toml --target-dir target --all-targets -- -D warnings
	@$(STEP) 'a newer DPDK' dpdk-backend/newer-lts
	@$(STEP) tests cargo test --locked --workspace $(ALL)
	@$(STEP) 'a NIC in a box' hw-setup/nic-in-a-box/run
	@for crate in $(FUZZ); do $(STEP) "fuzz $$crate" .ci/fuzz $$crate $(FUZZ_SECONDS) || exit 1; done
	@$(STEP) 'instructions per packet' benches/instructions
	@$(STEP) documentation env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace $(ALL) --no-deps

test-nic: ## boot a machine with NICs in QEMU: zero-copy, binding and restoring on real drivers
	@hw-setup/deps nic
	@$(STEP) 'a NIC in a box' hw-setup/nic-in-a-box/run

bench: ## install the peers, measure ours against them (ROUNDS=10), write target/bench/*.json and matrix.html
	@hw-setup/deps bench
	cargo build --release --locked -p volley -p volley-bench --features volley/dpdk
	cargo build --release --locked -p volley-xdp --example steer-cost
	benches/peers/build
	cargo test --quiet --release --locked --manifest-path benches/peers/Cargo.toml --target-dir target/peers
	cargo build --release --locked -p volley-tcp --example echo_speed
	cargo bench --locked -p volley-bench --bench net
	benches/instructions
	target/release/volley-bench all --rounds $(ROUNDS)

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
