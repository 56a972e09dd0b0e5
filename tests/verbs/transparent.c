// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Programs that do not ask for on-demand memory, and get it: the switch of the module
 * and of the device, what it makes of a registration, what it leaves pinned and where
 * that is said, and that a registration which fails, fails with the error that it
 * always had.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "t.h"

#define LEN		(3 * T_PAGE + 100)
#define MIB		(1UL << 20)
#define TIB		(1UL << 40)
#define PARAMETER	"/sys/module/rdma_rxe/parameters/on_demand_mr"
#define ATTRIBUTE	"/sys/class/infiniband/%s/on_demand_mr"
#define TRACING		"/sys/kernel/tracing/"
#define PERSISTENT	(1 << 9)	/* verbs.h has no names for these yet */
#define UNKNOWN_RIGHT	(1 << 10)
#define READ_ONLY	IBV_ACCESS_REMOTE_READ
#define USER_MODE_ONLY	1
#define SYS_memfd_secret_	447

/* ---- the switches ---- */

static void set_module(const char *policy)
{
	t_check(t_switch_set(policy), PARAMETER " does not take '%s'", policy);
}

static bool try_device(const char *policy)
{
	char path[128];

	snprintf(path, sizeof(path), ATTRIBUTE, t_opts.dev);
	return t_write_file(path, policy);
}

static void set_device(const char *policy)
{
	t_check(try_device(policy), "the device does not take '%s'", policy);
}

static void device_says(const char *want)
{
	char path[128], is[32];

	snprintf(path, sizeof(path), ATTRIBUTE, t_opts.dev);
	t_check(t_read_file(path, is, sizeof(is)) && !strcmp(is, want),
		"the device says '%s'", is);
}

/* ---- regions ---- */

static u8 *anonymous(size_t len)
{
	return t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

/* What rdma(8) says of a region: "odp KIND", "pinned REASON", or nothing. */
static void said_of(const struct ibv_mr *mr, char *word, size_t len)
{
	FILE *f = popen("rdma -dd resource show mr", "r");
	char line[1024], rkey[32], *at;
	bool found = false;

	t_check(f, "rdma: %s", strerror(errno));
	snprintf(rkey, sizeof(rkey), " rkey 0x%x ", mr->rkey);
	word[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, rkey))
			continue;
		found = true;
		at = strstr(line, " drv_");
		if (at)
			snprintf(word, len, "%.*s", (int)strcspn(at + 5, "\n"), at + 5);
	}
	t_check(!pclose(f) && found, "rdma does not know of %s", rkey);
	while (*word && word[strlen(word) - 1] == ' ')
		word[strlen(word) - 1] = '\0';
}

static void expect_said(const struct ibv_mr *mr, const char *want)
{
	char word[64];

	said_of(mr, word, sizeof(word));
	t_check(!strcmp(word, want), "rdma says '%s', not '%s'", word, want);
}

/* Registers, and says whether that has pinned anything. */
static bool reg_pins(struct t_buf *b, struct t_dev *dev)
{
	long before = t_status_kb("VmPin");

	t_reg(b, dev);
	return t_status_kb("VmPin") != before;
}

/* A pair, and a region of fresh memory that the switch decides on. */
static bool open_pins(struct t_region *r, size_t len)
{
	bool pins;

	t_region_open(r, anonymous(len), len);
	t_dereg(&r->buf);
	pins = reg_pins(&r->buf, &r->pair.dev);
	return pins;
}

static void off(const void *arg)
{
	struct t_region r;

	(void)arg;
	set_module("asked");
	t_check(open_pins(&r, LEN), "nothing is pinned");
	t_check(t_status_kb("VmPin") >= (long)LEN / 1024, "VmPin is %ld kB",
		t_status_kb("VmPin"));
	expect_said(r.buf.mr, "");
	t_region_exchange(&r, 0, LEN);
}

