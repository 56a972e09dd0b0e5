// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a subscription is promised, on the table of the engine of samples/mm_mirror:
 * who is called, for which piece, how often and when; what a refusal does, and a
 * failure; that release comes once, however it ends; and that no copy ever sees a page
 * that the address no longer has. The engine looks itself whether it is called after
 * the fence and before the page goes (early, gone).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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

#define PROMPT_MS	5000
#define HOLD_US		100000
#define PAGES		4
#define LEN		(PAGES * T_PAGE)
#define TRIES		5

/* ---- a scene: pages with a table over them, and a place beside ---- */

/* @p: LEN bytes, half of them in one leaf and half in the next; in @map, 2 leaves. */
struct scene {
	int dma;
	u32 table;
	u32 plain;
	u8 *map;
	u8 *p;
	u8 *out;
};

static struct t_place place(u32 space, void *p)
{
	return (struct t_place){ .space = space, .p = p };
}

static void map_scene(struct scene *s)
{
	s->map = t_map_huge_aligned(2 * T_HUGE);
	t_check(!madvise(s->map, 2 * T_HUGE, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	s->p = s->map + T_HUGE - LEN / 2;
	s->out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	t_fill(s->p, LEN, 1);
}

static void open_scene(struct scene *s)
{
	map_scene(s);
	s->dma = t_dma_open();
	s->plain = t_dma_attach(s->dma);
	s->table = t_dma_attach_table(s->dma, s->map, 2 * T_HUGE);
}

static int read_by(struct scene *s, u32 space, const void *p, size_t len)
{
	memset(s->out, 0xee, len);
	return t_dma_copy(s->dma, place(s->plain, s->out), place(space, (void *)p), len);
}

/* Read everything by the table, which has it then. */
static void establish(struct scene *s, u32 space, u64 round)
{
	t_check(!read_by(s, space, s->p, LEN), "reading by space %u", space);
	t_check(t_matches(s->out, LEN, round), "wrong bytes by space %u", space);
}

/* What was established makes calls of its own, of which the test does not speak. */
static void forget_calls(const struct scene *s, u32 space)
{
	struct mirror_dma_calls calls;

	t_dma_calls(s->dma, space, &calls);
}

static void discard(void *p, size_t len)
{
	t_check(!madvise(p, len, MADV_DONTNEED), "MADV_DONTNEED: %s", strerror(errno));
}

/* Nobody ever sees these. */
static void promises_kept(int dma, u32 space)
{
	struct mirror_dma_counts counts;

	t_dma_counts(dma, space, &counts);
	t_check(!counts.early, "%llu calls while the mirror still had a page of the piece",
		(unsigned long long)counts.early);
	t_check(!counts.gone, "%llu pages were dropped that had been freed",
		(unsigned long long)counts.gone);
}

static void diag_call(u32 i, const struct mirror_dma_call *c)
{
	t_diag("  call %u: %s%s event %u of [%llx, %llx], %u dropped", i,
	       c->call == MIRROR_DMA_CALL_RELEASE ? "release" :
	       c->call == MIRROR_DMA_CALL_INVALIDATE ? "invalidate" : "try_invalidate",
	       c->ret ? "" : " (false)", c->event, (unsigned long long)c->start,
	       (unsigned long long)c->last, c->dropped);
}

static bool same_call(const struct mirror_dma_call *a, const struct mirror_dma_call *b)
{
	return a->start == b->start && a->last == b->last && a->call == b->call &&
	       a->event == b->event && a->dropped == b->dropped && a->ret == b->ret;
}

/* A leaf that has become empty announces itself some time later, and is freed. */
static bool is_last_of_leaf(const struct mirror_dma_call *c)
{
	return c->call == MIRROR_DMA_CALL_INVALIDATE && c->event == MIRROR_DMA_EVENT_CLEAR &&
	       c->last - c->start + 1 == T_HUGE && !c->dropped;
}

static void get_calls(const struct scene *s, u32 space, struct mirror_dma_calls *calls)
{
	u32 i, n = 0;

	t_dma_calls(s->dma, space, calls);
	for (i = 0; i < calls->nr && i < MIRROR_DMA_CALLS_MAX; i++) {
		if (!is_last_of_leaf(&calls->calls[i]))
			calls->calls[n++] = calls->calls[i];
	}
	calls->nr -= i - n;
}

/* These calls, in this order, and no other. */
static void expect_calls(const struct scene *s, u32 space, const struct mirror_dma_call *want,
			 u32 nr)
{
	struct mirror_dma_calls got;
	bool same;
	u32 i;

	get_calls(s, space, &got);
	same = got.nr == nr;
	for (i = 0; same && i < nr; i++)
		same = same_call(&got.calls[i], &want[i]);
	if (same)
		return;
	t_diag("space %u was called %u times:", space, got.nr);
	for (i = 0; i < got.nr && i < MIRROR_DMA_CALLS_MAX; i++)
		diag_call(i, &got.calls[i]);
	t_diag("and was to be called %u times:", nr);
	for (i = 0; i < nr; i++)
		diag_call(i, &want[i]);
	t_check(false, "other calls");
}

static struct mirror_dma_call invalidate_of(const void *p, size_t len, u32 event, u32 dropped)
{
	return (struct mirror_dma_call){
		.start = (uintptr_t)p, .last = (uintptr_t)p + len - 1,
		.call = MIRROR_DMA_CALL_INVALIDATE, .event = event, .dropped = dropped,
		.ret = 1,
	};
}

/* ---- pieces ---- */

enum op { OP_UNMAP, OP_DISCARD, OP_PROTECT, OP_FORK };

struct change {
	enum op op;
	u32 event;
};

static void child_that_ends(void)
{
	int status;
	pid_t pid = t_fork();

	if (!pid)
		_exit(0);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status), "the child stays");
}

static void change(u8 *p, size_t len, enum op op)
{
	switch (op) {
	case OP_UNMAP:
		t_check(!munmap(p, len), "munmap: %s", strerror(errno));
		break;
	case OP_DISCARD:
		discard(p, len);
		break;
	case OP_PROTECT:
		t_check(!mprotect(p, len, PROT_READ), "mprotect: %s", strerror(errno));
		break;
	case OP_FORK:
		child_that_ends();
		break;
	}
}

/* A mapping of its own: where one is split the kernel announces all of that 2 MiB. */
static void trim(const struct scene *s)
{
	size_t before = s->p - s->map;

	t_check(!munmap(s->map, before) &&
		!munmap(s->p + LEN, 2 * T_HUGE - before - LEN), "munmap");
}

