// SPDX-License-Identifier: GPL-2.0-only
/*
 * Follows the packets of a lab through the functions of the kernel.
 *
 * A packet is born when an sk_buff that nobody knows yet belongs to one of the sockets in
 * `senders`, or else appears in one of the namespaces in `hosts`: that one was made by the
 * kernel, as an answer for instance. From then on it is known by its address, through copies and
 * clones, until that address is allocated anew. Only known packets make events.
 *
 * Compiled by BCC without kernel headers: offsets into the kernel's structs are constants that
 * come from the running kernel's BTF (harness/tracer/program.py). Events that could not be
 * recorded are counted, never dropped in silence.
 */

enum kind {
	BIRTH,		/* a: cookie of the sending socket, 0 if the kernel made it */
	COPY,		/* a: the sk_buff it was copied from */
	HOP,		/* a: the chain for nft_do_chain, the capturing socket's cookie for packet_rcv;
			   b: hook | family << 8 where there is one */
	RETURN,		/* a: the function's result */
	RULE,		/* a: handle of the rule or 0; b: id of the packet in nf_tables' trace */
	DROP,		/* a: who gave it up; b: enum skb_drop_reason */
	FROM,		/* a, b: address that a live packet comes from; ifindex: port | protocol << 16;
			   function: the EtherType */
	TO,		/* the same of where it goes */
	STACK,		/* a: number in `stacks`, of the event before */
	VERDICT,	/* a: the chain; b: handle of its rule | low byte of the verdict's code << 40 |
			   high half << 48 */
	TARGET,		/* a: the chain that the event before goes on in */
	ROUTE,		/* a, b: gateway; ifindex: device to leave by | type of the route << 24, 255 for
			   IPv6, whose routes have none */
	NAMED,		/* a: a chain whose name is new in `chains` */
	GONE,		/* the sk_buff has been freed */
	VISIT,		/* at a tracepoint, with the stack there; RULE, DROP and these have one as well: */
	RECEIVED,	/* handed to the stack of protocols */
	CONSUMED,	/* done with */
};

/* Layout known to harness/tracer/events.py. */
struct event {
	u64 time;	/* ns, CLOCK_MONOTONIC */
	u64 skb;
	u64 a;
	u64 b;
	u32 packet;	/* CPU << 24 | order of birth there: one number a packet and its copies */
	u32 netns;	/* inode number; 0 if not known */
	u32 ifindex;
	u16 function;
	u8 kind;
	u8 cpu;
#ifdef SNAP
	u32 length;	/* of the packet, from the first byte in `bytes` on */
	u16 here;	/* bytes in `bytes`: linear data only */
	u16 protocol;	/* EtherType if they begin behind the Ethernet header, 0 if with it */
	u8 bytes[SNAP];
#endif
};

/* What the ring buffer holds: events, and at tracepoints the return addresses on the stack. */
struct record {
	struct event event;
#ifdef TRACEPOINTS
	s64 bytes;	/* of them; negative if the stack could not be told */
	u64 frames[DEPTH];
#endif
};

/* What is special about a function; the values are known to harness/tracer/program.py. */
enum trait {
	RETURNS = 1,	/* its result is recorded; b: hook | family << 8 of a hook, 1 if a chain's policy decided */
	COPIES = 2,	/* its result is a copy of the packet */
	LISTS = 4,	/* its result is a list of copies, joined by sk_buff.next */
	RELEASES = 8,	/* called once the last reference to the sk_buff is gone */
	CHAIN = 16,	/* its second argument is an nf_tables chain */
	NOTIFIES = 32,	/* it reports an evaluation to nf_tables' trace */
	CAPTURES = 64,	/* its third argument leads to a capturing socket */
	QUIET = 128,	/* only there to know packets; no hop */
	EVALUATES = 256,	/* its first arguments are an nf_tables expression and the registers */
	HOOKS = 512,	/* the argument behind the packet is a struct nf_hook_state */
	ROUTES = 1024,	/* when it is done the packet has a route */
	FREES = 2048,	/* it is the last to see the sk_buff */
};

/* Cookies are function | position of the argument << 16, and this for a struct nft_pktinfo. */
#define PKTINFO (1 << 24)

/*
 * How packets are chosen that nobody in `senders` sent, in the low byte of `recording`; above it is
 * a number that changes from one recording to the next.
 */
enum choice {
	OFF,		/* none at all */
	LAB,		/* those that appear in a namespace in `hosts` */
	LISTED,		/* those of the namespaces in `hosts` that are wanted(), with their addresses */
	ANYWHERE,	/* those of all namespaces that are wanted(), with their addresses */
};

