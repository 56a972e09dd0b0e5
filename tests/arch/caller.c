// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that calls every function of linux/mm_mirror.h, for the compiler only: it is
 * built with CONFIG_MM_MIRROR off, =m and =y (ci/arch), so that the stubs and the real
 * functions stay the same. With the symbol off nothing of mm_mirror may be left in the
 * object, nor a call of caller_works_on(): what follows mm_mirror_get() is unreachable.
 *
 * The header comes first: it needs no other.
 */

#include <linux/mm_mirror.h>

#include <linux/build_bug.h>
#include <linux/compiler.h>

#define PROTOTYPE(function, type) static_assert(__same_type(function, type))

PROTOTYPE(mm_mirror_get, struct mm_mirror *(void));
PROTOTYPE(mm_mirror_ref, struct mm_mirror *(struct mm_mirror *));
PROTOTYPE(mm_mirror_put, void (struct mm_mirror *));
PROTOTYPE(mm_mirror_is_current, bool (const struct mm_mirror *));
PROTOTYPE(mm_mirror_admits, enum mm_mirror_answer (unsigned long, size_t, bool));
PROTOTYPE(mm_mirror_take,
	  int (struct mm_mirror *, unsigned long, bool, struct mm_mirror_fault *,
	       struct mm_mirror_hold *));
