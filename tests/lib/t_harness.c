// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * TAP for a table of cases. Each case runs in a child with a deadline: a case
 * that crashes or hangs fails alone, and what it registered is torn down by the
 * kernel, which is itself something worth running often. The parent never
 * opens a device, so a case may fork before it does.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define DEATH_MS	20000
#define EXIT_SKIP	77

struct t_opts t_opts = { .dev = "rxe0", .gid = 1, .seconds = 45 };

static int skip_pipe[2] = { -1, -1 };

static void emit(const char *prefix, const char *fmt, va_list ap)
{
	char line[512];
	int n;

	n = snprintf(line, sizeof(line), "%s", prefix);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDOUT_FILENO, line, n) != n)
		_exit(1);
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit("", fmt, ap);
	va_end(ap);
}

void t_diag(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit("# ", fmt, ap);
	va_end(ap);
}

void t_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit("# cannot go on: ", fmt, ap);
	va_end(ap);
	_exit(1);
}

void t_check_failed(const char *file, int line, const char *expr)
{
	const char *base = strrchr(file, '/');

	t_diag("%s:%d: %s", base ? base + 1 : file, line, expr);
	_exit(1);
}

void t_skip(const char *fmt, ...)
{
	char reason[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(reason))
		n = sizeof(reason) - 1;
	if (write(skip_pipe[1], reason, n) != n)
		_exit(1);
	_exit(EXIT_SKIP);
}

static void run_child(const struct t_case *c)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(skip_pipe[0]);
	c->run(c->arg);
	_exit(0);
}

static bool report(const struct t_case *c, int status)
{
	char reason[256];
	ssize_t n;

	if (WIFSIGNALED(status))
		t_diag("died of signal %d", WTERMSIG(status));
	if (!WIFEXITED(status)) {
		say("not ok - %s", c->name);
		return false;
	}
	if (WEXITSTATUS(status) == EXIT_SKIP) {
		n = read(skip_pipe[0], reason, sizeof(reason) - 1);
		reason[n > 0 ? n : 0] = '\0';
		say("ok - %s # SKIP %s", c->name, reason);
		return true;
	}
	say("%sok - %s", WEXITSTATUS(status) ? "not " : "", c->name);
	return !WEXITSTATUS(status);
}

static bool run_case(const struct t_case *c)
{
	unsigned int ms = 1000 * t_opts.seconds;
	bool passed = false;
	int status;
	pid_t pid;

	if (pipe(skip_pipe))
		t_die("pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		t_die("fork: %s", strerror(errno));
	if (!pid)
		run_child(c);
	close(skip_pipe[1]);
	if (t_wait_exit(pid, ms, &status)) {
		passed = report(c, status);
	} else {
		t_diag("still running after %llu s, killed",
		       (unsigned long long)t_patience(ms) / 1000);
		kill(pid, SIGKILL);
		if (!t_wait_exit(pid, DEATH_MS, &status))
			t_diag("does not die of SIGKILL either");
		say("not ok - %s", c->name);
	}
	close(skip_pipe[0]);
	t_delays_clear();
	return passed;
}

static void usage(const char *name)
{
	fprintf(stderr,
		"usage: %s --mr odp|implicit|switched|pinned|- [--dev NAME] [--gid INDEX] [--only TEXT] [--count]\n",
		name);
	exit(2);
}

static unsigned int parse_mode(const char *text)
{
	if (!strcmp(text, "odp"))
		return T_ODP;
	if (!strcmp(text, "implicit"))
		return T_IMPLICIT;
	if (!strcmp(text, "switched"))
		return T_SWITCHED;
	if (!strcmp(text, "pinned"))
		return T_PINNED;
	return strcmp(text, "-") ? 0 : T_DMA;
}

static bool parse_flag(const char *flag, const char *value)
{
	if (!strcmp(flag, "--mr")) {
		t_opts.mode = parse_mode(value);
		t_opts.odp = t_opts.mode & (T_ODP | T_IMPLICIT);
		return t_opts.mode;
	}
	if (!strcmp(flag, "--dev"))
		t_opts.dev = value;
	else if (!strcmp(flag, "--gid"))
		t_opts.gid = atoi(value);
	else if (!strcmp(flag, "--only"))
		t_opts.only = value;
	else
		return false;
	return true;
}

static void parse_options(int argc, char **argv)
{
	bool have_mr = false;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--count")) {
			t_opts.count_only = true;
			continue;
		}
		if (i + 1 >= argc || !parse_flag(argv[i], argv[i + 1]))
			usage(argv[0]);
		have_mr |= !strcmp(argv[i], "--mr");
		i++;
	}
	if (!have_mr)
		usage(argv[0]);
}

static bool wanted(const struct t_case *c)
{
	if (t_opts.only && !strstr(c->name, t_opts.only))
		return false;
	if (t_opts.mode == T_SWITCHED && (c->modes & T_BOTH) == T_BOTH)
		return true;
	return c->modes & t_opts.mode;
}

/* Once here instead of in every case: looking for devices loads all providers. */
static void load_providers(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (list)
		ibv_free_device_list(list);
}

int t_main(int argc, char **argv, const struct t_case *cases, size_t n)
{
	size_t i, planned = 0;
	bool passed = true;

	parse_options(argc, argv);
	for (i = 0; i < n; i++)
		planned += wanted(&cases[i]);
	if (t_opts.count_only) {
		say("%zu", planned);
		return 0;
	}
	say("1..%zu", planned);
	if (t_opts.mode != T_DMA)
		load_providers();
	t_switch_begin();
	for (i = 0; i < n; i++) {
		if (wanted(&cases[i]))
			passed &= run_case(&cases[i]);
	}
	passed &= t_switch_end();
	return passed ? 0 : 1;
}
