// SPDX-License-Identifier: GPL-2.0-only
/*
 * Live traces: whatever packets match a filter, with their addresses, devices, routes and rules.
 *
 * Hooks beside what probes.c does: the return of nf_tables' expressions (on_return_eval). Emits
 * EVENT_FROM and EVENT_TO (addresses, when they are new), EVENT_STACK, EVENT_ROUTE, EVENT_VERDICT
 * and EVENT_TARGET (what a rule decided), EVENT_NAMED, EVENT_GONE; with SNAP defined, the first
 * bytes of the packet in each event.
 */

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

/* A rule, by one of its expressions; valid while the kernel still has both where they were. */
struct rule {
	u64 chain;
	u64 blob;
	u64 rule;
	u64 head;	/* the first word of the struct nft_rule_dp */
};
BPF_TABLE("lru_hash", u64, struct rule, rules, 8192);
BPF_PERCPU_ARRAY(scratch_rule, struct rule, 1);

/* Its size is set when it is loaded: 1 when no stacks are wanted. */
#define STACKS 16384
BPF_TABLE("stacktrace", int, struct bpf_stacktrace, stacks, STACKS);
BPF_ARRAY(with_stacks, u32, 1);

/* Names of the interfaces met; the key is the namespace's number << 32 | ifindex. */
struct dev_name {
	char text[16];
};
BPF_TABLE("lru_hash", u64, struct dev_name, dev_names, 4096);

/*
 * The linear data of an sk_buff as a pcap expression sees it: from an Ethernet header on, which is
 * made up from skb->protocol where the packet has none (yet).
 */
static __always_inline void view_packet(u64 skb, struct packet_view *view)
{
	u64 head = read_u64(skb + SKB_HEAD);
	u16 network = read_u16(skb + SKB_NETWORK), mac = read_u16(skb + SKB_MAC);
	u32 tail = read_u32(skb + SKB_TAIL), data = read_u64(skb + SKB_DATA) - head;

	view->network = head + network;
	view->linear = tail > network ? tail - network : 0;
	view->length = read_u32(skb + SKB_LEN) + data - network + ETH_HLEN;
	view->protocol = bpf_ntohs(read_u16(skb + SKB_PROTOCOL));
	view->ethernet = mac != 0xffff && mac + ETH_HLEN == network;
}

#ifdef SNAP
static __always_inline void fill_record(struct record *record, u64 skb)
{
	struct event *event = &record->event;
	struct packet_view view;
	u64 from, size;

	view_packet(skb, &view);
	from = view.ethernet ? view.network - ETH_HLEN : view.network;
	size = view.ethernet ? view.linear + ETH_HLEN : view.linear;
	/* Else what is compared is not the register that is used. */
	asm volatile("" : "+r"(size));
	if (size > SNAP)
		size = SNAP;
	event->length = view.ethernet ? view.length : view.length - ETH_HLEN;
	event->protocol = view.ethernet ? 0 : view.protocol;
	event->captured = bpf_probe_read_kernel(event->data, size, (void *)from) ? 0 : size;
}
#else
static __always_inline void fill_record(struct record *record, u64 skb)
{
}
#endif

/*
 * Whether the user's expression is true of a packet. This is no helper: its instructions are put in
 * place of each call before the program is loaded (harness/tracer/packet_filter.py).
 */
static u64 (*run_filter)(struct packet_view *view) = (void *)FILTER_CALL;

static __always_inline bool filter_matches(u64 skb)
{
	struct packet_view view = {};

	view_packet(skb, &view);
	return run_filter(&view);
}

static __always_inline bool has_ports(u32 protocol)
{
	return protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 ||
	       protocol == 136;
}

