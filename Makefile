# mtce-guest. `make` lists the targets. Nothing here needs root, except installing into /.

PYTHON ?= python3
VENV ?= .venv
DESTDIR ?=
BUILD ?= build
JOBS ?= auto
UNIT_DIR ?= /usr/lib/systemd/system

VERSION := $(shell cat VERSION)
RELEASE ?= 1
# The commit and its time, which files in packages carry: written into a source archive, else git's.
COMMIT_LINE := $(shell grep -sv Format COMMIT || git log -1 --format='%H %ct' 2>/dev/null || \
	echo unknown $$(stat -c %Y CHANGELOG.md))
COMMIT := $(shell echo $(firstword $(COMMIT_LINE)) | cut -c 1-12)
SOURCE_DATE_EPOCH ?= $(lastword $(COMMIT_LINE))
export SOURCE_DATE_EPOCH

SOURCES := $(shell find guestmtce -name '*.py')
PACKAGED := guestmtce bin guest init.d systemd pmon.d ocf etc rpm debian packaging contrib sm docs \
	Makefile VERSION README.md CHANGELOG.md LICENSE pyproject.toml
SCRIPTS := .ci/run init.d/* ocf/guestAgent guest/guest-client.init guest/samples/*.sh \
	packaging/maintain.sh packaging/*.pre* packaging/*.post*

# $(call put,MODE,FILE,NAME): install FILE as NAME, its directory made if need be.
put = umask 022; install -D -m $(1) $(2) "$(DESTDIR)$(3)"
# $(call archive,FILE): the source as one archive, the same to the byte for the same commit.
archive = rm -rf $(BUILD)/source && mkdir -p $(BUILD)/source/mtce-guest-$(VERSION) && \
	cp -a $(PACKAGED) $(BUILD)/source/mtce-guest-$(VERSION) && \
	find $(BUILD)/source -name __pycache__ -prune -exec rm -r {} + && \
	echo $(COMMIT_LINE) >$(BUILD)/source/mtce-guest-$(VERSION)/COMMIT && \
	tar --create --directory=$(BUILD)/source --sort=name --owner=0 --group=0 --numeric-owner \
	    --mode=go=rX,u+w --mtime=@$(SOURCE_DATE_EPOCH) --format=gnu \
	    mtce-guest-$(VERSION) | gzip -9n >$(1)

# $(call man,PAGE): install a manual page.
man = $(call put,0644,$(BUILD)/man/$(1),/usr/share/man/man$(subst .,,$(suffix $(1)))/$(1))

.PHONY: help demo try test roots vm lint check coverage mutants chaos soak fuzz bench dist source \
	rpm deb clean \
	install install-common install-server install-agent install-client

help: ## list the targets
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "    make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## both daemons, guests and a VIM, in about 10 s; needs python3 and nothing else
	$(PYTHON) -m tests.peers.demo

try: ## the same until ^C, to look around in with guestctl from another terminal
	$(PYTHON) -m tests.peers.playground

test: $(VENV)/.installed ## every test but those of roots and vm, JOBS=3 for each processor at a time
	$(VENV)/bin/pytest -n $(JOBS) --dist worksteal

roots: $(VENV)/.installed ## the packages in Debian 11, 12 and 13, which it fetches; as root, minutes
	ROOTS=1 $(VENV)/bin/pytest -n $(JOBS) tests/packaging/test_upgrade.py tests/packaging/test_pmond.py

vm: $(VENV)/.installed ## the packages in a virtual machine with systemd; as root, minutes
	VM=1 $(VENV)/bin/pytest tests/packaging/test_vm.py

check: lint test ## linters, then every test

lint: $(VENV)/.installed ## formatting, ruff, types, Python floors, shell scripts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/vermin -q -t=3.9- --no-tips guestmtce bin
	$(VENV)/bin/vermin -q -t=3.6- --no-tips guest
	@if command -v shellcheck >/dev/null; then set -x; shellcheck -x $(SCRIPTS); \
	else echo 'shellcheck is not installed: the shell scripts are not checked'; fi

coverage: $(VENV)/.installed ## branch coverage of the unit tests; fails under 95 % for core
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest tests/unit
	$(VENV)/bin/coverage combine -q
	$(VENV)/bin/coverage report --skip-covered
	@echo 'The core modules alone:'
	$(VENV)/bin/coverage report --skip-covered --include='guestmtce/core/*' --fail-under=95

mutants: $(VENV)/.mutants ## faults put into the core by seed: how many are noticed; a few minutes
	$(VENV)/bin/python -m tests.mutants $(MUTANTS)

chaos: ## real daemons and 30 guests in bad days: SECONDS=60, SEED=N for one, KIND=simulated
	$(PYTHON) -m tests.chaos$(if $(filter simulated,$(KIND)),,.real) \
	    --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

soak: ## a simulated day of 200 guests in such a network, in minutes: HOURS=24 GUESTS=200 SEED=1
	$(PYTHON) -m tests.chaos.soak --hours $(or $(HOURS),24) --guests $(or $(GUESTS),200) \
	    --seed $(or $(SEED),1)

fuzz: ## mutated inputs at every door: SECONDS=60, or COUNT=1000000 of each; SEED=N to repeat a run
	nice $(PYTHON) -m tests.fuzz $(if $(COUNT),--count $(COUNT),--seconds $(or $(SECONDS),60)) \
	    $(if $(SEED),--seed $(SEED))

bench: ## speed and memory, measured
	$(PYTHON) -m bench

$(VENV)/.installed: tests/requirements.txt tests/make_venv.py
	$(PYTHON) tests/make_venv.py $(VENV) $<
	touch $@

$(VENV)/.mutants: tests/requirements-mutants.txt $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

install: install-common install-server install-agent install-client ## all files, under DESTDIR=

install-common: $(BUILD)/man/guestctl.1
	for file in $(SOURCES); do \
	    $(call put,0644,"$$file",/usr/lib/mtce-guest/$$file) || exit; done
	umask 022; echo $(VERSION) $(COMMIT) >"$(DESTDIR)/usr/lib/mtce-guest/VERSION"
	$(call put,0644,init.d/functions.sh,/usr/lib/mtce-guest/functions.sh)
	$(call put,0755,packaging/maintain.sh,/usr/lib/mtce-guest/maintain)
	$(call put,0644,systemd/restart.conf,/usr/lib/mtce-guest/restart.conf)
	$(call put,0755,bin/guestctl,/usr/local/bin/guestctl)
	umask 022; install -d "$(DESTDIR)/etc/mtc/tmp"
	$(call put,0644,contrib/guestctl.bash-completion,/usr/share/bash-completion/completions/guestctl)
	$(call put,0644,contrib/prometheus/guestmtce.rules.yml,/usr/share/mtce-guest/guestmtce.rules.yml)
	$(call man,guestctl.1)
	$(call man,guest.ini.5)

# A hardening scan asks for 0700 and 0600.
install-server: $(BUILD)/man/guestctl.1
	$(call put,0700,bin/guestServer,/usr/local/bin/guestServer)
	$(call put,0700,init.d/guestServer,/etc/init.d/guestServer)
	$(call put,0600,etc/guest.ini,/etc/mtc/guestServer.ini)
	$(call put,0644,etc/guestServer.logrotate,/etc/logrotate.d/guestServer.logrotate)
	$(call put,0644,pmon.d/guestServer.pmon,/usr/share/starlingx/pmon.d/guestServer.conf)
	$(call put,0644,systemd/guestServer.service,$(UNIT_DIR)/guestServer.service)
	$(call man,guestServer.8)

install-agent: $(BUILD)/man/guestctl.1
	$(call put,0700,bin/guestAgent,/usr/local/bin/guestAgent)
	$(call put,0700,init.d/guestAgent,/etc/init.d/guestAgent)
	$(call put,0600,etc/guest.ini,/etc/mtc/guestAgent.ini)
	$(call put,0644,etc/guestAgent.logrotate,/etc/logrotate.d/guestAgent.logrotate)
	$(call put,0755,ocf/guestAgent,/usr/lib/ocf/resource.d/platform/guestAgent)
	$(call put,0644,systemd/guestAgent.service,$(UNIT_DIR)/guestAgent.service)
	$(call put,0644,sm/guest-agent.sql,/usr/share/mtce-guest/guest-agent.sql)
	$(call man,guestAgent.8)

install-client: $(BUILD)/man/guest-client.8
	$(call put,0755,guest/guest_client.py,/usr/sbin/guest-client)
	sed -i 's/^VERSION = .*/VERSION = "$(VERSION) ($(COMMIT))"/' "$(DESTDIR)/usr/sbin/guest-client"
	$(call put,0755,guest/guest-client.init,/etc/init.d/guest-client)
	$(call put,0644,init.d/functions.sh,/usr/lib/guest-client/functions.sh)
	$(call put,0755,packaging/maintain.sh,/usr/lib/guest-client/maintain)
	$(call put,0644,guest/guest-client.conf,/etc/guest-client/guest-client.conf)
	$(call put,0644,guest/guest-client.service,$(UNIT_DIR)/guest-client.service)
	$(call put,0644,guest/guest-client.logrotate,/etc/logrotate.d/guest-client)
	$(call put,0644,guest/hardened.conf,/usr/share/guest-client/hardened.conf)
	$(call put,0755,guest/guest-client.openrc,/usr/share/guest-client/guest-client.openrc)
	for sample in guest/samples/*.sh; do \
	    $(call put,0755,"$$sample",/usr/share/guest-client/$${sample##*/}) || exit; done
	$(call man,guest-client.8)

