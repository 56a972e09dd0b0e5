// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Deregistering, destroying, closing, exiting and being killed return promptly,
 * with transfers in flight and with a fault in flight that nobody serves, in
 * whichever part the faulting memory plays; nothing is written afterwards, and
 * nothing is left behind. A fault that is served late is served all the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN		(16 * T_PAGE)
#define PROMPT_MS	5000
#define SHORT		3000	/* several packets, one page */

enum part { WRITTEN, READ_FROM, ATOMIC, LOCAL_SOURCE, LOCAL_TARGET, RECEIVE };

enum end { DEREG, DESTROY_POSTER, DESTROY_RESPONDER, RESET_RESPONDER, ERROR_RESPONDER,
	   CLOSE, EXIT, KILL };

struct arg {
	enum part part;
	enum end end;
};

/* ---- a fault that nobody serves ---- */

static void post(struct t_region *r, enum ibv_wr_opcode opcode, const struct t_buf *local,
		 const struct t_buf *remote, size_t len)
{
	struct ibv_sge sge = t_sge(local, 0, len);
	struct t_op op = { .opcode = opcode, .sge = &sge, .num_sge = 1 };

	if (remote) {
		op.raddr = remote->iova;
		op.rkey = remote->mr->rkey;
		op.compare_add = 3;
	}
	t_check(!t_post(&r->pair.a, &op, NULL), "posting opcode %d", opcode);
}

static void start(struct t_region *r, enum part part, size_t len)
{
	switch (part) {
	case WRITTEN:
		post(r, IBV_WR_RDMA_WRITE, &r->scratch, &r->buf, len);
		break;
	case READ_FROM:
		post(r, IBV_WR_RDMA_READ, &r->scratch, &r->buf, len);
		break;
	case ATOMIC:
		post(r, IBV_WR_ATOMIC_FETCH_AND_ADD, &r->scratch, &r->buf, 8);
		break;
	case LOCAL_SOURCE:
		post(r, IBV_WR_RDMA_WRITE, &r->buf, &r->scratch, len);
		break;
	case LOCAL_TARGET:
		post(r, IBV_WR_RDMA_READ, &r->buf, &r->scratch, len);
		break;
	case RECEIVE:
		t_post_recv(&r->pair.b, &r->buf, 0, len);
		post(r, IBV_WR_SEND, &r->scratch, NULL, len);
		break;
	}
}

/* A region whose first use is waiting in a userfaultfd. */
static int open_stuck(struct t_region *r, enum part part)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int uffd = t_uffd_open();
	u64 address;

	t_region_open(r, p, LEN);
	t_fill_buf(&r->scratch, 50);
	t_uffd_watch(uffd, p, LEN);
	start(r, part, LEN);
	t_check(t_uffd_wait(uffd, 10000, &address), "no fault came");
	return uffd;
}

static void to_state(struct t_ep *ep, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	t_check(!ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE), "modify to %d", state);
}

/* The poster learns that its request went nowhere. */
static void request_fails(struct t_region *r)
{
	struct ibv_wc wc;
	enum ibv_wc_status status = t_wait(&r->pair.a, &wc);

	t_check(status != IBV_WC_SUCCESS && status != T_TIMED_OUT,
		"the request whose region is gone: %s", t_status(status));
}

static void do_end(struct t_region *r, enum end end)
{
	int err = 0;

	switch (end) {
	case DEREG:
		t_dereg(&r->buf);
		break;
	case DESTROY_POSTER:
		err = ibv_destroy_qp(r->pair.a.qp);
		break;
	case DESTROY_RESPONDER:
		err = ibv_destroy_qp(r->pair.b.qp);
		break;
	case RESET_RESPONDER:
		to_state(&r->pair.b, IBV_QPS_RESET);
		break;
	case ERROR_RESPONDER:
		to_state(&r->pair.b, IBV_QPS_ERR);
		break;
	case CLOSE:
		err = ibv_close_device(r->pair.dev.ctx);
		break;
	case EXIT:
		_exit(0);
	case KILL:
		pause();
	}
	t_check(!err, "the call failed: %s", strerror(err));
}

