// SPDX-License-Identifier: GPL-2.0
/*
 * How long invalidations had to wait for holders: what the fence costs the mm.  The
 * time is taken only where somebody waits.
 */

#include <linux/debugfs.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/seq_file.h>
#include <trace/events/mm_mirror.h>

#include "internal.h"

/* By powers of two of microseconds; the last is for all that is above it. */
#define FENCE_BUCKETS	24

static atomic_long_t waits[FENCE_BUCKETS];

/* Returns what fence_end() wants. */
u64 fence_begin(void)
{
	stat_add(STAT_FENCE_WAITS, 1);
	return ktime_get_ns();
}

/* At @addr was a holder. */
void fence_end(const struct mm_mirror *mirror, unsigned long addr, u64 begin)
{
	u64 us = div_u64(ktime_get_ns() - begin, NSEC_PER_USEC);

	atomic_long_inc(&waits[min(fls64(us), FENCE_BUCKETS - 1)]);
	trace_mm_mirror_fence_wait(mirror, addr, us);
}

/* Each line: so many microseconds, or up to twice that, and how often. */
static int fence_waits_show(struct seq_file *m, void *unused)
{
	unsigned int i;

	for (i = 0; i < FENCE_BUCKETS; i++)
		seq_printf(m, "%lu %ld\n", i ? BIT(i - 1) : 0,
			   atomic_long_read(&waits[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(fence_waits);

void __init fence_init(struct dentry *dir)
{
	debugfs_create_file("fence_waits", 0400, dir, NULL, &fence_waits_fops);
}
