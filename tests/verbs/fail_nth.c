// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Each allocation fails in turn: of registering, deregistering, opening a device and
 * making a queue pair in the calling thread; of a fault in the workers. A verb that
 * fails says ENOMEM, leaves nothing half-made and works when it is repeated; a
 * transfer never fails: that memory is short is no access error. Every sweep counts
 * what it made fail, and one that made nothing fail has failed. Needs a debug kernel,
 * and libunpin.so for ibv_advise_mr().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN		(8 * T_PAGE)

/* ---- registration ---- */

struct registration {
	struct t_region r;
	long mrs;
	long mirrors;
	size_t at;
};

static void registration_open(struct registration *reg)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	memset(reg, 0, sizeof(*reg));
	reg->r.round = 100;
	t_pair_open(&reg->r.pair, NULL);
	t_buf_wrap(&reg->r.buf, p, LEN);
	t_buf_alloc(&reg->r.scratch, 0, LEN);
	t_reg_pinned(&reg->r.scratch, &reg->r.pair.dev);
	reg->mrs = t_resources("mr");
	reg->mirrors = t_stat("mirrors");
}

static int do_register(void *ctx)
{
	struct registration *reg = ctx;
	struct t_buf *b = &reg->r.buf;

	errno = 0;
	b->mr = t_try_reg(&reg->r.pair.dev, b->p, b->len, T_REMOTE);
	b->iova = (uintptr_t)b->p;
	return b->mr ? 0 : errno ? errno : ENOTRECOVERABLE;
}

static int do_deregister(void *ctx)
{
	struct registration *reg = ctx;
	int err = ibv_dereg_mr(reg->r.buf.mr);

	if (!err)
		reg->r.buf.mr = NULL;
	return err;
}

/* Another place at each try, so that what is there cannot be from the last one. */
static void moves_right_bytes(struct registration *reg)
{
	reg->at = (reg->at + 997) % (LEN - 3000);
	t_region_exchange(&reg->r, reg->at, 3000);
}

static void nothing_half_made(struct registration *reg)
{
	t_check(t_resources("mr") == reg->mrs, "%ld MRs, there were %ld",
		t_resources("mr"), reg->mrs);
	t_check(t_stat_wait("mirrors", reg->mirrors, 5000), "a mirror is left");
}

static void check_register(void *ctx, int err)
{
	struct registration *reg = ctx;

	if (err) {
		nothing_half_made(reg);
		t_reg(&reg->r.buf, &reg->r.pair.dev);
	}
	t_check(t_resources("mr") == reg->mrs + 1, "%ld MRs", t_resources("mr"));
	moves_right_bytes(reg);
	t_dereg(&reg->r.buf);
	nothing_half_made(reg);
}

static void check_deregister(void *ctx, int err)
{
	struct registration *reg = ctx;

	if (err)
		t_dereg(&reg->r.buf);
	nothing_half_made(reg);
	t_reg(&reg->r.buf, &reg->r.pair.dev);
	moves_right_bytes(reg);
}

static void register_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "ibv_reg_mr", .op = do_register, .check = check_register,
	};
	struct registration reg;
	struct t_buf keep;

	(void)arg;
	registration_open(&reg);
	/* keeps the mirror: only the first registration makes one */
	t_buf_alloc(&keep, 0, T_PAGE);
	t_reg(&keep, &reg.r.pair.dev);
	reg.mrs++;
	reg.mirrors = t_stat("mirrors");
	t_sweep(&s, &reg);
}

static void deregister_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "ibv_dereg_mr", .op = do_deregister, .check = check_deregister,
	};
	struct registration reg;

	(void)arg;
	registration_open(&reg);
	t_reg(&reg.r.buf, &reg.r.pair.dev);
	reg.mirrors = t_stat("mirrors");
	t_sweep(&s, &reg);
}

/* ---- the first registration of a process ---- */

enum { NOT_INJECTED = 3, SURVIVED = 4, TOLD = 5 };

