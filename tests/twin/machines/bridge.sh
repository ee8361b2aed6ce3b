# A firewall in a bridge, without an address but for management.
ip link add br0 type bridge && ip link set br0 up
for port in outside0 inside0 lab0; do
	wire $port && ip link set $port master br0
done
ip addr add 192.0.2.10/24 dev br0
ip addr add 2001:db8:192::10/64 dev br0
ip route add default via 192.0.2.1
ip neigh add 192.0.2.1 lladdr 02:00:5e:00:00:01 dev br0 nud permanent
ip neigh add 192.0.2.77 lladdr 02:00:5e:00:00:77 dev br0 nud permanent
bridge fdb add 02:00:5e:00:00:01 dev outside0 master static
bridge fdb add 02:00:5e:00:00:77 dev inside0 master static
