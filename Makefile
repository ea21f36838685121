# Everything the README names. Each target sets up what it needs, as often as you like.

# rustup's folder, also in shells that have not read the profile.
export PATH := $(HOME)/.cargo/bin:$(PATH)
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench dist install deb sbom

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: PostgreSQL, libusb, the local chain
	@scripts/setup

demo: setup ## The whole way on a local chain (STAY=1: leave it running; KILL=1: kill the daemon between steps)
	@echo "demo: building amanatd (the first time takes some minutes)"
	@cargo build --features devkit --locked
	@target/debug/amanatd demo $(if $(STAY),--stay) $(if $(KILL),--kill)

test: setup ## Every test, against a private PostgreSQL and a real local chain
	cargo test --features devkit --locked

check: setup ## Formatting, lints, fresh .sqlx, contracts, alert rules, units, licences and scripts
	cargo fmt --check
	rustfmt --check --edition 2024 src/quote/source/*.rs
	scripts/check-sqlx
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --all-targets --features devkit --locked -- -D warnings
	scripts/compile-contracts --check
	scripts/check-alerting
	scripts/check-units --self-test
	scripts/check-units
	scripts/check-supply
	scripts/check-scripts

bench: setup ## The hot paths, each against a named baseline (LARGE=1: larger inputs; catch_up first builds its chain, 9 minutes)
	cargo bench --features devkit --locked -- $(if $(LARGE),--large)

install: ## Put the release of `make dist` in place (DESTDIR and PREFIX as usual); nothing is started
	@scripts/install

deb: setup ## A Debian package of the release (builds it first if it is not there)
	@[[ -x target/dist/amanatd ]] || scripts/dist
	@scripts/deb

sbom: ## What a release is made of, as dist/amanatd.spdx.json
	@mkdir -p dist && scripts/sbom >dist/amanatd.spdx.json && echo "sbom: dist/amanatd.spdx.json"

dist: setup ## A stripped release tarball, proven free of the devkit
	@scripts/dist
