// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Pages that take seconds: a test serves its own, or a device-mapper delays the disk. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>

#include "t_slow.h"

#define SLOW_SWAP	"/dev/mapper/unpin-slow"
#define DMSETUP		"DM_DISABLE_UDEV=1 dmsetup "

/* ---- a handler that takes its time ---- */

/* Nothing is watched yet. */
void t_slow_open(struct t_slow *s, size_t stride, unsigned int pieces)
{
	s->stride = stride;
	s->n = 0;
	s->base = t_map(pieces * stride, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	s->uffd = t_uffd_open();
}

void t_slow_take(struct t_slow *s, int ms)
{
	u64 address;

	while (s->n < T_ARRAY_SIZE(s->due) && t_uffd_wait(s->uffd, ms, &address)) {
		s->address[s->n] = address;
		s->due[s->n++] = t_now_ms() + s->ms;
	}
}

void t_slow_serve(struct t_slow *s)
{
	u64 offset, now = t_now_ms();
	u8 page[T_PAGE];
	unsigned int i;

	for (i = 0; i < s->n; i++) {
		if (!s->address[i] || s->due[i] > now)
			continue;
		offset = (s->address[i] - (uintptr_t)s->base) % s->stride;
		t_fill_at(page, T_PAGE, offset, s->round);
		t_uffd_serve(s->uffd, s->address[i], page);
		s->address[i] = 0;
	}
}

/* ---- a disk that takes its time ---- */

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	t_check(!system(command), "%s", command);
}

/* Swap that is used before any other, and takes @ms for each read. */
void t_slow_swap_open(unsigned int ms)
{
	const char *disks = getenv("UNPIN_DISKS");
	char disk[64];

	if (!disks || sscanf(disks, "%63s", disk) != 1)
		t_die("no disk in UNPIN_DISKS: this test wants a guest with --disk");
	/* what a case left that failed */
	run("! dmsetup status unpin-slow >/dev/null 2>&1 || "
	    "{ dmsetup resume unpin-slow; swapoff " SLOW_SWAP "; "
	    DMSETUP "remove unpin-slow; }");
	run("modprobe dm-delay && mkswap %s >/dev/null 2>&1", disk);
	run(DMSETUP "create unpin-slow --table "
	    "\"0 $(blockdev --getsz %s) delay %s 0 %u %s 0 0\" >/dev/null", disk, disk, ms, disk);
	if (swapon(SLOW_SWAP, SWAP_FLAG_PREFER | 100))
		t_die("swapon: %s", strerror(errno));
}

/* What is still in it is read back first. */
void t_slow_swap_close(void)
{
	if (swapoff(SLOW_SWAP))
		t_die("swapoff: %s", strerror(errno));
	run(DMSETUP "remove unpin-slow");
}

/* What is read from it now comes when it is released, however long that takes. */
void t_slow_swap_hold(void)
{
	run(DMSETUP "suspend --noflush --nolockfs unpin-slow");
}

void t_slow_swap_release(void)
{
	run(DMSETUP "resume unpin-slow");
}

/* Pieces that each hold the pattern; charged to the group of this process. */
u8 *t_slow_swap_map(size_t stride, unsigned int pieces, u64 round)
{
	u8 *p = t_map(pieces * stride, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	unsigned int i;

	t_check(!madvise(p, pieces * stride, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	for (i = 0; i < pieces; i++)
		t_fill(p + i * stride, stride, round);
	return p;
}

/*
 * Out of memory, and out of the swap cache, so that it has to be read. What else this
 * process has stays, or it would wait for that itself.
 */
void t_slow_swap_evict(const char *group, u8 *p, size_t len)
{
	char text[32], path[128];
	long cached;
	int tries;

	t_check(!mlockall(MCL_CURRENT) && !munlock(p, len), "mlockall: %s", strerror(errno));
	t_check(t_pageout(p, len), "the region stays in memory");
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.reclaim", group);
	for (tries = 0; tries < 200; tries++) {
		cached = t_group_value(group, "memory.stat", "swapcached");
		if (!cached)
			return;
		snprintf(text, sizeof(text), "%ld", cached);
		/* an error if it was less than that */
		t_write_file(path, text);
		t_sleep_ms(20);
	}
	t_check(false, "%ld bytes stay in the swap cache", cached);
}
