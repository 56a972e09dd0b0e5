// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A real filesystem with writeback: ext4 on the guest's first empty disk
 * (UNPIN_DISKS), or on its persistent memory (UNPIN_PMEM), without a page cache
 * there; mounted in a mount namespace that ends with the case.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

/* Blocks of a page each, which DAX wants, and a small filesystem would not have. */
static void run_mkfs(const char *disk)
{
	int status, null;
	pid_t pid = fork();

	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp("mkfs.ext4", "mkfs.ext4", "-q", "-F", "-b", "4096", disk, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		t_die("mkfs.ext4 %s failed", disk);
}

/* A new file of len zero bytes on a fresh filesystem, open for both. */
static int new_file(const char *disk, const char *options, size_t len)
{
	int fd;

	run_mkfs(disk);
	mkdir(T_DISK_MOUNT, 0700);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		t_die("mount namespace: %s", strerror(errno));
	if (mount(disk, T_DISK_MOUNT, "ext4", 0, options))
		t_die("mounting %s: %s", disk, strerror(errno));
	fd = open(T_DISK_MOUNT "/file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, len))
		t_die("file on %s: %s", disk, strerror(errno));
	return fd;
}

int t_disk_file(size_t len)
{
	const char *disks = getenv("UNPIN_DISKS");
	char disk[64];

	if (!disks || sscanf(disks, "%63s", disk) != 1)
		t_die("no disk in UNPIN_DISKS: this test wants a guest with --disk");
	return new_file(disk, NULL, len);
}

/* Whoever maps it has the persistent memory itself. */
int t_pmem_file(size_t len)
{
	const char *pmem = getenv("UNPIN_PMEM");
	struct statx st;
	int fd;

	if (!pmem || !*pmem)
		t_die("no UNPIN_PMEM: this test wants a guest with --nvdimm");
	fd = new_file(pmem, "dax=always", len);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) ||
	    !(st.stx_attributes & STATX_ATTR_DAX))
		t_die("%s: not a DAX file", pmem);
	return fd;
}
