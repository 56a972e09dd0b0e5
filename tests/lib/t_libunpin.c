// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Debian 12's librxe lacks verbs that libunpin.so has. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t.h"

/*
 * Run the program anew under it, unless it is. build/userspace/tests/verbs/NAME ->
 * build/userspace/libunpin.so
 */
void t_under_libunpin(char **argv)
{
	char exe[PATH_MAX], path[PATH_MAX + 20];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int up;

	if (getenv("LD_PRELOAD"))
		return;
	if (n <= 0)
		t_die("where is libunpin.so?");
	exe[n] = '\0';
	for (up = 0; up < 3; up++)
		*strrchr(exe, '/') = '\0';
	snprintf(path, sizeof(path), "%s/libunpin.so", exe);
	if (access(path, R_OK))
		t_die("%s: %s", path, strerror(errno));
	setenv("LD_PRELOAD", path, 1);
	execv("/proc/self/exe", argv);
	t_die("execv: %s", strerror(errno));
}
