// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The engine of samples/mm_mirror: its module, its spaces, its copies. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "t.h"

#define DEVICE	"/dev/mirror_dma"

/* The module stays: the guest unloads it with the others (tests/guest/sequence). */
static void load_driver(void)
{
	char path[PATH_MAX];
	int err;

	t_module_path(path, sizeof(path), "samples/mirror_dma.ko");
	err = t_module_load(path);
	if (err && err != EEXIST)
		t_die("loading %s: %s", path, strerror(err));
}

/* A new engine. */
int t_dma_open(void)
{
	int dma = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (dma < 0 && errno == ENOENT) {
		load_driver();
		dma = open(DEVICE, O_RDWR | O_CLOEXEC);
	}
	if (dma < 0)
		t_die("%s: %s", DEVICE, strerror(errno));
	return dma;
}

/* 0 or an error. */
int t_dma_try_attach(int dma, u32 flags, u64 start, u64 last, u32 *space)
{
	struct mirror_dma_attach attach = { .flags = flags, .start = start, .last = last };

	if (ioctl(dma, MIRROR_DMA_ATTACH, &attach))
		return errno;
	*space = attach.space;
	return 0;
}

static u32 attach(int dma, u32 flags, u64 start, u64 last)
{
	u32 space = 0;
	int err = t_dma_try_attach(dma, flags, start, last, &space);

	if (err)
		t_die("attaching: %s", strerror(err));
	return space;
}

u32 t_dma_attach(int dma)
{
	return attach(dma, 0, 0, 0);
}

/* With a table for what lies in [p, p + len). */
u32 t_dma_attach_table(int dma, const void *p, size_t len)
{
	return attach(dma, MIRROR_DMA_TABLE, (uintptr_t)p, (uintptr_t)p + len - 1);
}

/* With a table for all addresses. */
u32 t_dma_attach_all(int dma)
{
	return attach(dma, MIRROR_DMA_TABLE, 0, ~0ULL);
}

void t_dma_detach(int dma, u32 space)
{
	if (ioctl(dma, MIRROR_DMA_DETACH, &space))
		t_die("detaching space %u: %s", space, strerror(errno));
}

/* 0 or an error. */
int t_dma_submit(int dma, const struct mirror_dma_copy *copy)
{
	return ioctl(dma, MIRROR_DMA_SUBMIT, copy) ? errno : 0;
}

/* Start a copy that is expected to be accepted. */
void t_dma_start(int dma, u64 cookie, struct t_place to, struct t_place from, size_t len)
{
	struct mirror_dma_copy copy = {
		.cookie = cookie, .length = len,
		.src = (uintptr_t)from.p, .src_space = from.space,
		.dst = (uintptr_t)to.p, .dst_space = to.space,
	};
	int err = t_dma_submit(dma, &copy);

	if (err)
		t_die("submitting a copy: %s", strerror(err));
}

/* The next that is done; false if there is none in so many ms. */
bool t_dma_read(int dma, int ms, struct mirror_dma_done *done)
{
	struct pollfd poll_dma = { .fd = dma, .events = POLLIN };
	ssize_t n;

	if (poll(&poll_dma, 1, ms ? (int)t_patience(ms) : 0) != 1)
		return false;
	n = read(dma, done, sizeof(*done));
	if (n != sizeof(*done))
		t_die("reading %s: %zd: %s", DEVICE, n, strerror(errno));
	return true;
}

/*
 * One copy, from start to end, on an engine that has no other: its status, and how
 * many bytes it wrote, where @bytes is not NULL.
 */
int t_dma_do(int dma, const struct mirror_dma_copy *copy, u64 *bytes)
{
	struct mirror_dma_done done;
	int err = t_dma_submit(dma, copy);

	if (err)
		t_die("submitting a copy: %s", strerror(err));
	if (!t_dma_read(dma, T_WAIT_MS, &done))
		t_die("a copy of %llu bytes does not end", (unsigned long long)copy->length);
	if (done.cookie != copy->cookie)
		t_die("copy %llx ended, not %llx", (unsigned long long)done.cookie,
		      (unsigned long long)copy->cookie);
	if (!done.status && done.bytes != copy->length)
		t_die("a copy of %llu bytes wrote %llu", (unsigned long long)copy->length,
		      (unsigned long long)done.bytes);
	if (bytes)
		*bytes = done.bytes;
	return done.status;
}

int t_dma_copy(int dma, struct t_place to, struct t_place from, size_t len)
{
	static u64 cookie = 0xc0000000;
	struct mirror_dma_copy copy = {
		.cookie = cookie++, .length = len,
		.src = (uintptr_t)from.p, .src_space = from.space,
		.dst = (uintptr_t)to.p, .dst_space = to.space,
	};

	return t_dma_do(dma, &copy, NULL);
}

void t_dma_counts(int dma, u32 space, struct mirror_dma_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	counts->space = space;
	if (ioctl(dma, MIRROR_DMA_COUNTS, counts))
		t_die("counts of space %u: %s", space, strerror(errno));
}

/* Calls of invalidate, for whatever event. */
u64 t_dma_invalidates(const struct mirror_dma_counts *counts)
{
	u64 sum = 0;
	int i;

	for (i = 0; i < MIRROR_DMA_EVENTS; i++)
		sum += counts->invalidate[i];
	return sum;
}

void t_dma_calls(int dma, u32 space, struct mirror_dma_calls *calls)
{
	memset(calls, 0, sizeof(*calls));
	calls->space = space;
	if (ioctl(dma, MIRROR_DMA_CALLS, calls))
		t_die("calls of space %u: %s", space, strerror(errno));
}

void t_dma_set(int dma, u32 space, u32 what, u64 value)
{
	struct mirror_dma_set set = { .space = space, .what = what, .value = value };

	if (ioctl(dma, MIRROR_DMA_SET, &set))
		t_die("setting %u of space %u: %s", what, space, strerror(errno));
}
