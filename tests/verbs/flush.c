// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * FLUSH to persistence, of a file that is persistent memory: verbs.h has no word for it,
 * so it is sent by hand. Whether the bytes would survive cannot be seen in a guest; that
 * every page is there, and is of the right kind, can. Only on demand: a file of that kind
 * cannot be pinned for long, the kernel says EOPNOTSUPP.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "t_roce.h"

#define LEN	(600 * T_PAGE)
#define ACCESS	(T_REMOTE | T_ACCESS_FLUSH_PERSISTENT)

struct fixture {
	struct t_roce r;
	struct t_buf buf;
	int fd;
};

static void map_file(struct fixture *f, size_t len)
{
	f->fd = t_pmem_file(LEN);
	t_buf_wrap(&f->buf, t_map(len, MAP_SHARED, f->fd), len);
}

static void open_fixture(struct fixture *f)
{
	t_roce_open(&f->r, NULL);
	map_file(f, LEN);
	t_reg_access(&f->buf, &f->r.dev, ACCESS);
}

static void flush(struct fixture *f, u64 off, u32 len, u32 kind, u8 opcode, u8 syndrome)
{
	struct t_request req = {
		.opcode = T_FLUSH, T_USUAL, .va = f->buf.iova + off, .len = len,
		.rkey = f->buf.mr->rkey, .flush = T_FLUSH_PERSISTENT | kind,
	};
	struct t_answer answer;

	t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &answer);
	t_check(answer.opcode == opcode && answer.syndrome == syndrome,
		"answer %#x, %s", answer.opcode, t_syndrome(answer.syndrome));
}

static void write_some(struct fixture *f, u64 off, u64 round)
{
	struct t_request req = {
		.opcode = T_WRITE_ONLY, T_USUAL, .va = f->buf.iova + off, .len = 1000,
		.rkey = f->buf.mr->rkey, .bytes = 1000, .round = round,
	};
	struct t_answer answer;

	t_roce_send(&f->r, &req);
	t_roce_answer(&f->r, &answer);
	t_check(answer.syndrome == T_SYN_ACK, "WRITE: %s", t_syndrome(answer.syndrome));
}

static void what_was_written(const void *arg)
{
	struct fixture f;

	(void)arg;
	open_fixture(&f);
	write_some(&f, 5000, 3);
	flush(&f, 5000, 1000, 0, T_READ_ONLY, T_SYN_ACK);
	/* the translation goes, and what was written may still be in the cache */
	t_check(!madvise(f.buf.p, LEN, MADV_DONTNEED), "madvise: %s", strerror(errno));
	flush(&f, 4097, T_PAGE, 0, T_READ_ONLY, T_SYN_ACK);
	t_check(t_matches(f.buf.p + 5000, 1000, 3), "other bytes after FLUSH");
}

static void all_of_it(const void *arg)
{
	struct fixture f;
	struct stat st;

	(void)arg;
	open_fixture(&f);
	flush(&f, 0, 0, T_FLUSH_REGION, T_READ_ONLY, T_SYN_ACK);
	/* holes have got their blocks */
	t_check(!fstat(f.fd, &st) && (size_t)st.st_blocks * 512 >= LEN,
		"%ld blocks", (long)st.st_blocks);
	t_check(t_all_zero(f.buf.p, LEN), "FLUSH wrote");
}

static void beyond_the_file(const void *arg)
{
	struct fixture f;

	(void)arg;
	t_roce_open(&f.r, NULL);
	map_file(&f, LEN + 4 * T_PAGE);
	t_reg_access(&f.buf, &f.r.dev, ACCESS);
	flush(&f, 0, LEN, 0, T_READ_ONLY, T_SYN_ACK);
	flush(&f, LEN - 8, 16, 0, T_ACK, T_SYN_ACCESS);
}

/*
 * A region whose length has its 33rd bit, and in the lower 32 that of the file at its
 * beginning. What comes after the file is not persistent, so flushing all of it fails,
 * and flushing what 32 bits can tell does not.
 */
static void more_than_32_bits(const void *arg)
{
	size_t len = (4UL << 30) + LEN;
	struct fixture f;
	void *p;

	(void)arg;
	t_roce_open(&f.r, NULL);
	f.fd = t_pmem_file(LEN);
	p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	t_buf_wrap(&f.buf, p, len);
	t_check(mmap(p, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, f.fd, 0) == p,
		"mmap: %s", strerror(errno));
	t_reg_access(&f.buf, &f.r.dev, ACCESS);
	flush(&f, 0, LEN, 0, T_READ_ONLY, T_SYN_ACK);
	flush(&f, 0, 0, T_FLUSH_REGION, T_ACK, T_SYN_ACCESS);
}

static const struct t_case cases[] = {
	{ "FLUSH of what was written", T_ODP, what_was_written, NULL },
	{ "FLUSH of all of a region", T_ODP, all_of_it, NULL },
	{ "FLUSH beyond the end of the file", T_ODP, beyond_the_file, NULL },
	{ "FLUSH of all of a region of more than 4 GiB", T_ODP, more_than_32_bits, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
