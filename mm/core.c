// SPDX-License-Identifier: GPL-2.0
/*
 * mm_mirror: a page table for software devices, one per process.
 *
 * What is stored where
 *	struct mm_mirror, one per address space, is found through the kernel's own
 *	registry (mmu_notifier_get_locked(), keyed by mm and ops).  It holds leaves
 *	in an xarray, each of the size of a PMD: 2 MiB where pages have 4 KiB, 32 MiB
 *	where they have 16.  A leaf has a table of an entry per page, or one entry
 *	where the CPU maps it by one.  An entry is a 64-bit atomic word (entry.h):
 *	pfn, permission, young, dirty, and a count of those who are touching the
 *	page now.  Leaves exist only where a device has touched memory.
 *
 * How it stays true
 *	No page reference is taken.  Each leaf has an interval notifier over its
 *	range; when the kernel is about to change the CPU's entries there, it calls
 *	the leaf, which removes its words, keeps new holders out and sleeps until
 *	the last holder is gone: the fence.  Only then may a page be unmapped,
 *	swapped, migrated, merged or freed.
 *
 * The one principle
 *	A hold is short and cannot sleep: preemption is off from take to drop, one
 *	page at a time, and the other side of the copy is never user memory.  So
 *	waiting for a holder is waiting for a running CPU, which is sound under
 *	whatever locks the mm holds.  The price: an access is take-or-fail.  What is
 *	missing is faulted by a worker of this module (fault.c), and the client
 *	tries again when it is told.  A fault can take for ever (userfaultfd, FUSE,
 *	NFS); nobody who destroys something ever waits for one.
 *
 * Vocabulary
 *	take/drop	become/stop being a holder of one page
 *	zap		remove a word, or mark it so that nobody takes it any more
 *	harvest		tell the page what its word knew (dirty, young)
 *	grant		a page lent to a fault that keeps losing its race (grant.c)
 *	"last" is inclusive, "end" is exclusive.
 *
 * Overflow
 *	Addresses come from remote peers.  Every start and length is checked once,
 *	in mm_mirror_fault(), against the address space; nothing is allocated for
 *	an address before a mapping was seen there.  A count of holders that is
 *	full refuses; it never carries into the pfn.
 */

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <trace/events/mm_mirror.h>

#include "internal.h"

struct workqueue_struct *mirror_wq;

static atomic_t mirrors_live = ATOMIC_INIT(0);
static atomic_t mirrors_made = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(mirrors_gone);

static void mirror_end(struct mm_mirror *mirror)
{
	spin_lock(&mirror->sub_lock);
	WRITE_ONCE(mirror->released, true);
	spin_unlock(&mirror->sub_lock);
	subscriptions_release(mirror);
}

/*
 * The anchor covers nobody's memory; the kernel never lets that page be mapped.  It is
 * called for the end of the address space only, and then after all leaves, whose
 * addresses are lower: no word is left, and since mm_users is 0 no fault runs that
 * could make one.
 */
static bool anchor_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long seq)
{
	if (range->event == MMU_NOTIFY_RELEASE)
		mirror_end(container_of(notifier, struct mm_mirror, anchor));
	return true;
}

static const struct mmu_interval_notifier_ops anchor_ops = {
	.invalidate	= anchor_invalidate,
};

/* ---- life ---- */

/* Last phase: no handle, no fault, no notifier callback of the mm-wide kind. */
static void mirror_free(struct work_struct *work)
{
	struct mm_mirror *mirror = container_of(work, struct mm_mirror,
						free_work);

	live_remove(mirror);
	disable_delayed_work_sync(&mirror->reap_work);
	leaf_free_all(mirror);
	if (mirror->anchor.mm)
		mmu_interval_notifier_remove(&mirror->anchor);
	mutex_destroy(&mirror->lock);
	kfree(mirror);
	stat_add(STAT_MIRRORS, -1);
	if (atomic_dec_and_test(&mirrors_live))
		wake_up_all(&mirrors_gone);
}

/* Called by SRCU after the last mmu_notifier_put(), and cannot sleep. */
static void mirror_free_notifier(struct mmu_notifier *notifier)
{
	struct mm_mirror *mirror = container_of(notifier, struct mm_mirror,
						notifier);

	queue_work(mirror_wq, &mirror->free_work);
}

/* Under mmap_lock for writing. */
static struct mmu_notifier *mirror_alloc_notifier(struct mm_struct *mm)
{
	struct mm_mirror *mirror;

