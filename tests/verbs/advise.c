// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ibv_advise_mr(): what it brings in is there, for the device too, so that the access
 * that follows faults nothing; it brings in no more than that; a list with anything
 * wrong in it does nothing; and what is prefetched ends with its region and its process,
 * is bounded, and keeps nobody waiting.
 *
 * Debian 12's librxe has no such verb: the program runs itself under libunpin.so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define MIB		(T_HUGE / 2)
#define LEN		(8 * MIB)
#define PROMPT_MS	5000
#define SYNC		IBV_ADVISE_MR_FLAG_FLUSH
#define PREFETCH	IBV_ADVISE_MR_ADVICE_PREFETCH
#define PREFETCH_WRITE	IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE
#define NO_FAULT	IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT
#define MOST_SGES	4095	/* an attribute of an ioctl has less than 64 KiB */

static void *map(size_t len)
{
	void *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	t_check(!madvise(p, len, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE: %s", strerror(errno));
	return p;
}

static void open_region(struct t_region *r, size_t len)
{
	t_region_open(r, map(len), len);
}

static int try_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, u32 flags,
		      const struct t_buf *b, size_t off, size_t len)
{
	struct ibv_sge sge = t_sge(b, off, len);

	return ibv_advise_mr(pd, advice, flags, &sge, 1);
}

static void advise(struct t_region *r, enum ibv_advise_mr_advice advice, u32 flags, size_t off,
		   size_t len)
{
	int err = try_advise(r->pair.dev.pd, advice, flags, &r->buf, off, len);

	t_check(!err, "advice %d, flags %u: %s", advice, flags, strerror(err));
}

static size_t count_present(const u8 *p, size_t len)
{
	size_t i, n = 0;

	for (i = 0; i < len; i += T_PAGE)
		n += t_page_present(p + i);
	return n;
}

/* Exactly the pages that have a byte of [off, off + len) are there. */
static void check_present(const struct t_buf *b, size_t off, size_t len)
{
	size_t first = off / T_PAGE, end = (off + len + T_PAGE - 1) / T_PAGE;
	size_t got = count_present(b->p + first * T_PAGE, (end - first) * T_PAGE);
	size_t all = count_present(b->p, b->len);

	t_check(got == end - first, "%zu of %zu pages are there", got, end - first);
	t_check(all == got, "%zu pages are there that nobody asked for", all - got);
}

/* ---- what it brings ---- */

/* A device that has a translation asks for no fault. */
static void faults_nothing(struct t_region *r, bool write, size_t off, size_t len)
{
	long faults = t_stat("faults");

	if (write)
		t_region_write(r, off, len);
	else
		t_region_read_zero(r, off, len);
	t_check(t_stat("faults") == faults, "%ld faults after the advice",
		t_stat("faults") - faults);
}

static void sync_for_writing(const void *arg)
{
	size_t off = T_PAGE + 5, len = 3 * MIB;
	struct t_region r;
	long pages;

	(void)arg;
	open_region(&r, LEN);
	pages = t_stat("prefetch_pages");
	advise(&r, PREFETCH_WRITE, SYNC, off, len);
	check_present(&r.buf, off, len);
	t_check(t_stat("prefetch_pages") - pages == (long)(len / T_PAGE) + 1,
		"%ld pages were counted", t_stat("prefetch_pages") - pages);
	faults_nothing(&r, true, off, len);
	t_region_cpu_holds(&r, off, len, r.round);
}

/* The control: without advice there are faults, and they are counted. */
static void without_advice(const void *arg)
{
	struct t_region r;
	long faults;

	(void)arg;
	open_region(&r, LEN);
	faults = t_stat("faults");
	t_region_write(&r, T_PAGE + 5, 3 * MIB);
	t_check(t_stat("faults") > faults, "cold memory took no fault");
}

/* What is advised for reading can be read; it becomes writable when it is written. */
static void sync_for_reading(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_region(&r, LEN);
	advise(&r, PREFETCH, SYNC, 0, MIB);
	faults_nothing(&r, false, 0, MIB);
	t_region_write(&r, 0, MIB);
	t_region_cpu_holds(&r, 0, MIB, r.round);
}

static void wait_present(const struct t_buf *b, size_t off, size_t len)
{
	u64 end = t_deadline(T_WAIT_MS);

	while (count_present(b->p + off, len) < len / T_PAGE) {
		t_check(t_now_ms() < end, "%zu of %zu pages have come",
			count_present(b->p + off, len), len / T_PAGE);
		t_sleep_ms(5);
	}
}

static void async_for_writing(const void *arg)
{
	long pages = t_stat("prefetch_pages");
	u64 end = t_deadline(T_WAIT_MS);
	struct t_region r;

	(void)arg;
	open_region(&r, LEN);
	advise(&r, PREFETCH_WRITE, 0, 0, 4 * MIB);
	wait_present(&r.buf, 0, 4 * MIB);
	while (t_stat("prefetch_pages") - pages < (long)(4 * MIB / T_PAGE) && t_now_ms() < end)
		t_sleep_ms(5);
	faults_nothing(&r, true, 0, 4 * MIB);
	check_present(&r.buf, 0, 4 * MIB);
}

static void swapped_out(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_region(&r, 4 * MIB);
	t_fill_buf(&r.buf, 7);
	t_check(t_pageout(r.buf.p, r.buf.len), "the pages do not leave");
	advise(&r, PREFETCH, SYNC, 0, MIB);
	check_present(&r.buf, 0, MIB);
	t_region_read(&r, 0, 4 * MIB, 7);
}

/* Several elements, of two regions, one of them with an iova that is not its address. */
static void several_regions(const void *arg)
{
	struct t_region r;
	struct t_buf other;
	struct ibv_sge sge[6];
	size_t i;
	int err;

	(void)arg;
	open_region(&r, LEN);
	t_buf_wrap(&other, map(LEN), LEN);
	t_reg_iova(&other, &r.pair.dev, 0x10000000000);
	for (i = 0; i < T_ARRAY_SIZE(sge); i++)
		sge[i] = t_sge(i % 3 == 2 ? &other : &r.buf, i * 16 * T_PAGE + 7, T_PAGE + i);
	sge[4].length = 0;
	err = ibv_advise_mr(r.pair.dev.pd, PREFETCH_WRITE, SYNC, sge, T_ARRAY_SIZE(sge));
	t_check(!err, "advice: %s", strerror(err));
	for (i = 0; i < T_ARRAY_SIZE(sge); i++) {
		u8 *p = (i % 3 == 2 ? other.p : r.buf.p) + i * 16 * T_PAGE;

		t_check(count_present(p, 16 * T_PAGE) == (i == 4 ? 0 : 2),
			"element %zu: %zu pages", i, count_present(p, 16 * T_PAGE));
	}
	t_check(count_present(r.buf.p, LEN) == 6 && count_present(other.p, LEN) == 4,
		"pages that nobody asked for");
}

static void most_elements(const void *arg)
{
	static struct ibv_sge sge[MOST_SGES + 1];
	struct t_region r;
	size_t i;
	int err;

	(void)arg;
	open_region(&r, 2 * MOST_SGES * T_PAGE + 2 * T_PAGE);
	for (i = 0; i < T_ARRAY_SIZE(sge); i++)
		sge[i] = t_sge(&r.buf, 2 * i * T_PAGE + 9, 1);
	err = ibv_advise_mr(r.pair.dev.pd, PREFETCH_WRITE, SYNC, sge, MOST_SGES);
	t_check(!err, "%u elements: %s", MOST_SGES, strerror(err));
	t_check(count_present(r.buf.p, r.buf.len) == MOST_SGES, "%zu pages are there",
		count_present(r.buf.p, r.buf.len));
	err = ibv_advise_mr(r.pair.dev.pd, PREFETCH_WRITE, SYNC, sge, MOST_SGES + 1);
	t_check(err == EINVAL, "more than an ioctl takes: %s", strerror(err));
	err = ibv_advise_mr(r.pair.dev.pd, PREFETCH_WRITE, SYNC, sge, UINT_MAX);
	t_check(err == EINVAL, "far more than an ioctl takes: %s", strerror(err));
}

/* ---- without faulting ---- */

/* One entry for each, whether it is brought in or is there already (@arg). */
static void huge_pages(const void *arg)
{
	u8 *p = t_map_huge_aligned(2 * T_HUGE);
	long huge = t_stat("huge_leaves");
	struct t_region r;

	t_check(!madvise(p, 2 * T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE: %s", strerror(errno));
	if (arg)
		memset(p, 0, 2 * T_HUGE);
	t_region_open(&r, p, 2 * T_HUGE);
	advise(&r, arg ? NO_FAULT : PREFETCH_WRITE, SYNC, 3, 2 * T_HUGE - 6);
	t_check(t_huge_bytes(p) == 2 * T_HUGE, "%llu bytes are huge",
		(unsigned long long)t_huge_bytes(p));
	t_check(t_stat("huge_leaves") == huge + 2, "%ld huge leaves", t_stat("huge_leaves") - huge);
	faults_nothing(&r, true, 0, 2 * T_HUGE);
	t_region_cpu_holds(&r, 0, 2 * T_HUGE, r.round);
}

/* Every third page is there; in the middle there is a hole. */
static void only_what_is_present(const void *arg)
{
	struct t_region r;
	size_t i, there = 0;
	long pages;

	(void)arg;
	open_region(&r, LEN);
	for (i = 0; i < LEN; i += 3 * T_PAGE, there++)
		r.buf.p[i] = 1;
	t_check(!munmap(r.buf.p + 3 * MIB, 2 * MIB), "munmap: %s", strerror(errno));
	there = count_present(r.buf.p, LEN);
	pages = t_stat("prefetch_pages");
	advise(&r, NO_FAULT, SYNC, 0, LEN);
	t_check(t_stat("prefetch_pages") - pages == (long)there, "%ld of %zu pages",
		t_stat("prefetch_pages") - pages, there);
	t_check(count_present(r.buf.p, LEN) == there, "pages were faulted");
	t_fill_at(r.buf.p, T_PAGE, 0, 9);
	t_check(t_page_present(r.buf.p + 6 * MIB - (6 * MIB) % (3 * T_PAGE)), "no page there");
	pages = t_stat("faults");
	t_region_read(&r, 0, T_PAGE, 9);
	t_region_write(&r, 6 * MIB - (6 * MIB) % (3 * T_PAGE), T_PAGE);
	t_check(t_stat("faults") == pages, "%ld faults after the advice",
		t_stat("faults") - pages);
}

/* Of 4 GiB that nobody has touched nothing is kept, nor of addresses without memory. */
static void nothing_is_present(const void *arg)
{
	size_t len = 4096 * MIB;
	struct t_region r;
	long leaves;

	(void)arg;
	t_check(t_stat_wait("mirrors", 0, PROMPT_MS), "mirrors of others are left");
	open_region(&r, len);
	t_check(!munmap(r.buf.p + len / 2, len / 4), "munmap: %s", strerror(errno));
	leaves = t_stat("leaves");
	advise(&r, NO_FAULT, SYNC, 0, len - 1);
	t_check(t_stat("leaves") == leaves, "%ld leaves for nothing", t_stat("leaves") - leaves);
}

/* ---- what is wrong with a list ---- */

enum wrong { NO_SUCH_KEY, DEAD_KEY, PINNED_KEY, OTHER_PD, NOT_WRITABLE, BEFORE, BEYOND, WRAPS,
	     FLAG, ADVICE };

struct refusal {
	enum wrong wrong;
	int err;
};

struct refused {
	struct t_region r;
	struct t_buf other;
	struct ibv_pd *pd;
	enum ibv_advise_mr_advice advice;
	u32 flags;
	struct ibv_sge sge[2];
};

static void register_other(struct refused *x, struct ibv_pd *pd, int access)
{
	x->other.mr = ibv_reg_mr(pd, x->other.p, x->other.len, access);
	if (!x->other.mr)
		t_die("ibv_reg_mr: %s", strerror(errno));
	x->sge[1].lkey = x->other.mr->lkey;
}

static void make_wrong(struct refused *x, enum wrong wrong)
{
	int odp = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND;
	struct ibv_sge *sge = &x->sge[1];

	switch (wrong) {
	case NO_SUCH_KEY:
		sge->lkey ^= 0x40;
		break;
	case DEAD_KEY:
		register_other(x, x->pd, odp);
		ibv_dereg_mr(x->other.mr);
		break;
	case PINNED_KEY:
		register_other(x, x->pd, IBV_ACCESS_LOCAL_WRITE);
		break;
	case OTHER_PD:
		register_other(x, ibv_alloc_pd(x->r.pair.dev.ctx), odp);
		break;
	case NOT_WRITABLE:
		register_other(x, x->pd, IBV_ACCESS_ON_DEMAND);
		break;
	case BEFORE:
		sge->addr = (uintptr_t)x->r.buf.p - 1;
		break;
	case BEYOND:
		sge->addr = (uintptr_t)x->r.buf.p + LEN - 8;
		sge->length = 9;
		break;
	case WRAPS:
		sge->addr = UINT64_MAX;
		sge->length = UINT_MAX;
		break;
	case FLAG:
		x->flags |= 2;
		break;
	case ADVICE:
		x->advice = 99;
		break;
	}
}

/* The first element is good all the same, and nothing is done about it. */
static void refused(const void *arg)
{
	const struct refusal *a = arg;
	struct refused x = { .advice = PREFETCH_WRITE };
	int sync, err;
	long begun;

	open_region(&x.r, LEN);
	x.pd = x.r.pair.dev.pd;
	t_buf_wrap(&x.other, map(LEN), LEN);
	x.sge[0] = t_sge(&x.r.buf, 0, MIB);
	x.sge[1] = t_sge(&x.r.buf, 2 * MIB, MIB);
	if (a->wrong >= DEAD_KEY && a->wrong <= NOT_WRITABLE)
		x.sge[1].addr = (uintptr_t)x.other.p;
	make_wrong(&x, a->wrong);
	begun = t_stat("prefetches");
	for (sync = 0; sync < 2; sync++) {
		err = ibv_advise_mr(x.pd, x.advice, x.flags | (sync ? SYNC : 0), x.sge, 2);
		t_check(err == a->err, "%s, expected: %s", strerror(err), strerror(a->err));
	}
	t_check(t_stat("prefetches") == begun, "something was begun");
	t_check(!count_present(x.r.buf.p, LEN), "something was done");
}

/* A region that can only be read, for reading. */
static void readable_region(const void *arg)
{
	struct t_buf b;
	struct t_dev dev;
	int err;

	(void)arg;
	t_dev_open(&dev);
	t_buf_wrap(&b, map(LEN), LEN);
	t_reg_access(&b, &dev, 0);
	err = try_advise(dev.pd, PREFETCH, SYNC, &b, 0, MIB);
	t_check(!err, "advice for reading: %s", strerror(err));
	check_present(&b, 0, MIB);
}

/* Registered, but not memory: only with SYNC does anybody say so. The rest is there. */
static void about_a_hole(const void *arg)
{
	struct t_region r;
	int err;

	(void)arg;
	open_region(&r, LEN);
	t_check(!munmap(r.buf.p + MIB, T_PAGE), "munmap: %s", strerror(errno));
	err = try_advise(r.pair.dev.pd, PREFETCH_WRITE, 0, &r.buf, 0, 4 * MIB);
	t_check(!err, "asynchronous advice about a hole: %s", strerror(err));
	err = try_advise(r.pair.dev.pd, PREFETCH_WRITE, SYNC, &r.buf, 0, 6 * MIB);
	t_check(err == EFAULT, "advice about a hole: %s", strerror(err));
	t_check(t_page_present(r.buf.p) && t_page_present(r.buf.p + 5 * MIB),
		"the memory around the hole is not there");
}

static void read_only_memory(const void *arg)
{
	struct t_region r;
	int err;

	(void)arg;
	open_region(&r, LEN);
	t_check(!mprotect(r.buf.p, LEN, PROT_READ), "mprotect: %s", strerror(errno));
	err = try_advise(r.pair.dev.pd, PREFETCH_WRITE, SYNC, &r.buf, 0, MIB);
	t_check(err == EFAULT, "writing to memory that is read-only: %s", strerror(err));
	advise(&r, PREFETCH, SYNC, 0, MIB);
	faults_nothing(&r, false, 0, MIB);
}

/* ---- how it ends ---- */

struct waiter {
	struct t_region r;
	int uffd;
	u64 address;
	pthread_t thread;
	int err;
};

static void *wait_for_advice(void *arg)
{
	struct waiter *w = arg;

	w->err = try_advise(w->r.pair.dev.pd, PREFETCH_WRITE, SYNC, &w->r.buf, 0, LEN);
	return NULL;
}

/* A region whose pages never come, and somebody who waits for them. */
static void open_waiter(struct waiter *w)
{
	open_region(&w->r, LEN);
	w->uffd = t_uffd_open();
	t_uffd_watch(w->uffd, w->r.buf.p, LEN);
	if (pthread_create(&w->thread, NULL, wait_for_advice, w))
		t_die("pthread_create");
	t_check(t_uffd_wait(w->uffd, 10000, &w->address), "no fault came");
}

static void dereg_ends_waiting(const void *arg)
{
	struct waiter w;
	u64 begin;

	(void)arg;
	open_waiter(&w);
	begin = t_now_ms();
	t_dereg(&w.r.buf);
	pthread_join(w.thread, NULL);
	t_check(w.err == ECANCELED, "whoever waited was told: %s", strerror(w.err));
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "it took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "the fault goes on");
}

static void begin_stuck(struct t_region *r, int *uffd)
{
	u64 address;

	open_region(r, LEN);
	*uffd = t_uffd_open();
	t_uffd_watch(*uffd, r->buf.p, LEN);
	advise(r, PREFETCH_WRITE, 0, 0, LEN);
	t_check(t_uffd_wait(*uffd, 10000, &address), "no fault came");
}

static void dereg_ends_advice(const void *arg)
{
	struct t_region r;
	u64 begin;
	int uffd;

	(void)arg;
	begin_stuck(&r, &uffd);
	begin = t_now_ms();
	t_dereg(&r.buf);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "dereg took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "the fault goes on");
}

/*
 * Killed while somebody waits (@arg), or while nobody does. The userfaultfd, which we
 * have too, and its memory are the child's: nothing but its death ends the fault.
 */
static void kill_ends_it(const void *arg)
{
	long mirrors = t_stat("mirrors");
	struct t_region r;
	struct waiter w;
	int say[2], uffd, status;
	pid_t pid;

	if (pipe(say))
		t_die("pipe: %s", strerror(errno));
	pid = t_fork();
	if (!pid) {
		if (arg)
			open_waiter(&w);
		else
			begin_stuck(&r, &uffd);
		if (write(say[1], "", 1) != 1)
			_exit(2);
		pause();
	}
	t_check(read(say[0], &status, 1) == 1, "the child did not begin");
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, PROMPT_MS, &status), "the child does not die");
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "the fault goes on");
	t_check(t_stat_wait("mirrors", mirrors, 2 * PROMPT_MS), "a mirror outlives its process");
}

