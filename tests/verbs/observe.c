// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What can be seen of the mirror from outside is true: counters, the line that each
 * mirror has, the histogram of the fence, and the fields of the tracepoints. Each case
 * does one thing and looks for exactly that. Needs a debug build, for its delay
 * points; Documentation/debugging.md says what the files say.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN		(4 * T_PAGE)
#define PAGES		4
#define BYTES		64
#define HOLD_US		120000UL
#define PROMPT_MS	5000
#define MAX_EVENTS	8192

#define MIRRORS		"/sys/kernel/debug/mm_mirror/mirrors"
#define FENCE_WAITS	"/sys/kernel/debug/mm_mirror/fence_waits"

/*
 * ---- the scene: a region in a leaf of its own, and nothing else ----
 *
 * It is all of its mapping: whoever splits one that covers 2 MiB, to unmap or protect
 * a part, has all of these 2 MiB cleared first, in case there is a huge page.
 */

struct scene {
	struct t_region r;
	u8 *p;
};

static void ok(int err, const char *what)
{
	t_check(!err, "%s: %s", what, strerror(errno));
}

static void delay(const char *point, unsigned long usecs)
{
	t_check(t_delay_set(point, usecs),
		"no delay point %s: this test wants the debug build", point);
}

/* What the case before has left is to go first. */
static void begin(void)
{
	delay("take_to_drop", 0);
	delay("fault_to_install", 0);
	t_check(t_stat_wait("mirrors", 0, 2 * PROMPT_MS), "mirrors are left");
}

static void open_region(struct scene *s, size_t map_len, size_t len)
{
	memset(s, 0, sizeof(*s));
	s->p = t_map_huge_aligned(map_len);
	ok(madvise(s->p, map_len, MADV_NOHUGEPAGE), "madvise");
	t_region_open(&s->r, s->p, len);
}

static void open_scene(struct scene *s)
{
	begin();
	open_region(s, LEN, LEN);
	t_trace_start();
}

/* The CPU has all of it, and then the mirror has. */
static void make_present(struct scene *s)
{
	t_fill(s->p, LEN, 1);
	t_region_write(&s->r, 0, LEN);
}

static void close_region(struct scene *s)
{
	t_dereg(&s->r.buf);
	t_buf_free(&s->r.scratch);
	t_pair_close(&s->r.pair);
}

static void post_at(struct t_region *r, size_t off)
{
	struct ibv_sge sge = t_sge(&r->scratch, 0, BYTES);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
		.raddr = r->buf.iova + off, .rkey = r->buf.mr->rkey,
	};

	t_check(!t_post(&r->pair.a, &op, NULL), "posting");
}

static void post_ends(struct t_region *r)
{
	struct ibv_wc wc;

	t_expect(t_wait(&r->pair.a, &wc), IBV_WC_SUCCESS, "WRITE");
}

static void discard(void *p, size_t len)
{
	ok(madvise(p, len, MADV_DONTNEED), "MADV_DONTNEED");
}

/* ---- counters ---- */

static const char * const counters[] = {
	"faults", "fault_pages", "fault_retries", "fault_errors", "grants",
	"invalidate_refused", "fence_waits", "invalidations", "invalidations_unmap",
	"invalidations_clear", "invalidations_protection_vma",
	"invalidations_protection_page", "invalidations_soft_dirty",
	"invalidations_release", "invalidations_migrate", "invalidations_exclusive",
};

#define COUNTERS T_ARRAY_SIZE(counters)

struct change {
	const char *name;
	long by;
};

static void note(long *then)
{
	size_t i;

	for (i = 0; i < COUNTERS; i++) {
		then[i] = t_stat(counters[i]);
		t_check(then[i] >= 0, "stats has no %s", counters[i]);
	}
}

static long since(const long *then, const char *name)
{
	size_t i;

	for (i = 0; i < COUNTERS; i++) {
		if (!strcmp(counters[i], name))
			return t_stat(name) - then[i];
	}
	t_die("%s is not among the counters", name);
}

static long changed_by(const struct change *changes, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!strcmp(changes[i].name, name))
			return changes[i].by;
	}
	return 0;
}

/* These counters have changed by so much, and no other. */
static void check_changes(const long *then, const struct change *changes, size_t n)
{
	long want, got;
	size_t i;

	for (i = 0; i < COUNTERS; i++) {
		want = changed_by(changes, n, counters[i]);
		got = t_stat(counters[i]) - then[i];
		t_check(got == want, "%s changed by %ld, not %ld", counters[i], got, want);
	}
}

