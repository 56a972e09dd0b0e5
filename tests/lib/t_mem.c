// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Buffers with canaries on both sides, and what the kernel says about pages. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define CANARY_ROUND	0xcafeULL
#define PM_PRESENT	(1ULL << 63)
#define PM_SWAPPED	(1ULL << 62)
#define PM_PFN		((1ULL << 55) - 1)
#define KPF_DIRTY	(1ULL << 4)

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

/*
 * Far from where the kernel puts mappings by itself: nothing, such as the rings
 * of a new queue pair, moves into the hole that a test makes by unmapping. The
 * gap keeps mappings from merging.
 */
static void *claim_addresses(size_t len, size_t align)
{
	static u64 next = 0x200000000000ULL;
	u64 size = round_up(len, align) + align;
	u64 end = __atomic_add_fetch(&next, size + align, __ATOMIC_RELAXED);

	return (void *)(uintptr_t)round_up(end - size - align, align);
}

static void *map_at(void *at, size_t len, int flags, int fd)
{
	void *p = mmap(at, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, 0);

	if (p != at)
		t_die("mmap of %zu bytes: %s", len, strerror(errno));
	return p;
}

void *t_map(size_t len, int flags, int fd)
{
	return map_at(claim_addresses(len, len < T_HUGE ? T_PAGE : T_HUGE), len, flags, fd);
}

void *t_map_huge_aligned(size_t len)
{
	return map_at(claim_addresses(len, T_HUGE), len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

void t_buf_alloc(struct t_buf *b, size_t offset, size_t len)
{
	memset(b, 0, sizeof(*b));
	b->map_len = round_up(offset + len, T_PAGE) + 2 * T_PAGE;
	b->map = t_map(b->map_len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	b->p = b->map + T_PAGE + offset;
	b->len = len;
	b->iova = (uintptr_t)b->p;
	t_buf_guard(b);
}

void t_buf_wrap(struct t_buf *b, void *p, size_t len)
{
	memset(b, 0, sizeof(*b));
	b->map = p;
	b->map_len = len;
	b->p = p;
	b->len = len;
	b->iova = (uintptr_t)p;
}

void t_buf_free(struct t_buf *b)
{
	t_dereg(b);
	if (munmap(b->map, b->map_len))
		t_die("munmap: %s", strerror(errno));
	memset(b, 0, sizeof(*b));
}

void t_buf_guard(const struct t_buf *b)
{
	size_t before = b->p - b->map;
	size_t end = before + b->len;

	t_fill_at(b->map, before, 0, CANARY_ROUND);
	t_fill_at(b->map + end, b->map_len - end, end, CANARY_ROUND);
}

void t_buf_guard_check(const struct t_buf *b, const char *what)
{
	size_t before = b->p - b->map;
	size_t end = before + b->len;

	t_check(t_matches_at(b->map, before, 0, CANARY_ROUND),
		"%s: the bytes before the buffer changed", what);
	t_check(t_matches_at(b->map + end, b->map_len - end, end, CANARY_ROUND),
		"%s: the bytes after the buffer changed", what);
}

void t_fill_buf(const struct t_buf *b, u64 round)
{
	t_fill(b->p, b->len, round);
}

void t_check_buf(const struct t_buf *b, u64 round, const char *what)
{
	t_check(t_matches(b->p, b->len, round), "%s: wrong bytes", what);
	t_buf_guard_check(b, what);
}

int t_memfd(const char *name, size_t len, unsigned int flags)
{
	int fd = memfd_create(name, MFD_CLOEXEC | flags);

	if (fd < 0)
		t_die("memfd_create: %s", strerror(errno));
	if (ftruncate(fd, len))
		t_die("ftruncate: %s", strerror(errno));
	return fd;
}

u64 t_pagemap(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	u64 entry;

	if (fd < 0)
		t_die("pagemap: %s", strerror(errno));
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)p / T_PAGE * 8) != 8)
		t_die("pagemap: %s", strerror(errno));
	close(fd);
	return entry;
}

