// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Faults that a device's copies take: served by a userfaultfd's handler, or never;
 * many pages at once; huge pages left whole; charged to who owns the memory; and not
 * starved by who takes it away.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define PAGES		4
#define LEN		(PAGES * T_PAGE)
#define PROMPT_MS	5000
#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

#define ok(call, what)	t_check(!(call), "%s: %s", what, strerror(errno))

/**
 * struct scene - an engine, memory that is faulted, and memory that is there
 * @dma: the engine
 * @table: whether the space of @p has one
 * @space: of @p
 * @plain: of @scratch
 * @p: memory
 * @scratch: LEN bytes
 * @running: faults at work before
 */
struct scene {
	int dma;
	bool table;
	u32 space;
	u32 plain;
	u8 *p;
	u8 *scratch;
	long running;
};

static void open_on(struct scene *s, u8 *p, bool table)
{
	*s = (struct scene){ .p = p, .table = table, .running = t_stat("faults_running") };
	s->scratch = t_map(LEN, ANON, -1);
	memset(s->scratch, 0, LEN);
	s->dma = t_dma_open();
	s->plain = t_dma_attach(s->dma);
	s->space = table ? t_dma_attach_all(s->dma) : t_dma_attach(s->dma);
}

static struct t_place in_p(const struct scene *s, size_t offset)
{
	return (struct t_place){ s->space, s->p + offset };
}

static struct t_place in_scratch(const struct scene *s)
{
	return (struct t_place){ s->plain, s->scratch };
}

static int device_writes(struct scene *s, size_t offset, size_t len, u64 round)
{
	t_fill_at(s->scratch, len, offset, round);
	return t_dma_copy(s->dma, in_p(s, offset), in_scratch(s), len);
}

static int device_reads(struct scene *s, size_t offset, size_t len)
{
	memset(s->scratch, 0xee, len);
	return t_dma_copy(s->dma, in_scratch(s), in_p(s, offset), len);
}

static void device_finds(struct scene *s, size_t offset, size_t len, u64 round)
{
	int status = device_reads(s, offset, len);

	t_check(!status, "copy: %s", strerror(-status));
	t_check(t_matches_at(s->scratch, len, offset, round), "the device reads other bytes");
}

/* ---- userfaultfd ---- */

static int uffd_open(u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	t_check(fd >= 0, "userfaultfd: %s", strerror(errno));
	ok(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

static void uffd_watch(int uffd, void *p, size_t len, u64 mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len }, .mode = mode,
	};

	ok(ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
}

static void uffd_protect(int uffd, const void *p, size_t len, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	ok(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), "UFFDIO_WRITEPROTECT");
}

static void uffd_continue(int uffd, u64 address)
{
	struct uffdio_continue go = { .range = { .start = address, .len = T_PAGE } };

	t_check(!ioctl(uffd, UFFDIO_CONTINUE, &go) || errno == EEXIST, "UFFDIO_CONTINUE: %s",
		strerror(errno));
}

/**
 * struct handler - who serves faults, and what it has seen
 * @thread: it
 * @uffd: where they come
 * @p: the memory
 * @round: of the bytes that a missing page gets
 * @missing: faults for pages that are not there
 * @minor: for pages of a file that are only not mapped
 * @wp: for pages that must not be written
 * @stop: it is to end
 */
struct handler {
	pthread_t thread;
	int uffd;
	u8 *p;
	u64 round;
	unsigned int missing;
	unsigned int minor;
	unsigned int wp;
	bool stop;
};

static void serve(struct handler *h, const struct uffd_msg *msg)
{
	u64 address = msg->arg.pagefault.address & ~(T_PAGE - 1);
	static u8 page[T_PAGE];

	if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		h->wp++;
		uffd_protect(h->uffd, (void *)(uintptr_t)address, T_PAGE, false);
	} else if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) {
		h->minor++;
		uffd_continue(h->uffd, address);
	} else {
		h->missing++;
		t_fill_at(page, T_PAGE, address - (uintptr_t)h->p, h->round);
		t_uffd_serve(h->uffd, address, page);
	}
}

