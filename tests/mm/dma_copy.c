// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Copies by the engine of samples/mm_mirror: within a process and between two, at
 * every offset and of every class of length, cold and warm, with a table of the
 * engine's own and without; what cannot be copied; and the end of everything that
 * takes part, with everything outstanding.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define PROMPT_MS	5000
#define HOLD_US		20000

static struct t_place place(u32 space, void *p)
{
	return (struct t_place){ .space = space, .p = p };
}

/* ---- every offset, every class of length ---- */

/* What one case copies; @table: the engine has tables of its own. */
struct shape {
	size_t length;
	bool table;
};

struct ends {
	int dma;
	u32 from_space;
	u32 to_space;
	struct t_buf from;
	struct t_buf to;
};

static void open_ends(struct ends *e, const struct shape *shape, size_t from_offset,
		      size_t to_offset)
{
	t_buf_alloc(&e->from, from_offset, shape->length);
	t_buf_alloc(&e->to, to_offset, shape->length);
	e->dma = t_dma_open();
	e->from_space = shape->table ? t_dma_attach_all(e->dma) : t_dma_attach(e->dma);
	e->to_space = shape->table ? t_dma_attach_table(e->dma, e->to.map, e->to.map_len) :
				     t_dma_attach(e->dma);
}

static void close_ends(struct ends *e)
{
	close(e->dma);
	t_buf_free(&e->from);
	t_buf_free(&e->to);
}

static size_t pages_of(const struct t_buf *b)
{
	size_t first = (uintptr_t)b->p / T_PAGE, last = ((uintptr_t)b->p + b->len - 1) / T_PAGE;

	return last - first + 1;
}

static void copy_round(struct ends *e, u64 round, const char *what)
{
	int status;

	t_fill_buf(&e->from, round);
	status = t_dma_copy(e->dma, place(e->to_space, e->to.p),
			    place(e->from_space, e->from.p), e->from.len);
	t_check(!status, "%s: status %d", what, status);
	t_check_buf(&e->to, round, what);
	t_check_buf(&e->from, round, what);
}

/* Each side is faulted once, if at all, and once more for what was far ahead. */
static void check_cold(const struct ends *e, const struct mirror_dma_counts *from,
		       const struct mirror_dma_counts *to, bool table)
{
	u64 most = 1 + e->from.len / T_HUGE + 1;

	t_check(from->faults >= 1 && from->faults <= most, "%llu faults to read",
		(unsigned long long)from->faults);
	t_check(to->faults >= 1 && to->faults <= most, "%llu faults to write",
		(unsigned long long)to->faults);
	if (!table)
		return;
	t_check(from->established == pages_of(&e->from), "%llu established to read, not %zu",
		(unsigned long long)from->established, pages_of(&e->from));
	t_check(to->established == pages_of(&e->to), "%llu established to write, not %zu",
		(unsigned long long)to->established, pages_of(&e->to));
}

/* Nothing is asked for again, and what was not established is found. */
static void check_warm(const struct mirror_dma_counts *before, const struct mirror_dma_counts *now,
		       bool table)
{
	t_check(now->faults == before->faults, "%llu more faults",
		(unsigned long long)(now->faults - before->faults));
	t_check(now->established == before->established, "%llu more established",
		(unsigned long long)(now->established - before->established));
	t_check(!table || now->table_hits > before->table_hits, "the table was not used");
	t_check(table || !now->table_hits, "there is no table to be used");
	t_check(now->copies == 2, "%llu copies, not 2", (unsigned long long)now->copies);
}

static void copy_between(const struct shape *shape, size_t from_offset, size_t to_offset)
{
	struct mirror_dma_counts from, to, now;
	struct ends e;

	open_ends(&e, shape, from_offset, to_offset);
	copy_round(&e, 1, "cold");
	t_dma_counts(e.dma, e.from_space, &from);
	t_dma_counts(e.dma, e.to_space, &to);
	check_cold(&e, &from, &to, shape->table);
	copy_round(&e, 2, "warm");
	t_dma_counts(e.dma, e.from_space, &now);
	check_warm(&from, &now, shape->table);
	t_dma_counts(e.dma, e.to_space, &now);
	check_warm(&to, &now, shape->table);
	close_ends(&e);
}

static void every_offset(const void *arg)
{
	static const size_t offsets[] = { 0, 1, 7, 2048, T_PAGE - 1 };
	const struct shape *shape = arg;
	size_t i, j;

	for (i = 0; i < T_ARRAY_SIZE(offsets); i++) {
		for (j = 0; j < T_ARRAY_SIZE(offsets); j++)
			copy_between(shape, offsets[i], offsets[j]);
	}
}

