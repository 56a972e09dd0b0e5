// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Transfers to and from every kind of memory a process may register: what was
 * written is what the other side and the CPU see, in the mapping and in the
 * file behind it, and never in what merely shares a page until it is written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "t.h"

#define LEN	(8 * T_PAGE)
#define OFF	(T_PAGE - 3)
#define SPAN	(3 * T_PAGE + 7)

#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

static u8 data_segment[LEN] __attribute__((aligned(4096))) = { 1 };

static void use(void *p, size_t len)
{
	struct t_region r;

	t_region_open(&r, p, len);
	t_region_exchange(&r, OFF, SPAN);
	t_region_exchange(&r, 0, LEN);
	t_region_exchange(&r, OFF, SPAN);
	t_dereg(&r.buf);
}

static void private_anonymous(const void *arg)
{
	(void)arg;
	use(t_map(LEN, ANON, -1), LEN);
}

static void shared_anonymous(const void *arg)
{
	(void)arg;
	use(t_map(LEN, MAP_SHARED | MAP_ANONYMOUS, -1), LEN);
}

static void locked(const void *arg)
{
	u8 *p = t_map(LEN, ANON, -1);

	(void)arg;
	t_check(!mlock(p, LEN), "mlock: %s", strerror(errno));
	use(p, LEN);
}

static void data_of_the_program(const void *arg)
{
	(void)arg;
	use(data_segment, LEN);
}

static void stack(const void *arg)
{
	u8 local[LEN + 64];

	(void)arg;
	use(local + 5, LEN);
}

static void heap(const void *arg)
{
	(void)arg;
	use(sbrk(LEN), LEN);
}

static void system_v(const void *arg)
{
	int id = shmget(IPC_PRIVATE, LEN, IPC_CREAT | 0600);
	void *p;

	(void)arg;
	t_check(id >= 0, "shmget: %s", strerror(errno));
	p = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	t_check(p != (void *)-1, "shmat: %s", strerror(errno));
	use(p, LEN);
}

static void file_holds(int fd, size_t off, size_t len, u64 round)
{
	static u8 copy[LEN];

	t_check(pread(fd, copy, len, off) == (ssize_t)len, "pread: %s", strerror(errno));
	t_check(t_matches_at(copy, len, off, round), "the file has other bytes");
}

static void fill_file(int fd, u64 round)
{
	static u8 page[LEN];

	t_fill(page, LEN, round);
	t_check(pwrite(fd, page, LEN, 0) == LEN, "pwrite: %s", strerror(errno));
}

/* Both ways between the file's own calls and RDMA through its mapping. */
static void use_shared_file(int fd)
{
	struct t_region r;

	fill_file(fd, 7);
	t_region_open(&r, t_map(LEN, MAP_SHARED, fd), LEN);
	t_region_read(&r, OFF, SPAN, 7);
	t_region_write(&r, OFF, SPAN);
	file_holds(fd, OFF, SPAN, r.round);
	file_holds(fd, 0, OFF, 7);
	file_holds(fd, OFF + SPAN, LEN - OFF - SPAN, 7);
	fill_file(fd, 8);
	t_region_read(&r, 0, LEN, 8);
	t_region_exchange(&r, 1, LEN - 1);
	file_holds(fd, 1, LEN - 1, r.round);
}

static void memfd_shared(const void *arg)
{
	(void)arg;
	use_shared_file(t_memfd("kind", LEN, 0));
}

static void disk_file_shared(const void *arg)
{
	(void)arg;
	use_shared_file(t_disk_file(LEN));
}

/* Reads come from the page cache; a write makes a page of one's own. */
static void use_private_file(int fd)
{
	struct t_region r;

	fill_file(fd, 7);
	t_region_open(&r, t_map(LEN, MAP_PRIVATE, fd), LEN);
	t_region_read(&r, 0, LEN, 7);
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_region_cpu_holds(&r, 0, OFF, 7);
	t_region_cpu_holds(&r, OFF + SPAN, LEN - OFF - SPAN, 7);
	file_holds(fd, 0, LEN, 7);
	t_region_exchange(&r, OFF, SPAN);
	file_holds(fd, 0, LEN, 7);
}

