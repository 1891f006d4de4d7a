# A newcomer's two commands are `make demo` and `make test`; both set up what they need.
SHELL := /bin/bash
ARGS ?=

.PHONY: help demo test test-fast test-slow test-fleet test-compat check fix dev bench clean
.DEFAULT_GOAL := help

help: ## say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## boot a host, converge it from Git, break it, watch it heal
	@scripts/setup debian product wheel
	@.venv/bin/python -P scripts/demo.py $(ARGS)

test: ## everything: lint, types, import contracts, all tests on the built wheel
	@scripts/setup debian everything wheel images vagrant
	@scripts/check
	@scripts/test $(ARGS)

test-fast: ## the tests that boot no host and take no time
	@scripts/setup debian everything wheel
	@scripts/test -m "not host and not slow and not soak" $(ARGS)

test-slow: ## the slow tests, and those that take too long for make test
	@scripts/setup debian everything wheel images vagrant
	@scripts/test -m "slow or soak" $(ARGS)

test-fleet: ## runs over 16 and over 50 booted hosts and on workers, and what they cost
	@scripts/setup debian everything wheel images
	@scripts/test -m "slow or soak" tests/hosts/test_fleet.py tests/hosts/test_fleet_workers.py $(ARGS)
	@.venv/bin/python -P benchmarks/fleet.py

test-compat: ## compare our inventories with Ansible's, in a virtual environment of their own
	@scripts/setup debian compat
	@.venv-compat/bin/pytest -s -o pythonpath="tests ." tests/compat $(ARGS)

check: ## lint, format, types, import contracts
	@scripts/setup debian everything
	@scripts/check

fix: ## let the linter and the formatter repair what they can
	@scripts/setup debian everything
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .

dev: ## an editable install in .venv-dev
	@scripts/setup debian editable

bench: ## the benchmarks
	@scripts/setup debian everything wheel
	@.venv/bin/python -P benchmarks/run.py $(ARGS)

clean: ## remove what make made here (the cache of base images stays)
	@scripts/clean
