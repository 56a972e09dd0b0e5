// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The CPU's mapping of a region in use changes while nothing is transferred.
 * From then on no access reaches the old page, which a witness (another
 * mapping, another process, a pipe) keeps alive and shows to be unchanged, and
 * every access sees the new page, or fails where there is none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN	(8 * T_PAGE)
#define OFF	(T_PAGE - 3)
#define SPAN	(3 * T_PAGE + 7)

#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define RW	(PROT_READ | PROT_WRITE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* ---- what several cases need ---- */

static void ok(int err, const char *what)
{
	t_check(!err, "%s: %s", what, strerror(errno));
}

static void map_over(void *p, size_t len, int prot, int flags, int fd)
{
	t_check(mmap(p, len, prot, flags | MAP_FIXED, fd, 0) == p, "mmap over: %s",
		strerror(errno));
}

/* A file, the region's mapping of it, and the witness' mapping of it. */
struct file_region {
	struct t_region r;
	int fd;
	u8 *witness;
};

static void open_file_region(struct file_region *f)
{
	f->fd = t_memfd("old", LEN, 0);
	f->witness = t_map(LEN, MAP_SHARED, f->fd);
	t_region_open(&f->r, t_map(LEN, MAP_SHARED, f->fd), LEN);
	t_region_exchange(&f->r, 0, LEN);
}

static void witness_holds(struct file_region *f, u64 round)
{
	t_check(t_matches(f->witness, LEN, round), "the old page was changed");
}

static void open_anonymous(struct t_region *r, size_t len)
{
	t_region_open(r, t_map(len, ANON, -1), len);
	t_region_exchange(r, 0, len);
}

/* ---- the mapping goes away or is replaced ---- */

static void unmapped(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(munmap(f.r.buf.p, LEN), "munmap");
	t_region_refuses_write(&f.r, 0, LEN - 8);
	t_region_refuses_read(&f.r, 0, LEN);
	t_region_refuses_write(&f.r, OFF, 64);
	witness_holds(&f, round);
}

static void unmapped_and_mapped_again(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(munmap(f.r.buf.p, LEN), "munmap");
	map_over(f.r.buf.p, LEN, RW, ANON, -1);
	t_region_read_zero(&f.r, 0, LEN);
	t_region_write(&f.r, OFF, SPAN);
	t_region_cpu_holds(&f.r, OFF, SPAN, f.r.round);
	t_region_exchange(&f.r, 0, LEN);
	witness_holds(&f, round);
}

static void unmapped_in_part(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(munmap(f.r.buf.p + 2 * T_PAGE, T_PAGE), "munmap");
	t_region_refuses_write(&f.r, 2 * T_PAGE + 5, 100);
	t_region_refuses_read(&f.r, 2 * T_PAGE, T_PAGE);
	t_check(t_matches_at(f.witness + 2 * T_PAGE, T_PAGE, 2 * T_PAGE, round),
		"the unmapped page was changed");
	t_region_exchange(&f.r, 0, 2 * T_PAGE);
	t_region_exchange(&f.r, 3 * T_PAGE, 5 * T_PAGE);
}

static void replaced_by_another_file(const void *arg)
{
	struct file_region f;
	u8 *other;
	u64 round;
	int fd;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	fd = t_memfd("new", LEN, 0);
	other = t_map(LEN, MAP_SHARED, fd);
	t_fill(other, LEN, 3);
	map_over(f.r.buf.p, LEN, RW, MAP_SHARED, fd);
	t_region_read(&f.r, 0, LEN, 3);
	t_region_write(&f.r, 0, LEN);
	t_check(t_matches(other, LEN, f.r.round), "the new file was not written");
	witness_holds(&f, round);
	map_over(f.r.buf.p, LEN, RW, MAP_SHARED, f.fd);
	t_region_read(&f.r, 0, LEN, round);
	t_region_write(&f.r, OFF, SPAN);
	t_check(t_matches_at(f.witness + OFF, SPAN, OFF, f.r.round),
		"the first file, mapped again, was not written");
	t_check(t_matches(other, LEN, f.r.round - 1), "the second file was changed");
}

static void moved_by_mremap(const void *arg)
{
	struct file_region f;
	u8 *old, *new;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	old = f.r.buf.p;
	new = t_map(LEN, ANON, -1);
	t_check(mremap(old, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, new) == new,
		"mremap: %s", strerror(errno));
	t_region_refuses_write(&f.r, 0, LEN - 8);
	t_region_refuses_read(&f.r, OFF, SPAN);
	witness_holds(&f, round);
	t_check(t_matches(new, LEN, round), "the moved memory was changed");
	t_check(mremap(new, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, old) == old,
		"mremap back: %s", strerror(errno));
	t_region_read(&f.r, 0, LEN, round);
	t_region_exchange(&f.r, 0, LEN);
	witness_holds(&f, f.r.round);
}

/* Anonymous pages move; other memory takes the place of the region. */
static void moved_and_something_else_put_there(const void *arg)
{
	struct t_region r;
	u8 *new, *old;
	u64 round;

	(void)arg;
	open_anonymous(&r, LEN);
	round = r.round;
	old = r.buf.p;
	new = t_map(LEN, ANON, -1);
	t_check(mremap(old, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, new) == new,
		"mremap: %s", strerror(errno));
	map_over(old, LEN, RW, ANON, -1);
	t_region_read_zero(&r, 0, LEN);
	t_region_exchange(&r, OFF, SPAN);
	t_check(t_matches(new, LEN, round), "the moved memory was changed");
}