/* What is left is taken down one by one, each promptly too. */
static void rest_goes_too(struct t_region *r, enum end end)
{
	if (end == CLOSE)
		return;
	if (end != DESTROY_POSTER)
		t_check(!ibv_destroy_qp(r->pair.a.qp), "destroying the poster");
	if (end != DESTROY_RESPONDER)
		t_check(!ibv_destroy_qp(r->pair.b.qp), "destroying the responder");
	t_dereg(&r->buf);
	t_dereg(&r->scratch);
}

/*
 * In a process of its own; its userfaultfd stays open in the case's process, so
 * that nothing but the teardown itself ends the fault.
 */
static void victim(const struct arg *a, int say, int go)
{
	struct t_region r;
	int uffd = open_stuck(&r, a->part);
	u64 begin;
	char byte;

	if (write(say, &uffd, sizeof(uffd)) != sizeof(uffd) || read(go, &byte, 1) != 1)
		_exit(2);
	begin = t_now_ms();
	do_end(&r, a->end);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	if (a->end == DEREG)
		request_fails(&r);
	rest_goes_too(&r, a->end);
	t_check(t_now_ms() - begin < t_patience(2 * PROMPT_MS), "all took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	_exit(0);
}

static int borrow_fd(pid_t pid, int fd)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int mine = syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	t_check(mine >= 0, "pidfd_getfd: %s", strerror(errno));
	close(pidfd);
	return mine;
}

static void nothing_is_left(long mirrors)
{
	t_check(t_stat_wait("mirrors", mirrors, 10000), "a mirror outlives its process");
	if (!mirrors)
		t_check(t_stat_wait("leaves", 0, 5000), "a leaf outlives its process");
}

static void unserved(const void *arg)
{
	const struct arg *a = arg;
	int say[2], go[2], fd, status;
	long mirrors = t_stat("mirrors");
	pid_t pid;

	t_check(!pipe(say) && !pipe(go), "pipe");
	pid = t_fork();
	if (!pid)
		victim(a, say[1], go[0]);
	close(say[1]);
	t_check(read(say[0], &fd, sizeof(fd)) == sizeof(fd), "the victim is not ready");
	borrow_fd(pid, fd);
	t_check(write(go[1], "x", 1) == 1, "pipe to the victim");
	if (a->end == KILL) {
		t_sleep_ms(20);
		kill(pid, SIGKILL);
	}
	t_check(t_wait_exit(pid, a->end < EXIT ? 3 * PROMPT_MS : PROMPT_MS, &status),
		"the process does not go away");
	t_check(a->end == KILL ? WIFSIGNALED(status) : !status,
		"the victim ended with status %#x", status);
	nothing_is_left(mirrors);
}

/* ---- a fault that is served late ---- */

/* Serves every page with its pattern until the request completes. */
static void serve_until_done(struct t_region *r, int uffd, u64 round)
{
	static u8 page[T_PAGE];
	u64 address, end = t_deadline(20000);
	struct ibv_wc wc;

	while (!t_poll(&r->pair.a, &wc, 0)) {
		t_check(t_now_ms() < end, "the request does not complete");
		if (!t_uffd_wait(uffd, 60, &address))
			continue;
		t_fill_at(page, T_PAGE, address - r->buf.iova, round);
		t_uffd_serve(uffd, address, page);
	}
	t_expect(wc.status, IBV_WC_SUCCESS, "the request that was served late");
}

static void serve_first(struct t_region *r, int uffd, u64 round)
{
	static u8 page[T_PAGE];

	t_fill(page, T_PAGE, round);
	t_uffd_serve(uffd, r->buf.iova, page);
}

static void served_late(const void *arg)
{
	const struct arg *a = arg;
	struct t_region r;
	int uffd = open_stuck(&r, a->part);

	t_sleep_ms(1500);
	serve_first(&r, uffd, 60);
	serve_until_done(&r, uffd, 60);
	if (a->part == READ_FROM || a->part == LOCAL_SOURCE)
		t_check(t_matches(r.scratch.p, LEN, 60), "wrong bytes were read");
	else
		t_check(t_matches(r.buf.p, LEN, 50), "wrong bytes were written");
	t_region_exchange(&r, 0, LEN);
}

