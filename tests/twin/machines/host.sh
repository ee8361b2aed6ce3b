# A server with one interface and an address that it serves for others.
wire eth0 && ip addr add 192.0.2.10/24 dev eth0 && ip addr add 192.0.2.11/24 dev eth0
ip addr add 2001:db8:192::10/64 dev eth0 nodad
ip addr add 198.51.100.53/32 dev lo
ip route add default via 192.0.2.1
ip neigh add 192.0.2.50 lladdr 02:00:5e:00:00:50 dev eth0 nud permanent
sysctl -qw net.ipv4.icmp_echo_ignore_all=1
