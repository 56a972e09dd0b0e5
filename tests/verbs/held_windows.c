// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The windows in which a missing protection does harm, held open by the delay
 * points of a debug build:
 *
 *	take_to_drop		a copy has the page and has not begun: whoever takes
 *				the page away must wait for it (the fence)
 *	fault_to_install	a fault has looked at the CPU's page table and has
 *				not made the translation: it must look again if
 *				something changed meanwhile (sequence and retry)
 *	mark_to_wait		an invalidation has marked what it found held: another
 *				one must not return before the holder is gone either
 *
 * Each case tries until the mirror's counters say that the window was hit, and
 * checks the bytes at every try.
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
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN	(4 * T_PAGE)
#define AT	(T_PAGE + 8)
#define BYTES	64
#define HOLD_US	120000

#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define RW	(PROT_READ | PROT_WRITE)

#define OLD	40
#define NEW	41

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* How the region takes part in the transfer that is in the window. */
enum part { WRITTEN, READ_FROM, ATOMIC, LOCAL_SOURCE, LOCAL_TARGET, RECEIVE };

/* What happens to the memory meanwhile. */
enum change {
	UNMAP, REPLACE, MOVE, PROTECT_NONE, PROTECT_READ, PUNCH, TRUNCATE,	/* of a file */
	DONTNEED, FORK, PAGEOUT, OFFLINE, COLLAPSE,			/* of anonymous */
};

struct arg {
	enum part part;
	enum change change;
	bool huge;
};

/* ---- the region and what shows its old pages ---- */

struct window {
	const struct arg *arg;
	struct t_region r;
	u8 *p;
	size_t len;
	int fd;
	int other_fd;
	u8 *old;		/* the file's pages through another mapping */
	u8 *other;
	int pipe[2];		/* the page at AT, twice */
	pid_t child;
	enum ibv_wc_status status;
};

static void ok(int err, const char *what)
{
	t_check(!err, "%s: %s", what, strerror(errno));
}

static void open_memory(struct window *w)
{
	const struct arg *a = w->arg;

	w->len = a->huge || a->change == COLLAPSE ? T_HUGE : LEN;
	if (a->change >= DONTNEED) {
		w->p = w->len == LEN ? t_map(LEN, ANON, -1) : t_map_huge_aligned(T_HUGE);
		ok(madvise(w->p, w->len, a->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), "madvise");
		return;
	}
	w->fd = t_memfd("old", w->len, 0);
	w->other_fd = t_memfd("other", w->len, 0);
	w->old = t_map(w->len, MAP_SHARED, w->fd);
	w->other = t_map(w->len, MAP_SHARED, w->other_fd);
	w->p = t_map(w->len, MAP_SHARED, w->fd);
}

static void open_window(struct window *w, const struct arg *a)
{
	memset(w, 0, sizeof(*w));
	w->arg = a;
	open_memory(w);
	t_fill(w->p, w->len, OLD);
	t_region_open(&w->r, w->p, w->len);
}

static void close_window(struct window *w)
{
	t_pair_reconnect(&w->r.pair);
	t_dereg(&w->r.buf);
	t_buf_free(&w->r.scratch);
	t_pair_close(&w->r.pair);
	munmap(w->p, w->len);
	if (w->old) {
		munmap(w->old, w->len);
		munmap(w->other, w->len);
		close(w->fd);
		close(w->other_fd);
	}
}

/* Translations for reading and writing at AT; the content stays. */
static void warm_up(struct window *w)
{
	t_fill_at(w->r.scratch.p, BYTES, AT, OLD);
	t_expect(t_write(&w->r.pair.a, &w->r.scratch, 0, &w->r.buf, AT, BYTES),
		 IBV_WC_SUCCESS, "WRITE before the window");
}

/* ---- the transfer ---- */

