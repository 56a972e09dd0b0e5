// SPDX-License-Identifier: GPL-2.0
/*
 * What a debug build can be told to leave out, in /sys/kernel/debug/mm_mirror, so
 * that a test has both beside each other in one boot.
 *
 *	aging	(Y) if N, reclaim is told that no device uses anything, and nothing
 *		is cleared
 */

#include <linux/debugfs.h>

#include "internal.h"

static bool aging = true;

bool mirror_aging(void)
{
	/* debugfs stores it, without a mark */
	return data_race(READ_ONCE(aging));
}

void __init switch_init(struct dentry *dir)
{
	debugfs_create_bool("aging", 0600, dir, &aging);
}