PROTOTYPE(mm_mirror_drop, void (struct mm_mirror_hold *));
PROTOTYPE(mm_mirror_resident,
	  bool (struct mm_mirror *, unsigned long, size_t, bool,
		struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_copy_to,
	  int (struct mm_mirror *, unsigned long, const void *, size_t,
	       struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_copy_from,
	  int (struct mm_mirror *, unsigned long, void *, size_t,
	       struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_fault,
	  struct mm_mirror_fault *(struct mm_mirror *, const struct mm_mirror_range *,
				   unsigned int, bool, mm_mirror_done_fn, void *));
PROTOTYPE(mm_mirror_fault_granted,
	  struct mm_mirror_fault *(struct mm_mirror *, const struct mm_mirror_range *,
				   unsigned int, bool, mm_mirror_done_fn, void *));
PROTOTYPE(mm_mirror_fault_status, int (struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_fault_detach, void (struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_fault_put, void (struct mm_mirror_fault *));
PROTOTYPE(mm_mirror_fault_wait,
	  int (struct mm_mirror *, const struct mm_mirror_range *, unsigned int, bool));
PROTOTYPE(mm_mirror_prefetches_init, void (struct mm_mirror_prefetches *));
PROTOTYPE(mm_mirror_prefetch,
	  struct mm_mirror_prefetch *(struct mm_mirror_prefetches *, struct mm_mirror *,
				      const struct mm_mirror_range *, unsigned int,
				      enum mm_mirror_prefetch_kind));
PROTOTYPE(mm_mirror_prefetch_wait, int (struct mm_mirror_prefetch *));
PROTOTYPE(mm_mirror_prefetch_put, void (struct mm_mirror_prefetch *));
PROTOTYPE(mm_mirror_prefetch_cancel,
	  void (struct mm_mirror_prefetches *, struct mm_mirror *));
PROTOTYPE(mm_mirror_subscribe,
	  int (struct mm_mirror_subscription *, struct mm_mirror *, unsigned long,
	       unsigned long, const struct mm_mirror_subscription_ops *));
PROTOTYPE(mm_mirror_unsubscribe, void (struct mm_mirror_subscription *));
PROTOTYPE(mm_mirror_establish,
	  int (struct mm_mirror_subscription *, unsigned long, bool,
	       struct mm_mirror_hold *));
PROTOTYPE(mm_mirror_count_total, struct mm_mirror_count *(void));
PROTOTYPE(mm_mirror_count_begin,
	  struct mm_mirror_count *(struct mm_mirror *, unsigned long, unsigned long,
				   struct mm_mirror_count *));
PROTOTYPE(mm_mirror_count_end, void (struct mm_mirror_count *));
PROTOTYPE(mm_mirror_count_ref, struct mm_mirror_count *(struct mm_mirror_count *));
PROTOTYPE(mm_mirror_count_put, void (struct mm_mirror_count *));
PROTOTYPE(mm_mirror_count_read,
	  u64 (const struct mm_mirror_count *, enum mm_mirror_counter));
PROTOTYPE(mm_mirror_delay_park, void (void));

struct caller {
	struct mm_mirror		*mirror;
	struct mm_mirror_subscription	sub;
	struct mm_mirror_fault		*fault;
	struct mm_mirror_prefetches	prefetches;
	unsigned long			start;
	unsigned long			last;
	enum mmu_notifier_event		why;
};

/* Defined nowhere. */
void caller_works_on(struct caller *caller);

int caller_open(struct caller *caller);
int caller_open(struct caller *caller)
{
	caller->mirror = mm_mirror_get();
	if (IS_ERR(caller->mirror))
		return PTR_ERR(caller->mirror);
	caller_works_on(caller);
	return 0;
}

void caller_close(struct caller *caller);
void caller_close(struct caller *caller)
{
	mm_mirror_unsubscribe(&caller->sub);
	mm_mirror_put(caller->mirror);
}

int caller_check(struct caller *caller, const struct mm_mirror_range *range);
int caller_check(struct caller *caller, const struct mm_mirror_range *range)
{
	if (mm_mirror_admits(range->start, range->length, true) != MM_MIRROR_ADMITTED)
		return -EFAULT;
	caller_works_on(caller);
	return 0;
}

struct mm_mirror *caller_share(struct caller *caller);
struct mm_mirror *caller_share(struct caller *caller)
{
	if (!mm_mirror_is_current(caller->mirror))
		return ERR_PTR(-EPERM);
	return mm_mirror_ref(caller->mirror);
}

/* ---- access ---- */

int caller_poke(struct caller *caller, unsigned long addr, u8 value);
int caller_poke(struct caller *caller, unsigned long addr, u8 value)
{
	struct mm_mirror_hold hold;
	int err;

	err = mm_mirror_take(caller->mirror, addr, true, caller->fault, &hold);
	if (err)
		return err;
	*(u8 *)hold.addr = value;
	mm_mirror_drop(&hold);
	return 0;
}

int caller_move(struct caller *caller, unsigned long to, unsigned long from,
		void *bounce, size_t length);
int caller_move(struct caller *caller, unsigned long to, unsigned long from,
		void *bounce, size_t length)
{
	struct mm_mirror *mirror = caller->mirror;

	if (!mm_mirror_resident(mirror, to, length, true, caller->fault))
		return -EAGAIN;
	return mm_mirror_copy_from(mirror, from, bounce, length, caller->fault) ?:
	       mm_mirror_copy_to(mirror, to, bounce, length, caller->fault);
}

/* ---- faults ---- */

static void caller_done(struct mm_mirror_fault *fault, void *data)
{
	struct caller *caller = data;

	if (mm_mirror_fault_status(fault) == 0)
		caller_works_on(caller);
}

int caller_fault(struct caller *caller, const struct mm_mirror_range *range, bool again);
int caller_fault(struct caller *caller, const struct mm_mirror_range *range, bool again)
{
	struct mm_mirror *mirror = caller->mirror;
	struct mm_mirror_fault *fault;

	if (again)
		fault = mm_mirror_fault_granted(mirror, range, 1, true, caller_done, caller);
	else
		fault = mm_mirror_fault(mirror, range, 1, true, caller_done, caller);
	if (IS_ERR(fault))
		return PTR_ERR(fault);
	mm_mirror_delay_park();
	caller->fault = fault;
	caller_works_on(caller);
	return 0;
}

void caller_forget(struct caller *caller);
void caller_forget(struct caller *caller)
{
	mm_mirror_fault_detach(caller->fault);
	mm_mirror_fault_put(caller->fault);
}

int caller_wait(struct caller *caller, const struct mm_mirror_range *range);
int caller_wait(struct caller *caller, const struct mm_mirror_range *range)
{
	int err = mm_mirror_fault_wait(caller->mirror, range, 1, false);

	if (!err)
		caller_works_on(caller);
	return err;
}

/* ---- counts ---- */

int caller_count(struct caller *caller, struct mm_mirror_range *range);
int caller_count(struct caller *caller, struct mm_mirror_range *range)
{
	struct mm_mirror_count *total = mm_mirror_count_total();

	range->count = mm_mirror_count_begin(caller->mirror, range->start,
					     range->start + range->length - 1, total);
	if (range->count) {
		caller_works_on(caller);
		mm_mirror_count_end(range->count);
	}
	caller->start = mm_mirror_count_read(mm_mirror_count_ref(total), MM_MIRROR_FAULTED);
	mm_mirror_count_put(total);
	mm_mirror_count_put(total);
	return 0;
}

/* ---- a table of its own ---- */

static struct caller *caller_of(struct mm_mirror_subscription *sub)
{
	return container_of(sub, struct caller, sub);
}

static void caller_release(struct mm_mirror_subscription *sub)
{
	caller_of(sub)->start = 0;
	caller_of(sub)->last = 0;
}

static bool caller_invalidate(struct mm_mirror_subscription *sub,
			      const struct mm_mirror_event *event)
{
	struct caller *caller = caller_of(sub);

	caller->start = event->start;
	caller->last = event->last;
	caller->why = event->type;
	return true;
}

static bool caller_young(struct mm_mirror_subscription *sub, unsigned long start,
			 unsigned long last)
{
	return start <= caller_of(sub)->last && last >= caller_of(sub)->start;
}

static const struct mm_mirror_subscription_ops caller_ops = {
	.release	= caller_release,
	.invalidate	= caller_invalidate,
	.try_invalidate	= caller_invalidate,
	.test_young	= caller_young,
	.clear_young	= caller_young,
};

int caller_map(struct caller *caller);
int caller_map(struct caller *caller)
{
	struct mm_mirror_hold hold;
	int err;

	err = mm_mirror_subscribe(&caller->sub, caller->mirror, caller->start, caller->last,
				  &caller_ops);
	if (err)
		return err;
	err = mm_mirror_establish(&caller->sub, caller->start, false, &hold);
	if (err)
		return err;
	mm_mirror_drop(&hold);
	caller_works_on(caller);
	return 0;
}

/* ---- prefetches ---- */

int caller_advise(struct caller *caller, const struct mm_mirror_range *ranges,
		  unsigned int nr);
int caller_advise(struct caller *caller, const struct mm_mirror_range *ranges,
		  unsigned int nr)
{
	struct mm_mirror_prefetch *prefetch;
	int err;

	mm_mirror_prefetches_init(&caller->prefetches);
	prefetch = mm_mirror_prefetch(&caller->prefetches, caller->mirror, ranges,
				      nr, MM_MIRROR_PREFETCH_WRITE);
	if (IS_ERR(prefetch))
		return PTR_ERR(prefetch);
	err = mm_mirror_prefetch_wait(prefetch);
	mm_mirror_prefetch_put(prefetch);
	return err;
}

void caller_unadvise(struct caller *caller);
void caller_unadvise(struct caller *caller)
{
	mm_mirror_prefetch_cancel(&caller->prefetches, caller->mirror);
}
