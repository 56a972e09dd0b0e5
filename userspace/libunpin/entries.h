/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What libunpin.so tells libunpin-audit.so, which lives in a namespace of its own. */
#ifndef UNPIN_ENTRIES_H
#define UNPIN_ENTRIES_H

#define UNPIN_ENTRIES	"unpin_entries"

/* A function of libibverbs, and ours; the last has no name. */
struct unpin_entry {
	const char *name;
	void (*function)(void);
};

#endif
