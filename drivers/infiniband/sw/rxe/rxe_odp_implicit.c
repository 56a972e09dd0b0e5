// SPDX-License-Identifier: GPL-2.0
/*
 * Implicit regions: all of a process's memory under one key, whatever is mapped there
 * before the registration or after it, at the addresses that the process itself uses.
 *
 * Such a region is a window like others, of the largest size.  A peer chooses the
 * address, so nothing is kept for one that nothing is mapped at: above the address
 * space it is refused by its number, below by a look for a mapping, before there is a
 * leaf for it.  What a device may not touch it may not touch here either.
 *
 * Who has the key of a remote one can do to the process what a debugger can.  That is
 * the process's own to give, over nothing but itself, so it is allowed by default; the
 * administrator who knows better has a switch.  Documentation/implicit.md argues that.
 */

#include <linux/module.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "rxe.h"
#include "rxe_odp_priv.h"

enum implicit_mode {
	IMPLICIT_OFF,
	IMPLICIT_LOCAL,
	IMPLICIT_ON,
};

static const char * const mode_names[] = {
	[IMPLICIT_OFF]		= "off",
	[IMPLICIT_LOCAL]	= "local",
	[IMPLICIT_ON]		= "on",
};

static int implicit_mode = IMPLICIT_ON;

static int mode_set(const char *text, const struct kernel_param *kp)
{
	int mode = sysfs_match_string(mode_names, text);

	if (mode < 0)
		return mode;
	WRITE_ONCE(implicit_mode, mode);
	return 0;
}

static int mode_get(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%s\n", mode_names[READ_ONCE(implicit_mode)]);
}

static const struct kernel_param_ops mode_ops = {
	.set = mode_set,
	.get = mode_get,
};

module_param_cb(implicit_mr, &mode_ops, NULL, 0644);
MODULE_PARM_DESC(implicit_mr,
		 "registrations of a whole address space: off, local (without any right of a peer), on (default)");

/* Whatever lets a peer in, by the region's key or by that of a memory window. */
#define IMPLICIT_REMOTE	(RXE_ACCESS_REMOTE | RXE_ACCESS_FLUSH | IB_ACCESS_MW_BIND)

/**
 * rxe_odp_implicit_check - may an implicit MR have these rights now?
 * @access: IB_ACCESS_*
 *
 * FLUSH of all of it would be an error: an address space has holes.
 *
 * Context: any.
 *
 * Return: 0; -EOPNOTSUPP if there are none, or for FLUSH; -EPERM if a peer may have
 * no right in one.
 */
int rxe_odp_implicit_check(int access)
{
	int mode = READ_ONCE(implicit_mode);

	if (mode == IMPLICIT_OFF || (access & RXE_ACCESS_FLUSH))
		return -EOPNOTSUPP;
	if (mode == IMPLICIT_LOCAL && (access & IMPLICIT_REMOTE))
		return -EPERM;
	return 0;
}

/* What the device says that it can do, which the administrator may change. */
void rxe_odp_query_caps(struct ib_device_attr *attr)
{
	if (READ_ONCE(implicit_mode) != IMPLICIT_OFF)
		attr->odp_caps.general_caps |= IB_ODP_SUPPORT_IMPLICIT;
}