static void on(const void *arg)
{
	struct t_region r;

	(void)arg;
	set_module("always");
	t_check(!open_pins(&r, LEN), "VmPin is %ld kB", t_status_kb("VmPin"));
	t_check(!t_page_present(r.buf.p), "registering touched a page");
	expect_said(r.buf.mr, "odp unasked");
	t_region_exchange(&r, 0, LEN);
	t_check(t_pageout(r.buf.p, 4 * T_PAGE), "the region stays in memory");
	t_region_exchange(&r, 1, LEN - 1);
	t_check(t_status_kb("VmPin") == 0, "VmPin is %ld kB", t_status_kb("VmPin"));
}

static void one_tebibyte(const void *arg)
{
	struct t_region r;

	(void)arg;
	set_module("always");
	t_check(!open_pins(&r, TIB), "VmPin is %ld kB", t_status_kb("VmPin"));
	t_region_exchange(&r, TIB / 3, LEN);
	t_region_exchange(&r, TIB - 10, 10);
}

static int error_of(struct t_dev *dev, void *p, size_t len, int access)
{
	struct ibv_mr *mr;

	errno = 0;
	mr = ibv_reg_mr(dev->pd, p, len, access);
	if (!mr)
		return errno ? errno : -1;
	t_check(!ibv_dereg_mr(mr), "ibv_dereg_mr");
	return 0;
}

/* Neither may this user lock memory, nor is there any left of what others may. */
static void nobody_without_memlock(const void *arg)
{
	int parameter = open(PARAMETER, O_WRONLY | O_CLOEXEC);
	struct t_region r = { 0 };
	u8 *p = anonymous(64 * MIB);

	(void)arg;
	t_check(parameter >= 0, PARAMETER ": %s", strerror(errno));
	t_become_nobody(0);
	t_check(!t_switch_set("always") && !try_device("always"), "nobody turns the switch");
	t_check(write(parameter, "asked", 5) == 5, "write: %s", strerror(errno));
	t_pair_open(&r.pair, NULL);
	t_check(error_of(&r.pair.dev, p, LEN, T_REMOTE) == EPERM, "memory was pinned");
	t_check(write(parameter, "always", 6) == 6, "write: %s", strerror(errno));
	t_check(error_of(&r.pair.dev, NULL, LEN, T_REMOTE) == EPERM, "another error for NULL");
	t_buf_alloc(&r.scratch, 0, T_PAGE);
	t_reg(&r.scratch, &r.pair.dev);
	t_buf_wrap(&r.buf, p, 64 * MIB);
	t_reg(&r.buf, &r.pair.dev);
	t_region_exchange(&r, 32 * MIB + 1, T_PAGE - 1);
}

/* ---- what cannot be registered ---- */

struct spot {
	u8 *p;
	size_t len;
	int access;
};

static void nothing_there(struct spot *s)
{
	t_check(!munmap(s->p, 4 * T_PAGE), "munmap");
}

static void hole(struct spot *s)
{
	t_check(!munmap(s->p + T_PAGE, T_PAGE), "munmap");
}

static void last_byte_missing(struct spot *s)
{
	t_check(!munmap(s->p + 3 * T_PAGE, T_PAGE), "munmap");
	s->len = 3 * T_PAGE + 1;
}

static void protect(struct spot *s, int prot)
{
	t_check(!mprotect(s->p + T_PAGE, T_PAGE, prot), "mprotect");
}

static void no_right(struct spot *s)
{
	protect(s, PROT_NONE);
}

static void read_only(struct spot *s)
{
	protect(s, PROT_READ);
}

static void write_only(struct spot *s)
{
	protect(s, PROT_WRITE);
	s->access = READ_ONLY;
}

static void remote_without_local(struct spot *s)
{
	s->access = IBV_ACCESS_REMOTE_WRITE;
}

static void unknown_right(struct spot *s)
{
	s->access |= UNKNOWN_RIGHT;
}

