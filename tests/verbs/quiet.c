// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A fault is not a network event. Where pages come at once, cold transfers cost no
 * retransmission, no RNR and no duplicate that pinned ones do not cost in the same
 * boot, and few faults each. Where they take seconds (a userfaultfd's handler, swap
 * behind dm-delay), requests with the usual timeouts complete, others go on meanwhile,
 * and whoever does not want to wait can leave.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_net.h"
#include "t_slow.h"

#define MIB		(1UL << 20)

/* ---- where pages come at once ---- */

struct counts {
	struct t_net net;
	long faults;
};

/* --mib: what each kind of transfer moves, in messages of 1 MiB */
static size_t mib;

static void read_counts(struct counts *c)
{
	t_net_read(&c->net);
	c->faults = t_stat("faults");
}

struct transfer {
	const char *name;
	enum ibv_wr_opcode opcode;
	bool swapped;
};

struct cold {
	struct t_pair pair;
	struct t_buf src;
	struct t_buf dst;
};

/* A source in swap, and a target that is there no more or in swap as well. */
static void make_cold(struct cold *x, bool swapped)
{
	t_check(t_pageout(x->src.p, MIB), "the source stays in memory");
	if (swapped)
		t_check(t_pageout(x->dst.p, MIB), "the target stays in memory");
	else
		t_check(!madvise(x->dst.p, MIB, MADV_DONTNEED), "MADV_DONTNEED");
}

static void one_message(struct cold *x, const struct transfer *t, u64 round)
{
	struct t_ep *a = &x->pair.a, *b = &x->pair.b;
	enum ibv_wc_status status;

	if (t->opcode == IBV_WR_RDMA_WRITE) {
		status = t_write(a, &x->src, 0, &x->dst, 0, MIB);
	} else if (t->opcode == IBV_WR_RDMA_READ) {
		status = t_read(a, &x->dst, 0, &x->src, 0, MIB);
	} else {
		t_post_recv(b, &x->dst, 0, MIB);
		status = t_send(a, &x->src, 0, MIB);
		t_expect(t_wait(b, NULL), IBV_WC_SUCCESS, "receive");
	}
	t_expect(status, IBV_WC_SUCCESS, "%s", t->name);
	t_check(t_matches(x->dst.p, MIB, round), "%s: wrong bytes", t->name);
}

static void move(const struct transfer *t, bool odp, struct counts *c)
{
	struct counts before;
	struct cold x;
	size_t i;

	memset(&x, 0, sizeof(x));
	t_pair_open(&x.pair, NULL);
	t_buf_wrap(&x.src, t_map_huge_aligned(T_HUGE), MIB);
	t_buf_wrap(&x.dst, t_map_huge_aligned(T_HUGE), MIB);
	madvise(x.src.p, MIB, MADV_NOHUGEPAGE);
	madvise(x.dst.p, MIB, MADV_NOHUGEPAGE);
	(odp ? t_reg : t_reg_pinned)(&x.src, &x.pair.dev);
	(odp ? t_reg : t_reg_pinned)(&x.dst, &x.pair.dev);
	read_counts(&before);
	for (i = 1; i <= mib; i++) {
		t_fill(x.src.p, MIB, i);
		if (odp)
			make_cold(&x, t->swapped);
		one_message(&x, t, i);
	}
	read_counts(c);
	t_net_since(&c->net, &before.net);
	c->faults -= before.faults;
	t_buf_free(&x.src);
	t_buf_free(&x.dst);
	t_pair_close(&x.pair);
}

/* Both in one boot, one after the other. */
static bool compare(const struct transfer *t, struct counts *pinned, struct counts *odp)
{
	move(t, false, pinned);
	move(t, true, odp);
	t_diag("%ld faults for %zu messages of 1 MiB", odp->faults, mib);
	return t_net_no_more(&odp->net, &pinned->net, "");
}

/*
 * What pinned transfers cost is what the network costs, of which lo has hardly any. A
 * busy host is late now and then, and something is repeated; that is tried again. What
 * faults cost they cost each time.
 */
static void costs_the_network_nothing(const void *arg)
{
	const struct transfer *t = arg;
	struct counts pinned, odp;
	int tries = 3;

	while (!compare(t, &pinned, &odp))
		t_check(--tries, "more than pinned, each time");
	t_check(!pinned.faults, "pinned memory was faulted");
	t_check(odp.faults >= 2 * (long)mib, "the transfers were not cold");
	/* of 512 pages; how many depends on how fast they come from swap */
	t_check(odp.faults <= 32 * (long)mib, "%ld faults for %zu messages", odp.faults, mib);
}

