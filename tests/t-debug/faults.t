#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Each allocation fails in turn, which only a debug kernel can be told.

exec tests/group faults