/* What waits for ever is bounded, and the bound is given back. */
static void bounded(const void *arg)
{
	static struct ibv_sge sge[MOST_SGES];
	struct t_region r, again;
	u64 end;
	int uffd, err = 0;
	size_t i;

	(void)arg;
	begin_stuck(&r, &uffd);
	for (i = 0; i < MOST_SGES; i++)
		sge[i] = t_sge(&r.buf, 0, 1);
	for (i = 0; i < 4 && !err; i++)
		err = ibv_advise_mr(r.pair.dev.pd, PREFETCH_WRITE, 0, sge, MOST_SGES);
	t_check(err == EAGAIN, "list %zu of %u: %s", i, MOST_SGES, strerror(err));
	t_dereg(&r.buf);
	open_region(&again, LEN);
	for (i = 0; i < MOST_SGES; i++)
		sge[i] = t_sge(&again.buf, i, 1);
	end = t_deadline(PROMPT_MS);
	while ((err = ibv_advise_mr(again.pair.dev.pd, PREFETCH_WRITE, SYNC, sge, MOST_SGES))) {
		t_check(err == EAGAIN && t_now_ms() < end, "after dereg: %s", strerror(err));
		t_sleep_ms(20);
	}
	check_present(&again.buf, 0, MOST_SGES);
}