/* ---- where they take seconds ---- */

#define SEED		60	/* the round of what a page has when it comes */
#define UFFD_MS		5000
#define DISK_MS		2000

/* What a region is in the request that waits for it. */
enum part { WRITTEN, READ_FROM, RECEIVE, LOCAL_SOURCE, LOCAL_TARGET, ATOMIC, PARTS };

static const char * const part_names[PARTS] = {
	"target of a WRITE", "source of a READ", "receive buffer", "source of a WRITE",
	"target of a READ", "target of an atomic",
};

struct waiting {
	struct t_region r;
	enum part part;
	size_t len;
	bool done;
	u64 posted;
};

static void usual_timeouts(struct t_pair *p)
{
	p->a.cfg.timeout = 14;
	p->b.cfg.timeout = 14;
	t_pair_reconnect(p);
}

static void open_waiting(struct waiting *w, enum part part, void *p, size_t len)
{
	memset(w, 0, sizeof(*w));
	w->part = part;
	w->len = part == ATOMIC ? T_PAGE : len;
	t_region_open(&w->r, p, len);
	usual_timeouts(&w->r.pair);
	t_fill(w->r.scratch.p, len, SEED + 1);
}

static void post(struct waiting *w)
{
	static const enum ibv_wr_opcode opcodes[PARTS] = {
		IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_SEND, IBV_WR_RDMA_WRITE,
		IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD,
	};
	struct t_region *r = &w->r;
	bool local = w->part == LOCAL_SOURCE || w->part == LOCAL_TARGET;
	struct t_buf *mine = local ? &r->buf : &r->scratch;
	struct t_buf *theirs = local ? &r->scratch : &r->buf;
	struct ibv_sge sge = t_sge(mine, 0, w->part == ATOMIC ? 8 : w->len);
	struct t_op op = {
		.opcode = opcodes[w->part], .sge = &sge, .num_sge = 1,
		.raddr = theirs->iova, .rkey = theirs->mr->rkey, .compare_add = 1,
	};

	if (w->part == RECEIVE)
		t_post_recv(&r->pair.b, &r->buf, 0, w->len);
	w->posted = t_now_ms();
	t_check(!t_post(&r->pair.a, &op, NULL), "posting");
}

static void check_data(struct waiting *w)
{
	struct t_region *r = &w->r;
	u64 word, seed;

	switch (w->part) {
	case WRITTEN:
	case RECEIVE:
	case LOCAL_TARGET:
		t_check(t_matches(r->buf.p, w->len, SEED + 1), "wrong bytes in the region");
		break;
	case READ_FROM:
	case LOCAL_SOURCE:
		t_check(t_matches(r->scratch.p, w->len, SEED), "wrong bytes from the region");
		break;
	default:
		t_fill(&seed, 8, SEED);
		memcpy(&word, r->buf.p, 8);
		t_check(word == seed + 1, "the atomic was executed %lld times",
			(long long)(word - seed));
	}
}

/* Returns whether it is done; the queue pair must then be as good as before. */
static bool look(struct waiting *w)
{
	struct ibv_wc wc;

	if (w->done)
		return true;
	if (!ibv_poll_cq(w->r.pair.a.cq, 1, &wc))
		return false;
	w->done = true;
	t_diag("%s: %s after %llu ms", part_names[w->part], t_status(wc.status),
	       (unsigned long long)(t_now_ms() - w->posted));
	t_expect(wc.status, IBV_WC_SUCCESS, "%s", part_names[w->part]);
	if (w->part == RECEIVE)
		t_expect(t_wait(&w->r.pair.b, NULL), IBV_WC_SUCCESS, "receive");
	check_data(w);
	return true;
}

static bool look_all(struct waiting *w, unsigned int n)
{
	bool all = true;
	unsigned int i;

	for (i = 0; i < n; i++)
		all &= look(&w[i]);
	return all;
}

static void check_usable(struct waiting *w, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		t_region_exchange(&w[i].r, 0, w[i].len);
}

/* ---- others, who have nothing to do with it ---- */

struct other {
	int say[2];
	int hear[2];
};

/* A debug kernel takes its time for each. */
static unsigned int exchanges(void)
{
	return t_patience(1) > 1 ? 200 : 2000;
}

