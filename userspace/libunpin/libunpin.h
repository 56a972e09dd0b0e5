/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * libunpin.so, for LD_PRELOAD: what Debian 12's libibverbs lacks for on-demand memory
 * on rxe. What the files of it know of each other.
 */
#ifndef LIBUNPIN_H
#define LIBUNPIN_H

#include <infiniband/verbs.h>
#include <stdbool.h>

#define UNPIN_EXPORT	__attribute__((visibility("default")))

/* next.c */
void *unpin_next(const char *symbol, const char *version);
bool unpin_same_object(const void *a, const void *b);
bool unpin_is_rxe(const struct ibv_context *context);

/* advise.c */
void unpin_set_advise_mr(struct verbs_context *context, const void *libibverbs);

#endif
