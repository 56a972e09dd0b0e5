// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Thousands of random operations of the mm, and random copies by a device meanwhile,
 * against a model of what memory must hold (tests/lib/t_model.h): each byte, and where
 * there is nothing to be read or written.
 *
 *	model --mr - [--seed N] [--seconds N] [--operations N] [--only CASE]
 *
 * A case runs for so many seconds (5), or operations. Operation N of a seed is always
 * the same, given the same operations before it: to see one again, give its seed, and
 * the number at which it failed as --operations.
 *
 * Copies run on while the mm works, unless it works on their own pages in a way that
 * shows: then they are waited for. So both the races and the result are exact.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_model.h"

#ifndef MADV_COLD
#define MADV_COLD	20
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define HUGE_PAGES	(T_HUGE / T_PAGE)
#define FLIGHTS		8
#define COPY_MAX	(24 * T_PAGE)
#define USES_MAX	(4 * (COPY_MAX / T_PAGE + 2))
#define HISTORY		100
#define LEAST_COPIES	100
#define FOCUS_PAGES	64	/* where most happens, for so many operations */
#define FOCUS_TIME	256
#define NOBODY		(~0U)
#define HUGE_FILE	1	/* its size is a multiple of 2 MiB */
#define GROUP		"unpin-model"

static struct {
	u64 seed;
	unsigned int seconds;
	u64 operations;
} opts = { .seconds = 5 };

/* ---- what a process does when it is told to ---- */

enum verb { MAP, UNMAP, MOVE, PROTECT, ADVISE, FILL, TOUCH, CHECK, CLEAR_REFS, ATTACH,
	    CHILD_EXIT };

/**
 * struct order - one thing to do
 * @verb: what
 * @first: page
 * @nr: pages
 * @to: page, for MOVE
 * @number: PROT_*, MADV_*, or what CLEAR_REFS writes
 * @flags: of the call
 * @file: NOBODY or which, for MAP
 * @index: page of the file
 * @at: byte, for FILL
 * @len: bytes
 * @round: of the payload
 * @table: for ATTACH
 */
struct order {
	enum verb verb;
	u32 first;
	u32 nr;
	u32 to;
	int number;
	int flags;
	u32 file;
	u32 index;
	u64 at;
	u64 len;
	u64 round;
	bool table;
};

/* A copy that is under way. */
struct flight {
	bool used;
	bool nofault;
	bool excused;		/* one of its spaces has gone */
	u32 from_side;
	u32 to_side;
	u64 from;
	u64 to;
	size_t len;
	size_t reach;
	unsigned int uses;
	struct use {
		u32 object;
		u32 start;
		u32 end;
		bool write;
	} use[USES_MAX];
};

enum count {
	N_OPERATIONS, N_COPIES, N_BYTES, N_EFAULT, N_EAGAIN, N_EXCUSED, N_WAITED, N_WRITES,
	N_MAPS, N_UNMAPS, N_MOVES, N_PROTECTS, N_DISCARDS, N_FREES, N_PAGEOUTS, N_COLLAPSES,
	N_REFUSED, N_CLEAR_REFS, N_FORKS, N_EXITS, N_KILLS, N_TRUNCATES, N_PUNCHES,
	N_REATTACHES, N_CHECKED, N_COUNTS,
};

static const char * const count_names[N_COUNTS] = {
	"operations", "copies", "bytes copied", "EFAULT", "EAGAIN", "cut short",
	"waited for copies", "CPU writes", "mmap", "munmap", "mremap", "mprotect",
	"DONTNEED", "FREE", "PAGEOUT and COLD", "COLLAPSE and (NO)HUGEPAGE",
	"of these refused by the kernel", "clear_refs", "fork", "exit", "kill -9",
	"ftruncate", "hole punch", "reattach", "pages checked",
};

enum kind { ALONE, WITH_CHILD, HELD_OPEN, UNDER_PRESSURE, N_KINDS };

/**
 * struct run - one case
 * @m: what memory must hold
 * @base: where the range begins, in both processes
 * @dma: the engine
 * @fd: the files
 * @kind: which case, for other random numbers than those of the others
 * @child: its pid, or 0
 * @say: orders to it
 * @hear: and its answers
 * @space: of each side: without a table and with one
 * @flight: copies under way
 * @state: of the random numbers
 * @round: of the payload
 * @count: what was done
 * @history: the last operations, as text
 */
struct run {
	struct t_model *m;
	u8 *base;
	int dma;
	int fd[T_MODEL_FILES];
	enum kind kind;
	pid_t child;
	int say;
	int hear;
	u32 space[T_MODEL_SIDES][2];
	struct flight flight[FLIGHTS];
	u64 state;
	u64 round;
	u64 count[N_COUNTS];
	char history[HISTORY][120];
};

static u32 pick(struct run *r, u32 below)
{
	return t_random(&r->state) % below;
}

static bool chance(struct run *r, u32 percent)
{
	return pick(r, 100) < percent;
}

static void note(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct run *r, const char *fmt, ...)
{
	char *line = r->history[r->count[N_OPERATIONS] % HISTORY];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(r->history[0]), "%llu: ",
		     (unsigned long long)r->count[N_OPERATIONS]);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(r->history[0]) - n, fmt, ap);
	va_end(ap);
}

static void failed(struct run *r) __attribute__((noreturn));

static void failed(struct run *r)
{
	u64 last = r->count[N_OPERATIONS], i = last < HISTORY ? 0 : last - HISTORY + 1;

	for (; i <= last; i++)
		t_diag("%s", r->history[i % HISTORY]);
	t_diag("again: --seed %llu --operations %llu", (unsigned long long)opts.seed,
	       (unsigned long long)last + 1);
	t_check(false, "operation %llu: memory is not what it must be",
		(unsigned long long)last);
	abort();
}