static void exchange_many(struct t_region *r)
{
	unsigned int i, n = exchanges();
	size_t len = 512;

	for (i = 0; i < n; i++) {
		t_region_write(r, i % 7 * len, len);
		t_region_cpu_holds(r, i % 7 * len, len, r->round);
	}
}

static void other_process(struct other *o)
{
	struct t_region r;
	char byte;

	t_region_open(&r, t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1), T_PAGE);
	if (write(o->hear[1], "r", 1) != 1 || read(o->say[0], &byte, 1) != 1)
		_exit(1);
	exchange_many(&r);
	if (write(o->hear[1], "d", 1) != 1)
		_exit(1);
	_exit(0);
}

/* Before the case opens a device. */
static void fork_other(struct other *o)
{
	char byte;

	if (pipe(o->say) || pipe(o->hear))
		t_die("pipe: %s", strerror(errno));
	if (!t_fork()) {
		close(o->say[1]);
		close(o->hear[0]);
		other_process(o);
	}
	close(o->say[0]);
	close(o->hear[1]);
	t_check(read(o->hear[0], &byte, 1) == 1, "the other process did not come up");
}

/* Both at once, and all of it while the faults wait. */
static void others_go_on(struct other *o, struct t_region *own)
{
	char byte;

	t_check(write(o->say[1], "g", 1) == 1, "write");
	exchange_many(own);
	t_check(read(o->hear[0], &byte, 1) == 1, "the other process failed");
}

static void open_own(struct t_region *own)
{
	t_region_open(own, t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1), T_PAGE);
	usual_timeouts(&own->pair);
}

/* ---- a handler that takes its time ---- */

#define UFFD_LEN	(2 * T_PAGE)

/* All six wait in one handler, which serves nothing before the others are done. */
static void slow_handler(const void *arg)
{
	struct waiting w[PARTS];
	struct t_slow h = { .ms = UFFD_MS, .round = SEED };
	struct t_region own;
	struct other other;
	unsigned int i;

	(void)arg;
	fork_other(&other);
	t_slow_open(&h, UFFD_LEN, PARTS);
	for (i = 0; i < PARTS; i++)
		open_waiting(&w[i], i, h.base + i * UFFD_LEN, UFFD_LEN);
	open_own(&own);
	t_uffd_watch(h.uffd, h.base, PARTS * UFFD_LEN);
	for (i = 0; i < PARTS; i++)
		post(&w[i]);
	while (h.n < PARTS)
		t_slow_take(&h, 100);
	others_go_on(&other, &own);
	t_check(!look_all(w, PARTS) && h.n >= PARTS, "nothing waited");
	while (!look_all(w, PARTS)) {
		t_slow_take(&h, 20);
		t_slow_serve(&h);
	}
	t_slow_take(&h, 1);
	t_uffd_watch(h.uffd, h.base, T_PAGE);
	check_usable(w, PARTS);
}

/* ---- a disk that takes its time ---- */

#define GROUP		"unpin-slow"

static void slow_disk(const void *arg)
{
	unsigned int i, n = ATOMIC;
	struct waiting w[ATOMIC];
	struct t_region own;
	struct other other;
	long read;
	u8 *p;

	(void)arg;
	t_slow_swap_open(DISK_MS);
	fork_other(&other);
	open_own(&own);
	t_group_make(GROUP, "max", "max");
	t_group_join(GROUP);
	p = t_slow_swap_map(MIB, n, SEED);
	for (i = 0; i < n; i++)
		open_waiting(&w[i], i, p + i * MIB, MIB);
	t_slow_swap_evict(GROUP, p, n * MIB);
	read = t_vmstat("pswpin");
	for (i = 0; i < n; i++)
		post(&w[i]);
	others_go_on(&other, &own);
	while (!look_all(w, n))
		t_sleep_ms(10);
	t_check(t_vmstat("pswpin") - read >= (long)(n * MIB / T_PAGE),
		"%ld pages were read from the disk", t_vmstat("pswpin") - read);
	check_usable(w, n);
	munmap(p, n * MIB);
	t_group_leave(GROUP);
	t_slow_swap_close();
}

/* ---- leaving while it waits ---- */

enum leaving { DEREG, DESTROY_QP, KILL };

/* It waits for the disk: up to there a fault that nobody wants any more is given up. */
static void wait_until_reading(long before)
{
	u64 end = t_deadline(20000);

	while (t_vmstat("pswpin") <= before) {
		t_check(t_now_ms() < end, "nothing is read from the disk");
		t_sleep_ms(5);
	}
	t_check(t_stat("faults_running") > 0, "no fault reads");
}

