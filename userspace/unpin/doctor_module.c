// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The modules: which rdma_rxe is loaded, the kernel's own or ours, which has a parameter
 * that the other has not; and if ours is not, where it is, and how to load it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "doctor.h"
#include "unpin.h"

/* Modules that were built and not installed. */
struct built {
	char core[PATH_MAX + 32];
	char rxe[PATH_MAX + 32];
};

static bool is_built(struct built *built, const char *release, const char *variant)
{
	const char *dir = own_directory();
	char path[PATH_MAX], where[PATH_MAX];

	if (!dir || snprintf(path, sizeof(path), "%s/../%s/%s", dir, release, variant) >=
	    (int)sizeof(path))
		return false;
	if (!realpath(path, where))
		return false;
	snprintf(built->core, sizeof(built->core), "%s/mm/mm_mirror.ko", where);
	snprintf(built->rxe, sizeof(built->rxe), "%s/rxe/rdma_rxe.ko", where);
	return doctor_exists("%s", built->core) && doctor_exists("%s", built->rxe);
}

/* Where "make modules" puts them, beside the tool. */
static bool find_built(struct built *built, const char *release)
{
	return is_built(built, release, "plain") || is_built(built, release, "debug");
}

/* What depmod knows: our rdma_rxe is the one that needs mm_mirror. */
static bool is_installed(const char *release)
{
	char path[PATH_MAX], line[4096];

	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", release);
	return doctor_has_line(path, "/rdma_rxe.ko", line, sizeof(line)) &&
	       strstr(line, "/mm_mirror.ko");
}

/* As modinfo -F: in the module is a list of strings. */
static void field_of(const char *path, const char *field, char *value, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *text, *at;
	struct stat st;
	char want[32];
	int n;

	*value = '\0';
	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		return;
	text = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (text == MAP_FAILED)
		return;
	n = snprintf(want, sizeof(want), "%c%s=", 0, field);
	at = memmem(text, st.st_size, want, n);
	if (at)
		snprintf(value, len, "%.*s", (int)(text + st.st_size - at - n), at + n);
	munmap((void *)text, st.st_size);
}

/* Those of the kernel that it wants, for modprobe. */
static void remedy_depends(const char *rxe)
{
	char depends[512], modules[1024] = "", *rest = depends, *name;

	field_of(rxe, "depends", depends, sizeof(depends));
	while ((name = strsep(&rest, ","))) {
		if (!*name || !strcmp(name, "mm_mirror"))
			continue;
		strcat(modules, " ");
		strcat(modules, name);
	}
	doctor_remedy("modprobe -a ib_uverbs%s", modules);
}

static void remedy_load(const char *release)
{
	struct built built;

	if (is_installed(release)) {
		doctor_remedy("modprobe rdma_rxe");
	} else if (find_built(&built, release)) {
		remedy_depends(built.rxe);
		if (!doctor_exists("/sys/module/mm_mirror"))
			doctor_remedy("insmod '%s'", built.core);
		doctor_remedy("insmod '%s'", built.rxe);
	} else {
		doctor_remedy("make KVER=\"$(uname -r)\" modules   # in unpin's source");
	}
}

/* The devices go with the driver. */
static void remedy_links(const struct doctor *d)
{
	unsigned int i;

	for (i = 0; i < d->count; i++) {
		if (doctor_exists("/sys/class/infiniband/%s/parent", d->devices[i].name))
			doctor_remedy("rdma link add %s type rxe netdev %s",
				      d->devices[i].name, d->devices[i].netdev);
	}
}

static void say_loaded(const struct doctor *d)
{
	char text[64];

	doctor_ok("module", "rdma_rxe is unpin's");
	if (doctor_read(text, sizeof(text), "/sys/module/rdma_rxe/taint"))
		doctor_detail(d, "its taint is %s: O is for out of tree, E for not signed", text);
	if (doctor_read(text, sizeof(text), "/sys/module/rdma_rxe/srcversion"))
		doctor_detail(d, "its srcversion is %s", text);
	if (!doctor_read(text, sizeof(text), "/sys/module/rdma_rxe/parameters/on_demand_mr"))
		return;
	if (!strcmp(text, "always"))
		doctor_ok("module", "all programs get memory on demand, whether they ask or not");
	else
		doctor_ok("module", "programs that ask for it get memory on demand");
	doctor_detail(d, "the switch, /sys/module/rdma_rxe/parameters/on_demand_mr, is at '%s'",
		      text);
}

void doctor_module(const struct doctor *d)
{
	struct utsname u;

	uname(&u);
	if (d->ours) {
		say_loaded(d);
	} else if (doctor_exists("/sys/module/rdma_rxe")) {
		doctor_lacks(!d->odp, "module",
			     "rdma_rxe is the kernel's own, which has no on-demand paging");
		doctor_remedy("rmmod rdma_rxe");
		remedy_load(u.release);
		remedy_links(d);
	} else {
		doctor_lacks(!d->odp, "module", "rdma_rxe is not loaded");
		remedy_load(u.release);
	}
}