#define must(r, cond, ...)			\
	do {					\
		if (!(cond)) {			\
			t_diag(__VA_ARGS__);	\
			failed(r);		\
		}				\
	} while (0)

/* ---- carrying out an order ---- */

static u8 *address(const struct run *r, u32 page)
{
	return r->base + page * T_PAGE;
}

static long do_map(struct run *r, const struct order *o)
{
	int fd = o->file == NOBODY ? -1 : r->fd[o->file];
	void *p = mmap(address(r, o->first), o->nr * T_PAGE, o->number, o->flags | MAP_FIXED,
		       fd, o->index * T_PAGE);

	return p == address(r, o->first) ? 0 : -errno;
}

static long do_move(struct run *r, const struct order *o)
{
	void *to = address(r, o->to);
	void *p = mremap(address(r, o->first), o->nr * T_PAGE, o->nr * T_PAGE,
			 MREMAP_MAYMOVE | MREMAP_FIXED | o->flags, to);

	return p == to ? 0 : -errno;
}

static int self_mem(void)
{
	static int fd = -1;
	static pid_t owner;

	if (owner != getpid()) {
		fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		owner = getpid();
	}
	if (fd < 0)
		t_die("/proc/self/mem: %s", strerror(errno));
	return fd;
}

/* Whatever the protection: this is about the bytes. */
static bool peek(struct run *r, u32 page, u8 *to)
{
	return pread(self_mem(), to, T_PAGE, (uintptr_t)address(r, page)) == (ssize_t)T_PAGE;
}

/* Writes what is there. */
static long do_touch(struct run *r, const struct order *o)
{
	u8 byte;
	u32 i;

	for (i = o->first; i < o->first + o->nr; i++) {
		off_t at = (uintptr_t)address(r, i);

		if (pread(self_mem(), &byte, 1, at) != 1 ||
		    pwrite(self_mem(), &byte, 1, at) != 1)
			return -errno;
	}
	return 0;
}

static void say_page(const struct run *r, u32 side, u32 page)
{
	const struct t_model_page *p = &r->m->side[side].page[page];

	t_diag("%s, page %u (backing %u prot %u file %u+%u of %u own %u doubt %u):",
	       side ? "child" : "parent", page, p->backing, p->prot, p->file, p->index,
	       r->m->file[p->file].pages, p->own, p->doubt);
}

static void say_difference(struct run *r, u32 side, u32 page, const u8 *seen)
{
	const struct t_model_page *p = &r->m->side[side].page[page];
	const u8 *want = p->own ? r->m->side[side].bytes[page] :
				  r->m->file[p->file].bytes[p->index];
	u32 i = 0, last = T_PAGE - 1;

	while (i < T_PAGE - 1 && seen[i] == want[i])
		i++;
	while (last > i && seen[last] == want[last])
		last--;
	say_page(r, side, page);
	t_diag("  bytes %u to %u differ, at the first 0x%02x instead of 0x%02x", i, last, seen[i],
	       want[i]);
}

static bool check_page(struct run *r, u32 side, u32 page)
{
	u8 seen[T_PAGE];

	if (!t_model_exists(r->m, side, page)) {
		if (!peek(r, page, seen))
			return true;
		say_page(r, side, page);
		t_diag("  there is something, 0x%02x", seen[0]);
		return false;
	}
	if (t_model_may(r->m, side, page, false)) {
		memcpy(seen, address(r, page), T_PAGE);
	} else if (!peek(r, page, seen)) {
		say_page(r, side, page);
		t_diag("  there is nothing");
		return false;
	}
	if (t_model_agrees(r->m, side, page, seen))
		return true;
	say_difference(r, side, page, seen);
	return false;
}

static long do_check(struct run *r, const struct order *o, u32 side)
{
	u32 i;

	for (i = o->first; i < o->first + o->nr; i++) {
		if (!check_page(r, side, i))
			return -EBADMSG;
	}
	return 0;
}

static long do_clear_refs(const struct order *o)
{
	char text[8];

	snprintf(text, sizeof(text), "%d\n", o->number);
	return t_write_file("/proc/self/clear_refs", text) ? 0 : -EIO;
}

static long do_attach(struct run *r, const struct order *o)
{
	return o->table ? t_dma_attach_table(r->dma, r->base, T_MODEL_PAGES * T_PAGE) :
			  t_dma_attach(r->dma);
}

static long carry_out(struct run *r, const struct order *o, u32 side)
{
	u8 *p = address(r, o->first);
	size_t len = o->nr * T_PAGE;

	switch (o->verb) {
	case MAP:
		return do_map(r, o);
	case UNMAP:
		return munmap(p, len) ? -errno : 0;
	case MOVE:
		return do_move(r, o);
	case PROTECT:
		return mprotect(p, len, o->number) ? -errno : 0;
	case ADVISE:
		return madvise(p, len, o->number) ? -errno : 0;
	case FILL:
		t_fill_at(r->base + o->at, o->len, o->at, o->round);
		return 0;
	case TOUCH:
		return do_touch(r, o);
	case CHECK:
		return do_check(r, o, side);
	case CLEAR_REFS:
		return do_clear_refs(o);
	case ATTACH:
		return do_attach(r, o);
	case CHILD_EXIT:
		_exit(0);
	}
	return -EINVAL;
}