static int first_try(unsigned int n)
{
	struct registration reg;
	bool injected;
	int err;

	registration_open(&reg);
	t_fail_nth(n);
	err = do_register(&reg);
	injected = t_fail_nth_end();
	t_check(!err || injected, "a first ibv_reg_mr by itself: %s", strerror(err));
	t_check(!err || err == ENOMEM || err == EFAULT, "a first ibv_reg_mr, failure %u: %s",
		n, strerror(err));
	/* the context keeps the mirror, if it came to that: one more than now, at most */
	reg.mirrors++;
	check_register(&reg, err);
	return !injected ? NOT_INJECTED : err ? TOLD : SURVIVED;
}

static void first_register_sweep(const void *arg)
{
	long mirrors = t_stat("mirrors");
	unsigned int n, told = 0;
	int status;
	pid_t pid;

	(void)arg;
	t_fail_reset();
	for (n = 1; n < T_SWEEP_MAX; n++) {
		pid = t_fork();
		if (!pid)
			_exit(first_try(n));
		t_check(t_wait_exit(pid, T_WAIT_MS, &status) && WIFEXITED(status) &&
			WEXITSTATUS(status) >= NOT_INJECTED, "try %u ends with %#x", n, status);
		t_check(t_stat_wait("mirrors", mirrors, 5000), "a mirror is left");
		told += WEXITSTATUS(status) == TOLD;
		if (WEXITSTATUS(status) == NOT_INJECTED)
			break;
	}
	t_diag("first ibv_reg_mr: %u failures injected, %u told", n - 1, told);
	t_check(n < T_SWEEP_MAX, "no end");
	t_check(told, "no failure was told");
}

/* ---- queue pairs and contexts, in which there are hooks of ours ---- */

static int do_create_qp(void *ctx)
{
	struct t_ep *ep = ctx;
	struct ibv_qp_init_attr attr = {
		.send_cq = ep->cq,
		.recv_cq = ep->cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16,
			 .max_send_sge = 2, .max_recv_sge = 2 },
	};

	errno = 0;
	ep->qp = ibv_create_qp(ep->dev->pd, &attr);
	return ep->qp ? 0 : errno ? errno : ENOTRECOVERABLE;
}

static void check_create_qp(void *ctx, int err)
{
	struct t_ep *ep = ctx;

	if (!err)
		t_check(!ibv_destroy_qp(ep->qp), "ibv_destroy_qp");
	t_check(t_resources("qp") == (long)ep->next_id, "%ld queue pairs, there were %ld",
		t_resources("qp"), (long)ep->next_id);
}

static void qp_sweep(const void *arg)
{
	/* what the kernel says when it has no memory for rxe's socket */
	static const struct t_sweep s = {
		.what = "ibv_create_qp", .op = do_create_qp, .check = check_create_qp,
		.also = ENFILE,
	};
	struct t_region r;
	struct t_ep ep;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	t_region_exchange(&r, 0, LEN);
	ep = r.pair.a;
	ep.next_id = t_resources("qp");
	t_sweep(&s, &ep);
	t_region_exchange(&r, 1, LEN - 1);
}

struct opening {
	struct ibv_device *device;
	struct ibv_context *ctx;
	long contexts;
};

static int do_open(void *ctx)
{
	struct opening *o = ctx;

	errno = 0;
	o->ctx = ibv_open_device(o->device);
	return o->ctx ? 0 : errno ? errno : ENOTRECOVERABLE;
}

static void check_open(void *ctx, int err)
{
	struct opening *o = ctx;

	if (!err)
		t_check(!ibv_close_device(o->ctx), "ibv_close_device");
	t_check(t_resources("ctx") == o->contexts, "%ld contexts, there were %ld",
		t_resources("ctx"), o->contexts);
}

static void open_sweep(const void *arg)
{
	/* the library has words of its own for what it cannot read */
	static const struct t_sweep s = {
		.what = "ibv_open_device", .op = do_open, .check = check_open,
		.any_error = true,
	};
	struct opening o;
	struct t_dev dev;

	(void)arg;
	t_dev_open(&dev);
	o.device = dev.ctx->device;
	o.contexts = t_resources("ctx");
	t_sweep(&s, &o);
}

/* ---- advice ---- */

#define ADVISED		(3 * T_PAGE + 100)
#define OTHER_PART	(T_HUGE / 2)

