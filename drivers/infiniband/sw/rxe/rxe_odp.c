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
 */

#include <linux/mm_mirror.h>
#include <linux/overflow.h>
#include <linux/uaccess.h>
#include <rdma/uverbs_ioctl.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_queue.h"

/* An access that has lost its page so often asks for a grant. */
#define RXE_ODP_LOSSES		4

#define RXE_ACCESS_FLUSH	(IB_ACCESS_FLUSH_GLOBAL | IB_ACCESS_FLUSH_PERSISTENT)

/* Tries of an access that has nothing to wait for, and still fails. */
#define RXE_ODP_RETRIES		1000

/* How far ahead of a SEND, whose length is not known, its receive buffer is faulted. */
#define RXE_ODP_RECV_AHEAD	SZ_64K

/* Packets kept for a parked queue pair: what a well-behaved peer has in flight. */
#define RXE_ODP_BACKLOG		(2 * RXE_MAX_UNACKED_PSNS)

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

/* The one place where a registration's numbers are checked. */
static int odp_check_range(u64 start, u64 length, u64 iova)
{
	u64 end;

	if (!length || check_add_overflow(start, length, &end) ||
	    check_add_overflow(iova, length, &end))
		return -EINVAL;
	return access_ok((void __user *)start, length) ? 0 : -EFAULT;
}

/**
 * rxe_odp_mr_init - make an MR a window on the current process's mirror
 * @mr: the MR, not yet visible
 * @start: first address
 * @length: bytes, any
 * @iova: the address by which the MR will be used; any
 * @access: IB_ACCESS_*, with IB_ACCESS_ON_DEMAND
 * @udata: of the verb, or NULL
 *
 * Context: process context; may sleep. rxe_odp_mr_exit() undoes it.
 *
 * Return: 0; -EINVAL, -EFAULT for the range; -EOPNOTSUPP for FLUSH, whose
 * persistence is a promise about pages that are not there yet; errors of
 * mm_mirror_get().
 */
int rxe_odp_mr_init(struct rxe_mr *mr, u64 start, u64 length, u64 iova,
		    int access, struct ib_udata *udata)
{
	struct mm_mirror *mirror;
	int err;

	rxe_mr_init(access, mr);

	err = odp_check_range(start, length, iova);
	if (err)
		return err;
	if (access & RXE_ACCESS_FLUSH)
		return -EOPNOTSUPP;
	mirror = udata_mirror(udata);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);

	mr->odp.mirror = mirror;
	mr->odp.start = start;
	/* the core sets these too, but after the MR has become visible */
	mr->ibmr.iova = iova;
	mr->ibmr.length = length;
	mr->ibmr.type = IB_MR_TYPE_USER;
	mr->state = RXE_MR_STATE_VALID;
	return 0;
}

/* An MR does not become on-demand, or cease to be, by changing its access. */
int rxe_odp_mr_check_rereg(struct rxe_mr *mr, int flags, int access)
{
	if (!(flags & IB_MR_REREG_ACCESS))
		return 0;
	if (!!mr->odp.mirror != !!(access & IB_ACCESS_ON_DEMAND))
		return -EOPNOTSUPP;
	if (mr->odp.mirror && (access & RXE_ACCESS_FLUSH))
		return -EOPNOTSUPP;
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
	if (mr->odp.mirror)
		mm_mirror_put(mr->odp.mirror);
}

/* ---- access ---- */

static unsigned long odp_addr(const struct rxe_mr *mr, u64 iova)
{
	return mr->odp.start + (iova - mr->ibmr.iova);
}

/* The part of [@iova, @iova + @length) that is in the MR; @iova is. */
static u64 odp_clamp(const struct rxe_mr *mr, u64 iova, u64 length)
{
	return min(length, mr->ibmr.length - (iova - mr->ibmr.iova));
}

/* A fault that is done may have pages for us; one that runs is not to be touched. */
static struct mm_mirror_fault *slot_grant(struct rxe_odp_slot *slot)
{
	struct mm_mirror_fault *fault = slot->fault;

	if (likely(!fault) || mm_mirror_fault_status(fault))
		return NULL;
	return fault;
}

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
	return mm_mirror_copy_to(mr->odp.mirror, odp_addr(mr, iova), from,
				 length, slot_grant(slot));
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
	return mm_mirror_copy_from(mr->odp.mirror, odp_addr(mr, iova), to,
				   length, slot_grant(slot));
}