static void not_persistent(struct spot *s)
{
	s->access |= PERSISTENT;
}

static void no_bytes(struct spot *s)
{
	s->len = 0;
}

static void null(struct spot *s)
{
	s->p = NULL;
}

static void everything(struct spot *s)
{
	s->p = NULL;
	s->len = SIZE_MAX;
}

static void wraps(struct spot *s)
{
	s->p = (u8 *)-T_PAGE;
	s->len = 2 * T_PAGE;
}

static void kernel_memory(struct spot *s)
{
	s->p = (u8 *)0xffff888000000000UL;
}

static void end_of_addresses(struct spot *s)
{
	s->p = (u8 *)0x7ffffffff000UL;
}

static void replace(struct spot *s, int flags, int fd)
{
	t_check(mmap(s->p, 4 * T_PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) ==
		s->p, "mmap: %s", strerror(errno));
}

static void secret(struct spot *s)
{
	int fd = syscall(SYS_memfd_secret_, O_CLOEXEC);

	t_check(fd >= 0 && !ftruncate(fd, 4 * T_PAGE), "memfd_secret: %s", strerror(errno));
	replace(s, MAP_SHARED, fd);
}

static void beyond_the_end(struct spot *s)
{
	replace(s, MAP_SHARED, t_memfd("short", 3 * T_PAGE + 1 - T_PAGE, 0));
}

static void beyond_the_end_private(struct spot *s)
{
	replace(s, MAP_PRIVATE, t_memfd("short", 3 * T_PAGE, 0));
}

static void truncated(struct spot *s)
{
	int fd = t_memfd("truncated", 4 * T_PAGE, 0);

	replace(s, MAP_SHARED, fd);
	t_fill(s->p, 4 * T_PAGE, 1);
	t_check(!ftruncate(fd, T_PAGE), "ftruncate: %s", strerror(errno));
}

static void registers_of_a_device(struct spot *s)
{
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);

	t_check(fd >= 0, "/dev/mem: %s", strerror(errno));
	t_check(mmap(s->p, 4 * T_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		     0xf0000) == s->p, "mmap of /dev/mem: %s", strerror(errno));
}

static void protection_key(struct spot *s)
{
	int key = pkey_alloc(0, PKEY_DISABLE_WRITE);

	if (key < 0)
		t_skip("no protection keys on this CPU");
	t_check(!pkey_mprotect(s->p + T_PAGE, T_PAGE, PROT_READ | PROT_WRITE, key),
		"pkey_mprotect: %s", strerror(errno));
}

static void watch(struct spot *s, unsigned int flags, u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	t_check(fd >= 0 && !ioctl(fd, UFFDIO_API, &api), "userfaultfd: %s", strerror(errno));
	t_uffd_watch(fd, s->p, 4 * T_PAGE);
}

static void user_mode_only(struct spot *s)
{
	watch(s, USER_MODE_ONLY, 0);
}

static void sigbus_only(struct spot *s)
{
	watch(s, 0, UFFD_FEATURE_SIGBUS);
}

static const struct bad {
	const char *name;
	void (*make)(struct spot *s);
	int error;
} bads[] = {
	{ "nothing is mapped", nothing_there, EFAULT },
	{ "a hole in the middle", hole, EFAULT },
	{ "the last byte is not mapped", last_byte_missing, EFAULT },
	{ "a page without any right", no_right, EFAULT },
	{ "a page that can only be read", read_only, EFAULT },
	{ "a page that can only be written, for reading", write_only, EFAULT },
	{ "remote write without local write", remote_without_local, EINVAL },
	{ "a right that nobody knows", unknown_right, EINVAL },
	{ "persistence of memory that has none", not_persistent, EINVAL },
	{ "no bytes", no_bytes, EINVAL },
	{ "NULL", null, EFAULT },
	{ "NULL and SIZE_MAX, not asked to be on-demand", everything, EINVAL },
	{ "a range that wraps", wraps, EINVAL },
	{ "the kernel's memory", kernel_memory, EFAULT },
	{ "where addresses end", end_of_addresses, EFAULT },
	{ "secret memory", secret, EFAULT },
	{ "beyond the end of a file", beyond_the_end, EFAULT },
	{ "beyond the end of a file, private", beyond_the_end_private, EFAULT },
	{ "a file that was truncated", truncated, EFAULT },
	{ "a device's memory", registers_of_a_device, EFAULT },
	{ "a page whose protection key forbids it", protection_key, EFAULT },
	{ "a userfaultfd for user mode only", user_mode_only, EFAULT },
	{ "a userfaultfd that says SIGBUS", sigbus_only, EFAULT },
};

