#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The windows in which a missing protection does harm, held open (debug build).

exec tests/group windows