/* Each leaf has its part announced, once. */
static void one_call_per_leaf(const void *arg)
{
	const struct change *c = arg;
	struct mirror_dma_call want[2];
	struct scene s;

	open_scene(&s);
	trim(&s);
	establish(&s, s.table, 1);
	forget_calls(&s, s.table);
	change(s.p, LEN, c->op);
	want[0] = invalidate_of(s.p, LEN / 2, c->event, PAGES / 2);
	want[1] = invalidate_of(s.p + LEN / 2, LEN / 2, c->event, PAGES / 2);
	expect_calls(&s, s.table, want, 2);
	promises_kept(s.dma, s.table);
}

/* Nothing was ever established there, and nobody is called. */
static void no_leaf_no_call(const void *arg)
{
	struct mirror_dma_call want;
	struct scene s;

	open_scene(&s);
	discard(s.p, LEN);
	change(s.p, LEN, OP_PROTECT);
	expect_calls(&s, s.table, NULL, 0);

	/* one page of one leaf: the others of that leaf are announced as well */
	t_check(!read_by(&s, s.table, s.p, T_PAGE), "reading");
	forget_calls(&s, s.table);
	discard(s.p + T_PAGE, LEN - T_PAGE);
	want = invalidate_of(s.p + T_PAGE, LEN / 2 - T_PAGE, MIRROR_DMA_EVENT_CLEAR, 0);
	expect_calls(&s, s.table, &want, 1);
}

/* What lies beside the range is not told, though it has the same leaf. */
static void outside_of_range(const void *arg)
{
	struct mirror_dma_call want;
	struct scene s;
	u32 one;

	open_scene(&s);
	one = t_dma_attach_table(s.dma, s.p, T_PAGE);
	establish(&s, s.table, 1);
	establish(&s, one, 1);
	forget_calls(&s, one);
	discard(s.p + T_PAGE, T_PAGE);
	expect_calls(&s, one, NULL, 0);
	/* and a piece is not cut to the range */
	discard(s.p, 2 * T_PAGE);
	want = invalidate_of(s.p, 2 * T_PAGE, MIRROR_DMA_EVENT_CLEAR, 1);
	expect_calls(&s, one, &want, 1);
}

static void overlapping(const void *arg)
{
	struct mirror_dma_call want;
	struct mirror_dma_counts counts;
	struct scene s;
	u32 spaces[3];
	int page, i;

	open_scene(&s);
	/* in the second leaf: pages 2 and 3 of the scene, and one more */
	t_fill_at(s.p + LEN, T_PAGE, LEN, 1);
	spaces[0] = t_dma_attach_table(s.dma, s.map + T_HUGE, 2 * T_PAGE);
	spaces[1] = t_dma_attach_table(s.dma, s.map + T_HUGE + T_PAGE, 2 * T_PAGE);
	spaces[2] = t_dma_attach_all(s.dma);
	for (i = 0; i < 3; i++) {
		t_check(!read_by(&s, spaces[i], s.map + T_HUGE, 3 * T_PAGE), "reading");
		t_check(t_matches_at(s.out, 3 * T_PAGE, LEN / 2, 1), "wrong bytes");
		t_dma_counts(s.dma, spaces[i], &counts);
		t_check(counts.established >= (i == 2 ? 3 : 2), "%llu established",
			(unsigned long long)counts.established);
		forget_calls(&s, spaces[i]);
	}
	for (page = 0; page < 3; page++) {
		discard(s.map + T_HUGE + page * T_PAGE, T_PAGE);
		want = invalidate_of(s.map + T_HUGE + page * T_PAGE, T_PAGE,
				     MIRROR_DMA_EVENT_CLEAR, 1);
		expect_calls(&s, spaces[0], &want, page <= 1);
		expect_calls(&s, spaces[1], &want, page >= 1);
		expect_calls(&s, spaces[2], &want, 1);
	}
}

/* Engines know nothing of each other. */
static void several_engines(const void *arg)
{
	struct mirror_dma_call want[2];
	struct scene s[4];
	int i;

	open_scene(&s[0]);
	for (i = 1; i < 4; i++) {
		s[i] = s[0];
		s[i].dma = t_dma_open();
		s[i].plain = t_dma_attach(s[i].dma);
		s[i].table = i % 2 ? t_dma_attach_all(s[i].dma) :
				     t_dma_attach_table(s[i].dma, s[i].p, LEN);
	}
	for (i = 0; i < 4; i++)
		establish(&s[i], s[i].table, 1);
	for (i = 0; i < 4; i++)
		forget_calls(&s[i], s[i].table);
	/* one leaves, and is not called any more; the others are */
	close(s[2].dma);
	discard(s[0].p, LEN);
	want[0] = invalidate_of(s[0].p, LEN / 2, MIRROR_DMA_EVENT_CLEAR, PAGES / 2);
	want[1] = invalidate_of(s[0].p + LEN / 2, LEN / 2, MIRROR_DMA_EVENT_CLEAR, PAGES / 2);
	for (i = 0; i < 4; i++) {
		if (i != 2)
			expect_calls(&s[i], s[i].table, want, 2);
	}
}

