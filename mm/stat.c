// SPDX-License-Identifier: GPL-2.0
/*
 * What can be seen and set from debugfs, in /sys/kernel/debug/mm_mirror: counters
 * of slow paths, and in debug builds the delay points.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/seq_file.h>

#include "internal.h"

atomic_long_t mirror_stats[STAT_NR];

static const char * const stat_names[STAT_NR] = {
	[STAT_MIRRORS]			= "mirrors",
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

#ifdef CONFIG_MM_MIRROR_DEBUG
/* Longest delay with preemption off: well below what the watchdogs watch for. */
#define DELAY_ATOMIC_MAX_US	500000

static u32 delay_us[DELAY_NR];

static const char * const delay_names[DELAY_NR] = {
	[DELAY_TAKE_TO_DROP]		= "take_to_drop",
	[DELAY_FAULT_TO_INSTALL]	= "fault_to_install",
	[DELAY_MARK_TO_WAIT]		= "mark_to_wait",
};

void mirror_delay(enum mirror_delay point)
{
	u32 us = READ_ONCE(delay_us[point]);

	if (!us)
		return;
	if (point != DELAY_TAKE_TO_DROP) {
		fsleep(us);
		return;
	}
	/* whole milliseconds: who waits for it sleeps longer than that */
	mdelay(min_t(u32, us, DELAY_ATOMIC_MAX_US) / USEC_PER_MSEC);
}

static void delay_init(void)
{
	struct dentry *dir = debugfs_create_dir("delay", stat_dir);
	unsigned int i;

	for (i = 0; i < DELAY_NR; i++)
		debugfs_create_u32(delay_names[i], 0600, dir, &delay_us[i]);
}
#else
static void delay_init(void)
{
}
#endif

/* Returns the directory. */
struct dentry * __init stat_init(void)
{
	stat_dir = debugfs_create_dir("mm_mirror", NULL);
	debugfs_create_file("stats", 0400, stat_dir, NULL, &stats_fops);
	delay_init();
	return stat_dir;
}

void stat_exit(void)
{
	debugfs_remove_recursive(stat_dir);
}
