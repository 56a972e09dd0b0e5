// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * RDMA straight into files: ext4 with its page cache, ext4 on persistent memory
 * without one (FS-DAX), tmpfs and hugetlbfs. What was written is in the file, and on
 * the disk after msync, also the second time; truncate, hole punch and write(2) meet
 * a region in use; a filesystem can be unmounted although a region is left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "t.h"

#define UNITS	4
#define SPAN	(3 * T_PAGE + 7)

/* Pages in the case of hugetlbfs are huge ones. */
struct kind {
	int (*open)(size_t len);
	size_t unit;
};

struct file {
	struct t_region r;
	int fd;
	size_t unit;
	size_t len;
};

static int open_tmpfs(size_t len)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, len))
		t_die("file on tmpfs: %s", strerror(errno));
	return fd;
}

static int open_hugetlbfs(size_t len)
{
	char name[] = "/dev/hugepages/unpin-XXXXXX";
	int fd;

	t_write_file("/proc/sys/vm/nr_hugepages", "8");
	if (t_read_long("/proc/sys/vm/nr_hugepages") < 8)
		t_die("no huge pages to reserve");
	fd = mkstemp(name);
	if (fd < 0 || unlink(name) || ftruncate(fd, len))
		t_die("file on hugetlbfs: %s", strerror(errno));
	return fd;
}

static void open_file(struct file *f, const struct kind *kind)
{
	memset(f, 0, sizeof(*f));
	f->unit = kind->unit;
	f->len = UNITS * f->unit;
	f->fd = kind->open(f->len);
	t_region_open(&f->r, t_map(f->len, MAP_SHARED, f->fd), f->len);
}

static void file_holds(struct file *f, size_t off, size_t len, u64 round)
{
	static u8 copy[64 * T_PAGE];

	t_check(len <= sizeof(copy) && pread(f->fd, copy, len, off) == (ssize_t)len,
		"pread: %s", strerror(errno));
	t_check(t_matches_at(copy, len, off, round), "the file has other bytes at %zu", off);
}

static void write_file(struct file *f, size_t off, size_t len, u64 round)
{
	static u8 copy[64 * T_PAGE];

	t_fill_at(copy, len, off, round);
	t_check(pwrite(f->fd, copy, len, off) == (ssize_t)len, "pwrite: %s", strerror(errno));
}

/* ---- what is written gets to the disk ---- */

static bool in_page_cache(struct file *f)
{
	unsigned char vec[UNITS * 16];
	size_t i;

	t_check(!mincore(f->r.buf.p, f->len, vec), "mincore: %s", strerror(errno));
	for (i = 0; i < f->len / T_PAGE; i++) {
		if (vec[i] & 1)
			return true;
	}
	return false;
}

/* Clean pages go; what is read after that has been on the disk. */
static void drop_caches(struct file *f)
{
	int tries;

	for (tries = 0; tries < 20; tries++) {
		t_check(!madvise(f->r.buf.p, f->len, MADV_DONTNEED), "MADV_DONTNEED");
		t_check(t_write_file("/proc/sys/vm/drop_caches", "3"), "drop_caches");
		if (!in_page_cache(f))
			return;
		t_sleep_ms(50);
	}
	t_check(false, "the pages do not leave the page cache");
}

static void to_disk(struct file *f, bool by_msync)
{
	if (by_msync)
		t_check(!msync(f->r.buf.p, f->len, MS_SYNC), "msync: %s", strerror(errno));
	else
		t_check(!fsync(f->fd), "fsync: %s", strerror(errno));
}

/*
 * A first write makes the page dirty, and writeback makes it clean; a second one,
 * which finds the page, must make it dirty again, or it is lost when the cache goes.
 */
static void reaches_the_disk(struct file *f, bool by_msync)
{
	int times;

	for (times = 0; times < 3; times++) {
		t_region_write(&f->r, 0, f->len);
		to_disk(f, by_msync);
		t_region_write(&f->r, 5, SPAN);
		to_disk(f, by_msync);
		drop_caches(f);
		file_holds(f, 5, SPAN, f->r.round);
		file_holds(f, 0, 5, f->r.round - 1);
		file_holds(f, 5 + SPAN, f->len - 5 - SPAN, f->r.round - 1);
		t_region_read(&f->r, 5, SPAN, f->r.round);
	}
}

