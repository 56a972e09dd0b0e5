// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Every operation that a transport has, on memory that is not there: RC, UC and UD;
 * messages whose pieces lie in several regions, every second of them pinned in one
 * work request with the others; immediates, invalidation, inline data, shared
 * receive queues, atomics, memory windows of both types, re-registration, and the
 * flags of a registration. Documentation/results.md has the table.
 *
 * A round is cold (all of the region is swapped out) or warm. Each sees the other's
 * bytes if a fault makes a message begin anew in a wrong place.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>

#include "t.h"

#define T_ALL		(T_BOTH | T_IMPLICIT)
#define MAX_PIECES	6
#define ROUNDS		4
#define LEN		(5 * T_PAGE)
#define IMM		0xabcd00U

/* Which of the operations a case is about, and how. */
struct way {
	enum ibv_qp_type type;
	enum ibv_wr_opcode opcode;
	bool srq;
	bool inl;
	enum ibv_mw_type window;
};

/* A message in pieces, each a buffer and a region of its own. */
struct side {
	struct t_buf buf[MAX_PIECES];
	struct ibv_sge sge[MAX_PIECES];
	int n;
	size_t total;
};

struct lens {
	int n;
	size_t len[MAX_PIECES];
};

/* Boundaries nowhere equal; on UD all of it fits a packet, and the GRH comes first. */
static const struct lens gather = { 6, { 5, 4097, 1, 9000, 2048, 3 } };
static const struct lens scatter = { 6, { 4097, 2, 9001, 1023, 7, 2000 } };
static const struct lens gather_ud = { 5, { 5, 1021, 1, 2007, 400 } };
static const struct lens scatter_ud = { 6, { T_GRH, 3, 1500, 1, 1700, 900 } };
static const struct lens small = { 3, { 3, 60, 130 } };

/* Out of memory, so that whoever uses it next has to fault. */
static void cool(const struct t_buf *b)
{
	if (t_opts.mode == T_PINNED)
		return;
	t_check(t_pageout(b->map, b->map_len), "the buffer stays in memory");
}

static bool is_cold_round(u64 round)
{
	return round % 2;
}

static void open_side(struct side *s, struct t_dev *dev, const struct lens *lens)
{
	int i;

	memset(s, 0, sizeof(*s));
	s->n = lens->n;
	for (i = 0; i < s->n; i++) {
		t_buf_alloc(&s->buf[i], (i * 1237 + T_PAGE - 3) % T_PAGE, lens->len[i]);
		if (i % 2)
			t_reg_pinned(&s->buf[i], dev);
		else
			t_reg(&s->buf[i], dev);
		s->sge[i] = t_sge(&s->buf[i], 0, lens->len[i]);
		s->total += lens->len[i];
	}
}

static void cool_side(const struct side *s)
{
	int i;

	for (i = 0; i < s->n; i += 2)
		cool(&s->buf[i]);
}

static void fill_side(const struct side *s, u64 round)
{
	size_t pos = 0;
	int i;

	for (i = 0; i < s->n; i++) {
		t_fill_at(s->buf[i].p, s->buf[i].len, pos, round);
		pos += s->buf[i].len;
	}
}

static void check_piece(const struct t_buf *b, size_t pos, size_t part, u64 round,
			const char *what)
{
	t_check(t_matches_at(b->p, part, pos, round), "%s: wrong bytes", what);
	t_check(t_matches_at(b->p + part, b->len - part, pos + part, round + 1000),
		"%s: bytes behind the end", what);
	t_buf_guard_check(b, what);
}

/* From piece @first on: @total bytes of the round, and what was there behind them. */
static void check_side(const struct side *s, int first, size_t total, u64 round,
		       const char *what)
{
	size_t pos = 0, left, len;
	int i;

	for (i = first; i < s->n; i++, pos += len) {
		left = total > pos ? total - pos : 0;
		len = s->buf[i].len;
		check_piece(&s->buf[i], pos, left < len ? left : len, round, what);
	}
	t_check(pos >= total, "the pieces are too short for the message");
}

/* What must be behind the end of a message of the round. */
static void fill_behind(const struct side *s, int first, u64 round)
{
	size_t pos = 0;
	int i;

	for (i = first; i < s->n; i++) {
		t_fill_at(s->buf[i].p, s->buf[i].len, pos, round + 1000);
		pos += s->buf[i].len;
	}
}

static void open_pair(struct t_pair *p, const struct way *w)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	cfg.type = w->type;
	cfg.with_srq = w->srq;
	cfg.max_inline = w->inl ? 256 : 0;
	t_pair_open(p, &cfg);
}

static void check_receive(struct t_ep *ep, const struct way *w, size_t len, u64 round)
{
	size_t grh = w->type == IBV_QPT_UD ? T_GRH : 0;
	struct ibv_wc wc;

	t_expect(t_wait(ep, &wc), IBV_WC_SUCCESS, "receive");
	t_check(wc.byte_len == len + grh, "received %u bytes of %zu", wc.byte_len, len + grh);
	if (w->opcode == IBV_WR_SEND_WITH_IMM)
		t_check(wc.wc_flags & IBV_WC_WITH_IMM && wc.imm_data == IMM + round,
			"immediate %#x", wc.imm_data);
}

/* What is sent inline may lie anywhere, in no region. */
static void no_region(struct side *s)
{
	int i;

	for (i = 0; i < s->n; i++) {
		t_dereg(&s->buf[i]);
		s->sge[i].lkey = 0;
	}
}

