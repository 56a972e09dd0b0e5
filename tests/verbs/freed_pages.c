// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The one promise: no page is freed while a mirror maps it or somebody copies from
 * it or to it. A debug build keeps a book of both and looks at each page that is
 * freed (mm/oracle.c); here pages are freed in every way, at rest and while a copy
 * holds them, and nothing may be reported. That the book is kept at all is asked
 * first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define PAGES	4
#define LEN	(PAGES * T_PAGE)
#define AT	(T_PAGE + 8)
#define BYTES	64
#define HOLD_US	150000

#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* How the pages come to be freed. */
enum way { UNMAP, DISCARD, TRUNCATE, SWAP, COLLAPSE, HUGE };

static const char * const way_names[] = {
	"munmap", "MADV_DONTNEED", "truncate", "swap", "collapse", "a huge page",
};

struct memory {
	enum way way;
	struct t_region r;
	u8 *p;
	size_t len;
	int fd;
	long reports;
};

static void open_memory(struct memory *m, enum way way)
{
	memset(m, 0, sizeof(*m));
	m->way = way;
	m->reports = t_oracle("reports");
	t_check(m->reports >= 0, "no oracle: this test wants the debug build");
	m->len = way == COLLAPSE || way == HUGE ? T_HUGE : LEN;
	if (way == TRUNCATE) {
		m->fd = t_memfd("freed", m->len, 0);
		m->p = t_map(m->len, MAP_SHARED, m->fd);
	} else {
		m->p = m->len == LEN ? t_map(LEN, ANON, -1) : t_map_huge_aligned(T_HUGE);
		t_check(!madvise(m->p, m->len, way == HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE),
			"madvise: %s", strerror(errno));
	}
	t_fill(m->p, m->len, 1);
	t_drain_lru();
	t_region_open(&m->r, m->p, m->len);
	t_region_write(&m->r, 0, LEN);
}

static void free_pages(struct memory *m)
{
	int err = 0;

	switch (m->way) {
	case UNMAP:
		err = munmap(m->p, m->len);
		break;
	case DISCARD:
	case HUGE:
		err = madvise(m->p, m->len, MADV_DONTNEED);
		break;
	case TRUNCATE:
		err = ftruncate(m->fd, 0);
		break;
	case SWAP:
		t_check(t_pageout(m->p, m->len), "the pages were not swapped out");
		break;
	case COLLAPSE:
		t_check(!madvise(m->p, m->len, MADV_HUGEPAGE), "MADV_HUGEPAGE");
		err = madvise(m->p, m->len, MADV_COLLAPSE);
		break;
	}
	t_check(!err, "%s: %s", way_names[m->way], strerror(errno));
}

static void post_write(struct memory *m)
{
	struct ibv_sge sge = t_sge(&m->r.scratch, 0, BYTES);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
		.raddr = m->r.buf.iova + AT, .rkey = m->r.buf.mr->rkey,
	};

	t_fill_at(m->r.scratch.p, BYTES, AT, 2);
	t_check(!t_post(&m->r.pair.a, &op, NULL), "posting");
}

static void close_memory(struct memory *m)
{
	t_pair_reconnect(&m->r.pair);
	t_dereg(&m->r.buf);
	t_buf_free(&m->r.scratch);
	t_pair_close(&m->r.pair);
	munmap(m->p, m->len);
}

static void nothing_reported(const struct memory *m)
{
	t_check(t_oracle("reports") == m->reports,
		"a page was freed while it was mapped or held: see the kernel log");
}

/* How many words map pages, when what earlier cases have left is gone. */
static long mapped_before(void)
{
	t_check(t_stat_wait("mirrors", 0, 10000), "mirrors are left");
	return t_oracle("mapped");
}

/* ---- the book ---- */

static void keeps_book(const void *arg)
{
	long mapped = mapped_before(), seen;
	struct memory m;

	open_memory(&m, DISCARD);
	t_check(t_oracle("mapped") >= mapped + PAGES, "%ld words map pages, %ld before",
		t_oracle("mapped"), mapped);
	seen = t_oracle("seen");
	free_pages(&m);
	nothing_reported(&m);
	t_check(t_oracle("mapped") == mapped, "%ld words map pages, %ld before",
		t_oracle("mapped"), mapped);
	t_check(t_oracle("seen") >= seen + PAGES, "the freed pages were not seen");
	t_check(!t_oracle("held"), "somebody holds a page");
}

static void counts_huge_page(const void *arg)
{
	long mapped = mapped_before();
	struct memory m;

	open_memory(&m, HUGE);
	t_check(t_huge_bytes(m.p) == T_HUGE, "no huge page");
	t_check(t_oracle("mapped") >= mapped + 512, "a huge word does not map 512 pages");
	free_pages(&m);
	nothing_reported(&m);
	t_check(t_oracle("mapped") == mapped, "%ld words map pages, %ld before",
		t_oracle("mapped"), mapped);
}

/* One hold may pass unseen, if the host lets this task wait so long. */
static void counts_holder(const void *arg)
{
	struct memory m;
	struct ibv_wc wc;
	u64 end;

	open_memory(&m, DISCARD);
	t_delay_set("take_to_drop", HOLD_US);
	end = t_deadline(10000);
	post_write(&m);
	while (!t_oracle("held")) {
		t_check(t_now_ms() < end, "the copy holds nothing");
		if (t_poll(&m.r.pair.a, &wc, 0))
			post_write(&m);
	}
	t_delay_set("take_to_drop", 0);
	end = t_deadline(10000);
	while (t_oracle("held"))
		t_check(t_now_ms() < end, "the hold does not end");
}

