// SPDX-License-Identifier: GPL-2.0
/*
 * What can be seen from debugfs, in /sys/kernel/debug/mm_mirror: counters of slow
 * paths.
 */

#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "internal.h"

atomic_long_t mirror_stats[STAT_NR];

static const char * const stat_names[STAT_NR] = {
	[STAT_MIRRORS]			= "mirrors",
	[STAT_SUBSCRIPTIONS]		= "subscriptions",
	[STAT_LEAVES]			= "leaves",
	[STAT_TABLE_LEAVES]		= "table_leaves",
	[STAT_HUGE_LEAVES]		= "huge_leaves",
	[STAT_FAULTS]			= "faults",
	[STAT_FAULT_PAGES]		= "fault_pages",
	[STAT_FAULT_RETRIES]		= "fault_retries",
	[STAT_FAULT_ERRORS]		= "fault_errors",
	[STAT_FAULTS_RUNNING]		= "faults_running",
	[STAT_GRANTS]			= "grants",
	[STAT_INVALIDATIONS]		= "invalidations",
	[STAT_INVALIDATE_REFUSED]	= "invalidate_refused",
	[STAT_FENCE_WAITS]		= "fence_waits",
};

static struct dentry *stat_dir;

static int stats_show(struct seq_file *m, void *unused)
{
	unsigned int i;

	for (i = 0; i < STAT_NR; i++)
		seq_printf(m, "%s %ld\n", stat_names[i],
			   atomic_long_read(&mirror_stats[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/* Returns the directory. */
struct dentry * __init stat_init(void)
{
	stat_dir = debugfs_create_dir("mm_mirror", NULL);
	debugfs_create_file("stats", 0400, stat_dir, NULL, &stats_fops);
	return stat_dir;
}

void stat_exit(void)
{
	debugfs_remove_recursive(stat_dir);
}
