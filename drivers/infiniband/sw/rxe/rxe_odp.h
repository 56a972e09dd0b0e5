/* SPDX-License-Identifier: GPL-2.0 */
/*
 * On-demand memory regions for rxe: windows on the mirror of a process.
 *
 * What an access needs and has no translation for parks its queue pair: the packet
 * or work request stays where it is, nothing of it has happened, the task ends, and
 * the fault's callback schedules the task again.  See rxe_odp.c.
 */

#ifndef RXE_ODP_H
#define RXE_ODP_H

#include <linux/compiler.h>
#include <linux/mm_mirror.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <rdma/ib_user_ioctl_verbs.h>

struct device_attribute;
struct ib_device_attr;
struct ib_mr;
struct ib_pd;
struct ib_sge;
struct ib_udata;
struct mm_mirror_count;
struct rxe_dev;
struct rxe_dma_info;
struct rxe_mr;
struct rxe_pkt_info;
struct rxe_qp;
struct rxe_send_wqe;
struct rxe_task;
struct rxe_ucontext;
struct sk_buff;
struct sk_buff_head;
struct uverbs_attr_bundle;

/**
 * struct rxe_odp_slot - what one side of a queue pair waits for
 * @qp: the queue pair
 * @task: runs that side
 * @fault: outstanding, or done and not looked at; set and cleared by @task, under
 *	qp->odp.lock, so that others can detach
 * @no_memory: there was no memory for a fault; @task tries again by itself
 * @key: address that the failed access needs first
 * @losses: faults for @key that were done, and yet the access failed again
 * @retries: tries since the last fault or success
 */
struct rxe_odp_slot {
	struct rxe_qp		*qp;
	struct rxe_task		*task;
	struct mm_mirror_fault	*fault;
	bool			no_memory;
	unsigned long		key;
	unsigned int		losses;
	unsigned int		retries;
};

/**
 * struct rxe_odp_flush - how far a FLUSH has come
 * @psn: of the request
 * @iova: the first address that it asks for
 * @length: how many bytes; 0 if there is none
 * @done: bytes of them that have been flushed
 */
struct rxe_odp_flush {
	u32	psn;
	u64	iova;
	u64	length;
	u64	done;
};

/**
 * struct rxe_odp_qp - a queue pair's part
 * @lock: protects @dead and the slots' fault pointers; innermost but for the
 *	fault's own
 * @dead: being destroyed: no more parking
 * @kept_wqe: the responder parked with a receive WQE that it took from an SRQ
 * @psn: of the packet that the responder is parked with, or was told to send again
 * @slow: the peer retransmits that
 * @rnr_nak: and is just being told to wait
 * @target_psn: of the READ whose target the requester has looked after
 * @target_done: how much of it
 * @flush: the FLUSH that the responder is parked with
 * @recv: the responder's; run by recv_task
 * @req: the requester's; run by send_task
 * @comp: the completer's; run by send_task
 */
struct rxe_odp_qp {
	spinlock_t		lock; /* protects dead and the fault pointers */
	bool			dead;
	bool			kept_wqe;
	u32			psn;
	bool			slow;
	bool			rnr_nak;
	u32			target_psn;
	u32			target_done;
	struct rxe_odp_flush	flush;
	struct rxe_odp_slot	recv;
	struct rxe_odp_slot	req;
	struct rxe_odp_slot	comp;
};

/**
 * enum rxe_odp_reason - why an MR is on-demand, or pinned; see rxe_odp_switch.c
 * @RXE_ODP_ASKED: because that was asked for
 * @RXE_ODP_UNASKED: on-demand, because of the switch
 * @RXE_ODP_PINNED_RIGHTS: pinned all the same: a right that needs it
 * @RXE_ODP_PINNED_RANGE: a range that is not mapped, or not with these rights
 * @RXE_ODP_PINNED_MEMORY: memory that a device must not fault, or cannot read
 * @RXE_ODP_PINNED_HANDLER: a userfaultfd that would not hear of its faults
 */
enum rxe_odp_reason {
	RXE_ODP_ASKED,
	RXE_ODP_UNASKED,
	RXE_ODP_PINNED_RIGHTS,
	RXE_ODP_PINNED_RANGE,
	RXE_ODP_PINNED_MEMORY,
	RXE_ODP_PINNED_HANDLER,
};

/**
 * struct rxe_odp_mr - an on-demand MR's part
 * @mirror: a handle, or NULL if the MR is not on-demand
 * @start: address that corresponds to the MR's iova
 * @prefetches: what is prefetched for it
 * @count: what became of its pages
 * @reason: why it is what it is, also of one that is not on-demand
 * @writable: if it was not asked for: could be written to at first
 */
struct rxe_odp_mr {
	struct mm_mirror	*mirror;
	unsigned long		start;
	struct mm_mirror_prefetches prefetches;
	struct mm_mirror_count	*count;
	enum rxe_odp_reason	reason;
	bool			writable;
};

/**
 * struct rxe_odp_ucontext - a user context's part: makes registering O(1)
 * @lock: protects @mirror; may be held over mmap_lock
 * @mirror: a handle of the mirror of the process that registered first, or NULL
 */
