// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * RoCEv2 by hand, over lo. rxe short-cuts what it sends to itself, so that no socket
 * sees it, and knows itself by the hardware address: lo gets another one after the
 * queue pair has learnt its peer's. Then the answers leave as packets, go through lo,
 * and are dropped there, for nobody has the peer's queue pair.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "t_roce.h"

#define ROCE_PORT	4791
#define SOURCE_PORT	0xc123
#define BTH_BYTES	12
#define CRC_BYTES	4

/* Network headers, BTH, the rest and the checksum. */
struct packet {
	struct iphdr ip;
	struct udphdr udp;
	u8 bytes[4608];
};

/* Headers after the BTH, in their order. */
enum {
	FETH = 1, RETH = 2, ATOMIC_ETH = 4, IMMDT = 8, IETH = 16, AETH = 32,
	ATOMIC_ACK_ETH = 64,
};

static unsigned int headers_of(u8 opcode)
{
	switch (opcode & 0x1f) {
	case T_WRITE_FIRST:
	case T_WRITE_ONLY:
	case T_READ_REQUEST:
	case T_ATOMIC_WRITE:
		return RETH;
	case T_WRITE_ONLY_IMM:
		return RETH | IMMDT;
	case T_FLUSH:
		return FETH | RETH;
	case T_CMP_SWAP:
	case T_FETCH_ADD:
		return ATOMIC_ETH;
	case T_SEND_ONLY_INV:
		return IETH;
	case T_READ_FIRST:
	case T_READ_LAST:
	case T_READ_ONLY:
	case T_ACK:
		return AETH;
	case T_ATOMIC_ACK:
		return AETH | ATOMIC_ACK_ETH;
	}
	return 0;
}

/* ---- bytes ---- */

static u8 *put(u8 *p, u64 value, size_t bytes)
{
	while (bytes--)
		*p++ = value >> 8 * bytes;
	return p;
}

static u64 get(const u8 *p, size_t bytes)
{
	u64 value = 0;

	while (bytes--)
		value = value << 8 | *p++;
	return value;
}

static u32 crc32_of(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;
	int bit;

	while (len--) {
		crc ^= *p++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return crc;
}

/*
 * Over all that does not change on the way; what does counts as ones (IBA A17). rxe
 * takes the headers of a FLUSH for its payload, too.
 */
static u32 icrc_of(const struct packet *packet, size_t bytes)
{
	struct packet p = *packet;
	/* the seed is what 8 bytes of ones, in the place of an LRH, leave */
	u32 crc = 0xdebb20e3;
	size_t again = (packet->bytes[0] & 0x1f) == T_FLUSH ? bytes : 0;

	p.ip.tos = 0xff;
	p.ip.ttl = 0xff;
	p.ip.check = 0xffff;
	p.udp.check = 0xffff;
	p.bytes[4] = 0xff;
	crc = crc32_of(crc, &p, sizeof(p.ip) + sizeof(p.udp) + bytes);
	return ~crc32_of(crc, packet->bytes, again);
}

/* ---- requests ---- */

static u8 *put_bth(u8 *p, const struct t_roce *r, const struct t_request *req, u32 psn,
		   u32 pad)
{
	p = put(p, req->opcode, 1);
	p = put(p, pad << 4, 1);
	p = put(p, 0xffff, 2);
	p = put(p, r->qp->qp_num, 4);
	/* the acknowledge request bit */
	return put(p, 1U << 31 | psn, 4);
}

static u8 *put_reth(u8 *p, const struct t_request *req)
{
	p = put(p, req->va, 8);
	p = put(p, req->rkey, 4);
	return put(p, req->len, 4);
}

static u8 *put_headers(u8 *p, const struct t_request *req)
{
	unsigned int headers = headers_of(req->opcode);

	if (headers & FETH)
		p = put(p, req->flush, 4);
	if (headers & RETH)
		p = put_reth(p, req);
	if (headers & ATOMIC_ETH) {
		p = put(p, req->va, 8);
		p = put(p, req->rkey, 4);
		p = put(p, req->swap_add, 8);
		p = put(p, req->compare, 8);
	}
	if (headers & IMMDT)
		p = put(p, 0x11223344, 4);
	if (headers & IETH)
		p = put(p, req->inv_rkey, 4);
	return p;
}

static void put_network(const struct t_roce *r, struct packet *packet, size_t bytes)
{
	size_t len = sizeof(packet->udp) + bytes;

	packet->ip = (struct iphdr){
		.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
		.id = htons(1), .frag_off = htons(IP_DF),
		.tot_len = htons(sizeof(packet->ip) + len),
		.saddr = r->ip, .daddr = r->ip,
	};
	packet->udp = (struct udphdr){
		.source = htons(SOURCE_PORT), .dest = htons(ROCE_PORT), .len = htons(len),
	};
}

static void transmit(const struct t_roce *r, const struct packet *packet)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = r->ip };
	size_t len = ntohs(packet->ip.tot_len);

	if (sendto(r->out, packet, len, 0, (void *)&to, sizeof(to)) != (ssize_t)len)
		t_die("sending a packet: %s", strerror(errno));
}

