// SPDX-License-Identifier: GPL-2.0
/*
 * The mirrors that there are, and what each of them has just now, for two files in
 * /sys/kernel/debug/mm_mirror: a line each in mirrors, the sums in stats.  It is
 * counted when somebody reads, entry by entry, and not kept anywhere.
 *
 * Who reads keeps mirrors from being freed by a mutex, and not by handles: one
 * that is given back might be the last.
 */

#include <linux/debugfs.h>
#include <linux/list.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#include "internal.h"

static LIST_HEAD(live);
static DEFINE_SPINLOCK(live_lock);	/* changes of the list */
static DEFINE_MUTEX(live_readers);	/* nothing leaves it meanwhile */

/* Under mmap_lock: must not wait for readers, who may take long. */
void live_add(struct mm_mirror *mirror)
{
	spin_lock(&live_lock);
	list_add_tail(&mirror->live, &live);
	spin_unlock(&live_lock);
}

void live_remove(struct mm_mirror *mirror)
{
	mutex_lock(&live_readers);
	spin_lock(&live_lock);
	list_del(&mirror->live);
	spin_unlock(&live_lock);
	mutex_unlock(&live_readers);
}

/* The first, or the one after @mirror, or NULL. */
static struct mm_mirror *live_next(const struct mm_mirror *mirror)
{
	struct list_head *next;

	lockdep_assert_held(&live_readers);

	spin_lock(&live_lock);
	next = mirror ? mirror->live.next : live.next;
	spin_unlock(&live_lock);
	return next == &live ? NULL : list_entry(next, struct mm_mirror, live);
}

/* What all of them have. */
void live_survey(struct mirror_survey *sum)
{
	struct mm_mirror *mirror = NULL;

	mutex_lock(&live_readers);
	while ((mirror = live_next(mirror)))
		leaf_survey(mirror, sum);
	mutex_unlock(&live_readers);
}

/* ---- whose it is ---- */

/*
 * One of the tasks that use the address space, NULL after the last.  Under RCU.
 * Aging may come before the anchor, and its pointer to the mm, is there.
 */
static struct task_struct *mirror_owner(const struct mm_mirror *mirror)
{
	return rcu_dereference(mirror->notifier.mm->owner);
}

/* The process, or 0. */
pid_t mirror_pid(const struct mm_mirror *mirror)
{
	struct task_struct *owner;
	pid_t pid = 0;

	rcu_read_lock();
	owner = mirror_owner(mirror);
	if (owner)
		pid = task_tgid_nr(owner);
	rcu_read_unlock();
	return pid;
}

/* Its name, last on the line since it may have anything in it. */
static void show_comm(struct seq_file *m, const struct mm_mirror *mirror)
{
	char comm[TASK_COMM_LEN] = "-";
	struct task_struct *owner;

	rcu_read_lock();
	owner = mirror_owner(mirror);
	if (owner)
		get_task_comm(comm, owner);
	rcu_read_unlock();
	seq_puts(m, " comm=");
	seq_escape(m, comm, "\n\\");
	seq_putc(m, '\n');
}

/* ---- the file ---- */

static void *mirrors_start(struct seq_file *m, loff_t *pos)
{
	struct mm_mirror *mirror;
	loff_t i;

	mutex_lock(&live_readers);
	mirror = live_next(NULL);
	for (i = 0; mirror && i < *pos; i++)
		mirror = live_next(mirror);
	return mirror;
}

static void *mirrors_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return live_next(v);
}

static void mirrors_stop(struct seq_file *m, void *v)
{
	mutex_unlock(&live_readers);
}

static int mirrors_show(struct seq_file *m, void *v)
{
	struct mm_mirror *mirror = v;
	struct mirror_survey has = {};
	unsigned int running, queued;

	leaf_survey(mirror, &has);
	fault_turns(mirror, &running, &queued);
	seq_printf(m, "mirror=%u pid=%d leaves=%lu huge=%lu present=%lu held=%lu",
		   mirror->id, mirror_pid(mirror), has.leaves, has.huge,
		   has.present, has.held);
	seq_printf(m, " faults_running=%u faults_queued=%u subscriptions=%u",
		   running, queued, subscriptions_count(mirror));
	show_comm(m, mirror);
	return 0;
}

static const struct seq_operations mirrors_sops = {
	.start	= mirrors_start,
	.next	= mirrors_next,
	.stop	= mirrors_stop,
	.show	= mirrors_show,
};
DEFINE_SEQ_ATTRIBUTE(mirrors);

void __init live_init(struct dentry *dir)
{
	debugfs_create_file("mirrors", 0400, dir, NULL, &mirrors_fops);
}
