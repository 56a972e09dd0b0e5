// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A peer that sends what it must not: packets made by hand (tests/lib/t_roce.c), one
 * case for each. What has to come back is said in Documentation/protocol.md, which is
 * read here, for our modules and for the kernel's own rxe. What is refused has changed
 * no byte of the region, nor around it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t_roce.h"

#define LEN		(3 * T_PAGE)
#define WINDOW		(T_PAGE + 24)	/* where in the region */
#define WINDOW_LEN	2000
#define ROUND		70
#define OURS		90		/* the round of what is sent */
#define RIGHTS		(T_REMOTE | IBV_ACCESS_MW_BIND | T_ACCESS_FLUSH_GLOBAL)

enum place { REGION, IN_WINDOW, ABSOLUTE };

enum key {
	MINE, NEXT, NONE, DEAD, FOREIGN, LOCAL_ONLY, READ_ONLY,
	TYPE_1, TYPE_2, ZERO_BASED, INVALIDATED, OTHERS,
};

struct fixture {
	struct t_roce r;
	struct t_buf buf;
	struct ibv_mw *mw;
	u32 rkey;
};

/* A case, and what it sends; or its own function. */
struct row {
	const char *name;
	u8 opcode;
	enum key key;
	enum place place;
	u64 off;
	u32 len;
	u32 bytes;
	u32 flush;
	u32 pad;	/* one more than that, if not 0 */
	const char *(*run)(struct fixture *f);
	const struct t_roce_cfg *cfg;
};

/* ---- the document ---- */

#define COLUMNS	4

static void document_path(char *path, size_t len)
{
	char exe[1000];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *build;

	exe[n > 0 ? n : 0] = '\0';
	build = strstr(exe, "/build/userspace/");
	if (!build)
		t_die("%s is in no tree with the documentation", exe);
	*build = '\0';
	snprintf(path, len, "%s/Documentation/protocol.md", exe);
}

static char *trimmed(char *cell)
{
	size_t len;

	cell += strspn(cell, " ");
	for (len = strlen(cell); len && cell[len - 1] == ' '; len--)
		cell[len - 1] = '\0';
	return cell;
}

/* The cells of a line "| a | b | c | d |"; false for one of fewer. */
static bool cells_of(char *line, char *cells[COLUMNS])
{
	size_t i;

	if (strncmp(line, "| ", 2))
		return false;
	strsep(&line, "|");
	for (i = 0; i < COLUMNS && line; i++)
		cells[i] = trimmed(strsep(&line, "|"));
	return line;
}

static FILE *document(void)
{
	char path[PATH_MAX];
	FILE *file;

	document_path(path, sizeof(path));
	file = fopen(path, "re");
	if (!file)
		t_die("%s: %s", path, strerror(errno));
	return file;
}

static bool is_stock(void)
{
	return access("/sys/module/mm_mirror", F_OK);
}

/* What the document says of a case; where stock rxe is no better, the same. */
static void look_up(const char *name, char *answer, size_t len)
{
	char line[1000], *cells[COLUMNS];
	FILE *file = document();
	bool found = false;

	while (!found && fgets(line, sizeof(line), file))
		found = cells_of(line, cells) && !strcmp(cells[0], name);
	fclose(file);
	t_check(found, "Documentation/protocol.md has no case '%s'", name);
	snprintf(answer, len, "%s", is_stock() && *cells[2] ? cells[2] : cells[1]);
}

/* ---- what is there ---- */

static struct ibv_mr *reg(struct ibv_pd *pd, const struct t_buf *b, int access)
{
	struct ibv_mr *mr;

	mr = ibv_reg_mr(pd, b->p, b->len, access | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0));
	if (!mr)
		t_die("ibv_reg_mr: %s", strerror(errno));
	return mr;
}

static u32 dead_key(struct fixture *f)
{
	struct ibv_mr *mr = reg(f->r.dev.pd, &f->buf, RIGHTS);
	u32 rkey = mr->rkey;

	if (ibv_dereg_mr(mr))
		t_die("ibv_dereg_mr");
	return rkey;
}

static u32 foreign_key(struct fixture *f)
{
	struct ibv_pd *pd = ibv_alloc_pd(f->r.dev.ctx);

	if (!pd)
		t_die("ibv_alloc_pd: %s", strerror(errno));
	return reg(pd, &f->buf, RIGHTS)->rkey;
}

/* Bind a window through a queue pair; what its completion says. */
static enum ibv_wc_status bind_at(struct fixture *f, struct ibv_qp *qp, u64 addr, u64 len,
				  unsigned int access)
{
	struct ibv_mw_bind_info info = {
		.mr = f->buf.mr, .addr = addr, .length = len, .mw_access_flags = access,
	};
	struct ibv_mw_bind bind1 = { .send_flags = IBV_SEND_SIGNALED, .bind_info = info };
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = {
			.mw = f->mw, .rkey = ibv_inc_rkey(f->mw->rkey), .bind_info = info,
		},
	}, *bad;
	struct t_ep ep = { .cq = f->r.cq };
	int err;

	if (f->mw->type == IBV_MW_TYPE_1)
		err = ibv_bind_mw(qp, f->mw, &bind1);
	else
		err = ibv_post_send(qp, &wr, &bad);
	if (err)
		t_die("binding a window: %s", strerror(err));
	f->rkey = f->mw->type == IBV_MW_TYPE_1 ? f->mw->rkey : wr.bind_mw.rkey;
	return t_wait(&ep, NULL);
}

static void alloc_window(struct fixture *f, enum ibv_mw_type type)
{
	f->mw = ibv_alloc_mw(f->r.dev.pd, type);
	if (!f->mw)
		t_die("ibv_alloc_mw: %s", strerror(errno));
}

static u32 window_key(struct fixture *f, struct ibv_qp *qp, enum ibv_mw_type type,
		      unsigned int more)
{
	alloc_window(f, type);
	t_expect(bind_at(f, qp, f->buf.iova + WINDOW, WINDOW_LEN,
			 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
			 IBV_ACCESS_REMOTE_ATOMIC | T_ACCESS_FLUSH_GLOBAL | more),
		 IBV_WC_SUCCESS, "binding a window");
	return f->rkey;
}

static void invalidate(struct fixture *f, u32 rkey, enum ibv_wc_status want)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED,
		.invalidate_rkey = rkey,
	}, *bad;
	struct t_ep ep = { .cq = f->r.cq };
	int err = ibv_post_send(f->r.qp, &wr, &bad);

	if (err)
		t_die("invalidating a window: %s", strerror(err));
	t_expect(t_wait(&ep, NULL), want, "invalidating a window");
}

