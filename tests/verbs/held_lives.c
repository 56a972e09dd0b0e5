// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The windows in which something comes to an end, held open by the delay points of
 * a debug build: leaves, faults, queue pairs, regions, mirrors, processes. The
 * numbers are those of the races in Documentation/locking.md. Each case says by what
 * it knows that the window was hit, and fails if it was not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN		(4 * T_PAGE)
#define BYTES		64
#define HOLD_MS		400
#define PROMPT_MS	5000
#define REAP_MS		1000	/* a leaf stays empty for so long */
#define TRIES		6

struct scene {
	struct t_region r;
	u8 *p;
	int uffd;
	long mirrors;
	long leaves;
	long running;
	long mapped;
	long reports;
};

static void delay(const char *point, unsigned int ms)
{
	t_check(t_delay_set(point, ms * 1000UL),
		"no delay point %s: this test wants the debug build", point);
}

/* What the case before has left is to go first. */
static void note_all(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	t_check(t_stat_wait("mirrors", 0, 2 * PROMPT_MS), "mirrors are left");
	s->mirrors = t_stat("mirrors");
	s->leaves = t_stat("leaves");
	s->running = t_stat("faults_running");
	s->mapped = t_oracle("mapped");
	s->reports = t_oracle("reports");
}

/* Some pages of 2 MiB of their own, so that there is one leaf. */
static void open_region(struct scene *s)
{
	s->p = t_map_huge_aligned(T_HUGE);
	t_check(!madvise(s->p, T_HUGE, MADV_NOHUGEPAGE), "madvise: %s", strerror(errno));
	t_region_open(&s->r, s->p, LEN);
}

static void open_scene(struct scene *s)
{
	note_all(s);
	open_region(s);
}

/* The same where faults wait for ever. */
static void open_waiting_scene(struct scene *s)
{
	open_scene(s);
	s->uffd = t_uffd_open();
	t_uffd_watch(s->uffd, s->p, LEN);
}

static void post(struct scene *s, bool out_of_region)
{
	const struct t_buf *local = out_of_region ? &s->r.buf : &s->r.scratch;
	const struct t_buf *remote = out_of_region ? &s->r.scratch : &s->r.buf;
	struct ibv_sge sge = t_sge(local, 0, BYTES);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
		.raddr = remote->iova, .rkey = remote->mr->rkey,
	};

	t_check(!t_post(&s->r.pair.a, &op, NULL), "posting");
}

static void wait_for_fault(struct scene *s)
{
	u64 end = t_deadline(PROMPT_MS);

	while (t_stat("faults_running") <= s->running)
		t_check(t_now_ms() < end, "no fault is at work");
}

/* A fault has installed its translation: what follows is that it says so. */
static void wait_for_install(struct scene *s)
{
	u64 end = t_deadline(PROMPT_MS);

	while (t_oracle("mapped") <= s->mapped)
		t_check(t_now_ms() < end, "no fault installs anything");
}

