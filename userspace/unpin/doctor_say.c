// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The lines of unpin doctor: a mark, what it is about, the finding; and what to do. */
#include <stdarg.h>
#include <stdio.h>

#include "doctor.h"

static unsigned int missing_count;

static void finding(const char *mark, const char *what, const char *fmt, va_list ap)
{
	printf("%-9s%s: ", mark, what);
	vprintf(fmt, ap);
	putchar('\n');
}

void doctor_ok(const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	finding("ok", what, fmt, ap);
	va_end(ap);
}

/* Worth to know; it works all the same. */
void doctor_note(const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	finding("note", what, fmt, ap);
	va_end(ap);
}

/* It does not work without this. */
void doctor_missing(const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	finding("missing", what, fmt, ap);
	va_end(ap);
	missing_count++;
}

/* Missing, unless there is another way, to which it does not matter. */
void doctor_lacks(bool matters, const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	finding(matters ? "missing" : "note", what, fmt, ap);
	va_end(ap);
	missing_count += matters;
}

/* A line for the shell, of which there may be several after a finding. */
void doctor_remedy(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("%-9sremedy: ", "");
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
}

/* Where it was seen, and what it was. */
void doctor_detail(const struct doctor *d, const char *fmt, ...)
{
	va_list ap;

	if (!d->verbose)
		return;
	va_start(ap, fmt);
	printf("%-9s", "");
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
}

unsigned int doctor_missing_count(void)
{
	return missing_count;
}