/* A window bound through the queue pair before the one that is asked. */
static u32 others_key(struct fixture *f)
{
	struct t_roce other = f->r;
	u32 rkey;

	t_roce_connect(&other);
	rkey = window_key(f, other.qp, IBV_MW_TYPE_2, 0);
	return rkey;
}

static u32 key_of(struct fixture *f, enum key key)
{
	struct ibv_pd *pd = f->r.dev.pd;

	switch (key) {
	case MINE:
		return f->buf.mr->rkey;
	case NEXT:
		return f->buf.mr->rkey ^ 1;
	case NONE:
		return 0;
	case DEAD:
		return dead_key(f);
	case FOREIGN:
		return foreign_key(f);
	case LOCAL_ONLY:
		return reg(pd, &f->buf, IBV_ACCESS_LOCAL_WRITE)->rkey;
	case READ_ONLY:
		return reg(pd, &f->buf, IBV_ACCESS_REMOTE_READ)->rkey;
	case TYPE_1:
		return window_key(f, f->r.qp, IBV_MW_TYPE_1, 0);
	case TYPE_2:
		return window_key(f, f->r.qp, IBV_MW_TYPE_2, 0);
	case ZERO_BASED:
		return window_key(f, f->r.qp, IBV_MW_TYPE_2, IBV_ACCESS_ZERO_BASED);
	case INVALIDATED:
		window_key(f, f->r.qp, IBV_MW_TYPE_2, 0);
		invalidate(f, f->rkey, IBV_WC_SUCCESS);
		return f->rkey;
	case OTHERS:
		return others_key(f);
	}
	return 0;
}

static void open_fixture(struct fixture *f, const struct t_roce_cfg *cfg)
{
	memset(f, 0, sizeof(*f));
	t_roce_open(&f->r, cfg);
	t_buf_alloc(&f->buf, 104, LEN);
	t_fill_buf(&f->buf, ROUND);
	f->buf.mr = reg(f->r.dev.pd, &f->buf, RIGHTS);
	f->buf.iova = (uintptr_t)f->buf.p;
}

/* ---- answers, in the document's words ---- */

static const char *words(const struct t_answer *answer)
{
	if (answer->opcode == T_ATOMIC_ACK)
		return "atomic ACK";
	if (answer->opcode >= T_READ_FIRST && answer->opcode <= T_READ_ONLY)
		return "READ response";
	if (answer->opcode != T_ACK)
		return "an odd opcode";
	switch (answer->syndrome) {
	case T_SYN_ACK:
		return "ACK";
	case T_SYN_SEQUENCE:
		return "NAK sequence";
	case T_SYN_INVALID:
		return "NAK invalid";
	case T_SYN_ACCESS:
		return "NAK access";
	case T_SYN_OPERATION:
		return "NAK operation";
	}
	return (answer->syndrome & 0xe0) == T_SYN_RNR ? "RNR NAK" : "an odd syndrome";
}

static const char *answer_is(struct fixture *f, struct t_answer *answer)
{
	struct t_answer mine;

	if (!answer)
		answer = &mine;
	t_roce_answer(&f->r, answer);
	return words(answer);
}

/*
 * The first answer from now on, to a request that is in order or to one before it;
 * @psn is what the responder expects next.
 */
static const char *answer_or_nothing(struct fixture *f, u32 psn, struct t_answer *answer)
{
	struct t_request probe = { .opcode = T_WRITE_ONLY, .psn = psn, .pad = T_NEXT };
	const char *first;

	t_roce_send(&f->r, &probe);
	first = answer_is(f, answer);
	if (answer->psn == psn && !strcmp(first, "ACK"))
		return "nothing";
	return first;
}

static void unchanged(struct fixture *f)
{
	t_check_buf(&f->buf, ROUND, "the region, after what was refused");
}

/* ---- cases that are one packet ---- */

static u64 address(const struct fixture *f, const struct row *row)
{
	switch (row->place) {
	case REGION:
		return f->buf.iova + row->off;
	case IN_WINDOW:
		return f->buf.iova + WINDOW + row->off;
	case ABSOLUTE:
		break;
	}
	return row->off;
}

/* Where in the region an access goes that is allowed. */
static u64 offset(const struct fixture *f, const struct row *row, u64 va)
{
	return row->key == ZERO_BASED ? WINDOW + va : va - f->buf.iova;
}

/* Allowed, and so it must have been done. */
static void check_done(struct fixture *f, const struct row *row, u64 off,
		       const struct t_answer *answer)
{
	u64 value;

	if (row->opcode == T_READ_REQUEST)
		t_check(t_matches_at(answer->payload, answer->bytes, off, ROUND),
			"READ returned other bytes");
	if (row->opcode == T_FETCH_ADD || row->opcode == T_CMP_SWAP) {
		t_fill_at(&value, sizeof(value), off, ROUND);
		t_check(value == answer->value, "an atomic returned another value");
	}
	if (row->opcode == T_WRITE_ONLY || row->opcode == T_ATOMIC_WRITE) {
		t_check(t_matches(f->buf.p + off, row->bytes, OURS), "nothing was written");
		t_fill_at(f->buf.p + off, row->bytes, off, ROUND);
		unchanged(f);
	}
	if (row->opcode == T_FLUSH)
		unchanged(f);
}

static bool is_refusal(const char *answer)
{
	return strstr(answer, "NAK") || !strcmp(answer, "nothing");
}

static const char *one_packet(struct fixture *f, const struct row *row, const char *want)
{
	struct t_request req = {
		.opcode = row->opcode, T_USUAL, .len = row->len, .bytes = row->bytes,
		.flush = row->flush, .round = OURS, .swap_add = 1,
	};
	struct t_answer answer;
	u32 psn = f->r.psn;
	const char *got;

	req.rkey = key_of(f, row->key);
	req.va = address(f, row);
	if (row->pad)
		req.pad = row->pad - 1;
	t_roce_send(&f->r, &req);
	if (!strcmp(want, "nothing"))
		got = answer_or_nothing(f, psn, &answer);
	else
		got = answer_is(f, &answer);
	if (is_refusal(got))
		unchanged(f);
	else
		check_done(f, row, offset(f, row, req.va), &answer);
	return got;
}

/* ---- cases that are more ---- */

static void send_usual(struct fixture *f, u8 opcode, u64 off, u32 len, u32 bytes)
{
	struct t_request req = {
		.opcode = opcode, T_USUAL, .va = f->buf.iova + off,
		.rkey = f->buf.mr->rkey, .len = len, .bytes = bytes, .round = OURS,
	};

	t_roce_send(&f->r, &req);
}

static const char *last_brings_more(struct fixture *f)
{
	send_usual(f, T_WRITE_FIRST, 0, T_ROCE_MTU + 8, T_ROCE_MTU);
	t_check(!strcmp(answer_is(f, NULL), "ACK"), "the first packet of a WRITE");
	send_usual(f, T_WRITE_LAST, 0, 0, 64);
	return answer_is(f, NULL);
}