static void post(struct window *w, enum ibv_wr_opcode opcode, const struct t_buf *local,
		 size_t loff, const struct t_buf *remote, size_t roff, size_t len)
{
	struct ibv_sge sge = t_sge(local, loff, len);
	struct t_op op = { .opcode = opcode, .sge = &sge, .num_sge = 1 };

	if (remote) {
		op.raddr = remote->iova + roff;
		op.rkey = remote->mr->rkey;
		op.compare_add = 1;
	}
	t_check(!t_post(&w->r.pair.a, &op, NULL), "posting");
}

static void start_transfer(struct window *w)
{
	struct t_buf *scratch = &w->r.scratch, *buf = &w->r.buf;

	t_fill_at(scratch->p, BYTES, AT, NEW);
	switch (w->arg->part) {
	case WRITTEN:
		post(w, IBV_WR_RDMA_WRITE, scratch, 0, buf, AT, BYTES);
		break;
	case READ_FROM:
		post(w, IBV_WR_RDMA_READ, scratch, 0, buf, AT, BYTES);
		break;
	case ATOMIC:
		post(w, IBV_WR_ATOMIC_FETCH_AND_ADD, scratch, 0, buf, AT, 8);
		break;
	case LOCAL_SOURCE:
		post(w, IBV_WR_RDMA_WRITE, buf, AT, scratch, 0, BYTES);
		break;
	case LOCAL_TARGET:
		post(w, IBV_WR_RDMA_READ, buf, AT, scratch, 0, BYTES);
		break;
	case RECEIVE:
		t_post_recv(&w->r.pair.b, buf, AT, BYTES);
		post(w, IBV_WR_SEND, scratch, 0, NULL, 0, BYTES);
		break;
	}
}

static void end_transfer(struct window *w)
{
	struct ibv_wc wc;

	w->status = t_wait(&w->r.pair.a, &wc);
	t_check(w->status != T_TIMED_OUT, "the transfer does not end");
}

static bool reads_region(const struct window *w)
{
	return w->arg->part == READ_FROM || w->arg->part == LOCAL_SOURCE;
}

/* ---- the change ---- */

static void map_over(struct window *w, int fd)
{
	t_check(mmap(w->p, w->len, RW, MAP_SHARED | MAP_FIXED, fd, 0) == w->p,
		"mmap over: %s", strerror(errno));
}

static void move_away(struct window *w)
{
	u8 *aside = t_map(w->len, ANON, -1);

	t_check(mremap(w->p, w->len, w->len, MREMAP_MAYMOVE | MREMAP_FIXED, aside) == aside,
		"mremap: %s", strerror(errno));
}

/* The child's copy stays as it is when the fork has returned. */
static void fork_watcher(struct window *w)
{
	u8 before[BYTES];
	int i;

	w->child = t_fork();
	if (w->child)
		return;
	memcpy(before, w->p + AT, BYTES);
	for (i = 0; i < 30; i++) {
		if (memcmp(before, w->p + AT, BYTES))
			_exit(1);
		t_sleep_ms(10);
	}
	_exit(0);
}

static void change(struct window *w)
{
	u8 *page = w->p + T_PAGE;

	switch (w->arg->change) {
	case UNMAP:
		ok(munmap(w->p, w->len), "munmap");
		break;
	case REPLACE:
		map_over(w, w->other_fd);
		break;
	case MOVE:
		move_away(w);
		break;
	case PROTECT_NONE:
		ok(mprotect(w->p, w->len, PROT_NONE), "mprotect");
		break;
	case PROTECT_READ:
		ok(mprotect(w->p, w->len, PROT_READ), "mprotect");
		break;
	case PUNCH:
		ok(fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, T_PAGE,
			     T_PAGE), "fallocate");
		break;
	case TRUNCATE:
		ok(ftruncate(w->fd, 0), "ftruncate");
		break;
	case DONTNEED:
		ok(madvise(page, T_PAGE, MADV_DONTNEED), "MADV_DONTNEED");
		break;
	case FORK:
		fork_watcher(w);
		break;
	case PAGEOUT:
		t_check(t_pageout(page, T_PAGE), "the page was not swapped out");
		break;
	case OFFLINE:
		ok(madvise(page, T_PAGE, 101 /* MADV_SOFT_OFFLINE */), "MADV_SOFT_OFFLINE");
		break;
	case COLLAPSE:
		ok(madvise(w->p, w->len, MADV_HUGEPAGE), "MADV_HUGEPAGE");
		ok(madvise(w->p, w->len, MADV_COLLAPSE), "MADV_COLLAPSE");
		break;
	}
}

