/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Helpers shared by the tests: the TAP harness that runs every case in a
 * process of its own, payloads that depend on position and round, buffers with
 * canaries on both sides, endpoints on one rxe device, and what the kernel says
 * about memory.
 *
 * A helper that cannot do its work ends the case as failed (t_die), so that a
 * case reads as the sequence of what must happen.
 */
#ifndef UNPIN_TESTS_T_H
#define UNPIN_TESTS_T_H

#include <infiniband/verbs.h>
#include <mirror_dma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define T_ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define T_PAGE		4096UL
#define T_HUGE		(2UL << 20)
#define T_WAIT_MS	20000

/* ---- harness: t_harness.c ---- */

#define T_ODP		1U	/* only on-demand registration can pass this */
#define T_PINNED	2U	/* only the pinned control */
#define T_BOTH		(T_ODP | T_PINNED)
#define T_DMA		4U	/* no region: the engine of samples/mm_mirror, mode "-" */
#define T_IMPLICIT	8U	/* the on-demand region of all memory, in place of each */
#define T_SWITCHED	16U	/* no region is asked to be on-demand, all are: what T_BOTH is */

/* One case is one TAP line, run in a forked child. */
struct t_case {
	const char *name;
	unsigned int modes;
	void (*run)(const void *arg);
	const void *arg;
};

struct t_opts {
	const char *dev;
	int gid;
	unsigned int mode;
	bool odp;	/* mode is T_ODP or T_IMPLICIT */
	bool count_only;
	const char *only;
	unsigned int seconds;	/* that a case may take; a program may set it */
	bool large_packets;	/* likewise: regions are not about packets */
	bool may_pin;	/* likewise: in mode T_SWITCHED not all are on-demand */
};

extern struct t_opts t_opts;

int t_main(int argc, char **argv, const struct t_case *cases, size_t n);
void t_diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void t_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void t_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void t_check_failed(const char *file, int line, const char *expr)
	__attribute__((noreturn));