#define CHANGES(then, ...)						\
	do {								\
		const struct change list_[] = { __VA_ARGS__ };		\
									\
		check_changes(then, list_, T_ARRAY_SIZE(list_));	\
	} while (0)

static void check_entries(long present, long held)
{
	t_check(t_stat("entries_present") == present && t_stat("entries_held") == held,
		"entries: %ld present, %ld held; not %ld and %ld", t_stat("entries_present"),
		t_stat("entries_held"), present, held);
}

/* ---- events ---- */

static struct t_event events[MAX_EVENTS];
static size_t n_events;

static void read_trace(void)
{
	t_trace_stop();
	n_events = t_trace_read(events, MAX_EVENTS);
}

/* The @nth event of that name, or NULL. */
static const struct t_event *nth_event(const char *name, size_t nth)
{
	size_t i;

	for (i = 0; i < n_events; i++) {
		if (!strcmp(events[i].name, name) && !nth--)
			return &events[i];
	}
	return NULL;
}

static const struct t_event *only_event(const char *name)
{
	const struct t_event *e = nth_event(name, 0);

	t_check(e, "no event %s among %zu", name, n_events);
	t_check(!nth_event(name, 1), "more than one event %s", name);
	return e;
}

static void field(const struct t_event *e, const char *key, s64 want)
{
	s64 got = t_event_number(e, key);

	t_check(got == want, "%s: %s is %lld, not %lld:%s", e->name, key, (long long)got,
		(long long)want, e->text);
}

static void field_is(const struct t_event *e, const char *key, const char *want)
{
	t_check(t_event_is(e, key, want), "%s: %s is not %s:%s", e->name, key, want, e->text);
}

static void no_event(const char *name)
{
	const struct t_event *e = nth_event(name, 0);

	t_check(!e, "%s: %s", name, e->text);
}

/* The end that belongs to the only begin, which took no longer than @ms. */
static const struct t_event *whole_fault(const void *p, size_t bytes, bool write, u64 ms)
{
	const struct t_event *e = only_event("mm_mirror_fault_begin");
	const struct t_event *end = only_event("mm_mirror_fault_end");
	s64 us = t_event_number(end, "us"), need = t_event_number(e, "need");

	field(e, "pid", getpid());
	field(e, "address", (uintptr_t)p);
	field(e, "bytes", bytes);
	field(e, "ranges", 1);
	field(e, "write", write);
	field(e, "granted", 0);
	t_check(need > 0 && need <= (s64)bytes, "need:%s", e->text);
	field(end, "pid", getpid());
	field(end, "address", (uintptr_t)p);
	field(end, "bytes", bytes);
	field(end, "write", write);
	field(end, "granted", 0);
	t_check(t_event_same(e, end, "fault") && t_event_same(e, end, "mirror"),
		"begin and end differ:%s;%s", e->text, end->text);
	t_check(us > 0 && us <= (s64)(ms + 1) * 1000, "%lld us, in a transfer of %llu ms",
		(long long)us, (unsigned long long)ms);
	return end;
}

/* ---- faults ---- */

/*
 * A packet is executed as soon as its own page is there, if another one comes just
 * then.  Nobody wants its fault any more, and the next packet may need one: seen on a
 * host under load, and then it is written once more.  Returns how long it took.
 */
static u64 write_in_one_fault(struct scene *s, long *then)
{
	int tries = 0;
	u64 start, ms;

	do {
		t_check(tries++ < 10, "never one fault only");
		discard(s->p, LEN);
		t_fill(s->p, LEN, 1);
		check_entries(0, 0);
		note(then);
		t_trace_start();
		start = t_now_ms();
		t_region_write(&s->r, 0, LEN);
		ms = t_now_ms() - start;
		read_trace();
	} while (nth_event("mm_mirror_fault_begin", 1));
	return ms;
}

static void fault_of_write(const void *arg)
{
	const struct t_event *end;
	long then[COUNTERS];
	struct scene s;

	begin();
	open_region(&s, LEN, LEN);
	end = whole_fault(s.p, LEN, true, write_in_one_fault(&s, then));
	field(end, "status", 0);
	field(end, "pages", PAGES);
	field(end, "rounds", 0);
	field(end, "waits", 0);
	field(end, "retries", 0);
	CHANGES(then, { "faults", 1 }, { "fault_pages", PAGES });
	check_entries(PAGES, 0);
	no_event("mm_mirror_invalidate");
	no_event("mm_mirror_fence_wait");
}

