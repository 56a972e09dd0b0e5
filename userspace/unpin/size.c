// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Sizes as people write them. */
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "unpin.h"

/* A number of bytes, or of KiB, MiB, GiB, TiB with K, M, G, T behind it. */
size_t parse_size(const char *text)
{
	static const char units[] = "KMGT";
	unsigned long long value;
	const char *unit;
	int shift = 0;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || errno)
		die("'%s' is not a size", text);
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		shift = 10 * (unit - units + 1);
		end++;
	}
	if (*end || value > SIZE_MAX >> shift)
		die("'%s' is not a size", text);
	return value << shift;
}
