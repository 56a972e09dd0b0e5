// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Programs that know nothing of on-demand memory, under "unpin run": what they register
 * is not pinned, works, and is counted; what cannot be so, or is not to be, is
 * registered as they ask; and the errors that they get are those that they get without.
 *
 * This program is both: the cases run it again, with --do, as such a program, bare or
 * under the tool, and look at what it did and at the summary.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#define MIB		(1UL << 20)
#define LEN		(4 * MIB)
#define SMALL		65536UL
#define LARGE		((4UL << 30) + T_HUGE)
#define THREADS		8UL
#define ROUNDS		50UL
#define CHILDREN	10UL
#define UNSEEN		10UL

#define SUMMARY		"/tmp/preloaded.summary"
#define SAID		"/tmp/preloaded.stderr"
#define PRINTED		"/tmp/preloaded.stdout"
#define RUN		"unpin run --summary=" SUMMARY " "

#define ON_DEMAND	"on demand"
#define OWN		"on demand, as the program asked"
#define NO_ODP		"as asked, the device has no on-demand paging"
#define TRANSPORT	"as asked, the device has it not for every operation"
#define EXCLUDED	"as asked, the device is excluded"
#define TOO_SMALL	"as asked, below the minimum size"
#define NOT_MEMORY	"as asked, not all of it is memory with these rights"
#define REFUSED		"as asked, on demand was refused with EOPNOTSUPP"

/* ==== the program ==== */

typedef struct ibv_mr *reg_fn(struct ibv_pd *pd, void *addr, size_t len, int access);
typedef struct ibv_mr *reg_iova_fn(struct ibv_pd *pd, void *addr, size_t len, u64 iova,
				   int access);
typedef struct ibv_mr *reg_iova2_fn(struct ibv_pd *pd, void *addr, size_t len, u64 iova,
				    unsigned int access);

static bool is_word(const char *word, const char *want)
{
	return word && !strcmp(word, want);
}

static void check_is_libibverbs(const void *p, const char *what)
{
	Dl_info of;

	t_check(p && dladdr(p, &of) && strstr(of.dli_fname, "/libibverbs.so"),
		"%s is not libibverbs' own", what);
}

/* What an auditor must leave alone. */
static void check_others(void *lib, const char *symbol)
{
	void *other = dlmopen(LM_ID_NEWLM, "libibverbs.so.1", RTLD_NOW);

	check_is_libibverbs(dlvsym(lib, "ibv_reg_mr", "IBVERBS_1.0"), "the old version");
	check_is_libibverbs(dlsym(lib, "ibv_dereg_mr"), "another function");
	t_check(other, "%s", dlerror());
	check_is_libibverbs(dlsym(other, symbol), "that of another namespace");
}

static void *looked_up(const char *symbol, const char *version)
{
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW);
	void *p = lib ? dlvsym(lib, symbol, version) : NULL;

	t_check(p, "no %s@%s", symbol, version);
	t_check(dlsym(lib, symbol) == p, "%s@%s is not the default", symbol, version);
	check_others(lib, symbol);
	return p;
}

/* Each way to register; the region's address on the wire is not the program's. */
static struct ibv_mr *enter(const char *how, struct ibv_pd *pd, struct t_buf *b)
{
	u64 iova = (uintptr_t)b->p, other = 0x7000000000 + (iova & (T_PAGE - 1));
	volatile unsigned int flag = 0;

	b->iova = iova;
	if (is_word(how, "reg_mr"))
		return ibv_reg_mr(pd, b->p, b->len, T_REMOTE);
	if (is_word(how, "reg_mr-flag"))	/* by the inline function, to iova2 */
		return ibv_reg_mr(pd, b->p, b->len, T_REMOTE | IBV_ACCESS_RELAXED_ORDERING | flag);
	if (is_word(how, "reg_mr-pointer"))
		return (ibv_reg_mr)(pd, b->p, b->len, T_REMOTE);
	if (is_word(how, "dlsym-reg_mr"))
		return ((reg_fn *)looked_up("ibv_reg_mr", "IBVERBS_1.1"))
			(pd, b->p, b->len, T_REMOTE);
	b->iova = other;
	if (is_word(how, "iova"))
		return (ibv_reg_mr_iova)(pd, b->p, b->len, other, T_REMOTE);
	if (is_word(how, "iova2"))
		return ibv_reg_mr_iova2(pd, b->p, b->len, other, T_REMOTE);
	if (is_word(how, "dlsym-iova"))
		return ((reg_iova_fn *)looked_up("ibv_reg_mr_iova", "IBVERBS_1.7"))
			(pd, b->p, b->len, other, T_REMOTE);
	if (is_word(how, "dlsym-iova2"))
		return ((reg_iova2_fn *)looked_up("ibv_reg_mr_iova2", "IBVERBS_1.8"))
			(pd, b->p, b->len, other, T_REMOTE);
	t_die("no way to register by %s", how);
}