bool t_page_present(const void *p)
{
	return t_pagemap(p) & PM_PRESENT;
}

bool t_all_present(const void *p, size_t len)
{
	const u8 *page = (const u8 *)((uintptr_t)p & -T_PAGE), *end = (const u8 *)p + len;

	for (; page < end; page += T_PAGE) {
		if (!t_page_present(page))
			return false;
	}
	return true;
}

bool t_page_swapped(const void *p)
{
	return t_pagemap(p) & PM_SWAPPED;
}

u64 t_pfn(const void *p)
{
	u64 entry = t_pagemap(p);

	return entry & PM_PRESENT ? entry & PM_PFN : 0;
}

/* What the kernel says of the page itself, whatever a page table says. */
bool t_page_dirty(const void *p)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	u64 flags = 0, pfn = t_pfn(p);

	if (fd < 0)
		t_die("kpageflags: %s", strerror(errno));
	if (!pfn || pread(fd, &flags, sizeof(flags), pfn * 8) != 8)
		t_die("no page, or no flags: %s", strerror(errno));
	close(fd);
	return flags & KPF_DIRTY;
}

/* New pages wait in per-CPU lists, which have a reference: put them on the LRU. */
void t_drain_lru(void)
{
	u8 *p = t_map_huge_aligned(T_HUGE);

	p[0] = 1;
	madvise(p, T_HUGE, MADV_COLLAPSE);
	munmap(p, T_HUGE);
}

static bool any_present(const u8 *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += T_PAGE) {
		if (t_page_present(p + i))
			return true;
	}
	return false;
}

/*
 * Reclaim the range now. Pages still in another CPU's LRU batch are not
 * isolated: drop_caches drains these batches.
 */
bool t_pageout(void *p, size_t len)
{
	int tries;

	for (tries = 0; tries < 40; tries++) {
		if (madvise(p, len, MADV_PAGEOUT))
			t_die("MADV_PAGEOUT: %s", strerror(errno));
		if (!any_present(p, len))
			return true;
		if (tries == 4 || tries == 20)
			t_write_file("/proc/sys/vm/drop_caches", "1");
		t_sleep_ms(20);
	}
	return false;
}

static u64 huge_kb_of_line(const char *line)
{
	static const char * const fields[] = {
		"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:",
		"Shared_Hugetlb:", "Private_Hugetlb:",
	};
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(fields); i++) {
		if (!strncmp(line, fields[i], strlen(fields[i])))
			return strtoull(line + strlen(fields[i]), NULL, 10);
	}
	return 0;
}

/* How much of the mapping that p is in the CPU maps by huge entries. */
u64 t_huge_bytes(const void *p)
{
	uintptr_t addr = (uintptr_t)p, start, end;
	bool inside = false;
	char line[512];
	u64 kb = 0;
	FILE *f;

	f = fopen("/proc/self/smaps", "re");
	if (!f)
		t_die("smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
			inside = addr >= start && addr < end;
		else if (inside)
			kb += huge_kb_of_line(line);
	}
	fclose(f);
	return kb << 10;
}

/*
 * Keep a page of the file's page cache alive in a pipe, so that what happens to
 * it after the file has let go of it can be seen. Returns the reading end.
 */
int t_pipe_hold_page(int fd, off_t offset)
{
	loff_t off = offset;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		t_die("pipe: %s", strerror(errno));
	if (splice(fd, &off, ends[1], NULL, T_PAGE, 0) != (ssize_t)T_PAGE)
		t_die("splice: %s", strerror(errno));
	return ends[0];
}

void t_pipe_read_page(int pipe_rd, void *page)
{
	if (read(pipe_rd, page, T_PAGE) != (ssize_t)T_PAGE)
		t_die("read of the held page: %s", strerror(errno));
}
