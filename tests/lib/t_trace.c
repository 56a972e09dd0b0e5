// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The tracepoints of mm_mirror, read back from tracefs as fields. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t.h"

#define TRACING	"/sys/kernel/tracing/"
#define EVENTS	TRACING "events/mm_mirror/enable"

static void put(const char *path, const char *text)
{
	t_check(t_write_file(path, text), "%s: %s", path, strerror(errno));
}

/* Opening it for that is what empties it. */
static void clear(void)
{
	int fd = open(TRACING "trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	t_check(fd >= 0, "no trace: %s", strerror(errno));
	close(fd);
}

/*
 * From now on, and nothing of before.
 *
 * Events are switched by patching the kernel's text, which an emulated CPU may not be
 * up to: one has died of a breakpoint in the scheduler that was no longer there. So
 * the scheduler's, by which the names of tasks are recorded, stay off, and ours stay
 * on until t_trace_end(), which is for when nobody uses the mirror.
 */
void t_trace_start(void)
{
	put(TRACING "options/record-cmd", "0\n");
	put(TRACING "tracing_on", "0\n");
	if (t_read_long(EVENTS) != 1)
		put(EVENTS, "1\n");
	clear();
	put(TRACING "tracing_on", "1\n");
}

void t_trace_stop(void)
{
	put(TRACING "tracing_on", "0\n");
}

void t_trace_end(void)
{
	put(EVENTS, "0\n");
}

/* "task-pid [cpu] flags time: name: key=value key=value". False for other lines. */
static bool parse(const char *line, struct t_event *e)
{
	const char *name = strstr(line, ": mm_mirror_");
	const char *text = name ? strstr(name + 2, ": ") : NULL;

	if (*line == '#' || !text)
		return false;
	snprintf(e->name, sizeof(e->name), "%.*s", (int)(text - name - 2), name + 2);
	snprintf(e->text, sizeof(e->text), " %s", text + 2);
	e->text[strcspn(e->text, "\n")] = '\0';
	return true;
}

/* All that was traced since t_trace_start(), in order of time. */
size_t t_trace_read(struct t_event *events, size_t max)
{
	FILE *file = fopen(TRACING "trace", "re");
	char line[1024];
	size_t n = 0;

	t_check(file, "no trace: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		t_check(n < max, "more than %zu events", max);
		n += parse(line, &events[n]);
	}
	fclose(file);
	return n;
}

static const char *value_of(const struct t_event *e, const char *key)
{
	char find[40];
	const char *at;

	snprintf(find, sizeof(find), " %s=", key);
	at = strstr(e->text, find);
	t_check(at, "%s has no %s:%s", e->name, key, e->text);
	return at + strlen(find);
}

s64 t_event_number(const struct t_event *e, const char *key)
{
	const char *value = value_of(e, key);
	char *end;
	s64 number = (s64)strtoull(value, &end, 0);

	t_check(end != value && (*end == ' ' || !*end), "%s: %s is no number:%s", e->name,
		key, e->text);
	return number;
}

bool t_event_is(const struct t_event *e, const char *key, const char *want)
{
	const char *value = value_of(e, key);
	size_t len = strlen(want);

	return !strncmp(value, want, len) && (value[len] == ' ' || !value[len]);
}

/* Do both say the same there? */
bool t_event_same(const struct t_event *a, const struct t_event *b, const char *key)
{
	const char *value = value_of(a, key);
	char text[64];

	snprintf(text, sizeof(text), "%.*s", (int)strcspn(value, " "), value);
	return t_event_is(b, key, text);
}