static const char *read_amid_write(struct fixture *f)
{
	send_usual(f, T_WRITE_FIRST, 0, 2 * T_ROCE_MTU, T_ROCE_MTU);
	t_check(!strcmp(answer_is(f, NULL), "ACK"), "the first packet of a WRITE");
	send_usual(f, T_READ_REQUEST, 0, 8, 0);
	return answer_is(f, NULL);
}

/* The key is good for the first packet, and gone before the second. */
static const char *key_dies_in_message(struct fixture *f)
{
	u32 rkey = window_key(f, f->r.qp, IBV_MW_TYPE_2, 0);
	struct t_request req = {
		.opcode = T_WRITE_FIRST, T_USUAL, .va = f->buf.iova + WINDOW, .rkey = rkey,
		.len = 2 * T_ROCE_MTU - 100, .bytes = T_ROCE_MTU, .round = OURS,
	};
	const char *answer;

	t_roce_send(&f->r, &req);
	t_check(!strcmp(answer_is(f, NULL), "ACK"), "the first packet of a WRITE");
	invalidate(f, rkey, IBV_WC_SUCCESS);
	send_usual(f, T_WRITE_LAST, 0, 0, T_ROCE_MTU - 100);
	answer = answer_is(f, NULL);
	t_fill_at(f->buf.p + WINDOW, T_ROCE_MTU, WINDOW, ROUND);
	unchanged(f);
	return answer;
}

static const char *from_the_future(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_WRITE_ONLY, .psn = (f->r.psn + 1) & 0xffffff, .pad = T_NEXT,
		.va = f->buf.iova, .rkey = f->buf.mr->rkey, .len = 8, .bytes = 8,
		.round = OURS,
	};

	t_roce_send(&f->r, &req);
	unchanged(f);
	return answer_is(f, NULL);
}

static const char *repeated_write(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_WRITE_ONLY, .psn = f->r.psn, .pad = T_NEXT, .va = f->buf.iova,
		.rkey = f->buf.mr->rkey, .len = 8, .bytes = 8, .round = OURS,
	};
	const char *answer;

	send_usual(f, T_WRITE_ONLY, 0, 0, 0);
	t_check(!strcmp(answer_is(f, NULL), "ACK"), "the first of them");
	t_roce_send(&f->r, &req);
	answer = answer_is(f, NULL);
	unchanged(f);
	return answer;
}

static const char *repeated_add(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_FETCH_ADD, .psn = f->r.psn, .va = f->buf.iova,
		.rkey = f->buf.mr->rkey, .swap_add = 5,
	};
	struct t_answer first, second;
	const char *answer;
	u64 before, value;

	f->r.psn = (f->r.psn + 1) & 0xffffff;
	memcpy(&before, f->buf.p, sizeof(before));
	t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &first);
	t_roce_send(&f->r, &req);
	answer = answer_is(f, &second);
	memcpy(&value, f->buf.p, sizeof(value));
	t_check(first.value == before && second.value == before, "returned another value");
	t_check(value == before + 5, "an addition was made %s",
		value == before ? "never" : "twice");
	return answer;
}

/* A READ, and its repetition with another range or key: the request repeats. */
static const char *repeat_of_read(struct fixture *f, u64 off, u32 len, u32 rkey)
{
	struct t_request again = {
		.opcode = T_READ_REQUEST, .psn = f->r.psn, .va = f->buf.iova + off,
		.rkey = rkey, .len = len,
	};
	struct t_answer answer;

	send_usual(f, T_READ_REQUEST, 64, 64, 0);
	t_roce_answer(&f->r, &answer);
	t_roce_send(&f->r, &again);
	return answer_or_nothing(f, f->r.psn, &answer);
}

static const char *repeated_read(struct fixture *f)
{
	return repeat_of_read(f, 72, 16, f->buf.mr->rkey);
}

static const char *repeated_read_of_more(struct fixture *f)
{
	return repeat_of_read(f, 64, 65, f->buf.mr->rkey);
}

static const char *repeated_read_of_others(struct fixture *f)
{
	return repeat_of_read(f, 0, 64, f->buf.mr->rkey);
}

static const char *repeated_read_with_other_key(struct fixture *f)
{
	return repeat_of_read(f, 64, 64, foreign_key(f));
}

static const char *repeated_read_that_wraps(struct fixture *f)
{
	return repeat_of_read(f, -f->buf.iova - 8, 64, f->buf.mr->rkey);
}

/* What came in between must not matter. */
static const char *repeated_read_after_nothing(struct fixture *f)
{
	struct t_request again = {
		.opcode = T_READ_REQUEST, .psn = f->r.psn, .va = f->buf.iova + 64,
		.rkey = f->buf.mr->rkey, .len = 64,
	};
	struct t_answer answer;

	send_usual(f, T_READ_REQUEST, 64, 64, 0);
	t_roce_answer(&f->r, &answer);
	send_usual(f, T_WRITE_ONLY, 0, 0, 0);
	t_roce_answer(&f->r, &answer);
	t_roce_send(&f->r, &again);
	return answer_or_nothing(f, f->r.psn, &answer);
}

/* It says a key, and of no bytes that is none. */
static const char *repeated_read_of_nothing(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_READ_REQUEST, .psn = f->r.psn, .va = f->buf.iova,
		.rkey = f->buf.mr->rkey,
	};
	struct t_answer answer;
	const char *got;

	f->r.psn = (f->r.psn + 1) & 0xffffff;
	t_roce_send(&f->r, &req);
	t_check(!strcmp(answer_is(f, NULL), "READ response"), "the first of them");
	t_roce_send(&f->r, &req);
	got = answer_or_nothing(f, f->r.psn, &answer);
	t_check(strcmp(got, "READ response") || !answer.bytes, "%zu bytes", answer.bytes);
	return got;
}

static const char *repeated_zero_based_read(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_READ_REQUEST, .psn = f->r.psn, .va = 8, .len = 64,
		.rkey = window_key(f, f->r.qp, IBV_MW_TYPE_2, IBV_ACCESS_ZERO_BASED),
	};
	struct t_answer answer;
	const char *got;

	f->r.psn = (f->r.psn + 1) & 0xffffff;
	t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &answer);
	t_roce_send(&f->r, &req);
	got = answer_or_nothing(f, f->r.psn, &answer);
	if (strcmp(got, "nothing"))
		t_check(t_matches_at(answer.payload, 64, WINDOW + 8, ROUND), "other bytes");
	return got;
}