/* Each try has a place of its own, of which each region has a part. */
struct advising {
	struct t_region r;
	struct ibv_mr *second;	/* of the same memory */
	enum ibv_advise_mr_advice advice;
	u32 flags;
	size_t at;	/* of the place */
	long mrs;
};

struct advice_kind {
	enum ibv_advise_mr_advice advice;
	u32 flags;
};

#define ADVICE_PLACES	256U

/* What is advised without faulting is there, or else there is nothing to do. */
static void next_place(struct advising *a, size_t at)
{
	t_check(at < a->r.buf.len, "no end");
	a->at = at;
	if (a->advice == IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT) {
		memset(a->r.buf.p + at + 50, 1, ADVISED);
		memset(a->r.buf.p + at + OTHER_PART, 1, ADVISED);
	}
}

static void advising_open(struct advising *a, const struct advice_kind *kind)
{
	size_t len = ADVICE_PLACES * T_HUGE;
	void *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	memset(a, 0, sizeof(*a));
	t_check(!madvise(p, len, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE: %s", strerror(errno));
	t_region_open(&a->r, p, len);
	a->second = t_try_reg(&a->r.pair.dev, p, len, T_REMOTE);
	if (!a->second)
		t_die("ibv_reg_mr: %s", strerror(errno));
	a->advice = kind->advice;
	a->flags = kind->flags;
	a->mrs = t_resources("mr");
	next_place(a, 0);
}

/* Two regions in one list: something may have begun when the second fails. */
static int do_advise(void *ctx)
{
	struct advising *a = ctx;
	struct ibv_sge sge[2] = {
		t_sge(&a->r.buf, a->at + 50, ADVISED),
		t_sge(&a->r.buf, a->at + OTHER_PART, ADVISED),
	};

	sge[1].lkey = a->second->lkey;
	return ibv_advise_mr(a->r.pair.dev.pd, a->advice, a->flags, sge, T_ARRAY_SIZE(sge));
}

static bool advised_is_present(struct advising *a)
{
	return t_all_present(a->r.buf.p + a->at + 50, ADVISED) &&
	       t_all_present(a->r.buf.p + a->at + OTHER_PART, ADVISED);
}

static void check_brought(struct advising *a)
{
	u64 end = t_deadline(T_WAIT_MS);

	if (a->flags & IBV_ADVISE_MR_FLAG_FLUSH)
		t_check(advised_is_present(a), "not all pages are there");
	while (!advised_is_present(a)) {
		t_check(t_now_ms() < end, "the pages do not come");
		t_sleep_ms(1);
	}
}

static void check_advised(void *ctx, int err)
{
	struct advising *a = ctx;

	if (err) {
		err = do_advise(a);
		t_check(!err, "the same advice again: %s", strerror(err));
	}
	check_brought(a);
	t_region_exchange(&a->r, a->at, ADVISED + 77);
	t_region_exchange(&a->r, a->at + OTHER_PART - 20, ADVISED + 40);
	t_check(t_resources("mr") == a->mrs, "%ld MRs, there were %ld", t_resources("mr"),
		a->mrs);
	next_place(a, a->at + T_HUGE);
}

/* In the thread that advises. Nothing that it began keeps a region, or the mirror. */
static void advise_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "ibv_advise_mr", .op = do_advise, .check = check_advised,
	};
	struct advising a;

	t_fail_reset();
	advising_open(&a, arg);
	t_sweep(&s, &a);
	t_check(!ibv_dereg_mr(a.second), "ibv_dereg_mr: %s", strerror(errno));
	t_dereg(&a.r.buf);
	t_check(t_resources("mr") == a.mrs - 2, "%ld MRs are left", t_resources("mr"));
	t_check(t_stat_wait("faults_running", 0, T_WAIT_MS), "a fault is left");
}

/* One advice with the worker's point after @skip failing; false if there was none. */
static bool advise_try(struct advising *a, unsigned int skip)
{
	unsigned long failed = t_fail_points_failed();
	int err;

	t_fail_points(NULL, skip, 100, 1);
	err = do_advise(a);
	t_fail_points_end();
	failed = t_fail_points_failed() - failed;
	t_check(!err || err == ENOMEM, "failure %u: %s", skip, strerror(err));
	t_check(!err || failed, "by itself: %s", strerror(err));
	check_advised(a, err);
	return failed;
}