/* Two regions that are written to and read from; how much of them is pinned. */
static void do_entry(const char *how, const char *pinned)
{
	long want = is_word(pinned, "pinned") ? (LEN >> 10) + (LEN >> 10) : 0;
	struct t_region r = { .round = 100 };

	t_pair_open(&r.pair, NULL);
	t_buf_alloc(&r.buf, 1, LEN - 1);
	r.buf.mr = enter(how, r.pair.dev.pd, &r.buf);
	t_check(r.buf.mr, "%s: %s", how, strerror(errno));
	t_buf_alloc(&r.scratch, 0, LEN);
	r.scratch.mr = enter("reg_mr", r.pair.dev.pd, &r.scratch);
	t_check(r.scratch.mr, "the other: %s", strerror(errno));
	t_check(t_status_kb("VmPin") == want, "VmPin is %ld kB, not %ld",
		t_status_kb("VmPin"), want);
	t_region_exchange(&r, 0, 10 * T_PAGE + 1);
	t_region_exchange(&r, LEN - 100, 99);
	t_dereg(&r.buf);
	t_dereg(&r.scratch);
	t_check(!t_status_kb("VmPin"), "VmPin stays at %ld kB", t_status_kb("VmPin"));
	t_pair_close(&r.pair);
}

static struct ibv_mr *reg(struct t_dev *dev, size_t len, int access)
{
	u8 *p = t_map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct ibv_mr *mr = ibv_reg_mr(dev->pd, p, len, access);

	t_check(mr, "ibv_reg_mr of %zu bytes: %s", len, strerror(errno));
	return mr;
}

static void do_sizes(const char *large, const char *pinned_kb)
{
	struct t_dev dev;

	t_dev_open(&dev);
	reg(&dev, strtoul(large, NULL, 10) - 1, T_REMOTE);
	reg(&dev, strtoul(large, NULL, 10), T_REMOTE);
	t_check(t_status_kb("VmPin") == atol(pinned_kb), "VmPin is %ld kB",
		t_status_kb("VmPin"));
}

static void do_own(const char *arg, const char *arg2)
{
	struct t_dev dev;

	t_dev_open(&dev);
	reg(&dev, LEN, T_REMOTE | IBV_ACCESS_ON_DEMAND);
	t_check(!t_status_kb("VmPin"), "VmPin is %ld kB", t_status_kb("VmPin"));
}

/* ---- bad addresses ---- */

struct bad {
	const char *name;
	void *p;
	size_t len;
	unsigned int access;
};

