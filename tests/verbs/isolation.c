// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Whose memory a region is, and who sees what is written to it: the memory of the
 * process that registered it, whoever holds the descriptor; nothing once that is gone;
 * with the rights of mapping, region and queue pair all together; and whoever watches
 * the CPU's writes (userfaultfd's write protection, soft-dirty, PAGEMAP_SCAN) sees those
 * of RDMA too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "t.h"

#define PAGES		6UL
#define LEN		(PAGES * T_PAGE)
#define PROMPT_MS	10000

static u8 *small_pages(void)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	t_check(!madvise(p, LEN, MADV_NOHUGEPAGE), "madvise: %s", strerror(errno));
	return p;
}

/* ---- userfaultfd, write-protecting ---- */

static void protect(int uffd, void *p, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	t_check(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), "UFFDIO_WRITEPROTECT: %s",
		strerror(errno));
}

static int watch_writes(void *p, size_t len, u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	t_check(fd >= 0 && !ioctl(fd, UFFDIO_API, &api), "UFFDIO_API: %s", strerror(errno));
	t_check(!ioctl(fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER: %s", strerror(errno));
	protect(fd, p, len, true);
	return fd;
}

enum part { WRITTEN, ATOMIC, RECEIVED, READ_INTO };

struct watched {
	const char *name;
	enum part part;
};

static u64 start_write(struct t_region *r, enum part part, size_t off)
{
	struct ibv_sge mine = t_sge(&r->scratch, 0, 64), theirs = t_sge(&r->buf, off, 64);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &mine, .num_sge = 1,
		.raddr = r->buf.iova + off, .rkey = r->buf.mr->rkey, .compare_add = 1,
	};
	u64 id;

	if (part == ATOMIC) {
		op.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
		mine.length = 8;
	} else if (part == RECEIVED) {
		op.opcode = IBV_WR_SEND;
		t_post_recv(&r->pair.b, &r->buf, off, 64);
	} else if (part == READ_INTO) {
		op.opcode = IBV_WR_RDMA_READ;
		op.sge = &theirs;
		op.raddr = r->scratch.iova;
		op.rkey = r->scratch.mr->rkey;
	}
	t_check(!t_post(&r->pair.a, &op, &id), "post");
	return id;
}

/* A write of any kind waits for the handler, to whom it is a write; a READ does not. */
static void write_protected(const void *arg)
{
	const struct watched *w = arg;
	struct t_region r;
	size_t off;
	u64 address, value;
	int uffd, i;

	t_region_open(&r, small_pages(), LEN);
	t_region_exchange(&r, 0, LEN);
	for (i = 0; i < 2; i++) {
		t_fill(r.buf.p, LEN, 10 + i);
		uffd = watch_writes(r.buf.p, LEN, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
		t_region_read(&r, 0, LEN, 10 + i);
		off = (2 + i) * T_PAGE + 64;
		memset(r.scratch.p, 0x77, 64);
		start_write(&r, w->part, off);
		t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "%s: the handler sees nothing",
			w->name);
		t_check(address == (uintptr_t)r.buf.p + (2 + i) * T_PAGE, "%s: page %#llx",
			w->name, (unsigned long long)address);
		t_check(t_matches(r.buf.p, LEN, 10 + i), "%s: written under protection", w->name);
		memcpy(&value, r.buf.p + off, sizeof(value));
		protect(uffd, (void *)address, T_PAGE, false);
		t_expect(t_wait(&r.pair.a, NULL), IBV_WC_SUCCESS, "%s", w->name);
		if (w->part == RECEIVED)
			t_expect(t_wait(&r.pair.b, NULL), IBV_WC_SUCCESS, "receive");
		if (w->part == ATOMIC)
			t_check(*(u64 *)(r.buf.p + off) == value + 1, "the atomic is not there");
		else
			t_check(r.buf.p[off] == 0x77 && r.buf.p[off + 63] == 0x77,
				"%s: not there", w->name);
		t_check(t_matches(r.buf.p, off, 10 + i) &&
			t_matches_at(r.buf.p + off + 64, LEN - off - 64, off + 64, 10 + i),
			"%s: something else was written", w->name);
		close(uffd);
	}
}

/* ---- soft-dirty and PAGEMAP_SCAN ---- */

#define SOFT_DIRTY	(1ULL << 55)

static void expect_soft_dirty(const u8 *p, unsigned int pages, const char *when)
{
	unsigned int i, dirty = 0;

	for (i = 0; i < PAGES; i++)
		dirty |= !!(t_pagemap(p + i * T_PAGE) & SOFT_DIRTY) << i;
	t_check(dirty == pages, "%s: pages %#x are soft-dirty, not %#x", when, dirty, pages);
}

static void clear_soft_dirty(void)
{
	t_check(t_write_file("/proc/self/clear_refs", "4\n"), "clear_refs: %s",
		strerror(errno));
}

static bool have_soft_dirty(void)
{
	u8 *p = small_pages();

	p[0] = 1;
	clear_soft_dirty();
	p[0] = 2;
	return t_pagemap(p) & SOFT_DIRTY;
}

static void soft_dirty(const void *arg)
{
	struct t_region r;
	int i;

	(void)arg;
	if (!have_soft_dirty())
		t_skip("this kernel has no soft-dirty bits");
	t_region_open(&r, small_pages(), LEN);
	t_region_exchange(&r, 0, LEN);
	for (i = 0; i < 3; i++) {
		clear_soft_dirty();
		expect_soft_dirty(r.buf.p, 0, "cleared");
		t_region_read(&r, 0, LEN, r.round);
		expect_soft_dirty(r.buf.p, 0, "READ");
		t_expect(t_fadd(&r.pair.a, &r.scratch, 0, &r.buf, 4 * T_PAGE, 1),
			 IBV_WC_SUCCESS, "FETCH_ADD");
		expect_soft_dirty(r.buf.p, 1 << 4, "FETCH_ADD");
		t_region_write(&r, T_PAGE, T_PAGE + 1);
		expect_soft_dirty(r.buf.p, 1 << 4 | 3 << 1, "WRITE");
		t_region_write(&r, 0, LEN);
		expect_soft_dirty(r.buf.p, (1 << PAGES) - 1, "WRITE of all");
	}
}

/* As the kernel's headers have it, which Debian 12's do not. */
struct scan {
	u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct scan_region {
	u64 start, end, categories;
};

#define PAGEMAP_SCAN		_IOWR('f', 16, struct scan)
#define SCAN_PROTECTS		1	/* PM_SCAN_WP_MATCHING */
#define SCAN_WRITTEN		2	/* PAGE_IS_WRITTEN */
#define FEATURES_ASYNC		(1 << 13 | 1 << 15)	/* WP_UNPOPULATED, WP_ASYNC */

/* The pages written since the last look, as a mask. */
static unsigned int scan_written(const u8 *p)
{
	struct scan_region found[PAGES];
	struct scan scan = {
		.size = sizeof(scan), .flags = SCAN_PROTECTS,
		.start = (uintptr_t)p, .end = (uintptr_t)p + LEN,
		.vec = (uintptr_t)found, .vec_len = PAGES,
		.category_mask = SCAN_WRITTEN, .return_mask = SCAN_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), n, i;
	unsigned int mask = 0;
	u64 at;

	n = ioctl(fd, PAGEMAP_SCAN, &scan);
	t_check(n >= 0, "PAGEMAP_SCAN: %s", strerror(errno));
	close(fd);
	for (i = 0; i < n; i++)
		for (at = found[i].start; at < found[i].end; at += T_PAGE)
			mask |= 1 << (at - (uintptr_t)p) / T_PAGE;
	return mask;
}

static void scanned(const void *arg)
{
	struct t_region r;
	unsigned int mask;
	int i;

	(void)arg;
	t_region_open(&r, small_pages(), LEN);
	t_region_exchange(&r, 0, LEN);
	watch_writes(r.buf.p, LEN, FEATURES_ASYNC);
	t_check(!scan_written(r.buf.p), "written before it was watched");
	for (i = 0; i < 3; i++) {
		t_region_read(&r, 0, LEN, r.round);
		mask = scan_written(r.buf.p);
		t_check(!mask, "READ has written %#x", mask);
		t_region_write(&r, T_PAGE, 2 * T_PAGE);
		mask = scan_written(r.buf.p);
		t_check(mask == 3 << 1, "WRITE has written %#x, not %#x", mask, 3 << 1);
		t_region_write(&r, 0, LEN);
		mask = scan_written(r.buf.p);
		t_check(mask == (1 << PAGES) - 1, "WRITE of all: %#x", mask);
	}
}

/* ---- whose memory it is ---- */

struct said {
	u64 addr;
	u32 rkey;
};

static void tell(int fd)
{
	t_check(write(fd, "x", 1) == 1, "pipe: %s", strerror(errno));
}

static void hear(int fd)
{
	char byte;

	t_check(read(fd, &byte, 1) == 1, "the other process is gone");
}

static void by_key(struct t_buf *b, struct ibv_mr *key, const struct said *said)
{
	memset(b, 0, sizeof(*b));
	memset(key, 0, sizeof(*key));
	key->rkey = said->rkey;
	b->iova = said->addr;
	b->mr = key;
}

/* A child registers, through the descriptor that it has from its parent. */
static void child_registers(struct t_dev *dev, u8 *p, int say, int go, bool all)
{
	struct ibv_mr *mr = all ?
		ibv_reg_mr(dev->pd, NULL, SIZE_MAX, T_REMOTE | IBV_ACCESS_ON_DEMAND) :
		t_try_reg(dev, p, LEN, T_REMOTE);
	struct said said;

	t_check(mr, "ibv_reg_mr in the child: %s", strerror(errno));
	said = (struct said){ (uintptr_t)p, mr->rkey };
	t_fill(p, LEN, 20);
	t_check(write(say, &said, sizeof(said)) == sizeof(said), "pipe");
	hear(go);
	t_check(t_matches(p, LEN, 21), "the child does not see what its peer wrote");
	tell(say);
	hear(go);
	_exit(0);
}

static void inherited_descriptor(const void *arg)
{
	bool all = arg;
	int say[2], go[2], status;
	struct said said;
	struct t_region r;
	struct t_buf its;
	struct ibv_mr key;
	pid_t pid;

	t_region_open(&r, small_pages(), LEN);
	t_region_write(&r, 0, LEN);
	t_check(!pipe(say) && !pipe(go), "pipe: %s", strerror(errno));
	pid = t_fork();
	if (!pid) {
		close(go[1]);
		close(say[0]);
		child_registers(&r.pair.dev, r.buf.p, say[1], go[0], all);
	}
	close(say[1]);
	t_check(read(say[0], &said, sizeof(said)) == sizeof(said), "the child");
	by_key(&its, &key, &said);

	/* the same address in two processes: each key leads to its own */
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &its, 0, LEN), IBV_WC_SUCCESS,
		 "READ of the child's");
	t_check(t_matches(r.scratch.p, LEN, 20), "READ of the child's: wrong bytes");
	t_region_read(&r, 0, LEN, r.round);
	t_fill(r.scratch.p, LEN, 21);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &its, 0, LEN), IBV_WC_SUCCESS,
		 "WRITE to the child's");
	t_region_cpu_holds(&r, 0, LEN, r.round);
	tell(go[1]);
	hear(say[0]);
	t_region_exchange(&r, 0, LEN);

	/* dead with it, whoever has the descriptor */
	tell(go[1]);
	t_check(t_wait_exit(pid, PROMPT_MS, &status) && !status, "the child");
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &its, 0, 64), IBV_WC_REM_ACCESS_ERR,
		 "WRITE by the key of a dead process");
	t_pair_reconnect(&r.pair);
	t_region_exchange(&r, 0, LEN);
}