static const char *repeated_flush(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_FLUSH, .psn = f->r.psn, .va = f->buf.iova,
		.rkey = f->buf.mr->rkey, .len = LEN, .flush = T_FLUSH_GLOBAL,
	};
	struct t_answer answer;

	f->r.psn = (f->r.psn + 1) & 0xffffff;
	t_roce_send(&f->r, &req);
	t_check(!strcmp(answer_is(f, NULL), "READ response"), "the first of them");
	t_roce_send(&f->r, &req);
	return answer_or_nothing(f, f->r.psn, &answer);
}

static u32 key_at(struct fixture *f, struct ibv_pd *pd, u64 iova)
{
	int access = RIGHTS | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0);
	struct ibv_mr *mr = ibv_reg_mr_iova(pd, f->buf.p, f->buf.len, iova, access);

	if (!mr)
		t_die("ibv_reg_mr_iova: %s", strerror(errno));
	return mr->rkey;
}

/*
 * The responder keeps what it did, to answer again: here what it keeps of a FLUSH,
 * whose numbers are the peer's, is asked for as if it were of a READ. The key that is
 * among them is of another domain. Both regions are at a low address, since what would
 * be taken for that of the READ is the length of the FLUSH, or half of it.
 */
static const char *read_in_the_place_of_a_flush(struct fixture *f)
{
	static const struct t_roce_cfg cfg = {
		.type = IBV_QPT_RC, .resources = 1,
		.access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	};
	struct ibv_pd *pd = ibv_alloc_pd(f->r.dev.ctx);
	u64 va = T_PAGE | ((uintptr_t)f->buf.p & (T_PAGE - 1));
	u32 own = key_at(f, f->r.dev.pd, va), rkey, first, second;
	struct t_request req = {
		.opcode = T_READ_REQUEST, T_USUAL, .va = va, .len = 8, .rkey = own,
	};
	struct t_answer answer;

	if (!pd)
		t_die("ibv_alloc_pd: %s", strerror(errno));
	rkey = key_at(f, pd, va);
	f->r.cfg = cfg;
	t_roce_renew(&f->r);
	first = t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &answer);
	req = (struct t_request){
		.opcode = T_FLUSH, T_USUAL, .va = 0xffffffffULL << 32 | rkey, .len = 8,
		.rkey = own, .flush = T_FLUSH_REGION,
	};
	second = t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &answer);
	req = (struct t_request){
		.opcode = T_READ_REQUEST, .psn = first, .va = va, .rkey = rkey, .len = 64,
	};
	/* by its own number, and by that of what had its place before */
	t_roce_send(&f->r, &req);
	req.psn = second;
	t_roce_send(&f->r, &req);
	return answer_or_nothing(f, f->r.psn, &answer);
}

/* The largest READ there is, of more memory than there is; only its beginning. */
static const char *largest_read(struct fixture *f)
{
	struct t_buf big;
	struct t_request req = { .opcode = T_READ_REQUEST, T_USUAL, .len = 1U << 31 };
	struct t_answer answer;
	const char *got;
	void *p = t_map(4UL << 30, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	t_buf_wrap(&big, p, 4UL << 30);
	req.rkey = reg(f->r.dev.pd, &big, RIGHTS)->rkey;
	req.va = (uintptr_t)big.p;
	t_roce_send(&f->r, &req);
	got = answer_is(f, &answer);
	t_check(answer.opcode == T_READ_FIRST && answer.bytes == T_ROCE_MTU &&
		t_all_zero(answer.payload, answer.bytes), "not the first part of it");
	if (ibv_destroy_qp(f->r.qp))
		t_die("ibv_destroy_qp");
	return got;
}

static const char *damaged(struct fixture *f)
{
	struct t_request req = {
		.opcode = T_WRITE_ONLY, T_USUAL, .va = f->buf.iova,
		.rkey = f->buf.mr->rkey, .len = 8, .bytes = 8, .round = OURS, .spoil = true,
	};
	struct t_answer answer;
	u32 psn = f->r.psn;
	const char *got;

	t_roce_send(&f->r, &req);
	got = answer_or_nothing(f, psn, &answer);
	unchanged(f);
	return got;
}

static void post_receive(struct fixture *f, size_t len)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)f->buf.p, .length = len, .lkey = f->buf.mr->lkey,
	};
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;

	if (ibv_post_recv(f->r.qp, &wr, &bad))
		t_die("posting a receive");
}

static const char *send_to_no_receive(struct fixture *f)
{
	send_usual(f, T_SEND_ONLY, 0, 0, 64);
	return answer_is(f, NULL);
}

static const char *send_of_too_much(struct fixture *f)
{
	const char *answer;

	post_receive(f, 8);
	send_usual(f, T_SEND_ONLY, 0, 0, 64);
	answer = answer_is(f, NULL);
	t_check(t_matches_at(f->buf.p + 8, LEN - 8, 8, ROUND), "written beyond the receive");
	return answer;
}

/* ---- cases about windows ---- */

static void send_and_invalidate(struct fixture *f, u32 rkey)
{
	struct t_request req = { .opcode = T_SEND_ONLY_INV, T_USUAL, .inv_rkey = rkey };

	post_receive(f, 8);
	t_roce_send(&f->r, &req);
}

/* The completion says whether the SEND did what it was to do. */
static const char *receive_says(struct fixture *f, const char *answer)
{
	struct t_ep ep = { .cq = f->r.cq };
	enum ibv_wc_status status = t_wait(&ep, NULL);

	if (status == IBV_WC_SUCCESS)
		return answer;
	t_check(status == IBV_WC_REM_INV_REQ_ERR || status == IBV_WC_REM_ACCESS_ERR,
		"the receive: %s", t_status(status));
	return "receive in error";
}

static const char *invalidate_once(struct fixture *f)
{
	send_and_invalidate(f, window_key(f, f->r.qp, IBV_MW_TYPE_2, 0));
	return receive_says(f, answer_is(f, NULL));
}

static const char *invalidate_twice(struct fixture *f)
{
	u32 rkey = window_key(f, f->r.qp, IBV_MW_TYPE_2, 0);

	send_and_invalidate(f, rkey);
	t_check(!strcmp(receive_says(f, answer_is(f, NULL)), "ACK"), "the first of them");
	send_and_invalidate(f, rkey);
	return receive_says(f, "ACK");
}

static const char *invalidate_unbound(struct fixture *f)
{
	alloc_window(f, IBV_MW_TYPE_2);
	send_and_invalidate(f, f->mw->rkey);
	return receive_says(f, "ACK");
}

static const char *invalidate_others(struct fixture *f)
{
	send_and_invalidate(f, others_key(f));
	return receive_says(f, "ACK");
}

static const char *invalidate_type_1(struct fixture *f)
{
	send_and_invalidate(f, window_key(f, f->r.qp, IBV_MW_TYPE_1, 0));
	return receive_says(f, "ACK");
}

static const char *invalidate_region(struct fixture *f)
{
	send_and_invalidate(f, f->buf.mr->rkey);
	return receive_says(f, "ACK");
}

