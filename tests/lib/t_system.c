// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Process status, the mirror's counters and delays, time, child processes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "t.h"

#define MIRROR_DEBUGFS	"/sys/kernel/debug/mm_mirror"

bool t_read_file(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n, done = 0;

	if (fd < 0)
		return false;
	while ((n = read(fd, buf + done, len - 1 - done)) > 0)
		done += n;
	buf[done] = '\0';
	close(fd);
	return n == 0 || done == (ssize_t)len - 1;
}

long t_read_long(const char *path)
{
	char buf[64];

	return t_read_file(path, buf, sizeof(buf)) ? atol(buf) : -1;
}

bool t_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

/* The number after "name" at the start of a line, or -1. */
static long line_value(const char *text, const char *name)
{
	size_t len = strlen(name);
	const char *line;

	for (line = text; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (!strncmp(line, name, len) && strchr(": \t", line[len]))
			return atol(line + len + 1);
	}
	return -1;
}

long t_status_kb(const char *field)
{
	char text[8192];

	if (!t_read_file("/proc/self/status", text, sizeof(text)))
		t_die("cannot read /proc/self/status");
	return line_value(text, field);
}

/* The number after "name" in a file of such lines, or -1. */
long t_file_value(const char *path, const char *name)
{
	char text[8192];

	if (!t_read_file(path, text, sizeof(text)))
		return -1;
	return line_value(text, name);
}

/* A counter of the mirror, or -1 where there is none. */
long t_stat(const char *name)
{
	return t_file_value(MIRROR_DEBUGFS "/stats", name);
}

/* A number of the debug build's book of pages, or -1. */
long t_oracle(const char *name)
{
	return t_file_value(MIRROR_DEBUGFS "/oracle", name);
}

/* A counter of the kernel's memory management, or -1. */
long t_vmstat(const char *name)
{
	return t_file_value("/proc/vmstat", name);
}

/* Does the core say what devices use? False where there is no switch for it. */
bool t_aging_set(bool on)
{
	return t_write_file(MIRROR_DEBUGFS "/aging", on ? "Y" : "N");
}

/* Wait until a gauge is down to what it was; true where there is none. */
bool t_stat_wait(const char *name, long value, int ms)
{
	u64 end = t_deadline(ms);

	while (t_stat(name) > value) {
		if (t_now_ms() > end) {
			t_diag("%s is still %ld, not %ld", name, t_stat(name), value);
			return false;
		}
		t_sleep_ms(20);
	}
	return true;
}

bool t_delay_set(const char *point, unsigned long usecs)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), MIRROR_DEBUGFS "/delay/%s", point);
	snprintf(text, sizeof(text), "%lu\n", usecs);
	return t_write_file(path, text);
}

/* Somebody is dawdling there now. */
bool t_delay_met(const char *point, int ms)
{
	u64 end = t_deadline(ms);
	char path[128];

	snprintf(path, sizeof(path), MIRROR_DEBUGFS "/delayed/%s", point);
	while (t_read_long(path) <= 0) {
		if (t_now_ms() > end)
			return false;
		usleep(500);
	}
	return true;
}

/* What a case that failed has left would be held against the next. */
void t_delays_clear(void)
{
	DIR *dir = opendir(MIRROR_DEBUGFS "/delay");
	struct dirent *point;

	if (!dir)
		return;
	while ((point = readdir(dir))) {
		if (point->d_name[0] != '.')
			t_delay_set(point->d_name, 0);
	}
	closedir(dir);
}

bool t_delay_available(void)
{
	return !access(MIRROR_DEBUGFS "/delay", F_OK);
}

u64 t_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/*
 * How long something may take that takes less than @ms on an ordinary kernel: a debug
 * kernel is slower, by a factor that the guest sets. Correctness never depends on it.
 */
u64 t_patience(u64 ms)
{
	const char *factor = getenv("UNPIN_PATIENCE");

	return ms * (factor ? strtoul(factor, NULL, 10) : 1);
}

u64 t_deadline(u64 ms)
{
	return t_now_ms() + t_patience(ms);
}

void t_sleep_ms(unsigned int ms)
{
	usleep(ms * 1000);
}

/*
 * A window is open for a moment after an access begins: @try something that many
 * milliseconds after it, until it says that it was inside. Also later: the kernel may
 * be slow, or the host busy.
 */
void t_until_hit(bool (*try)(const void *arg, unsigned int start_ms), const void *arg)
{
	static const unsigned int starts[] = { 20, 40, 70, 10, 90, 100 };
	unsigned int later, tries = 0;
	size_t i;

	for (later = 1; later <= 2 * t_patience(1); later *= 2) {
		for (i = 0; i < T_ARRAY_SIZE(starts); i++, tries++) {
			if (try(arg, starts[i] * later))
				return;
		}
	}
	t_check(false, "the window was not hit in %u tries", tries);
}

/* A helper process that does not outlive the case. */
pid_t t_fork(void)
{
	pid_t pid = fork();

	if (pid < 0)
		t_die("fork: %s", strerror(errno));
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

bool t_wait_exit(pid_t pid, int ms, int *status)
{
	u64 end = t_deadline(ms);
	pid_t got;

	while ((got = waitpid(pid, status, WNOHANG)) == 0) {
		if (t_now_ms() > end)
			return false;
		usleep(500);
	}
	return got == pid;
}

/*
 * A plain user with that much locked memory. The device is opened after this: what a
 * file may do goes by who opened it.
 */
void t_become_nobody(rlim_t memlock)
{
	struct rlimit lim = { memlock, memlock };
	struct passwd *pw = getpwnam("nobody");

	if (!pw)
		t_die("no user nobody");
	if (chmod("/dev/infiniband/uverbs0", 0666))
		t_die("/dev/infiniband/uverbs0: %s", strerror(errno));
	if (setrlimit(RLIMIT_MEMLOCK, &lim) || setgroups(0, NULL) ||
	    setgid(pw->pw_gid) || setuid(pw->pw_uid))
		t_die("becoming nobody: %s", strerror(errno));
}