static u64 atomic_op(u64 *va, int opcode, u64 compare, u64 swap_add)
{
	u64 value = *va;

	if (opcode != IB_OPCODE_RC_COMPARE_SWAP)
		*va = value + swap_add;
	else if (value == compare)
		*va = swap_add;
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
	unsigned long addr = odp_addr(mr, iova);
	struct mm_mirror_hold hold;
	int err;

	if (unlikely(addr & (sizeof(u64) - 1)))
		return RESPST_ERR_MISALIGNED_ATOMIC;

	spin_lock_bh(&atomic_ops_lock);
	err = mm_mirror_take(mr->odp.mirror, addr, true, slot_grant(slot), &hold);
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
	unsigned long addr = odp_addr(mr, iova);
	struct mm_mirror_hold hold;
	int err;

	if (unlikely(addr & (sizeof(u64) - 1)))
		return RESPST_ERR_MISALIGNED_ATOMIC;

	err = mm_mirror_take(mr->odp.mirror, addr, true, slot_grant(slot), &hold);
	if (err)
		return err;
	/* after all prior operations have completed */
	smp_store_release((u64 *)hold.addr, value);
	mm_mirror_drop(&hold);
	return 0;
}

/* ---- slots ---- */

static void slot_init(struct rxe_odp_slot *slot, struct rxe_qp *qp,
		      struct rxe_task *task)
{
	slot->qp = qp;
	slot->task = task;
}

/* By the slot's task, or when no task runs. */
void rxe_odp_slot_release(struct rxe_odp_slot *slot)
{
	struct rxe_qp *qp = slot->qp;
	struct mm_mirror_fault *fault = slot->fault;

	slot->losses = 0;
	slot->retries = 0;
	if (!fault)
		return;
	spin_lock_irq(&qp->odp.lock);
	slot->fault = NULL;
	spin_unlock_irq(&qp->odp.lock);
	atomic_dec(&to_rdev(qp->ibqp.device)->odp_parked);
	mm_mirror_fault_put(fault);
}

/* From the fault's worker, under a spinlock: after a detach it does not run. */
static void slot_wake(struct mm_mirror_fault *fault, void *data)
{
	struct rxe_odp_slot *slot = data;

	rxe_sched_task(slot->task);
}

/* What waits at the queue pair's head has references on it: drop it all. */
static void qp_drain(struct rxe_qp *qp)
{
	unsigned long flags;

	spin_lock_irqsave(&qp->state_lock, flags);
	qp->valid = 0;
	spin_unlock_irqrestore(&qp->state_lock, flags);
	rxe_sched_task(&qp->recv_task);
	rxe_sched_task(&qp->send_task);
}

static void slot_detach(struct rxe_odp_slot *slot)
{
	lockdep_assert_held(&slot->qp->odp.lock);

	if (slot->fault)
		mm_mirror_fault_detach(slot->fault);
}

static void slot_park(struct rxe_odp_slot *slot, struct mm_mirror_fault *fault,
		      const struct rxe_mr *mr)
{
	struct rxe_qp *qp = slot->qp;
	bool dead;

	atomic_inc(&to_rdev(qp->ibqp.device)->odp_parked);
	spin_lock_irq(&qp->odp.lock);
	slot->fault = fault;
	dead = qp->odp.dead;
	if (dead)
		slot_detach(slot);
	spin_unlock_irq(&qp->odp.lock);

	/* whoever destroys may have looked before: it waits for what we keep */
	if (dead)
		qp_drain(qp);
	/* and so may rxe_odp_mr_detach(), with whose barrier this one pairs */
	smp_mb();
	if (READ_ONCE(mr->state) != RXE_MR_STATE_VALID)
		rxe_sched_task(slot->task);
}

/**
 * struct want - what an access waits for
 * @mr: whose mirror's memory; the caller has a reference
 * @write: the access writes
 * @nr: of @range
 * @range: which memory
 */
struct want {
	struct rxe_mr		*mr;
	bool			write;
	unsigned int		nr;
	struct mm_mirror_range	range[MM_MIRROR_FAULT_RANGES];
};

