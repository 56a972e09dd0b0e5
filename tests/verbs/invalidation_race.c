// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Invalidations in a loop while two threads read and write the same pages over
 * RDMA, so that translations are made and used at every moment of every change.
 *
 * The traffic has the upper half of each page, the case the lower half. After
 * each change the case looks: its own transfers through the region must reach
 * what is mapped now, and the traffic's half of what is mapped no more must have
 * come to rest when the call that unmapped it returned. When all is quiet, the
 * whole region must be exact once more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define PAGES	8
#define LEN	(PAGES * T_PAGE)
#define HALF	(T_PAGE / 2)
#define RUN_MS	1000
#define FEW_CHANGES	5

#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define RW	(PROT_READ | PROT_WRITE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* ---- traffic ---- */

struct traffic {
	struct t_pair pair;
	struct t_buf *region;
	struct t_buf local;
	enum ibv_wr_opcode opcode;
	bool errors_allowed;
	volatile bool stop;
	volatile u64 done;
	volatile u64 errors;
	pthread_t thread;
};

/* One transfer in the upper half of one page. */
static enum ibv_wc_status transfer(struct traffic *t, int page)
{
	size_t off = page * T_PAGE + HALF;
	struct ibv_sge sge = t_sge(&t->local, off, HALF);
	struct t_op op = {
		.opcode = t->opcode, .sge = &sge, .num_sge = 1,
		.raddr = t->region->iova + off, .rkey = t->region->mr->rkey,
	};

	if (t->opcode == IBV_WR_RDMA_WRITE)
		t_fill_at(t->local.p + off, HALF, off, t->done);
	return t_do(&t->pair.a, &op);
}

static void *traffic_run(void *arg)
{
	struct traffic *t = arg;
	enum ibv_wc_status status;

	while (!t->stop) {
		status = transfer(t, t->done % PAGES);
		t->done++;
		if (status == IBV_WC_SUCCESS)
			continue;
		t->errors++;
		t_check(t->errors_allowed && status == IBV_WC_REM_ACCESS_ERR,
			"traffic ended with: %s", t_status(status));
		t_pair_reconnect(&t->pair);
	}
	return NULL;
}

/* The region and the case's own pair, and the two threads on the same region. */
struct race {
	struct t_region r;
	struct traffic traffic[2];
	u64 end;
	u64 changes;
};

static void traffic_start(struct traffic *t, struct race *c, enum ibv_wr_opcode opcode,
			  bool errors_allowed)
{
	t->pair.dev = c->r.pair.dev;
	t_ep_open(&t->pair.a, &t->pair.dev, NULL);
	t_ep_open(&t->pair.b, &t->pair.dev, NULL);
	t_pair_reconnect(&t->pair);
	t_buf_alloc(&t->local, 0, LEN);
	t_reg_pinned(&t->local, &t->pair.dev);
	t->region = &c->r.buf;
	t->opcode = opcode;
	t->errors_allowed = errors_allowed;
	t_check(!pthread_create(&t->thread, NULL, traffic_run, t), "thread");
}

static void race_start_on(struct race *c, void *p, size_t len, bool errors_allowed)
{
	memset(c, 0, sizeof(*c));
	t_region_open(&c->r, p, len);
	traffic_start(&c->traffic[0], c, IBV_WR_RDMA_WRITE, errors_allowed);
	traffic_start(&c->traffic[1], c, IBV_WR_RDMA_READ, errors_allowed);
	c->end = t_deadline(RUN_MS);
}

static void race_start(struct race *c, void *p, bool errors_allowed)
{
	race_start_on(c, p, LEN, errors_allowed);
}

/* For its time, and on a slow host until there was something to see. */
static bool race_goes_on(struct race *c)
{
	c->changes++;
	return t_now_ms() < c->end || c->changes <= FEW_CHANGES ||
	       c->traffic[0].done < 2 || c->traffic[1].done < 2;
}

