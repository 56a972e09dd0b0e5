// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves: one PMD of translations each, coherent with the CPU's page table by an
 * interval notifier over exactly that range.  Here they are made, filled,
 * invalidated, aged and freed; entry.h has the life of one entry.
 */

#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/workqueue.h>
#include <trace/events/mm_mirror.h>

#include "internal.h"

/* How long a leaf stays empty before it is freed: not in the middle of a loop. */
#define LEAF_REAP_DELAY		HZ

/* How often a non-blockable invalidation looks at a held entry before it refuses. */
#define LEAF_SPINS		100

/* Copies of a huge entry, so that CPUs do not share its cache line. */
#define LEAF_REPLICAS_MAX	8

static unsigned int leaf_replicas __ro_after_init = LEAF_REPLICAS_MAX;

void __init leaf_sizes_init(void)
{
	/* a table is one page, like the CPU's; not everywhere is its size a constant */
	BUILD_BUG_ON(__builtin_constant_p(LEAF_PAGES) &&
		     LEAF_PAGES * sizeof(atomic64_t) > PAGE_SIZE);
	leaf_replicas = min_t(unsigned int, LEAF_REPLICAS_MAX,
			      roundup_pow_of_two(num_possible_cpus()));
}

/* Under RCU, or with something that keeps the leaf. */
struct mm_mirror_leaf *leaf_find(struct mm_mirror *mirror, unsigned long addr)
{
	return xa_load(&mirror->leaves, addr >> PMD_SHIFT);
}

/**
 * struct leaf_span - the words that translate some pages of a leaf
 * @word: the first
 * @stride: from one to the next
 * @nr: how many
 * @addr: where what the first maps begins
 * @removed: how many leaf_zap() has removed
 * @gone: and of which pages of the leaf, if somebody counts them; else NULL
 */
struct leaf_span {
	atomic64_t	*word;
	unsigned int	stride;
	unsigned int	nr;
	unsigned long	addr;
	unsigned int	removed;
	unsigned long	*gone;
};

static atomic64_t *span_word(const struct leaf_span *span, unsigned int i)
{
	return span->word + i * span->stride;
}

/* How many pages each of them maps. */
static unsigned int span_word_pages(const struct leaf_span *span)
{
	return span->stride == 1 ? 1 : LEAF_PAGES;
}

static unsigned long span_addr(const struct leaf_span *span, unsigned int i)
{
	return span->addr + (span->stride == 1 ? i * PAGE_SIZE : 0);
}

/* A huge entry is one, however many replicas it has. */
static unsigned int span_removed(const struct leaf_span *span)
{
	return span->stride == 1 ? span->removed : !!span->removed;
}

/* Under RCU or the leaf's lock.  Any part of a huge entry is all of it. */
static struct leaf_span leaf_span(struct mm_mirror_leaf *leaf,
				  unsigned int first, unsigned int last)
{
	struct leaf_huge *huge = rcu_dereference_check(leaf->huge,
				lockdep_is_held(&leaf->lock));
	atomic64_t *table = rcu_dereference_check(leaf->table,
				lockdep_is_held(&leaf->lock));

	if (huge)
		return (struct leaf_span) {
			.word = &huge->replica[0].word,
			.stride = sizeof(huge->replica[0]) / sizeof(atomic64_t),
			.nr = leaf_replicas,
			.addr = leaf_start(leaf),
		};
	if (table)
		return (struct leaf_span) {
			.word = table + first,
			.stride = 1,
			.nr = last - first + 1,
			.addr = leaf_start(leaf) + first * PAGE_SIZE,
		};
	return (struct leaf_span) {};
}

/*
 * The word that translates @addr for this CPU, or NULL, and how many pages after
 * the word's pfn the page of @addr is.  With preemption off, which is what RCU waits
 * for: the word stays allocated for as long as that lasts.
 */
atomic64_t *leaf_entry(struct mm_mirror_leaf *leaf, unsigned long addr,
		       unsigned int *pages)
{
	struct leaf_huge *huge = rcu_dereference_sched(leaf->huge);
	atomic64_t *table;

	if (huge) {
		*pages = leaf_page(addr);
		return &huge->replica[smp_processor_id() &
				      (leaf_replicas - 1)].word;
	}
	*pages = 0;
	table = rcu_dereference_sched(leaf->table);
	return table ? table + leaf_page(addr) : NULL;
}

