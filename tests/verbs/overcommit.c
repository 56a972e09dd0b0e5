// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A registered buffer larger than the guest's memory: written and read over
 * RDMA in order and at random, while its pages go to swap and come back,
 * the process forks, and other memory presses; every byte is verified.
 * For a guest with little memory and more swap.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define CHUNK	(64UL << 10)

static long meminfo_kb(const char *format)
{
	char line[128];
	long kb = -1;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, format, &kb);
	if (f)
		fclose(f);
	return kb;
}

/* Nobody else's until the case ends; children have none of it. */
static void keep_away(size_t len)
{
	void *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	t_check(!madvise(p, len, MADV_DONTFORK) && !mlock(p, len), "%zu bytes to lock", len);
}

/* A debug kernel takes a large part of it for itself, and so long that a part will do. */
static size_t memory_bytes(void)
{
	size_t available, part = 64UL << 20;

	if (t_patience(1) == 1)
		return sysconf(_SC_PHYS_PAGES) * T_PAGE;
	available = meminfo_kb("MemAvailable: %ld kB") << 10;
	if (available <= part)
		return available;
	keep_away(available - part);
	return part;
}

/* A quarter more than there is, in whole chunks. */
static size_t large(void)
{
	return memory_bytes() / 4 * 5 / CHUNK * CHUNK;
}

static void open_large(struct t_region *r)
{
	size_t len = large();
	void *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	long swap_kb = meminfo_kb("SwapFree: %ld kB");

	if (swap_kb < (long)(len >> 10) * 3 / 4)
		t_die("%ld kB of swap for %zu bytes: this test wants a guest with --swap",
		      swap_kb, len);
	madvise(p, len, MADV_NOHUGEPAGE);
	t_region_open(r, p, len);
	r->pair.a.cfg.mtu = IBV_MTU_4096;
	r->pair.b.cfg.mtu = IBV_MTU_4096;
	t_pair_reconnect(&r->pair);
}

/*
 * A third by RDMA, the rest by the CPU: emulated machines compute CRCs slowly, and
 * debug kernels do everything so. There it is a part of that.
 */
static void write_all(struct t_region *r, u64 round)
{
	size_t off;

	for (off = 0; off < r->buf.len; off += CHUNK) {
		r->round = round - 1;
		if (off / CHUNK % t_patience(3))
			t_fill_at(r->buf.p + off, CHUNK, off, round);
		else
			t_region_write(r, off, CHUNK);
	}
}

/* Every byte by the CPU, every sixteenth chunk, or fewer, also by RDMA. */
static void check_all(struct t_region *r, u64 round)
{
	size_t off;

	for (off = 0; off < r->buf.len; off += t_patience(16) * CHUNK)
		t_region_read(r, off, CHUNK, round);
	t_region_cpu_holds(r, 0, r->buf.len, round);
}

static void larger_than_memory(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_large(&r);
	write_all(&r, 201);
	check_all(&r, 201);
}

/* Random chunks get a round of their own; each must keep it. */
static void random_chunks(const void *arg)
{
	static u8 rounds[1UL << 16];
	struct t_region r;
	u64 state = 99;
	size_t n, i, k;

	(void)arg;
	open_large(&r);
	n = r.buf.len / CHUNK;
	t_check(n <= sizeof(rounds), "%zu chunks", n);
	t_fill(r.buf.p, r.buf.len, 200);
	memset(rounds, 200, n);
	for (i = 0; i < n / t_patience(12); i++) {
		k = t_random(&state) % n;
		t_region_read(&r, k * CHUNK, CHUNK, rounds[k]);
		rounds[k] = rounds[k] % 250 + 1;
		r.round = rounds[k] - 1;
		t_region_write(&r, k * CHUNK, CHUNK);
	}
}

/* Children take copies and look at them while RDMA writes on. */
static void forks_under_pressure(const void *arg)
{
	size_t part = 64 * CHUNK;
	struct t_region r;
	pid_t pid[4];
	int i, status;
	size_t at;

	(void)arg;
	open_large(&r);
	t_fill(r.buf.p, r.buf.len, 201);
	for (i = 0; i < 4; i++) {
		at = r.buf.len / 4 * i / CHUNK * CHUNK;
		pid[i] = t_fork();
		if (!pid[i])
			_exit(t_matches_at(r.buf.p + at, part, at, 201) ? 0 : 1);
		for (; at < r.buf.len / 4 * i + part / 2; at += CHUNK) {
			r.round = 201;
			t_region_write(&r, at, CHUNK);
		}
	}
	for (i = 0; i < 4; i++) {
		t_check(t_wait_exit(pid[i], 20000, &status) && !status,
			"child %d saw other bytes than at its fork", i);
		at = r.buf.len / 4 * i / CHUNK * CHUNK;
		t_region_read(&r, at, CHUNK, 202);
		t_region_read(&r, at + part, CHUNK, 201);
	}
}

static const struct t_case cases[] = {
	{ "a buffer larger than memory, written and read through", T_ODP,
	  larger_than_memory, NULL },
	{ "random chunks of a buffer larger than memory", T_ODP, random_chunks, NULL },
	{ "forks while the buffer is larger than memory", T_ODP, forks_under_pressure, NULL },
};

int main(int argc, char **argv)
{
	/* all of memory goes to the disk and comes back */
	t_opts.seconds = 100;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
