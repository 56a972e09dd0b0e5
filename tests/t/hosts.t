#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# On-demand memory here, the kernel's own rxe in another guest.

exec tests/group hosts
