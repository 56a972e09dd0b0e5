// SPDX-License-Identifier: GPL-2.0
/*
 * Faults: what a device needs and has no translation for is made present by a
 * worker of this module, never by the client's.
 *
 * A fault holds a handle of the mirror and a reference on mm_users.  That keeps the
 * address space, and with it whatever it maps, such as the files that its queue pairs
 * belong to; so a fault watches for the last task of the process, and gives up when
 * that is gone.
 *
 * Otherwise it may take for ever: its page may have to come from a userfaultfd
 * handler, a FUSE daemon or a server that is gone.  So nobody waits for it.  The
 * client is told by a callback, and leaves by mm_mirror_fault_detach() or _put(),
 * which wait for nothing: after them the callback has run or never will.  A fault that
 * nobody wants and that sleeps in a userfaultfd is woken, again and again until it
 * has noticed; one that sleeps for a disk or a server ends when that does.
 *
 * The path for each piece of a leaf, fault_attempt(): look at the CPU's page table
 * through HMM without faulting; for what is missing call handle_mm_fault(), which
 * drops mmap_lock before it waits; look again; install, if meanwhile nothing was
 * invalidated.  Losing that race is bounded: a page that keeps losing is granted
 * (grant.c).
 */

#include <linux/completion.h>
#include <linux/hmm.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/userfaultfd_k.h>
#include <trace/events/mm_mirror.h>

#include "internal.h"

/* Faults of one process that run at a time; others of it wait for their turn. */
#define FAULTS_PER_MIRROR	16

/* Those of them that prefetch: what somebody waits for finds a turn. */
#define PREFETCHES_PER_MIRROR	4

/* Those of them that wait for a userfaultfd's handler do not count, up to so many. */
#define FAULTS_UNCOUNTED	64

/* Bytes beyond the needed ones that one fault looks after, in all its ranges. */
#define FAULT_AHEAD_MAX		SZ_2M

/* Races that a piece may lose before its pages are granted. */
#define FAULT_LOSSES		8

/* Page faults that a piece may take before the same: each should be progress. */
#define FAULT_ROUNDS		64

/* Page faults that may drop mmap_lock for one page before one must not. */
#define FAULT_WAITS		4

/* How often a fault looks whether its process is still there. */
#define FAULT_WATCH_PERIOD	(HZ / 5)

/* How long to leave the allocator alone when it had nothing for us. */
#define FAULT_OOM_DELAY_MS	20

struct workqueue_struct *fault_wq;

/**
 * struct mm_mirror_fault - see mm_mirror_fault()
 * @mirror: a handle
 * @mm: a reference on mm_users
 * @refs: one of the client, one of the worker
 * @lock: protects @status, @detached, @task; the callback runs under it
 * @status: -EINPROGRESS until done
 * @detached: the client is gone
 * @task: the worker, while it may sleep in handle_mm_fault()
 * @watch: looks whether somebody still wants the page, and wakes @task if not
 * @watch_period: until it looks again
 * @done: the client's callback
 * @data: and its argument
 * @work: on fault_wq
 * @free_work: on mirror_wq, where giving pages back may sleep
 * @queued: on mirror->fault_queue or mirror->prefetch_queue
 * @counted: in mirror->fault_running, else in mirror->fault_uncounted
 * @grants: pages granted; the client's once the fault is done
 * @grant: grant at the first loss: the client keeps losing what was installed
 * @write: the access will write
 * @prefetch: nobody needs it now: others go first
 * @present: what the CPU has not is left out
 * @tally: what it has taken
 * @pfns: what HMM saw, LEAF_PAGES words
 * @nr: of @ranges
 * @ranges: what is wanted
 */
struct mm_mirror_fault {
	struct mm_mirror	*mirror;
	struct mm_struct	*mm;
	refcount_t		refs;
	spinlock_t		lock; /* status, detached, task */
	int			status;
	bool			detached;
	struct task_struct	*task;
	struct timer_list	watch;
	unsigned long		watch_period;
	mm_mirror_done_fn	done;
	void			*data;
	struct work_struct	work;
	struct work_struct	free_work;
	struct list_head	queued;
	bool			counted;
	struct list_head	grants;
	bool			grant;
	bool			write;
	bool			prefetch;
	bool			present;
	struct fault_tally	tally;
	unsigned long		*pfns;
	unsigned int		nr;
	struct mm_mirror_range	ranges[] __counted_by(nr);
};

struct list_head *fault_grants(struct mm_mirror_fault *fault)
{
	return &fault->grants;
}

/* mm->owner is one of the tasks that use the address space, and NULL after the last. */
static bool fault_is_dead(struct mm_mirror_fault *fault)
{
	return READ_ONCE(fault->detached) || !rcu_access_pointer(fault->mm->owner);
}

static void fault_free(struct work_struct *work)
{
	struct mm_mirror_fault *fault = container_of(work, struct mm_mirror_fault,
						     free_work);
	unsigned int i;

	grant_release_all(&fault->grants);
	for (i = 0; i < fault->nr; i++)
		mm_mirror_count_put(fault->ranges[i].count);
	mm_mirror_put(fault->mirror);
	kfree(fault);
}