/* ---- UC, where nothing is answered ---- */

static bool is_written(struct fixture *f, u64 off, u32 bytes)
{
	u8 ours[64];

	t_fill(ours, bytes, OURS);
	return !memcmp(f->buf.p + off, ours, bytes);
}

/* What is written after it tells that the bad one has been looked at. */
static const char *uc_write(struct fixture *f, u64 off, u32 rkey, u32 len, u32 bytes)
{
	struct t_request bad = {
		.opcode = T_UC | T_WRITE_ONLY, T_USUAL, .va = f->buf.iova + off,
		.rkey = rkey, .len = len, .bytes = bytes, .round = OURS,
	};
	struct t_request good = {
		.opcode = T_UC | T_WRITE_ONLY_IMM, T_USUAL, .va = f->buf.iova + 2 * T_PAGE,
		.rkey = f->buf.mr->rkey, .len = 8, .bytes = 8, .round = OURS,
	};
	struct t_ep ep = { .cq = f->r.cq };
	struct t_answer answer;

	post_receive(f, 8);
	t_roce_send(&f->r, &bad);
	t_roce_send(&f->r, &good);
	t_expect(t_wait(&ep, NULL), IBV_WC_SUCCESS, "a WRITE with immediate after it");
	t_check(t_matches(f->buf.p + 2 * T_PAGE, 8, OURS), "that WRITE did nothing");
	t_fill_at(f->buf.p + 2 * T_PAGE, 8, 2 * T_PAGE, ROUND);
	if (is_written(f, off, bytes))
		return "written";
	unchanged(f);
	return t_roce_read(&f->r, 0, &answer) ? words(&answer) : "nothing";
}

static const char *uc_beyond(struct fixture *f)
{
	return uc_write(f, LEN - 4, f->buf.mr->rkey, 8, 8);
}

static const char *uc_no_bytes(struct fixture *f)
{
	return uc_write(f, 0, 0, 0, 8);
}

static const char *uc_window(struct fixture *f)
{
	u32 rkey = window_key(f, f->r.qp, IBV_MW_TYPE_2, 0);

	return uc_write(f, WINDOW + WINDOW_LEN - 4, rkey, 8, 8);
}

/* ---- the table ---- */

#define RD	IBV_ACCESS_REMOTE_READ
#define WR	IBV_ACCESS_REMOTE_WRITE
#define AT	IBV_ACCESS_REMOTE_ATOMIC
#define FG	T_ACCESS_FLUSH_GLOBAL

static const struct t_roce_cfg no_rights = { .type = IBV_QPT_RC, .resources = 16 };
static const struct t_roce_cfg no_resources = {
	.type = IBV_QPT_RC, .access = RD | WR | AT | FG,
};
static const struct t_roce_cfg uc = { .type = IBV_QPT_UC, .access = WR };

#define TOP	0xfffffffffffffff8ULL	/* 8 bytes before the end */

