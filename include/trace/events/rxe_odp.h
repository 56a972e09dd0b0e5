/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the switch on_demand_mr of rdma_rxe makes of a registration.  The task is who
 * registers.  Documentation/transparent.md has the outcomes.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM rxe_odp

#if !defined(_TRACE_RXE_ODP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_RXE_ODP_H

#include <linux/tracepoint.h>

/*
 * outcome is "unasked" for a region that became on-demand, else why it is to be
 * pinned; whether that went well is not known yet.
 */
TRACE_EVENT(rxe_odp_switch,

	TP_PROTO(const char *device, u64 start, u64 length, int access,
		 const char *outcome),

	TP_ARGS(device, start, length, access, outcome),

	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, start)
		__field(u64, length)
		__field(int, access)
		__string(outcome, outcome)
	),

	TP_fast_assign(
		__assign_str(device);
		__entry->start = start;
		__entry->length = length;
		__entry->access = access;
		__assign_str(outcome);
	),

	TP_printk("device=%s start=%#llx length=%llu access=%#x outcome=%s",
		  __get_str(device), __entry->start, __entry->length,
		  __entry->access, __get_str(outcome))
);

#endif /* _TRACE_RXE_ODP_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