static bool has_pipe(const struct window *w)
{
	return w->arg->change == PUNCH || w->arg->change == TRUNCATE;
}

/* The old page has been let go, though somebody may still show it to us. */
static bool has_old_page(const struct window *w)
{
	return w->arg->change <= TRUNCATE;
}

static void before_change(struct window *w)
{
	int i;

	for (i = 0; i < 2 && has_pipe(w); i++)
		w->pipe[i] = t_pipe_hold_page(w->fd, T_PAGE);
}

static void copy_old_page(struct window *w, int i, u8 *to)
{
	if (has_pipe(w))
		t_pipe_read_page(w->pipe[i], to);
	else
		memcpy(to, w->old + T_PAGE, T_PAGE);
}

/*
 * The call has returned: the old page belongs to others from here on. They write
 * into it; a READ must not see that, and nothing else may write there.
 */
static void after_change(struct window *w, u8 *at_return)
{
	if (!has_old_page(w))
		return;
	if (reads_region(w) && !has_pipe(w))
		t_fill_at(w->old + AT, BYTES, AT, 99);
	copy_old_page(w, 0, at_return);
}

static void old_page_rests(struct window *w, const u8 *at_return)
{
	u8 now[T_PAGE];

	if (!has_old_page(w))
		return;
	copy_old_page(w, 1, now);
	t_check(!memcmp(at_return, now, T_PAGE),
		"the old page was written after the call that took it away had returned");
}

static void reader_saw_nothing_later(struct window *w)
{
	if (!reads_region(w) || !has_old_page(w) || w->status != IBV_WC_SUCCESS)
		return;
	t_check(w->arg->change == REPLACE || t_matches_at(w->r.scratch.p, BYTES, AT, OLD) ||
		t_all_zero(w->r.scratch.p, BYTES),
		"what was read is not what the memory held before");
	t_check(w->r.scratch.p[0] != t_pattern(AT, 99),
		"what was read was put there after the call that took the page away");
}

/* ---- what must be there in the end ---- */

static void region_has_new_bytes(struct window *w)
{
	u64 value, old;

	t_expect(w->status, IBV_WC_SUCCESS, "the transfer in the window");
	if (reads_region(w))
		return;
	if (w->arg->part != ATOMIC) {
		t_check(t_matches_at(w->p + AT, BYTES, AT, NEW),
			"what was written in the window is lost");
		return;
	}
	memcpy(&value, w->p + AT, 8);
	t_fill_at(&old, 8, AT, OLD);
	t_check(value == old + 1, "what was added in the window is lost");
}

static void child_is_content(struct window *w)
{
	int status;

	t_check(t_wait_exit(w->child, 10000, &status) && !status,
		"the child's copy was written");
}

/* The memory is back, or other memory is there: the region must follow it. */
static void region_follows(struct window *w)
{
	switch (w->arg->change) {
	case UNMAP:
	case MOVE:
		t_check(mmap(w->p, w->len, RW, MAP_SHARED | MAP_FIXED, w->other_fd, 0) == w->p,
			"mmap");
		break;
	case PROTECT_NONE:
	case PROTECT_READ:
		ok(mprotect(w->p, w->len, RW), "mprotect");
		break;
	case TRUNCATE:
		ok(ftruncate(w->fd, w->len), "ftruncate");
		break;
	case FORK:
		region_has_new_bytes(w);
		child_is_content(w);
		break;
	case PAGEOUT:
	case OFFLINE:
	case COLLAPSE:
		region_has_new_bytes(w);
		break;
	default:
		break;
	}
	t_pair_reconnect(&w->r.pair);
	t_region_exchange(&w->r, AT, BYTES);
	t_region_exchange(&w->r, 0, LEN);
}

/* ---- the fence ---- */