static void nothing_at_all(const void *arg)
{
	int dma = t_dma_open(), status;
	u32 space = t_dma_attach(dma);
	struct mirror_dma_counts counts;

	/* not even looked at */
	status = t_dma_copy(dma, place(space, NULL), place(space, NULL), 0);
	t_check(!status, "status %d", status);
	t_dma_counts(dma, space, &counts);
	t_check(!counts.faults && counts.copies == 1, "%llu faults, %llu copies",
		(unsigned long long)counts.faults, (unsigned long long)counts.copies);
}

/* The CPU maps 2 MiB by one entry on both sides; offsets into it have to be right. */
static void huge_pages(const void *arg)
{
	bool table = arg;
	u8 *from = t_map_huge_aligned(T_HUGE), *to = t_map_huge_aligned(T_HUGE);
	int dma = t_dma_open(), status;
	size_t length = T_HUGE - 3 * T_PAGE, soff = T_PAGE + 5, doff = 2 * T_PAGE + 9;
	u32 space;

	t_check(!madvise(from, T_HUGE, MADV_HUGEPAGE) && !madvise(to, T_HUGE, MADV_HUGEPAGE),
		"MADV_HUGEPAGE: %s", strerror(errno));
	t_fill(from, T_HUGE, 1);
	memset(to, 0x11, T_HUGE);
	t_check(t_huge_bytes(from) == T_HUGE && t_huge_bytes(to) == T_HUGE, "no huge pages");
	space = table ? t_dma_attach_all(dma) : t_dma_attach(dma);
	status = t_dma_copy(dma, place(space, to + doff), place(space, from + soff), length);
	t_check(!status, "status %d", status);
	t_check(t_matches_at(to + doff, length, soff, 1), "wrong bytes");
	t_check(to[doff - 1] == 0x11 && to[doff + length] == 0x11, "bytes beside them changed");
	t_check(t_huge_bytes(from) == T_HUGE && t_huge_bytes(to) == T_HUGE,
		"the huge pages were split");
}

/* ---- what cannot be copied ---- */

struct refusal {
	const char *what;
	int prot;	/* of the second of three pages; -1: unmapped */
	bool read;	/* it may be read */
};

/* 0x2a of a page, and then what it is that cannot be had. */
static void refused_in_the_middle(const void *arg)
{
	const struct refusal *r = arg;
	size_t lead = 42, length = lead + 100;
	u8 *p = t_map(3 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u8 *other = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	struct mirror_dma_copy copy = { .length = length };
	u32 spaces[2];
	u64 bytes;
	int i;

	t_fill(p, 3 * T_PAGE, 1);
	t_check(!(r->prot < 0 ? munmap(p + T_PAGE, T_PAGE) : mprotect(p + T_PAGE, T_PAGE, r->prot)),
		"%s", strerror(errno));
	spaces[0] = t_dma_attach(dma);
	spaces[1] = t_dma_attach_all(dma);
	for (i = 0; i < 2; i++) {
		copy.src_space = spaces[i];
		copy.dst_space = spaces[i];
		copy.src = (uintptr_t)other;
		copy.dst = (uintptr_t)p + T_PAGE - lead;
		t_fill(other, T_PAGE, 2 + i);
		status = t_dma_do(dma, &copy, &bytes);
		t_check(status == -EFAULT, "writing: status %d", status);
		t_check(bytes == lead, "writing: %llu bytes, not %zu", (unsigned long long)bytes,
			lead);
		t_check(t_matches(p + T_PAGE - lead, lead, 2 + i), "what lies before was not written");
		t_check(t_matches(p, T_PAGE - lead, 1), "other bytes were");

		copy.src = (uintptr_t)p + T_PAGE - lead;
		copy.dst = (uintptr_t)other;
		t_fill(p, T_PAGE, 1);
		status = t_dma_do(dma, &copy, &bytes);
		t_check(status == (r->read ? 0 : -EFAULT), "reading: status %d", status);
		t_check(bytes == (r->read ? length : lead), "reading: %llu bytes",
			(unsigned long long)bytes);
		t_check(t_matches_at(other, bytes, T_PAGE - lead, 1), "reading: wrong bytes");
		t_check(t_matches_at(other + bytes, T_PAGE - bytes, bytes, 2 + i),
			"more was written than was said");
	}
	if (r->read)
		t_check(t_matches_at(p + T_PAGE, T_PAGE, T_PAGE, 1), "the page has changed");
}

static const struct refusal refusals[] = {
	{ "a hole", -1, false },
	{ "PROT_NONE", PROT_NONE, false },
	{ "PROT_READ", PROT_READ, true },
};

/* Addresses that are no memory of any process. */
static void strange_addresses(const void *arg)
{
	static const u64 addresses[] = {
		0, T_PAGE - 8, 0x7ffffffff000ULL, 0x800000000000ULL - 8, 0x800000000000ULL,
		0xffff800000000000ULL, 0xffffffff81000000ULL, ~0ULL - 63,
	};
	u8 *p = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	u32 space = arg ? t_dma_attach_all(dma) : t_dma_attach(dma);
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(addresses); i++) {
		void *there = (void *)(uintptr_t)addresses[i];

		status = t_dma_copy(dma, place(space, p), place(space, there), 64);
		t_check(status == -EFAULT, "reading %p: status %d", there, status);
		status = t_dma_copy(dma, place(space, there), place(space, p), 64);
		t_check(status == -EFAULT, "writing %p: status %d", there, status);
	}
}

