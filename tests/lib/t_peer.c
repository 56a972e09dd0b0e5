// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Asking the peer: one request, one reply, over the connection that the case has. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "t_peer.h"

/* It may still boot, and twice if the first time went wrong. */
#define BOOT_MS		120000
#define TRY_MS		500

/* The other of the two, by what tests/vm/guest has given it. */
static struct sockaddr_in peer_address(void)
{
	const char *number = getenv("UNPIN_LINK");
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(T_PEER_PORT),
	};

	if (!number || !*number)
		t_die("no UNPIN_LINK: this test wants a guest with --link");
	to.sin_addr.s_addr = htonl(0xc0000200 + 3 - atoi(number));
	return to;
}

static int try_connect(void)
{
	struct timeval limit = { .tv_sec = 5 };
	struct timeval none = { 0 };
	struct sockaddr_in to = peer_address();
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (sock < 0)
		t_die("socket: %s", strerror(errno));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(sock, (struct sockaddr *)&to, sizeof(to))) {
		close(sock);
		return -1;
	}
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	return sock;
}

void t_peer_open(struct t_peer *peer)
{
	u64 end = t_deadline(BOOT_MS);

	while ((peer->sock = try_connect()) < 0) {
		if (t_now_ms() > end)
			t_die("the peer does not answer: %s", strerror(errno));
		t_sleep_ms(TRY_MS);
	}
}

static void ask(struct t_peer *peer, const struct t_far_request *request,
		struct t_far_reply *reply)
{
	if (send(peer->sock, request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request) ||
	    recv(peer->sock, reply, sizeof(*reply), MSG_WAITALL) != sizeof(*reply))
		t_die("the peer has given up; its log says why");
}

/* Whether its device can do on-demand paging, which the kernel's own rxe cannot. */
bool t_peer_has_odp(struct t_peer *peer)
{
	struct t_far_request request = { .what = T_FAR_ABOUT };
	struct t_far_reply reply;

	ask(peer, &request, &reply);
	return reply.value;
}

void t_peer_net(struct t_peer *peer, struct t_net *net)
{
	struct t_far_request request = { .what = T_FAR_COUNTERS };
	struct t_far_reply reply;

	ask(peer, &request, &reply);
	*net = reply.net;
}

/* Connected; the peer's buffer of @len bytes is wiped. */
void t_far_open(struct t_far *far, struct t_peer *peer, u32 id, struct t_dev *dev,
		const struct t_cfg *cfg, size_t len)
{
	struct t_far_request request = {
		.what = T_FAR_OPEN, .id = id, .cfg = *cfg, .len = len,
	};
	struct t_far_reply reply;

	memset(far, 0, sizeof(*far));
	far->peer = peer;
	far->id = id;
	t_ep_open(&far->near, dev, cfg);
	ask(peer, &request, &reply);
	far->addr = reply.addr.addr;
	far->rkey = reply.addr.rkey;
	request.what = T_FAR_CONNECT;
	t_ep_addr(&far->near, &request.to);
	t_ep_connect(&far->near, &reply.addr);
	ask(peer, &request, &reply);
}

static struct t_far_reply ask_of(struct t_far *far, struct t_far_request *request)
{
	struct t_far_reply reply;

	request->id = far->id;
	ask(far->peer, request, &reply);
	return reply;
}

/* The pattern from @off on, and nothing else. */
void t_far_fill(struct t_far *far, size_t off, size_t len, u64 round)
{
	struct t_far_request request = {
		.what = T_FAR_FILL, .off = off, .len = len, .round = round,
	};

	ask_of(far, &request);
}

bool t_far_matches(struct t_far *far, size_t off, size_t len, size_t skip, u64 round)
{
	struct t_far_request request = {
		.what = T_FAR_MATCHES, .off = off, .len = len, .skip = skip, .round = round,
	};

	return ask_of(far, &request).value;
}

u64 t_far_word(struct t_far *far, size_t off)
{
	struct t_far_request request = { .what = T_FAR_WORD, .off = off };

	return ask_of(far, &request).value;
}

/* The peer is the requester, with @len bytes at @off of its buffer. */
void t_far_post(struct t_far *far, const struct t_op *op, size_t off, size_t len)
{
	struct t_far_request request = {
		.what = T_FAR_POST, .op = *op, .off = off, .len = len,
	};

	ask_of(far, &request);
}

void t_far_post_recv(struct t_far *far, size_t off, size_t len)
{
	struct t_far_request request = {
		.what = T_FAR_POST_RECV, .off = off, .len = len,
	};

	ask_of(far, &request);
}

struct t_far_done t_far_poll(struct t_far *far, int ms)
{
	struct t_far_request request = { .what = T_FAR_POLL, .ms = ms };

	return ask_of(far, &request).done;
}

/*
 * The peer WRITEs a round to all of @b and READs it back, @count times; it says how
 * often that was right.
 */
u64 t_far_exchange(struct t_far *far, const struct t_buf *b, u32 count, u64 round)
{
	struct t_far_request request = {
		.what = T_FAR_EXCHANGE, .count = count, .round = round,
		.to = { .addr = b->iova, .len = b->len, .rkey = b->mr->rkey },
	};

	return ask_of(far, &request).value;
}
