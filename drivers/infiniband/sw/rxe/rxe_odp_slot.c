// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting for faults: each side of a queue pair has a slot for the one that it is
 * parked with.  The side's task sets and clears it; whoever ends the queue pair, or
 * the MR, only detaches from it or lets the task look again.
 */

#include <linux/mm_mirror.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_odp_priv.h"
#include "rxe_queue.h"

/* An access that has lost its page so often asks for a grant. */
#define RXE_ODP_LOSSES		4

/* Tries of what has nothing to wait for, and still fails. */
#define RXE_ODP_RETRIES		1000

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

	/* not from the callback, nor under a lock of ours */
	lockdep_assert_irqs_enabled();

	slot->losses = 0;
	slot->retries = 0;
	slot->no_memory = false;
	if (!fault)
		return;
	spin_lock_irq(&qp->odp.lock);
	WRITE_ONCE(slot->fault, NULL);
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
	WRITE_ONCE(slot->fault, fault);
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

/*
 * An earlier fault for the same access: 0 if there is none, or it is done and the
 * page was lost again; -EINPROGRESS, or what was wrong with it.
 */
static int slot_look(struct rxe_odp_slot *slot, unsigned long key)
{
	unsigned int losses = slot->losses;
	int status;

	if (slot->key != key) {
		/* for an access that has since succeeded, or gone */
		rxe_odp_slot_release(slot);
		return 0;
	}
	if (!slot->fault)
		return 0;
	status = mm_mirror_fault_status(slot->fault);
	if (status == -EINPROGRESS)
		return status;
	rxe_odp_slot_release(slot);
	if (!status)
		slot->losses = losses + 1;
	return status;
}

/* A fault that is done may have pages for us; one that runs is not to be touched. */
struct mm_mirror_fault *rxe_odp_slot_grant(struct rxe_odp_slot *slot)
{
	struct mm_mirror_fault *fault = slot->fault;

	if (likely(!fault) || mm_mirror_fault_status(fault))
		return NULL;
	return fault;
}

static int slot_again(struct rxe_odp_slot *slot)
{
	if (READ_ONCE(slot->qp->odp.dead))
		qp_drain(slot->qp);
	else
		rxe_sched_task(slot->task);
	return -EINPROGRESS;
}

/*
 * There is nothing to wait for: the page has come meanwhile, or its MR has gone.  The
 * access will see; but not for ever, if the user keeps changing the list under it.
 */
int rxe_odp_slot_retry(struct rxe_odp_slot *slot)
{
	if (slot->retries++ == RXE_ODP_RETRIES) {
		slot->retries = 0;
		return -EFAULT;
	}
	cond_resched();
	return slot_again(slot);
}

/*
 * Memory is short, which is no access error, for however long it is: the slot counts
 * as parked, so that a peer that retransmits is told to wait.  An allocation that
 * succeeds may take much longer than this.
 */
static int slot_no_memory(struct rxe_odp_slot *slot)
{
	schedule_timeout_uninterruptible(1);
	return slot_again(slot);
}

/**
 * rxe_odp_wait_for_packet - there is no memory for a packet of a requester
 * @qp: the queue pair
 *
 * Packets come from a reserve, which is empty at times where regions are larger than
 * memory.  But it may be something else that does not pass, such as an address that
 * the device has no more: so it is some seconds, not for ever.
 *
 * Context: the send task, without a packet or an address handle; sleeps a jiffy.
 *
 * Return: true if the task is to end, and will be scheduled; false to give up.
 */
bool rxe_odp_wait_for_packet(struct rxe_qp *qp)
{
	struct rxe_odp_slot *slot = &qp->odp.req;

	/* the packet that is sent in the end sets it to 0, see rxe_odp_done() */
	if (slot->retries++ == RXE_ODP_RETRIES) {
		slot->retries = 0;
		return false;
	}
	slot_no_memory(slot);
	return true;
}

static struct mm_mirror_fault *slot_fault(struct rxe_odp_slot *slot,
					  const struct rxe_odp_want *want)
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
int rxe_odp_slot_wait(struct rxe_odp_slot *slot, const struct rxe_odp_want *want)
{
	struct mm_mirror_fault *fault;
	int err;

	err = slot_look(slot, want->range[0].start);
	if (err)
		return err;

	slot->key = want->range[0].start;
	fault = slot_fault(slot, want);
	slot->no_memory = fault == ERR_PTR(-ENOMEM);
	if (slot->no_memory)
		return slot_no_memory(slot);
	if (IS_ERR(fault))
		return PTR_ERR(fault);
	slot->retries = 0;
	mm_mirror_delay_park();
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
	lockdep_assert_held(&qp->odp.lock);

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
	qp->odp.flush = (struct rxe_odp_flush) {};
}

/*
 * Before destroy waits for references: the packets that a parked queue pair keeps
 * have some.  A task that is about to park sees @dead, and drains by itself.
 */
void rxe_odp_qp_destroy(struct rxe_qp *qp)
{
	bool parked;

	spin_lock_irq(&qp->odp.lock);
	WRITE_ONCE(qp->odp.dead, true);
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
 * Is it us whom an ACK waits for?  A peer cannot have acknowledged a
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