static int submit_errno(int dma, u64 src, u64 dst, u64 length, u32 spaces)
{
	struct mirror_dma_copy copy = {
		.src = src, .dst = dst, .length = length,
		.src_space = spaces >> 8, .dst_space = spaces & 0xff,
	};

	return t_dma_submit(dma, &copy);
}

static void bad_orders(const void *arg)
{
	u8 *p = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct mirror_dma_copy copy = { .length = 1, .src = (uintptr_t)p, .dst = (uintptr_t)p };
	u64 good = (uintptr_t)p;
	int dma = t_dma_open();
	u32 bad = 77, space;

	t_check(t_dma_submit(dma, &copy) == ENOENT, "there is no space yet");
	space = t_dma_attach(dma);
	t_check(!space, "the first space is %u", space);
	t_check(submit_errno(dma, ~0ULL, good, 2, 0) == EINVAL, "source wraps");
	t_check(submit_errno(dma, good, ~0ULL - 9, 11, 0) == EINVAL, "destination wraps");
	t_check(submit_errno(dma, good, good, 8, 0x0100) == ENOENT, "no such source");
	t_check(submit_errno(dma, good, good, 8, 0x0001) == ENOENT, "no such destination");
	t_check(submit_errno(dma, good, good, 8, 0xff00) == ENOENT, "no such number");
	copy.flags = 2;
	t_check(t_dma_submit(dma, &copy) == EINVAL, "unknown flag");
	copy.flags = 0;
	copy.hold_us = MIRROR_DMA_HOLD_MAX + 1;
	t_check(t_dma_submit(dma, &copy) == EINVAL, "held too long");
	t_check(ioctl(dma, MIRROR_DMA_DETACH, &bad) && errno == ENOENT, "detach of no space");
	t_check(t_dma_try_attach(dma, 0, 1, 2, &bad) == EINVAL, "a range for no table");
	t_check(t_dma_try_attach(dma, 2, 0, 0, &bad) == EINVAL, "unknown flag to attach");
	t_check(t_dma_try_attach(dma, MIRROR_DMA_TABLE, 2, 1, &bad) == EINVAL,
		"a range that ends before it begins");
	t_check(ioctl(dma, _IO('~', 99)) && errno == ENOTTY, "unknown request");
}

/* ---- without a fault ---- */

static void no_fault(const void *arg)
{
	bool table = arg;
	u8 *from = t_map(4 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u8 *to = t_map(4 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	u32 space = table ? t_dma_attach_all(dma) : t_dma_attach(dma);
	struct mirror_dma_copy copy = {
		.src = (uintptr_t)from, .dst = (uintptr_t)to, .length = 4 * T_PAGE,
		.src_space = space, .dst_space = space, .flags = MIRROR_DMA_NOFAULT,
	};
	struct mirror_dma_counts counts;
	u64 bytes;

	t_fill(from, 4 * T_PAGE, 1);
	t_fill(to, 4 * T_PAGE, 2);
	status = t_dma_do(dma, &copy, &bytes);
	t_check(status == -EAGAIN && !bytes, "cold: status %d, %llu bytes", status,
		(unsigned long long)bytes);
	t_dma_counts(dma, space, &counts);
	t_check(!counts.faults, "cold: %llu faults", (unsigned long long)counts.faults);

	/* no more than the first page, since what is ahead is not asked for then */
	t_check(!t_dma_copy(dma, place(space, to), place(space, from), T_PAGE), "one page");
	status = t_dma_do(dma, &copy, &bytes);
	t_check(status == -EAGAIN && bytes == T_PAGE, "one page warm: status %d, %llu bytes",
		status, (unsigned long long)bytes);
	t_check(t_matches(to, T_PAGE, 1), "the page that was there was not copied");
	t_check(t_matches_at(to + T_PAGE, 3 * T_PAGE, T_PAGE, 2), "others were");

	t_check(!t_dma_copy(dma, place(space, to), place(space, from), 4 * T_PAGE), "all");
	t_dma_counts(dma, space, &counts);
	t_fill(from, 4 * T_PAGE, 3);
	status = t_dma_do(dma, &copy, &bytes);
	t_check(!status && t_matches(to, 4 * T_PAGE, 3), "warm: status %d", status);
}

/* ---- two processes ---- */

/*
 * A peer with LEN bytes at the same address as ours, but other memory: it attaches
 * itself when it has been given the engine, and looks at its memory when told to.
 */
#define LEN	(5 * T_PAGE)

struct peer {
	pid_t pid;
	int pipe;	/* to and from it */
	u32 space;
	u8 *p;
};

enum { ASK_MATCHES, ASK_FILL, ASK_EXEC, ASK_EXIT };

struct question {
	u32 what;
	u64 round;
};

static void tell(int fd, const void *data, size_t len)
{
	if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		t_die("telling the other process: %s", strerror(errno));
}

static void hear(int fd, void *data, size_t len)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	if (poll(&pfd, 1, t_patience(T_WAIT_MS)) != 1)
		t_die("the other process says nothing");
	if (recv(fd, data, len, MSG_WAITALL) != (ssize_t)len)
		t_die("the other process is gone");
}

static void send_fd(int sock, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { "f", 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, 0) != 1)
		t_die("passing the file: %s", strerror(errno));
}

