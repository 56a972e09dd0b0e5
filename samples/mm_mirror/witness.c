// SPDX-License-Identifier: GPL-2.0
/*
 * What tests want to know of an engine, and what they want to go wrong in it.  No
 * driver needs anything of this.
 *
 * Each call of a subscription is counted and kept, and two promises of the core are
 * looked at from outside: when invalidate is called, the mirror has no page of the
 * piece any more and nobody holds one (counts.early); and the pages that are dropped
 * then have not been freed (counts.gone).
 */

#include <linux/delay.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/percpu.h>

#include "engine.h"

void witness_init(struct dma_space *space)
{
	spin_lock_init(&space->witness.lock);
}

void witness_leave_out(struct mm_mirror_subscription_ops *ops, u32 flags)
{
	if (flags & MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_RELEASE))
		ops->release = NULL;
	if (flags & MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_INVALIDATE))
		ops->invalidate = NULL;
	if (flags & MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_TRY_INVALIDATE))
		ops->try_invalidate = NULL;
	if (flags & MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_TEST_YOUNG))
		ops->test_young = NULL;
	if (flags & MIRROR_DMA_WITHOUT(MIRROR_DMA_CALL_CLEAR_YOUNG))
		ops->clear_young = NULL;
}

/* ---- who holds what ---- */

/*
 * A page that is held is on some CPU, since nobody sleeps with it.  One word, so that
 * it can be read from another: which page of which mirror, mixed.
 */
static DEFINE_PER_CPU(u64, witness_held);

static u64 held_key(const struct dma_space *space, unsigned long addr)
{
	return hash_64((addr >> PAGE_SHIFT) + 1, 64) ^
	       (unsigned long)space->mirror;
}

/* A page that is granted is left alone by most invalidations. */
void witness_take(const struct dma_space *space,
		  const struct dma_access *access)
{
	if (!access->grant)
		this_cpu_write(witness_held, held_key(space, access->addr));
}

void witness_untake(void)
{
	this_cpu_write(witness_held, 0);
}

static bool page_is_held(const struct dma_space *space, unsigned long addr)
{
	u64 key = held_key(space, addr);
	int cpu;

	for_each_possible_cpu(cpu)
		if (READ_ONCE(*per_cpu_ptr(&witness_held, cpu)) == key)
			return true;
	return false;
}

/* ---- promises ---- */

/* As before a leaf is freed: nothing happens to its pages, which may come again. */
static bool is_whole_leaf(const struct mm_mirror_event *event)
{
	return event->type == MMU_NOTIFY_CLEAR &&
	       event->last - event->start + 1 == PMD_SIZE;
}

static void witness_early(struct dma_space *space,
			  const struct mm_mirror_event *event)
{
	unsigned long addr = event->start & PAGE_MASK;

	if (is_whole_leaf(event))
		return;
	for (; addr <= event->last; addr += PAGE_SIZE) {
		if (mm_mirror_resident(space->mirror, addr, PAGE_SIZE, false,
				       NULL) ||
		    page_is_held(space, addr)) {
			witness_count(space, &space->witness.counts.early);
			return;
		}
	}
}

/* The subscription is over. Nobody is left to be told by counts. */
void witness_close(struct dma_space *space)
{
	const struct mirror_dma_counts *counts = &space->witness.counts;

	WARN(counts->released != 1, "released %llu times\n", counts->released);
	WARN(counts->gone, "%llu pages had been freed\n", counts->gone);
}

void witness_drop(struct dma_space *space, const struct page *page)
{
	if (!page_count(page))
		witness_count(space, &space->witness.counts.gone);
}

/* ---- calls ---- */

static void witness_dawdle(struct dma_space *space)
{
	struct dma_witness *witness = &space->witness;
	unsigned int us = READ_ONCE(witness->invalidate_us);
	u64 running = atomic_inc_return(&witness->running);

	spin_lock(&witness->lock);
	witness->counts.at_once = max(witness->counts.at_once, running);
	spin_unlock(&witness->lock);
	if (us)
		fsleep(us);
	atomic_dec(&witness->running);
}