static void fault_of_read(const void *arg)
{
	const struct t_event *end;
	long then[COUNTERS];
	struct scene s;
	u64 start;

	open_scene(&s);
	note(then);
	start = t_now_ms();
	t_region_read_zero(&s.r, T_PAGE + 8, BYTES);
	end = (read_trace(), whole_fault(s.p + T_PAGE + 8, BYTES, false,
					 t_now_ms() - start));
	field(end, "status", 0);
	field(end, "pages", 1);
	field(end, "rounds", 1);
	CHANGES(then, { "faults", 1 }, { "fault_pages", 1 });
	check_entries(1, 0);
}

static void fault_refused(const void *arg)
{
	const struct t_event *end;
	long then[COUNTERS];
	struct scene s;
	u64 start;

	open_scene(&s);
	ok(mprotect(s.p, LEN, PROT_NONE), "mprotect");
	note(then);
	start = t_now_ms();
	t_expect(t_write(&s.r.pair.a, &s.r.scratch, 0, &s.r.buf, 0, BYTES),
		 IBV_WC_REM_ACCESS_ERR, "WRITE to a place that cannot be written");
	end = (read_trace(), whole_fault(s.p, BYTES, true, t_now_ms() - start));
	field(end, "status", -EFAULT);
	field(end, "pages", 0);
	CHANGES(then, { "faults", 1 }, { "fault_errors", 1 });
	check_entries(0, 0);
}

static s64 sum_over(const char *name, const char *key)
{
	const struct t_event *e;
	s64 sum = 0;
	size_t i;

	for (i = 0; (e = nth_event(name, i)); i++)
		sum += t_event_number(e, key);
	return sum;
}

/* What the events say comes to what the counter says. */
static long agreed(const long *then, const char *counter, const char *key)
{
	long by = since(then, counter);
	s64 sum = sum_over("mm_mirror_fault_end", key);

	t_check(by == sum, "%s changed by %ld, the events say %lld", counter, by,
		(long long)sum);
	return by;
}

static bool try_overtaken(const void *arg, unsigned int start_ms)
{
	long then[COUNTERS], retries;
	struct scene s;

	open_scene(&s);
	t_fill(s.p, LEN, 1);
	note(then);
	delay("fault_to_install", HOLD_US);
	post_at(&s.r, 0);
	t_sleep_ms(start_ms);
	discard(s.p, T_PAGE);
	post_ends(&s.r);
	delay("fault_to_install", 0);
	read_trace();
	agreed(then, "fault_pages", "pages");
	retries = agreed(then, "fault_retries", "retries");
	close_region(&s);
	return retries > 0;
}

static void overtaken(const void *arg)
{
	t_until_hit(try_overtaken, arg);
}

/* ---- the lines of mirrors ---- */

static bool mirror_line(pid_t pid, struct t_event *line)
{
	char text[8192], find[32], *at;

	t_check(t_read_file(MIRRORS, text, sizeof(text)), "no file %s", MIRRORS);
	snprintf(find, sizeof(find), " pid=%d ", pid);
	at = strstr(text, find);
	if (!at)
		return false;
	while (at > text && at[-1] != '\n')
		at--;
	snprintf(line->name, sizeof(line->name), "mirrors");
	snprintf(line->text, sizeof(line->text), " %.*s", (int)strcspn(at, "\n"), at);
	return true;
}

struct has {
	long leaves, huge, present, held, running, queued;
};

/* A message may have all it needs of a fault that still looks ahead: that ends by itself. */
static void has(pid_t pid, const struct has *want)
{
	u64 end = t_deadline(PROMPT_MS);
	struct t_event line;

	do {
		t_check(mirror_line(pid, &line), "no line for process %d", pid);
	} while (t_event_number(&line, "faults_running") != want->running && t_now_ms() < end);
	field(&line, "leaves", want->leaves);
	field(&line, "huge", want->huge);
	field(&line, "present", want->present);
	field(&line, "held", want->held);
	field(&line, "faults_running", want->running);
	field(&line, "faults_queued", want->queued);
	field(&line, "subscriptions", 0);
}

#define HAS(...)	has(getpid(), &(struct has){ __VA_ARGS__ })

