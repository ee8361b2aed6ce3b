// SPDX-License-Identifier: GPL-2.0-only
/*
 * Packets and events: what all programs have in common. Hooks nothing by itself; emits EVENT_BIRTH
 * for each new packet, and EVENT_NAMED for live traces.
 *
 * A packet is born when an unknown sk_buff belongs to one of the sockets in `senders`, or else
 * appears in one of the namespaces in `namespaces`: the kernel made that one, for instance as an
 * answer. From then on it is known by its address, through copies and clones, until that address
 * is allocated anew. Only known packets make events.
 *
 * The sources are compiled as one unit by BCC, without kernel headers:
 *
 *	contract.h, core.c, lab.c, probes.c		scenarios, by probes on functions
 *	contract.h, core.c, live.c, probes.c		nft-harness trace
 *	contract.h, core.c, tracepoints.c		scenarios, by tracepoints
 *
 * Offsets into the kernel's structs are constants that come from the running kernel's BTF
 * (harness/tracer/program.py). Events that could not be recorded are counted, never dropped in
 * silence.
 */

/* A call under way. */
struct call {
	u64 skb;	/* 0 if the packet is unknown */
	u16 function;
	u16 trait;
	u32 number;
	u32 live;
	u64 a;		/* live, CHAIN: the chain; EVALUATES: the expression */
	u64 b;		/* live, CHAIN: whether a rule decided; EVALUATES: the registers;
			   HOOKS: hook | family << 8 */
};

/* Calls under way in one thread, innermost last: they return in that order. */
#define MAX_CALL_DEPTH 16
struct calls {
	u64 depth;
	struct call call[MAX_CALL_DEPTH];
};

/* Numbers of the packets that are born on one CPU. */
struct numbering {
	u32 next;
	u32 taken;	/* whether a program is about to take the next one */
};

#define FOREIGN_DEVS 64

#define ENOENT 2	/* include/uapi/asm-generic/errno-base.h */

BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
BPF_HASH(senders, u64, u32, 256);	/* socket cookies */
BPF_HASH(namespaces, u32, u32, 256);	/* inode numbers */
BPF_HASH(packets, u64, struct packet, 65536);
BPF_HASH(alive, u64, u32, 65536);	/* those of them that the kernel is not done with */
BPF_HASH(calls, u64, struct calls, 4096);
BPF_HASH(chains, u64, struct chain, 1024);
BPF_ARRAY(traits, u32, FUNCTIONS);
BPF_ARRAY(recording, u32, 1);
BPF_F_TABLE("array", u32, u64, lives, LIVES, BPF_F_MMAPABLE);
BPF_ARRAY(foreign_devs, u64, FOREIGN_DEVS);
BPF_PERCPU_ARRAY(numberings, struct numbering, 1);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
BPF_PERCPU_ARRAY(empty_calls, struct calls, 1);
BPF_PERCPU_ARRAY(scratch_chain, struct chain, 1);

/* BCC 0.26 does not declare these helpers (kernel v5.15, v5.17). */
static u64 (*bpf_get_attach_cookie_)(void *ctx) = (void *)BPF_FUNC_get_attach_cookie;
static long (*bpf_get_func_arg_)(void *ctx, u32 number, u64 *value) = (void *)BPF_FUNC_get_func_arg;
static long (*bpf_get_func_ret_)(void *ctx, u64 *value) = (void *)BPF_FUNC_get_func_ret;

/*
 * What a program is called with: by kprobes the registers, by fentry and fexit, where FENTRY is
 * defined, the function's arguments. Both know an argument by position and the result.
 */
#ifdef FENTRY
typedef u64 context;

static __always_inline u64 argument(context *ctx, u64 position)
{
	u64 value = 0;

	bpf_get_func_arg_(ctx, position, &value);
	return value;
}

static __always_inline u64 result(context *ctx)
{
	u64 value = 0;

	bpf_get_func_ret_(ctx, &value);
	return value;
}
#else
typedef struct pt_regs context;

