// SPDX-License-Identifier: GPL-2.0
/*
 * Fault points: what may fail for want of memory can be made to fail, in debug
 * builds for kernels with fault injection.  The kernel's own fail-nth is of one task,
 * and what a device needs is done by workers; so these have an attribute of their
 * own, in /sys/kernel/debug/mm_mirror/fail_mirror, like failslab's, and two files:
 *
 *	mask	the points that take part, bit n for line n of
 *	points	name, times passed, times failed
 *
 * With probability 100 and times 1, "space" N makes the Nth point passed fail.
 */

#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>

#include "internal.h"

static struct {
	struct fault_attr attr;
	u32 mask;
} fail_mirror = {
	.attr = FAULT_ATTR_INITIALIZER,
	.mask = U32_MAX,
};

/* should_fail() of two tasks at a time may count one of them only. */
static DEFINE_SPINLOCK(fail_lock);

static struct {
	const char *name;
	unsigned long passed;
	unsigned long failed;
} fail_points[FAIL_NR] = {
	[FAIL_FAULT]		= { "fault" },
	[FAIL_PFNS]		= { "pfns" },
	[FAIL_LEAF]		= { "leaf" },
	[FAIL_INDEX]		= { "index" },
	[FAIL_NOTIFIER]		= { "notifier" },
	[FAIL_TABLE]		= { "table" },
	[FAIL_HUGE]		= { "huge" },
	[FAIL_PAGE]		= { "page" },
	[FAIL_PAGE_AHEAD]	= { "page_ahead" },
	[FAIL_GRANT]		= { "grant" },
	[FAIL_PIN]		= { "pin" },
};

/* Returns 0, or -ENOMEM instead of what the caller was about to do. */
int mirror_fail(enum mirror_fail point)
{
	bool fail = false;

	spin_lock(&fail_lock);
	WRITE_ONCE(fail_points[point].passed, fail_points[point].passed + 1);
	/* debugfs stores it, without a mark */
	if (data_race(READ_ONCE(fail_mirror.mask)) & BIT(point))
		fail = should_fail(&fail_mirror.attr, 1);
	WRITE_ONCE(fail_points[point].failed, fail_points[point].failed + fail);
	spin_unlock(&fail_lock);
	return fail ? -ENOMEM : 0;
}

static int points_show(struct seq_file *m, void *unused)
{
	unsigned int i;

	for (i = 0; i < FAIL_NR; i++)
		seq_printf(m, "%s %lu %lu\n", fail_points[i].name,
			   READ_ONCE(fail_points[i].passed),
			   READ_ONCE(fail_points[i].failed));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(points);

void __init fail_init(struct dentry *parent)
{
	struct dentry *dir = fault_create_debugfs_attr("fail_mirror", parent,
						       &fail_mirror.attr);

	debugfs_create_x32("mask", 0600, dir, &fail_mirror.mask);
	debugfs_create_file("points", 0400, dir, NULL, &points_fops);
}
