// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The implicit region: all of the process's memory under one key, whatever is mapped
 * before or after, in every part that a region can play; nothing of another process,
 * nothing that no device may touch, and nothing kept, or said, for addresses at which
 * nothing is. The administrator's switch, and what memory windows leave of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "t.h"

#define SWITCH		"/sys/module/rdma_rxe/parameters/implicit_mr"
#define LEN		(3 * T_PAGE + 100)
#define ACCESS_FLUSH	(1 << 8)	/* verbs.h has no name for it yet */
#define PROMPT_MS	10000

/* ---- the region ---- */

static bool set_switch(const char *mode)
{
	return t_write_file(SWITCH, mode);
}

static struct ibv_mr *try_all(struct t_dev *dev, int access)
{
	errno = 0;
	return ibv_reg_mr(dev->pd, NULL, SIZE_MAX, access | IBV_ACCESS_ON_DEMAND);
}

/* r->buf is where one looks at the region; @r->buf.mr is all of it. */
static void look_at(struct t_region *r, void *p, size_t len)
{
	struct ibv_mr *all = r->buf.mr;

	t_buf_wrap(&r->buf, p, len);
	r->buf.mr = all;
}

static void open_all(struct t_region *r, int access)
{
	memset(r, 0, sizeof(*r));
	r->round = 100;
	t_check(set_switch("on"), "%s", SWITCH);
	t_pair_open(&r->pair, NULL);
	t_buf_alloc(&r->scratch, 0, 64 * T_PAGE);
	t_reg_pinned(&r->scratch, &r->pair.dev);
	r->buf.mr = try_all(&r->pair.dev, access);
	t_check(r->buf.mr, "the implicit region: %s", strerror(errno));
}

