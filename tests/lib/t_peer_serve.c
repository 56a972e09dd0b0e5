// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What the peer does: a process for each connection, which does what it is asked to,
 * and ends with the connection. Whatever goes wrong ends it, and its words are in
 * the peer's output.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "t_peer.h"

struct side {
	struct t_ep ep;
	struct t_buf buf;
};

struct server {
	struct t_dev dev;
	struct side sides[T_FAR_MAX];
};

static u64 has_odp(const struct server *s)
{
	struct ibv_device_attr_ex attr;

	if (ibv_query_device_ex(s->dev.ctx, NULL, &attr))
		t_die("ibv_query_device_ex: %s", strerror(errno));
	return attr.odp_caps.general_caps;
}

static void wipe(struct side *side)
{
	t_fill(side->buf.p, side->buf.len, T_FAR_WIPED);
}

static void open_side(struct server *s, struct side *side, const struct t_far_request *r,
		      struct t_far_reply *reply)
{
	t_ep_open(&side->ep, &s->dev, &r->cfg);
	t_buf_alloc(&side->buf, 0, r->len);
	wipe(side);
	t_reg_pinned(&side->buf, &s->dev);
	t_ep_addr(&side->ep, &reply->addr);
	reply->addr.addr = side->buf.iova;
	reply->addr.len = side->buf.len;
	reply->addr.rkey = side->buf.mr->rkey;
}

/* The last in a range that was asked for, which must be in the buffer. */
static u8 *range(const struct side *side, const struct t_far_request *r)
{
	t_check(r->skip <= r->off && r->off <= side->buf.len &&
		r->len <= side->buf.len - r->off, "a request beyond the buffer");
	return side->buf.p + r->off;
}

static void fill(struct side *side, const struct t_far_request *r)
{
	u8 *p = range(side, r);

	wipe(side);
	t_fill(p, r->len, r->round);
}

static bool matches(struct side *side, const struct t_far_request *r)
{
	u8 *p = range(side, r);
	size_t end = r->off + r->len;

	t_buf_guard_check(&side->buf, "the peer's buffer");
	return t_matches(p, r->len, r->round) &&
	       t_matches_at(side->buf.p, r->off - r->skip, 0, T_FAR_WIPED) &&
	       t_matches_at(side->buf.p + end, side->buf.len - end, end, T_FAR_WIPED);
}

static u64 word_at(const struct side *side, const struct t_far_request *r)
{
	u64 word;

	memcpy(&word, range(side, r), sizeof(word));
	return word;
}

static void post(struct side *side, const struct t_far_request *r)
{
	struct t_op op = r->op;
	struct ibv_sge sge;

	range(side, r);
	sge = t_sge(&side->buf, r->off, r->len);
	op.sge = &sge;
	op.num_sge = !!r->len;
	t_check(!t_post(&side->ep, &op, NULL), "posting for the case");
}

static void post_recv(struct side *side, const struct t_far_request *r)
{
	struct ibv_sge sge;

	range(side, r);
	sge = t_sge(&side->buf, r->off, r->len);
	t_check(!t_post_recv_sge(&side->ep, &sge, !!r->len), "posting a receive for the case");
}

static struct t_far_done poll_side(struct side *side, int ms)
{
	struct t_far_done done = { .status = T_TIMED_OUT };
	struct ibv_wc wc;

	if (!t_poll(&side->ep, &wc, ms))
		return done;
	done.status = wc.status;
	done.bytes = wc.byte_len;
	done.imm = wc.imm_data;
	return done;
}

static bool exchange_once(struct side *side, const struct t_addr *to, u64 round)
{
	struct t_buf *b = &side->buf;
	struct ibv_mr mr = { .rkey = to->rkey };
	struct t_buf theirs = { .iova = to->addr, .len = to->len, .mr = &mr };

	t_fill(b->p, to->len, round);
	t_expect(t_write(&side->ep, b, 0, &theirs, 0, to->len), IBV_WC_SUCCESS, "WRITE");
	memset(b->p, 0x5a, to->len);
	t_expect(t_read(&side->ep, b, 0, &theirs, 0, to->len), IBV_WC_SUCCESS, "READ");
	return t_matches(b->p, to->len, round);
}

static u64 exchange(struct side *side, const struct t_far_request *r)
{
	u64 right = 0;
	u32 i;

	t_check(r->to.len <= side->buf.len, "an exchange beyond the buffer");
	for (i = 0; i < r->count; i++)
		right += exchange_once(side, &r->to, r->round + i);
	return right;
}

static void serve_one(struct server *s, const struct t_far_request *r,
		      struct t_far_reply *reply)
{
	struct side *side = &s->sides[r->id % T_FAR_MAX];

	memset(reply, 0, sizeof(*reply));
	t_check(r->what <= T_FAR_CONNECT || side->ep.qp, "a request for no queue pair");
	switch (r->what) {
	case T_FAR_ABOUT:
		reply->value = has_odp(s);
		break;
	case T_FAR_COUNTERS:
		t_net_read(&reply->net);
		break;
	case T_FAR_OPEN:
		open_side(s, side, r, reply);
		break;
	case T_FAR_CONNECT:
		t_ep_connect(&side->ep, &r->to);
		break;
	case T_FAR_FILL:
		fill(side, r);
		break;
	case T_FAR_MATCHES:
		reply->value = matches(side, r);
		break;
	case T_FAR_WORD:
		reply->value = word_at(side, r);
		break;
	case T_FAR_POST:
		post(side, r);
		break;
	case T_FAR_POST_RECV:
		post_recv(side, r);
		break;
	case T_FAR_POLL:
		reply->done = poll_side(side, r->ms);
		break;
	case T_FAR_EXCHANGE:
		reply->value = exchange(side, r);
		break;
	default:
		t_die("request %u is unknown", r->what);
	}
}

static void serve(int sock)
{
	struct t_far_request request;
	struct t_far_reply reply;
	struct server s;
	int one = 1;

	memset(&s, 0, sizeof(s));
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	t_dev_open(&s.dev);
	while (recv(sock, &request, sizeof(request), MSG_WAITALL) == sizeof(request)) {
		serve_one(&s, &request, &reply);
		if (send(sock, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
			break;
	}
}

static int listen_here(void)
{
	struct sockaddr_in any = {
		.sin_family = AF_INET, .sin_port = htons(T_PEER_PORT),
	};
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (struct sockaddr *)&any, sizeof(any)) || listen(sock, 8))
		t_die("listening: %s", strerror(errno));
	return sock;
}

/* For ever; tests/group looks for the word. */
int t_peer_serve(void)
{
	int listener = listen_here(), sock;

	signal(SIGCHLD, SIG_IGN);
	puts("serving");
	fflush(stdout);
	while ((sock = accept(listener, NULL, NULL)) >= 0) {
		if (!t_fork()) {
			close(listener);
			serve(sock);
			_exit(0);
		}
		close(sock);
	}
	t_die("accept: %s", strerror(errno));
}
