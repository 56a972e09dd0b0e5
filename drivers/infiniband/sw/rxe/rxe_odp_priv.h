/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the on-demand layer know of each other.
 */

#ifndef RXE_ODP_PRIV_H
#define RXE_ODP_PRIV_H

#include <linux/mm_mirror.h>

#include "rxe.h"

static inline unsigned long rxe_odp_addr(const struct rxe_mr *mr, u64 iova)
{
	return mr->odp.start + (iova - mr->ibmr.iova);
}

/* The part of [@iova, @iova + @length) that is in the MR; @iova is. */
static inline u64 rxe_odp_clamp(const struct rxe_mr *mr, u64 iova, u64 length)
{
	return min(length, mr->ibmr.length - (iova - mr->ibmr.iova));
}

/**
 * struct rxe_odp_want - what an access waits for
 * @mr: whose mirror's memory; the caller has a reference
 * @write: the access writes
 * @nr: of @range
 * @range: which memory
 */
struct rxe_odp_want {
	struct rxe_mr		*mr;
	bool			write;
	unsigned int		nr;
	struct mm_mirror_range	range[MM_MIRROR_FAULT_RANGES];
};

int rxe_odp_slot_wait(struct rxe_odp_slot *slot, const struct rxe_odp_want *want);
int rxe_odp_slot_retry(struct rxe_odp_slot *slot);

#endif /* RXE_ODP_PRIV_H */