/* Emit a live packet's addresses when they are new: at birth, or changed by NAT and tunnels. */
static __always_inline void on_packet(u64 skb, struct packet *packet)
{
	u64 head, flow, from[2] = {}, to[2] = {};
	u32 ports = 0, next, length;
	u16 protocol;
	u8 first;

	if (!packet->live)
		return;
	head = read_u64(skb + SKB_HEAD) + read_u16(skb + SKB_NETWORK);
	protocol = bpf_ntohs(read_u16(skb + SKB_PROTOCOL));
	first = read_u8(head);
	if (protocol == ETH_P_IP && first >> 4 == 4) {
		bpf_probe_read_kernel(from, 4, (void *)(head + 12));
		bpf_probe_read_kernel(to, 4, (void *)(head + 16));
		next = read_u8(head + 9);
		/* Only the first fragment has ports. */
		length = bpf_ntohs(read_u16(head + 6)) & 0x1fff ? 0 : (first & 15) * 4;
	} else if (protocol == ETH_P_IPV6 && first >> 4 == 6) {
		bpf_probe_read_kernel(from, 16, (void *)(head + 8));
		bpf_probe_read_kernel(to, 16, (void *)(head + 24));
		next = read_u8(head + 6);
		length = 40;
	} else {
		return;
	}
	if (length && has_ports(next))
		ports = read_u32(head + length);
	flow = from[0] ^ from[1] * 3 ^ to[0] * 0x9e3779b97f4a7c15ULL ^ to[1] * 5 ^
	       (u64)ports << 17 ^ next << 8 ^ 1;
	if (flow == packet->flow)
		return;
	packet->flow = flow;
	next <<= PORT_PROTOCOL_SHIFT;
	emit_at(EVENT_FROM, protocol, skb, packet, from[0], from[1],
		next | bpf_ntohs(ports & 0xffff));
	emit_at(EVENT_TO, protocol, skb, packet, to[0], to[1], next | bpf_ntohs(ports >> 16));
}

static __always_inline void on_dev(u64 dev, u32 netns, u32 ifindex)
{
	u64 key = (u64)netns << 32 | ifindex;
	struct dev_name name = {};

	bpf_probe_read_kernel_str(name.text, sizeof(name.text), (void *)(dev + DEV_NAME));
	dev_names.update(&key, &name);
}

static __always_inline void on_sent(void)
{
}

static __always_inline void on_chain_name(u64 chain, u64 skb, struct packet *packet)
{
	emit(EVENT_NAMED, 0, skb, packet, chain, 0);
}

static __always_inline void emit_stack(void *ctx, u16 function, u64 skb, struct packet *packet)
{
	u32 zero = 0, *wanted = with_stacks.lookup(&zero);

	if (wanted && *wanted)
		emit(EVENT_STACK, function, skb, packet, (u32)stacks.get_stackid(ctx, 0), 0);
}

static __always_inline void emit_gone(u64 skb, struct packet *packet)
{
	if (packet->live)
		emit(EVENT_GONE, 0, skb, packet, 0, 0);
}

/* Priority of a base chain, above its hook and family. */
static __always_inline u64 chain_detail(u64 chain)
{
	return (u64)read_u32(chain - PRIORITY_BEFORE_CHAIN) << CHAIN_PRIORITY_SHIFT;
}

/* The route that a packet has been given. */
static __always_inline void emit_route(struct call *call, struct packet *packet)
{
	u64 dst = read_u64(call->skb + SKB_DST) & ~7ULL, gateway[2] = {};
	u32 type = ROUTE_TYPE_IPV6, ifindex;

	if (!dst)
		return;
	if (read_u16(call->skb + SKB_PROTOCOL) == bpf_htons(ETH_P_IPV6)) {
		if (RT6_GATEWAY != NO_MEMBER)
			bpf_probe_read_kernel(gateway, 16, (void *)(dst + RT6_GATEWAY));
	} else {
		bpf_probe_read_kernel(gateway, 4, (void *)(dst + RT_GATEWAY));
		type = read_u8(dst + RT_TYPE);
	}
	dst = read_u64(dst + DST_DEV);
	ifindex = read_u32(dst + DEV_IFINDEX);
	on_dev(dst, packet->netns, ifindex);
	emit_at(EVENT_ROUTE, call->function, call->skb, packet, gateway[0], gateway[1],
		(ifindex & ((1 << ROUTE_TYPE_SHIFT) - 1)) | type << ROUTE_TYPE_SHIFT);
}

static __always_inline void emit_return(struct call *call, struct packet *packet, u64 value)
{
	u32 trait = call->trait;

	if (trait & TRAIT_RETURNS && !(trait & TRAIT_QUIET))
		emit(EVENT_RETURN, call->function, call->skb, packet, value,
		     trait & TRAIT_CHAIN ? !call->b : call->b);
	if (trait & TRAIT_ROUTES)
		emit_route(call, packet);
}

