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
 *
 * A program is skipped while it already runs on that CPU, that is in an interrupt in its middle
 * (__bpf_trace_run() in kernel/trace/bpf_trace.c). So most tracepoints have three: where the second
 * was skipped, which the third knows by the first, the third does what it is for. See PROGRAM().
 */

BPF_HASH(heads, u64, u32, 65536);		/* packet numbers by skb->head */
BPF_HASH(listeners, u64, u32, 256);		/* cookies of sockets that get nf_tables' trace */

/* Of on_allocated_message() alone. */
BPF_ARRAY(notify_range, u64, 2);		/* begin and end of nft_trace_notify() */
BPF_ARRAY(skb_cache, u64, 1);			/* the struct kmem_cache of sk_buffs */
BPF_ARRAY(sending_process, u32, 1);		/* once it has sent */
BPF_PERCPU_ARRAY(last_received, u32, 1);	/* whether the packet that came in last is known */

/* The programs of which there are three. */
enum program {
	RUNS_on_tracepoint,
	RUNS_netif_receive_skb,
	RUNS_skb_copy_datagram_iovec,
	RUNS_consume_skb,
	RUNS_kfree_skb,
	RUNS_kmem_cache_alloc,
	RUNS_on_message,
	RUNS_on_allocated_message,
	RUNS_kmalloc,
	PROGRAMS,
};

/* An event that NAME_before has announced, and NAME has not begun with. */
struct announced {
	u64 ctx;	/* the same for all three, and for no other event under way; 0 for none */
	u32 state;	/* recording_state() then */
};

BPF_PERCPU_ARRAY(announcements, struct announced, PROGRAMS);
/* How often NAME_after ran in place of NAME, by the number of the recording. */
BPF_F_TABLE("array", u32, u64, takeovers, TAKEOVERS, BPF_F_MMAPABLE);

static __always_inline void announce(u32 program, void *ctx)
{
	volatile struct announced *announced = announcements.lookup(&program);

	if (!announced)
		return;
	announced->state = recording_state();
	announced->ctx = (u64)ctx;
}

static __always_inline void begin(u32 program)
{
	volatile struct announced *announced = announcements.lookup(&program);

	if (announced)
		announced->ctx = 0;
}

/*
 * Whether NAME was skipped for the event. That counts for the recording in which it was announced,
 * as the kernel has counted the skip after that.
 */
static __always_inline bool was_skipped(u32 program, void *ctx)
{
	volatile struct announced *announced = announcements.lookup(&program);
	u64 *number;
	u32 slot;

	if (!announced || announced->ctx != (u64)ctx)
		return 0;
	slot = announced->state >> RECORDING_NUMBER_SHIFT & (TAKEOVERS - 1);
	number = takeovers.lookup(&slot);
	if (!number)
		return 0;
	lock_xadd(number, 1);
	return 1;
}

/*
 * The programs of a tracepoint, from the function do_NAME(), in the order in which they are called.
 *
 * ctx is an array on the stack of the function that calls them (bpf_trace_run1() and so on), so
 * what interrupts or preempts an event has another. Since begin() comes first in NAME, NAME has not
 * run for an event that is still announced when NAME_after is called. The reverse is not certain:
 * an event in an interrupt in the middle takes the announcement's place, and NAME_after may be
 * skipped itself. Then a skip that the kernel has counted is not made up for, and is a loss.
 *
 * What do_NAME() uses is safe against interrupts, as it must be against other CPUs and programs.
 */