/* Dirtying a granted page takes its lock, for which a client must not wait. */
static void fault_put(struct mm_mirror_fault *fault)
{
	if (!refcount_dec_and_test(&fault->refs))
		return;
	if (list_empty(&fault->grants))
		fault_free(&fault->free_work);
	else
		queue_work(mirror_wq, &fault->free_work);
}

/* ---- who pays ---- */

/*
 * Our metadata is the owner's, like its page tables, and not of whose worker it is that
 * allocates it.  What is allocated in between says GFP_KERNEL_ACCOUNT.
 */
struct owner_charge {
	struct mem_cgroup *memcg;
	struct mem_cgroup *outer;
};

static struct owner_charge charge_begin(struct mm_struct *mm)
{
	struct owner_charge charge = { .memcg = get_mem_cgroup_from_mm(mm) };

	charge.outer = set_active_memcg(charge.memcg);
	return charge;
}

static void charge_end(const struct owner_charge *charge)
{
	set_active_memcg(charge->outer);
	mem_cgroup_put(charge->memcg);
}

/* ---- turns ---- */

static void fault_start(struct mm_mirror_fault *fault)
{
	fault->counted = true;
	stat_add(STAT_FAULTS_RUNNING, 1);
	queue_work(fault_wq, &fault->work);
}

static bool prefetch_may_start(struct mm_mirror *mirror)
{
	return mirror->prefetch_running < PREFETCHES_PER_MIRROR;
}

/* Whose turn it is, off its queue: what is waited for, then what is only advised. */
static struct mm_mirror_fault *fault_dequeue(struct mm_mirror *mirror)
{
	struct mm_mirror_fault *next;

	lockdep_assert_held(&mirror->fault_lock);

	next = list_first_entry_or_null(&mirror->fault_queue,
					struct mm_mirror_fault, queued);
	if (!next && prefetch_may_start(mirror))
		next = list_first_entry_or_null(&mirror->prefetch_queue,
						struct mm_mirror_fault, queued);
	if (!next)
		return NULL;
	list_del_init(&next->queued);
	mirror->prefetch_running += next->prefetch;
	return next;
}

/* A counted turn is over, @prefetch or not: the next one of this process, if any. */
static void fault_start_next(struct mm_mirror *mirror, bool prefetch)
{
	struct mm_mirror_fault *next;
	unsigned long flags;

	spin_lock_irqsave(&mirror->fault_lock, flags);
	mirror->prefetch_running -= prefetch;
	next = fault_dequeue(mirror);
	if (!next)
		mirror->fault_running--;
	spin_unlock_irqrestore(&mirror->fault_lock, flags);
	if (next)
		fault_start(next);
}

static void fault_end_turn(struct mm_mirror_fault *fault)
{
	struct mm_mirror *mirror = fault->mirror;
	unsigned long flags;

	stat_add(STAT_FAULTS_RUNNING, -1);
	if (fault->counted) {
		fault_start_next(mirror, fault->prefetch);
		return;
	}
	spin_lock_irqsave(&mirror->fault_lock, flags);
	mirror->fault_uncounted--;
	spin_unlock_irqrestore(&mirror->fault_lock, flags);
}

/*
 * A fault that waits for a userfaultfd's handler lets others of the process go on:
 * the handler itself may need one. Advice leaves half of that to them.
 */
static void fault_give_turn(struct mm_mirror_fault *fault)
{
	unsigned int limit = FAULTS_UNCOUNTED / (fault->prefetch ? 2 : 1);
	struct mm_mirror *mirror = fault->mirror;
	unsigned long flags;

	spin_lock_irqsave(&mirror->fault_lock, flags);
	if (fault->counted && mirror->fault_uncounted < limit) {
		mirror->fault_uncounted++;
		fault->counted = false;
	}
	spin_unlock_irqrestore(&mirror->fault_lock, flags);
	if (!fault->counted)
		fault_start_next(mirror, fault->prefetch);
}

/* How many are at work, and how many wait for their turn. */
void fault_turns(struct mm_mirror *mirror, unsigned int *running,
		 unsigned int *queued)
{
	spin_lock_irq(&mirror->fault_lock);
	*running = mirror->fault_running + mirror->fault_uncounted;
	*queued = list_count_nodes(&mirror->fault_queue) +
		  list_count_nodes(&mirror->prefetch_queue);
	spin_unlock_irq(&mirror->fault_lock);
}

/* ---- one page fault ---- */

/* Returns false if nobody wants the page any more. */
static bool fault_may_sleep_begin(struct mm_mirror_fault *fault)
{
	bool dead = fault_is_dead(fault);

	spin_lock_irq(&fault->lock);
	if (!dead)
		fault->task = current;
	spin_unlock_irq(&fault->lock);
	return !dead;
}

static void fault_may_sleep_end(struct mm_mirror_fault *fault)
{
	spin_lock_irq(&fault->lock);
	fault->task = NULL;
	spin_unlock_irq(&fault->lock);
}

