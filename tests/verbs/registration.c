// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What registering costs and what it accepts: any start and length up to 1 TiB,
 * any iova that agrees in the page, no locked or pinned memory, no page
 * touched, no charge to RLIMIT_MEMLOCK; ranges that wrap are refused, also when
 * signals keep arriving.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "t.h"

#define TIB	(1UL << 40)
#define MIB	(1UL << 20)

static void *reserve(size_t len)
{
	return t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

static void one_tebibyte(const void *arg)
{
	struct t_region r;
	u64 state = 7;
	size_t off;
	int i;

	(void)arg;
	t_region_open(&r, reserve(TIB), TIB);
	for (i = 0; i < 20; i++) {
		off = t_random(&state) % (TIB - 3 * T_PAGE);
		t_region_exchange(&r, off, T_PAGE + 5);
	}
	t_region_exchange(&r, TIB - 10, 10);
	t_dereg(&r.buf);
}

static void nothing_is_locked(const void *arg)
{
	long pin, lck, rss;
	struct t_dev dev;
	struct t_buf b;

	(void)arg;
	t_dev_open(&dev);
	pin = t_status_kb("VmPin");
	lck = t_status_kb("VmLck");
	rss = t_status_kb("VmRSS");
	t_buf_wrap(&b, reserve(1024 * MIB), 1024 * MIB);
	t_reg(&b, &dev);
	t_check(t_status_kb("VmPin") == pin, "VmPin %ld kB", t_status_kb("VmPin"));
	t_check(t_status_kb("VmLck") == lck, "VmLck %ld kB", t_status_kb("VmLck"));
	t_check(t_status_kb("VmRSS") < rss + 4096,
		"registering brought %ld kB in", t_status_kb("VmRSS") - rss);
	t_check(!t_page_present(b.p) && !t_page_present(b.p + 512 * MIB),
		"registering touched a page");
}

static void use_is_not_locked(const void *arg)
{
	struct t_region r;
	size_t len = 8 * MIB;
	long pin;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	pin = t_status_kb("VmPin");
	t_region_write(&r, 0, 4 * MIB);
	t_region_cpu_holds(&r, 0, 4 * MIB, r.round);
	t_check(t_status_kb("VmPin") == pin, "VmPin grew by %ld kB",
		t_status_kb("VmPin") - pin);
	t_check(t_page_present(r.buf.p), "the written page is not there");
	t_check(!t_page_present(r.buf.p + 6 * MIB), "a page nobody used is there");
}

/* The control for the two cases above: pinning is seen. */
static void pinning_is_seen(const void *arg)
{
	struct t_dev dev;
	struct t_buf b;
	long pin;

	(void)arg;
	t_dev_open(&dev);
	pin = t_status_kb("VmPin");
	t_buf_alloc(&b, 0, 4 * MIB);
	t_reg(&b, &dev);
	t_check(t_status_kb("VmPin") >= pin + 4096, "VmPin grew by %ld kB only",
		t_status_kb("VmPin") - pin);
	t_dereg(&b);
	t_check(t_status_kb("VmPin") == pin, "VmPin stays at %ld kB after dereg",
		t_status_kb("VmPin"));
}

static void memlock_is_not_charged(const void *arg)
{
	struct t_region r = { 0 };

	(void)arg;
	t_become_nobody(65536);
	t_pair_open(&r.pair, NULL);
	t_buf_alloc(&r.scratch, 0, T_PAGE);
	t_reg_pinned(&r.scratch, &r.pair.dev);
	t_buf_wrap(&r.buf, reserve(64 * MIB), 64 * MIB);
	t_reg(&r.buf, &r.pair.dev);
	t_region_exchange(&r, 32 * MIB + 1, T_PAGE - 1);
}

/* The control: the same limit stops the same registration when it pins. */
static void memlock_stops_pinning(const void *arg)
{
	struct t_dev dev;
	struct t_buf b;

	(void)arg;
	t_become_nobody(65536);
	t_dev_open(&dev);
	t_buf_alloc(&b, 0, 4 * MIB);
	t_check(!t_try_reg(&dev, b.p, b.len, T_REMOTE),
		"4 MiB were pinned under a limit of 64 KiB");
}

static void unaligned_start(const void *arg)
{
	static const size_t starts[] = { 1, 7, 63, T_PAGE / 2 + 3, T_PAGE - 1 };
	struct t_region r;
	u8 *p = t_map(64 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	size_t i;

	(void)arg;
	t_region_open(&r, p, 64 * T_PAGE);
	for (i = 0; i < T_ARRAY_SIZE(starts); i++) {
		t_dereg(&r.buf);
		t_buf_wrap(&r.buf, p + starts[i], 3 * T_PAGE);
		t_reg(&r.buf, &r.pair.dev);
		t_region_exchange(&r, 0, 3 * T_PAGE);
		t_region_exchange(&r, 2 * T_PAGE - 1, 2);
	}
}

static void iova_is_not_the_address(const void *arg)
{
	static const u64 bases[] = { 0, 0x10000, 0x7000deadb000, 0xffffffff00000000ULL };
	struct t_region r;
	size_t i, len = 5 * T_PAGE + 77;
	u8 *p = t_map(8 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	(void)arg;
	t_region_open(&r, p, 8 * T_PAGE);
	for (i = 0; i < T_ARRAY_SIZE(bases); i++) {
		t_dereg(&r.buf);
		t_buf_wrap(&r.buf, p + 100, len);
		t_reg_iova(&r.buf, &r.pair.dev, bases[i] + 100);
		t_region_exchange(&r, 0, len);
		t_region_exchange(&r, T_PAGE - 101, 3);
	}
}

/* uverbs asks that iova and address agree within the page. */
static void iova_of_another_offset(const void *arg)
{
	struct t_dev dev;
	struct t_buf b;
	int access = T_REMOTE | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0);

	(void)arg;
	t_dev_open(&dev);
	t_buf_alloc(&b, 0, T_PAGE);
	t_check(!ibv_reg_mr_iova(dev.pd, b.p, b.len, 0x10001, access),
		"an iova at another offset in the page was accepted");
}

static void wrapping_ranges(const void *arg)
{
	static const struct { u64 start, len; } bad[] = {
		{ 0xfffffffffffff000ULL, 0x2000 },
		{ 0x1000, 0xffffffffffffff00ULL },
		{ 0x7fff00000000ULL, 0xffffffffffffffffULL },
		{ 0x1001, 0xfffffffffffffff0ULL },
	};
	struct t_dev dev;
	size_t i;

	(void)arg;
	t_dev_open(&dev);
	for (i = 0; i < T_ARRAY_SIZE(bad); i++)
		t_check(!t_try_reg(&dev, (void *)(uintptr_t)bad[i].start, bad[i].len,
				   T_REMOTE),
			"start %#llx + length %#llx was accepted",
			(unsigned long long)bad[i].start, (unsigned long long)bad[i].len);
}

static void wrapping_iova(const void *arg)
{
	int access = T_REMOTE | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0);
	struct t_dev dev;
	struct t_buf b;

	(void)arg;
	t_dev_open(&dev);
	t_buf_alloc(&b, 0, 4 * T_PAGE);
	t_check(!ibv_reg_mr_iova(dev.pd, b.p, b.len, -2 * T_PAGE, access),
		"an iova range that wraps was accepted");
}

/* Nothing is inside a region of length 0. */
static void zero_length(const void *arg)
{
	enum ibv_wc_status status;
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1), T_PAGE);
	t_dereg(&r.buf);
	r.buf.mr = t_try_reg(&r.pair.dev, r.buf.p, 0, T_REMOTE);
	if (!r.buf.mr)
		return;
	t_fill_buf(&r.scratch, 1);
	status = t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, 1);
	t_expect(status, IBV_WC_REM_ACCESS_ERR, "WRITE of a byte to a region of none");
	t_check(t_all_zero(r.buf.p, T_PAGE), "the byte was written");
}

