/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a debug build (CONFIG_MM_MIRROR_DEBUG) checks of itself, where it can be told
 * to dawdle, or to fail, and what to leave out.  All of it is nothing otherwise.
 */

#ifndef MM_MIRROR_DEBUG_H
#define MM_MIRROR_DEBUG_H

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/sched/mm.h>
#include <linux/types.h>

struct dentry;

/* Where it can be told to dawdle; see Documentation/locking.md. */
enum mirror_delay {
	DELAY_TAKE_TO_DROP,
	DELAY_FAULT_TO_INSTALL,
	DELAY_MARK_TO_WAIT,
	DELAY_ZAP_TO_TELL,
	DELAY_FIND_TO_AGE,
	DELAY_REAP_TO_UNLINK,
	DELAY_UNLINK_TO_REMOVE,
	DELAY_DONE_TO_CALL,
	DELAY_WAKE_TO_SLEEP,
	DELAY_FAULT_TO_PARK,
	DELAY_LAST_TO_PUT,
	DELAY_END_TO_RELEASE,
	DELAY_NR,
};

/* What can be made to fail, as if for want of memory; with fault injection only. */
enum mirror_fail {
	FAIL_FAULT,		/* the fault itself, in the client's task */
	FAIL_PFNS,		/* where HMM puts what it sees */
	FAIL_LEAF,
	FAIL_INDEX,		/* the leaf's place in the mirror */
	FAIL_NOTIFIER,		/* and its interval notifier */
	FAIL_TABLE,
	FAIL_HUGE,
	FAIL_PAGE,		/* handle_mm_fault(), for a page that is needed */
	FAIL_PAGE_AHEAD,	/* and for one that may be */
	FAIL_GRANT,
	FAIL_PIN,		/* its page */
	FAIL_NR,
};

#ifdef CONFIG_MM_MIRROR_DEBUG

/* An invariant of a word: entry.h has them at the transitions. */
#define word_check(cond, word)						\
	WARN_ONCE(!(cond), "mm_mirror: not '%s': word %#llx\n", #cond,	\
		  (unsigned long long)(word))

/* Where an allocation may happen, and mostly does not. */
static inline void debug_might_alloc(void)
{
	might_alloc(GFP_KERNEL);
}

/* delay.c */
void delay_init(struct dentry *dir);
void mirror_delay(enum mirror_delay point);

/* switch.c */
void switch_init(struct dentry *dir);
bool mirror_aging(void);

/* oracle.c: is a page that is freed mapped or held? */
void oracle_init(struct dentry *dir);
void oracle_exit(void);
int oracle_prepare(const unsigned long *hmm_pfns, unsigned int nr);
int oracle_prepare_pfn(unsigned long pfn);
void oracle_map(unsigned long pfn, unsigned int nr);
void oracle_unmap(unsigned long pfn, unsigned int nr);
void oracle_unmap_word(const atomic64_t *word);
void oracle_tell(unsigned long pfn);
void oracle_take(const void *addr);
void oracle_drop(const void *addr);

#else

#define word_check(cond, word)						\
	do {								\
		BUILD_BUG_ON_INVALID(cond);				\
		BUILD_BUG_ON_INVALID(word);				\
	} while (0)

static inline void debug_might_alloc(void)
{
}

static inline void delay_init(struct dentry *dir)
{
}

static inline void mirror_delay(enum mirror_delay point)
{
}

static inline void switch_init(struct dentry *dir)
{
}

static inline bool mirror_aging(void)
{
	return true;
}

static inline void oracle_init(struct dentry *dir)
{
}

static inline void oracle_exit(void)
{
}

static inline int oracle_prepare(const unsigned long *hmm_pfns, unsigned int nr)
{
	return 0;
}

static inline int oracle_prepare_pfn(unsigned long pfn)
{
	return 0;
}

static inline void oracle_map(unsigned long pfn, unsigned int nr)
{
}

static inline void oracle_unmap(unsigned long pfn, unsigned int nr)
{
}

static inline void oracle_unmap_word(const atomic64_t *word)
{
}

static inline void oracle_tell(unsigned long pfn)
{
}

static inline void oracle_take(const void *addr)
{
}

static inline void oracle_drop(const void *addr)
{
}

#endif /* CONFIG_MM_MIRROR_DEBUG */

/* inject.c */
#if defined(CONFIG_MM_MIRROR_DEBUG) && defined(CONFIG_FAULT_INJECTION_DEBUG_FS)
int mirror_fail(enum mirror_fail point);
void fail_init(struct dentry *parent);
#else
static inline int mirror_fail(enum mirror_fail point)
{
	return 0;
}

static inline void fail_init(struct dentry *parent)
{
}
#endif

#endif /* MM_MIRROR_DEBUG_H */
