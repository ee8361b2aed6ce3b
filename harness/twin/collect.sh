#!/bin/sh
# What nft-harness reads of a machine to make a twin of it. Print it with `nft-harness twin --script`, read it, run it
# as root, and give its output to `nft-harness twin --from FILE`.
#
#   sh collect.sh > fw1.txt         (or: ssh admin@fw1 sudo -n sh -s < collect.sh > fw1.txt)
#
# It needs root, or CAP_NET_ADMIN: nft lists rulesets for nobody else. It writes nothing but its output, changes no
# setting, loads no kernel module (what is not loaded is not asked), and needs no program beyond sh, sed, awk, cat and
# iproute2. It reads no key and no password: of WireGuard the allowed networks and endpoints alone, of IPsec the number
# of policies.
#
# Output: "[NAME]" begins a section, each line of it begins with "|", and its last line is "|=" and the exit status.

set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL

show() { # NAME COMMAND...
	printf '[%s]\n' "$1"
	shift
	{
		"$@" </dev/null
		printf '\n=%d\n' "$?"
	} | sed 's/^/|/'
}

has() { command -v "$1" >/dev/null 2>&1; }

# Whether the kernel has a part, as a module that is loaded or built in. Nothing is loaded by looking.
loaded() { # MODULE FUNCTION
	[ -d "/sys/module/$1" ] || grep -q " [tT] $2\$" /proc/kallsyms 2>/dev/null
}

settings() { # FOLDER NAME...
	folder=$1
	shift
	for name in "$@"; do
		# Names and values: grep reads a file at once, as these have to be.
		grep -s '' /dev/null /proc/sys/net/$folder/$name | sed 's,^/proc/sys/,,'
	done
	return 0
}

sysctls() {
	settings ipv4 ip_forward ip_default_ttl ip_nonlocal_bind ip_forward_use_pmtu fwmark_reflect \
		fib_multipath_hash_policy icmp_echo_ignore_all icmp_echo_ignore_broadcasts icmp_errors_use_inbound_ifaddr \
		tcp_fwmark_accept tcp_l3mdev_accept udp_l3mdev_accept raw_l3mdev_accept
	settings 'ipv4/conf/*' accept_local accept_source_route arp_announce arp_filter arp_ignore bc_forwarding \
		forwarding log_martians proxy_arp route_localnet rp_filter send_redirects src_valid_mark \
		drop_unicast_in_l2_multicast disable_policy disable_xfrm
	settings ipv6 fib_multipath_hash_policy fwmark_reflect ip_nonlocal_bind
	settings ipv6/icmp echo_ignore_all echo_ignore_multicast echo_ignore_anycast
	settings 'ipv6/conf/*' accept_source_route disable_ipv6 forwarding hop_limit proxy_ndp seg6_enabled disable_policy
	settings bridge bridge-nf-call-arptables bridge-nf-call-ip6tables bridge-nf-call-iptables \
		bridge-nf-filter-pppoe-tagged bridge-nf-filter-vlan-tagged bridge-nf-pass-vlan-input-dev
	settings netfilter nf_conntrack_acct nf_conntrack_checksum nf_conntrack_tcp_be_liberal \
		nf_conntrack_tcp_ignore_invalid_rst nf_conntrack_tcp_loose
	settings vrf strict_mode
}

links_of() { ip -j -d link show 2>/dev/null | grep -q "\"info_kind\": *\"$1\""; }

wireguard() {
	wg show all allowed-ips | awk '{ $2 = "-"; print "allowed", $0 }'
	wg show all endpoints | awk '{ $2 = "-"; print "endpoint", $0 }'
	wg show all listen-port | awk '{ print "port", $0 }'
	wg show all fwmark | awk '{ print "mark", $0 }'
}

policies() { ip xfrm policy 2>/dev/null | grep -c '^src '; }

compat() { nft list ruleset 2>&1 >/dev/null | grep 'managed by iptables-nft'; }

names() { cut -d ' ' -f 1 /proc/modules 2>/dev/null; }

[ "$(id -u)" = 0 ] || echo "collect.sh: not run as root: the rulesets will be missing" >&2
has ip || { echo "collect.sh: ip(8) of iproute2 is needed" >&2; exit 1; }

printf 'nft-harness twin 1\n'
show host uname -nr
show links ip -N -j -d link show
show addresses ip -j addr show
show routes4 ip -N -j -d -4 route show table all
show routes6 ip -N -j -d -6 route show table all
show rules4 ip -N -j -4 rule show
show rules6 ip -N -j -6 rule show
show neighbours ip -j neigh show
show sysctls sysctls
show modules names
if has bridge && links_of bridge; then
	show vlans bridge -j vlan show
	show stations bridge -j fdb show
fi
if has wg && links_of wireguard; then
	show wireguard wireguard
fi
if [ -d /sys/module/xfrm_user ]; then
	show xfrm policies
fi
if has nft && loaded nf_tables nf_tables_newrule; then
	show nft nft -a list ruleset
	show compat compat
	# These may ask for extensions that rules of iptables-nft use; where there is no such rule they are not run.
	if [ -n "$(compat)" ]; then
		has iptables-nft-save && show iptables iptables-nft-save
		has ip6tables-nft-save && show ip6tables ip6tables-nft-save
	fi
fi
# These files list the tables of iptables-legacy, where its modules are loaded; another table would be created by a look.
for version in '' 6; do
	names=/proc/net/ip${version}_tables_names
	save=ip${version}tables-legacy-save
	has "$save" || save=ip${version}tables-save
	if [ -r "$names" ] && has "$save" && ! "$save" -V 2>&1 | grep -q nf_tables; then
		for table in $(cat "$names"); do
			show "legacy${version:-4}" "$save" -t "$table"
		done
	fi
done
if [ -d /sys/module/ip_set ] && has ipset; then
	show ipset ipset save
fi
