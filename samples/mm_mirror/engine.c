// SPDX-License-Identifier: GPL-2.0
/*
 * mirror_dma: a DMA engine in software, as an example of a client of mm_mirror.
 *
 * It copies memory of processes without pinning it.  To write another such driver,
 * read in this order:
 *
 *	space.c		an address space: getting its mirror, and touching a page of it
 *	copy.c		a copy: what is missing is faulted, without anybody waiting
 *	table.c		a translation table of the device's own, by a subscription
 *	engine.c	the character device; nothing here knows of mirrors
 *	witness.c	counts and knobs for tests, which a driver has no use for
 *
 * Life: an engine is an open file, and has spaces; a space has copies that use it.
 * Detaching a space, and closing the file, cancels its copies, waits for those that
 * are on a CPU, and for nothing else.
 */

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "engine.h"

/* ---- spaces by number ---- */

/* With a reference, or NULL. */
static struct dma_space *engine_space(struct dma_engine *engine, u32 nr)
{
	struct dma_space *space = NULL;

	if (nr >= MIRROR_DMA_SPACES)
		return NULL;
	spin_lock(&engine->lock);
	space = engine->spaces[nr];
	if (space)
		refcount_inc(&space->users);
	spin_unlock(&engine->lock);
	return space;
}

static int engine_add(struct dma_engine *engine, struct dma_space *space)
{
	int nr;

	spin_lock(&engine->lock);
	for (nr = 0; nr < MIRROR_DMA_SPACES && engine->spaces[nr]; nr++)
		;
	if (nr < MIRROR_DMA_SPACES)
		engine->spaces[nr] = space;
	spin_unlock(&engine->lock);
	return nr < MIRROR_DMA_SPACES ? nr : -ENOSPC;
}

/*
 * Nobody finds it any more; who has found it is told, and leaves.  What it was told
 * has been posted by then.
 */
static int engine_remove(struct dma_engine *engine, u32 nr)
{
	struct dma_space *space;

	if (nr >= MIRROR_DMA_SPACES)
		return -ENOENT;
	spin_lock(&engine->lock);
	space = engine->spaces[nr];
	engine->spaces[nr] = NULL;
	spin_unlock(&engine->lock);
	if (!space)
		return -ENOENT;

	/* pairs with the look of a copy that was told; queue_work() is a barrier */
	WRITE_ONCE(space->detached, true);
	copies_cancel(engine, space);
	space_put(space);
	wait_for_completion(&space->idle);
	space_destroy(space);
	return 0;
}

/* ---- what can be asked of it ---- */

static long engine_attach(struct dma_engine *engine, void __user *arg)
{
	struct mirror_dma_attach attach;
	struct dma_space *space;
	int nr;

	if (copy_from_user(&attach, arg, sizeof(attach)))
		return -EFAULT;
	space = space_create(&attach);
	if (IS_ERR(space))
		return PTR_ERR(space);
	nr = engine_add(engine, space);
	if (nr < 0) {
		space_destroy(space);
		return nr;
	}
	attach.space = nr;
	if (copy_to_user(arg, &attach, sizeof(attach))) {
		engine_remove(engine, nr);
		return -EFAULT;
	}
	return 0;
}

static long engine_detach(struct dma_engine *engine, void __user *arg)
{
	u32 nr;

	if (copy_from_user(&nr, arg, sizeof(nr)))
		return -EFAULT;
	return engine_remove(engine, nr);
}

static long engine_submit(struct dma_engine *engine, void __user *arg)
{
	struct mirror_dma_copy order;

	if (copy_from_user(&order, arg, sizeof(order)))
		return -EFAULT;
	return copy_submit(engine, &order);
}

static long engine_counts(struct dma_engine *engine, void __user *arg)
{
	struct mirror_dma_counts counts;
	struct dma_space *space;

	if (copy_from_user(&counts, arg, sizeof(counts)))
		return -EFAULT;
	space = engine_space(engine, counts.space);
	if (!space)
		return -ENOENT;
	witness_get_counts(space, &counts);
	space_put(space);
	return copy_to_user(arg, &counts, sizeof(counts)) ? -EFAULT : 0;
}

static long engine_set(struct dma_engine *engine, void __user *arg)
{
	struct mirror_dma_set set;
	struct dma_space *space;
	int err;

	if (copy_from_user(&set, arg, sizeof(set)))
		return -EFAULT;
	space = engine_space(engine, set.space);
	if (!space)
		return -ENOENT;
	err = witness_set(space, &set);
	space_put(space);
	return err;
}

