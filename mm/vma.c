// SPDX-License-Identifier: GPL-2.0
/*
 * May a device use this mapping?  The one place that answers.  HMM refuses less
 * than get_user_pages() does, so what check_vma_flags() of mm/gup.c knows and
 * hmm_vma_walk_test() does not is said here.
 */

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>

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