static void *pages_with(int prot)
{
	u8 *p = t_map(16 * T_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	t_check(!mprotect(p + 8 * T_PAGE, T_PAGE, prot), "mprotect: %s", strerror(errno));
	return p;
}

static void *pages_with_hole(void)
{
	u8 *p = pages_with(PROT_NONE);

	munmap(p + 8 * T_PAGE, T_PAGE);
	return p;
}

/* The ROM of a PC: no memory that anybody could pin. */
static void *registers(void)
{
	int fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
	void *p = mmap(NULL, T_PAGE, PROT_READ, MAP_SHARED, fd, 0xf0000);

	t_check(p != MAP_FAILED, "/dev/mem: %s", strerror(errno));
	return p;
}

static void do_bad(const char *arg, const char *arg2)
{
	const size_t some = 16 * T_PAGE;
	const struct bad bad[] = {
		{ "good", pages_with(PROT_READ | PROT_WRITE), some, T_REMOTE },
		{ "hole", pages_with_hole(), some, T_REMOTE },
		{ "hole, to read", pages_with_hole(), some, 0 },
		{ "PROT_NONE", pages_with(PROT_NONE), some, 0 },
		{ "PROT_READ", pages_with(PROT_READ), some, T_REMOTE },
		{ "PROT_READ, to read", pages_with(PROT_READ), some, IBV_ACCESS_REMOTE_READ },
		{ "PROT_READ, for windows", pages_with(PROT_READ), some, IBV_ACCESS_MW_BIND },
		{ "PROT_WRITE", pages_with(PROT_WRITE), some, T_REMOTE },
		{ "registers", registers(), T_PAGE, 0 },
		{ "nothing", NULL, T_PAGE, T_REMOTE },
		{ "all", NULL, SIZE_MAX, T_REMOTE },
		{ "the kernel", (void *)0xffff888000000000, T_PAGE, T_REMOTE },
		{ "wraps", (void *)-T_PAGE, 2 * T_PAGE, T_REMOTE },
		{ "no bytes", pages_with(PROT_READ), 0, IBV_ACCESS_REMOTE_READ },
		{ "no local write", pages_with(PROT_READ), some, IBV_ACCESS_REMOTE_WRITE },
		{ "no such right", pages_with(PROT_READ), some, 1U << 19 },
	};
	struct t_dev dev;
	size_t i;

	t_dev_open(&dev);
	for (i = 0; i < T_ARRAY_SIZE(bad); i++) {
		struct ibv_mr *mr;

		errno = 0;
		mr = ibv_reg_mr_iova2(dev.pd, bad[i].p, bad[i].len, (uintptr_t)bad[i].p,
				      bad[i].access);
		printf("%s: %s\n", bad[i].name, mr ? "registered" : strerrorname_np(errno));
		if (mr)
			t_check(!ibv_dereg_mr(mr), "%s: dereg", bad[i].name);
	}
}

static void *bad(void *arg)
{
	do_bad(NULL, NULL);
	exit(0);
}

/* From a thread that has outlived the first one, whose /proc has no memory any more. */
static void do_bad_thread(const char *arg, const char *arg2)
{
	pthread_t thread;

	t_check(!pthread_create(&thread, NULL, bad, NULL), "thread");
	pthread_exit(NULL);
}

/* Without a file descriptor for whoever wants to look at the mappings. */
static void do_bad_blind(const char *arg, const char *arg2)
{
	struct rlimit were, none;
	struct t_dev dev;

	t_dev_open(&dev);
	t_check(!getrlimit(RLIMIT_NOFILE, &were), "getrlimit");
	none = were;
	none.rlim_cur = 0;
	t_check(!setrlimit(RLIMIT_NOFILE, &none), "setrlimit: %s", strerror(errno));
	t_check(!ibv_reg_mr(dev.pd, NULL, SIZE_MAX, T_REMOTE), "all of it is registered");
	t_check(!ibv_reg_mr(dev.pd, pages_with_hole(), 16 * T_PAGE, T_REMOTE), "a hole is");
	reg(&dev, LEN, T_REMOTE);
	setrlimit(RLIMIT_NOFILE, &were);
}

/* ---- forks, threads, exec ---- */

/* Children that register nothing, something once, and twice. */
static void do_fork(const char *arg, const char *arg2)
{
	struct t_dev dev;
	int i, status;
	pid_t pid;

	t_dev_open(&dev);
	reg(&dev, T_PAGE, T_REMOTE);
	for (i = 0; i < 3; i++) {
		fflush(NULL);
		pid = t_fork();
		if (!pid) {
			if (i)
				t_dev_open(&dev);
			while (i--)
				reg(&dev, LEN, T_REMOTE);
			exit(0);
		}
		t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "child %d", i);
	}
}

static void *registering(void *arg)
{
	struct t_dev *dev = arg;
	unsigned int i;

	for (i = 0; i < ROUNDS; i++) {
		struct ibv_mr *mr = reg(dev, T_PAGE, T_REMOTE);
		void *p = mr->addr;

		t_check(!ibv_dereg_mr(mr), "dereg");
		munmap(p, T_PAGE);
	}
	return NULL;
}

