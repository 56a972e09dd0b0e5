/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Memory whose pages take seconds to come: from a userfaultfd's handler, or from a swap
 * disk behind dm-delay.
 */
#ifndef UNPIN_TESTS_T_SLOW_H
#define UNPIN_TESTS_T_SLOW_H

#include "t.h"

/*
 * A handler, and the faults that wait for it, each until it is due. The memory is made
 * of pieces of @stride bytes, each with the pattern of @round.
 */
struct t_slow {
	int uffd;
	unsigned int ms;
	u8 *base;
	size_t stride;
	u64 round;
	unsigned int n;
	u64 address[64];
	u64 due[64];
};

void t_slow_open(struct t_slow *s, size_t stride, unsigned int pieces);
void t_slow_take(struct t_slow *s, int ms);
void t_slow_serve(struct t_slow *s);

void t_slow_swap_open(unsigned int ms);
void t_slow_swap_close(void);
void t_slow_swap_hold(void);
void t_slow_swap_release(void);
u8 *t_slow_swap_map(size_t stride, unsigned int pieces, u64 round);
void t_slow_swap_evict(const char *group, u8 *p, size_t len);

#endif
