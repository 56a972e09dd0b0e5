// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What a device says that it can do on demand, in words. */
#include <stdio.h>
#include <string.h>

#include "doctor.h"

/* The last two are newer than the header of Debian 12. */
static const struct {
	unsigned int bit;
	const char *name;
} operations[] = {
	{ IBV_ODP_SUPPORT_SEND, "send" },
	{ IBV_ODP_SUPPORT_RECV, "receive" },
	{ IBV_ODP_SUPPORT_SRQ_RECV, "receive by a shared queue" },
	{ IBV_ODP_SUPPORT_WRITE, "write" },
	{ IBV_ODP_SUPPORT_READ, "read" },
	{ IBV_ODP_SUPPORT_ATOMIC, "atomic" },
	{ 1U << 6, "flush" },
	{ 1U << 7, "atomic write" },
};

#define OPERATIONS	(sizeof(operations) / sizeof(operations[0]))

static void transport(const struct doctor_device *dev, const char *name, unsigned int caps)
{
	char can[256] = "";
	size_t i, n = 0;

	for (i = 0; i < OPERATIONS; i++) {
		if (caps & operations[i].bit)
			n += snprintf(can + n, sizeof(can) - n, "%s%s", n ? ", " : "",
				      operations[i].name);
	}
	if (n)
		doctor_ok("ability", "%s: %s: %s", dev->name, name, can);
	else
		doctor_note("ability", "%s: %s: nothing, as far as it says", dev->name, name);
}

bool doctor_can_transfer(const struct doctor_device *dev)
{
	unsigned int want = IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_READ;

	return dev->odp && dev->port &&
	       (dev->attr.odp_caps.per_transport_caps.rc_odp_caps & want) == want;
}

static void remedy_rxe(const struct doctor_device *dev)
{
	doctor_remedy("rdma link add rxe_%s type rxe netdev %s", dev->name,
		      *dev->netdev ? dev->netdev : "INTERFACE");
}

/* What rxe lacks has been said of its module. */
static void no_paging(const struct doctor *d, const struct doctor_device *dev)
{
	if (doctor_exists("/sys/class/infiniband/%s/parent", dev->name)) {
		doctor_note("ability", "%s: no on-demand paging, with this rdma_rxe",
			    dev->name);
		return;
	}
	doctor_lacks(!d->odp, "ability", "%s: no on-demand paging; rxe beside it can", dev->name);
	remedy_rxe(dev);
}

/* Without these there is not much that a program could do. */
static void no_transfer(const struct doctor *d, const struct doctor_device *dev)
{
	if (!dev->port || doctor_can_transfer(dev))
		return;
	doctor_lacks(!d->usable, "ability", "%s: RC has not both read and write on demand",
		     dev->name);
	remedy_rxe(dev);
}

static void of_device(const struct doctor *d, const struct doctor_device *dev)
{
	const struct ibv_odp_caps *caps = &dev->attr.odp_caps;

	if (!dev->odp) {
		no_paging(d, dev);
		return;
	}
	transport(dev, "RC", caps->per_transport_caps.rc_odp_caps);
	transport(dev, "UC", caps->per_transport_caps.uc_odp_caps);
	transport(dev, "UD", caps->per_transport_caps.ud_odp_caps);
	if (caps->general_caps & IBV_ODP_SUPPORT_IMPLICIT)
		doctor_ok("ability", "%s: one region of all memory (implicit)", dev->name);
	else
		doctor_note("ability", "%s: no region of all memory (implicit)", dev->name);
	no_transfer(d, dev);
	doctor_detail(d, "general 0x%llx, RC 0x%x, UC 0x%x, UD 0x%x",
		      (unsigned long long)caps->general_caps,
		      caps->per_transport_caps.rc_odp_caps,
		      caps->per_transport_caps.uc_odp_caps,
		      caps->per_transport_caps.ud_odp_caps);
}

void doctor_ability(const struct doctor *d)
{
	unsigned int i;

	for (i = 0; i < d->count; i++) {
		if (d->devices[i].context)
			of_device(d, &d->devices[i]);
	}
}