static void line_of_pages(const void *arg)
{
	struct t_event line;
	struct scene s;

	begin();
	t_check(!mirror_line(getpid(), &line), "a line before there is a mirror");
	open_region(&s, 2 * T_HUGE, T_HUGE + LEN);
	HAS(.leaves = 0);
	t_region_write(&s.r, 0, T_PAGE);
	HAS(.leaves = 1, .present = 1);
	t_region_write(&s.r, T_HUGE, LEN);
	HAS(.leaves = 2, .present = 1 + PAGES);
	discard(s.p + T_HUGE, T_PAGE);
	HAS(.leaves = 2, .present = PAGES);
	discard(s.p, T_HUGE);
	t_check(t_stat_wait("leaves", 1, PROMPT_MS), "the empty leaf stays");
	HAS(.leaves = 1, .present = PAGES - 1);
	close_region(&s);
	t_check(t_stat_wait("mirrors", 0, PROMPT_MS), "the mirror stays");
	t_check(!mirror_line(getpid(), &line), "a line of a mirror that has gone");
}

static bool try_held(const void *arg, unsigned int start_ms)
{
	struct t_event line;
	struct scene s;
	s64 held;

	open_scene(&s);
	make_present(&s);
	delay("take_to_drop", HOLD_US);
	post_at(&s.r, T_PAGE);
	t_sleep_ms(start_ms);
	t_check(mirror_line(getpid(), &line), "no line");
	held = t_event_number(&line, "held");
	field(&line, "present", PAGES);
	post_ends(&s.r);
	delay("take_to_drop", 0);
	t_check(held == 0 || held == 1, "%lld pages are held", (long long)held);
	HAS(.leaves = 1, .present = PAGES);
	close_region(&s);
	return held;
}

static void line_of_held(const void *arg)
{
	t_until_hit(try_held, arg);
}

#define QUEUE_PAIRS	20
#define AT_WORK		16	/* FAULTS_PER_MIRROR */

static void await_turns(s64 running, s64 queued)
{
	u64 end = t_deadline(PROMPT_MS);
	struct t_event line;

	do {
		t_check(t_now_ms() < end, "not %lld at work and %lld waiting:%s",
			(long long)running, (long long)queued, line.text);
		t_check(mirror_line(getpid(), &line), "no line");
	} while (t_event_number(&line, "faults_running") != running ||
		 t_event_number(&line, "faults_queued") != queued);
}

static void line_of_turns(const void *arg)
{
	static struct t_region r[QUEUE_PAIRS];
	u8 *p;
	int i;

	begin();
	p = t_map_huge_aligned(QUEUE_PAIRS * T_PAGE);
	for (i = 0; i < QUEUE_PAIRS; i++)
		t_region_open(&r[i], p + i * T_PAGE, T_PAGE);
	delay("fault_to_install", t_patience(2000) * 1000);
	for (i = 0; i < QUEUE_PAIRS; i++)
		post_at(&r[i], 0);
	await_turns(AT_WORK, QUEUE_PAIRS - AT_WORK);
	delay("fault_to_install", 0);
	for (i = 0; i < QUEUE_PAIRS; i++)
		post_ends(&r[i]);
	await_turns(0, 0);
	HAS(.leaves = 1, .present = QUEUE_PAIRS);
}

/* Its line has its pid, and its name with what does not fit into a line escaped. */
static void lines_of_two(const void *arg)
{
	struct t_event mine, its;
	int ready[2];
	struct scene s;
	pid_t pid;
	char byte;

	begin();
	ok(pipe(ready), "pipe");
	pid = t_fork();
	if (!pid) {
		prctl(PR_SET_NAME, "a\\b c\nd");
		open_region(&s, T_HUGE, LEN);
		t_region_write(&s.r, 0, LEN);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	t_check(read(ready[0], &byte, 1) == 1, "the other process is not ready");
	open_region(&s, T_HUGE, LEN);
	t_region_write(&s.r, 0, BYTES);
	HAS(.leaves = 1, .present = 1);
	has(pid, &(struct has){ .leaves = 1, .present = PAGES });
	check_entries(1 + PAGES, 0);
	t_check(mirror_line(getpid(), &mine) && mirror_line(pid, &its), "no lines");
	t_check(!t_event_same(&mine, &its, "mirror"), "one number for two:%s", its.text);
	t_check(strstr(its.text, " comm=a\\134b c\\012d"), "its name:%s", its.text);
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, PROMPT_MS, NULL), "the killed process stays");
	t_check(t_stat_wait("mirrors", 1, PROMPT_MS), "its mirror stays");
	t_check(!mirror_line(pid, &its), "a line of a process that has gone");
	HAS(.leaves = 1, .present = 1);
}

