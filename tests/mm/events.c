// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a subscription is told, and what not: each event of the mm notifier that a
 * program can cause, with the exact number of calls, their pieces, and what they
 * dropped. And that the rest of the process goes on meanwhile.
 *
 * Two events come from drivers only: MIGRATE (migrate_vma_setup()) and EXCLUSIVE
 * (make_device_exclusive_range()). The migration of pages by the kernel is a CLEAR.
 * RELEASE is not told to invalidate: release is called instead.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#define MADV_SOFT_OFFLINE_	101

#define LEAVES		2
#define LEN		(LEAVES * T_HUGE)
#define PAGES		4
#define SPAN		(PAGES * T_PAGE)
#define RW		(PROT_READ | PROT_WRITE)

#define ok(call, what)	t_check(!(call), "%s: %s", what, strerror(errno))

/**
 * struct scene - memory with a table over it, and memory beside it
 * @dma: the engine
 * @table: the space whose calls count
 * @plain: the same process, without a table
 * @p: LEN bytes, two leaves
 * @len: of it, what the table covers
 * @scratch: a page elsewhere
 * @round: of what was last written to @p
 * @before: counts
 */
struct scene {
	int dma;
	u32 table;
	u32 plain;
	u8 *p;
	size_t len;
	u8 *scratch;
	u64 round;
	struct mirror_dma_counts before;
};

static struct t_place in_table(const struct scene *s, size_t offset)
{
	return (struct t_place){ s->table, s->p + offset };
}

static struct t_place in_scratch(const struct scene *s)
{
	return (struct t_place){ s->plain, s->scratch };
}

