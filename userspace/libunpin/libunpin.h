/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * libunpin.so, for LD_PRELOAD: on-demand registrations for programs that do not ask
 * for them, and what Debian 12's libibverbs lacks for on-demand memory on rxe. What
 * the files of it know of each other.
 */
#ifndef LIBUNPIN_H
#define LIBUNPIN_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <sys/types.h>

#define UNPIN_EXPORT	__attribute__((visibility("default")))

/* What becomes of a registration. All but the first two are made as asked. */
enum unpin_outcome {
	UNPIN_ON_DEMAND,	/* made so here */
	UNPIN_OWN,		/* the program asks for it itself */
	UNPIN_NO_ODP,		/* the device has none */
	UNPIN_TRANSPORT,	/* or not for all operations */
	UNPIN_EXCLUDED,		/* by the user: the device */
	UNPIN_SMALL,		/* by the user: the size */
	UNPIN_MEMORY,		/* not there, or not with these rights */
	UNPIN_REFUSED,		/* the kernel would not, for an errno */
	UNPIN_FAILED,		/* as asked neither */
	UNPIN_OUTCOMES
};

/* settings.c */

#define UNPIN_RC	1U
#define UNPIN_UC	2U
#define UNPIN_UD	4U

/**
 * struct unpin_settings - the environment, which unpin(1) makes
 * @on_demand: registrations become on-demand; else nothing below matters
 * @prefetch: bring the memory in
 * @wait: and return when that is done
 * @verbose: say what is registered as asked, and why
 * @min_size: smaller ones stay as asked
 * @transports: UNPIN_RC...: of those the program may use any
 * @exclude: patterns of devices, with commas between them; or NULL
 * @summary: a file, "-" for standard error, or NULL for none
 * @main_pid: the process that always has a summary
 */
struct unpin_settings {
	bool on_demand;
	bool prefetch;
	bool wait;
	bool verbose;
	size_t min_size;
	unsigned int transports;
	const char *exclude;
	const char *summary;
	pid_t main_pid;
};

const struct unpin_settings *unpin_settings(void);
bool unpin_excludes(const char *device);

/* next.c */
void *unpin_next(const char *symbol, const char *version);
bool unpin_same_object(const void *a, const void *b);
bool unpin_is_rxe(const struct ibv_context *context);

/* advise.c */
void unpin_set_advise_mr(struct verbs_context *context, const void *libibverbs);

/* device.c */
enum unpin_outcome unpin_device_allows(struct ibv_context *context, unsigned int access);
void unpin_device_closes(const struct ibv_context *context);

/* memory.c */
bool unpin_memory_allows(const void *addr, size_t length, unsigned int access);

/* say.c */
void unpin_remember_stderr(void);
ssize_t unpin_write(int fd, const char *text, size_t len);
void unpin_write_stderr(const char *text, size_t len);
void unpin_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* count.c */
const char *unpin_outcome_text(enum unpin_outcome outcome);
void unpin_count(enum unpin_outcome outcome, size_t bytes, int err);
void unpin_count_unprefetched(size_t bytes);
void unpin_count_afresh(void);
void unpin_summary(void);

#endif