/* ---- invalidation ---- */

/*
 * Tell the page what its translation knew.  The leaf's lock is held: the kernel
 * waits for it before the page can go, so the page is still mapped here, which is
 * what set_page_dirty() asks for.
 */
void page_harvest(u64 word, bool fold_young)
{
	struct page *page = pfn_to_page(entry_pfn(word));

	oracle_tell(entry_pfn(word));
	if (word & ENTRY_DIRTY)
		set_page_dirty(page);
	if (fold_young && (word & ENTRY_YOUNG))
		mark_page_accessed(page);
}

/*
 * Where the CPU's entry stays, or comes back, its young bit does not tell what the
 * device did: nor where khugepaged has invalidated, and asks once more before it
 * collapses.  Where memory is thrown away nobody will ask.
 */
static bool range_folds_young(const struct mmu_notifier_range *range)
{
	if (!mirror_aging())
		return false;
	return range->event == MMU_NOTIFY_CLEAR ||
	       range->event == MMU_NOTIFY_PROTECTION_VMA ||
	       range->event == MMU_NOTIFY_PROTECTION_PAGE;
}

/* Returns true if some word is held and was left. */
static bool leaf_zap(struct mm_mirror_leaf *leaf, struct leaf_span *span,
		     bool mark, bool fold_young)
{
	bool held = false;
	unsigned int i;
	u64 old;

	lockdep_assert_held(&leaf->lock);

	for (i = 0; i < span->nr; i++) {
		held |= entry_zap(span_word(span, i), mark, &old);
		if (!old)
			continue;
		/* it is looked at without the lock too */
		WRITE_ONCE(leaf->present, leaf->present - 1);
		/* a huge entry is gone when the last of its replicas is */
		if (span->gone && (span->stride == 1 || !leaf->present))
			__set_bit(leaf_page(span_addr(span, i)), span->gone);
		span->removed++;
		oracle_unmap(entry_pfn(old), span_word_pages(span));
		mirror_delay(DELAY_ZAP_TO_TELL);
		page_harvest(old, fold_young);
	}
	return held;
}

/*
 * The fence.  Nothing is installed here while an invalidation of the leaf is
 * active, so whatever is not 0 by now is ZAPPING, and the table cannot go: it has
 * present words, and freeing a leaf waits for active invalidations.
 */
static void leaf_wait(struct mm_mirror_leaf *leaf, const struct leaf_span *span)
{
	u64 begin = fence_begin();
	unsigned long held = 0;
	unsigned int i;

	for (i = 0; i < span->nr; i++) {
		if (!atomic64_read(span_word(span, i)))
			continue;
		held = held ?: span_addr(span, i);
		entry_wait(span_word(span, i));
	}
	fence_end(leaf->mirror, held ?: span->addr, begin);
}

static void event_widen(struct mm_mirror_event *event,
			const struct mm_mirror_leaf *leaf)
{
	event->start = leaf_start(leaf);
	event->last = leaf_last(leaf);
}

static void leaf_idle(struct mm_mirror_leaf *leaf)
{
	struct mm_mirror *mirror = leaf->mirror;

	if (READ_ONCE(leaf->present) || test_and_set_bit(0, &leaf->idle))
		return;
	llist_add(&leaf->idle_node, &mirror->idle);
	queue_delayed_work(mirror_wq, &mirror->reap_work, LEAF_REAP_DELAY);
}

/* Never sleeps and never marks: what is held refuses, what is gone stays gone. */
static bool leaf_try_zap(struct mm_mirror_leaf *leaf,
			 struct leaf_span *span, bool fold_young)
{
	unsigned int spins = LEAF_SPINS;

	while (leaf_zap(leaf, span, false, fold_young)) {
		if (!spins--) {
			stat_add(STAT_INVALIDATE_REFUSED, 1);
			return false;
		}
		cpu_relax();
	}
	return true;
}

