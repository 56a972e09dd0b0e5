// SPDX-License-Identifier: GPL-2.0
/*
 * Access through a mirror: take-or-fail.  Nothing here sleeps, faults or allocates;
 * what is missing is -EAGAIN, and mm_mirror_fault() is how to get it.
 */

#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/uaccess.h>

#include "internal.h"

#ifdef CONFIG_LOCKDEP
struct lockdep_map mm_mirror_hold_map =
	STATIC_LOCKDEP_MAP_INIT("mm_mirror_hold", &mm_mirror_hold_map);
#endif

/* The word of @addr, or NULL, and the distance of its page from the word's pfn. */
static atomic64_t *find_entry(struct mm_mirror *mirror, unsigned long addr,
			      unsigned int *pages)
{
	struct mm_mirror_leaf *leaf = leaf_find(mirror, addr);

	/* what is found stays allocated for as long as that is off */
	lockdep_assert_preemption_disabled();

	return leaf ? leaf_entry(leaf, addr, pages) : NULL;
}

/**
 * mm_mirror_take - keep a page from going away for the length of a copy
 * @mirror: the mirror
 * @addr: address of the byte to access
 * @write: the access may write
 * @grant: a fault of the caller that has completed, or NULL; a page granted to it
 *	is used where there is no translation
 * @hold: what to give to mm_mirror_drop()
 *
 * Preemption is off until mm_mirror_drop(), and nothing in between may sleep, fault
 * or take a second page: the mm waits for this.  An access that takes for writing
 * dirties the page, whether it writes or not.
 *
 * Context: process context; bottom halves may be off. Not softirq: whoever waits for
 * holders does not turn it off.
 *
 * Return: 0 with @hold->addr set, -EAGAIN if there is no such translation.
 */
int mm_mirror_take(struct mm_mirror *mirror, unsigned long addr, bool write,
		   struct mm_mirror_fault *grant, struct mm_mirror_hold *hold)
{
	unsigned int pages = 0;
	u64 word;

	lockdep_assert(!in_hardirq() && !in_serving_softirq());

	preempt_disable();
	hold->entry = find_entry(mirror, addr, &pages);
	if (likely(hold->entry && entry_take(hold->entry, write, &word)))
		goto taken;

	pages = 0;
	hold->entry = grant ? grant_find(fault_grants(grant), addr) : NULL;
	if (hold->entry && entry_take(hold->entry, write, &word))
		goto taken;

	preempt_enable();
	return -EAGAIN;

taken:
	hold_acquire();
	hold->addr = page_address(pfn_to_page(entry_pfn(word) + pages)) +
		     offset_in_page(addr);
	oracle_take(hold->addr);
	mirror_delay(DELAY_TAKE_TO_DROP);
	return 0;
}
EXPORT_SYMBOL_GPL(mm_mirror_take);

/**
 * mm_mirror_drop - let the page go
 * @hold: from mm_mirror_take(); its address is not used after this
 *
 * Context: that of mm_mirror_take().
 */
void mm_mirror_drop(struct mm_mirror_hold *hold)
{
	hold_release();
	oracle_drop(hold->addr);
	entry_drop(hold->entry);
	preempt_enable();
}
EXPORT_SYMBOL_GPL(mm_mirror_drop);

static bool page_resident(struct mm_mirror *mirror, unsigned long addr,
			  bool write, struct mm_mirror_fault *grant)
{
	atomic64_t *entry;
	unsigned int pages;
	bool ret;

	preempt_disable();
	entry = find_entry(mirror, addr, &pages);
	ret = entry && entry_usable(atomic64_read(entry), write);
	if (!ret && grant) {
		entry = grant_find(fault_grants(grant), addr);
		ret = entry && entry_usable(atomic64_read(entry), write);
	}
	preempt_enable();
	return ret;
}

/**
 * mm_mirror_resident - would an access be likely to succeed?
 * @mirror: the mirror
 * @addr: first address
 * @length: bytes, at least 1; @addr + @length does not wrap
 * @write: the access would write
 * @grant: as for mm_mirror_take()
 *
 * A hint: it may be wrong by the time of the access. It is for accesses of several
 * pages that should do nothing rather than a part.
 *
 * Context: any but hard interrupts.
 *
 * Return: true if every page has a translation that allows the access.
 */
bool mm_mirror_resident(struct mm_mirror *mirror, unsigned long addr,
			size_t length, bool write,
			struct mm_mirror_fault *grant)
{
	unsigned long page = addr & PAGE_MASK;
	unsigned long last = addr + length - 1;

	for (; page <= last; page += PAGE_SIZE)
		if (!page_resident(mirror, page, write, grant))
			return false;
	return true;
}
EXPORT_SYMBOL_GPL(mm_mirror_resident);

/* A poisoned line of persistent memory is an error to report, not a panic. */
static int copy_out(void *to, const void *from, size_t length)
{
	if (unlikely(is_zone_device_page(virt_to_page(from))))
		return copy_mc_to_kernel(to, from, length) ? -EIO : 0;
	memcpy(to, from, length);
	return 0;
}

static int copy_pages(struct mm_mirror *mirror, unsigned long addr, void *buf,
		      size_t length, bool write, struct mm_mirror_fault *grant)
{
	struct mm_mirror_hold hold;
	int ret;

	/* all or nothing, as far as one can tell */
	if (offset_in_page(addr) + length > PAGE_SIZE &&
	    !mm_mirror_resident(mirror, addr, length, write, grant))
		return -EAGAIN;

	while (length) {
		size_t n = min_t(size_t, length,
				 PAGE_SIZE - offset_in_page(addr));

		ret = mm_mirror_take(mirror, addr, write, grant, &hold);
		if (ret)
			return ret;
		if (write)
			memcpy(hold.addr, buf, n);
		else
			ret = copy_out(buf, hold.addr, n);
		mm_mirror_drop(&hold);
		if (ret)
			return ret;
		addr += n;
		buf += n;
		length -= n;
	}
	return 0;
}

/**
 * mm_mirror_copy_to - write to the mirrored process's memory
 * @mirror: the mirror
 * @addr: first address
 * @from: kernel memory
 * @length: bytes, may be 0; @addr + @length does not wrap
 * @grant: as for mm_mirror_take()
 *
 * On -EAGAIN some of the bytes may have been written; the same call can be made
 * again after a fault.
 *
 * Context: that of mm_mirror_take(); does not sleep.
 *
 * Return: 0, or -EAGAIN if some page has no translation that allows writing.
 */
int mm_mirror_copy_to(struct mm_mirror *mirror, unsigned long addr,
		      const void *from, size_t length,
		      struct mm_mirror_fault *grant)
{
	return copy_pages(mirror, addr, (void *)from, length, true, grant);
}
EXPORT_SYMBOL_GPL(mm_mirror_copy_to);

/**
 * mm_mirror_copy_from - read the mirrored process's memory
 * @mirror: the mirror
 * @addr: first address
 * @to: kernel memory
 * @length: bytes, may be 0; @addr + @length does not wrap
 * @grant: as for mm_mirror_take()
 *
 * Context: that of mm_mirror_take(); does not sleep.
 *
 * Return: 0, -EAGAIN if some page has no translation, -EIO if it is poisoned.
 */
int mm_mirror_copy_from(struct mm_mirror *mirror, unsigned long addr, void *to,
			size_t length, struct mm_mirror_fault *grant)
{
	return copy_pages(mirror, addr, to, length, false, grant);
}
EXPORT_SYMBOL_GPL(mm_mirror_copy_from);
