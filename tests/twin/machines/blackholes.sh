# Routes of all types, settings of single interfaces, and a next hop that is an object.
wire up0 && ip addr add 10.0.0.1/24 dev up0
wire down0 && ip addr add 10.1.0.1/24 dev down0
ip nexthop add id 5 via 10.0.0.9 dev up0 && ip route add default nhid 5
ip route add blackhole 10.2.0.0/16 && ip route add prohibit 10.3.0.0/16 && ip route add unreachable 10.4.0.0/16
ip route add 10.2.7.0/24 via 10.1.0.7 && ip route add local 10.9.0.0/24 dev lo
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.up0.rp_filter=1 net.ipv4.conf.down0.forwarding=0
sysctl -qw net.ipv4.ip_default_ttl=99 net.ipv4.conf.down0.send_redirects=0