static void be_child(struct run *r, int in, int out)
{
	struct order o;
	long ret;

	while (read(in, &o, sizeof(o)) == sizeof(o)) {
		ret = carry_out(r, &o, 1);
		if (write(out, &ret, sizeof(ret)) != sizeof(ret))
			break;
	}
	_exit(0);
}

static long tell(struct run *r, u32 side, const struct order *o)
{
	long ret;

	if (!side)
		return carry_out(r, o, 0);
	if (write(r->say, o, sizeof(*o)) != sizeof(*o) ||
	    read(r->hear, &ret, sizeof(ret)) != sizeof(ret)) {
		t_diag("the child is gone");
		failed(r);
	}
	return ret;
}

static void tell_surely(struct run *r, u32 side, const struct order *o, const char *what)
{
	long ret = tell(r, side, o);

	must(r, !ret, "%s: %s", what, strerror(-ret));
}

/* ---- copies under way ---- */

static u32 own_object(u32 side, u32 page)
{
	return side * T_MODEL_PAGES + page;
}

static u32 file_object(u32 file, u32 index)
{
	return T_MODEL_SIDES * T_MODEL_PAGES + file * T_MODEL_FILE_PAGES + index;
}

static void add_use(struct flight *f, u32 object, u32 start, u32 end, bool write)
{
	if (f->uses == USES_MAX)
		t_die("too many uses");
	f->use[f->uses++] = (struct use){ object, start, end, write };
}

/*
 * What a copy may look at or change of one page. A copy of a file's page can be made
 * at any time, of whatever is in the file then.
 */
static void add_uses_of_page(struct run *r, struct flight *f, u32 side, u64 at, size_t len,
			     bool write)
{
	const struct t_model_page *p = &r->m->side[side].page[at / T_PAGE];
	u32 start = at % T_PAGE, end = start + len;

	if (!t_model_may(r->m, side, at / T_PAGE, write))
		return;
	if (p->backing == T_SHARED) {
		add_use(f, file_object(p->file, p->index), start, end, write);
		return;
	}
	add_use(f, own_object(side, at / T_PAGE), start, end, write);
	if (!p->own)
		add_use(f, file_object(p->file, p->index), 0, T_PAGE, false);
}

static void add_uses(struct run *r, struct flight *f, u32 side, u64 at, size_t len, bool write)
{
	size_t n;

	for (; len; len -= n, at += n) {
		n = T_PAGE - at % T_PAGE;
		n = n < len ? n : len;
		add_uses_of_page(r, f, side, at, n, write);
	}
}

static bool uses_clash(const struct use *a, const struct use *b)
{
	return a->object == b->object && (a->write || b->write) && a->start < b->end &&
	       b->start < a->end;
}

static bool flights_clash(const struct flight *a, const struct flight *b)
{
	unsigned int i, j;

	for (i = 0; i < a->uses; i++) {
		for (j = a == b ? i + 1 : 0; j < b->uses; j++) {
			if (uses_clash(&a->use[i], &b->use[j]))
				return true;
		}
	}
	return false;
}

static bool may_be_cut_short(int status)
{
	return status == -ECANCELED || status == -ESRCH || status == -EFAULT;
}

static void judge(struct run *r, const struct flight *f, const struct mirror_dma_done *done)
{
	size_t reach = f->reach;
	bool as_told;

	must(r, done->bytes <= reach, "%llu bytes were copied, only %zu can be",
	     (unsigned long long)done->bytes, reach);
	if (f->excused && may_be_cut_short(done->status)) {
		r->count[N_EXCUSED]++;
		return;
	}
	if (f->nofault && done->status == -EAGAIN) {
		r->count[N_EAGAIN]++;
		return;
	}
	as_told = done->status == (reach == f->len ? 0 : -EFAULT) && done->bytes == reach;
	must(r, as_told, "status %d after %llu bytes, expected after %zu of %zu (%s%llu to %s%llu)",
	     done->status, (unsigned long long)done->bytes, reach, f->len,
	     f->from_side ? "child " : "", (unsigned long long)f->from,
	     f->to_side ? "child " : "", (unsigned long long)f->to);
	r->count[N_EFAULT] += done->status == -EFAULT;
}

static void touch(struct run *r, u32 side, u32 page)
{
	struct order o = { .verb = TOUCH, .first = page, .nr = 1 };

	tell_surely(r, side, &o, "writing what is there");
	t_model_settled(r->m, side, page);
}

/*
 * What a copy did not reach it may have prepared: a page of a file that was copied in
 * vain, and is the file's no more. Here it is made so.
 */
static void prepare_rest(struct run *r, const struct flight *f, u64 bytes)
{
	u32 page, last = (f->to + f->len - 1) / T_PAGE;

	for (page = (f->to + bytes) / T_PAGE; page <= last; page++) {
		const struct t_model_page *p = &r->m->side[f->to_side].page[page];

		if (p->backing == T_COPY && !p->own &&
		    t_model_may(r->m, f->to_side, page, true))
			touch(r, f->to_side, page);
	}
}

static bool side_lives(const struct run *r, u32 side)
{
	return !side || r->child;
}

static void land(struct run *r, const struct mirror_dma_done *done)
{
	struct flight *f = &r->flight[done->cookie % FLIGHTS];

	must(r, f->used, "copy %llu ended twice", (unsigned long long)done->cookie);
	judge(r, f, done);
	t_model_copy(r->m, f->from_side, f->from, f->to_side, f->to, done->bytes);
	f->used = false;
	if (done->bytes < f->len && side_lives(r, f->to_side))
		prepare_rest(r, f, done->bytes);
	r->count[N_COPIES]++;
	r->count[N_BYTES] += done->bytes;
}

