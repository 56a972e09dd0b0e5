// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * RDMA devices: which there are, by the kernel; whether libibverbs knows them, too; and
 * whether they can be opened.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define DEVICES	"/sys/class/infiniband"
#define NODES	"/sys/class/infiniband_verbs"

/* ---- what there is ---- */

static int no_dots(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void find_node(struct doctor_device *dev)
{
	struct dirent **list;
	char name[NAME_MAX + 1];
	int i, n = scandir(NODES, &list, no_dots, alphasort);

	for (i = 0; i < n; i++) {
		if (doctor_read(name, sizeof(name), NODES "/%s/ibdev", list[i]->d_name) &&
		    !strcmp(name, dev->name))
			snprintf(dev->node, sizeof(dev->node), "/dev/infiniband/%s",
				 list[i]->d_name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

/* rxe names its interface itself, others that of their addresses. */
static void find_netdev(struct doctor_device *dev)
{
	if (!doctor_read(dev->netdev, sizeof(dev->netdev), DEVICES "/%s/parent", dev->name))
		doctor_read(dev->netdev, sizeof(dev->netdev),
			    DEVICES "/%s/ports/1/gid_attrs/ndevs/0", dev->name);
}

static void open_device(struct doctor_device *dev, struct ibv_device **list, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		if (strcmp(ibv_get_device_name(list[i]), dev->name))
			continue;
		errno = 0;
		dev->context = ibv_open_device(list[i]);
		dev->error = dev->context ? 0 : errno;
	}
}

static void look(struct doctor_device *dev)
{
	if (ibv_query_device_ex(dev->context, NULL, &dev->attr))
		memset(&dev->attr, 0, sizeof(dev->attr));
	dev->odp = dev->attr.odp_caps.general_caps & IBV_ODP_SUPPORT;
	doctor_find_port(dev);
}

static void add(struct doctor *d, const char *name, struct ibv_device **list, int n)
{
	struct doctor_device *dev = &d->devices[d->count];

	if (d->count == DOCTOR_DEVICES || (d->wanted && strcmp(name, d->wanted)))
		return;
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	find_node(dev);
	find_netdev(dev);
	open_device(dev, list, n);
	if (dev->context)
		look(dev);
	d->odp |= dev->odp;
	d->count++;
	if (!d->usable && doctor_can_transfer(dev))
		d->usable = dev;
}

void doctor_find_devices(struct doctor *d)
{
	struct dirent **names;
	int known = 0, i, n = scandir(DEVICES, &names, no_dots, alphasort);
	struct ibv_device **list = n > 0 ? ibv_get_device_list(&known) : NULL;

	for (i = 0; i < n; i++) {
		add(d, names[i]->d_name, list, list ? known : 0);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	if (list)
		ibv_free_device_list(list);
}

void doctor_close_devices(struct doctor *d)
{
	unsigned int i;

	for (i = 0; i < d->count; i++) {
		if (d->devices[i].context)
			ibv_close_device(d->devices[i].context);
	}
}

/* ---- what is to say of it ---- */

/* An interface that carries something, or else the one that is always there. */
static const char *any_netdev(void)
{
	static char name[IF_NAMESIZE] = "lo";
	struct ifaddrs *all, *at;

	if (getifaddrs(&all))
		return name;
	for (at = all; at; at = at->ifa_next) {
		if (at->ifa_flags & IFF_UP && at->ifa_flags & IFF_RUNNING &&
		    at->ifa_flags & IFF_BROADCAST) {
			snprintf(name, sizeof(name), "%s", at->ifa_name);
			break;
		}
	}
	freeifaddrs(all);
	return name;
}

static void none(const struct doctor *d)
{
	if (d->wanted)
		doctor_missing("device", "there is no RDMA device '%s'", d->wanted);
	else
		doctor_missing("device", "there is no RDMA device");
	doctor_remedy("rdma link add %s type rxe netdev %s", d->wanted ? d->wanted : "rxe0",
		      any_netdev());
}

/* In a container there may be the device and not its file. */
static void no_file(const struct doctor_device *dev, bool matters)
{
	char number[32], *colon;

	doctor_lacks(matters, "device", "%s: there is no %s", dev->name, dev->node);
	doctor_read(number, sizeof(number), NODES "/%s/dev", strrchr(dev->node, '/') + 1);
	colon = strchr(number, ':');
	if (colon)
		*colon = ' ';
	doctor_remedy("mkdir -p /dev/infiniband");
	doctor_remedy("mknod -m 666 %s c %s", dev->node, number);
}

static void closed(const struct doctor_device *dev, bool matters)
{
	if (!*dev->node) {
		doctor_lacks(matters, "device", "%s: programs cannot use it without ib_uverbs",
			     dev->name);
		doctor_remedy("modprobe ib_uverbs");
	} else if (access(dev->node, F_OK)) {
		no_file(dev, matters);
	} else if (access(dev->node, R_OK | W_OK)) {
		doctor_lacks(matters, "device", "%s: %s: %s", dev->name, dev->node,
			     strerror(errno));
		doctor_remedy("chmod 666 %s", dev->node);
	} else if (dev->error) {
		doctor_lacks(matters, "device", "%s: it cannot be opened: %s", dev->name,
			     strerror(dev->error));
		doctor_remedy("dmesg | tail -n 30   # the kernel may have said why");
	} else {
		doctor_lacks(matters, "device", "%s: libibverbs has no provider for it",
			     dev->name);
		doctor_remedy("apt-get install ibverbs-providers");
	}
}

/* For programs that connect by addresses (librdmacm). */
static void connection_manager(void)
{
	static const char node[] = "/dev/infiniband/rdma_cm";

	if (!access(node, R_OK | W_OK)) {
		doctor_ok("device", "%s is there, for programs that use librdmacm", node);
		return;
	}
	doctor_note("device", "%s: %s; programs that use librdmacm want it", node,
		    strerror(errno));
	if (errno == EACCES)
		doctor_remedy("chmod 666 %s", node);
	else
		doctor_remedy("modprobe rdma_ucm");
}

void doctor_device(const struct doctor *d)
{
	const struct doctor_device *dev;
	unsigned int i;

	if (!d->count) {
		none(d);
		return;
	}
	for (i = 0; i < d->count; i++) {
		dev = &d->devices[i];
		if (!dev->context)
			closed(dev, !d->usable);
		else
			doctor_port(dev, !d->usable);
	}
	connection_manager();
}
