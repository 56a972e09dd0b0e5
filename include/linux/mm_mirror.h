/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * mm_mirror: one page table per process for software devices.
 *
 * A mirror holds translations of a process's addresses for devices whose
 * "DMA" is a copy by the CPU.  It takes no page references: the kernel's mmu
 * notifiers keep it coherent, and an invalidation does not return before the
 * last access to the page has ended.  The contract of every function is at its
 * definition in mm/; Documentation/architecture.md and Documentation/locking.md
 * tell the whole.
 *
 * Words: `last` is inclusive, `end` is exclusive, addresses are user virtual
 * addresses of the mirrored process, without a tag (untagged_addr()), lengths are
 * bytes.
 */

#ifndef _LINUX_MM_MIRROR_H
#define _LINUX_MM_MIRROR_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/interval_tree.h>
#include <linux/kconfig.h>
#include <linux/list.h>
#include <linux/mmu_notifier.h>
#include <linux/refcount.h>
#include <linux/types.h>

struct mm_mirror;
struct mm_mirror_count;
struct mm_mirror_fault;
struct mm_mirror_prefetch;
struct mm_mirror_subscription;

/**
 * enum mm_mirror_counter - what is counted of a range, see mm/count.c
 * @MM_MIRROR_FAULTED: pages that faults have got for accesses
 * @MM_MIRROR_INVALIDATED: pages whose translation was taken away
 * @MM_MIRROR_PREFETCHED: pages that were got before there was an access
 * @MM_MIRROR_WAITED: page faults that may have waited, for a disk or a handler
 * @MM_MIRROR_FAILED: faults for what cannot be had
 * @MM_MIRROR_COUNTERS: how many there are
 */
enum mm_mirror_counter {
	MM_MIRROR_FAULTED,
	MM_MIRROR_INVALIDATED,
	MM_MIRROR_PREFETCHED,
	MM_MIRROR_WAITED,
	MM_MIRROR_FAILED,
	MM_MIRROR_COUNTERS,
};

/**
 * struct mm_mirror_range - one piece of memory that an access is about to use
 * @start: first address
 * @length: bytes that will be used soon; what lies beyond @need is faulted only
 *	as far as that takes no waiting, and cannot fail
 * @need: bytes at @start without which the access cannot go on, <= @length
 * @count: where to count it, or NULL; the fault takes a reference
 */
struct mm_mirror_range {
	unsigned long		start;
	size_t			length;
	size_t			need;
	struct mm_mirror_count	*count;
};

/* Most ranges that one fault takes; the largest work request of rxe has 32. */
#define MM_MIRROR_FAULT_RANGES 32

/**
 * struct mm_mirror_hold - a page that cannot go away, for a moment
 * @addr: kernel address of the byte that was asked for, valid to the page's end
 * @entry: the translation that is held; not for the client
 */
struct mm_mirror_hold {
	void		*addr;
	atomic64_t	*entry;
};

/**
 * enum mm_mirror_prefetch_kind - what memory is prefetched for
 * @MM_MIRROR_PREFETCH_READ: reading
 * @MM_MIRROR_PREFETCH_WRITE: writing
 * @MM_MIRROR_PREFETCH_PRESENT: whatever the CPU's entries allow now; nothing is faulted
 */
enum mm_mirror_prefetch_kind {
	MM_MIRROR_PREFETCH_READ,
	MM_MIRROR_PREFETCH_WRITE,
	MM_MIRROR_PREFETCH_PRESENT,
};

/**
 * enum mm_mirror_answer - would a device be let in?
 * @MM_MIRROR_ADMITTED: yes
 * @MM_MIRROR_UNMAPPED: not even a CPU: nothing is mapped there, or not with that right,
 *	or its file ends before
 * @MM_MIRROR_UNFIT: memory that a device must not touch, or that cannot be read
 * @MM_MIRROR_UNHEARD: it belongs to a userfaultfd that is not told of the kernel's
 *	faults, so a page that is missing would be an error
 */
enum mm_mirror_answer {
	MM_MIRROR_ADMITTED,
	MM_MIRROR_UNMAPPED,
	MM_MIRROR_UNFIT,
	MM_MIRROR_UNHEARD,
};