/* mremap into the region: what was warm there is gone. */
static void moved_into_the_region(const void *arg)
{
	struct file_region f;
	u8 *from = t_map(LEN, ANON, -1);
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	t_fill(from, LEN, 31);
	t_check(mremap(from, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, f.r.buf.p) == f.r.buf.p,
		"mremap: %s", strerror(errno));
	t_region_read(&f.r, 0, LEN, 31);
	t_region_exchange(&f.r, OFF, SPAN);
	witness_holds(&f, round);
}

/* ---- rights ---- */

static void protected_none(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(mprotect(f.r.buf.p, LEN, PROT_NONE), "mprotect");
	t_region_refuses_write(&f.r, OFF, 64);
	t_region_refuses_read(&f.r, 0, LEN);
	witness_holds(&f, round);
	ok(mprotect(f.r.buf.p, LEN, RW), "mprotect");
	t_region_read(&f.r, 0, LEN, round);
	t_region_exchange(&f.r, 0, LEN);
}

static void protected_read(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(mprotect(f.r.buf.p, LEN, PROT_READ), "mprotect");
	t_region_refuses_write(&f.r, OFF, 64);
	t_region_read(&f.r, 0, LEN, round);
	t_region_refuses_write(&f.r, 0, LEN - 8);
	witness_holds(&f, round);
	ok(mprotect(f.r.buf.p, LEN, RW), "mprotect");
	t_region_exchange(&f.r, 0, LEN);
}

static void protected_in_part(const void *arg)
{
	struct file_region f;
	u64 round;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	ok(mprotect(f.r.buf.p + T_PAGE, T_PAGE, PROT_READ), "mprotect");
	ok(mprotect(f.r.buf.p + 4 * T_PAGE, T_PAGE, PROT_NONE), "mprotect");
	t_region_read(&f.r, 0, 4 * T_PAGE, round);
	t_region_refuses_write(&f.r, T_PAGE + 1, 70);
	t_region_refuses_read(&f.r, 4 * T_PAGE, T_PAGE);
	witness_holds(&f, round);
	t_region_exchange(&f.r, 0, T_PAGE);
	t_region_exchange(&f.r, 2 * T_PAGE, 2 * T_PAGE);
	t_region_exchange(&f.r, 5 * T_PAGE, 3 * T_PAGE);
	t_check(t_matches_at(f.witness + T_PAGE, T_PAGE, T_PAGE, round),
		"the read-only page was changed");
}

/* ---- contents are dropped ---- */