static int receive_fd(int sock)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&msg))
		t_die("no file came: %s", strerror(errno));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static void answer(int sock, u8 *p)
{
	struct question q;
	bool yes;

	/* the case may end first, and well */
	if (recv(sock, &q, sizeof(q), MSG_WAITALL) != sizeof(q))
		_exit(0);
	switch (q.what) {
	case ASK_MATCHES:
		yes = t_matches(p, LEN, q.round);
		break;
	case ASK_FILL:
		t_fill(p, LEN, q.round);
		yes = true;
		break;
	case ASK_EXEC:
		execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(1);
	default:
		_exit(0);
	}
	tell(sock, &yes, sizeof(yes));
}

static void be_peer(int sock, int dma, bool table)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u32 space;

	t_fill(p, LEN, 100);
	if (dma < 0)
		dma = receive_fd(sock);
	space = table ? t_dma_attach_all(dma) : t_dma_attach(dma);
	/* what keeps the engine is not this process */
	close(dma);
	tell(sock, &space, sizeof(space));
	tell(sock, &p, sizeof(p));
	for (;;)
		answer(sock, p);
}

/* @dma is inherited, or passed on if it comes later. */
static void peer_start(struct peer *peer, int dma, bool table)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		t_die("socketpair: %s", strerror(errno));
	peer->pid = t_fork();
	if (!peer->pid) {
		close(ends[0]);
		be_peer(ends[1], dma, table);
	}
	close(ends[1]);
	peer->pipe = ends[0];
}

static void peer_attached(struct peer *peer)
{
	hear(peer->pipe, &peer->space, sizeof(peer->space));
	hear(peer->pipe, &peer->p, sizeof(peer->p));
}

static bool peer_ask(struct peer *peer, u32 what, u64 round)
{
	struct question q = { what, round };
	bool yes;

	tell(peer->pipe, &q, sizeof(q));
	hear(peer->pipe, &yes, sizeof(yes));
	return yes;
}

struct between {
	bool passed;
	bool table;
};

static void two_processes(const void *arg)
{
	const struct between *how = arg;
	struct peer peer;
	u32 here;
	u64 round;
	u8 *p;
	int dma;

	dma = how->passed ? -1 : t_dma_open();
	peer_start(&peer, dma, how->table);
	p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (how->passed) {
		dma = t_dma_open();
		send_fd(peer.pipe, dma);
	}
	here = how->table ? t_dma_attach_all(dma) : t_dma_attach(dma);
	peer_attached(&peer);
	t_check(peer.space != here, "both are space %u", here);
	t_check(peer.p == p, "%p is not %p: the same address was to be meant", peer.p, p);

	for (round = 1; round < 20; round += 2) {
		t_fill(p, LEN, round);
		t_check(!t_dma_copy(dma, place(peer.space, peer.p), place(here, p), LEN), "there");
		t_check(peer_ask(&peer, ASK_MATCHES, round), "wrong bytes there");
		t_check(peer_ask(&peer, ASK_FILL, round + 1), "fill");
		t_check(t_matches(p, LEN, round), "its memory is ours");
		t_check(!t_dma_copy(dma, place(here, p), place(peer.space, peer.p), LEN), "back");
		t_check(t_matches(p, LEN, round + 1), "wrong bytes here");
	}
}

/* ---- fork ---- */

/* What a child inherits is the parent's: its own memory is for it to attach. */
static void be_child(int dma, u32 parent, u8 *p, u8 *beside)
{
	u32 mine;

	/* the parent's page, though the address is ours as well */
	t_check(!t_dma_copy(dma, place(parent, p), place(parent, beside), T_PAGE), "in the parent");
	t_check(t_matches(p, T_PAGE, 1), "the child's page changed");

	mine = t_dma_attach(dma);
	t_check(mine != parent, "one space for two processes");
	t_fill(beside, T_PAGE, 3);
	t_check(!t_dma_copy(dma, place(mine, p), place(mine, beside), T_PAGE), "in the child");
	t_check(t_matches(p, T_PAGE, 3), "wrong bytes in the child");
	_exit(0);
}