static void race_end(struct race *c)
{
	int i;

	for (i = 0; i < 2; i++) {
		c->traffic[i].stop = true;
		pthread_join(c->traffic[i].thread, NULL);
	}
	t_diag("%llu changes, %llu writes, %llu reads, %llu refused",
	       (unsigned long long)c->changes, (unsigned long long)c->traffic[0].done,
	       (unsigned long long)c->traffic[1].done,
	       (unsigned long long)(c->traffic[0].errors + c->traffic[1].errors));
	t_region_exchange(&c->r, 0, LEN);
}

/* ---- what a case looks at ---- */

/* The lower half of one page, by RDMA both ways and by the CPU at @cpu. */
static void exchange_at(struct race *c, int page, u8 *cpu)
{
	size_t off = page * T_PAGE;

	t_region_write(&c->r, off, HALF);
	t_check(t_matches_at(cpu + off, HALF, off, c->r.round),
		"change %llu: a WRITE did not reach what is mapped",
		(unsigned long long)c->changes);
	c->r.round++;
	t_fill_at(cpu + off, HALF, off, c->r.round);
	t_region_read(&c->r, off, HALF, c->r.round);
}

static int some_page(struct race *c)
{
	return c->changes * 5 % PAGES;
}

/* What the traffic wrote stays as it is from now on. */
static void came_to_rest(struct race *c, const u8 *memory)
{
	static u8 before[LEN];
	int i;

	memcpy(before, memory, LEN);
	for (i = 0; i < 4; i++) {
		usleep(100);
		t_check(!memcmp(before, memory, LEN),
			"change %llu: the old page was written after it was gone",
			(unsigned long long)c->changes);
	}
}

static void ok(int err, const char *what)
{
	t_check(!err, "%s: %s", what, strerror(errno));
}

static void map_over(void *p, int fd)
{
	t_check(mmap(p, LEN, RW, MAP_SHARED | MAP_FIXED, fd, 0) == p, "mmap over: %s",
		strerror(errno));
}

/* ---- cases ---- */

/* Two files in turn: there is always one, so that nothing may be refused. */
static void replaced(const void *arg)
{
	int fd[2] = { t_memfd("a", LEN, 0), t_memfd("b", LEN, 0) };
	u8 *file[2] = { t_map(LEN, MAP_SHARED, fd[0]), t_map(LEN, MAP_SHARED, fd[1]) };
	u8 *p = t_map(LEN, MAP_SHARED, fd[0]);
	struct race c;
	int now = 0;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		map_over(p, fd[!now]);
		came_to_rest(&c, file[now]);
		now = !now;
		exchange_at(&c, some_page(&c), file[now]);
	}
	race_end(&c);
}

static void unmapped(const void *arg)
{
	int fd = t_memfd("a", LEN, 0);
	u8 *file = t_map(LEN, MAP_SHARED, fd), *p = t_map(LEN, MAP_SHARED, fd);
	struct race c;

	(void)arg;
	race_start(&c, p, true);
	while (race_goes_on(&c)) {
		ok(munmap(p, LEN), "munmap");
		came_to_rest(&c, file);
		map_over(p, fd);
		exchange_at(&c, some_page(&c), file);
		usleep(2000);
	}
	race_end(&c);
}

