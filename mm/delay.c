// SPDX-License-Identifier: GPL-2.0
/*
 * Points at which a debug build can be told to dawdle, in
 * /sys/kernel/debug/mm_mirror/delay, so that a test can hold the window of a race
 * open; beside it, in delayed, is whether somebody is in it.  Documentation/locking.md
 * has the races.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>

#include "internal.h"

/* Longest delay where nothing may sleep: well below what the watchdogs watch for. */
#define DELAY_ATOMIC_MAX_US	500000

/* How often a longer one looks whether it is to end. */
#define DELAY_STEP_US		5000

static const struct {
	const char *name;
	bool atomic;
} points[DELAY_NR] = {
	[DELAY_TAKE_TO_DROP]		= { "take_to_drop", true },
	[DELAY_FAULT_TO_INSTALL]	= { "fault_to_install" },
	[DELAY_MARK_TO_WAIT]		= { "mark_to_wait" },
	[DELAY_ZAP_TO_TELL]		= { "zap_to_tell", true },
	[DELAY_FIND_TO_AGE]		= { "find_to_age", true },
	[DELAY_REAP_TO_UNLINK]		= { "reap_to_unlink" },
	[DELAY_UNLINK_TO_REMOVE]	= { "unlink_to_remove" },
	[DELAY_DONE_TO_CALL]		= { "done_to_call", true },
	[DELAY_WAKE_TO_SLEEP]		= { "wake_to_sleep" },
	[DELAY_FAULT_TO_PARK]		= { "fault_to_park" },
	[DELAY_LAST_TO_PUT]		= { "last_to_put", true },
	[DELAY_END_TO_RELEASE]		= { "end_to_release" },
};

static u32 delay_us[DELAY_NR];

/* How many are dawdling there now: for who wants to act while one is. */
static atomic_t inside[DELAY_NR];

static u32 delay_get(enum mirror_delay point)
{
	/* debugfs stores it, without a mark */
	return data_race(READ_ONCE(delay_us[point]));
}

/* Whole milliseconds: who waits for it sleeps longer than that. */
static void delay_atomic(enum mirror_delay point, u32 us)
{
	u32 ms = min_t(u32, us, DELAY_ATOMIC_MAX_US) / USEC_PER_MSEC;

	while (ms-- && delay_get(point))
		mdelay(1);
}

static void delay_sleep(enum mirror_delay point, u32 us)
{
	ktime_t end = ktime_add_us(ktime_get(), us);

	do {
		fsleep(min_t(u32, us, DELAY_STEP_US));
	} while (delay_get(point) && ktime_before(ktime_get(), end));
}

/* For as long as is set, or until that is set to 0. */
void mirror_delay(enum mirror_delay point)
{
	u32 us = delay_get(point);

	if (!us)
		return;
	atomic_inc(&inside[point]);
	if (points[point].atomic)
		delay_atomic(point, us);
	else
		delay_sleep(point, us);
	atomic_dec(&inside[point]);
}

/**
 * mm_mirror_delay_park - dawdle before a client waits for its fault
 *
 * Between mm_mirror_fault() and where the client's teardown finds the fault. In debug
 * builds only.
 *
 * Context: process context; may sleep.
 */
void mm_mirror_delay_park(void)
{
	mirror_delay(DELAY_FAULT_TO_PARK);
}
EXPORT_SYMBOL_GPL(mm_mirror_delay_park);

void __init delay_init(struct dentry *stat_dir)
{
	struct dentry *set = debugfs_create_dir("delay", stat_dir);
	struct dentry *now = debugfs_create_dir("delayed", stat_dir);
	unsigned int i;

	for (i = 0; i < DELAY_NR; i++) {
		debugfs_create_u32(points[i].name, 0600, set, &delay_us[i]);
		debugfs_create_atomic_t(points[i].name, 0400, now, &inside[i]);
	}
}