/**
 * struct mm_mirror_prefetches - what is prefetched for an object; part of that
 * @list: the prefetches that are not done
 */
struct mm_mirror_prefetches {
	struct list_head	list;
};

typedef void (*mm_mirror_done_fn)(struct mm_mirror_fault *fault, void *data);

/**
 * struct mm_mirror_event - what the mm is about to do to a piece of memory
 * @start: first address
 * @last: last address; the piece lies within one leaf, PMD_SIZE bytes that begin at a
 *	multiple of that
 * @type: why
 */
struct mm_mirror_event {
	unsigned long			start;
	unsigned long			last;
	enum mmu_notifier_event		type;
};

/**
 * struct mm_mirror_subscription_ops - what a client with a table of its own must do
 *
 * "Its mappings" are what it keeps of pages that it saw in mm_mirror_establish().
 * While a callback that announces something runs, and until the mm has done it, nothing
 * can be established in that piece. Callbacks of one subscription may run at the same
 * time, for the same piece too, also while the client establishes elsewhere; they never
 * nest. They come for pieces in which nothing was established, too, and until
 * mm_mirror_unsubscribe() has returned, so the table itself stays until then.
 *
 * @release: drop all mappings, at once, and return when the device has stopped using
 *	them. Called once in the life of a subscription: when the last user of the
 *	address space is gone, before its pages and mappings are torn down; or by
 *	mm_mirror_unsubscribe(), or when @invalidate failed, if those come first.
 *	Nothing can be established any more. May sleep, as @invalidate may, and must
 *	not wait for more. Mandatory.
 * @invalidate: drop the mappings of a piece, and return when the device has stopped
 *	using them, whoever took them out of the table: another callback, which
 *	still waits for the device, is no reason to return. The pages are still there
 *	until then. True when it is done, which it has to be: false is a bug of the
 *	client, which is warned about once and loses the subscription: @release
 *	follows at once. May sleep, for what the device does, under any lock of the mm,
 *	and inside of reclaim: so no allocation that reclaims, no mmap_lock, no fault,
 *	and no waiting for anybody who does such. Mandatory.
 * @try_invalidate: the same where nothing may sleep. True when it is done; false if
 *	it would have to wait: then the mm leaves these pages alone, and tries again
 *	or does without them. What was dropped may stay dropped. Mandatory.
 * @test_young: did the device use a page of [start, last], part of one leaf, since
 *	somebody last cleared? A true makes the pages young, whatever the CPU and other
 *	clients say: reclaim keeps them for another round, where it asks. A false says
 *	that it need not for the client's sake. With a spinlock held: must not sleep,
 *	allocate or wait. NULL if the device cannot tell, like false.
 * @clear_young: the same, and from now on count anew. Set together with @test_young.
 */
struct mm_mirror_subscription_ops {
	void (*release)(struct mm_mirror_subscription *sub);
	bool (*invalidate)(struct mm_mirror_subscription *sub,
			   const struct mm_mirror_event *event);
	bool (*try_invalidate)(struct mm_mirror_subscription *sub,
			       const struct mm_mirror_event *event);
	bool (*test_young)(struct mm_mirror_subscription *sub,
			   unsigned long start, unsigned long last);
	bool (*clear_young)(struct mm_mirror_subscription *sub,
			    unsigned long start, unsigned long last);
};

/**
 * struct mm_mirror_subscription - a client's interest in a range; part of its object
 * @mirror: a handle
 * @ops: what it does
 * @node: its range, on mirror->subscriptions
 * @state: see mm/subscription.c
 * @calls: callbacks that run, and one until mm_mirror_unsubscribe()
 * @idle: there are none, and will be none
 *
 * Nothing here is for the client.
 */
struct mm_mirror_subscription {
	struct mm_mirror				*mirror;
	const struct mm_mirror_subscription_ops		*ops;
	struct interval_tree_node			node;
	int						state;
	refcount_t					calls;
	struct completion				idle;
};

#if IS_ENABLED(CONFIG_MM_MIRROR)

struct mm_mirror *mm_mirror_get(void);
struct mm_mirror *mm_mirror_ref(struct mm_mirror *mirror);
void mm_mirror_put(struct mm_mirror *mirror);
bool mm_mirror_is_current(const struct mm_mirror *mirror);
enum mm_mirror_answer mm_mirror_admits(unsigned long start, size_t length,
				       bool write);

