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
 * addresses of the mirrored process, lengths are bytes.
 */

#ifndef _LINUX_MM_MIRROR_H
#define _LINUX_MM_MIRROR_H

#include <linux/atomic.h>
#include <linux/types.h>

struct mm_struct;
struct mm_mirror;
struct mm_mirror_fault;

/**
 * struct mm_mirror_range - one piece of memory that an access is about to use
 * @start: first address
 * @length: bytes that will be used soon; what lies beyond @need is faulted only
 *	as far as that takes no waiting, and cannot fail
 * @need: bytes at @start without which the access cannot go on, <= @length
 */
struct mm_mirror_range {
	unsigned long	start;
	size_t		length;
	size_t		need;
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

typedef void (*mm_mirror_done_fn)(struct mm_mirror_fault *fault, void *data);

struct mm_mirror *mm_mirror_get(void);
struct mm_mirror *mm_mirror_ref(struct mm_mirror *mirror);
void mm_mirror_put(struct mm_mirror *mirror);
bool mm_mirror_is_current(const struct mm_mirror *mirror);

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

#ifdef CONFIG_MM_MIRROR_DEBUG
void mm_mirror_delay_park(void);
#else
static inline void mm_mirror_delay_park(void)
{
}
#endif

#endif /* _LINUX_MM_MIRROR_H */
