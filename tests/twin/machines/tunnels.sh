# A branch office by GRE, another one by IPIP.
wire wan0 && ip addr add 203.0.113.1/24 dev wan0 && ip route add default via 203.0.113.254
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
ip link add gre1 type gre local 203.0.113.1 remote 198.51.100.1 key 7 && ip link set gre1 up
ip addr add 10.255.0.1/30 dev gre1 && ip route add 192.168.2.0/24 via 10.255.0.2
ip link add ipip1 type ipip local 203.0.113.1 remote 198.51.100.9 && ip link set ipip1 up
ip addr add 10.255.1.1/30 dev ipip1 && ip route add 192.168.3.0/24 dev ipip1
sysctl -qw net.ipv4.ip_forward=1
