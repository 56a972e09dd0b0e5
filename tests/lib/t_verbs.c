// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Endpoints (a queue pair, RC if nothing else is said, and its completion queue),
 * registration as --mr says, and single operations that return their completion
 * status.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t.h"

#define QKEY	0x11111111U

void t_dev_open(struct t_dev *dev)
{
	struct ibv_device **list;
	int i, n;

	memset(dev, 0, sizeof(*dev));
	list = ibv_get_device_list(&n);
	for (i = 0; list && i < n; i++) {
		if (!strcmp(ibv_get_device_name(list[i]), t_opts.dev))
			dev->ctx = ibv_open_device(list[i]);
	}
	if (!dev->ctx)
		t_die("no device %s", t_opts.dev);
	ibv_free_device_list(list);
	dev->pd = ibv_alloc_pd(dev->ctx);
	if (!dev->pd)
		t_die("ibv_alloc_pd: %s", strerror(errno));
	if (ibv_query_gid(dev->ctx, 1, t_opts.gid, &dev->gid))
		t_die("no GID %d", t_opts.gid);
}

void t_dev_close(struct t_dev *dev)
{
	int err = ibv_dealloc_pd(dev->pd);

	if (err)
		t_die("ibv_dealloc_pd: %s", strerror(err));
	if (ibv_close_device(dev->ctx))
		t_die("ibv_close_device");
}

static void open_srq(struct t_ep *ep)
{
	struct ibv_srq_init_attr attr = {
		.attr = { .max_wr = ep->cfg.depth, .max_sge = ep->cfg.max_sge },
	};

	ep->srq = ibv_create_srq(ep->dev->pd, &attr);
	if (!ep->srq)
		t_die("ibv_create_srq: %s", strerror(errno));
}

static void open_qp(struct t_ep *ep)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = ep->cq,
		.recv_cq = ep->cq,
		.srq = ep->srq,
		.qp_type = ep->cfg.type,
		.sq_sig_all = 1,
		.cap = {
			.max_send_wr = ep->cfg.depth,
			.max_recv_wr = ep->cfg.depth,
			.max_send_sge = ep->cfg.max_sge,
			.max_recv_sge = ep->cfg.max_sge,
			.max_inline_data = ep->cfg.max_inline,
		},
	};

	ep->qp = ibv_create_qp(ep->dev->pd, &attr);
	if (!ep->qp)
		t_die("ibv_create_qp: %s", strerror(errno));
}

void t_ep_open(struct t_ep *ep, struct t_dev *dev, const struct t_cfg *cfg)
{
	static const struct t_cfg usual = T_CFG_DEFAULT;

	memset(ep, 0, sizeof(*ep));
	ep->dev = dev;
	ep->cfg = cfg ? *cfg : usual;
	if (!ep->cfg.type)
		ep->cfg.type = IBV_QPT_RC;
	ep->cq = ibv_create_cq(dev->ctx, 2 * ep->cfg.depth, NULL, NULL, 0);
	if (!ep->cq)
		t_die("ibv_create_cq: %s", strerror(errno));
	if (ep->cfg.with_srq)
		open_srq(ep);
	open_qp(ep);
	ep->psn = 0xfffff0 + (ep->qp->qp_num & 7);
}

void t_ep_close(struct t_ep *ep)
{
	int err = ibv_destroy_qp(ep->qp);

	if (!err && ep->ah)
		err = ibv_destroy_ah(ep->ah);
	if (!err && ep->srq)
		err = ibv_destroy_srq(ep->srq);
	if (!err)
		err = ibv_destroy_cq(ep->cq);
	if (err)
		t_die("closing an endpoint: %s", strerror(err));
}

void t_ep_addr(const struct t_ep *ep, struct t_addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->qpn = ep->qp->qp_num;
	addr->psn = ep->psn;
	addr->gid = ep->dev->gid;
}

static void modify(struct t_ep *ep, struct ibv_qp_attr *attr, int mask, const char *to)
{
	int err = ibv_modify_qp(ep->qp, attr, mask);

	if (err)
		t_die("queue pair to %s: %s", to, strerror(err));
}

static void to_init(struct t_ep *ep)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE |
			IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
		.qkey = QKEY,
	};

	modify(ep, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
	       (ep->cfg.type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS), "INIT");
}

static struct ibv_ah_attr path_to(const struct t_addr *peer)
{
	struct ibv_ah_attr attr = {
		.is_global = 1,
		.port_num = 1,
		.grh = {
			.dgid = peer->gid,
			.sgid_index = t_opts.gid,
			.hop_limit = 64,
		},
	};

