// SPDX-License-Identifier: GPL-2.0
/*
 * Prefetching: translations for memory that nobody waits for yet.
 *
 * A prefetch is a list of ranges that is worked off in steps, each of which is a
 * fault (fault.c) of one leaf's size: it has a turn among the process's faults only
 * when no access wants it, and few have one at a time.  A worker takes one step after
 * the other, so the client's list is all the memory that it takes, and how much of
 * that a process can have outstanding is bounded.
 *
 * A prefetch belongs to an object of the client, its struct mm_mirror_prefetches,
 * and ends with it: mm_mirror_prefetch_cancel() takes it off the object's list and
 * waits for nothing; the worker finds out.  It ends with the process too, since its
 * faults do.
 *
 * References: one of the client's, one until the prefetch is done, one of each time
 * that the worker is asked for.
 */

#include <linux/completion.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

/* Bytes of a step, and at which multiples one ends that does not end its range. */
#define PREFETCH_STEP		PMD_SIZE

/* Ranges that a process's prefetches have in all; twice what one verb takes. */
#define PREFETCH_RANGES_MAX	8192

/**
 * struct mm_mirror_prefetch - see mm_mirror_prefetch()
 * @mirror: a handle
 * @refs: see above
 * @node: on its owner's list until done or cancelled; under mirror->prefetch_lock
 * @cancelled: it has been taken off; written under mirror->prefetch_lock
 * @how: FAULT_HOW_*
 * @work: takes the next step, on fault_wq; what follows is the worker's
 * @fault: the step at work, or NULL
 * @next: index of the range that the next step begins with
 * @offset: bytes of it that are behind
 * @status: the first error, once @done
 * @finished: nothing more happens
 * @done: for whoever waits
 * @nr: of @ranges
 * @ranges: what is wanted
 */
struct mm_mirror_prefetch {
	struct mm_mirror		*mirror;
	refcount_t			refs;
	struct list_head		node;
	bool				cancelled;
	unsigned int			how;
	struct work_struct		work;
	struct mm_mirror_fault		*fault;
	unsigned int			next;
	size_t				offset;
	int				status;
	bool				finished;
	struct completion		done;
	unsigned int			nr;
	struct mm_mirror_range		ranges[] __counted_by(nr);
};

/**
 * mm_mirror_prefetches_init - nothing is being prefetched for an object
 * @owner: part of the object
 *
 * Context: any.
 */
void mm_mirror_prefetches_init(struct mm_mirror_prefetches *owner)
{
	INIT_LIST_HEAD(&owner->list);
}
EXPORT_SYMBOL_GPL(mm_mirror_prefetches_init);

static void prefetch_free(struct mm_mirror_prefetch *prefetch)
{
	unsigned int i;

	for (i = 0; i < prefetch->nr; i++)
		mm_mirror_count_put(prefetch->ranges[i].count);
	mm_mirror_put(prefetch->mirror);
	kvfree(prefetch);
}

/**
 * mm_mirror_prefetch_put - forget a prefetch, which goes on
 * @prefetch: the prefetch; not used by the caller after this
 *
 * Context: process context; does not wait.
 */
void mm_mirror_prefetch_put(struct mm_mirror_prefetch *prefetch)
{
	if (refcount_dec_and_test(&prefetch->refs))
		prefetch_free(prefetch);
}
EXPORT_SYMBOL_GPL(mm_mirror_prefetch_put);

/* Ask for the worker. The caller knows that the prefetch is not done. */
static void prefetch_kick(struct mm_mirror_prefetch *prefetch)
{
	refcount_inc(&prefetch->refs);
	/* never the last one: there is the one until it is done */
	if (!queue_work(fault_wq, &prefetch->work))
		refcount_dec(&prefetch->refs);
}

static void prefetch_step_done(struct mm_mirror_fault *fault, void *data)
{
	prefetch_kick(data);
}

/* ---- the worker ---- */

static void prefetch_finish(struct mm_mirror_prefetch *prefetch, int status)
{
	struct mm_mirror *mirror = prefetch->mirror;

	prefetch->finished = true;
	prefetch->status = prefetch->status ?: status;
	spin_lock(&mirror->prefetch_lock);
	list_del_init(&prefetch->node);
	mirror->prefetch_ranges -= prefetch->nr;
	spin_unlock(&mirror->prefetch_lock);
	complete_all(&prefetch->done);
	mm_mirror_prefetch_put(prefetch);
}

