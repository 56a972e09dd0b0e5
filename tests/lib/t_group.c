// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Memory control groups below the root, by name. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t.h"

#define ROOT	"/sys/fs/cgroup"

static void path_of(char *path, size_t len, const char *group, const char *file)
{
	snprintf(path, len, "%s/%s/%s", ROOT, group, file);
}

static void set(const char *group, const char *file, const char *value)
{
	char path[128];

	path_of(path, sizeof(path), group, file);
	if (!t_write_file(path, value))
		t_die("%s to %s: %s", value, path, strerror(errno));
}

/* A new one: what was left of a case that ended early goes first. */
void t_group_make(const char *group, const char *max, const char *swap_max)
{
	char path[128];

	path_of(path, sizeof(path), group, "");
	set(".", "cgroup.subtree_control", "+memory");
	rmdir(path);
	if (mkdir(path, 0755) && errno != EEXIST)
		t_die("mkdir %s: %s", path, strerror(errno));
	set(group, "memory.max", max);
	set(group, "memory.swap.max", swap_max);
}

void t_group_join(const char *group)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	set(group, "cgroup.procs", pid);
}

/* Back to the root, and the group goes if that was the last. */
void t_group_leave(const char *group)
{
	char path[128];

	t_group_join(".");
	path_of(path, sizeof(path), group, "");
	rmdir(path);
}

long t_group_read(const char *group, const char *file)
{
	char path[128];

	path_of(path, sizeof(path), group, file);
	return t_read_long(path);
}

long t_group_value(const char *group, const char *file, const char *name)
{
	char path[128];

	path_of(path, sizeof(path), group, file);
	return t_file_value(path, name);
}
