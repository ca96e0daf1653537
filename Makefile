# mtce-guest. `make` lists the targets. Nothing here needs root, except installing into /.

PYTHON ?= python3
VENV ?= .venv
DESTDIR ?=
BUILD ?= build
JOBS ?= auto
# Debian-based StarlingX keeps pmond's files in /usr/share/starlingx/pmon.d.
PMON_DIR ?= /etc/pmon.d
UNIT_DIR ?= /usr/lib/systemd/system

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' guestmtce/__init__.py)
RELEASE ?= 1
# The time that files in packages carry: of the last commit, else of the last release.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export SOURCE_DATE_EPOCH

SOURCES := $(shell find guestmtce -name '*.py')
PACKAGED := guestmtce bin guest init.d systemd pmon.d ocf etc rpm \
	Makefile README.md CHANGELOG.md LICENSE
SCRIPTS := .ci/run init.d/* ocf/guestAgent guest/guest-client.init guest/samples/*.sh \
	rpm/maintain.sh rpm/debian/build.sh rpm/debian/*.p*

# $(call put,MODE,FILE,NAME): install FILE as NAME, its directory made if need be.
put = umask 022; install -D -m $(1) $(2) "$(DESTDIR)$(3)"
# $(call deb,PACKAGE,PART[,SERVICE,LIB]): build PACKAGE of the files that install-PART lays.
define deb
	rm -rf $(BUILD)/deb/stage
	$(MAKE) --silent install-$(2) DESTDIR="$(abspath $(BUILD))/deb/stage" \
	    PMON_DIR=/usr/share/starlingx/pmon.d
	rpm/debian/build.sh $(1) $(BUILD)/deb/stage $(VERSION)-$(RELEASE) $(BUILD)/deb $(3) $(4)
	rm -r $(BUILD)/deb/stage

endef

.PHONY: help demo try test lint check coverage mutants bench rpm deb clean \
	install install-common install-server install-agent install-client

help: ## list the targets
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "    make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## both daemons, guests and a VIM, in about 10 s; needs python3 and nothing else
	$(PYTHON) -m tests.peers.demo

try: ## the same until ^C, to look around in with guestctl from another terminal
	$(PYTHON) -m tests.peers.playground

test: $(VENV)/.installed ## every test, as many at a time as there are processors
	$(VENV)/bin/pytest -n $(JOBS)

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

bench: ## speed and memory, measured
	$(PYTHON) -m bench

$(VENV)/.installed: tests/requirements.txt tests/make_venv.py
	$(PYTHON) tests/make_venv.py $(VENV) $<
	touch $@

$(VENV)/.mutants: tests/requirements-mutants.txt $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

install: install-common install-server install-agent install-client ## all files, under DESTDIR=

install-common:
	for file in $(SOURCES); do \
	    $(call put,0644,"$$file",/usr/lib/mtce-guest/$$file) || exit; done
	$(call put,0644,init.d/functions.sh,/usr/lib/mtce-guest/functions.sh)
	$(call put,0755,rpm/maintain.sh,/usr/lib/mtce-guest/maintain)
	$(call put,0755,bin/guestctl,/usr/local/bin/guestctl)
	umask 022; install -d "$(DESTDIR)/etc/mtc/tmp"

install-server:
	$(call put,0755,bin/guestServer,/usr/local/bin/guestServer)
	$(call put,0755,init.d/guestServer,/etc/init.d/guestServer)
	$(call put,0644,etc/guest.ini,/etc/mtc/guestServer.ini)
	$(call put,0644,etc/guestServer.logrotate,/etc/logrotate.d/guestServer)
	$(call put,0644,pmon.d/guestServer.pmon,$(PMON_DIR)/guestServer.conf)
	$(call put,0644,systemd/guestServer.service,$(UNIT_DIR)/guestServer.service)

install-agent:
	$(call put,0755,bin/guestAgent,/usr/local/bin/guestAgent)
	$(call put,0755,init.d/guestAgent,/etc/init.d/guestAgent)
	$(call put,0644,etc/guest.ini,/etc/mtc/guestAgent.ini)
	$(call put,0644,etc/guestAgent.logrotate,/etc/logrotate.d/guestAgent)
	$(call put,0755,ocf/guestAgent,/usr/lib/ocf/resource.d/platform/guestAgent)
	$(call put,0644,systemd/guestAgent.service,$(UNIT_DIR)/guestAgent.service)

install-client:
	$(call put,0755,guest/guest_client.py,/usr/sbin/guest-client)
	$(call put,0755,guest/guest-client.init,/etc/init.d/guest-client)
	$(call put,0644,init.d/functions.sh,/usr/lib/guest-client/functions.sh)
	$(call put,0755,rpm/maintain.sh,/usr/lib/guest-client/maintain)
	$(call put,0644,guest/guest-client.conf,/etc/guest-client/guest-client.conf)
	$(call put,0644,guest/guest-client.service,$(UNIT_DIR)/guest-client.service)
	$(call put,0644,guest/guest-client.logrotate,/etc/logrotate.d/guest-client)
	$(call put,0644,guest/hardened.conf,/usr/share/guest-client/hardened.conf)
	$(call put,0755,guest/guest-client.openrc,/usr/share/guest-client/guest-client.openrc)
	for sample in guest/samples/*.sh; do \
	    $(call put,0755,"$$sample",/usr/share/guest-client/$${sample##*/}) || exit; done

rpm: ## build/rpm/: RPMs of guestServer, guestAgent, what they share, and the guest client
	rm -rf $(BUILD)/rpm $(BUILD)/rpmbuild
	mkdir -p $(BUILD)/rpm $(BUILD)/rpmbuild/SOURCES
	tar --create --gzip --file $(BUILD)/rpmbuild/SOURCES/mtce-guest-$(VERSION).tar.gz \
	    --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+w \
	    --mtime=@$(SOURCE_DATE_EPOCH) --exclude=__pycache__ \
	    --transform='s,^,mtce-guest-$(VERSION)/,' $(PACKAGED)
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
	$(call deb,mtce-guest-common,common)
	$(call deb,mtce-guestserver,server,guestServer,/usr/lib/mtce-guest)
	$(call deb,mtce-guestagent,agent,guestAgent,/usr/lib/mtce-guest)
	$(call deb,mtce-guestclient,client,guest-client,/usr/lib/guest-client)

clean: ## remove what was built, and the caches; .venv stays
	rm -rf $(BUILD) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -r {} +
