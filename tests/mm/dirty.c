// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a device wrote is not lost: a page that is writable and clean for the CPU, and
 * written by the device alone, is written back, swapped, and kept where clean pages are
 * dropped. What is dropped on purpose is gone.
 *
 * A file's page on a disk is read-only for the CPU while it is clean: the device's
 * fault makes it writable and dirty, and writeback makes it clean again, after it has
 * taken the translation away. Anonymous and shared memory can be writable and clean at
 * once; there nothing but the entry's DIRTY tells.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define PAGES		4
#define LEN		(PAGES * T_PAGE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

#define ok(call, what)	t_check(!(call), "%s: %s", what, strerror(errno))

/**
 * struct scene - memory that the device writes to
 * @dma: the engine
 * @space: of @p, with a table or without
 * @plain: of @scratch
 * @p: memory
 * @scratch: LEN bytes
 */
struct scene {
	int dma;
	u32 space;
	u32 plain;
	u8 *p;
	u8 *scratch;
};

static void open_on(struct scene *s, u8 *p, bool table)
{
	s->p = p;
	s->scratch = t_map(LEN, ANON, -1);
	s->dma = t_dma_open();
	s->plain = t_dma_attach(s->dma);
	s->space = table ? t_dma_attach_all(s->dma) : t_dma_attach(s->dma);
}

static void device_writes(struct scene *s, size_t len, u64 round)
{
	int status;

	t_fill(s->scratch, len, round);
	status = t_dma_copy(s->dma, (struct t_place){ s->space, s->p },
			    (struct t_place){ s->plain, s->scratch }, len);
	t_check(!status, "copy: %s", strerror(-status));
}

/* So that the table, or the mirror, has the pages, before the CPU's bits are looked at. */
static void device_reads(struct scene *s, size_t len, u64 round)
{
	int status = t_dma_copy(s->dma, (struct t_place){ s->plain, s->scratch },
				(struct t_place){ s->space, s->p }, len);

	t_check(!status, "copy: %s", strerror(-status));
	t_check(t_matches(s->scratch, len, round), "the device reads other bytes");
}

static void all_clean(const u8 *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += T_PAGE)
		t_check(!t_page_dirty(p + i), "page %zu is dirty: not what this is about",
			i / T_PAGE);
}

/* ---- a file on a disk ---- */

/* Past the page cache, and without touching a mapping. */
static void disk_holds(int fd, size_t len, u64 round)
{
	static u8 copy[LEN] __attribute__((aligned(T_PAGE)));
	char path[64];
	int direct;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	t_check(direct >= 0, "O_DIRECT: %s", strerror(errno));
	t_check(pread(direct, copy, len, 0) == (ssize_t)len, "pread: %s", strerror(errno));
	close(direct);
	t_check(t_matches(copy, len, round), "the disk has other bytes");
}

static void sync_msync(struct scene *s, int fd)
{
	(void)fd;
	ok(msync(s->p, LEN, MS_SYNC), "msync");
}

static void sync_fsync(struct scene *s, int fd)
{
	(void)s;
	ok(fsync(fd), "fsync");
}

static void sync_all(struct scene *s, int fd)
{
	(void)s;
	(void)fd;
	sync();
}

/* Round after round: each time the page is clean when the device comes. */
static void written_back(const void *arg)
{
	static void (*const syncs[])(struct scene *s, int fd) = {
		sync_msync, sync_fsync, sync_all, sync_msync,
	};
	int fd = t_disk_file(LEN);
	struct scene s;
	u64 i;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), arg);
	for (i = 0; i < 2 * T_ARRAY_SIZE(syncs); i++) {
		device_writes(&s, LEN, 10 + i);
		syncs[i % T_ARRAY_SIZE(syncs)](&s, fd);
		all_clean(s.p, LEN);
		disk_holds(fd, LEN, 10 + i);
		/* has it for reading at most */
		if (i & 1)
			device_reads(&s, LEN, 10 + i);
	}
	ok(madvise(s.p, LEN, MADV_DONTNEED), "MADV_DONTNEED");
	t_check(t_write_file("/proc/sys/vm/drop_caches", "3"), "drop_caches");
	t_check(t_matches(s.p, LEN, 10 + i - 1), "other bytes come from the disk");
}

