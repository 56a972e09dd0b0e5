// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A real filesystem with writeback: ext4 on the guest's first empty disk
 * (UNPIN_DISKS), mounted in a mount namespace that ends with the case.
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

#define MOUNT_POINT	"/tmp/unpin-disk"

static void run_mkfs(const char *disk)
{
	int status, null;
	pid_t pid = fork();

	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp("mkfs.ext4", "mkfs.ext4", "-q", "-F", disk, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		t_die("mkfs.ext4 %s failed", disk);
}

/* A new file of len zero bytes on the fresh filesystem, open for both. */
int t_disk_file(size_t len)
{
	const char *disks = getenv("UNPIN_DISKS");
	char disk[64];
	int fd;

	if (!disks || sscanf(disks, "%63s", disk) != 1)
		t_die("no disk in UNPIN_DISKS: this test wants a guest with --disk");
	run_mkfs(disk);
	mkdir(MOUNT_POINT, 0700);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		t_die("mount namespace: %s", strerror(errno));
	if (mount(disk, MOUNT_POINT, "ext4", 0, NULL))
		t_die("mounting %s: %s", disk, strerror(errno));
	fd = open(MOUNT_POINT "/file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, len))
		t_die("file on %s: %s", disk, strerror(errno));
	return fd;
}
