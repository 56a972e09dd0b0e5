#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A peer that sends what it must not.

exec tests/group wire
