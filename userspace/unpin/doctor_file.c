// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the kernel says in files, of which any may be missing or forbidden. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

/* The first line of a file, without its end. False, and empty, if there is none. */
bool doctor_read(char *text, size_t len, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;

	*text = '\0';
	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(text, len, f))
		*text = '\0';
	fclose(f);
	text[strcspn(text, "\n")] = '\0';
	return *text;
}

bool doctor_exists(const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	return !access(path, F_OK);
}

/* The first line that has @text in it. */
bool doctor_has_line(const char *path, const char *text, char *line, size_t len)
{
	FILE *f = fopen(path, "re");
	bool found = false;

	while (f && !found && fgets(line, len, f))
		found = strstr(line, text);
	if (f)
		fclose(f);
	if (found)
		line[strcspn(line, "\n")] = '\0';
	return found;
}

/* The number after @name in a file of lines with a name each; -1 if there is none. */
long doctor_value(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	char line[256], word[64];
	long value = -1, n;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", word, &n) == 2 && !strcmp(word, name))
			value = n;
	}
	if (f)
		fclose(f);
	return value;
}
