#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# rdma-core's own tests, unchanged: on-demand paging, and the pinned traffic that
# has to work as it does on the kernel's own rxe.

exec tests/group pyverbs
