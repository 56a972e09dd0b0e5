// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ibv_advise_mr() for a provider that has none: the kernel's method, by ioctl, as
 * providers that have it call it.
 */
#include <errno.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "libunpin.h"

_Static_assert(sizeof(struct ibv_sge) == sizeof(struct ib_uverbs_sge) &&
	       offsetof(struct ibv_sge, length) == offsetof(struct ib_uverbs_sge, length) &&
	       offsetof(struct ibv_sge, lkey) == offsetof(struct ib_uverbs_sge, lkey),
	       "the list goes to the kernel as it is");

enum { PD, ADVICE, FLAGS, SGE_LIST, ATTRS };

struct command {
	struct ib_uverbs_ioctl_hdr hdr;
	struct ib_uverbs_attr attrs[ATTRS];
};

/* Data of up to 8 bytes lies in the attribute itself. */
static struct ib_uverbs_attr attr(uint16_t id, uint16_t len, uint64_t data)
{
	return (struct ib_uverbs_attr) {
		.attr_id = id, .len = len, .flags = UVERBS_ATTR_F_MANDATORY, .data = data,
	};
}

static int call(int fd, struct command *cmd)
{
	if (!ioctl(fd, RDMA_VERBS_IOCTL, &cmd->hdr))
		return 0;
	/* a kernel without the method, or without any */
	if (errno == ENOTTY || errno == EPROTONOSUPPORT)
		return EOPNOTSUPP;
	return errno;
}

static int advise_mr(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags,
		     struct ibv_sge *sg_list, uint32_t num_sge)
{
	struct command cmd = {
		.hdr = {
			.length = sizeof(cmd),
			.object_id = UVERBS_OBJECT_MR,
			.method_id = UVERBS_METHOD_ADVISE_MR,
			.num_attrs = ATTRS,
			.driver_id = RDMA_DRIVER_RXE,
		},
	};
	size_t bytes = num_sge * sizeof(*sg_list);
	uint64_t list = (uintptr_t)sg_list;

	/* the length of an attribute has 16 bits */
	if (num_sge > UINT16_MAX / sizeof(*sg_list))
		return EINVAL;
	cmd.attrs[PD] = attr(UVERBS_ATTR_ADVISE_MR_PD_HANDLE, 0, pd->handle);
	cmd.attrs[ADVICE] = attr(UVERBS_ATTR_ADVISE_MR_ADVICE, sizeof(uint64_t), advice);
	cmd.attrs[FLAGS] = attr(UVERBS_ATTR_ADVISE_MR_FLAGS, sizeof(uint32_t), flags);
	cmd.attrs[SGE_LIST] = attr(UVERBS_ATTR_ADVISE_MR_SGE_LIST, bytes, list);
	return call(pd->context->cmd_fd, &cmd);
}

/*
 * A context has libibverbs' own function, which only says that there is none, unless
 * its provider has one: that is then in the provider. @libibverbs: a function of it.
 */
void unpin_set_advise_mr(struct verbs_context *context, const void *libibverbs)
{
	if (context->sz < sizeof(*context) - offsetof(struct verbs_context, advise_mr))
		return;
	if (!context->advise_mr ||
	    unpin_same_object((const void *)context->advise_mr, libibverbs))
		context->advise_mr = advise_mr;
}
