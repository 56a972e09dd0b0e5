/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a network would have had to do with: some of the hardware counters of a device. */
#ifndef UNPIN_TESTS_T_NET_H
#define UNPIN_TESTS_T_NET_H

#include "t.h"

#define T_NET		10
#define T_NET_SEND_ERR	8

struct t_net {
	s64 n[T_NET];
};

void t_net_read(struct t_net *net);
void t_net_since(struct t_net *net, const struct t_net *before);
void t_net_show(const struct t_net *net, const char *whose);
bool t_net_no_more(const struct t_net *odp, const struct t_net *pinned, const char *whose);

#endif