enum count { ENTERED, REFUSED, UNTRACKED, COUNTS };

struct packet {
	u64 dev;
	u32 number;
	u32 netns;
	u32 ifindex;
	u32 released;
	u32 live;
	u32 unused;
	u64 flow;	/* hash of what FROM and TO told last */
};

struct call {
	u64 skb;	/* 0 if nobody knows it */
	u16 function;
	u16 trait;
	u32 number;
	u32 live;
#ifdef LIVE
	u64 a;	/* CHAIN: the chain; EVALUATES: the expression */
	u64 b;	/* CHAIN: whether a rule decided; EVALUATES: the registers; HOOKS: hook | family << 8 */
#endif
};

/* Calls under way in one thread, innermost last: they return in that order. */
#define CALLS 16
struct calls {
	u64 depth;
	struct call call[CALLS];
};

#define STRANGERS 64

#define NAME 256
struct chain {
	u32 family;
	u32 handle;
	char table[NAME];
	char name[NAME];
};

BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
BPF_HASH(senders, u64, u32, 256);
BPF_HASH(hosts, u32, u32, 256);
BPF_HASH(packets, u64, struct packet, 65536);
BPF_HASH(calls, u64, struct calls, 4096);
BPF_HASH(chains, u64, struct chain, 1024);
BPF_ARRAY(traits, u32, FUNCTIONS);
BPF_ARRAY(recording, u32, 1);
BPF_ARRAY(strangers, u64, STRANGERS);
BPF_PERCPU_ARRAY(births, u32, 1);
BPF_PERCPU_ARRAY(counts, u64, COUNTS);
BPF_PERCPU_ARRAY(blank_calls, struct calls, 1);
BPF_PERCPU_ARRAY(blank_chain, struct chain, 1);

#ifdef LIVE
/* A rule, by one of its expressions; valid while the kernel still has both where they were. */
struct rule {
	u64 chain;
	u64 blob;
	u64 rule;
	u64 head;	/* the first word of the struct nft_rule_dp */
};
BPF_TABLE("lru_hash", u64, struct rule, rules, 8192);
BPF_PERCPU_ARRAY(searches, struct rule, 1);

/* Its size is set when it is loaded: 1 when nobody asks for stacks. */
#define STACKS 16384
BPF_TABLE("stacktrace", int, struct bpf_stacktrace, stacks, STACKS);
BPF_ARRAY(with_stacks, u32, 1);

/* Names of the interfaces met; the key is the namespace's number << 32 | ifindex. */
struct name {
	char text[16];
};
BPF_TABLE("lru_hash", u64, struct name, devices, 4096);
#endif

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
		return position == 0 ? PT_REGS_PARM1(ctx) : position == 1 ? PT_REGS_PARM2(ctx) :
		       position == 2 ? PT_REGS_PARM3(ctx) : position == 3 ? PT_REGS_PARM4(ctx) : PT_REGS_PARM5(ctx);
	volatile u64 arguments[8] = {
		PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx), PT_REGS_PARM4(ctx), PT_REGS_PARM5(ctx)
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

static __always_inline void add(u32 which)
{
	u64 *value = counts.lookup(&which);

	if (value)
		(*value)++;
}

static __always_inline u32 netns_of(u64 net)
{
	return net ? read_u32(net + NET_INUM) : 0;
}

#ifdef SNAP
static __always_inline void snap(struct event *event, u64 skb);
#else
#define snap(event, skb)
#endif