static const struct kind disk = { t_disk_file, 2 * T_PAGE };

static void msync_to_disk(const void *arg)
{
	struct file f;

	(void)arg;
	open_file(&f, &disk);
	reaches_the_disk(&f, true);
}

static void fsync_to_disk(const void *arg)
{
	struct file f;

	(void)arg;
	open_file(&f, &disk);
	reaches_the_disk(&f, false);
}

/* Also what a device wrote by an atomic, and what it received. */
static void every_write_reaches_the_disk(const void *arg)
{
	struct t_region *r;
	struct file f;
	u64 word;

	(void)arg;
	open_file(&f, &disk);
	r = &f.r;
	t_region_write(r, 0, f.len);
	to_disk(&f, true);
	t_fill_at(r->scratch.p, SPAN, T_PAGE + 8, ++r->round);
	t_post_recv(&r->pair.b, &r->buf, T_PAGE + 8, SPAN);
	t_expect(t_send(&r->pair.a, &r->scratch, 0, SPAN), IBV_WC_SUCCESS, "SEND");
	t_expect(t_wait(&r->pair.b, NULL), IBV_WC_SUCCESS, "receive");
	to_disk(&f, true);
	t_expect(t_fadd(&r->pair.a, &r->scratch, 0, &r->buf, 0, 1), IBV_WC_SUCCESS, "atomic");
	to_disk(&f, true);
	drop_caches(&f);
	file_holds(&f, T_PAGE + 8, SPAN, r->round);
	t_check(pread(f.fd, &word, 8, 0) == 8, "pread");
	word--;
	t_check(t_matches_at(&word, 8, 0, r->round - 1), "the atomic is not on the disk");
}

/* A new filesystem would begin with the same bytes: it is mounted again. */
static void dax_keeps_it(const void *arg)
{
	const struct kind pmem = { t_pmem_file, 2 * T_PAGE };
	struct file f;

	(void)arg;
	open_file(&f, &pmem);
	t_region_write(&f.r, 0, f.len);
	t_region_write(&f.r, 5, SPAN);
	t_check(!msync(f.r.buf.p, f.len, MS_SYNC), "msync: %s", strerror(errno));
	t_region_write(&f.r, T_PAGE, SPAN);
	t_check(!fsync(f.fd), "fsync: %s", strerror(errno));
	munmap(f.r.buf.p, f.len);
	close(f.fd);
	t_check(!umount(T_DISK_MOUNT), "umount: %s", strerror(errno));
	t_check(!mount(getenv("UNPIN_PMEM"), T_DISK_MOUNT, "ext4", 0, NULL), "mount: %s",
		strerror(errno));
	f.fd = open(T_DISK_MOUNT "/file", O_RDONLY | O_CLOEXEC);
	file_holds(&f, T_PAGE, SPAN, f.r.round);
	file_holds(&f, 5, T_PAGE - 5, f.r.round - 1);
	file_holds(&f, 0, 5, f.r.round - 2);
	file_holds(&f, T_PAGE + SPAN, f.len - T_PAGE - SPAN, f.r.round - 2);
}

/* Which memory of the machine is persistent, as the kernel says. */
static bool is_persistent(u64 pfn)
{
	unsigned long long first, last, address = pfn * T_PAGE;
	char line[256];
	bool found = false;
	FILE *f = fopen("/proc/iomem", "re");

	if (!f)
		t_die("/proc/iomem: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "Persistent Memory") &&
		    sscanf(line, " %llx-%llx", &first, &last) == 2)
			found |= address >= first && address <= last;
	}
	fclose(f);
	return found;
}

/* The device's page is the persistent memory, with nothing in between. */
static void dax_is_the_memory(const void *arg)
{
	size_t len = 8 * T_PAGE;
	struct t_region r;
	int fd = t_pmem_file(len);
	u8 *p, copy[SPAN];

	(void)arg;
	t_check(!posix_fallocate(fd, 0, len), "fallocate");
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
	t_check(p != MAP_FAILED, "mmap with MAP_SYNC: %s", strerror(errno));
	t_region_open(&r, p, len);
	t_region_exchange(&r, T_PAGE - 3, SPAN);
	t_check(pread(fd, copy, SPAN, T_PAGE - 3) == SPAN, "pread: %s", strerror(errno));
	t_check(t_matches_at(copy, SPAN, T_PAGE - 3, r.round), "read(2) sees other bytes");
	t_check(is_persistent(t_pfn(p)), "page frame %#llx is not persistent memory",
		(unsigned long long)t_pfn(p));
	t_region_exchange(&r, 0, len);
}