static void open_on(struct scene *s, u8 *p, size_t len)
{
	memset(s, 0, sizeof(*s));
	s->p = p;
	s->len = len;
	s->scratch = t_map(SPAN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	s->dma = t_dma_open();
	s->plain = t_dma_attach(s->dma);
	s->table = t_dma_attach_table(s->dma, p, len);
	s->round = 1;
}

static void open_small(struct scene *s)
{
	u8 *p = t_map_huge_aligned(LEN);

	ok(madvise(p, LEN, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	open_on(s, p, LEN);
}

/* A mapping of these bytes only, which is none of 2 MiB that could be divided. */
static void open_part(struct scene *s, size_t offset, size_t len)
{
	u8 *p = t_map_huge_aligned(LEN);

	ok(offset && munmap(p, offset), "munmap");
	ok(munmap(p + offset + len, LEN - offset - len), "munmap");
	open_on(s, p, LEN);
}

/* Written by the device, so that the table has these pages, for writing. */
static void engage(struct scene *s, size_t offset)
{
	int status;

	t_fill_at(s->scratch, SPAN, offset, ++s->round);
	status = t_dma_copy(s->dma, in_table(s, offset), in_scratch(s), SPAN);
	t_check(!status, "copy: %s", strerror(-status));
}

/* And read back by it. */
static void holds(struct scene *s, size_t offset, size_t len, u64 round)
{
	int status;

	memset(s->scratch, 0xee, SPAN);
	status = t_dma_copy(s->dma, in_scratch(s), in_table(s, offset), len);
	t_check(!status, "copy: %s", strerror(-status));
	t_check(t_matches_at(s->scratch, len, offset, round), "the device reads other bytes");
}

static void refuses(struct scene *s, size_t offset, bool write)
{
	struct t_place there = in_table(s, offset);
	int status = write ? t_dma_copy(s->dma, there, in_scratch(s), 64) :
			     t_dma_copy(s->dma, in_scratch(s), there, 64);

	t_check(status == -EFAULT, "status %d of what is not there", status);
}

/* What comes from here on counts. */
static void mark(struct scene *s)
{
	struct mirror_dma_calls calls;

	t_dma_calls(s->dma, s->table, &calls);
	t_dma_counts(s->dma, s->table, &s->before);
}

static const char * const event_names[MIRROR_DMA_EVENTS] = {
	"UNMAP", "CLEAR", "PROTECTION_VMA", "PROTECTION_PAGE", "SOFT_DIRTY", "RELEASE",
	"MIGRATE", "EXCLUSIVE",
};

/* How often each event is to be told; none is what is not mentioned. */
struct want {
	u64 invalidate[MIRROR_DMA_EVENTS];
	u64 dropped;
};

static void expect(struct scene *s, const struct want *want)
{
	struct mirror_dma_counts now;
	bool same = true;
	u64 n;
	int i;

	t_dma_counts(s->dma, s->table, &now);
	for (i = 0; i < MIRROR_DMA_EVENTS; i++) {
		n = now.invalidate[i] - s->before.invalidate[i];
		if (n == want->invalidate[i])
			continue;
		t_diag("%s was told %llu times, expected %llu", event_names[i],
		       (unsigned long long)n, (unsigned long long)want->invalidate[i]);
		same = false;
	}
	n = now.invalidated - s->before.invalidated;
	t_check(n == want->dropped, "%llu pages were dropped, expected %llu",
		(unsigned long long)n, (unsigned long long)want->dropped);
	t_check(same, "other events than expected");
	t_check(!now.early && !now.gone, "told while the core had a page, or too late");
	t_check(now.try_invalidate == s->before.try_invalidate, "told where it could not wait");
}

#define EXPECT(s, pages, ...)							\
	expect(s, &(struct want){ .dropped = (pages), .invalidate = { __VA_ARGS__ } })

#define UNMAP(n)		[MIRROR_DMA_EVENT_UNMAP] = (n)
#define CLEAR(n)		[MIRROR_DMA_EVENT_CLEAR] = (n)
#define PROTECTION_VMA(n)	[MIRROR_DMA_EVENT_PROTECTION_VMA] = (n)
#define PROTECTION_PAGE(n)	[MIRROR_DMA_EVENT_PROTECTION_PAGE] = (n)
#define SOFT_DIRTY(n)		[MIRROR_DMA_EVENT_SOFT_DIRTY] = (n)
#define NONE			[0] = 0

/* The pieces that were told were these, in this order. */
static void expect_piece(const struct mirror_dma_calls *calls, u32 i, const u8 *p, size_t len)
{
	u64 start = (uintptr_t)p;

	t_check(i < calls->nr, "there were only %u calls", calls->nr);
	t_check(calls->calls[i].start == start && calls->calls[i].last == start + len - 1,
		"call %u was for %llx to %llx, expected %llx to %llx", i,
		(unsigned long long)calls->calls[i].start,
		(unsigned long long)calls->calls[i].last, (unsigned long long)start,
		(unsigned long long)start + len - 1);
}

/* ---- UNMAP ---- */

static void unmapped(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_part(&s, 0, SPAN);
	engage(&s, 0);
	mark(&s);
	ok(munmap(s.p, 2 * T_PAGE), "munmap");
	EXPECT(&s, 2, UNMAP(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, 2 * T_PAGE);
	refuses(&s, 0, true);
	refuses(&s, 0, false);
	holds(&s, 2 * T_PAGE, 2 * T_PAGE, s.round);
}

/* One call for each leaf. */
static void unmapped_across(const void *arg)
{
	size_t offset = T_HUGE - 2 * T_PAGE;
	struct mirror_dma_calls calls;
	struct scene s;

	open_part(&s, offset, SPAN);
	engage(&s, offset);
	mark(&s);
	ok(munmap(s.p + offset, SPAN), "munmap");
	EXPECT(&s, 4, UNMAP(2));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p + offset, 2 * T_PAGE);
	expect_piece(&calls, 1, s.p + T_HUGE, 2 * T_PAGE);
	refuses(&s, offset, true);
}

static void mapped_over(const void *arg)
{
	struct scene s;

	open_part(&s, 0, SPAN);
	engage(&s, 0);
	mark(&s);
	t_check(mmap(s.p, SPAN, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == s.p,
		"mmap: %s", strerror(errno));
	EXPECT(&s, 4, UNMAP(1));
	engage(&s, 0);
	t_check(t_matches_at(s.p, SPAN, 0, s.round), "the new mapping has other bytes");
}

/* Once when the pages move, once when the empty mapping goes. */
static void moved(const void *arg)
{
	struct scene s;

	open_part(&s, 0, SPAN);
	engage(&s, 0);
	mark(&s);
	t_check(mremap(s.p, SPAN, SPAN, MREMAP_MAYMOVE | MREMAP_FIXED, s.p + T_HUGE) ==
		s.p + T_HUGE, "mremap: %s", strerror(errno));
	EXPECT(&s, 4, UNMAP(2));
	refuses(&s, 0, false);
	memset(s.scratch, 0, SPAN);
	t_check(!t_dma_copy(s.dma, in_scratch(&s), in_table(&s, T_HUGE), SPAN), "copy");
	t_check(t_matches(s.scratch, SPAN, s.round), "other bytes at the new place");
}

/* ---- CLEAR ---- */

static void discarded(const void *arg)
{
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	ok(madvise(s.p, SPAN, MADV_DONTNEED), "MADV_DONTNEED");
	EXPECT(&s, 4, CLEAR(1));
	t_check(!t_dma_copy(s.dma, in_scratch(&s), in_table(&s, 0), SPAN), "copy");
	t_check(t_all_zero(s.scratch, SPAN), "discarded bytes are read");
}

static void set_free(const void *arg)
{
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	ok(madvise(s.p, SPAN, MADV_FREE), "MADV_FREE");
	EXPECT(&s, 4, CLEAR(1));
	engage(&s, 0);
	t_check(t_pageout(s.p, SPAN), "the pages stay");
	holds(&s, 0, SPAN, s.round);
}

/* Page by page, each once. */
static void paged_out(const void *arg)
{
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	t_check(t_pageout(s.p, SPAN), "the pages stay");
	EXPECT(&s, 4, CLEAR(PAGES));
	holds(&s, 0, SPAN, s.round);
}

static void migrated(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;
	u64 pfn;

	open_small(&s);
	engage(&s, 0);
	pfn = t_pfn(s.p + T_PAGE);
	mark(&s);
	ok(madvise(s.p + T_PAGE, T_PAGE, MADV_SOFT_OFFLINE_), "MADV_SOFT_OFFLINE");
	t_check(t_pfn(s.p + T_PAGE) != pfn, "the page has not moved");
	EXPECT(&s, 1, CLEAR(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p + T_PAGE, T_PAGE);
	holds(&s, 0, SPAN, s.round);
}

static void truncated(const void *arg)
{
	int fd = t_memfd("truncated", LEN, 0);
	struct scene s;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), LEN);
	engage(&s, 0);
	mark(&s);
	/* before the pages go, and again after, for who was faster */
	ok(ftruncate(fd, T_PAGE), "ftruncate");
	EXPECT(&s, 3, CLEAR(2));
	refuses(&s, T_PAGE, true);
	holds(&s, 0, T_PAGE, s.round);
}

static void collapsed(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_small(&s);
	ok(madvise(s.p, LEN, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	s.p[T_PAGE * 100] = 1;
	engage(&s, 0);
	if (t_huge_bytes(s.p)) {
		ok(madvise(s.p, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
		engage(&s, 0);
	}
	mark(&s);
	ok(madvise(s.p, T_HUGE, MADV_COLLAPSE), "MADV_COLLAPSE");
	t_check(t_huge_bytes(s.p) == T_HUGE, "not a huge page");
	EXPECT(&s, 4, CLEAR(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, T_HUGE);
	holds(&s, 0, SPAN, s.round);
}

/*
 * A mapping that has all of these 2 MiB is divided: the kernel says so for all of them,
 * whether there is a huge page or not.
 */
static void divided(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	ok(munmap(s.p, T_PAGE), "munmap");
	EXPECT(&s, 4, CLEAR(1), UNMAP(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, T_HUGE);
	expect_piece(&calls, 1, s.p, T_PAGE);
	refuses(&s, 0, true);
}

/* A huge page is split for a part of it: all of it is told. */
static void split(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_on(&s, t_map_huge_aligned(LEN), LEN);
	ok(madvise(s.p, LEN, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	engage(&s, 0);
	t_check(t_huge_bytes(s.p) == T_HUGE, "not a huge page");
	mark(&s);
	ok(mprotect(s.p + T_PAGE, T_PAGE, PROT_READ), "mprotect");
	EXPECT(&s, 4, CLEAR(1), PROTECTION_VMA(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, T_HUGE);
	expect_piece(&calls, 1, s.p + T_PAGE, T_PAGE);
	refuses(&s, T_PAGE, true);
	holds(&s, 0, SPAN, s.round);
}

/* ---- fork: PROTECTION_PAGE for all of the mapping, then CLEAR for each page copied ---- */

static void forked(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;
	int status;
	pid_t pid;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	pid = t_fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	EXPECT(&s, 4, PROTECTION_PAGE(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, T_HUGE);
	holds(&s, 0, SPAN, s.round);
	mark(&s);
	s.p[0] ^= 1;
	EXPECT(&s, 1, CLEAR(1));
	s.p[0] ^= 1;
	holds(&s, 0, SPAN, s.round);
	/* by the device itself: it has read the page, and so announced it */
	mark(&s);
	t_fill_at(s.scratch, SPAN, T_PAGE, s.round);
	t_check(!t_dma_copy(s.dma, in_table(&s, T_PAGE), in_scratch(&s), T_PAGE), "copy");
	EXPECT(&s, 1, CLEAR(1));
	holds(&s, 0, SPAN, s.round);
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status), "the child stays");
}

/* ---- PROTECTION ---- */

static void protected(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_part(&s, 0, SPAN);
	engage(&s, 0);
	mark(&s);
	ok(mprotect(s.p + T_PAGE, T_PAGE, PROT_READ), "mprotect");
	EXPECT(&s, 1, PROTECTION_VMA(1));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p + T_PAGE, T_PAGE);
	refuses(&s, T_PAGE, true);
	holds(&s, 0, SPAN, s.round);
	ok(mprotect(s.p + T_PAGE, T_PAGE, RW), "mprotect");
	engage(&s, 0);
}

/* Writeback makes each page clean, and read-only. */
static void written_back(const void *arg)
{
	int fd = t_disk_file(SPAN);
	struct scene s;

	open_on(&s, t_map(SPAN, MAP_SHARED, fd), SPAN);
	engage(&s, 0);
	mark(&s);
	ok(msync(s.p, SPAN, MS_SYNC), "msync");
	EXPECT(&s, 4, PROTECTION_PAGE(PAGES));
	mark(&s);
	ok(msync(s.p, SPAN, MS_SYNC), "msync");
	EXPECT(&s, 0, NONE);
	engage(&s, 0);
	t_check(t_matches(s.p, SPAN, s.round), "other bytes");
}

/* ---- SOFT_DIRTY ---- */

static void soft_dirty(const void *arg)
{
	struct mirror_dma_calls calls;
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	engage(&s, T_HUGE);
	mark(&s);
	t_check(t_write_file("/proc/self/clear_refs", "4\n"), "clear_refs: %s", strerror(errno));
	EXPECT(&s, 2 * PAGES, SOFT_DIRTY(2));
	t_dma_calls(s.dma, s.table, &calls);
	expect_piece(&calls, 0, s.p, T_HUGE);
	expect_piece(&calls, 1, s.p + T_HUGE, T_HUGE);
	mark(&s);
	t_check(t_write_file("/proc/self/clear_refs", "1\n"), "clear_refs: %s", strerror(errno));
	EXPECT(&s, 0, NONE);
	holds(&s, T_HUGE, SPAN, s.round);
}

/* ---- RELEASE ---- */

enum end { EXIT, KILL, EXEC };

static void end_here(enum end end)
{
	switch (end) {
	case EXIT:
		_exit(0);
	case KILL:
		kill(getpid(), SIGKILL);
		break;
	case EXEC:
		execl("/bin/true", "true", NULL);
	}
	_exit(1);
}

static void await_release(int dma, u32 space, struct mirror_dma_counts *counts)
{
	u64 end = t_deadline(T_WAIT_MS);

	do {
		t_check(t_now_ms() < end, "release is not called");
		t_dma_counts(dma, space, counts);
	} while (!counts->released);
}

/* A child attaches itself to the parent's engine, and ends. */
static void released(const void *arg)
{
	const enum end *how = arg;
	struct mirror_dma_counts before, after;
	int status, ready[2], go[2];
	struct scene s = { 0 };
	char byte = 0;
	pid_t pid;

	s.dma = t_dma_open();
	ok(pipe(ready) || pipe(go), "pipe");
	pid = t_fork();
	if (!pid) {
		int dma = s.dma;

		s.p = t_map_huge_aligned(LEN);
		s.scratch = t_map(SPAN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		s.plain = t_dma_attach(dma);
		s.table = t_dma_attach_table(dma, s.p, LEN);
		engage(&s, 0);
		t_check(write(ready[1], &s.table, sizeof(s.table)) == sizeof(s.table), "write");
		t_check(read(go[0], &byte, 1) == 1, "read");
		end_here(*how);
	}
	t_check(read(ready[0], &s.table, sizeof(s.table)) == sizeof(s.table), "no child");
	t_dma_counts(s.dma, s.table, &before);
	t_check(before.established == PAGES && !before.released, "the table is not in use");
	t_check(write(go[1], &byte, 1) == 1, "write");
	t_check(t_wait_exit(pid, T_WAIT_MS, &status), "the child stays");
	await_release(s.dma, s.table, &after);
	t_check(t_dma_invalidates(&after) == t_dma_invalidates(&before),
		"invalidate was called too");
	t_dma_detach(s.dma, s.table);
}

/* What an exit must leave behind: errors. */
static void after_release(const void *arg)
{
	struct mirror_dma_counts counts;
	struct scene s = { 0 };
	struct t_place there;
	int status, ready[2];
	u32 spaces[2], mine;
	pid_t pid;

	s.dma = t_dma_open();
	ok(pipe(ready), "pipe");
	s.p = t_map_huge_aligned(LEN);
	s.scratch = t_map(SPAN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	mine = t_dma_attach(s.dma);
	pid = t_fork();
	if (!pid) {
		s.plain = t_dma_attach(s.dma);
		s.table = t_dma_attach_table(s.dma, s.p, LEN);
		engage(&s, 0);
		spaces[0] = s.plain;
		spaces[1] = s.table;
		t_check(write(ready[1], spaces, sizeof(spaces)) == sizeof(spaces), "write");
		pause();
	}
	t_check(read(ready[0], spaces, sizeof(spaces)) == sizeof(spaces), "no child");
	there = (struct t_place){ spaces[1], s.p };
	s.plain = mine;
	t_check(!t_dma_copy(s.dma, in_scratch(&s), there, SPAN), "copy out of the child");
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status), "the child stays");
	await_release(s.dma, spaces[1], &counts);
	t_check(counts.released == 1, "released %llu times",
		(unsigned long long)counts.released);
	status = t_dma_copy(s.dma, in_scratch(&s), there, SPAN);
	t_check(status == -ESRCH, "with a table: status %d", status);
	there.space = spaces[0];
	status = t_dma_copy(s.dma, in_scratch(&s), there, SPAN);
	t_check(status == -ESRCH, "without a table: status %d", status);
	t_dma_detach(s.dma, spaces[1]);
	t_dma_detach(s.dma, spaces[0]);
}

/* ---- what is not told ---- */

static void not_told(const void *arg)
{
	struct scene s;
	u8 *elsewhere;

	open_part(&s, 0, 2 * SPAN);
	elsewhere = t_map(T_HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	engage(&s, 0);
	mark(&s);
	t_fill_at(s.p, SPAN, 0, s.round);
	t_fill(s.p + SPAN, SPAN, 7);
	ok(madvise(s.p, SPAN, MADV_WILLNEED), "MADV_WILLNEED");
	ok(mlock(s.p, SPAN), "mlock");
	ok(munlock(s.p, SPAN), "munlock");
	/* what no device knows */
	memset(elsewhere, 1, T_HUGE);
	ok(madvise(elsewhere, SPAN, MADV_DONTNEED), "MADV_DONTNEED");
	ok(munmap(elsewhere, T_HUGE), "munmap");
	EXPECT(&s, 0, NONE);
	holds(&s, 0, SPAN, s.round);
}

/* Others of the same leaf are no business of a table that does not cover them. */
static void not_covered(const void *arg)
{
	u8 *p = t_map(2 * SPAN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct scene s;

	open_on(&s, p, SPAN);
	t_check(!t_dma_copy(s.dma, (struct t_place){ s.plain, p + SPAN }, in_scratch(&s), SPAN),
		"copy beside the table");
	engage(&s, 0);
	mark(&s);
	ok(madvise(p + SPAN, SPAN, MADV_DONTNEED), "MADV_DONTNEED");
	ok(munmap(p + SPAN, T_PAGE), "munmap");
	EXPECT(&s, 0, NONE);
	ok(madvise(p + SPAN - T_PAGE, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	EXPECT(&s, 1, CLEAR(1));
}

/* Several tables over one page: each is told, once. */
static void told_each(const void *arg)
{
	enum { TABLES = 6 };
	struct mirror_dma_counts counts;
	struct scene s;
	u32 more[TABLES];
	int i;

	open_small(&s);
	for (i = 0; i < TABLES; i++) {
		/* overlapping, none like another; the last covers everything */
		more[i] = i < TABLES - 1 ?
			  t_dma_attach_table(s.dma, s.p + i * T_PAGE / 2, SPAN - i * T_PAGE / 2) :
			  t_dma_attach_all(s.dma);
	}
	engage(&s, 0);
	for (i = 0; i < TABLES; i++)
		t_check(!t_dma_copy(s.dma, in_scratch(&s),
				    (struct t_place){ more[i], s.p + 3 * T_PAGE }, T_PAGE),
			"copy through table %d", i);
	mark(&s);
	ok(madvise(s.p + 3 * T_PAGE, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	EXPECT(&s, 1, CLEAR(1));
	for (i = 0; i < TABLES; i++) {
		t_dma_counts(s.dma, more[i], &counts);
		t_check(counts.invalidate[MIRROR_DMA_EVENT_CLEAR] == 1 &&
			counts.invalidated == 1 && t_dma_invalidates(&counts) == 1,
			"table %d was told %llu times and dropped %llu", i,
			(unsigned long long)t_dma_invalidates(&counts),
			(unsigned long long)counts.invalidated);
	}
}

/* ---- meanwhile ---- */

#define SLEEP_US	1000000

struct discarder {
	pthread_t thread;
	u8 *p;
	bool begun;
	bool done;
};

static void *discard(void *arg)
{
	struct discarder *d = arg;

	__atomic_store_n(&d->begun, true, __ATOMIC_RELEASE);
	madvise(d->p, SPAN, MADV_DONTNEED);
	__atomic_store_n(&d->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Returns when the invalidation is under way, as far as one can see. */
static void start_discard(struct scene *s, struct discarder *d, size_t offset)
{
	*d = (struct discarder){ .p = s->p + offset };
	t_dma_set(s->dma, s->table, MIRROR_DMA_SET_INVALIDATE_US, SLEEP_US);
	t_check(!pthread_create(&d->thread, NULL, discard, d), "thread");
	while (!__atomic_load_n(&d->begun, __ATOMIC_ACQUIRE))
		t_sleep_ms(1);
	t_sleep_ms(50);
}

static void end_discard(struct scene *s, struct discarder *d)
{
	pthread_join(d->thread, NULL);
	t_dma_set(s->dma, s->table, MIRROR_DMA_SET_INVALIDATE_US, 0);
}

static bool discard_done(struct discarder *d)
{
	return __atomic_load_n(&d->done, __ATOMIC_ACQUIRE);
}

/*
 * An invalidation of one leaf takes a second. Copies in another leaf of the same table
 * go on, through the table and with faults for new pages.
 */
static void others_go_on(const void *arg)
{
	struct discarder d;
	struct scene s;
	int i;

	open_small(&s);
	engage(&s, 0);
	engage(&s, T_HUGE);
	start_discard(&s, &d, 0);
	for (i = 0; i < 4; i++) {
		engage(&s, T_HUGE);
		engage(&s, T_HUGE + (1 + i) * SPAN);
	}
	t_check(!discard_done(&d), "the copies waited for an invalidation elsewhere");
	end_discard(&s, &d);
	holds(&s, T_HUGE + 4 * SPAN, SPAN, s.round);
}

/* But not in this one: what is established there comes after. */
static void this_one_waits(const void *arg)
{
	struct mirror_dma_calls calls;
	struct discarder d;
	struct scene s;

	open_small(&s);
	engage(&s, 0);
	mark(&s);
	start_discard(&s, &d, 0);
	/* in the same 2 MiB, and nothing that the table has */
	engage(&s, T_HUGE / 2);
	t_dma_calls(s.dma, s.table, &calls);
	t_check(calls.nr == 1, "a page was established while its leaf was being invalidated");
	expect_piece(&calls, 0, s.p, SPAN);
	end_discard(&s, &d);
	holds(&s, T_HUGE / 2, SPAN, s.round);
}

static const enum end ends[] = { EXIT, KILL, EXEC };

static const struct t_case cases[] = {
	{ "UNMAP: munmap", T_DMA, unmapped, NULL },
	{ "UNMAP: munmap across a boundary of 2 MiB", T_DMA, unmapped_across, NULL },
	{ "UNMAP: mmap over it", T_DMA, mapped_over, NULL },
	{ "UNMAP: mremap", T_DMA, moved, NULL },
	{ "CLEAR: MADV_DONTNEED", T_DMA, discarded, NULL },
	{ "CLEAR: MADV_FREE", T_DMA, set_free, NULL },
	{ "CLEAR: MADV_PAGEOUT", T_DMA, paged_out, NULL },
	{ "CLEAR: migration", T_DMA, migrated, NULL },
	{ "CLEAR: ftruncate", T_DMA, truncated, NULL },
	{ "CLEAR: collapse", T_DMA, collapsed, NULL },
	{ "CLEAR: a mapping is divided, for UNMAP", T_DMA, divided, NULL },
	{ "CLEAR: split, for PROTECTION_VMA", T_DMA, split, NULL },
	{ "PROTECTION_PAGE: fork, and CLEAR: copy on write", T_DMA, forked, NULL },
	{ "PROTECTION_VMA: mprotect", T_DMA, protected, NULL },
	{ "PROTECTION_PAGE: writeback", T_DMA, written_back, NULL },
	{ "SOFT_DIRTY: clear_refs", T_DMA, soft_dirty, NULL },
	{ "RELEASE: exit", T_DMA, released, &ends[0] },
	{ "RELEASE: kill -9", T_DMA, released, &ends[1] },
	{ "RELEASE: exec", T_DMA, released, &ends[2] },
	{ "RELEASE: afterwards there are errors", T_DMA, after_release, NULL },
	{ "nothing: other memory, and what changes nothing", T_DMA, not_told, NULL },
	{ "nothing: beside what the table covers", T_DMA, not_covered, NULL },
	{ "each table over a page, once", T_DMA, told_each, NULL },
	{ "an invalidation that sleeps: other 2 MiB go on", T_DMA, others_go_on, NULL },
	{ "an invalidation that sleeps: its own 2 MiB wait", T_DMA, this_one_waits, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
