// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Failing allocations: the kernel's fail-nth for what the calling thread allocates,
 * the fault points of mm_mirror for what its workers do. Needs a debug kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define POINTS		"mm_mirror/fail_mirror/"
#define TIMES		1000000L	/* as good as for ever, and can be counted */

static void set(const char *dir, const char *file, long value)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), DEBUGFS "%s%s", dir, file);
	snprintf(text, sizeof(text), "%ld\n", value);
	if (!t_write_file(path, text))
		t_die("%s: %s; this test wants a debug kernel", path, strerror(errno));
}

static void set_text(const char *dir, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s%s", dir, file);
	if (!t_write_file(path, text))
		t_die("%s: %s", path, strerror(errno));
}

/* Where a function of the kernel starts, and the next one; false if there is none. */
static bool kernel_text(const char *function, char *start, char *end, size_t len)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	char addr[20], name[128], line[512];
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%19s %*c %127s", addr, name) != 2)
			continue;
		if (found) {
			snprintf(end, len, "0x%s\n", addr);
			break;
		}
		found = !strcmp(name, function);
		if (found)
			snprintf(start, len, "0x%s\n", addr);
	}
	if (f)
		fclose(f);
	return found;
}

/* Nothing fails that is allocated below this function of the kernel, if it has it. */
void t_fail_spare(const char *function)
{
	static const char *const dirs[] = { "failslab/", "fail_page_alloc/" };
	char start[32], end[32];
	size_t i;

	if (!kernel_text(function, start, end, sizeof(start)))
		return;
	for (i = 0; i < T_ARRAY_SIZE(dirs); i++) {
		set_text(dirs[i], "reject-start", start);
		set_text(dirs[i], "reject-end", end);
	}
}

/* What fails is only what is allocated below this function of the kernel; NULL: all. */
void t_fail_below(const char *function)
{
	static const char *const dirs[] = { "failslab/", "fail_page_alloc/", "fail_usercopy/" };
	char start[32] = "0", end[32] = "0xffffffffffffffff";
	size_t i;

	if (function && !kernel_text(function, start, end, sizeof(start)))
		t_die("no function %s in this kernel", function);
	for (i = 0; i < T_ARRAY_SIZE(dirs); i++) {
		set_text(dirs[i], "require-start", start);
		set_text(dirs[i], "require-end", end);
	}
}

/* Nothing fails by itself; what sleeps for memory may be made to fail as well. */
void t_fail_reset(void)
{
	static const char *const dirs[] = {
		"failslab/", "fail_page_alloc/", "fail_usercopy/", POINTS,
	};
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(dirs); i++) {
		if (!strcmp(dirs[i], POINTS) && access(DEBUGFS "mm_mirror", F_OK))
			continue;
		set(dirs[i], "probability", 0);
		set(dirs[i], "verbose", 0);
		set(dirs[i], "task-filter", 0);
	}
	set("failslab/", "ignore-gfp-wait", 0);
	set("fail_page_alloc/", "ignore-gfp-wait", 0);
	set("fail_page_alloc/", "ignore-gfp-highmem", 0);
	set("fail_page_alloc/", "min-order", 0);
	t_fail_below(NULL);
	/* It has a reserve, so that failing shows nothing. */
	t_fail_spare("__alloc_object");
}

/* ---- the Nth of this thread ---- */

static __thread int nth_fd = -1;

void t_fail_nth(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0 || pwrite(nth_fd, text, len, 0) != len)
		t_die("fail-nth: %s; this test wants a debug kernel", strerror(errno));
}

/*
 * Stop; true if something was made to fail since. Copying to and from user space
 * counts as well, so what reads here may be the Nth: then nothing was before.
 */
bool t_fail_nth_end(void)
{
	char text[16] = "";
	ssize_t n = pread(nth_fd, text, sizeof(text) - 1, 0);
	bool failed = n > 0 && atoi(text) == 0;

	if (pwrite(nth_fd, "0", 1, 0) != 1) {
		failed = false;
		if (pwrite(nth_fd, "0", 1, 0) != 1)
			t_die("fail-nth: %s", strerror(errno));
	}
	close(nth_fd);
	nth_fd = -1;
	return failed;
}

/* Copying from and to user space is made to fail as well: EFAULT. */
static bool may_give(const struct t_sweep *s, int err)
{
	return s->any_error || err == ENOMEM || err == EFAULT || err == s->also;
}

/*
 * The operation succeeds by itself, then is tried with its first allocation failing,
 * the second, and so on, until it has no more.
 */
void t_sweep(const struct t_sweep *s, void *ctx)
{
	unsigned int n, injected = 0, told = 0;
	bool failed;
	int err;

	err = s->op(ctx);
	t_check(!err, "%s by itself: %s", s->what, strerror(err));
	s->check(ctx, err);
	for (n = s->from ? s->from : 1; n < T_SWEEP_MAX; n += s->step ? s->step : 1) {
		t_fail_nth(n);
		err = s->op(ctx);
		failed = t_fail_nth_end();
		t_check(!err || failed, "%s by itself: %s", s->what, strerror(err));
		t_check(!err || may_give(s, err), "%s, failure %u: %s", s->what, n,
			strerror(err));
		told += !!err;
		injected += failed;
		s->check(ctx, err);
		if (!failed)
			break;
	}
	t_diag("%s: %u failures injected, %u told", s->what, injected, told);
	t_check(n < T_SWEEP_MAX, "%s: no end", s->what);
	t_check(injected, "%s: nothing was made to fail", s->what);
}

