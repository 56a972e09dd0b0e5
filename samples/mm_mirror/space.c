// SPDX-License-Identifier: GPL-2.0
/*
 * Spaces: address spaces that an engine may touch, and the touching itself.
 *
 * A handle of the mirror is all that it takes.  It does not keep the process, nor its
 * memory: when that is gone, accesses fail.
 */

#include <linux/delay.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "engine.h"

static bool attach_valid(const struct mirror_dma_attach *attach)
{
	const u32 without = GENMASK(7 + MIRROR_DMA_CALLBACKS, 8);

	if (attach->flags & ~(MIRROR_DMA_TABLE | without))
		return false;
	return (attach->flags & MIRROR_DMA_TABLE) ||
	       !(attach->flags || attach->start || attach->last);
}

/* The caller's. */
struct dma_space *space_create(const struct mirror_dma_attach *attach)
{
	struct dma_space *space;
	int err = -ENOMEM;

	if (!attach_valid(attach))
		return ERR_PTR(-EINVAL);
	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return ERR_PTR(-ENOMEM);
	refcount_set(&space->users, 1);
	init_completion(&space->idle);
	witness_init(space);

	space->mirror = mm_mirror_get();
	if (IS_ERR(space->mirror)) {
		err = PTR_ERR(space->mirror);
		goto err_free;
	}
	if (attach->flags & MIRROR_DMA_TABLE) {
		err = table_open(space, attach);
		if (err)
			goto err_put_mirror;
		space->has_table = true;
	}
	return space;

err_put_mirror:
	mm_mirror_put(space->mirror);
err_free:
	kfree(space);
	return ERR_PTR(err);
}

/* Nobody uses it. */
void space_destroy(struct dma_space *space)
{
	if (space->has_table)
		table_close(space);
	mm_mirror_put(space->mirror);
	kfree(space);
}

void space_put(struct dma_space *space)
{
	if (refcount_dec_and_test(&space->users))
		complete(&space->idle);
}

/*
 * The whole of an access: take, copy, drop.  In between nothing may sleep, and the mm
 * waits.  A device without a wish to dawdle calls mm_mirror_copy_from() and _to(),
 * which are this, for any length, and know about poisoned memory.
 */
static int mirror_access(struct dma_space *space,
			 const struct dma_access *access)
{
	struct mm_mirror_hold hold;
	int ret;

	ret = mm_mirror_take(space->mirror, access->addr, access->write,
			     access->grant, &hold);
	if (ret)
		return ret;
	witness_take(space, access);
	mdelay(access->hold_us / USEC_PER_MSEC);
	udelay(access->hold_us % USEC_PER_MSEC);
	if (access->write)
		memcpy(hold.addr, access->buf, access->length);
	else
		memcpy(access->buf, hold.addr, access->length);
	witness_untake();
	mm_mirror_drop(&hold);
	return 0;
}

/* 0; -EAGAIN if there is no translation; -ESRCH if there will be none. */
int space_access(struct dma_space *space, const struct dma_access *access)
{
	int ret;

	if (table_covers(space, access->addr)) {
		ret = table_access(space, access);
		/* what is granted is for one access, and in no table */
		if (ret != -EAGAIN || !access->grant)
			return ret;
	}
	return mirror_access(space, access);
}
