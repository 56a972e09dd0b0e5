// SPDX-License-Identifier: GPL-2.0
/*
 * Parking: what each side of a queue pair does with an access that has no
 * translation, so that nothing of the packet or work request has happened.
 */

#include <linux/mm_mirror.h>

#include "rxe.h"
#include "rxe_loc.h"
#include "rxe_odp_priv.h"

/*
 * How far ahead of a SEND, whose length is not known, its receive buffer is faulted: as
 * far as it has come, and not less than this.
 */
#define RXE_ODP_RECV_AHEAD	SZ_64K
#define RXE_ODP_RECV_AHEAD_MAX	SZ_2M

/* How much of a READ's target is looked after before the READ is sent, and in what. */
#define RXE_ODP_TARGET_MAX	SZ_8M
#define RXE_ODP_TARGET_PIECE	SZ_64K

/* Packets kept for a parked queue pair: what a well-behaved peer has in flight. */
#define RXE_ODP_BACKLOG		(2 * RXE_MAX_UNACKED_PSNS)

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

/* ---- the responder ---- */

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

	if (fresh && qp_type(qp) == IB_QPT_RC &&
	    rxe_odp_is_parked(&qp->odp.recv) &&
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
	if (likely(!rxe_odp_is_parked(&qp->odp.recv))) {
		qp->odp.slow = false;
		return;
	}
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
		     u64 length, bool write, bool fresh)
{
	struct rxe_odp_want want = {
		.mr = mr,
		.write = write,
		.nr = 1,
		.range[0] = {
			.start = rxe_odp_addr(mr, iova),
			.length = rxe_odp_clamp(mr, iova, length),
			.need = need,
			.count = mr->odp.count,
		},
	};
	int err = rxe_odp_slot_wait(&qp->odp.recv, &want);

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

/**
 * rxe_odp_park_flush - park a responder that has no memory for a FLUSH
 * @qp: the queue pair
 * @pkt: the request at its head
 * @mr: the MR
 * @iova: the first byte that could not be flushed
 * @length: bytes from there on
 *
 * Context: recv_task.
 *
 * Return: RESPST_EXIT or RESPST_ERR_RNR if parked, else RESPST_ERR_RKEY_VIOLATION.
 */
int rxe_odp_park_flush(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
		       struct rxe_mr *mr, u64 iova, u64 length)
{
	resp_unprepare_res(qp);
	return park_rdma(qp, pkt, mr, iova, rxe_odp_in_page(mr, iova, length),
			 length, rxe_odp_flush_writes(mr), true);
}

/* ---- scatter/gather lists ---- */

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
static void want_add(struct rxe_odp_want *want, struct rxe_mr *mr, u64 iova,
		     struct mm_mirror_range *range)
{
	range->start = rxe_odp_addr(mr, iova);
	range->length = rxe_odp_clamp(mr, iova, range->length);
	if (!want->mr) {
		if (!range->need ||
		    mm_mirror_resident(mr->odp.mirror, range->start, range->need,
				       want->write, NULL))
			return;
		rxe_get(mr);
		want->mr = mr;
	}
	if (want->mr->odp.mirror == mr->odp.mirror &&
	    want->nr < ARRAY_SIZE(want->range)) {
		/* the MR may go as soon as the caller lets it */
		range->count = mm_mirror_count_ref(mr->odp.count);
		want->range[want->nr++] = *range;
	}
}

static void want_put(struct rxe_odp_want *want)
{
	while (want->nr--)
		mm_mirror_count_put(want->range[want->nr].count);
	rxe_put(want->mr);
}

/*
 * Which memory of a list is to be faulted.  Pieces of pinned MRs need nothing, and
 * those of another process's mirror have their turn when this one's are there.
 */
static void want_dma(struct rxe_odp_want *want, struct rxe_qp *qp, int access,
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
	struct rxe_odp_want want = { .write = access & IB_ACCESS_LOCAL_WRITE };
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
		return rxe_odp_slot_retry(slot);
	err = rxe_odp_slot_wait(slot, &want);
	want_put(&want);
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
	ahead = clamp_t(unsigned int, dma->length - dma->resid,
			RXE_ODP_RECV_AHEAD, RXE_ODP_RECV_AHEAD_MAX);
	ahead = pkt->mask & RXE_END_MASK ? 0 : min(ahead, dma->resid - need);

	err = slot_wait_dma(&qp->odp.recv, IB_ACCESS_LOCAL_WRITE, dma,
			    RXE_MAX_SGE, need, ahead);
	if (err == -EINPROGRESS)
		return resp_parked(qp, pkt, pkt->mask & RXE_START_MASK);

	qp->resp.aeth_syndrome = AETH_NAK_REM_OP_ERR;
	qp->resp.status = IB_WC_LOC_PROT_ERR;
	qp->resp.goto_error = 1;
	return RESPST_COMPLETE;
}

/* ---- requester and completer ---- */

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

static void sge_walk_skip(struct sge_walk *walk, unsigned int length)
{
	for (; walk->i < walk->nr; walk->i++, walk->offset = 0) {
		unsigned int left = READ_ONCE(walk->sge[walk->i].length);

		left -= min(left, walk->offset);
		if (length < left)
			break;
		length -= left;
	}
	walk->offset += length;
}

static bool target_was_faulted(const struct rxe_odp_slot *slot,
			       const struct rxe_odp_want *want)
{
	return slot->fault && slot->key == want->range[0].start &&
	       !mm_mirror_fault_status(slot->fault);
}

/* Is some of the @need bytes at @done missing?  Then want->mr is to be put. */
static bool target_misses(struct rxe_qp *qp, const struct rxe_dma_info *dma,
			  unsigned int done, unsigned int need,
			  unsigned int ahead, struct rxe_odp_want *want)
{
	struct sge_walk walk = {
		.sge = dma->sge,
		.nr = min_t(unsigned int, READ_ONCE(dma->num_sge),
			    qp->sq.max_sge),
		.i = READ_ONCE(dma->cur_sge),
		.offset = READ_ONCE(dma->sge_offset),
		.need = need,
		.ahead = ahead,
	};

	sge_walk_skip(&walk, done);
	want_dma(want, qp, IB_ACCESS_LOCAL_WRITE, &walk);
	return want->mr;
}

static noinline_for_stack bool
target_is_there(struct rxe_qp *qp, const struct rxe_dma_info *dma,
		unsigned int length)
{
	struct rxe_odp_want want = { .write = true };

	if (!target_misses(qp, dma, 0, length, 0, &want))
		return true;
	want_put(&want);
	return false;
}

/*
 * Returns 0 if the piece at @done is there, or has been and is lost again: whoever
 * needs it will see.
 */
static noinline_for_stack int
target_piece(struct rxe_qp *qp, const struct rxe_dma_info *dma,
	     unsigned int done, unsigned int length)
{
	unsigned int need = min_t(unsigned int, length - done,
				  RXE_ODP_TARGET_PIECE);
	struct rxe_odp_slot *slot = &qp->odp.req;
	struct rxe_odp_want want = { .write = true };
	int err = 0;

	if (!target_misses(qp, dma, done, need, length - done - need, &want))
		return 0;
	if (!target_was_faulted(slot, &want))
		err = rxe_odp_slot_wait(slot, &want);
	want_put(&want);
	return err;
}

/**
 * rxe_odp_park_target - park a requester whose READ has no memory for the answer
 * @qp: the queue pair
 * @wqe: the READ, which stays current
 *
 * The peer sends the answer as fast as it can, and what is more than a parked
 * completer may keep would have to be asked for again.  So the memory comes
 * before the request goes.  That it may get lost again, or cannot be had, is left to the
 * completer.
 *
 * Context: send_task, without skb and AH.
 *
 * Return: true if the task is to end, and will be scheduled; false to send.
 */
bool rxe_odp_park_target(struct rxe_qp *qp, struct rxe_send_wqe *wqe)
{
	unsigned int length = min_t(unsigned int, READ_ONCE(wqe->dma.resid),
				    RXE_ODP_TARGET_MAX);
	int err = 0;

	if (qp->odp.target_psn != qp->req.psn) {
		qp->odp.target_psn = qp->req.psn;
		qp->odp.target_done = 0;
		if (target_is_there(qp, &wqe->dma, length))
			qp->odp.target_done = length;
	}
	while (!err && qp->odp.target_done < length) {
		err = target_piece(qp, &wqe->dma, qp->odp.target_done, length);
		if (err == -EINPROGRESS)
			return true;
		qp->odp.target_done += RXE_ODP_TARGET_PIECE;
	}
	/* nor is it asked again, if the request has to wait for something else */
	qp->odp.target_done = max(qp->odp.target_done, length);
	return false;
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
