# A virtual server: an address with no network, and a next hop outside of it.
wire eth0 && ip addr add 203.0.113.77/32 dev eth0
ip route add default via 172.31.1.1 dev eth0 onlink
wire ens10 && ip addr add 10.0.0.2/32 dev ens10
ip route add 10.0.0.1 dev ens10 && ip route add 10.0.0.0/16 via 10.0.0.1 dev ens10
