// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A userfaultfd on missing pages: faults that wait until a test serves them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "t.h"

/* Without UFFD_USER_MODE_ONLY: the kernel's own faults wait too. */
int t_uffd_open(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		t_die("userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		t_die("UFFDIO_API: %s", strerror(errno));
	return fd;
}

void t_uffd_watch(int uffd, void *p, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		t_die("UFFDIO_REGISTER: %s", strerror(errno));
}

/* A fault is waiting: its page address. */
bool t_uffd_wait(int uffd, int ms, u64 *address)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };
	u64 end = t_now_ms() + ms;
	struct uffd_msg msg;

	while (t_now_ms() < end) {
		if (poll(&pfd, 1, 50) <= 0)
			continue;
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		*address = msg.arg.pagefault.address & ~(T_PAGE - 1);
		return true;
	}
	return false;
}

void t_uffd_serve(int uffd, u64 address, const void *page)
{
	struct uffdio_copy copy = {
		.dst = address, .src = (uintptr_t)page, .len = T_PAGE,
	};

	if (ioctl(uffd, UFFDIO_COPY, &copy) && errno != EEXIST)
		t_die("UFFDIO_COPY: %s", strerror(errno));
}
