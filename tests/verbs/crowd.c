// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Several queue pairs write to one page without a pause, each copy taking a while
 * (a delay between take and drop), and the page is replaced under them: an
 * invalidation must not be starved by those who come after it, and once it has
 * returned nobody writes to the old page. Needs a debug build.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define STREAMS		3
#define HELD_US		5000UL
#define ROUNDS		12
#define PROMPT_MS	5000

struct stream {
	struct t_region region;
	pthread_t thread;
	bool stop;
	unsigned int failed;
};

static void *stream(void *arg)
{
	struct stream *s = arg;
	u64 round = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		t_fill_buf(&s->region.scratch, ++round % 250);
		if (t_write(&s->region.pair.a, &s->region.scratch, 0, &s->region.buf, 0,
			    T_PAGE) != IBV_WC_SUCCESS)
			s->failed++;
	}
	return NULL;
}

static void streams_start(struct stream *s, void *p)
{
	int i;

	for (i = 0; i < STREAMS; i++) {
		t_region_open(&s[i].region, p, T_PAGE);
		t_check(!pthread_create(&s[i].thread, NULL, stream, &s[i]), "thread");
	}
}

static void streams_stop(struct stream *s)
{
	int i;

	for (i = 0; i < STREAMS; i++)
		__atomic_store_n(&s[i].stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < STREAMS; i++) {
		pthread_join(s[i].thread, NULL);
		t_check(!s[i].failed, "%u writes failed", s[i].failed);
	}
}

/* The old page as it was when the call returned must be as it is for ever. */
static void replaced(u8 *p, int fd, int old_fd)
{
	u8 *old = t_map(T_PAGE, MAP_SHARED, old_fd);
	u64 begin = t_now_ms();
	u8 then[T_PAGE];

	t_check(mmap(p, T_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == p,
		"mmap");
	memcpy(then, old, T_PAGE);
	t_check(t_now_ms() - begin < t_patience(PROMPT_MS), "replacing the page took %lld ms",
		(long long)(t_now_ms() - begin));
	t_sleep_ms(50);
	t_check(!memcmp(then, old, T_PAGE), "somebody wrote to a page that was gone");
	munmap(old, T_PAGE);
}

static void replace_under_crowd(const void *arg)
{
	static struct stream s[STREAMS];
	int i, fd, old_fd = t_memfd("crowded", T_PAGE, 0);
	u8 *p = t_map(T_PAGE, MAP_SHARED, old_fd);

	(void)arg;
	t_check(t_delay_set("take_to_drop", HELD_US), "this test wants a debug build");
	streams_start(s, p);
	for (i = 0; i < ROUNDS; i++) {
		t_sleep_ms(100);
		fd = t_memfd("crowded", T_PAGE, 0);
		replaced(p, fd, old_fd);
		close(old_fd);
		old_fd = fd;
	}
	streams_stop(s);
	t_delay_set("take_to_drop", 0);
}

static const struct t_case cases[] = {
	{ "a page replaced under a crowd of writers", T_ODP, replace_under_crowd, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