$(BUILD)/man/guestctl.1: docs/manual.py docs/ini.py etc/guest.ini VERSION $(SOURCES)
	mkdir -p $(@D)
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m docs.manual $(@D)
	touch $@

$(BUILD)/man/guest-client.8: guest/guest_client.py packaging/man.py VERSION
	mkdir -p $(@D)
	$(PYTHON) packaging/man.py $< $(VERSION) >$@

source: ## build/mtce-guest-VERSION.tar.gz: what rpm, deb and the platform's build start from
	mkdir -p $(BUILD)
	$(call archive,$(BUILD)/mtce-guest-$(VERSION).tar.gz)

rpm: ## build/rpm/: RPMs of guestServer, guestAgent, what they share, and the guest client
	rm -rf $(BUILD)/rpm $(BUILD)/rpmbuild
	mkdir -p $(BUILD)/rpm $(BUILD)/rpmbuild/SOURCES
	$(call archive,$(BUILD)/rpmbuild/SOURCES/mtce-guest-$(VERSION).tar.gz)
	umask 022; rpmbuild -bb --quiet \
	    --define '_topdir $(abspath $(BUILD))/rpmbuild' --define '_rpmdir $(abspath $(BUILD))/rpm' \
	    --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
	    --define '_buildhost localhost' --define 'use_source_date_epoch_as_buildtime 1' \
	    --define 'clamp_mtime_to_source_date_epoch 1' \
	    --define 'guest_version $(VERSION)' --define 'guest_release $(RELEASE)' \
	    rpm/mtce-guest.spec
	rm -r $(BUILD)/rpmbuild

