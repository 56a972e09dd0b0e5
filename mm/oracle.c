// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle of a debug build: a page that is freed while a mirror maps it, or while
 * somebody holds it, is reported at that moment, with who frees it in the backtrace.
 *
 * It keeps a book of its own, by pfn: how many words map the page (a huge word counts
 * for each of its pages) and how many holders copy from it or to it.  A probe on the
 * kernel's mm_page_free tracepoint looks the page up.  Nothing is looked up in the
 * tables that are being checked, and a wrong book shows as a count that is not 0 in
 * the end.
 *
 * Not every page goes through that tracepoint: one of hugetlb returns to its pool,
 * and persistent memory to its filesystem.  Those are caught only while they are
 * used: what is taken, dropped or told must have a reference of somebody, which a
 * page in hugetlb's pool has not.
 *
 * Counts live in sections that are made before the lock under which they are needed,
 * and stay until the module goes, so that the probe, which runs in any context, finds
 * them by RCU alone.
 */

#include <linux/debugfs.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/ratelimit.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>
#include <linux/xarray.h>

#include "internal.h"

/* More than the buddy allocator ever frees at once, which depends on the page size. */
#define SECTION_PFNS	(4UL * MAX_ORDER_NR_PAGES)

/* A count: words in the low half, holders in the high one. */
#define COUNT_HOLDER	BIT_ULL(32)

struct section {
	atomic64_t count[SECTION_PFNS];
};

static DEFINE_XARRAY(sections);
static struct tracepoint *page_free;
static atomic_long_t pages_seen;
static atomic_long_t reports;

static unsigned int count_words(u64 count)
{
	return count;
}

static unsigned int count_holders(u64 count)
{
	return count >> 32;
}

static struct section *section_find(unsigned long pfn)
{
	return xa_load(&sections, pfn / SECTION_PFNS);
}

/**
 * oracle_prepare_pfn - have a place to count a page at
 * @pfn: the page
 *
 * Context: process context; may sleep.
 *
 * Return: 0 or -ENOMEM.
 */
int oracle_prepare_pfn(unsigned long pfn)
{
	struct section *section;
	int err;

	might_sleep();

	if (section_find(pfn))
		return 0;
	section = kvzalloc(sizeof(*section), GFP_KERNEL);
	if (!section)
		return -ENOMEM;
	err = xa_insert(&sections, pfn / SECTION_PFNS, section, GFP_KERNEL);
	if (err)
		kvfree(section);
	return err == -EBUSY ? 0 : err;
}

int oracle_prepare(const unsigned long *hmm_pfns, unsigned int nr)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < nr && !err; i++)
		if (hmm_pfns[i] & HMM_PFN_VALID)
			err = oracle_prepare_pfn(hmm_pfns[i] & ~HMM_PFN_FLAGS);
	return err;
}

/* Returns the count before. */
static u64 count_add(unsigned long pfn, s64 n)
{
	struct section *section = section_find(pfn);

	if (WARN_ONCE(!section, "mm_mirror: pfn %#lx is not in the book\n", pfn))
		return -1;
	return atomic64_fetch_add(n, &section->count[pfn % SECTION_PFNS]);
}

/* A word that maps @nr pages has been installed; its leaf is locked. */
void oracle_map(unsigned long pfn, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		count_add(pfn + i, 1);
}

/* It has been removed. */
void oracle_unmap(unsigned long pfn, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		WARN_ONCE(!count_words(count_add(pfn + i, -1)),
			  "mm_mirror: pfn %#lx was not mapped\n", pfn + i);
}

/* A word that maps one page, if any, is about to be forgotten. */
void oracle_unmap_word(const atomic64_t *word)
{
	u64 old = atomic64_read(word);

	if (old)
		oracle_unmap(entry_pfn(old), 1);
}

