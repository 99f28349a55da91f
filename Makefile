# Bulkhead: build, test, demonstrate. `make` alone lists the targets.
#
# Everything built goes to $CARGO_TARGET_DIR (default target/); `make stage` makes an install prefix out of it, which
# tests, benchmarks and the demo use, and `make install` copies.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The kernel, the programs, the userland of the demo and the lab do not need each other. Several goals go one after the
# other.
ifeq ($(words $(MAKECMDGOALS)),1)
MAKEFLAGS += -j4
endif
# cargo and the kernel's own make choose their number of jobs themselves.
unexport MAKEFLAGS

export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export BULKHEAD_STAGE := $(abspath $(or $(BULKHEAD_STAGE),target/stage))
export LAB := $(CARGO_TARGET_DIR)/release/bulkhead-lab
export SUITE := $(CARGO_TARGET_DIR)/release/bulkhead-suite

PREFIX ?= /usr/local
TRIPLE := x86_64-unknown-linux-gnu
# Static programs start faster, and run where no C library is. They take other compiler flags: a target directory of their own keeps either from rebuilding the other.
# libseccomp-sys and capng ask for shared libraries unless told.
LIBDIR = $(shell pkg-config --variable=libdir libseccomp)
STATIC := $(CARGO_TARGET_DIR)/static
BUILD_STATIC = CARGO_TARGET_DIR=$(STATIC) RUSTFLAGS='-C target-feature=+crt-static' LIBSECCOMP_LINK_TYPE=static \
	LIBSECCOMP_LIB_PATH=$(LIBDIR) LIBCAPNG_LINK_TYPE=static LIBCAPNG_LIB_PATH=$(LIBDIR) cargo build --target $(TRIPLE)
STATIC_BIN := $(STATIC)/$(TRIPLE)/agent
# The programs that build and test the others. They run a few times: optimising them as a whole would take longer than that.
PROGRAMS := bulkhead-rootfs-builder bulkhead-lab bulkhead-suite bulkhead-bench bulkhead-demo
BUILD_TOOLS = CARGO_PROFILE_RELEASE_LTO=off cargo build --release --workspace
BIN := $(CARGO_TARGET_DIR)/release

# What `ready` makes sure of. Goals that set the machine up by themselves install it, others say what is missing.
READY := --check build
demo: READY := build demo
test: READY := build test
bench: READY := build bench demo
calls: READY := build test
lab: READY := build lab
# The demo runs no engine.
demo: ENGINES := --without-engines

.PHONY: help packages ready tools programs agent probe build kernel image stage-programs stage-guest stage userland \
	lab-assets demo test bench calls lab install fmt lint audit fuzz fuzz-again clean

help: ## lists the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

packages: ## installs the Debian packages needed to build, test and measure (root)
	@deploy/install-packages.sh build lab demo test bench

ready:
	@deploy/install-packages.sh $(READY)

tools: ready
	$(BUILD_TOOLS) $(PROGRAMS:%=--bin %)

programs: tools
	$(BUILD_STATIC) --release -p bulkhead-runtime -p bulkhead-vmm

agent: programs
	$(BUILD_STATIC) --profile agent -p bulkhead-agent

# With the programs' profile, so that it compiles none of its libraries again.
probe: agent
	$(BUILD_STATIC) --release -p bulkhead-tests --bin bulkhead-probe

build: tools programs agent probe ## builds all programs

kernel: ready ## builds the guest kernel, or finds the one built before
	@guest-kernel-config/build.sh

image: agent ## packs the agent into the guest's initramfs
	@mkdir -p $(CARGO_TARGET_DIR)/image
	$(BIN)/bulkhead-rootfs-builder --agent $(STATIC_BIN)/bulkhead-agent --output $(CARGO_TARGET_DIR)/image/initramfs.img

# install(1) with -C leaves equal files alone, and replaces others by unlinking, so running programs are safe.
stage-programs: programs
	install -C -D -m 755 $(STATIC)/$(TRIPLE)/release/bulkhead $(BULKHEAD_STAGE)/bin/bulkhead
	ln -sf bulkhead $(BULKHEAD_STAGE)/bin/containerd-shim-bulkhead-v2
	install -C -D -m 755 $(STATIC)/$(TRIPLE)/release/bulkhead-vmm $(BULKHEAD_STAGE)/libexec/bulkhead/bulkhead-vmm