static void dontneed_anonymous(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_anonymous(&r, LEN);
	ok(madvise(r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_read_zero(&r, 0, LEN);
	t_region_exchange(&r, 0, LEN);
	ok(madvise(r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_check(t_all_zero(r.buf.p, OFF), "bytes before what was written");
	t_check(t_all_zero(r.buf.p + OFF + SPAN, LEN - OFF - SPAN),
		"bytes after what was written");
}

static void dontneed_shared(const void *arg)
{
	struct file_region f;

	(void)arg;
	open_file_region(&f);
	ok(madvise(f.r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_read(&f.r, 0, LEN, f.r.round);
	ok(madvise(f.r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_exchange(&f.r, OFF, SPAN);
	t_check(t_matches_at(f.witness + OFF, SPAN, OFF, f.r.round), "the file differs");
}

static void dontneed_private_file(const void *arg)
{
	int fd = t_memfd("old", LEN, 0);
	struct t_region r;
	u8 *file = t_map(LEN, MAP_SHARED, fd);

	(void)arg;
	t_fill(file, LEN, 9);
	t_region_open(&r, t_map(LEN, MAP_PRIVATE, fd), LEN);
	t_region_exchange(&r, 0, LEN);
	ok(madvise(r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_read(&r, 0, LEN, 9);
	t_region_exchange(&r, OFF, SPAN);
	t_check(t_matches(file, LEN, 9), "the file was changed");
}

/* Freed lazily and written again before reclaim: the write must survive. */
static void free_then_write(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_anonymous(&r, LEN);
	ok(madvise(r.buf.p, LEN, MADV_FREE), "MADV_FREE");
	t_region_write(&r, OFF, SPAN);
	madvise(r.buf.p, LEN, MADV_PAGEOUT);
	t_write_file("/proc/sys/vm/drop_caches", "1");
	madvise(r.buf.p, LEN, MADV_PAGEOUT);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
}

/* A read only maps it: then a write through the mirror alone dirties it. */
static void free_then_read_then_write(const void *arg)
{
	struct t_region r;
	u8 old;

	(void)arg;
	open_anonymous(&r, LEN);
	ok(madvise(r.buf.p, LEN, MADV_FREE), "MADV_FREE");
	old = r.buf.p[OFF];
	t_check(old == t_pattern(OFF, r.round) || !old, "a byte of neither page");
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &r.buf, 0, LEN), IBV_WC_SUCCESS, "READ");
	t_region_write(&r, OFF, SPAN);
	madvise(r.buf.p, LEN, MADV_PAGEOUT);
	t_write_file("/proc/sys/vm/drop_caches", "1");
	madvise(r.buf.p, LEN, MADV_PAGEOUT);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_region_exchange(&r, OFF, SPAN);
}

static void free_then_reclaimed(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_anonymous(&r, LEN);
	ok(madvise(r.buf.p, LEN, MADV_FREE), "MADV_FREE");
	t_check(t_pageout(r.buf.p, LEN), "freed pages were not reclaimed");
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &r.buf, 0, LEN), IBV_WC_SUCCESS, "READ");
	t_check(!memcmp(r.scratch.p, r.buf.p, LEN), "READ and the CPU see different bytes");
	t_region_exchange(&r, 0, LEN);
}

/* ---- files shrink ---- */

static void truncated(const void *arg)
{
	struct file_region f;
	u8 held[T_PAGE];
	u64 round;
	int pipe;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	pipe = t_pipe_hold_page(f.fd, T_PAGE);
	ok(ftruncate(f.fd, 0), "ftruncate");
	t_region_refuses_write(&f.r, T_PAGE, T_PAGE);
	t_region_refuses_read(&f.r, 0, LEN);
	ok(ftruncate(f.fd, LEN), "ftruncate");
	t_region_read_zero(&f.r, 0, LEN);
	t_region_exchange(&f.r, 0, LEN);
	t_check(t_matches(f.witness, LEN, f.r.round), "the file differs");
	t_pipe_read_page(pipe, held);
	t_check(t_matches_at(held, T_PAGE, T_PAGE, round), "the old page was changed");
}

static void hole_punched(const void *arg)
{
	struct file_region f;
	u8 held[T_PAGE];
	u64 round;
	int pipe;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	pipe = t_pipe_hold_page(f.fd, 2 * T_PAGE);
	ok(fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, T_PAGE, 3 * T_PAGE),
	   "fallocate");
	t_region_read(&f.r, 0, T_PAGE, round);
	t_region_read_zero(&f.r, T_PAGE, 3 * T_PAGE);
	t_region_write(&f.r, T_PAGE, 3 * T_PAGE);
	t_check(t_matches_at(f.witness + T_PAGE, 3 * T_PAGE, T_PAGE, f.r.round),
		"the file differs");
	t_pipe_read_page(pipe, held);
	t_check(t_matches_at(held, T_PAGE, 2 * T_PAGE, round), "the old page was changed");
	t_region_exchange(&f.r, 0, LEN);
}

/* A WRITE first, not a READ, meets the hole. */
static void hole_punched_then_written(const void *arg)
{
	struct file_region f;
	u8 held[T_PAGE];
	u64 round;
	int pipe;

	(void)arg;
	open_file_region(&f);
	round = f.r.round;
	pipe = t_pipe_hold_page(f.fd, T_PAGE);
	ok(fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, T_PAGE, T_PAGE),
	   "fallocate");
	t_region_write(&f.r, T_PAGE + 100, 50);
	t_check(t_matches_at(f.witness + T_PAGE + 100, 50, T_PAGE + 100, f.r.round),
		"the file differs");
	t_check(t_all_zero(f.witness + T_PAGE, 100), "bytes before what was written");
	t_pipe_read_page(pipe, held);
	t_check(t_matches_at(held, T_PAGE, T_PAGE, round), "the old page was changed");
}

static void hugetlb_truncated(const void *arg)
{
	struct t_region r;
	int fd;

	(void)arg;
	t_write_file("/proc/sys/vm/nr_hugepages", "4");
	fd = t_memfd("huge", T_HUGE, MFD_HUGETLB);
	t_region_open(&r, t_map(T_HUGE, MAP_SHARED, fd), T_HUGE);
	t_region_exchange(&r, 0, LEN);
	ok(ftruncate(fd, 0), "ftruncate");
	t_region_refuses_write(&r, OFF, 64);
	t_region_refuses_read(&r, 0, LEN);
	ok(ftruncate(fd, T_HUGE), "ftruncate");
	t_region_read_zero(&r, 0, LEN);
	t_region_exchange(&r, 0, LEN);
}

/* Where rxe does its work, and all others that do not care. */
static void work_on(unsigned int cpus)
{
	char mask[16];

	snprintf(mask, sizeof(mask), "%x", cpus);
	ok(!t_write_file("/sys/devices/virtual/workqueue/cpumask", mask), "cpumask");
}

/* A huge entry has a copy for each CPU, or for some: each of them has to go. */
static void hugetlb_dropped_for_each_cpu(const void *arg)
{
	long cpu, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct t_region r;

	(void)arg;
	t_write_file("/proc/sys/vm/nr_hugepages", "4");
	t_region_open(&r, t_map(T_HUGE, ANON | MAP_HUGETLB, -1), T_HUGE);
	for (cpu = 0; cpu < cpus && cpu < 8; cpu++) {
		work_on(1U << cpu);
		t_region_exchange(&r, T_HUGE - LEN, LEN);
		ok(madvise(r.buf.p, T_HUGE, MADV_DONTNEED), "MADV_DONTNEED");
		t_region_read_zero(&r, T_HUGE - LEN, LEN);
	}
	work_on((1U << cpu) - 1);
}

static void hugetlb_dropped(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_write_file("/proc/sys/vm/nr_hugepages", "4");
	t_region_open(&r, t_map(T_HUGE, ANON | MAP_HUGETLB, -1), T_HUGE);
	t_region_exchange(&r, T_HUGE - LEN, LEN);
	ok(madvise(r.buf.p, T_HUGE, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_read_zero(&r, T_HUGE - LEN, LEN);
	t_region_exchange(&r, T_HUGE - LEN, LEN);
	ok(munmap(r.buf.p, T_HUGE), "munmap");
	t_region_refuses_write(&r, OFF, 64);
}

/* ---- fork and copy-on-write ---- */

/* A child that compares its own copy when told to, then writes into it. */
struct child {
	pid_t pid;
	int go[2];
};

static void child_body(struct child *c, u8 *p, size_t len, u64 round)
{
	char byte;

	if (read(c->go[0], &byte, 1) != 1)
		_exit(2);
	if (!t_matches(p, len, round))
		_exit(1);
	t_fill(p, len, 666);
	if (read(c->go[0], &byte, 1) != 1)
		_exit(2);
	_exit(t_matches(p, len, 666) ? 0 : 3);
}

static void fork_child(struct child *c, u8 *p, size_t len, u64 round)
{
	ok(pipe(c->go), "pipe");
	c->pid = t_fork();
	if (!c->pid)
		child_body(c, p, len, round);
}

static void let_child_go(struct child *c)
{
	t_check(write(c->go[1], "x", 1) == 1, "pipe to the child");
}

static void child_is_content(struct child *c)
{
	int status;

	let_child_go(c);
	t_check(t_wait_exit(c->pid, 10000, &status), "the child hangs");
	t_check(status == 0, "the child saw other bytes in its own copy (status %#x)", status);
}

/* RDMA writes first after the fork: the child keeps the old bytes. */
static void fork_then_rdma_writes(struct t_region *r, size_t len)
{
	struct child c;

	fork_child(&c, r->buf.p, len, r->round);
	t_region_write(r, 0, len);
	t_region_cpu_holds(r, 0, len, r->round);
	let_child_go(&c);
	t_sleep_ms(100);
	t_region_read(r, 0, len, r->round);
	child_is_content(&c);
	t_region_exchange(r, 0, len);
}

static void forked_rdma_writes(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_anonymous(&r, LEN);
	fork_then_rdma_writes(&r, LEN);
}

static void forked_parent_writes(const void *arg)
{
	struct t_region r;
	struct child c;

	(void)arg;
	open_anonymous(&r, LEN);
	fork_child(&c, r.buf.p, LEN, r.round);
	r.round++;
	t_fill(r.buf.p, LEN, r.round);
	t_region_read(&r, 0, LEN, r.round);
	t_region_exchange(&r, OFF, SPAN);
	let_child_go(&c);
	child_is_content(&c);
}

static void forked_child_writes(const void *arg)
{
	struct t_region r;
	struct child c;

	(void)arg;
	open_anonymous(&r, LEN);
	fork_child(&c, r.buf.p, LEN, r.round);
	let_child_go(&c);
	t_sleep_ms(100);
	t_region_read(&r, 0, LEN, r.round);
	t_region_exchange(&r, OFF, SPAN);
	child_is_content(&c);
}

/* A READ after the fork maps the shared page; the next WRITE must not use it. */
static void forked_read_then_write(const void *arg)
{
	struct t_region r;
	struct child c;

	(void)arg;
	open_anonymous(&r, LEN);
	fork_child(&c, r.buf.p, LEN, r.round);
	t_region_read(&r, 0, LEN, r.round);
	t_region_write(&r, 0, LEN);
	t_region_cpu_holds(&r, 0, LEN, r.round);
	let_child_go(&c);
	child_is_content(&c);
	t_region_read(&r, 0, LEN, r.round);
}

static void forked_many_times(const void *arg)
{
	struct t_region r;
	struct child c[6];
	size_t i;

	(void)arg;
	open_anonymous(&r, LEN);
	for (i = 0; i < T_ARRAY_SIZE(c); i++) {
		fork_child(&c[i], r.buf.p, LEN, r.round);
		t_region_write(&r, 0, LEN);
	}
	for (i = 0; i < T_ARRAY_SIZE(c); i++) {
		let_child_go(&c[i]);
		child_is_content(&c[i]);
	}
	t_region_exchange(&r, 0, LEN);
}

/* ---- reclaim ---- */

static void swapped_out(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_anonymous(&r, LEN);
	t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out");
	t_check(t_page_swapped(r.buf.p), "the page is not in swap");
	t_region_read(&r, 0, LEN, r.round);
	t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out again");
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_region_exchange(&r, 0, LEN);
}

/* What is read in is clean; a WRITE through the mirror must be swapped again. */
static void swapped_after_a_write(const void *arg)
{
	struct t_region r;
	int i;

	(void)arg;
	open_anonymous(&r, LEN);
	for (i = 0; i < 5; i++) {
		t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out");
		t_region_read(&r, 0, LEN, r.round);
		t_region_write(&r, 0, LEN);
		t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out");
		t_region_cpu_holds(&r, 0, LEN, r.round);
		t_region_write(&r, 0, LEN);
	}
}

/* Atomics dirty their page too. */
static void swapped_after_an_atomic(const void *arg)
{
	struct t_region r;
	u64 value;
	u64 i;

	(void)arg;
	open_anonymous(&r, LEN);
	memset(r.buf.p, 0, T_PAGE);
	for (i = 0; i < 5; i++) {
		t_check(t_pageout(r.buf.p, T_PAGE), "the page was not swapped out");
		t_expect(t_read(&r.pair.a, &r.scratch, 0, &r.buf, 0, T_PAGE), IBV_WC_SUCCESS,
			 "READ");
		t_expect(t_fadd(&r.pair.a, &r.scratch, 0, &r.buf, 64, 1), IBV_WC_SUCCESS,
			 "fetch-and-add");
	}
	memcpy(&value, r.buf.p + 64, sizeof(value));
	t_check(value == 5, "5 additions gave %llu", (unsigned long long)value);
}

static void shmem_swapped_out(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_SHARED | MAP_ANONYMOUS, -1), LEN);
	t_region_exchange(&r, 0, LEN);
	t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out");
	t_region_read(&r, 0, LEN, r.round);
	t_region_write(&r, 0, LEN);
	t_check(t_pageout(r.buf.p, LEN), "the pages were not swapped out again");
	t_region_cpu_holds(&r, 0, LEN, r.round);
	t_region_exchange(&r, 0, LEN);
}

static void huge_page_swapped_out(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct t_region r;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	t_region_open(&r, p, T_HUGE);
	t_region_write(&r, 0, T_HUGE);
	t_check(t_huge_bytes(p), "no huge page");
	t_check(t_pageout(p, T_HUGE), "the huge page was not swapped out");
	t_region_read(&r, 0, T_HUGE, r.round);
	t_region_exchange(&r, OFF, SPAN);
}

/* ---- the page's place changes, its content does not ---- */

static u64 sum_of_pfns(const u8 *p, size_t len)
{
	u64 sum = 0;
	size_t i;

	for (i = 0; i < len; i += T_PAGE)
		sum += t_pfn(p + i) * (i + 1);
	return sum;
}

/* Soft offlining migrates the page, certainly and now; one page is lost by it. */
static void migrated(const void *arg)
{
	struct t_region r;
	u64 pfn, round;

	(void)arg;
	open_anonymous(&r, LEN);
	round = r.round;
	pfn = t_pfn(r.buf.p + T_PAGE);
	ok(madvise(r.buf.p + T_PAGE, T_PAGE, 101 /* MADV_SOFT_OFFLINE */),
	   "MADV_SOFT_OFFLINE");
	t_check(t_pfn(r.buf.p + T_PAGE) != pfn, "the page did not move");
	t_region_read(&r, 0, LEN, round);
	t_region_exchange(&r, 0, LEN);
}

/* Fragment the memory so that compaction has something to do. */
static void fragment(u8 *hog, size_t len)
{
	size_t i;

	memset(hog, 1, len);
	for (i = 0; i < len; i += 2 * T_PAGE)
		madvise(hog + i, T_PAGE, MADV_DONTNEED);
}

static void compacted(const void *arg)
{
	/* all pages are looked at four times, which a debug kernel takes its time for */
	size_t hog_len = (256UL << 20) / t_patience(1), len = 512 * T_PAGE;
	u8 *hog = t_map(hog_len, ANON, -1);
	struct t_region r;
	u64 before;
	int i;

	(void)arg;
	madvise(hog, hog_len, MADV_NOHUGEPAGE);
	fragment(hog, hog_len);
	t_region_open(&r, t_map(len, ANON, -1), len);
	madvise(r.buf.p, len, MADV_NOHUGEPAGE);
	t_region_exchange(&r, 0, len);
	for (i = 0; i < 4; i++) {
		before = sum_of_pfns(r.buf.p, len);
		t_check(t_write_file("/proc/sys/vm/compact_memory", "1"), "compaction");
		if (sum_of_pfns(r.buf.p, len) != before)
			t_diag("compaction %d moved pages of the region", i);
		t_region_read(&r, 0, len, r.round);
		t_region_write(&r, 0, len);
		t_region_cpu_holds(&r, 0, len, r.round);
	}
}

static long ksm_scans(void)
{
	return t_read_long("/sys/kernel/mm/ksm/full_scans");
}

static void ksm_scan(void)
{
	long until = ksm_scans() + 3;
	u64 end = t_deadline(15000);

	t_write_file("/sys/kernel/mm/ksm/pages_to_scan", "10000");
	t_write_file("/sys/kernel/mm/ksm/sleep_millisecs", "10");
	t_check(t_write_file("/sys/kernel/mm/ksm/run", "1"), "KSM");
	while (ksm_scans() < until && t_now_ms() < end)
		t_sleep_ms(20);
	t_write_file("/sys/kernel/mm/ksm/run", "0");
	t_check(ksm_scans() >= until, "KSM did not scan");
}

/* Equal pages become one; a write to the one leaves the other alone. */
static void merged_by_ksm(const void *arg)
{
	u8 *twin = t_map(LEN, ANON, -1);
	struct t_region r;
	u64 round;

	(void)arg;
	open_anonymous(&r, LEN);
	round = r.round;
	t_fill(twin, LEN, round);
	ok(madvise(twin, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	ok(madvise(r.buf.p, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	ksm_scan();
	if (t_opts.odp)
		t_check(t_pfn(twin) == t_pfn(r.buf.p), "the pages were not merged");
	t_region_read(&r, 0, LEN, round);
	t_region_write(&r, 0, LEN);
	t_region_cpu_holds(&r, 0, LEN, r.round);
	t_check(t_matches(twin, LEN, round), "the other owner's page was changed");
	t_region_exchange(&r, OFF, SPAN);
	ok(madvise(r.buf.p, LEN, MADV_UNMERGEABLE), "MADV_UNMERGEABLE");
	t_region_exchange(&r, 0, LEN);
}

/* Without a READ between merge and WRITE. */
static void merged_by_ksm_then_written(const void *arg)
{
	u8 *twin = t_map(LEN, ANON, -1);
	struct t_region r;
	u64 round;

	(void)arg;
	open_anonymous(&r, LEN);
	round = r.round;
	t_fill(twin, LEN, round);
	ok(madvise(twin, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	ok(madvise(r.buf.p, LEN, MADV_MERGEABLE), "MADV_MERGEABLE");
	ksm_scan();
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_check(t_matches(twin, LEN, round), "the other owner's page was changed");
}

/* ---- huge pages come and go ---- */

static void collapsed(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct t_region r;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	t_region_open(&r, p, T_HUGE);
	t_region_exchange(&r, 0, T_HUGE);
	t_check(!t_huge_bytes(p), "huge too early");
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	ok(madvise(p, T_HUGE, MADV_COLLAPSE), "MADV_COLLAPSE");
	t_check(t_huge_bytes(p) == T_HUGE, "not huge");
	t_region_read(&r, 0, T_HUGE, r.round);
	t_region_exchange(&r, OFF, SPAN);
	t_region_exchange(&r, T_HUGE - SPAN, SPAN);
}

/* A WRITE is the first access to the collapsed page. */
static void collapsed_then_written(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct t_region r;

	(void)arg;
	ok(madvise(p, T_HUGE, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	t_region_open(&r, p, T_HUGE);
	t_region_write(&r, 0, T_HUGE);
	ok(madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	ok(madvise(p, T_HUGE, MADV_COLLAPSE), "MADV_COLLAPSE");
	t_region_write(&r, 0, T_HUGE);
	t_region_cpu_holds(&r, 0, T_HUGE, r.round);
}

static void open_huge(struct t_region *r, size_t len)
{
	u8 *p = t_map_huge_aligned(len);

	ok(madvise(p, len, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	t_region_open(r, p, len);
	t_region_exchange(r, 0, len);
	t_check(t_huge_bytes(p) == len, "%llu bytes are huge",
		(unsigned long long)t_huge_bytes(p));
}

static void split_by_dontneed(const void *arg)
{
	struct t_region r;
	u64 round;

	(void)arg;
	open_huge(&r, T_HUGE);
	round = r.round;
	ok(madvise(r.buf.p + 5 * T_PAGE, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	t_region_read(&r, 0, 5 * T_PAGE, round);
	t_region_read_zero(&r, 5 * T_PAGE, T_PAGE);
	t_region_read(&r, 6 * T_PAGE, T_HUGE - 6 * T_PAGE, round);
	t_region_exchange(&r, 0, T_HUGE);
}

static void split_by_mprotect(const void *arg)
{
	struct t_region r;
	u64 round;

	(void)arg;
	open_huge(&r, T_HUGE);
	round = r.round;
	ok(mprotect(r.buf.p + 9 * T_PAGE, T_PAGE, PROT_READ), "mprotect");
	t_region_refuses_write(&r, 9 * T_PAGE, 64);
	t_region_read(&r, 0, T_HUGE, round);
	t_region_refuses_write(&r, 9 * T_PAGE + 8, 64);
	t_region_exchange(&r, 0, 9 * T_PAGE);
	t_region_exchange(&r, 10 * T_PAGE, T_HUGE - 10 * T_PAGE);
	t_region_read(&r, 9 * T_PAGE, T_PAGE, round);
}

static void split_by_munmap(const void *arg)
{
	struct t_region r;
	u64 round;

	(void)arg;
	open_huge(&r, T_HUGE);
	round = r.round;
	ok(munmap(r.buf.p + 100 * T_PAGE, 4 * T_PAGE), "munmap");
	t_region_read(&r, 0, 100 * T_PAGE, round);
	t_region_refuses_write(&r, 101 * T_PAGE, 64);
	t_region_refuses_read(&r, 103 * T_PAGE, 64);
	t_region_read(&r, 104 * T_PAGE, T_HUGE - 104 * T_PAGE, round);
	t_region_exchange(&r, 104 * T_PAGE, T_HUGE - 104 * T_PAGE);
}

static void split_by_fork(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_huge(&r, T_HUGE);
	fork_then_rdma_writes(&r, T_HUGE);
}

/* Part of the huge page is replaced by a file: two owners in one leaf. */
static void split_by_another_mapping(const void *arg)
{
	int fd = t_memfd("new", 4 * T_PAGE, 0);
	u8 *file = t_map(4 * T_PAGE, MAP_SHARED, fd);
	size_t at = 64 * T_PAGE;
	struct t_region r;

	(void)arg;
	open_huge(&r, T_HUGE);
	map_over(r.buf.p + at, 4 * T_PAGE, RW, MAP_SHARED, fd);
	t_region_write(&r, 0, T_HUGE);
	t_region_cpu_holds(&r, 0, T_HUGE, r.round);
	t_check(t_matches_at(file, 4 * T_PAGE, at, r.round), "the file was not written");
}

/* Split, then collapsed again, several times. */
static void split_and_collapsed(const void *arg)
{
	struct t_region r;
	int i;

	(void)arg;
	open_huge(&r, T_HUGE);
	for (i = 0; i < 4; i++) {
		ok(madvise(r.buf.p + 7 * T_PAGE, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
		t_region_read_zero(&r, 7 * T_PAGE, T_PAGE);
		t_region_write(&r, 0, T_HUGE);
		t_region_cpu_holds(&r, 0, T_HUGE, r.round);
		ok(madvise(r.buf.p, T_HUGE, MADV_COLLAPSE), "MADV_COLLAPSE");
		t_region_read(&r, 0, T_HUGE, r.round);
		t_region_exchange(&r, OFF, SPAN);
		t_region_exchange(&r, 0, T_HUGE);
	}
}

static void huge_moved(const void *arg)
{
	u8 *new = t_map_huge_aligned(T_HUGE);
	struct t_region r;
	u64 round;

	(void)arg;
	open_huge(&r, T_HUGE);
	round = r.round;
	t_check(mremap(r.buf.p, T_HUGE, T_HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, new) == new,
		"mremap: %s", strerror(errno));
	t_region_refuses_write(&r, 0, 64);
	map_over(r.buf.p, T_HUGE, RW, ANON, -1);
	t_region_write(&r, 0, T_HUGE);
	t_region_cpu_holds(&r, 0, T_HUGE, r.round);
	t_check(t_matches(new, T_HUGE, round), "the moved memory was changed");
}

/* ---- writeback ---- */

static void file_on_disk_holds(int fd, size_t off, size_t len, u64 round)
{
	static u8 copy[LEN];

	t_check(t_write_file("/proc/sys/vm/drop_caches", "3"), "drop_caches");
	t_check(pread(fd, copy, len, off) == (ssize_t)len, "pread: %s", strerror(errno));
	t_check(t_matches_at(copy, len, off, round), "the disk has other bytes");
}

/* Every WRITE reaches the disk, also one to a page that was just cleaned. */
static void written_back(const void *arg)
{
	struct t_region r;
	int fd = t_disk_file(LEN);
	int i;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_SHARED, fd), LEN);
	for (i = 0; i < 4; i++) {
		t_region_write(&r, 0, LEN);
		ok(i & 1 ? msync(r.buf.p, LEN, MS_SYNC) : fsync(fd), "sync");
		t_region_write(&r, OFF, SPAN);
		ok(fsync(fd), "fsync");
		ok(madvise(r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
		file_on_disk_holds(fd, OFF, SPAN, r.round);
		file_on_disk_holds(fd, 0, OFF, r.round - 1);
	}
}

/* Without the help of fsync: unmapping hands the dirtiness over. */
static void unmapped_dirty(const void *arg)
{
	struct t_region r;
	int fd = t_disk_file(LEN);

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_SHARED, fd), LEN);
	t_region_write(&r, 0, LEN);
	ok(fsync(fd), "fsync");
	t_region_read(&r, 0, LEN, r.round);
	t_region_write(&r, OFF, SPAN);
	ok(munmap(r.buf.p, LEN), "munmap");
	ok(fsync(fd), "fsync");
	file_on_disk_holds(fd, OFF, SPAN, r.round);
}

static void disk_file_truncated(const void *arg)
{
	struct t_region r;
	int fd = t_disk_file(LEN);

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_SHARED, fd), LEN);
	t_region_exchange(&r, 0, LEN);
	ok(ftruncate(fd, 2 * T_PAGE), "ftruncate");
	t_region_exchange(&r, 0, 2 * T_PAGE);
	t_region_refuses_write(&r, 2 * T_PAGE, 64);
	t_region_refuses_read(&r, 3 * T_PAGE, 64);
	ok(ftruncate(fd, LEN), "ftruncate");
	t_region_read_zero(&r, 2 * T_PAGE, 4 * T_PAGE);
	t_region_exchange(&r, 0, LEN);
}

/* ---- the owner goes away ---- */

/*
 * The owner of the memory opens everything, forks a keeper that only holds the
 * device open until this test ends, reports, and leaves when told to.
 */
static void owner_body(int report, const int *go, const struct t_addr *peer, bool exec)
{
	struct t_addr mine;
	struct t_buf buf;
	struct t_dev dev;
	struct t_ep ep;
	char byte;

	close(go[1]);
	close(go[3]);
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, NULL);
	t_buf_alloc(&buf, 0, LEN);
	t_reg(&buf, &dev);
	t_ep_connect(&ep, peer);
	t_ep_addr(&ep, &mine);
	mine.addr = buf.iova;
	mine.rkey = buf.mr->rkey;
	t_check(write(report, &mine, sizeof(mine)) == sizeof(mine), "report");
	if (!fork())
		_exit(read(go[2], &byte, 1) < 0);
	if (read(go[0], &byte, 1) != 1)
		_exit(2);
	if (exec)
		execlp("sleep", "sleep", "30", NULL);
	_exit(0);
}

static bool owner_left(pid_t pid, bool exec)
{
	u64 end = t_deadline(10000);
	char path[64], comm[32];
	int status;

	if (!exec)
		return t_wait_exit(pid, 10000, &status) && !status;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	while (t_read_file(path, comm, sizeof(comm)) && t_now_ms() < end) {
		if (!strcmp(comm, "sleep\n"))
			return true;
		t_sleep_ms(5);
	}
	return false;
}

/*
 * The process that owns the memory exits, or executes another program, while
 * its device stays open elsewhere: the memory is no more, and the key must lead
 * nowhere, least of all into the new program. The peer's queue pair gets an
 * error and works again with another partner.
 */
static void owner_leaves(bool exec)
{
	int report[2], go[4], hello[2];
	struct t_buf src, theirs = { 0 };
	struct ibv_mr key = { 0 };
	struct t_addr addr, owner;
	struct t_pair p;
	pid_t pid;

	ok(pipe(report) || pipe(go) || pipe(go + 2) || pipe(hello), "pipe");
	pid = t_fork();
	if (!pid) {
		t_check(read(hello[0], &addr, sizeof(addr)) == sizeof(addr), "address");
		close(hello[1]);
		owner_body(report[1], go, &addr, exec);
	}
	t_pair_open(&p, NULL);
	t_ep_reset(&p.a);
	t_ep_addr(&p.a, &addr);
	t_check(write(hello[1], &addr, sizeof(addr)) == sizeof(addr), "address");
	t_check(read(report[0], &owner, sizeof(owner)) == sizeof(owner), "owner's report");
	t_ep_connect(&p.a, &owner);
	t_buf_alloc(&src, 0, LEN);
	t_reg_pinned(&src, &p.dev);
	t_fill_buf(&src, 1);
	key.rkey = owner.rkey;
	theirs.iova = owner.addr;
	theirs.mr = &key;
	t_expect(t_write(&p.a, &src, 0, &theirs, 0, LEN), IBV_WC_SUCCESS,
		 "WRITE while the owner lives");
	ok(write(go[1], "x", 1) != 1, "pipe to the owner");
	t_check(owner_left(pid, exec), "the owner does not leave");
	t_expect(t_write(&p.a, &src, 0, &theirs, 0, LEN), IBV_WC_REM_ACCESS_ERR,
		 "WRITE after the owner has left");
	t_pair_reconnect(&p);
	t_expect(t_write(&p.a, &src, 0, &src, LEN - 8, 8), IBV_WC_SUCCESS,
		 "WRITE to another partner");
}

static void owner_exits(const void *arg)
{
	(void)arg;
	owner_leaves(false);
}

static void owner_executes(const void *arg)
{
	(void)arg;
	owner_leaves(true);
}

static const struct t_case cases[] = {
	{ "munmap", T_ODP, unmapped, NULL },
	{ "munmap, and other memory at the same place", T_ODP, unmapped_and_mapped_again, NULL },
	{ "munmap of a part", T_ODP, unmapped_in_part, NULL },
	{ "MAP_FIXED of another file, and back", T_ODP, replaced_by_another_file, NULL },
	{ "mremap away and back", T_ODP, moved_by_mremap, NULL },
	{ "mremap away, and other memory at the same place", T_ODP,
	  moved_and_something_else_put_there, NULL },
	{ "mremap into the region", T_ODP, moved_into_the_region, NULL },
	{ "mprotect to none and back", T_ODP, protected_none, NULL },
	{ "mprotect to read-only and back", T_ODP, protected_read, NULL },
	{ "mprotect of parts", T_ODP, protected_in_part, NULL },
	{ "MADV_DONTNEED of anonymous memory", T_ODP, dontneed_anonymous, NULL },
	{ "MADV_DONTNEED of a shared file", T_BOTH, dontneed_shared, NULL },
	{ "MADV_DONTNEED of a private file", T_ODP, dontneed_private_file, NULL },
	{ "MADV_FREE, written before reclaim", T_BOTH, free_then_write, NULL },
	{ "MADV_FREE, read, then written before reclaim", T_BOTH,
	  free_then_read_then_write, NULL },
	{ "MADV_FREE, reclaimed", T_ODP, free_then_reclaimed, NULL },
	{ "truncate", T_ODP, truncated, NULL },
	{ "hole punch", T_ODP, hole_punched, NULL },
	{ "hole punch, then a small WRITE", T_ODP, hole_punched_then_written, NULL },
	{ "truncate of hugetlb", T_ODP, hugetlb_truncated, NULL },
	{ "MADV_DONTNEED and munmap of hugetlb", T_ODP, hugetlb_dropped, NULL },
	{ "MADV_DONTNEED of a hugetlb page, seen by each CPU", T_ODP,
	  hugetlb_dropped_for_each_cpu, NULL },
	{ "fork, then RDMA writes", T_BOTH, forked_rdma_writes, NULL },
	{ "fork, then the parent writes", T_BOTH, forked_parent_writes, NULL },
	{ "fork, then the child writes", T_BOTH, forked_child_writes, NULL },
	{ "fork, then RDMA reads and writes", T_BOTH, forked_read_then_write, NULL },
	{ "many forks", T_BOTH, forked_many_times, NULL },
	{ "swapped out and used", T_ODP, swapped_out, NULL },
	{ "swapped out after a WRITE to what was read in", T_ODP, swapped_after_a_write, NULL },
	{ "swapped out after an atomic", T_ODP, swapped_after_an_atomic, NULL },
	{ "shared memory swapped out", T_ODP, shmem_swapped_out, NULL },
	{ "huge page swapped out", T_ODP, huge_page_swapped_out, NULL },
	{ "page migration", T_ODP, migrated, NULL },
	{ "compaction", T_BOTH, compacted, NULL },
	{ "KSM merge", T_BOTH, merged_by_ksm, NULL },
	{ "KSM merge, then a WRITE", T_BOTH, merged_by_ksm_then_written, NULL },
	{ "collapse into a huge page", T_ODP, collapsed, NULL },
	{ "collapse into a huge page, then a WRITE", T_ODP, collapsed_then_written, NULL },
	{ "huge page split by MADV_DONTNEED of a part", T_ODP, split_by_dontneed, NULL },
	{ "huge page split by mprotect of a part", T_ODP, split_by_mprotect, NULL },
	{ "huge page split by munmap of a part", T_ODP, split_by_munmap, NULL },
	{ "huge page split by fork", T_BOTH, split_by_fork, NULL },
	{ "huge page split by another mapping in it", T_ODP, split_by_another_mapping, NULL },
	{ "huge page split and collapsed in turn", T_ODP, split_and_collapsed, NULL },
	{ "huge page moved by mremap", T_ODP, huge_moved, NULL },
	{ "writeback, then writes to clean pages", T_ODP, written_back, NULL },
	{ "munmap of a dirty file page", T_ODP, unmapped_dirty, NULL },
	{ "truncate of a file on disk", T_ODP, disk_file_truncated, NULL },
	{ "the owner exits, its device stays open", T_ODP, owner_exits, NULL },
	{ "the owner executes another program, its device stays open", T_ODP,
	  owner_executes, NULL },
};

int main(int argc, char **argv)
{
	t_opts.large_packets = true;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