static bool flying(const struct run *r)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		if (r->flight[i].used)
			return true;
	}
	return false;
}

static void wait_for_copies(struct run *r)
{
	struct mirror_dma_done done;

	if (flying(r))
		r->count[N_WAITED]++;
	while (flying(r)) {
		must(r, t_dma_read(r->dma, T_WAIT_MS, &done), "a copy does not end");
		land(r, &done);
	}
}

static bool overlap(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool flight_meets(const struct flight *f, u32 side, u64 at, u64 len)
{
	return (f->from_side == side && overlap(f->from, f->len, at, len)) ||
	       (f->to_side == side && overlap(f->to, f->len, at, len));
}

/* These pages of a process are about to change in a way that a copy would see. */
static void clear_pages(struct run *r, u32 side, u32 first, u32 nr)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		if (r->flight[i].used &&
		    flight_meets(&r->flight[i], side, first * T_PAGE, nr * T_PAGE)) {
			wait_for_copies(r);
			return;
		}
	}
}

/* What is about to be done uses this. */
static void clear_uses(struct run *r, const struct flight *mine)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		if (r->flight[i].used && flights_clash(&r->flight[i], mine)) {
			wait_for_copies(r);
			return;
		}
	}
}

/* Is some of this file mapped where a copy is at work? */
static bool flight_on_file(const struct run *r, const struct flight *f, u32 file)
{
	u32 side, i;

	for (side = 0; side < T_MODEL_SIDES; side++) {
		for (i = 0; i < T_MODEL_PAGES; i++) {
			const struct t_model_page *p = &r->m->side[side].page[i];

			if ((p->backing == T_SHARED || p->backing == T_COPY) &&
			    p->file == file && flight_meets(f, side, i * T_PAGE, T_PAGE))
				return true;
		}
	}
	return false;
}

static void clear_file(struct run *r, u32 file)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		if (r->flight[i].used && flight_on_file(r, &r->flight[i], file)) {
			wait_for_copies(r);
			return;
		}
	}
}

/* ---- starting a copy ---- */

static void settle(struct run *r, u32 side, u32 page)
{
	struct order o = { .verb = CHECK, .first = page, .nr = 1 };

	if (r->m->side[side].page[page].doubt == T_SURE)
		return;
	clear_pages(r, side, page, 1);
	touch(r, side, page);
	must(r, !tell(r, side, &o), "while settling");
}

static void settle_range(struct run *r, u32 side, u64 at, size_t len)
{
	u32 page;

	for (page = at / T_PAGE; page <= (at + len - 1) / T_PAGE; page++)
		settle(r, side, page);
}

static u32 some_side(struct run *r)
{
	return r->child ? pick(r, 2) : 0;
}

/*
 * A page with room for @nr. Most are near each other for a while: what goes wrong needs
 * several operations on one page.
 */
static u32 some_page(struct run *r, u32 nr)
{
	u64 state = opts.seed + r->count[N_OPERATIONS] / FOCUS_TIME;
	u32 room = T_MODEL_PAGES - nr, page = pick(r, room);

	if (chance(r, 25))
		return page;
	page = t_random(&state) % (T_MODEL_PAGES - FOCUS_PAGES) + page % FOCUS_PAGES;
	return page < room ? page : room;
}

/* Some bytes, most times where there is something to be had. */
static u64 some_place(struct run *r, u32 side, size_t len, bool write)
{
	bool anywhere = chance(r, 12);
	u64 at = 0;
	int tries;

	for (tries = 0; tries < 20; tries++) {
		at = some_page(r, len / T_PAGE + 2) * T_PAGE;
		if (chance(r, 80))
			at += pick(r, T_PAGE);
		if (anywhere || (t_model_may(r->m, side, at / T_PAGE, write) &&
				 t_model_may(r->m, side, (at + len - 1) / T_PAGE, write)))
			break;
	}
	return at;
}

static size_t some_length(struct run *r)
{
	switch (pick(r, 4)) {
	case 0:
		return 1 + pick(r, 100);
	case 1:
		return T_PAGE;
	case 2:
		return 1 + pick(r, 3 * T_PAGE);
	default:
		return 1 + pick(r, COPY_MAX);
	}
}

static struct flight *free_flight(struct run *r)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		if (!r->flight[i].used)
			return &r->flight[i];
	}
	wait_for_copies(r);
	return &r->flight[0];
}

static void plan_copy(struct run *r, struct flight *f)
{
	memset(f, 0, sizeof(*f));
	f->from_side = some_side(r);
	f->to_side = some_side(r);
	f->len = some_length(r);
	f->from = some_place(r, f->from_side, f->len, false);
	f->to = some_place(r, f->to_side, f->len, true);
	f->nofault = chance(r, 15);
	add_uses(r, f, f->from_side, f->from, f->len, false);
	add_uses(r, f, f->to_side, f->to, f->len, true);
}

static void launch(struct run *r, struct flight *f)
{
	struct mirror_dma_copy copy = {
		.cookie = f - r->flight, .length = f->len,
		.src = (uintptr_t)r->base + f->from, .dst = (uintptr_t)r->base + f->to,
		.src_space = r->space[f->from_side][pick(r, 2)],
		.dst_space = r->space[f->to_side][pick(r, 2)],
		.hold_us = chance(r, 40) ? pick(r, 600) : 0,
		.flags = f->nofault ? MIRROR_DMA_NOFAULT : 0,
	};
	int err;

	f->reach = t_model_reach(r->m, f->from_side, f->from, f->to_side, f->to, f->len);
	note(r, "copy %zu bytes (reach %zu) from %s%llu to %s%llu%s", f->len, f->reach,
	     f->from_side ? "child " : "", (unsigned long long)f->from,
	     f->to_side ? "child " : "", (unsigned long long)f->to,
	     f->nofault ? " without faults" : "");
	err = t_dma_submit(r->dma, &copy);
	must(r, !err, "submitting: %s", strerror(err));
	f->used = true;
}

