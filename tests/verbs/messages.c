// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a message is made of: scatter and gather lists whose elements start and
 * end at odd places and lie in different regions, receives from a shared queue,
 * WRITE with immediate, receives that come late, many requests under way at
 * once, and traffic both ways. Faults happen in the middle of all of them.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "t.h"

#define MAX_PIECES	8

/* A message in pieces: each a buffer (and a region) of its own. */
struct pieces {
	struct t_buf buf[MAX_PIECES];
	struct ibv_sge sge[MAX_PIECES];
	int n;
	size_t total;
};

static void open_pieces(struct pieces *p, struct t_dev *dev, const size_t *lens, int n)
{
	int i;

	p->n = n;
	p->total = 0;
	for (i = 0; i < n; i++) {
		t_buf_alloc(&p->buf[i], (i * 1237 + T_PAGE - 5) % T_PAGE, lens[i]);
		t_reg(&p->buf[i], dev);
		p->sge[i] = t_sge(&p->buf[i], 0, lens[i]);
		p->total += lens[i];
	}
}

static void fill_pieces(struct pieces *p, u64 round)
{
	size_t pos = 0;
	int i;

	for (i = 0; i < p->n; i++) {
		t_fill_at(p->buf[i].p, p->buf[i].len, pos, round);
		pos += p->buf[i].len;
	}
}

/* The first total bytes of the pieces hold the round, and the rest nothing. */
static void check_pieces(struct pieces *p, size_t total, u64 round, const char *what)
{
	size_t pos = 0, part;
	int i;

	for (i = 0; i < p->n; i++) {
		part = total - pos < p->buf[i].len ? total - pos : p->buf[i].len;
		t_check(t_matches_at(p->buf[i].p, part, pos, round), "%s, piece %d", what, i);
		t_check(t_all_zero(p->buf[i].p + part, p->buf[i].len - part),
			"%s: bytes after the end in piece %d", what, i);
		t_buf_guard_check(&p->buf[i], what);
		pos += part;
	}
}

static const size_t odd[] = { 1, 4097, 3, 2047, 8191, 1024, 5, 6000 };
static const size_t odder[] = { 1023, 2, 5001, 4096, 1, 7, 9000, 4000 };

static enum ibv_wc_status post_and_wait(struct t_ep *ep, enum ibv_wr_opcode opcode,
					struct pieces *p, const struct t_buf *remote)
{
	struct t_op op = { .opcode = opcode, .sge = p->sge, .num_sge = p->n };

	if (remote) {
		op.raddr = remote->iova;
		op.rkey = remote->mr->rkey;
	}
	return t_do(ep, &op);
}

static void gather_write(const void *arg)
{
	struct t_pair p;
	struct pieces from;
	struct t_buf to;
	u64 round;

	(void)arg;
	t_pair_open(&p, NULL);
	open_pieces(&from, &p.dev, odd, MAX_PIECES);
	t_buf_alloc(&to, 77, from.total);
	t_reg(&to, &p.dev);
	for (round = 1; round < 4; round++) {
		fill_pieces(&from, round);
		t_expect(post_and_wait(&p.a, IBV_WR_RDMA_WRITE, &from, &to), IBV_WC_SUCCESS,
			 "WRITE of %d pieces", from.n);
		t_check_buf(&to, round, "gathered WRITE");
	}
}

static void scatter_read(const void *arg)
{
	struct t_pair p;
	struct pieces to;
	struct t_buf from;
	u64 round;

	(void)arg;
	t_pair_open(&p, NULL);
	open_pieces(&to, &p.dev, odder, MAX_PIECES);
	t_buf_alloc(&from, 4001, to.total);
	t_reg(&from, &p.dev);
	for (round = 1; round < 4; round++) {
		t_fill_buf(&from, round);
		t_expect(post_and_wait(&p.a, IBV_WR_RDMA_READ, &to, &from), IBV_WC_SUCCESS,
			 "READ into %d pieces", to.n);
		check_pieces(&to, to.total, round, "scattered READ");
	}
}

