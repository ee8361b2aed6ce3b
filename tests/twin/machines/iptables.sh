# A host with rules of iptables-nft and ip6tables-nft, and a table of nft beside them.
wire eth0 && ip addr add 192.0.2.10/24 dev eth0 && ip addr add 2001:db8:192::10/64 dev eth0 nodad
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8:192::1
