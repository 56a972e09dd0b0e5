// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A key gives access to its region, for what it was registered for, and to
 * nothing else: bytes before and after, lengths and addresses that wrap, keys
 * that are no longer or never were valid, rights that were not given. Whatever
 * is refused has changed nothing.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "t.h"

#define LEN	(2 * T_PAGE + 100)
#define ROUND	55

/* The region lies inside mapped memory whose other bytes are canaries. */
struct fixture {
	struct t_pair pair;
	struct t_buf buf;
	struct t_buf scratch;
};

static void open_with(struct fixture *f, int access)
{
	t_pair_open(&f->pair, NULL);
	t_buf_alloc(&f->buf, 100, LEN);
	t_fill_buf(&f->buf, ROUND);
	t_reg_access(&f->buf, &f->pair.dev, access);
	t_buf_alloc(&f->scratch, 0, 64 * T_PAGE);
	t_fill_buf(&f->scratch, ROUND + 1);
	t_reg_pinned(&f->scratch, &f->pair.dev);
}

static void unchanged(struct fixture *f)
{
	t_check_buf(&f->buf, ROUND, "target of what was refused");
	t_check_buf(&f->scratch, ROUND + 1, "other side of what was refused");
}

static enum ibv_wc_status raw(struct fixture *f, enum ibv_wr_opcode opcode, u64 raddr,
			      u32 rkey, u32 len)
{
	struct ibv_sge sge = t_sge(&f->scratch, 0, len);
	struct t_op op = {
		.opcode = opcode, .sge = &sge, .num_sge = 1,
		.raddr = raddr, .rkey = rkey, .compare_add = 1,
	};

	return t_do(&f->pair.a, &op);
}

static void refused(struct fixture *f, enum ibv_wr_opcode opcode, u64 raddr, u32 rkey,
		    u32 len)
{
	t_expect(raw(f, opcode, raddr, rkey, len), IBV_WC_REM_ACCESS_ERR,
		 "opcode %d, address %#llx, length %u, region %#llx + %zu", opcode,
		 (unsigned long long)raddr, len, (unsigned long long)f->buf.iova,
		 f->buf.len);
	t_pair_reconnect(&f->pair);
	unchanged(f);
}

static const enum ibv_wr_opcode opcodes[] = { IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ };

static void refused_both(struct fixture *f, u64 raddr, u32 len)
{
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(opcodes); i++)
		refused(f, opcodes[i], raddr, f->buf.mr->rkey, len);
}

static void neighbours(struct fixture *f)
{
	u64 start = f->buf.iova, end = start + LEN;

	refused_both(f, start - 1, 1);
	refused_both(f, start - 1, 2);
	refused_both(f, start - 1, LEN + 2);
	refused_both(f, end, 1);
	refused_both(f, end - 1, 2);
	refused_both(f, start, LEN + 1);
	refused_both(f, start - T_PAGE, T_PAGE);
	refused_both(f, end + 7, 64);
}

static void next_to_the_region(const void *arg)
{
	struct fixture f;

	(void)arg;
	open_with(&f, T_REMOTE);
	neighbours(&f);
}

static void next_to_a_warm_region(const void *arg)
{
	struct fixture f;

	(void)arg;
	open_with(&f, T_REMOTE);
	t_fill(f.scratch.p, LEN, ROUND);
	t_expect(raw(&f, IBV_WR_RDMA_WRITE, f.buf.iova, f.buf.mr->rkey, LEN),
		 IBV_WC_SUCCESS, "WRITE of the whole region");
	t_fill_buf(&f.scratch, ROUND + 1);
	neighbours(&f);
}

static void next_to_an_iova_region(const void *arg)
{
	static const u64 bases[] = { 0, 0x100000, 0xffffffffff000000ULL };
	struct fixture f;
	size_t i;

	(void)arg;
	open_with(&f, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(bases); i++) {
		t_dereg(&f.buf);
		t_reg_iova(&f.buf, &f.pair.dev, bases[i] + 100);
		neighbours(&f);
		refused_both(&f, (uintptr_t)f.buf.p, 8);
	}
}