static void memfd_private(const void *arg)
{
	(void)arg;
	use_private_file(t_memfd("kind", LEN, 0));
}

static void disk_file_private(const void *arg)
{
	(void)arg;
	use_private_file(t_disk_file(LEN));
}

/* What the CPU never touched in a private mapping follows the file. */
static void private_file_follows_until_written(const void *arg)
{
	int fd = t_memfd("kind", LEN, 0);
	struct t_region r;

	(void)arg;
	fill_file(fd, 7);
	t_region_open(&r, t_map(LEN, MAP_PRIVATE, fd), LEN);
	t_region_read(&r, 0, LEN, 7);
	fill_file(fd, 8);
	t_region_read(&r, 0, LEN, 8);
	t_region_write(&r, 0, T_PAGE);
	fill_file(fd, 9);
	t_region_read(&r, T_PAGE, LEN - T_PAGE, 9);
	t_region_read(&r, 0, T_PAGE, r.round);
}

static void zero_page(const void *arg)
{
	struct t_region r;
	u8 *other = t_map(LEN, ANON, -1);

	(void)arg;
	t_region_open(&r, t_map(LEN, ANON, -1), LEN);
	t_region_read_zero(&r, 0, LEN);
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_check(t_all_zero(r.buf.p, OFF), "bytes before what was written");
	t_check(t_all_zero(r.buf.p + OFF + SPAN, LEN - OFF - SPAN),
		"bytes after what was written");
	t_check(t_all_zero(other, LEN), "untouched memory elsewhere is not zero: "
		"the zero page was written");
}

static void zero_page_then_cpu(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(LEN, ANON, -1), LEN);
	t_region_read_zero(&r, 0, LEN);
	t_fill(r.buf.p, LEN, 3);
	t_region_read(&r, 0, LEN, 3);
}

static u8 *read_only(u64 round)
{
	u8 *p = t_map(LEN, ANON, -1);

	t_fill(p, LEN, round);
	t_check(!mprotect(p, LEN, PROT_READ), "mprotect: %s", strerror(errno));
	return p;
}

static void read_only_memory(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_region_open_access(&r, read_only(5), LEN, IBV_ACCESS_REMOTE_READ);
	t_region_read(&r, 0, LEN, 5);
	t_region_read(&r, OFF, SPAN, 5);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE to a region registered for reading");
	t_pair_reconnect(&r.pair);
	t_expect(t_write(&r.pair.a, &r.buf, OFF, &r.scratch, 0, SPAN), IBV_WC_SUCCESS,
		 "WRITE out of read-only memory");
	t_check(t_matches_at(r.scratch.p, SPAN, OFF, 5), "wrong bytes");
	t_region_cpu_holds(&r, 0, LEN, 5);
}

/* Registered for more than the mapping gives: the mapping decides. */
static void read_only_memory_with_all_rights(const void *arg)
{
	struct t_region r;
	u8 *p = read_only(5);

	(void)arg;
	t_region_open(&r, p, LEN);
	t_region_refuses_write(&r, T_PAGE, 64);
	t_region_read(&r, 0, LEN, 5);
	t_region_refuses_write(&r, T_PAGE, 64);
	t_region_cpu_holds(&r, 0, LEN, 5);
	t_check(!mprotect(p, LEN, PROT_READ | PROT_WRITE), "mprotect: %s", strerror(errno));
	t_region_exchange(&r, 0, LEN);
}

static void read_only_file(const void *arg)
{
	int fd = t_memfd("kind", LEN, 0);
	struct t_region r;
	void *p;

	(void)arg;
	fill_file(fd, 7);
	p = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
	t_check(p != MAP_FAILED, "mmap: %s", strerror(errno));
	t_region_open(&r, p, LEN);
	t_region_read(&r, OFF, SPAN, 7);
	t_region_refuses_write(&r, 0, T_PAGE);
	file_holds(fd, 0, LEN, 7);
	fill_file(fd, 8);
	t_region_read(&r, 0, LEN, 8);
}