/* From the lowest mapping to the stack. */
static void whole_address_space(const void *arg)
{
	u8 on_stack[64] __attribute__((aligned(64)));
	struct mirror_dma_call want;
	struct scene s;
	u8 *low, *high;
	u32 all;

	open_scene(&s);
	low = mmap((void *)0x10000, T_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	high = mmap((void *)0x7fffff000000, T_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	t_check(low == (u8 *)0x10000 && high != MAP_FAILED, "mmap: %s", strerror(errno));
	all = t_dma_attach_all(s.dma);
	t_fill(low, T_PAGE, 3);
	t_fill(high, T_PAGE, 4);
	t_check(!read_by(&s, all, low, T_PAGE) && t_matches(s.out, T_PAGE, 3), "low");
	t_check(!read_by(&s, all, high, T_PAGE) && t_matches(s.out, T_PAGE, 4), "high");
	forget_calls(&s, all);
	discard(low, T_PAGE);
	want = invalidate_of(low, T_PAGE, MIRROR_DMA_EVENT_CLEAR, 1);
	expect_calls(&s, all, &want, 1);
	t_check(!munmap(high, T_PAGE), "munmap");
	want = invalidate_of(high, T_PAGE, MIRROR_DMA_EVENT_UNMAP, 1);
	expect_calls(&s, all, &want, 1);
	t_check(!read_by(&s, all, low, T_PAGE) && t_all_zero(s.out, T_PAGE), "low, discarded");
	t_check(read_by(&s, all, high, T_PAGE) == -EFAULT, "high, unmapped");
	t_fill(on_stack, sizeof(on_stack), 5);
	t_check(!read_by(&s, all, on_stack, 64) && t_matches(s.out, 64, 5), "the stack");
}

/* ---- when: what is in flight, and what is not there yet ---- */

struct worker {
	pthread_t thread;
	struct scene *s;
	void *p;
	bool stop;
	bool done;
};

static void *discard_one(void *arg)
{
	struct worker *w = arg;

	discard(w->p, T_PAGE);
	__atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void run(struct worker *w, void *(*fn)(void *))
{
	w->stop = false;
	w->done = false;
	t_check(!pthread_create(&w->thread, NULL, fn, w), "thread");
}

static bool is_done(struct worker *w)
{
	return __atomic_load_n(&w->done, __ATOMIC_ACQUIRE);
}

/*
 * A copy by the table dawdles over the page that is discarded: invalidate waits for it,
 * and so the copy has the page as it was, whole.
 */
static bool try_in_flight(const void *arg, unsigned int start_ms)
{
	static u64 round = 10;
	struct scene *s = (struct scene *)arg;
	struct mirror_dma_copy copy = {
		.src = (uintptr_t)s->p, .dst = (uintptr_t)s->out, .length = T_PAGE,
		.src_space = s->table, .dst_space = s->plain, .hold_us = HOLD_US,
	};
	struct mirror_dma_counts before, after;
	struct mirror_dma_done done;

	t_fill(s->p, T_PAGE, ++round);
	t_check(!read_by(s, s->table, s->p, T_PAGE), "reading");
	t_dma_counts(s->dma, s->table, &before);
	t_check(!t_dma_submit(s->dma, &copy), "submit");
	t_sleep_ms(start_ms);
	discard(s->p, T_PAGE);
	t_dma_counts(s->dma, s->table, &after);
	t_check(t_dma_read(s->dma, T_WAIT_MS, &done) && !done.status, "the copy failed");
	if (after.waits == before.waits)
		return false;
	t_check(t_matches(s->out, T_PAGE, round), "the page went while it was copied");
	t_check(!read_by(s, s->table, s->p, T_PAGE) && t_all_zero(s->out, T_PAGE),
		"the page is there still");
	return true;
}

static void waits_for_copy(const void *arg)
{
	struct scene s;

	open_scene(&s);
	t_until_hit(try_in_flight, &s);
	promises_kept(s.dma, s.table);
}

/*
 * While invalidate sleeps: the mirror has nothing there any more, and nothing comes; a
 * copy that has begun meanwhile sees what is there afterwards. Other leaves go on.
 */
static bool try_in_callback(struct scene *s)
{
	struct mirror_dma_copy look = {
		.src = (uintptr_t)s->p, .dst = (uintptr_t)s->out, .length = 64,
		.src_space = s->plain, .dst_space = s->plain, .flags = MIRROR_DMA_NOFAULT,
	};
	struct worker w = { .p = s->p };
	u64 end = t_deadline(PROMPT_MS);
	struct mirror_dma_done done;
	bool inside;

	t_fill(s->p, LEN, 1);
	establish(s, s->table, 1);
	run(&w, discard_one);
	while (t_dma_do(s->dma, &look, NULL) != -EAGAIN)
		t_check(t_now_ms() < end, "the mirror has the page still");
	t_dma_start(s->dma, 7, place(s->plain, s->out), place(s->plain, s->p), T_PAGE);
	look.src += LEN - T_PAGE;
	look.dst += T_PAGE;
	look.cookie = 8;
	t_check(!t_dma_submit(s->dma, &look), "submit");
	/* the other leaf's comes first, unless this was too late */
	t_check(t_dma_read(s->dma, T_WAIT_MS, &done), "no copy ends");
	inside = done.cookie == 8 && !is_done(&w);
	t_check(!done.status, "status %d", done.status);
	t_check(t_dma_read(s->dma, T_WAIT_MS, &done) && !done.status, "the other copy");
	t_check(!inside || t_all_zero(s->out, T_PAGE), "a page that was announced was used");
	pthread_join(w.thread, NULL);
	return inside;
}

static void sleeping_callback(const void *arg)
{
	struct scene s;
	int i;

	open_scene(&s);
	t_dma_set(s.dma, s.table, MIRROR_DMA_SET_INVALIDATE_US, 300000);
	for (i = 0; i < TRIES && !try_in_callback(&s); i++)
		;
	t_check(i < TRIES, "never inside of the callback");
	promises_kept(s.dma, s.table);
}

static void *discard_on(void *arg)
{
	struct worker *w = arg;
	u64 n;

	for (n = 0; !__atomic_load_n(&w->stop, __ATOMIC_RELAXED); n++) {
		discard(w->s->p + n % PAGES * T_PAGE, T_PAGE);
		if (n % 8 == 0)
			discard(w->s->p, LEN);
	}
	return NULL;
}

/* Copies that hold pages in both ways, against discarding: the promises, many times. */
static void promises_under_fire(const void *arg)
{
	long waits = t_stat("fence_waits");
	struct mirror_dma_counts counts;
	struct mirror_dma_copy copy;
	struct mirror_dma_done done;
	struct worker w = { 0 };
	struct scene s;
	u32 all;
	int i;

	open_scene(&s);
	all = t_dma_attach_all(s.dma);
	w.s = &s;
	run(&w, discard_on);
	for (i = 0; i < 600; i++) {
		copy = (struct mirror_dma_copy){
			.src = (uintptr_t)s.p + i % PAGES * T_PAGE, .dst = (uintptr_t)s.out,
			.src_space = i % 3 == 0 ? s.plain : i % 3 == 1 ? s.table : all,
			.dst_space = s.plain, .length = 512, .hold_us = t_patience(500),
		};
		if (i >= 8)
			t_check(t_dma_read(s.dma, T_WAIT_MS, &done) && !done.status, "a copy");
		t_check(!t_dma_submit(s.dma, &copy), "submit");
	}
	for (i = 0; i < 8; i++)
		t_check(t_dma_read(s.dma, T_WAIT_MS, &done) && !done.status, "a copy");
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(w.thread, NULL);
	promises_kept(s.dma, s.table);
	promises_kept(s.dma, all);
	t_dma_counts(s.dma, all, &counts);
	t_diag("%llu calls, %llu dropped, %llu waits, %ld fence waits",
	       (unsigned long long)t_dma_invalidates(&counts),
	       (unsigned long long)counts.invalidated, (unsigned long long)counts.waits,
	       t_stat("fence_waits") - waits);
	t_check(counts.invalidated && counts.waits, "nothing was dropped, or waited for");
	t_check(t_stat("fence_waits") > waits, "no page was held");
}

/* ---- held open by the core's delay points ---- */

static void delay(const char *point, unsigned int ms)
{
	t_check(t_delay_set(point, ms * 1000UL),
		"no delay point %s: this test wants the debug build", point);
}

/*
 * A page is being entered in the table, and discarded: the announcement comes when it
 * has been entered, and finds it.
 */
static bool try_entering(const void *arg, unsigned int start_ms)
{
	struct scene *s = (struct scene *)arg;
	struct mirror_dma_copy copy = {
		.src = (uintptr_t)s->p, .dst = (uintptr_t)s->out, .length = 64,
		.src_space = s->table, .dst_space = s->plain, .flags = MIRROR_DMA_NOFAULT,
	};
	struct mirror_dma_counts before, after;
	long waits = t_stat("fence_waits");
	struct mirror_dma_done done;

	t_fill(s->p, LEN, 1);
	/* the mirror has it, the table does not */
	t_check(!read_by(s, s->plain, s->p, LEN), "reading");
	t_dma_counts(s->dma, s->table, &before);
	delay("take_to_drop", 100);
	t_check(!t_dma_submit(s->dma, &copy), "submit");
	t_sleep_ms(start_ms);
	discard(s->p, T_PAGE);
	delay("take_to_drop", 0);
	t_dma_counts(s->dma, s->table, &after);
	t_check(t_dma_read(s->dma, T_WAIT_MS, &done), "the copy does not end");
	t_check(!done.status || done.status == -EAGAIN, "status %d", done.status);
	t_check(!read_by(s, s->table, s->p, T_PAGE) && t_all_zero(s->out, T_PAGE),
		"the page that was discarded is in the table");
	discard(s->p, LEN);
	return t_stat("fence_waits") > waits && after.established > before.established &&
	       after.invalidated > before.invalidated;
}

static void entered_while_announced(const void *arg)
{
	struct scene s;

	open_scene(&s);
	t_until_hit(try_entering, &s);
	promises_kept(s.dma, s.table);
}

/*
 * A leaf is out of the mirror, and hears still: it has nothing to say about the pages
 * that the next one at its place has.
 */
static void leaf_that_goes(const void *arg)
{
	struct mirror_dma_call want;
	struct scene s;
	u8 *p;
	int i;

	t_check(t_stat_wait("mirrors", 0, PROMPT_MS), "mirrors of others are left");
	open_scene(&s);
	p = s.map + T_HUGE;
	delay("unlink_to_remove", T_WAIT_MS);
	t_check(!read_by(&s, s.table, p, T_PAGE), "reading");
	discard(p, T_PAGE);
	t_check(t_delay_met("unlink_to_remove", PROMPT_MS), "no leaf goes");
	want = invalidate_of(p, T_PAGE, MIRROR_DMA_EVENT_CLEAR, 1);
	for (i = 0; i < 5; i++) {
		t_fill(p, T_PAGE, i);
		t_check(!read_by(&s, s.table, p, T_PAGE) && t_matches(s.out, T_PAGE, i),
			"reading");
		forget_calls(&s, s.table);
		discard(p, T_PAGE);
		expect_calls(&s, s.table, &want, 1);
	}
	t_check(t_delay_met("unlink_to_remove", 0), "it has gone too early");
	delay("unlink_to_remove", 0);
	promises_kept(s.dma, s.table);
}

/* ---- two at once ---- */

static void two_at_once(const void *arg)
{
	struct mirror_dma_counts before, after;
	struct worker w = { 0 };
	struct scene s;
	int i;

	open_scene(&s);
	w.p = s.p;
	t_dma_set(s.dma, s.table, MIRROR_DMA_SET_INVALIDATE_US, 200000);
	for (i = 0; i < TRIES; i++) {
		establish(&s, s.table, 1);
		t_dma_counts(s.dma, s.table, &before);
		run(&w, discard_one);
		discard(s.p, T_PAGE);
		pthread_join(w.thread, NULL);
		t_dma_counts(s.dma, s.table, &after);
		t_check(after.invalidated == before.invalidated + 1, "dropped %llu times",
			(unsigned long long)(after.invalidated - before.invalidated));
		t_check(!read_by(&s, s.table, s.p, T_PAGE) && t_all_zero(s.out, T_PAGE),
			"the page is there still");
		if (after.at_once >= 2)
			break;
		t_fill(s.p, LEN, 1);
	}
	t_check(i < TRIES, "never two at once");
	promises_kept(s.dma, s.table);
}

/* ---- coming and going, while calls run ---- */

struct detacher {
	pthread_t thread;
	int dma;
	u32 space;
};

static void *detach(void *arg)
{
	struct detacher *d = arg;

	t_dma_detach(d->dma, d->space);
	return NULL;
}

/* Start detaching, which takes so long from where nothing is established any more. */
static void start_detach(struct detacher *d, int dma, u32 space, unsigned int ms)
{
	struct mirror_dma_copy none = { .src_space = space, .dst_space = space };
	struct mirror_dma_done done;

	d->dma = dma;
	d->space = space;
	delay("end_to_release", ms);
	t_check(!pthread_create(&d->thread, NULL, detach, d), "thread");
	while (!t_dma_submit(dma, &none))
		t_check(t_dma_read(dma, T_WAIT_MS, &done), "nothing takes long");
}

/*
 * A subscription is ending, and has its table still: who takes pages away waits until
 * it is empty. That a page was freed before is what the engine warns of.
 */
static bool try_detaching(const void *arg, unsigned int start_ms)
{
	struct scene *s = (struct scene *)arg;
	unsigned int ms = t_patience(300);
	struct detacher d;
	u64 begin, took;

	t_fill(s->p, LEN, 1);
	establish(s, s->table, 1);
	start_detach(&d, s->dma, s->table, ms);
	t_sleep_ms(start_ms);
	begin = t_now_ms();
	discard(s->p, LEN);
	took = t_now_ms() - begin;
	pthread_join(d.thread, NULL);
	delay("end_to_release", 0);
	t_diag("discarding took %llu ms", (unsigned long long)took);
	s->table = t_dma_attach_table(s->dma, s->p, LEN);
	return took > ms / 3;
}

static void detached_and_discarded(const void *arg)
{
	struct scene s;

	open_scene(&s);
	t_until_hit(try_detaching, &s);
}

static void detach_under_fire(const void *arg)
{
	struct worker w = { 0 };
	struct scene s;
	u32 space;
	int i;

	open_scene(&s);
	w.s = &s;
	run(&w, discard_on);
	for (i = 0; i < 60; i++) {
		space = i % 2 ? t_dma_attach_all(s.dma) : t_dma_attach_table(s.dma, s.p, LEN);
		t_dma_set(s.dma, space, MIRROR_DMA_SET_INVALIDATE_US, i % 3 * 500);
		t_check(!read_by(&s, space, s.p, LEN), "reading");
		promises_kept(s.dma, space);
		t_dma_detach(s.dma, space);
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(w.thread, NULL);
}

/* ---- registration ---- */

static void incomplete(const void *arg)
{
	static const struct {
		u32 without;
		bool fine;
	} tables[] = {
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_RELEASE), false },
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_INVALIDATE), false },
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_TRY_INVALIDATE), false },
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_TEST_YOUNG), false },
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_CLEAR_YOUNG), false },
		{ MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_TEST_YOUNG) |
		  MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_CLEAR_YOUNG), true },
	};
	long subscriptions = t_stat("subscriptions");
	struct scene s;
	u32 space;
	size_t i;
	int err;

	open_scene(&s);
	for (i = 0; i < T_ARRAY_SIZE(tables); i++) {
		err = t_dma_try_attach(s.dma, MIRROR_DMA_TABLE | tables[i].without, 0, ~0ULL,
				       &space);
		t_check(err == (tables[i].fine ? 0 : EINVAL), "without %x: %s",
			tables[i].without, strerror(err));
	}
	t_check(t_stat("subscriptions") == subscriptions + 2, "%ld subscriptions",
		t_stat("subscriptions") - subscriptions);
	/* the last is a subscription like others, and nobody asks it for its age */
	establish(&s, space, 1);
	discard(s.p, LEN);
	t_check(!read_by(&s, space, s.p, LEN) && t_all_zero(s.out, LEN), "wrong bytes");
	close(s.dma);
	t_check(t_stat_wait("subscriptions", subscriptions, 0), "some are left");
}

