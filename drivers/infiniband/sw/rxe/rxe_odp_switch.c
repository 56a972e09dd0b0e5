// SPDX-License-Identifier: GPL-2.0
/*
 * Registrations on demand for programs that do not ask for it: a parameter of the
 * module, which each device can overrule, makes of a user's registration what
 * IB_ACCESS_ON_DEMAND would have made of it.
 *
 * The program does not know, so nothing that worked may fail, and what failed fails
 * with the same error.  Hence what is doubtful is pinned, as if there were no switch:
 * that succeeds, or gives the error.  The mappings are looked at when the memory is
 * registered, and no page of them is.  What was pinned, and why, is counted, traced
 * and said of the region; a user cannot fill the kernel's log with it.
 *
 * Regions of the kernel's own are left alone: it has not asked, and might wait for
 * what it serves itself.  Documentation/transparent.md has the rest.
 */

#include <linux/device.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#include "rxe.h"
#include "rxe_odp_priv.h"

#define CREATE_TRACE_POINTS
#include <trace/events/rxe_odp.h>

static const struct {
	const char		*name;
	enum rxe_counters	counter;
} reasons[] = {
	[RXE_ODP_UNASKED]	 = { "unasked", RXE_CNT_MR_ON_DEMAND },
	[RXE_ODP_PINNED_RIGHTS]	 = { "rights", RXE_CNT_MR_PINNED_RIGHTS },
	[RXE_ODP_PINNED_RANGE]	 = { "range", RXE_CNT_MR_PINNED_RANGE },
	[RXE_ODP_PINNED_MEMORY]	 = { "memory", RXE_CNT_MR_PINNED_MEMORY },
	[RXE_ODP_PINNED_HANDLER] = { "handler", RXE_CNT_MR_PINNED_HANDLER },
};

enum policy {
	POLICY_DEFAULT,
	POLICY_ASKED,
	POLICY_ALWAYS,
};

static const char * const policy_names[] = {
	[POLICY_DEFAULT]	= "default",
	[POLICY_ASKED]		= "asked",
	[POLICY_ALWAYS]		= "always",
};

/* ---- the module's, for all devices that have none of their own ---- */

static int module_policy = POLICY_ASKED;

static int policy_set(const char *text, const struct kernel_param *kp)
{
	int policy = sysfs_match_string(policy_names, text);

	if (policy < 0)
		return policy;
	if (policy == POLICY_DEFAULT)
		return -EINVAL;
	WRITE_ONCE(module_policy, policy);
	return 0;
}

static int policy_get(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%s\n", policy_names[READ_ONCE(module_policy)]);
}

static const struct kernel_param_ops policy_ops = {
	.set = policy_set,
	.get = policy_get,
};

module_param_cb(on_demand_mr, &policy_ops, NULL, 0644);
MODULE_PARM_DESC(on_demand_mr,
		 "which registrations of users are on-demand: asked (default), always (where possible)");

/* ---- a device's ---- */

static struct rxe_dev *rxe_of(struct device *device)
{
	return rdma_device_to_drv_device(device, struct rxe_dev, ib_dev);
}

static ssize_t on_demand_mr_show(struct device *device,
				 struct device_attribute *attr, char *buf)
{
	int policy = READ_ONCE(rxe_of(device)->odp_policy);

	return sysfs_emit(buf, "%s\n", policy_names[policy]);
}

static ssize_t on_demand_mr_store(struct device *device,
				  struct device_attribute *attr,
				  const char *buf, size_t count)
{
	int policy = sysfs_match_string(policy_names, buf);

	if (policy < 0)
		return policy;
	WRITE_ONCE(rxe_of(device)->odp_policy, policy);
	return count;
}

struct device_attribute rxe_odp_attr = __ATTR_RW(on_demand_mr);

static bool policy_is_always(const struct rxe_dev *rxe)
{
	int policy = READ_ONCE(rxe->odp_policy);

	if (policy == POLICY_DEFAULT)
		policy = READ_ONCE(module_policy);
	return policy == POLICY_ALWAYS;
}

/* ---- a registration ---- */