/* Where a copy would write what it reads, nothing is promised. */
static void op_copy(struct run *r)
{
	static struct flight f;
	struct flight *slot;

	plan_copy(r, &f);
	if (flights_clash(&f, &f))
		return;
	clear_uses(r, &f);
	settle_range(r, f.from_side, f.from, f.len);
	slot = free_flight(r);
	*slot = f;
	launch(r, slot);
}

/* ---- what the mm does ---- */

/* Some pages, often few, sometimes all of 2 MiB. */
static u32 some_pages(struct run *r, u32 *first)
{
	u32 nr = 1 + pick(r, chance(r, 70) ? 8 : 200);

	if (chance(r, 6)) {
		*first = pick(r, T_MODEL_PAGES / HUGE_PAGES) * HUGE_PAGES;
		return HUGE_PAGES;
	}
	*first = some_page(r, nr);
	return nr;
}

static int some_prot(struct run *r)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_WRITE };

	return chance(r, 80) ? PROT_READ | PROT_WRITE : prots[pick(r, 3)];
}

/* Pages of 2 MiB lie in the file as they lie in memory, so that they can be huge. */
static void choose_file(struct run *r, struct order *o, struct t_model_page *what)
{
	what->file = pick(r, T_MODEL_FILES);
	if (o->nr == HUGE_PAGES)
		what->index = pick(r, T_MODEL_FILE_PAGES / HUGE_PAGES) * HUGE_PAGES;
	else
		what->index = pick(r, T_MODEL_FILE_PAGES - o->nr);
	o->file = what->file;
	o->index = what->index;
}

static void op_map(struct run *r)
{
	struct order o = { .verb = MAP, .file = NOBODY, .number = some_prot(r) };
	struct t_model_page what = { .backing = T_ANON, .prot = o.number };
	u32 side = some_side(r);

	o.nr = some_pages(r, &o.first);
	o.flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (chance(r, 55)) {
		what.backing = chance(r, 60) ? T_SHARED : T_COPY;
		o.flags = what.backing == T_SHARED ? MAP_SHARED : MAP_PRIVATE;
		choose_file(r, &o, &what);
	}
	note(r, "%u: mmap %u+%u backing %u prot %d file %u+%u", side, o.first, o.nr,
	     what.backing, o.number, what.file, what.index);
	clear_pages(r, side, o.first, o.nr);
	tell_surely(r, side, &o, "mmap");
	t_model_map(r->m, side, o.first, o.nr, &what);
	r->count[N_MAPS]++;
}

static void op_unmap(struct run *r)
{
	struct order o = { .verb = UNMAP };
	u32 side = some_side(r);

	o.nr = some_pages(r, &o.first);
	note(r, "%u: munmap %u+%u", side, o.first, o.nr);
	clear_pages(r, side, o.first, o.nr);
	tell_surely(r, side, &o, "munmap");
	t_model_unmap(r->m, side, o.first, o.nr);
	r->count[N_UNMAPS]++;
}

/* The pages that are one mapping, as far as the model knows. */
static u32 like_run(const struct run *r, u32 side, u32 first, u32 nr)
{
	const struct t_model_page *a = &r->m->side[side].page[first];
	u32 i;

	for (i = 1; i < nr; i++) {
		if (a[i].backing != a->backing || a[i].prot != a->prot)
			break;
		if (a->backing != T_ANON && (a[i].file != a->file || a[i].index != a->index + i))
			break;
	}
	return a->backing == T_NOTHING ? 0 : i;
}

/* The kernel may have them as several mappings, and refuse: the target is gone then. */
static void op_move(struct run *r)
{
	struct order o = { .verb = MOVE };
	u32 side = some_side(r);
	long ret;

	o.nr = some_pages(r, &o.first);
	o.nr = like_run(r, side, o.first, o.nr);
	o.to = some_page(r, o.nr);
	if (o.nr == HUGE_PAGES)
		o.to -= o.to % HUGE_PAGES;
	if (!o.nr || overlap(o.first, o.nr, o.to, o.nr))
		return;
	o.flags = chance(r, 25) ? MREMAP_DONTUNMAP : 0;
	note(r, "%u: mremap %u+%u to %u%s", side, o.first, o.nr, o.to,
	     o.flags ? ", keeping it mapped" : "");
	clear_pages(r, side, o.first, o.nr);
	clear_pages(r, side, o.to, o.nr);
	ret = tell(r, side, &o);
	r->count[N_MOVES]++;
	if (!ret) {
		t_model_move(r->m, side, o.first, o.to, o.nr, o.flags);
		return;
	}
	must(r, ret == -EFAULT, "mremap: %s", strerror(-ret));
	r->count[N_REFUSED]++;
	o = (struct order){ .verb = UNMAP, .first = o.to, .nr = o.nr };
	tell_surely(r, side, &o, "munmap");
	t_model_unmap(r->m, side, o.first, o.nr);
}

/* The longest piece of the range from @first on that is mapped. */
static u32 mapped_run(const struct run *r, u32 side, u32 first, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		if (r->m->side[side].page[first + i].backing == T_NOTHING)
			break;
	}
	return i;
}