static void *anonymous(size_t len)
{
	return t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* ---- what it reaches ---- */

static u8 in_data[LEN] = { 1 };
static u8 in_bss[LEN];

static void exchange_at(struct t_region *r, void *p, size_t len)
{
	look_at(r, p, len);
	t_region_exchange(r, 0, len);
	t_region_exchange(r, len / 2, 5);
}

static void mapped_before(const void *arg)
{
	u8 *private = anonymous(LEN), on_stack[2 * T_PAGE + 9];
	u8 *shared = t_map(LEN, MAP_SHARED, t_memfd("implicit", LEN, 0));
	u8 *heap = malloc(LEN);
	struct t_region r;

	(void)arg;
	t_check(heap, "malloc");
	open_all(&r, T_REMOTE);
	exchange_at(&r, private, LEN);
	exchange_at(&r, shared, LEN);
	exchange_at(&r, heap, LEN);
	exchange_at(&r, on_stack, sizeof(on_stack));
	exchange_at(&r, in_data, LEN);
	exchange_at(&r, in_bss, LEN);
}

static void mapped_after(const void *arg)
{
	struct t_region r;
	u8 *huge;

	(void)arg;
	open_all(&r, T_REMOTE);
	exchange_at(&r, anonymous(LEN), LEN);
	exchange_at(&r, t_map(LEN, MAP_SHARED, t_memfd("implicit", LEN, 0)), LEN);
	huge = t_map_huge_aligned(2 * T_HUGE);
	madvise(huge, 2 * T_HUGE, MADV_HUGEPAGE);
	exchange_at(&r, huge + T_HUGE - 300, T_PAGE);
}

static void mapped_again(const void *arg)
{
	u8 *p = anonymous(LEN);
	struct t_region r;
	int i;

	(void)arg;
	open_all(&r, T_REMOTE);
	look_at(&r, p, LEN);
	for (i = 0; i < 3; i++) {
		t_region_exchange(&r, 0, LEN);
		t_check(!munmap(p, LEN), "munmap: %s", strerror(errno));
		t_region_refuses_write(&r, T_PAGE, 64);
		t_region_refuses_read(&r, T_PAGE, 64);
		t_check(mmap(p, LEN, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p,
			"mmap: %s", strerror(errno));
		t_region_read_zero(&r, 0, LEN);
	}
}

/* RECV and atomics; and a list of pieces from all over the place. */
static void other_operations(const void *arg)
{
	static u8 pieces[4][700];
	struct ibv_sge sge[4];
	struct t_region r;
	struct ibv_wc wc;
	u64 *word;
	int i;

	(void)arg;
	open_all(&r, T_REMOTE);
	look_at(&r, anonymous(LEN), LEN);
	t_post_recv(&r.pair.b, &r.buf, 5, LEN - 5);
	t_fill_buf(&r.scratch, 7);
	t_expect(t_send(&r.pair.a, &r.scratch, 0, LEN - 5), IBV_WC_SUCCESS, "SEND");
	t_expect(t_wait(&r.pair.b, &wc), IBV_WC_SUCCESS, "its receive");
	t_check(t_matches(r.buf.p + 5, LEN - 5, 7), "the receive has wrong bytes");

	word = anonymous(T_PAGE);
	look_at(&r, word, T_PAGE);
	t_expect(t_fadd(&r.pair.a, &r.scratch, 0, &r.buf, 8, 5), IBV_WC_SUCCESS, "FETCH_ADD");
	t_expect(t_cas(&r.pair.a, &r.scratch, 0, &r.buf, 8, 5, 77), IBV_WC_SUCCESS, "CAS");
	t_check(word[1] == 77 && !word[0] && !word[2], "atomics left %llu",
		(unsigned long long)word[1]);

	for (i = 0; i < 4; i++) {
		t_fill_at(pieces[i], 700, 700 * i, 9);
		look_at(&r, pieces[i], 700);
		sge[i] = t_sge(&r.buf, 0, 700);
	}
	look_at(&r, anonymous(T_PAGE), T_PAGE);
	t_expect(t_do(&r.pair.a, &(struct t_op){
			.opcode = IBV_WR_RDMA_WRITE, .sge = sge, .num_sge = 4,
			.raddr = r.buf.iova + 3, .rkey = r.buf.mr->rkey }),
		 IBV_WC_SUCCESS, "WRITE of four pieces");
	t_check(t_matches(r.buf.p + 3, 4 * 700, 9), "four pieces: wrong bytes");
}

static void beside_an_explicit_region(const void *arg)
{
	u8 *p = anonymous(LEN);
	struct t_buf named;
	struct t_region r;

	(void)arg;
	open_all(&r, T_REMOTE);
	t_buf_wrap(&named, p, LEN);
	t_reg(&named, &r.pair.dev);
	look_at(&r, p, LEN);
	t_region_write(&r, 0, LEN);
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &named, 0, LEN), IBV_WC_SUCCESS,
		 "READ through the explicit region");
	t_check(t_matches(r.scratch.p, LEN, r.round), "the regions differ");
	t_dereg(&named);
	t_region_exchange(&r, 0, LEN);
}

/* ---- what it does not reach ---- */

static u64 a_hole(void)
{
	u8 *p = anonymous(3 * T_PAGE);

	t_check(!munmap(p + T_PAGE, T_PAGE), "munmap: %s", strerror(errno));
	return (uintptr_t)p + T_PAGE;
}

static enum ibv_wc_status raw(struct t_region *r, enum ibv_wr_opcode opcode, u64 raddr,
			      u32 rkey, u32 len)
{
	struct ibv_sge sge = t_sge(&r->scratch, 0, len);

	return t_do(&r->pair.a, &(struct t_op){
			.opcode = opcode, .sge = &sge, .num_sge = 1,
			.raddr = raddr, .rkey = rkey, .compare_add = 1 });
}

static void refused(struct t_region *r, enum ibv_wr_opcode opcode, u64 raddr, u32 len)
{
	t_fill(r->scratch.p, len, 31);
	t_expect(raw(r, opcode, raddr, r->buf.mr->rkey, len), IBV_WC_REM_ACCESS_ERR,
		 "opcode %d of %u bytes at %#llx", opcode, len, (unsigned long long)raddr);
	t_check(t_matches(r->scratch.p, len, 31), "opcode %d at %#llx brought something",
		opcode, (unsigned long long)raddr);
	t_pair_reconnect(&r->pair);
}