/* Returns false only if a word is held and @range does not allow to wait. */
static bool leaf_clear(struct mm_mirror_leaf *leaf, struct leaf_span *span,
		       const struct mmu_notifier_range *range)
{
	bool fold_young = range_folds_young(range);

	lockdep_assert_held(&leaf->lock);

	if (!mmu_notifier_range_blockable(range))
		return leaf_try_zap(leaf, span, fold_young);
	if (!leaf_zap(leaf, span, true, fold_young))
		return true;

	spin_unlock(&leaf->lock);
	mirror_delay(DELAY_MARK_TO_WAIT);
	leaf_wait(leaf, span);
	spin_lock(&leaf->lock);
	/*
	 * Of several invalidations that waited here one removes each word and
	 * tells its page; the others pass through the lock after it, so that none
	 * returns, and lets the page be freed, before the page has been told.
	 */
	leaf_zap(leaf, span, true, fold_young);
	return true;
}

/*
 * Returns false only if something is held and @range does not allow to wait.  All of
 * a huge entry goes, whatever part of it @event is about: then @event becomes all of
 * the leaf, since what clients established of it has no other announcement.  *@tell is
 * false if they have nothing of this leaf.
 */
static bool leaf_drop(struct mm_mirror_leaf *leaf, struct leaf_span *span,
		      const struct mmu_notifier_range *range,
		      struct mm_mirror_event *event, unsigned long seq,
		      bool *tell)
{
	unsigned long *gone = span->gone;
	bool done = true;

	spin_lock(&leaf->lock);
	mmu_interval_set_seq(&leaf->notifier, seq);
	if (!list_empty(&leaf->grants))
		done = grant_clear(leaf, range);
	*tell = leaf->told != leaf->installed;
	if (leaf->present && done) {
		*span = leaf_span(leaf, leaf_page(event->start),
				  leaf_page(event->last));
		span->gone = gone;
		done = leaf_clear(leaf, span, range);
		stat_invalidation(event->type);
		if (span_word_pages(span) == LEAF_PAGES)
			event_widen(event, leaf);
	}
	spin_unlock(&leaf->lock);
	return done;
}

/* After leaf_drop(): nobody can establish what the clients drop here. */
static bool leaf_tell(struct mm_mirror_leaf *leaf,
		      const struct mmu_notifier_range *range,
		      const struct mm_mirror_event *event)
{
	/* they are all released at once, see anchor_invalidate() */
	if (event->type == MMU_NOTIFY_RELEASE)
		return true;
	if (subscriptions_invalidate(leaf->mirror, event,
				     mmu_notifier_range_blockable(range)))
		return true;
	stat_add(STAT_INVALIDATE_REFUSED, 1);
	return false;
}

/* What is gone of which ranges; @event is all of the leaf for a huge entry. */
static void leaf_count(struct mm_mirror_leaf *leaf, const struct leaf_span *span,
		       const struct mm_mirror_event *event)
{
	if (!span->gone || !span->removed)
		return;
	if (span->stride == 1)
		counts_invalidated(leaf->mirror, event->start, event->last,
				   span->gone);
	else if (test_bit(0, span->gone))
		counts_invalidated(leaf->mirror, event->start, event->last, NULL);
}

static bool leaf_invalidate(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range,
			    unsigned long seq)
{
	struct mm_mirror_leaf *leaf =
		container_of(notifier, struct mm_mirror_leaf, notifier);
	struct mm_mirror_event event = {
		.start	= max(range->start, leaf_start(leaf)),
		.last	= min(range->end - 1, leaf_last(leaf)),
		.type	= range->event,
	};
	bool may_block = mmu_notifier_range_blockable(range);
	DECLARE_BITMAP(gone, MAX_PTRS_PER_PTE);
	struct leaf_span span = {};
	bool done, tell;

	if (counts_any(leaf->mirror)) {
		bitmap_zero(gone, LEAF_PAGES);
		span.gone = gone;
	}
	if (may_block) {
		/* whoever waits here must not hold a page itself */
		hold_acquire();
		hold_release();
	}
	done = leaf_drop(leaf, &span, range, &event, seq, &tell) &&
	       (!tell || leaf_tell(leaf, range, &event));
	leaf_count(leaf, &span, &event);
	trace_mm_mirror_invalidate(leaf->mirror, &event, may_block,
				   span_removed(&span), !done);
	leaf_idle(leaf);
	return done;
}

