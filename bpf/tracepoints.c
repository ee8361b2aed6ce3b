// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracepoints, for a kernel without probes on functions.
 *
 * Hooks the raw tracepoints that have an sk_buff (harness/tracer/stacks.py lists them), those of
 * the allocator, and sk_data_ready, where data is queued to a socket; emits EVENT_VISIT,
 * EVENT_RECEIVED, EVENT_CONSUMED, EVENT_DROP and EVENT_RULE, each with the stack there, which shows
 * what functions the packet is in. stacks.py derives hops from that.
 *
 * A copy that shares its data is known by skb->head. That addresses, of packets and of data, are
 * allocated anew is known from the tracepoints of the allocator.
 */

BPF_HASH(heads, u64, u32, 65536);		/* packet numbers by skb->head */
BPF_HASH(listeners, u64, u32, 256);		/* cookies of sockets that get nf_tables' trace */

/* Of on_allocated_message() alone. */
BPF_ARRAY(notify_range, u64, 2);		/* begin and end of nft_trace_notify() */
BPF_ARRAY(skb_cache, u64, 1);			/* the struct kmem_cache of sk_buffs */
BPF_ARRAY(sending_process, u32, 1);		/* once it has sent */
BPF_PERCPU_ARRAY(last_received, u32, 1);	/* whether the packet that came in last is known */

static __always_inline u32 process(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void on_sent(void)
{
	u32 zero = 0, *known = sending_process.lookup(&zero);

	if (known)
		*known = process();
}

static __always_inline void fill_record(struct record *record, u64 skb)
{
	record->bytes = 0;
}

static __always_inline void visit_at(void *ctx, u8 kind, u64 skb, struct packet *packet, u64 a,
				     u64 b)
{
	struct record *record = reserve(kind, 0, skb, packet, a, b, packet->ifindex);

	if (!record)
		return;
	record->bytes = bpf_get_stack(ctx, record->frames, sizeof(record->frames), 0);
	events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/*
 * Not every allocation is seen: memory also comes from a CPU's own cache of sk_buffs and from page
 * fragments. What is known by its address and has a device outside the lab is another packet.
 */
static __always_inline bool is_in_lab(struct packet *packet)
{
	return !packet->netns || namespaces.lookup(&packet->netns);
}

/* Whether the packet is one of the lab's. */
static __always_inline bool visit(void *ctx, u64 skb, u8 kind, u64 a, u64 b, bool last)
{
	u32 state = recording_state(), *number;
	struct packet *packet;
	u64 head;

	if (scope_of(state) == SCOPE_OFF || !skb)
		return 0;
	packet = packets.lookup(&skb);
	if (!packet && is_foreign(skb, state))
		return 0;
	head = read_u64(skb + SKB_HEAD);
	number = heads.lookup(&head);
	if (packet && alive.lookup(&skb)) {
		packet = track_further(skb, packet);
		if (!is_in_lab(packet)) {
			forget(skb);
			return 0;
		}
	} else if (number) {
		struct packet copy = { .number = *number };

		update_dev(skb, &copy);
		if (!is_in_lab(&copy)) {
			heads.delete(&head);
			return 0;
		}
		packet = track(skb, &copy);
	} else if (kind == EVENT_CONSUMED) {
		return 0;
	} else {
		packet = track_new(skb, 0, state);
	}
	if (!packet)
		return 0;
	heads.update(&head, &packet->number);
	visit_at(ctx, kind, skb, packet, a, b);
	if (last)
		release(skb);
	return 1;
}

/* For all tracepoints whose first argument is the packet, and which mean nothing special. */
int on_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_VISIT, 0, 0, 0);
	return 0;
}

int netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	u32 zero = 0, *known = last_received.lookup(&zero);
	bool ours = visit(ctx, skb, EVENT_RECEIVED, 0, 0, 0);

	if (known)
		*known = ours;
	return 0;
}

/* A program reads the packet from a socket; what is done with it then may not be seen. */
int skb_copy_datagram_iovec(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_VISIT, 0, 0, 1);
	return 0;
}

int consume_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_CONSUMED, 0, 0, 1);
	return 0;
}

int kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_DROP, ctx->args[1], (u32)ctx->args[2], 1);
	return 0;
}

static __always_inline bool is_skb_cache(u64 cache)
{
	u32 zero = 0;
	u64 *known = skb_cache.lookup(&zero), name;

	if (!known)
		return 0;
	if (*known)
		return *known == cache;
	/* "skbuff_head_cache" */
	name = read_u64(cache + CACHE_NAME);
	if (read_u64(name) != 0x685f666675626b73ULL)
		return 0;
	*known = cache;
	return 1;
}

int kmem_cache_alloc(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[1];

	if (scope_of(recording_state()) == SCOPE_OFF)
		return 0;
	forget(address);
	heads.delete(&address);
	return 0;
}

/*
 * sk_data_ready, within nft_trace_notify(): a message of nf_tables' trace was queued to a socket.
 * If that is one of the lab's, so is the packet, and the stack says which. a, b: 1.
 */
int on_message(struct bpf_raw_tracepoint_args *ctx)
{
	struct packet unknown = {};
	u64 cookie;

	if (scope_of(recording_state()) == SCOPE_OFF)
		return 0;
	cookie = read_u64(ctx->args[0] + SOCK_COOKIE);
	if (cookie && listeners.lookup(&cookie))
		visit_at(ctx, EVENT_RULE, 0, &unknown, 1, 1);
	return 0;
}

/*
 * kmem_cache_alloc, where the kernel has no sk_data_ready: the allocation of such a message. That
 * may be about a packet in a namespace that is none of the lab's. a: whether the packet that came
 * in last on this CPU is known, b: whether the process that sends the lab's packets runs; of an
 * evaluation where neither is so there is no event.
 */
int on_allocated_message(struct bpf_raw_tracepoint_args *ctx)
{
	u32 first = 0, second = 1, *sender, *known = last_received.lookup(&first);
	u64 near[NEAR_FRAMES] = {}, *begin, *end;
	struct packet unknown = {};
	bool found = 0, own;

	if (scope_of(recording_state()) == SCOPE_OFF || !is_skb_cache(ctx->args[2]))
		return 0;
	begin = notify_range.lookup(&first);
	end = notify_range.lookup(&second);
	if (!begin || !end || bpf_get_stack(ctx, near, sizeof(near), 0) < 0)
		return 0;
	for (int i = 0; i < NEAR_FRAMES; i++)
		found |= near[i] > *begin && near[i] <= *end;
	sender = sending_process.lookup(&first);
	if (!found || !known || !sender)
		return 0;
	own = !*sender || *sender == process();
	if (*known || own)
		visit_at(ctx, EVENT_RULE, 0, &unknown, *known, own);
	return 0;
}

int kmem_cache_free(struct bpf_raw_tracepoint_args *ctx)
{
	if (scope_of(recording_state()) != SCOPE_OFF)
		release(ctx->args[1]);
	return 0;
}

/*
 * A packet was queued to a socket, the last in its queue, and nothing more happens to it by itself.
 * That it is freed later may not be seen: what a program reads may go to a CPU's own cache of
 * sk_buffs (kfree_skb_napi_cache() in net/core/skbuff.c), which is no tracepoint.
 */
int sk_data_ready(struct bpf_raw_tracepoint_args *ctx)
{
	if (scope_of(recording_state()) != SCOPE_OFF)
		release(read_u64(ctx->args[0] + SOCK_QUEUE_TAIL));
	return 0;
}

int kmalloc(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[1];

	if (scope_of(recording_state()) != SCOPE_OFF)
		heads.delete(&address);
	return 0;
}