static void refused_by(struct t_region *r, u32 rkey, u64 raddr, u32 len)
{
	t_expect(raw(r, IBV_WR_RDMA_WRITE, raddr, rkey, len), IBV_WC_REM_ACCESS_ERR,
		 "WRITE of %u bytes at %#llx by the key of a window", len,
		 (unsigned long long)raddr);
	t_pair_reconnect(&r->pair);
}

/* As a peer may choose them: each is an error, and nothing is left of it. */
static void nothing_there(const void *arg)
{
	const u64 places[] = {
		0, 64, 1UL << 30, a_hole(),
		(1UL << 47) - T_PAGE, 1UL << 47, 1UL << 56, 1UL << 63,
		0xffff888000000000UL, 0xffffffff81000000UL, -2 * T_PAGE, -64UL,
	};
	struct t_region r;
	int log = t_log_open(), log_own = t_log_open(), log_mirror = t_log_open();
	unsigned int own;
	long leaves;
	size_t i;

	(void)arg;
	open_all(&r, T_REMOTE);
	leaves = t_stat("leaves");
	t_check(leaves >= 0, "no statistics");
	for (i = 0; i < T_ARRAY_SIZE(places); i++) {
		refused(&r, IBV_WR_RDMA_WRITE, places[i], 64);
		refused(&r, IBV_WR_RDMA_READ, places[i], 64);
		refused(&r, IBV_WR_ATOMIC_FETCH_AND_ADD, places[i], 8);
		t_check(t_stat("leaves") <= leaves, "%ld leaves, %ld before, at %#llx",
			t_stat("leaves"), leaves, (unsigned long long)places[i]);
	}
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "faults run on");
	/* stock rxe says when a request has failed, and now and then how often it did not */
	own = t_log_count(log_own, "make_send_cqe: non-flush");
	t_check(t_log_count(log, "rxe0: ") == own && !t_log_count(log_mirror, "mirror"),
		"the log is not quiet");
	/* and the region still works */
	exchange_at(&r, anonymous(LEN), LEN);
}

/* Lengths that go around, or much further than anything is mapped. */
static void long_ranges(const void *arg)
{
	static const u64 starts[] = { -64UL, -1UL, -(1UL << 30) + 100 };
	struct t_region r;
	u8 *p;
	size_t i;

	(void)arg;
	p = anonymous(3 * T_PAGE);
	t_check(!munmap(p + T_PAGE, 2 * T_PAGE), "munmap");
	t_fill(p, T_PAGE, 40);
	open_all(&r, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(starts); i++) {
		refused(&r, IBV_WR_RDMA_WRITE, starts[i], 8192);
		refused(&r, IBV_WR_RDMA_READ, starts[i], 8192);
	}
	/* from nothing into something: the something stays as it is */
	refused(&r, IBV_WR_RDMA_WRITE, (uintptr_t)p - 3000, 6000);
	t_check(t_matches(p, T_PAGE, 40), "what follows a hole was written");
}

/* Whatever comes before a hole has moved, as on hardware, also at the very end. */
static void into_the_hole(struct t_region *r, u8 *p, size_t len)
{
	t_fill(r->scratch.p, 2 * len, 50);
	t_expect(raw(r, IBV_WR_RDMA_WRITE, (uintptr_t)p, r->buf.mr->rkey, 2 * len),
		 IBV_WC_REM_ACCESS_ERR, "WRITE from %p into nothing", p);
	t_pair_reconnect(&r->pair);
	t_check(t_matches(p, len, 50), "the bytes before the hole have not moved");
}

static void before_a_hole(const void *arg)
{
	u8 *p = anonymous(4 * T_PAGE);
	struct t_region r;

	(void)arg;
	t_check(!munmap(p + 2 * T_PAGE, 2 * T_PAGE), "munmap: %s", strerror(errno));
	open_all(&r, T_REMOTE);
	into_the_hole(&r, p, 2 * T_PAGE);
}