static void served_late_atomic(const void *arg)
{
	struct t_region r;
	int uffd = open_stuck(&r, ATOMIC);
	u8 page[T_PAGE];
	u64 old, now;

	(void)arg;
	t_fill(page, T_PAGE, 60);
	t_sleep_ms(1500);
	serve_first(&r, uffd, 60);
	serve_until_done(&r, uffd, 60);
	memcpy(&old, page, 8);
	memcpy(&now, r.scratch.p, 8);
	t_check(now == old, "the addition returned another value");
	memcpy(&now, r.buf.p, 8);
	t_check(now == old + 3, "the addition was made %lld times", (long long)(now - old) / 3);
}

/*
 * Usual timeouts (67 ms, 6 retries), and the first packet of a message waits for
 * 3 s: the peer is asked to come again, and its queue pair survives. In the middle
 * of a message nobody can be asked.
 */
static void patience(const void *arg)
{
	const struct arg *a = arg;
	struct t_cfg cfg = T_CFG_DEFAULT;
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int uffd = t_uffd_open();
	struct t_region r;
	u64 address;

	cfg.timeout = 14;
	cfg.retry_cnt = 6;	/* 7 is for ever */
	t_region_open(&r, p, LEN);
	t_ep_close(&r.pair.a);
	t_ep_close(&r.pair.b);
	t_ep_open(&r.pair.a, &r.pair.dev, &cfg);
	t_ep_open(&r.pair.b, &r.pair.dev, &cfg);
	t_pair_reconnect(&r.pair);
	t_fill_buf(&r.scratch, 50);
	t_uffd_watch(uffd, p, LEN);
	start(&r, a->part, SHORT);
	t_check(t_uffd_wait(uffd, 10000, &address), "no fault came");
	t_sleep_ms(3000);
	serve_first(&r, uffd, 60);
	serve_until_done(&r, uffd, 60);
}

/* Other queue pairs, and other regions, go on while one waits. */
static void others_go_on(const void *arg)
{
	struct t_region stuck, fine;
	int i, uffd = open_stuck(&stuck, WRITTEN);

	(void)arg;
	t_region_open(&fine, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	for (i = 0; i < 20; i++)
		t_region_exchange(&fine, 0, LEN);
	serve_first(&stuck, uffd, 60);
	serve_until_done(&stuck, uffd, 60);
}

/* ---- transfers in flight ---- */

struct stream {
	struct t_pair pair;
	struct t_buf src;
	struct t_buf dst;
	struct ibv_sge sge;
	u32 rkey;
	pthread_t thread;
	volatile bool stop;
	volatile u64 done;
	volatile bool failed;
};

static void stream_post(struct stream *s)
{
	struct t_op op = {
		.opcode = s->done & 1 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE,
		.sge = &s->sge, .num_sge = 1, .raddr = s->dst.iova, .rkey = s->rkey,
	};

	if (t_post(&s->pair.a, &op, NULL))
		s->failed = true;
}

static void *stream_run(void *arg)
{
	struct stream *s = arg;
	struct ibv_wc wc;
	int i;

	for (i = 0; i < 8; i++)
		stream_post(s);
	while (!s->stop && !s->failed) {
		if (ibv_poll_cq(s->pair.a.cq, 1, &wc) != 1)
			continue;
		if (wc.status != IBV_WC_SUCCESS) {
			s->failed = true;
			break;
		}
		s->done++;
		stream_post(s);
	}
	return NULL;
}

static void stream_start(struct stream *s)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	memset(s, 0, sizeof(*s));
	cfg.timeout = 14;
	t_pair_open(&s->pair, &cfg);
	t_buf_alloc(&s->src, 1, LEN);
	t_buf_alloc(&s->dst, 4095, LEN);
	t_reg(&s->src, &s->pair.dev);
	t_reg(&s->dst, &s->pair.dev);
	t_fill_buf(&s->src, 5);
	s->sge = t_sge(&s->src, 0, LEN);
	s->rkey = s->dst.mr->rkey;
	t_check(!pthread_create(&s->thread, NULL, stream_run, s), "thread");
	while (s->done < 4 && !s->failed)
		t_sleep_ms(1);
	t_check(!s->failed, "the stream failed at once");
}

