#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The modules build for arm64 with pages of 4 and of 16 KiB, and mm/ in the kernel's
# own tree; on i386 Kconfig refuses mm_mirror and the header checks its callers.

exec ci/arch