static void addresses_that_wrap(const void *arg)
{
	struct fixture f;
	u64 start;

	(void)arg;
	open_with(&f, T_REMOTE);
	start = f.buf.iova;
	refused_both(&f, ~0ULL, 1);
	refused_both(&f, ~0ULL - 10, 64);
	refused_both(&f, start + (1ULL << 63), 16);
	refused_both(&f, start - (1ULL << 32), 16);
	refused_both(&f, start + (1ULL << 32), 16);
	refused_both(&f, 0, 16);
}

/* A region near 2^64: the end of the access wraps to below its start. */
static void wrap_of_a_high_region(const void *arg)
{
	u64 base = 0xffffffffffff0000ULL;
	struct fixture f;

	(void)arg;
	open_with(&f, T_REMOTE);
	t_dereg(&f.buf);
	t_reg_iova(&f.buf, &f.pair.dev, base + 100);
	refused_both(&f, base + 200, 0x10000 - 200);
	refused_both(&f, base + 200, 0x10000 + 400);
	refused_both(&f, base + 200, 0x10000 - 100);
	t_expect(raw(&f, IBV_WR_RDMA_WRITE, base + 100, f.buf.mr->rkey, LEN),
		 IBV_WC_SUCCESS, "WRITE of the whole region");
	t_check_buf(&f.buf, ROUND + 1, "region near 2^64");
}

static void length_of_two_gib(const void *arg)
{
	struct fixture f;
	struct ibv_sge sge;
	struct t_op op = { .opcode = IBV_WR_RDMA_READ, .sge = &sge, .num_sge = 1 };
	enum ibv_wc_status status;

	(void)arg;
	open_with(&f, T_REMOTE);
	sge = t_sge(&f.scratch, 0, 1U << 31);
	op.raddr = f.buf.iova;
	op.rkey = f.buf.mr->rkey;
	status = t_do(&f.pair.a, &op);
	t_check(status != IBV_WC_SUCCESS && status != T_TIMED_OUT,
		"READ of 2 GiB from a region of %lu bytes: %s", LEN, t_status(status));
	t_pair_reconnect(&f.pair);
	unchanged(&f);
}

static void atomics_at_the_edges(const void *arg)
{
	struct fixture f;
	u64 start, end;

	(void)arg;
	open_with(&f, T_REMOTE);
	start = f.buf.iova;
	end = (start + LEN) & ~7ULL;
	refused(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, end, f.buf.mr->rkey, 8);
	refused(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, (start & ~7ULL) - 8, f.buf.mr->rkey, 8);
	refused(&f, IBV_WR_ATOMIC_CMP_AND_SWP, start & ~7ULL, f.buf.mr->rkey, 8);
	refused(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, ~7ULL, f.buf.mr->rkey, 8);
}

static void misaligned_atomic(const void *arg)
{
	enum ibv_wc_status status;
	struct fixture f;
	u64 addr;

	(void)arg;
	open_with(&f, T_REMOTE);
	for (addr = f.buf.iova + 101; addr < f.buf.iova + 104; addr++) {
		status = raw(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, addr | 1, f.buf.mr->rkey, 8);
		t_check(status == IBV_WC_REM_INV_REQ_ERR ||
			status == IBV_WC_REM_ACCESS_ERR || status == T_NOT_POSTED,
			"misaligned atomic: %s", t_status(status));
		t_pair_reconnect(&f.pair);
		unchanged(&f);
	}
}

static void dead_keys(const void *arg)
{
	struct fixture f;
	struct t_buf other;
	u32 rkey;

	(void)arg;
	open_with(&f, T_REMOTE);
	t_buf_alloc(&other, 0, T_PAGE);
	t_reg(&other, &f.pair.dev);
	rkey = other.mr->rkey;
	t_expect(raw(&f, IBV_WR_RDMA_WRITE, other.iova, rkey, 8), IBV_WC_SUCCESS,
		 "WRITE while the key lives");
	t_dereg(&other);
	refused(&f, IBV_WR_RDMA_WRITE, other.iova, rkey, 8);
	refused(&f, IBV_WR_RDMA_READ, other.iova, rkey, 8);
	refused(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, other.iova, rkey, 8);
}

