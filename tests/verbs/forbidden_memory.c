// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Memory that a device must not touch: registering or accessing it is an
 * error, never a crash and never a changed byte. Secret memory is not in the
 * kernel's own mapping; I/O mappings have no pages to copy from; a shadow stack
 * is not written by anyone but the CPU; a stack is not grown by a peer.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "t.h"

#define SYS_memfd_secret_	447
#define SYS_map_shadow_stack_	453
#define USER_MODE_ONLY		1

#define LEN	(4 * T_PAGE)

/* A pair and a scratch buffer; the region is what may not be registered. */
static void open_pair(struct t_region *r)
{
	t_pair_open(&r->pair, NULL);
	t_buf_alloc(&r->scratch, 0, LEN);
	t_reg_pinned(&r->scratch, &r->pair.dev);
}

/* Refused when it is registered or, if that goes, whenever it is used. */
static void nobody_gets_in(struct t_region *r, void *p, size_t len)
{
	t_buf_wrap(&r->buf, p, len);
	r->buf.mr = t_try_reg(&r->pair.dev, p, len, T_REMOTE);
	if (!r->buf.mr) {
		t_diag("refused at registration: %s", strerror(errno));
		return;
	}
	t_region_refuses_read(r, 0, 64);
	t_region_refuses_write(r, 0, 64);
	t_region_refuses_read(r, 5, T_PAGE - 5);
}

static u8 *secret_memory(void)
{
	int fd = syscall(SYS_memfd_secret_, O_CLOEXEC);

	if (fd < 0 && errno == ENOSYS)
		t_die("this kernel has no memfd_secret");
	t_check(fd >= 0 && !ftruncate(fd, LEN), "memfd_secret: %s", strerror(errno));
	return t_map(LEN, MAP_SHARED, fd);
}

static void secret(const void *arg)
{
	u8 *p = secret_memory();
	struct t_region r;

	(void)arg;
	open_pair(&r);
	t_fill(p, LEN, 12);
	nobody_gets_in(&r, p, LEN);
	t_check(t_matches(p, LEN, 12), "secret memory was changed");
}

static void secret_untouched(const void *arg)
{
	u8 *p = secret_memory();
	struct t_region r;

	(void)arg;
	open_pair(&r);
	nobody_gets_in(&r, p, LEN);
	t_check(t_all_zero(p, LEN), "secret memory was changed");
}

/* Secret memory takes the place of what was registered and in use. */
static void secret_put_there(const void *arg)
{
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u8 *secret = secret_memory();
	struct t_region r;

	(void)arg;
	t_region_open(&r, p, LEN);
	t_region_exchange(&r, 0, LEN);
	t_fill(secret, LEN, 12);
	t_check(mremap(secret, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p,
		"mremap: %s", strerror(errno));
	t_region_refuses_read(&r, 0, 64);
	t_region_refuses_write(&r, T_PAGE, 64);
	t_check(t_matches(p, LEN, 12), "secret memory was changed");
	t_check(mmap(p, LEN, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p, "mmap");
	t_region_exchange(&r, 0, LEN);
}

static void *map_resource(const char *path, size_t *len)
{
	struct stat st;
	void *p;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) || st.st_size < (off_t)T_PAGE) {
		close(fd);
		return NULL;
	}
	*len = T_PAGE;
	p = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static void *any_pci_memory(size_t *len)
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	struct dirent *e;
	char path[512];
	void *p = NULL;
	int bar;

	while (dir && !p && (e = readdir(dir))) {
		for (bar = 0; bar < 6 && !p; bar++) {
			snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%d",
				 e->d_name, bar);
			p = map_resource(path, len);
		}
	}
	if (dir)
		closedir(dir);
	return p;
}

static void pci_memory(const void *arg)
{
	struct t_region r;
	size_t len;
	void *p;

	(void)arg;
	p = any_pci_memory(&len);
	t_check(p, "no PCI device has memory to map");
	open_pair(&r);
	nobody_gets_in(&r, p, len);
}