/* Children are forked while threads register, and register too. */
static void do_threads(const char *arg, const char *arg2)
{
	pthread_t threads[THREADS];
	struct t_dev dev, childs;
	unsigned int i;
	int status;
	pid_t pid;

	t_dev_open(&dev);
	for (i = 0; i < THREADS; i++)
		t_check(!pthread_create(&threads[i], NULL, registering, &dev), "thread");
	for (i = 0; i < CHILDREN; i++) {
		pid = t_fork();
		if (!pid) {
			t_dev_open(&childs);
			reg(&childs, T_PAGE, T_REMOTE);
			exit(0);
		}
		t_check(t_wait_exit(pid, T_WAIT_MS, &status) && !status, "child %d", i);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void *cancelled(void *arg)
{
	struct ibv_mr **mr = arg;
	struct t_dev dev;
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	t_dev_open(&dev);
	pthread_cancel(pthread_self());
	pthread_setcancelstate(state, NULL);
	*mr = ibv_reg_mr(dev.pd, pages_with(PROT_READ), T_PAGE, IBV_ACCESS_REMOTE_READ);
	pthread_testcancel();
	return NULL;
}

/* A thread that is to end does not do so within a registration, but after it. */
static void do_cancel(const char *arg, const char *arg2)
{
	struct ibv_mr *mr = NULL;
	pthread_t thread;
	void *result;

	t_check(!pthread_create(&thread, NULL, cancelled, &mr), "thread");
	t_check(!pthread_join(thread, &result), "join");
	t_check(mr, "cancelled while it registered");
	t_check(result == PTHREAD_CANCELED, "not cancelled");
}

/* What this process registers is forgotten; what it becomes begins anew. */
static void do_exec(const char *arg, const char *arg2)
{
	struct t_dev dev;

	t_dev_open(&dev);
	reg(&dev, T_PAGE, T_REMOTE);
	execl("/proc/self/exe", "anew", "--do", "sizes", arg, arg2, NULL);
	t_die("execl: %s", strerror(errno));
}

/* ibv_fork_init() takes pinned memory from children; on demand they keep it. */
static void do_forkinit(const char *arg, const char *arg2)
{
	struct ibv_mr *mr;
	struct t_dev dev;
	int status;
	pid_t pid;

	t_check(!ibv_fork_init(), "ibv_fork_init");
	t_dev_open(&dev);
	mr = reg(&dev, LEN, T_REMOTE);
	t_fill(mr->addr, LEN, 1);
	pid = t_fork();
	if (!pid)
		_exit(!t_matches(mr->addr, LEN, 1));
	t_check(t_wait_exit(pid, T_WAIT_MS, &status), "the child hangs");
	t_check(is_word(arg, "kept") ? !status : WIFSIGNALED(status), "the child: %#x", status);
}

/* ---- what the device says ---- */

static bool lie_odp;
static u32 lie_rc;

static int lying_query(struct ibv_context *context,
		       const struct ibv_query_device_ex_input *input,
		       struct ibv_device_attr_ex *attr, size_t size)
{
	memset(attr, 0, size);
	attr->odp_caps.general_caps = lie_odp ? IBV_ODP_SUPPORT : 0;
	attr->odp_caps.per_transport_caps.rc_odp_caps = lie_rc;
	return 0;
}

static void lie(struct t_dev *dev, bool odp, u32 rc)
{
	verbs_get_ctx(dev->ctx)->query_device_ex = lying_query;
	lie_odp = odp;
	lie_rc = rc;
}

#define NO_ATOMICS	(IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | \
			 IBV_ODP_SUPPORT_SRQ_RECV | IBV_ODP_SUPPORT_WRITE | \
			 IBV_ODP_SUPPORT_READ)

/* A device without atomics, and perhaps more, on demand; not asked again while it is open. */
static void do_caps(const char *arg, const char *arg2)
{
	bool reads = is_word(arg, "reads");
	struct t_dev dev;
	u32 lacks = 0;

	if (!reads)
		lacks = is_word(arg, "no-srq") ? IBV_ODP_SUPPORT_SRQ_RECV : IBV_ODP_SUPPORT_READ;
	t_dev_open(&dev);
	lie(&dev, true, NO_ATOMICS & ~lacks);
	reg(&dev, T_PAGE, T_REMOTE & ~IBV_ACCESS_REMOTE_ATOMIC);
	lie(&dev, true, ~0U);
	reg(&dev, LEN, T_REMOTE);
	t_check(t_status_kb("VmPin") == (long)(LEN >> 10) + (reads ? 0 : 4), "VmPin is %ld kB",
		t_status_kb("VmPin"));
}

/* A device that can; closed; another at the same place that cannot; and so on. */
static void do_reopen(const char *arg, const char *arg2)
{
	const struct ibv_context *last = NULL;
	unsigned int i, same = 0;
	struct t_dev dev;

	for (i = 0; i < 10; i++) {
		t_dev_open(&dev);
		same += dev.ctx == last;
		last = dev.ctx;
		lie(&dev, !(i % 2), ~0U);
		t_check(!ibv_dereg_mr(reg(&dev, T_PAGE, T_REMOTE)), "dereg");
		t_dev_close(&dev);
	}
	t_check(same, "the context is never at the same place");
}

/*
 * Another device at the same place, where the library has not seen the first one close,
 * and is not to.
 */
static void do_unseen(const char *arg, const char *arg2)
{
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW);
	int (*unseen_close)(struct ibv_context *context);
	const struct ibv_context *seen[UNSEEN];
	struct t_dev dev;
	unsigned int i;

	unseen_close = dlvsym(lib, "ibv_close_device", "IBVERBS_1.1");
	check_is_libibverbs((const void *)unseen_close, "ibv_close_device()");
	for (i = 0; i < UNSEEN; i++) {
		t_dev_open(&dev);
		seen[i] = dev.ctx;
		strcpy(dev.ctx->device->name, "other0");
		t_check(!ibv_dereg_mr(reg(&dev, T_PAGE, T_REMOTE)), "dereg");
		strcpy(dev.ctx->device->name, t_opts.dev);
		t_check(!ibv_dealloc_pd(dev.pd) && !unseen_close(dev.ctx), "closing");
	}
	t_dev_open(&dev);
	for (i = 0; i < UNSEEN && seen[i] != dev.ctx; i++)
		;
	t_check(i < UNSEEN, "the context is not where one was");
	reg(&dev, LEN, T_REMOTE);
}

/* Claims what it has not. */
static void do_claim(const char *arg, const char *arg2)
{
	struct t_dev dev;

	t_dev_open(&dev);
	lie(&dev, true, ~0U);
	reg(&dev, LEN, T_REMOTE);
	t_check(t_status_kb("VmPin") == LEN >> 10, "VmPin is %ld kB", t_status_kb("VmPin"));
}

