// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packets of a scenario, by probes on functions. Hooks nothing and emits nothing: what only a
 * live trace (live.c) or tracepoints have is left out.
 */

static __always_inline void fill_record(struct record *record, u64 skb)
{
}

static __always_inline void on_sent(void)
{
}

static __always_inline void emit_stack(void *ctx, u16 function, u64 skb, struct packet *packet)
{
}

static __always_inline void emit_gone(u64 skb, struct packet *packet)
{
}

static __always_inline void emit_return(struct call *call, struct packet *packet, u64 value)
{
	emit(EVENT_RETURN, call->function, call->skb, packet, value, 0);
}

static __always_inline u64 chain_detail(u64 chain)
{
	return 0;
}
