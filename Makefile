# Two commands do all the set-up: `make demo` and `make test`. The rest is below.

.PHONY: help demo demo-down test sim lint bench install uninstall

help:
	@echo "make demo       build, start a cluster of one node, deploy the example, show it working"
	@echo "make demo-down  take the demo away"
	@echo "make test       run all tests"
	@echo "make sim        run the simulation over SEEDS seeds (1000), from FIRST_SEED on"
	@echo "make lint       formatting, clippy, licences"
	@echo "make bench      measure, beside docker where it is installed"
	@echo "make install    programs, systemd unit, /etc/shoal (PREFIX, DESTDIR)"
	@echo "make uninstall  take them away; data stays"

demo:
	@scripts/demo.sh

demo-down:
	@scripts/demo-down.sh

test:
	@scripts/test.sh

sim:
	@scripts/sim.sh

lint:
	@scripts/lint.sh

bench:
	@scripts/bench.sh

install:
	@scripts/install.sh

uninstall:
	@scripts/uninstall.sh
