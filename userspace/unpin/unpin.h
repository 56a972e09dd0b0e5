/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The tool unpin: a command is a file that has a struct command. */
#ifndef UNPIN_H
#define UNPIN_H

#include <stddef.h>

#define UNPIN_VERSION	"0.1"

/* unpin itself has failed, as in env(1) and timeout(1). */
#define EXIT_UNPIN	125
#define EXIT_CANNOT_RUN	126
#define EXIT_NOT_FOUND	127

/**
 * struct command - what "unpin NAME" does
 * @name: NAME
 * @brief: a line for the list
 * @main: argv[0] is NAME; returns the exit status
 */
struct command {
	const char *name;
	const char *brief;
	int (*main)(int argc, char **argv);
};

extern const struct command command_doctor;
extern const struct command command_run;

/* message.c */
void error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* library.c */
const char *own_directory(void);
void find_library(const char *name, char *path, size_t len);

/* size.c */
size_t parse_size(const char *text);

#endif