/*
 * The wake-up can come before the worker sleeps, and is lost then.  Hence again,
 * until the worker has noticed; fault_work() ends it.
 */
static void fault_watch(struct timer_list *timer)
{
	struct mm_mirror_fault *fault = from_timer(fault, timer, watch);
	bool dead = fault_is_dead(fault);
	unsigned long flags;

	/* often at first, when the wake-up can have been too early */
	fault->watch_period = dead ? min(2 * fault->watch_period,
					 (unsigned long)FAULT_WATCH_PERIOD) : 1;
	spin_lock_irqsave(&fault->lock, flags);
	if (dead && fault->task)
		wake_up_process(fault->task);
	mod_timer(&fault->watch, jiffies + (dead ? fault->watch_period :
						   FAULT_WATCH_PERIOD));
	spin_unlock_irqrestore(&fault->lock, flags);
}

/*
 * -ENOLINK: mmap_lock was dropped, look again.  0: it is still held and the page
 * was faulted.  Other errors: it is still held.
 */
static int fault_result(vm_fault_t ret)
{
	if (ret & (VM_FAULT_RETRY | VM_FAULT_COMPLETED))
		return -ENOLINK;
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	if (ret & VM_FAULT_ERROR)
		return -EFAULT;
	return 0;
}

/*
 * A page that somebody waits for: may sleep for as long as it takes, without
 * mmap_lock but for a page that has got away repeatedly (@tried).
 */
static int fault_needed_page(struct mm_mirror_fault *fault,
			     struct vm_area_struct *vma, unsigned long addr,
			     bool tried)
{
	unsigned int flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE |
			     FAULT_FLAG_INTERRUPTIBLE | FAULT_FLAG_REMOTE |
			     (fault->write ? FAULT_FLAG_WRITE : 0) |
			     (tried ? FAULT_FLAG_TRIED : 0);
	vm_fault_t ret;

	if (userfaultfd_armed(vma) && fault->counted)
		fault_give_turn(fault);
	if (!fault_may_sleep_begin(fault))
		return -ECANCELED;
	mirror_delay(DELAY_WAKE_TO_SLEEP);
	ret = mirror_fail(FAIL_PAGE) ? VM_FAULT_OOM :
				       handle_mm_fault(vma, addr, flags, NULL);
	fault_may_sleep_end(fault);
	return fault_result(ret);
}

/*
 * A page that may be wanted next: whatever takes no waiting.  -EAGAIN if it does, and
 * its reading has been started.
 */
static int fault_ahead_page(struct mm_mirror_fault *fault,
			    struct vm_area_struct *vma, unsigned long addr)
{
	unsigned int flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT |
			     FAULT_FLAG_REMOTE |
			     (fault->write ? FAULT_FLAG_WRITE : 0);
	int err;

	if (userfaultfd_armed(vma))
		return -EFAULT;
	if (mirror_fail(FAIL_PAGE_AHEAD))
		return -ENOMEM;
	/* mmap_lock is held whatever it says, as for get_user_pages(FOLL_NOWAIT) */
	err = fault_result(handle_mm_fault(vma, addr, flags, NULL));
	return err == -ENOLINK ? -EAGAIN : err;
}

/* ---- one attempt at a piece of one leaf ---- */

/**
 * struct piece - what one attempt works on
 * @start: first address, page-aligned
 * @end: end of what is wanted; clamped to the leaf, and by the attempt to a VMA
 * @need: the client cannot go on without it
 * @rounds: looks that found something missing and faulted it
 * @waits: page faults that dropped mmap_lock
 * @installed: pages that got a translation
 * @count: where all that is counted, or NULL
 */
struct piece {
	unsigned long		start;
	unsigned long		end;
	bool			need;
	unsigned int		rounds;
	unsigned int		waits;
	unsigned int		installed;
	struct mm_mirror_count	*count;
};

static bool pfn_suffices(unsigned long hmm_pfn, bool write)
{
	unsigned long want = HMM_PFN_VALID | (write ? HMM_PFN_WRITE : 0);

	return (hmm_pfn & (want | HMM_PFN_ERROR)) == want;
}

/* The mapping at piece->start, with the piece clamped to it. Under mmap_lock. */
static struct vm_area_struct *piece_vma(struct mm_mirror_fault *fault,
					struct piece *piece)
{
	struct vm_area_struct *vma = find_vma(fault->mm, piece->start);

	if (!vma || vma->vm_start > piece->start ||
	    vma_check(vma, fault->write))
		return NULL;
	piece->end = min(piece->end, vma->vm_end);
	return vma;
}

static int piece_snapshot(struct mm_mirror_fault *fault,
			  struct mmu_interval_notifier *notifier,
			  unsigned long seq, const struct piece *piece)
{
	struct hmm_range range = {
		.notifier = notifier,
		.notifier_seq = seq,
		.start = piece->start,
		.end = piece->end,
		.hmm_pfns = fault->pfns,
	};
	int err = hmm_range_fault(&range);

	return err == -EBUSY ? -EAGAIN : err;
}

