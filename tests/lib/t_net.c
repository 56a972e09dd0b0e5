// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Reading the counters, and holding those of on-demand memory against pinned memory's. */
#include "t_net.h"

/* The last says how much there was of it. */
static const char * const names[T_NET] = {
	"duplicate_request", "out_of_seq_request", "rcvd_rnr_err", "send_rnr_err",
	"rcvd_seq_err", "retry_exceeded_err", "retry_rnr_exceeded_err",
	"completer_retry_err", "send_err", "sent_pkts",
};

void t_net_read(struct t_net *net)
{
	size_t i;

	for (i = 0; i < T_NET; i++)
		net->n[i] = t_device_count(names[i]);
}

void t_net_since(struct t_net *net, const struct t_net *before)
{
	size_t i;

	for (i = 0; i < T_NET; i++)
		net->n[i] -= before->n[i];
}

void t_net_show(const struct t_net *net, const char *whose)
{
	size_t i;

	for (i = 0; i < T_NET; i++) {
		if (net->n[i])
			t_diag("%s%s: %ld", whose, names[i], (long)net->n[i]);
	}
}

/* What pinned transfers cost is what the network costs. */
bool t_net_no_more(const struct t_net *odp, const struct t_net *pinned, const char *whose)
{
	bool none = true;
	size_t i;

	for (i = 0; i < T_NET; i++) {
		if (pinned->n[i] || odp->n[i])
			t_diag("%s%s: %ld pinned, %ld on demand", whose, names[i],
			       (long)pinned->n[i], (long)odp->n[i]);
		none &= odp->n[i] <= pinned->n[i];
	}
	return none;
}
