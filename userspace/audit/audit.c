// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * libunpin-audit.so, for LD_AUDIT beside LD_PRELOAD=libunpin.so (rtld-audit(7)): a
 * program that looks for verbs in libibverbs by dlsym(), or binds to it before all
 * others (RTLD_DEEPBIND), passes a preloaded library by. It is given that library's
 * functions all the same.
 *
 * An auditor has a C library, and an errno, of its own: nothing is done here but to
 * choose an address. libunpin.so tells its own by looking its table up.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../libunpin/entries.h"

#define EXPORT	__attribute__((visibility("default")))

/* Objects of other namespaces have no cookie: their libibverbs is not ours. */
#define MAP(cookie)	((const struct link_map *)*(cookie))

/* An old version, that only programs linked long ago, or dlvsym(), get. */
#define HIDDEN	0x8000

static const struct unpin_entry *entries;
static const struct link_map *libunpin;

static bool is_named(const struct link_map *map, const char *name)
{
	const char *base = strrchr(map->l_name, '/');

	base = base ? base + 1 : map->l_name;
	return !strncmp(base, name, strlen(name));
}

EXPORT unsigned int la_version(unsigned int version)
{
	return version < LAV_CURRENT ? version : LAV_CURRENT;
}

EXPORT unsigned int la_objopen(struct link_map *map, Lmid_t namespace, uintptr_t *cookie)
{
	*cookie = 0;
	if (namespace != LM_ID_BASE)
		return 0;
	*cookie = (uintptr_t)map;
	if (is_named(map, "libunpin.so"))
		libunpin = map;
	return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

EXPORT unsigned int la_objclose(uintptr_t *cookie)
{
	if (MAP(cookie) && MAP(cookie) == libunpin) {
		libunpin = NULL;
		entries = NULL;
	}
	return 0;
}

static uintptr_t dynamic(const struct link_map *map, ElfW(Sxword) tag)
{
	const ElfW(Dyn) *dyn;

	for (dyn = map->l_ld; dyn->d_tag != DT_NULL; dyn++) {
		if (dyn->d_tag == tag)
			return dyn->d_un.d_ptr;
	}
	return 0;
}

static bool is_default_version(const struct link_map *map, unsigned int ndx)
{
	const ElfW(Half) *versions = (const void *)dynamic(map, DT_VERSYM);

	return versions && !(versions[ndx] & HIDDEN);
}

static uintptr_t ours(const char *name, uintptr_t theirs)
{
	const struct unpin_entry *entry;

	for (entry = entries; entry && entry->name; entry++) {
		if (!strcmp(entry->name, name))
			return (uintptr_t)entry->function;
	}
	return theirs;
}

/* @ndx: of the symbol, in the table of the object that has it */
EXPORT uintptr_t la_symbind64(Elf64_Sym *sym, unsigned int ndx, uintptr_t *user,
			      uintptr_t *object, unsigned int *flags, const char *name)
{
	const struct link_map *map = MAP(object);

	if (!map || !MAP(user))
		return sym->st_value;
	if (map == libunpin && !strcmp(name, UNPIN_ENTRIES))
		entries = (const void *)sym->st_value;
	if (!is_named(map, "libibverbs.so") || MAP(user) == libunpin ||
	    !is_default_version(map, ndx))
		return sym->st_value;
	return ours(name, sym->st_value);
}