/* How many pages of the piece the snapshot has. */
static unsigned int piece_present(struct mm_mirror_fault *fault,
				  const struct piece *piece)
{
	unsigned int i, nr = (piece->end - piece->start) >> PAGE_SHIFT;
	unsigned int present = 0;

	for (i = 0; i < nr; i++)
		present += pfn_suffices(fault->pfns[i], false);
	return present;
}

/*
 * Fault what the snapshot has not.  Returns 0 if nothing was missing, -ENOLINK if
 * mmap_lock was dropped, -ESTALE if something was faulted, or an error. The piece
 * ends before the first page ahead that could not be had; those after it are asked
 * for all the same, so that what has to be read is read at once.
 */
static int piece_fault_missing(struct mm_mirror_fault *fault,
			       struct vm_area_struct *vma, struct piece *piece)
{
	unsigned long addr = piece->start, end = piece->end;
	bool faulted = false;
	unsigned int i;
	int err;

	lockdep_assert_held(&fault->mm->mmap_lock);

	for (i = 0; addr < end; addr += PAGE_SIZE, i++) {
		if (pfn_suffices(fault->pfns[i], fault->write))
			continue;
		if (piece->need)
			err = fault_needed_page(fault, vma, addr,
						piece->waits >= FAULT_WAITS);
		else
			err = fault_ahead_page(fault, vma, addr);
		cond_resched();
		if (err && !piece->need)
			piece->end = min(piece->end, addr);
		if (err && piece->need)
			return err;
		if (err && err != -EAGAIN)
			break;
		faulted |= !err;
	}
	return faulted ? -ESTALE : 0;
}

/* Under mmap_lock, which is dropped here. */
static int piece_look(struct mm_mirror_fault *fault, struct mm_mirror_leaf *leaf,
		      unsigned long seq, struct piece *piece)
{
	struct vm_area_struct *vma = piece_vma(fault, piece);
	int err = -EFAULT;

	if (vma)
		err = piece_snapshot(fault, &leaf->notifier, seq, piece);
	if (!err && !fault->present)
		err = piece_fault_missing(fault, vma, piece);
	if (err != -ENOLINK)
		mmap_read_unlock(fault->mm);
	if (!err && piece->start == piece->end)
		err = -EFAULT;
	return err;
}

/*
 * Returns 0 with [start, end) of the piece installed; -ESTALE or -ENOLINK if pages
 * came and the look has to be repeated; -EAGAIN if an invalidation won; or an error.
 */
static int fault_attempt(struct mm_mirror_fault *fault,
			 struct mm_mirror_leaf *leaf, struct piece *piece)
{
	unsigned long seq = mmu_interval_read_begin(&leaf->notifier);
	int err;

	mmap_read_lock(fault->mm);
	err = piece_look(fault, leaf, seq, piece);
	if (err)
		return err;
	mirror_delay(DELAY_FAULT_TO_INSTALL);
	return leaf_install(leaf, seq, fault->pfns, piece->start,
			    (piece->end - piece->start) >> PAGE_SHIFT,
			    &piece->installed);
}

/* ---- a piece: the project's one retry loop ---- */

static int piece_grant(struct mm_mirror_fault *fault, const struct piece *piece)
{
	if (!piece->need)
		return -EFAULT;
	return grant_pages(fault->mirror, &fault->grants, piece->start,
			   piece->end, fault->write);
}

/*
 * Memory pressure is not an access error: the owner is reclaimed or OOM-killed, or
 * memory comes back.  Like a page that does not come, this keeps the worker from
 * freezing for as long as it lasts: suspending gives up in the end, and can be tried
 * again.
 */
static void fault_wait_for_memory(void)
{
	schedule_timeout_uninterruptible(msecs_to_jiffies(FAULT_OOM_DELAY_MS));
}

static int piece_install(struct mm_mirror_fault *fault,
			 struct mm_mirror_leaf *leaf, struct piece *piece)
{
	unsigned int losses = fault->grant ? FAULT_LOSSES : 0;
	unsigned long end = piece->end;
	int err, granted;

	while (!fault_is_dead(fault)) {
		piece->end = end;
		err = fault_attempt(fault, leaf, piece);
		switch (err) {
		case -ENOLINK:	/* may have waited: as often as it takes */
			piece->waits++;
			fault->tally.waits++;
			cond_resched();
			break;
		case -ESTALE:
			piece->rounds++;
			fault->tally.rounds++;
			break;
		case -EAGAIN:
			stat_add(STAT_FAULT_RETRIES, 1);
			fault->tally.retries++;
			losses++;
			break;
		case -ENOMEM:
			if (!piece->need)
				return err;
			fault_wait_for_memory();
			break;
		default:
			if (err || !fault->grant)
				return err;
		}
		if (losses < FAULT_LOSSES && piece->rounds < FAULT_ROUNDS)
			continue;
		granted = piece_grant(fault, piece);
		if (granted != -EAGAIN)
			return granted;
		/* not to be had like that: what is installed will have to do */
		if (!err)
			return 0;
		cond_resched();
	}
	return -ECANCELED;
}

