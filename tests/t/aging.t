#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Memory that only devices use, and who asks whether they do (debug build).

exec tests/group aging
