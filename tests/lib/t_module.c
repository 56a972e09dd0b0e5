// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Loading and unloading our modules, by this thread itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "t.h"

/* build/userspace/tests/verbs/NAME -> build/KVER/VARIANT/MODULE */
void t_module_path(char *path, size_t len, const char *module)
{
	const char *variant = getenv("UNPIN_VARIANT");
	char exe[PATH_MAX / 2];
	struct utsname name;
	ssize_t n;
	int up;

	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n <= 0 || !variant || uname(&name))
		t_die("where are the modules?");
	exe[n] = '\0';
	for (up = 0; up < 4; up++)
		*strrchr(exe, '/') = '\0';
	snprintf(path, len, "%s/%s/%s/%s", exe, name.release, variant, module);
}

/* 0 or an error. */
int t_module_load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, "", 0))
		err = errno;
	close(fd);
	return err;
}

int t_module_unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

/* A moment may pass until what a killed process had open is closed. */
void t_module_unload_soon(const char *name)
{
	u64 end = t_deadline(10000);
	int err;

	while ((err = t_module_unload(name)) && t_now_ms() < end)
		t_sleep_ms(20);
	if (err)
		t_die("unloading %s: %s", name, strerror(err));
}