/* Off and on, the same error. */
static void fails_as_ever(const void *arg)
{
	const struct bad *bad = arg;
	struct spot s = { anonymous(4 * T_PAGE), 4 * T_PAGE, T_REMOTE };
	struct t_dev dev;
	int was, is;

	bad->make(&s);
	t_dev_open(&dev);
	set_module("asked");
	was = error_of(&dev, s.p, s.len, s.access);
	set_module("always");
	is = error_of(&dev, s.p, s.len, s.access);
	t_check(was == bad->error, "pinned: %s", strerror(was));
	t_check(is == was, "with the switch: %s, without: %s", strerror(is), strerror(was));
	t_check(t_status_kb("VmPin") == 0, "VmPin is %ld kB", t_status_kb("VmPin"));
}

/* ---- what is left pinned ---- */

static void filled(struct spot *s)
{
	t_fill(s->p, 4 * T_PAGE, 1);
}

static void deaf_but_there(struct spot *s)
{
	filled(s);
	user_mode_only(s);
}

static void sigbus_but_there(struct spot *s)
{
	filled(s);
	sigbus_only(s);
}

static void not_readable(struct spot *s)
{
	t_check(!mprotect(s->p, 4 * T_PAGE, PROT_WRITE), "mprotect");
	s->access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
}

static void odd_and_empty(struct spot *s)
{
	s->p++;
	s->len = 0;
}

static const struct fallback {
	const char *name;
	const char *reason;
	void (*make)(struct spot *s);
} fallbacks[] = {
	{ "range: no bytes at an odd address", "range", odd_and_empty },
	{ "memory: it can only be written", "memory", not_readable },
	{ "handler: a userfaultfd for user mode only", "handler", deaf_but_there },
	{ "handler: a userfaultfd that says SIGBUS", "handler", sigbus_but_there },
};

static const char * const reasons[] = { "rights", "range", "memory", "handler" };

struct counts {
	long on_demand;
	long pinned[T_ARRAY_SIZE(reasons)];
};

static struct counts count_all(void)
{
	struct counts c = { .on_demand = t_device_count("mr_on_demand") };
	char name[64];
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(reasons); i++) {
		snprintf(name, sizeof(name), "mr_pinned_%s", reasons[i]);
		c.pinned[i] = t_device_count(name);
	}
	return c;
}

/* One more that was pinned for @reason since @before, or one on demand if that is NULL. */
static void one_more(const struct counts *before, const char *reason)
{
	struct counts now = count_all();
	size_t i;

	t_check(now.on_demand - before->on_demand == !reason, "mr_on_demand grew by %ld",
		now.on_demand - before->on_demand);
	for (i = 0; i < T_ARRAY_SIZE(reasons); i++) {
		bool want = reason && !strcmp(reason, reasons[i]);

		t_check(now.pinned[i] - before->pinned[i] == want,
			"mr_pinned_%s grew by %ld", reasons[i],
			now.pinned[i] - before->pinned[i]);
	}
}

