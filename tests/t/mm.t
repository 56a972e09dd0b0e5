#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The core by itself, through the engine of samples/mm_mirror.

exec tests/group mm