static void *handle(void *arg)
{
	struct handler *h = arg;
	struct pollfd pfd = { .fd = h->uffd, .events = POLLIN };
	struct uffd_msg msg;

	while (!__atomic_load_n(&h->stop, __ATOMIC_RELAXED)) {
		if (poll(&pfd, 1, 20) > 0 && read(h->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT)
			serve(h, &msg);
	}
	return NULL;
}

static void handler_start(struct handler *h, int uffd, u8 *p, u64 round)
{
	*h = (struct handler){ .uffd = uffd, .p = p, .round = round };
	t_check(!pthread_create(&h->thread, NULL, handle, h), "thread");
}

static void handler_stop(struct handler *h)
{
	__atomic_store_n(&h->stop, true, __ATOMIC_RELAXED);
	pthread_join(h->thread, NULL);
}

/* The handler's bytes are what the device reads; and what it writes to goes over them. */
static void missing(const void *arg)
{
	struct handler h;
	struct scene s;
	int uffd;

	open_on(&s, t_map(2 * LEN, ANON, -1), arg);
	uffd = uffd_open(0);
	uffd_watch(uffd, s.p, 2 * LEN, UFFDIO_REGISTER_MODE_MISSING);
	handler_start(&h, uffd, s.p, 5);
	device_finds(&s, 0, LEN, 5);
	t_check(h.missing == PAGES, "%u faults for %d pages", h.missing, PAGES);
	t_check(!device_writes(&s, LEN + 100, 2 * T_PAGE, 6), "copy");
	handler_stop(&h);
	t_check(h.missing == PAGES + 3, "%u faults for 3 pages", h.missing - PAGES);
	t_check(t_matches_at(s.p + LEN, 100, LEN, 5) &&
		t_matches_at(s.p + LEN + 100, 2 * T_PAGE, LEN + 100, 6) &&
		t_matches_at(s.p + LEN + 100 + 2 * T_PAGE, T_PAGE - 100,
			     LEN + 100 + 2 * T_PAGE, 5), "other bytes in memory");
	t_check(!h.minor && !h.wp, "faults of another kind");
}

/* Pages of a file that are there, and mapped by nobody here. */
static void minor(const void *arg)
{
	int fd = t_memfd("minor", LEN, 0);
	u8 *alias = t_map(LEN, MAP_SHARED, fd);
	struct handler h;
	struct scene s;
	int uffd;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), arg);
	t_fill(alias, LEN, 7);
	uffd = uffd_open(UFFD_FEATURE_MINOR_SHMEM);
	uffd_watch(uffd, s.p, LEN, UFFDIO_REGISTER_MODE_MINOR);
	handler_start(&h, uffd, s.p, 0);
	device_finds(&s, 0, 2 * T_PAGE, 7);
	t_check(h.minor == 2, "%u faults for 2 pages", h.minor);
	t_check(!device_writes(&s, 2 * T_PAGE, 2 * T_PAGE, 8), "copy");
	handler_stop(&h);
	t_check(h.minor == 4, "%u faults for 2 pages", h.minor - 2);
	t_check(t_matches(alias, 2 * T_PAGE, 7) &&
		t_matches_at(alias + 2 * T_PAGE, 2 * T_PAGE, 2 * T_PAGE, 8),
		"other bytes in the file");
	t_check(!h.missing && !h.wp, "faults of another kind");
}

/* A device that may write already is stopped, and asks before it writes again. */
static void write_protected(const void *arg)
{
	struct handler h;
	struct scene s;
	int uffd;

	open_on(&s, t_map(LEN, ANON, -1), arg);
	t_check(!device_writes(&s, 0, LEN, 9), "copy");
	uffd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	uffd_watch(uffd, s.p, LEN, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(uffd, s.p, LEN, true);
	handler_start(&h, uffd, s.p, 0);
	device_finds(&s, 0, LEN, 9);
	t_check(!h.wp, "%u faults for reading", h.wp);
	t_check(!device_writes(&s, T_PAGE, 2 * T_PAGE, 10), "copy");
	handler_stop(&h);
	t_check(h.wp == 2, "%u faults for 2 pages", h.wp);
	t_check(t_matches(s.p, T_PAGE, 9) &&
		t_matches_at(s.p + T_PAGE, 2 * T_PAGE, T_PAGE, 10) &&
		t_matches_at(s.p + 3 * T_PAGE, T_PAGE, 3 * T_PAGE, 9), "other bytes in memory");
	t_check(!h.missing && !h.minor, "faults of another kind");
}

/* ---- nobody serves it ---- */

static void stick(struct scene *s, int uffd, u64 cookie, size_t offset)
{
	u64 address;

	t_dma_start(s->dma, cookie, in_scratch(s), in_p(s, offset), 64);
	t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "no fault came");
	t_check(address == (uintptr_t)s->p + offset - offset % T_PAGE, "another fault came");
}

