/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a mirror does that takes time or takes pages away.  There is none for taking
 * and dropping, which is too short for one.
 *
 * In each: mirror is the number that /sys/kernel/debug/mm_mirror/mirrors has, pid
 * the process whose memory it is (0 when its last task is gone), which is mostly not
 * the one that runs.  Documentation/debugging.md says what to make of them.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mm_mirror

#if !defined(_TRACE_MM_MIRROR_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MM_MIRROR_H

#include <linux/mm_mirror.h>
#include <linux/mmu_notifier.h>
#include <linux/tracepoint.h>

struct fault_tally;

TRACE_DEFINE_ENUM(MMU_NOTIFY_UNMAP);
TRACE_DEFINE_ENUM(MMU_NOTIFY_CLEAR);
TRACE_DEFINE_ENUM(MMU_NOTIFY_PROTECTION_VMA);
TRACE_DEFINE_ENUM(MMU_NOTIFY_PROTECTION_PAGE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_SOFT_DIRTY);
TRACE_DEFINE_ENUM(MMU_NOTIFY_RELEASE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_MIGRATE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_EXCLUSIVE);

#define show_mmu_notifier_event(event)					\
	__print_symbolic(event,						\
		{ MMU_NOTIFY_UNMAP,		"unmap" },		\
		{ MMU_NOTIFY_CLEAR,		"clear" },		\
		{ MMU_NOTIFY_PROTECTION_VMA,	"protection_vma" },	\
		{ MMU_NOTIFY_PROTECTION_PAGE,	"protection_page" },	\
		{ MMU_NOTIFY_SOFT_DIRTY,	"soft_dirty" },		\
		{ MMU_NOTIFY_RELEASE,		"release" },		\
		{ MMU_NOTIFY_MIGRATE,		"migrate" },		\
		{ MMU_NOTIFY_EXCLUSIVE,		"exclusive" })

/*
 * A client asks for memory.  address is where the first range starts, bytes and need
 * are sums over all ranges; fault finds the end that belongs to it.
 */
TRACE_EVENT(mm_mirror_fault_begin,

	TP_PROTO(const struct mm_mirror *mirror, const void *fault,
		 const struct mm_mirror_range *ranges, unsigned int nr,
		 bool write, bool granted),

	TP_ARGS(mirror, fault, ranges, nr, write, granted),

	TP_STRUCT__entry(
		__field(unsigned int, mirror)
		__field(int, pid)
		__field(const void *, fault)
		__field(unsigned long, address)
		__field(size_t, bytes)
		__field(size_t, need)
		__field(unsigned int, ranges)
		__field(bool, write)
		__field(bool, granted)
	),

	TP_fast_assign(
		__entry->mirror = mirror->id;
		__entry->pid = mirror_pid(mirror);
		__entry->fault = fault;
		__entry->address = ranges[0].start;
		__entry->bytes = ranges_bytes(ranges, nr);
		__entry->need = ranges_need(ranges, nr);
		__entry->ranges = nr;
		__entry->write = write;
		__entry->granted = granted;
	),

	TP_printk("mirror=%u pid=%d fault=%p address=%#lx bytes=%zu need=%zu ranges=%u write=%d granted=%d",
		  __entry->mirror, __entry->pid, __entry->fault,
		  __entry->address, __entry->bytes, __entry->need,
		  __entry->ranges, __entry->write, __entry->granted)
);

/*
 * It has it, or an error.  us is since the client asked, 0 if nobody traced then;
 * pages were installed; rounds are looks at the CPU's page table that had to fault
 * something, waits page faults that let go of mmap_lock to sleep, retries looks that
 * an invalidation overtook, granted that pages were lent for it.
 */