static void two_regions_share_pages(const void *arg)
{
	struct t_region r;
	struct t_buf second;
	size_t len = 4 * T_PAGE;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	t_buf_wrap(&second, r.buf.p, len);
	t_reg(&second, &r.pair.dev);
	t_region_write(&r, 0, len);
	t_expect(t_read(&r.pair.a, &r.scratch, 0, &second, 0, len), IBV_WC_SUCCESS,
		 "READ through the second region");
	t_check(t_matches(r.scratch.p, len, r.round), "the regions differ");
	t_dereg(&r.buf);
	r.buf = second;
	t_region_exchange(&r, 0, len);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* A periodic signal must neither fail nor starve a registration. */
static void under_signals(const void *arg)
{
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } };
	struct sigaction sa = { .sa_handler = on_alarm };
	struct t_dev dev;
	struct t_buf b;
	int i;

	(void)arg;
	sigaction(SIGALRM, &sa, NULL);
	t_buf_alloc(&b, 0, 16 * T_PAGE);
	t_dev_open(&dev);
	setitimer(ITIMER_REAL, &every, NULL);
	for (i = 0; i < 300; i++) {
		t_reg(&b, &dev);
		t_dereg(&b);
	}
}

/* The first registration of a process, again and again, under signals. */
static void first_under_signals(const void *arg)
{
	struct itimerval every = { { 0, 1000 }, { 0, 1000 } };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct t_dev dev;
	struct t_buf b;
	int i;

	(void)arg;
	sigaction(SIGALRM, &sa, NULL);
	t_buf_alloc(&b, 0, T_PAGE);
	for (i = 0; i < 30; i++) {
		t_dev_open(&dev);
		setitimer(ITIMER_REAL, &every, NULL);
		t_reg(&b, &dev);
		t_dereg(&b);
		setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
		t_dev_close(&dev);
	}
}

