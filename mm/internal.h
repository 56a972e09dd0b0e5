/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of mm_mirror know of each other.  Lock order, outermost first
 * (Documentation/locking.md has the table and the reasons):
 *
 *	mirror->lock -> mmap_lock of the mm (mmu_interval_notifier_insert() might)
 *	mmap_lock -> leaf->lock
 *	fault->lock, mirror->fault_lock and mirror->prefetch_lock are leaves of
 *	their own
 */

#ifndef MM_MIRROR_INTERNAL_H
#define MM_MIRROR_INTERNAL_H

#include <linux/llist.h>
#include <linux/mm_mirror.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "debug.h"
#include "entry.h"

#define LEAF_PAGES	(1UL << (PMD_SHIFT - PAGE_SHIFT))

/**
 * struct mm_mirror - the mirror of one address space
 * @notifier: finds the mirror (keyed by mm and ops); aging and release. It must
 *	never have invalidate_range_start: a refusal there would leave the mm's
 *	interval sequence odd for good
 * @id: its number, for whoever reads
 * @live: on the list of all mirrors, see live.c
 * @anchor: an interval notifier for nobody, so that the first one, which takes all
 *	locks of the mm, is inserted at mm_mirror_get() and not in a worker
 * @refs: handles; the notifier's own count is 1 while this is not 0
 * @lock: serialises making and freeing of leaves; protects leaf->users. Never taken
 *	in a notifier callback; may be held over GFP_KERNEL
 * @leaves: leaf of address a at index a >> PMD_SHIFT; read under RCU
 * @idle: leaves that lost their last translation, to be looked at by @reap_work
 * @reap_work: frees leaves that stay empty
 * @free_work: takes the mirror down after the last handle is gone
 * @fault_lock: protects the next five; irq-safe
 * @fault_queue: faults that wait for their turn
 * @prefetch_queue: those that nobody needs yet: after the others
 * @fault_running: faults of this process on the workqueue, <= FAULTS_PER_MIRROR
 * @prefetch_running: those of them that prefetch, <= PREFETCHES_PER_MIRROR
 * @fault_uncounted: and those that wait for a userfaultfd, <= FAULTS_UNCOUNTED
 * @prefetch_lock: protects the lists of struct mm_mirror_prefetches, and the next
 * @prefetch_ranges: of all prefetches that are not done, <= PREFETCH_RANGES_MAX
 * @sub_lock: protects @subscriptions; innermost, but for page-table locks outside
 * @subscriptions: clients with tables of their own, by range
 * @released: the address space is gone; set under @sub_lock
 * @count_lock: protects @counts; innermost
 * @counts: who wants to know of invalidations, by range
 */
struct mm_mirror {
	struct mmu_notifier		notifier;
	unsigned int			id;
	struct list_head		live;
	struct mmu_interval_notifier	anchor;
	refcount_t			refs;
	bool				released;
	struct mutex			lock; /* leaves come and go */
	struct xarray			leaves;
	struct llist_head		idle;
	struct delayed_work		reap_work;
	struct work_struct		free_work;
	spinlock_t			fault_lock; /* the next five */
	struct list_head		fault_queue;
	struct list_head		prefetch_queue;
	unsigned int			fault_running;
	unsigned int			prefetch_running;
	unsigned int			fault_uncounted;
	spinlock_t			prefetch_lock; /* lists, prefetch_ranges */
	unsigned int			prefetch_ranges;
	spinlock_t			sub_lock; /* subscriptions */
	struct rb_root_cached		subscriptions;
	spinlock_t			count_lock; /* counts */
	struct rb_root_cached		counts;
};

static inline struct mm_struct *mirror_mm(const struct mm_mirror *mirror)
{
	return mirror->anchor.mm;
}

/* One word per replica, each in a cache line of its own. */
struct leaf_huge {
	struct rcu_head	rcu;
	struct {
		atomic64_t word;
	} ____cacheline_aligned_in_smp replica[];
};