/* ---- prefetch ---- */

static void do_prefetch(const char *how, const char *arg2)
{
	bool wanted = is_word(how, "there");
	struct t_region r = { .round = 100 };
	long faults;

	t_pair_open(&r.pair, NULL);
	t_buf_alloc(&r.buf, 0, LEN);
	t_buf_alloc(&r.scratch, 0, T_PAGE);
	madvise(r.buf.p, LEN, MADV_DONTNEED);
	r.buf.mr = enter("iova2", r.pair.dev.pd, &r.buf);
	r.scratch.mr = enter("reg_mr", r.pair.dev.pd, &r.scratch);
	t_check(r.buf.mr && r.scratch.mr, "registration: %s", strerror(errno));
	t_check(t_all_present(r.buf.p, LEN) == wanted, "the memory is%s there",
		wanted ? " not" : "");
	faults = t_stat("faults");
	t_region_exchange(&r, LEN / 2, T_PAGE);
	t_check((t_stat("faults") == faults) == wanted, "%ld faults",
		t_stat("faults") - faults);
}

/* More than an element of advice can have, of zeroes, which cost nothing. */
static void do_prefetch_large(const char *arg, const char *arg2)
{
	long pages = t_stat("prefetch_pages");
	size_t len = LARGE;
	struct t_dev dev;
	u8 *p;

	t_dev_open(&dev);
	p = t_map(len + T_HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	p += -(uintptr_t)p % T_HUGE;
	t_check(!madvise(p, len, MADV_HUGEPAGE), "madvise: %s", strerror(errno));
	t_check(!mprotect(p, len, PROT_READ), "mprotect: %s", strerror(errno));
	t_check(ibv_reg_mr(dev.pd, p, len, IBV_ACCESS_REMOTE_READ), "ibv_reg_mr: %s",
		strerror(errno));
	t_check(t_page_present(p) && t_page_present(p + len - T_PAGE), "not there");
	t_diag("%ld pages were prefetched", t_stat("prefetch_pages") - pages);
}

/* ---- the rest ---- */

static void do_nobody(const char *arg, const char *pinned)
{
	struct passwd *pw = getpwnam("nobody");
	struct rlimit none = { 0, 0 };
	struct t_dev dev;
	u8 *p;

	t_check(pw && !chmod("/dev/infiniband/uverbs0", 0666), "uverbs0");
	t_check(!setrlimit(RLIMIT_MEMLOCK, &none) && !setgroups(0, NULL) &&
		!setgid(pw->pw_gid) && !setuid(pw->pw_uid), "becoming nobody");
	/* what it makes itself may be pinned by nobody: no queues, just a region */
	t_dev_open(&dev);
	p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (is_word(arg, "refused"))
		t_check(!ibv_reg_mr(dev.pd, p, LEN, T_REMOTE) && errno == EPERM,
			"pinned without a right to");
	else
		do_entry("reg_mr", "not");
}

/* Standard error goes, and another file has its number. */
static void do_daemon(const char *file, const char *arg2)
{
	struct t_dev dev;

	close(STDERR_FILENO);
	t_check(open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600) == STDERR_FILENO,
		"%s: %s", file, strerror(errno));
	t_dev_open(&dev);
	reg(&dev, LEN, T_REMOTE);
}

static const struct {
	const char *name;
	void (*act)(const char *arg, const char *arg2);
} acts[] = {
	{ "entry", do_entry },
	{ "sizes", do_sizes },
	{ "own", do_own },
	{ "bad", do_bad },
	{ "bad-thread", do_bad_thread },
	{ "bad-blind", do_bad_blind },
	{ "fork", do_fork },
	{ "threads", do_threads },
	{ "cancel", do_cancel },
	{ "exec", do_exec },
	{ "forkinit", do_forkinit },
	{ "caps", do_caps },
	{ "reopen", do_reopen },
	{ "unseen", do_unseen },
	{ "claim", do_claim },
	{ "prefetch", do_prefetch },
	{ "prefetch-large", do_prefetch_large },
	{ "nobody", do_nobody },
	{ "daemon", do_daemon },
};

static int act(char **argv)
{
	size_t i;

	for (i = 0; i < T_ARRAY_SIZE(acts); i++) {
		if (is_word(argv[0], acts[i].name)) {
			acts[i].act(argv[1], argv[1] ? argv[2] : NULL);
			return 0;
		}
	}
	t_die("nothing to do: %s", argv[0]);
}

/* ==== running it ==== */

