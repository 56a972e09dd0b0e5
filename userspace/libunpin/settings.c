// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What the user wants, from the environment. It is read once, before the program can
 * change it, or a constructor that comes before ours registers something.
 */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libunpin.h"

static struct unpin_settings settings;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *text_of(const char *name)
{
	const char *value = secure_getenv(name);

	return value && *value ? strdup(value) : NULL;
}

static unsigned int transports_of(const char *list)
{
	unsigned int transports = 0;

	if (!list)
		return UNPIN_RC;
	if (strstr(list, "rc"))
		transports |= UNPIN_RC;
	if (strstr(list, "uc"))
		transports |= UNPIN_UC;
	if (strstr(list, "ud"))
		transports |= UNPIN_UD;
	return transports;
}

static void read_all(void)
{
	const char *prefetch = text_of("UNPIN_PREFETCH");
	const char *size = text_of("UNPIN_MIN_SIZE");
	const char *pid = text_of("UNPIN_PID");

	settings.on_demand = text_of("UNPIN_ON_DEMAND");
	settings.prefetch = prefetch;
	settings.wait = prefetch && !strcmp(prefetch, "wait");
	settings.verbose = text_of("UNPIN_VERBOSE");
	settings.min_size = size ? strtoull(size, NULL, 0) : 0;
	settings.transports = transports_of(text_of("UNPIN_TRANSPORT"));
	settings.exclude = text_of("UNPIN_EXCLUDE");
	settings.summary = text_of("UNPIN_SUMMARY");
	settings.main_pid = pid ? atoi(pid) : 0;
	unpin_remember_stderr();
}

const struct unpin_settings *unpin_settings(void)
{
	pthread_once(&once, read_all);
	return &settings;
}

bool unpin_excludes(const char *device)
{
	char *list, *rest, *pattern;
	bool found = false;

	if (!settings.exclude)
		return false;
	list = strdup(settings.exclude);
	rest = list;
	while (!found && (pattern = strsep(&rest, ",")))
		found = !fnmatch(pattern, device, 0);
	free(list);
	return found;
}