/*
 * An earlier fault for the same access: 0 if there is none, or it is done and the
 * page was lost again; -EINPROGRESS, or what was wrong with it.
 */
static int slot_look(struct rxe_odp_slot *slot, unsigned long key)
{
	unsigned int losses = slot->losses;
	int status;

	if (!slot->fault)
		return 0;
	status = mm_mirror_fault_status(slot->fault);
	if (slot->key != key) {
		/* for an access that has since succeeded, or gone */
		rxe_odp_slot_release(slot);
		return 0;
	}
	if (status == -EINPROGRESS)
		return status;
	rxe_odp_slot_release(slot);
	if (!status)
		slot->losses = losses + 1;
	return status;
}

/*
 * There is nothing to wait for: the page has come meanwhile, its MR has gone, or
 * memory is short.  The access will see; but not for ever, if the user keeps changing
 * the list under it.
 */
static int slot_retry(struct rxe_odp_slot *slot)
{
	if (slot->retries++ == RXE_ODP_RETRIES) {
		slot->retries = 0;
		return -EFAULT;
	}
	cond_resched();
	if (READ_ONCE(slot->qp->odp.dead))
		qp_drain(slot->qp);
	else
		rxe_sched_task(slot->task);
	return -EINPROGRESS;
}

static struct mm_mirror_fault *slot_fault(struct rxe_odp_slot *slot,
					  const struct want *want)
{
	if (slot->losses < RXE_ODP_LOSSES)
		return mm_mirror_fault(want->mr->odp.mirror, want->range,
				       want->nr, want->write, slot_wake, slot);
	return mm_mirror_fault_granted(want->mr->odp.mirror, want->range,
				       want->nr, want->write, slot_wake, slot);
}

/*
 * Returns -EINPROGRESS if the slot's task is to end, and will be scheduled; else an
 * error: the memory cannot be had.
 */
static int slot_wait(struct rxe_odp_slot *slot, const struct want *want)
{
	struct mm_mirror_fault *fault;
	int err;

	err = slot_look(slot, want->range[0].start);
	if (err)
		return err;

	slot->key = want->range[0].start;
	fault = slot_fault(slot, want);
	if (fault == ERR_PTR(-ENOMEM))
		return slot_retry(slot);
	if (IS_ERR(fault))
		return PTR_ERR(fault);
	slot->retries = 0;
	slot_park(slot, fault, want->mr);
	return -EINPROGRESS;
}

/* ---- queue pairs ---- */

void rxe_odp_qp_init(struct rxe_qp *qp)
{
	spin_lock_init(&qp->odp.lock);
	slot_init(&qp->odp.recv, qp, &qp->recv_task);
	slot_init(&qp->odp.req, qp, &qp->send_task);
	slot_init(&qp->odp.comp, qp, &qp->send_task);
}

static void qp_detach_locked(struct rxe_qp *qp)
{
	slot_detach(&qp->odp.recv);
	slot_detach(&qp->odp.req);
	slot_detach(&qp->odp.comp);
}

/* The queue pair goes to the error state: its tasks will flush. Any context. */
void rxe_odp_qp_detach(struct rxe_qp *qp)
{
	unsigned long flags;

	spin_lock_irqsave(&qp->odp.lock, flags);
	qp_detach_locked(qp);
	spin_unlock_irqrestore(&qp->odp.lock, flags);
}

static bool qp_is_parked(struct rxe_qp *qp)
{
	return qp->odp.recv.fault || qp->odp.req.fault || qp->odp.comp.fault;
}

/* Neither task runs, or ever will before this returns. May sleep. */
void rxe_odp_qp_release(struct rxe_qp *qp)
{
	/* a queue pair whose creation failed early has no slots */
	if (!qp->odp.recv.qp)
		return;
	rxe_odp_slot_release(&qp->odp.recv);
	rxe_odp_slot_release(&qp->odp.req);
	rxe_odp_slot_release(&qp->odp.comp);
	qp->odp.kept_wqe = false;
	qp->odp.slow = false;
	qp->odp.rnr_nak = false;
}

/*
 * Before destroy waits for references: the packets that a parked queue pair keeps
 * have some.  A task that is about to park sees @dead, and drains by itself.
 */
