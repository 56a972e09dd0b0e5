#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The verbs suite on the kernel's own rxe: the control of the control.

exec tests/group stock