/* A look that nothing is installed from: no notifier has to know of it. */
static int piece_peek(struct mm_mirror_fault *fault, const struct piece *piece)
{
	struct mmu_interval_notifier *anchor = &fault->mirror->anchor;
	int err;

	err = piece_snapshot(fault, anchor, READ_ONCE(anchor->invalidate_seq),
			     piece);
	if (err)
		return err;
	return piece_present(fault, piece) ? 0 : -ENOENT;
}

/*
 * Is there a mapping that a device may use, and if only what is present is wanted, is
 * there anything?  Before anything is allocated for it.
 */
static int piece_check(struct mm_mirror_fault *fault, struct piece *piece)
{
	int err;

	mmap_read_lock(fault->mm);
	err = piece_vma(fault, piece) ? 0 : -EFAULT;
	if (!err && fault->present)
		err = piece_peek(fault, piece);
	mmap_read_unlock(fault->mm);
	return err;
}

/*
 * Where only what is present is wanted, a hole has nothing: on to the next mapping,
 * however far away that is.
 */
static void piece_skip_hole(struct mm_mirror_fault *fault, struct piece *piece)
{
	struct vm_area_struct *vma;

	mmap_read_lock(fault->mm);
	if (!piece_vma(fault, piece)) {
		vma = find_vma(fault->mm, piece->start);
		if (!vma)
			piece->end = fault->mm->task_size;
		else
			piece->end = vma->vm_start > piece->start ?
					vma->vm_start : vma->vm_end;
	}
	mmap_read_unlock(fault->mm);
}

static void piece_count(struct mm_mirror_fault *fault, const struct piece *piece)
{
	unsigned int pages = fault->present ? piece_present(fault, piece) :
			     (piece->end - piece->start) >> PAGE_SHIFT;

	stat_add(fault->prefetch ? STAT_PREFETCH_PAGES : STAT_FAULT_PAGES, pages);
	fault->tally.pages += pages;
}

/* For whom it was: also of a piece that failed in the end. */
static void piece_note(struct mm_mirror_fault *fault,
		       const struct mm_mirror_leaf *leaf,
		       const struct piece *piece)
{
	count_note(piece->count,
		   fault->prefetch ? MM_MIRROR_PREFETCHED : MM_MIRROR_FAULTED,
		   count_clip(piece->count, leaf, piece->installed));
	count_note(piece->count, MM_MIRROR_WAITED, piece->waits);
}

static int fault_piece(struct mm_mirror_fault *fault, struct piece *piece)
{
	struct mm_mirror_leaf *leaf;
	int err;

	err = piece_check(fault, piece);
	if (err)
		return err == -ENOENT ? 0 : err;
	leaf = leaf_get(fault->mirror, piece->start);
	if (IS_ERR(leaf))
		return PTR_ERR(leaf);
	err = piece_install(fault, leaf, piece);
	piece_note(fault, leaf, piece);
	if (!err)
		piece_count(fault, piece);
	leaf_put(leaf);
	return err;
}

/* A part of @range, page-aligned. */
static int fault_pages(struct mm_mirror_fault *fault,
		       const struct mm_mirror_range *range, unsigned long start,
		       unsigned long end, bool need)
{
	struct piece piece = {
		.start = start, .need = need, .count = range->count,
	};
	int err;

	while (piece.start < end) {
		piece.end = min(end, (piece.start | ~PMD_MASK) + 1);
		piece.rounds = 0;
		piece.waits = 0;
		piece.installed = 0;
		err = fault_piece(fault, &piece);
		if (err == -ENOMEM && need) {
			if (fault_is_dead(fault))
				return -ECANCELED;
			fault_wait_for_memory();
			continue;
		}
		if (err == -EFAULT && fault->present) {
			piece_skip_hole(fault, &piece);
			err = fault_is_dead(fault) ? -ECANCELED : 0;
		}
		if (err)
			return err;
		piece.start = piece.end;
	}
	return 0;
}

/* ---- a fault ---- */

/* As in fault_complete(), and no failure is advice that cannot be followed. */
static void fault_failed(struct mm_mirror_fault *fault,
			 const struct mm_mirror_range *range, int err)
{
	if (!fault->prefetch && err != -ECANCELED)
		count_note(range->count, MM_MIRROR_FAILED, 1);
}

/* An access ends at the first range that cannot be had; advice goes on. */
static int fault_needs(struct mm_mirror_fault *fault)
{
	unsigned int i;
	int err, ret = 0;

	for (i = 0; i < fault->nr; i++) {
		const struct mm_mirror_range *range = &fault->ranges[i];

		if (!range->need)
			continue;
		err = fault_pages(fault, range, range->start & PAGE_MASK,
				  PAGE_ALIGN(range->start + range->need),
				  !fault->present);
		ret = ret ?: err;
		if (err && (!fault->prefetch || err != -EFAULT)) {
			fault_failed(fault, range, err);
			return ret;
		}
	}
	return ret;
}