/* "unpin ..." or "env ..." or nothing, and what the program is to do. */
static void run(const char *under, const char *what)
{
	char exe[PATH_MAX], top[PATH_MAX], command[3 * PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int up, status;

	t_check(n > 0, "/proc/self/exe: %s", strerror(errno));
	exe[n] = '\0';
	strcpy(top, exe);
	for (up = 0; up < 3; up++)
		*strrchr(top, '/') = '\0';
	unlink(SUMMARY);
	snprintf(command, sizeof(command),
		 "export PATH=%s:$PATH BUILD=%s; exec %s %s --do %s >" PRINTED " 2>" SAID,
		 top, top, under, exe, what);
	status = system(command);
	if (status) {
		t_diag("%s%s: status %#x", under, what, status);
		system("sed 's/^/# /' " PRINTED " " SAID);
	}
	t_check(!status, "the program has failed");
}

/* How often the summaries have a line like this, and the sums of its numbers. */
static u64 summed(const char *label, u64 *number, u64 *bytes)
{
	static char text[65536];
	char *rest = text, *line, *at;
	u64 lines = 0;

	*number = 0;
	*bytes = 0;
	if (!t_read_file(SUMMARY, text, sizeof(text)))
		return 0;
	while ((line = strsep(&rest, "\n"))) {
		at = strstr(line, "]: ");
		if (!at || strncmp(line, "unpin: ", 7) || strncmp(at + 3, label, strlen(label)))
			continue;
		at += 3 + strlen(label);
		if (strncmp(at, ": ", 2))
			continue;
		lines++;
		*number += strtoull(at + 2, &at, 10);
		*bytes += strtoull(at + 2, NULL, 10);
	}
	return lines;
}

static void expect(const char *label, u64 lines, u64 want_number, u64 want_bytes)
{
	u64 number, bytes, got = summed(label, &number, &bytes);

	if (got == lines && number == want_number && bytes == want_bytes)
		return;
	system("sed 's/^/# /' " SUMMARY);
	t_diag("'%s': %llu lines, %llu, %llu bytes", label, (unsigned long long)got,
	       (unsigned long long)number, (unsigned long long)bytes);
	t_check(false, "expected: %llu, %llu, %llu", (unsigned long long)lines,
		(unsigned long long)want_number, (unsigned long long)want_bytes);
}

/* All that there was, in one process, became this. */
static void expect_all(const char *label, u64 number, u64 bytes)
{
	expect("registrations", 1, number, bytes);
	expect(label, 1, number, bytes);
}

struct entry {
	const char *name;
	const char *how;
	const char *options;
	bool missed;
};

static const struct entry entries[] = {
	{ "ibv_reg_mr()", "reg_mr", "", false },
	{ "ibv_reg_mr() with an optional right", "reg_mr-flag", "", false },
	{ "a pointer to ibv_reg_mr()", "reg_mr-pointer", "", false },
	{ "ibv_reg_mr_iova()", "iova", "", false },
	{ "ibv_reg_mr_iova2()", "iova2", "", false },
	{ "dlsym() of ibv_reg_mr()", "dlsym-reg_mr", "--dlsym", false },
	{ "dlsym() of ibv_reg_mr_iova()", "dlsym-iova", "--dlsym", false },
	{ "dlsym() of ibv_reg_mr_iova2()", "dlsym-iova2", "--dlsym", false },
	{ "dlsym() of ibv_reg_mr_iova2(), without --dlsym", "dlsym-iova2", "", true },
};

static void entry(const void *arg)
{
	const struct entry *e = arg;
	char under[256], what[64];

	/* the control: one is enough, as all end in one */
	if (e == entries)
		run("", "entry reg_mr pinned");
	snprintf(under, sizeof(under), RUN "%s", e->options);
	if (e->missed) {
		/* what the program misses, others of it do not */
		snprintf(what, sizeof(what), "sizes %lu 0", LEN);
		run(under, what);
		return;
	}
	snprintf(what, sizeof(what), "entry %s not", e->how);
	run(under, what);
	expect_all(ON_DEMAND, 2, 2 * LEN - 1);
}

/* The library by itself only completes ibv_advise_mr(). */
static void by_itself(const void *arg)
{
	run("env LD_PRELOAD=$BUILD/libunpin.so UNPIN_SUMMARY=" SUMMARY, "entry iova2 pinned");
	t_check(access(SUMMARY, F_OK), "a summary of what was not asked for");
}

static void min_size(const void *arg)
{
	run(RUN "-m 64K", "sizes 65536 64");
	expect("registrations", 1, 2, 2 * SMALL - 1);
	expect(ON_DEMAND, 1, 1, SMALL);
	expect(TOO_SMALL, 1, 1, SMALL - 1);
}

static void exclude(const void *arg)
{
	run(RUN "-x mlx5_0,rx*", "sizes 65536 128");
	expect(EXCLUDED, 1, 2, 2 * SMALL - 1);
	run(RUN "-x mlx5_0 -x rxe0", "sizes 65536 128");
	expect(EXCLUDED, 1, 2, 2 * SMALL - 1);
	run(RUN "-x 'mlx5_*,rxe' -x rxe00", "sizes 65536 0");
	expect_all(ON_DEMAND, 2, 2 * SMALL - 1);
}

static void own(const void *arg)
{
	run(RUN, "own");
	expect("registrations", 1, 1, LEN);
	expect(ON_DEMAND, 1, 0, 0);
	expect(OWN, 1, 1, LEN);
}

/* The program has the same errors, of which there are several, and the same successes. */
static void bad_addresses(const void *arg)
{
	static char bare[4096], under[4096];
	const char *at;
	int failures = 0;

	run("", "bad");
	t_check(t_read_file(PRINTED, bare, sizeof(bare)), PRINTED);
	run(RUN, "bad");
	t_check(t_read_file(PRINTED, under, sizeof(under)), PRINTED);
	for (at = bare; (at = strstr(at, ": E")); at++)
		failures++;
	t_diag("%d of them fail", failures);
	t_check(failures >= 9, "bad addresses are no longer refused:\n%s", bare);
	t_check(!strcmp(bare, under), "bare:\n%sunder unpin:\n%s", bare, under);
}

/* Nor when there is less to look at. */
static void bad_unseen(const void *arg)
{
	static char bare[4096], under[4096];

	run("", "bad-thread");
	t_check(t_read_file(PRINTED, bare, sizeof(bare)), PRINTED);
	run(RUN, "bad-thread");
	t_check(t_read_file(PRINTED, under, sizeof(under)), PRINTED);
	t_check(strstr(bare, "all: E") && !strcmp(bare, under), "bare:\n%sunder unpin:\n%s",
		bare, under);
	run("", "bad-blind");
	run(RUN, "bad-blind");
	expect(ON_DEMAND, 1, 1, LEN);
}

static void bad_are_counted(const void *arg)
{
	u64 number, bytes;

	run(RUN, "bad");
	t_check(summed(NOT_MEMORY, &number, &bytes) == 1 && number,
		"what is not memory is not counted");
	t_check(summed("failed", &number, &bytes) == 1 && number >= 9, "%llu failed",
		(unsigned long long)number);
}

/* One summary for each process that registers, and one that has nothing to say. */
static void forks(const void *arg)
{
	run(RUN, "fork");
	expect("registrations", 3, 1 + 1 + 2, T_PAGE + 3 * LEN);
	expect(ON_DEMAND, 3, 1 + 1 + 2, T_PAGE + 3 * LEN);
}

static void threads(const void *arg)
{
	u64 all = THREADS * ROUNDS + CHILDREN;

	run(RUN, "threads");
	expect("registrations", 1 + CHILDREN, all, all * T_PAGE);
	expect(ON_DEMAND, 1 + CHILDREN, all, all * T_PAGE);
}

static void cancels(const void *arg)
{
	run("", "cancel");
	run(RUN "-v -m 64K", "cancel");
	expect(TOO_SMALL, 1, 1, T_PAGE);
	run(RUN, "cancel");
	expect_all(ON_DEMAND, 1, T_PAGE);
}

static void execs(const void *arg)
{
	run(RUN, "exec 65536 0");
	expect_all(ON_DEMAND, 2, 2 * SMALL - 1);
	/* a child that is another program, of a parent that only waits */
	run(RUN "sh -c '\"$@\"; exit $?' sh", "sizes 65536 0");
	expect_all(ON_DEMAND, 2, 2 * SMALL - 1);
}

static void fork_init(const void *arg)
{
	run("", "forkinit taken");
	run(RUN, "forkinit kept");
}

static void lacks_operations(const void *arg)
{
	run(RUN, "caps reads");
	expect(ON_DEMAND, 1, 1, T_PAGE);
	expect(TRANSPORT, 1, 1, LEN);
	run(RUN, "caps no-reads");
	expect(ON_DEMAND, 1, 0, 0);
	expect(TRANSPORT, 1, 2, LEN + T_PAGE);
	run(RUN, "caps no-srq");
	expect(TRANSPORT, 1, 2, LEN + T_PAGE);
}

static void transports(const void *arg)
{
	run(RUN "-t rc,ud", "sizes 65536 0");
	expect_all(ON_DEMAND, 2, 2 * SMALL - 1);
	/* no device says that it can do UC on demand */
	run(RUN "--transport=uc", "sizes 65536 128");
	expect(TRANSPORT, 1, 2, 2 * SMALL - 1);
}

static void reopened(const void *arg)
{
	run(RUN, "reopen");
	expect("registrations", 1, 10, 10 * T_PAGE);
	expect(ON_DEMAND, 1, 5, 5 * T_PAGE);
	expect(NO_ODP, 1, 5, 5 * T_PAGE);
}

static void unseen(const void *arg)
{
	run(RUN "-x other0", "unseen");
	expect(ON_DEMAND, 1, 1, LEN);
	expect(EXCLUDED, 1, UNSEEN, UNSEEN * T_PAGE);
}

static void prefetches(const void *arg)
{
	run(RUN, "prefetch missing");
	run(RUN "--prefetch=wait", "prefetch there");
}

static void prefetches_large(const void *arg)
{
	run(RUN "--prefetch=wait", "prefetch-large");
	expect_all(ON_DEMAND, 1, LARGE);
	expect("not prefetched", 0, 0, 0);
}

static void unprivileged(const void *arg)
{
	run("", "nobody refused");
	run("unpin run -s", "nobody allowed");
}

static void summary_on_stderr(const void *arg)
{
	char text[4096];

	run("unpin run -s", "sizes 65536 0");
	t_check(t_read_file(SAID, text, sizeof(text)), SAID);
	t_check(strstr(text, "registrations: 2, 131071 bytes\n"), "no summary: %s", text);
	run("unpin run -s -v", "daemon " SUMMARY);
	t_check(t_read_file(SUMMARY, text, sizeof(text)) && !*text,
		"a file of the program got: %s", text);
	run("unpin run", "sizes 65536 0");
	t_check(t_read_file(SAID, text, sizeof(text)) && !*text, "it says: %s", text);
}

static void verbose(const void *arg)
{
	char text[4096];

	run("unpin run -v -m 64K", "sizes 65536 64");
	t_check(t_read_file(SAID, text, sizeof(text)), SAID);
	t_check(strstr(text, "]: 65535 bytes: below the minimum size\n") &&
		strchr(text, '\n') == strrchr(text, '\n'), "it says: %s", text);
}

/* ---- a device without ---- */

static void as_before(const void *arg)
{
	run(RUN, "entry iova2 pinned");
	expect("registrations", 1, 2, 2 * LEN - 1);
	expect(ON_DEMAND, 1, 0, 0);
	expect(NO_ODP, 1, 2, 2 * LEN - 1);
	run(RUN "--dlsym -p", "entry dlsym-iova2 pinned");
	expect(NO_ODP, 1, 2, 2 * LEN - 1);
}

static void one_line(const void *arg)
{
	char text[4096];

	run("unpin run -v", "entry reg_mr pinned");
	t_check(t_read_file(SAID, text, sizeof(text)), SAID);
	t_check(strstr(text, "]: rxe0: the device has no on-demand paging: ") &&
		strchr(text, '\n') == strrchr(text, '\n'), "it says: %s", text);
}

static void refused(const void *arg)
{
	run(RUN, "claim");
	expect("registrations", 1, 1, LEN);
	expect(ON_DEMAND, 1, 0, 0);
	expect(REFUSED, 1, 1, LEN);
}

static struct t_case cases[T_ARRAY_SIZE(entries) + 40];
static size_t n_cases;

static void add(const char *name, unsigned int modes, void (*run)(const void *arg),
		const void *arg)
{
	cases[n_cases++] = (struct t_case){ name, modes, run, arg };
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc > 2 && is_word(argv[1], "--do"))
		return act(argv + 2);

	for (i = 0; i < T_ARRAY_SIZE(entries); i++)
		add(entries[i].name, T_ODP, entry, &entries[i]);
	add("the library by itself pins as before", T_ODP, by_itself, NULL);
	add("minimum size", T_ODP, min_size, NULL);
	add("excluded devices", T_ODP, exclude, NULL);
	add("a program that asks for it itself", T_ODP, own, NULL);
	add("bad addresses have the same errors", T_BOTH, bad_addresses, NULL);
	add("bad addresses, from where they are hard to see", T_ODP, bad_unseen, NULL);
	add("bad addresses are counted", T_ODP, bad_are_counted, NULL);
	add("fork", T_ODP, forks, NULL);
	add("fork while threads register", T_ODP, threads, NULL);
	add("a thread that is cancelled", T_ODP, cancels, NULL);
	add("exec", T_ODP, execs, NULL);
	add("ibv_fork_init()", T_ODP, fork_init, NULL);
	add("a device that lacks operations", T_ODP, lacks_operations, NULL);
	add("transports", T_ODP, transports, NULL);
	add("a device that is closed is forgotten", T_ODP, reopened, NULL);
	add("a device that is closed unseen is another", T_ODP, unseen, NULL);
	add("prefetch", T_ODP, prefetches, NULL);
	add("prefetch of more than 4 GiB", T_ODP, prefetches_large, NULL);
	add("nobody, without a right to lock memory", T_ODP, unprivileged, NULL);
	add("the summary on standard error", T_ODP, summary_on_stderr, NULL);
	add("verbose", T_ODP, verbose, NULL);
	add("a device without: as before", T_PINNED, as_before, NULL);
	add("a device without: one line, if asked", T_PINNED, one_line, NULL);
	add("a device that refuses: as asked", T_PINNED, refused, NULL);
	return t_main(argc, argv, cases, n_cases);
}
