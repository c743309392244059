# Measurements; included by the Makefile. `make bench` runs what is here and says what it skipped, and why.
#
#   make bench                   everything, beside the peers that are installed: build/bench.json and a table
#   make bench QUICK=1           every measure on tiny sizes, to see that the bench works; its figures mean nothing
#   make bench ONLY="flat crc"   the measures of these names; the rows of others stay in the file as they are. The names:
#                                bench/run.py --help
#   make bench-report            the same, and README's table and the plots are made of it
#   make bench BENCH_DIR=/disk   durable measures in a directory of that disk instead of $(BUILD)/bench
#
# IQDB_DATA, where set, is a directory of real vectors; without it they are synthetic clusters.

BENCH_VENV     = $(BUILD)/bench-venv
BENCH_PYTHON   = $(or $(wildcard $(BENCH_VENV)/bin/python),$(PYTHON))
HNSWLIB        = 0.8.0
BENCH_PACKAGES = python3-venv libsqlite3-dev liblmdb-dev zlib1g-dev liblz4-dev libzstd-dev liburing-dev hyperfine

.PHONY: bench bench-deps bench-report
bench: need-cc need-python check-header ## measure iqdb.h beside its peers (QUICK=1 only tries everything)
	$(Q)CC="$(CC)" $(BENCH_PYTHON) bench/run.py --build $(BUILD) $(if $(QUICK),--quick) \
	    $(if $(BENCH_DIR),--directory "$(BENCH_DIR)") $(ONLY)

# An hour on a machine that does nothing else; with ONLY, the rest is what earlier runs found.
bench-report: bench ## all of it once more, into README's table and bench/plots/
	$(Q)$(BENCH_PYTHON) bench/report.py $(BUILD)/bench.json

bench-deps: need-python ## fetch the peers of the bench: packages where apt-get may, a virtual environment in build/
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -q update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $(BENCH_PACKAGES); \
	else echo "These are left to you; on Debian: apt-get install $(BENCH_PACKAGES)"; fi
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	$(BENCH_VENV)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary hnswlib \
	    --dest $(BUILD)/bench-peers hnswlib==$(HNSWLIB)
	tar -xzf $(BUILD)/bench-peers/hnswlib-$(HNSWLIB).tar.gz -C $(BUILD)/bench-peers --strip-components=1