/* A record of an event, for the caller to complete and submit; none when the buffer has no room, which is counted. */
static __always_inline struct record *begin(u8 kind, u16 function, u64 skb, struct packet *packet, u64 a, u64 b,
					    u32 ifindex)
{
	struct record *record;
	struct event *event;

	add(ENTERED);
	record = events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		add(REFUSED);
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

static __always_inline void emit_at(u8 kind, u16 function, u64 skb, struct packet *packet, u64 a, u64 b, u32 ifindex)
{
	struct record *record = begin(kind, function, skb, packet, a, b, ifindex);

	if (!record)
		return;
	snap(&record->event, skb);
#ifdef TRACEPOINTS
	record->bytes = 0;
#endif
	events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline void emit(u8 kind, u16 function, u64 skb, struct packet *packet, u64 a, u64 b)
{
	emit_at(kind, function, skb, packet, a, b, packet->ifindex);
}

static __always_inline void emit_stack(void *ctx, u16 function, u64 skb, struct packet *packet)
{
#ifdef LIVE
	u32 zero = 0, *wanted = with_stacks.lookup(&zero);

	if (wanted && *wanted)
		emit(STACK, function, skb, packet, (u32)stacks.get_stackid(ctx, 0), 0);
#endif
}

/*
 * The linear data of an sk_buff as a pcap expression sees it: from an Ethernet header on, which is
 * made up from skb->protocol where the packet has none (yet). Layout known to harness/tracer/packet_filter.py.
 */
struct view {
	u64 network;	/* address of the network header */
	u32 here;	/* bytes there from it on */
	u32 length;	/* of the whole packet, Ethernet header included */
	u16 protocol;
	u16 ethernet;	/* whether an Ethernet header is in front of it */
	u32 word;	/* these three are the expression's own */
	u32 memory[16];
	u64 saved[4];
};

#define ETHERNET 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

static __always_inline void look(u64 skb, struct view *view)
{
	u64 head = read_u64(skb + SKB_HEAD);
	u16 network = read_u16(skb + SKB_NETWORK), mac = read_u16(skb + SKB_MAC);
	u32 tail = read_u32(skb + SKB_TAIL), data = read_u64(skb + SKB_DATA) - head;

	view->network = head + network;
	view->here = tail > network ? tail - network : 0;
	view->length = read_u32(skb + SKB_LEN) + data - network + ETHERNET;
	view->protocol = bpf_ntohs(read_u16(skb + SKB_PROTOCOL));
	view->ethernet = mac != 0xffff && mac + ETHERNET == network;
}

#ifdef SNAP
static __always_inline void snap(struct event *event, u64 skb)
{
	struct view view;
	u64 from, here;

	look(skb, &view);
	from = view.ethernet ? view.network - ETHERNET : view.network;
	here = view.ethernet ? view.here + ETHERNET : view.here;
	asm volatile("" : "+r"(here)); /* else what is compared is not the register that is used */
	if (here > SNAP)
		here = SNAP;
	event->length = view.ethernet ? view.length : view.length - ETHERNET;
	event->protocol = view.ethernet ? 0 : view.protocol;
	event->here = bpf_probe_read_kernel(event->bytes, here, (void *)from) ? 0 : here;
}
#endif

#ifdef LIVE
/*
 * Whether the user's expression is true of a packet. This is no helper: its instructions are put in
 * place of each call before the program is loaded.
 */
static u64 (*is_true_of)(struct view *view) = (void *)0x77616e74; /* "want" */

static __always_inline bool wanted(u64 skb)
{
	struct view view = {};

	look(skb, &view);
	return is_true_of(&view);
}
#endif

#ifdef LIVE
/* Tell a live packet's addresses when they are new: at birth, and as NAT and tunnels change them. */
static __always_inline void address(u64 skb, struct packet *packet)
{
	u64 head = read_u64(skb + SKB_HEAD) + read_u16(skb + SKB_NETWORK), flow, from[2] = {}, to[2] = {};
	u16 protocol = bpf_ntohs(read_u16(skb + SKB_PROTOCOL));
	u32 ports = 0, next, length;
	u8 first = read_u8(head);

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
	if (length && (next == 6 || next == 17 || next == 132 || next == 33 || next == 136))
		ports = read_u32(head + length);
	flow = from[0] ^ from[1] * 3 ^ to[0] * 0x9e3779b97f4a7c15ULL ^ to[1] * 5 ^ (u64)ports << 17 ^ next << 8 ^ 1;
	if (flow == packet->flow)
		return;
	packet->flow = flow;
	next <<= 16;
	emit_at(FROM, protocol, skb, packet, from[0], from[1], next | bpf_ntohs(ports & 0xffff));
	emit_at(TO, protocol, skb, packet, to[0], to[1], next | bpf_ntohs(ports >> 16));
}
#else
#define address(skb, packet)
#endif

#ifdef LIVE
static __always_inline void name_device(u64 dev, u32 netns, u32 ifindex)
{
	u64 key = (u64)netns << 32 | ifindex;
	struct name name = {};

	bpf_probe_read_kernel_str(name.text, sizeof(name.text), (void *)(dev + DEV_NAME));
	devices.update(&key, &name);
}
#else
#define name_device(dev, netns, ifindex)
#endif

/* Where the packet is, from skb->dev; a pointer that is none (the field is a union) is passed over. */
static __always_inline void locate(u64 skb, struct packet *packet)
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
	name_device(dev, packet->netns, ifindex);
}

static __always_inline struct packet *remember(u64 skb, struct packet *packet)
{
	packets.update(&skb, packet);
	packet = packets.lookup(&skb);
	if (!packet)
		add(UNTRACKED);
	return packet;
}

/* Threads are told apart by id; the idle threads all have id 0, and one each per CPU. */
static __always_inline u64 thread(void)
{
	u64 id = (u32)bpf_get_current_pid_tgid();

	return id ? id : 1ULL << 32 | bpf_get_smp_processor_id();
}

/* Inside skb_clone() and its kin an unknown sk_buff is the copy in the making, not yet filled in. */
static __always_inline bool copying(void)
{
	u64 id = thread();
	struct calls *under_way = calls.lookup(&id);

	return under_way && under_way->depth && under_way->call[(under_way->depth - 1) & (CALLS - 1)].trait & COPIES;
}

/*
 * While a lab is recorded, most functions meet packets of others, so that has to be found out fast:
 * `strangers` holds devices that are none of the lab's, each with the recording's number behind its
 * address. A lab has its devices before it is recorded, and keeps them.
 */
static __always_inline u64 *stranger(u64 dev)
{
	u32 slot = (dev >> 12 ^ dev >> 6) & (STRANGERS - 1);

	return strangers.lookup(&slot);
}

static __always_inline u64 as_stranger(u64 dev, u32 state)
{
	return dev << 16 | state >> 8;
}

static __always_inline bool strange(u64 skb, u32 state)
{
	u64 dev = read_u64(skb + SKB_DEV), *slot = stranger(dev);

	return slot && dev && *slot == as_stranger(dev, state);
}

static __always_inline u32 now_recording(void)
{
	u32 zero = 0, *state = recording.lookup(&zero);

	return state ? *state : OFF;
}

/* On its way out of a host a packet has no device until it is routed and has passed the output hook. */
static __always_inline u32 netns_before_device(u64 skb, u64 sk)
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

/* Whether to follow a packet that no sender of ours has sent. */
static __always_inline bool chosen(u64 skb, u64 sk, u32 state, struct packet *packet)
{
	u64 *slot;

	if (!packet->netns)
		packet->netns = netns_before_device(skb, sk);
	if ((state & 0xff) == LAB) {
		if (!packet->netns)
			return 0;
		if (hosts.lookup(&packet->netns))
			return 1;
		slot = stranger(packet->dev);
		if (slot && packet->dev)
			*slot = as_stranger(packet->dev, state);
		return 0;
	}
#ifdef LIVE
	packet->live = 1;
	return packet->netns && ((state & 0xff) == ANYWHERE || hosts.lookup(&packet->netns)) && wanted(skb);
#else
	return 0;
#endif
}

#ifdef TRACEPOINTS
BPF_ARRAY(ourselves, u32, 1);		/* the process that sends, once it has */
BPF_PERCPU_ARRAY(receiving, u32, 1);	/* whether the packet that came in last is known */

static __always_inline u32 process(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void sent_by_us(void)
{
	u32 zero = 0, *known = ourselves.lookup(&zero);

	if (known)
		*known = process();
}
#endif

static __always_inline struct packet *born(u64 skb, u16 function, u32 state)
{
	struct packet packet = {}, *kept;
	u64 sk, cookie = 0;
	u32 zero = 0, *next;

	if (strange(skb, state))
		return 0;
	sk = read_u64(skb + SKB_SK);
	if (sk) {
		cookie = read_u64(sk + SOCK_COOKIE);
		if (!cookie || !senders.lookup(&cookie))
			cookie = 0;
	}
	locate(skb, &packet);
	if (cookie) {
		if (!packet.netns)
			packet.netns = netns_of(read_u64(sk + SOCK_NET));
#ifdef TRACEPOINTS
		sent_by_us();
#endif
	} else if (!chosen(skb, sk, state, &packet)) {
		return 0;
	}
	if (copying())
		return 0;
	next = births.lookup(&zero);
	if (!next)
		return 0;
	packet.number = bpf_get_smp_processor_id() << 24 | ((*next)++ & 0xffffff);
	kept = remember(skb, &packet);
	if (kept) {
		emit(BIRTH, function, skb, kept, cookie, 0);
		if (kept->live)
			address(skb, kept);
	}
	return kept;
}

static __always_inline struct packet *follow(u64 skb, struct packet *packet)
{
	locate(skb, packet);
	if (packet->live)
		address(skb, packet);
	return packet;
}

static __always_inline void enter(u64 skb, u32 function, u32 trait, struct packet *packet, u64 a, u64 b)
{
	u64 id = thread();
	struct calls *under_way = calls.lookup(&id);
	u32 zero = 0;

	if (!under_way) {
		struct calls *blank = blank_calls.lookup(&zero);

		if (!blank)
			return;
		calls.update(&id, blank);
		under_way = calls.lookup(&id);
		if (!under_way) {
			add(UNTRACKED);
			return;
		}
	}
	if (under_way->depth >= CALLS) {
		add(UNTRACKED);
		return;
	}
	u64 top = under_way->depth & (CALLS - 1);

	under_way->call[top].skb = packet ? skb : 0;
	under_way->call[top].function = function;
	under_way->call[top].trait = trait;
	under_way->call[top].number = packet ? packet->number : 0;
	under_way->call[top].live = packet ? packet->live : 0;
#ifdef LIVE
	under_way->call[top].a = a;
	under_way->call[top].b = b;
#endif
	under_way->depth++;
}

static __always_inline void name_chain(u64 chain, u64 skb, struct packet *packet)
{
	u64 table = read_u64(chain + CHAIN_TABLE);
	struct chain *blank = chains.lookup(&chain);
	u32 zero = 0, handle = read_u64(chain + CHAIN_HANDLE);

	if (blank && blank->handle == handle)
		return;
	blank = blank_chain.lookup(&zero);
	if (!blank)
		return;
	blank->family = read_u8(table + TABLE_FAMILY) & TABLE_FAMILY_MASK;
	blank->handle = handle;
	bpf_probe_read_kernel_str(blank->table, NAME, (void *)read_u64(table + TABLE_NAME));
	bpf_probe_read_kernel_str(blank->name, NAME, (void *)read_u64(chain + CHAIN_NAME));
	if (chains.update(&chain, blank))
		add(UNTRACKED);
#ifdef LIVE
	emit(NAMED, 0, skb, packet, chain, 0);
#endif
}

static __always_inline u64 hook_of(u64 state)
{
	return read_u8(state + STATE_HOOK) | (u64)read_u8(state + STATE_PF) << 8;
}

/*
 * nft_trace_notify() is called once for each message of nf_tables' trace, and ties the message to
 * the packet: a becomes the handle of the rule, b the packet's id in the trace. Until v6.4 all it
 * wanted to know was in its only argument.
 */
static __always_inline u64 pktinfo_of(context *ctx, u64 position, u32 trait, u64 *a, u64 *b)
{
	u64 pktinfo = argument(ctx, position);

	if (trait & NOTIFIES) {
#ifdef TRACEINFO_PKT
		u64 info = pktinfo, rule = read_u64(info + TRACEINFO_RULE);

		pktinfo = read_u64(info + TRACEINFO_PKT);
#else
		u64 info = argument(ctx, 3), rule = argument(ctx, 2);
#endif
		if (rule)
			*a = (read_u64(rule) >> RULE_HANDLE_SHIFT) & ((1ULL << RULE_HANDLE_BITS) - 1);
#ifdef TRACEINFO_SKBID
		*b = read_u32(info + TRACEINFO_SKBID);
#endif
		return pktinfo;
	}
	*b = hook_of(read_u64(pktinfo + PKTINFO_STATE));
	return pktinfo;
}

#ifdef LIVE
/* A chain's rules lie in a row: struct nft_rule_blob, struct nft_rule_dp (include/net/netfilter/nf_tables.h). */
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
 * Find the rule that an expression is part of, among all chains of the table of `chain`. What is found
 * is kept in a map meanwhile: of that the verifier believes to know nothing, so it follows each loop once.
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
		length = RULE_HEAD + (found->head >> RULE_DLEN_SHIFT & ((1ULL << RULE_DLEN_BITS) - 1));
		if (expression < found->rule + length)
			return 1;
		if (found->head & 1) /* is_last */
			return 0;
		found->rule += length;
	}
	return 0;
}

