// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The counters that people look at, as rdma(8) prints them: of each on-demand region
 * what its accesses had to fault and what of it was invalidated, page by page, and
 * nothing for what was there; the sums of the device; and which kind a region is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define PAGES		16UL
#define LEN		(PAGES * T_PAGE)
#define PROMPT_MS	10000

/* ---- rdma(8) ---- */

/* What the command prints, which has to be there. */
static void ask_rdma(const char *command, char *text, size_t len)
{
	FILE *f = popen(command, "r");
	size_t n;

	t_check(f, "%s: %s", command, strerror(errno));
	n = fread(text, 1, len - 1, f);
	text[n] = '\0';
	t_check(!pclose(f) && n < len - 1, "%s fails, or says too much", command);
}

/* The word after @name in a line that also has @key followed by @value. */
static bool word_of(const char *text, const char *key, const char *value, const char *name,
		    char *word)
{
	char line[1024], find[64];
	const char *at, *end;

	snprintf(find, sizeof(find), " %s %s ", key, value);
	for (; *text; text = *end ? end + 1 : end) {
		end = strchrnul(text, '\n');
		snprintf(line, sizeof(line), " %.*s ", (int)(end - text), text);
		if (!strstr(line, find))
			continue;
		snprintf(find, sizeof(find), " %s ", name);
		at = strstr(line, find);
		return at && sscanf(at + strlen(find), "%31s", word) == 1;
	}
	return false;
}

/* The number by which rdma(8) knows a region. */
static void number_of(const struct ibv_mr *mr, char *mrn)
{
	static char text[1 << 16];
	char rkey[32];

	snprintf(rkey, sizeof(rkey), "0x%x", mr->rkey);
	ask_rdma("rdma -d resource show mr", text, sizeof(text));
	t_check(word_of(text, "rkey", rkey, "mrn", mrn), "no region %s in: %s", rkey, text);
}

static bool mr_has(const struct ibv_mr *mr, const char *name, char *word)
{
	static char text[1 << 16];
	char mrn[32];

	number_of(mr, mrn);
	ask_rdma("rdma statistic show mr", text, sizeof(text));
	return word_of(text, "mrn", mrn, name, word);
}

static long mr_count(const struct ibv_mr *mr, const char *name)
{
	char word[32];

	t_check(mr_has(mr, name, word), "the region has no %s", name);
	return atol(word);
}

static void count_is(int line, const struct ibv_mr *mr, const char *name, long want)
{
	long got = mr_count(mr, name);

	t_check(got == want, "line %d: %s is %ld, not %ld", line, name, got, want);
}

#define expect_count(...)	count_is(__LINE__, __VA_ARGS__)

/* ---- regions ---- */

static u8 *small_pages(size_t len)
{
	u8 *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	t_check(!madvise(p, len, MADV_NOHUGEPAGE), "madvise: %s", strerror(errno));
	return p;
}

static void discard(void *p, size_t len)
{
	t_check(!madvise(p, len, MADV_DONTNEED), "MADV_DONTNEED: %s", strerror(errno));
}

static void faults_are_pages(const void *arg)
{
	long faults, invalidations;
	struct t_region r;

	(void)arg;
	faults = t_device_count("page_faults");
	invalidations = t_device_count("page_invalidations");
	t_region_open(&r, small_pages(LEN), LEN);
	expect_count(r.buf.mr, "page_faults", 0);
	t_region_write(&r, 0, LEN);
	expect_count(r.buf.mr, "page_faults", PAGES);
	t_region_exchange(&r, 0, LEN);
	expect_count(r.buf.mr, "page_faults", PAGES);
	expect_count(r.buf.mr, "page_invalidations", 0);
	discard(r.buf.p + 2 * T_PAGE, 5 * T_PAGE);
	expect_count(r.buf.mr, "page_invalidations", 5);
	t_region_read_zero(&r, 3 * T_PAGE, T_PAGE);
	expect_count(r.buf.mr, "page_faults", PAGES + 1);
	discard(r.buf.p, LEN);
	expect_count(r.buf.mr, "page_invalidations", 5 + PAGES - 4);
	expect_count(r.buf.mr, "page_fault_errors", 0);
	expect_count(r.buf.mr, "page_prefetch", 0);
	t_dereg(&r.buf);
	t_check(t_device_count("page_faults") == faults + (long)PAGES + 1,
		"the device counts %ld faults", t_device_count("page_faults") - faults);
	t_check(t_device_count("page_invalidations") == invalidations + (long)PAGES + 1,
		"the device counts %ld invalidations",
		t_device_count("page_invalidations") - invalidations);
}

