// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Lines on standard error, if that is still what it was: a program may have closed it,
 * and have another file, or a peer, under its number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libunpin.h"

static struct stat original;

void unpin_remember_stderr(void)
{
	if (fstat(STDERR_FILENO, &original))
		original.st_mode = 0;
}

/*
 * write(), but that nobody reads any more is no reason for the program to die: the
 * SIGPIPE of it comes to this thread, and is taken back.
 */
ssize_t unpin_write(int fd, const char *text, size_t len)
{
	const struct timespec now = { 0 };
	sigset_t sigpipe, pending, was;
	ssize_t n;
	int err;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &was);
	n = write(fd, text, len);
	err = errno;
	/* it comes also when only a part was written */
	if (n != (ssize_t)len && !sigismember(&pending, SIGPIPE))
		sigtimedwait(&sigpipe, NULL, &now);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	errno = err;
	return n;
}

static bool is_original(void)
{
	struct stat now;

	return original.st_mode && !fstat(STDERR_FILENO, &now) &&
	       now.st_dev == original.st_dev && now.st_ino == original.st_ino;
}

void unpin_write_stderr(const char *text, size_t len)
{
	if (is_original())
		unpin_write(STDERR_FILENO, text, len);
}

void unpin_say(const char *fmt, ...)
{
	char line[512];
	int n, was = errno;
	va_list ap;

	n = snprintf(line, sizeof(line), "unpin: %.64s[%d]: ",
		     program_invocation_short_name, getpid());
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	unpin_write_stderr(line, n);
	errno = was;
}