static u32 anon_run(const struct run *r, u32 side, u32 first, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		const struct t_model_page *p = &r->m->side[side].page[first + i];

		if (p->backing != T_ANON || p->prot != (PROT_READ | PROT_WRITE))
			break;
	}
	return i;
}

static void op_protect(struct run *r)
{
	struct order o = { .verb = PROTECT, .number = some_prot(r) };
	u32 side = some_side(r);

	o.nr = some_pages(r, &o.first);
	o.nr = mapped_run(r, side, o.first, o.nr);
	if (!o.nr)
		return;
	note(r, "%u: mprotect %u+%u to %d", side, o.first, o.nr, o.number);
	clear_pages(r, side, o.first, o.nr);
	tell_surely(r, side, &o, "mprotect");
	t_model_protect(r->m, side, o.first, o.nr, o.number);
	r->count[N_PROTECTS]++;
}

static void op_discard(struct run *r)
{
	struct order o = { .verb = ADVISE, .number = MADV_DONTNEED };
	u32 side = some_side(r);

	o.nr = some_pages(r, &o.first);
	o.nr = mapped_run(r, side, o.first, o.nr);
	if (!o.nr)
		return;
	note(r, "%u: MADV_DONTNEED %u+%u", side, o.first, o.nr);
	clear_pages(r, side, o.first, o.nr);
	tell_surely(r, side, &o, "MADV_DONTNEED");
	t_model_discard(r->m, side, o.first, o.nr);
	r->count[N_DISCARDS]++;
}

static void op_free(struct run *r)
{
	struct order o = { .verb = ADVISE, .number = MADV_FREE };
	u32 side = some_side(r), i;

	o.nr = some_pages(r, &o.first);
	o.nr = anon_run(r, side, o.first, o.nr);
	if (!o.nr)
		return;
	note(r, "%u: MADV_FREE %u+%u", side, o.first, o.nr);
	clear_pages(r, side, o.first, o.nr);
	for (i = 0; i < o.nr; i++) {
		if (r->m->side[side].page[o.first + i].doubt == T_EITHER)
			settle(r, side, o.first + i);
	}
	tell_surely(r, side, &o, "MADV_FREE");
	t_model_free(r->m, side, o.first, o.nr);
	r->count[N_FREES]++;
}

/* A huge page could be read beyond the end of its file, if that is not a multiple. */
static bool has_small_file(const struct run *r, u32 side, u32 first, u32 nr)
{
	u32 i;

	for (i = first; i < first + nr; i++) {
		const struct t_model_page *p = &r->m->side[side].page[i];

		if ((p->backing == T_SHARED || p->backing == T_COPY) && p->file != HUGE_FILE)
			return true;
	}
	return false;
}

/* Where a copy is at work, or anywhere. Returns whose pages. */
static u32 pages_in_use(struct run *r, struct order *o)
{
	const struct flight *f = &r->flight[pick(r, FLIGHTS)];
	u32 side = some_side(r);
	bool write = chance(r, 60);
	u64 at = write ? f->to : f->from;

	o->nr = some_pages(r, &o->first);
	if (!f->used || !side_lives(r, write ? f->to_side : f->from_side))
		return side;
	if (o->nr == HUGE_PAGES) {
		o->first = at / T_HUGE * HUGE_PAGES;
	} else {
		o->first = at / T_PAGE;
		o->nr = (at + f->len - 1) / T_PAGE - o->first + 1;
	}
	return write ? f->to_side : f->from_side;
}

/* Changes nothing for anybody, so copies go on; the kernel may refuse, or do half. */
static void advise(struct run *r, int advice, enum count count)
{
	struct order o = { .verb = ADVISE, .number = advice };
	u32 side = pages_in_use(r, &o);

	if (advice == MADV_COLLAPSE && has_small_file(r, side, o.first, o.nr))
		return;
	note(r, "%u: madvise %d %u+%u", side, advice, o.first, o.nr);
	r->count[count]++;
	if (tell(r, side, &o))
		r->count[N_REFUSED]++;
}

static void op_pageout(struct run *r)
{
	advise(r, chance(r, 75) ? MADV_PAGEOUT : MADV_COLD, N_PAGEOUTS);
}

static void op_collapse(struct run *r)
{
	static const int advice[] = { MADV_COLLAPSE, MADV_COLLAPSE, MADV_HUGEPAGE,
				      MADV_NOHUGEPAGE };

	advise(r, advice[pick(r, T_ARRAY_SIZE(advice))], N_COLLAPSES);
}

/* 1 is for who was referenced, 4 for who was written to. */
static void op_clear_refs(struct run *r)
{
	struct order o = { .verb = CLEAR_REFS, .number = chance(r, 70) ? 4 : 1 };
	u32 side = some_side(r);

	note(r, "%u: clear_refs %d", side, o.number);
	tell_surely(r, side, &o, "clear_refs");
	r->count[N_CLEAR_REFS]++;
}

static void op_write(struct run *r)
{
	static u8 bytes[COPY_MAX];
	struct order o = { .verb = FILL, .len = some_length(r) };
	static struct flight mine;
	u32 side = some_side(r), page;

	o.at = some_place(r, side, o.len, true);
	o.round = ++r->round;
	for (page = o.at / T_PAGE; page <= (o.at + o.len - 1) / T_PAGE; page++) {
		if (!t_model_may(r->m, side, page, true))
			return;
	}
	note(r, "%u: write %llu+%llu round %llu", side, (unsigned long long)o.at,
	     (unsigned long long)o.len, (unsigned long long)o.round);
	mine.uses = 0;
	add_uses(r, &mine, side, o.at, o.len, true);
	clear_uses(r, &mine);
	tell_surely(r, side, &o, "write");
	t_fill_at(bytes, o.len, o.at, o.round);
	t_model_write(r->m, side, o.at, bytes, o.len);
	r->count[N_WRITES]++;
}