	return attr;
}

/* UC acknowledges nothing, so it has none of what belongs to that. */
static void to_rtr(struct t_ep *ep, const struct t_addr *peer)
{
	int reliable = IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = ep->cfg.mtu,
		.dest_qp_num = peer->qpn,
		.rq_psn = peer->psn,
		.max_dest_rd_atomic = 16,
		.min_rnr_timer = ep->cfg.min_rnr_timer,
		.ah_attr = path_to(peer),
	};

	modify(ep, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
	       IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
	       (ep->cfg.type == IBV_QPT_RC ? reliable : 0), "RTR");
}

static void to_rts(struct t_ep *ep)
{
	int reliable = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		IBV_QP_MAX_QP_RD_ATOMIC;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = ep->cfg.timeout,
		.retry_cnt = ep->cfg.retry_cnt,
		.rnr_retry = ep->cfg.rnr_retry,
		.sq_psn = ep->psn,
		.max_rd_atomic = 16,
	};

	modify(ep, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
	       (ep->cfg.type == IBV_QPT_RC ? reliable : 0), "RTS");
}

/* UD knows no peer: each request says where it goes. */
static void to_rts_datagram(struct t_ep *ep, const struct t_addr *peer)
{
	struct ibv_ah_attr path = path_to(peer);
	struct ibv_qp_attr rtr = { .qp_state = IBV_QPS_RTR };
	struct ibv_qp_attr rts = { .qp_state = IBV_QPS_RTS, .sq_psn = ep->psn };

	modify(ep, &rtr, IBV_QP_STATE, "RTR");
	modify(ep, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN, "RTS");
	ep->peer_qpn = peer->qpn;
	if (!ep->ah)
		ep->ah = ibv_create_ah(ep->dev->pd, &path);
	if (!ep->ah)
		t_die("ibv_create_ah: %s", strerror(errno));
}

void t_ep_connect(struct t_ep *ep, const struct t_addr *peer)
{
	to_init(ep);
	if (ep->cfg.type == IBV_QPT_UD) {
		to_rts_datagram(ep, peer);
		return;
	}
	to_rtr(ep, peer);
	to_rts(ep);
}

static enum ibv_qp_state state_of(struct t_ep *ep)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	if (ibv_query_qp(ep->qp, &attr, IBV_QP_STATE, &init))
		t_die("ibv_query_qp: %s", strerror(errno));
	return attr.qp_state;
}

static void drain_cq(struct t_ep *ep)
{
	struct ibv_wc wc;

	while (ibv_poll_cq(ep->cq, 1, &wc) > 0)
		;
}

/*
 * Back to RESET; what the completion queue still held is thrown away. rxe
 * completes a failed request before its queue pair is in error, and that can
 * come in the middle of the first attempt.
 */
void t_ep_reset(struct t_ep *ep)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };
	int tries;

	for (tries = 0; tries < 10; tries++) {
		modify(ep, &attr, IBV_QP_STATE, "RESET");
		if (state_of(ep) == IBV_QPS_RESET)
			break;
	}
	drain_cq(ep);
	ep->psn = (ep->psn + 0x1234) & 0xffffff;
}

/* A new queue pair in the place of the old one. */
static void renew(struct t_ep *ep)
{
	int err = ibv_destroy_qp(ep->qp);

	if (err)
		t_die("ibv_destroy_qp: %s", strerror(err));
	drain_cq(ep);
	open_qp(ep);
	ep->psn = (ep->psn + 0x1234) & 0xffffff;
}

static void connect_pair(struct t_pair *p)
{
	struct t_addr a, b;

	t_ep_addr(&p->a, &a);
	t_ep_addr(&p->b, &b);
	t_ep_connect(&p->b, &a);
	t_ep_connect(&p->a, &b);
}

void t_pair_open(struct t_pair *p, const struct t_cfg *cfg)
{
	t_dev_open(&p->dev);
	t_ep_open(&p->a, &p->dev, cfg);
	t_ep_open(&p->b, &p->dev, cfg);
	connect_pair(p);
}

/*
 * After an error: new queue pairs. The reset of rxe leaves some of a requester's
 * state as it was, and what the tests are about is not that.
 */
void t_pair_reconnect(struct t_pair *p)
{
	renew(&p->a);
	renew(&p->b);
	connect_pair(p);
}

void t_pair_close(struct t_pair *p)
{
	t_ep_close(&p->a);
	t_ep_close(&p->b);
	t_dev_close(&p->dev);
}