#define t_check(cond, ...)						\
	do {								\
		if (!(cond)) {						\
			t_diag(__VA_ARGS__);				\
			t_check_failed(__FILE__, __LINE__, #cond);	\
		}							\
	} while (0)

/* ---- payload: t_pattern.c ---- */

u8 t_pattern(u64 pos, u64 round);
void t_fill(void *p, size_t len, u64 round);
void t_fill_at(void *p, size_t len, u64 pos, u64 round);
bool t_matches(const void *p, size_t len, u64 round);
bool t_matches_at(const void *p, size_t len, u64 pos, u64 round);
bool t_all_zero(const void *p, size_t len);
u64 t_random(u64 *state);

/* ---- memory: t_mem.c ---- */

/*
 * [p, p + len) is what is registered and transferred; [map, map + map_len) is
 * what was mapped around it. iova is the address that goes on the wire.
 */
struct t_buf {
	u8 *map;
	size_t map_len;
	u8 *p;
	size_t len;
	u64 iova;
	struct ibv_mr *mr;
};

void *t_map(size_t len, int flags, int fd);
void *t_map_huge_aligned(size_t len);
void t_buf_alloc(struct t_buf *b, size_t offset, size_t len);
void t_buf_wrap(struct t_buf *b, void *p, size_t len);
void t_buf_free(struct t_buf *b);
void t_buf_guard(const struct t_buf *b);
void t_buf_guard_check(const struct t_buf *b, const char *what);
void t_fill_buf(const struct t_buf *b, u64 round);
void t_check_buf(const struct t_buf *b, u64 round, const char *what);

int t_memfd(const char *name, size_t len, unsigned int flags);
u64 t_pagemap(const void *p);
bool t_page_present(const void *p);
bool t_all_present(const void *p, size_t len);
bool t_page_swapped(const void *p);
u64 t_pfn(const void *p);
bool t_page_dirty(const void *p);
void t_drain_lru(void);
bool t_pageout(void *p, size_t len);
u64 t_huge_bytes(const void *p);
int t_pipe_hold_page(int fd, off_t offset);
void t_pipe_read_page(int pipe_rd, void *page);

/* ---- what the system says: t_system.c ---- */

long t_status_kb(const char *field);
long t_stat(const char *name);
long t_oracle(const char *name);
bool t_stat_wait(const char *name, long value, int ms);
long t_vmstat(const char *name);
bool t_aging_set(bool on);
bool t_delay_set(const char *point, unsigned long usecs);
bool t_delay_met(const char *point, int ms);
void t_delays_clear(void);
bool t_delay_available(void);
bool t_write_file(const char *path, const char *text);
bool t_read_file(const char *path, char *buf, size_t len);
long t_read_long(const char *path);
long t_file_value(const char *path, const char *name);
u64 t_now_ms(void);
u64 t_patience(u64 ms);
u64 t_deadline(u64 ms);
void t_sleep_ms(unsigned int ms);
void t_until_hit(bool (*try)(const void *arg, unsigned int start_ms), const void *arg);
pid_t t_fork(void);
bool t_wait_exit(pid_t pid, int ms, int *status);
void t_become_nobody(rlim_t memlock);

/* ---- what the device counts, and regions on demand that do not ask: t_switch.c ---- */

long t_device_count(const char *name);
bool t_switch_set(const char *policy);
void t_switch_begin(void);
bool t_switch_end(void);

/* ---- who has used which page: t_lru.c ---- */

void t_lru_age(void);

/* ---- tracepoints: t_trace.c ---- */

struct t_event {
	char name[40];
	char text[300];
};

void t_trace_start(void);
void t_trace_stop(void);
void t_trace_end(void);
size_t t_trace_read(struct t_event *events, size_t max);
s64 t_event_number(const struct t_event *e, const char *key);
bool t_event_is(const struct t_event *e, const char *key, const char *want);
bool t_event_same(const struct t_event *a, const struct t_event *b, const char *key);

/* ---- memory control groups: t_group.c ---- */

void t_group_make(const char *group, const char *max, const char *swap_max);
void t_group_join(const char *group);
void t_group_leave(const char *group);
long t_group_read(const char *group, const char *file);
long t_group_value(const char *group, const char *file, const char *name);

/* ---- failing allocations, in a debug kernel: t_fail.c ---- */

void t_fail_reset(void);
void t_fail_below(const char *function);
void t_fail_spare(const char *function);
/**
 * struct t_sweep - one operation, tried with each of its allocations failing
 * @what: its name
 * @op: returns 0 or an error
 * @check: what must be true after it, given what it returned
 * @also: an error that it may give besides ENOMEM and EFAULT
 * @any_error: it may give any
 * @from: the first allocation that fails, 1 if 0
 * @step: from one that fails to the next, 1 if 0
 */
struct t_sweep {
	const char *what;
	int (*op)(void *ctx);
	void (*check)(void *ctx, int err);
	int also;
	bool any_error;
	unsigned int from;
	unsigned int step;
};

#define T_SWEEP_MAX	50000U

void t_sweep(const struct t_sweep *s, void *ctx);
void t_fail_nth(unsigned int n);
bool t_fail_nth_end(void);
unsigned long t_fail_points_failed(void);
const char *t_fail_points_idle(void);
void t_fail_points(const char *names, unsigned int skip, unsigned int percent, long times);
void t_fail_points_end(void);
void t_fail_module(const char *module, unsigned int percent);
long t_fail_module_end(void);

/* ---- our modules: t_module.c ---- */

void t_module_path(char *path, size_t len, const char *module);
int t_module_load(const char *path);
int t_module_unload(const char *name);
void t_module_unload_soon(const char *name);

/* ---- verbs that the provider lacks: t_libunpin.c ---- */

void t_under_libunpin(char **argv);

/* ---- the engine of samples/mm_mirror, see its header: t_dma.c ---- */

/* An address in a space. */
struct t_place {
	u32 space;
	void *p;
};

int t_dma_open(void);
int t_dma_try_attach(int dma, u32 flags, u64 start, u64 last, u32 *space);
u32 t_dma_attach(int dma);
u32 t_dma_attach_table(int dma, const void *p, size_t len);
u32 t_dma_attach_all(int dma);
void t_dma_detach(int dma, u32 space);
int t_dma_submit(int dma, const struct mirror_dma_copy *copy);
void t_dma_start(int dma, u64 cookie, struct t_place to, struct t_place from, size_t len);
bool t_dma_read(int dma, int ms, struct mirror_dma_done *done);
int t_dma_do(int dma, const struct mirror_dma_copy *copy, u64 *bytes);
int t_dma_copy(int dma, struct t_place to, struct t_place from, size_t len);
void t_dma_counts(int dma, u32 space, struct mirror_dma_counts *counts);
u64 t_dma_invalidates(const struct mirror_dma_counts *counts);
void t_dma_calls(int dma, u32 space, struct mirror_dma_calls *calls);
void t_dma_set(int dma, u32 space, u32 what, u64 value);

/* ---- the kernel's log: t_log.c ---- */

struct t_expected {
	const char *text;
	int log;
	long panic_on_warn;
};

int t_log_open(void);
unsigned int t_log_count(int log, const char *text);
void t_log_expect(struct t_expected *expected, const char *text);
unsigned int t_log_expected(struct t_expected *expected);

/* ---- what rdma(8) does: t_nldev.c ---- */

long t_resources(const char *what);
u32 t_link_index(void);
int t_link_add(void);
int t_link_delete(u32 index);

/* ---- userfaultfd: t_uffd.c ---- */

int t_uffd_open(void);
void t_uffd_watch(int uffd, void *p, size_t len);
bool t_uffd_wait(int uffd, int ms, u64 *address);
void t_uffd_serve(int uffd, u64 address, const void *page);

/* ---- a filesystem on a disk: t_disk.c ---- */

#define T_DISK_MOUNT	"/tmp/unpin-disk"

int t_disk_file(size_t len);
int t_pmem_file(size_t len);

/* ---- verbs: t_verbs.c ---- */

struct t_dev {
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	union ibv_gid gid;
};

struct t_cfg {
	enum ibv_qp_type type;	/* RC if 0 */
	enum ibv_mtu mtu;
	u8 timeout;
	u8 retry_cnt;
	u8 rnr_retry;
	u8 min_rnr_timer;
	u32 depth;
	u32 max_sge;
	u32 max_inline;
	bool with_srq;
};

#define T_CFG_DEFAULT {							\
	.mtu = IBV_MTU_1024, .timeout = 18, .retry_cnt = 7,		\
	.rnr_retry = 7, .min_rnr_timer = 12, .depth = 128, .max_sge = 8 }