/* ---- files ---- */

static void op_truncate(struct run *r)
{
	u32 file = pick(r, T_MODEL_FILES);
	u32 pages = T_MODEL_FILE_PAGES;

	if (file == HUGE_FILE)
		pages -= pick(r, 2) * HUGE_PAGES;
	else
		pages -= pick(r, chance(r, 60) ? 16 : T_MODEL_FILE_PAGES);
	note(r, "file %u: %u pages", file, pages);
	clear_file(r, file);
	must(r, !ftruncate(r->fd[file], pages * T_PAGE), "ftruncate: %s", strerror(errno));
	t_model_truncate(r->m, file, pages);
	r->count[N_TRUNCATES]++;
}

static void op_punch(struct run *r)
{
	static struct flight mine;
	u32 file = pick(r, T_MODEL_FILES);
	size_t len = some_length(r), done, n;
	u64 at = pick(r, r->m->file[file].pages * T_PAGE);

	if (at + len > r->m->file[file].pages * T_PAGE)
		len = r->m->file[file].pages * T_PAGE - at;
	note(r, "file %u: hole %llu+%zu", file, (unsigned long long)at, len);
	mine.uses = 0;
	for (done = 0; done < len; done += n) {
		n = T_PAGE - (at + done) % T_PAGE;
		n = n < len - done ? n : len - done;
		add_use(&mine, file_object(file, (at + done) / T_PAGE), (at + done) % T_PAGE,
			(at + done) % T_PAGE + n, true);
	}
	clear_uses(r, &mine);
	must(r, !fallocate(r->fd[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len),
	     "fallocate: %s", strerror(errno));
	t_model_punch(r->m, file, at, len);
	r->count[N_PUNCHES]++;
}

/* ---- the child ---- */

static void attach(struct run *r, u32 side, bool table)
{
	struct order o = { .verb = ATTACH, .table = table };

	r->space[side][table] = tell(r, side, &o);
}

static void excuse(struct run *r, u32 side)
{
	int i;

	for (i = 0; i < FLIGHTS; i++) {
		struct flight *f = &r->flight[i];

		f->excused |= f->used && (f->from_side == side || f->to_side == side);
	}
}

static void op_fork(struct run *r)
{
	int orders[2], answers[2];
	u32 page;

	if (r->kind == ALONE || r->child)
		return;
	note(r, "fork");
	wait_for_copies(r);
	for (page = 0; page < T_MODEL_PAGES; page++)
		settle(r, 0, page);
	must(r, !pipe2(orders, O_CLOEXEC) && !pipe2(answers, O_CLOEXEC), "pipe");
	r->child = t_fork();
	if (!r->child) {
		close(orders[1]);
		close(answers[0]);
		be_child(r, orders[0], answers[1]);
	}
	close(orders[0]);
	close(answers[1]);
	r->say = orders[1];
	r->hear = answers[0];
	t_model_fork(r->m);
	attach(r, 1, false);
	attach(r, 1, true);
	r->count[N_FORKS]++;
}

static void forget_child(struct run *r)
{
	int status;

	must(r, t_wait_exit(r->child, T_WAIT_MS, &status), "the child does not end");
	r->child = 0;
	close(r->say);
	close(r->hear);
	wait_for_copies(r);
	t_dma_detach(r->dma, r->space[1][0]);
	t_dma_detach(r->dma, r->space[1][1]);
	t_model_unmap(r->m, 1, 0, T_MODEL_PAGES);
}

static void check_all(struct run *r, u32 side)
{
	struct order o = { .verb = CHECK, .nr = T_MODEL_PAGES };

	wait_for_copies(r);
	must(r, !tell(r, side, &o), "checking all of the %s", side ? "child" : "parent");
	r->count[N_CHECKED] += T_MODEL_PAGES;
}

/* With copies under way, which end as if their space had gone. */
static void op_child_ends(struct run *r)
{
	struct order o = { .verb = CHILD_EXIT };
	bool killed = chance(r, 50);

	if (!r->child)
		return;
	note(r, "the child %s", killed ? "is killed" : "exits");
	if (chance(r, 50))
		check_all(r, 1);
	excuse(r, 1);
	if (killed)
		kill(r->child, SIGKILL);
	else
		must(r, write(r->say, &o, sizeof(o)) == sizeof(o), "telling the child");
	forget_child(r);
	r->count[killed ? N_KILLS : N_EXITS]++;
}

static void op_reattach(struct run *r)
{
	u32 side = some_side(r);
	bool table = chance(r, 70);

	note(r, "%u: reattach", side);
	excuse(r, side);
	t_dma_detach(r->dma, r->space[side][table]);
	attach(r, side, table);
	r->count[N_REATTACHES]++;
}

static void op_check(struct run *r)
{
	struct order o = { .verb = CHECK };
	u32 side = some_side(r);

	o.nr = some_pages(r, &o.first);
	note(r, "%u: check %u+%u", side, o.first, o.nr);
	wait_for_copies(r);
	must(r, !tell(r, side, &o), "checking");
	r->count[N_CHECKED] += o.nr;
}

/* ---- a run ---- */

static const struct {
	void (*run)(struct run *r);
	unsigned int weight;
} operations[] = {
	{ op_copy, 120 }, { op_write, 25 }, { op_map, 22 }, { op_unmap, 6 }, { op_move, 14 },
	{ op_protect, 14 }, { op_discard, 10 }, { op_free, 10 }, { op_pageout, 20 },
	{ op_collapse, 8 }, { op_clear_refs, 2 }, { op_truncate, 3 }, { op_punch, 8 },
	{ op_fork, 3 }, { op_child_ends, 1 }, { op_reattach, 2 }, { op_check, 5 },
};

static void one_operation(struct run *r)
{
	unsigned int total = 0, chosen;
	size_t i;

	/* a number by itself, whatever was drawn before */
	r->state = (opts.seed * N_KINDS + r->kind) << 34;
	r->state += r->count[N_OPERATIONS] << 12;
	for (i = 0; i < T_ARRAY_SIZE(operations); i++)
		total += operations[i].weight;
	chosen = pick(r, total);
	for (i = 0; chosen >= operations[i].weight; i++)
		chosen -= operations[i].weight;
	note(r, "operation %zu: nothing", i);
	operations[i].run(r);
	r->count[N_OPERATIONS]++;
}

static void setup(struct run *r)
{
	static const char * const names[T_MODEL_FILES] = { "model 0", "model 1" };
	struct t_model_page what = {
		.backing = T_ANON, .prot = PROT_READ | PROT_WRITE,
	};
	u32 i;

	r->base = t_map_huge_aligned(T_MODEL_PAGES * T_PAGE);
	t_model_map(r->m, 0, 0, T_MODEL_PAGES, &what);
	for (i = 0; i < T_MODEL_FILES; i++) {
		r->fd[i] = t_memfd(names[i], T_MODEL_FILE_PAGES * T_PAGE, 0);
		r->m->file[i].pages = T_MODEL_FILE_PAGES;
	}
	r->dma = t_dma_open();
	attach(r, 0, false);
	attach(r, 0, true);
}

static void report(const struct run *r)
{
	char line[200];
	int i, n = 0;

	t_diag("seed %llu:", (unsigned long long)opts.seed);
	for (i = 0; i < N_COUNTS; i++) {
		n += snprintf(line + n, sizeof(line) - n, "%llu %s; ",
			      (unsigned long long)r->count[i], count_names[i]);
		if (n > 70 || i == N_COUNTS - 1) {
			t_diag("  %s", line);
			n = 0;
		}
	}
}

/* At least so many copies are made, however slow the machine is. */
static bool goes_on(const struct run *r, u64 end)
{
	if (opts.operations)
		return r->count[N_OPERATIONS] < opts.operations;
	return t_now_ms() < end || r->count[N_COPIES] < LEAST_COPIES;
}

static void run_operations(struct run *r)
{
	u64 end;

	setup(r);
	end = t_now_ms() + 1000 * opts.seconds;
	while (goes_on(r, end))
		one_operation(r);
	wait_for_copies(r);
	report(r);
	check_all(r, 0);
	if (r->child)
		check_all(r, 1);
}

static struct run *new_run(enum kind kind)
{
	struct run *r = calloc(1, sizeof(*r));

	if (!r)
		t_die("no memory");
	t_diag("seed %llu", (unsigned long long)opts.seed);
	r->kind = kind;
	r->m = t_model_new();
	return r;
}

static void alone(const void *arg)
{
	run_operations(new_run(ALONE));
}

static void with_child(const void *arg)
{
	run_operations(new_run(WITH_CHILD));
}

/* ---- with the windows of a debug build held open ---- */

static void held_open(const void *arg)
{
	struct run *r = new_run(HELD_OPEN);

	t_check(t_delay_set("fault_to_install", 1000) && t_delay_set("mark_to_wait", 1000),
		"no delay points: this test wants the debug build");
	run_operations(r);
	t_delay_set("fault_to_install", 0);
	t_delay_set("mark_to_wait", 0);
}

/* ---- in a small group, where all memory goes in and out ---- */

/* The model itself was made, and charged, before. */
static void under_pressure(const void *arg)
{
	struct run *r = new_run(UNDER_PRESSURE);

	t_group_make(GROUP, "10M", "max");
	t_group_join(GROUP);
	run_operations(r);
	t_check(t_group_read(GROUP, "memory.swap.peak") > 0, "nothing was swapped");
	t_group_leave(GROUP);
}

static const struct t_case cases[] = {
	{ "random operations: a process", T_DMA, alone, NULL },
	{ "random operations: a process and its child", T_DMA, with_child, NULL },
	{ "random operations: both, with the windows held open", T_DMA, held_open, NULL },
	{ "random operations: both, in a small memory group", T_DMA, under_pressure, NULL },
};

/* Takes out of the arguments what is for here. */
static int own_options(int argc, char **argv)
{
	int i, kept = 1;

	opts.seed = t_now_ms() % 1000000;
	for (i = 1; i < argc; i++) {
		bool more = i + 1 < argc;

		if (more && !strcmp(argv[i], "--seed"))
			opts.seed = strtoull(argv[++i], NULL, 0);
		else if (more && !strcmp(argv[i], "--seconds"))
			opts.seconds = strtoul(argv[++i], NULL, 0);
		else if (more && !strcmp(argv[i], "--operations"))
			opts.operations = strtoull(argv[++i], NULL, 0);
		else
			argv[kept++] = argv[i];
	}
	argv[kept] = NULL;
	t_opts.seconds = opts.seconds + (opts.operations ? 600 : 60);
	return kept;
}

int main(int argc, char **argv)
{
	argc = own_options(argc, argv);
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
