// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What the kernel is told when it asks whether a device uses a page: YOUNG is set by
 * each take, for the page that is taken (for 2 MiB where they are one entry), it is
 * or'ed with what the CPU did, clear_young takes it back, and test_young does not.
 *
 * clear_young is asked through /sys/kernel/debug/lru_gen: aging a memory control group
 * moves what is young, and nothing else, into its youngest generation, whose pages the
 * file counts. test_young is asked by khugepaged, which has a tracepoint.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t.h"

#define LEAVES		2
#define LEN		(LEAVES * T_HUGE)
#define PAGES		(LEN / T_PAGE)
#define STEP		5	/* the device uses every fifth page */
#define CPU_STEP	3
#define USED		((PAGES + STEP - 1) / STEP)
#define AT		(T_PAGE - 64)
#define BYTES		64

/* The process has other memory than what it registers: some pages are always used. */
#define NOISE		32

#define GROUPS		"/sys/fs/cgroup"
#define THP		"/sys/kernel/mm/transparent_hugepage"
#define TRACING		"/sys/kernel/tracing"
#define SCAN_EVENT	TRACING "/events/huge_memory/mm_khugepaged_scan_pmd/enable"

enum how { READ, WRITE, ATOMIC, SOURCE };

struct scene {
	struct t_region r;
	u8 *p;
	size_t len;
	char group[32];
};

/* ---- asking: clear_young ---- */

/* Anonymous pages of the group in its youngest generation, and which that is. */
struct youngest {
	unsigned int id;
	unsigned long seq;
	unsigned long pages;
};

/* The group's part of the file: its number, then the generations of node 0, up to @seq. */
static struct youngest in_generation(const struct scene *s, unsigned long seq)
{
	static char text[1 << 16];
	unsigned long got, age, anon;
	struct youngest y = { 0 };
	char name[48], *line;

	t_check(t_read_file("/sys/kernel/debug/lru_gen", text, sizeof(text)), "no lru_gen");
	snprintf(name, sizeof(name), " /%s\n", s->group);
	line = strstr(text, name);
	t_check(line, "lru_gen has no %s", name);
	while (line > text && line[-1] != '\n')
		line--;
	t_check(sscanf(line, "memcg %u", &y.id) == 1, "lru_gen: '%.20s'", line);
	line = strchr(strstr(line, " node "), '\n') + 1;
	for (; sscanf(line, "%lu %lu %lu", &got, &age, &anon) == 3;
	     line = strchr(line, '\n') + 1) {
		y.seq = got;
		y.pages = anon;
		if (got == seq)
			break;
	}
	return y;
}

/*
 * How many pages were young? They are now in what was the youngest generation, where
 * nothing else is if something was aged since it was touched.
 */
static unsigned long age(const struct scene *s)
{
	struct youngest y = in_generation(s, ULONG_MAX);
	char command[64];

	snprintf(command, sizeof(command), "+ %u 0 %lu 1 1\n", y.id, y.seq);
	t_check(t_write_file("/sys/kernel/debug/lru_gen", command), "aging: %s",
		strerror(errno));
	return in_generation(s, y.seq).pages;
}

/* Aging leaves out a page table that somebody has locked, until the next time. */
static void expect_young(const struct scene *s, unsigned long want, const char *what)
{
	unsigned long got = age(s);
	int tries;

	for (tries = 0; got < want && tries < 2; tries++)
		got += age(s);
	t_check(got >= want && got <= want + NOISE, "%s: %lu pages are young, not %lu", what,
		got, want);
}

/* ---- the scene ---- */

static void enter_group(struct scene *s)
{
	char path[128], pid[16];

	snprintf(s->group, sizeof(s->group), "young-%d", getpid());
	snprintf(pid, sizeof(pid), "%d\n", getpid());
	t_write_file(GROUPS "/cgroup.subtree_control", "+memory");
	snprintf(path, sizeof(path), GROUPS "/%s", s->group);
	t_check(!mkdir(path, 0755), "%s: %s", path, strerror(errno));
	snprintf(path, sizeof(path), GROUPS "/%s/cgroup.procs", s->group);
	t_check(t_write_file(path, pid), "%s: %s", path, strerror(errno));
}

