// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints of include/trace/events/mm_mirror.h are made here, and what they
 * want to know is worked out, so that it costs nothing while they are off.
 */

#include <linux/ktime.h>
#include <linux/math64.h>

#include "internal.h"

static size_t ranges_bytes(const struct mm_mirror_range *ranges, unsigned int nr)
{
	size_t bytes = 0;

	while (nr--)
		bytes += ranges[nr].length;
	return bytes;
}

static size_t ranges_need(const struct mm_mirror_range *ranges, unsigned int nr)
{
	size_t need = 0;

	while (nr--)
		need += ranges[nr].need;
	return need;
}

static u64 us_since(u64 ns)
{
	return ns ? div_u64(ktime_get_ns() - ns, NSEC_PER_USEC) : 0;
}

#define CREATE_TRACE_POINTS
#include <trace/events/mm_mirror.h>
