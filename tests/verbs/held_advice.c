// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Advice, with the windows of its faults held open by the delay points of a debug
 * build: what an access needs goes before what is only advised; a region that goes
 * while a step is in a window; and pages that change under a prefetch.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "t.h"

#define LEN		(64 * T_PAGE)
#define HOLD_US		300000
#define PROMPT_MS	5000
#define MANY		32
#define SYNC		IBV_ADVISE_MR_FLAG_FLUSH

static void open_region(struct t_region *r)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	t_check(!madvise(p, LEN, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE: %s", strerror(errno));
	t_region_open(r, p, LEN);
}

static int advise(struct t_region *r, enum ibv_advise_mr_advice advice, u32 flags, size_t off,
		  size_t len)
{
	struct ibv_sge sge = t_sge(&r->buf, off, len);

	return ibv_advise_mr(r->pair.dev.pd, advice, flags, &sge, 1);
}

static void hold(const char *point, unsigned long us)
{
	t_check(t_delay_set(point, us), "no delay point %s", point);
}

/*
 * Each page fault takes as long as the delay. By the time of the access, MANY pages
 * have been advised, one by one; four at a time are worked on.
 */
static void needed_first(const void *arg)
{
	struct t_region r;
	size_t i, present = 0;
	int err;

	(void)arg;
	open_region(&r);
	hold("fault_to_install", HOLD_US);
	for (i = 0; i < MANY; i++) {
		err = advise(&r, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0, i * T_PAGE, T_PAGE);
		t_check(!err, "advice: %s", strerror(err));
	}
	t_region_write(&r, LEN - T_PAGE, T_PAGE);
	for (i = 0; i < MANY; i++)
		present += t_page_present(r.buf.p + i * T_PAGE);
	hold("fault_to_install", 0);
	t_check(present < MANY, "all advice was followed before the access had its page");
	t_region_exchange(&r, 0, LEN);
}

struct waiter {
	struct t_region *r;
	enum ibv_advise_mr_advice advice;
	pthread_t thread;
	int err;
};

static void *wait_for_advice(void *arg)
{
	struct waiter *w = arg;

	w->err = advise(w->r, w->advice, SYNC, 0, LEN);
	return NULL;
}

static void start_waiter(struct waiter *w, struct t_region *r, enum ibv_advise_mr_advice advice)
{
	w->r = r;
	w->advice = advice;
	if (pthread_create(&w->thread, NULL, wait_for_advice, w))
		t_die("pthread_create");
}

/* @arg: the delay point that the step is at when the region goes. */
static void dereg_in_window(const void *arg)
{
	struct t_region r;
	struct waiter w;
	u64 begin;
	int i;

	open_region(&r);
	for (i = 0; i < 4; i++) {
		hold(arg, HOLD_US);
		start_waiter(&w, &r, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE);
		t_sleep_ms(30 + 60 * i);
		begin = t_now_ms();
		t_dereg(&r.buf);
		t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "dereg took %llu ms",
			(unsigned long long)(t_now_ms() - begin));
		pthread_join(w.thread, NULL);
		t_check(!w.err || w.err == ECANCELED || w.err == ENOENT, "advice: %s",
			strerror(w.err));
		hold(arg, 0);
		t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "the fault goes on");
		madvise(r.buf.p, LEN, MADV_DONTNEED);
		t_reg(&r.buf, &r.pair.dev);
	}
	t_region_exchange(&r, 0, LEN);
}

/* The pages that the step has seen are replaced before it makes translations of them. */
static bool replaced(const void *arg, unsigned int start_ms)
{
	const enum ibv_advise_mr_advice *advice = arg;
	long retries = t_stat("fault_retries");
	struct t_region r;
	struct waiter w;
	bool hit;

	open_region(&r);
	t_fill_buf(&r.buf, 3);
	hold("fault_to_install", HOLD_US / 2);
	start_waiter(&w, &r, *advice);
	t_sleep_ms(start_ms);
	t_check(!madvise(r.buf.p, LEN, MADV_DONTNEED), "MADV_DONTNEED: %s", strerror(errno));
	t_fill_buf(&r.buf, 4);
	hold("fault_to_install", 0);
	pthread_join(w.thread, NULL);
	t_check(!w.err, "advice: %s", strerror(w.err));
	hit = t_stat("fault_retries") > retries;
	t_region_read(&r, 0, LEN, 4);
	t_dereg(&r.buf);
	return hit;
}

static void pages_replaced(const void *arg)
{
	t_until_hit(replaced, arg);
}

static const struct t_case cases[] = {
	{ "what is needed goes before what is advised", T_ODP, needed_first, NULL },
	{ "dereg before a step is installed", T_ODP, dereg_in_window, "fault_to_install" },
	{ "dereg before a step is told to be done", T_ODP, dereg_in_window, "done_to_call" },
	{ "pages replaced under a prefetch", T_ODP, pages_replaced,
	  &(const enum ibv_advise_mr_advice) { IBV_ADVISE_MR_ADVICE_PREFETCH } },
	{ "pages replaced under one that faults nothing", T_ODP, pages_replaced,
	  &(const enum ibv_advise_mr_advice) { IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT } },
};

int main(int argc, char **argv)
{
	t_under_libunpin(argv);
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
