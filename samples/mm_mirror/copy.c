// SPDX-License-Identifier: GPL-2.0
/*
 * Copies: page by page through a bounce page, in a worker, so that there is never more
 * than one page held.
 *
 * A worker never waits for a page.  What is missing is asked for (mm_mirror_fault()),
 * and the worker returns; the fault's callback queues the copy again.  So does who
 * cancels: whoever has news for a copy queues its work, and the work looks at what
 * there is (copy_run()).  A work item does not run twice at a time, so that the copy
 * needs no lock of its own.
 */

#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "engine.h"

/* How often a page may get away before it is asked to be lent. */
#define COPY_LOSSES	4

/* How far ahead is faulted what takes no waiting. */
#define COPY_AHEAD	SZ_2M

static struct workqueue_struct *copy_wq;

enum { COPY_FROM, COPY_TO, COPY_SIDES };

/**
 * struct dma_copy - a copy
 * @node: on engine->copies, or on engine->done
 * @work: on copy_wq
 * @engine: the engine, which outlives it
 * @order: what was asked for
 * @space: two references, until it is done
 * @at: what is next, reading or writing
 * @bytes: written so far
 * @status: once it is done
 * @losses: how often the page at hand got away after a fault
 * @fault: asked for, or completed, for the page at hand
 * @bounce: a page
 */
struct dma_copy {
	struct list_head	node;
	struct work_struct	work;
	struct dma_engine	*engine;
	struct mirror_dma_copy	order;
	struct dma_space	*space[COPY_SIDES];
	unsigned int		at;
	size_t			bytes;
	int			status;
	unsigned int		losses;
	struct mm_mirror_fault	*fault;
	void			*bounce;
};

static unsigned long copy_addr(const struct dma_copy *copy)
{
	return (copy->at == COPY_TO ? copy->order.dst : copy->order.src) +
	       copy->bytes;
}

/* The piece that is in one page on both sides. */
static size_t copy_piece(const struct dma_copy *copy)
{
	size_t in_src = PAGE_SIZE - offset_in_page(copy->order.src + copy->bytes);
	size_t in_dst = PAGE_SIZE - offset_in_page(copy->order.dst + copy->bytes);

	return min3(in_src, in_dst, (size_t)copy->order.length - copy->bytes);
}

static bool copy_uses(const struct dma_copy *copy, const struct dma_space *space)
{
	return copy->space[COPY_FROM] == space || copy->space[COPY_TO] == space;
}

static bool copy_cancelled(const struct dma_copy *copy)
{
	return READ_ONCE(copy->space[COPY_FROM]->detached) ||
	       READ_ONCE(copy->space[COPY_TO]->detached);
}

/* ---- faults ---- */

/* In a worker of mm_mirror, under a spinlock. */
static void copy_fault_done(struct mm_mirror_fault *fault, void *data)
{
	struct dma_copy *copy = data;

	queue_work(copy_wq, &copy->work);
}

/* After it copy_fault_done() has returned, or never runs. */
static void copy_fault_put(struct dma_copy *copy)
{
	if (copy->fault)
		mm_mirror_fault_put(copy->fault);
	copy->fault = NULL;
}

static bool copy_starves(const struct dma_copy *copy)
{
	return copy->losses > COPY_LOSSES;
}

/*
 * -EINPROGRESS, or an error.  The callback may have run by the time this returns: the
 * work runs again then, after this, and finds the fault done.
 */
static int copy_fault(struct dma_copy *copy)
{
	struct dma_space *space = copy->space[copy->at];
	struct mm_mirror_range range = {
		.start	= copy_addr(copy),
		.length	= min(copy->order.length - copy->bytes, COPY_AHEAD),
		.need	= copy_piece(copy),
	};
	struct mm_mirror_fault *fault;

	if (copy->fault)
		copy->losses++;
	copy_fault_put(copy);
	fault = copy_starves(copy) ?
		mm_mirror_fault_granted(space->mirror, &range, 1, copy->at,
					copy_fault_done, copy) :
		mm_mirror_fault(space->mirror, &range, 1, copy->at,
				copy_fault_done, copy);
	if (IS_ERR(fault))
		return PTR_ERR(fault);
	copy->fault = fault;
	witness_count(space, &space->witness.counts.faults);
	return -EINPROGRESS;
}

/* 0 if there is nothing to wait for; a process that has gone is not a cancelled copy. */
static int copy_fault_status(const struct dma_copy *copy)
{
	int status = copy->fault ? mm_mirror_fault_status(copy->fault) : 0;

	return status == -ECANCELED ? -ESRCH : status;
}

/* ---- at work ---- */

/* One side of a piece. */
static int copy_step(struct dma_copy *copy)
{
	struct dma_access access = {
		.addr		= copy_addr(copy),
		.buf		= copy->bounce,
		.length		= copy_piece(copy),
		.write		= copy->at == COPY_TO,
		.hold_us	= copy->order.hold_us,
		.grant		= copy_starves(copy) ? copy->fault : NULL,
	};
	int ret;

	ret = space_access(copy->space[copy->at], &access);
	if (ret)
		return ret;
	copy_fault_put(copy);
	copy->losses = 0;
	if (copy->at == COPY_TO)
		copy->bytes += access.length;
	copy->at ^= COPY_TO;
	return 0;
}

