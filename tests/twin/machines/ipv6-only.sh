# A router without IPv4; its upstream is a link-local address, as by router advertisements.
wire wan0 && ip addr add 2001:db8:ffff::2/64 dev wan0 nodad && ip route add default via fe80::1 dev wan0
wire lan0 && ip addr add 2001:db8:1::1/64 dev lan0 nodad
wire srv0 && ip addr add 2001:db8:2::1/64 dev srv0 nodad
ip -6 route add 2001:db8:3::/48 via 2001:db8:2::5
ip -6 route add unreachable 2001:db8::/32
sysctl -qw net.ipv6.conf.all.forwarding=1
ip -6 route replace default via fe80::1 dev wan0
