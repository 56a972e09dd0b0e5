// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Who pays: what a mirror needs is charged to the memory control group of the process
 * that is mirrored, though workers of the kernel allocate it, and is uncharged when
 * the memory, or the process, goes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t.h"

#define BYTES		64
#define PROMPT_MS	5000

#define CGROUP		"/sys/fs/cgroup/charged"
#define SPREAD		(128UL << 20)	/* so that each leaf has a node of the xarray */
#define SPOTS		256UL
/* what the kernel takes for a leaf's table, and an xarray's node; at least */
#define TABLE_BYTES	(SPOTS * T_PAGE)
#define NODE_BYTES	(SPOTS * 500)

struct charge {
	long kernel;	/* without the CPU's page tables */
	long nodes;
};

static long memory_stat(const char *text, const char *name)
{
	char find[40], *at;

	snprintf(find, sizeof(find), "\n%s ", name);
	at = strstr(text, find);
	t_check(at, "memory.stat has no %s", name);
	return atol(at + strlen(find));
}

static struct charge charged(void)
{
	char text[8192];

	t_check(t_read_file(CGROUP "/memory.stat", text, sizeof(text)), "memory.stat");
	return (struct charge){
		memory_stat(text, "kernel") - memory_stat(text, "pagetables"),
		memory_stat(text, "slab_reclaimable"),
	};
}

static void make_cgroup(void)
{
	t_write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory\n");
	t_check(!mkdir(CGROUP, 0755) || errno == EEXIST, "mkdir: %s", strerror(errno));
}

/* It touches a page in each of many leaves when told to, and discards all the same. */
static void be_owner(int in, int out)
{
	size_t len = SPREAD * SPOTS, i;
	struct t_region r;
	char what;
	u8 *p;

	t_check(t_write_file(CGROUP "/cgroup.procs", "0\n"), "cgroup.procs");
	p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	t_check(!madvise(p, len, MADV_NOHUGEPAGE), "madvise: %s", strerror(errno));
	t_region_open(&r, p, len);
	while (write(out, "x", 1) == 1 && read(in, &what, 1) == 1) {
		if (what == 'd')
			t_check(!madvise(p, len, MADV_DONTNEED), "MADV_DONTNEED");
		for (i = 0; what == 't' && i < SPOTS; i++)
			t_region_write(&r, i * SPREAD, BYTES);
	}
	_exit(0);
}

static void owner_does(int in, int out, const char *what)
{
	char byte;

	t_check(write(out, what, 1) == 1 && read(in, &byte, 1) == 1, "the owner is gone");
}

static void check_charged(const struct charge *before, const char *when)
{
	struct charge now = charged();

	t_diag("%s: %ld bytes of kernel memory, %ld of nodes", when,
	       now.kernel - before->kernel, now.nodes - before->nodes);
	t_check(t_stat("leaves") == (long)SPOTS, "%ld leaves", t_stat("leaves"));
	t_check(now.kernel - before->kernel >= (long)TABLE_BYTES,
		"the tables are not charged to the owner");
	t_check(now.nodes - before->nodes >= (long)NODE_BYTES,
		"the index is not charged to the owner");
}

/* RCU, and what each CPU has in stock, takes its time. */
static void await_uncharged(const struct charge *before)
{
	u64 end = t_deadline(2 * PROMPT_MS);
	struct charge now = charged();

	while (now.kernel - before->kernel > (long)TABLE_BYTES / 4 ||
	       now.nodes - before->nodes > (long)NODE_BYTES / 2) {
		t_check(t_now_ms() < end, "%ld bytes stay charged, %ld of nodes",
			now.kernel - before->kernel, now.nodes - before->nodes);
		t_sleep_ms(20);
		now = charged();
	}
}

static void charges(const void *arg)
{
	struct charge before;
	int in[2], out[2], status;
	pid_t pid;
	char byte;

	t_check(t_stat_wait("mirrors", 0, 2 * PROMPT_MS), "mirrors are left");
	make_cgroup();
	t_check(!pipe(in) && !pipe(out), "pipe");
	pid = t_fork();
	if (!pid) {
		close(in[1]);
		be_owner(in[0], out[1]);
	}
	t_check(read(out[0], &byte, 1) == 1, "the owner is not ready");
	before = charged();
	owner_does(out[0], in[1], "t");
	check_charged(&before, "touched");
	owner_does(out[0], in[1], "d");
	t_check(t_stat_wait("leaves", 0, 2 * PROMPT_MS), "the empty leaves stay");
	await_uncharged(&before);
	owner_does(out[0], in[1], "t");
	check_charged(&before, "touched again");
	close(in[1]);
	t_check(t_wait_exit(pid, 2 * PROMPT_MS, &status) && !status, "the owner stays");
	t_check(t_stat_wait("mirrors", 0, 2 * PROMPT_MS), "its mirror stays");
	await_uncharged(&before);
}

static const struct t_case cases[] = {
	{ "charged to the owner, and gone with memory and process", T_ODP, charges, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