/* Of pages that lie apart only those count that were there. */
static void pages_apart(const void *arg)
{
	struct t_region r;
	struct t_buf half;
	size_t i;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	t_buf_wrap(&half, r.buf.p, LEN / 2 + 1);
	t_reg(&half, &r.pair.dev);
	for (i = 1; i < PAGES; i += 2)
		t_region_write(&r, i * T_PAGE + 7, 8);
	expect_count(r.buf.mr, "page_faults", PAGES / 2);
	discard(r.buf.p, LEN);
	expect_count(r.buf.mr, "page_invalidations", PAGES / 2);
	/* its last byte lies in the page after the half, which nobody has used */
	expect_count(half.mr, "page_invalidations", PAGES / 4);
	expect_count(half.mr, "page_faults", 0);
}

/* A fault is of who asked; an invalidation is of all whose page it was. */
static void regions_share_pages(const void *arg)
{
	struct t_buf b, away;
	struct t_region r;

	(void)arg;
	t_region_open(&r, small_pages(2 * LEN), LEN);
	t_buf_wrap(&b, r.buf.p + LEN / 2, LEN);
	t_reg(&b, &r.pair.dev);
	t_buf_wrap(&away, r.buf.p + LEN, LEN);
	t_reg(&away, &r.pair.dev);
	t_region_write(&r, 0, LEN);
	expect_count(r.buf.mr, "page_faults", PAGES);
	expect_count(b.mr, "page_faults", 0);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &b, 0, LEN), IBV_WC_SUCCESS, "WRITE");
	expect_count(r.buf.mr, "page_faults", PAGES);
	expect_count(b.mr, "page_faults", PAGES / 2);
	discard(r.buf.p, LEN);
	expect_count(r.buf.mr, "page_invalidations", PAGES);
	expect_count(b.mr, "page_invalidations", PAGES / 2);
	expect_count(away.mr, "page_invalidations", 0);
}

/* One list, pieces of several regions: each has its own. */
static void lists(const void *arg)
{
	struct ibv_sge sge[3];
	struct t_buf part[3];
	struct t_region r;
	int i;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	for (i = 0; i < 3; i++) {
		t_buf_wrap(&part[i], small_pages(4 * T_PAGE), (i + 1) * T_PAGE);
		t_reg(&part[i], &r.pair.dev);
		sge[i] = t_sge(&part[i], 0, part[i].len);
	}
	t_expect(t_do(&r.pair.a, &(struct t_op){
			.opcode = IBV_WR_RDMA_WRITE, .sge = sge, .num_sge = 3,
			.raddr = r.buf.iova, .rkey = r.buf.mr->rkey }),
		 IBV_WC_SUCCESS, "WRITE of three pieces");
	for (i = 0; i < 3; i++)
		expect_count(part[i].mr, "page_faults", i + 1);
	expect_count(r.buf.mr, "page_faults", 6);
}