/* In the workers. Only of advice that is waited for it is known which points it has passed. */
static void advise_points(const void *arg)
{
	struct advising a;
	unsigned int n = 0;

	t_fail_reset();
	advising_open(&a, arg);
	while (advise_try(&a, n))
		n++;
	t_diag("advice %d: %u failures injected", a.advice, n);
	/* fault, pfns, leaf, index, notifier and table */
	t_check(n >= 6, "only %u points were passed", n);
}

/* ---- transfers into and out of cold memory ---- */

#define AREAS		48U	/* of 2 MiB: each try has a leaf of its own */
#define SPAN		(2 * T_PAGE + 1234)
#define INTO		1000

enum memory { UNTOUCHED, FILLED, FORKED, PAGED_OUT, FILE_MAPPED, HUGE_PAGES };

struct cold {
	const char *name;
	enum memory memory;
	bool write;	/* the device writes to it */
	void (*transfer)(struct t_region *r, size_t off, u64 round);
};

static void write_to(struct t_region *r, size_t off, u64 round)
{
	t_fill_at(r->scratch.p, SPAN, off, round);
	t_expect(t_write(&r->pair.a, &r->scratch, 0, &r->buf, off, SPAN), IBV_WC_SUCCESS,
		 "WRITE");
}

static void read_into(struct t_region *r, size_t off, u64 round)
{
	t_fill_at(r->scratch.p, SPAN, off, round);
	t_expect(t_read(&r->pair.a, &r->buf, off, &r->scratch, 0, SPAN), IBV_WC_SUCCESS,
		 "READ into it");
}

static void receive_into(struct t_region *r, size_t off, u64 round)
{
	struct ibv_wc wc;

	t_fill_at(r->scratch.p, SPAN, off, round);
	t_post_recv(&r->pair.b, &r->buf, off, SPAN);
	t_expect(t_send(&r->pair.a, &r->scratch, 0, SPAN), IBV_WC_SUCCESS, "SEND");
	t_expect(t_wait(&r->pair.b, &wc), IBV_WC_SUCCESS, "receive");
}

/* One word at a time: nothing is lost or done twice, wherever it is tried again. */
static void add_to(struct t_region *r, size_t off, u64 round)
{
	size_t word = (off + 7) & ~7UL;
	u64 before, after;

	memcpy(&before, r->buf.p + word, sizeof(before));
	t_expect(t_fadd(&r->pair.a, &r->scratch, 0, &r->buf, word, round), IBV_WC_SUCCESS,
		 "FETCH_ADD");
	memcpy(&after, r->buf.p + word, sizeof(after));
	t_check(after == before + round, "%llu was added, not %llu",
		(unsigned long long)(after - before), (unsigned long long)round);
	memcpy(&after, r->scratch.p, sizeof(after));
	t_check(after == before, "the addition returned another value");
}

static void read_from(struct t_region *r, size_t off, u64 round)
{
	(void)round;
	memset(r->scratch.p, 0x5a, SPAN);
	t_expect(t_read(&r->pair.a, &r->scratch, 0, &r->buf, off, SPAN), IBV_WC_SUCCESS,
		 "READ");
}

static void write_out(struct t_region *r, size_t off, u64 round)
{
	(void)round;
	memset(r->scratch.p, 0x5a, SPAN);
	t_expect(t_write(&r->pair.a, &r->buf, off, &r->scratch, 0, SPAN), IBV_WC_SUCCESS,
		 "WRITE out of it");
}

static void prepare(struct t_region *r, enum memory memory, size_t area, size_t off)
{
	u8 *p = r->buf.p + area;

	if (memory == HUGE_PAGES)
		t_check(!madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	if (memory == UNTOUCHED || memory == HUGE_PAGES)
		return;
	t_fill_at(r->buf.p + off, SPAN, off, 7);
	if (memory == PAGED_OUT)
		t_check(t_pageout(p, 4 * T_PAGE), "MADV_PAGEOUT left it there");
}

/* A child that has the pages too; told by a byte, it says whether they are as they were. */
static pid_t keeper_start(struct t_region *r, size_t off, int *tell)
{
	int fds[2];
	char byte;
	pid_t pid;

	t_check(!pipe(fds), "pipe");
	pid = t_fork();
	if (!pid) {
		close(fds[1]);
		if (read(fds[0], &byte, 1) < 0)
			_exit(2);
		_exit(!t_matches_at(r->buf.p + off, SPAN, off, 7));
	}
	close(fds[0]);
	*tell = fds[1];
	return pid;
}

static void keeper_end(pid_t pid, int tell)
{
	int status;

	close(tell);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status,
		"the child's pages have changed");
}

