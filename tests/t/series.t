#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The patch series applies to every kernel that Debian offers.

exec ci/series-check