static void after_fork(const void *arg)
{
	u8 *p = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u8 *beside = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	bool settled = t_stat_wait("mirrors", 0, PROMPT_MS);
	u32 space = arg ? t_dma_attach_all(dma) : t_dma_attach(dma);
	long mirrors = t_stat("mirrors");
	pid_t pid;

	t_check(settled && mirrors == 1, "%ld mirrors, and one process", mirrors);
	t_fill(p, T_PAGE, 1);
	t_fill(beside, T_PAGE, 2);
	/* both are known to the engine, for writing, before the child shares them */
	t_check(!t_dma_copy(dma, place(space, p), place(space, p), T_PAGE), "onto itself");
	t_check(!t_dma_copy(dma, place(space, beside), place(space, beside), T_PAGE), "itself");
	pid = t_fork();
	if (!pid)
		be_child(dma, space, p, beside);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "the child failed");
	t_check(t_matches(p, T_PAGE, 2), "the parent's page has not what was copied there");
	t_check(t_matches(beside, T_PAGE, 2), "the parent has the child's bytes");
	t_check(t_stat("mirrors") == mirrors + 1, "%ld mirrors more, of one child",
		t_stat("mirrors") - mirrors);
	/* the child's space is still attached, and its process is gone */
	t_check(t_dma_copy(dma, place(space + 1, p), place(space, beside), T_PAGE) == -ESRCH,
		"there is still something to be written");
	close(dma);
	t_check(t_stat_wait("mirrors", mirrors - 1, PROMPT_MS), "mirrors are left");
}

/* ---- hundreds at once ---- */

#define MANY	MIRROR_DMA_DEPTH

/* Cookies that were given out come back, each once. */
static void collect(int dma, unsigned int many, unsigned int *of_status)
{
	static bool seen[MANY];
	struct mirror_dma_done done;
	unsigned int i;

	memset(seen, 0, sizeof(seen));
	for (i = 0; i < many; i++) {
		t_check(t_dma_read(dma, T_WAIT_MS, &done), "only %u of %u ended", i, many);
		t_check(done.cookie < many && !seen[done.cookie], "copy %llu again",
			(unsigned long long)done.cookie);
		seen[done.cookie] = true;
		t_check(done.status <= 0 && done.status > -200, "status %d", done.status);
		of_status[-done.status]++;
	}
	t_check(!t_dma_read(dma, 0, &done), "more ended than were begun");
}

static void many_at_once(const void *arg)
{
	size_t piece = 3000, len = MANY * piece;
	u8 *from = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u8 *to = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open();
	u32 space = arg ? t_dma_attach_all(dma) : t_dma_attach(dma);
	unsigned int of_status[200] = { 0 };
	struct mirror_dma_counts counts;
	struct mirror_dma_copy one = { .src = (uintptr_t)from, .dst = (uintptr_t)to, .length = 1 };
	u64 i;

	t_fill(from, len, 1);
	for (i = 0; i < MANY; i++)
		t_dma_start(dma, i, place(space, to + i * piece), place(space, from + i * piece),
			    piece);
	t_check(t_dma_submit(dma, &one) == EBUSY, "there is room for more than %d", MANY);
	collect(dma, MANY, of_status);
	t_check(of_status[0] == MANY, "%u of %d succeeded", of_status[0], MANY);
	t_check(t_matches(to, len, 1), "wrong bytes");
	t_dma_counts(dma, space, &counts);
	t_check(counts.copies == MANY, "%llu copies", (unsigned long long)counts.copies);
	t_check(!t_dma_copy(dma, place(space, to), place(space, from), 1), "there is room again");
}

/* ---- reading and polling ---- */

static void reading(const void *arg)
{
	u8 *p = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct mirror_dma_done done[5];
	int dma = t_dma_open();
	struct pollfd pfd = { .fd = dma, .events = POLLIN };
	u32 space = t_dma_attach(dma);
	int i, flags = fcntl(dma, F_GETFL);

	t_check(!poll(&pfd, 1, 0), "there is something to read");
	t_check(!fcntl(dma, F_SETFL, flags | O_NONBLOCK), "O_NONBLOCK");
	t_check(read(dma, done, sizeof(done)) == -1 && errno == EAGAIN, "read did not say EAGAIN");
	t_check(read(dma, done, sizeof(done[0]) - 1) == -1 && errno == EINVAL, "a short read");
	t_check(!fcntl(dma, F_SETFL, flags), "O_NONBLOCK off");

	/* it waits: there is nothing yet, for as long as the copy holds its pages */
	t_check(!t_dma_submit(dma, &(struct mirror_dma_copy){
			.cookie = 9, .src = (uintptr_t)p, .dst = (uintptr_t)p + 100, .length = 8,
			.src_space = space, .dst_space = space, .hold_us = HOLD_US }), "submit");
	t_check(read(dma, done, sizeof(done)) == sizeof(done[0]), "read");
	t_check(done[0].cookie == 9 && !done[0].status && done[0].bytes == 8 && !done[0].zero,
		"status %d", done[0].status);

	for (i = 0; i < 7; i++)
		t_dma_start(dma, i, place(space, p), place(space, p + 64), 8);
	for (i = 0; i < 7; i += read(dma, done, sizeof(done) - 1) / sizeof(done[0]))
		t_check(poll(&pfd, 1, t_patience(T_WAIT_MS)) == 1, "poll");
	t_check(i == 7, "%d ended", i);
	t_check(!poll(&pfd, 1, 0), "there is more");
}