static void keys_nobody_gave(const void *arg)
{
	struct fixture f;
	u32 rkey;

	(void)arg;
	open_with(&f, T_REMOTE);
	rkey = f.buf.mr->rkey;
	refused(&f, IBV_WR_RDMA_WRITE, f.buf.iova, rkey ^ 1, 8);
	refused(&f, IBV_WR_RDMA_READ, f.buf.iova, rkey ^ 0x80, 8);
	refused(&f, IBV_WR_RDMA_READ, f.buf.iova, rkey + 0x1000, 8);
	refused(&f, IBV_WR_RDMA_WRITE, f.buf.iova, 0, 8);
}

static void key_of_another_pd(const void *arg)
{
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct fixture f;

	(void)arg;
	open_with(&f, T_REMOTE);
	pd = ibv_alloc_pd(f.pair.dev.ctx);
	t_check(pd, "second protection domain");
	mr = ibv_reg_mr(pd, f.buf.p, f.buf.len,
			T_REMOTE | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0));
	t_check(mr, "registration in the second domain: %s", strerror(errno));
	refused(&f, IBV_WR_RDMA_WRITE, f.buf.iova, mr->rkey, 8);
	refused(&f, IBV_WR_RDMA_READ, f.buf.iova, mr->rkey, 8);
}

static void allowed(struct fixture *f, enum ibv_wr_opcode opcode)
{
	t_expect(raw(f, opcode, (f->buf.iova + 7) & ~7ULL, f->buf.mr->rkey, 8),
		 IBV_WC_SUCCESS, "opcode %d, for which there is a right", opcode);
}

static void rights(const void *arg)
{
	static const struct { int access; enum ibv_wr_opcode yes, no1, no2; } table[] = {
		{ IBV_ACCESS_REMOTE_READ, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE,
		  IBV_WR_ATOMIC_FETCH_AND_ADD },
		{ IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE, IBV_WR_RDMA_WRITE,
		  IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP },
		{ IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_LOCAL_WRITE,
		  IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE },
	};
	struct fixture f;
	size_t i;

	(void)arg;
	for (i = 0; i < T_ARRAY_SIZE(table); i++) {
		open_with(&f, table[i].access);
		refused(&f, table[i].no1, (f.buf.iova + 7) & ~7ULL, f.buf.mr->rkey, 8);
		refused(&f, table[i].no2, (f.buf.iova + 7) & ~7ULL, f.buf.mr->rkey, 8);
		allowed(&f, table[i].yes);
	}
}

static void no_remote_right_at_all(const void *arg)
{
	struct fixture f;

	(void)arg;
	open_with(&f, IBV_ACCESS_LOCAL_WRITE);
	refused_both(&f, f.buf.iova, 8);
}

/*
 * The poster's own region: outside it, or without LOCAL_WRITE for a READ. The
 * requester of stock rxe completes what it could not send as flushed.
 */
static void local_error(struct fixture *f, enum ibv_wr_opcode opcode, s64 off, u32 len)
{
	struct ibv_sge sge = {
		.addr = f->buf.iova + off, .length = len, .lkey = f->buf.mr->lkey,
	};
	struct t_op op = {
		.opcode = opcode, .sge = &sge, .num_sge = 1,
		.raddr = f->scratch.iova, .rkey = f->scratch.mr->rkey,
	};
	enum ibv_wc_status status = t_do(&f->pair.a, &op);

	t_check(status == IBV_WC_LOC_PROT_ERR || status == IBV_WC_LOC_QP_OP_ERR ||
		status == IBV_WC_WR_FLUSH_ERR,
		"opcode %d on the local region at %lld, length %u: %s", opcode,
		(long long)off, len, t_status(status));
	t_pair_reconnect(&f->pair);
	unchanged(f);
}