deb: ## build/deb/: the same as Debian packages
	rm -rf $(BUILD)/deb
	mkdir -p $(BUILD)/deb
	$(call archive,$(BUILD)/deb/mtce-guest_$(VERSION).orig.tar.gz)
	tar --extract --directory=$(BUILD)/deb --file=$(BUILD)/deb/mtce-guest_$(VERSION).orig.tar.gz
	sed -i '1s/([^)]*)/($(VERSION)-$(RELEASE))/' \
	    $(BUILD)/deb/mtce-guest-$(VERSION)/debian/deb_folder/changelog
	cd $(BUILD)/deb/mtce-guest-$(VERSION) && umask 022 && \
	    env -u MAKEFLAGS -u MFLAGS -u BUILD -u DESTDIR DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b >../build.log 2>&1 || \
	    { tail -n 20 ../build.log >&2; exit 1; }
	rm -r $(BUILD)/deb/mtce-guest-$(VERSION)

dist: source rpm deb ## dist/: source, RPMs and debs of this commit, their SBOM and checksums
	rm -rf dist
	mkdir dist
	cp $(BUILD)/mtce-guest-$(VERSION).tar.gz $(BUILD)/rpm/*.rpm $(BUILD)/deb/*.deb dist
	$(PYTHON) packaging/sbom.py $(VERSION) $(COMMIT) dist/* >dist/mtce-guest-$(VERSION).spdx.json
	cd dist && sha256sum * >SHA256SUMS

clean: ## remove what was built, and the caches; .venv stays
	rm -rf $(BUILD) dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -r {} +