static void moved(const void *arg)
{
	int fd = t_memfd("a", LEN, 0);
	u8 *file = t_map(LEN, MAP_SHARED, fd), *p = t_map(LEN, MAP_SHARED, fd);
	u8 *aside = t_map(LEN, ANON, -1);
	struct race c;

	(void)arg;
	race_start(&c, p, true);
	while (race_goes_on(&c)) {
		t_check(mremap(p, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, aside) == aside,
			"mremap: %s", strerror(errno));
		came_to_rest(&c, file);
		t_check(mremap(aside, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p,
			"mremap: %s", strerror(errno));
		exchange_at(&c, some_page(&c), file);
		usleep(2000);
	}
	race_end(&c);
}

static void protected(int prot)
{
	int fd = t_memfd("a", LEN, 0);
	u8 *file = t_map(LEN, MAP_SHARED, fd), *p = t_map(LEN, MAP_SHARED, fd);
	struct race c;

	t_fill(p, T_PAGE, 77);
	race_start(&c, p, true);
	while (race_goes_on(&c)) {
		ok(mprotect(p, LEN, prot), "mprotect");
		came_to_rest(&c, file);
		if (prot == PROT_READ)
			t_region_read(&c.r, 0, HALF, 77);
		ok(mprotect(p, LEN, RW), "mprotect");
		exchange_at(&c, 1 + c.changes % (PAGES - 1), file);
		usleep(2000);
	}
	race_end(&c);
}

static void protected_none(const void *arg)
{
	(void)arg;
	protected(PROT_NONE);
}

static void protected_read(const void *arg)
{
	(void)arg;
	protected(PROT_READ);
}

/* The lower half was written by nobody but the CPU, and was thrown away. */
static void dontneed(const void *arg)
{
	u8 *p = t_map(LEN, ANON, -1);
	struct race c;
	int page;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		page = some_page(&c);
		t_fill_at(p + page * T_PAGE, HALF, 0, c.changes);
		ok(madvise(p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
		t_region_read_zero(&c.r, page * T_PAGE, HALF);
		exchange_at(&c, page, p);
	}
	race_end(&c);
}

/* As fast as it goes: the traffic must get through all the same. */
static void dontneed_storm(const void *arg)
{
	u8 *p = t_map(LEN, ANON, -1);
	struct race c;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c))
		ok(madvise(p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	race_end(&c);
}

static void hole_punched(const void *arg)
{
	int fd = t_memfd("a", LEN, 0);
	u8 *file = t_map(LEN, MAP_SHARED, fd), *p = t_map(LEN, MAP_SHARED, fd);
	struct race c;
	int page;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		page = some_page(&c);
		t_fill_at(file + page * T_PAGE, HALF, 0, c.changes);
		ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN),
		   "fallocate");
		t_region_read_zero(&c.r, page * T_PAGE, HALF);
		exchange_at(&c, page, file);
	}
	race_end(&c);
}

static void truncated(const void *arg)
{
	int fd = t_memfd("a", LEN, 0);
	u8 *file = t_map(LEN, MAP_SHARED, fd), *p = t_map(LEN, MAP_SHARED, fd);
	struct race c;
	int page;

	(void)arg;
	race_start(&c, p, true);
	while (race_goes_on(&c)) {
		page = some_page(&c);
		t_fill_at(file + page * T_PAGE, HALF, 0, c.changes);
		ok(ftruncate(fd, 0), "ftruncate");
		ok(ftruncate(fd, LEN), "ftruncate");
		t_region_read_zero(&c.r, page * T_PAGE, HALF);
		exchange_at(&c, page, file);
		usleep(2000);
	}
	race_end(&c);
}

/* A child's copy must stay as it was at the fork. */
static void child_watches(const u8 *p)
{
	static u8 before[LEN];
	int i;

	memcpy(before, p, LEN);
	for (i = 0; i < 5; i++) {
		usleep(400);
		if (memcmp(before, p, LEN))
			_exit(1);
	}
	_exit(0);
}

static void forked_on(u8 *p, size_t len)
{
	struct race c;
	int status;
	pid_t pid;

	race_start_on(&c, p, len, false);
	while (race_goes_on(&c)) {
		pid = fork();
		if (!pid)
			child_watches(p);
		t_check(pid > 0, "fork: %s", strerror(errno));
		exchange_at(&c, some_page(&c), p);
		t_check(t_wait_exit(pid, 10000, &status), "the child hangs");
		t_check(!status, "change %llu: a child's copy was written",
			(unsigned long long)c.changes);
	}
	race_end(&c);
}

static void forked(const void *arg)
{
	(void)arg;
	forked_on(t_map(LEN, ANON, -1), LEN);
}

