#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The verbs suite on our modules, pinned regions: the control.

exec tests/group pinned
