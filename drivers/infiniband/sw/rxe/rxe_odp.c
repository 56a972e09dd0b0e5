// SPDX-License-Identifier: GPL-2.0
/*
 * On-demand memory regions for rxe.
 *
 * An on-demand MR is a window on the mirror of its process (mm/core.c): a handle,
 * an address and a length.  Registering allocates nothing per page and looks at no
 * page; mr->umem stays NULL.
 *
 * Every access to an MR is made by one of a queue pair's two tasks, in a worker,
 * without locks.  It takes or fails, and what fails with -EAGAIN parks:
 *
 *	responder	the request stays at the head of req_pkts; what preparing it
 *			had changed is put back; no MR reference is kept, so that
 *			dereg does not wait
 *	requester	the WQE stays current; skb and AH are given back first
 *	completer	the response goes back to the head of resp_pkts
 *
 * Each of the three has a slot for the one fault that it waits for.  A task never
 * sleeps for a page: destroying a queue pair spins until its tasks are done, all
 * queue pairs share a workqueue, and a fault may take for ever.  Whoever ends a
 * queue pair detaches from its faults first.
 *
 * A fault asks for all of the message that is known, and needs only what the packet
 * at hand touches: like hardware, bytes before a hole move.  A page that cannot be
 * had is a remote access error for the peer's request, and a local protection error
 * for our own work request.
 *
 * Here are regions and accesses; rxe_odp_slot.c waits, rxe_odp_park.c parks,
 * rxe_odp_prefetch.c prefetches, rxe_odp_switch.c decides what is not asked for.
 */

#include <linux/mm_mirror.h>
#include <linux/overflow.h>
#include <linux/uaccess.h>
#include <rdma/uverbs_ioctl.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_odp_priv.h"

#define RXE_ODP_RC_CAPS	(IB_ODP_SUPPORT_SEND | IB_ODP_SUPPORT_RECV |	\
			 IB_ODP_SUPPORT_WRITE | IB_ODP_SUPPORT_READ |	\
			 IB_ODP_SUPPORT_ATOMIC | IB_ODP_SUPPORT_SRQ_RECV)
#define RXE_ODP_UD_CAPS	(IB_ODP_SUPPORT_SEND | IB_ODP_SUPPORT_RECV |	\
			 IB_ODP_SUPPORT_SRQ_RECV)

/* What is said here is tested; UC works too, but verbs has no word for it. */
void rxe_odp_init_caps(struct ib_device_attr *attr)
{
	attr->kernel_cap_flags |= IBK_ON_DEMAND_PAGING;
	attr->odp_caps.general_caps = IB_ODP_SUPPORT;
	attr->odp_caps.per_transport_caps.rc_odp_caps = RXE_ODP_RC_CAPS;
	attr->odp_caps.per_transport_caps.ud_odp_caps = RXE_ODP_UD_CAPS;
}

/* ---- memory regions ---- */

void rxe_odp_ucontext_init(struct rxe_ucontext *uc)
{
	mutex_init(&uc->odp.lock);
}

void rxe_odp_ucontext_exit(struct rxe_ucontext *uc)
{
	if (uc->odp.mirror)
		mm_mirror_put(uc->odp.mirror);
	mutex_destroy(&uc->odp.lock);
}

static struct mm_mirror *ucontext_mirror(struct rxe_odp_ucontext *odp)
{
	struct mm_mirror *mirror;

	lockdep_assert_held(&odp->lock);

	if (odp->mirror && mm_mirror_is_current(odp->mirror))
		return mm_mirror_ref(odp->mirror);
	mirror = mm_mirror_get();
	/* a child's, through an inherited file descriptor, is not kept */
	if (!IS_ERR(mirror) && !odp->mirror)
		odp->mirror = mm_mirror_ref(mirror);
	return mirror;
}

/* A kernel client, such as RDS, registers for the current process without udata. */
static struct mm_mirror *udata_mirror(struct ib_udata *udata)
{
	struct mm_mirror *mirror;
	struct rxe_ucontext *uc;

	if (!udata)
		return mm_mirror_get();
	uc = rdma_udata_to_drv_context(udata, struct rxe_ucontext, ibuc);
	mutex_lock(&uc->odp.lock);
	mirror = ucontext_mirror(&uc->odp);
	mutex_unlock(&uc->odp.lock);
	return mirror;
}