/* Pages that the kernel could find, mapped as if they were a device's. */
static void firmware_memory(const void *arg)
{
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	struct t_region r;
	void *p;

	(void)arg;
	t_check(fd >= 0, "/dev/mem: %s", strerror(errno));
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xf0000);
	t_check(p != MAP_FAILED, "mmap of /dev/mem: %s", strerror(errno));
	open_pair(&r);
	nobody_gets_in(&r, p, LEN);
}

/* The start of the mapping whose name is given, or 0. */
static uintptr_t named_mapping(const char *name, size_t *len)
{
	FILE *f = fopen("/proc/self/maps", "re");
	uintptr_t start, end, found = 0;
	char line[512];

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2 ||
		    !strstr(line, name))
			continue;
		found = start;
		*len = end - start;
	}
	if (f)
		fclose(f);
	return found;
}

static void kernel_data_page(const void *arg)
{
	struct t_region r;
	uintptr_t vvar;
	size_t len;

	(void)arg;
	vvar = named_mapping("[vvar]", &len);
	t_check(vvar, "no [vvar]");
	open_pair(&r);
	nobody_gets_in(&r, (void *)vvar, T_PAGE);
}

static void no_access(const void *arg)
{
	u8 *p = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct t_region r;

	(void)arg;
	t_check(p != MAP_FAILED, "mmap: %s", strerror(errno));
	open_pair(&r);
	nobody_gets_in(&r, p, LEN);
	t_check(!t_page_present(p), "a page was brought in");
}

/* A peer's access just below the stack neither works nor grows it. */
static void below_the_stack(const void *arg)
{
	struct t_region r;
	uintptr_t stack;
	size_t len, before;

	(void)arg;
	stack = named_mapping("[stack]", &before);
	t_check(stack, "no [stack]");
	open_pair(&r);
	nobody_gets_in(&r, (void *)(stack - 16 * T_PAGE), 16 * T_PAGE);
	named_mapping("[stack]", &len);
	t_check(len == before, "the stack grew from %zu to %zu", before, len);
}

static void shadow_stack(const void *arg)
{
	long p = syscall(SYS_map_shadow_stack_, 0UL, T_PAGE, 0U);
	struct t_region r;

	(void)arg;
	if (p == -1)
		t_skip("no shadow stacks on this CPU");
	open_pair(&r);
	nobody_gets_in(&r, (void *)p, T_PAGE);
	t_check(t_all_zero((void *)p, T_PAGE), "a shadow stack was changed");
}

/*
 * A userfaultfd for user mode only never serves the kernel: such memory cannot
 * be had until the CPU has touched it.
 */
static void user_mode_only(const void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
	u8 *p = t_map(LEN, MAP_PRIVATE | MAP_ANONYMOUS, -1), page[T_PAGE];
	struct t_region r;

	(void)arg;
	t_check(fd >= 0 && !ioctl(fd, UFFDIO_API, &api), "userfaultfd: %s", strerror(errno));
	t_region_open(&r, p, LEN);
	t_uffd_watch(fd, p, LEN);
	t_region_refuses_read(&r, 0, 64);
	t_region_refuses_write(&r, 0, 64);
	t_fill(page, T_PAGE, 4);
	t_uffd_serve(fd, (uintptr_t)p, page);
	t_region_read(&r, 0, T_PAGE, 4);
	t_region_exchange(&r, 0, T_PAGE);
}

static const struct t_case cases[] = {
	{ "secret memory", T_BOTH, secret, NULL },
	{ "secret memory that nobody has touched", T_BOTH, secret_untouched, NULL },
	{ "secret memory in the place of what was registered", T_ODP, secret_put_there, NULL },
	{ "memory of a PCI device", T_BOTH, pci_memory, NULL },
	{ "firmware memory through /dev/mem", T_BOTH, firmware_memory, NULL },
	{ "the kernel's data page", T_BOTH, kernel_data_page, NULL },
	{ "memory without any right", T_BOTH, no_access, NULL },
	{ "below the stack", T_BOTH, below_the_stack, NULL },
	{ "shadow stack", T_BOTH, shadow_stack, NULL },
	{ "a userfaultfd for user mode only", T_ODP, user_mode_only, NULL },
};

int main(int argc, char **argv)
{
	return t_main(argc, argv, cases, T_ARRAY_SIZE(cases));
}