static void delay(const char *point, unsigned long usecs)
{
	t_check(t_delay_set(point, usecs),
		"no delay point %s: this test wants the debug build", point);
}

/* These calls do much else before they come to the page. */
static unsigned long hold_us(const struct arg *a)
{
	return a->change == COLLAPSE || a->change == OFFLINE ? 4 * HOLD_US : HOLD_US;
}

/* One try with so long a start for the transfer. Returns true if it was hit. */
static bool try_fence(const void *arg, unsigned int start_ms)
{
	const struct arg *a = arg;
	long waits = t_stat("fence_waits");
	u8 at_return[T_PAGE];
	struct window w;
	bool hit;

	open_window(&w, a);
	warm_up(&w);
	before_change(&w);
	delay("take_to_drop", hold_us(a));
	start_transfer(&w);
	t_sleep_ms(start_ms);
	change(&w);
	after_change(&w, at_return);
	hit = t_stat("fence_waits") > waits;
	end_transfer(&w);
	delay("take_to_drop", 0);
	old_page_rests(&w, at_return);
	reader_saw_nothing_later(&w);
	region_follows(&w);
	close_window(&w);
	return hit;
}

static void fence(const void *arg)
{
	t_until_hit(try_fence, arg);
}

/* ---- look, change, install ---- */

static bool try_install(const void *arg, unsigned int start_ms)
{
	const struct arg *a = arg;
	long retries = t_stat("fault_retries");
	u8 at_return[T_PAGE];
	struct window w;
	bool hit;

	open_window(&w, a);
	before_change(&w);
	delay("fault_to_install", HOLD_US);
	start_transfer(&w);
	t_sleep_ms(start_ms);
	change(&w);
	after_change(&w, at_return);
	end_transfer(&w);
	delay("fault_to_install", 0);
	hit = t_stat("fault_retries") > retries;
	old_page_rests(&w, at_return);
	reader_saw_nothing_later(&w);
	region_follows(&w);
	close_window(&w);
	return hit;
}

static void install(const void *arg)
{
	t_until_hit(try_install, arg);
}

/* ---- two invalidations of one page at once ---- */

struct second {
	struct window *w;
	u8 at_return[T_PAGE];
};

static void *punch_too(void *arg)
{
	struct second *s = arg;

	ok(fallocate(s->w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, T_PAGE, T_PAGE),
	   "fallocate");
	t_pipe_read_page(s->w->pipe[0], s->at_return);
	return NULL;
}

/*
 * The first finds the page held and marks it; the second finds it marked. What
 * the second takes away is at rest when it returns, not when the first does.
 */
static bool try_two(const void *arg, unsigned int start_ms)
{
	const struct arg *a = arg;
	long waits = t_stat("fence_waits");
	struct second s;
	u8 now[T_PAGE];
	struct window w;
	pthread_t thread;
	bool hit;

	open_window(&w, a);
	s.w = &w;
	warm_up(&w);
	w.pipe[0] = t_pipe_hold_page(w.fd, T_PAGE);
	w.pipe[1] = t_pipe_hold_page(w.fd, T_PAGE);
	delay("mark_to_wait", 50000);
	delay("take_to_drop", 2 * HOLD_US);
	start_transfer(&w);
	t_sleep_ms(start_ms);
	t_check(!pthread_create(&thread, NULL, punch_too, &s), "thread");
	t_sleep_ms(5);
	map_over(&w, w.other_fd);
	pthread_join(thread, NULL);
	hit = t_stat("fence_waits") > waits + 1;
	end_transfer(&w);
	delay("take_to_drop", 0);
	delay("mark_to_wait", 0);
	t_pipe_read_page(w.pipe[1], now);
	t_check(!memcmp(s.at_return, now, T_PAGE),
		"the punched page was written after fallocate had returned");
	region_follows(&w);
	close_window(&w);
	return hit;
}

static void two_at_once(const void *arg)
{
	t_until_hit(try_two, arg);
}

/* ---- the region ends, not the memory ---- */