/* The one place where a registration's numbers are checked: -EINVAL, -EFAULT. */
int rxe_odp_check_range(u64 start, u64 length, u64 iova)
{
	u64 end;

	if (!length || check_add_overflow(start, length, &end) ||
	    check_add_overflow(iova, length, &end))
		return -EINVAL;
	return access_ok((void __user *)start, length) ? 0 : -EFAULT;
}

/* As ibv_reg_mr(pd, NULL, SIZE_MAX, ...) has them. */
static bool odp_range_is_implicit(u64 start, u64 length, u64 iova)
{
	return !start && length == U64_MAX && !iova;
}

/**
 * rxe_odp_mr_init - make an MR a window on the current process's mirror
 * @mr: the MR, not yet visible
 * @start: first address
 * @length: bytes, any
 * @iova: the address by which the MR will be used; any
 * @access: IB_ACCESS_*
 * @udata: of the verb, or NULL
 *
 * 0, U64_MAX and 0 are all of the process's memory: an implicit MR, which has to be
 * asked for (see rxe_odp_wanted()).
 *
 * Context: process context; may sleep. rxe_odp_mr_exit() undoes it.
 *
 * Return: 0; -EINVAL, -EFAULT for the range; errors of
 * rxe_odp_implicit_check() and mm_mirror_get(); -ENOMEM.
 */
int rxe_odp_mr_init(struct rxe_mr *mr, u64 start, u64 length, u64 iova,
		    int access, struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(mr->ibmr.device);
	struct mm_mirror_count *count;
	struct mm_mirror *mirror;
	int err;

	rxe_mr_init(access, mr);

	if (odp_range_is_implicit(start, length, iova))
		err = rxe_odp_implicit_check(access);
	else
		err = rxe_odp_check_range(start, length, iova);
	if (err)
		return err;
	mirror = udata_mirror(udata);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);

	/* pages are mapped without a tag; GUP takes it off too */
	start = untagged_addr(start);
	count = mm_mirror_count_begin(mirror, start, start + length - 1,
				      rxe->odp_count);
	if (!count) {
		mm_mirror_put(mirror);
		return -ENOMEM;
	}

	mr->odp.mirror = mirror;
	mm_mirror_prefetches_init(&mr->odp.prefetches);
	mr->odp.count = count;
	mr->odp.start = start;
	/* the core sets these too, but after the MR has become visible */
	mr->ibmr.iova = iova;
	mr->ibmr.length = length;
	mr->ibmr.type = IB_MR_TYPE_USER;
	mr->state = RXE_MR_STATE_VALID;
	return 0;
}

/*
 * Before dereg waits.  Nobody who is parked has a reference on the MR, but may wait
 * for its memory: let them look again and see that it is gone.
 */
void rxe_odp_mr_detach(struct rxe_mr *mr)
{
	struct rxe_dev *rxe = to_rdev(mr->ibmr.device);
	struct rxe_pool_elem *elem;
	unsigned long index;

	if (!mr->odp.mirror)
		return;
	WRITE_ONCE(mr->state, RXE_MR_STATE_INVALID);
	/* pairs with the barrier of slot_park() */
	smp_mb();
	if (!atomic_read(&rxe->odp_parked))
		return;
	/* a queue pair leaves the pool, under this lock, before it goes */
	xa_lock(&rxe->qp_pool.xa);
	xa_for_each(&rxe->qp_pool.xa, index, elem)
		rxe_odp_qp_kick(elem->obj);
	xa_unlock(&rxe->qp_pool.xa);
}

/* When the last reference is gone. */
void rxe_odp_mr_exit(struct rxe_mr *mr)
{
	if (!mr->odp.mirror)
		return;
	/* nobody can begin one any more: that takes a reference on the MR */
	mm_mirror_prefetch_cancel(&mr->odp.prefetches, mr->odp.mirror);
	mm_mirror_count_end(mr->odp.count);
	mm_mirror_put(mr->odp.mirror);
}

/* ---- access ---- */

/**
 * rxe_odp_mr_copy_to - write to an on-demand MR
 * @mr: the MR
 * @iova: first address; the range was checked
 * @from: kernel memory
 * @length: bytes
 * @slot: of the side that writes
 *
 * Context: the task of @slot; does not sleep.
 *
 * Return: 0, or -EAGAIN to park.
 */