static void discard(struct scene *s)
{
	t_check(!madvise(s->p, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED: %s",
		strerror(errno));
}

static void nothing_reported(const struct scene *s)
{
	t_check(t_oracle("reports") == s->reports,
		"a page was freed while it was mapped or held: see the kernel log");
}

/* Everything works, and goes when the region goes. */
static void close_scene(struct scene *s)
{
	t_pair_reconnect(&s->r.pair);
	t_region_exchange(&s->r, 0, LEN);
	t_dereg(&s->r.buf);
	t_buf_free(&s->r.scratch);
	t_pair_close(&s->r.pair);
	t_check(!munmap(s->p, T_HUGE), "munmap: %s", strerror(errno));
	t_check(t_stat_wait("leaves", s->leaves, PROMPT_MS), "a leaf is left");
	t_check(t_stat_wait("mirrors", s->mirrors, PROMPT_MS), "a mirror is left");
	nothing_reported(s);
}

/* ---- 5: aging against freeing ---- */

static void *age(void *arg)
{
	t_lru_age();
	return NULL;
}

/*
 * Aging has found a leaf, which is empty, and is freed before aging looks into it.
 * It comes by for the other pages under the same page table, when the page has been
 * discarded: that would wait for it.
 */
static bool try_aging(struct scene *s)
{
	pthread_t ager;
	bool hit;

	t_fill(s->p, LEN, 1);
	t_region_write(&s->r, 0, BYTES);
	delay("reap_to_unlink", T_WAIT_MS);
	discard(s);
	t_check(t_delay_met("reap_to_unlink", PROMPT_MS), "nobody frees the empty leaf");
	delay("find_to_age", HOLD_MS);
	t_check(!pthread_create(&ager, NULL, age, NULL), "thread");
	t_check(t_delay_met("find_to_age", PROMPT_MS), "aging does not come by");
	delay("reap_to_unlink", 0);
	t_check(t_stat_wait("leaves", s->leaves, PROMPT_MS), "the empty leaf stays");
	/* and has not looked into it yet: there is one leaf, and it comes once */
	hit = t_delay_met("find_to_age", 0);
	delay("find_to_age", 0);
	pthread_join(ager, NULL);
	return hit;
}

static void aging_and_freeing(const void *arg)
{
	struct scene s;
	int i;

	open_scene(&s);
	for (i = 0; i < TRIES; i++) {
		if (try_aging(&s)) {
			close_scene(&s);
			return;
		}
	}
	t_check(false, "no leaf was freed while aging looked at it");
}

/* ---- 6: freeing an empty leaf ---- */

/* It is held there on its way out. */
static void empty_leaf(struct scene *s, const char *point)
{
	open_scene(s);
	delay(point, T_WAIT_MS);
	t_region_write(&s->r, 0, BYTES);
	t_check(t_stat("leaves") == s->leaves + 1, "not one leaf, but %ld",
		t_stat("leaves") - s->leaves);
	discard(s);
	t_check(t_delay_met(point, PROMPT_MS), "nobody frees the empty leaf");
}

/* It is about to be taken out of the mirror, and is in use again. */
static void used_before_unlink(const void *arg)
{
	struct scene s;

	empty_leaf(&s, "reap_to_unlink");
	t_region_write(&s.r, 0, BYTES);
	t_check(t_delay_met("reap_to_unlink", 0), "it has gone too early");
	delay("reap_to_unlink", 0);
	t_sleep_ms(HOLD_MS);
	t_check(t_stat("leaves") == s.leaves + 1, "the leaf in use was freed");
	discard(&s);
	nothing_reported(&s);
	close_scene(&s);
}

/* It is out of the mirror, and hears of invalidations still. */
static void invalidated_after_unlink(const void *arg)
{
	struct scene s;
	int i;

	empty_leaf(&s, "unlink_to_remove");
	for (i = 0; i < 3; i++) {
		t_region_write(&s.r, 0, BYTES);
		t_check(t_stat("leaves") == s.leaves + 2, "there is no second leaf");
		discard(&s);
	}
	t_check(t_delay_met("unlink_to_remove", 0), "it has gone too early");
	delay("unlink_to_remove", 0);
	/* what was queued twice would be freed twice */
	t_sleep_ms(2 * REAP_MS);
	close_scene(&s);
}

/* ---- 7: detaching against completing ---- */

static u64 destroy(struct t_ep *ep)
{
	u64 begin = t_now_ms();

	t_check(!ibv_destroy_qp(ep->qp), "ibv_destroy_qp: %s", strerror(errno));
	return t_now_ms() - begin;
}

/*
 * Somebody dawdles for @ms, and @first was destroyed meanwhile; @other is destroyed
 * where nobody does, which takes as long as it takes today. True if the first had to
 * wait for who dawdles.
 */
static bool destroy_waits(struct t_ep *first, struct t_ep *other, const char *point,
			  unsigned int ms)
{
	u64 took, plain;

	took = destroy(first);
	delay(point, 0);
	t_check(took < t_patience(PROMPT_MS), "destroy took %llu ms", (unsigned long long)took);
	plain = destroy(other);
	t_diag("destroy took %llu ms, and %llu ms without %s", (unsigned long long)took,
	       (unsigned long long)plain, point);
	return took > plain + ms / 2;
}

/* The fault is done, and about to tell a queue pair that is being destroyed. */
static bool try_callback(struct scene *s, unsigned int start_ms)
{
	bool hit;

	open_region(s);
	delay("done_to_call", HOLD_MS);
	post(s, false);
	wait_for_install(s);
	t_sleep_ms(start_ms);
	hit = destroy_waits(&s->r.pair.b, &s->r.pair.a, "done_to_call", HOLD_MS);
	/* a call into what was freed would come about now */
	t_sleep_ms(HOLD_MS);
	t_dereg(&s->r.buf);
	t_check(!munmap(s->p, T_HUGE), "munmap: %s", strerror(errno));
	nothing_reported(s);
	return hit;
}

static void destroyed_in_callback(const void *arg)
{
	static const unsigned int starts[TRIES] = { 5, 20, 40, 10, 60, 80 };
	struct scene s;
	int i;

	note_all(&s);
	for (i = 0; i < TRIES; i++) {
		if (try_callback(&s, starts[i]))
			return;
	}
	t_check(false, "destroy never met the callback");
}

/* The wake-up of who leaves comes before the worker sleeps: it must come again. */
static void woken_too_early(const void *arg)
{
	unsigned int hold = t_patience(HOLD_MS);
	struct scene s;

	open_waiting_scene(&s);
	delay("wake_to_sleep", hold);
	post(&s, false);
	wait_for_fault(&s);
	t_sleep_ms(hold / 4);
	t_check(destroy(&s.r.pair.b) < t_patience(PROMPT_MS), "destroy takes long");
	t_check(t_stat("faults_running") == s.running + 1, "the fault ended too early");
	delay("wake_to_sleep", 0);
	t_check(t_stat_wait("faults_running", s.running, PROMPT_MS),
		"the fault sleeps on, though nobody wants it");
}

/* ---- 8: parking against destroying, and against deregistering ---- */

static void destroyed_before_parked(const void *arg)
{
	unsigned int hold = t_patience(HOLD_MS);
	bool poster = arg;
	struct scene s;
	bool hit;

	open_waiting_scene(&s);
	delay("fault_to_park", hold);
	post(&s, poster);
	wait_for_fault(&s);
	if (poster)
		hit = destroy_waits(&s.r.pair.a, &s.r.pair.b, "fault_to_park", hold);
	else
		hit = destroy_waits(&s.r.pair.b, &s.r.pair.a, "fault_to_park", hold);
	t_check(hit, "destroy did not meet the task that was to park");
	t_check(t_stat_wait("faults_running", s.running, PROMPT_MS), "the fault goes on");
}

static void deregistered_before_parked(const void *arg)
{
	bool poster = arg;
	struct ibv_wc wc;
	struct scene s;
	u64 begin;

	open_waiting_scene(&s);
	delay("fault_to_park", HOLD_MS);
	post(&s, poster);
	wait_for_fault(&s);
	begin = t_now_ms();
	t_dereg(&s.r.buf);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "dereg takes long");
	/* rxe says this of a poster whose key is not known */
	t_expect(t_wait(&s.r.pair.a, &wc),
		 poster ? IBV_WC_LOC_QP_OP_ERR : IBV_WC_REM_ACCESS_ERR,
		 "WRITE whose region goes before the queue pair is parked");
	delay("fault_to_park", 0);
}

