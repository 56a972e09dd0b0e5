// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What the device reports about on-demand paging is what it does: each
 * capability that is claimed works, and on-demand registration is refused
 * where none is claimed (the pinned mode of this test is for a device without).
 */
#include <errno.h>
#include <string.h>

#include "t.h"

static void query(struct t_dev *dev, struct ibv_device_attr_ex *attr)
{
	int err = ibv_query_device_ex(dev->ctx, NULL, attr);

	t_check(!err, "ibv_query_device_ex: %s", strerror(err));
}

static void general_support(const void *arg)
{
	struct ibv_device_attr_ex attr;
	struct t_dev dev;

	(void)arg;
	t_dev_open(&dev);
	query(&dev, &attr);
	t_check(attr.odp_caps.general_caps & IBV_ODP_SUPPORT,
		"general ODP capabilities: %#llx",
		(unsigned long long)attr.odp_caps.general_caps);
}

static void rc_operations(const void *arg)
{
	const u32 want = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV |
		IBV_ODP_SUPPORT_SRQ_RECV | IBV_ODP_SUPPORT_WRITE |
		IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC;
	struct ibv_device_attr_ex attr;
	struct t_dev dev;
	u32 caps;

	(void)arg;
	t_dev_open(&dev);
	query(&dev, &attr);
	caps = attr.odp_caps.per_transport_caps.rc_odp_caps;
	t_check((caps & want) == want, "RC capabilities %#x lack %#x", caps, want & ~caps);
}

/* Bits without a name promise something that nobody can check. */
static void only_named_bits(const void *arg)
{
	const u32 named = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV |
		IBV_ODP_SUPPORT_SRQ_RECV | IBV_ODP_SUPPORT_WRITE |
		IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC |
		0x40 /* FLUSH */ | 0x80 /* ATOMIC_WRITE */;
	struct ibv_device_attr_ex attr;
	struct t_dev dev;

	(void)arg;
	t_dev_open(&dev);
	query(&dev, &attr);
	t_check(!(attr.odp_caps.per_transport_caps.rc_odp_caps & ~named) &&
		!(attr.odp_caps.per_transport_caps.uc_odp_caps & ~named) &&
		!(attr.odp_caps.per_transport_caps.ud_odp_caps & ~named) &&
		!(attr.xrc_odp_caps & ~named),
		"capabilities with bits that mean nothing: rc %#x uc %#x ud %#x xrc %#x",
		attr.odp_caps.per_transport_caps.rc_odp_caps,
		attr.odp_caps.per_transport_caps.uc_odp_caps,
		attr.odp_caps.per_transport_caps.ud_odp_caps, attr.xrc_odp_caps);
	t_check(!(attr.odp_caps.general_caps &
		  ~(u64)(IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT)),
		"general capabilities %#llx", (unsigned long long)attr.odp_caps.general_caps);
	t_check(!attr.xrc_odp_caps, "rxe has no XRC, yet xrc %#x", attr.xrc_odp_caps);
}

/* The implicit region is claimed if and only if it registers. */
static void implicit_claim(const void *arg)
{
	struct ibv_device_attr_ex attr;
	struct t_dev dev;
	struct ibv_mr *mr;
	bool claimed;

	(void)arg;
	t_dev_open(&dev);
	query(&dev, &attr);
	claimed = attr.odp_caps.general_caps & IBV_ODP_SUPPORT_IMPLICIT;
	mr = ibv_reg_mr(dev.pd, NULL, SIZE_MAX, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(claimed == !!mr, "implicit region: claimed %d, registered %d", claimed, !!mr);
	if (mr)
		t_check(!ibv_dereg_mr(mr), "dereg of the implicit region");
}

static void registers(const void *arg)
{
	struct t_dev dev;
	struct t_buf b;

	(void)arg;
	t_dev_open(&dev);
	t_buf_alloc(&b, 1, T_PAGE);
	t_reg(&b, &dev);
	t_check(b.mr->lkey && b.mr->rkey, "keys %#x %#x", b.mr->lkey, b.mr->rkey);
	t_buf_free(&b);
	t_dev_close(&dev);
}

static void nothing_claimed(const void *arg)
{
	struct ibv_device_attr_ex attr;
	struct t_dev dev;

	(void)arg;
	t_dev_open(&dev);
	query(&dev, &attr);
	t_check(!attr.odp_caps.general_caps &&
		!attr.odp_caps.per_transport_caps.rc_odp_caps,
		"a device without on-demand paging claims some");
}

static void refused_where_not_claimed(const void *arg)
{
	struct t_dev dev;
	struct t_buf b;

	(void)arg;
	t_dev_open(&dev);
	t_buf_alloc(&b, 0, T_PAGE);
	b.mr = ibv_reg_mr(dev.pd, b.p, b.len, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(!b.mr, "on-demand registration succeeded");
	b.mr = ibv_reg_mr(dev.pd, b.p, b.len, T_REMOTE);
	t_check(b.mr, "pinned registration: %s", strerror(errno));
}

static const struct t_case cases[] = {
	{ "general support is reported", T_ODP, general_support, NULL },
	{ "RC operations are reported", T_ODP, rc_operations, NULL },
	{ "only named capability bits are set", T_ODP, only_named_bits, NULL },
	{ "the implicit region registers if it is claimed", T_ODP, implicit_claim, NULL },
	{ "an on-demand region registers", T_ODP, registers, NULL },
	{ "without support nothing is claimed", T_PINNED, nothing_claimed, NULL },
	{ "without support registration is refused", T_PINNED, refused_where_not_claimed, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