struct rxe_odp_ucontext {
	struct mutex		lock; /* protects mirror */
	struct mm_mirror	*mirror;
};

#define rxe_is_odp(mr) unlikely((mr)->odp.mirror)

void rxe_odp_init_caps(struct ib_device_attr *attr);
void rxe_odp_query_caps(struct ib_device_attr *attr);

/* counters */
int rxe_odp_dev_init(struct rxe_dev *rxe);
void rxe_odp_dev_exit(struct rxe_dev *rxe);
void rxe_odp_get_hw_stats(struct rxe_dev *rxe, u64 *value);
int rxe_odp_fill_stat_mr(struct sk_buff *msg, struct ib_mr *ibmr);
int rxe_odp_fill_res_mr(struct sk_buff *msg, struct ib_mr *ibmr);

/* registrations on demand that are not asked for */
extern struct device_attribute rxe_odp_attr;
bool rxe_odp_wanted(struct rxe_mr *mr, u64 start, u64 length, u64 iova,
		    int access, struct ib_udata *udata);

/* memory regions */
void rxe_odp_ucontext_init(struct rxe_ucontext *uc);
void rxe_odp_ucontext_exit(struct rxe_ucontext *uc);
int rxe_odp_mr_init(struct rxe_mr *mr, u64 start, u64 length, u64 iova,
		    int access, struct ib_udata *udata);
int rxe_odp_mr_check_rereg(struct rxe_mr *mr, int flags, int access);
void rxe_odp_mr_detach(struct rxe_mr *mr);
void rxe_odp_mr_exit(struct rxe_mr *mr);
int rxe_odp_advise_mr(struct ib_pd *ibpd, enum ib_uverbs_advise_mr_advice advice,
		      u32 flags, struct ib_sge *sg_list, u32 num_sge,
		      struct uverbs_attr_bundle *attrs);

/* access: -EAGAIN means park */
int rxe_odp_mr_copy_to(struct rxe_mr *mr, u64 iova, const void *from,
		       unsigned int length, struct rxe_odp_slot *slot);
int rxe_odp_mr_copy_from(struct rxe_mr *mr, u64 iova, void *to,
			 unsigned int length, struct rxe_odp_slot *slot);
int rxe_odp_mr_atomic_op(struct rxe_mr *mr, u64 iova, int opcode, u64 compare,
			 u64 swap_add, u64 *orig_val, struct rxe_odp_slot *slot);
int rxe_odp_mr_atomic_write(struct rxe_mr *mr, u64 iova, u64 value,
			    struct rxe_odp_slot *slot);
int rxe_odp_mr_flush(struct rxe_mr *mr, u64 *iova, u64 *length,
		     struct rxe_odp_slot *slot);

/* queue pairs */
void rxe_odp_qp_init(struct rxe_qp *qp);
void rxe_odp_qp_detach(struct rxe_qp *qp);
void rxe_odp_qp_release(struct rxe_qp *qp);
void rxe_odp_qp_destroy(struct rxe_qp *qp);
void rxe_odp_qp_kick(struct rxe_qp *qp);
bool rxe_odp_owes_ack(struct rxe_qp *qp);

/* parking: a RESPST_* to go on with; -EINPROGRESS or what is wrong */
int rxe_odp_park_write(struct rxe_qp *qp, struct rxe_pkt_info *pkt);
int rxe_odp_park_read(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
		      struct rxe_mr *mr, unsigned int need);
int rxe_odp_park_atomic(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
			struct rxe_mr *mr, u64 iova);
int rxe_odp_park_flush(struct rxe_qp *qp, struct rxe_pkt_info *pkt,
		       struct rxe_mr *mr, u64 iova, u64 length);
int rxe_odp_park_recv(struct rxe_qp *qp, struct rxe_pkt_info *pkt);
int rxe_odp_park_send(struct rxe_qp *qp, struct rxe_send_wqe *wqe,
		      unsigned int need);
bool rxe_odp_park_target(struct rxe_qp *qp, struct rxe_send_wqe *wqe);
int rxe_odp_park_response(struct rxe_qp *qp, struct rxe_send_wqe *wqe,
			  unsigned int need);
void rxe_odp_disown(struct rxe_qp *qp, struct sk_buff_head *queue);
bool rxe_odp_take_kept_wqe(struct rxe_qp *qp);
void rxe_odp_resp_done(struct rxe_qp *qp, const struct rxe_pkt_info *pkt);
unsigned int rxe_odp_rnr_timer(const struct rxe_qp *qp);
void rxe_odp_slot_release(struct rxe_odp_slot *slot);
bool rxe_odp_wait_for_packet(struct rxe_qp *qp);

/* By the slot's task: does it wait for a fault, or for memory to have one? */
static inline bool rxe_odp_is_parked(const struct rxe_odp_slot *slot)
{
	return unlikely(slot->fault || slot->no_memory);
}

/* The access that the slot waited for has happened. */
static inline void rxe_odp_done(struct rxe_odp_slot *slot)
{
	if (unlikely(slot->retries) || rxe_odp_is_parked(slot))
		rxe_odp_slot_release(slot);
}

#endif /* RXE_ODP_H */