static void check_bytes(struct t_region *r, const struct cold *cold, size_t off, u64 round)
{
	bool zero = cold->memory == UNTOUCHED || cold->memory == HUGE_PAGES;

	if (cold->transfer == add_to)
		return;
	if (cold->write)
		t_check(t_matches_at(r->buf.p + off, SPAN, off, round), "wrong bytes there");
	else if (zero)
		t_check(t_all_zero(r->scratch.p, SPAN), "bytes that are not there");
	else
		t_check(t_matches_at(r->scratch.p, SPAN, off, 7), "wrong bytes out of it");
}

/* One transfer with the point after @skip failing; false if it passed no more of them. */
static bool cold_try(struct t_region *r, const struct cold *cold, unsigned int skip)
{
	size_t area = skip * T_HUGE, off = area + INTO + 8 * skip;
	unsigned long failed = t_fail_points_failed();
	long errors = t_stat("fault_errors");
	int tell = -1;
	pid_t pid = 0;

	prepare(r, cold->memory, area, off);
	if (cold->memory == FORKED)
		pid = keeper_start(r, off, &tell);
	t_fail_points(NULL, skip, 100, 1);
	cold->transfer(r, off, 200 + skip);
	t_fail_points_end();
	check_bytes(r, cold, off, 200 + skip);
	if (pid)
		keeper_end(pid, tell);
	t_check(t_stat("fault_errors") == errors, "failure %u: a fault has failed", skip);
	return t_fail_points_failed() > failed;
}

static void cold_sweep(const void *arg)
{
	const struct cold *cold = arg;
	size_t len = AREAS * T_HUGE;
	int flags = cold->memory == FILE_MAPPED ? MAP_SHARED :
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	int fd = cold->memory == FILE_MAPPED ? t_memfd("cold", len, 0) : -1;
	long huge = t_stat("huge_leaves");
	struct t_region r;
	unsigned int n;

	t_fail_reset();
	t_region_open(&r, t_map(len, flags, fd), len);
	for (n = 0; n < AREAS && cold_try(&r, cold, n); n++)
		t_check(cold->memory != HUGE_PAGES || t_stat("huge_leaves") > huge,
			"no huge leaf");
	t_diag("%s: %u failures injected", cold->name, n);
	t_check(n < AREAS, "no end");
	/* fault, pfns, leaf, index, notifier, and its table or huge entry */
	t_check(n >= 6, "only %u points were passed", n);
}

/* ---- grants ---- */

#define HELD_US		20000UL
#define HELD_MAX_US	(HELD_US * 27)

struct thief {
	pthread_t thread;
	volatile u8 *p;
	bool stop;
};

static void *steal(void *arg)
{
	struct thief *thief = arg;

	while (!__atomic_load_n(&thief->stop, __ATOMIC_RELAXED)) {
		(void)thief->p[0];
		madvise((void *)thief->p, T_PAGE, MADV_DONTNEED);
	}
	return NULL;
}

/* One WRITE to a page that is taken away in a loop, see starvation.c. */
static void write_against_thief(struct t_region *r, size_t off, u64 round,
				unsigned long held_us)
{
	struct thief thief = { .p = r->buf.p + off };

	t_check(t_delay_set("fault_to_install", held_us), "no delay points");
	t_check(!pthread_create(&thief.thread, NULL, steal, &thief), "thread");
	t_fill_at(r->scratch.p, T_PAGE, off, round);
	t_expect(t_write(&r->pair.a, &r->scratch, 0, &r->buf, off, T_PAGE),
		 IBV_WC_SUCCESS, "WRITE");
	__atomic_store_n(&thief.stop, true, __ATOMIC_RELAXED);
	pthread_join(thief.thread, NULL);
	t_delay_set("fault_to_install", 0);
	t_check(t_matches_at(r->buf.p + off, T_PAGE, off, round), "wrong bytes there");
}