/* Whoever uses a page must find it in use. */
static void page_is_live(unsigned long pfn, const char *what)
{
	if (page_count(pfn_to_page(pfn)))
		return;
	atomic_long_inc(&reports);
	WARN_RATELIMIT(1, "mm_mirror: pfn %#lx is %s when it is free\n", pfn,
		       what);
}

/* The page is about to be told what its word knew. */
void oracle_tell(unsigned long pfn)
{
	page_is_live(pfn, "told");
}

void oracle_take(const void *addr)
{
	unsigned long pfn = page_to_pfn(virt_to_page(addr));

	count_add(pfn, COUNT_HOLDER);
	page_is_live(pfn, "taken");
}

/* Before the hold ends, since the page may go with it. */
void oracle_drop(const void *addr)
{
	unsigned long pfn = page_to_pfn(virt_to_page(addr));

	page_is_live(pfn, "dropped");
	WARN_ONCE(!count_holders(count_add(pfn, -COUNT_HOLDER)),
		  "mm_mirror: pfn %#lx was not held\n", pfn);
}

static void page_freed(unsigned long pfn, unsigned int order, u64 count)
{
	atomic_long_inc(&reports);
	WARN_RATELIMIT(1, "mm_mirror: pfn %#lx is freed (order %u) while %s: %u words, %u holders\n",
		       pfn, order,
		       count_holders(count) ? "held" : "mapped",
		       count_words(count), count_holders(count));
}

/* On the tracepoint: any context, under RCU. A block of pages is in one section. */
static void page_free_probe(void *data, struct page *page, unsigned int order)
{
	unsigned long pfn = page_to_pfn(page), end = pfn + (1UL << order);
	struct section *section = section_find(pfn);
	u64 count;

	if (!section)
		return;
	atomic_long_inc(&pages_seen);
	for (; pfn < end; pfn++) {
		count = atomic64_read(&section->count[pfn % SECTION_PFNS]);
		if (unlikely(count))
			page_freed(pfn, order, count);
	}
}

static void sum_up(u64 *words, u64 *holders)
{
	struct section *section;
	unsigned long index;
	unsigned int i;
	u64 count;

	*words = 0;
	*holders = 0;
	xa_for_each(&sections, index, section) {
		for (i = 0; i < SECTION_PFNS; i++) {
			count = atomic64_read(&section->count[i]);
			*words += count_words(count);
			*holders += count_holders(count);
		}
		cond_resched();
	}
}

static int oracle_show(struct seq_file *m, void *unused)
{
	u64 words, holders;

	sum_up(&words, &holders);
	seq_printf(m, "mapped %llu\nheld %llu\nseen %ld\nreports %ld\n", words,
		   holders, atomic_long_read(&pages_seen),
		   atomic_long_read(&reports));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(oracle);

static void find_page_free(struct tracepoint *tp, void *unused)
{
	if (!strcmp(tp->name, "mm_page_free"))
		page_free = tp;
}

/* @dir: of debugfs. Without the tracepoint the module does all else. */
void __init oracle_init(struct dentry *dir)
{
	debugfs_create_file("oracle", 0400, dir, NULL, &oracle_fops);
	for_each_kernel_tracepoint(find_page_free, NULL);
	if (page_free && tracepoint_probe_register(page_free, page_free_probe,
						   NULL))
		page_free = NULL;
	if (!page_free)
		pr_warn("mm_mirror: no tracepoint mm_page_free: freed pages are not checked\n");
}

/* All mirrors are gone, and debugfs. */
void oracle_exit(void)
{
	struct section *section;
	u64 words, holders;
	unsigned long index;

	if (page_free)
		tracepoint_probe_unregister(page_free, page_free_probe, NULL);
	tracepoint_synchronize_unregister();
	sum_up(&words, &holders);
	WARN(words || holders, "mm_mirror: %llu pages are still mapped, %llu held\n",
	     words, holders);
	xa_for_each(&sections, index, section)
		kvfree(section);
	xa_destroy(&sections);
}
