#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The verbs suite on our modules, on-demand regions.

exec tests/group verbs
