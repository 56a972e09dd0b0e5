// SPDX-License-Identifier: GPL-2.0
/*
 * A translation table of the engine's own, as a device has that looks up addresses by
 * itself: a subscription keeps it true.
 *
 * One rule is enough: whoever uses the table has table->lock for reading, and whoever
 * changes it has it for writing.  So an invalidation that has the lock knows that the
 * device is not using the pages it drops; and what was established under the lock
 * before is there to be dropped, while afterwards nothing can be established in that
 * piece until the mm is done, which the core sees to.
 */

#include <linux/delay.h>
#include <linux/mm.h>

#include "engine.h"

/* ---- entries ---- */

/* An entry is a pfn, and whether it may be written to. */
#define ENTRY_WRITE	1UL
#define ENTRY_YOUNG	XA_MARK_0

static void *entry_make(const void *addr, bool write)
{
	return xa_mk_value(page_to_pfn(virt_to_page(addr)) << 1 |
			   (write ? ENTRY_WRITE : 0));
}

static struct page *entry_page(const void *entry)
{
	return pfn_to_page(xa_to_value(entry) >> 1);
}

static bool entry_allows(const void *entry, bool write)
{
	return entry && (!write || (xa_to_value(entry) & ENTRY_WRITE));
}

/* Returns how many there were. */
static unsigned int table_drop(struct dma_space *space, unsigned long start,
			       unsigned long last)
{
	struct xarray *pages = &space->table.pages;
	unsigned int dropped = 0;
	unsigned long index;
	void *entry;

	lockdep_assert_held_write(&space->table.lock);

	xa_for_each_range(pages, index, entry, start >> PAGE_SHIFT,
			  last >> PAGE_SHIFT) {
		witness_drop(space, entry_page(entry));
		xa_erase(pages, index);
		dropped++;
	}
	return dropped;
}

/* ---- what the core calls ---- */

static struct dma_space *sub_space(struct mm_mirror_subscription *sub)
{
	return container_of(sub, struct dma_space, table.sub);
}

static void table_release(struct mm_mirror_subscription *sub)
{
	struct dma_space *space = sub_space(sub);
	struct mm_mirror_event event = {
		.start	= space->table.start,
		.last	= space->table.last,
		.type	= MMU_NOTIFY_RELEASE,
	};
	unsigned int dropped;

	down_write(&space->table.lock);
	dropped = table_drop(space, 0, ULONG_MAX);
	up_write(&space->table.lock);
	witness_called(space, MIRROR_DMA_CALL_RELEASE, &event, dropped, true);
}

static bool table_invalidate(struct mm_mirror_subscription *sub,
			     const struct mm_mirror_event *event)
{
	struct dma_space *space = sub_space(sub);
	unsigned int dropped;

	if (!witness_invalidate(space, event, true))
		return false;
	/* for the device, also to be done with what others have dropped */
	if (!down_write_trylock(&space->table.lock)) {
		witness_count(space, &space->witness.counts.waits);
		down_write(&space->table.lock);
	}
	dropped = table_drop(space, event->start, event->last);
	up_write(&space->table.lock);
	witness_called(space, MIRROR_DMA_CALL_INVALIDATE, event, dropped, true);
	return true;
}

static bool table_try_invalidate(struct mm_mirror_subscription *sub,
				 const struct mm_mirror_event *event)
{
	struct dma_space *space = sub_space(sub);
	unsigned int dropped = 0;
	bool done;

	done = witness_invalidate(space, event, false) &&
	       down_write_trylock(&space->table.lock);
	if (done) {
		dropped = table_drop(space, event->start, event->last);
		up_write(&space->table.lock);
	}
	witness_called(space, MIRROR_DMA_CALL_TRY_INVALIDATE, event, dropped,
		       done);
	return done;
}

/* A lock of an xarray is a spinlock, and nothing waits under it. */
static bool table_young(struct mm_mirror_subscription *sub, unsigned long start,
			unsigned long last, bool clear)
{
	struct dma_space *space = sub_space(sub);
	struct xarray *pages = &space->table.pages;
	unsigned long index = start >> PAGE_SHIFT;
	bool young = false;

	for (; xa_find(pages, &index, last >> PAGE_SHIFT, ENTRY_YOUNG); index++) {
		young = true;
		if (!clear)
			break;
		xa_clear_mark(pages, index, ENTRY_YOUNG);
	}
	return witness_young(space, clear) && young;
}

