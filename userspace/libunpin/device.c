// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a device can do on demand, asked once for each context. A region does not know
 * which queue pairs will use it: the device must be able to do on demand whatever the
 * program's transports can do with it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libunpin.h"

#define UD_OPS	(IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_SRQ_RECV)
#define UC_OPS	(UD_OPS | IBV_ODP_SUPPORT_WRITE)
#define RC_OPS	(UC_OPS | IBV_ODP_SUPPORT_READ)

/*
 * @name: of the device. A context can be closed unseen (by a function that dlsym() has
 * found), and another one be at the same address.
 */
struct device {
	struct device *next;
	const struct ibv_context *context;
	char name[IBV_SYSFS_NAME_MAX];
	enum unpin_outcome verdict;
	bool atomics;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct device *devices;

/* fork() must not leave a child with a lock that a thread has which it has not. */
static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
	pthread_mutex_unlock(&lock);
	unpin_count_afresh();
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

/* As ibv_query_device_ex(), which would want libibverbs' own query for old providers. */
static bool query(struct ibv_context *context, struct ibv_device_attr_ex *attr)
{
	struct verbs_context *verbs = verbs_get_ctx_op(context, query_device_ex);

	return verbs && !verbs->query_device_ex(context, NULL, attr, sizeof(*attr)) &&
	       attr->odp_caps.general_caps & IBV_ODP_SUPPORT;
}

static bool can(unsigned int caps, unsigned int ops, unsigned int transport)
{
	return !(unpin_settings()->transports & transport) || (caps & ops) == ops;
}

static void look(struct device *device, struct ibv_context *context)
{
	struct ibv_device_attr_ex attr = { 0 };
	unsigned int rc, uc, ud;

	if (unpin_excludes(context->device->name)) {
		device->verdict = UNPIN_EXCLUDED;
		return;
	}
	if (!query(context, &attr)) {
		device->verdict = UNPIN_NO_ODP;
		return;
	}
	rc = attr.odp_caps.per_transport_caps.rc_odp_caps;
	uc = attr.odp_caps.per_transport_caps.uc_odp_caps;
	ud = attr.odp_caps.per_transport_caps.ud_odp_caps;
	device->atomics = can(rc, IBV_ODP_SUPPORT_ATOMIC, UNPIN_RC);
	device->verdict = can(rc, RC_OPS, UNPIN_RC) && can(uc, UC_OPS, UNPIN_UC) &&
		can(ud, UD_OPS, UNPIN_UD) ? UNPIN_ON_DEMAND : UNPIN_TRANSPORT;
}

/*
 * Without the lock: an allocator may register memory, and come here for that. That two
 * threads ask at the same time does no harm.
 */
static struct device *ask(struct ibv_context *context)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->context = context;
	memcpy(device->name, context->device->name, sizeof(device->name));
	look(device, context);
	return device;
}

static struct device **find(const struct ibv_context *context)
{
	struct device **at;

	for (at = &devices; *at; at = &(*at)->next) {
		if ((*at)->context == context && !strcmp((*at)->name, context->device->name))
			break;
	}
	return at;
}

static void add(struct device *device)
{
	const struct ibv_context *context = device->context;
	enum unpin_outcome verdict = device->verdict;
	struct device **at, *there;

	pthread_mutex_lock(&lock);
	at = find(context);
	there = *at;
	if (!there)
		*at = device;
	pthread_mutex_unlock(&lock);
	if (there)
		free(device);
	else if (verdict != UNPIN_ON_DEMAND && unpin_settings()->verbose)
		unpin_say("%s: %s: its memory is registered as the program asks",
			  context->device->name, unpin_outcome_text(verdict));
}

static enum unpin_outcome verdict_of(const struct device *device, unsigned int access)
{
	if (device->verdict == UNPIN_ON_DEMAND && access & IBV_ACCESS_REMOTE_ATOMIC &&
	    !device->atomics)
		return UNPIN_TRANSPORT;
	return device->verdict;
}

/* May a region with these rights be on demand? UNPIN_ON_DEMAND, or why not. */
enum unpin_outcome unpin_device_allows(struct ibv_context *context, unsigned int access)
{
	enum unpin_outcome verdict = UNPIN_OUTCOMES;
	struct device *device;

	pthread_mutex_lock(&lock);
	device = *find(context);
	if (device)
		verdict = verdict_of(device, access);
	pthread_mutex_unlock(&lock);
	if (verdict != UNPIN_OUTCOMES)
		return verdict;

	device = ask(context);
	if (!device)
		return UNPIN_NO_ODP;
	verdict = verdict_of(device, access);
	add(device);
	return verdict;
}

/* Before it does: another may get the same address. */
void unpin_device_closes(const struct ibv_context *context)
{
	struct device **at, *device;

	pthread_mutex_lock(&lock);
	at = find(context);
	device = *at;
	if (device)
		*at = device->next;
	pthread_mutex_unlock(&lock);
	free(device);
}
