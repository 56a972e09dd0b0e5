// SPDX-License-Identifier: GPL-2.0
/*
 * Counters that people look at: for each on-demand MR what became of its pages, with
 * the names that mlx5 uses where it has the same (rdma statistic show mr), what kind of
 * MR it is (rdma resource show mr), and the sums of the device (rdma statistic).
 *
 * The mirror counts, see mm/count.c: an access that finds its pages counts nothing.
 */

#include <linux/mm_mirror.h>
#include <net/netlink.h>
#include <rdma/rdma_netlink.h>

#include "rxe.h"
#include "rxe_hw_counters.h"
#include "rxe_odp_priv.h"

static const struct {
	enum mm_mirror_counter	counter;
	enum rxe_counters	total;
	const char		*name;
} counters[] = {
	{ MM_MIRROR_FAULTED, RXE_CNT_ODP_FAULTS, "page_faults" },
	{ MM_MIRROR_INVALIDATED, RXE_CNT_ODP_INVALIDATIONS,
	  "page_invalidations" },
	{ MM_MIRROR_PREFETCHED, RXE_CNT_ODP_PREFETCH, "page_prefetch" },
	{ MM_MIRROR_WAITED, RXE_CNT_ODP_WAITS, "page_fault_waits" },
	{ MM_MIRROR_FAILED, RXE_CNT_ODP_ERRORS, "page_fault_errors" },
};

/* Of all MRs that there are and were. */
int rxe_odp_dev_init(struct rxe_dev *rxe)
{
	BUILD_BUG_ON(ARRAY_SIZE(counters) != MM_MIRROR_COUNTERS);

	rxe->odp_count = mm_mirror_count_total();
	return rxe->odp_count ? 0 : -ENOMEM;
}

void rxe_odp_dev_exit(struct rxe_dev *rxe)
{
	mm_mirror_count_put(rxe->odp_count);
}

void rxe_odp_get_hw_stats(struct rxe_dev *rxe, u64 *value)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counters); i++)
		value[counters[i].total] =
			mm_mirror_count_read(rxe->odp_count, counters[i].counter);
}

static int fill_counters(struct sk_buff *msg, const struct mm_mirror_count *count)
{
	unsigned int i;
	int err = 0;
	u64 value;

	for (i = 0; i < ARRAY_SIZE(counters) && !err; i++) {
		value = mm_mirror_count_read(count, counters[i].counter);
		err = rdma_nl_stat_hwcounter_entry(msg, counters[i].name, value);
	}
	return err;
}

/**
 * rxe_odp_fill_stat_mr - the counters of an MR
 * @msg: where to put them
 * @ibmr: the MR; others than on-demand ones have none
 *
 * Context: process context, on behalf of whoever asks; the core keeps the MR.
 *
 * Return: 0 or -EMSGSIZE.
 */
int rxe_odp_fill_stat_mr(struct sk_buff *msg, struct ib_mr *ibmr)
{
	struct rxe_mr *mr = to_rmr(ibmr);
	struct nlattr *nest;

	if (!mr->odp.mirror)
		return 0;
	nest = nla_nest_start(msg, RDMA_NLDEV_ATTR_STAT_HWCOUNTERS);
	if (!nest)
		return -EMSGSIZE;
	if (fill_counters(msg, mr->odp.count)) {
		nla_nest_cancel(msg, nest);
		return -EMSGSIZE;
	}
	nla_nest_end(msg, nest);
	return 0;
}

/* What to say of an MR: what it is, and of which kind or why. */
static const char *kind_of(const struct rxe_mr *mr, const char **what)
{
	*what = "pinned";
	if (!mr->odp.mirror)
		return rxe_odp_pinned_why(mr);
	*what = "odp";
	if (mr->odp.reason == RXE_ODP_UNASKED)
		return "unasked";
	return rxe_odp_is_implicit(mr) ? "implicit" : "explicit";
}

/**
 * rxe_odp_fill_res_mr - what kind of MR it is
 * @msg: where to say it
 * @ibmr: the MR; nothing is said of one that is pinned because that was asked for
 *
 * Context: see rxe_odp_fill_stat_mr().
 *
 * Return: 0 or -EMSGSIZE.
 */
int rxe_odp_fill_res_mr(struct sk_buff *msg, struct ib_mr *ibmr)
{
	const char *kind, *what;
	struct nlattr *nest;

	kind = kind_of(to_rmr(ibmr), &what);
	if (!kind)
		return 0;
	nest = nla_nest_start(msg, RDMA_NLDEV_ATTR_DRIVER);
	if (!nest)
		return -EMSGSIZE;
	if (rdma_nl_put_driver_string(msg, what, kind)) {
		nla_nest_cancel(msg, nest);
		return -EMSGSIZE;
	}
	nla_nest_end(msg, nest);
	return 0;
}
