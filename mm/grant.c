// SPDX-License-Identifier: GPL-2.0
/*
 * Grants: progress for a page that keeps losing its race against invalidations.
 *
 * A thread that calls MADV_DONTNEED in a loop, or reclaim under heavy pressure, can
 * take a translation away each time before its access comes to it.  Such a page is
 * then taken as process_vm_writev() takes it, with a reference by GUP, and lent to
 * the one fault that asked: an entry of its own, outside of the leaf's table.
 *
 * What keeps that true: GUP and the linking to the leaf happen under mmap_lock.
 * Invalidations that come with mmap_lock held for writing (unmap, move, protect,
 * exit) end the grant as they end any entry, fence included.  The others (discard,
 * reclaim, copy-on-write, truncate) leave it: they count as having come after the
 * access, and the reference keeps the page from being anybody else's meanwhile.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "internal.h"

/**
 * struct mm_mirror_grant - one page lent
 * @entry: its translation; 0 once it has ended
 * @addr: of the page
 * @write: lent for writing, so dirty when it is given back
 * @page: pinned
 * @leaf: of @addr, kept
 * @on_leaf: on leaf->grants, under leaf->lock
 * @on_fault: on the fault's list
 */
struct mm_mirror_grant {
	atomic64_t		entry;
	unsigned long		addr;
	bool			write;
	struct page		*page;
	struct mm_mirror_leaf	*leaf;
	struct list_head	on_leaf;
	struct list_head	on_fault;
};

/* The fault's list does not change any more once its client looks here. */
atomic64_t *grant_find(const struct list_head *grants, unsigned long addr)
{
	struct mm_mirror_grant *grant;

	list_for_each_entry(grant, grants, on_fault)
		if (grant->addr == (addr & PAGE_MASK))
			return &grant->entry;
	return NULL;
}

static bool range_ends_grants(const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_UNMAP ||
	       range->event == MMU_NOTIFY_PROTECTION_VMA ||
	       range->event == MMU_NOTIFY_RELEASE;
}

static struct mm_mirror_grant *grant_held(struct mm_mirror_leaf *leaf,
					  const struct mmu_notifier_range *range,
					  bool mark)
{
	struct mm_mirror_grant *grant;
	u64 old;

	lockdep_assert_held(&leaf->lock);

	list_for_each_entry(grant, &leaf->grants, on_leaf) {
		if (grant->addr < (range->start & PAGE_MASK) ||
		    grant->addr >= range->end)
			continue;
		if (entry_zap(&grant->entry, mark, &old))
			return grant;
		if (old)
			oracle_unmap(entry_pfn(old), 1);
	}
	return NULL;
}

/*
 * From leaf_invalidate(), under leaf->lock, which is dropped and taken again where
 * a holder is waited for.  The page is told at grant_release(), which has it pinned.
 * Returns false if a grant is held and @range does not allow to wait.
 */
bool grant_clear(struct mm_mirror_leaf *leaf,
		 const struct mmu_notifier_range *range)
{
	bool mark = mmu_notifier_range_blockable(range);
	struct mm_mirror_grant *grant;
	unsigned long addr = 0;
	u64 begin = 0;

	lockdep_assert_held(&leaf->lock);

	if (!range_ends_grants(range))
		return true;
	while ((grant = grant_held(leaf, range, mark))) {
		if (!mark)
			return false;
		if (!begin)
			begin = fence_begin();
		addr = grant->addr;
		/*
		 * The grant may be released while the lock is dropped, and its
		 * address waited on for nothing: so wait without touching it.
		 */
		spin_unlock(&leaf->lock);
		schedule_timeout_uninterruptible(1);
		spin_lock(&leaf->lock);
	}
	if (begin)
		fence_end(leaf->mirror, addr, begin);
	return true;
}

static void grant_link(struct mm_mirror_grant *grant)
{
	struct mm_mirror_leaf *leaf = grant->leaf;

	lockdep_assert_held(&mirror_mm(leaf->mirror)->mmap_lock);

	atomic64_set(&grant->entry,
		     entry_make(page_to_pfn(grant->page), grant->write));
	spin_lock(&leaf->lock);
	oracle_map(page_to_pfn(grant->page), 1);
	list_add(&grant->on_leaf, &leaf->grants);
	spin_unlock(&leaf->lock);
}