static void send_round(struct t_pair *p, const struct way *w, struct side *from,
		       struct side *to, u64 round)
{
	int first = w->type == IBV_QPT_UD;
	struct t_op op = {
		.opcode = w->opcode, .sge = from->sge, .num_sge = from->n,
		.imm = IMM + round, .flags = w->inl ? IBV_SEND_INLINE : 0,
	};

	fill_side(from, round);
	fill_behind(to, first, round);
	if (is_cold_round(round)) {
		cool_side(from);
		cool_side(to);
	}
	t_check(!t_post_recv_sge(&p->b, to->sge, to->n), "posting the receive");
	t_expect(t_do(&p->a, &op), IBV_WC_SUCCESS, "SEND in round %d", (int)round);
	check_receive(&p->b, w, from->total, round);
	check_side(to, first, from->total, round, "received message");
	check_side(from, 0, from->total, round, "sent message");
}

static void send_receive(const void *arg)
{
	const struct way *w = arg;
	bool ud = w->type == IBV_QPT_UD;
	struct side from, to;
	struct t_pair p;
	u64 round;

	open_pair(&p, w);
	open_side(&from, &p.dev, w->inl ? &small : ud ? &gather_ud : &gather);
	open_side(&to, &p.dev, ud ? &scatter_ud : &scatter);
	if (w->inl)
		no_region(&from);
	for (round = 1; round <= ROUNDS; round++)
		send_round(&p, w, &from, &to, round);
}

/*
 * Nothing tells the sender on UC that a WRITE has been executed: a message behind it
 * tells the receiver.
 */
static void post_barrier(struct t_pair *p)
{
	struct t_op op = { .opcode = IBV_WR_SEND };

	t_check(!t_post_recv_sge(&p->b, NULL, 0), "posting the receive");
	t_expect(t_do(&p->a, &op), IBV_WC_SUCCESS, "message behind the WRITE");
	t_expect(t_wait(&p->b, NULL), IBV_WC_SUCCESS, "receive behind the WRITE");
}

static void check_write_imm(struct t_pair *p, u64 round, size_t len)
{
	struct ibv_wc wc;

	t_expect(t_wait(&p->b, &wc), IBV_WC_SUCCESS, "receive of the immediate");
	t_check(wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM && wc.imm_data == IMM + round,
		"immediate %#x", wc.imm_data);
	t_check(wc.byte_len == len, "the receiver is told of %u bytes, not %zu", wc.byte_len,
		len);
}

static void write_round(struct t_pair *p, const struct way *w, struct side *from,
			struct t_buf *to, u64 round)
{
	bool imm = w->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	struct t_op op = {
		.opcode = w->opcode, .sge = from->sge, .num_sge = from->n,
		.raddr = to->iova, .rkey = to->mr->rkey,
		.imm = IMM + round, .flags = w->inl ? IBV_SEND_INLINE : 0,
	};

	fill_side(from, round);
	if (is_cold_round(round)) {
		cool_side(from);
		cool(to);
	}
	if (imm)
		t_check(!t_post_recv_sge(&p->b, NULL, 0), "posting the receive");
	t_expect(t_do(&p->a, &op), IBV_WC_SUCCESS, "WRITE in round %d", (int)round);
	if (imm)
		check_write_imm(p, round, from->total);
	else if (w->type == IBV_QPT_UC)
		post_barrier(p);
	t_check_buf(to, round, "WRITE");
}

static void write_gathered(const void *arg)
{
	const struct way *w = arg;
	struct side from;
	struct t_pair p;
	struct t_buf to;
	u64 round;

	open_pair(&p, w);
	open_side(&from, &p.dev, w->inl ? &small : &gather);
	t_buf_alloc(&to, T_PAGE - 77, from.total);
	t_reg(&to, &p.dev);
	if (w->inl)
		no_region(&from);
	for (round = 1; round <= ROUNDS; round++)
		write_round(&p, w, &from, &to, round);
}

static void read_scattered(const void *arg)
{
	struct t_op op = { .opcode = IBV_WR_RDMA_READ };
	struct t_buf from;
	struct t_pair p;
	struct side to;
	u64 round;

	open_pair(&p, arg);
	open_side(&to, &p.dev, &scatter);
	t_buf_alloc(&from, 4001, to.total);
	t_reg(&from, &p.dev);
	op.sge = to.sge;
	op.num_sge = to.n;
	op.raddr = from.iova;
	op.rkey = from.mr->rkey;
	for (round = 1; round <= ROUNDS; round++) {
		t_fill_buf(&from, round);
		if (is_cold_round(round)) {
			cool_side(&to);
			cool(&from);
		}
		t_expect(t_do(&p.a, &op), IBV_WC_SUCCESS, "READ in round %d", (int)round);
		check_side(&to, 0, to.total, round, "READ");
		t_check_buf(&from, round, "what was read");
	}
}

/* ---- atomics: in the last word of a page, the result in another ---- */

#define WORD	(2 * T_PAGE - 8)

struct words {
	struct t_pair pair;
	struct t_buf result;
	struct t_buf target;
};

static u64 word_of(const struct t_buf *b, size_t off)
{
	u64 value;

	memcpy(&value, b->p + off, 8);
	return value;
}

