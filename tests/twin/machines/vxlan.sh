# A network stretched by VXLAN, bridged with a port.
wire transit && ip addr add 10.0.0.1/24 dev transit && ip route add default via 10.0.0.254
ip link add vx0 type vxlan id 42 local 10.0.0.1 remote 10.0.0.2 dstport 4789 && ip link set vx0 up
ip addr add 192.168.42.1/24 dev vx0
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
sysctl -qw net.ipv4.ip_forward=1
