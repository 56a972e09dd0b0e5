// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* unpin COMMAND: finds the command. See unpin(1). */
#include <stdio.h>
#include <string.h>

#include "unpin.h"

static const struct command * const commands[] = {
	&command_doctor,
	&command_run,
};

#define COMMANDS	(sizeof(commands) / sizeof(commands[0]))

static int help(void)
{
	size_t i;

	puts("Usage: unpin COMMAND [ARGUMENT]...\n"
	     "RDMA on memory that is not pinned.\n\n"
	     "Commands:");
	for (i = 0; i < COMMANDS; i++)
		printf("  %-10s%s\n", commands[i]->name, commands[i]->brief);
	puts("\n'unpin COMMAND --help' tells more of one; 'man unpin' tells all.");
	return 0;
}

static const struct command *find(const char *name)
{
	size_t i;

	for (i = 0; i < COMMANDS; i++) {
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	const struct command *command;

	if (!name) {
		error("no command; 'unpin --help' lists them");
		return EXIT_UNPIN;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		return help();
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		puts("unpin " UNPIN_VERSION);
		return 0;
	}
	command = find(name);
	if (!command) {
		error("no command '%s'; 'unpin --help' lists them", name);
		return EXIT_UNPIN;
	}
	return command->main(argc - 1, argv + 1);
}
