// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Every operation moves exactly the bytes it should: start offset in a page x
 * length x {WRITE, READ, SEND, atomic} x path MTU, with the other side at each
 * of the offsets too. Each transfer is made on memory that the device has not
 * seen, and then again, warm, with other bytes; canaries around both buffers
 * must survive.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "t.h"

enum op { OP_WRITE, OP_READ, OP_SEND, OP_CAS, OP_FADD };

struct arg {
	enum op op;
	enum ibv_mtu mtu;
	size_t offset;
	size_t len;
};

static const char * const op_names[] = {
	"WRITE", "READ", "SEND", "compare-and-swap", "fetch-and-add",
};

static const size_t offsets[] = { 0, 1, T_PAGE - 1 };
static const size_t slots[] = { 0, 8, T_PAGE - 8 };

static int mtu_bytes(enum ibv_mtu mtu)
{
	return 128 << mtu;
}

static enum ibv_wc_status receive(struct t_pair *p, size_t len)
{
	struct ibv_wc wc;
	enum ibv_wc_status status = t_wait(&p->b, &wc);

	if (status == IBV_WC_SUCCESS)
		t_check(wc.opcode == IBV_WC_RECV && wc.byte_len == len,
			"receive of %u bytes, %zu were sent", wc.byte_len, len);
	return status;
}

/* src and dst as the bytes flow; who posts depends on the operation. */
static void move(struct t_pair *p, enum op op, const struct t_buf *src,
		 const struct t_buf *dst)
{
	switch (op) {
	case OP_WRITE:
		t_expect(t_write(&p->a, src, 0, dst, 0, src->len), IBV_WC_SUCCESS, "WRITE");
		break;
	case OP_READ:
		t_expect(t_read(&p->a, dst, 0, src, 0, src->len), IBV_WC_SUCCESS, "READ");
		break;
	default:
		t_post_recv(&p->b, dst, 0, dst->len);
		t_expect(t_send(&p->a, src, 0, src->len), IBV_WC_SUCCESS, "SEND");
		t_expect(receive(p, src->len), IBV_WC_SUCCESS, "receive");
	}
}

static void transfer_between(struct t_pair *p, const struct arg *a, size_t other)
{
	struct t_buf src, dst;
	u64 round;

	t_buf_alloc(&src, a->op == OP_READ ? a->offset : other, a->len);
	t_buf_alloc(&dst, a->op == OP_READ ? other : a->offset, a->len);
	t_reg(&src, &p->dev);
	t_reg(&dst, &p->dev);
	for (round = 1; round <= 2; round++) {
		t_fill_buf(&src, round);
		move(p, a->op, &src, &dst);
		t_check_buf(&dst, round, round == 1 ? "first transfer" : "warm transfer");
		t_check_buf(&src, round, "source");
	}
	t_buf_free(&src);
	t_buf_free(&dst);
}

static void transfer(const void *arg)
{
	struct t_cfg cfg = T_CFG_DEFAULT;
	const struct arg *a = arg;
	struct t_pair p;
	size_t i;

	cfg.mtu = a->mtu;
	t_pair_open(&p, &cfg);
	for (i = 0; i < T_ARRAY_SIZE(offsets); i++)
		transfer_between(&p, a, offsets[i]);
	t_pair_close(&p);
}

static u64 word_at(const struct t_buf *b)
{
	u64 v;

	memcpy(&v, b->p, sizeof(v));
	return v;
}

static u64 atomic_once(struct t_pair *p, const struct arg *a, const struct t_buf *result,
		       const struct t_buf *target, u64 old)
{
	u64 word = 0x0123456789abcdefULL ^ (old << 1);

	if (a->op == OP_FADD) {
		t_expect(t_fadd(&p->a, result, 0, target, a->offset, word),
			 IBV_WC_SUCCESS, "fetch-and-add");
		return old + word;
	}
	t_expect(t_cas(&p->a, result, 0, target, a->offset, old, word),
		 IBV_WC_SUCCESS, "compare-and-swap");
	return word;
}

