// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The proof: 1 MiB each way between two regions on demand, by a queue pair (RC) that is
 * its own peer. Where the data goes no page is there before: the device has to bring in
 * each of them, and its counter of page faults has to tell. Nothing may be pinned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "doctor.h"

#define LEN		(1UL << 20)
#define PAGES_MAX	(LEN / 4096)
#define PATIENCE	60	/* seconds, for what takes milliseconds */
#define ACCESS		(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
			 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ON_DEMAND)
#define WHAT		"transfer"

struct area {
	uint8_t *p;
	struct ibv_mr *mr;
};

/**
 * struct transfer - what is open
 * @dev: the device
 * @pd: protection domain
 * @cq: where the completions come
 * @qp: the queue pair, connected to itself
 * @here: what the requests call local
 * @there: what they call remote
 */
struct transfer {
	const struct doctor_device *dev;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct area here;
	struct area there;
};

/* Everything that fails here fails like this. */
#define fail(...)							\
	(doctor_missing(WHAT, __VA_ARGS__),				\
	 doctor_remedy("dmesg | tail -n 30   # the kernel may have said why"), false)

static unsigned long pages(void)
{
	return LEN / sysconf(_SC_PAGESIZE);
}

/* ---- payload ---- */

/* A byte tells from which place it is, and from which way. */
static uint8_t payload(size_t pos, unsigned int round)
{
	uint64_t x = (pos + 1) * 0x9e3779b97f4a7c15 + round * 0xbf58476d1ce4e5b9;

	return (x ^ x >> 29) * 0x94d049bb133111eb >> 56;
}

static void fill(struct area *area, unsigned int round)
{
	size_t i;

	for (i = 0; i < LEN; i++)
		area->p[i] = payload(i, round);
}

static bool verify(const struct area *area, unsigned int round, const char *op)
{
	size_t i;

	for (i = 0; i < LEN; i++) {
		if (area->p[i] != payload(i, round))
			return fail("%s: byte %zu of %lu is 0x%02x, and should be 0x%02x", op, i,
				    LEN, area->p[i], payload(i, round));
	}
	return true;
}

/* ---- memory ---- */

/* How many pages the process has of it. */
static unsigned long present(const struct area *area)
{
	unsigned char vec[PAGES_MAX];
	unsigned long n = 0, i;

	if (mincore(area->p, LEN, vec))
		return 0;
	for (i = 0; i < pages(); i++)
		n += vec[i] & 1;
	return n;
}

/* The device's translations go with the pages. */
static void forget(struct area *area)
{
	madvise(area->p, LEN, MADV_DONTNEED);
}

/* Of small pages, so that none is there because its neighbour is. */
static bool map(struct transfer *t, struct area *area)
{
	area->p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area->p == MAP_FAILED) {
		area->p = NULL;
		return fail("mmap: %s", strerror(errno));
	}
	madvise(area->p, LEN, MADV_NOHUGEPAGE);
	area->mr = ibv_reg_mr(t->pd, area->p, LEN, ACCESS);
	if (!area->mr)
		return fail("%s: ibv_reg_mr() on demand: %s", t->dev->name, strerror(errno));
	return true;
}

static void unmap(struct area *area)
{
	if (area->mr)
		ibv_dereg_mr(area->mr);
	if (area->p)
		munmap(area->p, LEN);
}

static long pinned_kb(void)
{
	return doctor_value("/proc/self/status", "VmPin:");
}

/* ---- the queue pair ---- */

static bool to_init(struct transfer *t)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = t->dev->port,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};

	return !ibv_modify_qp(t->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
			      IBV_QP_ACCESS_FLAGS);
}

static bool to_rtr(struct transfer *t)
{
	const struct doctor_device *dev = t->dev;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = dev->port_attr.active_mtu,
		.dest_qp_num = t->qp->qp_num,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = dev->port_attr.link_layer == IBV_LINK_LAYER_ETHERNET,
			.dlid = dev->port_attr.lid,
			.port_num = dev->port,
			.grh = {
				.dgid = dev->gid,
				.sgid_index = dev->gid_index,
				.hop_limit = 64,
			},
		},
	};

	return !ibv_modify_qp(t->qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
			      IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MIN_RNR_TIMER |
			      IBV_QP_MAX_DEST_RD_ATOMIC);
}

