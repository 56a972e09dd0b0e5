/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * /dev/mirror_dma, a DMA engine in software that reads and writes the memory of
 * processes through their mirrors.
 *
 * An open file is an engine. A process attaches its address space to it, and is given
 * a number for that, a space; whoever has the file can have the engine copy from one
 * space to another. A file that was inherited or passed on is the same engine, with
 * the same spaces: who wants its own memory copied attaches it.
 *
 * What is marked "for tests" no engine needs.
 */

#ifndef _SAMPLES_MIRROR_DMA_H
#define _SAMPLES_MIRROR_DMA_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MIRROR_DMA_SPACES	64	/* of one engine */
#define MIRROR_DMA_DEPTH	1024	/* copies submitted and not yet read */
#define MIRROR_DMA_HOLD_MAX	100000	/* microseconds */

/* ---- attach, detach ---- */

/*
 * The engine keeps a translation table of its own for [start, last] of the space, by
 * a subscription. Without it start and last are 0.
 */
#define MIRROR_DMA_TABLE	0x1

/* For tests: subscribe without one of the callbacks, by MIRROR_DMA_CALL_*. */
#define MIRROR_DMA_WITHOUT(call)	(0x100 << (call))

/**
 * struct mirror_dma_attach - attach the caller's address space
 * @flags: MIRROR_DMA_TABLE, or 0
 * @space: out, what to call it
 * @start: first address, for MIRROR_DMA_TABLE
 * @last: last address; 0 and ~0 is all of it
 *
 * A process may attach itself more than once, also with ranges that overlap: each is
 * a space of its own. Errors: EINVAL; ENOSPC if there are MIRROR_DMA_SPACES already;
 * what mm_mirror_get() and mm_mirror_subscribe() say.
 *
 * MIRROR_DMA_DETACH takes a number: the copies that use it end with ECANCELED, or have
 * ended. It returns when none is left, and waits for no fault.
 */
struct mirror_dma_attach {
	__u32 flags;
	__u32 space;
	__u64 start;
	__u64 last;
};

/* ---- copy ---- */

#define MIRROR_DMA_NOFAULT	0x1	/* EAGAIN instead of a fault */

/**
 * struct mirror_dma_copy - one copy, which is done some time later, in any order
 * @cookie: comes back in struct mirror_dma_done
 * @src: first address, in @src_space
 * @dst: first address, in @dst_space
 * @length: bytes
 * @src_space: where from
 * @dst_space: where to
 * @hold_us: how long the engine dawdles over each page while it has it
 * @flags: MIRROR_DMA_NOFAULT, or 0
 *
 * A page is read into the engine and then written: where source and destination
 * overlap the result is not defined. Errors of the submission: EINVAL, also for ranges
 * that wrap; ENOENT for a space that is none; EBUSY at MIRROR_DMA_DEPTH; ENOMEM.
 */
struct mirror_dma_copy {
	__u64 cookie;
	__u64 src;
	__u64 dst;
	__u64 length;
	__u32 src_space;
	__u32 dst_space;
	__u32 hold_us;
	__u32 flags;
};

/**
 * struct mirror_dma_done - what became of a copy; read() gives any number of them
 * @cookie: of the copy
 * @bytes: that were written, from the start
 * @status: 0; -EFAULT: an address cannot be read or written; -EAGAIN: there was no
 *	translation, with MIRROR_DMA_NOFAULT; -ECANCELED: a space was detached; -ESRCH:
 *	the process of a space is gone, or its subscription has ended
 * @zero: 0
 *
 * read() waits for the first, unless the file is O_NONBLOCK; poll() works.
 */
struct mirror_dma_done {
	__u64 cookie;
	__u64 bytes;
	__s32 status;
	__u32 zero;
};

/* ---- what happened, and what is to happen ---- */

/* Why the mm called: enum mmu_notifier_event. */
enum {
	MIRROR_DMA_EVENT_UNMAP,
	MIRROR_DMA_EVENT_CLEAR,
	MIRROR_DMA_EVENT_PROTECTION_VMA,
	MIRROR_DMA_EVENT_PROTECTION_PAGE,
	MIRROR_DMA_EVENT_SOFT_DIRTY,
	MIRROR_DMA_EVENT_RELEASE,
	MIRROR_DMA_EVENT_MIGRATE,
	MIRROR_DMA_EVENT_EXCLUSIVE,
	MIRROR_DMA_EVENTS,
};