static int open_stuck(struct scene *s, bool table)
{
	int uffd = t_uffd_open();

	open_on(s, t_map(T_HUGE, ANON, -1), table);
	t_uffd_watch(uffd, s->p, T_HUGE);
	stick(s, uffd, 1, 0);
	return uffd;
}

static void faults_end(const struct scene *s)
{
	t_check(t_stat_wait("faults_running", s->running, PROMPT_MS), "a fault goes on");
}

static void detached(const void *arg)
{
	struct mirror_dma_done done;
	struct scene s;
	u64 begin;

	open_stuck(&s, arg);
	begin = t_now_ms();
	t_dma_detach(s.dma, s.space);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "detaching takes long");
	t_check(t_dma_read(s.dma, 0, &done), "detaching left a copy");
	t_check(done.cookie == 1 && done.status == -ECANCELED && !done.bytes,
		"copy %llu ended with status %d", (unsigned long long)done.cookie, done.status);
	faults_end(&s);
}

static void closed(const void *arg)
{
	struct scene s;
	u64 begin;

	open_stuck(&s, arg);
	begin = t_now_ms();
	ok(close(s.dma), "close");
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "closing takes long");
	faults_end(&s);
}

/* The child sticks on an engine that the parent keeps. */
static void killed(const void *arg)
{
	struct mirror_dma_done done;
	struct scene s = { .dma = t_dma_open() };
	int status, ready[2];
	char byte;
	pid_t pid;

	s.running = t_stat("faults_running");
	ok(pipe(ready), "pipe");
	pid = t_fork();
	if (!pid) {
		int uffd = t_uffd_open();

		s.p = t_map(T_HUGE, ANON, -1);
		s.scratch = t_map(LEN, ANON, -1);
		s.plain = t_dma_attach(s.dma);
		s.space = arg ? t_dma_attach_all(s.dma) : s.plain;
		t_uffd_watch(uffd, s.p, T_HUGE);
		stick(&s, uffd, 1, 0);
		t_check(write(ready[1], "x", 1) == 1, "write");
		pause();
		_exit(1);
	}
	close(ready[1]);
	t_check(read(ready[0], &byte, 1) == 1, "the child is not ready");
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, PROMPT_MS, &status), "the killed process stays");
	t_check(t_dma_read(s.dma, PROMPT_MS, &done), "its copy goes on");
	t_check(done.status == -ESRCH && !done.bytes, "status %d", done.status);
	faults_end(&s);
}

/* More than a process may have at work: those that wait for a handler do not count. */
static void many_stuck(const void *arg)
{
	enum { STUCK = 40 };
	struct scene s;
	int uffd = open_stuck(&s, arg), i;

	for (i = 1; i < STUCK; i++)
		stick(&s, uffd, 1, i * 2 * T_PAGE);
	s.p = t_map(LEN, ANON, -1);
	s.scratch = t_map(LEN, ANON, -1);
	for (i = 0; i < PAGES; i++)
		t_check(!device_writes(&s, i * T_PAGE, T_PAGE, 11), "copy");
	t_check(t_matches(s.p, LEN, 11), "other bytes");
	t_check(t_stat("faults_running") == s.running + STUCK, "%ld faults wait, not %d",
		t_stat("faults_running") - s.running, STUCK);
	t_dma_detach(s.dma, s.space);
	faults_end(&s);
}

/* ---- many pages at once ---- */

/* What is there takes one fault, and so does what has only to be made. */
static void batched(const void *arg)
{
	size_t len = T_HUGE / 2;
	struct mirror_dma_counts counts;
	u8 *from = t_map_huge_aligned(T_HUGE), *to = t_map_huge_aligned(T_HUGE);
	long pages = t_stat("fault_pages");
	struct scene s;

	ok(madvise(from, T_HUGE, MADV_NOHUGEPAGE) || madvise(to, T_HUGE, MADV_NOHUGEPAGE),
	   "MADV_NOHUGEPAGE");
	open_on(&s, to, arg);
	t_fill(from, len, 12);
	t_check(!t_dma_copy(s.dma, in_p(&s, 0), (struct t_place){ s.plain, from }, len), "copy");
	t_check(t_matches(to, len, 12), "other bytes");
	t_dma_counts(s.dma, s.plain, &counts);
	t_check(counts.faults == 1, "%llu faults for what is there",
		(unsigned long long)counts.faults);
	t_dma_counts(s.dma, s.space, &counts);
	t_check(counts.faults == 1, "%llu faults for what is to be made",
		(unsigned long long)counts.faults);
	pages = t_stat("fault_pages") - pages;
	t_check(pages == (long)(2 * len / T_PAGE), "%ld pages were installed", pages);
}