static long engine_calls(struct dma_engine *engine, void __user *arg)
{
	struct mirror_dma_calls *calls;
	struct dma_space *space;
	long ret = -ENOENT;

	calls = memdup_user(arg, sizeof(*calls));
	if (IS_ERR(calls))
		return PTR_ERR(calls);
	space = engine_space(engine, calls->space);
	if (space) {
		witness_get_calls(space, calls);
		space_put(space);
		ret = copy_to_user(arg, calls, sizeof(*calls)) ? -EFAULT : 0;
	}
	kfree(calls);
	return ret;
}

static long engine_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dma_engine *engine = file->private_data;
	void __user *p = (void __user *)arg;

	switch (cmd) {
	case MIRROR_DMA_ATTACH:
		return engine_attach(engine, p);
	case MIRROR_DMA_DETACH:
		return engine_detach(engine, p);
	case MIRROR_DMA_SUBMIT:
		return engine_submit(engine, p);
	case MIRROR_DMA_COUNTS:
		return engine_counts(engine, p);
	case MIRROR_DMA_SET:
		return engine_set(engine, p);
	case MIRROR_DMA_CALLS:
		return engine_calls(engine, p);
	default:
		return -ENOTTY;
	}
}

/* ---- reading what is done ---- */

static bool engine_has_done(struct dma_engine *engine)
{
	bool ret;

	spin_lock(&engine->lock);
	ret = !list_empty(&engine->done);
	spin_unlock(&engine->lock);
	return ret;
}

/* A reader whose buffer is none loses what did not fit into it. */
static ssize_t engine_read(struct file *file, char __user *buf, size_t length,
			   loff_t *pos)
{
	struct dma_engine *engine = file->private_data;
	struct mirror_dma_done done;
	size_t n = 0;
	int err;

	if (length < sizeof(done))
		return -EINVAL;
	do {
		while (length - n >= sizeof(done) && copy_reap(engine, &done)) {
			if (copy_to_user(buf + n, &done, sizeof(done)))
				return n ?: -EFAULT;
			n += sizeof(done);
		}
		if (n)
			return n;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		err = wait_event_interruptible(engine->wait,
					       engine_has_done(engine));
	} while (!err);
	return err;
}

static __poll_t engine_poll(struct file *file, poll_table *wait)
{
	struct dma_engine *engine = file->private_data;

	poll_wait(file, &engine->wait, wait);
	return engine_has_done(engine) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* ---- life ---- */

static int engine_open(struct inode *inode, struct file *file)
{
	struct dma_engine *engine;

	engine = kzalloc(sizeof(*engine), GFP_KERNEL_ACCOUNT);
	if (!engine)
		return -ENOMEM;
	spin_lock_init(&engine->lock);
	INIT_LIST_HEAD(&engine->copies);
	INIT_LIST_HEAD(&engine->done);
	init_waitqueue_head(&engine->wait);
	file->private_data = engine;
	return nonseekable_open(inode, file);
}

/* A copy has a space, and ends before that: so none is left after the spaces. */
static int engine_release(struct inode *inode, struct file *file)
{
	struct dma_engine *engine = file->private_data;
	struct mirror_dma_done done;
	u32 nr;

	for (nr = 0; nr < MIRROR_DMA_SPACES; nr++)
		engine_remove(engine, nr);
	while (copy_reap(engine, &done))
		;
	WARN_ON_ONCE(engine->nr);
	kfree(engine);
	return 0;
}

static const struct file_operations engine_fops = {
	.owner		= THIS_MODULE,
	.open		= engine_open,
	.release	= engine_release,
	.unlocked_ioctl	= engine_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read		= engine_read,
	.poll		= engine_poll,
};

static struct miscdevice engine_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "mirror_dma",
	.fops	= &engine_fops,
};

static int __init mirror_dma_init(void)
{
	int err = copies_init();

	if (err)
		return err;
	err = misc_register(&engine_device);
	if (err)
		copies_exit();
	return err;
}

static void __exit mirror_dma_exit(void)
{
	misc_deregister(&engine_device);
	/* also: the last copy may still be on its way out of our text */
	copies_exit();
}

module_init(mirror_dma_init);
module_exit(mirror_dma_exit);
MODULE_DESCRIPTION("DMA engine in software, an example of a client of mm_mirror");
MODULE_AUTHOR("unpin maintainers");
MODULE_LICENSE("GPL");