/* A compare that does not match returns the value and changes nothing. */
static void failed_compare(struct t_pair *p, const struct arg *a,
			   const struct t_buf *result, const struct t_buf *target, u64 old)
{
	u64 found;

	t_expect(t_cas(&p->a, result, 0, target, a->offset, old + 1, 42), IBV_WC_SUCCESS,
		 "compare-and-swap that does not match");
	memcpy(&found, target->p + a->offset, sizeof(found));
	t_check(word_at(result) == old && found == old,
		"a compare that does not match changed the word or returned another");
}

static void atomics_between(struct t_pair *p, const struct arg *a, size_t other)
{
	struct t_buf result, target;
	u64 old = 0, now;
	int round;

	t_buf_alloc(&result, other, sizeof(u64));
	t_buf_alloc(&target, 0, T_PAGE);
	t_reg(&result, &p->dev);
	t_reg(&target, &p->dev);
	for (round = 0; round < 3; round++) {
		u64 want = atomic_once(p, a, &result, &target, old);

		memcpy(&now, target.p + a->offset, sizeof(now));
		t_check(now == want, "round %d: the target holds %#llx, expected %#llx",
			round, (unsigned long long)now, (unsigned long long)want);
		t_check(word_at(&result) == old, "round %d: returned %#llx, expected %#llx",
			round, (unsigned long long)word_at(&result),
			(unsigned long long)old);
		old = now;
	}
	if (a->op == OP_CAS)
		failed_compare(p, a, &result, &target, old);
	t_check(t_all_zero(target.p, a->offset) &&
		t_all_zero(target.p + a->offset + 8, T_PAGE - 8 - a->offset),
		"an atomic changed more than its word");
	t_buf_guard_check(&result, "result");
	t_buf_guard_check(&target, "target");
	t_buf_free(&result);
	t_buf_free(&target);
}

static void atomics(const void *arg)
{
	struct t_cfg cfg = T_CFG_DEFAULT;
	const struct arg *a = arg;
	struct t_pair p;
	size_t i;

	cfg.mtu = a->mtu;
	t_pair_open(&p, &cfg);
	for (i = 0; i < T_ARRAY_SIZE(offsets); i++)
		atomics_between(&p, a, offsets[i]);
	t_pair_close(&p);
}

static struct t_case cases[128];
static struct arg args[128];
static size_t n_cases;

static void add(enum op op, enum ibv_mtu mtu, size_t offset, size_t len)
{
	struct arg *a = &args[n_cases];
	struct t_case *c = &cases[n_cases++];
	char *name;

	*a = (struct arg){ op, mtu, offset, len };
	if (asprintf(&name, "%s, MTU %d, offset %zu, length %zu", op_names[op],
		     mtu_bytes(mtu), offset, len) < 0)
		exit(2);
	*c = (struct t_case){ name, T_BOTH, op < OP_CAS ? transfer : atomics, a };
}

static void add_all_of(enum op op, enum ibv_mtu mtu)
{
	size_t lens[] = { 1, T_PAGE, T_PAGE + 1, 2 * mtu_bytes(mtu) + 1, 300 * 1024 + 3 };
	size_t i, k;

	for (i = 0; i < T_ARRAY_SIZE(offsets); i++) {
		if (op >= OP_CAS) {
			add(op, mtu, slots[i], sizeof(u64));
			continue;
		}
		for (k = 0; k < T_ARRAY_SIZE(lens); k++)
			add(op, mtu, offsets[i], lens[k]);
	}
}

int main(int argc, char **argv)
{
	int op;

	for (op = OP_WRITE; op <= OP_FADD; op++) {
		add_all_of(op, IBV_MTU_1024);
		add_all_of(op, IBV_MTU_4096);
	}
	return t_main(argc, argv, cases, n_cases);
}