/* Many that wait for ever: what is needed comes all the same, and so does advice. */
static void others_go_on(const void *arg)
{
	struct t_region stuck, r;
	u64 address;
	int uffd, i;

	(void)arg;
	begin_stuck(&stuck, &uffd);
	for (i = 1; i < 30; i++) {
		advise(&stuck, PREFETCH_WRITE, 0, i * 4 * T_PAGE, T_PAGE);
		t_check(t_uffd_wait(uffd, 10000, &address), "advice %d does not begin", i);
	}
	open_region(&r, LEN);
	for (i = 0; i < 100; i++)
		t_region_exchange(&r, i * 8 * T_PAGE, 2 * T_PAGE);
	advise(&r, PREFETCH_WRITE, SYNC, 4 * MIB, MIB);
	faults_nothing(&r, true, 4 * MIB, MIB);
	t_dereg(&stuck.buf);
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "a fault goes on");
}

/* A child's advice, by what it inherited, is about its parent's memory. */
static void owner_is_meant(const void *arg)
{
	struct t_region r;
	int status;
	pid_t pid;

	(void)arg;
	open_region(&r, LEN);
	pid = t_fork();
	if (!pid) {
		advise(&r, PREFETCH_WRITE, SYNC, 0, MIB);
		t_check(!count_present(r.buf.p, LEN), "the child has the pages");
		_exit(0);
	}
	t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "the child failed");
	check_present(&r.buf, 0, MIB);
}