static void open_words(struct words *x, const struct way *w)
{
	open_pair(&x->pair, w);
	t_buf_alloc(&x->result, 0, LEN);
	t_buf_alloc(&x->target, 0, LEN);
	t_reg(&x->result, &x->pair.dev);
	t_reg(&x->target, &x->pair.dev);
	t_fill_buf(&x->target, 1);
	t_fill_buf(&x->result, 2);
	memset(x->target.p + WORD, 0, 8);
	memset(x->result.p + T_PAGE, 0, 8);
}

static void cool_words(struct words *x, u64 round)
{
	if (!is_cold_round(round))
		return;
	cool(&x->result);
	cool(&x->target);
}

/* The word has the value, and what is around it has not changed. */
static void check_words(struct words *x, u64 value, u64 before)
{
	t_check(word_of(&x->target, WORD) == value, "the word is %#llx, not %#llx",
		(unsigned long long)word_of(&x->target, WORD), (unsigned long long)value);
	t_check(word_of(&x->result, T_PAGE) == before, "the result is %#llx, not %#llx",
		(unsigned long long)word_of(&x->result, T_PAGE), (unsigned long long)before);
	t_check(t_matches(x->target.p, WORD, 1), "bytes before the word changed");
	t_check(t_matches_at(x->target.p + WORD + 8, LEN - WORD - 8, WORD + 8, 1),
		"bytes behind the word changed");
	t_check(t_matches(x->result.p, T_PAGE, 2), "bytes before the result changed");
	t_check(t_matches_at(x->result.p + T_PAGE + 8, LEN - T_PAGE - 8, T_PAGE + 8, 2),
		"bytes behind the result changed");
}

static void compare_and_swap(const void *arg)
{
	struct words x;
	u64 round;

	open_words(&x, arg);
	for (round = 1; round <= ROUNDS; round++) {
		cool_words(&x, round);
		t_expect(t_cas(&x.pair.a, &x.result, T_PAGE, &x.target, WORD, round - 1, round),
			 IBV_WC_SUCCESS, "compare and swap that succeeds");
		check_words(&x, round, round - 1);
		cool_words(&x, round);
		t_expect(t_cas(&x.pair.a, &x.result, T_PAGE, &x.target, WORD, 77, 78),
			 IBV_WC_SUCCESS, "compare and swap that fails");
		check_words(&x, round, round);
	}
}

static void fetch_and_add(const void *arg)
{
	u64 sum = 0, round, add = 0x100000000000001ULL;
	struct words x;

	open_words(&x, arg);
	for (round = 1; round <= ROUNDS; round++) {
		cool_words(&x, round);
		t_expect(t_fadd(&x.pair.a, &x.result, T_PAGE, &x.target, WORD, add),
			 IBV_WC_SUCCESS, "fetch and add");
		check_words(&x, sum + add, sum);
		sum += add;
	}
}

/* The extended queue pair, which alone has the call, in the place of the usual one. */
static void with_atomic_write(struct t_pair *p)
{
	struct ibv_qp_init_attr_ex attr = {
		.send_cq = p->a.cq,
		.recv_cq = p->a.cq,
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1,
			 .max_recv_sge = 1 },
		.pd = p->dev.pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_ATOMIC_WRITE,
	};
	struct t_addr a, b;

	t_check(!ibv_destroy_qp(p->a.qp), "ibv_destroy_qp");
	p->a.qp = ibv_create_qp_ex(p->dev.ctx, &attr);
	t_check(p->a.qp, "ibv_create_qp_ex: %s", strerror(errno));
	t_ep_reset(&p->b);
	t_ep_addr(&p->a, &a);
	t_ep_addr(&p->b, &b);
	t_ep_connect(&p->b, &a);
	t_ep_connect(&p->a, &b);
}

static enum ibv_wc_status do_atomic_write(struct t_ep *ep, const struct t_buf *to,
					  size_t off, u64 value)
{
	struct ibv_qp_ex *qpx = ibv_qp_to_qp_ex(ep->qp);

	ibv_wr_start(qpx);
	qpx->wr_id = ++ep->next_id;
	qpx->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_atomic_write(qpx, to->mr->rkey, to->iova + off, &value);
	if (ibv_wr_complete(qpx))
		return T_NOT_POSTED;
	return t_wait(ep, NULL);
}

static void atomic_write(const void *arg)
{
	struct words x;
	u64 round, value;

	open_words(&x, arg);
	with_atomic_write(&x.pair);
	for (round = 1; round <= ROUNDS; round++) {
		value = round * 0x123456789abcdefULL;
		cool_words(&x, round);
		t_expect(do_atomic_write(&x.pair.a, &x.target, WORD, value), IBV_WC_SUCCESS,
			 "atomic write");
		check_words(&x, value, 0);
	}
}

/* ---- what a transport does not have ---- */

/* Stock rxe calls every request flushed whose requester found an error (patch 0001). */
static enum ibv_wc_status own_error(enum ibv_wc_status status)
{
	const char *variant = getenv("UNPIN_VARIANT");

	return variant && !strcmp(variant, "stock") ? IBV_WC_WR_FLUSH_ERR : status;
}

