# A router on a stick: VLANs on one wire, one of them untagged.
wire trunk0 && ip addr add 10.1.0.1/24 dev trunk0
for vlan in 10 20; do
	ip link add link trunk0 name trunk0.$vlan type vlan id $vlan
	ip link set trunk0.$vlan up
	ip addr add 10.1.$vlan.1/24 dev trunk0.$vlan
done
ip addr add 2001:db8:10::1/64 dev trunk0.10 nodad
ip route add default via 10.1.0.254
ip route add 10.2.0.0/16 via 10.1.20.254
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=2