/* -EINPROGRESS: somebody will queue it again.  Anything else is its end. */
static int copy_run(struct dma_copy *copy)
{
	int ret = 0;

	while (!ret && copy->bytes < copy->order.length) {
		if (copy_cancelled(copy))
			return -ECANCELED;
		ret = copy_fault_status(copy);
		if (ret)
			return ret;
		ret = copy_step(copy);
		if (ret == -EAGAIN && !(copy->order.flags & MIRROR_DMA_NOFAULT))
			ret = copy_fault(copy);
		cond_resched();
	}
	return ret;
}

/*
 * In phases: no fault can queue it any more, nor who cancels, and nobody has.  Only
 * then is it given away; and the spaces last, which whoever ends the engine waits for.
 */
static void copy_end(struct dma_copy *copy)
{
	struct dma_space *from = copy->space[COPY_FROM];
	struct dma_space *to = copy->space[COPY_TO];
	struct dma_engine *engine = copy->engine;

	copy_fault_put(copy);
	spin_lock(&engine->lock);
	list_del(&copy->node);
	spin_unlock(&engine->lock);
	cancel_work(&copy->work);

	free_page((unsigned long)copy->bounce);
	witness_count(from, &from->witness.counts.copies);
	if (to != from)
		witness_count(to, &to->witness.counts.copies);
	spin_lock(&engine->lock);
	list_add_tail(&copy->node, &engine->done);
	spin_unlock(&engine->lock);
	wake_up(&engine->wait);

	space_put(from);
	space_put(to);
}

static void copy_work(struct work_struct *work)
{
	struct dma_copy *copy = container_of(work, struct dma_copy, work);

	copy->status = copy_run(copy);
	if (copy->status != -EINPROGRESS)
		copy_end(copy);
}

/* ---- coming and going ---- */

static bool range_valid(u64 start, u64 length)
{
	return !length || start + length - 1 >= start;
}

static bool order_valid(const struct mirror_dma_copy *order)
{
	return !(order->flags & ~MIRROR_DMA_NOFAULT) &&
	       order->hold_us <= MIRROR_DMA_HOLD_MAX &&
	       range_valid(order->src, order->length) &&
	       range_valid(order->dst, order->length);
}

/* Two references, or none. */
static int copy_find_spaces(struct dma_copy *copy)
{
	struct dma_engine *engine = copy->engine;
	u32 from = copy->order.src_space, to = copy->order.dst_space;

	lockdep_assert_held(&engine->lock);

	if (from >= MIRROR_DMA_SPACES || to >= MIRROR_DMA_SPACES ||
	    !engine->spaces[from] || !engine->spaces[to])
		return -ENOENT;
	copy->space[COPY_FROM] = engine->spaces[from];
	copy->space[COPY_TO] = engine->spaces[to];
	refcount_inc(&copy->space[COPY_FROM]->users);
	refcount_inc(&copy->space[COPY_TO]->users);
	return 0;
}

/* Once the lock is released it may be done, and freed. */
static int copy_start(struct dma_copy *copy)
{
	struct dma_engine *engine = copy->engine;
	int err = -EBUSY;

	spin_lock(&engine->lock);
	if (engine->nr < MIRROR_DMA_DEPTH)
		err = copy_find_spaces(copy);
	if (!err) {
		engine->nr++;
		list_add_tail(&copy->node, &engine->copies);
		queue_work(copy_wq, &copy->work);
	}
	spin_unlock(&engine->lock);
	return err;
}

int copy_submit(struct dma_engine *engine, const struct mirror_dma_copy *order)
{
	struct dma_copy *copy;
	int err = -ENOMEM;

	if (!order_valid(order))
		return -EINVAL;
	copy = kzalloc(sizeof(*copy), GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;
	copy->engine = engine;
	copy->order = *order;
	INIT_WORK(&copy->work, copy_work);
	copy->bounce = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!copy->bounce)
		goto err_free_copy;
	err = copy_start(copy);
	if (err)
		goto err_free_bounce;
	return 0;

err_free_bounce:
	free_page((unsigned long)copy->bounce);
err_free_copy:
	kfree(copy);
	return err;
}

/* They have a look, and find that the space is detached. */
void copies_cancel(struct dma_engine *engine, const struct dma_space *space)
{
	struct dma_copy *copy;

	spin_lock(&engine->lock);
	list_for_each_entry(copy, &engine->copies, node)
		if (copy_uses(copy, space))
			queue_work(copy_wq, &copy->work);
	spin_unlock(&engine->lock);
}

/* The first that is done, and forget it. */
bool copy_reap(struct dma_engine *engine, struct mirror_dma_done *done)
{
	struct dma_copy *copy;

	spin_lock(&engine->lock);
	copy = list_first_entry_or_null(&engine->done, struct dma_copy, node);
	if (copy) {
		list_del(&copy->node);
		engine->nr--;
	}
	spin_unlock(&engine->lock);
	if (!copy)
		return false;
	*done = (struct mirror_dma_done) {
		.cookie	= copy->order.cookie,
		.bytes	= copy->bytes,
		.status	= copy->status,
	};
	kfree(copy);
	return true;
}

int copies_init(void)
{
	copy_wq = alloc_workqueue("mirror_dma", WQ_UNBOUND, 0);
	return copy_wq ? 0 : -ENOMEM;
}

void copies_exit(void)
{
	destroy_workqueue(copy_wq);
}