static void receive_is(struct t_ep *ep, size_t len)
{
	struct ibv_wc wc;

	t_expect(t_wait(ep, &wc), IBV_WC_SUCCESS, "receive");
	t_check(wc.byte_len == len, "received %u bytes, expected %zu", wc.byte_len, len);
}

/* Gather on one side, scatter on the other, boundaries nowhere equal. */
static void send_pieces_to_pieces(const struct t_cfg *cfg)
{
	struct t_pair p;
	struct pieces from, to;
	u64 round;

	t_pair_open(&p, cfg);
	open_pieces(&from, &p.dev, odd, MAX_PIECES);
	for (round = 1; round < 4; round++) {
		open_pieces(&to, &p.dev, odder, MAX_PIECES);
		fill_pieces(&from, round);
		t_check(!t_post_recv_sge(&p.b, to.sge, to.n), "posting the receive");
		t_expect(post_and_wait(&p.a, IBV_WR_SEND, &from, NULL), IBV_WC_SUCCESS, "SEND");
		receive_is(&p.b, from.total);
		check_pieces(&to, from.total, round, "scattered receive");
	}
}

static void scatter_receive(const void *arg)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	(void)arg;
	send_pieces_to_pieces(&cfg);
	cfg.mtu = IBV_MTU_4096;
	send_pieces_to_pieces(&cfg);
}

static void shared_receive_queue(const void *arg)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	(void)arg;
	cfg.with_srq = true;
	send_pieces_to_pieces(&cfg);
	cfg.mtu = IBV_MTU_4096;
	send_pieces_to_pieces(&cfg);
}

/*
 * Several receives wait in the shared queue, all in memory that is not there:
 * each message takes exactly one of them, in order.
 */
static void shared_queue_in_order(const void *arg)
{
	enum { N = 20 };
	size_t len = 5000;
	struct t_cfg cfg = T_CFG_DEFAULT;
	struct t_buf src, dst[N];
	struct t_pair p;
	int i;

	(void)arg;
	cfg.with_srq = true;
	t_pair_open(&p, &cfg);
	t_buf_alloc(&src, 3, len);
	t_reg(&src, &p.dev);
	for (i = 0; i < N; i++) {
		t_buf_alloc(&dst[i], i * 200, len);
		t_reg(&dst[i], &p.dev);
		t_post_recv(&p.b, &dst[i], 0, len);
	}
	for (i = 0; i < N; i++) {
		t_fill_buf(&src, i);
		t_expect(t_send(&p.a, &src, 0, len), IBV_WC_SUCCESS, "SEND %d", i);
		receive_is(&p.b, len);
		t_check_buf(&dst[i], i, "receive in its turn");
	}
}

static void write_with_immediate(const void *arg)
{
	struct t_buf src, dst;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_RDMA_WRITE_WITH_IMM, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	struct t_pair p;
	u64 round;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&src, 9, 9001);
	t_buf_alloc(&dst, 4090, 9001);
	t_reg(&src, &p.dev);
	t_reg(&dst, &p.dev);
	sge = t_sge(&src, 0, src.len);
	op.raddr = dst.iova;
	op.rkey = dst.mr->rkey;
	for (round = 1; round < 5; round++) {
		op.imm = 0xabc00 + round;
		t_fill_buf(&src, round);
		t_check(!t_post_recv_sge(&p.b, NULL, 0), "posting the receive");
		t_expect(t_do(&p.a, &op), IBV_WC_SUCCESS, "WRITE with immediate");
		t_expect(t_wait(&p.b, &wc), IBV_WC_SUCCESS, "its completion");
		t_check(wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM && wc.imm_data == op.imm,
			"immediate %#x, expected %#x", wc.imm_data, op.imm);
		t_check_buf(&dst, round, "WRITE with immediate");
	}
}

