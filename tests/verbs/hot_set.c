// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Memory that is hot only through RDMA: its process sleeps and touches none of it, a
 * peer reads and writes all of it again and again, while more cold memory than
 * there is memory streams by. With aging reclaim takes the cold; without (the
 * control, by a switch of the debug build) it cannot know, and takes both. For
 * both of the kernel's LRUs.
 *
 * What counts is memory and not time: every page is used once between one cold chunk
 * and the next, and a page that was found gone once has not stayed. What the CPU
 * wrote loses its young bits: else, where all of memory has been touched once, reclaim
 * looks at all of it, finds all of it young, and takes what is oldest, before the peer
 * can use anything again. Memory is full of what is cold before it begins.
 * For a guest with swap.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

/* Parts of the memory there is: what is hot, and one of the cold chunks. */
#define HOT_PART	14
#define CHUNK_PART	8
#define CHUNKS_BEFORE	8
#define CHUNKS		9

/* Percent of the hot set: at most so much without aging, at least so much with. */
#define STAYS_WITHOUT	50
#define STAYS_WITH	70

#define BATCH		16	/* as many READs as a queue pair may have */
#define BYTES		256	/* of a READ */
#define WRITE_EVERY	16	/* one of so many uses is a WRITE of the page */
#define LOOK_EVERY	512	/* uses: what they bring back may push others out */

#define PM_PRESENT	(1ULL << 63)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

struct lru {
	const char *name;
	const char *enabled;
	const char *reads_as;
};

struct child {
	pid_t pid;
	int in;
	int out;
};

/* The hot set, as the peer has it. */
struct hot {
	struct child child;
	struct t_addr addr;
	size_t pages;
	u8 *rounds;
	bool *gone;
	size_t fewest;
	int pagemap;
};

struct peer {
	struct t_dev dev;
	struct t_ep ep;
	struct t_buf buf;
	u32 *order;
	u64 state;
};

struct result {
	size_t stayed;
	size_t fewest;
	long swapped_in;
};

static unsigned int runs = 1;

static const struct t_cfg cfg = {
	.mtu = IBV_MTU_4096, .timeout = 20, .retry_cnt = 7, .rnr_retry = 7,
	.min_rnr_timer = 12, .depth = 2 * BATCH, .max_sge = 1,
};

static size_t memory_part(unsigned int part)
{
	return sysconf(_SC_PHYS_PAGES) / part * T_PAGE / T_HUGE * T_HUGE;
}

static void send_to(int fd, const void *p, size_t len)
{
	t_check(write(fd, p, len) == (ssize_t)len, "the other process is gone");
}

static void receive(int fd, void *p, size_t len)
{
	t_check(read(fd, p, len) == (ssize_t)len, "the other process is gone");
}

