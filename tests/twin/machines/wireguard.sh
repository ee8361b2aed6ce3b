# A WireGuard gateway: clients in one network, an office behind a peer.
wire wan0 && ip addr add 203.0.113.1/24 dev wan0 && ip route add default via 203.0.113.254
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
ip link add wg0 type wireguard && ip addr add 10.8.0.1/24 dev wg0 && ip link set wg0 up
ip route add 192.168.77.0/24 dev wg0
sysctl -qw net.ipv4.ip_forward=1
