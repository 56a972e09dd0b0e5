// SPDX-License-Identifier: GPL-2.0
/*
 * Counts: what became of the pages of a range, for whoever shows it to people.
 *
 * A page has one translation, whatever number of a client's objects it is in, and
 * nothing in its word says who asked for it.  So two things are counted apart:
 *
 *	what a fault gets is counted where it was asked for: a range that is given to
 *	a fault may name a count;
 *
 *	what an invalidation takes away is counted for each count whose range it is
 *	in, whoever had asked for it.  For that they are an interval tree, and the
 *	invalidation, which has found something, goes over it when it is through.
 *
 * An access looks at none of that.  The tree is under a spinlock that is held for one
 * step at a time, since a process may have as many counts as it likes: whoever goes over
 * it keeps the count that he is at (walkers), and the last one takes it out.
 *
 * A total is a count of no range: what is added to a count is added to its total.
 */

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * Most counts that an invalidation of a leaf goes over: it may be under locks of
 * the mm, and a process may have as many regions in one place as it likes.
 */
#define COUNTS_MAX	1024

/**
 * struct mm_mirror_count - see mm_mirror_count_begin()
 * @mirror: whose tree it is in, or NULL; no handle: the client has one until
 *	mm_mirror_count_end(), and who goes over the tree is in a callback of it
 * @total: a reference, or NULL
 * @node: its range, in whole pages, on mirror->counts
 * @walkers: one of the client, and those who go over the tree; in the tree until 0
 * @refs: one of the client and the walkers, and those of faults
 * @value: by enum mm_mirror_counter
 */
struct mm_mirror_count {
	struct mm_mirror		*mirror;
	struct mm_mirror_count		*total;
	struct interval_tree_node	node;
	refcount_t			walkers;
	refcount_t			refs;
	atomic64_t			value[MM_MIRROR_COUNTERS];
};

static struct mm_mirror_count *count_alloc(void)
{
	struct mm_mirror_count *count = kzalloc(sizeof(*count), GFP_KERNEL_ACCOUNT);

	if (!count)
		return NULL;
	refcount_set(&count->walkers, 1);
	refcount_set(&count->refs, 1);
	return count;
}

/**
 * mm_mirror_count_ref - keep a count
 * @count: the count, or NULL
 *
 * Context: any.
 *
 * Return: @count, for mm_mirror_count_put().
 */
struct mm_mirror_count *mm_mirror_count_ref(struct mm_mirror_count *count)
{
	if (count)
		refcount_inc(&count->refs);
	return count;
}
EXPORT_SYMBOL_GPL(mm_mirror_count_ref);

/**
 * mm_mirror_count_put - give a reference back
 * @count: from mm_mirror_count_ref() or mm_mirror_count_total(), or NULL
 *
 * Context: any.
 */
void mm_mirror_count_put(struct mm_mirror_count *count)
{
	struct mm_mirror_count *total;

	for (; count && refcount_dec_and_test(&count->refs); count = total) {
		total = count->total;
		kfree(count);
	}
}
EXPORT_SYMBOL_GPL(mm_mirror_count_put);

/* NULL: nobody wants to know. */
void count_note(struct mm_mirror_count *count, enum mm_mirror_counter counter,
		unsigned long n)
{
	if (!n)
		return;
	for (; count; count = count->total)
		atomic64_add(n, &count->value[counter]);
}

/* How many of @n pages that were installed in a leaf are in the range. */
unsigned long count_clip(const struct mm_mirror_count *count,
			 const struct mm_mirror_leaf *leaf, unsigned long n)
{
	unsigned long first, last;

	if (!count)
		return n;
	first = max(count->node.start, leaf_start(leaf));
	last = min(count->node.last, leaf_last(leaf));
	return min(n, (last - first + 1) >> PAGE_SHIFT);
}

/* ---- invalidations ---- */

/* Whoever was at the count goes on. True if it is to be put, without the lock. */
static bool count_unwalk(struct mm_mirror *mirror, struct mm_mirror_count *count)
{
	lockdep_assert_held(&mirror->count_lock);

	if (!refcount_dec_and_test(&count->walkers))
		return false;
	interval_tree_remove(&count->node, &mirror->counts);
	return true;
}