static void send_with_immediate(const void *arg)
{
	struct t_buf src, dst;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_SEND_WITH_IMM, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	struct t_pair p;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&src, 9, 9001);
	t_buf_alloc(&dst, 4090, 9001);
	t_reg(&src, &p.dev);
	t_reg(&dst, &p.dev);
	sge = t_sge(&src, 0, src.len);
	op.imm = 0x1234;
	t_fill_buf(&src, 6);
	t_post_recv(&p.b, &dst, 0, dst.len);
	t_expect(t_do(&p.a, &op), IBV_WC_SUCCESS, "SEND with immediate");
	t_expect(t_wait(&p.b, &wc), IBV_WC_SUCCESS, "its receive");
	t_check(wc.imm_data == 0x1234 && wc.byte_len == 9001, "immediate %#x, %u bytes",
		wc.imm_data, wc.byte_len);
	t_check_buf(&dst, 6, "SEND with immediate");
}

/* The receive is posted after the SEND: the peer is told to come again. */
static void late_receive(const void *arg)
{
	struct t_buf src, dst;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_SEND, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	struct t_pair p;
	u64 round;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&src, 9, 9001);
	t_reg(&src, &p.dev);
	sge = t_sge(&src, 0, src.len);
	for (round = 1; round < 6; round++) {
		t_buf_alloc(&dst, 4090, 9001);
		t_reg(&dst, &p.dev);
		t_fill_buf(&src, round);
		t_check(!t_post(&p.a, &op, NULL), "posting the SEND");
		t_sleep_ms(20);
		t_post_recv(&p.b, &dst, 0, dst.len);
		t_expect(t_wait(&p.a, &wc), IBV_WC_SUCCESS, "SEND");
		receive_is(&p.b, dst.len);
		t_check_buf(&dst, round, "late receive");
	}
}

/* Many requests under way at once, each to memory that is not there. */
static void many_outstanding(enum ibv_wr_opcode opcode)
{
	enum { N = 100 };
	size_t len = 3001, stride = 2 * T_PAGE + 24;
	struct ibv_sge sge;
	struct t_op op = { .opcode = opcode, .sge = &sge, .num_sge = 1 };
	struct t_buf local, remote;
	struct ibv_wc wc;
	struct t_pair p;
	int i;

	t_pair_open(&p, NULL);
	t_buf_alloc(&local, 1, N * stride);
	t_buf_alloc(&remote, 4095, N * stride);
	t_reg(&local, &p.dev);
	t_reg(&remote, &p.dev);
	t_fill_buf(opcode == IBV_WR_RDMA_READ ? &remote : &local, 4);
	for (i = 0; i < N; i++) {
		sge = t_sge(&local, i * stride, len);
		op.raddr = remote.iova + i * stride;
		op.rkey = remote.mr->rkey;
		t_check(!t_post(&p.a, &op, NULL), "posting request %d", i);
	}
	for (i = 0; i < N; i++) {
		t_expect(t_wait(&p.a, &wc), IBV_WC_SUCCESS, "request %d", i);
		t_check(wc.wr_id == (u64)i + 1, "completion %d is of request %llu", i,
			(unsigned long long)wc.wr_id);
	}
	for (i = 0; i < N; i++) {
		const struct t_buf *to = opcode == IBV_WR_RDMA_READ ? &local : &remote;

		t_check(t_matches_at(to->p + i * stride, len, i * stride, 4), "request %d", i);
		t_check(t_all_zero(to->p + i * stride + len, stride - len),
			"bytes behind request %d", i);
	}
}

static void many_writes(const void *arg)
{
	(void)arg;
	many_outstanding(IBV_WR_RDMA_WRITE);
}

static void many_reads(const void *arg)
{
	(void)arg;
	many_outstanding(IBV_WR_RDMA_READ);
}