/* Once the call has returned the memory is the CPU's alone. */
static void nothing_is_written(const struct t_buf *b)
{
	t_fill_buf(b, 900);
	t_sleep_ms(30);
	t_check(t_matches(b->p, b->len, 900), "memory was written after the call returned");
}

static void dereg_in_flight(const void *arg)
{
	struct stream s;
	u64 begin;
	int i;

	(void)arg;
	for (i = 0; i < 8; i++) {
		stream_start(&s);
		t_sleep_ms(i);
		begin = t_now_ms();
		t_dereg(i & 1 ? &s.dst : &s.src);
		t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "took long");
		nothing_is_written(i & 1 ? &s.dst : &s.src);
		s.stop = true;
		pthread_join(s.thread, NULL);
	}
}

static void destroy_in_flight(const void *arg)
{
	struct stream s;
	u64 begin;
	int i;

	(void)arg;
	for (i = 0; i < 8; i++) {
		stream_start(&s);
		t_sleep_ms(i);
		begin = t_now_ms();
		t_check(!ibv_destroy_qp(s.pair.b.qp), "destroy");
		t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "took long");
		nothing_is_written(&s.dst);
		s.stop = true;
		pthread_join(s.thread, NULL);
		t_check(!ibv_destroy_qp(s.pair.a.qp), "destroy");
		nothing_is_written(&s.src);
	}
}

/* Open, stream, and be killed or exit at some moment. */
static void die_in_flight(bool killed)
{
	long mirrors = t_stat("mirrors");
	int i, status;
	pid_t pid;

	for (i = 0; i < 12; i++) {
		pid = t_fork();
		if (!pid) {
			struct stream s[2];

			stream_start(&s[0]);
			stream_start(&s[1]);
			t_sleep_ms(killed ? 60000 : i);
			_exit(0);
		}
		if (killed) {
			t_sleep_ms(60 + 7 * i);
			kill(pid, SIGKILL);
		}
		t_check(t_wait_exit(pid, 2 * PROMPT_MS, &status), "the process stays");
		t_check(killed ? WIFSIGNALED(status) : !status, "status %#x", status);
	}
	nothing_is_left(mirrors);
}

static void exit_in_flight(const void *arg)
{
	(void)arg;
	die_in_flight(false);
}

static void kill_in_flight(const void *arg)
{
	(void)arg;
	die_in_flight(true);
}

/* ---- between two processes ---- */

static void serve_peer(int in, int out)
{
	struct t_cfg cfg = T_CFG_DEFAULT;
	struct t_addr mine, theirs;
	struct t_buf buf;
	struct t_dev dev;
	struct t_ep ep;

	cfg.timeout = 14;
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, &cfg);
	t_buf_alloc(&buf, 17, LEN);
	t_reg(&buf, &dev);
	t_ep_addr(&ep, &mine);
	mine.addr = buf.iova;
	mine.rkey = buf.mr->rkey;
	if (read(in, &theirs, sizeof(theirs)) != sizeof(theirs))
		_exit(2);
	t_ep_connect(&ep, &theirs);
	if (write(out, &mine, sizeof(mine)) != sizeof(mine))
		_exit(2);
	pause();
	_exit(0);
}

static pid_t connect_child(struct t_ep *ep, struct t_addr *theirs, int *in, int *out)
{
	struct t_addr mine;
	pid_t pid = t_fork();

	if (!pid)
		serve_peer(in[0], out[1]);
	t_ep_addr(ep, &mine);
	t_check(write(in[1], &mine, sizeof(mine)) == sizeof(mine), "address");
	t_check(read(out[0], theirs, sizeof(*theirs)) == sizeof(*theirs), "address");
	t_ep_connect(ep, theirs);
	return pid;
}