/* ---- 9: the mirror's last handle ---- */

struct closer {
	pthread_t thread;
	struct t_dev dev;
	bool closed;
};

static void *close_device(void *arg)
{
	struct closer *c = arg;

	t_dev_close(&c->dev);
	__atomic_store_n(&c->closed, true, __ATOMIC_RELAXED);
	return NULL;
}

/* A context's handle is the last, and goes; another context registers just then. */
static void found_while_put(const void *arg)
{
	struct closer c = { .closed = false };
	struct t_buf first;
	struct scene s;

	note_all(&s);
	t_dev_open(&c.dev);
	t_buf_alloc(&first, 0, LEN);
	t_reg(&first, &c.dev);
	t_dereg(&first);
	t_check(t_stat("mirrors") == s.mirrors + 1, "no mirror");

	s.p = t_map_huge_aligned(T_HUGE);
	t_check(!madvise(s.p, T_HUGE, MADV_NOHUGEPAGE), "madvise");
	t_pair_open(&s.r.pair, NULL);
	delay("last_to_put", HOLD_MS);
	t_check(!pthread_create(&c.thread, NULL, close_device, &c), "thread");
	t_sleep_ms(HOLD_MS / 4);
	t_buf_wrap(&s.r.buf, s.p, LEN);
	t_reg(&s.r.buf, &s.r.pair.dev);
	t_check(!__atomic_load_n(&c.closed, __ATOMIC_RELAXED), "the window was missed");
	pthread_join(c.thread, NULL);
	delay("last_to_put", 0);
	t_sleep_ms(HOLD_MS);
	t_check(t_stat("mirrors") == s.mirrors + 1, "not one mirror, but %ld",
		t_stat("mirrors") - s.mirrors);
	t_buf_alloc(&s.r.scratch, 0, LEN);
	t_reg_pinned(&s.r.scratch, &s.r.pair.dev);
	t_region_exchange(&s.r, 0, LEN);
	t_dereg(&s.r.buf);
	t_buf_free(&s.r.scratch);
	t_pair_close(&s.r.pair);
	t_check(t_stat_wait("mirrors", s.mirrors, PROMPT_MS), "a mirror is left");
}