static void beyond_the_end_of_file(const void *arg)
{
	int fd = t_memfd("kind", LEN, 0);
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(2 * LEN, MAP_SHARED, fd), 2 * LEN);
	t_region_exchange(&r, 0, LEN);
	t_region_refuses_read(&r, LEN, 64);
	t_region_refuses_write(&r, LEN + T_PAGE, 64);
	t_check(!ftruncate(fd, 2 * LEN), "ftruncate: %s", strerror(errno));
	t_region_exchange(&r, LEN, LEN);
}

/* A hole in the middle: what is around it works, a message across it fails. */
static void hole_in_the_region(const void *arg)
{
	struct t_region r;
	u8 *p = t_map(LEN, ANON, -1);

	(void)arg;
	t_check(!munmap(p + 3 * T_PAGE, T_PAGE), "munmap: %s", strerror(errno));
	t_region_open(&r, p, LEN);
	t_region_exchange(&r, 0, 3 * T_PAGE);
	t_region_exchange(&r, 4 * T_PAGE, 4 * T_PAGE);
	t_region_refuses_write(&r, 3 * T_PAGE, T_PAGE);
	t_region_refuses_read(&r, 3 * T_PAGE + 9, 100);
	t_fill_at(p + 4 * T_PAGE, 4 * T_PAGE, 4 * T_PAGE, 77);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, LEN), IBV_WC_REM_ACCESS_ERR,
		 "WRITE across the hole");
	t_pair_reconnect(&r.pair);
	t_region_cpu_holds(&r, 4 * T_PAGE, 4 * T_PAGE, 77);
	t_region_exchange(&r, 4 * T_PAGE, 4 * T_PAGE);
}

