// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The device's counters, and --mr switched: registrations that do not ask to be
 * on-demand, and are, because the switch of the module says so. The device counts
 * them, so that no program passes in that mode with pinned regions.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "t.h"

#define SWITCH		"/sys/module/rdma_rxe/parameters/on_demand_mr"
#define DEVICE_SWITCH	"/sys/class/infiniband/%s/on_demand_mr"
#define HW_COUNTERS	"/sys/class/infiniband/%s/ports/1/hw_counters/%s"

static const char * const fallbacks[] = {
	"mr_pinned_rights", "mr_pinned_range", "mr_pinned_memory", "mr_pinned_handler",
};

static long on_demand, pinned;

long t_device_count(const char *name)
{
	char path[128];
	long value;

	snprintf(path, sizeof(path), HW_COUNTERS, t_opts.dev, name);
	/* the kernel shows the same for so long */
	t_sleep_ms(30);
	value = t_read_long(path);
	t_check(value >= 0, "the device has no %s", name);
	return value;
}

bool t_switch_set(const char *policy)
{
	return t_write_file(SWITCH, policy);
}

static long all_fallbacks(void)
{
	long sum = 0;
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(fallbacks); i++)
		sum += t_device_count(fallbacks[i]);
	return sum;
}

/* As a kernel without them is; a program before this one may have been killed. */
static bool switches_off(void)
{
	char path[128];

	snprintf(path, sizeof(path), DEVICE_SWITCH, t_opts.dev);
	return t_switch_set("asked") && t_write_file(path, "default");
}

void t_switch_begin(void)
{
	bool there = switches_off();

	if (t_opts.mode != T_SWITCHED)
		return;
	if (!there || !t_switch_set("always"))
		t_die("%s: %s", SWITCH, strerror(errno));
	on_demand = t_device_count("mr_on_demand");
	pinned = all_fallbacks();
}

/* False if a region was pinned. */
bool t_switch_end(void)
{
	if (t_opts.mode != T_SWITCHED)
		return true;
	switches_off();
	on_demand = t_device_count("mr_on_demand") - on_demand;
	pinned = all_fallbacks() - pinned;
	t_diag("%ld regions on demand, %ld pinned", on_demand, pinned);
	return on_demand > 0 && (t_opts.may_pin || !pinned);
}