/* How many packets the answer to a READ takes: the next request's PSN is after them. */
static u32 psns_of(const struct t_request *req)
{
	if (req->opcode != T_READ_REQUEST || req->len <= T_ROCE_MTU)
		return 1;
	return (req->len + T_ROCE_MTU - 1) / T_ROCE_MTU;
}

/* Returns the packet's sequence number. */
u32 t_roce_send(struct t_roce *r, const struct t_request *req)
{
	u32 psn = req->psn == T_NEXT ? r->psn : req->psn;
	u32 pad = req->pad == T_NEXT ? -req->bytes & 3 : req->pad;
	struct packet packet;
	size_t bytes;
	u32 crc;
	u8 *p;

	p = put_bth(packet.bytes, r, req, psn, pad);
	p = put_headers(p, req);
	if (p + req->bytes + pad + CRC_BYTES > packet.bytes + sizeof(packet.bytes))
		t_die("a payload of %zu bytes", req->bytes);
	t_fill(p, req->bytes, req->round);
	memset(p + req->bytes, 0, pad);
	bytes = p - packet.bytes + req->bytes + pad;
	put_network(r, &packet, bytes + CRC_BYTES);
	crc = icrc_of(&packet, bytes) ^ req->spoil;
	memcpy(packet.bytes + bytes, &crc, sizeof(crc));
	if (req->psn == T_NEXT)
		r->psn = (psn + psns_of(req)) & 0xffffff;
	transmit(r, &packet);
	return psn;
}

/* ---- answers ---- */

static bool is_answer(const struct t_roce *r, const struct packet *packet, ssize_t n)
{
	return n >= (ssize_t)(sizeof(packet->ip) + sizeof(packet->udp) + BTH_BYTES + CRC_BYTES) &&
		packet->ip.ihl == 5 && packet->ip.saddr == r->ip &&
		packet->udp.dest == htons(ROCE_PORT) &&
		get(packet->bytes + 5, 3) == T_ROCE_PEER;
}

static void check_icrc(const struct packet *packet, size_t bytes)
{
	u32 crc;

	memcpy(&crc, packet->bytes + bytes, sizeof(crc));
	t_check(crc == icrc_of(packet, bytes), "the checksum of an answer is wrong");
}

static void parse(const struct packet *packet, struct t_answer *answer)
{
	size_t bytes = ntohs(packet->udp.len) - sizeof(packet->udp) - CRC_BYTES;
	const u8 *p = packet->bytes, *end = p + bytes;
	unsigned int headers = headers_of(p[0]);

	check_icrc(packet, bytes);
	memset(answer, 0, offsetof(struct t_answer, payload));
	answer->opcode = p[0];
	answer->psn = get(p + 9, 3);
	end -= p[1] >> 4 & 3;
	p += BTH_BYTES;
	if (headers & AETH) {
		answer->syndrome = p[0];
		p += 4;
	}
	if (headers & ATOMIC_ACK_ETH) {
		answer->value = get(p, 8);
		p += 8;
	}
	answer->bytes = end - p;
	t_check(p <= end && answer->bytes <= sizeof(answer->payload), "answer of odd size");
	memcpy(answer->payload, p, answer->bytes);
}

/* The next answer, if one comes. */
bool t_roce_read(struct t_roce *r, int ms, struct t_answer *answer)
{
	struct pollfd fd = { .fd = r->in, .events = POLLIN };
	u64 end = t_deadline(ms);
	struct packet packet;
	ssize_t n;

	do {
		n = recv(r->in, &packet, sizeof(packet), MSG_DONTWAIT);
		if (is_answer(r, &packet, n)) {
			parse(&packet, answer);
			return true;
		}
		if (n < 0)
			poll(&fd, 1, 10);
	} while (t_now_ms() < end);
	return false;
}