static bool try_dereg(const void *arg, unsigned int start_ms)
{
	const struct arg *a = arg;
	struct window w;
	u64 begin;

	open_window(&w, a);
	warm_up(&w);
	delay("take_to_drop", HOLD_US);
	start_transfer(&w);
	t_sleep_ms(start_ms);
	begin = t_now_ms();
	t_dereg(&w.r.buf);
	t_fill(w.p, w.len, 90);
	t_check(t_now_ms() - begin < t_patience(5000), "dereg took %llu ms",
		(unsigned long long)(t_now_ms() - begin));
	end_transfer(&w);
	delay("take_to_drop", 0);
	t_check(t_matches(w.p, w.len, 90), "memory was written after dereg had returned");
	return start_ms >= 70;	/* no counter tells: three tries */
}

static void deregistered(const void *arg)
{
	t_until_hit(try_dereg, arg);
}

/* Killed while a copy has the page: gone promptly, and nothing is left. */
static void killed(const void *arg)
{
	long mirrors = t_stat("mirrors");
	int status, ready[2];
	struct window w;
	pid_t pid;

	ok(pipe(ready), "pipe");
	pid = t_fork();
	if (!pid) {
		open_window(&w, arg);
		warm_up(&w);
		delay("take_to_drop", HOLD_US);
		start_transfer(&w);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	t_check(read(ready[0], &status, 1) == 1, "the victim is not ready");
	t_sleep_ms(40);
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, 5000, &status), "the killed process stays");
	delay("take_to_drop", 0);
	t_check(t_stat_wait("mirrors", mirrors, 10000), "a mirror outlives its process");
}

/* ---- the table ---- */

static const char * const part_names[] = {
	"WRITE", "READ", "atomic", "WRITE out of it", "READ into it", "receive",
};

static const char * const change_names[] = {
	"munmap", "MAP_FIXED", "mremap", "mprotect none", "mprotect read", "hole punch",
	"truncate", "MADV_DONTNEED", "fork", "swap", "migration", "collapse",
};

static struct t_case cases[96];
static struct arg args[96];
static size_t n_cases;

static void add(void (*run)(const void *arg), const char *what, enum part part,
		enum change change, bool huge)
{
	char *name;

	if (asprintf(&name, "%s: %s during %s%s", what, change_names[change],
		     part_names[part], huge ? ", huge page" : "") < 0)
		exit(2);
	args[n_cases] = (struct arg){ part, change, huge };
	cases[n_cases] = (struct t_case){ name, T_ODP, run, &args[n_cases] };
	n_cases++;
}

static void add_all(void)
{
	int i;

	for (i = WRITTEN; i <= RECEIVE; i++) {
		add(fence, "fence", i, UNMAP, false);
		add(fence, "fence", i, REPLACE, false);
	}
	for (i = MOVE; i <= COLLAPSE; i++) {
		if (i != DONTNEED)
			add(fence, "fence", WRITTEN, i, false);
	}
	add(fence, "fence", READ_FROM, PUNCH, false);
	add(fence, "fence", ATOMIC, PAGEOUT, false);
	add(fence, "fence", WRITTEN, FORK, true);
	add(fence, "fence", LOCAL_TARGET, PAGEOUT, true);
	for (i = UNMAP; i <= COLLAPSE; i++)
		add(install, "install", WRITTEN, i, false);
	add(install, "install", READ_FROM, REPLACE, false);
	add(install, "install", LOCAL_TARGET, REPLACE, false);
	add(install, "install", RECEIVE, REPLACE, false);
	add(install, "install", WRITTEN, FORK, true);
	add(two_at_once, "two invalidations", WRITTEN, REPLACE, false);
	add(two_at_once, "two invalidations", LOCAL_TARGET, REPLACE, false);
}

static struct arg plain_write = { WRITTEN, DONTNEED, false };

int main(int argc, char **argv)
{
	add_all();
	cases[n_cases++] = (struct t_case){ "dereg during WRITE", T_ODP, deregistered,
					    &plain_write };
	cases[n_cases++] = (struct t_case){ "kill -9 during WRITE", T_ODP, killed,
					    &plain_write };
	return t_main(argc, argv, cases, n_cases);
}
