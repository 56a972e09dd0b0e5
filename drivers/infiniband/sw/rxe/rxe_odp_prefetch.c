// SPDX-License-Identifier: GPL-2.0
/*
 * ibv_advise_mr(): prefetching for on-demand memory regions.
 *
 * All of the list is checked before anything is done.  What has the same MR in a row
 * becomes one prefetch of the mirror (mm/prefetch.c), which belongs to that MR.  No
 * MR reference is kept meanwhile: dereg waits for those, and a page may take for ever.
 * Whoever waits, with FLUSH, is told when the MR goes.
 */

#include <linux/mm_mirror.h>
#include <rdma/ib_verbs.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_odp_priv.h"

/**
 * struct advised - an element of the list
 * @mr: its MR, with a reference until the prefetches have begun
 * @prefetch: that begins with this element, or NULL
 */
struct advised {
	struct rxe_mr			*mr;
	struct mm_mirror_prefetch	*prefetch;
};

/**
 * struct advice - one call of the verb
 * @kind: what for
 * @nr: elements
 * @item: those
 * @range: their memory, in the same order
 */
struct advice {
	enum mm_mirror_prefetch_kind	kind;
	unsigned int			nr;
	struct advised			*item;
	struct mm_mirror_range		*range;
};

static int advice_kind(enum ib_uverbs_advise_mr_advice advice)
{
	switch (advice) {
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH:
		return MM_MIRROR_PREFETCH_READ;
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE:
		return MM_MIRROR_PREFETCH_WRITE;
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT:
		return MM_MIRROR_PREFETCH_PRESENT;
	default:
		return -EOPNOTSUPP;
	}
}

/* The errors are those of ibv_advise_mr(3), as mlx5 gives them. */
static int advised_check(const struct rxe_pd *pd, struct rxe_mr *mr,
			 u32 lkey, bool write)
{
	if (!mr->odp.mirror || mr->lkey != lkey ||
	    READ_ONCE(mr->state) != RXE_MR_STATE_VALID)
		return -ENOENT;
	if (mr_pd(mr) != pd)
		return -EPERM;
	if (write && !ib_access_writable(mr->access))
		return -EPERM;
	return 0;
}

static int advised_get(struct advised *item, struct mm_mirror_range *range,
		       struct rxe_pd *pd, const struct ib_sge *sge, bool write)
{
	struct rxe_dev *rxe = to_rdev(pd->ibpd.device);
	struct rxe_mr *mr = rxe_pool_get_index(&rxe->mr_pool, sge->lkey >> 8);
	int err;

	if (!mr)
		return -ENOENT;
	/* from here on it is put with the others */
	item->mr = mr;
	err = advised_check(pd, mr, sge->lkey, write);
	if (err)
		return err;
	if (mr_check_range(mr, sge->addr, sge->length))
		return -EFAULT;
	range->start = rxe_odp_addr(mr, sge->addr);
	range->length = sge->length;
	range->need = 0;
	range->count = mr->odp.count;
	return 0;
}

static int advice_check(struct advice *advice, struct rxe_pd *pd,
			const struct ib_sge *sge)
{
	bool write = advice->kind == MM_MIRROR_PREFETCH_WRITE;
	unsigned int i;
	int err;

	for (i = 0; i < advice->nr; i++) {
		err = advised_get(&advice->item[i], &advice->range[i], pd,
				  &sge[i], write);
		if (err)
			return err;
	}
	return 0;
}

/* How many elements from @first on have the same MR. */
static unsigned int advice_run(const struct advice *advice, unsigned int first)
{
	unsigned int i = first + 1;

	while (i < advice->nr && advice->item[i].mr == advice->item[first].mr)
		i++;
	return i - first;
}

static int advice_begin(struct advice *advice)
{
	struct mm_mirror_prefetch *prefetch;
	unsigned int i, nr;

	for (i = 0; i < advice->nr; i += nr) {
		struct rxe_mr *mr = advice->item[i].mr;

		nr = advice_run(advice, i);
		prefetch = mm_mirror_prefetch(&mr->odp.prefetches,
					      mr->odp.mirror, &advice->range[i],
					      nr, advice->kind);
		if (IS_ERR(prefetch))
			return PTR_ERR(prefetch);
		advice->item[i].prefetch = prefetch;
	}
	return 0;
}

static void advice_put_mrs(struct advice *advice)
{
	unsigned int i;

	for (i = 0; i < advice->nr && advice->item[i].mr; i++)
		rxe_put(advice->item[i].mr);
}

/* The first error, when all is done; a fatal signal at once. */
static int advice_wait(struct advice *advice)
{
	int err, ret = 0;
	unsigned int i;

	for (i = 0; i < advice->nr; i++) {
		if (!advice->item[i].prefetch)
			continue;
		err = mm_mirror_prefetch_wait(advice->item[i].prefetch);
		if (err == -EINTR)
			return err;
		ret = ret ?: err;
	}
	return ret;
}

static void advice_put_prefetches(struct advice *advice)
{
	unsigned int i;

	for (i = 0; i < advice->nr; i++)
		if (advice->item[i].prefetch)
			mm_mirror_prefetch_put(advice->item[i].prefetch);
}

static int advice_do(struct advice *advice, struct rxe_pd *pd,
		     const struct ib_sge *sge, bool wait)
{
	int err;

	advice->item = kvcalloc(advice->nr, sizeof(*advice->item),
				GFP_KERNEL_ACCOUNT);
	advice->range = kvcalloc(advice->nr, sizeof(*advice->range),
				 GFP_KERNEL_ACCOUNT);
	if (!advice->item || !advice->range)
		return -ENOMEM;

	err = advice_check(advice, pd, sge);
	if (!err)
		err = advice_begin(advice);
	advice_put_mrs(advice);
	if (!err && wait)
		err = advice_wait(advice);
	advice_put_prefetches(advice);
	return err;
}

/**
 * rxe_odp_advise_mr - prefetch memory of on-demand MRs
 * @ibpd: the MRs' protection domain
 * @advice: which kind of prefetching
 * @flags: IB_UVERBS_ADVISE_MR_FLAG_FLUSH to wait until it is done
 * @sg_list: which memory, by iova and lkey
 * @num_sge: elements of it
 * @attrs: of the verb, or NULL from a kernel client; not needed
 *
 * Context: process context; sleeps, with FLUSH for as long as the pages take or
 * until the task is killed.
 *
 * Return: 0; -EOPNOTSUPP for an unknown advice, -EINVAL for an unknown flag; -ENOENT
 * for an lkey that is not of an on-demand MR, -EPERM if that is of another PD or not
 * writable, -EFAULT for a range that is not in it: nothing was done then; -EAGAIN if
 * too much is outstanding; with FLUSH what mm_mirror_prefetch_wait() returns;
 * -ENOMEM.
 */
int rxe_odp_advise_mr(struct ib_pd *ibpd, enum ib_uverbs_advise_mr_advice advice,
		      u32 flags, struct ib_sge *sg_list, u32 num_sge,
		      struct uverbs_attr_bundle *attrs)
{
	struct advice call = { .nr = num_sge };
	int kind = advice_kind(advice);
	int err;

	if (kind < 0)
		return kind;
	if (flags & ~IB_UVERBS_ADVISE_MR_FLAG_FLUSH)
		return -EINVAL;
	call.kind = kind;
	err = advice_do(&call, to_rpd(ibpd), sg_list,
			flags & IB_UVERBS_ADVISE_MR_FLAG_FLUSH);
	kvfree(call.range);
	kvfree(call.item);
	return err;
}
