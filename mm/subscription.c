// SPDX-License-Identifier: GPL-2.0
/*
 * Subscriptions: for clients that keep what they saw in tables of their own, such as
 * a device's translation cache.
 *
 * The core has no such table to clear, so the client is called.  Everything else
 * stays here: a page can get into the client's table only while it holds it
 * (mm_mirror_establish()), and is announced by the leaf which that hold was of, after
 * the leaf's own words are gone and its fence has been passed.  So what the client
 * established before, it has established for good when it is called; and it can
 * establish nothing until the mm is done, there, while all other leaves go on.  No
 * client has to remember ranges, or to compare sequences.
 *
 * So where there is no leaf nothing is established.  A leaf announces all of itself
 * before it is freed, since where nothing may block a client may have refused.
 *
 * The subscriptions of a mirror are an interval tree under a spinlock, which is not
 * held over a callback: whoever calls has a reference (sub->calls) instead, and a
 * subscription leaves the tree only after the last of them.
 *
 * The end, in phases (sub->state): SUB_LIVE; SUB_ENDING: nothing is established any
 * more; then release() is called, once; SUB_ENDED.  Whoever finds SUB_ENDING must
 * wait for SUB_ENDED, since until then the client may use its table.
 */

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/wait_bit.h>

#include "internal.h"

enum sub_state {
	SUB_LIVE,
	SUB_ENDING,
	SUB_ENDED,
};

/* ---- going over the subscriptions of a range ---- */

static void sub_unref(struct mm_mirror_subscription *sub)
{
	if (refcount_dec_and_test(&sub->calls))
		complete(&sub->idle);
}

/* The first at or after @node that is not leaving, with a reference. */
static struct mm_mirror_subscription *
sub_ref_from(struct interval_tree_node *node, unsigned long start,
	     unsigned long last)
{
	struct mm_mirror_subscription *sub;

	for (; node; node = interval_tree_iter_next(node, start, last)) {
		sub = container_of(node, struct mm_mirror_subscription, node);
		if (refcount_inc_not_zero(&sub->calls))
			return sub;
	}
	return NULL;
}

/*
 * The next subscription of [@start, @last] after @sub, or the first after NULL: with a
 * reference, which the next call gives back.  Whoever stops before NULL owes it.
 */
static struct mm_mirror_subscription *
sub_next(struct mm_mirror *mirror, struct mm_mirror_subscription *sub,
	 unsigned long start, unsigned long last)
{
	struct mm_mirror_subscription *next;
	struct interval_tree_node *node;

	spin_lock(&mirror->sub_lock);
	node = sub ? interval_tree_iter_next(&sub->node, start, last) :
		     interval_tree_iter_first(&mirror->subscriptions, start, last);
	next = sub_ref_from(node, start, last);
	spin_unlock(&mirror->sub_lock);
	if (sub)
		sub_unref(sub);
	return next;
}

/*
 * A subscription that is being added while this looks has nothing established in the
 * leaf at hand, whose words are gone.
 */
static bool has_subscriptions(const struct mm_mirror *mirror)
{
	return !RB_EMPTY_ROOT(&mirror->subscriptions.rb_root);
}

/* ---- lockdep ---- */

/*
 * What may sleep in a callback may be waited for by reclaim, and by whoever holds
 * mmap_lock: a client that allocates there, or waits for one who does, is reported
 * before that ever deadlocks.
 */
#ifdef CONFIG_LOCKDEP
static struct lockdep_map callback_map =
	STATIC_LOCKDEP_MAP_INIT("mm_mirror_callback", &callback_map);

static void callback_acquire(void)
{
	lock_map_acquire(&callback_map);
}

static void callback_release(void)
{
	lock_map_release(&callback_map);
}
#else
static void callback_acquire(void)
{
}

static void callback_release(void)
{
}
#endif

/* In a place from which callbacks may be waited for. */
void subscriptions_prime(void)
{
	callback_acquire();
	callback_release();
}

/* ---- the end of one ---- */

static void sub_wait_ended(struct mm_mirror_subscription *sub)
{
	subscriptions_prime();
	/* pairs with the release in sub_end() */
	wait_var_event(&sub->state, smp_load_acquire(&sub->state) == SUB_ENDED);
}

static void sub_release(struct mm_mirror_subscription *sub)
{
	callback_acquire();
	sub->ops->release(sub);
	callback_release();
}