static void refused(const void *arg)
{
	static const enum ibv_wr_opcode opcodes[] = {
		IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD,
		IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE,
	};
	const struct way *w = arg;
	size_t i, n = w->type == IBV_QPT_UD ? 5 : 4;
	struct t_buf local, remote;
	struct ibv_sge sge;
	struct t_op op = { .sge = &sge, .num_sge = 1 };
	enum ibv_wc_status status;
	struct t_pair p;

	open_pair(&p, w);
	t_buf_alloc(&local, 8, LEN);
	t_buf_alloc(&remote, 8, LEN);
	t_reg(&local, &p.dev);
	t_reg(&remote, &p.dev);
	t_fill_buf(&local, 1);
	sge = t_sge(&local, 0, 8);
	op.raddr = remote.iova;
	op.rkey = remote.mr->rkey;
	for (i = 0; i < n; i++) {
		op.opcode = opcodes[i];
		status = t_do(&p.a, &op);
		t_check(status == own_error(IBV_WC_LOC_QP_OP_ERR) || status == T_NOT_POSTED,
			"opcode %d: %s", opcodes[i], t_status(status));
		t_pair_reconnect(&p);
		t_check(t_all_zero(remote.p, LEN), "opcode %d wrote", opcodes[i]);
	}
}

/* ---- memory windows: bound by the side whose memory it is, to the middle of it ---- */

#define WIN_OFF		(T_PAGE + 100)
#define WIN_LEN		(2 * T_PAGE)
#define OUTSIDE		9	/* the round of what no window shows */

struct window {
	struct t_pair pair;
	struct t_buf buf;
	struct t_buf scratch;
	struct ibv_mw *mw;
	struct ibv_mr *mr;	/* the region; buf.mr has the window's key */
	struct ibv_mr key;
	u64 round;	/* of the last transfer, from OUTSIDE on */
};

static enum ibv_wc_status bind_type_1(struct window *x, struct ibv_mw_bind_info *info)
{
	struct ibv_mw_bind bind = { .send_flags = IBV_SEND_SIGNALED, .bind_info = *info };
	struct ibv_wc wc;
	int err = ibv_bind_mw(x->pair.b.qp, x->mw, &bind);

	t_check(!err, "ibv_bind_mw: %s", strerror(err));
	return t_wait(&x->pair.b, &wc);
}

static enum ibv_wc_status bind_type_2(struct window *x, struct ibv_mw_bind_info *info)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = { .mw = x->mw, .rkey = ibv_inc_rkey(x->mw->rkey) },
	}, *bad;
	enum ibv_wc_status status;
	int err;

	wr.bind_mw.bind_info = *info;
	err = ibv_post_send(x->pair.b.qp, &wr, &bad);
	t_check(!err, "posting the bind: %s", strerror(err));
	status = t_wait(&x->pair.b, NULL);
	if (status == IBV_WC_SUCCESS)
		x->mw->rkey = wr.bind_mw.rkey;
	return status;
}

static enum ibv_wc_status bind_window(struct window *x, size_t off, size_t len,
				      unsigned int access)
{
	struct ibv_mw_bind_info info = {
		.mr = x->mr, .addr = x->buf.iova + off, .length = len,
		.mw_access_flags = access,
	};
	enum ibv_wc_status status;

	status = x->mw->type == IBV_MW_TYPE_1 ? bind_type_1(x, &info) :
						bind_type_2(x, &info);
	x->key.rkey = x->mw->rkey;
	return status;
}