/* Under mmap_lock.  Returns 1 for a page, -EAGAIN if it would have to wait. */
static int grant_pin(struct mm_struct *mm, struct mm_mirror_grant *grant)
{
	struct vm_area_struct *vma = find_vma(mm, grant->addr);
	int ret;

	if (!vma || vma->vm_start > grant->addr || vma_check(vma, grant->write))
		return -EFAULT;
	/* mremap() of hugetlb memory looks like a discard, see range_ends_grants() */
	if (is_vm_hugetlb_page(vma))
		return -EAGAIN;
	ret = mirror_fail(FAIL_PIN) ?:
	      pin_user_pages_remote(mm, grant->addr, 1,
				    FOLL_NOWAIT |
				    (grant->write ? FOLL_WRITE : 0),
				    &grant->page, NULL);
	if (ret == 0 || ret == -EBUSY)
		return -EAGAIN;
	if (ret == 1 && oracle_prepare_pfn(page_to_pfn(grant->page))) {
		unpin_user_page(grant->page);
		return -ENOMEM;
	}
	return ret;
}

static int grant_page(struct mm_mirror *mirror, struct list_head *grants,
		      unsigned long addr, bool write)
{
	struct mm_struct *mm = mirror->anchor.mm;
	struct mm_mirror_grant *grant;
	int err;

	if (mirror_fail(FAIL_GRANT))
		return -ENOMEM;
	grant = kzalloc(sizeof(*grant), GFP_KERNEL_ACCOUNT);
	if (!grant)
		return -ENOMEM;
	grant->addr = addr;
	grant->write = write;
	grant->leaf = leaf_get(mirror, addr);
	if (IS_ERR(grant->leaf)) {
		err = PTR_ERR(grant->leaf);
		goto err_free_grant;
	}

	mmap_read_lock(mm);
	err = grant_pin(mm, grant);
	if (err == 1)
		grant_link(grant);
	mmap_read_unlock(mm);
	if (err != 1)
		goto err_put_leaf;

	list_add(&grant->on_fault, grants);
	stat_add(STAT_GRANTS, 1);
	return 0;

err_put_leaf:
	leaf_put(grant->leaf);
err_free_grant:
	kfree(grant);
	return err;
}

/**
 * grant_pages - lend pages to a fault
 * @mirror: the mirror, whose mm_users the caller has a reference on
 * @grants: the fault's list
 * @start: first address, page-aligned
 * @end: page-aligned
 * @write: for writing
 *
 * Context: process context; may sleep for memory, not for the page.
 *
 * Return: 0, -EAGAIN if a page would have to be waited for, -EFAULT, -ENOMEM. Pages
 * lent before an error stay lent.
 */
int grant_pages(struct mm_mirror *mirror, struct list_head *grants,
		unsigned long start, unsigned long end, bool write)
{
	unsigned long addr;
	int err;

	for (addr = start; addr < end; addr += PAGE_SIZE) {
		if (grant_find(grants, addr))
			continue;
		err = grant_page(mirror, grants, addr, write);
		if (err)
			return err;
	}
	return 0;
}

/* No access uses it any more: the client has put its fault. */
static void grant_release(struct mm_mirror_grant *grant)
{
	struct mm_mirror_leaf *leaf = grant->leaf;

	spin_lock(&leaf->lock);
	oracle_unmap_word(&grant->entry);
	list_del(&grant->on_leaf);
	spin_unlock(&leaf->lock);
	list_del(&grant->on_fault);
	unpin_user_pages_dirty_lock(&grant->page, 1, grant->write);
	leaf_put(leaf);
	kfree(grant);
}

void grant_release_all(struct list_head *grants)
{
	struct mm_mirror_grant *grant, *next;

	list_for_each_entry_safe(grant, next, grants, on_fault)
		grant_release(grant);
}