void rxe_odp_qp_destroy(struct rxe_qp *qp)
{
	bool parked;

	spin_lock_irq(&qp->odp.lock);
	qp->odp.dead = true;
	parked = qp_is_parked(qp);
	qp_detach_locked(qp);
	spin_unlock_irq(&qp->odp.lock);
	if (parked)
		qp_drain(qp);
}

/* Let what is parked look again. Any context; the caller keeps the queue pair. */
void rxe_odp_qp_kick(struct rxe_qp *qp)
{
	if (READ_ONCE(qp->odp.recv.fault))
		rxe_sched_task(&qp->recv_task);
	if (READ_ONCE(qp->odp.req.fault) || READ_ONCE(qp->odp.comp.fault))
		rxe_sched_task(&qp->send_task);
}

/*
 * Is it us whom an acknowledgement waits for?  A peer cannot have acknowledged a
 * message that a parked requester has not sent all of.  If there is an older one, the
 * retransmit timer is that one's.
 */
bool rxe_odp_owes_ack(struct rxe_qp *qp)
{
	struct rxe_send_wqe *wqe;

	if (!rxe_odp_is_parked(&qp->odp.req))
		return false;
	wqe = queue_head(qp->sq.queue, QUEUE_TYPE_FROM_CLIENT);
	return wqe && (wqe->state == wqe_state_posted ||
		       wqe->state == wqe_state_processing);
}

/* ---- parking ---- */

static void drop_packet(struct rxe_qp *qp, struct sk_buff *skb)
{
	kfree_skb(skb);
	rxe_put(qp);
	ib_device_put(qp->ibqp.device);
}

/**
 * rxe_odp_disown - let packets wait that may have to wait for ever
 * @qp: a queue pair that parks
 * @queue: its req_pkts or resp_pkts
 *
 * A packet that was looped back is charged to the queue pair that sent it, and keeps
 * that from being destroyed: take the charge off.  A peer may send on and on, whatever
 * we acknowledge: drop what is too much, as a network does.  A packet that comes
 * after this schedules the task, which parks again, and so comes here again.
 *
 * Context: the task that consumes @queue.
 */
void rxe_odp_disown(struct rxe_qp *qp, struct sk_buff_head *queue)
{
	struct sk_buff_head list;
	struct sk_buff *skb;

	__skb_queue_head_init(&list);
	spin_lock_irq(&queue->lock);
	skb_queue_splice_tail_init(queue, &list);
	spin_unlock_irq(&queue->lock);

	while (skb_queue_len(&list) > RXE_ODP_BACKLOG)
		drop_packet(qp, __skb_dequeue_tail(&list));
	skb_queue_walk(&list, skb)
		skb_orphan(skb);

	spin_lock_irq(&queue->lock);
	skb_queue_splice(&list, queue);
	spin_unlock_irq(&queue->lock);
}

/* ---- parking: the responder ---- */

/*
 * Nothing of the packet at the head has happened but that its receive WQE, if any,
 * is in qp->resp.wqe.  One from the queue pair's own queue is fetched anew; one from
 * an SRQ has been consumed there.
 */

bool rxe_odp_take_kept_wqe(struct rxe_qp *qp)
{
	bool kept = qp->odp.kept_wqe;

	qp->odp.kept_wqe = false;
	return kept;
}

/*
 * Does the peer send the packet at the head again and again?  Then it will give up.
 * Not yet at the first time: to some an RNR NAK is worse than a lost packet.
 */
static bool resp_is_retried(struct rxe_qp *qp, const struct rxe_pkt_info *pkt)
{
	unsigned int copies = 0;
	struct sk_buff *skb;

	spin_lock_irq(&qp->req_pkts.lock);
	skb_queue_walk(&qp->req_pkts, skb) {
		if (SKB_TO_PKT(skb)->psn == pkt->psn)
			copies++;
	}
	spin_unlock_irq(&qp->req_pkts.lock);
	return copies > 2;
}

/* What follows the packet that is refused will come again with it. */
static void resp_drop_rest(struct rxe_qp *qp)
{
	struct sk_buff_head list;
	struct sk_buff *skb;

	__skb_queue_head_init(&list);
	spin_lock_irq(&qp->req_pkts.lock);
	while (skb_queue_len(&qp->req_pkts) > 1)
		__skb_queue_head(&list, __skb_dequeue_tail(&qp->req_pkts));
	spin_unlock_irq(&qp->req_pkts.lock);

	while ((skb = __skb_dequeue(&list)))
		drop_packet(qp, skb);
}

