// SPDX-License-Identifier: GPL-2.0
/*
 * FLUSH to persistence on an on-demand MR (IBA A19).
 *
 * What was written over RDMA may be in the CPU's cache, whether its page has a
 * translation at this moment or not: so every page of the range is needed.  As in a
 * pinned MR all of them have to be persistent memory.  That includes what was never
 * touched, so a hole in a file gets its blocks, as it would from pinning.
 *
 * A FLUSH that has to wait for a page goes on from there: what it has flushed before
 * stays flushed, and nothing of this queue pair comes in between.
 */

#include <linux/ioport.h>
#include <linux/libnvdimm.h>
#include <linux/mm_mirror.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_odp_priv.h"

static bool is_persistent(const void *addr)
{
	return region_intersects(virt_to_phys((void *)addr) & PAGE_MASK, PAGE_SIZE,
				 IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY) ==
	       REGION_INTERSECTS;
}

static int flush_piece(struct rxe_mr *mr, u64 iova, size_t bytes,
		       struct rxe_odp_slot *slot)
{
	struct mm_mirror_hold hold;
	int err;

	err = mm_mirror_take(mr->odp.mirror, rxe_odp_addr(mr, iova),
			     rxe_odp_flush_writes(mr), rxe_odp_slot_grant(slot),
			     &hold);
	if (err)
		return err;
	if (is_persistent(hold.addr))
		arch_wb_cache_pmem(hold.addr, bytes);
	else
		err = -EINVAL;
	mm_mirror_drop(&hold);
	return err;
}

/* Is it the FLUSH that was parked?  Then it goes on, or else begins. */
static void flush_resume(struct rxe_odp_flush *flush, u32 psn, u64 *iova,
			 u64 *length)
{
	if (flush->psn != psn || flush->iova != *iova ||
	    flush->length != *length)
		*flush = (struct rxe_odp_flush) {
			.psn = psn, .iova = *iova, .length = *length,
		};
	*iova += flush->done;
	*length -= flush->done;
}

/* Nobody waits for the end of a FLUSH: who goes away makes it one. */
static bool flush_may_go_on(const struct rxe_mr *mr, const struct rxe_qp *qp)
{
	return READ_ONCE(mr->state) == RXE_MR_STATE_VALID &&
	       !READ_ONCE(qp->odp.dead);
}

static int flush_rest(struct rxe_mr *mr, u64 *iova, u64 *length,
		      struct rxe_odp_slot *slot)
{
	struct rxe_odp_flush *flush = &slot->qp->odp.flush;
	size_t bytes;
	int err;

	while (*length) {
		if (!flush_may_go_on(mr, slot->qp))
			return -ECANCELED;
		bytes = rxe_odp_in_page(mr, *iova, *length);
		err = flush_piece(mr, *iova, bytes, slot);
		if (err)
			return err;
		*iova += bytes;
		*length -= bytes;
		flush->done += bytes;
		cond_resched();
	}
	return 0;
}

/**
 * rxe_odp_mr_flush - make a part of an on-demand MR persistent
 * @mr: the MR
 * @iova: first address; the range was checked. Where it ended, on -EAGAIN
 * @length: bytes, may be 0. What is left, on -EAGAIN
 * @slot: the responder's
 *
 * Context: the task of @slot; does not sleep for pages, but may for long be busy:
 * ends when the queue pair is being destroyed, or the MR deregistered.
 *
 * Return: 0, -EAGAIN to park, another error if the memory cannot be flushed.
 */
int rxe_odp_mr_flush(struct rxe_mr *mr, u64 *iova, u64 *length,
		     struct rxe_odp_slot *slot)
{
	struct rxe_odp_flush *flush = &slot->qp->odp.flush;
	int err;

	flush_resume(flush, slot->qp->resp.psn, iova, length);
	err = flush_rest(mr, iova, length, slot);
	if (err != -EAGAIN)
		*flush = (struct rxe_odp_flush) {};
	return err;
}
