// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * On-demand memory here, and ordinary pinned memory on another host, whose rxe is the
 * kernel's own. Each operation, both ways, cold; that faults cost the network nothing
 * that pinned memory would not; and pages that take seconds, at usual timeouts.
 *
 * With --serve it is the other host: see tests/lib/t_peer.h.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_net.h"
#include "t_peer.h"
#include "t_slow.h"

#define MIB		(1UL << 20)

static void unmodified(const void *arg)
{
	struct t_peer peer;

	(void)arg;
	t_peer_open(&peer);
	t_check(!t_peer_has_odp(&peer), "the peer's device can do on-demand paging");
}

/* ---- each operation, both ways ---- */

#define LEN		(20 * T_PAGE + 77)
#define LEN_UD		3001
#define NEAR_OFF	1237
#define FAR_OFF		4001
#define ROUNDS		5
#define IMM		0xabcd00U
#define PATIENT_MS	20000

struct way {
	enum ibv_qp_type type;
	enum ibv_wr_opcode opcode;
};

/* The message is in a buffer of each side, at other places of a page. */
struct link {
	const struct way *way;
	struct t_peer peer;
	struct t_dev dev;
	struct t_far far;
	struct t_buf near;
	size_t len;
	size_t grh;	/* what a target begins with that is not the message's */
};

