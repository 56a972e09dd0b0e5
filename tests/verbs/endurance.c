// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The same again and again: a thousand rounds of registering, transferring and
 * deregistering, in one process and in many; thousands of regions at once. At
 * the end nothing is left of it.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define ROUNDS	1000

static void register_transfer_deregister(const void *arg)
{
	struct t_region r;
	u8 *p = t_map(16 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u64 state = 3;
	size_t start;
	int i;

	(void)arg;
	t_region_open(&r, p, 16 * T_PAGE);
	for (i = 0; i < ROUNDS; i++) {
		start = t_random(&state) % (12 * T_PAGE);
		t_dereg(&r.buf);
		t_buf_wrap(&r.buf, p + start, T_PAGE + 9);
		t_reg(&r.buf, &r.pair.dev);
		t_region_write(&r, 0, T_PAGE + 9);
		t_region_cpu_holds(&r, 0, T_PAGE + 9, r.round);
		t_region_read(&r, 3, T_PAGE, r.round);
	}
	t_dereg(&r.buf);
	t_buf_free(&r.scratch);
	t_pair_close(&r.pair);
}

/* Memory that is mapped, used and unmapped in each round. */
static void map_register_transfer_unmap(const void *arg)
{
	struct t_region r;
	size_t len = 6 * T_PAGE;
	int i;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	for (i = 0; i < ROUNDS; i++) {
		u8 *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		t_dereg(&r.buf);
		munmap(r.buf.p, len);
		t_buf_wrap(&r.buf, p, len);
		t_reg(&r.buf, &r.pair.dev);
		t_region_write(&r, T_PAGE - 1, 2 * T_PAGE);
		t_region_cpu_holds(&r, T_PAGE - 1, 2 * T_PAGE, r.round);
	}
}

static void contexts(const void *arg)
{
	u8 *p = t_map(4 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct t_region r;
	int i;

	(void)arg;
	for (i = 0; i < 50; i++) {
		t_region_open(&r, p, 4 * T_PAGE);
		t_region_write(&r, 1, 2 * T_PAGE);
		t_region_cpu_holds(&r, 1, 2 * T_PAGE, r.round);
		t_dereg(&r.buf);
		t_buf_free(&r.scratch);
		t_pair_close(&r.pair);
	}
}

static void processes(const void *arg)
{
	long mirrors = t_stat("mirrors"), leaves = t_stat("leaves");
	int i, status;
	pid_t pid;

	(void)arg;
	for (i = 0; i < 20; i++) {
		pid = t_fork();
		if (!pid) {
			struct t_region r;

			t_region_open(&r, t_map(4 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1),
				      4 * T_PAGE);
			t_region_exchange(&r, 7, 3 * T_PAGE);
			_exit(0);
		}
		t_check(t_wait_exit(pid, 20000, &status) && !status, "process %d", i);
	}
	t_check(t_stat_wait("mirrors", mirrors, 10000) &&
		t_stat_wait("leaves", leaves, 10000), "something outlives its process");
}

static void many_regions(const void *arg)
{
	enum { N = 2000 };
	static struct t_buf b[N];
	size_t len = 64 * T_PAGE, i;
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	for (i = 0; i < N; i++) {
		t_buf_wrap(&b[i], r.buf.p + i * 37, T_PAGE);
		t_reg(&b[i], &r.pair.dev);
	}
	for (i = 0; i < N; i += 7) {
		t_fill(r.scratch.p, T_PAGE, i);
		t_expect(t_write(&r.pair.a, &r.scratch, 0, &b[i], 0, T_PAGE), IBV_WC_SUCCESS,
			 "WRITE to region %zu", i);
		t_check(t_matches(b[i].p, T_PAGE, i), "region %zu", i);
	}
	for (i = 0; i < N; i++)
		t_dereg(&b[i]);
	t_region_exchange(&r, 0, len);
}

/* Leaves that have become empty go away, and come back when they are used. */
static void leaves_are_freed(const void *arg)
{
	enum { N = 64 };
	size_t len = N * T_HUGE, i;
	struct t_region r;
	long before;

	(void)arg;
	t_check(t_stat_wait("leaves", 0, 10000), "leaves of earlier processes");
	before = t_stat("leaves");
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1), len);
	madvise(r.buf.p, len, MADV_NOHUGEPAGE);
	for (i = 0; i < N; i++)
		t_region_write(&r, i * T_HUGE, 100);
	t_check(t_stat("leaves") >= before + N, "%ld leaves for %d places in use",
		t_stat("leaves") - before, N);
	t_check(!madvise(r.buf.p, len, MADV_DONTNEED), "MADV_DONTNEED");
	t_check(t_stat_wait("leaves", before + 2, 10000), "empty leaves are not freed");
	for (i = 0; i < N; i += 9)
		t_region_exchange(&r, i * T_HUGE, 100);
}

static void nothing_is_left(const void *arg)
{
	(void)arg;
	t_check(t_stat("mirrors") >= 0, "no counters");
	t_check(t_stat_wait("mirrors", 0, 10000) && t_stat_wait("leaves", 0, 10000) &&
		t_stat_wait("table_leaves", 0, 1000) && t_stat_wait("huge_leaves", 0, 1000),
		"something outlives its process");
}

static const struct t_case cases[] = {
	{ "1000 rounds of register, transfer, deregister", T_BOTH,
	  register_transfer_deregister, NULL },
	{ "1000 rounds of map, register, transfer, unmap", T_BOTH,
	  map_register_transfer_unmap, NULL },
	{ "50 contexts one after the other", T_BOTH, contexts, NULL },
	{ "20 processes one after the other", T_BOTH, processes, NULL },
	{ "2000 regions at once", T_BOTH, many_regions, NULL },
	{ "empty leaves are freed and made again", T_ODP, leaves_are_freed, NULL },
	{ "nothing is left", T_ODP, nothing_is_left, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
