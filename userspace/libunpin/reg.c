// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The three ways to register memory. Each ends in ibv_reg_mr_iova2(), as libibverbs'
 * own do; so whatever is registered is counted once. Nothing is refused that the
 * program would have got: what cannot be on demand is registered as asked, and has the
 * error of that.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "libunpin.h"

/* The inline functions that choose among the three. */
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

/* An element of advice has a length of 32 bits. */
#define PREFETCH_BYTES	(1UL << 30)

/* What is read here can be written to as well, if the region can. */
static void prefetch(struct ibv_mr *mr, uint64_t iova, size_t length, unsigned int access)
{
	struct verbs_context *verbs = verbs_get_ctx_op(mr->context, advise_mr);
	uint32_t flags = unpin_settings()->wait ? IBV_ADVISE_MR_FLAG_FLUSH : 0;
	enum ibv_advise_mr_advice advice = access & IBV_ACCESS_LOCAL_WRITE ?
		IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE : IBV_ADVISE_MR_ADVICE_PREFETCH;
	size_t done, step;

	for (done = 0; done < length; done += step) {
		struct ibv_sge sge = { .addr = iova + done, .lkey = mr->lkey };

		step = length - done < PREFETCH_BYTES ? length - done : PREFETCH_BYTES;
		sge.length = step;
		if (!verbs || verbs->advise_mr(mr->pd, advice, flags, &sge, 1))
			unpin_count_unprefetched(step);
	}
}

static enum unpin_outcome choose(struct ibv_pd *pd, const void *addr, size_t length,
				 unsigned int access)
{
	enum unpin_outcome outcome;

	if (access & IBV_ACCESS_ON_DEMAND)
		return UNPIN_OWN;
	outcome = unpin_device_allows(pd->context, access);
	if (outcome != UNPIN_ON_DEMAND)
		return outcome;
	if (length < unpin_settings()->min_size)
		return UNPIN_SMALL;
	/* nor is a whole address space, on demand, what a bad address asks for */
	return unpin_memory_allows(addr, length, access) ? UNPIN_ON_DEMAND : UNPIN_MEMORY;
}

static void account(enum unpin_outcome outcome, size_t length, int err)
{
	unpin_count(outcome, length, err);
	if (!unpin_settings()->verbose)
		return;
	if (outcome == UNPIN_REFUSED)
		unpin_say("%zu bytes: %s: %s", length, unpin_outcome_text(outcome),
			  strerror(err));
	else if (outcome == UNPIN_SMALL || outcome == UNPIN_MEMORY)
		unpin_say("%zu bytes: %s", length, unpin_outcome_text(outcome));
}

static struct ibv_mr *reg(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			  unsigned int access)
{
	struct ibv_mr *(*next)(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			       unsigned int access);
	enum unpin_outcome outcome;
	struct ibv_mr *mr = NULL;
	int was = errno, err = 0, cancel;

	next = unpin_next("ibv_reg_mr_iova2", "IBVERBS_1.8");
	if (!unpin_settings()->on_demand)
		return next(pd, addr, length, iova, access);

	/* libibverbs' own is no place for a thread to be cancelled */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	outcome = choose(pd, addr, length, access);
	if (outcome == UNPIN_ON_DEMAND) {
		mr = next(pd, addr, length, iova, access | IBV_ACCESS_ON_DEMAND);
		if (!mr) {
			err = errno;
			outcome = UNPIN_REFUSED;
		} else if (unpin_settings()->prefetch) {
			prefetch(mr, iova, length, access);
		}
	}
	errno = was;
	if (!mr)
		mr = next(pd, addr, length, iova, access);
	was = errno;
	account(mr ? outcome : UNPIN_FAILED, length, err);
	pthread_setcancelstate(cancel, NULL);
	errno = was;
	return mr;
}

UNPIN_EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return reg(pd, addr, length, (uintptr_t)addr, access);
}

UNPIN_EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length,
					    uint64_t iova, int access)
{
	return reg(pd, addr, length, iova, access);
}

UNPIN_EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length,
					     uint64_t iova, unsigned int access)
{
	return reg(pd, addr, length, iova, access);
}
