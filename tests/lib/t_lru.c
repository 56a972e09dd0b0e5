// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Making the kernel look who has used which page: a generation of the LRU ages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "t.h"

#define LRU_GEN	"/sys/kernel/debug/lru_gen"

/* The youngest generation of node 0 of the root memory control group. */
static unsigned long youngest_generation(void)
{
	static char text[1 << 16];
	char *line, *end;
	unsigned long seq = 0;

	t_check(t_read_file(LRU_GEN, text, sizeof(text)), "no lru_gen in debugfs");
	line = strstr(text, " /\n");
	line = line ? strstr(line, "node     0\n") : NULL;
	t_check(line, "lru_gen has no root");
	for (line = strchr(line, '\n'); line; line = strchr(line + 1, '\n')) {
		unsigned long value = strtoul(line + 1, &end, 10);

		if (end == line + 1)
			break;
		seq = value;
	}
	return seq;
}

/* Asks for each page of node 0 whether it is young, and clears that. */
void t_lru_age(void)
{
	char command[64];

	snprintf(command, sizeof(command), "+ 1 0 %lu 1 1\n", youngest_generation());
	t_write_file(LRU_GEN, command);
}