/* The region gives a peer nothing: what it may do it may do by the window. */
static void open_window(struct window *x, const struct way *w)
{
	memset(x, 0, sizeof(*x));
	open_pair(&x->pair, w);
	t_buf_alloc(&x->buf, 0, LEN);
	t_reg_access(&x->buf, &x->pair.dev, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	t_buf_alloc(&x->scratch, 0, LEN);
	t_reg_pinned(&x->scratch, &x->pair.dev);
	x->mw = ibv_alloc_mw(x->pair.dev.pd, w->window);
	t_check(x->mw, "ibv_alloc_mw: %s", strerror(errno));
	x->mr = x->buf.mr;
	x->key = *x->mr;
	x->buf.mr = &x->key;
	t_fill_buf(&x->buf, OUTSIDE);
	x->round = OUTSIDE;
}

static void window_write(struct window *x, size_t off, size_t len)
{
	x->round++;
	cool(&x->buf);
	t_fill_at(x->scratch.p, len, off, x->round);
	t_expect(t_write(&x->pair.a, &x->scratch, 0, &x->buf, off, len), IBV_WC_SUCCESS,
		 "WRITE through the window");
	if (x->pair.a.cfg.type == IBV_QPT_UC)
		post_barrier(&x->pair);
	t_check(t_matches_at(x->buf.p + off, len, off, x->round), "WRITE through the window");
}

static void window_read(struct window *x, size_t off, size_t len)
{
	x->round++;
	t_fill_at(x->buf.p + off, len, off, x->round);
	cool(&x->buf);
	memset(x->scratch.p, 0, len);
	t_expect(t_read(&x->pair.a, &x->scratch, 0, &x->buf, off, len), IBV_WC_SUCCESS,
		 "READ through the window");
	t_check(t_matches_at(x->scratch.p, len, off, x->round), "READ through the window");
}

static void window_add(struct window *x, size_t off)
{
	u64 before = word_of(&x->buf, off);

	cool(&x->buf);
	t_expect(t_fadd(&x->pair.a, &x->scratch, 0, &x->buf, off, 5), IBV_WC_SUCCESS,
		 "atomic through the window");
	t_check(word_of(&x->buf, off) == before + 5, "atomic through the window");
}

static void window_refuses(struct window *x, enum ibv_wr_opcode opcode, size_t off,
			   size_t len, const char *what)
{
	static u8 before[LEN];
	enum ibv_wc_status status;

	memcpy(before, x->buf.p, LEN);
	memset(x->scratch.p, 0x5a, LEN);
	if (opcode == IBV_WR_RDMA_WRITE)
		status = t_write(&x->pair.a, &x->scratch, 0, &x->buf, off, len);
	else if (opcode == IBV_WR_RDMA_READ)
		status = t_read(&x->pair.a, &x->scratch, 0, &x->buf, off, len);
	else
		status = t_fadd(&x->pair.a, &x->scratch, 0, &x->buf, off, 1);
	t_expect(status, IBV_WC_REM_ACCESS_ERR, "%s", what);
	t_check(!memcmp(before, x->buf.p, LEN), "%s: refused, and yet it wrote", what);
	t_check(x->scratch.p[0] == 0x5a, "%s: refused, and yet it read", what);
}

/*
 * After an error: a window of type 2 is of its queue pair, and of one of type 1 that
 * was not bound the library has another key than the kernel.
 */
static void window_again(struct window *x)
{
	enum ibv_mw_type type = x->mw->type;

	t_check(!ibv_dealloc_mw(x->mw), "ibv_dealloc_mw");
	t_pair_reconnect(&x->pair);
	x->mw = ibv_alloc_mw(x->pair.dev.pd, type);
	t_check(x->mw, "ibv_alloc_mw: %s", strerror(errno));
}

static void window_gives_access(const void *arg)
{
	const struct way *w = arg;
	struct window x;

	open_window(&x, w);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE |
			     IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC),
		 IBV_WC_SUCCESS, "bind");
	window_write(&x, WIN_OFF, WIN_LEN);
	window_write(&x, WIN_OFF + 1, 5);
	if (w->type == IBV_QPT_RC) {
		window_read(&x, WIN_OFF, WIN_LEN);
		window_add(&x, 2 * T_PAGE);
		x.key.rkey = x.mr->rkey;
		window_refuses(&x, IBV_WR_RDMA_WRITE, WIN_OFF, 8, "WRITE past the window");
	}
	t_check(t_matches(x.buf.p, WIN_OFF, OUTSIDE), "bytes before the window");
	t_check(t_matches_at(x.buf.p + WIN_OFF + WIN_LEN, LEN - WIN_OFF - WIN_LEN,
			     WIN_OFF + WIN_LEN, OUTSIDE), "bytes behind the window");
}

static void window_has_rights(const void *arg)
{
	struct window x;

	open_window(&x, arg);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_READ), IBV_WC_SUCCESS,
		 "bind for reading");
	window_read(&x, WIN_OFF, WIN_LEN);
	window_refuses(&x, IBV_WR_RDMA_WRITE, WIN_OFF, 8, "WRITE to a window for reading");
	window_again(&x);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind for writing");
	window_write(&x, WIN_OFF, WIN_LEN);
	window_refuses(&x, IBV_WR_RDMA_READ, WIN_OFF, 8, "READ of a window for writing");
	window_again(&x);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind for writing");
	window_refuses(&x, IBV_WR_ATOMIC_FETCH_AND_ADD, 2 * T_PAGE, 8,
		       "atomic on a window for writing");
}

static void window_has_bounds(const void *arg)
{
	static const struct { size_t off, len; } outside[] = {
		{ WIN_OFF - 1, 1 }, { WIN_OFF - 1, 2 }, { WIN_OFF + WIN_LEN, 1 },
		{ WIN_OFF + WIN_LEN - 1, 2 }, { 0, LEN }, { LEN - 8, 8 },
	};
	unsigned int access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
	struct window x;
	size_t i;

	open_window(&x, arg);
	for (i = 0; i < T_ARRAY_SIZE(outside); i++) {
		t_expect(bind_window(&x, WIN_OFF, WIN_LEN, access), IBV_WC_SUCCESS, "bind");
		cool(&x.buf);
		window_refuses(&x, IBV_WR_RDMA_WRITE, outside[i].off, outside[i].len,
			       "WRITE out of the window's bounds");
		window_again(&x);
		t_expect(bind_window(&x, WIN_OFF, WIN_LEN, access), IBV_WC_SUCCESS, "bind");
		window_refuses(&x, IBV_WR_RDMA_READ, outside[i].off, outside[i].len,
			       "READ out of the window's bounds");
		window_again(&x);
	}
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, access), IBV_WC_SUCCESS, "bind");
	window_write(&x, WIN_OFF, WIN_LEN);
}

