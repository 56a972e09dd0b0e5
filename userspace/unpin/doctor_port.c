// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The ports of a device: one that is active, and of its addresses (GIDs) one that this
 * host has itself, which is what a transfer to oneself needs. RoCE also lists such as
 * no interface has.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "doctor.h"

#define PORT	"/sys/class/infiniband/%s/ports/%u"

static bool is_address(const union ibv_gid *gid, const struct sockaddr *address)
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	const struct sockaddr_in6 *six = (const void *)address;
	const struct sockaddr_in *four = (const void *)address;

	if (address && address->sa_family == AF_INET)
		return !memcmp(gid->raw, mapped, 12) &&
		       !memcmp(gid->raw + 12, &four->sin_addr, 4);
	return address && address->sa_family == AF_INET6 &&
	       !memcmp(gid->raw, &six->sin6_addr, 16);
}

static bool is_here(const union ibv_gid *gid)
{
	struct ifaddrs *all, *at;
	bool found = false;

	if (getifaddrs(&all))
		return false;
	for (at = all; at && !found; at = at->ifa_next)
		found = is_address(gid, at->ifa_addr);
	freeifaddrs(all);
	return found;
}

static bool is_second_roce(const struct doctor_device *dev, unsigned int port, int index)
{
	char type[32];

	return doctor_read(type, sizeof(type), PORT "/gid_attrs/types/%d", dev->name, port,
			   index) && !strcmp(type, "RoCE v2");
}

/* The last of them that will do; RoCE v2 before what was there earlier. */
static bool find_gid(struct doctor_device *dev, unsigned int port, int count)
{
	bool found = false, second = false;
	union ibv_gid gid;
	int i;

	for (i = 0; i < count && !second; i++) {
		if (ibv_query_gid(dev->context, port, i, &gid) || !is_here(&gid))
			continue;
		second = is_second_roce(dev, port, i);
		if (found && !second)
			continue;
		found = true;
		dev->gid = gid;
		dev->gid_index = i;
	}
	return found;
}

/* InfiniBand has addresses of its own, which are there when the port is active. */
static bool port_will_do(struct doctor_device *dev, unsigned int port)
{
	if (ibv_query_port(dev->context, port, &dev->port_attr) ||
	    dev->port_attr.state != IBV_PORT_ACTIVE)
		return false;
	return dev->port_attr.link_layer != IBV_LINK_LAYER_ETHERNET ||
	       find_gid(dev, port, dev->port_attr.gid_tbl_len);
}

void doctor_find_port(struct doctor_device *dev)
{
	unsigned int port;

	for (port = 1; port <= dev->attr.orig_attr.phys_port_cnt && !dev->port; port++) {
		if (port_will_do(dev, port))
			dev->port = port;
	}
}

static bool interface_is_down(const char *netdev)
{
	char text[32];
	unsigned int flags;

	return *netdev && doctor_read(text, sizeof(text), "/sys/class/net/%s/flags", netdev) &&
	       sscanf(text, "%x", &flags) == 1 && !(flags & IFF_UP);
}

static bool has_active_port(const struct doctor_device *dev)
{
	struct ibv_port_attr attr;
	unsigned int port;

	for (port = 1; port <= dev->attr.orig_attr.phys_port_cnt; port++) {
		if (!ibv_query_port(dev->context, port, &attr) &&
		    attr.state == IBV_PORT_ACTIVE)
			return true;
	}
	return false;
}

static void useless(const struct doctor_device *dev, bool matters)
{
	const char *netdev = *dev->netdev ? dev->netdev : "INTERFACE";

	if (interface_is_down(dev->netdev)) {
		doctor_lacks(matters, "device", "%s: its interface %s is down", dev->name, netdev);
		doctor_remedy("ip link set %s up", netdev);
	} else if (!has_active_port(dev)) {
		doctor_lacks(matters, "device", "%s: no port is active", dev->name);
		doctor_remedy("rdma link show   # is there a cable, and a switch?");
	} else {
		doctor_lacks(matters, "device", "%s: its port has no address of this host",
			     dev->name);
		doctor_remedy("ip address add %s dev %s",
			      strcmp(netdev, "lo") ? "ADDRESS/LENGTH" : "127.0.0.1/8", netdev);
	}
}

static void address_text(const struct doctor_device *dev, char *text, size_t len)
{
	if (dev->port_attr.link_layer != IBV_LINK_LAYER_ETHERNET)
		snprintf(text, len, "LID %u", dev->port_attr.lid);
	else if (!inet_ntop(AF_INET6, dev->gid.raw, text, len))
		*text = '\0';
	if (!strncmp(text, "::ffff:", 7))
		memmove(text, text + 7, strlen(text + 7) + 1);
}

/* What is to say of them; if it @matters, a device without one cannot work. */
void doctor_port(const struct doctor_device *dev, bool matters)
{
	char text[INET6_ADDRSTRLEN];

	if (!dev->port) {
		useless(dev, matters);
		return;
	}
	address_text(dev, text, sizeof(text));
	doctor_ok("device", "%s: port %u is active%s%s, and has the address %s", dev->name,
		  dev->port, *dev->netdev ? ", on " : "", dev->netdev, text);
}