static enum rxe_odp_reason reason_of_memory(u64 start, u64 length, int access)
{
	switch (mm_mirror_admits(untagged_addr(start), length,
				 ib_access_writable(access))) {
	case MM_MIRROR_ADMITTED:
		return RXE_ODP_UNASKED;
	case MM_MIRROR_UNFIT:
		return RXE_ODP_PINNED_MEMORY;
	case MM_MIRROR_UNHEARD:
		return RXE_ODP_PINNED_HANDLER;
	default:
		return RXE_ODP_PINNED_RANGE;
	}
}

static enum rxe_odp_reason reason_of(u64 start, u64 length, u64 iova, int access)
{
	/* that the memory is persistent is promised when it is registered */
	if (access & IB_ACCESS_FLUSH_PERSISTENT)
		return RXE_ODP_PINNED_RIGHTS;
	if (rxe_odp_check_range(start, length, iova))
		return RXE_ODP_PINNED_RANGE;
	return reason_of_memory(start, length, access);
}

/**
 * rxe_odp_wanted - is an MR to be on-demand?
 * @mr: the MR, of which nothing but its device is known yet; why is written down
 * @start: first address
 * @length: bytes
 * @iova: the address by which the MR will be used
 * @access: IB_ACCESS_*; if IB_ACCESS_ON_DEMAND is not among them the switch decides
 * @udata: of the verb, or NULL if the kernel registers for itself
 *
 * Context: process context; may sleep.
 *
 * Return: true for rxe_odp_mr_init(), false for pinned memory.
 */
bool rxe_odp_wanted(struct rxe_mr *mr, u64 start, u64 length, u64 iova,
		    int access, struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(mr->ibmr.device);
	enum rxe_odp_reason reason;

	if (access & IB_ACCESS_ON_DEMAND)
		return true;
	if (!udata || !policy_is_always(rxe))
		return false;

	reason = reason_of(start, length, iova, access);
	mr->odp.reason = reason;
	mr->odp.writable = ib_access_writable(access);
	rxe_counter_inc(rxe, reasons[reason].counter);
	trace_rxe_odp_switch(dev_name(&rxe->ib_dev.dev), start, length, access,
			     reasons[reason].name);
	return reason == RXE_ODP_UNASKED;
}

/**
 * rxe_odp_pinned_why - why an MR is pinned, although the switch was on
 * @mr: the MR
 *
 * Context: any.
 *
 * Return: a word, or NULL if it is not so.
 */
const char *rxe_odp_pinned_why(const struct rxe_mr *mr)
{
	return mr->odp.reason > RXE_ODP_UNASKED ? reasons[mr->odp.reason].name : NULL;
}

/*
 * What ib_umem_check_rereg() says of pinned memory: pages that were pinned for reading
 * cannot be written to.  These could, but the program would not find it so elsewhere.
 */
static int check_rereg_unasked(const struct rxe_mr *mr, int access)
{
	return ib_access_writable(access) && !mr->odp.writable ? -EACCES : 0;
}

/**
 * rxe_odp_mr_check_rereg - may an MR get other rights?
 * @mr: the MR
 * @flags: IB_MR_REREG_*
 * @access: the new ones
 *
 * An MR does not become on-demand, or cease to be, by changing its access. One that is
 * without having been asked to be is taken for a pinned one.
 *
 * Context: process context.
 *
 * Return: 0; -EOPNOTSUPP if it would change its kind; -EACCES; errors of
 * rxe_odp_implicit_check().
 */
int rxe_odp_mr_check_rereg(struct rxe_mr *mr, int flags, int access)
{
	bool unasked = mr->odp.reason == RXE_ODP_UNASKED;

	if (!(flags & IB_MR_REREG_ACCESS))
		return 0;
	if ((mr->odp.mirror && !unasked) != !!(access & IB_ACCESS_ON_DEMAND))
		return -EOPNOTSUPP;
	if (unasked)
		return check_rereg_unasked(mr, access);
	/* what only takes rights away is allowed whatever implicit_mr says */
	if (rxe_odp_is_implicit(mr) && (access & ~mr->access))
		return rxe_odp_implicit_check(access);
	return 0;
}