#define ROUNDS	12

static void *read_all(void *stop)
{
	char text[8192];
	long n = 0;

	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
		t_check(t_read_file(MIRRORS, text, sizeof(text)), "mirrors");
		t_check(t_stat("entries_present") >= 0, "stats");
		n++;
	}
	return (void *)n;
}

static void read_meanwhile(const void *arg)
{
	bool stop = false;
	pthread_t reader;
	struct scene s;
	void *n;
	pid_t pid;
	int i;

	begin();
	t_check(!pthread_create(&reader, NULL, read_all, &stop), "thread");
	for (i = 0; i < ROUNDS; i++) {
		pid = t_fork();
		if (!pid) {
			open_region(&s, T_HUGE, LEN);
			t_region_write(&s.r, 0, LEN);
			_exit(0);
		}
		t_check(t_wait_exit(pid, 2 * PROMPT_MS, NULL), "a process stays");
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(reader, &n);
	t_check((long)n > ROUNDS, "read only %ld times", (long)n);
	t_check(t_stat_wait("mirrors", 0, PROMPT_MS), "mirrors stay");
	check_entries(0, 0);
}

/* ---- a fault that waits ---- */

static void fault_that_waits(const void *arg)
{
	const struct t_event *end;
	u64 address, start;
	u8 page[T_PAGE];
	struct scene s;
	int uffd;

	open_scene(&s);
	uffd = t_uffd_open();
	t_uffd_watch(uffd, s.p, LEN);
	start = t_now_ms();
	post_at(&s.r, 0);
	t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "no fault comes");
	await_turns(1, 0);
	t_sleep_ms(50);
	t_fill(page, T_PAGE, 1);
	t_uffd_serve(uffd, address, page);
	post_ends(&s.r);
	end = (read_trace(), whole_fault(s.p, BYTES, true, t_now_ms() - start));
	field(end, "status", 0);
	t_check(t_event_number(end, "waits") > 0, "it did not wait:%s", end->text);
	t_check(t_event_number(end, "us") >= 50000, "less than was slept:%s", end->text);
}

/* ---- invalidations ---- */

struct kind {
	const char *event;
	bool of_leaf;		/* it was about all of it */
	void (*run)(struct scene *s);
};

static void do_unmap(struct scene *s)
{
	ok(munmap(s->p, LEN), "munmap");
}

static void do_discard(struct scene *s)
{
	discard(s->p, LEN);
}

static void do_protect(struct scene *s)
{
	ok(mprotect(s->p, LEN, PROT_READ), "mprotect");
}

static void do_fork(struct scene *s)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	t_check(pid > 0 && t_wait_exit(pid, PROMPT_MS, NULL), "fork");
}

static void do_soft_dirty(struct scene *s)
{
	t_check(t_write_file("/proc/self/clear_refs", "4\n"), "clear_refs: %s",
		strerror(errno));
}

/* The one invalidation that removed anything removed these pages. */
static const struct t_event *removal(const struct kind *k, const u8 *p, s64 removed)
{
	const struct t_event *e, *found = NULL;
	size_t i;

	for (i = 0; (e = nth_event("mm_mirror_invalidate", i)); i++) {
		if (!t_event_number(e, "removed"))
			continue;
		t_check(!found, "two invalidations:%s;%s", found->text, e->text);
		found = e;
	}
	t_check(found, "no invalidation removed anything, of %zu", i);
	field(found, "removed", removed);
	field(found, "start", (uintptr_t)p);
	field(found, "last", (uintptr_t)p + (k->of_leaf ? T_HUGE : LEN) - 1);
	field_is(found, "event", k->event);
	field(found, "blockable", 1);
	field(found, "refused", 0);
	return found;
}

static void check_kind(const long *then, const char *event)
{
	char name[64];

	snprintf(name, sizeof(name), "invalidations_%s", event);
	CHANGES(then, { "invalidations", 1 }, { name, 1 });
}

