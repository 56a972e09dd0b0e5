// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The modules can be unloaded when nobody uses them, also right after a process
 * was killed in the middle of everything, not while somebody does, and work when
 * they are loaded again. Run it last: it takes rxe0 away and brings it back.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define LEN	(8 * T_PAGE)

static void load(const char *module)
{
	char path[PATH_MAX];
	int err;

	t_module_path(path, sizeof(path), module);
	err = t_module_load(path);
	t_check(!err, "loading %s: %s", module, strerror(err));
}

static void add_link(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execlp("rdma", "rdma", "link", "add", t_opts.dev, "type", "rxe", "netdev",
		       "lo", NULL);
		_exit(127);
	}
	t_check(t_wait_exit(pid, 20000, &status) && !status, "rdma link add");
}

static void unload_both(void)
{
	t_module_unload_soon("rdma_rxe");
	t_module_unload_soon("mm_mirror");
	t_check(access("/sys/module/mm_mirror", F_OK), "mm_mirror is still there");
}

static void load_both(void)
{
	load("mm/mm_mirror.ko");
	load("rxe/rdma_rxe.ko");
	add_link();
}

static void use(void)
{
	struct t_region r;

	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	t_region_exchange(&r, 5, LEN - 5);
}

static void use_in_child(void)
{
	int status;
	pid_t pid = t_fork();

	if (!pid) {
		use();
		_exit(0);
	}
	t_check(t_wait_exit(pid, 20000, &status) && !status, "use after loading");
}

static void reloaded(const void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < 3; i++) {
		use_in_child();
		unload_both();
		load_both();
		use_in_child();
	}
}

/* Right after a kill: work items, timers and RCU callbacks may be under way. */
static void unloaded_after_kill(const void *arg)
{
	int i, status;
	pid_t pid;

	(void)arg;
	for (i = 0; i < 4; i++) {
		pid = t_fork();
		if (!pid) {
			for (;;)
				use();
		}
		t_sleep_ms(150 + 40 * i);
		kill(pid, SIGKILL);
		t_check(t_wait_exit(pid, 10000, &status), "the killed process stays");
		unload_both();
		load_both();
	}
	use_in_child();
}

/* A process whose fault nobody serves was killed. */
static void unloaded_after_stuck_fault(const void *arg)
{
	int status, ready[2];
	pid_t pid;
	char byte;

	(void)arg;
	t_check(!pipe(ready), "pipe");
	pid = t_fork();
	if (!pid) {
		u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		int uffd = t_uffd_open();
		struct ibv_sge sge;
		struct t_op op = { .opcode = IBV_WR_RDMA_WRITE, .sge = &sge, .num_sge = 1 };
		struct t_region r;
		u64 address;

		t_region_open(&r, p, LEN);
		t_uffd_watch(uffd, p, LEN);
		sge = t_sge(&r.scratch, 0, LEN);
		op.raddr = r.buf.iova;
		op.rkey = r.buf.mr->rkey;
		t_post(&r.pair.a, &op, NULL);
		if (t_uffd_wait(uffd, 10000, &address) && write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	t_check(read(ready[0], &byte, 1) == 1, "the victim is not ready");
	kill(pid, SIGKILL);
	t_check(t_wait_exit(pid, 5000, &status), "the killed process stays");
	unload_both();
	load_both();
	use_in_child();
}

static void not_while_in_use(const void *arg)
{
	struct t_region r;

	(void)arg;
	t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
	t_region_exchange(&r, 0, LEN);
	t_check(t_module_unload("mm_mirror"), "mm_mirror was unloaded while rxe uses it");
	t_check(t_module_unload("rdma_rxe"), "rdma_rxe was unloaded while a device is open");
	t_region_exchange(&r, 0, LEN);
}

static const struct t_case cases[] = {
	{ "not while in use", T_ODP, not_while_in_use, NULL },
	{ "unloaded and loaded again", T_ODP, reloaded, NULL },
	{ "unloaded right after a kill", T_ODP, unloaded_after_kill, NULL },
	{ "unloaded after a process was killed in a fault", T_ODP,
	  unloaded_after_stuck_fault, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