/**
 * struct mm_mirror_leaf - translations of one PMD of addresses
 * @notifier: exactly the leaf's range: its sequence closes the race between a
 *	fault and an invalidation
 * @mirror: the mirror, which outlives the leaf
 * @lock: the notifier's "user lock": protects everything below but @users, and all
 *	changes of entries other than take, drop and aging. Nothing sleeps or
 *	allocates under it
 * @present: words of @table or @huge that are not 0; 0 makes a callback O(1)
 * @installed: how often something was installed
 * @told: what that was when clients were last told of all of the empty leaf: if it is
 *	still, they have nothing of it
 * @idle: on mirror->idle
 * @users: faults at work here, which keep the leaf; under mirror->lock
 * @table: LEAF_PAGES entries in a page of its own, or NULL
 * @huge: one translation for all of the leaf, where the CPU maps it by one entry;
 *	at most one of @table and @huge is set. Both are freed by RCU only
 * @grants: pages granted to starving faults, see grant.c
 * @idle_node: on mirror->idle
 * @rcu: for freeing
 */
struct mm_mirror_leaf {
	struct mmu_interval_notifier	notifier;
	struct mm_mirror		*mirror;
	spinlock_t			lock; /* entries and what follows */
	unsigned int			present;
	unsigned int			users;
	unsigned long			installed;
	unsigned long			told;
	unsigned long			idle;
	atomic64_t __rcu		*table;
	struct leaf_huge __rcu		*huge;
	struct list_head		grants;
	struct llist_node		idle_node;
	struct rcu_head			rcu;
};

static inline unsigned long leaf_start(const struct mm_mirror_leaf *leaf)
{
	return leaf->notifier.interval_tree.start;
}

static inline unsigned long leaf_last(const struct mm_mirror_leaf *leaf)
{
	return leaf->notifier.interval_tree.last;
}

static inline unsigned int leaf_page(unsigned long addr)
{
	return (addr & ~PMD_MASK) >> PAGE_SHIFT;
}

/* What a mirror has; a huge entry is one. */
struct mirror_survey {
	unsigned long leaves;
	unsigned long huge;
	unsigned long present;
	unsigned long held;
};

/* What a fault has taken; @asked is when, in ns, if somebody wants to know. */
struct fault_tally {
	u64 asked;
	unsigned int pages;
	unsigned int rounds;
	unsigned int waits;
	unsigned int retries;
};

/* core.c: for what frees, and so must not wait for faults */
extern struct workqueue_struct *mirror_wq;

/* leaf.c */
void leaf_sizes_init(void);
struct mm_mirror_leaf *leaf_find(struct mm_mirror *mirror, unsigned long addr);
atomic64_t *leaf_entry(struct mm_mirror_leaf *leaf, unsigned long addr,
		       unsigned int *pages);
struct mm_mirror_leaf *leaf_get(struct mm_mirror *mirror, unsigned long addr);
void leaf_put(struct mm_mirror_leaf *leaf);
int leaf_install(struct mm_mirror_leaf *leaf, unsigned long seq,
		 const unsigned long *hmm_pfns, unsigned long start,
		 unsigned int nr, unsigned int *installed);
int leaf_young(struct mm_mirror *mirror, unsigned long start, unsigned long end,
	       bool clear);
void leaf_reap(struct work_struct *work);
void leaf_free_all(struct mm_mirror *mirror);
void leaf_survey(struct mm_mirror *mirror, struct mirror_survey *sum);
void page_harvest(u64 word, bool fold_young);

/* subscription.c */
bool subscriptions_invalidate(struct mm_mirror *mirror,
			      const struct mm_mirror_event *event,
			      bool may_block);
bool subscriptions_young(struct mm_mirror *mirror, unsigned long start,
			 unsigned long last, bool clear);
void subscriptions_release(struct mm_mirror *mirror);
void subscriptions_prime(void);
unsigned int subscriptions_count(struct mm_mirror *mirror);

/* count.c */
void count_note(struct mm_mirror_count *count, enum mm_mirror_counter counter,
		unsigned long n);