/* ---- 10: exit against a fault ---- */

static void killed_before_install(const void *arg)
{
	int status, ready[2];
	struct scene s;
	pid_t pid;
	u64 end;

	note_all(&s);
	t_check(!pipe(ready), "pipe");
	delay("fault_to_install", HOLD_MS);
	pid = t_fork();
	if (!pid) {
		open_scene(&s);
		post(&s, false);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	t_check(read(ready[0], &status, 1) == 1, "the victim is not ready");
	wait_for_fault(&s);
	t_sleep_ms(HOLD_MS / 4);
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, PROMPT_MS, &status), "the killed process stays");
	delay("fault_to_install", 0);
	t_check(t_stat_wait("mirrors", s.mirrors, PROMPT_MS), "a mirror is left");
	end = t_deadline(PROMPT_MS);
	while (t_oracle("mapped") != s.mapped)
		t_check(t_now_ms() < end, "words are left");
	nothing_reported(&s);
}

/* ---- 4: an invalidation that may not block ---- */

/*
 * The OOM reaper is the only one. It comes 2 s after a process was killed that still
 * has its memory. Ours has, since somebody is reading it into a page that does not
 * come; and its queue pair works on, since a child has the device's file, until the
 * case closes its end of the pipe.
 */
static void keep_file(int in)
{
	char byte;

	if (!fork())
		_exit(read(in, &byte, 1));
}

static void be_victim(int in, int out)
{
	struct t_addr mine, theirs;
	struct t_buf buf;
	struct t_dev dev;
	struct t_ep ep;

	t_dev_open(&dev);
	t_ep_open(&ep, &dev, NULL);
	t_buf_alloc(&buf, 0, LEN);
	t_reg(&buf, &dev);
	t_fill_buf(&buf, 1);
	t_ep_addr(&ep, &mine);
	mine.addr = buf.iova;
	mine.rkey = buf.mr->rkey;
	t_check(read(in, &theirs, sizeof(theirs)) == sizeof(theirs), "address");
	t_ep_connect(&ep, &theirs);
	keep_file(in);
	t_check(t_write_file("/proc/self/oom_score_adj", "1000\n"), "oom_score_adj");
	t_check(write(out, &mine, sizeof(mine)) == sizeof(mine), "address");
	for (;;)
		pause();
}

struct reader {
	pthread_t thread;
	pid_t pid;
	void *from;
	u8 *to;
};

static void *read_slowly(void *arg)
{
	struct reader *r = arg;
	struct iovec local = { r->to, BYTES }, remote = { r->from, BYTES };

	process_vm_readv(r->pid, &local, 1, &remote, 1, 0);
	return NULL;
}

/* Each refusal has been traced as one, and as of somebody who may not wait. */
static void refusals_are_traced(long refused)
{
	static struct t_event events[1024];
	size_t i, n;

	t_trace_stop();
	n = t_trace_read(events, T_ARRAY_SIZE(events));
	for (i = 0; i < n; i++) {
		if (strcmp(events[i].name, "mm_mirror_invalidate") ||
		    !t_event_number(&events[i], "refused"))
			continue;
		t_check(!t_event_number(&events[i], "blockable"), "refused:%s",
			events[i].text);
		refused--;
	}
	t_check(!refused, "%ld more refused than traced", refused);
}

