// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Usage: fork_and_swap [MiB]
 *
 * A registered buffer (320 MiB) that is larger than the machine's memory is
 * written by RDMA in random order, always some WRITEs in flight, while its pages
 * go to swap and come back, and while the process forks children that write
 * their own copies of some of it. Then all of it is read by RDMA in random
 * order, and every byte is compared, both as the device and as the CPU sees it.
 * The exit status says whether all was as it has to be.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "t.h"

#define CHUNK		(64UL << 10)
#define DEPTH		8
#define CHILDREN	4
#define CHILD_CHUNKS	64
#define CHILD_ROUND	100	/* what a child writes; the parent stays below */
#define NONE		SIZE_MAX

/* What each chunk has to hold is the pattern of its offset in its round. */
struct stress {
	struct t_pair pair;
	struct t_buf buf;
	struct t_buf slots;		/* DEPTH chunks */
	size_t in_flight[DEPTH];	/* the chunk of each slot, or NONE */
	size_t *order;
	size_t chunks;
	u8 *round;
	enum ibv_wr_opcode opcode;	/* of what is in flight */
	u64 random;
	pid_t child[CHILDREN];
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static long vmstat(const char *name)
{
	char line[128], key[64];
	long value, found = -1;
	FILE *f = fopen("/proc/vmstat", "re");

	while (f && found < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", key, &value) == 2 && !strcmp(key, name))
			found = value;
	}
	if (f)
		fclose(f);
	return found;
}

static void shuffle(struct stress *s)
{
	size_t i, k, tmp;

	for (i = s->chunks - 1; i; i--) {
		k = t_random(&s->random) % (i + 1);
		tmp = s->order[i];
		s->order[i] = s->order[k];
		s->order[k] = tmp;
	}
}

static void open_stress(struct stress *s, size_t len)
{
	size_t i;

	memset(s, 0, sizeof(*s));
	t_opts.odp = true;
	s->random = 42;
	s->chunks = len / CHUNK;
	s->round = calloc(s->chunks, 1);
	s->order = calloc(s->chunks, sizeof(*s->order));
	if (!s->round || !s->order)
		t_die("no memory for %zu chunks", s->chunks);
	for (i = 0; i < s->chunks; i++)
		s->order[i] = i;
	for (i = 0; i < DEPTH; i++)
		s->in_flight[i] = NONE;
	t_pair_open(&s->pair, NULL);
	t_buf_wrap(&s->buf, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1),
		   len);
	t_reg(&s->buf, &s->pair.dev);
	t_buf_alloc(&s->slots, 0, DEPTH * CHUNK);
	t_reg(&s->slots, &s->pair.dev);
}

/* Without spinning: the CPU is needed by whoever brings the pages. */
static enum ibv_wc_status wait_quietly(struct t_ep *ep)
{
	u64 end = t_now_ms() + T_WAIT_MS;
	struct ibv_wc wc;
	int n;

	while ((n = ibv_poll_cq(ep->cq, 1, &wc)) == 0) {
		if (t_now_ms() > end)
			return T_TIMED_OUT;
		usleep(100);
	}
	if (n < 0)
		t_die("ibv_poll_cq");
	return wc.status;
}

/* What the device read, and what the CPU sees there. */
static void compare(struct stress *s, size_t slot, size_t chunk)
{
	u8 *seen = s->slots.p + slot * CHUNK;
	size_t off = chunk * CHUNK;

	t_check(t_matches_at(seen, CHUNK, off, s->round[chunk]),
		"READ at %zu returned wrong bytes", off);
	t_check(!memcmp(seen, s->buf.p + off, CHUNK),
		"the CPU sees other bytes at %zu than the device", off);
}

/* One queue pair completes in order: the oldest is the one that completed. */
static void finish(struct stress *s, size_t slot)
{
	size_t chunk = s->in_flight[slot];

	if (chunk == NONE)
		return;
	t_expect(wait_quietly(&s->pair.a), IBV_WC_SUCCESS, "%s of chunk %zu",
		 s->opcode == IBV_WR_RDMA_READ ? "READ" : "WRITE", chunk);
	if (s->opcode == IBV_WR_RDMA_READ)
		compare(s, slot, chunk);
	s->in_flight[slot] = NONE;
}

static void start(struct stress *s, size_t slot, size_t chunk)
{
	u8 *data = s->slots.p + slot * CHUNK;
	size_t off = chunk * CHUNK;
	struct ibv_sge sge = t_sge(&s->slots, slot * CHUNK, CHUNK);
	struct t_op op = {
		.opcode = s->opcode, .sge = &sge, .num_sge = 1,
		.raddr = s->buf.iova + off, .rkey = s->buf.mr->rkey,
	};

	if (s->opcode == IBV_WR_RDMA_READ)
		memset(data, 0x5a, CHUNK);
	else
		t_fill_at(data, CHUNK, off, ++s->round[chunk]);
	t_check(!t_post(&s->pair.a, &op, NULL), "posting for chunk %zu", chunk);
	s->in_flight[slot] = chunk;
}