/* Each addition counts once, however often a fault made it wait. */
static void many_atomics(const void *arg)
{
	enum { N = 60, WORDS = 20 };
	struct t_buf result, target;
	struct ibv_sge sge;
	struct t_op op = {
		.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .sge = &sge, .num_sge = 1,
		.compare_add = 1,
	};
	struct ibv_wc wc;
	struct t_pair p;
	u64 value;
	int i;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&result, 0, N * T_PAGE);
	t_buf_alloc(&target, 0, WORDS * T_PAGE);
	t_reg(&result, &p.dev);
	t_reg(&target, &p.dev);
	for (i = 0; i < N; i++) {
		sge = t_sge(&result, i * T_PAGE + 64, 8);
		op.raddr = target.iova + i % WORDS * T_PAGE + 8;
		op.rkey = target.mr->rkey;
		t_check(!t_post(&p.a, &op, NULL), "posting request %d", i);
	}
	for (i = 0; i < N; i++)
		t_expect(t_wait(&p.a, &wc), IBV_WC_SUCCESS, "atomic %d", i);
	for (i = 0; i < N; i++) {
		memcpy(&value, result.p + i * T_PAGE + 64, 8);
		t_check(value == (u64)i / WORDS, "addition %d returned %llu", i,
			(unsigned long long)value);
	}
	for (i = 0; i < WORDS; i++) {
		memcpy(&value, target.p + i * T_PAGE + 8, 8);
		t_check(value == N / WORDS, "word %d is %llu", i, (unsigned long long)value);
	}
}

/* Mixed requests in one queue keep their order. */
static void mixed_requests(const void *arg)
{
	size_t len = 5 * T_PAGE + 1;
	struct t_buf src, dst, back;
	struct ibv_sge out, in;
	struct t_op write = { .opcode = IBV_WR_RDMA_WRITE, .sge = &out, .num_sge = 1 };
	struct t_op read = { .opcode = IBV_WR_RDMA_READ, .sge = &in, .num_sge = 1 };
	struct ibv_wc wc;
	struct t_pair p;
	u64 round;
	int i;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&src, 11, len);
	t_reg(&src, &p.dev);
	for (round = 1; round < 8; round++) {
		t_buf_alloc(&dst, 4095, len);
		t_buf_alloc(&back, 2000, len);
		t_reg(&dst, &p.dev);
		t_reg(&back, &p.dev);
		t_fill_buf(&src, round);
		out = t_sge(&src, 0, len);
		in = t_sge(&back, 0, len);
		read.raddr = dst.iova;
		write.raddr = dst.iova;
		read.rkey = dst.mr->rkey;
		write.rkey = dst.mr->rkey;
		t_check(!t_post(&p.a, &write, NULL) && !t_post(&p.a, &read, NULL), "posting");
		for (i = 0; i < 2; i++)
			t_expect(t_wait(&p.a, &wc), IBV_WC_SUCCESS, "request %d", i);
		t_check_buf(&dst, round, "WRITE");
		t_check_buf(&back, round, "READ of what was just written");
		t_buf_free(&dst);
		t_buf_free(&back);
	}
}

/* Both sides read and write each other's fresh memory at the same time. */
static void both_ways(const void *arg)
{
	enum { N = 40 };
	size_t len = 9000, stride = 3 * T_PAGE;
	struct t_buf a_out, a_in, b_out, b_in;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	struct t_pair p;
	int i;

	(void)arg;
	t_pair_open(&p, NULL);
	t_buf_alloc(&a_out, 0, N * stride);
	t_buf_alloc(&a_in, 1, N * stride);
	t_buf_alloc(&b_out, 4095, N * stride);
	t_buf_alloc(&b_in, 2, N * stride);
	t_reg(&a_out, &p.dev);
	t_reg(&a_in, &p.dev);
	t_reg(&b_out, &p.dev);
	t_reg(&b_in, &p.dev);
	t_fill_buf(&a_out, 1);
	t_fill_buf(&b_out, 2);
	for (i = 0; i < N; i++) {
		sge = t_sge(&a_out, i * stride, len);
		op.raddr = b_in.iova + i * stride;
		op.rkey = b_in.mr->rkey;
		t_check(!t_post(&p.a, &op, NULL), "posting a%d", i);
		sge = t_sge(&b_out, i * stride, len);
		op.raddr = a_in.iova + i * stride;
		op.rkey = a_in.mr->rkey;
		t_check(!t_post(&p.b, &op, NULL), "posting b%d", i);
	}
	for (i = 0; i < N; i++) {
		t_expect(t_wait(&p.a, &wc), IBV_WC_SUCCESS, "a%d", i);
		t_expect(t_wait(&p.b, &wc), IBV_WC_SUCCESS, "b%d", i);
	}
	for (i = 0; i < N; i++) {
		t_check(t_matches_at(b_in.p + i * stride, len, i * stride, 1), "a%d", i);
		t_check(t_matches_at(a_in.p + i * stride, len, i * stride, 2), "b%d", i);
	}
}