static void the_last_page(const void *arg)
{
	u8 *at = (u8 *)((1UL << 47) - 2 * T_PAGE), *p;
	struct t_region r;

	(void)arg;
	p = mmap(at, T_PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	t_check(p == at, "mmap of the last page: %s", strerror(errno));
	open_all(&r, T_REMOTE);
	exchange_at(&r, p, T_PAGE);
	t_check(!madvise(p, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	into_the_hole(&r, p, T_PAGE);
}

static void rights_of_mappings(const void *arg)
{
	u8 *code = (u8 *)((uintptr_t)rights_of_mappings & ~(T_PAGE - 1));
	u8 *none = anonymous(T_PAGE), was[64];
	struct t_region r;

	(void)arg;
	memcpy(was, code, 64);
	open_all(&r, T_REMOTE);
	look_at(&r, code, T_PAGE);
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &r.buf, 0, 64), IBV_WC_SUCCESS,
		 "READ of code");
	t_check(!memcmp(r.scratch.p, was, 64), "READ of code returned something else");
	t_region_refuses_write(&r, 0, 64);
	t_check(!memcmp(code, was, 64), "code was written");
	t_fill(none, T_PAGE, 3);
	t_check(!mprotect(none, T_PAGE, PROT_NONE), "mprotect");
	look_at(&r, none, T_PAGE);
	t_region_refuses_read(&r, 0, 64);
	t_region_refuses_write(&r, 0, 64);
	t_check(!mprotect(none, T_PAGE, PROT_READ), "mprotect");
	t_region_read(&r, 0, T_PAGE, 3);
}

static void secret_memory(const void *arg)
{
	int fd = syscall(447 /* memfd_secret */, 0);
	struct t_region r;
	u8 *p;

	(void)arg;
	t_check(fd >= 0 && !ftruncate(fd, T_PAGE), "memfd_secret: %s", strerror(errno));
	p = t_map(T_PAGE, MAP_SHARED, fd);
	t_fill(p, T_PAGE, 12);
	open_all(&r, T_REMOTE);
	look_at(&r, p, T_PAGE);
	t_region_refuses_read(&r, 0, 64);
	t_region_refuses_write(&r, 0, 64);
	t_check(t_matches(p, T_PAGE, 12), "secret memory was changed");
}

/* What a child maps, at an address where its parent has nothing, or something else. */
static void another_process(const void *arg)
{
	u64 hole = a_hole();
	u8 *own = anonymous(T_PAGE);
	int ready[2], go[2];
	struct t_region r;
	char byte;
	pid_t pid;

	(void)arg;
	t_fill(own, T_PAGE, 60);
	open_all(&r, T_REMOTE);
	t_check(!pipe(ready) && !pipe(go), "pipe: %s", strerror(errno));
	pid = t_fork();
	if (!pid) {
		close(go[1]);
		t_check(mmap((void *)hole, T_PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)hole,
			"mmap: %s", strerror(errno));
		t_fill((void *)hole, T_PAGE, 61);
		t_fill(own, T_PAGE, 62);
		t_check(write(ready[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1, "pipe");
		t_check(t_matches((void *)hole, T_PAGE, 61), "the child's page was changed");
		t_check(t_matches(own, T_PAGE, 62), "the child's copy was changed");
		_exit(0);
	}
	t_check(read(ready[0], &byte, 1) == 1, "the child");
	refused(&r, IBV_WR_RDMA_READ, hole, 64);
	refused(&r, IBV_WR_RDMA_WRITE, hole, 64);
	look_at(&r, own, T_PAGE);
	t_region_read(&r, 0, T_PAGE, 60);
	t_region_write(&r, 0, T_PAGE);
	t_check(write(go[1], "x", 1) == 1, "pipe");
	t_check(t_wait_exit(pid, PROMPT_MS, &(int){ 0 }), "the child does not end");
	t_region_cpu_holds(&r, 0, T_PAGE, r.round);
}

static void rights_of_the_region(const void *arg)
{
	struct t_region r;

	(void)arg;
	open_all(&r, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
	look_at(&r, anonymous(T_PAGE), T_PAGE);
	t_fill(r.buf.p, T_PAGE, 70);
	t_region_read(&r, 0, T_PAGE, 70);
	refused(&r, IBV_WR_RDMA_WRITE, r.buf.iova, 64);
	refused(&r, IBV_WR_ATOMIC_FETCH_AND_ADD, r.buf.iova, 8);
	t_check(t_matches(r.buf.p, T_PAGE, 70), "written without the right to");
}

/* Only this one triple is the implicit region. */
static void nearly_implicit(const void *arg)
{
	static const struct { u64 start, len, iova; } nearly[] = {
		{ 0, SIZE_MAX, T_PAGE }, { 0, SIZE_MAX - 1, 0 },
		{ T_PAGE, SIZE_MAX, T_PAGE }, { 0, SIZE_MAX & ~(T_PAGE - 1), 0 },
	};
	struct t_region r;
	struct ibv_mr *mr;
	size_t i;

	(void)arg;
	open_all(&r, T_REMOTE);
	for (i = 0; i < T_ARRAY_SIZE(nearly); i++) {
		mr = ibv_reg_mr_iova(r.pair.dev.pd, (void *)nearly[i].start, nearly[i].len,
				     nearly[i].iova, T_REMOTE | IBV_ACCESS_ON_DEMAND);
		t_check(!mr, "%zu: registered", i);
	}
	t_check(!ibv_reg_mr(r.pair.dev.pd, NULL, SIZE_MAX, T_REMOTE), "pinned: registered");
	t_check(!try_all(&r.pair.dev, T_REMOTE | ACCESS_FLUSH) && errno == EOPNOTSUPP,
		"with the right to FLUSH: %s", strerror(errno));
}

/* ---- windows ---- */

static void bind(struct t_region *r, struct ibv_mw *mw, u64 addr, u64 len,
		 enum ibv_wc_status want)
{
	struct ibv_mw_bind bind = {
		.send_flags = IBV_SEND_SIGNALED,
		.bind_info = {
			.mr = r->buf.mr, .addr = addr, .length = len,
			.mw_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
		},
	};
	int err = ibv_bind_mw(r->pair.b.qp, mw, &bind);

	t_check(!err, "ibv_bind_mw: %s", strerror(err));
	t_expect(t_wait(&r->pair.b, NULL), want, "bind of %#llx + %#llx",
		 (unsigned long long)addr, (unsigned long long)len);
}

/* All of the process is in the region, and a page of it in the window. */
static void windows(const void *arg)
{
	struct t_region r;
	struct ibv_mw *mw;
	u64 page;
	u32 key;
	u8 *p;

	(void)arg;
	p = anonymous(3 * T_PAGE);
	open_all(&r, T_REMOTE | IBV_ACCESS_MW_BIND);
	mw = ibv_alloc_mw(r.pair.dev.pd, IBV_MW_TYPE_1);
	t_check(mw, "ibv_alloc_mw: %s", strerror(errno));
	page = (uintptr_t)p + T_PAGE;
	bind(&r, mw, page, T_PAGE, IBV_WC_SUCCESS);
	/* the library gives it another one with each bind */
	key = mw->rkey;
	t_fill(p, 3 * T_PAGE, 20);
	t_fill(r.scratch.p, T_PAGE, 21);
	t_expect(raw(&r, IBV_WR_RDMA_WRITE, page, key, T_PAGE), IBV_WC_SUCCESS,
		 "WRITE into the window");
	t_check(t_matches(p + T_PAGE, T_PAGE, 21), "WRITE into the window: wrong bytes");
	t_fill(p, 3 * T_PAGE, 20);
	t_fill(r.scratch.p, 2 * T_PAGE, 22);

	refused_by(&r, key, page - 1, 2);
	refused_by(&r, key, page + T_PAGE - 1, 2);
	refused_by(&r, key, page + T_PAGE, 64);
	refused_by(&r, key, page - T_PAGE, 64);
	refused_by(&r, key, page, 2 * T_PAGE);
	refused_by(&r, key, 0, 64);
	refused_by(&r, key, -64UL, 64);
	t_check(t_matches(p, 3 * T_PAGE, 20), "something was written");

	/* a window that goes around would be of everything */
	bind(&r, mw, -T_PAGE, 2 * T_PAGE, IBV_WC_MW_BIND_ERR);
	t_pair_reconnect(&r.pair);
	refused_by(&r, key, (uintptr_t)p, 64);
	refused_by(&r, mw->rkey, (uintptr_t)p, 64);
	t_check(t_matches(p, 3 * T_PAGE, 20), "something was written");
}

/* ---- its end ---- */

static void ends_while_a_page_is_awaited(const void *arg)
{
	u8 *p = anonymous(T_PAGE);
	int uffd = t_uffd_open();
	struct t_region r;
	u64 address, start;
	struct ibv_sge sge;
	u64 id;

	(void)arg;
	open_all(&r, T_REMOTE);
	look_at(&r, p, T_PAGE);
	t_uffd_watch(uffd, p, T_PAGE);
	sge = t_sge(&r.scratch, 0, 64);
	t_check(!t_post(&r.pair.a, &(struct t_op){
			.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
			.raddr = r.buf.iova, .rkey = r.buf.mr->rkey }, &id), "post");
	t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "no fault comes");
	start = t_now_ms();
	t_dereg(&r.buf);
	t_check(t_now_ms() - start < t_patience(PROMPT_MS), "dereg took %llu ms",
		(unsigned long long)(t_now_ms() - start));
	t_expect(t_wait(&r.pair.a, &(struct ibv_wc){ 0 }), IBV_WC_REM_ACCESS_ERR,
		 "WRITE to the region that went");
}

/* ---- the switch ---- */

static bool claimed(struct t_dev *dev)
{
	struct ibv_device_attr_ex attr;

	t_check(!ibv_query_device_ex(dev->ctx, NULL, &attr), "ibv_query_device_ex");
	t_check(attr.odp_caps.general_caps & IBV_ODP_SUPPORT, "no on-demand paging");
	return attr.odp_caps.general_caps & IBV_ODP_SUPPORT_IMPLICIT;
}

static void expect_reg(struct t_dev *dev, int access, int err)
{
	struct ibv_mr *mr = try_all(dev, access);

	t_check(!mr == !!err, "rights %#x: %s", access, mr ? "registered" : strerror(errno));
	t_check(mr || errno == err, "rights %#x: %s, not %s", access, strerror(errno),
		strerror(err));
	if (mr)
		t_check(!ibv_dereg_mr(mr), "dereg");
}

static void switch_off(const void *arg)
{
	struct t_dev dev;

	(void)arg;
	t_dev_open(&dev);
	t_check(set_switch("off"), "%s", SWITCH);
	t_check(!claimed(&dev), "claimed, though off");
	expect_reg(&dev, T_REMOTE, EOPNOTSUPP);
	expect_reg(&dev, IBV_ACCESS_LOCAL_WRITE, EOPNOTSUPP);
	t_check(set_switch("on\n"), "%s", SWITCH);
	t_check(claimed(&dev), "not claimed, though on");
	expect_reg(&dev, T_REMOTE, 0);
}

static void switch_local(const void *arg)
{
	static const int remote[] = {
		IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_ATOMIC,
		IBV_ACCESS_MW_BIND,
	};
	struct t_region r;
	size_t i;

	(void)arg;
	open_all(&r, IBV_ACCESS_LOCAL_WRITE);
	t_check(!ibv_dereg_mr(r.buf.mr), "dereg");
	t_check(set_switch("local"), "%s", SWITCH);
	t_check(claimed(&r.pair.dev), "not claimed, though local");
	for (i = 0; i < T_ARRAY_SIZE(remote); i++)
		expect_reg(&r.pair.dev, IBV_ACCESS_LOCAL_WRITE | remote[i], EPERM);
	r.buf.mr = try_all(&r.pair.dev, IBV_ACCESS_LOCAL_WRITE);
	t_check(set_switch("on"), "%s", SWITCH);
	t_check(r.buf.mr, "local: %s", strerror(errno));
	look_at(&r, anonymous(LEN), LEN);
	t_fill_buf(&r.scratch, 80);
	t_expect(t_read(&r.pair.a, &r.buf, 0, &r.scratch, 0, LEN), IBV_WC_SUCCESS, "READ into it");
	t_check(t_matches(r.buf.p, LEN, 80), "wrong bytes");
	t_expect(t_write(&r.pair.a, &r.buf, 0, &r.scratch, LEN, LEN), IBV_WC_SUCCESS,
		 "WRITE out of it");
	t_check(t_matches(r.scratch.p + LEN, LEN, 80), "wrong bytes");
	refused(&r, IBV_WR_RDMA_WRITE, r.buf.iova, 64);
}

static int change_access(struct t_region *r, int access)
{
	return t_rereg(&r->buf, IBV_REREG_MR_CHANGE_ACCESS, NULL, access | IBV_ACCESS_ON_DEMAND);
}

/* What is there stays, and may lose rights, but gets none that it could not have. */
static void switch_and_what_is_there(const void *arg)
{
	const int keep = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
	struct t_region r;
	int more, less;

	(void)arg;
	open_all(&r, keep);
	look_at(&r, anonymous(LEN), LEN);
	t_fill(r.buf.p, LEN, 90);
	t_check(set_switch("local"), "%s", SWITCH);
	more = change_access(&r, keep | IBV_ACCESS_REMOTE_WRITE);
	t_region_read(&r, 0, LEN, 90);
	less = change_access(&r, IBV_ACCESS_LOCAL_WRITE);
	t_check(set_switch("on"), "%s", SWITCH);
	t_check(more == EPERM, "more rights, though local: %s", strerror(more));
	t_check(!less, "fewer rights: %s", strerror(less));
	refused(&r, IBV_WR_RDMA_READ, r.buf.iova, 64);
	t_check(!change_access(&r, keep), "rights again: %s", strerror(errno));
	t_region_read(&r, 0, LEN, 90);
}

static void switch_words(const void *arg)
{
	char was[16], is[16];

	(void)arg;
	t_check(set_switch("local") && t_read_file(SWITCH, was, sizeof(was)) &&
		!strcmp(was, "local\n"), "the switch says '%s'", was);
	t_check(!set_switch("of") && !set_switch("1") && !set_switch("onn"),
		"a word that means nothing was taken");
	t_check(t_read_file(SWITCH, is, sizeof(is)) && !strcmp(is, was), "now it says '%s'", is);
	t_check(set_switch("on"), "%s", SWITCH);
}

static const struct t_case cases[] = {
	{ "memory mapped before", T_ODP, mapped_before, NULL },
	{ "memory mapped after", T_ODP, mapped_after, NULL },
	{ "memory unmapped and mapped again", T_ODP, mapped_again, NULL },
	{ "RECV, atomics and lists", T_ODP, other_operations, NULL },
	{ "beside an explicit region", T_ODP, beside_an_explicit_region, NULL },
	{ "addresses at which nothing is leave nothing", T_ODP, nothing_there, NULL },
	{ "ranges that wrap, or come out of a hole", T_ODP, long_ranges, NULL },
	{ "bytes before a hole move", T_ODP, before_a_hole, NULL },
	{ "the last page of the address space", T_ODP, the_last_page, NULL },
	{ "the rights of mappings", T_ODP, rights_of_mappings, NULL },
	{ "secret memory", T_ODP, secret_memory, NULL },
	{ "nothing of another process", T_ODP, another_process, NULL },
	{ "the rights of the region", T_ODP, rights_of_the_region, NULL },
	{ "other ranges are not implicit", T_ODP, nearly_implicit, NULL },
	{ "a memory window on it", T_ODP, windows, NULL },
	{ "dereg while a page is awaited", T_ODP, ends_while_a_page_is_awaited, NULL },
	{ "the switch: off", T_ODP, switch_off, NULL },
	{ "the switch: local", T_ODP, switch_local, NULL },
	{ "the switch and what is there", T_ODP, switch_and_what_is_there, NULL },
	{ "the switch takes its words only", T_ODP, switch_words, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
