/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of mirror_dma know of each other.  Lock order:
 *
 *	table->lock -> what mm_mirror does in take and drop
 *	engine->lock, witness->lock: innermost
 */

#ifndef MIRROR_DMA_ENGINE_H
#define MIRROR_DMA_ENGINE_H

#include <linux/completion.h>
#include <linux/mm_mirror.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "mirror_dma.h"

/**
 * struct dma_engine - an open file
 * @lock: protects the rest
 * @spaces: by number
 * @copies: at work
 * @done: and those that are to be read
 * @nr: of both
 * @wait: for something to be read
 */
struct dma_engine {
	spinlock_t		lock; /* everything */
	struct dma_space	*spaces[MIRROR_DMA_SPACES];
	struct list_head	copies;
	struct list_head	done;
	unsigned int		nr;
	wait_queue_head_t	wait;
};

/**
 * struct dma_table - the engine's own translations of a part of a space
 * @sub: keeps it true
 * @ops: what of it is called
 * @start: first address
 * @last: last address
 * @lock: held for reading by whoever uses a page of it, for writing by whoever
 *	changes it. An invalidation waits for it: nothing is faulted or allocated
 *	under it
 * @pages: by address >> PAGE_SHIFT
 */
struct dma_table {
	struct mm_mirror_subscription		sub;
	struct mm_mirror_subscription_ops	ops;
	unsigned long				start;
	unsigned long				last;
	struct rw_semaphore			lock;
	struct xarray				pages;
};

/**
 * struct dma_witness - what tests want to know, and what they want to go wrong
 * @lock: protects @counts and @calls
 * @counts: see there
 * @calls: see there
 * @refuse: try_invalidate does
 * @fail: the next invalidate does
 * @old: no page is young
 * @invalidate_us: how long invalidate sleeps
 * @running: calls of invalidate
 */
struct dma_witness {
	spinlock_t			lock; /* counts and calls */
	struct mirror_dma_counts	counts;
	struct mirror_dma_calls		calls;
	bool				refuse;
	bool				fail;
	bool				old;
	unsigned int			invalidate_us;
	atomic_t			running;
};

/**
 * struct dma_space - an attached address space
 * @mirror: a handle, which does not keep the address space
 * @users: copies and ioctls, and one until it is detached
 * @idle: there are none, and will be none
 * @detached: copies are to end
 * @has_table: @table is in use
 * @table: for addresses in its range
 * @witness: for tests
 */
struct dma_space {
	struct mm_mirror	*mirror;
	refcount_t		users;
	struct completion	idle;
	bool			detached;
	bool			has_table;
	struct dma_table	table;
	struct dma_witness	witness;
};

/* One piece of a copy: within a page of the space. */
struct dma_access {
	unsigned long		addr;
	void			*buf;
	size_t			length;
	bool			write;
	unsigned int		hold_us;
	struct mm_mirror_fault	*grant;
};

/* space.c */
struct dma_space *space_create(const struct mirror_dma_attach *attach);
void space_destroy(struct dma_space *space);
void space_put(struct dma_space *space);
int space_access(struct dma_space *space, const struct dma_access *access);

/* table.c */
int table_open(struct dma_space *space,
	       const struct mirror_dma_attach *attach);
void table_close(struct dma_space *space);
bool table_covers(const struct dma_space *space, unsigned long addr);
int table_access(struct dma_space *space, const struct dma_access *access);

/* copy.c */
int copies_init(void);
void copies_exit(void);
int copy_submit(struct dma_engine *engine, const struct mirror_dma_copy *order);
void copies_cancel(struct dma_engine *engine, const struct dma_space *space);
bool copy_reap(struct dma_engine *engine, struct mirror_dma_done *done);

/* witness.c */
static inline void witness_count(struct dma_space *space, __u64 *count)
{
	spin_lock(&space->witness.lock);
	(*count)++;
	spin_unlock(&space->witness.lock);
}

void witness_init(struct dma_space *space);
void witness_close(struct dma_space *space);
void witness_leave_out(struct mm_mirror_subscription_ops *ops, u32 flags);
bool witness_invalidate(struct dma_space *space,
			const struct mm_mirror_event *event, bool may_sleep);
void witness_called(struct dma_space *space, unsigned int call,
		    const struct mm_mirror_event *event, unsigned int dropped,
		    bool ret);
bool witness_young(struct dma_space *space, bool clear);
void witness_drop(struct dma_space *space, const struct page *page);
void witness_take(const struct dma_space *space,
		  const struct dma_access *access);
void witness_untake(void);
void witness_get_counts(struct dma_space *space,
			struct mirror_dma_counts *counts);
void witness_get_calls(struct dma_space *space, struct mirror_dma_calls *calls);
int witness_set(struct dma_space *space, const struct mirror_dma_set *set);

#endif /* MIRROR_DMA_ENGINE_H */