/* The reaper may find the moment between two WRITEs, and is content then. */
static bool try_reaper(void)
{
	long refused = t_stat("invalidate_refused");
	struct t_buf target = { 0 }, src;
	struct ibv_mr key = { 0 };
	int in[2], out[2], status, uffd, i, done = 0, posted = 16;
	struct t_addr mine, victim;
	struct reader reader;
	struct t_dev dev;
	struct ibv_sge sge;
	struct scene s;
	struct ibv_wc wc;
	struct t_op op;
	struct t_ep ep;
	u64 end, address;
	pid_t pid;

	note_all(&s);
	t_check(!pipe(in) && !pipe(out), "pipe");
	pid = t_fork();
	if (!pid) {
		close(in[1]);
		be_victim(in[0], out[1]);
	}
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, NULL);
	t_buf_alloc(&src, 0, LEN);
	t_reg_pinned(&src, &dev);
	t_ep_addr(&ep, &mine);
	t_check(write(in[1], &mine, sizeof(mine)) == sizeof(mine), "address");
	t_check(read(out[0], &victim, sizeof(victim)) == sizeof(victim), "address");
	t_ep_connect(&ep, &victim);
	key.rkey = victim.rkey;
	target.iova = victim.addr;
	target.mr = &key;
	t_expect(t_write(&ep, &src, 0, &target, 0, BYTES), IBV_WC_SUCCESS, "WRITE before");

	reader.pid = pid;
	reader.from = (void *)(uintptr_t)(victim.addr + T_PAGE);
	reader.to = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uffd = t_uffd_open();
	t_uffd_watch(uffd, reader.to, T_PAGE);
	t_check(!pthread_create(&reader.thread, NULL, read_slowly, &reader), "thread");
	t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "the reader does not wait");

	t_trace_start();
	t_check(t_write_file("/proc/sysrq-trigger", "f"), "no sysrq");
	t_check(t_wait_exit(pid, PROMPT_MS, &status) && WIFSIGNALED(status),
		"the victim was not killed");
	t_check(t_stat("mirrors") == s.mirrors + 1, "the victim's memory is gone");
	delay("take_to_drop", 500);
	sge = t_sge(&src, 0, BYTES);
	op = (struct t_op){ .opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
			    .raddr = target.iova, .rkey = key.rkey };
	for (i = 0; i < posted; i++)
		t_check(!t_post(&ep, &op, NULL), "posting");
	end = t_deadline(10000);
	wc.status = IBV_WC_SUCCESS;
	while (t_stat("invalidate_refused") == refused && wc.status == IBV_WC_SUCCESS &&
	       done < posted && t_now_ms() < end)
		done += t_poll(&ep, &wc, 20);
	delay("take_to_drop", 0);
	for (i = done; i < posted; i++)
		t_check(t_wait(&ep, &wc) != T_TIMED_OUT, "WRITE %d does not end", i);
	nothing_reported(&s);

	t_uffd_serve(uffd, address, src.p);
	pthread_join(reader.thread, NULL);
	close(in[1]);
	t_check(t_stat_wait("mirrors", s.mirrors, PROMPT_MS), "a mirror is left");
	nothing_reported(&s);
	refused = t_stat("invalidate_refused") - refused;
	refusals_are_traced(refused);
	t_trace_end();
	close(uffd);
	t_buf_free(&src);
	t_ep_close(&ep);
	t_dev_close(&dev);
	return refused;
}

static void reaped_while_held(const void *arg)
{
	int i;

	for (i = 0; i < TRIES; i++) {
		if (try_reaper())
			return;
	}
	t_check(false, "the OOM reaper was not refused");
}

static const struct t_case cases[] = {
	{ "4: the OOM reaper comes while a page is held", T_ODP, reaped_while_held, NULL },
	{ "5: aging has found a leaf that is freed", T_ODP, aging_and_freeing, NULL },
	{ "6: a leaf is used again before it is unlinked", T_ODP, used_before_unlink, NULL },
	{ "6: a leaf is invalidated after it was unlinked", T_ODP, invalidated_after_unlink,
	  NULL },
	{ "7: a queue pair goes while its fault completes", T_ODP, destroyed_in_callback,
	  NULL },
	{ "7: a wake-up comes before the sleep", T_ODP, woken_too_early, NULL },
	{ "8: the responder goes before it is parked", T_ODP, destroyed_before_parked, NULL },
	{ "8: the poster goes before it is parked", T_ODP, destroyed_before_parked, "poster" },
	{ "8: the region goes before the responder is parked", T_ODP,
	  deregistered_before_parked, NULL },
	{ "8: the region goes before the poster is parked", T_ODP,
	  deregistered_before_parked, "poster" },
	{ "9: a mirror is found while its last handle is put", T_ODP, found_while_put, NULL },
	{ "10: a process is killed before its fault installs", T_ODP, killed_before_install,
	  NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