/* Nothing but the end of the mapping tells the file. */
static void unmapped(const void *arg)
{
	static u8 copy[LEN];
	int fd = t_disk_file(LEN);
	struct scene s;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), arg);
	device_writes(&s, LEN, 20);
	ok(fsync(fd), "fsync");
	device_writes(&s, LEN, 21);
	ok(munmap(s.p, LEN), "munmap");
	ok(fsync(fd), "fsync");
	disk_holds(fd, LEN, 21);
	t_check(t_write_file("/proc/sys/vm/drop_caches", "3"), "drop_caches");
	t_check(pread(fd, copy, LEN, 0) == LEN && t_matches(copy, LEN, 21), "other bytes");
}

struct syncer {
	pthread_t thread;
	int fd;
	bool stop;
};

static void *sync_on(void *arg)
{
	struct syncer *syncer = arg;

	while (!__atomic_load_n(&syncer->stop, __ATOMIC_RELAXED))
		fsync(syncer->fd);
	return NULL;
}

/* The device is in the middle of the page when writeback comes for it. */
static void written_back_meanwhile(const void *arg)
{
	struct syncer syncer = { .fd = t_disk_file(LEN) };
	struct mirror_dma_copy copy = { .length = LEN, .hold_us = 3000 };
	struct scene s;
	u64 round;

	open_on(&s, t_map(LEN, MAP_SHARED, syncer.fd), arg);
	copy.src = (uintptr_t)s.scratch;
	copy.src_space = s.plain;
	copy.dst = (uintptr_t)s.p;
	copy.dst_space = s.space;
	t_check(!pthread_create(&syncer.thread, NULL, sync_on, &syncer), "thread");
	for (round = 30; round < 60; round++) {
		t_fill(s.scratch, LEN, round);
		t_check(!t_dma_do(s.dma, &copy, NULL), "copy");
		ok(fsync(syncer.fd), "fsync");
		disk_holds(syncer.fd, LEN, round);
	}
	__atomic_store_n(&syncer.stop, true, __ATOMIC_RELAXED);
	pthread_join(syncer.thread, NULL);
}

/* What the device wrote is thrown away, with the page that it wrote to. */
static void truncated(const void *arg)
{
	static const u8 zero[LEN];
	static u8 copy[LEN] __attribute__((aligned(T_PAGE)));
	int fd = t_disk_file(LEN);
	struct scene s;
	u8 kept[T_PAGE];
	int held;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), arg);
	device_writes(&s, LEN, 70);
	held = t_pipe_hold_page(fd, T_PAGE);
	ok(ftruncate(fd, 0), "ftruncate");
	t_check(t_dma_copy(s.dma, (struct t_place){ s.space, s.p },
			   (struct t_place){ s.plain, s.scratch }, 64) == -EFAULT,
		"a copy beyond the end of the file");
	ok(ftruncate(fd, LEN), "ftruncate");
	t_check(!memcmp(s.p, zero, LEN), "the CPU reads what was dropped");
	ok(fsync(fd), "fsync");
	t_check(pread(fd, copy, LEN, 0) == LEN && !memcmp(copy, zero, LEN),
		"the file has what was dropped");
	/* the page itself has gone another way, with its bytes */
	t_pipe_read_page(held, kept);
	t_check(t_matches_at(kept, T_PAGE, T_PAGE, 70), "the dropped page has changed");
	device_writes(&s, LEN, 71);
	ok(fsync(fd), "fsync");
	disk_holds(fd, LEN, 71);
}

/* ---- writable and clean ---- */

static void read_by_cpu(const u8 *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += T_PAGE)
		(void)*(volatile const u8 *)(p + i);
}

/* What comes from swap for reading is clean, and has its place there still. */
static void swapped_in(const void *arg)
{
	struct scene s;
	u64 round;

	open_on(&s, t_map(LEN, ANON, -1), arg);
	t_fill(s.p, LEN, 79);
	for (round = 80; round < 84; round++) {
		t_check(t_pageout(s.p, LEN), "the pages stay");
		t_check(t_page_swapped(s.p), "the page is not in swap");
		read_by_cpu(s.p, LEN);
		all_clean(s.p, LEN);
		device_writes(&s, LEN, round);
		t_check(t_pageout(s.p, LEN), "the pages stay");
		t_check(t_matches(s.p, LEN, round), "lost by swapping");
	}
}

