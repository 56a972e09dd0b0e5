// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The reference model of memory, see t_model.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "t_model.h"

/* Shared, so that the other process can look its bytes up. */
struct t_model *t_model_new(void)
{
	void *m = mmap(NULL, sizeof(struct t_model), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (m == MAP_FAILED)
		t_die("memory for the model: %s", strerror(errno));
	return m;
}

static struct t_model_page *page_of(struct t_model *m, u32 side, u32 page)
{
	return &m->side[side].page[page];
}

static u8 *file_bytes(struct t_model *m, const struct t_model_page *p)
{
	return m->file[p->file].bytes[p->index];
}

/* What is read there. */
static u8 *seen_bytes(struct t_model *m, u32 side, u32 page)
{
	struct t_model_page *p = page_of(m, side, page);

	return p->own ? m->side[side].bytes[page] : file_bytes(m, p);
}

/* There is a page, whether it may be accessed or not. */
bool t_model_exists(const struct t_model *m, u32 side, u32 page)
{
	const struct t_model_page *p = &m->side[side].page[page];

	if (p->backing == T_NOTHING)
		return false;
	return p->own || p->index < m->file[p->file].pages;
}

bool t_model_may(const struct t_model *m, u32 side, u32 page, bool write)
{
	int want = PROT_READ | (write ? PROT_WRITE : 0);

	return t_model_exists(m, side, page) &&
	       (m->side[side].page[page].prot & want) == want;
}

/* ---- mappings ---- */

static void make_zero(struct t_model *m, u32 side, u32 page)
{
	memset(m->side[side].bytes[page], 0, T_PAGE);
	page_of(m, side, page)->doubt = T_SURE;
}

void t_model_map(struct t_model *m, u32 side, u32 first, u32 nr,
		 const struct t_model_page *what)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		struct t_model_page *p = page_of(m, side, first + i);

		*p = *what;
		p->index += i;
		p->own = what->backing == T_ANON;
		if (p->own)
			make_zero(m, side, first + i);
	}
}

void t_model_unmap(struct t_model *m, u32 side, u32 first, u32 nr)
{
	memset(page_of(m, side, first), 0, nr * sizeof(struct t_model_page));
}

void t_model_protect(struct t_model *m, u32 side, u32 first, u32 nr, int prot)
{
	u32 i;

	for (i = 0; i < nr; i++)
		page_of(m, side, first + i)->prot = prot;
}

static void discard_page(struct t_model *m, u32 side, u32 page)
{
	struct t_model_page *p = page_of(m, side, page);

	if (p->backing == T_ANON)
		make_zero(m, side, page);
	else
		p->own = false;
}

void t_model_discard(struct t_model *m, u32 side, u32 first, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++)
		discard_page(m, side, first + i);
}

/* Pages that are T_EITHER have to be settled before. */
void t_model_free(struct t_model *m, u32 side, u32 first, u32 nr)
{
	u32 i;

	for (i = first; i < first + nr; i++) {
		memset(m->side[side].other[i], 0, T_PAGE);
		page_of(m, side, i)->doubt = T_LAZY;
	}
}

/* @keep: as MREMAP_DONTUNMAP; the mapping stays, the pages go. */
void t_model_move(struct t_model *m, u32 side, u32 from, u32 to, u32 nr, bool keep)
{
	struct t_model_side *s = &m->side[side];
	u32 i;

	for (i = 0; i < nr; i++) {
		s->page[to + i] = s->page[from + i];
		memcpy(s->bytes[to + i], s->bytes[from + i], T_PAGE);
		memcpy(s->other[to + i], s->other[from + i], T_PAGE);
		discard_page(m, side, from + i);
	}
	if (!keep)
		t_model_unmap(m, side, from, nr);
}