static void start_waiting(struct waiting *w, enum part part, u8 *p)
{
	long before;

	open_waiting(w, part, p, MIB);
	t_slow_swap_evict(GROUP, p, MIB);
	t_slow_swap_hold();
	before = t_vmstat("pswpin");
	post(w);
	wait_until_reading(before);
}

static void leave(enum leaving how, enum part part)
{
	struct waiting w;
	u8 *p;

	t_group_join(GROUP);
	p = t_slow_swap_map(MIB, 1, SEED);
	start_waiting(&w, part, p);
	if (how == DEREG)
		t_dereg(&w.r.buf);
	else if (how == DESTROY_QP)
		t_check(!ibv_destroy_qp(w.r.pair.a.qp) && !ibv_destroy_qp(w.r.pair.b.qp),
			"ibv_destroy_qp");
	else
		kill(getpid(), SIGKILL);
}

/* The page does not come before whoever waited for it has gone. */
static void leaves_promptly(enum leaving how, enum part part)
{
	bool ended, faulting;
	int status = -1;
	pid_t pid = t_fork();

	if (!pid) {
		leave(how, part);
		_exit(t_stat("faults_running") > 0 ? 0 : 2);
	}
	ended = t_wait_exit(pid, 40000, &status);
	faulting = t_stat("faults_running") > 0;
	t_slow_swap_release();
	t_check(ended, "%s: it does not end", part_names[part]);
	t_check(how == KILL ? WIFSIGNALED(status) : status == 0, "%s: status %#x",
		part_names[part], status);
	t_check(faulting, "%s: the fault ended first", part_names[part]);
	t_check(t_stat_wait("faults_running", 0, 20000), "a fault is left");
	t_check(t_stat_wait("mirrors", 0, 20000), "a mirror is left");
}

static void leaving(const void *arg)
{
	static const enum part parts[] = { WRITTEN, RECEIVE, LOCAL_SOURCE };
	const enum leaving *how = arg;
	size_t i;

	t_slow_swap_open(0);
	t_group_make(GROUP, "max", "max");
	for (i = 0; i < T_ARRAY_SIZE(parts); i++)
		leaves_promptly(*how, parts[i]);
	t_group_leave(GROUP);
	t_slow_swap_close();
}

static const struct transfer transfers[] = {
	{ "WRITE into fresh memory", IBV_WR_RDMA_WRITE, false },
	{ "READ into fresh memory", IBV_WR_RDMA_READ, false },
	{ "SEND into fresh memory", IBV_WR_SEND, false },
	{ "WRITE into swapped memory", IBV_WR_RDMA_WRITE, true },
	{ "READ into swapped memory", IBV_WR_RDMA_READ, true },
	{ "SEND into swapped memory", IBV_WR_SEND, true },
};

static const enum leaving ways[] = { DEREG, DESTROY_QP, KILL };

static const struct t_case cases[] = {
	{ "quiet: WRITE into fresh memory", T_ODP, costs_the_network_nothing, &transfers[0] },
	{ "quiet: READ into fresh memory", T_ODP, costs_the_network_nothing, &transfers[1] },
	{ "quiet: SEND into fresh memory", T_ODP, costs_the_network_nothing, &transfers[2] },
	{ "quiet: WRITE into swapped memory", T_ODP, costs_the_network_nothing, &transfers[3] },
	{ "quiet: READ into swapped memory", T_ODP, costs_the_network_nothing, &transfers[4] },
	{ "quiet: SEND into swapped memory", T_ODP, costs_the_network_nothing, &transfers[5] },
	{ "slow handler: all complete, others go on", T_ODP, slow_handler, NULL },
	{ "slow disk: all complete, others go on", T_ODP, slow_disk, NULL },
	{ "slow disk: dereg while it reads", T_ODP, leaving, &ways[0] },
	{ "slow disk: destroying a queue pair while it reads", T_ODP, leaving, &ways[1] },
	{ "slow disk: kill -9 while it reads", T_ODP, leaving, &ways[2] },
};

/* quiet --mr odp [--only TEXT] [--mib N]: moved by each kind of transfer. */
int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[argc - 2], "--mib")) {
		mib = strtoul(argv[argc - 1], NULL, 10);
		argc -= 2;
	} else {
		mib = t_patience(1) > 1 ? 4 : 16;
	}
	t_opts.seconds = 90 + 2 * mib;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