/* The route that a packet has been given. */
static __always_inline void routed(struct call *call, struct packet *packet)
{
	u64 dst = read_u64(call->skb + SKB_DST) & ~7ULL, gateway[2] = {};
	bool six = read_u16(call->skb + SKB_PROTOCOL) == bpf_htons(ETH_P_IPV6);
	u32 type = 255, ifindex;

	if (!dst)
		return;
	if (six) {
#ifdef RT6_GATEWAY
		bpf_probe_read_kernel(gateway, 16, (void *)(dst + RT6_GATEWAY));
#endif
	} else {
		bpf_probe_read_kernel(gateway, 4, (void *)(dst + RT_GATEWAY));
		type = read_u8(dst + RT_TYPE);
	}
	dst = read_u64(dst + DST_DEV);
	ifindex = read_u32(dst + DEV_IFINDEX);
	name_device(dst, packet->netns, ifindex);
	emit_at(ROUTE, call->function, call->skb, packet, gateway[0], gateway[1], (ifindex & 0xffffff) | type << 24);
}

static __always_inline void gone(u64 skb)
{
	struct packet *packet = packets.lookup(&skb);

	if (packet && packet->live)
		emit(GONE, 0, skb, packet, 0, 0);
}
#else
#define gone(skb)
#endif

#ifndef TRACEPOINTS
/*
 * On entry to a function of which no more is wanted than that the packet met it, and which has it in
 * its first argument: that is two functions of three. The cookie, that kprobe.multi has to search for
 * among all its functions, is asked for only when the packet is one of ours.
 */