/* A huge entry comes and goes as a whole, and counts as far as it is in the region. */
static void huge_page(const void *arg)
{
	u8 *p = t_map_huge_aligned(T_HUGE);
	struct t_region r;
	struct t_buf part;

	(void)arg;
	t_check(!madvise(p, T_HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE: %s", strerror(errno));
	p[0] = 1;
	t_check(t_huge_bytes(p) == T_HUGE, "no huge page");
	t_region_open(&r, p, T_HUGE);
	t_buf_wrap(&part, p + T_PAGE, 3 * T_PAGE);
	t_reg(&part, &r.pair.dev);
	t_region_write(&r, 5 * T_PAGE, 64);
	expect_count(r.buf.mr, "page_faults", T_HUGE / T_PAGE);
	discard(p, T_HUGE);
	expect_count(r.buf.mr, "page_invalidations", T_HUGE / T_PAGE);
	expect_count(part.mr, "page_invalidations", 3);
}

static void what_cannot_be_had(const void *arg)
{
	struct t_buf place;
	struct t_region r;
	long errors;

	(void)arg;
	errors = t_device_count("page_fault_errors");
	t_region_open(&r, small_pages(LEN), LEN);
	t_check(!munmap(r.buf.p + T_PAGE, T_PAGE), "munmap: %s", strerror(errno));
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, T_PAGE, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE to nothing");
	t_pair_reconnect(&r.pair);
	expect_count(r.buf.mr, "page_fault_errors", 1);
	expect_count(r.buf.mr, "page_faults", 0);

	memset(&place, 0, sizeof(place));
	place.mr = ibv_reg_mr(r.pair.dev.pd, NULL, SIZE_MAX, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(place.mr, "the implicit region: %s", strerror(errno));
	place.iova = 1UL << 63;
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &place, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE outside of the address space");
	expect_count(place.mr, "page_fault_errors", 1);
	expect_count(r.buf.mr, "page_fault_errors", 1);
	t_check(t_device_count("page_fault_errors") == errors + 2, "the device counts %ld",
		t_device_count("page_fault_errors") - errors);
}

/* Posts a WRITE to a page that is not there. Returns the address that has to be served. */
static u64 write_that_waits(struct t_region *r, int uffd, size_t off)
{
	struct ibv_sge sge = t_sge(&r->scratch, 0, 64);
	struct t_op op = {
		.opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1,
		.raddr = r->buf.iova + off, .rkey = r->buf.mr->rkey,
	};
	u64 address;

	t_check(!t_post(&r->pair.a, &op, NULL), "post");
	t_check(t_uffd_wait(uffd, PROMPT_MS, &address), "no fault comes");
	return address;
}

static void what_has_to_wait(const void *arg)
{
	u8 *p = small_pages(LEN), page[T_PAGE];
	int uffd = t_uffd_open();
	struct t_region r;
	u64 address;

	(void)arg;
	t_region_open(&r, p, LEN);
	t_region_write(&r, 0, 8);
	expect_count(r.buf.mr, "page_fault_waits", 0);
	t_uffd_watch(uffd, p, LEN);
	t_fill(page, T_PAGE, 3);
	address = write_that_waits(&r, uffd, T_PAGE);
	t_uffd_serve(uffd, address, page);
	t_expect(t_wait(&r.pair.a, NULL), IBV_WC_SUCCESS, "WRITE of a page that was awaited");
	t_check(mr_count(r.buf.mr, "page_fault_waits") >= 1, "it has not waited");
	expect_count(r.buf.mr, "page_faults", 2);
}

/* Each page once: as prefetched, or as faulted. */
static void prefetched(const void *arg)
{
	struct ibv_sge sge;
	struct t_region r;
	int err;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	t_region_write(&r, 0, T_PAGE);
	sge = t_sge(&r.buf, 0, 10 * T_PAGE);
	err = ibv_advise_mr(r.pair.dev.pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
			    IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1);
	t_check(!err, "ibv_advise_mr: %s", strerror(err));
	expect_count(r.buf.mr, "page_prefetch", 9);
	expect_count(r.buf.mr, "page_faults", 1);
	t_region_write(&r, 0, LEN);
	expect_count(r.buf.mr, "page_prefetch", 9);
	expect_count(r.buf.mr, "page_faults", PAGES - 9);
	discard(r.buf.p, LEN);
	expect_count(r.buf.mr, "page_invalidations", PAGES);
	expect_count(r.buf.mr, "page_fault_errors", 0);
}

/* All of the address space: what of it was used. */
static void implicit(const void *arg)
{
	u8 *one = small_pages(LEN), *two = small_pages(LEN);
	struct t_region r;

	(void)arg;
	t_region_open(&r, one, LEN);
	t_dereg(&r.buf);
	r.buf.mr = ibv_reg_mr(r.pair.dev.pd, NULL, SIZE_MAX, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(r.buf.mr, "the implicit region: %s", strerror(errno));
	t_region_write(&r, 0, LEN);
	r.buf.p = two;
	r.buf.iova = (uintptr_t)two;
	t_region_write(&r, 0, LEN);
	expect_count(r.buf.mr, "page_faults", 2 * PAGES);
	discard(two, LEN);
	expect_count(r.buf.mr, "page_invalidations", PAGES);
}

/* ---- many at once ---- */

#define MANY	300

static void many_regions(const void *arg)
{
	static struct t_buf many[MANY];
	struct t_region r;
	int i;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	for (i = 0; i < MANY; i++) {
		t_buf_wrap(&many[i], r.buf.p + i, LEN - MANY);
		t_reg(&many[i], &r.pair.dev);
	}
	t_region_write(&r, 0, LEN);
	discard(r.buf.p, LEN);
	for (i = 0; i < MANY; i += 2)
		t_dereg(&many[i]);
	t_region_write(&r, 0, LEN);
	discard(r.buf.p, LEN);
	expect_count(r.buf.mr, "page_invalidations", 2 * PAGES);
	for (i = 1; i < MANY; i += 60)
		expect_count(many[i].mr, "page_invalidations", 2 * PAGES);
}

struct changes {
	struct t_dev dev;
	u8 *p;
	bool stop;
};

static void *come_and_go(void *arg)
{
	struct changes *c = arg;
	struct t_buf b[4];
	int i;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		for (i = 0; i < 4; i++) {
			t_buf_wrap(&b[i], c->p + i * T_PAGE, LEN - 4 * T_PAGE);
			t_reg(&b[i], &c->dev);
		}
		for (i = 0; i < 4; i++)
			t_dereg(&b[i]);
	}
	return NULL;
}

/* Regions come and go while invalidations go over them. */
static void regions_come_and_go(const void *arg)
{
	const u64 rounds = 200;
	struct t_region r;
	struct changes c;
	pthread_t thread;
	u64 i;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	c = (struct changes){ .p = r.buf.p };
	t_dev_open(&c.dev);
	t_check(!pthread_create(&thread, NULL, come_and_go, &c), "thread");
	for (i = 0; i < rounds; i++) {
		t_region_write(&r, 0, LEN);
		t_region_cpu_holds(&r, 0, LEN, r.round);
		discard(r.buf.p, LEN);
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	/* nothing of this region is lost, whoever comes and goes beside it */
	expect_count(r.buf.mr, "page_invalidations", rounds * PAGES);
	t_check(mr_count(r.buf.mr, "page_faults") >= (long)(rounds * PAGES), "faults");
}

/* A region goes while its fault waits: the fault has the count, and ends it. */
static void region_goes_before_its_fault(const void *arg)
{
	u8 *p = small_pages(LEN), page[T_PAGE];
	int uffd = t_uffd_open();
	struct t_region r;
	u64 address;

	(void)arg;
	t_region_open(&r, p, LEN);
	t_uffd_watch(uffd, p, LEN);
	address = write_that_waits(&r, uffd, 0);
	t_dereg(&r.buf);
	t_fill(page, T_PAGE, 3);
	t_uffd_serve(uffd, address, page);
	t_expect(t_wait(&r.pair.a, NULL), IBV_WC_REM_ACCESS_ERR, "WRITE to what has gone");
	t_check(t_stat_wait("faults_running", 0, PROMPT_MS), "the fault stays");
}

/* ---- what it is ---- */

static void kinds(const void *arg)
{
	static char text[1 << 16];
	char word[32], rkey[32];
	struct t_region r;
	struct ibv_mr *all;

	(void)arg;
	t_region_open(&r, small_pages(LEN), LEN);
	all = ibv_reg_mr(r.pair.dev.pd, NULL, SIZE_MAX, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(all, "the implicit region: %s", strerror(errno));
	ask_rdma("rdma -dd resource show mr", text, sizeof(text));
	snprintf(rkey, sizeof(rkey), "0x%x", r.buf.mr->rkey);
	t_check(word_of(text, "rkey", rkey, "drv_odp", word) && !strcmp(word, "explicit"),
		"explicit: %s", text);
	snprintf(rkey, sizeof(rkey), "0x%x", all->rkey);
	t_check(word_of(text, "rkey", rkey, "drv_odp", word) && !strcmp(word, "implicit"),
		"implicit: %s", text);
	snprintf(rkey, sizeof(rkey), "0x%x", r.scratch.mr->rkey);
	t_check(word_of(text, "rkey", rkey, "mrn", word) &&
		!word_of(text, "rkey", rkey, "drv_odp", word), "pinned: %s", text);
	t_check(!mr_has(r.scratch.mr, "page_faults", word), "a pinned region has page_faults");
}

static const struct t_case cases[] = {
	{ "page_faults and page_invalidations are pages", T_ODP, faults_are_pages, NULL },
	{ "pages that lie apart", T_ODP, pages_apart, NULL },
	{ "regions that share pages", T_ODP, regions_share_pages, NULL },
	{ "a list of pieces of several regions", T_ODP, lists, NULL },
	{ "a huge page", T_ODP, huge_page, NULL },
	{ "what cannot be had", T_ODP, what_cannot_be_had, NULL },
	{ "what has to wait", T_ODP, what_has_to_wait, NULL },
	{ "what was prefetched", T_ODP, prefetched, NULL },
	{ "the implicit region", T_ODP, implicit, NULL },
	{ "many regions over the same pages", T_ODP, many_regions, NULL },
	{ "regions come and go during invalidations", T_ODP, regions_come_and_go, NULL },
	{ "a region goes before its fault", T_ODP, region_goes_before_its_fault, NULL },
	{ "which kind a region is", T_ODP, kinds, NULL },
};

int main(int argc, char **argv)
{
	t_under_libunpin(argv);
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