/* 2 MiB of a file in one piece, which the kernel maps by one entry. */
static void dax_huge(const void *arg)
{
	size_t len = 8 * T_HUGE;
	struct t_region r;
	int fd = t_pmem_file(len);
	u8 *p;

	(void)arg;
	t_check(!posix_fallocate(fd, 0, len), "fallocate");
	p = mmap(t_map_huge_aligned(len), len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 fd, 0);
	t_check(p != MAP_FAILED, "mmap: %s", strerror(errno));
	t_region_open(&r, p, len);
	t_region_exchange(&r, 2 * T_HUGE - 5, SPAN);
	t_region_exchange(&r, 4 * T_HUGE + 77, SPAN);
	t_check(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * T_HUGE, T_HUGE),
		"hole punch: %s", strerror(errno));
	t_region_read_zero(&r, 4 * T_HUGE, SPAN);
	t_region_exchange(&r, 4 * T_HUGE + 77, SPAN);
}

/* ---- the file changes under the region ---- */

static void exchange(const void *arg)
{
	struct file f;

	open_file(&f, arg);
	t_region_exchange(&f.r, 3, SPAN);
	t_region_write(&f.r, f.unit - 5, SPAN);
	file_holds(&f, f.unit - 5, SPAN, f.r.round);
	t_region_exchange(&f.r, f.len - SPAN, SPAN);
	file_holds(&f, f.len - SPAN, SPAN, f.r.round);
}

static void truncated(const void *arg)
{
	size_t behind;
	struct file f;

	open_file(&f, arg);
	behind = (UNITS - 1) * f.unit;
	t_region_write(&f.r, 0, T_PAGE);
	t_region_write(&f.r, behind, T_PAGE);
	t_region_read(&f.r, behind, T_PAGE, f.r.round);
	t_check(!ftruncate(f.fd, behind), "ftruncate: %s", strerror(errno));
	t_region_refuses_read(&f.r, behind, 64);
	t_region_refuses_write(&f.r, behind, 64);
	t_region_read(&f.r, 0, T_PAGE, f.r.round - 1);
	t_check(!ftruncate(f.fd, f.len), "ftruncate: %s", strerror(errno));
	t_region_read_zero(&f.r, behind, T_PAGE);
	t_region_exchange(&f.r, behind, T_PAGE);
	file_holds(&f, behind, T_PAGE, f.r.round);
}

static void punched(const void *arg)
{
	struct file f;
	int times;

	open_file(&f, arg);
	for (times = 0; times < 3; times++) {
		t_region_write(&f.r, 0, T_PAGE);
		t_region_write(&f.r, f.unit, T_PAGE);
		t_region_write(&f.r, 2 * f.unit, T_PAGE);
		t_check(!fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, f.unit,
				   f.unit), "hole punch: %s", strerror(errno));
		t_region_read_zero(&f.r, f.unit, T_PAGE);
		t_region_read(&f.r, 2 * f.unit, T_PAGE, f.r.round);
		t_region_read(&f.r, 0, T_PAGE, f.r.round - 2);
		t_region_write(&f.r, f.unit + 9, SPAN - T_PAGE);
		file_holds(&f, f.unit + 9, SPAN - T_PAGE, f.r.round);
	}
}

/* The file's own calls and RDMA take turns on the same bytes. */
static void written(const void *arg)
{
	struct file f;
	u64 round;

	open_file(&f, arg);
	for (round = 1; round < 4; round++) {
		write_file(&f, 0, f.len, round);
		t_region_read(&f.r, 0, f.len, round);
		t_region_write(&f.r, T_PAGE - 3, SPAN);
		file_holds(&f, T_PAGE - 3, SPAN, f.r.round);
		file_holds(&f, 0, T_PAGE - 3, round);
		write_file(&f, T_PAGE, 100, round + 50);
		t_region_read(&f.r, T_PAGE, 100, round + 50);
		t_region_read(&f.r, T_PAGE + 100, T_PAGE, f.r.round);
		t_region_cpu_holds(&f.r, T_PAGE, 100, round + 50);
	}
}

/* ---- the filesystem goes ---- */