/*
 * Only a grant helps. On a busy machine the thief may sleep for longer than a fault is
 * held, when there is none, so nothing has failed either: then again, and longer.
 */
static bool granted_try(struct t_region *r, unsigned int skip)
{
	unsigned long failed = t_fail_points_failed();
	long grants = t_stat("grants");
	unsigned long held_us;

	t_fail_points("grant pin", skip, 100, 1);
	for (held_us = HELD_US; held_us <= HELD_MAX_US; held_us *= 3) {
		write_against_thief(r, skip * T_HUGE, 300 + skip, held_us);
		if (t_stat("grants") > grants || t_fail_points_failed() > failed)
			break;
		/* there is a translation now; the fault is to come again */
		madvise(r->buf.p + skip * T_HUGE, T_PAGE, MADV_DONTNEED);
	}
	t_fail_points_end();
	t_check(held_us <= HELD_MAX_US, "%u: no page was granted: nothing was lost", skip);
	return t_fail_points_failed() > failed;
}

static void grant_sweep(const void *arg)
{
	size_t len = AREAS * T_HUGE;
	struct t_region r;
	unsigned int n;

	(void)arg;
	t_fail_reset();
	t_region_open(&r, t_map(len, MAP_SHARED, t_memfd("stolen", len, 0)), len);
	for (n = 0; n < AREAS && granted_try(&r, n); n++)
		;
	t_diag("grants: %u failures injected", n);
	t_check(n < AREAS, "no end");
	t_check(n >= 2, "only %u points were passed", n);
}

/* ---- memory that is short for a while ---- */

/* rxe waits 268 ms for an answer, seven times; it takes 7 retries for no end of them. */
#define SHORT_TIMEOUT	16
#define SHORT_RETRIES	6
#define SHORT_MS	4000

struct shortage {
	enum ibv_wr_opcode opcode;
	bool here;	/* where the work request is posted, not at the peer */
};

static void short_open(struct t_region *r)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	cfg.timeout = SHORT_TIMEOUT;
	cfg.retry_cnt = SHORT_RETRIES;
	memset(r, 0, sizeof(*r));
	t_pair_open(&r->pair, &cfg);
	t_buf_wrap(&r->buf, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	t_reg(&r->buf, &r->pair.dev);
	t_buf_alloc(&r->scratch, 0, LEN);
	t_reg_pinned(&r->scratch, &r->pair.dev);
}

static void short_post(struct t_region *r, const struct shortage *s, size_t len)
{
	struct t_buf *here = s->here ? &r->buf : &r->scratch;
	struct t_buf *there = s->here ? &r->scratch : &r->buf;
	struct ibv_sge sge = t_sge(here, 0, len);
	struct t_op op = {
		.opcode = s->opcode, .sge = &sge, .num_sge = 1,
		.raddr = there->iova, .rkey = there->mr->rkey,
	};

	t_check(!t_post(&r->pair.a, &op, NULL), "posting");
}

/* Neither side gives up, however long it takes: longer than for a peer that is gone. */
static void short_for_long(const void *arg)
{
	const struct shortage *s = arg;
	unsigned long failed;
	struct t_region r;
	struct ibv_wc wc;
	struct t_buf *from, *to;

	t_fail_reset();
	short_open(&r);
	from = s->here == (s->opcode == IBV_WR_RDMA_WRITE) ? &r.buf : &r.scratch;
	to = from == &r.buf ? &r.scratch : &r.buf;
	t_fill_at(from->p, LEN, 0, 9);
	if (s->here) {
		/* the first packets do not wait, so that the timer runs for them */
		short_post(&r, s, T_PAGE);
		t_expect(t_wait(&r.pair.a, &wc), IBV_WC_SUCCESS, "the first page");
	}
	failed = t_fail_points_failed();
	t_fail_points("fault", 0, 100, -1);
	short_post(&r, s, LEN);
	t_check(!t_poll(&r.pair.a, &wc, SHORT_MS), "it did not wait: %s",
		t_status(wc.status));
	t_fail_points_end();
	t_expect(t_wait(&r.pair.a, &wc), IBV_WC_SUCCESS, "the transfer");
	t_check(t_matches_at(to->p, LEN, 0, 9), "wrong bytes");
	failed = t_fail_points_failed() - failed;
	t_diag("%lu failures injected", failed);
	t_check(failed > 10, "only %lu faults were made to fail", failed);
}

