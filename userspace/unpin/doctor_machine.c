// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What on-demand memory works without, but not as well, or not to be seen. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "doctor.h"

#define STATS	"/sys/kernel/debug/mm_mirror/stats"

static void locked_memory(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY || !geteuid())
		doctor_ok("limits", "memory may be locked without limit; on demand none is");
	else if (!limit.rlim_cur)
		doctor_note("limits", "no memory may be locked: what is pinned is refused");
	else
		doctor_ok("limits", "%llu KiB may be locked; memory on demand does not count",
			  (unsigned long long)limit.rlim_cur >> 10);
}

static void swap(void)
{
	long kb = doctor_value("/proc/meminfo", "SwapTotal:");

	if (kb > 0)
		doctor_ok("swap", "%ld MiB", kb >> 10);
	else
		doctor_note("swap", "there is none: it works, but anonymous memory cannot leave");
}

static void huge_pages(void)
{
	char text[64];

	if (!doctor_read(text, sizeof(text), "/sys/kernel/mm/transparent_hugepage/enabled"))
		doctor_note("huge pages", "this kernel has no transparent ones");
	else if (strstr(text, "[never]"))
		doctor_note("huge pages", "transparent ones are off: devices fault page by page");
	else
		doctor_ok("huge pages", "transparent ones are there (%s)", text);
}

/* debugfs is for root; what it shows is not needed for anything. */
static void statistics(const struct doctor *d)
{
	if (!d->ours)
		return;
	if (!access(STATS, R_OK)) {
		doctor_ok("statistics", "they are in " STATS);
	} else if (geteuid()) {
		doctor_note("statistics", "not looked at: " STATS " is for root");
	} else {
		doctor_note("statistics", STATS ": %s", strerror(errno));
		doctor_remedy("mount -t debugfs debugfs /sys/kernel/debug");
	}
}

void doctor_machine(const struct doctor *d)
{
	locked_memory();
	swap();
	huge_pages();
	statistics(d);
}