static const struct row rows[] = {
	/* what is allowed, so that the rest says something */
	{ "WRITE of the region's last bytes", T_WRITE_ONLY, .off = LEN - 8, .len = 8,
	  .bytes = 8 },
	{ "READ of the region's last bytes", T_READ_REQUEST, .off = LEN - 8, .len = 8 },
	{ "atomic on the region's last bytes", T_FETCH_ADD, .off = LEN - 8 },
	{ "ATOMIC WRITE of the region's last bytes", T_ATOMIC_WRITE, .off = LEN - 8,
	  .len = 8, .bytes = 8 },
	{ "FLUSH of the region's last bytes", T_FLUSH, .off = LEN - 8, .len = 8,
	  .flush = T_FLUSH_GLOBAL },

	/* the range */
	{ "WRITE from a byte before the region", T_WRITE_ONLY, .off = -1, .len = 8,
	  .bytes = 8 },
	{ "WRITE to a byte after the region", T_WRITE_ONLY, .off = LEN - 7, .len = 8,
	  .bytes = 8 },
	{ "WRITE behind the region", T_WRITE_ONLY, .off = LEN, .len = 8, .bytes = 8 },
	{ "WRITE whose end is beyond 2^64", T_WRITE_ONLY, .place = ABSOLUTE, .off = TOP,
	  .len = 16, .bytes = 16 },
	{ "WRITE whose end is 2^64", T_WRITE_ONLY, .place = ABSOLUTE, .off = TOP,
	  .len = 8, .bytes = 8 },
	{ "WRITE of a part of what is beyond the region", T_WRITE_FIRST, .len = LEN + 1,
	  .bytes = T_ROCE_MTU },
	{ "READ from a byte before the region", T_READ_REQUEST, .off = -1, .len = 8 },
	{ "READ to a byte after the region", T_READ_REQUEST, .off = LEN - 7, .len = 8 },
	{ "READ of more than the region", T_READ_REQUEST, .len = LEN + 1 },
	{ "READ whose end is beyond 2^64", T_READ_REQUEST, .place = ABSOLUTE, .off = TOP,
	  .len = 16 },
	{ "READ of 2^31 bytes", T_READ_REQUEST, .len = 1U << 31 },
	{ "READ of 2^31 bytes of a larger region", .run = largest_read },
	{ "READ of more than 2^31 bytes", T_READ_REQUEST, .len = (1U << 31) + 1 },
	{ "WRITE of more than 2^31 bytes", T_WRITE_FIRST, .len = (1U << 31) + 1,
	  .bytes = T_ROCE_MTU },
	{ "READ of 2^32 - 1 bytes", T_READ_REQUEST, .len = 0xffffffff },
	{ "atomic before the region", T_CMP_SWAP, .off = -8 },
	{ "atomic behind the region", T_FETCH_ADD, .off = LEN },
	{ "atomic over the region's end", T_FETCH_ADD, .off = LEN - 4 },
	{ "atomic at the end of the address space", T_FETCH_ADD, .place = ABSOLUTE,
	  .off = TOP },
	{ "atomic at an odd place", T_FETCH_ADD, .off = 4 },
	{ "ATOMIC WRITE behind the region", T_ATOMIC_WRITE, .off = LEN, .len = 8,
	  .bytes = 8 },
	{ "ATOMIC WRITE at an odd place", T_ATOMIC_WRITE, .off = 4, .len = 8, .bytes = 8 },
	{ "FLUSH to a byte after the region", T_FLUSH, .off = 1, .len = LEN,
	  .flush = T_FLUSH_GLOBAL },
	{ "FLUSH whose end is beyond 2^64", T_FLUSH, .place = ABSOLUTE, .off = TOP,
	  .len = 16, .flush = T_FLUSH_GLOBAL },
	{ "FLUSH of all of the region, wherever", T_FLUSH, .place = ABSOLUTE, .off = 1,
	  .len = LEN, .flush = T_FLUSH_GLOBAL | T_FLUSH_REGION },

	/* no bytes, or not those that were announced */
	{ "WRITE of no bytes", T_WRITE_ONLY, NONE, .place = ABSOLUTE },
	{ "READ of no bytes", T_READ_REQUEST, NONE, .place = ABSOLUTE },
	{ "FLUSH of no bytes", T_FLUSH, .flush = T_FLUSH_GLOBAL },
	{ "WRITE of no bytes that brings some", T_WRITE_ONLY, NONE, ABSOLUTE, .bytes = 8 },
	{ "WRITE of no bytes that begins a message", T_WRITE_FIRST, NONE, ABSOLUTE,
	  .bytes = T_ROCE_MTU },
	{ "WRITE that brings fewer bytes", T_WRITE_ONLY, .len = 16, .bytes = 8 },
	{ "WRITE that brings more bytes", T_WRITE_ONLY, .len = 8, .bytes = 16 },
	{ "WRITE with padding that it does not need", T_WRITE_ONLY, .len = 8, .bytes = 8,
	  .pad = 1 + 1 },
	{ "WRITE of more than a packet in one", T_WRITE_ONLY, .len = T_ROCE_MTU + 8,
	  .bytes = T_ROCE_MTU + 8 },
	{ "WRITE that begins with less than a packet", T_WRITE_FIRST, .len = T_ROCE_MTU + 8,
	  .bytes = 64 },
	{ "WRITE that ends with more than was left", .run = last_brings_more },
	{ "ATOMIC WRITE of 4 bytes", T_ATOMIC_WRITE, .len = 4, .bytes = 4 },
	{ "ATOMIC WRITE of 16 bytes", T_ATOMIC_WRITE, .len = 16, .bytes = 16 },
	{ "ATOMIC WRITE that brings 4 bytes", T_ATOMIC_WRITE, .len = 8, .bytes = 4 },
	{ "SEND of more than the receive has room for", .run = send_of_too_much },
	{ "SEND to no receive", .run = send_to_no_receive },

	/* the key */
	{ "WRITE with a key that was never given", T_WRITE_ONLY, NEXT, .len = 8, .bytes = 8 },
	{ "WRITE with no key", T_WRITE_ONLY, NONE, .len = 8, .bytes = 8 },
	{ "READ with the key of a dead region", T_READ_REQUEST, DEAD, .len = 8 },
	{ "WRITE with the key of a dead region", T_WRITE_ONLY, DEAD, .len = 8, .bytes = 8 },
	{ "READ with a key of another domain", T_READ_REQUEST, FOREIGN, .len = 8 },
	{ "WRITE with a key of another domain", T_WRITE_ONLY, FOREIGN, .len = 8, .bytes = 8 },
	{ "atomic with a key of another domain", T_FETCH_ADD, .key = FOREIGN },
	{ "FLUSH with a key of another domain", T_FLUSH, FOREIGN, .len = 8,
	  .flush = T_FLUSH_GLOBAL },
	{ "READ of a region for local use", T_READ_REQUEST, LOCAL_ONLY, .len = 8 },
	{ "WRITE to a region for reading", T_WRITE_ONLY, READ_ONLY, .len = 8, .bytes = 8 },
	{ "ATOMIC WRITE to a region for reading", T_ATOMIC_WRITE, READ_ONLY, .len = 8,
	  .bytes = 8 },
	{ "atomic on a region for reading", T_FETCH_ADD, .key = READ_ONLY },
	{ "FLUSH of a region without the right", T_FLUSH, READ_ONLY, .len = 8,
	  .flush = T_FLUSH_GLOBAL },
	{ "FLUSH to persistence of a region without that right", T_FLUSH, .len = 8,
	  .flush = T_FLUSH_PERSISTENT },
	{ "WRITE to a queue pair without the right", T_WRITE_ONLY, .len = 8, .bytes = 8,
	  .cfg = &no_rights },
	{ "READ from a queue pair without the right", T_READ_REQUEST, .len = 8,
	  .cfg = &no_rights },
	{ "atomic on a queue pair without the right", T_FETCH_ADD, .cfg = &no_rights },
	{ "FLUSH on a queue pair without the right", T_FLUSH, .len = 8,
	  .flush = T_FLUSH_GLOBAL, .cfg = &no_rights },
	{ "READ without responder resources", T_READ_REQUEST, .len = 8,
	  .cfg = &no_resources },
	{ "atomic without responder resources", T_FETCH_ADD, .cfg = &no_resources },
	{ "FLUSH without responder resources", T_FLUSH, .len = 8, .flush = T_FLUSH_GLOBAL,
	  .cfg = &no_resources },

	/* windows */
	{ "WRITE of a window's last bytes, type 1", T_WRITE_ONLY, TYPE_1, IN_WINDOW,
	  .off = WINDOW_LEN - 8, .len = 8, .bytes = 8 },
	{ "WRITE of a window's last bytes, type 2", T_WRITE_ONLY, TYPE_2, IN_WINDOW,
	  .off = WINDOW_LEN - 8, .len = 8, .bytes = 8 },
	{ "WRITE of a window's last bytes, zero-based", T_WRITE_ONLY, ZERO_BASED, ABSOLUTE,
	  .off = WINDOW_LEN - 8, .len = 8, .bytes = 8 },
	{ "READ of all of a window, type 1", T_READ_REQUEST, TYPE_1, IN_WINDOW,
	  .len = T_ROCE_MTU },
	{ "READ of all of a window, zero-based", T_READ_REQUEST, ZERO_BASED, ABSOLUTE,
	  .len = T_ROCE_MTU },
	{ "atomic on a window's last bytes, zero-based", T_FETCH_ADD, ZERO_BASED, ABSOLUTE,
	  .off = WINDOW_LEN - 8 },
	{ "WRITE from a byte before a window, type 1", T_WRITE_ONLY, TYPE_1, IN_WINDOW,
	  .off = -1, .len = 8, .bytes = 8 },
	{ "WRITE from a byte before a window, type 2", T_WRITE_ONLY, TYPE_2, IN_WINDOW,
	  .off = -1, .len = 8, .bytes = 8 },
	{ "WRITE from a byte before a window, zero-based", T_WRITE_ONLY, ZERO_BASED,
	  ABSOLUTE, .off = -1ULL, .len = 8, .bytes = 8 },
	{ "WRITE to a byte after a window, type 1", T_WRITE_ONLY, TYPE_1, IN_WINDOW,
	  .off = WINDOW_LEN - 7, .len = 8, .bytes = 8 },
	{ "WRITE to a byte after a window, type 2", T_WRITE_ONLY, TYPE_2, IN_WINDOW,
	  .off = WINDOW_LEN - 7, .len = 8, .bytes = 8 },
	{ "WRITE to a byte after a window, zero-based", T_WRITE_ONLY, ZERO_BASED, ABSOLUTE,
	  .off = WINDOW_LEN - 7, .len = 8, .bytes = 8 },
	{ "READ of more than a window, type 1", T_READ_REQUEST, TYPE_1, IN_WINDOW,
	  .len = WINDOW_LEN + 1 },
	{ "READ of more than a window, type 2", T_READ_REQUEST, TYPE_2, IN_WINDOW,
	  .len = WINDOW_LEN + 1 },
	{ "READ of more than a window, zero-based", T_READ_REQUEST, ZERO_BASED, ABSOLUTE,
	  .len = WINDOW_LEN + 1 },
	{ "READ elsewhere in a window's region", T_READ_REQUEST, TYPE_1, REGION, .len = 8 },
	{ "WRITE elsewhere in a window's region, zero-based", T_WRITE_ONLY, ZERO_BASED,
	  ABSOLUTE, .off = -(u64)WINDOW, .len = 8, .bytes = 8 },
	{ "atomic behind a window, type 1", T_FETCH_ADD, TYPE_1, IN_WINDOW,
	  .off = WINDOW_LEN },
	{ "atomic behind a window, zero-based", T_FETCH_ADD, ZERO_BASED, ABSOLUTE,
	  .off = WINDOW_LEN },
	{ "FLUSH to a byte after a window", T_FLUSH, TYPE_1, IN_WINDOW,
	  .off = 1, .len = WINDOW_LEN, .flush = T_FLUSH_GLOBAL },
	{ "READ with the key of an invalidated window", T_READ_REQUEST, INVALIDATED,
	  IN_WINDOW, .len = 8 },
	{ "READ with the key of another queue pair's window", T_READ_REQUEST, OTHERS,
	  IN_WINDOW, .len = 8 },
	{ "WRITE whose key dies in the middle", .run = key_dies_in_message },
	{ "SEND that invalidates a window", .run = invalidate_once },
	{ "SEND that invalidates a window again", .run = invalidate_twice },
	{ "SEND that invalidates a window that was never bound", .run = invalidate_unbound },
	{ "SEND that invalidates another queue pair's window", .run = invalidate_others },
	{ "SEND that invalidates a window of type 1", .run = invalidate_type_1 },
	{ "SEND that invalidates a region", .run = invalidate_region },

	/* the sequence */
	{ "WRITE that goes on and never began", T_WRITE_MIDDLE, .bytes = T_ROCE_MTU },
	{ "READ in the middle of a WRITE", .run = read_amid_write },
	{ "WRITE before its turn", .run = from_the_future },
	{ "WRITE repeated", .run = repeated_write },
	{ "atomic repeated", .run = repeated_add },
	{ "FLUSH repeated", .run = repeated_flush },
	{ "READ repeated for a part", .run = repeated_read },
	{ "READ repeated after a WRITE of no bytes", .run = repeated_read_after_nothing },
	{ "READ of no bytes repeated", .run = repeated_read_of_nothing },
	{ "READ repeated for more", .run = repeated_read_of_more },
	{ "READ repeated from before", .run = repeated_read_of_others },
	{ "READ repeated beyond 2^64", .run = repeated_read_that_wraps },
	{ "READ repeated with another key", .run = repeated_read_with_other_key },
	{ "READ repeated through a zero-based window", .run = repeated_zero_based_read },
	{ "READ in the place of a FLUSH", .run = read_in_the_place_of_a_flush },

	/* what is no request */
	{ "WRITE with a wrong checksum", .run = damaged },
	{ "an opcode that there is not", .opcode = 0x1f },
	{ "a request of UC to an RC queue pair", T_UC | T_WRITE_ONLY, .len = 8, .bytes = 8 },

	/* UC */
	{ "UC WRITE beyond the region", .run = uc_beyond, .cfg = &uc },
	{ "UC WRITE of no bytes that brings some", .run = uc_no_bytes, .cfg = &uc },
	{ "UC WRITE beyond a window", .run = uc_window, .cfg = &uc },
};

