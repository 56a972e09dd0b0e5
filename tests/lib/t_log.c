// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The kernel's log: what it says from now on, and a warning that has to come. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "t.h"

#define PANIC_ON_WARN	"/proc/sys/kernel/panic_on_warn"

/* For t_log_count(): from its end. */
int t_log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (log < 0 || lseek(log, 0, SEEK_END) < 0)
		t_die("/dev/kmsg: %s", strerror(errno));
	return log;
}

/* How many lines since the last call have this text. */
unsigned int t_log_count(int log, const char *text)
{
	unsigned int n = 0;
	char line[8192];
	ssize_t len;

	while ((len = read(log, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		line[len > 0 ? len : 0] = '\0';
		n += !!strstr(line, text);
	}
	return n;
}

/*
 * The case is about to do what the kernel has to warn of, once, in these words: that
 * one warning is no splat (tests/vm/splats), and no panic where warnings are.
 */
void t_log_expect(struct t_expected *expected, const char *text)
{
	char line[256];

	expected->text = text;
	expected->panic_on_warn = t_read_long(PANIC_ON_WARN);
	snprintf(line, sizeof(line), "unpin: expects: %s\n", text);
	/* which the kernel says only once, unless it is told to forget */
	if (!t_write_file("/sys/kernel/debug/clear_warn_once", "1") ||
	    !t_write_file("/dev/kmsg", line) || !t_write_file(PANIC_ON_WARN, "0"))
		t_die("telling the kernel what is to come: %s", strerror(errno));
	expected->log = t_log_open();
}

/* It has come: how often. */
unsigned int t_log_expected(struct t_expected *expected)
{
	unsigned int n = t_log_count(expected->log, expected->text);

	close(expected->log);
	if (expected->panic_on_warn > 0 && !t_write_file(PANIC_ON_WARN, "1"))
		t_die(PANIC_ON_WARN ": %s", strerror(errno));
	return n;
}