/*
 * The peer that owns the target is killed in the middle of WRITEs. The writer
 * gets an error, and its queue pair then works with the next peer.
 */
static void peer_is_killed(const void *arg)
{
	struct t_cfg cfg = T_CFG_DEFAULT;
	struct t_buf src, target = { 0 };
	int in[2], out[2], i, status;
	enum ibv_wc_status last;
	struct ibv_mr key = { 0 };
	struct t_addr theirs;
	struct t_dev dev;
	struct t_ep ep;
	pid_t pid;

	(void)arg;
	cfg.timeout = 12;
	cfg.retry_cnt = 6;	/* 7 is for ever */
	t_check(!pipe(in) && !pipe(out), "pipe");
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, &cfg);
	t_buf_alloc(&src, 1, LEN);
	t_reg(&src, &dev);
	t_fill_buf(&src, 1);
	for (i = 0; i < 6; i++) {
		pid = connect_child(&ep, &theirs, in, out);
		key.rkey = theirs.rkey;
		target.iova = theirs.addr;
		target.mr = &key;
		t_expect(t_write(&ep, &src, 0, &target, 0, LEN), IBV_WC_SUCCESS, "WRITE");
		kill(pid, SIGKILL);
		do
			last = t_write(&ep, &src, 0, &target, 0, LEN);
		while (last == IBV_WC_SUCCESS);
		t_check(last != T_TIMED_OUT, "no error after peer %d was killed", i);
		t_check(t_wait_exit(pid, PROMPT_MS, &status), "the killed peer stays");
		t_ep_reset(&ep);
	}
}

static const char * const part_names[] = {
	"target of a WRITE", "source of a READ", "target of an atomic",
	"local source of a WRITE", "local target of a READ", "receive buffer",
};

static const char * const end_names[] = {
	"dereg", "destroy of the poster", "destroy of the responder",
	"reset of the responder", "error of the responder", "close", "exit", "kill -9",
};

static struct t_case cases[80];
static struct arg args[80];
static size_t n_cases;

static void add(void (*run)(const void *arg), unsigned int modes, struct arg arg,
		const char *fmt, const char *a, const char *b)
{
	char *name;

	if (asprintf(&name, fmt, a, b) < 0)
		exit(2);
	args[n_cases] = arg;
	cases[n_cases] = (struct t_case){ name, modes, run, &args[n_cases] };
	n_cases++;
}

static void add_unserved(void)
{
	int part, end;

	for (part = WRITTEN; part <= RECEIVE; part++) {
		for (end = DEREG; end <= KILL; end++)
			add(unserved, T_ODP, (struct arg){ part, end },
			    "%2$s while a fault waits: %1$s", part_names[part], end_names[end]);
	}
}

static void add_late(void)
{
	int part;

	for (part = WRITTEN; part <= RECEIVE; part++) {
		struct arg arg = { part, 0 };

		add(part == ATOMIC ? served_late_atomic : served_late, T_ODP, arg,
		    "served late: %s%s", part_names[part], "");
		add(patience, T_ODP, arg, "served after 3 s, usual timeouts: %s%s",
		    part_names[part], "");
	}
}

int main(int argc, char **argv)
{
	struct arg none = { 0 };

	add_unserved();
	add_late();
	add(others_go_on, T_ODP, none, "%s%s", "others go on while one waits", "");
	add(dereg_in_flight, T_BOTH, none, "%s%s", "dereg with transfers in flight", "");
	add(destroy_in_flight, T_BOTH, none, "%s%s", "destroy with transfers in flight", "");
	add(exit_in_flight, T_ODP, none, "%s%s", "exit with transfers in flight", "");
	add(kill_in_flight, T_ODP, none, "%s%s", "kill -9 with transfers in flight", "");
	add(peer_is_killed, T_BOTH, none, "%s%s", "the peer is killed", "");
	return t_main(argc, argv, cases, n_cases);
}