/* Memory of a group of its own, none of it young. */
static void open_scene(struct scene *s, size_t len, int advice)
{
	memset(s, 0, sizeof(*s));
	t_check(t_write_file("/sys/kernel/mm/lru_gen/enabled", "7"), "no MGLRU");
	/* in a small guest it is off */
	t_check(t_write_file(THP "/enabled", "madvise"), "no huge pages");
	t_check(t_aging_set(true), "no switch for aging: this test wants the debug build");
	s->len = len;
	s->p = t_map_huge_aligned(len);
	t_check(!madvise(s->p, len, advice), "madvise: %s", strerror(errno));
	t_region_open(&s->r, s->p, len);
	enter_group(s);
	t_fill(s->p, len, 1);
	t_drain_lru();
	age(s);
	age(s);
	expect_young(s, 0, "memory that nobody uses");
}

static void use_page(struct scene *s, size_t page, enum how how)
{
	size_t off = page * T_PAGE + AT;
	struct t_ep *ep = &s->r.pair.a;

	switch (how) {
	case READ:
		t_region_read(&s->r, off, BYTES, 1);
		break;
	case WRITE:
		t_region_write(&s->r, off, BYTES);
		break;
	case ATOMIC:
		t_expect(t_fadd(ep, &s->r.scratch, 0, &s->r.buf, off, 1),
			 IBV_WC_SUCCESS, "atomic on page %zu", page);
		break;
	case SOURCE:
		t_expect(t_write(ep, &s->r.buf, off, &s->r.scratch, 0, BYTES),
			 IBV_WC_SUCCESS, "WRITE out of page %zu", page);
		t_check(t_matches_at(s->r.scratch.p, BYTES, off, 1),
			"WRITE out of page %zu moved wrong bytes", page);
		break;
	}
}

static void use_pages(struct scene *s, enum how how)
{
	size_t i;

	for (i = 0; i < s->len / T_PAGE; i += STEP)
		use_page(s, i, how);
}

/* ---- clear_young ---- */

static void small_pages(const void *arg)
{
	enum how how = *(const enum how *)arg;
	struct scene s;

	open_scene(&s, LEN, MADV_NOHUGEPAGE);
	use_pages(&s, how);
	expect_young(&s, USED, "used");
	expect_young(&s, 0, "asked a second time");
	use_pages(&s, how);
	expect_young(&s, USED, "used again");
}

/* The device's entry is for 2 MiB, and so is the question. */
static void huge_pages(const void *arg)
{
	enum how how = *(const enum how *)arg;
	struct scene s;

	open_scene(&s, LEN, MADV_HUGEPAGE);
	t_check(t_huge_bytes(s.p) == LEN, "no huge pages");
	use_page(&s, PAGES - 1, how);
	expect_young(&s, PAGES / LEAVES, "one of two used");
	expect_young(&s, 0, "asked a second time");
	use_page(&s, 0, how);
	use_page(&s, PAGES / 2, how);
	expect_young(&s, PAGES, "both used");
	t_check(t_huge_bytes(s.p) == LEN, "the huge pages were split");
}

/* Without this the CPU may use pages and not say so: it still has their entries. */
static void forget_entries(struct scene *s)
{
	t_check(!mprotect(s->p, s->len, PROT_READ) &&
		!mprotect(s->p, s->len, PROT_READ | PROT_WRITE), "mprotect");
}

static void or_the_cpu(const void *arg)
{
	unsigned long want = 0;
	struct scene s;
	size_t i;

	open_scene(&s, LEN, MADV_NOHUGEPAGE);
	forget_entries(&s);
	for (i = 0; i < PAGES; i++) {
		if (i % STEP == 0)
			use_page(&s, i, READ);
		if (i % CPU_STEP == 0)
			t_check(t_matches_at(s.p + i * T_PAGE, 1, i * T_PAGE, 1), "byte %zu",
				i * T_PAGE);
		want += i % STEP == 0 || i % CPU_STEP == 0;
	}
	expect_young(&s, want, "used by the device, the CPU, or both");
	expect_young(&s, 0, "asked a second time");
}

static void switched_off(const void *arg)
{
	struct scene s;

	open_scene(&s, LEN, MADV_NOHUGEPAGE);
	use_pages(&s, READ);
	t_aging_set(false);
	expect_young(&s, 0, "aging is off");
	t_aging_set(true);
	expect_young(&s, USED, "it is on again");
}

/* ---- test_young ---- */