static void local_ranges(const void *arg)
{
	struct fixture f;
	size_t i;

	(void)arg;
	open_with(&f, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(opcodes); i++) {
		local_error(&f, opcodes[i], -1, 1);
		local_error(&f, opcodes[i], LEN, 1);
		local_error(&f, opcodes[i], LEN - 7, 8);
		local_error(&f, opcodes[i], -(s64)f.buf.iova - 8, 16);
	}
}

static void local_write_right(const void *arg)
{
	struct fixture f;

	(void)arg;
	open_with(&f, IBV_ACCESS_REMOTE_READ);
	local_error(&f, IBV_WR_RDMA_READ, 0, 64);
}

/* A WRITE or READ of nothing touches nothing, whatever its key. */
static void zero_bytes(const void *arg)
{
	struct fixture f;
	size_t i;

	(void)arg;
	open_with(&f, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(opcodes); i++) {
		struct t_op op = {
			.opcode = opcodes[i], .raddr = f.buf.iova, .rkey = f.buf.mr->rkey,
		};

		t_expect(t_do(&f.pair.a, &op), IBV_WC_SUCCESS, "0 bytes");
		unchanged(&f);
	}
}

/* Addresses that no process has: refused at registration or at access. */
static void kernel_addresses(const void *arg)
{
	static const u64 starts[] = {
		0x7ffffffff000ULL, 0x800000000000ULL, 0xffff888000000000ULL,
		0xffffffff81000000ULL,
	};
	struct fixture f;
	struct t_buf bad;
	size_t i;

	(void)arg;
	open_with(&f, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(starts); i++) {
		t_buf_wrap(&bad, (void *)(uintptr_t)starts[i], 16 * T_PAGE);
		bad.mr = t_try_reg(&f.pair.dev, bad.p, bad.len, T_REMOTE);
		if (!bad.mr)
			continue;
		refused(&f, IBV_WR_RDMA_READ, bad.iova + 64, bad.mr->rkey, 64);
		refused(&f, IBV_WR_RDMA_WRITE, bad.iova + 8 * T_PAGE, bad.mr->rkey, 64);
		refused(&f, IBV_WR_ATOMIC_FETCH_AND_ADD, bad.iova + 4096, bad.mr->rkey, 8);
	}
}

static const struct t_case cases[] = {
	{ "next to the region", T_BOTH, next_to_the_region, NULL },
	{ "next to a region that is in use", T_BOTH, next_to_a_warm_region, NULL },
	{ "next to a region with its own iova", T_BOTH, next_to_an_iova_region, NULL },
	{ "addresses far away and at 2^64", T_BOTH, addresses_that_wrap, NULL },
	{ "ranges that wrap out of a region near 2^64", T_BOTH, wrap_of_a_high_region, NULL },
	{ "a length of 2 GiB", T_BOTH, length_of_two_gib, NULL },
	{ "atomics over the edges", T_BOTH, atomics_at_the_edges, NULL },
	{ "misaligned atomics", T_BOTH, misaligned_atomic, NULL },
	{ "the key of a deregistered region", T_BOTH, dead_keys, NULL },
	{ "keys that nobody gave", T_BOTH, keys_nobody_gave, NULL },
	{ "the key of another protection domain", T_BOTH, key_of_another_pd, NULL },
	{ "only the rights that were given", T_BOTH, rights, NULL },
	{ "no remote rights", T_BOTH, no_remote_right_at_all, NULL },
	{ "outside the poster's own region", T_BOTH, local_ranges, NULL },
	{ "READ into a region without LOCAL_WRITE", T_BOTH, local_write_right, NULL },
	{ "transfers of nothing", T_BOTH, zero_bytes, NULL },
	{ "addresses that no process has", T_BOTH, kernel_addresses, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