/*
 * A position that is no constant goes by way of the stack, since the verifier wants every access to
 * ctx at a constant offset and the compiler would make it one at a variable offset.
 */
static __always_inline u64 argument(context *ctx, u64 position)
{
	if (__builtin_constant_p(position))
		return position == 0 ? PT_REGS_PARM1(ctx) :
		       position == 1 ? PT_REGS_PARM2(ctx) :
		       position == 2 ? PT_REGS_PARM3(ctx) :
		       position == 3 ? PT_REGS_PARM4(ctx) : PT_REGS_PARM5(ctx);
	volatile u64 arguments[8] = {
		PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx),
		PT_REGS_PARM4(ctx), PT_REGS_PARM5(ctx)
	};

	return arguments[position & 7];
}

static __always_inline u64 result(context *ctx)
{
	return PT_REGS_RC(ctx);
}
#endif

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u16 read_u16(u64 address)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u8 read_u8(u64 address)
{
	u8 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/* Atomic: an interrupt may run another program in the middle. */
static __always_inline void count(u32 which)
{
	u64 *value = counters.lookup(&which);

	if (value)
		lock_xadd(value, 1);
}

/*
 * Of a change to a map, which may be full. Or a program was interrupted that is changing the same
 * bucket: EBUSY, until Linux commit d35381aa73f7 ("bpf: Fix unnecessary -EBUSY from
 * htab_lock_bucket") (in v6.7).
 */
static __always_inline bool failed(long error)
{
	if (!error || error == -ENOENT)
		return 0;
	count(COUNT_UNTRACKED);
	return 1;
}

static __always_inline u32 netns_of(u64 net)
{
	return net ? read_u32(net + NET_INUM) : 0;
}

/*
 * What lab.c, live.c and tracepoints.c each have in their own way, or not at all.
 */

/* Fill in what a record has beside its event. */
static __always_inline void fill_record(struct record *record, u64 skb);
/* The packet is at another device than before. */
static __always_inline void on_dev(u64 dev, u32 netns, u32 ifindex);
/* The packet is new, or met another function. */
static __always_inline void on_packet(u64 skb, struct packet *packet);
/* The running process sent a packet by one of `senders`. */
static __always_inline void on_sent(void);
/* A chain's name is new in `chains`. */
static __always_inline void on_chain_name(u64 chain, u64 skb, struct packet *packet);
/* Whether to follow a packet of a live trace, which is in a namespace that is traced. */
static __always_inline bool filter_matches(u64 skb);

/* Events. */

/*
 * A record of an event, for the caller to complete and submit; none when the buffer has no room,
 * which is counted.
 */
static __always_inline struct record *reserve(u8 kind, u16 function, u64 skb,
					      struct packet *packet, u64 a, u64 b, u32 ifindex)
{
	struct record *record;
	struct event *event;

	count(COUNT_ENTERED);
	record = events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		count(COUNT_REFUSED);
		return 0;
	}
	event = &record->event;
	event->time = bpf_ktime_get_ns();
	event->skb = skb;
	event->a = a;
	event->b = b;
	event->packet = packet->number;
	event->netns = packet->netns;
	event->ifindex = ifindex;
	event->function = function;
	event->kind = kind;
	event->cpu = bpf_get_smp_processor_id();
	return record;
}