/**
 * struct mirror_dma_counts - of one space, since it was attached
 * @space: in, which
 * @zero: 0
 * @faults: asked for
 * @copies: ended that used it as source, destination or both, whatever their status
 * @established: pages put into the table
 * @table_hits: pages found there
 * @invalidated: pages dropped from it, by invalidate or try_invalidate
 * @invalidate: calls of invalidate, by event
 * @try_invalidate: calls of it, with the refused
 * @refused: calls of try_invalidate that returned false
 * @released: calls of release
 * @waits: calls of invalidate that had to wait for a copy
 * @test_young: calls of it
 * @clear_young: calls of it
 * @early: calls for a piece in which the mirror still had a page, or lent it: never
 * @gone: pages dropped that had been freed by then: never
 * @at_once: the most calls of invalidate that there were at a time
 */
struct mirror_dma_counts {
	__u32 space;
	__u32 zero;
	__u64 faults;
	__u64 copies;
	__u64 established;
	__u64 table_hits;
	__u64 invalidated;
	__u64 invalidate[MIRROR_DMA_EVENTS];
	__u64 try_invalidate;
	__u64 refused;
	__u64 released;
	__u64 waits;
	__u64 test_young;
	__u64 clear_young;
	__u64 early;
	__u64 gone;
	__u64 at_once;
};

enum {
	MIRROR_DMA_CALL_RELEASE,
	MIRROR_DMA_CALL_INVALIDATE,
	MIRROR_DMA_CALL_TRY_INVALIDATE,
	MIRROR_DMA_CALL_TEST_YOUNG,
	MIRROR_DMA_CALL_CLEAR_YOUNG,
	MIRROR_DMA_CALLBACKS,
};

/**
 * struct mirror_dma_call - a call of release, invalidate or try_invalidate
 * @start: first address
 * @last: last address
 * @call: MIRROR_DMA_CALL_*
 * @event: MIRROR_DMA_EVENT_*
 * @dropped: pages dropped from the table
 * @ret: what it returned
 */
struct mirror_dma_call {
	__u64 start;
	__u64 last;
	__u32 call;
	__u32 event;
	__u32 dropped;
	__u32 ret;
};

#define MIRROR_DMA_CALLS_MAX	64

/**
 * struct mirror_dma_calls - for tests: the calls since this was last asked
 * @space: in, which
 * @nr: how many there were; only the first MIRROR_DMA_CALLS_MAX are kept
 * @calls: in the order in which they ended
 */
struct mirror_dma_calls {
	__u32 space;
	__u32 nr;
	struct mirror_dma_call calls[MIRROR_DMA_CALLS_MAX];
};

/* For tests, for spaces with a table. */
enum {
	MIRROR_DMA_SET_REFUSE,		/* 1: try_invalidate returns false */
	MIRROR_DMA_SET_FAIL,		/* 1: the next invalidate returns false: the bug */
	MIRROR_DMA_SET_INVALIDATE_US,	/* invalidate sleeps so long first */
	MIRROR_DMA_SET_YOUNG,		/* 0: none is; 1: what the table knows (default) */
};

struct mirror_dma_set {
	__u32 space;
	__u32 what;
	__u64 value;
};

#define MIRROR_DMA_ATTACH	_IOWR('~', 1, struct mirror_dma_attach)
#define MIRROR_DMA_DETACH	_IOW('~', 2, __u32)
#define MIRROR_DMA_SUBMIT	_IOW('~', 3, struct mirror_dma_copy)
#define MIRROR_DMA_COUNTS	_IOWR('~', 4, struct mirror_dma_counts)
#define MIRROR_DMA_SET		_IOW('~', 5, struct mirror_dma_set)
#define MIRROR_DMA_CALLS	_IOWR('~', 6, struct mirror_dma_calls)

#endif
