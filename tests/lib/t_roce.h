/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * RoCEv2 by hand: a queue pair of the device under test, and its peer, which is this
 * program with a raw socket. It sends what no requester would, and sees the answers.
 */
#ifndef UNPIN_TESTS_T_ROCE_H
#define UNPIN_TESTS_T_ROCE_H

#include "t.h"

#define T_ROCE_PEER	0xabcde		/* our queue pair, which nobody has */
#define T_ROCE_MTU	1024

/* Opcodes of RC; those of UC are the same, and T_UC. */
enum {
	T_SEND_ONLY = 0x04,
	T_WRITE_FIRST = 0x06,
	T_WRITE_MIDDLE = 0x07,
	T_WRITE_LAST = 0x08,
	T_WRITE_ONLY = 0x0a,
	T_WRITE_ONLY_IMM = 0x0b,
	T_READ_REQUEST = 0x0c,
	T_READ_FIRST = 0x0d,
	T_READ_MIDDLE = 0x0e,
	T_READ_LAST = 0x0f,
	T_READ_ONLY = 0x10,
	T_ACK = 0x11,
	T_ATOMIC_ACK = 0x12,
	T_CMP_SWAP = 0x13,
	T_FETCH_ADD = 0x14,
	T_SEND_ONLY_INV = 0x17,
	T_FLUSH = 0x1c,
	T_ATOMIC_WRITE = 0x1d,
	T_UC = 0x20,
};

/* What verbs.h has no words for yet. */
enum {
	T_FLUSH_GLOBAL = 1,
	T_FLUSH_PERSISTENT = 2,
	T_FLUSH_REGION = 1 << 4,	/* the whole of it, not a range */
	T_ACCESS_FLUSH_GLOBAL = 1 << 8,
	T_ACCESS_FLUSH_PERSISTENT = 1 << 9,
};

/* Syndromes of an AETH; an RNR NAK has a timer in its lower bits. */
enum {
	T_SYN_ACK = 0x1f,
	T_SYN_RNR = 0x20,
	T_SYN_SEQUENCE = 0x60,
	T_SYN_INVALID = 0x61,
	T_SYN_ACCESS = 0x62,
	T_SYN_OPERATION = 0x63,
};

#define T_NEXT		0xffffffffU
/* What most requests leave to t_roce_send(). */
#define T_USUAL		.psn = T_NEXT, .pad = T_NEXT

/**
 * struct t_request - a packet; headers that its opcode does not have are not sent
 * @psn: T_NEXT for the one that the responder expects
 * @len: of the RETH
 * @bytes: payload, the pattern of position 0 in round @round
 * @pad: that the BTH claims, and that is sent; T_NEXT for what @bytes needs
 * @spoil: break the checksum
 */
struct t_request {
	u8 opcode;
	u32 psn;
	u64 va;
	u32 rkey;
	u32 len;
	u64 compare;
	u64 swap_add;
	u32 flush;
	u32 inv_rkey;
	size_t bytes;
	u64 round;
	u32 pad;
	bool spoil;
};


struct t_answer {
	u8 opcode;
	u8 syndrome;
	u32 psn;
	u64 value;		/* of an atomic */
	size_t bytes;
	u8 payload[4096];
};

struct t_roce_cfg {
	enum ibv_qp_type type;
	unsigned int access;	/* of the queue pair */
	u8 resources;		/* for READs and atomics */
};

#define T_ROCE_DEFAULT {						\
	.type = IBV_QPT_RC, .resources = 16,				\
	.access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |	\
		  IBV_ACCESS_REMOTE_ATOMIC | T_ACCESS_FLUSH_GLOBAL |	\
		  T_ACCESS_FLUSH_PERSISTENT }

struct t_roce {
	struct t_dev dev;
	struct t_roce_cfg cfg;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	u32 psn;
	u32 ip;			/* of both, in network order */
	int out;
	int in;
};

void t_roce_open(struct t_roce *r, const struct t_roce_cfg *cfg);
void t_roce_connect(struct t_roce *r);
void t_roce_renew(struct t_roce *r);
u32 t_roce_send(struct t_roce *r, const struct t_request *req);
bool t_roce_read(struct t_roce *r, int ms, struct t_answer *answer);
void t_roce_answer(struct t_roce *r, struct t_answer *answer);
const char *t_syndrome(int syndrome);

#endif