static const struct mmu_interval_notifier_ops leaf_ops = {
	.invalidate	= leaf_invalidate,
};

/* ---- making ---- */

static struct mm_mirror_leaf *leaf_alloc(struct mm_mirror *mirror)
{
	struct mm_mirror_leaf *leaf;

	if (mirror_fail(FAIL_LEAF))
		return NULL;
	leaf = kzalloc(sizeof(*leaf), GFP_KERNEL_ACCOUNT);
	if (!leaf)
		return NULL;
	leaf->mirror = mirror;
	spin_lock_init(&leaf->lock);
	INIT_LIST_HEAD(&leaf->grants);
	return leaf;
}

static struct mm_mirror_leaf *leaf_create(struct mm_mirror *mirror,
					  unsigned long addr)
{
	unsigned long index = addr >> PMD_SHIFT;
	struct mm_mirror_leaf *leaf;
	int err;

	lockdep_assert_held(&mirror->lock);

	leaf = leaf_alloc(mirror);
	if (!leaf)
		return ERR_PTR(-ENOMEM);
	/* so that the store cannot fail with the notifier already inserted */
	err = mirror_fail(FAIL_INDEX) ?:
	      xa_reserve(&mirror->leaves, index, GFP_KERNEL_ACCOUNT);
	if (err)
		goto err_free_leaf;
	err = mirror_fail(FAIL_NOTIFIER) ?:
	      mmu_interval_notifier_insert(&leaf->notifier, mirror_mm(mirror),
					   addr & PMD_MASK, PMD_SIZE, &leaf_ops);
	if (err)
		goto err_release_index;
	xa_store(&mirror->leaves, index, leaf, GFP_KERNEL_ACCOUNT);
	stat_add(STAT_LEAVES, 1);
	return leaf;

err_release_index:
	xa_release(&mirror->leaves, index);
err_free_leaf:
	kfree(leaf);
	return ERR_PTR(err);
}

/*
 * The leaf of @addr, made if there is none, and kept until leaf_put().  The caller
 * has a reference on mm_users and has seen a mapping at @addr: a peer may choose
 * the address, and must not make us allocate for nothing.
 */
struct mm_mirror_leaf *leaf_get(struct mm_mirror *mirror, unsigned long addr)
{
	struct mm_mirror_leaf *leaf;

	mutex_lock(&mirror->lock);
	leaf = leaf_find(mirror, addr);
	if (!leaf)
		leaf = leaf_create(mirror, addr);
	if (!IS_ERR(leaf))
		leaf->users++;
	mutex_unlock(&mirror->lock);
	return leaf;
}

void leaf_put(struct mm_mirror_leaf *leaf)
{
	struct mm_mirror *mirror = leaf->mirror;

	mutex_lock(&mirror->lock);
	leaf->users--;
	/* inside: without users it may be freed as soon as the lock is */
	leaf_idle(leaf);
	mutex_unlock(&mirror->lock);
}

/* ---- filling ---- */

static void table_free_rcu(struct rcu_head *rcu)
{
	__free_page(container_of(rcu, struct page, rcu_head));
}

static void table_free(atomic64_t *table)
{
	if (!table)
		return;
	stat_add(STAT_TABLE_LEAVES, -1);
	call_rcu(&virt_to_page(table)->rcu_head, table_free_rcu);
}

static void huge_free(struct leaf_huge *huge)
{
	if (!huge)
		return;
	stat_add(STAT_HUGE_LEAVES, -1);
	kfree_rcu(huge, rcu);
}

/*
 * Give the leaf the shape that the CPU's mapping has.  It can differ only while
 * nothing is present: a split or a collapse invalidates all of the leaf.  Takes
 * what it uses out of @table and @huge.
 */
static int leaf_reshape(struct mm_mirror_leaf *leaf, bool want_huge,
			atomic64_t **table, struct leaf_huge **huge)
{
	bool is_huge = rcu_access_pointer(leaf->huge);
	bool is_table = rcu_access_pointer(leaf->table);

	lockdep_assert_held(&leaf->lock);

	if (want_huge ? is_huge : is_table)
		return 0;
	if (WARN_ON_ONCE(leaf->present))
		return -EAGAIN;

	if (want_huge) {
		table_free(rcu_replace_pointer(leaf->table, NULL, true));
		rcu_assign_pointer(leaf->huge, *huge);
		stat_add(STAT_HUGE_LEAVES, 1);
		*huge = NULL;
	} else {
		huge_free(rcu_replace_pointer(leaf->huge, NULL, true));
		rcu_assign_pointer(leaf->table, *table);
		stat_add(STAT_TABLE_LEAVES, 1);
		*table = NULL;
	}
	return 0;
}