/* Nor can it be bound to what is not in the region. */
static void window_bound_outside(const void *arg)
{
	static const struct { size_t off, len; } outside[] = {
		{ -1UL, 2 }, { LEN - 1, 2 }, { 0, LEN + 1 }, { LEN, 1 },
	};
	struct window x;
	size_t i;

	open_window(&x, arg);
	for (i = 0; i < T_ARRAY_SIZE(outside); i++) {
		t_expect(bind_window(&x, outside[i].off, outside[i].len,
				     IBV_ACCESS_REMOTE_WRITE),
			 own_error(IBV_WC_MW_BIND_ERR), "bind outside of the region");
		window_again(&x);
	}
	t_expect(bind_window(&x, 0, LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS, "bind");
	window_write(&x, 0, LEN);
}

static enum ibv_wc_status invalidate(struct t_ep *ep, u32 rkey)
{
	struct t_op op = { .opcode = IBV_WR_LOCAL_INV, .imm = rkey };

	return t_do(ep, &op);
}

static void window_unbound(const void *arg)
{
	const struct way *w = arg;
	struct window x;
	u32 old;

	open_window(&x, w);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind");
	window_write(&x, WIN_OFF, WIN_LEN);
	t_check(ibv_dereg_mr(x.mr), "the region went with a window bound to it");
	old = x.key.rkey;
	if (w->window == IBV_MW_TYPE_1)
		t_expect(bind_window(&x, 0, 0, 0), IBV_WC_SUCCESS, "bind to nothing");
	else
		t_expect(invalidate(&x.pair.b, x.mw->rkey), IBV_WC_SUCCESS, "invalidation");
	x.key.rkey = old;
	window_refuses(&x, IBV_WR_RDMA_WRITE, WIN_OFF, 8, "WRITE to a window that is gone");
	window_again(&x);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind once more");
	window_write(&x, WIN_OFF, WIN_LEN);
	t_check(!ibv_dealloc_mw(x.mw), "ibv_dealloc_mw");
	t_check(!ibv_dereg_mr(x.mr), "the region stays without a window");
}

/*
 * A queue pair takes its windows of type 2 along. Stock rxe waits for 50 s and warns
 * here, and the window has a queue pair that is no more.
 */
static void queue_pair_before_window(const void *arg)
{
	struct window x;

	open_window(&x, arg);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind");
	window_write(&x, WIN_OFF, WIN_LEN);
	t_pair_reconnect(&x.pair);
	window_refuses(&x, IBV_WR_RDMA_WRITE, WIN_OFF, 8, "WRITE to a window that is gone");
	t_check(!ibv_dereg_mr(x.mr), "the region stays with no window bound to it");
	t_check(!ibv_dealloc_mw(x.mw), "ibv_dealloc_mw");
}

static int mode_flag(void)
{
	return t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0;
}

static void spin_us(unsigned int us)
{
	struct timespec now;
	u64 end;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec * 1000000ULL + now.tv_nsec / 1000 + us;
	while (now.tv_sec * 1000000ULL + now.tv_nsec / 1000 < end)
		clock_gettime(CLOCK_MONOTONIC, &now);
}

static struct ibv_mr *reg_for_windows(struct window *x)
{
	struct ibv_mr *mr = ibv_reg_mr(x->pair.dev.pd, x->buf.p, LEN, IBV_ACCESS_LOCAL_WRITE |
				       IBV_ACCESS_MW_BIND | mode_flag());

	t_check(mr, "ibv_reg_mr: %s", strerror(errno));
	return mr;
}

/* Posts a bind, and takes the region away after so long. True if that came first. */
static bool dereg_was_first(struct window *x, unsigned int us)
{
	struct ibv_mr *mr = reg_for_windows(x);
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = {
			.mw = x->mw, .rkey = ibv_inc_rkey(x->mw->rkey),
			.bind_info = {
				.mr = mr, .addr = (uintptr_t)x->buf.p, .length = LEN,
				.mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
			},
		},
	}, *bad;
	u32 lkey = mr->lkey;
	int err;

	t_check(!ibv_post_send(x->pair.b.qp, &wr, &bad), "posting the bind");
	spin_us(us);
	err = ibv_dereg_mr(mr);
	if (!err) {
		t_expect(t_wait(&x->pair.b, NULL), IBV_WC_MW_BIND_ERR,
			 "bind to a region (%#x) that is gone", lkey);
		window_again(x);
		return true;
	}
	t_check(err == EINVAL, "ibv_dereg_mr: %s", strerror(err));
	t_expect(t_wait(&x->pair.b, NULL), IBV_WC_SUCCESS, "bind to a region that stays");
	x->mw->rkey = wr.bind_mw.rkey;
	t_expect(invalidate(&x->pair.b, x->mw->rkey), IBV_WC_SUCCESS, "invalidation");
	t_check(!ibv_dereg_mr(mr), "the region stays without a window");
	return false;
}

/*
 * Stock rxe looks whether a region has windows, and then takes it away: a window that
 * was bound in between keeps it for 50 s, and is used after it was freed. The wait in
 * between closes in on the moment at which both come first equally often.
 */
static void dereg_against_bind(const void *arg)
{
	unsigned int i, us = 0, first = 0;
	struct window x;

	open_window(&x, arg);
	for (i = 0; i < 400; i++) {
		if (dereg_was_first(&x, us)) {
			first++;
			us += 1 + us / 8;
		} else {
			us -= us / 8 + !!us;
		}
	}
	t_diag("dereg came first in %u of %u rounds", first, i);
	t_check(first && first < i, "there was no race");
}

/* A message that takes the window away, into memory that is not there. */
static void send_with_invalidate(const void *arg)
{
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_SEND_WITH_INV, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	struct window x;
	struct t_buf in;

	open_window(&x, arg);
	t_buf_alloc(&in, T_PAGE - 9, LEN);
	t_reg(&in, &x.pair.dev);
	t_expect(bind_window(&x, WIN_OFF, WIN_LEN, IBV_ACCESS_REMOTE_WRITE), IBV_WC_SUCCESS,
		 "bind");
	window_write(&x, WIN_OFF, WIN_LEN);
	cool(&in);
	t_fill(x.scratch.p, LEN, 50);
	sge = t_sge(&x.scratch, 0, LEN);
	op.imm = x.mw->rkey;
	t_post_recv(&x.pair.b, &in, 0, LEN);
	t_expect(t_do(&x.pair.a, &op), IBV_WC_SUCCESS, "SEND with invalidate");
	t_expect(t_wait(&x.pair.b, &wc), IBV_WC_SUCCESS, "receive");
	/* in wc_flags rxe has the kernel's bit for it, which is another than the library's */
	t_check(wc.invalidated_rkey == x.mw->rkey, "key %#x went, not %#x",
		wc.invalidated_rkey, x.mw->rkey);
	t_check_buf(&in, 50, "SEND with invalidate");
	window_refuses(&x, IBV_WR_RDMA_WRITE, WIN_OFF, 8, "WRITE to a window that is gone");
}