	mirror = kzalloc(sizeof(*mirror), GFP_KERNEL_ACCOUNT);
	if (!mirror)
		return ERR_PTR(-ENOMEM);
	mirror->id = atomic_inc_return(&mirrors_made);
	INIT_LIST_HEAD(&mirror->live);
	mutex_init(&mirror->lock);
	/* without the flag its nodes are nobody's, whatever xa_reserve() is told */
	xa_init_flags(&mirror->leaves, XA_FLAGS_ACCOUNT);
	init_llist_head(&mirror->idle);
	INIT_DELAYED_WORK(&mirror->reap_work, leaf_reap);
	INIT_WORK(&mirror->free_work, mirror_free);
	spin_lock_init(&mirror->fault_lock);
	INIT_LIST_HEAD(&mirror->fault_queue);
	INIT_LIST_HEAD(&mirror->prefetch_queue);
	spin_lock_init(&mirror->prefetch_lock);
	spin_lock_init(&mirror->sub_lock);
	mirror->subscriptions = RB_ROOT_CACHED;
	spin_lock_init(&mirror->count_lock);
	mirror->counts = RB_ROOT_CACHED;
	atomic_inc(&mirrors_live);
	stat_add(STAT_MIRRORS, 1);
	return &mirror->notifier;
}

/*
 * The last reference on the address space is gone.  The anchor has done this, unless an
 * invalidation by rmap has kept it from being inserted until now.  Here other address
 * spaces wait for us (SRCU), there they do not.
 */
static void mirror_release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	mirror_end(container_of(notifier, struct mm_mirror, notifier));
}

/*
 * Who asks, and what for; each of them or's the answer with the CPU's own bit:
 *
 *	clear_flush_young	the classic LRU, of a page that it might deactivate or
 *				reclaim
 *	clear_young		MGLRU, of a page that it might evict and of those
 *				around it, and in its walks, which leave out
 *				processes that have not run meanwhile; page_idle; DAMON
 *	test_young		khugepaged, which leaves alone what nobody uses; DAMON
 *
 * DAMON gives any address of the page, or huge page, that it means.
 */
static int mirror_young(struct mm_mirror *mirror, unsigned long start,
			unsigned long end, bool clear)
{
	unsigned long size = end - start;
	bool young;

	if (!mirror_aging())
		return 0;
	if (offset_in_page(start))
		start = ALIGN_DOWN(start, size);
	young = leaf_young(mirror, start, start + size, clear);
	trace_mm_mirror_age(mirror, start, start + size - 1, clear, young);
	return young;
}

/* With the page-table lock held, like the next one. */
static int mirror_clear_young(struct mmu_notifier *notifier,
			      struct mm_struct *mm, unsigned long start,
			      unsigned long end)
{
	return mirror_young(container_of(notifier, struct mm_mirror, notifier),
			    start, end, true);
}

static int mirror_test_young(struct mmu_notifier *notifier,
			     struct mm_struct *mm, unsigned long addr)
{
	return mirror_young(container_of(notifier, struct mm_mirror, notifier),
			    addr, addr + PAGE_SIZE, false);
}

static const struct mmu_notifier_ops mirror_ops = {
	.release		= mirror_release,
	/* a software device has no TLB to flush */
	.clear_flush_young	= mirror_clear_young,
	.clear_young		= mirror_clear_young,
	.test_young		= mirror_test_young,
	.alloc_notifier		= mirror_alloc_notifier,
	.free_notifier		= mirror_free_notifier,
};

/*
 * The notifier's own count is kept at 1 while there are handles, so that taking
 * another one needs no lock.  A mirror whose last handle is just being put is found
 * with the count that the putter has yet to drop; ours keeps it alive.
 */
static void mirror_add_handle(struct mm_mirror *mirror)
{
	if (refcount_inc_not_zero(&mirror->refs))
		mmu_notifier_put(&mirror->notifier);
	else
		refcount_set(&mirror->refs, 1);
}

static struct mm_mirror *mirror_get_locked(struct mm_struct *mm)
{
	struct mmu_notifier *notifier;
	struct mm_mirror *mirror;
	int err;

	mmap_assert_write_locked(mm);

	/* whoever changes mappings may wait for a holder */
	hold_acquire();
	hold_release();
	subscriptions_prime();

	notifier = mmu_notifier_get_locked(&mirror_ops, mm);
	if (IS_ERR(notifier))
		return ERR_CAST(notifier);
	mirror = container_of(notifier, struct mm_mirror, notifier);
	if (!mirror->anchor.mm) {
		err = mmu_interval_notifier_insert_locked(&mirror->anchor, mm,
							  PAGE_MASK, PAGE_SIZE,
							  &anchor_ops);
		if (err) {
			/* insert sets it before it can fail */
			mirror->anchor.mm = NULL;
			mmu_notifier_put(notifier);
			return ERR_PTR(err);
		}
		live_add(mirror);
	}
	mirror_add_handle(mirror);
	return mirror;
}