/*
 * Returns when release() has returned, whoever called it.  @fenced: no word is left,
 * nor can one come.
 */
static void sub_end(struct mm_mirror_subscription *sub, bool fenced)
{
	might_sleep();

	if (cmpxchg(&sub->state, SUB_LIVE, SUB_ENDING) != SUB_LIVE) {
		sub_wait_ended(sub);
		return;
	}
	/* whoever has seen SUB_LIVE in mm_mirror_establish() holds no page any more */
	if (!fenced)
		synchronize_rcu();
	mirror_delay(DELAY_END_TO_RELEASE);
	sub_release(sub);
	/* pairs with the acquire in sub_wait_ended(): the client's table is empty */
	smp_store_release(&sub->state, SUB_ENDED);
	/* the store is before the look at who waits */
	smp_mb();
	wake_up_var(&sub->state);
}

/* mm_users is 0. No word is left, and none can come. */
void subscriptions_release(struct mm_mirror *mirror)
{
	struct mm_mirror_subscription *sub = NULL;

	while ((sub = sub_next(mirror, sub, 0, ULONG_MAX)))
		sub_end(sub, true);
}

/* ---- callbacks ---- */

static void sub_invalidate(struct mm_mirror_subscription *sub,
			   const struct mm_mirror_event *event)
{
	bool done = false;

	if (READ_ONCE(sub->state) == SUB_LIVE) {
		callback_acquire();
		done = sub->ops->invalidate(sub, event);
		callback_release();
	}
	if (done)
		return;
	WARN_ONCE(READ_ONCE(sub->state) == SUB_LIVE,
		  "mm_mirror: %ps did not invalidate, its subscription ends\n",
		  sub->ops->invalidate);
	sub_end(sub, false);
}

static bool sub_try_invalidate(struct mm_mirror_subscription *sub,
			       const struct mm_mirror_event *event)
{
	/* pairs with the release in sub_end() */
	int state = smp_load_acquire(&sub->state);
	bool done;

	if (state != SUB_LIVE)
		return state == SUB_ENDED;
	non_block_start();
	done = sub->ops->try_invalidate(sub, event);
	non_block_end();
	return done;
}

/**
 * subscriptions_invalidate - tell the clients of a piece of a leaf
 * @mirror: the mirror
 * @event: what is about to happen; within one leaf, whose words are gone
 * @may_block: may a client sleep?
 *
 * Context: a notifier callback, or a worker; no lock of ours is held.
 *
 * Return: false if a client refuses, only if not @may_block.
 */
bool subscriptions_invalidate(struct mm_mirror *mirror,
			      const struct mm_mirror_event *event, bool may_block)
{
	struct mm_mirror_subscription *sub = NULL;

	if (!has_subscriptions(mirror))
		return true;
	while ((sub = sub_next(mirror, sub, event->start, event->last))) {
		if (may_block) {
			sub_invalidate(sub, event);
		} else if (!sub_try_invalidate(sub, event)) {
			sub_unref(sub);
			return false;
		}
	}
	return true;
}

/*
 * With the page-table lock held, for a part of a leaf. Each client is asked, since each
 * has to clear.
 */
bool subscriptions_young(struct mm_mirror *mirror, unsigned long start,
			 unsigned long last, bool clear)
{
	struct mm_mirror_subscription *sub = NULL;
	bool young = false;

	if (!has_subscriptions(mirror))
		return false;
	while ((sub = sub_next(mirror, sub, start, last))) {
		if (!sub->ops->test_young || READ_ONCE(sub->state) != SUB_LIVE)
			continue;
		young |= clear ? sub->ops->clear_young(sub, start, last) :
				 sub->ops->test_young(sub, start, last);
	}
	return young;
}

unsigned int subscriptions_count(struct mm_mirror *mirror)
{
	struct interval_tree_node *node;
	unsigned int n = 0;

	spin_lock(&mirror->sub_lock);
	node = interval_tree_iter_first(&mirror->subscriptions, 0, ULONG_MAX);
	for (; node; node = interval_tree_iter_next(node, 0, ULONG_MAX))
		n++;
	spin_unlock(&mirror->sub_lock);
	return n;
}

/* ---- for clients ---- */

static bool ops_complete(const struct mm_mirror_subscription_ops *ops)
{
	return ops->release && ops->invalidate && ops->try_invalidate &&
	       !ops->test_young == !ops->clear_young;
}

