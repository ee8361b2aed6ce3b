# IPv6 by a tunnel broker, and a tunnel in IPv6.
wire wan0 && ip addr add 203.0.113.1/24 dev wan0 && ip addr add 2001:db8:5::1/64 dev wan0 nodad
ip route add default via 203.0.113.254
wire lan0 && ip addr add 192.168.1.1/24 dev lan0 && ip addr add 2001:db8:1::1/64 dev lan0 nodad
ip link add he0 type sit local 203.0.113.1 remote 198.51.100.1 ttl 64 && ip link set he0 up
ip addr add 2001:db8:6::2/64 dev he0 && ip -6 route add default dev he0
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
