#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A registered buffer larger than the guest's memory.

exec tests/group swap