static __always_inline void emit_at(u8 kind, u16 function, u64 skb, struct packet *packet, u64 a,
				    u64 b, u32 ifindex)
{
	struct record *record = reserve(kind, function, skb, packet, a, b, ifindex);

	if (!record)
		return;
	fill_record(record, skb);
	events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline void emit(u8 kind, u16 function, u64 skb, struct packet *packet, u64 a,
				 u64 b)
{
	emit_at(kind, function, skb, packet, a, b, packet->ifindex);
}

/* Packets. */

static __always_inline u32 recording_state(void)
{
	u32 zero = 0, *state = recording.lookup(&zero);

	return state ? *state : SCOPE_OFF;
}

static __always_inline u32 scope_of(u32 state)
{
	return state & ((1 << RECORDING_NUMBER_SHIFT) - 1);
}

/* Where the packet is, from skb->dev; anything else in that union is ignored. */
static __always_inline void update_dev(u64 skb, struct packet *packet)
{
	u64 dev = read_u64(skb + SKB_DEV);
	u32 ifindex;

	if (dev == packet->dev || !dev)
		return;
	ifindex = read_u32(dev + DEV_IFINDEX);
	if (!ifindex)
		return;
	packet->dev = dev;
	packet->ifindex = ifindex;
	packet->netns = netns_of(read_u64(dev + DEV_NET));
	on_dev(dev, packet->netns, ifindex);
}

/* One more life has begun or ended, on whatever CPU. */
static __always_inline void count_life(u32 which)
{
	u64 *value = lives.lookup(&which);

	if (value)
		lock_xadd(value, 1);
}

/* The kernel is done with the packet. Of several CPUs that notice it at once, one counts it. */
static __always_inline void release(u64 skb)
{
	if (alive.lookup(&skb) && !alive.delete(&skb))
		count_life(LIVES_ENDED);
}

/* The address is that of another packet from now on, or of none. */
static __always_inline void forget(u64 skb)
{
	release(skb);
	if (packets.lookup(&skb))
		failed(packets.delete(&skb));
}

static __always_inline struct packet *track(u64 skb, struct packet *packet)
{
	u32 one = 1;

	if (failed(packets.update(&skb, packet)))
		return 0;
	packet = packets.lookup(&skb);
	if (!packet) {
		count(COUNT_UNTRACKED);
		return 0;
	}
	if (!alive.insert(&skb, &one))
		count_life(LIVES_BEGUN);
	else if (!alive.lookup(&skb))
		count(COUNT_UNTRACKED);
	return packet;
}

/*
 * While a lab is recorded, most functions meet packets of others, so that has to be found out fast:
 * `foreign_devs` holds devices that are none of the lab's, each with the recording's number behind
 * its address. A lab has its devices before it is recorded, and keeps them.
 */
static __always_inline u64 *foreign_dev_slot(u64 dev)
{
	u32 slot = (dev >> 12 ^ dev >> 6) & (FOREIGN_DEVS - 1);

	return foreign_devs.lookup(&slot);
}

static __always_inline u64 foreign_dev(u64 dev, u32 state)
{
	return dev << 16 | state >> RECORDING_NUMBER_SHIFT;
}

static __always_inline bool is_foreign(u64 skb, u32 state)
{
	u64 dev = read_u64(skb + SKB_DEV), *slot = foreign_dev_slot(dev);

	return slot && dev && *slot == foreign_dev(dev, state);
}

/*
 * On its way out of a host a packet has no device until it is routed and has passed the output
 * hook.
 */
static __always_inline u32 netns_before_dev(u64 skb, u64 sk)
{
	u64 route;

	/* What has neither device nor protocol is no packet of a network (yet). */
	if (!read_u16(skb + SKB_PROTOCOL))
		return 0;
	if (sk)
		return netns_of(read_u64(sk + SOCK_NET));
	route = read_u64(skb + SKB_DST) & ~1ULL;	/* SKB_DST_NOREF */
	return route ? netns_of(read_u64(read_u64(route + DST_DEV) + DEV_NET)) : 0;
}

/* Whether to follow a packet that none of `senders` has sent. */
static __always_inline bool in_scope(u64 skb, u64 sk, u32 state, struct packet *packet)
{
	u64 *slot;

	if (!packet->netns)
		packet->netns = netns_before_dev(skb, sk);
	if (!packet->netns)
		return 0;
	if (scope_of(state) == SCOPE_LAB) {
		if (namespaces.lookup(&packet->netns))
			return 1;
		slot = foreign_dev_slot(packet->dev);
		if (slot && packet->dev)
			*slot = foreign_dev(packet->dev, state);
		return 0;
	}
	packet->live = 1;
	return (scope_of(state) == SCOPE_ANYWHERE || namespaces.lookup(&packet->netns)) &&
	       filter_matches(skb);
}

/* Threads are distinguished by id; the idle threads all have id 0, and there is one per CPU. */
static __always_inline u64 thread(void)
{
	u64 id = (u32)bpf_get_current_pid_tgid();

	return id ? id : 1ULL << 32 | bpf_get_smp_processor_id();
}

/* Inside skb_clone() and the like an unknown sk_buff is the copy, not yet filled in. */
static __always_inline bool in_copy(void)
{
	u64 id = thread();
	struct calls *stack = calls.lookup(&id);

	if (!stack || !stack->depth)
		return 0;
	return stack->call[(stack->depth - 1) & (MAX_CALL_DEPTH - 1)].trait & TRAIT_COPIES;
}

/*
 * The next number of this CPU. No interrupt may take the same one: a program that finds one being
 * taken gets none, which is counted.
 */
static __always_inline bool take_number(u32 *number)
{
	u32 zero = 0;
	volatile struct numbering *numbering = numberings.lookup(&zero);

	if (!numbering || numbering->taken) {
		count(COUNT_UNTRACKED);
		return 0;
	}
	numbering->taken = 1;
	*number = numbering->next;
	numbering->next = *number + 1;
	numbering->taken = 0;
	*number = bpf_get_smp_processor_id() << PACKET_CPU_SHIFT |
		  (*number & ((1 << PACKET_CPU_SHIFT) - 1));
	return 1;
}

/* An unknown sk_buff in `function`: begin to follow it, if it is to be followed. */
static __always_inline struct packet *track_new(u64 skb, u16 function, u32 state)
{
	struct packet packet = {}, *kept;
	u64 sk, cookie = 0;

	if (is_foreign(skb, state))
		return 0;
	sk = read_u64(skb + SKB_SK);
	if (sk) {
		cookie = read_u64(sk + SOCK_COOKIE);
		if (!cookie || !senders.lookup(&cookie))
			cookie = 0;
	}
	update_dev(skb, &packet);
	if (cookie) {
		if (!packet.netns)
			packet.netns = netns_of(read_u64(sk + SOCK_NET));
		on_sent();
	} else if (!in_scope(skb, sk, state, &packet)) {
		return 0;
	}
	if (in_copy() || !take_number(&packet.number))
		return 0;
	kept = track(skb, &packet);
	if (kept) {
		emit(EVENT_BIRTH, function, skb, kept, cookie, 0);
		on_packet(skb, kept);
	}
	return kept;
}

/* A known packet in another function. */
static __always_inline struct packet *track_further(u64 skb, struct packet *packet)
{
	update_dev(skb, packet);
	on_packet(skb, packet);
	return packet;
}

/* Chains. */

static __always_inline void name_chain(u64 chain, u64 skb, struct packet *packet)
{
	u64 table = read_u64(chain + CHAIN_TABLE);
	struct chain *names = chains.lookup(&chain);
	u32 zero = 0, handle = read_u64(chain + CHAIN_HANDLE);

	if (names && names->handle == handle)
		return;
	names = scratch_chain.lookup(&zero);
	if (!names)
		return;
	names->family = read_u8(table + TABLE_FAMILY) & TABLE_FAMILY_MASK;
	names->handle = handle;
	bpf_probe_read_kernel_str(names->table, NAME_LEN, (void *)read_u64(table + TABLE_NAME));
	bpf_probe_read_kernel_str(names->name, NAME_LEN, (void *)read_u64(chain + CHAIN_NAME));
	if (chains.update(&chain, names))
		count(COUNT_UNTRACKED);
	on_chain_name(chain, skb, packet);
}
