// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What became of the registrations of this process, and the summary of it at exit. A
 * child of fork() has its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libunpin.h"

#define ERRNOS	134

struct count {
	atomic_ulong number;
	atomic_ullong bytes;
};

static struct count total;
static struct count outcomes[UNPIN_OUTCOMES];
static struct count refused[ERRNOS];	/* of UNPIN_REFUSED, by errno */
static struct count unprefetched;
static pid_t whose;

static const char * const texts[UNPIN_OUTCOMES] = {
	[UNPIN_ON_DEMAND]	= "on demand",
	[UNPIN_OWN]		= "on demand, as the program asked",
	[UNPIN_NO_ODP]		= "as asked, the device has no on-demand paging",
	[UNPIN_TRANSPORT]	= "as asked, the device has it not for every operation",
	[UNPIN_EXCLUDED]	= "as asked, the device is excluded",
	[UNPIN_SMALL]		= "as asked, below the minimum size",
	[UNPIN_MEMORY]		= "as asked, not all of it is memory with these rights",
	[UNPIN_REFUSED]		= "as asked, on demand was refused",
	[UNPIN_FAILED]		= "failed",
};

const char *unpin_outcome_text(enum unpin_outcome outcome)
{
	const char *text = texts[outcome];
	const char *why = strstr(text, ", ");

	return why ? why + 2 : text;
}

static void add(struct count *count, size_t bytes)
{
	atomic_fetch_add_explicit(&count->number, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&count->bytes, bytes, memory_order_relaxed);
}

/* @err: of UNPIN_REFUSED */
void unpin_count(enum unpin_outcome outcome, size_t bytes, int err)
{
	add(&total, bytes);
	add(&outcomes[outcome], bytes);
	if (outcome == UNPIN_REFUSED)
		add(&refused[err > 0 && err < ERRNOS ? err : 0], bytes);
}

void unpin_count_unprefetched(size_t bytes)
{
	add(&unprefetched, bytes);
}

/* In the child of fork(). */
void unpin_count_afresh(void)
{
	memset(&total, 0, sizeof(total));
	memset(outcomes, 0, sizeof(outcomes));
	memset(refused, 0, sizeof(refused));
	memset(&unprefetched, 0, sizeof(unprefetched));
	whose = getpid();
}

static void put(FILE *out, const struct count *count, bool always, const char *what,
		const char *more)
{
	if (count->number || always)
		fprintf(out, "unpin: %s[%d]: %s%s: %lu, %llu bytes\n",
			program_invocation_short_name, getpid(), what, more, count->number,
			count->bytes);
}

static void put_refused(FILE *out)
{
	char why[32];
	int err;

	for (err = 0; err < ERRNOS; err++) {
		const char *name = strerrorname_np(err);

		snprintf(why, sizeof(why), " with %s", err && name ? name : "an error");
		put(out, &refused[err], false, texts[UNPIN_REFUSED], why);
	}
}

static void put_all(FILE *out)
{
	enum unpin_outcome outcome;

	put(out, &total, true, "registrations", "");
	for (outcome = 0; outcome < UNPIN_OUTCOMES; outcome++) {
		if (outcome == UNPIN_REFUSED)
			put_refused(out);
		else
			put(out, &outcomes[outcome], outcome == UNPIN_ON_DEMAND,
			    texts[outcome], "");
	}
	put(out, &unprefetched, false, "not prefetched", "");
}

/* In one piece: the processes of a program may write to one file. */
static void deliver(const char *text, size_t len)
{
	const char *path = unpin_settings()->summary;
	int fd;

	if (!strcmp(path, "-")) {
		unpin_write_stderr(text, len);
		return;
	}
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || unpin_write(fd, text, len) != (ssize_t)len)
		unpin_say("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void unpin_summary(void)
{
	const struct unpin_settings *settings = unpin_settings();
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (!settings->on_demand || !settings->summary)
		return;
	/* one that was cloned behind the library's back would count its parent's */
	if (getpid() != whose || (!total.number && whose != settings->main_pid))
		return;
	out = open_memstream(&text, &len);
	if (!out)
		return;
	put_all(out);
	if (!fclose(out))
		deliver(text, len);
	free(text);
}

__attribute__((constructor)) static void begin(void)
{
	whose = getpid();
	unpin_settings();
}

__attribute__((destructor)) static void end(void)
{
	unpin_summary();
}
