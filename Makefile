# Thin: each target is one command, the scripts are in .ci/. Anything else is plain cargo.

.PHONY: help run test test-kubernetes bench chaos queries ci
.DEFAULT_GOAL := help

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 15

run: ## Install what is missing, build, and start the server (PROFILE=release: optimised)
	@.ci/serve

test: ## Install what is missing and run all tests (ARGS: for `cargo nextest run`)
	@.ci/test $(ARGS)

test-kubernetes: ## The tests of weavers against the cluster of LOOM_TEST_KUBECONFIG, one of tests
	@test -n "$$LOOM_TEST_KUBECONFIG" || { echo "LOOM_TEST_KUBECONFIG names no kubeconfig of an admin" >&2; exit 1; }
	@.ci/test --test-threads 1 -E 'package(loom-weavers) & test(real_)' $(ARGS)

bench: ## Build optimised, and measure (ARGS: for `loom-bench run`; BENCH=logs: what logging costs)
	@cargo build --release --locked --package loom-server --package loom-bench
	@"$${CARGO_TARGET_DIR:-target}"/release/loom-bench $(or $(BENCH),run) $(ARGS)

chaos: ## The reliability tests in their long form
	@LOOM_CHAOS=long .ci/test -E 'test(chaos)' $(ARGS)

queries: ## Record the checked SQL in .sqlx/ after a query or the schema changed
	@.ci/record-queries

ci: ## What must pass before a change goes in
	@.ci/run