/* ---- no stale page ---- */

#define ROUNDS	25

/* While another engine keeps all in its table, and so in the mirror, all the time. */
static void *read_on(void *arg)
{
	struct worker *w = arg;
	u8 *out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	u32 space = t_dma_attach_all(dma);

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		status = t_dma_copy(dma, place(space, out), place(space, w->s->p), LEN);
		t_check(!status || status == -EFAULT, "status %d", status);
	}
	promises_kept(dma, space);
	close(dma);
	return NULL;
}

static void must_read(struct scene *s, u64 round, const char *when)
{
	int status = read_by(s, s->table, s->p, LEN);

	t_check(!status, "%s: status %d", when, status);
	t_check(t_matches(s->out, LEN, round), "%s: other bytes", when);
}

static void must_not_read(struct scene *s, const char *when)
{
	int status = read_by(s, s->table, s->p, LEN);

	t_check(status == -EFAULT, "%s: status %d", when, status);
}

static int write_by(struct scene *s, u64 round)
{
	t_fill(s->out, LEN, round);
	return t_dma_copy(s->dma, place(s->table, s->p), place(s->plain, s->out), LEN);
}

static void stale_unmap(struct scene *s, u64 round)
{
	must_read(s, round, "before");
	t_check(!munmap(s->p, LEN), "munmap");
	must_not_read(s, "unmapped");
	t_check(mmap(s->p, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0) == s->p, "mmap");
	t_fill(s->p, LEN, round + 1);
	must_read(s, round + 1, "mapped again");
}