/* Returns whether that changed anything. */
static bool word_install(struct mm_mirror_leaf *leaf, atomic64_t *word,
			 unsigned long pfn, unsigned int pages, bool write)
{
	u64 old = atomic64_read(word);

	lockdep_assert_held(&leaf->lock);

	if (!old) {
		oracle_map(pfn, pages);
		/* pairs with the compare-exchange of entry_take() */
		atomic64_set_release(word, entry_make(pfn, write));
		WRITE_ONCE(leaf->present, leaf->present + 1);
		return true;
	}
	if (WARN_ON_ONCE(entry_pfn(old) != pfn || (old & ENTRY_ZAPPING)))
		return false;
	if (!write || (old & ENTRY_WRITE))
		return false;
	atomic64_or(ENTRY_WRITE, word);
	return true;
}

static bool hmm_pfn_is_leaf(unsigned long hmm_pfn, unsigned int page)
{
	return hmm_pfn_to_map_order(hmm_pfn) >= PMD_SHIFT - PAGE_SHIFT &&
	       IS_ALIGNED((hmm_pfn & ~HMM_PFN_FLAGS) - page, LEAF_PAGES);
}

/* Returns how many pages have got a translation, or a better one. */
static unsigned int leaf_fill(struct mm_mirror_leaf *leaf,
			      const struct leaf_span *span,
			      const unsigned long *hmm_pfns,
			      unsigned int base_page)
{
	unsigned long pfn = (hmm_pfns[0] & ~HMM_PFN_FLAGS) - base_page;
	bool is_huge = span->stride != 1;
	unsigned int i, changed = 0;

	for (i = 0; i < span->nr; i++) {
		unsigned long hmm_pfn = hmm_pfns[is_huge ? 0 : i];

		if (!is_huge)
			pfn = hmm_pfn & ~HMM_PFN_FLAGS;
		if (hmm_pfn & HMM_PFN_VALID)
			changed += word_install(leaf, span_word(span, i), pfn,
						span_word_pages(span),
						hmm_pfn & HMM_PFN_WRITE);
	}
	return is_huge && changed ? LEAF_PAGES : changed;
}

