# Filters at a device and a flow table.
wire wan0 && ip addr add 203.0.113.1/24 dev wan0 && ip route add default via 203.0.113.254
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
sysctl -qw net.ipv4.ip_forward=1