static void invalidation(const void *arg)
{
	const struct kind *k = arg;
	long then[COUNTERS];
	struct scene s;

	open_scene(&s);
	make_present(&s);
	check_entries(PAGES, 0);
	note(then);
	k->run(&s);
	read_trace();
	check_kind(then, k->event);
	check_entries(0, 0);
	field(removal(k, s.p, PAGES), "pid", getpid());
}

/* In a process that ends with all it has. */
static void invalidation_by_exit(const void *arg)
{
	static const struct kind k = { "release", true, NULL };
	const struct t_event *e, *fault;
	struct {
		long then[COUNTERS];
		u8 *p;
	} alive;
	struct scene s;
	int out[2];
	pid_t pid;

	begin();
	ok(pipe(out), "pipe");
	pid = t_fork();
	if (!pid) {
		open_scene(&s);
		make_present(&s);
		t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "a fault is left");
		alive.p = s.p;
		note(alive.then);
		_exit(write(out[1], &alive, sizeof(alive)) != sizeof(alive));
	}
	t_check(read(out[0], &alive, sizeof(alive)) == sizeof(alive),
		"the process is not ready");
	t_check(t_wait_exit(pid, PROMPT_MS, NULL), "the process stays");
	t_check(t_stat_wait("mirrors", 0, PROMPT_MS), "its mirror stays");
	read_trace();
	CHANGES(alive.then, { "invalidations", 1 }, { "invalidations_release", 1 });
	e = removal(&k, alive.p, PAGES);
	fault = nth_event("mm_mirror_fault_end", 0);
	t_check(fault && t_event_same(e, fault, "mirror"), "of another mirror:%s", e->text);
}

static void invalidation_of_huge(const void *arg)
{
	static const struct kind k = { "clear", true, NULL };
	long then[COUNTERS];
	struct scene s;

	begin();
	s.p = t_map_huge_aligned(T_HUGE);
	ok(madvise(s.p, T_HUGE, MADV_HUGEPAGE), "madvise");
	t_fill(s.p, T_HUGE, 1);
	t_check(t_huge_bytes(s.p) == T_HUGE, "no huge page");
	t_region_open(&s.r, s.p, LEN);
	t_region_write(&s.r, 0, LEN);
	HAS(.leaves = 1, .huge = 1, .present = 1);
	check_entries(1, 0);
	note(then);
	t_trace_start();
	discard(s.p, T_HUGE);
	read_trace();
	check_kind(then, "clear");
	check_entries(0, 0);
	field(removal(&k, s.p, 1), "pid", getpid());
}

/* ---- the fence ---- */

#define BUCKETS	24

static void read_histogram(long *n)
{
	FILE *file = fopen(FENCE_WAITS, "re");
	unsigned long from;
	int i;

	t_check(file, "no file %s", FENCE_WAITS);
	for (i = 0; i < BUCKETS; i++) {
		t_check(fscanf(file, "%lu %ld\n", &from, &n[i]) == 2, "line %d", i + 1);
		t_check(from == (i ? 1UL << (i - 1) : 0), "line %d is from %lu", i + 1, from);
	}
	t_check(fgetc(file) == EOF, "more than %d lines", BUCKETS);
	fclose(file);
}

static int bucket_of(s64 us)
{
	int i = 0;

	while (us >> i)
		i++;
	return i < BUCKETS ? i : BUCKETS - 1;
}

/* One wait: the bucket of the time that the event has, and no other. */
static void check_fence(const long *then, const u8 *page)
{
	const struct t_event *e = only_event("mm_mirror_fence_wait");
	s64 us = t_event_number(e, "us");
	long now[BUCKETS];
	int i;

	field(e, "pid", getpid());
	field(e, "address", (uintptr_t)page);
	t_check(us > 0, "no time:%s", e->text);
	read_histogram(now);
	for (i = 0; i < BUCKETS; i++)
		t_check(now[i] - then[i] == (i == bucket_of(us)),
			"%lld us: %ld more in bucket %d", (long long)us, now[i] - then[i], i);
}

