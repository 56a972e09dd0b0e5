// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Usage: large_region [GiB [PAGES]]
 *
 * An ordinary user registers far more memory than the machine has (64 GiB, mapped
 * with MAP_NORESERVE), pinned and on demand, and uses it by RDMA WRITE and READ
 * at pages chosen at random. Every byte that comes back is compared, and so is
 * what the CPU sees. The exit status says whether all was as it has to be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "t.h"

#define NOBODY	65534
#define ROUND	7

struct usage {
	long size_kb;
	long rss_kb;
	long pin_kb;
	long lock_kb;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static struct usage usage(void)
{
	return (struct usage) {
		.size_kb = t_status_kb("VmSize"),
		.rss_kb = t_status_kb("VmRSS"),
		.pin_kb = t_status_kb("VmPin"),
		.lock_kb = t_status_kb("VmLck"),
	};
}

static void print_usage(const char *when, const struct usage *u)
{
	printf("  %-32s %12ld %10ld %8ld %8ld\n", when, u->size_kb, u->rss_kb,
	       u->pin_kb, u->lock_kb);
}

/* Root may pin without limit, and would pin until the machine is dead. */
static void become_ordinary_user(void)
{
	struct rlimit lock;

	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		t_die("cannot become user %d: %s", NOBODY, strerror(errno));
	getrlimit(RLIMIT_MEMLOCK, &lock);
	printf("  An ordinary user, who may lock %llu kB; the machine has %ld MiB.\n\n",
	       (unsigned long long)lock.rlim_cur >> 10,
	       sysconf(_SC_PHYS_PAGES) >> 8);
}

static const char *human(size_t len, char *text, size_t size)
{
	if (len >> 30)
		snprintf(text, size, "%zu GiB", len >> 30);
	else
		snprintf(text, size, "%zu KiB", len >> 10);
	return text;
}

static struct ibv_mr *try(struct t_dev *dev, void *p, size_t len, bool odp)
{
	double start, ms;
	struct ibv_mr *mr;
	char text[32];
	int err;

	t_opts.odp = odp;
	start = now();
	mr = t_try_reg(dev, p, len, T_REMOTE);
	err = errno;
	ms = (now() - start) * 1e3;
	printf("  %-10s %8s   %8.3f ms   %s%s\n", odp ? "on-demand" : "pinned",
	       human(len, text, sizeof(text)), ms,
	       mr ? "registered" : "refused: ", mr ? "" : strerror(err));
	return mr;
}

/* Distinct pages in random order, from everywhere in the region. */
static size_t *random_pages(size_t n, size_t total)
{
	size_t *page = calloc(n, sizeof(*page));
	size_t i, k;
	u64 state = 64;

	if (!page || n > total / 2)
		t_die("no list of %zu pages", n);
	for (i = 0; i < n; i++) {
again:
		page[i] = t_random(&state) % total;
		for (k = 0; k < i; k++) {
			if (page[k] == page[i])
				goto again;
		}
	}
	return page;
}

static void write_pages(struct t_pair *pair, struct t_buf *scratch,
			const struct t_buf *buf, const size_t *page, size_t n)
{
	size_t i, off;

	for (i = 0; i < n; i++) {
		off = page[i] * T_PAGE;
		t_fill_at(scratch->p, T_PAGE, off, ROUND);
		t_expect(t_write(&pair->a, scratch, 0, buf, off, T_PAGE),
			 IBV_WC_SUCCESS, "WRITE of page %zu", page[i]);
	}
}

/* What the device reads first, then what the CPU sees. */
static void verify_pages(struct t_pair *pair, struct t_buf *scratch,
			 const struct t_buf *buf, const size_t *page, size_t n)
{
	size_t i, off;

	for (i = 0; i < n; i++) {
		off = page[i] * T_PAGE;
		memset(scratch->p, 0x5a, T_PAGE);
		t_expect(t_read(&pair->a, scratch, 0, buf, off, T_PAGE),
			 IBV_WC_SUCCESS, "READ of page %zu", page[i]);
		t_check(t_matches_at(scratch->p, T_PAGE, off, ROUND),
			"READ of page %zu returned wrong bytes", page[i]);
		t_check(t_matches_at(buf->p + off, T_PAGE, off, ROUND),
			"the CPU sees wrong bytes in page %zu", page[i]);
	}
}

int main(int argc, char **argv)
{
	size_t gib = argc > 1 ? strtoul(argv[1], NULL, 0) : 64;
	size_t n = argc > 2 ? strtoul(argv[2], NULL, 0) : 1000;
	size_t len = gib << 30, *page;
	struct usage before, registered, after;
	struct t_buf buf, scratch;
	struct t_pair pair;
	struct ibv_mr *mr;
	double start, middle, end;

	setvbuf(stdout, NULL, _IOLBF, 0);
	become_ordinary_user();
	page = random_pages(n, len / T_PAGE);
	t_pair_open(&pair, NULL);
	t_buf_wrap(&buf, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1),
		   len);
	madvise(buf.p, len, MADV_NOHUGEPAGE); /* so that RSS is what was touched */
	t_buf_alloc(&scratch, 0, T_PAGE);
	memset(scratch.p, 0, T_PAGE);

	mr = try(&pair.dev, scratch.p, T_PAGE, false);
	t_check(mr && !ibv_dereg_mr(mr), "pinning one page has to work");
	mr = try(&pair.dev, buf.p, len, false);
	t_check(!mr, "pinning what is not there has to be refused");

	t_opts.odp = true;
	t_reg(&scratch, &pair.dev);
	before = usage();
	buf.mr = try(&pair.dev, buf.p, len, true);
	t_check(buf.mr, "registering on demand has to work");
	buf.iova = (uintptr_t)buf.p;
	registered = usage();

	start = now();
	write_pages(&pair, &scratch, &buf, page, n);
	middle = now();
	verify_pages(&pair, &scratch, &buf, page, n);
	end = now();
	after = usage();

	printf("\n  WRITE to %zu random pages, none of them ever touched: %.1f s\n"
	       "  READ of them: %.1f s; %zu bytes compared, and again by the CPU: all right\n\n",
	       n, middle - start, end - middle, n * T_PAGE);
	printf("  %-32s %12s %10s %8s %8s\n", "memory of the process, kB", "VmSize",
	       "VmRSS", "VmPin", "VmLck");
	print_usage("before", &before);
	print_usage("on-demand region registered", &registered);
	print_usage("after WRITE and READ", &after);
	t_check(!after.pin_kb && !after.lock_kb, "nothing may be pinned or locked");
	t_dereg(&buf);
	return 0;
}
