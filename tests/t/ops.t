#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Every operation and every call on on-demand regions.

exec tests/group ops