/* The event stays on, as in tests/lib/t_trace.c, and so does the rest stay off. */
static void trace_start(void)
{
	int fd;

	t_check(t_write_file(TRACING "options/record-cmd", "0") &&
		t_write_file(TRACING "events/rxe_odp/enable", "1"),
		"no tracepoint: %s", strerror(errno));
	fd = open(TRACING "trace", O_WRONLY | O_TRUNC | O_CLOEXEC);
	t_check(fd >= 0, "no trace: %s", strerror(errno));
	close(fd);
	t_check(t_write_file(TRACING "tracing_on", "1"), "tracing_on");
}

/* There is one event, with this outcome, of this memory. */
static void traced(const struct spot *s, const char *outcome)
{
	char text[8192], want[160];
	const char *at;

	t_check(t_write_file(TRACING "tracing_on", "0") &&
		t_read_file(TRACING "trace", text, sizeof(text)), "no trace");
	snprintf(want, sizeof(want),
		 "rxe_odp_switch: device=%s start=%#lx length=%zu access=%#x outcome=%s\n",
		 t_opts.dev, (unsigned long)s->p, s->len, s->access, outcome);
	at = strstr(text, "rxe_odp_switch: ");
	t_check(at && !strncmp(at, want, strlen(want)), "the trace says: %s", text);
	t_check(!strstr(at + 1, "rxe_odp_switch: "), "more than one event: %s", text);
}

/* It is a region like others. */
static void is_used(struct t_region *r, const struct spot *s)
{
	if (!s->len)
		return;
	t_region_write(r, 0, s->len);
	t_check(!mprotect(s->p, 4 * T_PAGE, PROT_READ | PROT_WRITE), "mprotect");
	t_region_cpu_holds(r, 0, s->len, r->round);
}

static void falls_back(const void *arg)
{
	const struct fallback *f = arg;
	struct spot s = { anonymous(4 * T_PAGE), 4 * T_PAGE, T_REMOTE };
	struct counts before;
	struct t_region r;
	char said[64];
	long pin;
	int log;

	f->make(&s);
	set_module("always");
	t_region_open(&r, anonymous(4 * T_PAGE), 4 * T_PAGE);
	t_dereg(&r.buf);
	before = count_all();
	trace_start();
	log = t_log_open();
	pin = t_status_kb("VmPin");
	t_buf_wrap(&r.buf, s.p, s.len);
	t_reg_access(&r.buf, &r.pair.dev, s.access);
	t_check(t_status_kb("VmPin") > pin, "nothing is pinned");
	traced(&s, f->reason);
	one_more(&before, f->reason);
	snprintf(said, sizeof(said), "pinned %s", f->reason);
	expect_said(r.buf.mr, said);
	t_check(!t_log_count(log, "rxe"), "the kernel's log hears of it");
	is_used(&r, &s);
}

/* What fails is counted too: why it was not on-demand is worth knowing. */
static void counted_though_it_fails(const void *arg)
{
	struct spot s = { anonymous(4 * T_PAGE), 4 * T_PAGE, T_REMOTE | PERSISTENT };
	struct counts before;
	struct t_dev dev;

	(void)arg;
	set_module("always");
	t_dev_open(&dev);
	before = count_all();
	trace_start();
	t_check(error_of(&dev, s.p, s.len, s.access) == EINVAL, "not the error of pinning");
	traced(&s, "rights");
	one_more(&before, "rights");
	before = count_all();
	trace_start();
	s.access = T_REMOTE;
	t_check(!error_of(&dev, s.p, s.len, s.access), "registering: %s", strerror(errno));
	traced(&s, "unasked");
	one_more(&before, NULL);
}

