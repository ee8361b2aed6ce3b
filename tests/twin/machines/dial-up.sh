# A line to one other end only, as of PPP: the default route has no next hop.
wire dsl0 && ip link set dsl0 mtu 1492 && ip addr add 203.0.113.77 peer 198.51.100.254/32 dev dsl0
ip route add default dev dsl0
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
sysctl -qw net.ipv4.ip_forward=1