void t_roce_answer(struct t_roce *r, struct t_answer *answer)
{
	t_check(t_roce_read(r, T_WAIT_MS, answer), "no answer");
}

const char *t_syndrome(int syndrome)
{
	switch (syndrome) {
	case T_SYN_ACK:
		return "ACK";
	case T_SYN_SEQUENCE:
		return "NAK: sequence";
	case T_SYN_INVALID:
		return "NAK: invalid request";
	case T_SYN_ACCESS:
		return "NAK: remote access";
	case T_SYN_OPERATION:
		return "NAK: remote operational";
	}
	return (syndrome & 0xe0) == T_SYN_RNR ? "RNR NAK" : "no such syndrome";
}

/* ---- the queue pair ---- */

static void set_lo_address(int fd, u8 last)
{
	struct ifreq req = { .ifr_name = "lo", .ifr_hwaddr.sa_family = ARPHRD_LOOPBACK };

	/* a locally administered one: that of all zeros, which it has, is no longer taken */
	req.ifr_hwaddr.sa_data[0] = 2;
	req.ifr_hwaddr.sa_data[5] = last;
	if (ioctl(fd, SIOCSIFHWADDR, &req))
		t_die("hardware address of lo: %s", strerror(errno));
}

static void modify(struct t_roce *r, struct ibv_qp_attr *attr, int mask, const char *to)
{
	int err = ibv_modify_qp(r->qp, attr, mask);

	if (err)
		t_die("queue pair to %s: %s", to, strerror(err));
}

static void to_init(struct t_roce *r)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = r->cfg.access,
	};

	modify(r, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
	       IBV_QP_ACCESS_FLAGS, "INIT");
}

static void to_rtr(struct t_roce *r)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
		.dest_qp_num = T_ROCE_PEER, .rq_psn = r->psn,
		.max_dest_rd_atomic = r->cfg.resources, .min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1, .port_num = 1,
			.grh = {
				.dgid = r->dev.gid, .sgid_index = t_opts.gid,
				.hop_limit = 64,
			},
		},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
		IBV_QP_RQ_PSN;

	if (r->cfg.type == IBV_QPT_RC)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	modify(r, &attr, mask, "RTR");
}

static void to_rts(struct t_roce *r)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7, .rnr_retry = 7,
		.sq_psn = 0x1000, .max_rd_atomic = 16,
	};
	int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

	if (r->cfg.type == IBV_QPT_RC)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_MAX_QP_RD_ATOMIC;
	modify(r, &attr, mask, "RTS");
}

/* A queue pair whose peer we are. */
void t_roce_connect(struct t_roce *r)
{
	struct ibv_qp_init_attr init = {
		.send_cq = r->cq, .recv_cq = r->cq, .qp_type = r->cfg.type, .sq_sig_all = 1,
		.cap = {
			.max_send_wr = 16, .max_recv_wr = 16,
			.max_send_sge = 1, .max_recv_sge = 1,
		},
	};

	r->qp = ibv_create_qp(r->dev.pd, &init);
	if (!r->qp)
		t_die("ibv_create_qp: %s", strerror(errno));
	r->psn = 0xfffff0;
	to_init(r);
	set_lo_address(r->out, 1);
	to_rtr(r);
	to_rts(r);
	set_lo_address(r->out, 2);
}

/* After an error: another queue pair. */
void t_roce_renew(struct t_roce *r)
{
	struct ibv_wc wc;
	int err = ibv_destroy_qp(r->qp);

	if (err)
		t_die("ibv_destroy_qp: %s", strerror(err));
	while (ibv_poll_cq(r->cq, 1, &wc) > 0)
		;
	t_roce_connect(r);
}

static int raw_socket(int protocol)
{
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		t_die("raw socket: %s", strerror(errno));
	return fd;
}

/* NULL for an RC queue pair that may do all. */
void t_roce_open(struct t_roce *r, const struct t_roce_cfg *cfg)
{
	static const struct t_roce_cfg usual = T_ROCE_DEFAULT;

	memset(r, 0, sizeof(*r));
	r->cfg = cfg ? *cfg : usual;
	t_dev_open(&r->dev);
	memcpy(&r->ip, r->dev.gid.raw + 12, sizeof(r->ip));
	r->out = raw_socket(IPPROTO_RAW);
	r->in = raw_socket(IPPROTO_UDP);
	r->cq = ibv_create_cq(r->dev.ctx, 64, NULL, NULL, 0);
	if (!r->cq)
		t_die("ibv_create_cq: %s", strerror(errno));
	t_roce_connect(r);
}
