/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the on-demand layer know of each other.
 */

#ifndef RXE_ODP_PRIV_H
#define RXE_ODP_PRIV_H

#include <linux/mm_mirror.h>

#include "rxe.h"

#define RXE_ACCESS_FLUSH	(IB_ACCESS_FLUSH_GLOBAL | IB_ACCESS_FLUSH_PERSISTENT)

/* No other region is as long: it would not fit into the address space. */
static inline bool rxe_odp_is_implicit(const struct rxe_mr *mr)
{
	return mr->ibmr.length == U64_MAX;
}

static inline unsigned long rxe_odp_addr(const struct rxe_mr *mr, u64 iova)
{
	return mr->odp.start + (iova - mr->ibmr.iova);
}

/* The part of [@iova, @iova + @length) that is in the MR; @iova is. */
static inline u64 rxe_odp_clamp(const struct rxe_mr *mr, u64 iova, u64 length)
{
	return min(length, mr->ibmr.length - (iova - mr->ibmr.iova));
}

/* As much of @length bytes as lies in the page of @iova. */
static inline size_t rxe_odp_in_page(const struct rxe_mr *mr, u64 iova, u64 length)
{
	return min_t(u64, length,
		     PAGE_SIZE - offset_in_page(rxe_odp_addr(mr, iova)));
}

/* A page to be flushed must be one that could have been written to, if any may be. */
static inline bool rxe_odp_flush_writes(const struct rxe_mr *mr)
{
	return mr->access & IB_ACCESS_LOCAL_WRITE;
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

int rxe_odp_check_range(u64 start, u64 length, u64 iova);
int rxe_odp_implicit_check(int access);
const char *rxe_odp_pinned_why(const struct rxe_mr *mr);

int rxe_odp_slot_wait(struct rxe_odp_slot *slot, const struct rxe_odp_want *want);
int rxe_odp_slot_retry(struct rxe_odp_slot *slot);
struct mm_mirror_fault *rxe_odp_slot_grant(struct rxe_odp_slot *slot);

#endif /* RXE_ODP_PRIV_H */