static int mode_access(int access)
{
	return t_opts.odp ? access | IBV_ACCESS_ON_DEMAND : access;
}

struct ibv_mr *t_try_reg(struct t_dev *dev, void *p, size_t len, int access)
{
	if (t_opts.mode == T_IMPLICIT)
		return ibv_reg_mr(dev->pd, NULL, SIZE_MAX, mode_access(access));
	return ibv_reg_mr(dev->pd, p, len, mode_access(access));
}

void t_reg_access(struct t_buf *b, struct t_dev *dev, int access)
{
	b->mr = t_try_reg(dev, b->p, b->len, access);
	if (!b->mr)
		t_die("ibv_reg_mr of %zu bytes: %s", b->len, strerror(errno));
	b->iova = (uintptr_t)b->p;
}

void t_reg(struct t_buf *b, struct t_dev *dev)
{
	t_reg_access(b, dev, T_REMOTE);
}

void t_reg_iova(struct t_buf *b, struct t_dev *dev, u64 iova)
{
	b->mr = ibv_reg_mr_iova(dev->pd, b->p, b->len, iova, mode_access(T_REMOTE));
	if (!b->mr)
		t_die("ibv_reg_mr_iova of %zu bytes: %s", b->len, strerror(errno));
	b->iova = iova;
}

void t_reg_pinned(struct t_buf *b, struct t_dev *dev)
{
	b->mr = ibv_reg_mr(dev->pd, b->p, b->len, T_REMOTE);
	if (!b->mr)
		t_die("ibv_reg_mr of %zu bytes: %s", b->len, strerror(errno));
	b->iova = (uintptr_t)b->p;
}

void t_dereg(struct t_buf *b)
{
	int err = b->mr ? ibv_dereg_mr(b->mr) : 0;

	if (err)
		t_die("ibv_dereg_mr: %s", strerror(err));
	b->mr = NULL;
}

/*
 * What is in @flags changes: the protection domain, the rights, or (to the same memory)
 * the translation. The library's provider has no rereg_mr: the kernel's command, by hand.
 */
int t_rereg(const struct t_buf *b, int flags, struct ibv_pd *pd, int access)
{
	struct ib_uverbs_rereg_mr_resp resp;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_rereg_mr cmd;
	} __attribute__((packed)) msg = {
		.hdr = {
			.command = IB_USER_VERBS_CMD_REREG_MR,
			.in_words = sizeof(msg) / 4,
			.out_words = sizeof(resp) / 4,
		},
		.cmd = {
			.response = (uintptr_t)&resp,
			.mr_handle = b->mr->handle,
			.flags = flags,
			.start = (uintptr_t)b->p,
			.length = b->len,
			.hca_va = b->iova,
			.pd_handle = pd ? pd->handle : 0,
			.access_flags = access,
		},
	};

	return write(b->mr->context->cmd_fd, &msg, sizeof(msg)) < 0 ? errno : 0;
}

static void fill_wr(struct ibv_send_wr *wr, const struct t_op *op)
{
	bool atomic = op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
		op->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;

	wr->opcode = op->opcode;
	wr->sg_list = op->sge;
	wr->num_sge = op->num_sge;
	wr->send_flags = IBV_SEND_SIGNALED | op->flags;
	wr->imm_data = op->imm;
	if (atomic) {
		wr->wr.atomic.remote_addr = op->raddr;
		wr->wr.atomic.rkey = op->rkey;
		wr->wr.atomic.compare_add = op->compare_add;
		wr->wr.atomic.swap = op->swap;
	} else {
		wr->wr.rdma.remote_addr = op->raddr;
		wr->wr.rdma.rkey = op->rkey;
	}
}

static __thread int post_error;

int t_post(struct t_ep *ep, const struct t_op *op, u64 *wr_id)
{
	struct ibv_send_wr wr = { .wr_id = ++ep->next_id }, *bad;
	int err;

	fill_wr(&wr, op);
	if (ep->cfg.type == IBV_QPT_UD) {
		wr.wr.ud.ah = ep->ah;
		wr.wr.ud.remote_qpn = ep->peer_qpn;
		wr.wr.ud.remote_qkey = QKEY;
	}
	if (wr_id)
		*wr_id = wr.wr_id;
	err = ibv_post_send(ep->qp, &wr, &bad);
	post_error = err;
	return err;
}