int met(context *ctx)
{
	u64 skb = argument(ctx, 0);
	u32 function, state = now_recording();
	struct packet *packet;

	if ((state & 0xff) == OFF || !skb)
		return 0;
	/* A packet of the lab never is at a stranger's device, and that is found out without a hash. */
	if (strange(skb, state))
		return 0;
	packet = packets.lookup(&skb);
	function = bpf_get_attach_cookie_(ctx) & 0xffff;
	packet = packet ? follow(skb, packet) : born(skb, function, state);
	if (!packet)
		return 0;
	emit(HOP, function, skb, packet, 0, 0);
	emit_stack(ctx, function, skb, packet);
	return 0;
}

/* On entry to every other traced function. The cookie says which it is and where it has the packet. */
int entered(context *ctx)
{
	u64 cookie, position, a = 0, b = 0, skb;
	u32 function, trait, *traits_of, state = now_recording();
	struct packet *packet;

	if ((state & 0xff) == OFF)
		return 0;
	cookie = bpf_get_attach_cookie_(ctx);
	position = cookie >> 16 & 0xff;
	function = cookie & 0xffff;
	traits_of = traits.lookup(&function);
	trait = traits_of ? *traits_of : 0;
	if (cookie & PKTINFO)
		skb = read_u64(pktinfo_of(ctx, position, trait, &a, &b) + PKTINFO_SKB);
	else
		skb = argument(ctx, position);
	if (!skb)
		return 0;
	packet = packets.lookup(&skb);
	packet = packet ? follow(skb, packet) : born(skb, function, state);
	if (trait & CHAIN)
		a = argument(ctx, 1);
#ifdef LIVE
	if (trait & HOOKS)
		b = hook_of(argument(ctx, position + 1));
#endif
	if (trait & (RETURNS | COPIES | EVALUATES | ROUTES))
		enter(skb, function, trait, packet, trait & EVALUATES ? argument(ctx, 0) : a,
		      trait & EVALUATES ? argument(ctx, 1) : trait & CHAIN ? 0 : b);
	if (!packet)
		return 0;
	if (trait & CHAIN) {
		name_chain(a, skb, packet);
#ifdef LIVE
		b |= (u64)read_u32(a - PRIORITY_BEFORE_CHAIN) << 32;
#endif
	} else if (trait & CAPTURES) {
		a = read_u64(read_u64(argument(ctx, 2) + PACKET_TYPE_PRIV) + SOCK_COOKIE);
	}
	if (!(trait & QUIET)) {
		emit(trait & NOTIFIES ? RULE : HOP, function, skb, packet, a, b);
		emit_stack(ctx, function, skb, packet);
	}
	if (trait & RELEASES)
		packet->released = 1;
	if (trait & FREES && packet->live) {
		gone(skb);
		packets.delete(&skb);
	}
	return 0;
}