/* ---- fault points ---- */

/* What the file "points" says: a name, times passed, times failed in each line. */
static bool next_point(char **text, char *name, unsigned long *failed)
{
	unsigned long passed;
	int used;

	if (sscanf(*text, "%31s %lu %lu\n%n", name, &passed, failed, &used) != 3)
		return false;
	*text += used;
	return true;
}

static void read_points(char *text, size_t len)
{
	if (!t_read_file(DEBUGFS POINTS "points", text, len))
		t_die("no fault points; this test wants a debug kernel");
}

/* Failures that the fault points have made so far. */
unsigned long t_fail_points_failed(void)
{
	unsigned long failed, sum = 0;
	char text[2048], name[32], *at = text;

	read_points(text, sizeof(text));
	while (next_point(&at, name, &failed))
		sum += failed;
	return sum;
}

/* The name of a point that never failed, or NULL. */
const char *t_fail_points_idle(void)
{
	static char name[32];
	unsigned long failed;
	char text[2048], *at = text;

	read_points(text, sizeof(text));
	while (next_point(&at, name, &failed)) {
		if (!failed)
			return name;
	}
	return NULL;
}

static unsigned long bit_of(const char *point, size_t len)
{
	unsigned long failed, bit = 1;
	char text[2048], name[32], *at = text;

	read_points(text, sizeof(text));
	for (; next_point(&at, name, &failed); bit <<= 1) {
		if (strlen(name) == len && !strncmp(name, point, len))
			return bit;
	}
	t_die("no fault point %s", point);
}

/* @names: separated by spaces, or NULL for all. */
static unsigned long mask_of(const char *names)
{
	unsigned long mask = 0;
	size_t len;

	if (!names)
		return 0xffffffff;
	for (; *names; names += len + (names[len] == ' ')) {
		len = strcspn(names, " ");
		mask |= bit_of(names, len);
	}
	return mask;
}

/*
 * After @skip passes of these points each fails with @percent, @times times, -1 for
 * ever.
 */
void t_fail_points(const char *names, unsigned int skip, unsigned int percent, long times)
{
	set(POINTS, "probability", 0);
	set(POINTS, "mask", mask_of(names));
	/* a budget of which each pass takes one, as long as there is more than that */
	set(POINTS, "space", skip + 1);
	set(POINTS, "times", times);
	set(POINTS, "probability", percent);
}

void t_fail_points_end(void)
{
	set(POINTS, "probability", 0);
}

/* ---- the kernel's allocators, where a module is among the callers ---- */

/*
 * From the page of a module's first function to that of its last: its text is in pages
 * of its own, while its data may be anywhere, with other modules' text between them.
 */
static void module_text(const char *module, char *start, char *end, size_t len)
{
	unsigned long addr, first = -1UL, last = 0;
	char type, of[64], line[512];
	FILE *f = fopen("/proc/kallsyms", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx %c %*s [%63[^]]]", &addr, &type, of) != 3 ||
		    strcmp(of, module) || (type != 't' && type != 'T'))
			continue;
		first = addr < first ? addr : first;
		last = addr > last ? addr : last;
	}
	if (f)
		fclose(f);
	if (!last)
		t_die("no text of %s in /proc/kallsyms", module);
	snprintf(start, len, "0x%lx\n", first & -T_PAGE);
	snprintf(end, len, "0x%lx\n", (last | (T_PAGE - 1)) + 1);
}

static void allocator(const char *dir, const char *start, const char *end,
		      unsigned int percent)
{
	/* first: without a range everything would fail, this too */
	set(dir, "probability", 0);
	set_text(dir, "require-start", start);
	set_text(dir, "require-end", end);
	set(dir, "times", percent ? TIMES : 1);
	set(dir, "probability", percent);
}

/* Returns how many have failed until now. */
static long allocator_end(const char *dir)
{
	char path[128];
	long left;

	snprintf(path, sizeof(path), DEBUGFS "%stimes", dir);
	set(dir, "probability", 0);
	left = t_read_long(path);
	allocator(dir, "0", "0xffffffffffffffff", 0);
	return TIMES - left;
}

/* Each allocation by @module, in whichever task, fails with @percent. */
void t_fail_module(const char *module, unsigned int percent)
{
	char start[32], end[32];

	module_text(module, start, end, sizeof(start));
	allocator("failslab/", start, end, percent);
	allocator("fail_page_alloc/", start, end, percent);
}

long t_fail_module_end(void)
{
	long slab = allocator_end("failslab/");
	long pages = allocator_end("fail_page_alloc/");

	t_diag("%ld of slab and %ld of pages failed", slab, pages);
	return slab + pages;
}