/* ---- registration ---- */

static void use(struct t_region *r, struct t_buf *b)
{
	r->buf = *b;
	t_fill_buf(&r->buf, 1);
	cool(&r->buf);
	t_region_exchange(r, T_PAGE - 3, 2 * T_PAGE);
	cool(&r->buf);
	t_region_exchange(r, 0, LEN);
}

/* What was pinned for reading only cannot be had for writing; on demand nothing was. */
static void rereg_rights(const void *arg)
{
	int first = t_opts.odp ? IBV_ACCESS_REMOTE_READ : T_REMOTE;
	struct t_region r;

	(void)arg;
	t_region_open_access(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN, first);
	t_fill_buf(&r.buf, 3);
	cool(&r.buf);
	t_region_read(&r, 0, LEN, 3);
	t_check(!t_rereg(&r.buf, IBV_REREG_MR_CHANGE_ACCESS, NULL, T_REMOTE | mode_flag()),
		"re-registration for everything");
	use(&r, &r.buf);
	t_check(!t_rereg(&r.buf, IBV_REREG_MR_CHANGE_ACCESS, NULL,
			 IBV_ACCESS_REMOTE_READ | mode_flag()), "re-registration for reading");
	cool(&r.buf);
	t_region_read(&r, 0, LEN, r.round);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE after the right was taken away");
}

