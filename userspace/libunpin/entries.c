// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The functions that stand before libibverbs', for whoever asks for those by dlsym(). */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "entries.h"
#include "libunpin.h"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define ENTRY(symbol)	{ #symbol, (void (*)(void))symbol }

extern const struct unpin_entry unpin_entries[];

UNPIN_EXPORT const struct unpin_entry unpin_entries[] = {
	ENTRY(ibv_open_device),
	ENTRY(ibv_import_device),
	ENTRY(ibv_close_device),
	ENTRY(ibv_reg_mr),
	ENTRY(ibv_reg_mr_iova),
	ENTRY(ibv_reg_mr_iova2),
	{ 0 }
};

/*
 * An auditor sees what this looks up, and where that is; without one it does nothing.
 * dlsym() knows by its return address who calls: it must not be a tail call.
 */
__attribute__((constructor)) static void show_entries(void)
{
	const void *volatile entries = dlsym(RTLD_DEFAULT, UNPIN_ENTRIES);

	(void)entries;
}