/**
 * mm_mirror_get - the mirror of the current process
 *
 * The first call in a process registers the notifiers, which takes all locks of the
 * address space and so costs time in proportion to its mappings; later ones find
 * what is there.  Keep one handle per client object that outlives registrations,
 * and clone it with mm_mirror_ref().
 *
 * Context: process context with a user address space; takes mmap_lock for
 * writing; may sleep.
 *
 * Return: a handle, for mm_mirror_put(). ERR_PTR(-ENOMEM); ERR_PTR(-ERESTARTNOINTR)
 * if a signal is pending, which the kernel makes invisible to the program:
 * mm_take_all_locks() gives up for any signal, pinned registration does not;
 * ERR_PTR(-ESRCH) without a user address space.
 */
struct mm_mirror *mm_mirror_get(void)
{
	struct mm_struct *mm = current->mm;
	struct mm_mirror *mirror;

	if (!mm)
		return ERR_PTR(-ESRCH);

	mmap_write_lock(mm);
	mirror = mirror_get_locked(mm);
	mmap_write_unlock(mm);
	if (mirror == ERR_PTR(-EINTR) && signal_pending(current))
		return ERR_PTR(-ERESTARTNOINTR);
	return mirror;
}
EXPORT_SYMBOL_GPL(mm_mirror_get);

/**
 * mm_mirror_ref - another handle of a mirror
 * @mirror: a mirror of which the caller has a handle
 *
 * Context: any.
 *
 * Return: @mirror, for mm_mirror_put().
 */
struct mm_mirror *mm_mirror_ref(struct mm_mirror *mirror)
{
	refcount_inc(&mirror->refs);
	return mirror;
}
EXPORT_SYMBOL_GPL(mm_mirror_ref);

/**
 * mm_mirror_put - give a handle back
 * @mirror: the mirror; not used by the caller after this
 *
 * With the last handle translations go, some time later. The process may be gone
 * already.
 *
 * Context: any.
 */
void mm_mirror_put(struct mm_mirror *mirror)
{
	if (!refcount_dec_and_test(&mirror->refs))
		return;
	mirror_delay(DELAY_LAST_TO_PUT);
	mmu_notifier_put(&mirror->notifier);
}
EXPORT_SYMBOL_GPL(mm_mirror_put);

/**
 * mm_mirror_is_current - is this the mirror of the calling process?
 * @mirror: the mirror
 *
 * A handle that came through fork or a passed file descriptor is not.
 *
 * Context: process context.
 */
bool mm_mirror_is_current(const struct mm_mirror *mirror)
{
	return mirror_mm(mirror) == current->mm;
}
EXPORT_SYMBOL_GPL(mm_mirror_is_current);

/*
 * Reclaim may wait for a holder, or a client's callback. Told to lockdep here, so that
 * one that allocates is reported the first time, though nothing was ever reclaimed.
 */
static void __init hold_prime(void)
{
	fs_reclaim_acquire(GFP_KERNEL);
	hold_acquire();
	hold_release();
	subscriptions_prime();
	fs_reclaim_release(GFP_KERNEL);
}

static int __init mm_mirror_init(void)
{
	struct dentry *dir;
	int err;

	entry_assert_layout();
	hold_prime();
	leaf_sizes_init();
	mirror_wq = alloc_workqueue("mm_mirror_free", WQ_UNBOUND, 0);
	if (!mirror_wq)
		return -ENOMEM;
	err = fault_init();
	if (err)
		goto err_destroy_wq;
	dir = stat_init();
	live_init(dir);
	fence_init(dir);
	delay_init(dir);
	switch_init(dir);
	oracle_init(dir);
	fail_init(dir);
	return 0;

err_destroy_wq:
	destroy_workqueue(mirror_wq);
	return err;
}

/*
 * No client is left: they use our symbols.  mmu_notifier_synchronize() starts what
 * mmu_notifier_put() queued, but is no barrier for the callbacks, hence the count;
 * rcu_barrier() is for the leaves' own.
 */
static void __exit mm_mirror_exit(void)
{
	fault_exit();
	mmu_notifier_synchronize();
	wait_event(mirrors_gone, !atomic_read(&mirrors_live));
	/* also: the last mirror_free() may still be on its way out of our text */
	destroy_workqueue(mirror_wq);
	rcu_barrier();
	stat_exit();
	oracle_exit();
}

module_init(mm_mirror_init);
module_exit(mm_mirror_exit);
MODULE_DESCRIPTION("Page table for software devices, coherent by mmu notifiers");
MODULE_AUTHOR("unpin maintainers");
MODULE_LICENSE("GPL");
