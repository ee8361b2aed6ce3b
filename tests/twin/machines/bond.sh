# Two links that are one, with VLANs on it.
wire port0 && wire port1 && ip link set port0 down && ip link set port1 down
ip link add bond0 type bond mode active-backup miimon 100
ip link set port0 master bond0 && ip link set port1 master bond0 && ip link set bond0 up
ip addr add 192.0.2.1/24 dev bond0
ip link add link bond0 name bond0.30 type vlan id 30 && ip link set bond0.30 up && ip addr add 192.168.30.1/24 dev bond0.30
wire mgmt0 && ip addr add 10.0.0.1/24 dev mgmt0 && ip route add default via 192.0.2.254
sysctl -qw net.ipv4.ip_forward=1
