# A provider's network: customers in VLANs within a VLAN.
wire up0 && wire wan0 && ip addr add 203.0.113.2/30 dev wan0 && ip route add default via 203.0.113.1
ip link add link up0 name up0.100 type vlan protocol 802.1ad id 100 && ip link set up0.100 up
for vlan in 7 8; do
	ip link add link up0.100 name cust$vlan type vlan id $vlan && ip link set cust$vlan up
	ip addr add 10.$vlan.0.1/24 dev cust$vlan
done
sysctl -qw net.ipv4.ip_forward=1