static void asked_for(const void *arg)
{
	struct counts before, now;
	struct t_region r;

	(void)arg;
	set_module("always");
	t_region_open(&r, anonymous(LEN), LEN);
	t_dereg(&r.buf);
	before = count_all();
	r.buf.mr = ibv_reg_mr(r.pair.dev.pd, r.buf.p, LEN, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(r.buf.mr, "ibv_reg_mr: %s", strerror(errno));
	now = count_all();
	t_check(!memcmp(&before, &now, sizeof(now)), "what was asked for is counted");
	expect_said(r.buf.mr, "odp explicit");
	t_region_exchange(&r, 0, LEN);
}

/* ---- what was refused, and works ---- */

static void a_file(const void *arg)
{
	int fd = t_disk_file(4 * T_PAGE);
	u8 *p = t_map(4 * T_PAGE, MAP_SHARED, fd), *copy = anonymous(4 * T_PAGE);
	struct t_region r;

	(void)arg;
	set_module("asked");
	t_region_open(&r, anonymous(4 * T_PAGE), 4 * T_PAGE);
	t_dereg(&r.buf);
	t_check(error_of(&r.pair.dev, p, 4 * T_PAGE, T_REMOTE) == EFAULT, "a file was pinned");
	set_module("always");
	t_buf_wrap(&r.buf, p, 4 * T_PAGE);
	t_reg(&r.buf, &r.pair.dev);
	t_region_exchange(&r, 5, 3 * T_PAGE);
	t_region_write(&r, 0, 4 * T_PAGE);
	t_check(pread(fd, copy, 4 * T_PAGE, 0) == (ssize_t)(4 * T_PAGE), "pread");
	t_check(t_matches(copy, 4 * T_PAGE, r.round), "the file has other bytes");
}

/* ---- changing the switch ---- */

static void the_device_rules(const void *arg)
{
	struct t_region r;

	(void)arg;
	set_module("always");
	device_says("default\n");
	t_check(!open_pins(&r, LEN), "default does not follow the module");
	t_dereg(&r.buf);
	set_device("asked");
	device_says("asked\n");
	t_check(reg_pins(&r.buf, &r.pair.dev), "the device does not overrule always");
	t_dereg(&r.buf);
	set_module("asked");
	set_device("always\n");
	t_check(!reg_pins(&r.buf, &r.pair.dev), "the device does not overrule asked");
	t_region_exchange(&r, 0, LEN);
	t_dereg(&r.buf);
	set_device("default");
	t_check(reg_pins(&r.buf, &r.pair.dev), "default does not follow the module");
}

static void words(const void *arg)
{
	char is[16];

	(void)arg;
	set_module("asked");
	t_check(!t_switch_set("1") && !t_switch_set("alway") && !t_switch_set("alwayss") &&
		!t_switch_set("default") && !try_device("module") && !try_device("Y"),
		"a word that means nothing was taken");
	t_check(t_read_file(PARAMETER, is, sizeof(is)) && !strcmp(is, "asked\n"),
		"now the module says '%s'", is);
	device_says("default\n");
}

static void later_ones_only(const void *arg)
{
	struct t_region r;
	struct t_buf pinned;
	long pin;

	(void)arg;
	set_module("always");
	t_check(!open_pins(&r, LEN), "VmPin is %ld kB", t_status_kb("VmPin"));
	t_region_exchange(&r, 0, LEN);
	set_module("asked");
	expect_said(r.buf.mr, "odp unasked");
	t_check(t_pageout(r.buf.p, 4 * T_PAGE), "it is pinned now");
	t_region_exchange(&r, 0, LEN);
	t_buf_alloc(&pinned, 0, LEN);
	t_check(reg_pins(&pinned, &r.pair.dev), "not pinned");
	pin = t_status_kb("VmPin");
	set_module("always");
	t_check(t_status_kb("VmPin") == pin, "VmPin is %ld kB", t_status_kb("VmPin"));
	expect_said(pinned.mr, "");
	t_dereg(&pinned);
	t_check(t_status_kb("VmPin") == 0, "VmPin is %ld kB", t_status_kb("VmPin"));
	t_dereg(&r.buf);
}

#define REGISTRARS	3
#define ENOUGH		8

/* Each registers until it has seen enough of both kinds, which have to be whole. */
static void registrar(long *unasked)
{
	struct t_region r;
	int seen[2] = { 0 };
	bool pins;

	t_pair_open(&r.pair, NULL);
	t_buf_alloc(&r.scratch, 0, 4 * T_PAGE);
	*unasked += !reg_pins(&r.scratch, &r.pair.dev);
	r.round = 1;
	while (seen[0] < ENOUGH || seen[1] < ENOUGH) {
		t_buf_wrap(&r.buf, anonymous(4 * T_PAGE), LEN);
		pins = reg_pins(&r.buf, &r.pair.dev);
		*unasked += !pins;
		if (seen[pins]++ < ENOUGH)
			t_region_exchange(&r, 0, LEN);
		t_buf_free(&r.buf);
	}
	_exit(0);
}

static void flipped_meanwhile(const void *arg)
{
	long *unasked = t_map(T_PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	long before = t_device_count("mr_on_demand");
	int left = REGISTRARS, i, status;
	pid_t pid[REGISTRARS];
	bool flip = false;

	(void)arg;
	for (i = 0; i < REGISTRARS; i++) {
		pid[i] = t_fork();
		if (!pid[i])
			registrar(&unasked[i]);
	}
	while (left) {
		set_module((flip = !flip) ? "always" : "asked");
		t_sleep_ms(1);
		for (i = 0; i < REGISTRARS; i++) {
			if (!pid[i] || !t_wait_exit(pid[i], 0, &status))
				continue;
			t_check(!status, "a registrar failed");
			pid[i] = 0;
			left--;
		}
	}
	t_check(t_device_count("mr_on_demand") - before == unasked[0] + unasked[1] + unasked[2],
		"not all were counted, or more");
}

/* ---- a region that did not ask ---- */

static void rights_are_kept(const void *arg)
{
	struct t_region r;

	(void)arg;
	set_module("always");
	t_region_open_access(&r, anonymous(LEN), LEN, READ_ONLY);
	t_fill_buf(&r.buf, 7);
	t_region_read(&r, 0, LEN, 7);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE without the right to");
	t_check(t_matches(r.buf.p, LEN, 7), "the region was changed");
}

/* A page that may only be read can be read by a device, and is not registered for more. */
static void read_only_memory(const void *arg)
{
	u8 *p = anonymous(4 * T_PAGE);
	struct t_region r;

	(void)arg;
	set_module("always");
	t_fill(p, 4 * T_PAGE, 8);
	t_check(!mprotect(p, 4 * T_PAGE, PROT_READ), "mprotect");
	t_region_open_access(&r, p, 4 * T_PAGE, READ_ONLY);
	expect_said(r.buf.mr, "odp unasked");
	t_region_read(&r, 0, 4 * T_PAGE, 8);
}

/* Whatever pinned memory says to other rights, this says too. */
static void rereg_says(struct t_region *r, int first, int answers[4])
{
	static const int next[] = {
		T_REMOTE, READ_ONLY, T_REMOTE, T_REMOTE | IBV_ACCESS_ON_DEMAND,
	};
	size_t i;

	t_region_open_access(r, anonymous(LEN), LEN, first);
	for (i = 0; i < T_ARRAY_SIZE(next); i++)
		answers[i] = t_rereg(&r->buf, IBV_REREG_MR_CHANGE_ACCESS, NULL, next[i]);
}

static void rereg(const void *arg)
{
	static const int firsts[] = { T_REMOTE, READ_ONLY };
	int was[4], is[4];
	struct t_region r;
	size_t i, j;

	(void)arg;
	for (i = 0; i < T_ARRAY_SIZE(firsts); i++) {
		set_module("asked");
		rereg_says(&r, firsts[i], was);
		set_module("always");
		rereg_says(&r, firsts[i], is);
		for (j = 0; j < 4; j++)
			t_check(is[j] == was[j], "%zu, step %zu: %s; pinned: %s", i, j,
				strerror(is[j]), strerror(was[j]));
		if (firsts[i] == T_REMOTE)
			t_region_exchange(&r, 0, LEN);
	}
}

/* The parent's memory is the region's, whatever the child does, and whoever copies. */
static void forked(const void *arg)
{
	int inherit = (intptr_t)arg, status;
	struct t_region r;
	pid_t pid;

	t_check(!ibv_fork_init(), "ibv_fork_init");
	set_module("always");
	t_region_open(&r, anonymous(8 * T_PAGE), 8 * T_PAGE);
	t_region_write(&r, 0, 8 * T_PAGE);
	t_check(!madvise(r.buf.p, 8 * T_PAGE, inherit), "madvise: %s", strerror(errno));
	pid = t_fork();
	if (!pid) {
		if (inherit == MADV_DOFORK)
			memset(r.buf.p, 0xee, 8 * T_PAGE);
		_exit(0);
	}
	t_region_read(&r, 0, 8 * T_PAGE, r.round);
	t_region_exchange(&r, 3, 7 * T_PAGE);
	t_check(t_wait_exit(pid, 10000, &status) && !status, "the child failed");
	t_region_exchange(&r, 0, 8 * T_PAGE);
	t_check(t_status_kb("VmPin") == 0, "VmPin is %ld kB", t_status_kb("VmPin"));
}

static const struct t_case others[] = {
	{ "off: a region is pinned", T_SWITCHED, off, NULL },
	{ "on: nothing is pinned, locked or touched", T_SWITCHED, on, NULL },
	{ "on: 1 TiB", T_SWITCHED, one_tebibyte, NULL },
	{ "on: a user who may lock no memory", T_SWITCHED, nobody_without_memlock, NULL },
	{ "on: a file, which cannot be pinned", T_SWITCHED, a_file, NULL },
	{ "on: memory that can only be read", T_SWITCHED, read_only_memory, NULL },
	{ "on: rights are kept", T_SWITCHED, rights_are_kept, NULL },
	{ "on: re-registration says what it says of pinned memory", T_SWITCHED, rereg, NULL },
	{ "on: fork", T_SWITCHED, forked, (void *)(intptr_t)MADV_DOFORK },
	{ "on: fork, without the buffers", T_SWITCHED, forked, (void *)(intptr_t)MADV_DONTFORK },
	{ "on: what asks to be on-demand is explicit", T_SWITCHED, asked_for, NULL },
	{ "pinned for its rights, which fails: counted", T_SWITCHED,
	  counted_though_it_fails, NULL },
	{ "the switch of a device", T_SWITCHED, the_device_rules, NULL },
	{ "the switches take their words only", T_SWITCHED, words, NULL },
	{ "the switch holds for later registrations only", T_SWITCHED, later_ones_only, NULL },
	{ "the switch is flipped while others register", T_SWITCHED, flipped_meanwhile, NULL },
};

static char names[T_ARRAY_SIZE(bads) + T_ARRAY_SIZE(fallbacks)][80];
static struct t_case cases[T_ARRAY_SIZE(names) + T_ARRAY_SIZE(others)];

static size_t add(size_t n, const char *prefix, const char *name,
		  void (*run)(const void *), const void *arg)
{
	snprintf(names[n], sizeof(names[n]), "%s%s", prefix, name);
	cases[n] = (struct t_case){ names[n], T_SWITCHED, run, arg };
	return n + 1;
}

int main(int argc, char **argv)
{
	size_t i, n = 0;

	t_opts.may_pin = true;
	for (i = 0; i < T_ARRAY_SIZE(bads); i++)
		n = add(n, "the same error: ", bads[i].name, fails_as_ever, &bads[i]);
	for (i = 0; i < T_ARRAY_SIZE(fallbacks); i++)
		n = add(n, "pinned for ", fallbacks[i].name, falls_back, &fallbacks[i]);
	memcpy(&cases[n], others, sizeof(others));
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