int rxe_odp_mr_copy_to(struct rxe_mr *mr, u64 iova, const void *from,
		       unsigned int length, struct rxe_odp_slot *slot)
{
	return mm_mirror_copy_to(mr->odp.mirror, rxe_odp_addr(mr, iova), from,
				 length, rxe_odp_slot_grant(slot));
}

/**
 * rxe_odp_mr_copy_from - read from an on-demand MR
 * @mr: the MR
 * @iova: first address; the range was checked
 * @to: kernel memory
 * @length: bytes
 * @slot: of the side that reads
 *
 * Context: the task of @slot; does not sleep.
 *
 * Return: 0, -EAGAIN to park, -EIO for poisoned memory.
 */
int rxe_odp_mr_copy_from(struct rxe_mr *mr, u64 iova, void *to,
			 unsigned int length, struct rxe_odp_slot *slot)
{
	return mm_mirror_copy_from(mr->odp.mirror, rxe_odp_addr(mr, iova), to,
				   length, rxe_odp_slot_grant(slot));
}

/* The memory is the user's, and other queue pairs': the lock is for atomics only. */
static u64 atomic_op(u64 *va, int opcode, u64 compare, u64 swap_add)
{
	u64 value = READ_ONCE(*va);

	if (opcode != IB_OPCODE_RC_COMPARE_SWAP)
		WRITE_ONCE(*va, value + swap_add);
	else if (value == compare)
		WRITE_ONCE(*va, swap_add);
	return value;
}

/**
 * rxe_odp_mr_atomic_op - COMPARE_SWAP or FETCH_ADD on an on-demand MR
 * @mr: the MR
 * @iova: address; the range was checked
 * @opcode: IB_OPCODE_RC_COMPARE_SWAP or _FETCH_ADD
 * @compare: for COMPARE_SWAP
 * @swap_add: the operand
 * @orig_val: where to store what was there
 * @slot: the responder's
 *
 * Context: the task of @slot; does not sleep. The page is held inside the lock that
 * makes atomics atomic, because leaving that lock may run softirqs.
 *
 * Return: 0, -EAGAIN to park, or a RESPST_ERR_*.
 */
int rxe_odp_mr_atomic_op(struct rxe_mr *mr, u64 iova, int opcode, u64 compare,
			 u64 swap_add, u64 *orig_val, struct rxe_odp_slot *slot)
{
	unsigned long addr = rxe_odp_addr(mr, iova);
	struct mm_mirror_hold hold;
	int err;

	if (unlikely(addr & (sizeof(u64) - 1)))
		return RESPST_ERR_MISALIGNED_ATOMIC;

	spin_lock_bh(&atomic_ops_lock);
	err = mm_mirror_take(mr->odp.mirror, addr, true,
			     rxe_odp_slot_grant(slot), &hold);
	if (!err) {
		*orig_val = atomic_op(hold.addr, opcode, compare, swap_add);
		mm_mirror_drop(&hold);
	}
	spin_unlock_bh(&atomic_ops_lock);
	return err;
}

/**
 * rxe_odp_mr_atomic_write - ATOMIC WRITE to an on-demand MR (IBA A19.4.2)
 * @mr: the MR
 * @iova: address; the range was checked
 * @value: 8 bytes
 * @slot: the responder's
 *
 * Context: the task of @slot; does not sleep.
 *
 * Return: 0, -EAGAIN to park, or a RESPST_ERR_*.
 */
int rxe_odp_mr_atomic_write(struct rxe_mr *mr, u64 iova, u64 value,
			    struct rxe_odp_slot *slot)
{
	unsigned long addr = rxe_odp_addr(mr, iova);
	struct mm_mirror_hold hold;
	int err;

	if (unlikely(addr & (sizeof(u64) - 1)))
		return RESPST_ERR_MISALIGNED_ATOMIC;

	err = mm_mirror_take(mr->odp.mirror, addr, true,
			     rxe_odp_slot_grant(slot), &hold);
	if (err)
		return err;
	/* after all prior operations have completed */
	smp_store_release((u64 *)hold.addr, value);
	mm_mirror_drop(&hold);
	return 0;
}
