// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A region under test beside a pinned scratch buffer. The region plays every
 * part: remote target, remote source, local target and local source. What the
 * region holds at offset n in a round is the pattern of position n.
 */
#include <string.h>
#include <sys/mman.h>

#include "t.h"

void t_region_open_access(struct t_region *r, void *p, size_t len, int access)
{
	size_t scratch = len > (4UL << 20) ? 4UL << 20 : len;
	struct t_cfg cfg = T_CFG_DEFAULT;

	memset(r, 0, sizeof(*r));
	/* what a debug kernel takes its time for is a packet */
	if (t_opts.large_packets && t_patience(1) > 1)
		cfg.mtu = IBV_MTU_4096;
	r->round = 100;
	t_pair_open(&r->pair, &cfg);
	t_buf_wrap(&r->buf, p, len);
	t_reg_access(&r->buf, &r->pair.dev, access);
	t_buf_alloc(&r->scratch, 0, scratch);
	t_reg_pinned(&r->scratch, &r->pair.dev);
}

void t_region_open(struct t_region *r, void *p, size_t len)
{
	t_region_open_access(r, p, len, T_REMOTE);
}

/* WRITE a new round from outside. */
void t_region_write(struct t_region *r, size_t off, size_t len)
{
	r->round++;
	t_fill_at(r->scratch.p, len, off, r->round);
	t_expect(t_write(&r->pair.a, &r->scratch, 0, &r->buf, off, len), IBV_WC_SUCCESS,
		 "WRITE of %zu bytes at %zu into the region", len, off);
}

/* READ from outside, into a buffer of other bytes. */
static void read_out(struct t_region *r, size_t off, size_t len)
{
	memset(r->scratch.p, 0x5a, len);
	t_expect(t_read(&r->pair.a, &r->scratch, 0, &r->buf, off, len), IBV_WC_SUCCESS,
		 "READ of %zu bytes at %zu from the region", len, off);
	t_buf_guard_check(&r->scratch, "scratch buffer of a READ");
}

void t_region_read(struct t_region *r, size_t off, size_t len, u64 round)
{
	read_out(r, off, len);
	t_check(t_matches_at(r->scratch.p, len, off, round),
		"READ of the region at %zu returned wrong bytes", off);
}

void t_region_read_zero(struct t_region *r, size_t off, size_t len)
{
	read_out(r, off, len);
	t_check(t_all_zero(r->scratch.p, len),
		"READ of the region at %zu returned bytes that are not there", off);
}

void t_region_cpu_holds(struct t_region *r, size_t off, size_t len, u64 round)
{
	t_check(t_matches_at(r->buf.p + off, len, off, round),
		"the CPU sees wrong bytes in the region at %zu", off);
}

/* The region as source of a WRITE that this side posts. */
static void local_source(struct t_region *r, size_t off, size_t len)
{
	memset(r->scratch.p, 0x5a, len);
	t_expect(t_write(&r->pair.a, &r->buf, off, &r->scratch, 0, len), IBV_WC_SUCCESS,
		 "WRITE of %zu bytes out of the region at %zu", len, off);
	t_check(t_matches_at(r->scratch.p, len, off, r->round),
		"WRITE out of the region at %zu moved wrong bytes", off);
}

/* The region as target of a READ that this side posts. */
static void local_target(struct t_region *r, size_t off, size_t len)
{
	r->round++;
	t_fill_at(r->scratch.p, len, off, r->round);
	t_expect(t_read(&r->pair.a, &r->buf, off, &r->scratch, 0, len), IBV_WC_SUCCESS,
		 "READ of %zu bytes into the region at %zu", len, off);
	t_region_cpu_holds(r, off, len, r->round);
}

/* Both sides see what the other wrote, whichever part the region plays. */
void t_region_exchange(struct t_region *r, size_t off, size_t len)
{
	t_region_write(r, off, len);
	t_region_cpu_holds(r, off, len, r->round);
	r->round++;
	t_fill_at(r->buf.p + off, len, off, r->round);
	t_region_read(r, off, len, r->round);
	local_source(r, off, len);
	local_target(r, off, len);
}

static void fill_other(struct t_region *r, size_t len)
{
	t_fill_at(r->scratch.p, len, 12345, 9999);
}

static void expect_and_reconnect(struct t_region *r, enum ibv_wc_status got,
				 enum ibv_wc_status want, const char *what)
{
	t_expect(got, want, "%s", what);
	t_pair_reconnect(&r->pair);
}

/* A receive into the region: the receiver learns of its own error. */
static void receive_is_refused(struct t_region *r, size_t off, size_t len)
{
	struct ibv_wc wc;

	t_post_recv(&r->pair.b, &r->buf, off, len);
	t_expect(t_send(&r->pair.a, &r->scratch, 0, len), IBV_WC_REM_OP_ERR,
		 "SEND to a receive in a place that cannot be written");
	t_expect(t_wait(&r->pair.b, &wc), IBV_WC_LOC_PROT_ERR,
		 "receive in a place that cannot be written");
	t_pair_reconnect(&r->pair);
}

/* Nothing may be written: as remote target, atomic, receive, local target. */
void t_region_refuses_write(struct t_region *r, size_t off, size_t len)
{
	fill_other(r, len);
	expect_and_reconnect(r, t_write(&r->pair.a, &r->scratch, 0, &r->buf, off, len),
			     IBV_WC_REM_ACCESS_ERR,
			     "WRITE to a place that cannot be written");
	expect_and_reconnect(r, t_fadd(&r->pair.a, &r->scratch, 0, &r->buf,
				       (off + 7) & ~7UL, 1),
			     IBV_WC_REM_ACCESS_ERR,
			     "atomic on a place that cannot be written");
	expect_and_reconnect(r, t_read(&r->pair.a, &r->buf, off, &r->scratch, 0, len),
			     IBV_WC_LOC_PROT_ERR,
			     "READ into a place that cannot be written");
	receive_is_refused(r, off, len);
}

/* Nothing may be read: as remote source, local source of WRITE and SEND. */
void t_region_refuses_read(struct t_region *r, size_t off, size_t len)
{
	fill_other(r, len);
	expect_and_reconnect(r, t_read(&r->pair.a, &r->scratch, 0, &r->buf, off, len),
			     IBV_WC_REM_ACCESS_ERR,
			     "READ from a place that cannot be read");
	t_check(t_matches_at(r->scratch.p, len, 12345, 9999),
		"a refused READ wrote into the reader's buffer");
	expect_and_reconnect(r, t_write(&r->pair.a, &r->buf, off, &r->scratch, 0, len),
			     IBV_WC_LOC_PROT_ERR,
			     "WRITE out of a place that cannot be read");
	expect_and_reconnect(r, t_send(&r->pair.a, &r->buf, off, len),
			     IBV_WC_LOC_PROT_ERR,
			     "SEND out of a place that cannot be read");
	t_check(t_matches_at(r->scratch.p, len, 12345, 9999),
		"a refused WRITE wrote into its target");
}