static void forked_huge(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	forked_on(p, T_HUGE);
}

/* What was written before the page went out is there when it comes back. */
static void reclaimed_on(u8 *p, bool lazyfree)
{
	struct race c;
	size_t off;

	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		off = some_page(&c) * T_PAGE;
		if (lazyfree)
			ok(madvise(p, LEN, MADV_FREE), "MADV_FREE");
		t_region_write(&c.r, off, HALF);
		ok(madvise(p, LEN, MADV_PAGEOUT), "MADV_PAGEOUT");
		t_check(t_matches_at(p + off, HALF, off, c.r.round),
			"change %llu: a WRITE was lost by reclaim",
			(unsigned long long)c.changes);
		t_region_read(&c.r, off, HALF, c.r.round);
	}
	race_end(&c);
}

static void swapped(const void *arg)
{
	(void)arg;
	reclaimed_on(t_map(LEN, ANON, -1), false);
}

static void swapped_shared(const void *arg)
{
	(void)arg;
	reclaimed_on(t_map(LEN, MAP_SHARED | MAP_ANONYMOUS, -1), false);
}

static void freed_lazily(const void *arg)
{
	(void)arg;
	reclaimed_on(t_map(LEN, ANON, -1), true);
}

static void compacted(const void *arg)
{
	u8 *p = t_map(LEN, ANON, -1);
	struct race c;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		t_check(t_write_file("/proc/sys/vm/compact_memory", "1"), "compaction");
		exchange_at(&c, some_page(&c), p);
	}
	race_end(&c);
}

