/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One translation of a mirror: a 64-bit word, changed by atomic operations only.
 *
 *   63          16 15        5    4       3       2       1        0
 *  +--------------+-----------+---------+-------+-------+-------+---------+
 *  |     pfn      |  holders  | ZAPPING | DIRTY | YOUNG | WRITE | PRESENT |
 *  +--------------+-----------+---------+-------+-------+-------+---------+
 *
 * 0 means "no translation".  Everything but taking, dropping and aging happens
 * under the lock of the leaf that the word belongs to (see leaf.h):
 *
 *	0 ---install---> PRESENT ---zap, no holder---> 0
 *			    |  ^
 *		       take |  | drop
 *			    v  |
 *			  PRESENT, held ---zap---> ZAPPING, held
 *						      | last drop
 *						      v
 *						   ZAPPING ---harvest---> 0
 *
 * The rules: WRITE is set only where the CPU may write; an access that may write
 * sets DIRTY when it takes; DIRTY is cleared only together with PRESENT and by
 * whoever then tells the page; nobody takes a word that is ZAPPING.
 */

#ifndef MM_MIRROR_ENTRY_H
#define MM_MIRROR_ENTRY_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/wait_bit.h>

#include "debug.h"

#define ENTRY_PRESENT		BIT_ULL(0)
#define ENTRY_WRITE		BIT_ULL(1)
#define ENTRY_YOUNG		BIT_ULL(2)
#define ENTRY_DIRTY		BIT_ULL(3)
#define ENTRY_ZAPPING		BIT_ULL(4)
#define ENTRY_HOLDER		BIT_ULL(5)
#define ENTRY_HOLDERS		GENMASK_ULL(15, 5)
#define ENTRY_PFN_SHIFT		16

static inline unsigned long entry_pfn(u64 word)
{
	return word >> ENTRY_PFN_SHIFT;
}

/* What is true of every word at every time. */
static inline void entry_check(u64 word)
{
	word_check(!word || (word & ENTRY_PRESENT), word);
	word_check(!(word & ENTRY_DIRTY) || (word & ENTRY_WRITE), word);
}

static inline u64 entry_make(unsigned long pfn, bool write)
{
	return (u64)pfn << ENTRY_PFN_SHIFT | ENTRY_PRESENT |
	       (write ? ENTRY_WRITE : 0);
}

/* May an access use this word now?  What is being zapped counts as gone. */
static inline bool entry_usable(u64 word, bool write)
{
	u64 want = ENTRY_PRESENT | (write ? ENTRY_WRITE : 0);

	return (word & (want | ENTRY_ZAPPING)) == want;
}

/**
 * entry_take - become a holder of a translation
 * @entry: the word
 * @write: the access may write
 * @word: where to store the word as it was taken
 *
 * The compare-exchange is fully ordered: the page is not touched before.
 *
 * Return: true if held. False if there is no such translation, or if the count of
 * holders is full: it never carries into the pfn.
 */
static inline bool entry_take(atomic64_t *entry, bool write, u64 *word)
{
	s64 old = atomic64_read(entry), new;

	do {
		if (!entry_usable(old, write) ||
		    (old & ENTRY_HOLDERS) == ENTRY_HOLDERS)
			return false;
		new = (old + ENTRY_HOLDER) | ENTRY_YOUNG |
		      (write ? ENTRY_DIRTY : 0);
	} while (!atomic64_try_cmpxchg(entry, &old, new));

	entry_check(new);
	word_check(!(new & ENTRY_ZAPPING), new);
	*word = new;
	return true;
}

/*
 * The subtraction is fully ordered: the page is not touched after it, and it
 * pairs with the acquire in entry_wait().  The entry's memory may be freed as
 * soon as it is done; wake_up_var() uses the address only.
 */
static inline void entry_drop(atomic64_t *entry)
{
	u64 word = atomic64_sub_return(ENTRY_HOLDER, entry);

	entry_check(word);
	/* below zero it would have borrowed from the pfn, and be full */
	word_check((word & ENTRY_HOLDERS) != ENTRY_HOLDERS, word);
	if (unlikely((word & (ENTRY_ZAPPING | ENTRY_HOLDERS)) == ENTRY_ZAPPING))
		wake_up_var(entry);
}

/**
 * entry_zap - remove a translation, or say that somebody holds it
 * @entry: the word; its leaf is locked
 * @mark: if it is held, keep new holders out (blockable context only: whoever
 *	marks must wait for the holders and harvest)
 * @old: where to store what was removed; 0 if nothing was
 *
 * Return: true if the translation is held and is still there.
 */
static inline bool entry_zap(atomic64_t *entry, bool mark, u64 *old)
{
	s64 word = atomic64_read(entry), new;

	*old = 0;
	do {
		if (!word)
			return false;
		new = word & ENTRY_HOLDERS ? word | ENTRY_ZAPPING : 0;
		if (new && (!mark || new == word))
			return true;
	} while (!atomic64_try_cmpxchg(entry, &word, new));

	entry_check(word);
	word_check(new || !(word & ENTRY_HOLDERS), word);
	if (!new)
		*old = word;
	return new;
}

/* Sleeps until the holders of a word that is ZAPPING are gone. */
static inline void entry_wait(atomic64_t *entry)
{
	u64 word;

	/* pairs with the full barrier of the last entry_drop() */
	wait_var_event(entry, !((word = atomic64_read_acquire(entry)) &
				ENTRY_HOLDERS));
	entry_check(word);
}

static inline void entry_assert_layout(void)
{
	BUILD_BUG_ON(!IS_ENABLED(CONFIG_64BIT));
	/* whoever drops wakes, and a client locks its table, with preemption off */
	BUILD_BUG_ON(IS_ENABLED(CONFIG_PREEMPT_RT));
	BUILD_BUG_ON(ENTRY_HOLDERS & (ENTRY_HOLDER - 1));
	BUILD_BUG_ON(ENTRY_HOLDERS >> ENTRY_PFN_SHIFT);
}

#endif /* MM_MIRROR_ENTRY_H */