/* The step at work has ended, or nobody wants it any more. */
static void prefetch_end_step(struct mm_mirror_prefetch *prefetch)
{
	struct mm_mirror_fault *fault = prefetch->fault;
	int status;

	if (!fault)
		return;
	status = mm_mirror_fault_status(fault);
	if (status != -EINPROGRESS)
		prefetch->status = prefetch->status ?: status;
	prefetch->fault = NULL;
	mm_mirror_fault_put(fault);
}

/* Takes the next step's ranges off the list. Returns how many. */
static unsigned int prefetch_take(struct mm_mirror_prefetch *prefetch,
				  struct mm_mirror_range *step)
{
	size_t left = PREFETCH_STEP;
	unsigned int nr = 0;

	while (nr < MM_MIRROR_FAULT_RANGES && left &&
	       prefetch->next < prefetch->nr) {
		const struct mm_mirror_range *range =
			&prefetch->ranges[prefetch->next];
		unsigned long start = range->start + prefetch->offset;
		size_t rest = range->length - prefetch->offset;
		size_t bytes = min3(rest, left, PREFETCH_STEP -
				    (start & (PREFETCH_STEP - 1)));

		/* where there is nothing to have, no page is meant */
		if (rest)
			step[nr++] = (struct mm_mirror_range) {
				.start = start, .length = bytes, .need = bytes,
				.count = range->count,
			};
		if (bytes < rest) {
			prefetch->offset += bytes;
			break;
		}
		prefetch->next++;
		prefetch->offset = 0;
		left -= bytes;
	}
	return nr;
}

/* Returns 0 if one is at work, or why there is none; 1 if all have been taken. */
static int prefetch_step(struct mm_mirror_prefetch *prefetch)
{
	struct mm_mirror_range step[MM_MIRROR_FAULT_RANGES];
	struct mm_mirror_fault *fault;
	unsigned int nr = prefetch_take(prefetch, step);

	if (!nr)
		return 1;
	fault = fault_submit(prefetch->mirror, step, nr, prefetch->how,
			     prefetch_step_done, prefetch);
	if (IS_ERR(fault))
		return fault == ERR_PTR(-ESRCH) ? -ECANCELED : PTR_ERR(fault);
	prefetch->fault = fault;
	return 0;
}

static void prefetch_work(struct work_struct *work)
{
	struct mm_mirror_prefetch *prefetch =
		container_of(work, struct mm_mirror_prefetch, work);
	int err;

	prefetch_end_step(prefetch);
	if (prefetch->finished)
		goto out_put;
	if (READ_ONCE(prefetch->cancelled))
		err = -ECANCELED;
	else if (prefetch->status && prefetch->status != -EFAULT)
		err = prefetch->status;
	else
		err = prefetch_step(prefetch);
	if (err)
		prefetch_finish(prefetch, err < 0 ? err : 0);
out_put:
	mm_mirror_prefetch_put(prefetch);
}

/* ---- the client ---- */

static const unsigned int kind_how[] = {
	[MM_MIRROR_PREFETCH_READ]	= FAULT_HOW_PREFETCH,
	[MM_MIRROR_PREFETCH_WRITE]	= FAULT_HOW_PREFETCH | FAULT_HOW_WRITE,
	[MM_MIRROR_PREFETCH_PRESENT]	= FAULT_HOW_PREFETCH | FAULT_HOW_PRESENT,
};

static struct mm_mirror_prefetch *
prefetch_alloc(struct mm_mirror *mirror, const struct mm_mirror_range *ranges,
	       unsigned int nr, enum mm_mirror_prefetch_kind kind)
{
	struct mm_mirror_prefetch *prefetch;

	prefetch = kvzalloc(struct_size(prefetch, ranges, nr),
			    GFP_KERNEL_ACCOUNT);
	if (!prefetch)
		return NULL;
	prefetch->mirror = mm_mirror_ref(mirror);
	refcount_set(&prefetch->refs, 2);
	INIT_LIST_HEAD(&prefetch->node);
	INIT_WORK(&prefetch->work, prefetch_work);
	init_completion(&prefetch->done);
	prefetch->how = kind_how[kind];
	prefetch->nr = nr;
	memcpy(prefetch->ranges, ranges, nr * sizeof(*ranges));
	/* the ranges outlive what the client has them for */
	while (nr--)
		mm_mirror_count_ref(ranges[nr].count);
	return prefetch;
}

