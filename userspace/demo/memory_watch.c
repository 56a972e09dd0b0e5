// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Usage: memory_watch SECONDS PID...
 *
 * Watches processes until all have ended, and prints what each had at most of
 * memory pinned (VmPin) and locked (VmLck), in kB, in one line: "PIN LCK" for
 * each in turn. Whoever is still there after SECONDS is killed, and the exit
 * status is 1.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "t.h"

#define MAX_WATCHED	8
#define STEP_MS		30

struct watched {
	pid_t pid;
	long pin_kb;
	long lock_kb;
};

static long max(long a, long b)
{
	return a > b ? a : b;
}

/* A process that has ended has no such lines any more, reaped or not. */
static bool look(struct watched *w)
{
	char path[64], line[256];
	bool alive = false;
	long kb;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)w->pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmLck: %ld", &kb) == 1) {
			w->lock_kb = max(w->lock_kb, kb);
		} else if (sscanf(line, "VmPin: %ld", &kb) == 1) {
			w->pin_kb = max(w->pin_kb, kb);
			alive = true;
			break;
		}
	}
	fclose(f);
	return alive;
}

int main(int argc, char **argv)
{
	struct watched watched[MAX_WATCHED] = {};
	int i, alive, n = argc - 2;
	u64 end;

	if (n < 1 || n > MAX_WATCHED) {
		fprintf(stderr, "usage: memory_watch SECONDS PID...\n");
		return 2;
	}
	end = t_now_ms() + 1000UL * atoi(argv[1]);
	for (i = 0; i < n; i++)
		watched[i].pid = atoi(argv[i + 2]);
	do {
		for (i = alive = 0; i < n; i++)
			alive += look(&watched[i]);
		if (alive && t_now_ms() > end) {
			for (i = 0; i < n; i++)
				kill(watched[i].pid, SIGKILL);
			return 1;
		}
		t_sleep_ms(STEP_MS);
	} while (alive);
	for (i = 0; i < n; i++)
		printf("%ld %ld ", watched[i].pin_kb, watched[i].lock_kb);
	printf("\n");
	return 0;
}