/* When the owner is gone there is nothing to bring in, and nobody to bring it to. */
static void owner_is_gone(const void *arg)
{
	struct t_region r;
	int say[2], go[2], err;
	pid_t owner, heir;
	char byte = 0;

	(void)arg;
	if (pipe(say) || pipe(go))
		t_die("pipe: %s", strerror(errno));
	owner = t_fork();
	if (!owner) {
		open_region(&r, LEN);
		heir = fork();
		if (heir)
			_exit(heir < 0);
		close(go[1]);
		t_check(read(go[0], &byte, 1) == 1, "nobody says go");
		err = try_advise(r.pair.dev.pd, PREFETCH_WRITE, SYNC, &r.buf, 0, MIB);
		_exit(write(say[1], &err, sizeof(err)) != sizeof(err));
	}
	t_check(t_wait_exit(owner, PROMPT_MS, &err) && !err, "the owner failed");
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "a fault runs");
	t_check(write(go[1], &byte, 1) == 1, "write: %s", strerror(errno));
	t_check(read(say[0], &err, sizeof(err)) == sizeof(err), "the heir did not end well");
	t_check(err == ECANCELED, "advice about memory of nobody: %s", strerror(err));
}

struct racer {
	struct t_region *r;
	struct ibv_sge sge[8];
	volatile bool stop;
	unsigned long done;
	int err;
};