static bool table_test_young(struct mm_mirror_subscription *sub,
			     unsigned long start, unsigned long last)
{
	return table_young(sub, start, last, false);
}

static bool table_clear_young(struct mm_mirror_subscription *sub,
			      unsigned long start, unsigned long last)
{
	return table_young(sub, start, last, true);
}

static const struct mm_mirror_subscription_ops table_ops = {
	.release	= table_release,
	.invalidate	= table_invalidate,
	.try_invalidate	= table_try_invalidate,
	.test_young	= table_test_young,
	.clear_young	= table_clear_young,
};

/* ---- life ---- */

int table_open(struct dma_space *space, const struct mirror_dma_attach *attach)
{
	struct dma_table *table = &space->table;

	table->start = attach->start;
	table->last = attach->last;
	init_rwsem(&table->lock);
	xa_init(&table->pages);
	table->ops = table_ops;
	witness_leave_out(&table->ops, attach->flags);
	return mm_mirror_subscribe(&table->sub, space->mirror, table->start,
				   table->last, &table->ops);
}

void table_close(struct dma_space *space)
{
	/* calls table_release(), unless that has been called */
	mm_mirror_unsubscribe(&space->table.sub);
	witness_close(space);
	/* what was reserved and never stored */
	xa_destroy(&space->table.pages);
}

bool table_covers(const struct dma_space *space, unsigned long addr)
{
	return space->has_table && addr >= space->table.start &&
	       addr <= space->table.last;
}

/* ---- use ---- */

/*
 * Put the page of an access into the table: -EAGAIN if the mirror has none, -ESRCH if
 * the subscription has ended.  Memory is allocated before, since who would have to be
 * reclaimed for it may be waiting for the lock.  If that is gone again, another tried
 * the same and failed: so does this.
 */
static int table_establish(struct dma_space *space,
			   const struct dma_access *access)
{
	unsigned long index = access->addr >> PAGE_SHIFT;
	struct dma_table *table = &space->table;
	struct mm_mirror_hold hold;
	void *entry;
	int err;

	err = xa_reserve(&table->pages, index, GFP_KERNEL);
	if (err)
		return err;
	down_write(&table->lock);
	err = mm_mirror_establish(&table->sub, access->addr, access->write,
				  &hold);
	if (!err) {
		entry = entry_make(hold.addr, access->write);
		entry = xa_store(&table->pages, index, entry, GFP_NOWAIT);
		mm_mirror_drop(&hold);
		err = xa_is_err(entry) ? -EAGAIN : 0;
	}
	if (!err)
		witness_count(space, &space->witness.counts.established);
	else
		xa_release(&table->pages, index);
	up_write(&table->lock);
	return err;
}

static void entry_access(void *entry, const struct dma_access *access)
{
	void *addr = page_address(entry_page(entry)) +
		     offset_in_page(access->addr);

	/* a device in the middle of it: the lock is a lock that one may sleep with */
	if (access->hold_us)
		fsleep(access->hold_us);
	if (access->write)
		memcpy(addr, access->buf, access->length);
	else
		memcpy(access->buf, addr, access->length);
}

/* False if the table has no page that allows it. */
static bool table_hit(struct dma_space *space, const struct dma_access *access)
{
	unsigned long index = access->addr >> PAGE_SHIFT;
	struct dma_table *table = &space->table;
	bool hit;
	void *entry;

	down_read(&table->lock);
	entry = xa_load(&table->pages, index);
	hit = entry_allows(entry, access->write);
	if (hit) {
		entry_access(entry, access);
		xa_set_mark(&table->pages, index, ENTRY_YOUNG);
	}
	up_read(&table->lock);
	return hit;
}

/* As space_access(). What is established can be gone before it is used. */
int table_access(struct dma_space *space, const struct dma_access *access)
{
	int err;

	if (table_hit(space, access)) {
		witness_count(space, &space->witness.counts.table_hits);
		return 0;
	}
	err = table_establish(space, access);
	if (err)
		return err;
	return table_hit(space, access) ? 0 : -EAGAIN;
}