/* ---- freed at rest ---- */

static void at_rest(const void *arg)
{
	struct memory m;
	long seen;

	open_memory(&m, *(const enum way *)arg);
	seen = t_oracle("seen");
	free_pages(&m);
	t_drain_lru();
	nothing_reported(&m);
	/* what goes to swap is freed some time after it has been written */
	t_check(m.way == SWAP || t_oracle("seen") >= seen + (m.way == HUGE ? 1 : PAGES),
		"the pages were not freed");
}

/* ---- freed while a copy has a page ---- */

/*
 * Somebody held a page before the memory was freed. Either that was waited for, or he
 * holds it still, when only the oracle knows that something is wrong.
 */
static bool was_held(bool before, long waits)
{
	return before && (t_stat("fence_waits") > waits || t_oracle("held"));
}

static bool try_held(const void *arg, unsigned int start_ms)
{
	enum way way = *(const enum way *)arg;
	long waits = t_stat("fence_waits");
	struct memory m;
	bool held, hit;
	struct ibv_wc wc;

	open_memory(&m, way);
	/* long enough for a task that the kernel leaves on the holder's CPU for a while */
	t_delay_set("take_to_drop", 3 * HOLD_US);
	post_write(&m);
	t_sleep_ms(start_ms);
	held = t_oracle("held");
	free_pages(&m);
	hit = was_held(held, waits);
	nothing_reported(&m);
	t_check(t_wait(&m.r.pair.a, &wc) != T_TIMED_OUT, "the transfer does not end");
	t_delay_set("take_to_drop", 0);
	nothing_reported(&m);
	close_memory(&m);
	return hit;
}

static void while_held(const void *arg)
{
	t_until_hit(try_held, arg);
}

/* ---- freed by one of two that take it away at once ---- */

static void *discard(void *arg)
{
	free_pages(arg);
	return NULL;
}

/*
 * Both wait for the holder. One removes the word, and dawdles before it tells the
 * page; the other must not return, and free the page, before that.
 */
static bool try_two(const void *arg, unsigned int start_ms)
{
	enum way way = *(const enum way *)arg;
	long waits = t_stat("fence_waits");
	struct memory m;
	bool held, hit;
	struct ibv_wc wc;
	pthread_t other;

	open_memory(&m, way);
	t_delay_set("take_to_drop", 3 * HOLD_US);
	/* for each word that nobody holds, too: the hold must last longer */
	t_delay_set("zap_to_tell", HOLD_US / 5);
	post_write(&m);
	t_sleep_ms(start_ms);
	held = t_oracle("held");
	t_check(!pthread_create(&other, NULL, discard, &m), "thread");
	free_pages(&m);
	pthread_join(other, NULL);
	hit = was_held(held, waits + 1);
	t_check(t_wait(&m.r.pair.a, &wc) != T_TIMED_OUT, "the transfer does not end");
	t_delay_set("take_to_drop", 0);
	t_delay_set("zap_to_tell", 0);
	nothing_reported(&m);
	close_memory(&m);
	return hit;
}

static void by_two(const void *arg)
{
	t_until_hit(try_two, arg);
}

/* ---- freed by the end of the process ---- */

static void by_exit(const void *arg)
{
	long mapped = mapped_before(), reports = t_oracle("reports");
	struct memory m;
	int status;
	pid_t pid;
	u64 end;

	pid = t_fork();
	if (!pid) {
		open_memory(&m, UNMAP);
		kill(getpid(), SIGKILL);
	}
	t_check(t_wait_exit(pid, 20000, &status), "the killed process stays");
	end = t_deadline(5000);
	while (t_oracle("mapped") != mapped)
		t_check(t_now_ms() < end, "%ld words map pages, %ld before",
			t_oracle("mapped"), mapped);
	t_check(t_oracle("reports") == reports, "the dead process's pages were mapped");
}

static const enum way ways[] = { UNMAP, DISCARD, TRUNCATE, SWAP, COLLAPSE, HUGE };

static const struct t_case cases[] = {
	{ "the book is kept", T_ODP, keeps_book, NULL },
	{ "a huge page is in the book", T_ODP, counts_huge_page, NULL },
	{ "a holder is in the book", T_ODP, counts_holder, NULL },
	{ "at rest: munmap", T_ODP, at_rest, &ways[UNMAP] },
	{ "at rest: MADV_DONTNEED", T_ODP, at_rest, &ways[DISCARD] },
	{ "at rest: truncate", T_ODP, at_rest, &ways[TRUNCATE] },
	{ "at rest: swap", T_ODP, at_rest, &ways[SWAP] },
	{ "at rest: collapse", T_ODP, at_rest, &ways[COLLAPSE] },
	{ "at rest: a huge page", T_ODP, at_rest, &ways[HUGE] },
	{ "at rest: exit", T_ODP, by_exit, NULL },
	{ "while held: munmap", T_ODP, while_held, &ways[UNMAP] },
	{ "while held: MADV_DONTNEED", T_ODP, while_held, &ways[DISCARD] },
	{ "while held: truncate", T_ODP, while_held, &ways[TRUNCATE] },
	{ "while held: swap", T_ODP, while_held, &ways[SWAP] },
	{ "while held: collapse", T_ODP, while_held, &ways[COLLAPSE] },
	{ "while held: a huge page", T_ODP, while_held, &ways[HUGE] },
	{ "while held: MADV_DONTNEED twice at once", T_ODP, by_two, &ways[DISCARD] },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
