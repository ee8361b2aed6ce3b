# Two customers with the same networks behind their routers, each in a VRF, and a management network outside of both.
for name in red blue; do
	table=$([ $name = red ] && echo 10 || echo 20)
	ip link add $name type vrf table $table && ip link set $name up
	ip route add table $table unreachable default metric 4278198272
	wire ${name}0 && ip link set ${name}0 master $name && ip addr add 192.168.$table.1/24 dev ${name}0
	ip route add 10.50.0.0/16 via 192.168.$table.254 table $table
	wire ${name}1 && ip link set ${name}1 master $name && ip addr add 10.0.$table.1/30 dev ${name}1
	ip route add default via 10.0.$table.2 table $table
done
wire mgmt0 && ip addr add 10.255.0.1/24 dev mgmt0
ip route add default via 10.255.0.254
sysctl -qw net.ipv4.ip_forward=1
