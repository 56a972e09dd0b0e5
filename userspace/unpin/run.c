// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * unpin run: starts a program under libunpin.so. The options become environment, which
 * the library reads, and the children of the program inherit.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unpin.h"

static const struct option options[] = {
	{ "dlsym",	no_argument,		NULL, 'd' },
	{ "exclude",	required_argument,	NULL, 'x' },
	{ "min-size",	required_argument,	NULL, 'm' },
	{ "prefetch",	optional_argument,	NULL, 'p' },
	{ "summary",	optional_argument,	NULL, 's' },
	{ "transport",	required_argument,	NULL, 't' },
	{ "verbose",	no_argument,		NULL, 'v' },
	{ "help",	no_argument,		NULL, 'h' },
	{ 0 }
};

static void help(void)
{
	puts("Usage: unpin run [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
	     "Run PROGRAM so that the memory that it registers for RDMA is not pinned.\n\n"
	     "  -m, --min-size=SIZE     leave regions below SIZE as they are; K, M, G, T\n"
	     "                          behind a number are powers of 1024\n"
	     "  -x, --exclude=DEVICE    leave this device as it is; a pattern, or several\n"
	     "                          with commas between; may be repeated\n"
	     "  -t, --transport=LIST    of rc, uc and ud, what the program uses: a device\n"
	     "                          that cannot do all of these is left as it is (rc)\n"
	     "  -p, --prefetch[=wait]   bring memory in when it is registered, and wait\n"
	     "                          until it is there\n"
	     "  -s, --summary[=FILE]    say at exit what became of the registrations, on\n"
	     "                          standard error or in FILE\n"
	     "  -d, --dlsym             for programs that look verbs up by dlsym()\n"
	     "  -v, --verbose           say what is not on demand, and why\n"
	     "  -h, --help              this\n\n"
	     "A device without on-demand paging, and memory that cannot be on demand, is\n"
	     "registered as the program asks. Exit status: PROGRAM's; 125 if unpin fails,\n"
	     "126 if PROGRAM cannot be run, 127 if it is not found.");
	exit(0);
}

static void set(const char *name, const char *value)
{
	if (setenv(name, value, 1))
		die("environment: %s", strerror(errno));
}

/*
 * What a surrounding "unpin run" has set is not ours. What it has preloaded stays, an
 * auditor too.
 */
static void forget_settings(void)
{
	static const char * const names[] = {
		"UNPIN_ON_DEMAND", "UNPIN_EXCLUDE", "UNPIN_MIN_SIZE", "UNPIN_PID",
		"UNPIN_PREFETCH", "UNPIN_SUMMARY", "UNPIN_TRANSPORT", "UNPIN_VERBOSE",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

/* Put @item before what is in the list @name, unless it is the first there. */
static void prepend(const char *name, const char *item, const char *separator)
{
	const char *old = getenv(name);
	size_t len = strlen(item);
	char *list;

	if (old && !strncmp(old, item, len) && (!old[len] || old[len] == *separator))
		return;
	if (asprintf(&list, "%s%s%s", item, old && *old ? separator : "",
		     old ? old : "") < 0)
		die("environment: %s", strerror(errno));
	set(name, list);
	free(list);
}

static void preload(const char *variable, const char *library)
{
	char path[PATH_MAX];

	find_library(library, path, sizeof(path));
	prepend(variable, path, ":");
}

static void set_min_size(const char *text)
{
	char bytes[32];

	snprintf(bytes, sizeof(bytes), "%zu", parse_size(text));
	set("UNPIN_MIN_SIZE", bytes);
}

static void set_transport(const char *list)
{
	char *copy = strdup(list), *rest = copy, *word;

	while ((word = strsep(&rest, ","))) {
		if (strcmp(word, "rc") && strcmp(word, "uc") && strcmp(word, "ud"))
			die("'%s' is not one of rc, uc, ud", word);
	}
	free(copy);
	set("UNPIN_TRANSPORT", list);
}

static void set_prefetch(const char *how)
{
	if (how && strcmp(how, "wait"))
		die("--prefetch is by itself, or '--prefetch=wait'; not '%s'", how);
	set("UNPIN_PREFETCH", how ? how : "1");
}

/*
 * The program may be elsewhere when it ends. No links are followed here: /dev/stderr is
 * another file in each process, and may be one without a path.
 */
static void set_summary(const char *file)
{
	char cwd[PATH_MAX], *path;
	int fd;

	if (!file) {
		set("UNPIN_SUMMARY", "-");
		return;
	}
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || !getcwd(cwd, sizeof(cwd)))
		die("%s: %s", file, strerror(errno));
	close(fd);
	if (asprintf(&path, "%s%s%s", *file == '/' ? "" : cwd, *file == '/' ? "" : "/",
		     file) < 0)
		die("environment: %s", strerror(errno));
	set("UNPIN_SUMMARY", path);
	free(path);
}

static void apply(int option)
{
	switch (option) {
	case 'd':
		preload("LD_AUDIT", "libunpin-audit.so");
		break;
	case 'm':
		set_min_size(optarg);
		break;
	case 'p':
		set_prefetch(optarg);
		break;
	case 's':
		set_summary(optarg);
		break;
	case 't':
		set_transport(optarg);
		break;
	case 'v':
		set("UNPIN_VERBOSE", "1");
		break;
	case 'x':
		prepend("UNPIN_EXCLUDE", optarg, ",");
		break;
	case 'h':
		help();
		break;
	default:
		error("'unpin run --help' tells what there is");
		exit(EXIT_UNPIN);
	}
}

static int run(int argc, char **argv)
{
	char pid[16];
	int option, err;

	forget_settings();
	/* with the program's name in getopt's own messages */
	argv[0] = program_invocation_short_name;
	while ((option = getopt_long(argc, argv, "+dm:p::s::t:vx:h", options, NULL)) != -1)
		apply(option);
	if (optind == argc)
		die("no program to run; see 'unpin run --help'");

	snprintf(pid, sizeof(pid), "%d", getpid());
	set("UNPIN_PID", pid);
	set("UNPIN_ON_DEMAND", "1");
	preload("LD_PRELOAD", "libunpin.so");
	execvp(argv[optind], argv + optind);
	err = errno;
	error("%s: %s", argv[optind], strerror(err));
	return err == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

const struct command command_run = {
	.name = "run",
	.brief = "run a program on memory that is not pinned",
	.main = run,
};