int mm_mirror_take(struct mm_mirror *mirror, unsigned long addr, bool write,
		   struct mm_mirror_fault *grant, struct mm_mirror_hold *hold);
void mm_mirror_drop(struct mm_mirror_hold *hold);
bool mm_mirror_resident(struct mm_mirror *mirror, unsigned long addr,
			size_t length, bool write,
			struct mm_mirror_fault *grant);
int mm_mirror_copy_to(struct mm_mirror *mirror, unsigned long addr,
		      const void *from, size_t length,
		      struct mm_mirror_fault *grant);
int mm_mirror_copy_from(struct mm_mirror *mirror, unsigned long addr, void *to,
			size_t length, struct mm_mirror_fault *grant);

struct mm_mirror_fault *mm_mirror_fault(struct mm_mirror *mirror,
					const struct mm_mirror_range *ranges,
					unsigned int nr, bool write,
					mm_mirror_done_fn done, void *data);
struct mm_mirror_fault *mm_mirror_fault_granted(struct mm_mirror *mirror,
						const struct mm_mirror_range *ranges,
						unsigned int nr, bool write,
						mm_mirror_done_fn done, void *data);
int mm_mirror_fault_status(struct mm_mirror_fault *fault);
void mm_mirror_fault_detach(struct mm_mirror_fault *fault);
void mm_mirror_fault_put(struct mm_mirror_fault *fault);
int mm_mirror_fault_wait(struct mm_mirror *mirror,
			 const struct mm_mirror_range *ranges, unsigned int nr,
			 bool write);

void mm_mirror_prefetches_init(struct mm_mirror_prefetches *owner);
struct mm_mirror_prefetch *
mm_mirror_prefetch(struct mm_mirror_prefetches *owner, struct mm_mirror *mirror,
		   const struct mm_mirror_range *ranges, unsigned int nr,
		   enum mm_mirror_prefetch_kind kind);
int mm_mirror_prefetch_wait(struct mm_mirror_prefetch *prefetch);
void mm_mirror_prefetch_put(struct mm_mirror_prefetch *prefetch);
void mm_mirror_prefetch_cancel(struct mm_mirror_prefetches *owner,
			       struct mm_mirror *mirror);

int mm_mirror_subscribe(struct mm_mirror_subscription *sub,
			struct mm_mirror *mirror, unsigned long start,
			unsigned long last,
			const struct mm_mirror_subscription_ops *ops);
void mm_mirror_unsubscribe(struct mm_mirror_subscription *sub);
int mm_mirror_establish(struct mm_mirror_subscription *sub, unsigned long addr,
			bool write, struct mm_mirror_hold *hold);

struct mm_mirror_count *mm_mirror_count_total(void);
struct mm_mirror_count *mm_mirror_count_begin(struct mm_mirror *mirror,
					      unsigned long start,
					      unsigned long last,
					      struct mm_mirror_count *total);
void mm_mirror_count_end(struct mm_mirror_count *count);
struct mm_mirror_count *mm_mirror_count_ref(struct mm_mirror_count *count);
void mm_mirror_count_put(struct mm_mirror_count *count);
u64 mm_mirror_count_read(const struct mm_mirror_count *count,
			 enum mm_mirror_counter counter);

#ifdef CONFIG_MM_MIRROR_DEBUG
void mm_mirror_delay_park(void);
#else
static inline void mm_mirror_delay_park(void)
{
}
#endif

#else /* !CONFIG_MM_MIRROR */

/*
 * Callers are checked by the compiler, and cost nothing: without a mirror, which is
 * not to be had, none of the others is called.
 */

static inline struct mm_mirror *mm_mirror_get(void)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline struct mm_mirror *mm_mirror_ref(struct mm_mirror *mirror)
{
	return mirror;
}

static inline void mm_mirror_put(struct mm_mirror *mirror)
{
}

static inline bool mm_mirror_is_current(const struct mm_mirror *mirror)
{
	return false;
}

static inline enum mm_mirror_answer mm_mirror_admits(unsigned long start,
						     size_t length, bool write)
{
	return MM_MIRROR_UNFIT;
}