/* Many queue pairs use one region, fresh and warm. */
static void many_queue_pairs(const void *arg)
{
	enum { N = 8 };
	size_t len = 5 * T_PAGE, i;
	struct t_pair p[N];
	struct t_buf src, dst;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1 };
	struct ibv_wc wc;
	u64 round;

	(void)arg;
	t_pair_open(&p[0], NULL);
	t_buf_alloc(&src, 0, N * len);
	t_buf_alloc(&dst, 0, N * len);
	t_reg(&src, &p[0].dev);
	t_reg(&dst, &p[0].dev);
	for (i = 1; i < N; i++) {
		struct t_dev *dev = &p[0].dev;

		t_ep_open(&p[i].a, dev, NULL);
		t_ep_open(&p[i].b, dev, NULL);
		t_pair_reconnect(&p[i]);
	}
	for (round = 1; round < 6; round++) {
		t_fill_buf(&src, round);
		for (i = 0; i < N; i++) {
			sge = t_sge(&src, i * len, len);
			op.raddr = dst.iova + i * len;
			op.rkey = dst.mr->rkey;
			t_check(!t_post(&p[i].a, &op, NULL), "posting on pair %zu", i);
		}
		for (i = 0; i < N; i++)
			t_expect(t_wait(&p[i].a, &wc), IBV_WC_SUCCESS, "pair %zu", i);
		t_check_buf(&dst, round, "WRITEs of all pairs");
	}
}

/* A piece in the middle of a message cannot be read: the poster is told. */
static void bad_piece(const void *arg)
{
	struct t_pair p;
	struct pieces from;
	struct t_buf to;

	(void)arg;
	t_pair_open(&p, NULL);
	open_pieces(&from, &p.dev, odd, MAX_PIECES);
	fill_pieces(&from, 1);
	t_buf_alloc(&to, 0, from.total);
	t_reg(&to, &p.dev);
	t_check(!mprotect(from.buf[4].map, from.buf[4].map_len, PROT_NONE), "mprotect");
	t_expect(post_and_wait(&p.a, IBV_WR_RDMA_WRITE, &from, &to), IBV_WC_LOC_PROT_ERR,
		 "WRITE with a piece that cannot be read");
	t_pair_reconnect(&p);
	t_check(!mprotect(from.buf[4].map, from.buf[4].map_len, PROT_READ | PROT_WRITE),
		"mprotect");
	t_expect(post_and_wait(&p.a, IBV_WR_RDMA_WRITE, &from, &to), IBV_WC_SUCCESS, "WRITE");
	t_check_buf(&to, 1, "WRITE after the piece is back");
}

static const struct t_case cases[] = {
	{ "WRITE gathers from 8 regions", T_BOTH, gather_write, NULL },
	{ "READ scatters into 8 regions", T_BOTH, scatter_read, NULL },
	{ "SEND gathers, receive scatters", T_BOTH, scatter_receive, NULL },
	{ "receive from a shared queue scatters", T_BOTH, shared_receive_queue, NULL },
	{ "a shared queue gives one receive per message, in order", T_BOTH,
	  shared_queue_in_order, NULL },
	{ "WRITE with immediate", T_BOTH, write_with_immediate, NULL },
	{ "SEND with immediate", T_BOTH, send_with_immediate, NULL },
	{ "receives that come late", T_BOTH, late_receive, NULL },
	{ "many WRITEs at once", T_BOTH, many_writes, NULL },
	{ "many READs at once", T_BOTH, many_reads, NULL },
	{ "many atomics at once", T_BOTH, many_atomics, NULL },
	{ "READ behind WRITE of the same bytes", T_BOTH, mixed_requests, NULL },
	{ "both ways at once", T_BOTH, both_ways, NULL },
	{ "many queue pairs on one region", T_BOTH, many_queue_pairs, NULL },
	{ "a piece that cannot be read", T_ODP, bad_piece, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