/* A queue pair that only waits for memory can be destroyed. */
static void destroyed_while_short(const void *arg)
{
	unsigned long failed;
	struct ibv_sge sge;
	struct t_region r;
	struct t_op op = { .opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1 };
	const char *const *point = arg;
	u64 start;

	t_fail_reset();
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	failed = t_fail_points_failed();
	t_fail_points(*point, 0, 100, -1);
	sge = t_sge(&r.scratch, 0, LEN);
	op.raddr = r.buf.iova;
	op.rkey = r.buf.mr->rkey;
	t_check(!t_post(&r.pair.a, &op, NULL), "posting");
	while (t_fail_points_failed() < failed + 5)
		t_sleep_ms(10);
	start = t_now_ms();
	t_check(!ibv_destroy_qp(r.pair.b.qp), "destroying the responder");
	t_check(!ibv_destroy_qp(r.pair.a.qp), "destroying the requester");
	t_dereg(&r.buf);
	t_check(t_now_ms() - start < t_patience(5000), "that took %llu ms",
		(unsigned long long)(t_now_ms() - start));
	t_fail_points_end();
	t_check(t_stat_wait("faults_running", 0, 5000), "a fault is left");
	t_check(t_all_zero(r.buf.p, LEN), "bytes came all the same");
}

static void open_large(struct t_region *r)
{
	size_t len = AREAS * T_HUGE;

	t_region_open(r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1), len);
}

static void exchanges(struct t_region *r)
{
	u64 state = 11;
	size_t off;
	int i;

	for (i = 0; i < 12; i++) {
		off = t_random(&state) % (r->buf.len - 5 * T_PAGE);
		t_region_exchange(r, off, 4 * T_PAGE + 77);
	}
}

/* Whatever fails, and in whatever order. */
static void points_at_random(const void *arg)
{
	unsigned long failed;
	struct t_region r;

	(void)arg;
	t_fail_reset();
	failed = t_fail_points_failed();
	open_large(&r);
	t_fail_points(NULL, 0, 25, -1);
	exchanges(&r);
	t_fail_points_end();
	failed = t_fail_points_failed() - failed;
	t_diag("%lu failures injected", failed);
	t_check(failed > 10, "%lu points were made to fail", failed);
}

/* The page tables and pages themselves: what handle_mm_fault() allocates for us. */
static void allocators_at_random(const void *arg)
{
	int status;
	long failed;
	pid_t pid;

	(void)arg;
	t_fail_reset();
	pid = t_fork();
	if (!pid) {
		struct t_region r;

		open_large(&r);
		t_fail_module("mm_mirror", 10);
		exchanges(&r);
		_exit(0);
	}
	if (!t_wait_exit(pid, 30000, &status)) {
		t_fail_module_end();
		t_die("the exchange does not end");
	}
	failed = t_fail_module_end();
	t_check(failed > 0, "no allocation was made to fail");
	t_check(!status, "the exchange ends with %#x", status);
}

/* A requester's packets; an acknowledgement that has no memory is sent again. */
static void packets_at_random(const void *arg)
{
	size_t len = 8 * T_PAGE;
	struct t_region r;
	size_t off;
	long failed;
	u64 round;

	(void)arg;
	t_fail_reset();
	open_large(&r);
	round = r.round;
	t_fail_module("rdma_rxe", 10);
	for (off = 0; off < 16 * len; off += len)
		t_region_write(&r, off + 77, len - 77);
	failed = t_fail_module_end();
	for (off = 0; off < 16 * len; off += len)
		t_region_cpu_holds(&r, off + 77, len - 77, ++round);
	t_check(failed > 0, "no packet was made to fail");
}

static void none_is_idle(const void *arg)
{
	const char *name = t_fail_points_idle();

	(void)arg;
	t_check(!name, "the fault point \"%s\" was never made to fail", name);
}

#define COLD(text, where, writes, how) \
	{ text, T_ODP, cold_sweep, &(const struct cold){ text, where, writes, how } }

