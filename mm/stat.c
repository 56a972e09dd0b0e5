// SPDX-License-Identifier: GPL-2.0
/*
 * Counters of slow paths, for all mirrors together, in
 * /sys/kernel/debug/mm_mirror/stats.
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
	[STAT_PREFETCHES]		= "prefetches",
	[STAT_PREFETCH_PAGES]		= "prefetch_pages",
	[STAT_GRANTS]			= "grants",
	[STAT_INVALIDATE_REFUSED]	= "invalidate_refused",
	[STAT_FENCE_WAITS]		= "fence_waits",
};

static atomic_long_t invalidations[MIRROR_EVENTS];

static const char * const event_names[MIRROR_EVENTS] = {
	[MMU_NOTIFY_UNMAP]		= "unmap",
	[MMU_NOTIFY_CLEAR]		= "clear",
	[MMU_NOTIFY_PROTECTION_VMA]	= "protection_vma",
	[MMU_NOTIFY_PROTECTION_PAGE]	= "protection_page",
	[MMU_NOTIFY_SOFT_DIRTY]		= "soft_dirty",
	[MMU_NOTIFY_RELEASE]		= "release",
	[MMU_NOTIFY_MIGRATE]		= "migrate",
	[MMU_NOTIFY_EXCLUSIVE]		= "exclusive",
};

static struct dentry *stat_dir;

/* One that found something. */
void stat_invalidation(enum mmu_notifier_event type)
{
	/* another kernel may know more of them */
	if (type < MIRROR_EVENTS)
		atomic_long_inc(&invalidations[type]);
}

static void show_invalidations(struct seq_file *m)
{
	long n[MIRROR_EVENTS], sum = 0;
	unsigned int i;

	for (i = 0; i < MIRROR_EVENTS; i++) {
		n[i] = atomic_long_read(&invalidations[i]);
		sum += n[i];
	}
	seq_printf(m, "invalidations %ld\n", sum);
	for (i = 0; i < MIRROR_EVENTS; i++)
		seq_printf(m, "invalidations_%s %ld\n", event_names[i], n[i]);
}

static int stats_show(struct seq_file *m, void *unused)
{
	struct mirror_survey sum = {};
	unsigned int i;

	for (i = 0; i < STAT_NR; i++)
		seq_printf(m, "%s %ld\n", stat_names[i],
			   atomic_long_read(&mirror_stats[i]));
	show_invalidations(m);
	live_survey(&sum);
	seq_printf(m, "entries_present %lu\nentries_held %lu\n", sum.present,
		   sum.held);
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