unsigned long count_clip(const struct mm_mirror_count *count,
			 const struct mm_mirror_leaf *leaf, unsigned long n);
bool counts_any(const struct mm_mirror *mirror);
void counts_invalidated(struct mm_mirror *mirror, unsigned long start,
			unsigned long last, const unsigned long *gone);

/* vma.c */
int vma_check(struct vm_area_struct *vma, bool write);

/* fault.c */
#define FAULT_HOW_WRITE		BIT(0)	/* the access will write */
#define FAULT_HOW_GRANT		BIT(1)	/* the client keeps losing */
#define FAULT_HOW_PREFETCH	BIT(2)	/* others go first; all ranges are tried */
#define FAULT_HOW_PRESENT	BIT(3)	/* only what the CPU has */

extern struct workqueue_struct *fault_wq;

int fault_init(void);
void fault_exit(void);
bool range_fits(const struct mm_struct *mm, unsigned long start, size_t length);
struct mm_mirror_fault *fault_submit(struct mm_mirror *mirror,
				     const struct mm_mirror_range *ranges,
				     unsigned int nr, unsigned int how,
				     mm_mirror_done_fn done, void *data);
void fault_turns(struct mm_mirror *mirror, unsigned int *running,
		 unsigned int *queued);

/* grant.c */
struct mm_mirror_grant;
int grant_pages(struct mm_mirror *mirror, struct list_head *grants,
		unsigned long start, unsigned long end, bool write);
void grant_release_all(struct list_head *grants);
atomic64_t *grant_find(const struct list_head *grants, unsigned long addr);
bool grant_clear(struct mm_mirror_leaf *leaf,
		 const struct mmu_notifier_range *range);
struct list_head *fault_grants(struct mm_mirror_fault *fault);

/*
 * What a holder is to lockdep: held from take to drop, and taken and released by
 * whoever waits for holders. So it reports a holder that enters the mm before that
 * ever deadlocks.
 */
#ifdef CONFIG_LOCKDEP
extern struct lockdep_map mm_mirror_hold_map;	/* access.c */

static inline void hold_acquire(void)
{
	lock_map_acquire(&mm_mirror_hold_map);
}

static inline void hold_release(void)
{
	lock_map_release(&mm_mirror_hold_map);
}
#else
static inline void hold_acquire(void)
{
}

static inline void hold_release(void)
{
}
#endif

/* live.c */
void live_add(struct mm_mirror *mirror);
void live_remove(struct mm_mirror *mirror);
void live_survey(struct mirror_survey *sum);
pid_t mirror_pid(const struct mm_mirror *mirror);
void live_init(struct dentry *dir);

/* fence.c */
u64 fence_begin(void);
void fence_end(const struct mm_mirror *mirror, unsigned long addr, u64 begin);
void fence_init(struct dentry *dir);

/* stat.c */
enum mirror_stat {
	STAT_MIRRORS,
	STAT_SUBSCRIPTIONS,
	STAT_LEAVES,
	STAT_TABLE_LEAVES,
	STAT_HUGE_LEAVES,
	STAT_FAULTS,
	STAT_FAULT_PAGES,
	STAT_FAULT_RETRIES,
	STAT_FAULT_ERRORS,
	STAT_FAULTS_RUNNING,
	STAT_PREFETCHES,
	STAT_PREFETCH_PAGES,
	STAT_GRANTS,
	STAT_INVALIDATE_REFUSED,
	STAT_FENCE_WAITS,
	STAT_NR,
};

extern atomic_long_t mirror_stats[STAT_NR];

static inline void stat_add(enum mirror_stat stat, long n)
{
	atomic_long_add(n, &mirror_stats[stat]);
}

/* As many as there are types of events. */
#define MIRROR_EVENTS	(MMU_NOTIFY_EXCLUSIVE + 1)

void stat_invalidation(enum mmu_notifier_event type);
struct dentry *stat_init(void);
void stat_exit(void);

#endif /* MM_MIRROR_INTERNAL_H */