/* Copies of what is beyond the end go with it. */
void t_model_truncate(struct t_model *m, u32 file, u32 pages)
{
	struct t_model_file *f = &m->file[file];
	u32 side, i;

	if (pages < f->pages)
		memset(f->bytes[pages], 0, (f->pages - pages) * T_PAGE);
	f->pages = pages;
	for (side = 0; side < T_MODEL_SIDES; side++) {
		for (i = 0; i < T_MODEL_PAGES; i++) {
			struct t_model_page *p = page_of(m, side, i);

			if (p->backing == T_COPY && p->file == file && p->index >= pages)
				p->own = false;
		}
	}
}

/* Copies stay. */
void t_model_punch(struct t_model *m, u32 file, u64 start, u64 len)
{
	memset(m->file[file].bytes[0] + start, 0, len);
}

void t_model_fork(struct t_model *m)
{
	memcpy(&m->side[1], &m->side[0], sizeof(m->side[0]));
}

/* ---- bytes ---- */

static void write_in_page(struct t_model *m, u32 side, u64 at, const u8 *from, size_t len)
{
	struct t_model_page *p = page_of(m, side, at / T_PAGE);
	u8 *bytes = m->side[side].bytes[at / T_PAGE];

	if (p->backing == T_SHARED) {
		memcpy(file_bytes(m, p) + at % T_PAGE, from, len);
		return;
	}
	if (!p->own) {
		memcpy(bytes, file_bytes(m, p), T_PAGE);
		p->own = true;
		p->doubt = T_SURE;
	}
	memcpy(bytes + at % T_PAGE, from, len);
	if (p->doubt == T_SURE)
		return;
	/* it is not free any more, but was it before? */
	memcpy(m->side[side].other[at / T_PAGE] + at % T_PAGE, from, len);
	p->doubt = T_EITHER;
}

static size_t page_rest(u64 at)
{
	return T_PAGE - at % T_PAGE;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

void t_model_write(struct t_model *m, u32 side, u64 at, const void *from, size_t len)
{
	const u8 *bytes = from;
	size_t n;

	for (; len; len -= n, at += n, bytes += n) {
		n = min_size(len, page_rest(at));
		write_in_page(m, side, at, bytes, n);
	}
}

/* It was written to, with what is there: free and shared pages are neither any more. */
void t_model_settled(struct t_model *m, u32 side, u32 page)
{
	struct t_model_page *p = page_of(m, side, page);

	if (p->doubt == T_LAZY)
		p->doubt = T_EITHER;
	if (p->backing == T_COPY && !p->own)
		write_in_page(m, side, page * T_PAGE, file_bytes(m, p), 1);
}

bool t_model_agrees(struct t_model *m, u32 side, u32 page, const u8 *seen)
{
	struct t_model_page *p = page_of(m, side, page);
	u8 *other = m->side[side].other[page];

	if (!memcmp(seen, seen_bytes(m, side, page), T_PAGE)) {
		if (p->doubt == T_EITHER)
			p->doubt = T_SURE;
		return true;
	}
	if (!p->own || p->doubt == T_SURE || memcmp(seen, other, T_PAGE))
		return false;
	memcpy(m->side[side].bytes[page], other, T_PAGE);
	p->doubt = T_SURE;
	return true;
}

/* ---- a device ---- */

static size_t piece(u64 from, u64 to, size_t len)
{
	return min_size(len, min_size(page_rest(from), page_rest(to)));
}

/* How far it comes. */
size_t t_model_reach(const struct t_model *m, u32 from_side, u64 from, u32 to_side,
		     u64 to, size_t len)
{
	size_t n, done;

	for (done = 0; done < len; done += n) {
		n = piece(from + done, to + done, len - done);
		if (!t_model_may(m, from_side, (from + done) / T_PAGE, false) ||
		    !t_model_may(m, to_side, (to + done) / T_PAGE, true))
			break;
	}
	return done;
}

void t_model_copy(struct t_model *m, u32 from_side, u64 from, u32 to_side, u64 to,
		  size_t len)
{
	u8 bounce[T_PAGE];
	size_t n;

	for (; len; len -= n, from += n, to += n) {
		n = piece(from, to, len);
		memcpy(bounce, seen_bytes(m, from_side, from / T_PAGE) + from % T_PAGE, n);
		write_in_page(m, to_side, to, bounce, n);
	}
}
