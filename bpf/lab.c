// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packets of a scenario, by probes on functions. Hooks nothing and emits nothing: what a live
 * trace has beside these (live.c) is left out.
 */

static __always_inline void fill_record(struct record *record, u64 skb)
{
}

static __always_inline void on_dev(u64 dev, u32 netns, u32 ifindex)
{
}

static __always_inline void on_packet(u64 skb, struct packet *packet)
{
}

static __always_inline void on_sent(void)
{
}

static __always_inline void on_chain_name(u64 chain, u64 skb, struct packet *packet)
{
}

static __always_inline bool filter_matches(u64 skb)
{
	return 0;
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