/* How an endpoint is reached, and one remote range; sent between processes. */
struct t_addr {
	u32 qpn;
	u32 psn;
	union ibv_gid gid;
	u64 addr;
	u64 len;
	u32 rkey;
};

struct t_ep {
	struct t_dev *dev;
	struct t_cfg cfg;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	struct ibv_qp *qp;
	struct ibv_ah *ah;	/* UD: where the peer is */
	u32 peer_qpn;
	u32 psn;
	u64 next_id;
};

/* Requester a and responder b, connected inside one process. */
struct t_pair {
	struct t_dev dev;
	struct t_ep a;
	struct t_ep b;
};

/* One work request; what does not apply is left 0. */
struct t_op {
	enum ibv_wr_opcode opcode;
	struct ibv_sge *sge;
	int num_sge;
	u64 raddr;
	u32 rkey;
	u64 compare_add;
	u64 swap;
	u32 imm;	/* or the key that is to be invalidated */
	unsigned int flags;
};

/* What a receive on UD begins with. */
#define T_GRH		40U

#define T_TIMED_OUT	((enum ibv_wc_status)1000)
#define T_NOT_POSTED	((enum ibv_wc_status)1001)

#define T_REMOTE	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
			 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

void t_dev_open(struct t_dev *dev);
void t_dev_close(struct t_dev *dev);