/* ---- numbers ---- */

static void spaces(const void *arg)
{
	u8 *p = t_map(2 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), other = t_dma_open();
	u32 space, i;

	for (i = 0; i < MIRROR_DMA_SPACES; i++)
		t_check(!t_dma_try_attach(dma, i % 2 ? MIRROR_DMA_TABLE : 0, 0,
					  i % 2 ? i : 0, &space) && space == i, "space %u", i);
	t_check(t_dma_try_attach(dma, 0, 0, 0, &space) == ENOSPC, "one too many");
	t_dma_detach(dma, 17);
	t_check(submit_errno(dma, 0, 0, 0, 17) == ENOENT, "17 is still there");
	t_check(t_dma_attach(dma) == 17, "the number is not used again");
	/* another engine's numbers are its own */
	t_check(submit_errno(other, 0, 0, 0, 0) == ENOENT, "there is a space 0");
	t_fill(p, T_PAGE, 4);
	t_check(!t_dma_copy(dma, place(63, p + T_PAGE), place(0, p), T_PAGE), "copy");
	t_check(t_matches(p + T_PAGE, T_PAGE, 4), "wrong bytes");
}

/* ---- the end, with everything outstanding ---- */

#define PARKED		20
#define HELD		20
#define QUEUED		400
#define OUTSTANDING	(PARKED + HELD + QUEUED)

/*
 * Copies that wait for a page which does not come, copies that dawdle with a page, and
 * more. @watched does not come; @p has QUEUED + HELD pages.
 */
static void start_everything(int dma, struct t_place watched, struct t_place p, u32 here, u8 *to)
{
	struct mirror_dma_copy held = {
		.length = 3 * T_PAGE, .src_space = p.space, .dst_space = here, .hold_us = HOLD_US,
	};
	u64 i;

	for (i = 0; i < PARKED; i++)
		t_dma_start(dma, i, place(here, to), watched, 64);
	for (; i < PARKED + HELD; i++) {
		held.cookie = i;
		held.src = (uintptr_t)p.p + (i % 8) * T_PAGE;
		held.dst = (uintptr_t)to + (i % 8) * T_PAGE;
		t_check(!t_dma_submit(dma, &held), "submit");
	}
	for (; i < OUTSTANDING; i++)
		t_dma_start(dma, i, place(here, to), place(p.space, (u8 *)p.p + (i % 16) * T_PAGE),
			    T_PAGE);
}

struct stage {
	int dma;
	int uffd;
	u32 space;
	u8 *p;		/* 16 pages and more */
	u8 *watched;
	long running;
	long mirrors;
};

#define STAGE_LEN	(32 * T_PAGE)