/*
 * @fresh: the peer may be told to send all of the request again: it is the first
 * packet of it, and nothing has been answered.  That is done when it retransmits
 * anyway, and then at once each time, until the page is there; the fault stays.
 */
static int resp_parked(struct rxe_qp *qp, struct rxe_pkt_info *pkt, bool fresh)
{
	qp->odp.psn = pkt->psn;
	if (qp->srq && (pkt->mask & RXE_RWR_MASK))
		qp->odp.kept_wqe = true;

	if (fresh && qp_type(qp) == IB_QPT_RC && qp->odp.recv.fault &&
	    (qp->odp.slow || resp_is_retried(qp, pkt))) {
		resp_drop_rest(qp);
		qp->odp.slow = true;
		qp->odp.rnr_nak = true;
		return RESPST_ERR_RNR;
	}
	rxe_odp_disown(qp, &qp->req_pkts);
	return RESPST_EXIT;
}

/*
 * A packet leaves the head.  If it is the one that was waited for, it has been
 * executed, or been refused for now; others come and go in between, out of sequence.
 */
void rxe_odp_resp_done(struct rxe_qp *qp, const struct rxe_pkt_info *pkt)
{
	qp->odp.recv.retries = 0;
	if (likely(!rxe_odp_is_parked(&qp->odp.recv)))
		return;
	if (qp->odp.rnr_nak) {
		qp->odp.rnr_nak = false;
		return;
	}
	if (pkt && pkt->psn != qp->odp.psn)
		return;
	qp->odp.slow = false;
	rxe_odp_slot_release(&qp->odp.recv);
}

/* A page that takes longer than the peer's timeout takes longer than most timers. */
unsigned int rxe_odp_rnr_timer(const struct rxe_qp *qp)
{
	unsigned int timer = qp->attr.min_rnr_timer;

	/* IB_RNR_TIMER_655_36 is 0, and the longest */
	if (unlikely(qp->odp.rnr_nak) && timer)
		return max_t(unsigned int, timer, IB_RNR_TIMER_020_48);
	return timer;
}

static int park_rdma(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
		     struct rxe_mr *mr, u64 iova, unsigned int need,
		     unsigned int length, bool write, bool fresh)
{
	struct want want = {
		.mr = mr,
		.write = write,
		.nr = 1,
		.range[0] = {
			.start = odp_addr(mr, iova),
			.length = odp_clamp(mr, iova, length),
			.need = need,
		},
	};
	int err = slot_wait(&qp->odp.recv, &want);

	/* no MR reference while parked */
	if (qp->resp.mr)
		rxe_put(qp->resp.mr);
	qp->resp.mr = NULL;

	return err == -EINPROGRESS ? resp_parked(qp, pkt, fresh) :
				     RESPST_ERR_RKEY_VIOLATION;
}

/**
 * rxe_odp_park_write - park a responder that has no memory for an RDMA WRITE
 * @qp: the queue pair
 * @pkt: the request at its head
 *
 * Context: recv_task.
 *
 * Return: RESPST_EXIT or RESPST_ERR_RNR if parked, else RESPST_ERR_RKEY_VIOLATION.
 */
int rxe_odp_park_write(struct rxe_qp *qp, struct rxe_pkt_info *pkt)
{
	return park_rdma(qp, pkt, qp->resp.mr, qp->resp.va + qp->resp.offset,
			 payload_size(pkt), qp->resp.resid, true,
			 pkt->mask & RXE_START_MASK);
}

/*
 * The responder resource that was prepared goes back: a retried request must not be
 * answered as the repetition of one that was never executed.
 */
static void resp_unprepare_res(struct rxe_qp *qp)
{
	free_rd_atomic_resource(qp->resp.res);
	qp->resp.res = NULL;
	if (!qp->resp.res_head)
		qp->resp.res_head = qp->attr.max_dest_rd_atomic;
	qp->resp.res_head--;
}