/* False if the callback is to do nothing, and return that. */
bool witness_invalidate(struct dma_space *space,
			const struct mm_mirror_event *event, bool may_sleep)
{
	struct dma_witness *witness = &space->witness;

	witness_early(space, event);
	if (!may_sleep)
		return !READ_ONCE(witness->refuse);
	witness_dawdle(space);
	if (!xchg(&witness->fail, false))
		return true;
	witness_called(space, MIRROR_DMA_CALL_INVALIDATE, event, 0, false);
	return false;
}

static void count_call(struct mirror_dma_counts *counts, unsigned int call,
		       const struct mm_mirror_event *event, bool ret)
{
	switch (call) {
	case MIRROR_DMA_CALL_RELEASE:
		counts->released++;
		break;
	case MIRROR_DMA_CALL_INVALIDATE:
		counts->invalidate[event->type]++;
		break;
	case MIRROR_DMA_CALL_TRY_INVALIDATE:
		counts->try_invalidate++;
		counts->refused += !ret;
		break;
	}
}

void witness_called(struct dma_space *space, unsigned int call,
		    const struct mm_mirror_event *event, unsigned int dropped,
		    bool ret)
{
	struct dma_witness *witness = &space->witness;
	struct mirror_dma_calls *calls = &witness->calls;

	static_assert(MIRROR_DMA_EVENT_RELEASE == (int)MMU_NOTIFY_RELEASE);
	static_assert(MIRROR_DMA_EVENT_EXCLUSIVE == (int)MMU_NOTIFY_EXCLUSIVE);

	spin_lock(&witness->lock);
	count_call(&witness->counts, call, event, ret);
	if (call != MIRROR_DMA_CALL_RELEASE)
		witness->counts.invalidated += dropped;
	if (calls->nr < MIRROR_DMA_CALLS_MAX)
		calls->calls[calls->nr] = (struct mirror_dma_call) {
			.start		= event->start,
			.last		= event->last,
			.call		= call,
			.event		= event->type,
			.dropped	= dropped,
			.ret		= ret,
		};
	calls->nr++;
	spin_unlock(&witness->lock);
}

bool witness_young(struct dma_space *space, bool clear)
{
	if (clear)
		witness_count(space, &space->witness.counts.clear_young);
	else
		witness_count(space, &space->witness.counts.test_young);
	return !READ_ONCE(space->witness.old);
}

/* ---- asking and telling ---- */

void witness_get_counts(struct dma_space *space,
			struct mirror_dma_counts *counts)
{
	u32 nr = counts->space;

	spin_lock(&space->witness.lock);
	*counts = space->witness.counts;
	spin_unlock(&space->witness.lock);
	counts->space = nr;
}

void witness_get_calls(struct dma_space *space, struct mirror_dma_calls *calls)
{
	u32 nr = calls->space;

	spin_lock(&space->witness.lock);
	*calls = space->witness.calls;
	memset(&space->witness.calls, 0, sizeof(*calls));
	spin_unlock(&space->witness.lock);
	calls->space = nr;
}

int witness_set(struct dma_space *space, const struct mirror_dma_set *set)
{
	struct dma_witness *witness = &space->witness;

	if (!space->has_table)
		return -EINVAL;
	switch (set->what) {
	case MIRROR_DMA_SET_REFUSE:
		WRITE_ONCE(witness->refuse, set->value);
		return 0;
	case MIRROR_DMA_SET_FAIL:
		WRITE_ONCE(witness->fail, set->value);
		return 0;
	case MIRROR_DMA_SET_INVALIDATE_US:
		WRITE_ONCE(witness->invalidate_us,
			   min_t(u64, set->value, USEC_PER_SEC));
		return 0;
	case MIRROR_DMA_SET_YOUNG:
		WRITE_ONCE(witness->old, !set->value);
		return 0;
	default:
		return -EINVAL;
	}
}