static atomic64_t *table_alloc(void)
{
	if (mirror_fail(FAIL_TABLE))
		return NULL;
	return (atomic64_t *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

static struct leaf_huge *huge_alloc(void)
{
	struct leaf_huge *huge;

	if (mirror_fail(FAIL_HUGE))
		return NULL;
	return kzalloc(struct_size(huge, replica, leaf_replicas),
		       GFP_KERNEL_ACCOUNT);
}

/**
 * leaf_install - make translations of what HMM saw
 * @leaf: the leaf
 * @seq: from mmu_interval_read_begin(), before HMM looked
 * @hmm_pfns: what it saw; words without HMM_PFN_VALID are skipped
 * @start: address of the first page
 * @nr: pages, all in @leaf
 * @installed: where to add the pages for which that was news
 *
 * The check under the lock is what closes the race with an invalidation: one that
 * began after @seq has either set the leaf's sequence, and this fails, or will come
 * to the lock later, and finds what is installed here.
 *
 * Context: process context; takes leaf->lock; allocates before.
 *
 * Return: 0, -EAGAIN if the leaf was invalidated since @seq, -ENOMEM.
 */
int leaf_install(struct mm_mirror_leaf *leaf, unsigned long seq,
		 const unsigned long *hmm_pfns, unsigned long start,
		 unsigned int nr, unsigned int *installed)
{
	unsigned int page = leaf_page(start);
	bool want_huge = (hmm_pfns[0] & HMM_PFN_VALID) &&
			 hmm_pfn_is_leaf(hmm_pfns[0], page);
	struct leaf_huge *huge = NULL;
	atomic64_t *table = NULL;
	struct leaf_span span;
	int ret = -ENOMEM;

	lockdep_assert_not_held(&leaf->lock);
	debug_might_alloc();

	if (oracle_prepare(hmm_pfns, nr))
		return -ENOMEM;
	if (want_huge && !rcu_access_pointer(leaf->huge)) {
		huge = huge_alloc();
		if (!huge)
			return -ENOMEM;
	}
	if (!want_huge && !rcu_access_pointer(leaf->table)) {
		table = table_alloc();
		if (!table)
			return -ENOMEM;
	}

	spin_lock(&leaf->lock);
	ret = -EAGAIN;
	if (mmu_interval_read_retry(&leaf->notifier, seq))
		goto out_unlock;
	/* another fault changed the shape since the allocation: look again */
	if (want_huge ? !huge && !rcu_access_pointer(leaf->huge) :
			!table && !rcu_access_pointer(leaf->table))
		goto out_unlock;
	ret = leaf_reshape(leaf, want_huge, &table, &huge);
	if (ret)
		goto out_unlock;
	span = leaf_span(leaf, page, page + nr - 1);
	leaf->installed++;
	*installed += leaf_fill(leaf, &span, hmm_pfns, want_huge ? page : 0);
out_unlock:
	spin_unlock(&leaf->lock);
	free_page((unsigned long)table);
	kfree(huge);
	return ret;
}

/* ---- aging ---- */

static bool span_young(const struct leaf_span *span, bool clear)
{
	bool young = false;
	unsigned int i;

	for (i = 0; i < span->nr; i++) {
		if (!(atomic64_read(span_word(span, i)) & ENTRY_YOUNG))
			continue;
		young = true;
		if (!clear)
			break;
		atomic64_andnot(ENTRY_YOUNG, span_word(span, i));
	}
	return young;
}

/*
 * Did a device use a page of [@start, @end) since somebody last cleared?  Called
 * with the page-table lock held: no lock, no sleep, no allocation.  A word that goes
 * away meanwhile loses nothing but a hint; andnot on a removed word could bring no
 * bit back.
 */
int leaf_young(struct mm_mirror *mirror, unsigned long start, unsigned long end,
	       bool clear)
{
	struct mm_mirror_leaf *leaf;
	unsigned long index;
	int young = 0;

	rcu_read_lock();
	xa_for_each_range(&mirror->leaves, index, leaf, start >> PMD_SHIFT,
			  (end - 1) >> PMD_SHIFT) {
		unsigned long first = max(start, index << PMD_SHIFT);
		unsigned long last = min(end - 1, first | ~PMD_MASK);
		struct leaf_span span;

		mirror_delay(DELAY_FIND_TO_AGE);
		/* all are asked where each has to clear */
		young |= subscriptions_young(mirror, first, last, clear);
		if (!READ_ONCE(leaf->present))
			continue;
		span = leaf_span(leaf, leaf_page(first), leaf_page(last));
		young |= span_young(&span, clear);
	}
	rcu_read_unlock();
	return young;
}

/* ---- counting, for whoever reads ---- */

static void word_survey(u64 word, struct mirror_survey *sum)
{
	sum->present += !!word;
	sum->held += !!(word & ENTRY_HOLDERS);
}

static void span_survey(const struct leaf_span *span, struct mirror_survey *sum)
{
	u64 word, huge = 0;
	unsigned int i;

	for (i = 0; i < span->nr; i++) {
		word = atomic64_read(span_word(span, i));
		if (span->stride == 1)
			word_survey(word, sum);
		else
			huge |= word;
	}
	word_survey(huge, sum);
}

/* The leaf at *@index or after it, under RCU: it may be on its way out. */
static bool leaf_survey_next(struct mm_mirror *mirror, unsigned long *index,
			     struct mirror_survey *sum)
{
	struct mm_mirror_leaf *leaf;
	struct leaf_span span;

	rcu_read_lock();
	leaf = xa_find(&mirror->leaves, index, ULONG_MAX, XA_PRESENT);
	if (leaf) {
		span = leaf_span(leaf, 0, LEAF_PAGES - 1);
		sum->leaves++;
		sum->huge += span.nr && span.stride != 1;
		span_survey(&span, sum);
	}
	rcu_read_unlock();
	return leaf;
}

/* Adds to @sum what the mirror has, which whoever calls keeps. */
void leaf_survey(struct mm_mirror *mirror, struct mirror_survey *sum)
{
	unsigned long index;

	for (index = 0; leaf_survey_next(mirror, &index, sum); index++)
		cond_resched();
}

/* ---- freeing ---- */

static void leaf_free(struct mm_mirror_leaf *leaf)
{
	mirror_delay(DELAY_UNLINK_TO_REMOVE);
	/* may wait for invalidations; after it no callback runs or comes */
	mmu_interval_notifier_remove(&leaf->notifier);
	table_free(rcu_replace_pointer(leaf->table, NULL, true));
	huge_free(rcu_replace_pointer(leaf->huge, NULL, true));
	stat_add(STAT_LEAVES, -1);
	kfree_rcu(leaf, rcu);
}

/*
 * A client may have something of a leaf without words: where nothing may block it
 * refused to drop it, or was not asked, because something else was held.  Whoever
 * takes such a page away comes through this leaf: so it is told before that goes.  And
 * while the leaf can be found still: from then on it has nothing to say about pages
 * that the next leaf at its place may have.
 */
static void leaf_tell_last(struct mm_mirror_leaf *leaf)
{
	struct mm_mirror_event event = { .type = MMU_NOTIFY_CLEAR };
	unsigned long installed;
	bool empty;

	spin_lock(&leaf->lock);
	installed = leaf->installed;
	empty = !leaf->present;
	spin_unlock(&leaf->lock);
	if (!empty || installed == leaf->told)
		return;

	event_widen(&event, leaf);
	subscriptions_invalidate(leaf->mirror, &event, true);
	spin_lock(&leaf->lock);
	/* not of what has come meanwhile */
	leaf->told = installed;
	spin_unlock(&leaf->lock);
}

/*
 * Takes an empty leaf of which all has been told out of the mirror. Returns false if it
 * is in use again.
 */
static bool leaf_unlink_idle(struct mm_mirror_leaf *leaf)
{
	struct mm_mirror *mirror = leaf->mirror;
	bool unused;

	mutex_lock(&mirror->lock);
	/*
	 * Installing needs a user, so nothing can come while there is none.  The
	 * bit stays set on what is freed: a late leaf_idle() must not queue it.
	 */
	unused = !leaf->users && !READ_ONCE(leaf->present) &&
		 leaf->told == leaf->installed &&
		 !test_and_set_bit(0, &leaf->idle);
	if (unused)
		xa_erase(&mirror->leaves, leaf_start(leaf) >> PMD_SHIFT);
	mutex_unlock(&mirror->lock);
	return unused;
}

/* mirror->reap_work: free the leaves that have been empty for a while. */
void leaf_reap(struct work_struct *work)
{
	struct mm_mirror *mirror = container_of(to_delayed_work(work),
						struct mm_mirror, reap_work);
	struct mm_mirror_leaf *leaf, *next;

	llist_for_each_entry_safe(leaf, next, llist_del_all(&mirror->idle),
				  idle_node) {
		mirror_delay(DELAY_REAP_TO_UNLINK);
		/* from here on whoever empties it again queues it again */
		clear_bit(0, &leaf->idle);
		/* and who has not, since the bit was set, is seen below */
		smp_mb__after_atomic();
		leaf_tell_last(leaf);
		if (leaf_unlink_idle(leaf))
			leaf_free(leaf);
	}
}

/*
 * The last handle is gone and no fault runs: nobody takes, so nothing is held.  The
 * pages are told while the notifier is still there, see page_harvest().
 */
void leaf_free_all(struct mm_mirror *mirror)
{
	struct mm_mirror_leaf *leaf;
	struct leaf_span span;
	unsigned long index;

	xa_for_each(&mirror->leaves, index, leaf) {
		spin_lock(&leaf->lock);
		span = leaf_span(leaf, 0, LEAF_PAGES - 1);
		WARN_ON_ONCE(leaf_zap(leaf, &span, false, true));
		WARN_ON_ONCE(leaf->present || leaf->users);
		spin_unlock(&leaf->lock);
		xa_erase(&mirror->leaves, index);
		leaf_free(leaf);
		cond_resched();
	}
	xa_destroy(&mirror->leaves);
}
