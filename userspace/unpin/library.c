// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Where our libraries are, from wherever the tool is run. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "unpin.h"

/* Where the program itself is; NULL if the kernel does not say. */
const char *own_directory(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n <= 0)
		return NULL;
	path[n] = '\0';
	*strrchr(path, '/') = '\0';
	return path;
}

static int is_there(const char *dir, const char *sub, const char *name, char *path,
		    size_t len)
{
	return dir && snprintf(path, len, "%s%s/%s", dir, sub, name) < (int)len &&
	       !access(path, R_OK);
}

/*
 * Beside the tool where it was built; or in the lib beside its bin, where it was
 * installed and wherever that was moved to. The dynamic linker takes a list, with
 * colons or blanks between, and knows no way to write these.
 */
void find_library(const char *name, char *path, size_t len)
{
	const char *dir = own_directory();

	if (!is_there(dir, "", name, path, len) &&
	    !is_there(dir, "/../lib/unpin", name, path, len))
		die("no %s beside %s, nor in ../lib/unpin of it", name, dir ? dir : "unpin");
	if (strpbrk(path, ": "))
		die("'%s' has a colon or a blank in it, and so cannot be preloaded", path);
}