/* ---- huge pages ---- */

static void stay_whole(struct scene *s, u64 huge)
{
	size_t at = 3 * T_PAGE + 5, end = T_HUGE - LEN;
	long tables;

	/* those of the case before */
	t_check(t_stat_wait("huge_leaves", 0, T_WAIT_MS), "huge leaves are left");
	tables = t_stat("table_leaves");
	t_check(t_huge_bytes(s->p) == huge, "not huge");
	t_check(!device_writes(s, at, LEN, 21), "copy");
	t_check(!device_writes(s, end, LEN, 22), "copy");
	device_finds(s, at, LEN, 21);
	device_finds(s, end, LEN, 22);
	t_check(t_matches_at(s->p + at, LEN, at, 21) &&
		t_matches_at(s->p + end, LEN, end, 22), "other bytes in memory");
	t_check(t_huge_bytes(s->p) == huge, "%llu bytes are huge now, not %llu",
		(unsigned long long)t_huge_bytes(s->p), (unsigned long long)huge);
	t_check(t_stat("huge_leaves") == 1, "%ld huge leaves", t_stat("huge_leaves"));
	/* the scratch buffer has one */
	t_check(t_stat("table_leaves") <= tables + 1, "%ld tables more",
		t_stat("table_leaves") - tables);
}

