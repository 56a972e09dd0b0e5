/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A peer in another guest (tests/vm/run --link): what a case asks it for, over TCP on
 * the same link, and what it does. Its memory is pinned, and there.
 *
 * Both sides are the same program, so a request is a struct as it is.
 */
#ifndef UNPIN_TESTS_T_PEER_H
#define UNPIN_TESTS_T_PEER_H

#include "t.h"
#include "t_net.h"

/* Each case has its own, which ends with it. */
struct t_peer {
	int sock;
};

/*
 * A queue pair here, one of the peer's, and a buffer there. What a byte of that holds
 * is the pattern of the last round within the range that was filled, and what
 * T_FAR_WIPED has at its offset elsewhere.
 */
struct t_far {
	struct t_peer *peer;
	struct t_ep near;
	u32 id;
	u64 addr;
	u32 rkey;
};

#define T_FAR_MAX	16
#define T_FAR_WIPED	4711

/* A completion of the peer's; status is T_TIMED_OUT as long as there is none. */
struct t_far_done {
	enum ibv_wc_status status;
	u32 bytes;
	u32 imm;
};

/* What the peer is asked to do with one of its queue pairs. */
enum t_far_what {
	T_FAR_ABOUT, T_FAR_COUNTERS, T_FAR_OPEN, T_FAR_CONNECT, T_FAR_FILL,
	T_FAR_MATCHES, T_FAR_WORD, T_FAR_POST, T_FAR_POST_RECV, T_FAR_POLL,
	T_FAR_EXCHANGE,
};

/**
 * struct t_far_request - what a case asks for
 * @what: which
 * @id: of the queue pair, a number that the case chooses
 * @cfg: of a new queue pair
 * @to: our queue pair, or our memory: addr, len and rkey
 * @op: what to post; its list is @off and @len
 * @off: offset in the peer's buffer
 * @len: bytes from there, or of a new buffer
 * @skip: bytes before @off that may hold anything
 * @round: of the pattern
 * @count: of exchanges
 * @ms: how long to wait for a completion
 */
struct t_far_request {
	u32 what;
	u32 id;
	struct t_cfg cfg;
	struct t_addr to;
	struct t_op op;
	u64 off;
	u64 len;
	u64 skip;
	u64 round;
	u32 count;
	int ms;
};

struct t_far_reply {
	struct t_addr addr;
	struct t_far_done done;
	struct t_net net;
	u64 value;
};

/* ---- the case's side: t_peer.c ---- */

void t_peer_open(struct t_peer *peer);
bool t_peer_has_odp(struct t_peer *peer);
void t_peer_net(struct t_peer *peer, struct t_net *net);

void t_far_open(struct t_far *far, struct t_peer *peer, u32 id, struct t_dev *dev,
		const struct t_cfg *cfg, size_t len);
void t_far_fill(struct t_far *far, size_t off, size_t len, u64 round);
bool t_far_matches(struct t_far *far, size_t off, size_t len, size_t skip, u64 round);
u64 t_far_word(struct t_far *far, size_t off);
void t_far_post(struct t_far *far, const struct t_op *op, size_t off, size_t len);
void t_far_post_recv(struct t_far *far, size_t off, size_t len);
struct t_far_done t_far_poll(struct t_far *far, int ms);
u64 t_far_exchange(struct t_far *far, const struct t_buf *b, u32 count, u64 round);

/* ---- the peer's side: t_peer_serve.c ---- */

#define T_PEER_PORT	7471

int t_peer_serve(void);

#endif