/* khugepaged looks at everything that may be huge, twice from now on, and rests. */
static void khugepaged_looks(struct scene *s)
{
	long scans;
	u64 end;

	t_check(t_write_file(THP "/khugepaged/scan_sleep_millisecs", "10") &&
		t_write_file(THP "/khugepaged/pages_to_scan", "8192"), "no khugepaged");
	t_check(!madvise(s->p, s->len, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	scans = t_read_long(THP "/khugepaged/full_scans");
	end = t_deadline(30000);
	while (t_read_long(THP "/khugepaged/full_scans") < scans + 3) {
		t_check(t_now_ms() < end, "khugepaged does not come by");
		t_sleep_ms(20);
	}
	t_write_file(THP "/khugepaged/scan_sleep_millisecs", "3600000");
}

/* The event stays on, as in tests/lib/t_trace.c, and so does the rest stay off. */
static void trace_scans(void)
{
	int fd = open(TRACING "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	t_check(fd >= 0 && t_write_file(TRACING "/options/record-cmd", "0") &&
		t_write_file(SCAN_EVENT, "1") && t_write_file(TRACING "/tracing_on", "1"),
		"no tracing");
	close(fd);
}

/* How many pages of the 2 MiB that end with @last were young whenever it looked. */
static unsigned long khugepaged_saw(const void *last)
{
	static char text[1 << 20];
	unsigned long young = 0, now;
	char pfn[48], *line = text;
	unsigned int looks = 0;

	t_write_file(TRACING "/tracing_on", "0");
	t_check(t_read_file(TRACING "/trace", text, sizeof(text)), "no trace");
	snprintf(pfn, sizeof(pfn), "scan_pfn=0x%lx,", (unsigned long)t_pfn(last));
	while ((line = strstr(line, pfn))) {
		line += strlen(pfn);
		t_check(sscanf(line, " writable=%*d, referenced=%lu", &now) == 1, "trace: %.80s",
			line);
		t_check(!looks++ || now == young, "%lu pages were young, then %lu", young, now);
		young = now;
	}
	t_check(looks, "khugepaged has not looked");
	return young;
}

/* What is mapped for reading only it looks at, and leaves as it is. */
static void test_clears_nothing(const void *arg)
{
	unsigned long used = (PAGES / LEAVES + STEP - 1) / STEP, saw;
	struct scene s;

	open_scene(&s, T_HUGE, MADV_NOHUGEPAGE);
	t_check(!mprotect(s.p, s.len, PROT_READ), "mprotect");
	t_check(t_write_file("/proc/self/clear_refs", "1"), "clear_refs");
	use_pages(&s, READ);
	trace_scans();
	khugepaged_looks(&s);
	saw = khugepaged_saw(s.p + T_HUGE - T_PAGE);
	t_check(saw == used, "khugepaged found %lu pages young, not %lu", saw, used);
	expect_young(&s, used, "tested before");
	expect_young(&s, 0, "asked a second time");
}

/* khugepaged leaves alone what nobody uses. */
static void collapses_what_is_used(const void *arg)
{
	struct scene s;

	open_scene(&s, T_HUGE, MADV_NOHUGEPAGE);
	t_check(t_write_file("/proc/self/clear_refs", "1"), "clear_refs");
	khugepaged_looks(&s);
	t_check(!t_huge_bytes(s.p), "a huge page was made of what nobody uses");
	use_pages(&s, READ);
	khugepaged_looks(&s);
	t_check(t_huge_bytes(s.p) == T_HUGE, "no huge page was made of what the device uses");
	t_region_read(&s.r, 0, T_HUGE, 1);
}

static const enum how hows[] = { READ, WRITE, ATOMIC, SOURCE };

static const struct t_case cases[] = {
	{ "small pages: READ makes young", T_ODP, small_pages, &hows[READ] },
	{ "small pages: WRITE makes young", T_ODP, small_pages, &hows[WRITE] },
	{ "small pages: an atomic makes young", T_ODP, small_pages, &hows[ATOMIC] },
	{ "small pages: a WRITE out of them makes young", T_ODP, small_pages, &hows[SOURCE] },
	{ "huge pages: READ makes young", T_ODP, huge_pages, &hows[READ] },
	{ "huge pages: WRITE makes young", T_ODP, huge_pages, &hows[WRITE] },
	{ "young is what the device or the CPU uses", T_ODP, or_the_cpu, NULL },
	{ "aging that is off says no and clears nothing", T_ODP, switched_off, NULL },
	{ "test_young clears nothing", T_ODP, test_clears_nothing, NULL },
	{ "khugepaged collapses what the device uses", T_ODP, collapses_what_is_used, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