stage-guest: kernel image
	@vmlinux=$$(guest-kernel-config/build.sh)
	install -C -D -m 644 "$$vmlinux" $(BULKHEAD_STAGE)/share/bulkhead/vmlinux
	install -C -D -m 644 $(CARGO_TARGET_DIR)/image/initramfs.img $(BULKHEAD_STAGE)/share/bulkhead/initramfs.img

stage: stage-programs stage-guest probe ## puts everything into target/stage, an install prefix
	install -C -D -m 755 $(STATIC)/$(TRIPLE)/release/bulkhead-probe $(BULKHEAD_STAGE)/libexec/bulkhead/bulkhead-probe

userland: tools
	@$(BIN)/bulkhead-demo rootfs >/dev/null

# Nothing is fetched where /dev/kvm will do, which the VMM finds out. The lab brings its own QEMU; a mirror may not have it.
lab-assets: tools stage-programs
	@case "$$($(LAB) where)" in
	lab:*)
		deploy/install-packages.sh lab
		$(LAB) prepare $(ENGINES) || { deploy/install-packages.sh qemu && $(LAB) prepare $(ENGINES); }
		;;
	esac

demo: stage-programs stage-guest userland lab-assets ## runs two workloads, each in its own microVM
	@userland=$$($(BIN)/bulkhead-demo rootfs)
	$(LAB) run --if-needed --reuse $(ENGINES) --second-try -- $(BIN)/bulkhead-demo show "$$userland" </dev/null

test: stage lab-assets ## checks, unit tests, end-to-end tests; ends with one line of counts
	@tests/run-all.sh

# The first write to memory of the lab is slow, for the machine below has to find it: what is measured in is written once before.
bench: stage userland lab-assets ## measures against runc, crun and a bare QEMU boot; writes target/bench
	@userland=$$($(BIN)/bulkhead-demo rootfs)
	$(LAB) run --if-needed --timeout 3600 --out target/bench -- sh -c \
		'copy=$$(mktemp -d) && trap "rm -rf $$copy" EXIT && cp -r "$$BULKHEAD_STAGE" "$$copy/stage" && \
		head -c 1500M /dev/zero >"$$copy/fill" && rm "$$copy/fill" && \
		BULKHEAD_STAGE=$$copy/stage $(BIN)/bulkhead-bench --out "$$BULKHEAD_OUT" --machine "$$BULKHEAD_PLACE" --userland "$$1"' \
		bench "$$userland" </dev/null

calls: stage lab-assets ## lists what each thread of the VMM calls over the end-to-end tests, for vmm/src/confine/recorded.txt
	@test=$$(cargo test -p bulkhead-tests --test e2e --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$$/\1/p')
	@mkdir -p target
	$(LAB) run --if-needed --timeout 5400 -- tests/record-calls.sh "$$(realpath "$$test")" --test-threads=2 </dev/null >target/calls
	@echo "target/calls"

lab: stage lab-assets ## opens a shell in the lab
	@$(LAB) shell

install: stage ## installs below PREFIX (and DESTDIR)
	install -D -m 755 $(BULKHEAD_STAGE)/bin/bulkhead $(DESTDIR)$(PREFIX)/bin/bulkhead
	ln -sf bulkhead $(DESTDIR)$(PREFIX)/bin/containerd-shim-bulkhead-v2
	install -D -m 755 $(BULKHEAD_STAGE)/libexec/bulkhead/bulkhead-vmm $(DESTDIR)$(PREFIX)/libexec/bulkhead/bulkhead-vmm
	install -D -m 644 $(BULKHEAD_STAGE)/share/bulkhead/vmlinux $(DESTDIR)$(PREFIX)/share/bulkhead/vmlinux
	install -D -m 644 $(BULKHEAD_STAGE)/share/bulkhead/initramfs.img $(DESTDIR)$(PREFIX)/share/bulkhead/initramfs.img

fmt: ## formats the code
	cargo fmt --all

lint: ## checks format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p bulkhead-tests --test e2e -- -D warnings

audit: ## checks licences, sources and advisories of all dependencies
	@command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
	cargo deny check licenses bans sources
	cargo deny check advisories

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= virtio_fs vsock vmm_messages agent_answers config_json

fuzz: ## attacks each reader of hostile input for FUZZ_SECONDS (fuzz/README.md)
	@fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

fuzz-again: ## runs FUZZ_INPUT, a file that `make fuzz` wrote, once more
	@fuzz/run.sh --again "$(FUZZ_INPUT)"

clean: ## removes what was built, not the caches
	rm -rf $(CARGO_TARGET_DIR) $(BULKHEAD_STAGE)