/**
 * rxe_odp_park_read - park a responder that has no memory for an RDMA READ
 * @qp: the queue pair
 * @pkt: the request at its head
 * @mr: the MR; the caller has a reference
 * @need: payload of the response at hand
 *
 * Before the first response the request goes back to where it has not been looked
 * at; later it goes on where it is.
 *
 * Context: recv_task.
 *
 * Return: RESPST_EXIT or RESPST_ERR_RNR if parked, else RESPST_ERR_RKEY_VIOLATION.
 */
int rxe_odp_park_read(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
		      struct rxe_mr *mr, unsigned int need)
{
	struct resp_res *res = qp->resp.res;
	bool fresh = res->state == rdatm_res_state_new && !res->replay;
	u64 iova = res->read.va;
	u32 length = res->read.resid;

	if (fresh) {
		/* counted when the read was recognised, see C9-148 */
		qp->resp.msn--;
		resp_unprepare_res(qp);
	}
	return park_rdma(qp, pkt, mr, iova, need, length, false, fresh);
}

/**
 * rxe_odp_park_atomic - park a responder that has no memory for an atomic
 * @qp: the queue pair
 * @pkt: the request at its head
 * @mr: the MR
 * @iova: of the 8 bytes
 *
 * Context: recv_task.
 *
 * Return: RESPST_EXIT or RESPST_ERR_RNR if parked, else RESPST_ERR_RKEY_VIOLATION.
 */
int rxe_odp_park_atomic(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
			struct rxe_mr *mr, u64 iova)
{
	resp_unprepare_res(qp);
	return park_rdma(qp, pkt, mr, iova, sizeof(u64), sizeof(u64), true,
			 true);
}

/* ---- parking: scatter/gather lists ---- */

/**
 * struct sge_walk - the pieces of a list that the next @need + @ahead bytes are in
 * @sge: the list, which the user may be changing
 * @nr: of pieces, bounded
 * @i: index of the next piece
 * @offset: where in it
 * @need: bytes left that the packet at hand needs
 * @ahead: bytes left that may be wanted after it
 */
struct sge_walk {
	const struct rxe_sge	*sge;
	unsigned int		nr;
	unsigned int		i;
	unsigned int		offset;
	unsigned int		need;
	unsigned int		ahead;
};

static bool sge_walk_next(struct sge_walk *walk, struct rxe_sge *sge,
			  struct mm_mirror_range *range)
{
	unsigned int left = 0;

	for (; walk->i < walk->nr && !left; walk->i++, walk->offset = 0) {
		*sge = walk->sge[walk->i];
		if (sge->length <= walk->offset)
			continue;
		left = sge->length - walk->offset;
		sge->addr += walk->offset;
	}
	if (!left || !(walk->need || walk->ahead))
		return false;

	range->need = min(left, walk->need);
	range->length = range->need + min_t(unsigned int, left - range->need,
					    walk->ahead);
	walk->need -= range->need;
	walk->ahead -= range->length - range->need;
	return true;
}

/*
 * Adds a piece that is of the same mirror; the first one missing comes first.  What
 * the packet needs of it lies in the MR, or the access would have said so.
 */
static void want_add(struct want *want, struct rxe_mr *mr, u64 iova,
		     struct mm_mirror_range *range)
{
	range->start = odp_addr(mr, iova);
	range->length = odp_clamp(mr, iova, range->length);
	if (!want->mr) {
		if (!range->need ||
		    mm_mirror_resident(mr->odp.mirror, range->start, range->need,
				       want->write, NULL))
			return;
		rxe_get(mr);
		want->mr = mr;
	}
	if (want->mr->odp.mirror == mr->odp.mirror &&
	    want->nr < ARRAY_SIZE(want->range))
		want->range[want->nr++] = *range;
}

/*
 * Which memory of a list is to be faulted.  Pieces of pinned MRs need nothing, and
 * those of another process's mirror have their turn when this one's are there.
 */
static void want_dma(struct want *want, struct rxe_qp *qp, int access,
		     struct sge_walk *walk)
{
	struct mm_mirror_range range;
	struct rxe_sge sge;
	struct rxe_mr *mr;

	while (sge_walk_next(walk, &sge, &range)) {
		mr = lookup_mr(qp->pd, access, sge.lkey, RXE_LOOKUP_LOCAL);
		if (!mr)
			return;
		if (mr->odp.mirror && !mr_check_range(mr, sge.addr, range.need))
			want_add(want, mr, sge.addr, &range);
		rxe_put(mr);
	}
}