static void stale_discard(struct scene *s, u64 round)
{
	must_read(s, round, "before");
	discard(s->p, LEN);
	t_check(!read_by(s, s->table, s->p, LEN) && t_all_zero(s->out, LEN), "discarded");
	t_fill(s->p, LEN, round + 1);
	must_read(s, round + 1, "filled again");
}

/* The child has the pages as they were, whoever writes to ours. */
static void stale_fork(struct scene *s, u64 round)
{
	int status, go[2];
	pid_t pid;
	char byte;

	must_read(s, round, "before");
	t_check(!write_by(s, round), "writing before");
	t_check(!pipe(go), "pipe");
	pid = t_fork();
	if (!pid) {
		close(go[1]);
		if (read(go[0], &byte, 1) != 0)
			_exit(2);
		_exit(!t_matches(s->p, LEN, round));
	}
	close(go[0]);
	/* half by the CPU, all by the engine */
	t_fill(s->p, LEN / 2, round + 1);
	t_check(!read_by(s, s->table, s->p, LEN) && t_matches(s->out, LEN / 2, round + 1) &&
		t_matches_at(s->out + LEN / 2, LEN / 2, LEN / 2, round), "after a write here");
	t_check(!write_by(s, round + 1), "writing");
	close(go[1]);
	t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "the child sees our writes");
	t_check(t_matches(s->p, LEN, round + 1), "we do not");
}

static void stale_protect(struct scene *s, u64 round)
{
	t_check(!write_by(s, round), "writing before");
	t_check(!mprotect(s->p, LEN, PROT_READ), "mprotect");
	t_check(write_by(s, round + 1) == -EFAULT, "written to what is read-only");
	must_read(s, round, "read-only");
	t_check(!mprotect(s->p, LEN, PROT_NONE), "mprotect");
	must_not_read(s, "PROT_NONE");
	t_check(!mprotect(s->p, LEN, PROT_READ | PROT_WRITE), "mprotect");
	must_read(s, round, "writable again");
	t_check(!write_by(s, round + 1), "writing after");
	t_check(t_matches(s->p, LEN, round + 1), "it did not come");
}

