// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The two ways to get a context: what its provider lacks is added as soon as there
 * is one. Verbs that are inline functions call through it. And the one to give it back.
 */
#include "libunpin.h"

static struct ibv_context *complete(struct ibv_context *context, const void *libibverbs)
{
	struct verbs_context *verbs = context ? verbs_get_ctx(context) : NULL;

	if (verbs && unpin_is_rxe(context))
		unpin_set_advise_mr(verbs, libibverbs);
	return context;
}

UNPIN_EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct ibv_context *(*next)(struct ibv_device *device);

	next = unpin_next("ibv_open_device", "IBVERBS_1.1");
	return complete(next(device), (const void *)next);
}

UNPIN_EXPORT struct ibv_context *ibv_import_device(int cmd_fd)
{
	struct ibv_context *(*next)(int cmd_fd);

	next = unpin_next("ibv_import_device", "IBVERBS_1.10");
	return complete(next(cmd_fd), (const void *)next);
}

UNPIN_EXPORT int ibv_close_device(struct ibv_context *context)
{
	int (*next)(struct ibv_context *context);

	unpin_device_closes(context);
	next = unpin_next("ibv_close_device", "IBVERBS_1.1");
	return next(context);
}
