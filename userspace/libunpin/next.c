// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Which shared object something is from: the function that ours stands before, and
 * whose functions a context has.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libunpin.h"

#define LIBIBVERBS	"libibverbs.so.1"
#define RXE_PROVIDER	"librxe"

/*
 * The function of that name that comes after ours. Where libibverbs itself came by
 * dlopen(), as with Python, it is not among the objects that follow.
 */
void *unpin_next(const char *symbol, const char *version)
{
	void *next = dlvsym(RTLD_NEXT, symbol, version);
	void *lib;

	if (next)
		return next;
	lib = dlopen(LIBIBVERBS, RTLD_LAZY | RTLD_NOLOAD);
	if (lib) {
		next = dlvsym(lib, symbol, version);
		dlclose(lib);
	}
	if (!next) {
		fprintf(stderr, "libunpin: no %s@%s in %s\n", symbol, version, LIBIBVERBS);
		abort();
	}
	return next;
}

bool unpin_same_object(const void *a, const void *b)
{
	Dl_info of_a, of_b;

	return dladdr(a, &of_a) && dladdr(b, &of_b) && of_a.dli_fbase == of_b.dli_fbase;
}

/* The driver's number is libibverbs' own secret; its provider's name is not. */
bool unpin_is_rxe(const struct ibv_context *context)
{
	const char *name;
	Dl_info info;

	if (!dladdr((const void *)context->ops.poll_cq, &info) || !info.dli_fname)
		return false;
	name = strrchr(info.dli_fname, '/');
	name = name ? name + 1 : info.dli_fname;
	return !strncmp(name, RXE_PROVIDER, strlen(RXE_PROVIDER));
}