static void stale_move(struct scene *s, u64 round)
{
	static u8 *to;

	to = to ?: t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must_read(s, round, "before");
	t_check(mremap(s->p, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	must_not_read(s, "moved away");
	t_check(!read_by(s, s->table, to, LEN) && t_matches(s->out, LEN, round), "where it is");
	t_check(mremap(to, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, s->p) == s->p, "and back");
	t_check(read_by(s, s->table, to, LEN) == -EFAULT, "where it was");
	must_read(s, round, "back");
	t_check(!write_by(s, round + 1) && t_matches(s->p, LEN, round + 1), "writing after");
}

struct staleness {
	void (*step)(struct scene *s, u64 round);
};

static void never_stale(const void *arg)
{
	const struct staleness *how = arg;
	struct mirror_dma_counts counts;
	struct worker w = { 0 };
	struct scene s;
	u64 round;

	map_scene(&s);
	s.dma = t_dma_open();
	s.plain = t_dma_attach(s.dma);
	s.table = t_dma_attach_all(s.dma);
	w.s = &s;
	run(&w, read_on);
	for (round = 1; round <= ROUNDS; round++)
		how->step(&s, round);
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(w.thread, NULL);
	promises_kept(s.dma, s.table);
	t_dma_counts(s.dma, s.table, &counts);
	t_check(counts.invalidated >= ROUNDS * PAGES, "%llu dropped in %d rounds",
		(unsigned long long)counts.invalidated, ROUNDS);
}

/* ---- another process ---- */

/* Its scene, which the engine of this process knows by a table and without. */
struct other {
	pid_t pid;
	int go;
	struct scene s;		/* of the other; dma is ours */
};

static void be_other(int dma, int out, int go)
{
	struct scene s;
	char byte;

	map_scene(&s);
	s.dma = dma;
	s.plain = t_dma_attach(dma);
	s.table = t_dma_attach_table(dma, s.map, 2 * T_HUGE);
	close(dma);
	t_check(t_write_file("/proc/self/oom_score_adj", "1000\n"), "oom_score_adj");
	t_check(write(out, &s, sizeof(s)) == sizeof(s), "telling");
	if (read(go, &byte, 1) != 1)
		_exit(1);
	if (byte == 'x')
		execl("/bin/sleep", "sleep", "1000", NULL);
	_exit(0);
}

static void start_other(struct other *o, int dma)
{
	int out[2], go[2];

	t_check(!pipe2(out, O_CLOEXEC) && !pipe2(go, O_CLOEXEC), "pipe");
	o->pid = t_fork();
	if (!o->pid)
		be_other(dma, out[1], go[0]);
	close(out[1]);
	close(go[0]);
	t_check(read(out[0], &o->s, sizeof(o->s)) == sizeof(o->s), "the other process");
	close(out[0]);
	o->go = go[1];
	o->s.dma = dma;
}

static int copy_out(const struct other *o, u32 here, u8 *out, u32 space)
{
	memset(out, 0xee, LEN);
	return t_dma_copy(o->s.dma, place(here, out), place(space, o->s.p), LEN);
}

static void wait_count(int dma, u32 space, size_t offset, u64 least, const char *what)
{
	u64 end = t_deadline(2 * PROMPT_MS), value;
	struct mirror_dma_counts counts;

	for (;;) {
		t_dma_counts(dma, space, &counts);
		memcpy(&value, (u8 *)&counts + offset, sizeof(value));
		if (value >= least)
			return;
		t_check(t_now_ms() < end, "%s: %llu, not %llu", what, (unsigned long long)value,
			(unsigned long long)least);
		t_sleep_ms(5);
	}
}

#define wait_counts(dma, space, field, least)				\
	wait_count(dma, space, offsetof(struct mirror_dma_counts, field), least, #field)

/* ---- release ---- */

/* Errors from here on, for any access; what had begun has ended. */
static void expect_dead(const struct other *o, u32 here, u8 *out)
{
	struct mirror_dma_copy copy = {
		.src = (uintptr_t)o->s.p, .dst = (uintptr_t)out, .length = 64,
		.src_space = o->s.table, .dst_space = here,
	};
	struct mirror_dma_copy back = {
		.src = copy.dst, .dst = copy.src, .length = 64,
		.src_space = here, .dst_space = o->s.table,
	};
	u64 bytes;

	t_check(t_dma_do(o->s.dma, &copy, &bytes) == -ESRCH && !bytes, "read by its table");
	t_check(t_dma_do(o->s.dma, &back, &bytes) == -ESRCH && !bytes, "written by its table");
	copy.src_space = back.dst_space = o->s.plain;
	t_check(t_dma_do(o->s.dma, &copy, &bytes) == -ESRCH && !bytes, "read");
	t_check(t_dma_do(o->s.dma, &back, &bytes) == -ESRCH && !bytes, "written");
	copy.flags = back.flags = MIRROR_DMA_NOFAULT;
	t_check(t_dma_do(o->s.dma, &copy, &bytes) == -EAGAIN && !bytes, "read, NOFAULT");
	t_check(t_dma_do(o->s.dma, &back, &bytes) == -EAGAIN && !bytes, "written, NOFAULT");
}

/* release: once, for all there is, and nothing after it. */
static void released_once(const void *arg)
{
	const char *way = arg;
	u8 *out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	u32 here = t_dma_attach(dma);
	struct mirror_dma_counts counts;
	struct mirror_dma_call want;
	struct other o;

	start_other(&o, dma);
	t_check(!copy_out(&o, here, out, o.s.table) && t_matches(out, LEN, 1), "reading");
	forget_calls(&o.s, o.s.table);
	if (*way == 'k')
		kill(o.pid, SIGKILL);
	else
		t_check(write(o.go, way, 1) == 1, "telling");
	wait_counts(dma, o.s.table, released, 1);
	if (*way != 'x')
		t_check(t_wait_exit(o.pid, PROMPT_MS, &status), "the process stays");
	want = (struct mirror_dma_call){
		.start = (uintptr_t)o.s.map, .last = (uintptr_t)o.s.map + 2 * T_HUGE - 1,
		.call = MIRROR_DMA_CALL_RELEASE, .event = MIRROR_DMA_EVENT_RELEASE,
		.dropped = PAGES, .ret = 1,
	};
	expect_calls(&o.s, o.s.table, &want, 1);
	expect_dead(&o, here, out);
	t_dma_counts(dma, o.s.table, &counts);
	t_check(counts.released == 1 && !counts.early && !counts.gone,
		"released %llu times, %llu early, %llu gone", (unsigned long long)counts.released,
		(unsigned long long)counts.early, (unsigned long long)counts.gone);
	/* which says so itself if it calls release again */
	t_dma_detach(dma, o.s.table);
}

/* While copies of a killed process's memory run, and its table is used. */
static void released_under_fire(const void *arg)
{
	u8 *out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status, i;
	u32 here = t_dma_attach(dma);
	struct mirror_dma_done done;
	struct mirror_dma_counts counts;
	unsigned int ended = 0;
	struct other o;

	start_other(&o, dma);
	t_check(!copy_out(&o, here, out, o.s.table), "reading");
	for (i = 0; i < 200; i++) {
		struct mirror_dma_copy copy = {
			.src = (uintptr_t)o.s.p, .dst = (uintptr_t)out, .length = LEN,
			.src_space = i % 4 ? o.s.table : o.s.plain, .dst_space = here,
			.hold_us = 200,
		};

		t_check(!t_dma_submit(dma, &copy), "submit");
		if (i == 100)
			kill(o.pid, SIGKILL);
	}
	for (i = 0; i < 200; i++) {
		t_check(t_dma_read(dma, T_WAIT_MS, &done), "copy %d does not end", i);
		t_check(!done.status || done.status == -ESRCH, "status %d", done.status);
		ended += !done.status;
	}
	t_diag("%u of 200 copies were before the end", ended);
	t_check(t_wait_exit(o.pid, PROMPT_MS, &status), "the process stays");
	wait_counts(dma, o.s.table, released, 1);
	expect_dead(&o, here, out);
	t_dma_counts(dma, o.s.table, &counts);
	t_check(counts.released == 1 && !counts.gone, "released %llu times, %llu gone",
		(unsigned long long)counts.released, (unsigned long long)counts.gone);
}

/* Unsubscribed by one, and ended by the exit of its process: either waits for the other. */
static void detached_and_killed(const void *arg)
{
	u8 *out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int dma = t_dma_open(), status;
	u32 here = t_dma_attach(dma);
	long mirrors = t_stat("mirrors");
	struct detacher d;
	struct other o;

	start_other(&o, dma);
	t_check(!copy_out(&o, here, out, o.s.table) && t_matches(out, LEN, 1), "reading");
	if (arg) {
		delay("end_to_release", 300);
		kill(o.pid, SIGKILL);
		t_sleep_ms(50);
		t_dma_detach(dma, o.s.table);
	} else {
		start_detach(&d, dma, o.s.table, 300);
		kill(o.pid, SIGKILL);
		pthread_join(d.thread, NULL);
	}
	delay("end_to_release", 0);
	t_check(t_wait_exit(o.pid, PROMPT_MS, &status), "the process stays");
	t_dma_detach(dma, o.s.plain);
	t_check(t_stat_wait("mirrors", mirrors, PROMPT_MS), "a mirror is left");
}

/* ---- the bug: an invalidate that does not ---- */

static void failed_invalidate(const void *arg)
{
	struct mirror_dma_call want[2];
	struct mirror_dma_counts counts;
	struct t_expected warning;
	struct scene s;
	unsigned int n;
	u32 other;
	int i;

	open_scene(&s);
	other = t_dma_attach_all(s.dma);
	for (i = 0; i < 2; i++) {
		u32 space = i ? other : s.table;

		establish(&s, other, i ? 2 : 1);
		if (!i)
			establish(&s, s.table, 1);
		forget_calls(&s, space);
		t_dma_set(s.dma, space, MIRROR_DMA_SET_FAIL, 1);
		if (!i)
			t_log_expect(&warning, "did not invalidate, its subscription ends");
		discard(s.p, T_PAGE);
		want[0] = invalidate_of(s.p, T_PAGE, MIRROR_DMA_EVENT_CLEAR, 0);
		want[0].ret = 0;
		want[1] = (struct mirror_dma_call){
			.start = i ? 0 : (uintptr_t)s.map,
			.last = i ? ~0ULL : (uintptr_t)s.map + 2 * T_HUGE - 1,
			.call = MIRROR_DMA_CALL_RELEASE, .event = MIRROR_DMA_EVENT_RELEASE,
			.dropped = PAGES, .ret = 1,
		};
		expect_calls(&s, space, want, 2);
		t_check(read_by(&s, space, s.p, T_PAGE) == -ESRCH, "it goes on");
		t_dma_counts(s.dma, space, &counts);
		t_check(counts.released == 1 && !counts.gone, "released %llu times, %llu gone",
			(unsigned long long)counts.released, (unsigned long long)counts.gone);
		/* everybody else is as before */
		t_check(!read_by(&s, i ? s.plain : other, s.p, T_PAGE) &&
			t_all_zero(s.out, T_PAGE), "the others");
		t_fill(s.p, LEN, 2 + i);
	}
	/* nothing more comes, nor at the end */
	discard(s.p, LEN);
	expect_calls(&s, s.table, NULL, 0);
	expect_calls(&s, other, NULL, 0);
	t_dma_detach(s.dma, s.table);
	t_dma_detach(s.dma, other);
	n = t_log_expected(&warning);
	t_check(n == 1, "%u warnings", n);
}

/* ---- refusal: the OOM reaper ---- */

/*
 * It comes 2 s after a process was killed that still has its memory. The other has,
 * since somebody reads it into a page that does not come.
 */
struct reader {
	pthread_t thread;
	pid_t pid;
	void *from;
	u8 *to;
	int uffd;
	u64 address;
};

static void *read_slowly(void *arg)
{
	struct reader *r = arg;
	struct iovec local = { r->to, 64 }, remote = { r->from, 64 };

	process_vm_readv(r->pid, &local, 1, &remote, 1, 0);
	return NULL;
}

static void keep_memory(struct reader *r, const struct other *o)
{
	r->pid = o->pid;
	r->from = (void *)(uintptr_t)&t_main;
	r->to = t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	r->uffd = t_uffd_open();
	t_uffd_watch(r->uffd, r->to, T_PAGE);
	t_check(!pthread_create(&r->thread, NULL, read_slowly, r), "thread");
	t_check(t_uffd_wait(r->uffd, PROMPT_MS, &r->address), "the reader does not wait");
}

static void give_memory_up(struct reader *r)
{
	static u8 page[T_PAGE];

	t_uffd_serve(r->uffd, r->address, page);
	pthread_join(r->thread, NULL);
	close(r->uffd);
}

static void kill_for_memory(const struct other *o)
{
	int status;

	t_check(t_write_file("/proc/sysrq-trigger", "f"), "no sysrq");
	t_check(t_wait_exit(o->pid, PROMPT_MS, &status) && WIFSIGNALED(status),
		"the process was not killed");
}

struct oom {
	int dma;
	u32 here;
	u8 *out;
	struct other o;
	struct reader reader;
};

static void open_oom(struct oom *m)
{
	m->out = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	m->dma = t_dma_open();
	m->here = t_dma_attach(m->dma);
	start_other(&m->o, m->dma);
	keep_memory(&m->reader, &m->o);
	t_check(!copy_out(&m->o, m->here, m->out, m->o.s.table) && t_matches(m->out, LEN, 1),
		"reading");
	forget_calls(&m->o.s, m->o.s.table);
}

static void close_oom(struct oom *m)
{
	struct mirror_dma_counts counts;

	give_memory_up(&m->reader);
	wait_counts(m->dma, m->o.s.table, released, 1);
	t_dma_counts(m->dma, m->o.s.table, &counts);
	t_check(counts.released == 1 && !counts.gone, "released %llu times, %llu gone",
		(unsigned long long)counts.released, (unsigned long long)counts.gone);
	expect_dead(&m->o, m->here, m->out);
	t_dma_detach(m->dma, m->o.s.table);
}

/* Nobody uses the pages: they are given up, without waiting, and are gone. */
static void reaped(const void *arg)
{
	struct mirror_dma_counts counts;
	struct oom m;
	int status;

	open_oom(&m);
	kill_for_memory(&m.o);
	wait_counts(m.dma, m.o.s.table, invalidated, PAGES);
	t_dma_counts(m.dma, m.o.s.table, &counts);
	t_check(counts.try_invalidate == 2 && !counts.refused,
		"%llu calls of try_invalidate for 2 leaves, %llu refused",
		(unsigned long long)counts.try_invalidate, (unsigned long long)counts.refused);
	t_check(!counts.invalidate[MIRROR_DMA_EVENT_UNMAP], "it was told where it may sleep");
	promises_kept(m.dma, m.o.s.table);
	/* what is read where the reaper was is no memory, whoever finds that out first */
	status = copy_out(&m.o, m.here, m.out, m.o.s.table);
	t_check(status == -EFAULT || status == -ESRCH, "status %d: pages are left", status);
	close_oom(&m);
}

/*
 * The first leaf refuses: its pages stay, as they are, and are of use. It is announced
 * again before it is forgotten, where it can wait.
 */
static void refused(const void *arg)
{
	struct mirror_dma_counts counts;
	struct mirror_dma_calls calls;
	struct mirror_dma_call want;
	struct oom m;
	int status;
	u32 i;

	open_oom(&m);
	t_dma_set(m.dma, m.o.s.table, MIRROR_DMA_SET_REFUSE, 1);
	kill_for_memory(&m.o);
	wait_counts(m.dma, m.o.s.table, refused, 1);
	status = copy_out(&m.o, m.here, m.out, m.o.s.table);
	/* it may have been announced again by now, and reaped */
	t_diag("copied with status %d", status);
	t_check(status == -EFAULT || status == -ESRCH || (!status && t_matches(m.out, LEN, 1)),
		"status %d of pages that were refused", status);
	wait_counts(m.dma, m.o.s.table, invalidate[MIRROR_DMA_EVENT_CLEAR], 1);
	t_dma_counts(m.dma, m.o.s.table, &counts);
	t_diag("refused %llu times", (unsigned long long)counts.refused);
	t_dma_calls(m.dma, m.o.s.table, &calls);
	want = invalidate_of(m.o.s.map, T_HUGE, MIRROR_DMA_EVENT_CLEAR, PAGES / 2);
	for (i = 0; i < calls.nr && !same_call(&calls.calls[i], &want); i++)
		t_check(calls.calls[i].call == MIRROR_DMA_CALL_TRY_INVALIDATE &&
			!calls.calls[i].ret && !calls.calls[i].dropped, "call %u", i);
	t_check(i && i < calls.nr, "it was refused, and not announced again");
	close_oom(&m);
}

/*
 * Copies are under way through the table, at both of their ends, so that there is
 * always one: try_invalidate refuses by itself. False if the reaper met none.
 */
static bool try_in_use(struct oom *m)
{
	struct mirror_dma_copy copy = {
		.src = (uintptr_t)m->o.s.p, .dst = (uintptr_t)m->o.s.p + T_PAGE, .length = 64,
		.src_space = m->o.s.table, .dst_space = m->o.s.table, .hold_us = HOLD_US / 2,
	};
	struct mirror_dma_counts counts = { 0 };
	struct mirror_dma_done done;
	unsigned int under_way = 0;
	u64 end = t_deadline(2 * PROMPT_MS);

	while (!counts.try_invalidate) {
		for (; under_way < 5; under_way++)
			t_check(!t_dma_submit(m->dma, &copy), "submit");
		t_check(t_dma_read(m->dma, T_WAIT_MS, &done), "a copy does not end");
		under_way--;
		/* until then the pages are there */
		t_dma_counts(m->dma, m->o.s.table, &counts);
		t_check(counts.try_invalidate || !done.status, "status %d", done.status);
		t_check(t_now_ms() < end, "the reaper does not come");
	}
	while (under_way--)
		t_check(t_dma_read(m->dma, T_WAIT_MS, &done), "a copy does not end");
	return counts.refused;
}

static void refused_in_flight(const void *arg)
{
	struct oom m;
	bool hit;
	int i;

	for (i = 0; i < TRIES; i++) {
		open_oom(&m);
		t_check(!t_dma_copy(m.dma, place(m.o.s.table, m.o.s.p + T_PAGE),
				    place(m.o.s.table, m.o.s.p), 64), "copy");
		kill_for_memory(&m.o);
		hit = try_in_use(&m);
		/* now nothing is in the way of who tries again, or announces it again */
		wait_counts(m.dma, m.o.s.table, invalidated, PAGES);
		promises_kept(m.dma, m.o.s.table);
		close_oom(&m);
		close(m.dma);
		if (hit)
			return;
	}
	t_check(false, "the reaper was not refused");
}

static const struct change unmaps = { OP_UNMAP, MIRROR_DMA_EVENT_UNMAP };
static const struct change discards = { OP_DISCARD, MIRROR_DMA_EVENT_CLEAR };
static const struct change protects = { OP_PROTECT, MIRROR_DMA_EVENT_PROTECTION_VMA };
static const struct change forks = { OP_FORK, MIRROR_DMA_EVENT_PROTECTION_PAGE };

static const struct staleness by_unmap = { stale_unmap };
static const struct staleness by_discard = { stale_discard };
static const struct staleness by_fork = { stale_fork };
static const struct staleness by_protect = { stale_protect };
static const struct staleness by_move = { stale_move };

static const struct t_case cases[] = {
	{ "pieces: munmap of two leaves", T_DMA, one_call_per_leaf, &unmaps },
	{ "pieces: MADV_DONTNEED of two leaves", T_DMA, one_call_per_leaf, &discards },
	{ "pieces: mprotect of two leaves", T_DMA, one_call_per_leaf, &protects },
	{ "pieces: fork, two leaves", T_DMA, one_call_per_leaf, &forks },
	{ "pieces: none where nothing was established", T_DMA, no_leaf_no_call, NULL },
	{ "pieces: none outside of the range", T_DMA, outside_of_range, NULL },
	{ "pieces: overlapping ranges", T_DMA, overlapping, NULL },
	{ "pieces: several engines", T_DMA, several_engines, NULL },
	{ "pieces: the whole address space", T_DMA, whole_address_space, NULL },
	{ "order: a copy by the table is waited for", T_DMA, waits_for_copy, NULL },
	{ "order: what is being entered is found", T_DMA, entered_while_announced, NULL },
	{ "order: a leaf that goes does not speak for the next", T_DMA, leaf_that_goes, NULL },
	{ "order: after the fence, before the page goes", T_DMA, promises_under_fire, NULL },
	{ "establish: nothing while invalidate sleeps", T_DMA, sleeping_callback, NULL },
	{ "two at once", T_DMA, two_at_once, NULL },
	{ "an incomplete table", T_DMA, incomplete, NULL },
	{ "never stale: munmap", T_DMA, never_stale, &by_unmap },
	{ "never stale: MADV_DONTNEED", T_DMA, never_stale, &by_discard },
	{ "never stale: fork and copy on write", T_DMA, never_stale, &by_fork },
	{ "never stale: mprotect", T_DMA, never_stale, &by_protect },
	{ "never stale: mremap", T_DMA, never_stale, &by_move },
	{ "release: exit", T_DMA, released_once, "e" },
	{ "release: exec", T_DMA, released_once, "x" },
	{ "release: kill -9", T_DMA, released_once, "k" },
	{ "release: kill -9 while copies run", T_DMA, released_under_fire, NULL },
	{ "release: detach while calls run", T_DMA, detach_under_fire, NULL },
	{ "release: detach, and discarded at once", T_DMA, detached_and_discarded, NULL },
	{ "release: detach, and killed at once", T_DMA, detached_and_killed, NULL },
	{ "release: killed, and detach at once", T_DMA, detached_and_killed, "killed" },
	{ "release: an invalidate that fails", T_DMA, failed_invalidate, NULL },
	{ "refusal: none, what is not in use is reaped", T_DMA, reaped, NULL },
	{ "refusal: announced again", T_DMA, refused, NULL },
	{ "refusal: by a copy under way", T_DMA, refused_in_flight, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