static void fault_ahead(struct mm_mirror_fault *fault)
{
	unsigned long left = FAULT_AHEAD_MAX;
	unsigned int i;

	for (i = 0; i < fault->nr && left; i++) {
		const struct mm_mirror_range *range = &fault->ranges[i];
		unsigned long start = range->need ?
			PAGE_ALIGN(range->start + range->need) :
			range->start & PAGE_MASK;
		unsigned long end = PAGE_ALIGN(range->start + range->length);

		if (start >= end)
			continue;
		end = min(end, start + left);
		left -= end - start;
		/* best effort: what fails here will be needed, or not, later */
		fault_pages(fault, range, start, end, false);
	}
}

/*
 * Under fault->lock, so that mm_mirror_fault_put() has the callback behind it or
 * for ever before it.
 */
static void fault_complete(struct mm_mirror_fault *fault, int status)
{
	unsigned long flags;

	/* that nobody wants it any more is no failure */
	if (status && status != -ECANCELED)
		stat_add(STAT_FAULT_ERRORS, 1);
	trace_mm_mirror_fault_end(fault->mirror, fault, fault->ranges,
				  fault->nr, fault->write,
				  !list_empty(&fault->grants), status,
				  &fault->tally);
	spin_lock_irqsave(&fault->lock, flags);
	/* pairs with the acquire in mm_mirror_fault_status() */
	smp_store_release(&fault->status, status);
	if (!fault->detached) {
		mirror_delay(DELAY_DONE_TO_CALL);
		fault->done(fault, fault->data);
	}
	spin_unlock_irqrestore(&fault->lock, flags);
}

static unsigned long *pfns_alloc(void)
{
	unsigned int order = get_order(LEAF_PAGES * sizeof(unsigned long));

	if (mirror_fail(FAIL_PFNS))
		return NULL;
	return (unsigned long *)__get_free_pages(GFP_KERNEL_ACCOUNT, order);
}

static int fault_run(struct mm_mirror_fault *fault)
{
	struct owner_charge charge = charge_begin(fault->mm);
	int status = -ECANCELED;

	while (!(fault->pfns = pfns_alloc()) && !fault_is_dead(fault))
		fault_wait_for_memory();
	if (fault->pfns) {
		status = fault_needs(fault);
		if (!status)
			fault_ahead(fault);
		free_pages((unsigned long)fault->pfns,
			   get_order(LEAF_PAGES * sizeof(*fault->pfns)));
	}
	charge_end(&charge);
	return status;
}

/* What the worker owes at the end, or whoever takes a fault off the queue. */
static void fault_finish(struct mm_mirror_fault *fault, int status)
{
	fault_complete(fault, status);
	/* the last reference would tear the address space down here */
	mmput_async(fault->mm);
	fault_put(fault);
}

static void fault_work(struct work_struct *work)
{
	struct mm_mirror_fault *fault = container_of(work, struct mm_mirror_fault,
						     work);
	int status = -ECANCELED;

	if (!fault_is_dead(fault)) {
		mod_timer(&fault->watch, jiffies + FAULT_WATCH_PERIOD);
		status = fault_run(fault);
		timer_shutdown_sync(&fault->watch);
	}
	fault_end_turn(fault);
	fault_finish(fault, status);
}

static void fault_queue(struct mm_mirror_fault *fault)
{
	struct mm_mirror *mirror = fault->mirror;
	unsigned long flags;
	bool start;

	stat_add(fault->prefetch ? STAT_PREFETCHES : STAT_FAULTS, 1);
	trace_mm_mirror_fault_begin(mirror, fault, fault->ranges, fault->nr,
				    fault->write, fault->grant);
	if (trace_mm_mirror_fault_end_enabled())
		fault->tally.asked = ktime_get_ns();
	spin_lock_irqsave(&mirror->fault_lock, flags);
	start = mirror->fault_running < FAULTS_PER_MIRROR &&
		(!fault->prefetch || prefetch_may_start(mirror));
	if (start) {
		mirror->fault_running++;
		mirror->prefetch_running += fault->prefetch;
	} else {
		list_add_tail(&fault->queued, fault->prefetch ?
			      &mirror->prefetch_queue : &mirror->fault_queue);
	}
	spin_unlock_irqrestore(&mirror->fault_lock, flags);
	if (start)
		fault_start(fault);
}

/* The one check of what may be a peer's numbers: no wrap, all in the address space. */
bool range_fits(const struct mm_struct *mm, unsigned long start, size_t length)
{
	unsigned long end;

	return !check_add_overflow(start, length, &end) && end <= mm->task_size;
}

/* What lies beyond the need cannot fail: see ranges_copy(). */
static int fault_check_ranges(const struct mm_struct *mm,
			      const struct mm_mirror_range *ranges,
			      unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (ranges[i].need > ranges[i].length)
			return -EFAULT;
		if (!ranges[i].need)
			continue;
		if (!range_fits(mm, ranges[i].start, ranges[i].need)) {
			count_note(ranges[i].count, MM_MIRROR_FAILED, 1);
			return -EFAULT;
		}
	}
	return 0;
}