/* The next count of [@start, @last] after @count, or the first after NULL. */
static struct mm_mirror_count *count_next(struct mm_mirror *mirror,
					  struct mm_mirror_count *count,
					  unsigned long start, unsigned long last)
{
	struct mm_mirror_count *next = NULL;
	struct interval_tree_node *node;
	bool last_one;

	spin_lock(&mirror->count_lock);
	node = count ? interval_tree_iter_next(&count->node, start, last) :
		       interval_tree_iter_first(&mirror->counts, start, last);
	if (node) {
		next = container_of(node, struct mm_mirror_count, node);
		/* in the tree, so not 0 */
		refcount_inc(&next->walkers);
	}
	last_one = count && count_unwalk(mirror, count);
	spin_unlock(&mirror->count_lock);
	if (last_one)
		mm_mirror_count_put(count);
	return next;
}

static unsigned long count_gone(const struct mm_mirror_count *count,
				unsigned long start, unsigned long last,
				const unsigned long *gone)
{
	unsigned long first = max(count->node.start, start);
	unsigned int from = leaf_page(first), bits;

	bits = leaf_page(min(count->node.last, last)) + 1;
	if (!gone)
		return bits - from;
	return bitmap_weight(gone, bits) - bitmap_weight(gone, from);
}

/* One that is being begun has nothing that it could miss. */
bool counts_any(const struct mm_mirror *mirror)
{
	return !RB_EMPTY_ROOT(&mirror->counts.rb_root);
}

/**
 * counts_invalidated - count translations that are gone, for COUNTS_MAX at most
 * @mirror: the mirror
 * @start: first address, of one leaf
 * @last: last address, of the same
 * @gone: which pages of the leaf they were, or NULL for all in between
 *
 * Context: a notifier callback; does not sleep.
 */
void counts_invalidated(struct mm_mirror *mirror, unsigned long start,
			unsigned long last, const unsigned long *gone)
{
	struct mm_mirror_count *count = NULL;
	unsigned int left = COUNTS_MAX;

	while (left-- && (count = count_next(mirror, count, start, last)))
		count_note(count, MM_MIRROR_INVALIDATED,
			   count_gone(count, start, last, gone));
	if (count)
		mm_mirror_count_end(count);
}

/* ---- for clients ---- */

/**
 * mm_mirror_count_total - a sum of counts
 *
 * Context: process context; may sleep, for memory.
 *
 * Return: a count of no range, for mm_mirror_count_put(); NULL without memory.
 */
struct mm_mirror_count *mm_mirror_count_total(void)
{
	return count_alloc();
}
EXPORT_SYMBOL_GPL(mm_mirror_count_total);

/**
 * mm_mirror_count_begin - count what becomes of the pages of a range
 * @mirror: the mirror; the caller keeps its handle until mm_mirror_count_end()
 * @start: first address
 * @last: last address; 0 to ULONG_MAX is the whole address space
 * @total: what is added here is added there too; or NULL
 *
 * Costs no more for a large range than for a small one.  Ranges may overlap.  What
 * faults get is counted if their ranges name the count.
 *
 * Context: process context; may sleep, for memory.
 *
 * Return: a count, for mm_mirror_count_end(); NULL without memory.
 */
struct mm_mirror_count *mm_mirror_count_begin(struct mm_mirror *mirror,
					      unsigned long start,
					      unsigned long last,
					      struct mm_mirror_count *total)
{
	struct mm_mirror_count *count = count_alloc();

	if (!count)
		return NULL;
	count->mirror = mirror;
	count->total = mm_mirror_count_ref(total);
	count->node.start = start & PAGE_MASK;
	count->node.last = last | ~PAGE_MASK;
	spin_lock(&mirror->count_lock);
	interval_tree_insert(&count->node, &mirror->counts);
	spin_unlock(&mirror->count_lock);
	return count;
}
EXPORT_SYMBOL_GPL(mm_mirror_count_begin);

/**
 * mm_mirror_count_end - no more counting
 * @count: from mm_mirror_count_begin(); the client's no more, but for references
 *
 * Waits for nobody. A fault that still runs may add to it, and to its total.
 *
 * Context: any but that of a page-table lock.
 */
void mm_mirror_count_end(struct mm_mirror_count *count)
{
	struct mm_mirror *mirror = count->mirror;
	bool last_one;

	spin_lock(&mirror->count_lock);
	last_one = count_unwalk(mirror, count);
	spin_unlock(&mirror->count_lock);
	if (last_one)
		mm_mirror_count_put(count);
}
EXPORT_SYMBOL_GPL(mm_mirror_count_end);

/**
 * mm_mirror_count_read - how many so far
 * @count: the count
 * @counter: of what
 *
 * Context: any.
 */
u64 mm_mirror_count_read(const struct mm_mirror_count *count,
			 enum mm_mirror_counter counter)
{
	return atomic64_read(&count->value[counter]);
}
EXPORT_SYMBOL_GPL(mm_mirror_count_read);
