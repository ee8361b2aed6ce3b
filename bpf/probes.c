// SPDX-License-Identifier: GPL-2.0-only
/*
 * Probes on functions, by kprobe.multi, kprobe or fentry.
 *
 * Hooks every traced function on entry (on_entry_plain, on_entry); on return those whose result
 * matters (on_return, on_return_list) and the allocators of sk_buffs (on_return_alloc); and the
 * tracepoint kfree_skb (on_kfree_skb). Emits EVENT_HOP, or EVENT_RULE for nft_trace_notify(), on
 * entry, EVENT_RETURN and EVENT_COPY on return, and EVENT_DROP.
 *
 * A probe's cookie has the function's number, where its packet is, and whether that is a struct
 * nft_pktinfo.
 */

static __always_inline u32 function_of(u64 cookie)
{
	return cookie & ((1 << COOKIE_POSITION_SHIFT) - 1);
}

/* Calls under way, of functions whose return is seen. */

static __always_inline void push_call(u64 skb, u32 function, u32 trait, struct packet *packet,
				      u64 a, u64 b)
{
	u64 id = thread(), top;
	struct calls *stack = calls.lookup(&id), *empty;
	u32 zero = 0;

	if (!stack) {
		empty = empty_calls.lookup(&zero);
		if (!empty)
			return;
		calls.update(&id, empty);
		stack = calls.lookup(&id);
		if (!stack) {
			count(COUNT_UNTRACKED);
			return;
		}
	}
	if (stack->depth >= MAX_CALL_DEPTH) {
		count(COUNT_UNTRACKED);
		return;
	}
	top = stack->depth & (MAX_CALL_DEPTH - 1);
	stack->call[top].skb = packet ? skb : 0;
	stack->call[top].function = function;
	stack->call[top].trait = trait;
	stack->call[top].number = packet ? packet->number : 0;
	stack->call[top].live = packet ? packet->live : 0;
	stack->call[top].a = a;
	stack->call[top].b = b;
	stack->depth++;
}

/*
 * Take the innermost call off, that of the function which returns; false if it is of another one.
 * `outer` becomes the call around it, if there is one.
 */
static __always_inline bool pop_call(context *ctx, struct call *call, struct call **outer)
{
	u64 id = thread(), depth;
	struct calls *stack;
	u32 function;

	if (scope_of(recording_state()) == SCOPE_OFF)
		return 0;
	stack = calls.lookup(&id);
	if (!stack || !stack->depth)
		return 0;
	function = function_of(bpf_get_attach_cookie_(ctx));
	depth = (stack->depth - 1) & (MAX_CALL_DEPTH - 1);
	*call = stack->call[depth];
	*outer = depth ? &stack->call[(depth - 1) & (MAX_CALL_DEPTH - 1)] : 0;
	stack->depth = depth;
	if (call->function != function)
		count(COUNT_UNTRACKED);
	if (!depth)
		calls.delete(&id);
	return call->function == function;
}

/* What the arguments of netfilter's functions say. */

static __always_inline u64 hook_of(u64 state)
{
	return read_u8(state + STATE_HOOK) | (u64)read_u8(state + STATE_PF) << HOOK_FAMILY_SHIFT;
}

/*
 * nft_trace_notify() is called once for each message of nf_tables' trace, and ties the message to
 * the packet: a becomes the handle of the rule, b the packet's id in the trace. Until v6.4 its only
 * argument was a struct nft_traceinfo with all of that.
 */
static __always_inline u64 trace_pktinfo(context *ctx, u64 position, u64 *a, u64 *b)
{
	u64 pktinfo = argument(ctx, position), info, rule;

	if (TRACEINFO_PKT != NO_MEMBER) {
		info = pktinfo;
		rule = read_u64(info + TRACEINFO_RULE);
		pktinfo = read_u64(info + TRACEINFO_PKT);
	} else {
		info = argument(ctx, 3);
		rule = argument(ctx, 2);
	}
	if (rule)
		*a = (read_u64(rule) >> RULE_HANDLE_SHIFT) & ((1ULL << RULE_HANDLE_BITS) - 1);
	if (TRACEINFO_SKBID != NO_MEMBER)
		*b = read_u32(info + TRACEINFO_SKBID);
	return pktinfo;
}

/* The struct nft_pktinfo that a function is passed; a and b become the event's. */
static __always_inline u64 pktinfo_of(context *ctx, u64 position, u32 trait, u64 *a, u64 *b)
{
	u64 pktinfo;

	if (trait & TRAIT_NOTIFIES)
		return trace_pktinfo(ctx, position, a, b);
	pktinfo = argument(ctx, position);
	*b = hook_of(read_u64(pktinfo + PKTINFO_STATE));
	return pktinfo;
}

/*
 * On entry to a function without any trait which has the packet in its first argument: that is two
 * functions of three. The cookie, that kprobe.multi has to search for among all its functions, is
 * looked up only when the packet is followed.
 */