/* What a function made of the packet that it was called with; false if that is no sk_buff. */
static __always_inline bool adopt(u64 copy, struct call *call)
{
	struct packet packet = { .number = call->number, .live = call->live }, *kept;

	if (!copy || copy >= -4095UL || copy == call->skb)
		return 0;
	locate(copy, &packet);
	kept = remember(copy, &packet);
	if (kept)
		emit(COPY, call->function, copy, kept, call->skb, 0);
	return 1;
}

/*
 * The innermost call under way, of the function that returns; it is under way no more. The call
 * around it comes with it, if there is one.
 */
static __always_inline bool left(context *ctx, struct call *call, struct call **outer)
{
	u64 id = thread(), depth;
	struct calls *under_way;
	u32 function;

	if ((now_recording() & 0xff) == OFF)
		return 0;
	under_way = calls.lookup(&id);
	if (!under_way || !under_way->depth)
		return 0;
	function = bpf_get_attach_cookie_(ctx) & 0xffff;
	depth = (under_way->depth - 1) & (CALLS - 1);
	*call = under_way->call[depth];
	*outer = depth ? &under_way->call[(depth - 1) & (CALLS - 1)] : 0;
	under_way->depth = depth;
	if (call->function != function)
		add(UNTRACKED);
	if (!depth)
		calls.delete(&id);
	return call->function == function;
}