static u8 *huge_memory(void)
{
	u8 *p = t_map_huge_aligned(2 * T_HUGE);

	t_check(!madvise(p, 2 * T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE: %s", strerror(errno));
	return p;
}

static void use_huge(u8 *p)
{
	struct t_region r;

	t_region_open(&r, p, 2 * T_HUGE);
	t_region_exchange(&r, OFF, SPAN);
	t_region_exchange(&r, T_HUGE - 5, 5 * T_PAGE);
	t_region_exchange(&r, 2 * T_HUGE - T_PAGE - 1, T_PAGE + 1);
	t_region_exchange(&r, 77, T_HUGE);
	t_dereg(&r.buf);
}

/* In a huge page that the CPU made, the mirror has one word for 2 MiB. */
static void transparent_huge(const void *arg)
{
	u8 *p = huge_memory();
	long before = t_stat("huge_leaves");
	struct t_region r;

	(void)arg;
	memset(p, 1, 2 * T_HUGE);
	t_check(t_huge_bytes(p) == 2 * T_HUGE, "the kernel made %llu bytes huge",
		(unsigned long long)t_huge_bytes(p));
	use_huge(p);
	t_region_open(&r, p, 2 * T_HUGE);
	t_region_exchange(&r, 0, LEN);
	if (t_opts.odp)
		t_check(t_stat("huge_leaves") > before, "no huge leaf: %ld before, %ld now",
			before, t_stat("huge_leaves"));
}

static void huge_by_the_device(const void *arg)
{
	u8 *p = huge_memory();
	struct t_region r;

	(void)arg;
	t_region_open(&r, p, 2 * T_HUGE);
	t_region_write(&r, OFF, SPAN);
	t_check(t_huge_bytes(p), "the device's fault did not make a huge page");
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_check(t_all_zero(p, OFF), "bytes before what was written");
	t_check(t_all_zero(p + OFF + SPAN, T_HUGE - OFF - SPAN),
		"bytes after what was written");
	t_region_exchange(&r, T_HUGE - 5, 5 * T_PAGE);
}

static void huge_zero_page(const void *arg)
{
	u8 *p = huge_memory(), *other = huge_memory();
	struct t_region r;

	(void)arg;
	t_check(!other[T_HUGE], "fresh memory is not zero");
	t_region_open(&r, p, 2 * T_HUGE);
	t_region_read_zero(&r, 0, T_HUGE);
	t_region_write(&r, OFF, SPAN);
	t_region_cpu_holds(&r, OFF, SPAN, r.round);
	t_check(t_all_zero(p, OFF), "bytes before what was written");
	t_check(t_all_zero(p + OFF + SPAN, T_HUGE - OFF - SPAN),
		"bytes after what was written");
	t_check(t_all_zero(other, 2 * T_HUGE),
		"untouched memory elsewhere is not zero: the huge zero page was written");
}

static void reserve_hugetlb(void)
{
	if (t_read_long("/proc/sys/vm/nr_hugepages") < 4)
		t_write_file("/proc/sys/vm/nr_hugepages", "4");
	t_check(t_read_long("/proc/sys/vm/nr_hugepages") >= 4, "no huge pages to reserve");
}

static void hugetlb_private(const void *arg)
{
	(void)arg;
	reserve_hugetlb();
	use_huge(t_map(2 * T_HUGE, ANON | MAP_HUGETLB, -1));
}

static void hugetlb_shared(const void *arg)
{
	int fd;

	(void)arg;
	reserve_hugetlb();
	fd = t_memfd("huge", 2 * T_HUGE, MFD_HUGETLB);
	use_huge(t_map(2 * T_HUGE, MAP_SHARED, fd));
}

static void huge_shmem(const void *arg)
{
	int fd = t_memfd("kind", 2 * T_HUGE, 0);
	u8 *p;

	(void)arg;
	p = mmap(t_map_huge_aligned(2 * T_HUGE), 2 * T_HUGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, fd, 0);
	t_check(p != MAP_FAILED, "mmap: %s", strerror(errno));
	memset(p, 1, 2 * T_HUGE);
	if (madvise(p, 2 * T_HUGE, 25 /* MADV_COLLAPSE */))
		t_diag("MADV_COLLAPSE of shmem: %s", strerror(errno));
	use_huge(p);
}

static const struct t_case cases[] = {
	{ "private anonymous memory", T_BOTH, private_anonymous, NULL },
	{ "shared anonymous memory", T_BOTH, shared_anonymous, NULL },
	{ "locked memory", T_BOTH, locked, NULL },
	{ "data segment of the program", T_BOTH, data_of_the_program, NULL },
	{ "stack", T_BOTH, stack, NULL },
	{ "heap", T_BOTH, heap, NULL },
	{ "System V shared memory", T_BOTH, system_v, NULL },
	{ "tmpfs file, shared", T_BOTH, memfd_shared, NULL },
	{ "tmpfs file, private", T_BOTH, memfd_private, NULL },
	{ "ext4 file, shared", T_ODP, disk_file_shared, NULL },
	{ "ext4 file, private", T_BOTH, disk_file_private, NULL },
	{ "a private file page follows the file until it is written", T_ODP,
	  private_file_follows_until_written, NULL },
	{ "the zero page is read and never written", T_BOTH, zero_page, NULL },
	{ "the zero page gives way to the CPU's write", T_BOTH, zero_page_then_cpu, NULL },
	{ "read-only memory, registered for reading", T_BOTH, read_only_memory, NULL },
	{ "read-only memory, registered for everything", T_ODP,
	  read_only_memory_with_all_rights, NULL },
	{ "read-only file mapping", T_ODP, read_only_file, NULL },
	{ "beyond the end of the file", T_ODP, beyond_the_end_of_file, NULL },
	{ "a hole in the region", T_ODP, hole_in_the_region, NULL },
	{ "transparent huge pages", T_BOTH, transparent_huge, NULL },
	{ "transparent huge page made by the device's fault", T_BOTH, huge_by_the_device, NULL },
	{ "the huge zero page is read and never written", T_BOTH, huge_zero_page, NULL },
	{ "huge pages of shmem", T_BOTH, huge_shmem, NULL },
	{ "hugetlb, private", T_BOTH, hugetlb_private, NULL },
	{ "hugetlb, shared", T_BOTH, hugetlb_shared, NULL },
};

int main(int argc, char **argv)
{
	t_opts.large_packets = true;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
