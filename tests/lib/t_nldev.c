// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What `rdma resource` counts and `rdma link add` does, said to the kernel by this
 * thread itself: quick, and its allocations can be made to fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "t.h"

#define NLDEV(command)	RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_##command)

struct message {
	struct nlmsghdr hdr;
	u8 attrs[16384];
};

static void add(struct message *msg, u16 type, const void *data, size_t len)
{
	struct nlattr *attr = (void *)((u8 *)msg + NLMSG_ALIGN(msg->hdr.nlmsg_len));

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + len;
	memcpy(attr + 1, data, len);
	msg->hdr.nlmsg_len = NLMSG_ALIGN(msg->hdr.nlmsg_len) + NLA_ALIGN(attr->nla_len);
}

static void add_text(struct message *msg, u16 type, const char *text)
{
	add(msg, type, text, strlen(text) + 1);
}

static void begin(struct message *msg, u16 type, u16 flags)
{
	memset(msg, 0, sizeof(*msg));
	msg->hdr.nlmsg_len = NLMSG_HDRLEN;
	msg->hdr.nlmsg_type = type;
	msg->hdr.nlmsg_flags = NLM_F_REQUEST | flags;
}

/* Send @msg; what comes back is put in its place. Returns its length, or -1. */
static ssize_t exchange(struct message *msg)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
	ssize_t n = -1;
	int err;

	if (fd < 0)
		return -1;
	if (send(fd, msg, msg->hdr.nlmsg_len, 0) >= 0)
		n = recv(fd, msg, sizeof(*msg), MSG_DONTWAIT);
	err = errno;
	close(fd);
	errno = err;
	return n;
}

/* Returns 0 or an error, of the exchange or of what was asked for. */
static int ask(struct message *msg)
{
	const struct nlmsgerr *err = (void *)msg->attrs;
	ssize_t n = exchange(msg);

	if (n < (ssize_t)NLMSG_HDRLEN)
		return n < 0 ? errno : EIO;
	return msg->hdr.nlmsg_type == NLMSG_ERROR ? -err->error : 0;
}

static const struct nlattr *attr_of(const u8 *p, const u8 *end, u16 type)
{
	const struct nlattr *attr;

	for (; p + NLA_HDRLEN <= end; p += NLA_ALIGN(attr->nla_len)) {
		attr = (const void *)p;
		if (attr->nla_len < NLA_HDRLEN || p + attr->nla_len > end)
			break;
		if ((attr->nla_type & NLA_TYPE_MASK) == type)
			return attr;
	}
	return NULL;
}

static const u8 *inside(const struct nlattr *attr)
{
	return (const u8 *)(attr + 1);
}

static const u8 *end_of(const struct nlattr *attr)
{
	return (const u8 *)attr + attr->nla_len;
}

/* The index in one message about a device, if that is ours. */
static bool index_in(const struct nlmsghdr *hdr, u32 *index)
{
	const u8 *attrs = (const u8 *)hdr + NLMSG_HDRLEN;
	const u8 *end = (const u8 *)hdr + hdr->nlmsg_len;
	const struct nlattr *name = attr_of(attrs, end, RDMA_NLDEV_ATTR_DEV_NAME);
	const struct nlattr *value = attr_of(attrs, end, RDMA_NLDEV_ATTR_DEV_INDEX);

	if (!name || !value || strcmp((const char *)inside(name), t_opts.dev))
		return false;
	memcpy(index, inside(value), sizeof(*index));
	return true;
}

/* By what number the kernel knows the device. */
u32 t_link_index(void)
{
	const struct nlmsghdr *hdr;
	struct message msg;
	ssize_t n;
	u32 index;

	begin(&msg, NLDEV(GET), NLM_F_DUMP);
	n = exchange(&msg);
	if (n < 0)
		t_die("netlink: %s", strerror(errno));
	for (hdr = &msg.hdr; NLMSG_OK(hdr, n); hdr = NLMSG_NEXT(hdr, n)) {
		if (hdr->nlmsg_type == NLDEV(GET) && index_in(hdr, &index))
			return index;
	}
	t_die("netlink knows no %s", t_opts.dev);
}

static long count_in(const struct nlattr *summary, const char *what)
{
	const struct nlattr *entry, *name, *count;
	const u8 *p = inside(summary);
	u64 value;

	while ((entry = attr_of(p, end_of(summary),
				RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY))) {
		p = (const u8 *)entry + NLA_ALIGN(entry->nla_len);
		name = attr_of(inside(entry), end_of(entry),
			       RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME);
		count = attr_of(inside(entry), end_of(entry),
				RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR);
		if (!name || !count || strcmp((const char *)inside(name), what))
			continue;
		memcpy(&value, inside(count), sizeof(value));
		return value;
	}
	t_die("netlink counts no %s", what);
}

/* How many there are of "mr", "qp", "cq", "pd", "ctx". */
long t_resources(const char *what)
{
	const struct nlattr *summary;
	struct message msg;
	u32 index = t_link_index();
	int err;

	begin(&msg, NLDEV(RES_GET), 0);
	add(&msg, RDMA_NLDEV_ATTR_DEV_INDEX, &index, sizeof(index));
	err = ask(&msg);
	if (err)
		t_die("resources: %s", strerror(err));
	summary = attr_of(msg.attrs, (u8 *)&msg + msg.hdr.nlmsg_len,
			  RDMA_NLDEV_ATTR_RES_SUMMARY);
	if (!summary)
		t_die("no summary of resources");
	return count_in(summary, what);
}

/* rdma link add; 0 or an error, EAGAIN if the answer was lost. */
int t_link_add(void)
{
	struct message msg;

	begin(&msg, NLDEV(NEWLINK), NLM_F_ACK);
	add_text(&msg, RDMA_NLDEV_ATTR_DEV_NAME, t_opts.dev);
	add_text(&msg, RDMA_NLDEV_ATTR_LINK_TYPE, "rxe");
	add_text(&msg, RDMA_NLDEV_ATTR_NDEV_NAME, "lo");
	return ask(&msg);
}

int t_link_delete(u32 index)
{
	struct message msg;

	begin(&msg, NLDEV(DELLINK), NLM_F_ACK);
	add(&msg, RDMA_NLDEV_ATTR_DEV_INDEX, &index, sizeof(index));
	return ask(&msg);
}
