# The commands for developers. They call cargo and the short scripts in loadtest/setup.
SEEDS ?= 50
PAIRS ?= 2000
NODES ?= 1,8,55
SECONDS_EACH ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup test lint manifests run pictures k6 bench scale autobahn socketio race chaos clusterchaos failoverchaos mishaps sabotage fuzz clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install what the tests need, if it is missing
	@loadtest/setup/packages
	@loadtest/setup/schemathesis
	@loadtest/setup/nats-server
	@loadtest/setup/pgbouncer

test: ## set up what is missing and run every test, on private Postgres, Redis and NATS
	@loadtest/setup/test

lint: ## rustfmt and clippy, where warnings are errors, also of the fuzz targets; whether patches apply, and the Dockerfile knows every crate
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@cp Cargo.lock runtime/fuzz/ # the same crates, so that most are checked already
	cargo clippy --manifest-path runtime/fuzz/Cargo.toml --target-dir target -- -D warnings
	@for patch in loadtest/sabotage/*.patch; do git apply --check -C1 "$$patch" || exit 1; done
	@for manifest in $$(git ls-files '*/Cargo.toml' ':!*/fuzz/*'); do grep -q "^COPY $$manifest " Dockerfile || { echo "error: no $$manifest in the Dockerfile" >&2; exit 1; }; done

manifests: ## check the chart, the compose file, the alert rules and the unit of systemd
	@loadtest/setup/manifests

run: ## start the gateway, embedded, with a demo classroom
	cargo run --release

pictures: ## make README's pictures again: the architecture, a film of both commands, and the console
	@loadtest/setup/pictures

k6: ## 200 virtual users with k6 against a gateway of its own
	@loadtest/setup/k6

bench: setup ## every load scenario beside its floor, and Socket.IO's own servers, one table
	@loadtest/setup/socketio-peers
	cargo build --release -p rollcall --bins --example raise_hand
	cargo run --release -p rollcall-loadtest -- bench

scale: setup ## NODES=1,8,55 nodes on this machine: joins a second, and what Postgres pays for each
	cargo build --release -p rollcall
	cargo run --release -p rollcall-loadtest -- scale --nodes $(NODES)

autobahn: ## the 301 cases of Autobahn's fuzzing client (needs Python 2.7)
	@loadtest/setup/autobahn

socketio: ## clients of Socket.IO from npm and PyPI, a page in Chromium, and the two public suites
	@loadtest/setup/socketio
	@loadtest/setup/socketio-suites

race: setup ## PAIRS=2000 pairs of agents enter at once on three nodes, and every agent must see every other
	cargo build --release -p rollcall
	cargo run --release -p rollcall-loadtest -- race --pairs $(PAIRS)

chaos: setup ## three nodes, faults drawn from SEEDS=50 seeds, and a ledger that must balance
	@loadtest/setup/chaos --seeds $(SEEDS)

clusterchaos: setup ## the same with the keys in a Redis Cluster, whose masters fail over
	@loadtest/setup/chaos --seeds $(SEEDS) --redis-cluster

failoverchaos: setup ## the same with a PostgreSQL that speaks only TLS, and fails over to its synchronous standby
	@loadtest/setup/chaos --seeds $(SEEDS) --standby

mishaps: setup ## the same with every mishap; some ledgers do not balance yet
	@loadtest/setup/chaos --seeds $(SEEDS) --all-mishaps

sabotage: setup ## break each mechanism of presence once: the chaos suite must fail
	@loadtest/setup/sabotage $(SEEDS)

fuzz: ## every cargo-fuzz target for SECONDS_EACH=600
	@loadtest/setup/fuzz $(SECONDS_EACH)

clean: ## remove what was built
	cargo clean