static void merged_by_ksm(const void *arg)
{
	u8 *twin = t_map(LEN, ANON, -1), *p = t_map(LEN, ANON, -1);
	struct race c;
	int page;

	(void)arg;
	t_fill(twin, LEN, 1);
	ok(madvise(twin, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	ok(madvise(p, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	t_write_file("/sys/kernel/mm/ksm/pages_to_scan", "10000");
	t_write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	t_check(t_write_file("/sys/kernel/mm/ksm/run", "1"), "KSM");
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		page = some_page(&c);
		memcpy(p + page * T_PAGE, twin + page * T_PAGE, T_PAGE);
		usleep(3000);
		exchange_at(&c, page, p);
		t_check(t_matches(twin, LEN, 1), "the other owner's page was written");
	}
	race_end(&c);
	t_write_file("/sys/kernel/mm/ksm/run", "2");
	t_write_file("/sys/kernel/mm/ksm/run", "0");
}

/* The CPU's mapping is huge, then not, then huge again. */
static void split_and_collapsed(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct race c;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	race_start_on(&c, p, T_HUGE, false);
	while (race_goes_on(&c)) {
		ok(madvise(p + T_HUGE - T_PAGE, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
		exchange_at(&c, some_page(&c), p);
		/* may fail while a copy has a reference of its own */
		madvise(p, T_HUGE, MADV_COLLAPSE);
		exchange_at(&c, some_page(&c), p);
	}
	race_end(&c);
}

/* Part of a huge page loses and regains its rights. */
static void split_by_mprotect(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct race c;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	race_start_on(&c, p, T_HUGE, false);
	while (race_goes_on(&c)) {
		ok(mprotect(p + T_HUGE / 2, T_PAGE, PROT_READ), "mprotect");
		exchange_at(&c, some_page(&c), p);
		ok(mprotect(p + T_HUGE / 2, T_PAGE, RW), "mprotect");
		madvise(p, T_HUGE, MADV_COLLAPSE);
		exchange_at(&c, some_page(&c), p);
	}
	race_end(&c);
}

/* Each WRITE reaches the disk, also while the page is being cleaned. */
static void written_back(const void *arg)
{
	static u8 copy[LEN];
	int fd = t_disk_file(LEN);
	u8 *p = t_map(LEN, MAP_SHARED, fd);
	struct race c;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		ok(fsync(fd), "fsync");
		exchange_at(&c, some_page(&c), p);
	}
	race_end(&c);
	t_region_write(&c.r, 0, LEN);
	ok(munmap(p, LEN), "munmap");
	ok(fsync(fd), "fsync");
	t_check(t_write_file("/proc/sys/vm/drop_caches", "3"), "drop_caches");
	t_check(pread(fd, copy, LEN, 0) == LEN, "pread: %s", strerror(errno));
	t_check(t_matches(copy, LEN, c.r.round), "the disk has other bytes");
}

/* Other regions over the same pages come and go. */
static void registered_over(const void *arg)
{
	u8 *p = t_map(LEN, ANON, -1);
	struct t_buf over;
	struct race c;

	(void)arg;
	race_start(&c, p, false);
	while (race_goes_on(&c)) {
		t_buf_wrap(&over, p, LEN);
		t_reg(&over, &c.r.pair.dev);
		exchange_at(&c, some_page(&c), p);
		t_dereg(&over);
		exchange_at(&c, some_page(&c), p);
	}
	race_end(&c);
}

/* Everything that changes nothing for the process, from several threads. */
static volatile bool nuisance_stop;

static void *nuisance(void *arg)
{
	static const int advice[] = { MADV_PAGEOUT, MADV_COLLAPSE, 20 /* MADV_COLD */ };
	u8 *p = arg;
	size_t i = 0;

	while (!nuisance_stop) {
		madvise(p, T_HUGE, advice[i++ % T_ARRAY_SIZE(advice)]);
		mprotect(p + 16 * T_PAGE, T_PAGE, i & 1 ? PROT_READ : RW);
		madvise(p + 20 * T_PAGE, 4 * T_PAGE, MADV_DONTNEED);
		usleep(100);
	}
	return NULL;
}

static void everything_at_once(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	pthread_t threads[2];
	struct race c;
	int i, status;
	pid_t pid;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	race_start_on(&c, p, T_HUGE, false);
	for (i = 0; i < 2; i++)
		t_check(!pthread_create(&threads[i], NULL, nuisance, p), "thread");
	while (race_goes_on(&c)) {
		exchange_at(&c, some_page(&c), p);
		if (c.changes % 8)
			continue;
		pid = fork();
		if (!pid)
			child_watches(p);
		t_check(t_wait_exit(pid, 10000, &status) && !status,
			"change %llu: a child's copy was written",
			(unsigned long long)c.changes);
	}
	nuisance_stop = true;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	race_end(&c);
}

static const struct t_case cases[] = {
	{ "MAP_FIXED of two files in turn", T_ODP, replaced, NULL },
	{ "munmap and mmap", T_ODP, unmapped, NULL },
	{ "mremap away and back", T_ODP, moved, NULL },
	{ "mprotect to none and back", T_ODP, protected_none, NULL },
	{ "mprotect to read-only and back", T_ODP, protected_read, NULL },
	{ "MADV_DONTNEED", T_ODP, dontneed, NULL },
	{ "MADV_DONTNEED without a pause", T_ODP, dontneed_storm, NULL },
	{ "hole punch", T_ODP, hole_punched, NULL },
	{ "truncate", T_ODP, truncated, NULL },
	{ "fork", T_BOTH, forked, NULL },
	{ "fork with a huge page", T_BOTH, forked_huge, NULL },
	{ "swap", T_ODP, swapped, NULL },
	{ "swap of shared memory", T_ODP, swapped_shared, NULL },
	{ "MADV_FREE and reclaim", T_ODP, freed_lazily, NULL },
	{ "compaction", T_BOTH, compacted, NULL },
	{ "KSM", T_BOTH, merged_by_ksm, NULL },
	{ "huge page split and collapsed", T_ODP, split_and_collapsed, NULL },
	{ "huge page split by mprotect", T_ODP, split_by_mprotect, NULL },
	{ "writeback", T_ODP, written_back, NULL },
	{ "registration of other regions", T_BOTH, registered_over, NULL },
	{ "everything at once", T_ODP, everything_at_once, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
