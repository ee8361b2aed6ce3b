# What Docker leaves: a bridge with two containers, another one without, and rules of iptables-nft.
wire eth0 && ip addr add 203.0.113.10/24 dev eth0 && ip route add default via 203.0.113.1
ip link add docker0 type bridge && ip link set docker0 up && ip addr add 172.17.0.1/16 dev docker0
for container in 2 3; do
	wire veth$container && ip link set veth$container master docker0
	ip neigh add 172.17.0.$container lladdr 02:42:ac:11:00:0$container dev docker0 nud permanent
	bridge fdb add 02:42:ac:11:00:0$container dev veth$container master static
done
sysctl -qw net.ipv4.ip_forward=1
