// SPDX-License-Identifier: GPL-2.0
/*
 * May a device use this mapping?  The one place that answers.  HMM refuses less
 * than get_user_pages() does, so what check_vma_flags() of mm/gup.c knows and
 * hmm_vma_walk_test() does not is said here.
 *
 * vma_check() answers for a fault, when it counts.  mm_mirror_admits() answers
 * beforehand, for whoever could pin the memory instead.
 */

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/userfaultfd_k.h>

#include "internal.h"

/*
 * memfd_secret() memory is not in the kernel's direct map: a copy would oops.
 * Neither vma_is_secretmem() nor its address space operations are exported.
 */
static bool vma_secret(const struct vm_area_struct *vma)
{
	return vma->vm_file &&
	       file_inode(vma->vm_file)->i_sb->s_magic == SECRETMEM_MAGIC;
}

/*
 * Returns 0 or -EFAULT.  The caller holds mmap_lock from here until it has the
 * pages, since the answer is only good for that long.
 */
int vma_check(struct vm_area_struct *vma, bool write)
{
	vm_flags_t want = VM_READ | (write ? VM_WRITE : 0);

	mmap_assert_locked(vma->vm_mm);

	/* registers and memory without struct page are not ours to copy */
	if (vma->vm_flags & (VM_IO | VM_PFNMAP))
		return -EFAULT;
	/* pte_write() is true for a shadow stack: its return addresses would do */
	if (vma->vm_flags & VM_SHADOW_STACK)
		return -EFAULT;
	if (vma_secret(vma))
		return -EFAULT;
	return (vma->vm_flags & want) == want ? 0 : -EFAULT;
}

/* The last page of a file is there as a whole; beyond it the CPU gets SIGBUS. */
static bool vma_ends_before(const struct vm_area_struct *vma, unsigned long last)
{
	const struct inode *host;
	unsigned long page;

	if (!vma->vm_file)
		return false;
	host = vma->vm_file->f_mapping->host;
	/* what others have for a size means nothing */
	if (!S_ISREG(host->i_mode) && !S_ISBLK(host->i_mode))
		return false;
	page = vma->vm_pgoff + ((last - vma->vm_start) >> PAGE_SHIFT);
	return page >= DIV_ROUND_UP(i_size_read(host), PAGE_SIZE);
}

/* Would a page that is missing be an error, because no handler hears of it? */
static bool vma_handler_deaf(const struct vm_area_struct *vma)
{
#ifdef CONFIG_USERFAULTFD
	const struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && ((ctx->flags & UFFD_USER_MODE_ONLY) ||
		       (READ_ONCE(ctx->features) & UFFD_FEATURE_SIGBUS));
#else
	return false;
#endif
}

/* The part of a mapping up to @last, which is in it. */
static enum mm_mirror_answer vma_admits(struct vm_area_struct *vma,
					unsigned long last, bool write)
{
	if (!(vma->vm_flags & (write ? VM_WRITE : VM_READ)) ||
	    !arch_vma_access_permitted(vma, write, false, false) ||
	    vma_ends_before(vma, last))
		return MM_MIRROR_UNMAPPED;
	/* where some entries may be special, of which only a fault knows */
	if (vma_check(vma, write) ||
	    ((vma->vm_flags & VM_MIXEDMAP) && !vma_is_dax(vma)))
		return MM_MIRROR_UNFIT;
	if (vma_handler_deaf(vma))
		return MM_MIRROR_UNHEARD;
	return MM_MIRROR_ADMITTED;
}

static enum mm_mirror_answer range_admits(struct mm_struct *mm,
					  unsigned long start,
					  unsigned long last, bool write)
{
	enum mm_mirror_answer answer;
	struct vm_area_struct *vma;
	unsigned long addr = start;

	mmap_assert_locked(mm);

	do {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start > addr)
			return MM_MIRROR_UNMAPPED;
		answer = vma_admits(vma, min(last, vma->vm_end - 1), write);
		if (answer != MM_MIRROR_ADMITTED)
			return answer;
		addr = vma->vm_end;
		cond_resched();
	} while (addr <= last);
	return MM_MIRROR_ADMITTED;
}

/**
 * mm_mirror_admits - would a device be let in everywhere, as things are now?
 * @start: first address, of the current process
 * @length: bytes, not 0; the range does not wrap
 * @write: for writing
 *
 * Looks at mappings and at no page, so it costs time by their number. What it says
 * is true no longer than that: a fault asks again. It is for a client that would
 * rather refuse, or pin, when it is handed memory than fail when it uses it; so
 * it looks at protection keys too, which are the calling thread's.
 *
 * Context: process context; takes mmap_lock for reading; may sleep.
 *
 * Return: MM_MIRROR_ADMITTED, or why not, for the first address that is not.
 */
enum mm_mirror_answer mm_mirror_admits(unsigned long start, size_t length,
				       bool write)
{
	struct mm_struct *mm = current->mm;
	enum mm_mirror_answer answer;

	if (!mm)
		return MM_MIRROR_UNMAPPED;
	mmap_read_lock(mm);
	answer = range_admits(mm, start, start + length - 1, write);
	mmap_read_unlock(mm);
	return answer;
}
EXPORT_SYMBOL_GPL(mm_mirror_admits);
