// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packets of a scenario, by probes or tracepoints. Hooks nothing and emits nothing: the lab is
 * known, so devices, headers and the names of chains are not reported, and no packet but the lab's
 * is followed. A live trace has live.c in place of this.
 */

static __always_inline void on_dev(u64 dev, u32 netns, u32 ifindex)
{
}

static __always_inline void on_packet(u64 skb, struct packet *packet)
{
}

static __always_inline void on_chain_name(u64 chain, u64 skb, struct packet *packet)
{
}

static __always_inline bool filter_matches(u64 skb)
{
	return 0;
}