/**
 * mm_mirror_subscribe - be called before something happens to a range
 * @sub: memory of the client's, which stays until mm_mirror_unsubscribe()
 * @mirror: the mirror
 * @start: first address
 * @last: last address; 0 to ULONG_MAX is the whole address space
 * @ops: what to call; stays as long
 *
 * Ranges may overlap, and one client may have many.  There is no order between the
 * subscriptions of a piece.
 *
 * Context: process context; may sleep.
 *
 * Return: 0; -EINVAL if @start > @last, or without the mandatory callbacks; -ESRCH if
 * the process is gone.
 */
int mm_mirror_subscribe(struct mm_mirror_subscription *sub,
			struct mm_mirror *mirror, unsigned long start,
			unsigned long last,
			const struct mm_mirror_subscription_ops *ops)
{
	int err = 0;

	might_sleep();

	if (start > last || !ops_complete(ops))
		return -EINVAL;
	sub->mirror = mm_mirror_ref(mirror);
	sub->ops = ops;
	sub->node.start = start;
	sub->node.last = last;
	sub->state = SUB_LIVE;
	refcount_set(&sub->calls, 1);
	init_completion(&sub->idle);

	spin_lock(&mirror->sub_lock);
	/* the release of the mirror sets it before it goes over the tree */
	if (mirror->released)
		err = -ESRCH;
	else
		interval_tree_insert(&sub->node, &mirror->subscriptions);
	spin_unlock(&mirror->sub_lock);
	if (err) {
		mm_mirror_put(mirror);
		return err;
	}
	stat_add(STAT_SUBSCRIPTIONS, 1);
	return 0;
}
EXPORT_SYMBOL_GPL(mm_mirror_subscribe);

/**
 * mm_mirror_unsubscribe - no more callbacks
 * @sub: from mm_mirror_subscribe(); the client's again after this
 *
 * Calls release(), unless that has been called.  After it no callback runs or comes;
 * until then they may, also after release().  Waits for an RCU grace period: not for
 * what is done all the time.
 *
 * Context: process context; may sleep, for callbacks that run. Not from a callback,
 * nor with anything held that one of them waits for.
 */
void mm_mirror_unsubscribe(struct mm_mirror_subscription *sub)
{
	struct mm_mirror *mirror = sub->mirror;

	sub_end(sub, false);
	sub_unref(sub);
	wait_for_completion(&sub->idle);
	spin_lock(&mirror->sub_lock);
	interval_tree_remove(&sub->node, &mirror->subscriptions);
	spin_unlock(&mirror->sub_lock);
	stat_add(STAT_SUBSCRIPTIONS, -1);
	mm_mirror_put(mirror);
}
EXPORT_SYMBOL_GPL(mm_mirror_unsubscribe);

/**
 * mm_mirror_establish - hold a page that the client puts into a table of its own
 * @sub: the subscription, which covers @addr
 * @addr: address
 * @write: the device may write through the table; dirties the page
 * @hold: what to give to mm_mirror_drop()
 *
 * Until mm_mirror_drop() the rules of mm_mirror_take() hold.  What is in the table by
 * then may be used until a callback of @sub has returned that is about it.  The page is
 * virt_to_page(@hold->addr).  Faults are the client's to ask for, as for any access, but
 * a granted page cannot be established: it is copied.
 *
 * Context: that of mm_mirror_take().
 *
 * Return: 0 with @hold->addr set; -EAGAIN if there is no such translation; -ERANGE if
 * @sub does not cover @addr; -ESRCH if the subscription has ended.
 */
int mm_mirror_establish(struct mm_mirror_subscription *sub, unsigned long addr,
			bool write, struct mm_mirror_hold *hold)
{
	int ret;

	if (addr < sub->node.start || addr > sub->node.last)
		return -ERANGE;
	ret = mm_mirror_take(sub->mirror, addr, write, NULL, hold);
	if (ret)
		return READ_ONCE(sub->state) == SUB_LIVE ? ret : -ESRCH;
	/* with preemption off: sub_end() waits for whoever still sees SUB_LIVE */
	if (READ_ONCE(sub->state) == SUB_LIVE)
		return 0;
	mm_mirror_drop(hold);
	return -ESRCH;
}
EXPORT_SYMBOL_GPL(mm_mirror_establish);