#define SHORT(text, what, where) \
	{ text, T_ODP, short_for_long, &(const struct shortage){ what, where } }

#define ADVICE(what, how) \
	&(const struct advice_kind){ IBV_ADVISE_MR_ADVICE_ ## what, how }

static const char *const fault_point = "fault", *const page_point = "page";

static const struct t_case cases[] = {
	{ "the first registration of a process", T_ODP, first_register_sweep, NULL },
	{ "a later registration", T_ODP, register_sweep, NULL },
	{ "deregistration", T_ODP, deregister_sweep, NULL },
	{ "making a queue pair", T_ODP, qp_sweep, NULL },
	{ "opening the device", T_ODP, open_sweep, NULL },
	{ "advice for reading", T_ODP, advise_sweep,
	  ADVICE(PREFETCH, 0) },
	{ "advice for reading, waited for", T_ODP, advise_sweep,
	  ADVICE(PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH) },
	{ "advice for writing", T_ODP, advise_sweep,
	  ADVICE(PREFETCH_WRITE, 0) },
	{ "advice for writing, waited for", T_ODP, advise_sweep,
	  ADVICE(PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH) },
	{ "advice without faulting", T_ODP, advise_sweep,
	  ADVICE(PREFETCH_NO_FAULT, 0) },
	{ "advice without faulting, waited for", T_ODP, advise_sweep,
	  ADVICE(PREFETCH_NO_FAULT, IBV_ADVISE_MR_FLAG_FLUSH) },
	{ "advice for reading, in the workers", T_ODP, advise_points,
	  ADVICE(PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH) },
	{ "advice for writing, in the workers", T_ODP, advise_points,
	  ADVICE(PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH) },
	{ "advice without faulting, in the workers", T_ODP, advise_points,
	  ADVICE(PREFETCH_NO_FAULT, IBV_ADVISE_MR_FLAG_FLUSH) },
	COLD("WRITE to untouched memory", UNTOUCHED, true, write_to),
	COLD("WRITE to memory paged out", PAGED_OUT, true, write_to),
	COLD("WRITE to memory shared by fork", FORKED, true, write_to),
	COLD("WRITE to a file", FILE_MAPPED, true, write_to),
	COLD("WRITE to huge pages", HUGE_PAGES, true, write_to),
	COLD("READ of untouched memory", UNTOUCHED, false, read_from),
	COLD("READ of memory paged out", PAGED_OUT, false, read_from),
	COLD("READ of huge pages", HUGE_PAGES, false, read_from),
	COLD("atomic on memory paged out", PAGED_OUT, true, add_to),
	COLD("atomic on memory shared by fork", FORKED, true, add_to),
	COLD("receive in untouched memory", UNTOUCHED, true, receive_into),
	COLD("receive in memory shared by fork", FORKED, true, receive_into),
	COLD("WRITE out of filled memory", FILLED, false, write_out),
	COLD("WRITE out of memory paged out", PAGED_OUT, false, write_out),
	COLD("READ into untouched memory", UNTOUCHED, true, read_into),
	COLD("READ into huge pages", HUGE_PAGES, true, read_into),
	{ "a page granted because it kept getting away", T_ODP, grant_sweep, NULL },
	SHORT("WRITE to memory that stays short", IBV_WR_RDMA_WRITE, false),
	SHORT("READ of memory that stays short", IBV_WR_RDMA_READ, false),
	SHORT("WRITE out of memory that stays short", IBV_WR_RDMA_WRITE, true),
	SHORT("READ into memory that stays short", IBV_WR_RDMA_READ, true),
	{ "destroyed while a fault has no memory", T_ODP, destroyed_while_short, &page_point },
	{ "destroyed while there is none for a fault", T_ODP, destroyed_while_short,
	  &fault_point },
	{ "fault points at random", T_ODP, points_at_random, NULL },
	{ "the kernel's allocators at random", T_ODP, allocators_at_random, NULL },
	{ "a requester's packets at random", T_ODP, packets_at_random, NULL },
	{ "every fault point was made to fail", T_ODP, none_is_idle, NULL },
};

int main(int argc, char **argv)
{
	t_under_libunpin(argv);
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