int returned(context *ctx)
{
	struct packet unplaced = {}, *packet;
	struct call call, *outer;
	u32 trait;

	if (!left(ctx, &call, &outer))
		return 0;
	trait = call.trait;
	if (!call.skb) {
		/* The copy of a stranger is a stranger, whoever had its address before. */
		u64 copy = result(ctx);

		if (trait & COPIES)
			packets.delete(&copy);
		return 0;
	}
	if (trait & COPIES) {
		adopt(result(ctx), &call);
		return 0;
	}
	packet = packets.lookup(&call.skb);
	unplaced.number = call.number;
	if (!packet)
		packet = &unplaced;
#ifdef LIVE
	if (trait & RETURNS && !(trait & QUIET))
		emit(RETURN, call.function, call.skb, packet, result(ctx), trait & CHAIN ? !call.b : call.b);
	if (trait & ROUTES)
		routed(&call, packet);
#else
	emit(RETURN, call.function, call.skb, packet, result(ctx), 0);
#endif
	return 0;
}

/* On return of a function that gives a list of copies. */
int listed(context *ctx)
{
	u64 copy = result(ctx);
	struct call call, *outer;

	if (!left(ctx, &call, &outer) || !call.skb)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < SEGMENTS; i++) {
		if (!adopt(copy, &call))
			return 0;
		copy = read_u64(copy + SKB_NEXT);
	}
	add(UNTRACKED);
	return 0;
}

#ifdef LIVE
/*
 * On return of an expression of nf_tables: tell of the verdict that it gave, if any. A program of
 * its own, for the verifier would follow the search for each way through the other.
 */
int evaluated(context *ctx)
{
	struct packet packet = {}, *known;
	struct call call, *outer;
	u64 code, handle, chain;
	struct rule *rule;
	u32 zero = 0;

	if (!left(ctx, &call, &outer) || !call.skb || !outer || !(outer->trait & CHAIN))
		return 0;
	code = read_u32(call.b);
	if (code == (u32)-1 || code == (u32)-2) /* NFT_CONTINUE, NFT_BREAK */
		return 0;
	if (!(code >> 31))
		outer->b = 1;
	known = packets.lookup(&call.skb);
	if (known)
		packet = *known;
	packet.number = call.number;
	rule = rules.lookup(&call.a);
	if (!rule || read_u64(rule->rule) != rule->head || blob_with(rule->chain, call.a) != rule->blob) {
		rule = searches.lookup(&zero);
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
	emit(VERDICT, call.function, call.skb, &packet, chain,
	     (handle & 0xffffffffffULL) | (code & 0xff) << 40 | (code >> 16) << 48);
	if (code == (u32)-3 || code == (u32)-4) { /* NFT_JUMP, NFT_GOTO */
		chain = read_u64(call.b + VERDICT_CHAIN);
		name_chain(chain, call.skb, &packet);
		emit(TARGET, call.function, call.skb, &packet, chain, 0);
	}
	return 0;
}
#endif

/* On return of the functions that allocate sk_buffs: whoever had the address before is gone. */
int allocated(context *ctx)
{
	u64 skb = result(ctx);

	/* While nothing is recorded no packet is known. */
	if ((now_recording() & 0xff) == OFF || !packets.lookup(&skb))
		return 0;
	gone(skb);
	packets.delete(&skb);
	return 0;
}

int dropped(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	struct packet *packet = packets.lookup(&skb);

	if (packet) {
		emit(DROP, 0, skb, packet, ctx->args[1], (u32)ctx->args[2]);
		emit_stack(ctx, 0, skb, packet);
	}
	return 0;
}
#else
/*
 * Without probes on functions there are tracepoints that are handed a packet, and the stack at each of
 * them, which says what functions the packet is in. harness/tracer/stacks.py makes hops of that.
 *
 * A copy that shares its data is known by skb->head. Addresses, of packets and of data, are known to be
 * given out anew from the tracepoints of the allocator.
 */
BPF_HASH(heads, u64, u32, 65536);
BPF_ARRAY(notify, u64, 2);	/* begin and end of nft_trace_notify() */
BPF_ARRAY(skb_cache, u64, 1);

static __always_inline void visit_at(void *ctx, u8 kind, u64 skb, struct packet *packet, u64 a, u64 b)
{
	struct record *record = begin(kind, 0, skb, packet, a, b, packet->ifindex);

	if (!record)
		return;
	record->bytes = bpf_get_stack(ctx, record->frames, sizeof(record->frames), 0);
	events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline void visit(void *ctx, u64 skb, u8 kind, u64 a, u64 b, bool last)
{
	u32 state = now_recording(), *number;
	struct packet *packet;
	u64 head;

	if ((state & 0xff) == OFF || !skb)
		return;
	packet = packets.lookup(&skb);
	if (!packet && strange(skb, state))
		return;
	head = read_u64(skb + SKB_HEAD);
	number = heads.lookup(&head);
	if (packet && !packet->released) {
		packet = follow(skb, packet);
	} else if (number) {
		struct packet copy = { .number = *number };

		locate(skb, &copy);
		packet = remember(skb, &copy);
	} else if (kind == CONSUMED) {
		return;
	} else {
		packet = born(skb, 0, state);
	}
	if (!packet)
		return;
	heads.update(&head, &packet->number);
	visit_at(ctx, kind, skb, packet, a, b);
	if (last)
		packet->released = 1;
}

/* For all tracepoints that have the packet first and mean nothing special by it. */
int handed(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], VISIT, 0, 0, 0);
	return 0;
}

int netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	u32 zero = 0, *known = receiving.lookup(&zero);

	visit(ctx, skb, RECEIVED, 0, 0, 0);
	if (known)
		*known = packets.lookup(&skb) != 0;
	return 0;
}

int consume_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], CONSUMED, 0, 0, 1);
	return 0;
}

int kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	visit(ctx, ctx->args[0], DROP, ctx->args[1], (u32)ctx->args[2], 1);
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

/*
 * Of an allocation for a message of nf_tables' trace, the stack says which packet it is about. It may be another's,
 * in a namespace that is none of the lab's. a: whether the packet that came in last on this CPU is known, b: whether
 * our own process runs.
 */
int kmem_cache_alloc(struct bpf_raw_tracepoint_args *ctx)
{
	u32 state = now_recording(), first = 0, second = 1, *known = receiving.lookup(&first), *who;
	u64 address = ctx->args[1], near[NEAR] = {}, *begin, *end;
	struct packet unknown = {};
	bool found = 0;

	if ((state & 0xff) == OFF)
		return 0;
	packets.delete(&address);
	heads.delete(&address);
	if (!is_skb_cache(ctx->args[2]))
		return 0;
	begin = notify.lookup(&first);
	end = notify.lookup(&second);
	if (!begin || !end || bpf_get_stack(ctx, near, sizeof(near), 0) < 0)
		return 0;
	for (int i = 0; i < NEAR; i++)
		found |= near[i] > *begin && near[i] <= *end;
	who = ourselves.lookup(&first);
	if (found && known && who)
		visit_at(ctx, RULE, 0, &unknown, *known, !*who || *who == process());
	return 0;
}

int kmem_cache_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[1];
	struct packet *packet = packets.lookup(&address);

	if (packet)
		packet->released = 1;
	return 0;
}

/*
 * A socket has been given a packet, the last in its queue, and nothing happens to that by itself any more. That
 * it is freed later may not be seen: what a program reads may go to a CPU's own cache of sk_buffs
 * (kfree_skb_napi_cache() in net/core/skbuff.c), which is no tracepoint.
 */
int sk_data_ready(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb;
	struct packet *packet;

	if ((now_recording() & 0xff) == OFF)
		return 0;
	skb = read_u64(ctx->args[0] + SOCK_QUEUE_TAIL);
	packet = packets.lookup(&skb);
	if (packet)
		packet->released = 1;
	return 0;
}

int kmalloc(struct bpf_raw_tracepoint_args *ctx)
{
	u64 address = ctx->args[1];

	if ((now_recording() & 0xff) != OFF)
		heads.delete(&address);
	return 0;
}
#endif