/* In whoever's memory is to be the source. */
static void open_stage(struct stage *s, int dma, bool table)
{
	s->mirrors = t_stat("mirrors");
	s->running = t_stat("faults_running");
	s->p = t_map(STAGE_LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	s->watched = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	t_fill(s->p, STAGE_LEN, 1);
	s->uffd = t_uffd_open();
	t_uffd_watch(s->uffd, s->watched, T_PAGE);
	s->dma = dma;
	s->space = table ? t_dma_attach_all(dma) : t_dma_attach(dma);
}

static void wait_parked(const struct stage *s)
{
	u64 end = t_deadline(PROMPT_MS);

	while (t_stat("faults_running") <= s->running)
		t_check(t_now_ms() < end, "no fault is waiting");
}

/* Some have ended, some are at work, some have not begun. */
static void wait_some(int dma, u32 space)
{
	u64 end = t_deadline(PROMPT_MS);
	struct mirror_dma_counts counts;

	do {
		t_dma_counts(dma, space, &counts);
		t_check(t_now_ms() < end, "%llu copies have ended",
			(unsigned long long)counts.copies);
	} while (counts.copies < 10);
}

static void expect_ended(int dma, unsigned int many, int status, unsigned int at_least)
{
	unsigned int of_status[200] = { 0 };

	collect(dma, many, of_status);
	t_check(of_status[0] + of_status[-status] == many, "statuses other than 0 and %d", status);
	t_check(of_status[-status] >= at_least, "only %u of status %d", of_status[-status], status);
	t_diag("%u copies ended well, %u with %d", of_status[0], of_status[-status], status);
}

/* Detaching ends those that wait for ever, and waits for those that do not. */
static void detached(const void *arg)
{
	u8 *to = t_map(STAGE_LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open();
	u32 here = t_dma_attach(dma);
	struct mirror_dma_counts counts;
	struct stage s;
	u64 begin;

	open_stage(&s, dma, arg);
	start_everything(dma, place(s.space, s.watched), place(s.space, s.p), here, to);
	wait_parked(&s);
	wait_some(dma, here);
	begin = t_now_ms();
	t_dma_detach(dma, s.space);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "detach took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	/* they have ended by then: the other space has them counted */
	t_dma_counts(dma, here, &counts);
	t_check(counts.copies == OUTSTANDING, "%llu copies have ended",
		(unsigned long long)counts.copies);
	expect_ended(dma, OUTSTANDING, -ECANCELED, PARKED);
	t_check(t_stat_wait("faults_running", s.running, PROMPT_MS), "the fault goes on");
	t_check(t_dma_copy(dma, place(here, to), place(here, s.p), T_PAGE) == 0, "the other space");
}

static void closed(const void *arg)
{
	u8 *to = t_map(STAGE_LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open();
	struct stage s;
	u64 begin;

	open_stage(&s, dma, arg);
	start_everything(dma, place(s.space, s.watched), place(s.space, s.p), s.space, to);
	wait_parked(&s);
	wait_some(dma, s.space);
	begin = t_now_ms();
	close(dma);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "close took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	t_check(t_stat_wait("faults_running", s.running, PROMPT_MS), "the fault goes on");
	t_check(t_stat_wait("mirrors", s.mirrors, PROMPT_MS), "a mirror is left");
}

enum way { BY_KILL, BY_EXEC, BY_EXIT };

struct ending {
	enum way way;
	bool table;
};

/* The one whose memory is copied, by an engine that is not its own. */
static void be_source(int sock, int dma, const struct ending *how)
{
	struct stage s;

	open_stage(&s, dma, how->table);
	tell(sock, &s, sizeof(s));
	/* which somebody keeps, so that its end does not serve the fault */
	send_fd(sock, s.uffd);
	for (;;)
		answer(sock, s.p);
}

static void end_peer(pid_t pid, int sock, enum way way)
{
	struct question q = { way == BY_EXEC ? ASK_EXEC : ASK_EXIT, 0 };

	if (way == BY_KILL)
		kill(pid, SIGKILL);
	else
		tell(sock, &q, sizeof(q));
}

static void wait_released(int dma, u32 space, u64 times)
{
	struct mirror_dma_counts counts;
	u64 end = t_deadline(PROMPT_MS);

	do {
		t_dma_counts(dma, space, &counts);
		t_check(t_now_ms() < end, "released %llu times, not %llu",
			(unsigned long long)counts.released, (unsigned long long)times);
	} while (counts.released < times);
	t_check(counts.released == times, "released %llu times",
		(unsigned long long)counts.released);
}

/* The last fault may have kept the memory for a moment longer than its process. */
static void wait_gone(int dma, struct t_place to, struct t_place from)
{
	u64 end = t_deadline(PROMPT_MS);
	int status;

	while ((status = t_dma_copy(dma, to, from, 64)) != -ESRCH)
		t_check(t_now_ms() < end, "status %d of memory that is gone", status);
}

static void process_ends(const void *arg)
{
	const struct ending *how = arg;
	u8 *to = t_map(STAGE_LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), ends[2], status;
	u32 here = t_dma_attach(dma);
	struct stage s;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		t_die("socketpair");
	pid = t_fork();
	if (!pid)
		be_source(ends[1], dma, how);
	close(ends[1]);
	hear(ends[0], &s, sizeof(s));
	receive_fd(ends[0]);
	start_everything(dma, place(s.space, s.watched), place(s.space, s.p), here, to);
	wait_parked(&s);
	end_peer(pid, ends[0], how->way);
	expect_ended(dma, OUTSTANDING, -ESRCH, PARKED);
	if (how->way != BY_EXEC)
		t_check(t_wait_exit(pid, PROMPT_MS, &status), "the process stays");
	t_check(t_stat_wait("faults_running", s.running, PROMPT_MS), "the fault goes on");

	wait_gone(dma, place(here, to), place(s.space, s.p));
	wait_gone(dma, place(s.space, s.p), place(here, to));
	wait_released(dma, s.space, how->table);
	t_dma_detach(dma, s.space);
	t_check(t_stat_wait("mirrors", s.mirrors, PROMPT_MS), "its mirror is left");
}

/* The one whose engine it is; its memory goes together with it. */
static void owner_killed(const void *arg)
{
	long mirrors = t_stat("mirrors"), running = t_stat("faults_running");
	int ends[2], status;
	struct stage s;
	pid_t pid;
	u8 *to;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		t_die("socketpair");
	pid = t_fork();
	if (!pid) {
		to = t_map(STAGE_LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		open_stage(&s, t_dma_open(), arg);
		start_everything(s.dma, place(s.space, s.watched), place(s.space, s.p), s.space,
				 to);
		wait_parked(&s);
		tell(ends[1], &s, sizeof(s));
		for (;;)
			pause();
	}
	hear(ends[0], &s, sizeof(s));
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, PROMPT_MS, &status), "the killed process stays");
	t_check(t_stat_wait("faults_running", running, PROMPT_MS), "the fault goes on");
	t_check(t_stat_wait("mirrors", mirrors, PROMPT_MS), "a mirror is left");
}

#define SHAPES(len)							\
	{ .length = (len) }, { .length = (len), .table = true }

static const struct shape shapes[] = {
	SHAPES(1), SHAPES(8), SHAPES(T_PAGE - 1), SHAPES(T_PAGE), SHAPES(T_PAGE + 1),
	SHAPES(3 * T_PAGE + 17), SHAPES(T_HUGE + 5),
};

static const struct between inherited = { 0 };
static const struct between passed = { .passed = true };
static const struct between passed_table = { .passed = true, .table = true };

static const struct ending killed = { BY_KILL, false }, killed_table = { BY_KILL, true };
static const struct ending execed = { BY_EXEC, false }, execed_table = { BY_EXEC, true };
static const struct ending exited = { BY_EXIT, false }, exited_table = { BY_EXIT, true };

#define EVERY(what, i)							\
	{ "every offset: " what, T_DMA, every_offset, &shapes[2 * (i)] },	\
	{ "every offset, by table: " what, T_DMA, every_offset, &shapes[2 * (i) + 1] }

static const struct t_case cases[] = {
	EVERY("1 byte", 0),
	EVERY("8 bytes", 1),
	EVERY("a page less 1", 2),
	EVERY("a page", 3),
	EVERY("a page and 1", 4),
	EVERY("3 pages and 17", 5),
	EVERY("2 MiB and 5", 6),
	{ "nothing", T_DMA, nothing_at_all, NULL },
	{ "huge pages", T_DMA, huge_pages, NULL },
	{ "huge pages, by table", T_DMA, huge_pages, "table" },
	{ "an error where it begins: a hole", T_DMA, refused_in_the_middle, &refusals[0] },
	{ "an error where it begins: PROT_NONE", T_DMA, refused_in_the_middle, &refusals[1] },
	{ "an error where it begins: PROT_READ", T_DMA, refused_in_the_middle, &refusals[2] },
	{ "addresses that nobody has", T_DMA, strange_addresses, NULL },
	{ "addresses that nobody has, by table", T_DMA, strange_addresses, "table" },
	{ "orders that make no sense", T_DMA, bad_orders, NULL },
	{ "NOFAULT", T_DMA, no_fault, NULL },
	{ "NOFAULT, by table", T_DMA, no_fault, "table" },
	{ "two processes, inherited file", T_DMA, two_processes, &inherited },
	{ "two processes, passed file", T_DMA, two_processes, &passed },
	{ "two processes, passed file, by table", T_DMA, two_processes, &passed_table },
	{ "a child has a mirror of its own", T_DMA, after_fork, NULL },
	{ "a child has a mirror of its own, by table", T_DMA, after_fork, "table" },
	{ "1024 at once", T_DMA, many_at_once, NULL },
	{ "1024 at once, by table", T_DMA, many_at_once, "table" },
	{ "read and poll", T_DMA, reading, NULL },
	{ "64 spaces, two engines", T_DMA, spaces, NULL },
	{ "detach, everything outstanding", T_DMA, detached, NULL },
	{ "detach, everything outstanding, by table", T_DMA, detached, "table" },
	{ "close, everything outstanding", T_DMA, closed, NULL },
	{ "close, everything outstanding, by table", T_DMA, closed, "table" },
	{ "kill -9 of the source, everything outstanding", T_DMA, process_ends, &killed },
	{ "kill -9 of the source, everything outstanding, by table", T_DMA, process_ends,
	  &killed_table },
	{ "exec of the source, everything outstanding", T_DMA, process_ends, &execed },
	{ "exec of the source, everything outstanding, by table", T_DMA, process_ends,
	  &execed_table },
	{ "exit of the source, everything outstanding", T_DMA, process_ends, &exited },
	{ "exit of the source, everything outstanding, by table", T_DMA, process_ends,
	  &exited_table },
	{ "kill -9 of the owner, everything outstanding", T_DMA, owner_killed, NULL },
	{ "kill -9 of the owner, everything outstanding, by table", T_DMA, owner_killed,
	  "table" },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