int t_post_recv_sge(struct t_ep *ep, struct ibv_sge *sge, int num_sge)
{
	struct ibv_recv_wr wr = {
		.wr_id = ++ep->next_id, .sg_list = sge, .num_sge = num_sge,
	}, *bad;

	if (ep->srq)
		return ibv_post_srq_recv(ep->srq, &wr, &bad);
	return ibv_post_recv(ep->qp, &wr, &bad);
}

void t_post_recv(struct t_ep *ep, const struct t_buf *b, size_t off, size_t len)
{
	struct ibv_sge sge = t_sge(b, off, len);
	int err = t_post_recv_sge(ep, &sge, 1);

	if (err)
		t_die("posting a receive: %s", strerror(err));
}

bool t_poll(struct t_ep *ep, struct ibv_wc *wc, int ms)
{
	u64 end = t_deadline(ms);
	unsigned int spins = 0;
	int n;

	/* whoever polls without end takes the CPU from what it waits for */
	while ((n = ibv_poll_cq(ep->cq, 1, wc)) == 0) {
		if (t_now_ms() > end)
			return false;
		if (++spins < 64)
			sched_yield();
		else
			usleep(100);
	}
	if (n < 0)
		t_die("ibv_poll_cq");
	return true;
}

enum ibv_wc_status t_wait(struct t_ep *ep, struct ibv_wc *wc)
{
	struct ibv_wc mine;

	if (!wc)
		wc = &mine;
	return t_poll(ep, wc, T_WAIT_MS) ? wc->status : T_TIMED_OUT;
}

/* Post one request and wait for it; completions of earlier ones are dropped. */
enum ibv_wc_status t_do(struct t_ep *ep, const struct t_op *op)
{
	struct ibv_wc wc;
	u64 id;

	if (t_post(ep, op, &id))
		return T_NOT_POSTED;
	do {
		if (!t_poll(ep, &wc, T_WAIT_MS))
			return T_TIMED_OUT;
	} while (wc.wr_id != id);
	return wc.status;
}

struct ibv_sge t_sge(const struct t_buf *b, size_t off, size_t len)
{
	struct ibv_sge sge = {
		.addr = b->iova + off, .length = len, .lkey = b->mr->lkey,
	};

	return sge;
}

enum ibv_wc_status t_write(struct t_ep *ep, const struct t_buf *src, size_t soff,
			   const struct t_buf *dst, size_t doff, size_t len)
{
	struct ibv_sge sge = t_sge(src, soff, len);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
		.raddr = dst->iova + doff, .rkey = dst->mr->rkey,
	};

	return t_do(ep, &op);
}

enum ibv_wc_status t_read(struct t_ep *ep, const struct t_buf *dst, size_t doff,
			  const struct t_buf *src, size_t soff, size_t len)
{
	struct ibv_sge sge = t_sge(dst, doff, len);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_READ, .sge = &sge, .num_sge = 1,
		.raddr = src->iova + soff, .rkey = src->mr->rkey,
	};

	return t_do(ep, &op);
}

enum ibv_wc_status t_send(struct t_ep *ep, const struct t_buf *src, size_t soff,
			  size_t len)
{
	struct ibv_sge sge = t_sge(src, soff, len);
	struct t_op op = { .opcode = IBV_WR_SEND, .sge = &sge, .num_sge = 1 };

	return t_do(ep, &op);
}

enum ibv_wc_status t_cas(struct t_ep *ep, const struct t_buf *result, size_t roff,
			 const struct t_buf *target, size_t toff, u64 compare,
			 u64 swap)
{
	struct ibv_sge sge = t_sge(result, roff, 8);
	struct t_op op = {
		.opcode = IBV_WR_ATOMIC_CMP_AND_SWP, .sge = &sge, .num_sge = 1,
		.raddr = target->iova + toff, .rkey = target->mr->rkey,
		.compare_add = compare, .swap = swap,
	};

	return t_do(ep, &op);
}

enum ibv_wc_status t_fadd(struct t_ep *ep, const struct t_buf *result, size_t roff,
			  const struct t_buf *target, size_t toff, u64 add)
{
	struct ibv_sge sge = t_sge(result, roff, 8);
	struct t_op op = {
		.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .sge = &sge, .num_sge = 1,
		.raddr = target->iova + toff, .rkey = target->mr->rkey,
		.compare_add = add,
	};

	return t_do(ep, &op);
}

const char *t_status(enum ibv_wc_status status)
{
	if (status == T_TIMED_OUT)
		return "no completion";
	if (status == T_NOT_POSTED)
		return strerror(post_error);
	return ibv_wc_status_str(status);
}