static bool to_rts(struct transfer *t)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = 18,	/* 1 s */
		.retry_cnt = 6,
		.rnr_retry = 7,
		.max_rd_atomic = 1,
	};

	return !ibv_modify_qp(t->qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			      IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

static bool connect_to_itself(struct transfer *t)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = {
			.max_send_wr = 4, .max_recv_wr = 4,
			.max_send_sge = 1, .max_recv_sge = 1,
		},
	};

	t->pd = ibv_alloc_pd(t->dev->context);
	t->cq = t->pd ? ibv_create_cq(t->dev->context, 16, NULL, NULL, 0) : NULL;
	init.send_cq = t->cq;
	init.recv_cq = t->cq;
	t->qp = t->cq ? ibv_create_qp(t->pd, &init) : NULL;
	if (!t->qp)
		return fail("%s: no queue pair: %s", t->dev->name, strerror(errno));
	if (!to_init(t) || !to_rtr(t) || !to_rts(t))
		return fail("%s: the queue pair cannot connect: %s", t->dev->name,
			    strerror(errno));
	return true;
}

static time_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static bool complete(struct transfer *t, const char *op)
{
	time_t end = seconds() + PATIENCE;
	struct ibv_wc wc;
	int n;

	while ((n = ibv_poll_cq(t->cq, 1, &wc)) == 0 && seconds() <= end)
		usleep(1000);
	if (n < 0)
		return fail("%s: the completion queue is broken", op);
	if (!n)
		return fail("%s: no answer after %d seconds", op, PATIENCE);
	if (wc.status != IBV_WC_SUCCESS)
		return fail("%s: %s", op, ibv_wc_status_str(wc.status));
	return true;
}

static bool request(struct transfer *t, enum ibv_wr_opcode opcode, const char *op)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)t->here.p, .length = LEN, .lkey = t->here.mr->lkey,
	};
	struct ibv_send_wr wr = {
		.opcode = opcode, .sg_list = &sge, .num_sge = 1,
		.wr.rdma = {
			.remote_addr = (uintptr_t)t->there.p, .rkey = t->there.mr->rkey,
		},
	}, *bad;
	int err = ibv_post_send(t->qp, &wr, &bad);

	if (err)
		return fail("%s: ibv_post_send(): %s", op, strerror(err));
	return complete(t, op);
}

/* ---- page faults ---- */

/* Of the whole device, since it was made; -1 if it does not count them here. */
static long faults(const struct transfer *t)
{
	char path[PATH_MAX], text[32];
	long n;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/%u/hw_counters/page_faults",
		 t->dev->name, t->dev->port);
	return doctor_read(text, sizeof(text), "%s", path) && sscanf(text, "%ld", &n) == 1 ? n : -1;
}

/* What was read a moment ago is what the kernel says again (its "lifespan"). */
static bool faults_grew(const struct doctor *d, const struct transfer *t, long before)
{
	long want = 2 * pages(), now = before;
	int tries;

	if (before < 0) {
		doctor_note(WHAT, "%s does not say how many page faults it had", t->dev->name);
		return true;
	}
	for (tries = 0; tries < 100 && now < before + want; tries++) {
		usleep(20000);
		now = faults(t);
	}
	if (now < before + want)
		return fail("%s counts %ld page faults for %ld pages that were not there",
			    t->dev->name, now - before, want);
	doctor_detail(d, "%s counts %ld page faults for %ld pages that were not there",
		      t->dev->name, now - before, want);
	return true;
}

/* ---- there and back ---- */

/* The device must have brought no page in before it has one to bring. */
static bool is_cold(const struct area *area, const char *op)
{
	unsigned long n = present(area);

	return !n || fail("%s: %lu pages were there before it: the region is not on demand", op, n);
}

static bool there(struct transfer *t)
{
	fill(&t->here, 1);
	return is_cold(&t->there, "WRITE") && request(t, IBV_WR_RDMA_WRITE, "WRITE") &&
	       verify(&t->there, 1, "WRITE");
}

static bool back(struct transfer *t)
{
	forget(&t->there);
	fill(&t->there, 2);
	forget(&t->here);
	return is_cold(&t->here, "READ") && request(t, IBV_WR_RDMA_READ, "READ") &&
	       verify(&t->here, 2, "READ");
}

static bool nothing_pinned(long before)
{
	long now = pinned_kb();

	return now == before || fail("%ld KiB are pinned (VmPin)", now - before);
}

static bool open_all(struct transfer *t)
{
	return connect_to_itself(t) && map(t, &t->here) && map(t, &t->there);
}

static void close_all(struct transfer *t)
{
	if (t->qp)
		ibv_destroy_qp(t->qp);
	if (t->cq)
		ibv_destroy_cq(t->cq);
	unmap(&t->here);
	unmap(&t->there);
	if (t->pd)
		ibv_dealloc_pd(t->pd);
}

void doctor_transfer(const struct doctor *d)
{
	struct transfer t = { .dev = d->usable };
	long pinned = pinned_kb(), before = faults(&t);

	if (open_all(&t) && nothing_pinned(pinned) && there(&t) && back(&t) &&
	    nothing_pinned(pinned) && faults_grew(d, &t, before))
		doctor_ok(WHAT, "1 MiB written and 1 MiB read by %s on demand, each byte right",
			  t.dev->name);
	close_all(&t);
}