/*
 * @max_sge: what the list has room for. The user's numbers in it may be anything, and
 * other ones at each look.
 */
static int slot_wait_dma(struct rxe_odp_slot *slot, int access,
			 const struct rxe_dma_info *dma, unsigned int max_sge,
			 unsigned int need, unsigned int ahead)
{
	struct want want = { .write = access & IB_ACCESS_LOCAL_WRITE };
	struct sge_walk walk = {
		.sge = dma->sge,
		.nr = min(READ_ONCE(dma->num_sge), max_sge),
		.i = READ_ONCE(dma->cur_sge),
		.offset = READ_ONCE(dma->sge_offset),
		.need = need,
		.ahead = ahead,
	};
	int err;

	want_dma(&want, slot->qp, access, &walk);
	if (!want.mr)
		return slot_retry(slot);
	err = slot_wait(slot, &want);
	rxe_put(want.mr);
	return err;
}

static void dma_rewind(struct rxe_dma_info *dma)
{
	dma->resid = dma->length;
	dma->cur_sge = 0;
	dma->sge_offset = 0;
}

/**
 * rxe_odp_park_recv - park a responder that has no memory for a SEND
 * @qp: the queue pair
 * @pkt: the request at its head
 *
 * Memory that cannot be had is a class A error: a local protection error here, and
 * a remote operational error there.
 *
 * Context: recv_task.
 *
 * Return: RESPST_EXIT or RESPST_ERR_RNR if parked, else RESPST_COMPLETE with that
 * error.
 */
int rxe_odp_park_recv(struct rxe_qp *qp, struct rxe_pkt_info *pkt)
{
	struct rxe_dma_info *dma = &qp->resp.wqe->dma;
	unsigned int need = payload_size(pkt);
	unsigned int ahead;
	int err;

	if (qp_type(qp) != IB_QPT_RC && qp_type(qp) != IB_QPT_UC) {
		/* the GRH, of one packet only, may already be there: all anew */
		dma_rewind(dma);
		need += sizeof(union rdma_network_hdr);
	}
	need = min(need, dma->resid);
	ahead = pkt->mask & RXE_END_MASK ? 0 :
		min_t(unsigned int, dma->resid - need, RXE_ODP_RECV_AHEAD);

	err = slot_wait_dma(&qp->odp.recv, IB_ACCESS_LOCAL_WRITE, dma,
			    RXE_MAX_SGE, need, ahead);
	if (err == -EINPROGRESS)
		return resp_parked(qp, pkt, pkt->mask & RXE_START_MASK);

	qp->resp.aeth_syndrome = AETH_NAK_REM_OP_ERR;
	qp->resp.status = IB_WC_LOC_PROT_ERR;
	qp->resp.goto_error = 1;
	return RESPST_COMPLETE;
}

/* ---- parking: requester and completer ---- */

/**
 * rxe_odp_park_send - park a requester that has no memory for its next packet
 * @qp: the queue pair
 * @wqe: the send WQE, which stays current
 * @need: payload of the packet
 *
 * Context: send_task, without skb and AH.
 *
 * Return: -EINPROGRESS if parked, else another error.
 */
int rxe_odp_park_send(struct rxe_qp *qp, struct rxe_send_wqe *wqe,
		      unsigned int need)
{
	u32 resid = READ_ONCE(wqe->dma.resid);

	return slot_wait_dma(&qp->odp.req, 0, &wqe->dma, qp->sq.max_sge, need,
			     resid > need ? resid - need : 0);
}

/**
 * rxe_odp_park_response - park a completer that has no memory for a response
 * @qp: the queue pair
 * @wqe: the send WQE that it answers
 * @need: bytes of the response
 *
 * Context: send_task; the caller puts the packet back to the head of resp_pkts.
 *
 * Return: -EINPROGRESS if parked, else another error.
 */
int rxe_odp_park_response(struct rxe_qp *qp, struct rxe_send_wqe *wqe,
			  unsigned int need)
{
	u32 resid = READ_ONCE(wqe->dma.resid);

	need = min(need, resid);
	return slot_wait_dma(&qp->odp.comp, IB_ACCESS_LOCAL_WRITE, &wqe->dma,
			     qp->sq.max_sge, need, resid - need);
}