static bool remount_read_only(void)
{
	return !mount(NULL, T_DISK_MOUNT, NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

/* A mapping keeps a filesystem writable, and mounted; a region does not. */
static void unmounted(const void *arg)
{
	struct file f;

	open_file(&f, arg);
	t_region_write(&f.r, 0, f.len);
	t_check(close(f.fd) == 0 && umount(T_DISK_MOUNT) && errno == EBUSY,
		"umount with a mapping: %s", strerror(errno));
	t_region_exchange(&f.r, 5, SPAN);
	t_check(!munmap(f.r.buf.p, f.len), "munmap: %s", strerror(errno));
	t_check(!umount(T_DISK_MOUNT), "umount with a region: %s", strerror(errno));
	t_region_refuses_write(&f.r, 0, 64);
	t_region_refuses_read(&f.r, T_PAGE, 64);
}

static void remounted(const void *arg)
{
	struct file f;

	open_file(&f, arg);
	t_region_write(&f.r, 0, f.len);
	t_check(!close(f.fd), "close");
	t_check(!remount_read_only() && errno == EBUSY, "remounted under a mapping: %s",
		strerror(errno));
	t_region_exchange(&f.r, 5, SPAN);
	t_check(!munmap(f.r.buf.p, f.len), "munmap: %s", strerror(errno));
	t_check(remount_read_only(), "remount with a region: %s", strerror(errno));
	t_region_refuses_write(&f.r, 0, 64);
	f.fd = open(T_DISK_MOUNT "/file", O_RDONLY | O_CLOEXEC);
	t_check(f.fd >= 0, "open: %s", strerror(errno));
	file_holds(&f, 5, SPAN, f.r.round);
	/* where it was, as it may be mapped now: it can be read and not be written */
	t_check(mmap(f.r.buf.p, f.len, PROT_READ, MAP_SHARED | MAP_FIXED, f.fd, 0) ==
		f.r.buf.p, "mmap: %s", strerror(errno));
	t_region_read(&f.r, 5, SPAN, f.r.round);
	t_region_refuses_write(&f.r, 0, 64);
	file_holds(&f, 5, SPAN, f.r.round);
}

static const struct kind pmem = { t_pmem_file, 2 * T_PAGE };
static const struct kind tmpfs = { open_tmpfs, 2 * T_PAGE };
static const struct kind huge = { open_hugetlbfs, T_HUGE };

static const struct t_case cases[] = {
	{ "ext4: what is written is on the disk after msync", T_ODP, msync_to_disk, NULL },
	{ "ext4: and after fsync", T_ODP, fsync_to_disk, NULL },
	{ "ext4: so are receives and atomics", T_ODP, every_write_reaches_the_disk, NULL },
	{ "ext4: both ways", T_ODP, exchange, &disk },
	{ "ext4: truncate", T_ODP, truncated, &disk },
	{ "ext4: hole punch", T_ODP, punched, &disk },
	{ "ext4: write(2)", T_ODP, written, &disk },
	{ "ext4: umount with a region", T_ODP, unmounted, &disk },
	{ "ext4: remount read-only", T_ODP, remounted, &disk },
	{ "DAX: the page is persistent memory", T_ODP, dax_is_the_memory, NULL },
	{ "DAX: huge entries", T_ODP, dax_huge, NULL },
	{ "DAX: what is written stays", T_ODP, dax_keeps_it, NULL },
	{ "DAX: both ways", T_ODP, exchange, &pmem },
	{ "DAX: truncate", T_ODP, truncated, &pmem },
	{ "DAX: hole punch", T_ODP, punched, &pmem },
	{ "DAX: write(2)", T_ODP, written, &pmem },
	{ "DAX: umount with a region", T_ODP, unmounted, &pmem },
	{ "DAX: remount read-only", T_ODP, remounted, &pmem },
	{ "tmpfs: both ways", T_ODP, exchange, &tmpfs },
	{ "tmpfs: truncate", T_ODP, truncated, &tmpfs },
	{ "tmpfs: hole punch", T_ODP, punched, &tmpfs },
	{ "tmpfs: write(2)", T_ODP, written, &tmpfs },
	{ "hugetlbfs: both ways", T_ODP, exchange, &huge },
	{ "hugetlbfs: truncate", T_ODP, truncated, &huge },
	{ "hugetlbfs: hole punch", T_ODP, punched, &huge },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