static void *advise_on_and_on(void *arg)
{
	struct racer *x = arg;
	struct ibv_sge sge[8];
	unsigned int i, flags;
	int err;

	for (i = 0; !x->stop; i++) {
		memcpy(sge, x->sge, sizeof(sge));
		flags = i & 1 ? SYNC : 0;
		err = ibv_advise_mr(x->r->pair.dev.pd, i % 3, flags, sge, 8);
		if (err && err != ENOENT && err != ECANCELED && err != EAGAIN &&
		    err != EFAULT)
			x->err = err;
		x->done += !err;
	}
	return NULL;
}

/* Advice, while the region goes and comes, and its memory too. */
static void race(const void *arg)
{
	struct racer x[3] = { 0 };
	pthread_t thread[T_ARRAY_SIZE(x)];
	struct t_region r;
	unsigned int i, k;

	(void)arg;
	open_region(&r, LEN);
	for (k = 0; k < T_ARRAY_SIZE(x); k++) {
		x[k].r = &r;
		for (i = 0; i < 8; i++)
			x[k].sge[i] = t_sge(&r.buf, i * MIB, MIB / 2);
		if (pthread_create(&thread[k], NULL, advise_on_and_on, &x[k]))
			t_die("pthread_create");
	}
	for (i = 0; i < 150; i++) {
		t_region_exchange(&r, (i % 8) * MIB, 3 * T_PAGE);
		t_dereg(&r.buf);
		madvise(r.buf.p, LEN, MADV_DONTNEED);
		t_reg(&r.buf, &r.pair.dev);
		for (k = 0; k < 8 * T_ARRAY_SIZE(x); k++)
			x[k / 8].sge[k % 8].lkey = r.buf.mr->lkey;
	}
	for (k = 0; k < T_ARRAY_SIZE(x); k++) {
		x[k].stop = true;
		pthread_join(thread[k], NULL);
		t_check(!x[k].err, "advice: %s", strerror(x[k].err));
		t_check(x[k].done, "no advice was ever taken");
	}
}