static void send_fd(int sock, int fd)
{
	char data = 'x', control[CMSG_SPACE(sizeof(fd))] = "";
	struct iovec iov = { &data, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	t_check(sendmsg(sock, &msg, 0) == 1, "sendmsg: %s", strerror(errno));
}

static int receive_fd(int sock)
{
	char data, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &data, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd;

	t_check(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&msg),
		"recvmsg: %s", strerror(errno));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* It opens, registers, connects, hands its only descriptor over, and waits. */
static void hand_over(int sock)
{
	struct t_addr mine, peer;
	struct t_dev dev;
	struct t_buf buf;
	struct t_ep ep;

	t_check(read(sock, &peer, sizeof(peer)) == sizeof(peer), "the peer's address");
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, NULL);
	t_buf_wrap(&buf, small_pages(), LEN);
	t_fill(buf.p, LEN, 30);
	t_reg(&buf, &dev);
	t_ep_connect(&ep, &peer);
	t_ep_addr(&ep, &mine);
	mine.addr = buf.iova;
	mine.rkey = buf.mr->rkey;
	t_check(write(sock, &mine, sizeof(mine)) == sizeof(mine), "address");
	send_fd(sock, dev.ctx->cmd_fd);
	/* its queues stay mapped; nothing is told to the kernel */
	close(dev.ctx->cmd_fd);
	close(dev.ctx->async_fd);
	tell(sock);
	hear(sock);
	t_check(t_matches(buf.p, LEN, 31), "what the peer wrote is not there");
	tell(sock);
	hear(sock);
	_exit(0);
}