/* Small pages of nobody else's. */
static u8 *map_small(size_t len)
{
	u8 *p = t_map(len, ANON, -1);

	t_check(!madvise(p, len, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	return p;
}

static void start(struct child *c, void (*run)(int in, int out))
{
	int in[2], out[2];

	t_check(!pipe(in) && !pipe(out), "pipe");
	c->pid = t_fork();
	if (!c->pid) {
		close(in[1]);
		close(out[0]);
		run(in[0], out[1]);
		_exit(0);
	}
	close(in[0]);
	close(out[1]);
	c->in = in[1];
	c->out = out[0];
}

/* That the CPU has filled memory is no reason to keep it: from now on it is old. */
static void forget_touched(void)
{
	t_check(t_write_file("/proc/self/clear_refs", "1"), "clear_refs");
}

/* ---- the process that has the hot memory, and sleeps ---- */

static void be_hot(int in, int out)
{
	struct t_addr mine, peer;
	struct t_buf buf;
	struct t_dev dev;
	struct t_ep ep;
	char byte;

	receive(in, &peer, sizeof(peer));
	t_dev_open(&dev);
	t_ep_open(&ep, &dev, &cfg);
	t_buf_wrap(&buf, map_small(memory_part(HOT_PART)), memory_part(HOT_PART));
	t_fill_buf(&buf, 1);
	t_reg(&buf, &dev);
	t_ep_addr(&ep, &mine);
	mine.addr = buf.iova;
	mine.len = buf.len;
	mine.rkey = buf.mr->rkey;
	t_ep_connect(&ep, &peer);
	forget_touched();
	send_to(out, &mine, sizeof(mine));
	if (read(in, &byte, 1))
		t_die("nothing else is to be done");
}

/* ---- the process that has the cold memory ---- */

static void be_cold(int in, int out)
{
	size_t chunk = memory_part(CHUNK_PART), i;
	u8 *p = map_small((CHUNKS_BEFORE + CHUNKS) * chunk);
	char byte;

	while (read(in, &byte, 1) == 1) {
		for (i = 0; i < chunk; i += T_PAGE)
			*(u64 *)(p + i) = (uintptr_t)p + i;
		p += chunk;
		forget_touched();
		send_to(out, &byte, 1);
	}
}

static void stream_chunk(struct child *cold)
{
	char byte = 0;

	send_to(cold->in, &byte, 1);
	receive(cold->out, &byte, 1);
}

/* ---- the peer ---- */

static void open_hot(struct hot *h, struct peer *peer)
{
	struct t_addr mine;
	char path[64];

	t_ep_addr(&peer->ep, &mine);
	send_to(h->child.in, &mine, sizeof(mine));
	receive(h->child.out, &h->addr, sizeof(h->addr));
	t_ep_connect(&peer->ep, &h->addr);
	h->pages = h->addr.len / T_PAGE;
	h->fewest = h->pages;
	h->rounds = t_map(h->pages, ANON, -1);
	h->gone = t_map(h->pages * sizeof(*h->gone), ANON, -1);
	memset(h->rounds, 1, h->pages);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", h->child.pid);
	h->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	t_check(h->pagemap >= 0, "no %s", path);
}

static void open_peer(struct peer *peer)
{
	memset(peer, 0, sizeof(*peer));
	t_dev_open(&peer->dev);
	t_ep_open(&peer->ep, &peer->dev, &cfg);
	t_buf_alloc(&peer->buf, 0, BATCH * T_PAGE);
	t_reg_pinned(&peer->buf, &peer->dev);
	peer->order = t_map(memory_part(HOT_PART) / T_PAGE * sizeof(*peer->order), ANON, -1);
	peer->state = 7;
}

struct use {
	u32 page;
	size_t off;
	size_t len;
	bool write;
};

static void post_use(struct hot *h, struct peer *peer, unsigned int slot, struct use *u)
{
	u8 *p = peer->buf.p + slot * T_PAGE;
	struct ibv_sge sge;
	struct t_op op;

	u->write = t_random(&peer->state) % WRITE_EVERY == 0;
	u->len = u->write ? T_PAGE : BYTES;
	u->off = u->write ? 0 : t_random(&peer->state) % (T_PAGE / BYTES) * BYTES;
	if (u->write) {
		h->rounds[u->page] = h->rounds[u->page] % 250 + 1;
		t_fill_at(p, T_PAGE, u->page * T_PAGE, h->rounds[u->page]);
	} else {
		memset(p, 0x5a, u->len);
	}
	sge = t_sge(&peer->buf, slot * T_PAGE, u->len);
	op = (struct t_op){
		.opcode = u->write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
		.sge = &sge, .num_sge = 1, .rkey = h->addr.rkey,
		.raddr = h->addr.addr + u->page * T_PAGE + u->off,
	};
	t_check(!t_post(&peer->ep, &op, NULL), "posting");
}

static void use_pages(struct hot *h, struct peer *peer, const u32 *pages, unsigned int nr)
{
	struct use use[BATCH];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		use[i].page = pages[i];
		post_use(h, peer, i, &use[i]);
	}
	for (i = 0; i < nr; i++)
		t_expect(t_wait(&peer->ep, NULL), IBV_WC_SUCCESS, "page %u of the hot set",
			 pages[i]);
	for (i = 0; i < nr; i++)
		t_check(t_matches_at(peer->buf.p + i * T_PAGE, use[i].len,
				     use[i].page * T_PAGE + use[i].off, h->rounds[use[i].page]),
			"READ of page %u returned wrong bytes", use[i].page);
}

/* Those that are not there now have not stayed. */
static void look(struct hot *h)
{
	u64 entries[512];
	size_t i, k, here = 0;

	for (i = 0; i < h->pages; i += T_ARRAY_SIZE(entries)) {
		t_check(pread(h->pagemap, entries, sizeof(entries),
			      (h->addr.addr / T_PAGE + i) * 8) == sizeof(entries), "pagemap");
		for (k = 0; k < T_ARRAY_SIZE(entries); k++) {
			if (entries[k] & PM_PRESENT)
				here++;
			else
				h->gone[i + k] = true;
		}
	}
	if (here < h->fewest)
		h->fewest = here;
}

/* Every page once, in an order of its own. */
static void use_all(struct hot *h, struct peer *peer)
{
	size_t i, k;
	u32 page;

	for (i = 0; i < h->pages; i++) {
		k = t_random(&peer->state) % (i + 1);
		page = i;
		peer->order[i] = peer->order[k];
		peer->order[k] = page;
	}
	for (i = 0; i < h->pages; i += BATCH) {
		if (i % LOOK_EVERY == 0)
			look(h);
		use_pages(h, peer, peer->order + i, BATCH);
	}
}

/* ---- a run ---- */

static void measure(struct hot *h, struct peer *peer, struct child *cold, struct result *r)
{
	long in = t_vmstat("pswpin");
	size_t i;

	memset(r, 0, sizeof(*r));
	for (i = 0; i < CHUNKS; i++) {
		use_all(h, peer);
		stream_chunk(cold);
	}
	use_all(h, peer);
	for (i = 0; i < h->pages; i++)
		r->stayed += !h->gone[i];
	r->stayed = r->stayed * 100 / h->pages;
	r->fewest = h->fewest * 100 / h->pages;
	r->swapped_in = t_vmstat("pswpin") - in;
}

static void be_run(int in, int out)
{
	struct child cold;
	struct result r;
	struct peer peer;
	struct hot hot = { 0 };
	size_t i;

	start(&hot.child, be_hot);
	start(&cold, be_cold);
	for (i = 0; i < CHUNKS_BEFORE; i++)
		stream_chunk(&cold);
	open_peer(&peer);
	open_hot(&hot, &peer);
	measure(&hot, &peer, &cold, &r);
	send_to(out, &r, sizeof(r));
}

/* In processes of its own, whose memory goes with them. */
static struct result run(const struct lru *lru, bool aging)
{
	struct child child;
	struct result r;
	int status;

	t_check(t_aging_set(aging), "no switch for aging: this test wants the debug build");
	start(&child, be_run);
	receive(child.out, &r, sizeof(r));
	t_check(t_wait_exit(child.pid, 20000, &status) && !status, "the run failed");
	t_aging_set(true);
	t_diag("%s, aging %s: of %zu pages %zu %% stayed, %zu %% at worst were there, %ld swapped in",
	       lru->name, aging ? "on" : "off", memory_part(HOT_PART) / T_PAGE, r.stayed,
	       r.fewest, r.swapped_in);
	t_check(t_stat_wait("mirrors", 0, 10000), "a mirror is left");
	return r;
}

static void choose(const struct lru *lru)
{
	char text[32];

	t_check(t_write_file("/sys/kernel/mm/lru_gen/enabled", lru->enabled) &&
		t_read_file("/sys/kernel/mm/lru_gen/enabled", text, sizeof(text)) &&
		!strcmp(text, lru->reads_as), "no %s", lru->name);
}

static void both(const struct lru *lru)
{
	struct result without = run(lru, false), with = run(lru, true);

	t_check(without.stayed <= STAYS_WITHOUT, "without aging %zu %% of the hot set stayed",
		without.stayed);
	t_check(with.stayed >= STAYS_WITH, "with aging %zu %% of the hot set stayed",
		with.stayed);
	t_check(with.swapped_in < without.swapped_in, "aging saved no swap-ins");
}

static void hot_and_cold(const void *arg)
{
	unsigned int i;

	choose(arg);
	for (i = 0; i < runs; i++)
		both(arg);
}

static const struct lru mglru = { "MGLRU", "7", "0x0007\n" };
static const struct lru classic = { "classic LRU", "0", "0x0000\n" };

static const struct t_case cases[] = {
	{ "MGLRU keeps what is hot over RDMA", T_ODP, hot_and_cold, &mglru },
	{ "the classic LRU keeps what is hot over RDMA", T_ODP, hot_and_cold, &classic },
};

/* hot_set --mr odp [--runs N]: of each kind. */
int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[argc - 2], "--runs")) {
		runs = strtoul(argv[argc - 1], NULL, 10);
		argc -= 2;
	}
	/* each time, all of memory goes to the disk */
	t_opts.seconds = 100 * runs;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