static void huge_anonymous(const void *arg)
{
	struct scene s;

	open_on(&s, t_map_huge_aligned(T_HUGE), arg);
	ok(madvise(s.p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	s.p[T_HUGE / 2] = 1;
	stay_whole(&s, T_HUGE);
}

/* Nothing is there: the device's fault makes it, at once. */
static void huge_by_fault(const void *arg)
{
	struct scene s;

	open_on(&s, t_map_huge_aligned(T_HUGE), arg);
	ok(madvise(s.p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	t_check(!device_writes(&s, T_HUGE / 2, 64, 20), "copy");
	t_check(t_huge_bytes(s.p) == T_HUGE, "%llu bytes are huge",
		(unsigned long long)t_huge_bytes(s.p));
	t_check(t_matches_at(s.p + T_HUGE / 2, 64, T_HUGE / 2, 20), "other bytes in memory");
}

static void huge_tlb(const void *arg)
{
	int fd = t_memfd("huge", T_HUGE, MFD_HUGETLB);
	struct scene s;

	open_on(&s, t_map(T_HUGE, MAP_SHARED, fd), arg);
	s.p[T_HUGE / 2] = 1;
	stay_whole(&s, T_HUGE);
}

/* ---- memory control groups ---- */

#define GROUP		"unpin-owner"
#define OTHER_GROUP	"unpin-other"
#define LIMIT		"16M"
#define CHUNK		(1UL << 20)
#define CHUNKS		40U
#define FIRST		4U

/**
 * struct owner - a process in a group of its own, attached to an engine
 * @pid: it
 * @dma: the engine
 * @space: of the process
 * @p: its memory, CHUNKS * CHUNK bytes
 * @plain: the caller's
 * @from: CHUNK bytes of the caller's
 * @go: tells it to look at its memory
 */
struct owner {
	pid_t pid;
	int dma;
	u32 space;
	u8 *p;
	u32 plain;
	u8 *from;
	int go;
};

static void be_owner(struct owner *o, const char *group, int say, int go)
{
	size_t i;
	char byte;

	t_group_join(group);
	ok(madvise(o->p, CHUNKS * CHUNK, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	o->space = t_dma_attach_all(o->dma);
	t_check(write(say, &o->space, sizeof(o->space)) == sizeof(o->space), "write");
	t_check(read(go, &byte, 1) == 1, "read");
	for (i = 0; i < CHUNKS; i++)
		t_check(t_matches(o->p + i * CHUNK, CHUNK, 30), "chunk %zu", i);
	_exit(0);
}

static void owner_start(struct owner *o, const char *group)
{
	int say[2], go[2];

	o->dma = t_dma_open();
	o->p = t_map_huge_aligned(CHUNKS * CHUNK);
	o->from = t_map(CHUNK, ANON, -1);
	t_fill(o->from, CHUNK, 30);
	ok(pipe(say) || pipe(go), "pipe");
	o->pid = t_fork();
	if (!o->pid)
		be_owner(o, group, say[1], go[0]);
	close(say[1]);
	t_check(read(say[0], &o->space, sizeof(o->space)) == sizeof(o->space), "no owner");
	o->plain = t_dma_attach(o->dma);
	o->go = go[1];
}

static void owner_fill(struct owner *o, u32 chunk)
{
	t_dma_start(o->dma, chunk, (struct t_place){ o->space, o->p + chunk * CHUNK },
		    (struct t_place){ o->plain, o->from }, CHUNK);
}

/* The owner has been killed; or is, and nobody else could be to have more memory. */
static bool failed_at_the_limit(int status)
{
	return status == -ESRCH || status == -ENOMEM;
}

/* Fills all of the owner's memory, so many chunks at once; copies for the other one meanwhile. */
static unsigned int fill_beside(struct owner *o, struct owner *other, unsigned int abreast,
				unsigned int *failed)
{
	struct mirror_dma_done done;
	unsigned int beside = 0, begun, ended;

	/* some by themselves: all at once may all be unfinished at the limit */
	for (begun = 0; begun < FIRST; begun++) {
		owner_fill(o, begun);
		t_check(t_dma_read(o->dma, T_WAIT_MS, &done) && !done.status, "below the limit");
	}
	for (*failed = 0, ended = begun; ended < CHUNKS; beside++) {
		int status;

		for (; begun < CHUNKS && begun - ended < abreast; begun++)
			owner_fill(o, begun);
		status = t_dma_copy(other->dma, (struct t_place){ other->space, other->p },
				    (struct t_place){ other->plain, other->from }, LEN);
		t_check(!status, "the other group's copy: %s", strerror(-status));
		/* or wait for these, and then the other has nothing to be beside of */
		while (ended < begun && t_dma_read(o->dma, 0, &done)) {
			t_check(!done.status || failed_at_the_limit(done.status), "status %d",
				done.status);
			*failed += failed_at_the_limit(done.status);
			ended++;
		}
	}
	return beside;
}

static void owners_start(struct owner *o, struct owner *other, const char *swap_max)
{
	t_group_make(GROUP, LIMIT, swap_max);
	t_group_make(OTHER_GROUP, LIMIT, "max");
	owner_start(o, GROUP);
	owner_start(other, OTHER_GROUP);
}

/*
 * Others' groups are charged nothing, and the owner's own memory makes room. Few faults at
 * once: what many have isolated or under writeback none of them can reclaim, and the
 * kernel kills for that, as it does where many threads of one process fault.
 */
static void owner_is_reclaimed(const void *arg)
{
	struct owner o, other;
	unsigned int beside, failed;
	int status;

	owners_start(&o, &other, "max");
	beside = fill_beside(&o, &other, 2, &failed);
	t_diag("%u copies of the other group meanwhile", beside);
	t_check(!failed, "%u copies failed", failed);
	t_check(beside > 3, "the other group waited");
	t_check(t_group_value(GROUP, "memory.events", "max") > 0, "the limit was not reached");
	t_check(t_group_read(GROUP, "memory.swap.current") > (long)(CHUNKS * CHUNK / 2),
		"only %ld bytes are in swap", t_group_read(GROUP, "memory.swap.current"));
	t_check(t_group_value(GROUP, "memory.events", "oom_kill") == 0, "killed");
	t_check(t_group_value(OTHER_GROUP, "memory.events", "max") == 0,
		"the other group was charged");
	t_check(write(o.go, "x", 1) == 1, "write");
	t_check(t_wait_exit(o.pid, 3 * T_WAIT_MS, &status), "the owner still looks");
	t_check(!status, "the owner found other bytes: %x", status);
}

static void owner_is_killed(const void *arg)
{
	struct owner o, other;
	unsigned int beside, failed;
	int status;

	owners_start(&o, &other, "0");
	beside = fill_beside(&o, &other, CHUNKS, &failed);
	t_diag("%u copies of the other group meanwhile, %u failed", beside, failed);
	t_check(failed, "no copy failed");
	t_check(t_wait_exit(o.pid, T_WAIT_MS, &status), "the owner stays");
	t_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "not killed: %x", status);
	t_check(t_group_value(GROUP, "memory.events", "oom_kill") > 0, "not by the group");
	t_check(t_group_value(OTHER_GROUP, "memory.events", "oom_kill") == 0,
		"one of the other group was killed");
	t_check(!t_dma_copy(other.dma, (struct t_place){ other.space, other.p },
			    (struct t_place){ other.plain, other.from }, LEN),
		"the other group's copy");
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "a fault goes on");
}

/* ---- who takes memory away ---- */

struct thief {
	pthread_t thread;
	volatile u8 *p;
	int fd;
	bool stop;
};

static bool stopped(struct thief *thief)
{
	return __atomic_load_n(&thief->stop, __ATOMIC_RELAXED);
}

static void *remap(void *arg)
{
	struct thief *thief = arg;

	while (!stopped(thief)) {
		mmap((void *)thief->p, LEN, RW, MAP_SHARED | MAP_FIXED, thief->fd, 0);
		(void)thief->p[0];
	}
	return NULL;
}

static void *drop(void *arg)
{
	struct thief *thief = arg;

	while (!stopped(thief)) {
		(void)thief->p[0];
		madvise((void *)thief->p, LEN, MADV_DONTNEED);
	}
	return NULL;
}

/* The file keeps what was written, whatever is mapped at the time. */
static void against(void *(*steal)(void *arg), bool table, unsigned int rounds)
{
	struct thief thief = { .fd = t_memfd("stolen", LEN, 0) };
	u8 *alias = t_map(LEN, MAP_SHARED, thief.fd);
	struct scene s;
	u64 round;

	open_on(&s, t_map(LEN, MAP_SHARED, thief.fd), table);
	thief.p = s.p;
	t_check(!pthread_create(&thief.thread, NULL, steal, &thief), "thread");
	for (round = 40; round < 40 + rounds; round++) {
		int status = device_writes(&s, 0, LEN, round);

		t_check(!status, "copy: %s", strerror(-status));
		t_check(t_matches(alias, LEN, round), "other bytes in the file");
		device_finds(&s, 0, LEN, round);
	}
	__atomic_store_n(&thief.stop, true, __ATOMIC_RELAXED);
	pthread_join(thief.thread, NULL);
}

static void against_remaps(const void *arg)
{
	against(remap, arg, 40);
}

static void against_discards(const void *arg)
{
	against(drop, arg, 40);
}

/* Each look is overtaken: only what is lent is had. */
static void against_held_discards(const void *arg)
{
	long grants = t_stat("grants");

	if (!t_delay_set("fault_to_install", 3000))
		t_die("no delay points: this test wants the debug build");
	against(drop, arg, 4);
	t_delay_set("fault_to_install", 0);
	t_check(t_stat("grants") > grants, "nothing was lent");
}

/* The argument is whether there is a table. */
#define BOTH(name, run)							\
	{ name, T_DMA, run, NULL },					\
	{ name ", with a table", T_DMA, run, "" }

static const struct t_case cases[] = {
	BOTH("userfaultfd: missing", missing),
	BOTH("userfaultfd: minor", minor),
	BOTH("userfaultfd: write-protected", write_protected),
	BOTH("never served: detach", detached),
	BOTH("never served: close", closed),
	BOTH("never served: kill -9", killed),
	BOTH("never served: forty of them", many_stuck),
	BOTH("many pages at once", batched),
	BOTH("huge page, left whole", huge_anonymous),
	BOTH("huge page, made by the fault", huge_by_fault),
	BOTH("hugetlb page", huge_tlb),
	{ "memory.max, with swap: the owner is reclaimed", T_DMA, owner_is_reclaimed, NULL },
	{ "memory.max, without swap: the owner is killed", T_DMA, owner_is_killed, NULL },
	BOTH("against a thread that maps over it", against_remaps),
	BOTH("against a thread that discards it", against_discards),
	BOTH("against a thread that discards it, held", against_held_discards),
};

int main(int argc, char **argv)
{
	t_opts.seconds = 90;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