static void run_row(const void *arg)
{
	const struct row *row = arg;
	char want[100];
	const char *got;
	struct fixture f;

	look_up(row->name, want, sizeof(want));
	if (row->run == largest_read && !t_opts.odp)
		t_skip("no memory for that, pinned");
	if (strstr(want, "kernel"))
		t_skip("not in stock rxe: %s", want);
	open_fixture(&f, row->cfg);
	got = row->run ? row->run(&f) : one_packet(&f, row, want);
	t_check(!strcmp(got, want), "answer: %s, the document says: %s", got, want);
}

static void document_is_complete(const void *arg)
{
	char line[1000], *cells[COLUMNS];
	FILE *file = document();
	size_t known = 0, i;

	(void)arg;
	while (fgets(line, sizeof(line), file)) {
		if (!cells_of(line, cells) || !strcmp(cells[0], "case"))
			continue;
		for (i = 0; i < T_ARRAY_SIZE(rows) && strcmp(rows[i].name, cells[0]); i++)
			;
		t_check(i < T_ARRAY_SIZE(rows), "nothing runs '%s'", cells[0]);
		t_check(*cells[3], "'%s' refers to no section", cells[0]);
		known++;
	}
	fclose(file);
	t_check(known == T_ARRAY_SIZE(rows), "%zu cases, %zu in the document",
		T_ARRAY_SIZE(rows), known);
}

/* ---- binding ---- */

static enum ibv_wc_status try_bind(enum ibv_mw_type type, unsigned int access, u64 off,
				   u64 len)
{
	struct fixture f;

	open_fixture(&f, NULL);
	alloc_window(&f, type);
	return bind_at(&f, f.r.qp, f.buf.iova + off, len, IBV_ACCESS_REMOTE_READ | access);
}

static void not_in_stock(const char *what)
{
	if (is_stock())
		t_skip("not in stock rxe: %s", what);
}

static void bind_bounds(const void *arg)
{
	static const struct { enum ibv_mw_type type; unsigned int access; } kinds[] = {
		{ IBV_MW_TYPE_1, 0 }, { IBV_MW_TYPE_2, 0 },
		{ IBV_MW_TYPE_2, IBV_ACCESS_ZERO_BASED },
	};
	static const struct { u64 off, len; } bad[] = {
		{ -1, 8 }, { 0, LEN + 1 }, { LEN, 8 }, { LEN - 7, 8 }, { 8, -8ULL },
		{ LEN - 1, -1ULL }, { T_PAGE, LEN },
	};
	size_t i, j;

	(void)arg;
	not_in_stock("ranges that wrap are bound");
	for (i = 0; i < T_ARRAY_SIZE(kinds); i++) {
		for (j = 0; j < T_ARRAY_SIZE(bad); j++)
			t_expect(try_bind(kinds[i].type, kinds[i].access, bad[j].off,
					  bad[j].len), IBV_WC_MW_BIND_ERR,
				 "kind %zu at %lld, length %lld", i,
				 (long long)bad[j].off, (long long)bad[j].len);
		t_expect(try_bind(kinds[i].type, kinds[i].access, 0, LEN), IBV_WC_SUCCESS,
			 "kind %zu over all of the region", i);
	}
}