/* ON_DEMAND cannot be switched on or off on a living region. */
static void rereg_keeps_the_kind(const void *arg)
{
	int flip = t_opts.odp ? 0 : IBV_ACCESS_ON_DEMAND;
	struct t_region r;
	size_t len = 2 * T_PAGE;
	int err;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	t_region_exchange(&r, 0, len);
	err = t_rereg(&r.buf, IBV_REREG_MR_CHANGE_ACCESS, NULL, T_REMOTE | flip);
	t_check(err, "the kind of the region was changed");
	t_region_exchange(&r, 1, len - 1);
}

static void rereg_takes_rights_away(const void *arg)
{
	int keep = IBV_ACCESS_REMOTE_READ | (t_opts.odp ? IBV_ACCESS_ON_DEMAND : 0);
	struct t_region r;
	size_t len = 2 * T_PAGE;
	int err;

	(void)arg;
	t_region_open(&r, t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1), len);
	t_region_write(&r, 0, len);
	err = t_rereg(&r.buf, IBV_REREG_MR_CHANGE_ACCESS, NULL, keep);
	t_check(!err, "re-registration: %s", strerror(err));
	t_region_read(&r, 0, len, r.round);
	t_expect(t_write(&r.pair.a, &r.scratch, 0, &r.buf, 0, 8), IBV_WC_REM_ACCESS_ERR,
		 "WRITE after the right was taken away");
	t_region_cpu_holds(&r, 0, len, r.round);
}

static const struct t_case cases[] = {
	{ "1 TiB registers and is used at random places", T_ODP, one_tebibyte, NULL },
	{ "registering locks, pins and touches nothing", T_ODP, nothing_is_locked, NULL },
	{ "use locks nothing and brings in only what is used", T_ODP, use_is_not_locked, NULL },
	{ "a pinned registration is seen in VmPin", T_PINNED, pinning_is_seen, NULL },
	{ "RLIMIT_MEMLOCK is not charged for a plain user", T_ODP, memlock_is_not_charged, NULL },
	{ "RLIMIT_MEMLOCK stops pinning", T_PINNED, memlock_stops_pinning, NULL },
	{ "a region starts at any byte", T_BOTH, unaligned_start, NULL },
	{ "the iova need not be the address", T_BOTH, iova_is_not_the_address, NULL },
	{ "an iova at another offset in the page is refused", T_BOTH,
	  iova_of_another_offset, NULL },
	{ "a range that wraps is refused", T_BOTH, wrapping_ranges, NULL },
	{ "an iova range that wraps is refused", T_ODP, wrapping_iova, NULL },
	{ "a region of length 0 gives access to nothing", T_BOTH, zero_length, NULL },
	{ "two regions over the same pages agree", T_BOTH, two_regions_share_pages, NULL },
	{ "registration under a periodic signal", T_BOTH, under_signals, NULL },
	{ "first registration of a context under a periodic signal", T_BOTH,
	  first_under_signals, NULL },
	{ "re-registration does not change the kind", T_ODP, rereg_keeps_the_kind, NULL },
	{ "re-registration takes rights away", T_BOTH, rereg_takes_rights_away, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