static void passed_descriptor(const void *arg)
{
	struct t_addr mine, its;
	struct ibv_mr key;
	struct t_region r;
	struct t_buf b;
	int socks[2], fd, status;
	long mrs;
	pid_t pid;

	(void)arg;
	t_check(!socketpair(AF_UNIX, SOCK_STREAM, 0, socks), "socketpair: %s", strerror(errno));
	pid = t_fork();
	if (!pid) {
		close(socks[0]);
		hand_over(socks[1]);
	}
	close(socks[1]);
	t_region_open(&r, small_pages(), LEN);
	t_ep_reset(&r.pair.a);
	t_ep_addr(&r.pair.a, &mine);
	mrs = t_resources("mr");
	t_check(write(socks[0], &mine, sizeof(mine)) == sizeof(mine), "address");
	t_check(read(socks[0], &its, sizeof(its)) == sizeof(its), "the owner's address");
	fd = receive_fd(socks[0]);
	hear(socks[0]);
	t_ep_connect(&r.pair.a, &its);
	by_key(&b, &key, &(struct said){ its.addr, its.rkey });

	t_expect(t_read(&r.pair.a, &r.scratch, 0, &b, 0, LEN), IBV_WC_SUCCESS,
		 "READ while its descriptor is here");
	t_check(t_matches(r.scratch.p, LEN, 30), "READ: wrong bytes");
	t_fill(r.scratch.p, LEN, 31);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &b, 0, LEN), IBV_WC_SUCCESS,
		 "WRITE while its descriptor is here");
	tell(socks[0]);
	hear(socks[0]);

	tell(socks[0]);
	t_check(t_wait_exit(pid, PROMPT_MS, &status) && !status, "the owner");
	t_check(t_resources("mr") == mrs + 1, "the region does not outlive its owner");
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &b, 0, 64), IBV_WC_REM_ACCESS_ERR,
		 "WRITE to a dead owner, whose descriptor is here");
	close(fd);
	t_check(t_resources("mr") == mrs, "the region outlives its last descriptor");
}