static bool is_in_flight(const struct stress *s, size_t chunk)
{
	size_t i;

	for (i = 0; i < DEPTH; i++) {
		if (s->in_flight[i] == chunk)
			return true;
	}
	return false;
}

static bool child_holds(const struct stress *s, size_t chunk, u64 round)
{
	size_t off = chunk * CHUNK;

	return t_matches_at(s->buf.p + off, CHUNK, off, round);
}

/*
 * A child sees the buffer as it was at the fork, writes a copy of its own of
 * every second chunk it looks at, and later finds all of that unchanged.
 */
static void child(struct stress *s, int nr)
{
	size_t chosen[CHILD_CHUNKS];
	int i, pass;

	s->random = 1000 + nr;
	for (i = 0; i < CHILD_CHUNKS; i++) {
		do {
			chosen[i] = t_random(&s->random) % (s->chunks / CHILD_CHUNKS) *
				CHILD_CHUNKS + i;
		} while (is_in_flight(s, chosen[i]));
		if (!child_holds(s, chosen[i], s->round[chosen[i]]))
			_exit(1);
		if (i % 2)
			continue;
		s->round[chosen[i]] = CHILD_ROUND + nr;
		t_fill_at(s->buf.p + chosen[i] * CHUNK, CHUNK, chosen[i] * CHUNK,
			  CHILD_ROUND + nr);
	}
	for (pass = 0; pass < 2; pass++) {
		t_sleep_ms(300);
		for (i = 0; i < CHILD_CHUNKS; i++) {
			if (!child_holds(s, chosen[i], s->round[chosen[i]]))
				_exit(2);
		}
	}
	_exit(0);
}

static void fork_child(struct stress *s, int nr)
{
	s->child[nr] = t_fork();
	if (!s->child[nr])
		child(s, nr);
}

/* The first n chunks of a new order; forks so many children on the way. */
static void run_chunks(struct stress *s, enum ibv_wr_opcode opcode, size_t n,
		       int children)
{
	int quarter = 0, nr = 0;
	size_t i;

	shuffle(s);
	s->opcode = opcode;
	for (i = 0; i < n; i++) {
		finish(s, i % DEPTH);
		start(s, i % DEPTH, s->order[i]);
		if (nr < children && i >= n * (nr + 1) / (children + 1))
			fork_child(s, nr++);
		if ((i + 1) * 4 / n > (size_t)quarter)
			printf(" %3d %%", 25 * ++quarter);
	}
	for (i = n; i < n + DEPTH; i++)
		finish(s, i % DEPTH);
}

static void wait_for_children(struct stress *s)
{
	int i, status;

	for (i = 0; i < CHILDREN; i++) {
		t_check(t_wait_exit(s->child[i], 60000, &status),
			"child %d does not end", i);
		t_check(status != 1 << 8, "child %d saw other bytes than at its fork", i);
		t_check(!status, "child %d did not keep its own bytes", i);
	}
}

static double begin(const char *what, size_t mib)
{
	char text[64];

	snprintf(text, sizeof(text), what, mib);
	printf("  %-44s", text);
	return now();
}

static void end(double began)
{
	printf("  %6.1f s\n", now() - began);
}

static void row(const char *what, long value, const char *unit)
{
	printf("  %-44s %8ld %s\n", what, value, unit);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 320;
	long out = vmstat("pswpout"), in = vmstat("pswpin");
	struct stress s;
	double began;

	setvbuf(stdout, NULL, _IONBF, 0);
	open_stress(&s, mib << 20);
	printf("  A buffer of %zu MiB, registered on demand; the machine has %ld MiB.\n\n",
	       mib, sysconf(_SC_PHYS_PAGES) >> 8);

	began = begin("WRITE %zu MiB in random order", mib);
	run_chunks(&s, IBV_WR_RDMA_WRITE, s.chunks, 0);
	end(began);
	began = begin("WRITE %zu MiB of it anew, forking 4 children", mib / 4);
	run_chunks(&s, IBV_WR_RDMA_WRITE, s.chunks / 4, CHILDREN);
	end(began);
	began = begin("READ and compare %zu MiB", mib);
	run_chunks(&s, IBV_WR_RDMA_READ, s.chunks, 0);
	end(began);
	wait_for_children(&s);
	out = vmstat("pswpout") - out;
	in = vmstat("pswpin") - in;

	printf("\n");
	row("bytes compared, READ and CPU: all right", s.buf.len, "");
	row("children whose own copies were right", CHILDREN, "");
	row("swapped out", out >> 8, "MiB");
	row("swapped in", in >> 8, "MiB");
	row("resident now", t_status_kb("VmRSS") >> 10, "MiB");
	row("pinned (VmPin)", t_status_kb("VmPin"), "kB");
	row("locked (VmLck)", t_status_kb("VmLck"), "kB");
	t_check(out > 0 && in > 0, "nothing was swapped, so nothing was shown");
	t_check(!t_status_kb("VmPin") && !t_status_kb("VmLck"),
		"nothing may be pinned or locked");
	return 0;
}