/* No further than the address space goes; from here on nothing wraps. */
static void ranges_copy(struct mm_mirror_fault *fault,
			const struct mm_mirror_range *ranges, unsigned int nr)
{
	unsigned long size = fault->mm->task_size;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct mm_mirror_range *range = &fault->ranges[i];

		*range = ranges[i];
		mm_mirror_count_ref(range->count);
		range->start = min(range->start, size);
		range->length = min(range->length, size - range->start);
	}
}

static struct mm_mirror_fault *
fault_alloc(struct mm_mirror *mirror, const struct mm_mirror_range *ranges,
	    unsigned int nr)
{
	struct mm_mirror_fault *fault;
	struct owner_charge charge;

	if (mirror_fail(FAIL_FAULT))
		return NULL;
	charge = charge_begin(mirror_mm(mirror));
	fault = kzalloc(struct_size(fault, ranges, nr), GFP_KERNEL_ACCOUNT);
	charge_end(&charge);
	if (!fault)
		return NULL;
	fault->mirror = mm_mirror_ref(mirror);
	fault->mm = mirror_mm(mirror);
	refcount_set(&fault->refs, 2);
	spin_lock_init(&fault->lock);
	fault->status = -EINPROGRESS;
	timer_setup(&fault->watch, fault_watch, 0);
	fault->watch_period = 1;
	INIT_WORK(&fault->work, fault_work);
	INIT_WORK(&fault->free_work, fault_free);
	INIT_LIST_HEAD(&fault->queued);
	INIT_LIST_HEAD(&fault->grants);
	fault->nr = nr;
	ranges_copy(fault, ranges, nr);
	return fault;
}

/* See mm_mirror_fault(). @how: FAULT_HOW_* */
struct mm_mirror_fault *fault_submit(struct mm_mirror *mirror,
				     const struct mm_mirror_range *ranges,
				     unsigned int nr, unsigned int how,
				     mm_mirror_done_fn done, void *data)
{
	struct mm_mirror_fault *fault;
	int err;

	if (!nr || nr > MM_MIRROR_FAULT_RANGES)
		return ERR_PTR(-EINVAL);
	err = fault_check_ranges(mirror_mm(mirror), ranges, nr);
	if (err)
		return ERR_PTR(err);
	fault = fault_alloc(mirror, ranges, nr);
	if (!fault)
		return ERR_PTR(-ENOMEM);
	fault->write = how & FAULT_HOW_WRITE;
	fault->grant = how & FAULT_HOW_GRANT;
	fault->prefetch = how & FAULT_HOW_PREFETCH;
	fault->present = how & FAULT_HOW_PRESENT;
	fault->done = done;
	fault->data = data;
	if (READ_ONCE(mirror->released) || !mmget_not_zero(fault->mm))
		goto err_free_fault;
	fault_queue(fault);
	return fault;

err_free_fault:
	fault_free(&fault->free_work);
	return ERR_PTR(-ESRCH);
}

/**
 * mm_mirror_fault - get translations for memory that an access needs
 * @mirror: the mirror
 * @ranges: what is wanted; copied
 * @nr: of @ranges, 1 to MM_MIRROR_FAULT_RANGES
 * @write: the access will write
 * @done: called once, when mm_mirror_fault_status() has an answer
 * @data: passed to @done
 *
 * Asynchronous, and may take for ever.  That it succeeds means that every page
 * needed had a translation; it may be gone again by the time of the access, which
 * then fails, and the client faults again.  A client that keeps losing asks for
 * mm_mirror_fault_granted().
 *
 * @done runs in a worker under a spinlock with interrupts off, possibly before this
 * function returns: it must not sleep, nor call mm_mirror_fault_put().
 *
 * Context: process context; may sleep, for memory only.
 *
 * Return: a fault, for mm_mirror_fault_put(). ERR_PTR(-EFAULT) for needed
 * addresses outside the address space, ERR_PTR(-EINVAL) for @nr, ERR_PTR(-ESRCH) if the
 * process is gone, ERR_PTR(-ENOMEM).
 */
struct mm_mirror_fault *mm_mirror_fault(struct mm_mirror *mirror,
					const struct mm_mirror_range *ranges,
					unsigned int nr, bool write,
					mm_mirror_done_fn done, void *data)
{
	return fault_submit(mirror, ranges, nr, write ? FAULT_HOW_WRITE : 0,
			    done, data);
}
EXPORT_SYMBOL_GPL(mm_mirror_fault);

/**
 * mm_mirror_fault_granted - the same, for a client that keeps losing
 * @mirror: see mm_mirror_fault()
 * @ranges: see mm_mirror_fault()
 * @nr: see mm_mirror_fault()
 * @write: see mm_mirror_fault()
 * @done: see mm_mirror_fault()
 * @data: see mm_mirror_fault()
 *
 * The needed pages are also lent to the fault: give it to the access as its grant,
 * and put it soon, since granted pages have a reference.  A grant ends when the
 * address is unmapped, moved or protected; what only takes the page away, such as
 * MADV_DONTNEED in a loop, counts as having come after the access.
 *
 * Context: see mm_mirror_fault().
 *
 * Return: see mm_mirror_fault().
 */
