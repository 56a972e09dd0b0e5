/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What memory must hold: two processes' views of one range of addresses, and the
 * files that they map, byte by byte. It knows nothing of page tables; each call says
 * what an operation of the mm means for whoever reads and writes.
 */
#ifndef UNPIN_TESTS_T_MODEL_H
#define UNPIN_TESTS_T_MODEL_H

#include "t.h"

#define T_MODEL_PAGES		2048U
#define T_MODEL_FILES		2U
#define T_MODEL_FILE_PAGES	1024U
#define T_MODEL_SIDES		2U

enum t_backing {
	T_NOTHING,
	T_ANON,
	T_SHARED,
	T_COPY,		/* MAP_PRIVATE of a file */
};

/* MADV_FREE lets the kernel choose when a page becomes zero. */
enum t_doubt {
	T_SURE,
	T_LAZY,		/* may become `other` at any time */
	T_EITHER,	/* is one of the two */
};

/**
 * struct t_model_page - one page of a process
 * @backing: what is mapped
 * @prot: PROT_*
 * @file: of T_SHARED and T_COPY
 * @own: it has bytes of its own: T_ANON always, T_COPY once written
 * @doubt: whether these are known
 * @index: page of the file
 */
struct t_model_page {
	u8 backing;
	u8 prot;
	u8 file;
	bool own;
	u8 doubt;
	u32 index;
};

struct t_model_side {
	struct t_model_page page[T_MODEL_PAGES];
	u8 bytes[T_MODEL_PAGES][T_PAGE];
	u8 other[T_MODEL_PAGES][T_PAGE];
};

struct t_model_file {
	u32 pages;
	u8 bytes[T_MODEL_FILE_PAGES][T_PAGE];
};

struct t_model {
	struct t_model_side side[T_MODEL_SIDES];
	struct t_model_file file[T_MODEL_FILES];
};

struct t_model *t_model_new(void);
bool t_model_may(const struct t_model *m, u32 side, u32 page, bool write);
bool t_model_exists(const struct t_model *m, u32 side, u32 page);
void t_model_map(struct t_model *m, u32 side, u32 first, u32 nr,
		 const struct t_model_page *what);
void t_model_unmap(struct t_model *m, u32 side, u32 first, u32 nr);
void t_model_protect(struct t_model *m, u32 side, u32 first, u32 nr, int prot);
void t_model_discard(struct t_model *m, u32 side, u32 first, u32 nr);
void t_model_free(struct t_model *m, u32 side, u32 first, u32 nr);
void t_model_move(struct t_model *m, u32 side, u32 from, u32 to, u32 nr, bool keep);
void t_model_truncate(struct t_model *m, u32 file, u32 pages);
void t_model_punch(struct t_model *m, u32 file, u64 start, u64 len);
void t_model_fork(struct t_model *m);
void t_model_write(struct t_model *m, u32 side, u64 at, const void *from, size_t len);
void t_model_settled(struct t_model *m, u32 side, u32 page);
bool t_model_agrees(struct t_model *m, u32 side, u32 page, const u8 *seen);

/* A copy by a device, which moves what lies in one page on both sides at a time. */
size_t t_model_reach(const struct t_model *m, u32 from_side, u64 from, u32 to_side,
		     u64 to, size_t len);
void t_model_copy(struct t_model *m, u32 from_side, u64 from, u32 to_side, u64 to,
		  size_t len);

#endif
