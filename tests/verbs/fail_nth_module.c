// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Each allocation fails in turn that mm_mirror makes when it is loaded, or that is made
 * when the modules are unloaded, and some of what the stock kernel allocates for loading
 * them, and for making and removing a device: what fails leaves nothing behind, and
 * works when it is repeated.
 * Needs a debug kernel. Run it last: it takes rxe0 away and brings it back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"

#define LEN		(8 * T_PAGE)

/**
 * struct module - one that is loaded and unloaded
 * @name: its name
 * @built: where it was built
 * @copy: without its debugging information, which takes long to read
 */
struct module {
	const char *name;
	const char *built;
	const char *copy;
};

static struct module modules[] = {
	{ "mm_mirror", "mm/mm_mirror.ko", "/run/mm_mirror.ko" },
	{ "rdma_rxe", "rxe/rdma_rxe.ko", "/run/rdma_rxe.ko" },
};

static struct module *const mirror = &modules[0], *const rxe = &modules[1];

static bool exists(const char *fmt, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), fmt, name);
	return !access(path, F_OK);
}

static bool is_loaded(const struct module *m)
{
	return exists("/sys/module/%s", m->name);
}

static void copy_module(const struct module *m)
{
	char path[PATH_MAX], command[2 * PATH_MAX];

	t_module_path(path, sizeof(path), m->built);
	snprintf(command, sizeof(command), "strip --strip-debug -o %s '%s'", m->copy, path);
	if (system(command))
		t_die("%s", command);
}

static void load(const struct module *m)
{
	int err = is_loaded(m) ? 0 : t_module_load(m->copy);

	t_check(!err, "loading %s: %s", m->name, strerror(err));
}

static void unload(const struct module *m)
{
	if (is_loaded(m))
		t_module_unload_soon(m->name);
}

static bool have_device(void)
{
	return exists("/sys/class/infiniband/%s", t_opts.dev);
}

static void add_device(void)
{
	int err = have_device() ? 0 : t_link_add();

	t_check(!err, "rdma link add: %s", strerror(err));
}

/* In a child: nothing of it may keep the modules. */
static void use(void)
{
	struct t_region r;
	int status;
	pid_t pid;

	add_device();
	pid = t_fork();
	if (!pid) {
		t_region_open(&r, t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), LEN);
		t_region_exchange(&r, 5, LEN - 5);
		_exit(0);
	}
	t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "use: %#x", status);
}

static void begin(void)
{
	t_fail_reset();
	copy_module(mirror);
	copy_module(rxe);
	unload(rxe);
	unload(mirror);
}

/* As the next case, and who unloads in the end, expects it. */
static void end(void)
{
	load(mirror);
	load(rxe);
	use();
}

static void nothing_left(const struct module *m)
{
	char name[64], line[512];
	FILE *f;

	t_check(!is_loaded(m), "/sys/module/%s is left", m->name);
	t_check(!exists("/sys/kernel/debug/%s", m->name), "debugfs: %s is left", m->name);
	f = fopen("/proc/modules", "re");
	while (f && fgets(line, sizeof(line), f))
		t_check(sscanf(line, "%63s", name) != 1 || strcmp(name, m->name),
			"/proc/modules: %s is left", m->name);
	if (f)
		fclose(f);
}

static int do_load(void *ctx)
{
	struct module *m = ctx;

	return t_module_load(m->copy);
}

static int do_unload(void *ctx)
{
	struct module *m = ctx;

	return t_module_unload(m->name);
}

/* Each failing load leaves nothing; one after it works, tried now and then: it takes long. */
static void check_load(void *ctx, int err)
{
	static unsigned int failures;
	struct module *m = ctx;

	if (err)
		nothing_left(m);
	if (err && failures++ % 16)
		return;
	load(m);
	unload(m);
	nothing_left(m);
}

static void check_unload(void *ctx, int err)
{
	struct module *m = ctx;

	if (err)
		unload(m);
	nothing_left(m);
	load(m);
}

/*
 * The loader has many words for what it cannot have. Only some of what it allocates
 * fails, and of what rdma_rxe does when it is loaded, since nothing of that is ours.
 */
static void load_sweep(const void *arg)
{
	struct module *m = *(struct module *const *)arg;
	struct t_sweep s = {
		.what = "loading", .op = do_load, .check = check_load, .any_error = true,
		.step = m == rxe ? 31 : 23,
	};

	begin();
	/* Tracing warns if there is no memory to describe the events of a module. */
	t_fail_spare("event_define_fields");
	if (m == rxe)
		load(mirror);
	t_sweep(&s, m);
	if (m == mirror) {
		s.step = 1;
		t_fail_below("do_init_module");
		t_sweep(&s, m);
	}
	end();
}

static void unload_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "unloading", .op = do_unload, .check = check_unload,
	};
	struct module *m = *(struct module *const *)arg;

	begin();
	load(mirror);
	if (m == rxe)
		load(rxe);
	t_sweep(&s, m);
	end();
}

/* ---- the device: some of thousands of allocations, none of which is ours ---- */

static int do_add(void *ctx)
{
	(void)ctx;
	return t_link_add();
}

static int do_delete(void *ctx)
{
	const u32 *index = ctx;

	return t_link_delete(*index);
}

/* The answer may be what had no memory: then the device is there all the same. */
static void check_add(void *ctx, int err)
{
	(void)ctx;
	(void)err;
	add_device();
	t_check(!t_link_delete(t_link_index()) && !have_device(), "the device stays");
}

static void check_delete(void *ctx, int err)
{
	u32 *index = ctx;

	if (err && have_device())
		t_check(!t_link_delete(*index), "the device cannot be removed");
	t_check(!have_device(), "the device stays");
	add_device();
	*index = t_link_index();
}

static void add_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "rdma link add", .op = do_add, .check = check_add, .any_error = true,
		.from = 101, .step = 997,
	};

	(void)arg;
	begin();
	load(mirror);
	load(rxe);
	t_sweep(&s, NULL);
	end();
}

static void delete_sweep(const void *arg)
{
	static const struct t_sweep s = {
		.what = "rdma link delete", .op = do_delete, .check = check_delete,
		.any_error = true, .from = 3, .step = 41,
	};
	u32 index;

	(void)arg;
	begin();
	load(mirror);
	load(rxe);
	add_device();
	index = t_link_index();
	t_sweep(&s, &index);
	end();
}

static const struct t_case cases[] = {
	{ "loading mm_mirror", T_ODP, load_sweep, &mirror },
	{ "unloading mm_mirror", T_ODP, unload_sweep, &mirror },
	{ "loading rdma_rxe", T_ODP, load_sweep, &rxe },
	{ "unloading rdma_rxe", T_ODP, unload_sweep, &rxe },
	{ "making a device", T_ODP, add_sweep, NULL },
	{ "removing a device", T_ODP, delete_sweep, NULL },
};

int main(int argc, char **argv)
{
	t_opts.seconds = 120;
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
