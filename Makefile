# SPDX-License-Identifier: GPL-2.0
#
# Everything goes through here; 'make help' lists it. The work is done by the
# scripts in ci/ and tests/, each of which can be run by itself.

ifndef KVER
KVER := $(shell ci/kver)
endif
VARIANTS := plain debug
CFLAGS ?= -O2 -g
USERLAND := build/userspace

TESTS := $(patsubst %.c,$(USERLAND)/%,$(wildcard tests/verbs/*.c tests/mm/*.c))
DEMOS := $(patsubst %.c,$(USERLAND)/%,$(wildcard userspace/demo/*.c))
LIBUNPIN := $(USERLAND)/libunpin.so
LIBUNPIN_OBJS := $(patsubst %.c,$(USERLAND)/%.o,$(wildcard userspace/libunpin/*.c))
AUDIT := $(USERLAND)/libunpin-audit.so
AUDIT_OBJS := $(patsubst %.c,$(USERLAND)/%.o,$(wildcard userspace/audit/*.c))
UNPIN := $(USERLAND)/unpin
UNPIN_OBJS := $(patsubst %.c,$(USERLAND)/%.o,$(wildcard userspace/unpin/*.c))
TOOLS := $(UNPIN) $(LIBUNPIN) $(AUDIT)
PREFIX ?= /usr/local
TESTLIB := $(patsubst %.c,$(USERLAND)/%.o,$(wildcard tests/lib/*.c))
ALL_CFLAGS := -std=gnu11 -Wall -Wextra -Wno-unused-parameter -MMD -MP \
	-Itests/lib -Iinclude/uapi -Isamples/mm_mirror $(CFLAGS)

export KVER

all: modules userspace

# Debian packages that are missing; fast when there are none.
deps:
	@ci/deps

modules: $(VARIANTS:%=modules-%)

modules-%: deps
	@ci/modules $(KVER) $*

userspace: $(TESTS) $(DEMOS) tools

tools: $(TOOLS)

$(USERLAND)/%.o: %.c | deps
	@mkdir -p $(@D)
	@printf '  %-8s%s\n' CC $<
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(TESTS) $(DEMOS): %: %.o $(TESTLIB)
	@$(CC) $(CFLAGS) -o $@ $^ -libverbs -lpthread

# For LD_PRELOAD: it must not bring libibverbs into a program that has no use for it.
$(LIBUNPIN_OBJS): ALL_CFLAGS += -fPIC
$(LIBUNPIN): userspace/libunpin/libunpin.map $(LIBUNPIN_OBJS)
	@printf '  %-8s%s\n' LIB $(@F)
	@$(CC) $(CFLAGS) -shared -Wl,-z,defs -Wl,--version-script=$< \
		-o $@ $(LIBUNPIN_OBJS)

$(AUDIT_OBJS): ALL_CFLAGS += -fPIC -fvisibility=hidden
$(AUDIT): $(AUDIT_OBJS)
	@printf '  %-8s%s\n' LIB $(@F)
	@$(CC) $(CFLAGS) -shared -Wl,-z,defs -o $@ $^

$(UNPIN): $(UNPIN_OBJS)
	@printf '  %-8s%s\n' LINK $(@F)
	@$(CC) $(CFLAGS) -o $@ $^ -libverbs

# The tool unpin and its libraries; the modules are for ci/modules.
install: tools
	for dir in bin lib/unpin share/man/man1 share/man/man7 \
		share/bash-completion/completions; do \
		install -d "$(DESTDIR)$(PREFIX)/$$dir" || exit; \
	done
	install $(UNPIN) "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 $(LIBUNPIN) $(AUDIT) "$(DESTDIR)$(PREFIX)/lib/unpin"
	install -m 644 userspace/man/unpin.1 "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -m 644 userspace/man/libunpin.7 "$(DESTDIR)$(PREFIX)/share/man/man7"
	install -m 644 userspace/completion/unpin \
		"$(DESTDIR)$(PREFIX)/share/bash-completion/completions"

.SECONDARY:
-include $(TESTLIB:.o=.d) $(LIBUNPIN_OBJS:.o=.d) $(AUDIT_OBJS:.o=.d) \
	$(UNPIN_OBJS:.o=.d) $(TESTS:=.d) $(DEMOS:=.d)

# Every test; ends with "N passed, N failed, N skipped".
check: all
	@tests/check $(T)

# The same in guests on a kernel that watches itself (kernel/*.config).
check-debug check-kcsan: deps
	@KVER=$$(ci/kver $(FLAVOUR)) && export KVER && \
	ci/fetch $$KVER >/dev/null && \
	$(MAKE) --no-print-directory KVER=$$KVER modules-debug userspace && \
	tests/check --debug $(T)

check-debug: FLAVOUR = kasan
check-kcsan: FLAVOUR = kcsan

kernel-debug: deps
	@ci/fetch $$(ci/kver kasan)

kernel-kcsan: deps
	@ci/fetch $$(ci/kver kcsan)

check-pyverbs: all
	@tests/check-pyverbs

check-mutants: all
	@tests/check-mutants $(M)

# For arm64 and i386, and in the kernel's own tree: built, not run.
check-arch: deps
	@tests/check arch

lint: deps
	@tests/check lint

series-check: deps
	@ci/series-check

# Its first step is to make deps and demo-programs, which is all it needs.
demo:
	+@MAKE='$(MAKE)' ci/demo

demo-programs: modules-plain $(DEMOS) $(TOOLS)

# An interactive root shell in a guest with everything loaded.
vm: all
	@tests/vm/run --tty $(VM)

clean:
	rm -rf build

help:
	@echo 'make                build the modules and the tests for $(KVER)'
	@echo 'make install        the tool unpin; DESTDIR=DIR, PREFIX=/usr/local'
	@echo 'make demo           the main job: pinned and on-demand side by side'
	@echo 'make check          every test; T="lint pyverbs" for some of tests/t'
	@echo 'make check-debug    the same on a debug kernel (KASAN, lockdep, kmemleak, ...)'
	@echo 'make check-kcsan    the same on one that looks for data races'
	@echo 'make kernel-debug   build the debug kernel (once; about 12 minutes)'
	@echo 'make kernel-kcsan   build the other'
	@echo 'make check-mutants  take out each protection, its tests must notice;'
	@echo '                    M=tests/mutants/NAME.patch for one'
	@echo 'make check-pyverbs  all tests of rdma-core, on our rxe and on the kernel'"'"'s'
	@echo 'make check-arch     build for arm64 and i386, and mm/ in a kernel tree'
	@echo 'make lint           checkpatch, sparse, shellcheck'
	@echo 'make series-check   the series against every linux-source-6.12 of apt'
	@echo 'make vm             a shell in a guest; VM="--mem 4096" for options'
	@echo 'make deps           install the Debian packages that are missing'
	@echo 'make clean          remove build/; the cache stays (~/.cache/unpin)'
	@echo 'KVER=6.12.N+deb12-amd64 before any of them chooses the kernel.'

.PHONY: all deps modules userspace tools install check check-debug check-kcsan kernel-debug \
	kernel-kcsan check-pyverbs check-mutants check-arch lint \
	series-check demo demo-programs vm clean help