/* Starts it, if the process has not too much of that already. */
static int prefetch_start(struct mm_mirror_prefetch *prefetch,
			  struct mm_mirror_prefetches *owner)
{
	struct mm_mirror *mirror = prefetch->mirror;
	int err = 0;

	spin_lock(&mirror->prefetch_lock);
	if (prefetch->nr > PREFETCH_RANGES_MAX - mirror->prefetch_ranges) {
		err = -EAGAIN;
	} else {
		mirror->prefetch_ranges += prefetch->nr;
		list_add_tail(&prefetch->node, &owner->list);
		prefetch_kick(prefetch);
	}
	spin_unlock(&mirror->prefetch_lock);
	return err;
}

/**
 * mm_mirror_prefetch - get translations for memory that will be needed
 * @owner: the client's object that this is for
 * @mirror: the mirror; always the same for one @owner
 * @ranges: what is wanted; copied; @need does not matter, @length may be 0
 * @nr: of @ranges, at least 1
 * @kind: what for
 *
 * Asynchronous, may take for ever, and is advice: what cannot be had is left out, and
 * what was had may be gone by the time of an access, which faults as ever.
 *
 * Context: process context; may sleep, for memory only.
 *
 * Return: a prefetch, for mm_mirror_prefetch_put(). ERR_PTR(-EFAULT) if a range is
 * outside the address space; ERR_PTR(-EAGAIN) if too much is outstanding for this
 * process; ERR_PTR(-EINVAL) for @nr; ERR_PTR(-ENOMEM).
 */
struct mm_mirror_prefetch *
mm_mirror_prefetch(struct mm_mirror_prefetches *owner, struct mm_mirror *mirror,
		   const struct mm_mirror_range *ranges, unsigned int nr,
		   enum mm_mirror_prefetch_kind kind)
{
	struct mm_mirror_prefetch *prefetch;
	unsigned int i;
	int err;

	if (!nr || nr > PREFETCH_RANGES_MAX)
		return ERR_PTR(-EINVAL);
	for (i = 0; i < nr; i++)
		if (!range_fits(mirror_mm(mirror), ranges[i].start,
				ranges[i].length))
			return ERR_PTR(-EFAULT);
	prefetch = prefetch_alloc(mirror, ranges, nr, kind);
	if (!prefetch)
		return ERR_PTR(-ENOMEM);
	err = prefetch_start(prefetch, owner);
	if (err)
		goto err_free_prefetch;
	return prefetch;

err_free_prefetch:
	prefetch_free(prefetch);
	return ERR_PTR(err);
}
EXPORT_SYMBOL_GPL(mm_mirror_prefetch);

/**
 * mm_mirror_prefetch_wait - wait until a prefetch is done
 * @prefetch: the prefetch; still to be put
 *
 * Context: process context; sleeps until it is done or the task is killed. No lock
 * that a fault, or the handler of a userfaultfd, might need; nothing that whoever
 * cancels waits for.
 *
 * Return: 0 if each page had a translation, or for MM_MIRROR_PREFETCH_PRESENT each
 * that was there; -EFAULT if some of the memory cannot be had by a device;
 * -ECANCELED if the object or the process has gone; -EINTR if a fatal signal came
 * first; -ENOMEM.
 */
int mm_mirror_prefetch_wait(struct mm_mirror_prefetch *prefetch)
{
	if (wait_for_completion_state(&prefetch->done,
				      TASK_KILLABLE | TASK_FREEZABLE))
		return -EINTR;
	return prefetch->status;
}
EXPORT_SYMBOL_GPL(mm_mirror_prefetch_wait);

/**
 * mm_mirror_prefetch_cancel - end all prefetches of an object
 * @owner: of the object, which may be freed after this
 * @mirror: the mirror
 *
 * Those that began before; it is for the caller to let none begin.
 *
 * Context: process context; waits for nothing.
 */
void mm_mirror_prefetch_cancel(struct mm_mirror_prefetches *owner,
			       struct mm_mirror *mirror)
{
	struct mm_mirror_prefetch *prefetch, *next;

	spin_lock(&mirror->prefetch_lock);
	list_for_each_entry_safe(prefetch, next, &owner->list, node) {
		list_del_init(&prefetch->node);
		WRITE_ONCE(prefetch->cancelled, true);
		prefetch_kick(prefetch);
	}
	spin_unlock(&mirror->prefetch_lock);
}
EXPORT_SYMBOL_GPL(mm_mirror_prefetch_cancel);