TRACE_EVENT(mm_mirror_fault_end,

	TP_PROTO(const struct mm_mirror *mirror, const void *fault,
		 const struct mm_mirror_range *ranges, unsigned int nr,
		 bool write, bool granted, int status,
		 const struct fault_tally *tally),

	TP_ARGS(mirror, fault, ranges, nr, write, granted, status, tally),

	TP_STRUCT__entry(
		__field(unsigned int, mirror)
		__field(int, pid)
		__field(const void *, fault)
		__field(unsigned long, address)
		__field(size_t, bytes)
		__field(bool, write)
		__field(bool, granted)
		__field(int, status)
		__field(u64, us)
		__field(unsigned int, pages)
		__field(unsigned int, rounds)
		__field(unsigned int, waits)
		__field(unsigned int, retries)
	),

	TP_fast_assign(
		__entry->mirror = mirror->id;
		__entry->pid = mirror_pid(mirror);
		__entry->fault = fault;
		__entry->address = ranges[0].start;
		__entry->bytes = ranges_bytes(ranges, nr);
		__entry->write = write;
		__entry->granted = granted;
		__entry->status = status;
		__entry->us = us_since(tally->asked);
		__entry->pages = tally->pages;
		__entry->rounds = tally->rounds;
		__entry->waits = tally->waits;
		__entry->retries = tally->retries;
	),

	TP_printk("mirror=%u pid=%d fault=%p address=%#lx bytes=%zu write=%d granted=%d status=%d us=%llu pages=%u rounds=%u waits=%u retries=%u",
		  __entry->mirror, __entry->pid, __entry->fault,
		  __entry->address, __entry->bytes, __entry->write,
		  __entry->granted, __entry->status, __entry->us,
		  __entry->pages, __entry->rounds, __entry->waits,
		  __entry->retries)
);

/*
 * The mm has changed something within one leaf, and waits no longer for us.  removed
 * is how many entries there were, refused that some are still there, or in a
 * client's table, since nothing may block.
 */
TRACE_EVENT(mm_mirror_invalidate,

	TP_PROTO(const struct mm_mirror *mirror,
		 const struct mm_mirror_event *event, bool blockable,
		 unsigned int removed, bool refused),

	TP_ARGS(mirror, event, blockable, removed, refused),

	TP_STRUCT__entry(
		__field(unsigned int, mirror)
		__field(int, pid)
		__field(unsigned long, start)
		__field(unsigned long, last)
		__field(int, event)
		__field(bool, blockable)
		__field(unsigned int, removed)
		__field(bool, refused)
	),

	TP_fast_assign(
		__entry->mirror = mirror->id;
		__entry->pid = mirror_pid(mirror);
		__entry->start = event->start;
		__entry->last = event->last;
		__entry->event = event->type;
		__entry->blockable = blockable;
		__entry->removed = removed;
		__entry->refused = refused;
	),

	TP_printk("mirror=%u pid=%d start=%#lx last=%#lx event=%s blockable=%d removed=%u refused=%d",
		  __entry->mirror, __entry->pid, __entry->start, __entry->last,
		  show_mmu_notifier_event(__entry->event), __entry->blockable,
		  __entry->removed, __entry->refused)
);

/* It had to wait for holders, of whom address is the first; it runs in the waiter. */
TRACE_EVENT(mm_mirror_fence_wait,

	TP_PROTO(const struct mm_mirror *mirror, unsigned long address, u64 us),

	TP_ARGS(mirror, address, us),

	TP_STRUCT__entry(
		__field(unsigned int, mirror)
		__field(int, pid)
		__field(unsigned long, address)
		__field(u64, us)
	),

	TP_fast_assign(
		__entry->mirror = mirror->id;
		__entry->pid = mirror_pid(mirror);
		__entry->address = address;
		__entry->us = us;
	),

	TP_printk("mirror=%u pid=%d address=%#lx us=%llu",
		  __entry->mirror, __entry->pid, __entry->address, __entry->us)
);

/* Reclaim asks whether a device has used memory; clear: from now on count anew. */
TRACE_EVENT(mm_mirror_age,

	TP_PROTO(const struct mm_mirror *mirror, unsigned long start,
		 unsigned long last, bool clear, bool young),

	TP_ARGS(mirror, start, last, clear, young),

	TP_STRUCT__entry(
		__field(unsigned int, mirror)
		__field(int, pid)
		__field(unsigned long, start)
		__field(unsigned long, last)
		__field(bool, clear)
		__field(bool, young)
	),

	TP_fast_assign(
		__entry->mirror = mirror->id;
		__entry->pid = mirror_pid(mirror);
		__entry->start = start;
		__entry->last = last;
		__entry->clear = clear;
		__entry->young = young;
	),

	TP_printk("mirror=%u pid=%d start=%#lx last=%#lx clear=%d young=%d",
		  __entry->mirror, __entry->pid, __entry->start, __entry->last,
		  __entry->clear, __entry->young)
);

#endif /* _TRACE_MM_MIRROR_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