static inline int mm_mirror_take(struct mm_mirror *mirror, unsigned long addr,
				 bool write, struct mm_mirror_fault *grant,
				 struct mm_mirror_hold *hold)
{
	return -EOPNOTSUPP;
}

static inline void mm_mirror_drop(struct mm_mirror_hold *hold)
{
}

static inline bool mm_mirror_resident(struct mm_mirror *mirror,
				      unsigned long addr, size_t length,
				      bool write, struct mm_mirror_fault *grant)
{
	return false;
}

static inline int mm_mirror_copy_to(struct mm_mirror *mirror,
				    unsigned long addr, const void *from,
				    size_t length, struct mm_mirror_fault *grant)
{
	return -EOPNOTSUPP;
}

static inline int mm_mirror_copy_from(struct mm_mirror *mirror,
				      unsigned long addr, void *to,
				      size_t length,
				      struct mm_mirror_fault *grant)
{
	return -EOPNOTSUPP;
}

static inline struct mm_mirror_fault *
mm_mirror_fault(struct mm_mirror *mirror, const struct mm_mirror_range *ranges,
		unsigned int nr, bool write, mm_mirror_done_fn done, void *data)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline struct mm_mirror_fault *
mm_mirror_fault_granted(struct mm_mirror *mirror,
			const struct mm_mirror_range *ranges, unsigned int nr,
			bool write, mm_mirror_done_fn done, void *data)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline int mm_mirror_fault_status(struct mm_mirror_fault *fault)
{
	return -EOPNOTSUPP;
}

static inline void mm_mirror_fault_detach(struct mm_mirror_fault *fault)
{
}

static inline void mm_mirror_fault_put(struct mm_mirror_fault *fault)
{
}

static inline int mm_mirror_fault_wait(struct mm_mirror *mirror,
				       const struct mm_mirror_range *ranges,
				       unsigned int nr, bool write)
{
	return -EOPNOTSUPP;
}

static inline void
mm_mirror_prefetches_init(struct mm_mirror_prefetches *owner)
{
}

static inline struct mm_mirror_prefetch *
mm_mirror_prefetch(struct mm_mirror_prefetches *owner, struct mm_mirror *mirror,
		   const struct mm_mirror_range *ranges, unsigned int nr,
		   enum mm_mirror_prefetch_kind kind)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline int mm_mirror_prefetch_wait(struct mm_mirror_prefetch *prefetch)
{
	return -EOPNOTSUPP;
}

static inline void mm_mirror_prefetch_put(struct mm_mirror_prefetch *prefetch)
{
}

static inline void
mm_mirror_prefetch_cancel(struct mm_mirror_prefetches *owner,
			  struct mm_mirror *mirror)
{
}

static inline int
mm_mirror_subscribe(struct mm_mirror_subscription *sub, struct mm_mirror *mirror,
		    unsigned long start, unsigned long last,
		    const struct mm_mirror_subscription_ops *ops)
{
	return -EOPNOTSUPP;
}

static inline void mm_mirror_unsubscribe(struct mm_mirror_subscription *sub)
{
}

static inline int mm_mirror_establish(struct mm_mirror_subscription *sub,
				      unsigned long addr, bool write,
				      struct mm_mirror_hold *hold)
{
	return -EOPNOTSUPP;
}

static inline struct mm_mirror_count *mm_mirror_count_total(void)
{
	return NULL;
}

static inline struct mm_mirror_count *
mm_mirror_count_begin(struct mm_mirror *mirror, unsigned long start,
		      unsigned long last, struct mm_mirror_count *total)
{
	return NULL;
}

static inline void mm_mirror_count_end(struct mm_mirror_count *count)
{
}

static inline struct mm_mirror_count *
mm_mirror_count_ref(struct mm_mirror_count *count)
{
	return count;
}

static inline void mm_mirror_count_put(struct mm_mirror_count *count)
{
}

static inline u64 mm_mirror_count_read(const struct mm_mirror_count *count,
				       enum mm_mirror_counter counter)
{
	return 0;
}

static inline void mm_mirror_delay_park(void)
{
}

#endif /* CONFIG_MM_MIRROR */

#endif /* _LINUX_MM_MIRROR_H */