void t_ep_open(struct t_ep *ep, struct t_dev *dev, const struct t_cfg *cfg);
void t_ep_close(struct t_ep *ep);
void t_ep_addr(const struct t_ep *ep, struct t_addr *addr);
void t_ep_connect(struct t_ep *ep, const struct t_addr *peer);
void t_ep_reset(struct t_ep *ep);

void t_pair_open(struct t_pair *p, const struct t_cfg *cfg);
void t_pair_reconnect(struct t_pair *p);
void t_pair_close(struct t_pair *p);

struct ibv_mr *t_try_reg(struct t_dev *dev, void *p, size_t len, int access);
void t_reg(struct t_buf *b, struct t_dev *dev);
void t_reg_access(struct t_buf *b, struct t_dev *dev, int access);
void t_reg_iova(struct t_buf *b, struct t_dev *dev, u64 iova);
void t_reg_pinned(struct t_buf *b, struct t_dev *dev);
void t_dereg(struct t_buf *b);
int t_rereg(const struct t_buf *b, int flags, struct ibv_pd *pd, int access);

int t_post(struct t_ep *ep, const struct t_op *op, u64 *wr_id);
int t_post_recv_sge(struct t_ep *ep, struct ibv_sge *sge, int num_sge);
void t_post_recv(struct t_ep *ep, const struct t_buf *b, size_t off, size_t len);
bool t_poll(struct t_ep *ep, struct ibv_wc *wc, int ms);
enum ibv_wc_status t_wait(struct t_ep *ep, struct ibv_wc *wc);
enum ibv_wc_status t_do(struct t_ep *ep, const struct t_op *op);

struct ibv_sge t_sge(const struct t_buf *b, size_t off, size_t len);
enum ibv_wc_status t_write(struct t_ep *ep, const struct t_buf *src, size_t soff,
			   const struct t_buf *dst, size_t doff, size_t len);
enum ibv_wc_status t_read(struct t_ep *ep, const struct t_buf *dst, size_t doff,
			  const struct t_buf *src, size_t soff, size_t len);
enum ibv_wc_status t_send(struct t_ep *ep, const struct t_buf *src, size_t soff,
			  size_t len);
enum ibv_wc_status t_cas(struct t_ep *ep, const struct t_buf *result, size_t roff,
			 const struct t_buf *target, size_t toff, u64 compare,
			 u64 swap);
enum ibv_wc_status t_fadd(struct t_ep *ep, const struct t_buf *result, size_t roff,
			  const struct t_buf *target, size_t toff, u64 add);
const char *t_status(enum ibv_wc_status status);

/* The status must be what is expected; the words come first in the report. */
#define t_expect(status, want, ...)					\
	do {								\
		enum ibv_wc_status got_ = (status);			\
		if (got_ != (want)) {					\
			t_diag(__VA_ARGS__);				\
			t_diag("completion: %s, expected: %s",		\
			       t_status(got_), t_status(want));		\
			t_check_failed(__FILE__, __LINE__, #status);	\
		}							\
	} while (0)

/* ---- a region under test beside a pinned scratch buffer: t_region.c ---- */

/*
 * The region is registered as --mr says, the scratch buffer is always pinned,
 * so that a wrong byte can only come from the region. (With --mr switched it is as
 * little pinned as anything else: that is what the switch is for.)
 */
struct t_region {
	struct t_pair pair;
	struct t_buf buf;
	struct t_buf scratch;
	u64 round;
};

void t_region_open(struct t_region *r, void *p, size_t len);
void t_region_open_access(struct t_region *r, void *p, size_t len, int access);
void t_region_write(struct t_region *r, size_t off, size_t len);
void t_region_read(struct t_region *r, size_t off, size_t len, u64 round);
void t_region_read_zero(struct t_region *r, size_t off, size_t len);
void t_region_cpu_holds(struct t_region *r, size_t off, size_t len, u64 round);
void t_region_exchange(struct t_region *r, size_t off, size_t len);
void t_region_refuses_write(struct t_region *r, size_t off, size_t len);
void t_region_refuses_read(struct t_region *r, size_t off, size_t len);

#endif