struct mm_mirror_fault *
mm_mirror_fault_granted(struct mm_mirror *mirror,
			const struct mm_mirror_range *ranges, unsigned int nr,
			bool write, mm_mirror_done_fn done, void *data)
{
	return fault_submit(mirror, ranges, nr,
			    FAULT_HOW_GRANT | (write ? FAULT_HOW_WRITE : 0),
			    done, data);
}
EXPORT_SYMBOL_GPL(mm_mirror_fault_granted);

/**
 * mm_mirror_fault_status - how a fault has gone so far
 * @fault: the fault
 *
 * Context: any.
 *
 * Return: -EINPROGRESS; 0 if what was needed had translations; -EFAULT if some of
 * it cannot be had by a device; -ECANCELED if the process has gone.
 */
int mm_mirror_fault_status(struct mm_mirror_fault *fault)
{
	/* pairs with the release in fault_complete(): grants are there */
	return smp_load_acquire(&fault->status);
}
EXPORT_SYMBOL_GPL(mm_mirror_fault_status);

/* Returns true if the fault was waiting for its turn, which it gives up. */
static bool fault_unqueue(struct mm_mirror_fault *fault)
{
	struct mm_mirror *mirror = fault->mirror;
	unsigned long flags;
	bool queued;

	spin_lock_irqsave(&mirror->fault_lock, flags);
	queued = !list_empty(&fault->queued);
	list_del_init(&fault->queued);
	spin_unlock_irqrestore(&mirror->fault_lock, flags);
	return queued;
}

/**
 * mm_mirror_fault_detach - stop wanting a fault
 * @fault: the fault; still to be put
 *
 * Never waits for the fault, which ends soon, or when its disk or server answers.
 * After it the callback has returned or will not run.
 *
 * Context: any; not from the callback.
 */
void mm_mirror_fault_detach(struct mm_mirror_fault *fault)
{
	unsigned long flags;

	/* not from the callback */
	lockdep_assert_not_held(&fault->lock);

	spin_lock_irqsave(&fault->lock, flags);
	WRITE_ONCE(fault->detached, true);
	if (fault->task)
		mod_timer(&fault->watch, jiffies);
	spin_unlock_irqrestore(&fault->lock, flags);

	if (fault_unqueue(fault))
		fault_finish(fault, -ECANCELED);
}
EXPORT_SYMBOL_GPL(mm_mirror_fault_detach);

/**
 * mm_mirror_fault_put - detach from a fault, whether it is done or not, and forget it
 * @fault: the fault; not used by the caller after this
 *
 * Context: any; not from the callback. Never waits for the fault; granted pages are
 * given back by a worker, since that may wait.
 */
void mm_mirror_fault_put(struct mm_mirror_fault *fault)
{
	mm_mirror_fault_detach(fault);
	fault_put(fault);
}
EXPORT_SYMBOL_GPL(mm_mirror_fault_put);

static void fault_wait_done(struct mm_mirror_fault *fault, void *data)
{
	complete(data);
}

/**
 * mm_mirror_fault_wait - get translations, and wait for that
 * @mirror: see mm_mirror_fault()
 * @ranges: see mm_mirror_fault()
 * @nr: see mm_mirror_fault()
 * @write: see mm_mirror_fault()
 *
 * For a task that has nothing else to do, and may wait for as long as it takes.  The
 * access can fail again all the same.
 *
 * Context: process context; sleeps until the fault is done or the task is killed. No
 * lock that a fault, or the handler of a userfaultfd, might need.
 *
 * Return: 0; -EINTR if a fatal signal came first; what mm_mirror_fault() and
 * mm_mirror_fault_status() return.
 */
int mm_mirror_fault_wait(struct mm_mirror *mirror,
			 const struct mm_mirror_range *ranges, unsigned int nr,
			 bool write)
{
	DECLARE_COMPLETION_ONSTACK(done);
	struct mm_mirror_fault *fault;
	int ret;

	fault = mm_mirror_fault(mirror, ranges, nr, write, fault_wait_done, &done);
	if (IS_ERR(fault))
		return PTR_ERR(fault);
	ret = wait_for_completion_state(&done, TASK_KILLABLE | TASK_FREEZABLE) ?
	      -EINTR : mm_mirror_fault_status(fault);
	/* the callback has returned, or will not run: done may go */
	mm_mirror_fault_put(fault);
	return ret;
}
EXPORT_SYMBOL_GPL(mm_mirror_fault_wait);

int __init fault_init(void)
{
	/*
	 * Freezable: after a hibernation snapshot nothing may fault file pages.
	 * Unbound: a fault sleeps more than it computes.
	 */
	fault_wq = alloc_workqueue("mm_mirror", WQ_UNBOUND | WQ_FREEZABLE,
				   WQ_MAX_ACTIVE);
	return fault_wq ? 0 : -ENOMEM;
}

void fault_exit(void)
{
	destroy_workqueue(fault_wq);
}