/*
 * A chain's rules are contiguous: struct nft_rule_blob, struct nft_rule_dp
 * (include/net/netfilter/nf_tables.h).
 */
#define BLOB_HEAD 8
#define RULE_HEAD 8
#define MAX_CHAINS 128
#define MAX_RULES 512

static __always_inline u64 blob_with(u64 chain, u64 expression)
{
	u64 blob = read_u64(chain + CHAIN_BLOB_0);

	if (expression > blob && expression - blob - BLOB_HEAD < read_u64(blob))
		return blob;
	blob = read_u64(chain + CHAIN_BLOB_1);
	return expression > blob && expression - blob - BLOB_HEAD < read_u64(blob) ? blob : 0;
}

/*
 * Find the rule that an expression is part of, among all chains of the table of `chain`. The result
 * is kept in a map meanwhile: the verifier assumes nothing about map values, so it follows each
 * loop once.
 */
static __always_inline bool find_rule(u64 chain, u64 expression, struct rule *found)
{
	u64 end = read_u64(chain + CHAIN_TABLE) + TABLE_CHAINS, length;

	found->chain = chain;
	found->blob = blob_with(chain, expression);
	found->rule = end;
#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_CHAINS; i++) {
		if (found->blob)
			break;
		found->rule = read_u64(found->rule);
		if (found->rule == end || !found->rule)
			return 0;
		found->chain = found->rule - CHAIN_LIST;
		found->blob = blob_with(found->chain, expression);
	}
	if (!found->blob)
		return 0;
	found->rule = found->blob + BLOB_HEAD;
#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_RULES; i++) {
		found->head = read_u64(found->rule);
		length = found->head >> RULE_DLEN_SHIFT & ((1ULL << RULE_DLEN_BITS) - 1);
		length += RULE_HEAD;
		if (expression < found->rule + length)
			return 1;
		if (found->head & 1) /* is_last */
			return 0;
		found->rule += length;
	}
	return 0;
}

static __always_inline bool pop_call(context *ctx, struct call *call, struct call **outer);

#define NFT_CONTINUE ((u32)-1)
#define NFT_BREAK ((u32)-2)
#define NFT_JUMP ((u32)-3)
#define NFT_GOTO ((u32)-4)

/*
 * On return of an expression of nf_tables: emit the verdict that it gave, if any. A program of its
 * own, because the verifier would follow the search for each path through the other.
 */
int on_return_eval(context *ctx)
{
	struct packet packet = {}, *known;
	struct call call, *outer;
	u64 code, handle, chain;
	struct rule *rule;
	u32 zero = 0;

	if (!pop_call(ctx, &call, &outer) || !call.skb || !outer || !(outer->trait & TRAIT_CHAIN))
		return 0;
	code = read_u32(call.b);
	if (code == NFT_CONTINUE || code == NFT_BREAK)
		return 0;
	if (!(code >> 31))
		outer->b = 1;
	known = packets.lookup(&call.skb);
	if (known)
		packet = *known;
	packet.number = call.number;
	rule = rules.lookup(&call.a);
	if (!rule || read_u64(rule->rule) != rule->head ||
	    blob_with(rule->chain, call.a) != rule->blob) {
		rule = scratch_rule.lookup(&zero);
		if (!rule)
			return 0;
		if (find_rule(outer->a, call.a, rule)) {
			rules.update(&call.a, rule);
		} else {
			rule->chain = outer->a;
			rule->head = 0;
		}
	}
	chain = rule->chain;
	handle = rule->head >> RULE_HANDLE_SHIFT & ((1ULL << RULE_HANDLE_BITS) - 1);
	name_chain(chain, call.skb, &packet);
	emit(EVENT_VERDICT, call.function, call.skb, &packet, chain,
	     (handle & ((1ULL << VERDICT_CODE_SHIFT) - 1)) |
	     (code & 0xff) << VERDICT_CODE_SHIFT | (code >> 16) << VERDICT_HIGH_SHIFT);
	if (code == NFT_JUMP || code == NFT_GOTO) {
		chain = read_u64(call.b + VERDICT_CHAIN);
		name_chain(chain, call.skb, &packet);
		emit(EVENT_TARGET, call.function, call.skb, &packet, chain, 0);
	}
	return 0;
}
