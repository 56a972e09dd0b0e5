#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What pinned and on-demand regions both pass, on regions that did not ask.

exec tests/group switched
