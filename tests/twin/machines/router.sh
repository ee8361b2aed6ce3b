# A router with a line to the Internet and two networks.
wire wan0 && ip addr add 198.51.100.2/29 dev wan0
wire lan0 && ip addr add 192.168.1.1/24 dev lan0 && ip addr add 2001:db8:1::1/64 dev lan0
wire dmz0 && ip addr add 10.0.2.1/24 dev dmz0
ip route add default via 198.51.100.1
ip route add 10.20.0.0/16 via 192.168.1.254 metric 50
ip route add blackhole 10.0.0.0/8
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.wan0.log_martians=1
