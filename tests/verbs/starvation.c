// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A thread takes the pages away in a loop, and each fault is held between its look
 * and its install, so that it loses every race: transfers come to an end all the
 * same, with the right bytes. The memory is a shared file's, where a discarded page
 * keeps what was written to it. Needs a debug build.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "t.h"

#define LEN		(2 * T_PAGE)
#define HELD_MAX_US	200000UL
#define HELD_US		20000UL	/* the thread is round hundreds of times meanwhile */

struct thief {
	pthread_t thread;
	volatile u8 *p;
	size_t len;
	bool stop;
};

static void *steal(void *arg)
{
	struct thief *thief = arg;

	while (!__atomic_load_n(&thief->stop, __ATOMIC_RELAXED)) {
		(void)thief->p[0];
		(void)thief->p[T_PAGE];
		madvise((void *)thief->p, thief->len, MADV_DONTNEED);
	}
	return NULL;
}

static void thief_start(struct thief *thief, void *p, size_t len, unsigned long held_us)
{
	*thief = (struct thief){ .p = p, .len = len };
	t_check(t_delay_set("fault_to_install", held_us), "this test wants a debug build");
	t_check(!pthread_create(&thief->thread, NULL, steal, thief), "thread");
}

static void thief_stop(struct thief *thief)
{
	__atomic_store_n(&thief->stop, true, __ATOMIC_RELAXED);
	pthread_join(thief->thread, NULL);
	t_delay_set("fault_to_install", 0);
}

static void open_shared(struct t_region *r)
{
	int fd = t_memfd("stolen", LEN, 0);

	t_region_open(r, t_map(LEN, MAP_SHARED, fd), LEN);
	t_fill_buf(&r->buf, 40);
}

/*
 * Runs one transfer against the thief until it can only have come through a grant. On
 * a busy machine the thief may sleep for longer than a fault is held.
 */
static void against_thief(void (*transfer)(struct t_region *r))
{
	struct t_region r;
	struct thief thief;
	long grants = t_stat("grants");
	unsigned long held_us;

	open_shared(&r);
	for (held_us = HELD_US; held_us <= HELD_MAX_US; held_us *= 3) {
		thief_start(&thief, r.buf.p, LEN, held_us);
		transfer(&r);
		thief_stop(&thief);
		if (t_stat("grants") > grants)
			break;
	}
	t_check(t_stat("grants") > grants, "no page was granted: nothing was lost");
}

static void write_to(struct t_region *r)
{
	t_fill_buf(&r->scratch, 41);
	t_expect(t_write(&r->pair.a, &r->scratch, 0, &r->buf, 0, LEN), IBV_WC_SUCCESS,
		 "WRITE");
	t_check(t_matches(r->buf.p, LEN, 41), "the bytes written are not there");
}

static void read_from(struct t_region *r)
{
	t_expect(t_read(&r->pair.a, &r->scratch, 0, &r->buf, 0, LEN), IBV_WC_SUCCESS, "READ");
	t_check(t_matches(r->scratch.p, LEN, 40), "other bytes were read");
}

static void send_from(struct t_region *r)
{
	t_expect(t_write(&r->pair.a, &r->buf, 0, &r->scratch, 0, LEN), IBV_WC_SUCCESS,
		 "WRITE out of the region");
	t_check(t_matches(r->scratch.p, LEN, 40), "other bytes were sent");
}

static void read_into(struct t_region *r)
{
	t_fill_buf(&r->scratch, 42);
	t_expect(t_read(&r->pair.a, &r->buf, 0, &r->scratch, 0, LEN), IBV_WC_SUCCESS,
		 "READ into the region");
	t_check(t_matches(r->buf.p, LEN, 42), "the bytes read are not there");
}

static void add_to(struct t_region *r)
{
	u64 before, after;

	memcpy(&before, r->buf.p, sizeof(before));
	t_expect(t_fadd(&r->pair.a, &r->scratch, 0, &r->buf, 0, 7), IBV_WC_SUCCESS,
		 "FETCH_ADD");
	memcpy(&after, r->buf.p, sizeof(after));
	t_check(after == before + 7, "added %lld times", (long long)(after - before) / 7);
	memcpy(&after, r->scratch.p, sizeof(after));
	t_check(after == before, "the addition returned another value");
}

static void receive_into(struct t_region *r)
{
	struct ibv_wc wc;

	t_fill_buf(&r->scratch, 43);
	t_post_recv(&r->pair.b, &r->buf, 0, LEN);
	t_expect(t_send(&r->pair.a, &r->scratch, 0, LEN), IBV_WC_SUCCESS, "SEND");
	t_expect(t_wait(&r->pair.b, &wc), IBV_WC_SUCCESS, "receive");
	t_check(t_matches(r->buf.p, LEN, 43), "the bytes received are not there");
}

/*
 * hugetlb pages are not granted. So there is a chance for each fault, and no more: it
 * must end each time, and one of them wins.
 */
static void huge_pages(const void *arg)
{
	int fd = t_memfd("stolen huge", T_HUGE, MFD_HUGETLB);
	struct t_region r;
	struct thief thief;
	int i;

	(void)arg;
	t_region_open(&r, t_map(T_HUGE, MAP_SHARED, fd), T_HUGE);
	thief_start(&thief, r.buf.p, T_HUGE, 0);
	for (i = 0; i < 20; i++) {
		r.round = 40 + i;
		t_region_write(&r, 0, LEN);
	}
	thief_stop(&thief);
	t_region_cpu_holds(&r, 0, LEN, r.round);
}

static void run(const void *arg)
{
	void (*const *transfer)(struct t_region *r) = arg;

	against_thief(*transfer);
}

static void (*const transfers[])(struct t_region *r) = {
	write_to, read_from, add_to, receive_into, send_from, read_into,
};

static const struct t_case cases[] = {
	{ "WRITE", T_ODP, run, &transfers[0] },
	{ "READ", T_ODP, run, &transfers[1] },
	{ "atomic", T_ODP, run, &transfers[2] },
	{ "receive", T_ODP, run, &transfers[3] },
	{ "WRITE out of it", T_ODP, run, &transfers[4] },
	{ "READ into it", T_ODP, run, &transfers[5] },
	{ "huge pages", T_ODP, huge_pages, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
