# What Podman leaves with netavark's nftables driver, with IPv6.
wire eth0 && ip addr add 192.0.2.10/24 dev eth0 && ip addr add 2001:db8:192::10/64 dev eth0 nodad
ip route add default via 192.0.2.1
ip link add podman0 type bridge && ip link set podman0 up
ip addr add 10.88.0.1/16 dev podman0 && ip addr add fd00:88::1/64 dev podman0 nodad
wire veth0 && ip link set veth0 master podman0
ip neigh add 10.88.0.2 lladdr 5e:00:00:00:88:02 dev podman0 nud permanent
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