/* A page is discarded while a WRITE has it, and nothing else is. */
static bool try_fence(const void *arg, unsigned int start_ms)
{
	long then[COUNTERS], waits[BUCKETS], same[BUCKETS];
	bool hit;
	struct scene s;

	open_scene(&s);
	make_present(&s);
	t_trace_start();
	note(then);
	read_histogram(waits);
	delay("take_to_drop", HOLD_US);
	post_at(&s.r, 2 * T_PAGE);
	t_sleep_ms(start_ms);
	discard(s.p, LEN);
	read_trace();
	hit = since(then, "fence_waits") > 0;
	post_ends(&s.r);
	delay("take_to_drop", 0);
	if (hit) {
		CHANGES(then, { "fence_waits", 1 }, { "invalidations", 1 },
			{ "invalidations_clear", 1 });
		check_fence(waits, s.p + 2 * T_PAGE);
		field(only_event("mm_mirror_invalidate"), "removed", PAGES);
	} else {
		read_histogram(same);
		t_check(!memcmp(waits, same, sizeof(same)), "a time, and nobody has waited");
	}
	close_region(&s);
	return hit;
}

static void fence(const void *arg)
{
	t_until_hit(try_fence, arg);
}

/* ---- aging ---- */

/* What aging was told of that page, or -1 if it did not come by. */
static int asked_about(const u8 *page)
{
	const struct t_event *e;
	int young = -1;
	size_t i;

	t_trace_start();
	t_lru_age();
	read_trace();
	for (i = 0; (e = nth_event("mm_mirror_age", i)); i++) {
		if (t_event_number(e, "start") != (s64)(uintptr_t)page)
			continue;
		field(e, "last", (uintptr_t)page + T_PAGE - 1);
		field(e, "pid", getpid());
		field(e, "clear", 1);
		young = t_event_number(e, "young");
	}
	return young;
}

/* Young where RDMA was since, and nowhere else. */
static void aging(const void *arg)
{
	struct scene s;
	int young, after, i;

	open_scene(&s);
	t_fill(s.p, LEN, 1);
	for (i = 0; i < 6; i++) {
		t_region_write(&s.r, T_PAGE, BYTES);
		young = asked_about(s.p + T_PAGE);
		if (young < 0)
			continue;	/* somebody had the page table locked */
		t_check(young == 1, "a page is written, and is not young");
		after = asked_about(s.p + T_PAGE);
		t_check(after != 1, "it is young, and was not touched");
		if (!after && !asked_about(s.p))
			return;
	}
	t_check(false, "aging does not come by");
}

/* ---- the table ---- */

static const struct kind kinds[] = {
	{ "unmap", false, do_unmap },
	{ "clear", false, do_discard },
	{ "protection_vma", false, do_protect },
	{ "protection_page", false, do_fork },
	{ "soft_dirty", true, do_soft_dirty },
};

static const struct t_case cases[] = {
	{ "fault: a WRITE of four pages", T_ODP, fault_of_write, NULL },
	{ "fault: a READ of what nobody has touched", T_ODP, fault_of_read, NULL },
	{ "fault: a place that cannot be had", T_ODP, fault_refused, NULL },
	{ "fault: overtaken by an invalidation", T_ODP, overtaken, NULL },
	{ "fault: waiting for a userfaultfd", T_ODP, fault_that_waits, NULL },
	{ "invalidation: munmap", T_ODP, invalidation, &kinds[0] },
	{ "invalidation: MADV_DONTNEED", T_ODP, invalidation, &kinds[1] },
	{ "invalidation: mprotect", T_ODP, invalidation, &kinds[2] },
	{ "invalidation: fork", T_ODP, invalidation, &kinds[3] },
	{ "invalidation: clear_refs", T_ODP, invalidation, &kinds[4] },
	{ "invalidation: exit", T_ODP, invalidation_by_exit, NULL },
	{ "invalidation: a huge page", T_ODP, invalidation_of_huge, NULL },
	{ "fence: a wait, its time and its place", T_ODP, fence, NULL },
	{ "aging: what the device has used", T_ODP, aging, NULL },
	{ "mirrors: leaves and pages", T_ODP, line_of_pages, NULL },
	{ "mirrors: a page held", T_ODP, line_of_held, NULL },
	{ "mirrors: faults at work, and waiting for their turn", T_ODP, line_of_turns, NULL },
	{ "mirrors: two processes, and any name", T_ODP, lines_of_two, NULL },
	{ "mirrors: read while they come and go", T_ODP, read_meanwhile, NULL },
};

int main(int argc, char **argv)
{
	int ret = t_main(argc, argv, cases, T_ARRAY_SIZE(cases));

	if (!t_opts.count_only && t_stat_wait("mirrors", 0, 2 * PROMPT_MS))
		t_trace_end();
	return ret;
}