#define REFUSED(name, wrong, err)						\
	{ "refused, and nothing done: " name, T_ODP, refused,			\
	  &(const struct refusal) { wrong, err } }

static const struct t_case cases[] = {
	{ "for writing: all is there, and no more, and nothing faults", T_ODP, sync_for_writing,
	  NULL },
	{ "the control: without advice it does", T_ODP, without_advice, NULL },
	{ "for reading: nothing faults until it is written", T_ODP, sync_for_reading, NULL },
	{ "asynchronous: all comes", T_ODP, async_for_writing, NULL },
	{ "memory that was swapped out comes in", T_ODP, swapped_out, NULL },
	{ "several elements of two regions, by iova", T_ODP, several_regions, NULL },
	{ "as many elements as an ioctl takes", T_ODP, most_elements, NULL },
	{ "huge pages", T_ODP, huge_pages, NULL },
	{ "without faulting: what is present, and nothing else", T_ODP, only_what_is_present,
	  NULL },
	{ "without faulting: huge pages", T_ODP, huge_pages, "" },
	{ "without faulting: nothing is kept for what is not there", T_ODP, nothing_is_present,
	  NULL },
	REFUSED("no such key", NO_SUCH_KEY, ENOENT),
	REFUSED("the key of a dead region", DEAD_KEY, ENOENT),
	REFUSED("the key of a pinned region", PINNED_KEY, ENOENT),
	REFUSED("another protection domain", OTHER_PD, EPERM),
	REFUSED("a region that is not writable", NOT_WRITABLE, EPERM),
	REFUSED("before the region", BEFORE, EFAULT),
	REFUSED("beyond the region", BEYOND, EFAULT),
	REFUSED("a range that wraps", WRAPS, EFAULT),
	REFUSED("an unknown flag", FLAG, EINVAL),
	REFUSED("an unknown advice", ADVICE, EOPNOTSUPP),
	{ "a region that is not writable, for reading", T_ODP, readable_region, NULL },
	{ "a hole is an error for whoever waits, and the rest is there", T_ODP, about_a_hole,
	  NULL },
	{ "memory that is read-only", T_ODP, read_only_memory, NULL },
	{ "dereg ends it for whoever waits", T_ODP, dereg_ends_waiting, NULL },
	{ "dereg ends it when nobody waits", T_ODP, dereg_ends_advice, NULL },
	{ "kill -9 ends it for whoever waits", T_ODP, kill_ends_it, "" },
	{ "kill -9 ends it when nobody waits", T_ODP, kill_ends_it, NULL },
	{ "what waits for ever is bounded", T_ODP, bounded, NULL },
	{ "while 30 wait for ever, others go on", T_ODP, others_go_on, NULL },
	{ "a child's advice is about the owner's memory", T_ODP, owner_is_meant, NULL },
	{ "advice about the memory of an owner who is gone", T_ODP, owner_is_gone, NULL },
	{ "advice while regions come and go", T_ODP, race, NULL },
};

int main(int argc, char **argv)
{
	t_under_libunpin(argv);
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