/* ---- rights ---- */

static void qp_rights(struct t_ep *ep, int access)
{
	struct ibv_qp_attr attr = { .qp_access_flags = access };

	t_check(!ibv_modify_qp(ep->qp, &attr, IBV_QP_ACCESS_FLAGS), "rights of a queue pair");
}

/* A right that mapping, region or queue pair does not give is not there. */
static void rights_together(const void *arg)
{
	const int some = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_LOCAL_WRITE;
	enum ibv_wc_status got;
	unsigned int i, allows;
	struct t_region r;

	(void)arg;
	t_region_open_access(&r, small_pages(), LEN, some);
	for (i = 0; i < 8; i++) {
		t_dereg(&r.buf);
		t_check(!mprotect(r.buf.p, LEN, PROT_READ | PROT_WRITE), "mprotect");
		t_fill(r.buf.p, LEN, 40);
		t_check(!mprotect(r.buf.p, LEN, PROT_READ | (i & 1 ? PROT_WRITE : 0)),
			"mprotect: %s", strerror(errno));
		t_reg_access(&r.buf, &r.pair.dev, some | (i & 2 ? IBV_ACCESS_REMOTE_WRITE : 0));
		qp_rights(&r.pair.b, IBV_ACCESS_REMOTE_READ |
			  (i & 4 ? IBV_ACCESS_REMOTE_WRITE : 0));
		t_region_read(&r, 0, LEN, 40);
		t_fill(r.scratch.p, LEN, 41);
		allows = i == 7;
		got = t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, LEN);
		t_expect(got, allows ? IBV_WC_SUCCESS :
			 i & 4 ? IBV_WC_REM_ACCESS_ERR : IBV_WC_REM_INV_REQ_ERR,
			 "mapping %u, region %u, queue pair %u", i & 1, i >> 1 & 1, i >> 2);
		t_check(t_matches(r.buf.p, LEN, 40 + allows), "rights %u: wrong bytes", i);
		t_pair_reconnect(&r.pair);
	}
}

static const struct watched watched[] = {
	{ "WRITE", WRITTEN }, { "FETCH_ADD", ATOMIC }, { "receive", RECEIVED },
	{ "READ into it", READ_INTO },
};

static const struct t_case cases[] = {
	{ "write-protected by a userfaultfd: WRITE", T_ODP, write_protected, &watched[0] },
	{ "write-protected by a userfaultfd: atomic", T_ODP, write_protected, &watched[1] },
	{ "write-protected by a userfaultfd: receive", T_ODP, write_protected, &watched[2] },
	{ "write-protected by a userfaultfd: READ into it", T_ODP, write_protected, &watched[3] },
	{ "soft-dirty", T_ODP, soft_dirty, NULL },
	{ "PAGEMAP_SCAN", T_ODP, scanned, NULL },
	{ "registered by a child, through its parent's device", T_ODP,
	  inherited_descriptor, NULL },
	{ "an implicit region of a child, through its parent's device", T_ODP,
	  inherited_descriptor, "all" },
	{ "the only descriptor is passed to another process", T_ODP, passed_descriptor, NULL },
	{ "rights of mapping, region and queue pair", T_ODP, rights_together, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