static bool is_atomic(enum ibv_wr_opcode opcode)
{
	return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

static bool is_send(enum ibv_wr_opcode opcode)
{
	return opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM;
}

static bool has_imm(enum ibv_wr_opcode opcode)
{
	return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

static void link_open_timeout(struct link *l, const struct way *way, size_t len,
			      enum ibv_mtu mtu, u8 timeout)
{
	struct t_cfg cfg = T_CFG_DEFAULT;

	cfg.type = way->type;
	cfg.mtu = mtu;
	cfg.timeout = timeout;
	memset(l, 0, sizeof(*l));
	l->way = way;
	l->len = len;
	l->grh = way->type == IBV_QPT_UD ? T_GRH : 0;
	t_peer_open(&l->peer);
	t_dev_open(&l->dev);
	t_far_open(&l->far, &l->peer, 0, &l->dev, &cfg, FAR_OFF + l->grh + l->len + T_PAGE);
	t_buf_alloc(&l->near, NEAR_OFF, l->grh + l->len);
	t_reg(&l->near, &l->dev);
}

/* Nothing is lost between two guests, but the host may be busy. */
static void link_open(struct link *l, const struct way *way, size_t len, enum ibv_mtu mtu)
{
	link_open_timeout(l, way, len, mtu, 20);
}

/* Out of memory; of a target that is to be fresh what no canary is in, away. */
static void make_cold(const struct t_buf *b, bool fresh)
{
	u8 *first = b->map + 2 * T_PAGE;
	size_t inner = b->map_len - 4 * T_PAGE;

	if (!t_opts.odp)
		return;
	t_check(t_pageout(b->map, b->map_len), "the buffer stays in memory");
	if (fresh && b->map_len > 4 * T_PAGE)
		t_check(!madvise(first, inner, MADV_DONTNEED), "MADV_DONTNEED");
}

static struct t_op op_of(const struct link *l, u64 raddr, u32 rkey, u64 round)
{
	struct t_op op = { .opcode = l->way->opcode };

	if (has_imm(op.opcode))
		op.imm = IMM + round;
	if (!is_send(op.opcode)) {
		op.raddr = raddr;
		op.rkey = rkey;
	}
	return op;
}

static struct t_far_done near_poll(struct t_ep *ep)
{
	struct t_far_done done = { .status = T_TIMED_OUT };
	struct ibv_wc wc;

	if (t_poll(ep, &wc, PATIENT_MS)) {
		done.status = wc.status;
		done.bytes = wc.byte_len;
		done.imm = wc.imm_data;
	}
	return done;
}

static void check_receive(const struct link *l, struct t_far_done done, u64 round)
{
	t_expect(done.status, IBV_WC_SUCCESS, "receive");
	if (has_imm(l->way->opcode))
		t_check(done.imm == IMM + round, "immediate %#x, not %#x", done.imm,
			(u32)(IMM + round));
	if (is_send(l->way->opcode))
		t_check(done.bytes == l->grh + l->len, "%u bytes received, not %zu", done.bytes,
			l->grh + l->len);
}

/* Ours is the request. */
static void we_post(struct link *l, u64 round)
{
	struct t_op op = op_of(l, l->far.addr + FAR_OFF, l->far.rkey, round);
	struct ibv_sge sge = t_sge(&l->near, 0, l->len);

	if (is_send(op.opcode))
		t_far_post_recv(&l->far, FAR_OFF, l->grh + l->len);
	else if (has_imm(op.opcode))
		t_far_post_recv(&l->far, FAR_OFF, 0);
	op.sge = &sge;
	op.num_sge = 1;
	t_expect(t_do(&l->far.near, &op), IBV_WC_SUCCESS, "our request");
	if (is_send(op.opcode) || has_imm(op.opcode))
		check_receive(l, t_far_poll(&l->far, PATIENT_MS), round);
}

/* The peer's is the request. */
static void they_post(struct link *l, u64 round)
{
	struct t_op op = op_of(l, l->near.iova, l->near.mr->rkey, round);
	struct t_ep *ep = &l->far.near;

	if (is_send(op.opcode))
		t_post_recv(ep, &l->near, 0, l->grh + l->len);
	else if (has_imm(op.opcode))
		t_check(!t_post_recv_sge(ep, NULL, 0), "posting the receive");
	t_far_post(&l->far, &op, FAR_OFF, l->len);
	t_expect(t_far_poll(&l->far, PATIENT_MS).status, IBV_WC_SUCCESS, "the peer's request");
	if (is_send(op.opcode) || has_imm(op.opcode))
		check_receive(l, near_poll(ep), round);
}

/* Every byte on both sides: what has come, what it came from, and all around. */
static void check_both(struct link *l, bool to_far, u64 round)
{
	size_t near_grh = to_far ? 0 : l->grh, far_grh = to_far ? l->grh : 0;

	t_check(t_matches(l->near.p + near_grh, l->len, round), "wrong bytes here");
	t_buf_guard_check(&l->near, "our buffer");
	t_check(t_far_matches(&l->far, FAR_OFF + far_grh, l->len, far_grh, round),
		"wrong bytes at the peer's");
}

static void prepare(struct link *l, bool to_far, u64 round)
{
	if (to_far) {
		t_fill(l->near.p, l->len, round);
		t_far_fill(&l->far, 0, 0, 0);
	} else {
		memset(l->near.p, 0x5a, l->near.len);
		t_far_fill(&l->far, FAR_OFF, l->len, round);
	}
}

/* One message, which we request, or they. */
static void one_message(struct link *l, bool we, bool cold, u64 round)
{
	bool to_far = we == (l->way->opcode != IBV_WR_RDMA_READ);
	long faults;

	prepare(l, to_far, round);
	if (cold)
		make_cold(&l->near, !to_far && round / 2 % 2);
	faults = t_stat("faults");
	(we ? we_post : they_post)(l, round);
	if (cold && t_opts.odp)
		t_check(t_stat("faults") > faults, "nothing was cold");
	check_both(l, to_far, round);
}

static void messages(struct link *l)
{
	bool cold;
	u64 round;

	for (round = 0; round < ROUNDS; round++) {
		cold = round != ROUNDS - 1;
		one_message(l, true, cold, 2 * round);
		one_message(l, false, cold, 2 * round + 1);
	}
}

/* ---- atomics ---- */

/* What the target then holds. */
static u64 after(const struct t_op *op, u64 before)
{
	return op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ? op->swap : before + op->compare_add;
}

static u64 word_in(const struct t_buf *b)
{
	u64 word;

	memcpy(&word, b->p, sizeof(word));
	return word;
}

static struct t_op atomic_op(const struct link *l, u64 raddr, u32 rkey, u64 before, u64 round)
{
	struct t_op op = op_of(l, raddr, rkey, round);

	op.compare_add = before;
	if (op.opcode == IBV_WR_ATOMIC_CMP_AND_SWP)
		op.swap = before * 3 + round;
	return op;
}

/* On the peer's word, the result into cold memory of ours. */
static void our_atomic(struct link *l, struct t_buf *word, u64 round)
{
	u64 before = t_far_word(&l->far, 0);
	struct t_op op = atomic_op(l, l->far.addr, l->far.rkey, before, round);
	struct ibv_sge sge = t_sge(word, 0, 8);

	op.sge = &sge;
	op.num_sge = 1;
	make_cold(word, false);
	t_expect(t_do(&l->far.near, &op), IBV_WC_SUCCESS, "our atomic");
	t_check(word_in(word) == before, "the result is not what was there");
	t_check(t_far_word(&l->far, 0) == after(&op, before), "the peer's word is wrong");
}

/* On a cold word of ours, the result into the peer's memory. */
static void their_atomic(struct link *l, struct t_buf *word, u64 round)
{
	u64 before = word_in(word);
	struct t_op op = atomic_op(l, word->iova, word->mr->rkey, before, round);

	make_cold(word, false);
	t_far_post(&l->far, &op, 64, 8);
	t_expect(t_far_poll(&l->far, PATIENT_MS).status, IBV_WC_SUCCESS, "the peer's atomic");
	t_check(t_far_word(&l->far, 64) == before, "the peer's result is not what was there");
	t_check(word_in(word) == after(&op, before), "our word is wrong");
}

static void atomics(struct link *l)
{
	struct t_buf word;
	u64 round;

	t_buf_alloc(&word, 1232, 8);
	t_reg(&word, &l->dev);
	for (round = 0; round < 2 * ROUNDS; round++) {
		our_atomic(l, &word, round);
		t_fill(word.p, 8, round);
		their_atomic(l, &word, round);
		t_buf_guard_check(&word, "our word");
	}
}

static void operation(const void *arg)
{
	const struct way *way = arg;
	bool datagram = way->type == IBV_QPT_UD;
	struct link l;

	link_open(&l, way, datagram ? LEN_UD : LEN, datagram ? IBV_MTU_4096 : IBV_MTU_1024);
	if (is_atomic(way->opcode))
		atomics(&l);
	else
		messages(&l);
}

/* ---- faults are no network events ---- */

/* A debug kernel takes its time for each packet. */
static u64 quiet_messages(void)
{
	return t_patience(1) > 1 ? 3 : 6;
}

struct quiet {
	enum ibv_wr_opcode opcode;
	bool we;	/* post it */
};

struct counts {
	struct t_net here;
	struct t_net there;
	long faults;
};

static void read_counts(struct counts *c, struct t_peer *peer)
{
	t_net_read(&c->here);
	t_peer_net(peer, &c->there);
	c->faults = t_stat("faults");
}

/* Messages of a MiB, in the largest packets. */
static void move(const struct quiet *q, bool odp, struct counts *c)
{
	struct way way = { IBV_QPT_RC, q->opcode };
	struct counts before;
	struct link l;
	u64 round;

	t_opts.odp = odp;
	link_open(&l, &way, MIB, IBV_MTU_4096);
	read_counts(&before, &l.peer);
	for (round = 0; round < quiet_messages(); round++)
		one_message(&l, q->we, true, round);
	read_counts(c, &l.peer);
	t_net_since(&c->here, &before.here);
	t_net_since(&c->there, &before.there);
	c->faults -= before.faults;
}

static bool compare(const struct quiet *q)
{
	struct counts pinned, odp;
	bool none;

	move(q, false, &pinned);
	move(q, true, &odp);
	none = t_net_no_more(&odp.here, &pinned.here, "here: ");
	none &= t_net_no_more(&odp.there, &pinned.there, "there: ");
	t_check(!pinned.faults, "pinned memory was faulted");
	t_diag("%ld faults for %u messages of 1 MiB", odp.faults,
	       (unsigned int)quiet_messages());
	return none;
}

/* A busy host repeats something now and then; what faults cost they cost each time. */
static void costs_the_network_nothing(const void *arg)
{
	int tries;

	for (tries = 0; tries < 3; tries++) {
		if (compare(arg))
			return;
	}
	t_check(false, "more than pinned, each time");
}

/* ---- a transmit queue that is full ---- */

/* Slower than any kernel sends. What the link had is put back by taking it out. */
static void set_queue(const char *what)
{
	char command[128];

	snprintf(command, sizeof(command), "tc qdisc %s", what);
	t_check(!system(command), "%s", command);
}

/*
 * What it drops is lost, and sent again; whose it was matters to nobody. Then the other
 * way, in which what it drops are our answers.
 */
static void full_queue(const void *arg)
{
	static const enum ibv_wr_opcode opcodes[] = { IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ };
	struct t_net before, after;
	size_t i;

	(void)arg;
	t_net_read(&before);
	set_queue("replace dev eth0 root netem limit 8 rate 10mbit");
	for (i = 0; i < T_ARRAY_SIZE(opcodes); i++) {
		struct way way = { IBV_QPT_RC, opcodes[i] };
		struct link l;

		link_open_timeout(&l, &way, MIB / 4, IBV_MTU_4096, 16);
		one_message(&l, opcodes[i] == IBV_WR_RDMA_WRITE, true, 2 * i);
	}
	set_queue("del dev eth0 root");
	t_net_read(&after);
	t_net_since(&after, &before);
	t_net_show(&after, "");
	t_check(after.n[T_NET_SEND_ERR] > 0, "the queue was never full");
}

/* ---- pages that take seconds ---- */

#define SEED		60	/* the round of what a page has when it comes */
#define UFFD_MS		5000
#define DISK_MS		2000
#define DISK_LEN	(16 * T_PAGE)
#define GROUP		"unpin-slow"

/* What the region is in the request that waits for it. */
enum part { WRITTEN, READ_FROM, RECEIVE, ATOMIC, LOCAL_SOURCE, LOCAL_TARGET, PARTS };

static const char * const part_names[PARTS] = {
	"target of the peer's WRITE", "source of its READ", "receive buffer of its SEND",
	"target of its atomic", "source of our WRITE", "target of our READ",
};

struct waiting {
	enum part part;
	struct t_far far;
	struct t_buf near;
	bool done;
	u64 posted;
};

/*
 * The first is what everybody takes; but to rxe 7 retries are as many as it takes. With
 * the other a peer that is told nothing gives up after 7.5 s, and in less than one a
 * busy host lets it retry for no reason.
 */
static const struct t_cfg usual = {
	.mtu = IBV_MTU_1024, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
	.min_rnr_timer = 12, .depth = 128, .max_sge = 8,
};

static const struct t_cfg impatient = {
	.mtu = IBV_MTU_1024, .timeout = 18, .retry_cnt = 6, .rnr_retry = 7,
	.min_rnr_timer = 12, .depth = 128, .max_sge = 8,
};

static void open_waiting(struct waiting *w, enum part part, struct t_peer *peer,
			 struct t_dev *dev, const struct t_cfg *cfg, void *p, size_t len)
{
	memset(w, 0, sizeof(*w));
	w->part = part;
	t_far_open(&w->far, peer, part, dev, cfg, len + T_PAGE);
	t_buf_wrap(&w->near, p, part == ATOMIC ? T_PAGE : len);
	t_reg(&w->near, dev);
	if (part == WRITTEN || part == RECEIVE || part == LOCAL_TARGET)
		t_far_fill(&w->far, 0, len, SEED + 1);
}

static bool is_ours(const struct waiting *w)
{
	return w->part == LOCAL_SOURCE || w->part == LOCAL_TARGET;
}

static void post(struct waiting *w)
{
	static const enum ibv_wr_opcode opcodes[PARTS] = {
		IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_SEND, IBV_WR_ATOMIC_FETCH_AND_ADD,
		IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
	};
	size_t len = w->part == ATOMIC ? 8 : w->near.len;
	struct ibv_sge sge = t_sge(&w->near, 0, len);
	struct t_op op = {
		.opcode = opcodes[w->part], .sge = &sge, .num_sge = 1, .compare_add = 1,
		.raddr = is_ours(w) ? w->far.addr : w->near.iova,
		.rkey = is_ours(w) ? w->far.rkey : w->near.mr->rkey,
	};

	if (w->part == RECEIVE)
		t_post_recv(&w->far.near, &w->near, 0, len);
	w->posted = t_now_ms();
	if (is_ours(w))
		t_check(!t_post(&w->far.near, &op, NULL), "posting");
	else
		t_far_post(&w->far, &op, 0, len);
}

static void check_atomic(struct waiting *w)
{
	u64 seed;

	t_fill(&seed, 8, SEED);
	t_check(word_in(&w->near) == seed + 1, "the atomic was executed %lld times",
		(long long)(word_in(&w->near) - seed));
	t_check(t_far_word(&w->far, 0) == seed, "the result is not what was there");
}

static void check_data(struct waiting *w)
{
	bool seeded = w->part == READ_FROM || w->part == LOCAL_SOURCE;
	u64 round = seeded ? SEED : SEED + 1;

	if (w->part == ATOMIC) {
		check_atomic(w);
		return;
	}
	t_check(t_matches(w->near.p, w->near.len, round), "%s: wrong bytes here",
		part_names[w->part]);
	t_check(t_far_matches(&w->far, 0, w->near.len, 0, round),
		"%s: wrong bytes at the peer's", part_names[w->part]);
}

static enum ibv_wc_status completion(struct waiting *w)
{
	struct ibv_wc wc;

	if (!is_ours(w))
		return t_far_poll(&w->far, 0).status;
	return ibv_poll_cq(w->far.near.cq, 1, &wc) ? wc.status : T_TIMED_OUT;
}

static bool look(struct waiting *w)
{
	enum ibv_wc_status status = w->done ? IBV_WC_SUCCESS : completion(w);

	if (w->done || status == T_TIMED_OUT)
		return w->done;
	w->done = true;
	t_diag("%s: %s after %llu ms", part_names[w->part], t_status(status),
	       (unsigned long long)(t_now_ms() - w->posted));
	t_expect(status, IBV_WC_SUCCESS, "%s", part_names[w->part]);
	if (w->part == RECEIVE)
		t_expect(t_wait(&w->far.near, NULL), IBV_WC_SUCCESS, "receive");
	check_data(w);
	return true;
}

static bool look_all(struct waiting *w)
{
	bool all = true;
	unsigned int i;

	for (i = 0; i < PARTS; i++)
		all &= look(&w[i]);
	return all;
}

/* As good as before: the peer WRITEs and READs, and so do we. */
static void check_usable(struct waiting *w)
{
	struct ibv_mr mr = { .rkey = w->far.rkey };
	struct t_buf there = { .iova = w->far.addr, .mr = &mr };
	struct t_buf *near = &w->near;

	t_check(t_far_exchange(&w->far, near, 3, SEED + 2) == 3, "wrong bytes at the peer's");
	t_check(t_matches(near->p, near->len, SEED + 4), "wrong bytes here");
	t_far_fill(&w->far, 0, 0, 0);
	t_expect(t_write(&w->far.near, near, 0, &there, 0, near->len), IBV_WC_SUCCESS,
		 "our next WRITE");
	t_check(t_far_matches(&w->far, 0, near->len, 0, SEED + 4), "wrong bytes at the peer's");
	t_far_fill(&w->far, 0, near->len, SEED + 5);
	t_expect(t_read(&w->far.near, near, 0, &there, 0, near->len), IBV_WC_SUCCESS,
		 "our next READ");
	t_check(t_matches(near->p, near->len, SEED + 5), "wrong bytes here");
}

static void check_all_usable(struct waiting *w)
{
	unsigned int i;

	for (i = 0; i < PARTS; i++)
		check_usable(&w[i]);
}

/*
 * Of another queue pair meanwhile, two transfers each. Fewer where they are slow: the
 * kernel takes a disk that answers nothing for two minutes for a fault of its own.
 */
static u64 exchanges(void)
{
	return t_patience(1) > 1 ? 40 : 300;
}

/* Another queue pair of the peer's, with memory of ours that is there. */
static void open_other(struct t_far *far, struct t_buf *near, struct t_peer *peer,
		       struct t_dev *dev)
{
	t_far_open(far, peer, PARTS, dev, &usual, T_PAGE);
	t_buf_alloc(near, 5, 999);
	t_reg(near, dev);
}

static void check_exchanges(const struct t_buf *near, u64 right, u64 begin)
{
	u64 wanted = exchanges();

	t_check(right == wanted, "%llu of %llu exchanges were right",
		(unsigned long long)right, (unsigned long long)wanted);
	t_check_buf(near, wanted, "the last exchange");
	t_diag("%llu transfers of another queue pair meanwhile, in %llu ms",
	       (unsigned long long)(2 * wanted), (unsigned long long)(t_now_ms() - begin));
}

static void other_goes_on(struct t_far *far, const struct t_buf *near)
{
	u64 begin = t_now_ms();

	check_exchanges(near, t_far_exchange(far, near, exchanges(), 1), begin);
}

/* A page that is slow, and another in mid-message if there are two. */
struct slow {
	size_t len;
	const struct t_cfg *cfg;
	unsigned int ms;
};

/* How much of a network event it was. */
static void show_counts(struct t_peer *peer, const struct t_net *before)
{
	struct t_net there;

	t_peer_net(peer, &there);
	t_net_since(&there, before);
	t_net_show(&there, "there: ");
}

static void wait_until_faulting(struct t_slow *h, unsigned int n)
{
	u64 end = t_deadline(20000);

	while (h->n < n) {
		t_check(t_now_ms() < end, "%u faults came, not %u", h->n, n);
		t_slow_take(h, 20);
	}
}

/* All wait in one handler, which serves nothing before the other is done. */
static void slow_handler(const void *arg)
{
	const struct slow *slow = arg;
	struct t_slow h = { .ms = slow->ms, .round = SEED };
	struct waiting w[PARTS];
	struct t_buf other_near;
	struct t_net before;
	struct t_far other;
	struct t_peer peer;
	struct t_dev dev;
	unsigned int i;

	t_peer_open(&peer);
	t_dev_open(&dev);
	t_slow_open(&h, slow->len, PARTS);
	for (i = 0; i < PARTS; i++)
		open_waiting(&w[i], i, &peer, &dev, slow->cfg, h.base + i * slow->len,
			     slow->len);
	open_other(&other, &other_near, &peer, &dev);
	t_uffd_watch(h.uffd, h.base, PARTS * slow->len);
	t_peer_net(&peer, &before);
	for (i = 0; i < PARTS; i++)
		post(&w[i]);
	wait_until_faulting(&h, PARTS);
	other_goes_on(&other, &other_near);
	t_check(!look_all(w), "nothing waited");
	while (!look_all(w)) {
		t_slow_take(&h, 20);
		t_slow_serve(&h);
	}
	show_counts(&peer, &before);
	check_all_usable(w);
}

static void slow_disk(const void *arg)
{
	struct waiting w[PARTS];
	struct t_buf other_near;
	struct t_far other;
	struct t_peer peer;
	struct t_dev dev;
	u64 begin, right;
	unsigned int i;
	bool waited;
	long read;
	u8 *p;

	(void)arg;
	t_slow_swap_open(DISK_MS);
	t_group_make(GROUP, "max", "max");
	t_group_join(GROUP);
	t_peer_open(&peer);
	t_dev_open(&dev);
	open_other(&other, &other_near, &peer, &dev);
	p = t_slow_swap_map(DISK_LEN, PARTS, SEED);
	for (i = 0; i < PARTS; i++)
		open_waiting(&w[i], i, &peer, &dev, &usual, p + i * DISK_LEN, DISK_LEN);
	t_slow_swap_evict(GROUP, p, PARTS * DISK_LEN);
	read = t_vmstat("pswpin");
	t_slow_swap_hold();
	for (i = 0; i < PARTS; i++)
		post(&w[i]);
	begin = t_now_ms();
	right = t_far_exchange(&other, &other_near, exchanges(), 1);
	waited = !look_all(w);
	t_slow_swap_release();
	check_exchanges(&other_near, right, begin);
	t_check(waited, "nothing waited");
	while (!look_all(w))
		t_sleep_ms(10);
	t_check(t_vmstat("pswpin") - read >= (long)(5 * DISK_LEN / T_PAGE),
		"%ld pages were read from the disk", t_vmstat("pswpin") - read);
	check_all_usable(w);
	munmap(p, PARTS * DISK_LEN);
	t_group_leave(GROUP);
	t_slow_swap_close();
}

/* ---- leaving while the peer waits ---- */

enum leaving { DEREG, DESTROY_QP, KILL };

static void peer_is_told(struct waiting *w, enum ibv_wc_status want)
{
	t_expect(t_far_poll(&w->far, PATIENT_MS).status, want, "the %s", part_names[w->part]);
}

/* Nobody serves the page. */
static void leave(enum leaving how, enum part part)
{
	struct t_slow h = { .ms = UFFD_MS };
	struct t_cfg cfg = usual;
	struct waiting w;
	struct t_peer peer;
	struct t_dev dev;

	t_peer_open(&peer);
	t_dev_open(&dev);
	t_slow_open(&h, T_PAGE, 1);
	/* it would retry for ever, with nobody there */
	if (how == DESTROY_QP)
		cfg.retry_cnt = 6;
	open_waiting(&w, part, &peer, &dev, &cfg, h.base, T_PAGE);
	t_uffd_watch(h.uffd, h.base, T_PAGE);
	post(&w);
	wait_until_faulting(&h, 1);
	if (how == KILL)
		kill(getpid(), SIGKILL);
	if (how == DEREG) {
		t_dereg(&w.near);
		peer_is_told(&w, part == RECEIVE ? IBV_WC_REM_OP_ERR : IBV_WC_REM_ACCESS_ERR);
	} else {
		t_ep_close(&w.far.near);
		peer_is_told(&w, IBV_WC_RETRY_EXC_ERR);
	}
}

/* The peer is as good as before, too. */
static void peer_goes_on(void)
{
	struct t_buf near;
	struct t_far far;
	struct t_peer peer;
	struct t_dev dev;

	t_peer_open(&peer);
	t_dev_open(&dev);
	open_other(&far, &near, &peer, &dev);
	t_check(t_far_exchange(&far, &near, 3, 1) == 3, "an exchange was wrong");
}

static void leaving(const void *arg)
{
	static const enum part parts[] = { WRITTEN, READ_FROM, RECEIVE, ATOMIC };
	const enum leaving *how = arg;
	int status;
	size_t i;
	pid_t pid;

	for (i = 0; i < T_ARRAY_SIZE(parts); i++) {
		pid = t_fork();
		if (!pid) {
			leave(*how, parts[i]);
			_exit(0);
		}
		t_check(t_wait_exit(pid, 40000, &status), "it does not end");
		t_check(*how == KILL ? WIFSIGNALED(status) : status == 0, "%s: status %#x",
			part_names[parts[i]], status);
		t_check(t_stat_wait("faults_running", 0, 20000), "a fault is left");
		t_check(t_stat_wait("mirrors", 0, 20000), "a mirror is left");
	}
	peer_goes_on();
}

static const struct way ways[] = {
	{ IBV_QPT_RC, IBV_WR_RDMA_WRITE },
	{ IBV_QPT_RC, IBV_WR_RDMA_WRITE_WITH_IMM },
	{ IBV_QPT_RC, IBV_WR_RDMA_READ },
	{ IBV_QPT_RC, IBV_WR_SEND },
	{ IBV_QPT_RC, IBV_WR_SEND_WITH_IMM },
	{ IBV_QPT_RC, IBV_WR_ATOMIC_CMP_AND_SWP },
	{ IBV_QPT_RC, IBV_WR_ATOMIC_FETCH_AND_ADD },
	{ IBV_QPT_UC, IBV_WR_RDMA_WRITE_WITH_IMM },
	{ IBV_QPT_UC, IBV_WR_SEND },
	{ IBV_QPT_UD, IBV_WR_SEND },
};

static const struct quiet quiets[] = {
	{ IBV_WR_RDMA_WRITE, true }, { IBV_WR_RDMA_READ, true }, { IBV_WR_SEND, true },
	{ IBV_WR_RDMA_WRITE, false }, { IBV_WR_RDMA_READ, false }, { IBV_WR_SEND, false },
};

static const struct slow slows[] = {
	{ 2 * T_PAGE, &usual, UFFD_MS }, { T_PAGE, &impatient, 2 * UFFD_MS },
};

static const enum leaving leavings[] = { DEREG, DESTROY_QP, KILL };

static const struct t_case cases[] = {
	{ "the peer is not ours", T_BOTH, unmodified, NULL },
	{ "RC WRITE", T_BOTH, operation, &ways[0] },
	{ "RC WRITE with immediate", T_BOTH, operation, &ways[1] },
	{ "RC READ", T_BOTH, operation, &ways[2] },
	{ "RC SEND", T_BOTH, operation, &ways[3] },
	{ "RC SEND with immediate", T_BOTH, operation, &ways[4] },
	{ "RC compare and swap", T_BOTH, operation, &ways[5] },
	{ "RC fetch and add", T_BOTH, operation, &ways[6] },
	{ "UC WRITE with immediate", T_BOTH, operation, &ways[7] },
	{ "UC SEND", T_BOTH, operation, &ways[8] },
	{ "UD SEND", T_BOTH, operation, &ways[9] },
	{ "quiet: our WRITE", T_ODP, costs_the_network_nothing, &quiets[0] },
	{ "quiet: our READ", T_ODP, costs_the_network_nothing, &quiets[1] },
	{ "quiet: our SEND", T_ODP, costs_the_network_nothing, &quiets[2] },
	{ "quiet: the peer's WRITE", T_ODP, costs_the_network_nothing, &quiets[3] },
	{ "quiet: the peer's READ", T_ODP, costs_the_network_nothing, &quiets[4] },
	{ "quiet: the peer's SEND", T_ODP, costs_the_network_nothing, &quiets[5] },
	{ "a full transmit queue loses packets, and no more", T_BOTH, full_queue, NULL },
	{ "slow handler: all complete, another goes on", T_ODP, slow_handler, &slows[0] },
	{ "slow handler: with retries that end", T_ODP, slow_handler, &slows[1] },
	{ "slow disk: all complete, another goes on", T_ODP, slow_disk, NULL },
	{ "dereg while the peer waits", T_ODP, leaving, &leavings[0] },
	{ "destroying a queue pair while the peer waits", T_ODP, leaving, &leavings[1] },
	{ "kill -9 while the peer waits", T_ODP, leaving, &leavings[2] },
};

/* two_hosts --mr MODE [...], and in the other guest: two_hosts --serve */
int main(int argc, char **argv)
{
	t_opts.dev = "rxe1";
	t_opts.seconds = 180; /* the peer may not be up yet */
	if (argc == 2 && !strcmp(argv[1], "--serve"))
		return t_peer_serve();
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