/* The region goes to another domain: who could use it cannot, and the other way round. */
static void rereg_domain(const void *arg)
{
	struct t_region r, other;
	struct t_buf b;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	t_region_open(&other, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	other.pair.dev.pd = ibv_alloc_pd(r.pair.dev.ctx);
	t_check(other.pair.dev.pd, "ibv_alloc_pd: %s", strerror(errno));
	other.pair.dev.ctx = r.pair.dev.ctx;
	t_ep_open(&other.pair.a, &other.pair.dev, NULL);
	t_ep_open(&other.pair.b, &other.pair.dev, NULL);
	t_pair_reconnect(&other.pair);
	t_reg_pinned(&other.scratch, &other.pair.dev);
	b = r.buf;
	use(&r, &b);
	t_check(!t_rereg(&b, IBV_REREG_MR_CHANGE_PD, other.pair.dev.pd, 0), "another domain");
	use(&other, &b);
	cool(&b);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &b, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE from the domain that it left");
	t_pair_reconnect(&r.pair);
	t_check(!t_rereg(&b, IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS,
			 r.pair.dev.pd, T_REMOTE | mode_flag()), "back, with rights");
	use(&r, &b);
	t_expect(t_read(&other.pair.a, &other.scratch, 0, &b, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "READ from the domain that it left");
}

/* What rxe does for no region: said clearly, and the region is as it was. */
static void rereg_translation(const void *arg)
{
	struct t_region r;
	int err;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	err = t_rereg(&r.buf, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, 0);
	t_check(err == EOPNOTSUPP, "another translation: %s", strerror(err));
	err = t_rereg(&r.buf, IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_ACCESS,
		      NULL, IBV_ACCESS_REMOTE_READ | mode_flag());
	t_check(err == EOPNOTSUPP, "translation and rights: %s", strerror(err));
	use(&r, &r.buf);
}

static void relaxed_ordering(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_region_open_access(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN,
			     T_REMOTE | IBV_ACCESS_RELAXED_ORDERING);
	use(&r, &r.buf);
}

static void huge_flag(const void *arg)
{
	struct t_region r;
	u8 *p;

	(void)arg;
	t_write_file("/proc/sys/vm/nr_hugepages", "2");
	t_check(t_read_long("/proc/sys/vm/nr_hugepages") >= 2, "no huge pages to reserve");
	p = t_map(2 * T_HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	t_region_open_access(&r, p, 2 * T_HUGE, T_REMOTE | IBV_ACCESS_HUGETLB);
	t_region_exchange(&r, T_HUGE - 5, T_PAGE);
	t_region_exchange(&r, 77, 3 * T_PAGE);
	t_check(t_huge_bytes(p) == 2 * T_HUGE, "%llu bytes are huge",
		(unsigned long long)t_huge_bytes(p));
}

/* rxe has none of pinned memory either; an iova of 0 gives the same. */
static void zero_based(const void *arg)
{
	struct t_region r;
	struct t_buf b;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	errno = 0;
	t_check(!t_try_reg(&r.pair.dev, r.buf.p, LEN, T_REMOTE | IBV_ACCESS_ZERO_BASED) &&
		errno == EOPNOTSUPP, "a zero-based region: %s", strerror(errno));
	t_buf_wrap(&b, r.buf.p, LEN);
	t_reg_iova(&b, &r.pair.dev, 0);
	use(&r, &b);
}

#define WAY(...) (&(const struct way){ __VA_ARGS__ })
#define RC(...)	WAY(.type = IBV_QPT_RC, __VA_ARGS__)
#define UC(...)	WAY(.type = IBV_QPT_UC, __VA_ARGS__)
#define UD(...)	WAY(.type = IBV_QPT_UD, __VA_ARGS__)
#define TYPE_1	.window = IBV_MW_TYPE_1
#define TYPE_2	.window = IBV_MW_TYPE_2

static const struct t_case cases[] = {
	{ "RC SEND", T_ALL, send_receive, RC(.opcode = IBV_WR_SEND) },
	{ "UC SEND", T_ALL, send_receive, UC(.opcode = IBV_WR_SEND) },
	{ "UD SEND", T_ALL, send_receive, UD(.opcode = IBV_WR_SEND) },
	{ "RC SEND with immediate", T_ALL, send_receive, RC(.opcode = IBV_WR_SEND_WITH_IMM) },
	{ "UC SEND with immediate", T_ALL, send_receive, UC(.opcode = IBV_WR_SEND_WITH_IMM) },
	{ "UD SEND with immediate", T_ALL, send_receive, UD(.opcode = IBV_WR_SEND_WITH_IMM) },
	{ "RC SEND inline", T_ALL, send_receive, RC(.opcode = IBV_WR_SEND, .inl = true) },
	{ "UC SEND inline", T_ALL, send_receive, UC(.opcode = IBV_WR_SEND, .inl = true) },
	{ "UD SEND inline", T_ALL, send_receive, UD(.opcode = IBV_WR_SEND, .inl = true) },
	{ "RC shared receive queue", T_ALL, send_receive,
	  RC(.opcode = IBV_WR_SEND, .srq = true) },
	{ "UC shared receive queue", T_ALL, send_receive,
	  UC(.opcode = IBV_WR_SEND, .srq = true) },
	{ "UD shared receive queue", T_ALL, send_receive,
	  UD(.opcode = IBV_WR_SEND, .srq = true) },
	{ "RC SEND with invalidate", T_ALL, send_with_invalidate, RC(TYPE_2) },
	{ "RC WRITE", T_ALL, write_gathered, RC(.opcode = IBV_WR_RDMA_WRITE) },
	{ "UC WRITE", T_ALL, write_gathered, UC(.opcode = IBV_WR_RDMA_WRITE) },
	{ "RC WRITE with immediate", T_ALL, write_gathered,
	  RC(.opcode = IBV_WR_RDMA_WRITE_WITH_IMM) },
	{ "UC WRITE with immediate", T_ALL, write_gathered,
	  UC(.opcode = IBV_WR_RDMA_WRITE_WITH_IMM) },
	{ "RC WRITE inline", T_ALL, write_gathered,
	  RC(.opcode = IBV_WR_RDMA_WRITE, .inl = true) },
	{ "UC WRITE inline", T_ALL, write_gathered,
	  UC(.opcode = IBV_WR_RDMA_WRITE, .inl = true) },
	{ "RC READ", T_ALL, read_scattered, RC() },
	{ "RC compare and swap", T_ALL, compare_and_swap, RC() },
	{ "RC fetch and add", T_ALL, fetch_and_add, RC() },
	{ "RC atomic write", T_ALL, atomic_write, RC() },
	{ "UC has no READ, atomics and invalidation", T_ALL, refused, UC() },
	{ "UD has only SEND", T_ALL, refused, UD() },
	{ "RC window of type 1", T_ALL, window_gives_access, RC(TYPE_1) },
	{ "RC window of type 2", T_ALL, window_gives_access, RC(TYPE_2) },
	{ "UC window of type 1", T_ALL, window_gives_access, UC(TYPE_1) },
	{ "UC window of type 2", T_ALL, window_gives_access, UC(TYPE_2) },
	{ "rights of a window of type 1", T_ALL, window_has_rights, RC(TYPE_1) },
	{ "rights of a window of type 2", T_ALL, window_has_rights, RC(TYPE_2) },
	{ "bounds of a window of type 1", T_ODP | T_IMPLICIT, window_has_bounds, RC(TYPE_1) },
	{ "bounds of a window of type 2", T_ODP | T_IMPLICIT, window_has_bounds, RC(TYPE_2) },
	{ "a window of type 1 lies in its region", T_BOTH, window_bound_outside, RC(TYPE_1) },
	{ "a window of type 2 lies in its region", T_BOTH, window_bound_outside, RC(TYPE_2) },
	{ "unbinding a window of type 1", T_ALL, window_unbound, RC(TYPE_1) },
	{ "unbinding a window of type 2", T_ALL, window_unbound, RC(TYPE_2) },
	{ "a queue pair goes before its window of type 2", T_ODP | T_IMPLICIT,
	  queue_pair_before_window, RC(TYPE_2) },
	{ "dereg against bind", T_ODP, dereg_against_bind, RC(TYPE_2) },
	{ "re-registration with other rights", T_ALL, rereg_rights, NULL },
	{ "re-registration in another domain", T_BOTH, rereg_domain, NULL },
	{ "re-registration of another translation is refused", T_BOTH, rereg_translation, NULL },
	{ "relaxed ordering", T_ALL, relaxed_ordering, NULL },
	{ "the flag for huge pages", T_ODP | T_IMPLICIT, huge_flag, NULL },
	{ "zero-based", T_BOTH, zero_based, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