/* The same with the device's own translation made by reading, before it writes. */
static void swapped_in_by_device(const void *arg)
{
	struct scene s;
	u64 round;

	open_on(&s, t_map(LEN, ANON, -1), arg);
	t_fill(s.p, LEN, 79);
	for (round = 80; round < 84; round++) {
		t_check(t_pageout(s.p, LEN), "the pages stay");
		device_reads(&s, LEN, round - 1);
		all_clean(s.p, LEN);
		device_writes(&s, LEN, round);
		t_check(t_pageout(s.p, LEN), "the pages stay");
		t_check(t_matches(s.p, LEN, round), "lost by swapping");
	}
}

/* A hole of a shared file that was looked at. */
static void shared_hole(const void *arg)
{
	int fd = t_memfd("hole", LEN, 0);
	static u8 copy[LEN];
	struct scene s;

	open_on(&s, t_map(LEN, MAP_SHARED, fd), arg);
	read_by_cpu(s.p, LEN);
	all_clean(s.p, LEN);
	device_writes(&s, LEN, 90);
	t_check(t_pageout(s.p, LEN), "the pages stay");
	t_check(t_matches(s.p, LEN, 90), "lost by swapping");
	device_writes(&s, LEN, 91);
	ok(munmap(s.p, LEN), "munmap");
	t_check(pread(fd, copy, LEN, 0) == LEN && t_matches(copy, LEN, 91), "lost by munmap");
}

/* Pages that the kernel may drop, until they are written to. */
static void set_free(const void *arg)
{
	struct scene s;

	open_on(&s, t_map(LEN, ANON, -1), arg);
	t_fill(s.p, LEN, 92);
	ok(madvise(s.p, LEN, MADV_FREE), "MADV_FREE");
	all_clean(s.p, LEN);
	device_writes(&s, LEN, 93);
	t_check(t_pageout(s.p, LEN), "the pages stay");
	t_check(t_matches(s.p, LEN, 93), "dropped as if it was free");
}

static void set_free_huge(const void *arg)
{
	struct scene s;

	open_on(&s, t_map_huge_aligned(T_HUGE), arg);
	ok(madvise(s.p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	t_fill(s.p, T_HUGE, 94);
	t_check(t_huge_bytes(s.p) == T_HUGE, "not huge");
	ok(madvise(s.p, T_HUGE, MADV_FREE), "MADV_FREE");
	t_check(t_huge_bytes(s.p) == T_HUGE, "not huge any more");
	all_clean(s.p, T_HUGE);
	device_writes(&s, LEN, 95);
	t_check(t_pageout(s.p, T_HUGE), "the pages stay");
	t_check(t_matches(s.p, LEN, 95), "dropped as if it was free");
	t_check(t_matches_at(s.p + LEN, T_HUGE - LEN, LEN, 94),
		"of a page that was written to a part was dropped");
}

/* The control: what nobody wrote to is dropped. */
static void only_read(const void *arg)
{
	struct scene s;

	open_on(&s, t_map(LEN, ANON, -1), arg);
	t_fill(s.p, LEN, 96);
	ok(madvise(s.p, LEN, MADV_FREE), "MADV_FREE");
	device_reads(&s, LEN, 96);
	all_clean(s.p, LEN);
	/* a page that waits in a per-CPU list has a reference more, and is kept for that */
	t_drain_lru();
	t_check(t_pageout(s.p, LEN), "the pages stay");
	t_check(t_all_zero(s.p, LEN), "not dropped, though it was only read");
}

/* The argument is whether there is a table. */
#define BOTH(name, run)							\
	{ name, T_DMA, run, NULL },					\
	{ name ", with a table", T_DMA, run, "" }

static const struct t_case cases[] = {
	BOTH("disk: written back, again and again", written_back),
	BOTH("disk: unmapped", unmapped),
	BOTH("disk: written back meanwhile", written_back_meanwhile),
	BOTH("disk: truncated", truncated),
	BOTH("clean and writable: swapped in by the CPU", swapped_in),
	BOTH("clean and writable: swapped in by the device", swapped_in_by_device),
	BOTH("clean and writable: a hole of shared memory", shared_hole),
	BOTH("clean and writable: MADV_FREE", set_free),
	BOTH("clean and writable: MADV_FREE of a huge page", set_free_huge),
	BOTH("clean and only read: MADV_FREE", only_read),
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
