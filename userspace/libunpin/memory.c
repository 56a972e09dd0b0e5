// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Pinning finds out at once that there is no memory, or none that may be written to,
 * and programs rely on the error that they get; on demand it would show at the first
 * access. So mappings are looked at, not faulted: what does not look right is for the
 * kernel to judge, by registering it as asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libunpin.h"

/* From Linux 6.11 on, in <linux/fs.h>. */
#ifndef PROCMAP_QUERY
#define PROCMAP_QUERY	_IOWR('f', 17, struct procmap_query)
#define PROCMAP_QUERY_VMA_READABLE	1
#define PROCMAP_QUERY_VMA_WRITABLE	2

struct procmap_query {
	__u64 size;
	__u64 query_flags;
	__u64 query_addr;
	__u64 vma_start;
	__u64 vma_end;
	__u64 vma_flags;
	__u64 vma_page_size;
	__u64 vma_offset;
	__u64 inode;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 vma_name_size;
	__u32 build_id_size;
	__u64 vma_name_addr;
	__u64 build_id_addr;
};
#endif

/* The kernel's ib_access_writable(). */
#define WRITABLE	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
			 IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND)

/*
 * Registers of a device, say, which pinning knows how to refuse, or has a way for. Only
 * those that are files of /dev or /sys are known: not what VFIO or a dma-buf maps, nor
 * /proc/bus/pci.
 */
static bool is_device(const struct procmap_query *vma)
{
	dev_t dev = makedev(vma->dev_major, vma->dev_minor);
	struct stat node;

	if (!vma->inode)
		return false;
	return (!stat("/dev/null", &node) && node.st_dev == dev) ||
	       (!stat("/sys", &node) && node.st_dev == dev);
}

/* 1 if they are all there, 0 if not, -1 if this kernel does not say. */
static int mappings_allow(int maps, uintptr_t at, uintptr_t end, unsigned int need)
{
	while (at < end) {
		struct procmap_query vma = { .size = sizeof(vma), .query_addr = at };

		if (ioctl(maps, PROCMAP_QUERY, &vma))
			return errno == ENOENT ? 0 : -1;
		if ((vma.vma_flags & need) != need || is_device(&vma))
			return 0;
		at = vma.vma_end;
	}
	return 1;
}

/* msync() that starts nothing goes over the mappings, and says if one is missing. */
static bool is_mapped(uintptr_t start, uintptr_t end)
{
	uintptr_t page = getpagesize();

	start &= ~(page - 1);
	return !msync((void *)start, end - start, MS_ASYNC);
}

bool unpin_memory_allows(const void *addr, size_t length, unsigned int access)
{
	unsigned int need = PROCMAP_QUERY_VMA_READABLE;
	uintptr_t start = (uintptr_t)addr, end;
	int maps, allowed = -1;

	/* nothing is in the last page, and rounding up would wrap */
	if (!length || __builtin_add_overflow(start, length, &end) ||
	    end > -(uintptr_t)getpagesize())
		return false;
	if (access & WRITABLE)
		need |= PROCMAP_QUERY_VMA_WRITABLE;
	/* of this thread: when the first has ended, the process's has nothing in it */
	maps = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	if (maps >= 0) {
		allowed = mappings_allow(maps, start, end, need);
		close(maps);
	}
	return allowed < 0 ? is_mapped(start, end) : allowed;
}