static void invalidated_here_twice(const void *arg)
{
	struct fixture f;

	(void)arg;
	not_in_stock("kernel oopses");
	open_fixture(&f, NULL);
	window_key(&f, f.r.qp, IBV_MW_TYPE_2, 0);
	invalidate(&f, f.rkey, IBV_WC_SUCCESS);
	invalidate(&f, f.rkey, IBV_WC_LOC_QP_OP_ERR);
}

/* The queue pair goes first, and its window with it. */
static void queue_pair_goes_first(const void *arg)
{
	struct t_request req = { .opcode = T_READ_REQUEST, T_USUAL, .len = 8 };
	struct fixture f;

	(void)arg;
	not_in_stock("kernel warns, and hangs for 50 s");
	open_fixture(&f, NULL);
	req.rkey = window_key(&f, f.r.qp, IBV_MW_TYPE_2, 0);
	req.va = f.buf.iova + WINDOW;
	t_roce_renew(&f.r);
	t_roce_send(&f.r, &req);
	t_check(!strcmp(answer_is(&f, NULL), "NAK access"), "a window of a dead queue pair");
	t_check(!ibv_dereg_mr(f.buf.mr), "the region is still bound: %s", strerror(errno));
	t_check(!ibv_dealloc_mw(f.mw), "ibv_dealloc_mw: %s", strerror(errno));
}

/*
 * Memory that is not persistent: pinned it cannot be registered for that, and what is
 * on demand is found when it is flushed, whether it was there or not.
 */
static void not_persistent(const void *arg)
{
	int access = RIGHTS | T_ACCESS_FLUSH_PERSISTENT;
	struct t_request req = {
		.opcode = T_FLUSH, T_USUAL, .len = 8, .flush = T_FLUSH_PERSISTENT,
	};
	struct fixture f;
	struct t_buf cold;

	(void)arg;
	open_fixture(&f, NULL);
	if (!t_opts.odp) {
		t_check(!ibv_reg_mr(f.r.dev.pd, f.buf.p, LEN, access) && errno == EINVAL,
			"registering ordinary memory as persistent: %s", strerror(errno));
		return;
	}
	req.va = f.buf.iova;
	req.rkey = reg(f.r.dev.pd, &f.buf, access)->rkey;
	t_roce_send(&f.r, &req);
	t_check(!strcmp(answer_is(&f, NULL), "NAK access"), "FLUSH of present memory");
	t_buf_alloc(&cold, 0, LEN);
	req.va = cold.iova;
	req.rkey = reg(f.r.dev.pd, &cold, access)->rkey;
	t_roce_renew(&f.r);
	t_roce_send(&f.r, &req);
	t_check(!strcmp(answer_is(&f, NULL), "NAK access"), "FLUSH of absent memory");
	t_check(!munmap(cold.map, cold.map_len), "munmap: %s", strerror(errno));
	t_roce_renew(&f.r);
	t_roce_send(&f.r, &req);
	t_check(!strcmp(answer_is(&f, NULL), "NAK access"), "FLUSH of no memory");
	/* and none of it is a reason to refuse the other kind */
	req.va = f.buf.iova;
	req.rkey = f.buf.mr->rkey;
	req.flush = T_FLUSH_GLOBAL;
	t_roce_renew(&f.r);
	t_roce_send(&f.r, &req);
	t_check(!strcmp(answer_is(&f, NULL), "READ response"), "FLUSH for visibility");
}

/* ---- many of them ---- */

static void hostile_round(struct fixture *f, u32 i)
{
	struct t_request req = {
		.opcode = i & 1 ? T_WRITE_ONLY : T_READ_REQUEST, T_USUAL,
		.va = f->buf.iova + LEN, .rkey = f->buf.mr->rkey, .len = 8,
		.bytes = i & 1 ? 8 : 0,
	};

	t_roce_send(&f->r, &req);
	t_check(!strcmp(answer_is(f, NULL), "NAK access"), "round %u", i);
	t_roce_renew(&f->r);
}

static void log_is_quiet(const void *arg)
{
	int log = t_log_open();
	struct fixture f;
	u32 i, lines;

	(void)arg;
	open_fixture(&f, NULL);
	for (i = 0; i < 100; i++)
		hostile_round(&f, i);
	lines = t_log_count(log, "rxe");
	t_check(lines <= 10, "%u lines in the kernel's log", lines);
}

static void nothing_leaks(const void *arg)
{
	static const char *const what[] = { "qp", "mr", "cq", "pd" };
	long before[T_ARRAY_SIZE(what)];
	struct fixture f;
	size_t i;

	(void)arg;
	for (i = 0; i < T_ARRAY_SIZE(what); i++)
		before[i] = t_resources(what[i]);
	open_fixture(&f, NULL);
	for (i = 0; i < 20; i++)
		hostile_round(&f, i);
	t_check(!ibv_destroy_qp(f.r.qp) && !ibv_dereg_mr(f.buf.mr) &&
		!ibv_destroy_cq(f.r.cq), "taking it down: %s", strerror(errno));
	t_dev_close(&f.r.dev);
	for (i = 0; i < T_ARRAY_SIZE(what); i++)
		t_check(t_resources(what[i]) == before[i], "%s: %ld, were %ld", what[i],
			t_resources(what[i]), before[i]);
}

static const struct t_case more[] = {
	{ "the document knows these cases and no others", T_BOTH, document_is_complete, NULL },
	{ "a refused peer does not fill the log", T_BOTH, log_is_quiet, NULL },
	{ "a refused peer leaves nothing behind", T_BOTH, nothing_leaks, NULL },
	{ "ordinary memory is not made persistent", T_BOTH, not_persistent, NULL },
	{ "windows are bound inside of their region", T_BOTH, bind_bounds, NULL },
	{ "a window is invalidated once", T_BOTH, invalidated_here_twice, NULL },
	{ "a queue pair goes before its window", T_BOTH, queue_pair_goes_first, NULL },
};

int main(int argc, char **argv)
{
	static struct t_case cases[T_ARRAY_SIZE(rows) + T_ARRAY_SIZE(more)];
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(rows); i++)
		cases[i] = (struct t_case){ rows[i].name, T_BOTH, run_row, &rows[i] };
	memcpy(cases + i, more, sizeof(more));
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