#define PROGRAM(name)							\
int name##_before(struct bpf_raw_tracepoint_args *ctx)			\
{									\
	announce(RUNS_##name, ctx);					\
	return 0;							\
}									\
									\
int name(struct bpf_raw_tracepoint_args *ctx)				\
{									\
	begin(RUNS_##name);						\
	do_##name(ctx);							\
	return 0;							\
}									\
									\
int name##_after(struct bpf_raw_tracepoint_args *ctx)			\
{									\
	if (was_skipped(RUNS_##name, ctx))				\
		do_##name(ctx);						\
	return 0;							\
}

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

/* The address is that of other data from now on. */
static __always_inline void forget_head(u64 head)
{
	if (heads.lookup(&head))
		failed(heads.delete(&head));
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
			forget_head(head);
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
	failed(heads.update(&head, &packet->number));
	visit_at(ctx, kind, skb, packet, a, b);
	if (last)
		release(skb);
	return 1;
}

/* For all tracepoints whose first argument is the packet, and which mean nothing special. */
static __always_inline void do_on_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_VISIT, 0, 0, 0);
}

PROGRAM(on_tracepoint)

static __always_inline void do_netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	u32 zero = 0, *known = last_received.lookup(&zero);
	bool ours = visit(ctx, skb, EVENT_RECEIVED, 0, 0, 0);

	if (known)
		*known = ours;
}

PROGRAM(netif_receive_skb)

/* A program reads the packet from a socket; what is done with it then may not be seen. */
static __always_inline void do_skb_copy_datagram_iovec(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_VISIT, 0, 0, 1);
}

PROGRAM(skb_copy_datagram_iovec)

static __always_inline void do_consume_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_CONSUMED, 0, 0, 1);
}

PROGRAM(consume_skb)

static __always_inline void do_kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], EVENT_DROP, ctx->args[1], (u32)ctx->args[2], 1);
}

PROGRAM(kfree_skb)

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

static __always_inline void do_kmem_cache_alloc(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[1];

	if (scope_of(recording_state()) == SCOPE_OFF)
		return;
	forget(address);
	forget_head(address);
}

PROGRAM(kmem_cache_alloc)

/*
 * sk_data_ready, within nft_trace_notify(): a message of nf_tables' trace was queued to a socket.
 * If that is one of the lab's, so is the packet, and the stack says which. a, b: 1.
 */
static __always_inline void do_on_message(struct bpf_raw_tracepoint_args *ctx)
{
	struct packet unknown = {};
	u64 cookie;

	if (scope_of(recording_state()) == SCOPE_OFF)
		return;
	cookie = read_u64(ctx->args[0] + SOCK_COOKIE);
	if (cookie && listeners.lookup(&cookie))
		visit_at(ctx, EVENT_RULE, 0, &unknown, 1, 1);
}

PROGRAM(on_message)

/*
 * kmem_cache_alloc, where the kernel has no sk_data_ready: the allocation of such a message. That
 * may be about a packet in a namespace that is none of the lab's. a: whether the packet that came
 * in last on this CPU is known, b: whether the process that sends the lab's packets runs; of an
 * evaluation where neither is so there is no event.
 */
static __always_inline void do_on_allocated_message(struct bpf_raw_tracepoint_args *ctx)
{
	u32 first = 0, second = 1, *sender, *known = last_received.lookup(&first);
	u64 near[NEAR_FRAMES] = {}, *begin, *end;
	struct packet unknown = {};
	bool found = 0, own;

	if (scope_of(recording_state()) == SCOPE_OFF || !is_skb_cache(ctx->args[2]))
		return;
	begin = notify_range.lookup(&first);
	end = notify_range.lookup(&second);
	if (!begin || !end || bpf_get_stack(ctx, near, sizeof(near), 0) < 0)
		return;
	for (int i = 0; i < NEAR_FRAMES; i++)
		found |= near[i] > *begin && near[i] <= *end;
	sender = sending_process.lookup(&first);
	if (!found || !known || !sender)
		return;
	own = !*sender || *sender == process();
	if (*known || own)
		visit_at(ctx, EVENT_RULE, 0, &unknown, *known, own);
}

PROGRAM(on_allocated_message)

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

static __always_inline void do_kmalloc(struct bpf_raw_tracepoint_args *ctx)
{
	if (scope_of(recording_state()) != SCOPE_OFF)
		forget_head(ctx->args[1]);
}

PROGRAM(kmalloc)