int on_entry_plain(context *ctx)
{
	u64 skb = argument(ctx, 0);
	u32 function, state = recording_state();
	struct packet *packet;

	if (scope_of(state) == SCOPE_OFF || !skb)
		return 0;
	/* No packet of the lab is ever at a foreign device, which is known without a hash. */
	if (is_foreign(skb, state))
		return 0;
	packet = packets.lookup(&skb);
	function = function_of(bpf_get_attach_cookie_(ctx));
	packet = packet ? track_further(skb, packet) : track_new(skb, function, state);
	if (!packet)
		return 0;
	emit(EVENT_HOP, function, skb, packet, 0, 0);
	emit_stack(ctx, function, skb, packet);
	return 0;
}

/* On entry to every other traced function. */
int on_entry(context *ctx)
{
	u64 cookie, position, a = 0, b = 0, skb;
	u32 function, trait, *traits_of, state = recording_state();
	struct packet *packet;

	if (scope_of(state) == SCOPE_OFF)
		return 0;
	cookie = bpf_get_attach_cookie_(ctx);
	position = cookie >> COOKIE_POSITION_SHIFT & 0xff;
	function = function_of(cookie);
	traits_of = traits.lookup(&function);
	trait = traits_of ? *traits_of : 0;
	if (cookie & COOKIE_PKTINFO)
		skb = read_u64(pktinfo_of(ctx, position, trait, &a, &b) + PKTINFO_SKB);
	else
		skb = argument(ctx, position);
	if (!skb)
		return 0;
	packet = packets.lookup(&skb);
	packet = packet ? track_further(skb, packet) : track_new(skb, function, state);
	if (trait & TRAIT_CHAIN)
		a = argument(ctx, 1);
	if (trait & TRAIT_HOOKS)
		b = hook_of(argument(ctx, position + 1));
	if (trait & (TRAIT_RETURNS | TRAIT_COPIES | TRAIT_EVALUATES | TRAIT_ROUTES))
		push_call(skb, function, trait, packet,
			  trait & TRAIT_EVALUATES ? argument(ctx, 0) : a,
			  trait & TRAIT_EVALUATES ? argument(ctx, 1) : trait & TRAIT_CHAIN ? 0 : b);
	if (!packet)
		return 0;
	if (trait & TRAIT_CHAIN) {
		name_chain(a, skb, packet);
		b |= chain_detail(a);
	} else if (trait & TRAIT_CAPTURES) {
		a = read_u64(read_u64(argument(ctx, 2) + PACKET_TYPE_PRIV) + SOCK_COOKIE);
	}
	if (!(trait & TRAIT_QUIET)) {
		emit(trait & TRAIT_NOTIFIES ? EVENT_RULE : EVENT_HOP, function, skb, packet, a, b);
		emit_stack(ctx, function, skb, packet);
	}
	if (trait & TRAIT_RELEASES)
		release(skb);
	if (trait & TRAIT_FREES && packet->live) {
		emit_gone(skb, packet);
		forget(skb);
	}
	return 0;
}

/* Follow the copy that a function made of its packet; false if that is no sk_buff. */
static __always_inline bool track_copy(u64 copy, struct call *call)
{
	struct packet packet = { .number = call->number, .live = call->live }, *kept;

	if (!copy || copy >= -4095UL || copy == call->skb)
		return 0;
	update_dev(copy, &packet);
	kept = track(copy, &packet);
	if (kept)
		emit(EVENT_COPY, call->function, copy, kept, call->skb, 0);
	return 1;
}

int on_return(context *ctx)
{
	struct packet unplaced = {}, *packet;
	struct call call, *outer;
	u64 copy;

	if (!pop_call(ctx, &call, &outer))
		return 0;
	if (!call.skb) {
		/* The copy of a foreign packet is foreign, whatever had its address before. */
		copy = result(ctx);
		if (call.trait & TRAIT_COPIES)
			forget(copy);
		return 0;
	}
	if (call.trait & TRAIT_COPIES) {
		track_copy(result(ctx), &call);
		return 0;
	}
	packet = packets.lookup(&call.skb);
	unplaced.number = call.number;
	if (!packet)
		packet = &unplaced;
	emit_return(&call, packet, result(ctx));
	return 0;
}

/* On return of a function that gives a list of copies. */
int on_return_list(context *ctx)
{
	u64 copy = result(ctx);
	struct call call, *outer;

	if (!pop_call(ctx, &call, &outer) || !call.skb)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < SEGMENTS; i++) {
		if (!track_copy(copy, &call))
			return 0;
		copy = read_u64(copy + SKB_NEXT);
	}
	count(COUNT_UNTRACKED);
	return 0;
}

/* On return of the allocators of sk_buffs: the packet that had the address before is gone. */
int on_return_alloc(context *ctx)
{
	u64 skb = result(ctx);
	struct packet *packet;

	/* While nothing is recorded no packet is known. */
	if (scope_of(recording_state()) == SCOPE_OFF)
		return 0;
	packet = packets.lookup(&skb);
	if (!packet)
		return 0;
	emit_gone(skb, packet);
	forget(skb);
	return 0;
}

int on_kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	struct packet *packet = packets.lookup(&skb);

	if (packet) {
		emit(EVENT_DROP, 0, skb, packet, ctx->args[1], (u32)ctx->args[2]);
		emit_stack(ctx, 0, skb, packet);
	}
	return 0;
}
